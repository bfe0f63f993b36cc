"""Test cases whose images are made worse: which images, where results go, what is recorded, what is refused."""

import hashlib
import json

import pytest
import torch

from medcalib.bundle.layout import Mode
from medcalib.bundle.opened import Bundle
from medcalib.bundle.run import run
from medcalib.bundle.shifted_cases import check_takes_corruption, shifted_folder
from medcalib.compare import compare, read_evaluation
from medcalib.errors import UserError
from medcalib.transforms import corrupt

NOISE = {"data::corruption": "noise", "data::corruption_level": 4}


@pytest.fixture(scope="module")
def shifted(trained, tiny):
    """The trained bundle, evaluated and used on noisy images; its files before, by their digests."""
    before = digests(trained / "seed_12345")
    for mode in ("inference_eval", "inference_pred"):
        run(str(trained), mode, overrides={**tiny, **NOISE})
    return trained, before


def digests(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def images(bundle, tiny, mode=Mode.INFERENCE_EVAL, name="dataset", **workflow):
    dataset = Bundle.open(bundle).workflow(mode, **workflow).parser.get_parsed_content(name)
    return [dataset[index] for index in range(len(dataset))]


def test_results_lie_apart_and_earlier_ones_stay_as_they_are(shifted):
    bundle, before = shifted
    seed = bundle / "seed_12345"
    after = digests(seed)
    assert {path: after[path] for path in before} == before
    assert {path.partition("/")[0] for path in after.keys() - before.keys()} == {"shifted"}
    folder = seed / shifted_folder("noise", 4)
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == [
        "configs", "cost", "evaluation", "predictions",
    ]  # fmt: skip
    assert not Bundle.open(bundle).edited


def test_what_was_done_is_recorded(shifted):
    folder = shifted[0] / "seed_12345" / "shifted" / "noise_4"
    for path in (folder / "evaluation" / "provenance.json", folder / "predictions" / "provenance.json"):
        assert json.loads(path.read_text())["corruption"] == {"kind": "noise", "level": 4, "strength": 0.55}
    assert "corruption" not in json.loads((shifted[0] / "seed_12345/evaluation/provenance.json").read_text())


def test_thresholds_are_those_of_calibration_cases_as_they_are(shifted):
    plain, worse = (
        json.loads((shifted[0] / "seed_12345" / place / "evaluation" / "quality_control.json").read_text())
        for place in ("", "shifted/noise_4")
    )
    found = [
        {
            name: {key: value for key, value in score["threshold"].items() if key == "value" or "calibration" in key}
            for name, score in one["scores"].items()
        }
        for one in (plain, worse)
    ]
    assert found[0] == found[1]
    assert found[0]["entropy_image_mean"]["calibration_cases"] > 0
    assert plain != worse


def test_noisy_and_plain_evaluations_cannot_be_compared(shifted):
    seed = shifted[0] / "seed_12345"
    both = {name: [read_evaluation(seed / place / "evaluation")] for name, place in (("a", ""), ("b", "shifted/noise_4"))}
    with pytest.raises(UserError, match="corruption is none in the first and noise of level 4"):
        compare(both, "a", num_samples=99)


def test_images_are_corrupted_and_labels_are_not(trained, tiny):
    for mode in (Mode.INFERENCE_EVAL, Mode.INFERENCE_PRED):
        plain = images(trained, tiny, mode, overrides=tiny)
        worse = images(trained, tiny, mode, overrides={**tiny, **NOISE})
        for one, other in zip(plain, worse, strict=True):
            expected = corrupt(one["image"], "noise", 4, 12345, [1.0, 1.0, 1.0], one["case"])
            assert torch.equal(other["image"].as_tensor(), expected)
            assert ("label" in other) == (mode is Mode.INFERENCE_EVAL)
            assert "label" not in one or torch.equal(one["label"], other["label"])
            assert torch.equal(one["image"].affine, other["image"].affine)


def test_every_method_sees_the_same_images(trained, make_bundle, tiny, tmp_path):
    others = [make_bundle(tmp_path, "phantom", "focal", "tta"), make_bundle(tmp_path, method="temperature_scaling")]
    data = {id_: value for id_, value in tiny.items() if id_.startswith("data::")}
    seen = [images(bundle, tiny, overrides={**data, **NOISE}) for bundle in (trained, *others)]
    for cases in zip(*seen, strict=True):
        assert all(torch.equal(case["image"], cases[0]["image"]) for case in cases)
    other_seed = images(trained, tiny, overrides={**tiny, **NOISE}, seed=7)
    assert not torch.equal(other_seed[0]["image"], seen[0][0]["image"])


def test_calibration_cases_are_never_corrupted(trained, tiny):
    plain, worse = (
        images(trained, tiny, name="calibration_dataset", overrides={**tiny, **more}) for more in ({}, NOISE)
    )
    assert all(torch.equal(one["image"], other["image"]) for one, other in zip(plain, worse, strict=True))


def test_output_dir_is_still_that_of_the_seed(trained, tiny, tmp_path):
    given = {**tiny, **NOISE, "output_dir": str(tmp_path / "mine")}
    parser = Bundle.open(trained).workflow(Mode.INFERENCE_EVAL, given).parser
    assert parser.get_parsed_content("results_dir") == str(tmp_path / "mine" / "shifted" / "noise_4")
    assert parser.get_parsed_content("models_dir") == str(tmp_path / "mine" / "models")
    assert str(parser.get_parsed_content("result_folder::path")).endswith("mine/shifted/noise_4/evaluation")


@pytest.mark.parametrize("data", ["phantom_cells", "isic16", "brats18", "amos22"])
def test_any_data_fragment_takes_it(data, make_bundle, tmp_path):
    bundle = Bundle.open(make_bundle(tmp_path, data, "baseline_ce"))
    for mode in (Mode.INFERENCE_EVAL, Mode.INFERENCE_PRED):
        parser = bundle.workflow(mode, {"data::corruption": "blur"}).parser
        assert parser.get_parsed_content("corrupt").settings == {"kind": "blur", "level": 3, "strength": 1.0}


def test_a_bundle_that_cannot_take_it_says_so(bundle):
    config = Bundle.open(bundle).config(Mode.INFERENCE_EVAL)
    check_takes_corruption(config, "this")
    del config["weights_check"]
    with pytest.raises(UserError, match="this was generated by an earlier version and has no weights_check::purpose"):
        check_takes_corruption(config, "this")


@pytest.mark.parametrize(
    ("mode", "given", "told"),
    [
        ("train", NOISE, "leaves those of training, validation and calibration as they are"),
        ("train", {"data::corruption_level": 2}, "leave it out of --mode train"),
        ("inference_eval", {"data::corruption": "nois"}, "did you mean noise?"),
        ("inference_eval", {"data::corruption": None}, "leave it out for images as they are"),
        ("inference_eval", {"data::corruption_level": 2}, "add --data::corruption="),
        ("inference_eval", {**NOISE, "data::corruption_level": 0}, "1 to 5, not 0"),
        ("inference_eval", {**NOISE, "data::corruption_level": 6}, "1 to 5, not 6"),
        ("inference_eval", {**NOISE, "data::corruption_level": True}, "1 to 5, not True"),
        ("inference_pred", {**NOISE, "data::corruptoin_level": 1}, "did you mean data::corruption_level"),
        ("inference_eval", {"data::corruptions": "noise"}, "did you mean data::corruption"),
    ],
)
def test_what_cannot_be_is_one_sentence(bundle, mode, given, told):
    with pytest.raises(UserError) as error:
        run(str(bundle), mode, overrides=given)
    assert told in str(error.value)
    assert not list(bundle.glob("seed_*"))


def test_images_of_no_dataset_are_not_corrupted(bundle):
    with pytest.raises(UserError, match="--images belong to none"):
        run(str(bundle), "inference_pred", overrides=NOISE, images="somewhere")
