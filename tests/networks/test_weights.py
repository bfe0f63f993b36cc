import pytest
import torch
from torch import nn

from medcalib.errors import UserError
from medcalib.networks import load_weights, weights_digest


def test_weights_come_back(tmp_path):
    saved, fresh = nn.Linear(3, 2), nn.Linear(3, 2)
    torch.save(saved.state_dict(), tmp_path / "model.pt")
    assert load_weights(fresh, tmp_path / "model.pt") is fresh
    assert torch.equal(saved.weight, fresh.weight)


@pytest.mark.parametrize("other", [nn.Linear(4, 2), nn.Linear(3, 2, bias=False), nn.Sequential(nn.Linear(3, 2))])
def test_another_architecture_changes_nothing(tmp_path, other):
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "model.pt")
    before = weights_digest(other.state_dict())
    with pytest.raises(UserError, match="another architecture"):
        load_weights(other, tmp_path / "model.pt")
    assert weights_digest(other.state_dict()) == before


def test_a_missing_file_says_how_to_train(tmp_path):
    with pytest.raises(UserError, match="train first"):
        load_weights(nn.Linear(1, 1), tmp_path / "model.pt")


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("code ran",)

    torch.save({"weight": Evil()}, tmp_path / "model.pt")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        load_weights(nn.Linear(1, 1), tmp_path / "model.pt")


def test_digest_tells_values_names_and_types_apart():
    state = {"a": torch.zeros(2), "b": torch.ones(2)}
    digests = {
        weights_digest(state),
        weights_digest({"a": torch.ones(2), "b": torch.zeros(2)}),
        weights_digest({"a": torch.zeros(2), "c": torch.ones(2)}),
        weights_digest({"a": torch.zeros(2).half(), "b": torch.ones(2)}),
        weights_digest({"a": torch.zeros(2, 1), "b": torch.ones(2)}),
    }
    assert len(digests) == 5
    assert weights_digest(dict(reversed(state.items()))) == weights_digest(state)
