import itertools
import math

import monai.losses
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.losses import DeepSupervisionLoss
from torch.nn import functional as F

from medcalib.losses import MarginLabelSmoothingLoss, NACLLoss, SpatiallyVaryingLabelSmoothingLoss

SIZES = [(7, 6), (5, 4, 6)]
LOSSES = {
    "margin": lambda size: MarginLabelSmoothingLoss(margin=0.5, alpha=0.7),
    "svls": lambda size: SpatiallyVaryingLabelSmoothingLoss(),
    "nacl": lambda size: NACLLoss(classes=3, dim=len(size)),
}
BUILDS = [pytest.param(build, id=name) for name, build in LOSSES.items()]
PLAIN = {
    "margin": lambda size: MarginLabelSmoothingLoss(margin=1.0, alpha=0.0),
    "margin_wide": lambda size: MarginLabelSmoothingLoss(margin=1e3, alpha=1.0),
    "svls": lambda size: SpatiallyVaryingLabelSmoothingLoss(center_weight=1.0),
    "svls_narrow": lambda size: SpatiallyVaryingLabelSmoothingLoss(sigma=0.01, center_weight=None),
    "nacl": lambda size: NACLLoss(classes=3, dim=len(size), alpha=0.0),
}


def random_batch(size, classes=3, batch=2, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(batch, classes, *size, generator=generator, dtype=dtype)
    return logits, torch.randint(classes, (batch, 1, *size), generator=generator)


def svls_by_loop(logits, labels, sigma, kernel_size, center_weight):
    log_probs = logits.log_softmax(1).numpy()
    labels = labels[:, 0].numpy()
    size, radius = labels.shape[1:], kernel_size // 2
    steps = list(itertools.product(range(-radius, radius + 1), repeat=len(size)))
    gauss = {step: math.exp(-sum(s * s for s in step) / (2 * sigma**2)) for step in steps}
    origin = (0,) * len(size)
    neighbours = sum(weight for step, weight in gauss.items() if step != origin)
    if center_weight is not None:
        # w = n / (n + neighbours) solved for the weight n of the voxel itself.
        gauss[origin] = center_weight / (1 - center_weight) * neighbours
    total, values = sum(gauss.values()), []
    for b in range(len(labels)):
        for place in itertools.product(*(range(n) for n in size)):
            loss = 0.0
            for step, weight in gauss.items():
                other = tuple(min(max(p + s, 0), n - 1) for p, s, n in zip(place, step, size, strict=True))
                loss -= weight / total * log_probs[(b, labels[(b, *other)], *place)]
            values.append(loss)
    return np.mean(values)


def margin_by_loop(logits, labels, margin, alpha):
    rows = logits.movedim(1, -1).reshape(-1, logits.shape[1]).tolist()
    entropy, penalty = [], []
    for row, label in zip(rows, labels.flatten().tolist(), strict=True):
        entropy.append(math.log(sum(math.exp(z) for z in row)) - row[label])
        penalty += [max(0.0, max(row) - z - margin) for z in row]
    return np.mean(entropy) + alpha * np.mean(penalty)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("sigma", "kernel_size", "center_weight"), [(1.0, 3, 0.5), (0.6, 3, None), (1.5, 5, 0.2)])
def test_spatial_smoothing_equals_slow_sums(size, sigma, kernel_size, center_weight):
    logits, labels = random_batch(size, dtype=torch.float64)
    loss = SpatiallyVaryingLabelSmoothingLoss(sigma, kernel_size, center_weight)
    expected = svls_by_loop(logits, labels, sigma, kernel_size, center_weight)
    assert loss(logits, labels).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("margin", [0.0, 0.5, 4.0])
def test_margin_loss_equals_slow_sums(size, margin):
    logits, labels = random_batch(size, dtype=torch.float64)
    expected = margin_by_loop(logits, labels, margin, 0.3)
    assert MarginLabelSmoothingLoss(margin, 0.3)(logits, labels).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kernel_ops", ["mean", "gaussian"])
def test_nacl_equals_monai(size, kernel_ops):
    logits, labels = random_batch(size)
    arguments = {"classes": 3, "dim": len(size), "kernel_ops": kernel_ops, "alpha": 0.3}
    expected = monai.losses.NACLLoss(**arguments)(logits, labels[:, 0])
    torch.testing.assert_close(NACLLoss(**arguments)(logits, labels.float()), expected, rtol=0, atol=0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PLAIN)
def test_identities_give_cross_entropy(name, size):
    logits, labels = random_batch(size)
    torch.testing.assert_close(PLAIN[name](size)(logits, labels), F.cross_entropy(logits, labels[:, 0]))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_smoothed_targets_are_distributions_and_one_hot_inside_regions(size, kernel_size):
    labels = random_batch(size)[1][:, 0]
    loss = SpatiallyVaryingLabelSmoothingLoss(kernel_size=kernel_size)
    target = loss.smooth_target(labels, 3, torch.float64)
    torch.testing.assert_close(target.sum(1), torch.ones_like(target[:, 0]))
    assert target.min() >= 0
    # The voxel itself keeps at least half, so that the largest class of the target is the label.
    assert target.gather(1, labels[:, None]).min() >= 0.5 - 1e-12
    uniform = loss.smooth_target(torch.full_like(labels, 2), 3, torch.float64)
    torch.testing.assert_close(uniform, F.one_hot(torch.full_like(labels, 2), 3).movedim(-1, 1).double())


