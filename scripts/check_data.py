#!/usr/bin/env python
"""Look through the cases of a bundle before they are trained on: ``medcalib check`` from a checkout."""

import sys

from medcalib.cli.command_line import run_command
from medcalib.cli.options import call_with_options
from medcalib.cli.verb_check import main

if __name__ == "__main__":
    run_command(call_with_options, main, sys.argv[1:], "check_data.py")
