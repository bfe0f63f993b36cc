"""Predictions lie where a viewer puts their source, and segmentations hold its values."""

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.transforms import Compose, CropForegroundd, Orientationd, Spacingd
from PIL import Image
from tests.image_files.headers import KINDS, SIZES, write
from tests.image_files.test_grids import same_header
from tests.image_files.written import OBLIQUE, orthogonal, write_meta_image, write_nrrd

from medcalib.handlers import PredictionSaver, ResultFolder
from medcalib.image_files.label_descriptions import NamedLabel, slicer_segmentation
from medcalib.task import Task
from medcalib.transforms import CheckLabeld, InvertProbabilitiesd, LoadCased

NAMES = ["background", "shell", "core"]
OUTPUTS = {"prob": "pred", "seg": "seg", "entropy": "entropy"}


def write_outputs(folder, cases, images, outputs, **options):
    """Run the handler over one batch; the folder of the results."""
    results = ResultFolder(folder / "predictions")
    engine = Engine(lambda *_: outputs)
    results.attach(engine)
    PredictionSaver(results, OUTPUTS, batch_transform=lambda _: (cases, images), **options).attach(engine)
    engine.run([0])
    return folder / "predictions"


def blob(shape=(18, 16, 14)):
    """A ball (X, Y, Z) that is not in the middle, in a shell."""
    grid = np.stack(np.meshgrid(*(np.arange(size) for size in shape), indexing="ij"))
    radius = np.sqrt(((grid - np.array([8, 9, 6])[:, None, None, None]) ** 2).sum(0))
    return (radius < 5).astype(np.uint8) + (radius < 3)


def predict(tmp_path, source_image, source_label, label_map=None, frame=None):
    """The label as its own prediction, through everything that a prediction passes."""
    prepare = Compose(
        [
            LoadCased(num_channels=1, label_map=label_map),
            CropForegroundd(["image", "label"], source_key="image"),
            Orientationd(["image", "label"], axcodes="RAS", labels=None),
            Spacingd(["image", "label"], pixdim=(1.0, 1.0, 1.5), mode=["bilinear", "nearest"]),
            CheckLabeld("label", NAMES),
        ]
    )
    case = {"case": "a", "image": source_image, "label": source_label} | ({} if frame is None else {"frame": frame})
    case = prepare(case)
    onehot = torch.nn.functional.one_hot(case["label"][0].long(), 3).movedim(-1, 0).float()
    case["pred"] = MetaTensor(onehot).copy_meta_from(case["image"])
    moved = InvertProbabilitiesd("pred", prepare, Task(NAMES))(case)
    pred = moved["pred"]
    outputs = [{"pred": pred, "seg": pred.argmax(0, keepdim=True).float(), "entropy": pred[:1] * 0}]
    return write_outputs(tmp_path, ["a"], [case["image"]], outputs, label_map=label_map, num_values=3) / "a"


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


@pytest.mark.filterwarnings("ignore:.*its sform says voxels")
@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back(kind, tmp_path):
    """Cropped, turned, resampled to the true size of the voxels, brought back: the source, in the same header."""
    label = blob()
    image = write(tmp_path / "i.nii.gz", label.astype(np.float32) * 50, KINDS[kind])
    results = predict(tmp_path, image, write(tmp_path / "l.nii.gz", label, KINDS[kind]))
    for suffix in OUTPUTS:
        same_header(image, results / f"a_{suffix}.nii.gz")
    seg = np.asarray(nib.load(results / "a_seg.nii.gz").dataobj)
    assert seg.dtype == np.uint8
    fine = kind not in SIZES  # of the grid of the network, compared with that of the file
    assert dice(seg > 0, label > 0) > (0.95 if fine else 0.9)
    assert dice(seg == 2, label == 2) > (0.9 if fine else 0.8)
    prob = nib.load(results / "a_prob.nii.gz")
    assert prob.shape == (*label.shape, 3)
    np.testing.assert_allclose(prob.get_fdata().sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "scale", "label_map", "expected"),
    [
        (np.uint16, 1, None, np.uint8),
        (np.float32, 0.9999, None, np.uint8),
        (np.int16, 100, {100: 1, 200: 2}, np.uint8),
        (np.uint16, 300, {300: 1, 600: 2}, np.uint16),
        (np.int16, -1, {-1: 1, -2: 2}, np.int16),
        (np.int32, 40_000, {40_000: 1, 80_000: 2}, np.int32),
    ],
)
def test_segmentations_hold_the_values_of_the_labels(dtype, scale, label_map, expected, tmp_path):
    label = blob()
    image = write(tmp_path / "i.nii.gz", label.astype(np.float32) * 50)
    on_disk = (label.astype(float) * scale).astype(dtype)
    results = predict(tmp_path, image, write(tmp_path / "l.nii.gz", on_disk), label_map)
    seg = np.asarray(nib.load(results / "a_seg.nii.gz").dataobj)
    assert seg.dtype == expected
    assert set(np.unique(seg)) == {0, *(label_map or {1: 1, 2: 2})}
    assert (np.sign(seg) == np.sign(np.rint(on_disk))).mean() > 0.95


