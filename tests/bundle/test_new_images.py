"""Images of no dataset through a trained bundle: the same numbers as for test cases, rows, refusals, going on."""

import importlib.util
import json
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image
from tests.conftest import PHANTOM_SIZE
from tests.image_files.test_label_descriptions import read_by_slicer
from tests.image_files.written import write_dicom, write_meta_image, write_nrrd

from medcalib.bundle.layout import CONFIGS, IMAGES, METADATA, Mode, config_files
from medcalib.bundle.opened import Bundle
from medcalib.bundle.run import run
from medcalib.data import phantom_cases
from medcalib.errors import UserError


@pytest.fixture(scope="module")
def settings(tiny):
    """Those of the training; nothing of the dataset."""
    return {id_: value for id_, value in tiny.items() if not id_.startswith("data::")}


@pytest.fixture(scope="module")
def source(phantom_dir):
    return phantom_cases(phantom_dir, **PHANTOM_SIZE)["test"][0]


@pytest.fixture(scope="module")
def copies(tmp_path_factory, source):
    """One image in ten forms, in a folder alone: NIfTI plain and turned, MetaImage, NRRD, DICOM."""
    folder = tmp_path_factory.mktemp("copies")
    image = nib.load(source["image"])
    values = np.asarray(image.dataobj)
    shutil.copyfile(source["image"], folder / "packed.nii.gz")
    nib.save(image, folder / "plain.nii")
    nib.save(nib.Nifti1Image(values.astype(np.float64), image.affine, dtype=np.float64), folder / "double.nii.gz")
    nib.save(nib.Nifti2Image(values, image.affine), folder / "nifti2.nii.gz")
    turned = image.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(image.affine), nib.orientations.axcodes2ornt("PSL"))
    )
    nib.save(turned, folder / "turned.nii.gz")
    (folder / "notes.md").write_text("no image")
    if ITK:
        write_meta_image(folder / "meta.mha", values, image.affine, packed=True)
        moved = image.as_reoriented(np.array([[2, -1], [0, 1], [1, -1]]))
        write_meta_image(folder / "apart.mhd", np.asarray(moved.dataobj), moved.affine, beside="apart.raw")
        write_nrrd(folder / "rrd.nrrd", values, image.affine)
        write_nrrd(folder / "header.nhdr", values, image.affine, "header.raw", "right-anterior-superior")
        offset = int(values.min())
        write_dicom(folder / "slices", (values.astype(int) - offset) * 2, image.affine, slopes=(0.5,), intercept=offset)
    return folder


@pytest.fixture(scope="module")
def predicted(trained, copies, settings, tmp_path_factory):
    output = tmp_path_factory.mktemp("out") / "new"
    run(str(trained), "inference_pred", images=str(copies), overrides=settings | {"output_dir": str(output)})
    return output


def values_in_ras(path):
    return np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj)


NIFTI = ["double", "nifti2", "packed", "plain", "turned"]
ITK = all(importlib.util.find_spec(name) for name in ("SimpleITK", "pydicom"))
FORMS = sorted([*NIFTI, *(["apart", "header", "meta", "rrd", "slices"] if ITK else [])])


def test_copies_in_every_form_give_the_prediction_of_the_test_case(trained, source, predicted):
    expected = trained / "seed_12345" / "predictions" / source["case"]
    for form in FORMS:
        for output, tolerance in (("prob", 1e-5), ("entropy", 1e-4), ("seg", 0)):
            found = values_in_ras(predicted / form / f"{form}_{output}.nii.gz")
            wanted = values_in_ras(expected / f"{source['case']}_{output}.nii.gz")
            np.testing.assert_allclose(found, wanted, atol=tolerance, err_msg=f"{form} {output}")


