"""Laws that every calibrator keeps."""

import json
import math

import pytest
import torch
from tests.calibrators.examples import KINDS, OF_LOGITS, WITH_KEEP_ARGMAX, make, split, split_for

from medcalib.calibrators import TrainingOptions, fit_calibrator
from medcalib.errors import UserError

QUICK = TrainingOptions(max_epochs=3)


def fit(calibrator, cases, **options):
    return fit_calibrator(calibrator, cases, training=QUICK, **options)


def some_logits(spatial_dims=2, num_classes=3, dtype=torch.float32):
    return split(1, num_classes, spatial_dims=spatial_dims)[0].logits.to(dtype)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_at_first_it_changes_nothing_bit_for_bit(kind, spatial_dims, activation):
    calibrator = make(kind, spatial_dims=spatial_dims, activation=activation)
    calibrator.mark_fitted()
    for dtype in (torch.float32, torch.float64):
        logits = some_logits(spatial_dims, dtype=dtype)
        calibrated = calibrator(logits)
        assert calibrated.dtype == dtype
        assert torch.equal(calibrated, logits)
    half = some_logits(spatial_dims, dtype=torch.float16)
    assert torch.equal(calibrator(half), half.float())


@pytest.mark.parametrize("kind", WITH_KEEP_ARGMAX)
def test_keeping_decisions_leaves_the_identity_alone(kind):
    calibrator = make(kind, keep_argmax=True)
    calibrator.mark_fitted()
    assert torch.equal(calibrator(some_logits()), some_logits())


@pytest.mark.parametrize("kind", KINDS)
def test_unfitted_it_is_an_error(kind):
    with pytest.raises(UserError, match=f"The {kind} calibrator is not fitted"):
        make(kind)(some_logits())


@pytest.mark.parametrize("kind", KINDS)
def test_another_number_of_classes_is_an_error(kind):
    calibrator = make(kind)
    calibrator.mark_fitted()
    with pytest.raises(UserError, match="made for 3 classes"):
        calibrator(some_logits(num_classes=4))


