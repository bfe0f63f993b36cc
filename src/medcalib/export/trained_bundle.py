"""What an export needs of a bundle: configuration as it was trained, weights, calibrator, evaluation."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from torch import Tensor

from medcalib.bundle.layout import Mode
from medcalib.bundle.messages import component_message, user_message
from medcalib.bundle.opened import Bundle
from medcalib.bundle.overrides import concerns_training, current_ids, known_overrides, own_stage
from medcalib.bundle.resolve import plain_config
from medcalib.bundle.used_settings import is_place_or_pace
from medcalib.bundle.weights_check import Purpose, check_settings, check_trained, check_weights
from medcalib.calibrators import read_calibrator
from medcalib.errors import UserError
from medcalib.export.portable_config import prepared_network
from medcalib.files.writing import read_json
from medcalib.handlers.training_record import TrainingRecord, read_record
from medcalib.reports import collect_provenance

__all__ = ["TrainedBundle", "exported_record", "one_sentence", "open_trained", "portable_settings"]

# what the training of a sibling says of itself alone
_OWN_AFFAIRS = {"seed", "debug", "method", "calibrator", "allow_unfinished", "checkpoint", "checkpoints", "first_stage"}
_LOADERS = {"medcalib.networks.load_weights": False, "medcalib.networks.load_ensemble": True}


@dataclass(frozen=True)
class TrainedBundle:
    """A bundle with finished weights.

    Attributes:
        bundle: the bundle.
        config: the merged configuration of its prediction, with the settings of its training and what the user gave.
        parser: makes objects of it, but for the cases of the dataset, which need not be there.
        overrides: those settings, by configuration id.
        record: what its trainings saw, of several together; None if nobody recorded it.
    """

    bundle: Bundle
    config: dict[str, Any]
    parser: ConfigParser
    overrides: dict[str, Any]
    record: TrainingRecord | None

    def content(self, id_: str) -> Any:
        """The value, or the object, of an id of the configuration.

        Raises:
            UserError: it cannot be made.
        """
        with one_sentence(self.parser):
            return self.parser.get_parsed_content(id_)

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.content("seed")

    @property
    def output_dir(self) -> Path:
        """Where the bundle writes with this seed."""
        return Path(self.content("output_dir"))

    @property
    def models_dirs(self) -> list[Path]:
        """Folders of its trainings."""
        return list(dict.fromkeys(Path(path).parent for path in self.content("checkpoints")))

    @property
    def prepared(self) -> bool:
        """Whether the calibrator is part of the weights."""
        return prepared_network(self.config)

    @property
    def calibrator_file(self) -> Path | None:
        """File of the fitted calibrator; None without one."""
        path = self.content("calibrator_file")
        return None if path is None else Path(path)

    @property
    def calibrator_kind(self) -> str | None:
        """Name of the calibrator; None without one."""
        return None if self.calibrator_file is None else read_calibrator(self.calibrator_file)["kind"]

    @property
    def num_networks(self) -> int | None:
        """Number of networks of an ensemble; None of a single network."""
        target = self.config["trained_network"].get("_target_")
        if target not in _LOADERS:
            raise UserError(
                f"{self.bundle.folder} makes trained_network by {target}, whose weights nobody knows how to store in "
                f"one file; only bundles with {' or '.join(_LOADERS)} can be exported."
            )
        return len(self.content("checkpoints")) if _LOADERS[target] else None

    @cached_property
    def state(self) -> dict[str, Tensor]:
        """The weights that predict, on the CPU, in memory as they lie in a file."""
        network = self.content("predicting_network")
        return {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What produces its predictions, as results have it beside them."""
        content = self.content
        content("predicting_network")
        return collect_provenance(
            self.bundle.folder,
            content("checkpoints"),
            content("trained_network"),
            None,
            self.seed,
            self.calibrator_file,
        )

    @cached_property
    def evaluation(self) -> dict[str, Any] | None:
        """``summary.json`` of an evaluation of these weights and this calibrator; None if there is none."""
        path = self.output_dir / "evaluation" / "summary.json"
        if not path.exists():
            return None
        summary = read_json(path, "evaluate the bundle again with --mode inference_eval")
        then = summary.get("provenance") or {}
        same = ("bundle_digest", "checkpoint_digest", "calibrator")
        return summary if all(then.get(key) == self.provenance[key] for key in same) else None

    @cached_property
    def quality_control(self) -> dict[str, Any] | None:
        """``quality_control.json`` of the same evaluation; None if there is none."""
        path = self.output_dir / "evaluation" / "quality_control.json"
        if self.evaluation is None or not path.exists():
            return None
        return read_json(path, "evaluate the bundle again with --mode inference_eval")

    @property
    def thresholds(self) -> dict[str, dict[str, Any]]:
        """Of each score the value beyond which a case is to be flagged, and on which side."""
        scores = (self.quality_control or {}).get("scores", {})
        found = {name: of_score.get("threshold") for name, of_score in scores.items()}
        return {
            name: {"flag": threshold["flag"], "value": threshold["value"]}
            for name, threshold in found.items()
            if threshold and threshold.get("value") is not None
        }


