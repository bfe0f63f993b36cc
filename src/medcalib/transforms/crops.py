"""Load crops of large pictures without reading a picture anew for every one of its crops."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.config import KeysCollection
from numpy.typing import NDArray

from medcalib.image_files.grids import Grid
from medcalib.keys import CaseKeys
from medcalib.transforms.images import LoadPictured, read_picture

__all__ = ["LoadCropd"]

# some more than the threads that fill a cache at the same time
_NUM_KEPT = 4


class LoadCropd(LoadPictured):
    """`LoadPictured` that keeps the last pictures of which crops were cut.

    Reading a picture takes far longer than cutting it. Cases that are crops of the same picture should therefore come
    one after the other where that is possible. Pictures without ``crop`` are not kept, nor those that changed on disk.

    Args:
        keys: as of `LoadPictured`, and so are the others.
        num_channels: number of channels that the picture must have; not checked when None.
        label_map: label value on disk: class index, for those that differ.
        soft_label: whether the label holds probabilities.

    Raises:
        UserError: on call, as of `LoadPictured`.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (60, 40)).save(f"{folder}/a.png")
        ...     case = {"case": "a", "image": f"{folder}/a.png", "label": 1, "crop": [10, 10, 20, 20]}
        ...     LoadCropd()(case)["image"].shape
        torch.Size([3, 20, 20])
    """

    def __init__(
        self,
        keys: KeysCollection = (CaseKeys.IMAGE, CaseKeys.LABEL),
        num_channels: int | None = None,
        label_map: Mapping[int, int] | None = None,
        soft_label: bool = False,
    ) -> None:
        super().__init__(keys, num_channels, label_map, soft_label=soft_label)
        # what is not cut is handed on as it was read, and the next transform may change it
        self._load_whole = LoadPictured(keys, num_channels, label_map, soft_label)
        self._open = _read_or_remember

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with tensors (C, x, y) in place of paths."""
        return super().__call__(data) if CaseKeys.CROP in data else self._load_whole(data)

    def image_grid(self, data: Mapping[Hashable, Any]) -> Grid:
        """The grid of the picture, or of the part of it that is the case."""
        return self._load_whole.image_grid(data)


class _KeptPicture(NamedTuple):
    grid: Grid
    num_channels: int
    values: NDArray[np.float32]

    def read(self, channel: int | None = None) -> NDArray[np.float32]:
        return self.values if channel is None else self.values[channel : channel + 1]


def _read_or_remember(path: str) -> _KeptPicture:
    return _read(str(path), Path(path).stat().st_mtime_ns)


@lru_cache(maxsize=_NUM_KEPT)
def _read(path: str, _changed: int) -> _KeptPicture:
    values = read_picture(path).numpy()
    return _KeptPicture(Grid(Path(path), values.shape[1:], np.eye(4), np.eye(4), None), len(values), values)
