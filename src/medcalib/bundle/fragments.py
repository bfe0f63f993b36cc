"""Find and read YAML fragments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from medcalib.errors import UserError, suggestion

__all__ = [
    "FragmentKind", "UniqueKeyLoader", "fragment_names", "fragment_path", "lookup", "names_as_written", "own_fragments",
    "read_yaml", "walk",
]  # fmt: skip

# whatever stands below these is a text, even one that looks like a number
_NAMES = {"metadata", "class_names", "channel_names", "calibration_cases", "attributes", "regions"}
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


class FragmentKind(StrEnum):
    """Folders of fragments under ``configs/``; also the one top-level key that a fragment of that folder has.

    In the order in which they are merged.
    """

    NETWORK = "network"
    DATA = "data"
    LOSS = "loss"
    METHOD = "method"
    CALIBRATOR = "calibrator"
    GUARANTEE = "guarantee"


class UniqueKeyLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc] # the fast one is not everywhere
    """A safe loader that refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """Make a mapping."""
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if key in seen:
                raise UserError(f"line {key_node.start_mark.line + 1}: the key {key!r} stands there twice; keep one")
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read one configuration file.

    Args:
        path: a YAML file holding a mapping.

    Returns:
        The parsed mapping.

    Raises:
        UserError: the file cannot be read, is not YAML, holds a key twice, is no mapping, or holds a number that YAML
            reads as text, such as ``1e-5``.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=UniqueKeyLoader)
    except UserError as error:
        raise UserError(f"{path}, {error}.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{where}: this is not valid YAML: {getattr(error, 'problem', error)}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a mapping of ids, not {type(content).__name__}.")
    for key, value in walk(content):
        if isinstance(value, str) and not _NAMES & set(key.split("::")) and _NUMBER.fullmatch(value):
            raise UserError(
                f"{path}: the value of {key} is the text {value!r}, not a number; "
                f"YAML wants a dot in front of the exponent and no quotes, so write {_as_yaml_number(value)}."
            )
    return content


def names_as_written(path: Path, id_: str) -> list[Any]:
    """The entries of a list of a file as they are written, before YAML makes True of yes and 1 of 001.

    Args:
        path: a YAML file.
        id_: id of the list.
    """
    found = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    for key in id_.split("::"):
        found = found[key]
    return found


def walk(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every ``(id, leaf value)`` of a nested configuration, ids joined by ``::``.

    Example:
        >>> list(walk({"a": {"b": 1, "c": [2]}}))
        [('a::b', 1), ('a::c::0', 2)]
    """
    if isinstance(config, dict):
        children = config.items()
    elif isinstance(config, list):
        children = enumerate(config)
    else:
        yield prefix, config
        return
    for key, value in children:
        yield from walk(value, f"{prefix}::{key}" if prefix else str(key))


def lookup(config: Any, id_: str) -> tuple[bool, Any]:
    """Look an id up in a nested configuration.

    Returns:
        Whether it exists, and its value.

    Example:
        >>> lookup({"a": {"b": [1, 2]}}, "a::b::1")
        (True, 2)
    """
    value = config
    for key in id_.split("::"):
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            return False, None
    return True, value


def own_fragments() -> Path:
    """The folder of data fragments of one's own, in the current folder; there need not be one."""
    return Path("data_fragments")


def fragment_names(configs_dir: Path, kind: FragmentKind) -> list[str]:
    """Names of the fragments of one kind, sorted; of data also those of `own_fragments`."""
    folders = [configs_dir / kind, *([own_fragments()] if kind is FragmentKind.DATA else [])]
    return sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})


def fragment_path(configs_dir: Path, kind: FragmentKind, name: str) -> Path:
    """Path of a fragment; of two of one name, that of the templates.

    Raises:
        UserError: there is no fragment of that name; the message names the nearest ones.
    """
    names = fragment_names(configs_dir, kind)
    if name not in names:
        raise UserError(
            f"There is no {kind} fragment called {name!r} in {configs_dir / kind}"
            f"{suggestion(name, names, list_all=True)}"
        )
    path = configs_dir / kind / f"{name}.yaml"
    return path if path.exists() else own_fragments() / f"{name}.yaml"


def _as_yaml_number(text: str) -> str:
    mantissa, exponent, power = text.lower().partition("e")
    if not exponent:
        return text
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}e{power if power[0] in '+-' else '+' + power}"
