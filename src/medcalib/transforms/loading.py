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

    A key that a case lacks is passed over, so that images without label can be predicted.

    Args:
        keys: keys that hold a path, or a list of paths that become channels.
        num_channels: number of channels that the image must have; not checked when None.
        label_map: label value on disk: class index, for those that differ.
        affine_tolerance: how far a corner of the label may lie from that of the image, in voxels of the image.

    Raises:
        UserError: on call, naming case and file: a file is missing, damaged or holds NaN or Inf, the image has another
            number of channels, or image and label differ in shape or position.

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
        loaded = dict(data)
        case = str(loaded.get(CaseKeys.CASE, "?"))
        for key in self.key_iterator(loaded):
            loaded[key] = self.read_label(case, loaded[key]) if key == CaseKeys.LABEL else self._read(case, loaded[key])
        image = loaded.get(CaseKeys.IMAGE)
        if self.num_channels is not None and image is not None and image.shape[0] != self.num_channels:
            raise UserError(
                f"Case {case}: {data[CaseKeys.IMAGE]} has {image.shape[0]} channel(s), but data::channel_names "
                f"lists {self.num_channels}."
            )
        if image is not None and CaseKeys.LABEL in loaded:
            self._check_geometry(case, data, image, loaded[CaseKeys.LABEL])
        return loaded

    def read_label(self, case: str, path: Any) -> MetaTensor:
        """Read a label map (1, ...) and map its values.

        Raises:
            UserError: the file is missing, damaged or holds NaN or Inf.
        """
        label = self._read(case, path)
        values = label.clone()
        for on_disk, index in self.label_map.items():
            label[values == on_disk] = index
        return label

    def _read(self, case: str, path: Any) -> MetaTensor:
        try:
            volume = self._load(path)
        except Exception as error:
            reason = str(error).strip().splitlines()
            if isinstance(error, FileNotFoundError) or "No such file" in str(error):
                raise UserError(f"Case {case}: {path} does not exist.") from None
            raise UserError(
                f"Case {case}: {path} cannot be read ({reason[-1] if reason else type(error).__name__}); "
                f"the file may be damaged or cut short, so fetch or extract it again."
            ) from None
        if not torch.isfinite(volume.as_tensor()).all():
            bad = int((~torch.isfinite(volume.as_tensor())).sum())
            raise UserError(f"Case {case}: {path} holds {bad} NaN or Inf value(s); repair or leave out this case.")
        return volume

    def _check_geometry(self, case: str, paths: Mapping, image: MetaTensor, label: MetaTensor) -> None:
        files = f"{paths[CaseKeys.IMAGE]} and {paths[CaseKeys.LABEL]}"
        if image.shape[1:] != label.shape[1:]:
            raise UserError(
                f"Case {case}: image and label differ in shape, {tuple(image.shape[1:])} against "
                f"{tuple(label.shape[1:])} ({files})."
            )
        distance = _corner_distance(image, label)
        if distance > self.affine_tolerance:
            raise UserError(
                f"Case {case}: the affines of image and label differ, by {distance:.2g} voxels at a corner ({files})."
            )


def _corner_distance(image: MetaTensor, label: MetaTensor) -> float:
    """Largest distance of a label corner from the same corner of the image, in voxels of the image."""
    extent = np.asarray(image.shape[1:], dtype=float) - 1
    rank = len(extent)
    corners = np.stack(np.meshgrid(*([0.0, e] for e in extent), indexing="ij")).reshape(rank, -1)
    image_affine = np.asarray(image.affine, dtype=float)
    label_affine = np.asarray(label.affine, dtype=float)
    size = image_affine.shape[0] - 1
    homogeneous = np.zeros((size + 1, corners.shape[1]))
    homogeneous[:rank] = corners
    homogeneous[-1] = 1
    try:
        back = np.linalg.solve(image_affine, label_affine @ homogeneous)
    except np.linalg.LinAlgError:
        return float("inf")
    return float(np.abs(back - homogeneous).max())
