"""What a training remembers beside its weights: settings, cases, and the weights it began with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events

from medcalib.data.case_identity import Identity, case_identities
from medcalib.errors import UserError
from medcalib.files.writing import read_json, write_json
from medcalib.keys import CaseKeys

__all__ = ["RECORD", "TrainingRecord", "TrainingRecordHandler", "read_record", "write_record"]

RECORD = "training.json"
FORMAT = 2
# what records of earlier versions lack
_ADDED = {"images", "trained_on"}


@dataclass(frozen=True)
class TrainingRecord:
    """What decides a training, and how it was asked for.

    Attributes:
        cases: identities of the cases by part, ``training`` and ``validation``.
        settings: resolved value of every id that the training's objects use; None where they are not known.
        starts_from: bundle and digest of the weights from which the training starts, and the cases that they have
            seen; of weights that were given, how, and which layers begin anew, too. None for random ones.
        seed: seed of the run, None where it is not known.
        debug: whether it was a run of seconds.
        overrides: what the user gave, by configuration id.
        images: what the images of the training are like, as of
            `medcalib.image_files.image_traits.ranges_of_traits`, with their ``channel_names``; None where it is not
            known.
        trained_on: every time that it was given more epochs than it was to have: ``after_epoch``, after how many
            finished ones, ``planned``, how many it was to have, and ``max_epochs``, how many since.
    """

    cases: dict[str, list[Identity]]
    settings: dict[str, Any] | None = None
    starts_from: dict[str, Any] | None = None
    seed: int | None = None
    debug: bool = False
    overrides: dict[str, Any] = field(default_factory=dict)
    images: dict[str, Any] | None = None
    trained_on: list[dict[str, int | None]] = field(default_factory=list)

    @property
    def case_ids(self) -> list[str]:
        """Ids of all cases that the training saw, whatever for."""
        return sorted({str(case["case"]) for cases in self.cases.values() for case in cases})


def read_record(models_dir: str | Path) -> TrainingRecord | None:
    """The record of the training in a folder; None if there is none that says which cases it saw.

    Raises:
        UserError: it is damaged.
    """
    path = Path(models_dir) / RECORD
    if not path.exists():
        return None
    advice = (
        "put back a copy of it, the record of what the training saw, or train again with another --seed or --output_dir"
    )
    content = read_json(path, advice)
    if not {"format", "digest", "cases"} & content.keys():  # settings only, as earlier versions wrote them
        return None
    digest, version = content.pop("digest", None), content.pop("format", None)
    names = {entry.name for entry in fields(TrainingRecord)}
    if version != FORMAT or digest != _digest(content) or content.keys() | _ADDED != names:
        raise UserError(f"{path} is damaged (its digest does not fit); {advice}.")
    return TrainingRecord(**content)


def write_record(models_dir: str | Path, record: TrainingRecord) -> None:
    """Write the record of a training that is about to begin, completely or not at all.

    Raises:
        UserError: it cannot be written.
    """
    content = json.loads(json.dumps(asdict(record), default=str))
    write_json(Path(models_dir) / RECORD, {"format": FORMAT, **content, "digest": _digest(content)})


class TrainingRecordHandler:
    """Record which cases a training sees, where nothing is recorded yet.

    ``medcalib run`` writes the whole record before; this is for trainings that MONAI's own runner starts.

    Args:
        save_dir: folder of the weights.
        training: cases on which the network is trained.
        validation: cases by which the best epoch is chosen.

    Example:
        >>> import tempfile
        >>> trainer = Engine(lambda engine, batch: None)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (Path(folder) / "a.nii.gz").touch()
        ...     case = {"case": "a", "image": f"{folder}/a.nii.gz"}
        ...     TrainingRecordHandler(folder, training=[case], validation=[]).attach(trainer)
        ...     _ = trainer.run([0])
        ...     [case["case"] for case in read_record(folder).cases["training"]]
        ['a']
    """

    def __init__(
        self, save_dir: str | Path, training: Sequence[Mapping[str, Any]], validation: Sequence[Mapping[str, Any]]
    ) -> None:
        self.save_dir = Path(save_dir)
        self.cases = {"training": training, "validation": validation}

    def attach(self, engine: Engine) -> None:
        """Register the handler on the trainer."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the record unless there is one of these cases, or the training began without."""
        if idist.get_rank() != 0 or engine.state.epoch > 0:
            return
        ids = {part: [str(case[CaseKeys.CASE]) for case in of_part] for part, of_part in self.cases.items()}
        if (record := read_record(self.save_dir)) and ids == {
            part: [case["case"] for case in of_part] for part, of_part in record.cases.items()
        }:
            return
        cases = {part: case_identities(of_part) for part, of_part in self.cases.items()}
        write_record(self.save_dir, TrainingRecord(cases))


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
