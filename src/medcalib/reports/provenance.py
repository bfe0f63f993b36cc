"""Say what produced a result."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

import medcalib
from medcalib.calibrators import read_calibrator
from medcalib.data.cases import split_digest
from medcalib.files.writing import read_json
from medcalib.handlers.checkpoint import training_state
from medcalib.handlers.training_record import read_record
from medcalib.networks.weights import weights_digest

__all__ = ["collect_provenance"]

_PACKAGES = ("monai", "numpy", "pytorch-ignite", "torch")


def collect_provenance(
    bundle_root: str | Path,
    checkpoints: Sequence[str | Path],
    network: nn.Module,
    split: Mapping[str, Sequence],
    seed: int,
    calibrator_file: str | Path | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Collect what a result depends on; nothing that differs between two equal runs, such as the time.

    Args:
        bundle_root: folder of the bundle.
        checkpoints: files from which the weights were read.
        network: network with these weights.
        split: the dataset's split.
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
        "split_digest": split_digest(split),
        **settings,
        "versions": {
            "medcalib": medcalib.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in _PACKAGES},
        },
    }


def _training(models_dir: Path) -> dict[str, Any]:
    """How far a training came, by what its epoch was chosen, and a digest of the cases that it saw."""
    state, record = training_state(models_dir), read_record(models_dir)
    cases = None if record is None else hashlib.sha256(json.dumps(record.cases, sort_keys=True).encode()).hexdigest()
    return {
        "epochs": state and state.epochs,
        "max_epochs": state and state.max_epochs,
        "best_epoch": state and state.best_epoch,
        "chosen_by": state and state.chosen_by,
        "cases_digest": cases,
    }


def _calibrator(path: str | Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    content = read_calibrator(path)
    return {
        "kind": content["kind"],
        "digest": weights_digest(content["state"]),
        "split_digest": content["split_digest"],
    }
