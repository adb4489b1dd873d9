"""Unseen subjects of the benchmark: photos to learn from, further photos to compare with, and others to be told from.

All of it follows from the benchmark's seed. Rendering takes about a tenth of a second a photo, so photos are kept.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from benchmarks.showroom.factors import POSES, SCENES
from benchmarks.showroom.photos import photograph, view_seed
from benchmarks.showroom.renderer import Photo, PhotoLabels, render_photo
from benchmarks.showroom.subject import Split, Subject, World, sample_subject, subject_seeds
from benchmarks.showroom.view import sample_view

_OTHERS_STREAM: Final = 1_000_003
_SAME_CLASS_STREAM: Final = 2_000_003
_BIASED_STREAM: Final = 0xB1A5


@dataclass(frozen=True)
class SubjectCounts:
    """How many photos of which kind.

    Attributes:
        photos: To learn from, 1 to 6: each in a pose and a scene of its own.
        held_out: Of the same subject, in other scenes, to compare with.
        same_class: Others of the same class, one photo each, that it must be told from.
        others: Others of any class, one photo each, that all subjects must be told from.
        world: What subjects are made of, as of `sample_subject`.
        biased: Whether all photos to learn from show one scene and one pose, so that what leaks can be seen.
    """

    photos: int = 4
    held_out: int = 8
    same_class: int = 9
    others: int = 49
    world: World = "words"
    biased: bool = False

    def __post_init__(self) -> None:
        """Check them.

        Raises:
            ValueError: A number is out of its range.
        """
        if not 1 <= self.photos <= len(POSES):
            raise ValueError(f"photos: must be 1 to {len(POSES)}, got {self.photos}")
        for name in ("held_out", "same_class", "others"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name.replace('_', '-')}: must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class BenchmarkSubject:
    """One subject with its photos.

    Attributes:
        subject: Who it is.
        photos: To learn from.
        held_out: To compare with.
        same_class: Others of its class.
    """

    subject: Subject
    photos: tuple[Photo, ...]
    held_out: tuple[Photo, ...]
    same_class: tuple[Photo, ...]

    @property
    def name(self) -> str:
        """For people, such as `mug 4711`."""
        return f"{self.subject.class_word} {self.subject.seed % 1_000_000:06d}"


def render_subject(
    subject_seed: int, split: Split, seed: int, index: int, counts: SubjectCounts, side: int, folder: Path
) -> BenchmarkSubject:
    """A subject with all its photos, rendered or read from where they were kept.

    Args:
        subject_seed: Whose.
        split: Of the others of its class.
        seed: Of the benchmark.
        index: Number of the subject in the benchmark, from 0.
        counts: How many photos.
        side: Of the photos in pixels.
        folder: Where photos are kept.
    """
    subject = sample_subject(subject_seed, world=counts.world)
    first, rest = counts.photos, counts.photos + counts.held_out
    ending = _ending(counts, side)
    own = _kept(
        folder / f"{subject_seed}_{rest}_{ending}", partial(photograph, subject_seed, rest, side, world=counts.world)
    )
    to_learn_from = own[:first]
    if counts.biased:
        to_learn_from = _kept(
            folder / f"{subject_seed}_biased_{first}_{ending}",
            partial(biased_photos, subject_seed, first, side, counts.world),
        )
    strangers = subject_seeds(split, seed + _SAME_CLASS_STREAM * (index + 1), counts.same_class + 1)
    chosen = [other for other in strangers if other != subject_seed][: counts.same_class]
    same_class = _kept(
        folder / f"{subject_seed}_same_class_{seed}_{index}_{counts.same_class}_{ending}",
        lambda: (_portrait(sample_subject(other, subject.class_word, counts.world), side) for other in chosen),
    )
    return BenchmarkSubject(subject, to_learn_from, own[first:], same_class)


def render_others(
    split: Split, seed: int, excluded: Iterable[int], counts: SubjectCounts, side: int, folder: Path
) -> tuple[Photo, ...]:
    """One photo each of subjects of any class that are none of the excluded ones; arguments as of `render_subject`."""
    excluded = set(excluded)
    strangers = subject_seeds(split, seed + _OTHERS_STREAM, counts.others + len(excluded))
    chosen = list(islice((other for other in strangers if other not in excluded), counts.others))
    return _kept(
        folder / f"others_{split}_{seed}_{counts.others}_{_ending(counts, side)}",
        lambda: (_portrait(sample_subject(other, world=counts.world), side) for other in chosen),
    )


def biased_photos(subject_seed: int, photos: int, side: int, world: World = "words") -> Iterator[Photo]:
    """Photos of the subject of a seed in one scene and one pose, which the seed chooses; all else varies."""
    rng = np.random.default_rng([_BIASED_STREAM, subject_seed])
    pose, scene = str(rng.choice(POSES)), str(rng.choice(SCENES))
    subject = sample_subject(subject_seed, world=world)
    for seed in rng.integers(1 << 53, size=photos).tolist():
        yield render_photo(subject, sample_view(seed, pose, scene), side)


def picture(photo: Photo) -> Image.Image:
    """The photo as a picture."""
    return Image.fromarray(photo.image)


def foreground(photo: Photo) -> Image.Image:
    """The photo's subject on grey."""
    cover = photo.mask[..., None].astype(np.float32) / 255
    return Image.fromarray(np.rint(photo.image * cover + 127.0 * (1 - cover)).astype(np.uint8))


def _portrait(subject: Subject, side: int) -> Photo:
    return render_photo(subject, sample_view(view_seed(subject.seed, 0)), side)


def _ending(counts: SubjectCounts, side: int) -> str:
    """Of the names of files of photos; those of the former world keep the names that they had."""
    return f"{side}px.npz" if counts.world == "words" else f"{side}px_{counts.world}.npz"


def _kept(path: Path, render: Callable[[], Iterable[Photo]]) -> tuple[Photo, ...]:
    """Photos from a file, or rendered and then written to it at once."""
    if not path.exists():
        photos = list(render())
        path.parent.mkdir(parents=True, exist_ok=True)
        partial_path = path.with_suffix(".partial")
        with partial_path.open("wb") as stream:
            np.savez_compressed(
                stream,
                images=np.stack([photo.image for photo in photos]),
                masks=np.stack([photo.mask for photo in photos]),
                labels=np.array(json.dumps([photo.labels.model_dump(mode="json") for photo in photos])),
            )
        partial_path.replace(path)
    with np.load(path) as arrays:
        labels = [PhotoLabels.model_validate(each) for each in json.loads(str(arrays["labels"]))]
        return tuple(Photo(*each) for each in zip(arrays["images"], arrays["masks"], labels, strict=True))
