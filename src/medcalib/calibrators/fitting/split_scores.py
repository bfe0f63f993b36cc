"""Scores of the whole calibration split, gathered case by case."""

from __future__ import annotations

import torch
from torch import Tensor

from medcalib.calibrators.calibration_cases import CalibrationCase, Voxels, parts_of, voxels_of
from medcalib.calibrators.fitting.likelihood import negative_log_likelihood
from medcalib.errors import UserError
from medcalib.functional import BinStatistics, bin_statistics, calibration_error, to_probabilities

__all__ = ["SplitScores"]


class SplitScores:
    """NLL, ECE, Dice and decisions of the logits of a split, over the voxels that the masks keep.

    NLL and ECE are pooled over all voxels; Dice is the mean over cases of the mean over the classes that a case has.
    Means over classes leave the background, class 0, out, unless ``include_background``; with the sigmoid every
    channel counts.

    Args:
        num_classes: number of logit channels.
        sigmoid: every channel is a binary problem of its own, instead of exclusive classes.
        num_bins: number of bins of the ECE.
        include_background: whether class 0 of exclusive classes counts.

    Attributes:
        num_cases: number of volumes seen.
        num_voxels: number of voxels seen.
        class_voxels: number of voxels of each class, (C,), float64.
    """

    def __init__(self, num_classes: int, sigmoid: bool, num_bins: int = 20, include_background: bool = False) -> None:
        self.sigmoid = sigmoid
        self.num_bins = num_bins
        self.first_class = 0 if include_background or sigmoid else 1
        self.num_cases = 0
        self.num_voxels = 0
        self.class_voxels = torch.zeros(num_classes, dtype=torch.float64)
        self._nll = 0.0
        self._moved = 0
        self._dice: list[float] = []
        empty = torch.zeros(1, num_classes, num_bins, dtype=torch.float64)
        self._bins = BinStatistics(empty.long(), empty, empty)

    def update(self, case: CalibrationCase, logits: Tensor | None = None) -> None:
        """Add calibrated logits of a case, or its own; decisions are compared with those of its own.

        Raises:
            UserError: naming the case: shapes do not fit, or labels are out of range.
        """
        calibrated = case if logits is None else case._replace(logits=logits)
        tallies = [_DiceTally(len(self.class_voxels)) for _ in range(case.logits.shape[0])]
        for part, own in zip(parts_of(calibrated), parts_of(case), strict=True):
            part, own = (of_case._replace(logits=_widened(of_case.logits)) for of_case in (part, own))
            probs = to_probabilities(part.logits, self.sigmoid)
            try:
                bins = bin_statistics(probs, part.labels, self.num_bins, mask=part.mask).pool().to("cpu")
                volumes = list(voxels_of(part.logits, part.labels, part.mask))
            except ValueError as error:
                raise UserError(f"Case {case.name} of the calibration split: {error}") from error
            self._bins = self._bins.merge(bins)
            originals = voxels_of(own.logits, own.labels, own.mask)
            for voxels, original, tally in zip(volumes, originals, tallies, strict=True):
                if voxels.truth.ndim == 2 and not self.sigmoid and not _sums_to_one(voxels.truth):
                    raise UserError(
                        f"Case {case.name} of the calibration split: its target does not sum to 1 over the classes, so "
                        f"they do not exclude each other; use the activation sigmoid."
                    )
                self._update_part(voxels, original, tally)
        self.num_cases += len(tallies)
        self._dice += [dice for tally in tallies if (dice := tally.mean(self.first_class)) is not None]

    @property
    def nll(self) -> float:
        """Mean negative log-likelihood in nats per voxel, not clamped; with the sigmoid also the mean over classes."""
        return self._nll / self.num_voxels

    @property
    def absent_classes(self) -> list[int]:
        """Classes that no voxel has."""
        return (self.class_voxels == 0).nonzero()[:, 0].tolist()

    @property
    def constant_classes(self) -> list[int]:
        """Classes that no voxel or every voxel has."""
        return ((self.class_voxels == 0) | (self.class_voxels == self.num_voxels)).nonzero()[:, 0].tolist()

    @property
    def class_ece(self) -> list[float]:
        """Expected calibration error of each class, pooled over all voxels."""
        return calibration_error(self._bins)[0].tolist()

    @property
    def ece(self) -> float:
        """Mean of the classes' expected calibration errors."""
        values = self.class_ece[self.first_class :]
        return sum(values) / len(values)

    @property
    def dice(self) -> float | None:
        """Mean Dice coefficient of the decisions; None where no case has a class."""
        return sum(self._dice) / len(self._dice) if self._dice else None

    @property
    def decisions_changed(self) -> float:
        """Fraction of voxels whose decision is not that of the case's own logits; in any channel with the sigmoid."""
        return self._moved / self.num_voxels

    def _update_part(self, voxels: Voxels, original: Voxels, tally: _DiceTally) -> None:
        self.num_voxels += voxels.logits.shape[1]
        if not voxels.logits.shape[1]:
            return
        self._nll += negative_log_likelihood(voxels, self.sigmoid).item()
        decided = self._decide(voxels.logits)
        self._moved += int((decided != self._decide(original.logits)).any(0).sum())
        target = voxels.target()
        self.class_voxels += target.sum(1, dtype=torch.float64).cpu()
        tally.add(decided, target >= 0.5 if self.sigmoid else self._decide(target))

    def _decide(self, values: Tensor) -> Tensor:
        """Which classes a voxel is given, (C, N)."""
        if self.sigmoid:
            return values >= 0
        return values.argmax(0) == torch.arange(values.shape[0], device=values.device)[:, None]


class _DiceTally:
    """What the Dice coefficients of one volume need."""

    def __init__(self, num_classes: int) -> None:
        self.both, self.decided, self.true = torch.zeros(3, num_classes, dtype=torch.int64)

    def add(self, decided: Tensor, true: Tensor) -> None:
        self.both += (decided & true).sum(1).cpu()
        self.decided += decided.sum(1).cpu()
        self.true += true.sum(1).cpu()

    def mean(self, first_class: int) -> float | None:
        """Mean over the classes that are there, from one class on; None where none is."""
        there = (self.true[first_class:] > 0).nonzero()[:, 0] + first_class
        dice = [2 * int(self.both[c]) / int(self.decided[c] + self.true[c]) for c in there]
        return sum(dice) / len(dice) if dice else None


def _widened(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _sums_to_one(target: Tensor) -> bool:
    return bool(((target.double().sum(0) - 1).abs() < 1e-3).all())
