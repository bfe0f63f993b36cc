"""A temperature per voxel."""

import math
from typing import Any

import torch
from monai.networks.layers import Conv
from torch import Tensor, nn
from torch.nn import functional as F

from medcalib.calibrators.base import Calibrator
from medcalib.functional.temperature import scale_temperature
from medcalib.keys import Activation

__all__ = ["LocalTemperatureScaling"]

# The range of log T, and of the logits that the network is shown: beyond, probabilities are 0 and 1.
LARGEST_LOG_TEMPERATURE = math.log(100)
LARGEST_INPUT = 16.0


class LocalTemperatureScaling(Calibrator):
    r"""A small convolutional network looks at the logits, and at the image if wanted, and sets T of every voxel.

    :math:`z'(x) = z(x) / T(x)` (Ding et al. 2021, https://arxiv.org/abs/2008.05105, whose tree-like network is replaced
    by three convolutions, the last of size 1). T lies between 1/100 and 100 and starts at 1. No decision moves. The
    network sees log-probabilities (with the sigmoid, logits), cut off at 16 and divided by it, so that a constant added
    to all classes of a voxel changes nothing. The border is repeated outwards.

    Args:
        num_classes: number of logit channels.
        spatial_dims: 1, 2 or 3.
        activation: ``"softmax"`` or ``"sigmoid"``.
        image_channels: number of channels of the image that is given beside the logits; 0 for none. Its intensities
            should be normalised.
        hidden_channels: width of the network.
        kernel_size: size of its first two convolutions, odd.

    Raises:
        ValueError: ``kernel_size`` is even.

    Example:
        >>> import torch
        >>> calibrator = LocalTemperatureScaling(num_classes=3, spatial_dims=3, image_channels=1)
        >>> logits, image = torch.randn(1, 3, 8, 8, 8), torch.randn(1, 1, 8, 8, 8)
        >>> torch.equal(calibrator.calibrate(logits, image), logits)
        True
        >>> calibrator.log_temperature(logits, image).shape
        torch.Size([1, 1, 8, 8, 8])
    """

    kind = "local_temperature_scaling"
    learning_rate = 3e-3

    def __init__(
        self,
        num_classes: int,
        spatial_dims: int,
        activation: Activation | str = Activation.SOFTMAX,
        image_channels: int = 0,
        hidden_channels: int = 16,
        kernel_size: int = 3,
    ) -> None:
        super().__init__(num_classes, activation)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}.")
        self.needs_image = image_channels > 0
        self.num_axes = spatial_dims
        self.shape = {
            "spatial_dims": spatial_dims,
            "image_channels": image_channels,
            "hidden_channels": hidden_channels,
            "kernel_size": kernel_size,
        }
        self.border = [kernel_size // 2 * 2] * (2 * spatial_dims)
        self.largest_input = LARGEST_INPUT
        self.largest = LARGEST_LOG_TEMPERATURE
        convolution = Conv[Conv.CONV, spatial_dims]
        self.network = nn.Sequential(
            convolution(num_classes + image_channels, hidden_channels, kernel_size),
            nn.ReLU(),
            convolution(hidden_channels, hidden_channels, kernel_size),
            nn.ReLU(),
            convolution(hidden_channels, 1, 1),
        )
        self.reset_parameters()

    def log_temperature(self, logits: Tensor, image: Tensor | None = None) -> Tensor:
        """Logarithm of the temperature of every voxel, (B, 1, ...), of logits (B, C, ...)."""
        features = logits if self.sigmoid else logits.log_softmax(1)
        features = features.clamp(-self.largest_input, self.largest_input) / self.largest_input
        if image is not None and self.needs_image:
            features = torch.cat([features, image.to(features.dtype)], 1)
        dtype: torch.dtype = self.network[0].weight.dtype  # type: ignore[assignment]
        features = F.pad(features.to(dtype), self.border, mode="replicate")
        return self.largest * torch.tanh(self.network(features) / self.largest)

    def map_logits(self, logits: Tensor, image: Tensor | None = None) -> Tensor:
        """Divide the logits of every voxel by its temperature."""
        return scale_temperature(logits, self.log_temperature(logits, image))

    def reset_parameters(self, seed: int = 0) -> None:
        """Draw the hidden layers from ``seed``, and set the last one to 0, so that T is 1."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            hidden: Any = self.network[:-1:2]
            for layer in hidden:
                drawn = torch.empty(layer.weight.shape)
                nn.init.kaiming_normal_(drawn, nonlinearity="relu", generator=generator)
                layer.weight.copy_(drawn)
                layer.bias.zero_()
            for parameter in self.network[-1].parameters():
                parameter.zero_()

    def settings(self) -> dict[str, Any]:
        """Also the shape of the network."""
        return {**super().settings(), **self.shape}
