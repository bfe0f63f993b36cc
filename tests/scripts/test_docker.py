import json
import os
import pty
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent

RECORDER = f"""#!{sys.executable}
import json, os, sys
with open(os.environ["DOCKER_RECORD"], "a") as record:
    record.write(json.dumps(sys.argv[1:]) + "\\n")
if sys.argv[1:] == ["--version"]:
    print(os.environ.get("DOCKER_VERSION", "Docker version 28.2.2, build e6534b4"))
elif sys.argv[1] == "info":
    print(os.environ.get("DOCKER_SECURITY", "[name=seccomp,profile=builtin name=cgroupns]"))
elif sys.argv[1:3] == ["container", "inspect"]:
    if "DOCKER_RUNNING" not in os.environ:
        sys.exit("Error: No such container")
    print(os.environ["DOCKER_RUNNING"], os.environ.get("DOCKER_OWNER", "1003"))
elif sys.argv[1] == "run":
    print("0123456789abcdef")
    sys.exit(int(os.environ.get("DOCKER_EXIT", 0)))
"""


@pytest.fixture
def project(tmp_path):
    """The scripts in a project folder of their own, whose path has a space."""
    root = tmp_path / "my project"
    (root / "scripts").mkdir(parents=True)
    for name in ("docker_build.sh", "docker_run.sh"):
        (root / "scripts" / name).write_bytes((ROOT / "scripts" / name).read_bytes())
        (root / "scripts" / name).chmod(0o755)
    (root / "bundles" / "net_1").mkdir(parents=True)
    (root / "requirements.lock").touch()
    (root / "requirements-test.lock").touch()
    (root / "generate_bundle.py").touch()
    (root / "scripts" / "write_tables.py").touch()
    return root


ID = """#!/bin/sh
case "$1" in -u) echo 1003 ;; -g) echo 1004 ;; -un) echo ada ;; -G) echo 1004 27 ;; esac
"""


@pytest.fixture
def docker(project, tmp_path):
    """Run a script with a stand-in for docker first on PATH, which records how it is called; the user is ada, 1003."""
    (tmp_path / "bin").mkdir()
    for name, code in (("docker", RECORDER), ("id", ID)):
        (tmp_path / "bin" / name).write_text(code)
        (tmp_path / "bin" / name).chmod(0o755)
    count_gpus(tmp_path, 2)
    record = tmp_path / "record"

    def run(script, *arguments, cwd=project, streams=None, **environment):
        record.write_text("")
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("MEDCALIB_", "SUDO_"))}
        done = subprocess.run(
            [project / "scripts" / script, *arguments],
            cwd=cwd,
            env={**inherited, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "DOCKER_RECORD": str(record)}
            | environment,
            **(streams or {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}),
            text=True,
        )
        calls = [json.loads(line) for line in record.read_text().splitlines()]
        done.calls = [call for call in calls if call[0] not in ("--version", "info")]
        return done

    return run


def run_call(done):
    assert done.returncode == 0, done.stderr
    return done.calls[-1]


def count_gpus(folder, number):
    """Let nvidia-smi tell so many GPUs."""
    path = folder / "bin" / "nvidia-smi"
    path.write_text("#!/bin/sh\n" + "".join(f'echo "GPU {index}: NVIDIA H100"\n' for index in range(number)))
    path.chmod(0o755)


USER = ["--user", "1003:1004", "--group-add", "27"]


def arguments(project, data, *more, name, shm="32g"):
    """Of docker run, up to the image."""
    return [
        *("--name", name, "--label", "medcalib.user=1003", "--init", "--env", "HOME=/tmp", "--env", "USER=ada"),
        *("--shm-size", shm, "--mount", f"type=bind,source={project},target=/workspace/medcalib"),
        *("--mount", f"type=bind,source={data},target=/data", *USER, *more, "medcalib:latest"),
    ]


def pairs(call, option):
    return [value for key, value in pairwise(call) if key == option]


