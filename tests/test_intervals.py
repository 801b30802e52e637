"""Intervals over people: coverage on simulated identities, against other implementations, and what has none."""

from __future__ import annotations

import math
from collections.abc import Callable

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


def coverage(draw: Callable[[np.random.Generator], tuple[list[float], list[str]]], truth: float) -> tuple[float, float]:
    """(share of 500 simulated benchmarks with an interval, share of these that hold the truth)."""
    rng = np.random.default_rng(11)
    found = [interval for trial in range(500) if (interval := mean_interval(*draw(rng), seed=trial)) is not None]
    return len(found) / 500, sum(one.low <= truth <= one.high for one in found) / len(found)


@pytest.mark.parametrize(
    ("rate", "count", "shares", "covers"), [(0.95, 10, (0.65, 0.8), (0.97, 1)), (0.9, 20, (0.99, 1), (0.91, 0.96))]
)
def test_rates_near_one_are_covered_or_have_no_interval(
    rate: float, count: int, shares: tuple[float, float], covers: tuple[float, float]
) -> None:
    """8 clips of each person, right or wrong: with few people a part of the benchmarks has no interval."""
    names = np.repeat([f"p{k}" for k in range(count)], 8).tolist()
    share, covered = coverage(lambda rng: ((rng.random(8 * count) < rate).astype(float).tolist(), names), rate)
    assert shares[0] <= share <= shares[1]
    assert covers[0] <= covered <= covers[1]


@pytest.mark.parametrize("count", [10, 20])
def test_skewed_people_are_covered_less(count: int) -> None:
    """Log-normal people: 85-92 percent, as the module says."""

    def draw(rng: np.random.Generator) -> tuple[list[float], list[str]]:
        clips = rng.integers(3, 20, count)
        values = np.repeat(rng.lognormal(size=count), clips) + 0.7 * rng.normal(size=clips.sum())
        return values.tolist(), np.repeat([f"p{k}" for k in range(count)], clips).tolist()

    share, covered = coverage(draw, math.exp(0.5))
    assert share == 1
    assert 0.85 <= covered <= 0.92


def test_one_person_with_most_clips_is_seen_by_the_jackknife() -> None:
    """200 clips of one person, 5 of each of nine others: 86-93 percent; 63 with the linearised standard error."""
    clips = np.array([200, *[5] * 9])
    names = np.repeat([f"p{k}" for k in range(10)], clips).tolist()

    def draw(rng: np.random.Generator) -> tuple[list[float], list[str]]:
        return (np.repeat(rng.normal(size=10), clips) + 0.7 * rng.normal(size=245)).tolist(), names

    share, covered = coverage(draw, 0)
    assert share == 1
    assert 0.86 <= covered <= 0.93


def test_the_standard_error_is_the_jackknifes() -> None:
    """Against means computed anew without each person."""
    rng = np.random.default_rng(4)
    sums, counts = rng.normal(size=11), rng.integers(1, 30, 11).astype(float)
    left = np.array([np.delete(sums, k).sum() / np.delete(counts, k).sum() for k in range(11)])
    mean, error = intervals._ratio(sums[None], counts[None])
    assert mean[0] == pytest.approx(sums.sum() / counts.sum())
    assert error[0] == pytest.approx(math.sqrt(10 / 11 * ((left - mean[0]) ** 2).sum()))


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


def test_people_who_are_all_alike_have_no_interval() -> None:
    names = [f"p{k}" for k in range(12)]
    assert mean_interval([2.0] * 12, names) is None
    assert mean_interval([0.1] * 36, names * 3) is None  # 0.1 + 0.1 + 0.1 is not 0.3
    same = dict.fromkeys(names, 2.0)
    [found] = differences({"a": same, "b": same}, {n: n for n in names}, "b")
    assert (found.difference, found.interval, found.p) == (0.0, None, 1.0)
    best = {name: 35 + k / 7 for k, name in enumerate(names)}
    [found] = differences({"a": {n: v - 1e-3 for n, v in best.items()}, "b": best}, {n: n for n in names}, "b")
    assert found.difference == pytest.approx(-1e-3)
    assert found.interval is None
    assert found.p == pytest.approx(2**-11, abs=4 * math.sqrt(2**-11 / intervals.FLIPS))


def test_draws_without_spread_are_infinitely_far() -> None:
    """One clip of 30 is wrong: 36 percent of the draws do not hold it, so that no end can be given."""
    names = [f"p{k}" for k in range(30)]
    assert mean_interval([0.0] + [1.0] * 29, names) is None
    found = mean_interval([0.0] * 15 + [1.0] * 15, names)
    assert found is not None
    assert found.low < 0.35
    assert found.high > 0.65


