"""Settings of a training in two stages, of which the first is that of another bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medcalib.bundle.compose import read_metadata
from medcalib.bundle.layout import CONFIGS, Mode, config_files
from medcalib.errors import UserError

__all__ = ["FIRST_STAGE", "check_first_stage", "concerns_training", "first_stage", "own_stage", "shared_by_stages"]

FIRST_STAGE = "first_stage::"
"""How ids begin that are meant for the training from whose weights another one starts."""

# how a stage is trained; all else, such as data, network and loss, is that of both
_COURSE = ("train", "validate", "max_epochs", "val_interval", "cycle_epochs", "snapshot_epochs")


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


def concerns_training(id_: str) -> bool:
    """Whether an id says how a network is trained, so that it has no meaning for what is done with the weights.

    Example:
        >>> concerns_training("train::optimizer::lr"), concerns_training("num_bins")
        (True, False)
    """
    return id_.partition("::")[0] in (*_COURSE, "loss") or id_.startswith(("data::augmentation", "data::batch_size"))


def shared_by_stages(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Those overrides that both stages have, since they do not say how one of them is trained.

    Example:
        >>> shared_by_stages({"train::optimizer::lr": 0.001, "data::dataset_dir": "/data/x"})
        {'data::dataset_dir': '/data/x'}
    """
    return {id_: value for id_, value in own_stage(overrides).items() if id_.partition("::")[0] not in _COURSE}


def check_first_stage(bundle: Path, overrides: Mapping[str, Any], debug: bool) -> None:
    """Check overrides that are meant for the first stage alone.

    Raises:
        UserError: the bundle's training has one stage only, or an id does not exist in the first.
    """
    from medcalib.bundle.resolve import check_overrides, merged_config

    given = first_stage(overrides)
    if not given:
        return
    stage = _first_stage_bundle(bundle)
    if stage is None:
        id_ = next(iter(given))
        raise UserError(
            f"--{FIRST_STAGE}{id_}: the training of {bundle.name} has one stage, so leave out the prefix: --{id_}"
        )
    if not (stage / CONFIGS).is_dir():
        return  # that it is not there is said where it is needed
    config = merged_config(config_files(stage / CONFIGS, Mode.TRAIN, debug))
    for id_, value in given.items():
        try:
            check_overrides(config, {id_: value})
        except UserError as error:
            raise UserError(str(error).replace(f"--{id_}", f"--{FIRST_STAGE}{id_}", 1)) from None


def _first_stage_bundle(bundle: Path) -> Path | None:
    own = read_metadata(bundle)["medcalib"]
    folder = bundle.resolve().parent
    if own["initial_weights_bundle"] is not None:
        return folder / own["initial_weights_bundle"]
    weights = own["weights_bundle"]
    if weights is None or weights == bundle.name or not (folder / weights / CONFIGS).is_dir():
        return None
    return _first_stage_bundle(folder / weights)
