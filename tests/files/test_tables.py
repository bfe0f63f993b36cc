import csv

import pytest
from tests.data.layouts import message

from medcalib.files.tables import read_table, read_text_file

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be-mark", "cp1252"]
TEXT = "case,class,site\r\n007,pos,Köln\r\n"


def encoded(text, encoding):
    return b"\xfe\xff" + text.encode("utf-16-be") if encoding == "utf-16-be-mark" else text.encode(encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_text_of_any_program(tmp_path, encoding):
    path = tmp_path / "list.txt"
    path.write_bytes(encoded("a\r\nMünchen\r\n", encoding))
    assert read_text_file(path) == "a\nMünchen\n"


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_table_of_any_program(tmp_path, encoding, delimiter):
    path = tmp_path / "table.csv"
    for head in ("", f"sep={delimiter}\r\n"):
        path.write_bytes(encoded(head + TEXT.replace(",", delimiter), encoding))
        assert read_table(path) == (["case", "class", "site"], [{"case": "007", "class": "pos", "site": "Köln"}])


def test_values_with_quotes_and_gaps(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text('case, note\n a ,"x, ""y""\nz"\n,\nb\n')
    assert read_table(path) == (["case", "note"], [{"case": "a", "note": 'x, "y"\nz'}, {"case": "b"}])


def test_a_value_of_many_letters(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(f"case,outline\na,{'1 ' * 100_000}\n")
    limit = csv.field_size_limit(131_072)
    try:
        assert len(read_table(path)[1][0]["outline"]) == 199_999
    finally:
        csv.field_size_limit(limit)


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"])
def test_an_empty_table(tmp_path, content):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    assert read_table(path) == ([], [])


def test_a_file_that_cannot_be_read(tmp_path):
    assert message(read_text_file, tmp_path) == f"'{tmp_path}' cannot be read (Is a directory)."
    assert "cannot be read" in message(read_table, tmp_path / "none.csv")
