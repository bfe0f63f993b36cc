"""Plan a dataset and write its fragment and a report, or nothing."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple

from medcalib.bundle.compose import generate
from medcalib.bundle.fragments import FragmentKind, fragment_names, own_fragments
from medcalib.bundle.layout import CONFIGS
from medcalib.bundle.templates import find_templates
from medcalib.data_check.cache_size import machine_memory
from medcalib.errors import UserError
from medcalib.files.writing import complete_file, write_json, write_text
from medcalib.planning.dataset_measures import measure_dataset
from medcalib.planning.dataset_source import DatasetSource, fragment_name
from medcalib.planning.fragment_plan import FragmentPlan, plan_fragment
from medcalib.planning.fragment_text import fragment_text
from medcalib.planning.planning_report import planning_report, report_page
from medcalib.planning.step_memory import Budget
from medcalib.planning.structure_names import with_overlap

__all__ = ["NewDataset", "fragment_place", "plan_new_dataset"]

_REPORTS = "data_reports"
_LOSS, _METHOD = "baseline_dice_ce", "deterministic"
_LOSS_OF_IMAGES = "baseline_ce"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class NewDataset(NamedTuple):
    """What was written.

    Attributes:
        fragment: the YAML file.
        report: the page.
        plan: what was chosen.
        commands: what to type next.
        remembered: of how many cases the measures were known already.
        notes: what is left out, and what else a user should know, one sentence each.
    """

    fragment: Path
    report: Path
    plan: FragmentPlan
    commands: list[str]
    remembered: int
    notes: Sequence[str] = ()


def fragment_place(name: str, output_dir: str | Path | None = None, is_given: bool = True) -> Path:
    """Where a new fragment is written: among those of a checkout, or in the folder ``data_fragments``.

    Args:
        name: name of the fragment.
        output_dir: another folder.
        is_given: whether the user chose the name; otherwise a number is added to one that is taken.

    Raises:
        UserError: it cannot be a name, or the user chose that of another fragment.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"A fragment cannot be called {name!r}: give --name letters, digits, dots, - and _ alone.")
    templates = find_templates()
    if output_dir is not None:
        folder = Path(output_dir).expanduser()
    elif (templates.parent / "pyproject.toml").is_file() and os.access(templates / CONFIGS / "data", os.W_OK):
        folder = templates / CONFIGS / "data"
    else:
        folder = own_fragments()
    taken = {*fragment_names(templates / CONFIGS, FragmentKind.DATA), *(path.stem for path in folder.glob("*.yaml"))}
    others = (f"{name}_{number}" for number in count(2))
    free = name if name not in taken else next(other for other in others if other not in taken)
    if is_given and free != name:
        raise UserError(
            f"There is a data fragment called {name} already, which is left as it is: choose another --name, such as "
            f"{free}."
        )
    return folder / f"{free}.yaml"


def plan_new_dataset(
    source: DatasetSource,
    budget: Budget,
    name: str | None = None,
    output_dir: str | Path | None = None,
    report_dir: str | Path | None = None,
    num_workers: int = 0,
    progress: bool = True,
) -> NewDataset:
    """Measure a dataset, plan its fragment, and write it with a report.

    Args:
        source: the dataset.
        budget: memory of a training step.
        name: name of the fragment; from the folder of the dataset if None.
        output_dir: folder of the fragment; see `fragment_place`.
        report_dir: folder of ``report.md``, ``report.json`` and ``measures.json``; ``data_reports/<name>`` if None.
            Measures that lie there from an earlier run are used for the cases whose files are the same.
        num_workers: processes that measure.
        progress: whether a bar shows how far it is.

    Raises:
        UserError: there is a fragment of that name, the dataset cannot be used, or something cannot be written.
    """
    path = fragment_place(name or fragment_name(source.root), output_dir, is_given=name is not None)
    name = path.stem
    reports = Path(_REPORTS) / name if report_dir is None else Path(report_dir).expanduser()
    measures = measure_dataset(
        source.cases, source.has_pictures, reports / "measures.json", num_workers, progress, source.ignored
    )
    source = with_overlap(source, measures)
    plan = plan_fragment(source, measures, budget, machine_memory())
    text = fragment_text(name, source, plan, budget.option)
    _check(name, text, source.classification)
    with complete_file(path) as draft:
        draft.write_text(text, encoding="utf-8")
        if path.exists():
            raise UserError(f"{path} was written by somebody else meanwhile: choose another --name.")
    loss = _LOSS_OF_IMAGES if source.classification else _LOSS
    commands = [
        f"medcalib generate --data {name} --loss {loss}",
        "medcalib check --bundle <bundle>",
        "medcalib run --bundle <bundle> --mode train --debug",
    ]
    report = planning_report(name, source, measures, plan, budget.option)
    write_json(reports / "report.json", report)
    write_text(reports / "report.md", report_page(report, commands))
    return NewDataset(path, reports / "report.md", plan, commands, measures.remembered, source.notes)


def _check(name: str, text: str, classification: bool) -> None:
    """Make a bundle of the fragment aside, which checks it against its contract.

    Raises:
        UserError: it breaks the contract.
    """
    with tempfile.TemporaryDirectory() as workshop:
        templates = Path(shutil.copytree(find_templates(), Path(workshop) / "templates"))
        (templates / CONFIGS / FragmentKind.DATA / f"{name}.yaml").write_text(text, encoding="utf-8")
        loss = _LOSS_OF_IMAGES if classification else _LOSS
        generate(templates, Path(workshop) / "bundles", name, loss, _METHOD)
