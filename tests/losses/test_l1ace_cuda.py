"""What only a GPU can show of the losses: no waiting, mixed precision, volumes past 32-bit offsets, memory."""

import pytest
import torch
from monai.losses import DiceCELoss

from medcalib.functional import bin_statistics
from medcalib.functional.backends import choose_backend
from medcalib.losses import HardL1ACEandDiceCELoss, HardL1ACELoss, SoftL1ACEandDiceCELoss, SoftL1ACELoss

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
DICE = {"softmax": True, "squared_pred": True}
COMBINED = {"to_onehot_y": True, "ace_params": {"softmax": True}, "dice_params": DICE}
LOSSES = {
    "hard": lambda: HardL1ACEandDiceCELoss(**COMBINED),
    "soft": lambda: SoftL1ACEandDiceCELoss(**COMBINED),
}


@pytest.fixture
def never_waits():
    """Return a context in which waiting for the device is an error."""

    class Context:
        def __enter__(self):
            torch.cuda.set_sync_debug_mode("error")

        def __exit__(self, *_):
            torch.cuda.set_sync_debug_mode("default")

    return Context()


def example(classes=4, edge=32, dtype=torch.float32, batch=2):
    generator = torch.Generator("cuda").manual_seed(0)
    shape = (batch, 1, edge, edge, edge)
    logits = 3 * torch.randn(batch, classes, *shape[2:], device="cuda", generator=generator)
    return logits.to(dtype).requires_grad_(), torch.randint(0, classes, shape, device="cuda", generator=generator)


def test_triton_is_what_runs_here():
    assert choose_backend("cuda") == "triton"


