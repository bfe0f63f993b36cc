"""Temperature, vector and Platt scaling against known truths, closed forms and general solvers."""

import warnings

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, minimize_scalar
from sklearn.linear_model import LogisticRegression
from tests.calibrators.examples import OF_LOGITS, SCALING, drawn_labels, make, split, true_logits

from medcalib.calibrators import PlattScaling, TemperatureScaling, VectorScaling, fit_calibrator
from medcalib.calibrators.calibration_cases import Voxels
from medcalib.calibrators.fitting.likelihood import AffineLikelihood
from medcalib.calibrators.fitting.voxel_sample import SAMPLING, VoxelSample
from medcalib.errors import UserError


def arrays(cases):
    """Logits (N, C) and labels (N,) or targets (N, C), float64."""
    logits = np.concatenate([case.logits.movedim(1, -1).flatten(0, -2).double().numpy() for case in cases])
    labels = np.concatenate([case.labels.movedim(1, -1).flatten(0, -2).numpy() for case in cases])
    return logits, labels[:, 0] if labels.shape[1] == 1 and logits.shape[1] > 1 else labels


def softmax_nll(logits, labels):
    shifted = logits - logits.max(1, keepdims=True)
    return (np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), labels]).mean()


def sigmoid_nll(logits, targets):
    return (np.logaddexp(0, logits) - targets * logits).mean()


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_the_temperature_is_that_of_a_scalar_search(activation):
    cases = split(activation=activation)
    calibrator = TemperatureScaling(3, activation)
    report = fit_calibrator(calibrator, cases)
    nll = softmax_nll if activation == "softmax" else sigmoid_nll
    logits, labels = arrays(cases)
    found = minimize_scalar(
        lambda t: nll(logits / np.exp(t), labels), bounds=(-3, 3), method="bounded", options={"xatol": 1e-9}
    )
    assert calibrator.temperature == pytest.approx(np.exp(found.x), rel=1e-5)
    assert report.nll_before == pytest.approx(nll(logits, labels), rel=1e-6)
    assert report.nll_after == pytest.approx(found.fun, rel=1e-6)
    assert report.converged
    assert report.gradient_norm < 1e-6


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("cls", [VectorScaling, PlattScaling])
def test_scales_and_biases_are_those_of_lbfgs(cls, activation):
    cases = split(activation=activation)
    calibrator = cls(3, activation)
    report = fit_calibrator(calibrator, cases)
    nll = softmax_nll if activation == "softmax" else sigmoid_nll
    logits, labels = arrays(cases)
    found = minimize(
        lambda x: nll(logits * x[:3] + x[3:], labels), np.r_[np.ones(3), np.zeros(3)], method="L-BFGS-B",
        options={"ftol": 1e-15, "gtol": 1e-9, "maxfun": 10_000},
    )  # fmt: skip
    fitted = calibrator.describe()
    np.testing.assert_allclose(fitted["scale"], found.x[:3], rtol=2e-3)
    bias = np.array(fitted["bias"]) - found.x[3:]
    if activation == "softmax":
        bias -= bias.mean()
        assert sum(fitted["bias"]) == pytest.approx(0, abs=1e-5)
    np.testing.assert_allclose(bias, 0, atol=2e-3)
    assert report.nll_after <= found.fun * (1 + 1e-6)


def test_binary_platt_scaling_is_logistic_regression():
    cases = split(num_classes=1, activation="sigmoid")
    calibrator = PlattScaling(1, "sigmoid")
    fit_calibrator(calibrator, cases)
    logits, labels = arrays(cases)
    reference = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logits, labels[:, 0])
    fitted = calibrator.describe()
    assert fitted["scale"][0] == pytest.approx(reference.coef_.item(), rel=1e-4)
    assert fitted["bias"][0] == pytest.approx(reference.intercept_.item(), abs=1e-4)
    convolution = torch.nn.Conv2d(1, 1, 1)
    convolution.load_state_dict({"weight": calibrator.scale.reshape(1, 1, 1, 1), "bias": calibrator.bias})
    torch.testing.assert_close(calibrator(cases[0].logits), convolution(cases[0].logits))


def test_two_softmax_channels_are_the_same_binary_problem():
    cases = split(num_classes=2)
    channels, difference = PlattScaling(2), PlattScaling(1, "sigmoid")
    fit_calibrator(channels, cases)
    odds = [(case.logits[:, 1:] - case.logits[:, :1], case.labels) for case in cases]
    fit_calibrator(difference, odds)
    calibrated = channels(cases[0].logits)
    torch.testing.assert_close(calibrated[:, 1:] - calibrated[:, :1], difference(odds[0][0]), rtol=1e-4, atol=1e-4)


