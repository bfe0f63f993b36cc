"""What is foretold is what autograd keeps on a real device, and what a plan says fits."""

import math

import numpy as np
import pytest
import torch
from monai.networks.nets import SegResNetDS
from monai.networks.nets.segresnet_ds import scales_for_resolution
from torch.autograd.graph import saved_tensors_hooks

from medcalib.errors import UserError
from medcalib.planning.patch_plan import axis_halvings, plan_patch
from medcalib.planning.step_memory import Budget, StepMemory, step_memory


@pytest.mark.parametrize(
    ("patch", "resolution"), [([16, 16, 8], None), ([16, 16, 4], [1.0, 1.0, 2.0]), ([16, 24], None)]
)
def test_what_autograd_keeps_is_counted(patch, resolution):
    settings = {"init_filters": 8, "blocks_down": [1, 1, 2], "dsdepth": 2, "norm": "instance", "resolution": resolution}
    network = SegResNetDS(spatial_dims=len(patch), in_channels=2, out_channels=3, **settings).train()
    weights = {parameter.data_ptr() for parameter in network.parameters()}
    kept = {}

    def keep(tensor):
        if tensor.data_ptr() not in weights:
            # held, so that its place is not taken by another
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        predicted = network(torch.rand(1, 2, *patch))
    logits = 6 * sum(one.nbytes for one in predicted)
    expected = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) + logits
    found = step_memory("segresnet_ds", settings, patch, num_channels=2, num_classes=3, on_gpu=False)
    assert found.case == pytest.approx(expected, rel=0.02)
    assert found.weights == 4 * sum(parameter.nbytes for parameter in network.parameters())


SIZES = [[300, 300, 60]] * 20
SPACING = [0.8, 0.8, 5.0]


@pytest.mark.parametrize("gigabytes", [3, 8, 24])
def test_a_plan_fits_its_budget_and_fills_it(gigabytes):
    budget = Budget.of_gpu(gigabytes)
    plan = plan_patch(SIZES, SPACING, 1, 16, 14, budget)
    assert plan.memory.of_batch(plan.batch_size) <= budget.usable
    # the next larger patch would not
    assert plan.memory.of_batch(plan.batch_size) > 0.5 * budget.usable
    factor = [2**times for times in axis_halvings(plan.patch_size, SPACING, len(plan.settings["blocks_down"]) - 1)]
    assert all(size % one == 0 for size, one in zip(plan.patch_size, factor, strict=True))
    network = SegResNetDS(spatial_dims=3, in_channels=1, out_channels=16, **plan.settings)
    assert network.is_valid_shape(torch.empty(1, 1, *plan.patch_size, device="meta"))


def test_more_memory_means_larger_patches():
    sizes = [plan_patch(SIZES, SPACING, 1, 4, 14, Budget.of_gpu(memory)).patch_size for memory in (3, 6, 12, 24, 80)]
    voxels = [a * b * c for a, b, c in sizes]
    assert voxels == sorted(voxels)
    assert len(set(voxels)) > 3


def test_the_hippocampus_gets_the_patch_that_nnunet_gives_it():
    assert plan_patch([[35, 50, 36]] * 200, [1, 1, 1], 1, 3, 140, Budget.of_gpu(24)).patch_size == [40, 56, 40]


@pytest.mark.parametrize("sizes", [[[5, 5, 5]] * 4, [[40, 50, 1]] * 4, [[1, 1, 1]] * 4, [[3, 2]] * 4])
def test_tiny_images_get_a_network_that_takes_them(sizes):
    dims = len(sizes[0])
    plan = plan_patch(sizes, [1.0] * dims, 1, 2, 2, Budget.of_gpu(8))
    network = SegResNetDS(spatial_dims=dims, in_channels=1, out_channels=2, **plan.settings)
    assert network.is_valid_shape(torch.empty(1, 1, *plan.patch_size, device="meta"))
    assert all(size >= of_case for size, of_case in zip(plan.patch_size, sizes[0], strict=True))


def test_a_single_training_case_is_a_batch():
    assert plan_patch([[40, 40, 40]], [1, 1, 1], 1, 2, 1, Budget.of_gpu(8)).batch_size == 1


def test_a_budget_that_is_too_small():
    with pytest.raises(
        UserError, match=r"--gpu_memory 1 is too small for any patch: 2 of .* give more, or plan with --cpu"
    ):
        plan_patch([[300, 300, 300]] * 9, [1, 1, 1], 1, 2, 6, Budget.of_gpu(1))


def test_every_plan_ends_and_its_network_takes_its_patches(monkeypatch):
    """Whatever the sizes are; memory is taken to grow with the voxels, which is quicker than to count it."""

    def proportional(_network, _settings, patch_size, *_others):
        return StepMemory(weights=1e9, case=2250.0 * math.prod(patch_size))

    monkeypatch.setattr("medcalib.planning.patch_plan.step_memory", proportional)
    rng = np.random.default_rng(0)
    for _ in range(100):
        dims = int(rng.choice([2, 3]))
        median = rng.integers(1, rng.choice([20, 600]), dims)
        spacing = rng.choice([0.5, 0.8, 1.0, 1.5, 3.0, 5.0], dims).tolist()
        budget = Budget.of_gpu(float(rng.choice([4, 8, 24]))) if rng.random() < 0.8 else Budget(8e9, False, "--cpu")
        plan = plan_patch([median.tolist()] * 5, spacing, 1, 3, 3, budget)
        levels = len(plan.settings["blocks_down"])
        if resolution := plan.settings.get("resolution"):
            factor = np.prod(np.array(scales_for_resolution(resolution, levels)[:-1]), axis=0)
        else:
            factor = np.array([2 ** (levels - 1)] * dims)
        assert (np.asarray(plan.patch_size) % factor == 0).all(), (median, spacing, plan)
        assert plan.memory.of_batch(plan.batch_size) <= budget.usable
