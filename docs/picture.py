"""Draw docs/demo.png from the output of `lakelens demo`: `python -m docs.picture [OUTPUT]`.

Three rows of tiles: labels with their scores, nearest images by embedding, and failed rows with their codes.
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
from deltalake import DeltaTable
from PIL import Image, ImageDraw, ImageFont, ImageOps

PAGE = Path(__file__).with_name("demo.png")
TILE, GAP, TITLE, CAPTION, COLUMNS = 132, 12, 26, 40, 6
INK, GRAY, PAPER, BLANK = "#1f2328", "#656d76", "#ffffff", "#eceff2"
QUERY = "star"
"""Label of the image whose neighbours are drawn."""
Tile = tuple[str | None, str, str]
"""The path of an image, None for a failed one, and two lines below it."""


def rows(output: str) -> list[tuple[str, list[Tile]]]:
    """Return each row's title and tiles."""
    table = DeltaTable(f"{output}/predictions").to_pyarrow_dataset()
    columns = ["image_id", "uri", "label", "score", "embedding", "dataset"]
    ok = table.to_table(columns, filter=ds.field("outcome") == "ok").sort_by("image_id")
    failed = table.to_table(["image_id", "uri", "stage", "error_code"], filter=ds.field("outcome") == "failed")
    images = ok.drop_columns("embedding").to_pylist()
    by_label = {row["label"]: row for row in reversed(images)}
    labelled = [by_label[name] for name in sorted(by_label)][:COLUMNS]
    by_code = {row["error_code"]: row for row in failed.sort_by("image_id").to_pylist()}
    vectors = np.stack(ok["embedding"].to_numpy())
    query = images.index(by_label.get(QUERY, images[0]))
    cosines = vectors @ vectors[query]
    nearest = np.argsort(-cosines, kind="stable")[:COLUMNS]
    return [
        ("label and score", [(row["uri"], row["label"], f"{row['score']:.2f}") for row in labelled]),
        (
            "nearest to the first image by embedding: cosine and dataset",
            [(images[i]["uri"], f"{cosines[i]:.3f}", images[i]["dataset"]) for i in nearest],
        ),
        (
            "broken files are rows, too: error_code and stage",
            [(None, row["error_code"], f"{row['stage']}, {row['uri'].split()[-1]}") for row in by_code.values()],
        ),
    ]


def sheet(content: list[tuple[str, list[Tile]]]) -> Image.Image:
    """Draw the rows below one another."""
    heights = [_tile(tiles[0][0]).height for _, tiles in content]
    width, height = COLUMNS * (TILE + GAP) + GAP, sum(heights) + len(content) * (TITLE + CAPTION + GAP) + GAP
    picture = Image.new("RGB", (width, height), PAPER)
    pen, top = ImageDraw.Draw(picture), GAP
    large, small = ImageFont.load_default(15), ImageFont.load_default(13)
    for (title, tiles), tile_height in zip(content, heights, strict=True):
        pen.text((GAP, top), title, INK, large)
        for column, (uri, first, second) in enumerate(tiles):
            left, below = GAP + column * (TILE + GAP), top + TITLE + tile_height + 4
            picture.paste(_tile(uri), (left, top + TITLE))
            pen.text((left, below), first, INK, small)
            pen.text((left, below + 17), second, GRAY, small)
        top += TITLE + tile_height + CAPTION + GAP
    return picture


def _tile(uri: str | None) -> Image.Image:
    if uri is None:
        tile = Image.new("RGB", (TILE, TILE // 2), BLANK)
        ImageDraw.Draw(tile).line([(50, 17), (82, 49)], GRAY, 3)
        ImageDraw.Draw(tile).line([(82, 17), (50, 49)], GRAY, 3)
        return tile
    with Image.open(uri) as image:
        return ImageOps.fit(ImageOps.exif_transpose(image).convert("RGB"), (TILE, TILE))


if __name__ == "__main__":
    drawn = sheet(rows(sys.argv[1] if len(sys.argv) > 1 else "lakelens-demo/output"))
    drawn.quantize(128, dither=Image.Dither.NONE).save(PAGE, optimize=True)
