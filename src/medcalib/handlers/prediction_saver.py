"""Write the predictions of an engine as files in the geometry of the input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import NibabelWriter
from monai.handlers import from_engine
from monai.utils import CommonKeys

from medcalib.handlers.result_folder import ResultFolder
from medcalib.keys import CaseKeys

__all__ = ["PredictionSaver"]

_DTYPES = {"prob": np.float32, "seg": np.uint8}


class PredictionSaver:
    """Write ``<case>/<case>_<output>.nii.gz`` for every case and every output.

    The volumes must lie in the geometry of the input already: nothing is resampled here, and the affine is that of the
    input's file. Channels become the last axis.

    Args:
        folder: where the files go.
        outputs: suffix of the file: key of ``engine.state.output``, such as ``{"prob": "pred", "seg": "seg"}``.
        batch_transform: from ``engine.state.batch`` to lists of case ids and of preprocessed images.
    """

    def __init__(
        self,
        folder: ResultFolder,
        outputs: Mapping[str, str],
        batch_transform: Callable = from_engine([CaseKeys.CASE, CommonKeys.IMAGE]),
    ) -> None:
        self.folder = folder
        self.outputs = dict(outputs)
        self.batch_transform = batch_transform

    def attach(self, engine: Engine) -> None:
        """Register the handler."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the outputs of the batch."""
        cases, images = self.batch_transform(engine.state.batch)
        for case, image, output in zip(cases, images, engine.state.output, strict=True):
            affine = image.meta["original_affine"]
            for suffix, key in self.outputs.items():
                self._write(str(case), suffix, output[key], affine)

    def _write(self, case: str, suffix: str, volume: torch.Tensor, affine: Any) -> None:
        writer = NibabelWriter(output_dtype=_DTYPES.get(suffix, np.float32))
        writer.set_data_array(torch.as_tensor(volume).cpu(), channel_dim=0)
        writer.set_metadata({"affine": affine, "original_affine": affine}, resample=False)
        writer.write(self.folder.file(f"{case}/{case}_{suffix}.nii.gz"))
