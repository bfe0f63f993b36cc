"""What a value on the command line means: the words and lists of YAML, but numbers only where nothing is lost."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import yaml

from medcalib.bundle.contract import field_of
from medcalib.bundle.fragments import UniqueKeyLoader
from medcalib.errors import UserError

__all__ = ["override_values", "read_switch", "read_text", "read_texts", "read_value"]

_PATH = re.compile(r"(.*(_|::))?(dir|root|file|path)|network::weights")
_ENTRIES = re.compile(r"[^\s,\[\](){}'\"]+(,\s*[^\s,\[\](){}'\"]+)*,?")
_KEY = re.compile(r"([{,]\s*[\w.-]+):(?=[^\s:])")

# what is no text: tag of YAML, how it is written, the letters it may begin with, how it is read
_SCALARS = (
    ("null", re.compile(r"null|None|~"), "nN~", lambda text: None),
    ("bool", re.compile(r"[tT]rue|TRUE|[fF]alse|FALSE"), "tTfF", lambda text: text.lower() == "true"),
    ("int", re.compile(r"[-+]?(0|[1-9][0-9]*)"), "-+0123456789", int),
    (
        "float",
        re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?"),
        "-+.0123456789",
        float,
    ),
)


class _Loader(UniqueKeyLoader):
    """Reads a number only where it is written as numbers are, so that 006 and 1_2 stay texts."""

    yaml_implicit_resolvers: ClassVar[dict[str, list]] = {}


for _tag, _pattern, _first, _ in _SCALARS:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern.pattern})$"), list(_first))


def read_value(name: str, text: str) -> Any:
    """The value that a text stands for where nothing is known of what it should be.

    Args:
        name: the option, for messages.
        text: as it was typed.

    Returns:
        None for null, true and false, a number, a list or mapping of such, or the text itself. Numbers with leading
        zeros or with ``_`` are texts.

    Raises:
        UserError: a list or mapping is not closed, or cannot be read for another reason.

    Example:
        >>> [read_value("x", text) for text in ("null", "false", "1e-3", "[16, 16]", "006", "1_2", "mean")]
        [None, False, 0.001, [16, 16], '006', '1_2', 'mean']
    """
    if text[:1] in ("[", "{", "("):
        return _read_nested(name, text, _Loader)
    if "," in text and _ENTRIES.fullmatch(text):
        return _read_nested(name, f"[{text}]", _Loader)
    for _, pattern, _, make in _SCALARS:
        if pattern.fullmatch(text):
            return make(text)
    return _unquoted(text)


def read_texts(name: str, text: str) -> list[Any] | None:
    """A list of texts as they were typed, such as case ids; None for null.

    Args:
        name: the option, for messages.
        text: a list with or without brackets, its entries with or without quotes.

    Raises:
        UserError: a list is not closed.

    Example:
        >>> read_texts("cases", "[006, '1_2']"), read_texts("cases", "a, b"), read_texts("cases", "1e3")
        (['006', '1_2'], ['a', 'b'], ['1e3'])
    """
    if text in ("null", "None"):
        return None
    if text[:1] in ("[", "("):
        return _read_nested(name, text, yaml.BaseLoader)
    return [_unquoted(entry.strip()) for entry in text.split(",") if entry.strip()]


def read_text(name: str, text: str | None) -> str:
    """A text as it was typed, such as the name of a bundle or folder.

    Raises:
        UserError: the option was given without a value, so that the text is None.
    """
    if text is None:
        raise UserError(f"--{name} is missing its value; write --{name}=....")
    return text


def read_switch(name: str, text: str) -> bool:
    """True or false, as they are written for every other value.

    Raises:
        UserError: it is neither.

    Example:
        >>> read_switch("debug", "false"), read_switch("debug", "True")
        (False, True)
    """
    value = read_value(name, text)
    if not isinstance(value, bool):
        raise UserError(f"--{name} must be true or false, not {text!r}.")
    return value


def override_values(options: Mapping[str, str | None]) -> dict[str, Any]:
    """Values by configuration id, from texts as they were typed; an id alone, of which the text is None, is true.

    Ids of folders and files, and those whose contract says so, such as lists of case ids, keep every letter.

    Raises:
        UserError: a value cannot be read.

    Example:
        >>> override_values({"num_bins": "15", "output_dir": "20240131", "calibration_cases": "[006,1_2]"})
        {'num_bins': 15, 'output_dir': '20240131', 'calibration_cases': ['006', '1_2']}
    """
    return {id_: _override(id_, text) for id_, text in options.items()}


def _override(id_: str, text: str | None) -> Any:
    if text in ("null", "None"):
        return None
    field = field_of(id_)
    holds_path, holds_texts = _PATH.fullmatch(id_), field is not None and field.texts
    holds_text = field is not None and field.types[0] is str
    if text is None and not (holds_path or holds_texts or holds_text):
        return True
    text = read_text(id_, text)
    if text[:1] in ("$", "@", "%"):
        return text
    if holds_texts:
        return read_texts(id_, text)
    if holds_path:
        return str(Path(text).expanduser())
    return _unquoted(text) if holds_text else read_value(id_, text)


def _read_nested(name: str, text: str, loader: type) -> Any:
    kind = "mapping" if text[0] == "{" else "list"
    try:
        # a tuple of Python, or tuples in a list
        value = ast.literal_eval(text) if "((" in text or "[(" in text else yaml.load(_as_yaml(text), loader)
        if isinstance(value, dict | list | tuple):
            return _lists(value)
    except UserError as error:
        raise UserError(f"--{name}: {text}, {error}.") from None
    except (yaml.YAMLError, ValueError, SyntaxError):
        pass
    raise UserError(
        f"--{name}: {text} is not a {kind} as YAML writes it; close every bracket and quote, and put texts that hold "
        f"other signs than letters, digits and . _ - into quotes."
    )


def _as_yaml(text: str) -> str:
    """A tuple in brackets; and the space after the colon of a key, without which YAML takes ``{a:1}`` for a key."""
    if text[0] == "(" and text[-1] == ")":
        text = f"[{text[1:-1]}]"
    return _KEY.sub(r"\1: ", text) if "{" in text else text


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, list | tuple) else value


def _unquoted(text: str) -> str:
    return text[1:-1] if text[:1] in ("'", '"') and text[-1:] == text[:1] and len(text) > 1 else text
