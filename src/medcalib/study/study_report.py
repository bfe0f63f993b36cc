"""Compare what the runs of a study left, and write the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcalib.errors import UserError
from medcalib.files.folders import FolderDraft
from medcalib.files.result_tables import write_table
from medcalib.files.writing import read_json, write_json
from medcalib.study.planned_runs import Plan
from medcalib.study.run_states import State
from medcalib.study.study_file import Study

if TYPE_CHECKING:
    from medcalib.compare import Evaluation

__all__ = ["write_report"]

REPORT = "report"
STUDY = "study.json"
SHIFTED = "shifted.csv"


def write_report(study: Study, plan: Plan, states: Mapping[str, State], output_dir: Path, command: str) -> Path | None:
    """Write the report on what is done; an earlier one of another study file is kept beside it.

    Args:
        study: the study.
        plan: its runs.
        states: state of every run by id.
        output_dir: folder of the study.
        command: what repeats the study.

    Returns:
        The page; None where the reference, or all but the reference, is not evaluated with every seed.
    """
    from medcalib.compare import compare, read_evaluation, write_tables
    from medcalib.comparison_page import PageContext, shift_rows, write_page

    done = [
        name
        for name, evaluated in plan.evaluated.items()
        if all(states[id_] is State.DONE for id_ in evaluated.evaluations.values())
    ]
    whole = [name for name in done if plan.evaluated[name].shift is None]
    if plan.reference not in whole or len(whole) < 2:
        return None

    def read(name: str) -> list[Evaluation]:
        ids = plan.evaluated[name].evaluations.values()
        return [read_evaluation(plan.runs[id_].output_dir / "evaluation") for id_ in ids]

    evaluations = {name: read(name) for name in whole}
    comparison = compare(
        evaluations, plan.reference, primary=study.primary, non_inferior=study.non_inferior, bar=study.bar
    )
    shifted = {
        place: compare({of: read(name) for of, name in names.items()}, plan.reference, comparison.primary, num_samples=999)
        for place, names in _shifted(plan, done, whole).items()
    }
    context = PageContext(**_context(study, plan, whole, command), **({"shifted": shifted} if shifted else {}))
    with FolderDraft(output_dir / REPORT) as draft:
        draft.folder.mkdir()
        write_tables(comparison, draft.folder)
        if shifted:
            write_table(shift_rows(comparison, shifted), draft.folder / SHIFTED)
        page = write_page(comparison, draft.folder, context)
        write_json(draft.folder / STUDY, {"digest": study.digest, "study": study.content, "methods": whole})
        name = page.relative_to(draft.folder)
        if draft.path.exists() and not _is_of(draft.path, study):
            print(f"The earlier report is kept in {draft.keep_old()}.")
        draft.replace()
    return output_dir / REPORT / name


def _shifted(plan: Plan, done: Sequence[str], whole: Sequence[str]) -> dict[tuple[str, int], dict[str, str]]:
    """Combinations on images that were made worse: by kind and level, the name of each by that on images as they are.

    Those without the reference, or with nothing but it, are left out.
    """
    found: dict[tuple[str, int], dict[str, str]] = {}
    for name in done:
        shift = plan.evaluated[name].shift
        if shift is not None and shift.of in whole:
            found.setdefault((shift.kind, shift.level), {})[shift.of] = name
    return {place: names for place, names in found.items() if plan.reference in names and len(names) > 1}


def _context(study: Study, plan: Plan, names: list[str], command: str) -> dict[str, Any]:
    sweep = {
        id_: {name: float(value) for name, value in values.items() if name in names and _is_number(value)}
        for id_, values in plan.sweep.items()
    }
    return {
        "title": study.title or study.name,
        "question": study.question or "",
        "commands": [command, *(run.typed for run in plan.runs.values())],
        "sweep": {id_: values for id_, values in sweep.items() if values},
        "groups": {name: plan.groups[name] for name in names},
        "true_names": {name: plan.evaluated[name].description for name in names},
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_of(report: Path, study: Study) -> bool:
    try:
        return read_json(report / STUDY, "")["digest"] == study.digest
    except (UserError, KeyError):
        return False
