"""The same key, id or upload many times at once."""

from benchmarks.soak.attacks.attacker import Attacker
from benchmarks.soak.attacks.payloads import small_mask, small_photo
from detex_protos.v1 import common_pb2, generator_pb2

_TIMES = 8


async def attack(attacker: Attacker) -> None:
    """Keys of a stream, ids of uploads and keys of submissions."""
    request = generator_pb2.GenerateRequest(prompt="a mug", steps=3, width=64, height=64)
    stream = [
        generator_pb2.GenerateManyRequest(key=key, request=request) for key in ["k"] * 20 + [""] * 5 + ["l" * 129]
    ]
    upload_id = f"upload-{attacker.random.randrange(10**12):012d}"
    await attacker.together(
        attacker.draw_many(stream),
        *(attacker.upload([small_photo()], [small_mask()], upload_id=upload_id) for _ in range(_TIMES)),
    )
    if set_id := await attacker.upload_small():
        key = f"key {upload_id}"
        names = ["same"] * _TIMES + ["other"]
        method = common_pb2.METHOD_TEXTUAL_INVERSION
        await attacker.together(*(attacker.submit(set_id, name, idempotency_key=key, method=method) for name in names))
