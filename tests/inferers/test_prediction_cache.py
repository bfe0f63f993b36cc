"""What the network predicts is the same with and without a cache, and never that of something else."""

import errno
import json
import random
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SimpleInferer, SlidingWindowInferer
from monai.transforms import RandGaussianNoise
from torch import nn

from medcalib.calibrators import TemperatureScaling
from medcalib.files.bounded_folder import BoundedFolder
from medcalib.inferers import (
    EnsembleSampler,
    HeadSampler,
    MCDropoutSampler,
    SamplingInferer,
    TTASampler,
    prediction_key,
)
from medcalib.inferers.prediction_cache import PredictionCache
from medcalib.networks import NetworkEnsemble

LARGE = 10**8


class Counted(nn.Module):
    """A small network that counts its runs in the process, not in itself."""

    runs = 0

    def __init__(self, heads=0, dropout=0.0, seed=0, classes=3):
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.drop = nn.Dropout(dropout)
        self.last = nn.ModuleList(nn.Conv2d(4, classes, 1) for _ in range(max(heads, 1)))
        self.several = heads > 0

    def forward(self, inputs):
        Counted.runs += 1
        features = self.drop(torch.tanh(self.first(inputs)))
        outputs = [last(features) for last in self.last]
        return outputs if self.several else outputs[0]


def sliding(roi_size=(8, 8), overlap=0.5, **kwargs):
    return SlidingWindowInferer(roi_size=roi_size, overlap=overlap, **{"sw_batch_size": 3, "mode": "gaussian"} | kwargs)


def ensemble():
    made = NetworkEnsemble(Counted(), 3)
    for index, member in enumerate(made.networks):
        member.load_state_dict(Counted(seed=index).state_dict())
    return made.eval()


NETWORKS = {
    "deterministic": (lambda: Counted().eval(), lambda: None),
    "mc_dropout": (lambda: Counted(dropout=0.5).eval(), lambda: MCDropoutSampler(4, seed=3)),
    "tta": (lambda: Counted().eval(), lambda: TTASampler([0, 1], intensity=[RandGaussianNoise(prob=1.0)])),
    "deep_ensemble": (ensemble, EnsembleSampler),
    "layer_ensemble": (lambda: Counted(heads=3).eval(), lambda: HeadSampler(skip_heads=1)),
}


def image(seed=1, size=(13, 5)):
    values = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(seed))
    return MetaTensor(values, affine=2 * torch.eye(3), meta={"case": seed})


def inferer(sampler=None, base=None, cache=None, measure_agreement=False, **options):
    made = SamplingInferer(base or sliding(), sampler, measure_agreement=measure_agreement, **options)
    made.keep_predictions(cache)
    return made


def alike(one, other):
    assert list(one) == list(other)
    for name, value in one.items():
        compared = other[name]
        assert (type(value), value.dtype, value.shape) == (type(compared), compared.dtype, compared.shape)
        # on these later rounding depends
        assert (value.stride(), value.storage_offset()) == (compared.stride(), compared.storage_offset())
        assert torch.equal(value, compared)
        if isinstance(value, MetaTensor):
            assert value.meta.keys() == compared.meta.keys()
            assert torch.equal(value.affine, compared.affine)


@pytest.mark.parametrize("base", [sliding(), SimpleInferer()], ids=["windows", "whole"])
@pytest.mark.parametrize("method", list(NETWORKS))
@torch.no_grad()
def test_the_same_bits_with_and_without(tmp_path, method, base):
    """Whoever asks first: prediction, evaluation or the fit of a calibrator."""
    network, sampler = NETWORKS[method]
    for agreement in (False, True):
        plain = inferer(sampler(), base, measure_agreement=agreement)
        outputs, logits = plain.predict(image(), network()), plain(image(), network())
        for asked_first in ("predict", "agreement", "logits"):
            cache = PredictionCache(tmp_path / f"{agreement}_{asked_first}", LARGE)
            first = inferer(sampler(), base, cache, asked_first == "agreement")
            first(image(), network()) if asked_first == "logits" else first.predict(image(), network())
            before = Counted.runs
            again = PredictionCache(cache.folder, LARGE)
            kept = inferer(sampler(), base, again, agreement)
            alike(kept.predict(image(), network()), outputs)
            alike(
                {"pred": kept(image(), network()).as_subclass(torch.Tensor)}, {"pred": logits.as_subclass(torch.Tensor)}
            )
            assert Counted.runs == before, "the network ran although all was known"
            assert (again.num_read, again.num_kept, again.num_not_kept) == (2, 0, 0)
            assert again.seconds_saved > 0


