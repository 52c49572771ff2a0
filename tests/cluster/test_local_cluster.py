"""A cluster of our own starts whatever the user's environment is like."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipeline.cluster import local_cluster
from pipeline.cluster.ray_internals import reload_authentication
from pipeline.errors import ClusterError
from tests.support import lakes

LONG = "a" * 70
VARIABLES = (
    "RAY_AUTH_MODE",
    "RAY_AUTH_TOKEN",
    "RAY_AUTH_TOKEN_PATH",
    "RAY_TMPDIR",
    "TMPDIR",
    local_cluster.UV_VARIABLE,
)


@pytest.fixture(autouse=True)
def _plain(ray_looks_anew: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the variables is set, and what a test sets is taken back."""
    for name in (*VARIABLES, "RAY_num_workers_soft_limit", "HF_HOME", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr("ray._private.ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV", True)
    reload_authentication()


def test_without_a_writable_home_the_token_is_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("HOME", "/proc/nowhere")
    local_cluster.prepare()
    token = os.environ["RAY_AUTH_TOKEN"]
    assert len(token) == 64
    local_cluster.prepare()
    assert os.environ["RAY_AUTH_TOKEN"] == token


@pytest.mark.parametrize("case", ["a home", "no tokens", "a token"])
def test_a_token_is_made_only_where_ray_can_neither_find_nor_write_one(
    case: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path) if case == "a home" else "/proc/nowhere")
    if case == "no tokens":
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    if case == "a token":
        (tmp_path / "token").write_text("theirs")
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    local_cluster.prepare()
    assert "RAY_AUTH_TOKEN" not in os.environ


def test_the_error_about_a_missing_token_file_names_the_variable_and_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/no/.such/token")
    with pytest.raises(ClusterError, match=r"RAY_AUTH_TOKEN_PATH.*/no/\.such/token\.$"):
        local_cluster.prepare()


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_temporary_folder_too_long_for_sockets_gets_only_spilled_objects(
    variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    long = tmp_path / LONG
    monkeypatch.setenv(variable, str(long))
    options = local_cluster.prepare()
    assert len(options["_temp_dir"]) + len(local_cluster.LONGEST_SOCKET) <= 107
    assert Path(options["_temp_dir"]).stat().st_uid == os.getuid()
    assert options["object_spilling_directory"] == str(long / "ray")


@pytest.mark.parametrize("folder", ["/proc", "/proc/nowhere"])
def test_a_temporary_folder_that_cannot_be_written_is_not_used(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", folder)
    options = local_cluster.prepare()
    assert not options["_temp_dir"].startswith("/proc")
    assert "object_spilling_directory" not in options


def test_a_short_temporary_folder_is_left_to_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="s") as short:
        monkeypatch.setenv("TMPDIR", f"{short}/not/there")
        assert {"_temp_dir", "object_spilling_directory"}.isdisjoint(local_cluster.prepare())


def test_the_error_about_sockets_names_the_folder_and_the_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / LONG))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / LONG))
    monkeypatch.setattr(local_cluster, "FALLBACK_FOLDERS", ())
    with pytest.raises(ClusterError, match=r"^Ray cannot start: .*a/ray .* too long .* RAY_TMPDIR"):
        local_cluster.prepare()


def under_uv(folder: Path, program: list[str], **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a program as a child of uv, as far as Ray sees it: of a process whose command line is `uv run`."""
    (folder / "run").write_text(f"import subprocess, sys\nsys.exit(subprocess.call({program!r}))")
    return subprocess.run(
        ["uv", "run", "lakelens"],
        executable=sys.executable,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


ASK_RAY = """
from ray._private.worker import _maybe_modify_runtime_env
from pipeline.cluster import local_cluster
if {prepared}:
    local_cluster.prepare()
print(_maybe_modify_runtime_env({{}}, False))
"""


@pytest.mark.parametrize(("prepared", "variable"), [(False, None), (True, None), (True, "1")])
def test_under_uv_nothing_is_uploaded_or_installed_again_unless_the_user_wants_it(
    prepared: bool, variable: str | None, tmp_path: Path
) -> None:
    environment = {} if variable is None else {local_cluster.UV_VARIABLE: variable}
    program = [sys.executable, "-c", ASK_RAY.format(prepared=prepared)]
    done = under_uv(tmp_path, program, **environment)
    assert done.returncode == 0, done.stderr
    by_ray = variable == "1" or not prepared
    assert ("working_dir" in done.stdout) == by_ray


@pytest.mark.slow
@pytest.mark.ray
def test_a_run_under_uv_without_a_home_and_with_a_long_temporary_folder_is_like_any_other(tmp_path: Path) -> None:
    images = lakes.folder_of_images(tmp_path / "images", 3)
    settings = lakes.settings(tmp_path / "images", lakes.tiny_vit(tmp_path / "model"), tmp_path / "out")
    (tmp_path / "config.yaml").write_text(settings.to_yaml())
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / LONG).mkdir()
    nobody = {"HOME": "/proc/nowhere", "LAKELENS_CACHE": "", "XDG_CACHE_HOME": "", "TMPDIR": str(tmp_path / LONG)}
    program = [sys.executable, "-m", "jobs", "run", str(tmp_path / "config.yaml")]
    done = under_uv(tmp_path, program, **nobody)
    assert done.returncode == 0, done.stderr
    assert "arning" not in done.stderr
    assert len(lakes.predictions(tmp_path / "out")) == len(images)
