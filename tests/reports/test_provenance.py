"""What produced a result."""

import pytest
from torch import nn

from medcalib.errors import UserError
from medcalib.reports import collect_provenance


def test_damaged_metadata_of_a_bundle_is_one_sentence(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "metadata.json").write_text("{\n")
    with pytest.raises(UserError, match=r"metadata\.json is damaged \(.*\); generate the bundle again") as caught:
        collect_provenance(tmp_path, [], nn.Identity(), {}, 0)
    assert "\n" not in str(caught.value)
