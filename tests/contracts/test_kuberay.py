"""The manifests of configs/kuberay: valid, of one piece, and sized as the pipeline sizes its pools.

Every document is checked against a strict schema, in which unknown fields and wrong types fail
(tests/support/kuberay.py says whose). The run's config inside is parsed by the pipeline itself, and the
cluster by Ray's own autoscaler. No manifest was applied to a cluster: what admission, a scheduler or the
operator makes of them is not known here.
"""

import copy
import re
import shlex
from typing import Any

import jsonschema
import pytest
from typer.main import get_command

from jobs.__main__ import COMMANDS, _app
from pipeline import __version__
from pipeline.cluster.submission import STOP_S
from tests.support import kuberay
from tests.support.kuberay_manifests import (
    ACCELERATORS,
    FILES,
    FOLDER,
    README,
    ROOT,
    Manifest,
    environment,
    leaves,
    loaded,
    only,
    quantity,
)


def test_there_is_one_for_each_case() -> None:
    assert [path.name for path in FILES] == ["rayjob-cpu.yaml", "rayjob-gpu.yaml", "rayjob-tpu.yaml"]


def test_every_document_is_what_kuberay_and_kubernetes_take(manifest: Manifest) -> None:
    assert [document["kind"] for document in manifest.documents] == ["ConfigMap", "ServiceAccount", "RayJob"]
    for document in manifest.documents:
        kuberay.validate(document)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("kind", "RayJobs"),
        ("spec.backofLimit", 3),
        ("spec.backoffLimit", "3"),
        ("spec.backoffLimit", -1),
        ("spec.entrypoint", ["lakelens", "run"]),
        ("spec.submissionMode", "K8SJobMode"),
        ("spec.shutdownAfterJobFinishes", "true"),
        ("spec.metadata.lakelens", 0.1),
        ("spec.rayClusterSpec.rayVersion", 2.6),
        ("spec.rayClusterSpec.enableInTreeAutoScaling", True),
        ("spec.rayClusterSpec.authOptions.mode", "tokens"),
        ("spec.rayClusterSpec.autoscalerOptions.idleTimeoutSeconds", "60"),
        ("spec.rayClusterSpec.autoscalerOptions.version", 2),
        ("spec.rayClusterSpec.headGroupSpec.rayStartParams.num-cpus", 0),
        ("spec.rayClusterSpec.headGroupSpec.template.spec.containers.0.envfrom", []),
        ("spec.rayClusterSpec.headGroupSpec.template.spec.containers.0.env.0.value", 32),
        ("spec.rayClusterSpec.headGroupSpec.template.spec.securityContext.runAsNonroot", True),
        ("spec.rayClusterSpec.headGroupSpec.template.spec.terminationGracePeriodSeconds", "90"),
        ("spec.rayClusterSpec.workerGroupSpecs.0.minReplica", 1),
        ("spec.rayClusterSpec.workerGroupSpecs.0.maxReplicas", "8"),
        ("spec.rayClusterSpec.workerGroupSpecs.0.numOfHosts", 0),
        ("spec.rayClusterSpec.workerGroupSpecs.0.template.spec.nodeselector", {}),
        ("spec.rayClusterSpec.workerGroupSpecs.0.template.spec.containers.0.lifecycle.preStop.command", ["true"]),
        ("spec.submitterPodTemplate.spec.containers.0.resources.limit", {}),
        ("spec.status", {}),
    ],
)
def test_a_misspelt_field_or_a_value_of_the_wrong_type_is_refused(path: str, value: object) -> None:
    job = copy.deepcopy(loaded(FOLDER / "rayjob-gpu.yaml").one("RayJob"))
    kuberay.validate(job)
    *parents, last = path.split(".")
    inner: Any = job
    for key in parents:
        inner = inner[int(key)] if key.isdigit() else inner[key]
    inner[last] = value
    with pytest.raises(jsonschema.ValidationError):
        kuberay.validate(job)


@pytest.mark.parametrize(
    "field", ["headGroupSpec", "workerGroupSpecs.0.maxReplicas", "workerGroupSpecs.0.template"]
)
def test_a_missing_field_is_refused(field: str) -> None:
    job = copy.deepcopy(loaded(FOLDER / "rayjob-gpu.yaml").one("RayJob"))
    inner: Any = job["spec"]["rayClusterSpec"]
    *parents, last = field.split(".")
    for key in parents:
        inner = inner[int(key)] if key.isdigit() else inner[key]
    del inner[last]
    with pytest.raises(jsonschema.ValidationError):
        kuberay.validate(job)


def test_other_kinds_have_no_schema_and_are_refused() -> None:
    with pytest.raises(jsonschema.ValidationError):
        kuberay.validate({"apiVersion": "ray.io/v1alpha1", "kind": "RayJob"})
    with pytest.raises(jsonschema.ValidationError):
        kuberay.validate({"apiVersion": "v1", "kind": "ConfigMap", "data": {"config.yaml": 3}})


def test_the_operator_has_nothing_against_it(manifest: Manifest) -> None:
    """What KubeRay itself checks before it makes a cluster, and no schema says."""
    name = manifest.one("RayJob")["metadata"]["name"]
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)
    assert len(name) <= 47
    assert manifest.job["shutdownAfterJobFinishes"] or not manifest.job["ttlSecondsAfterFinished"]
    assert "clusterSelector" not in manifest.job  # goes with no backoffLimit
    assert tuple(map(int, manifest.ray["rayVersion"].split("."))) >= (2, 52)  # tokens
    assert {pod["restartPolicy"] for pod in manifest.pods} == {"Never"}  # the autoscaler's version 2 wants it
    size = manifest.workers
    assert size["minReplicas"] <= size["replicas"] <= size["maxReplicas"]


