"""Each room's docstring lists its modules, and says what the room does not know."""

from pathlib import Path

import pytest

import pipeline

PACKAGE = Path(pipeline.__file__).parent
ROOMS = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))


def _members(folder: Path) -> list[str]:
    modules = [path.stem for path in folder.glob("*.py") if path.stem != "__init__"]
    return sorted(modules + [path.parent.name for path in folder.glob("*/__init__.py")])


@pytest.mark.parametrize("folder", [PACKAGE, *ROOMS], ids=lambda folder: folder.name)
def test_a_room_names_each_of_its_modules_once(folder: Path) -> None:
    listed = (folder / "__init__.py").read_text(encoding="utf-8").split('"""')[1].partition("\nThreads")[0]
    assert {name: listed.count(f"`{name}`") for name in _members(folder)} == dict.fromkeys(_members(folder), 1)


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_room_says_what_it_does_not_know(room: Path) -> None:
    assert "This room does not know" in (room / "__init__.py").read_text(encoding="utf-8").replace("\n", " ")
