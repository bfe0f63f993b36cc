import dataclasses

import pytest
from tests.comparison_page import made_up

from medcalib.comparison_page.answer import answer


@pytest.fixture
def made(tmp_path):
    return made_up.of_segmentations(tmp_path, num_cases=6)


def changed(made, metric, method, **values):
    """The comparison with other numbers in a row of differences, and the same mean in the levels."""
    table, levels = made.table.copy(), made.levels.copy()
    row = (table["metric"] == metric) & (table["class"] == "mean") & (table["method"] == method)
    for name, value in values.items():
        table.loc[row, name] = value
        if name == "method_mean":
            same = (levels["metric"] == metric) & (levels["class"] == "mean") & (levels["method"] == method)
            levels.loc[same, "mean"] = value
    return dataclasses.replace(made, table=table, levels=levels)


def soft_is_best(made, low=-0.03, high=-0.01, p_holm=0.001):
    return changed(
        made,
        "macro_ace",
        "soft",
        method_mean=0.05,
        difference=-0.02,
        difference_low=low,
        difference_high=high,
        p_holm=p_holm,
    )


def dice(made, low, high, kept, method="soft"):
    middle = (low + high) / 2
    return changed(
        made, "mean_dice", method, difference=middle, difference_low=low, difference_high=high, non_inferior=kept
    )


def test_effect_and_interval_are_said(made):
    found = answer(dice(soft_is_best(made), -0.005, 0.004, True))
    assert found.effect.startswith("Of 2 methods compared with baseline, soft has the best ACE: 0.0500 against")
    assert "−0.0200 (95 % interval −0.0300 to −0.0100, Holm-corrected p = 0.001, 6 cases)" in found.effect  # noqa: RUF001
    assert found.kept.startswith("Dice is kept: it changes by")


def test_no_difference_is_claimed_where_the_interval_holds_0(made):
    assert "no difference from baseline is shown" in answer(soft_is_best(made, -0.03, 0.001, 0.2)).effect


def test_a_p_value_that_disagrees_is_said(made):
    assert "unclear" in answer(soft_is_best(made, -0.03, -0.001, 0.2)).effect


def test_without_an_interval_nothing_is_claimed(made):
    assert "nothing can be said" in answer(soft_is_best(made, float("nan"), float("nan"), float("nan"))).effect


def test_a_reference_that_is_best_is_said(made):
    worse = {"difference": 0.02, "difference_low": 0.01, "difference_high": 0.03, "p_holm": 0.001}
    for method, mean in (("hard", 0.3), ("soft", 0.2)):
        made = changed(made, "macro_ace", method, method_mean=mean, **worse)
    assert answer(made).effect.startswith("None of 2 methods has a better ACE than baseline; the nearest is soft")


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [(-0.2, -0.1, "Dice is lost"), (-0.02, 0.01, "It is not shown that Dice is kept")],
)
def test_a_loss_of_dice_is_said_with_the_best_that_keeps_it(made, low, high, told):
    made = dice(dice(soft_is_best(made), low, high, False), -0.001, 0.001, True, "hard")
    found = answer(made)
    assert found.kept.startswith(told)
    assert "of the methods that are shown to keep it, hard has the best ACE" in found.kept


def test_warnings_of_the_row_are_passed_on(made):
    found = answer(changed(soft_is_best(made), "macro_ace", "soft", warning="smaller than the spread between seeds"))
    assert found.warnings == ["ACE: smaller than the spread between seeds"]


def test_warnings_of_what_is_kept_are_passed_on(made):
    found = answer(changed(soft_is_best(made), "mean_dice", "soft", warning="with 2 cases intervals are too narrow"))
    assert found.warnings == ["Dice: with 2 cases intervals are too narrow"]
