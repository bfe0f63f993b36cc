"""The grid of a study: what is compared, by the name that it has on the report."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from medcalib.bundle.shifted_cases import CORRUPTION, asks_for_corruption
from medcalib.errors import UserError, suggestion
from medcalib.study.study_file import Study

__all__ = ["GridPoint", "named_points", "reference_name"]


@dataclass(frozen=True)
class GridPoint:
    """One combination of a study.

    Attributes:
        loss: name of the loss fragment.
        method: name of method and calibrator.
        network: name of the network fragment; None is the default of the data.
        sweep: value by configuration id.
    """

    loss: str
    method: str
    network: str | None = None
    sweep: dict[str, Any] = field(default_factory=dict)

    @property
    def is_shifted(self) -> bool:
        """Whether it is evaluated on images that a sweep makes worse."""
        return CORRUPTION in self.sweep

    @property
    def as_it_is(self) -> GridPoint:
        """The same on images as they are."""
        return replace(self, sweep={id_: value for id_, value in self.sweep.items() if not asks_for_corruption(id_)})

    @property
    def parts(self) -> dict[str, Any]:
        """What picks it out of a grid, by key."""
        return {"network": self.network, "loss": self.loss, "method": self.method, **self.sweep}


def combinations(study: Study, known: Mapping[tuple[str | None, str, str], Iterable[str]]) -> list[GridPoint]:
    """Every combination of networks, losses, methods and values of the sweep that mean anything to it.

    Where corruptions of images are swept, each stands there on images as they are, too, before the others.

    Args:
        study: the study.
        known: which ids of the sweep the bundle of a network, a loss and a method knows.
    """
    points = []
    for network, loss, method in study.combinations:
        ids = [id_ for id_ in study.sweep if id_ in set(known[network, loss, method])]
        found = [
            GridPoint(loss, method, network, dict(zip(ids, values, strict=True)))
            for values in itertools.product(*(study.sweep[id_] for id_ in ids))
        ]
        if CORRUPTION in ids:
            plain = [point.as_it_is for point in found]
            found = [point for place, point in enumerate(plain) if point not in plain[:place]] + found
        points += found
    return points


def named_points(study: Study, known: Mapping[tuple[str | None, str, str], Iterable[str]]) -> dict[str, GridPoint]:
    """The combinations of a study by short names, made of what differs between them.

    Args:
        study: the study.
        known: which ids of the sweep the bundle of a network, a loss and a method knows.

    Example:
        >>> study = Study("s", "phantom", ("baseline_ce", "focal"), ("deterministic",), sweep={"a::bins": (5, 10)})
        >>> both = {(None, loss, "deterministic"): ["a::bins"] for loss in study.losses}
        >>> list(named_points(study, both))[:2]
        ['baseline_ce / bins=5', 'baseline_ce / bins=10']
    """
    points = combinations(study, known)
    keys = [key for key in ("network", "loss", "method") if len({point.parts[key] for point in points}) > 1]
    leaves = [id_.rpartition("::")[2] for id_ in study.sweep]
    short = {id_: leaf if leaves.count(leaf) == 1 else id_ for id_, leaf in zip(study.sweep, leaves, strict=True)}
    names = {}
    for point in points:
        words = [str(point.parts[key]) for key in keys]
        words += [f"{short[id_]}={_shown(value)}" for id_, value in point.sweep.items()]
        names[" / ".join(words) or point.method] = point
    return names


def reference_name(study: Study, points: Mapping[str, GridPoint]) -> str:
    """The name of what everything is compared with.

    Raises:
        UserError: it is not in the grid, or what is given fits several.

    Example:
        >>> points = {"ce": GridPoint("baseline_ce", "tta"), "focal": GridPoint("focal", "tta")}
        >>> reference_name(Study("s", "phantom", ("baseline_ce", "focal"), reference={"loss": "focal"}), points)
        'focal'
    """
    wanted, where = study.reference, f"The reference of the study {study.name}"
    if wanted is None:
        return next(iter(points))
    if isinstance(wanted, str):
        if wanted in points:
            return wanted
        raise UserError(f"{where}, {wanted!r}, is not in its grid{suggestion(wanted, points, list_all=True)}")
    keys = [*dict.fromkeys(key for point in points.values() for key in point.parts)]
    for key, value in wanted.items():
        if key not in keys:
            raise UserError(f"{where}: {key} is nothing that its grid has{suggestion(str(key), keys, list_all=True)}")
        values = list(dict.fromkeys(str(point.parts[key]) for point in points.values() if key in point.parts))
        if str(value) not in values:
            raise UserError(f"{where}: {key} {value} is not in its grid{suggestion(str(value), values, list_all=True)}")
    found = [
        name
        for name, point in points.items()
        if all(key in point.parts and str(point.parts[key]) == str(value) for key, value in wanted.items())
    ]
    if len(found) != 1:
        told = f"fits {' and '.join(found[:3])}" if found else "fits nothing in its grid"
        raise UserError(f"{where} {told}; give more or other of {', '.join(keys)}, or one of the names of the grid.")
    return found[0]


def _shown(value: Any) -> str:
    return str(value).replace(" ", "")
