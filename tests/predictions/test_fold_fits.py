"""What is fitted on the folds of a cross-validation: of no case does its own label decide what becomes of it."""

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.special import softmax
from tests.predictions.predictions_on_disk import labels, probabilities, save, write_labels, write_volumes

from medcalib.errors import UserError
from medcalib.predictions import PredictionFolder
from medcalib.predictions.calibrator_fits import fitted_calibrator
from medcalib.predictions.fold_fits import FoldSettings, SourceInputs, calibrated_folds, cases_of_fits
from medcalib.predictions.fold_members import open_new_cases, write_new_members
from medcalib.predictions.guaranteeing import fit_guarantee
from medcalib.predictions.member_predictions import CasesByPart
from medcalib.task import Task

FOLDS = {0: ["p1", "p2", "p3", "p4"], 1: ["p5", "p6", "p7", "p8"]}
EVERYONE = [case for cases in FOLDS.values() for case in cases]
TASK = Task(["background", "organ", "lesion"])


@pytest.fixture
def source(tmp_path):
    """Each fold in a folder of its own, as networks leave them."""
    truth = write_labels(tmp_path / "labels", EVERYONE)
    folders = {}
    for number, cases in FOLDS.items():
        predicted = write_volumes(tmp_path / f"fold_{number}", cases)
        folders |= dict.fromkeys(cases, PredictionFolder(predicted, truth, "probabilities"))
    return CasesByPart(folders)


def settings(calibrator="temperature_scaling", guarantee=None, **options):
    return FoldSettings(TASK, calibrator, guarantee, **options)


def flip(folder, case):
    save(folder / f"{case}.nii.gz", (2 - labels(case)).astype(np.uint8))


@pytest.mark.parametrize("calibrator", ["temperature_scaling", "isotonic"])
@pytest.mark.parametrize("guarantee", [None, "recall_control"])
def test_what_becomes_of_a_case_does_not_depend_on_its_label(calibrator, guarantee, source, tmp_path):
    chosen = settings(calibrator, guarantee, alpha=0.4)
    before = calibrated_folds(chosen, FOLDS, source)[0]
    for case in FOLDS[0]:
        flip(tmp_path / "labels", case)
    after = calibrated_folds(chosen, FOLDS, source)[0]
    for case in FOLDS[0]:
        assert torch.equal(after.source.read(case, False).logits, before.source.read(case, False).logits)
    if guarantee is not None:
        assert after.guarantee.parts[0].state() == before.guarantee.parts[0].state()


def test_a_flipped_label_changes_what_becomes_of_others(source, tmp_path):
    before = calibrated_folds(settings(), FOLDS, source)
    flip(tmp_path / "labels", "p7")
    after = calibrated_folds(settings(), FOLDS, source)
    assert after[0].calibrator.describe() != before[0].calibrator.describe()
    assert after[None].calibrator.describe() != before[None].calibrator.describe()
    assert after[1].calibrator.describe() == before[1].calibrator.describe()


@pytest.mark.parametrize("calibrator", ["temperature_scaling", "vector_scaling", "isotonic"])
def test_folds_together_fit_as_all_cases_in_one_folder_do(calibrator, source, tmp_path):
    fits = calibrated_folds(settings(calibrator), FOLDS, source)
    one_folder = PredictionFolder(write_volumes(tmp_path / "all", EVERYONE), tmp_path / "labels", "probabilities")
    for left_out, cases in ((None, EVERYONE), (0, FOLDS[1]), (1, FOLDS[0])):
        expected, _ = fitted_calibrator(
            calibrator, TASK, lambda cases=cases: map(one_folder.read, cases), keep_argmax=False, num_bins=20, seed=0,
            device=torch.device("cpu"),
        )  # fmt: skip
        assert fits[left_out].cases["calibrator"] == cases
        for own, other in zip(fits[left_out].calibrator.parameters(), expected.parameters(), strict=True):
            assert torch.equal(own, other)
        assert fits[left_out].calibrator.state_dict().keys() == expected.state_dict().keys()


def test_a_guarantee_alone_is_fitted_on_all_cases_of_the_other_folds(source):
    fits = calibrated_folds(settings(None, "recall_control", alpha=0.3), FOLDS, source)
    expected = fit_guarantee("recall_control", SourceInputs(source, TASK), FOLDS[1], 0.3, None)
    assert fits[0].guarantee.parts[0].state() == expected.parts[0].state()
    assert fits[0].calibrator is None


class TestCasesOfFits:
    def test_both_have_cases_of_their_own_and_none_of_the_fold(self):
        found = cases_of_fits(FOLDS, 0, {}, divided=True)
        assert sorted(found["calibrator"] + found["guarantee"]) == FOLDS[1]
        assert len(found["calibrator"]) == len(found["guarantee"]) == 2

    def test_patients_are_not_divided(self):
        groups = {"p1": "x", "p2": "x", "p5": "y", "p6": "y", "p7": "y"}
        found = cases_of_fits(FOLDS, None, groups, divided=True)
        for name in "xy":
            members = {case for case, group in groups.items() if group == name}
            assert members <= set(found["calibrator"]) or members <= set(found["guarantee"])

    def test_too_few_are_one_sentence(self):
        with pytest.raises(UserError, match="cannot be divided between calibrator and guarantee"):
            cases_of_fits({0: ["a"], 1: ["b"]}, 0, {}, divided=True)


class TestNewCases:
    @pytest.fixture
    def members(self, tmp_path):
        for member in ("one", "two"):
            for case in ("n1", "n2"):
                write_volumes(tmp_path / member / case, [case])
        return [tmp_path / "one", tmp_path / "two"]

    def test_each_member_is_calibrated_and_all_are_averaged(self, members, source, tmp_path):
        save(tmp_path / "two" / "n1" / "n1_prob.nii.gz", np.moveaxis(probabilities("other"), 0, -1))
        fits = calibrated_folds(settings(), FOLDS, source)[None]
        new = open_new_cases(members, EVERYONE, "softmax", guarantees=False)
        write_new_members(tmp_path / "out", settings(), fits, new)
        temperature = fits.calibrator.describe()["temperature"]
        expected = np.mean([softmax(np.log(probabilities(name)) / temperature, 0) for name in ("n1", "other")], 0)
        found = np.asarray(nib.load(tmp_path / "out" / "n1" / "n1_prob.nii.gz").dataobj)
        np.testing.assert_allclose(np.moveaxis(found, -1, 0), expected, atol=1e-5)

    def test_a_guarantee_is_of_single_networks(self, members, source, tmp_path):
        chosen = settings("temperature_scaling", "recall_control", alpha=0.4)
        fits = calibrated_folds(chosen, FOLDS, source)[None]
        write_new_members(tmp_path / "out", chosen, fits, open_new_cases(members[:1], EVERYONE, "softmax", True))
        assert (tmp_path / "out" / "n2" / "n2_outer_lesion.nii.gz").is_file()
        with pytest.raises(UserError, match="promises nothing of 2 members together"):
            open_new_cases(members, EVERYONE, "softmax", True)

    def test_mistakes_are_one_sentence(self, members, tmp_path):
        with pytest.raises(UserError, match="case n1 of .*one is one of the cross-validation"):
            open_new_cases(members, ["n1"], "softmax", False)
        (tmp_path / "two" / "n2" / "n2_prob.nii.gz").unlink()
        with pytest.raises(UserError, match="two has no prediction of case n2, but another member has"):
            open_new_cases(members, EVERYONE, "softmax", False)
        with pytest.raises(UserError, match="holds no <case>/<case>_prob"):
            open_new_cases([tmp_path], EVERYONE, "softmax", False)
