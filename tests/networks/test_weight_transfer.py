import pytest
import torch
from monai.networks.nets import DynUNet, SegResNetDS, UNet
from torch import nn

from medcalib.errors import UserError
from medcalib.files.tensors import save_tensors
from medcalib.networks import LayerEnsemble, load_initial_weights
from medcalib.networks.weight_transfer import read_weights, transfer


def segresnet(classes, filters=4, channels=1):
    return SegResNetDS(3, filters, channels, classes, blocks_down=[1, 1, 1], dsdepth=2)


def unet(classes, channels=1):
    return UNet(2, channels, classes, channels=[8, 16, 32], strides=[2, 2], num_res_units=2)


def dynunet(classes):
    return DynUNet(
        2, 1, classes, [3] * 4, [1, 2, 2, 2], [2, 2, 2], filters=[8, 16, 16, 32], deep_supervision=True, deep_supr_num=1
    )


NETWORKS = {"segresnet_ds": segresnet, "unet": unet, "dynunet": dynunet}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_all_but_what_puts_out_classes_is_taken(name, classes, tmp_path):
    """Which layers differ with the number of classes, the networks themselves tell."""
    given, own = NETWORKS[name](2), NETWORKS[name](classes)
    before = {key: value.clone() for key, value in own.state_dict().items()}
    save_tensors(given.state_dict(), tmp_path / "model.pt")
    load_initial_weights(own, tmp_path / "model.pt", classes)
    layers = {key.rpartition(".")[0] for key in before if before[key].shape != given.state_dict()[key].shape}
    assert bool(layers) is (classes != 2)
    for key, value in own.state_dict().items():
        expected = before if key.rpartition(".")[0] in layers else given.state_dict()
        assert torch.equal(value, expected[key]), key
    taken = transfer(own, given.state_dict(), classes, "model.pt")
    assert set(taken.replaced) == {f"{layer} ({classes} channels)" for layer in layers}


def test_a_network_on_meta_is_enough_to_know():
    with torch.device("meta"):
        own = segresnet(3)
    assert len(transfer(own, segresnet(2).state_dict(), 3, "model.pt").replaced) == 2


def test_heads_of_layers_are_new_and_a_wrapped_network_is_known():
    given = UNet(2, 1, 2, channels=[8, 16], strides=[2])
    own = LayerEnsemble(UNet(2, 1, 2, channels=[8, 16], strides=[2]), ["model.0"], 2, (1, 16, 16))
    taken = transfer(own, {f"module.{key}": value for key, value in given.state_dict().items()}, 2, "model.pt")
    assert all(layer.startswith("heads") for layer in taken.replaced)
    assert taken.replaced
    assert {f"network.{key}" for key in given.state_dict()} == set(taken.state)


@pytest.mark.parametrize(
    ("given", "own", "message"),
    [
        (segresnet(2), segresnet(2, filters=8), "None of the|another architecture"),
        (segresnet(2, channels=4), segresnet(2), r"encoder.conv_init.weight \(\(4, 1, 3, 3, 3\), \(4, 4, 3, 3, 3\) in"),
        (unet(2, channels=3), unet(2), "another architecture: .*not at the output"),
        (unet(2), segresnet(2), "None of the [0-9]+ tensors in model.pt fits"),
        (nn.Sequential(nn.Conv2d(1, 2, 3)), nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 9)), "fits too little"),
    ],
)
def test_other_architectures_are_one_sentence(given, own, message):
    with pytest.raises(UserError, match=message) as caught:
        transfer(own, given.state_dict(), 2, "model.pt")
    assert "\n" not in str(caught.value)


def test_weights_stand_alone_or_in_a_checkpoint(tmp_path):
    state = nn.Linear(2, 2).state_dict()
    for content in (state, {"network": state, "epoch": 3}, {"state_dict": state}, {"model": state, "x": "y"}):
        save_tensors(content, tmp_path / "model.pt")
        assert read_weights(tmp_path / "model.pt").keys() == state.keys()
    for content in ({}, {"epoch": 3}, [torch.ones(1)], {"network": {"a": 1}}):
        save_tensors(content, tmp_path / "model.pt")
        with pytest.raises(UserError, match="holds no weights"):
            read_weights(tmp_path / "model.pt")
    (tmp_path / "model.pt").write_bytes(b"no weights")
    with pytest.raises(UserError, match="is not a readable file of weights"):
        read_weights(tmp_path / "model.pt")
    with pytest.raises(UserError, match="does not exist; name a file or a bundle"):
        read_weights(tmp_path / "none.pt")


def test_a_training_that_has_begun_does_not_read_the_file(tmp_path):
    (tmp_path / "checkpoint.pt").touch()
    network = nn.Linear(2, 2)
    assert load_initial_weights(network, tmp_path / "gone.pt", 2, tmp_path) is network
