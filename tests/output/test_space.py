"""One output is one embedding space, for ever."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import SpaceError
from pipeline.output import space
from tests.support.making import STORAGE


def description(**values: Any) -> dict[str, Any]:
    return {"model": "some/vit", "pooling": "cls", "fingerprint": "abc123", "labels": ["cat", "dög"], **values}


def test_the_placeholder_becomes_the_model_and_its_fingerprint() -> None:
    assert space.location("s3://lake/{space}/x", "vit", description()) == "s3://lake/vit-abc123/x"
    assert space.location("s3://lake/out", "vit", description()) == "s3://lake/out"


def test_braces_that_are_not_the_placeholder_stay() -> None:
    assert space.location("/a/{b}/{space}", "vit", description()) == "/a/{b}/vit-abc123"


def test_an_output_without_a_space_is_free_and_looking_writes_nothing(tmp_path: Path) -> None:
    assert space.check(str(tmp_path / "out"), description(), STORAGE) is None
    assert list(tmp_path.iterdir()) == []


def test_a_claimed_output_is_this_space(tmp_path: Path) -> None:
    space.claim(str(tmp_path), description(), STORAGE)
    held = space.check(str(tmp_path), description(), STORAGE)
    assert held is not None
    assert (held.fingerprint, held.format, held.labels) == ("abc123", 2, ("cat", "dög"))
    assert json.loads((tmp_path / "space.json").read_bytes()) == {"format": 2, **description()}


def test_claiming_again_changes_nothing(tmp_path: Path) -> None:
    space.claim(str(tmp_path), description(), STORAGE)
    before = (tmp_path / "space.json").read_bytes()
    space.claim(str(tmp_path), description(revision="other", model="renamed"), STORAGE)
    assert (tmp_path / "space.json").read_bytes() == before


def test_another_space_is_refused_and_both_are_named(tmp_path: Path) -> None:
    space.claim(str(tmp_path), description(), STORAGE)
    other = description(model="other/deit", fingerprint="fff999", pooling="mean")
    for refuse in (space.check, space.claim):
        with pytest.raises(SpaceError) as caught:
            refuse(str(tmp_path), other, STORAGE)
        sentence = str(caught.value)
        for part in (str(tmp_path), "some/vit", "abc123", "pooling cls", "other/deit", "fff999", "pooling mean"):
            assert part in sentence
        assert "{space}" in sentence


def test_the_same_vectors_under_other_label_names_are_refused(tmp_path: Path) -> None:
    space.claim(str(tmp_path), description(), STORAGE)
    with pytest.raises(SpaceError, match="id2label"):
        space.check(str(tmp_path), description(labels=["cat", "bird"]), STORAGE)


@pytest.mark.parametrize("text", ["", "no json", "[]", "{}", '{"fingerprint": 3}', "null", "\xff"])
def test_a_file_that_describes_no_space_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "space.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(SpaceError, match=r"space\.json"):
        space.check(str(tmp_path), description(), STORAGE)


def test_of_many_that_claim_at_once_one_space_wins(tmp_path: Path) -> None:
    def claim(number: int) -> bool:
        try:
            space.claim(str(tmp_path), description(fingerprint=f"f{number % 2}"), STORAGE)
        except SpaceError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(claim, range(8)))
    winner = json.loads((tmp_path / "space.json").read_bytes())["fingerprint"]
    assert won == [f"f{number % 2}" == winner for number in range(8)]


def held_as(folder: Path, **values: Any) -> None:
    (folder / "space.json").write_text(json.dumps(description(**values)))


def test_a_space_without_a_format_is_of_the_first_and_stays_so(tmp_path: Path) -> None:
    held_as(tmp_path)
    before = (tmp_path / "space.json").read_bytes()
    found = space.check(str(tmp_path), description(), STORAGE)
    assert found is not None
    assert found.format == 1
    assert space.claim(str(tmp_path), description(), STORAGE).format == 1
    assert (tmp_path / "space.json").read_bytes() == before


def test_a_space_is_the_same_whatever_its_format(tmp_path: Path) -> None:
    assert space.claim(str(tmp_path), description(), STORAGE).format == space.FORMAT == 2
    found = space.read(str(tmp_path), STORAGE)
    assert found is not None
    assert found.fingerprint == description()["fingerprint"]


@pytest.mark.parametrize("newer", [{"format": 3}, {"format": 99, "fingerprint": 7, "labels": {"new": "shape"}}])
def test_a_newer_format_is_refused_with_both_numbers_whatever_else_it_holds(
    tmp_path: Path, newer: dict[str, Any]
) -> None:
    held_as(tmp_path, **newer)
    sentence = rf"{tmp_path}/space\.json has format {newer['format']}.* up to 2 .*Upgrade LakeLens"
    for refuse in (space.check, space.claim):
        with pytest.raises(SpaceError, match=sentence):
            refuse(str(tmp_path), description(), STORAGE)


@pytest.mark.parametrize("odd", ["2", 0, -1, 1.5, True, None, []])
def test_a_format_that_is_no_number_from_one_on_describes_no_space(tmp_path: Path, odd: object) -> None:
    held_as(tmp_path, format=odd)
    with pytest.raises(SpaceError, match=r"space\.json"):
        space.read(str(tmp_path), STORAGE)


def test_what_a_newer_version_says_of_a_space_of_a_known_format_is_kept(tmp_path: Path) -> None:
    held_as(tmp_path, format=2, text_tower="abc")
    found = space.read(str(tmp_path), STORAGE)
    assert found is not None
    assert found.model_dump()["text_tower"] == "abc"
