"""Fit a calibrator on the calibration split of a bundle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import DataLoader
from monai.utils import CommonKeys
from torch import Tensor, nn

from medcalib.calibrators import CalibrationCase, Calibrator, FitReport, fit_calibrator, save_calibrator
from medcalib.calibrators.storage import keep_of_other_weights
from medcalib.data.case_identity import case_identities
from medcalib.data.cases import split_digest
from medcalib.functional.unknown_truth import known_voxels, unsigned_labels
from medcalib.inferers import SamplingInferer
from medcalib.keys import CaseKeys
from medcalib.networks.weights import weights_digest

__all__ = ["CalibratorFitter"]


class CalibratorFitter:
    """Predict the calibration cases, fit the calibrator on them, and write it beside the checkpoint.

    Args:
        data_loader: the calibration cases, preprocessed, of a dataset with the list of them as ``data``.
        network: with its weights.
        inferer: draws the members; their mean is what is calibrated.
        calibrator: the calibrator.
        path: the file it is written to.
        split: the dataset's split, whose digest is written, too, beside the cases on which the calibrator was fitted.
        device: where the network predicts and the calibrator is fitted.
        calibrate: what it is fitted on, the logits of the ``"mean"`` of the members or of each of the ``"members"``.
        amp: whether the network predicts with automatic mixed precision.
        amp_kwargs: as of `torch.autocast`.
        options: as of `medcalib.calibrators.fit_calibrator`.
    """

    def __init__(
        self,
        data_loader: DataLoader,
        network: nn.Module,
        inferer: SamplingInferer,
        calibrator: Calibrator,
        path: str | Path,
        split: Mapping[str, Sequence],
        device: torch.device,
        calibrate: str = "mean",
        amp: bool = False,
        amp_kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.data_loader = data_loader
        self.network = network.eval()
        self.inferer = inferer
        self.calibrator = calibrator.to(device)
        self.path = Path(path)
        self.split = split
        self.device = torch.device(device)
        self.calibrate = calibrate
        self.amp = amp
        self.amp_kwargs = dict(amp_kwargs or {})
        self.options = dict(options or {})

    def run(self) -> FitReport:
        """Fit, write and report.

        Raises:
            UserError: as of `medcalib.calibrators.fit_calibrator`.
        """
        dataset: Any = self.data_loader.dataset
        details: dict[str, Any] = {
            "weights_digest": weights_digest(self.network.state_dict()),
            "calibrate": self.calibrate,
            "cases": case_identities(dataset.data),
        }
        report = fit_calibrator(self.calibrator, self._cases, progress=True, **self.options)
        if kept := keep_of_other_weights(self.path, details["weights_digest"]):
            print(f"The calibrator that was fitted on other weights is kept in {kept}.")
        save_calibrator(self.path, self.calibrator, report, split_digest(self.split), details)
        print(report)
        print(f"Calibrator: {self.path}")
        return report

    def _cases(self) -> Iterator[CalibrationCase]:
        for batch in self.data_loader:
            images = batch[CommonKeys.IMAGE].to(self.device)
            labels = batch[CommonKeys.LABEL].to(self.device)
            mask = batch.get(CaseKeys.REGION_OF_INTEREST)
            mask = None if mask is None else mask.to(self.device)
            if (known := known_voxels(labels)) is not None:
                mask = known if mask is None else (mask.as_subclass(Tensor) != 0) & known
                labels = labels.clamp(min=0)
            labels = unsigned_labels(labels)
            logits = self._logits(images)
            copies = logits.shape[0] // images.shape[0]
            mask = None if mask is None else _repeated(mask, copies)
            names = ", ".join(map(str, batch[CaseKeys.CASE]))
            yield CalibrationCase(logits, _repeated(labels, copies), mask, _repeated(images, copies), names)

    def _logits(self, images: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast(self.device.type, enabled=self.amp, **self.amp_kwargs):
            if self.calibrate == "members":
                return torch.cat(self.inferer.members(images, self.network))
            return self.inferer(images, self.network)


def _repeated(tensor: Tensor, copies: int) -> Tensor:
    return tensor if copies == 1 else tensor.repeat(copies, *[1] * (tensor.ndim - 1))
