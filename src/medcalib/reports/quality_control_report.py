"""Say which uncertainty finds the poor segmentations, and above which value a case should be looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from ignite.engine import Engine, Events
from monai.handlers import from_engine
from monai.utils import CommonKeys
from numpy.typing import NDArray
from torch import Tensor

from medcalib.errors import UserError
from medcalib.files.writing import write_json
from medcalib.gathering import gathered
from medcalib.handlers.binned_cases import BinnedCases
from medcalib.handlers.result_folder import ResultFolder
from medcalib.handlers.results import BINNED, CASE_SCORES, GUARANTEED_CASES, results_of
from medcalib.handlers.uncertainty_scores import CONFIDENCE_SCORES
from medcalib.keys import CaseKeys, UncertaintyKeys
from medcalib.metrics import (
    VoxelRiskCoverage,
    flagging_curve,
    flagging_threshold,
    risk_coverage,
    score_correlation,
)
from medcalib.metrics.poor_limit import PoorLimit, find_poor_limit, poor_limit_words, poor_share
from medcalib.task import Task
from medcalib.visualize import draw_flagging_curves, draw_risk_coverage_curves, draw_score_scatter

__all__ = ["QualityControlHandler"]

NAME = "filename"
_RULE = "selective_control"
# cases without a score that are printed by name
NAMED = 5


class CaseScores(NamedTuple):
    """Names, scores and qualities of the cases of one engine, all (case,); NaN where a case has none."""

    cases: list[str]
    uncertainties: dict[str, NDArray]
    dice: NDArray
    distance: NDArray | None


class QualityControlHandler:
    """Relate the scores of an `UncertaintyScoresHandler` to the quality of the segmentations.

    Writes ``quality_control.json`` and figures to ``quality_control/``. For every score, turned so that high is
    uncertain: Spearman's correlation with Dice and with the modified Hausdorff distance, the area under the
    risk-coverage curve (AURC, E-AURC; risk is 1 - Dice), the flagging curve with its area, and the threshold above
    which a case is to be flagged so that few poor cases pass. The threshold is found on cases of another split, so that
    it can be used on new ones; what it does to the cases of this evaluation is written beside it. ``chosen_score`` is
    the score of the lowest AURC on those cases: its numbers on the cases of this evaluation, unlike those of the score
    that is best on them, are what to expect of new ones. Over voxels: AURC of the entropy, where the risk of a voxel is
    1 if its label is wrong. Each case counts once, with the mean over its
    classes.

    A case without a score, such as one in which no foreground was predicted, counts as the most uncertain, and every
    threshold flags it; only correlations leave it out. Such cases are named (``without_score``) and printed. Cases
    without Dice, whose label and prediction both lack the classes, are left out of what is said of poor cases
    (``without_dice``).

    Where a guarantee decides which cases pass, such as `medcalib.guarantees.SelectiveControl`, what its rule does to
    these cases is written as ``rule``, and no other threshold is needed.

    It needs an `UncertaintyScoresHandler` and a `medcalib.handlers.CalibrationErrorHandler` on the same engine, which
    has Dice as ``mean_dice``, and on ``threshold_evaluator``.

    Args:
        folder: where the files go.
        poor_below: a case whose mean Dice is below it is poor; a text such as ``10%`` stands for that quantile of the
            Dice of the cases of ``threshold_evaluator``, or for 0.8 if there are none. The cases that are evaluated
            have no say in it; ``poor_below_from`` says where it came from.
        max_poor: how many poor cases may pass, divided by all cases.
        threshold_evaluator: engine over the calibration split, with the same scores; no thresholds when None.
        task: says what the largest entropy is that there can be.
        figure_scores: scores that are drawn, those of them that exist.
        formats: file formats of the figures.
        dpi: resolution of raster formats.
        option_prefix: how the options begin that set ``poor_below`` and ``max_poor``, for messages.
        with_voxels: whether the entropy of single voxels is looked at, too.

    Raises:
        UserError: ``max_poor`` is no fraction, or ``poor_below`` neither a Dice nor a share.

    Example:
        >>> from medcalib.handlers import CalibrationErrorHandler, UncertaintyScoresHandler
        >>> engine, folder = Engine(lambda engine, batch: batch), ResultFolder("evaluation")
        >>> task = Task(["background", "organ"])
        >>> found = CalibrationErrorHandler(task), UncertaintyScoresHandler(task)
        >>> for handler in (folder, *found, QualityControlHandler(folder, task, poor_below=0.7)):
        ...     handler.attach(engine)
    """

    def __init__(
        self,
        folder: ResultFolder,
        task: Task,
        poor_below: float | str = "10%",
        max_poor: float = 0.05,
        threshold_evaluator: Engine | None = None,
        figure_scores: Sequence[str] = (
            "entropy_foreground_mean",
            "mutual_information_foreground_mean",
            "pairwise_dice",
            "aula",
        ),
        formats: Sequence[str] = ("png", "pdf"),
        dpi: int = 150,
        option_prefix: str = "--quality_control::",
        with_voxels: bool = True,
    ) -> None:
        if not 0 <= max_poor <= 1:
            raise UserError(f"{option_prefix}max_poor must be a fraction from 0 to 1, not {max_poor}.")
        poor_share(poor_below)
        self.folder = folder
        self.poor_below = poor_below
        self.max_poor = max_poor
        self.threshold_evaluator = threshold_evaluator
        self.task = task
        self.figure_scores = tuple(figure_scores)
        self.formats = tuple(formats)
        self.dpi = dpi
        self.option_prefix = option_prefix
        self.with_voxels = with_voxels
        self.output_transform = from_engine([UncertaintyKeys.ENTROPY, "seg", CommonKeys.LABEL])
        self._voxels = VoxelRiskCoverage(task.max_entropy)

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        for of_split in filter(None, (engine, self.threshold_evaluator)):
            results = results_of(of_split)
            results.need(self, BINNED, CASE_SCORES)
            # before anything is predicted
            engine.add_event_handler(Events.STARTED, results.check)
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        if self.with_voxels:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish)

    def _start(self, _engine: Engine) -> None:
        self._voxels = VoxelRiskCoverage(self.task.max_entropy)

    def _update(self, engine: Engine) -> None:
        output = engine.state.output
        for case, entropy, seg, label in zip(output, *self.output_transform(output), strict=True):
            unsure, wrong = entropy[0].cpu(), (seg.cpu() != label.cpu()).any(0)
            if (known := case.get(CaseKeys.KNOWN)) is not None:
                unsure, wrong = unsure[known[0].cpu()], wrong[known[0].cpu()]
            self._voxels.update(unsure.numpy(), wrong.numpy())

    def _finish(self, engine: Engine) -> None:
        if self.threshold_evaluator is not None:
            self.threshold_evaluator.run()
        results_of(engine).complete()
        voxels = VoxelRiskCoverage(self.task.max_entropy)
        # whole numbers, so the order does not matter
        for of_process in gathered(self._voxels):
            voxels.merge(of_process)
        self._voxels = voxels
        if not self.folder.writes:
            return
        cases = _case_scores(engine)
        others = _case_scores(self.threshold_evaluator) if self.threshold_evaluator is not None else None
        limit = find_poor_limit(self.poor_below, None if others is None else others.dice)
        scores = {name: _of_score(values, cases, limit.value) for name, values in cases.uncertainties.items()}
        if others is not None:
            for name, result in scores.items():
                result["threshold"] = self._threshold(others, cases, name, limit.value)
                result["calibration"] = _ranking(others.uncertainties[name], others.dice)
        rule = _guaranteed_rule(results_of(engine).get(GUARANTEED_CASES) or [])
        report: dict[str, Any] = {
            "poor_below": limit.value,
            "poor_below_from": limit.recorded(),
            "max_poor": self.max_poor,
            "num_cases": len(cases.dice),
            "without_dice": _named(cases, np.isnan(cases.dice)),
            "poor": _share(cases.dice < limit.value, ~np.isnan(cases.dice)),
            "chosen_score": _chosen(scores),
            **({"rule": rule} if rule else {}),
            "scores": scores,
        }
        if self.with_voxels:
            report["voxels"] = {
                "entropy_aurc": self._voxels.aurc(),
                "entropy_excess_aurc": self._voxels.excess_aurc(),
            }
        write_json(self.folder.file("quality_control.json"), report)
        self.folder.tell(_text(report, self.option_prefix))
        self._draw(cases, limit)

    def _threshold(self, others: CaseScores, cases: CaseScores, name: str, poor_below: float) -> dict[str, Any]:
        rule = flagging_threshold(others.uncertainties[name], others.dice, poor_below, self.max_poor)
        sign = -1 if name in CONFIDENCE_SCORES else 1
        values = cases.uncertainties[name]
        flagged = np.isnan(values) | (values > rule.threshold)
        passing_poor = ~flagged & (cases.dice < poor_below)
        found = rule.num_cases > 0
        return {
            "flag": "below" if sign < 0 else "above",
            "value": sign * rule.threshold,
            "calibration_cases": rule.num_cases,
            "calibration_flagged": rule.flagged,
            "calibration_poor_left": rule.poor_left,
            "calibration_without_score": rule.unknown,
            "flagged": float(flagged.mean()) if found else np.nan,
            "poor_left": _share(passing_poor, ~np.isnan(cases.dice)) if found else np.nan,
            "flagged_cases": _named(cases, flagged) if found else None,
        }

    def _draw(self, cases: CaseScores, limit: PoorLimit) -> None:
        drawn = {
            f"minus_{name}" if name in CONFIDENCE_SCORES else name: cases.uncertainties[name]
            for name in self.figure_scores
            if name in cases.uncertainties
        }
        known = {name: values for name, values in drawn.items() if _differs(values)}
        if not known or len(cases.dice) < 2:
            return
        figures = {
            "scatter": draw_score_scatter(known, cases.dice, threshold=limit.value),
            "flagging": draw_flagging_curves(
                {name: flagging_curve(values, cases.dice, limit.value) for name, values in known.items()}
            ),
            "risk_coverage": draw_risk_coverage_curves(
                {name: risk_coverage(values, 1 - cases.dice) for name, values in known.items()}
            ),
        }
        if self.with_voxels:
            figures["risk_coverage_of_voxels"] = draw_risk_coverage_curves(
                {"entropy": self._voxels.curve()}, risk_label="part of the voxels that is wrong"
            )
        for name, figure in figures.items():
            self.folder.save_figure(f"quality_control/{name}", figure, self.formats, self.dpi)


def _of_score(values: NDArray, cases: CaseScores, poor_below: float) -> dict[str, Any]:
    risk = risk_coverage(values, 1 - cases.dice)
    curve = flagging_curve(values, cases.dice, poor_below)
    dice = score_correlation(values, cases.dice)
    distance = score_correlation(values, cases.distance) if cases.distance is not None else None
    return {
        "spearman_dice": dice.correlation,
        "spearman_cases": dice.num_cases,
        "spearman_mhd": distance.correlation if distance is not None else None,
        "spearman_mhd_cases": distance.num_cases if distance is not None else None,
        "aurc": risk.aurc,
        "excess_aurc": risk.excess_aurc,
        "flagging_area": curve.area,
        "flagging_area_random": curve.random_area,
        "flagging_area_ideal": curve.ideal_area,
        "flagged_at_5_percent": curve.flagged_at_5_percent,
        "num_cases": risk.count,
        "without_score": _named(cases, np.isnan(values)),
    }


def _guaranteed_rule(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """What the rule of a guarantee does to the cases of an evaluation; its score was chosen on calibration cases."""
    decided = [row for row in rows if "send_to_human" in row["values"]]
    if not decided:
        return None
    sent = [row for row in decided if row["values"]["send_to_human"]]
    passing = [row for row in decided if not row["values"]["send_to_human"]]
    # poor as the promise has it, whose Dice and grid are those of the guarantee
    poor = [row[NAME] for row in passing if row["losses"][_RULE] == [1.0]]
    return {
        "guarantee": _RULE,
        "score": decided[0]["values"]["score"],
        "chosen_on": "calibration cases",
        "num_cases": len(decided),
        "flagged": len(sent) / len(decided),
        "flagged_cases": [row[NAME] for row in sent],
        "passing": len(passing),
        "poor_passing": poor,
    }


def _ranking(values: NDArray, dice: NDArray) -> dict[str, Any]:
    """How well a score ranks the calibration cases."""
    risk, correlation = risk_coverage(values, 1 - dice), score_correlation(values, dice)
    return {
        "aurc": risk.aurc,
        "excess_aurc": risk.excess_aurc,
        "spearman_dice": correlation.correlation,
        "num_cases": risk.count,
    }


def _chosen(scores: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The score of the lowest AURC on the calibration cases; None if nothing is known of them."""
    known = {
        name: result["calibration"]["aurc"]
        for name, result in scores.items()
        if "calibration" in result and result["calibration"]["num_cases"] > 1
    }
    return min(known, key=known.__getitem__, default=None)


