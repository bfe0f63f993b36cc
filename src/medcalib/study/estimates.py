"""How much time and disk runs will take, from what is measured; nothing is made up."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean

from medcalib.bundle.bundle_metadata import read_metadata
from medcalib.bundle.layout import COST, Mode
from medcalib.bundle.shifted_cases import SHIFTED
from medcalib.bundle.training_on import EPOCHS
from medcalib.errors import UserError
from medcalib.files.writing import read_json
from medcalib.study.planned_runs import Run

__all__ = ["Estimate", "Measured", "check_disk", "disk_needed", "measured_runs", "seconds_needed"]

_FOLDERS = {Mode.TRAIN: "models", Mode.INFERENCE_EVAL: "evaluation", Mode.INFERENCE_PRED: "predictions"}
# weights and two moments of the optimizer in the checkpoint, and the best weights, 4 bytes each
_BYTES_OF_WEIGHT = 16


@dataclass(frozen=True)
class Measured:
    """What a finished run took.

    Attributes:
        mode: its mode.
        fragments: names of the fragments of its bundle by kind.
        debug: whether it was a run of seconds.
        trains_network: whether it trained a network.
        seconds: its time.
        num_bytes: size of what it left.
        num_cases: number of its cases.
        epochs: number of its epochs, if it trained a network.
    """

    mode: Mode
    fragments: dict[str, str]
    debug: bool
    trains_network: bool
    seconds: float
    num_bytes: int
    num_cases: int
    epochs: int | None = None


@dataclass(frozen=True)
class Estimate:
    """What several runs will take.

    Attributes:
        total: sum over the runs of which it is known.
        num_known: number of these.
        num_unknown: number of the others.
    """

    total: float
    num_known: int
    num_unknown: int


def measured_runs(bundles_dir: Path) -> list[Measured]:
    """What the finished runs of the bundles in a folder took."""
    found = []
    bundles = ("*", "settings_*/*", "*/settings_*", "settings_*/*/settings_*")
    for bundle, results in product(bundles, ("seed_*", f"seed_*/{SHIFTED}/*")):
        for path in sorted(bundles_dir.glob(f"{bundle}/{results}/{COST}/*.json")):
            try:
                found += _measured(path)
            except (UserError, KeyError, ValueError, TypeError, OSError):  # of a run that somebody removes, or damaged
                continue
    return found


def seconds_needed(runs: Iterable[Run], measured: Sequence[Measured]) -> Estimate:
    """How long runs will take one after the other.

    The time of a run is that of runs of the same bundle, else of the same data, method and network, of trainings also
    of the same data and network; that of a training is in proportion to its epochs, of a prediction to its cases.
    """
    return _sum(runs, measured, lambda one: one.seconds, lambda run: None)


def disk_needed(runs: Iterable[Run], measured: Sequence[Measured]) -> Estimate:
    """How many bytes runs will leave.

    As `seconds_needed`, but that of evaluations and predictions also from those of the same data, and that of a
    training without any like it from the size of its network.
    """
    return _sum(
        runs,
        measured,
        lambda one: one.num_bytes,
        lambda run: run.num_weights * _BYTES_OF_WEIGHT if run.num_weights else None,
        per_epoch=False,
    )


def check_disk(folder: Path, needed: float) -> None:
    """Refuse to begin what will fill the disk.

    Args:
        folder: where results go; it need not exist.
        needed: bytes.

    Raises:
        UserError: less is free.
    """
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise UserError(
            f"The study needs about {size(needed)} in {folder}, where {size(free)} are free; make room, choose another "
            f"--bundles_dir, or write fewer predictions."
        )


def size(num_bytes: float) -> str:
    """A number of bytes for people.

    Example:
        >>> size(3 * 2**30), size(5 * 2**20)
        ('3.0 GiB', '5.0 MiB')
    """
    unit, name = (2**30, "GiB") if num_bytes >= 2**30 else (2**20, "MiB")
    return f"{num_bytes / unit:.1f} {name}"


def _sum(
    runs: Iterable[Run],
    measured: Sequence[Measured],
    amount: Callable[[Measured], float],
    otherwise: Callable[[Run], float | None],
    per_epoch: bool = True,
) -> Estimate:
    each = [_of_run(run, measured, amount, per_epoch) for run in runs]
    each = [otherwise(run) if one is None else one for run, one in zip(runs, each, strict=True)]
    known = [one for one in each if one is not None]
    return Estimate(sum(known), len(known), len(each) - len(known))


def _of_run(
    run: Run, measured: Sequence[Measured], amount: Callable[[Measured], float], per_epoch: bool
) -> float | None:
    alike = [
        one
        for one in measured
        if (one.mode, one.debug, one.trains_network) == (run.mode, run.debug, run.trains_network)
    ]
    for kinds in _likeness(run, per_epoch):
        same = [one for one in alike if all(one.fragments[kind] == run.fragments[kind] for kind in kinds)]
        if same:
            return mean(amount(one) * _factor(run, one, per_epoch) for one in same)
    return None


def _likeness(run: Run, is_time: bool) -> list[tuple[str, ...]]:
    """Fragments that runs have in common which take about the same, the most alike first."""
    likeness: list[tuple[str, ...]] = [("data", "loss", "method", "network"), ("data", "method", "network")]
    if run.trains_network:
        return [*likeness, ("data", "network")]
    # what is evaluated and predicted has one size, whatever time it takes
    return likeness if is_time else [*likeness, ("data",)]


def _factor(run: Run, one: Measured, per_epoch: bool) -> float:
    if run.trains_network and per_epoch and run.epochs and one.epochs:
        return run.epochs / one.epochs
    limit = run.overrides.get("limit_cases")
    if run.mode is Mode.INFERENCE_PRED and isinstance(limit, int) and one.num_cases:
        return min(1.0, limit / one.num_cases)
    return 1.0


def _measured(path: Path) -> list[Measured]:
    cost, output = read_json(path, ""), path.parent.parent
    if not cost["finished"]:
        return []
    bundle = next(folder for folder in output.parents if (folder / "configs" / "metadata.json").exists())
    mode, own = Mode(cost["mode"]), read_metadata(bundle)["medcalib"]
    fragments = {"network": "", **own["fragments"]}
    trains = mode is Mode.TRAIN and own["weights_bundle"] is None
    epochs = None
    if trains:
        record = json.loads((output / "models" / "training.json").read_text(encoding="utf-8"))
        epochs = (record.get("settings") or {}).get(EPOCHS)
    left = sum(file.stat().st_size for file in (output / _FOLDERS[mode]).rglob("*") if file.is_file())
    debug = any(part.endswith("_debug") for part in output.relative_to(bundle).parts)
    return [Measured(mode, fragments, debug, trains, float(cost["seconds"]), left, int(cost["num_cases"]), epochs)]
