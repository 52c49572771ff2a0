"""Orphaned files are deleted, and nothing else: on a real Delta log."""

from pathlib import Path

import pytest

from pipeline.errors import TableError
from pipeline.output import orphans
from pipeline.output.layout import PREDICTIONS
from pipeline.output.table import Predictions
from tests.support.making import STORAGE, write_fragment
from tests.support.tables import claimed, ids


def test_orphans_are_deleted_and_everything_else_is_kept(out: str) -> None:
    found, epoch = claimed(out)
    named = write_fragment(out, "a", ["1"], epoch)
    orphan = write_fragment(out, "a", ["2"], epoch)
    of_a_later_run = write_fragment(out, "a", ["3"], epoch + 1)
    folder = Path(out, PREDICTIONS)
    foreign = [folder / name for name in ("part-0001.parquet", "1-notours.parquet", "dataset=a/README", "1-x.txt")]
    for path in foreign:
        path.write_bytes(b"x")
    found.commit([named], "one", epoch)
    assert orphans.delete(found, range(epoch + 1)) == 1
    assert not (folder / orphan.path).exists()
    assert all(path.exists() for path in [folder / named.path, folder / of_a_later_run.path, *foreign])
    assert orphans.delete(found, range(epoch + 1)) == 0
    assert ids(out) == ["1"]


def test_orphans_of_the_own_epoch_stay_while_only_older_ones_are_asked_for(out: str) -> None:
    found, epoch = claimed(out)
    own, older = write_fragment(out, "a", ["1"], epoch), write_fragment(out, "a", ["2"], 0)
    assert orphans.delete(found, range(epoch)) == 1
    assert Path(out, PREDICTIONS, own.path).exists()
    assert not Path(out, PREDICTIONS, older.path).exists()


@pytest.mark.parametrize("folder", ["my lake", "100%", "grün", "a[b]c", "a+b&c#d"])
def test_committed_files_below_an_unusual_folder_are_not_taken_for_orphans(tmp_path: Path, folder: str) -> None:
    out = str(tmp_path / folder)
    found, epoch = claimed(out)
    fragment = write_fragment(out, "a b%", ["1"], epoch)
    found.commit([fragment], "one", epoch)
    assert found.files() == [f"{out}/{PREDICTIONS}/{fragment.path}"]
    assert orphans.delete(found, range(epoch + 1)) == 0
    assert Path(out, PREDICTIONS, fragment.path).exists()


def test_a_file_of_the_log_that_is_missing_keeps_everything_else(out: str) -> None:
    found, epoch = claimed(out)
    named, orphan = write_fragment(out, "a", ["1"], epoch), write_fragment(out, "a", ["2"], epoch)
    found.commit([named], "one", epoch)
    Path(out, PREDICTIONS, named.path).unlink()
    with pytest.raises(TableError, match=r"names dataset=a/.*Nothing was deleted"):
        orphans.delete(found, range(epoch + 1))
    assert Path(out, PREDICTIONS, orphan.path).exists()


def test_a_stale_handle_deletes_no_file_that_the_log_names(out: str) -> None:
    found, epoch = claimed(out)
    stale = Predictions.open(out, STORAGE)
    fragment = write_fragment(out, "a", ["1"], epoch)
    found.commit([fragment], "one", epoch)
    assert stale is not None
    assert orphans.delete(stale, range(epoch + 1)) == 0
    assert ids(out) == ["1"]


def test_the_scratch_file_of_a_killed_writer_is_deleted(out: str) -> None:
    found, epoch = claimed(out)
    fragment = write_fragment(out, "a", ["1"], epoch)
    found.commit([fragment], "one", epoch)
    path = Path(out, PREDICTIONS, fragment.path)
    scratch = path.with_name(f".{path.name}.{'0' * 32}.tmp")
    scratch.write_bytes(b"half")
    assert orphans.delete(found, range(epoch + 1)) == 1
    assert not scratch.exists()
