"""Freeze the part of a network that lies before its first dropout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from medcalib.errors import UserError
from medcalib.networks.dropout import find_dropouts
from medcalib.networks.trial_run import trial_run

__all__ = ["freeze_before_dropout"]


def freeze_before_dropout(network: nn.Module, input_shape: Sequence[int]) -> nn.Module:
    """Keep all weights fixed that are used before the first dropout, as in arXiv:2010.14290.

    Modules among them that keep statistics stay in evaluation mode, so that these do not change either. The order in
    which modules run is found by running the network once. A module in which the first dropout lies, or that does not
    run then, keeps weights of its own trainable.

    Args:
        network: any network with dropout; it is changed in place.
        input_shape: shape (channels, ...) of an image, without the batch axis.

    Returns:
        The network.

    Raises:
        UserError: the network has no dropout that runs.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Dropout(0.5), nn.Conv2d(4, 2, 1))
        >>> frozen = freeze_before_dropout(network, (1, 8, 8))
        >>> [parameter.requires_grad for parameter in frozen.parameters()]
        [False, False, True, True]
    """
    before: list[nn.Module] = []
    dropped = False

    def note_dropout(_module: nn.Module, _inputs: Any) -> None:
        nonlocal dropped
        dropped = True

    def note_end(module: nn.Module, _inputs: Any, _output: Any) -> None:
        if not dropped:
            before.append(module)

    handles = [module.register_forward_pre_hook(note_dropout) for module in find_dropouts(network).values()]
    # first of the hooks: inserted dropout runs in a hook, too
    handles += [module.register_forward_hook(note_end, prepend=True) for module in network.modules()]
    try:
        trial_run(network, input_shape)
    finally:
        for handle in handles:
            handle.remove()
    if not dropped:
        raise UserError(
            f"no dropout found in {type(network).__name__}, so nothing lies before it; insert dropout first."
        )
    for module in before:
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
        if list(module.buffers(recurse=False)):
            module.register_forward_pre_hook(stay_in_eval)
    return network


def stay_in_eval(module: nn.Module, _inputs: Any) -> None:
    """Forward hook: put a module into evaluation mode just before it runs."""
    module.eval()