@pytest.mark.parametrize(
    ("activation", "num_classes", "spatial_dims"),
    [("softmax", 3, 2), ("softmax", 2, 3), ("sigmoid", 2, 2), ("sigmoid", 1, 3)],
)
@pytest.mark.parametrize("kind", KINDS)
def test_the_nll_never_rises(kind, activation, num_classes, spatial_dims):
    options = {"num_classes": num_classes, "activation": activation, "spatial_dims": spatial_dims}
    calibrator, cases = make(kind, **options), split_for(kind, **options)
    report = fit(calibrator, cases)
    assert report.nll_after < report.nll_before
    assert not report.kept_identity
    assert report.num_cases == 4
    assert report.num_voxels == 4 * math.prod(cases[0].logits.shape[2:])
    network = calibrator.prepare_network(calibrator._network[0]) if kind == "fine_tune" else None
    total = 0.0
    for case in cases:
        calibrated = calibrator(case.logits if network is None else network(case.image), case.image).double()
        if activation == "sigmoid":
            total += torch.nn.functional.binary_cross_entropy_with_logits(calibrated, case.labels.double()).item()
        else:
            total += torch.nn.functional.cross_entropy(calibrated, case.labels[:, 0].long()).item()
    assert report.nll_after == pytest.approx(total / len(cases), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_fitting_twice_gives_the_same(kind):
    first, second = make(kind), make(kind)
    reports = [fit(calibrator, split_for(kind)) for calibrator in (first, second, second)]
    assert reports[0] == reports[1] == reports[2]
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


@pytest.mark.parametrize("kind", KINDS)
def test_the_report_is_plain_json(kind):
    report = fit(make(kind), split_for(kind))
    written = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert written["kind"] == kind
    assert written["nll_after"] == report.nll_after


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_its_cases_one_by_one(kind):
    calibrator = make(kind)
    fit(calibrator, split_for(kind))
    one, other = (split(2)[index].logits for index in range(2))
    together = calibrator(torch.cat([one, other]))
    torch.testing.assert_close(together, torch.cat([calibrator(one), calibrator(other)]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["temperature_scaling", "vector_scaling", "platt_scaling", "isotonic"])
def test_a_split_of_batches_is_one_of_cases(kind):
    cases = split()
    batches = [
        (torch.cat([a.logits, b.logits]), torch.cat([a.labels, b.labels]))
        for a, b in (cases[:2], cases[2:])
    ]  # fmt: skip
    one, other = make(kind), make(kind)
    report, batched = fit(one, cases), fit(other, batches)
    assert batched.num_cases == report.num_cases
    assert batched.nll_after == pytest.approx(report.nll_after, rel=1e-9)
    assert batched.dice_before == pytest.approx(report.dice_before)
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["temperature_scaling", "vector_scaling", "isotonic", "auxiliary"])
def test_labels_equal_their_one_hot_target(kind):
    cases = split()
    targets = [case._replace(labels=(case.labels == torch.arange(3).reshape(1, 3, 1, 1)).float()) for case in cases]
    one, other = make(kind), make(kind)
    report, targeted = fit(one, cases), fit(other, targets)
    assert targeted.nll_after == pytest.approx(report.nll_after, rel=1e-6)
    assert targeted.dice_before == pytest.approx(report.dice_before)
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", OF_LOGITS)
def test_voxels_outside_the_mask_do_not_count(kind):
    cases = split(shape=(16, 16))
    spoilt = []
    for case in cases:
        mask = torch.zeros_like(case.labels)
        mask[..., :12, :] = 1
        labels = case.labels.clone()
        labels[..., 12:, :] = 9
        spoilt.append(case._replace(labels=labels, mask=mask))
    other = [case._replace(labels=case.labels.where(case.mask > 0, case.labels.new_zeros(()))) for case in spoilt]
    one, two = make(kind), make(kind)
    report = fit(one, spoilt)
    assert report.num_voxels == 4 * 12 * 16
    assert report == fit(two, other)
    assert report.num_voxels < fit(make(kind), cases).num_voxels
    torch.testing.assert_close(one.state_dict(), two.state_dict())


@pytest.mark.parametrize("kind", WITH_KEEP_ARGMAX)
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_keep_argmax_keeps_every_decision(kind, activation):
    # A channel that is far too high, so that every calibrator with a bias wants to move decisions.
    cases = []
    for case in split(activation=activation):
        logits = case.logits.clone()
        logits[:, 2] += 3
        cases.append(case._replace(logits=logits))
    free, kept = make(kind, activation=activation), make(kind, activation=activation, keep_argmax=True)
    reports = [fit(calibrator, cases) for calibrator in (free, kept)]
    assert reports[0].decisions_changed > 0.05
    assert reports[1].decisions_changed == 0
    assert reports[1].dice_after == reports[1].dice_before
    assert reports[0].nll_after < reports[1].nll_after < reports[1].nll_before
    logits = cases[0].logits
    if activation == "softmax":
        assert torch.equal(kept(logits).softmax(1).argmax(1), logits.argmax(1))
    else:
        assert torch.equal(kept(logits).sigmoid() >= 0.5, logits >= 0)


@pytest.mark.parametrize("kind", ["temperature_scaling", "local_temperature_scaling"])
def test_temperatures_keep_the_argmax(kind):
    calibrator = make(kind)
    report = fit(calibrator, split())
    assert report.decisions_changed == 0
    logits = some_logits()
    assert torch.equal(calibrator(logits).argmax(1), logits.argmax(1))


@pytest.mark.parametrize("kind", KINDS)
def test_it_survives_export(kind):
    calibrator = make(kind)
    fit(calibrator, split_for(kind))
    calibrator.requires_grad_(False)
    logits = some_logits()
    wanted = calibrator(logits)
    assert kind == "fine_tune" or not torch.equal(wanted, logits)
    exported = {
        "script": torch.jit.script(calibrator),
        "trace": torch.jit.trace(calibrator, logits),
        "export": torch.export.export(calibrator, (logits,)).module(),
    }
    for module in exported.values():
        torch.testing.assert_close(module(logits), wanted)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "options"),
    [("temperature_scaling", {}), ("isotonic", {"keep_argmax": True}), ("local_temperature_scaling", {})],
)
def test_it_survives_compilation(kind, options):
    calibrator = make(kind, **options)
    fit(calibrator, split())
    logits = some_logits()
    try:
        compiled = torch.compile(calibrator, fullgraph=True)(logits)
    except (torch._dynamo.exc.BackendCompilerFailed, torch._inductor.exc.InductorError) as error:
        pytest.skip(f"torch.compile finds no compiler on this machine: {error}")
    torch.testing.assert_close(compiled, calibrator(logits))


@pytest.mark.parametrize("kind", OF_LOGITS)
def test_half_precision_logits_are_fitted_as_they_are(kind):
    halves = [case._replace(logits=case.logits.half()) for case in split()]
    widened = [case._replace(logits=case.logits.float()) for case in halves]
    one, other = make(kind), make(kind)
    assert fit(one, halves) == fit(other, widened)
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)
    assert one(halves[0].logits).dtype == torch.float32


@pytest.mark.parametrize("kind", OF_LOGITS)
def test_logits_of_inference_mode_can_be_fitted(kind):
    with torch.inference_mode():
        cases = [case._replace(logits=case.logits * 1.0) for case in split()]
    assert fit(make(kind), cases).nll_after == pytest.approx(fit(make(kind), split()).nll_after, rel=1e-6)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("kind", OF_LOGITS)
def test_a_fit_on_cuda_equals_one_on_the_cpu(kind):
    on_cpu, on_cuda = make(kind), make(kind).cuda()
    report, other = fit(on_cpu, split(), max_voxels=1000), fit(on_cuda, split(), max_voxels=1000)
    assert other.nll_after == pytest.approx(report.nll_after, rel=1e-3)
    logits = some_logits()
    torch.testing.assert_close(on_cuda(logits.cuda()).cpu(), on_cpu(logits), rtol=1e-2, atol=1e-2)
