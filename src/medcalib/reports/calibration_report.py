"""Macro and micro calibration errors of an epoch."""

from __future__ import annotations

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.metrics import CalibrationReduction

from medcalib.functional import calibration_error
from medcalib.handlers.binning_data import binned_cases
from medcalib.handlers.result_folder import ResultFolder

__all__ = ["CALIBRATION_ERRORS", "CalibrationErrorHandler"]

CALIBRATION_ERRORS = {
    "ece": CalibrationReduction.EXPECTED,
    "ace": CalibrationReduction.AVERAGE,
    "mce": CalibrationReduction.MAXIMUM,
}


class CalibrationErrorHandler:
    r"""Compute expected, average and maximum calibration errors from the bin statistics of a `BinningDataHandler`.

    *Macro* values are computed per case and class; a class that the ground truth of a case lacks is NaN there, and the
    mean is over cases of the mean over classes, both without NaN. *Micro* values are computed once from the pooled
    bins of all cases, :math:`\sum_i` of counts, probabilities and targets, so that perfectly calibrated cases pool to
    zero; a class that no case has is NaN.

    Leaves ``macro_{ece,ace,mce}`` and ``micro_{ece,ace,mce}`` in ``engine.state.metrics``, the macro values (case,
    class) in ``engine.state.metric_details`` and the micro values (class) in ``engine.state.dataset_details``.

    Args:
        class_names: names of the binned classes, background left out if it is not binned.
        folder: where ``bin_statistics.npz`` is written: ``counts``, ``sum_pred``, ``sum_true`` (case, class, bin),
            ``cases``, ``classes``; nothing is written when None.
    """

    def __init__(self, class_names: list[str], folder: ResultFolder | None = None) -> None:
        self.class_names = [str(name) for name in class_names]
        self.folder = folder

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Compute the errors of the epoch."""
        binned = binned_cases(engine, self)
        unique = binned.unique()
        pooled = unique.statistics.pool()
        if not hasattr(engine.state, "dataset_details"):
            engine.state.dataset_details = {}
        for name, reduction in CALIBRATION_ERRORS.items():
            per_case = calibration_error(binned.statistics, reduction).masked_fill(binned.absent(), torch.nan)
            macro = calibration_error(unique.statistics, reduction).masked_fill(unique.absent(), torch.nan)
            micro = calibration_error(pooled, reduction).masked_fill(unique.absent().all(0), torch.nan)[0]
            engine.state.metric_details[f"macro_{name}"] = per_case
            engine.state.dataset_details[f"micro_{name}"] = micro
            engine.state.metrics[f"macro_{name}"] = macro.nanmean(1).nanmean().item()
            engine.state.metrics[f"micro_{name}"] = micro.nanmean().item()
        if self.folder is not None and self.folder.writes:
            np.savez_compressed(
                self.folder.file("bin_statistics.npz"),
                **{name: part.numpy() for name, part in unique.statistics._asdict().items()},
                cases=np.array(unique.cases),
                classes=np.array(self.class_names),
            )
