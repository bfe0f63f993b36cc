"""Compose fragments into a bundle."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from string import Template
from typing import Any

import yaml

import medcalib
from medcalib.bundle.contract import CONTRACTS, MODULES, TASKS, Training, check_fragment, check_value, field_of, lookup
from medcalib.bundle.digest import bundle_digest, config_digest, training_digest
from medcalib.bundle.fragments import FragmentKind, fragment_names, fragment_path, read_yaml, walk
from medcalib.bundle.layout import (
    CALIBRATION_CONFIGS,
    CLASSIFICATION,
    CONFIGS,
    DIGEST_PREFIX_LENGTH,
    INFERENCE_CONFIGS,
    METADATA,
    SHARED_CONFIGS,
    Mode,
    config_files,
)
from medcalib.errors import UserError, suggestion
from medcalib.files.folders import FolderDraft

__all__ = ["DEFAULT_METHOD", "generate", "list_fragments", "read_metadata"]

DEFAULT_METHOD = "deterministic"
DEFAULT_NETWORKS = {"segmentation": "segresnet_ds", CLASSIFICATION: "resnet50"}

_MODULES_OF_NETWORK = re.compile(r"@network_modules::(\w+)")

_SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"


def generate(
    templates_dir: Path, bundles_dir: Path, data: str, loss: str, method: str, network: str | None = None
) -> tuple[Path, bool]:
    """Write the bundle composed of the named fragments, unless it is there already.

    Args:
        templates_dir: the folder holding ``configs/``, ``docs/README.md`` and ``LICENSE``.
        bundles_dir: where bundles lie.
        data: name of a data fragment.
        loss: name of a loss fragment.
        method: name of a method, of a calibrator, or of both joined by ``+``.
        network: name of a network fragment; the data fragment's default when None.

    Returns:
        The bundle's folder, and whether it was written by this call.

    Raises:
        UserError: a name is unknown, a fragment breaks its contract, network, method and calibrator do not go
            together, the bundle is there but was edited, or the folder cannot be written.
    """
    sources = _sources(templates_dir / CONFIGS, data, loss, method, network)
    configs = {name: read_yaml(path) for name, path in sources.items()}
    shared = _shared(configs)
    for kind in FragmentKind:
        if kind in configs:
            check_fragment(sources[kind], kind, configs[kind], shared)
        if kind is FragmentKind.NETWORK:
            shared |= configs[kind]
    settings = _network_settings(configs, sources)
    configs[FragmentKind.NETWORK] |= settings
    _check_network_fits(configs, sources)
    _check_calibrator_fits(configs, sources)

    digest = config_digest(configs)
    bundle = bundles_dir / f"{data}_{loss}_{method}_{digest[:DIGEST_PREFIX_LENGTH]}"
    if bundle.exists():
        _checked(bundle, digest)
    network = sources[FragmentKind.NETWORK].stem
    siblings = _siblings(templates_dir, bundles_dir, configs, data, loss, sources[FragmentKind.METHOD].stem, network)
    if bundle.exists():
        return bundle, False

    metadata = _metadata(configs, digest, {"data": data, "loss": loss, "method": method, "network": network})
    metadata["medcalib"] |= siblings
    if weights_bundle := siblings["weights_bundle"]:
        own = read_metadata(bundles_dir / weights_bundle)["medcalib"]
        metadata["medcalib"]["training_digest"] = own["training_digest"]
    try:
        with FolderDraft(bundle) as draft:
            _write(draft.folder, bundle, templates_dir, sources, metadata, settings)
            draft.publish()
    except FileExistsError:
        # somebody else generated it meanwhile
        return _checked(bundle, digest), False
    except OSError as error:
        raise UserError(
            f"{bundles_dir} cannot be written: {error.strerror}; choose another folder with --bundles_dir."
        ) from None
    return bundle, True


def _shared(configs: Mapping[str, Any]) -> dict[str, Any]:
    """What fragments may override: what is there in every mode, and of handlers and metrics of the modes the names."""
    shared: dict[str, Any] = {}
    for name in (*SHARED_CONFIGS, CLASSIFICATION):
        shared |= configs.get(name, {})
    for name in ("handlers", "additional_metrics"):
        modes = (*INFERENCE_CONFIGS, Mode.INFERENCE_PRED, Mode.INFERENCE_EVAL)
        shared[name] = {part: None for mode in modes for part in configs[mode].get(f"+{name}", ())}
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
            body = read_yaml(configs_dir / kind / f"{name}.yaml").get(kind, {})
            listing[kind][name] = str(body.get("description") or body.get("metadata", {}).get("task", ""))
    return listing


def read_metadata(bundle: Path) -> dict[str, Any]:
    """The parsed ``configs/metadata.json`` of a bundle.

    Raises:
        UserError: the folder is no bundle of this project.
    """
    path = bundle / CONFIGS / METADATA
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
        whole = _is_whole(metadata["medcalib"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise UserError(
            f"{bundle} is not a bundle made by medcalib generate: {path} is missing, damaged or lacks the medcalib "
            f"part; generate it again in another folder."
        )
    return metadata


def _is_whole(own: dict[str, Any]) -> bool:
    """Whether the part of the metadata that is this package's has all that is read of it."""
    texts = [own["digest"], own["training_digest"], *(own["fragments"][kind] for kind in ("data", "loss", "method"))]
    names = [own["weights_bundle"], own["initial_weights_bundle"]]
    return all(isinstance(text, str) for text in texts) and all(isinstance(name, str | None) for name in names)


