"""Sums over a volume: the same bits wherever in memory the volume lies."""

import pytest
import torch

from medcalib.functional.sums import softmax_sums


@pytest.mark.parametrize("soft", [True, False])
def test_sums_do_not_depend_on_where_in_memory_a_volume_lies(soft):
    """A compiled loop must not add in another order where its arrays happen to be neighbours.

    A training would else end with other weights from one time to the next.
    """
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(1, 2, 1000, generator=generator)
    labels = torch.randint(0, 2, (1, 1, 1000), generator=generator)
    kept, found = [], set()
    for _ in range(2000):
        kept.append(logits.clone())
        sums = softmax_sums(kept[-1], labels, 10, soft=soft)
        found.add(torch.stack([*sums[1:], *(bins.sum(-1) for bins in sums.bins[:2])]).numpy().tobytes())
    assert len(found) == 1
