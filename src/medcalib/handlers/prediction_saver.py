"""Write the predictions of an engine as files in the geometry of the input."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import nibabel as nib
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.handlers import from_engine
from monai.utils import CommonKeys
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from medcalib.handlers.result_folder import ResultFolder
from medcalib.image_files.grids import Grid, image_like
from medcalib.image_files.label_values import disk_values
from medcalib.image_files.volumes_in_files import open_volume
from medcalib.keys import MEMBER_MAPS, CaseKeys

__all__ = ["PredictionSaver"]

_LEVELS = 2**16 - 1
_SEG = "seg"
_TYPES = (np.uint8, np.uint16, np.int16, np.int32)


class PredictionSaver:
    """Write ``<case>/<case>_<output>`` for every case and every output.

    The predictions must lie in the geometry of the input already: nothing is resampled here. Volumes become NIfTI with
    sform, qform, their codes, voxel sizes and units of the input's file, or with those that say the same where that is
    no NIfTI, and channels as the last axis. Pictures become PNG, maps with 16 bits whose unit is in the text field
    ``unit_per_level``; what has several channels, such as probabilities, becomes NumPy ``.npy`` (row, column, channel).

    A segmentation of one channel holds the label values of the dataset's files, see
    `medcalib.image_files.label_values.disk_values`, in the smallest integer type that has them all. One with several
    channels, of labels that overlap, holds 0 and 1.

    Args:
        folder: where the files go.
        outputs: suffix of the file: key of ``engine.state.output``, such as ``{"prob": "pred", "seg": "seg"}``. Maps of
            several members (`medcalib.keys.MEMBER_MAPS`) are written where there are several.
        maxima: suffix of a map: its largest possible value, which a PNG shows white; 1 where it is not named.
        label_map: label value on disk: class index, for those that differ.
        num_values: number of values that a segmentation can have.
        batch_transform: from ``engine.state.batch`` to lists of case ids and of preprocessed images.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> engine = Engine(lambda engine, batch: [{"pred": torch.rand(2, 8, 8), "seg": torch.ones(1, 8, 8)}])
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     folder = ResultFolder(f"{parent}/predictions")
        ...     folder.attach(engine)
        ...     PredictionSaver(folder, {"prob": "pred", "seg": "seg"}).attach(engine)
        ...     _ = engine.run([[{"case": "a", "image": torch.rand(1, 8, 8)}]])
        ...     sorted(path.name for path in Path(parent).glob("predictions/a/*"))
        ['a_prob.npy', 'a_seg.png']
    """

    def __init__(
        self,
        folder: ResultFolder,
        outputs: Mapping[str, str],
        maxima: Mapping[str, float] | None = None,
        label_map: Mapping[int, int] | None = None,
        num_values: int = 256,
        batch_transform: Callable = from_engine([CaseKeys.CASE, CommonKeys.IMAGE]),
    ) -> None:
        self.folder = folder
        self.outputs = dict(outputs)
        self.maxima = dict(maxima or {})
        self.batch_transform = batch_transform
        self._indices = _in_smallest_type(list(range(num_values)))
        self._values = _in_smallest_type(disk_values(label_map, num_values))

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the outputs of the batch."""
        cases, images = self.batch_transform(engine.state.batch)
        for case, image, output in zip(cases, images, engine.state.output, strict=True):
            grid: Grid | None = None
            for suffix, key in self.outputs.items():
                if key in MEMBER_MAPS and key not in output:
                    continue
                values = output[key].as_subclass(torch.Tensor).cpu().numpy()
                if suffix == _SEG:
                    values = self._labels(values)
                if values.ndim == 3:
                    self._write_picture(str(case), suffix, values.transpose(2, 1, 0))
                else:
                    # once for all outputs: of a DICOM series every slice says where it lies
                    grid = (
                        grid or open_volume(image.meta["filename_or_obj"], image.meta.get(CaseKeys.SERIES.value)).grid
                    )
                    self._write_volume(str(case), suffix, values, grid)

    def _labels(self, seg: NDArray) -> NDArray:
        """Class indices as the values that stand for them on disk."""
        values = self._values if len(seg) == 1 else self._indices
        labels = np.empty(seg.shape, values.dtype)
        # plane by plane, since indices take eight times the memory
        for channel, found in zip(labels, seg, strict=True):
            for plane, indices in zip(channel, found, strict=True):
                plane[...] = values[indices.astype(np.int64)]
        return labels

    def _write_volume(self, case: str, suffix: str, volume: NDArray, grid: Grid) -> None:
        channels_last = volume[0] if len(volume) == 1 else np.moveaxis(volume, 0, -1)
        if suffix != _SEG:
            channels_last = channels_last.astype(np.float32, copy=False)
        stored = image_like(grid, channels_last)
        nib.save(stored, self.folder.file(f"{case}/{case}_{suffix}.nii.gz"))

    def _write_picture(self, case: str, suffix: str, picture: NDArray) -> None:
        """Write (row, column, channel)."""
        name = f"{case}/{case}_{suffix}"
        if suffix == _SEG and picture.shape[2] == 1:
            Image.fromarray(picture[..., 0]).save(self.folder.file(f"{name}.png"))
        elif suffix in ("prob", _SEG) or picture.shape[2] > 1:
            kept = picture if suffix == _SEG else picture.astype(np.float32, copy=False)
            np.save(self.folder.file(f"{name}.npy"), kept)
        else:
            unit = self.maxima.get(suffix, 1.0) / _LEVELS
            levels = np.rint(picture[..., 0].astype(np.float64) / unit).clip(0, _LEVELS).astype(np.uint16)
            text = PngInfo()
            text.add_text("unit_per_level", repr(unit))
            Image.fromarray(levels).save(self.folder.file(f"{name}.png"), pnginfo=text)


def _in_smallest_type(values: list[int]) -> NDArray:
    fitting = (kind for kind in _TYPES if np.iinfo(kind).min <= min(values) and max(values) <= np.iinfo(kind).max)
    return np.array(values, next(fitting, np.int64))
