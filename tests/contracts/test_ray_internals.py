"""Ray's private and developer APIs do what LakeLens needs. A failing test says what another Ray breaks."""

import ast
import importlib
import inspect
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
from ray.data import ActorPoolStrategy, Dataset

from tests.support import hanging

ROOT = Path(__file__).parents[2]
INTERNALS = ROOT / "pipeline/cluster/ray_internals.py"
PUBLIC = {"ray", "ray.data", "ray.exceptions", "ray.job_submission", "ray.runtime_env", "ray.util.metrics"}
"""Modules of Ray that the rest of the library may import."""
DEVELOPER = {"ray.nodes", "DataContext", "iter_internal_ref_bundles", "map_batches_internal"}
"""Names in these modules that Ray marks as developer APIs."""
SOON_S = 20.0

BREAKS = {
    "ray._common.usage.usage_lib.get_cluster_metadata": "a cluster of another version ends the process",
    "ray._private.utils.check_version_info": "a cluster of another version is found by its strange errors",
    "ray._raylet.GcsClient": "a cluster cannot be asked for its versions before Ray joins it",
    "ray._private.authentication.authentication_utils.is_token_auth_enabled": "a missing token ends the process",
    "ray._raylet.AuthenticationTokenLoader": "a missing token ends the process",
    "ray._raylet.Config.initialize": "a token that a process gives itself is not used",
    "ray._common.utils.get_default_ray_temp_dir": "Ray does not start where its folder has a long path",
    "ray._private.ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV": "a run under uv uploads the working folder",
    "ray._private.state.state._connect_and_get_accessor": "actors outlive their run",
    "ray.core.generated.gcs_pb2.ActorTableData.DEAD": "actors outlive their run",
    "ray._private.worker.global_worker": "actors that hang outlive their run",
    "ray.autoscaler.v2.sdk.get_cluster_status": "a run whose actors find no place waits for ever",
    "ray.data._internal.execution.execution_callback.ExecutionCallback": "a failed run waits for calls that hang",
    "ray._private.worker.print_to_stdstream": "messages about tasks that Ray starts again are printed among ours",
    "ray.data.DataContext": "progress bars of Ray Data drown the progress line",
}
"""What `ray_internals` imports, and what breaks without it."""


@pytest.fixture
def ray_internals() -> Any:
    """Not imported above: another Ray may lack a name, and the tests say what for."""
    return importlib.import_module("pipeline.cluster.ray_internals")


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Every module of Ray that a file imports, with the imported name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((name.name, "") for name in node.names if name.name.split(".")[0] == "ray")
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ray":
            yield from ((node.module or "", name.name) for name in node.names)


