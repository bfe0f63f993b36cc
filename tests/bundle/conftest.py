"""Fixtures of trainings that are stopped."""

from contextlib import contextmanager

import pytest

from medcalib.handlers import EpochSeedHandler


@pytest.fixture
def stopped_in_epoch(monkeypatch):
    """A context in which a training fails as one of its epochs begins."""
    seed_epoch = EpochSeedHandler.__call__

    @contextmanager
    def stopped(number):
        def stop(handler, engine):
            seed_epoch(handler, engine)
            if engine.state.epoch == number:
                raise RuntimeError("stopped on purpose")

        with monkeypatch.context() as patch:
            patch.setattr(EpochSeedHandler, "__call__", stop)
            with pytest.raises(RuntimeError):
                yield

    return stopped


@pytest.fixture
def stopped_in_second_epoch(stopped_in_epoch):
    """A context in which a training fails as its second epoch begins."""
    return lambda: stopped_in_epoch(2)