def test_p_holds_its_level_where_one_person_has_most_clips() -> None:
    """200 of 245 clips of one person, no difference: p < 0.05 in at most 7 percent of 500 benchmarks."""
    rng, found = np.random.default_rng(6), 0
    clips = np.array([200, *[5] * 9])
    names = [f"c{k}" for k in range(245)]
    who = dict(zip(names, np.repeat([f"p{k}" for k in range(10)], clips).tolist(), strict=True))
    for trial in range(500):
        values = np.repeat(rng.normal(size=10), clips) + 0.7 * rng.normal(size=245)
        other = dict(zip(names, values.tolist(), strict=True))
        [one] = differences({"a": dict.fromkeys(names, 0.0), "b": other}, who, "a", seed=trial)
        assert one.p is not None
        found += one.p < 0.05
    assert 0.02 <= found / 500 <= 0.07


@pytest.mark.parametrize("count", [10, 30])
def test_p_falls_with_every_person_who_differs(count: int) -> None:
    """k people who differ alike have p = 2 ** (1 - k): the two flips of all their signs."""
    names = [f"p{k}" for k in range(count)]
    best, p = dict.fromkeys(names, 1.0), []
    for k in range(count + 1):
        other = {name: float(j >= k) for j, name in enumerate(names)}
        [found] = differences({"best": best, "other": other}, {n: n for n in names}, "best")
        assert found.p is not None
        p.append(found.p)
        wanted = min(1.0, 2.0 ** (1 - k))
        assert found.p == pytest.approx(wanted, abs=1e-4 + 4 * math.sqrt(wanted / intervals.FLIPS))
    assert p == sorted(p, reverse=True)
    assert p[:2] == [1.0, 1.0]


@pytest.mark.parametrize(
    "odd",
    [[math.inf], [math.inf, -math.inf], [1.7e308, 1.7e308], [1.7e308, -1e308], [math.nan]],
    ids=str,
)
def test_numbers_that_are_none_or_too_large_have_no_interval(odd: list[float]) -> None:
    names = [f"p{k}" for k in range(12)] * 2
    for at in ([0, 12], [0, 1]):  # of one person, of two
        values = [float(k) for k in range(24)]
        for where, value in zip(at, odd, strict=False):
            values[where] = value
        assert mean_interval(values, names) is None
        assert list(by_identity(values, names)) == sorted(set(names))
        clips = [f"c{k}" for k in range(24)]
        who = dict(zip(clips, names, strict=True))
        [found] = differences({"a": dict(zip(clips, values, strict=True)), "b": dict.fromkeys(clips, 0.0)}, who, "b")
        assert found.interval is None
    assert set_interval(1.0, [1.0, 2.0, 3.0, *odd]) is None


@pytest.mark.parametrize("unit", [2.0**-600, 2.0**600])
def test_the_unit_does_not_matter(unit: float) -> None:
    """Nor that squares of such numbers are no floats."""
    values, identities = people(np.random.default_rng(2), 12)
    found, scaled = mean_interval(values, identities), mean_interval([unit * value for value in values], identities)
    assert found is not None
    assert scaled == intervals.Interval(found.low * unit, found.high * unit)


def test_the_mean_of_a_person_whose_sum_is_no_number_is_none() -> None:
    found = by_identity([1.7e308, 1.7e308, math.inf, 1.0, math.inf, -math.inf, 3.0], list("aabbccd"))
    assert {who for who, mean in found.items() if math.isnan(mean)} == {"a", "c"}
    assert (found["b"], found["d"]) == (math.inf, 3.0)


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(finite | st.sampled_from([0.0, 1.0, math.inf, math.nan]), min_size=10, max_size=14))
def test_an_interval_is_finite_and_around_the_mean_or_is_none(values: list[float]) -> None:
    found = mean_interval(values, [f"p{k}" for k in range(len(values))])
    assert found is None or (math.isfinite(found.low) and found.low < math.fsum(values) / len(values) < found.high)


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


@pytest.mark.parametrize(("kind", "truth"), [("normal", 0), ("exponential", 1)])
def test_a_sets_interval_covers_where_draws_are_of_its_clips(kind: str, truth: float) -> None:
    """The mean of 64 clips as a set-level value, its halves as eval draws them: 92-96 percent of 2,000."""
    from itertools import combinations

    rng, hits = np.random.default_rng(5), 0
    unions = list(combinations(range(8), 4))
    for _ in range(2000):
        clips = getattr(rng, kind)(size=64)
        blocks = rng.permutation(clips).reshape(8, 8).mean(axis=1)
        halves = [float(blocks[list(unions[k])].mean()) for k in rng.permutation(len(unions))[:12]]
        found = set_interval(float(clips.mean()), halves)
        assert found is not None
        hits += found.low <= truth <= found.high
    assert 0.92 <= hits / 2000 <= 0.96


def test_a_set_has_no_interval_of_few_or_equal_or_infinite_draws() -> None:
    assert set_interval(1.0, [1.0, 2.0, 3.0]) is None
    assert set_interval(1.0, [1.0, 2.0, 3.0, math.inf]) is None
    assert set_interval(1.0, [2.0] * 12) is None
