"""Every network fragment: from training to evaluation, and what is refused."""

import json
import math
import shutil

import pytest
import yaml
from monai.bundle import ConfigParser
from tests.conftest import PHANTOM_SIZE, TEMPLATES

from medcalib.bundle.bundle_metadata import read_metadata
from medcalib.bundle.component_checks import check_components
from medcalib.bundle.compose import generate
from medcalib.bundle.digest import bundle_digest
from medcalib.bundle.fragments import FragmentKind, fragment_names, read_yaml
from medcalib.bundle.layout import CONFIGS, Mode
from medcalib.bundle.network_settings import DEFAULT_NETWORKS
from medcalib.bundle.opened import Bundle
from medcalib.bundle.run import run
from medcalib.cli.verb_generate import main as list_all
from medcalib.errors import UserError
from medcalib.networks.module_names import match_modules

TEMPLATE_CONFIGS = TEMPLATES / CONFIGS
NETWORKS = fragment_names(TEMPLATE_CONFIGS, FragmentKind.NETWORK)

NO_FIGURES = {
    Mode.INFERENCE_PRED: {"overlays::num_cases": 0},
    Mode.INFERENCE_EVAL: {"evaluation::num_case_diagrams": 0},
}


def is_classifier(network):
    return read_yaml(TEMPLATE_CONFIGS / "network" / f"{network}.yaml")["network"].get("task") == "classification"


def parser(bundle, **overrides):
    config = Bundle.open(bundle).config(Mode.TRAIN)
    made = ConfigParser(config)
    made.update(overrides)
    return made


# the default networks are trained by the tests of runs, methods and classification
@pytest.mark.parametrize("network", sorted(set(NETWORKS) - set(DEFAULT_NETWORKS.values())))
def test_from_training_to_evaluation(tmp_path, make_bundle, phantom_dir, network):
    """With dropout in it and a calibrator after it."""
    data = "phantom_cells" if is_classifier(network) else "phantom"
    loss = "baseline_ce" if is_classifier(network) else "baseline_dice_ce"
    bundle = make_bundle(tmp_path, data, loss, "mc_dropout+temperature_scaling", network)
    own = read_metadata(bundle)["medcalib"]
    assert own["fragments"]["network"] == network
    assert bundle.name == f"{data}_{loss}_mc_dropout+temperature_scaling_{own['digest'][:8]}"
    overrides = {"data::batch_size": 2, "data::max_epochs": 1, "method::sampler::num_members": 2}
    if is_classifier(network):
        overrides |= {"data_dir": str(tmp_path), "data::patch_size": [32, 32], "limit_cases": 12}
    else:
        overrides |= {"data::dataset_dir": str(phantom_dir), "inferer::overlap": 0.0, "limit_cases": 1}
        overrides |= {f"data::cases::{name}": number for name, number in PHANTOM_SIZE.items()}
    figures = {} if is_classifier(network) else NO_FIGURES
    for mode in Mode:
        run(str(bundle), mode, overrides=overrides | figures.get(mode, {}))
    summary = json.loads((bundle / "seed_12345" / "evaluation" / "summary.json").read_text())
    assert math.isfinite(summary["micro_ece"])


@pytest.mark.parametrize("data", fragment_names(TEMPLATE_CONFIGS, FragmentKind.DATA))
def test_the_default_network_takes_the_patches_of_the_data(tmp_path, make_bundle, data):
    bundle = make_bundle(tmp_path, data, "baseline_ce")
    check_components(parser(bundle, data_dir=str(tmp_path)))
    network = read_yaml(TEMPLATE_CONFIGS / "data" / f"{data}.yaml")["data"].get("networks", {})
    assert set(network) <= set(NETWORKS)


@pytest.mark.parametrize("network", NETWORKS)
def test_methods_attach_to_modules_that_exist(tmp_path, make_bundle, network):
    bundle = make_bundle(tmp_path, "phantom_cells" if is_classifier(network) else "phantom", network=network)
    made = parser(bundle)
    modules = made.get_parsed_content("network_modules")
    named = {name: match_modules(made.get_parsed_content("network_def"), modules[name]) for name in modules}
    assert named.keys() == {"blocks", "deepest_blocks", "decoder_blocks", "heads", "layers", "last_layers"}
    assert named["heads"].keys() & named["blocks"].keys() == set()


