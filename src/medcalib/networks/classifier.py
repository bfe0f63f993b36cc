"""A classifier of whole images: a residual network that extracts features, and a head."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from monai.networks.nets import ResNet
from torch import Tensor, nn
from torch.nn import functional as F

from medcalib.errors import UserError
from medcalib.networks.freezing import stay_in_eval
from medcalib.networks.weights import load_state, read_checkpoint

__all__ = ["ImageClassifier", "load_features"]

EXPANSION = {"basic": 1, "bottleneck": 4}
# of files of whole classifiers: torchvision's, and those of an ImageClassifier
OTHER_HEADS = ("fc.", "head.")


class HeadDropout(nn.Module):
    """Dropout that does nothing but regularise the training.

    Methods that draw dropout masks for a prediction do not see it, so that only the dropout they insert is stochastic.

    Args:
        p: probability in [0, 1) that an element becomes zero.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the inputs, in training mode with some elements zero."""
        return F.dropout(inputs, self.p, self.training)


class ImageClassifier(nn.Module):
    """A residual network as feature extractor and a multilayer perceptron as head.

    The defaults are a ResNet-50 (2048 features) with the head of the cervical cytology study (Ojha and Narendra, MIDL
    2024): four hidden layers, each with ReLU and dropout. The features are those of MONAI's ``ResNet`` in torchvision's
    layout, so that torchvision's weights fit, see `load_features`.

    Args:
        in_channels: channels of the image.
        num_classes: number of classes.
        block: ``"basic"`` or ``"bottleneck"``.
        layers: number of blocks of each of the four stages.
        widths: channels of each stage; a bottleneck puts out four times as many.
        stem_size: size of the first convolution.
        stem_stride: its stride.
        max_pool: whether it is followed by pooling, which halves the resolution once more.
        hidden: widths of the hidden layers of the head; a single linear layer if empty.
        dropout: probability in [0, 1) of dropout after each hidden layer. It regularises the training and stays out of
            MC dropout.
        spatial_dims: number of spatial axes of the image.

    Raises:
        UserError: ``block`` is none of the two, ``layers`` or ``widths`` are not four numbers, ``hidden`` is no list of
            numbers, or ``dropout`` is not in [0, 1).

    Example:
        >>> network = ImageClassifier(3, 2, block="basic", layers=[1, 1, 1, 1], widths=[4, 8, 16, 32], hidden=[16])
        >>> network(torch.zeros(5, 3, 64, 64)).shape, network.features(torch.zeros(1, 3, 64, 64)).shape
        (torch.Size([5, 2]), torch.Size([1, 32]))
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        block: str = "bottleneck",
        layers: Sequence[int] = (3, 4, 6, 3),
        widths: Sequence[int] = (64, 128, 256, 512),
        stem_size: int = 7,
        stem_stride: int = 2,
        max_pool: bool = True,
        hidden: Sequence[int] = (1024, 512, 256, 128),
        dropout: float = 0.3,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        if block not in EXPANSION:
            raise UserError(f"The block of a ResNet must be {' or '.join(EXPANSION)}, not {block!r}.")
        if isinstance(dropout, str) or not 0 <= dropout < 1:
            raise UserError(f"The dropout of the head must be a number in [0, 1), not {dropout!r}.")
        for name, sizes in {"layers": layers, "widths": widths}.items():
            if not _are_sizes(sizes) or len(sizes) != 4:
                raise UserError(f"The {name} of a ResNet must be four whole numbers of at least 1, not {sizes!r}.")
        if not _are_sizes(hidden):
            raise UserError(f"The hidden layers of the head must be a list of their widths, not {hidden!r}.")
        self.features = ResNet(
            block=block,
            layers=list(layers),
            block_inplanes=list(widths),
            spatial_dims=spatial_dims,
            n_input_channels=in_channels,
            conv1_t_size=stem_size,
            conv1_t_stride=stem_stride,
            no_max_pool=not max_pool,
            feed_forward=False,
            bias_downsample=False,
        )
        sizes = [widths[-1] * EXPANSION[block], *hidden]
        hidden_layers = [
            nn.Sequential(nn.Linear(before, after), nn.ReLU(), HeadDropout(dropout))
            for before, after in pairwise(sizes)
        ]
        self.head = nn.Sequential(
            OrderedDict(hidden=nn.Sequential(*hidden_layers), output=nn.Linear(sizes[-1], num_classes))
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes) of images (B, channels, ...)."""
        return self.head(self.features(images))


def _are_sizes(values: Any) -> bool:
    return (
        not isinstance(values, str)
        and isinstance(values, Sequence)
        and all(isinstance(value, int) and not isinstance(value, bool) and value >= 1 for value in values)
    )


def load_features(network: nn.Module, path: str | Path | None, frozen: bool = False) -> nn.Module:
    """Give the feature extractor of an `ImageClassifier` the weights that another training found.

    The file holds a state dict: that of one of torchvision's ResNets, whose last layer is passed over, or that of an
    `ImageClassifier`, whose head is passed over.

    Args:
        network: an `ImageClassifier`, or a network that holds one, such as a `medcalib.networks.MultiHead`.
        path: the file; the first weights stay if None.
        frozen: whether the feature extractor is kept as it is in training, the statistics of its normalisation too.

    Returns:
        The network, changed in place.

    Raises:
        UserError: the file is missing, damaged or holds the weights of another architecture, or the network holds no
            `ImageClassifier`.

    Example:
        >>> network = ImageClassifier(3, 2, block="basic", layers=[1, 1, 1, 1], widths=[4, 8, 16, 32], hidden=[])
        >>> load_features(network, "resnet18.pth")
        Traceback (most recent call last):
        ...
        medcalib.errors.UserError: resnet18.pth does not exist; network::weights names the weights of the \
feature extractor, so correct it, or set it to null to begin with random weights.
    """
    features = next((module.features for module in network.modules() if isinstance(module, ImageClassifier)), None)
    if features is None:
        raise UserError(
            f"{type(network).__name__} holds no ImageClassifier, so there are no features to load weights for."
        )
    if path is not None:
        load_state(features, _feature_state(path, features), path)
    if frozen:
        for module in features.modules():
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)
            if list(module.buffers(recurse=False)):
                module.register_forward_pre_hook(stay_in_eval)
    return network


def _feature_state(path: str | Path, features: nn.Module) -> dict[str, torch.Tensor]:
    if not Path(path).exists():
        raise UserError(
            f"{path} does not exist; network::weights names the weights of the feature extractor, so correct it, "
            f"or set it to null to begin with random weights."
        )
    try:
        state = read_checkpoint(path)
    except UserError:
        state = None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{path}, which network::weights names, is not a readable state dict; fetch it again.")
    # older files of torchvision lack the numbers of batches, which nothing depends on
    counters = {name: value for name, value in features.state_dict().items() if name.endswith("num_batches_tracked")}
    return counters | {
        name.removeprefix("features."): value for name, value in state.items() if not name.startswith(OTHER_HEADS)
    }
