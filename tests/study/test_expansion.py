"""From a study to its runs: as few as possible, and none that mixes results."""

from collections import Counter
from pathlib import Path

import pytest

from medcalib.bundle.layout import Mode
from medcalib.errors import UserError
from medcalib.study.expansion import expand
from medcalib.study.study_file import Study

BUNDLES = Path("bundles")


def plan(losses=("baseline_ce",), methods=("deterministic",), predictions=0, data="phantom", **keys):
    return expand(Study("s", data, tuple(losses), tuple(methods), predictions=predictions, **keys), BUNDLES)


def numbers(found):
    """Trainings, fits, evaluations."""
    runs = found.runs.values()
    trainings = sum(run.trains_network for run in runs)
    modes = Counter(run.mode for run in runs)
    return trainings, modes[Mode.TRAIN] - trainings, modes[Mode.INFERENCE_EVAL]


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        (("deterministic", "temperature_scaling"), (1, 1, 2)),
        (("deterministic", "tta", "isotonic", "tta+isotonic"), (1, 2, 4)),
        (("tta", "temperature_scaling"), (1, 1, 2)),
        (("mc_dropout+temperature_scaling", "mc_dropout+isotonic"), (1, 2, 2)),
        (("deterministic", "deep_ensemble"), (5, 0, 2)),
        (("deterministic", "mc_dropout_center", "mc_dropout_decoder"), (3, 0, 3)),
        (("multi_head", "layer_ensemble"), (2, 0, 2)),
    ],
)
def test_a_training_that_several_share_happens_once(methods, expected):
    assert numbers(plan(methods=methods)) == expected


def test_losses_and_seeds_multiply():
    found = plan(("baseline_ce", "focal", "mbls"), ("deterministic", "temperature_scaling"), seeds=(1, 2))
    assert numbers(found) == (6, 6, 12)
    assert all(len(evaluated.evaluations) == 2 for evaluated in found.evaluated.values())


def test_what_is_compared_besides_the_grid_is_run_once():
    also = ((None, "focal", "tta"), (None, "baseline_ce", "softl1ace_tuning"))
    found = plan(("baseline_ce", "focal"), also=also, seeds=(1, 2), reference={"loss": "focal", "method": "tta"})
    # the tuning is a training, which starts from that of the grid
    assert numbers(found) == (6, 0, 8)
    assert list(found.evaluated) == [
        "baseline_ce / deterministic", "focal / deterministic", "focal / tta", "baseline_ce / softl1ace_tuning",
    ]  # fmt: skip
    assert found.reference == "focal / tta"


def test_a_run_stands_behind_those_that_it_needs():
    found = plan(methods=("tta_deep_ensemble", "mc_dropout_center+temperature_scaling", "deterministic"))
    seen = set()
    for run in found.runs.values():
        assert seen >= set(run.needs)
        seen.add(run.id)
    (center,) = (run for run in found.runs.values() if run.trains_network and "center" in run.id)
    assert [found.runs[id_].fragments["method"] for id_ in center.needs] == ["deterministic"]


def test_the_order_of_the_file_changes_no_run():
    methods = ("deterministic", "tta", "mc_dropout+temperature_scaling")
    overrides = {"data::max_epochs": 3, "num_workers": 2}
    first = plan(methods=methods, seeds=(1, 2), overrides=overrides, predictions=2)
    for order in (methods[::-1], methods[1:] + methods[:1]):
        other = plan(methods=order, seeds=(2, 1), overrides=dict(reversed(overrides.items())), predictions=2)
        assert other.runs == first.runs


