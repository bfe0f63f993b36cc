"""Fixtures of trainings that are stopped."""

from contextlib import contextmanager

import pytest

from medcalib.handlers import EpochSeedHandler


@pytest.fixture
def stopped_in_second_epoch(monkeypatch):
    """A context in which a training fails as its second epoch begins."""
    seed_epoch = EpochSeedHandler.__call__

    def stop(handler, engine):
        seed_epoch(handler, engine)
        if engine.state.epoch == 2:
            raise RuntimeError("stopped on purpose")

    @contextmanager
    def stopped():
        with monkeypatch.context() as patch:
            patch.setattr(EpochSeedHandler, "__call__", stop)
            with pytest.raises(RuntimeError):
                yield

    return stopped
