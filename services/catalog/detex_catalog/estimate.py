"""How much a run has to do, and how long that takes by what was measured before."""

import statistics
from dataclasses import dataclass

from detex_catalog.run.run_state import PictureStatus, Rates, RunState
from detex_catalog.table.catalog import Catalog
from detex_client import DetexClientError, JobState, TrainerClient

_JOBS_LOOKED_AT = 20


@dataclass(frozen=True)
class Estimate:
    """What is left to do.

    Attributes:
        pictures: Pictures of the catalog.
        to_draw: Of them, those that are not there yet.
        concepts: Concepts of the catalog.
        to_train: Those of them that must be trained.
        minutes: How long it takes; None where too little is known.
        cost: In the currency of the price; None where no price was given, or no time is known.
        basis: Where the rates come from, or what is not known, in words.
    """

    pictures: int
    to_draw: int
    concepts: int
    to_train: tuple[str, ...]
    minutes: float | None
    cost: float | None
    basis: tuple[str, ...]


def estimate(
    catalog: Catalog,
    state: RunState,
    trainer: TrainerClient | None,
    *,
    price_per_gpu_hour: float | None = None,
    gpus: int = 1,
) -> Estimate:
    """What a run of the catalog has to do now.

    Args:
        catalog: The catalog, or the part of a shard.
        state: What earlier runs did.
        trainer: Asked for its past jobs where earlier runs have trained nothing; None asks nobody.
        price_per_gpu_hour: Price of a GPU for an hour; None leaves the cost out.
        gpus: GPUs that are paid for meanwhile.
    """
    todo = [order for order in catalog.pictures if state.picture(order).status in _TO_DO]
    names = dict.fromkeys(name for order in todo for name in order.concepts)
    to_train = tuple(
        name for name in names if catalog.concepts[name].photos and not state.concept(catalog.concepts[name]).version
    )
    basis: list[str] = []
    drawing = _drawing_seconds(len(todo), state.rates, basis)
    training = _training_seconds(len(to_train), state.rates, trainer, basis)
    minutes = None if drawing is None or training is None else round((drawing + training) / 60, 2)
    cost = None
    if price_per_gpu_hour is not None and minutes is not None:
        cost = round(minutes / 60 * price_per_gpu_hour * gpus, 2)
    return Estimate(len(catalog.pictures), len(todo), len(catalog.concepts), to_train, minutes, cost, tuple(basis))


_TO_DO = (PictureStatus.OPEN, PictureStatus.FAILED)


def _drawing_seconds(pictures: int, rates: Rates, basis: list[str]) -> float | None:
    if not pictures:
        return 0.0
    if not (rates.pictures and rates.drawing_seconds):
        basis.append("The time of a picture is not known: no earlier run of this folder has drawn any.")
        return None
    seconds = rates.drawing_seconds / rates.pictures
    basis.append(f"{seconds:.3g} seconds per picture, by {rates.pictures} pictures of earlier runs of this folder.")
    return pictures * seconds


def _training_seconds(concepts: int, rates: Rates, trainer: TrainerClient | None, basis: list[str]) -> float | None:
    if not concepts:
        return 0.0
    if rates.trained and rates.training_seconds:
        seconds = rates.training_seconds / rates.trained
        basis.append(f"{seconds:.3g} seconds per concept, by {rates.trained} concepts of earlier runs of this folder.")
        return concepts * seconds
    found = _past_jobs(trainer) if trainer is not None else []
    if not found:
        basis.append("The time of a training is not known: neither an earlier run nor the trainer has any to tell of.")
        return None
    seconds = statistics.median(found)
    basis.append(f"{seconds:.3g} seconds per concept, by {len(found)} past jobs of the trainer, one after another.")
    return concepts * seconds


def _past_jobs(trainer: TrainerClient) -> list[float]:
    try:
        page = trainer.job_page(page_size=_JOBS_LOOKED_AT, states=[JobState.SUCCEEDED])
    except DetexClientError:
        return []
    return [(job.end_time - job.start_time).total_seconds() for job in page.jobs if job.start_time and job.end_time]
