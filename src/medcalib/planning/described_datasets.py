"""Datasets that come with a ``dataset.json``: those of the Decathlon and of nnU-Net."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medcalib.data.case_tables import column_num_folds
from medcalib.data.cases import Case
from medcalib.data.dataset_folders import nifti_names
from medcalib.data.given_splits import fold_parts
from medcalib.data.sets.decathlon import decathlon_cases, patient_of
from medcalib.data.sets.nnunet_raw import nnunet_cases, nnunet_files
from medcalib.errors import UserError, listed
from medcalib.files.writing import read_json
from medcalib.keys import CaseKeys
from medcalib.planning.dataset_source import DatasetSource, check_enough
from medcalib.planning.label_names import labels_by_name

__all__ = ["TableColumns", "decathlon_source", "nnunet_source"]

_FRACTIONS = [0.7, 0.1, 0.2]
_SPLITS = "splits_final.json"
_PREPROCESSED = "nnUNet_preprocessed"


class TableColumns(NamedTuple):
    """Columns of a table that divide the cases of a dataset which comes without.

    Attributes:
        table: path of the csv.
        split_column: its column with the part of each case.
        fold_column: its column with the fold of each case.
    """

    table: str | None = None
    split_column: str | None = None
    fold_column: str | None = None


NO_TABLE = TableColumns()


def decathlon_source(folder: str | Path, columns: TableColumns = NO_TABLE, fold: int | None = None) -> DatasetSource:
    """Read a task in the layout of the Medical Segmentation Decathlon.

    Args:
        folder: such as ``Task04_Hippocampus``.
        columns: of a table, how the cases are divided; by chance without.
        fold: which fold of the table is held out, 0 if None.

    Raises:
        UserError: the folder is laid out differently, or ``dataset.json`` is missing, damaged or contradicts the files.
    """
    root = _folder(folder)
    path = root / "dataset.json"
    if not path.is_file():
        raise UserError(f"'{root}' lacks dataset.json, which every task of the Decathlon has: name its folder.")
    description = read_json(path, "repair it")
    if "channel_names" in description and "modality" not in description:
        raise UserError(f"{path} is that of nnU-Net, version 2: give --nnunet instead of --decathlon.")
    modality = description.get("modality")
    if not isinstance(modality, Mapping) or not modality:
        raise UserError(f"{path} lacks modality, such as {{'0': 'CT'}}: add it.")
    cases = _all_cases_of(root)
    check_enough(cases, root)
    _check_training_list(description.get("training"), [case[CaseKeys.CASE] for case in cases], path)
    by_table, reason, num_folds = _by_table(columns, fold)
    listing = {"_target_": "medcalib.data.decathlon_cases", "fractions": _FRACTIONS, "seed": 0, **by_table}
    decathlon_cases(root, **{key: value for key, value in listing.items() if key != "_target_"})
    unlabelled = nifti_names(root / "imagesTs")
    return DatasetSource(
        root=root,
        cases=cases,
        channel_names=_ordered(modality),
        labels=labels_by_name(description.get("labels"), str(path)),
        labels_from=str(path),
        listing=listing,
        listing_reason=reason or _by_chance(cases),
        fold=None if num_folds is None else fold or 0,
        num_folds=num_folds,
        metadata=_about(description),
        notes=_left_out(unlabelled),
    )


def nnunet_source(
    folder: str | Path, splits: str | None = None, fold: int | None = None, columns: TableColumns = NO_TABLE
) -> DatasetSource:
    """Read a dataset in nnU-Net's layout, version 2.

    Args:
        folder: such as ``nnUNet_raw/Dataset004_Hippocampus``.
        splits: path of a ``splits_final.json``; if None, one in the folder, or in that of the same name under
            ``nnUNet_preprocessed`` beside ``nnUNet_raw``.
        fold: which fold of it, or of the table, 0 if None.
        columns: of a table, how the cases are divided; ``splits`` must be None then.

    Raises:
        UserError: as of `medcalib.data.sets.nnunet_raw.nnunet_files`; labels or ``splits`` are unusable, or ``fold`` is
            given without them.
    """
    root = _folder(folder)
    path = root / "dataset.json"
    described = read_json(path, "repair it") if path.is_file() else {}
    if "modality" in described and "channel_names" not in described:
        raise UserError(f"{path} is that of the Decathlon or of nnU-Net, version 1: give --decathlon, not --nnunet.")
    found = nnunet_files(root)
    check_enough([*found.training, *found.test], root)
    listing: dict[str, Any] = {"_target_": "medcalib.data.nnunet_cases"}
    by_table, by_table_reason, num_folds = _by_table(columns, fold)
    given = None if by_table else _given_splits(root, splits)
    if by_table:
        if splits is not None:
            raise UserError("--splits and --table both divide the cases: leave one out.")
        reason = by_table_reason
        listing |= {"fractions": _FRACTIONS, "seed": 0, **by_table}
        fold = None if num_folds is None else fold or 0
    elif given is None:
        if fold is not None:
            raise UserError(f"--fold needs a {_SPLITS}, of which there is none in '{root}': name it with --splits.")
        reason = _by_chance(found.training)
        if found.test:
            reason = "labelsTs has the labels of the test part; of the training cases a share is for validation"
        listing |= {"fractions": _FRACTIONS, "seed": 0}
    else:
        fold = fold or 0
        fold_parts(given, fold)
        num_folds = len(json.loads(given.read_text(encoding="utf-8")))
        listing |= {"splits": str(given.relative_to(root) if given.is_relative_to(root) else given), "fold": fold}
        reason = f"the folds of {given.name}; " + (
            "val is the validation part, labelsTs the test part"
            if found.test
            else "val is the test part, and of train a tenth or so is set aside for validation"
        )
    nnunet_cases(root, **{key: value for key, value in listing.items() if key != "_target_"})
    return DatasetSource(
        root=root,
        cases=[*found.training, *found.test],
        channel_names=_ordered(found.description["channel_names"]),
        labels=labels_by_name(found.description.get("labels"), str(path)),
        labels_from=str(path),
        listing=listing,
        listing_reason=reason,
        fold=fold,
        num_folds=num_folds,
        metadata=_about(found.description),
        notes=_left_out(found.without_label),
    )


def _by_table(columns: TableColumns, fold: int | None) -> tuple[dict[str, Any], str, int | None]:
    """What a fragment says of the columns, why, and how many folds there are."""
    named = {key: value for key, value in columns._asdict().items() if value is not None}
    if not named:
        return {}, "", None
    if columns.table is None:
        raise UserError(f"--{next(iter(named))} needs --table, the csv that has this column and one of the name case.")
    path = Path(columns.table).expanduser().absolute()
    if not path.is_file():
        raise UserError(f"The table '{columns.table}' does not exist: correct --table.")
    named["table"] = str(path)
    if columns.fold_column is None:
        if columns.split_column is None:
            raise UserError("--table says nothing yet: name --split_column or --fold_column, which divide the cases.")
        return named, f"the column {columns.split_column} of the table divides the cases", None
    reason = (
        f"the folds of the column {columns.fold_column} of the table; the fold is the test part, or where there are "
        f"other test cases the validation part"
    )
    return named | {"fold": fold or 0}, reason, column_num_folds(path, columns.fold_column)


def _folder(folder: str | Path) -> Path:
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise UserError(f"The dataset folder '{folder}' does not exist: correct the path.")
    return root.absolute()


def _all_cases_of(root: Path) -> list[Case]:
    names = sorted({name for part in ("imagesTr", "labelsTr") for name in nifti_names(root / part)})
    if not names:
        raise UserError(f"'{root}' has no NIfTI files in imagesTr: name the folder of one task.")

    def file(part: str, name: str) -> str:
        packed, plain = (root / part / f"{name}{ending}" for ending in (".nii.gz", ".nii"))
        return str(plain if plain.is_file() and not packed.is_file() else packed)

    return [
        {
            CaseKeys.CASE.value: name,
            CaseKeys.IMAGE.value: file("imagesTr", name),
            CaseKeys.LABEL.value: file("labelsTr", name),
        }
        for name in names
    ]


def _check_training_list(training: Any, names: list[str], path: Path) -> None:
    if not isinstance(training, list):
        raise UserError(f"{path} lacks training, the list of images and labels: add it.")
    told = set()
    for entry in training:
        image = entry.get("image") if isinstance(entry, Mapping) else None
        if not isinstance(image, str):
            raise UserError(f"{path} has the training case {entry!r}, which names no image: correct it.")
        told.add(Path(image).name.removesuffix(".gz").removesuffix(".nii"))
    for lacking, where in ((told - set(names), "imagesTr lacks it"), (set(names) - told, "its list training lacks it")):
        if lacking:
            case = min(lacking)
            raise UserError(
                f"{path} contradicts the files of case '{case}', since {where} ({len(lacking)} such case"
                f"{'s' * (len(lacking) > 1)}): fetch or remove its files, or correct the list."
            )


def _ordered(names: Mapping[str, Any]) -> tuple[str, ...]:
    keys = sorted(names, key=lambda key: (not str(key).isdigit(), int(key) if str(key).isdigit() else 0))
    return tuple(str(names[key]) for key in keys)


def _given_splits(root: Path, splits: str | None) -> Path | None:
    if splits is not None:
        path = Path(splits).expanduser()
        if not path.is_file():
            raise UserError(f"The file '{splits}' does not exist: correct --splits.")
        return path.absolute()
    places = [root / _SPLITS, root.parent.parent / _PREPROCESSED / root.name / _SPLITS]
    return next((path for path in places if path.is_file()), None)


def _about(description: Mapping[str, Any]) -> dict[str, str]:
    known = {key: str(description[key]).strip() for key in ("name", "description", "reference") if description.get(key)}
    licence = description.get("licence") or description.get("license")
    return known | ({"licence": str(licence)} if licence else {})


def _left_out(unlabelled: list[str]) -> list[str]:
    if not unlabelled:
        return []
    number = f"{len(unlabelled)} image{'s' * (len(unlabelled) > 1)} of imagesTs without a label"
    return [f"{number} ({listed(unlabelled, 3)}) left out; medcalib run --images predicts them."]


def _by_chance(cases: Sequence[Case]) -> str:
    reason = "nobody has divided the cases, so they are drawn by chance"
    if patient_of(cases) is not None:
        reason += "; 1 and 2, 3 and 4 and so on are the two sides of a person and stay together"
    return reason
