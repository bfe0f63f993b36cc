"""One loss for a network with several heads."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss

from medcalib.errors import UserError
from medcalib.keys import Activation

__all__ = ["MultiHeadLoss"]

MODES = ("combined", "individual", "average", "meta")


class MultiHeadLoss(_Loss):
    r"""Apply a loss to the heads of a network, :math:`L_h` being the loss of head h.

    - ``combined``: the sum :math:`\sum_h L_h`.
    - ``individual``: the same. Published work runs a backward pass for every :math:`L_h` before one step of the
      optimizer; gradients add up, so that is the gradient of the sum, found in one pass.
    - ``average``: the loss of the averaged prediction, that is of the logits of the heads' mean probability. Only the
      mean learns, and the heads may divide the work.
    - ``meta``: :math:`(1 - \epsilon) L_b + \epsilon \sum_{h \ne b} L_h` with b the head of the lowest loss on this
      batch, not divided by the number of heads (cf. arXiv:1612.00197).

    With one head all but ``meta`` are the plain loss, bit for bit.

    Args:
        loss: called with what one head returns and the target; its values are single numbers.
        mode: one of these.
        epsilon: weight of all heads but the best, for ``meta``.
        activation: how logits become probabilities, for ``average``.

    Raises:
        UserError: ``mode`` is none of these, or ``epsilon`` is not in [0, 1].
        ValueError: ``activation`` is none that there is; when called, there is no head, or for ``average`` the heads
            differ in their resolutions.

    Example:
        >>> target, heads = torch.zeros(2), [torch.ones(2), torch.full((2,), 2.0)]
        >>> MultiHeadLoss(torch.nn.MSELoss())(heads, target)
        tensor(5.)
        >>> MultiHeadLoss(torch.nn.MSELoss(), mode="meta", epsilon=0.25)(heads, target)
        tensor(1.7500)
    """

    def __init__(
        self,
        loss: Callable[[Any, Tensor], Tensor],
        mode: str = "combined",
        epsilon: float = 0.2,
        activation: Activation | str = Activation.SOFTMAX,
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise UserError(f"The mode of several heads' loss must be one of {', '.join(MODES)}, not {mode!r}.")
        if isinstance(epsilon, str) or not 0 <= epsilon <= 1:
            raise UserError(f"The epsilon of several heads' loss must be a number in [0, 1], not {epsilon!r}.")
        self.loss = loss
        self.mode = mode
        self.epsilon = epsilon
        self.activation = Activation(activation)

    def forward(self, input: Sequence[Any], target: Tensor) -> Tensor:  # noqa: A002
        """Return the loss of all heads.

        Args:
            input: one entry for each head, logits (B, C, ...) or what else the loss takes, such as a list of several
                resolutions.
            target: as the loss takes it.
        """
        if isinstance(input, Tensor) or not len(input):
            raise ValueError("input must be a list with what each head returns, and hold at least one.")
        if self.mode == "average":
            return self.loss(self._averaged(input), target)
        losses = [self.loss(head, target) for head in input]
        if self.mode == "meta":
            best = int(torch.stack(losses).detach().argmin())
            losses = [(1 - self.epsilon if head == best else self.epsilon) * loss for head, loss in enumerate(losses)]
        return sum(losses[1:], start=losses[0])

    def _averaged(self, heads: Sequence[Any]) -> Any:
        if len(heads) == 1:
            return heads[0]
        if all(isinstance(head, Tensor) for head in heads):
            if len({head.shape for head in heads}) > 1:
                raise ValueError(f"heads to average must be alike, but have shapes {[tuple(h.shape) for h in heads]}.")
            return self._mean_logits(torch.stack([head.float() for head in heads]))
        if any(isinstance(head, Tensor) for head in heads) or len({len(head) for head in heads}) > 1:
            raise ValueError("heads to average must be alike, but some return more resolutions than others.")
        return [self._averaged(resolution) for resolution in zip(*heads, strict=True)]

    def _mean_logits(self, logits: Tensor) -> Tensor:
        """Return logits (B, C, ...) whose activation is the mean probability of logits (heads, B, C, ...)."""
        if self.activation is Activation.SOFTMAX:
            return F.log_softmax(logits, 2).logsumexp(0) - math.log(len(logits))
        # the log-odds of the mean: numbers of heads cancel
        return F.logsigmoid(logits).logsumexp(0) - F.logsigmoid(-logits).logsumexp(0)
