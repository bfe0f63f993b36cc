"""Tensors in files: written completely or not at all, and checked when they are read."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from medcalib.errors import UserError, plain_reason
from medcalib.files.writing import complete_file

__all__ = ["load_tensors", "save_tensors"]


# the end of a file: the comment of the archive that PyTorch writes, with a digest of all that stands before it
_MARK = b"sha256:"
_COMMENT_LENGTH = len(_MARK) + 64
_CHUNK = 1 << 20


def save_tensors(content: Any, path: str | Path) -> None:
    """Write tensors, plain values, lists and dictionaries of them, with a checksum in the file itself.

    ``torch.load(weights_only=True)`` reads the file, too.

    Raises:
        UserError: as of `medcalib.files.writing.complete_file`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_tensors({"a": torch.ones(2)}, f"{folder}/a.pt")
        ...     load_tensors(f"{folder}/a.pt")
        {'a': tensor([1., 1.])}
    """
    buffer = io.BytesIO()  # PyTorch would not say that a disk is full
    torch.save(content, buffer)
    archive = buffer.getbuffer()
    comment = _MARK + hashlib.sha256(archive).hexdigest().encode()
    with complete_file(path) as draft, draft.open("wb") as file:
        # an archive without a comment ends with the length of its comment
        file.write(archive[:-2])
        file.write(_COMMENT_LENGTH.to_bytes(2, "little"))
        file.write(comment)


def load_tensors(path: str | Path, kind: str = "file of tensors", advice: str = "delete it") -> Any:
    """Load to the CPU what `save_tensors` wrote, without running code from the file.

    Args:
        path: the file.
        kind: what the file should be.
        advice: what the user can do if it is damaged.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is damaged, which its checksum shows, or holds more than tensors.

    Warns:
        UserWarning: the file has no checksum, since something else wrote it, or an earlier version of this package.
    """
    try:
        with Path(path).open("rb") as file:
            checked = _check(file)
            file.seek(0)
            content = torch.load(file, map_location="cpu", weights_only=True)
    except (FileNotFoundError, MemoryError):
        raise
    except Exception as error:  # whatever a damaged file makes of itself
        raise UserError(f"{path} is not a readable {kind} ({plain_reason(error)}); {advice}.") from None
    if not checked:
        warnings.warn(f"{path} has no checksum, so damage to it may pass unnoticed.", stacklevel=2)
    return content


def _check(file: BinaryIO) -> bool:
    """Whether the file has a checksum; an error if it does not fit."""
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        raise EOFError("it is empty")
    file.seek(max(0, size - _COMMENT_LENGTH))
    comment = file.read()
    if _MARK in comment:
        if not comment.startswith(_MARK) or _digest(file, size - _COMMENT_LENGTH) != comment.removeprefix(_MARK):
            raise ValueError("its checksum is wrong")
        return True
    file.seek(0)
    if file.read(2) == b"PK" or zipfile.is_zipfile(file):
        _check_parts(file)
    return False


def _digest(file: BinaryIO, size: int) -> bytes:
    digest, left = hashlib.sha256(), size - 2
    file.seek(0)
    while left:
        chunk = file.read(min(left, _CHUNK))
        digest.update(chunk)
        left -= len(chunk)
    digest.update(bytes(2))
    return digest.hexdigest().encode()


def _check_parts(file: BinaryIO) -> None:
    """Look at the checksums of the parts of an archive, as PyTorch does not."""
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError):
        raise ValueError("it is damaged or cut short") from None
    if damaged is not None:
        raise ValueError("the checksum of a part of it is wrong")