class TestSweep:
    def test_of_what_is_used_for_inference_alone(self):
        found = plan(methods=("mc_dropout", "deterministic"), sweep={"method::sampler::num_members": (2, 3, 20)})
        assert numbers(found) == (2, 0, 4)
        folders = {run.output_dir for run in found.runs.values() if run.mode is Mode.INFERENCE_EVAL}
        assert len(folders) == 4, "results of different settings lie apart"

    def test_of_heads_that_validation_uses_too(self):
        found = plan(methods=("layer_ensemble",), sweep={"method::sampler::skip_heads": (0, 1, 2, 3)})
        assert numbers(found) == (1, 0, 4)

    def test_of_a_weight_of_a_loss(self):
        found = plan(
            ("softl1ace_dice_ce", "baseline_ce"),
            ("deterministic", "temperature_scaling"),
            sweep={"loss::function::ace_weight": (0.1, 0.33, 1.0)},
        )
        assert numbers(found) == (4, 4, 8)
        bundles = {run.bundle for run in found.runs.values() if run.trains_network}
        assert len(bundles) == 4
        assert BUNDLES in {bundle.parent for bundle in bundles}, "0.33 is the weight of the loss as it is"

    def test_of_bins_reaches_the_loss_and_not_the_evaluation(self):
        found = plan(("softl1ace_dice_ce", "baseline_ce"), sweep={"num_bins": (5, 10)}, overrides={"num_bins": 15})
        assert list(found.evaluated) == [
            "softl1ace_dice_ce / num_bins=5", "softl1ace_dice_ce / num_bins=10", "baseline_ce",
        ]  # fmt: skip
        assert {run.overrides["num_bins"] for run in found.runs.values() if run.mode is not Mode.TRAIN} == {15}
        trained = {run.fragments["loss"]: [] for run in found.runs.values()}
        for run in found.runs.values():
            if run.trains_network:
                trained[run.fragments["loss"]].append(run.overrides["num_bins"])
        assert trained == {"softl1ace_dice_ce": [5, 10], "baseline_ce": [15]}

    def test_of_two_ids_is_their_product(self):
        found = plan(
            methods=("mc_dropout",), sweep={"method_network::p": (0.1, 0.2), "method::sampler::num_members": (2, 3, 4)}
        )
        assert numbers(found) == (2, 0, 6)
        assert found.sweep["method_network::p"]["p=0.1 / num_members=3"] == 0.1

    def test_of_what_a_fit_uses_and_the_training_does_not(self):
        found = plan(methods=("mc_dropout+temperature_scaling",), sweep={"method::sampler::num_members": (2, 3)})
        assert numbers(found) == (1, 2, 2)
        (training,) = (run for run in found.runs.values() if run.trains_network)
        for place in found.places.values():
            if "temperature" in place.folder.name:
                assert place.weights_from == (training.bundle,)

    def test_of_the_number_of_networks(self):
        found = plan(methods=("deep_ensemble",), sweep={"method::num_networks": (2, 4)})
        assert numbers(found) == (4, 0, 2)


