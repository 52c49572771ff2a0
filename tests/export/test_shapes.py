"""Rows in the shapes that other programs take: importers, clip-retrieval, JSON lines and FAISS."""

import base64
import json
import re
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError
from pipeline.export import faiss_index, json_values
from pipeline.export.faiss_index import Plan
from pipeline.export.request import Format, Importer, Request
from pipeline.export.shapes import shape
from pipeline.face.opened_space import Space
from tests.support.outputs import DIM, OK_ROWS, Output


def table_rows(image_id: str, **others: pa.Array) -> pa.RecordBatch:
    """A batch of one row of the table."""
    columns = {"image_id": pa.array([image_id]), "embedding": pa.array([[1.0, 0.0]], pa.list_(pa.float32()))}
    return pa.RecordBatch.from_pydict(columns | others)


def test_pinecone_gets_three_columns_and_a_folder_for_each_dataset(
    opened: Space, output: Output, tmp_path: Path
) -> None:
    made = opened.export(str(tmp_path / "new"), importer="pinecone", rows_per_file=4)
    assert sorted({file.path.split("/")[0] for file in made.files}) == ["007", "2024-01-01", "street%20a%2Fb"]
    found = [pq.read_table(tmp_path / "new" / file.path, partitioning=None) for file in made.files]
    assert found[0].schema == pa.schema(
        [("id", pa.string()), ("values", pa.list_(pa.float32())), ("metadata", pa.string())]
    )
    rows = pa.concat_tables(found).to_pylist()
    assert {row["id"]: row["values"] for row in rows} == output.vectors
    first = json.loads(rows[0]["metadata"])
    assert first == {"dataset": "007", "uri": "u", "label": "cat", "score": 0.75, "width": 640, "height": 480}
    assert {json.loads(row["metadata"]).get("caption") for row in rows} == {None, "a cat"}


def test_metadata_for_pinecone_has_no_nested_value_and_no_null() -> None:
    top = pa.array(
        [[{"label": "cat", "score": 0.1}]], pa.list_(pa.struct({"label": pa.string(), "score": pa.float32()}))
    )
    notes = pa.array([["rotated", "cut"]])
    row = table_rows("a", labels=top, notes=notes, nothing=pa.nulls(1, pa.string()))
    request = Request(importer=Importer.PINECONE)
    found = shape(request, ["labels", "notes", "nothing"])(row).to_pylist()[0]
    assert json.loads(found["metadata"]) == {
        "labels": '[{"label":"cat","score":0.1}]',
        "notes": ["rotated", "cut"],
    }
    assert shape(request, ["nothing"])(row)["metadata"].to_pylist() == [None]


@pytest.mark.parametrize("image_id", ["x" * 513, "grün.jpg", "a\0b"])
def test_an_id_that_pinecone_does_not_take_is_named(image_id: str) -> None:
    with pytest.raises(ConfigError, match="Pinecone takes ids of at most 512 characters, all of them ASCII"):
        shape(Request(importer=Importer.PINECONE), [])(table_rows(image_id))


def test_metadata_that_is_too_large_for_an_importer_is_refused() -> None:
    row = table_rows("a", caption=pa.array(["x" * 70_000]))
    for importer, limit in ((Importer.PINECONE, "40960 bytes"), (Importer.MILVUS, "65536 bytes")):
        with pytest.raises(ConfigError, match=limit):
            shape(Request(importer=importer), ["caption"])(row)


def test_milvus_gets_the_fields_of_a_quick_set_up_and_the_dynamic_field(
    opened: Space, output: Output, tmp_path: Path
) -> None:
    opened.export(str(tmp_path / "new"), importer="milvus", columns=["label", "caption"])
    found = pq.read_table(tmp_path / "new" / "0.parquet")
    assert found.schema == pa.schema(
        [("id", pa.string()), ("vector", pa.list_(pa.float32())), ("$meta", pa.string())]
    )
    rows = found.to_pylist()
    assert {row["id"]: row["vector"] for row in rows} == output.vectors
    assert {row["$meta"] for row in rows} == {'{"label":"cat"}', '{"label":"cat","caption":"a cat"}'}


def test_npy_has_the_layout_of_clip_retrieval(opened: Space, output: Output, tmp_path: Path) -> None:
    opened.export(str(tmp_path / "new"), to="npy", columns=["dataset", "embedding", "caption"], rows_per_file=2)
    vectors = sorted((tmp_path / "new" / "img_emb").iterdir())
    metadata = sorted((tmp_path / "new" / "metadata").iterdir())
    assert [path.name for path in vectors] == [f"img_emb_{number}.npy" for number in range(9)]
    assert [path.name for path in metadata] == [f"metadata_{number}.parquet" for number in range(9)]
    found = pa.concat_tables([pq.read_table(path) for path in metadata])
    assert found.column_names == ["image_path", "image_id", "dataset", "caption"]
    matrix = np.concatenate([np.load(path) for path in vectors])
    assert matrix.dtype == np.float16
    held = dict(zip(found["image_id"].to_pylist(), matrix.astype(np.float32).tolist(), strict=True))
    assert held == output.vectors