def used(path: Path) -> set[str]:
    """Names of attributes and keywords in a file, except private ones of `self` and `super()`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            found |= {"": {node.attr}, "self": set(), "ray": {f"ray.{node.attr}"}}.get(owner, {node.attr})
        if isinstance(node, ast.keyword):
            found.add(node.arg or "")
    return found


@pytest.mark.parametrize("room", ["pipeline", "jobs"])
def test_only_ray_internals_uses_private_and_developer_apis(room: str) -> None:
    for path in set((ROOT / room).rglob("*.py")) - {INTERNALS}:
        private = [pair for pair in imports(path) if pair[0] not in PUBLIC or pair[1].startswith("_")]
        assert not private, f"{path} imports {private}: use pipeline.cluster.ray_internals"
        if any(imports(path)):
            names = {name for name in used(path) if name.startswith("_") and not name.startswith("__")}
            names |= used(path) & DEVELOPER
            assert not names, f"{path} uses {names} of Ray: use pipeline.cluster.ray_internals"


def test_the_table_names_every_private_import() -> None:
    taken = {f"{module}.{name}" for module, name in imports(INTERNALS)}
    missing = {name for name in taken if not any(known.startswith(name) for known in BREAKS) and "._" in name}
    assert not missing, f"add what breaks without {missing}"


@pytest.mark.parametrize("name", BREAKS)
def test_ray_still_has_each_imported_name(name: str) -> None:
    module, attributes = name, list[str]()
    while True:
        try:
            found: Any = importlib.import_module(module)
            break
        except ModuleNotFoundError:
            module, _, attribute = module.rpartition(".")
            attributes.insert(0, attribute)
    for attribute in attributes:
        assert hasattr(found, attribute), f"Ray {ray.__version__} has no {name}: {BREAKS[name]}"
        found = getattr(found, attribute)


def test_a_token_in_the_environment_is_seen_after_a_reload(
    ray_internals: Any, ray_looks_anew: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for mode, token in (("disabled", False), ("token", True)):
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
        monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
        ray_internals.reload_authentication()
        assert ray_internals.sends_token() is token, (
            "Ray reads RAY_AUTH_MODE otherwise: a missing token ends a run"
        )
        assert ray_internals.has_token(), "Ray does not find RAY_AUTH_TOKEN: no cluster of our own starts"


def test_the_variable_for_temporary_files_still_moves_the_folder(
    ray_internals: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/somewhere")
    found = ray_internals.default_temporary_folder()
    assert found.is_relative_to("/somewhere"), (
        f"Ray ignores RAY_TMPDIR and uses {found}: socket paths get too long"
    )


def test_ray_starts_in_the_folder_that_an_option_names(ray_internals: Any) -> None:
    (option,) = ray_internals.temporary_folder_option(Path("/somewhere"))
    assert f'"{option}"' in inspect.getsource(ray.init), "Ray does not start where its folder has a long path"


def test_the_console_log_of_ray_data_and_of_jobs_goes_silent(
    ray_internals: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = logging.StreamHandler()
    monkeypatch.setattr(logging.getLogger("ray.data"), "handlers", [handler])
    ray_internals.silence_data()
    context = ray.data.DataContext.get_current()
    assert not context.enable_progress_bars, "Ray Data's bars drown the progress line"
    assert not context.print_on_execution_start, "Ray Data's plan is printed into the progress line"
    assert handler.level > logging.CRITICAL
    ray_internals.silence_jobs()
    assert not logging.getLogger("ray.dashboard").isEnabledFor(logging.INFO)


def numbers(count: int) -> Dataset:
    return ray.data.range(count, override_num_blocks=count)


class Rows:
    """Gives its blocks back; `label` is there for the constructor's arguments."""

    def __init__(self, label: str) -> None:
        self.label = label

    def __call__(self, rows: pa.Table) -> pa.Table:
        return rows.append_column("label", pa.array([self.label] * rows.num_rows))


on_a_cluster = pytest.mark.usefixtures("local_cluster")


@on_a_cluster
def test_nodes_have_the_known_resource_names_and_versions_can_be_compared(ray_internals: Any) -> None:
    (node,) = ray_internals.live_nodes()
    assert (node["CPU"], node["GPU"]) == (2, 1), f"Ray names resources otherwise, {node}: pools are too small"
    ray_internals.require_same_versions(ray.get_runtime_context().gcs_address)


@on_a_cluster
def test_the_status_of_a_cluster_has_unplaced_actors_and_free_resources(ray_internals: Any) -> None:
    waiting = ray.remote(num_cpus=0, resources={"TPU": 4})(hanging.Sleeper).remote()
    deadline, address = time.monotonic() + SOON_S, ray.get_runtime_context().gcs_address
    while not (status := ray_internals.cluster_status(address)).unplaced and time.monotonic() < deadline:
        time.sleep(0.1)
    found = [(demand.count, dict(demand.shape)) for demand in status.unplaced]
    assert found == [(1, {"TPU": 4.0})], f"a run whose actors find no place waits for ever: {found}"
    assert [node.amounts["CPU"] for node in status.free] == [2], "a message about waiting actors is wrong"
    del waiting


@on_a_cluster
def test_actors_are_found_by_their_label_and_killed(ray_internals: Any) -> None:
    option = ray_internals.label_option({"contract": "mine"})
    sleeper = ray.remote(num_cpus=0)(hanging.Sleeper).options(**option).remote()
    asleep = sleeper.sleep.remote()
    deadline = time.monotonic() + SOON_S
    while not (found := ray_internals.labelled_actors("contract", "mine")) and time.monotonic() < deadline:
        time.sleep(0.1)  # Ray registers an actor in the background
    assert len(found) == 1, "Ray's table of actors has no labels: actors outlive their run"
    assert ray_internals.labelled_actors("contract", "another's") == []
    ray_internals.kill_actor(found[0])
    ray_internals.wait_for([asleep], SOON_S)
    assert ray_internals.labelled_actors("contract", "mine") == [], "actors that hang outlive their run"


