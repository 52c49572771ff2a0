"""Exports by tasks on a cluster: the same rows in the same files as by one process."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import ray

from pipeline.errors import TableError
from pipeline.export import ray_tasks
from pipeline.face.opened_space import Space, open_space
from tests.support.outputs import Output, placed


@pytest.mark.usefixtures("local_cluster")
def test_tasks_write_the_files_that_one_process_writes(opened: Space, tmp_path: Path) -> None:
    options = {"where": "image_id NOT LIKE '%00.jpg'", "importer": "pinecone", "rows_per_file": 1}
    alone = opened.export(str(tmp_path / "alone"), **options)
    address = ray.get_runtime_context().gcs_address
    together = opened.export(str(tmp_path / "together"), **options, address=address)
    assert together == alone
    for file in alone.files:
        assert pq.read_table(tmp_path / "together" / file.path) == pq.read_table(tmp_path / "alone" / file.path)


@pytest.mark.usefixtures("local_cluster")
def test_an_error_of_a_task_is_one_sentence_and_ends_the_export_without_its_summary(
    output: Output, tmp_path: Path
) -> None:
    damaged = placed(output, tmp_path / "damaged")
    space = open_space(str(damaged.path))
    (damaged.path / "predictions" / space.reader.files[0].path).unlink()
    address = ray.get_runtime_context().gcs_address
    with pytest.raises(TableError, match=r"^Cannot read .*damaged/predictions: "):
        space.export(str(tmp_path / "new"), rows_per_file=1, address=address)
    assert not (tmp_path / "new" / "export.json").exists()


def test_tasks_are_for_an_address_and_for_large_exports_of_those_who_have_a_cluster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if not ray.is_initialized():
        assert not ray_tasks.are_used(None, 2**40)
    assert ray_tasks.are_used("auto", 1)
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert not ray_tasks.are_used(None, 2**29)
    assert ray_tasks.are_used(None, 2**30)
