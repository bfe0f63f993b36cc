"""What a fragment must and may contain."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import NoneType
from typing import Any

from medcalib.bundle.fragments import FragmentKind, names_as_written, walk
from medcalib.errors import UserError, suggestion

__all__ = [
    "CONTRACTS",
    "MODULES",
    "SHARED",
    "TASKS",
    "Field",
    "Training",
    "check_fragment",
    "check_value",
    "field_of",
    "lookup",
]


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
    """What may stand at one id.

    Attributes:
        types: accepted types of the value; a text that starts with ``$`` or ``@`` is always accepted.
        meaning: one line for the documentation.
        required: whether a fragment must have it.
        choices: the only values there are; any when empty.
        least: the smallest number there is; any when None.
        most: the largest number there is; any when None.
        above: what every number is above.
        below: what every number is below.
        items: what may stand in the list; anything when None.
        texts: whether the entries of the list are names, which stay as they are typed, such as 007.
    """

    types: tuple[type, ...]
    meaning: str
    required: bool = True
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    items: Field | None = None
    texts: bool = False


TASKS = ("segmentation", "classification")
"""What a bundle is for."""

_NUMBER = (int, float)
_WORDS = {bool: "true or false", int: "whole number", str: "text", NoneType: "null", dict: "mapping", list: "list"}

CONTRACTS: dict[FragmentKind, dict[str, Field]] = {
    FragmentKind.NETWORK: {
        "description": Field((str,), "one line for lists of networks"),
        "task": Field(
            (str,),
            "what it is for: segmentation, if left out, or classification of whole images",
            required=False,
            choices=TASKS,
        ),
        "patch_multiple": Field(
            (list,), "numbers of which the axes of patches must be multiples; left out: any size", required=False
        ),
        "reference": Field((str,), "paper, with its arXiv id or DOI", required=False),
    },
    FragmentKind.DATA: {
        "dataset_dir": Field((str,), "folder of the download; `--data::dataset_dir=...` points elsewhere"),
        "channel_names": Field((list,), "one name per image channel", texts=True),
        "class_names": Field(
            (list,),
            "one name per class, in the order of the label values, background first; with `activation: sigmoid` one "
            "per label, each an output channel of its own, without background",
            texts=True,
        ),
        "task": Field(
            (str,),
            "segmentation, if left out, or classification of whole images",
            required=False,
            choices=TASKS,
        ),
        "cases": Field((dict,), "`_target_` of a function that returns the split: training, validation, test cases"),
        "calibration_cases": Field(
            (list,),
            "ids of the cases on which calibrators are fitted, of the validation cases or of none of the split; all "
            "validation cases if left out",
            required=False,
            texts=True,
        ),
        "label_map": Field((dict, NoneType), "label value on disk: class index, where they differ; null if nowhere"),
        "preprocessing": Field((list,), "deterministic transforms of image and label, after loading"),
        "augmentation": Field((list,), "random transforms of the training patches"),
        "patch_size": Field(
            (list,),
            "voxels per axis of training patches and inference windows",
            items=Field((int,), "voxels along one axis", least=1),
        ),
        "tta_flip_axes": Field(
            (list,), "spatial axes that `tta` may flip, not those that swap organs; [] for none", required=False
        ),
        "batch_size": Field((int,), "training cases per step", least=1),
        "max_epochs": Field((int,), "epochs of one training", least=1),
        "default_network": Field(
            (str,),
            "network fragment that is taken where none is named; `segresnet_ds` if left out, `resnet50` of images",
            required=False,
        ),
        "network": Field((dict,), "settings of the default network that suit these data", required=False),
        "networks": Field(
            (dict,), "settings of network fragments that suit these data, by the name of the fragment", required=False
        ),
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
        "network_returns": Field(
            (str,),
            "`one` prediction, also if left out, or `several`, one for each network or head",
            required=False,
            choices=("one", "several"),
        ),
        "num_networks": Field(
            (int,), "networks of an ensemble, each trained with its own seed", required=False, least=1
        ),
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
        "acts_on": Field(
            (str,),
            "the `logits`, also if left out, or the `network`, which must return one prediction then",
            required=False,
            choices=("logits", "network"),
        ),
        "options": Field((dict,), "arguments of `medcalib.calibrators.fit_calibrator`"),
        "reference": Field((str,), "paper, with its arXiv id or DOI", required=False),
    },
}

SHARED: dict[str, Field] = {
    "num_bins": Field((int,), "bins of the calibration errors", least=1),
    "include_background": Field((bool,), "whether class 0 counts in means over classes"),
    "limit_cases": Field((int, NoneType), "cases of every part that are used, null for all", least=1),
    "num_workers": Field((int,), "processes that load data", least=0),
    "max_epochs": Field((int,), "epochs of one training", least=1),
    "val_interval": Field((int,), "epochs from one validation to the next", least=1),
    "cycle_epochs": Field((int,), "epochs of one cycle of the learning rate", least=1),
    "snapshot_epochs": Field((list,), "epochs after which weights are kept", items=Field((int,), "an epoch", least=1)),
    "device": Field((str,), "cpu, cuda, or one of several GPUs such as cuda:1"),
    "amp": Field((bool,), "automatic mixed precision"),
    "activation": Field((str,), "how logits become probabilities", choices=("softmax", "sigmoid")),
    "calibration_cases": Field((list, NoneType), "ids of the cases on which calibrators are fitted", texts=True),
    "inferer::overlap": Field(_NUMBER, "part of a window that the next one covers, too", least=0, below=1),
    "inferer::sw_batch_size": Field((int,), "windows that are predicted at a time", least=1),
    "inferer::mode": Field((str,), "how windows are blended", choices=("gaussian", "constant")),
    "train::optimizer::lr": Field(_NUMBER, "learning rate", above=0),
    "train::optimizer::weight_decay": Field(_NUMBER, "weight decay", least=0),
    "train::dataset::cache_rate": Field(_NUMBER, "part of the cases that is kept in memory", least=0, most=1),
    "validate::dataset::cache_rate": Field(_NUMBER, "part of the cases that is kept in memory", least=0, most=1),
    "method_network::p": Field(_NUMBER, "probability of dropout", least=0, below=1),
    "method::sampler::num_members": Field((int,), "members of a prediction", least=1),
    "method::sampler::skip_heads": Field((int,), "first heads that take no part in the prediction", least=0),
    "evaluation::space": Field((str,), "grid of the evaluation", choices=("resampled", "original")),
    "evaluation::num_case_diagrams": Field((int, NoneType), "cases of which a diagram is drawn, null for all", least=0),
    "quality_control::poor_below": Field(_NUMBER, "a case whose Dice is below this is poor", least=0, most=1),
    "quality_control::max_poor": Field(_NUMBER, "part of all cases that may be poor and not flagged", least=0, most=1),
    "quality_control::calibrate_threshold": Field((bool,), "whether the threshold is found on the calibration cases"),
    "overlays::num_cases": Field((int,), "cases of which a figure is drawn", least=0),
    "overlays::cases": Field((list, NoneType), "ids of the test cases of which a figure is drawn", texts=True),
    "calibrator::options::max_voxels": Field((int, NoneType), "voxels that are drawn, null for all", least=1),
    "network::init_filters": Field((int,), "channels of the first level", least=1),
    "network::blocks_down": Field(
        (list,), "blocks of every level", items=Field((int,), "blocks of one level", least=1)
    ),
    "network::dsdepth": Field((int,), "levels whose output is compared with the label", least=1),
    "network::features": Field((list,), "channels of every level", items=Field((int,), "channels", least=1)),
    "network::filters": Field((list,), "channels of every level", items=Field((int,), "channels", least=1)),
    "network::feature_size": Field((int,), "channels of the first level", least=1),
}
"""Ids besides the fragments' own that a mistake of a beginner may reach, whichever file they stand in."""

