"""What processes found of cases that were dealt out among them is what one process finds, to the last digit."""

from functools import partial, reduce
from operator import add

import pytest
import torch
from monai.data import Dataset
from monai.metrics import CumulativeAverage, DiceMetric
from tests.several import in_processes
from torch.utils.data import DataLoader

from medcalib.data.dealing import DealtCases, merged_rows, own_cases
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
    loader = own_cases(DataLoader(Dataset(cases), num_workers=0))
    dice, values, bins = DiceMetric(num_classes=3), ValueMetric(), BinStatisticsMetric(num_bins=5)
    names = []
    for batch in loader:
        index = int(batch["case"][0].removeprefix("case_"))
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


def found_by(rank, folder):
    folder = folder / str(rank)
    folder.mkdir()
    # of two cases, one process has none
    found = [found_in(cases_of(folder, number)) for number in (6, 2)]
    with pytest.raises(UserError, match="^the folder is full$"):
        from_first(fail)
    with pytest.raises(RuntimeError, match="0 results of 1 cases"):
        merged_rows([], DataLoader(range(6), sampler=DealtCases(cases_of(folder, 6))))
    with pytest.raises(UserError, match="files of different sizes"):
        DealtCases(cases_of(folder, 6)[rank:]).check()
    return found, (from_first(lambda: f"from {rank}"), gathered(rank), merged_rows([rank], None))


@pytest.fixture(scope="module")
def of_ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    return in_processes(NUM_PROCESSES, partial(found_by, folder=folder), folder / "results")


@pytest.mark.parametrize(("place", "number"), [(0, 6), (1, 2)])
def test_three_processes_find_what_one_finds(of_ranks, tmp_path, place, number):
    expected = found_in(cases_of(tmp_path, number))
    assert expected["cases"] == [f"case_{index}" for index in range(number)]
    # one after the other: the sum of Python 3.12 compensates what is lost
    assert expected["sum"] == reduce(add, VALUES[:number])
    for found, _ in of_ranks:
        assert found[place]["cases"] == expected["cases"]
        for name in expected.keys() - {"cases"}:
            torch.testing.assert_close(found[place][name], expected[name], rtol=0, atol=0, equal_nan=True, msg=name)


def test_values_come_in_the_order_of_the_ranks(of_ranks):
    for _, told in of_ranks:
        assert told == ("from 0", [0, 1, 2], [0, 1, 2])


def test_one_process_keeps_what_it_has():
    average = CumulativeAverage()
    merge_cases(average, None)
    assert merged_rows([3, 1, 2], None) == [3, 1, 2]
    assert from_first(lambda: 5) == 5
