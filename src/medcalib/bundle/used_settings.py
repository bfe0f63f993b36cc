"""Which settings the objects of a run use: a closure over the references of its configuration."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ReferenceResolver

from medcalib.bundle.fragments import lookup
from medcalib.bundle.resolve import plain_config, resolved_value
from medcalib.data.case_identity import file_digest

__all__ = ["PLACE_AND_PACE", "Difference", "UsedSettings", "differences", "is_place_or_pace", "used_settings"]

PLACE_AND_PACE = {
    "where files lie": (
        r"(.*::)?(data_dir|dataset_dir|bundle_root|output_dir|models_dir|weights_dir|log_dir|save_dir|cache_dir)"
    ),
    "how fast it goes": r"memory_format|(.*::)?(device|num_workers)|.*::(cache_rate|cache_num|progress)",
    "how prepared cases are kept": r"(train|validate)::dataset::(_target_|hash_func|cache_.*)",
    "compared as weights instead": r"initial_weights|begun_network(::.*)?",
    "where else a training is recorded": r"mlflow(::.*)?",
    "compared as cases instead": r"(.*::)?calibration_cases(::.*)?",
}
"""Ids that decide where or how fast something is computed, but not what; they are not compared. By reason."""

_SHARED = {
    "medcalib.engines.SharedTrainer": "monai.engines.SupervisedTrainer",
    "medcalib.engines.SharedEvaluator": "monai.engines.SupervisedEvaluator",
    "medcalib.process_group.join_group": "medcalib.processes.refuse_several_processes",
}
"""What several processes use for what one uses, with the same results."""

_LEFT_OUT = re.compile("|".join(PLACE_AND_PACE.values()))
_ONLY_TELL = {
    "monai.handlers.LogfileHandler",
    "monai.handlers.StatsHandler",
    "monai.handlers.TensorBoardStatsHandler",
    "medcalib.handlers.MLFlowRunHandler",
    "medcalib.handlers.ProgressBarHandler",
    "medcalib.handlers.TrainingRecordHandler",
}
# an expression that asks a mapping for one key uses that key alone, and may do without it
_ASKED_KEY = re.compile(r"@(\w+(?:::\w+)*)\.get\('(\w+)'")


def is_place_or_pace(id_: str) -> bool:
    """Whether an id is one of `PLACE_AND_PACE`.

    Example:
        >>> is_place_or_pace("data::dataset_dir"), is_place_or_pace("num_bins")
        (True, False)
    """
    return _LEFT_OUT.fullmatch(id_) is not None


@dataclass
class UsedSettings:
    """Settings that the objects of a run use.

    Attributes:
        values: resolved value by id, plain as in JSON; an expression with no plain value is there as its text.
        uses: ids to which the expression or reference of an id refers.
        visited: ids whose whole content is used.
    """

    values: dict[str, Any] = field(default_factory=dict)
    uses: dict[str, set[str]] = field(default_factory=dict)
    visited: set[str] = field(default_factory=set)

    def reach(self, id_: str) -> set[str]:
        """The id, and every id that its value depends on."""
        found, waiting = set(), [id_]
        while waiting:
            found.add(current := waiting.pop())
            waiting += [next_ for used in self.uses.get(current, ()) for next_ in self._at(used) if next_ not in found]
        return found

    def _at(self, id_: str) -> Iterator[str]:
        yield id_
        yield from (known for known in self.values if known.startswith(f"{id_}::"))


def used_settings(parser: ConfigParser, roots: Iterable[str], through_values: bool = True) -> UsedSettings:
    """Follow the references of a configuration from some ids on.

    Args:
        parser: the configuration, with the user's overrides.
        roots: ids of the objects that are used; of ``initialize`` and ``run`` the expressions are not evaluated.
        through_values: whether to go on from an expression that has a plain value to what it refers to. If not, only
            the values are found on which the objects depend directly.

    Returns:
        What they use, without the ids of `PLACE_AND_PACE` and without handlers that only log.

    Example:
        >>> from monai.bundle import ConfigParser
        >>> parser = ConfigParser({"bins": 20, "more": "$2 * @bins", "run": ["$print(@more)"], "other": 1})
        >>> used_settings(parser, ["run"]).values
        {'run::0': '$print(@more)', 'more': 40, 'bins': 20}
    """
    parser.parse(reset=False)
    config = plain_config(parser)
    found = UsedSettings()
    waiting = list(roots)
    while waiting:
        id_ = waiting.pop(0)
        if id_ in found.visited or _LEFT_OUT.fullmatch(id_):
            continue
        exists, value = lookup(config, id_)
        if not exists:
            continue
        found.visited.add(id_)
        for leaf, raw in _leaves(id_, value):
            if leaf in found.values or _LEFT_OUT.fullmatch(leaf):
                continue
            statement = leaf.partition("::")[0] in ("initialize", "run")
            resolved = raw if statement else resolved_value(leaf, raw, config, parser)
            found.values[leaf] = _plain(_SHARED.get(resolved, resolved) if isinstance(resolved, str) else resolved)
            if not isinstance(raw, str) or raw[:1] not in ("$", "@"):
                continue
            found.uses[leaf] = set(_references(raw))
            if through_values or statement or resolved is raw:
                waiting += sorted(found.uses[leaf])
    return found


@dataclass(frozen=True)
class Difference:
    """One setting that is not what it was: its id, its value before and now, `MISSING` where there is none."""

    id: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.id}={_shown(self.before)}, not {_shown(self.now)}"


MISSING = object()


def differences(
    before: Mapping[str, Any], now: UsedSettings, passed_over: Callable[[str], bool] | None = None
) -> list[Difference]:
    """Settings whose values differ, those first from which the others follow.

    An id that is not referred to any more, or only now, is no difference by itself: what refers to it is one, or has
    the same value as before.

    Args:
        before: values by id as they were recorded.
        now: the settings of this run.
        passed_over: which ids need not be equal.

    Example:
        >>> now = UsedSettings({"more": 40, "bins": 20}, {"more": {"bins"}})
        >>> [str(difference) for difference in differences({"more": 20, "bins": 10}, now)]
        ['bins=10, not 20', 'more=20, not 40']
    """
    then = {id_: value for id_, value in before.items() if id_ in now.values or _under(id_, now.visited)}
    known = {visited for visited in now.visited if visited in before or any(_under(id_, {visited}) for id_ in before)}
    at_present = {id_: value for id_, value in now.values.items() if id_ in before or _under(id_, known)}
    found = {
        id_: Difference(id_, then.get(id_, MISSING), at_present.get(id_, MISSING))
        for id_ in sorted(then.keys() | at_present.keys())
        if not _equal(then.get(id_, MISSING), at_present.get(id_, MISSING)) and not (passed_over and passed_over(id_))
    }
    return sorted(found.values(), key=lambda difference: len(now.reach(difference.id) & found.keys()))


def _under(id_: str, parents: Set[str]) -> bool:
    keys = id_.split("::")
    return any("::".join(keys[:length]) in parents for length in range(1, len(keys) + 1))


def _leaves(id_: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        if value.get("_target_") in _ONLY_TELL:
            return
        if not value:
            yield id_, value
        for key, item in value.items():
            if key != "_desc_" and not (item is None and id_.endswith("handlers")):  # null switches a handler off
                yield from _leaves(f"{id_}::{key}", item)
    elif isinstance(value, list):
        if not value:
            yield id_, value
        for index, item in enumerate(value):
            yield from _leaves(f"{id_}::{index}", item)
    else:
        yield id_, value


def _references(text: str) -> Iterator[str]:
    yield from (f"{parent}::{key}" for parent, key in _ASKED_KEY.findall(text))
    yield from ReferenceResolver.match_refs_pattern(_ASKED_KEY.sub("", text) if text[0] == "$" else text)


def _plain(value: Any) -> Any:
    """The value as JSON gives it back; of a file its name and what it holds, wherever it lies."""
    if isinstance(value, str) and os.sep in value and value[:1] not in ("$", "@") and (digest := file_digest(value)):
        return f"{Path(value).name} ({digest})"
    return json.loads(json.dumps(value, default=str))


def _equal(one: Any, other: Any) -> bool:
    if one is MISSING or other is MISSING:
        return one is other
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _shown(value: Any) -> str:
    return "nothing" if value is MISSING else str(value)
