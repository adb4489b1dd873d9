"""The batch/v1 Job of one worker."""

from collections.abc import Sequence
from typing import Any

from detex_trainer.domain.job_spec import PackSpec
from detex_trainer.executors.kubernetes_settings import KubernetesSettings
from detex_trainer.worker.events import ExitCode
from detex_trainer.worker.program import SPEC_VARIABLE

CONTAINER = "worker"
PACK_LABEL = "detex.dev/pack"
JOBS_ANNOTATION = "detex.dev/jobs"
OWNER_ANNOTATION = "detex.dev/owner"

_USER = 10001
_WORK_FOLDER = "/var/lib/detex"
_TEMPORARY_FOLDER = "/tmp"  # noqa: S108 - of the container alone


def job_name(pack_id: str) -> str:
    """Name of the Job; jobs whose trainer was lost keep their pack, so that it never runs twice side by side."""
    return f"detex-{pack_id}"


def worker_manifest(
    pack: PackSpec,
    settings: KubernetesSettings,
    *,
    command: Sequence[str],
    owner: str,
    stop_grace_seconds: float,
) -> dict[str, Any]:
    """The Job of a worker.

    What the worker is told holds no secrets; those of the workers stand in Secrets, which the pods name.

    Args:
        pack: What the worker is told.
        settings: What its pod looks like.
        command: Program and arguments of a worker.
        owner: Who follows it, see `KubernetesExecutor`.
        stop_grace_seconds: How long the worker may take to stop.
    """
    labels = {
        "app.kubernetes.io/name": "detex",
        "app.kubernetes.io/component": "worker",
        **settings.labels,
        PACK_LABEL: pack.pack_id,
    }
    queue = {"kueue.x-k8s.io/queue-name": settings.queue_name} if settings.queue_name else {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(pack.pack_id),
            "labels": labels | queue,
            "annotations": {OWNER_ANNOTATION: owner, JOBS_ANNOTATION: ",".join(job.job_id for job in pack.jobs)},
        },
        "spec": {
            "backoffLimit": settings.backoff_limit,
            "ttlSecondsAfterFinished": settings.ttl_seconds,
            "podFailurePolicy": {
                "rules": [
                    # A worker that could not read its job spec never will.
                    {
                        "action": "FailJob",
                        "onExitCodes": {
                            "containerName": CONTAINER,
                            "operator": "In",
                            "values": [int(ExitCode.BAD_SPEC)],
                        },
                    },
                    # A node that goes is no fault of the job.
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                ]
            },
            "template": {
                "metadata": {"labels": labels, "annotations": dict(settings.annotations)},
                "spec": _pod(pack, settings, command, stop_grace_seconds),
            },
        },
    }


def _pod(
    pack: PackSpec, settings: KubernetesSettings, command: Sequence[str], stop_grace_seconds: float
) -> dict[str, Any]:
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # The kubelet counts whole seconds and the worker needs its own in full.
        "terminationGracePeriodSeconds": int(stop_grace_seconds) + 5,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(pack, settings, command)],
        "volumes": [
            {"name": "work", "emptyDir": {"sizeLimit": settings.work_size}},
            {"name": "temporary", "emptyDir": {}},
            *(
                {"name": f"claim-{number}", "persistentVolumeClaim": {"claimName": each.claim, "readOnly": True}}
                for number, each in enumerate(settings.claims)
            ),
        ],
    }
    if settings.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    if settings.node_selector:
        pod["nodeSelector"] = dict(settings.node_selector)
    if settings.tolerations:
        pod["tolerations"] = [dict(each) for each in settings.tolerations]
    names = {
        "serviceAccountName": settings.service_account,
        "priorityClassName": settings.priority_class,
        "runtimeClassName": settings.runtime_class,
    }
    return pod | {key: name for key, name in names.items() if name}


def _container(pack: PackSpec, settings: KubernetesSettings, command: Sequence[str]) -> dict[str, Any]:
    gpus = {settings.gpu_resource_name: str(settings.gpu_count)} if settings.gpu_count else {}
    # Left to themselves, libraries take a thread per CPU of the node and are throttled.
    environment = {"OMP_NUM_THREADS": str(_whole_cpus(settings.cpu))} | settings.environment
    there = {"work_folder": _WORK_FOLDER, "niceness": 0}
    told = pack.model_copy(update={"jobs": tuple(job.model_copy(update=there) for job in pack.jobs)})
    return {
        "name": CONTAINER,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": list(command),
        "env": [
            {"name": SPEC_VARIABLE, "value": told.model_dump_json()},
            *({"name": name, "value": value} for name, value in sorted(environment.items())),
            *(
                {"name": each.name, "valueFrom": {"secretKeyRef": {"name": each.secret, "key": each.key}}}
                for each in settings.environment_secrets
            ),
        ],
        "resources": {
            "requests": {"cpu": settings.cpu, "memory": settings.memory, **gpus},
            "limits": {"memory": settings.memory_limit, **gpus},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "work", "mountPath": _WORK_FOLDER},
            {"name": "temporary", "mountPath": _TEMPORARY_FOLDER},
            *(
                {"name": f"claim-{number}", "mountPath": each.mount_path, "readOnly": True}
                for number, each in enumerate(settings.claims)
            ),
        ],
    }


def _whole_cpus(quantity: str) -> int:
    """CPUs as Kubernetes writes them, `2`, `2.5` or `500m`, rounded down, at least 1."""
    cpus = float(quantity[:-1]) / 1_000 if quantity.endswith("m") else float(quantity)
    return max(1, int(cpus))
