"""Compose fragments into a bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from string import Template
from typing import Any

import yaml

from medcalib.bundle.bundle_metadata import make_metadata, read_metadata
from medcalib.bundle.contract import Training, task_of
from medcalib.bundle.data_folds import DataFold, fold_settings
from medcalib.bundle.digest import bundle_digest, config_digest
from medcalib.bundle.fragment_checks import check_fragment
from medcalib.bundle.fragments import FragmentKind, fragment_names, fragment_path, read_yaml
from medcalib.bundle.layout import (
    BOUNDARY,
    CALIBRATED_GUARANTEE_FIT,
    CALIBRATION_CONFIGS,
    CLASSIFICATION,
    CONFIGS,
    DIGEST_PREFIX_LENGTH,
    GUARANTEE_CONFIGS,
    GUARANTEED_IMAGES,
    IGNORED_VOXELS,
    IMAGES,
    INFERENCE_CONFIGS,
    LABEL_CONFIGS,
    METADATA,
    MLFLOW,
    MODE_OVERLAYS,
    MULTI_GPU,
    RATERS,
    SHARED_CONFIGS,
    Mode,
    config_files,
    images_config,
)
from medcalib.bundle.method_names import DEFAULT_METHOD, joined_fragments, known_fragments
from medcalib.bundle.network_settings import check_network_fits, default_network, network_settings
from medcalib.bundle.soft_labels import check_soft_labels, has_soft_labels
from medcalib.errors import UserError
from medcalib.files.folders import FolderDraft

__all__ = ["DEFAULT_METHOD", "generate", "list_fragments"]


def generate(
    templates_dir: Path,
    bundles_dir: Path,
    data: str,
    loss: str,
    method: str,
    network: str | None = None,
    fold: DataFold | None = None,
) -> tuple[Path, bool]:
    """Write the bundle composed of the named fragments, unless it is there already.

    Args:
        templates_dir: the folder holding ``configs/``, ``docs/README.md`` and ``LICENSE``.
        bundles_dir: where bundles lie.
        data: name of a data fragment.
        loss: name of a loss fragment.
        method: name of a method, of a calibrator or of a guarantee, or of several of them joined by ``+``.
        network: name of a network fragment; the data fragment's default when None.
        fold: the fold of a cross-validation; the division that the data fragment says when None.

    Returns:
        The bundle's folder, and whether it was written by this call.

    Raises:
        UserError: a name is unknown, a fragment breaks its contract, data, network, method, calibrator and guarantee do
            not go together, the bundle is there but was edited, or the folder cannot be written.
    """
    sources = _sources(templates_dir / CONFIGS, data, loss, method, network)
    configs = {name: read_yaml(path) for name, path in sources.items()}
    shared = _shared(configs, {} if CLASSIFICATION in sources else read_yaml(templates_dir / CONFIGS / BOUNDARY))
    for kind in FragmentKind:
        if kind in configs:
            check_fragment(sources[kind], kind, configs[kind], shared)
        if kind is FragmentKind.NETWORK:
            shared |= configs[kind]
    settings = network_settings(configs, sources)
    configs[FragmentKind.NETWORK] |= settings
    check_network_fits(configs, sources)
    _check_calibrator_fits(configs, sources)
    _check_guarantee_fits(configs, sources)
    check_soft_labels(configs, sources)
    divided = fold_settings(fold, configs[FragmentKind.DATA]["data"])
    configs[FragmentKind.DATA] |= divided

    digest = config_digest(configs)
    bundle = bundles_dir / f"{data}_{loss}_{method}_{digest[:DIGEST_PREFIX_LENGTH]}"
    if bundle.exists():
        _checked(bundle, digest)
    network = sources[FragmentKind.NETWORK].stem

    def sibling(method: str) -> str:
        return generate(templates_dir, bundles_dir, data, loss, method, network, fold)[0].name

    siblings = _siblings(configs, sources[FragmentKind.METHOD].stem, sibling)
    if bundle.exists():
        return bundle, False

    metadata = make_metadata(configs, digest, {"data": data, "loss": loss, "method": method, "network": network})
    metadata["medcalib"] |= siblings
    if weights_bundle := siblings["weights_bundle"]:
        own = read_metadata(bundles_dir / weights_bundle)["medcalib"]
        metadata["medcalib"]["training_digest"] = own["training_digest"]
    try:
        with FolderDraft(bundle) as draft:
            _write(draft.folder, bundle, templates_dir, sources, metadata, settings, divided)
            draft.publish()
    except FileExistsError:
        # somebody else generated it meanwhile
        return _checked(bundle, digest), False
    except OSError as error:
        raise UserError(
            f"{bundles_dir} cannot be written: {error.strerror}; choose another folder with --bundles_dir."
        ) from None
    return bundle, True


def _shared(configs: Mapping[str, Any], boundary: Mapping[str, Any]) -> dict[str, Any]:
    """What fragments may override: what is there in every mode, and of handlers and metrics of the modes the names."""
    shared: dict[str, Any] = {}
    for name in (*SHARED_CONFIGS, CLASSIFICATION, RATERS):
        shared |= configs.get(name, {})
    for name in ("handlers", "additional_metrics"):
        modes = (*INFERENCE_CONFIGS, Mode.INFERENCE_PRED, Mode.INFERENCE_EVAL, f"{RATERS}_{Mode.INFERENCE_EVAL}")
        of_modes = [*(configs.get(mode, {}) for mode in modes), boundary]
        shared[name] = {part: None for config in of_modes for part in config.get(f"+{name}", ())}
    return shared | {"network_def": {}, "network_modules": {}}


def _checked(bundle: Path, digest: str) -> Path:
    if bundle_digest(bundle) != digest:
        raise UserError(
            f"{bundle} exists, but its configs were edited since it was generated; "
            f"rename that folder to keep it, then generate again."
        )
    return bundle


def list_fragments(configs_dir: Path) -> dict[FragmentKind, dict[str, str]]:
    """Every fragment with its one-line description, by kind."""
    listing: dict[FragmentKind, dict[str, str]] = {}
    for kind in FragmentKind:
        listing[kind] = {}
        for name in fragment_names(configs_dir, kind):
            body = read_yaml(fragment_path(configs_dir, kind, name)).get(kind, {})
            listing[kind][name] = str(body.get("description") or body.get("metadata", {}).get("task", ""))
    return listing


def _sources(configs_dir: Path, data: str, loss: str, method: str, network: str | None) -> dict[str, Path]:
    names = [*SHARED_CONFIGS, *INFERENCE_CONFIGS, Mode.INFERENCE_PRED, Mode.INFERENCE_EVAL, "debug"]
    sources = {str(name): configs_dir / f"{name}.yaml" for name in names}
    sources[FragmentKind.DATA] = fragment_path(configs_dir, FragmentKind.DATA, data)
    sources[FragmentKind.LOSS] = fragment_path(configs_dir, FragmentKind.LOSS, loss)
    about = read_yaml(sources[FragmentKind.DATA]).get(FragmentKind.DATA)
    about = about if isinstance(about, dict) else {}  # it may still break its contract
    name = default_network(about) if network is None else network
    sources[FragmentKind.NETWORK] = fragment_path(configs_dir, FragmentKind.NETWORK, name)
    if task_of(about) == CLASSIFICATION:
        sources[CLASSIFICATION] = configs_dir / f"{CLASSIFICATION}.yaml"
        for mode in (Mode.INFERENCE_PRED, Mode.INFERENCE_EVAL):
            sources[str(mode)] = configs_dir / CLASSIFICATION / f"{mode}.yaml"
    for kind, is_so in ((IGNORED_VOXELS, about.get("ignore_label") is not None), (RATERS, has_soft_labels(about))):
        sources |= {name: configs_dir / f"{name}.yaml" for name in LABEL_CONFIGS[kind] if is_so}
    joined = joined_fragments(method, known_fragments(configs_dir))
    fits: list[str] = []
    if FragmentKind.CALIBRATOR in joined:
        fits += CALIBRATION_CONFIGS
    if FragmentKind.GUARANTEE in joined:
        fits += GUARANTEE_CONFIGS
        fits += [CALIBRATED_GUARANTEE_FIT] if FragmentKind.CALIBRATOR in joined else []
    sources |= {name: configs_dir / f"{name}.yaml" for name in fits}
    if CLASSIFICATION in sources:
        of_images = {name: configs_dir / CLASSIFICATION / f"{name}.yaml" for name in fits}
        sources |= {name: path for name, path in of_images.items() if path.exists()}
    return sources | {kind: fragment_path(configs_dir, kind, name) for kind, name in joined.items()}


def _check_calibrator_fits(configs: Mapping[str, Any], sources: Mapping[str, Path]) -> None:
    if FragmentKind.CALIBRATOR not in configs:
        return
    method, calibrator = (configs[kind][kind] for kind in (FragmentKind.METHOD, FragmentKind.CALIBRATOR))
    if calibrator.get("acts_on") == "network" and method.get("network_returns") == "several":
        raise UserError(
            f"{sources[FragmentKind.CALIBRATOR].stem} changes the network, so it needs one that returns a single "
            f"prediction, but {sources[FragmentKind.METHOD].stem} has several networks or heads; join it to another "
            f"method, or take a calibrator of logits, such as temperature_scaling."
        )


def _check_guarantee_fits(configs: Mapping[str, Any], sources: Mapping[str, Path]) -> None:
    if FragmentKind.GUARANTEE not in configs:
        return
    task = task_of(configs[FragmentKind.DATA]["data"])
    if (made_for := task_of(configs[FragmentKind.GUARANTEE]["guarantee"])) != task:
        raise UserError(
            f"The guarantee {sources[FragmentKind.GUARANTEE].stem} is made for {made_for}, but the task of "
            f"{sources[FragmentKind.DATA].stem} is {task}; choose another that --list shows, or leave it out."
        )


def _siblings(configs: dict[str, Any], sampler: str, sibling: Callable[[str], str]) -> dict[str, str | None]:
    """Generate the bundles whose weights this one uses, and name them."""
    training = configs[FragmentKind.METHOD]["method"].get("training", Training.OWN)
    weights = None
    if sampler != DEFAULT_METHOD and training == Training.DETERMINISTIC:
        weights = sibling(DEFAULT_METHOD)
    elif FragmentKind.CALIBRATOR in configs or FragmentKind.GUARANTEE in configs:
        weights = sibling(sampler)
    starts_from_sibling = training == Training.FINE_TUNED
    return {
        "weights_bundle": weights,
        "initial_weights_bundle": sibling(DEFAULT_METHOD) if starts_from_sibling else None,
    }


def _write(
    folder: Path,
    bundle: Path,
    templates_dir: Path,
    sources: Mapping[str, Path],
    metadata: dict[str, Any],
    network_settings: dict[str, Any],
    fold_settings: dict[str, Any],
) -> None:
    configs_dir = folder / CONFIGS
    (folder / "docs").mkdir(parents=True)
    configs_dir.mkdir()
    for name, path in sources.items():
        shutil.copyfile(path, configs_dir / f"{name}.yaml")
    suits = f"what suits the data, as {sources[FragmentKind.DATA].name} says"
    _append(configs_dir / f"{FragmentKind.NETWORK}.yaml", network_settings, suits)
    _append(configs_dir / f"{FragmentKind.DATA}.yaml", fold_settings, "the fold of a cross-validation that is held out")
    for name in (MLFLOW, MULTI_GPU):
        shutil.copyfile(templates_dir / CONFIGS / name, configs_dir / name)
    if CLASSIFICATION not in sources:
        for name in chain.from_iterable(MODE_OVERLAYS.values()):
            shutil.copyfile(templates_dir / CONFIGS / name, configs_dir / name)
    shutil.copyfile(images_config(templates_dir, CLASSIFICATION in sources), configs_dir / IMAGES)
    if FragmentKind.GUARANTEE in sources:
        guaranteed = images_config(templates_dir, CLASSIFICATION in sources, GUARANTEED_IMAGES)
        shutil.copyfile(guaranteed, configs_dir / GUARANTEED_IMAGES)
    shutil.copyfile(templates_dir / CONFIGS / "logging.conf", configs_dir / "logging.conf")
    shutil.copyfile(templates_dir / "LICENSE", folder / "LICENSE")
    (configs_dir / METADATA).write_text(json.dumps(metadata, indent=4) + "\n", encoding="utf-8")
    readme = Template((templates_dir / "docs" / "README.md").read_text(encoding="utf-8"))
    (folder / "docs" / "README.md").write_text(
        readme.substitute(_readme_fields(configs_dir, bundle, metadata)), encoding="utf-8"
    )


def _append(path: Path, settings: Mapping[str, Any], comment: str) -> None:
    if settings:
        with path.open("a", encoding="utf-8") as file:
            file.write(f"\n# {comment}\n")
            yaml.safe_dump(dict(settings), file, sort_keys=False, allow_unicode=True)


def _readme_fields(configs_dir: Path, bundle: Path, metadata: dict[str, Any]) -> dict[str, str]:
    def monai_command(mode: Mode) -> str:
        files = ",".join(f"'{bundle / CONFIGS / path.name}'" for path in config_files(configs_dir, mode))
        return (
            f'python -m monai.bundle run --config_file "[{files}]" \\\n'
            f"    --meta_file {bundle / CONFIGS / METADATA} --logging_file {bundle / CONFIGS / 'logging.conf'} \\\n"
            f"    --bundle_root {bundle}"
        )

    own = metadata["medcalib"]
    return {
        "name": bundle.name,
        "description": metadata["description"],
        "data": own["fragments"]["data"],
        "loss": own["fragments"]["loss"],
        "method": own["fragments"]["method"],
        "network": own["fragments"]["network"],
        "digest": own["digest"],
        "licence": metadata["data_licence"],
        "source": metadata["data_source"],
        "classes": metadata["label_classes"],
        "images": " and ".join(
            str(bundle / CONFIGS / name) for name in (IMAGES, GUARANTEED_IMAGES) if (configs_dir / name).exists()
        ),
        **{f"monai_{mode}": monai_command(mode) for mode in Mode},
    }
