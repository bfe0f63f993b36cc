"""Every method fragment from training to evaluation on a small phantom."""

import json
import math
import re
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from tests.conftest import PHANTOM_SIZE, TEMPLATES

from medcalib.bundle.bundle_metadata import read_metadata
from medcalib.bundle.checkpoint_paths import member_seeds
from medcalib.bundle.compose import generate
from medcalib.bundle.fragments import FragmentKind, fragment_names
from medcalib.bundle.layout import Mode
from medcalib.bundle.opened import Bundle
from medcalib.bundle.run import run
from medcalib.data import phantom_cases
from medcalib.errors import UserError
from medcalib.handlers.checkpoint import finished_epochs
from medcalib.handlers.training_record import read_record

METHODS = fragment_names(TEMPLATES / "configs", FragmentKind.METHOD)
MAPS = ("prob", "seg", "entropy")
OF_MEMBERS = ("mutual_information", "variance")
SETTINGS = {
    "mc_dropout": {"method::sampler::num_members": 3},
    "mc_dropout_center": {"method::sampler::num_members": 3},
    "mc_dropout_decoder": {"method::sampler::num_members": 3},
    "tta": {"method::sampler::flip_axes": [0]},
    "deep_ensemble": {"method::num_networks": 2},
    "tta_deep_ensemble": {"method::num_networks": 2, "method::sampler::flip_axes": [0]},
    "checkpoint_ensemble": {"method::num_networks": 2},
    "multi_head": {"method_network::num_heads": 3},
}
MEMBERS = {
    "deterministic": 1,
    "mc_dropout": 3,
    "mc_dropout_center": 3,
    "mc_dropout_decoder": 3,
    "tta": 2,
    "deep_ensemble": 2,
    "tta_deep_ensemble": 4,
    "checkpoint_ensemble": 2,
    "multi_head": 3,
    "layer_ensemble": 4,
    "softl1ace_tuning": 1,
}
NO_FIGURES = {"evaluation::num_case_diagrams": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the bundles of this module lie, so that methods share the deterministic sibling."""
    return tmp_path_factory.mktemp("methods")


@pytest.fixture(scope="module")
def finished(folder, make_bundle, tiny):
    """Train, predict and evaluate with a method, once."""
    done = {}

    def finish(method):
        if method not in done:
            bundle = make_bundle(folder, method=method)
            settings = tiny | SETTINGS.get(method, {})
            run(str(bundle), "train", overrides=settings)
            run(str(bundle), "inference_pred", overrides=settings)
            run(str(bundle), "inference_eval", overrides=settings | NO_FIGURES)
            done[method] = bundle
        return done[method]

    return finish


def read_map(bundle, case, name):
    path = bundle / "seed_12345" / "predictions" / case / f"{case}_{name}.nii.gz"
    return nib.load(path).get_fdata(dtype=np.float32)


def members(method):
    """How many members a method draws here."""
    if method not in MEMBERS:
        pytest.skip(f"MEMBERS does not say how many members {method} draws")
    return MEMBERS[method]


def cases(phantom_dir):
    return phantom_cases(phantom_dir, **PHANTOM_SIZE)["test"]


@pytest.mark.parametrize("method", METHODS)
def test_maps(finished, phantom_dir, method):
    bundle, num_members = finished(method), members(method)
    for case in cases(phantom_dir):
        source = nib.load(case["image"])
        name = case["case"]
        of_members = OF_MEMBERS if num_members > 1 else ()
        folder = bundle / "seed_12345" / "predictions" / name
        assert {path.name for path in folder.glob("*.nii.gz")} == {
            f"{name}_{kind}.nii.gz" for kind in MAPS + of_members
        }
        for kind in MAPS + of_members:
            predicted = nib.load(folder / f"{name}_{kind}.nii.gz")
            assert predicted.shape[:3] == source.shape
            np.testing.assert_allclose(predicted.affine, source.affine, atol=1e-5)
        prob = read_map(bundle, name, "prob").astype(np.float64)
        entropy = -(prob * np.log(np.maximum(prob, 1e-30))).sum(-1)
        np.testing.assert_allclose(read_map(bundle, name, "entropy"), entropy, atol=1e-4)
        for kind, largest in zip(of_members, (math.log(3) + 1e-6, 0.25), strict=False):
            values = read_map(bundle, name, kind)
            assert values.min() >= 0
            assert 0 < values.max() <= largest
    assert len(list((bundle / "seed_12345" / "predictions").rglob("*_overlay.png"))) == PHANTOM_SIZE["num_test"]


@pytest.mark.parametrize("method", METHODS)
def test_scores_and_quality_control(finished, method):
    folder, num_members = finished(method) / "seed_12345" / "evaluation", members(method)
    table = pd.read_csv(folder / "cases.csv")
    assert len(table) == PHANTOM_SIZE["num_test"]
    quality = json.loads((folder / "quality_control.json").read_text())
    for score, result in quality["scores"].items():
        assert score in table.columns
        assert result["threshold"]["calibration_cases"] == PHANTOM_SIZE["num_validation"]
        assert result["num_cases"] <= PHANTOM_SIZE["num_test"]
    for score in ("mutual_information_image_mean", "variance_image_mean", "pairwise_dice"):
        assert (score in table.columns) == (num_members > 1)
    assert ("aula" in table.columns) == (num_members > 2)
    # scores stand there only
    assert "entropy_image_mean" in table.columns
    assert set(quality["scores"]).isdisjoint(json.loads((folder / "summary.json").read_text()))
    assert set(quality["scores"]).isdisjoint(pd.read_csv(folder / "metrics.csv")["metric"])
    tables = {path.name.rsplit("_", 1)[0] for path in folder.glob("*_*.csv")}
    assert tables == set(pd.read_csv(folder / "metrics.csv")["metric"])


@pytest.mark.parametrize("method", ["tta", "deep_ensemble", "tta_deep_ensemble"])
def test_a_method_of_inference_trains_nothing_of_its_own(finished, method):
    bundle, plain = finished(method), finished("deterministic")
    own = read_metadata(bundle)["medcalib"]
    assert own["weights_bundle"] == plain.name
    assert own["training_digest"] == read_metadata(plain)["medcalib"]["training_digest"]
    assert not (bundle / "seed_12345" / "models").exists()
    told = json.loads((bundle / "seed_12345" / "evaluation" / "summary.json").read_text())["provenance"]
    assert told["checkpoint"].startswith(f"{plain.name}/seed_12345/models/model.pt")


def test_an_ensemble_averages_probabilities(finished, folder, phantom_dir, tiny):
    """Within one window, for across windows members and windows are averaged in another order."""
    ensemble, plain = finished("deep_ensemble"), finished("deterministic")
    whole = tiny | {"inferer::roi_size": [64, 64, 64]}
    members = whole | {"method::num_networks": 2}
    run(str(ensemble), "inference_pred", overrides=members | {"output_dir": str(folder / "both")})
    for seed in member_seeds(12345, 2):
        checkpoint = {"checkpoint": str(plain / f"seed_{seed}" / "models" / "model.pt")}
        run(str(plain), "inference_pred", overrides=whole | checkpoint | {"output_dir": str(folder / str(seed))})

    def read(where, case, name):
        path = folder / where / "predictions" / case / f"{case}_{name}.nii.gz"
        return nib.load(path).get_fdata(dtype=np.float32)

    for case in cases(phantom_dir):
        probs = np.stack([read(str(seed), case["case"], "prob") for seed in member_seeds(12345, 2)])
        np.testing.assert_allclose(read("both", case["case"], "prob"), probs.mean(0), atol=1e-5)
        np.testing.assert_allclose(read("both", case["case"], "variance"), probs.var(0).mean(-1), atol=1e-5)


def test_an_ensemble_of_one_is_the_network(finished, folder, phantom_dir, tiny):
    plain, ensemble = finished("deterministic"), finished("deep_ensemble")
    alone = tiny | {"method::num_networks": 1, "output_dir": str(folder / "alone")}
    run(str(ensemble), "inference_pred", overrides=alone)
    for case in cases(phantom_dir):
        for name in ("prob", "seg"):
            single = nib.load(folder / "alone" / "predictions" / case["case"] / f"{case['case']}_{name}.nii.gz")
            np.testing.assert_array_equal(single.get_fdata(dtype=np.float32), read_map(plain, case["case"], name))


def test_runs_with_neighbouring_seeds_share_no_network():
    seeds = [member for seed in range(100) for member in member_seeds(seed, 5)]
    assert len(set(seeds)) == len(seeds) == 500
    assert seeds[::5] == list(range(100)), "the first network is that of the sibling with the same seed"
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_missing_members_are_named(finished, tiny):
    bundle = finished("deep_ensemble")
    third, fourth = sorted(member_seeds(12345, 4)[2:])
    with pytest.raises(UserError, match=rf"seeds {third}, {fourth} .*--mode train --seed 12345") as caught:
        run(str(bundle), "inference_eval", overrides=tiny | {"method::num_networks": 4})
    assert "\n" not in str(caught.value)


def test_fine_tuning_keeps_what_lies_before_the_dropout(finished):
    def weights(method):
        return torch.load(finished(method) / "seed_12345" / "models" / "model.pt", weights_only=True)

    plain, tuned = weights("deterministic"), weights("mc_dropout_decoder")
    assert tuned.keys() == plain.keys()
    frozen = [name for name in plain if name.startswith("encoder.")]
    assert frozen
    assert all(torch.equal(plain[name], tuned[name]) for name in frozen)
    assert not torch.equal(plain["up_layers.0.head.weight"], tuned["up_layers.0.head.weight"])
    assert (
        read_metadata(finished("mc_dropout_decoder"))["medcalib"]["initial_weights_bundle"]
        == finished("deterministic").name
    )


def recorded(bundle):
    return read_record(bundle / "seed_12345" / "models").settings


@pytest.mark.parametrize("method", ["mc_dropout_center", "mc_dropout_center+temperature_scaling"])
def test_each_stage_of_a_training_has_its_settings(tmp_path, make_bundle, tiny, method):
    bundle = make_bundle(tmp_path, method=method)
    settings = tiny | {
        "data::max_epochs": 1,
        "train::optimizer::lr": 5e-5,
        "first_stage::train::optimizer::lr": 3e-3,
        "first_stage::max_epochs": 2,
        "num_bins": 15,
        "method::sampler::num_members": 2,
    }
    run(str(bundle), "train", overrides=settings)
    second = bundle if "+" not in method else bundle.parent / read_metadata(bundle)["medcalib"]["weights_bundle"]
    first = bundle.parent / read_metadata(second)["medcalib"]["initial_weights_bundle"]
    assert (recorded(first)["train::optimizer::lr"], recorded(second)["train::optimizer::lr"]) == (3e-3, 5e-5)
    assert (finished_epochs(first / "seed_12345" / "models"), finished_epochs(second / "seed_12345" / "models")) == (
        2,
        1,
    )
    assert recorded(first)["num_bins"] == recorded(second)["num_bins"] == 15
    assert not [id_ for id_, value in recorded(second).items() if str(bundle.parent) in str(value)], "folders may move"
    # the same options go with every mode
    run(str(bundle), "inference_eval", overrides=settings | NO_FIGURES)
    with pytest.raises(UserError, match=r"with first_stage::train::optimizer::lr=0\.003, not 0\.002"):
        run(
            str(bundle),
            "train",
            overrides={k: v for k, v in settings.items() if k != "first_stage::train::optimizer::lr"},
        )


@pytest.mark.parametrize(
    ("method", "id_", "message"),
    [
        ("mc_dropout_center", "train::optimizer::l", "^--first_stage::train::optimizer::l: .*did you mean lr"),
        ("mc_dropout_center", "num_bin", "--first_stage::num_bin does not exist .*did you mean num_bins"),
        (
            "deterministic",
            "num_bins",
            "--first_stage::num_bins: the training of .* has one stage, so leave out the prefix",
        ),
    ],
)
@pytest.mark.parametrize("mode", ["train", "inference_eval"])
def test_settings_of_a_first_stage_that_do_not_exist(tmp_path, make_bundle, tiny, method, id_, message, mode):
    bundle = make_bundle(tmp_path, method=method)
    with pytest.raises(UserError, match=message):
        run(str(bundle), mode, overrides=tiny | {f"first_stage::{id_}": 1})
    assert not list(bundle.parent.glob("*/seed_*"))


def test_a_stage_starts_from_the_weights_that_are_there(finished, tmp_path, tiny):
    """Of another first stage than that from which it was started, the second one is no result."""
    bundle = shutil.copytree(finished("mc_dropout_center").parent, tmp_path / "b") / finished("mc_dropout_center").name
    plain = tmp_path / "b" / finished("deterministic").name / "seed_12345" / "models" / "model.pt"
    state = torch.load(plain, weights_only=True)
    torch.save({name: value * 2 for name, value in state.items()}, plain)
    with pytest.raises(UserError, match=f"was started from other weights of {finished('deterministic').name}"):
        run(str(bundle), "train", overrides=tiny | SETTINGS["mc_dropout_center"])


def test_two_evaluations_are_equal(finished, tmp_path, tiny):
    bundle = shutil.copytree(finished("mc_dropout"), tmp_path / "copy" / finished("mc_dropout").name)
    results = bundle / "seed_12345" / "evaluation"
    before = (results / "summary.json").read_bytes()
    shutil.rmtree(results)
    run(str(bundle), "inference_eval", overrides=tiny | SETTINGS["mc_dropout"] | NO_FIGURES)
    assert (results / "summary.json").read_bytes() == before


def test_heads_can_be_skipped(finished, folder, tiny):
    bundle = finished("layer_ensemble")
    settings = tiny | NO_FIGURES | {"output_dir": str(folder / "skipped"), "checkpoint": str(_weights(bundle))}
    run(str(bundle), "inference_eval", overrides=settings | {"method::sampler::skip_heads": 2})
    assert "aula" not in pd.read_csv(folder / "skipped" / "evaluation" / "cases.csv").columns


def _weights(bundle):
    return bundle / "seed_12345" / "models" / "model.pt"


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("mc_dropout", {"method::sampler::num_members": 0}, "num_members must be at least 1, not 0"),
        ("tta", {"method::sampler::flip_axes": [3]}, "names axis 3, but the data has 3 spatial axes"),
        ("layer_ensemble", {"method::sampler::skip_heads": 9}, "skip_heads is 9, but the network has 4 heads"),
    ],
)
def test_settings_that_make_no_sense(finished, tiny, method, settings, message):
    with pytest.raises(UserError, match=message) as caught:
        run(str(finished(method)), "inference_eval", overrides=tiny | settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("deep_ensemble", {"method::num_networks": 0}, "method::num_networks must be at least 1, not 0"),
        ("layer_ensemble", {"method_network::modules": ["encodr"]}, "encodr matches no module of SegResNetDS"),
        ("mc_dropout", {"method_network::modules": ["encoder.nothing"]}, "encoder.nothing matches no module"),
    ],
)
def test_trainings_that_make_no_sense(tmp_path, make_bundle, tiny, method, settings, message):
    bundle = make_bundle(tmp_path, method=method)
    with pytest.raises(UserError, match=message):
        run(str(bundle), "train", overrides=tiny | settings)
    assert not (bundle / "seed_12345").exists()


def test_a_lost_sibling_is_named(tmp_path, make_bundle, tiny):
    bundle = make_bundle(tmp_path, method="tta")
    sibling = read_metadata(bundle)["medcalib"]["weights_bundle"]
    shutil.rmtree(bundle.parent / sibling)
    with pytest.raises(UserError, match=f"{sibling}, which is not there; make it again: medcalib generate"):
        run(str(bundle), "train", overrides=tiny)
    generate(TEMPLATES, bundle.parent, "phantom", "baseline_dice_ce", "tta")
    assert (bundle.parent / sibling).is_dir()


@pytest.mark.parametrize("method", ["deterministic", "mc_dropout", "mc_dropout_center", "multi_head", "layer_ensemble"])
def test_a_network_is_validated_as_it_predicts(finished, tiny, method):
    """The Dice by which the best epoch was chosen is that of its prediction of the same cases with three members."""
    bundle = finished(method)
    settings = tiny | SETTINGS.get(method, {}) | {"output_dir": str(bundle / "seed_12345")}
    workflow = Bundle.open(bundle).workflow(Mode.INFERENCE_EVAL, settings)
    workflow.initialize()
    evaluator = workflow.parser.get_parsed_content("calibration_evaluator")
    evaluator.run()
    log = (bundle / "seed_12345" / "train.log").read_text()
    best = float(re.findall(r"Key metric: mean_dice best value: (\S+)", log)[-1])
    assert evaluator.state.metrics["mean_dice"] == pytest.approx(best, abs=1e-6)