def test_penalty_starts_at_the_margin():
    loss = MarginLabelSmoothingLoss(margin=2.0, alpha=1.0)
    labels = torch.zeros(1, 1, 1)
    for distance, penalty in ((1.9, 0.0), (2.0, 0.0), (2.5, 0.25)):
        logits = torch.tensor([[[distance], [0.0]]], dtype=torch.float64)
        extra = loss(logits, labels) - F.cross_entropy(logits, labels[:, 0].long())
        assert extra.item() == pytest.approx(penalty)


@pytest.mark.parametrize("size", [(3, 2), (2, 3, 2)])
@pytest.mark.parametrize("build", BUILDS)
def test_gradients(build, size):
    logits, labels = random_batch(size, batch=1, dtype=torch.float64)
    loss = build(size)
    assert torch.autograd.gradcheck(lambda z: loss(z, labels), logits.requires_grad_())


@pytest.mark.parametrize("size", [(8, 8), (8, 8, 8)])
@pytest.mark.parametrize("build", BUILDS)
def test_deep_supervision_sums_the_levels(build, size):
    logits, labels = random_batch(size)
    half = random_batch(tuple(n // 2 for n in size), seed=1)[0]
    loss = build(size)
    smaller = F.interpolate(labels.float(), size=half.shape[2:], mode="nearest-exact")
    expected = loss(logits, labels) + 0.5 * loss(half, smaller)
    torch.testing.assert_close(DeepSupervisionLoss(loss)([logits, half], labels.float()), expected)
    torch.testing.assert_close(DeepSupervisionLoss(loss)(logits, labels), loss(logits, labels))


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.float32, torch.float64])
def test_label_types_do_not_matter(build, dtype):
    logits, labels = random_batch(SIZES[1])
    loss = build(SIZES[1])
    expected = loss(logits, labels)
    torch.testing.assert_close(loss(logits, labels.to(dtype)), expected, rtol=0, atol=0)
    meta = loss(MetaTensor(logits), MetaTensor(labels.to(dtype)))
    torch.testing.assert_close(torch.as_tensor(meta), expected, rtol=0, atol=0)
    strided = logits.transpose(2, 4).contiguous().transpose(2, 4)
    torch.testing.assert_close(loss(strided, labels.to(dtype)), expected)


@pytest.mark.parametrize("build", BUILDS)
def test_autocast_stays_close(build):
    logits, labels = random_batch(SIZES[1])
    loss = build(SIZES[1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(logits.bfloat16().requires_grad_(), labels)
    torch.testing.assert_close(value.float(), loss(logits, labels), rtol=2e-2, atol=0)
    value.backward()


def test_targets_are_not_rounded_to_the_type_of_the_logits():
    logits, labels = random_batch((6, 6))
    loss = SpatiallyVaryingLabelSmoothingLoss()
    rounded = logits.bfloat16()
    torch.testing.assert_close(loss(rounded, labels).float(), loss(rounded.float(), labels), rtol=4e-3, atol=0)
    target = loss.smooth_target(labels[:, 0], 3, torch.bfloat16)
    torch.testing.assert_close(target, loss.smooth_target(labels[:, 0], 3, torch.float32), rtol=0, atol=0)


@pytest.mark.parametrize("build", BUILDS)
def test_wrong_input_is_named(build):
    loss = build((4, 4))
    logits, labels = random_batch((4, 4))
    with pytest.raises(ValueError, match=r"label map of shape \(2, 1, 4, 4\) to fit the logits, got \(2, 4, 4\)"):
        loss(logits, labels[:, 0])
    with pytest.raises(ValueError, match=r"at least 2 classes, got \(2, 1, 4, 4\)"):
        loss(logits[:, :1], labels)
    for wrong in (3, -1):
        labels[0, 0, 0, 0] = wrong
        with pytest.raises(ValueError, match=f"target holds label {wrong}, but the logits have 3 classes"):
            loss(logits, labels)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MarginLabelSmoothingLoss(margin=-1.0), "margin must not be negative, got -1.0"),
        (lambda: MarginLabelSmoothingLoss(alpha=-0.1), "alpha must not be negative, got -0.1"),
        (lambda: SpatiallyVaryingLabelSmoothingLoss(sigma=0.0), "sigma must be above 0, got 0.0"),
        (lambda: SpatiallyVaryingLabelSmoothingLoss(kernel_size=4), "kernel_size must be odd and at least 3, got 4"),
        (lambda: SpatiallyVaryingLabelSmoothingLoss(center_weight=1.5), r"must lie in \[0, 1\], got 1.5"),
    ],
)
def test_wrong_arguments_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
