"""How far a number can be trusted: intervals over people, differences between methods, draws of a set.

Clips of one person are alike, so people are what is drawn, never clips: the bootstrap takes identities with
replacement, each with all its clips. Its intervals are studentised (bootstrap-t, symmetric: Hall, "The Bootstrap and
Edgeworth Expansion", 1992, section 3.6), since percentiles of ten people are too narrow: their nominal 95 % cover less
than 90 %. The standard error is the jackknife's over people, which sees how much hangs on one person. With fewer than
ten people no interval is claimed; what each person's clips give is told instead.

Simulated (tests/test_intervals.py), a nominal 95 % covers 93-97 % for normal people of 3-19 clips, 10 or 20 of them;
85-92 % for skewed people (log-normal of sigma 1), 86-93 % where one of ten people has 200 of 245 clips: read both as
optimistic. Of rates it covers 91-96 % (90 % of 8 clips each of 20 people) or 97 % and more (95 %, 10 people), there
without an interval in a quarter to a third of the benchmarks: where too few people differ, draws without any spread
leave it without ends.

Differences are tested by flipping signs person by person (Fisher, "The Design of Experiments", 1935, section 21):
exact for any distribution if, without a difference, either method could have given the other's values of a person.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from leaderboards.results import ResultError

LEVEL = 0.95
FEWEST = 10  # identities under which there is no interval
DRAWS = 2000
FLIPS = 9999
ROUNDING = 1e-9  # of the size of the values: less spread than this is none
HALVES = 4  # draws of a set's halves under which there is no interval


@dataclass(frozen=True, slots=True)
class Interval:
    """Both ends of a 95 % confidence interval."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """A method against the best one, on the clips that both have.

    difference   mean over clips of the method's value less the best one's; `interval` of it
                 (see mean_interval), None also where all people differ by the same
    p            of the hypothesis of no difference, two-sided, by flips of the people's signs: 1 where nobody differs,
                 about 2 ** (1 - identities) but at least 1 / (1 + FLIPS) where all differ alike;
                 `p_holm` corrected for the number of methods compared
    clips, identities   that the two have in common; fewer than FEWEST identities, or values that are infinite or whose
                 sum is, leave interval, p and p_holm None
    """

    method: str
    best: str
    difference: float
    interval: Interval | None
    p: float | None
    p_holm: float | None
    clips: int
    identities: int


def mean_interval(values: Sequence[float], identities: Sequence[str], seed: int = 0) -> Interval | None:
    """Interval of the mean over clips, people drawn with all their clips.

    values, identities   one a clip. The same for any order of the clips.

    None under FEWEST people, where people are all alike (no spread to tell from) or so nearly that an end would be
    infinite, and where a value is infinite or the sum of values overflows.

    Raises ResultError when the two differ in length or there is no clip.
    """
    sums, counts = _by_identity(values, identities)
    if not _enough(sums):
        return None
    return _about(*_bootstrap(sums, counts, seed))


def by_identity(values: Sequence[float], identities: Sequence[str]) -> dict[str, float]:
    """Mean over the clips of each person, sorted by name; NaN where their sum is not a number or overflows."""
    of: dict[str, list[float]] = defaultdict(list)
    for value, identity in zip(values, identities, strict=True):
        of[identity].append(value)
    return {identity: _sum(of[identity]) / len(of[identity]) for identity in sorted(of)}


def differences(
    scores: Mapping[str, Mapping[str, float]], identity: Mapping[str, str], best: str, seed: int = 0
) -> list[Difference]:
    """Every other method against `best`, pair by pair of clips, in the order of `scores`.

    scores     for each method its value of each clip; identity: who each clip shows

    A clip that one of the two lacks does not count. Raises ResultError for a method that shares no clip with the best.
    """
    found = [_difference(name, best, scores, identity, seed) for name in scores if name != best]
    tested = [one for one in found if one.p is not None]
    corrected = dict(zip((one.method for one in tested), holm([one.p or 0.0 for one in tested]), strict=True))
    return [
        Difference(
            one.method,
            best,
            one.difference,
            one.interval,
            one.p,
            corrected.get(one.method),
            one.clips,
            one.identities,
        )
        for one in found
    ]


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Scandinavian Journal of Statistics 6, 1979), in the order given."""
    order = sorted(range(len(p)), key=lambda k: p[k])
    corrected, largest = [0.0] * len(p), 0.0
    for rank, k in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[k]))
        corrected[k] = largest
    return corrected


