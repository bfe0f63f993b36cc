"""A training that begins with the weights of another one."""

import json
import shutil

import pytest
import torch

from medcalib.bundle.run import run
from medcalib.errors import UserError
from medcalib.files.tensors import save_tensors
from medcalib.handlers.training_record import read_record

RESULTS = "seed_12345"
NO_FIGURES = {"evaluation::num_case_diagrams": 0, "quality_control::calibrate_threshold": False}
# a learning rate of as good as nothing, so that what a training began with is what it ends with
STILL = {"train::optimizer::lr": 1e-30, "train::lr_scheduler::end_lr": 1e-30, "data::max_epochs": 1}


def state(bundle, name="model.pt"):
    return torch.load(bundle / RESULTS / "models" / name, weights_only=True)


def parameters(found):
    """Without the statistics of batch normalisation, which a step of nothing changes, too."""
    return {name: value for name, value in found.items() if "running" not in name and "num_batches" not in name}


def equal(one, other):
    one, other = parameters(one), parameters(other)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def refused(bundle, message, **settings):
    with pytest.raises(UserError, match=message) as caught:
        run(str(bundle), "train", **settings)
    assert "\n" not in str(caught.value)


@pytest.fixture
def source(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "source" / trained.name)


@pytest.fixture
def other(tmp_path, make_bundle):
    """A bundle with another loss."""
    return make_bundle(tmp_path, loss="baseline_ce")


@pytest.mark.slow
def test_all_weights_of_the_same_architecture(source, other, tiny, capsys, stopped_in_epoch):
    settings = tiny | STILL | {"data::max_epochs": 2}
    with stopped_in_epoch(2):
        run(str(other), "train", overrides=settings, initial_weights=str(source))
    assert f"Beginning with the weights of {source / RESULTS / 'models' / 'model.pt'}: " in capsys.readouterr().out
    assert equal(state(other), state(source))
    record = read_record(other / RESULTS / "models")
    assert record.starts_from["bundle"] == source.name
    assert record.starts_from["replaced"] == record.starts_from["left_out"] == []
    assert record.starts_from["cases"] == read_record(source / RESULTS / "models").cases
    before = state(other, "checkpoint.pt")["network"]

    # stopped, it goes on without the file, but only with the same option
    refused(other, "began with --initial_weights=.*; go on with this option", overrides=settings)
    elsewhere = source.with_name("elsewhere")
    source.rename(elsewhere)
    refused(other, "with other weights than .*/none.pt", overrides=settings, initial_weights=f"{elsewhere}/none.pt")
    with pytest.raises(UserError, match=f"go on with it: .*--initial_weights={source}"):
        run(str(other), "inference_eval", overrides=settings | NO_FIGURES)
    run(str(other), "train", overrides=settings, initial_weights=str(source))
    assert "Resuming after epoch 1 of 2" in capsys.readouterr().out
    assert equal(state(other, "checkpoint.pt")["network"], before)
    # the same weights under another name are the same weights
    run(str(other), "train", overrides=settings, initial_weights=str(elsewhere / RESULTS / "models" / "model.pt"))
    elsewhere.rename(source)
    changed = {name: value + 1 for name, value in state(source).items()}
    save_tensors(changed, source / RESULTS / "models" / "model.pt")
    refused(other, "other weights than those that are there now", overrides=settings, initial_weights=str(source))

    run(str(other), "inference_eval", overrides=settings | NO_FIGURES)
    told = json.loads((other / RESULTS / "evaluation" / "summary.json").read_text())["provenance"]["trainings"][0]
    assert told["starts_from"]["weights_digest"] == record.starts_from["weights_digest"]
    assert len(told["starts_from"]["cases_digest"]) == 64


def test_a_head_for_other_classes_is_new(source, other, tiny, capsys):
    labels = tiny | STILL | {"activation": "softmax", "data::class_names": ["background", "organ", "lesion", "other"]}
    run(str(other), "train", overrides=labels, initial_weights=str(source))
    assert "; new at the output: up_layers.0.head (4 channels)" in capsys.readouterr().out
    record = read_record(other / RESULTS / "models").starts_from
    assert "up_layers.0.head (4 channels)" in record["replaced"]
    one, two = parameters(state(source)), parameters(state(other))
    assert all(torch.equal(two[name], one[name]) for name in one if ".head." not in name)
    assert two["up_layers.0.head.weight"].shape[0] == 4


