"""What produced a result."""

import pytest
from monai.inferers import SimpleInferer
from torch import nn

from medcalib.errors import UserError
from medcalib.inferers import SamplingInferer
from medcalib.reports import collect_provenance, inference_settings


def test_damaged_metadata_of_a_bundle_is_one_sentence(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "metadata.json").write_text("{\n")
    with pytest.raises(UserError, match=r"metadata\.json is damaged \(.*\); generate the bundle again") as caught:
        collect_provenance(tmp_path, [], nn.Identity(), {}, 0)
    assert "\n" not in str(caught.value)


def test_what_is_kept_beside_a_prediction_does_not_decide_it():
    """Guarantees that were fitted before it could be kept still hold."""
    plain, keeping = (
        inference_settings(SamplingInferer(SimpleInferer(), keep_member_labels=on)) for on in (False, True)
    )
    assert plain == keeping
    assert "keep_member_labels" not in plain
