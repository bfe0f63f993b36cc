"""Cases dealt out among processes: each once, the largest first, to whoever has least to do."""

import itertools
import random

import pytest

from medcalib.data.dealing import DealtCases, case_size, deal_cases


def random_sizes(seed):
    generator = random.Random(seed)
    return [generator.choice([0, 1, 7, 7, 100, 10**12]) for _ in range(generator.randrange(0, 30))]


def busiest(sizes, shares):
    return max(sum(sizes[index] for index in share) for share in shares)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("number", [1, 2, 3, 7, 40])
def test_every_case_is_dealt_once_and_the_largest_first(seed, number):
    sizes = random_sizes(seed)
    shares = deal_cases(sizes, number)
    assert len(shares) == number
    assert sorted(itertools.chain.from_iterable(shares)) == list(range(len(sizes)))
    for share in shares:
        assert share == sorted(share, key=lambda index: (-sizes[index], index))
    # where there are as many cases as processes, nobody has nothing to do
    assert sum(not share for share in shares) == max(number - len(sizes), 0)


@pytest.mark.parametrize("seed", range(20))
def test_the_busiest_process_has_at_most_four_thirds_of_the_least_it_could_have(seed):
    generator = random.Random(seed)
    sizes, number = [generator.randrange(1, 20) for _ in range(7)], 3
    best = min(
        busiest(sizes, [[i for i, owner in enumerate(owners) if owner == one] for one in range(number)])
        for owners in itertools.product(range(number), repeat=len(sizes))
    )
    assert busiest(sizes, deal_cases(sizes, number)) <= (4 / 3 - 1 / (3 * number)) * best


def test_cases_of_one_size_go_round():
    assert deal_cases([5] * 7, 3) == [[0, 3, 6], [1, 4], [2, 5]]
    assert deal_cases([0] * 4, 3) == [[0, 3], [1], [2]]


def test_the_size_of_a_case_is_that_of_its_image_files(tmp_path):
    for name, size in (("a", 10), ("b", 7)):
        (tmp_path / name).write_bytes(bytes(size))
    a, b = str(tmp_path / "a"), tmp_path / "b"
    assert case_size({"case": "x", "image": a, "label": str(b)}) == 10
    assert case_size({"case": "x", "image": [a, b, str(tmp_path / "missing")]}) == 17


def test_one_process_sees_all_cases(tmp_path):
    for index, size in enumerate((3, 9, 1)):
        (tmp_path / str(index)).write_bytes(bytes(size))
    cases = [{"case": str(index), "image": str(tmp_path / str(index))} for index in range(3)]
    assert sorted(DealtCases(cases)) == [0, 1, 2]
    assert len(DealtCases(cases)) == 3
