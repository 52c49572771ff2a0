"""What a listing says of what it left out."""

import pytest

from pipeline.planning.listing_report import (
    KINDS,
    OTHERS,
    SENTENCES_KEPT,
    Listing,
    Tally,
    display_name,
    ending,
    merge,
)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.HEIC", ".heic"),
        ("a.tar.gz", ".gz"),
        ("a.jpg_large", ".jpg_large"),
        ("LICENSE", "without ending"),
        ("a.", "without ending"),
        (".env", "without ending"),
        ("Dr. No and the others", "without ending"),
        ("a.this-is-no-ending", "without ending"),
        ("a.\udce9", ".\\xe9"),
        ("a.\x1b[0m", ".\\x1b[0m"),
    ],
)
def test_an_ending_is_what_follows_the_last_dot(name: str, kind: str) -> None:
    assert ending(name) == kind


def test_the_most_frequent_endings_are_shown_and_the_rest_is_counted() -> None:
    tally = Tally()
    for number in range(9):
        tally.leave_out(f".{number}", 1000 * (number + 1))
    tally.leave_out("hidden", 2)
    assert tally.listing(5).left_out_line == (
        "left out: 9,000 .8, 8,000 .7, 7,000 .6, 6,000 .5, 5,000 .4, 4,000 .3, 2 hidden and 6,000 others"
    )


def test_endings_beyond_all_measure_are_counted_together() -> None:
    tally = Tally()
    for number in range(KINDS + 50):
        tally.leave_out_file(f"frame.{number}")
    found = tally.listing(0).left_out
    assert len(found) == KINDS + 1
    assert found[OTHERS] == 50
    tally.leave_out("hidden")
    assert tally.listing(0).left_out["hidden"] == 1


def test_what_could_not_be_listed_is_named_up_to_a_number_and_counted_beyond_it() -> None:
    tally = Tally()
    for number in range(SENTENCES_KEPT + 3):
        tally.add_unlisted(f"{number} is bad.")
    found = merge([tally.listing(1), tally.listing(1)])
    assert found.rows == 2
    assert len(found.unlisted_lines) == SENTENCES_KEPT + 1
    assert found.unlisted_lines[-1] == f"{SENTENCES_KEPT + 6} more could not be listed."
    assert found.to_dict()["unlisted"] == found.unlisted_lines


def test_nothing_left_out_is_nothing_said() -> None:
    assert Listing(3).lines == []
    assert merge([]) == Listing()


def test_a_name_is_shown_on_one_line_without_a_signature() -> None:
    assert display_name("/a\n\x1b[2J\udcff.jpg") == "/a\\n\\x1b[2J\\xff.jpg"
    assert display_name("https://me:secret@host/a.tar?sig=secret") == "https://host/a.tar"
