"""Write the page."""

from __future__ import annotations

import html
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

import medcalib
from medcalib.compare import Comparison
from medcalib.comparison_page.answer import answer
from medcalib.comparison_page.bar_table import bar_table
from medcalib.comparison_page.chart import FigureBlock
from medcalib.comparison_page.comparison_charts import forest, profile, sweeps, trade_off
from medcalib.comparison_page.cost_table import cost_table
from medcalib.comparison_page.gallery import Gallery, gallery
from medcalib.comparison_page.interactive_chart import interactive_chart
from medcalib.comparison_page.method_rows import is_classification
from medcalib.comparison_page.method_style import DARK, LIGHT, MethodStyle, method_styles
from medcalib.comparison_page.metric_words import main_metrics, metric_label
from medcalib.comparison_page.page_context import PageContext
from medcalib.comparison_page.page_tables import Cell, Table, class_tables, difference_table, level_table
from medcalib.comparison_page.printed_chart import print_figure
from medcalib.comparison_page.quality_charts import (
    area_table,
    case_scores,
    choice_table,
    correlation_tables,
    flagging,
    poor_below,
    retention,
    risk,
)
from medcalib.comparison_page.rank_table import rank_table
from medcalib.comparison_page.reliability_charts import reliability
from medcalib.comparison_page.repeating import provenance_table, version_table
from medcalib.comparison_page.shift_charts import decay, decay_table
from medcalib.comparison_page.stratum_tables import stratum_tables
from medcalib.files.folders import FolderDraft
from medcalib.files.writing import write_text

__all__ = ["write_page"]

