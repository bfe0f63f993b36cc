"""Fixtures that several folders of tests share."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PHANTOM_SIZE = {"num_training": 4, "num_validation": 2, "num_test": 3}


@pytest.fixture(scope="session")
def phantom_dir(tmp_path_factory):
    """A small phantom dataset."""
    from medcalib.data import make_phantom

    folder = tmp_path_factory.mktemp("data") / "phantom"
    make_phantom(folder, **PHANTOM_SIZE)
    return folder


@pytest.fixture
def phantom_overrides(phantom_dir):
    """What makes a bundle of the phantom data use the small dataset."""
    return {"data::dataset_dir": str(phantom_dir)} | {
        f"data::cases::{name}": number for name, number in PHANTOM_SIZE.items()
    }


@pytest.fixture
def bundle(tmp_path):
    """A freshly generated bundle of the phantom data."""
    from medcalib.bundle.compose import generate

    return generate(
        REPOSITORY / "bundle_templates", tmp_path / "bundles", "phantom", "baseline_dice_ce", "deterministic"
    )[0]
