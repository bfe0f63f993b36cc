"""Calibrators that are trained by gradients: what they can learn, when they stop, what they leave alone."""

import copy
import math

import pytest
import torch
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import SegResNetDS, UNet
from tests.calibrators.examples import drawn_labels, image_network, make, split, split_for, true_logits

from medcalib.calibrators import (
    AuxiliaryCalibrator,
    CalibrationCase,
    FineTune,
    LocalTemperatureScaling,
    PlattScaling,
    TemperatureScaling,
    TrainingOptions,
    fit_calibrator,
)
from medcalib.calibrators.calibration_cases import voxels_of
from medcalib.calibrators.fitting.gradient_fit import _loss
from medcalib.calibrators.fitting.likelihood import negative_log_likelihood
from medcalib.errors import UserError

TRAINED = ["auxiliary", "local_temperature_scaling", "fine_tune"]


def blurred_split(num_cases=4, activation="softmax", num_classes=2):
    """Logits that are a sum over neighbours away from the true ones: only a spatial calibrator can mend them."""
    cases = []
    for seed in range(num_cases):
        true = true_logits(num_classes, (32, 32), seed)
        neighbours = sum(true.roll(step, axis) for step in (-1, 1) for axis in (2, 3))
        cases.append(CalibrationCase(true - 0.2 * neighbours, drawn_labels(true, activation, seed), name=str(seed)))
    return cases


def locally_wrong_split(num_cases=4, image=False):
    """Over-confident by a factor of 4 where a mark says so: in the image, or in how large the logits are."""
    cases = []
    for seed in range(num_cases):
        true = true_logits(3, (24, 24), seed, spread=1.0)
        mark = torch.zeros(1, 1, 24, 24)
        mark[..., 12:] = 1
        cases.append(
            CalibrationCase(true * (1 + 3 * mark), drawn_labels(true, seed=seed), image=mark if image else None)
        )
    return cases


@pytest.mark.parametrize(("activation", "num_classes"), [("softmax", 2), ("sigmoid", 1)])
def test_the_auxiliary_network_uses_the_neighbourhood(activation, num_classes):
    cases = blurred_split(12, activation, num_classes)
    cases, others = cases[:8], cases[8:]
    found = {}
    for calibrator in (
        AuxiliaryCalibrator(num_classes, 2, activation, kernel_size=3),
        PlattScaling(num_classes, activation),
    ):
        fit_calibrator(calibrator, cases)
        with torch.no_grad():
            calibrated = [voxels for case in others for voxels in voxels_of(calibrator(case.logits), case.labels)]
        found[calibrator.kind] = sum(negative_log_likelihood(voxels, activation == "sigmoid") for voxels in calibrated)
    assert found["auxiliary"] < 0.97 * found["platt_scaling"]


def test_an_auxiliary_kernel_of_one_reaches_platt_scaling():
    cases = split(6, num_classes=1, activation="sigmoid", shape=(60, 60))
    auxiliary, platt = AuxiliaryCalibrator(1, 2, "sigmoid", kernel_size=1), PlattScaling(1, "sigmoid")
    reports = [fit_calibrator(calibrator, cases) for calibrator in (auxiliary, platt)]
    assert reports[0].nll_after == pytest.approx(reports[1].nll_after, rel=1e-3)
    scale = 1 + auxiliary.convolution.weight.item()
    assert scale == pytest.approx(platt.scale.item(), rel=0.05)


@pytest.mark.parametrize("image", [False, True])
def test_local_temperatures_are_higher_where_confidence_is_too_high(image):
    cases = locally_wrong_split(8, image)
    calibrator = LocalTemperatureScaling(3, 2, image_channels=int(image), hidden_channels=8)
    options = TrainingOptions(max_epochs=40, learning_rate=1e-2, patience=10)
    report = fit_calibrator(calibrator, cases, training=options)
    single = fit_calibrator(TemperatureScaling(3), cases)
    if image:
        assert report.nll_after < 0.95 * single.nll_after
        temperature = calibrator.log_temperature(cases[0].logits, cases[0].image).exp()
        assert temperature[..., 13:].mean() > 2
        assert temperature[..., :11].mean() < 1.7
    else:
        assert report.nll_after < single.nll_after
    with pytest.raises(UserError, match="needs the image") if image else pytest.MonkeyPatch.context():
        calibrator(cases[0].logits)


def test_a_local_temperature_sees_no_common_constant():
    calibrator = LocalTemperatureScaling(3, 2)
    torch.nn.init.ones_(calibrator.network[-1].weight)
    logits = split(1)[0].logits.double()
    torch.testing.assert_close(calibrator.log_temperature(logits + 5), calibrator.log_temperature(logits))
    assert calibrator.log_temperature(logits).std() > 0


