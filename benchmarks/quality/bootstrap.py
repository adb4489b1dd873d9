"""Estimates with bootstrap intervals over subjects, paired: a resample takes the same subjects for all columns.

Legend: n subjects, k columns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

LEVEL: Final = 0.95
RESAMPLES: Final = 5_000
_SEED: Final = 20_240_220

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value with its interval of 95 %; not a number where it cannot be told.

    Attributes:
        value: Of the subjects as they are.
        low: Percentile 2.5 of the resamples.
        high: Percentile 97.5 of the resamples.
        subjects: n.
    """

    value: float
    low: float
    high: float
    subjects: int

    @property
    def known(self) -> bool:
        """Whether there is a value."""
        return bool(np.isfinite(self.value))


def estimate(statistic: Callable[..., Array], *columns: Sequence[float]) -> Estimate:
    """A statistic of the means of columns, with its percentile bootstrap interval (Efron 1979) over subjects.

    Args:
        statistic: Takes the mean of each column, arrays (r,), and gives (r,); for example their ratio.
        columns: k columns of n values, one for each subject, in the same order.

    Raises:
        ValueError: There is no column or no subject, or the columns differ in length.
    """
    if not columns or not columns[0] or len({len(column) for column in columns}) > 1:
        raise ValueError(
            f"columns of {[len(column) for column in columns]} values; expected equal lengths of 1 or more"
        )
    table = np.array(columns, dtype=np.float64)  # (k, n)
    subjects = table.shape[1]
    chosen = np.random.default_rng(_SEED).integers(subjects, size=(RESAMPLES, subjects))
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(*table.mean(axis=1, keepdims=True))[0])
        resampled = statistic(*(column[chosen].mean(axis=1) for column in table))
    finite = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or not len(finite):
        return Estimate(float("nan"), float("nan"), float("nan"), subjects)
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high), subjects)


def mean(values: Array) -> Array:
    """The mean itself."""
    return values


def difference(values: Array, others: Array) -> Array:
    """How much larger the first mean is."""
    return values - others


def ratio(values: Array, others: Array) -> Array:
    """The first mean as a share of the second; infinite or no number where the second is 0."""
    return values / others


def ratio_of_excesses(values: Array, others: Array, base: Array) -> Array:
    """How far the first mean is above the base's, as a share of how far the second is; what is below it counts as 0."""
    share: Array = np.maximum(values - base, 0) / np.maximum(others - base, 0)
    return share
