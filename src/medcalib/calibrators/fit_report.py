"""What a fit found, as plain values."""

from __future__ import annotations

import dataclasses
from typing import Any

__all__ = ["FitReport"]


@dataclasses.dataclass(frozen=True)
class FitReport:
    """The record of a fit. NLL and ECE are pooled over all voxels that count; two equal fits have equal reports.

    Attributes:
        kind: name of the calibrator.
        num_cases: number of volumes.
        num_voxels: number of voxels that count: inside the mask, where there is one.
        num_fitted_voxels: number of those on which the fit rests; fewer where it was made on a sample.
        nll_before: nats per voxel, without the calibrator.
        nll_after: nats per voxel, with it; never above ``nll_before``.
        ece_before: mean of the classes' ECE without the calibrator, in [0, 1].
        ece_after: the same with it.
        class_ece_before: ECE of each class without the calibrator.
        class_ece_after: the same with it.
        num_bins: number of bins of the ECE.
        dice_before: mean Dice without the calibrator, in [0, 1]; None where no case has a class.
        dice_after: the same with it.
        decisions_changed: fraction of voxels whose decision the calibrator moved, in [0, 1].
        absent_classes: indices of the classes that the split lacks.
        kept_identity: the fit did not lower the NLL, that of held-out cases where there are some, so the calibrator
            changes nothing.
        converged: the gradient vanished, or the training stopped early as it should; None where the result is exact.
        gradient_norm: Euclidean norm of the gradient of the NLL at the end, nats per unit of the parameters; None where
            there is none.
        iterations: evaluations of the NLL, or epochs of a training.
        parameters: the few fitted numbers that a reader wants to see.
        seconds: duration of the fit; not compared.

    Example:
        >>> import torch
        >>> from medcalib.calibrators import TemperatureScaling, fit_calibrator
        >>> batches = [(torch.tensor([[[2.0, 2.0, -2.0], [0.0, 0.0, 0.0]]]), torch.tensor([[[0, 1, 1]]]))]
        >>> report = fit_calibrator(TemperatureScaling(2), batches)
        >>> report.num_voxels, report.nll_after < report.nll_before
        (3, True)
    """

    kind: str
    num_cases: int
    num_voxels: int
    num_fitted_voxels: int
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float
    class_ece_before: list[float]
    class_ece_after: list[float]
    num_bins: int
    dice_before: float | None
    dice_after: float | None
    decisions_changed: float
    absent_classes: list[int]
    kept_identity: bool
    converged: bool | None
    gradient_norm: float | None
    iterations: int
    parameters: dict[str, Any]
    seconds: float = dataclasses.field(compare=False)

    def __str__(self) -> str:
        """One sentence for a terminal."""
        parameters = "".join(f", {name} {_rounded(value)}" for name, value in self.parameters.items())
        return (
            f"{self.kind}: fitted on {self.num_voxels} voxels of {self.num_cases} cases in {self.seconds:.1f} s, NLL "
            f"{self.nll_before:.4f} -> {self.nll_after:.4f}, ECE {self.ece_before:.4f} -> {self.ece_after:.4f}"
            f"{parameters}."
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as a dictionary that JSON can hold."""
        return dataclasses.asdict(self)


def _rounded(value: Any) -> str:
    return f"[{', '.join(map(_rounded, value))}]" if isinstance(value, list) else f"{value:.4g}"
