"""Configurations as text."""

from __future__ import annotations

from typing import Any

import yaml

__all__ = ["plain_yaml"]


class _PlainDumper(yaml.SafeDumper):
    """Writes a value out wherever it stands, instead of pointing to its first occurrence."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def plain_yaml(content: Any, width: int | None = None) -> str:
    """Content as YAML in its own order, without anchors.

    Args:
        content: plain values, lists and mappings of them.
        width: length of lines; PyYAML's own when None.

    Example:
        >>> spacing = [1, 1]
        >>> print(plain_yaml({"b": spacing, "a": spacing}), end="")
        b:
        - 1
        - 1
        a:
        - 1
        - 1
    """
    return str(yaml.dump(content, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, width=width))
