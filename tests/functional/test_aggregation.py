"""Laws and oracles of the numbers that stand for an uncertainty map."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medcalib.functional import (
    above_threshold_mean,
    foreground_mean,
    image_mean,
    mean_foreground_confidence,
    patch_maximum,
)

SHAPES = [(1,), (1, 30), (1, 13, 9), (1, 8, 7, 11)]


def draw(shape=(1, 8, 7, 11), seed=0):
    generator = torch.Generator().manual_seed(seed)
    uncertainty = torch.rand(shape, generator=generator)
    seg = torch.randint(0, 3, shape, generator=generator)
    mask = torch.rand(shape, generator=generator) < 0.7
    seg.view(-1)[0], mask.view(-1)[0] = 1, True
    return uncertainty, seg, mask


FUNCTIONS = {
    "image": lambda u, seg, mask: image_mean(u, mask),
    "foreground": foreground_mean,
    "patch": lambda u, seg, mask: patch_maximum(u, 3, mask),
    "threshold": lambda u, seg, mask: above_threshold_mean(u, 0.2, mask),
    "confidence": lambda u, seg, mask: mean_foreground_confidence(torch.cat([1 - u, u]), seg, mask),
}


@pytest.fixture(params=FUNCTIONS)
def function(request):
    return FUNCTIONS[request.param]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("masked", [False, True])
def test_means_equal_numpy(shape, masked):
    uncertainty, seg, mask = draw(shape)
    u, fg, roi = uncertainty.double().numpy(), seg.numpy() > 0, mask.numpy() if masked else np.ones(shape, bool)
    mask = mask if masked else None
    assert image_mean(uncertainty, mask).item() == pytest.approx(u[roi].mean())
    assert foreground_mean(uncertainty, seg, mask).item() == pytest.approx(u[roi & fg].mean())
    assert torch.equal(foreground_mean(uncertainty, seg > 0, mask), foreground_mean(uncertainty, seg, mask))
    probs = torch.randn(3, *shape[1:], generator=torch.Generator().manual_seed(1)).softmax(0)
    wanted = probs.double().numpy().max(0, keepdims=True)[roi & fg].mean()
    assert mean_foreground_confidence(probs, seg, mask).item() == pytest.approx(wanted)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1, 2, 5, 10])
@pytest.mark.parametrize("masked", [False, True])
def test_patch_maximum_equals_the_loop_over_boxes(shape, size, masked):
    uncertainty, _, mask = draw(shape)
    u = uncertainty[0].double().numpy() * (mask[0].numpy() if masked else 1)
    edges = [min(size, length) for length in u.shape]
    corners = np.ndindex(*(length - edge + 1 for length, edge in zip(u.shape, edges, strict=True)))
    boxes = [u[tuple(slice(a, a + edge) for a, edge in zip(corner, edges, strict=True))] for corner in corners]
    result = patch_maximum(uncertainty, size, mask if masked else None)
    assert result.item() == pytest.approx(max(box.mean() for box in boxes), rel=1e-6)


def test_patch_maximum_finds_the_spot_that_the_mean_drowns():
    spread, spot = torch.full((1, 40, 40), 0.01), torch.zeros(1, 40, 40)
    spot[0, 12:22, 25:35] = 0.16
    assert image_mean(spot).item() == pytest.approx(image_mean(spread).item())
    assert patch_maximum(spot).item() == pytest.approx(0.16)
    assert patch_maximum(spread).item() == pytest.approx(0.01)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("masked", [False, True])
def test_above_threshold_mean_is_that_of_the_largest(shape, fraction, masked):
    uncertainty, _, mask = draw(shape)
    u = uncertainty[mask] if masked else uncertainty.flatten()
    largest = np.sort(u.double().numpy())[::-1][: max(round(fraction * u.numel()), 1)]
    result = above_threshold_mean(uncertainty, fraction, mask if masked else None)
    assert result.item() == pytest.approx(largest.mean())


def test_above_threshold_mean_agrees_with_the_quantile_where_nothing_ties():
    u = torch.randperm(1000, generator=torch.Generator().manual_seed(0)).reshape(1, 10, 100).double()
    for count in (1, 7, 100, 999):
        fraction = count / 1000
        threshold = np.quantile(u.numpy(), 1 - fraction, method="higher")
        assert above_threshold_mean(u, fraction).item() == u[u >= threshold].mean().item()


def test_ties_at_the_quantile_do_not_dilute():
    u = torch.zeros(1, 100)
    u[0, :5] = 1
    assert above_threshold_mean(u, 0.05).item() == 1
    assert above_threshold_mean(u, 0.1).item() == 0.5


def test_volumes_above_the_limit_of_torch_quantile():
    u = torch.zeros(1, 2**24 + 100, dtype=torch.float16)
    u[0, -50:] = 1
    assert above_threshold_mean(u, 100 / u.numel()).item() == 0.5


def test_results_are_float64_scalars_whatever_comes_in(function):
    uncertainty, seg, mask = draw()
    result = function(uncertainty, seg, mask)
    assert result.shape == ()
    assert result.dtype == torch.float64
    meta = function(MetaTensor(uncertainty), MetaTensor(seg), MetaTensor(mask))
    assert type(meta) is torch.Tensor
    assert torch.equal(meta, result)
    turned = (tensor.permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1) for tensor in (uncertainty, seg, mask))
    torch.testing.assert_close(function(*turned), result)
    torch.testing.assert_close(function(uncertainty.double(), seg.float(), mask.float()), result, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_averaged_in_more(dtype):
    uncertainty, seg, mask = draw((1, 20, 20, 20))
    uncertainty = uncertainty.to(dtype)
    for call in (
        lambda u: image_mean(u, mask),
        lambda u: foreground_mean(u, seg, mask),
        lambda u: patch_maximum(u, 5, mask),
        lambda u: above_threshold_mean(u, 0.2, mask),
        lambda u: mean_foreground_confidence(u, seg, mask),
    ):
        torch.testing.assert_close(call(uncertainty), call(uncertainty.double()), rtol=1e-6, atol=0)


def test_what_the_mask_leaves_out_does_not_matter(function):
    uncertainty, seg, mask = draw()
    wanted = function(uncertainty, seg, mask)
    uncertainty[~mask], seg[~mask] = torch.nan, 7
    torch.testing.assert_close(function(uncertainty, seg, mask), wanted)
    uncertainty[mask & (seg > 0)] = torch.nan
    assert function(uncertainty, seg, mask).isnan()


def test_nothing_that_counts_is_nan():
    uncertainty, seg, mask = draw()
    for value in (
        image_mean(uncertainty, torch.zeros_like(mask)),
        foreground_mean(uncertainty, torch.zeros_like(seg)),
        foreground_mean(uncertainty, seg, torch.zeros_like(mask)),
        above_threshold_mean(uncertainty, 0.0),
        above_threshold_mean(uncertainty, 0.5, torch.zeros_like(mask)),
        mean_foreground_confidence(uncertainty, torch.zeros_like(seg)),
    ):
        assert value.isnan()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda u, seg: image_mean(torch.cat([u, u])), "one case"),
        (lambda u, seg: image_mean(seg), "floating-point"),
        (lambda u, seg: image_mean(u, seg[..., 1:]), "mask must have shape"),
        (lambda u, seg: foreground_mean(u, seg[..., 1:]), "seg must have shape"),
        (lambda u, seg: patch_maximum(u, 0), "patch_size"),
        (lambda u, seg: patch_maximum(u[:, :0]), "not empty"),
        (lambda u, seg: above_threshold_mean(u, 1.1), "foreground_fraction"),
        (lambda u, seg: above_threshold_mean(u, float("nan")), "foreground_fraction"),
        (lambda u, seg: mean_foreground_confidence(seg, seg), "probs"),
        (lambda u, seg: mean_foreground_confidence(u, seg[..., 1:]), "seg must have shape"),
    ],
)
def test_bad_input_is_an_error(call, message):
    uncertainty, seg, _ = draw()
    with pytest.raises(ValueError, match=message):
        call(uncertainty, seg)