class TestLint:
    def test_hadolint(self):
        done = subprocess.run([TOOLS / "hadolint", ROOT / "Dockerfile"], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "")

    @pytest.mark.parametrize("name", ["docker_build.sh", "docker_run.sh"])
    def test_scripts_can_be_executed(self, name):
        assert os.access(ROOT / "scripts" / name, os.X_OK)


class TestRun:
    def test_exact_arguments(self, docker, project, tmp_path):
        (tmp_path / "medical data").mkdir()
        done = docker(
            "docker_run.sh",
            *("--mode", "train", "--bundle", "net_1", "--gpu", "0", "--cpus", "0-5", "--shm-size", "8g"),
            *("--seed", "7", "--data", str(tmp_path / "medical data"), "--train::trainer::max_epochs=3"),
            *("--description", "two words", "--note=a 'b' $c"),
        )
        assert done.returncode == 0
        assert done.stderr == ""
        name = "ada_net_1_train_seed_7"
        found, started = done.calls
        assert found[:3] == ["container", "inspect", "--format"]
        assert found[-1] == name
        assert started == [
            *("run", "--detach"),
            *arguments(
                *(project, tmp_path / "medical data", "--gpus", '"device=0"', "--cpuset-cpus", "0-5"),
                name=name,
                shm="8g",
            ),
            *("python", "run_bundle.py", "--bundle", "net_1", "--mode", "train", "--seed", "7"),
            *("--train::trainer::max_epochs=3", "--description", "two words", "--note=a 'b' $c"),
        ]

    def test_defaults(self, docker, project):
        done = docker("docker_run.sh", "--mode", "inference_eval", "--bundle", "net_1")
        assert run_call(done) == [
            *("run", "--detach"),
            *arguments(project, project / "data", name="ada_net_1_inference_eval_seed_12345"),
            *("python", "run_bundle.py", "--bundle", "net_1", "--mode", "inference_eval", "--seed", "12345"),
        ]
        assert (project / "data").is_dir()

    def test_both_forms_of_an_option_mean_the_same(self, docker, tmp_path):
        options = {"mode": "train", "bundle": "net_1", "gpu": "1", "cpus": "0,2", "shm-size": "1g", "seed": "3"}
        options |= {"data": str(tmp_path), "image": "medcalib:ada"}
        spaced = docker("docker_run.sh", *(part for key, value in options.items() for part in (f"--{key}", value)))
        joined = docker("docker_run.sh", *(f"--{key}={value}" for key, value in options.items()))
        assert run_call(spaced) == run_call(joined)
        assert "medcalib:ada" in run_call(joined)

    @pytest.mark.parametrize(
        ("gpu", "expected"),
        [("0", '"device=0"'), ("0,3", '"device=0,3"'), ("all", "all"), ("GPU-1a2b-3c", '"device=GPU-1a2b-3c"')],
    )
    def test_gpus(self, docker, gpu, expected):
        done = docker("docker_run.sh", "--mode", "train", "--bundle", "net_1", "--gpu", gpu)
        assert pairs(run_call(done), "--gpus") == [expected]

    def test_options_of_the_program_are_left_alone(self, docker, tmp_path):
        rest = ["--debug", "--data::dataset_dir=/data/x", "--data::num_workers", "2", "--gpu_memory=1", ""]
        done = docker("docker_run.sh", *rest[:2], "--mode=train", "--bundle=net_1", *rest[2:])
        assert run_call(done)[-len(rest) :] == rest
        assert pairs(run_call(done), "--name") == ["ada_net_1_train_seed_12345_debug"]

    def test_data_folder_of_the_environment(self, docker, tmp_path):
        (tmp_path / "sets").mkdir()
        done = docker("docker_run.sh", "--mode", "train", "--bundle", "net_1", MEDCALIB_DATA_DIR=str(tmp_path / "sets"))
        assert f"type=bind,source={tmp_path / 'sets'},target=/data" in run_call(done)

    @pytest.mark.parametrize(
        "bundle", ["net_1", "net_1/", "bundles/net_1", "./bundles/net_1/", "{project}/bundles/net_1"]
    )
    def test_bundle_by_name_or_path(self, docker, project, bundle):
        done = docker("docker_run.sh", "--mode", "train", "--bundle", bundle.format(project=project))
        assert pairs(run_call(done), "--bundle") == ["net_1"]
        assert pairs(run_call(done), "--name") == ["ada_net_1_train_seed_12345"]
        assert done.stderr == ""

    @pytest.mark.parametrize(("cwd", "bundle"), [("bundles", "./net_1"), ("scripts", "bundles/net_1")])
    def test_bundle_path_from_another_folder(self, docker, project, cwd, bundle):
        done = docker("docker_run.sh", "--mode", "train", "--bundle", bundle, cwd=project / cwd)
        assert pairs(run_call(done), "--bundle") == ["net_1"]

    def test_bundle_elsewhere_in_the_project(self, docker, project):
        (project / "other" / "net 2").mkdir(parents=True)
        done = docker("docker_run.sh", "--mode", "train", "--bundle", "other/net 2")
        assert pairs(run_call(done), "--bundle") == ["other/net 2"]
        assert pairs(run_call(done), "--name") == ["ada_net_2_train_seed_12345"]

    def test_warns_of_a_bundle_that_is_not_there(self, docker):
        done = docker("docker_run.sh", "--mode", "train", "--bundle", "net_9")
        assert done.returncode == 0
        assert "no bundle 'net_9'" in done.stderr

    def test_says_how_to_follow(self, docker):
        done = docker("docker_run.sh", "--mode", "train", "--bundle", "net_1")
        assert "docker logs -f ada_net_1_train_seed_12345" in done.stdout
        assert "docker stop ada_net_1_train_seed_12345" in done.stdout
        assert "0123456789abcdef" not in done.stdout

    def test_foreground_without_a_terminal(self, docker):
        done = docker("docker_run.sh", "--foreground", "--mode", "train", "--bundle", "net_1")
        call = run_call(done)
        assert call[:4] == ["run", "--rm", "--name", "ada_net_1_train_seed_12345"]
        assert not {"--detach", "--interactive", "--tty", "--foreground"} & set(call)

    def test_foreground_in_a_terminal(self, docker):
        main, terminal = pty.openpty()
        done = docker(
            *("docker_run.sh", "--foreground", "--mode", "train", "--bundle", "net_1"),
            streams={"stdin": terminal, "stdout": terminal},
        )
        os.close(main)
        os.close(terminal)
        assert {"--rm", "--interactive", "--tty"} < set(run_call(done))

    @pytest.mark.parametrize("foreground", [[], ["--foreground"]])
    def test_failure_of_docker_is_passed_on(self, docker, foreground):
        done = docker("docker_run.sh", "--mode", "train", "--bundle", "net_1", *foreground, DOCKER_EXIT="125")
        assert done.returncode == 125
        assert "Started" not in done.stdout

    def test_finished_container_makes_room(self, docker):
        done = docker("docker_run.sh", "--mode", "train", "--bundle", "net_1", DOCKER_RUNNING="false")
        assert done.calls[1] == ["container", "rm", "ada_net_1_train_seed_12345"]
        assert run_call(done)[0] == "run"

    def test_container_of_another_user_is_left_alone(self, docker):
        done = docker(
            "docker_run.sh", "--mode", "train", "--bundle", "net_1", DOCKER_RUNNING="false", DOCKER_OWNER="1009"
        )
        assert done.returncode == 2
        assert "'ada_net_1_train_seed_12345' is not yours" in done.stderr
        assert len(done.calls) == 1

    def test_running_container_is_left_alone(self, docker):
        done = docker("docker_run.sh", "--mode", "train", "--bundle", "net_1", DOCKER_RUNNING="true")
        assert done.returncode == 2
        assert "running already" in done.stderr
        assert len(done.calls) == 1

    @pytest.mark.parametrize(("gpu", "number"), [("0", []), ("0,1", ["2"]), ("GPU-4a,GPU-4b,GPU-4c", ["3"])])
    def test_a_run_uses_the_gpus_that_it_sees(self, docker, gpu, number):
        call = run_call(docker("docker_run.sh", "--mode", "train", "--bundle", "net_1", "--gpu", gpu))
        assert pairs(call, "--num_gpus") == number

    @pytest.mark.parametrize(("there", "number"), [(1, []), (4, ["4"])])
    def test_all_gpus_are_counted(self, docker, tmp_path, there, number):
        count_gpus(tmp_path, there)
        call = run_call(docker("docker_run.sh", "--mode", "train", "--bundle", "net_1", "--gpu", "all"))
        assert pairs(call, "--gpus") == ["all"]
        assert pairs(call, "--num_gpus") == number

    def test_gpus_that_nobody_counts(self, docker, tmp_path):
        count_gpus(tmp_path, 0)
        done = docker("docker_run.sh", "--mode", "train", "--bundle", "net_1", "--gpu", "all")
        assert done.returncode == 2
        assert "name them, as in --gpu 0,1" in done.stderr
        assert not done.calls

    @pytest.mark.parametrize("option", [["--num_gpus", "1"], ["--num_gpus=1"]])
    def test_number_of_gpus_that_is_given(self, docker, option):
        call = run_call(docker("docker_run.sh", "--mode", "train", "--bundle", "net_1", "--gpu", "0,1", *option))
        assert call[-len(option) :] == option
        assert sum(word.startswith("--num_gpus") for word in call) == 1

    def test_a_command_is_left_as_it_is(self, docker):
        call = run_call(docker("docker_run.sh", "--gpu", "0,1", "medcalib", "check", "--device_only"))
        assert "--num_gpus" not in call

    def test_options_of_docker(self, docker):
        options = ["--network", "none", "--env", "A=b c"]
        done = docker("docker_run.sh", "--mode", "train", "--bundle", "net_1", "--debug", "--", *options)
        call = run_call(done)
        image = call.index("medcalib:latest")
        assert call[image - len(options) : image] == options
        assert call[-1] == "--debug"

    def test_seed_is_written_in_one_way(self, docker):
        done = docker("docker_run.sh", "--mode", "train", "--bundle", "net_1", "--seed", "0008")
        assert pairs(run_call(done), "--seed") == ["8"]
        assert pairs(run_call(done), "--name") == ["ada_net_1_train_seed_8"]

    def test_caller_behind_sudo(self, docker):
        sudo = {"SUDO_UID": "1001", "SUDO_GID": "1002", "SUDO_USER": "grace"}
        call = run_call(docker("docker_run.sh", "--mode", "train", "--bundle", "net_1", **sudo))
        assert pairs(call, "--user") == ["1001:1002"]
        assert pairs(call, "--label") == ["medcalib.user=1001"]
        assert pairs(call, "--name") == ["grace_net_1_train_seed_12345"]

    def test_rootless_docker(self, docker):
        done = docker("docker_run.sh", "--mode", "train", "--bundle", "net_1", DOCKER_SECURITY="[name=rootless]")
        assert pairs(run_call(done), "--user") == ["0:0"]
        assert "--group-add" not in run_call(done)

    def test_podman(self, docker):
        done = docker(
            *("docker_run.sh", "--mode", "train", "--bundle", "net_1", "--gpu", "0,1"),
            DOCKER_VERSION="podman version 4.3.1",
        )
        call = run_call(done)
        assert pairs(call, "--userns") == ["keep-id"]
        assert pairs(call, "--user") == ["1003:1004"]
        assert pairs(call, "--group-add") == ["keep-groups"]
        assert pairs(call, "--device") == ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]
        assert "--gpus" not in call


