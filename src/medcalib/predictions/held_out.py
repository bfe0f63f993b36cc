"""What the bundles of a cross-validation predicted of the cases that each of them was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from medcalib.bundle.checkpoint_paths import output_name, weights_dir
from medcalib.bundle.data_folds import bundles_of_folds
from medcalib.bundle.layout import Mode
from medcalib.bundle.opened import Bundle
from medcalib.bundle.overrides import known_overrides
from medcalib.bundle.soft_labels import has_soft_labels
from medcalib.compare import seen_by_folds
from medcalib.compare.fold_checks import check_division, check_same_settings
from medcalib.data.cases import Case, split_digest
from medcalib.errors import UserError
from medcalib.files.writing import read_json
from medcalib.handlers.training_record import read_record
from medcalib.keys import Activation, CaseKeys, SplitKeys
from medcalib.predictions.prediction_folder import PredictedCase, PredictionFolder
from medcalib.predictions.prediction_values import PredictionKind
from medcalib.task import Task

__all__ = ["BundlePredictions", "HeldOut", "held_out_predictions"]

PROVENANCE = "provenance.json"
_FILES = (
    *(CaseKeys.CASE, CaseKeys.IMAGE, CaseKeys.LABEL, CaseKeys.FRAME, CaseKeys.SERIES),
    *(CaseKeys.STRUCTURES, CaseKeys.NUM_STRUCTURES),
)


class BundlePredictions:
    """What a bundle predicted of its test cases, with their labels as the bundle reads them.

    Args:
        folder: its predictions, without labels.
        cases: its test cases by id.
        load: from a case with paths to one with the label (1 or C, X, Y, Z) as class indices or one channel a class.
    """

    def __init__(
        self, folder: PredictionFolder, cases: Mapping[str, Case], load: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> None:
        self.folder = folder
        self.cases = dict(cases)
        self._load = load

    @property
    def activation(self) -> Activation:
        """How logits become probabilities."""
        return self.folder.activation

    def read(self, case: str, with_label: bool = True) -> PredictedCase:
        """Read a case.

        Raises:
            UserError: naming case and file: a file is missing or damaged, or prediction and label have different
                shapes.
        """
        predicted = self.folder.read(case, with_label=False)
        if not with_label:
            return predicted
        files = {key.value: self.cases[case][key] for key in _FILES if key in self.cases[case]}
        labels = torch.as_tensor(self._load(files)[CaseKeys.LABEL])
        if labels.shape[1:] != predicted.logits.shape[2:]:
            raise UserError(
                f"Case {case}: its label has the shape {tuple(labels.shape[1:])}, but its prediction in "
                f"{self.folder.predictions_dir} {tuple(predicted.logits.shape[2:])}; predict it again."
            )
        return predicted._replace(labels=labels[None].to(torch.uint8))


class HeldOut(NamedTuple):
    """All cases of a cross-validation, each as the fold predicted it that was not trained on it.

    Attributes:
        folds: ids of the cases by fold.
        groups: by case id what it shares with others, such as its patient; of those that share something.
        sources: what reads the cases of each fold.
        task: what is predicted.
        bundles: the bundle of each fold.
        attributes: what else is known of each case, by its id.
    """

    folds: dict[int, list[str]]
    groups: dict[str, str]
    sources: dict[int, BundlePredictions]
    task: Task
    bundles: dict[int, Path]
    attributes: dict[str, dict[str, str]]


def held_out_predictions(bundles: Sequence[str | Path], seed: int, debug: bool = False) -> HeldOut:
    """Find what the bundles of a cross-validation predicted of their test cases, and check that each was new to them.

    Args:
        bundles: one bundle of the cross-validation, beside which the others lie, or all of them.
        seed: that of the trainings.
        debug: whether these were runs of seconds, which have predicted some cases only.

    Raises:
        UserError: a bundle is missing, classifies images, has voxels to be ignored, several raters or a soft label, is
            not trained or has predicted nothing; a case was trained on or is in two folds or none; or folds were
            predicted in different ways or with other divisions than those of today.
    """
    places = bundles_of_folds([Path(bundle).expanduser() for bundle in bundles])
    for place in places.values():
        _check_labels(place)
    seen = seen_by_folds(places, seed, debug)
    told, folds, sources = {}, {}, {}
    groups: dict[str, str] = {}
    attributes: dict[str, dict[str, str]] = {}
    task: Task | None = None
    for number, place in places.items():
        folder = place / output_name(seed, debug) / "predictions"
        command = f"medcalib run --bundle {place} --mode {Mode.INFERENCE_PRED} --seed {seed}{' --debug' * debug}"
        if not (folder / PROVENANCE).is_file():
            raise UserError(f"Fold {number}, {place}, has predicted nothing with seed {seed} yet; predict: {command}")
        told[number] = read_json(folder / PROVENANCE, f"predict again: {command}")
        bundle = Bundle.open(place)
        if bundle.classifies:
            raise UserError(
                f"{place} classifies whole images, whose predictions are one table; calibrate by bundles with a "
                f"calibrator, such as --method temperature_scaling, and take their evaluations together with medcalib "
                f"evaluate."
            )
        content = _content(bundle, place, seed, debug)
        split = content("split")
        if told[number].get("split_digest") not in (None, split_digest(split)):
            raise UserError(
                f"{folder} was predicted with another division of the cases than that of today; predict again: "
                f"{command}"
            )
        cases = {str(case[CaseKeys.CASE]): case for case in split[SplitKeys.TEST.value]}
        if debug:
            cases = {case: of_case for case, of_case in cases.items() if (folder / case).is_dir()}
        task, regions = content("task"), content("label_regions")
        names = PredictionFolder(folder, None, PredictionKind.PROBABILITIES, content("activation"), case_ids=cases)
        for case in cases:
            names.find(case, with_label=False)
        sources[number] = BundlePredictions(names, cases, _loader(content("load_case"), regions))
        folds[number] = list(cases)
        groups |= {case: str(one[CaseKeys.GROUP]) for case, one in cases.items() if CaseKeys.GROUP in one}
        attributes |= {case: dict(one.get(CaseKeys.ATTRIBUTES) or {}) for case, one in cases.items()}
    check_same_settings(told, {number: str(place) for number, place in places.items()})
    check_division(folds, None if debug else seen)
    assert task is not None
    return HeldOut(folds, groups, sources, task, places, attributes)


def _check_labels(place: Path) -> None:
    """Refuse labels that are more than the classes of all voxels, which nothing here would treat as they are meant."""
    about = Bundle.open(place).config(Mode.INFERENCE_PRED)["data"]
    if about.get("ignore_label") is not None:
        found = f"voxels to be ignored (data::ignore_label {about['ignore_label']})"
    elif has_soft_labels(about):
        found = f"the labels of several raters or a soft label (data::label_type {about['label_type']})"
    else:
        return
    raise UserError(
        f"{place} has {found}, which calibrate --fold_bundles does not know; calibrate by bundles, such as with "
        f"--method temperature_scaling, and take their evaluations together with medcalib evaluate --folds."
    )


def _content(bundle: Bundle, place: Path, seed: int, debug: bool) -> Callable[[str], Any]:
    """What the configuration says, with the options of the training, such as where the data lie."""
    record = read_record(weights_dir(place, place / output_name(seed, debug) / "models", seed, debug))
    given = {} if record is None else record.overrides
    known = known_overrides(bundle.config(Mode.INFERENCE_PRED, debug), given)
    return bundle.workflow(Mode.INFERENCE_PRED, known, seed, debug).parser.get_parsed_content


def _loader(load_case: Any, regions: Sequence[Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def load(case: dict[str, Any]) -> dict[str, Any]:
        loaded = load_case(case)
        for transform in regions:
            loaded = transform(loaded)
        return loaded

    return load
