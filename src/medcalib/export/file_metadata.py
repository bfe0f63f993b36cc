"""What is to be known beside a file that holds a network: labels, geometry, intensities, thresholds, origin."""

from __future__ import annotations

import re
from typing import Any

from medcalib.bundle.resolve import resolved_value
from medcalib.calibrators import read_calibrator
from medcalib.export.trained_bundle import TrainedBundle
from medcalib.export.window import WindowNetwork, window_shape
from medcalib.reports import inference_settings

__all__ = ["file_metadata"]

_OF_INTENSITY = re.compile(r"Intensity|Clip|Histogram|Foregroundd$")


def file_metadata(trained: TrainedBundle, network: WindowNetwork, kind: str) -> dict[str, Any]:
    """Plain values that say what goes into the file, what comes out, and where it stems from.

    Args:
        trained: the bundle.
        network: what is in the file.
        kind: format of the file.
    """
    content = trained.content
    data, task = trained.config["data"], content("task")
    steps = _resolved(trained, "data::preprocessing", data["preprocessing"])
    window = window_shape(trained)
    classes = [str(name) for name in content("data::class_names")]
    shapes: dict[str, Any] = {"probabilities": ["batch", len(classes)]}
    if not trained.bundle.classifies:
        shapes["probabilities"] += window
    if "entropy" in network.outputs:
        shapes["entropy"] = ["batch", 1, *shapes["probabilities"][2:]]
    calibrator = None
    if trained.calibrator_file is not None:
        found = read_calibrator(trained.calibrator_file)
        calibrator = {
            **(trained.provenance["calibrator"] or {}),
            "calibrates": "network" if trained.prepared else content("calibrator::calibrate"),
            "parameters": found["report"].get("parameters"),
        }
    evaluation = trained.evaluation
    return {
        "format": kind,
        "bundle": trained.bundle.name,
        "bundle_digest": trained.bundle.digest,
        "fragments": trained.bundle.fragments,
        "seed": trained.seed,
        "weights_digest": trained.provenance["checkpoint_digest"],
        "task": data["metadata"]["task"],
        "intended_use": "Research only; not for diagnosis.",
        "data_licence": data["metadata"]["licence"],
        "modality": data["metadata"]["modality"],
        "labels": {str(index): name for index, name in enumerate(classes)},
        "label_values": data.get("label_map"),
        "regions": data.get("regions"),
        "activation": task.activation.value,
        "channels": {str(index): str(name) for index, name in enumerate(content("data::channel_names"))},
        "patch_size": content("data::patch_size"),
        "window": window,
        "spacing": next((step["pixdim"] for step in reversed(steps) if _name(step) == "Spacingd"), None),
        "orientation": next((step["axcodes"] for step in reversed(steps) if _name(step) == "Orientationd"), None),
        "normalisation": [step for step in steps if _OF_INTENSITY.search(_name(step))],
        "preprocessing": steps,
        "windows_of_an_image": inference_settings(content("inferer")),
        "inputs": {"image": {"shape": ["batch", len(content("data::channel_names")), *window], "dtype": "float32"}},
        "outputs": {
            name: {"shape": shape, "dtype": "float32", "unit": "nats" if name == "entropy" else None}
            for name, shape in shapes.items()
        },
        "calibrator": calibrator,
        "thresholds": trained.thresholds,
        "thresholds_space": None if evaluation is None else (evaluation.get("provenance") or {}).get("space"),
        "versions": trained.provenance["versions"],
    }


def _name(step: Any) -> str:
    return str(step.get("_target_", "")).rpartition(".")[2] if isinstance(step, dict) else ""


def _resolved(trained: TrainedBundle, id_: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _resolved(trained, f"{id_}::{key}", item) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolved(trained, f"{id_}::{index}", item) for index, item in enumerate(value)]
    return resolved_value(id_, value, trained.config, trained.parser)
