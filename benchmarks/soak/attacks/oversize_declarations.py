"""Files of some dozen bytes that declare, and have, as many pixels as are accepted."""

from benchmarks.soak.attacks import payloads
from benchmarks.soak.attacks.attacker import Attacker
from detex_protos.v1 import generator_pb2, trainer_pb2

_REGIONS = 7


async def attack(attacker: Attacker) -> None:
    """The same file as photo and as mask, to both services, several at once."""
    huge = payloads.huge_picture()
    regions = [generator_pb2.Region(prompt="a ball", mask=huge)] * _REGIONS
    await attacker.together(
        *(attacker.edit(huge) for _ in range(4)),
        *(attacker.edit(huge, mask=huge) for _ in range(2)),
        *(attacker.draw(regions=regions) for _ in range(2)),
        *(_photos_and_masks(attacker, huge) for _ in range(2)),
        attacker.upload([payloads.thin_photo()] * 8),
    )


async def _photos_and_masks(attacker: Attacker, huge: bytes) -> None:
    set_id = await attacker.upload([huge], [huge])
    look = trainer_pb2.GetMaskRequest(training_set_id=set_id)
    replace = trainer_pb2.ReplaceMaskRequest(training_set_id=set_id, mask=huge)
    await attacker.together(
        *(attacker.ask(attacker.tenant.trainer.GetMask, look) for _ in range(6)),
        *(attacker.ask(attacker.tenant.trainer.ReplaceMask, replace) for _ in range(3)),
    )
