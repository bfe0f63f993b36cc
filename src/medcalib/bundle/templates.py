"""Where the templates of bundles lie."""

from __future__ import annotations

from pathlib import Path

__all__ = ["find_templates"]

_NAME = "bundle_templates"


def find_templates() -> Path:
    """The folder of the templates: inside of an installed package, at the top of a checkout.

    Example:
        >>> (find_templates() / "configs" / "common.yaml").exists()
        True
    """
    package = Path(__file__).resolve().parents[1]
    installed = package / _NAME
    return installed if installed.is_dir() else package.parents[1] / _NAME
