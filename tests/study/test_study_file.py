"""Study files: what they may hold, and one sentence for every mistake."""

from pathlib import Path

import pytest
from tests.conftest import REPOSITORY

from medcalib.errors import UserError
from medcalib.study.expansion import expand
from medcalib.study.study_file import read_study


def test_what_is_left_out_has_defaults(write_study):
    study = read_study(write_study())
    assert (study.methods, study.networks, study.seeds) == (("deterministic",), (None,), (12345,))
    assert (study.predictions, study.debug, study.reference) == (4, False, None)


def test_comments_and_order_change_no_digest(tmp_path):
    first, second = tmp_path / "a" / "x.yaml", tmp_path / "b" / "x.yaml"
    for path, text in (
        (first, "data: phantom\nlosses: [baseline_ce]\n"),
        (second, "# why\nlosses:\n- baseline_ce\ndata: phantom\n"),
    ):
        path.parent.mkdir()
        path.write_text(text)
    assert read_study(first).digest == read_study(second).digest


@pytest.mark.parametrize(("given", "read"), [(True, 4), (False, 0), ("all", None), (0, 0), (7, 7)])
def test_how_many_cases_are_predicted(write_study, given, read):
    assert read_study(write_study(predictions=given)).predictions == read


def test_combinations_besides_the_grid(write_study):
    also = [{"loss": ["baseline_ce", "focal"], "method": "tta"}, {"method": "mc_dropout"}]
    study = read_study(write_study(methods=["deterministic"], also=also))
    assert study.combinations == [
        (None, "baseline_ce", "deterministic"),
        (None, "softl1ace_dice_ce", "deterministic"),
        (None, "baseline_ce", "tta"),
        (None, "focal", "tta"),
        (None, "baseline_ce", "mc_dropout"),
    ]


