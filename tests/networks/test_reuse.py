"""Reuse gives what plain runs give, to the last bit."""

import gc
import random
import weakref
from collections import Counter

import pytest
import torch
from torch import nn

from medcalib.networks import insert_dropout, reuse_deterministic, stochastic_dropout
from medcalib.networks.dropout import find_dropouts
from medcalib.networks.module_names import match_modules


def draw(network, images, num_members=3):
    """Plain runs one after the other, the random state going on."""
    torch.manual_seed(1)
    return [network(images).clone() for _ in range(num_members)]


def equal(first, second):
    # NaN is a result like any other
    return all(
        a.shape == b.shape and torch.equal(a.view(torch.int32), b.view(torch.int32))
        for a, b in zip(first, second, strict=True)
    )


@pytest.fixture
def computed(monkeypatch):
    """Count how often torch really computes: convolutions and what else modules of the test do."""
    counts = Counter()
    for kind in (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d):
        forward = kind.forward

        def counting(module, *args, forward=forward, **kwargs):
            counts[module] += 1
            return forward(module, *args, **kwargs)

        monkeypatch.setattr(kind, "forward", counting)
    return counts


@pytest.mark.parametrize("channelwise", [False, True])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@torch.no_grad()
def test_the_numbers_are_those_of_plain_runs(example, channelwise, layout):
    network = insert_dropout(example.network, example.blocks, 0.2, channelwise)
    if layout == "channels_last":
        network.to(memory_format=torch.channels_last if len(example.shape) == 3 else torch.channels_last_3d)
    with stochastic_dropout(network):
        plain = [draw(network, example.images(seed=seed), 4) for seed in (0, 1)]
        with reuse_deterministic(network):
            reused = [draw(network, example.images(seed=seed), 4) for seed in (0, 1)]
    assert all(map(equal, reused, plain))
    assert not all(torch.equal(member, plain[0][0]) for member in plain[0])


@torch.no_grad()
def test_dropout_anywhere(example):
    """After every single module in turn that can have it."""
    names = [name for name, module in match_modules(example.network, ["**"]).items() if not list(module.children())]
    images = example.images(1)
    for name in random.Random(0).sample(names, 12):
        network = insert_dropout(example.network, [name], 0.5)
        with stochastic_dropout(network):
            plain = draw(network, images)
            with reuse_deterministic(network):
                assert equal(draw(network, images), plain), name
        module = network.get_submodule(name)
        module._forward_hooks.clear()
        del module.inserted_dropout


@torch.no_grad()
def test_what_lies_before_the_first_dropout_runs_once(computed, segresnet_example):
    """The block before the dropout, too, although the network adds to its input in place."""
    network = insert_dropout(segresnet_example.network, segresnet_example.blocks)
    with stochastic_dropout(network), reuse_deterministic(network):
        draw(network, segresnet_example.images(), 6)
    counts = {name: computed[module] for name, module in network.named_modules() if computed[module]}
    assert {count for name, count in counts.items() if name.startswith("encoder")} == {1}
    assert counts["up_layers.0.blocks.0.conv1"] == 1
    # once to see that what it returned was changed, before a copy is kept
    assert counts["up_layers.0.upsample.deconv"] == 2
    assert {count for name, count in counts.items() if name.startswith("up_layers.1")} == {6}


@torch.no_grad()
def test_a_branch_that_does_not_see_the_dropout_runs_once(computed):
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.random = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Dropout(0.5), nn.Conv2d(2, 2, 1))
            self.plain = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True))

        def forward(self, x):
            return self.random(x) + self.plain(x)

    network, images = Branches(), torch.randn(1, 1, 8, 8)
    with stochastic_dropout(network), reuse_deterministic(network):
        draw(network, images, 5)
    assert [computed[network.random[0]], computed[network.random[2]], computed[network.plain[0]]] == [1, 5, 1]


