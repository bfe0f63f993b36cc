"""setup.sh with a stand-in for Python, which records how it is called and says what pip would."""

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PYTHON = r"""#!/bin/bash
echo "$*" >> "$RECORD"
case "$*" in
    *"version_info < "*) exit "${OLD:-0}" ;;
    *"version_info[:2]"*) echo "${VERSION:-3.11}" ;;
    *ensurepip*) exit "${NO_ENSUREPIP:-0}" ;;
    "-m venv --clear "*)
        rm -rf "$4" && mkdir -p "$4/bin" && touch "$4/pyvenv.cfg"
        sed "s/VERSION:-3.11/OWN:-3.11/" "$0" > "$4/bin/python" && chmod +x "$4/bin/python"
        ;;
    "-m pip --version") [ ! -e "$(dirname "$0")/dead" ] ;;
    "-m pip install"*)
        echo "Collecting torch==2.13.0 (from -r requirements.lock (line 63))"
        echo "  Downloading torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl (526.6 MB)"
        echo "  Downloading tqdm-4.70.1-py3-none-any.whl (78 kB)"
        echo "  Downloading nvidia_cublas-13.1.1.3-py3-none.whl (1.2 GB)"
        echo "WARNING: something that nobody needs to read" >&2
        if [ -n "${PIP_FAILS:-}" ]; then echo "ERROR: No space left on device" >&2; exit 1; fi
        case "$*" in
            *"-e ."*) echo "Installing collected packages: medcalib" ;;
            *) echo "Installing collected packages: tqdm, nvidia-cublas, torch" ;;
        esac
        ;;
esac
"""


@pytest.fixture
def setup(tmp_path):
    """Source setup.sh in a project folder of its own; the exit code, what was printed, and the calls of Python."""
    root = tmp_path / "my project"
    (root / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "setup.sh", root / "scripts")
    for name in ("requirements.lock", "requirements-test.lock", "requirements-docs.lock", "pyproject.toml"):
        (root / name).write_text(name)
    python, record = tmp_path / "python3", tmp_path / "record"
    python.write_text(PYTHON)
    python.chmod(0o755)

    def run(code="", **environment):
        record.write_text("")
        done = subprocess.run(
            ["bash", "-c", f"{code}\nsource scripts/setup.sh\necho PATH=$PATH"],
            cwd=root,
            env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "RECORD": str(record)} | environment,
            capture_output=True,
            text=True,
        )
        done.calls = record.read_text().splitlines()
        done.installed = [call for call in done.calls if call.startswith("-m pip install")]
        return done

    run.root = root
    return run


def error(done):
    assert done.returncode == 2, (done.stdout, done.stderr)
    *_, line = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert line.endswith(".")
    return line


def test_makes_an_environment_and_uses_it(setup):
    done = setup()
    assert (done.returncode, done.stderr) == (0, "")
    assert f"PATH={setup.root}/.venv/bin:" in done.stdout
    first, second = done.installed
    assert first.endswith("-r requirements.lock -c requirements.lock")
    assert second.endswith("--no-deps --no-build-isolation -e .")


def test_shows_what_is_large(setup):
    *lines, _ = setup().stdout.splitlines()
    assert lines[:4] == [
        "Installing requirements.lock into .venv (once)",
        "  downloading torch (526.6 MB)",
        "  downloading nvidia_cublas (1.2 GB)",
        "  unpacking 3 packages, which takes minutes where PyTorch brings CUDA along",
    ]


def test_does_nothing_the_second_time(setup):
    setup()
    done = setup()
    assert done.installed == []
    assert done.stdout.startswith("PATH=")


@pytest.mark.parametrize(("option", "name"), [("setup_tests", "test"), ("setup_docs", "docs")])
def test_installs_what_tests_and_pages_need_only_for_them(setup, option, name):
    setup()
    (install,) = setup(f"{option}=true").installed
    assert install.endswith(f"-r requirements-{name}.lock -c requirements.lock")
    assert setup().installed == []


