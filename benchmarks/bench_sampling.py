"""What the uncertainty methods cost on a SegResNetDS with 16 filters and windows of 64^3.

python benchmarks/bench_sampling.py
"""

from __future__ import annotations

import argparse
import os
from functools import partial

import torch
from harness import alternate, machine, memory_of_sides, peak_memory, report
from monai.inferers import SimpleInferer
from monai.networks.nets import SegResNetDS
from torch import nn

from medcalib.inferers import HeadSampler, MCDropoutSampler, SamplingInferer, TTASampler
from medcalib.networks import LayerEnsemble, insert_dropout

NUM_CLASSES = 3
DECODER = ["up_layers.*.blocks.*"]
LAYERS = ["encoder.layers.*.blocks", "up_layers.*.blocks"]
IMAGE = torch.rand(1, 1, 64, 64, 64, generator=torch.Generator().manual_seed(0))


def segresnet() -> nn.Module:
    """The network, always with the same weights."""
    torch.manual_seed(0)
    return SegResNetDS(in_channels=1, out_channels=NUM_CLASSES, init_filters=16, blocks_down=(1, 2, 2, 4), dsdepth=2)


def ready(network: nn.Module) -> nn.Module:
    """The network as bundles use it for prediction."""
    return network.eval().to(memory_format=torch.channels_last_3d)


def sampling(network: nn.Module, sampler: object = None) -> torch.Tensor:
    """One prediction with all maps."""
    return SamplingInferer(SimpleInferer(), sampler).predict(IMAGE, network)["pred"]


@torch.no_grad()
def times(repeats: int) -> None:
    """Print a table for each method."""
    dropout = ready(insert_dropout(segresnet(), DECODER, p=0.5))
    fast, plain = MCDropoutSampler(20), MCDropoutSampler(20, reuse=False)
    assert torch.equal(sampling(dropout, fast), sampling(dropout, plain))
    sides = {"20 plain passes": partial(sampling, dropout, plain), "reuse": partial(sampling, dropout, fast)}
    report("decoder dropout, 20 members, equal results", alternate(sides, repeats), "20 plain passes")

    network = ready(segresnet())
    layers = ready(LayerEnsemble(segresnet(), LAYERS, NUM_CLASSES, IMAGE.shape[1:]))
    sides = {
        "deterministic": partial(sampling, network),
        "layer_ensemble": partial(sampling, layers, HeadSampler()),
        "tta, 8 views": partial(sampling, network, TTASampler(flip_axes=[0, 1, 2])),
    }
    report(f"one pass, {len(layers.heads) + 1} heads; 8 views", alternate(sides, 3 * repeats), "deterministic")


@torch.no_grad()
def memory(num_members: int) -> None:
    """Print by how many bytes memory rises in a prediction with so many members, their agreement included."""
    network = ready(insert_dropout(segresnet(), DECODER, p=0.5))
    inferer = SamplingInferer(SimpleInferer(), MCDropoutSampler(num_members), measure_agreement=True)
    print(peak_memory(partial(inferer.predict, IMAGE, network)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", help="measure the memory of so many members")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    if arguments.side:
        memory(int(arguments.side))
        return
    print(machine())
    times(arguments.repeats)
    # each tensor gets memory of its own, so that what tensors hold is measured and not how the heap is cut up
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
    sides = memory_of_sides(__file__, ["5", "50"])
    report("peak memory above the network and the image", sides, "5", "MiB", 2**-20)


if __name__ == "__main__":
    main()
