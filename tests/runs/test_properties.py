"""Whatever manifest and files hold: every row is accounted for, and nothing leaves the output."""

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st

from pipeline import schema
from pipeline.config import ManifestConfig
from pipeline.output.layout import fragment_path
from pipeline.output.table import Predictions
from pipeline.planning.account import Counts
from pipeline.planning.plan import open_plan
from pipeline.run import run
from tests.support import lakes
from tests.support.making import STORAGE, encoded, photo, write_fragment

AWKWARD = [
    *("", ".", "..", "../../escape", "/etc/passwd", "a/b=c", "100%", "%2e%2e%2f", "x\ny", "\r", "\0", "\t", " "),
    *("i" * 10_000, "ü" * 60, "日本" * 20, "👩‍👩‍👧", "\u202eabc", "'; DROP TABLE input; --", '"', "\\", "{space}"),
    *("__HIVE_DEFAULT_PARTITION__", "dataset=x/outcome=ok", "NULL", "007", "2024-01-01", "a*b?[c]", "#row=0", "~"),
]
TEXTS = st.none() | st.sampled_from(AWKWARD) | st.text(max_size=30)
URIS = TEXTS | st.builds(
    "{}{}".format,
    st.sampled_from(["s3:/", "file://", "zip://", "nosuch://", "http:", "memory://", "::", "data:,", "local://"]),
    st.text(max_size=20),
)
NUMBERS = st.none() | st.integers(-(2**63), 2**63 - 1) | st.integers(0, 50)
ROWS = st.fixed_dictionaries(
    {"uri": URIS, "image_id": TEXTS, "dataset": TEXTS, "version": TEXTS, "offset": NUMBERS, "length": NUMBERS}
)
MANIFEST = pa.schema(
    [
        *((name, pa.string()) for name in ("uri", "image_id", "dataset", "version", "caption")),
        *(("offset", pa.int64()), ("length", pa.int64()), ("bytes", pa.binary())),
    ]
)
PICTURES = [encoded(photo(20, 15, seed), name) for seed, name in enumerate(("JPEG", "PNG", "WEBP", "TIFF", "GIF"))]


def write_manifest(folder: Path, rows: list[dict[str, Any]]) -> ManifestConfig:
    path = folder / "manifest.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST), path)
    return ManifestConfig(path=(str(path),), keep=("caption",))


@given(st.lists(ROWS, max_size=12), st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_manifest_row_is_counted_exactly_once(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("plan")
    manifest = write_manifest(folder, rows)
    table = Predictions.create(str(folder / "out"), STORAGE, [])
    ids = sorted({row["image_id"] for row in rows if row["image_id"]})
    done = data.draw(st.lists(st.sampled_from(ids), unique=True)) if ids else []
    table.commit([write_fragment(str(folder / "out"), "d", done, 1)] if done else [], "run", 1)
    with open_plan(manifest, STORAGE, table) as found:
        files = found.write_pending(str(folder / "pending"), STORAGE)
    found.account.check()
    assert found.account.total.input == len(rows)
    pending = [row for file in files for row in pq.read_table(file).to_pylist()]
    pending_ids = [row["image_id"] for row in pending]
    assert len(pending) == found.account.total.left == len(set(pending_ids))
    assert not set(pending_ids) & set(done)
    for row in pending:
        folders = fragment_path(row["dataset"], schema.OK, 1).split("/")
        assert len(folders) == 3
        assert all(folder.startswith(("dataset=", "outcome=", "1-")) and len(folder) < 255 for folder in folders)


def damaged(picture: bytes, position: int, junk: bytes) -> bytes:
    place = position % len(picture)
    return picture[:place] + junk + picture[place + len(junk) // 2 :]


FILES = (
    st.sampled_from(PICTURES)
    | st.binary(max_size=60)
    | st.builds(damaged, st.sampled_from(PICTURES), st.integers(0, 5000), st.binary(max_size=20))
)
ENTRIES = st.tuples(ROWS, FILES, st.sampled_from(["uri", "file", "carried"]))


def names_below(folder: Path, *, without: Path) -> set[Path]:
    """All names but those in the output and in the model cache."""
    left_out = {without, Path(os.environ["LAKELENS_CACHE"])}
    return {path for path in folder.rglob("*") if not left_out & {path, *path.parents}}


@pytest.mark.slow
@pytest.mark.usefixtures("local_cluster")
@given(st.lists(ENTRIES, min_size=60, max_size=120))
@settings(max_examples=2, deadline=None, derandomize=True, phases=[Phase.generate], database=None)
def test_every_row_ends_as_a_prediction_an_error_row_or_an_invalid_count(
    tmp_path_factory: pytest.TempPathFactory, model: Path, entries: list[tuple[dict[str, Any], bytes, str]]
) -> None:
    folder = tmp_path_factory.mktemp("lake")
    rows = []
    for number, (row, data, where) in enumerate(entries):
        row = {**row, "caption": row["version"]}
        if where == "file":
            (folder / f"file-{number}").write_bytes(data)
            row |= {"uri": str(folder / f"file-{number}")}
        elif where == "carried":
            row |= {"bytes": data, "offset": None, "length": None}
        rows.append(row)
    config = write_manifest(folder, rows)
    before = names_below(folder.parent, without=folder / "out")
    total = run(
        lakes.settings(config.path[0], model, folder / "out", "manifest.keep=[caption]", "failures.max_rate=1")
    ).account.total
    assert total == Counts(
        input=len(rows), ok=total.ok, failed=total.failed, duplicates=total.duplicates, invalid=total.invalid
    )
    found = lakes.predictions(folder / "out", "image_id, outcome, stage, error_code, label, caption, version")
    assert len(found) == len({row["image_id"] for row in found}) == total.ok + total.failed
    for row in found:
        assert row["caption"] == row["version"]
        assert (row["outcome"] == "ok") == (row["label"] is not None) == (row["error_code"] is None)
    assert names_below(folder.parent, without=folder / "out") == before
