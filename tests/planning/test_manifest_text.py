"""CSV and JSON lines as people write them: no row vanishes, text stays text, and what cannot be read is named."""

import gzip
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from pipeline.config import ManifestColumns
from pipeline.errors import StorageError
from pipeline.planning import csv_rows
from pipeline.schema import PROBLEM
from tests.support.manifests import read, read_with_notes, refusal


def written(folder: Path, text: str | bytes, name: str = "m.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def uris(folder: Path, text: str | bytes, name: str = "m.csv") -> list[str]:
    found: list[str] = read(folder, written(folder, text, name)).column("uri").to_pylist()
    return found


def test_a_quoted_value_may_first_come_after_many_plain_rows(tmp_path: Path) -> None:
    plain = "".join(f"/{n}.jpg\n" for n in range(70_000))
    found = uris(tmp_path, "uri\n" + plain + '"/a, ""b"".jpg"\n"/c\nd.jpg"\n/e.jpg\n')
    assert found[:2] == ["/0.jpg", "/1.jpg"]
    assert found[70_000:] == ['/a, "b".jpg', "/c\nd.jpg", "/e.jpg"]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_header_line_tells_the_separator(tmp_path: Path, separator: str) -> None:
    others = "".join(set(",;\t|") - {separator})
    text = f"uri{separator}dataset\n/a{others}b{separator}x\n"
    assert read(tmp_path, written(tmp_path, text)).select(["uri", "dataset"]).to_pylist() == [
        {"uri": f"/a{others}b", "dataset": "x"}
    ]


def test_of_two_separators_in_the_header_the_one_counts_that_gives_the_known_columns(tmp_path: Path) -> None:
    text = 'uri;dataset;"a, b";c, d, e, f\n/a;x;1;2\n'
    assert read(tmp_path, written(tmp_path, text)).column("dataset").to_pylist() == ["x"]


def test_a_list_of_one_column_may_have_any_separator_in_its_values(tmp_path: Path) -> None:
    names = ["/a;1", "/b, 2", "/c\t3", "/d|4"]
    assert uris(tmp_path, "uri\n" + "\n".join(names)) == names


def test_a_line_that_tells_excel_the_separator_is_no_header(tmp_path: Path) -> None:
    assert uris(tmp_path, "sep=;\r\nuri;dataset\r\n/a,b;x\r\n") == ["/a,b"]
    assert uris(tmp_path, "sep=;\n\nuri;dataset\n/a,b;x\n") == ["/a,b"]
    assert uris(tmp_path, "sep=§\nuri§dataset\n/a,b§x\n") == ["/a,b"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("packed", [False, True])
def test_text_may_have_a_byte_order_mark_and_be_packed(tmp_path: Path, encoding: str, packed: bool) -> None:
    mark = "\ufeff" if encoding[-3:] in ("-le", "-be") else ""
    for name, text in {"m.csv": "uri\r\n/ä, 1.jpg\r\n", "m.jsonl": '{"uri": "/ä, 1.jpg"}\r\n'}.items():
        data = (mark + text).encode(encoding)
        assert uris(tmp_path, gzip.compress(data) if packed else data, name) == ["/ä, 1.jpg"]


def test_utf_16_without_a_byte_order_mark_is_told(tmp_path: Path) -> None:
    said = refusal(tmp_path, written(tmp_path, "uri\n/a\n".encode("utf-16-le")))
    assert said.endswith("if it is UTF-16, save it with a byte order mark, or as UTF-8.")


def test_a_temporary_folder_without_room_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_table", full)
    with pytest.raises(StorageError, match=f"temporary folder {tmp_path}: No space left on device"):
        read(tmp_path, written(tmp_path, "uri\n/a\n"))


def test_mixed_line_ends_and_blank_lines_are_read(tmp_path: Path) -> None:
    assert uris(tmp_path, "\n\nuri\r\n/a\n\r\n/b\r/c\n\n\n/d") == ["/a", "/b", "/c", "/d"]
    assert uris(tmp_path, '\n{"uri": "/a"}\r\n\n  \n{"uri": "/b"}', "m.jsonl") == ["/a", "/b"]


def test_text_stays_text_in_kept_columns_too(tmp_path: Path) -> None:
    text = "uri,image_id,zip,day,sure\n/a,007,01234,01/02/2024,yes\n"
    (row,) = read(tmp_path, written(tmp_path, text), keep=("zip", "day", "sure")).to_pylist()
    assert [row[name] for name in ("image_id", "zip", "day", "sure")] == ["007", "01234", "01/02/2024", "yes"]


CELLS = st.text(st.sampled_from('ab,;"\n\r é😀'), max_size=6)


@given(st.lists(st.tuples(CELLS, CELLS), max_size=12), st.sampled_from(["\n", "\r\n"]), st.integers(1, 40))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_are_the_same_wherever_the_blocks_end_in_which_they_are_read(
    monkeypatch: pytest.MonkeyPatch, cells: list[tuple[str, str]], end: str, block: int
) -> None:
    monkeypatch.setattr(csv_rows, "BLOCK_CHARS", block)
    quoted = [
        '"' + cell.replace('"', '""') + '"' if set(cell) & set('",\r\n') else cell for row in cells for cell in row
    ]
    text = end.join(["uri,note", *map(",".join, zip(quoted[::2], quoted[1::2], strict=True))])
    found: list[tuple[str | None, ...]] = []
    lines: list[int] = []
    for batch in csv_rows.rows(io.StringIO(text, newline=""), ["uri"]):
        columns = [list(map(_plain, column)) for column in batch.columns.values()]
        found += zip(*columns, strict=True)
        lines += batch.lines
    assert found == [tuple(value or None for value in row) for row in cells]
    assert lines == sorted(set(lines))


def _as_needed(cell: str) -> str:
    """With quotes, if it needs them."""
    return '"' + cell.replace('"', '""') + '"' if set(cell) & set('",\r\n') else cell


def _plain(value: Any) -> str | None:
    found: str | None = value.as_py() if isinstance(value, pa.Scalar) else value
    return found


REFUSED = {
    "uri,dataset\n/a,x\n/b\n": "line 3: the row has 1 value, but the header names 2 columns",
    'uri,note\n"/a\nb",x\n/c,y,z\n': "line 4: the row has 3 values, but the header names 2 columns",
    'uri,note\n/a,x\n/b,"y\n/c,z\n/d,z\n': "line 3: the quote that opens in it is never closed",
    'uri,note\n/a,x\n/b,"y\n/c,z\n/d,"z"\n': "line 3: text follows a closing quote",
    'uri,note\n\n/a,"x" y\n': "line 3: text follows a closing quote",
    "uri,uri\n/a,/b\n": "line 1: there are two columns 'uri'",
    "": "line 1: there is no header line",
    "\n\n": "line 1: there is no header line",
    "sep=;\n": "line 1: there is no header line",
}


@pytest.mark.parametrize("text", REFUSED)
def test_a_csv_file_that_cannot_be_read_is_named_with_its_line(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    assert refusal(tmp_path, path).startswith(f"Cannot read the manifest {path}: {REFUSED[text]}")


BROKEN = {
    '{"uri": "/a"}\n{"uri": "/b"\n': "line 2: it is not JSON",
    '{"uri": "/a"}\n\n["/b"]\n': "line 3: it is a JSON array",
    '[{"uri": "/a"},\n{"uri": "/b"}]\n': "line 1: it begins a JSON array",
    '{"uri": ' + "[" * 100_000 + "\n": "line 1: its JSON is nested too deeply",
}


@pytest.mark.parametrize("text", BROKEN, ids=["cut", "list", "array", "deep"])
def test_a_json_lines_file_that_cannot_be_read_is_named_with_its_line(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text, "m.jsonl")
    assert refusal(tmp_path, path).startswith(f"Cannot read the manifest {path}: {BROKEN[text]}")


@pytest.mark.parametrize("name", ["m.csv.gz", "m.jsonl.gz"])
def test_a_packed_manifest_that_is_cut_short_is_not_a_shorter_one(tmp_path: Path, name: str) -> None:
    data = gzip.compress(b"uri\n/a\n" if "csv" in name else b'{"uri": "/a"}\n')
    path = written(tmp_path, data[:-4], name)
    assert f"{path}: its gzip data is cut short or damaged" in refusal(tmp_path, path)


def test_a_key_of_json_lines_may_first_come_after_many_lines(tmp_path: Path) -> None:
    lines = [f'{{"uri": "/{n}"}}' for n in range(70_000)] + ['{"uri": "/l", "dataset": "late", "image_id": "l"}']
    rows = read(tmp_path, written(tmp_path, "\n".join(lines), "m.jsonl"))
    assert rows.column("dataset").to_pylist() == ["images"] * 70_000 + ["late"]
    assert rows.column("uri").to_pylist()[69_998:] == ["/69998", "/69999", "/l"]


def test_keys_that_differ_in_letter_case_are_one_column(tmp_path: Path) -> None:
    text = '{"uri": "/a", "Dataset": "x"}\n{"URI": "/b", "dataset": "y"}\n'
    rows = read(tmp_path, written(tmp_path, text, "m.jsonl"))
    assert [(row["uri"], row["dataset"]) for row in rows.to_pylist()] == [("/a", "x"), ("/b", "y")]


def test_values_of_json_lines_keep_how_they_are_written(tmp_path: Path) -> None:
    text = '{"uri": "/a", "k": 18446744073709551615}\n{"uri": "/b", "k": 1.50}\n{"uri": "/c", "k": true}\n'
    text += '{"uri": "/d", "k": {"a": [1, null, "ü"]}}\n{"uri": "/e", "k": null}\n{"uri": "/f", "k": "007"}\n'
    rows = read(tmp_path, written(tmp_path, text, "m.jsonl"), keep=("k",))
    assert rows.column("k").to_pylist() == [
        "18446744073709551615",
        "1.50",
        "true",
        '{"a":[1,null,"ü"]}',
        None,
        "007",
    ]


def test_a_dot_leads_into_an_object_of_json_lines(tmp_path: Path) -> None:
    text = '{"image": {"path": "/a"}}\n{"image": {}}\n{"image": null}\n{"image": "no object"}\n'
    rows = read(tmp_path, written(tmp_path, text, "m.jsonl"), columns=ManifestColumns(uri="image.path"))
    assert rows.column("uri").to_pylist() == ["/a", None, None, None]


def test_a_value_that_is_not_utf_8_costs_that_value(tmp_path: Path) -> None:
    text = b"uri,image_id,caption,other\n/a,a,caf\xe9,\xff\n/b,b,ok,ok\n/\xe9,c,\xe9,x\n/d,\xed\xa0\x80,ok,x\n"
    path = written(tmp_path, text)
    rows, notes = read_with_notes(tmp_path, path, keep=("caption",))
    assert rows.column("caption").to_pylist() == [None, "ok", None, "ok"]
    assert rows.column("uri").to_pylist() == ["/a", "/b", None, "/d"]
    assert rows.column(PROBLEM).to_pylist() == [
        None,
        None,
        f"uri is not UTF-8 (line 4 of {path})",
        f"image_id is not UTF-8 (line 5 of {path})",
    ]
    (note,) = notes
    assert f"2 values are not UTF-8 in the column 'caption' of {path}, first in line 2" in note


def test_half_of_a_character_in_json_costs_that_value(tmp_path: Path) -> None:
    path = written(
        tmp_path, '{"uri": "/a", "k": "\\ud83d"}\n{"uri": "\\ud83d"}\n{"uri": "/\\ud83d\\ude00"}\n', "m.jsonl"
    )
    rows, notes = read_with_notes(tmp_path, path, keep=("k",))
    assert rows.column("uri").to_pylist() == ["/a", None, "/😀"]
    assert rows.column(PROBLEM).to_pylist() == [None, f"uri is not UTF-8 (line 2 of {path})", None]
    assert len(notes) == 1


def test_of_many_values_that_are_not_utf_8_a_few_are_named(tmp_path: Path) -> None:
    rows = read(tmp_path, written(tmp_path, b"uri\n" + b"\xe9\n" * 1000)).column(PROBLEM).to_pylist()
    assert len(rows) == 1000
    assert 2 < len(set(rows)) < 50
    assert rows[-1] == "uri is not UTF-8"
