"""The command ``medcalib``. Each of its verbs is the function ``main`` of a module ``verb_<name>`` beside this one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import medcalib
from medcalib import cli
from medcalib.cli.command_line import run_command
from medcalib.cli.options import call_with_options
from medcalib.errors import UserError, suggestion

__all__ = ["main"]

_PREFIX = "verb_"


def main() -> None:
    """Run the verb that was typed; configurations may name modules of the current folder, as with ``python -m``."""
    sys.path.append(str(Path.cwd()))
    run_command(_run_verb, sys.argv[1:])


def _run_verb(words: Sequence[str]) -> None:
    names = [module.name for module in iter_modules(cli.__path__) if module.name.startswith(_PREFIX)]
    verbs = {name.removeprefix(_PREFIX).replace("_", "-"): f"{cli.__name__}.{name}" for name in names}
    verb, *options = words or ["--help"]
    if verb in ("--help", "-h"):
        print("medcalib VERB [--option=value ...]; medcalib VERB --help explains the options.\n")
        for name, module in verbs.items():
            print(f"  {name:<{max(map(len, verbs))}}  {import_module(module).main.__doc__.splitlines()[0]}")
    elif verb == "--version":
        print(medcalib.__version__)
    elif verb in verbs:
        call_with_options(import_module(verbs[verb]).main, options, f"medcalib {verb}")
    else:
        raise UserError(f"medcalib has no verb {verb!r}{suggestion(verb, verbs, list_all=True)}")


if __name__ == "__main__":
    main()
