"""Whether evaluations of folds belong to one cross-validation, in which every case is evaluated once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from medcalib.compare.evaluations import Evaluation
from medcalib.data.cases import split_digest
from medcalib.errors import UserError, listed
from medcalib.keys import CaseKeys

__all__ = ["check_division", "check_folds", "check_same_settings", "merged_provenance"]

# what each fold has of its own; all else must be as in the others
_OF_FOLDS = {"bundle", "bundle_digest", "checkpoint", "checkpoint_digest", "calibrator", "guarantee", "trainings"}
_OF_FOLDS |= {"split_digest", "versions"}
# of a training, what folds share
_OF_TRAININGS = ("max_epochs", "chosen_by")


def check_folds(folds: Mapping[int, Evaluation], seen: Mapping[int, Sequence[str]] | None = None) -> None:
    """Check that evaluations of folds may be taken together.

    Args:
        folds: the evaluation of each fold.
        seen: ids of the cases that the training of each fold was trained on and validated on; not checked if None.

    Raises:
        UserError: a case is in two folds or in none, a fold evaluates a case that its training has seen, or folds were
            evaluated in different ways.
    """
    if len(folds) < 2:
        raise UserError(f"There is an evaluation of {len(folds)} fold(s), but a cross-validation has two at least.")
    told = {
        number: {"classes": one.class_names, "metrics": sorted(one.metrics), "trial runs with --debug": one.debug}
        | one.provenance
        for number, one in folds.items()
    }
    check_same_settings(told, {number: str(one.folder) for number, one in folds.items()})
    check_division({number: one.case_ids for number, one in folds.items()}, seen)


def check_same_settings(folds: Mapping[int, Mapping[str, Any]], names: Mapping[int, str]) -> None:
    """Check that folds differ in nothing but what each has of its own, such as its weights.

    Args:
        folds: what the provenance of the results of each fold says.
        names: what they are called in the message.

    Raises:
        UserError: they differ in something else.
    """
    (number, first), *others = ((number, _settings(recorded)) for number, recorded in folds.items())
    for other, settings in others:
        for key in first | settings:
            here, there = first.get(key), settings.get(key)
            if here != there:
                raise UserError(
                    f"{names[number]} and {names[other]} are no folds of one cross-validation, since their {key} "
                    f"differ ({_short(here)} in fold {number}, {_short(there)} in fold {other}); train, predict "
                    f"and evaluate all folds with the same settings."
                )


def check_division(folds: Mapping[int, Sequence[str]], seen: Mapping[int, Sequence[str]] | None = None) -> None:
    """Check that every case is held out in one fold.

    Args:
        folds: ids of the cases that are held out in each fold.
        seen: ids of the cases that the training of each fold was trained on and validated on; not checked if None.

    Raises:
        UserError: a case is in two folds or in none, or the training of its fold has seen it.
    """
    fold_of: dict[str, int] = {}
    for number, cases in folds.items():
        for case in cases:
            if case in fold_of:
                raise UserError(
                    f"Case {case} is evaluated in fold {fold_of[case]} and in fold {number}, but it must count once; "
                    f"give the folds of one division."
                )
            fold_of[case] = number
    for number, known in (seen or {}).items():
        if both := sorted(set(known) & {case for case, fold in fold_of.items() if fold == number}):
            raise UserError(
                f"Case {both[0]} is evaluated in fold {number}, whose training has seen it; train the fold again with "
                f"the division of today."
            )
    everyone = {case for known in (seen or {}).values() for case in known}
    if lacking := sorted(everyone - fold_of.keys()):
        whose = f" ({len(lacking)} such cases)" if len(lacking) > 1 else ""
        raise UserError(
            f"Case {lacking[0]} was trained on in some folds, but none of the folds {listed([*map(str, folds)], 20)} "
            f"holds it out{whose}; predict and evaluate all cases of all folds, without limit_cases."
        )


def merged_provenance(folds: Mapping[int, Evaluation]) -> dict[str, Any]:
    """What produced all of them: what they share, and as ``folds`` what each has of its own."""
    parts = {number: one.provenance for number, one in folds.items()}
    first = next(iter(parts.values()))
    shared = {key: value for key, value in first.items() if all(one.get(key) == value for one in parts.values())}
    own = {
        str(number): {key: value for key, value in one.items() if key not in shared} for number, one in parts.items()
    }
    digests = [one.get("checkpoint_digest") for one in parts.values()]
    division = {str(number): [{CaseKeys.CASE.value: case} for case in one.case_ids] for number, one in folds.items()}
    return {
        **shared,
        "checkpoint": ", ".join(str(one.get("checkpoint")) for one in parts.values()),
        "checkpoint_digest": hashlib.sha256(json.dumps(digests).encode()).hexdigest(),
        "split_digest": split_digest(division),
        "folds": own,
    }


def _settings(recorded: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in recorded.items() if key not in _OF_FOLDS}
    trainings = [one for one in recorded.get("trainings") or [] if isinstance(one, Mapping)]
    found |= {f"{key} of trainings": [one.get(key) for one in trainings] for key in _OF_TRAININGS}
    for kind in ("calibrator", "guarantee"):
        known = recorded.get(kind)
        found[kind] = known.get("kind") if isinstance(known, Mapping) else known
    return found


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
