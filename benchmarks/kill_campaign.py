"""Kill trainings, fits, predictions and evaluations, and see what is lost.

    python benchmarks/kill_campaign.py --kills 60 --folder /tmp/kills

Half of the kills hit a run right before one of its file operations (renaming, removing, making a folder, writing
through to the disk), the others at a random moment. After each, what lies under final names must be complete; then the
same command is given again and must end with what a run that nobody disturbed ends with, bit for bit. The exit code is
1 if anything was lost, partial or different.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from medcalib.bundle.compose import generate
from medcalib.bundle.layout import Mode
from medcalib.bundle.opened import Bundle
from medcalib.bundle.run import run
from medcalib.bundle.templates import find_templates
from medcalib.data import make_phantom
from medcalib.errors import UserError
from medcalib.files.tensors import load_tensors

TEMPLATES = find_templates()
SIZE = {"num_training": 3, "num_validation": 1, "num_test": 2}
FEW_FIGURES = {
    "inference_pred": {"overlays::num_cases": 1},
    "inference_eval": {"evaluation::num_case_diagrams": 1, "quality_control::calibrate_threshold": False},
}
TINY = {
    **{f"data::cases::{name}": number for name, number in SIZE.items()},
    "network::init_filters": 4,
    "network::blocks_down": [1, 1],
    "data::max_epochs": 2,
    "data::patch_size": [16, 16, 16],
    "inferer::overlap": 0.0,
    "train::dataset::num_workers": 0,
    "validate::dataset::num_workers": 0,
}
OPERATIONS = ("rename", "replace", "link", "unlink", "mkdir", "rmdir", "fsync")
RESULTS = "seed_12345"
# file operations that replacing older results takes at least
MORE = 8


class Work(NamedTuple):
    """A kind of run.

    Attributes:
        name: of it.
        calibrated: whether it is a run of the bundle with the calibrator.
        mode: of the run.
        wanted: what it leaves, below the folder of results.
        before: what lies there before it is killed: nothing, or what an earlier run left.
    """

    name: str
    calibrated: bool
    mode: str
    wanted: str
    before: tuple[str, ...]


WORKS = (
    Work("train", False, "train", "models", ()),
    Work("fit", True, "train", "models", ()),
    Work("fit again", True, "train", "models", ("models",)),
    Work("predict", False, "inference_pred", "predictions", ("models",)),
    Work("predict again", False, "inference_pred", "predictions", ("models", "predictions")),
    Work("evaluate", False, "inference_eval", "evaluation", ("models",)),
    Work("evaluate again", False, "inference_eval", "evaluation", ("models", "evaluation")),
)


def forked(work: Callable[[], None], log: Path, operation: int | None = None, folder: Path | None = None) -> int:
    """Begin some work in a child process; it is killed before its file operation of that number in the folder."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        count = _count_operations(folder, operation)
        work()
        Path(f"{log}.operations").write_text(str(count[0]))
        code = 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _count_operations(folder: Path | None, deadly: int | None) -> list[int]:
    count = [0]

    def counted(operation: Callable) -> Callable:
        def call(what: object, *args: object, **kwargs: object) -> object:
            # what torch and Matplotlib do elsewhere is not this project's; open folders and files are known by number
            if isinstance(what, int) or kwargs.get("dir_fd") is not None or str(what).startswith(str(folder)):
                if count[0] == deadly:
                    os.kill(os.getpid(), signal.SIGKILL)
                count[0] += 1
            return operation(what, *args, **kwargs)

        return call

    for name in OPERATIONS:
        setattr(os, name, counted(getattr(os, name)))
    return count


