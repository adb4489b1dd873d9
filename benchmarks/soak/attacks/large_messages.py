"""Messages of nearly the largest size, many at once, plain and compressed."""

import grpc

from benchmarks.soak.attacks import payloads
from benchmarks.soak.attacks.attacker import GENERATOR, TRAINER, Attacker

_AT_ONCE = 5


async def attack(attacker: Attacker) -> None:
    """Messages of unknown fields and messages that are none, to both services."""
    methods = (f"{GENERATOR}ListBaseModels", f"{GENERATOR}Generate", f"{TRAINER}ListJobs", f"{TRAINER}ReplaceMask")
    plain = [
        attacker.send_bytes(method, data)
        for method in methods
        for data in [payloads.large_message(), payloads.unreadable_message()] * (_AT_ONCE // 2)
    ]
    # Few, for their sender has to compress them each time.
    compressed = [
        attacker.send_bytes(method, payloads.unreadable_message(), grpc.Compression.Gzip) for method in methods[1:3]
    ]
    await attacker.together(*plain, *compressed)
