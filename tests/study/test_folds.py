"""Studies over folds: each fold is a training of its own, and together they evaluate every case once."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.study.test_expansion import numbers, plan

from medcalib.bundle.compose import generate
from medcalib.bundle.data_folds import DataFold
from medcalib.bundle.layout import Mode
from medcalib.bundle.shifted_cases import shifted_folder
from medcalib.bundle.templates import find_templates
from medcalib.errors import UserError
from medcalib.functional import BinStatistics
from medcalib.handlers import ResultFolder
from medcalib.handlers.binned_cases import BinnedCases
from medcalib.handlers.training_record import TrainingRecord, write_record
from medcalib.reports.replayed_reports import replay_volumes
from medcalib.study.fold_results import found_evaluation
from medcalib.study.placing import place_bundles
from medcalib.study.planned_runs import BundlePlace, Evaluated, Plan, Run
from medcalib.study.study_file import Study, read_study


def test_every_fold_is_trained_and_evaluated_and_shares_what_can_be_shared():
    found = plan(methods=("deterministic", "temperature_scaling"), folds=3)
    assert numbers(found) == (3, 3, 6)
    assert found.folds == (0, 1, 2)
    for evaluated in found.evaluated.values():
        (ids,) = evaluated.evaluations.values()
        assert [found.runs[id_].title.partition(", fold ")[2][0] for id_ in ids] == ["0", "1", "2"]
        assert len({found.runs[id_].output_dir for id_ in ids}) == 3
    assert all(run.title.count("fold") == 1 for run in found.runs.values())


def test_seeds_and_folds_multiply_and_predictions_are_those_of_the_first_fold():
    found = plan(("baseline_ce", "focal"), folds=2, seeds=(1, 2), predictions=4)
    assert numbers(found) == (8, 0, 8)
    predicted = [run for run in found.runs.values() if run.mode is Mode.INFERENCE_PRED]
    assert len(predicted) == 2
    assert all("fold 0" in run.title for run in predicted)
    everything = plan(("baseline_ce", "focal"), folds=2, predictions=None)
    assert sum(run.mode is Mode.INFERENCE_PRED for run in everything.runs.values()) == 4


def test_bundles_are_those_that_generate_makes(tmp_path):
    found = plan(("baseline_ce", "focal"), folds=2)
    by_command = generate(find_templates(), tmp_path, "phantom", "focal", "deterministic", None, DataFold(1, 2))[0]
    assert Path("bundles", by_command.name) in found.places
    here = {
        tmp_path / folder.name: BundlePlace(tmp_path / folder.name, place.fragments, fold=place.fold)
        for folder, place in found.places.items()
    }
    place_bundles(replace(found, places=here), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {folder.name for folder in found.places}


def test_folds_that_the_data_have():
    assert plan(("baseline_ce", "focal"), data="brats18", folds="all").folds == (0, 1, 2, 3, 4)
    assert plan(("baseline_ce", "focal"), data="brats18", folds=(0, 2)).folds == (0, 2)
    with pytest.raises(UserError, match=r"The study s: The data phantom have no folds of their own; folds: 5 divides"):
        plan(("baseline_ce", "focal"), folds="all")
    with pytest.raises(UserError, match="have folds of their own; give folds: all instead of a number"):
        plan(("baseline_ce", "focal"), data="brats18", folds=3)


@pytest.mark.parametrize(("value", "read"), [("all", "all"), (5, 5), ([2, 0], (0, 2))])
def test_the_key_of_the_file(value, read, write_study):
    assert read_study(write_study(folds=value)).folds == read


def test_a_study_without_folds_is_what_it_was(write_study):
    assert "folds" not in read_study(write_study()).content
    assert "folds" in read_study(write_study(folds=3)).content


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"folds": 1}, "folds must be all or a list"),
        ({"folds": "every"}, "folds must be all or a list"),
        ({"folds": True}, "folds must be all or a list"),
        ({"folds": [0]}, "lists a single fold"),
        ({"folds": [0, 0]}, "holds 0 twice"),
        ({"folds": [0, "x"]}, "must list folds by their numbers"),
        ({"folds": 3, "overrides": {"data::fold": 1}}, "data::fold stands in overrides, but the key folds decides it"),
    ],
)
def test_what_cannot_be_is_one_sentence(keys, message, write_study):
    with pytest.raises(UserError, match=message):
        read_study(write_study(**keys))


NOISE = {"data::corruption": "noise", "data::corruption_level": 3}


def evaluated_folds(root, halves, shifted=False):
    """The runs that evaluated halves of the cases, in which Dice is half the number of the fold."""
    runs = {}
    for number, cases in halves.items():
        bundle = root / f"bundle_{number}"
        folder = bundle / "seed_1" / (shifted_folder("noise", 3) if shifted else "")
        counts = torch.full((len(cases), 1, 2), number + 1)
        binned = BinnedCases(cases, ("organ",), BinStatistics(counts, counts * 0.5, counts * 0.5))
        dice = torch.full((len(cases), 1), number / 2, dtype=torch.float64)
        results = ResultFolder(folder / "evaluation", {"seed": 1, "num_bins": 2})
        replay_volumes(results, binned, {"mean_dice": dice}, {}, {})
        (folder / "predictions").mkdir()
        overrides = NOISE if shifted else {}
        runs[str(number)] = Run(str(number), "", Mode.INFERENCE_EVAL, bundle, "", {}, 1, False, overrides, folder)
    return runs


def test_the_report_reads_all_cases_of_all_folds(tmp_path):
    runs = evaluated_folds(tmp_path, {0: ["a", "b"], 1: ["c"]})
    study = Study("s", "phantom", ("focal",), folds=(0, 1))
    evaluated = {"focal / x=1": Evaluated({1: ("0", "1")}, "0", "")}
    whole = Plan(runs, {}, evaluated, {}, {}, "focal / x=1", {}, folds=(0, 1))
    found = found_evaluation(study, whole, "focal / x=1", 1, tmp_path / "study")
    assert found.case_ids == ["a", "b", "c"]
    assert found.summary["mean_dice"] == pytest.approx(0.5 / 3)
    assert found.seed == 1
    assert found.folder.with_name("predictions").resolve() == tmp_path / "bundle_0" / "seed_1" / "predictions"
    again = found_evaluation(study, whole, "focal / x=1", 1, tmp_path / "study")
    assert again.folder == found.folder


def test_worse_images_are_swept_in_every_fold():
    found = plan(methods=("deterministic", "tta"), folds=2, sweep={id_: (value,) for id_, value in NOISE.items()})
    assert numbers(found) == (2, 0, 2 * 2 * 2)
    for name, one in found.evaluated.items():
        (ids,) = one.evaluations.values()
        folders = {found.runs[id_].output_dir for id_ in ids}
        assert len(folders) == 2
        assert {folder.name == "noise_3" for folder in folders} == {"noise" in name}


@pytest.mark.parametrize("shifted", [False, True])
def test_a_fold_that_was_trained_on_its_cases_is_refused(shifted, tmp_path):
    runs = evaluated_folds(tmp_path, {0: ["a"], 1: ["b"]}, shifted)
    bundle = generate(find_templates(), tmp_path / "made", "phantom", "focal", "deterministic", None)[0]
    for number, case in ((0, "b"), (1, "b")):
        shutil.copytree(bundle / "configs", tmp_path / f"bundle_{number}" / "configs")
        cases = {"training": [{"case": case}], "validation": []}
        models = tmp_path / f"bundle_{number}" / "seed_1" / "models"
        models.mkdir()
        write_record(models, TrainingRecord(cases))
    study = Study("s", "phantom", ("focal",), folds=2)
    whole = Plan(runs, {}, {"focal": Evaluated({1: ("0", "1")}, None, "")}, {}, {}, "focal", {}, folds=(0, 1))
    with pytest.raises(UserError, match="Case b is evaluated in fold 1, whose training has seen it"):
        found_evaluation(study, whole, "focal", 1, tmp_path / "study")
