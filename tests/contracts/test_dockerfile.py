"""What can be told of the image without building it: it is pinned, small where it can be, and nobody's root.

Whether it builds cannot: that needs a container engine and base images. Versions are checked against what is
installed here, which the same constraints decided.
"""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from pipeline import __version__

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = {
    canonicalize_name(name): version
    for name, _, version in (
        line.partition("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )
}
IMAGES = ("cpu", "gpu", "tpu")
COMPILERS = ("gcc", "g++", "clang", "make", "cmake", "build-essential", "python3-dev", "cargo", "rustc")


def stages() -> dict[str, list[str]]:
    """Instructions of every stage, those of the stages that it stands on first."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    found: dict[str, list[str]] = {"": []}
    name = ""
    for line in filter(None, map(str.strip, text.splitlines())):
        if start := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            name = start[2]
            found[name] = [*found.get(start[1], []), line]
        else:
            found[name].append(line)
    return found


def runtime_dependencies() -> dict[str, str | None]:
    """What the project, its extras and ray[default] require on this platform; None where it is not installed."""
    extras = set(PROJECT["optional-dependencies"]) - {"dev", "bench"}
    walked: dict[str, set[str]] = {}
    found: dict[str, str | None] = {}

    def walk(requirements: list[Requirement], asked: set[str]) -> None:
        for one in requirements:
            if one.marker and not any(one.marker.evaluate({"extra": extra}) for extra in asked):
                continue
            name, wanted = canonicalize_name(one.name), {"", *one.extras}
            if wanted <= walked.get(name, set()):
                continue
            walked[name] = walked.get(name, set()) | wanted
            try:
                there = distribution(one.name)
            except PackageNotFoundError:
                found[name] = None
                continue
            found[name] = there.version.partition("+")[0]
            walk([Requirement(text) for text in there.requires or []], wanted)

    own = [*PROJECT["dependencies"], "ray[default]"]
    own += [text for extra in extras for text in PROJECT["optional-dependencies"][extra]]
    walk([Requirement(text) for text in own], {""})
    return found


def test_every_base_is_pinned_by_a_tag_of_a_python_that_the_project_takes() -> None:
    (tag,) = re.findall(r"^ARG PYTHON=(\S+)$", DOCKERFILE, flags=re.MULTILINE)
    version = re.fullmatch(r"(\d+\.\d+\.\d+)-slim-\w+", tag)
    assert version
    assert version[1] in SpecifierSet(PROJECT["requires-python"])
    outside = {line.split()[1] for stage in stages().values() for line in stage if line.startswith("FROM")}
    assert outside - set(stages()) == {"python:${PYTHON}"}


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_runs_as_nobody_special_and_was_tried_as_such(image: str) -> None:
    stage = stages()[image]
    users = [number for number, line in enumerate(stage) if line.startswith("USER")]
    assert users
    assert re.fullmatch(r"USER [1-9]\d*:[1-9]\d*", stage[users[-1]])
    assert any(line.startswith("RUN lakelens --version") for line in stage[users[-1] :])
    assert stage[-2:] == ['ENTRYPOINT ["lakelens"]', 'CMD ["--help"]']


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_has_no_compiler_and_installs_nothing_that_is_not_constrained(image: str) -> None:
    commands = [
        command for line in stages()[image] if line.startswith("RUN") for command in re.split(r"&&|;", line)
    ]
    installed = " ".join(command for command in commands if "apt-get install" in command).split()
    assert "wget" in installed
    assert not set(installed) & set(COMPILERS)
    pip = [command for command in commands if "pip install" in command]
    assert pip
    assert all("-c /constraints.txt" in command and "--no-cache-dir" in command for command in pip)
    assert any("'ray[default]'" in command for command in pip)


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_has_extras_that_there_are(image: str) -> None:
    (extras,) = [line.partition("=")[2].split(",") for line in stages()[image] if line.startswith("ARG EXTRAS=")]
    assert set(extras) <= PROJECT["optional-dependencies"].keys() - {"dev", "bench"}
    assert ("tpu" in extras) == (image == "tpu")


def test_only_images_without_a_gpu_take_torch_from_an_index_that_is_given() -> None:
    assert {image for image in IMAGES if any("TORCH_INDEX" in line for line in stages()[image])} == {"cpu", "tpu"}
    assert "ARG TORCH_INDEX=" in stages()["light"]
    assert not re.search(r"https?://", DOCKERFILE)


def test_constraints_hold_everything_that_an_image_installs() -> None:
    found = runtime_dependencies()
    assert len(found) > 80
    assert not {name for name in found if name not in PINS}
    assert not {
        name: (version, PINS[name]) for name, version in found.items() if version not in (None, PINS[name])
    }


def test_constraints_fit_what_the_project_asks_for() -> None:
    texts = [*PROJECT["dependencies"], *chain(*PROJECT["optional-dependencies"].values())]
    for one in map(Requirement, texts):
        version = PINS.get(canonicalize_name(one.name))
        assert version is None or one.specifier.contains(version, prereleases=True), one


def test_what_is_copied_is_in_the_context() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    sent = {line[1:] for line in lines if line.startswith("!")}
    assert lines[0] == "*"
    copied = {word for line in stages()["wheel"] if line.startswith("COPY") for word in line.split()[1:-1]}
    assert sent == copied | {"constraints.txt"}
    assert all((ROOT / name).exists() for name in sent)


def test_the_tags_are_of_this_version() -> None:
    assert set(re.findall(r"lakelens:(\S+)-\w+", DOCKERFILE)) == {__version__}
