"""A dataset becomes a fragment that passes its contract, whatever layout it has; what cannot be used is named."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from tests.data.layouts import make_hippocampus
from tests.data.layouts_2d import write_table
from tests.planning.made_datasets import ORGANS, as_nnunet, describe_decathlon, make_abdomen, make_pictures

from medcalib.bundle.compose import generate
from medcalib.bundle.fragments import FragmentKind, fragment_names
from medcalib.bundle.templates import find_templates
from medcalib.cli.verb_new_data import main
from medcalib.errors import UserError

CONFIGS = find_templates() / "configs"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Everything is written below the current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    describe_decathlon(make_hippocampus(folder / "Task04_Hippocampus"))
    as_nnunet(folder / "Task04_Hippocampus", folder / "nnUNet_raw" / "Dataset004_Hippocampus", {"0": "MRI"})
    make_abdomen(folder / "Dataset010_Abdomen")
    make_pictures(folder / "skin")
    return folder


@pytest.fixture
def copied(made, tmp_path):
    """A copy of a dataset that may be spoilt."""
    return lambda name: shutil.copytree(made / name, tmp_path / name)


def planned(**options):
    main(output_dir="data_fragments", num_workers=0, **({"gpu_memory": 8} | options))
    return yaml.safe_load(newest().read_text())


def newest():
    return max(Path("data_fragments").glob("*.yaml"), key=lambda path: path.stat().st_mtime_ns)


def step(content, name, part="preprocessing"):
    found = [one for one in content["data"][part] if one["_target_"].endswith(f".{name}")]
    assert len(found) == 1, f"{len(found)} of {name}"
    return found[0]


def test_the_same_cases_in_two_layouts_get_the_same_plan(made):
    decathlon = planned(decathlon=str(made / "Task04_Hippocampus"), name="one")
    nnunet = planned(nnunet=str(made / "nnUNet_raw" / "Dataset004_Hippocampus"), name="other")
    for content in (decathlon, nnunet):
        for key in ("dataset_dir", "metadata"):
            content["data"].pop(key)
        content["data"]["cases"].pop("_target_")
    assert decathlon == nnunet
    assert decathlon["data"]["class_names"] == ["background", "Anterior", "Posterior"]
    assert decathlon["data"]["tta_flip_axes"] == [0, 2]
    assert decathlon["data"]["patch_size"] == [12, 14, 12]


def test_what_a_cpu_has_time_for(made):
    content = planned(decathlon=str(made / "Task04_Hippocampus"), name="brief", gpu_memory=None, cpu=True)
    data = content["data"]
    flipped = [one["spatial_axis"] for one in data["augmentation"] if one["_target_"].endswith("RandFlipd")]
    assert flipped == data["tta_flip_axes"] == [0]
    assert data["networks"]["segresnet_ds"]["norm"] == ("batch" if data["batch_size"] >= 4 else "instance")


def test_ct_with_thick_slices_and_paired_organs(made, capsys):
    content = planned(nnunet=str(made / "Dataset010_Abdomen"))
    data = content["data"]
    assert data["class_names"] == ["background", *ORGANS]
    assert step(content, "Spacingd")["pixdim"] == [0.8, 0.8, 5.0]
    window = step(content, "ScaleIntensityRanged")
    assert window["clip"] is True
    assert -1000 <= window["a_min"] < window["a_max"]
    assert window["b_min"] < 0 < window["b_max"]
    flipped = [one["spatial_axis"] for one in data["augmentation"] if one["_target_"].endswith("RandFlipd")]
    assert flipped == data["tta_flip_axes"] == [1, 2]
    # slices are turned in their plane alone
    assert step(content, "RandAffined", "augmentation")["rotate_range"] == [0.0, 0.0, 0.5]
    assert data["networks"]["segresnet_ds"]["resolution"][2] > 1
    assert data["metadata"]["format"] == "hounsfield"
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == "data_fragments/abdomen.yaml"
    text = newest().read_text()
    assert "# not along axis 0, since right_kidney is named after a side" in text
    assert max(map(len, text.splitlines())) <= 120
    assert "abdomen" in fragment_names(CONFIGS, FragmentKind.DATA)


def test_colour_pictures(made):
    patterns = {"images": f"{made}/skin/pictures/{{case}}.png", "labels": f"{made}/skin/masks/{{case}}.png"}
    content = planned(**patterns, name="skin")
    data = content["data"]
    assert data["dataset_dir"] == str(made / "skin")
    assert (data["cases"]["image"], data["cases"]["label"]) == ("pictures/{case}.png", "masks/{case}.png")
    assert data["channel_names"] == ["red", "green", "blue"]
    assert data["class_names"] == ["background", "foreground"]
    assert data["label_map"] == {255: 1}
    assert data["tta_flip_axes"] == [0, 1]
    assert len(data["patch_size"]) == 2
    assert content["load_case::_target_"] == "medcalib.transforms.LoadPictured"
    assert (step(content, "ScaleIntensityRanged")["a_max"], data["metadata"]["data_type"]) == (255, "png")


def test_classes_of_whole_images_by_a_table_that_divides_them(made, tmp_path):
    parts = [*["train"] * 5, "val", "test", "test"]
    rows = [[f"p{n}", ["benign", "malign"][n % 2], part] for n, part in enumerate(parts)]
    write_table(tmp_path / "cases.csv", ("case", "finding", "part"), rows)
    shutil.copytree(made / "skin" / "pictures", tmp_path / "pictures")
    columns = {"table": "cases.csv", "class_column": "finding", "split_column": "part"}
    content = planned(images="pictures/{case}.png", cpu=True, gpu_memory=None, name="findings", **columns)
    data = content["data"]
    assert (data["task"], data["class_names"]) == ("classification", ["benign", "malign"])
    assert data["cases"]["split_column"] == "part"
    assert "test_fraction" not in data["cases"]
    assert data["patch_size"] == [32, 64]
    bundle, _ = generate(find_templates(), tmp_path / "bundles", "findings", "baseline_ce", "deterministic")
    assert (bundle / "configs" / "data.yaml").read_text() == newest().read_text()


def test_labels_that_do_not_count_up_are_mapped_and_regions_kept(copied):
    folder = copied("nnUNet_raw/Dataset004_Hippocampus")
    change(folder, labels={"background": 0, "whole": [1, 2], "Posterior": 2}, regions_class_order=[1, 2])
    data = planned(nnunet=str(folder), name="regions")["data"]
    assert (data["class_names"], data["evaluate"]) == (["background", "label_1", "Posterior"], "regions")
    assert data["regions"] == {"whole": [1, 2], "Posterior": [2]}


def test_folds_of_nnunet(copied):
    folder = copied("nnUNet_raw/Dataset004_Hippocampus")
    names = [f"hippocampus_{n:03}" for n in range(1, 11)]
    folds = [{"train": names[:n] + names[n + 2 :], "val": names[n : n + 2]} for n in range(0, 10, 2)]
    preprocessed = folder.parent.parent / "nnUNet_preprocessed" / folder.name
    preprocessed.mkdir(parents=True)
    (preprocessed / "splits_final.json").write_text(json.dumps(folds))
    data = planned(nnunet=str(folder), fold=2)["data"]
    assert (data["fold"], data["cases"]["fold"]) == (2, "@data::fold")
    assert data["cases"]["splits"].endswith("splits_final.json")


def test_a_report_says_what_is_there_and_why_it_was_chosen(made, capsys):
    planned(decathlon=str(made / "Task04_Hippocampus"), report_dir="report")
    report = json.loads(Path("report/report.json").read_text())
    assert report["num_cases"] == 10
    assert report["classes"]["Anterior"]["smallest_object"] == 75
    assert report["plan"]["max_epochs"] == {"value": 1250, "reason": report["plan"]["max_epochs"]["reason"]}
    page = Path("report/report.md").read_text()
    assert "| Anterior | 1 | 10 |" in page
    # once more: nothing is measured, and nothing overwritten
    assert newest().stem == "hippocampus_2"
    with pytest.raises(UserError, match="called hippocampus_2 already, .* --name, such as hippocampus_2_2"):
        main(decathlon=str(made / "Task04_Hippocampus"), cpu=True, name="hippocampus_2")
    capsys.readouterr()
    planned(decathlon=str(made / "Task04_Hippocampus"), report_dir="report", name="again")
    assert "10 of 10 cases were measured before." in capsys.readouterr().out


def change(folder, **changes):
    content = json.loads((folder / "dataset.json").read_text()) | changes
    (folder / "dataset.json").write_text(json.dumps(content))


def test_what_a_user_should_look_at_is_said(copied, capsys):
    folder = copied("Task04_Hippocampus")
    change(folder, labels={"0": "background", "1": "Anterior", "2": "Posterior", "3": "never"})
    (folder / "imagesTs").mkdir()
    shutil.copy(folder / "imagesTr" / "hippocampus_001.nii.gz", folder / "imagesTs" / "hippocampus_099.nii.gz")
    planned(decathlon=str(folder), name="noted")
    out = capsys.readouterr().out
    assert "note: No case has the class never" in out
    assert "note: 1 image of imagesTs without a label (hippocampus_099) left out" in out


def test_images_without_label_are_left_out_of_patterns(copied, capsys):
    folder = copied("skin")
    (folder / "masks" / "p3.png").unlink()
    content = planned(images="skin/pictures/{case}.png", labels="skin/masks/{case}.png", name="some")
    assert content["data"]["cases"]["skip_unlabelled"] is True
    assert "note: 1 image without a label (p3) left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs one of --nnunet, --decathlon and --images"),
        ({"nnunet": "a", "decathlon": "b"}, "not --nnunet and --decathlon"),
        ({"nnunet": "nowhere"}, "folder 'nowhere' does not exist"),
        ({"nnunet": "a", "cpu": True, "gpu_memory": 8}, "exclude each other"),
        ({"nnunet": "a", "gpu_memory": -1}, "--gpu_memory is -1"),
        ({"nnunet": "a", "gpu_memory": "24GB"}, "--gpu_memory is 24GB"),
        ({"nnunet": "a", "fold": 0.5}, "--fold is 0.5"),
        ({"images": "{case}.png", "labels": "{case}_m.png", "lists": "a.txt"}, "--lists must be files by part"),
        ({"nnunet": "a", "labels": "b"}, "--labels means nothing beside --nnunet"),
        ({"decathlon": "a", "fold": 1}, "--fold needs folds, which a task of the Decathlon has by --table"),
        ({"images": "a/{case}.png"}, "Give either --labels"),
        ({"images": "a/{case}.png", "class_column": "c"}, "--class_column needs --table"),
        ({"images": "a/x.png", "labels": "b/{case}.png"}, "The pattern 'a/x.png' lacks {case}"),
        ({"nnunet": "a", "name": "a/b"}, "cannot be called 'a/b'"),
        ({"nnunet": "a", "name": "phantom"}, "a data fragment called phantom already"),
    ],
)
def test_options_that_cannot_be(options, message, place):
    with pytest.raises(UserError, match=message):
        main(**options)
    assert not any(place.iterdir())


def test_the_other_option_is_named_where_the_layout_is_another(made):
    with pytest.raises(UserError, match="give --decathlon, not --nnunet"):
        main(nnunet=str(made / "Task04_Hippocampus"), cpu=True)
    with pytest.raises(UserError, match="give --nnunet instead of --decathlon"):
        main(decathlon=str(made / "Dataset010_Abdomen"), cpu=True)


def spoilt_value(folder):
    path = folder / "labelsTr" / "hippocampus_004.nii.gz"
    label = nib.load(path)
    values = np.asarray(label.dataobj).copy()
    values[0, 0, 0] = 7
    nib.save(nib.Nifti1Image(values, label.affine, label.header), path)


def one_case(folder):
    for kind in ("imagesTr", "labelsTr"):
        for number in range(2, 11):
            (folder / kind / f"hippocampus_{number:03}.nii.gz").unlink()
    describe_decathlon(folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: change(folder, training=[]), "contradicts the files of case 'hippocampus_001'"),
        (lambda folder: (folder / "dataset.json").write_text("{"), "dataset.json is damaged"),
        (lambda folder: change(folder, labels={"0": "background"}), "no label beside the background"),
        (lambda folder: change(folder, modality={"0": "T1", "1": "T2"}), "have 1 channel.*, but 2 are named"),
        (spoilt_value, "Case hippocampus_004: .* holds the label 7, which .*dataset.json lacks"),
        (one_case, "has 1 labelled case, but"),
        (lambda folder: (folder / "labelsTr" / "hippocampus_003.nii.gz").unlink(), "'hippocampus_003' has no"),
    ],
)
def test_data_that_cannot_be_used_is_one_sentence_and_leaves_no_fragment(spoil, message, copied, place):
    folder = copied("Task04_Hippocampus")
    spoil(folder)
    with pytest.raises(UserError, match=message) as caught:
        main(decathlon=str(folder), output_dir="data_fragments", cpu=True, num_workers=0)
    assert str(caught.value).count(". ") == 0
    assert not (place / "data_fragments").exists()
    assert not list(place.glob("data_reports/*/report.*"))


@pytest.mark.slow
def test_a_dataset_is_checked_trained_predicted_and_evaluated_as_it_was_planned(made, tmp_path):
    from medcalib.bundle.run import run
    from medcalib.data_check.check_data import check_data

    planned(nnunet=str(made / "Dataset010_Abdomen"), cpu=True, gpu_memory=None)
    bundle, _ = generate(find_templates(), tmp_path / "bundles", "abdomen", "baseline_dice_ce", "deterministic")
    assert check_data(str(bundle)).report["problems"] == []
    for mode in ("train", "inference_pred", "inference_eval"):
        run(str(bundle), mode, debug=True)
    assert (bundle / "seed_12345_debug" / "evaluation" / "summary.json").exists()


def test_several_raters_are_found_by_a_pattern(made, tmp_path, capsys):
    """One of them sees a class that the others do not."""
    root = tmp_path / "rated"
    (root / "labels").mkdir(parents=True)
    source = made / "Task04_Hippocampus"
    shutil.copytree(source / "imagesTr", root / "images")
    for file in sorted((source / "labelsTr").glob("[!.]*.nii.gz")):
        name = file.name.removesuffix(".nii.gz")
        label = nib.load(file)
        values = np.asarray(label.dataobj).astype(np.uint8)
        shutil.copyfile(file, root / "labels" / f"{name}_ann.nii.gz")
        for rater, drawn in (("bob", np.minimum(values, 1)), ("eve", np.minimum(np.roll(values, 1, 0), 1))):
            nib.save(nib.Nifti1Image(drawn, label.affine), root / "labels" / f"{name}_{rater}.nii.gz")
    content = planned(
        images="rated/images/{case}.nii.gz",
        labels="rated/labels/{case}_{rater}.nii.gz",
        class_names="background,Anterior,Posterior",
        name="rated",
    )
    assert content["data"]["label_type"] == "raters"
    assert content["data"]["cases"]["label"] == "labels/{case}_{rater}.nii.gz"
    assert content["data"]["class_names"] == ["background", "Anterior", "Posterior"]
    assert "3 raters labelled" in capsys.readouterr().out
