import json
import subprocess
import sys

import pytest

from medcalib.data import assemble_split, checked_split, split_cases, split_digest
from medcalib.errors import UserError
from medcalib.keys import CaseKeys, SplitKeys


def cases(*names):
    return [{"case": name, "image": f"/data/{name}.nii.gz", "label": f"/data/{name}_seg.nii.gz"} for name in names]


def names_of(split):
    return {part: [case["case"] for case in members] for part, members in split.items()}


class TestKeys:
    def test_are_plain_strings_to_json_and_dicts(self):
        assert json.dumps({CaseKeys.IMAGE: SplitKeys.TEST}) == '{"image": "test"}'
        assert {"case": 1}[CaseKeys.CASE] == 1

    def test_need_only_the_standard_library(self):
        code = (
            "import sys, medcalib.keys;"
            "print([m for m in sys.modules if m.split('.')[0] in ('numpy', 'torch', 'monai', 'scipy', 'nibabel')])"
        )
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


class TestAssembleSplit:
    def test_calibrates_on_the_validation_cases_by_default(self):
        split = assemble_split(cases("a"), cases("b"), cases("c"))
        assert names_of(split) == {"training": ["a"], "validation": ["b"], "test": ["c"], "calibration": ["b"]}
        assert all(type(part) is str for part in split)

    def test_takes_names_as_they_are(self):
        split = assemble_split(cases("007", 7), cases("a b", "a.b"), cases("..x", "ü"))
        assert names_of(split)["training"] + names_of(split)["test"] == ["007", 7, "..x", "ü"]

    def test_keeps_calibration_cases_of_their_own(self):
        split = assemble_split(cases("a"), cases("b"), cases("c"), cases("d", "e"))
        assert names_of(split)["calibration"] == ["d", "e"]

    @pytest.mark.parametrize(
        ("parts", "message"),
        [
            ((["a", "b"], ["b"], ["c"]), "Case 'b' is in both the training and the validation part"),
            ((["a"], ["b"], ["c", "a"]), "Case 'a' is in both the test and the training part"),
            ((["a"], ["b"], ["b"]), "Case 'b' is in both the test and the validation part"),
            ((["a"], ["b"], ["c"], ["c"]), "Case 'c' is in both the calibration and the test part"),
            ((["a"], ["b"], ["c"], ["b", "a"]), "Case 'a' is in both the calibration and the training part"),
            ((["a"], ["b"], ["c"], []), "The calibration part of the split is empty"),
            ((["a", "a"], ["b"], ["c"]), "Case 'a' appears twice in the training part"),
            ((["a"], [], ["c"]), "The validation part of the split is empty"),
            ((["a"], ["b"], ["c", "d/e"]), "A case in the test part of the split is called 'd/e'"),
            ((["a"], [".."], ["c"]), "A case in the validation part of the split is called '..'"),
            (([""], ["b"], ["c"]), "A case in the training part of the split is called ''"),
            ((["a"], ["b"], ["c"], [" "]), "A case in the calibration part of the split is called ' '"),
        ],
    )
    def test_refuses_leaks_and_empty_parts(self, parts, message):
        with pytest.raises(UserError, match=message):
            assemble_split(*(cases(*names) for names in parts))


class TestCheckedSplit:
    SPLIT = {"training": cases("a"), "validation": cases("b", "c"), "test": cases("d")}  # noqa: RUF012

    def test_leaves_a_split_as_it_is(self):
        split = assemble_split(cases("a"), cases("b"), cases("c"), cases("d"))
        assert checked_split(split) == split
        assert names_of(checked_split(self.SPLIT))["calibration"] == ["b", "c"]

    def test_chooses_calibration_cases_by_their_ids(self):
        split = checked_split(self.SPLIT, calibration_cases=["c"])
        assert split["calibration"] == cases("c")
        assert split["validation"] == cases("b", "c")

    @pytest.mark.parametrize(("part", "key"), [("training", "label"), ("validation", "label"), ("test", "image")])
    def test_refuses_a_case_that_lacks_what_is_needed(self, part, key):
        lacking = [{name: value for name, value in case.items() if name != key} for case in self.SPLIT[part]]
        message = f"^Case '{lacking[0]['case']}' of the {part} part that data::cases returned has no {key}"
        with pytest.raises(UserError, match=message):
            checked_split(self.SPLIT | {part: lacking})

    def test_test_cases_need_no_label(self):
        lacking = [{"case": "d", "image": "d.nii.gz"}]
        assert checked_split(self.SPLIT | {"test": lacking})["test"] == lacking

    def test_takes_further_calibration_cases(self):
        assert names_of(checked_split(self.SPLIT, ["b", *cases("e")]))["calibration"] == ["b", "e"]

    def test_knows_ids_that_look_like_numbers(self):
        split = {"training": cases("1"), "validation": cases("2"), "test": cases("3")}
        assert names_of(checked_split(split, [2]))["calibration"] == ["2"]

    @pytest.mark.parametrize(
        ("chosen", "message"),
        [
            (["a"], "Case 'a' is in both the calibration and the training part"),
            (["b", "d"], "Case 'd' is in both the calibration and the test part"),
            ([], "The calibration part of the split is empty"),
            (["c", "c"], "Case 'c' appears twice in the calibration part"),
            (["x"], "calibration_cases lists 'x', which is no case of the dataset: its validation cases are b, c"),
            ("c", "calibration_cases is 'c': give a list"),
            (cases("a"), "Case 'a' is in both the calibration and the training part"),
        ],
    )
    def test_refuses_calibration_cases(self, chosen, message):
        with pytest.raises(UserError, match=message):
            checked_split(self.SPLIT, chosen)

    @pytest.mark.parametrize(
        ("split", "message"),
        [
            (cases("a"), "data::cases names returned a list"),
            (
                {"train": cases("a"), "validation": cases("b"), "test": cases("c")},
                "returned the keys train, validation",
            ),
            ({"training": cases("a"), "validation": cases("b")}, "returned the keys training, validation"),
            (
                {"training": ["a"], "validation": cases("b"), "test": cases("c")},
                "Entry 0 of the training part.* is 'a'",
            ),
            ({"training": cases("a"), "validation": cases("b"), "test": cases("b")}, "Case 'b' is in both"),
        ],
    )
    def test_refuses_what_is_no_split(self, split, message):
        with pytest.raises(UserError, match=message):
            checked_split(split)


