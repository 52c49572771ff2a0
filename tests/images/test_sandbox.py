"""A file that crashes, hangs or floods its decoder costs itself only."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import ErrorCode, RowError, Stage
from pipeline.images import sandbox_processes, sandbox_protocol
from pipeline.images.decode import decode
from pipeline.images.sandbox import IsolatedDecoder
from pipeline.images.sandbox_child import memory_limit
from pipeline.images.sandbox_processes import Report
from pipeline.images.sandbox_protocol import SLOTS
from pipeline.models.processor import read_preprocessing
from tests.support.making import decode_options, encoded, photo

STEPS = read_preprocessing({"image_processor_type": "ViTImageProcessor", "size": 32}, "m")
GOOD = [encoded(photo(60 + i, 40, seed=i), "JPEG" if i % 2 else "PNG") for i in range(12)]
EXPECTED = np.stack([decode(data, STEPS, decode_options()).pixels for data in GOOD])
HOSTILE = {
    "exit 0": ErrorCode.DECODE_CRASHED,
    "exit 1": ErrorCode.DECODE_CRASHED,
    "kill 11": ErrorCode.DECODE_CRASHED,
    "kill 6": ErrorCode.DECODE_CRASHED,
    "kill 9": ErrorCode.OUT_OF_MEMORY,
    "loop": ErrorCode.DECODE_TIMEOUT,
    "sleep": ErrorCode.DECODE_TIMEOUT,
    "eat 8": ErrorCode.OUT_OF_MEMORY,
}


@pytest.fixture(autouse=True)
def _hostile_plug_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "support" / "hostile"))


@pytest.fixture
def decoder() -> Iterator[IsolatedDecoder]:
    made = IsolatedDecoder(STEPS, decode_options(timeout_s=1.0, max_pixels=10_000_000))
    yield made
    made.close()


def hostile(action: str) -> bytes:
    return b"HOSTILE " + action.encode()


def run(decoder: IsolatedDecoder, files: list[bytes]) -> tuple[list[Report | RowError], NDArray[np.uint8]]:
    reports, pixels = decoder.decode(files, len(files))
    return reports, pixels.images


def codes(reports: list[Report | RowError]) -> list[ErrorCode | None]:
    return [report.code if isinstance(report, RowError) else None for report in reports]


def test_healthy_files_come_out_as_they_do_without_isolation(decoder: IsolatedDecoder) -> None:
    for count in (0, 1, SLOTS, SLOTS + 1, 12):
        reports, pixels = run(decoder, GOOD[:count])
        assert reports == [Report(60 + i, 40, ()) for i in range(count)]
        np.testing.assert_array_equal(pixels, EXPECTED[:count])


def test_errors_of_the_decoder_and_of_earlier_stages_keep_their_places(decoder: IsolatedDecoder) -> None:
    earlier = RowError(Stage.FETCH, ErrorCode.NOT_FOUND, "there is no such object")
    files: list[bytes | RowError] = [*[earlier] * 5, GOOD[0], earlier, b"no image", *[earlier] * 7, GOOD[1]]
    reports, pixels = decoder.decode(files, len(files))
    expected = [ErrorCode.NOT_FOUND if isinstance(file, RowError) else None for file in files]
    expected[7] = ErrorCode.UNSUPPORTED_FORMAT
    assert codes(reports) == expected
    np.testing.assert_array_equal(pixels.images, EXPECTED[:2])
    assert pixels.decoded.nonzero()[0].tolist() == [5, 15]


@pytest.mark.parametrize("action", HOSTILE)
def test_a_hostile_file_costs_itself_only(decoder: IsolatedDecoder, action: str) -> None:
    files = [*GOOD[:6], hostile(action), *GOOD[6:]]
    reports, pixels = run(decoder, files)
    assert codes(reports) == [None] * 6 + [HOSTILE[action]] + [None] * 6
    np.testing.assert_array_equal(pixels[:12], EXPECTED)


def test_many_hostile_files_among_good_ones_are_each_told_apart(decoder: IsolatedDecoder) -> None:
    actions = ["exit 3", "kill 11", "exit 0", "loop", "kill 6", "eat 8", "exit 1"]
    files = [file for action, good in zip(actions, GOOD, strict=False) for file in (hostile(action), good)]
    started = time.monotonic()
    reports, pixels = run(decoder, [hostile("exit 9"), *files, hostile("kill 11"), hostile("exit 0")])
    expected = [code for action in actions for code in (HOSTILE.get(action, ErrorCode.DECODE_CRASHED), None)]
    assert codes(reports) == [ErrorCode.DECODE_CRASHED, *expected, *[ErrorCode.DECODE_CRASHED] * 2]
    np.testing.assert_array_equal(pixels[:7], EXPECTED[:7])
    assert time.monotonic() - started < 30


def test_the_message_of_a_hostile_file_is_the_same_in_every_run(decoder: IsolatedDecoder) -> None:
    reports, _ = run(decoder, [hostile("loop"), hostile("exit 3"), hostile("kill 9")])
    assert [report.message for report in reports if isinstance(report, RowError)] == [
        "decoding took longer than decode.timeout_s = 1 seconds",
        "the decoding process crashed twice",
        "the system killed the decoding process twice, as it does when memory runs out",
    ]


def test_a_file_that_takes_long_but_not_too_long_is_decoded(decoder: IsolatedDecoder) -> None:
    reports, _ = run(decoder, [hostile("slow 0.7")] * 3)  # together over the limit, each below it
    assert codes(reports) == [None] * 3


def test_a_worker_that_is_stopped_from_outside_is_killed_and_its_file_timed_out(
    decoder: IsolatedDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox_processes, "GRACE_S", 0.2)
    decoder = IsolatedDecoder(STEPS, decode_options(timeout_s=1.0))
    run(decoder, [GOOD[0]])
    os.kill(workers_of(decoder)[1], signal.SIGSTOP)
    reports, pixels = run(decoder, GOOD[:6])
    assert codes(reports) == [ErrorCode.DECODE_TIMEOUT, *[None] * 5]
    np.testing.assert_array_equal(pixels[:5], EXPECTED[1:6])


def test_a_leak_of_earlier_files_is_not_held_against_a_later_one() -> None:
    config = decode_options(max_pixels=1_000_000, max_bytes=1_000_000)
    leaking = IsolatedDecoder(STEPS, config)
    each = memory_limit(config) // 3 >> 20
    reports, _ = run(leaking, [hostile(f"leak {each}")] * 8)
    leaking.close()
    assert codes(reports) == [None] * 8


def workers_of(decoder: IsolatedDecoder) -> tuple[int, int]:
    assert decoder._server is not None
    assert decoder._worker is not None
    return decoder._server.process.pid, decoder._worker.pid


@pytest.mark.parametrize("which", ["server", "worker", "both"])
def test_a_child_that_is_killed_from_outside_costs_no_image(decoder: IsolatedDecoder, which: str) -> None:
    run(decoder, GOOD[:1])

    def files() -> Iterator[bytes]:
        for number, file in enumerate(GOOD):
            if number in (3, 4, 9):
                server, worker = workers_of(decoder)
                for pid in [server] * (which != "worker") + [worker] * (which != "server"):
                    os.kill(pid, signal.SIGKILL)
            yield file

    reports, pixels = decoder.decode(files(), 12)
    assert codes(reports) == [None] * 12
    np.testing.assert_array_equal(pixels.images, EXPECTED)


def test_a_server_that_is_stopped_from_outside_is_replaced_and_costs_no_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sandbox_processes, "GRACE_S", 0.5)
    monkeypatch.setattr(sandbox_processes, "START_S", 0.0)
    decoder = IsolatedDecoder(STEPS, decode_options(timeout_s=5.0))
    run(decoder, GOOD[:1])
    server, worker = workers_of(decoder)
    os.kill(server, signal.SIGSTOP)
    os.kill(worker, signal.SIGKILL)
    reports, pixels = run(decoder, GOOD)
    decoder.close()
    assert codes(reports) == [None] * 12
    np.testing.assert_array_equal(pixels, EXPECTED)


def test_answers_for_a_call_that_failed_are_not_taken_for_those_of_the_next(decoder: IsolatedDecoder) -> None:
    def files() -> Iterator[bytes]:
        yield from GOOD[:3]
        raise OSError("the store is gone")

    with pytest.raises(OSError, match="gone"):
        decoder.decode(files(), 4)
    reports, pixels = run(decoder, GOOD[4:8])
    assert reports == [Report(60 + i, 40, ()) for i in range(4, 8)]
    np.testing.assert_array_equal(pixels, EXPECTED[4:8])


def test_an_interrupted_call_does_not_wait_for_a_file_that_hangs() -> None:
    def files() -> Iterator[bytes]:
        yield hostile("sleep")
        raise KeyboardInterrupt

    decoder = IsolatedDecoder(STEPS, decode_options(timeout_s=20.0))
    run(decoder, GOOD[:1])
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        decoder.decode(files(), 2)
    assert time.monotonic() - started < 10
    reports, pixels = run(decoder, GOOD[:2])
    assert codes(reports) == [None, None]
    np.testing.assert_array_equal(pixels, EXPECTED[:2])
    decoder.close()


def test_a_slot_is_written_and_read_whole_though_the_system_stops_after_two_gib(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limit, pwrite, pread = 1000, os.pwrite, os.pread
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: pwrite(file, data[:limit], at))
    monkeypatch.setattr(os, "pread", lambda file, size, at: pread(file, min(size, limit), at))
    data = os.urandom(10 * limit + 1)
    with (tmp_path / "slot").open("w+b") as file:
        sandbox_protocol.write_slot(file.fileno(), data)
        assert sandbox_protocol.read_slot(file.fileno(), len(data)) == data
        with pytest.raises(EOFError):
            sandbox_protocol.read_slot(file.fileno(), len(data) + 1)


def are_gone(*pids: int) -> bool:
    deadline = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{pid}") for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_no_process_outlives_its_decoder() -> None:
    decoder = IsolatedDecoder(STEPS, decode_options())
    run(decoder, GOOD[:1])
    pids = workers_of(decoder)
    decoder.close()
    assert are_gone(*pids)


HANGING = """
from tests.images.test_sandbox import *
decoder = IsolatedDecoder(STEPS, decode_options(timeout_s=3600))
run(decoder, GOOD[:1])
print(*workers_of(decoder), flush=True)
run(decoder, [hostile("sleep")])
"""


@pytest.mark.parametrize("killed", ["the caller", "the server", "both"])
def test_a_hanging_decoder_does_not_outlive_its_caller_or_server(killed: str) -> None:
    command, paths = [sys.executable, "-c", HANGING], os.pathsep.join(sys.path)
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE) as caller:
        assert caller.stdout is not None
        server, worker = map(int, caller.stdout.readline().split())
        time.sleep(0.5)  # it hangs
        assert os.path.exists(f"/proc/{worker}")
        for pid in [server] * (killed != "the caller") + [caller.pid] * (killed != "the server"):
            os.kill(pid, signal.SIGKILL)
        assert are_gone(server, worker) if killed != "the server" else are_gone(worker)
        caller.kill()