@pytest.mark.parametrize("kind", TRAINED)
def test_training_ends_by_itself(kind):
    options = TrainingOptions(max_epochs=200, patience=2, learning_rate=0.02)
    report = fit_calibrator(make(kind), split_for(kind), training=options)
    assert report.converged
    assert 2 < report.iterations < 200


def test_the_best_state_is_kept_and_not_the_last_one():
    """A step size that spoils what was reached: the state of the lowest held-out NLL must come back."""
    visited = []

    class Watched(LocalTemperatureScaling):
        def calibrate_case(self, case):
            calibrated = super().calibrate_case(case)
            nll = sum(negative_log_likelihood(v, False).item() for v in voxels_of(calibrated, case.labels))
            visited.append((nll, copy.deepcopy(self.network.state_dict())))
            return calibrated

    calibrator = Watched(3, 2, hidden_channels=4)
    report = fit_calibrator(calibrator, split(), training=TrainingOptions(max_epochs=3, learning_rate=0.05))
    # One evaluation before the training, one after each epoch; then the scores of all cases.
    held_out = visited[: report.iterations + 1]
    best = min(range(len(held_out)), key=lambda index: held_out[index][0])
    assert 0 < best < report.iterations
    for name, value in calibrator.network.state_dict().items():
        assert torch.equal(value, held_out[best][1][name]), name


def test_held_out_cases_are_not_trained_on():
    cases = split(4)
    seen = []

    class Watched(AuxiliaryCalibrator):
        def training_logits(self, patch):
            seen.append(patch.name)
            return super().training_logits(patch)

    fit_calibrator(Watched(3, 2), cases, training=TrainingOptions(max_epochs=3, holdout=0.5), seed=3)
    first = set(seen)
    assert len(first) == 2
    seen.clear()
    fit_calibrator(Watched(3, 2), cases, training=TrainingOptions(max_epochs=3, holdout=0.5), seed=4)
    assert len(set(seen)) == 2
    assert set(seen) != first


def test_large_cases_are_trained_on_in_patches():
    sizes = set()

    class Watched(AuxiliaryCalibrator):
        def training_logits(self, patch):
            sizes.add(tuple(patch.logits.shape[2:]))
            return super().training_logits(patch)

    calibrator = Watched(3, 3, kernel_size=1)
    report = fit_calibrator(calibrator, split(6, spatial_dims=3), training=TrainingOptions(patch_voxels=200))
    assert sizes == {(7, 5, 4)}
    assert report.nll_after < report.nll_before


def test_a_patch_counts_as_much_as_its_case_has_voxels():
    """Where all voxels have the same NLL, that of the case is known from any patch."""
    logits, labels = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1).expand(1, 2, 30, 20), torch.zeros(1, 1, 30, 20)
    calibrator = AuxiliaryCalibrator(2, 2)
    for patch_voxels in (10_000, 600, 150, 7):
        loss = _loss(calibrator, CalibrationCase(logits, labels), torch.Generator().manual_seed(0), patch_voxels)
        assert loss.item() == pytest.approx(600 * math.log(1 + math.exp(-1)), rel=1e-5)


def test_the_border_is_repeated_outwards():
    """Nothing shows where a volume ends: constant logits stay constant."""
    for calibrator in (AuxiliaryCalibrator(2, 2), LocalTemperatureScaling(2, 2)):
        for parameter in calibrator.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        logits = torch.tensor([1.0, -2.0]).reshape(1, 2, 1, 1).expand(1, 2, 9, 7)
        calibrated = calibrator.calibrate(logits)
        assert not torch.allclose(calibrated, logits, atol=1e-2)
        torch.testing.assert_close(calibrated, calibrated[..., 4:5, 3:4].expand_as(calibrated))


def test_fine_tuning_changes_the_named_layers_alone():
    network = image_network(3, 2)
    network.train()
    before = copy.deepcopy(network.state_dict())
    calibrator = FineTune(network, ["2"], num_classes=3)
    report = fit_calibrator(calibrator, split_for("fine_tune"))
    assert report.nll_after < report.nll_before
    assert network.training
    assert all(module.training for module in network.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert calibrator.prepare_network(network) is network
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"2.weight", "2.bias"}
    assert sum(parameter.numel() for parameter in calibrator.state_dict().values()) == 3 * 8 + 3 + 1


