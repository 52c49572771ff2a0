"""Heads that need no labels: the model's own, and heads made of words."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.config import RunConfig, parse
from pipeline.engines import loading
from pipeline.errors import HeadError
from pipeline.labels import own_head, scoring, word_head
from pipeline.models.model import resolve
from pipeline.output.space import SpaceDescription
from pipeline.space_model import SpaceModel
from tests.support import lakes
from tests.support.making import STORAGE


def opened(folder: Path) -> SpaceModel:
    config: RunConfig = parse({"manifest": {"path": "m"}, "output": {"path": "o"}, "model": {"name": str(folder)}})
    model = resolve(config.model, STORAGE)
    description = SpaceDescription.model_validate(model.space(config.embedding, config.decode))
    return SpaceModel(model, config, description)


@pytest.mark.parametrize("model_type", ["vit", "vit_msn", "convnext", "convnextv2", "swin", "swinv2"])
def test_the_models_own_head_gives_the_labels_of_its_forward_pass(tmp_path: Path, model_type: str) -> None:
    space = opened(lakes.tiny_encoder(tmp_path / model_type, model_type, head=True))
    engine = loading.load_reference(space.model, space.config.embedding, 2)
    steps = space.model.preprocessing
    pixels = np.random.default_rng(0).integers(0, 256, (16, steps.height, steps.width, 3), dtype=np.uint8)
    forward = engine.predict(pixels)
    norms = np.linalg.norm(forward.embeddings, axis=1)
    found = scoring.score(own_head.make(space, "out"), forward.embeddings / norms[:, None], norms, 2)
    np.testing.assert_array_equal(found.indices, forward.indices)
    np.testing.assert_allclose(found.scores, forward.scores, atol=1e-5)


@pytest.mark.parametrize("model_type", ["dinov2", "beit", "deit"])
def test_a_head_that_reads_more_than_the_embedding_is_refused(tmp_path: Path, model_type: str) -> None:
    with pytest.raises(HeadError, match="reads more than a vector"):
        own_head.make(opened(lakes.tiny_encoder(tmp_path / model_type, model_type, head=True)), "out")


def test_a_model_without_a_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HeadError, match="no classification head"):
        own_head.make(opened(lakes.tiny_encoder(tmp_path / "vit", "vit", head=False)), "out")


def encode(texts: list[str]) -> scoring.F32:
    """A vector for each text; those of one class are alike."""
    found = [np.random.default_rng([*text.replace("a photo of", "a").encode()]).normal(size=4) for text in texts]
    return np.array(found, np.float32)


def test_words_score_images_as_the_model_scores_image_and_text() -> None:
    space = SpaceDescription(fingerprint="f00", dim=4, text={"scale": np.log(10.0), "bias": None})
    one = word_head.make(["cat", "dog"], ["a {}"], space, encode)
    texts = encode(["a cat", "a dog"])
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    image = np.float32([[0.5, 0.5, 0.5, 0.5]])
    powers = np.exp(10 * (image @ texts.T))
    expected = -np.sort(-powers / powers.sum(), axis=1)
    np.testing.assert_allclose(scoring.score(one, image, np.ones(1, np.float32), 2).scores, expected, atol=1e-5)


def test_words_of_a_model_with_a_bias_are_scored_each_by_itself() -> None:
    space = SpaceDescription(fingerprint="f00", dim=4, text={"scale": 0.0, "bias": -3.0})
    one = word_head.make(["cat"], ["a {}"], space, encode)
    assert one.description.kind == "sigmoid"
    np.testing.assert_array_equal(one.bias, np.float32([-3]))


def test_several_sentences_of_a_class_are_one_direction() -> None:
    space = SpaceDescription(fingerprint="f00", dim=4, text={"scale": None, "bias": None})
    one = word_head.make(["cat"], ["a {}", "the {}"], space, encode)
    np.testing.assert_allclose(np.linalg.norm(one.weight, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("classes", "template", "problem"),
    [([], "a {}", "no classes"), (["cat"], "a photo", "no {}"), (["a", "a"], "{}", "twice")],
)
def test_classes_and_templates_that_cannot_be_used_are_one_sentence(
    classes: list[str], template: str, problem: str
) -> None:
    space = SpaceDescription(fingerprint="f00", dim=4)
    with pytest.raises(HeadError, match=problem):
        word_head.make(classes, [template], space, encode)


def test_classes_are_read_from_a_list_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("great grey owl\n\ntawny owl\n")
    assert word_head.read_classes(str(tmp_path / "classes.txt"), STORAGE) == ["great grey owl", "tawny owl"]
    assert word_head.read_classes("cat, dog", STORAGE) == ["cat", "dog"]
    assert word_head.read_classes("cat", STORAGE) == ["cat"]
