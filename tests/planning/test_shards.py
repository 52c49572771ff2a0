"""Tar shards: every member is found, and what is damaged is never only shorter."""

import io
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.planning import shards
from pipeline.planning.shards import Member, Shard


def tar(*items: tuple[str, bytes] | tarfile.TarInfo, format_: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of files, given by name and bytes, and of headers without bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format_, errors="surrogateescape") as file:
        for item in items:
            if isinstance(item, tarfile.TarInfo):
                file.addfile(item)
            else:
                header = tarfile.TarInfo(item[0])
                header.size = len(item[1])
                file.addfile(header, io.BytesIO(item[1]))
    return out.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, target
    return header


def hard(name: str, target: str) -> tarfile.TarInfo:
    return link(name, target, tarfile.LNKTYPE)


def read(data: bytes) -> Shard:
    return shards.read(io.BytesIO(data))


def bytes_of(data: bytes, members: Sequence[Member]) -> list[tuple[str, bytes]]:
    """The members that can be addressed, by what is at their place."""
    return [(m.name, data[m.offset : m.offset + m.length]) for m in members if m.problem is None]


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["a.jpg", "n" * 90 + "/" + "m" * 60 + ".jpg", "caf\u00e9.jpg"])
def test_a_member_has_its_name_and_its_bytes_in_every_format(format_: int, name: str) -> None:
    data = tar((name, b"bytes"), ("b.jpg", b"x" * 600), ("empty.jpg", b""), format_=format_)
    found = read(data)
    assert bytes_of(data, found.members) == [(name, b"bytes"), ("b.jpg", b"x" * 600), ("empty.jpg", b"")]
    assert found.damage is None


def test_a_name_longer_than_any_field_is_read() -> None:
    name = "/".join(["deep" * 20] * 20) + ".jpg"
    for format_ in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        data = tar((name, b"bytes"), hard("h.jpg", name), format_=format_)
        assert bytes_of(data, read(data).members) == [(name, b"bytes"), ("h.jpg", b"bytes")]