def _case_scores(engine: Engine) -> CaseScores:
    binned: BinnedCases = results_of(engine)[BINNED]
    scores: Mapping = results_of(engine)[CASE_SCORES]
    rows = binned.first_rows()

    def mean(values: Tensor) -> NDArray:
        return values.detach().cpu().double()[rows].nanmean(1).numpy()

    details: Mapping = engine.state.metric_details
    if "mean_dice" not in details:
        raise UserError("QualityControlHandler needs the metric mean_dice; give its engine a monai.handlers.MeanDice.")
    return CaseScores(
        [binned.cases[row] for row in rows],
        {name: mean(values) * (-1 if name in CONFIDENCE_SCORES else 1) for name, values in scores.items()},
        mean(details["mean_dice"]),
        mean(details["mhd"]) if "mhd" in details else None,
    )


def _named(cases: CaseScores, chosen: NDArray) -> list[str]:
    return [name for name, one in zip(cases.cases, chosen, strict=True) if one]


def _share(chosen: NDArray, known: NDArray) -> float:
    return float(chosen[known].mean()) if known.any() else np.nan


def _differs(values: NDArray) -> bool:
    known = values[~np.isnan(values)]
    return known.size > 0 and (known.size < values.size or bool(np.ptp(known) > 0))


def _text(report: dict[str, Any], option_prefix: str) -> str:
    known = {name: result for name, result in report["scores"].items() if not np.isnan(result["spearman_dice"])}
    if known:
        best = max(known, key=lambda name: -known[name]["spearman_dice"])
        text = (
            f"Quality control: {best} goes best with Dice (Spearman {known[best]['spearman_dice']:.2f}, "
            f"AURC {known[best]['aurc']:.4f}, E-AURC {known[best]['excess_aurc']:.4f})."
        )
    else:
        text = "Quality control: no score can be compared with Dice; fewer than 3 cases have both, or all are equal."
    if (chosen := report["chosen_score"]) is not None:
        here, there = report["scores"][chosen], report["scores"][chosen]["calibration"]
        text += (
            f"\nChosen on {there['num_cases']} calibration cases by its AURC: {chosen}, which has Spearman "
            f"{here['spearman_dice']:.2f} with Dice and AURC {here['aurc']:.4f} on these cases."
        )
    if rule := report.get("rule"):
        by = (
            f"by {rule['score']}, which was chosen on the calibration cases"
            if rule["score"]
            else "since no score can tell"
        )
        text += (
            f"\nThe rule of {rule['guarantee']} flags {len(rule['flagged_cases'])} of {rule['num_cases']} cases "
            f"({by}); {len(rule['poor_passing'])} of the other {rule['passing']} are poor by the guarantee's limit."
        )
    limit = poor_limit_words(report)
    if report["poor"] in (0.0, 1.0):
        text += (
            f"\n{'All cases have' if report['poor'] else 'No case has'} a Dice below {limit}, so flagging tells "
            f"nothing here; {option_prefix}poor_below sets another limit."
        )
    elif not np.isnan(report["poor"]):
        known = report["num_cases"] - len(report["without_dice"])
        text += f"\nPoor are {round(report['poor'] * known)} of {known} cases: their Dice is below {limit}."
    lacking = sorted({case for result in report["scores"].values() for case in result["without_score"]})
    if lacking:
        names = ", ".join(lacking[:NAMED]) + (f" and {len(lacking) - NAMED} more" if len(lacking) > NAMED else "")
        text += (
            f"\nNo foreground was predicted in {len(lacking)} of {report['num_cases']} cases ({names}): scores that "
            f"need one count them as most uncertain, and their thresholds flag them."
        )
    return text
