"""Calibrators that scale and shift the logits of every voxel alike."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from medcalib.calibrators.base import Calibrator
from medcalib.functional.temperature import scale_temperature
from medcalib.keys import Activation

__all__ = ["PlattScaling", "ScalingCalibrator", "TemperatureScaling", "VectorScaling"]

# Beyond, float32 probabilities are 0 and 1, or all alike: no data determine such a scale.
LARGEST_SCALE = 100.0


class ScalingCalibrator(Calibrator):
    r"""A calibrator :math:`z'_c = a_c z_c + b_c`; how :math:`a` and :math:`b` follow from its parameters is its kind.

    Its NLL is convex in a and b, and is minimised to convergence.
    """

    def affine(self, parameters: Tensor) -> Tensor:
        """Scales and biases, (2C,), of all parameters in one vector; differentiable twice."""
        raise NotImplementedError

    def of_class(self, index: int) -> list[int]:
        """Places in the vector of parameters of those that belong to one class alone."""
        raise NotImplementedError

    def limit(self) -> tuple[bool, bool]:
        """Bring scales back into the range where they can be told apart; whether one was too small, and too large."""
        raise NotImplementedError


class TemperatureScaling(ScalingCalibrator):
    r"""One temperature: :math:`z' = z / T`, :math:`T = e^t` (Guo et al. 2017, https://arxiv.org/abs/1706.04599).

    It moves no decision. T above 1 makes the network less confident. With the sigmoid one temperature is shared by all
    channels.

    Args:
        num_classes: number of logit channels.
        activation: ``"softmax"`` or ``"sigmoid"``.

    Example:
        >>> import torch
        >>> from medcalib.calibrators import fit_calibrator
        >>> truth = torch.randn(1, 2, 4000, generator=torch.manual_seed(0))
        >>> labels = torch.multinomial(truth[0].softmax(0).T, 1).T[None]
        >>> calibrator = TemperatureScaling(num_classes=2)
        >>> report = fit_calibrator(calibrator, [(3 * truth, labels)])
        >>> 2.8 < calibrator.temperature < 3.2
        True
        >>> calibrator(3 * truth).shape
        torch.Size([1, 2, 4000])
    """

    kind = "temperature_scaling"

    def __init__(self, num_classes: int, activation: Activation | str = Activation.SOFTMAX) -> None:
        super().__init__(num_classes, activation)
        self.log_temperature = nn.Parameter(torch.zeros(()))

    @property
    def temperature(self) -> float:
        """The temperature."""
        return math.exp(self.log_temperature.item())

    def map_logits(self, logits: Tensor, image: Tensor | None = None) -> Tensor:
        """Divide the logits by the temperature."""
        return scale_temperature(logits, self.log_temperature)

    def reset_parameters(self, seed: int = 0) -> None:
        """Set T to 1."""
        nn.init.zeros_(self.log_temperature)

    def affine(self, parameters: Tensor) -> Tensor:
        """1/T for every class, and no bias."""
        scale = (-parameters).exp().expand(self.num_classes)
        return torch.cat([scale, torch.zeros_like(scale)])

    def of_class(self, index: int) -> list[int]:
        """None: the temperature belongs to all classes."""
        return []

    def limit(self) -> tuple[bool, bool]:
        """Bring T into [0.01, 100]."""
        cold, hot = _clamp(self.log_temperature, math.log(LARGEST_SCALE))
        return hot, cold

    def describe(self) -> dict[str, Any]:
        """The temperature."""
        return {"temperature": self.temperature}


class VectorScaling(ScalingCalibrator):
    r"""A positive scale and a bias per class: :math:`z'_c = e^{s_c} z_c + b_c` (Guo et al. 2017, 1706.04599).

    With the softmax the logits of one voxel are not free of a common constant any more: a calibrator fitted on a
    network's logits belongs to those, and one fitted on logs of mean probabilities to these.

    Args:
        num_classes: number of logit channels.
        activation: ``"softmax"`` or ``"sigmoid"``.
        bias: whether there are biases.
        keep_argmax: keep every decision of the uncalibrated logits.

    Example:
        >>> VectorScaling(num_classes=3, bias=False).describe()
        {'scale': [1.0, 1.0, 1.0], 'bias': [0.0, 0.0, 0.0]}
    """

    kind = "vector_scaling"

    def __init__(
        self,
        num_classes: int,
        activation: Activation | str = Activation.SOFTMAX,
        bias: bool = True,
        keep_argmax: bool = False,
    ) -> None:
        super().__init__(num_classes, activation, keep_argmax)
        self.log_scale = nn.Parameter(torch.zeros(num_classes))
        self.bias = nn.Parameter(torch.zeros(num_classes)) if bias else None

    def map_logits(self, logits: Tensor, image: Tensor | None = None) -> Tensor:
        """Scale and shift the logits of each class."""
        return _scale_and_shift(logits, self.log_scale.exp(), self.bias)

    def reset_parameters(self, seed: int = 0) -> None:
        """Set scales to 1 and biases to 0."""
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def affine(self, parameters: Tensor) -> Tensor:
        """Scales and biases of the vector of their logarithms and of biases."""
        scale, bias = parameters[: self.num_classes].exp(), parameters[self.num_classes :]
        return torch.cat([scale, torch.zeros_like(scale) if self.bias is None else bias])

    def of_class(self, index: int) -> list[int]:
        """Scale and bias of the class."""
        return [index] if self.bias is None else [index, self.num_classes + index]

    def limit(self) -> tuple[bool, bool]:
        """Bring scales into [0.01, 100]."""
        return _clamp(self.log_scale, math.log(LARGEST_SCALE))

    def settings(self) -> dict[str, Any]:
        """Also whether there are biases."""
        return {**super().settings(), "bias": self.bias is not None}

    def describe(self) -> dict[str, Any]:
        """Scale and bias of each class."""
        bias = [0.0] * self.num_classes if self.bias is None else self.bias.tolist()
        return {"scale": self.log_scale.exp().tolist(), "bias": bias}


class PlattScaling(ScalingCalibrator):
    r"""A scale of any sign and a bias per class: :math:`z'_c = w_c z_c + b_c`, a 1x1 convolution per logit map.

    For a binary problem it is Platt's logistic regression (Platt 1999) as in https://arxiv.org/abs/2010.14290: with one
    sigmoid channel, ``Conv(1, 1, 1)`` on the logit map. A binary problem written as two softmax channels has the
    log-odds :math:`z_1 - z_0`; there both channels share one scale, so that the log-odds become
    :math:`w (z_1 - z_0) + b_1 - b_0`, the same 1x1 convolution on the map of log-odds. With more classes each has its
    own scale and all are fitted together by the NLL of the softmax; what sets it apart from
    :class:`VectorScaling` is then only that a scale may become negative.

    Args:
        num_classes: number of logit channels.
        activation: ``"softmax"`` or ``"sigmoid"``.
        keep_argmax: keep every decision of the uncalibrated logits.

    Example:
        >>> PlattScaling(num_classes=1, activation="sigmoid").describe()
        {'scale': [1.0], 'bias': [0.0]}
    """

    kind = "platt_scaling"

    def __init__(
        self, num_classes: int, activation: Activation | str = Activation.SOFTMAX, keep_argmax: bool = False
    ) -> None:
        super().__init__(num_classes, activation, keep_argmax)
        self.binary = num_classes == 2 and not self.sigmoid
        self.scale = nn.Parameter(torch.ones(1 if self.binary else num_classes))
        self.bias = nn.Parameter(torch.zeros(num_classes))

    def map_logits(self, logits: Tensor, image: Tensor | None = None) -> Tensor:
        """Scale and shift the logits of each class."""
        return _scale_and_shift(logits, self.scale, self.bias)

    def reset_parameters(self, seed: int = 0) -> None:
        """Set scales to 1 and biases to 0."""
        nn.init.ones_(self.scale)
        nn.init.zeros_(self.bias)

    def affine(self, parameters: Tensor) -> Tensor:
        """Scales and biases."""
        scale, bias = parameters[: self.scale.numel()], parameters[self.scale.numel() :]
        return torch.cat([scale.expand(self.num_classes), bias])

    def of_class(self, index: int) -> list[int]:
        """Scale, unless it is shared, and bias of the class."""
        bias = self.scale.numel() + index
        return [bias] if self.binary else [index, bias]

    def limit(self) -> tuple[bool, bool]:
        """Bring scales into [-100, 100]; none is too small."""
        return False, any(_clamp(self.scale, LARGEST_SCALE))

    def describe(self) -> dict[str, Any]:
        """Scale and bias of each class."""
        return {"scale": self.scale.expand(self.num_classes).tolist(), "bias": self.bias.tolist()}


def _scale_and_shift(logits: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    shape = [1, -1] + [1] * (logits.dim() - 2)
    scaled = logits * scale.reshape(shape)
    return scaled if bias is None else scaled + bias.reshape(shape)


@torch.no_grad()
def _clamp(parameter: nn.Parameter, largest: float) -> tuple[bool, bool]:
    """Clamp to [-largest, largest]; whether a value was below, and whether one was above."""
    outside = bool((parameter < -largest).any()), bool((parameter > largest).any())
    parameter.clamp_(-largest, largest)
    return outside
