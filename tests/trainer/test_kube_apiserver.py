"""The Kubernetes executor against a real API server; where there is none at hand, recorded schemas must do."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kubernetes import client, config

from detex_core.errors import AlreadyExistsError, FailedPreconditionError
from detex_trainer.domain.job_spec import PackSpec
from detex_trainer.executors.kubernetes import KubernetesExecutor
from detex_trainer.executors.kubernetes_api import KubernetesApi
from detex_trainer.executors.kubernetes_settings import KubernetesSettings
from detex_trainer.executors.worker_manifest import OWNER_ANNOTATION, job_name, worker_manifest
from tests.servers.kube_apiserver import has_apiserver, running_apiserver
from tests.trainer.test_executors import FULL, SETTINGS, meeting_folder, spec

__all__ = ["meeting_folder", "spec"]

pytestmark = pytest.mark.skipif(
    not has_apiserver(), reason="needs etcd and kube-apiserver, on the path or where KUBEBUILDER_ASSETS says"
)
MakeSpec = Callable[..., PackSpec]


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("cluster") / "kubeconfig"
    with running_apiserver(path.parent) as contents:
        path.write_text(contents)
        config.load_kube_config(str(path))
        core = client.CoreV1Api()
        core.create_namespace({"metadata": {"name": "training"}})
        client.SchedulingV1Api().create_priority_class({"metadata": {"name": "training"}, "value": 1_000})
        yield path


@pytest.fixture
def settings(kubeconfig: Path) -> KubernetesSettings:
    return SETTINGS.model_copy(update={"kubeconfig": str(kubeconfig)})


def test_jobs_are_made_adopted_and_deleted(settings: KubernetesSettings, spec: MakeSpec) -> None:
    pack = spec("ok-one", "ok-two")
    name = job_name(pack.pack_id)
    api = KubernetesApi(settings)
    manifest = worker_manifest(pack, settings, command=("python",), owner="first", stop_grace_seconds=10)
    api.create_job(manifest)
    with pytest.raises(AlreadyExistsError):
        api.create_job(manifest)
    api.adopt_job(name, "second")
    api.delete_job(name, "first", at_once=True)
    found = api.job(name)
    assert found is not None, "it is another's by now"
    assert found.metadata.annotations[OWNER_ANNOTATION] == "second"
    api.delete_job(name, "second", at_once=True)
    assert api.job(name) is None
    api.delete_job(name, "second", at_once=True)


def test_a_full_manifest_is_taken_and_a_wrong_one_is_told(settings: KubernetesSettings, spec: MakeSpec) -> None:
    pack = spec("ok-full")
    full = FULL.model_copy(update={"kubeconfig": settings.kubeconfig})
    api = KubernetesApi(settings)
    manifest = worker_manifest(pack, full, command=("python",), owner="me", stop_grace_seconds=10)
    wrong = manifest | {"metadata": manifest["metadata"] | {"name": "Not_A_Name"}}
    with pytest.raises(FailedPreconditionError) as raised:
        api.create_job(wrong)
    assert raised.value.reason == "WORKER_REFUSED"
    api.create_job(manifest)
    found = api.job(job_name(pack.pack_id))
    assert found is not None
    assert found.spec.template.spec.priority_class_name == "training"
    api.delete_job(job_name(pack.pack_id), "me", at_once=True)


def test_a_pod_that_cannot_start_ends_its_worker(settings: KubernetesSettings, spec: MakeSpec) -> None:
    pack = spec("ok-hopeless")
    name = job_name(pack.pack_id)
    core = client.CoreV1Api()

    def play_the_controllers() -> None:
        template = client.BatchV1Api().read_namespaced_job(name, "training").spec.template
        template.metadata.name, template.metadata.labels = f"{name}-pod", {"job-name": name}
        core.create_namespaced_pod("training", {"metadata": template.metadata, "spec": template.spec})
        waiting = {"reason": "InvalidImageName", "message": "no such name"}
        status = {"name": "worker", "image": "x", "imageID": "", "ready": False, "restartCount": 0}
        patch = {"status": {"phase": "Pending", "containerStatuses": [status | {"state": {"waiting": waiting}}]}}
        core.patch_namespaced_pod_status(f"{name}-pod", "training", patch)

    async def work() -> None:
        executor = KubernetesExecutor(settings, ("python",), stop_grace_seconds=1, look_seconds=0.1)
        run = await executor.start(pack)
        await asyncio.to_thread(play_the_controllers)
        assert [event async for event in run.events()] == []
        assert "InvalidImageName: no such name" in (await run.wait()).describe()

    asyncio.run(asyncio.wait_for(work(), 60))
    assert core.list_namespaced_pod("training").items == []
