"""The weight of a term by epoch: the closed form, resumed or not, and which epochs may be chosen."""

import pytest
import torch
from ignite.engine import Engine, Events

from medcalib.errors import UserError
from medcalib.handlers import TermScheduleHandler
from medcalib.losses import CrossEntropyLoss, DiceLoss, SoftL1ACELoss, WeightedSumLoss


def make(weight=0.5):
    ace = SoftL1ACELoss(softmax=True, to_onehot_y=True)
    return WeightedSumLoss([DiceLoss(softmax=True, to_onehot_y=True), ace, CrossEntropyLoss()], [1.0, weight, 1.0])


def weights(epochs, first=0, **parts):
    """The weights that each epoch after the first ones sees."""
    loss, seen = make(), []
    trainer = Engine(lambda _engine, _batch: seen.append(list(loss.weights)))
    TermScheduleHandler(loss, 1, **parts).attach(trainer)

    def resume(engine):
        engine.state.epoch = first

    trainer.add_event_handler(Events.STARTED, resume)
    trainer.run([0], max_epochs=epochs)
    return seen


@pytest.mark.parametrize(
    ("epochs", "parts", "shares"),
    [
        (8, {"starts": 0.25, "whole": 0.75}, [0, 0, 1 / 4, 2 / 4, 3 / 4, 1, 1, 1]),
        (4, {"starts": 0.75}, [0, 0, 0, 1]),
        (4, {"starts": 0.0}, [1, 1, 1, 1]),
        (4, {"starts": 0.0, "whole": 1.0}, [1 / 4, 2 / 4, 3 / 4, 1]),
        # rounded down, so that the last epoch is never without the term
        (2, {"starts": 0.75}, [0, 1]),
        (2, {"starts": 0.25, "whole": 0.75}, [1, 1]),
        (1, {"starts": 0.75}, [1]),
        (10, {"starts": 0.7}, [0] * 7 + [1] * 3),
        (100, {"starts": 0.29}, [0] * 29 + [1] * 71),
    ],
)
def test_the_share_of_each_epoch(epochs, parts, shares):
    seen = weights(epochs, **parts)
    assert [weight for _, weight, _ in seen] == pytest.approx([0.5 * share for share in shares])
    assert {(dice, ce) for dice, _, ce in seen} == {(1.0, 1.0)}
    handler = TermScheduleHandler(make(), 1, **parts)
    assert [handler.share(epoch + 1, epochs) for epoch in range(epochs)] == pytest.approx(shares)


@pytest.mark.parametrize("first", [1, 3, 5])
def test_a_resumed_training_has_the_weights_of_the_uninterrupted(first):
    parts = {"starts": 0.25, "whole": 0.75}
    assert weights(8, first, **parts) == weights(8, **parts)[first:]


def test_an_epoch_that_lacks_some_of_the_term_is_not_chosen():
    asked = []
    trainer = Engine(lambda _engine, _batch: None)
    handler = TermScheduleHandler(make(), 1, starts=0.25, whole=0.75)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: asked.append(handler.is_whole(engine)))
    trainer.run([0], max_epochs=8)
    assert asked == [False] * 5 + [True] * 3


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        (CrossEntropyLoss(), {}, "the loss is a CrossEntropyLoss; leave the schedule out"),
        (torch.nn.Identity(), {}, "the loss is a Identity"),
        (make(), {"term": 3}, "one of the 3 terms of the loss, from 0 on, not 3"),
        (make(), {"term": -1}, "not -1"),
        (make(), {"term": True}, "not True"),
        (make(), {"starts": 1.0}, "starts must be a part of the epochs"),
        (make(), {"starts": 0.5, "whole": 0.25}, "not 0.5 and 0.25"),
        (make(), {"starts": "0.5"}, "not '0.5'"),
        (make(), {"whole": 2}, "not 0.0 and 2"),
    ],
)
def test_a_mistake_is_one_sentence(loss, options, message):
    with pytest.raises(UserError, match=message) as caught:
        TermScheduleHandler(loss, **options)
    assert "\n" not in str(caught.value)