class TestCommand:
    def test_exact_arguments(self, docker, project, tmp_path):
        done = docker(
            *("docker_run.sh", "--data", str(tmp_path), "--cpus=2", "generate_bundle.py", "--data", "phantom"),
            *("--loss=focal", "--seed", "3", "two words", "--", "--network", "none"),
        )
        call = run_call(done)
        (name,) = pairs(call, "--name")
        assert name.startswith("ada_generate_bundle_2")
        assert call == [
            *("run", "--rm"),
            *arguments(project, tmp_path, "--cpuset-cpus", "2", "--network", "none", name=name),
            *("python", "generate_bundle.py", "--data", "phantom", "--loss=focal", "--seed", "3", "two words"),
        ]
        assert done.stdout == "0123456789abcdef\n"  # what the command prints, so that a script can read it

    @pytest.mark.parametrize(("command", "expected"), [
        (["scripts/write_tables.py", "--bundle", "net_1"], ["python", "scripts/write_tables.py", "--bundle", "net_1"]),
        (["{project}/scripts/write_tables.py"], ["python", "scripts/write_tables.py"]),
        (["medcalib", "check", "--bundle", "net_1"], ["medcalib", "check", "--bundle", "net_1"]),
        (["python", "-c", "print(1)"], ["python", "-c", "print(1)"]),
        (["tensorboard", "--logdir", "bundles"], ["tensorboard", "--logdir", "bundles"]),
    ])  # fmt: skip
    def test_commands(self, docker, project, command, expected):
        call = run_call(docker("docker_run.sh", *(word.format(project=project) for word in command)))
        assert call[call.index("medcalib:latest") + 1 :] == expected

    @pytest.mark.parametrize(
        ("command", "name"), [(["scripts/write_tables.py"], "write_tables"), (["medcalib", "check"], "check")]
    )
    def test_background(self, docker, command, name):
        done = docker("docker_run.sh", "--background", *command, "--bundle", "net_1")
        assert run_call(done)[:2] == ["run", "--detach"]
        assert f"docker logs -f ada_{name}_2" in done.stdout


