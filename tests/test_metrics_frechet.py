"""Fréchet distance against SciPy's matrix square root and against closed forms."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.stats import ortho_group

from metrics import MetricError, metric
from metrics.frechet import distance, fit, frechet_distance


def by_definition(a: np.ndarray, b: np.ndarray) -> float:
    """The textbook formula, with SciPy's matrix square root."""
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = sqrtm(first @ second).real
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root))


def between(a: np.ndarray, b: np.ndarray) -> float:
    return distance(fit([a]), fit([b]))


def sample(seed: int, count: int, dimension: int) -> np.ndarray:
    """Correlated features away from the origin, with spreads from 0.5 to 2."""
    rng = np.random.default_rng(seed)
    mixing = np.linalg.qr(rng.standard_normal((dimension, dimension)))[0] * rng.uniform(0.5, 2, dimension)
    return rng.standard_normal((count, dimension)) @ mixing + rng.uniform(-3, 3, dimension)


seeds = st.integers(0, 2**32 - 1)
counts = st.integers(2, 60)
dimensions = st.integers(1, 20)


@given(seeds, st.integers(2, 10))
@settings(max_examples=30, deadline=None)
def test_equals_the_matrix_square_root(seed: int, dimension: int) -> None:
    # 1e-6: sqrtm itself is no better where covariances are nearly singular; 20 D samples keep them well conditioned.
    a, b = sample(seed, 20 * dimension, dimension), sample(seed + 1, 25 * dimension, dimension)
    assert between(a, b) == pytest.approx(by_definition(a, b), rel=1e-6)


@given(seeds, counts, counts, dimensions)
@settings(max_examples=40, deadline=None)
def test_symmetric_and_zero_on_itself(seed: int, n: int, m: int, dimension: int) -> None:
    a, b = sample(seed, n, dimension), sample(seed + 1, m, dimension)
    scale = a.var() * dimension + b.var() * dimension
    assert between(a, b) == pytest.approx(between(b, a), rel=1e-10, abs=1e-12 * scale)
    assert between(a, a) <= 1e-12 * scale
    assert between(a, a[::-1]) <= 1e-12 * scale  # the order of the frames does not matter


@given(seeds, counts, dimensions)
@settings(max_examples=40, deadline=None)
def test_a_translation_adds_its_squared_length(seed: int, n: int, dimension: int) -> None:
    a = sample(seed, n, dimension)
    shift = np.random.default_rng(seed).uniform(-2, 2, dimension)
    assert between(a, a + shift) == pytest.approx(float(shift @ shift), rel=1e-9, abs=1e-9)


@given(seeds, counts, counts, st.integers(2, 20))
@settings(max_examples=40, deadline=None)
def test_rotating_both_sets_changes_nothing(seed: int, n: int, m: int, dimension: int) -> None:
    a, b = sample(seed, n, dimension), sample(seed + 1, m, dimension)
    turn = ortho_group.rvs(dimension, random_state=seed)
    assert between(a @ turn, b @ turn) == pytest.approx(between(a, b), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("count", [2, 3, 7, 19, 20, 21, 50])
def test_right_for_fewer_samples_than_dimensions(count: int) -> None:
    """b = 2 a: the covariances commute, so the distance is tr(S) + |mean|² for any rank; 1e-12: rounding."""
    a = sample(0, count, 20)
    truth = float((a.mean(0) ** 2).sum() + np.cov(a, rowvar=False).trace())
    assert between(a, 2 * a) == pytest.approx(truth, rel=1e-12)
    assert between(a, a) <= 1e-12 * truth


def test_constant_features() -> None:
    assert between(np.ones((5, 3)), np.full((4, 3), 3.0)) == pytest.approx(12.0, rel=1e-14)
    assert between(np.ones((5, 3)), np.ones((9, 3))) == 0.0


@given(seeds, st.lists(st.integers(0, 40), min_size=1, max_size=12), dimensions)
@settings(max_examples=60, deadline=None)
def test_fed_in_pieces_it_is_the_covariance(seed: int, lengths: list[int], dimension: int) -> None:
    """The folded factor gives NumPy's mean and covariance of all rows; 1e-11: rounding at these scales."""
    rows = sample(seed, sum(lengths) + 2, dimension)
    pieces = np.split(rows, np.cumsum(lengths))
    fitted = fit(pieces)
    assert fitted.count == len(rows)
    assert len(fitted.factor) == min(len(rows), dimension)
    np.testing.assert_allclose(fitted.mean, rows.mean(0), atol=1e-12)
    centred = rows - rows.mean(0)
    np.testing.assert_allclose(fitted.factor.T @ fitted.factor, centred.T @ centred, rtol=1e-11, atol=1e-11 * len(rows))


def test_memory_does_not_grow_with_the_number_of_frames() -> None:
    def peak(blocks: int) -> int:
        rng = np.random.default_rng(0)
        tracemalloc.start()
        fit(rng.standard_normal((50, 64), np.float32) for _ in range(blocks))
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    few, many = peak(10), peak(400)
    assert many < 1.2 * few


def test_float32_features_are_summed_in_float64() -> None:
    rng = np.random.default_rng(0)
    features = (1000 + rng.random((2000, 4)) * 1e-2).astype(np.float32)
    exact = features.astype(np.float64)
    assert between(features, features[:1000]) == pytest.approx(by_definition(exact, exact[:1000]), rel=1e-6)


def test_the_metric_pools_the_frames_of_clips() -> None:
    a, b = sample(1, 30, 6), sample(2, 40, 6)
    fid = metric("fid/torch-fidelity")
    clips = [{"features": part} for part in np.split(a, [5, 6, 20])]
    assert fid.compute(iter(clips), [{"features": b}]) == pytest.approx(by_definition(a, b), rel=1e-9)


@pytest.mark.parametrize(
    ("generated", "real", "message"),
    [
        ([], [np.ones((3, 2))], "generated: the set is empty"),
        ([np.ones((0, 2))], [np.ones((3, 2))], "generated: the set is empty"),
        ([np.ones((3, 2))], [np.ones((1, 2))], "at least 2"),
        ([np.ones((3, 2))], [np.ones((3, 3))], "of 2 and 3 dimensions"),
        ([np.ones((3, 2)), np.ones((3, 4))], [np.ones((3, 2))], "generated: features of 4 dimensions after 2"),
        ([np.ones((3, 2))], [np.full((3, 2), np.nan)], "real: 6 feature values are NaN"),
        ([np.full((3, 2), np.inf)], [np.ones((3, 2))], "generated: 6 feature values are NaN or infinite"),
        ([np.ones(3)], [np.ones((3, 2))], r"shape \(3,\)"),
    ],
)
def test_bad_sets_are_refused(generated: list[np.ndarray], real: list[np.ndarray], message: str) -> None:
    with pytest.raises(MetricError, match=message):
        frechet_distance([{"features": f} for f in generated], [{"features": f} for f in real])
