"""Make the small parts of a configuration before anything is read or written, and say which value they do not take."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

import torch
from monai.bundle import ConfigParser

from medcalib.bundle.contract import lookup
from medcalib.bundle.fragments import walk
from medcalib.bundle.workflow import user_message
from medcalib.errors import UserError

__all__ = ["check_components", "component_message"]

# none of them reads a file, and on the device meta a network takes neither time nor memory
_PARTS = ("network_def", "loss::function", "inferer", "method::sampler")
_FAILED = re.compile(r"Failed to instantiate component '([^']+)' with keywords: ([^\n]*)")
_LISTED = 2


def check_components(parser: ConfigParser) -> None:
    """Make network, loss, inferer and sampler of a configuration, and throw them away again.

    Raises:
        UserError: one of them does not take its values, or the network does not take patches of ``data::patch_size``.
    """
    config = {key: value for key, value in parser.get().items() if key != ConfigParser.meta_key}
    trial = ConfigParser(copy.deepcopy(config))
    try:
        with torch.device("meta"):
            made = {id_: trial.get_parsed_content(id_) for id_ in _PARTS if lookup(config, id_)[1] is not None}
        patch = list(trial.get_parsed_content("data::patch_size"))
    except Exception as error:
        if cause := user_message(error) or component_message(error, config):
            raise UserError(cause) from None
        raise
    factors = made["network_def"].shape_factor() if hasattr(made.get("network_def"), "shape_factor") else []
    factors = [int(factor) for factor in factors]
    if len(factors) == len(patch) and any(size % factor for size, factor in zip(patch, factors, strict=True)):
        nearest = [max(factor, round(size / factor) * factor) for size, factor in zip(patch, factors, strict=True)]
        raise UserError(
            f"data::patch_size is {patch}, but each axis must be a multiple of {factors}, by which the network of "
            f"data::network makes images smaller; the nearest is {nearest}."
        )


def component_message(error: BaseException, config: Mapping[str, Any]) -> str | None:
    """One sentence on a component that does not take its values, None if that is not what an error is about.

    Args:
        error: what MONAI raised while it made the objects of a configuration.
        config: the merged configuration, in which the component is looked for.

    Example:
        >>> try:
        ...     ConfigParser({"net": {"_target_": "torch.nn.Dropout", "p": 3}}).get_parsed_content("net")
        ... except RuntimeError as error:
        ...     print(component_message(error, {"net": {"_target_": "torch.nn.Dropout", "p": 3}}))
        net (torch.nn.Dropout) does not take its values p: dropout probability has to be between 0 and 1, but got 3; \
correct them.
    """
    found: BaseException | None = error
    innermost = None
    while found is not None:
        match = _FAILED.match(str(found))
        if match and isinstance(found.__cause__, ValueError | TypeError | ArithmeticError | LookupError):
            innermost = match, found.__cause__
        found = found.__cause__
    if innermost is None:
        return None
    (target, names), cause = innermost[0].groups(), innermost[1]
    ids = [id_.rpartition("::")[0] for id_, value in walk(config) if value == target and id_.endswith("::_target_")]
    reason = " ".join(str(cause).split()).removesuffix(".") or type(cause).__name__
    where = " or ".join(ids[:_LISTED]) or "a component"
    return f"{where} ({target}) does not take its values {names.replace(',', ', ')}: {reason}; correct them."
