"""What the channels of a prediction are, and which of them results speak of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from medcalib.errors import UserError
from medcalib.functional import entropy
from medcalib.functional.activation import case_decisions, to_probabilities_
from medcalib.keys import Activation

__all__ = ["Task"]


@dataclass(frozen=True)
class Task:
    """What a network is to tell apart: made once from a configuration, and asked by whatever must know.

    A prediction has one channel for each class. Results are reported on the classes, or on regions that are unions of
    classes and may overlap. The first class is the background where classes exclude each other; regions and independent
    labels have none.

    Args:
        class_names: one name for each channel of a prediction.
        activation: how logits become probabilities: ``softmax`` for classes that exclude each other, background first,
            ``sigmoid`` for independent labels.
        regions: classes of each region by its name, as indices.
        evaluate: what results are reported on, ``labels``, the classes, also if None, or ``regions``.
        include_background: whether the background counts in means over classes.

    Attributes:
        regions: the regions on which results are reported; None if it is the classes.

    Raises:
        UserError: ``evaluate`` is something else; there are no regions or no lists of classes by name although results
            are to be reported on them; or the labels are independent, whose probabilities cannot be added.

    Example:
        >>> task = Task(["background", "organ", "lesion"], regions={"both": [1, 2]}, evaluate="regions")
        >>> task.num_classes, task.reported_classes, task.segmented_classes, round(task.max_entropy, 4)
        (3, ('both',), ('organ', 'lesion'), 1.0986)
    """

    class_names: Sequence[str]
    activation: Activation | str = Activation.SOFTMAX
    regions: Mapping[str, Sequence[int]] | None = None
    evaluate: str | None = None
    include_background: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", tuple(str(name) for name in self.class_names))
        object.__setattr__(self, "activation", Activation(self.activation))
        if self.evaluate not in (None, "labels", "regions"):
            raise UserError(f"data::evaluate is {self.evaluate!r}: it must be labels or regions.")
        if self.evaluate != "regions":
            object.__setattr__(self, "regions", None)
            return
        if not self.regions or not isinstance(self.regions, Mapping):
            raise UserError(
                f"data::evaluate is regions, but data::regions is {self.regions!r}: give lists of classes by name, "
                f"such as {{core: [1, 3]}}, or set data::evaluate to labels."
            )
        if not self.exclusive:
            raise UserError(
                "data::regions are sets of exclusive classes, but the activation is sigmoid, whose labels may overlap "
                "already; set data::evaluate to labels."
            )

    @property
    def num_classes(self) -> int:
        """Number of channels of a prediction."""
        return len(self.class_names)

    @property
    def exclusive(self) -> bool:
        """Whether the channels of a prediction exclude each other."""
        return self.activation is Activation.SOFTMAX

    @property
    def reports_exclusive(self) -> bool:
        """Whether what results are reported on excludes each other: classes of a softmax, and no regions."""
        return self.exclusive and self.regions is None

    @property
    def reported_activation(self) -> Activation:
        """The activation of what results are reported on; regions overlap, as independent labels may."""
        return Activation.SOFTMAX if self.reports_exclusive else Activation.SIGMOID

    @property
    def num_exclusive_classes(self) -> int | None:
        """Number of classes of the label map on which results are reported; None if it is channels."""
        return self.num_classes if self.reports_exclusive else None

    @property
    def include_first_channel(self) -> bool:
        """Whether the first channel of what results are reported on counts; it does unless it is a background."""
        return self.include_background or not self.reports_exclusive

    @property
    def reported_classes(self) -> tuple[str, ...]:
        """Names of the classes or regions that results are reported on."""
        return tuple(map(str, self.regions or self.class_names))[0 if self.include_first_channel else 1 :]

    @property
    def foreground_channels(self) -> slice:
        """Channels of what results are reported on without the background, whether it counts in means or not."""
        return slice(1 if self.reports_exclusive else 0, None)

    @property
    def foreground_classes(self) -> tuple[str, ...]:
        """Names of `foreground_channels`."""
        return tuple(map(str, self.regions or self.class_names))[self.foreground_channels]

    @property
    def segmented_channels(self) -> slice:
        """Channels of a prediction that count in what is said of its segmentation."""
        return slice(0 if self.include_background or not self.exclusive else 1, self.num_classes)

    @property
    def segmented_classes(self) -> tuple[str, ...]:
        """Names of `segmented_channels`."""
        return tuple(self.class_names[self.segmented_channels])

    @property
    def num_label_values(self) -> int:
        """Number of values that a channel of a label can have, from 0 on."""
        return self.num_classes if self.exclusive else 2

    @property
    def max_entropy(self) -> float:
        """The largest entropy that a prediction can have, in nats."""
        return math.log(self.num_classes) if self.exclusive else self.num_classes * math.log(2)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities (C, ...) of the logits (C, ...) of a case, in [0, 1], written over the logits."""
        return to_probabilities_(logits, not self.exclusive)

    def segmentation(self, probs: Tensor) -> Tensor:
        """Class indices (1, ...) of the probabilities (C, ...) of a case; booleans (C, ...) of independent labels."""
        return case_decisions(probs, not self.exclusive)

    def entropy(self, probs: Tensor) -> Tensor:
        """Entropy (1, ...) of the probabilities (C, ...) of a case, in nats, at most `max_entropy`."""
        return entropy(probs[None], self.activation)[0]
