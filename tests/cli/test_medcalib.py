"""The command `medcalib` and its verbs."""

import subprocess
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec

import pytest
from tests.conftest import REPOSITORY

from medcalib.cli import __main__, verb_check
from medcalib.cli.command_line import run_command
from medcalib.cli.options import call_with_options

CONSOLE = "from medcalib.cli.__main__ import main; main()"
LIGHT = "heavy = {'torch', 'monai', 'numpy', 'matplotlib'} & set(sys.modules); assert not heavy, heavy"


def medcalib(monkeypatch, capsys, *words):
    """Exit code, and what was printed to both streams."""
    monkeypatch.setattr(sys, "argv", ["medcalib", *words])
    code = 0
    try:
        __main__.main()
    except SystemExit as end:
        code = end.code
    return code, *capsys.readouterr()


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_the_verbs_are_listed_with_one_line_each(monkeypatch, capsys, words):
    code, told, error = medcalib(monkeypatch, capsys, *words)
    assert (code, error) == (0, "")
    lines = told.splitlines()[2:]
    assert {"calibrate", "check", "compare", "export", "generate", "run"} <= {line.split()[0] for line in lines}
    assert all(line.startswith("  ") and line.endswith(".") and len(line) <= 120 for line in lines)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["generat"], "error: medcalib has no verb 'generat'; did you mean generate?\n"),
        (
            ["xyz"],
            "error: medcalib has no verb 'xyz'; there is calibrate, check, compare, evaluate, export, generate, ",
        ),
        (["--debug"], "error: medcalib has no verb '--debug'"),
        (["run", "--mode=train"], "error: --bundle is missing"),
        (["run", "--bundle=x", "--mode", "train", "train"], "error: medcalib run: 'train' belongs to no option"),
        (
            ["generate", "--output_dir=x"],
            "error: medcalib generate has no option --output_dir; did you mean bundles_dir?",
        ),
        (["check"], "error: --bundle is missing"),
        (["check", "--bundle=x", "--debug"], "error: medcalib check has no option --debug"),
        (["export"], "error: --bundle is missing"),
        (["export", "--bundle=x"], "error: --format is missing; it is bundle, torchscript, onnx or torch_export."),
        (["calibrate", "--kind=logits"], "error: --predictions_dir is missing; medcalib calibrate --help"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(monkeypatch, capsys, words, message):
    code, told, error = medcalib(monkeypatch, capsys, *words)
    assert (code, told) == (2, "")
    assert error.startswith(message.rstrip("\n"))
    assert len(error.splitlines()) == 1


def test_the_version_is_that_of_the_package(monkeypatch, capsys):
    import medcalib as package

    assert medcalib(monkeypatch, capsys, "--version") == (0, f"{package.__version__}\n", "")


def test_modules_of_the_current_folder_can_be_imported(monkeypatch, capsys, tmp_path):
    """Such as functions that find the cases of a dataset; nothing there hides a module that is installed."""
    for name in ("cases_of_mine", "yaml"):
        (tmp_path / f"{name}.py").write_text("VALUE = 7")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    medcalib(monkeypatch, capsys, "--version")
    assert import_module("cases_of_mine").VALUE == 7
    assert find_spec("yaml").origin != str(tmp_path / "yaml.py")


@pytest.mark.parametrize(
    "command",
    [
        [f"import runpy; runpy.run_path({str(REPOSITORY / 'generate_bundle.py')!r}, run_name='__main__')"],
        [CONSOLE, "generate"],
    ],
)
def test_generate_prints_the_path_last_and_imports_nothing_heavy(tmp_path, command):
    program, *verb = command
    options = ["--data=phantom", "--loss=baseline_ce", "--bundles_dir=elsewhere"]
    words = [sys.executable, "-c", f"import sys; {program}; {LIGHT}", *verb, *options]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    bundle = tmp_path / done.stdout.splitlines()[-1]
    assert bundle.parent == tmp_path / "elsewhere"
    assert (bundle / "configs" / "metadata.json").exists()


def test_listing_the_verbs_imports_nothing_heavy():
    subprocess.run([sys.executable, "-c", f"import sys; {CONSOLE}; {LIGHT}"], check=True, capture_output=True)


class TestWarnings:
    def test_they_are_one_sentence_once(self):
        code = (
            "import warnings\n"
            "from medcalib.cli.command_line import run_command\n"
            "def work():\n"
            "    for level in (1, 2, 3):\n"
            "        warnings.warn('a weight\\n  is negative', stacklevel=level)\n"
            "    warnings.warn('no device', RuntimeWarning)\n"
            "warnings.simplefilter('always')\n"
            "run_command(work)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (done.stdout, done.stderr) == ("", "warning: a weight is negative\nwarning: no device\n")

    def test_they_can_be_caught_and_are_as_before_afterwards(self):
        before = warnings.formatwarning
        with pytest.warns(UserWarning, match="^a weight\n") as caught:
            run_command(lambda: [warnings.warn("a weight\nis negative", stacklevel=1) for _ in range(2)])
        assert len(caught) == 2
        assert warnings.formatwarning is before


def test_check_reads_every_case(monkeypatch):
    """The options reach the check as they were typed; what it finds is the exit code."""
    seen = {}

    def check_data(bundle, **options):
        seen.update(options, bundle=bundle)
        return type("Check", (), {"text": "", "report": {"problems": ["one"]}})

    monkeypatch.setattr("medcalib.data_check.check_data.check_data", check_data)
    words = ["--bundle=007", "--seed=3", "--limit_cases=5", "--device=cpu"]
    with pytest.raises(SystemExit, match="2"):
        call_with_options(verb_check.main, words, "check")
    assert seen == {
        "bundle": "007",
        "seed": 3,
        "output_dir": None,
        "allow_edited": False,
        "overrides": {"limit_cases": 5, "device": "cpu"},
    }


@pytest.mark.parametrize("words", [["generate", "--help"], ["--version"]])
def test_a_reader_that_has_gone_is_no_error(words):
    """As `head` has, once it has read enough."""
    process = subprocess.Popen(
        [sys.executable, "-c", CONSOLE, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == ("", 141)
