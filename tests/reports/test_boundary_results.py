"""Calibration at boundaries and debiased errors, as they stand in the tables of an evaluation."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from medcalib.errors import UserError
from medcalib.functional import BinStatistics, calibration_error, debiased_calibration_error
from medcalib.handlers import BoundaryCalibrationHandler, CalibrationErrorHandler, RegionMetricHandler, ResultFolder
from medcalib.metrics import BoundaryStatisticsMetric, BrierScoreMetric
from medcalib.reports import EvaluationReportHandler
from medcalib.task import Task

TASK = Task(["background", "organ", "lesion"])
AFFINE = torch.diag(torch.tensor([1.0, 0.7, 1.0, 1.0]))


def make_cases(number=5):
    generator = torch.Generator().manual_seed(0)
    cases = []
    for index in range(number):
        pred = torch.rand(3, 12, 9, generator=generator).softmax(0)
        label = torch.zeros(1, 12, 9, dtype=torch.long)
        label[0, 2:7, 2:6] = 1
        if index != 1:
            label[0, 8:11, 6:8] = 2
        cases.append({"case": f"c{index}", "pred": pred, "label": MetaTensor(label, affine=AFFINE)})
    return cases


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    path, cases = tmp_path_factory.mktemp("results") / "evaluation", make_cases()
    folder = ResultFolder(path)
    engine = Engine(lambda _engine, batch: batch)
    engine.state.metric_details = {}
    RegionMetricHandler(BrierScoreMetric(include_background=False)).attach(engine, "brier")
    for handler in (
        folder,
        CalibrationErrorHandler(TASK, 5),
        BoundaryCalibrationHandler(TASK, band_mm=1.5, num_bins=5),
        EvaluationReportHandler(folder),
    ):
        handler.attach(engine)
    engine.run([cases[:2], cases[2:]])
    return path


def statistics(path, name="bin_statistics.npz"):
    with np.load(path / name) as file:
        return BinStatistics(*(torch.from_numpy(file[part]) for part in BinStatistics._fields))


def test_tables_at_the_boundary_are_those_of_the_metric(results):
    metric = BoundaryStatisticsMetric(1.5, 5, include_background=False)
    for case in make_cases():
        metric([case["pred"]], [case["label"]])
    expected = metric.aggregate()
    for mine, theirs in zip(statistics(results, "boundary_bin_statistics.npz"), expected, strict=True):
        torch.testing.assert_close(mine, theirs)
    summary = json.loads((results / "summary.json").read_text())
    for name, reduction in {"ece": "expected", "ace": "average", "mce": "maximum"}.items():
        table = pd.read_csv(results / f"macro_boundary_{name}_raw.csv")
        errors = calibration_error(expected, reduction).numpy()
        np.testing.assert_allclose(table[["organ", "lesion"]], errors)
        assert np.isnan(errors[1, 1])
        assert summary[f"macro_boundary_{name}"] == pytest.approx(np.nanmean(np.nanmean(errors, 1)))
        pooled = pd.read_csv(results / f"micro_boundary_{name}_raw.csv")[["organ", "lesion"]]
        np.testing.assert_allclose(pooled, calibration_error(expected.pool(), reduction))
    assert {"macro_boundary_ece", "macro_ece_debiased"} < set(pd.read_csv(results / "cases.csv").columns)


def test_debiased_errors_stand_beside_the_plain_ones(results):
    found = statistics(results)
    table = pd.read_csv(results / "macro_ece_debiased_raw.csv")
    expected = debiased_calibration_error(found).masked_fill(found.sum_true.sum(-1) == 0, np.nan)
    np.testing.assert_allclose(table[["organ", "lesion"]], expected)
    pooled = pd.read_csv(results / "micro_ece_debiased_raw.csv")
    np.testing.assert_allclose(pooled[["organ", "lesion"]], debiased_calibration_error(found, unit="case"))
    assert pooled["filename"].tolist() == ["dataset"]
    left = debiased_calibration_error(found, "l2", "case").clamp(min=0).sqrt()
    roots = {name: pd.read_csv(results / f"micro_rmsce{name}_raw.csv") for name in ("", "_debiased")}
    np.testing.assert_allclose(roots["_debiased"][["organ", "lesion"]], left)
    assert (roots["_debiased"]["mean"] <= roots[""]["mean"]).all()
    whole = found.pool()
    gap = (whole.sum_pred - whole.sum_true) / whole.counts
    root = (whole.counts * gap.nan_to_num(0) ** 2).sum(-1) / whole.counts.sum(-1)
    np.testing.assert_allclose(roots[""][["organ", "lesion"]], root.sqrt())


@pytest.mark.parametrize("width", [0, -1, "3mm", True, float("nan")])
def test_a_wrong_band_is_named(width):
    with pytest.raises(UserError, match="must be a number of mm above 0, such as 3"):
        BoundaryCalibrationHandler(TASK, band_mm=width)


def test_a_case_of_unknown_voxel_size_is_named():
    case = make_cases(1)[0]
    case["label"] = case["label"].as_tensor()
    engine = Engine(lambda _engine, batch: batch)
    BoundaryCalibrationHandler(TASK, 1.5).attach(engine)
    with pytest.raises(UserError, match="Case c0 cannot be evaluated: a distance needs the spacing"):
        engine.run([[case]])
