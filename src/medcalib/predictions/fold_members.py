"""Apply what was fitted on all folds of a cross-validation to new cases, of which each fold may be a member."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from medcalib.errors import UserError
from medcalib.keys import Activation
from medcalib.predictions.fold_fits import FoldFits, FoldSettings, SourceInputs
from medcalib.predictions.guaranteeing import apply_guarantee
from medcalib.predictions.member_predictions import MemberPredictions
from medcalib.predictions.prediction_folder import PredictionFolder
from medcalib.predictions.prediction_values import PredictionKind
from medcalib.predictions.probability_files import write_probabilities

__all__ = ["NewCases", "open_new_cases", "write_new_members"]

ENDINGS = ("_prob.nii.gz", "_prob.nii")


class NewCases(NamedTuple):
    """New cases that one or several folds predicted.

    Attributes:
        cases: their ids.
        folders: the predictions of each member.
    """

    cases: list[str]
    folders: list[PredictionFolder]


def open_new_cases(
    folders: Sequence[str | Path], known: Collection[str], activation: Activation | str, guarantees: bool
) -> NewCases:
    """Find predictions of new cases, which ``medcalib run --images`` leaves, a folder for each member.

    Args:
        folders: the folder of each member.
        known: ids of the cases of the cross-validation.
        activation: how probabilities were made.
        guarantees: whether promises are to be made of the cases.

    Raises:
        UserError: a folder has no predictions, members have different cases, a case is one of the cross-validation, or
            a promise is to be made of members together.
    """
    if guarantees and len(folders) > 1:
        raise UserError(
            f"A guarantee is fitted on what single networks predict, so it promises nothing of {len(folders)} members "
            f"together; give the --predictions of one fold, or leave --guarantee out."
        )
    found: dict[str, list[str]] = {}
    for folder in map(str, folders):
        place = Path(folder).expanduser()
        paths = [
            path for path in place.glob("*/*_prob.nii*") if path.name in {f"{path.parent.name}{e}" for e in ENDINGS}
        ]
        found[folder] = sorted({path.parent.name for path in paths})
        if not found[folder]:
            raise UserError(
                f"{folder} holds no <case>/<case>_prob.nii.gz; predict new images with medcalib run --images."
            )
    (first, cases), *others = found.items()
    for folder, own in others:
        if differing := sorted(set(cases) ^ set(own)):
            lacking = folder if differing[0] in cases else first
            raise UserError(
                f"{lacking} has no prediction of case {differing[0]}, but another member has; predict it, too."
            )
    if old := [case for case in cases if case in known]:
        raise UserError(
            f"The case {old[0]} of {first} is one of the cross-validation, so that calibrator and networks have seen "
            f"it; leave it out of --predictions."
        )
    opened = [
        PredictionFolder(place, None, PredictionKind.PROBABILITIES, activation, case_ids=cases) for place in found
    ]
    return NewCases(cases, opened)


def write_new_members(folder: Path, settings: FoldSettings, fits: FoldFits, new: NewCases) -> None:
    """Write new cases, each member calibrated and all of them averaged, and the sets of a guarantee.

    Args:
        folder: where a folder for each case goes.
        settings: what is shared.
        fits: what was fitted on all folds.
        new: the new cases.

    Raises:
        UserError: a case cannot be read, or members lie on different grids.
    """
    source = MemberPredictions(new.folders, fits.calibrator)
    write_probabilities(source, new.cases, folder, "calibrating new cases")
    if fits.guarantee is not None:
        apply_guarantee(fits.guarantee, SourceInputs(source, settings.task), new.cases, False, folder)
