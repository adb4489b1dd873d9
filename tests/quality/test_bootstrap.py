import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.quality.bootstrap import difference, estimate, mean, ratio, ratio_of_excesses

values = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12)


@given(values)
def test_an_interval_holds_the_mean_and_lies_within_the_values(column: list[float]) -> None:
    found = estimate(mean, column)
    assert found.value == pytest.approx(np.mean(column))
    assert min(column) - 1e-9 <= found.low <= found.value + 1e-9
    assert found.value - 1e-9 <= found.high <= max(column) + 1e-9
    assert found.subjects == len(column)


@given(values, st.floats(-1.0, 1.0))
def test_pairs_are_kept_together(column: list[float], shift: float) -> None:
    found = estimate(difference, [value + shift for value in column], column)
    assert (found.low, found.value, found.high) == pytest.approx((shift, shift, shift), abs=1e-9)


def test_the_interval_is_that_of_the_normal_distribution_for_many_subjects() -> None:
    column = np.random.default_rng(0).normal(3.0, 2.0, 900).tolist()
    found = estimate(mean, column)
    deviation = float(np.std(column)) / math.sqrt(len(column))
    assert found.low == pytest.approx(found.value - 1.96 * deviation, abs=0.25 * deviation)
    assert found.high == pytest.approx(found.value + 1.96 * deviation, abs=0.25 * deviation)


def test_ratios_are_of_means_and_not_means_of_ratios() -> None:
    assert estimate(ratio, [0.0, 1.0], [0.5, 1.0]).value == pytest.approx(1.0 / 1.5)


def test_excesses_below_the_base_count_as_none() -> None:
    assert estimate(ratio_of_excesses, [0.2, 0.2], [0.6, 0.6], [0.1, 0.1]).value == pytest.approx(0.2)
    assert estimate(ratio_of_excesses, [0.05, 0.05], [0.6, 0.6], [0.1, 0.1]).value == 0.0


@pytest.mark.parametrize("columns", [([0.0, 0.0],) * 2, ([0.1], [0.0])])
def test_a_ratio_to_nothing_is_no_number(columns: tuple[Sequence[float], Sequence[float]]) -> None:
    assert not estimate(ratio, *columns).known


@pytest.mark.parametrize("columns", [(), ([],), ([1.0], [1.0, 2.0])])
def test_columns_must_fit(columns: tuple[list[float], ...]) -> None:
    with pytest.raises(ValueError, match="expected equal lengths"):
        estimate(mean, *columns)
