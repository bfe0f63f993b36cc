"""The folds of a cross-validation of nnU-Net: which cases each network was not trained on."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medcalib.errors import UserError

__all__ = ["Fold", "check_new", "find_labels", "find_splits", "read_folds", "read_splits"]

SPLITS = "splits_final.json"
# environment variables of nnU-Net, and the folders that are usually called so
PREPROCESSED, RAW = "nnUNet_preprocessed", "nnUNet_raw"
_FOLD = re.compile(r"fold_(\d+)")
_Splits = Sequence[Mapping[str, Sequence[str]]]


class Fold(NamedTuple):
    """What the network of a fold predicted of the cases that it was not trained on.

    Attributes:
        name: such as ``fold_0``.
        folder: where the predictions lie, ``fold_0/validation``.
        cases: ids of the cases.
    """

    name: str
    folder: Path
    cases: list[str]


def find_splits(results: Path, given: str | Path | None = None) -> Path:
    """Find the ``splits_final.json`` by which the folds of a folder of results were divided.

    Args:
        results: the folder, ``nnUNet_results/Dataset004_Heart/nnUNetTrainer__nnUNetPlans__3d_fullres``.
        given: where the user says that it lies.

    Returns:
        ``given``; or that of the dataset in the folder that the environment variable ``nnUNet_preprocessed`` names, or
        in ``nnUNet_preprocessed`` beside the results.

    Raises:
        UserError: there is none.
    """
    if given is not None:
        path = Path(given).expanduser()
        if path.is_file():
            return path
        raise UserError(f"splits_file {given} does not exist; it is the {SPLITS} in nnUNet_preprocessed.")
    dataset = results.resolve().parent
    places = [Path(folder) for folder in [os.environ.get(PREPROCESSED)] if folder]
    places.append(dataset.parent.parent / PREPROCESSED)
    looked = [place / dataset.name / SPLITS for place in places]
    found = next((path for path in looked if path.is_file()), None)
    if found is None:
        raise UserError(
            f"There is no {looked[0]}, without which nobody knows what the folds were trained on; give it with "
            f"--splits_file, or set nnUNet_preprocessed as for the training."
        )
    return found


def find_labels(splits_file: Path, results: Path) -> Path:
    """Find the labels of the training: ``gt_segmentations`` beside the splits, or ``labelsTr`` in ``nnUNet_raw``.

    Raises:
        UserError: there are none.
    """
    places = [splits_file.parent / "gt_segmentations"]
    if raw := os.environ.get(RAW):
        places.append(Path(raw) / results.resolve().parent.name / "labelsTr")
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise UserError(
            f"There are no labels in {' or '.join(map(str, places))}; give the folder of the labels with --labels_dir."
        )
    return found


def read_splits(path: Path) -> _Splits:
    """Read a ``splits_final.json``: of every fold, the cases of ``train`` and ``val``.

    Raises:
        UserError: it is damaged, or a case of a fold is in both.
    """
    try:
        splits: Any = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        splits = None
    listed = isinstance(splits, list) and all(
        isinstance(split, dict) and all(isinstance(split.get(part), list) for part in ("train", "val"))
        for split in splits
    )
    if not listed or not splits:
        raise UserError(f"{path} is not the {SPLITS} of nnU-Net, which lists train and val of every fold.")
    for number, split in enumerate(splits):
        if both := sorted(set(split["train"]) & set(split["val"])):
            raise UserError(
                f"{path} has the case {both[0]} in both train and val of fold {number}, so its prediction is none of "
                f"a new case; leave the fold out with --folds, or train it anew."
            )
    return splits


def read_folds(results: Path, splits_file: Path, chosen: Sequence[int] | None = None) -> list[Fold]:
    """Find the predictions of the validation cases, and check that none of them was trained on.

    Args:
        results: folder with ``fold_0/validation`` and so on.
        splits_file: the ``splits_final.json`` of the training.
        chosen: numbers of the folds; all that are there when None.

    Raises:
        UserError: naming fold and case: a fold is missing, has no archives or not those of all its validation cases,
            or has one of a case that it was trained on, that it does not know or that another fold has.
    """
    splits = read_splits(splits_file)
    trained = sorted(int(found[1]) for path in results.glob("fold_*") if (found := _FOLD.fullmatch(path.name)))
    if not trained:
        only_all = (results / "fold_all").is_dir()
        raise UserError(
            f"{results} holds no folder fold_0, fold_1 and so on"
            f"{', only fold_all, which was trained on all cases' * only_all}; give the folder of a training of nnU-Net "
            f"as nnunet_results, such as nnUNet_results/Dataset004_Heart/nnUNetTrainer__nnUNetPlans__3d_fullres."
        )
    folds = []
    fold_of: dict[str, str] = {}
    for number in trained if chosen is None else chosen:
        if number not in trained:
            there = ", ".join(map(str, trained))
            raise UserError(f"{results} holds no fold_{number}; train it, or choose --folds among {there}.")
        fold = _read_fold(results, number, splits, splits_file)
        for case in fold.cases:
            if case in fold_of:
                raise UserError(
                    f"The case {case} is in the validation of both {fold_of[case]} and {fold.name} of {results}; a "
                    f"case belongs to one fold, so leave one of them out with --folds."
                )
            fold_of[case] = fold.name
        folds.append(fold)
    return folds


def check_new(cases: Sequence[str], splits: _Splits, splits_file: Path) -> None:
    """Check that cases that are to be calibrated are none of the training.

    Raises:
        UserError: naming the case.
    """
    known = {case for split in splits for part in ("train", "val") for case in split[part]}
    if old := [case for case in cases if case in known]:
        raise UserError(
            f"The case {old[0]} is to be predicted as a new one, but {splits_file} lists it among those of the "
            f"training; its prediction by the folds is calibrated anyhow, so leave it out of --predictions."
        )


def _read_fold(results: Path, number: int, splits: _Splits, splits_file: Path) -> Fold:
    name = f"fold_{number}"
    folder = results / name / "validation"
    again = "run nnUNetv2_train with the same arguments and --val --npz"
    if number >= len(splits):
        raise UserError(
            f"{splits_file} lists {len(splits)} folds, so nothing tells what {name} was trained on; leave it out with "
            f"--folds."
        )
    cases = sorted(path.stem for path in folder.glob("*.npz"))
    if not cases:
        raise UserError(f"{folder} holds no probabilities (.npz) of the validation cases; {again} for fold {number}.")
    split = splits[number]
    for case in cases:
        if case in split["train"]:
            raise UserError(
                f"The case {case} lies in {folder}, but {splits_file} lists it in train of fold {number}; a calibrator "
                f"must not see what the network was trained on, so give the splits of this training."
            )
        if case not in split["val"]:
            raise UserError(
                f"The case {case} lies in {folder}, but not in val of fold {number} of {splits_file}; give the splits "
                f"of this training."
            )
    if lacking := sorted(set(split["val"]) - set(cases)):
        raise UserError(f"{folder} lacks {lacking[0]}.npz, a validation case of fold {number}; {again}.")
    return Fold(name, folder, cases)
