"""What all parts of Studio work with."""

from dataclasses import dataclass

from detex_client import GeneratorClient, TrainerClient
from detex_studio.drawing import DrawingDesk
from detex_studio.learning import JobNews
from detex_studio.settings import StudioSettings
from detex_studio.shelf import Shelf


@dataclass(frozen=True)
class Workshop:
    """Settings, the two services, and what is kept and under way.

    Attributes:
        settings: As told.
        trainer: The trainer.
        generator: The generator.
        shelf: What Studio keeps.
        jobs: News of training jobs.
        desk: Orders of pictures.
    """

    settings: StudioSettings
    trainer: TrainerClient
    generator: GeneratorClient
    shelf: Shelf
    jobs: JobNews
    desk: DrawingDesk
