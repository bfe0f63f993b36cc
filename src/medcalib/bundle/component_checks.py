"""Make the small parts of a configuration before anything is read or written, and say which value they do not take."""

from __future__ import annotations

import copy
from typing import Any

import torch
from monai.bundle import ConfigParser

from medcalib.bundle.fragments import lookup
from medcalib.bundle.messages import component_message, user_message
from medcalib.bundle.resolve import plain_config
from medcalib.errors import UserError

__all__ = ["changes_components", "check_components", "made_part"]

# none of them reads a file, and on the device meta a network takes neither time nor memory
_PARTS = ("network_def", "loss::function", "inferer", "method::sampler")
# of what the network is given
_SIZES = ("data::patch_size", "inferer::roi_size")
_MULTIPLES = "network::patch_multiple"
# of these, the first is named whose multiples a network takes
_CANDIDATES = (2, 4, 8, 16, 32, 64)
# ids with which a trained network can be given what the training did not try
_TRIED = ("inferer", "sampling_inferer", "method", "method_network", "network", "network_def", "loss")


def changes_components(id_: str) -> bool:
    """Whether a value of an id has a say in what `check_components` tries, where weights are used that a training left.

    Example:
        >>> changes_components("inferer::roi_size"), changes_components("num_bins")
        (True, False)
    """
    return id_ == "data::patch_size" or id_.partition("::")[0] in _TRIED


def check_components(parser: ConfigParser) -> None:
    """Make network, loss, inferer and sampler of a configuration, and throw them away again.

    Raises:
        UserError: one of them does not take its values, or the network does not take patches and windows of their size.
    """
    config = plain_config(parser)
    trial = ConfigParser(copy.deepcopy(config))
    try:
        made = {id_: made_part(trial, id_) for id_ in _PARTS if lookup(config, id_)[1] is not None}
        # windows mostly have the size of patches, which then is tried once
        sizes: dict[tuple[int, ...], str] = {}
        for id_ in _SIZES:
            if lookup(config, id_)[0]:
                sizes.setdefault(tuple(trial.get_parsed_content(id_)), id_)
        multiples = trial.get_parsed_content(_MULTIPLES) if lookup(config, _MULTIPLES)[0] else ()
        channels = len(trial.get_parsed_content("data::channel_names"))
    except Exception as error:
        if cause := user_message(error) or component_message(error, config):
            raise UserError(cause) from None
        raise
    for size, id_ in sizes.items():
        _check_size(id_, list(size), [int(multiple) for multiple in multiples], made["network_def"], channels)


def made_part(trial: ConfigParser, id_: str) -> Any:
    """A part of the configuration, on the device meta if it can be made there."""
    try:
        with torch.device("meta"):
            return trial.get_parsed_content(id_)
    except RuntimeError as error:
        if not _is_about_meta(error):
            raise
    return trial.get_parsed_content(id_)


def _check_size(id_: str, size: list[int], multiples: list[int], network: torch.nn.Module, channels: int) -> None:
    nearest = [max(by, round(axis / by) * by) for axis, by in zip(size, multiples, strict=False)]
    if multiples and nearest != size:
        raise UserError(
            f"{id_} is {size}, but each axis must be a multiple of {multiples}, by which the network makes images "
            f"smaller; the nearest is {nearest}."
        )
    error = _problem(network, channels, size)
    if error is None or _is_about_meta(error):  # what the network does may need values
        return
    what = f"{id_} is {size}, which the network {type(network).__name__} does not take"
    for multiple in _CANDIDATES:
        larger = [-(-axis // multiple) * multiple for axis in size]
        if _problem(network, channels, larger) is None:
            raise UserError(f"{what}; make each axis a multiple of {multiple}, as in {larger}.")
    raise UserError(
        f"{what} ({' '.join(str(error).split()).removesuffix('.')}); choose another size or another network."
    )


def _problem(network: torch.nn.Module, channels: int, size: list[int]) -> Exception | None:
    """What keeps a network from taking an image of a size; the network is on the device meta afterwards."""
    try:
        with torch.no_grad(), torch.device("meta"):
            network.to("meta").eval()(torch.empty(1, channels, *size))
    except (RuntimeError, ValueError) as error:
        return error
    return None


def _is_about_meta(error: BaseException | None) -> bool:
    """Whether something failed only because tensors on the device meta have no values."""
    while error is not None:
        if isinstance(error, NotImplementedError) or "meta tensor" in str(error):
            return True
        error = error.__cause__
    return False
