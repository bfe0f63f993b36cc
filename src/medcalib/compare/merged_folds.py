"""Evaluations of the folds of a cross-validation as one evaluation, in which every case counts once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medcalib.compare.evaluation_files import read_arrays, read_part, statistics_of
from medcalib.compare.evaluations import Evaluation, read_evaluation
from medcalib.compare.fold_checks import check_folds, merged_provenance
from medcalib.compare.image_scores import class_probabilities
from medcalib.compare.raw_tables import MEAN, is_pooled
from medcalib.errors import UserError
from medcalib.functional import BinStatistics
from medcalib.handlers import ResultFolder
from medcalib.handlers.binned_cases import BinnedCases
from medcalib.handlers.image_predictions import ImagePredictions
from medcalib.keys import CaseKeys, SplitKeys
from medcalib.reports.replayed_reports import replay_images, replay_volumes

__all__ = ["FOLD", "merge_folds"]

FOLD = "fold"
"""Attribute that says from which fold a case is."""
BOUNDARY_BINS = "boundary_bin_statistics.npz"
_OF_IMAGES = ("filename", "label", "predicted", "correct", "confidence", "nll_categorical", "brier_categorical")


def merge_folds(
    folds: Mapping[int, Evaluation], output: str | Path, seen: Mapping[int, Sequence[str]] | None = None
) -> Evaluation:
    """Write the evaluation of all cases of a cross-validation, each by the fold that was not trained on it.

    Nothing is predicted again: values of cases are those of the folds, means are taken over all of them, and what is
    pooled is computed from the sum of their bins, as if one evaluation had seen every case. The attribute ``fold`` of a
    case says which fold it is from, and results are reported by it, too.

    Args:
        folds: the evaluation of each fold.
        output: folder of the results; those that lie there already are replaced if they are of the same folds, else
            kept beside it.
        seen: ids of the cases that the training of each fold was trained on and validated on; not checked if None.

    Returns:
        What was written.

    Raises:
        UserError: a case is in two folds or in none, a fold evaluates a case that its training has seen, or folds were
            evaluated in different ways.
    """
    for one in folds.values():
        if one.statistics is None or one.cases is None or one.summary is None:
            raise UserError(f"{one.folder} lacks cases.csv, summary.json or bin_statistics.npz; evaluate again.")
    check_folds(folds, seen)
    results = ResultFolder(output, merged_provenance(folds))
    if next(iter(folds.values())).classifies:
        _write_images(results, folds)
    else:
        _write_volumes(results, folds)
    return read_evaluation(output)


def _write_volumes(results: ResultFolder, folds: Mapping[int, Evaluation]) -> None:
    first = next(iter(folds.values()))
    split, strata = _split(folds), set(_attributes(first))
    ordered = [name for name in first.summary or {} if name in first.metrics]
    # what is debiased is computed from bins again
    per_case = [name for name in ordered if not (is_pooled(first.metrics[name]) or name.endswith("_debiased"))]
    details = {name: torch.cat([_values(one, name) for one in folds.values()]) for name in per_case}
    scores = [
        name
        for name in (first.cases.columns if first.cases is not None else ())
        if name not in {"filename", *ordered, *strata}
    ]
    of_scores = {name: torch.cat([_column(one, name)[:, None] for one in folds.values()]) for name in scores}
    cases = [case for one in folds.values() for case in one.case_ids]
    binned = BinnedCases(cases, tuple(first.class_names), _statistics([one.statistics for one in folds.values()]))

    known = [one.quality_control for one in folds.values()]
    poor = None
    if known[0] and all(known):
        # found on the calibration cases of each fold
        limit = float(np.median([one["poor_below"] for one in known if one is not None]))
        poor = {"poor_below": limit, "max_poor": known[0]["max_poor"]}
    replay_volumes(results, binned, details, of_scores, split, poor, _band(folds, binned))


def _band(folds: Mapping[int, Evaluation], binned: BinnedCases) -> BinnedCases | None:
    """Bin statistics of the voxels near boundaries; None if a fold lacks them."""
    found = [read_part(one.folder / BOUNDARY_BINS, read_arrays) for one in folds.values()]
    known = [statistics_of(arrays, "") for arrays in found if arrays is not None]
    return binned._replace(statistics=_statistics(known)) if len(known) == len(found) else None


def _write_images(results: ResultFolder, folds: Mapping[int, Evaluation]) -> None:
    first = next(iter(folds.values()))
    statistics = _statistics([one.statistics for one in folds.values()])
    probabilities, labels = class_probabilities(statistics)
    names = [
        name
        for name in (first.cases.columns if first.cases is not None else ())
        if name not in {*_OF_IMAGES, *_attributes(first)}
    ]
    found = ImagePredictions(
        [case for one in folds.values() for case in one.case_ids],
        tuple(first.class_names),
        probabilities.float(),
        labels,
        {name: torch.cat([_column(one, name) for one in folds.values()]) for name in names},
    )
    with_retention = bool(found.uncertainties) and first.retention is not None
    replay_images(results, found, statistics.num_bins, _split(folds), with_retention)


def _split(folds: Mapping[int, Evaluation]) -> dict[str, list[dict[str, Any]]]:
    """All cases with their attributes, and the fold as the first of these."""
    cases = []
    for number, one in folds.items():
        known = _attributes(one)
        rows = {} if one.cases is None else one.cases.set_index("filename")[known].to_dict("index")
        for case in one.case_ids:
            of_case = {name: value for name, value in rows.get(case, {}).items() if value not in ("", "nan")}
            attributes = {FOLD: str(number), **{name: value for name, value in of_case.items() if name != FOLD}}
            cases.append({CaseKeys.CASE.value: case, CaseKeys.ATTRIBUTES.value: attributes})
    return {SplitKeys.TEST.value: cases}


def _attributes(evaluation: Evaluation) -> list[str]:
    known = (evaluation.summary or {}).get("strata") or {}
    return [name for name in known if evaluation.cases is not None and name in evaluation.cases]


def _values(evaluation: Evaluation, metric: str) -> Tensor:
    """A metric, (case, class), or (case, 1) of one that has no classes."""
    table = evaluation.metrics[metric].reindex(evaluation.case_ids)
    columns = [name for name in table.columns if name != MEAN] or [MEAN]
    return torch.tensor(table[columns].to_numpy(dtype=float))


def _column(evaluation: Evaluation, name: str) -> Tensor:
    assert evaluation.cases is not None
    return torch.tensor(evaluation.cases[name].to_numpy(dtype=float))


def _statistics(parts: Sequence[BinStatistics | None]) -> BinStatistics:
    known = [part for part in parts if part is not None]
    return BinStatistics(*(torch.cat(list(one)) for one in zip(*known, strict=True)))
