"""Parts of results that handlers find, and others report."""

import json
import random

import pytest
import torch
from ignite.engine import Engine, Events

from medcalib.errors import UserError
from medcalib.functional import entropy
from medcalib.handlers import CalibrationErrorHandler, ResultFolder, UncertaintyScoresHandler, results_of
from medcalib.handlers.results import BINNED, CASE_SCORES, Results
from medcalib.reports import EvaluationReportHandler, QualityControlHandler, ReliabilityDiagramHandler
from medcalib.task import Task

TASK = Task(["background", "organ"])


def make_cases(number=3):
    generator = torch.Generator().manual_seed(0)
    cases = []
    for index in range(number):
        pred = torch.rand(2, 6, 5, generator=generator).softmax(0)
        label = torch.randint(0, 2, (1, 6, 5), generator=generator)
        maps = dict.fromkeys(("entropy", "mutual_information", "variance"), entropy(pred[None])[0])
        cases.append({"case": f"case_{index}", "pred": pred, "seg": pred.argmax(0, True), "label": label, **maps})
    return cases


def evaluate(handlers):
    engine = Engine(lambda _engine, batch: batch)
    engine.state.metric_details = {"mean_dice": torch.tensor([[0.5], [0.7], [0.9]])}
    for handler in handlers:
        handler.attach(engine)
    return engine.run([[case] for case in make_cases()])


def reported(path, shuffle):
    folder = ResultFolder(path)
    handlers = [
        folder,
        CalibrationErrorHandler(TASK, num_bins=5),
        UncertaintyScoresHandler(TASK, patch_size=2),
        EvaluationReportHandler(folder),
        QualityControlHandler(folder, TASK, figure_scores=()),
        ReliabilityDiagramHandler(folder, num_cases=2, formats=["png"]),
    ]
    shuffle(handlers)
    evaluate(handlers)
    return {
        file.relative_to(path): json.loads(file.read_text()) if file.suffix == ".json" else file.read_bytes()
        for file in path.rglob("*.*")
        if file.suffix != ".npz"
    }


@pytest.mark.parametrize("shuffle", [list.reverse, random.Random(0).shuffle], ids=["reversed", "shuffled"])
def test_the_order_in_which_handlers_are_attached_does_not_matter(tmp_path, shuffle):
    expected = reported(tmp_path / "usual", lambda handlers: None)
    assert reported(tmp_path / "other", shuffle) == expected


READERS = {
    "EvaluationReportHandler": (EvaluationReportHandler, "binned cases", "a CalibrationErrorHandler"),
    "ReliabilityDiagramHandler": (ReliabilityDiagramHandler, "binned cases", "a CalibrationErrorHandler"),
    "QualityControlHandler": (
        lambda folder: QualityControlHandler(folder, TASK),
        "case scores",
        "an UncertaintyScores",
    ),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_part_that_nobody_finds_is_told_before_anything_is_predicted(tmp_path, reader):
    make, part, finder = READERS[reader]
    folder = ResultFolder(tmp_path / "evaluation")
    engine = Engine(lambda *_: pytest.fail("something was predicted"))
    found = [] if part == "binned cases" else [CalibrationErrorHandler(TASK)]
    for handler in (folder, *found, make(folder)):
        handler.attach(engine)
    message = f"^{reader} needs the {part} of the epoch, which no handler .* attach {finder}.*too.$"
    with pytest.raises(UserError, match=message):
        engine.run([0])
    assert not list(tmp_path.iterdir())


def test_so_are_those_of_the_engine_that_finds_thresholds(tmp_path):
    folder, others = ResultFolder(tmp_path / "evaluation"), Engine(lambda *_: None)
    CalibrationErrorHandler(TASK).attach(others)
    engine = Engine(lambda *_: pytest.fail("something was predicted"))
    control = QualityControlHandler(folder, TASK, threshold_evaluator=others)
    for handler in (CalibrationErrorHandler(TASK), UncertaintyScoresHandler(TASK), control):
        handler.attach(engine)
    with pytest.raises(UserError, match="QualityControlHandler needs the case scores"):
        engine.run([0])


def test_a_part_is_made_once_in_every_epoch():
    engine, made = Engine(lambda *_: None), []
    results_of(engine).offer(BINNED, lambda: made.append(len(made)) or made[-1])
    read = []
    for _ in range(2):
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: read.append(results_of(engine)[BINNED]))
    engine.run([0], max_epochs=3)
    assert read == [0, 0, 1, 1, 2, 2]


def test_a_part_that_no_handler_makes_is_none():
    assert Results().get(CASE_SCORES) is None
