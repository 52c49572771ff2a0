"""Groups of duplicates: same bytes, near vectors, and the image of each group that is kept."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.duplicates import finding, result
from pipeline.duplicates.finding import find
from pipeline.errors import ConfigError, TableError
from pipeline.output import compaction
from pipeline.output.reader import PredictionsReader
from tests.support import outputs
from tests.support.histories import History
from tests.support.making import STORAGE
from tests.support.pictures import write_pictures


def towards(degrees: float) -> list[float]:
    """A vector of three numbers in this direction of a plane, half as long as a unit vector."""
    angle = np.radians(degrees)
    return [0.5 * float(np.cos(angle)), 0.5 * float(np.sin(angle)), 0.0]


def apart(degrees: float) -> float:
    """The cosine distance of two directions."""
    return float(1 - np.cos(np.radians(degrees)))


def picture(image_id: str, degrees: float, **columns: Any) -> dict[str, Any]:
    return {"image_id": image_id, "embedding": towards(degrees), **columns}


def groups(path: Path, **options: Any) -> list[list[dict[str, Any]]]:
    """The rows of each group."""
    reader = PredictionsReader.open(str(path), STORAGE)
    found = find(reader, **options)
    rows = pq.read_table(found.duplicates).to_pylist()
    return [[row for row in rows if row["group"] == number] for number in range(found.groups)]


def ids(path: Path, **options: Any) -> list[list[str]]:
    return [[row["image_id"] for row in group] for group in groups(path, **options)]


def test_the_largest_image_of_a_group_is_kept_then_the_one_with_the_first_id(tmp_path: Path) -> None:
    small, large = {"width": 10, "height": 30}, {"width": 20, "height": 20}
    rows = [picture("a", 0, **small), picture("c", 1, **large), picture("b", 2, **large), picture("z", 90)]
    write_pictures(tmp_path / "out", rows)
    ((kept, *others),) = groups(tmp_path / "out")
    assert (kept["image_id"], kept["keep"], kept["distance"]) == ("b", True, 0)
    assert [(row["image_id"], row["keep"], row["exact"]) for row in others] == [
        ("a", False, False),
        ("c", False, False),
    ]
    assert [row["distance"] for row in others] == pytest.approx([apart(2), apart(1)], abs=2e-4)


def test_the_distance_decides_what_is_near(tmp_path: Path) -> None:
    write_pictures(tmp_path / "out", [picture("a", 0), picture("b", 10), picture("c", 90), picture("d", 90)])
    assert ids(tmp_path / "out", distance=apart(11)) == [["a", "b"], ["c", "d"]]
    assert ids(tmp_path / "out", distance=apart(9)) == [["c", "d"]]
    assert ids(tmp_path / "out", distance=0) == [["c", "d"]]


def test_images_with_the_same_bytes_are_one_group_across_datasets_wherever_their_vectors_are(
    tmp_path: Path,
) -> None:
    same = {"content_sha256": "f" * 64, "label": None}
    rows = [picture("m/1", 0, dataset="map", **same), picture("s/1", 60, dataset="street", **same)]
    rows += [picture("s/2", 61, content_sha256="e" * 64), picture("s/3", 120), picture("m/2", 180, dataset="map")]
    write_pictures(tmp_path / "out", rows)
    (group,) = groups(tmp_path / "out")
    assert [(row["image_id"], row["dataset"], row["exact"], row["distance"]) for row in group] == [
        ("m/1", "map", True, 0),
        ("s/1", "street", True, 0),
    ]


def test_a_vector_of_zeros_is_near_to_nothing_but_can_have_the_same_bytes(tmp_path: Path) -> None:
    zeros = [0.0, 0.0, 0.0]
    rows = [
        {"image_id": name, "embedding": zeros, "content_sha256": hash_ * 64} for name, hash_ in ("aa", "ba", "cc")
    ]
    write_pictures(tmp_path / "out", [*rows, picture("d", 5)])
    assert ids(tmp_path / "out", distance=0.3) == [["a", "b"]]


def test_a_chain_is_one_group_but_only_images_near_its_first_one_can_go(tmp_path: Path) -> None:
    write_pictures(tmp_path / "out", [picture("a", 0), picture("b", 10), picture("c", 20)])
    ((kept, *others),) = groups(tmp_path / "out", distance=apart(11))
    assert [(row["image_id"], row["keep"]) for row in (kept, *others)] == [("a", True), ("b", False), ("c", True)]
    assert [row["distance"] for row in others] == pytest.approx([apart(10), apart(20)], abs=2e-4)


def test_a_group_has_a_largest_number_of_different_files_and_the_nearest_come_first(tmp_path: Path) -> None:
    rows = [picture("a", 0), picture("b", 10), picture("c", 12), picture("d", 12, content_sha256="d" * 64)]
    write_pictures(tmp_path / "out", [*rows, picture("e", 12, content_sha256="d" * 64)])
    path = tmp_path / "out"
    assert ids(path, distance=apart(11), largest=3) == [["b", "c", "d", "e"]]
    assert find(PredictionsReader.open(str(path), STORAGE), distance=apart(11), largest=3).refused == 1


def test_only_ok_rows_count_and_a_compaction_changes_nothing(tmp_path: Path) -> None:
    history = History(tmp_path / "out")
    history.run(ok="ab", failed="cd")
    history.run(ok="ef", dataset="map")
    before = find(history.reader(), distance=0.3)
    rows = result.read(str(history.path), STORAGE)
    assert [(one.dataset, one.images) for one in before.datasets] == [("map", 2), ("street", 2)]
    list(compaction.compact(str(history.path), STORAGE))
    after = find(history.reader(), distance=0.3)
    assert (after.groups, after.datasets) == (before.groups, before.datasets)
    assert result.read(str(history.path), STORAGE).to_pylist() == rows.to_pylist()


def test_shares_count_what_could_go_by_dataset_and_the_file_holds_them(tmp_path: Path) -> None:
    same = {"content_sha256": "f" * 64}
    rows = [
        picture("m/1", 0, dataset="map", **same),
        picture("s/1", 0, **same),
        picture("s/2", 1),
        picture("s/3", 90),
    ]
    write_pictures(tmp_path / "out", rows)
    found = find(PredictionsReader.open(str(tmp_path / "out"), STORAGE))
    counts = [(one.dataset, one.images, one.exact, one.near, one.part) for one in (*found.datasets, found.total)]
    assert counts == [("map", 1, 0, 0, 0.0), ("street", 3, 1, 1, 2 / 3), ("total", 4, 1, 1, 0.5)]
    held = json.loads(pq.read_schema(found.duplicates).metadata[result.SUMMARY])
    assert held == json.loads(json.dumps(found.described()))
    assert (held["version"], held["total"]["share"]) == (found.version, 0.5)


def test_a_manifest_has_one_image_of_each_group_and_all_others(tmp_path: Path) -> None:
    write_pictures(tmp_path / "out", [picture("a", 0), picture("b", 1), picture("it's", 90)])
    reader, kept = PredictionsReader.open(str(tmp_path / "out"), STORAGE), tmp_path / "kept.parquet"
    find(reader, str(tmp_path / "groups.parquet"), keep=str(kept))
    manifest = pq.read_table(kept)
    assert manifest.column_names == ["image_id", "uri", "dataset", "version"]
    assert sorted(manifest["image_id"].to_pylist()) == ["a", "it's"]
    assert pq.read_schema(tmp_path / "groups.parquet").names == result.DUPLICATES.names
    with pytest.raises(TableError, match=r"There is no .*duplicates\.parquet: run lakelens duplicates"):
        result.read(reader.output, STORAGE)


def test_an_output_without_rows_has_no_duplicates(tmp_path: Path) -> None:
    outputs.write_headless(tmp_path / "out", {})
    assert ids(tmp_path / "out") == []


def test_a_row_without_a_vector_is_named(tmp_path: Path) -> None:
    write_pictures(tmp_path / "out", [picture("a", 0), {"image_id": "b", "embedding": [1.0]}])
    with pytest.raises(TableError, match=r"The row 'b' of .* has no vector of 3 numbers"):
        find(PredictionsReader.open(str(tmp_path / "out"), STORAGE))


def test_what_cannot_be_asked_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    write_pictures(tmp_path / "out", [picture("a", 0)])
    reader = PredictionsReader.open(str(tmp_path / "out"), STORAGE)
    with pytest.raises(ConfigError, match=f"distance = 0.9 is not between 0 and {finding.FARTHEST}"):
        find(reader, distance=0.9)
    with pytest.raises(ConfigError, match=r"must end in \.parquet"):
        find(reader, "groups.csv")
    with pytest.raises(ConfigError, match=r"cannot be one file, same\.parquet"):
        find(reader, "same.parquet", keep="same.parquet")


def test_a_damaged_file_of_groups_is_named(tmp_path: Path) -> None:
    (tmp_path / "duplicates.parquet").write_bytes(b"no parquet")
    with pytest.raises(TableError, match=r"duplicates\.parquet is damaged"):
        result.read(str(tmp_path), STORAGE)


def test_the_columns_are_those_that_are_documented(tmp_path: Path) -> None:
    write_pictures(tmp_path / "out", [picture("a", 0), picture("b", 1)])
    find(PredictionsReader.open(str(tmp_path / "out"), STORAGE))
    found = result.read(str(tmp_path / "out"), STORAGE)
    assert pa.schema([field.remove_metadata() for field in found.schema]) == result.DUPLICATES
