"""Images that belong to no dataset, as cases to be predicted."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

from medcalib.data.cases import Split, check_case_name
from medcalib.errors import UserError
from medcalib.files.image_parts import is_dicom_file, slice_files
from medcalib.keys import CaseKeys, SplitKeys

__all__ = ["images_name", "new_image_cases"]

_LIST = ".txt"
_NUMBERED = re.compile(r"(.+)_(\d{4})")
_TAKEN = ("configs", "cost")
# lies beside the folders of predicted cases
_OF_RESULTS = "provenance.json"
_SHOWN = 5
# in the place of a channel: one file holds them all
_WHOLE = -1


def new_image_cases(
    images: str | None, channel_names: Sequence[str], endings: Sequence[str], series: bool = False
) -> Split:
    """List images as a split of test cases without labels.

    The id of a case is the name of its file without the ending, or of its folder of DICOM slices. Where an image has
    several channels, each may be a file of its own: ``<case>_0000``, ``<case>_0001`` and so on in the order of
    ``channel_names``, as nnU-Net has it, or ``<case>_<channel name>``, in upper or lower case, joined by ``_``, ``-``
    or ``.``. Of a single channel ``_0000`` is dropped where the names of all files end so.

    Args:
        images: a folder, whose images are taken but not those of folders in it; a pattern such as
            ``"scans/*/*.nii.gz"``, which leaves out what was predicted; one file; a folder of DICOM slices; or a file
            ``.txt`` with one path a line, relative to its own folder, where ``#`` begins a comment.
        channel_names: one name for each channel of an image.
        endings: how names of images end, such as ``.nii.gz``.
        series: whether a folder of DICOM slices is an image, too.

    Returns:
        A split whose parts are empty but for ``test``, sorted by id.

    Raises:
        UserError: there are no such files, two of them have one id, an id cannot be the name of a folder, or a channel
            is missing or unknown.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("a_t1.nii", "a_t2.nii", "b_0000.nii", "b_0001.nii"):
        ...         Path(folder, name).touch()
        ...     split = new_image_cases(folder, ["T1", "T2"], [".nii"])
        >>> [(case["case"], [Path(file).name for file in case["image"]]) for case in split["test"]]
        [('a', ['a_t1.nii', 'a_t2.nii']), ('b', ['b_0000.nii', 'b_0001.nii'])]
    """
    if not images:
        raise UserError("--images is missing: a folder, a pattern, a file, or a .txt file that lists files.")
    files = _files(str(images), endings, series)
    names = [str(name) for name in channel_names]
    cases = []
    for case, channels in sorted(_by_case(files, names, endings).items()):
        _check_name(case, next(iter(channels.values())))
        if _WHOLE not in channels and len(channels) < len(names):
            lacking = [name for index, name in enumerate(names) if index not in channels]
            raise UserError(
                f"Case {case!r} has no file of the channel{'s' * (len(lacking) > 1)} {', '.join(lacking)}, only "
                f"{', '.join(map(str, channels.values()))}; the names of the files of its channels end in _0000, _0001 "
                f"and so on in the order {', '.join(names)}, or in these names."
            )
        image = str(channels[_WHOLE]) if _WHOLE in channels else [str(channels[index]) for index in range(len(names))]
        cases.append({CaseKeys.CASE.value: case, CaseKeys.IMAGE.value: image})
    return {part.value: (cases if part is SplitKeys.TEST else []) for part in SplitKeys}


def images_name(images: str | None) -> str:
    """A name for results of these images: that of the folder, of the file without ending, or before the pattern.

    Example:
        >>> images_name("/data/clinic/"), images_name("scans/*.nii.gz"), images_name("a.nii.gz"), images_name("*.png")
        ('clinic', 'scans', 'a', 'images')
    """
    path = Path(str(images or ""))
    parts = list(path.parts)
    if glob.has_magic(str(path)):
        parts = parts[: next(index for index, part in enumerate(parts) if glob.has_magic(part))]
        name = Path(*parts).name if parts else ""
    elif path.is_dir():
        name = path.resolve().name
    else:
        name = path.name.partition(".")[0]
    return name.strip(". ") or "images"


def _files(images: str, endings: Sequence[str], series: bool) -> list[Path]:
    """The files and folders that are meant, each with one of the endings or with DICOM slices."""
    path = Path(images).expanduser()
    wanted = f"names of images end in {', '.join(endings)}{', or they are folders of DICOM slices' * series}"
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if _is_image(file, endings, series))
        if series and (slices := slice_files(path)):
            if files:
                raise UserError(
                    f"{path} holds DICOM slices such as {slices[0].name}, and {files[0].name}, which is an image by "
                    f"itself; name the file, or move one of them into another folder."
                )
            return [path]
        if not files:
            held = sorted(f"{file.name}{'/' * file.is_dir()}" for file in path.iterdir() if file.name[0] != ".")
            told = f", which holds {', '.join(held[:_SHOWN])}{' and more' * (len(held) > _SHOWN)}" if held else ""
            hint = _deeper(path, endings, series)
            raise UserError(f"No image lies in {path}{told or ', which is empty'}; {hint or wanted}.")
        return files
    if path.is_file() and path.name.lower().endswith(_LIST):
        files = _listed(path, series)
    elif path.is_file():
        files = [path]
    else:
        matching = sorted(map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207 - Path.glob takes no absolute one
        files = [file for file in matching if file.is_file() or _is_image(file, endings, series)]
        is_pattern = glob.has_magic(str(path))
        if is_pattern and files and not (files := [file for file in files if not _is_result(file)]):
            raise UserError(f"Only results of earlier predictions match {images}; name images.")
        if not files:
            what = "No file matches" if is_pattern else "There is no file or folder"
            raise UserError(
                f"{what} {images}; --images is a folder, a pattern in quotes, a file, or a .txt file that lists files."
            )
    for file in files:
        if not _is_image(file, endings, series):
            if series and is_dicom_file(file):
                raise UserError(f"{file} is a slice of a DICOM series; name the folder that holds all of them.")
            raise UserError(f"{file} is no image that this bundle reads: {wanted}.")
    return files


def _listed(path: Path, series: bool) -> list[Path]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a list of files ({error}); write one path a line.") from None
    files = []
    for number, line in enumerate(lines, 1):
        if not (text := line.partition("#")[0].strip()):
            continue
        file = path.parent / Path(text).expanduser()
        if not file.is_file() and not (series and file.is_dir()):
            raise UserError(f"{path} names {file} in line {number}, but there is no such file; correct the line.")
        if file in files:
            raise UserError(f"{path} names {file} again in line {number}; remove the line.")
        files.append(file)
    if not files:
        raise UserError(f"{path} names no file; write one path a line.")
    return files


def _by_case(files: Sequence[Path], names: Sequence[str], endings: Sequence[str]) -> dict[str, dict[int, Path]]:
    """Files by case and channel, `_WHOLE` where one file holds them all."""
    stems = [_stem(file, endings) for file in files]
    numbered = all(stem.endswith("_0000") and len(stem) > len("_0000") for stem in stems)
    found: dict[str, dict[int, Path]] = {}
    for file, stem in zip(files, stems, strict=True):
        if len(names) > 1:
            case, channel = _channel(stem, names, file)
        else:
            case, channel = stem.removesuffix("_0000") if numbered else stem, _WHOLE
        known = found.setdefault(case, {})
        for other, clash in known.items():
            if channel == other or _WHOLE in (channel, other):
                raise UserError(
                    f"{clash} and {file} would both be case {case!r}, whose predictions lie in a folder of that name; "
                    f"rename one of them, or predict them with another --output_dir each."
                )
        known[channel] = file
    return found


def _is_image(file: Path, endings: Sequence[str], series: bool) -> bool:
    name = file.name.lower()
    if name.startswith("."):
        return False
    if file.is_dir():
        return series and bool(slice_files(file))
    return file.is_file() and name.endswith(tuple(endings))


def _is_result(file: Path) -> bool:
    """Whether a file lies in the folder of a case that was predicted."""
    return (file.parent.parent / _OF_RESULTS).is_file()


def _deeper(folder: Path, endings: Sequence[str], series: bool) -> str:
    """What to type for the images in the folders of a folder; empty if there are none."""
    for inner in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        for file in sorted(inner.iterdir()) if os.access(inner, os.R_OK | os.X_OK) else ():
            if _is_image(file, endings, series) and not _is_result(file):
                ending = file.name[len(_stem(file, endings)) :] if file.is_file() else ""
                return f"for those of its folders, such as {file}, give the pattern '{folder}/*/*{ending}' in quotes"
    return ""


def _stem(file: Path, endings: Sequence[str]) -> str:
    if file.is_dir():
        return file.resolve().name
    longest = max((ending for ending in endings if file.name.lower().endswith(ending)), key=len)
    return file.name[: -len(longest)]


def _channel(stem: str, names: Sequence[str], file: Path) -> tuple[str, int]:
    """Case and channel of a file."""
    for index in sorted(range(len(names)), key=lambda index: -len(names[index])):
        name = names[index].lower()
        case = stem[: -len(name) - 1]
        if stem.lower().endswith(name) and stem[len(case) : len(case) + 1] in ("_", "-", ".") and case:
            return case, index
    if match := _NUMBERED.fullmatch(stem):
        if int(match[2]) >= len(names):
            raise UserError(
                f"{file} would be channel {int(match[2])} of case {match[1]!r}, but data::channel_names lists "
                f"{len(names)}, which are counted from _0000: {', '.join(names)}; leave it out or rename it."
            )
        return match[1], int(match[2])
    return stem, _WHOLE


def _check_name(case: str, file: Path) -> None:
    check_case_name(case, f"The case of {file}")
    if case in _TAKEN:
        raise UserError(
            f"{file} cannot be predicted under the name {case!r}, which a folder of results has; rename it."
        )
