"""``medcalib calibrate``: evaluate and calibrate what another program predicted."""

from typing import Any

from medcalib.cli.guarantee_options import guarantee_options
from medcalib.errors import StoppedError, UserError

__all__ = ["main"]

_NEEDED = ("predictions_dir", "labels_dir", "kind", "calibration_cases", "cases", "output_dir")


def main(
    predictions_dir: str | None = None,
    labels_dir: str | None = None,
    kind: str | None = None,
    calibration_cases: str | None = None,
    cases: str | None = None,
    output_dir: str | None = None,
    calibrator: str = "temperature_scaling",
    activation: str = "softmax",
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
) -> None:
    """Evaluate and calibrate probabilities or logits that another program predicted.

    A calibrator is fitted on the predictions of some cases; those of others are written calibrated, with tables and
    figures.

    Args:
        predictions_dir: folder of the predictions.
        labels_dir: folder of the labels.
        kind: probabilities or logits, with guarantee also masks; what the files hold.
        calibration_cases: text file with one case id a line, or ids with commas; the calibrator is fitted on them.
        cases: the same of the cases that are calibrated and evaluated.
        output_dir: folder of the results; it must not exist.
        calibrator: temperature_scaling, vector_scaling, platt_scaling, auxiliary, isotonic, histogram_binning or
            local_temperature_scaling.
        activation: softmax for classes that exclude each other, sigmoid for independent ones.
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
    """
    options: dict[str, Any] = dict(locals())
    if (chosen := guarantee_options(main, options)) is not None:
        from medcalib.predictions import guarantee_predictions

        try:
            guarantee_predictions(**chosen)
        except KeyboardInterrupt as stop:
            raise StoppedError.by(stop, "nothing was written") from None
        return
    for name in ("guarantee", "alpha", "min_covered"):
        del options[name]
    if missing := [name for name in _NEEDED if options[name] is None]:
        raise UserError(f"--{missing[0]} is missing; medcalib calibrate --help says what it is.")
    if class_names is not None:
        options["class_names"] = [name.strip() for name in class_names.split(",")]

    from medcalib.predictions import calibrate_predictions

    try:
        calibrate_predictions(**options)
    except KeyboardInterrupt as stop:
        raise StoppedError.by(stop, "nothing was written") from None
