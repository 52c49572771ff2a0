"""A real S3 server for the tests: SeaweedFS on 127.0.0.1, with credentials of its own."""

import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import s3fs
from botocore.exceptions import BotoCoreError

from tests.support import orphans

ACCESS_KEY, SECRET_KEY = "lakelens-test", "a-secret-that-must-not-be-written"
READER = "lakelens-reader"
"""The access key of one who may get objects, and neither list nor write them; the secret is the same."""
START_S, STARTS = 60.0, 5
GRPC = 10_000  # SeaweedFS serves gRPC at each port + 10,000


@dataclass(frozen=True)
class S3Server:
    """Where the server answers, and who may ask."""

    endpoint_url: str

    @property
    def environment(self) -> dict[str, str]:
        """What a user would have in the environment."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_REGION": "us-east-1",
        }

    def filesystem(self) -> s3fs.S3FileSystem:
        return s3fs.S3FileSystem(
            key=ACCESS_KEY, secret=SECRET_KEY, endpoint_url=self.endpoint_url, use_listings_cache=False
        )


@contextmanager
def running(folder: Path) -> Iterator[S3Server]:
    """Start a server that keeps its files in `folder`; it is stopped by its process id."""
    may = {ACCESS_KEY: ["Admin", "Read", "Write", "List"], READER: ["Read"]}
    identities = [
        {"name": key, "credentials": [{"accessKey": key, "secretKey": SECRET_KEY}], "actions": actions}
        for key, actions in may.items()
    ]
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": identities}))
    for _ in range(STARTS):
        process, server = _started(folder, config)
        try:
            if _answers(server, process):
                yield server
                return
        finally:
            process.kill()  # its files are thrown away, and it takes half a minute to end politely
            process.wait()
    raise RuntimeError(f"SeaweedFS did not start; {folder}/weed.log says why.")


def _started(folder: Path, config: Path) -> tuple["subprocess.Popen[bytes]", S3Server]:
    master, volume, filer, s3 = _free_ports(4)
    command = [
        *(str(Path(sys.executable).with_name("weed")), "server", f"-dir={folder}", "-ip=127.0.0.1"),
        *("-ip.bind=127.0.0.1", f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"),
        *("-s3", f"-s3.port={s3}", f"-s3.config={config}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
        *("-master.telemetry=false", "-volume.max=100", "-master.volumeSizeLimitMB=64"),
    ]
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env={**os.environ, "HOME": str(folder)},
            preexec_fn=orphans.none_left,
        )
    return process, S3Server(f"http://127.0.0.1:{s3}")


def _answers(server: S3Server, process: "subprocess.Popen[bytes]") -> bool:
    """Once it does; False if it ends, as it does where another process was faster to take a port."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            fs = server.filesystem()
            fs.mkdir("ready")
            fs.pipe_file("ready/yes", b"1")  # volumes are there once an object can be written
            return True
        except (OSError, BotoCoreError):
            time.sleep(0.5)
    return False


def _free_ports(count: int) -> list[int]:
    ports: list[int] = []
    for port in range(random.randrange(20_000, 40_000), 50_000):
        if _free(port) and _free(port + GRPC):
            ports.append(port)
        if len(ports) == count:
            return ports
    raise RuntimeError("There are no free ports.")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