FIGURES = "figures"
ERRORS = ("ace", "ece", "mce")
"""How names of calibration errors end."""


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        anchor: by which it is linked.
        title: its heading.
        blocks: what it holds, in order.
        texts: sentences before that.
        missing: what would bring what is not there; nothing if empty.
    """

    anchor: str
    title: str
    blocks: Sequence[Table | FigureBlock | Gallery] = ()
    texts: Sequence[str] = ()
    missing: str = ""
    items: Sequence[str] = field(default_factory=tuple)
    commands: Sequence[str] = field(default_factory=tuple)


def write_page(comparison: Comparison, output: str | Path, context: PageContext | None = None) -> Path:
    """Write a comparison as ``index.html``, which opens offline, and its figures as ``figures/*.pdf``.

    A part whose input is missing is left out, with a sentence that says what would bring it. Beside the comparison
    itself are read: predictions in ``predictions/`` and costs in ``cost/`` beside each folder ``evaluation``.

    Args:
        comparison: what was compared, as `medcalib.compare.compare` returns it.
        output: folder to which the files go; a page of an earlier time is replaced.
        context: what the page says besides.

    Returns:
        The path of the page.

    Raises:
        UserError: the files cannot be written.
    """
    context = context or PageContext()
    output = Path(output)
    styles = method_styles(list(comparison.evaluations), comparison.reference, context.groups)
    sections = list(_sections(comparison, context))
    figures = [block for section in sections for block in section.blocks if isinstance(block, FigureBlock)]
    with FolderDraft(output / FIGURES) as draft:
        draft.check_replaceable()
        draft.folder.mkdir()
        for block in figures:
            print_figure(block, styles, draft.folder / f"{block.name}.pdf")
        draft.replace()
    write_text(output / "index.html", _html(comparison, context, sections, styles))
    return output / "index.html"


def _sections(comparison: Comparison, context: PageContext) -> Iterator[Section]:
    metrics = main_metrics(dict.fromkeys(comparison.levels["metric"]), comparison.primary)
    images = is_classification(comparison)
    quality = next((name for name in ("accuracy", "auc") if images and name in metrics), "mean_dice")
    kind = comparison.primary.rpartition("_")[2]
    errors = [name for name in metrics if name.endswith(kind if kind in ERRORS else "ece")] or [comparison.primary]
    found = answer(comparison)
    yield Section(
        "answer",
        "Answer",
        [block for block in (bar_table(comparison),) if block],
        texts=[text for text in (context.question, found.effect, found.kept, found.bar) if text],
        items=found.warnings,
    )
    ranks = rank_table(comparison, metrics)
    levels = level_table(comparison, metrics, context.true_names)
    yield Section("methods", "All methods", [levels, *([ranks] if ranks else [])])
    shown = [block for block in (forest(comparison, metrics),) if block]
    differences = [
        table for place, name in enumerate(metrics) if (table := difference_table(comparison, name, place > 0)).rows
    ]
    yield Section(
        "differences",
        f"Differences to {comparison.reference}",
        [*shown, *differences],
        missing="" if shown else "There is nothing to compare with: give evaluations of a second method.",
    )
    yield _of_blocks(
        "trade-off",
        f"Calibration against {metric_label(quality)}",
        [trade_off(comparison, errors, quality), profile(comparison, metrics)],
        f"Nothing can be drawn without values of {metric_label(quality)} and of a calibration error.",
    )
    if context.sweep:
        wanted = list(dict.fromkeys((comparison.primary, quality, "nll", "brier")))
        yield _of_blocks(
            "sweep", "Settings that were varied", sweeps(comparison, context, wanted), "No value is known."
        )
    if context.shifted:
        yield _of_blocks(
            "shift",
            "On images that were made worse",
            [decay(comparison, context.shifted), decay_table(comparison, context.shifted)],
            "No value is known.",
        )
    yield _of_blocks(
        "reliability",
        "Reliability",
        reliability(comparison),
        "Needs bin_statistics.npz in the folders of the evaluations, which --mode inference_eval writes.",
    )
    yield from _of_scores(comparison, images)
    yield _of_blocks(
        "classes",
        "By class",
        class_tables(comparison, metrics),
        "The evaluations hold no values by class.",
    )
    yield _of_blocks(
        "strata",
        "By stratum",
        stratum_tables(comparison, metrics),
        "The cases have no attributes, such as vendor or centre: let the function that data::cases names give them, "
        "and evaluate again.",
    )
    yield _of_blocks(
        "cost",
        "Cost",
        [cost_table(comparison)],
        "Time and memory are not known: runs of a bundle write them to cost/ beside evaluation/.",
    )
    if not images:
        yield _of_blocks(
            "gallery",
            "Gallery",
            [gallery(comparison)],
            "No predictions of the same cases lie beside the evaluations: run --mode inference_pred of each bundle.",
        )
    yield _notes(comparison)
    yield Section(
        "provenance",
        "Provenance",
        [table for table in (provenance_table(comparison), version_table(comparison)) if table],
        commands=context.commands,
        missing="" if context.commands else "The commands that repeat this were not given.",
    )


def _of_blocks(anchor: str, title: str, blocks: Sequence[Any], missing: str) -> Section:
    there = [block for block in blocks if block is not None]
    return Section(anchor, title, there, missing="" if there else missing)


def _of_scores(comparison: Comparison, images: bool) -> Iterator[Section]:
    found = case_scores(comparison)
    absent = (
        "Needs uncertainty scores in cases.csv of the evaluations, which --mode inference_eval writes, that differ "
        "from case to case."
    )
    lacking = [name for name in comparison.evaluations if name not in found]
    texts = [f"Without scores, and so not shown: {', '.join(lacking)}."] if found and lacking else []
    if images:
        blocks = [retention(found), risk(found), area_table(found)] if found else []
        yield Section(
            "uncertainty",
            "Does uncertainty find wrong predictions?",
            [block for block in blocks if block is not None],
            texts,
            "" if any(blocks) else absent,
        )
        return
    threshold, limit = poor_below(comparison)
    curves = (
        [flagging(found, threshold, limit), choice_table(comparison), risk(found), area_table(found)] if found else []
    )
    if found and curves[0] is None:
        texts.append(f"No case has a Dice below {limit}, so there is nothing for quality control to find.")
    yield Section(
        "uncertainty",
        "Does uncertainty find poor segmentations?",
        [block for block in curves if block is not None],
        texts,
        "" if any(curves) else absent,
    )
    yield _of_blocks("correlation", "Correlation of uncertainty with quality", correlation_tables(found), absent)


def _notes(comparison: Comparison) -> Section:
    left_out = {name: cases for name, cases in comparison.left_out.items() if cases}
    rows = [
        [Cell(name, method=name), Cell(str(len(cases)), len(cases)), Cell(", ".join(cases))]
        for name, cases in left_out.items()
    ]
    tables = [Table("Cases that not all methods have.", ["Method", "Number", "Cases"], rows)] if rows else []
    texts = [] if comparison.notes or rows else ["Nothing to note."]
    return Section("notes", "Notes and cases left out", tables, texts, items=comparison.notes)


def _html(
    comparison: Comparison, context: PageContext, sections: Sequence[Section], styles: dict[str, MethodStyle]
) -> str:
    environment = Environment(
        loader=PackageLoader("medcalib.comparison_page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["table"] = lambda block: isinstance(block, Table)
    environment.tests["figure"] = lambda block: isinstance(block, FigureBlock)
    environment.filters["embedded"] = _embedded
    environment.filters["breakable"] = _breakable
    environment.filters["drawn"] = lambda chart: interactive_chart(chart, styles)
    text: str = environment.get_template("page.html").render(
        comparison=comparison,
        context=context,
        sections=sections,
        styles=styles,
        light=LIGHT,
        dark=DARK,
        css=_source("page.css"),
        script=_source("page.js"),
        plotly=get_plotlyjs(),
        version=medcalib.__version__,
        plotly_version=version("plotly"),
        python=sys.version.split()[0],
    )
    return text


def _source(name: str) -> str:
    """Style or script of the page, which holds nothing of the user's."""
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


def _breakable(text: str) -> str:
    """A text as HTML, broken after ``_`` and ``+`` rather than elsewhere."""
    return re.sub("([_+])", r"\1<wbr>", html.escape(text))


def _embedded(content: Any) -> str:
    """Values as JSON in a script element, which no value can end."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("&", "\\u0026").replace(">", "\\u003e")
