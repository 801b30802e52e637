"""KID: squared maximum mean discrepancy between two sets of Inception features.

Bińkowski et al., "Demystifying MMD GANs", ICLR 2018, as torch-fidelity 5e211a9 estimates it: kernel (x·y / D + 1)³,
unbiased, mean over 100 random subsets of 1,000 vectors of each side drawn without replacement by NumPy's
RandomState(2020).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metrics import subsampling
from metrics.base import Features, Metric, MetricError, Replicates, register
from metrics.frechet import FEATURES, checked

SUBSETS, SUBSET_SIZE, SEED = 100, 1000, 2020
SUBSETS_OF_A_DRAW = 10  # a replicate is a rougher estimate: a tenth of the value's time

Loader = Callable[[], Iterable[Features]]


def polynomial_mmd(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Unbiased squared MMD of (m, D) and (m, D) with the kernel (x·y / D + 1)³; at least 2 rows each."""
    count, dimension = first.shape

    def kernel(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        values: NDArray[np.float64] = (a @ b.T / dimension + 1) ** 3
        return values

    within = 0.0
    for side in (first, second):
        values = kernel(side, side)
        within += float(values.sum() - values.trace()) / (count * (count - 1))
    return within - 2 * float(kernel(first, second).mean())


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of vectors that stay on the disk until they are drawn; `kept` are the positions of those that count."""

    vectors: NDArray[np.float32]
    kept: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.kept)

    def drawn(self, rng: np.random.RandomState, size: int) -> NDArray[np.float64]:
        return self.vectors[self.kept[rng.choice(len(self), size, replace=False)]].astype(np.float64)


def _estimate(first: _Rows, second: _Rows, subsets: int) -> float:
    """Mean over random subsets of min(SUBSET_SIZE, fewer side) vectors; one where that is all of both sides."""
    size = min(SUBSET_SIZE, len(first), len(second))
    if size == len(first) == len(second):
        subsets = 1
    rng = np.random.RandomState(SEED)  # the generator that the reference draws with
    total = 0.0
    for _ in range(subsets):
        total += polynomial_mmd(first.drawn(rng, size), second.drawn(rng, size))
    return total / subsets


@contextmanager
def _pooled(name: str, clips: Iterable[Features]) -> Iterator[tuple[NDArray[np.float32], list[int]]]:
    """All vectors of a side as (N, D) float32 and how many each clip has; on disk, so that memory does not grow.

    Raises MetricError as `checked`, and for fewer than 2 vectors.
    """
    lengths: list[int] = []
    dimension: int | None = None
    with tempfile.TemporaryFile() as file:
        try:
            for clip in clips:
                rows = checked(clip[FEATURES], dimension)
                dimension = rows.shape[1]
                lengths.append(len(rows))
                file.write(rows.astype(np.float32).tobytes())
            if dimension is None or sum(lengths) < 2:
                raise MetricError(f"{sum(lengths)} feature vectors; KID needs at least 2")
        except MetricError as error:
            raise MetricError(f"{name}: {error}") from None
        file.flush()
        yield np.memmap(file, np.float32, "r", shape=(sum(lengths), dimension)), lengths


def kid(generated: Iterable[Features], real: Iterable[Features]) -> float:
    """Mean over 100 random subsets of the unbiased squared MMD with the kernel (x·y / D + 1)³, in float64.

    Subsets of 1,000 vectors of each side, or of as many as the smaller side has. Seeded (RandomState(2020)), so the
    value depends on the order of the vectors, as the reference's does. It may be a little below 0. Raises MetricError
    for fewer than 2 vectors, different D, or values that are not finite.
    """
    with _pooled("generated", generated) as (first, _), _pooled("real", real) as (second, _):
        _refuse_different(first, second)
        return _estimate(_Rows(first, np.arange(len(first))), _Rows(second, np.arange(len(second))), SUBSETS)


def _refuse_different(first: NDArray[np.float32], second: NDArray[np.float32]) -> None:
    if first.shape[1] != second.shape[1]:
        raise MetricError(f"features of {first.shape[1]} and {second.shape[1]} dimensions; two extractors?")


def kid_replicates(seed: int, generated: Loader, real: Loader) -> Replicates:
    """KID on subsets of the clips, the same clips on both sides; see metrics.subsampling. Each of them is the mean over
    10 subsets of vectors. Unbiased at any number of vectors, so nothing is extrapolated."""
    with _pooled("generated", generated()) as (first, mine), _pooled("real", real()) as (second, other):
        _refuse_different(first, second)
        block = subsampling.deal(seed, len(mine))
        if len(mine) != len(other):
            raise ValueError(f"{len(mine)} generated and {len(other)} real clips; replicates need the same clips")
        clips, vectors, values = [], [], []
        for union in subsampling.draws(seed, len(mine)):
            kept = np.isin(block, union)
            some = _Rows(first, np.flatnonzero(np.repeat(kept, mine)))
            others = _Rows(second, np.flatnonzero(np.repeat(kept, other)))
            if min(len(some), len(others)) >= 2:
                clips.append(int(kept.sum()))
                vectors.append(min(len(some), len(others)))
                values.append(_estimate(some, others, SUBSETS_OF_A_DRAW))
        return Replicates(
            count=min(len(first), len(second)),
            clips=np.array(clips, np.int64),
            vectors=np.array(vectors, np.int64),
            values=np.array(values, np.float64),
            infinite=None,
        )


register(
    Metric(
        name="kid/torch-fidelity",
        version=1,
        needs=(("generated", "fid-inception-tf1"), ("real", "fid-inception-tf1")),
        level="set",
        unit="",
        direction="lower",
        compute=kid,
        label="KID",
        digits=5,
        source="Bińkowski et al. 2018; torch-fidelity 5e211a9 (100 subsets of 1,000, RandomState(2020), TF1 resizing)",
        replicates=kid_replicates,
    )
)
