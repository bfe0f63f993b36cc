"""Deal the cases of a dataset out among processes, and bring what they find back into the order of the dataset."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from torch.utils.data import DataLoader, Sampler, SequentialSampler

from medcalib.data.loader_like import loader_like
from medcalib.errors import UserError
from medcalib.gathering import gathered
from medcalib.keys import CaseKeys
from medcalib.process_group import num_processes, process_rank

__all__ = ["DealtCases", "case_size", "deal_cases", "merged_rows", "own_cases"]

Row = TypeVar("Row")


def deal_cases(sizes: Sequence[int], number: int) -> list[list[int]]:
    """Divide cases among processes: the largest first, each to the process that has least to do so far.

    No process has more to do than 4/3 of what the best division leaves to the busiest (Graham,
    https://doi.org/10.1137/0117039).

    Args:
        sizes: what a case costs, in any unit.
        number: number of processes; those that are more than there are cases get none.

    Returns:
        For each process the indices of its cases, the largest first, those of one size in their order.

    Example:
        >>> deal_cases([1, 5, 2, 4], number=2)
        [[1, 0], [3, 2]]
    """
    shares: list[list[int]] = [[] for _ in range(number)]
    # where all sizes are 0, the number of cases decides
    least = [(0, 0, process) for process in range(number)]
    for index in sorted(range(len(sizes)), key=lambda index: (-sizes[index], index)):
        load, cases, process = least[0]
        shares[process].append(index)
        heapq.heapreplace(least, (load + sizes[index], cases + 1, process))
    return shares


def case_size(case: Mapping[str, Any]) -> int:
    """Bytes of the image files of a case, which tell what it costs without reading them; 0 of those not there.

    Example:
        >>> case_size({"case": "a", "image": ["/no/such/file", "/nor/this"]})
        0
    """
    image = case.get(CaseKeys.IMAGE)
    files = [image] if isinstance(image, str | os.PathLike) else image or []
    paths = [Path(file) for file in files if isinstance(file, str | os.PathLike)]
    return sum(path.stat().st_size for path in paths if path.exists())


class DealtCases(Sampler[int]):
    """The cases of a dataset that this process looks at, where several share a run.

    Args:
        cases: all cases of the dataset, in its order, the same in every process.

    Attributes:
        shares: indices of the cases of each process.

    Example:
        >>> list(DealtCases([{"case": "a", "image": "/no/such/file"}, {"case": "b", "image": "/nor/this"}]))
        [0, 1]
    """

    def __init__(self, cases: Sequence[Mapping[str, Any]]) -> None:
        self.shares = deal_cases([case_size(case) for case in cases], num_processes())

    def __iter__(self) -> Iterator[int]:
        """Indices of the cases of this process."""
        return iter(self.shares[process_rank()])

    def __len__(self) -> int:
        """How many cases this process has."""
        return len(self.shares[process_rank()])

    def check(self) -> None:
        """Check that all processes divide the cases alike; every process must call it.

        Raises:
            UserError: they do not, since they see other files.
        """
        if any(shares != self.shares for shares in gathered(self.shares)):
            raise UserError(
                "The processes of this run see image files of different sizes, so they would divide the cases "
                "differently; let all machines see the same files."
            )


def own_cases(data_loader: Any) -> Any:
    """A data loader like another one that yields the cases of this process alone.

    Args:
        data_loader: one that yields all cases of a dataset in its order, with the list of them as ``dataset.data`` if
            they are to be dealt out by their size.

    Returns:
        One with `DealtCases` as its sampler; the same one where there is one process, or where it is no
        `torch.utils.data.DataLoader` or draws its cases by a sampler of its own.

    Example:
        >>> own_cases(["a", "b"])
        ['a', 'b']
    """
    if num_processes() == 1 or not isinstance(data_loader, DataLoader):
        return data_loader
    if not isinstance(data_loader.sampler, SequentialSampler):
        return data_loader
    dataset: Any = data_loader.dataset
    sampler = DealtCases(getattr(dataset, "data", None) or [{}] * len(dataset))
    return loader_like(data_loader, batch_size=data_loader.batch_size, sampler=sampler)


def merged_rows(rows: Sequence[Row], data_loader: Any) -> list[Row]:
    """What all processes found of their cases, in the order of the dataset; every process must call it.

    So whatever is computed from the rows is the same as in one process, to the last digit.

    Args:
        rows: one value for each case that this process has seen, in the order in which it has seen them.
        data_loader: where the cases come from. Where its sampler is no `DealtCases`, rows follow each other by the
            ranks of the processes.

    Returns:
        Rows of all cases, in every process.

    Raises:
        RuntimeError: a process has not as many rows as cases.

    Example:
        >>> merged_rows(["a", "b"], data_loader=None)
        ['a', 'b']
    """
    if num_processes() == 1:
        return list(rows)
    sampler = getattr(data_loader, "sampler", None)
    if not isinstance(sampler, DealtCases):
        return [row for of_process in gathered(list(rows)) for row in of_process]
    found = gathered((list(sampler), list(rows)))
    placed: dict[int, Row] = {}
    for indices, of_process in found:
        if len(indices) != len(of_process):
            raise RuntimeError(f"A process has {len(of_process)} results of {len(indices)} cases.")
        placed |= dict(zip(indices, of_process, strict=True))
    return [placed[index] for index in range(len(placed))]
