"""Prediction and evaluation on three processes leave what one process leaves, letter for letter."""

import os
import shutil
import socket

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tests.conftest import PHANTOM_SIZE

from medcalib.bundle.run import run
from medcalib.data import phantom_cases
from medcalib.files.writing import read_json

NUM_PROCESSES = 3
FIGURES = (".png", ".pdf")


def run_rank(rank, port, runs):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=NUM_PROCESSES)
    for arguments in runs:
        run(**arguments)
    dist.destroy_process_group()


def content(path):
    if path.suffix == ".npz":
        return [(name, array.dtype, array.tobytes()) for name, array in sorted(np.load(path).items())]
    # here figures are drawn in the other processes only, see the fixture figures_of_bundles
    return None if path.suffix in FIGURES else path.read_bytes()


def contents(folder):
    return {str(path.relative_to(folder)): content(path) for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
def test_three_processes_leave_what_one_leaves(trained, tiny, phantom_dir, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    # fewer than processes
    for case in phantom_cases(phantom_dir, **PHANTOM_SIZE)["test"][:2]:
        shutil.copy(case["image"], images)
    of_network = {id_: value for id_, value in tiny.items() if not id_.startswith("data::")}
    one, several = trained / "seed_12345", tmp_path / trained.name / "seed_12345"
    new = {"bundle": str(trained), "mode": "inference_pred", "images": str(images)}
    run(**new, overrides=of_network | {"output_dir": str(tmp_path / "new_1")})

    shutil.copytree(trained, tmp_path / trained.name)
    for name in ("predictions", "evaluation", "cost", "configs"):
        shutil.rmtree(several / name)
    runs = [
        {"bundle": str(several.parent), "mode": mode, "overrides": tiny}
        for mode in ("inference_pred", "inference_eval")
    ]
    runs.append(
        {**new, "bundle": str(several.parent), "overrides": of_network | {"output_dir": str(tmp_path / "new_3")}}
    )
    torch.set_num_threads(1)
    mp.spawn(run_rank, args=(unused_port(), runs), nprocs=NUM_PROCESSES)

    for mine, theirs in (
        (several / "predictions", one / "predictions"),
        (several / "evaluation", one / "evaluation"),
    ):
        assert contents(mine) == contents(theirs)
    found, wanted = contents(tmp_path / "new_3"), contents(tmp_path / "new_1")
    assert found.keys() == wanted.keys()
    # who wrote, how long it took, and that cases were dealt out
    of_run = {".lock", "cost/inference_pred.json", "configs/inference_pred.yaml"}
    assert {name for name in found if found[name] != wanted[name]} <= of_run
    for mode, number in (("inference_pred", PHANTOM_SIZE["num_test"]), ("inference_eval", PHANTOM_SIZE["num_test"])):
        cost = read_json(several / "cost" / f"{mode}.json", "")
        assert cost["num_cases"] == number
        assert cost["finished"] is True


def unused_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]
