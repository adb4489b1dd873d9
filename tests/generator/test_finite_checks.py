"""What is known late is known all the same, of the right image and the right step."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detex_generator.compute.finite_checks import FiniteChecks


def test_results_at_once_tell_this_step() -> None:
    checks = FiniteChecks(late=False)
    assert checks.of_step(["a", "b"], torch.tensor([True, False]), at_once=False) == [None, 0]
    assert checks.of_step(["a"], torch.tensor([True]), at_once=False) == [None]


def test_late_results_tell_the_step_before_and_are_read_at_the_end() -> None:
    checks = FiniteChecks(late=True)
    assert checks.of_step(["a", "b"], torch.tensor([False, True]), at_once=False) == [None, None]
    # "a" failed one step ago; a new image has taken its place in between.
    assert checks.of_step(["c", "a", "b"], torch.tensor([True, False, True]), at_once=False) == [None, 1, None]
    assert checks.of_step(["b", "c"], torch.tensor([True, False]), at_once=True) == [None, 0]
    assert checks.of_step(["b"], torch.tensor([True]), at_once=True) == [None]


def test_what_is_forgotten_is_not_told() -> None:
    checks = FiniteChecks(late=True)
    checks.of_step(["a"], torch.tensor([False]), at_once=False)
    checks.forget()
    assert checks.of_step(["a"], torch.tensor([True]), at_once=True) == [None]


@settings(deadline=None)
@given(data=st.data(), steps=st.integers(1, 12), images=st.integers(1, 5))
def test_every_image_that_fails_is_told_before_it_is_done(data: st.DataObject, steps: int, images: int) -> None:
    """Numbers that are not finite stay so; whatever the moment, an image ends by its last step with the right one."""
    fails = [data.draw(st.one_of(st.none(), st.integers(1, steps))) for _ in range(images)]
    checks = FiniteChecks(late=data.draw(st.booleans()))
    live, told = dict(enumerate(fails)), {}
    for step in range(1, steps + 1):
        finite = torch.tensor([not (fail is not None and step >= fail) for fail in live.values()])
        lags = checks.of_step(list(live), finite, at_once=step == steps)
        for image, lag in zip(list(live), lags, strict=True):
            if lag is not None:
                told[image] = step - lag
                del live[image]
        if not live:
            break
    assert told == {image: fail for image, fail in enumerate(fails) if fail is not None}
