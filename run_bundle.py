#!/usr/bin/env python
"""Train, predict or evaluate with a bundle: ``medcalib run`` from a checkout.

    python run_bundle.py --bundle <name or path> --mode train
    python run_bundle.py --bundle <name or path> --mode inference_pred
    python run_bundle.py --bundle <name or path> --mode inference_eval --num_bins=15

Any other option replaces an id of the configuration: --data::dataset_dir=/data/Task04_Hippocampus.
"""

import sys

from medcalib.cli.command_line import run_command
from medcalib.cli.options import call_with_options
from medcalib.cli.verb_run import main

if __name__ == "__main__":
    run_command(call_with_options, main, sys.argv[1:], "run_bundle.py")
