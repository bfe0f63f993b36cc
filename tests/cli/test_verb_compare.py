"""The command that compares evaluations."""

import dataclasses
import shlex
import shutil
import sys
import types
from pathlib import Path

import pandas as pd
import pytest
from tests.compare.made_evaluations import make_evaluation, write_evaluation

from medcalib.cli.command_line import run_command
from medcalib.cli.options import call_with_options
from medcalib.cli.verb_compare import main

PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "reference" / "published" / "acdc17"


@dataclasses.dataclass(frozen=True)
class Context:
    commands: list


@pytest.fixture
def pages(monkeypatch):
    """What was asked of the module that writes the page."""
    asked = []

    def write_page(comparison, output, context=None):
        asked.append((comparison, context))
        (output / "index.html").write_text("<html>")
        return output / "index.html"

    page = types.ModuleType("medcalib.comparison_page")
    page.PageContext, page.write_page = Context, write_page
    monkeypatch.setitem(sys.modules, "medcalib.comparison_page", page)
    return asked


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A bundle of two seeds, two folders of seeds, and one evaluation."""
    root = tmp_path_factory.mktemp("evaluations")
    for seed in (1, 2):
        write_evaluation(root / "bundle" / f"seed_{seed}" / "evaluation", make_evaluation("base", seed=seed))
        write_evaluation(root / f"hard_{seed}", make_evaluation("hard", seed=seed, shift=0.05))
    write_evaluation(root / "soft", make_evaluation("soft", shift=0.3))
    return root


def command(*words):
    run_command(call_with_options, main, words, "compare")


def test_folders_bundles_and_lists_are_compared(folders, pages, tmp_path, capsys):
    given = f"{{base: {folders}/bundle, hard: [{folders}/hard_1, {folders}/hard_2], 3: {folders}/soft}}"
    words = ["--evaluations", given, "--reference", "base", "--output", str(tmp_path / "out"), "--num_samples=200"]
    words += ["--primary=nll", "--non_inferior", "{mean_dice: 0.02, brier: 0.1}", "--confidence=0.9", "--seed=4"]
    command(*words)
    table = pd.read_csv(tmp_path / "out" / "comparison.csv")
    assert set(table["method"].astype(str)) == {"hard", "3"}
    assert (tmp_path / "out" / "index.html").exists()
    comparison, context = pages[0]
    numbers = {name: len(seeds) for name, seeds in comparison.evaluations.items()}
    assert numbers == {"base": 2, "hard": 2, "3": 1}
    assert (comparison.primary, comparison.confidence) == ("nll", 0.9)
    assert comparison.margins == {"mean_dice": 0.02, "brier": 0.1}
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == f"Report: {tmp_path / 'out' / 'index.html'}"
    assert "difference [90 %]" in printed
    # the command of the page does the same again, in the place of what it did before
    (repeated,) = context.commands
    name, verb, *again = shlex.split(repeated)
    assert (name, verb) == ("medcalib", "compare")
    command(*again)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out" / "comparison.csv"), table)
    assert pages[1][1] == context


def test_a_folder_of_tables_of_the_published_code_is_enough(folders, pages, tmp_path, capsys):
    for name in ("base", "soft"):
        (tmp_path / name).mkdir()
    for path in (folders / "soft").glob("*_raw.csv"):
        shutil.copy(path, tmp_path / "soft")
    for path in (folders / "bundle" / "seed_1" / "evaluation").glob("*_raw.csv"):
        lines = path.read_text().replace("\ncase_", "\n/data/case_").splitlines()
        (tmp_path / "base" / path.name).write_text("\n".join([lines[0] + ",mean,mean", *lines[1:]]))
    command(
        f"--evaluations={{base: {tmp_path}/base, soft: {tmp_path}/soft}}",
        "--reference=base",
        f"--output={tmp_path}/out",
    )
    assert set(pd.read_csv(tmp_path / "out" / "comparison.csv")["num_cases"]) == {20}
    assert "no bin_statistics.npz of soft and base" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluations": None}, "--evaluations is missing"),
        ({"reference": None}, "--reference is missing"),
        ({"output": None}, "--output is missing"),
        ({"evaluations": "base"}, "--evaluations must be folders by method"),
        ({"evaluations": "[base, soft]"}, "--evaluations must be folders by method"),
        ({"evaluations": "{base: folder"}, "is not a mapping as YAML writes it"),
        ({"evaluations": "{base: nowhere, soft: nowhere}"}, "nowhere is no folder"),
        ({"evaluations": "{base: }"}, "no folder is given for base"),
        ({"reference": "sof"}, "The reference 'sof' is none of the evaluations; did you mean soft"),
        ({"primary": "macro_acc"}, "primary is 'macro_acc', which is no metric of all; did you mean macro_ace"),
        ({"non_inferior": "0.01"}, "non_inferior must be margins by metric"),
        ({"confidence": "high"}, "confidence must be a number between 0 and 1"),
        ({"seed": "-1"}, "seed must be a whole number from 0 on, not -1"),
        ({"reference_method": "base"}, "has no option --reference_method; did you mean reference"),
    ],
)
def test_every_mistake_is_one_sentence_and_leaves_nothing(folders, pages, tmp_path, capsys, changes, message):
    options = {
        "evaluations": f"{{base: {folders}/bundle, soft: {folders}/soft}}",
        "reference": "base",
        "output": str(tmp_path / "out"),
    } | changes
    with pytest.raises(SystemExit) as stopped:
        command(*(f"--{name}={value}" for name, value in options.items() if value is not None))
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published results are not here")
def test_published_changes_and_p_values_are_printed_to_the_digit(pages, tmp_path, capsys):
    given = ", ".join(f"{name}: {PUBLISHED / name}" for name in ("baseline", "hardl1ace", "softl1ace"))
    command(f"--evaluations={{{given}}}", "--reference=baseline", f"--output={tmp_path}/out")
    lines = capsys.readouterr().out.splitlines()
    for title, method, *numbers in (
        ("ACE ", "hardl1ace", "-22.36 ± 15.05", "6.991e-26"),
        ("ACE ", "softl1ace", "-41.18 ± 16.09", "1.385e-42"),
        ("Dice ", "hardl1ace", "+0.07 ± 2.42", "0.981"),
        ("Dice ", "softl1ace", "-1.09 ± 2.35", "1.148e-06"),
    ):
        (line,) = [line for line in lines if line.lstrip().startswith(title) and method in line]
        for number in numbers:
            assert f" {number} " in line


@pytest.mark.parametrize("folders", ["{x: y}", "[[y]]", "[null]"])
def test_folders_are_texts_or_lists_of_them(folders, tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        command("--evaluations", f"{{a: b, c: {folders}}}", "--reference=a", f"--output={tmp_path / 'out'}")
    assert error.value.code == 2
    assert "c must be a folder or a list of folders" in capsys.readouterr().err
