"""What transforms do to a big volume in parts is what they do to a small one at once."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, CropForegroundd, Invertd, Orientationd, Spacingd

from medcalib.calibrators import TemperatureScaling, VectorScaling
from medcalib.errors import UserError
from medcalib.functional import to_probabilities
from medcalib.functional.slabs import slabs
from medcalib.task import Task
from medcalib.transforms import Calibrated, CheckPredictiond, InvertProbabilitiesd, LoadCased, Regionsd, inversion

NAMES = ["background", "organ", "lesion", "vessel", "bone"]
SHAPE = (21, 18, 15)


def random_logits(*shape, seed=0):
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Let parts be so small that these volumes have several."""
    monkeypatch.setattr(slabs, "__defaults__", (2048,))
    monkeypatch.setattr(inversion, "CHANNEL_VALUES", 2 * 21 * 18 * 15)


@pytest.fixture
def case(tmp_path):
    values = np.random.default_rng(0).random(SHAPE).astype(np.float32)
    affine = np.array([[-1.5, 0.1, 0, 10], [0.1, 1.5, 0, -20], [0, 0, 3.0, 5], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "i.nii.gz")
    return {"case": "a", "image": str(tmp_path / "i.nii.gz")}


def preparing(*more):
    return Compose([LoadCased(), Orientationd("image", axcodes="PIR", labels=None), *more])


PREPARINGS = {
    "nothing": Compose([LoadCased()]),
    "turned": preparing(),
    "finer": preparing(Spacingd("image", pixdim=(1.2, 1.1, 2.2))),
    "coarser": preparing(Spacingd("image", pixdim=(2.0, 1.9, 3.1))),
    "cropped": preparing(CropForegroundd("image", source_key="image", select_fn=lambda x: x > 0.999)),
}


def inverted_at_once(prepare, task, data):
    """Probabilities in the geometry of the file, all channels together."""
    invert = Invertd("pred", transform=prepare, orig_keys="image", nearest_interp=False)
    probs = invert(dict(data))["pred"].as_tensor().clamp(0, 1)
    if task.exclusive:
        probs[0] += (1 - probs.sum(0)).clamp(min=0)
        probs = probs / probs.sum(0, keepdim=True)
    return probs


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("kind", PREPARINGS)
def test_probabilities_are_brought_back_channel_by_channel(case, kind, activation):
    prepare, task = PREPARINGS[kind], Task(NAMES, activation)
    prepared = dict(prepare(case))
    logits = random_logits(5, *prepared["image"].shape[1:])
    probs = to_probabilities(logits, activation == "sigmoid", dim=0)
    prepared["pred"] = MetaTensor(probs).copy_meta_from(prepared["image"])
    expected = inverted_at_once(prepare, task, prepared | {"pred": prepared["pred"].clone()})
    found = InvertProbabilitiesd("pred", prepare, task)(prepared)["pred"]
    assert found.shape == (5, *SHAPE)
    assert torch.equal(found.as_tensor(), expected)
    # else entropy and metrics copy it
    assert found.is_contiguous()
    np.testing.assert_allclose(found.affine, nib.load(case["image"]).affine, atol=1e-6)


def test_the_memory_of_probabilities_is_used_again_or_freed(case):
    """The same number of voxels takes over the memory; else nobody keeps what is brought back."""
    for kind, stays in (("turned", True), ("finer", False)):
        prepared = dict(PREPARINGS[kind](case))
        probs = MetaTensor(random_logits(5, *prepared["image"].shape[1:]).softmax(0))
        prepared["pred"], place = probs, probs.data_ptr()
        found = InvertProbabilitiesd("pred", PREPARINGS[kind], Task(NAMES))(prepared)["pred"]
        assert (found.data_ptr() == place) is stays
        assert ("pred" in prepared) is stays


@pytest.mark.parametrize(
    "calibrator", [TemperatureScaling(5), VectorScaling(5, keep_argmax=True)], ids=lambda c: c.kind
)
def test_logits_are_calibrated_in_their_place(calibrator):
    with torch.no_grad():
        for number, parameter in enumerate(calibrator.parameters()):
            parameter.copy_(torch.linspace(0.3, 0.9, parameter.numel()).reshape(parameter.shape) + number)
    calibrator.mark_fitted()
    logits = random_logits(5, *SHAPE)
    with torch.no_grad():
        expected = calibrator(logits[None])[0]
    found = Calibrated("pred", calibrator)({"pred": logits})["pred"]
    assert found is logits
    torch.testing.assert_close(found, expected, rtol=2e-7, atol=1e-7)


def test_regions_are_summed_slab_by_slab():
    probs = random_logits(5, *SHAPE).softmax(0)
    found = Regionsd("pred", {"any": [1, 2, 3, 4], "few": [4, 2]}, 5)({"pred": probs})["pred"]
    assert torch.equal(found, torch.stack([probs[[1, 2, 3, 4]].sum(0), probs[[4, 2]].sum(0)]))


def test_every_value_that_is_no_number_is_counted():
    logits = random_logits(5, *SHAPE)
    logits[:, 0, 0, 0], logits[2, -1, -1, -1] = torch.nan, torch.inf
    with pytest.raises(UserError, match=r"predicts 6 NaN or Inf value\(s\)"):
        CheckPredictiond("pred")({"case": "a", "pred": logits})
