"""Digests that name a bundle and tell whether two trainings are the same."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from medcalib.bundle.fragments import FragmentKind, read_yaml
from medcalib.bundle.layout import CLASSIFICATION, CONFIGS, LABEL_CONFIGS, SHARED_CONFIGS, bundle_configs

__all__ = ["bundle_digest", "config_digest", "training_digest"]


def config_digest(configs: dict[str, Any]) -> str:
    """SHA-256 over parsed configurations, in hex; comments and the order of keys do not change it.

    Example:
        >>> config_digest({"a": {"x": 1, "y": 2}}) == config_digest({"a": {"y": 2, "x": 1}})
        True
    """
    canonical = json.dumps(configs, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def bundle_digest(bundle: Path) -> str:
    """Digest of every configuration file of a bundle as it lies on disk.

    Raises:
        UserError: one of the files cannot be read.
    """
    return config_digest({path.stem: read_yaml(path) for path in bundle_configs(bundle / CONFIGS)})


def training_digest(configs: dict[str, Any]) -> str:
    """Digest of the part of a bundle that decides what is trained.

    Bundles that share it (and the seed) train the same weights.

    Args:
        configs: the parsed configurations by file name, without suffix.
    """
    deciding = {*SHARED_CONFIGS, CLASSIFICATION, *LABEL_CONFIGS, *FragmentKind} - {
        FragmentKind.CALIBRATOR,
        FragmentKind.GUARANTEE,
    }
    return config_digest({name: config for name, config in configs.items() if name in deciding})
