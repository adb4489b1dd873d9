import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detex_client import DetexClientError, find_training_photos
from detex_client.training_photo import left_out


def make(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).write_bytes(b"x")
    return [folder / name for name in names]


def test_folder_gives_photos_in_natural_order_with_their_masks(tmp_path: Path) -> None:
    make(tmp_path, "photo_10.jpg", "photo_2.PNG", "mask_2.png", "photo_10.mask.png", "notes.txt", ".hidden.png")
    found = find_training_photos([tmp_path])
    assert [(each.photo.name, each.mask and each.mask.name) for each in found] == [
        ("photo_2.PNG", "mask_2.png"),
        ("photo_10.jpg", "photo_10.mask.png"),
    ]


@pytest.mark.parametrize("mask", ["mug.mask.png", "mug_mask.png", "mask_mug.png"])
def test_masks_beside_a_photo(tmp_path: Path, mask: str) -> None:
    photo, mask_path = make(tmp_path, "mug.jpeg", mask)
    assert find_training_photos([photo])[0].mask == mask_path
    # As the shell gives `*`: the mask is no photo.
    assert [each.photo for each in find_training_photos([mask_path, photo])] == [photo]


def test_a_file_called_like_a_mask_without_its_photo_is_a_photo(tmp_path: Path) -> None:
    paths = make(tmp_path, "mask_of_zorro.png", "sword.png")
    assert [each.photo for each in find_training_photos(paths)] == paths


def test_files_keep_their_order_and_come_once(tmp_path: Path) -> None:
    b, a = make(tmp_path, "b.png", "a.png")
    assert [each.photo for each in find_training_photos([b, a, b, tmp_path])] == [b, a]


def test_given_masks_and_captions_go_by_position(tmp_path: Path) -> None:
    a, b, other, _beside = make(tmp_path, "a.jpg", "b.jpg", "cut.png", "a_mask.png")
    found = find_training_photos([a, b], masks=[None, other], captions=["on a table", ""])
    assert [(each.mask, each.caption) for each in found] == [(None, "on a table"), (other, "")]


@pytest.mark.parametrize(
    ("sources", "options", "field"),
    [
        ([], {}, "photos"),
        (["missing.png"], {}, "photos"),
        (["empty"], {}, "photos"),
        (["a.png"], {"masks": ["a.png", "a.png"]}, "masks"),
        (["a.png"], {"masks": ["missing.png"]}, "masks"),
        (["a.png"], {"captions": ["x", "y"]}, "captions"),
    ],
)
def test_what_is_refused(tmp_path: Path, sources: list[str], options: dict[str, list[str]], field: str) -> None:
    make(tmp_path, "a.png")
    (tmp_path / "empty").mkdir()
    if "masks" in options:
        options = {"masks": [str(tmp_path / mask) for mask in options["masks"]]}
    with pytest.raises(DetexClientError) as raised:
        find_training_photos([tmp_path / source for source in sources], **options)
    assert raised.value.violations[0].field == field
    assert raised.value.code.name == "INVALID_ARGUMENT"


@given(numbers=st.sets(st.integers(0, 10_000), min_size=1, max_size=12), seed=st.integers())
def test_numbered_photos_are_in_the_order_of_their_numbers(
    tmp_path_factory: pytest.TempPathFactory, numbers: set[int], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("photos")
    shuffled = sorted(numbers)
    random.Random(seed).shuffle(shuffled)
    make(folder, *(f"img{number}.png" for number in shuffled))
    assert [each.photo.stem for each in find_training_photos([folder])] == [
        f"img{number}" for number in sorted(numbers)
    ]


def test_nothing_of_a_folder_is_left_out_in_silence(tmp_path: Path) -> None:
    make(tmp_path, "b.heic", "a.TIFF", "notes.txt", "clip.mov", ".hidden", "mask_a.png")
    (tmp_path / "below").mkdir()
    assert [path.name for path in left_out([tmp_path, tmp_path / "b.heic"])] == ["clip.mov", "notes.txt"]
    assert [each.photo.name for each in find_training_photos([tmp_path])] == ["a.TIFF", "b.heic"]
