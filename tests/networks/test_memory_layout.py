"""The layout of networks in memory."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from medcalib.networks import ImageClassifier
from medcalib.networks.memory_layout import fast_layout

# a crash would end the tests, too
STEPS = """
import torch
from medcalib.networks import ImageClassifier
from medcalib.networks.memory_layout import fast_layout
torch.manual_seed(0)
network = ImageClassifier(3, 2, "basic", [1, 1, 1, 1], [8, 16, 32, 64], hidden=[])
network.to(memory_format=fast_layout(network))
for _ in range(3):
    network(torch.rand(4, 3, 224, 224)).square().mean().backward()
"""


def test_a_narrow_resnet_trains():
    assert subprocess.run([sys.executable, "-c", STEPS], timeout=120).returncode == 0


@pytest.mark.parametrize(
    ("widths", "layout"),
    [
        ([64, 128, 256, 512], torch.channels_last),
        ([16, 16, 32, 64], torch.channels_last),
        ([8, 16, 32, 64], torch.contiguous_format),
        ([16, 32, 8, 64], torch.contiguous_format),
        # nothing with a stride reads the last ones
        ([16, 16, 16, 8], torch.channels_last),
    ],
)
def test_channels_come_last_where_that_is_safe(widths, layout):
    with torch.device("meta"):
        network = ImageClassifier(3, 2, "basic", [1, 1, 1, 1], widths)
    assert fast_layout(network) is layout


def test_axes_and_other_convolutions_count():
    assert fast_layout(nn.Conv3d(4, 8, 3, stride=2)) is torch.channels_last_3d
    assert fast_layout(nn.Conv3d(4, 8, 1, stride=2)) is torch.contiguous_format
    assert fast_layout(nn.Conv2d(4, 8, 1)) is torch.channels_last
    assert fast_layout(nn.Conv2d(4, 8, 3, stride=2)) is torch.channels_last
    assert fast_layout(nn.Conv2d(64, 64, 1, stride=2, groups=64)) is torch.contiguous_format
