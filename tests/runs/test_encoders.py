"""Runs with models that have no head: embeddings without labels, and texts as queries."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from pipeline import open_space
from pipeline.config import StorageConfig
from pipeline.errors import QueryError, SpaceError
from pipeline.run import run
from pipeline.storage.filesystems import Storage
from pipeline.summary import Summary
from pipeline.verify import verify
from tests.support import lakes, tokenizers_made

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_cluster")]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 images and one that is none."""
    folder = tmp_path_factory.mktemp("lake")
    lakes.folder_of_images(folder, 12)
    (folder / "broken.jpg").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def stripped(
    local_cluster: None, lake: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Summary, list[str]]:
    """The output of a ViT whose head was taken away, and what the run said."""
    folder, said = tmp_path_factory.mktemp("stripped"), list[str]()
    lakes.tiny_vit(folder / "full")
    encoder = transformers.AutoModel.from_pretrained(folder / "full")
    lakes.tiny_vit(folder / "model")
    encoder.save_pretrained(folder / "model")
    summary = run(lakes.settings(lake, folder / "model", folder / "out"), say=said.append)
    return folder, summary, said


def test_a_model_without_a_head_gives_embeddings_and_null_labels_and_says_so(
    stripped: tuple[Path, Summary, list[str]],
) -> None:
    folder, summary, said = stripped
    assert (summary.account.total.ok, summary.account.total.failed) == (12, 1)
    rows = lakes.predictions(folder / "out")
    ok = [row for row in rows if row["outcome"] == "ok"]
    assert {(row["label"], row["score"], row["labels"]) for row in ok} == {(None, None, None)}
    assert {len(row["embedding"]) for row in ok} == {48}
    assert any("no classification head" in line for line in said)
    described = json.loads((folder / "out" / "space.json").read_text())
    assert (described["head"], described["labels"], described["pooling"]) == (False, [], "cls")


def test_without_its_head_a_model_gives_the_same_vectors(
    stripped: tuple[Path, Summary, list[str]], lake: Path
) -> None:
    folder, _, _ = stripped
    run(lakes.settings(lake, folder / "full", folder / "full-out"))
    with_head, without = (
        {row["image_id"]: row["embedding"] for row in lakes.predictions(folder / out) if row["embedding"]}
        for out in ("full-out", "out")
    )
    assert with_head.keys() == without.keys()
    assert all(np.allclose(with_head[id_], without[id_], atol=1e-3) for id_ in with_head)


def test_an_output_without_labels_is_verified_resumed_and_read(
    stripped: tuple[Path, Summary, list[str]], lake: Path
) -> None:
    folder, _, _ = stripped
    found = verify(str(folder / "out"), Storage(StorageConfig()), sample=12)
    assert (found.agreements[-1].images, found.agreements[-1].top1) == (12, None)
    assert found.agreements[-1].cosine_min > 0.999
    assert run(lakes.settings(lake, folder / "model", folder / "out")).run_id is None
    space = open_space(str(folder / "out"))
    assert space.to_pandas(["image_id", "label"])["label"].isna().all()
    with pytest.raises(SpaceError, match="has no text encoder"):
        space.encode_text(["a cat"])


@pytest.mark.parametrize(
    "model_type",
    [
        "clip",
        pytest.param(
            "siglip",
            marks=pytest.mark.skipif("LAKELENS_EVERY_STEP" not in os.environ, reason="a part of make soak"),
        ),
    ],
)
def test_texts_query_the_images_of_a_space_as_transformers_would(
    model_type: str, lake: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    tokens = getattr(tokenizers_made, f"{model_type}_tokenizer")(model)
    lakes.tiny_encoder(model, model_type, text={"vocab_size": tokens, "eos_token_id": tokens - 1})
    run(lakes.settings(lake, model, tmp_path / "out"))
    space = open_space(str(tmp_path / "out"))
    texts = ["a red cat", "a photo of a green dog"]
    found = space.encode_text(texts)
    assert found.shape == (2, space.description.dim)
    network = transformers.AutoModel.from_pretrained(model).eval()
    padding = True if model_type == "clip" else "max_length"
    encoded = transformers.AutoTokenizer.from_pretrained(model)(
        texts, padding=padding, max_length=16, truncation=True, return_tensors="pt"
    )
    mask = {"attention_mask": encoded["attention_mask"]} if model_type == "clip" else {}
    with torch.inference_mode():
        expected = network.get_text_features(encoded["input_ids"], **mask).pooler_output.numpy()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    rows = space.to_pandas(["image_id", "embedding"])
    images = np.stack(rows["embedding"])
    assert images.shape == (12, space.description.dim)
    assert np.abs(images @ found.T - images @ expected.T).max() < 1e-3
    distances = dict(zip(rows["image_id"], 1 - images @ expected[1], strict=True))
    hits = space.search(text=texts[1], k=20).to_dicts()
    assert {hit["image_id"]: pytest.approx(hit["distance"], abs=1e-3) for hit in hits} == distances
    with pytest.raises(QueryError, match="is empty"):
        space.search(text=" ")
    (model / "tokenizer_config.json").write_text('{"other": 1}')
    with pytest.raises(SpaceError, match=r"is not the one that .*space\.json describes"):
        open_space(str(tmp_path / "out")).encode_text(texts)