class TestOverrides:
    def test_those_of_a_training_have_bundles_of_their_own(self):
        plain, own = (
            plan(methods=("tta", "isotonic")),
            plan(methods=("tta", "isotonic"), overrides={"data::max_epochs": 3}),
        )
        assert {run.bundle.parent for run in plain.runs.values()} == {BUNDLES}
        (parent,) = {run.bundle.parent for run in own.runs.values()}
        assert parent.parent == BUNDLES
        assert {run.epochs for run in own.runs.values() if run.trains_network} == {3}

    def test_those_of_places_change_nothing_but_are_given(self):
        found = plan(methods=("tta", "isotonic"), overrides={"data::dataset_dir": "/x", "device": "cpu"})
        assert {run.bundle.parent for run in found.runs.values()} == {BUNDLES}
        assert all(run.overrides["data::dataset_dir"] == "/x" for run in found.runs.values())
        without = plan(methods=("tta", "isotonic"))
        assert [run.digest for run in found.runs.values()] == [run.digest for run in without.runs.values()]

    def test_one_that_some_bundles_have_reaches_these(self):
        found = plan(methods=("deterministic", "deep_ensemble"), overrides={"method::num_networks": 2})
        assert numbers(found) == (2, 0, 2)

    def test_each_stage_has_its_own(self):
        found = plan(methods=("mc_dropout_center", "deterministic"), overrides={"train::optimizer::lr": 0.01})
        given = [run.overrides.get("train::optimizer::lr") for run in found.runs.values() if run.trains_network]
        assert sorted(given, key=str) == [0.01, 0.01, None], "the first stage is that of the bundle alone"
        first = {"first_stage::train::optimizer::lr": 0.01}
        found = plan(methods=("mc_dropout_center", "deterministic"), overrides=first)
        assert numbers(found) == (3, 0, 2)

    def test_predictions_are_limited_and_evaluations_are_not(self):
        found = plan(methods=("tta", "isotonic"), seeds=(5, 4), predictions=2)
        limits = {(run.mode, run.seed, run.overrides.get("limit_cases")) for run in found.runs.values()}
        assert (Mode.INFERENCE_PRED, 4, 2) in limits
        assert {limit for mode, _, limit in limits if mode is not Mode.INFERENCE_PRED} == {None}
        assert {seed for mode, seed, _ in limits if mode is Mode.INFERENCE_PRED} == {4}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"overrides": {"num_binz": 5}}, "The study s, overrides: .*num_binz does not exist.*did you mean num_bins"),
        ({"overrides": {"num_bins": "many"}}, "--num_bins must be a whole number, not .many."),
        ({"sweep": {"method::skip_head": [1]}}, "The study s, sweep: .*does not exist"),
        ({"overrides": {"first_stage::train::optimizer::lr": 0.1}}, "no training of the study has two stages"),
        ({"reference": "focal"}, "'focal', is not in its grid"),
        ({"methods": ("deterministic",)}, "holds deterministic alone, so there is nothing to compare"),
        ({"methods": ("layer_ensemble+fine_tune", "tta")}, "needs one that returns a single prediction"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(keys, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        plan(**{"methods": ("deterministic", "tta"), **keys})
    assert not list(tmp_path.iterdir())


def test_a_classification_study():
    found = plan(data="phantom_cells", methods=("deterministic", "temperature_scaling", "mc_dropout"))
    assert numbers(found) == (2, 1, 3)


def test_two_runs_that_write_to_one_folder_follow_one_another():
    found = plan(methods=("deterministic", "temperature_scaling"), seeds=(1, 2), predictions=1)
    for run in found.runs.values():
        if run.mode is Mode.INFERENCE_PRED:
            assert found.runs[run.after].output_dir == run.output_dir
    others = {}
    for run in found.runs.values():
        before = [found.runs[id_] for id_ in (*run.needs, run.after) if id_]
        first = others.setdefault(run.output_dir, run)
        assert first is run or run.output_dir in {one.output_dir for one in before}
        others[run.output_dir] = run


NOISE = {"data::corruption": ("noise", "blur"), "data::corruption_level": (1, 5)}


def test_corrupted_images_need_no_training_of_their_own_and_stand_beside_images_as_they_are():
    methods = ("deterministic", "temperature_scaling")
    found = plan(methods=methods, sweep=NOISE, predictions=4)
    assert numbers(found) == (1, 1, 2 * (1 + 4))
    assert sum(run.mode is Mode.INFERENCE_PRED for run in found.runs.values()) == 2
    assert found.reference == "deterministic"
    shifts = {name: one.shift for name, one in found.evaluated.items()}
    assert [name for name, shift in shifts.items() if shift is None] == list(methods)
    assert shifts["deterministic / corruption=blur / corruption_level=5"] == ("deterministic", "blur", 5)
    for one in found.evaluated.values():
        (run,) = (found.runs[id_] for ids in one.evaluations.values() for id_ in ids)
        given = {id_: value for id_, value in run.overrides.items() if id_.startswith("data::corruption")}
        if one.shift is None:
            assert not given
            assert run.output_dir.name == "seed_12345"
        else:
            assert given == {"data::corruption": one.shift.kind, "data::corruption_level": one.shift.level}
            assert run.output_dir == run.bundle / "seed_12345" / "shifted" / f"{one.shift.kind}_{one.shift.level}"
            assert "output_dir" not in run.overrides
    folders = [(run.mode, run.output_dir) for run in found.runs.values()]
    assert len(set(folders)) == len(folders)


def test_a_corruption_without_a_level_has_that_of_the_overrides_or_of_the_bundle():
    for overrides, level in (({}, 3), ({"data::corruption_level": 2}, 2)):
        found = plan(methods=("deterministic", "tta"), sweep={"data::corruption": ("noise",)}, overrides=overrides)
        assert {one.shift.level for one in found.evaluated.values() if one.shift} == {level}


def test_other_settings_of_predictions_keep_folders_of_their_own_for_corrupted_images():
    sweep = {"method::sampler::num_members": (2, 3), **NOISE}
    found = plan(methods=("mc_dropout", "deterministic"), sweep=sweep)
    assert numbers(found) == (2, 0, 3 * 5)
    shifts = {one.shift.of for one in found.evaluated.values() if one.shift}
    assert shifts == {"mc_dropout / num_members=2", "mc_dropout / num_members=3", "deterministic"}
    folders = [run.output_dir for run in found.runs.values() if run.mode is Mode.INFERENCE_EVAL]
    assert len(set(folders)) == len(folders)


def test_all_can_be_corrupted_alike():
    found = plan(methods=("deterministic", "tta"), overrides={"data::corruption": "blur"})
    assert list(found.evaluated) == ["deterministic", "tta"]
    assert all(one.shift is None for one in found.evaluated.values())
    assert all("blur_3" in str(run.output_dir) for run in found.runs.values() if run.mode is not Mode.TRAIN)
    assert all("blur" not in str(run.output_dir) for run in found.runs.values() if run.mode is Mode.TRAIN)


@pytest.mark.parametrize(
    ("sweep", "told"),
    [
        ({"data::corruption": ("nois", "blur")}, "sweep: --data::corruption 'nois' is unknown; did you mean noise?"),
        ({"data::corruption": (None, "blur")}, "leave it out for images as they are"),
        ({**NOISE, "data::corruption_level": (0, 1)}, "1 to 5, not 0"),
    ],
)
def test_corruptions_that_do_not_exist_are_refused(sweep, told):
    with pytest.raises(UserError) as error:
        plan(methods=("deterministic", "tta"), sweep=sweep)
    assert told in str(error.value)


def test_corruptions_alone_leave_nothing_to_compare():
    with pytest.raises(UserError, match="holds deterministic alone"):
        plan(sweep=NOISE)
