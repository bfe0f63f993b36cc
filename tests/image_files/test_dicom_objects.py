"""DICOM objects read back by pydicom alone lie where the NIfTI files lie, and say what they must."""

import io
import json

import numpy as np
import pytest
from tests.image_files.reading_dicom import lacking, placed_frames, referenced_slices, segment_volumes, volume_on
from tests.image_files.written import OBLIQUE, PERMUTED, orthogonal, write_dicom

from medcalib.errors import UserError
from medcalib.image_files.dicom_codes import DicomCode, segment_codes
from medcalib.image_files.dicom_objects import DicomMaker, MapMeaning, Segment, map_object, segmentation_object
from medcalib.image_files.dicom_series import DicomSeries
from medcalib.image_files.dicom_source import DicomSource, check_dicom_source
from medcalib.image_files.unreadable import UnreadableFileError

pytest.importorskip("SimpleITK")
pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")

SHAPE = (7, 5, 6)
AXIAL = np.diag([-0.5, -0.75, 2.0, 1])
SHEARED = AXIAL + np.array([[0, 0, 0, 0], [0, 0, 0.6, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
PLACES = {
    "axial": AXIAL,
    "downwards": AXIAL @ np.diag([1, 1, -1, 1]),
    "oblique": orthogonal(OBLIQUE),
    "sagittal": PERMUTED,
    "tilted gantry": SHEARED,
}
MAKER = DicomMaker("phantom_" + "long_name_" * 8 + "0123abcd", "1.2.3", "9f" * 32, {"seed": 7})
TAGS = {
    "FrameOfReferenceUID": "1.9.9",
    "SeriesNumber": 4,
    "StudyDate": "20250101",
    "PatientName": "Müller^Anna",
    "SpecificCharacterSet": "ISO_IR 100",
}


def made_series(folder, affine=AXIAL, **tags):
    values = np.random.default_rng(0).integers(0, 99, SHAPE)
    return DicomSeries(write_dicom(folder, values, affine, **(TAGS | tags)))


def segments(*names):
    return [Segment(name, codes, (1.0, 0.5, 0)) for name, codes in zip(names, segment_codes(names), strict=True)]


def written(made):
    """The object as it is read from its file."""
    file = io.BytesIO()
    made.save_as(file)
    file.seek(0)
    return pydicom.dcmread(file)


@pytest.mark.parametrize("place", PLACES)
def test_every_class_and_value_lies_where_it_lies_in_nifti(tmp_path, place):
    series = made_series(tmp_path, PLACES[place])
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, SHAPE)
    labels[:, :, 1] = 0
    made = written(segmentation_object(DicomSource(series), labels, segments("organ", "lesion"), MAKER))
    found = segment_volumes(made, series.grid.affine, SHAPE)
    np.testing.assert_array_equal(found["organ"], labels == 1)
    np.testing.assert_array_equal(found["lesion"], labels == 2)
    assert made.SegmentsOverlap == "NO"

    values = rng.random(SHAPE).astype(np.float32)
    meaning = MapMeaning("entropy", "entropy of the mean probabilities", DicomCode("{nat}", "UCUM", "nat"), 1.1)
    made = written(map_object(DicomSource(series), values, meaning, MAKER))
    frames = [(frame, matrix) for _, frame, matrix in placed_frames(made)]
    volume, worst = volume_on(series.grid.affine, SHAPE, frames, np.float32)
    np.testing.assert_array_equal(volume, values)
    assert worst < 1e-3


def test_segments_may_overlap(tmp_path):
    series = made_series(tmp_path)
    channels = np.random.default_rng(2).integers(0, 2, (*SHAPE, 2)).astype(np.uint8)
    made = written(segmentation_object(DicomSource(series), channels, segments("whole", "core"), MAKER))
    found = segment_volumes(made, series.grid.affine, SHAPE)
    np.testing.assert_array_equal(found["whole"], channels[..., 0])
    np.testing.assert_array_equal(found["core"], channels[..., 1])
    assert made.SegmentsOverlap == "YES"


def test_an_empty_segmentation_can_be_written(tmp_path):
    series = made_series(tmp_path)
    made = written(segmentation_object(DicomSource(series), np.zeros(SHAPE, int), segments("organ"), MAKER))
    assert not segment_volumes(made, series.grid.affine, SHAPE)["organ"].any()


def both_objects(folder, affine=AXIAL, **tags):
    source = DicomSource(made_series(folder, affine, **tags))
    labels = np.random.default_rng(3).integers(0, 2, SHAPE)
    meaning = MapMeaning("variance", "variance of members", DicomCode("1", "UCUM", "no units"), 0.25)
    return (
        written(segmentation_object(source, labels, segments("organ"), MAKER)),
        written(map_object(source, labels / 8, meaning, MAKER)),
    )


def test_frames_refer_to_their_slices(tmp_path):
    seg, variance = both_objects(tmp_path, PERMUTED)
    slices = {str(one.SOPInstanceUID): one for one in (pydicom.dcmread(file) for file in tmp_path.iterdir())}
    for made in (seg, variance):
        uids = referenced_slices(made)
        assert set(uids) == set(slices)
        for uid, (item, _, _) in zip(uids, placed_frames(made), strict=True):
            np.testing.assert_allclose(
                item.PlanePositionSequence[0].ImagePositionPatient, slices[uid].ImagePositionPatient
            )
        series = made.ReferencedSeriesSequence[0]
        assert series.SeriesInstanceUID == "1.2.3"
        assert {one.ReferencedSOPInstanceUID for one in series.ReferencedInstanceSequence} == set(slices)


def test_patient_study_and_place_are_those_of_the_series(tmp_path):
    for made in both_objects(tmp_path):
        assert (made.PatientID, made.StudyInstanceUID, made.StudyDate) == ("nobody", "1.2", "20250101")
        assert str(made.PatientName) == "Müller^Anna"
        assert made.FrameOfReferenceUID == "1.9.9"
        assert made.SeriesInstanceUID != "1.2.3"
        measures = made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        np.testing.assert_allclose(measures.PixelSpacing, [0.75, 0.5])
        assert (measures.SpacingBetweenSlices, measures.SliceThickness) == (2, 2)
        assert {made.SeriesNumber} <= {401, 402}


def test_objects_say_what_made_them_and_what_they_hold(tmp_path):
    seg, variance = both_objects(tmp_path)
    segment = seg.SegmentSequence[0]
    assert (segment.SegmentLabel, segment.SegmentAlgorithmType) == ("organ", "AUTOMATIC")
    algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
    assert len(algorithm.AlgorithmName) <= 64
    assert algorithm.AlgorithmName.startswith("phantom_long_name_")
    assert algorithm.AlgorithmName.endswith("_0123abcd")
    assert (algorithm.AlgorithmVersion, algorithm.AlgorithmParameters) == ("1.2.3", "seed=7")
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Tissue"
    mapping = variance.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "1"
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
    assert mapping.DoubleFloatRealWorldValueLastValueMapped == 0.25
    assert variance.FloatPixelData
    assert variance.ContentQualification == "RESEARCH"


@pytest.mark.parametrize("tags", [{}, {"PatientID": None, "StudyDate": None, "SliceThickness": ""}])
def test_nothing_lacks_that_the_standard_asks_for(tmp_path, tags):
    for made in both_objects(tmp_path, **tags):
        # checked by the tables of highdicom, which does not check itself what it is not given
        assert lacking(made) == []
        made.DeviceSerialNumber = ""
        assert lacking(made) == [("enhanced-general-equipment", "DeviceSerialNumber")]


def test_the_same_again_has_the_same_identifiers_and_another_has_others(tmp_path):
    source = DicomSource(made_series(tmp_path))
    labels = np.random.default_rng(3).integers(0, 2, SHAPE)
    first, again = (segmentation_object(source, labels, segments("organ"), MAKER) for _ in range(2))

    def all_uids(made):
        return [str(element.value) for element in made.iterall() if element.VR == "UI"]

    assert all_uids(first) == all_uids(again)
    for uid in all_uids(first):
        assert pydicom.uid.UID(uid).is_valid
    others = [
        segmentation_object(source, 1 - labels, segments("organ"), MAKER),
        segmentation_object(source, labels, segments("lesion"), MAKER),
        segmentation_object(source, labels, segments("organ"), MAKER._replace(digest="ff")),
    ]
    for kind in ("SOPInstanceUID", "SeriesInstanceUID"):
        assert len({getattr(made, kind) for made in (first, *others)}) == 4


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"FrameOfReferenceUID": None}, "has no FrameOfReferenceUID in IM"),
        ({"StudyInstanceUID": ""}, "has no StudyInstanceUID in IM"),
    ],
)
def test_a_series_to_which_nothing_can_refer_is_refused(tmp_path, tags, message):
    series = made_series(tmp_path, **tags)
    with pytest.raises(UnreadableFileError, match=message):
        DicomSource(series)
    with pytest.raises(UnreadableFileError, match=message):
        check_dicom_source(tmp_path)


