#!/usr/bin/env python
"""Compose fragments into a MONAI bundle: ``medcalib generate`` from a checkout.

python generate_bundle.py --data phantom --loss baseline_dice_ce --method deterministic
python generate_bundle.py --list
"""

import sys

from medcalib.cli.command_line import run_command
from medcalib.cli.options import call_with_options
from medcalib.cli.verb_generate import main

if __name__ == "__main__":
    run_command(call_with_options, main, sys.argv[1:], "generate_bundle.py")
