"""Which network a bundle has, with which settings, and what may be attached to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medcalib.bundle.contract import CONTRACTS, MODULES, check_value, task_of
from medcalib.bundle.fragments import FragmentKind, fragment_path, read_yaml, walk
from medcalib.bundle.layout import CLASSIFICATION
from medcalib.errors import UserError, suggestion

__all__ = ["DEFAULT_NETWORKS", "check_network_fits", "default_network", "network_settings"]

DEFAULT_NETWORKS = {"segmentation": "segresnet_ds", CLASSIFICATION: "resnet50"}
"""Names of network fragments by task, for data fragments that name none."""

_MODULES_OF_NETWORK = re.compile(r"@network_modules::(\w+)")


def default_network(data: Mapping[str, Any]) -> str:
    """The network fragment that a data fragment gets where none is named."""
    task = task_of(data)
    return data.get("default_network") or DEFAULT_NETWORKS.get(task, task)


def network_settings(configs: Mapping[str, Any], sources: Mapping[str, Path]) -> dict[str, Any]:
    """Settings that the data fragment has for the network, by id; those for other networks are checked, too.

    Args:
        configs: the parsed configurations by file name, without suffix.
        sources: where each was read.

    Raises:
        UserError: a network does not exist, or lacks a setting, or cannot have its value.
    """
    path, folder = sources[FragmentKind.DATA], sources[FragmentKind.NETWORK].parent
    found: dict[str, Any] = {}
    data = configs[FragmentKind.DATA]["data"]
    of_default = {default_network(data): data["network"]} if "network" in data else {}
    for name, given in [*of_default.items(), *data.get("networks", {}).items()]:
        what = f"{path}: data::network{'' if given is data.get('network') else f's::{name}'}"
        try:
            settings = read_yaml(fragment_path(folder.parent, FragmentKind.NETWORK, str(name)))["network"]
        except UserError as error:
            raise UserError(f"{what}: {error}") from None
        if not isinstance(given, dict):
            raise UserError(f"{what} must be a mapping of settings of network/{name}.yaml, not {given!r}.")
        known = [key for key in settings if key not in CONTRACTS[FragmentKind.NETWORK]]
        for key, value in given.items():
            if key not in known:
                raise UserError(f"{what}::{key} is no setting of network/{name}.yaml{suggestion(str(key), known)}")
            check_value(f"{what}::{key}", f"network::{key}", value)
        if name == sources[FragmentKind.NETWORK].stem:
            found |= {f"network::{key}": value for key, value in given.items()}
    return found


def check_network_fits(configs: Mapping[str, Any], sources: Mapping[str, Path]) -> None:
    """Check that a network is made for the task of the data, and has the modules to which method and calibrator attach.

    Args:
        configs: the parsed configurations by file name, without suffix.
        sources: where each was read.

    Raises:
        UserError: it is not, or has not.
    """
    network, data = configs[FragmentKind.NETWORK], configs[FragmentKind.DATA]["data"]
    name, task = sources[FragmentKind.NETWORK].stem, task_of(data)
    if (made_for := task_of(network["network"])) != task:
        raise UserError(
            f"The network {name} is made for {made_for}, but the task of {sources[FragmentKind.DATA].stem} is {task}; "
            f"leave out --network, or choose another that --list shows."
        )
    for kind in (FragmentKind.METHOD, FragmentKind.CALIBRATOR):
        for _, value in walk(configs.get(kind, {})):
            for part in _MODULES_OF_NETWORK.findall(value) if isinstance(value, str) else ():
                if not network.get("network_modules", {}).get(part):
                    raise UserError(
                        f"{sources[kind].stem} attaches to the {part} of a network ({MODULES.get(part)}), which "
                        f"{sources[FragmentKind.NETWORK]} does not name under network_modules; choose another network "
                        f"or another {kind}."
                    )
