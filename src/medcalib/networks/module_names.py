"""Find modules of a network by name."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import nn

from medcalib.errors import UserError

__all__ = ["match_modules"]

# they hold modules and are never called themselves
CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


def match_modules(network: nn.Module, patterns: Sequence[str]) -> dict[str, nn.Module]:
    """Return the modules of a network whose qualified names match one of the patterns.

    A qualified name is a path of components joined by dots, as `torch.nn.Module.named_modules` gives it. In a pattern
    ``*``, ``?`` and ``[...]`` stand for characters of one component as in file names, and ``**`` for any number of
    components, also none. A pattern must match the whole name: ``up_layers.*.blocks`` matches ``up_layers.0.blocks``,
    but neither ``up_layers.0.blocks.0`` nor ``encoder.up_layers.0.blocks``. Lists and dicts of modules never match,
    because a network does not call them.

    Args:
        network: the network.
        patterns: names or patterns of names.

    Returns:
        Modules by their first name that matches, each once, in the order in which the network holds them.

    Raises:
        UserError: no pattern is given, or one matches nothing.

    Example:
        >>> network = nn.ModuleDict({"down": nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()), "head": nn.Conv2d(4, 2, 1)})
        >>> list(match_modules(network, ["down.*", "head"]))
        ['down.0', 'down.1', 'head']
        >>> list(match_modules(network, ["**.0"]))
        ['down.0']
        >>> match_modules(network, ["up.*"])
        Traceback (most recent call last):
        ...
        medcalib.errors.UserError: up.* matches no module of ModuleDict; among its modules are down, down.0, \
down.1, head.
    """
    if isinstance(patterns, str) or not patterns:
        raise UserError(f"modules must be a list of at least one name or pattern, not {patterns!r}.")
    # a network may hold a module under several names
    named = network.named_modules(remove_duplicate=False)
    candidates = {name: module for name, module in named if name and not isinstance(module, CONTAINERS)}
    found = set()
    for pattern in patterns:
        parts = pattern.split(".")
        matches = {name for name in candidates if _matches(name.split("."), parts)}
        if not matches:
            raise UserError(
                f"{pattern} matches no module of {type(network).__name__}; among its modules are "
                f"{', '.join(_near(pattern, list(candidates)))}."
            )
        found |= matches
    first_names = {module: name for name, module in reversed(candidates.items()) if name in found}
    return {name: module for name, module in candidates.items() if first_names.get(module) == name}


def _matches(name: list[str], pattern: list[str]) -> bool:
    if not pattern:
        return not name
    if pattern[0] == "**":
        return any(_matches(name[skipped:], pattern[1:]) for skipped in range(len(name) + 1))
    return bool(name) and fnmatchcase(name[0], pattern[0]) and _matches(name[1:], pattern[1:])


def _near(pattern: str, names: list[str], limit: int = 6) -> list[str]:
    return sorted(get_close_matches(pattern, names, n=limit, cutoff=0.5)) or names[:limit]
