"""DICOM series through a trained bundle: objects beside the NIfTI files, and what becomes of bad input."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from tests.conftest import PHANTOM_SIZE, TEMPLATES
from tests.image_files.reading_dicom import (
    lacking,
    placed_frames,
    referenced_slices,
    segment_volumes,
    volume_on,
)
from tests.image_files.written import orthogonal, write_dicom

from medcalib.bundle.compose import generate
from medcalib.bundle.layout import CONFIGS, IMAGES, Mode
from medcalib.bundle.opened import Bundle
from medcalib.bundle.run import run
from medcalib.data import phantom_cases
from medcalib.errors import UserError

pytest.importorskip("SimpleITK", reason="reads the files")
pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")


@pytest.fixture(scope="module")
def settings(tiny):
    """Those of the training; nothing of the dataset."""
    return {id_: value for id_, value in tiny.items() if not id_.startswith("data::")}


def write_series(folder, image, turn=None, **tags):
    """A volume as DICOM, of its axes in another order or turned in space."""
    if turn is not None:
        image = image.as_reoriented(turn)
    values = np.asarray(image.dataobj).astype(int)
    offset = int(values.min())
    given = {"FrameOfReferenceUID": "1.9.9", "SeriesNumber": 4, "StudyDate": "20250101"} | tags
    return write_dicom(folder, (values - offset) * 2, image.affine, slopes=(0.5,), intercept=offset, **given)


@pytest.fixture(scope="module")
def image(phantom_dir):
    return nib.load(phantom_cases(phantom_dir, **PHANTOM_SIZE)["test"][0]["image"])


@pytest.fixture(scope="module")
def scans(tmp_path_factory, image):
    """An axial, a sagittal and an oblique series, whose files are in no order."""
    folder = tmp_path_factory.mktemp("scans")
    write_series(folder / "axial", image, series="1.2.3")
    write_series(folder / "sagittal", image, np.array([[2, -1], [0, 1], [1, -1]]), series="1.2.4")
    angle = np.deg2rad(20)
    turned = np.eye(4)
    turned[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    oblique = nib.Nifti1Image(np.asarray(image.dataobj), orthogonal(turned @ image.affine))
    write_series(folder / "oblique", oblique, series="1.2.5")
    return folder


def predict(trained, images, output, settings, **options):
    run(str(trained), "inference_pred", images=str(images), overrides=settings | {"output_dir": str(output)} | options)


@pytest.fixture(scope="module")
def predicted(trained, scans, settings, tmp_path_factory):
    output = tmp_path_factory.mktemp("out") / "new"
    predict(trained, scans, output, settings, dicom=True)
    return output


def sources(folder):
    return {str(one.SOPInstanceUID): one for one in (pydicom.dcmread(file) for file in folder.iterdir())}


@pytest.mark.parametrize("case", ["axial", "sagittal", "oblique"])
def test_objects_hold_what_nifti_holds_in_patient_coordinates(trained, scans, predicted, case):
    made = pydicom.dcmread(predicted / case / f"{case}_seg.dcm")
    seg = nib.load(predicted / case / f"{case}_seg.nii.gz")
    labels = np.asarray(seg.dataobj)
    found = segment_volumes(made, seg.affine, seg.shape)
    assert list(found) == ["organ", "lesion"]
    assert found["organ"].any()
    for value, name in ((1, "organ"), (2, "lesion")):
        np.testing.assert_array_equal(found[name], labels == value)
    slices = sources(scans / case)
    assert set(referenced_slices(made)) <= set(slices)
    one = next(iter(slices.values()))
    for name in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "StudyDate"):
        assert made[name].value == one[name].value
    algorithm = made.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    provenance = json.loads((predicted / "provenance.json").read_text())
    assert algorithm.AlgorithmName == trained.name
    assert algorithm.AlgorithmVersion == provenance["versions"]["medcalib"]
    assert f"bundle_digest={provenance['bundle_digest']}" in algorithm.AlgorithmParameters
    assert f"weights_digest={provenance['checkpoint_digest']}" in algorithm.AlgorithmParameters

    entropy = pydicom.dcmread(predicted / case / f"{case}_entropy.dcm")
    frames = [(frame, matrix) for _, frame, matrix in placed_frames(entropy)]
    volume, worst = volume_on(seg.affine, seg.shape, frames, np.float32)
    np.testing.assert_array_equal(volume, np.asarray(nib.load(predicted / case / f"{case}_entropy.nii.gz").dataobj))
    assert worst < 1e-3
    mapping = entropy.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    unit = mapping.MeasurementUnitsCodeSequence[0]
    assert (unit.CodeValue, unit.CodeMeaning) == ("{nat}", "nat")
    assert mapping.DoubleFloatRealWorldValueLastValueMapped == pytest.approx(np.log(3), abs=1e-5)
    assert not (predicted / case / f"{case}_variance.dcm").exists()
    for written in (made, entropy):
        assert lacking(written) == []


def test_cases_that_were_predicted_without_objects_get_them(trained, scans, settings, predicted, tmp_path, capsys):
    output = tmp_path / "out"
    shutil.copytree(predicted, output)
    for file in (*output.glob("axial/*.dcm"), output / "oblique" / "oblique_seg.dcm"):
        file.unlink()
    kept = (output / "sagittal" / "sagittal_seg.dcm").stat().st_mtime_ns
    predict(trained, scans, output, settings)
    assert not list(output.glob("axial/*.dcm"))
    predict(trained, scans, output, settings, dicom=True)
    assert "0 case(s) predicted, 3 were there." in capsys.readouterr().out
    assert (output / "sagittal" / "sagittal_seg.dcm").stat().st_mtime_ns == kept
    for name in ("axial/axial_seg.dcm", "axial/axial_entropy.dcm", "oblique/oblique_seg.dcm"):
        again, before = pydicom.dcmread(output / name), pydicom.dcmread(predicted / name)
        assert again.SOPInstanceUID == before.SOPInstanceUID
        np.testing.assert_array_equal(again.pixel_array, before.pixel_array)


def test_one_of_several_series_of_a_folder_is_chosen(trained, scans, settings, predicted, tmp_path):
    folder = tmp_path / "both"
    folder.mkdir()
    for series in ("axial", "sagittal"):
        for file in (scans / series).iterdir():
            shutil.copyfile(file, folder / f"{series}_{file.name}")
    output = tmp_path / "out"
    with pytest.raises(UserError, match=r"Case both: .* holds 2 DICOM series, .*--dicom_series"):
        predict(trained, folder, output, settings)
    with pytest.raises(UserError, match=r"'series 1\.2\.5', but .*; did you mean 'series 1\.2\.[34]'"):
        predict(trained, folder, output, settings, dicom_series="series 1.2.5")
    assert not output.exists()
    predict(trained, folder, output, settings, dicom_series="series 1.2.4", dicom=True)
    made, before = (
        pydicom.dcmread(path)
        for path in (output / "both" / "both_seg.dcm", predicted / "sagittal" / "sagittal_seg.dcm")
    )
    np.testing.assert_array_equal(made.pixel_array, before.pixel_array)
    assert made.ReferencedSeriesSequence[0].SeriesInstanceUID == "1.2.4"
    with pytest.raises(UserError, match="the prediction of another image"):
        predict(trained, folder, output, settings, dicom_series="series 1.2.3")


def test_bad_input_leaves_nothing(trained, scans, image, settings, tmp_path, monkeypatch):
    nifti, mixed, nowhere, output = (tmp_path / name for name in ("nifti", "mixed", "nowhere", "out"))
    nifti.mkdir()
    nib.save(image, nifti / "a.nii.gz")
    shutil.copytree(scans / "axial", mixed / "axial")
    shutil.copyfile(nifti / "a.nii.gz", mixed / "b.nii.gz")
    write_series(nowhere / "axial", image, FrameOfReferenceUID=None)
    for images, options, message in (
        (nifti, {"dicom": True}, r"--dicom writes DICOM for .* case a is the file .*a\.nii\.gz; leave"),
        (mixed, {"dicom": True}, r"case b is the file .*b\.nii\.gz"),
        (nifti, {"dicom_series": 4}, r"--dicom_series chooses .* case a is the file"),
        (nowhere, {"dicom": True}, r"Case axial: .*axial has no FrameOfReferenceUID in IM\d+, .*; export the series"),
        (scans, {"dicom": True, "dicom_codes": {"organn": {}}}, "the class 'organn'; did you mean organ"),
        (scans, {"dicom": "yes"}, "--dicom must be true or false"),
    ):
        with pytest.raises(UserError, match=message):
            predict(trained, images, output, settings, **options)
        assert not output.exists()
    with pytest.raises(UserError, match="--dicom exists only in --mode inference_pred --images; leave it out here"):
        run(str(trained), "inference_pred", overrides=settings | {"dicom": True})
    monkeypatch.setitem(__import__("sys").modules, "highdicom", None)
    with pytest.raises(UserError, match=r"--dicom needs highdicom, .* pip install 'medcalib\[dicom\]'"):
        predict(trained, scans, output, settings, dicom=True)
    assert not output.exists()


def test_a_bundle_of_an_earlier_version_says_what_to_do(trained, scans, settings, tmp_path):
    bundle = tmp_path / trained.name
    shutil.copytree(trained, bundle)
    overlay = bundle / CONFIGS / IMAGES
    text = overlay.read_text()
    overlay.write_text(
        text.replace("dicom: false", "").replace('"$not @dicom"', "true").replace("if @dicom", "if False")
    )
    with pytest.raises(
        UserError, match=r"images\.yaml was written by an earlier version, which has no --dicom; remove"
    ):
        predict(bundle, scans, tmp_path / "out", settings, dicom=True)


def test_a_fragment_may_say_what_its_classes_are(tmp_path):
    templates = tmp_path / "templates"
    shutil.copytree(TEMPLATES, templates)
    fragment = templates / CONFIGS / "data" / "phantom.yaml"
    codes = "    dicom_codes:\n      organ: {type: [10200004, SCT, Liver]}\n"
    fragment.write_text(fragment.read_text().replace("  metadata:\n", f"  metadata:\n{codes}"))
    bundle = generate(templates, tmp_path / "bundles", "phantom", "baseline_dice_ce", "deterministic")[0]
    workflow = Bundle.open(bundle).workflow(Mode.INFERENCE_PRED, images="x")
    assert workflow.parser.get_parsed_content("dicom_codes") == {"organ": {"type": [10200004, "SCT", "Liver"]}}
