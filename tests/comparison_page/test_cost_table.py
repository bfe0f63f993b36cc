import dataclasses
import shutil

from tests.comparison_page import made_up

from medcalib.comparison_page.cost_table import cost_table


def test_times_are_means_over_seeds_and_memory_is_the_largest(tmp_path):
    made = made_up.of_segmentations(tmp_path, ("a", "b"), seeds=(1, 2), num_cases=3)
    assert cost_table(made) is None
    made_up.add_costs(made)
    first = made.evaluations["b"][0].folder.parent / "cost"
    first.joinpath("train.json").write_text('{"seconds": 1000, "num_cases": 3, "peak_memory_bytes": 5000000000}')
    table = cost_table(made)
    row = next(row for row in table.rows if row[0].text == "b")
    assert [cell.value for cell in row[1:3]] == [800, 50]
    assert row[4].text == "5 GB"
    assert "Made-up CPU" in table.caption


def test_a_damaged_file_counts_as_none(tmp_path):
    made = made_up.of_segmentations(tmp_path, ("a", "b"), num_cases=3)
    made_up.add_costs(made)
    (made.evaluations["a"][0].folder.parent / "cost" / "train.json").write_text("{")
    assert cost_table(made).rows[0][1].text == "\N{EN DASH}"


def test_what_was_read_from_a_cache_counts_with_what_it_took_at_first(tmp_path):
    """Else the method that was run first would look dearest."""
    made = made_up.of_segmentations(tmp_path, ("a", "b"), num_cases=3)
    made_up.add_costs(made)
    assert "cache" not in cost_table(made).caption
    second = made.evaluations["b"][0].folder.parent / "cost"
    second.joinpath("inference_pred.json").write_text('{"seconds": 30, "seconds_saved": 570, "num_cases": 12}')
    table = cost_table(made)
    assert [row[2].value for row in table.rows] == [50, 50]
    assert "read from a cache count with the time that they took at first" in table.caption


def test_a_training_beside_an_evaluation_with_settings_of_its_own(tmp_path):
    """Only where the weights are those of the bundle itself."""
    made = made_up.of_segmentations(tmp_path / "made", ("a", "b"), seeds=(1,), num_cases=3)
    made_up.add_costs(made)
    for name in ("a", "b"):
        one = made.evaluations[name][0]
        bundle = tmp_path / f"bundle_{name}"
        moved = bundle / "settings_1234" / "seed_1" / "evaluation"
        training = bundle / "seed_1" / "cost"
        shutil.copytree(one.folder.parent / "cost", moved.parent / "cost")
        training.mkdir(parents=True)
        (moved.parent / "cost" / "train.json").rename(training / "train.json")
        summary = {"provenance": {"bundle": bundle.name, "checkpoint": "bundle_a/seed_1/models/model.pt"}}
        made.evaluations[name] = [dataclasses.replace(one, folder=moved, summary=summary)]
    trainings = {row[0].text: row[1].text for row in cost_table(made).rows}
    assert (trainings["a"], trainings["b"]) == ("10 min 00 s", "\N{EN DASH}")