def ended(child: int) -> int:
    """Wait for a child; its exit code, or the negative number of the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def difference(found: Path, wanted: Path) -> str | None:
    """The first file in which two folders of results differ; None if there is none."""
    names = {str(path.relative_to(root)) for root in (found, wanted) for path in root.rglob("*") if path.is_file()}
    for name in sorted(names):
        one, other = found / name, wanted / name
        if not one.exists() or not other.exists():
            return name
        if name.endswith(".pt"):
            if not _same(load_tensors(one), load_tensors(other)):
                return name
        # figures may name the time, and records the folder; numbers and volumes must not differ
        elif not name.endswith((".png", ".pdf", ".json")) and one.read_bytes() != other.read_bytes():
            return name
    return None


def _same(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one if key != "seconds")
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other


class Campaign:
    """Bundles that nobody disturbs, and copies of them that are killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.options = TINY | {"data::dataset_dir": str(folder / "phantom")}
        make_phantom(folder / "phantom", **SIZE)
        for method in ("deterministic", "temperature_scaling"):
            generate(TEMPLATES, folder / "whole", "phantom", "baseline_ce", method)
        # a calibrator's own bundle names its method last but one
        self.names = {
            "temperature_scaling" in path.name: path.name for path in (folder / "whole").iterdir() if path.is_dir()
        }
        for name in self.names.values():
            bundle = folder / "whole" / name
            for mode in Mode:
                # all that a run imports is imported once, before the processes that are killed are forked
                Bundle.open(bundle).workflow(mode, self.options)
        importlib.import_module("torch.utils.tensorboard")
        self.seconds, self.operations = {}, {}
        for work in WORKS:
            if work.name.endswith("again"):
                continue
            start = time.monotonic()
            code = ended(self._start(folder / "whole", work, folder / "whole.log"))
            self.seconds[work.name] = self.seconds[f"{work.name} again"] = time.monotonic() - start
            count = int((folder / "whole.log.operations").read_text()) if not code else 0
            self.operations |= {work.name: count, f"{work.name} again": count + MORE}
            print(f"{work.name}: {self.seconds[work.name]:.1f} s, {count} file operations", flush=True)
            if code:
                raise SystemExit(f"{work.name} fails undisturbed: {(folder / 'whole.log').read_text()[-2000:]}")

    def _start(self, root: Path, work: Work, log: Path, operation: int | None = None) -> int:
        bundle, options = root / self.names[work.calibrated], self.options | FEW_FIGURES.get(work.mode, {})
        return forked(lambda: run(str(bundle), work.mode, overrides=options), log, operation, root)

    def _copy(self, name: str, work: Work) -> Path:
        """A copy of both bundles as they are before the work."""
        root = self.folder / name
        for calibrated, bundle in self.names.items():
            source = self.folder / "whole" / bundle
            shutil.copytree(source, root / bundle, ignore=shutil.ignore_patterns("seed_*"))
            kept = work.before if calibrated == work.calibrated else ("models",)
            for part in kept if (source / RESULTS).exists() else ():
                shutil.copytree(source / RESULTS / part, root / bundle / RESULTS / part)
        return root

    def kill(self, number: int, work: Work, operation: int | None, moment: float) -> tuple[str, str]:
        """Kill a run, look at what it left, and run it again: when it was killed, and what is wrong."""
        root, log = self._copy(str(number), work), self.folder / f"{number}.log"
        results, whole = (path / self.names[work.calibrated] / RESULTS for path in (root, self.folder / "whole"))
        child = self._start(root, work, log, operation)
        if operation is None:
            time.sleep(moment)
            os.kill(child, signal.SIGKILL)
        code = ended(child)
        when = f"operation {operation}" if operation is not None else f"{moment:.1f} s"
        if code != -signal.SIGKILL:
            when += ", too late"
        wrong = [self._left(results, whole, work)]
        code = ended(self._start(root, work, log))
        if code:
            wrong.append(f"the next run ends with {code}: {log.read_text().strip()[-200:]}")
        for part in {work.wanted, "models"}:
            if different := difference(results / part, whole / part):
                wrong.append(f"{part}/{different} differs after the next run")
        if hidden := [path.name for path in results.rglob(".*") if path.name != ".lock"]:
            wrong.append(f"{hidden[0]} stays")
        shutil.rmtree(root)
        return when, "; ".join(filter(None, wrong))

    def _left(self, results: Path, whole: Path, work: Work) -> str:
        """What is wrong with what a killed run left under final names."""
        if work.wanted == "models":
            try:
                for path in (results / "models").glob("[!.]*.pt"):
                    load_tensors(path)
            except UserError as error:
                return str(error)
            lost = work.before and not (results / "models" / "calibrator.pt").exists()
            return "the older calibrator is lost" if lost else ""
        final = results / work.wanted
        if final.exists():
            different = difference(final, whole / work.wanted)
            return f"{different} is missing or partial under its final name" if different else ""
        if work.wanted in work.before:
            aside = next(results.glob(".replaced.*"), None)
            if aside is None or difference(aside, whole / work.wanted):
                return "the older results are lost"
        return ""


def main(kills: int, folder: Path, seed: int) -> int:
    """Run the campaign and print a table; the number of kills after which something was wrong."""
    torch.set_num_threads(1)
    campaign, numbers = Campaign(folder), random.Random(seed)
    rows: dict[str, list[tuple[str, str]]] = {work.name: [] for work in WORKS}
    for number in range(kills):
        work = WORKS[number % len(WORKS)]
        operation = numbers.randrange(campaign.operations[work.name]) if number // len(WORKS) % 2 == 0 else None
        moment = numbers.uniform(0, 1.1 * campaign.seconds[work.name])
        rows[work.name].append(campaign.kill(number, work, operation, moment))
        when, wrong = rows[work.name][-1]
        print(f"{number + 1:3d} {work.name:<15} killed at {when:<22} {wrong or 'nothing lost'}", flush=True)
    print(f"\n| run | file operations | kills | between two of them | too late | wrong |\n|{' --- |' * 6}")
    failures = 0
    for name, outcomes in rows.items():
        wrong = sum(bool(problem) for _, problem in outcomes)
        between = sum(when.startswith("operation") for when, _ in outcomes)
        late = sum("late" in when for when, _ in outcomes)
        print(f"| {name} | {campaign.operations[name]} | {len(outcomes)} | {between} | {late} | {wrong} |")
        failures += wrong
    return failures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder when left out")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        sys.exit(1 if main(options.kills, Path(made), options.seed) else 0)
