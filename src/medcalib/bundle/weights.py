"""Find the weights that a bundle uses: its own, or those of a sibling that was trained for it."""

from __future__ import annotations

from pathlib import Path

from medcalib.bundle.compose import read_metadata

__all__ = ["member_checkpoints", "output_name", "weights_dir"]

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
    """Files of the weights of an ensemble, trained by the sibling with seeds ``seed``, ``seed + 1``, ...

    Raises:
        UserError: the folder is no bundle.
    """
    sibling = read_metadata(Path(bundle_root))["medcalib"]["weights_bundle"]
    return [str(_models(bundle_root, sibling, seed + n, debug) / BEST_MODEL) for n in range(num_networks)]


def _models(bundle_root: str | Path, sibling: str, seed: int, debug: bool) -> Path:
    return Path(bundle_root).resolve().parent / sibling / output_name(seed, debug) / "models"
