"""The S3 server of the tests, which can also be killed and started again on its folder and ports."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import s3fs
from botocore.exceptions import BotoCoreError

from tests.support import seaweed


def impatient(endpoint_url: str) -> s3fs.S3FileSystem:
    """A client that asks once."""
    fs = s3fs.S3FileSystem(
        key=seaweed.ACCESS_KEY,
        secret=seaweed.SECRET_KEY,
        endpoint_url=endpoint_url,
        use_listings_cache=False,
        config_kwargs={"retries": {"total_max_attempts": 1, "mode": "standard"}, "read_timeout": 10},
    )
    fs.retries = 1
    return fs


class MortalServer:
    """A running SeaweedFS."""

    def __init__(self, server: seaweed.S3Server, folder: Path) -> None:
        self.server, self._folder = server, folder
        (first,) = [child for child in psutil.Process().children() if f"-dir={folder}" in child.cmdline()]
        self._command, self._environment = first.cmdline(), first.environ()
        self._process: psutil.Process | subprocess.Popen[bytes] = first

    def kill(self) -> None:
        """SIGKILL: what it had not written is lost."""
        self._process.kill()
        self._process.wait()

    def start(self) -> None:
        """Start it again, and wait until it takes objects."""
        with (self._folder / "weed.log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._environment)
        deadline = time.monotonic() + seaweed.START_S
        while True:
            try:
                impatient(self.server.endpoint_url).pipe_file("ready/again", b"1")
                return
            except (OSError, BotoCoreError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)


@contextmanager
def mortal(folder: Path) -> Iterator[MortalServer]:
    """A server that keeps its files in `folder`."""
    with seaweed.running(folder) as server:
        running = MortalServer(server, folder)
        try:
            yield running
        finally:
            running.kill()
