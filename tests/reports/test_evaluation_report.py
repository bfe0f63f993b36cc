"""Handlers on engines that are driven with made-up batches."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from ignite.engine import Engine
from monai.handlers import IgniteMetricHandler, from_engine

from medcalib.errors import UserError
from medcalib.functional import bin_statistics, calibration_error
from medcalib.handlers import BinnedCases, CalibrationErrorHandler, ResultFolder
from medcalib.handlers.results import BINNED
from medcalib.metrics import BrierScoreMetric
from medcalib.reports import EvaluationReportHandler, ReliabilityDiagramHandler
from medcalib.task import Task

CLASSES = ["left", "right"]
TASK = Task(["background", *CLASSES])


def make_cases(number, shape=(6, 5, 4), seed=0):
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for index in range(number):
        pred = torch.rand(3, *shape, generator=generator).softmax(0)
        label = torch.randint(0, 3, (1, *shape), generator=generator)
        cases.append({"case": f"case_{index}", "pred": pred, "label": label})
    return cases


def evaluate(cases, handlers, batch_size=1, epochs=1, metrics=()):
    """Run an engine whose output is the batch itself."""
    engine = Engine(lambda _engine, batch: batch)
    engine.state.metric_details = {}
    for name, metric in dict(metrics).items():
        metric.attach(engine, name)
    for handler in handlers:
        handler.attach(engine)
    batches = [cases[start : start + batch_size] for start in range(0, len(cases), batch_size)]
    engine.run(batches, max_epochs=epochs)
    return engine.state


def binning(task=TASK):
    return [CalibrationErrorHandler(task, num_bins=10)]


def binned(state):
    return state.results[BINNED]


@pytest.mark.parametrize("reduction", ["expected", "average", "maximum"])
def test_macro_is_the_mean_over_cases(reduction):
    cases = make_cases(4)
    state = evaluate(cases, binning())
    name = f"macro_{reduction[0].replace('e', 'ece').replace('a', 'ace').replace('m', 'mce')}"
    errors = [
        calibration_error(bin_statistics(c["pred"][None], c["label"][None], 10), reduction)[0, 1:].mean() for c in cases
    ]
    assert state.metrics[name] == pytest.approx(float(torch.stack(errors).mean()), rel=1e-12)


def test_micro_pools_all_voxels():
    cases = make_cases(3)
    state = evaluate(cases, binning())
    whole = bin_statistics(
        torch.cat([c["pred"].flatten(1) for c in cases], 1)[None],
        torch.cat([c["label"].flatten(1) for c in cases], 1)[None],
        10,
    )
    assert state.metrics["micro_ece"] == pytest.approx(float(calibration_error(whole)[0, 1:].mean()), rel=1e-12)


def test_perfectly_calibrated_cases_pool_to_zero():
    """10,000 voxels at .75 and 4 at .5 in one bin: an unweighted mean of the confidences would show a gap."""

    def case(name, p, size):
        pred = torch.full((3, size), 0.0)
        pred[1], pred[0] = p, 1 - p
        label = torch.zeros(1, size, dtype=torch.long)
        label[0, : int(p * size)] = 1
        return {"case": name, "pred": pred, "label": label}

    cases = [case("many", 0.75, 10_000), case("few", 0.5, 4)]
    state = evaluate(cases, [CalibrationErrorHandler(TASK, num_bins=1)])
    assert binned(state).micro_errors()["micro_ece"][0] == pytest.approx(0, abs=1e-7)


def test_batches_equal_cases_one_by_one():
    cases = make_cases(5)
    one, many = (evaluate(cases, binning(), batch_size=size) for size in (1, 3))
    assert binned(one).cases == binned(many).cases
    for first, second in zip(binned(one).statistics, binned(many).statistics, strict=True):
        assert torch.equal(first, second)


def test_epochs_do_not_add_up():
    cases = make_cases(2)
    once, thrice = (evaluate(cases, binning(), epochs=epochs) for epochs in (1, 3))
    assert torch.equal(binned(once).statistics.counts, binned(thrice).statistics.counts)


def test_a_case_seen_twice_counts_once():
    cases = make_cases(3)
    plain, repeated = evaluate(cases, binning()), evaluate([*cases, cases[0]], binning())
    for name, value in plain.metrics.items():
        assert repeated.metrics[name] == pytest.approx(value, rel=1e-12), name


def test_missing_class_is_nan_and_left_out():
    cases = make_cases(2)
    cases[0]["label"][cases[0]["label"] == 2] = 0
    state = evaluate(cases, binning())
    details = state.metric_details["macro_ece"]
    assert details[0].isnan().tolist() == [False, True]
    expected = np.nanmean(np.nanmean(details.numpy(), 1))
    assert state.metrics["macro_ece"] == pytest.approx(expected)


def test_background_is_kept_on_demand():
    state = evaluate(make_cases(2), binning(Task(["background", *CLASSES], include_background=True)))
    assert binned(state).classes == ("background", *CLASSES)
    assert binned(state).statistics.counts.shape[1] == 3


def test_a_nan_prediction_names_the_case():
    cases = make_cases(2)
    cases[1]["pred"][0, 0, 0, 0] = torch.nan
    with pytest.raises(UserError, match="Case case_1 cannot be evaluated"):
        evaluate(cases, binning())


def report(tmp_path, cases, provenance=None, drawing=None, **kwargs):
    folder = ResultFolder(tmp_path / "evaluation", provenance)
    brier = BrierScoreMetric(include_background=False)
    evaluate(
        cases,
        [
            folder,
            CalibrationErrorHandler(TASK, num_bins=10),
            EvaluationReportHandler(folder),
            ReliabilityDiagramHandler(folder, **{"num_cases": 1, **(drawing or {})}),
        ],
        metrics={"brier": IgniteMetricHandler(brier, output_transform=from_engine(["pred", "label"]))},
        **kwargs,
    )
    return tmp_path / "evaluation"


def test_rows_carry_the_right_case_in_batches(tmp_path, capsys):
    cases = make_cases(5)
    folder = report(tmp_path, cases, batch_size=2)
    table = pd.read_csv(folder / "brier_raw.csv").set_index("filename")
    for case in cases:
        for index, name in enumerate(CLASSES, start=1):
            expected = ((case["pred"][index] - (case["label"][0] == index).float()) ** 2).mean()
            assert table.loc[case["case"], name] == pytest.approx(float(expected), rel=1e-5)
    printed = capsys.readouterr().out
    assert "ECE" in printed
    assert "5 cases" in printed


def test_summary_counts_values_and_names_cases_without_class(tmp_path):
    cases = make_cases(3)
    cases[1]["label"].clamp_(max=1)
    folder = report(tmp_path, cases)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["cases_without_class"] == {"left": [], "right": ["case_1"]}
    assert summary["num_values"]["brier"] == {"left": 3, "right": 2, "mean": 3}
    assert np.isnan(pd.read_csv(folder / "brier_raw.csv").loc[1, "right"])


def test_a_class_that_is_nowhere_is_null(tmp_path):
    cases = make_cases(2)
    for case in cases:
        case["label"].clamp_(max=1)
    summary = json.loads((report(tmp_path, cases) / "summary.json").read_text())
    assert summary["per_class"]["macro_ece"]["right"] is None


def test_results_of_the_same_provenance_are_replaced_others_kept(tmp_path):
    report(tmp_path, make_cases(2), {"num_bins": 10})
    report(tmp_path, make_cases(3), {"num_bins": 10})
    assert not (tmp_path / "evaluation_1").exists()
    report(tmp_path, make_cases(4), {"num_bins": 20})
    assert len(pd.read_csv(tmp_path / "evaluation_1" / "brier_raw.csv")) == 3
    assert len(pd.read_csv(tmp_path / "evaluation" / "brier_raw.csv")) == 4


def test_a_failed_evaluation_leaves_the_results_before(tmp_path):
    report(tmp_path, make_cases(2))
    cases = make_cases(3)
    cases[2]["pred"][:] = 2
    with pytest.raises(ValueError, match="probabilities"):
        report(tmp_path, cases)
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation"]
    assert len(pd.read_csv(tmp_path / "evaluation" / "brier_raw.csv")) == 2


def test_unique_keeps_the_first():
    statistics = bin_statistics(torch.rand(3, 2, 4), torch.zeros(3, 1, 4, dtype=torch.long), 4)
    unique = BinnedCases(["a", "b", "a"], ("x", "y"), statistics).unique()
    assert unique.cases == ["a", "b"]
    assert torch.equal(unique.statistics.sum_pred, statistics.sum_pred[:2])


def _evaluate_on_rank(rank, folder):
    torch.distributed.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    cases = make_cases(5)
    # the first case is on both ranks, as when a sampler pads
    report(folder, [cases[:3], [*cases[3:], cases[0]]][rank])
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_equal_one(tmp_path):
    single, double = tmp_path / "single", tmp_path / "double"
    single.mkdir()
    double.mkdir()
    report(single, make_cases(5))
    torch.multiprocessing.spawn(_evaluate_on_rank, (double,), nprocs=2)
    one, two = (json.loads((f / "evaluation" / "summary.json").read_text()) for f in (single, double))
    for name, value in one.items():
        if isinstance(value, float):
            assert two[name] == pytest.approx(value, rel=1e-9), name
    assert two["num_cases"] == 5
    tables = [pd.read_csv(f / "evaluation" / "macro_ece_raw.csv").sort_values("filename") for f in (single, double)]
    np.testing.assert_allclose(tables[0][CLASSES], tables[1][CLASSES])


def figures(folder):
    return {path.name for path in (folder / "reliability").iterdir() if path.suffix == ".png"}


@pytest.mark.parametrize(("num_cases", "drawn"), [(0, 0), (2, 2), (None, 5)])
def test_as_many_cases_are_drawn_as_wanted(tmp_path, num_cases, drawn):
    names = figures(report(tmp_path, make_cases(5), drawing={"num_cases": num_cases}))
    assert sum(name.startswith("case_") for name in names) == drawn
    assert {"dataset_diagram.png", "dataset_histogram.png"} <= names
