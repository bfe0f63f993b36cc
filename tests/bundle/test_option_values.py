"""What is typed is what arrives: ids and folders letter by letter, the rest as YAML has it."""

import os
import re
import shutil

import pytest
import torch
from tests.conftest import REPOSITORY

from medcalib.bundle.compose import generate
from medcalib.bundle.contract import SHARED, check_value, field_of
from medcalib.bundle.fragments import read_yaml, walk
from medcalib.bundle.layout import Mode
from medcalib.bundle.opened import Bundle
from medcalib.bundle.option_values import override_values
from medcalib.bundle.overrides import check_overrides
from medcalib.bundle.run import run
from medcalib.cli.command_line import run_command
from medcalib.cli.options import call_with_options
from medcalib.errors import UserError


def typed(**texts):
    """What a command gets of the overrides that were typed."""

    def main(**overrides):
        return overrides

    return call_with_options(main, [f"--{id_}={text}" for id_, text in texts.items()], "run")


@pytest.mark.parametrize("id_", ["calibration_cases", "overlays::cases", "data::calibration_cases"])
@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("[006]", ["006"]),
        ('["006"]', ["006"]),
        ("['006', 1_2]", ["006", "1_2"]),
        ("[1_2,1e3,NA,no]", ["1_2", "1e3", "NA", "no"]),
        ("(007,8)", ["007", "8"]),
        ("006, 007", ["006", "007"]),
        ("007", ["007"]),
        ("20240131", ["20240131"]),
        ("null", None),
        ("None", None),
    ],
)
def test_case_ids_stay_what_was_typed(id_, text, ids):
    assert typed(**{id_: text}) == {id_: ids}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("null", None), ("None", None), ("true", True), ("False", False), ("FALSE", False), ("15", 15), ("-3", -3),
        ("0.5", 0.5), ("1e-3", 1e-3), ("1.0E+5", 1e5), ("007", "007"), ("1_2", "1_2"), ("gaussian", "gaussian"),
        ("[16, 16,16]", [16, 16, 16]), ("(16,16)", [16, 16]), ("16,16,8", [16, 16, 8]), ("[(1,2)]", [[1, 2]]),
        ("[0.7, .1, 2e-1]", [0.7, 0.1, 0.2]), ("{'whole': [1, 2], 'core': [2]}", {"whole": [1, 2], "core": [2]}),
        ("{whole: [1, 2], core: [2]}", {"whole": [1, 2], "core": [2]}), ("{a:1,b:[2]}", {"a": 1, "b": [2]}),
        ("[true, null, a]", [True, None, "a"]), ("'15'", "15"), ("$@seed + 1", "$@seed + 1"), ("@seed", "@seed"),
        ("a, b c", "a, b c"), ("2024-01-31", "2024-01-31"), ("", ""), ("[]", []),
    ],
)  # fmt: skip
def test_other_values_are_those_of_yaml(text, value):
    (read,) = typed(some_id=text).values()
    assert read == value
    assert type(read) is type(value)


def test_a_key_that_stands_twice_is_refused():
    with pytest.raises(UserError, match="--x: .*, line 1: the key 'a' stands there twice; keep one"):
        typed(x="{a: 1, b: 2, a: 3}")


@pytest.mark.parametrize("text", ["[8,8", "{a: 1", "[a]]", "['a]"])
def test_a_list_that_is_not_closed_is_named(text):
    with pytest.raises(UserError, match=f"^--data::patch_size: {re.escape(text)} is not a (list|mapping) as YAML"):
        typed(**{"data::patch_size": text})


