"""Decoded rows and results become output rows, and the output rows a Parquet file."""

import io
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from pipeline import schema
from pipeline.engines.base import Scored
from pipeline.errors import ErrorCode
from pipeline.output.prediction_rows import PredictionRowBuilder, parquet_bytes

LABELS = tuple(f"label-{i}" for i in range(10))
CAPTION = pa.field("caption", pa.string())


def decoded(outcomes: str, *, kept: bool = False) -> pa.Table:
    """Rows as decoding leaves them: `+` has pixels, `-` failed."""
    columns = pa.schema([*schema.PENDING, *([CAPTION] if kept else []), *schema.DECODED])
    rows: list[dict[str, Any]] = []
    for number, outcome in enumerate(outcomes):
        row: dict[str, Any] = {"image_id": f"id{number}", "uri": f"/{number}", "dataset": "d", "attempts": 1}
        row |= {"version": f"v{number}", "decode_notes": ["palette"] if outcome == "+" else [], "caption": "x"}
        if outcome == "+":
            row |= {"width": number, "height": 2, "content_sha256": "h"}
        else:
            row |= {"stage": "decode", "error_code": "corrupt", "message": "the file is damaged"}
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=columns)


def results(
    count: int, *, k: int = 5, dim: int = 8, seed: int = 0
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    scores = -np.sort(-rng.random((count, k), np.float32), axis=1)
    indices = np.stack([rng.permutation(len(LABELS))[:k] for _ in range(count)] or [np.zeros(k)])[:count]
    return indices.astype(np.int32), scores, rng.normal(0, 3, (count, dim)).astype(np.float32)


def outputs(outcomes: str, *, normalize: bool = True, kept: bool = False) -> PredictionRowBuilder:
    return PredictionRowBuilder(decoded(outcomes, kept=kept), LABELS, normalize=normalize)


def test_rows_come_out_in_the_order_of_the_input_with_failed_ones_in_between() -> None:
    made = outputs("-++-+--+")
    assert made.decoded.tolist() == [1, 2, 4, 7]
    indices, scores, embeddings = results(4)
    made.add(Scored(indices[:3], scores[:3], embeddings[:3]))
    made.add(Scored(indices[3:], scores[3:], embeddings[3:]))
    rows = made.table("run-1").to_pylist()
    assert [row["image_id"] for row in rows] == [f"id{i}" for i in range(8)]
    assert [row["outcome"] for row in rows] == [
        *("failed", "ok", "ok", "failed", "ok", "failed", "failed", "ok"),
    ]
    for result, row in enumerate(rows[i] for i in (1, 2, 4, 7)):
        assert row["label"] == LABELS[indices[result, 0]]
        assert row["score"] == scores[result, 0]
        assert [entry["index"] for entry in row["labels"]] == indices[result].tolist()
        assert [entry["label"] for entry in row["labels"]] == [LABELS[i] for i in indices[result]]
        assert [entry["score"] for entry in row["labels"]] == scores[result].tolist()


def test_the_table_has_exactly_the_output_schema() -> None:
    made = outputs("+-", kept=True)
    made.add(Scored(*results(1)))
    table = made.table("run-1")
    assert table.schema.equals(schema.scored([CAPTION]))
    assert table.column("caption").to_pylist() == ["x", "x"]
    assert table.column("run_id").to_pylist() == ["run-1", "run-1"]
    assert table.column("version").to_pylist() == ["v0", "v1"]
    assert table.column("decode_notes").to_pylist() == [["palette"], []]
    age = datetime.now(UTC) - table.column("finished_at").to_pylist()[0]
    assert 0 <= age.total_seconds() < 60


def test_a_failed_row_has_its_stage_and_code_and_nothing_of_the_model() -> None:
    made = outputs("-+")
    made.add(Scored(*results(1)))
    failed, ok = made.table("r").to_pylist()
    assert (failed["stage"], failed["error_code"]) == ("decode", "corrupt")
    of_the_model = ("label", "score", "labels", "embedding", "embedding_norm")
    assert [failed[name] for name in of_the_model] == [None] * 5
    assert all(ok[name] is not None for name in of_the_model)
    assert [ok[name] for name in ("stage", "error_code", "message")] == [None] * 3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["score", "embedding"])
def test_a_result_that_is_not_finite_becomes_a_failed_row(bad: float, where: str) -> None:
    indices, scores, embeddings = results(3)
    (scores if where == "score" else embeddings)[1, 2] = bad
    made = outputs("+-++")
    made.add(Scored(indices, scores, embeddings))
    rows = made.table("r").to_pylist()
    assert [row["outcome"] for row in rows] == ["ok", "failed", "failed", "ok"]
    assert (rows[2]["stage"], rows[2]["error_code"]) == ("predict", "non_finite")
    assert rows[2]["embedding"] is rows[2]["label"] is None
    assert rows[1]["error_code"] == "corrupt"
    assert rows[3]["labels"][0]["index"] == indices[2, 0]
    assert rows[2]["width"] == 2  # what decoding found stays


def test_a_vector_too_large_for_half_precision_is_not_finite() -> None:
    indices, scores, embeddings = results(2)
    embeddings[0, 0] = 70_000.0
    for normalize, expected in ((False, ["failed", "ok"]), (True, ["ok", "ok"])):
        made = outputs("++", normalize=normalize)
        made.add(Scored(indices, scores, embeddings))
        assert made.table("r").column("outcome").to_pylist() == expected


