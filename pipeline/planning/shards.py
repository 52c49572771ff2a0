"""The members of a tar shard and where their bytes are. Only headers are read.

It does not know which of the members are images.
"""

import os
import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO, Any, cast

from pipeline.planning.listing_report import as_text, named

SUFFIX = ".tar"
"""Shards whose members are addressed by their range of bytes; compressed ones cannot be."""
COMPRESSED = (
    *(".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst"),
    *(".tar.lz4", ".tar.lz", ".tar.lzma", ".tlz", ".tar.z", ".taz"),
)
UNPACK = "single members cannot be read from it; unpack it, or write it again as a plain .tar"
"""What to do about a compressed shard."""

_HEADER_BYTES = 16 << 20
"""More than headers with long names and attributes have; a damaged one may ask for any number."""
_READ_BYTES = 1 << 20
_LINKS = 40
"""Links that are followed one after the other, as Linux does, before they are taken for a loop."""
_DAMAGED = (tarfile.TarError, ValueError, LookupError, OverflowError, RecursionError)
"""What tarfile raises, depending on what is in the place of a header."""
_COMPRESSED_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")


@dataclass(frozen=True, slots=True)
class Member:
    """A file of a shard, or a link to one: its name, and its bytes in the shard.

    `problem` says why its bytes cannot be addressed; it is None if they can.
    """

    name: str
    offset: int = 0
    length: int = 0
    problem: str | None = None


@dataclass
class Shard:
    """What is in a shard.

    `members` are the last ones of each name, in the order of the shard; `superseded` the names of the others;
    `special` how many are neither file nor link nor folder. `damage` says where and why reading it ended early.
    """

    members: list[Member]
    superseded: list[str]
    special: int = 0
    damage: str | None = None


def read(file: IO[bytes]) -> Shard:
    """Read the headers of a shard, also behind the end of a first archive. All of its names are in memory.

    Raises: whatever reading raises.
    """
    found = _Contents()
    damage = None
    try:
        for header in _headers(file):
            found.add(header)
    except _DamageError as error:
        damage = str(error)
    return Shard(list(found.resolved()), found.superseded, found.special, damage)


class _DamageError(Exception):
    """Says where an archive is damaged, and how."""


@dataclass(frozen=True, slots=True)
class _Link:
    """A link whose target is looked for when all members are known."""

    name: str
    target: str


class _Contents:
    """The last member of each name, as unpacking would leave them."""

    def __init__(self) -> None:
        self._last: dict[str, Member | _Link] = {}
        self.superseded: list[str] = []
        self.special = 0

    def add(self, header: tarfile.TarInfo) -> None:
        name, key = as_text(header.name), _key(header.name)
        if header.isreg():
            self._put(key, _file(name, header))
        elif header.islnk():
            self._put(key, self._hard_link(name, _key(header.linkname)))
        elif header.issym():
            self._put(key, _Link(name, _key(posixpath.join(posixpath.dirname(key), header.linkname))))
        elif not header.isdir():
            self.special += 1

    def _put(self, key: str, member: Member | _Link) -> None:
        before = self._last.pop(key, None)
        if before is not None:
            self.superseded.append(before.name)
        self._last[key] = member

    def _hard_link(self, name: str, target: str) -> Member | _Link:
        """It leads to what has the name now, even if that is superseded later."""
        now = self._last.get(target)
        return _Link(name, target) if now is None else replace(now, name=name)

    def resolved(self) -> Iterator[Member]:
        for member in self._last.values():
            yield member if isinstance(member, Member) else self._followed(member)

    def _followed(self, link: _Link) -> Member:
        key = link.target
        for _ in range(_LINKS):
            found = self._last.get(key)
            if isinstance(found, Member):
                return replace(found, name=link.name)
            further = self._through_links(key)
            if further is None:
                return Member(link.name, problem=f"it is a link to {named(key)}, which is no file in the shard")
            key = further
        return Member(link.name, problem="it is in a loop of links")

    def _through_links(self, key: str) -> str | None:
        """Where a name leads if it, or a folder on its way, is a link."""
        names = key.split("/")
        for count in range(1, len(names) + 1):
            found = self._last.get("/".join(names[:count]))
            if isinstance(found, _Link):
                return _key("/".join([found.target, *names[count:]]))
        return None


def _file(name: str, header: tarfile.TarInfo) -> Member:
    if not _is_whole(header):
        return Member(name, problem="it is stored in pieces: write the shard again without --sparse")
    return Member(name, header.offset_data, header.size)


def _is_whole(header: tarfile.TarInfo) -> bool:
    """Whether the bytes of a file follow each other; those of a sparse file may not."""
    if header.sparse is None:
        return True
    at = 0
    for offset, length in cast(Any, header.sparse):
        if length and offset != at:
            return False
        at += length
    return at == header.size


def _key(name: str) -> str:
    """A name as unpacking would take it: without ./ and not from the root."""
    return posixpath.normpath(name.lstrip("/"))


def _headers(file: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    """The headers of all members, as `tar --ignore-zeros` reads them. Raises: _DamageError."""
    size = file.seek(0, os.SEEK_END)
    if not size:
        raise _DamageError("it is empty")
    archive = _Archive(fileobj=cast(Any, _Headers(file)))
    at, ended = 0, False
    while at < size:
        file.seek(at)
        block = file.read(tarfile.BLOCKSIZE)
        if not block.strip(b"\0"):
            at, ended = _past_zeros(file, at + len(block)), True
            continue
        header = _header(archive, file, at)
        if header is None:
            raise _DamageError(_problem(block, at, ended=ended))
        if _end(header, archive) > size:
            raise _DamageError(f"it ends inside its member {named(header.name)}")
        yield header
        at, ended = archive.offset, False
    if not ended:
        raise _DamageError("it ends without an end mark, so it may have been cut short")


def _header(archive: "_Archive", file: IO[bytes], at: int) -> tarfile.TarInfo | None:
    """The header of a member, with those that only extend it; None if it is damaged."""
    file.seek(at)
    try:
        header = tarfile.TarInfo.fromtarfile(archive)
    except _DAMAGED:
        return None
    return header if header.size >= 0 and archive.offset > at else None


def _problem(block: bytes, at: int, *, ended: bool) -> str:
    if at == 0 and block.startswith(_COMPRESSED_MAGIC):
        return f"it is compressed, and {UNPACK}"
    if ended:
        return f"what follows its end, at byte {at:,}, is no tar"
    if len(block) < tarfile.BLOCKSIZE:
        return f"it ends inside the header at byte {at:,}"
    return f"the header at byte {at:,} is damaged" if at else "it does not begin like a tar"


def _end(header: tarfile.TarInfo, archive: "_Archive") -> int:
    """How many bytes the archive must have for this member; it may lack the padding behind the last one."""
    if header.isreg() and _is_whole(header):
        return header.offset_data + header.size
    return archive.offset


def _past_zeros(file: IO[bytes], at: int) -> int:
    """The first block from here on that is not all zero, or the end."""
    file.seek(at)
    while data := file.read(_READ_BYTES):
        if rest := data.lstrip(b"\0"):
            at += len(data) - len(rest)
            return at - at % tarfile.BLOCKSIZE
        at += len(data)
    return at


class _Archive(tarfile.TarFile):
    """Parses headers where it is told to: tarfile's own iteration ends without a word at a damaged one."""

    def next(self) -> None:
        """Read nothing when it is opened."""


class _Headers:
    """A file of which only headers are read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _HEADER_BYTES:
            raise tarfile.ReadError("a header is too large")
        return self._file.read(size)
