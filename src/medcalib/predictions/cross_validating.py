"""Fit a calibrator on the folds of nnU-Net, and calibrate each by one that was fitted on the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from medcalib.calibrators import Calibrator, FitReport, save_calibrator
from medcalib.data.cases import split_digest
from medcalib.errors import UserError
from medcalib.keys import CaseKeys, SplitKeys
from medcalib.networks.weights import weights_digest
from medcalib.predictions.before_after import write_before_and_after
from medcalib.predictions.calibrator_fits import fitted_calibrator
from medcalib.predictions.member_predictions import CasesByPart, MemberPredictions
from medcalib.predictions.nnunet import Plans
from medcalib.predictions.nnunet_dataset import DatasetDescription
from medcalib.predictions.nnunet_folds import Fold
from medcalib.predictions.nnunet_results import Writer
from medcalib.predictions.prediction_folder import PredictionFolder
from medcalib.predictions.prediction_values import PredictionKind
from medcalib.task import Task

__all__ = ["RunSettings", "cross_validate", "fit_on_folds", "opened_folder", "write_calibrator"]

# Into so many parts the cases of a single fold are dealt.
PARTS = 5


class RunSettings(NamedTuple):
    """What every fit and evaluation of a run shares.

    Attributes:
        name: of the calibrator.
        dataset: the classes.
        task: what is predicted.
        keep_argmax: whether decisions are kept.
        evaluate: whether anything is evaluated.
        num_bins: number of bins of the calibration errors.
        poor_below: cases of which Dice is below it are poor.
        seed: fixes whatever is random.
        device: where everything is computed.
    """

    name: str
    dataset: DatasetDescription
    task: Task
    keep_argmax: bool
    evaluate: bool
    num_bins: int
    poor_below: float
    seed: int
    device: torch.device


def opened_folder(
    folder: Path, labels: str | Path | None, dataset: DatasetDescription, plans: Plans, cases: Sequence[str]
) -> PredictionFolder:
    """The predictions in a folder of nnU-Net.

    Raises:
        UserError: as `PredictionFolder`.
    """
    return PredictionFolder(
        folder,
        labels,
        PredictionKind.PROBABILITIES,
        dataset.activation,
        dataset.regions,
        plans_file=plans.path,
        case_ids=cases,
    )


def _parts(folds: Sequence[Fold]) -> dict[str, list[str]]:
    """Which cases are left out of a fit together: those of a fold, or of a single fold some of them."""
    if len(folds) > 1:
        return {fold.name: fold.cases for fold in folds}
    cases = folds[0].cases
    if len(cases) < 2:
        raise UserError(
            f"{folds[0].folder} holds a single case, which cannot both fit a calibrator and tell how good it is; give "
            f"more folds."
        )
    number = min(PARTS, len(cases))
    return {f"part_{part}": cases[part::number] for part in range(number)}


def fit_on_folds(
    settings: RunSettings, sources: Mapping[str, PredictionFolder], cases: Sequence[str]
) -> tuple[Calibrator, FitReport]:
    """Fit a calibrator on cases, each of which lies in the folder of its fold.

    Raises:
        UserError: as :func:`medcalib.calibrators.fit_calibrator`, or a case cannot be read.
    """
    return fitted_calibrator(
        settings.name,
        settings.task,
        lambda: (sources[case].read(case) for case in cases),
        keep_argmax=settings.keep_argmax,
        num_bins=settings.num_bins,
        seed=settings.seed,
        device=settings.device,
    )


def write_calibrator(
    path: Path, fitted: Calibrator, report: FitReport, cases: Sequence[str], dataset: DatasetDescription
) -> None:
    """Write a calibrator with the cases on which it was fitted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = split_digest({str(SplitKeys.CALIBRATION): [{CaseKeys.CASE.value: case} for case in cases]})
    details = {"class_names": dataset.class_names, "cases": list(cases)}
    save_calibrator(path, fitted, report, digest, details=details)


def cross_validate(
    folder: Path,
    settings: RunSettings,
    folds: Sequence[Fold],
    sources: Mapping[str, PredictionFolder],
    plans: Plans,
    told: Mapping[str, Any],
) -> dict[str, Any]:
    """Calibrate the cases of each fold by a calibrator that has not seen them, and evaluate them before and after.

    Args:
        folder: where the results go.
        settings: what is shared.
        folds: the folds; of a single one, its cases are dealt into parts that take their place.
        sources: where each case is read.
        plans: those of the training.
        told: what evaluations say of where everything comes from.

    Returns:
        What ``summary.json`` says of it.

    Raises:
        UserError: as `fit_on_folds`, or there is a single case.
    """
    after: dict[str, MemberPredictions] = {}
    digests, summary = {}, {}
    for part, left_out in _parts(folds).items():
        others = [case for case in sources if case not in left_out]
        fitted, report = fit_on_folds(settings, sources, others)
        name = f"without_{part}"
        write_calibrator(folder / "calibrators" / f"{name}.pt", fitted, report, others, settings.dataset)
        digests[name], summary[name] = weights_digest(fitted.state_dict()), report.to_dict()
        after |= {case: MemberPredictions([sources[case]], fitted) for case in left_out}
    writer = Writer(folder, settings.dataset, settings.task)
    place = {case: Path(fold.name, "validation") for fold in folds for case in fold.cases}
    for case in tqdm(place, desc="calibrating", unit="case", leave=False, disable=None):
        writer.write(case, after[case], [place[case]])
    writer.describe(Path(), plans)
    if not settings.evaluate:
        return {"fits": summary}
    comparison = write_before_and_after(
        folder,
        {
            "before": CasesByPart({case: MemberPredictions([source]) for case, source in sources.items()}),
            "after": CasesByPart(after),
        },
        list(sources),
        task=settings.task,
        num_bins=settings.num_bins,
        provenance={**told, "calibrator": {"kind": settings.name, "digest": digests}},
        device=settings.device,
        poor_below=settings.poor_below,
        of="each fold by the calibrator of the others",
    )
    return {"fits": summary, "comparison": comparison}
