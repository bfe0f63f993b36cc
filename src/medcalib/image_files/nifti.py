"""Read NIfTI files: the header first, then the voxels, to the last byte."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from gzip import GzipFile
from io import BufferedIOBase
from math import prod
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling
from numpy.typing import NDArray

from medcalib.image_files.grids import read_grid
from medcalib.image_files.unreadable import UnreadableFileError, describe_other_format

__all__ = ["NiftiFile"]

_GZIP = b"\x1f\x8b"
# the most bytes that one byte of gzip stands for
_LARGEST_RATIO = 1032
_HEADERS = {348: (nib.Nifti1Header, 344), 540: (nib.Nifti2Header, 4)}
_CHUNK = 1 << 20
# what nibabel cannot mend it raises, too
_SILENT = logging.Logger("silent")
_SILENT.addHandler(logging.NullHandler())


class NiftiFile:
    """A NIfTI-1 or NIfTI-2 file whose header was read.

    Whether it is packed by gzip is seen from its content, since files are renamed.

    Args:
        path: the file.

    Attributes:
        grid: where its voxels lie.
        num_channels: number of values of each voxel; frames of a recording count as such.
        has_channels: whether it has an axis for them.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableFileError: it is something else, its header is damaged, or its voxels are no numbers.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     nib.save(nib.Nifti1Image(np.ones((4, 3, 2, 5), np.int16), np.eye(4)), f"{folder}/a.nii.gz")
        ...     file = NiftiFile(f"{folder}/a.nii.gz")
        ...     file.grid.shape, file.num_channels, file.read(channel=1).shape
        ((4, 3, 2), 5, (1, 4, 3, 2))
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if known := describe_other_format(self.path):
            raise known
        with _told(self.path), self._open() as stream:
            header = self._header(stream.read(540))
            self._shape = tuple(int(size) for size in header["dim"][1 : header["dim"][0] + 1])
            self._dtype = header.get_data_dtype()
            self._offset = int(header["vox_offset"])
            self._scaling = _scaling(header)
        self.grid = read_grid(path, header)
        self.num_channels = prod(self._shape[3:])
        self.has_channels = len(self._shape) > 3

    def read(self, channel: int | None = None) -> NDArray[np.float32]:
        """Read the voxels, and whatever follows them, so that the checksum of gzip is compared.

        Args:
            channel: read only this one; all of them when None.

        Returns:
            Values (C, X, Y, Z), or (C, X, Y) of a file of two axes, scaled as the header says. A vector per voxel, as
            ITK writes it (X, Y, Z, 1, C), is channels, too.

        Raises:
            FileNotFoundError: there is no such file.
            UnreadableFileError: it is cut short, or its checksum is not that of its content.
        """
        wanted = range(self.num_channels) if channel is None else [channel]
        with _told(self.path), np.errstate(over="ignore"):  # what float32 cannot hold is Inf, which callers refuse
            self._check_promise()
            values = np.empty((len(wanted), *self.grid.shape), np.float32)
            # one by one, as they lie in the file, so that it is never in memory a second time
            for number, raw in enumerate(self._channels()):
                if number in wanted:
                    block = raw.reshape(self.grid.shape, order="F")
                    scaled = block if self._scaling is None else apply_read_scaling(block, *self._scaling)
                    values[wanted.index(number)] = scaled
        return values

    @property
    def _promised(self) -> int:
        return prod(self._shape) * self._dtype.itemsize

    def _check_promise(self) -> None:
        held = self.path.stat().st_size
        with self._open() as stream:
            most = held * (_LARGEST_RATIO if isinstance(stream, GzipFile) else 1)
        if self._promised > most:
            raise UnreadableFileError.because(
                f"its header promises voxels of {self._promised:,} bytes, but the file has {held:,}"
            )

    def _channels(self) -> Iterator[NDArray]:
        with self._open() as stream:
            stream.seek(self._offset)
            filled = 0
            for number in range(self.num_channels):
                values = np.empty(prod(self.grid.shape), self._dtype)
                filled += _fill(stream, values)
                if filled < (number + 1) * values.nbytes:
                    raise UnreadableFileError.because(
                        f"its voxels take {self._promised:,} bytes, but {filled:,} are there"
                    )
                yield values
            while isinstance(stream, GzipFile) and stream.read(_CHUNK):
                pass

    @contextmanager
    def _open(self) -> Iterator[BufferedIOBase]:
        with self.path.open("rb") as file:
            packed = file.read(2) == _GZIP
            file.seek(0)
            if not packed:
                yield file
                return
            with GzipFile(fileobj=file) as stream:
                yield stream

    def _header(self, beginning: bytes) -> nib.Nifti1Header:
        for size, (kind, place) in _HEADERS.items():
            if len(beginning) >= size and beginning[place : place + 2] == b"n+":
                # nibabel would guess it from the number of axes, which may be what is damaged
                order = {size.to_bytes(4, "little"): "<", size.to_bytes(4, "big"): ">"}
                header = kind(beginning[:size], endianness=order.get(beginning[:4]), check=False)
                header.check_fix(_SILENT)
                break
        else:
            raise describe_other_format(self.path, beginning) or UnreadableFileError.because(
                "it is no NIfTI file, as which a volume is read unless it is named .mha, .mhd, .nrrd or .nhdr"
                if len(beginning) >= min(_HEADERS)
                else f"its content of {len(beginning)} bytes is shorter than a header"
            )
        dims = header["dim"].tolist()
        sizes = dims[1 : dims[0] + 1]
        if not 1 <= dims[0] <= 7 or min(sizes) < 1:
            raise UnreadableFileError.because(f"its header says that it has {dims[0]} axes of {_listed(sizes)} voxels")
        if dims[0] == 1 or sum(size > 1 for size in sizes[3:]) > 1:
            raise UnreadableFileError(
                f"has axes of {_listed(sizes)} voxels, but a volume has three, and one more for channels",
                "write a slice as a volume of one slice, and every further axis as files of their own",
            )
        dtype = header.get_data_dtype()
        if dtype.kind not in "iuf":
            what = "complex numbers" if dtype.kind == "c" else "colours"
            raise UnreadableFileError(
                f"holds {what}, but a volume has one number in each voxel", "convert it to numbers"
            )
        return header


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Say in the words of this package why a file cannot be read."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (HeaderDataError, ValueError) as error:
        raise UnreadableFileError.because(f"its header is damaged: {str(error).partition(';')[0]}") from None
    except (EOFError, zlib.error) as error:
        raise UnreadableFileError.because(_plain(error)) from None
    except MemoryError:
        raise UnreadableFileError.too_large() from None
    except OSError as error:
        raise UnreadableFileError.because(error.strerror or _plain(error)) from None


def _plain(error: Exception) -> str:
    text = str(error)
    if isinstance(error, EOFError):
        return "its gzip stream ends before its end"
    if "CRC" in text or "data check" in text or "length" in text:
        return "its checksum does not fit its content"
    return f"its gzip stream is damaged: {text.partition('; ')[0] or type(error).__name__}"


def _scaling(header: nib.Nifti1Header) -> tuple[float, float] | None:
    slope, offset = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0:  # the standard's way to say that there is none
        return None
    if not np.isfinite([slope, offset]).all():
        raise UnreadableFileError(
            f"has scl_slope {slope:g} and scl_inter {offset:g}, so its values are unknown",
            "correct its header, for example with set_slope_inter of nibabel",
        )
    return None if (slope, offset) == (1, 0) else (slope, offset)


def _listed(sizes: list[int]) -> str:
    return " x ".join(map(str, sizes)) or "no"


def _fill(stream: BufferedIOBase, values: NDArray) -> int:
    """Read the bytes of an array; how many there were."""
    buffer, filled = memoryview(values.data).cast("B") if values.size else memoryview(b""), 0
    while filled < values.nbytes and (count := stream.readinto(buffer[filled:])):
        filled += count
    return filled
