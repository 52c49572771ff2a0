"""What a run's sentence takes of a library's error."""

import pytest

from pipeline.errors import first_line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("IO Error: no such file.\n\nLINE 1: SELECT", "IO Error: no such file"),
        ("\n  \x1b[1;31mGeneric error\x1b[0m: it failed .\nCaused by: x", "Generic error: it failed"),
        ("the file a.b is damaged", "the file a.b is damaged"),
        ("", "ValueError"),
        (" \n.\n", "ValueError"),
    ],
)
def test_the_first_line_of_an_error_fits_into_a_sentence(text: str, line: str) -> None:
    assert first_line(ValueError(text)) == line
