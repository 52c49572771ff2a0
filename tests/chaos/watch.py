"""A driver under watch until it has ended: blows fall at their moments, and one that hangs must say where."""

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psutil

from tests.chaos.cluster import MortalCluster
from tests.chaos.driver import Driver
from tests.chaos.plan import Blow
from tests.chaos.server import MortalServer

TICK_S = 0.05
HANG_S = 120.0
AIM_S, AIM_TICK_S = 1.5, 0.002
"""A writer lives some milliseconds: how long to lie in wait for one, and how closely."""
CLAIMED_AND_COMMITTED = 2
"""Versions of the log, at least."""
DOWN_S = (0.1, 1.5)
SUSPENDED_S = (0.0, 30.0)
"""A run that takes over needs some 15 seconds: it may have ended before the suspended one goes on."""
REPLACED = 0.5
"""Share of lost nodes that another one takes the place of."""
ALLOWED = {"run": (0, 3), "take-over": (0, 3), "rival": (0, 3), "compact": (0,)}
"""Exit codes of what ran beside another driver: 3 is a run that was overtaken, or that may not take over."""
DEFECTS = {1: "a traceback", 4: "an account that does not balance", 130: "a stop that nobody asked for"}


class HungError(Exception):
    """A driver made no progress, or drivers come to no end."""


@dataclass
class Tally:
    """What was struck, how drivers ended, and what should never have been."""

    kills: Counter[str] = field(default_factory=Counter)
    exits: Counter[str] = field(default_factory=Counter)
    sentences: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Watch:
    """Watches one driver after the other."""

    def __init__(
        self,
        cluster: MortalCluster,
        server: MortalServer | None,
        log_versions: Callable[[], int],
        tally: Tally,
        drawn: random.Random,
    ) -> None:
        self._cluster, self._server, self._log_versions = cluster, server, log_versions
        self._tally, self._drawn = tally, drawn
        self._driver: Driver
        self._beside: list[Driver] = []
        self._resume = 0.0

    def until_end(self, start: Callable[[str], Driver], blows: Sequence[Blow]) -> Driver:
        """Start a driver, see it through, and return it: the last one, if another took over. Raises: HungError."""
        self._begin(start("run"))
        waiting = list(blows)
        while self._driver.code() is None:
            self._look()
            if time.monotonic() > self._resume:
                self._resume_beside()
            for blow in [blow for blow in waiting if self._is_due(blow)]:
                if self._strike(blow.kind, start):
                    waiting.remove(blow)
                    self._tally.kills[blow.kind] += 1
            time.sleep(TICK_S)
        ended = self._driver
        self._resume_beside()
        for driver in self._beside:
            self._wait_for(driver)
        self._beside = []
        self._note(ended)
        return ended

    def _resume_beside(self) -> None:
        for driver in self._beside:
            driver.resume()

    def _begin(self, driver: Driver) -> None:
        self._driver, self._before = driver, self._log_versions()
        self._met: dict[tuple[str, int], float] = {}
        self._state: tuple[int, int] = (0, 0)
        self._moved = time.monotonic()

    def _look(self) -> None:
        """See how far it is. Raises: HungError."""
        now, grown = time.monotonic(), self._log_versions() - self._before
        self._met.setdefault(("start", 0), self._driver.started)
        for commits in range(grown + 1):
            self._met.setdefault(("commit", commits), now)
        if grown >= CLAIMED_AND_COMMITTED and self._driver.saw_all:
            self._met.setdefault(("end", 0), now)
        if self._state != (state := (grown, len(self._driver.said))):
            self._state, self._moved = state, now
        if now > self._moved + HANG_S:
            self._hung(self._driver)

    def _is_due(self, blow: Blow) -> bool:
        met = self._met.get((blow.moment.after, blow.moment.commits))
        if met is None and blow.kind == "driver":  # there were fewer commits than thought
            met = self._met.get(("end", 0))
        return met is not None and time.monotonic() >= met + blow.moment.delay_s

    def _strike(self, kind: str, start: Callable[[str], Driver]) -> bool:
        """False if there is nothing to strike at the moment."""
        match kind:
            case "driver":
                self._driver.kill()
            case "take-over" | "suspend":
                if kind == "suspend":
                    self._driver.suspend()
                    self._resume = time.monotonic() + self._drawn.uniform(*SUSPENDED_S)
                self._beside.append(self._driver)
                self._begin(start("take-over"))
            case "rival" | "compact":
                self._beside.append(start(kind))
            case "node":
                return self._cluster.lose_node(replaced=self._drawn.random() < REPLACED)
            case "server":
                assert self._server is not None
                self._server.kill()
                time.sleep(self._drawn.uniform(*DOWN_S))
                self._server.start()
            case _:
                return self._strike_worker(kind)
        return True

    def _strike_worker(self, kind: str) -> bool:
        deadline = time.monotonic() + (AIM_S if kind == "writer" else 0)
        while not (found := self._cluster.find(kind)):
            if time.monotonic() >= deadline or self._driver.code() is not None:
                return False
            time.sleep(AIM_TICK_S)
        try:
            self._drawn.choice(found).kill()
        except psutil.Error:  # it was quicker
            return False
        return True

    def _wait_for(self, driver: Driver) -> None:
        """An overtaken run ends at its next commit; one that may not start, at once."""
        if driver.wait(HANG_S) is None:
            self._hung(driver)
        self._note(driver)
        if driver.code() not in ALLOWED[driver.role] and self._server is None and not self._tally.kills["node"]:
            self._tally.problems.append(
                f"beside another, {driver.role} ended with {driver.code()}: {driver.sentence}"
            )

    def _note(self, driver: Driver) -> None:
        code = driver.code()
        assert code is not None
        self._tally.exits[f"{driver.role} {code}"] += 1
        if code not in (0, -9):
            self._tally.sentences.append(f"by {driver.role} ({code}): {driver.sentence}")
        if code in DEFECTS or code < -9:
            self._tally.problems.append(f"a driver ended with {DEFECTS.get(code, code)}, see {driver.log}")

    def _hung(self, driver: Driver) -> None:
        driver.abort()
        raise HungError(f"a driver made no progress for {HANG_S:.0f} s; its stacks are in {driver.log}")
