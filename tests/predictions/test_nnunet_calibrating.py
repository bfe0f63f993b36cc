"""nnU-Net both ways: its folds calibrated out of fold, its ensembles taken together, and all of it written back."""

import json
import pickle
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit, logit, softmax
from scipy.stats import entropy
from tests._reference import bin_statistics, one_hot
from tests.predictions.nnunet_on_disk import (
    BOX,
    FOLDS,
    MEMBERS,
    NEW,
    labels,
    preprocessed_dir,
    probabilities,
    properties,
    results_dir,
    segmentation,
    write_nnunet,
)
from tests.predictions.predictions_on_disk import AFFINE

from medcalib.calibrators import TemperatureScaling, fit_calibrator, read_calibrator
from medcalib.compare import read_evaluation
from medcalib.errors import UserError
from medcalib.predictions import PredictionFolder, calibrate_nnunet, evaluate_predictions

EVERYONE = [case for cases in FOLDS.values() for case in cases]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("nnunet")
    write_nnunet(root)
    return root


@pytest.fixture(scope="module")
def done(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("results") / "out"
    report = calibrate_nnunet(results_dir(data), out, predictions=[data / name for name in MEMBERS], evaluate=False)
    return report, out


def archive(folder, case):
    """What nnU-Net reads, on the axes of the NIfTI file."""
    with np.load(folder / f"{case}.npz") as arrays:
        assert arrays.files == ["probabilities"]
        assert arrays["probabilities"].dtype == np.float32
        return arrays["probabilities"].transpose(0, 3, 2, 1)


def image(path):
    stored = nib.load(path)
    np.testing.assert_allclose(stored.affine, AFFINE)
    return np.asarray(stored.dataobj)


def fitted_temperature(cases):
    """The temperature that is fitted on cases inside the crop, by hand."""
    calibrator = TemperatureScaling(3)
    split = []
    for case in cases:
        inside = np.log(probabilities(case)[:, *BOX])
        split.append((torch.from_numpy(inside)[None], torch.from_numpy(labels(case)[BOX])[None, None]))
    fit_calibrator(calibrator, split)
    return float(calibrator.temperature)


def scaled(channels, temperature):
    """The crop calibrated by plain NumPy; what lies around it as it is."""
    result = channels.copy()
    result[:, *BOX] = softmax(np.log(channels[:, *BOX].astype(float)) / temperature, 0)
    return result


def test_each_fold_is_calibrated_by_the_others(done):
    report, out = done
    assert report.num_cases == 4
    for number, cases in FOLDS.items():
        others = [case for case in EVERYONE if case not in cases]
        stored = read_calibrator(out / "cross_validation" / "calibrators" / f"without_fold_{number}.pt")
        assert stored["details"]["cases"] == others
        temperature = stored["report"]["parameters"]["temperature"]
        assert temperature == pytest.approx(fitted_temperature(others), rel=1e-4)
        for case in cases:
            written = archive(out / "cross_validation" / "nnunet" / f"fold_{number}" / "validation", case)
            np.testing.assert_allclose(written, scaled(probabilities(case), temperature), atol=2e-6)
            usual = out / "cross_validation" / "predictions" / case
            np.testing.assert_array_equal(np.moveaxis(image(usual / f"{case}_prob.nii.gz"), -1, 0), written)


def test_new_cases_are_calibrated_by_all_folds_member_by_member(done):
    report, out = done
    temperature = report.parameters["temperature"]
    assert temperature == pytest.approx(fitted_temperature(EVERYONE), rel=1e-4)
    assert read_calibrator(out / "calibrator.pt")["details"]["cases"] == EVERYONE
    for case in NEW:
        for member, name in enumerate(MEMBERS, 1):
            written = archive(out / "test" / "nnunet" / name, case)
            np.testing.assert_allclose(written, scaled(probabilities(case, member), temperature), atol=2e-6)


def test_nnunet_finds_its_files_beside_the_probabilities(data, done):
    out = done[1]
    places = [(out / "cross_validation" / "nnunet" / "fold_0" / "validation", FOLDS[0])]
    places += [(out / "test" / "nnunet" / name, NEW) for name in MEMBERS]
    for folder, cases in places:
        for case in cases:
            assert pickle.loads((folder / f"{case}.pkl").read_bytes()) == properties()
            seg = image(folder / f"{case}.nii.gz")
            np.testing.assert_array_equal(seg, archive(folder, case).argmax(0))
            assert seg.dtype == np.uint8
    for folder in (out / "cross_validation" / "nnunet", *(out / "test" / "nnunet" / name for name in MEMBERS)):
        for name in ("dataset.json", "plans.json"):
            assert (folder / name).read_bytes() == (results_dir(data) / name).read_bytes()


def test_members_are_averaged_and_compared(done):
    out = done[1] / "test"
    table = pd.read_csv(out / "scores.csv", index_col="filename")
    for case in NEW:
        members = np.stack([archive(out / "nnunet" / name, case) for name in MEMBERS]).astype(float)
        mean = members.mean(0)
        usual = out / "predictions" / case
        np.testing.assert_allclose(np.moveaxis(image(usual / f"{case}_prob.nii.gz"), -1, 0), mean, atol=1e-6)
        np.testing.assert_array_equal(image(usual / f"{case}_seg.nii.gz"), mean.argmax(0))
        total, expected = entropy(mean, axis=0), entropy(members, axis=1).mean(0)
        np.testing.assert_allclose(image(usual / f"{case}_entropy.nii.gz"), total, atol=1e-5)
        np.testing.assert_allclose(image(usual / f"{case}_mutual_information.nii.gz"), total - expected, atol=1e-5)
        np.testing.assert_allclose(image(usual / f"{case}_variance.nii.gz"), members.var(0).mean(0), atol=1e-6)
        decided = members.argmax(1)
        dice = [
            2 * ((decided[i] == c) & (decided[j] == c)).sum() / ((decided[i] == c).sum() + (decided[j] == c).sum())
            for c in (1, 2)
            for i, j in ((0, 1), (0, 2), (1, 2))
        ]
        assert table.loc[case, "pairwise_dice"] == pytest.approx(np.mean(dice))
        foreground = mean.argmax(0) > 0
        assert table.loc[case, "entropy_foreground_mean"] == pytest.approx(total[foreground].mean(), abs=1e-5)


def test_without_calibrator_everything_comes_back(data, tmp_path):
    """A single member: no calibrator, and no maps of several; the archives are those that were given."""
    calibrate_nnunet(None, tmp_path / "out", predictions=data / MEMBERS[0], calibrator="none")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["summary.json", "test"]
    for case in NEW:
        given, written = (
            archive(folder, case) for folder in (data / MEMBERS[0], tmp_path / "out/test/nnunet/by_fold_0")
        )
        np.testing.assert_allclose(written, given, atol=1e-6)
        np.testing.assert_array_equal(given, probabilities(case, 1))
        for name in (f"{case}.pkl", "dataset.json", "plans.json"):
            kept = (tmp_path / "out/test/nnunet/by_fold_0" / name).read_bytes()
            assert kept == (data / MEMBERS[0] / name).read_bytes()
        usual = tmp_path / "out/test/predictions" / case
        assert {path.name for path in usual.iterdir()} == {
            f"{case}_{kind}.nii.gz" for kind in ("prob", "seg", "entropy")
        }
        np.testing.assert_array_equal(np.moveaxis(image(usual / f"{case}_prob.nii.gz"), -1, 0), written)
    assert "pairwise_dice" not in pd.read_csv(tmp_path / "out/test/scores.csv")


def test_regions_are_painted_in_their_order(tmp_path):
    write_nnunet(tmp_path, regions=True)
    report = calibrate_nnunet(
        results_dir(tmp_path), tmp_path / "out", predictions=[tmp_path / MEMBERS[0]], evaluate=False
    )
    for case in NEW:
        given = probabilities(case, 1, regions=True)
        expected = given.copy()
        expected[:, *BOX] = expit(logit(given[:, *BOX].astype(float)) / report.parameters["temperature"])
        folder = tmp_path / "out/test/nnunet/by_fold_0"
        written = archive(folder, case)
        np.testing.assert_allclose(written, expected, atol=1e-5)
        np.testing.assert_array_equal(image(folder / f"{case}.nii.gz"), segmentation(written, regions=True))
    assert json.loads((tmp_path / "out/summary.json").read_text())["class_names"] == ["whole", "core"]


def test_a_single_fold_is_dealt_into_parts(data, tmp_path):
    calibrate_nnunet(results_dir(data), tmp_path / "out", folds=[1], evaluate=False)
    for part, other in ((0, "c"), (1, "007")):
        stored = read_calibrator(tmp_path / "out" / "cross_validation" / "calibrators" / f"without_part_{part}.pt")
        assert stored["details"]["cases"] == [other]


@pytest.mark.slow
def test_what_is_evaluated_is_as_the_project_evaluates(data, tmp_path):
    out = tmp_path / "out"
    members = [data / name for name in MEMBERS]
    calibrate_nnunet(
        results_dir(data), out, predictions=members, test_labels_dir=data / "labelsTs", poor_below=0.6, num_bins=10
    )
    before, after = (read_evaluation(out / "cross_validation" / name) for name in ("before", "after"))
    assert before.case_ids == after.case_ids == EVERYONE
    assert before.class_names == ["liver", "lesion"]
    for row, case in enumerate(EVERYONE):
        written = np.moveaxis(image(out / f"cross_validation/predictions/{case}/{case}_prob.nii.gz"), -1, 0)
        y = one_hot(labels(case).reshape(1, 1, -1), 3)
        for evaluation, p in ((before, probabilities(case)), (after, written)):
            counts, sum_pred, sum_true = bin_statistics(p.reshape(1, 3, -1).astype(float), y, 10)
            ece = (np.abs(sum_pred - sum_true).sum(-1) / counts.sum(-1))[0, 1:]
            np.testing.assert_allclose(evaluation.metrics["macro_ece"].iloc[row, :2], ece, atol=1e-5)
    assert after.summary["nll"] < before.summary["nll"]
    assert after.quality_control["poor_below"] == 0.6
    assert after.quality_control["scores"]["entropy_foreground_mean"]["num_cases"] == 4

    # of the members, what was written is what was evaluated
    usual = PredictionFolder(out / "test" / "predictions", data / "labelsTs", "probabilities")
    names = ["background", "liver", "lesion"]
    by_hand = evaluate_predictions(usual, NEW, tmp_path / "by_hand", class_names=names, num_bins=10)
    after = read_evaluation(out / "test" / "after")
    for metric in ("mean_dice", "nll", "macro_ece", "brier"):
        np.testing.assert_allclose(after.values(metric), by_hand.values(metric), atol=1e-5)
    scores = pd.read_csv(out / "test" / "scores.csv", index_col="filename")
    for score in ("pairwise_dice", "mutual_information_foreground_mean", "entropy_image_mean"):
        assert score in after.quality_control["scores"]
        np.testing.assert_allclose(after.cases.set_index("filename")[score], scores[score], atol=1e-9)
    assert (out / "test" / "before" / "quality_control" / "scatter.png").is_file()
    summary = json.loads((out / "summary.json").read_text())
    assert summary["test"]["comparison"]["mean_dice"]["num_cases"] == 2
    assert summary["provenance"]["predictions"] == [str(folder) for folder in members]


def without(name):
    return lambda root: next(root.rglob(name)).unlink()


def splits(change):
    def mistake(root):
        path = preprocessed_dir(root) / "splits_final.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return mistake


def dataset(change, folder="nnUNetTrainer__nnUNetPlans__3d_fullres"):
    def mistake(root):
        path = next(path for path in root.rglob("dataset.json") if path.parent.name == folder)
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return mistake


def copied(case, fold):
    def mistake(root):
        source = next(results_dir(root).rglob(f"{case}.npz"))
        for path in source.parent.glob(f"{case}.*"):
            shutil.copy(path, results_dir(root) / f"fold_{fold}" / "validation")

    return mistake


def in_two_folds(root):
    splits(lambda listed: listed.__setitem__(1, {"train": ["a_1"], "val": ["b", "c", "007"]}))(root)
    copied("b", 1)(root)


def trained_on_all(root):
    for fold in FOLDS:
        shutil.rmtree(results_dir(root) / f"fold_{fold}")
    (results_dir(root) / "fold_all").mkdir()


def one_class_less(root):
    path = root / MEMBERS[1] / "n_2.npz"
    with np.load(path) as arrays:
        array = arrays["probabilities"][:-1]
    np.savez_compressed(path, probabilities=array)


def predicted_again(root):
    for ending in ("npz", "pkl", "nii.gz"):
        source = results_dir(root) / "fold_0" / "validation" / f"b.{ending}"
        for name in MEMBERS:
            shutil.copy(source, root / name / f"b.{ending}")


MISTAKES = {
    "no pkl": (without("c.pkl"), r"Case c: \S+c.pkl is missing, which nnU-Net writes beside"),
    "no pkl of a member": (without("n_1.pkl"), r"Case n_1: \S+n_1.pkl is missing"),
    "another number of classes": (one_class_less, r"Case n_2: \S+n_2.npz has 2 classes, but \S+dataset.json names 3"),
    "no npz": (
        lambda root: [path.unlink() for path in (results_dir(root) / "fold_1").rglob("*.npz")],
        r"fold_1/validation holds no probabilities .* run nnUNetv2_train with the same arguments and --val --npz",
    ),
    "one npz missing": (without("c.npz"), r"validation lacks c.npz, a validation case of fold 1; run nnUNetv2_train"),
    "in two folds": (in_two_folds, r"The case b is in the validation of both fold_0 and fold_1"),
    "trained on": (copied("b", 1), r"The case b lies in \S+fold_1/validation, but \S+splits_final.json lists it in tr"),
    "unknown": (splits(lambda listed: listed[0]["val"].remove("b")), r"case b lies in .*, but not in val of fold 0 of"),
    "train and val": (
        splits(lambda listed: listed[0]["train"].append("b")),
        "has the case b in both train and val of fold 0",
    ),
    "fewer splits": (splits(lambda listed: listed.pop()), "lists 1 folds, so nothing tells what fold_1 was trained on"),
    "no splits": (without("splits_final.json"), r"There is no \S+splits_final.json, without which .* --splits_file"),
    "damaged splits": (splits(lambda listed: listed[0].pop("val")), "is not the splits_final.json of nnU-Net"),
    "no order of regions": (
        dataset(lambda content: content["labels"].update(whole=[1, 2])),
        r"has regions \(liver, lesion, whole\), but no regions_class_order",
    ),
    "wrong order of regions": (
        dataset(lambda content: content.update(labels={"background": 0, "a": [1, 2]}, regions_class_order=[1, 2])),
        "so regions_class_order must list 1 labels, not",
    ),
    "gap in the labels": (
        dataset(lambda content: content["labels"].update(lesion=4)),
        "has the labels background: 0, liver: 1, lesion: 4, which must be numbered from 0",
    ),
    "version 1": (
        dataset(lambda content: content.update(labels={"0": "background", "1": "liver"})),
        "names labels as version 1 of nnU-Net did",
    ),
    "other files": (dataset(lambda content: content.update(file_ending=".png")), "files end with '.png', but only"),
    "other classes of a member": (
        dataset(lambda content: content.update(labels={"background": 0, "lesion": 1, "liver": 2}), MEMBERS[2]),
        r"by_fold_2/dataset.json has the classes background, lesion, liver, but",
    ),
    "a member lacks a case": (without("n_2.npz"), r"lacks n_2.npz, which another folder of --predictions has"),
    "a case of the training": (predicted_again, "The case b is to be predicted as a new one, but .* of the training"),
    "only fold_all": (trained_on_all, "holds no folder fold_0, .* only fold_all, which was trained on all cases"),
    "the output is there": (lambda root: (root / "out").mkdir(), "out exists, and results are never overwritten"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_and_leaves_nothing(mistake, data, tmp_path):
    root = shutil.copytree(data, tmp_path / "nnunet")
    change, message = MISTAKES[mistake]
    change(root)
    before = sorted(root.rglob("*"))
    with pytest.raises(UserError, match=message):
        calibrate_nnunet(results_dir(root), root / "out", predictions=[root / name for name in MEMBERS], evaluate=False)
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": [3]}, "holds no fold_3; train it, or choose --folds among 0, 1"),
        ({"predictions": MEMBERS[:1] * 2}, "--predictions names a folder twice"),
        ({"predictions": ["nowhere"]}, "nowhere of --predictions is not a folder"),
        ({"calibrator": "isotone"}, "no calibrator called 'isotone'; did you mean isotonic"),
        ({"calibrator": "none"}, "there is nothing to do but to take members together; give --predictions"),
        ({"test_labels_dir": "x"}, "test_labels_dir is for the cases of --predictions"),
        ({"poor_below": 80}, "poor_below must be a Dice from 0 to 1, not 80"),
        ({"splits_file": "x.json"}, "splits_file x.json does not exist"),
        ({"test_labels_dir": "x", "predictions": MEMBERS[:1]}, "labels_dir x is not a folder"),
        ({"test_labels_dir": "labels", "predictions": MEMBERS[:1]}, "gt_segmentations holds no label of case n_1"),
        ({"labels_dir": "x"}, "labels_dir x is not a folder"),
        ({"nnunet_results": "x"}, "nnunet_results x is not a folder"),
    ],
)
def test_wrong_options_are_named(options, message, data, tmp_path):
    settings = {"nnunet_results": results_dir(data), "output_dir": tmp_path / "out"} | options
    if set(options.get("predictions", ())) == {MEMBERS[0]}:
        settings["predictions"] = [data / name for name in options["predictions"]]
    if options.get("test_labels_dir") == "labels":
        settings["test_labels_dir"] = preprocessed_dir(data) / "gt_segmentations"
    with pytest.raises(UserError, match=message):
        calibrate_nnunet(**settings)
    assert list(tmp_path.iterdir()) == []


def test_the_folders_of_nnunet_are_found_by_its_variables(data, tmp_path, monkeypatch):
    root = shutil.copytree(data, tmp_path / "nnunet")
    (root / "nnUNet_preprocessed").rename(root / "elsewhere")
    monkeypatch.setenv("nnUNet_preprocessed", str(root / "elsewhere"))
    labels_dir = next(root.rglob("gt_segmentations"))
    raw = root / "raw" / labels_dir.parent.name / "labelsTr"
    raw.parent.mkdir(parents=True)
    labels_dir.rename(raw)
    with pytest.raises(UserError, match=r"There are no labels in \S+gt_segmentations; give"):
        calibrate_nnunet(results_dir(root), tmp_path / "out", evaluate=False)
    monkeypatch.setenv("nnUNet_raw", str(root / "raw"))
    calibrate_nnunet(results_dir(root), tmp_path / "out", evaluate=False)
    told = json.loads((tmp_path / "out" / "summary.json").read_text())["provenance"]
    assert told["labels_dir"] == str(raw)


def test_nnunet_ensembles_what_was_written(done, tmp_path):
    """Its own program makes of the calibrated members what is written of them together."""
    ensemble = pytest.importorskip("nnunetv2.ensembling.ensemble", reason="nnunetv2 is not installed")
    folders = [str(done[1] / "test" / "nnunet" / name) for name in MEMBERS]
    ensemble.ensemble_folders(folders, str(tmp_path / "out"), save_merged_probabilities=True, num_processes=1)
    for case in NEW:
        usual = done[1] / "test" / "predictions" / case
        mean = np.moveaxis(image(usual / f"{case}_prob.nii.gz"), -1, 0)
        np.testing.assert_allclose(archive(tmp_path / "out", case), mean, atol=1e-6)
        np.testing.assert_array_equal(image(tmp_path / "out" / f"{case}.nii.gz"), image(usual / f"{case}_seg.nii.gz"))
