"""Promised and realised risks over many random splits: `python benchmarks/bench_guarantees.py`.

A small U-Net is trained on phantom cases, a temperature is fitted on other ones, and further cases are predicted,
before and after it. In each of many random splits of these, a guarantee is fitted on some cases and checked on all
others: the mean loss of promises that hold on average. For promises with a confidence the cases of a fit are drawn anew
from all cases, whose mean loss is known, and the share of draws counts in which it is above the promise.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from harness import machine
from monai.inferers import sliding_window_inference
from monai.losses import DiceCELoss
from monai.networks.nets import BasicUNet
from numpy.typing import NDArray

from medcalib.calibrators import CalibrationCase, TemperatureScaling, fit_calibrator
from medcalib.data.phantom.volume_model import PhantomModel
from medcalib.errors import UserError
from medcalib.functional import entropy, set_thresholds
from medcalib.guarantees import (
    Guarantee,
    GuaranteeCase,
    MarginControl,
    PrecisionControl,
    RecallControl,
    SelectiveControl,
    VolumeInterval,
)

CLASSES = ["organ", "lesion"]
ALPHA, DELTA, MAX_POOR = 0.1, 0.1, 0.2
MADE: dict[str, Callable[[], Guarantee]] = {
    "recall_control": lambda: RecallControl(CLASSES, ALPHA),
    "margin_control": lambda: MarginControl(CLASSES, 2 * ALPHA),
    "volume_interval": lambda: VolumeInterval(CLASSES, ALPHA),
    "precision_control": lambda: PrecisionControl(CLASSES, 2 * ALPHA, DELTA),
    "selective_control": lambda: SelectiveControl(CLASSES, MAX_POOR, DELTA, scores=["entropy_foreground_mean"]),
}


def volumes(first: int, number: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Images (1, 1, ...) and labels (1, 1, ...) of phantom cases."""
    for index in range(first, first + number):
        drawn = PhantomModel().draw(np.random.default_rng([17, index]), index % 10 != 7)
        image = torch.from_numpy(drawn.image.astype(np.float32))
        yield (
            ((image - image.mean()) / image.std())[None, None],
            torch.from_numpy(drawn.label.astype(np.int64))[None, None],
        )


def trained(number: int, steps: int) -> torch.nn.Module:
    """A small U-Net, trained on patches of phantom cases."""
    torch.manual_seed(0)
    network = BasicUNet(3, 1, 3, features=(8, 8, 16, 16, 32, 8))
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    loss = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)
    cases, random = list(volumes(0, number)), np.random.default_rng(0)
    for _ in range(steps):
        patches = []
        for index in random.integers(number, size=2):
            starts = [random.integers(size - 31) for size in cases[index][0].shape[2:]]
            part = (..., *(slice(start, start + 32) for start in starts))
            patches.append([volume[part] for volume in cases[index]])
        images, labels = (torch.cat(one) for one in zip(*patches, strict=True))
        optimizer.zero_grad()
        loss(network(images), labels).backward()
        optimizer.step()
    return network.eval()


