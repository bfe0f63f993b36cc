"""``medcalib calibrate``: evaluate and calibrate what another program predicted."""

from typing import Any

from medcalib.bundle.option_values import read_texts
from medcalib.cli.fold_options import OF_FOLDS, fold_options
from medcalib.cli.guarantee_options import OWN, check_needed, guarantee_options
from medcalib.errors import StoppedError, UserError

__all__ = ["main"]

_OF_FILES = (
    "predictions_dir",
    "kind",
    "calibration_cases",
    "cases",
    "activation",
    "regions",
    "plans_file",
    "class_names",
)
_NEEDED = ("predictions_dir", "labels_dir", "kind", "calibration_cases", "cases", "output_dir")
_OF_NNUNET = ("nnunet_results", "predictions", "splits_file", "folds", "test_labels_dir", "poor_below")


def main(
    predictions_dir: str | None = None,
    labels_dir: str | None = None,
    kind: str | None = None,
    calibration_cases: str | None = None,
    cases: str | None = None,
    output_dir: str | None = None,
    nnunet_results: str | None = None,
    predictions: str | None = None,
    splits_file: str | None = None,
    folds: str | None = None,
    test_labels_dir: str | None = None,
    poor_below: float | None = None,
    calibrator: str = "temperature_scaling",
    activation: str | None = None,
    regions: dict[str, list[int]] | None = None,
    plans_file: str | None = None,
    class_names: str | None = None,
    keep_argmax: bool = False,
    evaluate: bool = True,
    num_bins: int = 20,
    include_background: bool = False,
    seed: int = 0,
    device: str | None = None,
    guarantee: str | None = None,
    alpha: float | None = None,
    min_covered: float | None = None,
    fold_bundles: str | None = None,
    training_seed: int | None = None,
    debug: bool = False,
) -> None:
    """Evaluate and calibrate probabilities or logits that another program predicted.

    A calibrator is fitted on the predictions of some cases; those of others are written calibrated, with tables and
    figures. Give predictions_dir with kind, calibration_cases and cases; or, of nnU-Net, nnunet_results, whose folds
    say which cases it was not trained on; or, of a cross-validation of bundles, fold_bundles.

    Args:
        predictions_dir: folder of the predictions.
        labels_dir: folder of the labels; of nnU-Net found where it has them, unless it is given.
        kind: probabilities or logits, with guarantee also masks; what the files hold.
        calibration_cases: text file with one case id a line, or ids with commas; the calibrator is fitted on them.
        cases: the same of the cases that are calibrated and evaluated.
        output_dir: folder of the results; it must not exist.
        nnunet_results: folder of a training of nnU-Net, such as
            nnUNet_results/Dataset004_Heart/nnUNetTrainer__nnUNetPlans__3d_fullres; the calibrator is fitted on what its
            folds predict of their validation cases.
        predictions: with nnunet_results or fold_bundles, folder with the probabilities of new cases, or several with
            commas, which are the members of one prediction.
        splits_file: with nnunet_results, its splits_final.json, where nnUNet_preprocessed is not set.
        folds: with nnunet_results, numbers of the folds, with commas; all that are there when left out.
        test_labels_dir: folder of the labels of the new cases, which are evaluated then.
        poor_below: with nnunet_results, cases of which Dice is below it are poor, and quality control says how well
            uncertainty finds them; 0.8 when left out.
        calibrator: temperature_scaling, vector_scaling, platt_scaling, auxiliary, isotonic, histogram_binning or
            local_temperature_scaling; with predictions also none, to take members together as they are.
        activation: softmax (the default) for classes that exclude each other, sigmoid for independent ones.
        regions: with sigmoid, the labels of each channel, such as "{'whole': [1, 2], 'core': [2]}".
        plans_file: plans.json of nnU-Net's training, where it does not lie beside the predictions or above them.
        class_names: names of the predicted classes, with commas.
        keep_argmax: keep every decision of the uncalibrated predictions.
        evaluate: evaluate before and after; without it the calibrated cases need no labels.
        num_bins: number of bins of the calibration errors.
        include_background: count class 0 of exclusive classes in means over classes.
        seed: fixes whatever is random in the fit.
        device: cpu, cuda or cuda:1, for example; the first GPU, or the CPU where there is none, when left out.
        guarantee: instead of a calibrator, margin_control, for which masks are enough, or recall_control or
            precision_control; or the guarantee.json of an earlier run, which needs neither labels nor
            calibration_cases.
        alpha: with guarantee, the loss that is allowed; 0.1 when left out.
        min_covered: with margin_control, the share of a class that is to be covered in all but alpha of the cases.
        fold_bundles: one bundle of a cross-validation, beside which those of the other folds lie, or all of them with
            commas; the cases of each fold are calibrated by what was fitted on those of the others. Here a guarantee
            goes beside a calibrator, which may be none.
        training_seed: with fold_bundles, seed of the trainings; 12345 when left out.
        debug: with fold_bundles, take the runs of seconds that were run with --debug.
    """
    options: dict[str, Any] = dict(locals())
    if class_names is not None:
        options["class_names"] = [name.strip() for name in class_names.split(",")]
    try:
        if fold_bundles is not None:
            from medcalib.predictions import calibrate_folds

            calibrate_folds(**fold_options(main, options))
            return
        if training_seed is not None or debug:
            raise UserError(f"--{'debug' if debug else 'training_seed'} goes with --fold_bundles; leave it out.")
        for name in OF_FOLDS:
            del options[name]
        of_guarantee = guarantee_options(main, options)

        if of_guarantee is not None:
            from medcalib.predictions import guarantee_predictions

            guarantee_predictions(**of_guarantee)
            return
        for name in OWN:
            del options[name]
        is_nnunet = nnunet_results is not None or predictions is not None
        which = "nnunet_results" if nnunet_results is not None else "predictions" if is_nnunet else "predictions_dir"
        _check(options, _OF_FILES if is_nnunet else _OF_NNUNET, ("output_dir",) if is_nnunet else _NEEDED, which)
        for name in _OF_FILES if is_nnunet else _OF_NNUNET:
            del options[name]
        if is_nnunet:
            options["predictions"] = read_texts("predictions", predictions) or [] if predictions is not None else []
            options["folds"] = None if folds is None else [_fold(word) for word in read_texts("folds", folds) or []]
            options["poor_below"] = 0.8 if poor_below is None else poor_below

            from medcalib.predictions import calibrate_nnunet

            calibrate_nnunet(**options)
            return
        options["activation"] = activation or "softmax"

        from medcalib.predictions import calibrate_predictions

        calibrate_predictions(**options)
    except KeyboardInterrupt as stop:
        raise StoppedError.by(stop, "nothing was written") from None


def _check(options: dict[str, Any], of_the_other: tuple[str, ...], needed: tuple[str, ...], which: str) -> None:
    """Check that no option of the other kind of predictions was given, and all that are needed."""
    if misplaced := [name for name in of_the_other if options[name] is not None]:
        raise UserError(f"--{misplaced[0]} does not go with --{which}; leave it out, or see medcalib calibrate --help.")
    check_needed(options, needed)


def _fold(word: str) -> int:
    number = str(word).removeprefix("fold_")
    if number == "all":
        raise UserError(
            "The fold all was trained on all cases, so that a calibrator has nothing new to see; give others."
        )
    if not number.isdecimal():
        raise UserError(f"folds lists {word!r}, but they are numbers with commas, such as 0,1,2.")
    return int(number)
