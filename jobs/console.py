"""What the commands show: tables, the progress line, one-sentence errors. On a pipe, plain text."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress as ProgressBar, TextColumn
from rich.table import Table

from jobs import logs
from pipeline.errors import UNLISTED
from pipeline.face.progress_text import ProgressText
from pipeline.planning.account import Account, Counts, Progress
from pipeline.storage.uris import printable

# On a pipe nothing is cut to a width: the other end has none.
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 100_000)
err = Console(highlight=False, soft_wrap=True, stderr=True)

PLAIN_INTERVAL_S = 10.0
"""Time between progress lines where there is no terminal."""


def fail(message: str) -> None:
    """Print an error to stderr."""
    if logs.as_json():
        return logs.event("failed", "error", message=message)
    err.print(f"[red]error:[/red] {escape(message)}")


def say(text: str) -> None:
    """Print one line to stdout, without interpreting markup."""
    out.print(text, markup=False)


def note(text: str) -> None:
    """Print one line to stderr, beside the progress."""
    if logs.as_json():
        return logs.event("note", message=text)
    err.print(text, markup=False)


def exit_if_any(unlisted: Sequence[str]) -> None:
    """Exit with code 6 if anything could not be listed, which has been printed before. Raises: typer.Exit."""
    if unlisted:
        raise typer.Exit(UNLISTED)


def passed_on(text: str) -> None:
    """Print another process's output unchanged."""
    sys.stdout.write(text)
    sys.stdout.flush()


def show_account(account: Account, *, always: Sequence[str] = ("input",), left: str = "left") -> None:
    """Print the account, one row per dataset. Columns that are all zero are left out, except those in `always`."""
    total = account.total
    names = [f.name for f in fields(Counts) if f.name in always or getattr(total, f.name)]
    header = ["dataset", *((left if name == "left" else name.replace("_", " ")) for name in names)]
    rows = sorted(account.datasets.items())
    rows = [*rows, ("total", total)] if len(rows) != 1 else rows
    cells = [[dataset, *(f"{getattr(row, name):,}" for name in names)] for dataset, row in rows]
    show_table(header, cells, figures=header[1:])


def show_table(header: Sequence[str], rows: Iterable[Sequence[str]], figures: Sequence[str]) -> None:
    """Print a table without borders, with the columns `figures` aligned to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in header:
        table.add_column(name, justify="right" if name in figures else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(printable(cell)) for cell in row))
    out.print(table)


@contextmanager
def progress_line() -> Iterator[Callable[[Progress], None]]:
    """Yield a callback that shows rows, images/s, remaining time and errors: live on a terminal, or as lines."""
    if logs.as_json() or not err.is_terminal:
        yield _Lines()
        return
    bar = ProgressBar(TextColumn("{task.description}"), BarColumn(), console=err, transient=True)
    with bar:
        task = bar.add_task("starting", total=None)
        text = ProgressText()

        def update(progress: Progress) -> None:
            bar.update(
                task, description=text.describe(progress), total=progress.pending, completed=progress.predicted
            )

        yield update


class _Lines:
    def __init__(self) -> None:
        self._text = ProgressText()
        self._next = 0.0

    def __call__(self, progress: Progress) -> None:
        last = progress.account.total.left == 0
        if progress.elapsed_s >= self._next or last:
            self._next = progress.elapsed_s + PLAIN_INTERVAL_S
            self._show(progress)

    def _show(self, progress: Progress) -> None:
        if not logs.as_json():
            print(self._text.describe(progress), file=sys.stderr, flush=True)
            return
        rate, total = self._text.rate(progress), progress.account.total
        logs.event(
            "progress",
            pending=progress.pending,
            predicted=progress.predicted,
            ok=total.ok,
            failed=total.failed,
            images_per_s=rate and round(rate, 3),
        )