def open_trained(
    bundle: str | Path,
    seed: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    allow_edited: bool = False,
    debug: bool = False,
) -> TrainedBundle:
    """Open a bundle whose weights are to be taken elsewhere.

    Settings of the training that its record holds are used again, unless the user gives others.

    Args:
        bundle: name of a bundle under ``bundles/``, or its path.
        seed: seed of its training; the bundle's own when None.
        overrides: values by configuration id.
        allow_edited: accept a bundle whose configs were edited after it was generated.
        debug: take the weights of a debug run.

    Raises:
        UserError: there is no such bundle, it is not trained, its training is not finished or had other settings, or
            its calibrator is not fitted.
    """
    opened = Bundle.open(bundle, allow_edited)
    given = current_ids(overrides or {})
    parser = opened.workflow(Mode.INFERENCE_PRED, given, seed, debug).parser
    with one_sentence(parser):
        folders = list(dict.fromkeys(Path(path).parent for path in parser.get_parsed_content("checkpoints")))
    records = [record for record in map(read_record, folders) if record is not None]
    settings = {} if not records else _settings_of_training(records[0])
    settings = known_overrides(plain_config(parser), settings) | given
    parser = opened.workflow(Mode.INFERENCE_PRED, settings, seed, debug).parser
    with one_sentence(parser), warnings.catch_warnings():
        check_trained(parser)
        check_settings(parser, given)
        content = parser.get_parsed_content
        # that nothing is known of its cases, the card says
        warnings.filterwarnings("ignore", message=".*does not say on which cases its weights were trained")
        check_weights(
            opened.folder, content("checkpoints"), [], None, Purpose.PREDICT, content("calibrator_file"), False
        )
    config = copy.deepcopy(plain_config(parser))
    parser["data::cases"] = {}
    return TrainedBundle(opened, config, parser, settings, exported_record(records))


@contextmanager
def one_sentence(parser: ConfigParser) -> Iterator[None]:
    """Turn what keeps an object of a configuration from being made into an error of one sentence."""
    try:
        yield
    except Exception as error:
        if cause := user_message(error) or component_message(error, parser.get()):
            raise UserError(cause) from None
        raise


def portable_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those settings that do not name a folder or a machine."""
    return {
        id_: value
        for id_, value in settings.items()
        if not is_place_or_pace(id_) and not (isinstance(value, str) and Path(value).is_absolute())
    }


def _settings_of_training(record: TrainingRecord) -> dict[str, Any]:
    """What the user gave then and what has a meaning for a prediction, too."""
    return {
        id_: value
        for id_, value in portable_settings(own_stage(current_ids(record.overrides))).items()
        if id_.partition("::")[0] not in _OWN_AFFAIRS and not concerns_training(id_) and not id_.endswith("max_epochs")
    }


def _portable_origin(origin: dict[str, Any] | None) -> dict[str, Any] | None:
    """With which weights a training began, without the folders of this machine."""
    if origin is None or "given" not in origin:
        return origin
    name = origin["bundle"] or Path(origin["file"]).name
    return origin | {"given": name, "file": Path(origin["file"]).name}


def exported_record(records: Sequence[TrainingRecord]) -> TrainingRecord | None:
    """One record of several trainings, with every case that any of them saw, without what belongs to this machine."""
    if not records:
        return None
    cases = {
        part: [*{str(case): case for record in records for case in record.cases[part]}.values()]
        for part in records[0].cases
    }
    first = records[0]
    return replace(
        first,
        cases=cases,
        starts_from=_portable_origin(first.starts_from),
        settings=None if first.settings is None else portable_settings(first.settings),
        overrides=portable_settings(first.overrides),
    )
