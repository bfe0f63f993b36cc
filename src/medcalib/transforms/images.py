"""Load pictures: files of two axes such as PNG, JPG and TIF, parts of them, and labels that are outlines or classes."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, UnidentifiedImageError
from torch import Tensor

from medcalib.errors import UserError
from medcalib.image_files.grids import Grid
from medcalib.image_files.unreadable import UnreadableFileError
from medcalib.keys import CaseKeys
from medcalib.transforms.loading import ImageFile, LoadCased

__all__ = ["LoadPictured", "PictureFile", "polygon_mask", "read_picture"]

_CROP = "crop"
_OUTLINE = "outline"
_WITHOUT_COLOUR = {"LA", "La"}
# what is stored as I is a PNG of 16 bits, or seldom a TIF of 32
_BITS = {"I": 16, "F": 32}
_WITH_COLOUR = {"RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "PA"}


class LoadPictured(LoadCased):
    """Load picture and label of a case channel-first as float32 and check them.

    Spatial axes are (x, y), as MONAI's own reader of pictures has them: x counts columns from the left, y rows from the
    top. Pixels keep their place and number; a rotation that a camera noted in the file is not applied, since masks do
    not follow it. A transparency channel is dropped.

    Two keys of a case say more than its files: ``crop``, a list of left, top, width and height in pixels, is the part
    of the picture that is the case, black where it reaches beyond the border; ``outline``, a text as
    ``"12,40 13,41 14,40"`` of corners x,y in pixels of the whole picture, is the polygon to which the label is drawn
    instead of read. A label that is a whole number is the class of the picture and becomes a tensor (1,).

    Args:
        keys: keys that hold a path, or a list of paths that become channels; one that a case lacks is passed over.
        num_channels: number of channels that the picture must have; not checked when None.
        label_map: label value on disk: class index, for those that differ.
        soft_label: whether the label holds probabilities.

    Raises:
        UserError: on call, naming case and file: a file is missing, damaged or holds NaN or Inf, the picture has
            another number of channels, picture and label differ in size, a label has colours, or crop or outline do not
            lie in the picture.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (6, 4)).save(f"{folder}/a.png")
        ...     case = {"case": "a", "image": f"{folder}/a.png", "label": 2, "crop": [1, 1, 5, 2]}
        ...     loaded = LoadPictured(num_channels=3)(case)
        >>> loaded["image"].shape, loaded["label"]
        (torch.Size([3, 5, 2]), tensor([2.]))
    """

    endings = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
    reads_series = False

    def __init__(
        self,
        keys: KeysCollection = (CaseKeys.IMAGE, CaseKeys.LABEL),
        num_channels: int | None = None,
        label_map: Mapping[int, int] | None = None,
        soft_label: bool = False,
    ) -> None:
        super().__init__(keys, num_channels, label_map, soft_label=soft_label)
        self._open = PictureFile
        # white is 255 in masks of 8 bits, and may be so in those of one bit
        white = 255 if 255 in self.label_map and 1 not in self.label_map else 1
        self._open_label = partial(PictureFile, as_colours=False, white=white)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with tensors (C, x, y) in place of paths."""
        files = dict(data)
        case = str(files.get(CaseKeys.CASE, "?"))
        label = files.get(CaseKeys.LABEL)
        is_class = isinstance(label, Integral)
        is_outline = label is not None and not is_class and _OUTLINE in files
        if is_class or is_outline:
            del files[CaseKeys.LABEL]
        loaded = super().__call__(files)
        image = loaded.get(CaseKeys.IMAGE)
        box = None if image is None else (0, 0, *image.shape[1:])
        if _CROP in files:
            box = tuple(int(number) for number in files[_CROP])
            if image is not None:
                _check_middle(case, files[CaseKeys.IMAGE], image, box)
            for key in self.key_iterator(loaded):
                loaded[key] = _cut(loaded[key], box)
        if is_class:
            loaded[CaseKeys.LABEL.value] = torch.tensor([label], dtype=torch.float32)
        elif is_outline:
            loaded[CaseKeys.LABEL.value] = _draw(case, str(label), str(files[_OUTLINE]), box)
        return loaded

    def image_grid(self, data: Mapping[Hashable, Any]) -> Grid:
        """The grid of the picture, or of the part of it that is the case."""
        if _CROP not in data:
            return super().image_grid(data)
        size = tuple(int(number) for number in data[_CROP][2:])
        return Grid(Path(str(data[CaseKeys.IMAGE])), size, np.eye(4), np.eye(4), None)

    def _read_label(self, case: str, file: ImageFile, frame: int | None) -> MetaTensor:
        """A label map (1, x, y); values of a palette are its indices, not its colours."""
        label = super()._read_label(case, file, frame)
        if (label != label[:1]).any():
            raise UserError(
                f"Case {case}: {file.grid.path} has colours, but a label must have one value at each pixel; save it as "
                f"a grey picture or one with a palette."
            )
        return label[:1].clone()  # type: ignore[return-value]  # a part of a MetaTensor is one


