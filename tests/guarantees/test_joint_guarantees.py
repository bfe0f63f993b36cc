"""Guarantees of a bundle: fitted together, stored, and compared before they are used."""

import pytest
import torch
from torch import nn

from medcalib.errors import UserError
from medcalib.guarantees import (
    GuaranteeCase,
    JointGuarantees,
    PrecisionControl,
    RecallControl,
    guarantee_origin,
    load_guarantees,
    read_guarantees,
    save_guarantees,
)

ORIGIN = {
    "weights_digest": "a",
    "calibrator_digest": None,
    "inference": {"inferer": {"overlap": 0.5}},
    "activation": "x",
}


def made(alpha=0.2):
    return JointGuarantees([RecallControl(["organ"], alpha), PrecisionControl(["organ"], 0.2)])


def cases(number, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for index in range(number):
        probs = torch.rand(1, 200, generator=generator)
        target = torch.rand(1, 200, generator=generator) < probs
        yield GuaranteeCase(str(index), probs, probs > 0.5, target, (1.0,))


def fitted(number=40, alpha=0.2):
    guarantees = made(alpha)
    guarantees.fit([guarantees.observe(case) for case in cases(number)])
    return guarantees


def test_sets_of_all_of_them_are_nested():
    guarantees = fitted()
    for case in cases(5, seed=1):
        found = guarantees.apply(case)
        assert found.set_names == {"recall_control": ["outer"], "precision_control": ["inner"]}
        assert bool((found.sets["inner"] <= case.segmentation).all())
        assert bool((case.segmentation <= found.sets["outer"]).all())
        assert found.losses.keys() == {"recall_control", "precision_control"}
        assert guarantees.apply(case._replace(target=None)).losses == {}


def test_what_is_read_is_what_was_written(tmp_path):
    for name in "ab":
        save_guarantees(tmp_path / name, fitted(), [{"case": "x"}], ORIGIN, "digest")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert read_guarantees(tmp_path / "a")["cases"] == [{"case": "x"}]
    loaded, own = load_guarantees(tmp_path / "a", made(), ORIGIN), fitted()
    for case in cases(3, seed=2):
        one, other = loaded.apply(case), own.apply(case)
        assert all(torch.equal(one.sets[name], other.sets[name]) for name in one.sets)
        assert one.values == other.values


@pytest.mark.parametrize(
    ("guarantees", "origin", "message"),
    [
        (made(0.1), ORIGIN, "with alpha 0.2, but 0.1 is asked for"),
        (JointGuarantees([RecallControl(["organ"], 0.2)]), ORIGIN, "but recall_control is asked for"),
        (made(), ORIGIN | {"weights_digest": "b"}, "with other weights than now"),
        (made(), ORIGIN | {"calibrator_digest": "b"}, "with another calibrator than now"),
        (made(), ORIGIN | {"inference": {"inferer": {"overlap": 0.25}}}, "inferer.overlap 0.5, not 0.25"),
    ],
)
def test_another_use_is_refused(tmp_path, guarantees, origin, message):
    save_guarantees(tmp_path / "a.pt", fitted(), [], ORIGIN, "digest")
    with pytest.raises(UserError, match=message):
        load_guarantees(tmp_path / "a.pt", guarantees, origin)


def test_too_few_cases_are_refused_unless_nothing_is_promised():
    guarantees = made()
    observed = [guarantees.observe(case) for case in cases(2)]
    with pytest.raises(UserError, match="needs 4 calibration cases .* and there are 2"):
        guarantees.fit(observed)
    guarantees.fit(observed, promises_nothing=True)
    assert set(guarantees.lacking) == {"recall_control", "precision_control"}
    assert len(guarantees.fitted_parts) == 2
    with pytest.raises(UserError, match="There is no case"):
        guarantees.fit([])


def test_two_of_a_kind_are_refused():
    with pytest.raises(UserError, match="different kinds"):
        JointGuarantees([RecallControl(["organ"]), RecallControl(["organ"])])


def test_the_origin_changes_with_the_weights():
    one, other = nn.Linear(1, 1), nn.Linear(1, 1)
    assert guarantee_origin(one, {}) == guarantee_origin(one, {})
    assert guarantee_origin(one, {}) != guarantee_origin(other, {})
    assert guarantee_origin(one, {}) != guarantee_origin(one, {}, activation="sigmoid")


def test_other_classes_are_refused():
    with pytest.raises(UserError, match="of the same classes"):
        JointGuarantees([RecallControl(["organ"]), PrecisionControl(["lesion"])])
