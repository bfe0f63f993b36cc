"""What processes found of cases that were dealt out among them is what one process finds, to the last digit."""

import os
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from monai.metrics import CumulativeAverage, DiceMetric
from torch.utils.data import DataLoader

from medcalib.data.dealing import DealtCases, merged_rows
from medcalib.errors import UserError
from medcalib.gathering import from_first, gathered
from medcalib.metrics import BinStatisticsMetric
from medcalib.metrics.merging import merge_cases

NUM_PROCESSES = 3
# the sum of these depends on their order: it is 1 in that of the dataset, and 0 in that of the ranks
VALUES = [1e16, -1e16, 1.0, 1e16, -1e16, 1.0]


class ValueMetric(DiceMetric):
    """Adds numbers up in the order in which it holds them."""

    def aggregate(self):
        total = torch.zeros((), dtype=torch.float64)
        for value in self.get_buffer().flatten():
            total += value
        return total


def cases_of(folder, number):
    """Cases with files of different sizes, so that they are dealt out in another order than theirs."""
    cases = []
    for index, size in enumerate((1, 5, 3, 9, 2, 7)[:number]):
        (folder / str(index)).write_bytes(bytes(100 * size))
        cases.append({"case": f"case_{index}", "image": str(folder / str(index))})
    return cases


def prediction(index):
    generator = torch.Generator().manual_seed(index)
    return torch.rand(1, 3, 6, 5, generator=generator).softmax(1), torch.randint(3, (1, 1, 6, 5), generator=generator)


def found_in(cases):
    """Look at the cases of this process, and return what all processes found."""
    loader = DataLoader(range(len(cases)), sampler=DealtCases(cases))
    dice, values, bins = DiceMetric(num_classes=3), ValueMetric(), BinStatisticsMetric(num_bins=5)
    names = []
    for index in map(int, loader):
        pred, label = prediction(index)
        dice(pred.argmax(1, keepdim=True), label)
        bins(pred, label)
        values.append(torch.tensor([VALUES[index]], dtype=torch.float64))
        names.append(cases[index]["case"])
    for metric in (dice, values, bins):
        merge_cases(metric, loader)
    return {
        "cases": merged_rows(names, loader),
        "dice": dice.get_buffer(),
        "mean dice": dice.aggregate(),
        "values": values.get_buffer(),
        "sum": values.aggregate(),
        **bins.aggregate()._asdict(),
    }


def fail():
    raise UserError("the folder is full")


def run_rank(rank, port, folder):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=NUM_PROCESSES)
    # of two cases, one process has none
    found = [found_in(cases_of(folder / str(rank), number)) for number in (6, 2)]
    with pytest.raises(UserError, match="^the folder is full$"):
        from_first(fail)
    told = from_first(lambda: f"from {rank}"), gathered(rank), merged_rows([rank], None)
    few = DataLoader(range(6), sampler=DealtCases(cases_of(folder / str(rank), 6)))
    with pytest.raises(RuntimeError, match="0 results of 1 cases"):
        merged_rows([], few)
    torch.save([found, told], folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_three_processes_find_what_one_finds(tmp_path, unused_port):
    for rank in range(NUM_PROCESSES):
        (tmp_path / str(rank)).mkdir()
    mp.spawn(run_rank, args=(unused_port, tmp_path), nprocs=NUM_PROCESSES)
    for number, place in ((6, 0), (2, 1)):
        cases = cases_of(tmp_path / "0", number)
        values = torch.tensor(VALUES[:number], dtype=torch.float64)[:, None]
        pairs = [prediction(index) for index in range(number)]
        dice, bins = DiceMetric(num_classes=3), BinStatisticsMetric(num_bins=5)
        for pred, label in pairs:
            dice(pred.argmax(1, keepdim=True), label)
            bins(pred, label)
        expected = {
            "cases": [case["case"] for case in cases],
            "dice": dice.get_buffer(),
            "mean dice": dice.aggregate(),
            "values": values,
            "sum": torch.tensor(sum(VALUES[:number]), dtype=torch.float64),
            **bins.aggregate()._asdict(),
        }
        for rank in range(NUM_PROCESSES):
            found = torch.load(tmp_path / f"{rank}.pt", weights_only=False)[0][place]
            assert found["cases"] == expected["cases"]
            for name in expected.keys() - {"cases"}:
                torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0, equal_nan=True, msg=name)
    for rank in range(NUM_PROCESSES):
        told = torch.load(tmp_path / f"{rank}.pt", weights_only=False)[1]
        assert told == ("from 0", [0, 1, 2], [0, 1, 2])


def test_one_process_keeps_what_it_has():
    average = CumulativeAverage()
    merge_cases(average, None)
    assert merged_rows([3, 1, 2], None) == [3, 1, 2]
    assert from_first(lambda: 5) == 5


@pytest.fixture
def unused_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]
