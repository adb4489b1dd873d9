"""Two sample subjects in one picture, and a photo in new scenes: with places and without, in one sheet to look at.

Run: python -m benchmarks.composition --out DIR [--subjects green-mug dotted-vase] [--steps N] [--seed S]

Starts trainer and generator as processes on this machine, learns two sample subjects, and draws both side by side: with
the prompt alone, with their places read jointly, blended, and blended with places exchanged. Then it keeps a product's
pixels in new scenes, and draws a photo anew. Writes `sheet.png`, and every picture with its provenance. A subject that
DIR holds already, from an earlier run, is not learned again.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from PIL import Image

from detex_client import Box, Edit, EditKind, GeneratorClient, PictureRequest, Region, RegionMode, TrainerClient
from detex_client.cli.serve import data_environment
from detex_client.demo.contact_sheet import Section, Tile, contact_sheet
from detex_client.demo.service_process import ServiceProcess
from detex_client.generator_client import RequestFailed
from detex_client.hyperparameters import Hyperparameters
from detex_client.picture import GeneratedPicture
from detex_showroom import SampleSubject, sample_subjects

SIDE = 128  # of the embedded base model
LEFT, RIGHT = Box(0.0, 0.0, 0.5, 1.0), Box(0.5, 0.0, 1.0, 1.0)
SCENES = ("on a beach", "in the snow", "on a wooden table")
PICTURES = 3
_WHOLE_PROMPT = "Left: the prompt alone. Right: one prompt, the words of a subject there in its place alone (joint)"
_OWN_PROMPTS = "Left: a prompt for each place (blend). Right: the same with places exchanged"
_PHOTO = "Left: the product's own pixels in a new scene. Right: its photo drawn anew, strength 0.6"
WIDER = 2  # how many times larger the sheet shows a picture


def main() -> None:
    """Parse the command line and draw the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the sheet, the pictures and all data")
    parser.add_argument("--subjects", nargs=2, default=("green-mug", "dotted-vase"), metavar="NAME")
    parser.add_argument("--steps", type=int, help="optimisation steps; the method's where absent")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    subjects = {subject.name: subject for subject in sample_subjects()}
    first, second = (subjects[name] for name in arguments.subjects)
    begun = time.monotonic()
    with _services(arguments.out) as (trainer, generator):
        known = {concept.reference.name for concept in trainer.concepts()}
        for subject in (first, second):
            if subject.name in known:
                continue
            _learn(subject, trainer, arguments.steps, arguments.seed)
            print(f"{time.monotonic() - begun:7.1f} s  {subject.name} is learned", flush=True)
        requests = [*_side_by_side(first, second, arguments.seed), *_edits(first, arguments.seed)]
        pictures = _drawn(generator, [request for _, request in requests])
    folder = arguments.out / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for index, picture in enumerate(pictures):
        picture.save(folder / f"{index:02d}_seed-{picture.seed}.png")
    sections = []
    for heading in dict.fromkeys(heading for heading, _ in requests):
        found = [(request, picture) for (of, request), picture in zip(requests, pictures, strict=True) if of == heading]
        sections.append(Section(heading, [Tile(_enlarged(picture), request.prompt) for request, picture in found]))
    photos = [Tile(_opened(s.photos[i].image_path), s.name) for s in (first, second) for i in range(3)]
    sheet = contact_sheet(
        "Two subjects, each in its place", "one base model, no merged weights", [Section("Photos", photos), *sections]
    )
    sheet.save(arguments.out / "sheet.png")
    print(f"{time.monotonic() - begun:7.1f} s  {arguments.out / 'sheet.png'}")


@contextmanager
def _services(folder: Path) -> Iterator[tuple[TrainerClient, GeneratorClient]]:
    with ExitStack() as stack:
        addresses = []
        for name in ("trainer", "generator"):
            environment = data_environment(folder / "data", name)
            process = ServiceProcess(name, environment=environment, log=folder / "logs" / f"{name}.log")
            addresses.append(stack.enter_context(process))
        trainer = stack.enter_context(TrainerClient(addresses[0].address))
        generator = stack.enter_context(GeneratorClient(addresses[1].address))
        addresses[0].wait_until_serving(lambda: trainer.serving(1.0))
        addresses[1].wait_until_serving(lambda: generator.serving(1.0))
        yield trainer, generator


def _learn(subject: SampleSubject, trainer: TrainerClient, steps: int | None, seed: int) -> None:
    knobs: Hyperparameters = {"seed": seed}
    if steps is not None:
        knobs["steps"] = steps
    trainer.train(
        [photo.image_path for photo in subject.photos],
        masks=[photo.mask_path for photo in subject.photos],
        class_word=subject.class_word,
        name=subject.name,
        **knobs,
    )


def _side_by_side(first: SampleSubject, second: SampleSubject, seed: int) -> list[tuple[str, PictureRequest]]:
    prompt = f"[{first.name}] next to [{second.name}] {SCENES[0]}"
    straight = (Region(first.name, LEFT), Region(second.name, RIGHT))
    exchanged = (Region(first.name, RIGHT), Region(second.name, LEFT))
    variants: list[tuple[str, tuple[Region, ...], RegionMode | None]] = [
        (_WHOLE_PROMPT, (), None),
        (_WHOLE_PROMPT, straight, RegionMode.JOINT),
        (_OWN_PROMPTS, straight, RegionMode.BLEND),
        (_OWN_PROMPTS, exchanged, RegionMode.BLEND),
    ]
    return [
        (heading, PictureRequest(prompt, seed=seed + i, width=2 * SIDE, height=SIDE, regions=regions, region_mode=mode))
        for heading, regions, mode in variants
        for i in range(PICTURES)
    ]


def _edits(subject: SampleSubject, seed: int) -> list[tuple[str, PictureRequest]]:
    photo = subject.photos[0]
    kept = Edit(EditKind.KEEP_PRODUCT, photo.image_path, photo.mask_path, shadow=0.4)
    again = Edit(EditKind.IMAGE_TO_IMAGE, photo.image_path, strength=0.6)
    requests = [
        # Words of the scene alone, and away from another product beside the one that is there.
        *(PictureRequest(scene, f"a {subject.class_word}", seed=seed, edit=kept) for scene in SCENES),
        *(PictureRequest(f"[{subject.name}] {scene}", seed=seed, edit=again) for scene in SCENES),
    ]
    return [(_PHOTO, request) for request in requests]


def _drawn(generator: GeneratorClient, requests: Sequence[PictureRequest]) -> list[GeneratedPicture]:
    """The pictures in the order of their requests, all drawn over one stream."""
    pictures: dict[int, GeneratedPicture] = {}
    for news in generator.generate_many(requests):
        if isinstance(news.event, RequestFailed):
            raise news.event.error
        if isinstance(news.event, GeneratedPicture):
            pictures[news.request_index] = news.event
    return [pictures[index] for index in range(len(requests))]


def _enlarged(picture: GeneratedPicture) -> Image.Image:
    image = picture.image()
    return image.resize((image.width * WIDER, image.height * WIDER), Image.Resampling.LANCZOS)


def _opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


if __name__ == "__main__":
    main()
