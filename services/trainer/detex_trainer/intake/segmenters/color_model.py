"""A Gaussian mixture over colours, fitted by expectation maximisation.

Shapes: P pixels, K components, D colour channels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_MINIMUM_VARIANCE = 4.0  # of CIELAB, whose unit is about what the eye tells apart


@dataclass(frozen=True)
class ColorModel:
    """Weights (K,), means (K, D) and covariances (K, D, D) of a mixture."""

    weights: Array
    means: Array
    covariances: Array

    def log_likelihood(self, colors: Array) -> Array:
        """Log density (P,) of colours (P, D)."""
        return _log_sum(_component_log_densities(self, colors))


def fit_color_model(colors: Array, pixel_weights: Array, components: int, iterations: int = 8) -> ColorModel:
    """Fit a mixture.

    Args:
        colors: (P, D).
        pixel_weights: (P,), how much each pixel counts; their sum is above 0.
        components: K.
        iterations: Rounds of expectation maximisation.
    """
    model = _initial_model(colors, pixel_weights, components)
    for _ in range(iterations):
        logs = _component_log_densities(model, colors)
        shares = np.exp(logs - _log_sum(logs)[:, None]) * pixel_weights[:, None]  # (P, K)
        model = _weighted_model(colors, shares)
    return model


def _initial_model(colors: Array, pixel_weights: Array, components: int) -> ColorModel:
    # means along the farthest-point order: deterministic, and small distinct regions get a component of their own
    means = [np.average(colors, axis=0, weights=pixel_weights)]
    distances = np.full(len(colors), np.inf)
    for _ in range(components - 1):
        distances = np.minimum(distances, np.square(colors - means[-1]).sum(axis=1))
        means.append(colors[np.argmax(distances * pixel_weights)])
    nearest = np.square(colors[:, None, :] - np.stack(means)).sum(axis=2).argmin(axis=1)
    return _weighted_model(colors, np.eye(components)[nearest] * pixel_weights[:, None])


def _weighted_model(colors: Array, shares: Array) -> ColorModel:
    totals = shares.sum(axis=0) + 1e-9  # (K,)
    means = (shares.T @ colors) / totals[:, None]
    channels = colors.shape[1]
    covariances = np.empty((len(totals), channels, channels))
    for component, mean in enumerate(means):
        centred = colors - mean
        covariances[component] = (centred * shares[:, component, None]).T @ centred / totals[component]
    covariances += _MINIMUM_VARIANCE * np.eye(channels)
    return ColorModel(totals / totals.sum(), means, covariances)


def _component_log_densities(model: ColorModel, colors: Array) -> Array:
    logs: Array = np.empty((len(colors), len(model.weights)))
    for component, (weight, mean, covariance) in enumerate(
        zip(model.weights, model.means, model.covariances, strict=True)
    ):
        lower = np.linalg.cholesky(covariance)
        whitened = np.linalg.solve(lower, (colors - mean).T)  # (D, P)
        half_log_determinant = np.log(np.diag(lower)).sum()
        logs[:, component] = np.log(weight) - half_log_determinant - 0.5 * np.square(whitened).sum(axis=0)
    return np.asarray(logs - 0.5 * colors.shape[1] * np.log(2 * np.pi))


def _log_sum(logs: Array) -> Array:
    largest = logs.max(axis=1)
    summed: Array = largest + np.log(np.exp(logs - largest[:, None]).sum(axis=1))
    return summed
