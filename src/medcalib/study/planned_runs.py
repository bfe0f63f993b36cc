"""The runs of a study: what each of them is, and what it needs."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from medcalib.bundle.data_folds import DataFold
from medcalib.bundle.layout import Mode
from medcalib.bundle.option_values import override_values
from medcalib.bundle.overrides import first_stage, own_stage
from medcalib.bundle.used_settings import PLACE_AND_PACE
from medcalib.errors import UserError

__all__ = ["BundlePlace", "Evaluated", "Plan", "Run", "Shift", "is_place", "short_digest"]

_DIGITS = 8
_PLACE = re.compile("|".join(PLACE_AND_PACE.values()))
_PLAIN = (str, int, float, bool, type(None))


@dataclass(frozen=True)
class Run:
    """One run of a bundle, in a process of its own.

    Attributes:
        id: its name, also that of its log.
        title: what it is, for people.
        mode: mode of the bundle.
        bundle: folder of the bundle.
        bundle_digest: digest of the bundle's configs.
        fragments: names of the bundle's fragments by kind.
        seed: its seed.
        debug: whether it is a run of seconds.
        overrides: values by configuration id.
        output_dir: folder in which its results lie.
        needs: ids of the runs that must be done before.
        after: id of a run that must have ended before, whatever its state, since both write to one folder.
        trains_network: whether it trains a network, and does not fit a calibrator.
        epochs: number of epochs of a training of a network.
        num_weights: number of weights of the network that is trained.
    """

    id: str
    title: str
    mode: Mode
    bundle: Path
    bundle_digest: str
    fragments: dict[str, str]
    seed: int
    debug: bool
    overrides: dict[str, Any]
    output_dir: Path
    needs: tuple[str, ...] = ()
    after: str | None = None
    trains_network: bool = False
    epochs: int | None = None
    num_weights: int | None = None

    @property
    def words(self) -> list[str]:
        """What is typed behind ``medcalib``."""
        words = ["run", "--bundle", str(self.bundle), "--mode", str(self.mode), "--seed", str(self.seed)]
        words += ["--debug"] * self.debug
        return words + [f"--{id_}={on_command_line(id_, value)}" for id_, value in self.overrides.items()]

    @property
    def command(self) -> list[str]:
        """The program and its arguments."""
        return [sys.executable, "-m", "medcalib.cli", *self.words]

    @property
    def typed(self) -> str:
        """The command as a user types it."""
        return f"medcalib {shlex.join(self.words)}"

    @property
    def digest(self) -> str:
        """What decides its result, apart from the runs that it needs."""
        deciding = {id_: value for id_, value in self.overrides.items() if not is_place(id_)}
        return short_digest([self.mode, self.bundle_digest, self.seed, self.debug, deciding], 64)


@dataclass(frozen=True)
class BundlePlace:
    """Where a bundle of a study lies.

    Attributes:
        folder: its folder.
        fragments: names of its fragments by kind.
        settings: values by which its training differs from that of the bundle alone, by configuration id.
        weights_from: folders of the bundles whose weights it uses, where they lie elsewhere.
        fold: its fold of a cross-validation; None without.
    """

    folder: Path
    fragments: dict[str, str]
    settings: dict[str, Any] = field(default_factory=dict)
    weights_from: tuple[Path, ...] = ()
    fold: DataFold | None = None


class Shift(NamedTuple):
    """How the images of a combination were made worse by a sweep.

    Attributes:
        of: name of the same combination on images as they are.
        kind: kind of the corruption.
        level: its level.
    """

    of: str
    kind: str
    level: int


@dataclass(frozen=True)
class Evaluated:
    """Where the results of one combination of the grid come to lie.

    Attributes:
        evaluations: ids of the runs that evaluate, by seed, one of each fold of a cross-validation.
        predictions: id of the run that predicts for the gallery, of a cross-validation in the first fold; None without.
        description: what it is, in full.
        shift: how the images were made worse; None for images that the study has no others of.
    """

    evaluations: dict[int, tuple[str, ...]]
    predictions: str | None
    description: str
    shift: Shift | None = None


@dataclass(frozen=True)
class Plan:
    """All that a study will do.

    Attributes:
        runs: the runs by id, each behind those that it needs.
        places: the bundles, each behind those that it builds on.
        evaluated: the combinations by their names on the report.
        sweep: swept value by name on the report, by configuration id.
        groups: loss by name on the report.
        reference: name of what everything is compared with.
        output_folders: what sets folders of results apart from those of the bundle alone, by folder.
        folds: numbers of the folds of a cross-validation, as evaluations are listed; empty without.
    """

    runs: dict[str, Run]
    places: dict[Path, BundlePlace]
    evaluated: dict[str, Evaluated]
    sweep: dict[str, dict[str, Any]]
    groups: dict[str, str]
    reference: str
    output_folders: dict[Path, dict[str, Any]]
    folds: tuple[int, ...] = ()


def short_digest(content: Any, length: int = _DIGITS) -> str:
    """First digits of the SHA-256 of plain values, in hex; the order of keys does not matter.

    Example:
        >>> short_digest({"a": 1, "b": 2}) == short_digest({"b": 2, "a": 1})
        True
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:length]


def is_place(id_: str) -> bool:
    """Whether an id says where files lie or how fast a run is, and not what comes out.

    Example:
        >>> is_place("data::dataset_dir"), is_place("first_stage::device"), is_place("num_bins")
        (True, True, False)
    """
    bare = next(iter([*first_stage({id_: None}), *own_stage({id_: None})]))
    return _PLACE.fullmatch(bare) is not None


def on_command_line(id_: str, value: Any) -> str:
    """The text that the command line reads as a value.

    Raises:
        UserError: there is none.

    Example:
        >>> on_command_line("x", [1, "a b"]), on_command_line("x", None), on_command_line("x", "mean")
        ('[1, "a b"]', 'null', 'mean')
    """
    texts = [json.dumps(value, ensure_ascii=False)] if _is_json(value) else []
    if isinstance(value, str):
        texts = [value, f"'{value}'"]
    for text in texts:
        try:
            if _same(override_values({id_: text})[id_], value):
                return text
        except UserError:
            continue
    raise UserError(f"The value {value!r} of {id_} cannot be given to a run; write it as the command line reads it.")


def _is_json(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_json, value))
    return isinstance(value, _PLAIN)


def _same(one: Any, other: Any) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
