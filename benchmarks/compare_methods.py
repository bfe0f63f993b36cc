"""One table of all uncertainty methods: same data, same loss, same seed, same schedule.

    python benchmarks/compare_methods.py --data hippocampus --max_epochs 10 --num_networks 3 [--data::dataset_dir=...]

Bundles go to --bundles_dir. What is trained or evaluated already is not done again, so the script can be interrupted.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from harness import machine

from medcalib.bundle.compose import generate
from medcalib.bundle.run import run
from medcalib.bundle.templates import find_templates
from medcalib.inferers import SamplingInferer

TEMPLATES = find_templates()
SEED = 12345
METHODS = (
    "deterministic",
    "mc_dropout",
    "mc_dropout_center",
    "mc_dropout_decoder",
    "tta",
    "multi_head",
    "layer_ensemble",
    "checkpoint_ensemble",
    "deep_ensemble",
    "tta_deep_ensemble",
)
# One score for all methods, and one that needs members.
AURC_SCORE = "entropy_foreground_mean"


def seconds_of_predictions() -> list[float]:
    """A list to which every prediction of a case from now on adds its seconds."""
    seconds: list[float] = []
    predict = SamplingInferer.predict

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        result = predict(*args, **kwargs)
        seconds.append(time.perf_counter() - start)
        return result

    SamplingInferer.predict = timed
    return seconds


def evaluate(method: str, options: dict[str, Any], settings: dict[str, Any], seconds: list[float]) -> dict[str, Any]:
    """Train and evaluate one method, unless that was done before, and return its row."""
    bundle, _ = generate(TEMPLATES, Path(options["bundles_dir"]), options["data"], options["loss"], method)
    folder = bundle / f"seed_{SEED}" / "evaluation"
    record = bundle / "seconds_per_case.json"
    overrides = dict(settings)
    if method.endswith(("deep_ensemble", "checkpoint_ensemble")):
        overrides["method::num_networks"] = options["num_networks"]
    if not (folder / "summary.json").exists():
        run(str(bundle), "train", seed=SEED, overrides=overrides)
        seconds.clear()
        run(str(bundle), "inference_eval", seed=SEED, overrides=overrides | {"evaluation::num_case_diagrams": 0})
        record.write_text(json.dumps(sorted(seconds)[len(seconds) // 2]))
    summary = json.loads((folder / "summary.json").read_text())
    scores = json.loads((folder / "quality_control.json").read_text())["scores"]
    known = {name: score for name, score in scores.items() if score["spearman_dice"] is not None}
    best = max(known, key=lambda name: abs(known[name]["spearman_dice"]))
    return {
        "Dice": summary["mean_dice"],
        "NLL": summary["nll"],
        "Brier": summary["brier"],
        "ECE": summary["macro_ece"],
        "ACE": summary["macro_ace"],
        "AURC": scores[AURC_SCORE]["aurc"],
        "best abs. Spearman": abs(known[best]["spearman_dice"]),
        "of": best,
        "s per case": json.loads(record.read_text()),
    }


def main() -> None:
    arguments = dict(argument.removeprefix("--").split("=", 1) for argument in _joined(sys.argv[1:]))
    options = {
        "data": arguments.pop("data"),
        "loss": arguments.pop("loss", "baseline_dice_ce"),
        "bundles_dir": arguments.pop("bundles_dir", "bundles"),
        "num_networks": int(arguments.pop("num_networks", "3")),
    }
    torch.set_num_threads(int(arguments.pop("threads", "2")))
    methods = arguments.pop("methods", ",".join(METHODS)).split(",")
    settings: dict[str, Any] = {}
    if "max_epochs" in arguments:
        settings["data::max_epochs"] = int(arguments.pop("max_epochs"))
    settings |= arguments
    print(machine())
    seconds = seconds_of_predictions()
    rows = {method: evaluate(method, options, settings, seconds) for method in methods}
    columns = list(next(iter(rows.values())))
    print(f"\n| method | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    for method, row in rows.items():
        cells = [value if isinstance(value, str) else f"{value:.4f}" for value in row.values()]
        print(f"| `{method}` | {' | '.join(cells)} |")


def _joined(words: list[str]) -> list[str]:
    """Options as ``--name=value``, also those given as ``--name value``."""
    joined: list[str] = []
    for word in words:
        if word.startswith("--"):
            joined.append(word)
        else:
            joined[-1] += f"={word}"
    return joined


if __name__ == "__main__":
    main()
