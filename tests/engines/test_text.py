"""Text encoders against plain transformers, and their place in an output."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray

from pipeline.config import DecodeConfig, EmbeddingConfig, ModelConfig
from pipeline.engines import loading
from pipeline.errors import ModelError
from pipeline.models.model import Model, resolve
from pipeline.storage.filesystems import Storage
from tests.support import lakes, tokenizers_made

TEXTS = ["a red cat", "a photo of a green dog in a blue house", "tree", ""]
LONG = " ".join(["a photo of a red cat"] * 9)


@pytest.fixture(scope="module", params=["clip", "siglip"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with both encoders and its tokenizer."""
    made = tmp_path_factory.mktemp(request.param)
    tokens = getattr(tokenizers_made, f"{request.param}_tokenizer")(made)
    lakes.tiny_encoder(made, request.param, text={"vocab_size": tokens, "eos_token_id": tokens - 1})
    return made


def resolved(folder: Path) -> Model:
    return resolve(ModelConfig(name=str(folder)), Storage())


def by_transformers(folder: Path, texts: list[str]) -> NDArray[Any]:
    """As the model cards of the two families do it."""
    network = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    options = {"padding": True} if network.config.model_type == "clip" else {"padding": "max_length"}
    vectors = []
    for text in texts:  # one by one: padding to the longest text of a batch must change nothing
        tokens = tokenizer([text], return_tensors="pt", truncation=True, max_length=16, **options)
        if network.config.model_type == "siglip":
            tokens.pop("attention_mask", None)
        with torch.inference_mode():
            vectors.append(network.get_text_features(**tokens).pooler_output.numpy())
    return np.concatenate(vectors)


def test_texts_have_the_vectors_of_transformers(folder: Path) -> None:
    texts = [*TEXTS, LONG]
    found, expected = loading.load_text_encoder(resolved(folder)).encode(texts, normalize=False), None
    expected = by_transformers(folder, texts)
    assert (found.dtype, found.shape) == (np.float32, (5, resolved(folder).dim))
    for a, b in ((found, expected), (found - found.mean(0), expected - expected.mean(0))):
        cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert cosines.min() > 0.99999


def test_texts_are_scaled_to_length_1_and_no_text_is_no_row(folder: Path) -> None:
    encoder = loading.load_text_encoder(resolved(folder))
    assert np.allclose(np.linalg.norm(encoder.encode(TEXTS), axis=1), 1)
    assert encoder.encode([]).shape == (0, resolved(folder).dim)


def test_a_space_describes_the_text_encoder_and_its_hash_follows_the_tokenizer(folder: Path) -> None:
    model = resolved(folder)
    text = model.space(EmbeddingConfig(), DecodeConfig())["text"]
    assert (text["max_length"], text["sha256"]) == (16, model.text and model.text.sha256)
    assert isinstance(text["scale"], float)
    assert (text["bias"] is None) == (model.model_type == "clip")
    settings = folder / "tokenizer_config.json"
    before = settings.read_text()
    settings.write_text(json.dumps(json.loads(before) | {"changed": True}))
    assert resolved(folder).text != model.text
    settings.write_text(before)
    assert resolved(folder) == model


def test_a_model_without_a_tokenizer_or_a_text_encoder_says_so(tmp_path: Path) -> None:
    for number, model_type in enumerate(("clip", "vit")):
        lakes.tiny_encoder(tmp_path / str(number), model_type)
        model = resolved(tmp_path / str(number))
        assert model.text is None
        with pytest.raises(ModelError, match="has no text encoder, or no tokenizer"):
            loading.load_text_encoder(model)


def test_loading_prints_nothing_and_leaves_the_log_of_transformers_as_it_was(
    folder: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    log = transformers.utils.logging
    before = (log.get_verbosity(), log.is_progress_bar_enabled())
    log.add_handler(caplog.handler)  # its own writes to the stderr of its import
    log.warning_once.cache_clear()
    loading.load_text_encoder(resolved(folder))
    log.remove_handler(caplog.handler)
    assert (capfd.readouterr(), caplog.messages) == (("", ""), [])
    assert (log.get_verbosity(), log.is_progress_bar_enabled()) == before


@pytest.mark.parametrize("folder", ["siglip"], indirect=True)
def test_a_tokenizer_whose_package_is_not_installed_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    siglip = sys.modules["transformers.models.siglip"]
    for name in ("SiglipTokenizer", "tokenization_siglip"):
        monkeypatch.delattr(siglip, name, raising=False)
    monkeypatch.delitem(sys.modules, f"{siglip.__name__}.tokenization_siglip", raising=False)
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ModelError, match=r"is not installed; install it with `pip install 'lakelens\[text\]'`\.$"):
        loading.load_text_encoder(resolved(folder))
