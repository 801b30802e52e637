"""Intervals over people: coverage on simulated identities, against other implementations, and what has none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaderboards import intervals
from leaderboards.intervals import by_identity, differences, holm, mean_interval, set_interval
from leaderboards.results import ResultError


def people(rng: np.random.Generator, count: int) -> tuple[list[float], list[str]]:
    """Clips of `count` people who differ, 3-19 a person: true mean 0."""
    clips = rng.integers(3, 20, count)
    values = np.repeat(rng.normal(size=count), clips) + 0.7 * rng.normal(size=clips.sum())
    return values.tolist(), np.repeat([f"p{k:03}" for k in range(count)], clips).tolist()


@pytest.mark.parametrize("count", [10, 20])
def test_a_nominal_95_percent_covers_93_to_97(count: int) -> None:
    """1,000 simulated benchmarks; the standard error of the share is 0.7 percent."""
    rng = np.random.default_rng(count)
    hits, naive = 0, 0
    for trial in range(1000):
        values, identities = people(rng, count)
        found = mean_interval(values, identities, seed=trial)
        assert found is not None
        hits += found.low <= 0 <= found.high
        half = 1.96 * np.std(values) / math.sqrt(len(values))  # as if clips were independent
        naive += abs(np.mean(values)) <= half
    assert 0.93 <= hits / 1000 <= 0.97
    assert naive / 1000 < 0.75  # or the test says nothing about people


def test_paired_differences_cover_and_are_seldom_found_where_there_are_none() -> None:
    """Two methods that differ by nothing but noise: p < 0.05 in 3 to 7 percent of 800 benchmarks."""
    rng = np.random.default_rng(3)
    found = 0
    for trial in range(800):
        values, identities = people(rng, 15)
        names = [f"c{k}" for k in range(len(values))]
        other = np.asarray(values) + np.repeat(rng.normal(size=15), np.unique(identities, return_counts=True)[1])
        one = differences(
            {"a": dict(zip(names, values, strict=True)), "b": dict(zip(names, other.tolist(), strict=True))},
            dict(zip(names, identities, strict=True)),
            "a",
            seed=trial,
        )[0]
        assert one.p is not None
        assert one.p == one.p_holm
        found += one.p < 0.05
    assert 0.03 <= found / 800 <= 0.07


def test_with_one_clip_a_person_it_is_nearly_students_interval() -> None:
    """Normal values of 40 people: the ends are within a tenth of the width of t's."""
    from scipy import stats

    values = np.random.default_rng(0).normal(3, 2, 40)
    found = mean_interval(values.tolist(), [f"p{k}" for k in range(40)])
    low, high = stats.t.interval(0.95, 39, values.mean(), stats.sem(values))
    assert found is not None
    assert found.low == pytest.approx(low, abs=0.1 * (high - low))
    assert found.high == pytest.approx(high, abs=0.1 * (high - low))


@given(st.randoms(use_true_random=False))
def test_the_order_of_the_clips_does_not_matter(random: object) -> None:
    values, identities = people(np.random.default_rng(1), 12)
    order = list(range(len(values)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert mean_interval([values[k] for k in order], [identities[k] for k in order]) == mean_interval(
        values, identities
    )


def test_fewer_than_ten_people_have_no_interval_but_values_of_their_own() -> None:
    values, identities = people(np.random.default_rng(0), 9)
    assert mean_interval(values, identities) is None
    own = by_identity(values, identities)
    assert list(own) == sorted(set(identities))
    assert own["p003"] == pytest.approx(np.mean([v for v, i in zip(values, identities, strict=True) if i == "p003"]))
    clips = [f"c{k}" for k in range(len(values))]
    a = dict(zip(clips, values, strict=True))
    [found] = differences(
        {"a": a, "b": {c: v + 1 for c, v in a.items()}}, dict(zip(clips, identities, strict=True)), "a"
    )
    assert (found.interval, found.p, found.p_holm, found.identities) == (None, None, None, 9)
    assert found.difference == pytest.approx(1)


def test_equal_values_and_infinite_ones() -> None:
    names = [f"p{k}" for k in range(12)]
    assert mean_interval([2.0] * 12, names) == intervals.Interval(2.0, 2.0)
    assert mean_interval([math.inf, *[2.0] * 11], names) is None
    same = dict.fromkeys(names, 2.0)
    [found] = differences({"a": same, "b": same}, {n: n for n in names}, "b")
    assert (found.difference, found.p) == (0.0, 1.0)


def test_holm_by_hand_and_against_its_definition() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.4, 0.5]) == pytest.approx([0.8, 0.8])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_its_steps_reject(p: list[float]) -> None:
    """Step down: the smallest against alpha / m, the next against alpha / (m - 1), ... until one stays."""
    for alpha in (0.011, 0.052, 0.23):
        rejected, left = set(), sorted(range(len(p)), key=lambda k: p[k])
        while left and p[left[0]] * len(left) <= alpha:
            rejected.add(left.pop(0))
        assert {k for k, value in enumerate(holm(p)) if value <= alpha} == rejected


def test_pairs_that_one_side_lacks_do_not_count() -> None:
    who = {f"c{k}": f"p{k % 11}" for k in range(33)}
    best = {clip: float(k) for k, clip in enumerate(who)}
    other = {clip: value + 2 for clip, value in best.items() if clip != "c7"}
    [found] = differences({"best": best, "other": other}, who, "best")
    assert (found.clips, found.identities) == (32, 11)
    assert found.difference == pytest.approx(2)
    with pytest.raises(ResultError, match="no clip in common"):
        differences({"best": best, "other": {"x": 1.0}}, who, "best")
    with pytest.raises(ResultError, match="2 values of 1 clips"):
        mean_interval([1.0, 2.0], ["a"])


def test_a_sets_interval_covers_where_draws_are_of_its_clips() -> None:
    """The mean of 64 clips as a set-level value, its halves as eval draws them: 93-97 percent of 1,000."""
    from itertools import combinations

    rng, hits = np.random.default_rng(5), 0
    unions = list(combinations(range(8), 4))
    for _ in range(1000):
        clips = rng.exponential(size=64)
        blocks = rng.permutation(clips).reshape(8, 8).mean(axis=1)
        halves = [float(blocks[list(unions[k])].mean()) for k in rng.permutation(len(unions))[:12]]
        found = set_interval(float(clips.mean()), halves)
        assert found is not None
        hits += found.low <= 1 <= found.high
    assert 0.92 <= hits / 1000 <= 0.97
    assert set_interval(1.0, [1.0, 2.0, 3.0]) is None
    assert set_interval(1.0, [1.0, 2.0, 3.0, math.inf]) is None