@torch.no_grad()
def test_a_network_without_randomness_runs_once_for_every_input(computed, segresnet_example):
    network = insert_dropout(segresnet_example.network, segresnet_example.blocks, 0.0)
    first, second = segresnet_example.images(seed=0), segresnet_example.images(seed=1)
    plain = [network(images) for images in (first, second, first)]
    computed.clear()
    with stochastic_dropout(network), reuse_deterministic(network):
        reused = [network(images) for images in (first, first, second, second, first)]
    assert set(computed.values()) == {3}
    assert equal(reused, [plain[0], plain[0], plain[1], plain[1], plain[0]])


@torch.no_grad()
def test_an_input_changed_in_place_is_another_input(segresnet_example):
    network, images = insert_dropout(segresnet_example.network, segresnet_example.blocks), segresnet_example.images()
    with stochastic_dropout(network):
        with reuse_deterministic(network):
            draw(network, images)
            images.mul_(2)
            reused = draw(network, images)
        assert equal(reused, draw(network, images))


@torch.no_grad()
def test_results_may_be_changed_by_the_caller(segresnet_example):
    network = insert_dropout(segresnet_example.network, segresnet_example.blocks, 0.0)
    images = segresnet_example.images()
    plain = network(images)
    with stochastic_dropout(network), reuse_deterministic(network):
        for _ in range(4):
            result = network(images)
            assert torch.equal(result, plain)
            result.zero_()


class Program(nn.Module):
    """A random network: modules and operations, also in place, on a few registers."""

    def __init__(self, seed):
        super().__init__()
        rng = random.Random(seed)
        torch.manual_seed(seed)
        kinds = [
            lambda: nn.Sequential(nn.Linear(4, 4), nn.Tanh()),
            lambda: nn.ReLU(inplace=True),
            nn.Identity,
            Pair,
            Overwriting,
            lambda: nn.Unflatten(1, (4, 1)),
            lambda: nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)),
        ]
        self.parts = nn.ModuleList(rng.choice(kinds)() for _ in range(6))
        # at least one
        self.parts.append(nn.Dropout(0.5))
        steps = [("call", index) for index in [*range(7), *rng.choices(range(7), k=3)]]
        steps += rng.choices([("add_", 0), ("add", 0), ("copy", 0), ("alias", 0)], k=6)
        rng.shuffle(steps)
        self.steps = [(kind, index, rng.randrange(3), rng.randrange(3)) for kind, index in steps]

    def forward(self, x):
        registers = [x.clone(), x * 2, x.clone()]
        for kind, index, source, target in self.steps:
            value = registers[source]
            if kind == "call":
                value = self.parts[index](value)
                if isinstance(value, list):
                    # networks take elements out of lists
                    value = value.pop() + value.pop()
                registers[target] = value.flatten(1)
            elif kind == "add_":
                registers[target].add_(value)
            elif kind == "add":
                registers[target] = registers[target] + value
            elif kind == "copy":
                registers[target] = value.clone()
            else:
                registers[target] = value
        return torch.cat(registers, 1)


