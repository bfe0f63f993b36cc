"""Write the predictions of an engine as files in the geometry of the input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import nibabel as nib
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import NibabelWriter
from monai.handlers import from_engine
from monai.utils import CommonKeys
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from medcalib.handlers.result_folder import ResultFolder
from medcalib.keys import CaseKeys

__all__ = ["PredictionSaver"]

_DTYPES = {"prob": np.float32, "seg": np.uint8}
_LEVELS = 2**16 - 1


class PredictionSaver:
    """Write ``<case>/<case>_<output>`` for every case and every output.

    The predictions must lie in the geometry of the input already: nothing is resampled here. Volumes become NIfTI with
    the affine of the input's file and channels as the last axis. Pictures become PNG, the segmentation with class
    indices, maps with 16 bits whose unit is in the text field ``unit_per_level``; what has several channels, such as
    probabilities, becomes NumPy ``.npy`` (row, column, channel).

    Args:
        folder: where the files go.
        outputs: suffix of the file: key of ``engine.state.output``, such as ``{"prob": "pred", "seg": "seg"}``.
        maxima: suffix of a map: its largest possible value, which a PNG shows white; 1 where it is not named.
        batch_transform: from ``engine.state.batch`` to lists of case ids and of preprocessed images.
    """

    def __init__(
        self,
        folder: ResultFolder,
        outputs: Mapping[str, str],
        maxima: Mapping[str, float] | None = None,
        batch_transform: Callable = from_engine([CaseKeys.CASE, CommonKeys.IMAGE]),
    ) -> None:
        self.folder = folder
        self.outputs = dict(outputs)
        self.maxima = dict(maxima or {})
        self.batch_transform = batch_transform

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the outputs of the batch."""
        cases, images = self.batch_transform(engine.state.batch)
        for case, image, output in zip(cases, images, engine.state.output, strict=True):
            for suffix, key in self.outputs.items():
                values = output[key].as_subclass(torch.Tensor).cpu().numpy()
                if values.ndim == 3:
                    self._write_picture(str(case), suffix, values.transpose(2, 1, 0))
                else:
                    self._write_volume(str(case), suffix, values, image.meta["original_affine"])

    def _write_volume(self, case: str, suffix: str, volume: NDArray, affine: Any) -> None:
        channels_last = volume[0] if len(volume) == 1 else np.moveaxis(volume, 0, -1)
        # not through set_metadata, which resamples onto the same grid and fails on some affines
        stored = NibabelWriter.create_backend_obj(
            channels_last, affine=np.asarray(affine, dtype=np.float64), dtype=_DTYPES.get(suffix, np.float32)
        )
        nib.save(stored, self.folder.file(f"{case}/{case}_{suffix}.nii.gz"))

    def _write_picture(self, case: str, suffix: str, picture: NDArray) -> None:
        """Write (row, column, channel)."""
        name = f"{case}/{case}_{suffix}"
        if suffix == "prob" or picture.shape[2] > 1:
            np.save(self.folder.file(f"{name}.npy"), picture.astype(_DTYPES.get(suffix, np.float32)))
        elif suffix == "seg":
            Image.fromarray(picture[..., 0].astype(np.uint8)).save(self.folder.file(f"{name}.png"))
        else:
            unit = self.maxima.get(suffix, 1.0) / _LEVELS
            levels = np.rint(picture[..., 0].astype(np.float64) / unit).clip(0, _LEVELS).astype(np.uint16)
            text = PngInfo()
            text.add_text("unit_per_level", repr(unit))
            Image.fromarray(levels).save(self.folder.file(f"{name}.png"), pnginfo=text)
