#!/usr/bin/env python
"""Calibrate predictions that lie in files: ``medcalib calibrate`` from a checkout."""

import sys

from medcalib.cli.command_line import run_command
from medcalib.cli.options import call_with_options
from medcalib.cli.verb_calibrate import main

if __name__ == "__main__":
    run_command(call_with_options, main, sys.argv[1:], "calibrate_predictions.py")
