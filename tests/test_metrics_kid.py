"""KID against loops over the definition, and with the reference's subsets."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from metrics import MetricError, kernel, metric
from metrics.kernel import kid, kid_replicates, polynomial_mmd


def by_definition(x: np.ndarray, y: np.ndarray) -> float:
    """Bińkowski et al. 2018, equation 4 (unbiased), pair by pair."""

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / len(a) + 1) ** 3)

    count = len(x)
    pairs = [(i, j) for i in range(count) for j in range(count)]
    within = sum(kernel(x[i], x[j]) + kernel(y[i], y[j]) for i, j in pairs if i != j) / (count * (count - 1))
    return within - 2 * sum(kernel(x[i], y[j]) for i, j in pairs) / count**2


def sides(first: int, second: int, dimension: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return (
        rng.normal(size=(first, dimension)).astype(np.float32),
        rng.normal(0.3, 1.2, size=(second, dimension)).astype(np.float32),
    )


def score(first: np.ndarray, second: np.ndarray) -> float:
    return metric("kid/torch-fidelity").compute(
        [{"features": first[:3]}, {"features": first[3:]}], [{"features": second}]
    )


@pytest.mark.parametrize("count", [2, 5, 40])
def test_all_vectors_where_they_are_few(count: int) -> None:
    a, b = sides(count, count)
    assert score(a, b) == pytest.approx(by_definition(a.astype(float), b.astype(float)), rel=1e-9)


def test_the_subsets_are_the_references(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch-fidelity draws 100 times 1,000 from one RandomState(2020), first of the one side and then of the other;
    here they are 60."""
    assert (kernel.SUBSETS, kernel.SUBSET_SIZE, kernel.SEED) == (100, 1000, 2020)
    monkeypatch.setattr(kernel, "SUBSET_SIZE", 60)
    a, b = sides(70, 100)
    rng = np.random.RandomState(2020)
    values = []
    for _ in range(100):
        x, y = a[rng.choice(70, 60, replace=False)], b[rng.choice(100, 60, replace=False)]
        k = [(p.astype(float) @ q.astype(float).T / 6 + 1) ** 3 for p, q in ((x, x), (y, y), (x, y))]
        np.fill_diagonal(k[0], 0)
        np.fill_diagonal(k[1], 0)
        values.append(k[0].sum() / (60 * 59) + k[1].sum() / (60 * 59) - 2 * k[2].mean())
    assert score(a, b) == pytest.approx(np.mean(values), rel=1e-9)


def test_subsets_of_the_smaller_side() -> None:
    a, b = sides(5, 7)
    rng = np.random.RandomState(2020)
    values = []
    for _ in range(100):
        x, y = a[rng.choice(5, 5, replace=False)], b[rng.choice(7, 5, replace=False)]
        values.append(polynomial_mmd(x.astype(float), y.astype(float)))
    assert score(a, b) == pytest.approx(np.mean(values), rel=1e-12)


def test_unbiased() -> None:
    """Two sets of one distribution: zero on average (within 4 standard errors), though never in one try."""
    rng = np.random.default_rng(3)
    values = [polynomial_mmd(*rng.normal(size=(2, 20, 4))) for _ in range(400)]
    assert min(values) < 0 < max(values)
    assert abs(np.mean(values)) < 4 * np.std(values) / 20


def test_replicates_are_kids_of_the_same_clips() -> None:
    a, b = sides(60, 60)
    clips = [[{"features": part} for part in np.split(side, 20)] for side in (a, b)]
    found = kid_replicates(1, *(lambda side=side: iter(side) for side in clips))
    again = kid_replicates(1, *(lambda side=side: iter(side) for side in clips))
    assert found.count == 60
    assert found.infinite is None
    assert sorted(set(found.clips.tolist())) == [4, 5, 6, 10] or sum(found.clips > 7) == 12
    np.testing.assert_array_equal(found.vectors, 3 * found.clips)
    np.testing.assert_array_equal(found.values, again.values)
    assert found.values.min() < kid(clips[0], clips[1]) < found.values.max()
    same = kid_replicates(1, lambda: iter(clips[0]), lambda: iter(clips[0]))
    assert np.all(same.values < 0)  # x against x itself: the pairs i = j are left out of one side only


@pytest.mark.parametrize(
    ("generated", "real", "message"),
    [
        ([], [np.ones((3, 2))], "generated: 0 feature vectors; KID needs at least 2"),
        ([np.ones((3, 2))], [np.ones((1, 2))], "real: 1 feature vectors"),
        ([np.ones((3, 2))], [np.ones((3, 3))], "of 2 and 3 dimensions"),
        ([np.ones((3, 2)), np.ones((3, 4))], [np.ones((3, 2))], "generated: features of 4 dimensions after 2"),
        ([np.ones((3, 2))], [np.full((3, 2), np.nan)], "real: 6 feature values are NaN"),
    ],
)
def test_bad_sets_are_refused(generated: list[np.ndarray], real: list[np.ndarray], message: str) -> None:
    with pytest.raises(MetricError, match=message):
        kid([{"features": f} for f in generated], [{"features": f} for f in real])


def test_memory_does_not_grow_with_the_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors stay on the disk: 20 and 320 clips of 40 vectors take as much, where half of the latter are 26 MB."""
    monkeypatch.setattr(kernel, "SUBSET_SIZE", 100)
    peaks = []
    for clips in (20, 320):
        rng = np.random.default_rng(0)
        one = rng.normal(size=(40, 512)).astype(np.float32)
        loader = lambda clips=clips, one=one: ({"features": one + k} for k in range(clips))  # noqa: E731
        tracemalloc.start()
        kid_replicates(0, loader, loader)
        kid(loader(), loader())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 2e6