@pytest.mark.parametrize(
    ("network", "size", "message"),
    [
        ("segresnet_ds", [30, 32, 32], r"must be a multiple of \[4, 4, 4\].*the nearest is \[32, 32, 32\]"),
        ("swin_unetr", [48, 32, 32], r"must be a multiple of \[32, 32, 32\]"),
        ("unet", [32, 32, 8], r"is .32, 32, 8., .* does not take; make each axis a multiple of 16, as in .32, 32, 16"),
        ("unet", [16, 16, 16], r"is .16, 16, 16., .*; make each axis a multiple of 32, as in .32, 32, 32"),
        ("unet", [40, 56, 40], None),
        ("dynunet", [30, 32, 12], None),
    ],
)
def test_patches_must_fit_the_network(tmp_path, make_bundle, network, size, message):
    made = parser(make_bundle(tmp_path, network=network), **{"data::patch_size": size})
    if message is None:
        check_components(made)
    else:
        with pytest.raises(UserError, match=f"data::patch_size {message}" if "is ." in message else message):
            check_components(made)


@pytest.fixture
def templates(tmp_path):
    return shutil.copytree(TEMPLATES, tmp_path / "templates")


def refused(templates, message, *names):
    bundles = templates.parent / "refused"
    with pytest.raises(UserError, match=message):
        generate(templates, bundles, *names)
    assert not bundles.exists()


def change(templates, name, edit):
    path = templates / CONFIGS / f"{name}.yaml"
    content = yaml.safe_load(path.read_text())
    edit(content)
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def test_a_network_of_another_task_is_refused(templates):
    refused(
        templates, "resnet50 is made for classification, but the task of phantom is segmentation", *PHANTOM, "resnet50"
    )
    refused(templates, "did you mean unet", *PHANTOM, "unett")


PHANTOM = ("phantom", "baseline_ce", "deterministic")


@pytest.mark.parametrize(
    ("method", "part"), [("layer_ensemble", "layers"), ("mc_dropout", "blocks"), ("fine_tune", "last_layers")]
)
def test_a_method_that_has_nothing_to_attach_to_is_refused(templates, method, part):
    change(templates, "network/unet", lambda content: content["network_modules"].pop(part))
    refused(
        templates,
        f"{method} attaches to the {part} of a network.*unet.yaml does not name",
        *PHANTOM[:2],
        method,
        "unet",
    )
    generate(templates, templates.parent / "bundles", *PHANTOM, "unet")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.pop("network_def"), "lacks the id network_def"),
        (lambda c: c["network"].update(colour=1), "the setting network::colour is used nowhere in the file"),
        (lambda c: c["network_modules"].update(block=["a"]), "network_modules::block is unknown; did you mean blocks"),
        (lambda c: c.update(network_module={}), "override id network_module does not exist"),
        (lambda c: c["network"].update(features=[0]), "network::features must be at least 1"),
        (lambda c: c["network"].pop("description"), "lacks the id network::description"),
    ],
)
def test_a_network_that_breaks_its_contract_is_named(templates, edit, message):
    change(templates, "network/unet", edit)
    refused(templates, f"unet.yaml.*{message}", *PHANTOM, "unet")


def test_settings_named_network_are_those_of_the_default(templates):
    change(templates, "data/phantom", lambda content: content["data"].update(network={"dsdepth": 1, "norm": "group"}))
    change(templates, "data/phantom", lambda content: content["data"]["networks"].pop("segresnet_ds"))
    residual, unet = (generate(templates, templates.parent / "b", *PHANTOM, network)[0] for network in (None, "unet"))
    settings = Bundle.open(residual).config(Mode.TRAIN)["network"]
    assert (settings["dsdepth"], settings["norm"]) == (1, "group")
    assert "dsdepth" not in Bundle.open(unet).config(Mode.TRAIN)["network"]
    change(templates, "data/phantom", lambda content: content["data"].update(network={"depth": 1}))
    refused(templates, "phantom.yaml: data::network::depth is no setting of network/segresnet_ds.yaml", *PHANTOM)


