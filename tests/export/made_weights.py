"""Bundles with weights that no training made, which is all that an export needs."""

from pathlib import Path

import torch

from medcalib.bundle.layout import Mode
from medcalib.bundle.opened import Bundle
from medcalib.calibrators import FitReport, save_calibrator
from medcalib.files.tensors import save_tensors
from medcalib.networks import weights_digest

# small networks of each kind, for windows of 32 along every axis
SMALL = {
    "segresnet_ds": {"network::init_filters": 8, "network::blocks_down": [1, 1], "network::dsdepth": 2},
    "resnet50": {
        "network::block": "basic",
        "network::layers": [1, 1, 1, 1],
        "network::widths": [4, 8, 8, 8],
        "network::hidden": [8],
        "network::weights": None,
        "network::frozen": False,
    },
    "unet": {"network::features": [4, 4, 8, 8, 8, 4]},
    "dynunet": {"network::filters": [4, 8, 8]},
    "swin_unetr": {},
}


def small_settings(bundle):
    """Overrides that make windows and network of a bundle small."""
    opened = Bundle.open(bundle)
    config = opened.config(Mode.INFERENCE_PRED)
    patch = [32] * len(config["data"]["patch_size"])
    settings = {"data::patch_size": patch, **SMALL[opened.fragments["network"]]}
    return settings | ({"inferer::roi_size": patch} if "roi_size" in config["inferer"] else {})


def make_weights(bundle, settings, seed=0):
    """Write random weights, and a calibrator that changes something, where a training would have put them."""
    parser = Bundle.open(bundle).workflow(Mode.INFERENCE_PRED, settings).parser
    parser["data::cases"] = {}
    content = parser.get_parsed_content
    torch.manual_seed(seed)
    network = content("placed_network")
    for path in map(Path, content("checkpoints")):
        if not path.exists():  # siblings may use it, too
            save_tensors({name: changed(name, value) for name, value in network.state_dict().items()}, path)
    if content("calibrator_file") is None:
        return
    calibrator = content("calibrator::module")
    with torch.no_grad():
        for name, value in (*calibrator.named_parameters(), *calibrator.named_buffers()):
            value.copy_(changed(name, value) if value.is_floating_point() else torch.zeros_like(value))
    calibrator.mark_fitted()
    digest = weights_digest(content("trained_network").state_dict())
    report = FitReport(
        calibrator.kind, 2, 100, 100, 1.0, 0.9, 0.2, 0.1, [0.2], [0.1], 20, None, None, 0.0, [], False, True, None, 3,
        {}, 0.1,
    )  # fmt: skip
    save_calibrator(
        content("calibrator_file"), calibrator, report, "", {"weights_digest": digest, "cases": [], "calibrate": "mean"}
    )


def changed(name, value):
    """Values around those that are there; tables of calibrators rise and variances stay positive."""
    value = value.detach().cpu().contiguous()
    if not value.is_floating_point():
        return value.clone()
    if name in ("shift", "log_odds"):
        return value + torch.linspace(-1, 1, value.shape[1])
    return value + 0.05 * (torch.rand(value.shape) if "running_var" in name else torch.randn(value.shape))