def test_a_name_that_is_not_utf_8_is_kept_with_its_bytes_escaped() -> None:
    for format_ in (tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
        data = tar(("caf\udce9.jpg", b"latin"), ("caf\u00e9.jpg", b"utf-8"), format_=format_)
        assert bytes_of(data, read(data).members) == [("caf\\xe9.jpg", b"latin"), ("caf\u00e9.jpg", b"utf-8")]


def test_names_from_the_root_or_above_it_are_members_like_others() -> None:
    data = tar(("/abs/a.jpg", b"a"), ("../b.jpg", b"b"), ("./c/../d.jpg", b"d"))
    names = [("/abs/a.jpg", b"a"), ("../b.jpg", b"b"), ("./c/../d.jpg", b"d")]
    assert bytes_of(data, read(data).members) == names


def test_links_lead_to_the_bytes_of_their_target() -> None:
    data = tar(
        ("x/a.jpg", b"one"),
        hard("hard.jpg", "x/a.jpg"),
        hard("again.jpg", "./hard.jpg"),
        link("soft.jpg", "x/a.jpg"),
        link("x/beside.jpg", "a.jpg"),
        link("y/up.jpg", "../x/a.jpg"),
        link("early.jpg", "late.jpg"),
        link("chain.jpg", "soft.jpg"),
        link("folder", "x"),
        link("y/through.jpg", "../folder/a.jpg"),
        link("root.jpg", "/x/a.jpg"),
        ("late.jpg", b"two"),
    )
    found = dict(bytes_of(data, read(data).members))
    assert found.pop("early.jpg") == found.pop("late.jpg") == b"two"
    assert "folder" not in found
    assert len(found) == 9
    assert set(found.values()) == {b"one"}


def test_links_out_of_the_shard_and_in_circles_have_a_problem_and_no_bytes() -> None:
    data = tar(
        link("a.jpg", "b.jpg"),
        link("b.jpg", "a.jpg"),
        link("grows", "grows/grows"),
        link("out.jpg", "../../etc/passwd"),
        hard("gone.jpg", "nowhere.jpg"),
    )
    problems = {member.name: member.problem for member in read(data).members}
    circle = "it is in a loop of links"
    assert problems == {
        "a.jpg": circle,
        "b.jpg": circle,
        "grows": circle,
        "out.jpg": "it is a link to ../../etc/passwd, which is not a file in the shard",
        "gone.jpg": "it is a link to nowhere.jpg, which is not a file in the shard",
    }


def test_the_last_member_of_a_name_counts_and_a_hard_link_keeps_what_it_was_made_of() -> None:
    data = tar(
        ("a.jpg", b"old"),
        ("b.jpg", b"b"),
        hard("hard.jpg", "a.jpg"),
        link("soft.jpg", "a.jpg"),
        ("./a.jpg", b"new"),
        hard("b.jpg", "b.jpg"),
    )
    found = read(data)
    assert bytes_of(data, found.members) == [
        ("hard.jpg", b"old"),
        ("soft.jpg", b"new"),
        ("./a.jpg", b"new"),
        ("b.jpg", b"b"),
    ]
    assert found.superseded == ["a.jpg", "b.jpg"]


def test_what_was_archived_twice_is_a_hard_link_to_itself_and_still_leads_to_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "l").mkdir()
    (tmp_path / "l" / "a.jpg").write_bytes(b"a")
    (tmp_path / "l" / "soft.jpg").symlink_to("a.jpg")
    subprocess.run(["tar", "-cf", "s.tar", "l", "l"], cwd=tmp_path, check=True)
    data = (tmp_path / "s.tar").read_bytes()
    found = read(data)
    assert sorted(bytes_of(data, found.members)) == [("l/a.jpg", b"a"), ("l/soft.jpg", b"a")]
    assert sorted(found.superseded) == ["l/a.jpg", "l/soft.jpg"]


WHOLE = tar(("a.jpg", b"a" * 700), ("b.jpg", b"b" * 700))
"""Headers at 0 and 1,536, the end at 3,072."""


@pytest.mark.parametrize(
    ("data", "damage", "members"),
    [
        (b"", "it is empty", 0),
        (b"no tar " * 100, "it does not begin with a tar header", 0),
        (WHOLE[:100], "it ends inside the header at byte 0", 0),
        (WHOLE[:800], "it ends inside its member a.jpg", 0),
        (WHOLE[:1536], "it ends without an end mark, so it may have been cut short", 1),
        (WHOLE[:1700], "it ends inside the header at byte 1,536", 1),
        (WHOLE[:2048], "it ends inside its member b.jpg", 1),
        (WHOLE[:2747], "it ends inside its member b.jpg", 1),
        (WHOLE[:2748], "it ends without an end mark, so it may have been cut short", 2),
        (WHOLE[:3072], "it ends without an end mark, so it may have been cut short", 2),
        (WHOLE[:1540] + b"?" + WHOLE[1541:], "the header at byte 1,536 is damaged", 1),
        (WHOLE + b"garbage", "the bytes after its end mark, from byte 10,240, are not a tar archive", 2),
        (
            WHOLE[:4096] + b"garbage" * 500,
            "the bytes after its end mark, from byte 4,096, are not a tar archive",
            2,
        ),
        (WHOLE + WHOLE[:800], "it ends inside its member a.jpg", 2),
        (WHOLE[:3072] + WHOLE[:1536].replace(b"a.jpg", b"c.jpg"), "the header at byte 3,072 is damaged", 2),
    ],
)
def test_a_damaged_shard_says_where_and_keeps_what_precedes(data: bytes, damage: str, members: int) -> None:
    found = read(data)
    assert found.damage == damage
    assert len(found.members) == members