MODULES: dict[str, str] = {
    "blocks": "convolution blocks of all levels, which return one tensor each",
    "deepest_blocks": "those of the two deepest levels",
    "decoder_blocks": "those after the deepest level; of a classifier those of the head",
    "heads": "the last modules, which return logits",
    "layers": "those whose features (B, channels, ...) get an output head of their own",
    "last_layers": "the part at the end that a calibrator may train on",
}
"""What `network_modules` of a network fragment may name."""

# of tables of results, beside those of the classes
_COLUMNS = ("filename", "mean")

# ids of mappings of parts by name, to which a fragment may add
_NAMED_PARTS = ("handlers", "additional_metrics")

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
    for key, value in content.items():
        if key != kind:
            _check_override(path, str(key), value, shared)
            if (field := SHARED.get(str(key))) is not None:
                check_value(f"{path}: {key}", field, value)
    for key, field in SHARED.items():
        found, value = lookup(content, key)
        if found and key.startswith(f"{kind}::"):
            check_value(f"{path}: {key}", field, value)


def field_of(id_: str) -> Field | None:
    """What the contracts say of an id of a configuration; None if they do not name it.

    Example:
        >>> field_of("num_bins").least, field_of("data::batch_size").least, field_of("no::such")
        (1, 1, None)
    """
    kind, _, name = id_.partition("::")
    return SHARED.get(id_) or CONTRACTS.get(kind, {}).get(name)


def check_value(what: str, field: Field, value: Any) -> None:
    """Check one value against the contract.

    Args:
        what: the id with its file or option, for messages.
        field: what the contract says of the id.
        value: as it was parsed.

    Raises:
        UserError: it is of another type, none of the choices, or a number that is too small or too large.
    """
    if field.choices and value not in field.choices:
        raise UserError(f"{what} is {value!r}, but must be one of {', '.join(field.choices)}.")
    if isinstance(value, str) and value[:1] in ("$", "@", "%"):
        return
    if not isinstance(value, field.types) or (isinstance(value, bool) and bool not in field.types):
        raise UserError(f"{what} must be {_wanted(field.types)}, not {value!r} ({field.meaning}).")
    limits = {"at least": field.least, "at most": field.most, "above": field.above, "below": field.below}
    for word, limit in limits.items():
        if limit is not None and value is not None and not _keeps(word, value, limit):
            raise UserError(f"{what} must be {word} {limit}, not {value!r} ({field.meaning}).")
    if field.items is not None:
        for item in value or ():
            check_value(f"an entry of {what}", field.items, item)


def _keeps(word: str, value: float, limit: float) -> bool:
    """Whether a number keeps to a limit; NaN keeps to none."""
    return {
        "at least": value >= limit,
        "at most": value <= limit,
        "above": value > limit,
        "below": value < limit,
    }[word]


def _wanted(types: tuple[type, ...]) -> str:
    if types == _NUMBER:
        return "a number"
    return " or ".join(_WORDS[one] if one in (bool, NoneType) else f"a {_WORDS[one]}" for one in types)


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
    if parent.endswith(_NAMED_PARTS) and given is not None:
        return
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