@pytest.mark.parametrize("id_", ["output_dir", "data_dir", "data::dataset_dir", "bundle_root", "train::x::cache_dir"])
def test_a_folder_keeps_its_name(id_, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    for text in ("20240131", "1e3", "007", "true", "[a]", "a,b"):
        assert typed(**{id_: text}) == {id_: text}
    assert typed(**{id_: "~/x"}) == {id_: "/home/me/x"}
    with pytest.raises(UserError, match=f"--{id_} is missing its value"):
        override_values({id_: None})


BEGINNERS = {
    "data::patch_size": ([32, 32], [0, 32, 32], [32, 32, -1], [32, 32, 8.5], 32),
    "inferer::overlap": (1.0, -0.1, "half", float("nan")),
    "inferer::sw_batch_size": (0, "a"),
    "inferer::mode": ("gauss",),
    "num_bins": (2.5, 0, -1, "ten", True),
    "limit_cases": (0, -1, "all", 1.5),
    "num_workers": (-1, "a"),
    "max_epochs": (0, -1, "abc", 1.5),
    "val_interval": (0,),
    "data::max_epochs": (0, "abc"),
    "data::batch_size": (0, "abc", 1.5),
    "network::init_filters": (0, -4, 2.5),
    "network::blocks_down": ([1, 0], 3),
    "network::dsdepth": (0,),
    "train::optimizer::lr": (-1, 0, "fast"),
    "train::optimizer::weight_decay": (-1,),
    "train::dataset::cache_rate": (1.5, -1),
    "include_background": ("no", 1, "False"),
    "amp": ("no", 1),
    "activation": ("softmx",),
    "train::dataset::progress": ("no",),
    "device": (1, "gpu", "cuda:99", "meta"),
    "calibration_cases": (6, "006"),
}


@pytest.mark.parametrize(("id_", "value"), [(id_, value) for id_, values in BEGINNERS.items() for value in values])
def test_a_value_that_makes_no_sense_is_named(config, id_, value):
    with pytest.raises(UserError, match=f"--{id_}") as caught:
        check_overrides(config, {id_: value})
    assert "\n" not in str(caught.value)


EVALUATION = {
    "evaluation::space": ("resample", 3),
    "evaluation::num_case_diagrams": (-1, "all"),
    "quality_control::poor_below": (1.5, -0.1, "bad", "0%", "100%", "10 percent"),
    "quality_control::max_poor": (2,),
    "quality_control::calibrate_threshold": ("no", 0),
}


@pytest.mark.parametrize(("id_", "value"), [(id_, value) for id_, values in EVALUATION.items() for value in values])
def test_a_value_of_an_evaluation_that_makes_no_sense_is_named(evaluation_config, id_, value):
    with pytest.raises(UserError, match=f"--{id_}"):
        check_overrides(evaluation_config, {id_: value})


COMPONENT = r"is a component \(.*give one of its arguments, such as --{id_}::\w+, or a mapping with the _target_"
GROUP = r"is a group of settings, so it cannot be .*; give one of them, such as --{id_}::\w+\.$"
NEEDED = r"is a group of settings that cannot do without \w+"


@pytest.mark.parametrize(
    ("id_", "value", "message"),
    [
        ("task", None, COMPONENT),
        ("task", {"evaluate": "labels"}, COMPONENT),
        ("inferer", 3, COMPONENT),
        ("data::cases", None, COMPONENT),
        ("handlers::progress", 3, COMPONENT),
        ("evaluation", None, GROUP),
        ("quality_control", [0.8], GROUP),
        ("network", None, GROUP),
        ("l1ace_params", None, GROUP),
        ("evaluation", {"space": "original"}, NEEDED),
        ("network", {"init_filters": 4}, NEEDED),
        ("train", {"a": 1}, NEEDED),
        ("handlers", {}, "cannot be replaced as a whole; switch off one of its parts, as in --{id_}::NAME=null"),
        ("handlers::result_folder", None, "is what others use as @result_folder, so it cannot be switched off"),
    ],
)
def test_a_component_or_group_is_not_taken_away(evaluation_config, id_, value, message):
    """It would end in a traceback, or in a message on something else."""
    with pytest.raises(UserError, match=f"^--{id_} {message.format(id_=id_)}"):
        check_overrides(evaluation_config, {id_: value})


@pytest.mark.parametrize(
    ("id_", "value"),
    [
        ("data::label_map", None),
        ("load_case::label_map", None),
        ("l1ace_params", {"num_bins": 3}),
        ("inferer", {"_target_": "monai.inferers.SimpleInferer"}),
        ("inferer", "$monai.inferers.SimpleInferer()"),
        ("handlers::reliability", None),
        ("additional_metrics::mhd", None),
        ("additional_metrics::hd95", None),
        ("additional_metrics::surface_dice", None),
        ("data::surface_tolerance_mm", 2),
        ("data::surface_tolerance_mm", {"organ": 2, "lesion": 0.5}),
        ("data::boundary_band_mm", None),
        ("train::trainer_handlers::tensorboard", None),
        ("key_metric", None),
        ("evaluator::key_val_metric", None),
        ("key_metric", {"dice": "@mean_dice"}),
        ("method::sampler", None),
    ],
)
def test_what_may_be_null_or_a_mapping_is(evaluation_config, id_, value):
    config = evaluation_config | {"data": evaluation_config["data"] | {"label_map": {0: 0, 205: 1}}}
    check_overrides(config, {id_: value})


@pytest.mark.parametrize(
    ("id_", "value", "message"),
    [
        ("data::surface_tolerance_mm", "2mm", "must be a number or a mapping or a list or null, not '2mm'"),
        ("data::boundary_band_mm", "wide", "must be a number or null, not 'wide'"),
        ("data::boundary_band_mm", 0, "must be above 0, not 0"),
        ("data::boundary_band", 3, "does not exist"),
    ],
)
def test_settings_that_a_fragment_may_leave_out_are_checked(evaluation_config, id_, value, message):
    with pytest.raises(UserError, match=message):
        check_overrides(evaluation_config, {id_: value})


def test_an_id_of_another_mode_is_named(generated):
    bundle = Bundle.open(generated["baseline_ce"])
    for id_ in ("handlers::overlays", "handlers::overlays::num_cases", "overlays::cases"):
        with pytest.raises(UserError, match=f"^--{id_} exists only in --mode inference_pred; leave it out here.$"):
            bundle.workflow(Mode.INFERENCE_EVAL, {id_: None})
    with pytest.raises(UserError, match="exists only in --mode inference_pred and inference_eval"):
        bundle.workflow(Mode.TRAIN, {"provenance::split": None})


def test_an_id_is_named_as_it_was_typed(tmp_path, make_bundle):
    """The network's settings stood in the data fragment once."""
    bundle = Bundle.open(make_bundle(tmp_path, network="unet"))
    with pytest.raises(UserError, match="id --data::network::feature does not .* did you mean network::features"):
        bundle.workflow(Mode.TRAIN, {"data::network::feature": [4]})
    with pytest.raises(UserError, match="^--data::network::features must be a list, not 4"):
        bundle.workflow(Mode.TRAIN, {"data::network::features": 4})
    features = [4, 4, 4, 4, 4, 4]
    assert bundle.workflow(Mode.TRAIN, {"data::network::features": features}).parser["network::features"] == features


@pytest.fixture(scope="module")
def generated(tmp_path_factory, make_bundle):
    folder = tmp_path_factory.mktemp("generated")
    return {loss: make_bundle(folder, loss=loss) for loss in ("baseline_ce", "label_smoothing")}


@pytest.fixture(scope="module")
def config(generated):
    return Bundle.open(generated["baseline_ce"]).config(Mode.TRAIN)


@pytest.fixture(scope="module")
def evaluation_config(generated):
    return Bundle.open(generated["baseline_ce"]).config(Mode.INFERENCE_EVAL)


@pytest.mark.parametrize(
    ("loss", "settings", "message"),
    [
        ("baseline_ce", {"data::patch_size": [30, 32, 32]}, r"multiple of \[4, 4, 4\].* the nearest is \[32, 32, 32\]"),
        ("baseline_ce", {"network::dsdepth": 9, "network::resolution": [1.0, 1.0]}, "network_def"),
        ("label_smoothing", {"loss::function::label_smoothing": 1.5}, "label_smoothing must be from 0 to 1, not 1.5"),
        ("label_smoothing", {"loss::function::label_smoothing": -0.1}, "label_smoothing must be from 0 to 1, not -0.1"),
        ("label_smoothing", {"loss::function::sigmoid": True, "loss::function::ignore_index": 2}, "ignore_index"),
    ],
)
def test_a_component_that_does_not_take_its_value_is_named(generated, tmp_path, loss, settings, message):
    """Before a case is read: the dataset does not even exist."""
    with pytest.raises(UserError, match=message) as caught:
        run(str(generated[loss]), "train", overrides={"data::dataset_dir": str(tmp_path / "none"), **settings})
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_a_device_may_be_named(bundle, tiny, device):
    """As a text, which has no attributes: no template asks for any, and training runs."""
    if not torch.cuda.is_available() and device != "cpu":
        pytest.skip("no GPU")
    for path in (bundle / "configs").glob("*.yaml"):
        assert "@device." not in path.read_text(), path
    few = {"data::max_epochs": 1, "limit_cases": 1, "data::patch_size": [8, 8, 8], "inferer::overlap": 0}
    run(str(bundle), "train", overrides=tiny | few | {"device": device})
    assert (bundle / "seed_12345" / "models" / "model.pt").exists()


def test_templates_keep_their_own_contract():
    """No plain value of a template breaks what is asked of an override, so the contract can be held against users."""
    checked = 0
    for path in sorted((REPOSITORY / "bundle_templates" / "configs").rglob("*.yaml")):
        content = read_yaml(path)
        flat = dict(walk(content)) | content
        for id_, value in flat.items():
            if id_ in SHARED:
                check_value(f"{path.name}: {id_}", id_, value)
                checked += 1
    assert checked > 20
    assert field_of("data::batch_size").least == 1


def test_a_fragment_with_a_value_that_makes_no_sense(tmp_path, capsys):
    templates = shutil.copytree(REPOSITORY / "bundle_templates", tmp_path / "templates")
    path = templates / "configs" / "loss" / "baseline_ce.yaml"
    path.write_text(path.read_text() + "num_bins: 2.5\n")
    with pytest.raises(UserError, match=r"baseline_ce.yaml: num_bins must be a whole number, not 2.5"):
        generate(templates, tmp_path / "bundles", "phantom", "baseline_ce", "deterministic")


def test_messages_print_names_that_are_no_utf8(capfdbinary):
    name = os.fsdecode(b"k\xfc")

    def fail():
        print(name)
        raise UserError(f"{name} is bad")

    with pytest.raises(SystemExit):
        run_command(fail)


class TestIdsThatTheFragmentLacks:
    """What the shared files ask of a fragment can be set although this fragment lacks it; what none asks cannot."""

    def test_the_contract_allows_it(self, config):
        for id_, value in {
            "data::evaluate": "labels",
            "data::regions": {"all": [1, 2]},
            "data::calibration_cases": ["006"],
        }.items():
            assert id_.partition("::")[2] not in config["data"]
            check_overrides(config, {id_: value})

    def test_nobody_reads_it(self, config):
        with pytest.raises(UserError, match="--data::fold does not exist"):
            check_overrides(config, {"data::fold": 1})
        with pytest.raises(UserError, match="--data::evaluate is 'region', but must be one of labels, regions"):
            check_overrides(config, {"data::evaluate": "region"})

    def test_there_are_no_regions(self, generated, tiny):
        with pytest.raises(UserError, match="data::evaluate is regions, but data::regions is None: give lists"):
            run(str(generated["baseline_ce"]), "train", overrides=tiny | {"data::evaluate": "regions"})
