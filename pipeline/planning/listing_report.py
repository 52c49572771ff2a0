"""What a listing took and what it did not: counted while it is made, told at its end.

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
"""Links to a folder that they are in: whatever is there is listed without them."""
OTHERS = "others"

KINDS = 1000
"""Different endings that are counted apart: numbers behind the dots of names must not fill the memory."""
SHOWN_ENDINGS = 6
NAMED = 20
"""Sentences about what could not be listed that are kept; the rest is only counted."""
_LONGEST_ENDING = 12


@dataclass(frozen=True)
class Listing:
    """What came of a listing.

    `rows` were listed. `left_out` counts by ending, or by another reason, what was not meant to be; `superseded`
    members of shards that a later one of their name replaces. `unlisted` are sentences about what should have been
    listed and could not be; `unlisted_more` counts those beyond the first ones.
    """

    rows: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    superseded: int = 0
    unlisted: tuple[str, ...] = ()
    unlisted_more: int = 0

    @property
    def left_out_line(self) -> str:
        """`left out: 3 .heic, 12 hidden`, the most frequent endings first; "" if there is nothing to say."""
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
        """What could not be listed, a sentence each."""
        more = f"{self.unlisted_more:,} more could not be listed." if self.unlisted_more else ""
        return [*self.unlisted, *filter(None, [more])]

    @property
    def lines(self) -> list[str]:
        """What was not listed, for people who gave a folder as the manifest; empty if that is nothing."""
        counted = f"{self.rows:,} images listed; {self.left_out_line}" if self.left_out_line else ""
        return [*filter(None, [counted]), *self.unlisted_lines]

    def to_dict(self) -> dict[str, Any]:
        """For `plan.json` and `summary.json`."""
        return {"left_out": dict(self.left_out), "superseded": self.superseded, "unlisted": self.unlisted_lines}


_REASONS = (NO_ENDING, HIDDEN, SPECIAL, LOOP)


def merged(listings: Iterable[Listing]) -> Listing:
    """Several listings as one."""
    tally, rows = Tally(), 0
    for listing in listings:
        rows += listing.rows
        tally.add(listing)
    return tally.listing(rows)


class Tally:
    """Counts while a listing is made. Its memory is bounded."""

    def __init__(self) -> None:
        self.superseded = 0
        self._left_out: Counter[str] = Counter()
        self._unlisted: list[str] = []
        self._unlisted_more = 0

    def leave_out(self, kind: str, count: int = 1) -> None:
        """Count what is not listed, under a reason or an ending."""
        if kind.startswith(".") and kind not in self._left_out and len(self._left_out) >= KINDS:
            kind = OTHERS
        self._left_out[kind] += count

    def leave_out_file(self, name: str) -> None:
        """Count a file that is not listed under the ending of its name."""
        self.leave_out(ending(name))

    def name(self, sentence: str) -> None:
        """Keep a sentence about what could not be listed."""
        if len(self._unlisted) < NAMED:
            self._unlisted.append(sentence)
        else:
            self._unlisted_more += 1

    def add(self, listing: Listing) -> None:
        """Add what another listing has counted."""
        for kind, count in listing.left_out.items():
            self.leave_out(kind, count)
        for sentence in listing.unlisted:
            self.name(sentence)
        self._unlisted_more += listing.unlisted_more
        self.superseded += listing.superseded

    def listing(self, rows: int) -> Listing:
        """What was counted, the most frequent first."""
        left_out = dict(sorted(self._left_out.items(), key=lambda item: (-item[1], item[0])))
        return Listing(rows, left_out, self.superseded, tuple(self._unlisted), self._unlisted_more)


def ending(name: str) -> str:
    """The ending of a file name in lower case and with its dot, printable; `NO_ENDING` if it has none."""
    stem, dot, last = name.rpartition(".")
    if not stem or not last or len(last) > _LONGEST_ENDING or " " in last:
        return NO_ENDING
    return named(dot + last.lower())


def named(uri: str) -> str:
    """A name as messages show it, whole and on one line; bytes that are not UTF-8 are escaped."""
    text = as_text(uri)
    return redacted(text) if is_http(text) else printable(text)


def is_text(name: str) -> bool:
    """Whether a name can be written in a manifest, which is UTF-8."""
    return name.isascii() or not any("\ud800" <= c <= "\udfff" for c in name)


def as_text(name: str) -> str:
    r"""A name whose bytes are not all UTF-8, with these as `\xe9`; any other one as it is."""
    if is_text(name):
        return name
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or is what macOS or a NAS puts beside others for itself."""
    return (name.startswith(".") and name not in (".", "..")) or name in ("__MACOSX", "@eaDir")
