"""Trainings of other bundles that a bundle builds on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from medcalib.bundle.checkpoint_paths import member_seeds
from medcalib.bundle.compose import read_metadata
from medcalib.bundle.contract import lookup
from medcalib.bundle.fragments import FragmentKind
from medcalib.bundle.layout import CONFIGS, METADATA, Mode, config_files
from medcalib.bundle.stages import FIRST_STAGE, check_first_stage, first_stage, own_stage, shared_by_stages
from medcalib.errors import UserError

__all__ = ["SiblingTraining", "check_chain", "fits_calibrator", "trainings_before", "trains_network"]


# a bundle's folder, seed, weights and method are its own affair
_OWN_AFFAIRS = {"bundle_root", "edited", "allow_unfinished", "seed", "method", "calibrator"}
_OWN_AFFAIRS |= {"output_dir", "models_dir", "weights_dir", "checkpoint", "checkpoints"}


class SiblingTraining(NamedTuple):
    """A training of another bundle that must be finished first.

    Attributes:
        bundle: its folder.
        seed: seed of the training.
        overrides: those of the user's overrides that this bundle knows.
    """

    bundle: Path
    seed: int
    overrides: dict[str, Any]


def trains_network(bundle: Path) -> bool:
    """Whether ``--mode train`` trains a network of this bundle's own, instead of using that of a sibling."""
    return read_metadata(bundle)["medcalib"]["weights_bundle"] is None


def fits_calibrator(bundle: Path) -> bool:
    """Whether ``--mode train`` fits a calibrator."""
    return (bundle / CONFIGS / f"{FragmentKind.CALIBRATOR}.yaml").exists()


def trainings_before(bundle: Path, settings: Mapping[str, Any], debug: bool) -> list[SiblingTraining]:
    """The trainings whose weights this bundle uses or starts from, in the order in which they are to be run.

    Args:
        bundle: folder of the bundle.
        settings: values by configuration id that the user gave, seed included.
        debug: whether this is a run of seconds.

    Raises:
        UserError: a sibling was removed, or an override does not exist in this bundle or has a value that cannot be.
    """
    own = read_metadata(bundle)["medcalib"]
    name = own["weights_bundle"] or own["initial_weights_bundle"]
    if name is None:
        return []
    check_chain(bundle)
    sibling = bundle.resolve().parent / name
    if not (sibling / CONFIGS).is_dir():
        fragments = read_metadata(bundle)["medcalib"]["fragments"]
        raise UserError(
            f"{bundle.name} uses the weights of {name}, which is not there; make it again: medcalib generate "
            f"--data {fragments['data']} --loss {fragments['loss']} --method {fragments['method']}"
            + (f" --network {fragments['network']}" if "network" in fragments else "")
        )
    config = _config(bundle, settings, debug)
    seed, (given, num_networks) = int(config["seed"]), lookup(config, "method::num_networks")
    num_networks = num_networks if given else 1
    check_first_stage(bundle, settings, debug)
    if own["weights_bundle"] is None:
        overrides = _known_overrides(sibling, shared_by_stages(settings), debug) | first_stage(settings)
    else:
        stage = {id_: value for id_, value in settings.items() if id_.startswith(FIRST_STAGE)}
        overrides = _known_overrides(sibling, own_stage(settings), debug) | stage
    if read_metadata(sibling)["medcalib"]["weights_bundle"] is not None:
        num_networks = 1  # the sibling sees to its own networks
    return [SiblingTraining(sibling, seed, overrides) for seed in member_seeds(seed, num_networks)]


def check_chain(bundle: Path) -> None:
    """Refuse a bundle whose weights are those of another that in the end uses this bundle's.

    Raises:
        UserError: the metadata of one of them lead back to a bundle before it, or are damaged.
    """
    seen = [bundle.resolve().name]
    while (folder := bundle.resolve().parent / seen[-1] / CONFIGS).is_dir():
        own = read_metadata(folder.parent)["medcalib"]
        name = own["weights_bundle"] or own["initial_weights_bundle"]
        if name in seen:
            raise UserError(
                f"{folder / METADATA} names {name} as the bundle whose weights are used, which leads back to "
                f"{'itself' if name == seen[-1] else name}; generate the bundle again in another folder."
            )
        if name is None:
            return
        seen.append(name)


def _config(bundle: Path, settings: Mapping[str, Any], debug: bool) -> dict[str, Any]:
    from medcalib.bundle.resolve import check_overrides, merged_config

    config = merged_config(config_files(bundle / CONFIGS, Mode.TRAIN, debug))
    check_overrides(config, own_stage(settings))
    for id_ in ("seed", "method::num_networks"):
        if id_ in settings:
            parent, _, leaf = id_.rpartition("::")
            (config[parent] if parent else config)[leaf] = settings[id_]
    return config


def _known_overrides(sibling: Path, settings: Mapping[str, Any], debug: bool) -> dict[str, Any]:
    from medcalib.bundle.resolve import check_overrides, merged_config

    config = merged_config(config_files(sibling / CONFIGS, Mode.TRAIN, debug))
    kept = {}
    for id_, value in settings.items():
        if id_.partition("::")[0] in _OWN_AFFAIRS:
            continue
        try:
            check_overrides(config, {id_: value})
        except UserError:
            continue
        kept[id_] = value
    return kept
