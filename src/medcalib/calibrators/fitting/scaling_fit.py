"""Fit scales and biases: a convex problem, solved to convergence."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.func import jacrev
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from medcalib.calibrators.fitting.likelihood import AffineLikelihood
from medcalib.calibrators.scaling import LARGEST_SCALE, ScalingCalibrator

__all__ = ["fit_scaling"]

# The gradient's norm at which the fit stops, as a part of the NLL, and the number of steps after which it gives up.
TOLERANCE = 1e-8
MAX_STEPS = 200
# No step moves a parameter further: from one logarithm of a scale to the next, that is a factor of 7.
LARGEST_STEP = 2.0
# The part of the first NLL below which nothing is left to fit.
NOTHING_LEFT = 1e-6


def fit_scaling(
    calibrator: ScalingCalibrator, likelihood: AffineLikelihood, frozen_classes: Sequence[int] = ()
) -> tuple[float, int]:
    """Minimise the NLL by Newton's method in a trust region, from the parameters that the calibrator has.

    Args:
        calibrator: the calibrator, whose parameters are set.
        likelihood: what is minimised.
        frozen_classes: classes whose own parameters stay as they are.

    Returns:
        Euclidean norm of the gradient at the end, in nats per unit of the parameters, and the number of evaluations.
    """
    start = parameters_to_vector(calibrator.parameters()).detach().double().cpu()
    free = torch.ones(len(start), dtype=torch.bool)
    for index in frozen_classes:
        free[calibrator.of_class(index)] = False
    problem = _Problem(calibrator, likelihood, start, free)
    scale = max(problem.terms(start[free].numpy())[0], np.finfo(float).tiny)
    found = minimize(
        lambda x: problem.terms(x)[0] / scale,
        start[free].numpy(),
        jac=lambda x: problem.terms(x)[1] / scale,
        hess=lambda x: problem.terms(x)[2] / scale,
        method="trust-exact",
        options={
            "gtol": TOLERANCE,
            "maxiter": MAX_STEPS,
            "max_trust_radius": LARGEST_STEP,
            "initial_trust_radius": LARGEST_STEP / 2,
        },
    )
    vector_to_parameters(problem.full(found.x).to(next(calibrator.parameters())), calibrator.parameters())
    too_small, too_large = calibrator.limit()
    if found.fun < NOTHING_LEFT:
        stopped = " and was stopped at its limit" if too_large else ""
        _warn_of(
            calibrator, f"would become ever more confident{stopped}: the calibration split is predicted without error"
        )
    elif too_small:
        _warn_of(
            calibrator,
            "found no finite scale and was stopped at its limit: the logits tell nothing of the labels, or the "
            "opposite",
        )
    elif too_large:
        _warn_of(
            calibrator,
            f"found a scale beyond its limit, {LARGEST_SCALE:g}, and was stopped there: the logits are tiny, or tell a "
            f"class without error",
        )
    return float(np.linalg.norm(found.jac)) * scale, problem.evaluations


def _warn_of(calibrator: ScalingCalibrator, finding: str) -> None:
    warnings.warn(
        f"The {calibrator.kind} calibrator {finding}; fit on more cases (found {calibrator.describe()}).", stacklevel=4
    )


class _Problem:
    """The NLL as a function of the free parameters of a calibrator; the last evaluation is kept."""

    def __init__(
        self, calibrator: ScalingCalibrator, likelihood: AffineLikelihood, start: Tensor, free: Tensor
    ) -> None:
        self.calibrator = calibrator
        self.likelihood = likelihood
        self.start = start
        self.free = free
        self.evaluations = 0
        self._last: tuple[bytes, tuple[float, np.ndarray, np.ndarray]] | None = None

    def full(self, values: np.ndarray) -> Tensor:
        parameters = self.start.clone()
        parameters[self.free] = torch.from_numpy(np.array(values))
        return parameters

    def terms(self, values: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Value, gradient and Hessian."""
        key = np.asarray(values).tobytes()
        if self._last is None or self._last[0] != key:
            self.evaluations += 1
            self._last = (key, self._evaluate(self.full(values)))
        return self._last[1]

    def _evaluate(self, parameters: Tensor) -> tuple[float, np.ndarray, np.ndarray]:
        affine = self.calibrator.affine
        terms = self.likelihood(affine(parameters))
        if not self.likelihood.sigmoid and self.free.all():
            # A bias common to all classes changes no softmax; without curvature there, the solver would wander off.
            classes = len(terms.gradient) // 2
            terms.hessian[classes:, classes:] += terms.value / classes
        slope = jacrev(affine)(parameters)
        gradient = slope.T @ terms.gradient
        # Where scales are kept as logarithms their own curvature is left out: it vanishes with the gradient.
        curvature = slope.T @ terms.hessian @ slope
        return terms.value.item(), gradient[self.free].numpy(), curvature[self.free][:, self.free].numpy()
