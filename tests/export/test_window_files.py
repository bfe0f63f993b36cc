"""Files that hold network and calibrator give the probabilities of the bundle, also where there is no medcalib."""

import importlib.util
import json
import subprocess
import sys

import pytest
import torch
from tests.conftest import TEMPLATES
from tests.export.made_weights import make_weights, small_settings

from medcalib.bundle.compose import generate
from medcalib.errors import UserError
from medcalib.export import export, open_trained
from medcalib.export.window import example_windows, own_prediction

ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
needs_onnx = pytest.mark.skipif(not ONNX, reason="onnx, onnxscript and onnxruntime are not installed")
# every method that draws nothing at random, and every calibrator
METHODS = [
    "temperature_scaling",
    "platt_scaling",
    "vector_scaling",
    "auxiliary",
    "local_temperature_scaling",
    "histogram_binning",
    "fine_tune",
    "layer_ensemble+isotonic",
    "multi_head+temperature_scaling",
    "tta",
    "deep_ensemble+auxiliary",
    "checkpoint_ensemble",
    "tta_deep_ensemble",
]
SETTINGS = {"deep_ensemble": 2, "checkpoint_ensemble": 2, "tta_deep_ensemble": 2}
# in a process of its own that has only torch
ELSEWHERE = """
import sys, torch
sys.modules["medcalib"] = sys.modules["monai"] = None
for path, given, wanted in zip(*[iter(sys.argv[1:])] * 3):
    outputs = torch.jit.load(path)(torch.load(given))
    assert (outputs[0] - torch.load(wanted)).abs().max() < 1e-5, path
    print(len(outputs), tuple(outputs[-1].shape))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A bundle with weights by method, and the options with which it has them."""
    folder, done = tmp_path_factory.mktemp("files"), {}

    def make(method, data="phantom", network=None):
        key = (method, data, network)
        if key not in done:
            bundle = generate(TEMPLATES, folder / "bundles", data, "baseline_ce", method, network)[0]
            settings = small_settings(bundle)
            if number := SETTINGS.get(method.partition("+")[0]):
                settings["method::num_networks"] = number
            make_weights(bundle, settings)
            done[key] = bundle, settings
        return done[key]

    return make


def exported(made, tmp_path, kind, *what, **which):
    bundle, settings = made(*what, **which)
    file = export(bundle, kind, output=tmp_path, overrides=settings)
    return file, json.loads(file.with_name(f"{file.name}.json").read_text())


