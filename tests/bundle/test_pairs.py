"""Every pair of a kind of data and a loss, method, calibrator or network generates, initialises and lacks nothing."""

import dataclasses
from pathlib import Path

import pytest
import torch
from tests.bundle.test_classification import LOSSES_OF_MAPS
from tests.bundle.test_datasets import CONFIGS, LAYOUTS, is_segmentation, tiny_network

from medcalib.bundle.bundle_metadata import read_metadata
from medcalib.bundle.compose import DEFAULT_METHOD
from medcalib.bundle.fragments import FragmentKind, fragment_names, read_yaml
from medcalib.bundle.layout import Mode
from medcalib.bundle.messages import user_message
from medcalib.bundle.network_settings import DEFAULT_NETWORKS
from medcalib.bundle.opened import Bundle
from medcalib.calibrators import FitReport, save_calibrator
from medcalib.data import make_phantom, make_phantom_cells
from medcalib.errors import UserError

LOSSES, METHODS, CALIBRATORS, NETWORKS = (
    fragment_names(CONFIGS, kind)
    for kind in (FragmentKind.LOSS, FragmentKind.METHOD, FragmentKind.CALIBRATOR, FragmentKind.NETWORK)
)
# the others see logits only, whatever network they come from
OF_NETWORKS = [
    name for name in CALIBRATORS if "network_modules" in (CONFIGS / "calibrator" / f"{name}.yaml").read_text()
]
FEW = {"num_training": 2, "num_validation": 1, "num_test": 1}
MAKERS = LAYOUTS | {
    "phantom": lambda folder: make_phantom(folder, **FEW),
    "phantom_cells": lambda folder: make_phantom_cells(folder, **FEW),
}
SEVERAL_OUTPUTS = [
    name
    for name in METHODS
    if read_yaml(CONFIGS / "method" / f"{name}.yaml")["method"].get("network_returns") == "several"
]
# one of each kind that losses, methods and calibrators may tell apart: volumes, pictures, regions, whole images; every
# dataset is used from training to evaluation in test_datasets.py
KINDS = ("phantom", "isic16", "brats21", "phantom_cells")
REPORT = FitReport(**dict.fromkeys((field.name for field in dataclasses.fields(FitReport)), 0))


@pytest.fixture(params=KINDS)
def data(request):
    return request.param


@pytest.fixture
def settings(data, tmp_path):
    """Overrides that make a small network on a tiny dataset."""
    folder = tmp_path / "download"
    MAKERS[data](folder)
    network = {"network::layers": [1, 1, 1, 1], "network::widths": [4, 8, 8, 16]}
    sizes = {f"data::cases::{name}": number for name, number in FEW.items()} if data.startswith("phantom") else {}
    folders = {"data_dir": str(tmp_path), "data::dataset_dir": str(folder)}
    return folders | (tiny_network(data) if is_segmentation(data) else network) | sizes


def opened(bundle, mode, settings):
    return Bundle.open(bundle).workflow(mode, settings)


def lacking(bundle, mode, settings):
    """The properties that a bundle lacks in one of its modes, after it was initialised."""
    workflow = opened(bundle, mode, settings)
    workflow.initialize()
    missing = workflow.check_properties()
    workflow.finalize()
    return missing


@pytest.mark.slow
def test_every_loss(tmp_path, make_bundle, data, settings):
    for loss in LOSSES:
        bundle = make_bundle(tmp_path, data=data, loss=loss)
        if loss in LOSSES_OF_MAPS and not is_segmentation(data):
            with pytest.raises(RuntimeError) as caught:
                lacking(bundle, Mode.TRAIN, settings)
            assert "needs the regions of a label map" in user_message(caught.value)
        else:
            assert lacking(bundle, Mode.TRAIN, settings) == [], loss


def with_weights(bundle, settings, weights):
    """The opened training of a bundle beside weights as a training would leave them."""
    parser = opened(bundle, Mode.TRAIN, settings).parser
    if Bundle.open(bundle).trains_network:
        weights[bundle.name] = parser.get_parsed_content("placed_network").state_dict()
    state = weights[read_metadata(bundle)["medcalib"]["weights_bundle"] or bundle.name]
    for path in map(Path, parser.get_parsed_content("checkpoints")):
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, path)
    return parser


def mark_fitted(parser):
    """Leave a calibrator as a fit would."""
    calibrator = parser.get_parsed_content("calibrator::module")
    calibrator.mark_fitted()
    save_calibrator(parser.get_parsed_content("calibrator_file"), calibrator, REPORT, "")


@pytest.mark.slow
def test_every_method(tmp_path, make_bundle, data, settings):
    """With weights as a training would leave them: those of the deterministic bundle are made first."""
    weights = {}
    for method in dict.fromkeys((DEFAULT_METHOD, *METHODS, *CALIBRATORS)):
        bundle = make_bundle(tmp_path, data=data, loss="baseline_ce", method=method)
        parser = with_weights(bundle, settings, weights)
        assert lacking(bundle, Mode.TRAIN, settings) == [], method
        if Bundle.open(bundle).fits_calibrator:
            mark_fitted(parser)
        for mode in (Mode.INFERENCE_PRED, Mode.INFERENCE_EVAL):
            assert lacking(bundle, mode, settings) == [], method


@pytest.mark.slow
@pytest.mark.parametrize("data", ["phantom"], indirect=True)
@pytest.mark.parametrize("method", METHODS)
def test_every_calibrator_of_every_method(tmp_path, make_bundle, data, settings, method):
    """A calibrator that does not go with a method is refused before anything is trained."""
    weights = {}
    for sibling in dict.fromkeys((DEFAULT_METHOD, method)):
        with_weights(make_bundle(tmp_path, data=data, loss="baseline_ce", method=sibling), settings, weights)
    for name in CALIBRATORS:
        joined = f"{method}+{name}"
        if name == "fine_tune" and method in SEVERAL_OUTPUTS:
            with pytest.raises(UserError, match=f"fine_tune changes the network, .* but {method} has several networks"):
                make_bundle(tmp_path, data=data, loss="baseline_ce", method=joined)
            continue
        bundle = make_bundle(tmp_path, data=data, loss="baseline_ce", method=joined)
        parser = with_weights(bundle, settings, weights)
        # all that a fit needs
        assert parser.get_parsed_content("calibration::fitter").calibrator.kind == name, joined
        mark_fitted(parser)
        workflow = opened(bundle, Mode.INFERENCE_PRED, settings)
        workflow.initialize()
        workflow.finalize()


@pytest.mark.slow
@pytest.mark.parametrize("data", ["phantom"], indirect=True)
@pytest.mark.parametrize("network", sorted(set(NETWORKS) - set(DEFAULT_NETWORKS.values())))
def test_every_method_of_every_network(tmp_path, make_bundle, data, settings, network):
    """Those that are not the default of their task, with which the other tests are."""
    settings = {id_: value for id_, value in settings.items() if not id_.startswith(("network::", "data::patch_size"))}
    settings["inferer::roi_size"] = [32, 32, 32]
    weights = {}
    for method in dict.fromkeys((DEFAULT_METHOD, *METHODS, *OF_NETWORKS)):
        bundle = make_bundle(tmp_path, data=data, loss="baseline_dice_ce", method=method, network=network)
        parser = with_weights(bundle, settings, weights)
        assert lacking(bundle, Mode.TRAIN, settings) == [], method
        if Bundle.open(bundle).fits_calibrator:
            mark_fitted(parser)
        assert lacking(bundle, Mode.INFERENCE_PRED, settings) == [], method
