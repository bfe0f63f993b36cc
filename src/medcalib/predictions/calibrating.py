"""Calibrate predictions that lie in files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import medcalib
from medcalib.calibrators import FitReport, save_calibrator
from medcalib.data.cases import split_digest
from medcalib.devices import named_device
from medcalib.errors import UserError
from medcalib.files.folders import complete_folder
from medcalib.files.writing import write_json
from medcalib.keys import Activation, CaseKeys, SplitKeys
from medcalib.networks.weights import weights_digest
from medcalib.predictions.before_after import write_before_and_after
from medcalib.predictions.calibrator_fits import CalibratedPredictions, check_name, fitted_calibrator
from medcalib.predictions.evaluating import checked_class_names
from medcalib.predictions.prediction_folder import PredictionFolder
from medcalib.predictions.prediction_paths import read_case_list
from medcalib.predictions.prediction_values import PredictionKind
from medcalib.predictions.probability_files import write_probabilities
from medcalib.task import Task

__all__ = ["calibrate_predictions", "check_number"]


def calibrate_predictions(
    predictions_dir: str | Path,
    labels_dir: str | Path,
    output_dir: str | Path,
    *,
    kind: PredictionKind | str,
    calibration_cases: str | Path | Sequence[str],
    cases: str | Path | Sequence[str],
    calibrator: str = "temperature_scaling",
    activation: Activation | str = Activation.SOFTMAX,
    regions: Mapping[str, Sequence[int]] | None = None,
    plans_file: str | Path | None = None,
    class_names: Sequence[str] | None = None,
    keep_argmax: bool = False,
    evaluate: bool = True,
    num_bins: int = 20,
    include_background: bool = False,
    seed: int = 0,
    device: str | None = None,
) -> FitReport:
    """Fit a calibrator on the predictions of some cases and apply it to those of others, from files to files.

    How files are called and laid out is said in :class:`~medcalib.predictions.PredictionFolder`. The output folder
    holds ``predictions/<case>/<case>_prob.nii.gz`` (calibrated probabilities, classes last, float32, with the affine
    and voxel sizes of the prediction), ``calibrator.pt``, ``before`` and ``after`` (the results of
    :func:`~medcalib.predictions.evaluate_predictions` on the cases that were calibrated), ``comparison.csv`` (both side
    by side, with the interval of their difference over cases) and ``summary.json``.

    Args:
        predictions_dir: folder of the predictions.
        labels_dir: folder of the labels.
        output_dir: the folder of the results; it must not exist, and appears when it is complete.
        kind: ``"probabilities"`` or ``"logits"``.
        calibration_cases: ids of the cases on which the calibrator is fitted, or the text file that lists them; never
            cases that the network was trained on.
        cases: the same of the cases that are calibrated.
        calibrator: ``"temperature_scaling"``, ``"vector_scaling"``, ``"platt_scaling"``, ``"auxiliary"``,
            ``"isotonic"``, ``"histogram_binning"`` or ``"local_temperature_scaling"``.
        activation: ``"softmax"`` or ``"sigmoid"``.
        regions: with the sigmoid, the labels of each channel by its name.
        plans_file: the ``plans.json`` of nnU-Net's training, where it does not lie beside archives or above them.
        class_names: one name for each predicted class, background first with the softmax.
        keep_argmax: keep every decision of the uncalibrated predictions.
        evaluate: whether the calibrated cases are evaluated; without it they need no labels.
        num_bins: number of bins of the calibration errors and of histogram binning.
        include_background: whether class 0 of exclusive classes counts in means over classes.
        seed: fixes whatever is random in the fit.
        device: where everything is computed, such as ``"cpu"`` or ``"cuda:1"``; the first GPU, or the CPU where there
            is none, when left out.

    Returns:
        The report of the fit.

    Raises:
        UserError: naming case and file: an option or a list is wrong, the device is not there, a case is in both
            lists, the output exists, a file is missing or does not fit the others, or values are not what ``kind``
            says.

    Warns:
        UserWarning: as :func:`medcalib.calibrators.fit_calibrator`.
    """
    lists = {
        SplitKeys.CALIBRATION: read_case_list(calibration_cases, "calibration_cases"),
        SplitKeys.TEST: read_case_list(cases, "cases"),
    }
    case_ids = {case for listed in lists.values() for case in listed}
    predictions = PredictionFolder(predictions_dir, labels_dir, kind, activation, regions, plans_file, case_ids)
    split = _checked_split(lists)
    check_name(calibrator)
    check_number("num_bins", num_bins, least=1)
    check_number("seed", seed, least=0)
    chosen = named_device(device)
    with complete_folder(output_dir) as draft:
        for case in lists[SplitKeys.CALIBRATION]:
            predictions.find(case)
        for case in lists[SplitKeys.TEST]:
            predictions.find(case, with_label=evaluate)
        names = checked_class_names(predictions, lists[SplitKeys.CALIBRATION][0], class_names)
        task = Task(names, predictions.activation, include_background=include_background)
        fitted, report = fitted_calibrator(
            calibrator,
            task,
            lambda: map(predictions.read, lists[SplitKeys.CALIBRATION]),
            keep_argmax=keep_argmax,
            num_bins=num_bins,
            seed=seed,
            device=chosen,
        )
        print(report)
        digest = split_digest(split)
        told = {
            "predictions_dir": str(predictions_dir),
            "labels_dir": str(labels_dir),
            "kind": str(predictions.kind),
            "plans_file": None if plans_file is None else str(plans_file),
            "activation": str(predictions.activation),
            "calibrator": {"kind": fitted.kind, "digest": weights_digest(fitted.state_dict())},
            "split_digest": digest,
            "seed": seed,
            "versions": {"medcalib": medcalib.__version__, **{name: version(name) for name in ("monai", "torch")}},
        }
        save_calibrator(draft / "calibrator.pt", fitted, report, digest, details={"class_names": names})
        write_probabilities(CalibratedPredictions(predictions, fitted), lists[SplitKeys.TEST], draft / "predictions")
        summary: dict[str, Any] = {"fit": report.to_dict(), "class_names": names}
        if evaluate:
            calibrated = PredictionFolder(
                draft / "predictions",
                labels_dir,
                PredictionKind.PROBABILITIES,
                predictions.activation,
                regions,
                case_ids=case_ids,
            )
            summary["comparison"] = write_before_and_after(
                draft,
                {"before": predictions, "after": calibrated},
                lists[SplitKeys.TEST],
                task=task,
                num_bins=num_bins,
                provenance=told,
                device=chosen,
            )
        split_ids = {str(part): ids for part, ids in lists.items()}
        write_json(draft / "summary.json", summary | {"split": split_ids, "provenance": told})
    print(f"\nResults: {output_dir}")
    return report


def check_number(name: str, number: int, least: int) -> None:
    """Check that an option is a whole number, at least the least.

    Raises:
        UserError: it is none.
    """
    if not isinstance(number, int) or isinstance(number, bool) or number < least:
        raise UserError(f"{name} must be a whole number from {least} on, not {number!r}.")


def _checked_split(lists: Mapping[SplitKeys, list[str]]) -> dict[str, list[dict[str, str]]]:
    shared = [case for case in lists[SplitKeys.CALIBRATION] if case in lists[SplitKeys.TEST]]
    if shared:
        raise UserError(
            f"The case {shared[0]} is in both calibration_cases and cases; a calibrator looks better than it is on the "
            f"cases it was fitted on, so keep it in one of them."
        )
    return {str(part): [{CaseKeys.CASE.value: case} for case in cases] for part, cases in lists.items()}
