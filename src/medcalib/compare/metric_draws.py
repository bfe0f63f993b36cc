"""Each metric of each method, drawn: per case where there is a value of each, else from pooled statistics."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from medcalib.compare.bootstrap import CaseDraws
from medcalib.compare.drawn_values import Drawn, Statistic, Trainings, draw, means, undrawn
from medcalib.compare.evaluations import Evaluation
from medcalib.compare.pooled_scores import POOLED_ERRORS, calibration_errors, decision_scores, roc_areas
from medcalib.compare.raw_tables import DATASET, is_pooled
from medcalib.functional import BinStatistics

__all__ = ["MetricDraws", "draw_metrics", "trainings_of"]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclasses.dataclass
class MetricDraws:
    """A metric of all methods on the cases that all have.

    Attributes:
        metric: its name.
        columns: classes and ``mean``.
        by_case: by method, (seed, case, column), NaN where a case has no value; None where the metric has one value
            for all cases together.
        known: by method, (case, column), whether every seed has a value.
        of_cases: from a method and a mask of cases to the columns, drawn, of this method and perhaps of others.
        lacks_bins: methods without bins from which this metric, of all cases together, could be drawn.
        is_drawn: whether the metric can be drawn at all.
        other_cases: methods whose value, which nothing can draw, is of other cases too, so that it is NaN here.
    """

    metric: str
    columns: list[str]
    by_case: dict[str, Array] | None
    known: dict[str, Mask]
    of_cases: Callable[[str, Mask], dict[str, Drawn]]
    lacks_bins: frozenset[str] = frozenset()
    is_drawn: bool = True
    other_cases: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self._memory: dict[tuple[str, bytes], Drawn] = {}

    def drawn(self, method: str, mask: Mask) -> Drawn:
        """The columns of a method on some cases."""
        cases = mask.tobytes()
        if (method, cases) not in self._memory:
            self._memory |= {(name, cases): found for name, found in self.of_cases(method, mask).items()}
        return self._memory[method, cases]


def trainings_of(name: str, evaluations: Sequence[Evaluation]) -> tuple[Trainings, list[Evaluation]]:
    """Which trainings the evaluations of a method use, and the evaluations in the order of these trainings.

    Two methods that use the same checkpoints, such as one and the same with a calibrator, share their trainings. Equal
    numbers of seeds do not make two trainings alike.
    """
    checkpoints = [str(one.provenance.get("checkpoint_digest") or "") for one in evaluations]
    if not all(checkpoints) or len(set(checkpoints)) < len(checkpoints):
        return Trainings(f"method {name}", len(evaluations)), list(evaluations)
    in_order = [one for _, one in sorted(zip(checkpoints, evaluations, strict=True), key=lambda pair: pair[0])]
    return Trainings(" ".join(sorted(checkpoints)), len(evaluations)), in_order


def draw_metrics(
    evaluations: Mapping[str, Sequence[Evaluation]],
    columns: Mapping[str, Sequence[str]],
    cases: Sequence[str],
    draws: CaseDraws,
) -> Iterator[MetricDraws]:
    """Every metric, one after the other.

    Args:
        evaluations: of each method, one a seed.
        columns: the metrics, and the columns of each that all evaluations have.
        cases: the cases that all evaluations have.
        draws: draws of cases.
    """
    sources = {name: _Source(*trainings_of(name, seeds), list(cases), draws) for name, seeds in evaluations.items()}
    for metric, names in columns.items():
        first = next(iter(evaluations.values()))[0]
        make = _pooled if is_pooled(first.metrics[metric]) else _of_each_case
        yield make(metric, list(names), sources)


@dataclasses.dataclass
class _Source:
    trainings: Trainings
    evaluations: list[Evaluation]
    cases: list[str]
    draws: CaseDraws

    @cached_property
    def statistics(self) -> list[tuple[BinStatistics, BinStatistics | None]] | None:
        found = []
        for one in self.evaluations:
            if one.statistics is None:
                return None
            rows = torch.from_numpy(np.array([one.case_ids.index(case) for case in self.cases]))
            top_label = one.top_label and BinStatistics(*(values[rows] for values in one.top_label))
            found.append((BinStatistics(*(values[rows] for values in one.statistics)), top_label))
        return found

    def pooled(self, family: str) -> tuple[list[str], Drawn] | None:
        """Names of the metrics of a family, and its numbers, metric by metric the columns."""
        if family not in self._families:
            self._families[family] = self._draw_family(family)
        return self._families[family]

    def __post_init__(self) -> None:
        self._families: dict[str, tuple[list[str], Drawn] | None] = {}

    def _draw_family(self, family: str) -> tuple[list[str], Drawn] | None:
        if self.statistics is None:
            return None
        names, of_seeds = [family], list[Statistic]()
        for statistics, top_label in self.statistics:
            if family == "micro":
                names = [f"micro_{name}" for name in POOLED_ERRORS]
                of_seeds.append(calibration_errors(statistics))
            elif family == "top_label" and top_label is not None:
                names = [f"top_label_{name}" for name in POOLED_ERRORS]
                of_seeds.append(calibration_errors(top_label, ignore_empty=False))
            elif family == "auc":
                of_seeds.append(roc_areas(statistics))
            elif family == "decisions":
                names = ["sensitivity", "specificity"]
                of_seeds.append(decision_scores(statistics))
            else:
                return None
        return names, draw(of_seeds, len(self.cases), self.draws, self.trainings)


def _of_each_case(metric: str, columns: list[str], sources: Mapping[str, _Source]) -> MetricDraws:
    by_case = {
        name: np.stack(
            [one.metrics[metric].reindex(source.cases)[columns].to_numpy(dtype=float) for one in source.evaluations]
        )
        for name, source in sources.items()
    }

    known = {name: np.isfinite(values).all(0) for name, values in by_case.items()}
    single = [name for name, source in sources.items() if source.trainings.number == 1]

    def of_cases(method: str, mask: Mask) -> dict[str, Drawn]:
        if not mask.any():
            return {method: undrawn(np.full((len(by_case[method]), len(columns)), np.nan))}
        number, source = int(mask.sum()), sources[method]
        if method not in single:
            of_seeds = [means(one) for one in by_case[method][:, mask]]
            return {method: draw(of_seeds, number, source.draws, source.trainings)}
        # those that will be asked for on the same cases, at once, which is much faster
        names = [name for name in single if name == method or (known[name] == mask[:, None]).all(0).any()]
        values = np.concatenate([by_case[name][0, mask] for name in names], 1)
        drawn, width = draw([means(values)], number, source.draws, source.trainings), len(columns)
        return {name: drawn.take(range(place * width, (place + 1) * width)) for place, name in enumerate(names)}

    return MetricDraws(metric, columns, by_case, known, of_cases)


def _pooled(metric: str, columns: list[str], sources: Mapping[str, _Source]) -> MetricDraws:
    families = {"auc": "auc", "sensitivity": "decisions", "specificity": "decisions"}
    family = families.get(metric, metric.rpartition("_")[0])
    found: dict[str, Drawn] = {}
    other_cases, is_drawn = set(), True
    for name, source in sources.items():
        drawn = source.pooled(family)
        if drawn is None or metric not in drawn[0]:
            is_drawn = is_drawn and source.statistics is None
            tables = [one.metrics[metric].loc[DATASET, columns].to_numpy(dtype=float) for one in source.evaluations]
            # a value of other cases cannot stand beside those of these cases
            if any(len(one.case_ids) > len(source.cases) for one in source.evaluations):
                other_cases.add(name)
                tables = [np.full(len(columns), np.nan) for _ in tables]
            found[name] = undrawn(np.stack(tables))
            continue
        names, numbers = drawn
        classes = source.evaluations[0].class_names
        width = len(numbers.estimates) // len(names)
        places = [width - 1 if column == "mean" else classes.index(column) for column in columns]
        found[name] = numbers.take([names.index(metric) * width + place for place in places])
    num_cases = len(next(iter(sources.values())).cases)
    known = {name: np.ones((num_cases, len(columns)), dtype=bool) for name in sources}
    lacks_bins = frozenset(name for name, source in sources.items() if source.statistics is None)
    return MetricDraws(metric, columns, None, known, lambda *_: found, lacks_bins, is_drawn, frozenset(other_cases))
