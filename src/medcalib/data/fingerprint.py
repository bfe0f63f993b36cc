"""A fingerprint of objects that is the same in every process and changes with whatever they are made of."""

from __future__ import annotations

import copyreg
import hashlib
import json
import sys
from functools import cache
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

__all__ = ["fingerprint"]


def fingerprint(value: Any) -> str:
    """SHA-256 over all that an object holds and over the source files of its classes and functions, in hex.

    `pickle` would give other bytes for an equal object, depending on which of its texts are one object, and nothing
    that changes when a class does. The order of mappings counts.

    Raises:
        TypeError: part of the object cannot be described, such as an open file, or a function that was not read from
            a file, whose changes nobody would see.

    Example:
        >>> from monai.transforms import Spacingd
        >>> one, same, other = (Spacingd("image", pixdim=pixdim) for pixdim in ([1, 1, 1], [1, 1, 1], [1, 1, 2]))
        >>> fingerprint(one) == fingerprint(same), fingerprint(one) == fingerprint(other)
        (True, False)
    """
    return hashlib.sha256(json.dumps(_plain(value, ())).encode()).hexdigest()


def _plain(value: Any, within: tuple[int, ...]) -> Any:
    """What an object holds as nested lists of texts, each with its type; ``within`` are the ids of what holds it."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if value is None or type(value) in (bool, int, float, complex, str, bytes):
        return [kind, repr(value)]
    if isinstance(value, ModuleType):
        return [kind, value.__name__]
    if isinstance(value, type):
        return [kind, value.__module__, value.__qualname__, *_sources(value)]
    if isinstance(value, FunctionType | BuiltinFunctionType | MethodType):
        return [kind, *_function(value, within)]
    if isinstance(value, np.random.RandomState):
        return [kind]  # differs every time, also in what draws nothing from it
    if id(value) in within:
        return ["within", within.index(id(value))]
    within = (*within, id(value))
    if isinstance(value, torch.Tensor):
        values = value.detach().as_subclass(torch.Tensor).cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
        return [kind, str(value.dtype), list(value.shape), hashlib.sha256(values).hexdigest()]
    if type(value) is dict:
        return [kind, [[_plain(key, within), _plain(item, within)] for key, item in value.items()]]
    if type(value) in (list, tuple):
        return [kind, [_plain(item, within) for item in value]]
    if isinstance(value, set | frozenset):
        return [kind, sorted((_plain(item, within) for item in value), key=json.dumps)]
    # as it would be pickled, or copied: nothing that an object holds is forgotten, also where it has no __dict__
    reduce = copyreg.dispatch_table.get(type(value))
    reduced = value.__reduce_ex__(4) if reduce is None else reduce(value)
    if isinstance(reduced, str):
        return [kind, reduced]
    function, arguments, state, *items = (*reduced, None, None, None)[:5]
    parts = [function, arguments, state, *(None if more is None else list(more) for more in items)]
    return [kind, *_sources(type(value)), [_plain(part, within) for part in parts]]


def _function(function: Any, within: tuple[int, ...]) -> list[Any]:
    if isinstance(function, MethodType):
        return [_plain(function.__self__, within), *_function(function.__func__, within)]
    name = [function.__module__, function.__qualname__]
    if isinstance(function, BuiltinFunctionType):
        owner = function.__self__
        return name if owner is None or isinstance(owner, ModuleType) else [*name, _plain(owner, within)]
    code = function.__code__
    if not Path(code.co_filename).is_file():
        raise TypeError(f"the function {function.__qualname__} was not read from a file")
    closure = [cell.cell_contents for cell in function.__closure__ or ()]
    inner = [_plain(part, within) for part in (function.__defaults__, function.__kwdefaults__, closure)]
    return [*name, _digest(code.co_filename), list(code.co_positions()), inner]


def _sources(kind: type) -> list[str]:
    files = {getattr(sys.modules.get(parent.__module__), "__file__", None) for parent in kind.__mro__}
    return sorted(_digest(file) for file in files if file and file.endswith(".py"))


@cache
def _digest(file: str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()