def set_interval(value: float, halves: Sequence[float], blocks: int = 8) -> Interval | None:
    """Interval of a set's value from its values on halves of the clips, drawn without replacement.

    A half leaves out as much as it holds, so that its variance about the whole is that of the whole about the truth
    (Politis, Romano and Wolf, "Subsampling", 1999); t of blocks - 1 degrees, since halves are unions of so many blocks.
    The values of halves are biased, their spread is not: the interval is about `value`. It tells how the value
    depends on which clips were drawn, not on which people; a nominal 95 % covers 92-96 % (means of 64 normal or
    exponential clips). None for fewer than HALVES draws, for infinite and for equal ones.
    """
    if len(halves) < HALVES:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        half = float(np.std(halves, ddof=1) * stats.t.ppf((1 + LEVEL) / 2, blocks - 1))
    return _about(value, half)


def _about(value: float, half: float) -> Interval | None:
    """`value` and `half` a width to each side; None where an end is not finite or the width only rounding."""
    ends = Interval(value - half, value + half)
    return ends if math.isfinite(ends.low) and math.isfinite(ends.high) and half > ROUNDING * abs(value) else None


def _sum(values: Sequence[float]) -> float:
    """fsum, the same for any order; NaN where it overflows or infinities cancel."""
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):
        return math.nan


def _by_identity(values: Sequence[float], identities: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and number of clips of each person, in the order of their names."""
    if len(values) != len(identities) or not values:
        raise ResultError(f"{len(values)} values of {len(identities)} clips; expected one each, and at least one clip")
    of: dict[str, list[float]] = defaultdict(list)
    for value, identity in zip(values, identities, strict=True):
        of[identity].append(value)
    people = sorted(of)
    return np.array([_sum(of[p]) for p in people]), np.array([float(len(of[p])) for p in people])


def _enough(sums: NDArray[np.float64]) -> bool:
    """Whether the sums of people are so many, and finite, that an interval may be sought."""
    return len(sums) >= FEWEST and math.isfinite(_sum(np.abs(sums).tolist()))


def _bootstrap(sums: NDArray[np.float64], counts: NDArray[np.float64], seed: int) -> tuple[float, float]:
    """(mean, half the width of its interval) of people with such sums and numbers of clips.

    The half is infinite where there is no interval, 0 or mere rounding where people are all alike.
    """
    people, unit = len(counts), float(np.abs(sums / counts).max()) or 1.0
    sums = sums / unit  # so that squares neither overflow nor vanish
    taken = np.random.default_rng(seed).integers(0, people, (DRAWS, people))
    [mean], [error] = _ratio(sums[None], counts[None])
    means, errors = _ratio(sums[taken], counts[taken])
    away = np.abs(means - mean)
    # People who are all alike in a draw, but not like the sample, say that the error may be far too small.
    drawn = np.where(away > ROUNDING, np.inf, 0.0)
    np.divide(away, errors, out=drawn, where=errors > ROUNDING)
    # "higher", since between infinite draws nothing can be interpolated.
    half = unit * float(error * np.quantile(drawn, LEVEL, method="higher"))
    return unit * float(mean), half


def _ratio(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean over the clips of all people of a row and its jackknife standard error: (R, people) twice to (R,) twice."""
    people, clips = sums.shape[1], counts.sum(axis=1, keepdims=True)
    means = sums.sum(axis=1, keepdims=True) / clips
    # How far the mean moves when a person is left out.
    moves = (sums - means * counts) / (clips - counts)
    return means[:, 0], np.sqrt((people - 1) / people * (moves**2).sum(axis=1))


def _sign_flips(sums: NDArray[np.float64], seed: int) -> float:
    """p of a sum that is symmetric about 0, from the sums of people with signs drawn at random."""
    sums = sums / (np.abs(sums).sum() or 1.0)
    flipped = np.random.default_rng(seed).integers(0, 2, (FLIPS, len(sums)), dtype=np.int8)
    # The same people summed in another order differ by rounding.
    beyond = np.abs(sums.sum() - 2 * (flipped @ sums)) >= abs(sums.sum()) - 1e-12
    # +1: the observed signs are one of the flips, so that p is never 0.
    return float((1 + beyond.sum()) / (1 + FLIPS))


def _difference(
    name: str, best: str, scores: Mapping[str, Mapping[str, float]], identity: Mapping[str, str], seed: int
) -> Difference:
    common = sorted(scores[name].keys() & scores[best].keys())
    if not common:
        raise ResultError(f"{name} and {best} have no clip in common; nothing to compare")
    values = [scores[name][clip] - scores[best][clip] for clip in common]
    people = [identity[clip] for clip in common]
    mean, interval, p = _sum(values) / len(values), None, None
    sums, counts = _by_identity(values, people)
    if _enough(sums):
        interval, p = _about(*_bootstrap(sums, counts, seed)), _sign_flips(sums, seed)
    return Difference(name, best, mean, interval, p, None, len(common), len(counts))
