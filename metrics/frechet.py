"""Fréchet distance between two sets of feature vectors, and the metrics made of it.

Dowson and Landau, "The Fréchet distance between multivariate normal distributions", 1982; FID: Heusel et
al., NeurIPS 2017. The trace of sqrt(S1 S2) is the nuclear norm of A Bᵀ, A and B being the centred features
over sqrt(n - 1): no matrix square root is taken, so the value is right to rounding for rank-deficient
covariances (fewer frames than dimensions) too, where sqrtm and the eigenvalues of S1 S2 lose half the digits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics import subsampling
from metrics.base import Features, Metric, MetricError, Replicates, register

FEATURES = "features"  # the array that the extractors of these metrics store, (N, D)

Loader = Callable[[], Iterable[Features]]


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


def _merge(parts: Sequence[Gaussian]) -> Gaussian:
    """The Gaussian of the union of disjoint sets (Chan, Golub and LeVeque 1983, on factors)."""
    counts = np.array([part.count for part in parts])
    means = np.stack([part.mean for part in parts])
    mean = counts @ means / counts.sum()
    between = np.sqrt(counts)[:, None] * (means - mean)
    return Gaussian(int(counts.sum()), mean, _reduce(np.concatenate([*(part.factor for part in parts), between])))


def checked(array: NDArray[Any], dimension: int | None = None) -> NDArray[np.float64]:
    """Features in float64. Raises MetricError unless they are (n, D), D as before, and finite."""
    rows = np.asarray(array, dtype=np.float64)
    if rows.ndim != 2:
        raise MetricError(f"features of shape {rows.shape}; expected (frames, dimensions)")
    if dimension is not None and rows.shape[1] != dimension:
        raise MetricError(f"features of {rows.shape[1]} dimensions after {dimension}; two extractors?")
    if not np.isfinite(rows).all():
        raise MetricError(f"{np.count_nonzero(~np.isfinite(rows))} feature values are NaN or infinite")
    return rows


class Fit:
    """Mean and covariance factor of rows that come in pieces, in float64.

    Memory is of the order of D² plus the largest piece, however many there are: rows are folded in by a thin QR
    whenever D of them have come.
    """

    def __init__(self) -> None:
        self._folded: Gaussian | None = None
        self._waiting: list[NDArray[np.float64]] = []
        self._dimension: int | None = None

    def add(self, array: NDArray[Any]) -> None:
        """Take in (n, D). Raises MetricError for another D than before, or values that are not finite."""
        rows = checked(array, self._dimension)
        self._dimension = rows.shape[1]
        self._waiting.append(rows)
        if sum(map(len, self._waiting)) >= self._dimension:
            self._fold()

    def _fold(self) -> None:
        rows = np.concatenate(self._waiting)
        self._waiting = []
        if len(rows):
            mean = rows.mean(axis=0)
            new = Gaussian(len(rows), mean, _reduce(rows - mean))
            self._folded = _merge([self._folded, new]) if self._folded else new

    def result(self) -> Gaussian:
        """Of all rows so far. Raises MetricError when there are none."""
        if self._waiting:
            self._fold()
        if self._folded is None:
            raise MetricError("the set is empty; at least 2 feature vectors are needed")
        return self._folded


def fit(arrays: Iterable[NDArray[Any]]) -> Gaussian:
    """Mean and covariance factor of the rows of all arrays, each (n, D); errors and memory as of `Fit`."""
    one = Fit()
    for array in arrays:
        one.add(array)
    return one.result()


def distance(a: Gaussian, b: Gaussian) -> float:
    """Squared Fréchet (2-Wasserstein) distance |m1 - m2|² + tr(S1 + S2 - 2 sqrt(S1 S2)), divisors N - 1.

    The unit is that of the features squared. Where rounding leaves a negative value (identical sets: some
    1e-16 of the traces) the result is 0.0. Raises MetricError for fewer than 2 vectors or different D, and for
    features so large that float64 does not hold their squares.
    """
    for side in (a, b):
        if side.count < 2:
            raise MetricError(f"a set of {side.count} feature vector; a covariance needs at least 2")
    if a.mean.shape != b.mean.shape:
        raise MetricError(f"features of {a.mean.size} and {b.mean.size} dimensions; two extractors?")
    first = a.factor / np.sqrt(a.count - 1)
    second = b.factor / np.sqrt(b.count - 1)
    traces = float((first**2).sum() + (second**2).sum())
    try:
        cross = float(np.linalg.svd(first @ second.T, compute_uv=False).sum())
    except np.linalg.LinAlgError as error:
        raise MetricError(f"the covariances have no singular values ({error}); features of huge size?") from None
    value = float(((a.mean - b.mean) ** 2).sum()) + traces - 2 * cross
    if not value >= -1e-10 * traces:
        raise MetricError(f"a distance of {value:g} with traces {traces:g} is more than rounding; features too large?")
    return max(value, 0.0)


def frechet_distance(generated: Iterable[Features], real: Iterable[Features]) -> float:
    """Fréchet distance between the stored features of two sets of clips, the vectors pooled over clips.

    |m1 - m2|² + tr(S1 + S2 - 2 sqrt(S1 S2)) with divisors N - 1, in float64. Raises MetricError as `fit` and `distance`
    do, naming the side.
    """
    sides = []
    for name, clips in (("generated", generated), ("real", real)):
        try:
            sides.append(fit(clip[FEATURES] for clip in clips))
        except MetricError as error:
            raise MetricError(f"{name}: {error}") from None
    return distance(*sides)


def frechet_replicates(seed: int, generated: Loader, real: Loader) -> Replicates:
    """The distance on subsets of the clips, the same clips on both sides; see metrics.subsampling.

    The Gaussians of the blocks are fitted once, in one pass, and merged exactly for each draw. Memory: a D x D factor
    a block and side. Nothing is extrapolated from draws of no more vectors than the features have dimensions.
    """
    clips = sum(1 for _ in generated())
    block = subsampling.deal(seed, clips)
    sides: list[dict[int, Gaussian]] = []
    for loader in (generated, real):
        fits = {int(k): Fit() for k in np.unique(block)}
        for k, features in zip(block, loader(), strict=True):
            fits[int(k)].add(features[FEATURES])
        sides.append({k: one.result() for k, one in fits.items()})

    def on(blocks: Iterable[int]) -> tuple[int, float]:
        first, second = (_merge([side[k] for k in blocks]) for side in sides)
        return min(first.count, second.count), distance(first, second)

    drawn = [
        union
        for union in subsampling.draws(seed, clips)
        if min(sum(side[k].count for k in union) for side in sides) >= 2
    ]
    scored = [on(union) for union in drawn]
    whole = on(sides[0])
    linear = bool(scored) and min(vectors for vectors, _ in scored) > len(sides[0][0].mean)
    return Replicates(
        count=whole[0],
        clips=np.array([np.isin(block, union).sum() for union in drawn], np.int64),
        vectors=np.array([vectors for vectors, _ in scored], np.int64),
        values=np.array([value for _, value in scored], np.float64),
        infinite=subsampling.extrapolate(*zip(*scored, whole, strict=True)) if linear else None,
    )


def _register(name: str, extractor: str, label: str, enough: int, source: str) -> None:
    register(
        Metric(
            name=name,
            version=1,
            needs=(("generated", extractor), ("real", extractor)),
            level="set",
            unit="",
            direction="lower",
            compute=frechet_distance,
            label=label,
            digits=2,
            source=source,
            replicates=frechet_replicates,
            enough=enough,
        )
    )


_HEUSEL = "Heusel et al. 2017; {}, 2048-d, divisor N - 1"
for _variant, _extractor, _label, _source in (
    ("torch-fidelity", "fid-inception-tf1", "FID", "torch-fidelity 5e211a9 (TF1 bilinear resizing)"),
    ("pytorch-fid", "fid-inception-pytorch", "FID (pytorch-fid)", "pytorch-fid 0.3 (bilinear without antialiasing)"),
    ("clean-fid", "fid-inception-clean", "FID (clean)", "clean-fid e88c4d6, mode clean (PIL bicubic)"),
    ("torchmetrics", "fid-inception-torchmetrics", "FID (torchmetrics)", "torchmetrics dab0333 (antialiased bilinear)"),
):
    _register(f"fid/{_variant}", _extractor, _label, 2048, _HEUSEL.format(_source))

_UNTERTHINER = (
    "Unterthiner et al. 2018, I3D logits; {}; shorter side to 224 without antialiasing and centre crop as "
    'common_metrics_on_video_quality "styleganv", divisor N - 1'
)
for _variant, _label, _frames in (
    ("i3d-all-frames", "FVD", "all frames of a clip, at least 10"),
    ("i3d-16f", "FVD (16 frames)", "the middle 16 frames of a clip"),
):
    _register(f"fvd/{_variant}", _variant, _label, 256, _UNTERTHINER.format(_frames))
