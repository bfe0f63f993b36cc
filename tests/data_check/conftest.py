"""Fixtures of the check of data."""

import json
import shutil

import numpy as np
import pytest
from tests.data.layouts import write_volume
from tests.data_check.data_checks import options

from medcalib.cli.command_line import run_command
from medcalib.cli.options import call_with_options
from medcalib.cli.verb_check import main


@pytest.fixture
def check(capsys):
    """Run the command in this process: its exit code, what it printed, and its report if there is one."""

    def run(bundle, *flags, **settings):
        arguments = ["--bundle", str(bundle), *flags, *options(settings)]
        with pytest.raises(SystemExit) as end:
            run_command(call_with_options, main, arguments, "check")
        path = bundle / "data_check" / "data_check.json"
        printed = capsys.readouterr()
        report = json.loads(path.read_text()) if path.exists() else None
        return end.value.code, printed.out + printed.err, report

    return run


@pytest.fixture
def refused(check):
    """The only line that is printed for a mistake; nothing is left behind."""

    def run(bundle, *flags, **settings):
        code, printed, report = check(bundle, *flags, **settings)
        (line,) = printed.splitlines()
        assert (code, report) == (2, None)
        assert line.startswith("error: ")
        assert not (bundle / "data_check").exists()
        return line

    return run


@pytest.fixture(scope="module")
def whole_hippocampus(tmp_path_factory):
    """Twenty small cases in the layout of the Decathlon, two of them without the posterior part."""
    root = tmp_path_factory.mktemp("msd") / "Task04_Hippocampus"
    rng = np.random.default_rng(0)
    for number in range(1, 21):
        shape = (10 + number % 3, 12, 9 + number % 2)
        label = np.zeros(shape, np.uint8)
        label[3:6, 4:9, 3:8], label[6:9, 4:9, 3:8] = 1, 2 * (number > 2)
        name = f"hippocampus_{number:03}.nii.gz"
        image = (label * 50 + rng.normal(100, 5, shape)).astype(np.float32)
        write_volume(root / "imagesTr" / name, image, axcodes="RAS")
        write_volume(root / "labelsTr" / name, label, axcodes="RAS")
    return root


@pytest.fixture
def hippocampus_dir(whole_hippocampus, tmp_path):
    return shutil.copytree(whole_hippocampus, tmp_path / "Task04_Hippocampus")


@pytest.fixture
def hippocampus(tmp_path, make_bundle):
    return make_bundle(tmp_path, data="hippocampus")
