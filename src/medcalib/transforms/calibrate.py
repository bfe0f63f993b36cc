"""Apply a fitted calibrator to predicted logits."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import CommonKeys

from medcalib.calibrators import Calibrator
from medcalib.functional.slabs import can_overwrite, slabs

__all__ = ["Calibrated"]

# types in which a calibrator answers as it was asked
_EXACT = (torch.float32, torch.float64)


class Calibrated(MapTransform):
    """Replace logits by calibrated logits, which are written over them, so that a big volume is in memory once.

    Only what looks at the neighbours of a voxel, or at the image, gives them a place of their own.

    Args:
        keys: keys of logits (C, ...).
        calibrator: the fitted calibrator; nothing is changed when None.
        image_key: key of the image (channels, ...) on the same grid, for calibrators that look at it.

    Raises:
        UserError: on call: the calibrator is not fitted, or the logits have another number of channels.

    Example:
        >>> from medcalib.calibrators import TemperatureScaling, fit_calibrator
        >>> calibrator = TemperatureScaling(num_classes=2)
        >>> logits = torch.tensor([[[9.0, 9.0, 9.0, 0.0], [0.0, 0.0, 0.0, 9.0]]])
        >>> _ = fit_calibrator(calibrator, [(logits, torch.tensor([[[0, 0, 1, 1]]]))])
        >>> Calibrated("pred", calibrator)({"pred": logits[0]})["pred"].softmax(0)[0].numpy().round(2).tolist()
        [0.75, 0.75, 0.75, 0.25]
    """

    def __init__(
        self, keys: KeysCollection, calibrator: Calibrator | None = None, image_key: str = CommonKeys.IMAGE
    ) -> None:
        super().__init__(keys)
        self.calibrator = calibrator
        self.image_key = image_key

    @torch.no_grad()
    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with calibrated logits."""
        result = dict(data)
        if self.calibrator is None:
            return result
        for key in self.key_iterator(result):
            logits = result[key]
            values = logits.as_subclass(torch.Tensor)
            calibrator = self.calibrator.to(logits.device)
            looks_around = calibrator.num_axes >= 0 or calibrator.needs_image
            if looks_around or values.dtype not in _EXACT or not can_overwrite(values):
                image = result[self.image_key][None].as_subclass(torch.Tensor) if calibrator.needs_image else None
                calibrated = calibrator(values[None], image)[0]
                result[key] = (
                    MetaTensor(calibrated).copy_meta_from(logits) if isinstance(logits, MetaTensor) else calibrated
                )
                continue
            for part in slabs(values):
                values[part] = calibrator(values[part][None])[0]
        return result
