"""Objects are made of the NIfTI files of a case, whatever values and channels these have."""

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from tests.image_files.reading_dicom import segment_volumes
from tests.image_files.written import PERMUTED, write_dicom

from medcalib.errors import UserError
from medcalib.handlers import CaseFolders, DicomSaver, PredictionSaver
from medcalib.task import Task

pytest.importorskip("SimpleITK", reason="reads the files")
pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")

SHAPE = (6, 5, 4)
PROVENANCE = {"bundle": "x", "checkpoint_digest": "9f", "calibrator": {"kind": "platt", "digest": "01"}, "seed": 7}


def predict(folder, image, seg, task, label_map=None, end=True, **maps):
    """Write one case as a run does, with its segmentation (C, X, Y, Z)."""
    case = {"case": "a", "image": image}
    first = image if isinstance(image, str) else image[0]
    engine = Engine(lambda _engine, _batch: [{"seg": torch.from_numpy(seg), **maps}])
    results = CaseFolders(folder, PROVENANCE)
    results.waiting([case])
    results.attach(engine)
    outputs = {"seg": "seg"} | {name: name for name in maps}
    PredictionSaver(results, outputs, label_map=label_map, num_values=task.num_label_values).attach(engine)
    saver = DicomSaver(results, {"test": [case]}, task, PROVENANCE, None, label_map, task.num_label_values)
    saver.attach(engine)
    if end:
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: results.finish_case("a", {"image": first}))
    voxels = MetaTensor(torch.zeros(1, *SHAPE), meta={"filename_or_obj": first})
    engine.run([[{"case": "a", "image": voxels}]])
    return folder / "a"


def series(folder, **tags):
    stored = np.random.default_rng(0).integers(0, 9, SHAPE)
    return str(write_dicom(folder, stored, PERMUTED, **({"FrameOfReferenceUID": "1.9"} | tags)))


def read_back(case):
    nifti = nib.load(case / "a_seg.nii.gz")
    made = pydicom.dcmread(case / "a_seg.dcm")
    return made, np.asarray(nifti.dataobj), segment_volumes(made, nifti.affine, SHAPE)


def test_values_on_disk_stand_for_classes(tmp_path):
    seg = np.random.default_rng(1).integers(0, 3, (1, *SHAPE))
    task = Task(["background", "oedema", "core"])
    case = predict(tmp_path / "out", series(tmp_path / "scan"), seg, task, label_map={4: 2})
    _, labels, found = read_back(case)
    assert set(np.unique(labels)) == {0, 1, 4}
    np.testing.assert_array_equal(found["oedema"], labels == 1)
    np.testing.assert_array_equal(found["core"], labels == 4)


@pytest.mark.parametrize("names", [["whole"], ["whole", "core"]])
def test_independent_labels_are_segments_that_may_overlap(tmp_path, names):
    seg = np.random.default_rng(2).integers(0, 2, (len(names), *SHAPE)).astype(bool)
    case = predict(tmp_path / "out", series(tmp_path / "scan"), seg, Task(names, "sigmoid"))
    _, _, found = read_back(case)
    for channel, name in enumerate(names):
        np.testing.assert_array_equal(found[name], seg[channel])


def test_of_several_channels_the_first_counts(tmp_path):
    image = [series(tmp_path / "a_t1", series="1.2.3"), series(tmp_path / "a_t2", series="1.2.4")]
    seg = np.ones((1, *SHAPE), np.uint8)
    case = predict(tmp_path / "out", image, seg, Task(["background", "organ"]))
    made, _, found = read_back(case)
    assert found["organ"].all()
    assert made.ReferencedSeriesSequence[0].SeriesInstanceUID == "1.2.3"
    parameters = made.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmParameters
    assert "calibrator=platt 01" in parameters


def test_maps_of_members_are_written_where_there_are_some(tmp_path):
    task, seg = Task(["background", "organ"]), np.zeros((1, *SHAPE), np.uint8)
    maps = {name: torch.full((1, *SHAPE), 0.1) for name in ("entropy", "mutual_information", "variance")}
    case = predict(tmp_path / "out", series(tmp_path / "scan", SeriesNumber=3), seg, task, **maps)
    numbers = {}
    for name, unit in (("entropy", "{nat}"), ("mutual_information", "{nat}"), ("variance", "1")):
        made = pydicom.dcmread(case / f"a_{name}.dcm")
        np.testing.assert_array_equal(made.pixel_array, np.float32(0.1))
        mapping = made.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
        assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == unit
        numbers[made.SeriesInstanceUID] = made.SeriesNumber
    assert sorted(numbers.values()) == [302, 303, 304]


def test_a_case_of_which_no_objects_can_be_made_leaves_nothing(tmp_path):
    scan = series(tmp_path / "scan")
    # the slice that is looked at before the prediction has all that is needed, and another one has not
    file = sorted((tmp_path / "scan").iterdir())[-1]
    one = pydicom.dcmread(file)
    del one.FrameOfReferenceUID
    one.save_as(file)
    with pytest.raises(UserError, match=r"Case a: .*scan has no FrameOfReferenceUID in IM"):
        predict(tmp_path / "out", scan, np.zeros((1, *SHAPE), np.uint8), Task(["background", "organ"]))
    assert not [path for path in tmp_path.glob("out/**/*") if path.is_file()]
