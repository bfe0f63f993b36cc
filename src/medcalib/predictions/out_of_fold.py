"""Calibrate a cross-validation of bundles: the cases of each fold by what was fitted on those of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import medcalib
from medcalib.bundle.layout import DEFAULT_SEED
from medcalib.calibrators import save_calibrator
from medcalib.compare.merged_folds import FOLD
from medcalib.data.cases import split_digest
from medcalib.devices import named_device
from medcalib.errors import UserError
from medcalib.files.folders import complete_folder
from medcalib.files.writing import write_json
from medcalib.keys import CaseKeys, SplitKeys
from medcalib.networks.weights import weights_digest
from medcalib.predictions.before_after import write_before_and_after
from medcalib.predictions.calibrating import check_number
from medcalib.predictions.calibrator_fits import check_name
from medcalib.predictions.evaluating import write_evaluation
from medcalib.predictions.fold_fits import FoldFits, FoldSettings, SourceInputs, calibrated_folds
from medcalib.predictions.fold_members import open_new_cases, write_new_members
from medcalib.predictions.guaranteeing import apply_guarantee, check_guarantee_name, write_guarantee
from medcalib.predictions.held_out import held_out_predictions
from medcalib.predictions.member_predictions import CasesByPart
from medcalib.predictions.prediction_values import PredictionKind
from medcalib.predictions.probability_files import write_probabilities
from medcalib.reports.guarantee_evaluation import write_guarantee_evaluation
from medcalib.task import Task

__all__ = ["NO_CALIBRATOR", "calibrate_folds"]

NO_CALIBRATOR = "none"


def calibrate_folds(
    bundles: Sequence[str | Path],
    output_dir: str | Path,
    *,
    predictions: str | Path | Sequence[str | Path] = (),
    calibrator: str = "temperature_scaling",
    guarantee: str | None = None,
    alpha: float | None = None,
    min_covered: float | None = None,
    keep_argmax: bool = False,
    evaluate: bool = True,
    num_bins: int = 20,
    include_background: bool = False,
    seed: int = 0,
    training_seed: int = DEFAULT_SEED,
    debug: bool = False,
    device: str | None = None,
) -> None:
    """Fit a calibrator, a guarantee or both on what the folds of a cross-validation predict of cases new to them.

    The cases of a fold are calibrated, and promises are made of them, by what was fitted on the cases of the other
    folds. What is fitted on all cases is for new ones. Where both are fitted, each has its own half of the cases.

    The output folder holds ``predictions/<case>``, calibrated probabilities and the sets of the guarantee; ``before``,
    ``after`` and ``comparison.csv`` as of `medcalib.predictions.calibrate_predictions`, of all cases, with their
    ``fold``; ``guarantee``, what was promised of them and what happened; ``calibrator.pt`` and ``guarantee.json`` for
    new cases, those of each fold in ``folds``, and in ``new_cases`` what they make of ``predictions``; and
    ``summary.json``.

    Args:
        bundles: one bundle of the cross-validation, beside which the others lie, or all of them.
        output_dir: the folder of the results; it must not exist, and appears when it is complete.
        predictions: folder of predictions of new cases, or one for each member, all of the same cases; they are
            calibrated and averaged.
        calibrator: as of `medcalib.predictions.calibrate_predictions`, or ``"none"``.
        guarantee: as of `medcalib.predictions.guarantee_predictions`; none when None.
        alpha: the loss that the guarantee allows.
        min_covered: of ``margin_control``, the share of a class that is to be covered.
        keep_argmax: keep every decision of the uncalibrated predictions.
        evaluate: whether all cases are evaluated before and after.
        num_bins: number of bins of the calibration errors and of histogram binning.
        include_background: whether class 0 of exclusive classes counts in means over classes.
        seed: fixes whatever is random in the fits.
        training_seed: seed of the trainings.
        debug: take the runs of seconds that were run with ``--debug``.
        device: where everything is computed; the first GPU, or the CPU where there is none, when None.

    Raises:
        UserError: an option is wrong, the output exists, or as `held_out_predictions` and `calibrated_folds`.
    """
    chosen = None if calibrator == NO_CALIBRATOR else calibrator
    if chosen is not None:
        check_name(chosen)
    if guarantee is not None:
        check_guarantee_name(guarantee, str(PredictionKind.PROBABILITIES))
    elif alpha is not None or min_covered is not None:
        raise UserError("alpha and min_covered are those of a guarantee; give --guarantee, such as recall_control.")
    if chosen is None and guarantee is None:
        raise UserError(
            "Without calibrator and guarantee there is nothing to fit; medcalib evaluate takes the evaluations of "
            "folds together."
        )
    check_number("num_bins", num_bins, least=1)
    check_number("seed", seed, least=0)
    held_out = held_out_predictions(bundles, training_seed, debug)
    old = held_out.task
    task = Task(list(old.class_names), old.activation, include_background=include_background)
    settings = FoldSettings(
        task, chosen, guarantee, keep_argmax, num_bins, seed, named_device(device), alpha, min_covered
    )
    source = CasesByPart({case: held_out.sources[n] for n, cases in held_out.folds.items() for case in cases})
    everyone = list(source.sources)
    members = [predictions] if isinstance(predictions, str | Path) else predictions
    new = open_new_cases(members, everyone, task.activation, guarantee is not None) if members else None
    division = {
        str(number): [{CaseKeys.CASE.value: case} for case in cases] for number, cases in held_out.folds.items()
    }
    with complete_folder(output_dir) as draft:
        draft.mkdir(parents=True)
        fits = calibrated_folds(settings, held_out.folds, source, held_out.groups)
        told: dict[str, Any] = {
            "bundles": {str(number): str(bundle) for number, bundle in held_out.bundles.items()},
            "training_seed": training_seed,
            "activation": str(source.activation),
            "calibrator": chosen and {"kind": chosen, "digest": _digests(fits)},
            "split_digest": split_digest(division),
            "seed": seed,
            "versions": {"medcalib": medcalib.__version__, **{name: version(name) for name in ("monai", "torch")}},
        }
        _write_fits(draft, settings, fits, told["split_digest"])
        if fits[None].report is not None:
            print(f"For new cases: {fits[None].report}")
        summary: dict[str, Any] = {"class_names": task.class_names, "folds": held_out.folds, "fits": _reports(fits)}
        rows = []
        for number, cases in held_out.folds.items():
            rows += _write_fold(draft / "predictions", settings, fits[number], cases)
        if new is not None:
            write_new_members(draft / "new_cases", settings, fits[None], new)
            summary["new_cases"] = {"cases": new.cases, "members": [str(folder) for folder in members]}
        if guarantee is not None:
            joint = fits[None].guarantee
            assert joint is not None
            names = SourceInputs(source, task).class_names
            print(write_guarantee_evaluation(draft / "guarantee", joint, names, rows))
        if evaluate:
            of_cases = [
                {CaseKeys.CASE.value: case, CaseKeys.ATTRIBUTES.value: {**held_out.attributes[case], FOLD: str(number)}}
                for number, cases in held_out.folds.items()
                for case in cases
            ]
            shared: dict[str, Any] = {
                "task": task,
                "num_bins": num_bins,
                "provenance": told,
                "device": settings.device,
                "split": {SplitKeys.TEST.value: of_cases},
            }
            if chosen is None:
                print("\nAll cases, each by the fold that was not trained on it:")
                write_evaluation(source, everyone, draft / "before", **shared)
            else:
                after = CasesByPart({case: fits[n].source for n, cases in held_out.folds.items() for case in cases})
                of = "each fold by the calibrator of the others"
                sources = {"before": source, "after": after}
                summary["comparison"] = write_before_and_after(draft, sources, everyone, of=of, **shared)
        write_json(draft / "summary.json", summary | {"provenance": told})
    print(f"\nResults: {output_dir}")


def _write_fits(folder: Path, settings: FoldSettings, fits: Mapping[int | None, FoldFits], digest: str) -> None:
    """Those of new cases at the top, those of each fold in ``folds``."""
    names = list(settings.task.class_names)
    of_files = {
        "kind": str(PredictionKind.PROBABILITIES),
        "activation": str(settings.task.activation),
        "regions": None,
        "class_names": names,
    }
    for number, one in fits.items():
        place = folder if number is None else folder / "folds" / f"fold_{number}"
        place.mkdir(parents=True, exist_ok=True)
        if one.calibrator is not None and one.report is not None:
            details = {"class_names": names, "cases": one.cases["calibrator"]}
            save_calibrator(place / "calibrator.pt", one.calibrator, one.report, digest, details=details)
        if one.guarantee is not None:
            write_guarantee(place / "guarantee.json", one.guarantee, of_files, {}, one.cases["guarantee"])


def _write_fold(folder: Path, settings: FoldSettings, fits: FoldFits, cases: Sequence[str]) -> list[dict[str, Any]]:
    """Write the calibrated predictions of a fold and the sets of its guarantee; what is said of each case."""
    if fits.calibrator is not None:
        write_probabilities(fits.source, cases, folder)
    if fits.guarantee is None:
        return []
    return apply_guarantee(fits.guarantee, SourceInputs(fits.source, settings.task), cases, True, folder)


def _digests(fits: Mapping[int | None, FoldFits]) -> dict[str, str]:
    known = {"new cases" if number is None else str(number): one.calibrator for number, one in fits.items()}
    return {name: weights_digest(one.state_dict()) for name, one in known.items() if one is not None}


def _reports(fits: Mapping[int | None, FoldFits]) -> dict[str, Any]:
    return {
        "new cases" if number is None else str(number): {
            **({} if one.report is None else {"calibrator": one.report.to_dict()}),
            **({} if one.guarantee is None else {"guarantee": one.guarantee.parts[0].state()}),
        }
        for number, one in fits.items()
    }
