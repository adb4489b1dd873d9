"""What operators see of jobs and of what the trainer depends on."""

import json
import shutil
import urllib.request
from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families

from tests.trainer.running_trainer import RunningTrainer, eventually
from tests.trainer.uploads import encoded, file, header, photo, stream

StartTrainer = Callable[..., RunningTrainer]


def metric(trainer: RunningTrainer, name: str, **labels: str) -> float | None:
    """A sample as it is scraped now, or None."""
    with urllib.request.urlopen(f"http://{trainer.metrics_address}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return float(sample.value)
    return None


def test_ages_and_dependencies_follow_within_seconds_and_logs_name_jobs(start_trainer: StartTrainer) -> None:
    trainer = start_trainer(worker_count=1, readiness_interval_seconds=0.1)
    for state in ("queued", "running"):
        assert metric(trainer, "detex_trainer_oldest_job_seconds", state=state) == 0
    assert metric(trainer, "detex_trainer_jobs_ended_total", method="detex", state="failed") == 0
    parts = stream(header(keep_photos=True), file(encoded(photo(1))), file(encoded(photo(2)), 1))
    photos = trainer.stub.UploadTrainingSet(parts, timeout=30).training_set.training_set_id
    running = trainer.submit(photos, "waits-a")
    trainer.worker_pid("waits-a")
    trainer.submit(photos, "waits-b")
    for state in ("queued", "running"):
        eventually(lambda state=state: (metric(trainer, "detex_trainer_oldest_job_seconds", state=state) or 0) > 0)

    def up(dependency: str) -> float | None:
        return metric(trainer, "detex_trainer_dependency_up", dependency=dependency)

    ready = {"grpc_service": "detex.v1.TrainerService"}
    eventually(lambda: (up("object_store"), up("database")) == (1, 1))
    eventually(lambda: metric(trainer, "detex_ready", **ready) == 1)
    away = trainer.store_folder.with_name("away")
    trainer.store_folder.rename(away)
    eventually(lambda: up("object_store") == 0)
    assert up("database") == 1
    eventually(lambda: metric(trainer, "detex_ready", **ready) == 0)
    assert (metric(trainer, "detex_trainer_dependency_failures_total", dependency="object_store") or 0) >= 1
    shutil.rmtree(trainer.store_folder, ignore_errors=True)
    away.rename(trainer.store_folder)
    eventually(lambda: up("object_store") == 1)
    eventually(lambda: metric(trainer, "detex_ready", **ready) == 1)

    trainer.go("waits-a")
    trainer.ended(running.job_id)
    assert metric(trainer, "detex_trainer_jobs_ended_total", method="detex", state="succeeded") == 1
    records = [json.loads(line) for line in trainer.log if line.startswith("{")]
    told = [record for record in records if record.get("job_id") == running.job_id]
    assert {"begins", "succeeded"} <= {word for record in told for word in record["message"].replace(",", "").split()}
    assert {record["tenant"] for record in told} == {"default"}
    assert all("job_id" in record for record in records if f"job {running.job_id}" in record["message"])
