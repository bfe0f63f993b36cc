"""From a study to the smallest set of runs that answers it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medcalib.bundle.checkpoint_paths import output_name
from medcalib.bundle.compose import generate
from medcalib.bundle.layout import Mode
from medcalib.bundle.opened import Bundle
from medcalib.bundle.shifted_cases import CORRUPTION, DEFAULT_LEVEL, LEVEL, asks_for_corruption, shifted_folder
from medcalib.bundle.templates import find_templates
from medcalib.errors import UserError
from medcalib.study.grid import GridPoint, named_points, reference_name
from medcalib.study.planned_runs import BundlePlace, Evaluated, Plan, Run, Shift, is_place, short_digest
from medcalib.study.study_file import OF_LOSS_ALONE, Study
from medcalib.study.used_overrides import INFERENCE, TrainingSettings, UsedOverrides

__all__ = ["expand"]

_DEBUG_CASES = 3
_WORDS = {Mode.TRAIN: "train", Mode.INFERENCE_PRED: "predict", Mode.INFERENCE_EVAL: "evaluate"}


def expand(study: Study, bundles_dir: Path) -> Plan:
    """Plan the runs of a study; nothing is written.

    A training that several combinations share is planned once. The bundles lie under ``bundles_dir``, those whose
    training has settings of its own in a folder ``settings_<digest>`` of it; results that other settings than those of
    the training change lie in such a folder of their bundle.

    Args:
        study: the study.
        bundles_dir: folder of the bundles.

    Raises:
        UserError: fragments do not go together, an id exists in no bundle, has a value that cannot be, or the reference
            is not in the grid.
    """
    with tempfile.TemporaryDirectory() as workshop:
        return _Expansion(study, bundles_dir, Path(workshop)).plan()


class _Expansion:
    """The work of `expand`, with bundles that are generated aside."""

    def __init__(self, study: Study, bundles_dir: Path, workshop: Path) -> None:
        self.study = study
        self.bundles_dir = bundles_dir
        self.used = UsedOverrides(study.debug)
        self.runs: dict[str, Run] = {}
        self.places: dict[Path, BundlePlace] = {}
        self.output_folders: dict[Path, dict[str, Any]] = {}
        templates = find_templates()
        self.bundles = {
            (network, loss, method): Bundle.open(
                generate(templates, workshop, study.data, loss, method, network)[0].resolve()
            )
            for network, loss, method in study.combinations
        }

    def plan(self) -> Plan:
        self._check_ids("overrides", self.study.overrides)
        for id_, values in self.study.sweep.items():
            for value in values:
                self._check_ids("sweep", {id_: value})
        firsts = {id_: values[0] for id_, values in self.study.sweep.items()}
        known = {
            key: {
                id_
                for mode in Mode
                for id_ in self.used.known(bundle, mode, firsts)
                if id_ not in OF_LOSS_ALONE or self._is_trained(bundle, id_)
            }
            for key, bundle in self.bundles.items()
        }
        points = named_points(self.study, known)
        plain = {name: point for name, point in points.items() if not point.is_shifted}
        if len(plain) < 2:
            raise UserError(
                f"The grid of the study {self.study.name} holds {next(iter(plain))} alone, so there is nothing to "
                f"compare; name another loss, method or network, or a sweep of an id that it has."
            )
        reference = reference_name(self.study, plain)
        names = {json.dumps(point.parts, default=str): name for name, point in plain.items()}
        evaluated = {name: self._evaluated(name, point, names) for name, point in points.items()}
        sweep = {
            id_: {name: point.sweep[id_] for name, point in points.items() if id_ in point.sweep}
            for id_ in self.study.sweep
        }
        groups = {name: point.loss for name, point in points.items()}
        return Plan(self.runs, self.places, evaluated, sweep, groups, reference, self.output_folders)

    def _is_trained(self, bundle: Bundle, id_: str) -> bool:
        """Whether its values make different trainings."""
        seed, overrides = min(self.study.seeds), self.study.overrides
        given = [{}, *({id_: value} for value in self.study.sweep[id_])]
        used = [self.used.of_training(bundle, overrides, sweep, seed).deciding.get(id_) for sweep in given]
        return any(value != used[0] for value in used)

    def _check_ids(self, key: str, overrides: Mapping[str, Any]) -> None:
        """Refuse an id that no bundle takes."""
        for id_, value in overrides.items():
            places = [(bundle, mode) for bundle in self.bundles.values() for mode in Mode]
            if any(self.used.known(bundle, mode, {id_: value}) for bundle, mode in places):
                continue
            refusals = [str(self.used.refusal(bundle, mode, id_, value)) for bundle, mode in places]
            # that a value cannot be says more than that others lack the id
            told = sorted(refusals, key=lambda text: "does not exist" in text)[0]
            raise UserError(f"The study {self.study.name}, {key}: {told}")

    def _evaluated(self, name: str, point: GridPoint, names: Mapping[str, str]) -> Evaluated:
        bundle = self.bundles[point.network, point.loss, point.method]
        first = min(self.study.seeds)
        settings = self.used.of_training(bundle, self.study.overrides, point.sweep, first)
        folder = self._place(bundle, settings, first)
        swept = {id_: value for id_, value in point.sweep.items() if id_ not in OF_LOSS_ALONE}
        both = {**self.study.overrides, **swept}
        overrides = {id_: value for id_, value in both.items() if not asks_for_corruption(id_)}
        corruption = {CORRUPTION: both[CORRUPTION], LEVEL: both.get(LEVEL, DEFAULT_LEVEL)} if CORRUPTION in both else {}
        changing = {
            id_: value
            for mode in INFERENCE
            for id_, value in self.used.of_inference(bundle, mode, overrides, first).items()
            if id_ not in settings.deciding
        }
        given = {
            id_: value
            for id_, value in overrides.items()
            if id_ in changing or id_ in settings.deciding or is_place(id_)
        }
        evaluations = {}
        for seed in self.study.seeds:
            needs = self._training(bundle, settings, seed)
            evaluations[seed] = self._infer(
                name, bundle, folder, Mode.INFERENCE_EVAL, seed, given, changing, needs, corruption=corruption
            )
        predictions = None
        # the gallery shows images as they are
        if self.study.predictions != 0 and not point.is_shifted:
            needs = self._training(bundle, settings, first)
            limited = {**given, **self._limit(overrides)}
            predictions = self._infer(
                name, bundle, folder, Mode.INFERENCE_PRED, first, limited, changing, needs, evaluations[first], corruption
            )
        words = {**bundle.fragments, **point.sweep}
        description = ", ".join(f"{key} {value}" for key, value in words.items())
        shift = None
        if point.is_shifted:
            of = names[json.dumps(point.as_it_is.parts, default=str)]
            shift = Shift(of, corruption[CORRUPTION], corruption[LEVEL])
        return Evaluated(evaluations, predictions, description, shift)

    def _limit(self, overrides: Mapping[str, Any]) -> dict[str, int]:
        wanted = self.study.predictions
        given = overrides.get("limit_cases")
        least = [given] if isinstance(given, int) else [_DEBUG_CASES] if self.study.debug else []
        if wanted is None or any(number <= wanted for number in least):
            return {}
        return {"limit_cases": wanted}

    def _training(self, bundle: Bundle, settings: TrainingSettings, seed: int) -> list[str]:
        """Plan a training and those before it; ids of what must be done before its weights are used."""
        needs: dict[str, None] = {}
        for before in self.used.trainings_before(bundle, settings.given, seed):
            own = self.used.of_training(before.bundle, before.overrides, {}, before.seed)
            needs |= dict.fromkeys(self._training(before.bundle, own, before.seed))
        if not (bundle.makes_models):
            return list(needs)
        folder = self._place(bundle, settings, seed)
        several = len({network for network, _, _ in self.study.combinations}) > 1
        kinds = ["network"] * several + ["loss", "method"]
        words = [bundle.fragments[kind] for kind in kinds]
        words += [f"{id_}={value}" for id_, value in settings.deciding.items() if id_ in self.study.sweep]
        name = " / ".join(words)
        return [self._add(name, bundle, folder, folder, Mode.TRAIN, seed, settings.given, list(needs))]

    def _infer(
        self,
        name: str,
        bundle: Bundle,
        folder: Path,
        mode: Mode,
        seed: int,
        overrides: dict[str, Any],
        changing: dict[str, Any],
        needs: list[str],
        after: str | None = None,
        corruption: Mapping[str, Any] | None = None,
    ) -> str:
        known = self.used.known(bundle, mode, overrides)
        parent = folder
        if changing:
            parent = folder / f"settings_{short_digest(changing)}"
            self.output_folders[parent] = changing
            known["output_dir"] = str(parent / output_name(seed, self.study.debug))
            if bundle.makes_models:
                known["models_dir"] = str(folder / output_name(seed, self.study.debug) / "models")
        known |= corruption or {}
        return self._add(name, bundle, folder, parent, mode, seed, known, needs, after)

    def _add(
        self,
        name: str,
        bundle: Bundle,
        folder: Path,
        parent: Path,
        mode: Mode,
        seed: int,
        overrides: dict[str, Any],
        needs: list[str],
        after: str | None = None,
    ) -> str:
        places = [part for part in parent.relative_to(self.bundles_dir).parts if part != bundle.name]
        output_dir = parent / output_name(seed, self.study.debug)
        if CORRUPTION in overrides:
            shifted = shifted_folder(overrides[CORRUPTION], overrides[LEVEL])
            output_dir /= shifted
            places.append(Path(shifted).name)
        id_ = "-".join([_WORDS[mode], bundle.name, *places, output_name(seed, self.study.debug)])
        if id_ in self.runs:
            return id_
        trains = mode is Mode.TRAIN and bundle.trains_network
        epochs, num_weights = self.used.size(bundle, overrides, seed) if trains else (None, None)
        run = Run(
            id=id_,
            title=f"{_WORDS[mode]} {name}, seed {seed}",
            mode=mode,
            bundle=folder,
            bundle_digest=bundle.digest,
            fragments=bundle.fragments,
            seed=seed,
            debug=self.study.debug,
            overrides=dict(sorted(overrides.items())),
            output_dir=output_dir,
            needs=tuple(needs),
            after=after,
            trains_network=trains,
            epochs=epochs,
            num_weights=num_weights,
        )
        run.words  # noqa: B018  # refuses values that cannot be given to a run
        self.runs[id_] = run
        return id_

    def _place(self, bundle: Bundle, settings: TrainingSettings, seed: int) -> Path:
        """Folder of a bundle: beside those whose weights it uses, or where links to these lie."""
        siblings = {}
        for before in self.used.trainings_before(bundle, settings.given, seed):
            own = self.used.of_training(before.bundle, before.overrides, {}, before.seed)
            siblings[before.bundle.name] = self._place(before.bundle, own, before.seed)
        parent = self.bundles_dir
        if settings.deciding:
            parent /= f"settings_{short_digest(settings.deciding)}"
        elsewhere = tuple(folder for folder in siblings.values() if folder.parent != parent)
        if elsewhere:
            places = {name: folder.parent.name for name, folder in siblings.items()}
            parent = self.bundles_dir / f"settings_{short_digest([settings.deciding, places])}"
            elsewhere = tuple(siblings.values())
        folder = parent / bundle.name
        if folder not in self.places:
            self.places[folder] = BundlePlace(folder, bundle.fragments, settings.deciding, elsewhere)
        return folder
