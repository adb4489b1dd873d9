"""The trainer as it ships: its own worker trains a tiny base model."""

import sys
from pathlib import Path

import pytest

from detex_core.artifact import ConceptArchive
from detex_core.object_store import FolderStore
from detex_protos.v1 import trainer_pb2
from tests.tiny_models import write_tiny_model
from tests.trainer.running_trainer import RunningTrainer
from tests.trainer.uploads import cut_out, encoded, file, header, stream

pytestmark = pytest.mark.slow


def test_photos_become_a_concept(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    trainer = RunningTrainer(
        tmp_path,
        (sys.executable, "-m", "detex_trainer"),
        base_models=f'[{{"name": "tiny", "source": "{model}"}}]',
        lease_seconds=20,
    )
    try:
        parts = stream(header("mug"), *(file(encoded(cut_out(index, (64, 64))), index) for index in range(2)))
        training_set = trainer.stub.UploadTrainingSet(parts, timeout=60).training_set
        job = trainer.submit(
            training_set.training_set_id,
            "my-mug",
            attributes=["pose"],
            hyperparameters=trainer_pb2.Hyperparameters(steps=4, batch_size=2, preview_interval_steps=2),
        )
        request = trainer_pb2.WatchJobRequest(job_id=job.job_id)
        news = list(trainer.stub.WatchJob(request, timeout=200))
        ended = news[-1].job
        assert ended.state == trainer_pb2.JOB_STATE_SUCCEEDED, ended.failure
        assert [each.preview.step for each in news if each.HasField("preview")] == [2, 4]
        assert {each.progress.phase for each in news if each.HasField("progress")} >= {trainer_pb2.JOB_PHASE_TRAINING}
        stored = ConceptArchive(FolderStore(trainer.store_folder)).resolve("default", "my-mug", ended.concept.version)
        assert stored.manifest.training_set_digest == training_set.digest
        assert [(each.name, each.count) for each in stored.manifest.attributes] == [("pose", 2)]
        (base_model,) = trainer.stub.ListTrainableBaseModels(
            trainer_pb2.ListTrainableBaseModelsRequest(), timeout=120
        ).base_models
        assert stored.manifest.base_model_fingerprint == base_model.fingerprint
        assert trainer.terminate() == 0
    finally:
        if trainer.process.poll() is None:
            trainer.kill()
