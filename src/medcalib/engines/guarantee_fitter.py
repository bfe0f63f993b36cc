"""Fit the guarantees of a bundle on calibration cases."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import DataLoader, decollate_batch
from monai.transforms import Compose
from monai.utils import CommonKeys
from torch import nn
from tqdm import tqdm

from medcalib.data.case_identity import case_identities
from medcalib.data.cases import split_digest
from medcalib.freed_memory import return_freed_memory
from medcalib.guarantees import JointGuarantees, save_guarantees
from medcalib.inferers import SamplingInferer
from medcalib.transforms.guaranteed_cases import GUARANTEED

__all__ = ["GuaranteeFitter"]


class GuaranteeFitter:
    """Predict calibration cases, fit guarantees on what is observed of them, and write these beside the checkpoint.

    Of a case only a small summary is kept, so memory does not grow with volumes times cases.

    Args:
        data_loader: the calibration cases, preprocessed, of a dataset with the list of them as ``data``.
        network: the network that predicts, with its weights.
        inferer: draws the members.
        postprocessing: from predicted logits to what a `medcalib.transforms.ObserveGuaranteesd` leaves of a case.
        guarantees: the guarantees.
        path: the file they are written to.
        split: the dataset's split, whose digest is written, too.
        origin: what decides the probabilities, as of `medcalib.guarantees.guarantee_origin`.
        device: where the network predicts.
        promises_nothing: whether this is a run of seconds, which may have too few cases.
        amp: whether the network predicts with automatic mixed precision.
        amp_kwargs: as of `torch.autocast`.
    """

    def __init__(
        self,
        data_loader: DataLoader,
        network: nn.Module,
        inferer: SamplingInferer,
        postprocessing: Callable[[dict], Mapping],
        guarantees: JointGuarantees,
        path: str | Path,
        split: Mapping[str, Sequence],
        origin: Mapping[str, Any],
        device: torch.device,
        promises_nothing: bool = False,
        amp: bool = False,
        amp_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self.data_loader = data_loader
        self.network = network.eval()
        self.inferer = inferer
        self.steps = Compose([postprocessing]).flatten()
        self.guarantees = guarantees
        self.path = Path(path)
        self.split = split
        self.origin = dict(origin)
        self.device = torch.device(device)
        self.promises_nothing = promises_nothing
        self.amp = amp
        self.amp_kwargs = dict(amp_kwargs or {})

    def run(self) -> JointGuarantees:
        """Fit, write and say what is promised.

        Raises:
            UserError: as of `medcalib.guarantees.JointGuarantees.fit`.
        """
        dataset: Any = self.data_loader.dataset
        observed, groups, rows = [], [], []
        for identity, case in zip(case_identities(dataset.data), self._cases(), strict=True):
            found = case[GUARANTEED]
            observed.append(found["observed"])
            groups.append(found["group"])
            rows.append(identity | {key: found[key] for key in ("group", "dice", "scores")})
        self.guarantees.fit(observed, groups, self.promises_nothing)
        save_guarantees(self.path, self.guarantees, rows, self.origin, split_digest(self.split), self.promises_nothing)
        self._tell(len(observed))
        return self.guarantees

    def _cases(self) -> Iterator[Mapping[Any, Any]]:
        with tqdm(self.data_loader, desc="guarantee: reading", unit="case", leave=False, disable=None) as batches:
            for batch in batches:
                images = batch[CommonKeys.IMAGE].to(self.device)
                with torch.no_grad(), torch.autocast(self.device.type, enabled=self.amp, **self.amp_kwargs):
                    batch |= self.inferer.predict(images, self.network)
                # where the memory of a device does not hold a prediction, it lies on the CPU
                device = batch[CommonKeys.PRED].device
                batch[CommonKeys.IMAGE], batch[CommonKeys.LABEL] = images.to(device), batch[CommonKeys.LABEL].to(device)
                cases = decollate_batch(batch)
                del batch, images
                while cases:
                    case = cases.pop(0)
                    for step in range(len(self.steps.transforms)):
                        case = self.steps(case, start=step, end=step + 1)
                    yield case
                    del case
                return_freed_memory()

    def _tell(self, num_cases: int) -> None:
        for part in self.guarantees.fitted_parts:
            if part.kind in self.guarantees.lacking:
                continue
            promised = part.promise()
            print(f"Guarantee {part.kind}, fitted on {num_cases} cases: {promised}.")
            for note in part.notes():
                print(f"  {note}")
        if self.promises_nothing:
            for kind, reason in self.guarantees.lacking.items():
                warnings.warn(
                    f"This debug run has too few calibration cases, so nothing is promised ({kind}: {reason})",
                    stacklevel=2,
                )
        print(f"Guarantee: {self.path}")
