"""One round of chaos: drivers one after the other over a lake, blows and weather, and the verdict at the end."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos import check, lake as chaos_lake
from tests.chaos.check import Row
from tests.chaos.cluster import MortalCluster
from tests.chaos.driver import Driver
from tests.chaos.lake import Lake, Place
from tests.chaos.plan import Attempt, Scenario
from tests.chaos.server import MortalServer
from tests.chaos.watch import HungError, Tally, Watch
from tests.support import lakes
from tests.support.faults import Proxy, Weather

SETTINGS = (
    "model.engine=openvino",
    "labels.top_k=3",
    "manifest.keep=[caption]",
    "workers.predictors={max_size: 1}",
    "workers.wait_s=20",
)
QUIET_DRIVERS = 4
"""Undisturbed drivers that may be needed after the disturbed ones; more are a failure."""


@dataclass(frozen=True)
class Store:
    """Where rounds take place. `place` gives a prefix that is opened past the proxy; `shared` has the good images
    and a model."""

    place: Callable[[str], Place]
    shared: Place
    server: MortalServer | None = None
    proxy: Proxy | None = None

    def set(self, weather: Weather) -> None:
        """Let it storm, or not."""
        if self.proxy is not None:
            self.proxy.set(weather)

    def settle(self) -> None:
        """Wait for requests whose clients are dead."""
        while self.proxy is not None and self.proxy.seen().in_flight:
            time.sleep(0.1)

    def faults(self) -> Counter[str]:
        return Counter(self.proxy.seen().faults if self.proxy is not None else {})


@dataclass
class Report:
    """What happened in a round. `problems` is empty if the output is exact."""

    scenario: Scenario
    tally: Tally = field(default_factory=Tally)
    faults: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def problems(self) -> list[str]:
        return self.tally.problems


class Round:
    """A lake, an output, and the drivers at work on it."""

    def __init__(self, scenario: Scenario, cluster: MortalCluster, store: Store, lake: Lake, folder: Path) -> None:
        self.scenario, self.cluster, self.store, self.lake, self.folder = scenario, cluster, store, lake, folder
        self.report = Report(scenario)
        self.place = store.place(f"round-{scenario.seed}")
        self.parts = lake.parts(store.shared.uri(), self.place.uri())
        self.written = self.drivers = 0
        self.config = folder / "config.yaml"
        folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text(self._settings())
        self.watch = Watch(cluster, store.server, self._log_versions, self.report.tally, scenario.drawn)

    def go(self, expected: Callable[[int, bool], Sequence[Row]]) -> Report:
        """All of it. `expected` gives the rows of so many manifest parts, mended or not."""
        started, faults = time.monotonic(), self.store.faults()
        self.cluster.have_worker_node(self.scenario.needs_worker_node)
        try:
            self._disturb()
            self._close()
            self._judge(expected)
        except HungError as error:
            self.report.problems.append(str(error))
        finally:
            self.store.set(Weather())
        self.report.faults = self.store.faults() - faults
        self.report.seconds = time.monotonic() - started
        return self.report

    def _settings(self) -> str:
        overrides = [
            *SETTINGS,
            f"output.commit_interval_s={self.scenario.commit_interval_s}",
            f"output.rows_per_file={self.scenario.rows_per_file}",
            f"workers.decoders={{max_size: {self.scenario.decoders}, initial_size: {self.scenario.decoders}}}",
        ]
        if self.store.proxy is not None:
            overrides.append(f"storage.endpoint_url={self.store.proxy.endpoint_url}")
        model = self.store.shared.uri("model") if self.scenario.model_in_store else self.lake.model
        manifest, output = self.place.uri("manifest/*.parquet"), self.place.uri("out")
        return lakes.settings(manifest, model, output, *overrides).to_yaml()

    def _disturb(self) -> None:
        """Until every part that is written is processed."""
        attempts = list(self.scenario.attempts)
        self.lake.break_images(self.place)
        self._write_part()
        command = ["run"]
        if self.scenario.name == "grown":
            self._drive(command, attempts.pop(0))
        self._write_part()
        if self.scenario.name == "backfill":
            self._until_done(command, [self.scenario.first_run])
            self.lake.mend_images(self.place)
            command = ["backfill", "--failed"]
        self._until_done(command, attempts)

    def _close(self) -> None:
        """A last run that has something to do, and so clears up; what the weather made fail is done again."""
        if self.last.had_nothing_to_do:  # then it must not have been needed
            found = self._rows("idle")
            self.report.problems.extend(f"at rest, {what}" for what in check.files(self.folder / "idle", found))
            self._write_part()
            self._until_done(["run"], [])
        if check.refused_by_store(self._rows("refused")):
            codes = [word for code in check.STORE_CODES for word in ("--code", code)]
            self._until_done(["backfill", "--failed", *codes], [])

    def _judge(self, expected: Callable[[int, bool], Sequence[Row]]) -> None:
        found = self._rows("final")
        wanted = expected(self.written, self.scenario.name == "backfill")
        input_rows = sum(map(len, self.parts[: self.written]))
        self.report.problems.extend(check.problems(self.folder / "final", found, wanted, input_rows))

    def _rows(self, name: str) -> list[Row]:
        """What a glob over the output reads, from a local copy of it."""
        self.place.download("out", self.folder / name)
        return check.rows(self.folder / name, (self.place.uri(), self.store.shared.uri()))

    def _write_part(self) -> None:
        chaos_lake.write_part(self.place, self.written, self.parts[self.written])
        self.written += 1

    def _until_done(self, command: list[str], attempts: Sequence[Attempt]) -> None:
        for attempt in [*attempts, *[Attempt()] * QUIET_DRIVERS]:
            if self._drive(command, attempt) == 0:
                return
        raise HungError(f"{' '.join(command)} comes to no good end; the last said: {self.last.sentence}")

    def _drive(self, command: list[str], attempt: Attempt) -> int | None:
        self.store.set(attempt.weather)
        if attempt == Attempt():
            self.store.settle()

        def start(role: str) -> Driver:
            self.drivers += 1
            return Driver(self._arguments(role, command), self.folder / f"driver-{self.drivers}.log", role)

        self.last = self.watch.until_end(start, attempt.blows)
        return self.last.code()

    def _arguments(self, role: str, command: list[str]) -> list[str]:
        if role == "compact":  # past the proxy: what it writes and cannot commit is kept for a week
            server = self.store.server
            return [
                role,
                self.place.uri("out"),
                *(("--endpoint-url", server.server.endpoint_url) if server else ()),
            ]
        arguments = [*command, str(self.config), "--address", self.cluster.address]
        return [*arguments, "--take-over"] if role == "take-over" else arguments

    def _log_versions(self) -> int:
        if self.store.proxy is None:
            return len(list((Path(self.place.root) / "out/predictions/_delta_log").glob("*.json")))
        prefix = f"/{self.place.root}/out/predictions/_delta_log/"
        return sum(path.startswith(prefix) for path in self.store.proxy.seen().landed)