@torch.no_grad()
def logits_of(network: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
    """Logits (1, C, ...) of an image."""
    return sliding_window_inference(image, 32, 4, network, overlap=0.25)


def guarantee_case(index: int, logits: torch.Tensor, label: torch.Tensor) -> GuaranteeCase:
    """What guarantees see of a case of the phantom."""
    probs = logits.softmax(1)
    segmentation = torch.stack([probs[0].argmax(0) == value for value in (1, 2)])
    target = torch.stack([label[0, 0] == value for value in (1, 2)])
    sizes = target.flatten(1).sum(1)
    dice = 2 * (segmentation & target).flatten(1).sum(1) / (sizes + segmentation.flatten(1).sum(1))
    foreground = segmentation.any(0)
    scores = {"entropy_foreground_mean": entropy(probs, "softmax")[0, 0][foreground].mean().item()}
    mean_dice = torch.where(sizes > 0, dice, torch.nan).nanmean().item()
    return GuaranteeCase(
        str(index), probs[0, 1:], segmentation, target, PhantomModel().spacing, scores=scores, dice=mean_dice
    )


def loss_grids(guarantee: Guarantee, cases: list[GuaranteeCase], observed: list) -> Callable[[], NDArray]:
    """The losses (case, unit) of all cases for what is fitted just now; from summaries, as making sets takes longer."""
    names = guarantee.unit_names
    if isinstance(guarantee, VolumeInterval):
        distances = np.stack([one["distance"].numpy() for one in observed])
        return lambda: distances > np.array([guarantee.fitted(name)["spreads"] for name in names])
    if isinstance(guarantee, SelectiveControl):
        return lambda: np.stack([guarantee.losses(case).numpy() for case in cases])
    key, grid, value = {
        "recall_control": ("missed", set_thresholds(), "threshold"),
        "precision_control": ("wrong", torch.cat([set_thresholds(), torch.tensor([2.0])]), "threshold"),
        "margin_control": ("losses", MarginControl(CLASSES).margins, "margin_mm"),
    }[guarantee.kind]
    # the losses of the empty set, which is the last one of precision control, are 0
    losses = np.stack([np.pad(one[key].numpy(), ((0, 0), (0, 1))) for one in observed])
    values = grid.double().numpy()

    def of_fitted() -> NDArray:
        places = [int(np.abs(values - guarantee.fitted(name)[value]).argmin()) for name in names]
        return np.stack([losses[:, unit, place] for unit, place in enumerate(places)], 1)

    return of_fitted


def check(kind: str, cases: list[GuaranteeCase], number: int, splits: int) -> None:
    """Print one row for each class of a guarantee."""
    guarantee = MADE[kind]()
    observed = [guarantee.observe(case) for case in cases]
    losses_of, risks, refused = loss_grids(guarantee, cases, observed), [], 0
    random = np.random.default_rng(0)
    for _ in range(splits):
        if guarantee.delta is None:
            order = random.permutation(len(cases))
            known, others = order[:number], order[number:]
        else:
            known, others = random.integers(len(cases), size=number), np.arange(len(cases))
        try:
            guarantee.fit([observed[index] for index in known])
        except UserError:
            refused += 1
            continue
        losses = losses_of()[others].astype(float)
        counted = ~np.isnan(losses)
        risks.append(np.where(counted, losses, 0).sum(0) / counted.sum(0).clip(min=1))
    guarantee.fit(observed)
    for unit, name in enumerate(guarantee.unit_names):
        risk = np.array(risks)[:, unit]
        mean = f"{100 * risk.mean():.2f} ± {100 * risk.std() / math.sqrt(len(risk)):.2f}"
        broken, delta = "-", "-"
        if guarantee.delta is not None:
            broken, delta = f"{100 * (risk > guarantee.level + 1e-9).mean():.1f}", f"{100 * guarantee.delta:g}"
        columns = [kind, name, f"{100 * guarantee.level:g}", mean, delta, broken, size(guarantee, name, cases), refused]
        print(f"| {' | '.join(map(str, columns))} |", flush=True)


def size(guarantee: Guarantee, name: str, cases: list[GuaranteeCase]) -> str:
    """How large what is said is, fitted on all cases: the median over some of them."""
    if guarantee.kind == "selective_control":
        return f"{100 * np.mean([guarantee.passes(case) for case in cases]):.0f} % pass"
    if guarantee.kind == "volume_interval":
        said = [guarantee.values(case) for case in cases[:40]]
        width = np.median([one[f"{name}_high_ml"] - one[f"{name}_low_ml"] for one in said])
        return f"{width:.2f} ml wide"
    unit = CLASSES.index(name)
    added = []
    for case in cases[:40]:
        (voxels,) = guarantee.sets(case).values()
        added.append((int(voxels[unit].sum()) - int(case.segmentation[unit].sum())) * math.prod(case.spacing) / 1000)
    more = f", {guarantee.fitted(name)['margin_mm']:g} mm" if guarantee.kind == "margin_control" else ""
    return f"{np.median(added):+.2f} ml{more}"


def main() -> None:
    """Train, predict, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=200, help="predicted cases")
    parser.add_argument("--calibration", type=int, default=40, help="those of them on which a guarantee is fitted")
    parser.add_argument("--splits", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=300, help="of the training")
    args = parser.parse_args()
    start = time.perf_counter()
    print(machine())
    network = trained(20, args.steps)
    fit_on = [CalibrationCase(logits_of(network, image), label) for image, label in volumes(100, 10)]
    calibrator = TemperatureScaling(3)
    fit_calibrator(calibrator, fit_on)
    predicted = [(logits_of(network, image), label) for image, label in volumes(1000, args.cases)]
    print(f"{args.cases} cases, {args.calibration} of them for each fit, {args.splits} splits")
    print(f"predicted after {time.perf_counter() - start:.0f} s; temperature {calibrator.temperature:.3f}")
    sides = {
        "as predicted": predicted,
        "after temperature scaling": [(calibrator(logits), label) for logits, label in predicted],
    }
    for title, pairs in sides.items():
        cases = [guarantee_case(index, logits.float(), label) for index, (logits, label) in enumerate(pairs)]
        print(f"\n{title}; mean Dice {np.nanmean([case.dice for case in cases]):.3f}\n")
        print("| guarantee | | promised % | realised %, mean | delta % | broken, % of splits | size | refused |")
        print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
        for kind in MADE:
            check(kind, cases, args.calibration, args.splits)
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
