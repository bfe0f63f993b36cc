"""Datasets whose files are named by a pattern, with or without a table."""

from __future__ import annotations

import json
import os
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medcalib.data.case_tables import column_num_folds
from medcalib.data.cases import Case
from medcalib.data.file_patterns import (
    CASE,
    CLASS,
    PART,
    checked_pattern,
    filled,
    found_cases,
    marks_of,
    matching_files,
)
from medcalib.data.pattern import pattern_cases
from medcalib.data.rater_files import RATER_MARK
from medcalib.data.split_folders import named_folders, validation_is_tested
from medcalib.data.structure_files import is_there
from medcalib.errors import UserError, listed
from medcalib.files.tables import read_table
from medcalib.keys import CaseKeys, LabelType, SplitKeys
from medcalib.planning.dataset_source import DatasetSource, check_enough
from medcalib.planning.label_names import LabelPlan
from medcalib.planning.other_endings import passed_over
from medcalib.planning.structure_names import channels_of_label, structure_names

__all__ = ["PatternOptions", "pattern_source"]

_NAMES = "@data::class_names"
_LISTED_RATERS = 8


class PatternOptions(NamedTuple):
    """What a user says of a dataset beside its patterns.

    Attributes:
        dataset_dir: folder below which everything lies; what all paths begin with, if None.
        table: path of the table.
        class_column: its column with the class of whole images.
        group: its column with the patient.
        split_column: its column with the part of each case.
        attributes: its columns by which results are reported, too.
        lists: path of a text file with ids by part.
        splits: path of a ``splits_final.json``.
        fold: which fold of it, or of ``fold_column``.
        channel_names: names of the channels.
        class_names: names of the classes.
        missing_structures: ``absent``, if a structure without a file is not there; None if that is not known.
        fold_column: its column with the fold of each case.
    """

    dataset_dir: str | None = None
    table: str | None = None
    class_column: str | None = None
    group: str | None = None
    split_column: str | None = None
    attributes: tuple[str, ...] = ()
    lists: Mapping[str, str] | None = None
    splits: str | None = None
    fold: int | None = None
    channel_names: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    missing_structures: str | None = None
    fold_column: str | None = None
    ignore_label: int | None = None


