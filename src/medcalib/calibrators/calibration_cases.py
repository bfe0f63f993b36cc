"""The calibration split as a stream of cases."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from medcalib.errors import UserError
from medcalib.functional.inputs import is_label_map, prepare_labels, prepare_mask, prepare_target

__all__ = ["CalibrationCase", "CaseStream", "Voxels", "voxels_of"]


# Values that are looked at together, so that intermediate ones never take as much memory as a case.
CHUNK = 1 << 17


class CalibrationCase(NamedTuple):
    """One volume of the calibration split, or a batch of volumes of one shape.

    Attributes:
        logits: (B, C, ...), as the network or the sampling inferer predicts them.
        labels: integer label map (B, 1, ...), or target (B, C, ...).
        mask: optional (B, 1, ...); voxels where it is zero do not count.
        image: optional (B, channels, ...) on the same grid, for calibrators that look at it.
        name: identifier for messages.

    Example:
        >>> case = CalibrationCase(torch.zeros(1, 2, 4, 4), torch.ones(1, 1, 4, 4, dtype=torch.long), name="patient_7")
        >>> case.map(lambda tensor: tensor[..., :2]).logits.shape
        torch.Size([1, 2, 4, 2])
    """

    logits: Tensor
    labels: Tensor
    mask: Tensor | None = None
    image: Tensor | None = None
    name: str = ""

    def map(self, function: Callable[[Tensor], Tensor]) -> CalibrationCase:
        """Apply ``function`` to every tensor of the case."""
        changed: dict[str, Any] = {
            key: function(value) for key, value in self._asdict().items() if isinstance(value, Tensor)
        }
        return self._replace(**changed)


class Voxels(NamedTuple):
    """The voxels of one volume that count.

    Attributes:
        logits: (C, N), differentiable if those of the case are.
        truth: labels (N,), or targets (C, N).
    """

    logits: Tensor
    truth: Tensor

    def target(self) -> Tensor:
        """The truth as targets (C, N), in the type of the logits; labels become one-hot."""
        if self.truth.ndim == 2:
            return self.truth.to(self.logits.dtype)
        classes = torch.arange(self.logits.shape[0], device=self.truth.device)
        return (self.truth == classes[:, None]).to(self.logits.dtype)


def voxels_of(logits: Tensor, labels: Tensor, mask: Tensor | None = None) -> Iterator[Voxels]:
    """The voxels of each batch element that count.

    Args:
        logits: (B, C, ...).
        labels: integer label map (B, 1, ...), or target (B, C, ...).
        mask: optional (B, 1, ...).

    Raises:
        ValueError: If shapes do not fit, or labels or targets are out of range.
    """
    use_labels = is_label_map(logits, labels)
    selected = prepare_mask(logits, mask)
    truth = prepare_labels(labels, logits.shape[1], selected) if use_labels else prepare_target(labels, selected)
    flat = logits.as_subclass(Tensor).reshape(*logits.shape[:2], -1)
    for index in range(flat.shape[0]):
        keep = slice(None) if selected is None else selected[index]
        yield Voxels(flat[index][:, keep], truth[index][..., keep])


class CaseStream:
    """Iterate over a calibration split again and again, keeping it in memory if it is small enough.

    Args:
        batches: a callable that returns an iterator, or something that can be iterated again and again, over
            :class:`CalibrationCase` or tuples in its order: (logits, labels), (logits, labels, mask), ...
        cache_bytes: the cases are kept on the CPU if all of them together are not larger.

    Raises:
        ValueError: ``batches`` can be iterated only once.

    Example:
        >>> import torch
        >>> stream = CaseStream([(torch.zeros(1, 2, 4), torch.zeros(1, 1, 4))], cache_bytes=1000)
        >>> [case.name for case in stream]
        ['number 1']
    """

    def __init__(self, batches: Callable[[], Iterable[tuple]] | Iterable[tuple], cache_bytes: int = 0) -> None:
        if isinstance(batches, Iterator):
            raise ValueError("batches can be iterated only once: give a list, or a function that returns an iterator.")
        self.batches = batches
        self.cache_bytes = cache_bytes
        self._cache: list[CalibrationCase] | None = None

    def __iter__(self) -> Iterator[CalibrationCase]:
        """Yield every case."""
        if self._cache is not None:
            yield from self._cache
            return
        kept: list[CalibrationCase] | None = []
        size = 0
        # enumerate would hold an item while the next is read
        numbers = itertools.count(1)
        for item in self.batches() if callable(self.batches) else self.batches:
            number = next(numbers)
            case = CalibrationCase(*item).map(_ordinary)
            if not case.name:
                case = case._replace(name=f"number {number}")
            if kept is not None:
                tensors = [value for value in case if isinstance(value, Tensor)]
                size += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
                kept = [*kept, case.map(lambda tensor: tensor.cpu())] if size <= self.cache_bytes else None
                tensors.clear()
            yield case
            # before the next is read, so that two never have to be in memory
            del item, case
        self._cache = kept


def check_case(case: CalibrationCase, num_classes: int) -> None:
    """Check the logits of a case.

    Raises:
        UserError: naming the case: the logits have another number of classes, or hold NaN or Inf.
    """
    logits = case.logits
    if logits.ndim < 2 or logits.shape[1] != num_classes or not logits.is_floating_point():
        raise UserError(
            f"Case {case.name}: its logits have shape {tuple(logits.shape)} and type {logits.dtype}, but the "
            f"calibrator takes floating-point logits (B, {num_classes}, ...); set num_classes to that of the network."
        )
    wrong = sum(int((~part.isfinite()).sum()) for part in logits.flatten().split(CHUNK))
    if wrong:
        raise UserError(
            f"Case {case.name}: its logits hold {wrong} NaN or Inf value(s), so nothing can be fitted on them; leave "
            f"the case out of the calibration split, or train the network again."
        )


def parts_of(case: CalibrationCase) -> Iterator[CalibrationCase]:
    """A case in parts of its voxels, (B, C, voxels), without the image; small ones whole, also those without axes."""
    if case.logits.ndim < 3 or any(
        tensor is not None and tensor.shape[2:] != case.logits.shape[2:] for tensor in (case.labels, case.mask)
    ):
        yield case
        return
    flat = case._replace(image=None).map(lambda tensor: tensor.flatten(2))
    for start in range(0, max(flat.logits.shape[2], 1), CHUNK):
        yield flat.map(itemgetter((..., slice(start, start + CHUNK))))


def looks_like_probabilities(case: CalibrationCase, sigmoid: bool) -> bool:
    """Whether the logits of a case lie in [0, 1] and, for exclusive classes, sum to 1."""
    low, high = case.logits.aminmax()
    if low < 0 or high > 1:
        return False
    return sigmoid or bool(((case.logits.float().sum(1) - 1).abs() < 1e-2).all())


def _ordinary(tensor: Tensor) -> Tensor:
    """A plain tensor without history, which autograd may use, also when it was made in inference mode."""
    tensor = tensor.detach().as_subclass(Tensor)
    return tensor.clone() if tensor.is_inference() else tensor
