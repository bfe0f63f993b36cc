"""Case lists of CRIC Cervix, cells on Pap smears with their class in the Bethesda system."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medcalib.data.cases import Case, Split, assemble_split
from medcalib.data.dataset_folders import Download
from medcalib.errors import UserError
from medcalib.files.tables import read_table
from medcalib.keys import CaseKeys

__all__ = ["cric_cases"]

_DOWNLOAD = Download(
    "the folder that holds classifications.csv and the images",
    "the data can be had from https://database.cric.com.br/downloads",
)
_IMAGE, _CELL, _CLASS, _X, _Y = "image_filename", "cell_id", "bethesda_system", "nucleus_x", "nucleus_y"
_COLUMNS = (_IMAGE, _CELL, _CLASS, _X, _Y)
_CLASSES = {
    "negative for intraepithelial lesion": "negative",
    "asc-us": "ASC-US",
    "lsil": "LSIL",
    "asc-h": "ASC-H",
    "hsil": "HSIL",
    "scc": "SCC",
}
_NAMES = list(_CLASSES.values())
_TEST_FOLDS, _FOLDS = 10, 5
_PICTURES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}


def cric_cases(
    dataset_dir: str | Path, num_classes: int = 2, fold: int = 0, crop_size: int = 100, seed: int = 0
) -> Split:
    """List the cells of CRIC Cervix for classification, divided by image.

    Every row of the table is a case, named ``cell_<cell_id>``. Its ``image`` is that of the slide, its ``crop`` a
    square around the nucleus, and its ``label`` a class index: with two classes 0 for negative and 1 for abnormal, with
    six those of the Bethesda system in the order negative, ASC-US, LSIL, ASC-H, HSIL, SCC. The latter is one of the
    ``attributes``, too.

    A tenth of the cells is the test part, the same for every fold. The rest is dealt to five folds, of which one is for
    validation and four for training. The cells of an image stay together, and every fold has about the same share of
    each of the six classes. Where there are fewer images than folds, every image is a fold.

    Args:
        dataset_dir: folder that holds the table and the images, which may lie in a folder of their own.
        num_classes: 2 or 6.
        fold: which of the five folds is for validation, 0 to 4.
        crop_size: side of the square, in pixels.
        seed: seed of the division.

    Returns:
        The split. The first cases of a part are one of every image, the others follow image by image, so that a few
        cases are of several images and no image has to be read for each of its cells; random but fixed otherwise.

    Raises:
        UserError: if the folder is missing or laid out differently, if the table lacks a column, if a row has an
            unknown class or no coordinates, if an image is missing or there twice, if an argument is not usable, or if
            there are too few images.
    """
    if num_classes not in (2, len(_NAMES)):
        raise UserError(
            f"num_classes is {num_classes!r}: give 2 (negative, abnormal) or {len(_NAMES)} ({', '.join(_NAMES)})."
        )
    _check_whole("fold", fold, 0, _FOLDS - 1)
    _check_whole("crop_size", crop_size, 1)
    _check_whole("seed", seed)
    root = _DOWNLOAD.root(dataset_dir)
    table, rows = _read_table(root)
    images = _images(root, table, rows)
    cases = [_case(table, row, images, num_classes, crop_size) for row in rows]
    cases = _order(cases, seed)
    rest, test = _divide(cases, _TEST_FOLDS, 0, seed)
    training, validation = _divide(rest, _FOLDS, fold, seed)
    return assemble_split(training, validation, test)


def _check_whole(name: str, number: Any, low: int | None = None, high: int | None = None) -> None:
    if isinstance(number, bool) or not isinstance(number, int):
        raise UserError(f"{name} is {number!r}: give a whole number.")
    if (low is not None and number < low) or (high is not None and number > high):
        limits = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise UserError(f"{name} is {number!r}: give a whole number {limits}.")


def _read_table(root: Path) -> tuple[Path, list[dict[str, str]]]:
    tables = sorted(path for path in root.rglob("*.csv") if not path.name.startswith("."))
    if not tables:
        raise _DOWNLOAD.nothing_matched(root, "*.csv")
    lacking_of = {}
    for table in tables:
        columns, rows = read_table(table)
        lacking_of[table] = [column for column in _COLUMNS if column not in columns]
        if not lacking_of[table]:
            return table, rows
    table, lacking = min(lacking_of.items(), key=lambda item: len(item[1]))
    raise UserError(
        f"'{table}' lacks the column '{lacking[0]}' of those that are needed, {', '.join(_COLUMNS)}: take the table "
        f"classifications.csv as it was downloaded ({_DOWNLOAD.source})."
    )


def _images(root: Path, table: Path, rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Paths of the images that the table names."""
    wanted = {Path(row[_IMAGE]).name for row in rows if row.get(_IMAGE)}
    paths = [path for path in sorted(root.rglob("*")) if path.suffix.lower() in _PICTURES and path.name in wanted]
    if not paths:
        raise _DOWNLOAD.nothing_matched(root, f"the images that '{table}' names")
    if repeated := [name for name, count in Counter(path.name for path in paths).items() if count > 1]:
        first, second = [path for path in paths if path.name == repeated[0]][:2]
        raise UserError(f"The image {repeated[0]} is there twice, as '{first}' and '{second}': keep one of them.")
    if lacking := sorted(wanted - {path.name for path in paths}):
        raise UserError(
            f"'{table}' names the image {lacking[0]}, which is not in '{root}' ({len(paths)} of {len(wanted)} are): "
            f"extract or download the missing images, or remove their rows ({_DOWNLOAD.source})."
        )
    return {path.name: str(path) for path in paths}


