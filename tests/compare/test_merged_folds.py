"""Evaluations of folds taken together are the evaluation of all cases in one go."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from medcalib.compare import merge_folds, read_evaluation
from medcalib.errors import UserError
from medcalib.functional import bin_statistics
from medcalib.handlers import ResultFolder
from medcalib.handlers.binned_cases import BinnedCases
from medcalib.handlers.image_predictions import ImagePredictions
from medcalib.reports.replayed_reports import replay_images, replay_volumes

CLASSES = ("organ", "lesion")
CASES = ["a", "b", "c", "d", "e"]
HALVES = {0: ["d", "b"], 1: ["a", "c", "e"]}


def volume(case):
    """Probabilities and labels of a case, which lacks the lesion in case b."""
    draw = np.random.default_rng(CASES.index(case))
    probs = torch.from_numpy(draw.dirichlet([2, 1, 1], size=(4, 4, 4))).movedim(-1, 0)
    label = torch.from_numpy(draw.integers(0, 2 if case == "b" else 3, size=(1, 4, 4, 4)))
    return probs[None], label[None]


def evaluate(folder, cases, num_bins=5, **provenance):
    """What an evaluation of these cases leaves."""
    found = [bin_statistics(*volume(case), num_bins=num_bins) for case in cases]
    statistics = type(found[0])(*(torch.cat([part[:, 1:] for part in parts]) for parts in zip(*found, strict=True)))
    absent = statistics.sum_true.sum(-1) == 0
    dice = torch.tensor([[CASES.index(case) / 7, 0.9 - CASES.index(case) / 9] for case in cases], dtype=torch.float64)
    metrics = {
        "mean_dice": dice.masked_fill(absent, np.nan),
        "nll_categorical": torch.tensor([[1 / (3 + CASES.index(case))] for case in cases], dtype=torch.float64),
    }
    scores = {"entropy_foreground_mean": torch.tensor([[CASES.index(case) / 3] for case in cases], dtype=torch.float64)}
    split = {"test": [{"case": case, "attributes": {"vendor": "AB"[CASES.index(case) % 2]}} for case in cases]}
    results = ResultFolder(folder, {"num_bins": num_bins, "checkpoint_digest": str(folder), **provenance})
    poor = {"poor_below": 0.5, "max_poor": 0.05}
    binned = BinnedCases(list(cases), CLASSES, statistics)
    band = binned._replace(statistics=type(statistics)(*(part * 2 for part in statistics)))
    replay_volumes(results, binned, metrics, scores, split, poor, band)
    return read_evaluation(folder)


@pytest.fixture
def folds(tmp_path):
    return {number: evaluate(tmp_path / f"fold_{number}", cases) for number, cases in HALVES.items()}


def same_numbers(merged, whole):
    everyone = whole.case_ids
    assert sorted(merged.case_ids) == sorted(everyone)
    assert merged.metrics.keys() == whole.metrics.keys()
    for name, table in whole.metrics.items():
        pd.testing.assert_frame_equal(merged.metrics[name].reindex(table.index), table, check_exact="micro" not in name)
    for key in ("num_values", "num_cases", "cases_without_class"):
        assert merged.summary.get(key) == whole.summary.get(key)


def test_all_is_as_in_one_evaluation(folds, tmp_path):
    merged = merge_folds(folds, tmp_path / "merged", {0: ["a", "c", "e"], 1: ["b", "d"]})
    whole = evaluate(tmp_path / "whole", [*HALVES[0], *HALVES[1]])
    same_numbers(merged, whole)
    for one, other in zip(merged.statistics, whole.statistics, strict=True):
        assert torch.equal(one, other)
    assert merged.quality_control["scores"] == whole.quality_control["scores"]
    assert merged.summary["strata"]["vendor"] == whole.summary["strata"]["vendor"]
    files = {path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*")}
    assert files == {path.relative_to(tmp_path / "merged") for path in (tmp_path / "merged").rglob("*")}


def test_every_case_says_its_fold_and_folds_are_what_they_were(folds, tmp_path):
    merged = merge_folds(folds, tmp_path / "merged")
    assert dict(zip(merged.case_ids, merged.cases["fold"], strict=True)) == {
        case: str(number) for number, cases in HALVES.items() for case in cases
    }
    for number, one in folds.items():
        of_fold = merged.summary["strata"]["fold"][str(number)]
        assert of_fold["num_cases"] == len(HALVES[number])
        assert of_fold["micro_ece"] == pytest.approx(one.summary["micro_ece"], rel=1e-12)
        assert of_fold["mean_dice"] == pytest.approx(one.summary["mean_dice"], rel=1e-12)


def test_what_produced_each_fold_is_kept(folds, tmp_path):
    told = merge_folds(folds, tmp_path / "merged").provenance
    assert told["num_bins"] == 5
    assert {key: one["checkpoint_digest"] for key, one in told["folds"].items()} == {
        str(number): str(tmp_path / f"fold_{number}") for number in HALVES
    }
    json.dumps(told)


@pytest.mark.parametrize(
    ("cases", "options", "seen", "message"),
    [
        (["a", "b"], {}, None, "Case b is evaluated in fold 0 and in fold 1, but it must count once"),
        (["a", "c"], {}, {0: ["a", "c", "e"], 1: ["b", "d"]}, "Case e was trained on in some folds, but none of"),
        (["a", "c", "e"], {}, {0: ["a", "b"], 1: []}, "Case b is evaluated in fold 0, whose training has seen it"),
        (["a", "c", "e"], {"num_bins": 6}, None, r"num_bins differ \(5 in fold 0, 6 in fold 1\)"),
        (["a", "c", "e"], {"space": "original"}, None, "space differ"),
        (["a", "c", "e"], {"trainings": [{"max_epochs": 3}]}, None, "max_epochs of trainings differ"),
        (["a", "c", "e"], {"calibrator": {"kind": "isotonic"}}, None, r"calibrator differ \(None in fold 0, isotonic"),
    ],
)
def test_what_does_not_belong_together_is_one_sentence(cases, options, seen, message, folds, tmp_path):
    folds[1] = evaluate(tmp_path / "other", cases, **options)
    with pytest.raises(UserError, match=message):
        merge_folds(folds, tmp_path / "merged", seen)
    assert not (tmp_path / "merged").exists()


def test_one_fold_is_no_cross_validation(folds, tmp_path):
    with pytest.raises(UserError, match="has two at least"):
        merge_folds({0: folds[0]}, tmp_path / "merged")


def test_classified_images_are_as_in_one_evaluation(tmp_path):
    def classify(folder, cases):
        draw = {case: np.random.default_rng(CASES.index(case)) for case in cases}
        probs = torch.tensor(np.array([draw[case].dirichlet([1, 1, 1]) for case in cases]), dtype=torch.float32)
        labels = torch.tensor([[CASES.index(case) % 3] for case in cases])
        entropy = torch.special.entr(probs).sum(1)
        found = ImagePredictions(list(cases), ("x", "y", "z"), probs, labels, {"entropy": entropy})
        replay_images(ResultFolder(folder, {"num_bins": 5}), found, 5, {}, with_retention=True)
        return read_evaluation(folder)

    merged = merge_folds({n: classify(tmp_path / str(n), cases) for n, cases in HALVES.items()}, tmp_path / "merged")
    whole = classify(tmp_path / "whole", [*HALVES[0], *HALVES[1]])
    for name, value in whole.summary.items():
        if isinstance(value, float):
            assert merged.summary[name] == pytest.approx(value, rel=1e-6), name
    assert merged.cases["predicted"].tolist() == whole.cases["predicted"].tolist()
    assert set(merged.summary["strata"]["fold"]) == {"0", "1"}
    assert merged.retention is not None
