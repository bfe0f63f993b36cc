"""Average the members of a prediction window by window."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from monai.data import MetaTensor, compute_importance_map
from monai.inferers import Inferer, SlidingWindowInferer
from monai.utils import CommonKeys
from torch import Tensor, nn

from medcalib.calibrators import Calibrator
from medcalib.functional.activation import to_decisions
from medcalib.functional.agreement import member_agreement
from medcalib.functional.uncertainty import PredictiveMoments
from medcalib.inferers.member_labels import MemberLabels
from medcalib.inferers.portable_network import PortableNetwork
from medcalib.inferers.prediction_cache import PredictionCache
from medcalib.inferers.samplers import Sampler, single_member
from medcalib.inferers.stitching import stitched
from medcalib.keys import MEMBER_MAPS, Activation, UncertaintyKeys

__all__ = ["SamplingInferer"]


class SamplingInferer(Inferer):
    r"""Draw members from a network and return the logits of their mean probability.

    The members of a window are averaged there, and the windows are blended as the wrapped inferer blends logits:
    softmax of the result is the mean of the members' probabilities, and one member gives exactly what the wrapped
    inferer gives. Mutual information and variance are computed within the window, too, so both are zero where the
    members are equal and never negative; of a single member they say nothing, and there are none. Where the memory of a
    GPU does not hold the whole prediction, sliding windows are put together on the CPU.

    Args:
        inferer: how a case is divided into windows, such as `monai.inferers.SlidingWindowInferer`.
        sampler: draws the members, see `medcalib.inferers.samplers`; the plain prediction alone when None.
        activation: how logits become probabilities.
        measure_agreement: whether `predict` also compares the members' segmentations.
        member_calibrator: calibrates the logits of each member before they are averaged; none when None.
        keep_member_labels: whether `predict` also returns the segmentation of each member.

    Example:
        >>> from monai.inferers import SimpleInferer
        >>> network = nn.Conv3d(1, 2, 1)
        >>> inferer = SamplingInferer(SimpleInferer())
        >>> image = torch.rand(1, 1, 4, 4, 4)
        >>> bool((inferer(image, network) == network(image)).all())
        True
        >>> sorted(inferer.predict(image, network))
        ['pred']
    """

    def __init__(
        self,
        inferer: Inferer,
        sampler: Sampler | None = None,
        activation: Activation | str = Activation.SOFTMAX,
        measure_agreement: bool = False,
        member_calibrator: Calibrator | None = None,
        keep_member_labels: bool = False,
    ) -> None:
        super().__init__()
        self.inferer = inferer
        self.sampler = sampler or single_member
        self.activation = Activation(activation)
        self.measure_agreement = measure_agreement
        self.member_calibrator = member_calibrator
        self.keep_member_labels = keep_member_labels
        self._cache: PredictionCache | None = None

    def __call__(  # type: ignore[override]  # samplers change the modules of the network
        self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return logits (B, C, ...) whose activation is the mean of the members' probabilities."""
        if self._cache is not None and not torch.is_grad_enabled():
            return self._kept(self._cache, inputs, network, {str(CommonKeys.PRED)}, args, kwargs)[str(CommonKeys.PRED)]

        def mean_logits(window: Tensor) -> Tensor:
            return self._moments(window, network)[0].logits()

        return stitched(self.inferer, inputs, mean_logits, *args, **kwargs)

    def keep_predictions(self, cache: PredictionCache | None) -> None:
        """Keep what is predicted from now on, and read what was predicted before; nowhere when None.

        The members themselves, as `members` returns them, are not kept, nor is what is predicted with gradients.
        """
        self._cache = cache

    def with_member_calibrator(self, calibrator: Calibrator | None) -> SamplingInferer:
        """One like this, with the same cache, that calibrates each member with the given calibrator."""
        other = copy.copy(self)
        other.member_calibrator = calibrator
        return other

    def members(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> list[Tensor]:
        """Return the logits (B, C, ...) of every member, as many volumes as there are members."""
        num_members = 0

        def concatenated(window: Tensor) -> Tensor:
            nonlocal num_members
            logits = list(self._members(window, network))
            num_members = len(logits)
            return torch.cat(logits, 1)

        return list(stitched(self.inferer, inputs, concatenated, *args, **kwargs).chunk(num_members, 1))

    def predict(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Return the logits of the mean and what the members say beside it.

        Args:
            inputs: (B, channels, ...).
            network: what the sampler draws from.
            *args: passed to the wrapped inferer.
            **kwargs: passed to the wrapped inferer.

        Returns:
            ``pred``: logits (B, C, ...). Where there are several members also ``mutual_information`` (B, 1, ...) in
            nats, ``variance`` (B, 1, ...) in [0, 0.25], and with ``measure_agreement`` ``agreement`` (B, C, members,
            members), the number of voxels to which two members give the same class, float64; a voxel that several
            windows hold counts once, divided among them as their logits are. With ``keep_member_labels`` also
            ``member_labels`` (B, members, ...), see `medcalib.inferers.member_labels.MemberLabels`.
        """
        if self._cache is not None and not torch.is_grad_enabled():
            wanted = {str(CommonKeys.PRED), *map(str, MEMBER_MAPS)}
            wanted |= {str(UncertaintyKeys.AGREEMENT)} if self.measure_agreement else set()
            wanted |= {str(UncertaintyKeys.MEMBER_LABELS)} if self.keep_member_labels else set()
            return self._kept(self._cache, inputs, network, wanted, args, kwargs)
        return self._predict(inputs, network, self.measure_agreement, *args, **kwargs)

    def _kept(
        self,
        cache: PredictionCache,
        inputs: Tensor,
        network: nn.Module,
        wanted: set[str],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> dict[str, Tensor]:
        """The wanted outputs from the cache, which gets all there can be, whoever asks first."""
        # who keeps no labels reads what was predicted before there were any to keep
        aside = {"_cache", "measure_agreement"} | ({"keep_member_labels"} if not self.keep_member_labels else set())
        settings = {key: value for key, value in vars(self).items() if key not in aside}
        settings["type"] = type(self)
        outputs = cache.maps(
            settings,
            inputs,
            network,
            lambda: self._predict(inputs, network, True, *args, **kwargs),
            wanted,
            [args, kwargs],
        )
        return {name: value for name, value in outputs.items() if name in wanted}

    def _predict(
        self, inputs: Tensor, network: nn.Module, measure_agreement: bool, *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        compared = (measure_agreement or self.keep_member_labels) and self.sampler is not single_member
        agreement = _Agreement(self.inferer, inputs, self.keep_member_labels) if compared else None

        def window_moments(window: Tensor, coordinates: Sequence | None = None) -> dict[str, Tensor]:
            moments, labels = self._moments(window, network, agreement is not None)
            if agreement is not None:
                agreement.add(labels, moments.logits().shape[1], coordinates)
            maps: dict[str, Tensor] = {CommonKeys.PRED: moments.logits()}
            if moments.num_members > 1:
                maps[UncertaintyKeys.MUTUAL_INFORMATION] = moments.mutual_information()
                maps[UncertaintyKeys.VARIANCE] = moments.variance()
            return maps

        inferer = agreement.inferer if agreement is not None else self.inferer
        maps = stitched(inferer, inputs, window_moments, *args, **kwargs)
        outputs = {str(key): value for key, value in maps.items()}
        if isinstance(inputs, MetaTensor):
            # a sliding window keeps the meta data of the image for a single output only
            for key, value in outputs.items():
                outputs[key] = MetaTensor(value.as_subclass(torch.Tensor)).copy_meta_from(inputs)
        if agreement is not None and agreement.total is not None and agreement.total.shape[-1] > 1:
            if measure_agreement:
                outputs[str(UncertaintyKeys.AGREEMENT)] = agreement.total
            if agreement.members is not None:
                labels = agreement.members.labels()
                outputs[str(UncertaintyKeys.MEMBER_LABELS)] = (
                    MetaTensor(labels).copy_meta_from(inputs) if isinstance(inputs, MetaTensor) else labels
                )
        return outputs

    def _moments(
        self, window: Tensor, network: nn.Module, keep_labels: bool = False
    ) -> tuple[PredictiveMoments, list[Tensor]]:
        moments = PredictiveMoments(self.activation)
        labels = []
        for logits in self._members(window, network):
            probs = moments.update(logits)
            if keep_labels:
                # of probabilities, as the segmentation is: where rounding makes two equal, logits may still differ
                labels.append(to_decisions(probs, self.activation is Activation.SIGMOID))
        return moments, labels

    def _members(self, window: Tensor, network: nn.Module) -> Iterator[Tensor]:
        if isinstance(network, PortableNetwork):
            network = network.network
        for logits in self.sampler(window, network):
            if self.member_calibrator is None:
                yield logits
                continue
            image = window if self.member_calibrator.needs_image else None
            yield self.member_calibrator.to(logits.device)(logits, image)


PART = 1 << 14


class _Agreement:
    """Sum the agreement of members over the windows of a batch of cases."""

    def __init__(self, inferer: Inferer, inputs: Tensor, keep_labels: bool = False) -> None:
        self.total: Tensor | None = None
        self._batch_size = inputs.shape[0]
        self._weights: Tensor | None = None
        self.inferer = inferer
        if isinstance(inferer, SlidingWindowInferer):
            self.inferer = copy.copy(inferer)
            self.inferer.with_coord = True
            self._importance, self._weights = _window_weights(self.inferer, inputs)
        self.members: MemberLabels | None = None
        if keep_labels:
            padded = None if self._weights is None else self._weights.shape
            importance = None if self._weights is None else self._importance
            self.members = MemberLabels(inputs.shape[0], importance, padded, inputs.shape[2:])

    def add(self, labels: Sequence[Tensor], num_classes: int, coordinates: Sequence | None) -> None:
        """Count the voxels of a batch of windows, labels of each member (B, 1, ...) or (B, C, ...)."""
        if self.members is not None:
            self.members.add(labels, coordinates)
        if self.total is None:
            shape = (self._batch_size, num_classes, len(labels), len(labels))
            self.total = torch.zeros(shape, dtype=torch.float64, device=labels[0].device)
        for index in range(len(labels[0])):
            case, weight = index, None
            if coordinates is not None and self._weights is not None:
                batch, _, *window = coordinates[index]
                case, weight = batch.start, (self._importance * self._weights[tuple(window)]).flatten()
            channels = labels[0].shape[1:2] if labels[0].dtype == torch.bool else ()
            flat = [member[index].reshape(*channels, -1) for member in labels]
            # in parts, so that there is no second copy of all labels
            for start in range(0, flat[0].shape[-1], PART):
                part = slice(start, start + PART)
                joined = torch.stack([member[..., part] for member in flat])
                self.total[case] += member_agreement(joined, num_classes, None if weight is None else weight[part])


def _window_weights(inferer: SlidingWindowInferer, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Importance of a window's voxels, and what it must be multiplied with to sum to 1 in each voxel of the image.

    Voxels that only padding adds get weight 0.
    """
    windows: list[tuple[slice, ...]] = []

    def collect(window: Tensor, coordinates: Sequence) -> Tensor:
        windows.extend(tuple(slices[2:]) for slices in coordinates)
        return window

    image = inputs.as_subclass(torch.Tensor)[:1, :1]
    inferer(image, collect)
    size = [max(window[axis].stop for window in windows) for axis in range(image.ndim - 2)]
    roi_size = [axis.stop - axis.start for axis in windows[0]]
    importance = compute_importance_map(
        tuple(roi_size), mode=inferer.mode, sigma_scale=inferer.sigma_scale, device=image.device, dtype=torch.float32
    )
    total = torch.zeros(size, device=image.device)
    for window in windows:
        total[window] += importance
    inside = torch.zeros_like(total)
    starts = [max(padded - own, 0) // 2 for padded, own in zip(size, image.shape[2:], strict=True)]
    inside[tuple(slice(start, start + own) for start, own in zip(starts, image.shape[2:], strict=True))] = 1
    return importance, inside / total
