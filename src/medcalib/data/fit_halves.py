"""Divide calibration cases between what is fitted on them, and name the groups for which promises hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medcalib.data.cases import Case
from medcalib.data.splits import set_aside
from medcalib.errors import UserError, suggestion
from medcalib.keys import CaseKeys

__all__ = ["calibration_halves", "case_groups"]

# decides the division, for good
_SEED = 0
_PATIENT = "patient"


def calibration_halves(cases: Sequence[Case], share: str = "half") -> dict[str, list[Case]]:
    """The cases on which a calibrator is fitted, and those on which a guarantee is.

    A promise holds for new cases if those on which it was fitted were new to all that predicts, so a calibrator has
    cases of its own. The halves depend on the ids of the cases alone; those of one patient, if the attribute
    ``patient`` of the cases names it, stay together.

    Args:
        cases: the calibration part of a split.
        share: ``half`` divides them, the guarantee getting the odd one; with ``all`` both have all of them.

    Returns:
        Lists of cases as ``calibrator`` and ``guarantee``.

    Raises:
        UserError: there are fewer than two cases, or patients, to divide; ``share`` is neither of the two.

    Example:
        >>> halves = calibration_halves([{"case": f"case_{number}"} for number in range(5)])
        >>> [len(halves[fit]) for fit in ("calibrator", "guarantee")]
        [2, 3]
    """
    if share == "all":
        return {"calibrator": list(cases), "guarantee": list(cases)}
    if share != "half":
        raise UserError(f"guarantee_cases is {share!r}: it must be half or all.")
    if len({_patient(case) for case in cases}) < 2:
        raise UserError(
            f"The calibration split has {len(cases)} case(s), which cannot be divided between calibrator and "
            f"guarantee; add cases, leave one of the two out, or use all for both with --guarantee_cases=all."
        )
    guarantee, calibrator = set_aside(cases, 0.499, _SEED, _patient)
    return {"calibrator": calibrator, "guarantee": guarantee}


def case_groups(split: Mapping[str, Sequence[Case]], attribute: str | None = None) -> dict[str, str]:
    """The group of every case of a split that has the attribute, by the id of the case.

    Args:
        split: lists of cases by part.
        attribute: name of an attribute, such as ``vendor``; nothing is in a group when None.

    Raises:
        UserError: cases have attributes, but none of this name; no case of the calibration part has any.

    Example:
        >>> case_groups({"test": [{"case": "a", "attributes": {"vendor": "A"}}, {"case": "b"}]}, "vendor")
        {'a': 'A'}
    """
    if attribute is None:
        return {}
    every = [case for cases in split.values() for case in cases]
    names = {str(name) for case in every for name in case.get(CaseKeys.ATTRIBUTES) or {}}
    if (names or "calibration" in split) and attribute not in names:
        raise UserError(
            f"guarantee_group_by is {attribute!r}, but no case has an attribute of this name"
            f"{suggestion(attribute, sorted(names), list_all=True)}"
        )
    found = {str(case[CaseKeys.CASE]): (case.get(CaseKeys.ATTRIBUTES) or {}).get(attribute) for case in every}
    return {case: str(value) for case, value in found.items() if value is not None}


def _patient(case: Case) -> str:
    return str((case.get(CaseKeys.ATTRIBUTES) or {}).get(_PATIENT) or case[CaseKeys.CASE])
