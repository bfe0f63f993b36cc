"""What a run remembers: settings, cases, epochs; and what follows from it for every later run."""

import json
import shutil
import warnings

import pytest
import torch
import yaml

from medcalib.bundle.run import run
from medcalib.data import phantom_cases
from medcalib.errors import UserError
from medcalib.handlers.checkpoint import finished_epochs, training_state
from medcalib.handlers.training_record import read_record

NO_FIGURES = {"evaluation::num_case_diagrams": 0, "quality_control::calibrate_threshold": False}


def refused(bundle, message, mode="train", **settings):
    with pytest.raises(UserError, match=message) as caught:
        run(str(bundle), mode, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of the trained bundle, to be changed."""
    return shutil.copytree(trained, tmp_path / "bundles" / trained.name)


@pytest.fixture
def models(copy):
    return copy / "seed_12345" / "models"


def edit(path, change):
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


def test_the_record_names_settings_and_cases(trained, phantom_dir, tiny):
    record = read_record(trained / "seed_12345" / "models")
    split = phantom_cases(phantom_dir, 4, 2, 3)
    for part in ("training", "validation"):
        assert [case["case"] for case in record.cases[part]] == [case["case"] for case in split[part]]
        assert all(len(case["image"]) == len(case["label"]) == 16 for case in record.cases[part])
    expected = {"seed": 12345, "num_bins": 20, "val_interval": 1, "amp": False, "limit_cases": None}
    expected |= {"activation": "softmax", "inferer::overlap": 0.0, "data::cases::num_test": 3}
    expected |= {"train::trainer::max_epochs": 2}
    expected |= {"train::lr_scheduler::t_total": "$@max_epochs * len(@train::dataloader)"}
    assert expected.items() <= record.settings.items()
    assert not [id_ for id_, value in record.settings.items() if str(phantom_dir) in str(value)]
    assert record.overrides == tiny


SETTINGS = [
    ({"num_bins": 15}, "num_bins=20, not 15"),
    ({"activation": "sigmoid"}, "activation=softmax, not sigmoid"),
    ({"limit_cases": 1}, "limit_cases=None, not 1"),
    ({"amp": True}, "amp=False, not True"),
    ({"val_interval": 2}, "val_interval=1, not 2"),
    ({"inferer::overlap": 0.5}, r"inferer::overlap=0\.0, not 0\.5"),
    ({"validate::dataloader::batch_size": 2}, "validate::dataloader::batch_size=1, not 2"),
    ({"data::cases::num_training": 3}, "data::cases::num_training=4, not 3"),
    ({"data::augmentation::3::prob": 0.1}, r"data::augmentation::3::prob=0\.5, not 0\.1"),
]


@pytest.mark.parametrize(("setting", "message"), SETTINGS)
def test_a_finished_training_is_not_taken_for_one_with_other_settings(trained, tiny, setting, message):
    refused(trained, f"was started with {message}; go on with the old value", overrides=tiny | setting)


def test_a_training_does_not_resume_with_other_settings(copy, models, tiny):
    edit(models / "checkpoint.pt", lambda state: state.update(epoch=1, best_epoch=1))
    for setting, message in SETTINGS[:3]:
        refused(copy, f"was started with {message}", overrides=tiny | setting)
    assert finished_epochs(models) == 1


def test_what_does_not_decide_may_differ(trained, tiny, capsys):
    free = {"num_workers": 0, "train::dataset::cache_rate": 0.5, "device": "$torch.device('cpu')"}
    run(str(trained), "train", overrides=tiny | free)
    assert "finished 2 of 2 epochs already" in capsys.readouterr().out


def test_the_data_may_have_moved_but_not_changed(trained, tiny, phantom_dir, tmp_path):
    moved = shutil.copytree(phantom_dir, tmp_path / "elsewhere")
    run(str(trained), "train", overrides=tiny | {"data::dataset_dir": str(moved)})
    case = phantom_cases(moved, 4, 2, 3)["training"][0]
    shutil.copyfile(phantom_cases(moved, 4, 2, 3)["training"][1]["label"], case["label"])
    refused(
        trained,
        f"Case {case['case']}: its label is not what it was when",
        overrides=tiny | {"data::dataset_dir": str(moved)},
    )


def shifted(monkeypatch, test="training"):
    """Another division of the phantom's cases: what was trained on, or validated on, is tested."""
    import medcalib.data

    divide = phantom_cases

    def divided(*args, **kwargs):
        split = divide(*args, **kwargs)
        split["test"], split[test] = split[test], split["test"]
        if test == "validation":
            split["calibration"] = split["validation"]
        return split

    monkeypatch.setattr(medcalib.data, "phantom_cases", divided)


@pytest.mark.parametrize(("part", "how"), [("training", "trained on"), ("validation", "used to choose the epoch")])
def test_cases_that_were_seen_are_not_evaluated(copy, tiny, monkeypatch, phantom_dir, part, how):
    seen = [case["case"] for case in phantom_cases(phantom_dir, 4, 2, 3)[part]]
    shifted(monkeypatch, part)
    before = (copy / "seed_12345" / "evaluation" / "summary.json").read_bytes()
    message = refused(
        copy, f"{len(seen)} of the {len(seen)} cases of this run were {how}", "inference_eval", overrides=tiny
    )
    assert all(case in message for case in seen)
    assert (copy / "seed_12345" / "evaluation" / "summary.json").read_bytes() == before
    with pytest.warns(UserWarning, match=f"{how}.*{seen[0]}.*say nothing about those of new cases"):
        run(str(copy), "inference_pred", overrides=tiny | {"overlays::num_cases": 0})


def test_a_case_is_known_by_its_content_under_another_name(copy, tiny, phantom_dir, tmp_path):
    other = shutil.copytree(phantom_dir, tmp_path / "renamed")
    split = phantom_cases(other, 4, 2, 3)
    for key in ("image", "label"):
        shutil.copyfile(split["training"][2][key], split["test"][0][key])
    message = f"1 of the 3 cases .* trained on .*: {split['test'][0]['case']}; cases that are evaluated must be new"
    refused(copy, message, "inference_eval", overrides=tiny | {"data::dataset_dir": str(other)})


def test_thresholds_are_not_found_on_cases_that_were_trained_on(copy, tiny, phantom_dir, monkeypatch):
    """Another division may leave the test cases as they were, so they alone do not tell."""
    import medcalib.data

    seen = [case["case"] for case in phantom_cases(phantom_dir, 4, 2, 3)["training"]]

    def divided(*args, **kwargs):
        split = phantom_cases(*args, **kwargs)
        split["training"], split["validation"] = split["validation"], split["training"]
        return split | {"calibration": split["validation"]}

    monkeypatch.setattr(medcalib.data, "phantom_cases", divided)
    message = refused(copy, "4 of the 4 calibration cases.*thresholds.*trained on", "inference_eval", overrides=tiny)
    assert all(case in message for case in seen)
    assert "--quality_control::calibrate_threshold=false" in message
    run(str(copy), "inference_eval", overrides=tiny | NO_FIGURES)


def test_other_patients_of_the_same_ids_need_other_ids(copy, tiny, monkeypatch, tmp_path):
    """Files that were written anew look the same, so only the user can tell."""
    shifted(monkeypatch)
    other = tiny | {"data::dataset_dir": str(tmp_path / "phantom"), "data::cases::seed": 1}
    refused(
        copy,
        "4 of the 4 cases of this run have other files than cases that were trained on .*, but the same ids: "
        "phantom_001, .*; cases that are evaluated must be new, so if these are other patients, give them other ids",
        "inference_eval",
        overrides=other,
    )
    with pytest.warns(UserWarning, match="the same ids: phantom_001, .*if they are not other patients"):
        run(str(copy), "inference_pred", overrides=other | {"overlays::num_cases": 0})


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"network::init_filters": 8}, "network::init_filters=4, not 8"),
        ({"network_def::norm": "instance"}, "network_def::norm=batch, not instance"),
        ({"data::preprocessing::0::axcodes": "LPS"}, "data::preprocessing::0::axcodes=RAS, not LPS"),
        ({"data::class_names": ["background", "liver", "lesion"]}, "data::class_names.*=organ, not liver"),
        ({"data::label_map": {1: 2, 2: 1}}, "data::label_map"),
        ({"data::max_epochs": 3}, "a training of 2 epochs, but 3 are asked for"),
        ({"train::optimizer::lr": 0.1}, "train::optimizer::lr=0.002, not 0.1, and the option changes nothing here"),
        ({"data::augmentation::3::prob": 0.1}, "data::augmentation::3::prob=0.5, not 0.1, and the option changes"),
    ],
)
@pytest.mark.parametrize("mode", ["inference_eval", "inference_pred"])
def test_weights_are_not_used_with_what_they_were_not_trained_with(trained, tiny, mode, setting, message):
    refused(trained, message, mode, overrides=tiny | setting)


