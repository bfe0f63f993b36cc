"""Calibrate what the networks of nnU-Net predict of new cases, and take it together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from medcalib.calibrators import Calibrator
from medcalib.errors import UserError
from medcalib.predictions.before_after import write_before_and_after
from medcalib.predictions.cross_validating import RunSettings, opened_folder
from medcalib.predictions.evaluating import write_evaluation
from medcalib.predictions.member_predictions import MemberPredictions
from medcalib.predictions.nnunet import Plans, read_plans
from medcalib.predictions.nnunet_archives import PLANS, archived_cases, check_archives
from medcalib.predictions.nnunet_dataset import DATASET, DatasetDescription, read_dataset
from medcalib.predictions.nnunet_results import Writer
from medcalib.predictions.prediction_folder import PredictionFolder

__all__ = ["cases_of_members", "opened_members", "write_new_cases"]


def cases_of_members(members: Sequence[Path]) -> list[str]:
    """The cases of which every member has a prediction.

    Raises:
        UserError: a member lacks one that another has, or stands there twice.
    """
    listed = {folder: archived_cases(folder) for folder in members}
    known = sorted({case for cases in listed.values() for case in cases})
    for folder, cases in listed.items():
        if lacking := [case for case in known if case not in cases]:
            raise UserError(
                f"{folder} lacks {lacking[0]}.npz, which another folder of --predictions has; every member must "
                f"predict the same cases."
            )
    if len(set(map(Path.resolve, listed))) < len(members):
        raise UserError("--predictions names a folder twice; a member counts once.")
    return known


def opened_members(
    members: Sequence[Path],
    cases: Sequence[str],
    dataset: DatasetDescription,
    plans: Plans,
    labels: str | Path | None,
) -> list[PredictionFolder]:
    """Open the folder of each member, and look whether everything is there.

    Args:
        members: the folders.
        cases: ids of the cases.
        dataset: the classes.
        plans: those of members that have none beside them.
        labels: folder of the labels; None where there are none or they are not needed.

    Raises:
        UserError: naming the case: a member has other classes, or a file is missing.
    """
    folders = []
    for path in members:
        if (path / DATASET).is_file():
            dataset.check_same_classes(read_dataset(path))
        check_archives(path, cases, dataset)
        own = read_plans(path / PLANS) if (path / PLANS).is_file() else plans
        folder = opened_folder(path, labels, dataset, own, cases)
        for case in cases:
            folder.find(case, with_label=labels is not None)
        folders.append(folder)
    return folders


def write_new_cases(
    folder: Path,
    settings: RunSettings,
    folders: Sequence[PredictionFolder],
    cases: Sequence[str],
    fitted: Calibrator | None,
    told: Mapping[str, Any],
) -> dict[str, Any]:
    """Calibrate the members of every new case, take them together, and evaluate them where there are labels.

    Args:
        folder: where the results go.
        settings: what is shared.
        folders: the predictions of each member, of the first one with labels, where there are any.
        cases: ids of the cases.
        fitted: the calibrator; none when None.
        told: what evaluations say of where everything comes from.

    Returns:
        What ``summary.json`` says of it.

    Raises:
        UserError: a case cannot be read, or members lie on different grids.
    """
    calibrated = MemberPredictions(folders, fitted)
    members = [member.predictions_dir for member in folders]
    names = [path.resolve().name for path in members]
    if len(set(names)) < len(names):
        names = [f"member_{number}" for number in range(len(names))]
    writer = Writer(folder, settings.dataset, settings.task)
    for case in tqdm(cases, desc="calibrating", unit="case", leave=False, disable=None):
        writer.write(case, calibrated, list(map(Path, names)))
    for name, member in zip(names, folders, strict=True):
        writer.describe(Path(name), member.known_plans())
    writer.write_scores("scores.csv")
    summary: dict[str, Any] = {"members": dict(zip(names, map(str, members), strict=True)), "cases": list(cases)}
    if not settings.evaluate or folders[0].labels_dir is None:
        return summary
    shared: dict[str, Any] = {
        "task": settings.task,
        "num_bins": settings.num_bins,
        "provenance": told,
        "device": settings.device,
        "poor_below": settings.poor_below,
    }
    if fitted is None:
        print("\nNew cases, members together:")
        write_evaluation(calibrated, cases, folder / "evaluation", **shared)
        return summary
    sources = {"before": MemberPredictions(folders), "after": calibrated}
    return summary | {"comparison": write_before_and_after(folder, sources, cases, of="new cases", **shared)}