@pytest.mark.slow
def test_a_run_of_seconds_and_siblings(source, tiny, tmp_path, make_bundle, capsys):
    """Whichever training would begin with random weights begins with these."""
    scaled = make_bundle(tmp_path, method="mc_dropout_center", loss="baseline_ce")
    few = tiny | STILL | {"max_epochs": 1, "first_stage::max_epochs": 1, "first_stage::train::optimizer::lr": 1e-30}
    few |= {"method::sampler::num_members": 2}
    run(str(scaled), "train", overrides=few, debug=True, initial_weights=str(source / RESULTS))
    (first,) = (path for path in scaled.parent.glob("*_deterministic_*"))
    for bundle in (first, scaled):
        weights = torch.load(bundle / f"{RESULTS}_debug" / "models" / "model.pt", weights_only=True)
        assert equal(weights, state(source))
    of_second = read_record(scaled / f"{RESULTS}_debug" / "models").starts_from
    assert of_second["bundle"] == first.name
    seen = {case["case"] for case in of_second["cases"]["training"]}
    assert seen >= {case["case"] for case in read_record(source / RESULTS / "models").cases["training"]}


def test_cases_that_the_weights_have_seen(source, other, tiny, monkeypatch, phantom_dir):
    import medcalib.data
    from medcalib.data import phantom_cases

    def divided(*args, **kwargs):
        split = phantom_cases(*args, **kwargs)
        return split | {"test": split["training"][:2], "training": split["training"][2:] + split["test"]}

    with monkeypatch.context() as patch:
        patch.setattr(medcalib.data, "phantom_cases", divided)
        seen = [case["case"] for case in divided(phantom_dir, 4, 2, 3)["test"]]
        refused(
            other,
            f"2 of the 2 test cases were trained on in the training of .*: {', '.join(seen)}; cases that are evaluated",
            overrides=tiny | STILL,
            initial_weights=str(source),
        )
        assert not (other / RESULTS).exists()
    run(str(other), "train", overrides=tiny | STILL, initial_weights=str(source))
    # what it trained on itself are other cases, so that only those of before are met
    path = other / RESULTS / "models"
    record = read_record(path)
    record.cases["training"].clear()
    from medcalib.handlers.training_record import write_record

    write_record(path, record)
    monkeypatch.setattr(medcalib.data, "phantom_cases", divided)
    with pytest.raises(UserError, match="2 of the 2 cases .* trained on in the training from whose weights that of"):
        run(str(other), "inference_eval", overrides=tiny | STILL | NO_FIGURES)


def test_weights_of_nobody_knows_whom(source, other, tiny, tmp_path):
    save_tensors({"state_dict": state(source)}, tmp_path / "weights.pt")
    with pytest.warns(UserWarning, match=r"does not say on which cases the weights of weights\.pt were trained"):
        run(str(other), "train", overrides=tiny | STILL, initial_weights=str(tmp_path / "weights.pt"))
    assert equal(state(other), state(source))
    assert read_record(other / RESULTS / "models").starts_from["cases"] is None


@pytest.mark.parametrize(
    ("given", "settings", "message"),
    [
        ("{tmp}/none.pt", {}, "none.pt does not exist; name a file or a bundle"),
        ("phantom_baseline", {}, "--initial_weights: there is no bundle 'phantom_baseline'"),
        ("{source}", {"network::init_filters": 8}, "holds the weights of another architecture|None of the"),
        ("{source}/configs/common.yaml", {}, "is not a readable file of weights"),
        ("{other}", {}, "--initial_weights: .* is not trained, not with seed 12345; train it first"),
    ],
)
def test_what_is_no_beginning_leaves_nothing(source, other, tiny, tmp_path, given, settings, message):
    given = given.format(tmp=tmp_path, source=source, other=other)
    refused(other, message, overrides=tiny | settings, initial_weights=given)
    assert not (other / RESULTS).exists()


def test_a_training_that_began_with_random_weights(trained, source, tiny):
    refused(trained, "began without --initial_weights; leave the option out", overrides=tiny,
            initial_weights=str(source))  # fmt: skip
    with pytest.raises(UserError, match="--initial_weights is for --mode train"):
        run(str(trained), "inference_eval", overrides=tiny, initial_weights=str(source))


def test_a_source_that_is_not_finished_or_has_several_seeds(source, other, tiny):
    checkpoint = source / RESULTS / "models" / "checkpoint.pt"
    content = torch.load(checkpoint, weights_only=True)
    save_tensors(content | {"epoch": 1}, checkpoint)
    refused(other, "has finished 1 of 2 epochs; finish it, or name .*model.pt", overrides=tiny,
            initial_weights=str(source))  # fmt: skip
    save_tensors(content, checkpoint)
    (source / RESULTS).rename(source / "seed_1")
    shutil.copytree(source / "seed_1", source / "seed_2")
    refused(other, "is trained with seed_1, seed_2, not with seed 12345; name one of them, such as .*seed_1",
            overrides=tiny, initial_weights=str(source))  # fmt: skip