@torch.no_grad()
def test_what_is_computed_is_handed_out_as_it_is(tmp_path):
    network, sampler = NETWORKS["mc_dropout"]
    outputs = inferer(sampler()).predict(image(), network())
    cache = PredictionCache(tmp_path, LARGE)
    alike(inferer(sampler(), cache=cache).predict(image(), network()), outputs)
    assert (cache.num_read, cache.num_kept) == (0, 1)


def changed_weight():
    network = Counted().eval()
    with torch.no_grad():
        network.last[0].weight[0, 0, 0, 0] += 1e-7
    return network


def changed_member():
    network = ensemble()
    with torch.no_grad():
        network.networks[2].last[0].bias[0] += 1e-7
    return network


def fitted(log_temperature):
    calibrator = TemperatureScaling(3)
    with torch.no_grad():
        next(calibrator.parameters()).fill_(log_temperature)
    calibrator.mark_fitted()
    return calibrator


BASE = {"sampler": None, "base": sliding, "network": lambda: Counted().eval(), "image": image}
MASKS = {"sampler": lambda: MCDropoutSampler(4, seed=3), "network": lambda: Counted(dropout=0.5).eval()}
VIEWS = {"sampler": lambda: TTASampler([0])}
HEADS = {"sampler": lambda: HeadSampler(), "network": lambda: Counted(heads=3).eval()}
MEMBERS = {"sampler": EnsembleSampler, "network": ensemble}
CHANGES = {
    "weights": ({}, {"network": changed_weight}),
    "weights of one network of an ensemble": (MEMBERS, {"network": changed_member}),
    "dropout probability": (MASKS, {"network": lambda: Counted(dropout=0.4).eval()}),
    "memory layout of weights": ({}, {"network": lambda: Counted().eval().to(memory_format=torch.channels_last)}),
    "training mode": ({}, {"network": lambda: Counted().train()}),
    "method": (MASKS, {"sampler": None}),
    "number of members": (MASKS, {"sampler": lambda: MCDropoutSampler(5, seed=3)}),
    "seed of members": (MASKS, {"sampler": lambda: MCDropoutSampler(4, seed=4)}),
    "axes of flips": (VIEWS, {"sampler": lambda: TTASampler([1])}),
    "heads that take part": (HEADS, {"sampler": lambda: HeadSampler(1)}),
    "calibrated members": (MASKS | {"options": {"member_calibrator": fitted(0.0)}},
                           {"options": {"member_calibrator": fitted(0.5)}}),
    "activation": ({}, {"options": {"activation": "sigmoid"}}),
    "size of windows": ({}, {"base": lambda: sliding((8, 16))}),
    "overlap": ({}, {"base": lambda: sliding(overlap=0.25)}),
    "windows at a time": ({}, {"base": lambda: sliding(sw_batch_size=4)}),
    "blending": ({}, {"base": lambda: sliding(mode="constant")}),
    "image, as of another file or preprocessing": ({}, {"image": lambda: image(2)}),
    "one voxel": ({}, {"image": lambda: image() + torch.eye(13)[:, :5] * 1e-7}),
    "memory layout of the image": ({}, {"image": lambda: image(size=(5, 13)).transpose(2, 3)}),
    "type of the image": ({}, {"image": lambda: image().double(), "network": lambda: Counted().eval().double()}),
}  # fmt: skip


def key_of(setup):
    setup = BASE | setup
    cache = PredictionCache("nowhere", LARGE)
    keys = []
    cache._entries.read = lambda key, _names: keys.append(key)
    cache._entries.write = lambda *_: True
    sampler = setup["sampler"] and setup["sampler"]()
    inferer(sampler, setup["base"](), cache, **setup.get("options", {})).predict(setup["image"](), setup["network"]())
    return keys[0]


@pytest.mark.parametrize("change", list(CHANGES))
@torch.no_grad()
def test_every_change_is_another_key(change):
    before, after = CHANGES[change]
    assert key_of(before) == key_of(before)
    assert key_of(before) != key_of(before | after)


