"""Made-up evaluations, in memory and in folders as a bundle writes them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from medcalib.compare import Evaluation
from medcalib.files.result_tables import case_table, write_table
from medcalib.functional import BinStatistics, bin_statistics, every_calibration_error

CLASSES = ["organ", "lesion"]
LOWER = ("macro_ace", "macro_ece", "nll", "brier")


def case_names(number):
    return [f"case_{index:03}" for index in range(number)]


def draw(case, what):
    """Random numbers that a case has whichever others there are."""
    return np.random.default_rng([*case.encode(), 1000, *what])


def statistics_of(cases, num_classes, seed, num_bins=10, sharpness=1.0, voxels=200):
    """Bins of probabilities of which the labels, the same for every sharpness, are drawn at sharpness 1."""
    parts = []
    for case in cases:
        rng = draw(case, [7])
        logits = rng.normal(-0.5, 1.5, (num_classes, voxels)) + rng.normal(0, 0.5)
        labels = rng.random(logits.shape) < 1 / (1 + np.exp(-logits))
        noise = draw(case, [8, seed]).normal(0, 0.3, logits.shape)
        given = 1 / (1 + np.exp(-sharpness * (logits + noise)))
        parts.append(bin_statistics(torch.tensor(given)[None], torch.tensor(labels)[None].double(), num_bins))
    return BinStatistics(*(torch.cat(part) for part in zip(*parts, strict=True)))


def make_evaluation(name="a", cases=20, shift=0.0, seed=0, classes=CLASSES, missing=(), **provenance):
    """An evaluation whose values stem from what all share of a case, and noise of its own.

    Args:
        name: of its folder, which decides the noise.
        cases: number of cases, or their ids.
        shift: by how much errors are lower and Dice higher.
        seed: of the training; it decides the noise, too.
        classes: names of the classes.
        missing: pairs of a case and a class that has no value there.
        **provenance: what else summary.json says.
    """
    ids = case_names(cases) if isinstance(cases, int) else list(cases)
    metrics = {}
    for place, metric in enumerate(("mean_dice", *LOWER)):
        shared = 0.1 + np.array([draw(case, [place]).gamma(4, 0.05, len(classes)) for case in ids])
        own = np.array([draw(case, [*name.encode(), seed, place]).normal(0, 0.02, len(classes)) for case in ids])
        errors = shared * (1 - shift) + own
        for case, of_class in missing:
            errors[ids.index(case), classes.index(of_class)] = np.nan
        metrics[metric] = case_table(ids, classes, 1 - errors if metric == "mean_dice" else errors).set_index(
            "filename"
        )
    statistics = statistics_of(ids, len(classes), seed + len(name), sharpness=1.5 - shift)
    for error, values in every_calibration_error(statistics.pool()).items():
        metrics[f"micro_{error}"] = case_table(["dataset"], classes, values.numpy()).set_index("filename")
    known = {"seed": seed, "num_bins": 10, "include_background": False, "space": "resampled", "limit_cases": None}
    of_cases = {metric: table["mean"] for metric, table in metrics.items() if not metric.startswith("micro")}
    return Evaluation(
        folder=Path(f"/made/{name}/seed_{seed}/evaluation"),
        metrics=metrics,
        summary={"provenance": known | {"split_digest": "5" * 64, "checkpoint_digest": f"{name}{seed}"} | provenance},
        cases=pd.DataFrame(of_cases).reset_index(),
        statistics=statistics,
        class_names=list(classes),
        seed=seed,
    )


def write_evaluation(folder, evaluation):
    """Write it as a bundle does."""
    folder.mkdir(parents=True)
    for metric, table in evaluation.metrics.items():
        write_table(table.rename_axis("filename").reset_index(), folder / f"{metric}_raw.csv")
    write_table(evaluation.cases, folder / "cases.csv")
    (folder / "summary.json").write_text(json.dumps(evaluation.summary))
    arrays = {name: part.numpy() for name, part in evaluation.statistics._asdict().items()}
    cases, classes = np.array(evaluation.case_ids), np.array(evaluation.class_names)
    np.savez_compressed(folder / "bin_statistics.npz", **arrays, cases=cases, classes=classes)
    return folder
