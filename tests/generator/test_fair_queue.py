"""The queue that serves tenants in turn, against its definition."""

from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from detex_generator.engine.fair_queue import FairQueue

TENANTS = st.sampled_from(["a", "b", "c"])
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), TENANTS),
        st.tuples(st.just("take"), st.none()),
        st.tuples(st.just("remove"), TENANTS),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(ACTIONS)
def test_it_takes_tenants_in_turn_and_items_in_order(actions: list[tuple[str, str | None]]) -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue()
    rounds: deque[str] = deque()
    waiting: dict[str, deque[int]] = {"a": deque(), "b": deque(), "c": deque()}
    for number, (action, tenant) in enumerate(actions):
        if action == "append" and tenant is not None:
            queue.append(tenant, (tenant, number))
            waiting[tenant].append(number)
            if tenant not in rounds:
                rounds.append(tenant)
        elif action == "take":
            taken = queue.take()
            if not rounds:
                assert taken is None
                continue
            expected = rounds.popleft()
            assert taken == (expected, waiting[expected].popleft())
            if waiting[expected]:
                rounds.append(expected)
        elif tenant is not None:
            odd = [number for number in waiting[tenant] if number % 2]
            removed = queue.remove(lambda item, tenant=tenant: item[0] == tenant and item[1] % 2 == 1)
            assert removed == [(tenant, number) for number in odd]
            waiting[tenant] = deque(number for number in waiting[tenant] if not number % 2)
            if tenant in rounds and not waiting[tenant]:
                rounds.remove(tenant)
        assert len(queue) == sum(len(numbers) for numbers in waiting.values())
