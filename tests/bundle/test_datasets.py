"""Every data fragment from generation to evaluation, on a tiny dataset in the layout of its download."""

import json

import numpy as np
import pandas as pd
import pytest
from tests.conftest import TEMPLATES
from tests.data import layouts, layouts_2d

from medcalib.bundle.bundle_metadata import read_metadata
from medcalib.bundle.fragments import read_yaml
from medcalib.bundle.run import run

CONFIGS = TEMPLATES / "configs"
LAYOUTS = {
    "acdc17": layouts.make_acdc,
    "amos22": layouts.make_amos,
    "bcdr": layouts_2d.make_bcdr,
    "brats18": layouts.make_brats18,
    "brats21": layouts.make_brats21,
    "isic16": layouts_2d.make_isic,
    "isles18": layouts.make_isles,
    "kits23": layouts.make_kits,
    "mnms": layouts.make_mnms,
}


def fragment(name):
    return read_yaml(CONFIGS / "data" / f"{name}.yaml")


def is_segmentation(name):
    return fragment(name)["data"].get("task") != "classification"


def tiny_network(name):
    patch = fragment(name)["data"]["patch_size"]
    size = [16, 16, 8] if len(patch) == 3 else [32, 32]
    return {
        "network::init_filters": 4,
        "network::blocks_down": [1, 1],
        "data::batch_size": 2,
        "data::patch_size": size,
        "inferer::roi_size": size,
        "inferer::overlap": 0.0,
        "num_workers": 0,
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_from_download_to_evaluation(tmp_path, make_bundle, name):
    """Two methods: the flips of test-time augmentation, and the deterministic sibling that it trains."""
    data = LAYOUTS[name](tmp_path / "download")
    settings = tiny_network(name) | {"data::dataset_dir": str(data), "data_dir": str(tmp_path)}
    tta = make_bundle(tmp_path, data=name, loss="softl1ace_dice_ce", method="tta")
    plain = tta.parent / read_metadata(tta)["medcalib"]["weights_bundle"]
    run(str(tta), "train", debug=True, overrides=settings)
    results = {}
    for bundle in (plain, tta):
        run(str(bundle), "inference_pred", debug=True, overrides=settings)
        run(str(bundle), "inference_eval", debug=True, overrides=settings)
        results[bundle] = bundle / "seed_12345_debug"
        summary = json.loads((results[bundle] / "evaluation" / "summary.json").read_text())
        classes = list(fragment(name)["data"].get("regions", fragment(name)["data"]["class_names"][1:]))
        assert list(summary["per_class"]["mean_dice"]) == classes
        assert np.isfinite(summary["nll"])
        cases = pd.read_csv(results[bundle] / "evaluation" / "cases.csv")["filename"].astype(str)
        predicted = {path.name for path in (results[bundle] / "predictions").iterdir() if path.is_dir()}
        assert predicted == set(cases)
        suffix = "nii.gz" if len(settings["data::patch_size"]) == 3 else "png"
        for case in predicted:
            for kind in ("seg", "entropy", *(("mutual_information", "variance") if bundle == tta else ())):
                assert (results[bundle] / "predictions" / case / f"{case}_{kind}.{suffix}").exists()
