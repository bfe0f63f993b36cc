"""Calibrate a cross-validation of nnU-Net, and what its networks predict of new cases."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import medcalib
from medcalib.calibrators import FitReport
from medcalib.data.cases import split_digest
from medcalib.devices import named_device
from medcalib.errors import UserError
from medcalib.files.folders import complete_folder
from medcalib.files.writing import write_json
from medcalib.keys import CaseKeys, SplitKeys
from medcalib.networks.weights import weights_digest
from medcalib.predictions.calibrating import check_number
from medcalib.predictions.calibrator_fits import check_name
from medcalib.predictions.cross_validating import (
    RunSettings,
    cross_validate,
    fit_on_folds,
    opened_folder,
    write_calibrator,
)
from medcalib.predictions.new_case_members import cases_of_members, opened_members, write_new_cases
from medcalib.predictions.nnunet import read_plans
from medcalib.predictions.nnunet_archives import PLANS, check_archives
from medcalib.predictions.nnunet_dataset import read_dataset
from medcalib.predictions.nnunet_folds import Fold, check_new, find_labels, find_splits, read_folds, read_splits
from medcalib.predictions.prediction_folder import PredictionFolder
from medcalib.task import Task

__all__ = ["NO_CALIBRATOR", "calibrate_nnunet"]

NO_CALIBRATOR = "none"


def calibrate_nnunet(
    nnunet_results: str | Path | None,
    output_dir: str | Path,
    *,
    predictions: str | Path | Sequence[str | Path] = (),
    splits_file: str | Path | None = None,
    folds: Sequence[int] | None = None,
    labels_dir: str | Path | None = None,
    test_labels_dir: str | Path | None = None,
    calibrator: str = "temperature_scaling",
    keep_argmax: bool = False,
    evaluate: bool = True,
    num_bins: int = 20,
    poor_below: float = 0.8,
    include_background: bool = False,
    seed: int = 0,
    device: str | None = None,
) -> FitReport | None:
    """Fit a calibrator on what the folds of nnU-Net predict of their validation cases, and apply it.

    The network of a fold was not trained on its validation cases, so their predictions, which ``nnUNetv2_train ...
    --npz`` leaves, are as those of new cases; ``splits_final.json`` must say so of each. One calibrator is fitted on
    all of them, for new cases. How well that works is measured on the same cases without one that was fitted on them:
    those of a fold are calibrated by a calibrator that was fitted on the others (of a single fold, by parts).

    Of new cases, each folder of ``predictions`` is a member: each is calibrated, then their probabilities are averaged.

    The output folder holds ``calibrator.pt``, ``summary.json`` and ``cross_validation`` and ``test``, with

    - ``nnunet``: the calibrated predictions as nnU-Net has them, ``.npz``, ``.pkl`` and segmentation, for
      ``nnUNetv2_ensemble`` and others;
    - ``predictions/<case>/<case>_{prob,seg,entropy}.nii.gz``, of several members also ``mutual_information`` and
      ``variance``, on the grid of the segmentations;
    - where there are labels, ``before``, ``after`` and ``comparison.csv`` as of
      :func:`~medcalib.predictions.calibrate_predictions`, with ``quality_control.json``;
    - of ``test``, ``scores.csv``: uncertainty scores of every case, found without labels.

    Args:
        nnunet_results: the folder of a training, with ``fold_0`` and so on, ``dataset.json`` and ``plans.json``; it can
            be None where there is no calibrator.
        output_dir: the folder of the results; it must not exist, and appears when it is complete.
        predictions: folder with the probabilities of new cases, or one for each member, all of the same cases.
        splits_file: the ``splits_final.json`` of the training; looked for in ``nnUNet_preprocessed`` when None.
        folds: numbers of the folds; all that are there when None.
        labels_dir: labels of the training; ``gt_segmentations`` beside the splits or ``labelsTr`` when None.
        test_labels_dir: labels of the new cases, where there are any.
        calibrator: as of :func:`~medcalib.predictions.calibrate_predictions`; or ``"none"``, and members are only taken
            together.
        keep_argmax: keep every decision of the uncalibrated members.
        evaluate: whether anything is evaluated.
        num_bins: number of bins of the calibration errors and of histogram binning.
        poor_below: cases of which the mean Dice is below it are poor; ``quality_control.json`` says how well
            uncertainty finds them.
        include_background: whether class 0 of exclusive classes counts in means over classes.
        seed: fixes whatever is random in the fit.
        device: where everything is computed; the first GPU, or the CPU where there is none, when None.

    Returns:
        The report of the fit on all folds; None without calibrator.

    Raises:
        UserError: naming file and case: an option is wrong, the output exists, a case was trained on, lies in two folds
            or has no probabilities or properties, or what nnU-Net wrote does not fit its ``dataset.json``.

    Warns:
        UserWarning: as :func:`medcalib.calibrators.fit_calibrator`.
    """
    fits = calibrator != NO_CALIBRATOR
    given = [predictions] if isinstance(predictions, str | Path) else predictions
    members = [Path(folder).expanduser() for folder in given]
    if fits:
        check_name(calibrator)
    check_number("num_bins", num_bins, least=1)
    check_number("seed", seed, least=0)
    if isinstance(poor_below, bool) or not isinstance(poor_below, int | float) or not 0 <= poor_below <= 1:
        raise UserError(f"poor_below must be a Dice from 0 to 1, not {poor_below!r}.")
    if not fits and not members:
        raise UserError("Without calibrator there is nothing to do but to take members together; give --predictions.")
    if test_labels_dir is not None and not members:
        raise UserError("test_labels_dir is for the cases of --predictions; give these, too, or leave it out.")
    if fits and nnunet_results is None:
        raise UserError("nnunet_results is missing: the folder of the training, on whose folds a calibrator is fitted.")
    cases = cases_of_members(members)
    results = members[0] if nnunet_results is None else Path(nnunet_results).expanduser()
    if not results.is_dir():
        raise UserError(f"nnunet_results {nnunet_results} is not a folder; give that of a training of nnU-Net.")
    dataset, plans = read_dataset(results), read_plans(results / PLANS)
    task = Task(dataset.class_names, dataset.activation, include_background=include_background)
    settings = RunSettings(
        calibrator, dataset, task, keep_argmax, evaluate, num_bins, poor_below, seed, named_device(device)
    )
    told: dict[str, Any] = {
        "nnunet_results": None if nnunet_results is None else str(nnunet_results),
        "predictions": [str(folder) for folder in members],
        "activation": str(dataset.activation),
        "calibrator": None,
        "seed": seed,
        "versions": {"medcalib": medcalib.__version__, **{name: version(name) for name in ("monai", "torch")}},
    }
    found: list[Fold] = []
    sources: dict[str, PredictionFolder] = {}
    labels, splits = labels_dir, None
    if fits:
        splits_path = find_splits(results, splits_file)
        splits = read_splits(splits_path)
        found = read_folds(results, splits_path, folds)
        labels = labels_dir or find_labels(splits_path, results)
        for fold in found:
            check_archives(fold.folder, fold.cases, dataset)
            of_fold = opened_folder(fold.folder, labels, dataset, plans, fold.cases)
            for case in fold.cases:
                of_fold.find(case)
                sources[case] = of_fold
        known = {str(SplitKeys.CALIBRATION): [{CaseKeys.CASE.value: case} for fold in found for case in fold.cases]}
        told |= {"splits_file": str(splits_path), "labels_dir": str(labels), "split_digest": split_digest(known)}
    opened = opened_members(members, cases, dataset, plans, test_labels_dir if evaluate else None)
    if splits is not None:
        check_new(cases, splits, splits_path)
    with complete_folder(output_dir) as draft:
        draft.mkdir(parents=True)
        summary: dict[str, Any] = {"class_names": dataset.class_names}
        fitted, report = None, None
        if fits:
            everyone = list(sources)
            fitted, report = fit_on_folds(settings, sources, everyone)
            print(report)
            summary |= {"fit": report.to_dict(), "folds": {fold.name: fold.cases for fold in found}}
            write_calibrator(draft / "calibrator.pt", fitted, report, everyone, dataset)
            summary["cross_validation"] = cross_validate(
                draft / "cross_validation", settings, found, sources, plans, told
            )
            told["calibrator"] = {"kind": fitted.kind, "digest": weights_digest(fitted.state_dict())}
        if members:
            told["test_labels_dir"] = None if test_labels_dir is None else str(test_labels_dir)
            summary["test"] = write_new_cases(draft / "test", settings, opened, cases, fitted, told)
        write_json(draft / "summary.json", summary | {"provenance": told})
    print(f"\nResults: {output_dir}")
    return report
