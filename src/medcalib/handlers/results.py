"""What the handlers of an engine find in an epoch, kept in one place for those that report it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ignite.engine import Engine, Events

from medcalib.errors import UserError

__all__ = [
    "BINNED", "BOUNDARY_BINNED", "CASE_SCORES", "CLASSIFIED", "GUARANTEED_CASES", "IMAGES", "OBJECT_SIZES", "RATED",
    "Results", "results_of",
]  # fmt: skip

BINNED = "binned cases"
BOUNDARY_BINNED = "binned boundaries"
CASE_SCORES = "case scores"
IMAGES = "image predictions"
OBJECT_SIZES = "object sizes"
RATED = "rater scores"
CLASSIFIED = "classification scores"
GUARANTEED_CASES = "guaranteed cases"
# who makes what others need, with its article
_MAKERS = {
    BINNED: "a CalibrationErrorHandler",
    BOUNDARY_BINNED: "a BoundaryCalibrationHandler",
    CASE_SCORES: "an UncertaintyScoresHandler",
    IMAGES: "an ImagePredictionsHandler",
    RATED: "a RaterScoresHandler",
    CLASSIFIED: "a ClassificationScoresHandler",
    OBJECT_SIZES: "an ObjectSizesHandler",
    GUARANTEED_CASES: "a GuaranteeReportHandler",
}


class Results:
    """Parts of the results of an epoch, made when the epoch ends, each once, when the first handler asks for it.

    So it does not matter in which order handlers are attached. Making a part may gather it from all ranks, so every
    rank must ask for the same parts in the same order.

    Example:
        >>> results = Results()
        >>> results.offer("number of cases", lambda: 3)
        >>> results["number of cases"]
        3
    """

    def __init__(self) -> None:
        self._offered: dict[str, Callable[[], Any]] = {}
        self._made: dict[str, Any] = {}
        self._needed: dict[str, str] = {}

    def offer(self, part: str, make: Callable[[], Any]) -> None:
        """Say how a part is made at the end of an epoch; on attaching."""
        self._offered[part] = make

    def need(self, reader: object, *parts: str) -> None:
        """Say which parts a handler will ask for; on attaching."""
        self._needed |= dict.fromkeys(parts, type(reader).__name__)

    def __getitem__(self, part: str) -> Any:
        """A part of the epoch that ends."""
        if part not in self._made:
            self._made[part] = self._offered[part]()
        return self._made[part]

    def get(self, part: str) -> Any:
        """A part of the epoch that ends, None if no handler makes it."""
        return self[part] if part in self._offered else None

    def complete(self) -> None:
        """Make all parts, and with them what their handlers leave in ``engine.state.metrics``."""
        for part in self._offered:
            self[part]

    def check(self, _engine: Engine) -> None:
        """Check that every part that is needed is made.

        Raises:
            UserError: one is not.
        """
        for part, reader in self._needed.items():
            if part not in self._offered:
                raise UserError(
                    f"{reader} needs the {part} of the epoch, which no handler of this engine finds; attach "
                    f"{_MAKERS[part]}, too."
                )

    def restart(self, _engine: Engine) -> None:
        """Forget the epoch before."""
        self._made = {}


def results_of(engine: Engine) -> Results:
    """The results of an engine, ``engine.state.results``, made when the first handler asks for them.

    Args:
        engine: the engine.

    Example:
        >>> engine = Engine(lambda engine, batch: batch)
        >>> results_of(engine) is engine.state.results is results_of(engine)
        True
    """
    if not hasattr(engine.state, "results"):
        engine.state.results = Results()
        engine.add_event_handler(Events.STARTED, engine.state.results.check)
        engine.add_event_handler(Events.EPOCH_STARTED, engine.state.results.restart)
    return engine.state.results
