"""Comparisons of methods that were never trained."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from medcalib.compare import Comparison, Evaluation, compare
from medcalib.compare.metric_names import better_when_higher
from medcalib.functional import BinStatistics


def bins(num_cases, num_classes, num_bins=20, slope=1.0):
    """Equal voxels and labels whatever the slope; probabilities are too extreme below a slope of 1."""
    rng = np.random.default_rng(3)
    shape = (num_cases, num_classes, num_bins)
    counts = rng.integers(1, 400, shape) * (rng.random(shape) < 0.9)
    middles = (np.arange(num_bins) + 0.5) / num_bins
    frequency = (middles + rng.normal(0, 0.05, shape)).clip(0, 1)
    predicted = (0.5 + (middles - 0.5) / slope).clip(0, 1)
    return BinStatistics(*(torch.as_tensor(part) for part in (counts, counts * predicted, counts * frequency)))


def segmentation(root, method, number, num_cases=12, seed=1, classes=("organ", "lesion"), strata=True):
    """Better calibrated and about as good in Dice, the larger the number."""
    rng = np.random.default_rng(1000 * seed + number)
    shared = np.random.default_rng(7)
    ids = [f"case_{place:03d}" for place in range(num_cases)]
    hard = shared.random(num_cases)
    base = {
        "macro_ace": 0.09 + 0.05 * hard - 0.003 * number,
        "macro_ece": 0.02 + 0.02 * hard - 0.0005 * number,
        "mean_dice": 0.92 - 0.25 * hard + 0.0005 * number,
        "nll": 0.05 + 0.1 * hard - 0.001 * number,
        "brier": 0.02 + 0.03 * hard - 0.0004 * number,
        "mhd": 0.5 + 4 * hard,
    }
    metrics = {}
    for name, values in base.items():
        table = pd.DataFrame({one: values * rng.normal(1, 0.02, num_cases) for one in classes}, index=ids)
        table["mean"] = table.mean(axis=1)
        metrics[name] = table
    cases = pd.DataFrame({"filename": ids, **{name: table["mean"].to_numpy() for name, table in metrics.items()}})
    cases["vendor"] = ["A" if place % 3 else "B" for place in range(num_cases)]
    for name in ("entropy_foreground_mean", "entropy_image_mean", "sample_mean_uncertainty"):
        cases[name] = 0.1 + 0.3 * hard + rng.normal(0, 0.05, num_cases)
    cases["mean_foreground_confidence"] = 1 - cases["entropy_foreground_mean"]
    by_vendor = {
        value: {
            "num_cases": int((cases["vendor"] == value).sum()),
            **cases[cases["vendor"] == value][list(base)].mean().to_dict(),
        }
        for value in ("A", "B")
    }
    summary = {
        **{name: float(table["mean"].mean()) for name, table in metrics.items()},
        **({"strata": {"vendor": by_vendor}} if strata else {}),
        "provenance": {
            "bundle": f"phantom_{method}", "bundle_digest": "a" * 64, "checkpoint_digest": "b" * 64,
            "split_digest": "c" * 64,
            "seed": seed, "num_bins": 20, "space": "resampled", "versions": {"medcalib": "0.1.0", "torch": "2.8.0"},
        },
    }  # fmt: skip
    return Evaluation(
        Path(root) / f"{number}" / f"seed_{seed}" / "evaluation",
        metrics,
        summary,
        cases,
        bins(num_cases, len(classes), slope=0.7 + 0.02 * number),
        list(classes),
        {
            "poor_below": 0.8,
            "scores": {
                name: {} for name in cases.columns if "entropy" in name or "uncertainty" in name or "confidence" in name
            },
        },
        seed,
    )


def classification(root, method, number, num_cases=40):
    rng = np.random.default_rng(number)
    ids = [f"cell_{place:03d}" for place in range(num_cases)]
    correct = (rng.random(num_cases) < 0.7).astype(float)
    classes = ["negative", "positive"]
    pooled = {
        "top_label_ece": 0.1 - 0.01 * number, "auc": 0.8 + 0.01 * number, "accuracy": correct.mean(), "nll": 0.5,
        "brier": 0.2,
    }  # fmt: skip
    metrics = {
        name: pd.DataFrame({"negative": [value], "positive": [value], "mean": [value]}, index=["dataset"])
        for name, value in pooled.items()
    }
    cases = pd.DataFrame(
        {
            "filename": ids, "label": "negative", "predicted": "negative", "correct": correct,
            "entropy": 0.7 - 0.4 * correct + rng.normal(0, 0.1, num_cases), "variance": 0.0,
        }
    )  # fmt: skip
    return Evaluation(
        Path(root) / f"{number}" / "seed_1" / "evaluation",
        metrics,
        {"provenance": {}},
        cases,
        bins(1, 2, 10),
        classes,
        None,
        1,
    )


def comparison(evaluations, reference, primary, margins, notes=(), left_out=None):
    """With intervals of two standard errors: the page shows what it is given."""
    levels, table = [], []
    names = list(dict.fromkeys(metric for seeds in evaluations.values() for one in seeds for metric in one.metrics))
    for metric in names:
        higher = better_when_higher(metric)
        for column in evaluations[reference][0].metrics[metric].columns:
            values = {name: seeds[0].metrics[metric][column] for name, seeds in evaluations.items()}
            means = {name: value.mean() for name, value in values.items()}
            best = (max if higher else min)(means, key=means.get)
            for name, value in values.items():
                half = 2 * value.std() / len(value) ** 0.5 if len(value) > 1 else 0.01
                levels.append(
                    {
                        "metric": metric, "class": column, "method": name, "mean": means[name],
                        "low": means[name] - half,
                        "high": means[name] + half, "sd": value.std(), "seed_sd": np.nan, "num_cases": len(value),
                        "num_seeds": len(evaluations[name]), "best": name == best,
                        "not_worse_than_best": abs(means[name] - means[best]) < half / 4,
                    }
                )  # fmt: skip
                if name == reference:
                    continue
                difference = value - values[reference]
                half = 2 * difference.std() / len(value) ** 0.5 if len(value) > 1 else 0.01
                middle = difference.mean()
                good = middle - half if higher else -(middle + half)
                table.append(
                    {
                        "metric": metric, "class": column, "method": name, "reference": reference,
                        "num_cases": len(value),
                        "reference_mean": means[reference], "method_mean": means[name], "difference": middle,
                        "difference_low": middle - half, "difference_high": middle + half,
                        "percent_of_means": 100 * middle / means[reference],
                        "percent_per_case_mean": (100 * difference / values[reference]).mean(),
                        "percent_per_case_sd": (100 * difference / values[reference]).std(),
                        "p_t": 0.01, "p_wilcoxon": 0.012, "p_holm": 0.024 if abs(middle) > half else 0.6,
                        "effect_size": 0.4,
                        "non_inferior": bool(good > -margins[metric]) if metric in margins else None,
                        "margin": margins.get(metric, np.nan), "warning": "",
                    }
                )  # fmt: skip
    return Comparison(
        reference, evaluations, primary, margins, 0.95, pd.DataFrame(table), pd.DataFrame(levels), pd.DataFrame(),
        left_out or {}, list(notes),
    )  # fmt: skip


def of_segmentations(root, methods=("baseline", "hard", "soft"), seeds=(1,), primary="macro_ace", **options):
    made = {
        name: tuple(segmentation(root, name, number, seed=seed, **options) for seed in seeds)
        for number, name in enumerate(methods)
    }
    return comparison(made, methods[0], primary, {"mean_dice": 0.01}, notes=["A note <b>of</b> the comparison."])


def compared(root, methods=("baseline", "hard", "soft"), seeds=(1,), **options):
    """The same, as `compare` finds it."""
    made = {
        name: tuple(segmentation(root, name, number, seed=seed, **options) for seed in seeds)
        for number, name in enumerate(methods)
    }
    return compare(made, methods[0], num_samples=99)


def of_images(root, methods=("baseline", "tempered")):
    made = {name: (classification(root, name, number),) for number, name in enumerate(methods)}
    return comparison(made, methods[0], "top_label_ece", {"accuracy": 0.01})


def add_predictions(made, shape=(24, 20, 8), cases=None):
    """Predictions of all cases beside the evaluations."""
    import nibabel as nib

    for number, seeds in enumerate(made.evaluations.values()):
        folder = seeds[0].folder.parent / "predictions"
        for place, case in enumerate(seeds[0].cases["filename"][:cases]):
            rng = np.random.default_rng(place)
            grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij"))
            distance = np.sqrt(((grid - 0.3 * rng.normal(size=(3, 1, 1, 1))) ** 2).sum(0))
            organ = 1 / (1 + np.exp((distance - 0.7) * (6 + 2 * number)))
            prob = np.stack([1 - organ, organ * 0.8, organ * 0.2], axis=-1).astype(np.float32)
            entropy = -(prob * np.log(prob.clip(1e-6))).sum(-1).astype(np.float32)
            (folder / case).mkdir(parents=True, exist_ok=True)
            for name, values in {"prob": prob, "seg": prob.argmax(-1).astype(np.uint8), "entropy": entropy}.items():
                nib.save(nib.Nifti1Image(values, np.diag([1, 1, 2, 1])), folder / case / f"{case}_{name}.nii.gz")


def add_pictures(made, shape=(30, 40)):
    """Predictions of pictures of two axes, as PNG and NumPy arrays."""
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("unit_per_level", repr(1.1 / 65535))
    for seeds in made.evaluations.values():
        folder = seeds[0].folder.parent / "predictions"
        for case in seeds[0].cases["filename"]:
            prob = np.zeros((*shape, 2), np.float32)
            prob[5:20, 8:30, 1] = 0.9
            prob[..., 0] = 1 - prob[..., 1]
            (folder / case).mkdir(parents=True)
            np.save(folder / case / f"{case}_prob.npy", prob)
            Image.fromarray(prob.argmax(-1).astype(np.uint8)).save(folder / case / f"{case}_seg.png")
            levels = (prob[..., 1] * 30000).astype(np.uint16)
            Image.fromarray(levels).save(folder / case / f"{case}_entropy.png", pnginfo=text)


def add_costs(made, seconds=600.0):
    for one in (one for seeds in made.evaluations.values() for one in seeds):
        folder = one.folder.parent / "cost"
        folder.mkdir(parents=True, exist_ok=True)
        for mode in ("train", "inference_pred"):
            cost = {
                "mode": mode, "seconds": seconds, "num_cases": 12, "peak_memory_bytes": 2_500_000_000,
                "peak_gpu_memory_bytes": None, "device": "cpu", "cpu": "Made-up CPU", "threads": 2, "finished": True,
            }  # fmt: skip
            (folder / f"{mode}.json").write_text(json.dumps(cost))


def without(evaluation, *parts):
    """An evaluation whose folder lacks some of its files."""
    return dataclasses.replace(evaluation, **dict.fromkeys(parts))
