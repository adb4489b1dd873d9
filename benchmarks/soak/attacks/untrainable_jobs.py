"""Photos and jobs that no training can use."""

from typing import Any

from benchmarks.soak.attacks.attacker import Attacker
from benchmarks.soak.attacks.payloads import small_mask, small_photo
from detex_protos.v1 import common_pb2, trainer_pb2

_CLASS_WORDS = ("\u9f98" * 64, "cafe\u0301", "mug\n", "[mug]")
_CAPTIONS = ("green mug " * 99, "a mug\n\x1b[31m {class_word} [my-mug:pose:0] %s")
_HYPERPARAMETERS: tuple[dict[str, Any], ...] = (
    {"resolution": 40},
    {"resolution": 2048, "batch_size": 64, "steps": 20_000},
    {"subject_learning_rate": 1.0, "steps": 5},
    {"subject_learning_rate": float("nan")},
)


async def attack(attacker: Attacker) -> None:
    """Words and captions that are too long, sizes that do not fit, rates that diverge."""
    for word in _CLASS_WORDS:
        await _train(attacker, await attacker.upload([small_photo()] * 2, [small_mask()] * 2, class_word=word), {})
    for caption in _CAPTIONS:
        await _train(attacker, await attacker.upload([small_photo()] * 2, [small_mask()] * 2, caption=caption), {})
    set_id = await attacker.upload_small()
    for hyperparameters in _HYPERPARAMETERS:
        await _train(attacker, set_id, hyperparameters)


async def _train(attacker: Attacker, set_id: str, hyperparameters: dict[str, Any]) -> None:
    if set_id:
        await attacker.submit(
            set_id,
            method=common_pb2.METHOD_TEXTUAL_INVERSION,
            hyperparameters=trainer_pb2.Hyperparameters(**{"steps": 1, "batch_size": 1} | hyperparameters),
        )
