"""Settings of worker pods."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SecretReference(_Settings):
    """A variable of the workers whose value comes from a Secret.

    Attributes:
        name: Name of the variable.
        secret: Name of the Secret.
        key: Key in the Secret.
    """

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    secret: str = Field(min_length=1)
    key: str = Field(min_length=1)


class ClaimMount(_Settings):
    """A volume claim that workers read, for example with base models.

    Attributes:
        claim: Name of the claim.
        mount_path: Where it is mounted, read-only.
    """

    claim: str = Field(min_length=1)
    mount_path: str = Field(pattern=r"^/")


class KubernetesSettings(_Settings):
    """Workers as Jobs of a Kubernetes cluster.

    Attributes:
        image: Image of the worker, which is that of the trainer.
        namespace: Namespace of the Jobs; empty means that of the trainer.
        kubeconfig: File with the cluster's address and credentials; empty means the trainer's service account.
        image_pull_policy: When a node pulls the image.
        image_pull_secrets: Names of pull secrets of the image registry.
        service_account: Service account of the workers, which call no API; empty means the namespace's default.
        cpu: CPU request of a worker, as Kubernetes writes it.
        memory: Memory request of a worker.
        memory_limit: Memory limit of a worker.
        gpu_count: GPUs of a worker; 0 trains on the CPU.
        gpu_resource_name: Resource name of a GPU.
        work_size: Scratch space of a worker.
        node_selector: Node selector of the pods.
        tolerations: Tolerations of the pods, as Kubernetes writes them.
        priority_class: Priority class of the pods; empty means the cluster's default.
        runtime_class: Runtime class of the pods; empty means the cluster's default.
        queue_name: Kueue LocalQueue that admits the Jobs; empty means that they start at once.
        labels: Additional labels of Jobs and pods.
        annotations: Annotations of the pods.
        environment: Environment variables of the workers.
        environment_secrets: Environment variables of the workers from Secrets.
        claims: Volume claims that workers read.
        ttl_seconds: How long the cluster keeps a finished Job.
        backoff_limit: How often the cluster itself restarts a failed pod; lost and drained nodes do not count.
        start_timeout_seconds: Maximum wait for a pod to start.
    """

    image: str = Field(min_length=1)
    namespace: str = ""
    kubeconfig: str = ""
    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    service_account: str = ""
    cpu: str = Field(default="2", pattern=r"^[0-9]+(\.[0-9]+)?m?$")
    memory: str = "4Gi"
    memory_limit: str = "8Gi"
    gpu_count: int = Field(default=0, ge=0, le=16)
    gpu_resource_name: str = "nvidia.com/gpu"
    work_size: str = "10Gi"
    node_selector: dict[str, str] = {}
    tolerations: tuple[dict[str, Any], ...] = ()
    priority_class: str = ""
    runtime_class: str = ""
    queue_name: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    environment: dict[str, str] = {}
    environment_secrets: tuple[SecretReference, ...] = ()
    claims: tuple[ClaimMount, ...] = ()
    ttl_seconds: int = Field(default=600, ge=0, le=604_800)
    backoff_limit: int = Field(default=0, ge=0, le=10)
    start_timeout_seconds: float = Field(default=3_600.0, gt=0, le=604_800)
