"""Check fragments against their contract."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medcalib.bundle.contract import CONTRACTS, MODULES, NAMED_PARTS, SHARED, TASKS, check_value, task_of
from medcalib.bundle.fragments import FragmentKind, lookup, names_as_written, walk
from medcalib.errors import UserError, suggestion

__all__ = ["check_fragment"]

# of tables of results, beside those of the classes
_COLUMNS = ("filename", "mean")

# transforms that know nothing but what is above 0 and what is not
_FOREGROUND_OR_NOT = ("RandCropByPosNegLabel", "FgBgToIndices")

_METADATA = ("title", "task", "description", "modality", "licence", "source")


def check_fragment(path: Path, kind: FragmentKind, content: dict[str, Any], shared: dict[str, Any]) -> None:
    """Check a parsed fragment against the contract of its kind.

    Args:
        path: where it was read, for messages.
        kind: the folder it lies in.
        content: the parsed fragment.
        shared: what `common.yaml`, `train.yaml` and `validation.yaml` define together; override ids must exist there.

    Raises:
        UserError: an id is missing, unknown, or of another type than the contract says.
    """
    if kind not in content:
        raise UserError(f"{path} must have the top-level key {str(kind)!r}, as every fragment in the folder {kind}/.")
    body = content[kind]
    if not isinstance(body, dict):
        raise UserError(f"{path}: the value of {kind} must be a mapping, not {type(body).__name__}.")
    fields = CONTRACTS[kind]
    for name, field in fields.items():
        if name not in body:
            if field.required:
                raise UserError(f"{path} lacks the id {kind}::{name} ({field.meaning}).")
            continue
        check_value(f"{path}: {kind}::{name}", f"{kind}::{name}", body[name])
    own = kind is FragmentKind.NETWORK
    if own:
        _check_network(path, content)
    for name in body:
        if name not in fields and not (own and _uses(content, f"network::{name}")):
            raise UserError(
                f"{path}: the setting network::{name} is used nowhere in the file; refer to it as @network::{name}."
                if own
                else f"{path}: the id {kind}::{name} is unknown{suggestion(name, fields)}"
            )
    if kind is FragmentKind.DATA:
        _check_data(path, body, content.get("activation") == "sigmoid")
        _check_ignored(path, body, content.get("activation") == "sigmoid")
    for key, value in content.items():
        if key != kind:
            _check_override(path, str(key), value, shared)
            check_value(f"{path}: {key}", str(key), value)
    for key in SHARED:
        found, value = lookup(content, key)
        if found and key.startswith(f"{kind}::"):
            check_value(f"{path}: {key}", key, value)


def _check_data(path: Path, body: dict[str, Any], independent: bool) -> None:
    for name in _METADATA:
        if name not in body["metadata"]:
            raise UserError(f"{path} lacks the id data::metadata::{name}.")
    for index, transform in enumerate(body["preprocessing"]):
        if (
            isinstance(transform, dict)
            and "label" in transform.get("keys", ())
            and not transform.get("allow_missing_keys")
        ):
            raise UserError(
                f"{path}: data::preprocessing::{index} acts on the label, so it needs allow_missing_keys: true; "
                f"images without label are predicted, too."
            )
    _check_names(path, {f"data::{n}": body[n] for n in ("class_names", "channel_names") if isinstance(body[n], list)})
    names = body["class_names"]
    if isinstance(names, list) and (len(set(map(str, names))) != len(names) or len(names) < (1 if independent else 2)):
        raise UserError(
            f"{path}: data::class_names must hold at least one name, all different, since the activation is sigmoid."
            if independent
            else f"{path}: data::class_names must hold at least two different names, background first; a fragment of "
            f"independent labels, which has none, needs the id activation: sigmoid."
        )


def _check_ignored(path: Path, body: dict[str, Any], independent: bool) -> None:
    ignored = body.get("ignore_label")
    if ignored is None:
        return
    where = f"{path}: data::ignore_label {ignored}"
    if task_of(body) != TASKS[0]:
        raise UserError(f"{where} is for voxels, but whole images are classified; leave those images out instead.")
    label_map, names = body["label_map"] or {}, body["class_names"]
    if isinstance(label_map, dict) and isinstance(names, list):
        is_index = not independent and ignored < len(names) and ignored not in label_map.values()
        if ignored in label_map or is_index:
            raise UserError(
                f"{where} stands for a class, by data::label_map or data::class_names; correct one of them, since a "
                f"voxel is either of a class or to be ignored."
            )
    for part in ("preprocessing", "augmentation"):
        for index, transform in enumerate(body[part]):
            target = str(transform.get("_target_")) if isinstance(transform, dict) else ""
            if target.rpartition(".")[2].startswith(_FOREGROUND_OR_NOT):
                raise UserError(
                    f"{path}: data::{part}::{index} takes voxels to be ignored for background, so it would place "
                    f"patches on them; with data::ignore_label use monai.transforms.RandCropByLabelClassesd instead."
                )


def _uses(content: dict[str, Any], id_: str) -> bool:
    uses = re.compile(rf"@{id_}\b")
    return any(isinstance(value, str) and uses.search(value) for _, value in walk(content))


def _check_network(path: Path, content: dict[str, Any]) -> None:
    if not isinstance(content.get("network_def"), dict) or "_target_" not in content["network_def"]:
        raise UserError(f"{path} lacks the id network_def, a mapping with the _target_ of the network.")
    modules = content.get("network_modules", {})
    for name in modules if isinstance(modules, dict) else ():
        if name not in MODULES:
            raise UserError(f"{path}: the id network_modules::{name} is unknown{suggestion(name, MODULES)}")


def _check_names(path: Path, names: Mapping[str, list[Any]]) -> None:
    for id_, values in names.items():
        for value, written in zip(values, names_as_written(path, id_), strict=True):
            if type(value) not in (str, int) or str(value) != written:
                raise UserError(
                    f"{path}: {id_} holds {written}, which YAML reads as {value!r}: write it in quotes, as '{written}'."
                )
            if id_ == "data::class_names" and written in _COLUMNS:
                raise UserError(
                    f"{path}: a class cannot be called {written}, since tables of results have this column."
                )


def _check_override(path: Path, key: str, given: Any, shared: dict[str, Any]) -> None:
    id_ = key.removeprefix("+")
    if lookup(shared, id_)[0]:
        return
    parent, _, leaf = id_.rpartition("::")
    found, value = lookup(shared, parent) if parent else (False, None)
    if found and isinstance(value, dict) and "_target_" in value:
        return  # one more argument of a component; whether it takes it is checked before a run
    if parent.endswith(NAMED_PARTS) and given is not None:
        return
    siblings = value if found and isinstance(value, dict) else shared
    raise UserError(f"{path}: the override id {key} does not exist in the shared files{suggestion(leaf, siblings)}")
