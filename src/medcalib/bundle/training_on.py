"""Give a training more epochs than it was to have: what may differ then, what is kept, and what is refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from medcalib.bundle.overrides import FIRST_STAGE
from medcalib.bundle.used_settings import UsedSettings, used_settings
from medcalib.errors import UserError
from medcalib.files.folders import FolderDraft
from medcalib.handlers.checkpoint import CHECKPOINT, TrainingState, training_state
from medcalib.handlers.training_record import RECORD, TrainingRecord, read_record

__all__ = [
    "EPOCHS", "asks_for_more", "check_epochs", "check_first_stage", "check_snapshots", "follows_from_epochs",
    "keep_earlier", "planned",
]  # fmt: skip

EPOCHS = "train::trainer::max_epochs"
"""The id of the number of epochs of a training."""

_SNAPSHOTS = "snapshot_epochs"


def planned(state: TrainingState, record: TrainingRecord | None) -> int | None:
    """How many epochs a training is to have; None where nobody wrote it."""
    recorded = None if record is None or record.settings is None else record.settings.get(EPOCHS)
    return max((number for number in (state.max_epochs, recorded) if number is not None), default=None)


def asks_for_more(used: UsedSettings, overrides: Iterable[str], wanted: int, before: int | None) -> bool:
    """Whether the user asks in so many words for more epochs than a training was to have.

    A number that stands in the bundle, and from which the user once deviated, asks for nothing.
    """
    return before is not None and wanted > before and not used.reach(EPOCHS).isdisjoint(overrides)


def check_epochs(state: TrainingState, before: int | None, wanted: int, output_dir: Path, is_first_stage: bool) -> None:
    """Refuse another number of epochs than a training is to have, unless it was asked for more.

    Raises:
        UserError: it is smaller, or larger without having been asked for.
    """
    if before is None or wanted == before:
        return
    option = f"--{FIRST_STAGE if is_first_stage else ''}max_epochs"
    told = f"The training in {output_dir} has finished {state.epochs} of {before} epochs, and {wanted} are asked for"
    if wanted < before:
        raise UserError(
            f"{told}, but none can be taken back; give {option}={before}, or start another training with another "
            f"--seed or --output_dir."
        )
    raise UserError(
        f"{told} by the bundle itself, but only an option makes a training longer; give {option}={before}, or "
        f"{option}={wanted} to train on."
    )


def check_first_stage(first: ConfigParser, overrides: Iterable[str], second: ConfigParser) -> None:
    """Refuse to train a first stage on when the second one has begun from its weights.

    Args:
        first: configuration of the first stage.
        overrides: ids of the values that it is given.
        second: configuration of the stage that starts from its weights.

    Raises:
        UserError: that is what the options ask for.
    """
    models_dir = Path(first.get_parsed_content("models_dir"))
    state, later = training_state(models_dir), training_state(second.get_parsed_content("models_dir"))
    if state is None or later is None:
        return
    before, wanted = planned(state, read_record(models_dir)), first.get_parsed_content(EPOCHS)
    if asks_for_more(used_settings(first, [EPOCHS]), overrides, wanted, before):
        raise UserError(
            f"The second stage in {Path(second.get_parsed_content('output_dir'))} has finished {later.epochs} epochs "
            f"that began with the weights of the first one after {state.epochs}, which is not to become longer now; "
            f"train the second stage on with --max_epochs, or start another with another --seed or --output_dir."
        )


def follows_from_epochs(used: UsedSettings, id_: str) -> bool:
    """Whether a setting may differ where a training goes on: the number of epochs, and what follows from it."""
    of_epochs = used.reach(EPOCHS)
    return any(one in of_epochs or one.partition("::")[0] == _SNAPSHOTS for one in used.reach(id_))


def check_snapshots(
    before: Mapping[str, Any], now: Mapping[str, Any], state: TrainingState, wanted: int, output_dir: Path
) -> None:
    """Refuse to go on where weights were to be kept at the end of epochs that are past.

    Args:
        before: settings of the training so far.
        now: settings with more epochs.
        state: how far the training has come.
        wanted: number of epochs that it is to have.
        output_dir: of the training.

    Raises:
        UserError: there are such epochs; the message gives those at the end of which they can be kept.
    """
    then, epochs = _listed(before), _listed(now)
    past = [epoch for number, epoch in enumerate(epochs) if epoch <= state.epochs and then[number:][:1] != [epoch]]
    if past:
        cycle = max(1, int(before.get("cycle_epochs", 1)))
        later = [wanted - cycle * number for number in reversed(range(len(epochs)))]
        later = [max(epoch, state.epochs + 1) for epoch in later]
        raise UserError(
            f"The training in {output_dir} has finished {state.epochs} epochs, but one of {wanted} keeps weights at "
            f"the end of epoch {past[0]}, which are not there any more; keep those of later ones with "
            f"--cycle_epochs={cycle} --{_SNAPSHOTS}=[{','.join(map(str, later))}]."
        )


def keep_earlier(models_dir: Path, epochs: int) -> Path:
    """Keep what a finished training left before it goes on, in a folder beside it.

    Files are linked where the file system allows it, so that they take room only when they are replaced.

    Args:
        models_dir: folder of the training.
        epochs: how many it has finished.

    Returns:
        The folder, ``<models_dir>_<epochs>_epochs``; where one is there with other weights, with a further number.

    Raises:
        UserError: it cannot be written.
    """
    files = sorted(path for path in models_dir.iterdir() if path.suffix == ".pt" or path.name == RECORD)
    target, number = models_dir.with_name(f"{models_dir.name}_{epochs}_epochs"), 1
    while os.path.lexists(target):
        kept = target / CHECKPOINT
        if kept.exists() and kept.read_bytes() == (models_dir / CHECKPOINT).read_bytes():
            return target
        number += 1
        target = models_dir.with_name(f"{models_dir.name}_{epochs}_epochs_{number}")
    try:
        with FolderDraft(target) as draft:
            draft.folder.mkdir()
            for path in files:
                try:
                    os.link(path, draft.folder / path.name)
                except OSError:  # another file system, or one without links
                    shutil.copy2(path, draft.folder / path.name)
            draft.publish()
    except OSError as error:
        raise UserError(
            f"{target}, in which the weights after {epochs} epochs are kept, cannot be written ({error.strerror}); "
            f"make room for it."
        ) from None
    return target


def _listed(settings: Mapping[str, Any]) -> list[int]:
    """The epochs at whose end weights are kept, which stand in one value or one by one."""
    if isinstance(whole := settings.get(_SNAPSHOTS), list):
        return [int(epoch) for epoch in whole]
    found = {
        int(id_.rpartition("::")[2]): value for id_, value in settings.items() if id_.startswith(f"{_SNAPSHOTS}::")
    }
    return [int(found[number]) for number in sorted(found)]