def test_a_negative_scale_is_found_where_logits_say_the_opposite():
    cases = [(-case.logits, case.labels) for case in split(num_classes=1, activation="sigmoid")]
    calibrator = PlattScaling(1, "sigmoid")
    fit_calibrator(calibrator, cases)
    assert calibrator.scale.item() == pytest.approx(-0.4, abs=0.05)


@pytest.mark.parametrize(
    ("activation", "num_classes"), [("softmax", 2), ("softmax", 4), ("sigmoid", 1), ("sigmoid", 3)]
)
@pytest.mark.parametrize("temperature", [0.4, 3.0])
def test_the_true_temperature_is_recovered_within_a_percent(activation, num_classes, temperature):
    cases = []
    for seed in range(2):
        true = true_logits(num_classes, (300, 300), seed)
        cases.append((temperature * true, drawn_labels(true, activation, seed)))
    calibrator = TemperatureScaling(num_classes, activation)
    fit_calibrator(calibrator, cases)
    assert calibrator.temperature == pytest.approx(temperature, rel=0.01)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_logits_twice_as_large_have_twice_the_temperature(activation):
    cases = split(activation=activation)
    one, two = TemperatureScaling(3, activation), TemperatureScaling(3, activation)
    fit_calibrator(one, cases)
    fit_calibrator(two, [case._replace(logits=2 * case.logits) for case in cases])
    assert two.temperature == pytest.approx(2 * one.temperature, rel=1e-6)


def test_a_small_sigmoid_structure_does_not_send_the_temperature_off():
    """One voxel in 200 is foreground: T stays near the truth, where a free T with a fixed step size runs away."""
    true = true_logits(1, (400, 400)) - 6
    labels = drawn_labels(true, "sigmoid")
    assert 0.002 < labels.double().mean() < 0.04
    calibrator = TemperatureScaling(1, "sigmoid")
    report = fit_calibrator(calibrator, [(3 * true, labels)])
    assert calibrator.temperature == pytest.approx(3, rel=0.02)
    assert report.converged


@pytest.mark.parametrize("kind", SCALING)
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_the_map_is_the_one_whose_likelihood_is_fitted(kind, activation):
    calibrator = make(kind, activation=activation)
    values = torch.rand(sum(p.numel() for p in calibrator.parameters()), generator=torch.Generator().manual_seed(0))
    torch.nn.utils.vector_to_parameters(values, calibrator.parameters())
    scale, bias = calibrator.affine(values).reshape(2, 3, 1, 1)
    logits = split(1)[0].logits
    torch.testing.assert_close(calibrator.calibrate(logits), logits * scale + bias)


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("dense", [False, True])
def test_derivatives_are_those_of_autograd(sigmoid, dense, monkeypatch):
    monkeypatch.setattr("medcalib.calibrators.fitting.likelihood.CHUNK", 7)
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(3, 40, generator=generator, dtype=torch.float64)
    truth = torch.randint(0, 3, (40,), generator=generator)
    weights = torch.rand(40, generator=generator, dtype=torch.float64)
    target = torch.nn.functional.one_hot(truth, 3).T.double()
    affine = torch.rand(6, generator=generator, dtype=torch.float64)

    def nll(affine):
        scaled = logits * affine[:3, None] + affine[3:, None]
        if sigmoid:
            losses = torch.nn.functional.binary_cross_entropy_with_logits(scaled, target, reduction="none").mean(0)
        else:
            losses = -(target * scaled.log_softmax(0)).sum(0)
        return (losses * weights).sum() / weights.sum()

    terms = AffineLikelihood(lambda: [(Voxels(logits, target if dense else truth), weights)], sigmoid)(affine)
    torch.testing.assert_close(terms.value, nll(affine))
    torch.testing.assert_close(terms.gradient, torch.func.grad(nll)(affine))
    torch.testing.assert_close(terms.hessian, torch.func.hessian(nll)(affine))


