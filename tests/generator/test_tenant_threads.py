"""A tenant whose work takes for ever leaves threads to the others, wherever requests wait for the object store."""

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detex_core.artifact import ConceptArchive
from detex_core.object_store import FolderStore
from detex_core.tenant_threads import TenantThreads
from detex_diffusion.base_model import BaseModel
from detex_protos.v1.common_pb2 import ConceptReference
from detex_protos.v1.generator_pb2 import PrefetchConceptRequest
from tests.generator.published_concepts import publish, random_concept
from tests.generator.running_generator import generator_settings, running, wait_until

GREEDY = (("detex-tenant", "greedy"),)


@settings(max_examples=40)
@given(
    threads=st.integers(1, 6),
    works=st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=40),
)
def test_all_is_done_once_and_no_tenant_has_more_than_its_threads(threads: int, works: list[tuple[str, bool]]) -> None:
    pool = TenantThreads(threads, "test")
    lock, running_now, most, done = threading.Lock(), Counter[str](), Counter[str](), list[int]()

    def work(tenant: str, number: int, fails: bool) -> int:
        with lock:
            running_now[tenant] += 1
            most[tenant] = max(most[tenant], running_now[tenant])
        with lock:
            running_now[tenant] -= 1
            done.append(number)
        if fails:
            raise ValueError(number)
        return number

    futures = [
        pool.submit(tenant, lambda tenant=tenant, number=number, fails=fails: work(tenant, number, fails))
        for number, (tenant, fails) in enumerate(works)
    ]
    for number, (future, (_, fails)) in enumerate(zip(futures, works, strict=True)):
        if fails:
            with pytest.raises(ValueError, match=str(number)):
                future.result(30)
        else:
            assert future.result(30) == number
    assert sorted(done) == list(range(len(works)))
    assert all(count <= max(1, threads - max(1, threads // 4)) for count in most.values())
    pool.shutdown()


@pytest.mark.parametrize("threads", [2, 4, 8])
def test_who_comes_later_does_not_wait_for_who_holds_threads(threads: int) -> None:
    pool, gate = TenantThreads(threads, "test"), threading.Event()
    held = [pool.submit("greedy", gate.wait) for _ in range(5 * threads)]
    assert pool.submit("other", lambda: "done").result(30) == "done"
    gate.set()
    assert all(each.result(30) for each in held)
    pool.shutdown()


def test_what_waits_at_the_end_is_cancelled() -> None:
    pool, gate, inside = TenantThreads(1, "test"), threading.Event(), threading.Event()

    def hold() -> None:
        inside.set()
        gate.wait()

    first, second = pool.submit("a", hold), pool.submit("b", lambda: None)
    assert inside.wait(30)
    pool.shutdown()
    gate.set()
    first.result(30)
    assert second.cancelled()
    with pytest.raises(RuntimeError):
        pool.submit("a", lambda: None)


@pytest.mark.parametrize("stage", ["resolve", "read"])
@pytest.mark.parametrize("call", ["Generate", "PrefetchConcept"])
def test_a_tenant_whose_concepts_do_not_come_holds_up_no_other(
    model_folders: dict[str, Path],
    base_model: BaseModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    call: str,
) -> None:
    store = FolderStore(tmp_path / "store")
    publish(store, base_model, "mug", random_concept(base_model, 1))
    names = [f"slow-{number}" for number in range(12)]
    for name in names:
        publish(store, base_model, name, random_concept(base_model, 2), tenant="greedy")
    gate, held = threading.Event(), threading.Semaphore(0)
    real: Callable[..., Any] = getattr(ConceptArchive, stage)

    def slow(archive: ConceptArchive, first: Any, *more: Any, **options: Any) -> Any:
        if first == "greedy" or getattr(getattr(first, "manifest", None), "tenant", "") == "greedy":
            held.release()
            assert gate.wait(120)
        return real(archive, first, *more, **options)

    monkeypatch.setattr(ConceptArchive, stage, slow)
    generator_with = generator_settings(model_folders, tmp_path / "store", loading_threads=4, slots=4)
    with running(generator_with) as generator:
        if call == "Generate":
            calls = [generator.start("greedy", prompt=f"[{name}]", steps=1) for name in names]
        else:
            requests = [PrefetchConceptRequest(reference=ConceptReference(name=name)) for name in names]
            calls = [generator.stub.PrefetchConcept.future(each, metadata=GREEDY) for each in requests]
        for _ in range(3):
            assert held.acquire(timeout=60)
        try:
            if call == "Generate":
                assert len(generator.draw(prompt="[mug] on a table", steps=1)) == 1
            else:
                mug = PrefetchConceptRequest(reference=ConceptReference(name="mug"))
                assert generator.stub.PrefetchConcept(mug, timeout=60).concept.size_bytes
            assert not gate.is_set()
        finally:
            gate.set()
        for each in calls:
            if call == "Generate":
                assert any(event.HasField("image") for event in each)
            else:
                each.result(60)
        wait_until(lambda: generator.generator.engine.active_requests == 0)