class Pair(nn.Module):
    """Returns a list."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        return [self.linear(x), x + 1]


class Overwriting(nn.Module):
    """Changes its input and returns something else."""

    def forward(self, x):
        x.mul_(0.5)
        return x.sum(1, keepdim=True).expand(-1, 4).clone()


@pytest.mark.parametrize("seed", range(150))
@torch.no_grad()
def test_random_programs(seed):
    network = Program(seed)
    images = [torch.randn(2, 4, generator=torch.Generator().manual_seed(number)) for number in range(2)]
    with stochastic_dropout(network):
        plain = [draw(network, image, 4) for image in (*images, images[0])]
        with reuse_deterministic(network):
            reused = [draw(network, image, 4) for image in (*images, images[0])]
    assert all(map(equal, reused, plain))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.0])
@torch.no_grad()
def test_bits_decide_whether_inputs_are_equal(value):
    class Signs(nn.Module):
        """Zeros of different sign give different infinities."""

        def __init__(self):
            super().__init__()
            self.conv, self.inverse, self.dropout = nn.Conv2d(1, 1, 1, bias=False), Inverse(), nn.Dropout(0.5)
            self.sign = 1.0

        def forward(self, x):
            self.sign = -self.sign
            return self.dropout(self.inverse(self.conv(x) * self.sign))

    class Inverse(nn.Module):
        def forward(self, x):
            return 1 / x

    network, images = Signs(), torch.full((1, 1, 4, 4), value)
    with stochastic_dropout(network):
        plain = draw(network, images)
        network.sign = 1.0
        with reuse_deterministic(network):
            assert equal(draw(network, images), plain)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@torch.no_grad()
def test_autocast(computed, segresnet_example, dtype):
    network, images = insert_dropout(segresnet_example.network, segresnet_example.blocks), segresnet_example.images()
    with stochastic_dropout(network), torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        plain = draw(network, images)
        computed.clear()
        with reuse_deterministic(network):
            reused = draw(network, images)
    assert reused[0].dtype is dtype
    assert all(map(torch.equal, reused, plain))
    assert computed[network.encoder.conv_init] == 1


@torch.no_grad()
def test_precision_is_part_of_the_input(segresnet_example):
    network, images = insert_dropout(segresnet_example.network, segresnet_example.blocks), segresnet_example.images()

    def with_and_without_autocast():
        plain = draw(network, images)
        with torch.autocast("cpu", torch.bfloat16):
            return plain + [tensor.float() for tensor in draw(network, images)]

    with stochastic_dropout(network):
        plain = with_and_without_autocast()
        with reuse_deterministic(network):
            assert equal(with_and_without_autocast(), plain)


@torch.no_grad()
def test_another_layout_or_type_with_the_same_bits_is_another_input():
    class Describe(nn.Module):
        def forward(self, x):
            return torch.tensor([*x.stride(), x.is_floating_point(), x.ndim])

    network = nn.Sequential(Describe(), nn.Dropout(0.5).eval())
    images = torch.zeros(1, 2, 3, 4)
    variants = [images, images.contiguous(memory_format=torch.channels_last), images.int(), images[0], images.clone()]
    plain = [network(variant) for variant in variants]
    with reuse_deterministic(network.eval()):
        assert all(torch.equal(network(variant), expected) for variant, expected in zip(variants, plain, strict=True))


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
def test_nothing_is_reused_where_changes_cannot_be_followed(computed, segresnet_example, mode):
    network, images = insert_dropout(segresnet_example.network, segresnet_example.blocks), segresnet_example.images()
    with mode(), stochastic_dropout(network):
        plain = draw(network, images)
        computed.clear()
        with reuse_deterministic(network):
            reused = draw(network, images)
    assert equal([tensor.detach() for tensor in reused], [tensor.detach() for tensor in plain])
    assert computed[network.encoder.conv_init] == 3
    if mode is torch.enable_grad:
        # every member has a graph of its own
        for tensor in reused:
            tensor.sum().backward()


@torch.no_grad()
def test_inference_tensors_are_not_followed(segresnet_example):
    network = insert_dropout(segresnet_example.network, segresnet_example.blocks)
    with torch.inference_mode():
        images = segresnet_example.images()
    with stochastic_dropout(network):
        plain = draw(network, images)
        with reuse_deterministic(network):
            assert equal(draw(network, images), plain)


def test_what_is_in_training_mode_is_never_reused():
    """Batch norm takes the statistics of every run."""
    network, twin = (nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.5)).train() for _ in range(2))
    images = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), reuse_deterministic(network):
        reused = draw(network, images)
    assert equal(reused, [tensor.detach() for tensor in draw(twin, images)])
    assert torch.equal(network[0].running_mean, twin[0].running_mean)
    assert network[0].num_batches_tracked == 3


@pytest.mark.parametrize("fail", [False, True])
@torch.no_grad()
def test_the_network_is_restored(segresnet_example, fail):
    network, images = insert_dropout(segresnet_example.network, segresnet_example.blocks), segresnet_example.images()
    replaced = network.encoder.forward
    # a forward that somebody has put there before
    network.encoder.forward = lambda x: replaced(x * 2)
    attributes = {name: dict(module.__dict__) for name, module in network.named_modules()}
    try:
        with reuse_deterministic(network):
            assert "forward" in network.__dict__
            network(images)
            if fail:
                network(images[..., :5])
    except ValueError:
        assert fail
    assert {name: dict(module.__dict__) for name, module in network.named_modules()} == attributes


@torch.no_grad()
def test_nothing_is_kept_afterwards_or_of_an_earlier_input(segresnet_example):
    network = insert_dropout(segresnet_example.network, segresnet_example.blocks)
    made = []
    network.encoder.register_forward_hook(lambda _m, _i, output: made.append([weakref.ref(t) for t in output]))

    def alive():
        gc.collect()
        return [sum(reference() is not None for reference in references) for references in made]

    with stochastic_dropout(network), reuse_deterministic(network):
        draw(network, segresnet_example.images(seed=0), 1)
        assert alive() == [3]
        draw(network, segresnet_example.images(seed=1), 1)
        assert alive() == [0, 3]
    assert alive() == [0, 0]


@torch.no_grad()
def test_nothing_that_the_dropout_changes_is_kept(segresnet_example):
    network = insert_dropout(segresnet_example.network, segresnet_example.blocks)
    made = []
    for name in ("up_layers.1.upsample", "up_layers.1.blocks.0", "up_layers.1.head", "up_layers.0.head"):
        module = network.get_submodule(name)
        module.register_forward_hook(lambda _m, _i, output: made.append(weakref.ref(output)))
    with stochastic_dropout(network), reuse_deterministic(network):
        for _ in range(3):
            network(segresnet_example.images())
            gc.collect()
            assert made
            assert not any(reference() is not None for reference in made)


@torch.no_grad()
def test_memory_does_not_grow_with_members(segresnet_example):
    """Counted where a network holds most."""
    network, images = insert_dropout(segresnet_example.network, segresnet_example.blocks), segresnet_example.images()
    alive = []

    def count(*_):
        gc.collect()
        alive.append(sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects()))

    network.up_layers[1]["head"].register_forward_hook(count)
    with stochastic_dropout(network), reuse_deterministic(network):
        for _ in range(8):
            network(images)
    assert alive[2:] == [alive[2]] * 6
    assert max(alive) <= alive[2]


@torch.no_grad()
def test_copies_of_an_input_count_as_the_input(computed, segresnet_example):
    network, images = insert_dropout(segresnet_example.network, segresnet_example.blocks), segresnet_example.images()
    with stochastic_dropout(network):
        plain = draw(network, images)
        computed.clear()
        with reuse_deterministic(network):
            torch.manual_seed(1)
            reused = [network(images.clone()) for _ in range(3)]
    assert equal(reused, plain)
    assert computed[network.encoder.conv_init] == 1
    assert len(find_dropouts(network)) == 2


@torch.no_grad()
def test_other_arguments_are_other_inputs():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.dropout = Inner(), nn.Dropout(0.5)

        def forward(self, x, **options):
            return self.dropout(self.inner(x, **options))

    class Inner(nn.Module):
        def forward(self, x, factor=1.0, offsets=(), table=None):
            return x * factor + sum(offsets) + (table["a"] if table else 0)

    network, x, y = Scaled(), torch.ones(3), torch.ones(3)
    calls = [
        {},
        {"factor": 2.0},
        {"factor": 2},
        {"offsets": [x]},
        {"offsets": (x, x)},
        {"table": {"a": x}},
        {"table": {"a": y * 2}},
    ]
    with stochastic_dropout(network):
        plain = [(torch.manual_seed(0), network(x, **options))[1] for options in calls for _ in range(2)]
        with reuse_deterministic(network):
            reused = [(torch.manual_seed(0), network(x, **options))[1] for options in calls for _ in range(2)]
    assert equal(reused, plain)
