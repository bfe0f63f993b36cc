"""Check with MONAI what a configuration names: components, imports, arguments, references."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from pydoc import locate
from typing import Any

import torch
from monai.bundle import ComponentLocator, ConfigParser, ReferenceResolver

from medcalib.bundle.fragments import lookup, read_yaml, walk
from medcalib.errors import UserError, suggestion

__all__ = ["RESERVED", "check_config", "component_arguments", "plain_config", "resolved_config", "resolved_value"]

RESERVED = ("_target_", "_requires_", "_disabled_", "_desc_", "_mode_")
_IMPORT = re.compile(r"\$\s*import\s+([\w.]+)")


def plain_config(parser: ConfigParser) -> dict[str, Any]:
    """The merged configuration of a parser without the metadata of its bundle."""
    return {key: value for key, value in parser.get().items() if key != ConfigParser.meta_key}


def check_config(config: dict[str, Any], files: Iterable[Path] = ()) -> None:
    """Check that all a merged configuration names exists.

    Args:
        config: the merged configuration.
        files: files it was merged from, to name the one at fault.

    Raises:
        UserError: a ``_target_`` or ``$import`` does not resolve, a component does not take one of its arguments, or a
            reference names an id that does not exist.
    """
    for id_, value in walk(config):
        if not isinstance(value, str):
            continue
        if id_.rpartition("::")[2] == "_target_" and value[:1] not in ("$", "@", "%"):
            parent = lookup(config, id_.rpartition("::")[0])[1]
            _check_component(id_, value, parent, files)
        elif match := _IMPORT.match(value):
            _check_import(id_, match[1], files)
        elif value[:1] in ("$", "@"):
            _check_references(id_, value, config, files)


def resolved_config(parser: ConfigParser) -> dict[str, Any]:
    """The merged configuration with every reference and expression that has a plain value replaced by that value.

    What makes or uses a component stays as it is, so the result can be run again.
    """
    config = plain_config(parser)
    return {
        key: value if key in ("imports", "initialize", "run", "finalize") else _resolved(key, value, config, parser)
        for key, value in config.items()
    }


def _resolved(id_: str, value: Any, config: dict[str, Any], parser: ConfigParser) -> Any:
    if isinstance(value, dict):
        return {key: _resolved(f"{id_}::{key}", item, config, parser) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolved(f"{id_}::{index}", item, config, parser) for index, item in enumerate(value)]
    return resolved_value(id_, value, config, parser)


def resolved_value(id_: str, value: Any, config: dict[str, Any], parser: ConfigParser) -> Any:
    """The value of one id, and where this is a reference or an expression that has a plain value, that value.

    Args:
        id_: the id.
        value: what stands there in the configuration.
        config: the whole configuration.
        parser: its parser.
    """
    if isinstance(value, str) and value[:1] in ("$", "@") and not _uses_component(value, config):
        result = parser.get_parsed_content(id_)
        if isinstance(result, torch.device | torch.dtype):
            return str(result)
        if _is_plain(result):
            return result
    return value


def _uses_component(value: Any, config: dict[str, Any]) -> bool:
    if isinstance(value, dict):
        return "_target_" in value or any(_uses_component(item, config) for item in value.values())
    if isinstance(value, list):
        return any(_uses_component(item, config) for item in value)
    if isinstance(value, str) and value[:1] in ("$", "@"):
        references = ReferenceResolver.match_refs_pattern(value)
        return any(_uses_component(lookup(config, reference)[1], config) for reference in references)
    return False


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str | int) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)


def _check_component(id_: str, target: str, config: dict[str, Any], files: Iterable[Path]) -> None:
    known = component_arguments(target)
    if _resolve(target) is None:
        raise UserError(
            f"{_where(id_, files)}: {target!r} cannot be imported; check its spelling and that it is installed."
        )
    if _is_module(target):
        raise UserError(f"{_where(id_, files)}: {target} is a module; name the class or the function in it.")
    if known is None:
        return
    for argument in config:
        if argument not in RESERVED and argument not in known:
            raise UserError(f"{_where(id_, files)}: {target} takes no argument {argument}{suggestion(argument, known)}")


def _check_import(id_: str, module: str, files: Iterable[Path]) -> None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"{_where(id_, files)}: the module {module} cannot be imported ({error}).") from None


def _check_references(id_: str, value: str, config: dict[str, Any], files: Iterable[Path]) -> None:
    for reference in ReferenceResolver.match_refs_pattern(value):
        if not lookup(config, reference)[0]:
            ids = [key for key, _ in walk(config)]
            raise UserError(f"{_where(id_, files)}: @{reference} does not exist{suggestion(reference, ids)}")


@cache
def _resolve(target: str) -> Any:
    if "." not in target:
        modules = ComponentLocator().get_component_module_name(target)
        module = modules[0] if isinstance(modules, list) else modules
        return locate(f"{module}.{target}") if module else None
    try:
        return locate(target)
    except Exception:  # a module that fails while it is imported
        return None


@cache
def _is_module(target: str) -> bool:
    """Whether a dotted name is that of a module, which Python 3.12 and newer locate before a function of that name."""
    try:
        return "." in target and find_spec(target) is not None
    except (ImportError, ValueError):  # what stands before the last dot is no package
        return False


def component_arguments(target: Any) -> list[str] | None:
    """Names of the arguments of a component; None when it takes any, or when they cannot be known."""
    component = _resolve(target) if isinstance(target, str) and target[:1] not in ("$", "@", "%") else None
    if component is None:
        return None
    try:
        parameters = inspect.signature(component).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [parameter.name for parameter in parameters]


def _where(id_: str, files: Iterable[Path]) -> str:
    for path in reversed(list(files)):
        content = read_yaml(path)
        if lookup(content, id_)[0] or any(id_.startswith(f"{key}::") for key in content if "::" in str(key)):
            return f"{path}, {id_}"
    return id_
