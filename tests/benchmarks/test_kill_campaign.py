"""A few kills of the campaign, each in a process of its own."""

import subprocess
import sys

import pytest
from tests.conftest import REPOSITORY


@pytest.mark.very_slow
def test_a_few_kills_lose_nothing(tmp_path):
    script = REPOSITORY / "benchmarks" / "kill_campaign.py"
    done = subprocess.run(
        [sys.executable, str(script), "--kills", "7", "--folder", str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("nothing lost") == 7
    assert list(tmp_path.iterdir()) == []
