import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from medcalib.errors import UserError
from medcalib.handlers import CalibrationErrorHandler, ObjectSizesHandler, RegionMetricHandler, ResultFolder, results_of
from medcalib.handlers.results import BINNED, OBJECT_SIZES
from medcalib.metrics import BrierScoreMetric
from medcalib.reports import ObjectSizeReportHandler
from medcalib.reports.object_size_report import size_limits
from medcalib.task import Task

CLASSES = ("organ", "lesion")
TASK = Task(["background", *CLASSES])
# voxels of 2 mm^3, so 500 of them are 1 ml
SPACING = (0.5, 2.0, 2.0)


def make_cases(number=9, seed=0):
    """Cases with 100, 200, ... voxels of the organ, and of the lesion in every other one."""
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for index in range(number):
        label = torch.zeros(2000, dtype=torch.long)
        label[: 100 * (index + 1)] = 1
        label[1500 : 1500 + index % 2 * 10 * (index + 1)] = 2
        pred = torch.rand(3, 10, 10, 20, generator=generator).softmax(0)
        affine = torch.diag(torch.tensor([*SPACING, 1.0]))
        cases.append({"case": f"c{index}", "pred": pred, "label": MetaTensor(label.view(1, 10, 10, 20), affine=affine)})
    return cases


def engine_of(cases, handlers):
    engine = Engine(lambda _engine, batch: batch)
    engine.state.metric_details = {}
    RegionMetricHandler(BrierScoreMetric(include_background=False)).attach(engine, "brier")
    for handler in handlers:
        handler.attach(engine)
    return engine


def report(path, cases, calibration=None, **options):
    folder = ResultFolder(path)
    others = None
    if calibration is not None:
        others = engine_of(calibration, [ObjectSizesHandler(TASK)])
        others.run([[case] for case in calibration])
    handlers = [folder, CalibrationErrorHandler(TASK, 10), ObjectSizesHandler(TASK)]
    handlers.append(ObjectSizeReportHandler(folder, TASK, calibration_evaluator=others, **options))
    engine = engine_of(cases, handlers)
    engine.run([[case] for case in cases])
    return pd.read_csv(path / "object_sizes.csv"), engine


def test_volumes_are_voxels_times_their_size():
    cases = make_cases()
    engine = engine_of(cases, [ObjectSizesHandler(TASK)])
    found = engine.run([cases[:4], cases[4:]]).results[OBJECT_SIZES]
    expected = [[0.2 * (i + 1), i % 2 * 0.02 * (i + 1)] for i in range(9)]
    np.testing.assert_allclose(found, expected)
    with_background = Task(TASK.class_names, include_background=True)
    engine = engine_of(cases, [ObjectSizesHandler(with_background)])
    found = engine.run([cases]).results[OBJECT_SIZES]
    np.testing.assert_allclose(found.sum(1), 4.0)


def test_volumes_of_channels_are_those_of_the_label_map():
    task = Task(CLASSES, "sigmoid")
    affine = torch.diag(torch.tensor([*SPACING, 1.0]))
    channels = [
        {**case, "label": MetaTensor(torch.cat([case["label"] == 1, case["label"] == 2]).float(), affine=affine)}
        for case in make_cases()
    ]
    engine = Engine(lambda _engine, batch: batch)
    ObjectSizesHandler(task).attach(engine)
    found = engine.run([channels]).results[OBJECT_SIZES]
    np.testing.assert_allclose(found[:, 0], 0.2 * np.arange(1, 10))


def test_each_row_is_what_its_cases_give_alone(tmp_path, capsys):
    cases = make_cases()
    table, engine = report(tmp_path / "all", cases, limits_ml={"organ": [0.6, 1.4], "lesion": [0.05, 0.1]})
    assert table[["class", "size"]].values.tolist() == [
        list(pair) for pair in itertools.product(CLASSES, ["small", "medium", "large"])
    ]
    # a limit itself belongs to the larger objects
    assert table["num_cases"].tolist() == [2, 4, 3, 1, 1, 2]
    sizes = results_of(engine)[OBJECT_SIZES].numpy()
    for _, row in table.iterrows():
        index = CLASSES.index(row["class"])
        chosen = [i for i in range(9) if sizes[i, index] > 0 and row["from_ml"] <= sizes[i, index] < row["below_ml"]]
        _, engine_alone = report(tmp_path / f"{row['class']}_{row['size']}", [cases[i] for i in chosen])
        details = engine_alone.state.metric_details
        for metric in ("brier", "macro_ece", "macro_ace"):
            assert row[metric] == pytest.approx(details[metric][:, index].nanmean().item(), rel=1e-12)
        micro = results_of(engine_alone)[BINNED].micro_errors()
        for metric in ("micro_ece", "micro_ace", "micro_mce"):
            assert row[metric] == pytest.approx(micro[metric][index].item(), rel=1e-12)
    printed = capsys.readouterr().out
    assert "organ, medium" in printed
    assert "Medium and large begin at (as given): organ 0.6 and 1.4 ml; lesion 0.05 and 0.1 ml." in printed


def test_tertiles_are_those_of_the_calibration_cases(tmp_path, capsys):
    table, _ = report(tmp_path / "a", make_cases(), calibration=make_cases(6))
    low, high = np.quantile(0.2 * np.arange(1, 7), (1 / 3, 2 / 3))
    np.testing.assert_allclose(table.loc[table["size"] == "medium", ["from_ml", "below_ml"]].values[0], [low, high])
    assert "tertiles of the calibration cases" in capsys.readouterr().out
    table, _ = report(tmp_path / "b", make_cases())
    assert table["num_cases"].tolist()[:3] == [3, 3, 3]
    assert "tertiles of the evaluated cases" in capsys.readouterr().out


def test_tertiles_of_calibration_cases_that_nobody_predicted_are_those_of_the_evaluated_cases(tmp_path, capsys):
    idle = engine_of([], [ObjectSizesHandler(TASK)])
    folder = ResultFolder(tmp_path / "a")
    handlers = [folder, CalibrationErrorHandler(TASK, 10), ObjectSizesHandler(TASK)]
    handlers.append(ObjectSizeReportHandler(folder, TASK, calibration_evaluator=idle))
    engine_of(make_cases(), handlers).run([[case] for case in make_cases()])
    assert "tertiles of the evaluated cases" in capsys.readouterr().out


def test_a_class_that_no_case_has_has_no_numbers(tmp_path):
    table, _ = report(tmp_path / "a", make_cases(1))
    lesion = table[table["class"] == "lesion"]
    assert lesion["num_cases"].tolist() == [0, 0, 0]
    assert lesion[["brier", "macro_ece", "micro_ece"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ([3, 1], r"such as \[2,10\], not \[3, 1\]"),
        ([0, 1], "not"),
        ([1], "not"),
        ("2,10", "not '2,10'"),
        ([1, True], "not"),
        ({"organ": [1, 2], "lesions": [1, 2]}, "no limits of the class lesion; did you mean lesions"),
    ],
)
def test_wrong_limits_are_named(limits, message):
    with pytest.raises(UserError, match=message):
        size_limits(limits, CLASSES)


def test_a_case_of_unknown_voxel_size_is_named():
    case = make_cases(1)[0]
    case["label"] = case["label"].as_tensor()
    engine = engine_of([case], [ObjectSizesHandler(TASK)])
    with pytest.raises(UserError, match="The objects of case c0 cannot be measured: a distance needs the spacing"):
        engine.run([[case]])
