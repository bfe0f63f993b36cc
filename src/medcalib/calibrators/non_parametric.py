"""Calibrators that read the observed frequencies off bin statistics."""

from collections.abc import Collection
from functools import reduce
from typing import Any

import numpy as np
import torch
from scipy.optimize import isotonic_regression
from scipy.special import expit, logit
from torch import Tensor
from torch.nn import functional as F

from medcalib.calibrators.base import Calibrator
from medcalib.calibrators.calibration_cases import CalibrationCase, parts_of
from medcalib.functional import BinStatistics, bin_indices, bin_statistics, to_probabilities
from medcalib.functional.temperature import log_odds
from medcalib.keys import Activation

__all__ = ["BinnedCalibrator", "HistogramBinningCalibrator", "IsotonicCalibrator"]

# Log-odds beyond are 0 and 1 in float32.
LARGEST_LOG_ODDS = 16.0


class BinnedCalibrator(Calibrator):
    """A calibrator whose map of each class follows from the pooled bin statistics of that class."""

    num_bins: int

    def statistics(self, case: CalibrationCase) -> BinStatistics:
        """Bin statistics of a case, pooled over its volumes, (1, C, bins), on the CPU."""

        def statistics(part: CalibrationCase) -> BinStatistics:
            scores = self.scores(part.logits.to(torch.promote_types(part.logits.dtype, torch.float32)))
            return bin_statistics(scores, part.labels, self.num_bins, mask=part.mask).pool().to("cpu")

        return reduce(BinStatistics.merge, map(statistics, parts_of(case)))

    def scores(self, logits: Tensor) -> Tensor:
        """What is binned: values in [0, 1], (B, C, ...), growing with the probability of the class."""
        raise NotImplementedError

    def fit_statistics(self, statistics: BinStatistics, identity_classes: Collection[int] = ()) -> None:
        """Set the maps of all classes from statistics (1, C, bins), but for classes that keep the identity."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """Also the number of bins."""
        return {**super().settings(), "num_bins": self.num_bins}


class IsotonicCalibrator(BinnedCalibrator):
    r"""The monotone map of each class's log-odds that fits the observed frequencies best.

    Isotonic regression (Zadrozny & Elkan 2002, https://doi.org/10.1145/775047.775151) by pooling adjacent violators, of
    the frequencies in ``num_bins`` equal bins of the log-odds of the class against all others, from -16 to 16 (beyond,
    the nearest bin). The map is constant within a pooled block and, on the scale of log-odds, linear between blocks;
    beyond the outermost log-odds that were seen it shifts them as it does there. A block counts as if one more voxel of
    its mean probability had been seen, so no frequency is 0 or 1. Probabilities of exclusive classes are then divided
    by their sum.

    Args:
        num_classes: number of logit channels.
        activation: ``"softmax"`` or ``"sigmoid"``.
        num_bins: number of bins.
        keep_argmax: keep every decision of the uncalibrated logits.

    Example:
        >>> import torch
        >>> from medcalib.calibrators import fit_calibrator
        >>> calibrator = IsotonicCalibrator(num_classes=1, activation="sigmoid")
        >>> logits = torch.tensor([-4.0, 4.0]).repeat(1, 1, 1000)
        >>> labels = (torch.arange(2000) % 5 == 1).float()[None, None]
        >>> _ = fit_calibrator(calibrator, [(logits, labels)])
        >>> calibrator(torch.tensor([[[-4.0, 4.0]]])).sigmoid()
        tensor([[[0.2001, 0.2001]]])
    """

    kind = "isotonic"
    shift: Tensor

    def __init__(
        self,
        num_classes: int,
        activation: Activation | str = Activation.SOFTMAX,
        num_bins: int = 1024,
        keep_argmax: bool = False,
    ) -> None:
        super().__init__(num_classes, activation, keep_argmax)
        self.num_bins = num_bins
        self.largest = LARGEST_LOG_ODDS
        # By how much log-odds are shifted at the boundaries of the bins.
        self.register_buffer("shift", torch.zeros(num_classes, num_bins + 1))

    def map_logits(self, logits: Tensor, image: Tensor | None = None) -> Tensor:
        """Shift the log-odds of each class."""
        odds = logits if self.sigmoid else log_odds(logits)
        shifts = []
        # Class by class: indices of all classes at once would take twice the memory of the logits.
        for index in range(self.num_classes):
            place = (odds[:, index] / (2 * self.largest) + 0.5).clamp(0, 1) * self.num_bins
            left = place.long().clamp(max=self.num_bins - 1)
            table = self.shift[index].to(odds.dtype)
            shifts.append(torch.lerp(table.take(left), table.take(left + 1), place - left))
        shift = torch.stack(shifts, 1)
        if self.sigmoid:
            return logits + shift
        # p' / p times what the logit stands for: the softmax divides by the sum.
        return logits + (F.logsigmoid(odds + shift) - F.logsigmoid(odds))

    def reset_parameters(self, seed: int = 0) -> None:
        """Shift nothing."""
        self.shift.zero_()

    def scores(self, logits: Tensor) -> Tensor:
        """Log-odds from -16 to 16 as 0 to 1."""
        odds = logits if self.sigmoid else log_odds(logits)
        return (odds / (2 * self.largest) + 0.5).clamp(0, 1)

    def fit_statistics(self, statistics: BinStatistics, identity_classes: Collection[int] = ()) -> None:
        """Pool adjacent violators of each class."""
        boundaries = np.linspace(-self.largest, self.largest, self.num_bins + 1)
        for index in set(range(self.num_classes)).difference(identity_classes):
            counts, scores, true = (part[0, index].double().numpy() for part in statistics)
            knots, values = _monotone_knots(counts, (2 * scores - counts) * self.largest, true)
            mapped = np.interp(boundaries, knots, values)
            shift = np.where(
                boundaries < knots[0],
                values[0] - knots[0],
                np.where(boundaries > knots[-1], values[-1] - knots[-1], mapped - boundaries),
            )
            self.shift[index] = torch.from_numpy(shift)


class HistogramBinningCalibrator(BinnedCalibrator):
    r"""The observed frequency of the bin in which the probability of each class lies.

    Equal bins of [0, 1] (Zadrozny & Elkan 2001; https://arxiv.org/abs/1706.04599 compares it). Within a bin all
    probabilities become the same, so small structures may lose detail, and decisions may move. A bin counts as if one
    more voxel of its mean probability had been seen, so no frequency is 0 or 1, and an empty bin keeps its centre.
    Probabilities of exclusive classes are then divided by their sum. Measured with the same bins on the cases of the
    fit, the calibration error is all but 0 for two classes, and with more only the division keeps it from that; judge
    it on others.

    Args:
        num_classes: number of logit channels.
        activation: ``"softmax"`` or ``"sigmoid"``.
        num_bins: number of bins.
        keep_argmax: keep every decision of the uncalibrated logits.

    Example:
        >>> import torch
        >>> from medcalib.calibrators import fit_calibrator
        >>> calibrator = HistogramBinningCalibrator(num_classes=1, activation="sigmoid")
        >>> logits = torch.tensor([-4.0, 4.0]).repeat(1, 1, 1000)
        >>> labels = (torch.arange(2000) % 4 > 0).float()[None, None]
        >>> _ = fit_calibrator(calibrator, [(logits, labels)])
        >>> calibrator(torch.tensor([[[-4.0, 4.0]]])).sigmoid()
        tensor([[[0.4995, 1.0000]]])
    """

    kind = "histogram_binning"
    log_odds: Tensor
    identity: Tensor

    def __init__(
        self,
        num_classes: int,
        activation: Activation | str = Activation.SOFTMAX,
        num_bins: int = 20,
        keep_argmax: bool = False,
    ) -> None:
        super().__init__(num_classes, activation, keep_argmax)
        self.num_bins = num_bins
        self.register_buffer("log_odds", torch.zeros(num_classes, num_bins))
        self.register_buffer("identity", torch.ones(num_classes, dtype=torch.bool))

    def map_logits(self, logits: Tensor, image: Tensor | None = None) -> Tensor:
        """Look up the frequency of each class."""
        shape = [1, -1] + [1] * (logits.dim() - 2)
        probs = self.scores(logits)
        looked_up = []
        for index in range(self.num_classes):
            place = bin_indices(probs[:, index], self.num_bins)
            looked_up.append(self.log_odds[index].to(logits.dtype).take(place))
        odds = torch.stack(looked_up, 1)
        identity = self.identity.reshape(shape)
        if self.sigmoid:
            return torch.where(identity, logits, odds)
        return logits + torch.where(identity, torch.zeros_like(logits), F.logsigmoid(odds) - logits.log_softmax(1))

    def reset_parameters(self, seed: int = 0) -> None:
        """Let every class keep its probabilities."""
        self.log_odds.zero_()
        self.identity.fill_(True)

    def scores(self, logits: Tensor) -> Tensor:
        """Probabilities."""
        return to_probabilities(logits, self.sigmoid)

    def fit_statistics(self, statistics: BinStatistics, identity_classes: Collection[int] = ()) -> None:
        """Take over the frequencies of each class."""
        counts, scores, true = (part[0].double() for part in statistics)
        centres = (torch.arange(self.num_bins, dtype=torch.float64) + 0.5) / self.num_bins
        mean = torch.where(counts > 0, scores / counts, centres)
        largest = expit(LARGEST_LOG_ODDS)
        frequency = ((true + mean) / (counts + 1)).clamp(1 - largest, largest)
        self.log_odds.copy_(frequency.logit())
        self.identity.zero_()
        self.identity[list(identity_classes)] = True


def _monotone_knots(counts: np.ndarray, odds: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where blocks of bins begin and end, as log-odds, and their monotone frequencies, as log-odds, from bin sums."""
    filled = counts > 0
    counts, odds, true = counts[filled], odds[filled], true[filled]
    bounds = isotonic_regression(true / counts, weights=counts).blocks
    block_counts, block_odds, block_true = (np.add.reduceat(values, bounds[:-1]) for values in (counts, odds, true))
    # The voxel that each block is given may disturb the order a little, hence the second round.
    smoothed = (block_true + expit(block_odds / block_counts)) / (block_counts + 1)
    frequency = isotonic_regression(smoothed, weights=block_counts + 1).x
    means = odds / counts
    knots = np.stack([means[bounds[:-1]], means[bounds[1:] - 1]], 1).ravel()
    # A block of a single bin begins where it ends.
    distinct = np.append(True, np.diff(knots) > 0)
    return knots[distinct], logit(np.repeat(frequency, 2))[distinct]
