"""Labels of held-out cases, as bundles read them."""

import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from tests.conftest import TEMPLATES

from medcalib.bundle.compose import generate
from medcalib.bundle.data_folds import DataFold
from medcalib.data import pattern_cases
from medcalib.errors import UserError
from medcalib.predictions.held_out import BundlePredictions, held_out_predictions
from medcalib.predictions.prediction_folder import PredictionFolder
from medcalib.predictions.prediction_values import PredictionKind
from medcalib.transforms import LoadCased


def write(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)


@pytest.mark.parametrize("overlap", ["later", "channels"])
def test_structures_in_files_of_their_own_make_the_label_that_is_trained_on(overlap, tmp_path):
    organ, cyst = np.zeros((2, 4, 4, 4), np.uint8)
    organ[:3], cyst[2:] = 255, 1
    for case in "abc":
        write(tmp_path / case / "image.nii.gz", np.zeros((4, 4, 4), np.float32))
        write(tmp_path / case / "organ.nii.gz", organ)
        write(tmp_path / case / "cyst.nii.gz", cyst)
    names = ["organ", "cyst"] if overlap == "channels" else ["background", "organ", "cyst"]
    split = pattern_cases(
        tmp_path,
        "{case}/image.nii.gz",
        "{case}/{class}.nii.gz",
        class_names=names,
        test_fraction=0.3,
        validation_fraction=0.3,
        overlap=overlap,
    )
    case = split["test"][0]
    channels = len(names)
    write(tmp_path / f"pred/{case['case']}/{case['case']}_prob.nii.gz", np.full((4, 4, 4, channels), 1 / channels, "f"))
    activation = "sigmoid" if overlap == "channels" else "softmax"
    folder = PredictionFolder(
        tmp_path / "pred", None, PredictionKind.PROBABILITIES, activation, case_ids=[case["case"]]
    )
    labels = BundlePredictions(folder, {case["case"]: case}, LoadCased()).read(case["case"]).labels
    one, other = torch.from_numpy(organ != 0), torch.from_numpy(cyst != 0)
    expected = torch.stack([one, other]) if overlap == "channels" else torch.where(other, 2, one.long())[None]
    torch.testing.assert_close(labels[0].long(), expected.long())


@pytest.mark.parametrize(
    ("data", "ignored", "message"),
    [
        ("phantom", True, r"has voxels to be ignored \(data::ignore_label 255\), which"),
        ("phantom_raters", False, r"has the labels of several raters .*\(data::label_type raters\), which"),
    ],
)
def test_labels_that_are_no_classes_are_refused_before_anything_is_read(data, ignored, message, tmp_path):
    templates = tmp_path / "templates"
    shutil.copytree(TEMPLATES, templates)
    if ignored:
        fragment = templates / "configs" / "data" / f"{data}.yaml"
        fragment.write_text(
            fragment.read_text().replace("  label_map: null\n", "  label_map: null\n  ignore_label: 255\n")
        )
    names = (data, "baseline_dice_ce", "deterministic", None)
    bundles = [generate(templates, tmp_path / "bundles", *names, DataFold(number, 2))[0] for number in range(2)]
    with pytest.raises(UserError, match=message) as caught:
        held_out_predictions(bundles[:1], 12345)
    assert "evaluate --folds" in str(caught.value)
