"""Case lists of any dataset whose files are named by one pattern, with a table of what else is known of its cases."""

import glob
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from medcalib.data.cases import Case, Split
from medcalib.data.dataset_folders import Download, make_case, packed_otherwise, visible
from medcalib.data.given_splits import fold_parts, listed_parts, named_part, split_by_parts
from medcalib.data.rater_files import RATER_MARK, is_rater_file, rater_files
from medcalib.data.splits import split_fold, split_groups
from medcalib.errors import UserError
from medcalib.files.tables import read_table
from medcalib.keys import CaseKeys

__all__ = ["pattern_cases"]

_DOWNLOAD = Download(
    "the folder to which the patterns in data::cases belong", "data::metadata::source says where the data can be had"
)
_MARK = "{case}"
_COLUMN = "case"


def pattern_cases(
    dataset_dir: str | Path,
    image: str | Sequence[str],
    label: str | None = None,
    table: str | None = None,
    group: str | None = None,
    attributes: Sequence[str] = (),
    class_column: str | None = None,
    class_names: Sequence[str] = (),
    fold: int | None = None,
    num_folds: int = 5,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 0,
    split_column: str | None = None,
    lists: Mapping[str, str] | None = None,
    splits: str | None = None,
    skip_unlabelled: bool = False,
) -> Split:
    """List the cases of a dataset whose files are named by a pattern, and divide them.

    A pattern is a path below the folder in which ``{case}`` stands for the case id, once or several times, such as
    ``images/{case}.png`` or ``{case}/{case}_t1.nii.gz``. Every file that fits the pattern of the image, of its first
    channel or of the label is a case; one that fits several patterns belongs to the longest, so ``{case}.png`` and
    ``{case}_mask.png`` may lie in one folder.

    Args:
        dataset_dir: folder of the dataset.
        image: pattern of the image, or a list of patterns, one for each file of channels.
        label: pattern of the label; None if whole images are classified. With ``{rater}`` in it, such as
            ``labels/{case}_{rater}.nii.gz``, the label is a list, one file of each rater who labelled the case.
        table: path of a csv below the folder, with a column ``case`` and a row for every case.
        group: column of the table, such as the patient; cases with the same value stay in one part of the split.
        attributes: columns of the table by which results are reported, too, such as vendor and centre.
        class_column: column of the table with the name of the class, if whole images are classified.
        class_names: names of the classes in order, needed with ``class_column``.
        fold: which fold of a cross-validation is the test part, counted from 0; None without one.
        num_folds: number of folds.
        validation_fraction: share of the cases, or groups, that is for validation; with folds, of those in the others.
        test_fraction: share of the cases, or groups, that is for testing; of no use with folds.
        seed: another seed, another division.
        split_column: column of the table with the part of each case, ``training``, ``validation``, ``test`` or
            ``calibration``, in the place of a division by chance.
        lists: path of a text file with ids, one a line, for each part; cases in none are left out.
        splits: path of a ``splits_final.json`` of nnU-Net, whose ``val`` in the ``fold``, 0 if that is left out, is the
            test part.
        skip_unlabelled: whether images without a file of their label are passed over, not refused.

    Returns:
        The split.

    Raises:
        UserError: if a pattern lacks ``{case}``, has a ``*`` or is not below the folder, if the folder is missing or
            laid out differently, if a file of a case is missing, if the table lacks a column, a row or a value, or if
            there are too few cases.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in [f"{kind}_{number}.png" for kind in ("scan", "mask") for number in range(10)]:
        ...         Path(folder, name).touch()
        ...     split = pattern_cases(folder, image="scan_{case}.png", label="mask_{case}.png")
        >>> [case["case"] for case in split["test"]], len(split["training"])
        (['4', '7'], 7)
    """
    if (label is None) == (class_column is None):
        raise UserError("Give data::cases either a label, the pattern of its files, or a class_column of the table.")
    root = _DOWNLOAD.root(dataset_dir)
    images = [_pattern(root, text) for text in ([image] if isinstance(image, str) else image)]
    label = None if label is None else _pattern(root, label)
    if marked := [pattern for pattern in images if RATER_MARK in pattern]:
        raise UserError(
            f"The pattern '{marked[0]}' of images in data::cases holds {RATER_MARK}, but only that of labels may: "
            f"leave it out."
        )
    if label in images:
        raise UserError(f"data::cases has the same pattern '{label}' for image and label: give each its own.")
    raters: dict[str, dict[str, Path]] | None = None
    if label is not None and RATER_MARK in label:
        # who the raters are, the cases tell, and these the images
        names = _without_raters(_names(root, images, {images[0]}), images[0], label)
        raters = rater_files(root, label, names, images)
        if skip_unlabelled:
            names &= raters.keys()
    else:
        names = _names(root, [*images, *([label] if label else ())], {images[0], label or images[0]})
        if skip_unlabelled and label is not None:
            names = {name for name in names if _is_there(root / label.replace(_MARK, name))}
    columns = [column for column in (group, *attributes, class_column, split_column) if column]
    rows = _rows(root, table, columns, sorted(names))
    found = []
    for name in names:
        paths = [root / pattern.replace(_MARK, name) for pattern in images]
        # without a label of its own, the first file stands in for it where files are looked for
        case = make_case(name, paths if len(paths) > 1 else paths[0], root / (label or images[0]).replace(_MARK, name))
        if raters is not None and name in raters:
            case[CaseKeys.LABEL.value] = [str(path) for path in raters[name].values()]
            case[CaseKeys.RATERS.value] = list(raters[name])
        if attributes:
            case[CaseKeys.ATTRIBUTES.value] = {column: rows[name][column] for column in attributes}
        found.append(case)
    looked_for = " with ".join(filter(None, (*images, label))).replace(_MARK, "*").replace(RATER_MARK, "*")
    cases = _DOWNLOAD.complete(found, root, looked_for)
    if class_column is not None:
        for case in cases:
            case[CaseKeys.LABEL.value] = _class(case, rows[case[CaseKeys.CASE]][class_column], class_names)

    def group_of(case: Case) -> str:
        return case[CaseKeys.CASE] if group is None else rows[case[CaseKeys.CASE]][group]

    if len(given := [name for name in (split_column, lists, splits) if name]) > 1:
        raise UserError(f"data::cases divides the cases in {len(given)} ways: keep one of split_column, lists, splits.")
    if given:
        where, parts = _parts(root, rows, split_column, lists, splits, fold or 0)
        return split_by_parts(cases, parts, where, validation_fraction, seed, group_of)
    if fold is None:
        return split_groups(cases, validation_fraction, test_fraction, seed, group_of)
    return split_fold(cases, fold, num_folds, validation_fraction, seed, group_of)


