"""One sample subject after the other: upload, training, pictures; then the contact sheet and the facts."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from PIL import Image

from detex_client.cli.job_display import UploadDisplay, follow
from detex_client.cli.json_document import written
from detex_client.cli.picture_files import slug, write_picture
from detex_client.cli.serve import data_environment
from detex_client.cli.terminal import Terminal
from detex_client.concept import ConceptReference
from detex_client.demo.contact_sheet import Section, Tile, contact_sheet
from detex_client.demo.output_folder import OutputFolder
from detex_client.demo.scenario import Drawing, DrawingKind, drawings
from detex_client.demo.service_process import ServiceProcess
from detex_client.demo.summary import DrawnPicture, SubjectSummary, Summary, largest_child_bytes
from detex_client.errors import DetexClientError
from detex_client.generator_client import GeneratorClient, RequestFailed
from detex_client.hyperparameters import Hyperparameters
from detex_client.job import Job
from detex_client.picture import DenoisingProgress, GeneratedPicture, PictureRequest
from detex_client.trainer_client import TrainerClient
from detex_client.training_photo import TrainingPhoto
from detex_showroom import SampleSubject


@dataclass(frozen=True)
class Choices:
    """What the caller chose.

    Attributes:
        subjects: Sample subjects.
        steps: Optimisation steps; None takes the method's default.
        drawing_steps: Denoising steps; None takes the base model's default.
        seed: Seed that all others follow from.
        base_models: Base models in the words of the services' settings (JSON); None takes the embedded one.
    """

    subjects: Sequence[SampleSubject]
    steps: int | None
    drawing_steps: int | None
    seed: int
    base_models: str | None = None


class Demonstration:
    """Runs once, in `run`.

    Args:
        choices: What to show.
        folder: Where all of it goes.
        terminal: Where progress is told.
    """

    def __init__(self, choices: Choices, folder: OutputFolder, terminal: Terminal) -> None:
        self._choices = choices
        self._folder = folder
        self._terminal = terminal
        self._summary = Summary(seed=choices.seed)
        self._sections: list[Section] = []
        self.services: list[ServiceProcess] = []

    def run(self) -> Summary:
        """Start both services, show every subject, end the services, write contact sheet and summary.

        Raises:
            DetexClientError: A service did not start, or refused or failed something.
            OSError: A file cannot be written.
        """
        begun = time.monotonic()
        with ExitStack() as stack:
            with self._timed("start"):
                trainer, generator = self._start(stack)
            self._summary.base_model = next(model for model in trainer.base_models() if model.is_default)
            for subject in self._choices.subjects:
                self._show(subject, trainer, generator)
        self._summary.largest_process_bytes = largest_child_bytes()
        with self._timed("contact_sheet"):
            self._draw_contact_sheet()
        self._summary.seconds["total"] = round(time.monotonic() - begun, 2)
        self._folder.summary.write_text(written(self._summary, indent=2) + "\n", encoding="utf-8")
        return self._summary

    def _start(self, stack: ExitStack) -> tuple[TrainerClient, GeneratorClient]:
        with self._terminal.progress() as progress:
            bar = progress.bar("Starting trainer and generator")
            bar.update(0, None)
            for name in ("trainer", "generator"):
                environment = data_environment(self._folder.data, name)
                if self._choices.base_models is not None:
                    environment["DETEX_BASE_MODELS"] = self._choices.base_models
                service = ServiceProcess(name, environment=environment, log=self._folder.logs / f"{name}.log")
                self.services.append(stack.enter_context(service))
            trainer_process, generator_process = self.services
            trainer = stack.enter_context(TrainerClient(trainer_process.address))
            generator = stack.enter_context(GeneratorClient(generator_process.address))
            trainer_process.wait_until_serving(lambda: trainer.serving(1.0))
            generator_process.wait_until_serving(lambda: generator.serving(1.0))
            bar.finish()
        return trainer, generator

    def _show(self, subject: SampleSubject, trainer: TrainerClient, generator: GeneratorClient) -> None:
        self._terminal.say(f"{subject.name}: a {subject.class_word}, {len(subject.photos)} photos")
        seconds: dict[str, float] = {}
        with self._timed("upload", seconds):
            training_set_id = self._upload(subject, trainer)
        with self._timed("training", seconds):
            job = self._train(subject, training_set_id, trainer)
        concept = job.published()
        with self._timed("generation", seconds):
            wanted = drawings(subject, concept, self._choices.seed)
            pictures = self._draw(wanted, generator)
        self._sections += _sections(subject, wanted, pictures)
        self._summary.subjects.append(self._summarised(subject, job, seconds, wanted, pictures))

    def _upload(self, subject: SampleSubject, trainer: TrainerClient) -> str:
        photos = [TrainingPhoto(photo.image_path, photo.mask_path) for photo in subject.photos]
        with self._terminal.progress() as progress:
            display = UploadDisplay(progress, len(photos))
            training_set = trainer.upload(photos, class_word=subject.class_word, on_progress=display)
            display.finish()
        return training_set.training_set_id

    def _train(self, subject: SampleSubject, training_set_id: str, trainer: TrainerClient) -> Job:
        hyperparameters: Hyperparameters = {"seed": self._choices.seed}
        if self._choices.steps is not None:
            hyperparameters["steps"] = self._choices.steps
        job = trainer.submit(training_set_id, name=subject.name, **hyperparameters)
        with self._terminal.progress() as progress:
            return follow(self._terminal, progress, trainer.watch(job.job_id))

    def _draw(self, wanted: Sequence[Drawing], generator: GeneratorClient) -> list[GeneratedPicture]:
        """The pictures in the order of their drawings, all drawn over one stream."""
        requests = [
            PictureRequest(drawing.prompt, seed=drawing.seed, steps=self._choices.drawing_steps) for drawing in wanted
        ]
        pictures: dict[int, GeneratedPicture] = {}
        steps: dict[int, int] = {}
        with self._terminal.progress() as progress:
            bar = progress.bar(f"Generating {len(wanted)} pictures")
            for news in generator.generate_many(requests):
                match news.event:
                    case RequestFailed(error):
                        raise error
                    case GeneratedPicture():
                        pictures[news.request_index] = news.event
                    case DenoisingProgress(step=step, total_steps=total_steps):
                        steps[news.request_index] = step
                        done, total = sum(steps.values()), total_steps * len(wanted)
                        bar.update(done, total, amount=f"{len(pictures)}/{len(wanted)}", detail=f"{done}/{total} steps")
            bar.finish()
        return [pictures[index] for index in range(len(wanted))]

    def _summarised(
        self,
        subject: SampleSubject,
        job: Job,
        seconds: dict[str, float],
        wanted: Sequence[Drawing],
        pictures: Sequence[GeneratedPicture],
    ) -> SubjectSummary:
        folder = self._folder.pictures / subject.name
        return SubjectSummary(
            name=subject.name,
            class_word=subject.class_word,
            photos=tuple({"pose": photo.pose, "scene": photo.scene} for photo in subject.photos),
            concept=cast("ConceptReference", job.concept),
            method=job.method,
            hyperparameters=dict(job.hyperparameters),
            losses=job.progress.losses if job.progress is not None else {},
            seconds=seconds,
            pictures=tuple(
                DrawnPicture(
                    file=str(self._relative(write_picture(folder, _stem(drawing), picture.png))),
                    kind=drawing.kind,
                    prompt=drawing.prompt,
                    seed=picture.seed,
                    steps=picture.provenance.steps,
                    guidance_scale=picture.provenance.guidance_scale,
                    solver=picture.provenance.solver,
                )
                for drawing, picture in zip(wanted, pictures, strict=True)
            ),
        )

    def _draw_contact_sheet(self) -> None:
        names = ", ".join(subject.name for subject in self._choices.subjects)
        base_model = self._summary.base_model
        subtitle = (
            f"detex {self._summary.versions['detex']}, base model {base_model.name if base_model else ''}, "
            f"{self._summary.machine.cpu_cores} cores"
        )
        contact_sheet(f"From photos to a concept: {names}", subtitle, self._sections).save(self._folder.contact_sheet)
        self._summary.contact_sheet = str(self._relative(self._folder.contact_sheet))

    def _relative(self, path: Path) -> Path:
        return path.relative_to(self._folder.root)

    @contextmanager
    def _timed(self, phase: str, seconds: dict[str, float] | None = None) -> Iterator[None]:
        begun = time.monotonic()
        yield
        target = self._summary.seconds if seconds is None else seconds
        target[phase] = round(time.monotonic() - begun, 2)

    def failed_service(self, error: DetexClientError) -> ServiceProcess | None:
        """The service whose log tells more about an error: one that is gone, else the one that the error speaks of."""
        for service in self.services:
            if service.exit_code not in (None, 0):
                return service
        return next((service for service in self.services if service.name in error.message.lower()), None)


def _sections(subject: SampleSubject, wanted: Sequence[Drawing], pictures: Sequence[GeneratedPicture]) -> list[Section]:
    photos = [
        Tile(_opened(photo.image_path), f"photo {index}: {photo.pose}, {photo.scene}")
        for index, photo in enumerate(subject.photos)
    ]
    drawn = list(zip(wanted, pictures, strict=True))
    scenes = [Tile(picture.image(), each.prompt) for each, picture in drawn if each.kind is DrawingKind.SCENE]
    others = [Tile(picture.image(), each.prompt) for each, picture in drawn if each.kind is not DrawingKind.SCENE]
    return [
        Section(f"{subject.name}: the photos that it was learned from", photos),
        Section("New scenes", scenes),
        Section("Pose of one photo with the background of another; another product in a photo's background", others),
    ]


def _opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _stem(drawing: Drawing) -> str:
    return f"{slug(drawing.prompt)}_seed-{drawing.seed}"
