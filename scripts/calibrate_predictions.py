#!/usr/bin/env python
"""Evaluate and calibrate probabilities or logits that another program predicted.

    python scripts/calibrate_predictions.py --predictions_dir nnunet/output --labels_dir labels --kind probabilities \
        --calibration_cases calibration.txt --cases test.txt --calibrator temperature_scaling --output_dir calibrated

docs/your_own_probabilities.md says how files are to be called and what comes out.
"""

from typing import Any

import fire

from medcalib.cli.command_line import run_command, typed_options
from medcalib.errors import StoppedError, UserError, suggestion

NEEDED = ("predictions_dir", "labels_dir", "output_dir", "kind", "calibration_cases", "cases", "calibrator")


@typed_options
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
    **unknown: Any,
) -> None:
    """Fit a calibrator on the predictions of some cases, and write those of others calibrated, with tables and figures.

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
        **unknown: options that do not exist are an error.
    """
    options = dict(locals())
    del options["unknown"]
    if unknown:
        name = next(iter(unknown))
        raise UserError(f"calibrate_predictions.py has no option --{name}{suggestion(name, options)}")
    for name in NEEDED:
        if options[name] is None:
            raise UserError(f"--{name} is missing; python scripts/calibrate_predictions.py --help says what it is.")
    if class_names is not None:
        options["class_names"] = [name.strip() for name in class_names.split(",")]

    from medcalib.predictions import calibrate_predictions

    try:
        calibrate_predictions(**options)
    except KeyboardInterrupt as stop:
        raise StoppedError.by(stop, "nothing was written") from None


if __name__ == "__main__":
    run_command(fire.Fire, main, name="calibrate_predictions.py")
