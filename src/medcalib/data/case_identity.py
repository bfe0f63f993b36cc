"""Tell cases apart by what their files hold, cheaply and alike on every machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from medcalib.files.image_parts import image_parts
from medcalib.keys import CaseKeys

__all__ = ["case_identities", "file_digest", "named_alike", "shared_cases"]

Identity = dict[str, str | None]

_GZIP = b"\x1f\x8b"
_BLOCK = 65536
_NUM_BLOCKS = 16
# beside the files of the image, what says which part of them is the case
_PART = (CaseKeys.CROP, CaseKeys.FRAME, CaseKeys.SERIES)


def file_digest(path: str | PathLike[str]) -> str | None:
    """Fingerprint of a file's content without reading all of a large one; None if it cannot be read.

    Files of up to 1 MiB are read whole, of larger ones sixteen blocks of 64 KiB, the first and the last among them; of
    gzip files the first and the last, which ends with a checksum of everything. Name, place and times do not matter.

    Returns:
        16 hexadecimal digits.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as one, tempfile.NamedTemporaryFile() as other:
        ...     file_digest(one.name) == file_digest(other.name), file_digest("/no/such/file")
        (True, None)
    """
    try:
        with Path(path).open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            digest = hashlib.sha256(f"{size};".encode() + (head := file.read(_BLOCK)))
            if size > _BLOCK * _NUM_BLOCKS:
                number = 2 if head.startswith(_GZIP) else _NUM_BLOCKS
                starts = [(size - _BLOCK) * block // (number - 1) for block in range(1, number)]
            else:
                starts = range(_BLOCK, size, _BLOCK)
            for start in starts:
                file.seek(start)
                digest.update(file.read(_BLOCK))
    except OSError:
        return None
    return digest.hexdigest()[:16]


def case_identities(cases: Iterable[Mapping[str, Any]]) -> list[Identity]:
    """Name every case and what it holds.

    Args:
        cases: as of a split.

    Returns:
        For every case its id as ``case``, and as ``image`` and ``label`` fingerprints of their content, of the image
        with the part of it that is the case; None where a file cannot be read or there is none.

    Example:
        >>> case_identities([{"case": "a", "image": "/no/such/file", "label": 2}])
        [{'case': 'a', 'image': None, 'label': '2'}]
    """
    known: dict[str, str | None] = {}

    def of_files(value: Any) -> str | None:
        if isinstance(value, str | PathLike):
            if str(value) not in known:
                known[str(value)] = _image_digest(value)
            return known[str(value)]
        if isinstance(value, Sequence):
            parts = [part for part in map(of_files, value) if part is not None]
            return _joined(parts) if len(parts) == len(value) else None
        return None if value is None else str(value)

    identities = []
    for case in cases:
        image, label = of_files(case.get(CaseKeys.IMAGE)), of_files(case.get(CaseKeys.LABEL))
        part = {key.value: case[key] for key in _PART if case.get(key) is not None}
        if part and image is not None:
            image = _joined([image, json.dumps(part, default=str)])
        if CaseKeys.OUTLINE in case:
            label = _joined([label or "", str(case[CaseKeys.OUTLINE])])
        if CaseKeys.STRUCTURES in case and label is not None:
            label = _joined([label, *(str(case.get(key)) for key in (CaseKeys.STRUCTURES, CaseKeys.NUM_STRUCTURES))])
        identities.append({"case": str(case[CaseKeys.CASE]), "image": image, "label": label})
    return identities


def shared_cases(cases: Iterable[Identity], others: Iterable[Identity]) -> list[str]:
    """Ids of those cases that are among the others, by their id or by the content of their image.

    Example:
        >>> a, b = {"case": "a", "image": "01", "label": None}, {"case": "b", "image": "02", "label": None}
        >>> shared_cases([a, b], [{"case": "renamed", "image": "02", "label": None}])
        ['b']
    """
    ids, images = set(), set()
    for other in others:
        ids.add(other["case"])
        images.add(other["image"])
    images.discard(None)
    return [str(case["case"]) for case in cases if case["case"] in ids or case["image"] in images]


def named_alike(cases: Iterable[Identity], others: Iterable[Identity]) -> list[str]:
    """Ids of those cases that share their id with one of the others, but not their image, nor a label that is known.

    They may be other patients, or the same ones in files that were written anew; nobody can tell from the files alone.

    Example:
        >>> a, b = {"case": "a", "image": "01", "label": "1"}, {"case": "b", "image": "02", "label": "2"}
        >>> seen = [{"case": "a", "image": "03", "label": "3"}, {"case": "b", "image": "04", "label": "2"}]
        >>> named_alike([a, b], seen)
        ['a']
    """
    others = list(others)
    files = {str(other["case"]): other for other in others}
    images = {other["image"] for other in others}
    return [
        str(case["case"])
        for case in cases
        if (other := files.get(str(case["case"]))) is not None
        and None not in (case["image"], other["image"])
        and case["image"] not in images
        and (case["label"] is None or case["label"] != other["label"])
    ]


def _image_digest(path: str | PathLike[str]) -> str | None:
    """Fingerprint of all files of an image, of a single one that of the file."""
    try:
        digests = [file_digest(part) for part in image_parts(path)]
    except OSError:
        return None
    if len(digests) == 1:
        return digests[0]
    # names of slices do not matter
    known = sorted(digest for digest in digests if digest is not None)
    return _joined(known) if len(known) == len(digests) and known else None


def _joined(parts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
