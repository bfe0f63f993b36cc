"""Runs that are stopped, meet a full disk, damaged files or each other, or have nothing to do."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
import torch
from tests.conftest import TEMPLATES
from tests.killed import killed_at

from medcalib.bundle import compose
from medcalib.bundle.compose import generate
from medcalib.bundle.layout import Mode
from medcalib.bundle.opened import Bundle
from medcalib.bundle.run import run
from medcalib.cli.command_line import run_command
from medcalib.errors import StoppedError, Terminated, UserError
from medcalib.files.locks import locked_folder
from medcalib.files.tensors import load_tensors
from medcalib.handlers import CheckpointHandler
from medcalib.handlers.checkpoint import finished_epochs, restore_weights


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of the trained bundle with its results."""
    return shutil.copytree(trained, tmp_path / trained.name)


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


class TestNothingToDo:
    @pytest.mark.parametrize("mode", list(Mode))
    @pytest.mark.parametrize("limit", [0, -1, 1.5, True, "3"])
    def test_a_number_of_cases_that_is_none(self, trained, tiny, mode, limit, capsys):
        before = contents(trained / "seed_12345")
        with pytest.raises(UserError, match="limit_cases"):
            run(str(trained), mode, overrides=tiny | {"limit_cases": limit})
        assert contents(trained / "seed_12345") == before
        assert "Results" not in capsys.readouterr().out

    def test_an_empty_part(self, trained, bundle, tiny, capsys):
        before = contents(trained / "seed_12345")
        nothing = {"split": "$dict(training=[], validation=[], test=[], calibration=[])"}
        for folder, mode, part in ((bundle, "train", "training"), (trained, "inference_pred", "test")):
            with pytest.raises(UserError, match=f"The {part} part of the dataset .* is empty"):
                run(str(folder), mode, overrides=tiny | nothing)
        assert contents(trained / "seed_12345") == before
        assert not (bundle / "seed_12345").exists()
        assert "Results" not in capsys.readouterr().out


