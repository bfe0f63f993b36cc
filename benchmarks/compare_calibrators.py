"""One table and one figure of all calibrators: one training for each loss, every calibrator fitted on top of it.

    python benchmarks/compare_calibrators.py --data hippocampus --max_epochs 20 [--data::dataset_dir=...]

Bundles go to --bundles_dir, table and figure to --output_dir. What is trained, fitted or evaluated already is not done
again, so the script can be interrupted. Any other option is an override of the bundles.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from harness import machine, memory_of_sides, peak_memory
from monai.bundle import ConfigParser
from scipy.special import rel_entr

from medcalib.bundle.compose import DEFAULT_METHOD, generate
from medcalib.bundle.fragments import FragmentKind, fragment_names
from medcalib.bundle.run import run
from medcalib.bundle.templates import find_templates
from medcalib.calibrators import TemperatureScaling, read_calibrator
from medcalib.cli.command_line import run_command
from medcalib.cli.options import call_with_options
from medcalib.compare import BootstrapInterval, Evaluation, bootstrap_interval, pareto_front, read_evaluation
from medcalib.engines import calibrator_fitter
from medcalib.keys import CaseKeys, SplitKeys
from medcalib.visualize.scatter import draw_calibration_scatter

TEMPLATES = find_templates()
SEED = 12345
LOSSES = "baseline_ce,baseline_dice_ce,softl1ace_dice_ce"
UNCALIBRATED = "uncalibrated"
METRICS = {
    "Dice": "mean_dice",
    "NLL": "nll",
    "Brier": "brier",
    "ECE": "macro_ece",
    "ACE": "macro_ace",
    "MCE": "macro_mce",
}
KL = "KL to the truth"


def main(
    data: str,
    losses: str = LOSSES,
    calibrators: str | None = None,
    max_epochs: int | None = None,
    bundles_dir: str = "bundles",
    output_dir: str | None = None,
    threads: int = 2,
    memory_of: str | None = None,
    side: str | None = None,
    **overrides: Any,
) -> None:
    """Compare the calibrators.

    Args:
        data: name of a data fragment.
        losses: names of loss fragments, with commas.
        calibrators: names of calibrator fragments, with commas; all by default.
        max_epochs: epochs of every training; those of the data fragment by default.
        bundles_dir: folder of the bundles.
        output_dir: folder of table and figure; that of the bundles by default.
        threads: number of threads.
        memory_of: loss on whose network the memory of fits is measured; the first by default.
        side: measure the memory of this calibrator only; what the script calls itself with.
        **overrides: --id::path=value replaces a value of the configurations.
    """
    torch.set_num_threads(threads)
    settings = overrides | ({} if max_epochs is None else {"data::max_epochs": max_epochs})
    names = _listed(calibrators) or fragment_names(TEMPLATES / "configs", FragmentKind.CALIBRATOR)
    losses = _listed(losses)
    measured = memory_of or losses[0]
    bundles, out = Path(bundles_dir), Path(output_dir or bundles_dir)
    if side:
        print(peak_of_fit(generate(TEMPLATES, bundles, data, measured, side)[0], settings))
        return
    print(machine())
    rows = {
        (loss, name): evaluate(bundles, data, loss, name, settings)
        for loss in losses
        for name in (UNCALIBRATED, *names)
    }
    words = [f"--{key}={value}" for key, value in settings.items()]
    words += [f"--data={data}", f"--losses={measured}", f"--bundles_dir={bundles}", f"--threads={threads}"]
    memory = recorded(bundles / f"memory_{data}_{measured}.json", names, words)
    text = markdown(rows, memory, measured)
    print(f"\n{text}")
    out.mkdir(parents=True, exist_ok=True)
    (out / f"compare_calibrators_{data}.md").write_text(text + "\n", encoding="utf-8")
    draw(rows, data, out / f"compare_calibrators_{data}")


def evaluate(bundles: Path, data: str, loss: str, name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Train, fit and evaluate, unless that was done before, and return the row."""
    method = DEFAULT_METHOD if name == UNCALIBRATED else name
    bundle, _ = generate(TEMPLATES, bundles, data, loss, method)
    folder = bundle / f"seed_{SEED}"
    if not (folder / "evaluation" / "summary.json").exists():
        run(str(bundle), "train", seed=SEED, overrides=settings)
        few_figures = {"evaluation::num_case_diagrams": 0, "quality_control::calibrate_threshold": False}
        run(str(bundle), "inference_eval", seed=SEED, overrides=settings | few_figures)
    truth = true_probabilities(folder)
    if truth and not (folder / "predictions").exists():
        run(str(bundle), "inference_pred", seed=SEED, overrides=settings | {"overlays::num_cases": 0})
    evaluation = read_evaluation(folder / "evaluation")
    row: dict[str, Any] = {title: bootstrap_interval(evaluation.values(metric)) for title, metric in METRICS.items()}
    if truth:
        row[KL] = bootstrap_interval(divergences(folder / "predictions", evaluation, truth))
    row["fit, s"] = None
    if name != UNCALIBRATED:
        report = read_calibrator(folder / "models" / "calibrator.pt")["report"]
        row["fit, s"] = f"{report['seconds']:.1f}{' (identity)' if report['kept_identity'] else ''}"
    return row


