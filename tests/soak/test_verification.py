"""That the benchmark would tell of what is lost: each loss is brought about behind the trainer's back."""

import asyncio
import io
from collections.abc import Iterator

import pytest
from PIL import Image

from benchmarks.soak.honest.caller import HonestCaller
from benchmarks.soak.honest.verification import verify
from benchmarks.soak.tenant import Addresses
from detex_core.object_store import FolderStore
from tests.trainer.running_trainer import RunningTrainer

TENANT = "honest"


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTrainer]:
    running = RunningTrainer(tmp_path_factory.mktemp("trainer"))
    yield running
    assert running.terminate() == 0


def verified(trainer: RunningTrainer, *, spoil: str) -> dict[str, list[str]]:
    """What a tenant finds lost after two uploads and a replaced mask, when something has been spoiled meanwhile."""
    store = FolderStore(trainer.store_folder)

    async def run() -> dict[str, list[str]]:
        addresses = Addresses(trainer.address, trainer.address, "", "")
        caller = HonestCaller(TENANT, addresses, side=64, seed=1)
        try:
            await caller.upload()
            await caller.upload()
            await caller.replace_mask()
            kept = caller.ledger.sets[1]
            prefix = f"training_sets/{TENANT}/{kept.training_set.training_set_id}"
            if spoil == "photo":
                other = io.BytesIO()
                Image.new("RGB", (96, 96)).save(other, "PNG")
                store.put(f"{prefix}/photo_1.png", other.getvalue())
            elif spoil == "mask":
                kept.masks[0].acknowledged = kept.masks[1].acknowledged
            elif spoil == "record":
                store.delete(f"{prefix}/set.json")
            elif spoil == "job":
                caller.ledger.jobs["job-that-was-lost"] = "product"
            return (await verify(caller, store)).lost
        finally:
            await caller.close()

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("spoil", "lost"),
    [
        ("nothing", set()),
        ("photo", {"photos", "masks"}),  # a mask is shown with its photo
        ("mask", {"masks"}),
        ("record", {"training sets", "photos", "masks"}),
        ("job", {"jobs", "lists of jobs"}),
    ],
)
def test_each_loss_is_told_by_its_sort(trainer: RunningTrainer, spoil: str, lost: set[str]) -> None:
    found = verified(trainer, spoil=spoil)
    assert {sort for sort in found if found[sort]} == lost
