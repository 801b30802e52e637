"""Fréchet distance against SciPy's matrix square root and against closed forms."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.stats import ortho_group

from metrics import MetricError, metric, subsampling
from metrics.frechet import distance, fit, frechet_distance, frechet_replicates


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


def clips_of(rows: np.ndarray, count: int) -> list[dict[str, np.ndarray]]:
    return [{"features": part} for part in np.array_split(rows, count)]


@given(st.integers(4, 40), seeds)
@settings(max_examples=40, deadline=None)
def test_draws_are_of_whole_clips_without_replacement(clips: int, seed: int) -> None:
    block = subsampling.deal(seed, clips)
    sizes = np.bincount(block)
    assert len(sizes) == min(8, clips)
    assert sizes.max() - sizes.min() <= 1
    drawn = subsampling.draws(seed, clips)
    assert len(set(drawn)) == len(drawn) >= 8
    for union in drawn:
        assert len(set(union)) == len(union) in (len(sizes) // 2, len(sizes) // 4)


def test_each_clip_is_drawn_as_often() -> None:
    """Over many seeds a clip is in half of the halves; 5 standard errors."""
    taken = np.zeros(11)
    for seed in range(400):
        block, union = subsampling.deal(seed, 11), subsampling.draws(seed, 11)[0]
        taken += np.isin(block, union)
    assert np.all(np.abs(taken / 400 - 0.5) < 5 * 0.5 / 20)


@pytest.mark.parametrize(("clips", "frames", "dimension"), [(15, 5, 40), (64, 5, 6), (9, 1, 3)])
def test_replicates_are_the_distance_on_the_drawn_clips(clips: int, frames: int, dimension: int) -> None:
    """Merged Gaussians against the distance of the same clips from the start; 1e-9: rounding."""
    generated = clips_of(sample(0, clips * frames, dimension), clips)
    real = clips_of(sample(1, clips * frames, dimension), clips)
    found = frechet_replicates(5, lambda: iter(generated), lambda: iter(real))
    block, drawn = subsampling.deal(5, clips), subsampling.draws(5, clips)
    assert found.count == clips * frames
    assert len(found.values) == len(found.clips) == len(found.vectors) == len(drawn)
    for union, kept, vectors, value in zip(drawn, found.clips, found.vectors, found.values, strict=True):
        of = np.flatnonzero(np.isin(block, union))
        assert (kept, vectors) == (len(of), len(of) * frames)
        alone = frechet_distance([generated[k] for k in of], [real[k] for k in of])
        assert value == pytest.approx(alone, rel=1e-9)


def test_extrapolation_comes_nearer_the_truth() -> None:
    """Two normal distributions a squared distance of 1 apart: the value of few vectors is too high, the line ends
    nearer, to a fifth of the bias. With draws of fewer vectors than dimensions there is no line."""
    errors = []
    for seed in range(10):
        a, b = np.random.default_rng(seed).normal(size=(2, 400, 10))
        b[:, 0] += 1
        one, other = clips_of(a, 40), clips_of(b, 40)
        found = frechet_replicates(seed, lambda one=one: one, lambda other=other: other)
        assert found.infinite is not None
        errors.append((frechet_distance(one, other) - 1, found.infinite - 1))
    value, infinite = np.mean(errors, axis=0)
    assert value > 0
    assert abs(infinite) < 0.2 * value
    wide = clips_of(np.random.default_rng(0).normal(size=(100, 26)), 40)  # quarters have 25 vectors or fewer
    assert frechet_replicates(0, lambda: wide, lambda: wide).infinite is None


def test_too_few_clips_are_said_by_having_no_draws() -> None:
    three = clips_of(sample(0, 30, 4), 3)
    found = frechet_replicates(0, lambda: three, lambda: three)
    assert (found.count, len(found.values), found.infinite) == (30, 0, None)
    single = clips_of(sample(0, 5, 4), 5)  # a quarter of five clips is one vector, which has no covariance
    found = frechet_replicates(0, lambda: single, lambda: single)
    assert set(found.vectors.tolist()) == {2}
    assert subsampling.extrapolate([10, 10], [1.0, 2.0]) is None
    assert subsampling.extrapolate([10, 20], [2.0, 0.5]) is None  # would end at -1
    assert subsampling.extrapolate([10, 20], [2.0, 1.5]) == pytest.approx(1.0)
