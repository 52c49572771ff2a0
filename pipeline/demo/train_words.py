"""Train the demo's small CLIP: `python -m pipeline.demo.train_words [--out DIR]`.

Its image tower is the demo's vision transformer. Its text tower learns to put words where their pictures are.
The result is a Hugging Face folder: a `CLIPModel`, its tokenizer and its image processor. The held-out pictures
are those of `train`, and one template of captions is held out, too.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    ViTForImageClassification,
    ViTModel,
    logging as transformers_logging,
)

from pipeline.demo import train
from pipeline.demo.lake import CLASSES
from pipeline.demo.train import Pictures, model_input, rate_share

MODEL_FOLDER = Path(__file__).parent / "words"
TEMPLATES = ("{}", "a {}", "a picture of {}", "a drawing of a {}", "a photo of the {}", "{} on a plain backdrop")
HELD_OUT_TEMPLATE = "a picture with a {} in it"
TRAINING_PICTURES = 1_800
HELD_OUT_PICTURES = 1_200
BATCH = 128
LARGE = 8.0
"""How much larger than the tokens the constant is that hides them from CLIP's first norm."""
PEAK_RATE = 2e-3
DIM = 64
"""Dimension of the space that pictures and texts share."""
TOKENS = 32
"""Most tokens of a text."""
log = logging.getLogger(__name__)
SPECIAL = ["<|startoftext|>", "<|endoftext|>"]


def captions(template: str) -> list[str]:
    """Return the caption of each class, in the order of `CLASSES`."""
    return [template.format(name) for name in CLASSES]


def small_tokenizer() -> CLIPTokenizer:
    """Make a byte-pair tokenizer. Most words of the captions are one token; other words are spelled."""
    words = {word for template in TEMPLATES for text in captions(template) for word in text.split()}
    merges = _merges(sorted(words, key=lambda word: (-len(word), word)))
    alphabet = sorted(ByteLevel.alphabet())
    tokens = [*alphabet, *(f"{letter}</w>" for letter in alphabet), *map("".join, merges), *SPECIAL]
    return CLIPTokenizer(vocab={token: number for number, token in enumerate(tokens)}, merges=merges)


def _merges(words: list[str]) -> list[tuple[str, str]]:
    """Return the pairs of tokens that become one, so that words grow from their first letter."""
    pairs = []
    for word in words:
        letters = [*word[:-1], f"{word[-1]}</w>"]
        pairs += [("".join(letters[:end]), letters[end]) for end in range(1, len(letters))]
    return list(dict.fromkeys(pairs))