def test_settings_of_the_evaluation_are_free(copy, tiny):
    free = {"num_bins": 15, "inferer::overlap": 0.25, "include_background": True, "limit_cases": 1,
            "inferer::roi_size": [16, 16, 16]}  # fmt: skip
    run(str(copy), "inference_pred", overrides=tiny | free | {"overlays::num_cases": 0})
    run(str(copy), "inference_eval", overrides=tiny | NO_FIGURES | free)
    told = json.loads((copy / "seed_12345" / "evaluation" / "summary.json").read_text())["provenance"]
    assert told["num_bins"] == 15
    state = training_state(copy / "seed_12345" / "models")
    assert told["trainings"][0] | {"cases_digest": 0} == {
        "epochs": 2, "max_epochs": 2, "best_epoch": state.best_epoch, "chosen_by": "mean_dice", "cases_digest": 0,
    }  # fmt: skip
    assert len(told["trainings"][0]["cases_digest"]) == 64


def test_an_unfinished_training_is_not_used(copy, models, tiny, make_bundle):
    edit(models / "checkpoint.pt", lambda state: state.update(epoch=1, best_epoch=1))
    for mode in ("inference_eval", "inference_pred"):
        message = refused(
            copy, "has finished 1 of 2 epochs; go on with it: medcalib run --bundle", mode, overrides=tiny
        )
        assert f"{copy} --mode train --seed 12345 --data::dataset_dir={tiny['data::dataset_dir']}" in message
        assert "'--network::blocks_down=[1,1]'" in message
        # fewer epochs are asked for now, but the training was to have two
        refused(copy, "2 epochs, but 1 are asked for", mode, overrides=tiny | {"data::max_epochs": 1})
    sibling = make_bundle(copy.parent.parent, method="tta")
    refused(sibling, f"{copy.name}.*1 of 2 epochs", "inference_eval", overrides=tiny)
    run(str(copy), "inference_eval", overrides=tiny | NO_FIGURES, allow_unfinished=True)
    told = json.loads((copy / "seed_12345" / "evaluation" / "summary.json").read_text())["provenance"]
    assert told["allow_unfinished"] is True
    assert (told["trainings"][0]["epochs"], told["trainings"][0]["max_epochs"]) == (1, 2)