def _sources(configs_dir: Path, data: str, loss: str, method: str, network: str | None) -> dict[str, Path]:
    names = [*SHARED_CONFIGS, *INFERENCE_CONFIGS, Mode.INFERENCE_PRED, Mode.INFERENCE_EVAL, "debug"]
    sources = {str(name): configs_dir / f"{name}.yaml" for name in names}
    sources[FragmentKind.DATA] = fragment_path(configs_dir, FragmentKind.DATA, data)
    sources[FragmentKind.LOSS] = fragment_path(configs_dir, FragmentKind.LOSS, loss)
    about = read_yaml(sources[FragmentKind.DATA])
    task = lookup(about, "data::task")[1] or TASKS[0]
    if network is None:
        network = _default_network(lookup(about, "data")[1])
    sources[FragmentKind.NETWORK] = fragment_path(configs_dir, FragmentKind.NETWORK, network)
    if task == CLASSIFICATION:
        sources[CLASSIFICATION] = configs_dir / f"{CLASSIFICATION}.yaml"
        for mode in (Mode.INFERENCE_PRED, Mode.INFERENCE_EVAL):
            sources[str(mode)] = configs_dir / CLASSIFICATION / f"{mode}.yaml"
    sampler, plus, calibrator = method.partition("+")
    if not plus and sampler in fragment_names(configs_dir, FragmentKind.CALIBRATOR):
        sampler, plus, calibrator = DEFAULT_METHOD, "+", sampler
    sources[FragmentKind.METHOD] = fragment_path(configs_dir, FragmentKind.METHOD, sampler)
    if plus:
        sources |= {name: configs_dir / f"{name}.yaml" for name in CALIBRATION_CONFIGS}
        sources[FragmentKind.CALIBRATOR] = fragment_path(configs_dir, FragmentKind.CALIBRATOR, calibrator)
    return sources


def _default_network(data: Any) -> str:
    """The network of a data fragment that may still break its contract."""
    own = data if isinstance(data, dict) else {}
    task = own.get("task") or TASKS[0]
    return own.get("default_network") or DEFAULT_NETWORKS.get(task, task)


def _network_settings(configs: Mapping[str, Any], sources: Mapping[str, Path]) -> dict[str, Any]:
    """Settings that the data fragment has for the network, by id; those for other networks are checked, too."""
    path, folder = sources[FragmentKind.DATA], sources[FragmentKind.NETWORK].parent
    found: dict[str, Any] = {}
    data = configs[FragmentKind.DATA]["data"]
    of_default = {_default_network(data): data["network"]} if "network" in data else {}
    for name, given in [*of_default.items(), *data.get("networks", {}).items()]:
        what = f"{path}: data::network{'' if given is data.get('network') else f's::{name}'}"
        try:
            settings = read_yaml(fragment_path(folder.parent, FragmentKind.NETWORK, str(name)))["network"]
        except UserError as error:
            raise UserError(f"{what}: {error}") from None
        if not isinstance(given, dict):
            raise UserError(f"{what} must be a mapping of settings of network/{name}.yaml, not {given!r}.")
        known = [key for key in settings if key not in CONTRACTS[FragmentKind.NETWORK]]
        for key, value in given.items():
            if key not in known:
                raise UserError(f"{what}::{key} is no setting of network/{name}.yaml{suggestion(str(key), known)}")
            if (field := field_of(f"network::{key}")) is not None:
                check_value(f"{what}::{key}", field, value)
        if name == sources[FragmentKind.NETWORK].stem:
            found |= {f"network::{key}": value for key, value in given.items()}
    return found


def _check_network_fits(configs: Mapping[str, Any], sources: Mapping[str, Path]) -> None:
    network, data = configs[FragmentKind.NETWORK], configs[FragmentKind.DATA]["data"]
    name, task = sources[FragmentKind.NETWORK].stem, data.get("task", TASKS[0])
    if (made_for := network["network"].get("task", TASKS[0])) != task:
        raise UserError(
            f"The network {name} is made for {made_for}, but the task of {sources[FragmentKind.DATA].stem} is {task}; "
            f"leave out --network, or choose another that --list shows."
        )
    for kind in (FragmentKind.METHOD, FragmentKind.CALIBRATOR):
        for _, value in walk(configs.get(kind, {})):
            for part in _MODULES_OF_NETWORK.findall(value) if isinstance(value, str) else ():
                if not network.get("network_modules", {}).get(part):
                    raise UserError(
                        f"{sources[kind].stem} attaches to the {part} of a network ({MODULES.get(part)}), which "
                        f"{sources[FragmentKind.NETWORK]} does not name under network_modules; choose another network "
                        f"or another {kind}."
                    )


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


