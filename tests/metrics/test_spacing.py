import pytest
import torch
from monai.data import MetaTensor, list_data_collate

from medcalib.metrics.spacing import spacings


def case(*sizes):
    """A case with these voxel sizes, turned about the third axis as a scanner may leave it."""
    affine = torch.tensor([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.float64)
    return MetaTensor(torch.zeros(1, 4, 4, 4), affine=affine @ torch.diag(torch.tensor([*sizes, 1.0]).double()))


def test_every_case_of_a_batch_has_its_own():
    batch = list_data_collate([{"y": case(0.5, 1.0, 2.0)}, {"y": case(3.0, 1.0, 5.0)}])["y"]
    assert spacings(batch) == [(0.5, 1.0, 2.0), (3.0, 1.0, 5.0)]
    assert spacings(batch[:1]) == [(0.5, 1.0, 2.0)]


def test_a_single_case_made_a_batch():
    assert spacings(case(0.5, 1.0, 2.0).unsqueeze(0)) == [(0.5, 1.0, 2.0)]


def test_what_is_given_comes_first():
    assert spacings(case(0.5, 1.0, 2.0).unsqueeze(0), [1, 2, 3]) == [(1.0, 2.0, 3.0)]


@pytest.mark.parametrize("spacing", [[1.0], [1.0, 1.0, 0.0], [1.0, 1.0, float("inf")], [1.0, 1.0, float("nan")]])
def test_what_is_no_spacing_is_refused(spacing):
    with pytest.raises(ValueError, match="spacing must hold 3 voxel sizes above 0 mm"):
        spacings(torch.zeros(1, 1, 2, 2, 2), spacing)


def test_a_picture_has_two_axes():
    """Its affine has three, as that of a volume."""
    assert spacings(MetaTensor(torch.zeros(1, 1, 4, 4), affine=torch.diag(torch.tensor([0.5, 2.0, 3.0, 1.0])))) == [
        (0.5, 2.0)
    ]