def test_a_shard_that_is_cut_anywhere_has_all_of_its_members_or_says_so() -> None:
    data = tar(("n" * 120 + ".jpg", b"a" * 700), ("b.jpg", b"b"), hard("c.jpg", "b.jpg"))
    for end in range(0, len(data), 29):
        found = read(data[:end])
        assert found.damage is not None or len(found.members) == 3, end


@pytest.mark.parametrize("end", [3073, 3584, 4000, 4096, 10_240])
def test_a_shard_that_is_cut_in_its_end_mark_has_lost_nothing(end: int) -> None:
    found = read(WHOLE[:end])
    assert (len(found.members), found.damage) == (2, None)


def test_a_shard_without_members_is_whole() -> None:
    assert read(tar()) == Shard([], [])


def test_shards_that_were_appended_to_each_other_are_read_to_the_last_one() -> None:
    second = tar(("c.jpg", b"c"), ("a.jpg", b"newer"))
    data = WHOLE + second + bytes(3 << 20) + tar(("d.jpg", b"d"))
    found = read(data)
    assert bytes_of(data, found.members) == [
        ("b.jpg", b"b" * 700),
        ("c.jpg", b"c"),
        ("a.jpg", b"newer"),
        ("d.jpg", b"d"),
    ]
    assert (found.superseded, found.damage) == (["a.jpg"], None)


@pytest.mark.parametrize("size", [10**6, 2**40, 2**63, 2**86, -512, -(2**70)])
def test_a_size_that_cannot_be_is_damage_and_not_a_row(size: int) -> None:
    header = tarfile.TarInfo("a.jpg")
    header.size = size
    data = header.tobuf(tarfile.GNU_FORMAT) + bytes(2048)
    found = read(data)
    assert found.members == []
    assert found.damage is not None


@pytest.mark.parametrize("size", [2**33, 2**62, -512])
def test_a_header_that_asks_for_too_much_memory_is_damaged(size: int) -> None:
    for kind in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE):
        header = tarfile.TarInfo("a.jpg")
        header.type, header.size = kind, size
        found = read(WHOLE[:3072] + header.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
        assert (found.damage, len(found.members)) == ("the header at byte 3,072 is damaged", 2)


def test_headers_that_only_extend_each_other_are_damaged() -> None:
    header = tarfile.TarInfo("a.jpg")
    header.type = tarfile.GNUTYPE_LONGNAME
    assert read(header.tobuf(tarfile.GNU_FORMAT) * 5000).damage == "it does not begin with a tar header"


@pytest.mark.parametrize("magic", [b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"])
def test_a_compressed_shard_under_another_name_is_told_for_what_it_is(magic: bytes) -> None:
    damage = read(magic.ljust(1000, b"x")).damage
    assert damage is not None
    assert damage.startswith("it is compressed, and ")


@pytest.mark.parametrize("format_", ["gnu", "posix"])
def test_a_sparse_file_is_listed_only_if_it_has_no_hole(tmp_path: Path, format_: str) -> None:
    with (tmp_path / "hole.jpg").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"x" * 5000)
    (tmp_path / "whole.jpg").write_bytes(b"y" * 5000)
    command = ["tar", "--sparse", f"--format={format_}", "-cf", "s.tar", "hole.jpg", "whole.jpg"]
    subprocess.run(command, cwd=tmp_path, check=True)
    data = (tmp_path / "s.tar").read_bytes()
    hole, whole = read(data).members
    assert hole.name == "hole.jpg"
    assert hole.problem == "it is stored in pieces: write the shard again without --sparse"
    assert bytes_of(data, [whole]) == [("whole.jpg", b"y" * 5000)]
    assert read(data).damage is None


def test_what_is_neither_file_nor_link_nor_folder_is_counted() -> None:
    folder, pipe, device = (tarfile.TarInfo(name) for name in ("x", "y.jpg", "z.jpg"))
    folder.type, pipe.type, device.type = tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE
    found = read(tar(folder, pipe, device, ("a.jpg", b"a")))
    assert ([member.name for member in found.members], found.special) == (["a.jpg"], 2)
