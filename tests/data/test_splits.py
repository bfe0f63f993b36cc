import hashlib
from collections import Counter

import pytest
from tests.data.layouts import everyone, message, names

from medcalib.data import set_aside, split_fold


def patients(count, frames=("ed", "es")):
    return [{"case": f"patient{number:03d}_{frame}"} for number in range(count) for frame in frames]


def patient(case):
    return case["case"].split("_")[0]


class TestSetAside:
    @pytest.mark.parametrize(
        ("count", "fraction", "expected"), [(100, 0.1, 10), (20, 0.05, 1), (3, 0.1, 1), (5, 0.4, 2)]
    )
    def test_takes_a_share_of_the_groups(self, count, fraction, expected):
        stay, aside = set_aside(patients(count), fraction, group=patient)
        assert len(aside) == 2 * expected
        assert len(stay) + len(aside) == 2 * count

    @pytest.mark.parametrize("seed", range(5))
    def test_keeps_groups_together(self, seed):
        stay, aside = set_aside(patients(30), 0.3, seed, group=patient)
        assert not {patient(case) for case in stay} & {patient(case) for case in aside}

    def test_ranks_groups_by_a_hash_of_seed_and_name(self):
        ranked = sorted(
            (f"patient{i:03d}" for i in range(30)), key=lambda n: hashlib.sha256(f"7:{n}".encode()).digest()
        )
        _, aside = set_aside(patients(30), 0.1, seed=7, group=patient)
        assert {patient(case) for case in aside} == set(ranked[:3])

    def test_the_order_of_cases_does_not_matter(self):
        given = patients(20)
        forwards, backwards = set_aside(given, 0.2, group=patient), set_aside(given[::-1], 0.2, group=patient)
        assert [names(part) for part in forwards] == [names(part) for part in backwards]

    def test_draws_every_group_equally_often(self):
        counts = Counter(patient(set_aside(patients(10), 0.1, seed, group=patient)[1][0]) for seed in range(1000))
        assert len(counts) == 10
        assert all(abs(count - 100) < 45 for count in counts.values()), counts

    @pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, "0.1", None, True, float("nan")])
    def test_refuses_what_is_no_share(self, fraction):
        assert "give a number above 0 and below 1" in message(set_aside, patients(5), fraction)

    def test_refuses_too_few_groups(self):
        assert "1 case(s) or group(s)" in message(set_aside, patients(1), 0.5, group=patient)
        assert "2 case(s) or group(s)" in message(set_aside, patients(2), 0.9, group=patient)

    @pytest.mark.parametrize("seed", ["one", 1.5, True, None])
    def test_refuses_a_seed_that_is_no_whole_number(self, seed):
        assert "seed is" in message(set_aside, patients(5), 0.5, seed)


class TestSplitFold:
    @pytest.mark.parametrize("count", [5, 23, 94])
    def test_every_group_is_tested_once(self, count):
        splits = [split_fold(patients(count), fold, group=patient) for fold in range(5)]
        tested = [patient(case) for split in splits for case in split["test"]]
        assert Counter(tested) == Counter(2 * [f"patient{i:03d}" for i in range(count)])
        sizes = [len(split["test"]) for split in splits]
        assert max(sizes) - min(sizes) <= 2

    @pytest.mark.parametrize("fold", range(3))
    def test_parts_share_no_group_and_hold_every_case(self, fold):
        split = split_fold(patients(17), fold, num_folds=3, group=patient)
        parts = [{patient(case) for case in split[part]} for part in ("training", "validation", "test")]
        assert sum(len(part) for part in parts) == len(set.union(*parts)) == 17
        assert names(everyone(split)) == names(patients(17))

    def test_a_share_of_the_rest_is_for_validation(self):
        split = split_fold([{"case": f"c{i}"} for i in range(50)], 2, validation_fraction=0.25)
        assert {part: len(cases) for part, cases in split.items()} == {
            "training": 30,
            "validation": 10,
            "test": 10,
            "calibration": 10,
        }

    def test_seeds_give_other_folds(self):
        first, second = (split_fold(patients(20), 0, seed=seed, group=patient)["test"] for seed in (0, 1))
        assert names(first) != names(second)

    @pytest.mark.parametrize("fold", [5, -1, "0", 1.0, True, None])
    def test_refuses_a_fold_that_does_not_exist(self, fold):
        assert message(split_fold, patients(10), fold) == f"fold is {fold!r}: give a whole number from 0 to 4."

    @pytest.mark.parametrize("num_folds", [1, 2.0, "5"])
    def test_refuses_a_number_of_folds_that_is_none(self, num_folds):
        assert "num_folds is" in message(split_fold, patients(10), 0, num_folds=num_folds)

    def test_refuses_too_few_groups(self):
        assert "4 case(s) or group(s) of cases cannot fill 5 folds" in message(
            split_fold, patients(4), 0, group=patient
        )
