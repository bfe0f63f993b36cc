"""Exchange plain values among the processes that share a run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist

from medcalib.errors import UserError
from medcalib.process_group import is_first, num_processes

__all__ = ["from_first", "gathered"]

Value = TypeVar("Value")

# a process that has no case left waits for the longest case of the others; one that dies is noticed at once
_LONGEST_WAIT = timedelta(days=7)
_groups: dict[Any, Any] = {}


def gathered(value: Value) -> list[Value]:
    """The values that all processes give, in the order of their ranks; every process must call it.

    Args:
        value: anything that can be pickled, on the CPU.

    Example:
        >>> gathered({"cases": 3})
        [{'cases': 3}]
    """
    if num_processes() == 1:
        return [value]
    values: list[Any] = [None] * num_processes()
    dist.all_gather_object(values, value, group=_group())
    return values


def from_first(make: Callable[[], Value]) -> Value:
    """What the first process makes, known to all; every process must call it.

    Args:
        make: called in the first process only; what it returns can be pickled.

    Raises:
        Exception: what ``make`` raises is raised in every process, so that none waits for the first.

    Example:
        >>> from_first(lambda: 7)
        7
    """
    if num_processes() == 1:
        return make()
    value, error = None, None
    if is_first():
        try:
            value = make()
        except Exception as raised:
            error = raised
    found, told = gathered((value, _portable(error)))[0]
    if error is not None:
        raise error
    if told is not None:
        raise told
    return found  # type: ignore[return-value]  # that of the first process


def _group() -> Any:
    """A group that speaks over CPUs, also where networks are on GPUs; the first exchange of all processes makes it."""
    world = dist.group.WORLD
    if world not in _groups:
        _groups.clear()
        _groups[world] = dist.new_group(backend="gloo", timeout=_LONGEST_WAIT)
    return _groups[world]


def _portable(error: Exception | None) -> Exception | None:
    """An error that can be pickled, whatever it holds."""
    if error is None:
        return None
    return UserError(str(error)) if isinstance(error, UserError) else RuntimeError(f"{type(error).__name__}: {error}")
