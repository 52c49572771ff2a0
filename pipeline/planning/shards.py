"""The members of a tar shard, and the byte range of each. Only headers are read.

It does not know which members are images.
"""

import os
import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO, Any, cast

from pipeline.planning.listing_report import as_text, display_name

SUFFIX = ".tar"
"""The suffix of shards whose members have byte ranges; members of compressed shards have none."""
COMPRESSED = (
    *(".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst"),
    *(".tar.lz4", ".tar.lz", ".tar.lzma", ".tlz", ".tar.z", ".taz"),
)
UNPACK = "LakeLens cannot read single members from it; unpack it, or write it again as a plain .tar"
"""What to do about a compressed shard."""

_HEADER_BYTES = 16 << 20
"""Longest header that is read; long names and attributes need less, and a damaged header may ask for any size."""
_READ_BYTES = 1 << 20
_LINKS = 40
"""Links that are followed in a row before they count as a loop: the limit of Linux."""
_DAMAGED = (tarfile.TarError, ValueError, LookupError, OverflowError, RecursionError)
"""What tarfile raises for bytes that are not a header."""
_COMPRESSED_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")


@dataclass(frozen=True, slots=True)
class Member:
    """A file of a shard, or a link to one: its name, and the offset and length of its bytes in the shard.

    `problem` says why the bytes have no range in the shard; it is None if they have one.
    """

    name: str
    offset: int = 0
    length: int = 0
    problem: str | None = None


@dataclass
class Shard:
    """The contents of a shard.

    `members` has the last member of each name, in the order of the shard; `superseded` has the names of earlier
    ones. `special` counts members that are neither file nor link nor folder. `damage` says where and why reading
    ended before the end of the shard.
    """

    members: list[Member]
    superseded: list[str]
    special: int = 0
    damage: str | None = None


def read(file: IO[bytes]) -> Shard:
    """Read the headers of a shard, and of archives that were appended to it. All names are in memory.

    Raises: what reading the file raises.
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
    """An archive is damaged. The message says where, and how."""


@dataclass(frozen=True, slots=True)
class _Link:
    """A link whose target is resolved when all members are known."""

    name: str
    target: str


class _Contents:
    """The last member of each name, as unpacking would leave it."""

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
        """Return the member that has the target's name at this point, even if a later one supersedes it."""
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
                return Member(
                    link.name, problem=f"it is a link to {display_name(key)}, which is not a file in the shard"
                )
            key = further
        return Member(link.name, problem="it is in a loop of links")

    def _through_links(self, key: str) -> str | None:
        """Return where a name leads if it, or a folder on the way to it, is a link; otherwise None."""
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
    """Return whether the bytes of a file are one range; a sparse file may have several."""
    if header.sparse is None:
        return True
    at = 0
    for offset, length in cast(Any, header.sparse):
        if length and offset != at:
            return False
        at += length
    return at == header.size


def _key(name: str) -> str:
    """Return a name as unpacking would use it: without ./ and relative to the root."""
    return posixpath.normpath(name.lstrip("/"))


def _headers(file: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    """Yield the headers of all members, as `tar --ignore-zeros` reads them. Raises: _DamageError."""
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
        if _required_size(header, archive) > size:
            raise _DamageError(f"it ends inside its member {display_name(header.name)}")
        yield header
        at, ended = archive.offset, False
    if not ended:
        raise _DamageError("it ends without an end mark, so it may have been cut short")


def _header(archive: "_Archive", file: IO[bytes], at: int) -> tarfile.TarInfo | None:
    """Return the header of a member, merged with the headers that extend it; None if it is damaged."""
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
        return f"the bytes after its end mark, from byte {at:,}, are not a tar archive"
    if len(block) < tarfile.BLOCKSIZE:
        return f"it ends inside the header at byte {at:,}"
    return f"the header at byte {at:,} is damaged" if at else "it does not begin with a tar header"


def _required_size(header: tarfile.TarInfo, archive: "_Archive") -> int:
    """Return the size that an archive with this member has at least. The last member may lack its padding."""
    if header.isreg() and _is_whole(header):
        return header.offset_data + header.size
    return archive.offset


def _past_zeros(file: IO[bytes], at: int) -> int:
    """Return the offset of the first block from `at` on that is not all zeros, or the end of the file."""
    file.seek(at)
    while data := file.read(_READ_BYTES):
        if rest := data.lstrip(b"\0"):
            at += len(data) - len(rest)
            return at - at % tarfile.BLOCKSIZE
        at += len(data)
    return at


class _Archive(tarfile.TarFile):
    """Parses one header at a time: tarfile's own iteration ends silently at a damaged one."""

    def next(self) -> None:
        """Read nothing when the archive is opened."""


class _Headers:
    """A file that refuses to read more than a header."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _HEADER_BYTES:
            raise tarfile.ReadError("a header is too large")
        return self._file.read(size)
