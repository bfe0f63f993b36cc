"""A convolution on the logit map."""

from typing import Any

from monai.networks.layers import Conv
from torch import Tensor, nn
from torch.nn import functional as F

from medcalib.calibrators.base import Calibrator
from medcalib.keys import Activation

__all__ = ["AuxiliaryCalibrator"]


class AuxiliaryCalibrator(Calibrator):
    r"""One k x k (x k) convolution on the logit map, the auxiliary network of https://arxiv.org/abs/2010.14290.

    It sees the neighbourhood of a voxel and all classes. It is kept as :math:`z' = z + W * z + b` with W and b from 0,
    the same convolution as the published one, that starts at the identity. The border is repeated outwards. The NLL is
    convex in W and b, so it is minimised by LBFGS, with early stopping against fitting the few cases too closely.

    Args:
        num_classes: number of logit channels.
        spatial_dims: 1, 2 or 3.
        activation: ``"softmax"`` or ``"sigmoid"``.
        kernel_size: k, odd.
        keep_argmax: keep every decision of the uncalibrated logits.

    Raises:
        ValueError: ``kernel_size`` is even.

    Example:
        >>> import torch
        >>> calibrator = AuxiliaryCalibrator(num_classes=3, spatial_dims=2)
        >>> logits = torch.randn(1, 3, 16, 16)
        >>> torch.equal(calibrator.calibrate(logits), logits)
        True
    """

    kind = "auxiliary"
    convex = True

    def __init__(
        self,
        num_classes: int,
        spatial_dims: int,
        activation: Activation | str = Activation.SOFTMAX,
        kernel_size: int = 5,
        keep_argmax: bool = False,
    ) -> None:
        super().__init__(num_classes, activation, keep_argmax)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}.")
        self.num_axes = spatial_dims
        self.border = [kernel_size // 2] * (2 * spatial_dims)
        self.convolution = Conv[Conv.CONV, spatial_dims](num_classes, num_classes, kernel_size)
        self.reset_parameters()

    def map_logits(self, logits: Tensor, image: Tensor | None = None) -> Tensor:
        """Add the convolution to the logits."""
        surrounded = F.pad(logits.to(self.convolution.weight.dtype), self.border, mode="replicate")
        return logits + self.convolution(surrounded)

    def reset_parameters(self, seed: int = 0) -> None:
        """Set the added convolution to 0."""
        nn.init.zeros_(self.convolution.weight)
        nn.init.zeros_(self.convolution.bias)

    def settings(self) -> dict[str, Any]:
        """Also the shape of the convolution."""
        return {
            **super().settings(),
            "spatial_dims": self.num_axes,
            "kernel_size": self.convolution.kernel_size[0],
        }