def test_predictions_lie_in_the_geometry_of_their_file(copies, predicted):
    for form in FORMS:
        seg = nib.load(predicted / form / f"{form}_seg.nii.gz")
        if form in NIFTI:
            image = nib.load(next(copies.glob(f"{form}.nii*")))
            assert seg.shape == image.shape
            np.testing.assert_allclose(seg.affine, image.affine, atol=1e-5)
        else:
            image = volume_by_itk(copies, form)
            assert seg.shape == image.GetSize()
            for index in ((0, 0, 0), (1, 2, 3), tuple(size - 1 for size in seg.shape)):
                there = np.array([-1, -1, 1]) * image.TransformIndexToPhysicalPoint(index)
                np.testing.assert_allclose((seg.affine @ (*index, 1))[:3], there, atol=1e-4)


def volume_by_itk(folder, form):
    import SimpleITK

    if form == "slices":
        return SimpleITK.ReadImage(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder / form)))
    return SimpleITK.ReadImage(str(next(path for path in folder.glob(f"{form}.*") if path.suffix != ".raw")))


@pytest.mark.skipif(not ITK, reason="needs SimpleITK and pydicom")
def test_names_of_labels_lie_beside_the_cases(trained, predicted):
    for folder in (predicted, trained / "seed_12345" / "predictions"):
        table = read_by_slicer((folder / "labels.ctbl").read_text())
        assert {value: name for value, (name, _) in table.items()} == {0: "background", 1: "organ", 2: "lesion"}
        assert (folder / "labels_itksnap.txt").exists()
        assert not list(folder.glob("*/*.seg.nrrd"))


def test_ten_copies_of_mixed_formats_give_equal_predictions(predicted):
    assert len(FORMS) == 10
    table = pd.read_csv(predicted / "predictions.csv").set_index("case")
    numbers = table.select_dtypes("number")
    assert len(numbers.columns) > 8
    pd.testing.assert_frame_equal(numbers, pd.concat([numbers.loc[["packed"]]] * 10).set_axis(numbers.index), rtol=1e-4)


def test_rows_hold_volumes_scores_and_flags(trained, source, predicted):
    table = pd.read_csv(predicted / "predictions.csv")
    assert table["case"].tolist() == FORMS
    results = trained / "seed_12345"
    scores = pd.read_csv(results / "evaluation" / "cases.csv").set_index("filename").loc[source["case"]]
    threshold = json.loads((results / "evaluation" / "quality_control.json").read_text())["scores"]
    threshold = threshold["entropy_foreground_mean"]["threshold"]["value"]
    for row in table.to_dict("records"):
        prob = nib.load(predicted / row["case"] / f"{row['case']}_prob.nii.gz")
        seg = np.asarray(nib.load(predicted / row["case"] / f"{row['case']}_seg.nii.gz").dataobj)
        ml = abs(np.linalg.det(prob.affine[:3, :3])) / 1000
        for channel, name in ((1, "organ"), (2, "lesion")):
            p = prob.get_fdata()[..., channel]
            assert row[f"{name}_ml"] == pytest.approx((seg == channel).sum() * ml)
            assert row[f"{name}_expected_ml"] == pytest.approx(p.sum() * ml, rel=1e-4)
            assert row[f"{name}_low_ml"] == pytest.approx((p > 0.975).sum() * ml)
            assert row[f"{name}_high_ml"] == pytest.approx((p > 0.025).sum() * ml)
            assert row[f"{name}_low_ml"] <= row[f"{name}_ml"] <= row[f"{name}_high_ml"]
        for name in ("entropy_foreground_mean", "mean_foreground_confidence", "entropy_patch_maximum"):
            if np.isnan(scores[name]):
                assert np.isnan(row[name])
            else:
                assert row[name] == pytest.approx(scores[name], rel=1e-4)
        value = row["entropy_foreground_mean"]
        assert bool(row["flagged"]) == bool(np.isnan(value) or value > threshold)
        assert "entropy_foreground_mean" in row["reason"]
        # the training had no such slices as those of one of the phantom's hard cases
        assert pd.isna(row["warning"]) == (max(prob.header.get_zooms()[:3]) < 2)


