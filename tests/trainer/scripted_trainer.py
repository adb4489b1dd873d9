"""The trainer as a process, but for what trains: its workers follow a script."""

import asyncio
import sys
from pathlib import Path

from detex_core.logging import configure_logging
from detex_trainer.server import serve
from detex_trainer.settings import TrainerSettings

WORKER = (sys.executable, str(Path(__file__).with_name("scripted_worker.py")))


if __name__ == "__main__":
    settings = TrainerSettings()
    configure_logging(settings)
    asyncio.run(serve(settings, WORKER))
