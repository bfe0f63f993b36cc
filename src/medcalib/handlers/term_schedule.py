"""Let a term of a loss count in a part of the training only, or more and more."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine, Events

from medcalib.errors import UserError
from medcalib.losses import WeightedSumLoss

__all__ = ["TermScheduleHandler"]

# a share of the epochs that is a whole number of them up to rounding is that number
_ROUNDING = 1e-9


class TermScheduleHandler:
    r"""Multiply the weight of one term of a loss by a share that depends on the epoch alone.

    Of :math:`N` epochs the first :math:`s = \lfloor N \cdot \mathrm{starts} \rfloor` are without the term, and from
    epoch :math:`f = \max(s + 1, \lfloor N \cdot \mathrm{whole} \rfloor)` on it counts with its whole weight. Between
    them its share grows evenly. In epoch :math:`e`, counted from 1, it is

    .. math::
        \min\left(1, \max\left(0, \frac{e - s}{f - s}\right)\right)

    so a training that is resumed has the weights of the uninterrupted one, and so has each of several processes. One
    that is made longer has from there on the weights that a training of so many epochs has, as with the learning rate.
    Nothing else uses the weights of a loss, so validation is as without the handler.

    Args:
        loss: the loss of the training; its ``weights`` are changed as an epoch begins.
        term: which of its terms, counted from 0.
        starts: part of the epochs that is without the term, in [0, 1).
        whole: part of the epochs at whose end it counts with its whole weight, from ``starts`` to 1; at once, if left
            out.

    Raises:
        UserError: the loss is no weighted sum or has no such term, or a part of the epochs is out of range.

    Example:
        >>> from medcalib.losses import CrossEntropyLoss, SoftL1ACELoss
        >>> loss = WeightedSumLoss([SoftL1ACELoss(softmax=True, to_onehot_y=True), CrossEntropyLoss()], [0.5, 1.0])
        >>> schedule = TermScheduleHandler(loss, term=0, starts=0.25, whole=0.75)
        >>> [schedule.share(epoch, 8) for epoch in (1, 2, 3, 4, 5, 6, 7, 8)]
        [0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
        >>> trainer = Engine(lambda engine, batch: loss.weights[0])
        >>> schedule.attach(trainer)
        >>> trainer.run([0], max_epochs=4).output, trainer.run([0], max_epochs=8).output
        (0.5, 0.5)
    """

    def __init__(self, loss: Any, term: int = 0, starts: float = 0.0, whole: float | None = None) -> None:
        whole = starts if whole is None else whole
        if not isinstance(loss, WeightedSumLoss):
            raise UserError(
                f"A term can be scheduled of a medcalib.losses.WeightedSumLoss, such as SoftL1ACEandDiceCELoss, but "
                f"the loss is a {type(loss).__name__}; leave the schedule out, or take such a loss."
            )
        if isinstance(term, bool) or not isinstance(term, int) or not 0 <= term < len(loss.weights):
            raise UserError(f"term must be one of the {len(loss.weights)} terms of the loss, from 0 on, not {term!r}.")
        if not (_is_number(starts) and _is_number(whole) and 0 <= starts < 1 and starts <= whole <= 1):
            raise UserError(
                f"starts must be a part of the epochs, from 0 to below 1, and whole one from there to 1, not "
                f"{starts!r} and {whole!r}."
            )
        self.loss = loss
        self.term = term
        self.starts = starts
        self.whole = whole
        self.weight = loss.weights[term]

    def attach(self, engine: Engine) -> None:
        """Register the handler on the trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Set the weight of the epoch that begins."""
        epoch, epochs = engine.state.epoch, engine.state.max_epochs
        share = self.share(epoch, epochs)
        self.loss.weights[self.term] = self.weight * share
        if share > 0 and (epoch == 1 or self.share(epoch - 1, epochs) < share):
            engine.logger.info(
                "epoch %d: the weight of %s is %g of %g",
                epoch,
                type(self.loss.losses[self.term]).__name__,
                self.loss.weights[self.term],
                self.weight,
            )

    def share(self, epoch: int, max_epochs: int) -> float:
        """Part of the weight, in [0, 1], that the term has in an epoch, counted from 1, of a training of so many."""
        first, last = (int(part * max_epochs + _ROUNDING) for part in (self.starts, self.whole))
        return min(1.0, max(0.0, (epoch - first) / max(1, last - first)))

    def is_whole(self, engine: Engine) -> bool:
        """Whether the term counts with its whole weight in the epoch of a trainer.

        A `CheckpointHandler` asks so, as ``competes``, whether the weights of an epoch may be chosen.
        """
        return self.share(engine.state.epoch, engine.state.max_epochs) == 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
