"""The few calls to a cluster that the executor makes, with their failures as errors of the domain."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError, ReadTimeoutError

from detex_core.channel import is_on_this_machine
from detex_core.errors import (
    AlreadyExistsError,
    DetexError,
    FailedPreconditionError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnavailableError,
)
from detex_trainer.executors.kubernetes_settings import KubernetesSettings
from detex_trainer.executors.worker_manifest import CONTAINER, OWNER_ANNOTATION

_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_TIMEOUT_SECONDS = (5, 30)
_LOG_TIMEOUT_SECONDS = (5, 60)
_QUOTA_RETRY_SECONDS = 30.0
_JOB_NAME_LABEL = "job-name"  # given to pods by the cluster, in all its versions


class KubernetesApi:
    """A namespace of a cluster; safe to use from several threads.

    Args:
        settings: Which cluster and namespace.

    Raises:
        FailedPreconditionError: There are no credentials for it.
    """

    def __init__(self, settings: KubernetesSettings) -> None:
        configuration = client.Configuration()
        try:
            if settings.kubeconfig:
                config.load_kube_config(settings.kubeconfig, client_configuration=configuration)
            else:
                config.load_incluster_config(client_configuration=configuration)
        except (ConfigException, OSError) as error:
            raise FailedPreconditionError(f"The cluster cannot be reached: {error}") from error
        configuration.retries = 2
        if is_on_this_machine(configuration.host):
            configuration.proxy = None  # the environment's would be asked for this machine
        api = client.ApiClient(configuration)
        self._jobs = client.BatchV1Api(api)
        self._pods = client.CoreV1Api(api)
        own = _OWN_NAMESPACE.read_text().strip() if _OWN_NAMESPACE.exists() else "default"
        self._namespace = settings.namespace or own

    def create_job(self, manifest: dict[str, Any]) -> None:
        """Make a Job; raises AlreadyExistsError where there is one of that name."""
        with _domain_errors():
            self._jobs.create_namespaced_job(self._namespace, manifest, _request_timeout=_TIMEOUT_SECONDS)

    def job(self, name: str) -> Any | None:
        """A Job as it stands; None where there is none."""
        try:
            with _domain_errors():
                return self._jobs.read_namespaced_job(name, self._namespace, _request_timeout=_TIMEOUT_SECONDS)
        except NotFoundError:
            return None

    def adopt_job(self, name: str, owner: str) -> None:
        """Write down who follows a Job from now on."""
        patch = {"metadata": {"annotations": {OWNER_ANNOTATION: owner}}}
        with _domain_errors():
            self._jobs.patch_namespaced_job(name, self._namespace, patch, _request_timeout=_TIMEOUT_SECONDS)

    def pods(self, name: str) -> list[Any]:
        """The pods of a Job, the newest last."""
        with _domain_errors():
            found = self._pods.list_namespaced_pod(
                self._namespace, label_selector=f"{_JOB_NAME_LABEL}={name}", _request_timeout=_TIMEOUT_SECONDS
            )
        return sorted(found.items, key=lambda pod: pod.metadata.creation_timestamp)

    def delete_job(self, name: str, owner: str, *, at_once: bool) -> None:
        """Delete a Job and its pods, unless somebody else follows it by now.

        Args:
            name: Name of the Job.
            owner: Who wants to delete it.
            at_once: Whether its pods get no time to stop.
        """
        found = self.job(name)
        if found is not None and (found.metadata.annotations or {}).get(OWNER_ANNOTATION) != owner:
            return
        with _domain_errors(NotFoundError):
            self._jobs.delete_namespaced_job(
                name, self._namespace, propagation_policy="Background", _request_timeout=_TIMEOUT_SECONDS
            )
        if at_once:
            for pod in self.pods(name):
                with _domain_errors(NotFoundError):
                    self._pods.delete_namespaced_pod(
                        pod.metadata.name, self._namespace, grace_period_seconds=0, _request_timeout=_TIMEOUT_SECONDS
                    )

    def log_lines(self, pod_name: str, since_seconds: int | None) -> Iterator[tuple[str, bytes]]:
        """Lines of a pod's log with their times as text, as they are written, until the pod ends or falls silent.

        Args:
            pod_name: Name of the pod.
            since_seconds: Leave out what is older; None leaves out nothing.
        """
        options = {} if since_seconds is None else {"since_seconds": since_seconds}
        with _domain_errors(NotFoundError):
            response = self._pods.read_namespaced_pod_log(
                pod_name,
                self._namespace,
                container=CONTAINER,
                follow=True,
                timestamps=True,
                _preload_content=False,
                _request_timeout=_LOG_TIMEOUT_SECONDS,
                **options,
            )
            rest = b""
            try:
                for data in response.stream(65_536):
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        time, _, text = line.partition(b" ")
                        yield time.decode(errors="replace"), text
            except ReadTimeoutError:
                return  # silent for a while; whoever reads looks whether the pod still runs
            finally:
                response.release_conn()


@contextmanager
def _domain_errors(*ignored: type[DetexError]) -> Iterator[None]:
    try:
        yield
    except ApiException as error:
        failure = _domain_error(error)
        if not isinstance(failure, ignored):
            raise failure from error
    except HTTPError as error:
        raise UnavailableError("The Kubernetes API does not answer.") from error


def _domain_error(error: ApiException) -> DetexError:
    message = _message(error)
    match error.status:
        case 404:
            return NotFoundError(f"The cluster has no such object: {message}")
        case 409:
            return AlreadyExistsError(f"The cluster has such an object already: {message}")
        case 403 if "exceeded quota" in message:
            return ResourceExhaustedError(
                f"The quota of the namespace has no room for the worker: {message}",
                reason="CLUSTER_QUOTA",
                retry_delay_seconds=_QUOTA_RETRY_SECONDS,
            )
        case 401 | 403:
            return PermissionDeniedError(f"The cluster refuses the trainer's account: {message}")
        case 400 | 422:
            return FailedPreconditionError(f"The cluster refuses the worker: {message}", reason="WORKER_REFUSED")
        case _:
            return UnavailableError(f"The Kubernetes API fails with status {error.status}: {message}")


def _message(error: ApiException) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (KeyError, TypeError, ValueError):
        return str(error.reason)
