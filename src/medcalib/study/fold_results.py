"""What the runs of a study evaluated: one run, or those of all folds taken together."""

from __future__ import annotations

import contextlib
import io
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from medcalib.bundle.checkpoint_paths import output_name, weights_dir
from medcalib.handlers.training_record import read_record
from medcalib.study.planned_runs import Plan, Run
from medcalib.study.study_file import Study

if TYPE_CHECKING:
    from medcalib.compare import Evaluation

__all__ = ["found_evaluation"]

OUT_OF_FOLD = "out_of_fold"


def found_evaluation(study: Study, plan: Plan, name: str, seed: int, output_dir: Path) -> Evaluation:
    """The evaluation of a combination; of a cross-validation that of all its cases, which is written.

    It lies in ``out_of_fold/<name>/seed_<n>/evaluation``, and beside it a link to the predictions of the first fold.

    Args:
        study: the study.
        plan: its runs.
        name: name of the combination on the report.
        seed: one of the seeds.
        output_dir: folder of the study.

    Raises:
        UserError: as `medcalib.compare.read_evaluation` and `medcalib.compare.merge_folds`.
    """
    from medcalib.compare import merge_folds, read_evaluation

    runs = [plan.runs[id_] for id_ in plan.evaluated[name].evaluations[seed]]
    if not plan.folds:
        return read_evaluation(runs[0].output_dir / "evaluation")
    folder = output_dir / OUT_OF_FOLD / re.sub(r"[^\w.+=-]+", "_", name) / output_name(seed, study.debug)
    found = dict(zip(plan.folds, (read_evaluation(run.output_dir / "evaluation") for run in runs), strict=True))
    # of some of the folds, or in runs of seconds, not every case is evaluated
    whole = not study.debug and not isinstance(study.folds, tuple) and "limit_cases" not in study.overrides
    seen = {number: _seen(run) for number, run in zip(plan.folds, runs, strict=True)} if whole else None
    # its tables stand on the page
    with contextlib.redirect_stdout(io.StringIO()):
        merged = merge_folds(found, folder / "evaluation", seen)
    predictions = plan.evaluated[name].predictions
    if predictions is not None:
        _link(folder / "predictions", plan.runs[predictions].output_dir / "predictions")
    return merged


def _seen(run: Run) -> list[str]:
    # results on worse images lie deeper than the weights
    models = run.overrides.get("models_dir", run.bundle / output_name(run.seed, run.debug) / "models")
    record = read_record(weights_dir(run.bundle, models, run.seed, run.debug))
    return [] if record is None else record.case_ids


def _link(link: Path, folder: Path) -> None:
    if folder.is_dir() and not os.path.lexists(link):
        link.symlink_to(os.path.relpath(folder, link.parent), target_is_directory=True)
