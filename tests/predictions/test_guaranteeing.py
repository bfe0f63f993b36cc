"""Guarantees on masks and probabilities in files: the same sets as of a guarantee in memory, in the files' geometry."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import distance_transform_edt
from tests.predictions.predictions_on_disk import AFFINE, save, write_labels, write_volumes

from medcalib.errors import UserError
from medcalib.guarantees import GuaranteeCase, MarginControl, RecallControl
from medcalib.predictions import guarantee_predictions

SHAPE, SPACING = (14, 12, 10), (2.0, 1.5, 3.0)
FIT, USE = [f"fit_{n}" for n in range(12)], ["new_1", "new_2", "new_3"]


def blobs(case, number):
    """Labels 0, 1 and 2; a prediction (1) is a little off the truth (0)."""
    random = np.random.default_rng([*map(ord, case)])
    moved = random.normal(0, 1.0, (3, 2))[:, number] * number
    places = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij")) * np.array(SPACING).reshape(3, 1, 1, 1)
    distance = np.sqrt(((places - (np.array([13.0, 8.0, 14.0]) + moved).reshape(3, 1, 1, 1)) ** 2).sum(0))
    return ((distance < 8).astype(np.uint8) + (distance < 4)).astype(np.uint8)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    affine = AFFINE
    for case in [*FIT, *USE]:
        save(root / "labels" / f"{case}.nii.gz", blobs(case, 0), affine)
        save(root / "masks" / f"{case}.nii.gz", blobs(case, 1), affine)
    return root


def arguments(data, output_dir, **changes):
    given = {
        "predictions_dir": data / "masks",
        "labels_dir": data / "labels",
        "calibration_cases": FIT,
        "cases": USE,
        "output_dir": output_dir,
        "class_names": ["background", "organ", "left lesion"],
    }
    return given | changes


@pytest.fixture(scope="module")
def done(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("done") / "out"
    guarantee_predictions(**arguments(data, out))
    return out


def in_memory(case, with_target=True):
    def channels(labels):
        return torch.from_numpy(np.stack([labels == 1, labels == 2]))

    # sizes of the voxels of AFFINE
    return GuaranteeCase(case, None, channels(blobs(case, 1)), channels(blobs(case, 0)), SPACING)


def test_masks_are_grown_by_the_margin_that_a_guarantee_in_memory_finds(done):
    expected = MarginControl(["organ", "left lesion"])
    expected.fit([expected.observe(in_memory(case)) for case in FIT])
    table = pd.read_csv(done / "predictions.csv").set_index("case")
    assert list(table.index) == USE
    for case in USE:
        for number, name in enumerate(["organ", "left lesion"], start=1):
            image = nib.load(done / "predictions" / case / f"{case}_outer_{name.replace(' ', '_')}.nii.gz")
            grown = np.asarray(image.dataobj)
            assert grown.dtype == np.uint8
            np.testing.assert_array_equal(image.affine, AFFINE)
            assert image.header["qform_code"] == 1
            margin = expected.fitted(name)["margin_mm"]
            assert table.loc[case, f"{name}_margin_mm"] == margin > 0
            distances = distance_transform_edt(blobs(case, 1) != number, sampling=SPACING)
            np.testing.assert_array_equal(grown, distances <= margin + 1e-6)
            assert table.loc[case, f"{name}_outer_ml"] == pytest.approx(grown.sum() * np.prod(SPACING) / 1000)


def test_the_report_holds_what_was_promised_and_what_happened(done):
    report = json.loads((done / "evaluation" / "guarantees.json").read_text())["guarantees"]["margin_control"]
    losses = pd.read_csv(done / "evaluation" / "guarantees.csv").set_index("filename")
    assert list(report["classes"]) == ["organ", "left lesion"]
    for number, (name, risk) in enumerate(report["classes"].items(), start=1):
        missed = []
        for case in USE:
            path = done / "predictions" / case / f"{case}_outer_{name.replace(' ', '_')}.nii.gz"
            true = blobs(case, 0) == number
            missed.append(1 - (np.asarray(nib.load(path).dataobj) != 0)[true].mean())
        np.testing.assert_allclose(losses[f"margin_control_loss_{name}"][USE], missed, atol=1e-12)
        assert risk["mean"] == pytest.approx(np.mean(missed))
        assert risk["num_cases"] == 3
    assert (done / "evaluation" / "guarantees" / "margin_control.png").exists()


def test_a_fitted_guarantee_is_applied_to_new_masks_without_labels(data, done, tmp_path):
    guarantee_predictions(data / "masks", tmp_path / "again", cases=USE, guarantee=str(done / "guarantee.json"))
    for path in sorted((done / "predictions").glob("*/*.nii.gz")):
        again = tmp_path / "again" / path.relative_to(done)
        np.testing.assert_array_equal(nib.load(path).dataobj, nib.load(again).dataobj)
    assert not (tmp_path / "again" / "evaluation").exists()
    assert (tmp_path / "again" / "guarantee.json").read_text() == (done / "guarantee.json").read_text()


def test_a_guarantee_that_was_edited_is_refused(data, done, tmp_path):
    text = (done / "guarantee.json").read_text()
    (tmp_path / "edited.json").write_text(text.replace('"alpha": 0.1', '"alpha": 0.01'))
    for name, message in (("edited.json", "no guarantee as it was written"), ("none.json", "does not exist")):
        with pytest.raises(UserError, match=message):
            guarantee_predictions(data / "masks", tmp_path / "out", cases=USE, guarantee=str(tmp_path / name))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["edited.json"]


def test_classes_are_those_of_masks_and_labels_where_none_are_named(data, tmp_path):
    guarantee_predictions(
        **arguments(data, tmp_path / "out", class_names=None, evaluate=False, min_covered=0.9, alpha=0.2)
    )
    written = json.loads((tmp_path / "out" / "guarantee.json").read_text())
    assert written["settings"]["class_names"] == ["background", "class_1", "class_2"]
    assert written["guarantee"]["settings"]["min_covered"] == 0.9
    assert written["calibration_cases"] == FIT


def test_regions(data, tmp_path):
    regions = {"whole": [1, 2], "core": [2]}
    guarantee_predictions(**arguments(data, tmp_path / "out", class_names=None, regions=regions))
    margins = {
        name: json.loads((tmp_path / "out" / "guarantee.json").read_text())["guarantee"]["fitted"]["pooled"][name]
        for name in regions
    }
    path = tmp_path / "out" / "predictions" / "new_1" / "new_1_outer_whole.nii.gz"
    distances = distance_transform_edt(blobs("new_1", 1) == 0, sampling=SPACING)
    np.testing.assert_array_equal(nib.load(path).dataobj, distances <= margins["whole"]["margin_mm"] + 1e-6)
    guarantee_predictions(
        data / "masks", tmp_path / "again", cases=USE, guarantee=str(tmp_path / "out" / "guarantee.json")
    )
    assert (tmp_path / "again" / "predictions" / "new_1" / "new_1_outer_core.nii.gz").exists()


@pytest.mark.parametrize("guarantee", ["recall_control", "precision_control"])
def test_probabilities_have_sets_of_voxels(guarantee, tmp_path):
    from tests.predictions.predictions_on_disk import labels, probabilities

    cases = [f"a{n}" for n in range(42)]
    write_volumes(tmp_path / "p", cases)
    write_labels(tmp_path / "l", cases)
    out = tmp_path / "out"
    options = {"kind": "probabilities", "guarantee": guarantee, "alpha": 0.25}
    joint = guarantee_predictions(
        tmp_path / "p", out, cases=cases[40:], labels_dir=tmp_path / "l", calibration_cases=cases[:40], **options
    )
    name = {"recall_control": "outer", "precision_control": "inner"}[guarantee]
    part = joint.parts[0]
    for case in cases[40:]:
        probs = torch.from_numpy(probabilities(case))
        numbers = torch.arange(1, 3).reshape(-1, 1, 1, 1)
        seen = GuaranteeCase(
            case, probs[1:], probs.argmax(0) == numbers, torch.from_numpy(labels(case)) == numbers, SPACING
        )
        for number, expected in enumerate(part.sets(seen)[name], start=1):
            written = nib.load(out / "predictions" / case / f"{case}_{name}_class_{number}.nii.gz")
            assert (np.asarray(written.dataobj) != expected.numpy()).mean() < 1e-3
    assert isinstance(part, RecallControl) == (guarantee == "recall_control")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cases": ["new_1", "fit_0"]}, "The case fit_0 is one of those on which the guarantee is fitted"),
        ({"calibration_cases": FIT[:5]}, "needs 9 calibration cases.*there are 5"),
        ({"calibration_cases": None}, "calibration_cases is missing"),
        ({"guarantee": "margin"}, "no guarantee called 'margin'.*did you mean margin_control"),
        ({"guarantee": "recall_control"}, "recall_control needs probabilities, not masks"),
        ({"kind": "mask"}, "kind is 'mask', but must be masks or probabilities or logits"),
        ({"cases": ["new_9"]}, "holds no mask of case new_9"),
        ({"labels_dir": "nowhere"}, "labels_dir nowhere is not a folder"),
        ({"class_names": ["background", "organ"]}, r"fit_0.*holds the value\(s\) 2, but labels are 0 to 1"),
        ({"alpha": 1.5}, "alpha of the guarantee is 1.5"),
    ],
)
def test_every_mistake_is_named_and_nothing_is_written(changes, message, data, tmp_path):
    with pytest.raises(UserError, match=message):
        guarantee_predictions(**arguments(data, tmp_path / "out", **changes))
    assert list(tmp_path.iterdir()) == []


def test_what_contradicts_a_fitted_guarantee_is_refused(data, done, tmp_path):
    file = str(done / "guarantee.json")
    for changes, message in (
        ({"alpha": 0.2}, "was fitted with alpha 0.1, but 0.2"),
        ({"calibration_cases": FIT}, "is fitted already"),
        ({"kind": "probabilities"}, "was fitted with kind masks, but probabilities"),
        ({"cases": FIT[:1]}, "The case fit_0 is one of those"),
    ):
        with pytest.raises(UserError, match=message):
            guarantee_predictions(data / "masks", tmp_path / "out", **{"cases": USE, "guarantee": file} | changes)
