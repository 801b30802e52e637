"""Fréchet distance between two sets of feature vectors, and the metrics made of it.

Dowson and Landau, "The Fréchet distance between multivariate normal distributions", 1982; FID: Heusel et
al., NeurIPS 2017. The trace of sqrt(S1 S2) is the nuclear norm of A Bᵀ, A and B being the centred features
over sqrt(n - 1): no matrix square root is taken, so the value is right to rounding for rank-deficient
covariances (fewer frames than dimensions) too, where sqrtm and the eigenvalues of S1 S2 lose half the digits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics.base import Features, Metric, MetricError, register

FEATURES = "features"  # the array that FID extractors store, (N, D)


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Mean and covariance of a set of vectors, the covariance as a factor.

    count   N
    mean    (D,) float64
    factor  (min(N, D), D) float64; factorᵀ factor = sum over the set of (x - mean)(x - mean)ᵀ
    """

    count: int
    mean: NDArray[np.float64]
    factor: NDArray[np.float64]


def _reduce(factor: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same scatter matrix in at most D rows."""
    return np.asarray(np.linalg.qr(factor, mode="r")) if len(factor) > factor.shape[1] else factor


def _gaussian(rows: NDArray[np.float64]) -> Gaussian:
    mean = rows.mean(axis=0)
    return Gaussian(len(rows), mean, _reduce(rows - mean))


def _merge(a: Gaussian, b: Gaussian) -> Gaussian:
    """The Gaussian of the union of two disjoint sets (Chan, Golub and LeVeque 1983, on factors)."""
    count = a.count + b.count
    gap = b.mean - a.mean
    between = np.sqrt(a.count * b.count / count) * gap[None]
    return Gaussian(
        count,
        a.mean + (b.count / count) * gap,
        _reduce(np.concatenate([a.factor, b.factor, between])),
    )


def _blocks(arrays: Iterable[NDArray[Any]]) -> Iterator[NDArray[np.float64]]:
    """The rows of the arrays, checked, in blocks of at least D rows (the last may be shorter)."""
    waiting: list[NDArray[np.float64]] = []
    dimension = 0
    for array in arrays:
        rows = np.asarray(array, dtype=np.float64)
        if rows.ndim != 2:
            raise MetricError(f"features of shape {rows.shape}; expected (frames, dimensions)")
        dimension = dimension or rows.shape[1]
        if rows.shape[1] != dimension:
            raise MetricError(f"features of {rows.shape[1]} dimensions after {dimension}; two extractors?")
        if not np.isfinite(rows).all():
            raise MetricError(f"{np.count_nonzero(~np.isfinite(rows))} feature values are NaN or infinite")
        waiting.append(rows)
        if sum(map(len, waiting)) >= dimension:
            yield np.concatenate(waiting)
            waiting = []
    if sum(map(len, waiting)):
        yield np.concatenate(waiting)


def fit(arrays: Iterable[NDArray[Any]]) -> Gaussian:
    """Mean and covariance factor of the rows of all arrays, each (n, D), in float64.

    Memory is of the order of D² plus the largest array, however many there are: rows are folded in by a thin
    QR whenever D of them have come. Raises MetricError for no rows, another D than before, or values that are
    not finite.
    """
    folded: Gaussian | None = None
    for rows in _blocks(arrays):
        folded = _merge(folded, _gaussian(rows)) if folded else _gaussian(rows)
    if folded is None:
        raise MetricError("the set is empty; a Fréchet distance needs at least 2 feature vectors")
    return folded


def distance(a: Gaussian, b: Gaussian) -> float:
    """Squared Fréchet (2-Wasserstein) distance |m1 - m2|² + tr(S1 + S2 - 2 sqrt(S1 S2)), divisors N - 1.

    The unit is that of the features squared. Where rounding leaves a negative value (identical sets: some
    1e-16 of the traces) the result is 0.0. Raises MetricError for fewer than 2 vectors or different D.
    """
    for side in (a, b):
        if side.count < 2:
            raise MetricError(f"a set of {side.count} feature vector; a covariance needs at least 2")
    if a.mean.shape != b.mean.shape:
        raise MetricError(f"features of {a.mean.size} and {b.mean.size} dimensions; two extractors?")
    first = a.factor / np.sqrt(a.count - 1)
    second = b.factor / np.sqrt(b.count - 1)
    traces = float((first**2).sum() + (second**2).sum())
    cross = float(np.linalg.svd(first @ second.T, compute_uv=False).sum())
    value = float(((a.mean - b.mean) ** 2).sum()) + traces - 2 * cross
    if not value >= -1e-10 * traces:
        raise ArithmeticError(f"Fréchet distance of {value} with traces {traces}: more than rounding")
    return max(value, 0.0)


def _stored(clips: Iterable[Features]) -> Iterator[NDArray[Any]]:
    for clip in clips:
        yield clip[FEATURES]


def frechet_distance(generated: Iterable[Features], real: Iterable[Features]) -> float:
    """Fréchet distance between the stored features of two sets of clips, frames pooled over clips.

    Raises MetricError as `fit` and `distance` do, naming the side.
    """
    sides = []
    for name, clips in (("generated", generated), ("real", real)):
        try:
            sides.append(fit(_stored(clips)))
        except MetricError as error:
            raise MetricError(f"{name}: {error}") from None
    return distance(*sides)


register(
    Metric(
        name="fid/torch-fidelity",
        version=1,
        needs=(("generated", "fid-inception-tf1"), ("real", "fid-inception-tf1")),
        level="set",
        unit="",
        direction="lower",
        compute=frechet_distance,
        label="FID",
        digits=2,
        source="Heusel et al. 2017; torch-fidelity 5e211a9 (TF1 bilinear resizing, 2048-d, divisor N - 1)",
    )
)