class PictureFile:
    """A PNG, JPG, TIF or BMP file whose head was read.

    Args:
        path: path of the file.
        as_colours: as of `read_picture`.
        white: value of what is white where a pixel is one bit, unless ``as_colours``.

    Attributes:
        grid: its pixels (x, y), 1 apart.
        num_channels: None, since a palette may hold colours or grey.
        num_bits: of each value: 8, also of palettes and black and white, 16, or 32.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableFileError: it is damaged, no picture, or several.
    """

    num_channels: int | None = None

    def __init__(self, path: str | PathLike, as_colours: bool = True, white: int = 1) -> None:
        self.as_colours = as_colours
        with _opened(path) as picture:
            self.grid = Grid(Path(path), picture.size, np.eye(4), np.eye(4), None)
            self.num_bits = _BITS.get(picture.mode.partition(";")[0], 8)
            self._factor = np.float32(white if picture.mode == "1" and not as_colours else 1)

    def read(self, channel: int | None = None) -> NDArray[np.float32]:
        """Pixel values (C, x, y), of all channels or of one; see `read_picture`."""
        values = read_picture(self.grid.path, self.as_colours).numpy() * self._factor
        return values if channel is None else values[channel : channel + 1]


def read_picture(path: str | PathLike, as_colours: bool = True) -> MetaTensor:
    """Read a PNG, JPG, TIF or BMP file.

    Args:
        path: path of the file.
        as_colours: whether indices into a palette become the colours that they stand for, and bits 0 and 255.

    Returns:
        Pixel values (C, x, y) as float32 on the scale of the file: one channel of grey or three of red, green, blue.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableFileError: it is damaged, no picture, or several: pages or frames.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGBA", (6, 4), (255, 128, 0, 255)).save(f"{folder}/a.png")
        ...     picture = read_picture(f"{folder}/a.png")
        >>> picture.shape, picture[:, 0, 0].tolist()
        (torch.Size([3, 6, 4]), [255.0, 128.0, 0.0])
    """
    with _opened(path) as picture:
        pixels = np.array(_plain(picture, as_colours), dtype=np.float32)
    channels = torch.from_numpy(np.atleast_3d(pixels)).permute(2, 1, 0).contiguous()
    return MetaTensor(channels, meta={"filename_or_obj": str(path)})