class TestRunErrors:
    GOOD = ("--mode", "train", "--bundle", "net_1")

    def message(self, done):
        assert done.returncode == 2, (done.stdout, done.stderr)
        assert done.calls == []
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1
        assert done.stderr.startswith("error: ")
        assert done.stderr.endswith(".\n")
        return done.stderr

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            ([], "--mode is missing"),
            (["--bundle", "net_1"], "--mode is missing"),
            (["--mode", "train"], "--bundle is missing"),
            (["--mode", "trian", "--bundle", "net_1"], "Unknown mode 'trian': give train, inference_pred"),
            ([*GOOD, "--gpu"], "Option --gpu needs a value"),
            ([*GOOD, "--gpu="], "Option --gpu needs a value"),
            (["--mode", "--bundle", "net_1"], "Option --mode needs a value"),
            ([*GOOD, "--seed", "one"], "--seed is 'one'"),
            ([*GOOD, "--seed", "-1"], "--seed is '-1'"),
            ([*GOOD, "--seed", "4294967296"], "from 0 to 4294967295"),
            ([*GOOD, "--seed", "99999999999999999999999"], "from 0 to 4294967295"),
            ([*GOOD, "--image=-v/:/host"], "--image is '-v/:/host'"),
            ([*GOOD, "--foreground=yes"], "--foreground takes no value"),
            ([*GOOD, "--image", "a b"], "--image is 'a b'"),
            ([*GOOD, "--image", "-v"], "--image is '-v'"),
            ([*GOOD, "--shm-size=-v/:/host"], "--shm-size is '-v/:/host'"),
            ([*GOOD, "--gpu=-v"], "--gpu is '-v'"),
            ([*GOOD, "--cpus=-v"], "--cpus is '-v'"),
            ([*GOOD, "--data=-v"], "'-v' does not exist"),
            (["--mode", "train", "--bundle=-v"], "--bundle is '-v'"),
            (
                [*GOOD, "--", "ubuntu"],
                "After -- stand options of docker, such as --network none, but there is 'ubuntu'",
            ),
            (["generat_bundle.py", "--data", "phantom"], "There is no 'generat_bundle.py'"),
            (["/etc/passwd"], "'/etc/passwd' is neither"),
            (["--seed", "1", "generate_bundle.py"], "give it after the command"),
            ([*GOOD, "--gpu", "0, 1"], "--gpu is '0, 1'"),
            ([*GOOD, "--cpus", "all"], "--cpus is 'all'"),
            ([*GOOD, "--data", "/no/such/folder"], "'/no/such/folder' does not exist"),
            (["--mode", "train", "--bundle", "/tmp"], "Bundle '/tmp' lies outside"),
            (["--mode", "train", "--bundle", "../net_1"], "lies outside"),
        ],
    )
    def test_bad_options(self, docker, arguments, expected):
        assert expected in self.message(docker("docker_run.sh", *arguments))

    def test_no_docker(self, docker, project, tmp_path):
        (tmp_path / "few").mkdir()
        for tool in ("bash", "dirname", "mkdir", "id"):
            (tmp_path / "few" / tool).symlink_to(shutil.which(tool))
        done = docker("docker_run.sh", *self.GOOD, PATH=str(tmp_path / "few"))
        assert "docker was not found" in self.message(done)
        assert not (project / "data").exists()

    def test_path_that_docker_would_split(self, docker, tmp_path):
        (tmp_path / "a,b").mkdir()
        assert "without commas" in self.message(docker("docker_run.sh", *self.GOOD, "--data", str(tmp_path / "a,b")))

    def test_help(self, docker):
        done = docker("docker_run.sh", "--help")
        assert done.returncode == 0
        assert "--shm-size" in done.stdout