def true_probabilities(folder: Path) -> dict[str, str]:
    """Files of the probabilities from which the labels of the test cases were drawn; empty where nobody knows them."""
    parser = ConfigParser(ConfigParser.load_config_file(str(folder / "configs" / "inference_eval.yaml")))
    cases = parser.get_parsed_content("data::cases")[SplitKeys.TEST]
    return {case[CaseKeys.CASE]: case[CaseKeys.PROBABILITY] for case in cases if CaseKeys.PROBABILITY in case}


def divergences(predictions: Path, evaluation: Evaluation, truth: dict[str, str]) -> list[float]:
    r"""Kullback-Leibler divergence of each case, :math:`\sum_c q_c \ln(q_c / p_c)`, mean over voxels, in nats.

    It is 0 where a prediction p is the probability q from which the label was drawn, and what of the NLL is the
    prediction's fault. Predictions are kept away from 0 as in the NLL.
    """
    found = []
    for case in evaluation.case_ids:
        q = nib.load(truth[case]).get_fdata()
        p = nib.load(predictions / case / f"{case}_prob.nii.gz").get_fdata()
        found.append(rel_entr(q, np.maximum(p, np.finfo(np.float32).eps)).sum(-1).mean())
    return found


def peak_of_fit(bundle: Path, settings: dict[str, Any]) -> int:
    """Bytes by which fitting raises the memory above that of the split's logits; the fit itself is thrown away."""
    fit, peaks = calibrator_fitter.fit_calibrator, []

    def measured(calibrator: Any, batches: Any, **options: Any) -> Any:
        cases, reports = list(batches()), []
        # what is compiled and loaded once
        labels = torch.arange(64).reshape(1, 1, 4, 4, 4) % 2
        fit(TemperatureScaling(num_classes=2), [(torch.randn(1, 2, 4, 4, 4), labels)])
        peaks.append(peak_memory(lambda: reports.append(fit(calibrator, cases, **options))))
        return reports[0]

    calibrator_fitter.fit_calibrator = measured
    with tempfile.TemporaryDirectory() as folder:
        run(str(bundle), "train", seed=SEED, overrides=settings | {"output_dir": folder})
    return peaks[0]


def recorded(record: Path, names: Sequence[str], words: Sequence[str]) -> dict[str, float]:
    """Peak memory of the fit of each calibrator in bytes, measured in a fresh process unless it is in the record."""
    known = json.loads(record.read_text()) if record.exists() else {}
    for name in names:
        if name not in known:
            known |= memory_of_sides(__file__, [name], *words)
            record.write_text(json.dumps(known, indent=2))
    return known


def markdown(rows: dict[tuple[str, str], dict[str, Any]], memory: dict[str, float], measured: str) -> str:
    columns = list(next(iter(rows.values())))
    explanation = (
        "Means over test cases with bootstrap intervals (95 %, BCa) over these cases. Memory is that of the fit above "
        f"the logits of the calibration split, in a process of its own, on the network of {measured}; the time of the "
        "fit includes the prediction of the split. A calibrator that did not lower the NLL was left as the identity."
    )
    lines = [
        explanation,
        "",
        f"| loss | calibrator | {' | '.join(columns)} | fit, MiB |",
        f"|---|---|{'---:|' * (len(columns) + 1)}",
    ]
    for (loss, name), row in rows.items():
        mebibytes = f"{memory[name] / 2**20:.0f}" if loss == measured and name in memory else "-"
        cells = [_cell(value) for value in row.values()]
        lines.append(f"| `{loss}` | `{name}` | {' | '.join([*cells, mebibytes])} |")
    return "\n".join(lines)


def draw(rows: dict[tuple[str, str], dict[str, Any]], data: str, path: Path) -> None:
    losses, names = zip(*rows, strict=True)
    ece, dice = ([row[title] for row in rows.values()] for title in ("ECE", "Dice"))
    errors, overlaps = ([interval.estimate for interval in found] for found in (ece, dice))
    figure = draw_calibration_scatter(
        names,
        errors,
        overlaps,
        [(interval.low, interval.high) for interval in ece],
        [(interval.low, interval.high) for interval in dice],
        front=pareto_front(errors, overlaps),
        groups=losses if len(set(losses)) > 1 else None,
        title=data,
    )
    for suffix in ("png", "pdf"):
        figure.savefig(f"{path}.{suffix}", dpi=200)
        print(f"{path}.{suffix}")


def _cell(value: BootstrapInterval | str | None) -> str:
    if isinstance(value, BootstrapInterval):
        return f"{value.estimate:.4f} [{value.low:.4f}, {value.high:.4f}]"
    return value or "-"


def _listed(names: str | None) -> list[str]:
    """Names with commas between them."""
    return [name.strip() for name in names.split(",")] if names else []


if __name__ == "__main__":
    run_command(call_with_options, main, sys.argv[1:], "compare_calibrators.py")
