"""Laws of the L1-ACE losses and of the weighted sums, without the published values."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.losses import DeepSupervisionLoss, DiceCELoss, DiceLoss
from torch.utils.checkpoint import checkpoint

import medcalib.losses
from medcalib.functional import bin_statistics, calibration_error
from medcalib.functional.sums import bin_sums, can_fuse, softmax_sums
from medcalib.losses import CrossEntropyLoss, HardL1ACELoss, SoftL1ACELoss, WeightedSumLoss

sys.path.insert(0, str(Path(__file__).parents[1]))
import _reference as reference

SINGLE = ["HardL1ACELoss", "SoftL1ACELoss"]
COMBINED = [f"{kind}L1ACEand{rest}Loss" for kind in ("Hard", "Soft") for rest in ("CE", "Dice", "DiceCE")]
DICE = {"softmax": True, "squared_pred": True}


def example(batch=2, classes=3, shape=(8, 7), seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    logits = (2 * torch.randn(batch, classes, *shape, generator=generator, dtype=torch.float64)).to(dtype)
    return logits.requires_grad_(), torch.randint(0, classes, (batch, 1, *shape), generator=generator)


def make(name, ace=None, dice=None, ce=None):
    cls = getattr(medcalib.losses, name)
    if name in SINGLE:
        return cls(to_onehot_y=True, softmax=True, **(ace or {}))
    params = {"ace_params": {"softmax": True, **(ace or {})}}
    if "Dice" in name:
        params["dice_params"] = {**DICE, **(dice or {})}
    if "CE" in name.removeprefix("HardL1ACE").removeprefix("SoftL1ACE"):
        params["ce_params"] = ce or {}
    return cls(to_onehot_y=True, **params)


def value_and_grad(loss, logits, target):
    logits = logits.detach().clone().requires_grad_()
    value = loss(logits, target)
    value.sum().backward()
    return value.detach(), logits.grad


def unfused(monkeypatch):
    monkeypatch.setattr("medcalib.losses.l1ace.can_fuse", lambda *_: False)


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("num_bins", [1, 2, 10, 20])
def test_equals_the_loops(name, fused, num_bins, monkeypatch):
    if not fused:
        unfused(monkeypatch)
    logits, labels = example()
    labels[1][labels[1] == 2] = 0
    probs = reference.softmax(logits.detach().double().flatten(2).numpy())
    truth = reference.one_hot(labels.flatten(2).numpy(), 3)
    for ignore in (True, False):
        wanted = reference.l1_ace(probs, truth, num_bins, name.startswith("Soft"), ignore)
        loss = make(name, {"num_bins": num_bins, "ignore_empty_classes": ignore, "reduction": "none"})
        value = loss(logits, labels)
        assert value.shape == (2, 3, 1, 1)
        np.testing.assert_allclose(value.detach().flatten(1).numpy(), wanted, atol=2e-6)
    assert make(name)(logits, labels).item() == pytest.approx(
        reference.l1_ace(probs, truth, 20, name.startswith("Soft")).mean(), abs=2e-6
    )


def test_hard_loss_is_the_metric():
    logits, labels = example()
    wanted = calibration_error(bin_statistics(logits.softmax(1), labels), "average")
    value = HardL1ACELoss(softmax=True, to_onehot_y=True, reduction="none")(logits, labels)
    torch.testing.assert_close(value[..., 0, 0].double(), wanted, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("options", [{}, {"include_background": False}, {"weight": [0.2, 1.0, 3.0]}])
def test_labels_equal_their_one_hot_target(name, options, monkeypatch):
    logits, labels = example(shape=(5, 4, 3))
    target = torch.from_numpy(reference.one_hot(labels.flatten(2).numpy(), 3)).reshape(logits.shape)
    if not options.get("include_background", True):
        options = {**options, "weight": [0.5, 2.0]}
    with_labels = value_and_grad(make(name, options), logits, labels)
    for dtype in (torch.float32, torch.uint8, torch.bool):
        with_target = value_and_grad(getattr(medcalib.losses, name)(softmax=True, **options), logits, target.to(dtype))
        torch.testing.assert_close(with_target, with_labels, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", SINGLE + COMBINED)
def test_gradcheck(name):
    logits, labels = example(shape=(4, 5), dtype=torch.float64)
    position = logits.detach().softmax(1) * 10
    # A step of the finite difference must not cross a boundary of hard bins or a centre of soft ones.
    assert (position - position.round()).abs().min() > 1e-5
    assert (position - 0.5 - (position - 0.5).round()).abs().min() > 1e-5
    loss = make(name, {"num_bins": 10})
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), logits, eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("target", ["labels", "soft"])
def test_gradcheck_of_the_bin_sums(backend, soft, target):
    if backend == "numba":
        pytest.importorskip("numba")
    logits, labels = example(shape=(4, 5), dtype=torch.float64)
    y = labels if target == "labels" else torch.rand_like(logits)
    probs = logits.detach().softmax(1).requires_grad_()
    # The count of a hard bin is a step function: only the gaps move.
    assert torch.autograd.gradcheck(
        lambda p: bin_sums(p, y, 10, soft=soft, backend=backend)[0 if soft else 1 : 2], probs, eps=1e-7, atol=1e-5
    )


@pytest.mark.parametrize("name", COMBINED)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ace": {"include_background": False}, "dice": {"include_background": False}},
        {"dice": {"squared_pred": False, "batch": True, "reduction": "sum"}, "ce": {"reduction": "sum"}},
        {"dice": {"jaccard": True, "smooth_nr": 0, "smooth_dr": 1e-3}},
        {"dice": {"weight": [0.1, 0.2, 0.7]}, "ce": {"weight": [0.1, 0.2, 0.7], "label_smoothing": 0.1}},
        {"ace": {"reduction": "sum", "right": True, "num_bins": 7}},
    ],
    ids=["plain", "no_background", "sums", "jaccard", "weights", "ace"],
)
def test_sharing_the_pass_changes_nothing(name, options, monkeypatch):
    logits, labels = example(shape=(9, 8, 7))
    shared = value_and_grad(make(name, **options), logits, labels)
    unfused(monkeypatch)
    torch.testing.assert_close(value_and_grad(make(name, **options), logits, labels), shared, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", COMBINED)
def test_is_the_sum_of_its_parts(name):
    logits, labels = example()
    loss = make(name)
    ace = make(name[: len("HardL1ACE")] + "Loss")
    parts = [ace(logits, labels)]
    if "Dice" in name:
        parts.append(DiceLoss(to_onehot_y=True, **DICE)(logits, labels))
    if name.endswith("CELoss"):
        parts.append(torch.nn.functional.cross_entropy(logits, labels[:, 0]))
    assert len(parts) == len(loss.weights)
    weight = 0.5 if len(parts) == 2 else 0.33
    torch.testing.assert_close(loss(logits, labels), weight * sum(parts), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(torch.stack(loss.terms(logits, labels)), torch.stack(parts), atol=1e-6, rtol=1e-6)


def test_without_calibration_it_is_dice_ce():
    logits, labels = example(shape=(6, 5, 4))
    loss = medcalib.losses.SoftL1ACEandDiceCELoss(
        to_onehot_y=True, ace_weight=0, dice_weight=1, ce_weight=1, ace_params={"softmax": True}, dice_params=DICE
    )
    wanted = value_and_grad(DiceCELoss(to_onehot_y=True, **DICE), logits, labels)
    torch.testing.assert_close(value_and_grad(loss, logits, labels), wanted, atol=1e-6, rtol=1e-5)


def test_logits_of_any_size():
    logits, labels = example()
    logits = (100 * logits).detach()
    wanted = value_and_grad(DiceCELoss(to_onehot_y=True, **DICE), logits.double(), labels)
    loss = medcalib.losses.HardL1ACEandDiceCELoss(to_onehot_y=True, ace_params={"softmax": True}, dice_params=DICE)
    value, grad = value_and_grad(lambda x, y: sum(loss.terms(x, y)[1:]), logits, labels)
    torch.testing.assert_close(value.double(), wanted[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(grad.double(), wanted[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SINGLE + COMBINED)
def test_metatensor_views_and_label_dtypes(name):
    logits, labels = example(shape=(6, 5, 4))
    wanted = value_and_grad(make(name), logits, labels)
    view = logits.detach().permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3)
    torch.testing.assert_close(value_and_grad(make(name), view, labels), wanted)
    for dtype in (torch.uint8, torch.float32, torch.int16):
        torch.testing.assert_close(value_and_grad(make(name), logits, labels.to(dtype)), wanted)
    meta = MetaTensor(logits.detach()).requires_grad_()
    value = make(name)(meta, MetaTensor(labels))
    value.backward()
    torch.testing.assert_close(torch.as_tensor(value.detach()).as_subclass(torch.Tensor), wanted[0])
    torch.testing.assert_close(meta.grad.as_subclass(torch.Tensor), wanted[1])


@pytest.mark.parametrize("name", SINGLE + COMBINED)
def test_under_autocast_checkpointing_and_deep_supervision(name):
    logits, labels = example(classes=3, shape=(8, 8, 8))
    layer = torch.nn.Conv3d(3, 3, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = layer(logits.detach())
        value = make(name)(output, labels)
    value.backward()
    assert output.dtype == torch.bfloat16
    assert value.dtype == torch.float32
    wanted = make(name)(output.detach().float(), labels)
    torch.testing.assert_close(value, wanted, atol=1e-5, rtol=1e-5)
    assert layer.weight.grad.isfinite().all()

    plain = value_and_grad(make(name), logits, labels)
    again = value_and_grad(lambda x, y: checkpoint(make(name), x, y, use_reentrant=False), logits, labels)
    torch.testing.assert_close(again, plain)

    half = torch.nn.functional.avg_pool3d(logits, 2)
    deep = DeepSupervisionLoss(make(name), weight_mode="exp")([logits, half], labels.float())
    smaller = torch.nn.functional.interpolate(labels.float(), (4, 4, 4), mode="nearest-exact")
    torch.testing.assert_close(deep, make(name)(logits, labels) + 0.5 * make(name)(half, smaller))


@pytest.mark.parametrize("name", SINGLE)
def test_single_channel_and_other_activation(name):
    cls = getattr(medcalib.losses, name)
    logits = torch.randn(2, 1, 6, 5, generator=torch.Generator().manual_seed(0))
    target = (logits > 0.5).float()
    wanted = cls()(logits.sigmoid(), target)
    torch.testing.assert_close(cls(sigmoid=True)(logits, target), wanted)
    torch.testing.assert_close(cls(other_act=torch.sigmoid)(logits, target), wanted)
    torch.testing.assert_close(cls(softmax=True, include_background=False)(logits.sigmoid(), target), wanted)


def test_nothing_large_is_kept_for_the_gradient():
    logits, labels = example(batch=1, classes=4, shape=(32, 32, 32))
    kept = []

    def pack(tensor):
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        for name in COMBINED:
            kept.clear()
            make(name)(logits, labels.to(torch.uint8))
            storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in kept}
            # The softmax and the labels, one byte each; small tables are below one per cent.
            assert sum(storages.values()) < 1.02 * (logits.nbytes + labels.numel())


def test_two_runs_give_the_same_bits():
    logits, labels = example(batch=1, classes=4, shape=(64, 64, 32))
    first, second = (value_and_grad(make("SoftL1ACEandDiceCELoss"), logits, labels) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


BAD = {
    "label": (torch.zeros(1, 3, 4), torch.tensor([[[0, 1, 2, 3]]]), "label 3"),
    "negative label": (torch.zeros(1, 3, 4), torch.tensor([[[0, 1, 2, -1]]]), "label -1"),
    "NaN": (torch.full((1, 3, 4), float("nan")), torch.zeros(1, 1, 4), "NaN"),
    "infinity": (torch.full((1, 3, 4), float("inf")), torch.zeros(1, 1, 4), "NaN|infin"),
    "voxels": (torch.zeros(1, 3, 4), torch.zeros(1, 1, 5), "shape|fit"),
    "classes": (torch.zeros(1, 3, 4), torch.zeros(1, 2, 4), "shape|fit"),
}


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", SINGLE + COMBINED)
@pytest.mark.parametrize("bad", BAD)
def test_bad_values_are_named(name, bad, fused, monkeypatch):
    if not fused:
        unfused(monkeypatch)
    logits, labels, message = BAD[bad]
    with pytest.raises(ValueError, match=message):
        make(name)(logits.requires_grad_(), labels)


def test_bad_probabilities_and_arguments():
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        HardL1ACELoss()(torch.tensor([[[1.1, 0.2]]]), torch.zeros(1, 1, 2))
    with pytest.raises(ValueError, match="to_onehot_y=True"):
        SoftL1ACELoss(softmax=True)(torch.zeros(1, 3, 4), torch.zeros(1, 1, 4))
    with pytest.raises(ValueError, match="at most one"):
        HardL1ACELoss(softmax=True, sigmoid=True)
    with pytest.raises(ValueError, match="num_bins"):
        HardL1ACELoss(num_bins=0)
    with pytest.raises(ValueError, match="negative"):
        HardL1ACELoss(weight=[1.0, -1.0])
    with pytest.raises(ValueError, match="3 classes"):
        HardL1ACELoss(softmax=True, to_onehot_y=True, weight=[1.0, 1.0])(torch.zeros(1, 3, 4), torch.zeros(1, 1, 4))
    with pytest.raises(ValueError, match="one weight"):
        WeightedSumLoss([CrossEntropyLoss()], [1, 2])
    with pytest.raises(ValueError, match="negative"):
        WeightedSumLoss([CrossEntropyLoss()], [-1])


def test_unchecked_invalid_values_turn_the_sums_into_nan(monkeypatch):
    # What happens on CUDA after the first step, where a check would wait for the device.
    from medcalib.functional import backends, inputs

    probs = torch.tensor([[[0.5, 0.5], [0.5, 1.2]]])
    sums = backends.bin_volume(
        probs, torch.zeros(1, 2, dtype=torch.uint8), 5, use_labels=True, soft=False, check=False, backend="torch"
    )
    assert sums.isnan().all()
    labels = inputs.prepare_labels(torch.tensor([[[300, -1]]]), 2, check=False)
    assert labels.tolist() == [[300, -1]]


def test_cross_entropy_takes_monais_targets():
    logits, labels = example()
    wanted = torch.nn.functional.cross_entropy(logits, labels[:, 0])
    torch.testing.assert_close(CrossEntropyLoss()(logits, labels), wanted)
    torch.testing.assert_close(CrossEntropyLoss()(logits, labels.float()), wanted)
    one_hot = torch.from_numpy(reference.one_hot(labels.flatten(2).numpy(), 3)).reshape(logits.shape)
    torch.testing.assert_close(CrossEntropyLoss()(logits, one_hot), wanted)
    single = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, :1], (labels > 0).float())
    torch.testing.assert_close(CrossEntropyLoss()(logits[:, :1], labels > 0), single)


def test_what_can_be_fused():
    logits, labels = example()
    assert can_fuse(logits, labels)
    assert can_fuse(logits.bfloat16(), labels)
    assert not can_fuse(logits.double(), labels)
    assert not can_fuse(logits[:, :1], labels)
    assert not can_fuse(logits, logits)
    with pytest.raises(ValueError, match="label map"):
        softmax_sums(logits, logits)


@pytest.mark.parametrize("name", COMBINED)
def test_arguments_of_combined_losses_have_names(name):
    """The published classes begin with the weights: by position they would set other arguments here."""
    with pytest.raises(TypeError, match="positional"):
        getattr(medcalib.losses, name)(0.5)


def test_the_ninth_argument_of_the_soft_loss_has_a_name():
    """That of the published class is ``empty_weight``, that of the hard one ``right``."""
    first_eight = (10, False, True, False, True, None, "sum", None)
    with pytest.raises(TypeError, match="positional"):
        SoftL1ACELoss(*first_eight, 0.01)
    soft = SoftL1ACELoss(*first_eight, right=True, ignore_empty_classes=False, empty_weight=0.5)
    hard = HardL1ACELoss(*first_eight, True, False)
    for loss in (soft, hard):
        assert (loss.num_bins, loss.include_background, loss.softmax, loss.reduction) == (10, False, True, "sum")
        assert (loss.right, loss.ignore_empty_classes) == (True, False)
    assert soft.empty_weight == 0.5
