"""Read lists and csv tables however the program that wrote them encodes text."""

import codecs
import csv
import io
import re
from pathlib import Path

from medcalib.errors import UserError

__all__ = ["read_table", "read_text_file"]

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DELIMITERS = ",;\t"
# the outline of a large mass takes more than the 131,072 letters that Python allows by default
_LONGEST_VALUE = 2**24


def read_text_file(path: str | Path) -> str:
    """The text of a file in UTF-8, in UTF-16 as PowerShell writes it, or in the Windows code page of Western Europe.

    Marks at the beginning that say so are left out, and lines end with a line feed.

    Args:
        path: the file.

    Raises:
        UserError: the file cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "cases.txt")
        ...     _ = path.write_bytes("Köln".encode("utf-16"))
        ...     read_text_file(path)
        'Köln'
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"'{path}' cannot be read ({error.strerror or error}).") from None
    return content.decode(_encoding(content), errors="replace").replace("\r\n", "\n").replace("\r", "\n")


def read_table(path: str | Path) -> tuple[list[str], list[dict[str, str]]]:
    r"""Columns and rows of a csv, with commas, semicolons as Excel writes them in many countries, or tabs.

    Spaces around names and values are left out, and so are rows without any value. A row that is too short lacks its
    last columns.

    Args:
        path: the file.

    Returns:
        Names of the columns, and a dictionary from them to the values for every row.

    Raises:
        UserError: the file cannot be read, or is no table.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "table.csv")
        ...     _ = path.write_text("case; site\n007; Köln\n", encoding="utf-16")
        ...     read_table(path)
        (['case', 'site'], [{'case': '007', 'site': 'Köln'}])
    """
    text = read_text_file(path)
    named = re.match(r"sep=(.)\n", text)  # how Excel is told the delimiter
    text = text[named.end() :] if named else text
    head = text.partition("\n")[0]
    delimiter = named[1] if named else max(_DELIMITERS, key=head.count)
    try:
        csv.field_size_limit(_LONGEST_VALUE)
        lines = [[value.strip() for value in row] for row in csv.reader(io.StringIO(text), delimiter=delimiter)]
    except csv.Error as error:
        raise UserError(f"'{path}' is no table with columns and rows ({error}): save it again as csv.") from None
    columns = lines[0] if lines else []
    return columns, [dict(zip(columns, row, strict=False)) for row in lines[1:] if any(row)]


def _encoding(content: bytes) -> str:
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return encoding
    if b"\0" in content[1:2]:  # UTF-16 without a mark
        return "utf-16-le"
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"
