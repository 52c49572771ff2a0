"""What the commands show: tables, the progress line, one-sentence errors. On a pipe, plain text."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields

import typer
from rich.cells import cell_len, set_cell_size
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

GAP = 2
"""Blanks between two columns of a table."""
LEAST = 12
"""Cells that a shortened text keeps, however narrow the terminal is."""
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


def show_progress(done: int, total: int, what: str) -> None:
    """Show on a terminal how much is done: one line of stderr, which the next call replaces."""
    if sys.stderr.isatty():
        print(f"\r{done:,} of {total:,} {what}", end="" if done < total else "\n", file=sys.stderr, flush=True)


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


def show_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], figures: Sequence[str], long: Sequence[str] = ()
) -> None:
    """Print a table without borders, with the columns `figures` aligned to the right.

    Cells of the columns `long` are shortened in their middle until the table fits the terminal.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in header:
        table.add_column(name, justify="right" if name in figures else "left", overflow="fold")
    cells = [[printable(cell) for cell in row] for row in rows]
    for row in shortened(header, cells, long, out.width):
        table.add_row(*map(escape, row))
    out.print(table)


def shortened(header: Sequence[str], rows: list[list[str]], long: Sequence[str], width: int) -> list[list[str]]:
    """Return the rows of a table with the cells of `long` shortened so that it is `width` cells wide."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(cell_len, column)) for column in columns]
    places = sorted((at for at, name in enumerate(header) if name in long), key=widths.__getitem__)
    room = width - GAP * (len(header) - 1) - sum(have for at, have in enumerate(widths) if at not in places)
    for left, at in zip(range(len(places), 0, -1), places, strict=True):  # the shortest first
        widths[at] = min(widths[at], max(room // left, LEAST))
        room -= widths[at]
    return [[_shortened(cell, have) for cell, have in zip(row, widths, strict=True)] for row in rows]


def _shortened(text: str, width: int) -> str:
    """Return a text of at most `width` cells, with … for its middle; a path ends with the file's name."""
    if cell_len(text) <= width:
        return text
    end = 2 * (width - 1) // 3
    return f"{set_cell_size(text, width - 1 - end)}…{set_cell_size(text[::-1], end)[::-1]}"


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