class TestBuild:
    def test_exact_arguments(self, docker, project):
        done = docker("docker_build.sh", "--base_image", "a/b:c", "--no-cache", "--label", "two words")
        assert done.returncode == 0, done.stderr
        assert done.calls == [
            [
                *("build", "--tag", "medcalib:latest", "--target", "run", "--build-arg", "BASE_IMAGE=a/b:c"),
                *("--no-cache", "--label", "two words", str(project)),
            ]
        ]

    def test_both_forms_of_an_option_mean_the_same(self, docker):
        options = {"target": "test", "tag": "x:y", "base_image": "b", "torch_index_url": "https://c"}
        spaced = docker("docker_build.sh", *(part for key, value in options.items() for part in (f"--{key}", value)))
        joined = docker("docker_build.sh", *(f"--{key}={value}" for key, value in options.items()))
        assert run_call(spaced) == run_call(joined)
        assert pairs(run_call(joined), "--tag") == ["x:y"]
        assert pairs(run_call(joined), "--target") == ["test"]
        assert "TORCH_INDEX_URL=https://c" in pairs(run_call(joined), "--build-arg")

    def test_podman_where_there_is_no_docker(self, docker, tmp_path):
        (tmp_path / "few").mkdir()
        for tool in ("bash", "dirname"):
            (tmp_path / "few" / tool).symlink_to(shutil.which(tool))
        (tmp_path / "few" / "podman").symlink_to(tmp_path / "bin" / "docker")
        assert pairs(run_call(docker("docker_build.sh", PATH=str(tmp_path / "few"))), "--format") == ["docker"]

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["--user_id", "1000"], "--user_id is no longer needed"),
            (["--tag=-v"], "--tag is '-v'"),
            (["--base_image", "a b"], "--base_image is 'a b'"),
            (["--torch_index_url=-i"], "--torch_index_url is '-i'"),
            (["--target", "tests"], "Unknown target 'tests'"),
            (["--base_image"], "Option --base_image needs a value"),
            (["--tag", "--no-cache"], "Option --tag needs a value"),
        ],
    )
    def test_bad_options(self, docker, arguments, expected):
        done = docker("docker_build.sh", *arguments)
        assert done.returncode == 2
        assert expected in done.stderr
        assert done.calls == []

    def test_missing_lock_file(self, docker, project):
        (project / "requirements.lock").unlink()
        done = docker("docker_build.sh")
        assert done.returncode == 2
        assert "requirements.lock' is missing" in done.stderr


