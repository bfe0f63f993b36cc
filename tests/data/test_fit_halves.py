"""Calibration cases are divided once and for all."""

import pytest

from medcalib.data import calibration_halves, case_groups
from medcalib.errors import UserError


def cases(number, patient=lambda index: None):
    return [
        {"case": f"case_{index:03}", **({"attributes": {"patient": who}} if (who := patient(index)) else {})}
        for index in range(number)
    ]


@pytest.mark.parametrize("number", [2, 3, 10, 41])
def test_halves_are_disjoint_and_hold_all(number):
    halves = calibration_halves(cases(number))
    names = [{case["case"] for case in part} for part in halves.values()]
    assert names[0].isdisjoint(names[1])
    assert len(names[0] | names[1]) == number
    assert 0 <= len(halves["guarantee"]) - len(halves["calibrator"]) <= 1


def test_the_order_of_the_cases_does_not_matter():
    forwards, backwards = calibration_halves(cases(9)), calibration_halves(cases(9)[::-1])
    for part in forwards:
        assert sorted(case["case"] for case in forwards[part]) == sorted(case["case"] for case in backwards[part])


def test_cases_of_a_patient_stay_together():
    halves = calibration_halves(cases(20, lambda index: f"patient_{index // 2}"))
    patients = [{case["attributes"]["patient"] for case in part} for part in halves.values()]
    assert patients[0].isdisjoint(patients[1])


def test_all_and_mistakes():
    assert [len(part) for part in calibration_halves(cases(3), "all").values()] == [3, 3]
    with pytest.raises(UserError, match="must be half or all"):
        calibration_halves(cases(3), "third")
    with pytest.raises(UserError, match="cannot be divided"):
        calibration_halves(cases(1))


def test_groups_are_attributes():
    split = {
        "calibration": [{"case": "a", "attributes": {"vendor": "A", "centre": 1}}, {"case": "b"}],
        "test": [{"case": "c", "attributes": {"vendor": "B"}}],
    }
    assert case_groups(split, "vendor") == {"a": "A", "c": "B"}
    assert case_groups(split, "centre") == {"a": "1"}
    assert case_groups(split) == {}
    with pytest.raises(UserError, match="did you mean vendor"):
        case_groups(split, "vendors")
