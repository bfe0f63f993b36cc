"""Options of a command: the parameters of its function, each read as its annotation says, and the help on them."""

from __future__ import annotations

import inspect
import re
import textwrap
import typing
from collections.abc import Callable, Collection, Sequence
from types import NoneType
from typing import Any

from medcalib.bundle.option_values import override_values, read_switch, read_text, read_value
from medcalib.errors import UserError, suggestion

__all__ = ["call_with_options"]

_WIDTH = 100
_ARGUMENT = re.compile(r"    (\*{0,2}\w+): ")


def call_with_options(main: Callable[..., Any], words: Sequence[str], name: str) -> Any:
    """Call the function of a command with the options that were typed, or print what they are for ``--help``.

    A ``str`` is kept letter by letter, a ``bool`` is true or false, and true where nothing else was typed, any other
    value is as YAML has it. What the function takes as ``**overrides`` are values by configuration id. Its
    positional-only parameters are words of their own, in this order, between the options.

    Args:
        main: function of the command, all of whose parameters have annotations.
        words: what was typed behind the name of the command.
        name: the command as it is typed, for messages.

    Raises:
        UserError: there is no such option, one is missing or has no value or one that cannot be read, or a word belongs
            to none.

    Example:
        >>> def main(bundle: str = "", debug: bool = False, **overrides: object):
        ...     return bundle, debug, overrides
        >>> call_with_options(main, ["--bundle", "20240131", "--debug", "--num_bins=5"], "run")
        ('20240131', True, {'num_bins': 5})
        >>> def main(file: str, /, plan: bool = False):
        ...     return file, plan
        >>> call_with_options(main, ["--plan", "a.yaml"], "study")
        ('a.yaml', True)
    """
    if "--help" in words or "-h" in words:
        print(_help_text(main, name))
        return None
    hints = typing.get_type_hints(main)
    parameters = inspect.signature(main).parameters.values()
    places = [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_ONLY]
    special = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)
    known = [parameter.name for parameter in parameters if parameter.kind not in special]
    takes_overrides = len(places) + len(known) < len(parameters)
    values: dict[str, Any] = {}
    overrides: dict[str, str | None] = {}
    switches = {option for option in known if hints[option] is bool}
    typed, alone = _typed(words, name, len(places), switches)
    if len(alone) < len(places):
        missing = places[len(alone)]
        raise UserError(f"{missing.upper()} is missing; write it behind {name}, of which --help says more.")
    for id_, text in typed.items():
        if id_ in known:
            values[id_] = _read(id_, text, hints[id_])
        elif text is None and id_[:2] == "no" and hints.get(id_[2:]) is bool:
            values[id_[2:]] = False
        elif takes_overrides:
            overrides[id_] = text
        else:
            ending = id_.rpartition("_")[2]
            alike = [option for option in known if option.rpartition("_")[2] == ending]
            told = f"; did you mean {' or '.join(alike)}?" if alike else suggestion(id_, known, list_all=True)
            raise UserError(f"{name} has no option --{id_}{told}")
    for parameter in parameters:
        if parameter.name in known and parameter.default is parameter.empty and parameter.name not in values:
            raise UserError(f"--{parameter.name} is missing; {name} --help says what it is.")
    return main(*alone, **values, **override_values(overrides))


def _typed(
    words: Sequence[str], name: str, places: int, switches: Collection[str]
) -> tuple[dict[str, str | None], list[str]]:
    """Texts by option, None for an option alone, and as many words that belong to none as there are places for."""
    typed: dict[str, str | None] = {}
    alone: list[str] = []
    waiting = None
    for word in words:
        if word.startswith("--") and len(word) > 2:
            option, has_value, text = word[2:].partition("=")
            option = option.replace("-", "_")
            typed[option] = text if has_value else None
            waiting = None if has_value else option
        elif waiting is not None and not (
            waiting in switches and len(alone) < places and word.lower() not in ("true", "false")
        ):
            typed[waiting] = word
            waiting = None
        elif len(alone) < places:
            alone.append(word)
            waiting = None
        else:
            raise UserError(f"{name}: {word!r} belongs to no option; write every option as --name=value.")
    return typed, alone


def _read(name: str, text: str | None, hint: Any) -> Any:
    if hint is bool:
        return text is None or read_switch(name, text)
    text = read_text(name, text)
    accepted = set(typing.get_args(hint) or (hint,))
    return text if accepted <= {str, NoneType} else read_value(name, text)


def _help_text(main: Callable[..., Any], name: str) -> str:
    about, _, arguments = (inspect.getdoc(main) or "").partition("\nArgs:\n")
    pieces = _ARGUMENT.split(f"\n{arguments}".replace("\n", " "))[1:]
    meanings = {key: " ".join(text.split()) for key, text in zip(pieces[::2], pieces[1::2], strict=True)}
    lines = [f"{name}: {about.strip()}", "", "Options:"]
    for parameter in inspect.signature(main).parameters.values():
        option, default = parameter.name, parameter.default
        if parameter.kind is parameter.VAR_KEYWORD:
            label, meaning = "ID=VALUE", meanings.get(f"**{option}", "")
        else:
            label = option if isinstance(default, bool) else f"{option}={option.upper()}"
            meaning = meanings.get(option, "")
            if parameter.kind is parameter.POSITIONAL_ONLY:
                label = option.upper()
            if default is not False and default not in (None, "", parameter.empty):
                meaning += f" (default: {str(default).lower() if default is True else default})"
        dashes = "" if parameter.kind is parameter.POSITIONAL_ONLY else "--"
        lines += [
            f"  {dashes}{label}",
            textwrap.fill(meaning, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6),
        ]
    return "\n".join(lines)