def test_an_image_with_a_slope_and_a_frame_of_a_recording(tmp_path):
    label = np.stack([blob() * 0, blob()], -1)
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    recording = nib.Nifti1Image(np.stack([blob() * 0.0, blob() * 50.5], -1), np.diag([2, 2, 3, 1]), header)
    nib.save(recording, tmp_path / "i.nii.gz")
    nib.save(nib.Nifti1Image(label, np.diag([2, 2, 3, 1])), tmp_path / "l.nii.gz")
    results = predict(tmp_path, str(tmp_path / "i.nii.gz"), str(tmp_path / "l.nii.gz"), frame=1)
    seg = nib.load(results / "a_seg.nii.gz")
    assert seg.shape == blob().shape
    assert nib.load(results / "a_entropy.nii.gz").get_data_dtype() == np.float32
    np.testing.assert_array_equal(seg.affine, recording.affine)
    assert dice(np.asarray(seg.dataobj) > 0, blob() > 0) > 0.95


@pytest.mark.parametrize("ending", ["nii.gz", "mha", "nrrd"])
def test_every_output_opens_where_the_oblique_image_does(ending, tmp_path):
    """As ITK has it, and so 3D Slicer and ITK-SNAP: size, spacing, origin and direction of the input."""
    sitk = pytest.importorskip("SimpleITK")
    affine, values = orthogonal(OBLIQUE), blob().astype(np.int16) * 50
    image = tmp_path / f"i.{ending}"
    if ending == "nii.gz":
        nib.save(nib.Nifti1Image(values, affine), image)
    else:
        (write_meta_image if ending == "mha" else write_nrrd)(image, values, affine)
    nib.save(nib.Nifti1Image(blob(), affine), tmp_path / "l.nii.gz")
    results = predict(tmp_path, str(image), str(tmp_path / "l.nii.gz"))
    seg = nib.load(results / "a_seg.nii.gz")
    slicer_segmentation(results / "a.seg.nrrd", seg, [NamedLabel(1, "shell", (1.0, 0.0, 0.0))])
    source = sitk.ReadImage(str(image))
    assert np.abs(np.array(source.GetDirection()) - np.eye(3).ravel()).max() > 0.2
    for name in ("a_seg.nii.gz", "a_entropy.nii.gz", "a.seg.nrrd"):
        output = sitk.ReadImage(str(results / name))
        assert output.GetSize() == source.GetSize()
        for place in ("GetSpacing", "GetOrigin", "GetDirection"):
            np.testing.assert_allclose(getattr(output, place)(), getattr(source, place)(), atol=1e-4)
    prob = nib.load(results / "a_prob.nii.gz")
    assert prob.shape[:3] == source.GetSize()
    np.testing.assert_array_equal(prob.affine, seg.affine)


class TestPictures:
    def written(self, tmp_path, seg, **options):
        values = torch.zeros(1, 6, 4)
        image = MetaTensor(values)
        outputs = [{"pred": values, "seg": torch.as_tensor(seg), "entropy": values}]
        return write_outputs(tmp_path, ["a"], [image], outputs, **options) / "a"

    def test_a_mask_of_0_and_255_is_one_again(self, tmp_path):
        seg = torch.zeros(1, 6, 4)
        seg[0, 2:, 1] = 1
        folder = self.written(tmp_path, seg, label_map={255: 1}, num_values=2)
        picture = np.asarray(Image.open(folder / "a_seg.png"))
        np.testing.assert_array_equal(picture, seg[0].numpy().T * 255)
        assert picture.dtype == np.uint8

    def test_more_classes_than_a_byte_counts(self, tmp_path):
        seg = torch.arange(24.0).reshape(1, 6, 4) * 12
        folder = self.written(tmp_path, seg, num_values=300)
        np.testing.assert_array_equal(np.asarray(Image.open(folder / "a_seg.png")), seg[0].numpy().T)

    def test_labels_that_overlap_are_0_and_1(self, tmp_path):
        seg = torch.randint(0, 2, (3, 6, 4)).float()
        folder = self.written(tmp_path, seg, label_map={255: 1}, num_values=2)
        stored = np.load(folder / "a_seg.npy")
        assert stored.dtype == np.uint8
        np.testing.assert_array_equal(stored, seg.numpy().transpose(2, 1, 0))


def test_many_classes_of_a_volume(tmp_path):
    path = write(tmp_path / "i.nii.gz", np.zeros((10, 6, 5), np.float32))
    seg = torch.arange(300.0).reshape(1, 10, 6, 5)
    image = LoadCased()({"case": "a", "image": path})["image"]
    outputs = [{"pred": seg, "seg": seg, "entropy": seg}]
    folder = write_outputs(tmp_path, ["a"], [image], outputs, num_values=300)
    stored = np.asarray(nib.load(folder / "a" / "a_seg.nii.gz").dataobj)
    assert stored.dtype == np.uint16
    np.testing.assert_array_equal(stored, seg[0].numpy())
