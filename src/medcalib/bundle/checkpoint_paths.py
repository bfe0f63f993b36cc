"""Find the weights that a bundle uses: its own, or those of a sibling that was trained for it."""

from __future__ import annotations

from pathlib import Path

from medcalib.bundle.bundle_metadata import read_metadata
from medcalib.seeds import derived_seed

__all__ = ["initial_checkpoint", "member_checkpoints", "member_seeds", "output_name", "weights_dir"]

BEST_MODEL = "model.pt"


def output_name(seed: int, debug: bool = False) -> str:
    """Name of the folder that holds everything a bundle writes with one seed.

    Example:
        >>> output_name(7), output_name(7, debug=True)
        ('seed_7', 'seed_7_debug')
    """
    return f"seed_{seed}{'_debug' if debug else ''}"


def weights_dir(bundle_root: str | Path, models_dir: str | Path, seed: int, debug: bool = False) -> str:
    """Folder of the weights that a bundle predicts with.

    Args:
        bundle_root: folder of the bundle.
        models_dir: where a training of this bundle puts its weights.
        seed: seed of the run.
        debug: whether this is a run of seconds.

    Raises:
        UserError: the folder is no bundle.
    """
    sibling = read_metadata(Path(bundle_root))["medcalib"]["weights_bundle"]
    return str(models_dir) if sibling is None else str(_models(bundle_root, sibling, seed, debug))


def initial_checkpoint(bundle_root: str | Path, seed: int, debug: bool = False) -> str:
    """File of the weights from which a training of this bundle starts.

    Raises:
        UserError: the folder is no bundle.
    """
    sibling = read_metadata(Path(bundle_root))["medcalib"]["initial_weights_bundle"]
    return str(_models(bundle_root, sibling, seed, debug) / BEST_MODEL)


def member_checkpoints(bundle_root: str | Path, seed: int, num_networks: int, debug: bool = False) -> list[str]:
    """Files of the weights of an ensemble, trained by the sibling with the seeds of `member_seeds`.

    Raises:
        UserError: the folder is no bundle.
    """
    sibling = read_metadata(Path(bundle_root))["medcalib"]["weights_bundle"]
    seeds = member_seeds(seed, num_networks)
    return [str(_models(bundle_root, sibling, member, debug) / BEST_MODEL) for member in seeds]


def member_seeds(seed: int, num_networks: int) -> list[int]:
    """Seeds of the networks of an ensemble: that of the run, and further ones that are drawn from it.

    Runs with neighbouring seeds share no network, so their results are independent.

    Example:
        >>> member_seeds(1, 3)
        [1, 1358060498, 827828097]
    """
    seeds, number = [seed], 0
    while len(seeds) < num_networks:
        number += 1
        # epochs are counted from 1, so no epoch of any training is seeded with one of these
        if (drawn := derived_seed(seed, 0, number)) not in seeds:
            seeds.append(drawn)
    return seeds


def _models(bundle_root: str | Path, sibling: str, seed: int, debug: bool) -> Path:
    return Path(bundle_root).resolve().parent / sibling / output_name(seed, debug) / "models"