def test_a_vector_of_zeros_has_no_direction_and_fails_if_it_is_to_be_normalised() -> None:
    indices, scores, embeddings = results(1)
    for normalize, expected in ((True, "failed"), (False, "ok")):
        made = outputs("+", normalize=normalize)
        made.add(Scored(indices, scores, np.zeros_like(embeddings)))
        assert made.table("r").column("outcome").to_pylist() == [expected]


def test_an_image_that_could_not_be_predicted_becomes_a_failed_row() -> None:
    indices, scores, embeddings = results(2)
    made = outputs("+-++")
    made.add(Scored(indices[:1], scores[:1], embeddings[:1]))
    made.add_failed(ErrorCode.OUT_OF_MEMORY, "too big")
    made.add(Scored(indices[1:], scores[1:], embeddings[1:]))
    rows = made.table("r").to_pylist()
    assert [row["error_code"] for row in rows] == [None, "corrupt", "out_of_memory", None]
    assert (rows[2]["stage"], rows[2]["message"]) == ("predict", "too big")
    assert rows[3]["labels"][0]["index"] == indices[1, 0]


@pytest.mark.parametrize("outcomes", ["---", ""])
def test_a_block_without_any_decoded_image_needs_no_results(outcomes: str) -> None:
    table = outputs(outcomes).table("r")
    assert table.schema.equals(schema.scored([]))
    assert table.column("outcome").to_pylist() == ["failed"] * len(outcomes)


def test_a_block_in_which_every_prediction_failed_is_a_table_too() -> None:
    made = outputs("++")
    made.add_failed(ErrorCode.OUT_OF_MEMORY, "too big")
    indices, scores, embeddings = results(1)
    made.add(Scored(indices, scores, embeddings * np.float32(np.nan)))
    assert made.table("r").column("error_code").to_pylist() == ["out_of_memory", "non_finite"]


@pytest.mark.parametrize("normalize", [True, False])
def test_the_raw_vector_is_embedding_times_norm_within_half_precision(normalize: bool) -> None:
    indices, scores, raw = results(50, dim=64)
    made = outputs("+" * 50, normalize=normalize)
    made.add(Scored(indices, scores, raw))
    table = made.table("r")
    stored = np.stack(table.column("embedding").to_pylist())
    norms = table.column("embedding_norm").to_numpy()
    np.testing.assert_allclose(stored * norms[:, None], raw, rtol=2**-10, atol=1e-5)
    np.testing.assert_array_equal(stored, stored.astype(np.float16))
    if normalize:
        np.testing.assert_allclose(np.linalg.norm(stored, axis=1), 1, atol=1e-3)
        np.testing.assert_allclose(norms, np.linalg.norm(raw, axis=1), rtol=1e-6)
    else:
        assert set(norms) == {1.0}


@pytest.mark.parametrize("k", [1, 3, 10])
def test_as_many_labels_are_kept_as_there_are_scores(k: int) -> None:
    made = outputs("+-+")
    made.add(Scored(*results(2, k=k)))
    assert [len(labels or []) for labels in made.table("r").column("labels").to_pylist()] == [k, 0, k]


def table_of(count: int, dim: int = 64) -> pa.Table:
    """Output rows as they are written: without the partition columns."""
    made = outputs("+-" * count)
    made.add(Scored(*results(count, dim=dim)))
    return made.table("r").drop_columns(list(schema.PARTITIONS))


def columns_of(data: bytes) -> dict[str, Any]:
    group = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0)
    return {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}


def test_a_file_reads_back_equal() -> None:
    rows = table_of(100)
    assert pq.read_table(io.BytesIO(parquet_bytes(rows))).equals(rows)


def test_a_file_of_failed_rows_alone_reads_back_equal() -> None:
    rows = outputs("---").table("r").drop_columns(list(schema.PARTITIONS))
    assert pq.read_table(io.BytesIO(parquet_bytes(rows))).equals(rows)


def test_vectors_and_scores_are_byte_stream_split_and_names_are_dictionaries() -> None:
    columns = columns_of(parquet_bytes(table_of(100)))
    for name in ("embedding.list.element", "embedding_norm", "score", "labels.list.element.score"):
        assert "BYTE_STREAM_SPLIT" in columns[name].encodings
        assert columns[name].compression == "ZSTD"
    assert all(column.has_column_index and column.has_offset_index for column in columns.values())
    for name in ("label", "labels.list.element.label", "error_code", "run_id"):
        assert "RLE_DICTIONARY" in columns[name].encodings
    assert "RLE_DICTIONARY" not in columns["image_id"].encodings


def test_byte_stream_split_makes_vectors_smaller_than_plain_pages() -> None:
    rows = table_of(1000, dim=256)
    split = columns_of(parquet_bytes(rows))["embedding.list.element"].total_compressed_size
    buffer = io.BytesIO()
    pq.write_table(rows, buffer, compression="zstd", use_dictionary=False)
    plain = columns_of(buffer.getvalue())["embedding.list.element"].total_compressed_size
    assert split < 0.9 * plain
    assert split < 0.5 * 1000 * 256 * 4


def test_a_large_file_has_several_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.output.prediction_rows.ROW_GROUP_ROWS", 64)
    assert pq.ParquetFile(io.BytesIO(parquet_bytes(table_of(100)))).num_row_groups == 4
