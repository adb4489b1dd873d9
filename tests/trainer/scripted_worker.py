"""A worker that does what the name of its concept says, in the place of training.

It speaks the worker's protocol through the very code of the real worker. `DETEX_TEST_FOLDER` is where it meets the
tests: it writes `<concept>.started` there with its process id, and concepts that wait do so for `<concept>.go`.
"""

import io
import mmap
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from detex_core.artifact import Attribute, ConceptDraft, KeyValueForm, Manifest, publish_concept
from detex_core.errors import invalid_input
from detex_core.object_store import ObjectStore
from detex_trainer.domain.failures import DivergedError, NoRoomError, TrainingStopped
from detex_trainer.domain.job_files import outcome_key
from detex_trainer.domain.job_spec import JobSpec
from detex_trainer.domain.packing import OnEnd, PackedJob
from detex_trainer.domain.progress import JobPhase, JobPreview, JobProgress, ProgressReporter
from detex_trainer.domain.training_set import TrainingSet
from detex_trainer.worker.pack_run import TrainFunction
from detex_trainer.worker.program import run_worker

STEPS = 3


def train(
    spec: JobSpec,
    training_set: TrainingSet,
    store: ObjectStore,
    reporter: ProgressReporter,
    should_stop: Callable[[], bool],
) -> Manifest:
    folder = Path(os.environ["DETEX_TEST_FOLDER"])
    name = spec.concept_name
    with (folder / f"{name}.started").open("a") as started:
        started.write(f"{os.getpid()}\n")
    reporter.progress(JobProgress(JobPhase.PREPARING, 0, STEPS))
    reporter.progress(JobProgress(JobPhase.TRAINING, 1, STEPS, {"total": 0.5, "bad": float("nan")}, 2.0, 1.0))
    match name.partition("-")[0]:
        case "waits":
            while not (folder / f"{name}.go").exists():
                if should_stop():
                    raise TrainingStopped
                time.sleep(0.01)
        case "stubborn":
            while True:
                time.sleep(0.01)
        case "dies":
            os.kill(os.getpid(), 9)
        case "exits":
            os._exit(3)
        case "diverges":
            raise DivergedError("The loss became NaN at step 1; submit the job again with a lower learning rate.")
        case "defect":
            raise RuntimeError("a text that callers must not see")
        case "misread":
            raise invalid_input("prompt", "600 tokens", "at most 75 tokens")
        case "hungry":
            raise MemoryError
        case "swells":  # in memory that may be asked for without being refused
            taken = []
            while True:
                taken.append(mmap.mmap(-1, 16 * 1024**2))
                taken[-1].write(b"1" * len(taken[-1]))
                time.sleep(0.02)
        case "balloons":
            blocks = []
            while True:
                blocks.append(b"1" * 64 * 1024**2)
        case "silent":
            while not (folder / f"{name}.go").exists():
                time.sleep(0.01)
        case "chatty":
            print("no event", flush=True)  # noqa: T201
            os.write(1, b"nor this\n")
        case "litters":
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            (folder / f"{name}.child").write_text(str(child.pid))
    picture = io.BytesIO()
    training_set.photos[0].picture.resize((16, 16)).save(picture, "PNG")
    reporter.preview(JobPreview(2, f"a [{name}]", picture.getvalue()))
    reporter.checkpoint(2, 0.125)
    reporter.progress(JobProgress(JobPhase.TRAINING, STEPS, STEPS, {"total": 0.25}, 2.0, 0.0, 0.75, returns=1))
    reporter.progress(JobProgress(JobPhase.PUBLISHING, STEPS, STEPS))
    draft = ConceptDraft(
        name=name,
        tenant=spec.tenant,
        method=spec.method.value,
        base_model=spec.base_model.name,
        base_model_fingerprint="0" * 64,
        class_word=training_set.record.class_word,
        subject_tokens=1,
        embedding_width=24,
        attributes=tuple(Attribute(name=each, count=len(training_set.photos)) for each in spec.attributes),
        key_value=KeyValueForm(form="none", scope="words", largest_rank=0, energy_kept=1),
        dtype="float32",
        training_set_digest=training_set.record.digest,
        hyperparameters=spec.hyperparameters.model_dump(mode="json"),
        metrics={"loss_final": 0.25},
        trainer_version="0",
    )
    masks = b"".join(photo.mask.tobytes() for photo in training_set.photos if photo.mask)
    assert all(isinstance(photo.picture, Image.Image) for photo in training_set.photos)
    files = {"concept.safetensors": masks or b"no masks"}
    manifest = publish_concept(store, draft, files, outcome_key=outcome_key(spec.tenant, spec.job_id)).manifest
    match name.partition("-")[0]:
        case "lingers":
            time.sleep(0.3)  # for others to kill somebody between publishing and the word about it
        case "published":
            (folder / f"{name}.published").write_text(manifest.version)
            while not (folder / f"{name}.go").exists():
                time.sleep(0.01)
    return manifest


def train_pack(jobs: Sequence[PackedJob], store: ObjectStore, on_end: OnEnd) -> None:
    """Train jobs side by side; the whole pack fails where one of them is to do that to the others."""

    def train_one(job: PackedJob) -> None:
        try:
            outcome = train(job.spec, job.training_set, store, job.reporter, job.should_stop)
        except Exception as error:
            on_end(job, error)
        else:
            on_end(job, outcome)

    if len(jobs) > 1 and any(job.spec.concept_name.startswith("spoils") for job in jobs):
        raise RuntimeError("a text that callers must not see")
    full = [job for job in jobs[1:] if job.spec.concept_name.startswith("large")]
    for job in full:
        on_end(job, NoRoomError())
    threads = [threading.Thread(target=train_one, args=(job,)) for job in jobs if job not in full]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def give_train() -> TrainFunction:
    return train_pack


if __name__ == "__main__":
    sys.exit(run_worker(give_train))
