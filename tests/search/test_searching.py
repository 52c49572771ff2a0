"""Searches of a space that a real model has made: by image, id, text and vector."""

import base64
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline import open_space
from pipeline.errors import ConfigError, ModelError, QueryError, SpaceError, TableError
from pipeline.face.opened_space import Space
from tests.support import embedded, lakes
from tests.support.making import encoded

COUNT = 8
TURNED = 6
"""The EXIF orientation of pixels that a reader has to turn by 90 degrees."""


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images in two datasets, one that is none, and the output of a ViT over them."""
    folder = tmp_path_factory.mktemp("search")
    paths = lakes.folder_of_images(folder / "images", COUNT)
    rows = [
        {"image_id": path.stem, "uri": str(path), "dataset": "even" if number % 2 == 0 else "odd", "note": "x"}
        for number, path in enumerate(paths)
    ]
    (folder / "broken.jpg").write_bytes(b"no image")
    rows.append({"image_id": "broken", "uri": str(folder / "broken.jpg"), "dataset": "odd", "note": "x"})
    model = lakes.tiny_vit(folder / "model")
    embedded.write_output(folder, model, rows)
    return folder


@pytest.fixture(scope="module")
def space(lake: Path) -> Space:
    return open_space(str(lake / "out"))


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The URL of a folder, served by HTTP."""

    class Files(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_image_of_the_lake_is_nearest_to_itself(space: Space, lake: Path) -> None:
    hits = space.search(str(lake / "images" / "00003.png"), k=3)
    assert len(hits) == 3
    first = hits.to_dicts()[0]
    assert list(first) == ["image_id", "uri", "dataset", "label", "score", "distance"]
    assert (first["image_id"], first["dataset"]) == ("00003", "odd")
    assert first["distance"] == pytest.approx(0, abs=1e-5)
    assert hits.to_pandas()["distance"].is_monotonic_increasing
    assert hits.searched.startswith("Every row was compared.")


def test_an_image_by_any_uri_of_a_manifest_is_the_same_query(space: Space, lake: Path, tmp_path: Path) -> None:
    data = (lake / "images" / "00004.jpg").read_bytes()
    (tmp_path / "shard.tar").write_bytes(b"x" * 100 + data + b"y" * 50)
    columns = pa.schema({"uri": pa.string(), "bytes": pa.binary()})
    pq.write_table(pa.Table.from_pylist([{"bytes": b""}, {"bytes": data}], columns), tmp_path / "m.parquet")
    uris = [
        f"file://{lake}/images/00004.jpg",
        f"data:image/jpeg;base64,{base64.b64encode(data).decode()}",
        f"{tmp_path}/shard.tar#bytes=100-{99 + len(data)}",
        f"{tmp_path}/m.parquet#row=1",
    ]
    expected = space.search(str(lake / "images" / "00004.jpg"), k=2).table
    assert all(space.search(uri, k=2).table == expected for uri in uris)
    with served(lake / "images") as url:
        assert space.search(f"{url}/00004.jpg", k=2).table == expected
        with pytest.raises(QueryError, match=r"http://127\.0\.0\.1:\d+/no\.jpg cannot .* with not_found"):
            space.search(f"{url}/no.jpg?signature=SECRET")


def test_a_turned_image_is_found_by_what_it_shows(space: Space, lake: Path, tmp_path: Path) -> None:
    upright, exif = Image.open(lake / "images" / "00003.png"), Image.Exif()
    exif[0x0112] = TURNED
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    (tmp_path / "turned.png").write_bytes(encoded(turned, exif=exif.tobytes()))
    first = space.search(str(tmp_path / "turned.png"), k=1).to_dicts()[0]
    assert (first["image_id"], first["distance"]) == ("00003", pytest.approx(0, abs=1e-5))


def test_a_row_is_no_hit_of_its_own_query(space: Space) -> None:
    hits = space.search(image_id="00003", k=COUNT + 5)
    assert sorted(hits.table["image_id"].to_pylist()) == [f"{n:05}" for n in range(COUNT) if n != 3]
    assert len(space.search(image_id="00003", k=2, datasets=["even"])) == 2


def test_a_stored_vector_is_a_query_whatever_its_length(space: Space) -> None:
    stored = space.to_arrow(["embedding"], where="image_id = '00005'")["embedding"].to_pylist()[0]
    for vector in (stored, np.array([stored]) * 7, [value * 1e-3 for value in stored]):
        assert space.search(vector=vector, k=1).to_dicts()[0]["image_id"] == "00005"


def test_filters_and_further_columns(space: Space) -> None:
    hits = space.search(image_id="00003", datasets=["odd"], where="image_id > '00003'", columns=["note", "width"])
    assert hits.table.column_names[-3:] == ["distance", "note", "width"]
    assert sorted(hits.table["image_id"].to_pylist()) == ["00005", "00007"]
    assert len(space.search(image_id="00003", where="false")) == 0


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({}, "exactly one query, an image, an id, a text or a vector; 0 are given"),
        ({"image_id": "00001", "text": "a cat"}, "2 are given"),
        ({"image_id": "0000"}, r"no image_id '0000'; did you mean '0000\d', '0000\d', '0000\d'\?$"),
        ({"image_id": "nothing like it"}, r"no image_id 'nothing like it'\.$"),
        ({"image_id": "https://a/x.jpg?sig=SECRET"}, r"no image_id 'https://a/x\.jpg'\.$"),
        ({"image_id": "broken"}, "The row 'broken' has no vector: decode failed with unsupported_format"),
        ({"image": "no/such.jpg"}, r"no/such\.jpg cannot be a query: fetch failed with not_found"),
        ({"vector": [1.0, 2.0]}, "The vector has 2 numbers, but the vectors of this space have 48"),
        ({"vector": [0.0] * 48}, "The vector is zero"),
        ({"vector": [float("nan")] * 48}, "not a finite number"),
        ({"vector": [[1.0] * 48] * 2}, r"shape \(2, 48\)"),
        ({"vector": ["a"] * 48}, "not a list of numbers"),
    ],
)
def test_a_query_that_gives_no_vector_is_one_sentence(
    space: Space, query: dict[str, object], sentence: str
) -> None:
    with pytest.raises(QueryError, match=sentence):
        space.search(**query)  # type: ignore[arg-type]