def test_nothing_of_the_dataset_is_touched(trained, copies, settings, tmp_path, monkeypatch, predicted):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEDCALIB_DATA_DIR", str(tmp_path / "data"))
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file()}
    output = tmp_path / "new"
    run(
        str(trained), "inference_pred", images=str(copies / "p*.nii*"), overrides=settings | {"output_dir": str(output)}
    )
    assert sorted(path.name for path in output.iterdir() if path.is_dir() and path.name[0] != ".") == [
        "configs", "cost", "packed", "plain",
    ]  # fmt: skip
    assert not (tmp_path / "data").exists()
    assert before == {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file()}


def test_a_run_goes_on_and_refuses_what_is_not_its_own(trained, copies, settings, tmp_path, predicted, capsys):
    output = tmp_path / "new"
    shutil.copytree(predicted, output)
    shutil.rmtree(output / "plain")
    kept = (output / "packed" / "packed_prob.nii.gz").stat().st_mtime_ns
    options = settings | {"output_dir": str(output)}
    for told in (
        f"1 case(s) predicted, {len(FORMS) - 1} were there.",
        f"0 case(s) predicted, {len(FORMS)} were there.",
    ):
        run(str(trained), "inference_pred", images=str(copies), overrides=options)
        assert told in capsys.readouterr().out
    assert (output / "packed" / "packed_prob.nii.gz").stat().st_mtime_ns == kept
    pd.testing.assert_frame_equal(
        pd.read_csv(output / "predictions.csv"), pd.read_csv(predicted / "predictions.csv"), rtol=1e-5
    )

    with pytest.raises(UserError, match=r"another inference .*choose another --output_dir"):
        run(str(trained), "inference_pred", images=str(copies), overrides=options | {"inferer::overlap": 0.5})
    other = tmp_path / "other"
    other.mkdir()
    image = nib.load(copies / "plain.nii")
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) + 1, image.affine), other / "plain.nii")
    with pytest.raises(UserError, match="the prediction of another image"):
        run(str(trained), "inference_pred", images=str(other), overrides=options)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("all of it")
    with pytest.raises(UserError, match=r"holds thesis\.txt"):
        run(str(trained), "inference_pred", images=str(copies), overrides=settings | {"output_dir": str(foreign)})
    assert [path.name for path in foreign.iterdir() if path.name != ".lock"] == ["thesis.txt"]


def test_what_is_done_is_kept_when_an_image_is_damaged(trained, copies, settings, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    shutil.copyfile(copies / "packed.nii.gz", images / "a.nii.gz")
    (images / "b.nii.gz").write_bytes((copies / "packed.nii.gz").read_bytes()[:2000])
    image = nib.load(copies / "plain.nii")
    options = settings | {"output_dir": str(tmp_path / "out")}
    with pytest.raises(UserError, match=r"Case b: .*b\.nii\.gz cannot be read"):
        run(str(trained), "inference_pred", images=str(images), overrides=options)
    assert (tmp_path / "out" / "a" / "a_seg.nii.gz").exists()
    assert not (tmp_path / "out" / "b").exists()
    nib.save(nib.Nifti1Image(np.stack([np.asarray(image.dataobj)] * 2, -1), image.affine), images / "b.nii.gz")
    with pytest.raises(UserError, match=r"Case b: .* has 2 channel\(s\), but data::channel_names lists 1"):
        run(str(trained), "inference_pred", images=str(images), overrides=options)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[:, :, 0], image.affine), images / "b.nii.gz")
    with pytest.raises(UserError, match=r"Case b: .* has 2 spatial axes, but this bundle predicts images of 3"):
        run(str(trained), "inference_pred", images=str(images), overrides=options)


