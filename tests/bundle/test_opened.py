"""What a bundle knows of itself, its siblings and the trainings that it needs."""

import shutil

import pytest
import yaml

from medcalib.bundle.checkpoint_paths import member_seeds
from medcalib.bundle.digest import bundle_digest
from medcalib.bundle.layout import Mode
from medcalib.bundle.opened import Bundle
from medcalib.bundle.resolve import plain_config
from medcalib.bundle.used_settings import used_settings
from medcalib.errors import UserError


@pytest.fixture(scope="module")
def opened(tmp_path_factory, make_bundle):
    """Bundles of any method, opened; they lie in one folder."""
    folder = tmp_path_factory.mktemp("opened")
    return lambda method: Bundle.open(make_bundle(folder, method=method))


def method(bundle):
    return bundle.fragments["method"]


@pytest.mark.parametrize(
    ("name", "sibling", "trains", "fits", "two_stages"),
    [
        ("deterministic", None, True, False, False),
        ("tta", "deterministic", False, False, False),
        ("mc_dropout_center", "deterministic", True, False, True),
        ("temperature_scaling", "deterministic", False, True, False),
        ("mc_dropout_center+temperature_scaling", "mc_dropout_center", False, True, False),
    ],
)
def test_what_a_bundle_is(opened, name, sibling, trains, fits, two_stages):
    bundle = opened(name)
    assert bundle.name == bundle.folder.name
    assert (bundle.fragments["data"], method(bundle)) == ("phantom", name)
    assert (bundle.sibling and method(bundle.sibling)) == sibling
    assert (bundle.trains_network, bundle.fits_calibrator, bundle.starts_from_sibling) == (trains, fits, two_stages)
    assert not bundle.edited


def test_an_edited_bundle_is_opened_on_request_alone(opened, tmp_path):
    tta = opened("tta")
    shutil.copytree(tta.folder.parent, tmp_path / "copy")
    path = tmp_path / "copy" / tta.sibling.name / "configs" / "data.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"num_bins": 3}))
    with pytest.raises(UserError, match=f"configs of .*{tta.sibling.name} were edited"):
        Bundle.open(path.parent.parent)
    assert Bundle.open(path.parent.parent, allow_edited=True).edited
    copy = Bundle.open(tmp_path / "copy" / tta.name, allow_edited=True)
    assert not copy.edited
    assert copy.sibling.edited


def trainings(bundle, **overrides):
    workflow = bundle.workflow(Mode.TRAIN, overrides, seed=7)
    return bundle.trainings_before(workflow.parser, overrides)


NETWORKS = {"method::num_networks": 3}
CENTER = "mc_dropout_center"


@pytest.mark.parametrize(
    ("name", "overrides", "expected"),
    [
        ("deterministic", {}, []),
        ("tta", {}, [("deterministic", 7, False)]),
        ("deep_ensemble", NETWORKS, [("deterministic", seed, False) for seed in member_seeds(7, 3)]),
        (CENTER, {}, [("deterministic", 7, True)]),
        (f"{CENTER}+temperature_scaling", {}, [("deterministic", 7, True), (CENTER, 7, False)]),
        ("deep_ensemble+temperature_scaling", NETWORKS, [("deterministic", s, False) for s in member_seeds(7, 3)]),
        # several networks of one training
        ("checkpoint_ensemble+temperature_scaling", NETWORKS, [("checkpoint_ensemble", 7, False)]),
    ],
)
def test_trainings_in_their_order(opened, name, overrides, expected):
    found = trainings(opened(name), **overrides)
    assert [(method(one.bundle), one.seed, one.is_first_stage) for one in found] == expected


def test_each_training_is_given_what_it_knows(opened):
    overrides = {
        "num_bins": 15,
        "train::optimizer::lr": 0.1,
        "first_stage::train::optimizer::lr": 0.2,
        "calibrator::calibrate": "members",
        "method_network::p": 0.3,
        "output_dir": "/elsewhere",
    }
    first, second = trainings(opened(f"{CENTER}+temperature_scaling"), **overrides)
    assert first.overrides == {"num_bins": 15, "train::optimizer::lr": 0.2}
    # the fit has no optimizer, but the training before it has
    kept = ("num_bins", "train::optimizer::lr", "first_stage::train::optimizer::lr", "method_network::p")
    assert second.overrides == {id_: overrides[id_] for id_ in kept}


@pytest.mark.parametrize("id_", ["bundle_root", "edited"])
def test_what_follows_from_the_bundle_is_not_overridden(opened, id_):
    with pytest.raises(UserError, match=f"--{id_} follows from the bundle itself"):
        opened("deterministic").workflow(Mode.TRAIN, {id_: "x"})


