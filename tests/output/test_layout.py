"""The paths below an output, which scripts of other people rely on."""

import pytest

from pipeline.output.layout import Layout, epoch_of, fragment_path, partition_of


def test_the_layout_is_the_documented_one() -> None:
    layout = Layout("s3://lake/out/")
    run = layout.run("20260101T000000-abcdef")
    assert (layout.space, layout.index) == ("s3://lake/out/space.json", "s3://lake/out/index")
    assert layout.labels("cats") == "s3://lake/out/labels/cats"
    assert layout.int8_model == "s3://lake/out/model"
    assert layout.log_entry(7) == "s3://lake/out/predictions/_delta_log/00000000000000000007.json"
    assert layout.fragment("dataset=a/outcome=ok/1-x.parquet") == (
        "s3://lake/out/predictions/dataset=a/outcome=ok/1-x.parquet"
    )
    below = [run.config, run.plan, run.pending, run.summary, run.report, run.heartbeat]
    names = ["config.yaml", "plan.json", "pending", "summary.json", "report.html", "heartbeat.json"]
    assert below == [f"s3://lake/out/runs/20260101T000000-abcdef/{name}" for name in names]


@pytest.mark.parametrize("dataset", ["a", "007", "50% off/x=y", "2026-01-01", "Ämter & Co"])
def test_a_fragment_path_tells_its_dataset_outcome_and_epoch(dataset: str) -> None:
    path = fragment_path(dataset, "failed", 12)
    assert path.count("/") == 2
    assert partition_of(path) == (dataset, "failed")
    assert epoch_of(path) == 12


def test_every_fragment_path_is_new() -> None:
    assert len({fragment_path("a", "ok", 3) for _ in range(100)}) == 100


@pytest.mark.parametrize("name", ["part-00000-x.parquet", "3.parquet", "readme.txt"])
def test_files_that_no_run_wrote_have_no_epoch(name: str) -> None:
    assert epoch_of(f"dataset=a/outcome=ok/{name}") is None
