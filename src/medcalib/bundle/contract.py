"""What a fragment must and may contain."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import NoneType
from typing import Any

from medcalib.bundle.fragments import FragmentKind, suggestion
from medcalib.errors import UserError

__all__ = ["CONTRACTS", "Field", "Training", "check_fragment", "check_value", "lookup"]


class Training(StrEnum):
    """Whose weights a method predicts with."""

    OWN = "own"
    """Those of a training with this method."""
    DETERMINISTIC = "deterministic"
    """Those of the deterministic sibling, as they are."""
    FINE_TUNED = "fine_tuned"
    """Those of a training with this method that starts from the weights of the deterministic sibling."""


@dataclass(frozen=True)
class Field:
    """One id below a fragment's top-level key.

    Attributes:
        types: accepted types of the value; a text that starts with ``$`` or ``@`` is always accepted.
        meaning: one line for the documentation.
        required: whether a fragment must have it.
        choices: the only values there are; any when empty.
        least: the smallest number there is; any when None.
    """

    types: tuple[type, ...]
    meaning: str
    required: bool = True
    choices: tuple[str, ...] = ()
    least: int | None = None


CONTRACTS: dict[FragmentKind, dict[str, Field]] = {
    FragmentKind.DATA: {
        "dataset_dir": Field((str,), "folder of the download; `--data::dataset_dir=...` points elsewhere"),
        "channel_names": Field((list,), "one name per image channel"),
        "class_names": Field(
            (list,),
            "one name per class, in the order of the label values, background first; with `activation: sigmoid` one "
            "per label, each an output channel of its own, without background",
        ),
        "task": Field(
            (str,),
            "segmentation, if left out, or classification of whole images",
            required=False,
            choices=("segmentation", "classification"),
        ),
        "cases": Field((dict,), "`_target_` of a function that returns the split: training, validation, test cases"),
        "calibration_cases": Field(
            (list,),
            "ids of the cases on which calibrators are fitted, of the validation cases or of none of the split; all "
            "validation cases if left out",
            required=False,
        ),
        "label_map": Field((dict, NoneType), "label value on disk: class index, where they differ; null if nowhere"),
        "preprocessing": Field((list,), "deterministic transforms of image and label, after loading"),
        "augmentation": Field((list,), "random transforms of the training patches"),
        "patch_size": Field((list,), "voxels per axis of training patches and inference windows"),
        "tta_flip_axes": Field(
            (list,), "spatial axes that `tta` may flip, not those that swap organs; [] for none", required=False
        ),
        "batch_size": Field((int,), "training cases per step", least=1),
        "max_epochs": Field((int,), "epochs of one training", least=1),
        "network": Field((dict,), "size of the SegResNetDS: init_filters, blocks_down, dsdepth, resolution"),
        "fold": Field(
            (int,), "which fold is the test part, where the published work divides the data so", required=False
        ),
        "regions": Field((dict,), "overlapping regions, each a name and a list of class indices", required=False),
        "evaluate": Field(
            (str,),
            "what results are reported on, the classes (`labels`) or the `regions`",
            required=False,
            choices=("labels", "regions"),
        ),
        "metadata": Field((dict,), "title, task, description, modality, licence, source, reference of the data"),
    },
    FragmentKind.LOSS: {
        "function": Field(
            (dict,),
            "`_target_` of the loss: called with logits (B, C, ...) and labels (B, 1, ...), with `activation: sigmoid` "
            "labels (B, C, ...)",
        ),
        "description": Field((str,), "one line for lists of losses"),
        "reference": Field((str,), "paper, with its arXiv id or DOI", required=False),
    },
    FragmentKind.METHOD: {
        "description": Field((str,), "one line for lists of methods"),
        "training": Field(
            (str,),
            "whose weights it predicts with: `own`, also if left out, `deterministic` (the sibling's), `fine_tuned` "
            "(trained on from the sibling's)",
            required=False,
            choices=tuple(Training),
        ),
        "sampler": Field(
            (dict, NoneType),
            "`_target_` of what draws the members; null, also if left out: the plain prediction",
            required=False,
        ),
        "num_networks": Field((int,), "networks of an ensemble, each trained with its own seed", required=False),
        "reference": Field((str,), "paper, with its arXiv id or DOI", required=False),
    },
    FragmentKind.CALIBRATOR: {
        "description": Field((str,), "one line for lists of calibrators"),
        "module": Field((dict,), "`_target_` of the calibrator, a `torch.nn.Module` from logits to logits"),
        "calibrate": Field(
            (str,),
            "what is calibrated where a method has several members: their `mean`, or each of the `members`",
            choices=("mean", "members"),
        ),
        "options": Field((dict,), "arguments of `medcalib.calibrators.fit_calibrator`"),
        "reference": Field((str,), "paper, with its arXiv id or DOI", required=False),
    },
}

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
        check_value(f"{path}: {kind}::{name}", field, body[name])
    for name in body:
        if name not in fields:
            raise UserError(f"{path}: the id {kind}::{name} is unknown{suggestion(name, fields)}")
    if kind is FragmentKind.DATA:
        _check_data(path, body, content.get("activation") == "sigmoid")
    for key in content:
        if key != kind:
            _check_override(path, str(key), shared)


def check_value(what: str, field: Field, value: Any) -> None:
    """Check one value against the contract.

    Args:
        what: the id with its file or option, for messages.
        field: what the contract says of the id.
        value: as it was parsed.

    Raises:
        UserError: it is of another type, or none of the choices.
    """
    if field.choices and value not in field.choices:
        raise UserError(f"{what} is {value!r}, but must be one of {', '.join(field.choices)}.")
    if isinstance(value, str) and value[:1] in ("$", "@"):
        return
    if not isinstance(value, field.types) or isinstance(value, bool):
        wanted = " or ".join(t.__name__ for t in field.types)
        raise UserError(f"{what} must be a {wanted}, not {value!r} ({field.meaning}).")
    if field.least is not None and value < field.least:
        raise UserError(f"{what} must be at least {field.least}, not {value!r} ({field.meaning}).")


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
    names = body["class_names"]
    if isinstance(names, list) and (len(set(map(str, names))) != len(names) or len(names) < (1 if independent else 2)):
        raise UserError(
            f"{path}: data::class_names must hold at least one name, all different, since the activation is sigmoid."
            if independent
            else f"{path}: data::class_names must hold at least two different names, background first; a fragment of "
            f"independent labels, which has none, needs the id activation: sigmoid."
        )


def _check_override(path: Path, key: str, shared: dict[str, Any]) -> None:
    id_ = key.removeprefix("+")
    if lookup(shared, id_)[0]:
        return
    parent, _, leaf = id_.rpartition("::")
    found, value = lookup(shared, parent) if parent else (False, None)
    if found and isinstance(value, dict) and "_target_" in value:
        return  # one more argument of a component; whether it takes it is checked before a run
    siblings = value if found and isinstance(value, dict) else shared
    raise UserError(f"{path}: the override id {key} does not exist in the shared files{suggestion(leaf, siblings)}")


def lookup(config: Any, id_: str) -> tuple[bool, Any]:
    """Look an id up in a nested configuration.

    Returns:
        Whether it exists, and its value.

    Example:
        >>> lookup({"a": {"b": [1, 2]}}, "a::b::1")
        (True, 2)
    """
    value = config
    for key in id_.split("::"):
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            return False, None
    return True, value
