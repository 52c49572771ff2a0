"""The manifests of configs/kuberay, read for tests."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from pipeline import config
from pipeline.cluster import pools
from pipeline.cluster.node_resources import Node, Resources
from pipeline.cluster.pools import Pools
from pipeline.config import RunConfig
from pipeline.engines import choice

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "configs" / "kuberay"
README = (FOLDER / "README.md").read_text()
FILES = sorted(FOLDER.glob("*.yaml"))
UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
ACCELERATORS = {"gpu": "nvidia.com/gpu", "tpu": "google.com/tpu"}
PREDICTOR_BYTES = 4e9
"""What README.md says to reckon for a predictor: the model, its runtime, a block in and a block out."""


@dataclass(frozen=True)
class Manifest:
    """One file: its documents by kind, and what is looked at again and again."""

    kind: str
    documents: list[dict[str, Any]]

    def one(self, kind: str) -> dict[str, Any]:
        (found,) = (document for document in self.documents if document["kind"] == kind)
        return found

    @cached_property
    def job(self) -> dict[str, Any]:
        return self.one("RayJob")["spec"]

    @cached_property
    def ray(self) -> dict[str, Any]:
        return self.job["rayClusterSpec"]

    @property
    def head(self) -> dict[str, Any]:
        return self.ray["headGroupSpec"]["template"]["spec"]

    @property
    def workers(self) -> dict[str, Any]:
        (group,) = self.ray["workerGroupSpecs"]
        return group

    @property
    def worker(self) -> dict[str, Any]:
        return self.workers["template"]["spec"]

    @property
    def pods(self) -> list[dict[str, Any]]:
        return [self.job["submitterPodTemplate"]["spec"], self.head, self.worker]

    @cached_property
    def run(self) -> RunConfig:
        return config.parse_text(self.one("ConfigMap")["data"]["config.yaml"], source=self.kind)

    def at_start(self, replicas: int | None = None) -> Resources:
        """What Ray has once the head and the first workers are ready, and KubeRay submits the job."""
        pods = self.workers["replicas"] if replicas is None else replicas
        limits = only(self.worker)["resources"]["limits"]
        node = Node(
            cpus=quantity(limits["cpu"]),
            gpus=quantity(limits.get("nvidia.com/gpu", "0")),
            tpus=quantity(limits.get("google.com/tpu", "0")),
        )
        return Resources((node,) * int(pods))

    def pools(self, resources: Resources) -> Pools:
        return pools.plan_pools(self.run.workers, resources, choice.ACCELERATORS[self.run.model.engine])


def only(pod: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod["containers"]
    return container


def quantity(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([mkMG]|[KMG]i)?", text)
    assert found, text
    return float(found[1]) * UNITS[found[2] or ""]


def environment(container: dict[str, Any]) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container["env"]}


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, f"{path}.{key}")
    else:
        yield path, value


class Strict(yaml.SafeLoader):
    """As Kubernetes reads YAML: a key that is there twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"{keys}, at line {node.start_mark.line + 1}"
        return super().construct_mapping(node, deep)


def loaded(path: Path) -> Manifest:
    documents = list(yaml.load_all(path.read_text(), Strict))
    return Manifest(path.stem.removeprefix("rayjob-"), documents)
