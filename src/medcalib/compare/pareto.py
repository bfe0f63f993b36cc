"""Which of several methods no other one beats."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["pareto_front"]


def pareto_front(x: ArrayLike, y: ArrayLike) -> NDArray[np.bool_]:
    """Mark the points that no other point beats, where a lower ``x`` and a higher ``y`` are better.

    A point is beaten by one that is at least as good in both and better in one. With ``x`` the calibration error and
    ``y`` the Dice coefficient, the front holds the methods among which only taste decides
    (https://arxiv.org/abs/2010.14290, figure 1).

    Args:
        x: such as the ECE, (point,); lower is better.
        y: such as the Dice coefficient, (point,); higher is better.

    Returns:
        Whether each point is on the front, (point,). Of equal points all or none are; a point with NaN never is, and
        beats none.

    Raises:
        ValueError: the two are not of one shape (point,).

    Example:
        >>> pareto_front([0.01, 0.02, 0.03], [0.80, 0.90, 0.85]).tolist()
        [True, True, False]
    """
    low, high = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if low.ndim != 1 or low.shape != high.shape:
        raise ValueError(f"x and y must have one common shape (point,), got {low.shape} and {high.shape}.")
    as_good = (low <= low[:, None]) & (high >= high[:, None])
    better = (low < low[:, None]) | (high > high[:, None])
    return ~(as_good & better).any(1) & ~np.isnan(low) & ~np.isnan(high)
