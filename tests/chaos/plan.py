"""What a round of chaos does, decided by its seed alone: a scenario, its blows and their moments, the weather."""

import random
from dataclasses import dataclass, field

from tests.support.faults import Fault, Weather

SCENARIOS = ("plain", "grown", "backfill")
WORKERS = ("decoder", "predictor", "writer", "child", "node")
TAKE_OVERS = ("take-over", "suspend")
"""A command is started that takes over from the driver, which works on, or is suspended and goes on later."""
BESIDE = ("rival", "compact")
"""Commands that are started beside a driver: one that may not take over, and maintenance."""
SILENT_S = 65.0
"""Longer than any client of the job waits for an answer."""
COMMON = [fault for fault in Fault if fault not in (Fault.REFUSE, Fault.LOST, Fault.LATE)]
PATHS = ("", "/_delta_log/", "/predictions/", "/(images|bad)/", "/runs/")


@dataclass(frozen=True)
class Moment:
    """`delay_s` after the driver's start, after its log has grown by `commits`, or near its last commit."""

    after: str
    commits: int = 0
    delay_s: float = 0.0


@dataclass(frozen=True)
class Blow:
    """What is killed, or started beside it, and when."""

    kind: str
    moment: Moment


@dataclass(frozen=True)
class Attempt:
    """One driver's fate. Without blows and weather it runs in peace."""

    blows: tuple[Blow, ...] = ()
    weather: Weather = Weather()


@dataclass(frozen=True)
class Scenario:
    """A round. `attempts` are of its disturbed step, and quiet ones follow until one is through; `first_run` is of
    the run before a backfill."""

    seed: int
    name: str
    attempts: tuple[Attempt, ...]
    commit_interval_s: float
    rows_per_file: int
    decoders: int = 1
    model_in_store: bool = False
    first_run: Attempt = Attempt()
    drawn: random.Random = field(default_factory=random.Random, compare=False)

    @property
    def needs_worker_node(self) -> bool:
        """For a node to lose, or for two runs at once."""
        kinds = {blow.kind for attempt in self.attempts for blow in attempt.blows}
        return not kinds.isdisjoint(("node", "rival", *TAKE_OVERS))


def scenario(store: str, seed: int) -> Scenario:
    """The round of this seed."""
    drawn = random.Random(f"{store} {seed}")
    name = drawn.choices(SCENARIOS, (4, 4, 2))[0]
    fatal = drawn.random() < 0.8  # the first driver is killed, or taken over
    attempts = [_attempt(drawn, store, fatal=fatal)]
    if not fatal or drawn.random() < 0.3:
        attempts.append(_attempt(drawn, store, fatal=False))
    return Scenario(
        seed,
        name,
        tuple(attempts),
        commit_interval_s=round(drawn.uniform(0.2, 1.0), 2),
        rows_per_file=drawn.randint(8, 60),
        decoders=1 if any(blow.kind in TAKE_OVERS for blow in attempts[0].blows) else drawn.randint(1, 2),
        model_in_store=drawn.random() < 0.25,
        first_run=Attempt((Blow(drawn.choice(("predictor", "writer", "decoder")), _while_working(drawn)),)),
        drawn=drawn,
    )


def _attempt(drawn: random.Random, store: str, *, fatal: bool) -> Attempt:
    kinds = drawn.choices(WORKERS, (4, 4, 4, 2, 2), k=drawn.randint(0 if fatal else 1, 3))
    kinds = [kind for number, kind in enumerate(kinds) if kind not in kinds[:number]]
    if store == "s3" and drawn.random() < 0.3:
        kinds.append("server")
    kinds += [kind for kind in BESIDE if drawn.random() < 0.15]
    blows = [Blow(kind, _while_working(drawn)) for kind in kinds]
    if fatal:
        blows.append(_fatal(drawn))
    return Attempt(tuple(blows), _weather(drawn) if store == "s3" and drawn.random() < 0.85 else Weather())


def _while_working(drawn: random.Random) -> Moment:
    """From the first commit on, or, one time in four, while the workers start."""
    if drawn.random() < 0.25:
        return Moment("commit", 1, drawn.uniform(0, 6))
    return Moment("commit", drawn.randint(2, 4), drawn.uniform(0, 0.6))


def _fatal(drawn: random.Random) -> Blow:
    """Planning, start-up, work and clean-up all get their share."""
    if drawn.random() < 0.25:
        return Blow(drawn.choice(TAKE_OVERS), Moment("commit", drawn.randint(1, 3), drawn.uniform(0, 4)))
    moments = (
        Moment("start", 0, drawn.uniform(0, 4)),
        Moment("commit", 1, drawn.uniform(0, 6)),
        Moment("commit", drawn.randint(2, 6), drawn.uniform(0, 0.5)),
        Moment("end", 0, drawn.uniform(0, 0.8)),
    )
    return Blow("driver", drawn.choices(moments, (2, 2, 5, 2))[0])


def _weather(drawn: random.Random) -> Weather:
    """A storm over all of the store is mild: with its clients' patience even one fault in twenty takes minutes."""
    where = drawn.choices(PATHS, (4, 3, 2, 2, 1))[0]
    most = 0.08 if where else 0.03
    rates = {
        str(fault): round(drawn.uniform(0.01, most), 3) for fault in drawn.sample(COMMON, drawn.randint(1, 4))
    }
    for fault in (Fault.LOST, Fault.LATE):
        if drawn.random() < 0.5:
            rates[str(fault)] = round(drawn.uniform(0.05, 5 * most), 3)
    if drawn.random() < 0.2:
        rates[str(Fault.REFUSE)] = round(drawn.uniform(0.01, 0.04), 3)
    return Weather(
        rates,
        matching=where,
        silence_s=SILENT_S if drawn.random() < 0.03 else round(drawn.uniform(0.5, 3), 1),
        drip_s=round(drawn.uniform(0.3, 2), 1),
        late_s=round(drawn.uniform(0.2, 2), 1),
        seed=drawn.randrange(1 << 30),
    )