def test_a_broken_image_says_what_is_wrong_with_it(space: Space, lake: Path, tmp_path: Path) -> None:
    data = (lake / "images" / "00001.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(QueryError, match=r"cut\.jpg cannot be a query: decode failed with truncated, the"):
        space.search(str(tmp_path / "cut.jpg"))


def test_what_is_asked_of_the_rows_is_checked_before_a_model_is_loaded(lake: Path, tmp_path: Path) -> None:
    (folder := tmp_path / "out").mkdir()
    shutil.copytree(lake / "out", folder, dirs_exist_ok=True)
    config = next((folder / "runs").glob("*/config.yaml"))
    config.write_text(config.read_text().replace(str(lake / "model"), "/no/such/model"))
    space, image = open_space(str(folder)), str(lake / "images" / "00003.png")
    for asked, error in (
        ({"k": 0}, ConfigError),
        ({"where": "nope > 1"}, ConfigError),
        ({"datasets": ["nope"]}, TableError),
        ({"columns": ["nope"]}, TableError),
        ({"columns": ["distance"]}, ConfigError),
    ):
        with pytest.raises(error):
            space.search(image, **asked)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="/no/such/model does not exist"):
        space.search(image)
    moved = open_space(str(folder), model=str(lake / "model"))
    assert moved.search(image, k=1).to_dicts()[0]["image_id"] == "00003"
    assert len(space.search(image_id="00003", k=2)) == 2  # no model is needed
    with pytest.raises(SpaceError, match=r"no text encoder.*Models of the types clip and siglip have one"):
        space.search(text="a cat")


def test_another_model_in_the_place_of_the_first_is_refused(lake: Path, tmp_path: Path) -> None:
    shutil.copytree(lake / "out", tmp_path / "out")
    config = next((tmp_path / "out" / "runs").glob("*/config.yaml"))
    other = lakes.tiny_vit(tmp_path / "other", seed=5)
    config.write_text(config.read_text().replace(str(lake / "model"), str(other)))
    with pytest.raises(SpaceError, match=r"other did not make .*out: its fingerprint"):
        open_space(str(tmp_path / "out")).search(str(lake / "images" / "00003.png"))


def test_vectors_that_are_not_normalised_are_searched_by_their_direction(lake: Path, tmp_path: Path) -> None:
    paths = sorted((lake / "images").iterdir())[:4]
    rows = [{"uri": str(path)} for path in paths]
    embedded.write_output(tmp_path, lake / "model", rows, "embedding.normalize=false")
    space = open_space(str(tmp_path / "out"))
    assert np.linalg.norm(space.to_arrow(["embedding"])["embedding"].to_pylist()[0]) > 2
    first, *others = space.search(str(paths[2]), k=4).to_dicts()
    assert (first["uri"], first["distance"]) == (str(paths[2]), pytest.approx(0, abs=1e-5))
    assert all(0 < hit["distance"] < 2 for hit in others)


def test_an_output_with_failed_rows_only_says_so(lake: Path, tmp_path: Path) -> None:
    embedded.write_output(tmp_path, lake / "model", [{"uri": str(lake / "broken.jpg")}])
    space = open_space(str(tmp_path / "out"))
    with pytest.raises(TableError, match="has no rows with a vector yet"):
        space.search(str(lake / "images" / "00003.png"))
    with pytest.raises(TableError, match="has no rows with a vector yet"):
        space.search(vector=[1.0] * 48)


def test_an_older_description_without_a_dimension_serves(lake: Path, tmp_path: Path) -> None:
    shutil.copytree(lake / "out", tmp_path / "out")
    file = tmp_path / "out" / "space.json"
    file.write_text(json.dumps({"fingerprint": json.loads(file.read_text())["fingerprint"]}))
    space = open_space(str(tmp_path / "out"))
    assert space.search(str(lake / "images" / "00003.png"), k=1).to_dicts()[0]["image_id"] == "00003"
    assert len(space.search(vector=[1.0] * 48, k=2)) == 2
