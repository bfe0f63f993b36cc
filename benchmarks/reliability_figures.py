"""Time to make the files of the reliability figures, as an evaluation does it and in plainer ways.

    python benchmarks/reliability_figures.py [--cases 40] [--classes 2]

A case is a PNG; the dataset is its diagram and its histogram, each as PNG and PDF. All sides take turns in one process;
medians. The first picture of a kind, which sets up axes and fonts, is named apart.
"""

import argparse
import io
import statistics
import time

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from medcalib.visualize import (
    CaseReliabilityDrawer,
    draw_case_reliability_diagrams,
    draw_dataset_reliability_diagrams,
    draw_dataset_reliability_histograms,
)
from medcalib.visualize.rendering import render_case, render_dataset

DPI = 150


def bin_sums(cases, classes, bins=20, seed=0):
    """Counts as of a segmentation: most voxels in the outer bins."""
    rng = np.random.default_rng(seed)
    outer = np.exp(-0.9 * np.minimum(np.arange(bins), np.arange(bins)[::-1]))
    counts = (60_000 * outer * rng.lognormal(0, 0.4, (cases, classes, bins))).astype(int)
    confidence = (np.arange(bins) + rng.random((cases, classes, bins))) / bins
    return counts, counts * confidence, rng.binomial(counts, confidence)


def draw_with_pyplot(counts, sum_pred, sum_true, names, title):
    figure, axes = plt.subplots(2, len(names), figsize=(7, 3.4), squeeze=False, height_ratios=(5, 1))
    edges = np.linspace(0, 1, counts.shape[1] + 1)
    for index, name in enumerate(names):
        frequency = sum_true[index] / np.maximum(counts[index], 1)
        confidence = sum_pred[index] / np.maximum(counts[index], 1)
        above, below = axes[:, index]
        above.bar(edges[:-1], frequency, 0.05, align="edge", edgecolor="white")
        above.bar(edges[:-1], confidence - frequency, 0.05, frequency, align="edge", hatch="//", alpha=0.4)
        above.plot([0, 1], [0, 1], "k--")
        above.set(title=name, xlim=(0, 1), ylim=(0, 1), ylabel="observed frequency")
        below.bar(edges[:-1], counts[index], 0.05, align="edge")
        below.set(yscale="log", xlabel="mean confidence")
    figure.suptitle(title)
    figure.tight_layout()
    content = saved(figure, "png")
    plt.close(figure)
    return content


def saved(figure, suffix):
    content = io.BytesIO()
    options = {"pil_kwargs": {"compress_level": 1}} if suffix == "png" else {}
    figure.savefig(content, format=suffix, dpi=DPI, **options)
    return content.getvalue()


def compare(title, sides, repeats):
    """Print the first and the median milliseconds of each side, and by how much it is slower than the first side."""
    seconds = {name: [] for name in sides}
    for number in range(repeats):
        for name, side in sides.items():
            start = time.perf_counter()
            side(number)
            seconds[name].append(time.perf_counter() - start)
    print(title)
    fastest = statistics.median(next(iter(seconds.values())))
    for name, times in seconds.items():
        median = statistics.median(times)
        print(f"  {name:34s} first {1000 * times[0]:6.0f} ms  median {1000 * median:6.1f} ms {median / fastest:6.2f}x")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--classes", type=int, default=2)
    options = parser.parse_args()
    mpl.use("Agg")

    names = tuple(f"class {index}" for index in range(options.classes))
    sums = bin_sums(options.cases, options.classes)
    drawer = CaseReliabilityDrawer(names)

    def case(number):
        return [part[number] for part in sums]

    compare(
        "one case, PNG",
        {
            "render_case": lambda n: render_case(case(n), names, f"case {n}", ["png"], DPI),
            "CaseReliabilityDrawer, savefig": lambda n: saved(drawer.draw(*case(n), title=f"case {n}"), "png"),
            "a new figure, savefig": lambda n: saved(
                draw_case_reliability_diagrams(*case(n), names, title=f"case {n}"), "png"
            ),
            "pyplot": lambda n: draw_with_pyplot(*case(n), names, f"case {n}"),
        },
        options.cases,
    )
    for kind, draw in (
        ("diagram", draw_dataset_reliability_diagrams),
        ("histogram", draw_dataset_reliability_histograms),
    ):

        def save(_, draw=draw):
            figure = draw(*sums, names)
            return [saved(figure, suffix) for suffix in ("png", "pdf")]

        compare(
            f"{kind} of the dataset, PNG and PDF",
            {
                "render_dataset": lambda _, kind=kind: render_dataset(kind, sums, names, ["png", "pdf"], DPI),
                "savefig": save,
            },
            9,
        )


if __name__ == "__main__":
    main()
