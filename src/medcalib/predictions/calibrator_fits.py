"""Calibrators of predictions in files: made by their names, fitted and applied."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from medcalib.calibrators import (
    AuxiliaryCalibrator,
    CalibrationCase,
    Calibrator,
    FitReport,
    HistogramBinningCalibrator,
    IsotonicCalibrator,
    LocalTemperatureScaling,
    PlattScaling,
    TemperatureScaling,
    VectorScaling,
    fit_calibrator,
)
from medcalib.errors import UserError, suggestion
from medcalib.keys import Activation
from medcalib.predictions.evaluating import PredictionSource
from medcalib.predictions.prediction_folder import PredictedCase
from medcalib.task import Task

__all__ = [
    "CALIBRATORS",
    "CalibratedPredictions",
    "calibrated_logits",
    "check_name",
    "fitted_calibrator",
    "make_calibrator",
]

CALIBRATORS: dict[str, type[Calibrator]] = {
    calibrator.kind: calibrator
    for calibrator in (
        TemperatureScaling,
        VectorScaling,
        PlattScaling,
        AuxiliaryCalibrator,
        IsotonicCalibrator,
        HistogramBinningCalibrator,
        LocalTemperatureScaling,
    )
}
# Scales are fitted on as many at the most; they hardly vary with the sample, and it must stay small beside a case.
MAX_VOXELS = 500_000
# Calibrators that are trained look at each case many times; to the others reading it twice is cheaper than memory.
CACHE_BYTES = 1 << 31


def make_calibrator(
    name: str,
    num_classes: int,
    activation: Activation | str = Activation.SOFTMAX,
    keep_argmax: bool = False,
    num_bins: int = 20,
) -> Calibrator:
    """A calibrator of volumes that needs nothing but logits, by its name.

    Args:
        name: as in :func:`~medcalib.predictions.calibrate_predictions`.
        num_classes: number of predicted classes.
        activation: ``"softmax"`` or ``"sigmoid"``.
        keep_argmax: keep every decision; some calibrators do so anyhow.
        num_bins: number of bins of histogram binning.

    Raises:
        UserError: there is no such calibrator.

    Example:
        >>> make_calibrator("vector_scaling", num_classes=3).describe()
        {'scale': [1.0, 1.0, 1.0], 'bias': [0.0, 0.0, 0.0]}
    """
    check_name(name)
    kind = CALIBRATORS[name]
    options: dict[str, Any] = {"spatial_dims": 3, "keep_argmax": keep_argmax}
    if kind is HistogramBinningCalibrator:
        options["num_bins"] = num_bins
    known = inspect.signature(kind).parameters
    return kind(num_classes, activation=activation, **{key: value for key, value in options.items() if key in known})


def fitted_calibrator(
    name: str,
    task: Task,
    cases: Callable[[], Iterator[PredictedCase]],
    *,
    keep_argmax: bool,
    num_bins: int,
    seed: int,
    device: torch.device,
) -> tuple[Calibrator, FitReport]:
    """Make a calibrator and fit it on the predicted parts of cases.

    Args:
        name: as of `make_calibrator`.
        task: what is predicted.
        cases: reads the cases with their labels, one after the other, each time it is called.
        keep_argmax: as of `make_calibrator`.
        num_bins: number of bins of the calibration errors in the report, and of histogram binning.
        seed: fixes whatever is random.
        device: where it is fitted.

    Returns:
        The calibrator, and the report of its fit.

    Raises:
        UserError: as :func:`medcalib.calibrators.fit_calibrator`, or a case cannot be read.
    """
    calibrator = make_calibrator(name, task.num_classes, task.activation, keep_argmax, num_bins).to(device)
    report = fit_calibrator(
        calibrator,
        lambda: (case.calibration_case() for case in cases()),
        max_voxels=MAX_VOXELS,
        seed=seed,
        num_bins=num_bins,
        include_background=task.include_background,
        cache_bytes=CACHE_BYTES if isinstance(calibrator, AuxiliaryCalibrator | LocalTemperatureScaling) else 0,
        progress=True,
    )
    return calibrator, report


class CalibratedPredictions:
    """Predictions that are calibrated as they are read.

    Args:
        source: reads them.
        calibrator: the calibrator.
    """

    def __init__(self, source: PredictionSource, calibrator: Calibrator) -> None:
        self.source = source
        self.calibrator = calibrator

    @property
    def activation(self) -> Activation:
        """How logits become probabilities."""
        return self.source.activation

    def read(self, case: str, with_label: bool = True) -> PredictedCase:
        """Read a case and calibrate it."""
        predicted = self.source.read(case, with_label)
        return predicted._replace(logits=calibrated_logits(predicted, self.calibrator))


def calibrated_logits(predicted: PredictedCase, calibrator: Calibrator) -> Tensor:
    """Calibrated logits (1, C, X, Y, Z) of a case, float32, on the device of the calibrator.

    What nnU-Net puts around the part that it predicts stays as it is.
    """
    logits = predicted.logits.to(calibrator.device())
    part = logits[predicted.region]
    with torch.no_grad():
        calibrated = calibrator.calibrate_case(CalibrationCase(part, part, name=predicted.case)).float()
    if predicted.box is None:
        return calibrated
    logits = logits.clone()
    logits[predicted.region] = calibrated
    return logits


def check_name(name: str) -> None:
    """Check that there is a calibrator of this name for predictions in files.

    Raises:
        UserError: there is none.
    """
    if name == "fine_tune":
        raise UserError("The calibrator fine_tune trains a network on, so it needs a bundle instead of predictions.")
    if name not in CALIBRATORS:
        raise UserError(f"There is no calibrator called {name!r}{suggestion(name, CALIBRATORS, list_all=True)}")