def pattern_source(images: Sequence[str], labels: str | None, options: PatternOptions) -> DatasetSource:
    """Read a dataset whose files are named by patterns.

    Args:
        images: pattern of the images, or one for each file of channels.
        labels: pattern of the labels; None where whole images are classified.
        options: what else is known.

    Raises:
        UserError: as of `medcalib.data.pattern_cases`; or patterns and table contradict each other.
    """
    in_folders = CLASS in images[0]
    if sum((labels is not None, options.class_column is not None, in_folders)) != 1:
        raise UserError(
            "Give either --labels, the pattern of the label files, or, if whole images are classified, --table with "
            "--class_column or {class} in the pattern of the images."
        )
    if options.class_column is not None and options.table is None:
        raise UserError("--class_column needs --table, the csv that has this column and one of the name case.")
    if options.ignore_label is not None and (labels is None or CLASS in labels):
        raise UserError("--ignore_label is a value of label maps, which these data do not have: leave it out.")
    if options.ignore_label is not None and labels is not None and RATER_MARK in labels:
        raise UserError(f"--ignore_label and {RATER_MARK} in --labels do not go together yet: leave one of them out.")
    if options.ignore_label == 0:
        raise UserError("--ignore_label is 0, but that is the background: give the value of voxels of unknown truth.")
    root = _root(images, labels, options)
    listing = _listing(root, images, labels, options)
    class_names, notes, plan = options.class_names, [], None
    first = listing["image"] if isinstance(listing["image"], str) else listing["image"][0]
    patterns: list[str] = []
    has_raters = labels is not None and RATER_MARK in labels
    if options.class_column is not None and not class_names:
        class_names = _classes(root / listing["table"], options.class_column)
    elif in_folders:
        class_names = class_names or _folders(root, first)
    elif labels is not None and CLASS in labels:
        class_names, left_out = structure_names(root, [first, listing["label"]], options.class_names)
        if left_out:
            notes.append(f"{listed(left_out, 3)} left out, since --class_names does not list them.")
        patterns = [filled(listing["label"], {CLASS: name}) for name in class_names[1:]]
        if options.missing_structures is not None:
            listing["missing_structures"] = options.missing_structures
    elif labels is not None and not has_raters:
        patterns = [listing["label"]]
        found = channels_of_label(root, first, listing["label"], options.class_names)
        if found is not None:
            class_names, listing["label_channels"] = found
            if options.ignore_label is not None:
                raise UserError(
                    "--ignore_label is a value of label maps, but these labels have one channel for each structure, "
                    "which is 0 or another value: leave it out."
                )
    if options.missing_structures is not None and "missing_structures" not in listing:
        raise UserError("--missing_structures needs {class} in --labels, the pattern of one file for each structure.")
    if in_folders or "label_channels" in listing or (labels is not None and CLASS in labels):
        listing["class_names"] = _NAMES
        plan = None if in_folders else LabelPlan(class_names, tuple(range(len(class_names))))
    if patterns and (unlabelled := _unlabelled(root, first, patterns)):
        listing["skip_unlabelled"] = True
        number = f"{len(unlabelled)} image{'s' * (len(unlabelled) > 1)} without a label"
        notes.append(f"{number} ({listed(unlabelled, 3)}) left out; medcalib run --images predicts them.")
    if has_raters:
        listing["skip_unlabelled"] = True
    cases, training, told = _all_cases(root, listing, class_names)
    notes += [*told, *passed_over(root, first, patterns)]
    if has_raters:
        notes += _rater_notes(cases)
    check_enough(cases, root)
    num_folds = None
    if options.fold_column is not None:
        num_folds = column_num_folds(root / listing["table"], options.fold_column)
    elif options.splits is not None:
        num_folds = len(json.loads((root / listing["splits"]).read_text(encoding="utf-8")))
    return DatasetSource(
        root=root,
        cases=cases,
        channel_names=options.channel_names,
        labels=plan,
        labels_from="--class_names",
        listing={"_target_": "medcalib.data.pattern_cases", **listing},
        listing_reason=_reason(options, root, [first, *patterns]),
        fold=None if num_folds is None else options.fold or 0,
        num_folds=num_folds,
        class_names=class_names,
        classification=labels is None,
        ignore_label=options.ignore_label,
        label_type=str(LabelType.RATERS if has_raters else LabelType.CLASSES),
        notes=notes,
        training=training,
    )


def _rater_notes(cases: Sequence[Case]) -> list[str]:
    """Who labelled how many cases; images that nobody labelled are left out."""
    labelled = Counter(rater for case in cases for rater in case[CaseKeys.RATERS])
    told = ", ".join(f"{rater} {number}" for rater, number in sorted(labelled.items())[:_LISTED_RATERS])
    more = f" and {len(labelled) - _LISTED_RATERS} more" if len(labelled) > _LISTED_RATERS else ""
    return [f"{len(labelled)} rater{'s' * (len(labelled) != 1)} labelled {len(cases)} cases: {told}{more}."]


def _root(images: Sequence[str], labels: str | None, options: PatternOptions) -> Path:
    if options.dataset_dir is not None:
        root = Path(options.dataset_dir).expanduser()
        if not root.is_dir():
            raise UserError(f"The dataset folder '{options.dataset_dir}' does not exist: correct --dataset_dir.")
        return root.absolute()
    for text in (*images, *filter(None, [labels])):
        if CASE not in text:
            raise UserError(
                f"The pattern '{text}' lacks {CASE}, which stands for the case id: write it where the names of files "
                f"differ, such as images/{CASE}.nii.gz."
            )
    places = [
        str(Path(text[: min(map(text.index, marks_of(text)))] + "x").expanduser().absolute().parent)
        for text in (*images, *filter(None, [labels]))
    ]
    places += [str(Path(file).expanduser().absolute().parent) for file in filter(None, [options.table])]
    root = Path(os.path.commonpath(places))
    if not root.is_dir():
        raise UserError(f"The folder '{root}', in which the images should lie, does not exist: correct --images.")
    return root


