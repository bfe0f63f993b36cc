"""The configuration of a bundle that travels: one file with relative paths, for prediction with trained weights."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from monai.bundle import ReferenceResolver

from medcalib.bundle.fragments import walk
from medcalib.errors import UserError

__all__ = ["MODEL", "PortableConfig", "portable_config", "portable_images", "prepared_network"]

MODEL = "models/model.pt"
"""Where the weights lie in an exported bundle."""

# what other programs look for in an inference.yaml has another meaning there than in a bundle that is trained: the
# network with calibrator and activation, and the inferer that does all
_RENAMED = {"network_def": "architecture", "inferer": "windows", "sampling_inferer": "inferer"}
_REFERENCE = re.compile(rf"([@%])({'|'.join(sorted(_RENAMED, key=len, reverse=True))})(?!\w)")
# an expression that asks a group for one key would make all of the group, and look for the dataset
_ASKED_KEY = re.compile(r"@(\w+)\.get\('(\w+)'\)")
# what MONAI Label takes for postprocessing if it is there; its prediction is one label map, not probabilities
_OF_MONAI_LABEL = "post_transforms"
# what is there although nothing refers to it
_ROOTS = (
    "imports", "bundle_root", "seed", "device", "dataset_dir", "output_dir", "network_def", "inferer",
    "sampling_inferer", "preprocessing", "postprocessing", _OF_MONAI_LABEL, "dataset", "dataloader", "evaluator",
    "key_metric", "initialize", "run", "finalize",
)  # fmt: skip
# what applies a guarantee, which is not exported: group and name of each part
_OF_GUARANTEE = (("handlers", "guarantee"), ("provenance", "guarantee"), ("weights_check", "guarantee_file"))
_APPLIES_GUARANTEE = "@to_guarantee"
# what only a training asks of the data
_OF_TRAINING = ("augmentation", "batch_size", "max_epochs", "network", "networks", "default_network")

PortableConfig = dict[str, Any]


def prepared_network(config: Mapping[str, Any]) -> bool:
    """Whether the calibrator changes the network, so that nothing is left to calibrate once its weights are stored."""
    return config.get("calibrator", {}).get("acts_on") == "network"


def portable_config(
    config: Mapping[str, Any],
    places: Mapping[str, Any],
    num_networks: int | None,
    calibrator: Mapping[str, Any] | None,
    used_by: Iterable[Mapping[str, Any]] = (),
) -> PortableConfig:
    """The configuration of a prediction, changed so that it needs no other file and no other bundle.

    Args:
        config: merged configuration of a prediction, with the user's overrides.
        places: where the bundle as it was generated looks for datasets, ``data_dir``, and for its own, ``dataset_dir``.
        num_networks: number of networks of an ensemble; None of a single network.
        calibrator: what provenance says of the fitted calibrator; None without one.
        used_by: configurations that are merged later, whose references must be kept.

    Returns:
        The configuration, with what it needs only.

    Raises:
        UserError: it names a file or folder of this machine.
    """
    made = copy.deepcopy(dict(config))
    place = "$@bundle_root + "
    made |= {
        "bundle_root": ".",
        "debug": False,
        "allow_unfinished": False,
        "output_dir": f"{place}'/output'",
        "models_dir": f"{place}'/models'",
        "weights_dir": "@models_dir",
        "checkpoint": f"{place}'/{MODEL}'",
        "checkpoints": "$[@checkpoint]",
        **places,
        "device": config["device"] if str(config["device"])[:1] == "$" else _DEVICE,
    }
    made["data"]["dataset_dir"] = "@dataset_dir"
    if config["debug"]:
        # elsewhere it predicts as any other
        made["limit_cases"] = None
    for name in _OF_TRAINING:
        made["data"].pop(name, None)
    for group, name in _OF_GUARANTEE:
        made[group].pop(name, None)
    steps = made["postprocessing"]
    if isinstance(steps, dict) and _APPLIES_GUARANTEE in steps.get("transforms", []):
        steps["transforms"] = [step for step in steps["transforms"] if step != _APPLIES_GUARANTEE]
    # that the training is finished was seen when the bundle was exported
    made["weights_check"]["allow_unfinished"] = True
    of_sampler = copy.deepcopy(made["sampling_inferer"])
    if prepared_network(made):
        for name in ("calibrator", "fitted_calibrator"):
            made.pop(name, None)
        made |= {"predicting_network": "@trained_network", "calibrator_file": None}
        made["calibrate"]["calibrator"] = made["sampling_inferer"]["member_calibrator"] = None
        made["provenance"]["calibrator"] = dict(calibrator or {})
    made["trained_network"] = {
        "_target_": "medcalib.networks.load_weights",
        "network": _several("@placed_network", num_networks),
        "path": "@checkpoint",
    }
    inside = {
        "_target_": "medcalib.inferers.PortableNetwork",
        "network": _several("@method_network", num_networks),
        "sampler": of_sampler.get("sampler"),
        "activation": "@activation",
    }
    if "calibrator" in made:
        inside["calibrator"] = {
            "_target_": "medcalib.calibrators.load_calibrator",
            "path": "@calibrator_file",
            "calibrator": "@calibrator::module",
        }
        inside["calibrate"] = "@calibrator::calibrate"
    if "to_segmentation" in made:
        as_prediction = {"_target_": "monai.transforms.Lambdad", "keys": "seg", "func": "$lambda seg: seg"}
        made[_OF_MONAI_LABEL] = {
            "_target_": "monai.transforms.Compose",
            "transforms": ["@postprocessing", as_prediction | {"overwrite": "pred"}],
        }
    made = _renamed(made)
    made["network_def"] = inside
    made = _changed(made, lambda text: _ASKED_KEY.sub(lambda match: _direct(match, made), text))
    made = _pruned(made, [_renamed(other) for other in used_by])
    for id_, value in walk(made):
        if isinstance(value, str) and value.startswith(("/", "~", "..")):
            raise UserError(
                f"{id_} is {value}, which is there on this machine only; leave the option out, or give a relative path."
            )
    return made


def portable_images(config: Mapping[str, Any]) -> PortableConfig:
    """The overlay that predicts images of no dataset, for an exported bundle."""
    made = _renamed(config)
    made["seed_dir"] = "@bundle_root"
    return made


_DEVICE = "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')"


def _several(network: str, num_networks: int | None) -> Any:
    if num_networks is None:
        return network
    return {"_target_": "medcalib.networks.NetworkEnsemble", "network": network, "num_members": num_networks}


def _renamed(config: Mapping[str, Any]) -> dict[str, Any]:
    renamed = {_renamed_id(id_): value for id_, value in config.items()}
    return _changed(renamed, lambda text: _REFERENCE.sub(lambda match: match[1] + _RENAMED[match[2]], text))


def _renamed_id(id_: str) -> str:
    sign = "+" if id_.startswith("+") else ""
    first, colons, rest = id_.removeprefix("+").partition("::")
    return f"{sign}{_RENAMED.get(first, first)}{colons}{rest}"


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    """The same with every expression and reference changed."""
    if isinstance(value, dict):
        return {key: _changed(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_changed(item, change) for item in value]
    return change(value) if isinstance(value, str) and value[:1] in ("$", "@", "%") else value


def _direct(match: re.Match[str], config: Mapping[str, Any]) -> str:
    group, key = match.groups()
    return f"@{group}::{key}" if key in config[group] else "None"


def _pruned(config: Mapping[str, Any], used_by: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What is referred to, in the order in which it was, the names that other programs look for first."""
    roots = [_renamed_id(root) for root in _ROOTS] + ["network_def"]
    waiting = [root for root in roots if root in config]
    for other in used_by:
        waiting += [id_.removeprefix("+").partition("::")[0] for id_ in other]
        waiting += _referred(other)
    kept: set[str] = set()
    while waiting:
        id_ = waiting.pop()
        if id_ not in kept and id_ in config:
            kept.add(id_)
            waiting += _referred(config[id_])
    return {id_: value for id_, value in config.items() if id_ in kept}


def _referred(config: Any) -> Iterator[str]:
    """The first part of every id that is referred to."""
    for _, value in walk(config):
        if isinstance(value, str) and value[:1] in ("$", "@", "%"):
            for reference in ReferenceResolver.match_refs_pattern(
                value.replace("%", "@") if value[0] == "%" else value
            ):
                yield reference.partition("::")[0]
