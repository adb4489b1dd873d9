"""Errors and warnings name the file that they are about, in the client and on the command line, by a real trainer."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from typer.testing import CliRunner

from detex_client import DetexClientError, TrainerClient, TrainingSet, find_training_photos
from detex_client.cli.application import application
from tests.trainer.running_trainer import RunningTrainer
from tests.trainer.uploads import encoded, mask, photo


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTrainer]:
    """A trainer that takes masks of 64 KiB at most and looks for no subjects."""
    running = RunningTrainer(tmp_path_factory.mktemp("trainer"), segmenter="none", max_file_bytes=64 * 1024)
    yield running
    assert running.terminate() == 0


@pytest.fixture
def client(trainer: RunningTrainer) -> Iterator[TrainerClient]:
    with TrainerClient(trainer.address) as client:
        yield client


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photos, the second with a mask."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, name in enumerate(("back", "front", "side")):
        (folder / f"{name}.png").write_bytes(encoded(photo(index)))
    (folder / "front.mask.png").write_bytes(encoded(mask()))
    return folder


def uploaded(client: TrainerClient, folder: Path) -> TrainingSet:
    return client.upload(find_training_photos([folder]), class_word="mug", keep_photos=True)


def told(trainer: RunningTrainer, *arguments: str | Path) -> tuple[int, str]:
    """Exit code and standard error of a command line."""
    outcome = CliRunner().invoke(
        application, [str(each) for each in arguments], env={"DETEX_TRAINER_ADDRESS": trainer.address}
    )
    return outcome.exit_code, outcome.stderr


def test_a_photo_of_several_that_is_refused_is_named(
    trainer: RunningTrainer, client: TrainerClient, photos: Path
) -> None:
    (photos / "side.png").write_bytes(b"no picture")
    with pytest.raises(DetexClientError) as raised:
        uploaded(client, photos)
    assert raised.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert raised.value.message.startswith("photo 2 (side.png): files[3]: must be a still PNG")
    assert raised.value.violations[0].description.startswith("photo 2 (side.png): must be a still PNG")
    code, error = told(trainer, "train", photos, "--class-word", "mug", "--name", "my-mug", "--no-wait")
    assert code == 2
    assert "photo 2 (side.png): files[3]: must be a still PNG" in error


def test_a_mask_of_another_size_is_named(client: TrainerClient, photos: Path) -> None:
    (photos / "front.mask.png").write_bytes(encoded(mask((64, 40))))
    with pytest.raises(
        DetexClientError,
        match=r"^mask of photo 1 \(front\.mask\.png\): files\[2\]: must be the size of its photo, .*, got 64 x 40",
    ):
        uploaded(client, photos)


def test_a_file_that_is_gone_is_named_with_its_place(client: TrainerClient, photos: Path) -> None:
    found = find_training_photos([photos])
    (photos / "front.mask.png").unlink()
    with pytest.raises(
        DetexClientError, match=r"^masks\[1\]: must be a readable file, got .*front\.mask\.png \(No such file"
    ):
        client.upload(found, class_word="mug")


def test_stored_photos_and_warnings_keep_the_names(client: TrainerClient, photos: Path) -> None:
    (photos / "side.png").write_bytes((photos / "back.png").read_bytes())
    training_set = uploaded(client, photos)
    assert [each.name for each in training_set.photos] == ["0 (back.png)", "1 (front.png)", "2 (side.png)"]
    assert client.mask(training_set.training_set_id, 1).photo.file_name == "front.png"
    assert any("Photos 0 (back.png) and 2 (side.png) are the same file" in each for each in training_set.warnings)


def test_a_mask_in_the_place_of_one_is_named_with_its_photo(
    trainer: RunningTrainer, client: TrainerClient, photos: Path, tmp_path: Path
) -> None:
    training_set_id = uploaded(client, photos).training_set_id
    wrong = tmp_path / "redrawn.png"
    wrong.write_bytes(encoded(mask((64, 40))))
    code, error = told(trainer, "photos", "replace-mask", training_set_id, "1", wrong)
    assert code == 2
    assert 'photo 1 (front.png): mask "redrawn.png": must be the size of its photo' in error
    wrong.write_bytes(bytes(64 * 1024 + 1))
    code, error = told(trainer, "photos", "replace-mask", training_set_id, "1", wrong)
    assert code == 2, "a file that is too large is bad input, and no later try succeeds"
    assert 'mask "redrawn.png": must be at most 65,536 bytes, got 65,537' in error
