"""What users may override: ids that exist, with values that may stand there, each for a stage of a training."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import NoneType
from typing import Any

from medcalib.bundle.contract import MARKS, NAMED_PARTS, check_value, field_of
from medcalib.bundle.fragments import lookup, walk
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
# what follows from the bundle itself
_GIVEN = ("bundle_root", "edited")
# parts of groups that change nothing
_TOLD = ("description", "reference")


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
        new = _current_id(id_)
        if current.setdefault(new, value) != value:
            raise UserError(
                f"--{new} is given twice, as {current[new]!r} and {value!r} (data::network is its old name)."
            )
    return current


def _current_id(id_: str) -> str:
    return _OLD_NETWORK.sub(r"\1network::", id_)


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


def check_overrides(
    config: Mapping[str, Any],
    overrides: Mapping[str, Any],
    first_stage: Mapping[str, Any] | None = None,
    elsewhere: Iterable[tuple[str, Mapping[str, Any]]] = (),
) -> None:
    """Check that every overridden id exists, or is one more argument of a component, and has a value that may be there.

    Args:
        config: the merged configuration.
        overrides: values by configuration id, as they were typed.
        first_stage: that of the training from whose weights this one starts; None if there is none, empty if it is not
            known, so that ids of the first stage are not checked.
        elsewhere: configurations of the other modes by name, which are only asked for an id that does not exist here.

    Raises:
        UserError: an id does not exist, and the message names the mode in which it does, or the nearest ones; or it has
            a value that cannot be.
    """
    for typed, value in overrides.items():
        option, id_, stage = f"--{typed}", _current_id(typed), config
        if id_.startswith(FIRST_STAGE):
            id_ = id_.removeprefix(FIRST_STAGE)
            if first_stage is None:
                raise UserError(
                    f"{option}: the training of this bundle has one stage, so leave out the prefix: --{id_}"
                )
            stage = first_stage
        if stage:
            _check_override(option, id_, value, stage, elsewhere)


def _check_override(
    option: str, id_: str, value: Any, config: Mapping[str, Any], elsewhere: Iterable[tuple[str, Mapping[str, Any]]]
) -> None:
    if id_ in _GIVEN:
        raise UserError(f"{option} follows from the bundle itself; leave it out.")
    if _FOR_GENERATE.match(id_):
        settings = f"{option.removesuffix(id_)}network::<setting>"
        raise UserError(f"{option} is read when a bundle is generated; write {settings} instead.")
    if not lookup(config, id_)[0]:
        check_value(option, id_, value)
        if not _is_optional(id_, config):
            _check_argument(option, id_, config, elsewhere)
        return
    meant, before = _followed(id_, config)
    if isinstance(before, dict):
        _check_group(option, id_, value, config, before, meant)
    check_value(option, id_, value)
    _check_kind(option, value, before)
    if id_ == "data::patch_size":
        _check_axes(option, value, before)
    if id_ == "device" and isinstance(value, str) and value[:1] not in MARKS:
        named_device(value)


def _followed(id_: str, config: Mapping[str, Any]) -> tuple[str, Any]:
    """What stands at an id, or where this is a reference at the id that is meant."""
    value = lookup(config, id_)[1]
    while isinstance(value, str) and value[:1] in ("@", "%") and value[1:] != id_ and lookup(config, value[1:])[0]:
        id_, value = value[1:], lookup(config, value[1:])[1]
    return id_, value


def _check_argument(
    option: str, id_: str, config: Mapping[str, Any], elsewhere: Iterable[tuple[str, Mapping[str, Any]]]
) -> None:
    """Refuse an id that does not exist, unless it is one more argument of a component."""
    parent_id, _, leaf = id_.rpartition("::")
    found, parent = lookup(config, parent_id) if parent_id else (True, config)
    known = None
    if found and isinstance(parent, dict) and "_target_" in parent:
        known = component_arguments(parent["_target_"])
        if known is None or leaf in known or leaf in RESERVED:
            return
    if modes := [mode for mode, other in elsewhere if lookup(other, id_)[0]]:
        raise UserError(f"{option} exists only in --mode {' and '.join(modes)}; leave it out here.")
    if known is not None:
        raise UserError(f"{option}: {parent['_target_']} takes no argument {leaf}{suggestion(leaf, known)}")
    siblings = [f"{parent_id}::{key}" if parent_id else key for key in parent] if isinstance(parent, dict) else []
    ids = siblings or [key for key, _ in walk(config)]
    raise UserError(f"The override id {option} does not exist in the bundle's configs{suggestion(id_, ids)}")


def _check_group(
    option: str, id_: str, value: Any, config: Mapping[str, Any], before: Mapping[str, Any], meant: str
) -> None:
    """Refuse to take a component or a group of settings away; what is null by contract or can be switched off may be.

    Args:
        option: the option, for messages.
        id_: its id.
        value: its value.
        config: the merged configuration.
        before: the mapping at the id, or that to which the id refers.
        meant: the id at which that stands.
    """
    field = field_of(meant)
    if (isinstance(value, str) and value[:1] in MARKS) or (value is None and field and NoneType in field.types):
        return
    target, told = before.get("_target_"), "null" if value is None else repr(value)
    settings = [name for name in before if name not in (*RESERVED, *_TOLD)]
    example = f", such as {option}::{settings[0]}" if settings else ""
    lost = [name for name in before if _is_needed(name, meant, config)]
    if isinstance(value, dict):
        lost = [name for name in lost if name not in value]
    if id_.endswith(NAMED_PARTS):
        if lost or not isinstance(value, dict):
            raise UserError(
                f"{option} cannot be replaced as a whole; switch off one of its parts, as in {option}::NAME=null."
            )
    elif value is None and id_.rpartition("::")[0].endswith(NAMED_PARTS):
        if meant != id_:
            raise UserError(f"{option} is what others use as @{meant}, so it cannot be switched off; leave it out.")
    elif target is not None and not (isinstance(value, dict) and "_target_" in value):
        raise UserError(
            f"{option} is a component ({target}), so it cannot be {told}; give one of its arguments{example}, or a "
            f"mapping with the _target_ of another."
        )
    elif not isinstance(value, dict):
        raise UserError(f"{option} is a group of settings, so it cannot be {told}; give one of them{example}.")
    elif target is None and lost:
        raise UserError(
            f"{option} is a group of settings that cannot do without {', '.join(lost)}; give one of them alone"
            f"{example}."
        )


def _is_needed(name: str, group: str, config: Mapping[str, Any]) -> bool:
    """Whether a part of a group is a component or a group itself, has a name in a list, or is referred to."""
    if isinstance(lookup(config, f"{group}::{name}")[1], dict) or group.endswith(NAMED_PARTS):
        return True
    uses = re.compile(rf"[@%]{re.escape(group)}::{re.escape(name)}\b")
    return any(isinstance(value, str) and uses.search(value) for _, value in walk(config))


def _check_kind(option: str, value: Any, before: Any) -> None:
    """Refuse a text for a number, and anything but true and false for one of these."""
    if isinstance(value, str) and value[:1] in MARKS:
        return
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
    if field_of(id_) is None or kind not in config:
        return False
    asks = (f"@{kind}.get('{name}'", f"@{id_}")
    return any(isinstance(value, str) and any(ask in value for ask in asks) for _, value in walk(config))