def _case(table: Path, row: Mapping[str, str], images: Mapping[str, str], num_classes: int, crop_size: int) -> Case:
    name = f"cell_{row.get(_CELL, '?')}"
    where = f"Case '{name}': its row in '{table}'"
    if lacking := [column for column in _COLUMNS if not row.get(column)]:
        raise UserError(f"{where} has no value in the column '{lacking[0]}'; add it or remove the row.")
    if row[_CLASS].lower() not in _CLASSES:
        raise UserError(
            f"{where} has the class '{row[_CLASS]}' in the column '{_CLASS}', which is none of "
            f"{', '.join(_CLASSES).upper()}; correct it or remove the row."
        )
    place = []
    for column in (_X, _Y):
        try:
            place.append(round(float(row[column])))
        except (ValueError, OverflowError):
            raise UserError(
                f"{where} says '{row[column]}' in the column '{column}'; give a number of pixels or remove the row."
            ) from None
    bethesda = _CLASSES[row[_CLASS].lower()]
    index = _NAMES.index(bethesda)
    return {
        CaseKeys.CASE.value: name,
        CaseKeys.IMAGE.value: images[Path(row[_IMAGE]).name],
        CaseKeys.LABEL.value: min(index, num_classes - 1),
        CaseKeys.CROP.value: [*(middle - crop_size // 2 for middle in place), crop_size, crop_size],
        CaseKeys.ATTRIBUTES.value: {"bethesda": bethesda},
    }


def _rank(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode(errors="surrogateescape")).hexdigest()


def _order(cases: Sequence[Case], seed: int) -> list[Case]:
    """One cell of every image, then the others image by image; ranked by hashes."""
    of_image: dict[str, list[Case]] = {}
    for case in sorted(cases, key=lambda case: _rank(seed, case[CaseKeys.CASE])):
        of_image.setdefault(case[CaseKeys.IMAGE], []).append(case)
    groups = [of_image[image] for image in sorted(of_image, key=lambda path: _rank(seed, Path(path).name))]
    return [group[0] for group in groups] + [case for group in groups for case in group[1:]]


def _divide(cases: Sequence[Case], num_folds: int, fold: int, seed: int) -> tuple[list[Case], list[Case]]:
    """The cases of the other folds and those of one."""
    fold_of = _deal(cases, num_folds, seed)
    if fold not in fold_of.values():
        raise UserError(
            f"{len(fold_of)} image(s) cannot fill fold {fold}, counted from 0: add images; all of the download are "
            f"needed ({_DOWNLOAD.source})."
        )
    inside = [fold_of[case[CaseKeys.IMAGE]] == fold for case in cases]
    return (
        [case for case, chosen in zip(cases, inside, strict=True) if not chosen],
        [case for case, chosen in zip(cases, inside, strict=True) if chosen],
    )


def _deal(cases: Sequence[Case], num_folds: int, seed: int) -> dict[str, int]:
    """The fold of every image.

    The largest images come first, and each goes to the fold that has the least of its classes so far: of all folds the
    one that keeps the sum of the squared shares of classes in folds smallest. Images of one size are taken in the order
    of a hash of seed and name.
    """
    images = sorted({case[CaseKeys.IMAGE] for case in cases}, key=lambda path: _rank(seed, Path(path).name))
    number = {image: index for index, image in enumerate(images)}
    counts = np.zeros((len(images), len(_NAMES)))
    for case in cases:
        counts[number[case[CaseKeys.IMAGE]], _NAMES.index(case[CaseKeys.ATTRIBUTES]["bethesda"])] += 1
    totals = np.maximum(counts.sum(0), 1)
    dealt = np.zeros((num_folds, len(_NAMES)))
    fold_of = {}
    for index in np.argsort(-(counts / totals).sum(1), kind="stable"):
        excess = dealt @ (counts[index] / totals**2)
        fold = int(np.lexsort((dealt.sum(1), excess))[0])
        dealt[fold] += counts[index]
        fold_of[images[index]] = fold
    return fold_of
