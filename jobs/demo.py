"""`lakelens demo`: a generated image lake, the two models that come with LakeLens, real runs."""

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from jobs import console
from jobs.run import show_run
from pipeline.cluster.connection import connected
from pipeline.demo.accuracy import accuracy
from pipeline.demo.lake import make_lake
from pipeline.demo.neighbours import NEAREST, share_of_class, share_of_words
from pipeline.demo.settings import settings_of


def main(
    folder: Annotated[Path, typer.Option(help="Folder for the lake and the output.")] = Path("lakelens-demo"),
    images: Annotated[
        int, typer.Option(min=1, help="Number of valid images; broken ones and duplicates are added.")
    ] = 600,
) -> None:
    """Draw an image lake, label and embed it, compare the labels with the drawn shapes, and search it."""
    manifest, output, words = folder / "lake" / "manifest.parquet", folder / "output", folder / "words"
    if not manifest.exists():
        console.say(f"drawing {images:,} images into {manifest.parent} ...")
        make_lake(manifest.parent, images=images)
    settings = settings_of("demo.yaml", manifest, output, "model")
    with connected(None):  # both runs share one cluster
        show_run(settings)
        rows = [(dataset, f"{count:,}", f"{share:.1%}") for dataset, count, share in accuracy(str(output))]
        console.show_table(("dataset", "images", "accuracy"), rows, figures=("images", "accuracy"))
        console.say("\nthe same images in another space, to find them by words:")
        show_run(settings_of("demo-words.yaml", manifest, words, "words"))
    for queries, share in (("new drawing", share_of_class(str(output))), ("name", share_of_words(str(words)))):
        console.say(f"search: {share:.1%} of the {NEAREST} images nearest to each {queries} show its class")
    (folder / "demo.yaml").write_text(settings.to_yaml(), encoding="utf-8")
    show_next(folder / "demo.yaml", output, words)


def show_next(config_file: Path, output: Path, words: Path) -> None:
    """Print where the results are, and five commands to try."""
    lakelens = "lakelens" if shutil.which("lakelens") else _command()
    console.say(f"predictions: {output}/predictions (Parquet in Hive folders, and a Delta table)\n\ntry next:")
    console.say(f"  {lakelens} plan {config_file}")
    console.say(f"  {lakelens} errors {output}")
    console.say(f"  {lakelens} search {output} --id img-00000 --html nearest.html")
    console.say(f"  {lakelens} search {words} --text 'polka dots'")
    console.say(f"  {lakelens} run configs/local.yaml --set manifest.path=PHOTOS --set output.path=photos-out")


def _command() -> str:
    """Return the command line of this process, where `lakelens` is not on the PATH."""
    program = Path(sys.argv[0])
    return "python -m jobs" if program.name == "__main__.py" else os.path.relpath(program)
