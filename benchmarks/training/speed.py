"""Steps per second of one concept against the peers, and of many concepts in one pack against one after another."""

import statistics
import time
from collections.abc import Callable, Iterator

from benchmarks.results_file import ResultRow, at_least, median_row
from benchmarks.training.peers import PEERS
from benchmarks.training.runs import make_run
from benchmarks.training.scale import Scale
from detex_diffusion.base_model import BaseModel
from detex_showroom.assets import sample_subjects
from detex_trainer.learning.training.loop import TrainingPack


def peer_rows(base_model: BaseModel, scale: Scale) -> Iterator[ResultRow]:
    """Custom Diffusion and textual inversion: ours and the peer's in turn, over the same photos."""
    subject = sample_subjects()[0]
    paths = [photo.image_path for photo in subject.photos]
    for method in ("custom_diffusion", "textual_inversion"):
        began = time.perf_counter()
        run = make_run(base_model, subject, method, seed=0, batch=scale.batch)
        prepared_seconds = time.perf_counter() - began
        pack = TrainingPack(base_model)
        pack.add(run, [])
        peer = PEERS[method](base_model.folder, paths, subject.class_word, size=base_model.height, batch=scale.batch)
        ours, theirs = _in_turn(pack.advance, peer.step, scale.warm_up_steps, scale.block_steps, scale.blocks)
        ratio = statistics.median(ours) / statistics.median(theirs)
        yield median_row(f"steps per second, {method}", ours, "steps/s", peer_runs=theirs, note=f"batch {scale.batch}")
        yield ResultRow(
            what=f"steps per second, {method}, against a loop as in diffusers' examples",
            value=ratio,
            unit="x",
            reach=at_least(2.0),
            runs=tuple(one / other for one, other in zip(ours, theirs, strict=True)),
            note="ratio of the medians; runs are the ratios of neighbouring blocks",
        )
        yield ResultRow(
            what=f"seconds before the first step, {method}",
            value=prepared_seconds,
            unit="s",
            note="photos varied and encoded once, which the peer does in every step",
        )


def packing_rows(base_model: BaseModel, scale: Scale, method: str = "detex") -> Iterator[ResultRow]:
    """Many concepts in one pack against the same one after another."""
    subjects = sample_subjects()

    def packs(together: bool) -> list[TrainingPack]:
        made = []
        shared = TrainingPack(base_model)
        for index in range(scale.concepts):
            subject = subjects[index % len(subjects)]
            pack = shared if together else TrainingPack(base_model)
            pack.add(make_run(base_model, subject, method, seed=index, batch=scale.batch), [])
            made.append(pack)
        return [shared] if together else made

    [packed], alone = packs(together=True), packs(together=False)

    def advance_alone() -> None:
        for pack in alone:
            pack.advance()

    one, other = _in_turn(packed.advance, advance_alone, 1, scale.pack_steps, scale.pack_blocks)
    ratio = statistics.median(one) / statistics.median(other)
    yield median_row(
        f"concept steps per second, {scale.concepts} concepts of {method} in one pack",
        [scale.concepts * each for each in one],
        "steps/s",
        peer_runs=[scale.concepts * each for each in other],
        note="the other value: the same concepts one after another",
    )
    yield ResultRow(
        what=f"{scale.concepts} concepts of {method} packed against one after another",
        value=ratio,
        unit="x",
        reach=at_least(3.0 if base_model.device.type == "cuda" else 1.5),
        runs=tuple(a / b for a, b in zip(one, other, strict=True)),
        note="ratio of the medians; runs are the ratios of neighbouring blocks",
    )


def _in_turn(
    ours: Callable[[], object], theirs: Callable[[], object], warm_up: int, steps: int, blocks: int
) -> tuple[list[float], list[float]]:
    """Steps per second of both, in blocks that take turns; who begins takes turns as well."""
    for _ in range(warm_up):
        ours()
        theirs()
    speeds: tuple[list[float], list[float]] = ([], [])
    for block in range(blocks):
        sides = [(0, ours), (1, theirs)]
        for side, step in sides if block % 2 == 0 else reversed(sides):
            began = time.perf_counter()
            for _ in range(steps):
                step()
            speeds[side].append(steps / (time.perf_counter() - began))
    return speeds
