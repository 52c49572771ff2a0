"""A corpus of odd files: each is the picture that a person expects, or has the code that fits."""

import numpy as np
import pytest

from pipeline.errors import RowError, Stage
from pipeline.images.decode import decode
from pipeline.models.processor import read_preprocessing
from tests.support.making import decode_options
from tests.support.odd import Odd, everything

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow says what is odd about them, too
STEPS = read_preprocessing({"image_processor_type": "ViTImageProcessor", "size": 32}, "m")
CORPUS = everything()


@pytest.mark.parametrize("odd", CORPUS, ids=lambda odd: odd.name)
def test_an_odd_file_has_the_outcome_that_a_person_expects(odd: Odd) -> None:
    if odd.code is not None:
        with pytest.raises(RowError) as caught:
            decode(odd.data, STEPS, decode_options())
        assert (caught.value.stage, caught.value.code) == (Stage.DECODE, odd.code)
        assert " at 0x" not in caught.value.message
        return
    found = decode(odd.data, STEPS, decode_options())
    assert ((found.width, found.height), found.notes) == (odd.size, odd.notes)
    assert found.pixels.shape == (32, 32, 3)
    if odd.colour is not None:
        difference = np.abs(found.pixels.astype(int) - odd.colour).max()
        assert difference <= odd.slack


def test_the_corpus_is_large_and_no_file_is_in_it_twice() -> None:
    assert len(CORPUS) >= 140
    by_data = {odd.data: odd.name for odd in CORPUS}
    assert [odd.name for odd in CORPUS if by_data[odd.data] != odd.name] == []
    assert len({odd.name for odd in CORPUS}) == len(CORPUS)