@on_a_cluster
def test_actors_with_a_gpu_get_whole_blocks_and_stay(ray_internals: Any) -> None:
    options = {"compute": ActorPoolStrategy(min_size=1, max_size=1), "num_gpus": 1, "num_cpus": 0}
    rows = ray_internals.map_whole_blocks(numbers(3), Rows, {"label": "x"}, **options)
    threshold = rows.context.autoscaling_config.actor_pool_util_downscaling_threshold
    assert threshold > 0, "Ray Data shrinks pools by another setting: actors end and load their model again"
    ray_internals.keep_actors(rows)
    blocks = list(ray_internals.output_blocks(rows))
    assert [count for _, count in blocks] == [1, 1, 1], "blocks are cut or joined on their way"
    assert {value for ref, _ in blocks for value in ray.get(ref)["label"].to_pylist()} == {"x"}


@on_a_cluster
def test_tasks_that_ask_for_no_cpu_run_while_all_cpus_are_taken(ray_internals: Any) -> None:
    taking = ray.remote(num_cpus=2)(hanging.Sleeper).remote()
    ray.get(taking.__ray_ready__.remote())
    cut = ray.data.from_items([{"id": number} for number in range(4)], override_num_blocks=1)
    cut = cut.repartition(target_num_rows_per_block=2)
    ray_internals.ask_for_no_cpu(cut)
    counts, taker = (
        list[int](),
        threading.Thread(
            target=lambda: counts.extend(count for _, count in ray_internals.output_blocks(cut)), daemon=True
        ),
    )
    taker.start()
    taker.join(SOON_S)
    ray.kill(taking)
    assert counts == [2, 2], "a plan cannot be read while decoders hold all CPUs: the run waits for ever"
    ray_internals.join_executions([cut], SOON_S)


@on_a_cluster
def test_stages_that_hang_can_be_stopped(ray_internals: Any) -> None:
    waiting = numbers(2).map_batches(hanging.second_never)
    blocks = ray_internals.output_blocks(waiting)
    next(blocks)
    names = [thread.name for thread in threading.enumerate()]
    assert f"StreamingExecutor-{waiting.get_dataset_id()}" in names, "a stop waits for workers that hang"
    ray_internals.stop_executions([waiting])
    assert list(blocks) == []
    ray_internals.join_executions([waiting], SOON_S)
    assert not {thread.name for thread in threading.enumerate()} - set(names)


@on_a_cluster
def test_after_an_error_calls_that_hang_are_interrupted(ray_internals: Any) -> None:
    failing = numbers(2).map_batches(fails_or_sleeps)
    ray_internals.interrupt_calls_after_errors(failing)
    started_s = time.monotonic()
    with pytest.raises(ray.exceptions.RayError, match="the first one"):
        list(ray_internals.output_blocks(failing))
    took_s = time.monotonic() - started_s
    assert took_s < SOON_S, f"a failed run waits for calls that hang: {took_s:.0f} s"
    ray_internals.join_executions([failing], SOON_S)


def fails_or_sleeps(batch: dict[str, Any]) -> dict[str, Any]:
    """Fails on the row 0 once the row 1 sleeps."""
    if batch["id"][0]:
        time.sleep(hanging.HOUR_S)
    time.sleep(1)
    raise ValueError("the first one")


def test_messages_about_tasks_that_ray_starts_again_are_dropped_and_no_others(
    ray_internals: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = importlib.import_module("ray._private.worker")
    assert "print_to_stdstream(" in inspect.getsource(worker.listen_error_messages)  # what prints them
    before = worker.print_to_stdstream
    again = "Task f failed. There are infinite retries remaining, so the task will be retried. Error: killed"
    with ray_internals.silenced_retries():
        for line in (again, "the disk is full"):
            worker.print_to_stdstream({"lines": [line], "pid": "raylet", "is_err": False}, ignore_prefix=False)
    said = capsys.readouterr().out
    assert "the disk is full" in said
    assert "retries" not in said
    assert worker.print_to_stdstream is before
