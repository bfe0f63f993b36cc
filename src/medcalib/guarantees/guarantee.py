"""What every guarantee shares: the cases it sees, groups of cases, the fitted values, and the interface."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from medcalib.errors import UserError
from medcalib.functional import num_cases_needed
from medcalib.functional.inputs import plain

__all__ = ["Guarantee", "GuaranteeCase", "Observed"]

Observed = Mapping[str, Tensor | float]
"""What a guarantee keeps of one calibration case."""

Sets = dict[str, Tensor]
"""Sets of voxels (C, ...), bool, by their names."""

Fitted = dict[str, Any]
"""What was fitted for one class and one group of cases: numbers, lists and words."""


class GuaranteeCase(NamedTuple):
    """What a guarantee sees of one case, on the grid of its files.

    Attributes:
        case: name of the case.
        probs: probabilities of the classes of the guarantee (C, ...), (C,) of a whole image; None for programs that
            give only masks.
        segmentation: the exported segmentation of these classes (C, ...), bool; None where there is none.
        target: whether a voxel is of a class, (C, ...), (C,) of a whole image, bool; None for new images.
        spacing: size of a voxel along each axis, in mm.
        mask: (1, ...); voxels where it is zero do not count; None if all do.
        scores: uncertainty scores of the case by their names, turned so that high ones are uncertain.
        dice: mean Dice of the case over classes; NaN if it is not known.
        group: the group of the case; None if it has none.

    Example:
        >>> GuaranteeCase("case_1", probs=torch.tensor([[0.9, 0.2]]), spacing=(1.0,)).case
        'case_1'
    """

    case: str
    probs: Tensor | None = None
    segmentation: Tensor | None = None
    target: Tensor | None = None
    spacing: tuple[float, ...] = ()
    mask: Tensor | None = None
    scores: Mapping[str, float] = {}
    dice: float = float("nan")
    group: str | None = None

    def known_probs(self) -> Tensor:
        """Probabilities (C, ...), float32.

        Raises:
            UserError: the case has none.
        """
        if self.probs is None:
            raise UserError(f"Case {self.case} has no probabilities, which this guarantee needs: use margin_control.")
        return plain(self.probs).float()

    def known_segmentation(self) -> Tensor:
        """The segmentation (C, ...), bool.

        Raises:
            UserError: the case has none.
        """
        if self.segmentation is None:
            raise UserError(f"Case {self.case} has no segmentation, which this guarantee needs: give one.")
        return plain(self.segmentation) != 0

    def known_target(self) -> Tensor:
        """The target (C, ...), bool.

        Raises:
            UserError: the case has none.
        """
        if self.target is None:
            raise UserError(f"Case {self.case} has no label, which is needed to fit or check a guarantee: give one.")
        return plain(self.target) != 0


class Guarantee(ABC):
    """A promise on new cases, fitted on calibration cases with which they are exchangeable.

    ``observe`` makes a small summary of each calibration case, and ``fit`` takes all of them. Then ``sets`` and
    ``values`` say what is promised of a case, and ``losses`` by how much a case with a target breaks it. What is
    promised holds for each class on its own, not for all of them at once.

    With groups, each group of which there are enough cases gets values of its own, and the promise holds within it.
    Cases of all other groups get the values that were fitted on all cases. These would keep the promise on average over
    all groups; within such a group nothing is promised. `notes` says which groups those are.

    Subclasses implement `observe`, `fit_unit`, `losses` and `promise`.

    Args:
        class_names: names of the classes, C.
        alpha: the loss that is allowed, in (0, 1).
        min_group_cases: the number of cases from which on a group gets values of its own.

    Raises:
        UserError: ``alpha`` is out of range.

    Example:
        >>> from medcalib.guarantees import RecallControl
        >>> RecallControl(["organ"], alpha=0.1).num_cases_needed
        9
    """

    kind: ClassVar[str]
    """Name of the guarantee, that of its fragment."""
    loss_name: ClassVar[str]
    """What `losses` are, as the label of an axis has it."""
    binary_losses: ClassVar[bool] = False
    """Whether a loss is either 0 or 1."""
    counted_cases: ClassVar[str] = "calibration cases"
    """Cases that count, in words."""
    delta: float | None = None
    """Probability that the promise does not hold; None where it is one on the average over calibration cases, too."""

    def __init__(self, class_names: Sequence[str], alpha: float = 0.1, min_group_cases: int = 20) -> None:
        self.class_names = tuple(map(str, class_names))
        self.alpha = self.check_share("alpha", alpha)
        self.min_group_cases = int(min_group_cases)
        self._pooled: dict[str, Fitted] = {}
        self._groups: dict[str, dict[str, Fitted]] = {}

    @abstractmethod
    def observe(self, case: GuaranteeCase) -> dict[str, Tensor | float]:
        """Summary of a calibration case: tensors whose first axis is that of `unit_names`, and NaN does not count."""

    @abstractmethod
    def fit_unit(self, values: Mapping[str, Tensor]) -> Fitted:
        """Fit one class to the summaries of all cases that count, stacked along a new first axis, of any order.

        Raises:
            UserError: the level cannot be had with these cases; the message is the end of a sentence.
        """

    @abstractmethod
    def losses(self, case: GuaranteeCase, sets: Sets | None = None) -> Tensor:
        """Losses of a case with a target, one of each of `unit_names`, float64, NaN where it does not count.

        Args:
            case: the case.
            sets: what `sets` returned for it, where that is known.
        """

    @abstractmethod
    def promise(self) -> str:
        """What is promised, in plain words."""

    @property
    def unit_names(self) -> tuple[str, ...]:
        """What is fitted, and promised, each on its own: the classes."""
        return self.class_names

    @property
    def level(self) -> float:
        """The mean loss that is promised not to be exceeded."""
        return self.alpha

    @property
    def given_delta(self) -> float:
        """``delta``, where there is one.

        Raises:
            ValueError: there is none.
        """
        if self.delta is None:
            raise ValueError(f"{self.kind} has no delta.")
        return self.delta

    @property
    def num_cases_needed(self) -> int:
        """The number of calibration cases that the level needs in every class, however good the predictions are."""
        return num_cases_needed(self.alpha)

    @property
    def is_fitted(self) -> bool:
        """Whether the guarantee was fitted, or loaded."""
        return bool(self._pooled)

    def sets(self, case: GuaranteeCase) -> Sets:
        """Sets of voxels (C, ...), bool, by their names, ``inner`` or ``outer``; none where the promise has none."""
        return {}

    def values(self, case: GuaranteeCase, sets: Sets | None = None) -> dict[str, Any]:
        """What is said of a case, by names that can be columns of a table: numbers, words and booleans.

        Args:
            case: the case.
            sets: what `sets` returned for it, where that is known.
        """
        return {}

    def counted(self, values: Mapping[str, Tensor]) -> Tensor:
        """Which of the cases count in the fit of a class, (n,), bool, of its stacked summaries."""
        return torch.stack([~value.flatten(1).isnan().any(1) for value in values.values()]).all(0)

    def settings(self) -> dict[str, Any]:
        """What the guarantee was made with."""
        return {"class_names": list(self.class_names), "alpha": self.alpha, "min_group_cases": self.min_group_cases}

    def check_num_cases(self, number: int) -> None:
        """Raise if so many calibration cases cannot be enough.

        Raises:
            UserError: they are too few.
        """
        if number < self.num_cases_needed:
            raise UserError(f"{self.kind} at {self.level_words()} {self.shortage(number)}.")

    def shortage(self, number: int) -> str:
        """The end of a sentence that says how many cases there are and how many are needed."""
        return (
            f"needs {self.num_cases_needed} {self.counted_cases}, and there are {number}: add cases to the calibration "
            f"split or allow a larger {self.level_key}"
        )

    @property
    def level_key(self) -> str:
        """Name of the setting that is the level."""
        return "alpha"

    def level_words(self) -> str:
        """The level as settings have it."""
        words = f"{self.level_key} {self.level:g}"
        return words if self.delta is None else f"{words} and delta {self.delta:g}"

    def fit(self, observed: Sequence[Observed], groups: Sequence[str | None] | None = None) -> None:
        """Fit the guarantee to the summaries of calibration cases, in any order.

        Args:
            observed: what `observe` returned for each case.
            groups: the group of each case; None if there are no groups.

        Raises:
            UserError: the level cannot be had for a class, which is named, with the number of cases and of those that
                are needed.
            ValueError: there is not one group for each case.
        """
        groups = [None] * len(observed) if groups is None else list(groups)
        if len(groups) != len(observed):
            raise ValueError(f"there are {len(observed)} cases and {len(groups)} groups.")
        pooled: dict[str, Fitted] = {}
        by_group: dict[str, dict[str, Fitted]] = {}
        for index, unit in enumerate(self.unit_names):
            values = self._stacked(observed, index)
            counted = self.counted(values) if values else torch.zeros(0, dtype=torch.bool)
            try:
                pooled[unit] = self._fitted(values, counted)
            except UserError as error:
                of_unit = f" for {unit}" if self.unit_names is self.class_names else ""
                raise UserError(
                    f"{self.kind} at {self.level_words()} cannot be promised{of_unit}: it {error}."
                ) from None
            by_group[unit] = {}
            for group in sorted({group for group in groups if group is not None}):
                own = counted & torch.tensor([group == other for other in groups])
                by_group[unit][group] = self._fitted_in_group(values, own)
        self._pooled, self._groups = pooled, by_group

    def _stacked(self, observed: Sequence[Observed], index: int) -> dict[str, Tensor]:
        def of_unit(value: Tensor | float) -> Tensor:
            # a number without a dtype would become float32
            return torch.as_tensor(value, dtype=torch.float64).cpu().reshape(len(self.unit_names), -1)[index]

        names = sorted(observed[0]) if observed else []
        return {name: torch.stack([of_unit(one[name]) for one in observed]) for name in names}

    def _fitted(self, values: Mapping[str, Tensor], counted: Tensor) -> Fitted:
        number = int(counted.sum())
        if number < self.num_cases_needed:
            raise UserError(self.shortage(number))
        return {**self.fit_unit({name: value[counted] for name, value in values.items()}), "num_cases": number}

    def _fitted_in_group(self, values: Mapping[str, Tensor], counted: Tensor) -> Fitted:
        number = int(counted.sum())
        if number < self.min_group_cases:
            return {"num_cases": number, "pooled_because": f"has {number} cases, fewer than {self.min_group_cases}"}
        try:
            return self._fitted(values, counted)
        except UserError as error:
            return {"num_cases": number, "pooled_because": str(error)}

    def fitted(self, unit: str, group: str | None = None) -> Fitted:
        """What was fitted for a class, in a group of cases where it has values of its own, else from all cases.

        Raises:
            UserError: the guarantee is not fitted.
        """
        if not self.is_fitted:
            raise UserError(
                f"The guarantee {self.kind} is not fitted: run --mode train, which fits it at its end, or load a "
                f"fitted one."
            )
        if group is None or not self.has_own(unit, group):
            return self._pooled[unit]
        return self._groups[unit][group]

    def has_own(self, unit: str, group: str) -> bool:
        """Whether a group of cases has fitted values of its own for a class, so that the promise holds within it."""
        return group in self._groups.get(unit, {}) and "pooled_because" not in self._groups[unit][group]

    def group_of(self, case: GuaranteeCase) -> str | None:
        """The group of a case with a target within which its loss counts."""
        return case.group

    def notes_on_new(self, group: str) -> list[str]:
        """A sentence on a group of which there was no calibration case; none on others."""
        if any(group in groups for groups in self._groups.values()):
            return []
        return [
            f"group {group} has no calibration case; it gets what was fitted on all, and nothing is promised within it."
        ]

    def notes(self) -> list[str]:
        """One sentence for each class and group that has no values of its own."""
        return [
            f"{unit}: group {group} {fitted['pooled_because']}; it gets what was fitted on all "
            f"{self._pooled[unit]['num_cases']} cases, and nothing is promised within it."
            for unit, groups in self._groups.items()
            for group, fitted in groups.items()
            if "pooled_because" in fitted
        ]

    def state(self) -> dict[str, Any]:
        """Everything that was fitted, as JSON has it, with the settings.

        Raises:
            UserError: the guarantee is not fitted.
        """
        self.fitted(self.unit_names[0])
        fitted = {"pooled": self._pooled, "groups": self._groups}
        return copy.deepcopy({"kind": self.kind, "settings": self.settings(), "fitted": fitted})

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what another guarantee of the same kind and settings has fitted.

        Raises:
            UserError: kind or settings differ.
        """
        if state.get("kind") != self.kind:
            raise UserError(f"The fitted guarantee is {state.get('kind')}, not {self.kind}: fit it anew.")
        own, other = self.settings(), state["settings"]
        if different := sorted(key for key in own.keys() | other.keys() if own.get(key) != other.get(key)):
            key = different[0]
            raise UserError(
                f"The guarantee {self.kind} was fitted with {key} {other.get(key)!r}, and now it is {own.get(key)!r}: "
                f"fit it anew, or set {key} back."
            )
        fitted = copy.deepcopy(dict(state["fitted"]))
        self._pooled, self._groups = fitted["pooled"], fitted["groups"]

    def per_unit(self, case: GuaranteeCase, value: Callable[[Fitted], float]) -> Tensor:
        """A number of what was fitted for every unit in the group of a case, (units,), float64."""
        return torch.tensor([value(self.fitted(unit, case.group)) for unit in self.unit_names], dtype=torch.float64)

    @staticmethod
    def check_share(name: str, value: float) -> float:
        """Return a number that must lie between 0 and 1.

        Raises:
            UserError: it does not.
        """
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
            raise UserError(f"{name} of the guarantee is {value!r}: it must be a number between 0 and 1, such as 0.1.")
        return float(value)