def _listing(root: Path, images: Sequence[str], labels: str | None, options: PatternOptions) -> dict[str, Any]:
    def below(text: str) -> str:
        path = Path(text).expanduser()
        if options.dataset_dir is not None and not path.is_absolute():
            return path.as_posix()
        return Path(os.path.relpath(path.absolute(), root)).as_posix()

    patterns = [below(text) for text in images]
    listing: dict[str, Any] = {"image": patterns[0] if len(patterns) == 1 else patterns}
    if labels is not None:
        listing["label"] = below(labels)
    if options.table is not None:
        listing["table"] = below(options.table)
    for name in ("class_column", "group", "split_column", "fold_column"):
        if (value := getattr(options, name)) is not None:
            listing[name] = value
    if options.attributes:
        listing["attributes"] = list(options.attributes)
    if options.lists:
        listing["lists"] = {part: below(file) for part, file in options.lists.items()}
    if options.splits:
        listing["splits"] = below(options.splits)
    if options.splits or options.fold_column:
        listing["fold"] = options.fold or 0
    in_folders = any(PART in text for text in (*images, *filter(None, [labels])))
    if not (options.split_column or options.fold_column or options.lists or options.splits or in_folders):
        listing |= {"validation_fraction": 0.1, "test_fraction": 0.2, "seed": 0}
    return listing


def _all_cases(
    root: Path, listing: Mapping[str, Any], class_names: Sequence[str]
) -> tuple[list[Case], frozenset[str], list[str]]:
    """All cases, divided as the fragment will divide them, ids of the training cases if given, and what is left out."""
    arguments = {**listing, **({"class_names": class_names} if {"class_column", "class_names"} & {*listing} else {})}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        split = pattern_cases(root, **arguments)
    known = {case[CaseKeys.CASE]: case for part in (*SplitKeys,) for case in split[part.value]}
    given = "test_fraction" not in listing
    training = frozenset(str(case[CaseKeys.CASE]) for case in split[SplitKeys.TRAINING] if given)
    return [known[name] for name in sorted(known)], training, [str(one.message) for one in caught]


def _unlabelled(root: Path, image: str, labels: Sequence[str]) -> list[str]:
    names = found_cases(root, [image, *labels], [image])
    return sorted(
        name for name, values in names.items() if not any(is_there(root / filled(label, values)) for label in labels)
    )


def _folders(root: Path, image: str) -> tuple[str, ...]:
    """Names of the classes by the folders of whole images."""
    names = sorted({values[CLASS] for _, _, values in matching_files(root, [checked_pattern(root, image)])})
    if len(names) < 2:
        raise UserError(
            f"{len(names)} folder(s) of classes match '{image}' in '{root}', but two are needed at least: correct "
            f"--images."
        )
    return tuple(names)


def _classes(table: Path, column: str) -> tuple[str, ...]:
    have, rows = read_table(table)
    if column not in have:
        raise UserError(f"'{table}' lacks the column '{column}', it has {', '.join(have)}: correct --class_column.")
    names = sorted({row[column] for row in rows if row.get(column)})
    if len(names) < 2:
        raise UserError(f"The column '{column}' of '{table}' has {len(names)} class(es), but two are needed at least.")
    return tuple(names)


def _reason(options: PatternOptions, root: Path, patterns: Sequence[str]) -> str:
    if any(PART in pattern for pattern in patterns):
        folders = named_folders(found_cases(root, patterns, patterns))
        told = f"the folders {', '.join(folders)} divide the cases"
        aside = "a tenth of the training cases is set aside for validation"
        if validation_is_tested(folders.values()):
            held_out = next(name for name, part in folders.items() if part == SplitKeys.VALIDATION)
            return f"{told}; without one of test cases, {held_out} is the test part, and {aside}"
        return told if SplitKeys.VALIDATION in folders.values() else f"{told}; {aside}"
    if options.fold_column:
        return (
            f"the folds of the column {options.fold_column} of the table; the fold is the test part, or where there "
            f"are other test cases the validation part"
        )
    if options.split_column:
        return f"the column {options.split_column} of the table divides the cases"
    if options.lists:
        return "lists of ids divide the cases"
    if options.splits:
        return "the folds of splits_final.json; val is the test part, and of train a tenth is set aside for validation"
    if options.group:
        return f"the cases are drawn by chance; those of one {options.group} stay together"
    return "nobody has divided the cases, so they are drawn by chance; where a patient has several, name the column"