def test_a_changed_lock_file_is_installed(setup):
    setup()
    (setup.root / "requirements.lock").write_text("other")
    assert len(setup().installed) == 2


@pytest.mark.parametrize(("environment", "expected"), [
    ({"OLD": "1"}, "Python 3.11 or newer is needed"),
    ({"NO_ENSUREPIP": "1"}, "python3-venv"),
    ({"PYTHON": "/no/such/python"}, "'/no/such/python' is none"),
])  # fmt: skip
def test_says_what_python_lacks(setup, environment, expected):
    assert expected in error(setup(**environment))
    assert not (setup.root / ".venv").exists()


@pytest.mark.parametrize("dead", ["no pip", "no python"])
def test_makes_a_dead_environment_again(setup, dead):
    setup()
    if dead == "no pip":
        (setup.root / ".venv" / "bin" / "dead").touch()
    else:
        (setup.root / ".venv" / "bin" / "python").unlink()
    done = setup()
    assert "does not work: making it again" in done.stdout
    assert len(done.installed) == 2
    assert setup().installed == []


def test_a_dead_environment_is_kept_while_nothing_better_can_be_made(setup):
    setup()
    (setup.root / ".venv" / "bin" / "dead").touch()
    error(setup(NO_ENSUREPIP="1"))
    assert (setup.root / ".venv" / "pyvenv.cfg").exists()


def test_leaves_a_folder_alone_that_is_no_environment(setup):
    (setup.root / "own").mkdir()
    (setup.root / "own" / "thesis.tex").touch()
    assert "'own' is no virtual environment" in error(setup(VENV="own"))
    assert (setup.root / "own" / "thesis.tex").exists()


def test_another_python_needs_another_folder(setup):
    python = str(setup.root.parent / "python3")
    setup()
    assert setup(PYTHON=python).returncode == 0
    assert "holds Python 3.11, but PYTHON is 3.13: set VENV" in error(setup(PYTHON=python, VERSION="3.13"))
    done = setup(PYTHON=python, VERSION="3.13", OWN="3.13", VENV=".venv-3.13")
    assert f"PATH={setup.root}/.venv-3.13/bin:" in done.stdout


def test_pip_that_fails(setup):
    done = setup(PIP_FAILS="1")
    assert "'.venv/setup.log' says why" in error(done)
    assert "ERROR: No space left on device" in done.stderr
    assert "nobody needs to read" in (setup.root / ".venv" / "setup.log").read_text()
    assert "PATH=" not in done.stdout
    assert len(setup().installed) == 2


@pytest.mark.parametrize("arguments", [[], ["oldest"]])
def test_versions_are_lowest_or_newest(arguments):
    done = subprocess.run([ROOT / "scripts" / "test_versions.sh", *arguments], capture_output=True, text=True)
    assert "lowest, or newest" in error(done)


def test_the_lock_files_hold_what_the_project_names():
    """Each its own: what runs need, and what only tests need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for lock, texts in {
        "requirements.lock": project["dependencies"],
        "requirements-test.lock": project["optional-dependencies"]["test"],
    }.items():
        pinned = [Requirement(line) for line in (ROOT / lock).read_text().splitlines() if line[:1] not in ("#", "")]
        versions = {pin.name.lower().replace("_", "-"): str(pin.specifier).removeprefix("==") for pin in pinned}
        for wanted in map(Requirement, texts):
            assert wanted.specifier.contains(versions[wanted.name.lower()]), wanted


def test_monai_of_the_bundles_is_new_enough():
    """1.6.0 knows no `ignore_index`, without which no loss with Dice works."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (monai,) = (Requirement(text) for text in project["dependencies"] if text.startswith("monai"))
    assert "1.6.0" not in monai.specifier
    assert "1.6.1" in monai.specifier
