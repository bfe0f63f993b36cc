"""Commands of runs."""

import pytest

from medcalib.bundle.option_values import override_values
from medcalib.errors import UserError
from medcalib.study.planned_runs import on_command_line


@pytest.mark.parametrize(
    "value",
    [
        None, True, False, 0, 3, -2.5, 1e-5, "mean", "", "$@a + 1", "@b", "006", "5", "true", "null", "a b", "a, b",
        "[x]", [1, 2], ["006", "a, b"], [], [[1, 2], [3]], {"a": 1, "b": {"c": [None, "x y"]}},
    ],
)  # fmt: skip
def test_the_command_line_reads_what_was_meant(value):
    try:
        text = on_command_line("some::id", value)
    except UserError:
        assert value in ("null",), "only this word cannot be told from the value"
        return
    assert override_values({"some::id": text}) == {"some::id": value}


def test_ids_of_folders_keep_every_letter():
    assert on_command_line("data::dataset_dir", "1e5") == "1e5"
