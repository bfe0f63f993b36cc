"""What a fragment must and may contain."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import NoneType
from typing import Any

from medcalib.bundle.fragments import FragmentKind
from medcalib.errors import UserError

__all__ = [
    "CONTRACTS",
    "MARKS",
    "MODULES",
    "NAMED_PARTS",
    "SHARED",
    "TASKS",
    "Field",
    "Training",
    "check_value",
    "field_of",
    "task_of",
]

MARKS = ("$", "@", "%")
"""How a text begins that stands for another value: an expression, a reference, a copy."""


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
        percent: whether a text such as 10% may stand there, too.
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
    percent: bool = False


TASKS = ("segmentation", "classification")
"""What a bundle is for; the first, if its data fragment does not say."""

_NUMBER = (int, float)
_WORDS = {bool: "true or false", int: "whole number", str: "text", NoneType: "null", dict: "mapping", list: "list"}

_PERCENT = re.compile(r"\d+(\.\d+)?%")
_POOR_BELOW = Field(
    _NUMBER,
    "a case whose Dice is below this is poor; a share such as 10%, the default, is the quantile of the Dice of the "
    "calibration cases",
    least=0,
    most=1,
    percent=True,
)

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
        "ignore_label": Field(
            (int, NoneType),
            "label value on disk of voxels whose truth is unknown, which count nowhere; null, also if left out: none",
            required=False,
            least=0,
        ),
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
            (int,),
            "which fold is the test part, or of data with other test cases the validation part, where others have "
            "divided the data so",
            required=False,
        ),
        "num_folds": Field(
            (int,), "how many folds these data have, for `--fold all`; 5 if left out", required=False, least=2
        ),
        "regions": Field((dict,), "overlapping regions, each a name and a list of class indices", required=False),
        "evaluate": Field(
            (str,),
            "what results are reported on, the classes (`labels`) or the `regions`",
            required=False,
            choices=("labels", "regions"),
        ),
        "surface_tolerance_mm": Field(
            (*_NUMBER, dict, list, NoneType),
            "mm by which surfaces may be apart and still agree, for the surface Dice of an evaluation: one number, or "
            "one for each class by its name; no surface Dice if left out",
            required=False,
        ),
        "boundary_band_mm": Field(
            (*_NUMBER, NoneType),
            "mm from the true boundary of a class within which voxels lie whose calibration is reported beside that of "
            "all; nothing of it if left out",
            required=False,
            above=0,
        ),
        "poor_below": replace(_POOR_BELOW, required=False),
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
    FragmentKind.GUARANTEE: {
        "description": Field((str,), "one line for lists of guarantees"),
        "task": Field(
            (str,),
            "what it is for: segmentation, if left out, or classification of whole images",
            required=False,
            choices=TASKS,
        ),
        "parts": Field((dict,), "`_target_` of each promise, a `medcalib.guarantees.Guarantee`, by a name"),
        "alpha": Field(
            _NUMBER, "loss that is allowed, of which the promise says what it is", required=False, above=0, below=1
        ),
        "delta": Field(_NUMBER, "probability with which the promise may fail", required=False, above=0, below=1),
        "max_poor": Field(_NUMBER, "share of the cases that pass which may be poor", required=False, above=0, below=1),
        "scores": Field(
            (list, NoneType),
            "uncertainty scores among which one is chosen on the calibration cases; null for the default",
            required=False,
            texts=True,
        ),
        "poor_below": Field(_NUMBER, "a case whose Dice is below this is poor", required=False, least=0, most=1),
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
    "guarantee_cases": Field(
        (str,),
        "calibration cases on which the guarantee is fitted where there is a calibrator, too: the `half` that this is "
        "not fitted on, or `all`, with which the promise is approximate",
        choices=("half", "all"),
    ),
    "guarantee_group_by": Field(
        (str, NoneType),
        "attribute of the cases, such as vendor, for each value of which the promise holds; null for none",
    ),
    "guarantee_min_group_cases": Field((int,), "cases from which on a group gets values of its own", least=1),
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
    "quality_control::poor_below": _POOR_BELOW,
    "quality_control::max_poor": Field(_NUMBER, "part of all cases that may be poor and not flagged", least=0, most=1),
    "quality_control::calibrate_threshold": Field((bool,), "whether the threshold is found on the calibration cases"),
    "overlays::num_cases": Field((int,), "cases of which a figure is drawn", least=0),
    "overlays::cases": Field((list, NoneType), "ids of the test cases of which a figure is drawn", texts=True),
    "calibrator::options::max_voxels": Field((int, NoneType), "voxels that are drawn, null for all", least=1),
    "key_metric": Field((dict, NoneType), "the first metric that is reported, by its name; null for none"),
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

NAMED_PARTS = ("handlers", "additional_metrics")
"""How ids end of mappings of parts by name, to which fragments may add, and of which null switches one off."""


def task_of(fragment: Mapping[str, Any]) -> str:
    """What a data or network fragment is for.

    Example:
        >>> task_of({}), task_of({"task": "classification"})
        ('segmentation', 'classification')
    """
    return fragment.get("task") or TASKS[0]


def field_of(id_: str) -> Field | None:
    """What the contracts say of an id of a configuration; None if they do not name it.

    Example:
        >>> field_of("num_bins").least, field_of("data::batch_size").least, field_of("no::such")
        (1, 1, None)
    """
    kind, _, name = id_.partition("::")
    fields = CONTRACTS[FragmentKind(kind)] if kind in CONTRACTS else {}
    return SHARED.get(id_) or fields.get(name)


def check_value(what: str, id_: str, value: Any) -> None:
    """Check the value of an id against the contracts; anything goes where they do not name the id.

    Args:
        what: the id with its file or option, for messages.
        id_: the id.
        value: as it was parsed.

    Raises:
        UserError: it is of another type, none of the choices, or a number that is too small or too large.
    """
    if (field := field_of(id_)) is not None:
        _check_field(what, field, value)


def _check_field(what: str, field: Field, value: Any) -> None:
    if field.choices and value not in field.choices:
        raise UserError(f"{what} is {value!r}, but must be one of {', '.join(field.choices)}.")
    if isinstance(value, str) and value[:1] in MARKS:
        return
    if field.percent and isinstance(value, str):
        if _PERCENT.fullmatch(value) and 0 < float(value[:-1]) < 100:
            return
        raise UserError(f"{what} must be a number or a share such as 10%, not {value!r} ({field.meaning}).")
    fits = isinstance(value, field.types) and (bool in field.types or not isinstance(value, bool))
    if not fits:
        raise UserError(f"{what} must be {_wanted(field.types)}, not {value!r} ({field.meaning}).")
    for word, keeps, limit in (
        ("at least", operator.ge, field.least),
        ("at most", operator.le, field.most),
        ("above", operator.gt, field.above),
        ("below", operator.lt, field.below),
    ):
        # NaN keeps to none
        if limit is not None and value is not None and not keeps(value, limit):
            raise UserError(f"{what} must be {word} {limit}, not {value!r} ({field.meaning}).")
    if field.items is not None:
        for item in value or ():
            _check_field(f"an entry of {what}", field.items, item)


def _wanted(types: tuple[type, ...]) -> str:
    words = [_WORDS[one] if one in (bool, NoneType) else f"a {_WORDS[one]}" for one in types if one is not float]
    if float in types:
        words[0] = "a number"
    return " or ".join(words)
