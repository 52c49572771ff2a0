"""A head: a linear classifier on the embeddings of one space, as a folder.

    <head>/head.json           labels, kind, input, scale, the space, how it was made, on what it was measured
    <head>/head.safetensors    weight float32 (C, D), bias float32 (C,)

This module does not know how a head is made.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors, save as save_tensors

from pipeline.errors import HeadError, first_line
from pipeline.output.documents import Document, parsed
from pipeline.output.space import SpaceDescription
from pipeline.storage.filesystems import Storage
from pipeline.storage.uris import join

FORMAT = 1
"""The newest format of `head.json` that this version knows."""
DESCRIPTION = "head.json"
WEIGHTS = "head.safetensors"
Kind = Literal["softmax", "sigmoid"]
Input = Literal["raw", "normalised"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class ClassMeasure(Document):
    """How right a head is on one class: shares from 0 to 1, or null where there is nothing to divide by."""

    label: str
    images: int
    precision: float | None
    recall: float | None


class Confusion(Document):
    """How many images of one class got the label of another."""

    truth: str
    given: str
    images: int


class Measure(Document):
    """How right a head is on images that it was not made from.

    `accuracy` is the share of images whose label is right; with several labels an image, the share of right
    decisions. `confusions` are the most frequent ones.
    """

    images: int
    accuracy: float
    classes: tuple[ClassMeasure, ...]
    confusions: tuple[Confusion, ...] = ()


class Origin(Document):
    """How a head was made: `fit`, `words` or `own`, when, and from what, as further keys."""

    by: str
    at: str


class HeadDescription(Document):
    """The content of `head.json`.

    `labels` are the names of the classes, in the order of the weights. `kind`: softmax gives one label of several,
    sigmoid scores each label by itself. `input`: whether the weights take raw vectors or vectors of length 1.
    `scale` multiplies the products of weights and vectors, before the bias. `fingerprint` and `model` name the
    space.
    """

    format: Annotated[int, Field(strict=True, ge=1)] = FORMAT
    labels: tuple[str, ...]
    kind: Kind
    input: Input
    scale: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    fingerprint: str
    model: str | None = None
    made: Origin
    measured: Measure | None = None


@dataclass(frozen=True)
class Head:
    """A head in memory: `weight` is float32 (C, D), `bias` float32 (C,)."""

    description: HeadDescription
    weight: NDArray[np.float32] = field(repr=False)
    bias: NDArray[np.float32] = field(repr=False)

    def __post_init__(self) -> None:
        """Check the shapes and values. Raises: HeadError."""
        classes = len(self.description.labels)
        if not classes:
            raise HeadError("The head has no labels.")
        twice = _first_repeated(self.description.labels)
        if twice is not None:
            raise HeadError(f"The head has the label {twice!r} twice.")
        if self.weight.ndim != 2 or len(self.weight) != classes or self.bias.shape != (classes,):
            raise HeadError(
                f"The head has {classes} labels, but weights of shape {self.weight.shape} and a bias of shape "
                f"{self.bias.shape}; they must be ({classes}, dimension) and ({classes},)."
            )
        if not (np.isfinite(self.weight).all() and np.isfinite(self.bias).all()):
            raise HeadError("The head has weights that are not finite numbers.")

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.description.labels

    @property
    def dim(self) -> int:
        """The dimension of the embeddings."""
        return int(self.weight.shape[1])

    @cached_property
    def sha256(self) -> str:
        """The first 12 digits of a hash of everything that decides the labels."""
        decisive = self.description.model_dump(include={"labels", "kind", "input", "scale"})
        digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode())
        for values in (self.weight, self.bias):
            digest.update(np.ascontiguousarray(values, dtype="<f4").tobytes())
        return digest.hexdigest()[:12]

    def require(self, space: SpaceDescription, output: str) -> None:
        """Check that the head belongs to the space of an output. Raises: HeadError, which names both."""
        if self.description.fingerprint != space.fingerprint:
            raise HeadError(
                f"The head is for the space {self.description.fingerprint} ({self.description.model}), but "
                f"{output} has the space {space.fingerprint} ({space.model}). Make a head from this output."
            )
        if space.dim is not None and self.dim != space.dim:
            raise HeadError(f"The head takes {self.dim} dimensions, but embeddings of {output} have {space.dim}.")


def load(folder: str, storage: Storage) -> Head:
    """Read a head from a folder on any store. Raises: HeadError, StorageError."""
    description, weights = (storage.read(join(folder, name)) for name in (DESCRIPTION, WEIGHTS))
    if description is None or weights is None:
        missing = DESCRIPTION if description is None else WEIGHTS
        raise HeadError(f"There is no head at {folder}: it has no {missing}. Make one with `lakelens head`.")
    found = parsed(HeadDescription, description, join(folder, DESCRIPTION))
    if found.format > FORMAT:
        raise HeadError(
            f"The head at {folder} has format {found.format}; this LakeLens knows {FORMAT}. Upgrade it."
        )
    try:
        tensors = load_tensors(weights)
        return Head(found, *(tensors[name].astype(np.float32) for name in ("weight", "bias")))
    except (SafetensorError, KeyError) as error:
        raise HeadError(f"{join(folder, WEIGHTS)} is damaged: {first_line(error)}.") from error
    except HeadError as error:
        raise HeadError(f"Cannot use {folder}. {error}") from error


def save(head: Head, folder: str, storage: Storage) -> None:
    """Write a head to a folder on any store, its description last. Raises: StorageError."""
    # safetensors writes memory as it lies, also that of a transposed matrix.
    tensors = {"weight": np.ascontiguousarray(head.weight), "bias": np.ascontiguousarray(head.bias)}
    storage.write(join(folder, WEIGHTS), save_tensors(tensors))
    storage.write_json(join(folder, DESCRIPTION), head.description.model_dump())


def name_of(folder: str) -> str:
    """Return the name of a head: that of its folder. Raises: HeadError if it cannot be the name of a table."""
    return require_name(folder.rstrip("/").rsplit("/", 1)[-1])


def require_name(name: str) -> str:
    """Return the name. Raises: HeadError."""
    if not _NAME.fullmatch(name):
        raise HeadError(
            f"{name!r} cannot be the name of a head: use letters, digits, '.', '_' and '-', and pass it as --name."
        )
    return name


def _first_repeated(labels: tuple[str, ...]) -> str | None:
    seen = set[str]()
    return next((label for label in labels if label in seen or seen.add(label)), None)  # type: ignore[func-returns-value]
