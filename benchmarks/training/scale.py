"""How large a run of the training benchmark is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Sizes of the measurements.

    Attributes:
        batch: Photos of a step, ours and the peer's.
        warm_up_steps: Steps before anything is timed.
        block_steps: Steps of one timed block.
        blocks: Timed blocks of each side, taken in turn.
        concepts: Concepts that are trained in one pack and one after another.
        pack_steps: Steps of every concept in one timed block.
        pack_blocks: Timed blocks of each.
        job_steps: Steps of the whole job; 0 for the default.
        jobs: Whole jobs.
        checkpoints: Checkpoints that are timed.
    """

    batch: int = 4
    warm_up_steps: int = 5
    block_steps: int = 20
    blocks: int = 9
    concepts: int = 8
    pack_steps: int = 4
    pack_blocks: int = 7
    job_steps: int = 0
    jobs: int = 2
    checkpoints: int = 15


FULL = Scale()
QUICK = Scale(
    warm_up_steps=1,
    block_steps=2,
    blocks=2,
    concepts=3,
    pack_steps=1,
    pack_blocks=2,
    job_steps=10,
    jobs=1,
    checkpoints=2,
)
