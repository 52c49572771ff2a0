"""One store's pace: fewer requests at once while it throttles, more as it answers, and an end to the patience."""

import threading
from collections.abc import Iterator

import pytest

from pipeline.errors import ErrorCode, RowError, Stage
from pipeline.images.pacing import IN_A_ROW, GivenUpError, Pace, ThrottledError, Turn
from pipeline.storage.error_codes import RefusedError

SLOW_DOWN = RefusedError(503, "SlowDown")


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def pace(clock: Clock, most: int = 32, patience_s: float = 60.0) -> Pace:
    return Pace(most, patience_s, clock)


def began(found: Pace, place: int = 0) -> float:
    """A request that comes and goes."""
    with found.turn(place, threading.Event()) as began_s:
        return began_s


def test_a_throttled_request_halves_what_goes_at_once_but_those_on_their_way_with_it_do_not(clock: Clock) -> None:
    found = pace(clock)
    together = [began(found, place) for place in range(20)]
    for began_s in together:
        found.throttled(began_s, 1.0, 1)
    assert found.at_once == 16
    clock.now_s += 1
    found.throttled(clock.now_s, 1.0, 2)
    assert found.at_once == 8
    for _ in range(10):
        clock.now_s += 1
        found.throttled(clock.now_s, 1.0, 3)
    assert found.at_once == 1


def test_answers_bring_it_back_one_more_for_each_round_and_never_above_the_most(clock: Clock) -> None:
    found = pace(clock, most=4)
    for _ in range(3):
        clock.now_s += 1
        found.throttled(clock.now_s, 0.0, 1)
    assert found.at_once == 1
    grown = []
    for _ in range(20):
        found.answered()
        grown.append(found.at_once)
    assert grown[:3] == [2, 2, 2]
    assert grown[-1] == 4


def test_the_store_names_the_pause_and_otherwise_pauses_grow(clock: Clock) -> None:
    found = pace(clock)
    assert 7.0 <= found.throttled(clock.now_s, 7.0, 1) <= 7.7
    waits = [found.throttled(clock.now_s, None, times) for times in range(1, 8)]
    assert found.throttled(clock.now_s, 0.0, 4) >= 2.0
    assert 0.25 <= waits[0] <= 0.5
    assert 1.0 <= waits[2] <= 2.0
    assert max(waits) <= 10.0


def test_no_pause_is_longer_than_what_is_left_of_the_patience(clock: Clock) -> None:
    found = pace(clock, patience_s=5.0)
    assert found.throttled(clock.now_s, 3600.0, 1) == 5.0
    clock.now_s += 5.0
    with pytest.raises(ThrottledError, match=r"fetch\.patience_s = 5 s$"):
        found.throttled(clock.now_s, 3600.0, 2)


def test_one_answer_renews_the_patience(clock: Clock) -> None:
    found = pace(clock, patience_s=5.0)
    for _ in range(4):
        found.throttled(clock.now_s, 1.0, 1)
        clock.now_s += 3
        found.answered()
    assert found.throttled(clock.now_s, 9.0, 1) == 5.0


def test_after_the_patience_requests_fail_at_once_until_the_store_answers(clock: Clock) -> None:
    found = pace(clock, patience_s=5.0)
    found.throttled(clock.now_s, 1.0, 1)
    clock.now_s += 6
    for times in (1, 1, 1):
        with pytest.raises(ThrottledError):
            found.throttled(clock.now_s, 1.0, times)
    found.answered()
    assert 1.0 <= found.throttled(clock.now_s, 1.0, 1) <= 1.1


@pytest.fixture
def waiting() -> Iterator[list[threading.Thread]]:
    threads: list[threading.Thread] = []
    yield threads
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()


def test_a_store_that_throttles_all_gets_no_request_until_its_pause_is_over(
    clock: Clock, waiting: list[threading.Thread]
) -> None:
    found, entered, given_up = pace(clock), threading.Event(), threading.Event()
    for _ in range(IN_A_ROW):
        found.throttled(clock.now_s, 20.0, 1)

    def ask() -> None:
        with found.turn(1, given_up):
            entered.set()

    waiting.append(threading.Thread(target=ask, daemon=True))
    waiting[0].start()
    assert not entered.wait(0.1)
    clock.now_s += 22
    assert entered.wait(2)


def test_the_oldest_request_goes_first(clock: Clock, waiting: list[threading.Thread]) -> None:
    found, order, given_up = pace(clock, most=1), list[int](), threading.Event()

    def ask(place: int) -> None:
        with found.turn(place, given_up):
            order.append(place)

    with found.turn(0, given_up):
        for place in (5, 3, 4, 1):
            waiting.append(threading.Thread(target=ask, args=(place,), daemon=True))
            waiting[-1].start()
        while len(found._waiting) < 4:
            pass
    for thread in waiting:
        thread.join(5)
    assert order == [1, 3, 4, 5]


def test_a_request_that_is_given_up_stops_waiting(clock: Clock, waiting: list[threading.Thread]) -> None:
    found, given_up = pace(clock, most=1), threading.Event()
    raised: list[BaseException] = []

    def ask() -> None:
        try:
            Turn(found, 1, given_up).served(lambda: b"")
        except GivenUpError as error:
            raised.append(error)

    with found.turn(0, threading.Event()):
        waiting.append(threading.Thread(target=ask, daemon=True))
        waiting[0].start()
        given_up.set()
        waiting[0].join(5)
    assert len(raised) == 1


def test_a_turn_asks_again_while_it_is_throttled_and_counts_it() -> None:
    found = Pace(4, 60.0)
    turn, answers = Turn(found, 0, threading.Event()), iter([SLOW_DOWN, SLOW_DOWN, b"it"])

    def read() -> bytes:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert turn.served(read) == b"it"
    assert turn.asked == 3


@pytest.mark.parametrize(
    ("error", "served"),
    [
        (FileNotFoundError(), True),
        (RowError(Stage.FETCH, ErrorCode.TOO_LARGE, "x"), True),
        (RefusedError(500, ""), False),
        (TimeoutError(), False),
    ],
)
def test_only_an_answer_of_the_store_renews_its_patience(error: Exception, served: bool, clock: Clock) -> None:
    found = pace(clock, most=4)
    found.throttled(clock.now_s, 0.0, 1)

    def read() -> bytes:
        raise error

    with pytest.raises(type(error)):
        Turn(found, 0, threading.Event()).served(read)
    assert (found._only_throttles_since is None) is served
