"""Compare what guarantees promise with what happened on the cases of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from ignite.engine import Engine, Events
from monai.handlers import from_engine

from medcalib.data.dealing import merged_rows
from medcalib.files.result_tables import write_table
from medcalib.files.writing import write_json
from medcalib.guarantees import Guarantee, JointGuarantees
from medcalib.handlers.result_folder import ResultFolder
from medcalib.handlers.results import GUARANTEED_CASES, results_of
from medcalib.keys import CaseKeys
from medcalib.metrics import MeanRisk, mean_risk
from medcalib.transforms.guaranteed_cases import GUARANTEED
from medcalib.visualize import GuaranteeRow, draw_guarantees

__all__ = ["GuaranteeReportHandler"]

FILENAME = "filename"
SEND = "send_to_human"
_NO_PROMISE = "nothing promised"


class GuaranteeReportHandler:
    """Write ``guarantees.json``, ``guarantees.csv`` and a figure for each guarantee, and say it in plain words.

    ``guarantees.json`` holds of every guarantee what it promises, and of every class the level that is promised, the
    mean loss of the cases of the evaluation with its interval (`medcalib.metrics.mean_risk`), over how many cases it
    was taken, and the same for every group; of sets of voxels by how much they are larger than the segmentation, as a
    ratio (``stretch``) and as a volume (``added``), median over cases; where cases are sent to a human, how many.
    ``guarantees.csv`` has one row a case: its group, what was said of it, and its losses.

    Args:
        folder: where the files go.
        guarantees: the fitted guarantees.
        class_names: names of the classes.
        confidence: of the intervals.
        formats: file formats of the figures.
        dpi: resolution of raster formats.

    Example:
        >>> from medcalib.guarantees import RecallControl
        >>> engine, folder = Engine(lambda engine, batch: batch), ResultFolder("evaluation")
        >>> guarantees = JointGuarantees([RecallControl(["organ"], alpha=0.1)])
        >>> for handler in (folder, GuaranteeReportHandler(folder, guarantees, ["organ"])):
        ...     handler.attach(engine)
    """

    def __init__(
        self,
        folder: ResultFolder,
        guarantees: JointGuarantees,
        class_names: Sequence[str],
        confidence: float = 0.95,
        formats: Sequence[str] = ("png", "pdf"),
        dpi: int = 150,
    ) -> None:
        self.folder = folder
        self.guarantees = guarantees
        self.class_names = tuple(class_names)
        self.confidence = confidence
        self.formats = tuple(formats)
        self.dpi = dpi
        self.batch_transform = from_engine(CaseKeys.CASE)
        self._rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        results_of(engine).offer(GUARANTEED_CASES, lambda: merged_rows(self._rows, engine.state.dataloader))
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def _start(self, _engine: Engine) -> None:
        self._rows = []

    def _update(self, engine: Engine) -> None:
        for case, output in zip(self.batch_transform(engine.state.batch), engine.state.output, strict=True):
            self._rows.append({FILENAME: str(case), **output[GUARANTEED]})

    def _write(self, engine: Engine) -> None:
        results_of(engine).complete()
        rows = results_of(engine)[GUARANTEED_CASES]
        if not self.folder.writes:
            return
        write_table(pd.DataFrame([self._table_row(row) for row in rows]), self.folder.file("guarantees.csv"))
        report: dict[str, Any] = {"num_cases": len(rows), "confidence": self.confidence}
        report["guarantees"] = {part.kind: self._of_part(part, rows) for part in self.guarantees.fitted_parts}
        if self.guarantees.lacking:
            report["promises_nothing"] = dict(self.guarantees.lacking)
        write_json(self.folder.file("guarantees.json"), report)
        self.folder.tell(guarantee_text(report))
        for part in self.guarantees.fitted_parts:
            self._draw(part, rows)

    def _table_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        losses = {
            f"{part.kind}_loss_{unit}": row["losses"][part.kind][index]
            for part in self.guarantees.fitted_parts
            for index, unit in enumerate(part.unit_names)
        }
        return {FILENAME: row[FILENAME], "group": row["group"], "dice": row["dice"], **row["values"], **losses}

    def _of_part(self, part: Guarantee, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        groups = _groups(part, rows)
        return {
            "promise": part.promise(),
            "loss": part.loss_name,
            "promised": part.level,
            "delta": part.delta,
            "classes": {
                unit: {
                    **self._risk(part, index, rows)._asdict(),
                    "fitted": part.fitted(unit),
                    "groups": {
                        group: self._risk(part, index, _within(part, group, rows))._asdict()
                        | {"fitted": part.fitted(unit, group), "promised": part.has_own(unit, group)}
                        for group in groups
                    },
                }
                for index, unit in enumerate(part.unit_names)
            },
            "sets": self._sets(part, rows),
            **({"sent_to_human": _num_sent(rows)} if part.kind.startswith("selective_") else {}),
            "notes": [*part.notes(), *(note for group in groups for note in part.notes_on_new(group))],
        }

    def _risk(self, part: Guarantee, index: int, rows: Sequence[Mapping[str, Any]]) -> MeanRisk:
        losses = [row["losses"][part.kind][index] for row in rows]
        return mean_risk(losses, part.binary_losses, self.confidence)

    def _sets(self, part: Guarantee, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in _set_names(part, rows):
            found[name] = {}
            for index, unit in enumerate(self.class_names):
                sizes = _sizes(rows, name, index)
                found[name][unit] = {
                    **{measure: _median(values) for measure, values in sizes.items()},
                    "num_cases": int(np.isfinite(sizes["stretch"]).sum()),
                }
            found[name]["unit"] = rows[0]["unit"]
        return found

    def _draw(self, part: Guarantee, rows: Sequence[Mapping[str, Any]]) -> None:
        unit_of_size = rows[0]["unit"]
        drawn = []
        for index, unit in enumerate(part.unit_names):
            for group in (None, *_groups(part, rows)):
                own = rows if group is None else _within(part, group, rows)
                sizes = {}
                for name in _set_names(part, rows):
                    of_set = _sizes(own, name, index)
                    sizes[f"size of the {name} set / segmentation"] = of_set["stretch"]
                    sizes[f"{name} set: added {unit_of_size}"] = of_set["added"]
                told = group
                if group is not None and not part.has_own(unit, group):
                    told = f"{group} ({_NO_PROMISE})"
                drawn.append(GuaranteeRow(unit, part.level, self._risk(part, index, own), told, sizes))
        references = {name: 1.0 for row in drawn for name in row.sizes if "/" in name}
        figure = draw_guarantees(drawn, part.loss_name, references, self.confidence, part.kind.replace("_", " "))
        self.folder.save_figure(f"guarantees/{part.kind}", figure, self.formats, self.dpi)


def guarantee_text(report: Mapping[str, Any]) -> str:
    """What `GuaranteeReportHandler` prints.

    Args:
        report: what ``guarantees.json`` holds.
    """
    lines = []
    for kind, of_part in report["guarantees"].items():
        level = of_part["promised"]
        lines.append(f"\nGuarantee {kind}: {of_part['promise']}.")
        width = max(map(len, of_part["classes"]))
        for unit, risk in of_part["classes"].items():
            more = _more(risk, level)
            lines.append(f"  {unit:<{width}}  promised: at most {_percent(level)} %; {_realised(risk)}{more}")
            for group, of_group in risk["groups"].items():
                more = _more(of_group, level) if of_group["promised"] else f" - {_NO_PROMISE} within this group"
                lines.append(f"  {'':<{width}}    {group}: {_realised(of_group)}{more}")
        for name, sizes in of_part["sets"].items():
            lines += [
                f"  {unit:<{width}}  the {name} set has {size['stretch']:.2f} times the size of the segmentation "
                f"({size['added']:+.3g} {sizes['unit']}), median over {size['num_cases']} cases"
                for unit, size in sizes.items()
                if isinstance(size, Mapping) and size["num_cases"]
            ]
        if "sent_to_human" in of_part:
            lines.append(f"  {of_part['sent_to_human']} of {report['num_cases']} cases are sent to a human.")
        lines += [f"  {note}" for note in of_part["notes"]]
    if report.get("promises_nothing"):
        lines.append("Fitted on too few cases in a debug run: nothing of this is promised.")
    return "\n".join(lines)


def _realised(risk: Mapping[str, Any]) -> str:
    if not risk["num_cases"]:
        return "no test case counts"
    low, high = (_percent(risk[end]) for end in ("low", "high"))
    return f"on {risk['num_cases']} test cases {_percent(risk['mean'])} % [{low}, {high}]"


def _more(risk: Mapping[str, Any], level: float) -> str:
    if not risk["low"] > level:
        return ""
    return " - more than promised: these cases differ from the calibration cases, or those were an unlucky draw"


def _percent(value: float) -> str:
    return f"{100 * value:.3g}" if value < 0.995 else f"{100 * value:.0f}"


def _groups(part: Guarantee, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Groups of the cases for which a guarantee is fitted, or which get what was fitted on all."""
    return sorted({group for row in rows if (group := row["groups"][part.kind]) is not None})


def _within(part: Guarantee, group: str, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["groups"][part.kind] == group]


def _num_sent(rows: Sequence[Mapping[str, Any]]) -> int:
    return sum(bool(row["values"][SEND]) for row in rows)


def _set_names(part: Guarantee, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return rows[0]["set_names"][part.kind]


def _sizes(rows: Sequence[Mapping[str, Any]], name: str, index: int) -> dict[str, np.ndarray]:
    """Of every case the size of a set, divided by that of the segmentation, and less it."""
    of_set = np.array([row["sets"][name][index] for row in rows], dtype=float)
    segmented = np.array([row["segmentation"][index] for row in rows], dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        stretch = np.where(segmented > 0, of_set / segmented, np.nan)
    return {"stretch": stretch, "added": of_set - segmented}


def _median(values: np.ndarray) -> float:
    return float(np.nanmedian(values)) if np.isfinite(values).any() else float("nan")
