"""What users may override: ids that exist, with values that may stand there, each for a stage of a training."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from medcalib.bundle.contract import CONTRACTS, check_value, field_of, lookup
from medcalib.bundle.fragments import walk
from medcalib.bundle.resolve import RESERVED, component_arguments
from medcalib.devices import named_device
from medcalib.errors import UserError, suggestion

__all__ = [
    "FIRST_STAGE", "check_overrides", "concerns_training", "current_ids", "first_stage", "known_overrides", "own_stage",
    "says_how_to_train", "shared_by_stages",
]  # fmt: skip

FIRST_STAGE = "first_stage::"
"""How ids begin that are meant for the training from whose weights another one starts."""

# how a stage is trained; all else, such as data, network and loss, is that of both
_COURSE = ("train", "validate", "max_epochs", "val_interval", "cycle_epochs", "snapshot_epochs")
_OLD_NETWORK = re.compile(rf"^({FIRST_STAGE})?data::network::")
# what the data fragment says for networks, and is copied into the bundle's own network
_FOR_GENERATE = re.compile(r"data::(networks?|default_network)(::|$)")
_PARTS = ("handlers", "additional_metrics")
_MARKS = ("$", "@", "%")


def current_ids(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides by the ids of today: settings of the network stood in the data fragment until networks were fragments.

    Raises:
        UserError: a setting has two values, one by each of its ids.

    Example:
        >>> current_ids({"data::network::init_filters": 4, "first_stage::data::network::dsdepth": 1})
        {'network::init_filters': 4, 'first_stage::network::dsdepth': 1}
    """
    current: dict[str, Any] = {}
    for id_, value in overrides.items():
        new = _OLD_NETWORK.sub(r"\1network::", id_)
        if current.setdefault(new, value) != value:
            raise UserError(
                f"--{new} is given twice, as {current[new]!r} and {value!r} (data::network is its old name)."
            )
    return current


def own_stage(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Those overrides that are not meant for the first stage alone.

    Example:
        >>> own_stage({"num_bins": 15, "first_stage::train::optimizer::lr": 0.001})
        {'num_bins': 15}
    """
    return {id_: value for id_, value in overrides.items() if not id_.startswith(FIRST_STAGE)}


def first_stage(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Those overrides that are meant for the first stage alone, by their ids there.

    Example:
        >>> first_stage({"num_bins": 15, "first_stage::train::optimizer::lr": 0.001})
        {'train::optimizer::lr': 0.001}
    """
    return {id_.removeprefix(FIRST_STAGE): value for id_, value in overrides.items() if id_.startswith(FIRST_STAGE)}


def shared_by_stages(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Those overrides that both stages have, since they do not say how one of them is trained.

    Example:
        >>> shared_by_stages({"train::optimizer::lr": 0.001, "data::dataset_dir": "/data/x"})
        {'data::dataset_dir': '/data/x'}
    """
    return {id_: value for id_, value in own_stage(overrides).items() if not says_how_to_train(id_)}


def says_how_to_train(id_: str) -> bool:
    """Whether an id says how a stage is trained, so that each has its own.

    Example:
        >>> says_how_to_train("train::optimizer::lr"), says_how_to_train("loss::function")
        (True, False)
    """
    return id_.partition("::")[0] in _COURSE


def concerns_training(id_: str) -> bool:
    """Whether an id says how a network is trained, so that it has no meaning for what is done with the weights.

    Example:
        >>> concerns_training("train::optimizer::lr"), concerns_training("num_bins")
        (True, False)
    """
    top = id_.partition("::")[0]
    return top in (*_COURSE, "loss") or id_.startswith(("data::augmentation", "data::batch_size"))


def known_overrides(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Those overrides that a configuration takes."""
    known = {}
    for id_, value in overrides.items():
        try:
            check_overrides(config, {id_: value})
        except UserError:
            continue
        known[id_] = value
    return known


def check_overrides(config: Mapping[str, Any], overrides: Mapping[str, Any], prefix: str = "") -> None:
    """Check that every overridden id exists, or is one more argument of a component, and has a value that may be there.

    Args:
        config: the merged configuration.
        overrides: values by configuration id.
        prefix: what stood before the ids on the command line, for messages.

    Raises:
        UserError: an id does not exist, and the message names the nearest ones; or the contract of the fragments asks
            for another value.
    """
    for id_, value in overrides.items():
        option = f"--{prefix}{id_}"
        if _FOR_GENERATE.match(id_):
            raise UserError(f"{option} is read when a bundle is generated; write --{prefix}network::<setting> instead.")
        if (field := field_of(id_)) is not None:
            check_value(option, field, value)
        found, before = lookup(config, id_)
        if found:
            _check_kind(option, value, before)
            if id_ == "data::patch_size":
                _check_axes(option, value, before)
            if id_ == "device" and isinstance(value, str) and value[:1] not in _MARKS:
                named_device(value)
        elif not _is_optional(id_, config):
            _check_argument(option, id_, config)


def _check_argument(option: str, id_: str, config: Mapping[str, Any]) -> None:
    """Refuse an id that does not exist, unless it is one more argument of a component."""
    parent_id, _, leaf = id_.rpartition("::")
    found, parent = lookup(config, parent_id) if parent_id else (True, config)
    if found and isinstance(parent, dict) and "_target_" in parent:
        known = component_arguments(parent["_target_"])
        if known is None or leaf in known or leaf in RESERVED:
            return
        raise UserError(f"{option}: {parent['_target_']} takes no argument {leaf}{suggestion(leaf, known)}")
    siblings = [f"{parent_id}::{key}" if parent_id else key for key in parent] if isinstance(parent, dict) else []
    ids = siblings or [key for key, _ in walk(config)]
    raise UserError(f"The override id {option} does not exist in the bundle's configs{suggestion(id_, ids)}")


def _check_kind(option: str, value: Any, before: Any) -> None:
    """Refuse a text for a number, anything but true and false for one of these, and null for parts that have names."""
    if isinstance(value, str) and value[:1] in _MARKS:
        return
    if option.removeprefix("--") in _PARTS and not (isinstance(value, dict) and before.keys() <= value.keys()):
        raise UserError(
            f"{option} cannot be replaced as a whole; switch off one of its parts, as in {option}::NAME=null."
        )
    if isinstance(before, bool) and not isinstance(value, bool):
        raise UserError(f"{option} must be true or false, not {value!r}.")
    if isinstance(before, int | float) and not isinstance(before, bool) and isinstance(value, str | bool):
        raise UserError(f"{option} must be a number, not {value!r} (it is {before} in the bundle's configs).")


def _check_axes(option: str, patch: Any, before: Any) -> None:
    if isinstance(patch, list) and isinstance(before, list) and len(patch) != len(before):
        raise UserError(
            f"{option} {patch} has {len(patch)} axes, but the images of this bundle have {len(before)}, as in {before}."
        )


def _is_optional(id_: str, config: Mapping[str, Any]) -> bool:
    """Whether the configuration asks for an id of a fragment that this fragment lacks."""
    kind, _, name = id_.partition("::")
    if name not in CONTRACTS.get(kind, {}) or kind not in config:
        return False
    asks = (f"@{kind}.get('{name}'", f"@{id_}")
    return any(isinstance(value, str) and any(ask in value for ask in asks) for _, value in walk(config))
