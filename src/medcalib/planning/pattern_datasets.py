"""Datasets whose files are named by a pattern, with or without a table."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medcalib.data.cases import Case
from medcalib.data.dataset_folders import visible
from medcalib.data.pattern import pattern_cases
from medcalib.data.rater_files import RATER_MARK
from medcalib.errors import UserError, listed
from medcalib.files.tables import read_table
from medcalib.keys import CaseKeys, LabelType, SplitKeys
from medcalib.planning.dataset_source import DatasetSource, check_enough

__all__ = ["PatternOptions", "pattern_source"]

_MARK = "{case}"
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
        fold: which fold of it.
        channel_names: names of the channels.
        class_names: names of the classes.
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


def pattern_source(images: Sequence[str], labels: str | None, options: PatternOptions) -> DatasetSource:
    """Read a dataset whose files are named by patterns.

    Args:
        images: pattern of the images, or one for each file of channels.
        labels: pattern of the labels; None where whole images are classified.
        options: what else is known.

    Raises:
        UserError: as of `medcalib.data.pattern_cases`; or patterns and table contradict each other.
    """
    if (labels is None) == (options.class_column is None):
        raise UserError(
            "Give either --labels, the pattern of the label files, or --table with --class_column, if whole images are "
            "classified."
        )
    if options.class_column is not None and options.table is None:
        raise UserError("--class_column needs --table, the csv that has this column and one of the name case.")
    root = _root(images, labels, options)
    listing = _listing(root, images, labels, options)
    class_names = options.class_names
    if options.class_column is not None and not class_names:
        class_names = _classes(root / listing["table"], options.class_column)
    notes = []
    has_raters = labels is not None and RATER_MARK in labels
    if labels is not None and not has_raters and (unlabelled := _unlabelled(root, listing["image"], listing["label"])):
        listing["skip_unlabelled"] = True
        number = f"{len(unlabelled)} image{'s' * (len(unlabelled) > 1)} without a label"
        notes = [f"{number} ({listed(unlabelled, 3)}) left out; medcalib run --images predicts them."]
    elif has_raters:
        listing["skip_unlabelled"] = True
    cases = _all_cases(root, listing, class_names)
    if has_raters:
        notes += _rater_notes(cases)
    check_enough(cases, root)
    return DatasetSource(
        root=root,
        cases=cases,
        channel_names=options.channel_names,
        labels=None,
        labels_from="--class_names",
        listing={"_target_": "medcalib.data.pattern_cases", **listing},
        listing_reason=_reason(options),
        fold=(options.fold or 0) if options.splits else None,
        class_names=class_names,
        classification=options.class_column is not None,
        label_type=str(LabelType.RATERS if has_raters else LabelType.CLASSES),
        notes=notes,
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
        if _MARK not in text:
            raise UserError(
                f"The pattern '{text}' lacks {_MARK}, which stands for the case id: write it where the names of files "
                f"differ, such as images/{_MARK}.nii.gz."
            )
    places = [
        str(Path(text.partition(_MARK)[0] + "x").expanduser().absolute().parent)
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
    for name in ("class_column", "group", "split_column"):
        if (value := getattr(options, name)) is not None:
            listing[name] = value
    if options.attributes:
        listing["attributes"] = list(options.attributes)
    if options.lists:
        listing["lists"] = {part: below(file) for part, file in options.lists.items()}
    if options.splits:
        listing |= {"splits": below(options.splits), "fold": options.fold or 0}
    if not (options.split_column or options.lists or options.splits):
        listing |= {"validation_fraction": 0.1, "test_fraction": 0.2, "seed": 0}
    return listing


def _all_cases(root: Path, listing: Mapping[str, Any], class_names: Sequence[str]) -> list[Case]:
    """All cases, divided as the fragment will divide them, which shows whether they can be."""
    arguments = {**listing, **({"class_names": class_names} if "class_column" in listing else {})}
    split = pattern_cases(root, **arguments)
    known = {case[CaseKeys.CASE]: case for part in (*SplitKeys,) for case in split[part.value]}
    return [known[name] for name in sorted(known)]


def _unlabelled(root: Path, image: str | Sequence[str], label: str) -> list[str]:
    first = image if isinstance(image, str) else image[0]
    begin, *others = (re.escape(part) for part in first.split(_MARK))
    known = re.compile(f"{begin}(?P<case>[^/]+){'(?P=case)'.join(others)}")
    of_labels = set(visible(root, glob.escape(label).replace(_MARK, "*")))
    names = [
        match["case"]
        for path in visible(root, glob.escape(first).replace(_MARK, "*"))
        if path not in of_labels and (match := known.fullmatch(path.relative_to(root).as_posix()))
    ]
    return [name for name in names if not (root / label.replace(_MARK, name)).exists()]


def _classes(table: Path, column: str) -> tuple[str, ...]:
    have, rows = read_table(table)
    if column not in have:
        raise UserError(f"'{table}' lacks the column '{column}', it has {', '.join(have)}: correct --class_column.")
    names = sorted({row[column] for row in rows if row.get(column)})
    if len(names) < 2:
        raise UserError(f"The column '{column}' of '{table}' has {len(names)} class(es), but two are needed at least.")
    return tuple(names)


def _reason(options: PatternOptions) -> str:
    if options.split_column:
        return f"the column {options.split_column} of the table divides the cases"
    if options.lists:
        return "lists of ids divide the cases"
    if options.splits:
        return "the folds of splits_final.json; val is the test part, and of train a tenth is set aside for validation"
    if options.group:
        return f"the cases are drawn by chance; those of one {options.group} stay together"
    return "nobody has divided the cases, so they are drawn by chance; where a patient has several, name the column"
