"""From an image window to calibrated probabilities in one module, which can be exported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from medcalib.calibrators import Calibrator
from medcalib.inferers.samplers import Sampler
from medcalib.keys import Activation

__all__ = ["PortableNetwork"]


class PortableNetwork(nn.Module):
    """A network with its sampler, calibrator and activation inside.

    It predicts one window as a `medcalib.inferers.SamplingInferer` does, with the calibrator and the activation that
    follow. Of single networks it survives ``torch.jit.script``; with samplers whose members depend on nothing random,
    ``torch.jit.trace`` and ``torch.export``.

    Its own state is that of the network and that of the calibrator, but ``load_state_dict`` also takes the state of the
    network alone, as it lies in ``models/model.pt``; the calibrator stays as it was loaded then. Where an inferer of
    this package is given this module as the network, it predicts with the network inside, since windows are blended
    before they are calibrated.

    Args:
        network: returns logits (B, C, ...), or what the sampler draws from.
        sampler: draws the members, whose probabilities are averaged; the plain prediction alone when None.
        activation: how logits become probabilities.
        calibrator: the fitted calibrator; none when None.
        calibrate: what it calibrates, the ``"mean"`` of the members or each of the ``"members"``.

    Example:
        >>> from medcalib.calibrators import TemperatureScaling
        >>> calibrator = TemperatureScaling(num_classes=2)
        >>> calibrator.mark_fitted()
        >>> convolution, image = nn.Conv2d(1, 2, 1), torch.rand(3, 1, 4, 4)
        >>> network = PortableNetwork(convolution, calibrator=calibrator)
        >>> bool((network(image) == convolution(image).softmax(1)).all())
        True
        >>> network.load_state_dict(convolution.state_dict())
        <All keys matched successfully>
    """

    def __init__(
        self,
        network: nn.Module,
        sampler: Sampler | None = None,
        activation: Activation | str = Activation.SOFTMAX,
        calibrator: Calibrator | None = None,
        calibrate: str = "mean",
    ) -> None:
        super().__init__()
        self.network = network
        self.sampler = sampler
        self.sigmoid = Activation(activation) is Activation.SIGMOID
        self.calibrator = calibrator
        self.calibrates_members = calibrate == "members"
        self.smallest = torch.finfo(torch.float32).tiny
        self.largest = 1 - torch.finfo(torch.float32).eps / 2
        self.register_load_state_dict_pre_hook(_accept_network_state)

    def forward(self, image: Tensor) -> Tensor:
        """Probabilities (B, C, ...) in [0, 1] of windows (B, channels, ...)."""
        if self.sampler is None:
            output = self.network(image)
            # deep supervision returns a list in training, which scripts must rule out
            assert isinstance(output, Tensor), "the network must be in evaluation mode and return one tensor"
            logits = output
            if self.calibrator is not None:
                logits = self.calibrator(logits, image)
        else:
            logits = self._mean_logits(image)
            if self.calibrator is not None and not self.calibrates_members:
                logits = self.calibrator(logits, image)
        return self._probabilities(logits)

    def _probabilities(self, logits: Tensor) -> Tensor:
        if self.sigmoid:
            return logits.float().sigmoid()
        return logits.float().softmax(1)

    def _mean_logits(self, image: Tensor) -> Tensor:
        members = []
        assert self.sampler is not None
        for logits in self.sampler(image, self.network):
            if self.calibrator is not None and self.calibrates_members:
                logits = self.calibrator(logits, image)
            members.append(logits)
        if len(members) == 1:
            return members[0]
        # moved by differences, as in PredictiveMoments, since calibrators enlarge the rounding of a plain sum
        mean = self._probabilities(members[0])
        for number, logits in enumerate(members[1:], 2):
            mean = torch.add(mean, self._probabilities(logits) - mean, alpha=1 / number)
        if self.sigmoid:
            mean = mean.clamp(self.smallest, self.largest)
            return mean.log() - (-mean).log1p()
        return mean.clamp_min(self.smallest).log()


def _accept_network_state(module: nn.Module, state: dict[str, Any], prefix: str, *_rest: Any) -> None:
    """Give the state of a network alone the names that it has in a `PortableNetwork`, and add the calibrator's."""
    own: Mapping[str, Any] = module.state_dict(prefix=prefix)
    if own.keys() <= state.keys():
        return
    for name in [name for name in state if name.startswith(prefix)]:
        state[f"{prefix}network.{name.removeprefix(prefix)}"] = state.pop(name)
    beside = f"{prefix}calibrator."
    state.update((name, value) for name, value in own.items() if name.startswith(beside))
