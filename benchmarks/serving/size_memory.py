"""Resident memory over pictures of ever other sizes: nothing that is kept for a size may add up."""

import gc
import random
from collections.abc import Iterator

import psutil

from benchmarks.results_file import ResultRow, at_most
from benchmarks.serving.running_engine import message_of
from benchmarks.serving.setting import Setting

_SIDES = range(16, 384, 16)
_QUICK_SIDES = range(16, 96, 16)
_PARTS = 5
_MOST_GROWTH = 1.1


def size_memory_rows(setting: Setting) -> Iterator[ResultRow]:
    """Memory after a fifth of all sizes, in an order by chance and with the largest first, against that after all."""
    sides = _SIDES if setting.scale.steps > 5 else _QUICK_SIDES
    sizes = [(width, height) for width in sides for height in sides]
    random.Random(0).shuffle(sizes)
    largest = (sides[-1], sides[-1])
    sizes.remove(largest)
    sizes.insert(0, largest)
    process, resident = psutil.Process(), []
    with setting.engine() as engine:
        for number, (width, height) in enumerate(sizes, 1):
            engine.draw_one(message_of(setting.asks.ask(number % 8), 1, width=width, height=height))
            if number % (len(sizes) // _PARTS) == 0:
                gc.collect()
                resident.append(process.memory_info().rss)
                setting.report(f"{number} sizes: {resident[-1] / 2**20:,.0f} MiB")
    yield ResultRow(
        what=f"resident memory after pictures of {len(sizes)} sizes, against after a fifth of them",
        value=round(resident[-1] / resident[0], 3),
        reach=at_most(_MOST_GROWTH),
        runs=tuple(round(each / resident[0], 3) for each in resident),
        note=f"{sides[0]} to {sides[-1]} pixels a side, one step each, the largest first: "
        + ", ".join(f"{each / 2**20:,.0f}" for each in resident)
        + " MiB after each fifth",
    )
