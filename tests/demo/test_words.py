"""The demo's small CLIP finds drawings by their names."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer

from pipeline.config import DecodeConfig, EmbeddingConfig, ModelConfig
from pipeline.demo import train_words
from pipeline.demo.lake import CLASSES, encoded_picture
from pipeline.demo.train import Pictures
from pipeline.engines import loading
from pipeline.images.decode import decode
from pipeline.models.model import Model, resolve
from pipeline.storage.filesystems import Storage
from tests.support.making import decode_options

EACH = 10
UNSEEN = 0x5EE2_0004
"""First word of the seeds of drawings that neither the training nor a lake has."""


def clip() -> Model:
    return resolve(ModelConfig(name=str(train_words.MODEL_FOLDER)), Storage())


def drawings(model: Model, each: int) -> NDArray[np.uint8]:
    """New drawings, so many of each class: uint8 (B, H, W, 3), class by class."""
    files = [
        encoded_picture(name, "jpeg", np.random.default_rng([UNSEEN, number, index]))
        for number, name in enumerate(CLASSES)
        for index in range(each)
    ]
    return np.stack([decode(data, model.preprocessing, decode_options()).pixels for data in files])


def test_words_find_new_drawings_and_drawings_find_their_words() -> None:
    model = clip()
    engine = loading.load_engine(
        model, ModelConfig(precision="fp32"), EmbeddingConfig(), engine="torch", top_k=1, threads=2
    )
    images = engine.predict(drawings(model, EACH)).embeddings
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    encoder, truth = loading.load_text_encoder(model), np.arange(len(CLASSES)).repeat(EACH)
    for template in ("{}", train_words.HELD_OUT_TEMPLATE):
        cosines = images @ encoder.encode(train_words.captions(template)).T
        assert (cosines.argmax(1) == truth).mean() >= 0.95
        nearest = np.argsort(-cosines, axis=0)[:EACH]
        assert (truth[nearest] == np.arange(len(CLASSES))).mean() >= 0.9


def test_the_model_is_small_and_has_a_text_encoder() -> None:
    model = clip()
    assert model.text is not None
    assert model.dim == train_words.DIM
    assert sum(file.stat().st_size for file in Path(model.folder).iterdir()) < 4e6
    assert model.space(EmbeddingConfig(), DecodeConfig())["text"]["max_length"] == train_words.TOKENS


def test_the_script_makes_the_tokenizer_of_the_model_again() -> None:
    made, kept = train_words.small_tokenizer(), AutoTokenizer.from_pretrained(train_words.MODEL_FOLDER)
    assert made.get_vocab() == kept.get_vocab()
    for text in (*train_words.captions("{}"), "Straße, 9 zebras!"):
        assert made(text)["input_ids"] == kept(text)["input_ids"]


def test_training_brings_pictures_near_to_their_words() -> None:
    torch.manual_seed(0)
    tokenizer = train_words.small_tokenizer()
    pictures = Pictures(torch.from_numpy(drawings(clip(), 1)), torch.arange(len(CLASSES)))
    model = train_words.small_clip(tokenizer, pictures.pixels)

    def rightness() -> float:
        vectors = train_words.vectors_of(model, pictures.pixels)
        return sum(train_words.shares(model, tokenizer, vectors, pictures.classes, "{}"))

    before = rightness()
    train_words.fit(model, tokenizer, pictures, 30)
    assert rightness() > before
