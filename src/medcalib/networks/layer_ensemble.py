"""Output heads at intermediate layers of a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.networks.layers import Conv
from torch import Tensor, nn
from torch.nn import functional as F

from medcalib.errors import UserError
from medcalib.networks.module_names import match_modules
from medcalib.networks.trial_run import trial_run

__all__ = ["LayerEnsemble"]

INTERPOLATION = {1: "linear", 2: "bilinear", 3: "trilinear"}


class LayerHead(nn.Module):
    """Logits from the features of one layer.

    Args:
        spatial_dims: number of spatial dimensions.
        in_channels: channels of the features.
        out_channels: number of classes.
        kernel_size: of the convolution.
        dropout: probability of dropout before the convolution.
    """

    def __init__(
        self, spatial_dims: int, in_channels: int, out_channels: int, kernel_size: int, dropout: float
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.conv = Conv[Conv.CONV, spatial_dims](in_channels, out_channels, kernel_size, padding=kernel_size // 2)

    def forward(self, features: Tensor, size: Sequence[int] | None) -> Tensor:
        """Return logits (B, C, *size), or their mean over the features (B, C) without a size."""
        # the few channels of the logits are cheaper to enlarge than those of the features
        logits = self.conv(self.dropout(features))
        if size is None:
            return logits.flatten(2).mean(2)
        if logits.shape[2:] == torch.Size(size):
            return logits
        return F.interpolate(logits, size, mode=INTERPOLATION[len(size)], align_corners=False)


class LayerEnsemble(nn.Module):
    """A network with an output head at each of several layers (Kushibar et al., arXiv:2203.08878).

    A head is a convolution on the features of its layer, whose logits are brought to the size of the input by linear
    interpolation, or averaged to one value a class if the network is a classifier. The heads stand in the order in
    which their layers run (where one runs repeatedly, its last run counts), the network's own output last. No features
    are kept beyond a run.

    Args:
        network: any network that returns logits (B, C, ...) or (B, C); it is kept, not copied.
        modules: names or patterns of names of the layers, which return features (B, channels, ...), see
            `medcalib.networks.module_names.match_modules`.
        out_channels: number of classes.
        input_shape: shape (channels, ...) of an image without the batch axis, with which order and channels of the
            layers are found.
        kernel_size: of the heads' convolutions, odd.
        dropout: probability in [0, 1) of dropout before the heads' convolutions.

    Raises:
        UserError: a pattern matches no module, or a layer does not run or returns no features of the image's number of
            dimensions.
        ValueError: ``kernel_size`` is even, or ``dropout`` is not in [0, 1).

    Example:
        >>> down = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        >>> layers = nn.Sequential(down, nn.Conv2d(4, 2, 1), nn.Upsample(scale_factor=2))
        >>> network = LayerEnsemble(layers, ["0"], out_channels=2, input_shape=(1, 8, 8))
        >>> [tuple(logits.shape) for logits in network(torch.zeros(1, 1, 8, 8))]
        [(1, 2, 8, 8), (1, 2, 8, 8)]
    """

    def __init__(
        self,
        network: nn.Module,
        modules: Sequence[str],
        out_channels: int,
        input_shape: Sequence[int],
        kernel_size: int = 3,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0 or kernel_size < 1:
            raise ValueError(
                f"kernel_size must be odd, so that the heads keep the size of their layers, not {kernel_size}."
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), not {dropout}.")
        self.network = network
        spatial_dims = len(input_shape) - 1
        features: dict[str, Tensor] = {}
        versions: dict[str, int] = {}

        def note(name: str, output: Any) -> None:
            if not isinstance(output, Tensor) or output.ndim != spatial_dims + 2:
                shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
                raise UserError(
                    f"{name} returns {shape}, not features of {spatial_dims} spatial dimensions; name other layers."
                )
            # a layer that runs more than once stands where it ran last
            features.pop(name, None)
            features[name], versions[name] = output, output._version

        layers = match_modules(network, modules)
        final = self._run(layers, note, lambda: trial_run(network, input_shape))
        if missing := [name for name in layers if name not in features]:
            raise UserError(f"{', '.join(missing)} of {type(network).__name__} did not run; name layers that do.")
        # beside the heads, since names of modules cannot hold dots
        self.layers = list(features)
        self.heads = nn.ModuleList(
            LayerHead(spatial_dims, output.shape[1], out_channels, kernel_size, dropout).to(output.device)
            for output in features.values()
        )
        self.classifies = isinstance(final, Tensor) and final.ndim == 2
        # autograd cannot take back what is overwritten, so these are copied in training
        self.overwritten = {name for name, output in features.items() if output._version != versions[name]}

    def forward(self, inputs: Tensor) -> list[Any]:
        """Return the logits of every head; the last entry is what the network returns, in training maybe a list."""
        heads = dict(zip(self.layers, self.heads, strict=True))
        size = None if self.classifies else inputs.shape[2:]
        outputs: dict[str, Tensor] = {}

        def note(name: str, output: Tensor) -> None:
            # at once: the network may change its features in place later
            features = output.clone() if name in self.overwritten and torch.is_grad_enabled() else output
            outputs[name] = heads[name](features, size)

        layers = {name: self.network.get_submodule(name) for name in self.layers}
        final = self._run(layers, note, lambda: self.network(inputs))
        return [*(outputs[name] for name in self.layers), final]

    @staticmethod
    def _run(layers: dict[str, nn.Module], note: Callable[[str, Any], None], run: Callable[[], Any]) -> Any:
        handles = [
            # hooks come and go with a run, so that copies of this network are independent
            layer.register_forward_hook(lambda _layer, _inputs, output, name=name: note(name, output))
            for name, layer in layers.items()
        ]
        try:
            return run()
        finally:
            for handle in handles:
                handle.remove()