def small_clip(tokenizer: CLIPTokenizer, pixels: torch.Tensor) -> CLIPModel:
    """Build a CLIP of about 0.8 million parameters whose image tower is the demo's ViT.

    `pixels` are some pictures, uint8 (B, SIDE, SIDE, 3). The text tower knows nothing yet.
    """
    vit = ViTForImageClassification.from_pretrained(train.MODEL_FOLDER)
    sizes = {"hidden_act": "gelu", "projection_dim": DIM}
    towers: dict[str, Any] = {
        "vision_config": sizes
        | {name: getattr(vit.config, name) for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
        | {name: getattr(vit.config, name) for name in ("intermediate_size", "image_size", "patch_size")}
        | {"layer_norm_eps": vit.config.layer_norm_eps},
        "text_config": sizes
        | {"vocab_size": len(tokenizer), "max_position_embeddings": TOKENS, "hidden_size": 64}
        | {"intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
        | {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        | {"pad_token_id": tokenizer.pad_token_id},
    }
    model = CLIPModel(CLIPConfig(**towers, projection_dim=DIM))
    _copy_encoder(vit.vit, model.vision_model, pixels)
    return model


@torch.no_grad()  # type: ignore[untyped-decorator]
def _copy_encoder(vit: ViTModel, clip: Any, pixels: torch.Tensor) -> None:
    """Give CLIP's image encoder the weights of a ViT of the same shape."""
    clip.embeddings.class_embedding.copy_(vit.embeddings.cls_token[0, 0])
    clip.embeddings.patch_embedding.weight.copy_(vit.embeddings.patch_embeddings.projection.weight)
    positions = vit.embeddings.position_embeddings[0].clone()
    positions[1:] += vit.embeddings.patch_embeddings.projection.bias  # CLIP's patches have no bias of their own
    clip.embeddings.position_embedding.weight.copy_(positions)
    _undo_first_norm(vit.embeddings(model_input(pixels)), clip)
    clip.post_layernorm.load_state_dict(vit.layernorm.state_dict())
    for theirs, ours in zip(vit.layers, clip.encoder.layers, strict=True):
        ours.layer_norm1.load_state_dict(theirs.layernorm_before.state_dict())
        ours.layer_norm2.load_state_dict(theirs.layernorm_after.state_dict())
        ours.mlp.load_state_dict(theirs.mlp.state_dict())
        for name in ("q_proj", "k_proj", "v_proj"):
            getattr(ours.self_attn, name).load_state_dict(getattr(theirs.attention, name).state_dict())
        ours.self_attn.out_proj.load_state_dict(theirs.attention.o_proj.state_dict())


def _undo_first_norm(tokens: torch.Tensor, clip: Any) -> None:
    """Let the norm before CLIP's first layer, which a ViT does not have, change little.

    A large constant along the direction in which the tokens (B, T, D) vary least gives all tokens nearly the same
    size. The norm then divides them by it. Its weight and bias put back the size, and take the constant away.
    """
    flat = tokens.flatten(0, 1)
    flat = flat - flat.mean(1, keepdim=True)  # every later norm removes the mean of a token, too
    _, directions = torch.linalg.eigh(torch.cov(flat.T))
    constant = directions[:, 1] * flat.shape[1] ** 0.5  # direction 0 is the mean, in which they do not vary at all
    size = LARGE * flat.std(1).mean()
    clip.embeddings.position_embedding.weight += size * constant
    clip.pre_layrnorm.weight.fill_(size)
    clip.pre_layrnorm.bias.copy_(((flat @ constant).mean() / flat.shape[1] - size) * constant)


def text_vectors(model: CLIPModel, tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """Return the embeddings of texts, of length 1: (N, DIM)."""
    tokens = tokenizer(texts, padding=True, truncation=True, max_length=TOKENS, return_tensors="pt")
    return torch.nn.functional.normalize(model.get_text_features(**tokens).pooler_output)


def picture_vectors(model: CLIPModel, values: torch.Tensor) -> torch.Tensor:
    """Return the embeddings of pictures as `model_input` makes them, of length 1: (N, DIM)."""
    return torch.nn.functional.normalize(model.get_image_features(pixel_values=values).pooler_output)


def fit(model: CLIPModel, tokenizer: CLIPTokenizer, pictures: Pictures, steps: int) -> None:
    """Train the text tower and both projections in place; the image tower stays as it is."""
    model.eval().vision_model.requires_grad_(False)
    with torch.inference_mode():
        seen = [model.vision_model(model_input(batch)).pooler_output for batch in pictures.pixels.split(BATCH)]
    features = torch.cat(seen).clone()
    optimiser = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=PEAK_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate_share(step, steps))
    for step in range(steps):
        chosen = torch.randint(0, len(features), (BATCH,))
        drawn = torch.nn.functional.normalize(model.visual_projection(features[chosen]))
        templates = torch.randint(0, len(TEMPLATES), (len(CLASSES),)).tolist()
        texts = [TEMPLATES[number].format(name) for number, name in zip(templates, CLASSES, strict=True)]
        named = text_vectors(model, tokenizer, texts)
        loss = _loss(drawn @ named.T * model.logit_scale.exp(), pictures.classes[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 100 == 0:
            log.info("step %d of %d, loss %.3f", step, steps, loss.item())


def _loss(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Compare logits (pictures, texts) with the classes of the pictures: a text has several pictures."""
    right = torch.nn.functional.one_hot(classes, len(CLASSES)).float()
    by_text = right / right.sum(0).clamp(min=1)
    return torch.nn.functional.cross_entropy(logits, right) + torch.nn.functional.cross_entropy(
        logits.T, by_text.T
    )


def vectors_of(model: CLIPModel, pixels: torch.Tensor) -> torch.Tensor:
    """Return the embeddings of pictures, uint8 (N, SIDE, SIDE, 3), of length 1: (N, DIM)."""
    model.eval()
    with torch.inference_mode():
        return torch.cat([picture_vectors(model, model_input(batch)) for batch in pixels.split(BATCH)])


def shares(
    model: CLIPModel, tokenizer: CLIPTokenizer, drawn: torch.Tensor, classes: torch.Tensor, template: str
) -> tuple[float, float]:
    """Return two shares, 0 to 1, for vectors of pictures and the captions of a template.

    The first is that of pictures whose nearest caption is theirs. The second is that of right pictures among the
    nearest to each caption, as many as its class has.
    """
    with torch.inference_mode():
        cosines = drawn @ text_vectors(model, tokenizer, captions(template)).T
    named = (cosines.argmax(1) == classes).float().mean()
    nearest = cosines.topk(len(classes) // len(CLASSES), dim=0).indices
    found = classes[nearest] == torch.arange(len(CLASSES))
    return float(named), float(found.float().mean())


def save(model: CLIPModel, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write the model, its tokenizer and its image processor."""
    transformers_logging.disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(train.PREPROCESSING, indent=2) + "\n")


def main() -> None:
    """Train, save, and print how well words find held-out pictures."""
    parser = argparse.ArgumentParser(description="Train the demo's small CLIP.")
    parser.add_argument("--out", type=Path, default=MODEL_FOLDER, help="folder for the trained model")
    parser.add_argument("--steps", type=int, default=1500, help=f"training steps of {BATCH} pictures")
    parser.add_argument("--seed", type=int, default=0, help="seed of the pictures and of the training")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    pictures = train.drawn_pictures(train.TRAINING_STREAM, arguments.seed, TRAINING_PICTURES)
    tokenizer = small_tokenizer()
    model = small_clip(tokenizer, pictures.pixels[:BATCH])
    fit(model, tokenizer, pictures, arguments.steps)
    save(model, tokenizer, arguments.out)
    held_out = train.drawn_pictures(train.HELD_OUT_STREAM, arguments.seed, HELD_OUT_PICTURES)
    drawn = vectors_of(model, held_out.pixels)
    for template in (*TEMPLATES, HELD_OUT_TEMPLATE):
        named, found = shares(model, tokenizer, drawn, held_out.classes, template)
        print(f"{template!r}: {named:.2%} of the pictures get their words, {found:.2%} of the hits are right")


if __name__ == "__main__":
    main()
