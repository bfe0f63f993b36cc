"""Fit a calibrator on a calibration split."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator

import torch
from tqdm import tqdm

from medcalib.calibrators.base import Calibrator, case_logits
from medcalib.calibrators.calibration_cases import (
    CalibrationCase,
    CaseStream,
    Voxels,
    check_case,
    looks_like_probabilities,
    voxels_of,
)
from medcalib.calibrators.fit_report import FitReport
from medcalib.calibrators.fitting.gradient_fit import TrainingOptions, fit_by_training
from medcalib.calibrators.fitting.likelihood import AffineLikelihood
from medcalib.calibrators.fitting.scaling_fit import TOLERANCE, fit_scaling
from medcalib.calibrators.fitting.split_scores import SplitScores
from medcalib.calibrators.fitting.voxel_sample import VoxelSample
from medcalib.calibrators.non_parametric import BinnedCalibrator
from medcalib.calibrators.scaling import ScalingCalibrator
from medcalib.errors import UserError
from medcalib.functional import BinStatistics

__all__ = ["fit_calibrator"]

# A loss of mean Dice above this is worth a warning.
DICE_TOLERANCE = 0.005


def fit_calibrator(
    calibrator: Calibrator,
    batches: Callable[[], Iterable[tuple]] | Iterable[tuple],
    *,
    max_voxels: int | None = 4_000_000,
    sampling: str = "error_balanced",
    seed: int = 0,
    training: TrainingOptions | None = None,
    num_bins: int = 20,
    include_background: bool = False,
    cache_bytes: int = 1 << 31,
    progress: bool = False,
) -> FitReport:
    """Fit a calibrator by the negative log-likelihood of the voxels that count, and say what it achieved.

    Temperature, vector and Platt scaling are convex problems and are solved to convergence by Newton's method, on all
    voxels if there are no more than ``max_voxels``, else on a random sample whose weights restore the means over all.
    Isotonic regression and histogram binning are exact on all voxels in one pass. The others are trained by gradients
    with early stopping on a held-out part of the cases. NLL, ECE and Dice before and after are always those of all
    voxels. If the NLL did not fall, the calibrator is left as the identity, with a warning.

    The result depends on the arguments alone, not on earlier fits of the same calibrator. Memory is bounded by the
    largest case, ``max_voxels`` and ``cache_bytes``.

    Args:
        calibrator: the calibrator; it is fitted in place, on the device where it lies.
        batches: the calibration split: a callable that returns an iterator, or something that can be iterated again
            and again, over :class:`CalibrationCase` or tuples in its order: ``(logits, labels)``,
            ``(logits, labels, mask)``, ``(logits, labels, mask, image, name)``. Shapes: (B, C, ...), (B, 1, ...) or
            (B, C, ...), (B, 1, ...). Never training or test cases.
        max_voxels: largest number of voxels that scaling calibrators are fitted on; all, however many, if None, which
            goes through the split once per evaluation.
        sampling: ``"error_balanced"``, ``"class_balanced"`` or ``"uniform"``: how these voxels are drawn where there
            are more. Weights make all of them estimate the same NLL; they differ in how much the result varies with
            the seed, the first least.
        seed: seed of samples, of held-out cases, of patches and of first weights.
        training: options of the calibrators that are trained by gradients.
        num_bins: number of bins of the reported ECE.
        include_background: whether class 0 of exclusive classes counts in the reported means over classes.
        cache_bytes: the cases are kept in memory if all of them together are not larger, so that ``batches`` is
            iterated once; otherwise it is iterated once more for the scores after the fit, and twice per epoch of a
            training.
        progress: show a progress bar on a terminal.

    Returns:
        The report.

    Raises:
        UserError: the split is empty or holds a single class, a case has logits that are not finite or that do not fit
            the calibrator or the labels, or a training has fewer than two cases.
        ValueError: an option is invalid.

    Warns:
        UserWarning: logits look like probabilities, a class is absent from the split (it keeps its identity), the NLL
            did not fall, Dice fell by more than 0.005, or the fit did not converge.

    Example:
        >>> import torch
        >>> from medcalib.calibrators import TemperatureScaling, fit_calibrator
        >>> over_confident = torch.tensor([[[9.0, 9.0, 9.0, 0.0], [0.0, 0.0, 0.0, 9.0]]])
        >>> calibrator = TemperatureScaling(num_classes=2)
        >>> report = fit_calibrator(calibrator, [(over_confident, torch.tensor([[[0, 0, 1, 1]]]))])
        >>> round(report.nll_before, 2), round(report.nll_after, 2), report.converged
        (2.25, 0.56, True)
    """
    start = time.perf_counter()
    stream = CaseStream(batches, cache_bytes)
    calibrator.mark_fitted(False)
    calibrator.reset_parameters(seed)

    def cases(description: str = "") -> Iterator[CalibrationCase]:
        shown = None if progress and description else True
        with tqdm(desc=f"{calibrator.kind}: {description}", unit="case", leave=False, disable=shown) as bar:
            for case in stream:
                yield case.map(lambda tensor: tensor.to(calibrator.device()))
                # before the next is read, here and below, so that two never have to be in memory
                del case
                bar.update()

    def scores() -> SplitScores:
        return SplitScores(calibrator.num_classes, calibrator.sigmoid, num_bins, include_background)

    before = scores()
    sample = VoxelSample(max_voxels, sampling, calibrator.sigmoid, seed) if max_voxels is not None else None
    statistics: BinStatistics | None = None
    num_batches, warned = 0, False
    for case in cases("reading"):
        num_batches += 1
        check_case(case, calibrator.num_classes)
        if not warned and looks_like_probabilities(case, calibrator.sigmoid):
            warned = True
            _warn(
                f"The logits of case {case.name} lie in [0, 1]{'' if calibrator.sigmoid else ' and sum to 1'}, as "
                f"probabilities do, but calibrators take logits: give the logarithm of the probabilities, or with the "
                f"sigmoid their log-odds."
            )
        before.update(case)
        if isinstance(calibrator, ScalingCalibrator) and sample is not None:
            for voxels in voxels_of(case_logits(case), case.labels, case.mask):
                sample.add(voxels)
                del voxels
        if isinstance(calibrator, BinnedCalibrator):
            own = calibrator.statistics(case)
            statistics = own if statistics is None else statistics.merge(own)
        del case
    constant = _check_split(before, calibrator)

    likelihood = None
    num_fitted, gradient_norm, converged, iterations, useful = before.num_voxels, None, None, 1, True
    if isinstance(calibrator, ScalingCalibrator):
        if sample is None:
            likelihood = AffineLikelihood(lambda: _all_voxels(cases("fitting")), calibrator.sigmoid)
        else:
            likelihood, num_fitted = AffineLikelihood(sample.voxels, calibrator.sigmoid), len(sample)
        gradient_norm, iterations = fit_scaling(calibrator, likelihood, constant)
        converged = gradient_norm <= 10 * TOLERANCE * before.nll
        if not converged:
            _warn(
                f"The fit of the {calibrator.kind} calibrator stopped before it converged, with a gradient of "
                f"{gradient_norm:.2g} nats; fit on more cases."
            )
    elif isinstance(calibrator, BinnedCalibrator):
        # a split without cases was refused above
        calibrator.fit_statistics(statistics, constant)  # type: ignore[arg-type]
    else:
        iterations, converged, useful = fit_by_training(
            calibrator,
            cases,
            num_batches,
            before.num_voxels,
            seed=seed,
            options=training or TrainingOptions(),
            progress=progress,
        )
        if not useful:
            _warn(
                f"What the {calibrator.kind} calibrator learnt on some of the calibration cases did not lower the NLL "
                f"of those held out; it is left as the identity; add cases, or use one of fewer parameters, such "
                f"as temperature_scaling."
            )
    sample = likelihood = None
    after = scores()
    with torch.no_grad():
        for case in cases("scoring"):
            after.update(case, calibrator.calibrate_case(case))
            del case
    raised = after.nll > before.nll
    if raised:
        _warn(
            f"The {calibrator.kind} calibrator would raise the NLL of the calibration split from {before.nll:.6g} to "
            f"{after.nll:.6g} nats per voxel; it is left as the identity."
        )
        calibrator.reset_parameters(seed)
        after = before
    if before.dice is not None and after.dice is not None and before.dice - after.dice > DICE_TOLERANCE:
        _warn(
            f"The {calibrator.kind} calibrator lowers the mean Dice of the calibration split from {before.dice:.4f} to "
            f"{after.dice:.4f}; set its keep_argmax, or use temperature_scaling, which keeps every decision."
        )
    calibrator.mark_fitted()
    return FitReport(
        kind=calibrator.kind,
        num_cases=before.num_cases,
        num_voxels=before.num_voxels,
        num_fitted_voxels=num_fitted,
        nll_before=before.nll,
        nll_after=after.nll,
        ece_before=before.ece,
        ece_after=after.ece,
        class_ece_before=before.class_ece,
        class_ece_after=after.class_ece,
        num_bins=num_bins,
        dice_before=before.dice,
        dice_after=after.dice,
        decisions_changed=after.decisions_changed,
        absent_classes=before.absent_classes,
        kept_identity=raised or not useful,
        converged=converged,
        gradient_norm=gradient_norm,
        iterations=iterations,
        parameters=calibrator.describe(),
        seconds=time.perf_counter() - start,
    )


def _check_split(scores: SplitScores, calibrator: Calibrator) -> list[int]:
    """Classes that all voxels have or none has, of which nothing can be learnt.

    Raises:
        UserError: there is no voxel, or a single class.
    """
    if not scores.num_voxels:
        held = "no case" if not scores.num_cases else f"{scores.num_cases} case(s), but no voxel inside their masks"
        raise UserError(
            f"The calibration split holds {held}: name the cases on which the {calibrator.kind} calibrator is to be "
            f"fitted, by default those of the validation."
        )
    absent, constant = scores.absent_classes, scores.constant_classes
    if len(constant) == calibrator.num_classes:
        raise UserError(
            f"Every voxel of the calibration split has the same label, so nothing can be fitted: add cases that have "
            f"more than one of the {calibrator.num_classes} classes."
        )
    if absent:
        _warn(
            f"The calibration split lacks class(es) {', '.join(map(str, absent))}, counted from 0; what the "
            f"{calibrator.kind} calibrator does to them is not learnt from examples: add cases that have them."
        )
    return constant


def _all_voxels(cases: Iterable[CalibrationCase]) -> Iterator[tuple[Voxels, None]]:
    for case in cases:
        for voxels in voxels_of(case_logits(case), case.labels, case.mask):
            yield voxels, None


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=3)
