"""Predictions of the same cases by several networks, taken together as the members of one prediction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from medcalib.calibrators import Calibrator
from medcalib.errors import UserError
from medcalib.functional.activation import to_decisions
from medcalib.functional.agreement import member_agreement
from medcalib.functional.uncertainty import PredictiveMoments
from medcalib.keys import MEMBER_MAPS, Activation, UncertaintyKeys
from medcalib.predictions.calibrator_fits import calibrated_logits
from medcalib.predictions.evaluating import PredictionSource
from medcalib.predictions.prediction_folder import PredictedCase, PredictionFolder
from medcalib.predictions.volumes import check_same_geometry

__all__ = ["CasesByPart", "MemberPredictions", "joined_members"]


class MemberPredictions:
    """Members of a prediction in a folder each, such as those of the networks of a cross-validation.

    Args:
        folders: the folder of each member.
        calibrator: calibrates each member; none when None.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import nibabel as nib
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     for member, p in (("one", 0.2), ("two", 0.6)):
        ...         folder = Path(parent, member)
        ...         folder.mkdir()
        ...         values = np.full((2, 2, 1, 2), [1 - p, p], np.float32)
        ...         nib.save(nib.Nifti1Image(values, np.eye(4)), folder / "a.nii.gz")
        ...     folders = [PredictionFolder(folder, None, "probabilities") for folder in sorted(Path(parent).iterdir())]
        ...     case = MemberPredictions(folders).read("a", with_label=False)
        >>> case.logits.softmax(1)[0, :, 0, 0, 0]
        tensor([0.6000, 0.4000])
        >>> sorted(case.maps)
        ['agreement', 'mutual_information', 'variance']
    """

    def __init__(self, folders: Sequence[PredictionFolder], calibrator: Calibrator | None = None) -> None:
        self.folders = list(folders)
        self.calibrator = calibrator

    @property
    def activation(self) -> Activation:
        """How logits become probabilities."""
        return self.folders[0].activation

    def members(self, case: str, with_label: bool = True) -> Iterator[PredictedCase]:
        """The members of a case one after the other, calibrated; the first of them with the label.

        Raises:
            UserError: naming case and file, as `PredictionFolder.read`; or members lie on different grids.
        """
        geometry = None
        for number, folder in enumerate(self.folders):
            predicted = folder.read(case, with_label and number == 0)
            geometry = geometry or predicted.geometry
            check_same_geometry(geometry, predicted.geometry, case)
            if self.calibrator is not None:
                predicted = predicted._replace(logits=calibrated_logits(predicted, self.calibrator))
            yield predicted

    def read(self, case: str, with_label: bool = True) -> PredictedCase:
        """A case: the logits of the mean probability of its members, and what these say together.

        Raises:
            UserError: as `members`.
        """
        return joined_members(self.members(case, with_label), self.activation)


class CasesByPart:
    """Predictions of cases of which each belongs to one of several sources.

    Args:
        sources: the source of each case by its id.
    """

    def __init__(self, sources: Mapping[str, PredictionSource]) -> None:
        self.sources = dict(sources)

    @property
    def activation(self) -> Activation:
        """How logits become probabilities."""
        return next(iter(self.sources.values())).activation

    def read(self, case: str, with_label: bool = True) -> PredictedCase:
        """Read a case from its source."""
        return self.sources[case].read(case, with_label)


def joined_members(members: Iterator[PredictedCase], activation: Activation) -> PredictedCase:
    """The prediction that members make together.

    Args:
        members: the predictions of one case; labels, geometry and box are those of the first.
        activation: how logits become probabilities.

    Returns:
        The case with the logits of the mean probability; of several members with their ``mutual_information``,
        ``variance`` and ``agreement``. Of a single member it is what that is.

    Raises:
        UserError: members have different numbers of classes.
    """
    first = next(members)
    moments = PredictiveMoments(activation)
    sigmoid = activation is Activation.SIGMOID
    decisions = [_taken_in(moments, first, sigmoid)]
    num_classes = first.logits.shape[1]
    first = first._replace(logits=first.logits.new_empty(0))
    for member in members:
        if member.logits.shape[1] != num_classes:
            raise UserError(
                f"Case {member.case}: its members predict {num_classes} and {member.logits.shape[1]} classes; give "
                f"predictions of one dataset."
            )
        decisions.append(_taken_in(moments, member, sigmoid))
    if len(decisions) == 1:
        return first._replace(logits=moments.logits())
    maps: dict[str, Tensor] = dict(
        zip(map(str, MEMBER_MAPS), (moments.mutual_information(), moments.variance()), strict=True)
    )
    agreement = member_agreement(torch.stack(decisions), num_classes)
    maps[str(UncertaintyKeys.AGREEMENT)] = agreement[None]
    return first._replace(logits=moments.logits(), maps=maps)


def _taken_in(moments: PredictiveMoments, member: PredictedCase, sigmoid: bool) -> Tensor:
    """Segmentation of a member, (X, Y, Z), or with the sigmoid (C, X, Y, Z)."""
    decided = to_decisions(moments.update(member.logits), sigmoid)[0]
    return decided if sigmoid else decided[0]