def _siblings(
    templates_dir: Path, bundles_dir: Path, configs: dict[str, Any], data: str, loss: str, sampler: str, network: str
) -> dict[str, str | None]:
    """Generate the bundles whose weights this one uses, and name them."""

    def sibling(method: str) -> str:
        return generate(templates_dir, bundles_dir, data, loss, method, network)[0].name

    training = configs[FragmentKind.METHOD]["method"].get("training", Training.OWN)
    weights = None
    if sampler != DEFAULT_METHOD and training == Training.DETERMINISTIC:
        weights = sibling(DEFAULT_METHOD)
    elif FragmentKind.CALIBRATOR in configs:
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
) -> None:
    configs_dir = folder / CONFIGS
    (folder / "docs").mkdir(parents=True)
    configs_dir.mkdir()
    for name, path in sources.items():
        shutil.copyfile(path, configs_dir / f"{name}.yaml")
    if network_settings:
        with (configs_dir / f"{FragmentKind.NETWORK}.yaml").open("a", encoding="utf-8") as file:
            file.write(f"\n# what suits the data, as {sources[FragmentKind.DATA].name} says\n")
            yaml.safe_dump(network_settings, file, sort_keys=False, allow_unicode=True)
    shutil.copyfile(templates_dir / CONFIGS / "logging.conf", configs_dir / "logging.conf")
    shutil.copyfile(templates_dir / "LICENSE", folder / "LICENSE")
    (configs_dir / METADATA).write_text(json.dumps(metadata, indent=4) + "\n", encoding="utf-8")
    readme = Template((templates_dir / "docs" / "README.md").read_text(encoding="utf-8"))
    (folder / "docs" / "README.md").write_text(
        readme.substitute(_readme_fields(configs_dir, bundle, metadata)), encoding="utf-8"
    )


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
        **{f"monai_{mode}": monai_command(mode) for mode in Mode},
    }


def _metadata(configs: dict[str, Any], digest: str, fragments: dict[str, str]) -> dict[str, Any]:
    data = configs[FragmentKind.DATA]["data"]
    about = data["metadata"]
    classes = [str(name) for name in data["class_names"]]
    channels = [str(name) for name in data["channel_names"]]
    classifies = data.get("task") == CLASSIFICATION
    return {
        "schema": _SCHEMA,
        "version": medcalib.__version__,
        "changelog": {medcalib.__version__: "generated by medcalib"},
        "monai_version": _version("monai"),
        "pytorch_version": _version("torch"),
        "numpy_version": _version("numpy"),
        "required_packages_version": {
            name: _version(name)
            for name in ("pytorch-ignite", "nibabel", "scipy", "matplotlib", "pandas", "tensorboard")
        },
        "name": f"{about['title']}: {fragments['loss']}, {fragments['method']}",
        "task": about["task"],
        "description": f"{about['description']} Loss: {fragments['loss']}. Method: {fragments['method']}.",
        "authors": "The medcalib developers",
        "copyright": "Copyright (c) The medcalib developers, Apache-2.0",
        "data_source": about["source"],
        "data_licence": about["licence"],
        "data_type": about.get("data_type", "nifti"),
        "image_classes": ", ".join(channels),
        "label_classes": ", ".join(f"{index}: {name}" for index, name in enumerate(classes)),
        "pred_classes": ", ".join(f"{index}: {name}" for index, name in enumerate(classes)),
        "intended_use": "Research only; not for diagnosis.",
        "references": [about["reference"]] if "reference" in about else [],
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": about.get("format", "magnitude"),
                    "modality": about["modality"],
                    "num_channels": len(channels),
                    "spatial_shape": list(data["patch_size"]),
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": not classifies,
                    "channel_def": {str(index): name for index, name in enumerate(channels)},
                }
            },
            "outputs": {
                "pred": {
                    "type": "probabilities" if classifies else "image",
                    "format": "logits",
                    "num_channels": len(classes),
                    "spatial_shape": [1, len(classes)] if classifies else list(data["patch_size"]),
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": not classifies,
                    "channel_def": {str(index): name for index, name in enumerate(classes)},
                }
            },
        },
        "medcalib": {
            "version": medcalib.__version__,
            "fragments": fragments,
            "digest": digest,
            "training_digest": training_digest(configs),
        },
    }


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "0"