def test_lost_weights_do_not_end_in_a_circle(copy, models, tiny, capsys):
    last = torch.load(models / "checkpoint.pt", weights_only=True)["network"]
    (models / "model.pt").unlink()
    edit(models / "checkpoint.pt", lambda state: state.update(best_epoch=1))
    for mode in ("train", "inference_eval"):
        refused(
            copy,
            "models lacks model.pt although 2 epochs .*; put model.pt back, or remove .*models and",
            mode,
            overrides=tiny,
        )
    edit(models / "checkpoint.pt", lambda state: state.update(best_epoch=2))
    refused(
        copy,
        "model.pt is lost, but can be made again from checkpoint.pt: .*--mode train",
        "inference_eval",
        overrides=tiny,
    )
    run(str(copy), "train", overrides=tiny)
    model = torch.load(models / "model.pt", weights_only=True)
    assert all(torch.equal(model[name], last[name]) for name in last)
    (models / "checkpoint.pt").unlink()
    refused(copy, "holds model.pt, but not checkpoint.pt", overrides=tiny)
    refused(
        copy,
        "lacks checkpoint.pt, so nobody can tell whether its training is finished",
        "inference_eval",
        overrides=tiny,
    )
    run(str(copy), "inference_pred", overrides=tiny | {"overlays::num_cases": 0}, allow_unfinished=True)