def test_keys_that_are_new_change_no_digest_of_files_without_them(write_study):
    """Of a file as it was before there were bars and combinations besides the grid."""
    study = read_study(write_study())
    assert {"bar", "also"}.isdisjoint(study.content)
    assert read_study(write_study(bar={"nll": 0})).digest != study.digest
    assert read_study(write_study(bar={"macro_ace": "-10%"})).bar == {"macro_ace": "-10%"}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"lossses": ["x"]}, "lossses is no key of a study; did you mean losses"),
        ({"data": "fantom"}, "data: there is no data 'fantom'; did you mean phantom"),
        ({"data": None}, "data is missing, so the grid is empty"),
        ({"losses": None}, "losses is missing, so the grid is empty"),
        ({"losses": []}, "losses is missing, so the grid is empty"),
        ({"methods": []}, "methods is empty, so the grid is"),
        ({"losses": ["baseline_ec"]}, "did you mean baseline_ce"),
        ({"losses": ["baseline_ce", "baseline_ce"]}, "losses holds baseline_ce twice"),
        ({"losses": [3]}, "losses must hold names, not 3"),
        ({"methods": ["mc_dropuot"]}, "called 'mc_dropuot'; did you mean mc_dropout"),
        ({"methods": ["mc_dropout+temperature"]}, "called 'temperature'; did you mean temperature_scaling"),
        ({"methods": ["platt_scaling", "deterministic+platt_scaling"]}, "holds the same twice, as platt_scaling and"),
        ({"networks": ["unett"]}, "did you mean unet"),
        ({"seeds": [1]}, "a list of one seed, which tells nothing of the spread"),
        ({"seeds": [1, 1]}, "seeds holds 1 twice"),
        ({"seeds": [1, -1]}, "whole numbers from 0"),
        ({"seeds": [1, True]}, "whole numbers from 0"),
        ({"seeds": "many"}, "whole numbers from 0"),
        ({"overrides": ["num_bins"]}, "must be a mapping of configuration ids"),
        ({"overrides": {"seed": 3}}, "use the key seeds of the study"),
        ({"overrides": {"output_dir": "x"}}, "output_dir follows from the study"),
        ({"overrides": {"train::optimizer::lr": "1e-3"}}, "is the text '1e-3', not a number"),
        ({"sweep": {"num_bins": 5}}, "sweep::num_bins must be a list of values"),
        ({"sweep": {"num_bins": []}}, "sweep::num_bins is empty"),
        ({"sweep": {"num_bins": [5, 5]}}, "sweep::num_bins holds 5 twice"),
        ({"sweep": {"evaluation::space": ["original", "resampled"]}}, "cannot be compared; set it in overrides"),
        ({"sweep": {"a::b": [1, 2]}, "overrides": {"a::b": 3}}, "a::b stands in overrides and in sweep"),
        ({"reference": 3}, "reference must be a name, or a mapping"),
        ({"primary": "macro_aec"}, "there is no metric 'macro_aec'; did you mean macro_"),
        ({"non_inferior": {"dice": 0.01}}, "there is no metric 'dice'"),
        ({"non_inferior": {"mean_dice": 0}}, "must be a number above 0"),
        ({"non_inferior": 0.01}, "must be a mapping such as"),
        ({"bar": {"macro_aec": "-10%"}}, "bar: there is no metric 'macro_aec'; did you mean macro_"),
        ({"bar": {"macro_ace": "much"}}, "bar: the change of macro_ace must be a number, or percents such as -10%"),
        ({"bar": "-10%"}, "bar must be changes by metric"),
        ({"also": "tta"}, "also must be a list of combinations such as"),
        ({"also": [{"los": "focal"}]}, "los is no part of a combination; did you mean loss"),
        ({"also": [{"loss": "focall"}]}, "also::0::loss: there is no loss 'focall'; did you mean focal"),
        (
            {"also": [{"method": "deterministic"}]},
            "also names loss baseline_ce, method deterministic, which is compared",
        ),
        ({"also": [{"method": "tta"}, {"method": ["tta"]}]}, "method tta, which is compared already; keep it once"),
        ({"debug": "yes"}, "debug must be true or false"),
        ({"title": 7}, "title must be a text"),
        ({"predictions": -1}, "predictions must be a number of cases"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_file(write_study, keys, message):
    path = write_study(**keys)
    with pytest.raises(UserError) as error:
        read_study(path)
    told = str(error.value)
    assert message in told
    assert str(path) in told
    assert "\n" not in told


def test_a_key_that_stands_twice(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("data: phantom\nlosses: [focal]\ndata: hippocampus\n")
    with pytest.raises(UserError, match="a.yaml, line 3: the key 'data' stands there twice"):
        read_study(path)


@pytest.mark.parametrize(
    ("name", "message"), [("there is none", "There is no study file"), ("a b", "its name becomes")]
)
def test_a_file_that_cannot_be(write_study, tmp_path, name, message):
    if name == "a b":
        write_study(name)
    with pytest.raises(UserError, match=message):
        read_study(tmp_path / f"{name}.yaml")


STUDIES = sorted((REPOSITORY / "studies").glob("*.yaml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_studies_of_the_repository_can_be_read(path):
    assert read_study(path).name == path.stem


# those of many combinations plan alike, and take long
PLANNED = [path for path in STUDIES if not any(word in path.stem for word in ("calib", "evidence", "hippocampus_rec"))]


@pytest.mark.parametrize("path", PLANNED, ids=lambda path: path.stem)
def test_the_studies_of_the_repository_can_be_planned(path):
    found = expand(read_study(path), Path("bundles"))
    assert found.reference in found.evaluated
    assert len(found.evaluated) > 2 or "quick" in path.stem


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"sweep": {"data::corruption_level": [1, 2]}}, "data::corruption_level needs data::corruption there"),
        (
            {"sweep": {"data::corruption_level": [1, 2]}, "overrides": {"data::corruption": "noise"}},
            "data::corruption_level needs data::corruption there",
        ),
        ({"overrides": {"data::corruption_level": 2}}, "no data::corruption is given"),
    ],
)
def test_a_level_needs_a_corruption(write_study, keys, told):
    with pytest.raises(UserError, match=told):
        read_study(write_study(**keys))
