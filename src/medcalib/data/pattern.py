"""Case lists of any dataset whose files are named by one pattern, with a table of what else is known of its cases."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from medcalib.data.case_tables import case_rows, table_parts
from medcalib.data.cases import Case, Split
from medcalib.data.dataset_folders import Download, lists_incomplete_cases, make_case
from medcalib.data.file_patterns import CASE, CLASS, PART, checked_pattern, filled, found_cases
from medcalib.data.given_splits import fold_parts, listed_parts, split_by_parts
from medcalib.data.rater_files import RATER_MARK, is_rater_file, rater_files
from medcalib.data.split_folders import folder_parts
from medcalib.data.splits import grouped, split_fold, split_groups
from medcalib.data.structure_files import StructureLabels, is_there, structure_labels
from medcalib.errors import UserError
from medcalib.keys import CaseKeys

__all__ = ["pattern_cases"]

_DOWNLOAD = Download(
    "the folder to which the patterns in data::cases belong", "data::metadata::source says where the data can be had"
)


def pattern_cases(
    dataset_dir: str | Path,
    image: str | Sequence[str],
    label: str | Mapping[str, str] | None = None,
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
    overlap: str = "later",
    missing_structures: str = "refused",
    label_channels: Sequence[str] | None = None,
    fold_column: str | None = None,
) -> Split:
    """List the cases of a dataset whose files are named by a pattern, and divide them.

    A pattern is a path below the folder in which ``{case}`` stands for the case id, once or several times, such as
    ``images/{case}.png`` or ``{case}/{case}_t1.nii.gz``. Every file that fits the pattern of the image, of its first
    channel or of the label is a case; one that fits several patterns belongs to the longest, so ``{case}.png`` and
    ``{case}_mask.png`` may lie in one folder.

    ``{split}`` stands for a folder such as ``train``, ``val`` or ``test``, in any usual spelling, which divides the
    cases. ``{class}`` in the pattern of the image stands for the class of whole images; in that of the label, for each
    structure that has a file of its own, which holds 0 and one other value. Where ``{case}`` repeats in other folders,
    these go before it in the ids of all cases.

    Args:
        dataset_dir: folder of the dataset.
        image: pattern of the image, or a list of patterns, one for each file of channels.
        label: pattern of the label, or a pattern for each structure by its name; None if whole images are classified.
            With ``{rater}`` in it, such as ``labels/{case}_{rater}.nii.gz``, the label is a list, one file of each
            rater who labelled the case.
        table: path of a csv below the folder, with a column ``case`` and a row for every case.
        group: column of the table, such as the patient; cases with the same value stay in one part of the split.
        attributes: columns of the table by which results are reported, too, such as vendor and centre.
        class_column: column of the table with the name of the class, if whole images are classified.
        class_names: names of the classes in order, needed with ``class_column``, ``{class}`` and structures.
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
        overlap: where two structures have a voxel, the one that is ``later`` in ``class_names`` wins; or ``channels``:
            each structure is a channel of its own, for ``activation: sigmoid``.
        missing_structures: whether a structure without a file is ``refused``, since it may as well be unknown, or
            ``absent`` in the case.
        label_channels: the class of each channel, along the last axis, of label files with several.
        fold_column: column of the table with the fold of each case, as of `medcalib.data.given_splits.column_parts`;
            ``fold`` is held out, 0 if that is left out. Beside it, ``split_column`` says which cases are in no fold.

    Returns:
        The split.

    Raises:
        UserError: if an option is none of its values, if a pattern lacks ``{case}``, has a ``*`` or is not below the
            folder, if the folder is missing or laid out differently, if a file of a case is missing, if the table lacks
            a column, a row or a value, or if there are too few cases.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in [f"{kind}_{number}.png" for kind in ("scan", "mask") for number in range(10)]:
        ...         Path(folder, name).touch()
        ...     split = pattern_cases(folder, image="scan_{case}.png", label="mask_{case}.png")
        >>> [case["case"] for case in split["test"]], len(split["training"])
        (['4', '7'], 7)
    """
    root = _DOWNLOAD.root(dataset_dir)
    images = [checked_pattern(root, text) for text in ([image] if isinstance(image, str) else image)]
    if sum((label is not None, class_column is not None, CLASS in images[0])) != 1:
        raise UserError(
            "Give data::cases either a label, the pattern of its files, or a class_column of the table, or {class} in "
            "the pattern of the image."
        )
    structures = structure_labels(label, class_names, overlap, missing_structures, label_channels)
    if structures is not None:
        labels = [checked_pattern(root, text) for text in structures.patterns]
        structures = structures._replace(patterns=tuple(labels))
    else:
        labels = [] if label is None else [checked_pattern(root, str(label), (RATER_MARK,))]
    if same := [text for text in labels if text in images]:
        raise UserError(f"data::cases has the same pattern '{same[0]}' for image and label: give each its own.")
    by_folders = any(PART in text for text in (*images, *labels))
    if len(given := [name for name in (split_column or fold_column, lists, splits, by_folders) if name]) > 1:
        raise UserError(
            f"data::cases divides the cases in {len(given)} ways: keep one of split_column, lists, splits and {PART}."
        )
    raters: dict[str, dict[str, Path]] | None = None
    if labels and RATER_MARK in labels[0]:
        names, raters = _rated(root, images, labels[0])
        if skip_unlabelled:
            names = {name: values for name, values in names.items() if name in raters}
    else:
        names = found_cases(root, [*images, *labels], [images[0], *labels])
        if skip_unlabelled and labels:
            names = {
                name: values
                for name, values in names.items()
                if any(is_there(root / filled(text, values)) for text in labels)
            }
    columns = [column for column in (group, *attributes, class_column, split_column, fold_column) if column]
    rows = case_rows(root, table, columns, sorted(names), (split_column, fold_column) if fold_column else ())
    found = []
    for name, values in names.items():
        paths = [root / filled(pattern, values) for pattern in images]
        # without a label of its own, the first file stands in for it where files are looked for
        where = root / filled((labels or images)[0], values)
        case = make_case(name, paths if len(paths) > 1 else paths[0], where)
        if structures is not None:
            case |= _structures(name, structures, root, values)
        if raters is not None and name in raters:
            case[CaseKeys.LABEL.value] = [str(path) for path in raters[name].values()]
            case[CaseKeys.RATERS.value] = list(raters[name])
        if attributes:
            case[CaseKeys.ATTRIBUTES.value] = {column: rows[name][column] for column in attributes}
        found.append(case)
    looked_for = " with ".join((*images, *labels[:1])).replace(CASE, "*").replace(RATER_MARK, "*")
    cases = _DOWNLOAD.complete(found, root, looked_for)
    if class_column is not None:
        for case in cases:
            case[CaseKeys.LABEL.value] = _class(case, rows[case[CaseKeys.CASE]][class_column], class_names, "the table")
    elif not labels:
        for case in cases:
            folder = names[case[CaseKeys.CASE]][CLASS]
            case[CaseKeys.LABEL.value] = _class(case, folder, class_names, "the name of its folder")

    def group_of(case: Case) -> str:
        return case[CaseKeys.CASE] if group is None else rows[case[CaseKeys.CASE]][group]

    if group is not None:
        cases = grouped(cases, group_of)
    if by_folders:
        parts = folder_parts(names)
        cases = [case for case in cases if case[CaseKeys.CASE] in parts]
        return split_by_parts(cases, parts, f"What stands for {PART}", validation_fraction, seed, group_of)
    if given:
        if split_column or fold_column:
            where, parts = table_parts(rows, cases, split_column, fold_column, fold or 0, group_of)
        else:
            where, parts = _parts(root, lists, splits, fold or 0)
        return split_by_parts(cases, parts, where, validation_fraction, seed, group_of)
    if fold is None:
        return split_groups(cases, validation_fraction, test_fraction, seed, group_of)
    return split_fold(cases, fold, num_folds, validation_fraction, seed, group_of)


def _rated(
    root: Path, images: Sequence[str], label: str
) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, Path]]]:
    """The cases, as of `found_cases`, and the label files of each by rater.

    Who the raters are, the cases tell, and these the images.
    """
    if marked := [text for text in (*images, label) if PART in text or CLASS in text]:
        raise UserError(
            f"The pattern '{marked[0]}' in data::cases holds {PART if PART in marked[0] else CLASS}, but the labels "
            f"hold {RATER_MARK}, beside which only {CASE} may stand: divide the cases by a table, and give each rater "
            f"one file of all classes."
        )
    names = found_cases(root, images, images[:1])
    if Path(images[0]).parent == Path(label).parent:
        of_others = {
            name
            for name, values in names.items()
            if is_rater_file(filled(images[0], values), label, names.keys() - {name})
        }
        names = {name: values for name, values in names.items() if name not in of_others}
    return names, rater_files(root, label, names, images)


def _parts(root: Path, lists: Mapping[str, str] | None, splits: str | None, fold: int) -> tuple[str, dict[str, str]]:
    """What divides the cases, and the part of each by its id."""
    if lists:
        return "data::cases::lists", listed_parts(root, lists)
    path = root / Path(str(splits)).expanduser()
    return f"'{path}'", fold_parts(path, fold)


def _structures(name: str, structures: StructureLabels, root: Path, values: Mapping[str, str]) -> Case:
    """What a case has as its label if each structure has a file or a channel."""
    files, classes = structures.files(root, values)
    if not files:
        raise UserError(f"Case '{name}' has no file of any structure: add its labels, or remove its image.")
    lacking = [path for path in files if not is_there(path)]
    if lacking and not lists_incomplete_cases():
        raise UserError(
            f"Case '{name}' has no '{lacking[0]}', so nobody knows whether it lacks the structure or its file: add an "
            f"empty one, leave the structure out of class_names, or set missing_structures to absent, with which a "
            f"structure without file is not there."
        )
    found = {
        CaseKeys.LABEL.value: make_case(name, root, files)[CaseKeys.LABEL],
        CaseKeys.STRUCTURES.value: ",".join(map(str, classes)),
    }
    if structures.num_channels is not None:
        found[CaseKeys.NUM_STRUCTURES.value] = structures.num_channels
    return found


def _class(case: Case, name: str, class_names: Sequence[str], where: str) -> int:
    known = [str(known) for known in class_names]
    if name not in known:
        raise UserError(
            f"Case '{case[CaseKeys.CASE]}' is of the class '{name}' in {where}, but data::class_names lists "
            f"{', '.join(known) or 'none'}: correct it or the names."
        )
    return known.index(name)
