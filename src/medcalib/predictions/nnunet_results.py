"""Write calibrated predictions of nnU-Net: as it has them, and as bundles have them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import nibabel as nib
import pandas as pd
from monai.utils import CommonKeys
from torch import Tensor

from medcalib.files.result_tables import write_table
from medcalib.image_files.grids import image_like
from medcalib.keys import UncertaintyKeys
from medcalib.predictions.evaluating import activate_in_place
from medcalib.predictions.member_predictions import MemberPredictions, joined_members
from medcalib.predictions.nnunet import Plans
from medcalib.predictions.nnunet_archives import copy_descriptions, write_case, write_segmentation
from medcalib.predictions.nnunet_dataset import DatasetDescription
from medcalib.predictions.prediction_folder import PredictedCase
from medcalib.predictions.volumes import Geometry, write_channels
from medcalib.task import Task
from medcalib.transforms.scores import uncertainty_scores

__all__ = ["Writer"]


class Writer:
    """Write the members of cases to ``nnunet`` and what they say together to ``predictions``.

    Args:
        folder: the folder of both.
        dataset: the classes.
        task: what is predicted.
    """

    def __init__(self, folder: Path, dataset: DatasetDescription, task: Task) -> None:
        self.folder = folder
        self.dataset = dataset
        self.task = task
        self._scores: list[dict[str, str | float]] = []

    def write(self, case: str, source: MemberPredictions, places: Sequence[Path]) -> None:
        """Write one case.

        Args:
            case: its id.
            source: its members.
            places: below ``nnunet``, where the files of each member go.
        """
        joined = joined_members(self._written(case, source, places), source.activation)
        geometry, maps = joined.geometry, joined.maps
        probs = activate_in_place(joined.logits.clone(), source.activation)[0]
        del joined
        entropy = self.task.entropy(probs)
        single = {name: values[0] for name, values in maps.items()}
        scored = {CommonKeys.PRED: probs, "seg": self.task.segmentation(probs), **single}
        scores = uncertainty_scores({**scored, str(UncertaintyKeys.ENTROPY): entropy}, self.task)
        self._scores.append({"filename": case, **{name: float(value.nanmean()) for name, value in scores.items()}})
        begin = self.folder / "predictions" / case
        write_channels(begin / f"{case}_prob.nii.gz", probs, geometry)
        write_segmentation(begin / f"{case}_seg.nii.gz", probs, geometry, self.dataset)
        single = {str(UncertaintyKeys.ENTROPY): entropy, **single}
        for name in set(single) - {str(UncertaintyKeys.AGREEMENT)}:
            _write_map(begin / f"{case}_{name}.nii.gz", single[name], geometry)

    def describe(self, place: Path, plans: Plans) -> None:
        """Put ``dataset.json`` and ``plans.json`` into a folder below ``nnunet``."""
        copy_descriptions(self.dataset, plans, self.folder / "nnunet" / place)

    def write_scores(self, name: str) -> None:
        """Write a table of the uncertainty scores of all cases, one row a case."""
        write_table(pd.DataFrame(self._scores), self.folder / name)

    def _written(self, case: str, source: MemberPredictions, places: Sequence[Path]) -> Iterator[PredictedCase]:
        members = source.members(case, with_label=False)
        for member, folder, place in zip(members, source.folders, places, strict=True):
            probs = activate_in_place(member.logits.clone(), source.activation)[0]
            target = self.folder / "nnunet" / place
            write_case(target, case, probs, member.geometry, folder.predictions_dir, self.dataset, folder.known_plans())
            yield member


def _write_map(path: Path, values: Tensor, geometry: Geometry) -> None:
    """Write a map (1, X, Y, Z) as (X, Y, Z)."""
    nib.save(image_like(geometry, values[0].cpu().numpy()), path)
