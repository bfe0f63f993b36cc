"""Kill a process of a training that several share, at a random moment, and see whether it goes on to the same weights.

    python benchmarks/kill_shared_training.py --kills 20 --processes 2 --folder /tmp/kills

After each kill all other processes must end within seconds, with a code that is not 0, and leave nothing half-written
under a final name; then the same command is given again, without a kill, and must end with what a training that nobody
disturbed ends with, bit for bit. The exit code is 1 if anything was lost or different.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

import torch

from medcalib.bundle.compose import generate
from medcalib.bundle.layout import Mode
from medcalib.bundle.opened import Bundle
from medcalib.bundle.run import run
from medcalib.bundle.templates import find_templates
from medcalib.data import make_phantom
from medcalib.errors import UserError
from medcalib.files.tensors import load_tensors
from medcalib.process_group import joined_group

SIZE = {"num_training": 5, "num_validation": 2, "num_test": 1}
OPTIONS = {
    **{f"data::cases::{name}": number for name, number in SIZE.items()},
    "network::init_filters": 4,
    "network::blocks_down": [1, 1],
    "data::max_epochs": 4,
    "data::batch_size": 4,
    "data::patch_size": [16, 16, 16],
    "inferer::overlap": 0.0,
    "train::dataset::num_workers": 0,
    "validate::dataset::num_workers": 0,
}
# seconds that the others may take to end, on a machine that may have other load
PATIENCE = 120
# seconds for which processes wait for each other as they begin
JOIN_SECONDS = 15


def started(bundle: Path, options: dict, processes: int, log: Path) -> list[int]:
    """Fork the processes of a training; their numbers."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(processes):
        child = os.fork()
        if child:
            children.append(child)
            continue
        code = 1
        try:
            with log.with_suffix(f".{rank}").open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(processes)}
            # without torchrun, nobody tells those that wait for each other as they begin that one of them is gone
            os.environ |= {"MEDCALIB_JOIN_SECONDS": str(JOIN_SECONDS)}
            os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
            with joined_group("cpu"):
                run(str(bundle), Mode.TRAIN, overrides=options)
            code = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    return children


def ended(children: list[int], seconds: float) -> list[int | None]:
    """Exit codes of processes that end within some seconds; None for others, which are killed."""
    codes: dict[int, int | None] = {}
    until = time.monotonic() + seconds
    while len(codes) < len(children) and time.monotonic() < until:
        for child in set(children) - codes.keys():
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                codes[child] = os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    for child in set(children) - codes.keys():
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        codes[child] = None
    return [codes[child] for child in children]


def same(one: object, other: object) -> bool:
    """Whether two states of trainings are equal, bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)  # type: ignore[arg-type]
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)  # type: ignore
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))  # type: ignore
    return one == other


def main(kills: int, processes: int, folder: Path, seed: int) -> int:
    """Run the campaign and print a table; the number of kills after which something was wrong."""
    torch.set_num_threads(1)
    numbers = random.Random(seed)
    options = OPTIONS | {"data::dataset_dir": str(folder / "phantom")}
    make_phantom(folder / "phantom", **SIZE)
    whole = generate(find_templates(), folder / "whole", "phantom", "softl1ace_dice_ce", "deterministic")[0]
    # all that a run imports is imported once, before processes are forked
    Bundle.open(whole).workflow(Mode.TRAIN, options)
    start = time.monotonic()
    if any(ended(started(whole, options, processes, folder / "whole.log"), 3600)):
        raise SystemExit((folder / "whole.0").read_text()[-2000:])
    seconds = time.monotonic() - start
    wanted = {path.name: load_tensors(path) for path in (whole / "seed_12345" / "models").glob("*.pt")}
    print(f"undisturbed: {seconds:.1f} s with {processes} processes\n", flush=True)
    print(
        "| kill | process | after (s) | others ended after (s) | their codes | epochs kept | then |\n|" + " --- |" * 7
    )
    failures = 0
    for number in range(kills):
        bundle = shutil.copytree(whole, folder / str(number) / whole.name, ignore=shutil.ignore_patterns("seed_*"))
        children = started(bundle, options, processes, folder / f"{number}.log")
        victim, moment = numbers.randrange(processes), numbers.uniform(0.0, 1.0) * seconds
        time.sleep(moment)
        os.kill(children[victim], signal.SIGKILL)
        start = time.monotonic()
        codes = ended(children, PATIENCE)
        took = time.monotonic() - start
        others = [code for rank, code in enumerate(codes) if rank != victim]
        models, wrong = bundle / "seed_12345" / "models", []
        if None in others:
            wrong.append("others hang")
        if codes[victim] == -signal.SIGKILL and 0 in others:
            wrong.append("others end with 0")
        for rank in set(range(processes)) - {victim} if codes[victim] == -signal.SIGKILL else ():
            last = (folder / f"{number}.{rank}").read_text().strip().rpartition("\n")[2]
            if not last.startswith(("PeerLostError", "UserError: Not all of the")):
                wrong.append(f"process {rank} says {last!r}")
        try:
            kept = max([0, *(load_tensors(path)["epoch"] for path in models.glob("checkpoint.pt"))])
            for path in models.glob("[!.]*.pt"):
                load_tensors(path)
        except UserError as error:
            kept = 0
            wrong.append(str(error))
        if any(ended(started(bundle, options, processes, folder / f"{number}.again"), 3600)):
            wrong.append("the next run fails")
        else:
            found = {path.name: load_tensors(path) for path in models.glob("*.pt")}
            wrong += [] if same(found, wanted) else ["other weights"]
        wrong += [f"{path.name} stays" for path in bundle.rglob(".*") if path.name != ".lock"]
        failures += bool(wrong)
        told = "; ".join(wrong) or "same weights"
        print(f"| {number + 1} | {victim} | {moment:.1f} | {took:.1f} | {others} | {kept} | {told} |", flush=True)
    print(f"\n{kills} kills, {failures} with something wrong")
    return failures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder when left out")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.folder is not None:
        arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as made:
        sys.exit(1 if main(arguments.kills, arguments.processes, Path(made), arguments.seed) else 0)
