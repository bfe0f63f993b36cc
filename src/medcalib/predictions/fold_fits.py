"""Calibrators and guarantees of the folds of a cross-validation, each fitted without the cases of its fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch

from medcalib.calibrators import Calibrator, FitReport
from medcalib.data.fit_halves import calibration_halves
from medcalib.guarantees import GuaranteeCase, JointGuarantees
from medcalib.keys import Activation, CaseKeys
from medcalib.predictions.calibrator_fits import CalibratedPredictions, fitted_calibrator
from medcalib.predictions.evaluating import PredictionSource
from medcalib.predictions.guarantee_inputs import GuaranteeInputs, guarantee_case
from medcalib.predictions.guaranteeing import fit_guarantee
from medcalib.predictions.volumes import Geometry
from medcalib.task import Task

__all__ = ["FoldFits", "FoldSettings", "SourceInputs", "calibrated_folds", "cases_of_fits"]


class FoldSettings(NamedTuple):
    """What every fit of a cross-validation shares.

    Attributes:
        task: what is predicted.
        calibrator: name of the calibrator; None without one.
        guarantee: name of the guarantee; None without one.
        keep_argmax: whether decisions are kept.
        num_bins: number of bins of the calibration errors.
        seed: fixes whatever is random.
        device: where everything is computed.
        alpha: the loss that the guarantee allows; its own when None.
        min_covered: of ``margin_control``, the share that is to be covered; its own when None.
    """

    task: Task
    calibrator: str | None
    guarantee: str | None
    keep_argmax: bool = False
    num_bins: int = 20
    seed: int = 0
    device: torch.device = torch.device("cpu")
    alpha: float | None = None
    min_covered: float | None = None


class FoldFits(NamedTuple):
    """What was fitted without the cases of a fold.

    Attributes:
        cases: ids of the cases on which ``calibrator`` and ``guarantee`` were fitted.
        calibrator: the calibrator; None without one.
        report: how its fit went.
        guarantee: the guarantee; None without one.
        source: the predictions of all cases, calibrated.
    """

    cases: dict[str, list[str]]
    calibrator: Calibrator | None
    report: FitReport | None
    guarantee: JointGuarantees | None
    source: PredictionSource


def cases_of_fits(
    folds: Mapping[int, Sequence[str]], left_out: int | None, groups: Mapping[str, str], divided: bool
) -> dict[str, list[str]]:
    """On which cases a calibrator and a guarantee are fitted for the cases of a fold: on those of all others.

    Args:
        folds: ids of the cases by fold.
        left_out: the fold; None for new cases, for which all are taken.
        groups: by case id what it shares with others, such as its patient.
        divided: whether both are fitted, each on its own half, so that the cases of the guarantee are new to the
            calibrator.

    Raises:
        UserError: there are too few cases to divide.

    Example:
        >>> cases_of_fits({0: ["a"], 1: ["b", "c"]}, 0, {}, divided=False)
        {'calibrator': ['b', 'c'], 'guarantee': ['b', 'c']}
    """
    others = [case for number, cases in folds.items() if number != left_out for case in cases]
    patients = {case: {"attributes": {"patient": f"group {groups[case]}"}} if case in groups else {} for case in others}
    listed = [{CaseKeys.CASE.value: case, **patients[case]} for case in others]
    halves = calibration_halves(listed, "half" if divided else "all")
    return {fit: [str(case[CaseKeys.CASE]) for case in cases] for fit, cases in halves.items()}


def calibrated_folds(
    settings: FoldSettings,
    folds: Mapping[int, Sequence[str]],
    source: PredictionSource,
    groups: Mapping[str, str] | None = None,
) -> dict[int | None, FoldFits]:
    """Fit what is used on the cases of each fold on those of the others, and what is used on new cases on all.

    So nothing that is done to the prediction of a case depends on its label, given the predictions.

    Args:
        settings: what is fitted, and how.
        folds: ids of the cases by fold, each predicted by the network that was not trained on it.
        source: reads the cases.
        groups: by case id what it shares with others, such as its patient.

    Returns:
        The fits by fold; None stands for new cases.

    Raises:
        UserError: there are too few cases, or one cannot be read.
    """
    found: dict[int | None, FoldFits] = {}
    both = settings.calibrator is not None and settings.guarantee is not None
    for left_out in (*folds, None):
        cases = cases_of_fits(folds, left_out, groups or {}, both)
        calibrator, report, joint = None, None, None
        calibrated = source
        if settings.calibrator is not None:
            calibrator, report = fitted_calibrator(
                settings.calibrator,
                settings.task,
                partial(map, source.read, cases["calibrator"]),
                keep_argmax=settings.keep_argmax,
                num_bins=settings.num_bins,
                seed=settings.seed,
                device=settings.device,
            )
            calibrated = CalibratedPredictions(source, calibrator)
        if settings.guarantee is not None:
            inputs = SourceInputs(calibrated, settings.task)
            joint = fit_guarantee(settings.guarantee, inputs, cases["guarantee"], settings.alpha, settings.min_covered)
        found[left_out] = FoldFits(cases, calibrator, report, joint, calibrated)
    return found


class SourceInputs(GuaranteeInputs):
    """Predictions as guarantees see them."""

    def __init__(self, source: PredictionSource, task: Task) -> None:
        self.source = source
        names = list(task.class_names)
        self.class_names = names[1:] if source.activation is Activation.SOFTMAX else names

    def check(self, case: str, with_label: bool) -> None:
        """Files were looked for when the source was made."""

    def read(self, case: str, with_label: bool) -> tuple[GuaranteeCase, Geometry]:
        """The case, and the grid of its prediction."""
        predicted = self.source.read(case, with_label)
        on_cpu = predicted._replace(logits=predicted.logits.cpu().clone())
        return guarantee_case(on_cpu, self.source.activation), predicted.geometry
