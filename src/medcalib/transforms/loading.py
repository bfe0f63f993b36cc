"""Load the files of a case and check that they belong together."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import LoadImage, MapTransform

from medcalib.errors import UserError
from medcalib.keys import CaseKeys

__all__ = ["LoadCased"]


class LoadCased(MapTransform):
    """Load image and label of a case channel-first as float32 and check them.

    A key that a case lacks is passed over, so that images without label can be predicted. The key ``frame`` names the
    volume of 4D files, on their last axis, that is the case; ``attributes`` are dropped.

    Args:
        keys: keys that hold a path, or a list of paths that become channels.
        num_channels: number of channels that the image must have; not checked when None.
        label_map: label value on disk: class index, for those that differ.
        affine_tolerance: how far a corner of the label may lie from that of the image, in voxels of the image.

    Raises:
        UserError: on call, naming case and file: a file is missing, damaged, holds NaN or Inf or has no such frame, the
            image has another number of channels, or image and label, or two channels, differ in shape or position.

    Example:
        >>> load = LoadCased(keys=["image", "label"], num_channels=1)
        >>> load({"case": "a", "image": "missing.nii.gz"})
        Traceback (most recent call last):
        ...
        medcalib.errors.UserError: Case a: missing.nii.gz does not exist.
    """

    def __init__(
        self,
        keys: KeysCollection = (CaseKeys.IMAGE, CaseKeys.LABEL),
        num_channels: int | None = None,
        label_map: Mapping[int, int] | None = None,
        affine_tolerance: float = 0.1,
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.num_channels = num_channels
        self.label_map = dict(label_map or {})
        self.affine_tolerance = affine_tolerance
        self._load = LoadImage(image_only=True, ensure_channel_first=True, dtype=np.float32)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with tensors (C, ...) in place of paths."""
        # what is known of the case besides its files is read from the split; values such as None make no batch
        loaded = {key: value for key, value in data.items() if key != CaseKeys.ATTRIBUTES}
        case = str(loaded.get(CaseKeys.CASE, "?"))
        frame = loaded.get(CaseKeys.FRAME)
        for key in self.key_iterator(loaded):
            read = self.read_label if key == CaseKeys.LABEL else self._read
            loaded[key] = read(case, loaded[key], frame)
        image = loaded.get(CaseKeys.IMAGE)
        if self.num_channels is not None and image is not None and image.shape[0] != self.num_channels:
            raise UserError(
                f"Case {case}: {self._counted(case, data[CaseKeys.IMAGE], frame)} {image.shape[0]} channel(s), but "
                f"data::channel_names lists {self.num_channels}."
            )
        if image is not None and CaseKeys.LABEL in loaded:
            files = f"{data[CaseKeys.IMAGE]} and {data[CaseKeys.LABEL]}"
            self._check_geometry(case, "image and label", files, image, loaded[CaseKeys.LABEL])
        return loaded

    def read_label(self, case: str, path: Any, frame: int | None = None) -> MetaTensor:
        """Read a label map (1, ...) and map its values.

        Args:
            case: name of the case, for messages.
            path: path of the file.
            frame: which volume of a 4D file; None for a 3D file.

        Raises:
            UserError: the file is missing, damaged, holds NaN or Inf or has no such frame.
        """
        label = self._read(case, path, frame)
        values = label.clone()
        for on_disk, index in self.label_map.items():
            label[values == on_disk] = index
        return label

    def _read(self, case: str, paths: Any, frame: int | None = None) -> MetaTensor:
        if not isinstance(paths, list | tuple):
            return self._read_file(case, paths, frame)
        channels = [self._read_file(case, path, frame) for path in paths]
        for path, channel in zip(paths[1:], channels[1:], strict=True):
            self._check_geometry(case, "the channels", f"{paths[0]} and {path}", channels[0], channel)
        return torch.cat(channels)

    def _read_file(self, case: str, path: Any, frame: int | None) -> MetaTensor:
        try:
            volume = self._load(path)
        except Exception as error:
            if isinstance(error, FileNotFoundError) or "No such file" in str(error):
                raise UserError(f"Case {case}: {path} does not exist.") from None
            raise UserError(
                f"Case {case}: {path} cannot be read ({_reason(error)}); "
                f"the file may be damaged or cut short, so fetch or extract it again."
            ) from None
        if frame is not None:
            volume = _one_frame(case, path, volume, int(frame))
        if not torch.isfinite(volume.as_tensor()).all():
            bad = int((~torch.isfinite(volume.as_tensor())).sum())
            raise UserError(f"Case {case}: {path} holds {bad} NaN or Inf value(s); repair or leave out this case.")
        return volume

    def _counted(self, case: str, paths: Any, frame: int | None) -> str:
        """Say which file has more than one channel if there are several."""
        if not isinstance(paths, list | tuple):
            return f"{paths} has"
        many = [f"{path} has {len(read)}" for path in paths if len(read := self._read_file(case, path, frame)) != 1]
        return ", ".join([*many, f"its {len(paths)} files together have"])

    def _check_geometry(self, case: str, what: str, files: str, image: MetaTensor, other: MetaTensor) -> None:
        if image.shape[1:] != other.shape[1:]:
            raise UserError(
                f"Case {case}: {what} differ in shape, {tuple(image.shape[1:])} against {tuple(other.shape[1:])} "
                f"({files})."
            )
        distance = _corner_distance(image, other)
        if distance > self.affine_tolerance:
            raise UserError(
                f"Case {case}: the affines of {what} differ, by {distance:.2g} voxels at a corner ({files})."
            )


def _reason(error: Exception) -> str:
    """The last line of a message, or all after the first to which it is joined by a dash, as nibabel does."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    start = next((place for place in range(len(lines) - 1, 0, -1) if not lines[place].startswith("-")), 0)
    return " ".join(lines[start:]) or type(error).__name__


def _one_frame(case: str, path: Any, volumes: MetaTensor, frame: int) -> MetaTensor:
    if not 0 <= frame < len(volumes):
        raise UserError(
            f"Case {case}: {path} has {len(volumes)} frame(s), so frame {frame}, counted from 0, does not exist; "
            f"correct the frame where the dataset's table gives it."
        )
    return volumes[frame : frame + 1].clone()  # a view would keep all frames in memory


def _corner_distance(image: MetaTensor, other: MetaTensor) -> float:
    """Largest distance of a corner from the same corner of the image, in voxels of the image."""
    extent = np.asarray(image.shape[1:], dtype=float) - 1
    rank = len(extent)
    corners = np.stack(np.meshgrid(*([0.0, e] for e in extent), indexing="ij")).reshape(rank, -1)
    image_affine = np.asarray(image.affine, dtype=float)
    other_affine = np.asarray(other.affine, dtype=float)
    size = image_affine.shape[0] - 1
    homogeneous = np.zeros((size + 1, corners.shape[1]))
    homogeneous[:rank] = corners
    homogeneous[-1] = 1
    try:
        back = np.linalg.solve(image_affine, other_affine @ homogeneous)
    except np.linalg.LinAlgError:
        return float("inf")
    return float(np.abs(back - homogeneous).max())
