"""Where rounds of chaos take place: one cluster, one lake, a local folder and an S3 server, for all of them."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

from fsspec.implementations.local import LocalFileSystem

from tests.chaos import check, cluster as chaos_cluster, lake, plan, server as chaos_server
from tests.chaos.check import Row
from tests.chaos.cluster import MortalCluster
from tests.chaos.driver import Driver
from tests.chaos.lake import Lake, Place
from tests.chaos.round import SETTINGS, Report, Round, Store
from tests.support import faults, lakes, seaweed

BUCKET = "chaos"
REFERENCE_S = 240.0
AWS = {
    "AWS_ACCESS_KEY_ID": seaweed.ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": seaweed.SECRET_KEY,
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_CONFIG_FILE": os.devnull,
}


class Arena:
    """Plays rounds. Stores are started when one first needs them."""

    def __init__(self, folder: Path, cluster: MortalCluster, lasting: ExitStack) -> None:
        self.folder, self.cluster, self._lasting = folder, cluster, lasting
        self.lake = Lake(folder / "lake")
        self._stores: dict[str, Store] = {}
        self._reference = self._undisturbed()

    def play(self, store: str, seed: int) -> Report:
        """The round of this seed. What it left is kept if it fails."""
        if store not in self._stores:
            self._stores[store] = self._local() if store == "local" else self._s3()
        folder = self.folder / f"{store}-{seed}"
        scenario = plan.scenario(store, seed)
        round_ = Round(scenario, self.cluster, self._stores[store], self.lake, folder)
        report = round_.go(self.expected)
        if not report.problems:
            round_.place.remove()
            shutil.rmtree(folder, ignore_errors=True)
        return report

    def _local(self) -> Store:
        fs = LocalFileSystem()
        return Store(lambda name: Place(fs, str(self.folder / "local" / name)), self.lake.place)

    def _s3(self) -> Store:
        folder = self.folder / "weed"
        folder.mkdir()
        server = self._lasting.enter_context(chaos_server.mortal(folder))
        proxy = self._lasting.enter_context(faults.proxy(server.server.endpoint_url))
        fs = server.server.filesystem()
        fs.makedirs(BUCKET, exist_ok=True)
        shared = Place(fs, f"{BUCKET}/shared", "s3://")
        for name in ("images", "model"):
            shared.upload(self.lake.folder / name, name)
        return Store(lambda name: Place(fs, f"{BUCKET}/{name}", "s3://"), shared, server, proxy)

    def _undisturbed(self) -> Mapping[str, Row]:
        """The rows of one run without any chaos, by image id; those of mended images as `mended/<id>`."""
        place = Place(LocalFileSystem(), str(self.folder / "reference"))
        self.lake.break_images(place)
        rows = [row for part in self.lake.parts(self.lake.place.uri(), place.uri()) for row in part]
        for id_, data in self.lake.mended.items():
            place.put(f"mended/{id_}", data)
            (row,) = [row for row in rows if row["image_id"] == id_][:1]
            rows.append({**row, "image_id": f"mended/{id_}", "uri": place.uri(f"mended/{id_}")})
        lake.write_part(place, 0, rows)
        settings = lakes.settings(place.uri("manifest/*"), self.lake.model, place.uri("out"), *SETTINGS)
        (self.folder / "reference.yaml").write_text(settings.to_yaml())
        command = ["run", str(self.folder / "reference.yaml"), "--address", self.cluster.address]
        driver = Driver(command, self.folder / "reference.log")
        if driver.wait(REFERENCE_S) != 0:
            driver.abort()
            raise RuntimeError(f"The undisturbed run ended with {driver.code()}:\n{driver.said}")
        found = check.rows(Path(place.root) / "out", (place.uri(), self.lake.place.uri()))
        return {row["image_id"]: row for row in found}

    def expected(self, parts: int, mended: bool) -> Sequence[Row]:
        """The rows of so many parts of the manifest."""
        ids = {row["image_id"]: None for part in self.lake.parts("", "")[:parts] for row in part}
        known = [id_ for id_ in ids if id_ in self._reference]
        other = {id_: self._reference.get(f"mended/{id_}") if mended else None for id_ in known}
        return [{**(other[id_] or self._reference[id_]), "image_id": id_, "uri": id_} for id_ in known]


@contextmanager
def arena(folder: Path) -> Iterator[Arena]:
    """An arena below a folder, with an environment of its own, which its cluster inherits."""
    values = {**AWS, "LAKELENS_CACHE": str(folder / "cache")}
    others = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with patch.dict(os.environ, {**others, **values}, clear=True), ExitStack() as lasting:
        yield Arena(folder, lasting.enter_context(chaos_cluster.mortal()), lasting)