def test_results_of_earlier_versions_are_used_with_a_warning(copy, models, tiny):
    (models / "training.json").write_text('{"seed": 12345, "train::optimizer::lr": 0.002}')
    edit(models / "checkpoint.pt", lambda state: [state.pop("max_epochs"), state.pop("chosen_by")])
    with pytest.warns(UserWarning, match="does not say on which cases its weights were trained"):
        run(str(copy), "inference_pred", overrides=tiny | {"overlays::num_cases": 0})
    with pytest.warns(UserWarning, match="begun without a record of its settings"):
        run(str(copy), "train", overrides=tiny)


def test_a_bundle_that_does_not_look_at_its_weights_is_named(copy, tiny):
    """As those were that earlier versions generated."""
    for name in ("weights", "inference_pred"):
        path = copy / "configs" / f"{name}.yaml"
        config = yaml.safe_load(path.read_text())
        kept = {id_: value for id_, value in config.items() if not id_.startswith("weights_check")}
        if name == "weights":
            kept["initialize"].remove("$@weights_check")
        path.write_text(yaml.safe_dump(kept, sort_keys=False))
    with pytest.warns(UserWarning, match=f"{copy.name} was generated by an earlier version.* nobody looks whether"):
        run(str(copy), "inference_pred", overrides=tiny | {"overlays::num_cases": 0}, allow_edited=True)


def test_weights_in_the_place_of_a_checkpoint_are_named(copy, models, tiny):
    shutil.copyfile(models / "model.pt", models / "checkpoint.pt")
    for mode in ("train", "inference_eval"):
        refused(copy, "checkpoint.pt holds something else than the state of a training", mode, overrides=tiny)


@pytest.mark.parametrize("damage", ["", "[]", '{"format": 2}', '{"format": 2, "digest": "0"}', "{"])
def test_a_damaged_record_is_named(copy, models, tiny, damage):
    (models / "training.json").write_text(damage)
    for mode in ("train", "inference_eval"):
        refused(copy, "training.json is damaged", mode, overrides=tiny)


def test_a_changed_record_is_named(copy, models, tiny):
    text = (models / "training.json").read_text()
    (models / "training.json").write_text(text.replace('"num_bins": 20', '"num_bins": 15'))
    refused(copy, "is damaged", "inference_eval", overrides=tiny)


def test_nothing_is_said_of_what_is_right(copy, tiny):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*cases|.*fitted|.*record")
        run(str(copy), "inference_pred", overrides=tiny | {"overlays::num_cases": 0})


def test_without_foreground_in_validation_the_last_epoch_is_kept(tmp_path, make_bundle, tiny, phantom_dir, capsys):
    import nibabel as nib
    import numpy as np

    data = shutil.copytree(phantom_dir, tmp_path / "phantom")
    for case in phantom_cases(data, 4, 2, 3)["validation"]:
        label = nib.load(case["label"])
        nib.save(nib.Nifti1Image(np.zeros(label.shape, np.uint8), label.affine), case["label"])
    bundle = make_bundle(tmp_path)
    with pytest.warns(UserWarning, match="mean_dice has no value on the validation cases"):
        run(str(bundle), "train", overrides=tiny | {"data::dataset_dir": str(data)})
    assert "val Dice -" in capsys.readouterr().err
    models = bundle / "seed_12345" / "models"
    assert training_state(models).chosen_by == "last epoch"
    model = torch.load(models / "model.pt", weights_only=True)
    last = torch.load(models / "checkpoint.pt", weights_only=True)["network"]
    assert all(torch.equal(model[name], last[name]) for name in last)
