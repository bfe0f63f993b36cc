"""Images of no dataset through a trained bundle that classifies: the numbers of test images, flags, going on."""

import ast
import json
import re
import shlex
import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
from monai.bundle import run as monai_run
from PIL import Image
from tests.bundle.test_classification import CLASSES, SIZES, SMALL_NETWORK
from tests.conftest import TEMPLATES

from medcalib.bundle.compose import generate
from medcalib.bundle.layout import Mode
from medcalib.bundle.run import run
from medcalib.data import phantom_cells_cases
from medcalib.errors import UserError
from medcalib.export import export

CASE, OTHER = 0, 1


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A bundle with test-time augmentation, its dataset and the options of its training that are no data."""
    folder = tmp_path_factory.mktemp("classifies")
    data = {"data::dataset_dir": str(folder / "cells"), **{f"data::cases::{name}": n for name, n in SIZES.items()}}
    bundle = generate(TEMPLATES, folder / "bundles", "phantom_cells", "baseline_ce", "tta")[0]
    for mode in Mode:
        run(str(bundle), mode, overrides={**data, **SMALL_NETWORK, "data::batch_size": 8, "data::max_epochs": 2})
    return bundle, phantom_cells_cases(folder / "cells", **SIZES)["test"]


@pytest.fixture(scope="module")
def images(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    picture = Image.open(trained[1][CASE]["image"])
    for name in ("a.png", "b.tif", "c.bmp"):
        picture.save(folder / name)
    shutil.copyfile(trained[1][OTHER]["image"], folder / "other.png")
    return folder


@pytest.fixture(scope="module")
def predicted(trained, images, tmp_path_factory):
    output = tmp_path_factory.mktemp("out") / "new"
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        run(
            str(trained[0]), "inference_pred", images=str(images), overrides=SMALL_NETWORK | {"output_dir": str(output)}
        )
    return output


def test_rows_hold_what_the_table_of_the_test_images_holds(trained, predicted):
    table = pd.read_csv(predicted / "predictions.csv").set_index("case")
    assert list(table.index) == ["a", "b", "c", "other"]
    expected = pd.read_csv(trained[0] / "seed_12345" / "predictions" / "predictions.csv").set_index("case")
    cases = [trained[1][CASE]["case"]] * 3 + [trained[1][OTHER]["case"]]
    assert {"mutual_information", "variance", "entropy", "sample_mean_uncertainty"} < set(expected)
    for column in expected:
        wanted = expected.loc[cases, column].to_numpy()
        if column == "predicted":
            assert table[column].tolist() == wanted.tolist()
        else:
            np.testing.assert_allclose(table[column], wanted, rtol=1e-4, atol=1e-7, err_msg=column)
    np.testing.assert_allclose(table["confidence"], table[[f"probability_{name}" for name in CLASSES]].max(axis=1))
    assert table["warning"].isna().all()


def test_an_exported_classifier_gives_the_same_table(trained, images, predicted, tmp_path, monkeypatch):
    """The command of its README, with the flags of the evaluation that it brings along."""
    folder = export(trained[0], "bundle", output=tmp_path)
    (command,) = re.findall(
        r"^    (python -m monai.bundle run .*images.yaml.*)$", (folder / "README.md").read_text(), re.M
    )
    words = shlex.split(command.replace("--images <folder>", "--images @ --output_dir").partition(" --output_dir")[0])
    assert words[:5] == ["python", "-m", "monai.bundle", "run", "--config_file"]
    assert words[6:] == ["--images", "@"]
    monkeypatch.chdir(folder)
    monai_run(config_file=ast.literal_eval(words[5]), images=str(images), output_dir=str(tmp_path / "new"))
    table = pd.read_csv(tmp_path / "new" / "predictions.csv")
    pd.testing.assert_frame_equal(table, pd.read_csv(predicted / "predictions.csv"))
    assert table["flagged"].notna().all()


def test_the_threshold_lets_few_wrong_test_images_pass(trained, predicted):
    scored = pd.read_csv(trained[0] / "seed_12345" / "evaluation" / "cases.csv")
    passing = [
        limit
        for limit in scored["entropy"]
        if ((scored["entropy"] <= limit) & (scored["correct"] == 0)).sum() <= 0.05 * len(scored)
    ]
    threshold = max(passing, default=-np.inf)
    for row in pd.read_csv(predicted / "predictions.csv").to_dict("records"):
        assert row["flagged"] == (row["entropy"] > threshold)
        assert row["reason"].startswith("entropy ")


def test_a_run_goes_on_and_says_what_is_unlike_the_training(trained, images, predicted, tmp_path, capsys):
    output, folder = tmp_path / "new", tmp_path / "pictures"
    shutil.copytree(predicted, output)
    shutil.rmtree(output / "b")
    shutil.copytree(images, folder)
    Image.new("RGB", (600, 400), (5, 5, 5)).save(folder / "z.png")
    options = SMALL_NETWORK | {"output_dir": str(output)}
    with pytest.warns(UserWarning, match="Case z is unlike the images of the training: size 600 along axis 0"):
        run(str(trained[0]), "inference_pred", images=str(folder), overrides=options)
    assert "2 case(s) predicted, 3 were there." in capsys.readouterr().out
    table = pd.read_csv(output / "predictions.csv")
    assert table["case"].tolist() == ["a", "b", "c", "other", "z"]
    before = pd.read_csv(predicted / "predictions.csv").drop(columns=["image", "warning"])
    pd.testing.assert_frame_equal(table.loc[:3, before.columns], before, rtol=1e-5)
    assert json.loads((output / "z" / "z.json").read_text())["row"]["warning"].startswith("size 600")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"flagging_rule::score": "entropie"},
            "flagging_rule::score is 'entropie', which .* lacks; did you mean entropy",
        ),
        ({"flagging_rule::max_wrong": 5}, "flagging_rule::max_wrong must be a fraction"),
    ],
)
def test_rules_that_cannot_be_are_refused(trained, images, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        run(
            str(trained[0]),
            "inference_pred",
            images=str(images),
            overrides=SMALL_NETWORK | {"output_dir": str(tmp_path / "out")} | options,
        )
    assert not (tmp_path / "out").exists()


def test_a_grey_picture_is_refused(trained, tmp_path):
    Image.new("L", (64, 64)).save(tmp_path / "grey.png")
    with pytest.raises(UserError, match=r"Case grey: .* has 1 channel\(s\), but data::channel_names lists 3"):
        run(
            str(trained[0]),
            "inference_pred",
            images=str(tmp_path / "grey.png"),
            overrides=SMALL_NETWORK | {"output_dir": str(tmp_path / "out")},
        )
