"""What the parts of --method are."""

import pytest

from medcalib.bundle.fragments import FragmentKind
from medcalib.bundle.method_names import joined_fragments
from medcalib.errors import UserError

METHOD, CALIBRATOR, GUARANTEE = FragmentKind.METHOD, FragmentKind.CALIBRATOR, FragmentKind.GUARANTEE
KNOWN = {
    METHOD: ["deterministic", "mc_dropout"],
    CALIBRATOR: ["isotonic", "temperature_scaling"],
    GUARANTEE: ["recall_control"],
}


@pytest.mark.parametrize(
    ("joined", "found"),
    [
        ("mc_dropout", {METHOD: "mc_dropout"}),
        ("isotonic", {METHOD: "deterministic", CALIBRATOR: "isotonic"}),
        ("recall_control", {METHOD: "deterministic", GUARANTEE: "recall_control"}),
        ("isotonic+recall_control", {METHOD: "deterministic", CALIBRATOR: "isotonic", GUARANTEE: "recall_control"}),
        ("mc_dropout+recall_control", {METHOD: "mc_dropout", GUARANTEE: "recall_control"}),
    ],
)
def test_each_part_is_optional(joined, found):
    assert joined_fragments(joined, KNOWN) == found


@pytest.mark.parametrize(
    ("joined", "message"),
    [
        ("mc_dropuot", "called 'mc_dropuot'; did you mean mc_dropout?"),
        ("mc_dropout+recal_control", "called 'recal_control'; did you mean recall_control?"),
        ("mc_dropout+", "called ''"),
        ("recall_control+isotonic", "write isotonic\\+recall_control instead of recall_control\\+isotonic"),
        ("isotonic+temperature_scaling", "isotonic and temperature_scaling are both a calibrator"),
    ],
)
def test_mistakes_are_told(joined, message):
    with pytest.raises(UserError, match=message):
        joined_fragments(joined, KNOWN)
