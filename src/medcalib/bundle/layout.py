"""What lies where in a bundle."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from medcalib.bundle.fragments import FragmentKind

__all__ = ["CONFIGS", "DIGEST_PREFIX_LENGTH", "METADATA", "SHARED_CONFIGS", "Mode", "bundle_configs", "config_files"]

CONFIGS = "configs"
METADATA = "metadata.json"
DIGEST_PREFIX_LENGTH = 8

SHARED_CONFIGS = ("common", "train", "validation")
"""Merged in every mode, so that a fragment may override any of their ids whatever the mode."""


class Mode(StrEnum):
    """What `run_bundle.py` does with a bundle."""

    TRAIN = "train"
    INFERENCE_PRED = "inference_pred"
    INFERENCE_EVAL = "inference_eval"


def bundle_configs(configs_dir: Path) -> list[Path]:
    """Every configuration file of a bundle, in a fixed order."""
    names = [*SHARED_CONFIGS, Mode.INFERENCE_PRED, Mode.INFERENCE_EVAL, *FragmentKind, "debug"]
    return [path for path in (configs_dir / f"{name}.yaml" for name in names) if path.exists()]


def config_files(configs_dir: Path, mode: Mode, debug: bool = False) -> list[Path]:
    """The configuration files of one mode, in the order in which MONAI merges them.

    A later file replaces ids of an earlier one: the shared files, the mode's own, data, loss, method, calibrator,
    debug.
    """
    names = [*SHARED_CONFIGS]
    if mode is not Mode.TRAIN:
        names.append(mode)
    names += [kind for kind in FragmentKind if (configs_dir / f"{kind}.yaml").exists()]
    if debug:
        names.append("debug")
    return [configs_dir / f"{name}.yaml" for name in names]
