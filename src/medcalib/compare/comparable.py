"""Whether evaluations can be compared, and on which cases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from medcalib.compare.evaluations import Evaluation
from medcalib.errors import UserError, listed

__all__ = ["check_comparable", "common_cases"]

Evaluations = Mapping[str, Sequence[Evaluation]]

_SETTINGS = ("split_digest", "num_bins", "include_background", "space", "limit_cases")
# of metrics that an evaluation has or has not
_SETTINGS_OF_METRICS = ("surface_tolerance_mm", "boundary_band_mm")


def check_comparable(evaluations: Evaluations) -> None:
    """Make sure that evaluations differ in nothing but the method and the seed.

    What one of them does not record, as a folder with nothing but tables of metrics, is not compared.

    Raises:
        UserError: two differ in the split, the bins, the classes, the background rule, the grid, in whether they are
            trial runs, or in the labels of a case; or one folder is given twice.
    """
    known: dict[str, tuple[Evaluation, Any]] = {}
    folders: dict[Any, str] = {}
    for name, one in _each(evaluations):
        if other := folders.get(one.folder.resolve()):
            twice = f"twice for {name}" if other == name else f"for {other} and for {name}"
            raise UserError(
                f"{one.folder} is given {twice}, but every evaluation counts once; give each its own folder."
            )
        folders[one.folder.resolve()] = name
        for key, value in _settings(one).items():
            before, expected = known.setdefault(key, (one, value))
            if value != expected:
                raise UserError(
                    f"{before.folder} and {one.folder} cannot be compared: {key} is {_short(expected)} in the first "
                    f"and {_short(value)} in the second; evaluate both the same way."
                )
    _check_labels(evaluations)


def common_cases(evaluations: Evaluations) -> tuple[list[str], dict[str, list[str]]]:
    """Cases that every evaluation has.

    Returns:
        Their ids, in the order of the first evaluation; and, of each method with more, the ids of those left out.

    Raises:
        UserError: there is none.
    """
    every = [set(one.case_ids) for _, one in _each(evaluations)]
    shared = set.intersection(*every)
    first = next(one for _, one in _each(evaluations))
    if not shared:
        several = [(name, one) for name, one in _each(evaluations) if not set(first.case_ids) & set(one.case_ids)]
        name, other = several[0] if several else list(_each(evaluations))[-1]
        raise UserError(
            f"There is no case that all evaluations have: {next(iter(evaluations))} has {listed(first.case_ids)}, and "
            f"{name} has {listed(other.case_ids)}; give evaluations of the same test cases."
        )
    left_out = {}
    for name, seeds in evaluations.items():
        more = list(dict.fromkeys(case for one in seeds for case in one.case_ids if case not in shared))
        if more:
            left_out[name] = more
    return [case for case in first.case_ids if case in shared], left_out


def _each(evaluations: Evaluations) -> Iterator[tuple[str, Evaluation]]:
    for name, seeds in evaluations.items():
        for one in seeds:
            yield name, one


def _settings(evaluation: Evaluation) -> dict[str, Any]:
    recorded = evaluation.provenance
    found: dict[str, Any] = {"task": "classification" if evaluation.classifies else "segmentation"}
    found |= {key: recorded[key] for key in _SETTINGS if key in recorded}
    found |= {key: recorded[key] for key in _SETTINGS_OF_METRICS if recorded.get(key) is not None}
    found["class_names"] = evaluation.class_names
    if evaluation.statistics is not None:
        found["num_bins"] = evaluation.statistics.num_bins
    if evaluation.summary is not None:
        found["debug"] = evaluation.debug
        found["corruption"] = corruption_text(evaluation.corruption)
    return found


def _check_labels(evaluations: Evaluations) -> None:
    """Compare how many voxels each case has, and how many of each class."""
    known: dict[str, tuple[Evaluation, np.ndarray]] = {}
    for _, one in _each(evaluations):
        if one.statistics is None:
            continue
        counts, _, sum_true = (part.double().sum(-1).numpy() for part in one.statistics)
        for case, voxels in zip(one.case_ids, np.stack([counts, sum_true], 1), strict=True):
            before, expected = known.setdefault(case, (one, voxels))
            if not np.allclose(voxels, expected, rtol=1e-6, atol=1e-6):
                place = np.flatnonzero(~np.isclose(voxels, expected, rtol=1e-6, atol=1e-6).all(0))[0]
                what = "voxels" if voxels[0, place] != expected[0, place] else f"voxels of {one.class_names[place]}"
                row = 0 if what == "voxels" else 1
                raise UserError(
                    f"{before.folder} and {one.folder} cannot be compared: the label of case {case} has "
                    f"{expected[row, place]:.0f} {what} in the first and {voxels[row, place]:.0f} in the second; "
                    f"evaluate both with the same labels."
                )


def corruption_text(corruption: Mapping[str, Any] | None) -> str:
    """How images of test cases were made worse, in words.

    Example:
        >>> corruption_text({"kind": "noise", "level": 2, "strength": 0.2}), corruption_text(None)
        ('noise of level 2 (0.2)', 'none')
    """
    if corruption is None:
        return "none"
    return f"{corruption.get('kind')} of level {corruption.get('level')} ({corruption.get('strength')})"


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    text = str(value)
    return f"{text[:8]}..." if len(text) == 64 else text