@pytest.mark.slow
def test_torchscript_equals_the_bundle_where_there_is_no_medcalib(made, tmp_path):
    words, entropies = [], []
    for number, method in enumerate(METHODS):
        file, about = exported(made, tmp_path, "torchscript", method)
        assert about["largest_difference"] < 1e-5
        bundle, settings = made(method)
        trained = open_trained(bundle, overrides=settings)
        # another number of windows than it was traced with
        windows = example_windows(trained, 3)
        probs = own_prediction(trained, windows)
        assert torch.allclose(probs.sum(1), torch.ones(()), atol=1e-5)
        for name, tensor in (("given", windows), ("wanted", probs)):
            torch.save(tensor, tmp_path / f"{number}_{name}.pt")
        words += [str(file), str(tmp_path / f"{number}_given.pt"), str(tmp_path / f"{number}_wanted.pt")]
        entropies.append(method.startswith(("layer_ensemble", "multi_head")))
        assert ("entropy" in about["outputs"]) == entropies[-1]
    done = subprocess.run([sys.executable, "-c", ELSEWHERE, *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line.startswith("2 (3, 1,") for line in done.stdout.splitlines()] == entropies


@pytest.mark.slow
@pytest.mark.parametrize("method", ["temperature_scaling", "layer_ensemble+isotonic", "tta"])
def test_torch_export_equals_the_bundle(made, tmp_path, method):
    file, about = exported(made, tmp_path, "torch_export", method)
    assert about["largest_difference"] < 1e-5
    bundle, settings = made(method)
    trained = open_trained(bundle, overrides=settings)
    windows = example_windows(trained, 3)
    outputs = torch.export.load(str(file)).module()(windows)
    assert (outputs[0] - own_prediction(trained, windows)).abs().max() < 1e-5


@needs_onnx
@pytest.mark.very_slow
@pytest.mark.parametrize("method", METHODS)
def test_onnx_runtime_equals_the_bundle(made, tmp_path, method):
    import onnxruntime

    file, about = exported(made, tmp_path, "onnx", method)
    assert about["share_beyond_tolerance"] <= (1e-3 if method == "histogram_binning" else 0)
    bundle, settings = made(method)
    trained = open_trained(bundle, overrides=settings)
    windows = example_windows(trained, 3)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    probs = torch.from_numpy(session.run(["probabilities"], {"image": windows.numpy()})[0])
    beyond = (probs - own_prediction(trained, windows)).abs() > 1e-5
    assert beyond.float().mean() <= (1e-3 if method == "histogram_binning" else 0)


@pytest.mark.slow
def test_a_classifier(made, tmp_path):
    _, about = exported(made, tmp_path, "torchscript", "temperature_scaling", data="phantom_cells")
    assert about["largest_difference"] < 1e-5
    assert about["outputs"]["probabilities"]["shape"] == ["batch", 3]


@pytest.mark.slow
@pytest.mark.parametrize("network", ["unet", "dynunet"])
def test_other_networks(made, tmp_path, network):
    _, about = exported(made, tmp_path, "torchscript", "temperature_scaling", network=network)
    assert about["largest_difference"] < 1e-5


@pytest.mark.slow
def test_what_lies_beside_a_file(made, tmp_path):
    file, about = exported(made, tmp_path, "torchscript", "temperature_scaling", data="kits23")
    assert about["labels"] == {"0": "background", "1": "kidney", "2": "tumour", "3": "cyst"}
    assert about["spacing"] == [1.0, 1.0, 1.0]
    assert about["orientation"] == "RAS"
    assert about["window"] == about["patch_size"] == [32, 32, 32]
    normalisation = next(step for step in about["normalisation"] if step["_target_"].endswith("ScaleIntensityRanged"))
    assert (normalisation["a_min"], normalisation["a_max"]) == (-54, 242)
    assert about["thresholds"] == {}
    assert about["calibrator"]["kind"] == "temperature_scaling"
    inside = {"medcalib.json": ""}
    model = torch.jit.load(str(file), _extra_files=inside)
    assert json.loads(inside["medcalib.json"])["weights_digest"] == about["weights_digest"]
    # files hold convolutions that every runtime knows
    assert "mkldnn" not in str(model.inlined_graph)
    # the same once more changes nothing, another network is refused
    written = file.stat().st_mtime_ns
    bundle, settings = made("temperature_scaling", data="kits23")
    assert export(bundle, "torchscript", output=tmp_path, overrides=settings) == file
    assert file.stat().st_mtime_ns == written
    about["weights_digest"] = "another"
    file.with_name(f"{file.name}.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match="never replaces"):
        export(bundle, "torchscript", output=tmp_path, overrides=settings)


@pytest.mark.parametrize("method", ["mc_dropout", "mc_dropout_decoder+temperature_scaling"])
@pytest.mark.parametrize("kind", ["torchscript", "onnx", "torch_export"])
def test_dropout_masks_need_python(made, tmp_path, method, kind):
    bundle, settings = made(method)
    with pytest.raises(UserError, match="dropout masks drawn from a seed, which needs Python; --format bundle works"):
        export(bundle, kind, output=tmp_path / "out", overrides=settings)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(ONNX, reason="what onnx needs is installed")
def test_onnx_needs_packages(made, tmp_path):
    bundle, settings = made("temperature_scaling")
    with pytest.raises(UserError, match=r"--format onnx needs onnx and onnxscript; pip install 'medcalib\[export\]'"):
        export(bundle, "onnx", output=tmp_path / "out", overrides=settings)
    assert not list((tmp_path / "out").glob("*"))


def test_bad_input(made, tmp_path, bundle):
    with pytest.raises(UserError, match="'torchscrip' is unknown; did you mean torchscript"):
        export(bundle, "torchscrip")
    with pytest.raises(UserError, match="is not trained with seed 12345 yet; train it first: medcalib run"):
        export(bundle, "torchscript", output=tmp_path / "out")
    with pytest.raises(UserError, match="is not trained with seed 7 yet"):
        export(bundle, "bundle", seed=7, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").touch()
    trained, settings = made("temperature_scaling")
    with pytest.raises(UserError, match="is a file; --output names the folder"):
        export(trained, "bundle", output=tmp_path / "file", overrides=settings)