class TestDamage:
    def edit(self, bundle, **values):
        path = bundle / "configs" / "metadata.json"
        metadata = json.loads(path.read_text())
        metadata["medcalib"] |= values
        path.write_text(json.dumps(metadata))

    @pytest.mark.parametrize("mode", list(Mode))
    def test_a_bundle_that_uses_its_own_weights(self, bundle, tiny, mode):
        self.edit(bundle, weights_bundle=bundle.name)
        with pytest.raises(UserError, match=r"metadata\.json names .* leads back to itself"):
            run(str(bundle), mode, overrides=tiny)

    def test_bundles_that_use_each_others(self, bundle, tmp_path, make_bundle, tiny):
        other = make_bundle(tmp_path, method="tta")
        self.edit(bundle, initial_weights_bundle=other.name)
        with pytest.raises(UserError, match=f"names {other.name} as the bundle.*leads back"):
            run(str(other), "train", overrides=tiny)

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"medcalib": {"digest": "x"}}', b'{"medcalib": 1}'])
    def test_metadata(self, bundle, content, tiny):
        (bundle / "configs" / "metadata.json").write_bytes(content)
        with pytest.raises(UserError, match=r"metadata\.json is missing, damaged"):
            run(str(bundle), "train", overrides=tiny)

    @pytest.mark.parametrize("content", [b"", b"[loggers]\n", b"\xff\xfe", b"[handlers]\nkeys=a\n[loggers]\nkeys=root"])
    def test_logging(self, bundle, content, tiny):
        (bundle / "configs" / "logging.conf").write_bytes(content)
        with pytest.raises(UserError, match=r"logging\.conf is missing or damaged"):
            run(str(bundle), "train", overrides=tiny)

    def test_the_record_of_the_training(self, copy, tiny):
        path = copy / "seed_12345" / "models" / "training.json"
        path.write_text(path.read_text()[:-20])
        with pytest.raises(UserError, match=r"training\.json.* is damaged"):
            run(str(copy), "train", overrides=tiny)

    def test_weights(self, copy, tiny):
        path = copy / "seed_12345" / "models" / "model.pt"
        damaged = bytearray(path.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        path.write_bytes(damaged)
        before = contents(copy / "seed_12345")
        with pytest.raises(UserError, match=r"model\.pt is not a readable checkpoint \(its checksum is wrong\)"):
            run(str(copy), "inference_pred", overrides=tiny)
        assert contents(copy / "seed_12345") == before


class TestOthersAtWork:
    def test_finished_weights_of_a_sibling_need_no_lock(self, trained, tiny, make_bundle, capsys):
        tta = make_bundle(trained.parent.parent, method="tta")
        with locked_folder(trained / "seed_12345"):
            run(str(tta), "train", overrides=tiny)
        assert "finished 2 of 2 epochs already" in capsys.readouterr().out

    def test_unfinished_weights_of_a_sibling_are_waited_for(self, copy, tmp_path, tiny, make_bundle, monkeypatch):
        tta = make_bundle(tmp_path / "other", method="tta")
        shutil.move(tta, copy.parent / tta.name)
        results = copy / "seed_12345"
        checkpoint = (results / "models" / "checkpoint.pt").read_bytes()
        (results / "models" / "checkpoint.pt").unlink()
        other = locked_folder(results)
        other.__enter__()

        def finished(_seconds):
            (results / "models" / "checkpoint.pt").write_bytes(checkpoint)
            other.__exit__(None, None, None)

        monkeypatch.setattr("medcalib.files.locks.time.sleep", finished)
        run(str(copy.parent / tta.name), "train", overrides=tiny)

    def test_the_very_same_run_is_refused_and_removes_nothing(self, bundle, tiny):
        with locked_folder(bundle / "seed_12345"):
            (bundle / "seed_12345" / "of_the_other").touch()
            with pytest.raises(UserError, match="Another run of this bundle and seed"):
                run(str(bundle), "train", overrides=tiny)
            assert (bundle / "seed_12345" / "of_the_other").exists()

    def test_a_bundle_that_is_generated_twice_at_once(self, tmp_path, monkeypatch):
        write, arguments = compose._write, (TEMPLATES, tmp_path, "phantom", "baseline_ce", "deterministic")

        def meanwhile(*args):
            with monkeypatch.context() as patch:
                patch.setattr(compose, "_write", write)
                assert generate(*arguments)[1]
            write(*args)

        monkeypatch.setattr(compose, "_write", meanwhile)
        bundle, created = generate(*arguments)
        assert not created
        assert [path.name for path in tmp_path.iterdir()] == [bundle.name]

    def test_one_of_several_processes(self, bundle, tiny, monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "2")
        with pytest.raises(UserError, match="one of 2 processes"):
            run(str(bundle), "train", overrides=tiny)
        assert not (bundle / "seed_12345").exists()

    @pytest.mark.parametrize("method", ["deterministic", "temperature_scaling"])
    @pytest.mark.parametrize("data", ["phantom", "phantom_cells"])
    def test_one_of_several_processes_of_monai(self, tmp_path, data, method, monkeypatch, make_bundle):
        bundle = make_bundle(tmp_path, data=data, method=method)
        for mode in Mode:
            first = Bundle.open(bundle).config(mode)["initialize"][0]
            assert first == {"_target_": "medcalib.processes.refuse_several_processes"}, mode


@contextmanager
def largest_file(size):
    """A disk that takes no more than so many bytes of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestFullDisk:
    def test_training(self, bundle, tiny, trained):  # which compiled the kernels, whose files are larger
        with (
            largest_file(20_000),
            pytest.raises(UserError, match=r"checkpoint\.pt cannot be written \(File too large\)"),
        ):
            run(str(bundle), "train", overrides=tiny)
        assert not [name for name in contents(bundle) if name.endswith(".pt") or "unfinished" in name]

    @pytest.mark.parametrize("mode", ["inference_pred", "inference_eval"])
    def test_predictions_and_evaluations(self, copy, tiny, mode):
        before = contents(copy / "seed_12345")
        with largest_file(300), pytest.raises(UserError, match=r"seed_12345\S* cannot be written \(File too large\)"):
            run(str(copy), mode, overrides=tiny)
        assert contents(copy / "seed_12345") == before


class TestKills:
    @pytest.mark.parametrize("epoch", [1, 2])
    def test_a_training_keeps_its_epoch_whatever_the_moment(self, tmp_path, epoch):
        """What the handler writes at the end of an epoch, killed before each of its file operations."""
        network = torch.nn.Linear(1, 1)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)

        class State:
            key_metric_name, max_epochs, iteration = None, 2, 2

        class Fake:
            state, scaler = State, None

        number, killed = 0, True
        while killed:
            folder = tmp_path / str(number)
            folder.mkdir()
            handler = CheckpointHandler(folder, network, optimizer, scheduler, Fake, snapshot_epochs=[epoch])
            for State.epoch in range(1, epoch):
                handler._save(Fake)
            State.epoch = epoch
            killed = killed_at(number, lambda handler=handler: handler._save(Fake))
            finished = finished_epochs(folder)
            assert finished in ((epoch,) if not killed else (epoch - 1, epoch))
            if finished:
                # nothing is lost, and what is missing is made again
                assert restore_weights(folder, [epoch]) == []
                load_tensors(folder / "model.pt")
            else:
                # the next run begins anew, and finds nothing that it would replace
                assert not list(folder.glob("[!.]*.pt"))
            number += 1
        assert number > 5

    def test_what_a_killed_run_left_goes(self, copy, tiny):
        left = "ffffffff-1-1-00000000"
        for folder in ("", "models", "configs", "cost"):
            (copy / "seed_12345" / folder / f".unfinished.{left}.x").write_text("half")
        run(str(copy), "inference_pred", overrides=tiny)
        assert not list(copy.rglob("*unfinished*"))


class TestSignals:
    @pytest.mark.parametrize(
        ("number", "code", "words"),
        [
            (signal.SIGINT, 130, "Interrupted;"),
            (signal.SIGTERM, 143, "Stopped by a request to end (SIGTERM);"),
            (signal.SIGUSR1, 138, "Stopped by a request to end (SIGUSR1);"),
        ],
    )
    def test_a_command_ends_with_a_sentence_and_a_code(self, number, code, words, capsys):
        before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
        with pytest.raises(SystemExit) as end:
            run_command(os.kill, os.getpid(), number)
        assert end.value.code == code
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {words}")
        assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == before

    def test_a_second_request_does_not_disturb_the_ending(self, capsys):
        """Schedulers ask every process of a run to end, and torchrun asks its own once more."""
        ended = []

        def work():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(10)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.1)
                ended.append(True)

        with pytest.raises(SystemExit) as end:
            run_command(work)
        assert ended
        assert end.value.code == 143
        assert len(capsys.readouterr().err.splitlines()) == 1

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
    def test_a_signal_that_python_swallows_stops_the_command_all_the_same(self, number, code, capsys):
        class Removed:
            def __del__(self):
                os.kill(os.getpid(), number)
                time.sleep(0)

        def work():
            Removed()
            for _ in range(1000):
                time.sleep(0.01)
            pytest.fail("the command went on")

        with pytest.raises(SystemExit) as end:
            run_command(work)
        assert end.value.code == code
        assert len(capsys.readouterr().err.splitlines()) == 1

    def test_a_training_says_how_to_go_on(self, bundle, tiny, monkeypatch):
        def stop(*_args):
            raise Terminated

        monkeypatch.setattr("medcalib.handlers.EpochSeedHandler.__call__", stop)
        with pytest.raises(StoppedError, match=r"SIGTERM.*the same command resumes") as error:
            run(str(bundle), "train", overrides=tiny)
        assert error.value.exit_code == 143

    @pytest.mark.parametrize("error", [MemoryError(), OSError(28, "No space left on device", "/x/y")])
    def test_lack_of_memory_and_disk_is_a_sentence(self, error, capsys):
        def fail():
            raise error

        with pytest.raises(SystemExit, match="2"):
            run_command(fail)
        assert len(capsys.readouterr().err.splitlines()) == 1

    def test_a_fault_of_the_program_keeps_its_traceback(self):
        with pytest.raises(ZeroDivisionError):
            run_command(lambda: 1 / 0)

    def test_a_worker_is_stopped_by_the_main_process_alone(self):
        code = (
            "import os, signal, time\n"
            "from medcalib.cli.command_line import run_command\n"
            "def work():\n"
            "    child = os.fork()\n"
            "    if child == 0:\n"
            "        os.kill(os.getpid(), signal.SIGINT)\n"
            "        os._exit(7)\n"
            "    print(os.waitpid(child, 0)[1] >> 8)\n"
            "run_command(work)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "7\n", "")
