"""Names and colours of labels, in the files from which viewers read them."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medcalib.image_files.grids import lps_to_ras

__all__ = ["NamedLabel", "itk_snap_labels", "slicer_colors", "slicer_segmentation"]

_LARGEST_OF_SLICER = 32768
_LARGEST_OF_ITK_SNAP = 2**16 - 2
_ITK_SNAP_HEADER = """\
################################################
# ITK-SnAP Label Description File
# File format:
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
# Fields:
#    IDX:   Zero-based index
#    -R-:   Red color component (0..255)
#    -G-:   Green color component (0..255)
#    -B-:   Blue color component (0..255)
#    -A-:   Label transparency (0.00 .. 1.00)
#    VIS:   Label visibility (0 or 1)
#    MSH:   Label mesh visibility (0 or 1)
#  LABEL:   Label description
################################################
"""


class NamedLabel(NamedTuple):
    """A label of a segmentation.

    Attributes:
        value: of its voxels; where labels overlap and each has a channel, the number of the channel from 1 on.
        name: of the class.
        color: red, green and blue in [0, 1]; None of a background.
    """

    value: int
    name: str
    color: tuple[float, ...] | None


def slicer_colors(labels: Sequence[NamedLabel]) -> str:
    """The text of a colour table of 3D Slicer, ``.ctbl``.

    A line holds the value, the name without spaces, red, green, blue and opacity from 0 to 255, as
    ``vtkMRMLColorTableStorageNode`` of Slicer writes and reads them. It refuses a table with a value above 32768 or
    below 0 as a whole, so a label that has such a value stands there as a comment only.

    Example:
        >>> print(slicer_colors([NamedLabel(0, "background", None), NamedLabel(2, "left lung", (0.0, 0.5, 1.0))]))
        # Color table file, value name red green blue opacity
        # 2 values
        0 background 0 0 0 0
        2 left_lung 0 128 255 255
        <BLANKLINE>
    """
    lines = [
        f"{label.value} {'_'.join(label.name.split()) or label.value} {' '.join(map(str, _bytes(label)))} "
        f"{0 if label.color is None else 255}"
        for label in labels
    ]
    head = f"# Color table file, value name red green blue opacity\n# {len(labels)} values\n"
    return head + _lines(labels, lines, _LARGEST_OF_SLICER)


def itk_snap_labels(labels: Sequence[NamedLabel]) -> str:
    """The text of a label description file of ITK-SNAP.

    A line holds the value, red, green and blue from 0 to 255, opacity, visibility in slices and in 3D, and the name in
    quotes, as ``ColorLabelTable::SaveToFile`` of ITK-SNAP writes and ``LoadFromFile`` reads them. The value 0 is always
    its clear label, and it has no values above 65534 or below 0, so a label with such a value stands there as a comment
    only.

    Example:
        >>> text = itk_snap_labels([NamedLabel(0, "background", None), NamedLabel(2, "left lung", (0.0, 0.5, 1.0))])
        >>> text.splitlines()[-2:]
        ['    0     0    0    0        0  0  0    "Clear Label"', '    2     0  128  255        1  1  1    "left lung"']
    """
    lines = []
    for label in labels:
        red, green, blue = _bytes(label)
        shown = int(label.color is not None and label.value > 0)
        name = "Clear Label" if label.value == 0 else _one_line(label.name).replace('"', "'") or str(label.value)
        lines.append(f'  {label.value:3}   {red:3}  {green:3}  {blue:3}  {shown:7}  {shown}  {shown}    "{name}"')
    return _ITK_SNAP_HEADER + _lines(labels, lines, _LARGEST_OF_ITK_SNAP)


def slicer_segmentation(path: str | Path, image: nib.Nifti1Image, labels: Sequence[NamedLabel]) -> None:
    """Write a segmentation of 3D Slicer, ``.seg.nrrd``, which opens with names and colours.

    The header has the fields that ``vtkMRMLSegmentationStorageNode`` of Slicer reads, in the form of NRRD 4
    (https://teem.sourceforge.net/nrrd/format.html). A label that is nowhere in the image is there, too, as an empty
    segment.

    Args:
        path: the file to write.
        image: whole numbers, (X, Y, Z), or of labels that overlap (X, Y, Z, C) with 0 and 1.
        labels: of the image; a background is left out.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     image = nib.Nifti1Image(np.ones((2, 2, 2), np.uint8), np.eye(4))
        ...     slicer_segmentation(f"{folder}/a.seg.nrrd", image, [NamedLabel(1, "organ", (0.0, 0.5, 1.0))])
        ...     "Segment0_Name:=organ" in Path(folder, "a.seg.nrrd").read_bytes().decode("latin1").splitlines()
        True
    """
    values = np.asarray(image.dataobj)
    overlap = values.ndim == 4
    if overlap:
        values = np.moveaxis(values, -1, 0)
    affine = lps_to_ras(np.asarray(image.affine, dtype=float))
    spatial = values.shape[-3:]
    directions = " ".join(_vector(affine[:3, axis]) for axis in range(3))
    header = [
        "NRRD0004",
        f"type: {values.dtype.name}",
        f"dimension: {values.ndim}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, values.shape))}",
        f"space directions: {'none ' * overlap}{directions}",
        f"kinds: {'list ' * overlap}domain domain domain",
        "endian: little",
        "encoding: gzip",
        f"space origin: {_vector(affine[:3, 3])}",
        "Segmentation_ContainedRepresentationNames:=Binary labelmap|",
        "Segmentation_MasterRepresentation:=Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset:=0 0 0",
    ]
    segments = [label for label in labels if label.color is not None]
    for number, label in enumerate(segments):
        header += [
            f"Segment{number}_ID:=Segment_{number + 1}",
            f"Segment{number}_Name:={_one_line(label.name) or label.value}",
            f"Segment{number}_NameAutoGenerated:=0",
            f"Segment{number}_Color:={' '.join(f'{part:.6g}' for part in label.color or ())}",
            f"Segment{number}_ColorAutoGenerated:=0",
            f"Segment{number}_LabelValue:={1 if overlap else label.value}",
            f"Segment{number}_Layer:={label.value - 1 if overlap else 0}",
            f"Segment{number}_Extent:={' '.join(f'0 {size - 1}' for size in spatial)}",
            f"Segment{number}_Tags:=|",
        ]
    voxels = values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes(order="F")
    head = "\n".join(header) + "\n\n"
    # without a time, so that equal segmentations are equal files
    Path(path).write_bytes(head.encode() + gzip.compress(voxels, mtime=0))


def _lines(labels: Sequence[NamedLabel], lines: Sequence[str], largest: int) -> str:
    fits: Callable[[int], bool] = lambda value: 0 <= value <= largest  # noqa: E731
    told = [line if fits(label.value) else f"# {line.strip()}" for label, line in zip(labels, lines, strict=True)]
    return "".join(f"{line}\n" for line in told)


def _bytes(label: NamedLabel) -> list[int]:
    return [round(255 * part) for part in label.color or (0, 0, 0)]


def _one_line(name: str) -> str:
    return " ".join(name.split())


def _vector(values: NDArray[np.float64]) -> str:
    return f"({','.join(f'{value:.17g}' for value in values)})"
