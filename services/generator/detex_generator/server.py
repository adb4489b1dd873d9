"""The process of the generator: settings, logs, exit status."""

import asyncio
import logging
import os
import sys

from pydantic import ValidationError

from detex_core.bounded_end import LAST_WORDS_SECONDS, end_within
from detex_core.errors import DetexError
from detex_core.logging import configure_logging
from detex_generator.compute.memory_allocator import keep_freed_memory
from detex_generator.settings import GeneratorSettings

_logger = logging.getLogger(__name__)


def main() -> None:
    """Entry point of `detex-generator`; settings come from the environment.

    Exits with 0 after an orderly end, with 1 where settings are wrong, a base model does not load, an address cannot be
    listened on, or the engine has come to an unplanned end.
    """
    try:
        settings = GeneratorSettings()
    except (ValidationError, DetexError) as error:
        sys.exit(f"The settings of the generator are wrong: {error}")
    configure_logging(settings)
    # Threads that spin while they wait for each other cost more than they gain: the step loop, encoding and decoding
    # each have a team of their own, and containers rarely have a core for every thread. Read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_freed_memory()
    try:
        sys.exit(asyncio.run(_serve(settings)))
    except DetexError as error:
        _logger.critical("%s", error.message)
        sys.exit(1)


async def _serve(settings: GeneratorSettings) -> int:
    # Imported late, so that wrong settings are told at once and not after the seconds that torch takes.
    from detex_generator.generator import Generator

    generator = Generator(settings)
    longest = settings.drain_delay_seconds + settings.drain_grace_seconds + LAST_WORDS_SECONDS
    bound = asyncio.create_task(end_within(generator.server.draining, longest), name="end")
    try:
        return await generator.run()
    finally:
        bound.cancel()  # a failed start; otherwise it has been set in motion