def test_numbers_are_padded_as_clip_retrieval_pads_them(opened: Space, tmp_path: Path) -> None:
    opened.export(str(tmp_path / "new"), to="npy", rows_per_file=1)
    names = sorted(path.name for path in (tmp_path / "new" / "img_emb").iterdir())
    assert (names[0], names[-1]) == ("img_emb_00.npy", "img_emb_17.npy")


def test_json_lines_are_objects_that_any_parser_reads(opened: Space, output: Output, tmp_path: Path) -> None:
    opened.export(str(tmp_path / "new"), to="jsonl", columns=["dataset", "labels", "finished_at", "embedding"])
    lines = (tmp_path / "new" / "0.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert {row["image_id"]: np.float32(row["embedding"]).tolist() for row in rows} == output.vectors
    assert rows[0]["labels"][1] == {"label": "dog", "score": 0.25, "index": 1}
    assert datetime.fromisoformat(rows[0]["finished_at"]) == datetime(2024, 1, 1, tzinfo=UTC)


def test_values_that_json_lacks_become_null_or_text() -> None:
    batch = pa.RecordBatch.from_pydict(
        {
            "double": pa.array([float("nan"), float("-inf"), 0.1]),
            "single": pa.array([0.1, None, float("inf")], pa.float32()),
            "lists": pa.array([[0.3, float("nan"), None, 1e-7, 1.0], None, []], pa.list_(pa.float32())),
            "bytes": pa.array([b"\xff", None, b""]),
            "day": pa.array([date(2024, 1, 2), None, None]),
            "price": pa.array([Decimal("1.10"), None, None]),
            "text": pa.array(["grün\n", '"', None]),
        }
    ).slice(0, 3)
    rows = [json.loads(line, parse_constant=pytest.fail) for line in json_values.lines(batch)]
    assert [row["double"] for row in rows] == [None, None, 0.1]
    assert [row["single"] for row in rows] == [0.1, None, None]
    assert [row["lists"] for row in rows] == [[0.3, None, None, 1e-7, 1.0], None, []]
    assert base64.b64decode(rows[0]["bytes"]) == b"\xff"
    assert (rows[0]["day"], rows[0]["price"], rows[0]["text"]) == ("2024-01-02", "1.10", "grün\n")
    assert [*json_values.lines(batch.slice(1, 2))] == [*json_values.lines(batch)][1:]
    assert json_values.objects(batch.slice(1, 2))[0]["lists"] is None


def test_a_faiss_index_finds_each_vector_under_the_number_of_its_row(
    opened: Space, output: Output, tmp_path: Path
) -> None:
    made = opened.export(str(tmp_path / "new"), to="faiss", where="dataset <> '007'")
    index = faiss.read_index(str(tmp_path / "new" / "index.faiss"))
    ids = pq.read_table(tmp_path / "new" / "rows.parquet")["image_id"].to_pylist()
    assert index.ntotal == len(ids) == made.rows == 2 * OK_ROWS
    _, nearest = index.search(np.array([output.vectors[id_] for id_ in ids], np.float32), 1)
    assert nearest[:, 0].tolist() == list(range(len(ids)))
    assert made.index == {"factory": "IDMap2,Flat", "metric": "inner_product", "bytes": 12 * (DIM * 4 + 8)}


def test_a_large_index_has_inverted_lists_in_half_precision(opened: Space, output: Output, tmp_path: Path) -> None:
    request = Request(to=Format.FAISS, columns=("image_id",))
    plan, _ = faiss_index.write(
        opened.reader.only(outcome="ok"), request, ["image_id"], str(tmp_path), flat_rows=9
    )
    index = faiss.read_index(str(tmp_path / "index.faiss"))
    ids = pq.read_table(tmp_path / "rows.parquet")["image_id"].to_pylist()
    assert (plan.name, index.nlist, index.nprobe) == ("IVF8,SQfp16", 8, 16)
    index.nprobe = 8
    _, nearest = index.search(np.array([output.vectors[id_] for id_ in ids], np.float32), 1)
    assert nearest[:, 0].tolist() == list(range(len(ids)))
    index.make_direct_map()
    assert index.reconstruct(0).tolist() == output.vectors[ids[0]]


def test_the_memory_of_an_index_is_stated_and_one_that_does_not_fit_is_refused() -> None:
    plan = Plan.of(1_000_000, 768)
    assert (plan.name, plan.probes) == ("IVF1024,SQfp16", 32)
    assert plan.size == 1_000_000 * (768 * 2 + 8) + 1024 * 768 * 4
    with pytest.raises(ConfigError, match=re.escape("1,000,000,000,000 vectors with 768 dimensions takes")):
        Plan.of(10**12, 768).require_memory()


def test_without_faiss_one_sentence_says_what_to_install(
    opened: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError, match=re.escape("pip install 'lakelens[faiss]'")):
        opened.export(str(tmp_path / "new"), to="faiss")
