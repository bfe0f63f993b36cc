"""The checks before a commit are those of the tests, and the types reach whoever installs the package."""

import subprocess
import sys
import tomllib

import pytest
import yaml
from tests.conftest import REPOSITORY

HOOKS = [
    hook
    for repository in yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"]
    for hook in repository["hooks"]
]


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook["id"])
def test_hooks_are_what_the_test_script_runs(hook):
    lines = (REPOSITORY / "scripts" / "test.sh").read_text().splitlines()
    options = hook["entry"].removesuffix(" --force-exclude")
    assert any(line == options or line.startswith(f"{options} ") for line in lines)
    assert hook["language"] == "system"


def test_hooks_are_valid():
    command = [sys.executable, "-m", "pre_commit", "validate-config"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_types_are_in_the_package():
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "py.typed" in settings["package-data"]["medcalib"]
    assert (REPOSITORY / "src" / "medcalib" / "py.typed").is_file()
