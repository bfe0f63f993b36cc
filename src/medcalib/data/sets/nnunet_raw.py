"""Case lists of datasets in the layout that nnU-Net reads, version 2."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medcalib.data.case_tables import case_rows, table_parts
from medcalib.data.cases import Case, Split, assemble_split, split_cases
from medcalib.data.dataset_folders import Download, visible
from medcalib.data.given_splits import fold_parts, split_by_parts
from medcalib.data.sets.decathlon import patient_of
from medcalib.data.splits import grouped, set_aside, split_groups
from medcalib.errors import UserError
from medcalib.files.writing import read_json
from medcalib.keys import CaseKeys, SplitKeys

__all__ = ["NnunetFiles", "nnunet_cases", "nnunet_files"]

_DOWNLOAD = Download(
    "the folder of one dataset, such as nnUNet_raw/Dataset004_Hippocampus, which holds dataset.json, imagesTr and "
    "labelsTr",
    "see nnU-Net's page on its dataset format",
)
_DESCRIPTION = "dataset.json"
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


class NnunetFiles(NamedTuple):
    """What a folder in nnU-Net's layout holds.

    Attributes:
        description: the parsed ``dataset.json``.
        training: cases of ``imagesTr``, each with its label.
        test: cases of ``imagesTs`` of which ``labelsTs`` has a label.
        without_label: ids of the other cases of ``imagesTs``.
    """

    description: dict[str, Any]
    training: list[Case]
    test: list[Case]
    without_label: list[str]


def nnunet_files(dataset_dir: str | Path) -> NnunetFiles:
    """Find the cases of a dataset in nnU-Net's layout.

    Args:
        dataset_dir: folder of the dataset, which holds ``dataset.json``.

    Raises:
        UserError: the folder is missing or laid out differently, ``dataset.json`` is damaged or contradicts the files,
            or a case lacks a channel or its label.
    """
    root = _DOWNLOAD.root(dataset_dir)
    path = root / _DESCRIPTION
    if not path.is_file():
        raise UserError(f"'{root}' lacks {_DESCRIPTION}: set data::dataset_dir to {_DOWNLOAD.folder}.")
    description = read_json(path, "repair it")
    ending, channels = description.get("file_ending"), description.get("channel_names")
    if not isinstance(ending, str) or not ending.startswith("."):
        raise UserError(f"{path} lacks file_ending, such as .nii.gz, so it is not that of nnU-Net, version 2: add it.")
    if not isinstance(channels, Mapping) or not channels:
        raise UserError(f"{path} lacks channel_names, such as {{'0': 'CT'}}: add them.")
    if isinstance(description.get("dataset"), Mapping):
        cases = [_listed_case(root, path, str(name), one) for name, one in description["dataset"].items()]
    else:
        cases = _cases(root, "Tr", ending)
    training = _DOWNLOAD.complete(cases, root, f"imagesTr/*_0000{ending} with labelsTr/*{ending}")
    _check_channels(training, len(channels), path)
    told = description.get("numTraining")
    if isinstance(told, int) and told != len(training):
        raise UserError(
            f"{path} says numTraining {told}, but there are {len(training)} training cases: fetch the missing ones, or "
            f"correct the number."
        )
    held_out = _cases(root, "Ts", ending)
    test = [case for case in held_out if Path(case[CaseKeys.LABEL]).is_file()]
    if test:
        _check_channels(test, len(channels), path)
    with_label = {case[CaseKeys.CASE] for case in test}
    return NnunetFiles(
        description,
        training,
        sorted(test, key=lambda case: case[CaseKeys.CASE]),
        sorted(case[CaseKeys.CASE] for case in held_out if case[CaseKeys.CASE] not in with_label),
    )


def nnunet_cases(
    dataset_dir: str | Path,
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    cases_per_patient: int | None = None,
    splits: str | None = None,
    fold: int = 0,
    table: str | None = None,
    split_column: str | None = None,
    fold_column: str | None = None,
) -> Split:
    """List the labelled cases of a dataset in nnU-Net's layout and divide them.

    Images lie in ``imagesTr`` as ``<case>_0000``, ``<case>_0001`` and so on, one file for each channel, or all channels
    in the first; labels in ``labelsTr`` as ``<case>``; the ending is that of ``dataset.json``. Where ``labelsTs`` has
    the labels of ``imagesTs``, these are the test part; images without label are passed over.

    Args:
        dataset_dir: folder of the dataset.
        fractions: shares of training, validation and test.
        seed: seed of the division.
        cases_per_patient: how many consecutive numbers are of one patient; as of `medcalib.data.decathlon_cases`.
        splits: path of a ``splits_final.json``, below the folder or anywhere. Its ``val`` is the test part, of its
            ``train`` a share is set aside for validation; with labels in ``labelsTs`` it is the validation part.
        fold: which fold is held out, from 0.
        table: path of a csv, in the place of ``splits``, with the column ``case`` and a row for every case of
            ``imagesTr``; with ``split_column`` and ``fold_column`` as of `medcalib.data.decathlon_cases`. Labelled
            cases of ``imagesTs`` are test cases whatever it says.
        split_column: its column with the part of each case.
        fold_column: its column with the fold of each case.

    Returns:
        The split. Without ``splits`` and ``labelsTs``, it is that of `medcalib.data.decathlon_cases` of these names.

    Raises:
        UserError: as of `nnunet_files`; or there are too few cases, or ``splits`` or ``table`` name others.
    """
    found = nnunet_files(dataset_dir)
    validation_share = fractions[1] / (fractions[0] + fractions[1])
    group = patient_of(found.training, cases_per_patient)
    found = found._replace(training=grouped(found.training, group))
    if columns := [column for column in (split_column, fold_column) if column]:
        if splits is not None:
            raise UserError("data::cases divides the cases in 2 ways: keep one of splits and the columns of table.")
        names = [str(case[CaseKeys.CASE]) for case in found.training]
        rows = case_rows(Path(dataset_dir).expanduser(), table, columns, names, columns if fold_column else ())
        apart = {str(case[CaseKeys.CASE]): SplitKeys.TEST.value for case in found.test}
        where, parts = table_parts(rows, found.training, split_column, fold_column, fold, group, apart)
        return split_by_parts([*found.training, *found.test], parts, where, validation_share, seed, group)
    if splits is not None:
        path = Path(dataset_dir).expanduser() / Path(splits).expanduser()
        if not found.test:
            return split_by_parts(found.training, fold_parts(path, fold), f"'{path}'", validation_share, seed, group)
        parts = fold_parts(path, fold, SplitKeys.VALIDATION.value)
        parts |= {str(case[CaseKeys.CASE]): SplitKeys.TEST.value for case in found.test}
        return split_by_parts([*found.training, *found.test], parts, f"'{path}'", seed=seed)
    if found.test:
        training, validation = set_aside(found.training, validation_share, seed, group)
        return assemble_split(training, validation, found.test)
    by_case = split_cases(found.training, fractions, seed)
    return by_case if group is None else split_groups(found.training, fractions[1], fractions[2], seed, group)


def _cases(root: Path, part: str, ending: str) -> list[Case]:
    """A case for every name of the images; whether there is a label is not looked at."""
    channels: dict[str, dict[int, Path]] = {}
    for path in visible(root / f"images{part}", f"*{ending}"):
        if match := _CHANNEL.fullmatch(path.name.removesuffix(ending)):
            channels.setdefault(match["case"], {})[int(match["channel"])] = path
    return [
        {
            CaseKeys.CASE.value: case,
            CaseKeys.IMAGE.value: _images(case, files),
            CaseKeys.LABEL.value: str(root / f"labels{part}" / f"{case}{ending}"),
        }
        for case, files in channels.items()
    ]


def _images(case: str, files: Mapping[int, Path]) -> str | list[str]:
    for number in range(len(files)):
        if number not in files:
            raise UserError(f"Case '{case}' has no channel {number:04d} beside '{files[max(files)]}': add its file.")
    return str(files[0]) if len(files) == 1 else [str(files[number]) for number in sorted(files)]


def _listed_case(root: Path, path: Path, case: str, files: Any) -> Case:
    """A case whose files ``dataset.json`` lists by itself."""
    if not isinstance(files, Mapping) or not files.get("images") or not isinstance(files.get("label"), str):
        raise UserError(f"{path} lists case '{case}' without 'images' and 'label': add them, or remove the case.")
    images = [str((root / str(image)).resolve()) for image in files["images"]]
    return {
        CaseKeys.CASE.value: case,
        CaseKeys.IMAGE.value: images[0] if len(images) == 1 else images,
        CaseKeys.LABEL.value: str((root / files["label"]).resolve()),
    }


def _check_channels(cases: Sequence[Case], num_channels: int, path: Path) -> None:
    """All channels are in one file, or each has its own; how many one file has, its reader will see."""
    for case in cases:
        image = case[CaseKeys.IMAGE]
        if not isinstance(image, str) and len(image) != num_channels:
            raise UserError(
                f"Case '{case[CaseKeys.CASE]}' has {len(image)} files of channels, but {path} lists {num_channels} "
                f"channel_names: correct one of them."
            )
