import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from medcalib.functional import bin_statistics
from medcalib.metrics import BinStatisticsMetric, CalibrationErrorMetric


def cases():
    generator = torch.Generator().manual_seed(0)
    y_pred = torch.randn(5, 3, 4, 4, generator=generator).softmax(1)
    return y_pred, torch.randint(3, (5, 1, 4, 4), generator=generator)


def run_rank(rank, port, folder):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    y_pred, y = cases()
    mine = slice(0, 2) if rank == 0 else slice(2, 5)
    statistics, errors = BinStatisticsMetric(), CalibrationErrorMetric(calibration_reduction=["expected", "maximum"])
    for metric in (statistics, errors):
        metric(y_pred[mine], y[mine])
    torch.save([*statistics.aggregate(), *errors.aggregate().values()], folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_ranks_with_unequal_numbers_of_cases_gather_all_of_them(tmp_path, unused_port):
    mp.spawn(run_rank, args=(unused_port, tmp_path), nprocs=2)
    y_pred, y = cases()
    metric = CalibrationErrorMetric(calibration_reduction=["expected", "maximum"])
    metric(y_pred, y)
    expected = [*bin_statistics(y_pred, y), *metric.aggregate().values()]
    for rank in range(2):
        for ours, wanted in zip(torch.load(tmp_path / f"{rank}.pt"), expected, strict=True):
            torch.testing.assert_close(ours, wanted, rtol=1e-12, atol=0)


@pytest.fixture
def unused_port():
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]
