"""Calibrators written to files and read back."""

import json

import pytest
import torch
from tests.calibrators.examples import KINDS, make, split, split_for

from medcalib.calibrators import (
    TemperatureScaling,
    TrainingOptions,
    fit_calibrator,
    load_calibrator,
    read_calibrator,
    save_calibrator,
)
from medcalib.errors import UserError
from medcalib.networks import weights_digest


@pytest.fixture
def saved(tmp_path):
    calibrator = TemperatureScaling(3)
    report = fit_calibrator(calibrator, split())
    path = tmp_path / "models" / "calibrator.pt"
    save_calibrator(path, calibrator, report, split_digest="abc", details={"weights": "0123"})
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_is_what_was_written(kind, tmp_path):
    calibrator, path = make(kind), tmp_path / "calibrator.pt"
    report = fit_calibrator(calibrator, split_for(kind), training=TrainingOptions(max_epochs=2))
    save_calibrator(path, calibrator, report, split_digest="abc")
    content = torch.load(path, weights_only=True)
    assert content["kind"] == kind
    assert content["split_digest"] == "abc"
    assert content["report"] == report.to_dict()
    fresh = make(kind)
    assert load_calibrator(path, fresh) is fresh
    assert fresh.is_fitted
    logits = split(1)[0].logits
    assert torch.equal(fresh(logits), calibrator(logits))
    if kind == "fine_tune":
        network = fresh.prepare_network(fresh._network[0])
        torch.testing.assert_close(network[2].weight, calibrator.tuned[0], rtol=0, atol=0)
    assert [file.name for file in tmp_path.iterdir()] == ["calibrator.pt"]


def test_the_content_is_plain(saved):
    content = read_calibrator(saved)
    assert content["details"] == {"weights": "0123"}
    assert content["settings"] == {"num_classes": 3, "activation": "softmax", "keep_argmax": False}
    json.dumps({key: value for key, value in content.items() if key != "state"}, allow_nan=False)


def test_the_file_is_independent_of_later_fits(saved):
    before = read_calibrator(saved)["state"]["log_temperature"].clone()
    calibrator = load_calibrator(saved, TemperatureScaling(3))
    with torch.no_grad():
        calibrator.log_temperature.fill_(5)
    assert torch.equal(read_calibrator(saved)["state"]["log_temperature"], before)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (make("temperature_scaling", num_classes=4), "num_classes 3, but num_classes 4"),
        (make("temperature_scaling", activation="sigmoid"), "activation softmax, but activation sigmoid"),
        (make("vector_scaling"), "holds a temperature_scaling calibrator, but vector_scaling"),
    ],
)
def test_a_file_of_another_calibrator_is_an_error(saved, other, message):
    with pytest.raises(UserError, match=message):
        load_calibrator(saved, other)
    assert not other.is_fitted


def test_a_file_of_other_settings_is_an_error(tmp_path):
    path = tmp_path / "calibrator.pt"
    calibrator = make("auxiliary")
    report = fit_calibrator(calibrator, split(), training=TrainingOptions(max_epochs=1))
    save_calibrator(path, calibrator, report, "abc")
    with pytest.raises(UserError, match="kernel_size 5, but kernel_size 3"):
        load_calibrator(path, make("auxiliary", kernel_size=3))
    with pytest.raises(UserError, match="spatial_dims 2, but spatial_dims 3"):
        load_calibrator(path, make("auxiliary", spatial_dims=3))
    with pytest.raises(UserError, match="keep_argmax False, but keep_argmax True"):
        load_calibrator(path, make("auxiliary", keep_argmax=True))


def test_a_file_of_other_weights_is_an_error(tmp_path):
    network, path = torch.nn.Conv2d(1, 3, 1), tmp_path / "calibrator.pt"
    calibrator = TemperatureScaling(3)
    report = fit_calibrator(calibrator, split())
    save_calibrator(path, calibrator, report, "abc", details={"weights_digest": weights_digest(network.state_dict())})
    assert load_calibrator(path, TemperatureScaling(3), network).is_fitted
    torch.nn.init.zeros_(network.weight)
    with pytest.raises(UserError, match="fitted on other weights"):
        load_calibrator(path, TemperatureScaling(3), network)


def test_missing_and_damaged_files_are_errors(saved, tmp_path):
    with pytest.raises(UserError, match=r"none\.pt does not exist: run --mode train"):
        load_calibrator(tmp_path / "none.pt", TemperatureScaling(3))
    content = saved.read_bytes()
    for wrong in (content[: len(content) // 2], b"", b"not a checkpoint"):
        saved.write_bytes(wrong)
        with pytest.raises(UserError, match="not a readable calibrator"):
            load_calibrator(saved, TemperatureScaling(3))
    torch.save({"network": torch.zeros(1)}, saved)
    with pytest.raises(UserError, match="is not a calibrator"):
        load_calibrator(saved, TemperatureScaling(3))


def test_a_state_that_does_not_fit_is_an_error(saved):
    content = torch.load(saved, weights_only=True)
    content["state"]["extra"] = torch.zeros(1)
    torch.save(content, saved)
    with pytest.raises(UserError, match="does not fit the temperature_scaling calibrator"):
        load_calibrator(saved, TemperatureScaling(3))


def test_an_unfitted_calibrator_is_not_written(saved):
    report = fit_calibrator(TemperatureScaling(3), split())
    before = saved.read_bytes()
    with pytest.raises(UserError, match="not fitted, so it cannot be saved"):
        save_calibrator(saved, TemperatureScaling(3), report, "abc")
    assert saved.read_bytes() == before


def test_an_interrupted_write_leaves_the_old_file(saved, monkeypatch):
    before = saved.read_bytes()

    def fail(_file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    calibrator = TemperatureScaling(3)
    report = fit_calibrator(calibrator, split())
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)"):
        save_calibrator(saved, calibrator, report, "abc")
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]