class TestSplitCases:
    @pytest.mark.parametrize(
        ("count", "sizes"), [(200, (140, 20, 40)), (10, (7, 1, 2)), (3, (1, 1, 1)), (4, (2, 1, 1)), (33, (23, 3, 7))]
    )
    def test_sizes(self, count, sizes):
        split = split_cases(cases(*(f"case_{i}" for i in range(count))))
        assert (len(split["training"]), len(split["validation"]), len(split["test"])) == sizes

    def test_uses_every_case_once(self):
        given = cases(*(f"case_{i}" for i in range(50)))
        split = split_cases(given)
        together = split["training"] + split["validation"] + split["test"]
        assert sorted(together, key=lambda case: case["case"]) == sorted(given, key=lambda case: case["case"])

    def test_does_not_depend_on_the_order_given(self):
        given = cases(*(f"case_{i}" for i in range(50)))
        assert split_cases(given) == split_cases(given[::-1])

    def test_is_shuffled_and_changes_with_the_seed(self):
        given = cases(*(f"case_{i:02d}" for i in range(50)))
        first, second = (names_of(split_cases(given, seed=seed))["test"] for seed in (0, 1))
        assert set(first) != set(second)
        assert set(first) != {case["case"] for case in given[40:]}

    def test_is_fixed_for_good(self):
        split = split_cases(cases(*(f"case_{i}" for i in range(10))))
        assert names_of(split)["test"] == ["case_7", "case_6"]

    def test_seeds_draw_every_case_equally_often(self):
        given = cases(*(f"case_{i}" for i in range(10)))
        counts = dict.fromkeys((case["case"] for case in given), 0)
        for seed in range(1000):
            for name in names_of(split_cases(given, seed=seed))["test"]:
                counts[name] += 1
        assert all(abs(count - 200) < 60 for count in counts.values()), counts

    @pytest.mark.parametrize("count", [0, 1, 2])
    def test_refuses_too_few_cases(self, count):
        with pytest.raises(UserError, match=rf"^{count} case\(s\) cannot fill a split of 0\.7 : 0\.1 : 0\.2"):
            split_cases(cases(*"abc"[:count]))

    @pytest.mark.parametrize(
        "fractions",
        [(0.7, 0.3), (0.7, 0.2, 0.2), (0.8, 0.0, 0.2), (1.2, -0.4, 0.2), "0.7", 0.7, None, (float("nan"), 0.1, 0.2)],
    )
    def test_refuses_fractions_that_are_no_shares(self, fractions):
        with pytest.raises(UserError, match="fractions is"):
            split_cases(cases(*"abcdef"), fractions=fractions)

    @pytest.mark.parametrize("seed", ["one", 1.5, True, None])
    def test_refuses_a_seed_that_is_no_whole_number(self, seed):
        with pytest.raises(UserError, match="seed is"):
            split_cases(cases(*"abcdef"), seed=seed)


class TestSplitDigest:
    SPLIT = assemble_split(cases("a", "b"), cases("c"), cases("d"))

    def test_is_a_sha256(self):
        assert len(split_digest(self.SPLIT)) == 64
        assert set(split_digest(self.SPLIT)) <= set("0123456789abcdef")

    def test_ignores_order_and_paths(self):
        other = dict(reversed(assemble_split(cases("b", "a"), cases("c"), cases("d")).items()))
        for members in other.values():
            for case in members:
                case["image"] = "/elsewhere/" + case["image"]
        assert split_digest(other) == split_digest(self.SPLIT)

    @pytest.mark.parametrize(
        "parts", [("a", "bc", "d"), ("abe", "c", "d"), ("ab", "d", "c"), ("b", "c", "d"), ("ab", "c", "d", "e")]
    )
    def test_changes_when_a_case_moves_joins_or_leaves(self, parts):
        assert split_digest(assemble_split(*(cases(*part) for part in parts))) != split_digest(self.SPLIT)