def polygon_mask(corners: ArrayLike, size: Sequence[int]) -> NDArray[np.bool_]:
    """Draw a filled polygon.

    Args:
        corners: x and y of the corners (N, 2) in order, N of at least 3, in pixels: the middle of the first is (0, 0).
            They may lie outside the picture and are rounded to whole pixels.
        size: number of pixels along x and y.

    Returns:
        Mask (x, y): pixels inside the polygon and those on its border.

    Raises:
        ValueError: ``corners`` has another shape.

    Example:
        >>> polygon_mask([[1, 0], [2, 0], [2, 2], [1, 2]], size=(4, 3)).astype(int).T
        array([[0, 1, 1, 0],
               [0, 1, 1, 0],
               [0, 1, 1, 0]])
    """
    corners = np.rint(np.asarray(corners, dtype=float)).astype(int)
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3:
        raise ValueError(f"corners must have shape (N, 2) with N of at least 3, got {corners.shape}.")
    picture = Image.new("1", (size[0], size[1]))
    ImageDraw.Draw(picture).polygon([(int(x), int(y)) for x, y in corners], fill=1, outline=1)
    return np.array(picture).T


@contextmanager
def _opened(path: str | PathLike) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as picture:
            # a camera's second picture is a smaller or brighter one of the same scene
            number = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
            if number > 1:
                raise UnreadableFileError(
                    f"holds {number} pages or frames, but a picture is one",
                    "save the one that is meant as a file of its own",
                )
            yield picture
    except (FileNotFoundError, UnreadableFileError):
        raise
    except UnidentifiedImageError:
        raise UnreadableFileError.because("it is no picture that can be opened, such as PNG, JPG, TIF or BMP") from None
    except IsADirectoryError:
        raise UnreadableFileError("is a folder", "give the pictures in it one by one") from None
    except MemoryError:
        raise UnreadableFileError.too_large() from None
    except (OSError, EOFError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableFileError.because(str(error).partition("\n")[0] or type(error).__name__) from None


def _plain(picture: Image.Image, as_colours: bool) -> Image.Image:
    """Without transparency, and in grey or in red, green and blue."""
    if picture.mode == "PA" and not as_colours:
        # the indices without their transparency
        return picture.getchannel(0)
    if picture.mode in _WITHOUT_COLOUR or (picture.mode == "1" and as_colours):
        return picture.convert("L")
    if picture.mode in _WITH_COLOUR:
        return picture.convert("RGB")
    if picture.mode == "P" and as_colours:
        colours = picture.convert("RGB")
        red, green, blue = (np.asarray(channel) for channel in colours.split())
        return colours.getchannel(0) if np.array_equal(red, green) and np.array_equal(green, blue) else colours
    return picture


def _check_middle(case: str, path: Any, image: Tensor, box: tuple[int, ...]) -> None:
    left, top, width, height = box
    size = image.shape[1:]
    middle = (left + width // 2, top + height // 2)
    # some tables count pixels from 1, so the last one has the number of all
    if not all(0 <= place <= limit for place, limit in zip(middle, size, strict=True)):
        raise UserError(
            f"Case {case}: the middle of its crop, x {middle[0]} and y {middle[1]}, lies outside {path}, which has "
            f"{size[0]} x {size[1]} pixels; the table of the dataset may belong to pictures of another size."
        )


def _cut(image: MetaTensor, box: tuple[int, ...]) -> MetaTensor:
    left, top, width, height = box
    # a new tensor: a view would keep the whole picture in memory
    cut = torch.zeros(image.shape[0], width, height, dtype=image.dtype)
    x, y = (slice(max(start, 0), max(start + extent, 0)) for start, extent in ((left, width), (top, height)))
    part = image.as_tensor()[:, x, y]
    cut[:, x.start - left :, y.start - top :][:, : part.shape[1], : part.shape[2]] = part
    return MetaTensor(cut).copy_meta_from(image)


def _draw(case: str, path: str, outline: str, box: tuple[int, ...] | None) -> MetaTensor:
    if box is None:
        raise ValueError("an outline needs a picture or a crop to be drawn in.")
    corners = np.array([corner.split(",") for corner in outline.split()], dtype=float) - box[:2]
    mask = polygon_mask(corners, box[2:])
    if not mask.any():
        raise UserError(f"Case {case}: the outline of its label in {path} lies outside the picture; correct it.")
    return MetaTensor(torch.from_numpy(mask[None]).float(), meta={"filename_or_obj": path})
