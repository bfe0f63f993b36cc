"""Free the memory of a batch before the next is read."""

from __future__ import annotations

from ignite.engine import Engine, Events

__all__ = ["ReleaseHandler"]


class ReleaseHandler:
    """Forget batch and output when an iteration is completed, so that two of them never have to be in memory.

    It must come last, since handlers after it find nothing.

    Example:
        >>> engine = Engine(lambda engine, batch: 2 * batch)
        >>> ReleaseHandler().attach(engine)
        >>> engine.run([1, 2]).output is None
        True
    """

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Forget them."""
        engine.state.batch = engine.state.output = None
