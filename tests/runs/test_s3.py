"""The same run with everything on a real S3 server: manifest, images, model folder, output."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
import s3fs

from pipeline import config
from pipeline.config import StorageConfig
from pipeline.errors import ErrorCode, FailureRateError, RowError, StorageError
from pipeline.face.opened_space import open_space
from pipeline.images.fetch import Fetcher, Request
from pipeline.labels import head as heads, own_head, relabelling
from pipeline.output import orphans
from pipeline.output.fragment import Fragment
from pipeline.output.layout import fragment_path
from pipeline.output.table import Predictions
from pipeline.planning import claim, listing, manifest
from pipeline.planning.listing_report import Listing
from pipeline.planning.plan import open_plan
from pipeline.run import run
from pipeline.space_model import last_run, open_model
from pipeline.storage import sql
from pipeline.storage.filesystems import Storage
from tests.images.test_fetch import fetch
from tests.support import lakes, seaweed

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_cluster")]

BUCKET = "lake"


@pytest.fixture(scope="module")
def server(s3_server: seaweed.S3Server) -> Iterator[seaweed.S3Server]:
    """The server with its bucket, and the environment that leads to it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)
        s3_server.filesystem().makedirs(BUCKET, exist_ok=True)
        yield s3_server


@pytest.fixture(scope="module")
def lake(server: seaweed.S3Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A prefix with `images/<dataset>/…` and `model/`."""
    folder = tmp_path_factory.mktemp("lake")
    lakes.folder_of_images(folder / "images" / "cats & dogs", 30)
    lakes.folder_of_images(folder / "images" / "007", 30, first=30)
    (folder / "images" / "007" / "broken.jpg").write_text("no image")
    (folder / "images" / "007" / "empty.jpg").touch()
    lakes.tiny_vit(folder / "model")
    server.filesystem().put(f"{folder}/", f"{BUCKET}/first/", recursive=True)
    return f"s3://{BUCKET}/first"


@pytest.fixture(scope="module")
def finished(lake: str, local_cluster: None) -> str:
    """The output of a run over the lake."""
    found = listing.write_listing(
        f"{lake}/images", f"{lake}/manifest.parquet", Storage(), dataset="-", dataset_from=0
    )
    assert found == Listing(62)
    run(lakes.settings(f"{lake}/*.parquet", f"{lake}/model", f"{lake}/out"))
    return f"{lake}/out"


def rows_of(output: str) -> list[tuple[str, str, str, str | None]]:
    connection = duckdb.connect()
    sql.register_stores(connection, [output], Storage())
    return connection.sql(
        f"SELECT uri, dataset, outcome, error_code FROM read_parquet('{output}/predictions/*/*/*.parquet', "
        "hive_partitioning = true, hive_types = {'dataset': VARCHAR}) ORDER BY uri"
    ).fetchall()


def test_every_object_is_exactly_one_row(finished: str) -> None:
    rows = rows_of(finished)
    assert len(rows) == len({uri for uri, *_ in rows}) == 62
    failed = {Path(uri).name: code for uri, _, outcome, code in rows if outcome == "failed"}
    assert failed == {"broken.jpg": "unsupported_format", "empty.jpg": "empty"}
    assert {dataset for _, dataset, *_ in rows} == {"cats & dogs", "007"}


def test_a_second_run_commits_nothing(finished: str, lake: str, server: seaweed.S3Server) -> None:
    before = server.filesystem().find(finished)
    summary = run(lakes.settings(f"{lake}/*.parquet", f"{lake}/model", finished))
    assert summary.run_id is None
    assert summary.account.total.already_done == 62
    assert server.filesystem().find(finished) == before


def test_a_new_object_is_found_by_the_next_run(
    finished: str, lake: str, server: seaweed.S3Server, tmp_path: Path
) -> None:
    (path,) = lakes.folder_of_images(tmp_path, 1, first=999)
    server.filesystem().put_file(str(path), f"{BUCKET}/first/images/new/{path.name}")
    settings = lakes.settings(f"{lake}/images/", f"{lake}/model", finished)
    with open_plan(settings.manifest, Storage(), claim.resolve_target(settings).table) as found:
        assert (found.account.total.already_done, found.pending) == (62, 1)
    assert run(settings).account.total.ok == 1
    assert len(rows_of(finished)) == 63


def test_the_models_own_head_gives_the_labels_of_the_run_in_ray_tasks(
    finished: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = open_space(finished)
    run_id = last_run(space.reader)
    assert run_id is not None
    heads.save(own_head.make(open_model(finished, Storage(), run_id), finished), f"{finished}-own", Storage())
    monkeypatch.setattr(relabelling, "ALONE_ROWS", 0)
    found = relabelling.relabel(finished, f"{finished}-own", Storage(), name="own")
    rows = space.to_arrow(["label", "own.label"]).to_pylist()
    assert found.rows == found.computed == len(rows) >= 60
    assert all(row["label"] == row["own.label"] for row in rows)
    assert relabelling.relabel(finished, f"{finished}-own", Storage(), name="own").computed == 0


def test_a_run_brings_the_labels_of_its_heads_up_to_date(finished: str, lake: str) -> None:
    head = config.HeadConfig(path=f"{finished}-own", name="kept")
    settings = lakes.settings(f"{lake}/*.parquet", f"{lake}/model", finished).model_copy(update={"heads": (head,)})
    assert run(settings).run_id is None  # no row is pending, but none has this label
    space = open_space(finished)
    assert space.labels("kept").num_rows == space.reader.count("outcome = 'ok'")


@pytest.mark.parametrize("prefix", ["sp ace", "é", "a#b", "a+b", "q?x", "a=b"])
def test_the_log_of_an_unusual_prefix_lies_beside_its_files(prefix: str, server: seaweed.S3Server) -> None:
    output, storage = f"s3://{BUCKET}/odd/{prefix}/out", Storage()
    table = Predictions.create(output, storage, [])
    epoch = table.claim("run", [])
    assert epoch == 1
    path = fragment_path("d a/%", "ok", epoch)
    storage.write(f"{output}/predictions/{path}", b"content")
    table.commit([Fragment(path, "d a/%", "ok", 1, 7)], "run", epoch)
    assert orphans.delete(table, range(9)) == 0
    opened = Predictions.open(output, storage)
    assert opened is not None
    assert [storage.read(uri) for uri in opened.files()] == [b"content"]
    log = f"{BUCKET}/odd/{prefix}/out/predictions/_delta_log"
    assert len(server.filesystem().find(log)) == 3


def test_a_percent_sign_in_an_object_stores_output_is_refused(server: seaweed.S3Server) -> None:
    with pytest.raises(
        StorageError, match=r"^Cannot keep a table at .*: use an output.path without a percent sign\.$"
    ):
        Predictions.open(f"s3://{BUCKET}/50%/out", Storage())


def test_no_credential_is_written_anywhere(finished: str, server: seaweed.S3Server) -> None:
    fs = server.filesystem()
    written = [path for path in fs.find(finished) if not path.endswith(".parquet")]
    assert len(written) >= 6
    for path in written:
        text = fs.cat_file(path).decode()
        assert seaweed.SECRET_KEY not in text, path
        assert seaweed.ACCESS_KEY not in text, path


def test_an_endpoint_in_the_config_needs_none_in_the_environment(
    finished: str, lake: str, server: seaweed.S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    overrides = (f"storage.endpoint_url={server.endpoint_url}", "storage.region=us-east-1")
    settings = lakes.settings(f"{lake}/manifest.parquet", f"{lake}/model", finished, *overrides)
    target = claim.resolve_target(settings)
    assert target.table is not None
    with open_plan(settings.manifest, target.storage, target.table) as found:
        assert found.account.total.already_done == 62


def test_a_manifest_of_every_format_is_read_from_s3(lake: str, server: seaweed.S3Server, tmp_path: Path) -> None:
    fs = server.filesystem()
    fs.pipe_file(f"{BUCKET}/formats/a.csv", b"uri,dataset\nimages/a.jpg,007\n")
    fs.pipe_file(f"{BUCKET}/formats/b.jsonl", b'{"uri": "s3://other/b.jpg"}\n')
    connection = duckdb.connect()
    given = config.parse(
        {"manifest": {"path": [f"s3://{BUCKET}/formats/*"]}, "output": {"path": "unused"}}
    ).manifest
    manifest.create_input(connection, given, Storage(), tmp_path, id_format=2)
    found = connection.sql("SELECT uri, dataset FROM input ORDER BY uri").fetchall()
    assert found == [(f"s3://{BUCKET}/formats/images/a.jpg", "007"), ("s3://other/b.jpg", "images")]


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        (f"s3://{BUCKET}/nowhere.jpg", ErrorCode.NOT_FOUND),
        ("s3://no-such-bucket/a.jpg", ErrorCode.NO_SUCH_BUCKET),
        (f"s3://{BUCKET}", ErrorCode.BAD_URI),
        ("s3://", ErrorCode.BAD_URI),
        (f"s3://{BUCKET}/sizes/empty", ErrorCode.EMPTY),
        (f"s3://{BUCKET}/sizes/large", ErrorCode.TOO_LARGE),
    ],
)
def test_an_object_that_cannot_be_had_is_a_coded_row_error(
    uri: str, code: ErrorCode, server: seaweed.S3Server
) -> None:
    server.filesystem().pipe({f"{BUCKET}/sizes/empty": b"", f"{BUCKET}/sizes/large": b"x" * 101})
    (found,) = fetch([Request(uri)], Storage(), max_bytes=100)
    assert isinstance(found, RowError)
    assert (found.stage, found.code) == ("fetch", code)


def test_a_range_of_an_object_is_read_alone(server: seaweed.S3Server) -> None:
    server.filesystem().pipe_file(f"{BUCKET}/shard.tar", b"0123456789")
    uri = f"s3://{BUCKET}/shard.tar"
    found = fetch([Request(uri, 2, 3), Request(uri, 8, 5), Request(uri, 0, 10)], Storage(), max_bytes=100)
    assert (found[0], found[2]) == (b"234", b"0123456789")
    assert isinstance(found[1], RowError)
    assert found[1].code == ErrorCode.TRUNCATED


def test_wrong_credentials_are_one_sentence_without_the_credentials(
    server: seaweed.S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    # Another region makes fsspec open a store of its own: it caches them by their options.
    with pytest.raises(StorageError, match=r"^Cannot open s3://lake/x: access is denied; .*\.$") as refused:
        Storage(StorageConfig(region="eu-west-1")).read(f"s3://{BUCKET}/x")
    assert seaweed.ACCESS_KEY not in str(refused.value)


def test_an_object_is_created_only_once(server: seaweed.S3Server) -> None:
    storage = Storage()
    assert storage.create(f"s3://{BUCKET}/once.json", b"first")
    assert not storage.create(f"s3://{BUCKET}/once.json", b"second")
    assert storage.read(f"s3://{BUCKET}/once.json") == b"first"
    storage.write_json(f"s3://{BUCKET}/once.json", {"third": True})
    assert json.loads(storage.read(f"s3://{BUCKET}/once.json") or b"") == {"third": True}


def test_a_bucket_that_is_not_there_stops_the_run_and_nothing_is_committed(lake: str, tmp_path: Path) -> None:
    rows = [{"uri": f"s3://no-such-bucket/{number}.jpg"} for number in range(12)]
    path = lakes.write_manifest(tmp_path / "m.parquet", rows)
    started = time.monotonic()
    with pytest.raises(FailureRateError) as stopped:
        run(lakes.settings(path, f"{lake}/model", tmp_path / "out"))
    assert time.monotonic() - started < 60
    assert str(stopped.value).startswith("12 of the first 12 images failed")
    assert str(stopped.value).count("s3://no-such-bucket/") == 3
    assert list((tmp_path / "out").rglob("*.parquet")) == list((tmp_path / "out").glob("runs/*/pending/*.parquet"))


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
def test_wrong_credentials_are_denied_at_once(
    name: str, server: seaweed.S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "wrong")
    s3fs.S3FileSystem.clear_instance_cache()  # each has the credentials that it was made with
    found = list(Fetcher(Storage(), 1000)([Request(f"s3://{BUCKET}/{number}") for number in range(40)]))
    s3fs.S3FileSystem.clear_instance_cache()
    codes = {(one.data.code, one.attempts) for one in found if isinstance(one.data, RowError)}
    assert codes == {(ErrorCode.ACCESS_DENIED, 1)}


def test_a_bucket_that_is_not_there_is_told_from_a_missing_object(server: seaweed.S3Server) -> None:
    uris = ("s3://no-such-bucket/x", f"s3://{BUCKET}/no-such-object")
    found = [one.data for one in Fetcher(Storage(), 1000)([Request(uri) for uri in uris])]
    said = [one.code for one in found if isinstance(one, RowError)]
    assert said == [ErrorCode.NO_SUCH_BUCKET, ErrorCode.NOT_FOUND]
