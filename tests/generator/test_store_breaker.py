"""The breaker before the object store, as a state machine with a clock of its own."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from prometheus_client import CollectorRegistry

from detex_core.errors import NotFoundError, UnavailableError
from detex_generator.cache.store_breaker import StoreBreaker
from detex_generator.metrics import GeneratorMetrics


def _unavailable() -> str:
    raise UnavailableError("away, says the test")


def _missing() -> str:
    raise NotFoundError("not there, says the test")


class BreakerMachine(RuleBasedStateMachine):
    """Delays of 1, 2, 4 and then always 8 seconds after failures in a row; any answer ends them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.registry = CollectorRegistry()
        self.breaker = StoreBreaker(1.0, 8.0, GeneratorMetrics(self.registry), clock=lambda: self.now)
        self.failures_in_a_row = 0
        self.open_until = 0.0

    @rule(seconds=st.floats(0, 10))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(outcome=st.sampled_from(["answer", "missing", "away"]))
    def ask(self, outcome: str) -> None:
        asked = []
        refusals: list[UnavailableError] = []
        questions = {"answer": lambda: "yes", "missing": _missing, "away": _unavailable}

        def question() -> str:
            asked.append(1)
            return questions[outcome]()

        try:
            assert self.breaker.ask(question) == "yes"
        except NotFoundError:
            assert outcome == "missing"
        except UnavailableError as error:
            refusals.append(error)
        assert all(error.retry_delay_seconds for error in refusals)
        if self.failures_in_a_row and self.now < self.open_until:
            assert not asked
            return
        assert asked
        if outcome == "away":
            self.failures_in_a_row += 1
            self.open_until = self.now + min(8.0, 2.0 ** (self.failures_in_a_row - 1))
        else:
            self.failures_in_a_row = 0
        up = self.registry.get_sample_value("detex_generator_object_store_up")
        assert up == (0 if self.failures_in_a_row else 1)


BreakerMachine.TestCase.settings = settings(deadline=None, max_examples=60, stateful_step_count=30)
TestBreaker = BreakerMachine.TestCase


def test_one_at_a_time_tries_a_store_that_was_away() -> None:
    now = [0.0]
    registry = CollectorRegistry()
    breaker = StoreBreaker(1.0, 8.0, GeneratorMetrics(registry), clock=lambda: now[0])
    with pytest.raises(UnavailableError):
        breaker.ask(_unavailable)
    now[0] = 2.0
    begun, may_end = threading.Event(), threading.Event()

    def slow() -> str:
        begun.set()
        assert may_end.wait(30)
        return "yes"

    with ThreadPoolExecutor(1) as pool:
        trying = pool.submit(breaker.ask, slow)
        assert begun.wait(30)
        with pytest.raises(UnavailableError):
            breaker.ask(lambda: "not asked")
        may_end.set()
        assert trying.result(30) == "yes"
    assert breaker.ask(lambda: "yes") == "yes"
    assert registry.get_sample_value("detex_generator_object_store_refusals_total") == 1


def test_a_watch_knows_of_the_store_without_a_question() -> None:
    """Both ways: nobody has to want anything of the store for the metric to be right."""
    registry = CollectorRegistry()
    is_away = True

    def probe() -> None:
        if is_away:
            _unavailable()

    breaker = StoreBreaker(60.0, 60.0, GeneratorMetrics(registry), probe=probe)
    breaker.look()
    assert registry.get_sample_value("detex_generator_object_store_up") == 0
    with pytest.raises(UnavailableError):
        breaker.ask(lambda: "not asked")
    is_away = False
    breaker.look()
    assert registry.get_sample_value("detex_generator_object_store_up") == 1
    assert breaker.ask(lambda: "yes") == "yes"
