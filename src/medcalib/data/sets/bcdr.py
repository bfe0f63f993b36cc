"""Case lists of BCDR, the Breast Cancer Digital Repository."""

import filecmp
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from medcalib.data.cases import Case, Split
from medcalib.data.dataset_folders import Download, make_case, visible
from medcalib.data.splits import grouped, split_groups
from medcalib.errors import UserError
from medcalib.files.tables import read_table
from medcalib.keys import CaseKeys

__all__ = ["bcdr_cases"]

_DOWNLOAD = Download(
    "the folder that holds BCDR-D01_dataset and the like, each with its bcdr_*_outlines.csv",
    "the data can be had from https://bcdr.eu",
)
_TABLES = ("bcdr_*_outlines.csv", "*/bcdr_*_outlines.csv", "*/*/bcdr_*_outlines.csv")
_PATIENT, _LESION, _IMAGE, _X, _Y = "patient_id", "lesion_id", "image_filename", "lw_x_points", "lw_y_points"
_COLUMNS = (_PATIENT, _LESION, _IMAGE, _X, _Y)
_MASS, _CLASSIFICATION = "mammography_nodule", "classification"


def bcdr_cases(
    dataset_dir: str | Path,
    validation_fraction: float = 0.2,
    test_fraction: float = 0.2,
    margin: float = 2.0,
    seed: int = 0,
) -> Split:
    """List the outlined masses of BCDR and divide them by patient.

    Every row of a table ``bcdr_*_outlines.csv`` is a case: a lesion in one image. It is named by table, image and
    lesion, as ``d01_img_3_5_1_LCC_lesion7``. Its ``outline`` is the polygon of the table, to which the label is drawn,
    and its ``crop`` a square around the lesion, so that lesions of any size, on films and detectors of any resolution,
    give similar pictures. Rows that are marked as no mass are left out. So are those that list the same outline in the
    same image again, since some of the datasets share images. Dataset and diagnosis become ``attributes``.

    A patient's cases stay together, in whichever of the datasets they are.

    Args:
        dataset_dir: folder that holds ``BCDR-D01_dataset`` and the like, one or several, or one of them.
        validation_fraction: share of all patients that is for validation.
        test_fraction: share of all patients that is for testing.
        margin: side of the crop, as a multiple of the longer side of the lesion.
        seed: seed of the division.

    Returns:
        The split.

    Raises:
        UserError: if the folder is missing or laid out differently, if a table lacks a column, if an outline is no
            polygon, if an image is missing, or if there are too few patients.
    """
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not margin >= 1:
        raise UserError(f"margin is {margin!r}: give a number of at least 1, where the crop ends with the lesion.")
    root = _DOWNLOAD.root(dataset_dir)
    tables = [table for pattern in _TABLES for table in visible(root, pattern)]
    rows = [(table, row) for table, row in _first_listings(tables) if _is_mass(row)]
    if tables and not rows:
        raise UserError(
            f"0 masses are listed in '{tables[0]}'{f' and {len(tables) - 1} more' * (len(tables) > 1)}: take the "
            f"tables as they were downloaded ({_DOWNLOAD.source})."
        )
    names = _unique([_name(table, row) for table, row in rows])
    cases = [_case(name, table, row, margin) for name, (table, row) in zip(names, rows, strict=True)]
    patients = {name: row[_PATIENT] for name, (_, row) in zip(names, rows, strict=True)}
    cases = _DOWNLOAD.complete(cases, root, "BCDR-*_dataset/bcdr_*_outlines.csv")

    def patient(case: Case) -> str:
        return patients[case[CaseKeys.CASE]]

    # 60 : 20 : 20; the published code took its 20 % for validation from what testing had left, so 64 : 16 : 20
    return split_groups(grouped(cases, patient), validation_fraction, test_fraction, seed, patient)


def _first_listings(tables: Sequence[Path]) -> Iterator[tuple[Path, dict[str, str]]]:
    """Rows of all tables but those that repeat an outline in the same image, perhaps of another dataset."""
    seen: dict[tuple[str, str, str], Path] = {}
    for table in tables:
        for row in _read(table):
            listed = (row[_IMAGE], row[_X], row[_Y])
            image = table.parent / row[_IMAGE]
            if listed in seen and _same_file(seen[listed], image):
                continue
            seen[listed] = image
            yield table, row


def _same_file(first: Path, second: Path) -> bool:
    return first == second or (first.is_file() and second.is_file() and filecmp.cmp(first, second, shallow=False))


def _read(table: Path) -> list[dict[str, str]]:
    columns, named = read_table(table)
    if lacking := [column for column in _COLUMNS if column not in columns]:
        raise UserError(
            f"'{table}' lacks the column '{lacking[0]}', it has {', '.join(filter(None, columns)) or 'none'}: take the "
            f"table as it was downloaded ({_DOWNLOAD.source})."
        )
    for number, row in enumerate(named, start=1):
        if lacking := [column for column in _COLUMNS if not row.get(column)]:
            raise UserError(
                f"Row {number} of '{table}' has no value in the column '{lacking[0]}': if the file was cut short, "
                f"download it again ({_DOWNLOAD.source}); else add the value or remove the row."
            )
    return named


def _is_mass(row: Mapping[str, str]) -> bool:
    return row.get(_MASS, "1") not in ("0", "0.0")


def _name(table: Path, row: Mapping[str, str]) -> str:
    dataset = table.stem.removeprefix("bcdr_").removesuffix("_outlines")
    return f"{dataset}_{Path(row[_IMAGE]).stem}_lesion{row[_LESION]}"


def _unique(names: Sequence[str]) -> list[str]:
    """Number the names that come again: some lesions are outlined twice in an image."""
    seen: Counter[str] = Counter()
    unique = []
    for name in names:
        seen[name] += 1
        unique.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return unique


def _case(name: str, table: Path, row: Mapping[str, str], margin: float) -> Case:
    corners = _corners(name, table, row)
    return make_case(name, table.parent / row[_IMAGE], table) | {
        "outline": " ".join(f"{x},{y}" for x, y in corners),
        "crop": _square_around(corners, margin),
        CaseKeys.ATTRIBUTES.value: {
            "dataset": name.split("_")[0],
            _CLASSIFICATION: row.get(_CLASSIFICATION, "").lower() or "unknown",
        },
    }


def _corners(name: str, table: Path, row: Mapping[str, str]) -> list[tuple[int, int]]:
    try:
        xs, ys = ([round(float(number)) for number in row[column].split()] for column in (_X, _Y))
        if len(xs) == len(ys) >= 3:
            return list(zip(xs, ys, strict=True))
    except (ValueError, OverflowError):
        pass
    raise UserError(
        f"Case '{name}': its row in '{table}' has {len(row[_X].split())} value(s) in '{_X}' and {len(row[_Y].split())} "
        f"in '{_Y}', which must be at least three numbers each, and as many in both; correct the row or remove it."
    )


def _square_around(corners: Sequence[tuple[int, int]], margin: float) -> list[int]:
    """Left, top, width and height of a square whose middle is that of the corners' bounding box."""
    lows, highs = ([bound(axis) for axis in zip(*corners, strict=True)] for bound in (min, max))
    extents = [high - low + 1 for low, high in zip(lows, highs, strict=True)]
    side = math.ceil(margin * max(extents))
    return [*(low + (extent - side) // 2 for low, extent in zip(lows, extents, strict=True)), side, side]
