"""Labels of several raters and soft labels: what is made of them, and who is named when they are wrong."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Affined, SpatialPadd

from medcalib.errors import UserError
from medcalib.transforms import (
    CheckLabeld,
    CloseResponsed,
    LoadCased,
    MajorityLabeld,
    ToEvaluationSpaced,
    ToResponsed,
)

NAMES = ["background", "organ", "lesion"]


@pytest.fixture
def votes():
    return torch.randint(3, (5, 6, 7, 8), generator=torch.Generator().manual_seed(0)).float()


def respond(label, **options):
    return ToResponsed("label", class_names=NAMES, **options)({"case": "a", "label": label})


def test_raters_who_agree_give_the_label_that_one_rater_gives(votes):
    one = CheckLabeld("label", class_names=NAMES)({"case": "a", "label": votes[:1]})["label"]
    case = MajorityLabeld("label")(respond(votes[:1].repeat(4, 1, 1, 1)))
    assert torch.equal(case["label"], one)
    assert case["label"].dtype == one.dtype
    assert torch.equal(case["response"], torch.nn.functional.one_hot(one[0].long(), 3).movedim(-1, 0).float())


def test_the_response_is_one_tensor_and_votes_are_kept_on_demand(votes):
    case = respond(MetaTensor(votes, meta={"filename_or_obj": "x"}))
    assert set(case) == {"case", "label"}
    assert case["label"].shape == (3, 6, 7, 8)
    assert case["label"].meta["filename_or_obj"] == "x"
    kept = respond(votes, keep_votes=True)
    assert torch.equal(kept["votes"], votes.to(torch.uint8))
    assert torch.equal(kept["label"], case["label"])


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_augmented_responses_stay_shares(votes, mode):
    """Turned by an angle that brings the outside in, and padded."""
    label = SpatialPadd("label", (10, 10, 10))(respond(votes))
    turned = Affined("label", rotate_params=(0.4, 0.2, 0.7), mode=mode, padding_mode="zeros")(label)
    assert (turned["label"].sum(0) < 0.99).any()
    closed = CloseResponsed("label")(turned)["label"]
    assert closed.min() >= 0
    assert closed.max() <= 1 + 1e-6
    np.testing.assert_allclose(closed.sum(0), 1, atol=2e-5)


def test_what_is_no_soft_label_is_left_as_it_is():
    label = torch.ones(1, 2, dtype=torch.uint8)
    assert MajorityLabeld("label")({"label": label}) == {"label": label}
    assert MajorityLabeld("label")({"label": None}) == {"label": None}


def test_closing_changes_nothing_that_is_closed(votes):
    label = respond(votes)["label"]
    assert torch.equal(CloseResponsed("label")({"label": label})["label"], label)


def test_independent_labels_of_two_raters():
    # the channels of the first rater, then those of the second
    label = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 0], [1, 0, 1]])
    respond = ToResponsed("label", class_names=["one", "other"], activation="sigmoid")
    case = respond({"label": label})
    assert case["label"].tolist() == [[1.0, 0.5, 0.0], [0.5, 0.0, 1.0]]
    case = MajorityLabeld("label", "sigmoid")(case)
    assert case["label"].tolist() == [[1, 0, 0], [0, 0, 1]]
    with pytest.raises(UserError, match=r"3 channel\(s\), but each rater must give 2"):
        respond({"label": label[:3]})


def test_who_is_wrong_is_named(votes):
    votes[3, 0, 0, 0] = 7
    with pytest.raises(UserError, match=r"Case a: its label of rater 4 of 5 holds the value 7, .* 3 classes, 0 to 2"):
        respond(votes)
    votes[3, 0, 0, 0] = 0.4
    with pytest.raises(UserError, match=r"of a soft label it is probabilities"):
        respond(votes)


def test_a_soft_label_is_taken_as_it_is():
    label = torch.tensor([[0.996, 0.2, 0.0], [0.004, 0.3, 0.0], [0.0, 0.5, 0.0]])
    found = respond(label, label_type="probabilities")["label"]
    # beyond the border of the file there is background
    expected = label.clone()
    expected[0, 2] = 1
    assert torch.equal(found, expected)


def test_of_two_classes_the_foreground_is_enough():
    respond = ToResponsed("label", class_names=["background", "organ"], label_type="probabilities")
    assert respond({"label": torch.tensor([[0.25, 0.0]])})["label"].tolist() == [[0.75, 1.0], [0.25, 0.0]]


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ([[80.0], [20.0], [0.0]], "divide those in percent by 100"),
        ([[0.5], [0.2], [0.1]], "does not sum to 1 over the classes in 1 voxels"),
        ([[0.5], [0.5]], r"2 channel\(s\), but a soft label has 3"),
        ([[-0.5], [0.5], [1.0]], "ranges from -0.5"),
    ],
)
def test_what_is_no_soft_label_is_refused(label, said):
    with pytest.raises(UserError, match=said):
        respond(torch.tensor(label), label_type="probabilities")


@pytest.fixture
def files(tmp_path):
    def write(name, values, affine=None):
        nib.save(nib.Nifti1Image(np.asarray(values, np.float32), np.eye(4) if affine is None else affine), name)
        return str(name)

    rng = np.random.default_rng(0)
    image = write(tmp_path / "image.nii.gz", rng.random((4, 5, 6)))
    labels = [write(tmp_path / f"label_{rater}.nii.gz", rng.integers(0, 3, (4, 5, 6))) for rater in range(3)]
    moved = write(tmp_path / "moved.nii.gz", rng.integers(0, 3, (4, 5, 6)), np.diag([1, 1, 2, 1]))
    soft = rng.dirichlet([0.2] * 3, (4, 5, 6))
    return {
        "case": {"case": "a", "image": image, "label": labels, "raters": ["x", "y", "z"]},
        "moved": moved,
        "soft": write(tmp_path / "soft.nii.gz", soft),
        "values": soft,
    }


def test_files_of_all_raters_are_read_and_read_again_for_the_grid_of_the_files(files):
    load = LoadCased()
    loaded = load(files["case"])
    assert loaded["label"].shape == (3, 4, 5, 6)
    # names of raters make no batch
    assert "raters" not in loaded
    to_response = ToResponsed("label", class_names=NAMES, keep_votes=True)
    case = to_response(loaded)
    original = ToEvaluationSpaced("original", invert=dict, load=load, label_transforms=[to_response])
    again = original(case | {"votes": None})
    assert torch.equal(again["label"], case["label"])
    assert torch.equal(again["votes"], case["votes"])


def test_raters_whose_files_lie_elsewhere_are_refused(files):
    labels = [*files["case"]["label"][:2], files["moved"]]
    with pytest.raises(UserError, match=r"Case a: the affines of the files of the label differ.*moved"):
        LoadCased()(files["case"] | {"label": labels})


def test_probabilities_near_0_and_1_are_not_rounded(files):
    label = LoadCased(soft_label=True)(files["case"] | {"label": files["soft"]})["label"]
    np.testing.assert_array_equal(label.numpy(), np.moveaxis(files["values"], -1, 0).astype(np.float32))
    assert ((label > 0) & (label < 0.01)).any()
