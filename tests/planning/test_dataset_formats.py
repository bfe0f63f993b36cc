"""Sets in the layouts and file formats that people have become fragments, without a line of YAML by hand."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from PIL import Image
from tests.data.layouts import write_volume
from tests.image_files.written import write_meta_image, write_nrrd
from tests.planning.made_datasets import (
    make_mixed_volumes,
    make_palette_pictures,
    make_pictures,
    make_structures,
)

from medcalib.bundle.compose import generate
from medcalib.bundle.templates import find_templates
from medcalib.cli.verb_new_data import main
from medcalib.errors import UserError


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Everything is written below the current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(name, **options):
    main(output_dir="data_fragments", num_workers=0, name=name, **({"gpu_memory": 8} | options))
    return yaml.safe_load(Path(f"data_fragments/{name}.yaml").read_text())


def refused(message, **options):
    with pytest.raises(UserError, match=message) as caught:
        main(output_dir="data_fragments", num_workers=0, cpu=True, **options)
    assert str(caught.value).count(". ") == 0
    assert not Path("data_fragments").exists()


def step(content, name, part="preprocessing"):
    found = [one for one in content["data"][part] if one["_target_"].endswith(f".{name}")]
    assert len(found) == 1, f"{len(found)} of {name}"
    return found[0]


SPLIT = {"images": "cells/{split}/images/{case}.png", "labels": "cells/{split}/labels/{case}.png"}
STRUCTURES = {"images": "total/{case}/ct.nii.gz", "labels": "total/{case}/segmentations/{class}.nii.gz"}


def test_folders_of_the_split_and_masks_with_a_palette(place):
    make_palette_pictures(place / "cells")
    data = planned("cells", **SPLIT)["data"]
    assert data["dataset_dir"] == str(place / "cells")
    assert data["cases"] == {
        "_target_": "medcalib.data.pattern_cases",
        "dataset_dir": "@data::dataset_dir",
        "image": "{split}/images/{case}.png",
        "label": "{split}/labels/{case}.png",
    }
    # indices of the palette, not its colours
    assert (data["class_names"], data["label_map"]) == (["background", "class_1", "class_2"], None)
    assert "# the folders train, val, test divide the cases" in Path("data_fragments/cells.yaml").read_text()


def test_a_class_that_no_training_case_has_is_said(place, capsys):
    make_palette_pictures(place / "cells")
    for file in Path("cells/train/labels").iterdir():
        mask = Image.open(file)
        values = np.array(mask)
        values[values == 2] = 0
        Image.fromarray(values, "P").save(file)
    planned("cells", **SPLIT)
    assert "note: No training case has the class class_2, so it cannot be learnt; divide" in capsys.readouterr().out


def test_without_test_folder_the_fragment_says_what_is_tested(place, capsys):
    make_palette_pictures(place / "cells", (("Train", 6), ("valid", 2), ("spare", 1)))
    planned("cells", **SPLIT)
    text = Path("data_fragments/cells.yaml").read_text()
    assert "without one of test cases, valid is the test part, and a tenth" in text
    assert "note: spare in the place of {split} stands for no part of a split, so 1 case is left out" in (
        capsys.readouterr().out
    )


def test_folders_are_classes(place):
    make_pictures(place / "skin")
    for number in range(8):
        part = ["train", "val", "test"][max(0, number - 3) // 2]
        path = place / "kinds" / part / ["nevus", "melanoma"][number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        (place / "skin" / "pictures" / f"p{number}.png").rename(path)
    data = planned("kinds", images="kinds/{split}/{class}/{case}.png", cpu=True, gpu_memory=None)["data"]
    assert (data["task"], data["class_names"]) == ("classification", ["melanoma", "nevus"])
    assert data["cases"]["class_names"] == "@data::class_names"
    generate(find_templates(), place / "bundles", "kinds", "baseline_ce", "deterministic")


def test_a_file_for_each_structure(place, capsys):
    make_structures(place / "total")
    content = planned("total", **STRUCTURES)
    data = content["data"]
    assert data["class_names"] == ["background", "aorta", "cyst", "gallbladder", "liver"]
    assert (data["cases"]["label"], data["cases"]["class_names"]) == (
        "{case}/segmentations/{class}.nii.gz",
        "@data::class_names",
    )
    assert "overlap" not in data["cases"]
    assert "activation" not in content
    report = json.loads(Path("data_reports/total/report.json").read_text())
    assert report["classes"]["gallbladder"]["num_cases"] == 4  # of one it is empty
    assert "# structures do not overlap, so they are classes" in Path("data_fragments/total.yaml").read_text()
    # some of them
    capsys.readouterr()
    some = planned("some", **STRUCTURES, class_names="background,liver,aorta")["data"]
    assert some["class_names"] == ["background", "liver", "aorta"]
    assert "note: cyst, gallbladder left out, since --class_names does not list them." in capsys.readouterr().out
    with pytest.raises(UserError, match="--class_names lists 'livre', but no file matches .*; did you mean liver"):
        planned("other", **STRUCTURES, class_names="livre")


def test_structures_that_overlap_are_outputs_of_their_own(place, capsys):
    make_structures(place / "total", nested=True)
    content = planned("nested", **STRUCTURES)
    data = content["data"]
    assert (content["activation"], data["cases"]["overlap"]) == ("sigmoid", "channels")
    assert (data["class_names"], data["label_map"]) == (["aorta", "cyst", "gallbladder", "liver"], None)
    assert "note: cyst shares 100 % of its voxels with other structures, so each" in capsys.readouterr().out
    report = json.loads(Path("data_reports/nested/report.json").read_text())
    assert report["classes"]["cyst"]["num_cases"] == 5


def test_a_structure_without_file_is_refused_or_said_to_be_absent(place):
    make_structures(place / "total")
    Path("total/s0002/segmentations/cyst.nii.gz").unlink()
    refused("Case 's0002' has no '.*cyst.nii.gz', so nobody knows whether", **STRUCTURES)
    data = planned("absent", **STRUCTURES, missing_structures="absent")["data"]
    assert data["cases"]["missing_structures"] == "absent"


def test_structures_elsewhere_than_the_image_are_named(place):
    make_structures(place / "total")
    mask = nib.load("total/s0001/segmentations/cyst.nii.gz")
    moved = mask.affine.copy()
    moved[0, 3] += 5
    nib.save(nib.Nifti1Image(np.asarray(mask.dataobj), moved), "total/s0001/segmentations/cyst.nii.gz")
    refused("Case s0001: the affines of the files of the label differ.*cyst.nii.gz", **STRUCTURES)


@pytest.mark.parametrize("with_background", [False, True])
def test_labels_of_several_channels(with_background, place):
    make_structures(place / "total")
    for case in sorted(Path("total").iterdir()):
        masks = [
            np.asarray(nib.load(case / "segmentations" / f"{name}.nii.gz").dataobj)
            for name in ("liver", "cyst", "aorta")
        ]
        masks = [*([1 - sum(masks)] if with_background else []), *masks]
        write_volume(case / "all.nii.gz", np.stack(masks, -1).astype(np.uint8), (1.5, 1.5, 3.0))
    names = {"class_names": "background,liver,cyst,aorta"}
    data = planned("channels", images=STRUCTURES["images"], labels="total/{case}/all.nii.gz", **names)["data"]
    assert data["class_names"] == ["background", "liver", "cyst", "aorta"]
    assert data["cases"]["label_channels"] == data["class_names"][0 if with_background else 1 :]
    shutil.rmtree("data_fragments")
    channels = {"images": STRUCTURES["images"], "labels": "total/{case}/all.nii.gz"}
    refused("--ignore_label is .* these labels have one channel for each structure", ignore_label=255, **channels)


def test_series_of_dicom_slices(place):
    pytest.importorskip("SimpleITK")
    pytest.importorskip("pydicom")
    make_mixed_volumes(place / "mr")
    content = planned("mr", images="mr/{case}/MR", labels="mr/{case}/seg.nrrd", channel_names="MR")
    assert content["data"]["class_names"] == ["background", "class_1", "class_2"]
    assert step(content, "Spacingd")["pixdim"] == [0.7, 0.6, 2.0]


@pytest.mark.parametrize("ending", ["mha", "mhd", "nrrd", "nii"])
def test_volumes_in_every_format(ending, place):
    pytest.importorskip("SimpleITK")
    rng = np.random.default_rng(0)
    for number in range(3):
        label = np.zeros((8, 8, 8), np.int16)
        label[2:5, 2:5, 2:5] = 1
        image = (100 * label + rng.normal(0, 5, label.shape)).astype(np.int16)
        for kind, values in (("i", image), ("l", label)):
            path = place / f"{kind}{number}.{ending}"
            if ending == "nii":
                write_volume(path, values)
            elif ending == "nrrd":
                write_nrrd(path, values, np.eye(4))
            else:
                write_meta_image(path, values, np.eye(4), beside=f"{path.stem}.raw" if ending == "mhd" else "")
    data = planned("all", images=f"i{{case}}.{ending}", labels=f"l{{case}}.{ending}")["data"]
    assert data["class_names"] == ["background", "foreground"]


def write_pictures(kinds, modes):
    """Pictures of some modes by number, with masks."""
    rng = np.random.default_rng(0)
    Path("i").mkdir()
    Path("l").mkdir()
    for number, (mode, highest) in enumerate(modes):
        label = np.zeros((20, 24), np.uint8)
        label[5:12, 5 : 12 + number] = 255
        values = highest * (0.3 + 0.6 * (label > 0)) + rng.uniform(0, 0.05 * highest, label.shape)
        if mode in ("RGB", "RGBA"):
            values = np.stack([values] * len(mode), -1)
        kind = {"I;16": np.uint16, "F": np.float32}.get(mode, np.uint8)
        Image.fromarray(values.clip(0, highest).astype(kind)).save(f"i/{number}.{kinds}")
        Image.fromarray(label).save(f"l/{number}.png")


@pytest.mark.parametrize(
    ("ending", "modes", "scale", "channels"),
    [
        ("png", [("L", 255)] * 3, {"a_min": 0, "a_max": 255}, ["grey"]),
        ("png", [("I;16", 65535)] * 3, {"a_min": 0, "a_max": 65535}, ["grey"]),
        ("tif", [("I;16", 4000)] * 3, {"a_min": 0, "a_max": 4095}, ["grey"]),
        ("tif", [("RGB", 255)] * 3, {"a_min": 0, "a_max": 255}, ["red", "green", "blue"]),
        ("png", [("RGBA", 255), ("RGB", 255), ("RGB", 255)], {"a_min": 0, "a_max": 255}, ["red", "green", "blue"]),
        ("tif", [("F", 7.5)] * 3, {"minv": 0.0, "maxv": 1.0}, ["grey"]),
        ("png", [("L", 255), ("I;16", 60000), ("I;16", 300)], {"minv": 0.0, "maxv": 1.0}, ["grey"]),
    ],
)
def test_pictures_of_every_depth_are_scaled_to_0_to_1(ending, modes, scale, channels, place):
    write_pictures(ending, modes)
    content = planned("depth", images=f"i/{{case}}.{ending}", labels="l/{case}.png")
    assert content["data"]["channel_names"] == channels
    found = step(content, "ScaleIntensityRanged" if "a_max" in scale else "ScaleIntensityd")
    assert {key: found[key] for key in scale} == scale


def colour(path="l/0.png"):
    mask = np.array(Image.open(path))
    Image.fromarray(np.stack([mask, 0 * mask, 255 - mask], -1)).save(path)


def pages(path="i/0.tif"):
    page = Image.open(path).copy()
    page.save(path, save_all=True, append_images=[page, page])


@pytest.mark.parametrize(
    ("spoil", "labels", "message"),
    [
        (colour, "l/{case}.png", "Case 0: .*l/0.png has colours, but a label must have one value at each pixel"),
        (pages, "l/{case}.png", "Case 0: .*i/0.tif holds 3 pages or frames"),
        (
            lambda: [Image.open(f"l/{n}.png").save(f"l/{n}.jpg", quality=40) for n in range(3)],
            "l/{case}.jpg",
            "Case 0: .*l/0.jpg holds the values 0, 1.*, since JPG blurs",
        ),
        (
            lambda: Image.open("l/0.png").resize((20, 20)).save("l/0.png"),
            "l/{case}.png",
            "image and label differ in shape",
        ),
        (lambda: Path("i/1.tif").rename("i/x.tif"), "l/{case}.png", "Case '1' has no '.*i/1.tif'"),
        (
            lambda: Image.fromarray(np.arange(480, dtype=np.uint8).reshape(20, 24)).save("l/0.png"),
            "l/{case}.png",
            "The labels hold 256 values .*, as grey pictures do and masks do not",
        ),
    ],
)
def test_pictures_that_are_no_image_or_mask(spoil, labels, message, place):
    write_pictures("tif", [("L", 255)] * 3)
    spoil()
    refused(message, images="i/{case}.tif", labels=labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": "{split}/{case}.png"}, "Give either --labels"),
        ({"images": "{class}/{case}.png", "labels": "{case}.png"}, "Give either --labels"),
        ({"images": "i/{case}.tif", "labels": "l/{class}/{case}.png"}, "No file in .* matches 'l/{class}/{case}.png'"),
        (
            {"images": "i/{case}.tif", "labels": "l/{case}.png", "missing_structures": "absent"},
            r"--missing_structures needs {class}",
        ),
        ({"images": "{class}/{case}.tif"}, r"1 folder\(s\) of classes match '{class}/{case}.tif'"),
    ],
)
def test_patterns_that_say_too_little(options, message, place):
    write_pictures("tif", [("L", 255)] * 3)
    refused(message, **options)


def test_images_of_another_ending_are_said_to_be_left_out(place, capsys):
    write_pictures("tif", [("L", 255)] * 4)
    Image.open("i/3.tif").save("i/3.PNG")
    Path("i/3.tif").unlink()
    Path("l/3.png").unlink()
    planned("endings", images="i/{case}.tif", labels="l/{case}.png")
    assert "note: 1 image beside the others ends otherwise than .tif (3.PNG) and is left out" in capsys.readouterr().out


def test_a_budget_too_small_for_any_patch(place):
    write_pictures("tif", [("L", 255)] * 3)
    with pytest.raises(UserError, match="--gpu_memory 1.5 is too small for any patch"):
        planned("small", images="i/{case}.tif", labels="l/{case}.png", gpu_memory=1.5)


def test_cases_smaller_than_the_patch_and_classes_of_few_are_said(place, capsys):
    for number, size in enumerate([(96, 96, 96)] * 3 + [(96, 96, 20)]):
        label = np.zeros(size, np.uint8)
        label[4:9, 4:9, 4:9] = 1 + (number == 0)
        write_volume(place / f"i{number}.nii.gz", label.astype(np.int16) * 50 + 20)
        write_volume(place / f"l{number}.nii.gz", label)
    planned("few", images="i{case}.nii.gz", labels="l{case}.nii.gz", cpu=True, gpu_memory=None)
    out = capsys.readouterr().out
    assert "note: 1 of 4 cases are smaller than a patch along an axis, and are padded." in out
    assert "note: Only 1 case of 4 has the class class_2, so" in out


def everything(data, options, place, **overrides):
    """Check, train, predict and evaluate what was planned, without editing a line."""
    from medcalib.bundle.run import run
    from medcalib.data_check.check_data import check_data

    planned(data, cpu=True, gpu_memory=None, **options)
    bundle, _ = generate(find_templates(), place / "bundles", data, "baseline_dice_ce", "deterministic")
    assert check_data(str(bundle)).report["problems"] == []
    for mode in ("train", "inference_pred", "inference_eval"):
        run(str(bundle), mode, debug=True, overrides=overrides if mode == "inference_eval" else {})
    found = bundle / "seed_12345_debug"
    assert json.loads((found / "evaluation" / "summary.json").read_text())["mean_dice"] >= 0
    return found


@pytest.mark.slow
def test_pictures_with_palette_masks_from_end_to_end(place):
    make_palette_pictures(place / "cells")
    found = everything("cells", SPLIT, place)
    seg = next((found / "predictions").glob("*/*_seg.png"))
    assert seg.parent.name.startswith("test_")
    assert set(np.unique(np.array(Image.open(seg)))) <= {0, 1, 2}


@pytest.mark.slow
@pytest.mark.parametrize("nested", [False, True])
def test_a_file_for_each_structure_from_end_to_end(nested, place):
    make_structures(place / "total", nested=nested)
    # on the grid of the files, all of them are read once more
    found = everything("total", STRUCTURES, place, **{"evaluation::space": "original"})
    summary = json.loads((found / "evaluation" / "summary.json").read_text())
    assert set(summary["per_class"]["mean_dice"]) >= {"aorta", "cyst", "liver"}
    assert summary["provenance"]["activation"] == ("sigmoid" if nested else "softmax")
