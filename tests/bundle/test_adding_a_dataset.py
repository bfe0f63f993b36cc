"""What docs/adding_a_dataset.md shows works as it stands there."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from tests.conftest import REPOSITORY, TEMPLATES
from tests.data.layouts import blobs, everyone, names, scan, write_volume
from tests.data.layouts_2d import ellipse, write_table

from medcalib.bundle.compose import generate
from medcalib.bundle.fragments import read_yaml
from medcalib.bundle.run import run

PAGE = (REPOSITORY / "docs" / "adding_a_dataset.md").read_text()
TINY = {"network::init_filters": 4, "network::blocks_down": [1, 1], "network::dsdepth": 1}
IDS = ["007", "a b", "a.b", *(f"knee{number}" for number in range(7))]


def examples(heading, language="yaml"):
    """The blocks of a section, the first of the page when it is None."""
    section = PAGE if heading is None else re.split(r"^## ", PAGE.split(f"\n## {heading}\n")[1], flags=re.M)[0]
    return re.findall(rf"```{language}\n(.*?)```", section, flags=re.S)


def merged(base, change):
    """A fragment with what another one changes; lists are replaced."""
    result = dict(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict) and "_target_" not in value
        result[key] = merged(result[key], value) if both else value
    return result


def fragment(*headings):
    result = yaml.safe_load(examples(None)[0])
    for heading in headings:
        result = merged(result, yaml.safe_load(examples(heading)[0]))
    return result


@pytest.fixture
def results(tmp_path):
    """The evaluation of a bundle with a fragment."""

    def evaluate(content, dataset_dir, modes=("train", "inference_eval"), **settings):
        templates = shutil.copytree(TEMPLATES, tmp_path / "bundle_templates")
        (templates / "configs" / "data" / "knees.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        bundle = generate(templates, tmp_path / "bundles", "knees", "baseline_ce", "deterministic")[0]
        for mode in modes:
            run(str(bundle), mode, debug=True, overrides=settings | {"data::dataset_dir": str(dataset_dir)})
        return bundle / "seed_12345_debug" / "evaluation"

    return evaluate


def make_knees(folder, image="images/{}.nii.gz", label="labels/{}.nii.gz", shape=(12, 12, 8)):
    rng = np.random.default_rng(0)
    for name in IDS:
        truth = blobs(rng, shape, (1, 2))
        for pattern in image if isinstance(image, list) else [image]:
            write_volume(folder / pattern.format(name, name), scan(rng, truth), (0.5, 0.5, 1.0))
        write_volume(folder / label.format(name, name), truth, (0.5, 0.5, 1.0))
    rows = [[name, f"p{place // 2}", "AB"[place % 2], place % 3] for place, name in enumerate(IDS)]
    write_table(folder / "cases.csv", ("case", "patient", "vendor", "centre"), rows)
    return folder


PATCH = {"data::patch_size": [8, 8, 8]}


@pytest.mark.slow
def test_prepared_cases_on_disk(results, tmp_path):
    content, knees = fragment("Memory and time"), make_knees(tmp_path / "knees")
    results(content, knees, modes=("train",), data_dir=str(tmp_path), **TINY, **PATCH)
    assert len(list((tmp_path / "cache" / "knees").glob("*.pt"))) == 3 + 1


@pytest.mark.slow
def test_the_whole_example(results, tmp_path):
    evaluation = results(fragment(), make_knees(tmp_path / "knees"), **TINY, **PATCH)
    summary = json.loads((evaluation / "summary.json").read_text())
    assert list(summary["per_class"]["mean_dice"]) == ["femur", "cartilage"]


@pytest.mark.slow
def test_channels_groups_attributes_folds_regions_and_a_region_of_interest(results, tmp_path):
    data = make_knees(tmp_path / "knees", ["{}/{}_t1.nii.gz", "{}/{}_t2.nii.gz"], "{}/{}_seg.nii.gz")
    content = fragment("Cases", "Overlapping regions", "Region of interest")
    evaluation = results(content, data, **TINY, **PATCH, **{"data::fold": 1})
    summary = json.loads((evaluation / "summary.json").read_text())
    assert list(summary["per_class"]["mean_dice"]) == ["cartilage", "knee"]
    assert summary["strata"].keys() == {"vendor", "centre"}
    cases = pd.read_csv(evaluation / "cases.csv", dtype=str)
    assert set(cases["filename"]) <= set(IDS)
    assert list(cases.columns[1:3]) == ["vendor", "centre"]
    counts = np.load(evaluation / "bin_statistics.npz")["counts"].sum(-1)
    assert (counts > 0).all()
    assert (counts < 12 * 12 * 8).all()


@pytest.mark.slow
def test_labels_that_overlap(results, tmp_path):
    section = yaml.safe_load(examples("Labels that overlap, and binary tasks")[0])
    section["data"]["preprocessing"] = fragment()["data"]["preprocessing"] + section["data"]["preprocessing"]
    evaluation = results(merged(fragment(), section), make_knees(tmp_path / "knees"), **TINY, **PATCH)
    summary = json.loads((evaluation / "summary.json").read_text())
    assert list(summary["per_class"]["mean_dice"]) == ["cartilage", "knee"]


@pytest.fixture
def pictures(tmp_path):
    """Images in colour with masks of 0 and 255, and a table with a class for each."""
    folder = tmp_path / "pictures"
    rng = np.random.default_rng(0)
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for name in IDS:
        mask = ellipse(rng, (20, 24))
        skin = np.where(mask[..., None], (120, 70, 60), (225, 180, 160)) + rng.normal(0, 6, (20, 24, 3))
        Image.fromarray(skin.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"{name}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "labels" / f"{name}.png")
    rows = [[name, ("femur", "cartilage")[place % 2]] for place, name in enumerate(IDS)]
    write_table(folder / "cases.csv", ("case", "kind"), rows)
    return folder


@pytest.mark.slow
def test_pictures(results, pictures, tmp_path):
    content = fragment("Pictures")
    content["data"]["class_names"] = ["background", "lesion"]
    content["data"]["cases"] |= {"image": "images/{case}.png", "label": "labels/{case}.png"}
    content["data"]["preprocessing"] = content["data"]["preprocessing"][2:]
    evaluation = results(
        content,
        pictures,
        ("train", "inference_pred", "inference_eval"),
        **TINY,
        **{"data::patch_size": [16, 16], "data::cases::test_fraction": 0.5},
    )
    predicted = {path.name for path in (evaluation.parent / "predictions").iterdir() if path.is_dir()}
    assert len(predicted) == 3
    for name in predicted:
        with Image.open(evaluation.parent / "predictions" / name / f"{name}_seg.png") as picture:
            assert picture.size == (24, 20)


@pytest.mark.slow
def test_classification(results, pictures):
    content = read_yaml(TEMPLATES / "configs" / "data" / "phantom_cells.yaml")
    content["data"] |= {"class_names": ["femur", "cartilage"]}
    resize = {"_target_": "monai.transforms.Resized", "keys": "image", "spatial_size": "@data::patch_size"}
    content["data"]["preprocessing"].insert(0, resize)
    content["data"]["cases"] = {
        "_target_": "medcalib.data.pattern_cases",
        "dataset_dir": "@data::dataset_dir",
        "image": "images/{case}.png",
        "table": "cases.csv",
        "class_column": "kind",
        "class_names": "@data::class_names",
        "test_fraction": 0.5,
    }
    evaluation = results(content, pictures)
    assert json.loads((evaluation / "summary.json").read_text())["num_cases"] == 3


def test_a_function_of_ones_own(tmp_path):
    for part in ("train", "test"):
        make_knees(tmp_path / part, *(f"{kind}/{part}_{{}}.nii.gz" for kind in ("images", "labels")))
    space = {}
    exec(examples("Cases", "python")[0], space)
    split = space["knee_cases"](tmp_path)
    assert names(split["test"]) == sorted(f"test_{name}" for name in IDS)
    assert names(split["training"] + split["validation"]) == sorted(f"train_{name}" for name in IDS)
    assert all(case["attributes"] == {"vendor": "unknown"} for case in everyone(split))
