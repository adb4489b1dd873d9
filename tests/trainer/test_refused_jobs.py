"""What cannot be trained is refused before anything trains, by photo, field and limit."""

import unicodedata
from collections.abc import Iterator

import grpc
import pytest

from detex_protos.v1 import common_pb2, trainer_pb2
from tests.trainer.refusals import refusal
from tests.trainer.running_trainer import RunningTrainer
from tests.trainer.uploads import cut_out, encoded, file, header, photo, stream

pytestmark = pytest.mark.slow

Knobs = trainer_pb2.Hyperparameters
DETEX, TEXTUAL_INVERSION = common_pb2.METHOD_DETEX, common_pb2.METHOD_TEXTUAL_INVERSION
LONG = "green mug " * 99


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTrainer]:
    """A trainer that knows its base model."""
    base_models = '[{"name": "showroom", "source": "embedded"}]'
    running = RunningTrainer(
        tmp_path_factory.mktemp("trainer"), base_models=base_models, max_job_memory_bytes=2 * 1024**3
    )
    running.stub.ListTrainableBaseModels(trainer_pb2.ListTrainableBaseModelsRequest(), timeout=150)
    yield running
    assert running.terminate() == 0


def upload(trainer: RunningTrainer, class_word: str = "mug", *captions: str) -> trainer_pb2.TrainingSet:
    parts = [
        file(encoded(cut_out(index)), index, caption=caption, file_name=f"cup_{index}.png")
        for index, caption in enumerate(captions or ("", ""))
    ]
    return trainer.stub.UploadTrainingSet(stream(header(class_word), *parts), timeout=60).training_set


def test_captions_that_no_training_could_read_are_refused_by_photo(trainer: RunningTrainer) -> None:
    refused = refusal(lambda: upload(trainer, "mug", "", LONG, LONG))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_INPUT")
    assert refused.fields == ("files[1].caption", "files[2].caption")
    assert "photo 1 (cup_1.png): files[1].caption: must be at most " in refused.sentence
    assert "photo 2 (cup_2.png)" in refused.sentence


@pytest.mark.parametrize("class_word", ["\u9f98" * 64, "陶器のマグカップ" * 3 + "白い花柄付き"])
def test_class_words_that_no_training_could_read_are_refused(trainer: RunningTrainer, class_word: str) -> None:
    refused = refusal(lambda: upload(trainer, class_word))
    assert refused.fields == ("header.class_word",)
    assert "tokens" in refused.sentence
    assert class_word[:8] in refused.sentence


@pytest.mark.parametrize("class_word", ["café", "がま", "मग"])
def test_class_words_are_taken_however_their_marks_are_written(trainer: RunningTrainer, class_word: str) -> None:
    taken = upload(trainer, unicodedata.normalize("NFD", class_word))
    assert taken.class_word == unicodedata.normalize("NFC", class_word)


def test_files_are_named_as_their_caller_names_them(trainer: RunningTrainer) -> None:
    parts = [header(), file(encoded(photo()), 0), file(b"hello", 1, file_name="tasse\n\x1b[31m.jpg")]
    refused = refusal(lambda: trainer.stub.UploadTrainingSet(stream(*parts), timeout=60))
    assert refused.fields == ("files[1]",)
    assert refused.sentence.startswith("photo 1 (tasse\\n\\x1b[31m.jpg): files[1]: must be a still PNG")


@pytest.mark.parametrize(
    ("captions", "fields", "expected", "accepted"),
    [
        (
            ("", "red " * 35),
            {"method": DETEX},
            "photos[1].caption",
            "photo 1 (cup_1.png): photos[1].caption: must be at most",
        ),
        ((), {"method": DETEX, "attributes": [c * 32 for c in "abcdefgh"]}, "attributes", "tokens (8 words"),
        ((), {"hyperparameters": Knobs(resolution=40)}, "hyperparameters.resolution", "a multiple of 32"),
        (
            (),
            {"hyperparameters": Knobs(resolution=512, batch_size=64, steps=1)},
            "hyperparameters.batch_size",
            "to fit into 2.0 GiB",
        ),
        (
            (),
            {"hyperparameters": Knobs(resolution=2048, batch_size=1, steps=1)},
            "hyperparameters.resolution",
            "must be smaller to fit into 2.0 GiB",
        ),
        (
            (),
            {"hyperparameters": Knobs(resolution=2048, batch_size=64, steps=20_000)},
            "hyperparameters.steps",
            "at most 500,000 megapixels",
        ),
    ],
)
def test_jobs_that_cannot_be_trained_are_refused(
    trainer: RunningTrainer, captions: tuple[str, ...], fields: dict[str, object], expected: str, accepted: str
) -> None:
    training_set = upload(trainer, "mug", *captions)
    chosen = {"method": TEXTUAL_INVERSION, **fields}
    refused = refusal(lambda: trainer.submit(training_set.training_set_id, "ok-never", **chosen))
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, (expected,))
    assert accepted in refused.sentence


def test_jobs_that_can_be_trained_are_taken(trainer: RunningTrainer) -> None:
    training_set = upload(trainer, "マグカップ", "a red マグカップ on a table", "")
    for name, method in (("ok-detex", DETEX), ("ok-inversion", TEXTUAL_INVERSION)):
        job = trainer.submit(training_set.training_set_id, name, method=method)
        assert trainer.ended(job.job_id).state == trainer_pb2.JOB_STATE_SUCCEEDED