@pytest.mark.parametrize(
    ("networks", "message"),
    [
        ({"unett": {}}, "data::networks::unett.*did you mean unet"),
        ({"unet": {"feature": [1]}}, "data::networks::unet::feature is no setting.*did you mean features"),
        ({"unet": {"features": 3}}, "data::networks::unet::features must be a list"),
        ({"unet": 3}, "data::networks::unet must be a mapping"),
    ],
)
def test_settings_of_a_data_fragment_are_those_of_the_network(templates, networks, message):
    change(templates, "data/phantom", lambda content: content["data"].update(networks=networks))
    refused(templates, f"phantom.yaml: {message}", *PHANTOM)


def test_what_suits_the_data_stands_in_the_bundle(templates):
    suits = {"unet": {"features": [4, 4, 4, 4, 8, 4]}, "segresnet_ds": {"resolution": [1.0, 1.0, 2.0], "norm": "group"}}
    change(templates, "data/phantom", lambda content: content["data"].update(networks=suits, default_network="unet"))
    unet, residual = (
        generate(templates, templates.parent / "b", *PHANTOM, network)[0] for network in (None, "segresnet_ds")
    )
    for bundle, name in ((unet, "unet"), (residual, "segresnet_ds")):
        assert bundle_digest(bundle) == read_metadata(bundle)["medcalib"]["digest"]
        settings = Bundle.open(bundle).config(Mode.TRAIN)["network"]
        assert {key: settings[key] for key in suits[name]} == suits[name]


def test_one_file_adds_a_network(templates):
    (templates / CONFIGS / "network" / "attention.yaml").write_text(
        "network:\n  description: attention gates\n  channels: [4, 8]\nnetwork_def:\n"
        "  _target_: monai.networks.nets.AttentionUnet\n  spatial_dims: 3\n  in_channels: 1\n  out_channels: 3\n"
        '  channels: "@network::channels"\n  strides: [2]\n'
    )
    bundle = generate(templates, templates.parent / "bundles", *PHANTOM, "attention")[0]
    check_components(parser(bundle))


@pytest.mark.parametrize(
    ("method", "network", "message"),
    [
        ("deterministic", "", "no network fragment called ''"),
        ("mc_dropout+", None, "no method, calibrator or guarantee called ''"),
    ],
)
def test_empty_name(templates, tmp_path, method, network, message):
    with pytest.raises(UserError, match=message):
        generate(templates, tmp_path, "phantom", "baseline_ce", method, network)


@pytest.mark.parametrize(
    ("mode", "overrides", "tries"),
    [
        (Mode.TRAIN, {}, True),
        (Mode.INFERENCE_EVAL, {"num_bins": 15}, False),
        (Mode.INFERENCE_EVAL, {"inferer::roi_size": [64, 64, 64]}, True),
        (Mode.INFERENCE_PRED, {"method::sampler": None}, True),
    ],
)
def test_the_network_is_tried_where_it_is_new(bundle, tmp_path, monkeypatch, mode, overrides, tries):
    tried = []
    monkeypatch.setattr("medcalib.bundle.run.check_components", tried.append)
    with pytest.raises(UserError):
        run(str(bundle), mode, overrides=overrides | {"data::dataset_dir": "/dev/null/none"})
    assert bool(tried) == tries


def test_windows_that_the_trained_network_does_not_take_are_refused(bundle):
    with pytest.raises(UserError, match=r"inferer::roi_size is \[30, 32, 32\], but each axis must be a multiple of"):
        run(str(bundle), Mode.INFERENCE_EVAL, overrides={"inferer::roi_size": [30, 32, 32]})


def test_the_list_of_bundles_names_networks_that_their_names_cannot(tmp_path, make_bundle, capsys):
    usual, unet = make_bundle(tmp_path), make_bundle(tmp_path, network="unet")
    damaged = tmp_path / "bundles" / "phantom_damaged" / "configs"
    damaged.mkdir(parents=True)
    (damaged / "metadata.json").write_text("{")
    list_all(list=True, bundles_dir=str(tmp_path / "bundles"))
    listed = capsys.readouterr().out.splitlines()[-3:]
    assert set(listed) == {f"  {usual.name}", f"  {unet.name}  (network unet)", "  phantom_damaged  (damaged)"}


def test_all_networks_are_named_where_none_is_alike(templates):
    refused(templates, f"called 'nope'.*; there is {', '.join(NETWORKS)}", *PHANTOM, "nope")