@pytest.mark.parametrize("kind", SCALING)
def test_streaming_equals_a_sample_of_everything(kind):
    in_memory, streamed = make(kind), make(kind)
    report = fit_calibrator(in_memory, split(), max_voxels=4 * 480)
    again = fit_calibrator(streamed, split(), max_voxels=None)
    assert report.num_fitted_voxels == again.num_fitted_voxels == report.num_voxels == 4 * 480
    assert again.nll_after == pytest.approx(report.nll_after, rel=1e-9)
    torch.testing.assert_close(in_memory.state_dict(), streamed.state_dict(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("sampling", SAMPLING)
def test_a_sample_is_unbiased_and_of_bounded_size(sampling, monkeypatch):
    """Means over samples of many seeds are means over all voxels: of the NLL, and of every class."""
    monkeypatch.setattr("medcalib.calibrators.fitting.voxel_sample.CHUNK", 300)
    case = split(1, shape=(40, 40))[0]
    voxels = Voxels(case.logits.flatten(2)[0], case.labels.flatten())
    likelihoods, shares, sizes = [], [], set()
    start = torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=torch.float64)
    for seed in range(200):
        sample = VoxelSample(100, sampling, seed=seed)
        sample.add(voxels)
        parts = list(sample.voxels())
        truth = torch.cat([kept.truth for kept, _ in parts])
        weights = torch.cat([of_part for _, of_part in parts])
        sizes.add(len(sample))
        assert weights.sum().item() == pytest.approx(1600)
        likelihoods.append(AffineLikelihood(sample.voxels, False)(start).value)
        shares.append(torch.stack([weights[truth == c].sum() for c in range(3)]) / 1600)
    whole = AffineLikelihood(lambda: [(voxels, None)], False)(start).value
    likelihoods, shares = torch.stack(likelihoods), torch.stack(shares)
    assert max(sizes) <= 100
    assert min(sizes) > 95
    assert abs(likelihoods.mean() - whole) < 4 * likelihoods.std() / 200**0.5 + 1e-12
    wanted = voxels.truth.bincount(minlength=3) / 1600
    assert ((shares.mean(0) - wanted).abs() < 4 * shares.std(0) / 200**0.5 + 1e-6).all()


def test_samples_balanced_by_error_vary_least():
    cases, spread = [], {}
    for seed in range(2):
        true = true_logits(3, (150, 150), seed)
        true[:, 0] += 7
        cases.append((2 * true, drawn_labels(true, seed=seed)))
    for sampling in SAMPLING:
        found = []
        for seed in range(8):
            calibrator = TemperatureScaling(3)
            report = fit_calibrator(calibrator, cases, max_voxels=5000, sampling=sampling, seed=seed)
            assert report.num_fitted_voxels <= 5000 < report.num_voxels == 45_000
            found.append(calibrator.temperature)
        spread[sampling] = np.std(found)
    assert spread["error_balanced"] < 0.7 * min(spread["class_balanced"], spread["uniform"])


@pytest.mark.parametrize("kind", ["vector_scaling", "platt_scaling"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_an_absent_class_keeps_its_scale_and_bias(kind, activation):
    cases = []
    for case in split(activation=activation):
        if activation == "softmax":
            labels = case.labels.where(case.labels != 2, case.labels.new_zeros(()))
        else:
            labels = case.labels * torch.tensor([1, 1, 0], dtype=torch.uint8).reshape(1, 3, 1, 1)
        cases.append(case._replace(labels=labels))
    calibrator = make(kind, activation=activation)
    with pytest.warns(UserWarning, match=r"lacks class\(es\) 2"):
        report = fit_calibrator(calibrator, cases)
    assert report.absent_classes == [2]
    fitted = calibrator.describe()
    assert fitted["scale"][2] == 1
    assert fitted["bias"][2] == 0
    assert fitted["scale"][0] != 1
    assert np.isfinite(fitted["scale"] + fitted["bias"]).all()
    assert report.converged


def test_a_split_without_errors_is_worth_a_warning():
    labels = torch.tensor([[[0, 1, 0, 1]]])
    logits = 2.0 * torch.nn.functional.one_hot(labels[0, 0]).T[None]
    calibrator = TemperatureScaling(2)
    with pytest.warns(UserWarning, match="predicted without error"):
        report = fit_calibrator(calibrator, [(logits, labels)])
    assert 0.01 <= calibrator.temperature < 0.5
    assert report.nll_after < report.nll_before


def test_logits_that_tell_nothing_stop_at_the_limit_with_a_warning():
    labels = torch.tensor([[[0, 1, 0, 1]]])
    logits = torch.tensor([[[0.0, 0.0, 2.0, 2.0], [2.0, 2.0, 0.0, 0.0]]])
    calibrator = TemperatureScaling(2)
    with pytest.warns(UserWarning, match="tell nothing"):
        fit_calibrator(calibrator, [(logits, labels)])
    assert calibrator.temperature == pytest.approx(100)


def test_vector_scaling_without_bias_recovers_its_scales():
    scale = torch.tensor([0.5, 2.0, 3.0]).reshape(1, 3, 1, 1)
    true = true_logits(3, (300, 300))
    calibrator = VectorScaling(3, bias=False)
    fit_calibrator(calibrator, [(true / scale, drawn_labels(true))])
    np.testing.assert_allclose(calibrator.describe()["scale"], scale.flatten(), rtol=0.03)
    assert calibrator.describe()["bias"] == [0, 0, 0]
    assert [name for name, _ in calibrator.named_parameters()] == ["log_scale"]


def test_scalar_predictions_of_classification_are_calibrated_alike():
    """Logits (B, C) of whole images are a volume without spatial axes."""
    true = true_logits(3, (20, 20))
    labels = drawn_labels(true)
    flat = (3 * true).movedim(1, -1).reshape(-1, 3), labels.reshape(-1, 1)
    one, other = TemperatureScaling(3), TemperatureScaling(3)
    fit_calibrator(one, [(3 * true, labels)])
    fit_calibrator(other, [flat])
    assert other.temperature == pytest.approx(one.temperature, rel=1e-6)


def test_wrong_options_are_errors():
    with pytest.raises(ValueError, match="at least 2 with softmax"):
        TemperatureScaling(1)
    with pytest.raises(ValueError, match="not a valid Activation"):
        TemperatureScaling(2, "relu")
    with pytest.raises(ValueError, match="sampling must be one of"):
        fit_calibrator(TemperatureScaling(3), split(1), sampling="random")
    with pytest.raises(UserError, match="same label"):
        fit_calibrator(TemperatureScaling(3), [(torch.zeros(1, 3, 4), torch.ones(1, 1, 4))])


def limits_of(logits, labels, kind="temperature_scaling"):
    """What is said of a fit that runs to a limit, and what was fitted."""
    calibrator = make(kind)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit_calibrator(calibrator, [(logits, labels)])
    return " ".join(str(warning.message) for warning in caught), calibrator


@pytest.mark.parametrize("kind", SCALING)
def test_predictions_without_error_are_called_so(kind):
    """All right, but without confidence: the temperature falls to its limit, as the logits tell all of the labels."""
    logits = 0.3 * torch.randn(1, 3, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = logits.argmax(1, keepdim=True)
    said, calibrator = limits_of(logits, labels, kind)
    assert "without error" in said
    assert "tell nothing" not in said
    if kind == "temperature_scaling":
        assert "would become ever more confident and was stopped at its limit" in said
        assert calibrator.temperature == pytest.approx(0.01)


def test_logits_that_tell_nothing_are_called_so():
    logits = 3 * torch.randn(1, 3, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    said, calibrator = limits_of(logits, logits.argmin(1, keepdim=True))
    assert "tell nothing of the labels, or the opposite" in said
    assert "without error" not in said
    assert calibrator.temperature == pytest.approx(100)


def test_tiny_logits_are_called_so():
    """A temperature beyond the limit is finite all the same, and there are errors."""
    case = split(1)[0]
    said, calibrator = limits_of(case.logits * 1e-4, case.labels)
    assert "found a scale beyond its limit, 100, and was stopped there" in said
    assert "predicted without error" not in said
    assert calibrator.temperature == pytest.approx(0.01)


def test_a_sample_does_not_depend_on_when_it_was_trimmed(monkeypatch):
    """In each stratum the voxels of the smallest numbers: the same whether all are held before, or few."""
    voxels = Voxels(torch.arange(6000.0).reshape(2, 3000), torch.randint(0, 3, (3000,)))
    found = []
    for slack in (1.25, 2, 100):
        monkeypatch.setattr("medcalib.calibrators.fitting.voxel_sample.SLACK", slack)
        monkeypatch.setattr("medcalib.calibrators.fitting.voxel_sample.CHUNK", 170)
        sample = VoxelSample(200, "class_balanced", seed=3)
        sample.add(voxels)
        parts = list(sample.voxels())
        found.append([torch.cat([kept.logits[0] for kept, _ in parts]), torch.cat([weights for _, weights in parts])])
        assert len(sample) <= 200
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    torch.testing.assert_close(found[0], found[2], rtol=0, atol=0)


@pytest.mark.parametrize("kind", OF_LOGITS)
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_parts_of_a_case_are_the_whole(kind, activation, monkeypatch):
    """Looking at few voxels at a time changes no result."""
    cases = split(activation=activation)
    whole = make(kind, activation=activation)
    report = fit_calibrator(whole, cases)
    for module in ("base", "calibration_cases", "fitting.voxel_sample"):
        monkeypatch.setattr(f"medcalib.calibrators.{module}.CHUNK", 101)
    monkeypatch.setattr("medcalib.calibrators.fitting.likelihood.LARGE_CHUNK", 37)
    in_parts = make(kind, activation=activation)
    again = fit_calibrator(in_parts, cases)
    torch.testing.assert_close(whole.state_dict(), in_parts.state_dict(), rtol=1e-3, atol=1e-4)
    for name in ("nll_before", "ece_before", "dice_before", "nll_after", "ece_after", "dice_after"):
        assert getattr(again, name) == pytest.approx(getattr(report, name), rel=1e-5), name
    torch.testing.assert_close(in_parts.calibrate_case(cases[0]), in_parts(cases[0].logits), rtol=0, atol=0)
