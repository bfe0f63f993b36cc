"""The report of a study whose images of test cases are made worse."""

import pandas as pd
import pytest
from tests.comparison_page import made_up
from tests.study.test_expansion import plan

from medcalib import comparison_page
from medcalib.study import study_report
from medcalib.study.run_states import State
from medcalib.study.study_file import Study

SWEEP = {"data::corruption": ("noise", "blur"), "data::corruption_level": (1, 3)}
METHODS = ("deterministic", "temperature_scaling")
FACTORS = {"noise": 0.1, "blur": 0.3}


def evaluated(root):
    """What stands for the runs: the error grows by a tenth with each level of noise, by three with those of blur."""

    def found(study, of, name, seed, output_dir):
        method = name.split(" / ")[0]
        made = made_up.segmentation(root, method, METHODS.index(method), seed=seed)
        if (shift := of.evaluated[name].shift) is not None:
            made.metrics["macro_ace"] *= 1 + FACTORS[shift.kind] * shift.level
        return made

    return found


def test_worse_images_have_a_table_of_their_own_and_stay_out_of_the_comparison(monkeypatch, tmp_path):
    study = Study("s", "phantom", ("baseline_ce",), METHODS, sweep=SWEEP, predictions=0, primary="macro_ace")
    runs = plan(methods=METHODS, sweep=SWEEP)
    contexts = []

    def write_page(comparison, output, context):
        contexts.append(context)
        (output / "index.html").write_text("the page")
        return output / "index.html"

    monkeypatch.setattr(study_report, "found_evaluation", evaluated(tmp_path))
    monkeypatch.setattr(comparison_page, "write_page", write_page)
    states = dict.fromkeys(runs.runs, State.DONE)
    page = study_report.write_report(study, runs, states, tmp_path / "study", "medcalib study s.yaml")

    places = [(kind, level) for kind in FACTORS for level in (1, 3)]
    assert list(contexts[0].shifted) == places
    rows = pd.read_csv(page.with_name("shifted.csv")).set_index(["corruption", "level", "method", "metric"])["mean"]
    for method in METHODS:
        good = rows["none", 0, method, "macro_ace"]
        for kind, level in places:
            assert rows[kind, level, method, "macro_ace"] == pytest.approx(good * (1 + FACTORS[kind] * level))
            assert rows[kind, level, method, "mean_dice"] == rows["none", 0, method, "mean_dice"]
    compared = pd.read_csv(page.with_name("levels.csv"))
    assert set(compared["method"]) == set(METHODS)

    # one run that failed takes its own place with it, and no other
    failed = next(id_ for id_ in states if "temperature" in id_ and "blur_3" in id_)
    study_report.write_report(study, runs, {**states, failed: State.FAILED}, tmp_path / "study", "again")
    assert list(contexts[1].shifted) == places[:-1]
