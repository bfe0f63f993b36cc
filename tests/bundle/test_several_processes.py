"""Prediction and evaluation on three processes leave what one process leaves, letter for letter."""

import shutil

import numpy as np
import pytest
from tests.conftest import PHANTOM_SIZE
from tests.several import in_processes

from medcalib.bundle.run import run
from medcalib.data import phantom_cases
from medcalib.files.writing import read_json

NUM_PROCESSES = 3


def content(path):
    if path.suffix == ".npz":
        return [(name, array.dtype, array.tobytes()) for name, array in sorted(np.load(path).items())]
    return path.read_bytes()


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

    def run_all(_rank):
        for arguments in runs:
            run(**arguments)

    in_processes(NUM_PROCESSES, run_all, tmp_path / "processes")

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
