"""What a listing took and what it left out: counted while it is made, reported at its end.

It does not know where the names come from.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.storage.uris import is_http, printable, redacted

HIDDEN, NO_ENDING = "hidden", "without ending"
SPECIAL = "neither file nor folder"
"""Pipes, sockets, devices; in a tar, what is neither a file nor a link nor a folder."""
LOOP = "in a loop of links"
"""Links to a folder above them: its files are listed anyway."""
OTHERS = "others"

KINDS = 1000
"""Endings that are counted separately; further ones are counted together, so that names like a.000001 cannot fill
the memory."""
SHOWN_ENDINGS = 6
SENTENCES_KEPT = 20
"""Sentences that are kept about what could not be listed; further ones are only counted."""
_LONGEST_ENDING = 12


@dataclass(frozen=True)
class Listing:
    """The result of a listing.

    `rows` counts the listed images. `left_out` counts the files that are not images, by ending or by another
    reason. `superseded` counts members of shards that a later member of the same name replaces. `unlisted` are
    sentences about images that could not be listed; `unlisted_more` counts further ones.
    """

    rows: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    superseded: int = 0
    unlisted: tuple[str, ...] = ()
    unlisted_more: int = 0

    @property
    def rows_line(self) -> str:
        """Return `12 images listed`."""
        return f"{self.rows:,} image{'' if self.rows == 1 else 's'} listed"

    @property
    def left_out_line(self) -> str:
        """Return `left out: 3 .heic, 12 hidden`, with the most frequent endings first; "" if nothing was left
        out."""
        endings = [kind for kind in self.left_out if kind.startswith(".")]
        often = sorted(endings, key=lambda kind: (-self.left_out[kind], kind))[:SHOWN_ENDINGS]
        rest = sum(self.left_out[kind] for kind in endings if kind not in often) + self.left_out.get(OTHERS, 0)
        said = [f"{self.left_out[kind]:,} {kind}" for kind in often]
        said += [f"{self.left_out[kind]:,} {kind}" for kind in _REASONS if kind in self.left_out]
        line = ", ".join(said) + (f" and {rest:,} others" if rest else "")
        replaced = f"superseded in their shards: {self.superseded:,}" if self.superseded else ""
        return "; ".join(filter(None, [f"left out: {line}" if line else "", replaced]))

    @property
    def unlisted_lines(self) -> list[str]:
        """Return a sentence for each thing that could not be listed."""
        more = f"{self.unlisted_more:,} more could not be listed." if self.unlisted_more else ""
        return [*self.unlisted, *filter(None, [more])]

    @property
    def lines(self) -> list[str]:
        """Return what was not listed, for people who gave a folder as the manifest; empty if all was listed."""
        counted = f"{self.rows_line}; {self.left_out_line}" if self.left_out_line else ""
        return [*filter(None, [counted]), *self.unlisted_lines]

    def to_dict(self) -> dict[str, Any]:
        """Return what `plan.json` and `summary.json` say of a listing."""
        return {"left_out": dict(self.left_out), "superseded": self.superseded, "unlisted": self.unlisted_lines}


_REASONS = (NO_ENDING, HIDDEN, SPECIAL, LOOP)


def merge(listings: Iterable[Listing]) -> Listing:
    """Add up several listings."""
    tally, rows = Tally(), 0
    for listing in listings:
        rows += listing.rows
        tally.add(listing)
    return tally.listing(rows)


class Tally:
    """Counts what a listing leaves out while it is made. Its memory is bounded."""

    def __init__(self) -> None:
        self.superseded = 0
        self._left_out: Counter[str] = Counter()
        self._unlisted: list[str] = []
        self._unlisted_more = 0

    def leave_out(self, kind: str, count: int = 1) -> None:
        """Count files that are left out, by a reason or an ending."""
        if kind.startswith(".") and kind not in self._left_out and len(self._left_out) >= KINDS:
            kind = OTHERS
        self._left_out[kind] += count

    def leave_out_file(self, name: str) -> None:
        """Count a file that is left out, by the ending of its name."""
        self.leave_out(ending(name))

    def add_unlisted(self, sentence: str) -> None:
        """Record a sentence about something that could not be listed."""
        if len(self._unlisted) < SENTENCES_KEPT:
            self._unlisted.append(sentence)
        else:
            self._unlisted_more += 1

    def add(self, listing: Listing) -> None:
        """Add the counts of another listing."""
        for kind, count in listing.left_out.items():
            self.leave_out(kind, count)
        for sentence in listing.unlisted:
            self.add_unlisted(sentence)
        self._unlisted_more += listing.unlisted_more
        self.superseded += listing.superseded

    def listing(self, rows: int) -> Listing:
        """Return the counts, the most frequent first, of a listing with this many rows."""
        left_out = dict(sorted(self._left_out.items(), key=lambda item: (-item[1], item[0])))
        return Listing(rows, left_out, self.superseded, tuple(self._unlisted), self._unlisted_more)


def ending(name: str) -> str:
    """Return the ending of a file name, printable, in lower case and with its dot; `NO_ENDING` if it has none."""
    stem, dot, last = name.rpartition(".")
    if not stem or not last or len(last) > _LONGEST_ENDING or " " in last:
        return NO_ENDING
    return display_name(dot + last.lower())


def display_name(uri: str) -> str:
    """Return a name as messages show it: whole, on one line, with bytes that are not UTF-8 escaped."""
    text = as_text(uri)
    return redacted(text) if is_http(text) else printable(text)


def is_text(name: str) -> bool:
    """Return whether a name can be written in a manifest, which is UTF-8."""
    return name.isascii() or not any("\ud800" <= c <= "\udfff" for c in name)


def as_text(name: str) -> str:
    r"""Return a name with bytes that are not UTF-8 escaped, such as `\xe9`."""
    if is_text(name):
        return name
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, or one that macOS or a NAS creates for itself."""
    return (name.startswith(".") and name not in (".", "..")) or name in ("__MACOSX", "@eaDir")
