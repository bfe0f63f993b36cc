"""A bundle whose predictions are kept writes the very files that it writes without, and runs its network once."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from tests.conftest import PHANTOM_SIZE

from medcalib.bundle.prediction_keeping import DEFAULT_GB, chosen_cache
from medcalib.bundle.run import run
from medcalib.calibrators import read_calibrator
from medcalib.errors import UserError

TESTED, CALIBRATED = PHANTOM_SIZE["num_test"], PHANTOM_SIZE["num_validation"]
MODES = ("inference_pred", "inference_eval")


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    for name in ("MEDCALIB_CACHE_DIR", "MEDCALIB_CACHE_GB"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, trained):
    """A folder of bundles with the trained deterministic one."""
    folder = tmp_path_factory.mktemp("keeping")
    shutil.copytree(trained, folder / "bundles" / trained.name)
    return folder


@pytest.fixture
def ran(capsys):
    """Run a bundle, and say how many predictions were read and how many computed; None without a cache."""

    def ran(bundle, mode, **options):
        run(str(bundle), mode, **options)
        told = capsys.readouterr().out.splitlines()
        assert told[-1].startswith("Results: ")
        found = [
            re.match(r"Predictions of the network: (\d+) read, (\d+) computed and kept, in ", line) for line in told
        ]
        numbers = [tuple(map(int, match.groups())) for match in found if match]
        return numbers[0] if numbers else None

    return ran


def files(bundle, mode):
    """Contents by name; of volumes the header and the voxels, since gzip notes the time."""
    found = {}
    output = bundle / "seed_12345" / {"inference_pred": "predictions", "inference_eval": "evaluation"}[mode]
    for path in sorted(output.rglob("*")):
        if path.name.endswith(".nii.gz"):
            image = nib.load(path)
            found[str(path.relative_to(output))] = image.header.binaryblock + np.asanyarray(image.dataobj).tobytes()
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                found[str(path.relative_to(output))] = [(name, arrays[name].tobytes()) for name in arrays.files]
        elif path.is_file():
            found[str(path.relative_to(output))] = path.read_bytes()
    return found


@pytest.mark.parametrize(
    ("method", "order", "numbers"),
    [
        ("deterministic", MODES[::-1], [(0, TESTED + CALIBRATED), (TESTED, 0)]),
        ("tta", MODES, [(0, TESTED), (TESTED, CALIBRATED)]),
    ],
)
def test_every_file_is_the_same(folder, make_bundle, tiny, ran, method, order, numbers, tmp_path):
    """Of a prediction after an evaluation, and of an evaluation after a prediction."""
    bundle = make_bundle(folder, method=method)
    settings = {"overrides": tiny | ({"method::sampler::flip_axes": [0]} if method == "tta" else {})}
    assert [ran(bundle, mode, **settings, prediction_cache="off") for mode in MODES] == [None, None]
    plain = {mode: files(bundle, mode) for mode in MODES}
    assert len(plain["inference_eval"]) > 10
    assert [ran(bundle, mode, **settings, prediction_cache=str(tmp_path / "cache")) for mode in order] == numbers
    assert {mode: files(bundle, mode) for mode in MODES} == plain


def test_siblings_share_what_their_network_predicts(folder, make_bundle, tiny, ran, trained, tmp_path):
    """The fit of a calibrator reads what an evaluation computed, and finds the same calibrator as without."""
    bundle = make_bundle(folder, method="temperature_scaling")
    plain, kept = {"overrides": tiny}, {"overrides": tiny, "prediction_cache": str(tmp_path / "cache")}
    ran(bundle, "train", **plain, prediction_cache="off")
    path = bundle / "seed_12345" / "models" / "calibrator.pt"
    before = read_calibrator(path)
    path.unlink()
    assert ran(folder / "bundles" / trained.name, "inference_eval", **kept) == (0, TESTED + CALIBRATED)
    assert ran(bundle, "train", **kept) == (CALIBRATED, 0)
    after = read_calibrator(path)
    assert all(torch.equal(value, after["state"][name]) for name, value in before["state"].items())
    seconds = {"seconds": 0}
    assert before["report"] | seconds == after["report"] | seconds
    assert ran(bundle, "inference_pred", **kept) == (TESTED, 0)


def test_what_changed_is_predicted_anew(folder, tiny, ran, trained, tmp_path, phantom_dir):
    """A case file of the same name with other content, a setting of the windows; not one of the evaluation."""
    data = shutil.copytree(phantom_dir, tmp_path / "phantom")
    bundle = folder / "bundles" / trained.name
    kept = {"prediction_cache": str(tmp_path / "cache")}
    own = tiny | {"data::dataset_dir": str(data)}
    assert ran(bundle, "inference_pred", **kept, overrides=own) == (0, TESTED)
    assert ran(bundle, "inference_pred", **kept, overrides=own | {"overlays::num_cases": 1}) == (TESTED, 0)
    assert ran(bundle, "inference_pred", **kept, overrides=own | {"inferer::overlap": 0.25}) == (0, TESTED)
    number = PHANTOM_SIZE["num_training"] + PHANTOM_SIZE["num_validation"] + 1
    path = data / "images" / f"phantom_{number:03}.nii.gz"
    image = nib.load(path)
    values = np.array(image.dataobj)
    values[0, 0, 0] += 1
    nib.save(nib.Nifti1Image(values, image.affine, image.header), path)
    assert ran(bundle, "inference_pred", **kept, overrides=own) == (TESTED - 1, 1)


@pytest.mark.slow
def test_whole_images_are_kept_too(tmp_path, make_bundle, ran):
    bundle = make_bundle(tmp_path, data="phantom_cells", loss="baseline_ce")
    settings = {"data_dir": str(tmp_path), "data::max_epochs": 1, "limit_cases": 20}
    ran(bundle, "train", overrides=settings)
    plain = {}
    for mode in MODES:
        ran(bundle, mode, overrides=settings, prediction_cache="off")
        plain[mode] = files(bundle, mode)
    assert ran(bundle, "inference_pred", overrides=settings) == (0, 20)
    assert ran(bundle, "inference_eval", overrides=settings)[0] >= 20
    assert ran(bundle, "inference_pred", overrides=settings) == (20, 0)
    assert {mode: files(bundle, mode) for mode in MODES} == plain


def test_where_predictions_are_kept(tmp_path, monkeypatch):
    bundle = tmp_path / "bundles" / "one"
    assert chosen_cache("off", bundle) is None
    assert chosen_cache("auto", bundle).folder == tmp_path / "bundles" / ".cache" / "predictions"
    assert not (tmp_path / "bundles").exists(), "nothing is made before something is kept"
    monkeypatch.setenv("MEDCALIB_CACHE_DIR", str(tmp_path / "elsewhere"))
    assert chosen_cache("auto", bundle).folder == tmp_path / "elsewhere" / "predictions"
    assert chosen_cache(str(tmp_path / "named"), bundle).folder == tmp_path / "named"
    # images that belong to no dataset are predicted once
    assert chosen_cache("auto", bundle, has_images=True) is None
    assert chosen_cache(str(tmp_path / "named"), bundle, has_images=True) is not None


def test_how_much_is_kept(tmp_path, monkeypatch):
    assert chosen_cache("auto", tmp_path)._entries.max_bytes == DEFAULT_GB * 1e9
    monkeypatch.setenv("MEDCALIB_CACHE_GB", "0.5")
    assert chosen_cache("auto", tmp_path)._entries.max_bytes == 5e8


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("atuo", "there is no folder 'atuo'; did you mean auto; write ./atuo for"),
        ("Off", "there is no folder 'Off'; did you mean off; write ./Off for"),
        ("false", "there is no folder 'false'; write ./false for"),
        ("{file}", "The folder .*file of --prediction_cache cannot be made \\(a file\\)"),
        ("{file}/sub", "The folder .*sub of --prediction_cache cannot be made \\(Not a directory\\)"),
    ],
)
def test_a_folder_that_cannot_be(tmp_path, monkeypatch, option, message):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(UserError, match=message) as caught:
        chosen_cache(option.format(file=tmp_path / "file"), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", ["much", "-1", "nan", "inf"])
def test_a_size_that_cannot_be(tmp_path, monkeypatch, size):
    monkeypatch.setenv("MEDCALIB_CACHE_GB", size)
    with pytest.raises(UserError, match=f"MEDCALIB_CACHE_GB must be a number of gigabytes, not '{size}'"):
        chosen_cache("auto", tmp_path)


def test_the_command_refuses_in_one_sentence(tmp_path, trained):
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "medcalib.cli", "run", f"--bundle={trained}", "--mode=inference_pred"]
    done = subprocess.run(
        [*command, f"--prediction_cache={tmp_path / 'file'}"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "--prediction_cache cannot be made (a file)" in done.stderr