def test_fine_tuning_reaches_what_the_whole_last_layer_can():
    """Its last layer is a logistic regression on the features before it."""
    cases = split_for("fine_tune", num_cases=8)
    network = image_network(3, 2)
    calibrator = FineTune(network, ["2"], 3)
    options = TrainingOptions(max_epochs=150, learning_rate=0.03, patience=20)
    report = fit_calibrator(calibrator, cases, training=options)
    with torch.no_grad():
        features = torch.cat([network[0](case.image) for case in cases])
    labels = torch.cat([case.labels for case in cases])[:, 0].long()
    layer = copy.deepcopy(network[2])
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(layer(features), labels)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert report.nll_after == pytest.approx(closure().item(), rel=0.02)


def test_the_gradients_of_fine_tuning_are_those_of_the_network():
    """Also for one small volume on a CPU, which goes through it with a second one."""
    network = UNet(spatial_dims=3, in_channels=1, out_channels=2, channels=(4, 8), strides=(2,)).eval()
    image = torch.rand(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    calibrator = FineTune(network, modules=["model.2"], num_classes=2)
    logits = calibrator.training_logits(
        CalibrationCase(torch.zeros(1, 2, 8, 8, 8), torch.zeros(1, 1, 8, 8, 8), image=image)
    )
    logits.square().mean().backward()
    expected = network(image)
    expected.square().mean().backward()
    torch.testing.assert_close(logits, expected)
    parameters = dict(network.named_parameters())
    for name, tuned in zip(calibrator.names, calibrator.tuned, strict=True):
        torch.testing.assert_close(tuned.grad, parameters[name].grad)


def test_fine_tuning_works_on_patches_through_an_inferer():
    """A network with deep supervision, padded patches, a sliding window, and a pattern of names."""
    torch.manual_seed(0)
    network = SegResNetDS(spatial_dims=2, in_channels=3, out_channels=3, init_filters=4, blocks_down=(1, 1), dsdepth=2)
    inferer = SlidingWindowInferer(roi_size=(16, 16), overlap=0.25)
    network.eval()
    cases = []
    for case in split(3, shape=(24, 12), image=True):
        with torch.no_grad():
            cases.append(case._replace(logits=inferer(case.image, network)))
    calibrator = FineTune(network, ["up_layers.*.head"], 3, inferer=inferer, patch_size=[16, 16])
    assert calibrator.names == ["up_layers.0.head.weight", "up_layers.0.head.bias"]
    options = TrainingOptions(max_epochs=10, learning_rate=0.03)
    report = fit_calibrator(calibrator, cases, training=options)
    assert report.nll_after < 0.9 * report.nll_before
    calibrator.prepare_network(network)
    after = [(inferer(case.image, network), case.labels) for case in cases]
    again = fit_calibrator(TemperatureScaling(3), [(logits.detach(), labels) for logits, labels in after])
    assert again.nll_before == pytest.approx(report.nll_after, rel=1e-6)


def test_fine_tuning_names_what_is_wrong():
    network = image_network(3, 2)
    with pytest.raises(UserError, match=r"module 'head\.\*', but the network has none .* last ones are 0\.0, 2"):
        FineTune(network, ["head.*"], 3)
    with pytest.raises(UserError, match="module '1'"):
        FineTune(network, ["2", "1"], 3)
    calibrator = FineTune(network, ["2"], 3)
    with pytest.raises(UserError, match="not fitted"):
        calibrator.prepare_network(network)
    with pytest.raises(UserError, match="case_0: the fine_tune calibrator needs the image"):
        fit_calibrator(calibrator, split())
    calibrator.mark_fitted()
    with pytest.raises(UserError, match=r"no parameter 2\.weight of shape"):
        calibrator.prepare_network(image_network(4, 2))


@pytest.mark.parametrize("kind", TRAINED)
def test_one_case_is_not_enough_to_know_when_to_stop(kind):
    with pytest.raises(UserError, match="holds a single case"):
        fit_calibrator(make(kind), split_for(kind, num_cases=1))


def test_wrong_options_are_errors():
    for options in ({"max_epochs": 0}, {"patience": 0}, {"holdout": 1.0}, {"learning_rate": 0.0}, {"patch_voxels": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            TrainingOptions(**options)
    for cls in (AuxiliaryCalibrator, LocalTemperatureScaling):
        with pytest.raises(ValueError, match="kernel_size must be odd"):
            cls(3, 2, kernel_size=4)


def test_what_does_not_help_held_out_cases_is_not_kept():
    """Cases so small that a kernel learns them by heart, of logits that are calibrated already."""
    cases = [case._replace(logits=case.logits / 2.5) for case in split(4, shape=(6, 6))]
    calibrator = AuxiliaryCalibrator(3, 2)
    with pytest.warns(UserWarning, match="did not lower the NLL of those held out; it is left as the identity"):
        report = fit_calibrator(calibrator, cases)
    assert report.kept_identity
    assert report.nll_after == report.nll_before
    assert torch.equal(calibrator(cases[0].logits), cases[0].logits)
