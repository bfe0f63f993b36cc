"""``medcalib calibrate``: evaluate and calibrate what another program predicted."""

from medcalib.errors import StoppedError

__all__ = ["main"]


def main(
    predictions_dir: str,
    labels_dir: str,
    kind: str,
    calibration_cases: str,
    cases: str,
    output_dir: str,
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
) -> None:
    """Evaluate and calibrate probabilities or logits that another program predicted.

    A calibrator is fitted on the predictions of some cases; those of others are written calibrated, with tables and
    figures.

    Args:
        predictions_dir: folder of the predictions.
        labels_dir: folder of the labels.
        kind: probabilities or logits; what the files hold.
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
    """
    options = dict(locals())
    if class_names is not None:
        options["class_names"] = [name.strip() for name in class_names.split(",")]

    from medcalib.predictions import calibrate_predictions

    try:
        calibrate_predictions(**options)
    except KeyboardInterrupt as stop:
        raise StoppedError.by(stop, "nothing was written") from None