def test_settings_of_a_method_reach_the_training_of_which_a_calibrator_uses_the_weights(make_bundle, tmp_path):
    joined = Bundle.open(make_bundle(tmp_path, method="checkpoint_ensemble+temperature_scaling"))
    overrides = {"method::num_networks": 2, "output_dir": "x"}
    parser = joined.workflow(Mode.TRAIN, overrides).parser
    (training,) = joined.trainings_before(parser, overrides)
    assert training.overrides == {"method::num_networks": 2}


def test_settings_of_a_method_are_its_own_where_the_sibling_has_another(make_bundle, tmp_path):
    ensemble = Bundle.open(make_bundle(tmp_path, method="deep_ensemble"))
    overrides = {"method::num_networks": 2}
    trainings = ensemble.trainings_before(ensemble.workflow(Mode.TRAIN, overrides).parser, overrides)
    assert [training.overrides for training in trainings] == [{}, {}]


class TestMLflow:
    def test_one_option_adds_a_handler_and_changes_nothing_else(self, bundle):
        opened, options = Bundle.open(bundle), {"mlflow::tracking_uri": "sqlite:///a.db"}
        plain, told = (opened.workflow(Mode.TRAIN, overrides).parser for overrides in ({}, options))
        assert told["train::trainer_handlers::mlflow::tracking_uri"] == "@mlflow::tracking_uri"
        assert told["mlflow::tracking_uri"] == "sqlite:///a.db"
        before, now = (plain_config(parser) for parser in (plain, told))
        del now["train"]["trainer_handlers"]["mlflow"], now["mlflow"], now["is_not_first"]
        assert now == before
        # so a training may be resumed with it or without
        assert used_settings(told, ["run"]).values == used_settings(plain, ["run"]).values

    def test_a_sibling_that_is_trained_is_recorded_as_well(self, tmp_path, make_bundle):
        opened = Bundle.open(make_bundle(tmp_path, method="temperature_scaling"))
        options = {"mlflow::tracking_uri": "sqlite:///a.db"}
        (training,) = opened.trainings_before(opened.workflow(Mode.TRAIN, options).parser, options)
        assert training.overrides == options

    @pytest.mark.parametrize(
        ("mode", "option", "message"),
        [
            (
                Mode.INFERENCE_EVAL,
                "mlflow::tracking_uri",
                "so leave it out of --mode inference_eval",
            ),
            (Mode.TRAIN, "mlflow::tracking_url", "did you mean mlflow::tracking_uri"),
        ],
    )
    def test_refusals(self, bundle, mode, option, message):
        with pytest.raises(UserError, match=message):
            Bundle.open(bundle).workflow(mode, {option: "http://server"})


def test_a_bundle_of_an_earlier_version_names_its_labels_all_the_same(bundle):
    opened = Bundle.open(bundle)
    expected = opened.config(Mode.INFERENCE_PRED)
    assert expected["handlers"]["label_files"]["seg_nrrd"] is False
    assert "label_files" not in opened.config(Mode.INFERENCE_EVAL)["handlers"]
    (bundle / "configs" / "label_files.yaml").unlink()
    assert Bundle.open(bundle).config(Mode.INFERENCE_PRED) == expected


def test_a_bundle_of_an_earlier_version_measures_surfaces_all_the_same(bundle):
    expected = Bundle.open(bundle).config(Mode.INFERENCE_EVAL)
    assert "hd95" in expected["additional_metrics"]
    assert "hd95" not in Bundle.open(bundle).config(Mode.INFERENCE_PRED).get("additional_metrics", {})
    (bundle / "configs" / "boundary.yaml").unlink()
    opened = Bundle.open(bundle)
    assert not opened.edited
    assert opened.config(Mode.INFERENCE_EVAL) == expected


def test_a_bundle_of_an_earlier_version_calls_the_same_cases_poor(bundle):
    """And its name is the same as ever: the file takes no part in the digest."""
    expected = Bundle.open(bundle).config(Mode.INFERENCE_EVAL)
    assert expected["quality_control"]["poor_below"] == "$@data.get('poor_below', '10%')"
    digest = bundle_digest(bundle)
    (bundle / "configs" / "poor_cases.yaml").unlink()
    assert Bundle.open(bundle).config(Mode.INFERENCE_EVAL) == expected
    assert bundle_digest(bundle) == digest


def test_images_are_no_cases_of_the_dataset(opened):
    for id_ in ("data::cases::num_training", "data::cases"):
        with pytest.raises(UserError, match=rf"^--{id_} says which cases of the dataset are taken"):
            opened("deterministic").workflow(Mode.INFERENCE_PRED, {id_: 2}, images="scans")
