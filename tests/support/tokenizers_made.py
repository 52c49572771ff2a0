"""Small tokenizers of CLIP and of SigLIP, made by code."""

import io
from pathlib import Path

import sentencepiece
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer, SiglipTokenizer

WORDS = "a photo of a red cat and a green dog in a blue house beside an old tree"


def clip_tokenizer(folder: Path) -> int:
    """Save a tokenizer of single bytes. Return the number of its tokens."""
    alphabet = sorted(ByteLevel.alphabet())
    tokens = [*alphabet, *(f"{letter}</w>" for letter in alphabet), "<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer(vocab={token: number for number, token in enumerate(tokens)}, merges=[]).save_pretrained(folder)
    return len(tokens)


def siglip_tokenizer(folder: Path) -> int:
    """Train and save a tokenizer on a few words. Return the number of its tokens."""
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([WORDS] * 20),
        model_writer=trained,
        vocab_size=40,
        pad_id=1,
        eos_id=2,
        unk_id=0,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "spiece.model").write_bytes(trained.getvalue())
    tokenizer = SiglipTokenizer(str(folder / "spiece.model"))
    tokenizer.save_pretrained(folder)
    return len(tokenizer)
