"""The seconds of stages, the bottleneck, and the advice that follows from it."""

import re

import pyarrow as pa
import pytest

from pipeline import stage_seconds
from pipeline.stage_seconds import Seconds


def test_seconds_travel_with_blocks_and_add_up() -> None:
    block = stage_seconds.attach(pa.table({"a": [1]}), Seconds(fetch=1, decode=2))
    block = stage_seconds.attach(block, stage_seconds.total([block]) + Seconds(decode=0.5, predict=4))
    assert stage_seconds.total([block, block, pa.table({"a": [1]})]) == Seconds(fetch=2, decode=5, predict=8)
    assert block.to_pydict() == {"a": [1]}


@pytest.mark.parametrize(
    ("seconds", "stage", "words"),
    [
        (
            Seconds(fetch=1, decode=5, decoder_waiting=60, predict=99, predictor_waiting=1),
            "predict",
            "99%.*add GPUs",
        ),
        (
            Seconds(fetch=5, decode=50, decoder_waiting=1, predict=25, predictor_waiting=25),
            "decode",
            r"decode was the bottleneck: .* 50% .*2\.0 times as many decoders",
        ),
        (
            Seconds(fetch=50, decode=5, decoder_waiting=1, predict=20, predictor_waiting=80),
            "fetch",
            r"5\.0 times as many decoders .*a faster store",
        ),
        (Seconds(fetch=1, decode=1, decoder_waiting=98, predict=2, predictor_waiting=98), None, None),
        (Seconds(decode=1, predict=9), None, None),  # too short to say
        (Seconds(decode=60, predict=2, predictor_waiting=7), None, None),  # of one stage
        (Seconds(), None, None),
    ],
)
def test_the_busiest_stage_is_the_bottleneck_and_the_advice_says_what_would_help(
    seconds: Seconds, stage: str | None, words: str | None
) -> None:
    assert seconds.bottleneck == stage
    advice = seconds.advice("GPU")
    assert (advice is None) == (words is None)
    assert re.search(words or "", advice or "")


def test_the_advice_for_a_slow_model_on_cpus_is_more_nodes() -> None:
    assert str(Seconds(decode=20, predict=90).advice("CPU")).endswith("add nodes")


def test_the_seconds_of_a_block_are_shared_among_its_pieces() -> None:
    block = stage_seconds.attach(pa.table({"a": range(10)}), Seconds(decode=5))
    assert stage_seconds.total([block.slice(0, 4), block.slice(4)]) == Seconds(decode=5)
    assert stage_seconds.total([stage_seconds.attach(pa.table({"a": []}), Seconds(decode=5))]) == Seconds()
