"""Load the files of a case and check that they belong together."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import MetaKeys, SpaceKeys
from numpy.typing import NDArray

from medcalib.errors import UserError
from medcalib.image_files.grids import AFFINE_TOLERANCE, Grid, corner_distance
from medcalib.image_files.label_values import replaced_values, whole_labels
from medcalib.image_files.unreadable import UnreadableFileError
from medcalib.image_files.volumes_in_files import VOLUME_ENDINGS, open_volume
from medcalib.keys import IGNORED, CaseKeys
from medcalib.transforms.structures import masks_of_structures, united_structures

__all__ = ["CheckSpatialDims", "ImageFile", "LoadCased"]


class ImageFile(Protocol):
    """A file of which nothing but its head was read yet, such as `medcalib.image_files.nifti.NiftiFile`."""

    @property
    def grid(self) -> Grid:
        """Where its voxels lie."""

    @property
    def num_channels(self) -> int | None:
        """Number of values of each voxel; None where the head does not say it."""

    def read(self, channel: int | None = None) -> NDArray[np.float32]:
        """Values (C, ...) of all channels, or (1, ...) of one."""


class LoadCased(MapTransform):
    """Load image and label of a case channel-first as float32 and check them.

    Volumes are what `medcalib.image_files.volumes_in_files.open_volume` opens: NIfTI files, ``.nii`` or ``.nii.gz``,
    and by SimpleITK MetaImage, NRRD and folders of DICOM slices. Their affine is that of
    `medcalib.image_files.grids.Grid`. Shapes and positions are compared before voxels are read. Label values that are
    whole but for a rounding are rounded.

    A key that a case lacks is passed over, so that images without label can be predicted. The key ``frame`` names the
    volume of 4D files, on their last axis, that is the case; ``attributes`` are dropped.

    Args:
        keys: keys that hold a path, or a list of paths that become channels.
        num_channels: number of channels that the image must have; not checked when None.
        label_map: label value on disk: class index, or `medcalib.keys.IGNORED`, for those that differ. Where one value
            alone is mapped to a class, the index of the class is no value any more unless it is listed, too: ``{3: 2}``
            refuses a 2 in a file. Where several are, such as ``{2: 1, 3: 1}``, they are united with it, and so is what
            is mapped to 0.
        affine_tolerance: how far a corner of the label may lie from that of the image, in voxels of the image.

    Attributes:
        endings: how the names of the files that it reads end, in lower case.
        reads_series: whether it reads folders of DICOM slices, too.

    Raises:
        UserError: on call, naming case and file: a file is missing, damaged, of another format, holds NaN or Inf or has
            no such frame, the image has another number of channels, a label holds a value to which ``label_map`` leaves
            no class, or image and label, or two channels, differ in shape or position.

    Example:
        >>> load = LoadCased(keys=["image", "label"], num_channels=1)
        >>> load({"case": "a", "image": "missing.nii.gz"})
        Traceback (most recent call last):
        ...
        medcalib.errors.UserError: Case a: missing.nii.gz does not exist.
    """

    endings: tuple[str, ...] = VOLUME_ENDINGS
    reads_series = True

    def __init__(
        self,
        keys: KeysCollection = (CaseKeys.IMAGE, CaseKeys.LABEL),
        num_channels: int | None = None,
        label_map: Mapping[int, int] | None = None,
        affine_tolerance: float = AFFINE_TOLERANCE,
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.num_channels = num_channels
        self.label_map = dict(label_map or {})
        self.affine_tolerance = affine_tolerance
        self._open: Callable[..., ImageFile] = open_volume
        self._open_label: Callable[[Any], ImageFile] = open_volume

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with tensors (C, ...) in place of paths."""
        # what is known of the case besides its files is read from the split; values such as None make no batch
        loaded = {key: value for key, value in data.items() if key not in (CaseKeys.ATTRIBUTES, CaseKeys.SERIES)}
        case = str(loaded.get(CaseKeys.CASE, "?"))
        frame = loaded.get(CaseKeys.FRAME)
        files = self._checked_files(data)
        image, label = (files.get(key) for key in (CaseKeys.IMAGE, CaseKeys.LABEL))
        for key, several in files.items():
            if key == CaseKeys.LABEL and CaseKeys.STRUCTURES in data:
                loaded[key] = united_structures(data, several, self._read_label)
                continue
            read = self._read_label if key == CaseKeys.LABEL else self._read
            channels = [read(case, file, frame) for file in several]
            loaded[key] = torch.cat([*channels]) if len(channels) > 1 else channels[0]
            if key == CaseKeys.IMAGE and self.num_channels not in (None, len(loaded[key])):
                raise UserError(
                    f"Case {case}: {_counted(several, channels)} {len(loaded[key])} channel(s), but "
                    f"data::channel_names lists {self.num_channels}{_advice(several, self.num_channels)}."
                )
        if image and label:
            # they lie together for a viewer, but the header of one has no true size of the voxels
            one, other = image[0].grid, label[0].grid
            if corner_distance(one.affine, other.affine, one.shape) > self.affine_tolerance:
                loaded[CaseKeys.LABEL].affine = loaded[CaseKeys.IMAGE].affine
        return loaded

    def structure_masks(self, data: Mapping[Hashable, Any]) -> Iterator[tuple[int, torch.Tensor]]:
        """Where each structure of a label is that marks them in files or channels of their own, one after another.

        Args:
            data: a case with the key `medcalib.keys.CaseKeys.STRUCTURES`, whose image and label must lie together.

        Yields:
            The class, and a mask (...) of truth values.

        Raises:
            UserError: as of `medcalib.transforms.structures.masks_of_structures`.
        """
        for index, mask, _ in masks_of_structures(data, self._checked_files(data)[CaseKeys.LABEL], self._read_label):
            yield index, mask

    def image_grid(self, data: Mapping[Hashable, Any]) -> Grid:
        """The grid of the image of a case, by the header of its first file alone.

        Raises:
            UserError: it is missing or damaged.
        """
        return self._all_opened(data, CaseKeys.IMAGE, 1)[0].grid

    def _read_label(self, case: str, file: ImageFile, frame: int | None) -> MetaTensor:
        label = self._read(case, file, frame)
        values = whole_labels(label.as_tensor())
        ignores = IGNORED in self.label_map.values() and IGNORED not in self.label_map
        if ignores and bool((values == IGNORED).any()):
            raise UserError(
                f"Case {case}: {file.grid.path} holds the value {IGNORED}, which is neither a class nor "
                f"data::ignore_label; correct the file."
            )
        for index, value in replaced_values(self.label_map).items():
            if (values == index).any():
                raise UserError(
                    f"Case {case}: {file.grid.path} holds the value {index}, but data::label_map gives the class "
                    f"{index} to the value {value} in its place; correct the file, or add {index}: {index} to the map "
                    f"if both are this class."
                )
        mapped = values.clone()
        for on_disk, index in self.label_map.items():
            mapped[values == on_disk] = index
        return MetaTensor(mapped).copy_meta_from(label)

    def _checked_files(self, data: Mapping[Hashable, Any]) -> dict[Hashable, list[ImageFile]]:
        """The files of each key, of which only headers were read, on one grid."""
        case = str(data.get(CaseKeys.CASE, "?"))
        files = {key: self._all_opened(data, key) for key in self.key_iterator(dict(data))}
        for several in files.values():
            for file in several[1:]:
                self._check_geometry(case, "the channels", several[0].grid, file.grid)
        image, label = (files.get(key) for key in (CaseKeys.IMAGE, CaseKeys.LABEL))
        if image and label:
            self._check_geometry(case, "image and label", image[0].grid, label[0].grid)
        return files

    def _all_opened(self, data: Mapping[Hashable, Any], key: Hashable, most: int | None = None) -> list[ImageFile]:
        """Each of the files of a key, or the first ones."""
        case, paths = str(data.get(CaseKeys.CASE, "?")), _as_list(data[key])[:most]
        if key == CaseKeys.IMAGE and CaseKeys.SERIES in data:
            series = _as_list(data[CaseKeys.SERIES])
            return [_told(case, path, self._open, path, uid or None) for path, uid in zip(paths, series, strict=False)]
        return [_told(case, path, self._open_label if key == CaseKeys.LABEL else self._open, path) for path in paths]

    def _read(self, case: str, file: ImageFile, frame: int | None) -> MetaTensor:
        grid = file.grid
        if frame is not None and file.num_channels is not None:
            frame = int(frame)
            if not 0 <= frame < file.num_channels:
                raise UserError(
                    f"Case {case}: {grid.path} has {file.num_channels} frame(s), so frame {frame}, counted from 0, "
                    f"does not exist; correct the frame where the dataset's table gives it."
                )
            values = _told(case, grid.path, file.read, frame)
        else:
            values = _told(case, grid.path, file.read)
        finite = np.isfinite(values)
        if not finite.all():
            raise UserError(
                f"Case {case}: {grid.path} holds {finite.size - finite.sum()} NaN or Inf value(s); repair or leave out "
                f"this case."
            )
        meta = {
            MetaKeys.ORIGINAL_AFFINE: grid.affine.copy(),
            MetaKeys.SPATIAL_SHAPE: np.asarray(grid.shape),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),
            "filename_or_obj": str(grid.path),
            **({CaseKeys.SERIES.value: series} if (series := getattr(file, "series", None)) else {}),
        }
        return MetaTensor(torch.from_numpy(values), affine=torch.from_numpy(grid.affine.copy()), meta=meta)

    def _check_geometry(self, case: str, what: str, one: Grid, other: Grid) -> None:
        files = f"({one.path} and {other.path})"
        if one.shape != other.shape:
            raise UserError(f"Case {case}: {what} differ in shape, {one.shape} against {other.shape} {files}.")
        if not one.lies_with(other, self.affine_tolerance):
            raise UserError(
                f"Case {case}: the affines of {what} differ, by {one.distance(other):.2g} voxels at a corner {files}."
            )


