"""`lakelens`, which is also `python -m jobs`. Only the command that is named is imported."""

import importlib
import sys
from typing import Annotated

import typer

from jobs import console
from pipeline import __version__
from pipeline.errors import LakeLensError

COMMANDS = {
    "Make": {
        "manifest": "Make a manifest from a folder or an object store prefix.",
        "plan": "Show what a run would do, per dataset, without starting Ray.",
        "run": "Label and embed every image that the output does not hold yet.",
        "backfill": "Process a part of the pending rows, or retry failed rows.",
        "demo": "Make a small image lake and run on it: no hub, no cloud account.",
    },
    "Cluster": {
        "submit": "Submit a run as a job to a Ray cluster.",
        "status": "List submitted jobs.",
        "stop": "Stop a job after it has committed its predictions.",
    },
    "Trust": {
        "verify": "Recompute a sample in float32 and compare.",
        "errors": "Count failed rows by dataset, stage and code; export them.",
        "history": "List the runs and commits that made an output.",
    },
    "Use": {
        "index": "Build or update the index of an output's embeddings.",
        "search": "Find the images nearest to an image, an id, a text or a vector.",
        "duplicates": "Group images with the same bytes or nearly the same vector.",
        "export": "Write labels and vectors as files for other programs.",
        "head": "Make a head: labels from stored embeddings.",
        "migrate": "Plan the move to another model, and compare it with the old one.",
        "relabel": "Label every embedded image with a head, without its pixels.",
    },
    "Keep": {
        "compact": "Merge small files into fewer large ones.",
        "vacuum": "Delete files that no reader sees.",
    },
}
"""Commands by the group in which the help shows them."""


def main() -> None:
    """Run one command. A LakeLensError is printed as one sentence and sets the exit code."""
    # Outside any handler: otherwise the error's frames, and what they hold, live until the interpreter ends.
    sys.exit(_exit_code(_app(next((word for word in sys.argv[1:] if not word.startswith("-")), None))))


def _exit_code(app: typer.Typer) -> int | None:
    try:
        app()
    except LakeLensError as error:
        console.fail(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return None


def _app(named: str | None) -> typer.Typer:
    app = typer.Typer(
        name="lakelens",
        help="Label and embed every image of an image lake.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    for group, commands in COMMANDS.items():
        for name, summary in commands.items():
            command = importlib.import_module(f"jobs.{name}").main if name == named else _listed_only
            if isinstance(command, typer.Typer):  # it has commands of its own
                app.add_typer(command, name=name, short_help=summary, rich_help_panel=group)
            else:
                app.command(name, short_help=summary, rich_help_panel=group)(command)
    return app


def _version(asked: bool) -> None:
    if asked:
        console.out.print(f"lakelens {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_version)
    ] = False,
) -> None: ...


def _listed_only() -> None:
    """Stand in for a command in the list of commands."""


if __name__ == "__main__":
    main()
