"""Fixtures that several folders of tests share."""

import os
import pickle
from pathlib import Path

import pytest

# as medcalib run --num_gpus does before torch is imported, which says of connections that a process has ended
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

import torch

# Triton reads this as it is imported: where there is no GPU, its kernels run in its interpreter.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

REPOSITORY = Path(__file__).resolve().parent.parent
TEMPLATES = REPOSITORY / "bundle_templates"
PHANTOM_SIZE = {"num_training": 4, "num_validation": 2, "num_test": 3}


@pytest.fixture(scope="session", autouse=True)
def read_once():
    """Let MONAI read each configuration text and look through its own modules once: both took a third of all tests."""
    from monai.bundle import ComponentLocator, ConfigParser

    load, find = ConfigParser.load_config_file, ComponentLocator._find_classes_or_functions
    texts, tables = {}, {}

    def load_once(_cls, filepath, **kwargs):
        key = (Path(filepath).suffix, Path(filepath).read_bytes())
        if key not in texts:
            texts[key] = pickle.dumps(load(filepath, **kwargs))
        return pickle.loads(texts[key])

    def find_once(self, names):
        key = tuple(names)
        if key not in tables:
            tables[key] = find(self, names)
        return tables[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConfigParser, "load_config_file", classmethod(load_once))
        patch.setattr(ComponentLocator, "_find_classes_or_functions", find_once)
        yield


@pytest.fixture(scope="session", autouse=True)
def figures_of_bundles():
    """Let bundles that run in this process make figures, but not draw them: that took three quarters of evaluations."""
    from matplotlib.figure import Figure

    from medcalib.handlers.result_folder import ResultFolder

    save_figure = ResultFolder.save_figure

    def save_nothing(self, name, figure, formats, dpi):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Figure, "savefig", lambda _figure, path, **_options: path.write_bytes(b"not drawn"))
            figure.set_layout_engine("none")
            save_figure(self, name, figure, formats, dpi)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ResultFolder, "save_figure", save_nothing)
        yield save_figure


@pytest.fixture
def drawn_figures(monkeypatch, figures_of_bundles):
    """Let bundles draw their figures."""
    from medcalib.handlers.result_folder import ResultFolder

    monkeypatch.setattr(ResultFolder, "save_figure", figures_of_bundles)


@pytest.fixture(scope="session")
def phantom_dir(tmp_path_factory):
    """A small phantom dataset."""
    from medcalib.data import make_phantom

    folder = tmp_path_factory.mktemp("data") / "phantom"
    make_phantom(folder, **PHANTOM_SIZE)
    return folder


@pytest.fixture(scope="session")
def tiny(phantom_dir):
    """Overrides that make a bundle of the phantom data run in seconds."""
    return {
        "data::dataset_dir": str(phantom_dir),
        **{f"data::cases::{name}": number for name, number in PHANTOM_SIZE.items()},
        "network::init_filters": 4,
        "network::blocks_down": [1, 1],
        "data::max_epochs": 2,
        "inferer::overlap": 0.0,
    }


@pytest.fixture(scope="session")
def make_bundle():
    """Generate a bundle of the phantom data under a folder."""
    from medcalib.bundle.compose import generate

    def make(folder, data="phantom", loss="baseline_dice_ce", method="deterministic", network=None):
        return generate(TEMPLATES, folder / "bundles", data, loss, method, network)[0]

    return make


@pytest.fixture
def bundle(tmp_path, make_bundle):
    """A freshly generated bundle of the phantom data."""
    return make_bundle(tmp_path)


@pytest.fixture(scope="session")
def trained(tmp_path_factory, make_bundle, tiny):
    """A bundle that was trained, used for prediction and evaluated once; its output folder is seed_12345."""
    from medcalib.bundle.run import run

    bundle = make_bundle(tmp_path_factory.mktemp("trained"))
    for mode in ("train", "inference_pred", "inference_eval"):
        run(str(bundle), mode, overrides=tiny)
    return bundle
