"""Laws and oracles of the uncertainty measures and of the moments of the members."""

import weakref

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medcalib.functional import PredictiveMoments, entropy, sample_mean_uncertainty
from medcalib.functional import uncertainty as module
from medcalib.keys import Activation

ACTIVATIONS = ["softmax", "sigmoid"]
SHAPES = [(2, 3), (2, 3, 17), (1, 2, 9, 7), (2, 4, 5, 6, 7)]
MAPS = ["predictive_entropy", "expected_entropy", "mutual_information", "variance"]
LN2 = float(np.log(2))


@pytest.fixture(params=[1 << 18, 50], ids=["one part", "many parts"], autouse=True)
def part_size(request, monkeypatch):
    monkeypatch.setattr(module, "_CPU_PART", request.param)


def draw(members=5, shape=(2, 4, 5, 6, 7), scale=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(shape, generator=generator) for _ in range(members)]


def gather(members, activation="softmax"):
    moments = PredictiveMoments(activation)
    for member in members:
        moments.update(member)
    return moments


def results(moments):
    return {name: getattr(moments, name)() for name in MAPS} | {"mean": moments.mean}


def assert_same(a, b, tolerance):
    for name, value in results(a).items():
        torch.testing.assert_close(value, results(b)[name], rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


def numpy_entropy(p, activation):
    terms = [p] if activation == "softmax" else [p, 1 - p]
    return sum(-(t * np.log(np.where(t > 0, t, 1))).sum(1, keepdims=True) for t in terms)


def numpy_moments(members, activation):
    probs = []
    for member in members:
        x = member.double().numpy()
        if activation == "softmax":
            x = np.exp(x - x.max(1, keepdims=True))
            probs.append(x / x.sum(1, keepdims=True))
        else:
            probs.append(np.exp(-np.logaddexp(0, -x)))
    mean = sum(probs) / len(probs)
    expected = sum(numpy_entropy(p, activation) for p in probs) / len(probs)
    return {
        "mean": mean,
        "predictive_entropy": numpy_entropy(mean, activation),
        "expected_entropy": expected,
        "mutual_information": numpy_entropy(mean, activation) - expected,
        "variance": (sum((p - mean) ** 2 for p in probs) / len(probs)).mean(1, keepdims=True),
    }


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("members", [1, 2, 7])
def test_moments_equal_the_numpy_loop(activation, shape, members):
    drawn = draw(members, shape)
    moments, wanted = gather(drawn, activation), numpy_moments(drawn, activation)
    assert moments.num_members == members
    for name, value in results(moments).items():
        assert value.dtype == torch.float32
        assert value.shape == (shape if name == "mean" else (shape[0], 1, *shape[2:]))
        np.testing.assert_allclose(value.numpy(), wanted[name], rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_one_member_is_the_plain_path_bit_for_bit(activation, shape, dtype):
    (member,) = draw(1, shape)
    member = member.to(dtype)
    moments = gather([member], activation)
    assert moments.logits().dtype == dtype
    assert torch.equal(moments.logits(), member)
    wide = member if dtype == torch.float64 else member.float()
    plain = wide.softmax(1) if activation == "softmax" else wide.sigmoid()
    assert torch.equal(moments.mean, plain.float())
    assert torch.equal(moments.expected_entropy(), moments.predictive_entropy())
    assert moments.variance().abs().max() == moments.mutual_information().abs().max() == 0


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [3.0, 1e4])
def test_equal_members_have_no_spread_at_all(activation, shape, scale):
    (member,) = draw(1, shape, scale)
    moments = gather([member.clone() for _ in range(7)], activation)
    assert torch.equal(moments.mean, gather([member], activation).mean)
    assert moments.variance().abs().max() == moments.mutual_information().abs().max() == 0
    assert torch.equal(moments.predictive_entropy(), moments.expected_entropy())


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_order_of_members_does_not_matter(activation):
    members = draw(9)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1)).tolist()
    assert_same(gather(members, activation), gather([members[i] for i in order], activation), 1e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nothing_is_negative_or_above_its_range(activation):
    members = [*draw(20, (1, 3, 40, 40), 1e-3), *draw(20, (1, 3, 40, 40), 30, 1)]
    for count in (2, 3, 20, 40):
        moments = gather(members[:count], activation)
        top = 3 * LN2 if activation == "sigmoid" else float(np.log(3))
        for name, limit in zip(MAPS, [top, top, top, 0.25], strict=True):
            value = getattr(moments, name)()
            assert value.min() >= 0
            assert value.max() <= limit + 1e-6
        assert 0 <= moments.mean.min() <= moments.mean.max() <= 1


def test_variance_stays_in_its_range_despite_rounding():
    first = torch.tensor([[[1e4], [-1e4]]])
    for half in range(1, 40):
        variance = gather([first] * half + [-first] * half).variance().item()
        assert variance == pytest.approx(0.25, abs=1e-6)
        assert variance <= 0.25


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_opposite_certain_members_reach_the_limits(activation, dtype):
    first = torch.tensor([[[1e4], [-1e4]]], dtype=dtype)
    moments = gather([first, -first], activation)
    labels = 1 if activation == "softmax" else 2
    assert torch.equal(moments.mean, torch.full((1, 2, 1), 0.5))
    assert moments.expected_entropy().item() == 0
    assert moments.mutual_information().item() == pytest.approx(labels * LN2, abs=1e-6)
    assert moments.variance().item() == 0.25


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    members = [member.to(dtype) for member in draw()]
    assert_same(gather(members), gather([member.float() for member in members]), 0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("scale", [3.0, 1e4])
def test_logits_give_back_the_mean(activation, scale):
    moments = gather(draw(3, scale=scale), activation)
    logits = moments.logits()
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()
    back = logits.softmax(1) if activation == "softmax" else logits.sigmoid()
    torch.testing.assert_close(back, moments.mean, rtol=0, atol=1e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("first", [0, 1, 3, 7])
def test_merged_parts_are_one_stream(activation, first):
    members = draw(7)
    moments, other = gather(members[:first], activation), gather(members[first:], activation)
    before = results(other) if other.num_members else {}
    moments.merge(other)
    assert moments.num_members == 7
    assert_same(moments, gather(members, activation), 1e-6)
    moments.update(members[0])
    for name, value in before.items():
        assert torch.equal(results(other)[name], value)


def test_merging_equal_members_adds_no_spread():
    (member,) = draw(1)
    moments = gather([member] * 3)
    moments.merge(gather([member] * 4))
    assert moments.variance().abs().max() == moments.mutual_information().abs().max() == 0
    single = PredictiveMoments()
    single.merge(gather([member]))
    assert torch.equal(single.logits(), member)
    single.merge(gather([member]))
    torch.testing.assert_close(single.logits(), member.log_softmax(1), rtol=0, atol=1e-5)


def test_memory_does_not_grow_with_the_members():
    def held(moments):
        tensors = [value for value in vars(moments).values() if isinstance(value, torch.Tensor)]
        return len(tensors), sum(tensor.numel() for tensor in tensors)

    voxels, sizes, alive = 6 * 7 * 5, [], []
    moments = PredictiveMoments()
    for member in draw(12, (1, 4, 5, 6, 7)):
        alive.append(weakref.ref(member))
        moments.update(member)
        sizes.append(held(moments))
    del member
    assert set(sizes[1:]) == {(3, (4 + 2) * voxels)}
    assert [ref() for ref in alive] == [None] * 12


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_batch_is_its_cases(activation):
    members = draw(4)
    moments = gather(members, activation)
    for b in range(2):
        case = gather([member[b : b + 1] for member in members], activation)
        for name, value in results(moments).items():
            torch.testing.assert_close(value[b : b + 1], results(case)[name], rtol=0, atol=1e-6)


def test_non_contiguous_and_meta_tensors_give_the_same():
    members = draw()
    wanted = gather(members)
    strided = [member.permute(0, 4, 3, 2, 1).contiguous().permute(0, 4, 3, 2, 1) for member in members]
    assert not strided[0].is_contiguous()
    assert_same(gather(strided), wanted, 1e-6)
    meta = gather([MetaTensor(member) for member in members])
    assert_same(meta, wanted, 0)
    assert all(type(value) is torch.Tensor for value in [*results(meta).values(), meta.logits()])
    assert isinstance(gather([MetaTensor(members[0])]).logits(), MetaTensor)


def test_results_stay_when_members_follow():
    members = draw(3)
    moments = gather(members[:2])
    before = results(moments) | {"logits": moments.logits()}
    copies = {name: value.clone() for name, value in before.items()}
    moments.update(members[2])
    for name, value in before.items():
        assert torch.equal(value, copies[name])


def test_members_carry_no_gradient():
    members = [member.requires_grad_() for member in draw(2)]
    for count in (1, 2):
        moments = gather(members[:count])
        assert not any(value.requires_grad for value in [*results(moments).values(), moments.logits()])


def test_nan_stays_at_its_voxel():
    members = draw(3, (1, 3, 4, 4))
    members[1][0, 0, 2, 1] = torch.nan
    for name, value in results(gather(members)).items():
        where = value.isnan().any(1).nonzero().tolist()
        assert where == [[0, 2, 1]], name


def test_members_that_do_not_fit_are_errors():
    moments = gather([torch.zeros(1, 3, 4, 4)])
    with pytest.raises(ValueError, match=r"members differ in shape: \(1, 2, 4, 4\) after \(1, 3, 4, 4\)"):
        moments.update(torch.zeros(1, 2, 4, 4))
    with pytest.raises(ValueError, match="differ in shape"):
        moments.merge(gather([torch.zeros(1, 3, 4, 5)]))
    with pytest.raises(ValueError, match="sigmoid do not fit"):
        moments.merge(PredictiveMoments("sigmoid"))
    with pytest.raises(ValueError, match="one channel"):
        PredictiveMoments().update(torch.zeros(1, 1, 4))
    with pytest.raises(ValueError, match="floating-point"):
        PredictiveMoments().update(torch.zeros(1, 3, 4, dtype=torch.long))
    with pytest.raises(ValueError, match="Activation"):
        PredictiveMoments("tanh")
    assert moments.num_members == 1


@pytest.mark.parametrize("name", [*MAPS, "logits", "mean"])
def test_no_member_is_an_error(name):
    with pytest.raises(ValueError, match="no moments yet"):
        results(PredictiveMoments()) if name == "mean" else getattr(PredictiveMoments(), name)()


@pytest.mark.parametrize("activation", [*ACTIVATIONS, *Activation])
@pytest.mark.parametrize("shape", SHAPES)
def test_entropy_equals_special_entr(activation, shape):
    (logits,) = draw(1, shape)
    probs = (logits.softmax(1) if activation == "softmax" else logits.sigmoid()).double()
    wanted = torch.special.entr(probs).sum(1, keepdim=True)
    if activation == "sigmoid":
        wanted = wanted + torch.special.entr(1 - probs).sum(1, keepdim=True)
    torch.testing.assert_close(entropy(probs, activation), wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(entropy(probs.float(), activation), wanted.float(), rtol=0, atol=1e-6)
    torch.testing.assert_close(
        entropy(MetaTensor(probs).half(), activation), wanted.float(), rtol=0, atol=5e-3, check_dtype=True
    )


def test_entropy_at_its_limits():
    assert entropy(torch.eye(3).reshape(3, 3, 1)).tolist() == [[[0.0]]] * 3
    assert not entropy(torch.eye(3).reshape(3, 3, 1)).signbit().any()
    assert entropy(torch.full((1, 8, 1), 0.125)).item() == pytest.approx(3 * LN2, abs=1e-6)
    assert entropy(torch.tensor([[[0.0, 1.0, 0.5]]]), "sigmoid")[0, 0].tolist() == pytest.approx([0, 0, LN2], abs=1e-7)


@pytest.mark.parametrize("function", [entropy, sample_mean_uncertainty])
def test_bad_probabilities_are_errors(function):
    for probs, message in [
        (torch.full((1, 2, 3), torch.nan), "NaN"),
        (torch.full((1, 2, 3), 1.5), r"\[0, 1\]"),
        (torch.ones(1, 1, 3), "one channel"),
        (torch.ones(1, 2, 3, dtype=torch.long), "floating-point"),
        (torch.ones(3), "floating-point"),
    ]:
        with pytest.raises(ValueError, match=message):
            function(probs)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_sample_mean_uncertainty_equals_the_loop(activation, shape):
    members = draw(4, shape)
    mean = gather(members, activation).mean
    result = sample_mean_uncertainty(mean, activation)
    assert result.shape == (shape[0], 1, *shape[2:])
    samples = [member.softmax(1) if activation == "softmax" else member.sigmoid() for member in members]
    for index in np.ndindex(*result.shape):
        voxel = (index[0], slice(None), *index[2:])
        values = np.stack([sample[voxel].double().numpy() for sample in samples])
        if activation == "sigmoid":
            values = np.where(values.mean(0) >= 0.5, values, 1 - values)
            predicted = values.mean(0).argmin()
        else:
            predicted = values.mean(0).argmax()
        s = values[:, predicted].mean()
        assert result[index].item() == pytest.approx(1 - 2 * (s - 0.5) ** 2, abs=1e-6)
    assert result.min() >= 0.5
    assert result.max() <= 1
