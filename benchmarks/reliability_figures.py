"""Time to draw and save the reliability diagram of a case: one figure for all cases, a figure each, and plain pyplot.

python benchmarks/reliability_figures.py [--cases 20] [--classes 3]
"""

import argparse
import io
import statistics
import time

import matplotlib as mpl
import numpy as np

from medcalib.visualize import CaseReliabilityDrawer, draw_case_reliability_diagrams

DPI = 150


def bin_sums(cases, classes, bins=20, seed=0):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 1000, (cases, classes, bins))
    confidence = (np.arange(bins) + rng.random((cases, classes, bins))) / bins
    return counts, counts * confidence, rng.binomial(counts, confidence)


def draw_with_pyplot(counts, sum_pred, sum_true, names, title):
    from matplotlib import pyplot as plt

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
    return figure


def seconds(draw, cases, sums, close=None):
    times = []
    for case in range(cases):
        start = time.perf_counter()
        figure = draw(*(part[case] for part in sums), f"case {case}")
        figure.savefig(io.BytesIO(), format="png", dpi=DPI, pil_kwargs={"compress_level": 1})
        if close is not None:
            close(figure)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--classes", type=int, default=3)
    options = parser.parse_args()
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = [f"class {index}" for index in range(options.classes)]
    sums = bin_sums(options.cases, options.classes)
    drawer = CaseReliabilityDrawer(names)
    sides = {
        "CaseReliabilityDrawer": (drawer.draw, None),
        "draw_case_reliability_diagrams": (lambda *s: draw_case_reliability_diagrams(*s[:3], names, title=s[3]), None),
        "pyplot": (lambda *s: draw_with_pyplot(*s[:3], names, s[3]), plt.close),
    }
    medians = {name: seconds(draw, options.cases, sums, close) for name, (draw, close) in sides.items()}
    fastest = medians["CaseReliabilityDrawer"]
    for name, median in medians.items():
        print(f"{name:32s} {1000 * median:7.1f} ms a case  {median / fastest:5.2f}x")


if __name__ == "__main__":
    main()
