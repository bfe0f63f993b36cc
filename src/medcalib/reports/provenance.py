"""Say what produced a result."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

import medcalib
from medcalib.calibrators import read_calibrator
from medcalib.data.cases import split_digest
from medcalib.files.writing import read_json
from medcalib.handlers.checkpoint import training_state
from medcalib.handlers.training_record import TrainingRecord, read_record
from medcalib.networks.weights import weights_digest

__all__ = ["collect_provenance", "inference_settings"]

# arguments of inferers that decide how fast it goes, or what is kept beside the prediction
_PACE = {
    "keep_member_labels",
    "sw_batch_size",
    "sw_device",
    "device",
    "progress",
    "cpu_thresh",
    "buffer_steps",
    "buffer_dim",
    "roi_weight_map",
}
_PACKAGES = ("monai", "numpy", "pytorch-ignite", "torch")


def collect_provenance(
    bundle_root: str | Path,
    checkpoints: Sequence[str | Path],
    network: nn.Module,
    split: Mapping[str, Sequence] | None,
    seed: int,
    calibrator_file: str | Path | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Collect what a result depends on; nothing that differs between two equal runs, such as the time.

    Args:
        bundle_root: folder of the bundle.
        checkpoints: files from which the weights were read.
        network: network with these weights.
        split: the dataset's split; None where cases belong to no dataset.
        seed: seed of the run.
        calibrator_file: file of the calibrator that is applied; none when None.
        **settings: whatever else decides the numbers, such as ``num_bins``.

    Returns:
        A dictionary of plain values: name and digest of the bundle, files and digest of the weights, how far each
        training came and which cases it saw, seed, digest of the split, settings, package versions.

    Example:
        >>> network, split = nn.Linear(1, 1), {"test": []}
        >>> found = collect_provenance("bundles/x", ["models/model.pt"], network, split, seed=7, num_bins=20)
        >>> found["bundle"], found["num_bins"], sorted(found["versions"])[:2]
        ('x', 20, ['medcalib', 'monai'])
    """
    metadata_file = Path(bundle_root) / "configs" / "metadata.json"
    metadata = read_json(metadata_file, "generate the bundle again") if metadata_file.exists() else {}
    own = metadata.get("medcalib", {})
    return {
        "bundle": Path(bundle_root).resolve().name,
        "bundle_digest": own.get("digest"),
        "fragments": own.get("fragments"),
        "seed": seed,
        "checkpoint": ", ".join("/".join(Path(path).absolute().parts[-4:]) for path in checkpoints),
        "checkpoint_digest": weights_digest(network.state_dict()),
        "trainings": [_training(folder) for folder in dict.fromkeys(Path(path).parent for path in checkpoints)],
        "calibrator": _calibrator(calibrator_file),
        "split_digest": None if split is None else split_digest(split),
        **settings,
        "versions": {
            "medcalib": medcalib.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in _PACKAGES},
        },
    }


def inference_settings(inferer: Any) -> dict[str, Any]:
    """What decides how an image is predicted, besides the network.

    Args:
        inferer: an inferer, with a sampler or another inferer as one of its attributes, or none.

    Returns:
        Plain values of its attributes by name, in dictionaries those of what it holds; without what only decides how
        fast it goes.

    Example:
        >>> from monai.inferers import SlidingWindowInferer
        >>> inference_settings(SlidingWindowInferer(roi_size=[8, 8], overlap=0.25))["overlap"]
        0.25
    """
    found: dict[str, Any] = {"kind": type(inferer).__qualname__}
    for name, value in sorted(vars(inferer).items()):
        if name.startswith("_") or name in _PACE:
            continue
        if isinstance(value, Enum):
            found[name] = value.value
        elif value is None or isinstance(value, bool | int | float | str | list | tuple):
            found[name] = value if not isinstance(value, tuple) else list(value)
        elif type(value).__module__.startswith(("medcalib.inferers", "monai.inferers")) and hasattr(value, "__dict__"):
            found[name] = inference_settings(value)
    return found


def _training(models_dir: Path) -> dict[str, Any]:
    """How far a training came, by what its epoch was chosen, and a digest of the cases that it saw."""
    state, record = training_state(models_dir), read_record(models_dir)
    cases = None if record is None else _digest(record.cases)
    return {
        "epochs": state and state.epochs,
        "max_epochs": state and state.max_epochs,
        "best_epoch": state and state.best_epoch,
        "chosen_by": state and state.chosen_by,
        "cases_digest": cases,
        **_beginning(record),
        **({"trained_on": record.trained_on} if record is not None and record.trained_on else {}),
    }


def _beginning(record: TrainingRecord | None) -> dict[str, Any]:
    """With which weights of another training it began, if they were given."""
    origin = None if record is None else record.starts_from
    if not origin or "given" not in origin:
        return {}
    seen = None if origin["cases"] is None else _digest(origin["cases"])
    kept = {key: origin[key] for key in ("bundle", "file", "weights_digest", "replaced", "left_out")}
    return {"starts_from": kept | {"cases_digest": seen}}


def _digest(cases: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(cases, sort_keys=True).encode()).hexdigest()


def _calibrator(path: str | Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    content = read_calibrator(path)
    return {
        "kind": content["kind"],
        "digest": weights_digest(content["state"]),
        "split_digest": content["split_digest"],
    }
