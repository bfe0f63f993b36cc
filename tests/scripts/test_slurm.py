"""What the jobs for SLURM start, with stand-ins for its commands; scripts/check_slurm.sh tries them on a real one."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml
from tests.conftest import REPOSITORY

JOB = {"SLURM_JOB_ID": "70", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_CPUS_ON_NODE": "8"}
# notes how it is called, and as a run that gets a signal waits until it is asked to end
COMMAND = f"""#!{sys.executable}
import json, os, sys, time
from pathlib import Path
name = Path(sys.argv[0]).name
with open("calls", "a") as calls:
    calls.write(json.dumps([name, *sys.argv[1:]]) + "\\n")
if sys.argv[1:3] == ["show", "hostnames"]:
    print("n1\\nn2")
elif name == "scancel":
    Path("asked").touch()
elif name == "srun" and "WAITS" in os.environ:
    while not Path("asked").exists():
        time.sleep(0.02)
    sys.exit(143)
sys.exit(int(os.environ.get("EXIT", 0)) if name == "srun" else 0)
"""


@pytest.fixture
def job(tmp_path):
    """Start the script of a job with variables of SLURM; returns its process."""
    (tmp_path / "bin").mkdir()
    for name in ("srun", "scontrol", "scancel", "sleep"):
        (tmp_path / "bin" / name).write_text(COMMAND)
        (tmp_path / "bin" / name).chmod(0o755)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}

    def start(script, *options, **variables):
        environment = inherited | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"} | JOB | variables
        command = ["bash", REPOSITORY / "scripts" / f"slurm_{script}.sh", *options]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, cwd=tmp_path, env=environment, **streams)

    return start


@pytest.fixture
def started(job, tmp_path):
    """Run the script of a job to its end; returns what srun was told to start."""

    def run(*arguments, **variables):
        process = job(*arguments, **variables)
        output = process.communicate()[0]
        assert process.returncode == 0, output
        (call,) = [call for call in calls(tmp_path) if call[0] == "srun"]
        return call

    return run


def calls(folder):
    return [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


class TestTraining:
    def test_one_process(self, started):
        call = started("train", "--bundle", "net", "--seed", "3")
        assert call[call.index("python") :] == [
            *("python", "-m", "medcalib.cli", "run", "--bundle", "net", "--seed", "3", "--mode", "train"),
        ]

    def test_a_process_for_each_gpu_of_each_node(self, started):
        call = started(
            *("train", "--bundle", "net", "--mode=inference_pred"),
            **{"SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "4", "SLURM_CPUS_PER_TASK": "32"},
        )
        assert call[1 : call.index("python")] == [
            *("--ntasks=2", "--ntasks-per-node=1", "--cpus-per-task=32", "--kill-on-bad-exit=1"),
        ]
        assert call[call.index("python") :] == [
            *("python", "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "4", "--max_restarts", "0"),
            *("--rdzv_backend", "c10d", "--rdzv_id", "70.0", "--rdzv_endpoint", "n1:20070"),
            *("-m", "medcalib.cli", "run", "--bundle", "net", "--mode=inference_pred"),
        ]

    @pytest.mark.parametrize(("given", "seed"), [([], ["--seed", "5"]), (["--seed=7"], [])])
    def test_an_array_of_jobs_is_one_of_seeds(self, started, given, seed):
        call = started("train", "--bundle", "net", *given, SLURM_ARRAY_TASK_ID="5")
        assert call[call.index("run") :] == ["run", "--bundle", "net", *given, "--mode", "train", *seed]

    def test_a_failure_is_that_of_the_job(self, job, tmp_path):
        process = job("train", "--bundle", "net", EXIT="2")
        process.communicate()
        assert process.returncode == 2
        assert ["scontrol", "requeue", "70"] not in calls(tmp_path)


class TestStudy:
    def test_ray_runs_around_the_study(self, started):
        call = started("study", "my study.yaml", "--gpus_per_run=0.5", SLURM_JOB_NUM_NODES="2")
        assert call[call.index("ray") :] == [
            *("ray", "--address=n1:20070", "--min-nodes=2", "--", "python", "-m", "medcalib.cli", "study"),
            *("my study.yaml", "--gpus_per_run=0.5", "--engine", "ray", "--address", "auto"),
        ]


@pytest.mark.parametrize("script", ["train", "study"])
class TestWallTime:
    def stopped(self, job, folder, script, **variables):
        """A job that gets the signal; returns its exit code and what it printed."""
        process = job(script, "--bundle", "net", WAITS="true", **variables)
        deadline = time.monotonic() + 60
        while not (folder / "calls").exists() or not any(call[0] == "srun" for call in calls(folder)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGUSR1)
        output = process.communicate(timeout=60)[0]
        return process.returncode, output

    def test_the_run_is_stopped_and_its_job_goes_back(self, job, tmp_path, script):
        _, output = self.stopped(job, tmp_path, script)
        assert calls(tmp_path)[-3:-1] == [["scancel", "--signal=TERM", "70.0"], ["scontrol", "requeue", "70"]]
        assert "goes back into the queue" in output

    def test_not_for_ever(self, job, tmp_path, script):
        code, output = self.stopped(job, tmp_path, script, SLURM_RESTART_COUNT="3", MAX_REQUEUES="3")
        assert code == 1
        assert "submit it again" in output
        assert ["scontrol", "requeue", "70"] not in calls(tmp_path)

    def test_outside_of_a_job(self, job, script):
        process = job(script, "--bundle", "net", SLURM_JOB_ID="")
        assert "give it to sbatch" in process.communicate()[0]
        assert process.returncode == 2


@pytest.mark.parametrize(
    ("script", "options", "words"),
    [
        ("check_slurm", ["--nodes", "3"], "Unknown option '--nodes'"),
        ("check_image", ["--tag", "x"], "Unknown option '--tag'"),
        ("check_image", ["--base_archive"], "--base_archive needs a value"),
        ("check_image", ["--base_archive", "no.tar"], "no file 'no.tar'"),
        ("check_image", ["--base_archive", "a", "--base_image", "b"], "and not both"),
        ("check_image", ["--work", "/no/such/folder"], "'/no/such/folder' does not exist"),
    ],
)
def test_checks_refuse_what_they_do_not_know(script, options, words):
    command = ["bash", REPOSITORY / "scripts" / f"{script}.sh", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode in (1, 2)
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert words in line


def test_the_job_of_the_documentation_can_be_read():
    page = (REPOSITORY / "docs" / "cluster.md").read_text()
    described = yaml.safe_load(page[page.index("    apiVersion") : page.index("For studies, see")])
    (container,) = described["spec"]["template"]["spec"]["containers"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in described["spec"]["template"]["spec"]["volumes"]}
    assert container["command"][:2] == ["python", "run_bundle.py"]


@pytest.mark.parametrize("name", ["slurm_train", "slurm_study", "check_slurm", "check_image"])
def test_scripts_are_sound(name):
    path = REPOSITORY / "scripts" / f"{name}.sh"
    assert os.access(path, os.X_OK)
    assert subprocess.run(["bash", "-n", path]).returncode == 0
