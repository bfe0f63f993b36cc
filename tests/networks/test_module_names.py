"""Names and patterns of modules."""

import pytest
from monai.networks.nets import DynUNet, SegResNetDS
from torch import nn

from medcalib.errors import UserError
from medcalib.networks.module_names import match_modules

NETWORK = SegResNetDS(2, 4, 1, 2, blocks_down=(1, 2), dsdepth=1)


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["encoder.conv_init"], ["encoder.conv_init"]),
        (
            ["encoder.layers.*.blocks.*"],
            ["encoder.layers.0.blocks.0", "encoder.layers.1.blocks.0", "encoder.layers.1.blocks.1"],
        ),
        (["*"], ["encoder"]),
        (["**.head"], ["up_layers.0.head"]),
        (["**.up_layers.**.norm?"], ["up_layers.0.blocks.0.norm1", "up_layers.0.blocks.0.norm2"]),
        (["encoder.**.blocks"], ["encoder.layers.0.blocks", "encoder.layers.1.blocks"]),
        # in the order of the network, each once
        (["up_layers.0.head", "encoder", "**.head"], ["encoder", "up_layers.0.head"]),
    ],
)
def test_patterns(patterns, names):
    found = match_modules(NETWORK, patterns)
    assert list(found) == names
    assert all(module is NETWORK.get_submodule(name) for name, module in found.items())


@pytest.mark.parametrize("pattern", ["up_layers", "up_layers.0", "blocks", "up_layers.*.heads", "encoder.", ""])
def test_what_matches_nothing_is_an_error_with_names_near_it(pattern):
    with pytest.raises(UserError, match="matches no module of SegResNetDS; among its modules are"):
        match_modules(NETWORK, ["encoder", pattern])
    with pytest.raises(UserError, match=r"are .*up_layers\.0\.head"):
        match_modules(NETWORK, ["up_layers.0.haed"])


@pytest.mark.parametrize("patterns", ["encoder", []])
def test_a_list_is_needed(patterns):
    with pytest.raises(UserError, match="must be a list"):
        match_modules(NETWORK, patterns)


def test_a_module_with_several_names_is_found_by_each_but_once():
    network = DynUNet(2, 1, 2, [3] * 3, [1, 2, 2], [2, 2], filters=[2, 2, 2])
    assert next(iter(match_modules(network, ["bottleneck", "skip_layers.**"]))) == "bottleneck"
    found = match_modules(network, ["**"]).values()
    assert len(set(found)) == len(found)
    (module,) = match_modules(network, ["skip_layers.next_layer.next_layer"]).values()
    assert module is network.bottleneck


def test_modules_that_are_never_called_do_not_match():
    network = nn.Sequential(nn.ModuleList([nn.ReLU()]))
    assert list(match_modules(network, ["**"])) == ["0.0"]
