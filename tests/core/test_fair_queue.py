"""The queue that gives tenants equal shares, and the turns of priority classes, against their definitions."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from detex_core.fair_queue import FairQueue
from detex_generator.engine.scheduling.class_turns import ClassTurns
from detex_generator.request.generation_request import Priority

TENANTS = st.sampled_from(["a", "b", "c"])
DEADLINES = st.sampled_from([None, 1.0, 2.0])
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), TENANTS, DEADLINES),
        st.tuples(st.just("take"), TENANTS, DEADLINES),
        st.tuples(st.just("remove"), TENANTS, DEADLINES),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(ACTIONS)
def test_a_tenant_gets_its_earliest_deadline_first_and_nothing_is_lost(
    actions: list[tuple[str, str, float | None]],
) -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue()
    waiting: dict[str, dict[int, float]] = {"a": {}, "b": {}, "c": {}}
    for number, (action, tenant, deadline) in enumerate(actions):
        if action == "append":
            queue.append(tenant, (tenant, number), cost=1 + number % 3, deadline=deadline)
            waiting[tenant][number] = float("inf") if deadline is None else deadline
        elif action == "take":
            taken = queue.take()
            assert (taken is None) == (not any(waiting.values()))
            if taken is not None:
                whose = waiting[taken[0]]
                assert taken[1] == min(whose, key=lambda each: (whose[each], each))
                del whose[taken[1]]
        else:
            odd = [each for each in waiting[tenant] if each % 2]
            removed = queue.remove(lambda item, tenant=tenant: item[0] == tenant and item[1] % 2 == 1)
            assert removed == [(tenant, each) for each in odd]
            waiting[tenant] = {each: due for each, due in waiting[tenant].items() if not each % 2}
        assert len(queue) == sum(len(items) for items in waiting.values())


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=4), st.integers(1, 200))
def test_tenants_that_always_wait_get_equal_shares_of_the_cost(costs: list[int], turns: int) -> None:
    queue: FairQueue[str] = FairQueue()
    cost = dict(zip("abcd", costs, strict=False))
    for tenant in cost:
        queue.append(tenant, tenant, cost=cost[tenant])
    given_to: Counter[str] = Counter()
    for _ in range(turns):
        tenant = queue.take()
        assert tenant is not None
        given_to[tenant] += cost[tenant]
        queue.append(tenant, tenant, cost=cost[tenant])
        # Goyal, Vin and Cheng 1996, theorem 1: no two differ by more than one item of each.
        shares = {each: given_to[each] for each in cost}
        assert max(shares.values()) - min(shares.values()) <= 2 * max(costs)


def test_a_tenant_that_comes_back_neither_saved_up_nor_lost_turns() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(20):
        queue.append("busy", f"busy {number}")
    assert [queue.take() for _ in range(10)] == [f"busy {number}" for number in range(10)]
    for number in range(3):
        queue.append("new", f"new {number}")
    taken = [queue.take() for _ in range(6)]
    assert sorted(taken) == ["busy 10", "busy 11", "busy 12", "new 0", "new 1", "new 2"]
    assert "new 0" in taken[:2]


@settings(deadline=None)
@given(st.lists(st.sets(st.sampled_from(Priority), min_size=1), min_size=1, max_size=120))
def test_no_class_is_passed_over_for_ever_and_the_highest_goes_first(rounds: list[set[Priority]]) -> None:
    turns = ClassTurns()
    passed_over: Counter[Priority] = Counter()
    for waiting in rounds:
        chosen = turns.choose(waiting)
        assert chosen in waiting
        if all(passed_over[each] < 7 for each in waiting):
            assert chosen == max(waiting)
        for each in Priority:
            passed_over[each] = passed_over[each] + 1 if each in waiting and each is not chosen else 0
            assert passed_over[each] <= 9


def test_shares_of_classes_that_all_wait() -> None:
    turns = ClassTurns()
    chosen = Counter(turns.choose(set(Priority)) for _ in range(900))
    assert chosen[Priority.HIGH] >= 600
    assert chosen[Priority.NORMAL] >= 90
    assert chosen[Priority.LOW] >= 90
