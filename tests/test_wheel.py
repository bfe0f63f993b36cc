"""What is installed holds everything: it works in a fresh environment, in a folder without this project."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from tests.conftest import REPOSITORY

SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "src", "bundle_templates")


def pip(*arguments):
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that nothing of an earlier build is in it and nothing is left in the checkout."""
    root = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("*.egg-info", "__pycache__")
    for name in SOURCES:
        source, target = REPOSITORY / name, root / "project" / name
        target.parent.mkdir(exist_ok=True)
        shutil.copytree(source, target, ignore=ignored) if source.is_dir() else shutil.copy(source, target)
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(root), str(root / "project"))
    (built,) = root.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """The commands of an environment with the wheel; other packages are those of the environment of the tests."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    # what is linked from that environment, such as this project, is not seen through it
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    pip("--python", str(folder / "bin" / "python"), "install", "--no-deps", "--no-index", str(wheel))
    return folder / "bin"


@pytest.fixture
def medcalib(environment, tmp_path):
    """Run a program of the environment in an empty folder; what it printed."""
    variables = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "MEDCALIB_DATA_DIR")}

    def run(*words, program="medcalib"):
        done = subprocess.run(
            [environment / program, *words], capture_output=True, text=True, cwd=tmp_path, env=variables
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


@pytest.mark.slow
def test_the_wheel_holds_templates_and_splits(wheel):
    expected = {
        f"medcalib/{path.relative_to(root)}"
        for root, folder in ((REPOSITORY, "bundle_templates"), (REPOSITORY / "src" / "medcalib", "."))
        for path in (root / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if not name.startswith("medcalib-")} == expected
    assert "medcalib/bundle_templates/configs/common.yaml" in names
    assert "medcalib/data/published_splits/brats21_test.txt" in names


@pytest.mark.slow
def test_the_wheel_alone_runs_every_mode(medcalib, environment, tiny, tmp_path):
    (place,) = medcalib("-c", "import medcalib; print(medcalib.__file__)", program="python")
    assert Path(place).is_relative_to(environment.parent)
    *_, bundle = medcalib("generate", "--data=phantom", "--loss=baseline_dice_ce")
    assert medcalib("generate", "--list")[-1] == f"  {Path(bundle).name}"
    small = [f"--{id_}={value}".replace(" ", "") for id_, value in tiny.items() if not id_.startswith("data::dataset")]
    for mode in ("train", "inference_pred", "inference_eval"):
        medcalib("run", "--bundle", Path(bundle).name, "--mode", mode, "--debug", *small)
    results = tmp_path / bundle / "seed_12345_debug"
    assert (results / "evaluation" / "summary.json").exists()
    assert list((results / "predictions").rglob("*_prob.nii.gz"))
    assert {path.name for path in tmp_path.iterdir()} == {"bundles", "data"}
