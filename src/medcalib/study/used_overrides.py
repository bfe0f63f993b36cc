"""Which overrides matter to which run, so that runs between which nothing differs happen once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from medcalib.bundle.layout import Mode
from medcalib.bundle.opened import Bundle, SiblingTraining
from medcalib.bundle.overrides import FIRST_STAGE, check_overrides
from medcalib.bundle.record import ROOTS
from medcalib.bundle.shifted_cases import check_corruption_value
from medcalib.bundle.training_on import EPOCHS
from medcalib.bundle.used_settings import used_settings
from medcalib.errors import UserError
from medcalib.study.merged_configs import MergedConfigs
from medcalib.study.planned_runs import is_place, short_digest

__all__ = ["INFERENCE", "TrainingSettings", "UsedOverrides"]

INFERENCE = (Mode.INFERENCE_EVAL, Mode.INFERENCE_PRED)
"""The modes that use trained weights."""

# what a training reports, and how it predicts when it chooses its epoch; the fit of a calibrator reports its errors
_NOT_TRAINED: dict[str, Any] = {"validate::handlers": {}, "validate::inferer": None}
_NOT_FITTED: dict[str, Any] = {"calibration::options::num_bins": None, "calibration::options::include_background": None}


class TrainingSettings(NamedTuple):
    """Overrides of a training.

    Attributes:
        deciding: those that make it another training than without, by configuration id.
        given: those that it is given; places of files and the like, too.
    """

    deciding: dict[str, Any]
    given: dict[str, Any]


class UsedOverrides:
    """Find out which overrides matter to the runs of bundles.

    Args:
        debug: whether these are runs of seconds.
    """

    def __init__(self, debug: bool = False) -> None:
        self._keys: dict[str, str] = {}
        self._sizes: dict[str, tuple[int | None, int | None]] = {}
        self._before: dict[str, list[SiblingTraining]] = {}
        self.configs = MergedConfigs(debug)

    def known(self, bundle: Bundle, mode: Mode, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """Those that a mode of a bundle takes."""
        return {
            id_: value
            for id_, value in overrides.items()
            if (id_.startswith(FIRST_STAGE) or not self.configs.lacks(bundle, mode, id_))
            and self.refusal(bundle, mode, id_, value) is None
        }

    def refusal(self, bundle: Bundle, mode: Mode, id_: str, value: Any) -> UserError | None:
        """Why a mode of a bundle does not take an override; None if it does."""
        if id_.startswith(FIRST_STAGE):
            second: Bundle | None = bundle
            while second is not None and not second.starts_from_sibling:
                second = second.sibling
            if mode is not Mode.TRAIN or second is None or second.sibling is None:
                return UserError(f"The override id --{id_} does not exist: no training of the study has two stages.")
            return self.refusal(second.sibling, mode, id_.removeprefix(FIRST_STAGE), value)
        try:
            check_overrides(self.configs.config(bundle, mode, [id_]), {id_: value})
            check_corruption_value(id_, value)
        except UserError as error:
            return error
        return None

    def of_training(
        self, bundle: Bundle, overrides: Mapping[str, Any], sweep: Mapping[str, Any], seed: int
    ) -> TrainingSettings:
        """Overrides of the training of a bundle and of all that are run before it.

        Of a value that is swept and that predictions or evaluations use, only what is trained counts: neither the
        number of bins of the errors that a validation prints, nor by how many heads it predicts.
        """
        overrides, sweep = (self.known(bundle, Mode.TRAIN, part) for part in (overrides, sweep))
        both = {**overrides, **sweep}
        inference = {id_ for mode in INFERENCE for id_ in self.of_inference(bundle, mode, both, seed)}
        swept = {id_: value for id_, value in sweep.items() if id_ in inference}
        swept = self._deciding(both, swept, lambda given: self._training_key(bundle, given, seed, weights_only=True))
        left = {**overrides, **{id_: value for id_, value in sweep.items() if id_ in swept or id_ not in inference}}
        deciding = self._deciding(left, left, lambda given: self._training_key(bundle, given, seed))
        return TrainingSettings(deciding, {id_: v for id_, v in left.items() if id_ in deciding or is_place(id_)})

    def trainings_before(self, bundle: Bundle, given: Mapping[str, Any], seed: int) -> list[SiblingTraining]:
        """The trainings whose weights that of a bundle uses or starts from."""
        asked = json.dumps([bundle.name, given, seed], default=str)
        if asked not in self._before:
            parser = self.configs.parser(bundle, Mode.TRAIN, given, seed)
            self._before[asked] = bundle.trainings_before(parser, given)
        return self._before[asked]

    def of_inference(self, bundle: Bundle, mode: Mode, overrides: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """Overrides that change what a mode writes that uses the weights."""
        known = self.known(bundle, mode, overrides)
        return self._deciding(known, known, lambda given: self._key(bundle, mode, given, seed))

    def size(self, bundle: Bundle, overrides: Mapping[str, Any], seed: int) -> tuple[int | None, int | None]:
        """Number of epochs of a training, and of the weights of its network; None where nobody can tell."""
        asked = json.dumps([bundle.name, overrides], sort_keys=True, default=str)
        if asked not in self._sizes:
            parser = self.configs.parser(bundle, Mode.TRAIN, overrides, seed)
            epochs = used_settings(parser, [EPOCHS]).values.get(EPOCHS)
            try:
                network = parser.get_parsed_content("method_network")
                num_weights = sum(weight.numel() for weight in network.parameters())
            except Exception:  # the run itself says what is wrong with its network
                num_weights = None
            self._sizes[asked] = (epochs if isinstance(epochs, int) else None, num_weights)
        return self._sizes[asked]

    def _deciding(
        self, given: Mapping[str, Any], asked: Mapping[str, Any], key: Callable[[Mapping[str, Any]], str]
    ) -> dict[str, Any]:
        """Those of the overrides asked for without which something else happens."""
        if not asked:
            return {}
        whole = key(given)
        return {
            id_: value
            for id_, value in asked.items()
            if not is_place(id_) and key({other: v for other, v in given.items() if other != id_}) != whole
        }

    def _training_key(self, bundle: Bundle, overrides: Mapping[str, Any], seed: int, weights_only: bool = False) -> str:
        """What a training depends on, and all trainings before it."""
        asked = json.dumps([bundle.name, overrides, seed, weights_only], sort_keys=True, default=str)
        if asked not in self._keys:
            parser = self.configs.parser(bundle, Mode.TRAIN, overrides, seed)
            before = bundle.trainings_before(parser, overrides)
            own: dict[str, Any] = {}
            if bundle.makes_models:
                if weights_only:
                    parser.update(_NOT_FITTED if bundle.fits_calibrator else _NOT_TRAINED)
                own = used_settings(parser, ROOTS).values
            others = [
                [one.bundle.name, one.seed, self._training_key(one.bundle, one.overrides, one.seed, weights_only)]
                for one in before
            ]
            self._keys[asked] = short_digest([own, others], 64)
        return self._keys[asked]

    def _key(self, bundle: Bundle, mode: Mode, overrides: Mapping[str, Any], seed: int) -> str:
        asked = json.dumps([bundle.name, mode, overrides, seed], sort_keys=True, default=str)
        if asked not in self._keys:
            parser = self.configs.parser(bundle, mode, overrides, seed)
            self._keys[asked] = short_digest(used_settings(parser, ROOTS).values, 64)
        return self._keys[asked]
