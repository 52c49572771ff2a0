"""`lakelens head`: make a head from labels, from words, or of the model; measure it, and compare two."""

from collections.abc import Sequence
from typing import Annotated

import typer

from jobs import console, options
from jobs.options import Anonymous, EndpointUrl, Output, Region
from pipeline.face.opened_space import Space, open_space
from pipeline.labels import comparing, fitting, head as heads, measuring, own_head, truth as truths, word_head
from pipeline.labels.head import Head, Measure
from pipeline.labels.truth import Examples
from pipeline.space_model import last_run, open_model
from pipeline.storage.filesystems import Storage

main = typer.Typer(no_args_is_help=True, help="Make a head from labels, from words, or of the model itself.")

Truth = Annotated[
    str,
    typer.Option(metavar="FILE", help="Parquet or CSV with image_id and label, a row for each label."),
]
Out = Annotated[
    str, typer.Option(metavar="HEAD", help="Folder for the head, on any store; its name names the head.")
]
FIGURES = ("images", "precision", "recall")


@main.command()
def fit(
    output: Output,
    truth: Truth,
    out: Out,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Learn a head from labels that people gave, and measure it on images that it has not seen."""
    space, storage = _opened(output, endpoint_url, region, anonymous)
    examples = _examples(output, truth, space, storage)
    made = fitting.fit(examples, space.description, version=space.version, seed=seed)
    _save(made, out, storage)
    assert made.description.measured is not None
    _show(made.description.measured, "images that the head has not seen")


@main.command()
def words(
    output: Output,
    classes: Annotated[str, typer.Option(help="Names of the classes, with commas, or a file with one a line.")],
    out: Out,
    template: Annotated[list[str] | None, typer.Option(help="Sentence with {} for the name; repeatable.")] = None,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Make a head of words, for spaces with a text encoder. Nothing is learned."""
    space, storage = _opened(output, endpoint_url, region, anonymous)
    names = word_head.read_classes(classes, storage)
    made = word_head.make(names, template or [word_head.TEMPLATE], space.description, space.encode_text)
    _save(made, out, storage)


@main.command()
def own(
    output: Output,
    out: Out,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Take the head of the model that made OUTPUT."""
    space, storage = _opened(output, endpoint_url, region, anonymous)
    run_id = last_run(space.reader)
    if run_id is None:
        raise typer.BadParameter(f"{output} has no ok rows yet", param_hint="OUTPUT")
    _save(own_head.make(open_model(space.path, storage, run_id), space.path), out, storage)


@main.command()
def measure(
    output: Output,
    head: Annotated[str, typer.Option(help="Folder of the head.")],
    truth: Truth,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Compare the labels of a head with those that people gave."""
    space, storage = _opened(output, endpoint_url, region, anonymous)
    loaded = heads.load(head, storage)
    loaded.require(space.description, space.path)
    examples = _examples(output, truth, space, storage, loaded.labels)
    _show(measuring.measure(loaded, examples), "images")


@main.command()
def compare(
    output: Output,
    first: Annotated[str, typer.Argument(metavar="A", help="Folder of a head.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Folder of another head.")],
    sample: Annotated[int, typer.Option(min=1, help="Rows to compare, as many of each dataset.")] = 10_000,
    export: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the rows with other labels, or a small margin.")
    ] = None,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Show where two heads give different labels, and with what margin."""
    space, storage = _opened(output, endpoint_url, region, anonymous)
    pair = (heads.load(first, storage), heads.load(second, storage))
    for one in pair:
        one.require(space.description, space.path)
    found = comparing.compare(space.reader, *pair, sample=sample)
    console.say(f"{found.different:,} of {found.rows:,} images have different labels ({found.share:.1%})")
    rows = [(pair.first, pair.second, f"{pair.images:,}", pair.example) for pair in found.changes]
    console.show_table((first, second, "images", "example"), rows, figures=("images",))
    if export is not None:
        comparing.write(found, export, storage)
        console.say(f"{found.table.num_rows:,} rows written to {export}, the smallest margins first")


def _opened(output: str, endpoint_url: str | None, region: str | None, anonymous: bool) -> tuple[Space, Storage]:
    storage = options.storage(endpoint_url, region, anonymous)
    return open_space(output, storage.config), storage


def _examples(
    output: str, truth: str, space: Space, storage: Storage, labels: Sequence[str] | None = None
) -> Examples:
    """Look up the images of a file of labels, and say how many of them are left out."""
    found = truths.examples(truths.read(truth, storage), space.reader, labels)
    if found.absent:
        console.say(f"{found.absent:,} images of {truth} have no ok row in {output} and are left out")
    return found


def _save(head: Head, folder: str, storage: Storage) -> None:
    heads.name_of(folder)
    heads.save(head, folder, storage)
    console.say(f"{folder}: {len(head.labels)} labels, {head.description.kind}, hash {head.sha256}")


def _show(measured: Measure, images: str) -> None:
    console.say(f"accuracy {measured.accuracy:.2%} on {measured.images:,} {images}")
    shares = [
        (one.label, f"{one.images:,}", _percent(one.precision), _percent(one.recall)) for one in measured.classes
    ]
    console.show_table(("label", *FIGURES), shares, figures=FIGURES)
    if measured.confusions:
        rows = [(one.truth, one.given, f"{one.images:,}") for one in measured.confusions]
        console.show_table(("truth", "given", "images"), rows, figures=("images",))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