def _without_raters(names: set[str], image: str, label: str) -> set[str]:
    """Ids of images, without what are labels of others that lie among them."""
    if Path(image).parent != Path(label).parent:
        return names
    files = {image.replace(_MARK, name): name for name in names}
    labels = {name for file, name in files.items() if is_rater_file(file, label, names - {name})}
    return names - labels


def _parts(
    root: Path,
    rows: Mapping[str, dict[str, str]],
    column: str | None,
    lists: Mapping[str, str] | None,
    splits: str | None,
    fold: int,
) -> tuple[str, dict[str, str]]:
    """What divides the cases, and the part of each by its id."""
    if column:
        where = f"The column '{column}' of the table"
        return where, {name: named_part(row[column], where) for name, row in rows.items() if row.get(column)}
    if lists:
        return "data::cases::lists", listed_parts(root, lists)
    path = root / Path(str(splits)).expanduser()
    return f"'{path}'", fold_parts(path, fold)


def _is_there(path: Path) -> bool:
    other = packed_otherwise(str(path))
    return path.exists() or bool(other and Path(other).exists())


def _pattern(root: Path, text: str) -> str:
    """A pattern without ``./`` and, where it begins at the root of the file system, without the dataset's folder."""
    if _MARK not in text:
        raise UserError(f"The pattern '{text}' in data::cases lacks {_MARK}, which stands for the case id.")
    if wild := re.search(r"[*?]", text):
        raise UserError(
            f"The pattern '{text}' in data::cases holds {wild[0]}, which stands for nothing else here: write {_MARK} "
            f"where the case id stands, and the rest of the name as it is."
        )
    path = Path(text).expanduser()
    if not path.is_absolute():
        return path.as_posix()
    for folder in (root, root.absolute(), root.resolve()):
        if path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
    raise UserError(
        f"The pattern '{text}' in data::cases is not below the dataset folder '{root}': set data::dataset_dir to a "
        f"folder that holds both images and labels, and write patterns from there on."
    )


def _names(root: Path, patterns: Sequence[str], telling: Collection[str]) -> set[str]:
    """The ids for which there is a file of one of the telling patterns."""
    names, taken = set(), set()
    for pattern in sorted(patterns, key=len, reverse=True):
        first, *others = (re.escape(part) for part in pattern.split(_MARK))
        known = re.compile(f"{first}(?P<case>[^/]+){'(?P=case)'.join(others)}")
        forms = [pattern, other] if (other := packed_otherwise(pattern)) else [pattern]
        for path in (path for form in forms for path in visible(root, glob.escape(form).replace(_MARK, "*"))):
            name = path.relative_to(root).as_posix()
            match = known.fullmatch(name) or known.fullmatch(packed_otherwise(name) or "")
            if match and path not in taken:
                taken.add(path)
                names |= {match["case"]} if pattern in telling else set()
    return names


def _rows(root: Path, table: str | None, columns: Sequence[str], names: Sequence[str]) -> Mapping[str, dict[str, str]]:
    if table is None:
        if columns:
            raise UserError(f"data::cases names the column '{columns[0]}', but no table, the csv that has it.")
        return {}
    path = root / Path(table).expanduser()
    if not path.is_file():
        raise UserError(f"The table '{path}' does not exist: correct table in data::cases.")
    have, listed = read_table(path)
    if lacking := [column for column in (_COLUMN, *columns) if column not in have]:
        raise UserError(
            f"'{path}' lacks the column '{lacking[0]}', it has {', '.join(filter(None, have)) or 'none'}: add it, or "
            f"correct its name in data::cases."
        )
    rows = {}
    for row in listed:
        if row[_COLUMN] in rows:
            raise UserError(f"'{path}' has two rows for '{row[_COLUMN]}': remove one.")
        rows[row[_COLUMN]] = row
    for name in names:
        if name not in rows:
            short = name.lstrip("0")
            raise UserError(
                f"'{path}' has no row for case '{name}': "
                + (f"it has one for '{short}', since Excel drops leading zeros; " if short in rows else "")
                + "add it, or remove the files of this case."
            )
        if lacking := [column for column in columns if not rows[name].get(column)]:
            raise UserError(f"'{path}' has no value in the column '{lacking[0]}' of case '{name}': add it.")
    return rows


def _class(case: Case, name: str, class_names: Sequence[str]) -> int:
    known = [str(known) for known in class_names]
    if name not in known:
        raise UserError(
            f"Case '{case[CaseKeys.CASE]}' is of the class '{name}' in the table, but data::class_names lists "
            f"{', '.join(known) or 'none'}: correct the table or the names."
        )
    return known.index(name)
