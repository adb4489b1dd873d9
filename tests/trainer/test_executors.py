"""What every executor does alike, and what Kubernetes brings of its own."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from PIL import Image

from detex_core.artifact import Closing, PublicationClosedError, close_publication
from detex_core.errors import FailedPreconditionError, UnavailableError
from detex_core.object_store import FolderStore
from detex_core.settings import BaseModelSettings, ObjectStoreSettings
from detex_trainer.domain.hyperparameters import default_hyperparameters
from detex_trainer.domain.job_files import outcome_key
from detex_trainer.domain.job_spec import JobSpec, PackSpec
from detex_trainer.domain.training_set_record import TrainingSetRecord
from detex_trainer.executors import Executor, ProcessExecutor, WorkerExit
from detex_trainer.executors.kubernetes import KubernetesExecutor
from detex_trainer.executors.kubernetes_api import KubernetesApi
from detex_trainer.executors.kubernetes_settings import ClaimMount, KubernetesSettings, SecretReference
from detex_trainer.executors.worker_manifest import worker_manifest
from detex_trainer.intake.archive import TrainingSetArchive, photo_key
from detex_trainer.worker.events import (
    CheckpointEvent,
    ExitCode,
    FailedEvent,
    PreviewEvent,
    ProgressEvent,
    StoppedEvent,
    SucceededEvent,
    WorkerEvent,
)
from tests.servers.kubernetes_api import KubernetesServer
from tests.trainer.running_trainer import eventually, is_running

pytestmark = pytest.mark.slow

SCRIPT = (sys.executable, str(Path(__file__).with_name("scripted_worker.py")))
SET_ID = "ts-0123456789abcdef"
SETTINGS = KubernetesSettings(
    image="detex-trainer:test",
    namespace="training",
    environment={"DETEX_EXAMPLE": "plain"},
    environment_secrets=(SecretReference(name="DETEX_S3_SECRET_KEY", secret="store", key="secret-key"),),
)

MakeSpec = Callable[..., PackSpec]
MakeExecutor = Callable[[], Executor]


@pytest.fixture
def meeting_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "meeting"
    folder.mkdir()
    monkeypatch.setenv("DETEX_TEST_FOLDER", str(folder))
    return folder


@pytest.fixture
def cluster() -> Iterator[KubernetesServer]:
    server = KubernetesServer()
    server.secrets["store"] = {"secret-key": "hidden"}
    yield server
    server.close()


@pytest.fixture
def kubernetes_executor(cluster: KubernetesServer, tmp_path: Path) -> Callable[[], KubernetesExecutor]:
    (tmp_path / "kubeconfig").write_text(cluster.kubeconfig)
    settings = SETTINGS.model_copy(update={"kubeconfig": str(tmp_path / "kubeconfig")})
    return lambda: KubernetesExecutor(settings, SCRIPT, stop_grace_seconds=1, look_seconds=0.05)


@pytest.fixture(params=["process", "kubernetes"])
def executor(request: pytest.FixtureRequest) -> MakeExecutor:
    if request.param == "process":
        return lambda: ProcessExecutor(SCRIPT, threads=1, stop_grace_seconds=1)
    made: MakeExecutor = request.getfixturevalue("kubernetes_executor")
    return made


@pytest.fixture
def spec(tmp_path: Path, meeting_folder: Path) -> MakeSpec:
    archive = TrainingSetArchive(FolderStore(tmp_path / "objects"))
    photo = {
        "photo_index": 0,
        "width": 32,
        "height": 32,
        "sha256": "0" * 64,
        "picture_sha256": archive.put_picture(photo_key("default", SET_ID, 0), Image.new("RGB", (32, 32))),
        "mask_sha256": None,
        "mask_source": "segmenter",
        "mask_share": 0,
        "caption": "",
    }
    record = {
        "training_set_id": SET_ID,
        "tenant": "default",
        "digest": "0" * 64,
        "class_word": "mug",
        "photos": [photo],
        "warnings": (),
        "create_time": "2026-01-31T12:00:00Z",
    }
    archive.put_record(TrainingSetRecord.model_validate(record))

    def make_job(index: int, concept_name: str) -> JobSpec:
        return JobSpec(
            job_id=f"job-{index:016x}",
            tenant="default",
            concept_name=concept_name,
            training_set_id=SET_ID,
            method="detex",
            hyperparameters=default_hyperparameters("detex"),
            attributes=("pose",),
            base_model=BaseModelSettings(name="showroom", source="embedded"),
            work_folder=tmp_path,
            object_store=ObjectStoreSettings(url=f"folder://{tmp_path / 'objects'}"),
        )

    def make(*concept_names: str) -> PackSpec:
        jobs = tuple(make_job(index, name) for index, name in enumerate(concept_names))
        return PackSpec(pack_id=f"{jobs[0].job_id}-1", jobs=jobs)

    return make


async def all_events(run: Any) -> list[WorkerEvent]:
    return [event async for event in run.events()]


async def running(meeting_folder: Path, name: str) -> int:
    started = meeting_folder / f"{name}.started"
    await asyncio.to_thread(eventually, lambda: started.exists() and started.read_text().strip())
    return int(started.read_text().splitlines()[-1])


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(120):
            await work()

    asyncio.run(bounded())


def test_events_arrive_in_order_and_the_exit_is_told(executor: MakeExecutor, spec: MakeSpec) -> None:
    async def work() -> None:
        worker = await executor().start(spec("chatty-one"))
        events = await all_events(worker)
        assert isinstance(events[0], ProgressEvent)
        rare = [type(event) for event in events if not isinstance(event, ProgressEvent)]
        assert rare == [PreviewEvent, CheckpointEvent, SucceededEvent]
        assert (await worker.wait()).code == ExitCode.REPORTED

    run(work)


@pytest.mark.parametrize(
    ("name", "words"), [("dies-one", "was killed by signal 9"), ("exits-one", "ended with status 3")]
)
def test_a_worker_that_dies_is_told_as_it_died(executor: MakeExecutor, spec: MakeSpec, name: str, words: str) -> None:
    async def work() -> None:
        worker = await executor().start(spec(name))
        assert all(isinstance(event, ProgressEvent) for event in await all_events(worker))
        assert (await worker.wait()).describe() == words

    run(work)


def test_a_failure_comes_with_its_reason(executor: MakeExecutor, spec: MakeSpec) -> None:
    async def work() -> None:
        worker = await executor().start(spec("diverges-one"))
        last = (await all_events(worker))[-1]
        assert isinstance(last, FailedEvent)
        assert last.reason == "DIVERGED"
        await worker.wait()

    run(work)


def test_a_worker_stops_when_it_is_asked_to(executor: MakeExecutor, spec: MakeSpec, meeting_folder: Path) -> None:
    async def work() -> None:
        worker = await executor().start(spec("waits-one"))
        pid = await running(meeting_folder, "waits-one")
        for _ in range(2):
            worker.stop()
        assert isinstance((await all_events(worker))[-1], StoppedEvent)
        await worker.wait()
        assert not is_running(pid)

    run(work)


@pytest.mark.parametrize("way", ["stop", "kill"])
def test_a_worker_that_does_not_stop_is_killed(
    executor: MakeExecutor, spec: MakeSpec, meeting_folder: Path, way: str
) -> None:
    async def work() -> None:
        worker = await executor().start(spec("stubborn-one"))
        pid = await running(meeting_folder, "stubborn-one")
        getattr(worker, way)()
        await worker.wait()
        assert not is_running(pid)
        worker.kill()

    run(work)


def test_jobs_of_a_pack_are_told_apart(executor: MakeExecutor, spec: MakeSpec) -> None:
    async def work() -> None:
        pack = spec("ok-one", "diverges-two", "ok-three")
        worker = await executor().start(pack)
        events = await all_events(worker)
        assert {event.job_id for event in events} == {job.job_id for job in pack.jobs}
        ends = {each.job_id: type(each) for each in events if isinstance(each, SucceededEvent | FailedEvent)}
        first, second, third = (ends[job.job_id] for job in pack.jobs)
        assert (first, second, third) == (SucceededEvent, FailedEvent, SucceededEvent)
        assert (await worker.wait()).code == ExitCode.REPORTED

    run(work)


def test_a_job_ended_elsewhere_leaves_its_worker_to_the_others(
    executor: MakeExecutor, spec: MakeSpec, meeting_folder: Path, tmp_path: Path
) -> None:
    async def work() -> None:
        pack = spec("waits-one", "waits-two")
        worker = await executor().start(pack)
        pid = await running(meeting_folder, "waits-two")
        key = outcome_key("default", pack.jobs[0].job_id)
        with pytest.raises(PublicationClosedError):
            close_publication(FolderStore(tmp_path / "objects"), key, Closing(reason="CANCELLED", message="Stopped."))
        ends = []
        async for event in worker.events():
            if isinstance(event, StoppedEvent):
                assert is_running(pid)
                (meeting_folder / "waits-two.go").touch()
            if isinstance(event, StoppedEvent | SucceededEvent):
                ends.append((event.job_id, type(event)))
        assert ends == [(pack.jobs[0].job_id, StoppedEvent), (pack.jobs[1].job_id, SucceededEvent)]
        await worker.wait()

    run(work)


def test_a_worker_outlives_its_trainer_and_is_taken_over(
    kubernetes_executor: Callable[[], KubernetesExecutor],
    cluster: KubernetesServer,
    spec: MakeSpec,
    meeting_folder: Path,
) -> None:
    async def work() -> None:
        abandoned = await kubernetes_executor().start(spec("waits-orphan"))
        await running(meeting_folder, "waits-orphan")
        worker = await kubernetes_executor().start(spec("waits-orphan"))
        abandoned.kill()  # no longer its own: nothing happens to the worker
        (meeting_folder / "waits-orphan.go").touch()
        events = await all_events(worker)
        assert isinstance(events[0], ProgressEvent)
        assert events[0].progress.step == 0, "told from the begin"
        assert isinstance(events[-1], SucceededEvent)
        await worker.wait()
        await abandoned.wait()

    run(work)
    assert len(cluster.manifests) == 1


def test_a_job_that_failed_makes_room(
    kubernetes_executor: Callable[[], KubernetesExecutor],
    cluster: KubernetesServer,
    spec: MakeSpec,
    meeting_folder: Path,
) -> None:
    manifest = worker_manifest(
        spec("waits-killed"), SETTINGS, command=SCRIPT, owner="a trainer that is gone", stop_grace_seconds=1
    )
    assert cluster.call("POST", "jobs", "", {}, manifest)[0] == 201

    async def work() -> None:
        os.kill(await running(meeting_folder, "waits-killed"), signal.SIGKILL)
        await asyncio.to_thread(eventually, lambda: not cluster.running_pods())
        (meeting_folder / "waits-killed.go").touch()
        worker = await kubernetes_executor().start(spec("waits-killed"))
        assert isinstance((await all_events(worker))[-1], SucceededEvent)
        await worker.wait()

    run(work)
    assert len(cluster.manifests) == 2


def test_a_cluster_on_this_machine_is_reached_whatever_proxy_is_set(
    cluster: KubernetesServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    (tmp_path / "kubeconfig").write_text(cluster.kubeconfig)
    api = KubernetesApi(SETTINGS.model_copy(update={"kubeconfig": str(tmp_path / "kubeconfig")}))
    assert api.job("nobody") is None


def test_a_cluster_that_refuses_or_is_away_is_told(
    kubernetes_executor: Callable[[], KubernetesExecutor], cluster: KubernetesServer, spec: MakeSpec
) -> None:
    for status, kind in ((422, FailedPreconditionError), (503, UnavailableError)):
        cluster.failing = status
        with pytest.raises(kind, match="the API is on fire"):
            asyncio.run(kubernetes_executor().start(spec("ok-one")))  # type: ignore[arg-type]


FULL = SETTINGS.model_copy(
    update={
        "gpu_count": 1,
        "node_selector": {"gpu": "a100"},
        "tolerations": ({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},),
        "priority_class": "training",
        "runtime_class": "nvidia",
        "queue_name": "team-a",
        "service_account": "workers",
        "image_pull_secrets": ("registry",),
        "claims": (ClaimMount(claim="models", mount_path="/models"),),
        "backoff_limit": 2,
    }
)


@pytest.mark.parametrize("version", ["1.31", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("settings", [SETTINGS, FULL], ids=["least", "full"])
def test_manifests_are_those_that_clusters_take(spec: MakeSpec, settings: KubernetesSettings, version: str) -> None:
    manifest = worker_manifest(spec("ok-one"), settings, command=("python",), owner="me", stop_grace_seconds=10)
    kubernetes_validate.validate(manifest, version, strict=True)
    manifest["spec"]["backoff"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_everything_asked_for_stands_in_the_manifest(spec: MakeSpec) -> None:
    manifest = worker_manifest(spec("ok-one"), FULL, command=("python",), owner="me", stop_grace_seconds=10)
    pod = manifest["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == {"memory": "8Gi", "nvidia.com/gpu": "1"}
    assert (pod["nodeSelector"], pod["priorityClassName"], pod["runtimeClassName"]) == (
        {"gpu": "a100"},
        "training",
        "nvidia",
    )
    assert pod["tolerations"] == list(FULL.tolerations)
    assert manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    assert (manifest["spec"]["backoffLimit"], manifest["spec"]["ttlSecondsAfterFinished"]) == (2, 600)
    assert pod["terminationGracePeriodSeconds"] >= 10
    assert pod["automountServiceAccountToken"] is False
    told = {each["name"]: each for each in container["env"]}
    assert told["DETEX_S3_SECRET_KEY"]["valueFrom"]["secretKeyRef"] == {"name": "store", "key": "secret-key"}
    assert "secret_key" not in told["DETEX_JOB_SPEC"]["value"]
    told_jobs = PackSpec.model_validate_json(told["DETEX_JOB_SPEC"]["value"]).jobs
    assert [job.concept_name for job in told_jobs] == ["ok-one"]


def test_exits_are_told_for_people() -> None:
    assert WorkerExit(-9, "").describe() == "was killed by signal 9"
    assert WorkerExit(3, "").describe() == "ended with status 3"
    assert WorkerExit(137, "", "ran out of memory").describe() == "ran out of memory"