@pytest.mark.parametrize("what", ["threads", "autocast", "algorithms", "version", "sources", "processor", "variable"])
@torch.no_grad()
def test_software_and_circumstances_are_part_of_the_key(what, monkeypatch):
    before = key_of({})
    prediction_key._software.cache_clear()
    if what == "threads":
        monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    elif what == "algorithms":
        monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: "changed")
    elif what == "version":
        monkeypatch.setattr(prediction_key, "version", lambda _: "0.0")
    elif what == "sources":
        monkeypatch.setattr(prediction_key, "_ROOMS", ("inferers",))
    elif what == "processor":
        monkeypatch.setattr(prediction_key, "_processor", lambda: "another")
    elif what == "variable":
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    with torch.autocast("cpu", torch.bfloat16, enabled=what == "autocast"):
        after = key_of({})
    prediction_key._software.cache_clear()
    assert before != after


@torch.no_grad()
def test_weights_that_change_between_two_cases_are_seen(tmp_path):
    network, cache = Counted().eval(), PredictionCache(tmp_path, LARGE)
    kept = inferer(cache=cache)
    before = kept.predict(image(), network)["pred"]
    network.last[0].bias += 1
    torch.testing.assert_close(kept.predict(image(), network)["pred"], before + 1)
    network.first = nn.Conv2d(1, 4, 3, padding=1)
    assert torch.equal(kept.predict(image(), network)["pred"], inferer().predict(image(), network)["pred"])
    assert cache.num_kept == 3


def test_keys_are_those_of_other_processes(tmp_path):
    """Neither the order of sets nor hooks that were made before have a part in them."""
    import subprocess

    code = """
import torch
from torch import nn
from monai.inferers import SlidingWindowInferer
from medcalib.inferers import MCDropoutSampler, SamplingInferer
from medcalib.inferers.prediction_cache import PredictionCache
from medcalib.networks import insert_dropout
import sys
for _ in range(int(sys.argv[2])):
    nn.Conv2d(1, 1, 1).register_forward_hook(print)
torch.manual_seed(0)
network = insert_dropout(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 1)), ["0"]).eval()
inferer = SamplingInferer(SlidingWindowInferer((8, 8)), MCDropoutSampler(2))
cache = PredictionCache(sys.argv[1], 10**6)
inferer.keep_predictions(cache)
with torch.no_grad():
    inferer(torch.ones(1, 1, 9, 9), network)
print(cache.num_kept, cache.num_read)
"""
    code = code.replace("nn.Conv2d(1, 2, 3)", "nn.Conv2d(1, 2, 3, padding=1)")
    results = [
        subprocess.run([sys.executable, "-c", code, str(tmp_path), hooks], capture_output=True, text=True, check=True)
        for hooks in ("0", "5")
    ]
    assert [result.stdout.split() for result in results] == [["1", "0"], ["0", "1"]]


def poisoned(path, how):
    """Another entry of the same form."""
    with np.load(path) as archive:
        arrays = dict(archive)
    if how == "bit":
        content = bytearray(path.read_bytes())
        content[content.index(arrays["pred"].tobytes()) + 20] ^= 1
        path.write_bytes(content)
        return
    header = json.loads(arrays["header"].tobytes())
    if how == "renamed":
        header["key"] = "0" * 64
    arrays["header"] = np.frombuffer(json.dumps(header).encode() if how == "renamed" else b"no header", np.uint8)
    np.savez(path, **arrays)


@pytest.mark.parametrize("how", ["bit", "renamed", "header"])
@torch.no_grad()
def test_a_poisoned_entry_is_noticed_and_made_again(tmp_path, how):
    network, outputs = Counted().eval(), inferer().predict(image(), Counted().eval())
    inferer(cache=PredictionCache(tmp_path, LARGE)).predict(image(), network)
    [path] = tmp_path.iterdir()
    poisoned(path, how)
    cache = PredictionCache(tmp_path, LARGE)
    with pytest.warns(UserWarning, match=r"npz (is damaged|holds something else).*made again"):
        alike(inferer(cache=cache).predict(image(), network), outputs)
    assert (cache.num_read, cache.num_kept) == (0, 1)
    alike(inferer(cache=cache).predict(image(), network), outputs)
    assert cache.num_read == 1


class Jittered:
    """A sampler that draws from the random state of the process."""

    def __init__(self, draw):
        self.draw = draw

    def __call__(self, inputs, network):
        yield network(inputs) + float(self.draw())


