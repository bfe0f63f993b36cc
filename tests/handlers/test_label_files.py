"""Label files beside predictions hold the values of the segmentations, and the colours of the figures."""

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from matplotlib.colors import to_rgb
from monai.data import MetaTensor
from tests.image_files.test_label_descriptions import read_by_itk_snap, read_by_slicer

from medcalib.handlers import CaseFolders, LabelFilesHandler, PredictionSaver, ResultFolder
from medcalib.handlers.label_files import named_labels
from medcalib.task import Task
from medcalib.visualize.overlay import class_color

NAMES = ["background", "organ", "tumour"]


def predict(tmp_path, task, seg, label_map=None, seg_nrrd=False, kind=ResultFolder):
    """Write a segmentation (C, X, Y, Z) and what belongs to it; the folder of the results."""
    nib.save(nib.Nifti1Image(np.zeros(seg.shape[1:], np.float32), np.diag([2, 2, 3, 1])), tmp_path / "i.nii.gz")
    image = torch.zeros(1, *seg.shape[1:])
    image = MetaTensor(image, meta={"filename_or_obj": str(tmp_path / "i.nii.gz")})
    folder = kind(tmp_path / "out")
    engine = Engine(lambda *_: [{"seg": torch.as_tensor(seg)}])
    folder.attach(engine)
    saver = PredictionSaver(folder, {"seg": "seg"}, label_map=label_map, num_values=task.num_label_values)
    for handler in (saver, LabelFilesHandler(folder, task, label_map, seg_nrrd)):
        handler.attach(engine)
    engine.run([[{"case": "a", "image": image}]])
    if kind is CaseFolders:
        folder.finish_case("a", {})
        folder.finish()
    return tmp_path / "out"


@pytest.mark.parametrize("label_map", [None, {2: 1, 4: 2}, {1: 2, 2: 1}, {3: 2}])
@pytest.mark.parametrize("kind", [ResultFolder, CaseFolders])
def test_every_value_of_a_segmentation_has_the_name_of_its_class(label_map, kind, tmp_path):
    seg = np.random.default_rng(0).integers(0, 3, (1, 4, 4, 4)).astype(np.float32)
    out = predict(tmp_path, Task(NAMES), seg, label_map, kind=kind)
    values = np.asarray(nib.load(out / "a" / "a_seg.nii.gz").dataobj)
    slicer = read_by_slicer((out / "labels.ctbl").read_text())
    snap = read_by_itk_snap((out / "labels_itksnap.txt").read_text())
    assert set(slicer) == set(snap) == set(np.unique(values))
    for index, name in enumerate(NAMES[1:], 1):
        (value,) = np.unique(values[seg[0] == index])
        assert slicer[value][0] == snap[value][0] == name
        color = [round(255 * part) for part in class_color(index)]
        assert list(slicer[value][1]) == [*color, 255]
        assert list(snap[value][1]) == [*color, 1]
    assert not (out / "a" / "a.seg.nrrd").exists()
    assert not list(out.glob(".*"))


def test_labels_that_overlap_have_names_only_in_a_segmentation_of_slicer(tmp_path):
    task = Task(["whole", "core"], activation="sigmoid")
    out = predict(tmp_path, task, np.ones((2, 4, 4, 4), np.float32), seg_nrrd=True)
    assert not list(out.glob("labels*"))
    assert b"Segment1_Name:=core\n" in (out / "a" / "a.seg.nrrd").read_bytes()
    assert [label.value for label in named_labels(task)] == [0, 1, 2]


def test_a_single_independent_label_has_its_name(tmp_path):
    out = predict(tmp_path, Task(["lesion"], activation="sigmoid"), np.ones((1, 4, 4, 4), np.float32), seg_nrrd=True)
    assert read_by_slicer((out / "labels.ctbl").read_text())[1][0] == "lesion"
    assert b"Segment0_LabelValue:=1\n" in (out / "a" / "a.seg.nrrd").read_bytes()


def test_first_colors_are_those_of_the_figures():
    assert [label.color for label in named_labels(Task(NAMES))] == [None, class_color(1), class_color(2)]
    assert class_color(1) == to_rgb("#56b4e9")
