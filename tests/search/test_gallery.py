"""The gallery of hits: one page that shows what was found, whatever the lake holds."""

import base64
import hashlib
import io
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline import open_space
from pipeline.face.opened_space import Space
from pipeline.search.thumbnails import CHANGED, GONE, SIDE
from tests.support import embedded, lakes
from tests.support.making import STORAGE, encoded, photo
from tests.support.seaweed import S3Server

PAGE = Path(__file__).parents[2] / "docs" / "search.md"
PNG = encoded(photo(40, 30))
EVIL = '<script>alert("x")</script> &amp; "\'>'


class Page(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())

    def images(self) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == "img"]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in files, in a tar file, in a `data:` URI and in a manifest; one id and one dataset are markup."""
    folder = tmp_path_factory.mktemp("gallery")
    paths = lakes.folder_of_images(folder / "images", 6)
    data = [path.read_bytes() for path in paths]
    (folder / "shard.tar").write_bytes(data[2] + data[3])
    columns = pa.schema({"bytes": pa.binary()})
    pq.write_table(pa.Table.from_pylist([{"bytes": data[5]}], columns), folder / "m.parquet")
    shard = f"{folder}/shard.tar"
    rows = [
        {"image_id": EVIL, "uri": str(paths[0]), "dataset": EVIL},
        {"image_id": "gone", "uri": str(paths[1])},
        {"image_id": f"{shard}#bytes=0-{len(data[2]) - 1}", "uri": shard, "offset": 0, "length": len(data[2])},
        {"image_id": "named", "uri": shard, "offset": len(data[2]), "length": len(data[3])},
        {"image_id": "written", "uri": f"data:image/jpeg;base64,{base64.b64encode(data[4]).decode()}"},
        {"image_id": "carried", "uri": f"{folder}/m.parquet#row=0", "carried_in": f"{folder}/m.parquet", "row": 0},
    ]
    renamed = {"carried_in": "_lakelens_carried_in", "row": "_lakelens_row"}
    model = lakes.tiny_vit(folder / "model")
    embedded.write_output(folder, model, [{renamed.get(k, k): v for k, v in row.items()} for row in rows])
    return folder


@pytest.fixture
def space(lake: Path) -> Space:
    return open_space(str(lake / "out"))


def test_every_hit_has_its_thumbnail_wherever_its_image_is(space: Space) -> None:
    hits = space.search(image_id="gone", k=9)
    page = Page(space.gallery(hits))
    query, *shown = page.images()
    assert len(shown) == len(hits) == 5
    assert query["alt"] == "The query"
    for image in (query, *shown):
        head, _, data = str(image["src"]).partition(",")
        assert head == "data:image/webp;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (SIDE, SIDE)
    assert len({image["src"] for image in (query, *shown)}) == 6
    assert page.texts.count(CHANGED) == 0
    assert all(str(image["alt"]).startswith(f"Hit {place}: label-") for place, image in enumerate(shown, start=1))


def test_texts_are_escaped_and_nothing_may_be_loaded_or_run(space: Space) -> None:
    text = space.gallery(space.search(vector=[1.0] * 48, k=9))
    page = Page(text)
    assert "<script" not in text
    assert EVIL in page.texts
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "a", "object", "form"})
    policy = next(str(a["content"]) for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    (style,) = re.findall("<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'")
    assert not re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?(?!data:)\w", text)
    assert any(a.get("name") == "viewport" for _, a in page.tags)
    assert "prefers-color-scheme: dark" in style


def test_an_image_that_is_gone_or_changed_says_so(lake: Path, space: Space, tmp_path: Path) -> None:
    changed, gone = lake / "images" / "00000.png", lake / "images" / "00001.jpg"
    kept = {path: path.read_bytes() for path in (changed, gone)}
    try:
        shutil.copyfile(lake / "images" / "00003.png", changed)
        gone.unlink()
        page = Page(space.gallery(space.search(str(lake / "images" / "00004.jpg"), k=9)))
        assert "Fetch failed with not_found: the object does not exist." in page.texts
        assert page.texts.count(CHANGED) == 1
        assert len(page.images()) == 1 + 5
    finally:
        for path, data in kept.items():
            path.write_bytes(data)


def test_after_a_vacuum_images_are_found_by_uri_only(lake: Path, tmp_path: Path) -> None:
    shutil.copytree(lake / "out", tmp_path / "out")
    shutil.rmtree(next((tmp_path / "out" / "runs").glob("*/pending")))
    space = open_space(str(tmp_path / "out"))
    hits = space.search(vector=[1.0] * 48, k=9)
    page = Page(space.gallery(hits))
    assert len(page.images()) == 5  # the tar file begins with another image, which is shown as changed
    assert page.texts.count(CHANGED) == 1
    assert any(text.startswith("Fetch failed with bad_uri") for text in page.texts)
    next((tmp_path / "out" / "runs").glob("*/config.yaml")).unlink()
    page = Page(space.gallery(hits))
    assert not page.images()
    assert sum("config.yaml is gone" in text for text in page.texts) == 6


def test_an_output_on_s3_is_searched_and_shown(lake: Path, s3: S3Server) -> None:
    folder, data = "s3://lake/gallery", f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    uris = [f"{folder}/{path.name}" for path in sorted((lake / "images").iterdir())]
    for uri in uris:
        STORAGE.write(uri, (lake / "images" / uri.rsplit("/", 1)[1]).read_bytes())
    embedded.write_output(folder, lake / "model", [{"uri": uri} for uri in [*uris, data]])
    space = open_space(f"{folder}/out")
    hits = space.search(uris[3], k=9)
    assert hits.table["image_id"][0].as_py() == uris[3]
    assert len(Page(space.gallery(hits)).images()) == 1 + 7


def test_a_hit_that_the_output_no_longer_has_says_so(space: Space) -> None:
    hits = space.search(image_id="gone", k=1)
    row = hits.table.set_column(0, "image_id", pa.array(["deleted meanwhile"]))
    page = Page(space.gallery(type(hits)(row, hits.query, hits.searched)))
    assert GONE in page.texts
    assert len(page.images()) == 1


def test_the_python_of_the_page_on_search(lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = sorted((lake / "images").iterdir())
    rows = [
        {"image_id": f"img-{number:05}", "uri": str(path), "dataset": "catalog", "truth": "a star"}
        for number, path in enumerate(paths)
    ]
    embedded.write_output(tmp_path, lake / "model", rows)
    (tmp_path / "lakelens-demo").mkdir()
    (tmp_path / "out").rename(tmp_path / "lakelens-demo" / "output")
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(block.replace("score > 0.5", "score > 0"), str(PAGE), "exec"), names)
    assert names["hits"].table["truth"].to_pylist() == ["a star"] * 5
    assert len(Page((tmp_path / "nearest.html").read_text()).images()) == 6


def test_a_signature_in_a_uri_is_not_shown(space: Space) -> None:
    hits = space.search(image_id="gone", k=1)
    signed = pa.array(["https://user:pw@127.0.0.1:9/x.jpg?sig=SECRET"])
    row = hits.table.set_column(0, "image_id", signed).set_column(1, "uri", signed)
    row = row.set_column(3, "label", pa.array([None], pa.string()))
    text = space.gallery(type(hits)(row, hits.query, hits.searched))
    assert "SECRET" not in text
    assert "pw@" not in text
    assert "https://127.0.0.1:9/x.jpg" in text
