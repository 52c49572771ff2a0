"""The manifests of configs/kuberay ask for what the pipeline's pools need."""

from typing import Any

from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

from pipeline.cluster.node_resources import Node, Resources
from pipeline.config import PoolConfig
from pipeline.images import fetch
from pipeline.images.options import DecodeOptions
from pipeline.images.sandbox_child import memory_limit
from tests.support.kuberay_manifests import ACCELERATORS, FOLDER, PREDICTOR_BYTES, Manifest, loaded, only, quantity


def test_the_config_says_what_would_else_be_guessed_from_nodes_that_are_not_there_yet(manifest: Manifest) -> None:
    assert manifest.run.model.engine == {"gpu": "torch", "tpu": "xla", "cpu": "openvino"}[manifest.kind]
    assert isinstance(manifest.run.workers.predictors, PoolConfig)
    assert isinstance(manifest.run.workers.decoders, PoolConfig)


def test_the_first_pods_hold_the_pools_that_the_run_starts_with(manifest: Manifest) -> None:
    start = manifest.at_start()
    sizes = manifest.pools(start)
    assert sizes.decoders.num_cpus == 1  # fewer, and they would crowd on the first nodes
    assert sizes.decoders.initial_size <= start.cpus
    assert sizes.predictors.accelerator == (manifest.kind.upper() if manifest.kind in ACCELERATORS else None)
    accelerated = manifest.kind in ACCELERATORS
    devices = start.accelerator_slots(sizes.predictors.accelerator) if accelerated else start.cpu_nodes
    assert 1 <= sizes.predictors.initial_size <= devices
    assert sizes.predictors.size.max_size <= devices / start.cpu_nodes * manifest.workers["maxReplicas"]
    # What the autoscaler may take away before the run has started was given long enough.
    options = manifest.ray.get("autoscalerOptions", {})
    assert manifest.workers["minReplicas"] == start.cpu_nodes or options["idleTimeoutSeconds"] >= 600
    if manifest.kind in ACCELERATORS:
        assert manifest.pools(manifest.at_start(0)).predictors.accelerator == sizes.predictors.accelerator


def test_rays_own_autoscaler_reads_the_groups_as_they_are_meant(manifest: Manifest) -> None:
    cluster_document = {"metadata": {"name": "lakelens", "namespace": "lakelens"}, "spec": manifest.ray}
    types = _derive_autoscaling_config_from_ray_cr(cluster_document)["available_node_types"]
    assert types["headgroup"]["resources"] == {"CPU": 0, "memory": 0}
    group, start = types[manifest.kind], manifest.at_start(1)
    wanted = {"CPU": start.cpus, "GPU": start.accelerator_slots("GPU"), "TPU": start.accelerator_slots("TPU")}
    found = {name: group["resources"].get(name, 0) for name in wanted}
    assert found == wanted
    limits = manifest.workers["minReplicas"], manifest.workers["maxReplicas"]
    assert (group["min_workers"], group["max_workers"]) == limits


def test_accelerators_that_come_only_later_are_used() -> None:
    gpu = loaded(FOLDER / "rayjob-gpu.yaml")
    assert gpu.pools(Resources((Node(cpus=8),))).predictors.accelerator == "GPU"


def test_the_memory_of_a_pod_is_enough_for_its_worst_minute(manifest: Manifest) -> None:
    limits = only(manifest.worker)["resources"]["limits"]
    decode = manifest.run.decode
    fetched = max(fetch.WINDOW_BYTES, 2 * decode.max_bytes)
    one = fetched + memory_limit(DecodeOptions.from_config(decode))
    predictors = quantity(limits.get(ACCELERATORS.get(manifest.kind, ""), "1"))
    store = int(manifest.workers["rayStartParams"]["object-store-memory"])
    need = quantity(limits["cpu"]) * one + predictors * PREDICTOR_BYTES + store
    assert need <= quantity(limits["memory"])
    head = int(manifest.ray["headGroupSpec"]["rayStartParams"]["object-store-memory"])
    planning = manifest.run.planning.memory_gb * 4e9
    assert head + planning <= quantity(only(manifest.head)["resources"]["limits"]["memory"])


def test_where_pods_go(manifest: Manifest) -> None:
    spot = {"cloud.google.com/gke-spot", "eks.amazonaws.com/capacityType", "karpenter.sh/capacity-type"}
    if manifest.kind == "tpu":
        assert manifest.worker["nodeSelector"].keys() == {
            "cloud.google.com/gke-tpu-accelerator",
            "cloud.google.com/gke-tpu-topology",
        }
        size = manifest.workers
        assert size["minReplicas"] == size["replicas"] == size["maxReplicas"]
        assert "enableInTreeAutoscaling" not in manifest.ray
        return
    assert manifest.ray["enableInTreeAutoscaling"]
    (never,) = terms(manifest.head)
    assert {rule["key"] for rule in never} == spot
    assert {rule["operator"] for rule in never} == {"NotIn", "DoesNotExist"}
    assert {rule["key"] for term in terms(manifest.worker) for rule in term} == spot
    assert spot <= {toleration["key"] for toleration in manifest.worker["tolerations"]}


def terms(pod: dict[str, Any]) -> list[list[dict[str, Any]]]:
    required = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    return [term["matchExpressions"] for term in required["nodeSelectorTerms"]]
