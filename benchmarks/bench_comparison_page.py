"""Time, memory and size of the page of a comparison: made-up evaluations of 200 cases by 20 methods.

    python benchmarks/bench_comparison_page.py [--methods=20] [--cases=200] [--seeds=1] [--predictions=12]

Prints the seconds and the largest memory of reading nothing but what is in memory, writing the page and its figures,
and the size of index.html. Comparing itself is not part of it. Run from the root of the repository.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

from harness import machine

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.comparison_page import made_up

from medcalib.comparison_page import PageContext, write_page


def peak() -> float:
    """Largest memory of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    given = dict(argument.removeprefix("--").split("=", 1) for argument in sys.argv[1:])
    methods, cases, seeds, predictions = (
        int(given.get(name, value))
        for name, value in {"methods": 20, "cases": 200, "seeds": 1, "predictions": 12}.items()
    )
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        names = ["baseline_dice_ce", *(f"softl1ace_dice_ce_mc_dropout_{number}" for number in range(1, methods))]
        made = made_up.of_segmentations(Path(folder) / "runs", names, range(seeds), num_cases=cases)
        made_up.add_predictions(made, shape=(96, 96, 48), cases=predictions)
        made_up.add_costs(made)
        before = peak()
        start, start_cpu = time.perf_counter(), time.process_time()
        page = write_page(made, Path(folder) / "out", PageContext(commands=["medcalib compare"]))
        seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
        print("| methods | cases | seeds | s | s of CPU | GB before | GB peak | index.html, MB | figures, MB |")
        print(f"|{' ---: |' * 9}")
        sizes = [page.stat().st_size, sum(path.stat().st_size for path in (page.parent / "figures").iterdir())]
        numbers = [seconds, cpu, before, peak(), *(size / 1e6 for size in sizes)]
        print(f"| {methods} | {cases} | {seeds} | {' | '.join(f'{number:.2f}' for number in numbers)} |")
        if target := given.get("keep"):
            Path(target).write_bytes(page.read_bytes())


if __name__ == "__main__":
    main()
