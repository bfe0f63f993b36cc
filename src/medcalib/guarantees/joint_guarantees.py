"""The guarantees of a bundle, fitted and applied together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from medcalib.errors import UserError
from medcalib.guarantees.guarantee import Guarantee, GuaranteeCase, Observed

__all__ = ["AppliedGuarantees", "JointGuarantees"]

# as many as any level needs that is worth a run of seconds
_MANY = 1000


class AppliedGuarantees(NamedTuple):
    """What guarantees say of one case.

    Attributes:
        sets: sets of voxels (C, ...), bool, by name.
        values: numbers, words and booleans by the name of a column.
        losses: by the kind of the guarantee (units,), float64; empty for a case without target.
        set_names: names of the sets of each guarantee, by its kind.
        groups: by the kind of the guarantee the group within which a loss counts; empty for a case without target.

    Example:
        >>> AppliedGuarantees({}, {"organ_ml": 2.0}, {}, {"volume_interval": []}, {}).values
        {'organ_ml': 2.0}
    """

    sets: dict[str, Tensor]
    values: dict[str, Any]
    losses: dict[str, Tensor]
    set_names: dict[str, list[str]]
    groups: dict[str, str | None]


class JointGuarantees:
    """One or several guarantees of the same classes.

    Args:
        parts: the guarantees, each of another kind.

    Raises:
        UserError: there are none, two are of one kind, or they have other classes.

    Example:
        >>> from medcalib.guarantees import RecallControl
        >>> JointGuarantees([RecallControl(["organ"], alpha=0.1)]).kinds
        ('recall_control',)
    """

    def __init__(self, parts: Sequence[Guarantee]) -> None:
        self.parts = tuple(parts)
        if not self.parts or len(set(self.kinds)) < len(self.parts):
            raise UserError(f"guarantee::parts must hold guarantees of different kinds, not {', '.join(self.kinds)}.")
        if len({part.class_names for part in self.parts}) > 1:
            raise UserError("guarantee::parts must hold guarantees of the same classes; give all the same class_names.")
        self.lacking: dict[str, str] = {}

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of the guarantees."""
        return tuple(part.kind for part in self.parts)

    @property
    def fitted_parts(self) -> tuple[Guarantee, ...]:
        """Those that are fitted; in a run of seconds there may be others."""
        return tuple(part for part in self.parts if part.is_fitted)

    def settings(self) -> dict[str, Any]:
        """What each of them was made with."""
        return {part.kind: part.settings() for part in self.parts}

    def observe(self, case: GuaranteeCase) -> dict[str, Observed]:
        """What each of them keeps of a calibration case."""
        return {part.kind: part.observe(case) for part in self.parts}

    def check_num_cases(self, number: int) -> None:
        """Raise if so many calibration cases cannot be enough.

        Raises:
            UserError: they are too few for one of the guarantees.
        """
        for part in self.parts:
            part.check_num_cases(number)

    def fit(
        self,
        observed: Sequence[Mapping[str, Observed]],
        groups: Sequence[str | None] | None = None,
        promises_nothing: bool = False,
    ) -> None:
        """Fit all of them.

        Args:
            observed: what `observe` returned for each calibration case.
            groups: the group of each case.
            promises_nothing: for a run of seconds: count cases several times where there are too few of them, and leave
                a guarantee unfitted that cannot be had even so; why stands in `lacking`.

        Raises:
            UserError: there are no cases, or a level cannot be had with them.
        """
        self.lacking = {}
        if not observed:
            raise UserError(
                "There is no case on which the guarantee can be fitted; add cases to the calibration split."
            )
        for part in self.parts:
            of_part = [one[part.kind] for one in observed]
            try:
                part.fit(of_part, groups)
            except UserError as error:
                if not promises_nothing:
                    raise
                times = math.ceil(_MANY / len(of_part))
                self.lacking[part.kind] = str(error)
                try:
                    part.fit(of_part * times, None if groups is None else list(groups) * times)
                except UserError:
                    continue

    def apply(self, case: GuaranteeCase) -> AppliedGuarantees:
        """Sets and values of a case, and by how much each promise is broken if the case has a target."""
        sets: dict[str, Tensor] = {}
        values: dict[str, Any] = {}
        losses: dict[str, Tensor] = {}
        names: dict[str, list[str]] = {}
        groups: dict[str, str | None] = {}
        for part in self.fitted_parts:
            of_part = part.sets(case)
            names[part.kind] = list(of_part)
            sets |= of_part
            values |= part.values(case, of_part)
            if case.target is not None:
                losses[part.kind] = part.losses(case, of_part)
                groups[part.kind] = part.group_of(case)
        return AppliedGuarantees(sets, values, losses, names, groups)