def _told(case: str, path: Any, how: Callable, *arguments: Any) -> Any:
    """What a function returns; if it cannot, the case and file are named."""
    try:
        return how(*arguments)
    except FileNotFoundError:
        raise UserError(f"Case {case}: {path} does not exist.") from None
    except UnreadableFileError as error:
        raise UserError(f"Case {case}: {path} {error}.") from None


def _as_list(paths: Any) -> list[Any]:
    return list(paths) if isinstance(paths, list | tuple) else [paths]


def _advice(files: list[ImageFile], num_channels: int | None) -> str:
    """What to do with a 4D file, where one channel is meant."""
    is_recording = num_channels == 1 and len(files) == 1 and len(files[0].grid.shape) == 3
    return "; write each volume of a 4D file as a file of its own" if is_recording else ""


def _counted(files: list[ImageFile], read: list[MetaTensor]) -> str:
    """Say which file has more than one channel if there are several."""
    if len(files) == 1:
        return f"{files[0].grid.path} has"
    many = [f"{file.grid.path} has {len(one)}" for file, one in zip(files, read, strict=True) if len(one) != 1]
    return ", ".join([*many, f"its {len(files)} files together have"])


class CheckSpatialDims(Transform):
    """Refuse a case whose image has another number of spatial axes, by its header, before it is loaded.

    Args:
        load: reads the header.
        spatial_dims: number of axes.

    Raises:
        UserError: on call, naming case and file.

    Example:
        >>> import tempfile
        >>> import nibabel as nib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     nib.save(nib.Nifti1Image(np.ones((4, 3), np.int16), np.eye(4)), f"{folder}/a.nii")
        ...     check, case = CheckSpatialDims(LoadCased(), 3), {"case": "a", "image": f"{folder}/a.nii"}
        ...     try:
        ...         check(case)
        ...     except UserError as error:
        ...         print(str(error).partition(".nii ")[2])
        has 2 spatial axes, but this bundle predicts images of 3; write a slice as a volume of depth 1.
    """

    def __init__(self, load: LoadCased, spatial_dims: int) -> None:
        self.load = load
        self.spatial_dims = spatial_dims

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case as it is."""
        grid = self.load.image_grid(data)
        if len(grid.shape) != self.spatial_dims:
            raise UserError(
                f"Case {data.get(CaseKeys.CASE, '?')}: {grid.path} has {len(grid.shape)} spatial axes, but this bundle "
                f"predicts images of {self.spatial_dims}; write a slice as a volume of depth 1."
            )
        return dict(data)