def test_an_image_unlike_the_training_is_said(trained, copies, settings, tmp_path):
    image = nib.load(copies / "plain.nii")
    affine = image.affine @ np.diag([4, 1, 1, 1])
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) * 50 + 3000, affine), tmp_path / "far.nii.gz")
    options = settings | {"output_dir": str(tmp_path / "out")}
    with pytest.warns(UserWarning, match=r"Case far is unlike the images of the training: spacing .*intensities of"):
        run(str(trained), "inference_pred", images=str(tmp_path / "far.nii.gz"), overrides=options)
    row = pd.read_csv(tmp_path / "out" / "predictions.csv").iloc[0]
    assert "spacing" in row["warning"]


@pytest.mark.parametrize(
    ("images", "mode", "message"),
    [
        ("no/such/*.nii.gz", "inference_pred", "No file matches"),
        ("no_such_folder", "inference_pred", "There is no file or folder no_such_folder"),
        ("{copies}/notes.md", "inference_pred", "is no image that this bundle reads"),
        ("{copies}", "inference_eval", "goes with --mode inference_pred"),
    ],
)
def test_bad_input(trained, copies, settings, tmp_path, images, mode, message):
    options = settings | {"output_dir": str(tmp_path / "out")}
    with pytest.raises(UserError, match=message):
        run(str(trained), mode, images=images.format(copies=copies), overrides=options)
    assert not (tmp_path / "out").exists()


def test_an_untrained_bundle_is_refused(bundle, copies, tmp_path):
    with pytest.raises(UserError, match="not trained with seed 12345 yet"):
        run(str(bundle), "inference_pred", images=str(copies), overrides={"output_dir": str(tmp_path / "out")})
    assert not (tmp_path / "out").exists()


def test_monai_alone_predicts_new_images_with_the_file_of_the_bundle(trained, copies, settings, tmp_path, predicted):
    files = [str(path) for path in config_files(trained / CONFIGS, Mode.INFERENCE_PRED)]
    workflow = ConfigWorkflow(
        config_file=[*files, str(trained / CONFIGS / IMAGES)],
        meta_file=str(trained / CONFIGS / METADATA),
        logging_file=None,
        workflow_type="infer",
        bundle_root=str(trained),
        images=str(copies / "plain.nii"),
        output_dir=str(tmp_path / "out"),
        **{id_: value for id_, value in settings.items() if id_ != "output_dir"},
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    found = pd.read_csv(tmp_path / "out" / "predictions.csv").iloc[0]
    expected = pd.read_csv(predicted / "predictions.csv").set_index("case").loc["plain"]
    assert found["organ_expected_ml"] == pytest.approx(expected["organ_expected_ml"])


def test_pictures_in_several_formats_give_equal_predictions(tmp_path, make_bundle):
    bundle = make_bundle(tmp_path, data="isic16")
    small = {"network::init_filters": 4, "network::blocks_down": [1, 1], "network::dsdepth": 1, "device": "cpu"}
    opened = Bundle.open(bundle)
    network = opened.workflow(Mode.INFERENCE_PRED, small, images="x").parser.get_parsed_content("placed_network")
    (bundle / "seed_12345" / "models").mkdir(parents=True)
    torch.save(network.state_dict(), bundle / "seed_12345" / "models" / "model.pt")
    images = tmp_path / "images"
    images.mkdir()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8))
    for name in ("a.png", "b.tif", "c.bmp"):
        picture.save(images / name)
    with pytest.warns(UserWarning, match="does not say what the images of the training are like"):
        run(str(bundle), "inference_pred", images=str(images), overrides=small, allow_unfinished=True)
    output = bundle / "seed_12345" / "images" / "images"
    found = {name: np.load(output / name / f"{name}_prob.npy") for name in "abc"}
    assert found["a"].shape == (40, 60, 2)
    np.testing.assert_array_equal(found["a"], found["b"])
    np.testing.assert_array_equal(found["a"], found["c"])
    table = pd.read_csv(output / "predictions.csv").set_index("case")
    assert table.loc["a", "lesion_expected_pixels"] == pytest.approx(found["a"][..., 1].sum(), rel=1e-4)
    assert table["flagged"].isna().all()
    assert table["reason"].str.contains("was not evaluated").all()
