"""One window of an image through everything that a bundle does to it: as a module, and as the bundle itself does it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from monai.inferers import SimpleInferer, SlidingWindowInferer
from torch import Tensor, nn

from medcalib.errors import UserError
from medcalib.export.trained_bundle import TrainedBundle
from medcalib.inferers import EnsembleSampler, HeadSampler, PortableNetwork, SamplingInferer, TTASampler
from medcalib.inferers.samplers import single_member
from medcalib.networks import plain_convolutions

__all__ = ["WindowNetwork", "check_exportable", "example_windows", "own_prediction", "window_network", "window_shape"]


class WindowNetwork(nn.Module):
    """From windows (B, channels, ...) to a tuple: probabilities (B, C, ...) and, if wanted, their entropy (B, 1, ...).

    Args:
        network: gives probabilities.
        sigmoid: whether every channel is a binary problem of its own, as for the entropy.
        with_entropy: whether the entropy is given, in nats.

    Example:
        >>> network = WindowNetwork(nn.Softmax(1), with_entropy=True)
        >>> [round(output.item(), 4) for output in network(torch.zeros(1, 2, 1))[1:]]
        [0.6931]
    """

    def __init__(self, network: nn.Module, sigmoid: bool = False, with_entropy: bool = False) -> None:
        super().__init__()
        self.network = network
        self.sigmoid = sigmoid
        self.with_entropy = with_entropy

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs."""
        return ["probabilities", "entropy"] if self.with_entropy else ["probabilities"]

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Predict windows."""
        probs = self.network(image)
        if not self.with_entropy:
            return (probs,)
        terms = _entropy_terms(probs) + (_entropy_terms(1 - probs) if self.sigmoid else 0)
        return probs, terms.sum(1, keepdim=True)


def check_exportable(trained: TrainedBundle, kind: str) -> None:
    """Check that the members of a prediction can be computed without Python.

    Args:
        trained: the bundle.
        kind: format that is asked for.

    Raises:
        UserError: they cannot, and the message says which format works.
    """
    if reason := _needs_python(_sampler(trained)):
        raise UserError(
            f"{trained.bundle.name} cannot be exported as {kind}, for {reason}, which needs Python; --format bundle "
            f"works, or export a bundle of a method that draws nothing, such as {_plain_sibling(trained)}."
        )


def window_network(trained: TrainedBundle) -> WindowNetwork:
    """Network, calibrator and activation of a bundle as one module, with plain convolutions, on the CPU."""
    network = copy.deepcopy(trained.content("predicting_network")).cpu().to(memory_format=torch.contiguous_format)
    calibrator = None
    if trained.calibrator_file is not None and not trained.prepared:
        calibrator = copy.deepcopy(trained.content("fitted_calibrator")).cpu()
    portable = PortableNetwork(
        plain_convolutions(network),
        _sampler(trained),
        trained.content("activation"),
        calibrator,
        trained.content("calibrator::calibrate") if calibrator is not None else "mean",
    )
    made = WindowNetwork(portable, portable.sigmoid, isinstance(_sampler(trained), HeadSampler))
    return made.eval().requires_grad_(False)


def window_shape(trained: TrainedBundle) -> list[int]:
    """Size of the windows that a bundle predicts, along every spatial axis."""
    patch = [int(size) for size in trained.content("data::patch_size")]
    inferer = trained.content("inferer")
    if not isinstance(inferer, SlidingWindowInferer):
        return patch
    roi = inferer.roi_size
    sizes = [roi] * len(patch) if isinstance(roi, int) else list(roi)
    return [int(size) if size and size > 0 else own for size, own in zip(sizes, patch, strict=True)]


def example_windows(trained: TrainedBundle, batch_size: int = 2) -> Tensor:
    """Windows (B, channels, ...) of normally distributed values, always the same."""
    shape = (batch_size, len(trained.content("data::channel_names")), *window_shape(trained))
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def own_prediction(trained: TrainedBundle, windows: Tensor) -> Tensor:
    """Probabilities (B, C, ...) of windows, as the bundle itself predicts an image that is one window."""
    content = trained.content
    own, device = content("sampling_inferer"), content("device")
    inferer = SamplingInferer(SimpleInferer(), own.sampler, own.activation, False, own.member_calibrator)
    network = content("predicting_network").eval()
    logits = inferer(windows.to(device), network).float()
    calibrate, task = content("calibrate"), content("task")
    cases = [calibrate({"pred": one, "image": image}) for one, image in zip(logits, windows.to(device), strict=True)]
    return torch.stack([task.probabilities(case["pred"]) for case in cases]).cpu()


def _entropy_terms(probs: Tensor) -> Tensor:
    return -(probs.clamp_min(torch.finfo(torch.float32).tiny).log() * probs)


def _sampler(trained: TrainedBundle) -> Any:
    sampler = trained.content("sampling_inferer").sampler
    return None if sampler is single_member else sampler


def _needs_python(sampler: Any) -> str | None:
    if sampler is None or sampler is single_member or isinstance(sampler, HeadSampler | EnsembleSampler):
        return None
    if isinstance(sampler, TTASampler):
        if sampler.intensity:
            return "test-time augmentation changes intensities at random"
        return _needs_python(sampler.sampler)
    if type(sampler).__name__ == "MCDropoutSampler":
        return f"its prediction is the mean of {sampler.num_members} members with dropout masks drawn from a seed"
    return f"{type(sampler).__name__} draws the members of its prediction"


def _plain_sibling(trained: TrainedBundle) -> str:
    fragments = trained.bundle.fragments
    return f"medcalib generate --data {fragments['data']} --loss {fragments['loss']}"
