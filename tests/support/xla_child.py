"""Run by test_xla in a process of its own, which JAX's threads leave unfit to fork: what the xla engine gives."""

import sys

import numpy as np

from pipeline.config import EmbeddingConfig, ModelConfig
from pipeline.engines import loading
from pipeline.errors import EngineError
from pipeline.models.model import resolve
from pipeline.storage.filesystems import Storage


def main() -> None:
    """For each FOLDER@PRECISION of a model, the results for the pixels in the first argument, a .npy file."""
    pixels = np.load(sys.argv[1])
    for argument in sys.argv[2:]:
        name, precision = argument.split("@")
        config = ModelConfig(name=name, engine="xla", precision=precision)  # type: ignore[arg-type]
        try:
            engine = loading.load_engine(
                resolve(config, Storage()), config, EmbeddingConfig(), engine="xla", top_k=5, threads=1
            )
        except EngineError as error:
            print(error)
            continue
        first, second = engine.start(pixels[:3]), engine.start(pixels[3:7])  # two are in flight
        for number, scored in enumerate((first(), second())):
            np.savez(f"{argument}.{number}.npz", **vars(scored))


if __name__ == "__main__":
    main()