def test_slices_of_several_frames_of_reference_are_refused(tmp_path):
    series = made_series(tmp_path)
    one = pydicom.dcmread(series.files[2])
    one.FrameOfReferenceUID = "1.9.8"
    one.save_as(series.files[2])
    with pytest.raises(UnreadableFileError, match="slices of different FrameOfReferenceUID"):
        DicomSource(DicomSeries(tmp_path))


LIVER = [10200004, "SCT", "Liver"]


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ({"livr": {"type": LIVER}}, "names the class 'livr'; did you mean liver"),
        ({"liver": LIVER}, "dicom_codes::liver is .* write it as"),
        ({"liver": {"kind": LIVER}}, "dicom_codes::liver is "),
        ({"liver": {"type": "Liver"}}, "dicom_codes::liver::type is 'Liver'"),
        ({"liver": {"type": LIVER[:2]}}, "dicom_codes::liver::type is "),
        ({"liver": {"type": ["x" * 17, "SCT", "Liver"]}}, "up to 16 characters"),
        ("liver", "dicom_codes is 'liver'"),
    ],
)
def test_bad_codes(codes, message):
    with pytest.raises(UserError, match=message):
        segment_codes(["liver", "lesion"], codes)


def test_objects_carry_the_codes_that_were_given(tmp_path):
    codes = segment_codes(["liver"], json.loads(json.dumps({"liver": {"type": LIVER}})))
    made = segmentation_object(
        DicomSource(made_series(tmp_path)), np.ones(SHAPE, int), [Segment("liver", codes[0], (0, 0, 1))], MAKER
    )
    segment = made.SegmentSequence[0]
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "10200004"
    assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "Tissue"