class TestImage:
    def test_devcontainer_builds_the_same_image(self):
        described = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
        assert (ROOT / ".devcontainer" / described["build"]["dockerfile"]).resolve() == ROOT / "Dockerfile"
        assert (ROOT / ".devcontainer" / described["build"]["context"]).resolve() == ROOT
        dockerfile = (ROOT / "Dockerfile").read_text()
        assert f"WORKDIR {described['workspaceFolder']}\n" in dockerfile
        assert f"--uid 1000 {described['remoteUser']} \\\n" in dockerfile
        assert f" AS {described['build']['target']}\n" in dockerfile

    def test_triton_can_build_and_everyone_can_write(self):
        dockerfile = (ROOT / "Dockerfile").read_text()
        assert " gcc git libc6-dev python3 python3-dev python3-venv " in dockerfile
        for name in ("HOME", "MPLCONFIGDIR", "TRITON_CACHE_DIR"):
            assert f" {name}=/tmp" in dockerfile

    def test_a_user_whom_the_image_does_not_know_has_a_name(self):
        """Without one MONAI cannot be imported."""
        assert re.search(r"^ENV (.*\\\n)* +USER=medcalib ", (ROOT / "Dockerfile").read_text(), re.MULTILINE)

    def test_image_knows_no_user_of_its_builder(self):
        assert not {"USER_ID", "GROUP_ID"} & set(re.findall(r"\w+", (ROOT / "Dockerfile").read_text()))

    def test_the_command_is_that_of_the_mounted_project(self, tmp_path):
        line = re.search(r"RUN (printf .*/opt/venv/bin/medcalib)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[1]
        command = tmp_path / "medcalib"
        subprocess.run(["bash", "-c", line.replace("/opt/venv/bin/medcalib", str(command))], check=True)
        environment = {"PATH": f"{TOOLS}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src")}
        done = subprocess.run([command, "generate", "--help"], env=environment, capture_output=True, text=True)
        assert done.stdout.startswith("medcalib generate: "), done.stderr

    def test_test_tools_stay_out(self):
        tools = {line.split("==")[0] for line in (ROOT / "requirements-test.lock").read_text().splitlines()[1:]}
        assert {"pytest", "ruff", "scikit-learn"} <= tools
        assert not tools & {line.split("==")[0] for line in (ROOT / "requirements.lock").read_text().splitlines()}
        *_, image = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
        assert image == "run\n"

    def test_torch_has_a_layer_of_its_own(self):
        """What stands before it depends on nothing that changes more often."""
        before, _, after = (ROOT / "Dockerfile").read_text().partition(" AS run\n")[2].partition("RUN ")
        assert re.findall(r"^COPY .*", before, re.MULTILINE) == ["COPY --from=pins /tmp/torch.txt /opt/pins/torch.txt"]
        assert after.index("torch.txt") < after.index("COPY")

    def test_build_context_holds_what_the_dockerfile_copies(self):
        copied = [
            line.split()[1] for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("COPY r")
        ]
        ignored = (ROOT / ".dockerignore").read_text().splitlines()
        assert "*" in ignored
        assert [line[1:] for line in ignored if line.startswith("!")] == copied

    @pytest.mark.parametrize(
        "lock",
        [
            "numpy==2.3.1\ntorch==2.13.0\ntqdm==4.67.1\n",
            "--extra-index-url https://download.pytorch.org/whl/cpu\nnumpy==2.3.1\ntorch==2.13.0+cpu\ntqdm==4.67.1\n",
            "-f wheels\nnumpy==2.3.1\ntorch==2.13.0 ; sys_platform == 'linux'  # why\ntqdm==4.67.1\n",
        ],
    )
    def test_torch_is_taken_out_of_the_lock_file(self, lock, tmp_path):
        """The Dockerfile's own sed lines leave the choice of the CUDA build to TORCH_INDEX_URL."""
        (tmp_path / "requirements.lock").write_text(lock)
        commands = [
            line.strip().removeprefix("RUN ").removeprefix("&& ").removesuffix(" \\").replace("/tmp/", f"{tmp_path}/")
            for line in (ROOT / "Dockerfile").read_text().splitlines()
            if " sed " in line
        ]
        assert len(commands) == 2
        subprocess.run(["bash", "-c", " && ".join(commands)], check=True)
        assert (tmp_path / "torch.txt").read_text() == "torch==2.13.0\n"
        assert (tmp_path / "others.txt").read_text() == "numpy==2.3.1\ntqdm==4.67.1\n"

    def test_lock_file_pins_torch(self):
        lines = (ROOT / "requirements.lock").read_text().splitlines()
        assert sum(line.startswith("torch==") for line in lines) == 1