@pytest.mark.parametrize(
    "draw",
    [random.random, lambda: np.random.rand(), lambda: torch.rand(())],  # noqa: NPY002
    ids=["python", "numpy", "torch"],
)
@torch.no_grad()
def test_what_depends_on_the_random_state_is_not_kept(tmp_path, draw):
    cache = PredictionCache(tmp_path, LARGE)
    kept = inferer(Jittered(draw), SimpleInferer(), cache)
    network = Counted().eval()
    one, other = (kept.predict(image(), network)["pred"] for _ in range(2))
    assert not torch.equal(one, other)
    assert (cache.num_read, cache.num_kept, cache.num_not_kept) == (0, 0, 2)


@torch.no_grad()
def test_what_cannot_be_described_is_not_kept(tmp_path):
    """A function of an expression may be another one next time, and nobody would see it."""
    cache = PredictionCache(tmp_path, LARGE)
    kept = inferer(eval("lambda inputs, network: iter([network(inputs)])"), cache=cache)
    with pytest.warns(UserWarning, match="not read from a file.*--prediction_cache off"):
        kept.predict(image(), Counted().eval())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept.predict(image(), Counted().eval())
    assert cache.num_not_kept == 2


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@torch.no_grad()
def test_a_folder_that_cannot_be_written_is_said_once(tmp_path, monkeypatch, error):
    outputs = [inferer().predict(image(seed), Counted().eval()) for seed in range(3)]
    inferer(cache=PredictionCache(tmp_path, LARGE)).predict(image(0), Counted().eval())
    cache = PredictionCache(tmp_path, LARGE)

    def fails(*_args, **_kwargs):
        raise OSError(error, "does not work")

    monkeypatch.setattr(np, "savez", fails)
    kept = inferer(cache=cache)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for seed, expected in enumerate(outputs):
            alike(kept.predict(image(seed), Counted().eval()), expected)
    [message] = [str(one.message) for one in warned]
    assert f"{tmp_path} (does not work), so the run goes on without" in message
    assert (cache.num_read, cache.num_kept, cache.num_not_kept) == (1, 0, 2)
    assert len(list(tmp_path.iterdir())) == 1, "something half-written was left"


@torch.no_grad()
def test_several_runs_at_once(tmp_path):
    """They share entries, of which some go while others are read, and all get the right bits."""
    seeds = [0, 1, 2, 3, 4]
    networks = [Counted().eval() for _ in range(4)]
    expected = {seed: inferer().predict(image(seed), networks[3]) for seed in seeds}
    inferer(cache=PredictionCache(tmp_path, LARGE)).predict(image(0), networks[3])
    size = next(tmp_path.iterdir()).stat().st_size

    @torch.no_grad()
    def work(start):
        for _ in range(10):
            kept = inferer(cache=PredictionCache(tmp_path, 3 * size))
            for seed in seeds[start:] + seeds[:start]:
                alike(kept.predict(image(seed), networks[start]), expected[seed])
        return start

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(work, range(3))) == [0, 1, 2]


@torch.no_grad()
def test_gradients_are_not_lost(tmp_path):
    cache, network = PredictionCache(tmp_path, LARGE), Counted().eval()
    plain, kept = inferer(), inferer(cache=cache)
    with torch.enable_grad():
        for _ in range(2):
            assert kept(image(), network).requires_grad == plain(image(), network).requires_grad
    assert (cache.num_read, cache.num_kept, cache.num_not_kept) == (0, 0, 0)


def test_half_precision_is_kept(tmp_path):
    cache = PredictionCache(tmp_path, LARGE)
    for dtype in (torch.bfloat16, torch.float16):
        values = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
        for _ in range(2):
            found = cache.maps(
                {"dtype": str(dtype)}, torch.ones(1), nn.Identity(), lambda values=values: {"pred": values}
            )
            assert found["pred"].dtype == dtype
            assert torch.equal(found["pred"], values)
    assert cache.num_read == 2


def test_it_says_what_it_did(tmp_path):
    cache = PredictionCache(tmp_path, LARGE)
    cache.num_read, cache.num_kept = 3, 2
    assert str(cache) == f"Predictions of the network: 3 read, 2 computed and kept, in {tmp_path}"
    assert isinstance(cache._entries, BoundedFolder)
