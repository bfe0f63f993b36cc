"""Several networks of one architecture."""

import copy
import weakref

import pytest
import torch
from monai.networks.nets import SegResNetDS

from medcalib.errors import UserError
from medcalib.networks import NetworkEnsemble, load_ensemble


def save(network, path):
    torch.save(network.state_dict(), path)
    return path


@torch.no_grad()
def test_members_are_the_saved_networks(example, tmp_path):
    networks = []
    for number in range(3):
        networks.append(copy.deepcopy(example.network))
        for parameter in networks[-1].parameters():
            parameter.add_(0.1 * number)
    paths = [save(network, tmp_path / f"{number}.pt") for number, network in enumerate(networks)]
    ensemble, images = load_ensemble(example.network, paths).eval(), example.images()
    outputs = ensemble(images)
    assert all(torch.equal(output, network(images)) for output, network in zip(outputs, networks, strict=True))
    assert not torch.equal(outputs[0], outputs[1])
    assert all(map(torch.equal, ensemble.members(images), outputs))
    # the network that described the architecture is left alone
    assert not {id(p) for p in ensemble.parameters()} & {id(p) for p in example.network.parameters()}


@torch.no_grad()
def test_a_member_is_gone_when_the_next_comes(segresnet_example):
    members = NetworkEnsemble(segresnet_example.network, 3).members(segresnet_example.images())
    first = weakref.ref(next(members))
    assert first() is None
    assert next(members) is not None


@pytest.mark.parametrize("number", [0, -2])
def test_there_must_be_a_member(segresnet_example, number):
    with pytest.raises(UserError, match=f"at least one network, not {number}"):
        NetworkEnsemble(segresnet_example.network, number)


def test_no_path(segresnet_example):
    with pytest.raises(UserError, match="at least one network"):
        load_ensemble(segresnet_example.network, [])


def test_all_missing_files_are_named(segresnet_example, tmp_path):
    present = save(segresnet_example.network, tmp_path / "a.pt")
    with pytest.raises(UserError) as error:
        load_ensemble(segresnet_example.network, [tmp_path / "b.pt", present, tmp_path / "c.pt"])
    assert f"{tmp_path}/b.pt, {tmp_path}/c.pt" in str(error.value)
    assert "a.pt" not in str(error.value)


@pytest.mark.parametrize("other", [{"out_channels": 4}, {"init_filters": 8}, {"blocks_down": (1, 1)}])
def test_a_member_with_other_classes_or_architecture_is_named(segresnet_example, tmp_path, other):
    arguments = {"init_filters": 4, "out_channels": 3, "blocks_down": (1, 1, 1), "dsdepth": 2} | other
    paths = [save(segresnet_example.network, tmp_path / "a.pt"), save(SegResNetDS(**arguments), tmp_path / "b.pt")]
    with pytest.raises(UserError, match=r"b\.pt holds the weights of another architecture"):
        load_ensemble(segresnet_example.network, paths)
