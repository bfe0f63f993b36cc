"""One of the processes of ``medcalib run --num_gpus``, which started it."""

import json
import sys
from pathlib import Path

from medcalib.cli.command_line import run_command
from medcalib.cli.verb_run import main

if __name__ == "__main__":
    sys.path.append(str(Path.cwd()))
    run_command(main, **json.loads(sys.argv[1]))
