"""A strict schema of KubeRay's RayJob, and of what comes with it in a manifest.

There is no package with KubeRay's own schemas. The fields, types, enumerations and required keys of RayJobSpec,
RayClusterSpec, HeadGroupSpec, WorkerGroupSpec, AutoscalerOptions and what hangs on them are written down here by
KubeRay's API types (ray-operator/apis/ray/v1, as of 1.7). Fields that no manifest of ours may have are left out:
the status, what needs a feature gate (deletionStrategy, tlsOptions, historyServerOptions), network policies and
ingresses. What is Kubernetes's own, so every pod template with all that is in it, comes from kubernetes-validate.
"""

import json
from functools import cache
from importlib.resources import files
from typing import Any

import jsonschema
from referencing import Registry, Resource

KUBERNETES = "1.34.0"
_DEFINITIONS = "https://kubernetes.io/api/_definitions.json"


def validate(document: Any) -> None:
    """Raises: jsonschema.ValidationError for a field that there is not, and for a value of the wrong type."""
    kind = f"{document.get('apiVersion')} {document.get('kind')}"
    if kind not in _KINDS:
        raise jsonschema.ValidationError(f"there is no schema for {kind}")
    jsonschema.Draft202012Validator(_KINDS[kind], registry=_kubernetes()).validate(document)


@cache
def _kubernetes() -> Registry[Any]:
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{KUBERNETES}-local-strict"
    definitions = json.loads((folder / "_definitions.json").read_text(encoding="utf-8"))
    return Resource.from_contents(definitions) @ Registry()


def _kubernetes_type(name: str) -> dict[str, Any]:
    return {"$ref": f"{_DEFINITIONS}#/$defs/io.k8s.{name}"}


def _core(name: str) -> dict[str, Any]:
    return _kubernetes_type(f"api.core.v1.{name}")


def _object(required: str = "", **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


def _list_of(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


def _one_of(*values: str) -> dict[str, Any]:
    return {"enum": list(values)}


_TEXT = {"type": "string"}
_FLAG = {"type": "boolean"}
_COUNT = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
_POSITIVE = _COUNT | {"minimum": 1}
_FRACTION = {"type": "number", "minimum": 0}
_TEXTS = {"type": "object", "additionalProperties": _TEXT}
_METADATA = _kubernetes_type("apimachinery.pkg.apis.meta.v1.ObjectMeta")
_MANAGER = _one_of("ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue")

_AUTOSCALER = _object(
    resources=_core("ResourceRequirements"),
    image=_TEXT,
    imagePullPolicy=_one_of("Always", "IfNotPresent", "Never"),
    securityContext=_core("SecurityContext"),
    idleTimeoutSeconds=_COUNT,
    upscalingMode=_one_of("Default", "Aggressive", "Conservative"),
    version=_one_of("v1", "v2"),
    env=_list_of(_core("EnvVar")),
    envFrom=_list_of(_core("EnvFromSource")),
    volumeMounts=_list_of(_core("VolumeMount")),
    command=_list_of(_TEXT),
    args=_list_of(_TEXT),
)
_HEAD = _object(
    "template",
    template=_core("PodTemplateSpec"),
    headService=_core("Service"),
    enableIngress=_FLAG,
    resources=_TEXTS,
    labels=_TEXTS,
    rayStartParams=_TEXTS,
    serviceType=_one_of("ClusterIP", "NodePort", "LoadBalancer", "ExternalName"),
)
_WORKERS = _object(
    "groupName minReplicas maxReplicas template",
    groupName=_TEXT,
    replicas=_COUNT,
    minReplicas=_COUNT,
    maxReplicas=_COUNT,
    idleTimeoutSeconds=_COUNT,
    priority=_COUNT,
    resources=_TEXTS,
    labels=_TEXTS,
    rayStartParams=_TEXTS,
    template=_core("PodTemplateSpec"),
    scaleStrategy=_object(workersToDelete=_list_of(_TEXT)),
    numOfHosts=_POSITIVE,
)
_REDIS_CREDENTIAL = _object(value=_TEXT, valueFrom=_core("EnvVarSource"))
_CLUSTER = _object(
    "headGroupSpec",
    upgradeStrategy=_object(type=_one_of("Recreate", "None")),
    authOptions=_object(mode=_one_of("disabled", "token"), secretName=_TEXT),
    suspend=_FLAG,
    managedBy=_MANAGER,
    autoscalerOptions=_AUTOSCALER,
    headServiceAnnotations=_TEXTS,
    enableInTreeAutoscaling=_FLAG,
    gcsFaultToleranceOptions=_object(
        "redisAddress",
        redisUsername=_REDIS_CREDENTIAL,
        redisPassword=_REDIS_CREDENTIAL,
        externalStorageNamespace=_TEXT,
        redisAddress=_TEXT,
    ),
    headGroupSpec=_HEAD,
    rayVersion=_TEXT,
    workerGroupSpecs=_list_of(_WORKERS),
)
_JOB = _object(
    "rayClusterSpec entrypoint",
    activeDeadlineSeconds=_POSITIVE,
    preRunningDeadlineSeconds=_POSITIVE,
    backoffLimit=_COUNT,
    rayClusterSpec=_CLUSTER,
    submitterPodTemplate=_core("PodTemplateSpec"),
    metadata=_TEXTS,
    clusterSelector=_TEXTS,
    submitterConfig=_object(backoffLimit=_COUNT),
    managedBy=_MANAGER,
    entrypoint=_TEXT,
    runtimeEnvYAML=_TEXT,
    jobId=_TEXT,
    submissionMode=_one_of("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    entrypointResources=_TEXT,
    entrypointNumCpus=_FRACTION,
    entrypointNumGpus=_FRACTION,
    ttlSecondsAfterFinished=_COUNT,
    shutdownAfterJobFinishes=_FLAG,
    suspend=_FLAG,
)
_KINDS = {
    "v1 ConfigMap": _core("ConfigMap"),
    "v1 ServiceAccount": _core("ServiceAccount"),
    "ray.io/v1 RayJob": _object(
        "apiVersion kind metadata spec", apiVersion=_TEXT, kind=_TEXT, metadata=_METADATA, spec=_JOB
    ),
}
