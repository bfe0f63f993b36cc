"""What lies where in a bundle."""

from __future__ import annotations

from enum import StrEnum
from itertools import chain
from pathlib import Path

from medcalib.bundle.fragments import FragmentKind

__all__ = [
    "BOUNDARY",
    "CALIBRATED_GUARANTEE_FIT",
    "CALIBRATION_CONFIGS",
    "CLASSIFICATION",
    "CONFIGS",
    "CORRUPTION_CONFIG",
    "CORRUPTION_FIGURES",
    "COST",
    "DEFAULT_SEED",
    "DIGEST_PREFIX_LENGTH",
    "GUARANTEED_IMAGES",
    "GUARANTEE_CONFIGS",
    "IGNORED_VOXELS",
    "IMAGES",
    "INFERENCE_CONFIGS",
    "INITIAL_WEIGHTS",
    "LABEL_CONFIGS",
    "LABEL_FILES",
    "METADATA",
    "MLFLOW",
    "MODE_OVERLAYS",
    "MULTI_GPU",
    "POOR_CASES",
    "RATERS",
    "SHARED_CONFIGS",
    "Mode",
    "bundle_configs",
    "config_files",
    "images_config",
]

CONFIGS = "configs"
IMAGES = "images.yaml"
"""File of `CONFIGS` that is merged last to predict images of no dataset; no digest is taken of it."""

GUARANTEED_IMAGES = "guaranteed_images.yaml"
"""File of `CONFIGS` that is merged after `IMAGES` in bundles with a guarantee; as `IMAGES`."""

MULTI_GPU = "multi_gpu.yaml"
"""File of `CONFIGS` that is merged, before that of debug runs, where several processes share a run; as `IMAGES`."""

INITIAL_WEIGHTS = "initial_weights.yaml"
"""File of the templates' `CONFIGS` that is merged, as `MULTI_GPU`, where a training begins with weights of another."""

LABEL_FILES = "label_files.yaml"
"""File of `CONFIGS` that is merged after the mode's own to predict maps, not classes of images; as `IMAGES`."""

BOUNDARY = "boundary.yaml"
"""File of `CONFIGS` that is merged after the mode's own to evaluate maps, not classes of images; as `IMAGES`."""

POOR_CASES = "poor_cases.yaml"
"""File of `CONFIGS` that is merged after the mode's own to evaluate maps, not classes of images; as `IMAGES`."""

MLFLOW = "mlflow.yaml"
"""File of `CONFIGS` that is merged, before `MULTI_GPU`, to record a training in MLflow; as `IMAGES`."""

CORRUPTION_CONFIG = "corruption.yaml"
"""File of the templates' `CONFIGS` that is merged, as `MULTI_GPU`, where images of test cases are made worse."""

CORRUPTION_FIGURES = "corruption_figures.yaml"
"""File of the templates' `CONFIGS` that is merged after `CORRUPTION_CONFIG` to predict maps."""

METADATA = "metadata.json"
COST = "cost"
DIGEST_PREFIX_LENGTH = 8

DEFAULT_SEED = 12345
"""The seed of a run that is given none, as the shared configuration has it."""

SHARED_CONFIGS = ("common", "train", "validation")
"""Merged in every mode, so that a fragment may override any of their ids whatever the mode."""

CLASSIFICATION = "classification"
"""Shared file, and folder of mode files, of data fragments whose task is classification."""

IGNORED_VOXELS = "ignored"
"""Shared file of data fragments with an ``ignore_label``."""

RATERS = "raters"
"""Shared file of bundles whose cases have several raters or a soft label."""

LABEL_CONFIGS = {
    IGNORED_VOXELS: (IGNORED_VOXELS, f"{IGNORED_VOXELS}_inference_eval"),
    RATERS: (RATERS, f"{RATERS}_inference_pred", f"{RATERS}_inference_eval"),
}
"""What only data have whose labels are more than a class for every voxel: by the shared file, it and those of modes."""

INFERENCE_CONFIGS = ("weights", "inference")
"""Merged before the file of a mode that predicts: what all use that use trained weights, and what all that predict."""

CALIBRATION_CONFIGS = ("calibration", "calibration_fit")
"""What only bundles with a calibrator have: how it is applied in every mode, and how it is fitted by a training."""

GUARANTEE_CONFIGS = ("guaranteed", "guaranteed_inference_pred", "guaranteed_inference_eval", "guarantee_fit")
"""What only bundles with a guarantee have: what every mode shares, each of the modes that predict, and the fit."""

CALIBRATED_GUARANTEE_FIT = "calibrated_guarantee_fit"
"""What only bundles with both have: the calibration cases are divided between the two fits."""


def images_config(templates_dir: Path, classifies: bool, name: str = IMAGES) -> Path:
    """The template of `IMAGES`, or of `GUARANTEED_IMAGES`."""
    return templates_dir / CONFIGS / (CLASSIFICATION if classifies else "") / name


class Mode(StrEnum):
    """What `medcalib run` does with a bundle."""

    TRAIN = "train"
    INFERENCE_PRED = "inference_pred"
    INFERENCE_EVAL = "inference_eval"


MODE_OVERLAYS = {Mode.INFERENCE_PRED: (LABEL_FILES,), Mode.INFERENCE_EVAL: (BOUNDARY, POOR_CASES)}
"""Of each mode the files that bundles of maps have besides its own, and those of earlier versions lack."""


def bundle_configs(configs_dir: Path) -> list[Path]:
    """Every configuration file of a bundle, in a fixed order."""
    modes = (Mode.INFERENCE_PRED, Mode.INFERENCE_EVAL)
    names = [*SHARED_CONFIGS, CLASSIFICATION, *chain.from_iterable(LABEL_CONFIGS.values()), *INFERENCE_CONFIGS, *modes]
    names += [*CALIBRATION_CONFIGS, *GUARANTEE_CONFIGS, CALIBRATED_GUARANTEE_FIT, *FragmentKind, "debug"]
    return [path for path in (configs_dir / f"{name}.yaml" for name in names) if path.exists()]


def config_files(configs_dir: Path, mode: Mode, debug: bool = False) -> list[Path]:
    """The configuration files of one mode, in the order in which MONAI merges them.

    A later file replaces ids of an earlier one: the shared files, those of the task, of voxels to be ignored and of
    several raters, the mode's own, those of calibration and guarantee, network, data, loss, method, calibrator,
    guarantee, debug.
    """
    names = [*SHARED_CONFIGS, CLASSIFICATION, *LABEL_CONFIGS]
    if mode is not Mode.TRAIN:
        names += [*INFERENCE_CONFIGS, mode, *(Path(overlay).stem for overlay in MODE_OVERLAYS[mode])]
        names += [*(f"{kind}_{mode}" for kind in LABEL_CONFIGS), "calibration", "guaranteed", f"guaranteed_{mode}"]
    elif any((configs_dir / f"{fit}.yaml").exists() for fit in ("calibration_fit", "guarantee_fit")):
        names += ["weights", *CALIBRATION_CONFIGS, "guaranteed", "guarantee_fit", CALIBRATED_GUARANTEE_FIT]
    names += FragmentKind
    if debug:
        names.append("debug")
    paths = [configs_dir / f"{name}.yaml" for name in names]
    return [path for path in paths if path.exists()]
