"""A training that several processes share: one batch, one result."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from medcalib.data.shared_batches import shared_loader
from medcalib.losses.whole_batch import WholeBatchLoss
from medcalib.networks.synchronized_norm import synchronize_batch_norm
from medcalib.seeds import derived_seed

__all__ = ["SharedTrainer"]


class SharedTrainer(SupervisedTrainer):
    """A `monai.engines.SupervisedTrainer` whose batches are divided among the processes of a run.

    The batches are those of one process: each is divided as evenly as it can be, every case comes once an epoch, and
    the gradient is that of the whole batch up to rounding, whatever the loss, also with batch normalisation and where
    the last batch has fewer cases than there are processes. What a network draws while it is trained, such as the masks
    of dropout, each process draws for its own cases, so there the gradient is another draw than that of one process.

    Args:
        train_data_loader: as for one process; its ``batch_size`` is that of all together.
        network: on its device, not wrapped.
        loss_function: as for one process.
        **kwargs: as of the base.

    Raises:
        UserError: there are more processes than cases, or than cases in a batch.
    """

    def __init__(
        self, train_data_loader: DataLoader, network: nn.Module, loss_function: Callable, **kwargs: Any
    ) -> None:
        rank, processes = idist.get_rank(), idist.get_world_size()
        if processes == 1:
            super().__init__(
                train_data_loader=train_data_loader, network=network, loss_function=loss_function, **kwargs
            )
            return
        loader = shared_loader(train_data_loader, rank, processes)
        self._batches: Any = loader.batch_sampler
        self._norms = synchronize_batch_norm(network)
        self._rank = rank
        self._whole = WholeBatchLoss(loss_function)
        super().__init__(train_data_loader=loader, network=_parallel(network), loss_function=self._whole, **kwargs)
        self.add_event_handler(Events.ITERATION_STARTED, self._share)

    def _share(self, _engine: Engine) -> None:
        state: Any = self.state
        number = (state.iteration - 1) % state.epoch_length
        if number == 0 and self._rank:
            # all were seeded alike for the order of the cases, which has been drawn by now
            torch.manual_seed(derived_seed(torch.initial_seed() % 2**32, self._rank))
        self._whole.sizes = self._batches.sizes(number)
        for norm in self._norms:
            norm.counts = self._whole.sizes[self._rank] > 0


def _parallel(network: nn.Module) -> DistributedDataParallel:
    on_gpu = next(network.parameters()).is_cuda
    # of channels last; the gradients are right
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    # buckets of gradients that are made anew after the first step would be summed in another order after a resumption;
    # where parameters may be unused, they are not
    return DistributedDataParallel(
        network, device_ids=[torch.cuda.current_device()] if on_gpu else None, find_unused_parameters=True
    )