@pytest.mark.parametrize("kind", LOSSES)
def test_a_training_step_never_waits(kind, never_waits):
    logits, labels = example()
    network = torch.nn.Conv3d(4, 4, 1, device="cuda")
    optimizer = torch.optim.AdamW(network.parameters())
    loss = LOSSES[kind]()
    for step in range(3):
        if step == 1:
            torch.cuda.synchronize()
            never_waits.__enter__()
        try:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cuda", dtype=torch.bfloat16):
                value = loss(network(logits.detach()), labels)
            value.backward()
            optimizer.step()
        finally:
            if step == 2:
                never_waits.__exit__()
    assert value.isfinite()


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("loss_class", [HardL1ACELoss, SoftL1ACELoss])
def test_losses_outside_the_fused_pass_never_wait(loss_class, sigmoid, never_waits):
    logits, labels = example()
    target = torch.zeros_like(logits).scatter_(1, labels, 1)
    loss = loss_class(sigmoid=sigmoid, softmax=not sigmoid)
    loss(logits, target).backward()
    torch.cuda.synchronize()
    with never_waits:
        value = loss(logits, target)
        value.backward()
    wanted = loss_class(sigmoid=sigmoid, softmax=not sigmoid)(logits.detach().cpu(), target.detach().cpu())
    torch.testing.assert_close(value.detach().cpu(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", LOSSES)
def test_bfloat16_logits_give_the_loss_of_their_values(kind):
    logits, labels = example(dtype=torch.bfloat16)
    wide = logits.detach().float().requires_grad_()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        value = LOSSES[kind]()(logits, labels)
    value.backward()
    wanted = LOSSES[kind]()(wide, labels)
    wanted.backward()
    torch.testing.assert_close(value, wanted, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(logits.grad.float(), wide.grad, rtol=2**-8, atol=1e-9)


@pytest.mark.parametrize("kind", LOSSES)
def test_equals_the_cpu(kind):
    logits, labels = example()
    value = LOSSES[kind]()(logits, labels)
    value.backward()
    there = logits.detach().cpu().requires_grad_()
    wanted = LOSSES[kind]()(there, labels.cpu())
    wanted.backward()
    torch.testing.assert_close(value.detach().cpu(), wanted.detach(), rtol=1e-5, atol=1e-6)
    # A probability next to a boundary may be rounded into the other bin.
    wrong = (logits.grad.cpu() - there.grad).abs() > 1e-8 + 1e-3 * there.grad.abs()
    assert wrong.float().mean() < 1e-4


@pytest.mark.parametrize("kind", LOSSES)
def test_less_memory_than_dice_and_cross_entropy(kind):
    logits, labels = example(edge=64)

    def peak(loss):
        for _ in range(2):
            logits.grad = None
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            loss(logits, labels).backward()
        return torch.cuda.max_memory_allocated() - before

    assert peak(LOSSES[kind]()) < 0.5 * peak(DiceCELoss(to_onehot_y=True, **DICE))


@pytest.mark.parametrize("kind", LOSSES)
def test_more_voxels_than_32_bits_count(kind):
    """A volume of 2 classes whose second half, past 2 ** 31 values, repeats the first: sums double, the loss stays."""
    half = 2**30 + 128
    if torch.cuda.mem_get_info()[0] < 45 * 2**30:
        pytest.skip("needs 45 GiB of GPU memory")
    logits = torch.empty(1, 2, 2 * half, dtype=torch.bfloat16, device="cuda")  # 8.6 GB
    for start in range(0, half, half // 8):
        stop = min(start + half // 8, half)
        logits[..., start:stop].normal_(std=2)
    logits[..., half:] = logits[..., :half]
    labels = torch.zeros(1, 1, 2 * half, dtype=torch.uint8, device="cuda")
    labels[..., : half // 2] = 1
    labels[..., half:] = labels[..., :half]
    results = []
    for part in (slice(0, half), slice(0, 2 * half)):
        some = logits[..., part].detach().requires_grad_()
        value = LOSSES[kind]()(some, labels[..., part])
        value.backward()
        results.append((value.item(), some.grad[..., -64:].float(), some.grad[..., half - 64 : half].float()))
        del some, value
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-6)
    torch.testing.assert_close(results[1][1], results[1][2], rtol=0, atol=0)
    torch.testing.assert_close(2 * results[1][1], results[0][1], rtol=0.02, atol=1e-12)


def test_the_trainer_of_bundles_waits_for_nothing(never_waits):
    """One iteration with pinned batches, a fused optimizer and mixed precision, but for the loss that is reported."""
    from monai.data import DataLoader, Dataset
    from monai.engines import SupervisedTrainer
    from monai.networks.nets import UNet

    generator = torch.Generator().manual_seed(0)
    cases = [
        {
            "image": torch.rand(1, 16, 16, 16, generator=generator),
            "label": torch.randint(0, 3, (1, 16, 16, 16), generator=generator).float(),
        }
        for _ in range(4)
    ]
    network = UNet(3, 1, 3, (4, 8), (2,)).cuda()
    loader = DataLoader(Dataset(cases), batch_size=2, pin_memory=True)
    trainer = SupervisedTrainer(
        device=torch.device("cuda"),
        max_epochs=1,
        train_data_loader=loader,
        network=network,
        optimizer=torch.optim.AdamW(network.parameters(), fused=True),
        loss_function=LOSSES["soft"](),
        non_blocking=True,
        amp=True,
        amp_kwargs={"dtype": torch.bfloat16},
        # otherwise MONAI makes the loss a number, for those who report it
        decollate=False,
    )
    before = [weight.detach().clone() for weight in network.parameters()]
    trainer.run()
    batch = next(iter(loader))
    torch.cuda.synchronize()
    with never_waits:
        output = trainer._iteration(trainer, batch)
    assert output["loss"].isfinite()
    assert any(bool((weight != was).any()) for weight, was in zip(network.parameters(), before, strict=True))


def test_only_the_random_state_of_used_devices_is_forked():
    """Members of a prediction draw from states of their own, and leave those of the process as they were."""
    from medcalib.inferers import MCDropoutSampler

    network = torch.nn.Sequential(torch.nn.Dropout(0.5)).cuda()
    states = [torch.get_rng_state(), torch.cuda.get_rng_state()]
    members = [list(MCDropoutSampler(3, seed=1)(torch.ones(1, 64, device="cuda"), network)) for _ in range(2)]
    assert all(torch.equal(first, second) for first, second in zip(*members, strict=True))
    assert torch.equal(states[0], torch.get_rng_state())
    assert torch.equal(states[1], torch.cuda.get_rng_state())


def test_bin_statistics_of_more_values_than_32_bits_count():
    if torch.cuda.mem_get_info()[0] < 30 * 2**30:
        pytest.skip("needs 30 GiB of GPU memory")
    count = 2**31 + 256
    probs = torch.full((1, 1, count), 0.3, dtype=torch.float16, device="cuda")
    probs[..., -1] = 0.9
    y = torch.ones(1, 1, count, dtype=torch.uint8, device="cuda")
    statistics = bin_statistics(probs, y, 10)
    assert statistics.counts[0, 0].tolist() == [0, 0, 0, count - 1, 0, 0, 0, 0, 1, 0] or (
        statistics.counts.sum() == count and statistics.counts[0, 0, 9 if probs[0, 0, -1] > 0.9 else 8] == 1
    )
    assert statistics.sum_pred.sum().item() == pytest.approx(probs[0, 0, 0].item() * count, rel=1e-6)