def test_the_documents_name_each_other(manifest: Manifest) -> None:
    name = f"lakelens-{manifest.kind}"
    assert {document["metadata"]["name"] for document in manifest.documents} == {name}
    assert manifest.job["jobId"] == name
    assert {manifest.head["serviceAccountName"], manifest.worker["serviceAccountName"]} == {name}
    volumes = {volume["name"]: volume for volume in manifest.head["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in only(manifest.head)["volumeMounts"]}
    assert volumes["config"]["configMap"] == {"name": name}
    assert volumes.keys() == mounts.keys()
    assert f"{mounts['config']}/config.yaml" in manifest.job["entrypoint"].split()
    cache = environment(only(manifest.worker))["LAKELENS_CACHE"]
    for pod in (manifest.head, manifest.worker):
        assert all(volume["name"] in {m["name"] for m in only(pod)["volumeMounts"]} for volume in pod["volumes"])
        assert any(cache.startswith(mount["mountPath"] + "/") for mount in only(pod)["volumeMounts"])


def test_all_pods_have_the_image_that_the_readme_builds(manifest: Manifest) -> None:
    (image,) = {only(pod)["image"] for pod in manifest.pods}
    target = manifest.kind
    assert image == f"registry.example.com/lakelens:{__version__}-{target}"
    assert re.search(rf"docker build --target {target} (.* )?-t {image} \.", README)
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert re.search(rf"docker build --target {target} (.* )?-t {image} \.", dockerfile)
    assert re.search(rf"^FROM \w+ AS {target}$", dockerfile, flags=re.MULTILINE)
    constraints = (ROOT / "constraints.txt").read_text().splitlines()
    assert f"ray=={manifest.ray['rayVersion']}" in constraints


def test_the_entrypoint_is_a_command_with_options_that_it_takes(manifest: Manifest) -> None:
    program, command, *arguments = shlex.split(manifest.job["entrypoint"])
    assert program == "lakelens"
    assert command == "run"
    assert command in {name for group in COMMANDS.values() for name in group}
    group = get_command(_app(command))
    parsed = group.commands[command].make_context(command, arguments)  # type: ignore[attr-defined]
    assert parsed.params["path"] == "/etc/lakelens/config.yaml"
    assert not parsed.params["take_over"]  # two such jobs would stop each other for ever
    assert manifest.job["metadata"] == {"lakelens": __version__, "output": manifest.run.output.path}


def test_no_secret_is_in_it(manifest: Manifest) -> None:
    assert {document["kind"] for document in manifest.documents}.isdisjoint({"Secret"})
    text = "\n".join(f"{path}={value}" for path, value in leaves(manifest.documents))
    assert not re.search(r"AKIA|BEGIN [A-Z ]*PRIVATE KEY|(?i:password|passwd)", text)
    for pod in (manifest.head, manifest.worker):
        secret = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL", flags=re.IGNORECASE)
        assert not [variable for variable in only(pod)["env"] if secret.search(variable["name"])]
        assert only(pod)["envFrom"] == [{"secretRef": {"name": "lakelens-credentials", "optional": True}}]
    assert "kubectl create secret generic lakelens-credentials" in README


def test_every_pod_is_nobody_special_and_only_the_head_may_speak_to_kubernetes(manifest: Manifest) -> None:
    for pod in manifest.pods:
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] == 1000
        assert only(pod)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }
    submitter, _, worker = manifest.pods
    assert submitter["automountServiceAccountToken"] is worker["automountServiceAccountToken"] is False


def test_every_container_asks_for_what_it_may_use(manifest: Manifest) -> None:
    asked = [only(pod)["resources"] for pod in manifest.pods]
    if "autoscalerOptions" in manifest.ray:
        asked.append(manifest.ray["autoscalerOptions"]["resources"])
    for resources in asked:
        requests, limits = resources["requests"], resources["limits"]
        assert {"cpu", "memory"} <= requests.keys() & limits.keys()
        assert all(quantity(requests[name]) <= quantity(limit) for name, limit in limits.items())
    accelerator = ACCELERATORS.get(manifest.kind)
    limits = only(manifest.worker)["resources"]["limits"]
    assert set(limits) - {"cpu", "memory"} == ({accelerator} if accelerator else set())


def test_ray_runs_as_the_readme_says(manifest: Manifest) -> None:
    for pod in (manifest.head, manifest.worker):
        variables = environment(only(pod))
        assert variables["RAY_num_workers_soft_limit"] == "32"
        assert variables["RAY_JOB_STOP_WAIT_TIME_S"] == str(STOP_S)
    head = manifest.ray["headGroupSpec"]["rayStartParams"]
    assert (head["num-cpus"], head["memory"]) == ("0", "0")
    assert manifest.ray["authOptions"] == {"mode": "token"}


def test_a_pod_that_is_to_go_waits_for_the_commit(manifest: Manifest) -> None:
    hook = only(manifest.head)["lifecycle"]["preStop"]["exec"]["command"]
    assert hook == ["ray", "job", "stop", "--address", "http://127.0.0.1:8265", manifest.job["jobId"]]
    assert manifest.head["terminationGracePeriodSeconds"] > STOP_S
    program, seconds = only(manifest.worker)["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "sleep"
    assert int(seconds) < manifest.worker["terminationGracePeriodSeconds"]
