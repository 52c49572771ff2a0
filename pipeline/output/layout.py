"""Every path below an output. This module does not know what the files hold.

<output>/space.json
<output>/predictions/dataset=<name>/outcome=<ok|failed>/<epoch>-<uuid>.parquet   + _delta_log/
<output>/labels/<head>/dataset=<name>/*.parquet                                  + _delta_log/
<output>/index/
<output>/duplicates.parquet
<output>/model/                                          the int8 model: see `pipeline.models.int8`
<output>/runs/<run_id>/{config.yaml,plan.json,pending/*.parquet,summary.json,report.html,heartbeat.json,
                         handover.json}
"""

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote
from uuid import uuid4

from pipeline import schema
from pipeline.storage.uris import join

SPACE = "space.json"
PREDICTIONS = "predictions"
DELTA_LOG = "_delta_log"
PENDING = "pending"
_FRAGMENT = re.compile(r"^\.?(\d+)-[0-9a-f]{32}\.parquet(\.[0-9a-f]{32}\.tmp)?$")
"""The name of a fragment, or of the scratch file of a writer that was killed."""


@dataclass(frozen=True)
class RunFolder:
    """The files of one run, below its folder."""

    uri: str

    @property
    def config(self) -> str:
        """The config of the run, as YAML."""
        return join(self.uri, "config.yaml")

    @property
    def plan(self) -> str:
        """The account of the manifest before the run."""
        return join(self.uri, "plan.json")

    @property
    def pending(self) -> str:
        """The folder of the pending rows, as Parquet files."""
        return join(self.uri, PENDING)

    @property
    def summary(self) -> str:
        """What the run did; absent until it has finished."""
        return join(self.uri, "summary.json")

    @property
    def report(self) -> str:
        """The report of the run, as HTML."""
        return join(self.uri, "report.html")

    @property
    def heartbeat(self) -> str:
        """When the run was last alive."""
        return join(self.uri, "heartbeat.json")

    @property
    def handover(self) -> str:
        """What the next run uses of this one."""
        return join(self.uri, "handover.json")


@dataclass(frozen=True)
class Layout:
    """The URIs below one output."""

    output: str

    @property
    def space(self) -> str:
        """The description of the embedding space."""
        return join(self.output, SPACE)

    @property
    def predictions(self) -> str:
        """The Delta table with one row for each processed image."""
        return join(self.output, PREDICTIONS)

    @property
    def index(self) -> str:
        """The Lance dataset with its ANN index."""
        return join(self.output, "index")

    @property
    def duplicates(self) -> str:
        """The groups of images that are the same picture, as one Parquet file."""
        return join(self.output, "duplicates.parquet")

    @property
    def int8_model(self) -> str:
        """The folder of the int8 model."""
        return join(self.output, "model")

    @property
    def runs(self) -> str:
        """The folder that has a folder for each run."""
        return join(self.output, "runs")

    def fragment(self, path: str) -> str:
        """Return the URI of a file of the predictions table, given its path below the table."""
        return join(self.predictions, path)

    def log_entry(self, version: int) -> str:
        """Return the URI of one version's entry in the log of the predictions table."""
        return join(self.predictions, DELTA_LOG, f"{version:020}.json")

    def labels(self, head: str) -> str:
        """Return the URI of the Delta table with the labels of a head."""
        return join(self.output, "labels", head)

    def run(self, run_id: str) -> RunFolder:
        """Return the folder of a run."""
        return RunFolder(join(self.runs, run_id))


def fragment_path(dataset: str, outcome: str, epoch: int | None) -> str:
    """Return a new, unique path below the predictions table. The dataset's name is percent-encoded.

    `epoch` is None for a file of no run, which a compaction writes.
    """
    folder = f"{schema.DATASET}={quote(dataset, safe='')}/{schema.OUTCOME}={outcome}"
    writer = "compacted" if epoch is None else epoch
    return f"{folder}/{writer}-{uuid4().hex}.parquet"


def partition_of(path: str) -> tuple[str, str]:
    """Return the dataset and the outcome of a file, given its path below the predictions table."""
    dataset, outcome = (unquote(folder.partition("=")[2]) for folder in path.split("/")[:2])
    return dataset, outcome


def epoch_of(path: str) -> int | None:
    """Return the epoch in a fragment's name; None for a file that no run wrote."""
    found = _FRAGMENT.match(path.rsplit("/", 1)[-1])
    return int(found[1]) if found else None
