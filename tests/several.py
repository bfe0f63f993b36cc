"""Do some work in several processes of one group, forked from this one, which has imported what they need."""

import os
import pickle
import socket
import sys
import traceback

from medcalib.process_group import joined_group


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def start(number, work, folder):
    """Fork the processes; their numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    children = []
    for rank in range(number):
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.environ |= {
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    "WORLD_SIZE": str(number),
                    "MASTER_ADDR": "localhost",
                    "MASTER_PORT": str(port),
                }
                with joined_group("cpu"):
                    result = work(rank)
                    (folder / f"{rank}.pkl").write_bytes(pickle.dumps(result))
                code = 0
            except BaseException as error:
                (folder / f"{rank}.error").write_text(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
            finally:
                os._exit(code)
        children.append(child)
    return children


def end(children):
    """Wait for processes; their exit codes, or the negative numbers of signals."""
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def in_processes(number, work, folder):
    """What ``work(rank)`` returned in every process."""
    codes = end(start(number, work, folder))
    errors = [path.read_text() for path in sorted(folder.glob("*.error"))]
    assert codes == [0] * number, "\n".join(errors)
    return [pickle.loads((folder / f"{rank}.pkl").read_bytes()) for rank in range(number)]
