"""How far a number can be trusted: intervals over people, differences between methods, draws of a set.

Clips of one person are alike, so people are what is drawn, never clips: the bootstrap takes identities with
replacement, each with all its clips. Its intervals are studentised (bootstrap-t, symmetric: Hall, "The Bootstrap and
Edgeworth Expansion", 1992, section 3.6), since percentiles of ten people are too narrow: their nominal 95 % cover less
than 90 %. With fewer than ten people no interval is claimed; what each person's clips give is told instead.
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
    p            of the hypothesis of no difference, two-sided; `p_holm` corrected for the number of methods compared
    clips, identities   that the two have in common; fewer than FEWEST identities leave interval, p and p_holm None
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
    """Interval of the mean over clips, people drawn with all their clips; None under FEWEST people, and where a value
    is infinite.

    values, identities   one a clip. The same for any order of the clips.

    Raises ResultError when the two differ in length or there is no clip.
    """
    sums, counts = _by_identity(values, identities)
    if len(counts) < FEWEST or not np.isfinite(sums).all():
        return None
    mean, error, drawn = _bootstrap(sums, counts, seed)
    half = error * float(np.quantile(np.abs(drawn), LEVEL))
    return Interval(mean - half, mean + half)


def by_identity(values: Sequence[float], identities: Sequence[str]) -> dict[str, float]:
    """Mean over the clips of each person, sorted by name."""
    of: dict[str, list[float]] = defaultdict(list)
    for value, identity in zip(values, identities, strict=True):
        of[identity].append(value)
    return {identity: math.fsum(of[identity]) / len(of[identity]) for identity in sorted(of)}


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
    depends on which clips were drawn, not on which people. None for fewer than HALVES draws, or infinite ones.
    """
    if len(halves) < HALVES or not np.isfinite([value, *halves]).all():
        return None
    half = float(np.std(halves, ddof=1) * stats.t.ppf((1 + LEVEL) / 2, blocks - 1))
    return Interval(value - half, value + half)


def _by_identity(values: Sequence[float], identities: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and number of clips of each person, in the order of their names."""
    if len(values) != len(identities) or not values:
        raise ResultError(f"{len(values)} values of {len(identities)} clips; expected one each, and at least one clip")
    of: dict[str, list[float]] = defaultdict(list)
    for value, identity in zip(values, identities, strict=True):
        of[identity].append(value)
    people = sorted(of)
    return np.array([math.fsum(of[p]) for p in people]), np.array([float(len(of[p])) for p in people])


def _bootstrap(
    sums: NDArray[np.float64], counts: NDArray[np.float64], seed: int
) -> tuple[float, float, NDArray[np.float64]]:
    """(mean, its standard error, studentised means of the draws) of people with such sums and numbers of clips."""
    people = len(counts)
    taken = np.random.default_rng(seed).multinomial(people, np.full(people, 1 / people), DRAWS).astype(float)
    mean, error = _ratio(np.ones((1, people)), sums, counts)
    means, errors = _ratio(taken, sums, counts)
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = np.where(errors > 0, (means - mean) / errors, 0.0)
    return float(mean[0]), float(error[0]), drawn


def _ratio(
    taken: NDArray[np.float64], sums: NDArray[np.float64], counts: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean over clips, its linearised standard error, with each person `taken` so often: (R, people) to (R,) twice."""
    people, clips = taken.shape[1], taken @ counts
    means = taken @ sums / clips
    residual = sums[None] - means[:, None] * counts[None]
    variance = people / (people - 1) * (taken * residual**2).sum(axis=1) / clips**2
    return means, np.sqrt(variance)


def _difference(
    name: str, best: str, scores: Mapping[str, Mapping[str, float]], identity: Mapping[str, str], seed: int
) -> Difference:
    common = sorted(scores[name].keys() & scores[best].keys())
    if not common:
        raise ResultError(f"{name} and {best} have no clip in common; nothing to compare")
    values = [scores[name][clip] - scores[best][clip] for clip in common]
    people = [identity[clip] for clip in common]
    mean, interval, p = math.fsum(values) / len(values), None, None
    sums, counts = _by_identity(values, people)
    if len(counts) >= FEWEST and np.isfinite(sums).all():
        _, error, drawn = _bootstrap(sums, counts, seed)
        half = error * float(np.quantile(np.abs(drawn), LEVEL))
        interval = Interval(mean - half, mean + half)
        # +1: the observed sample is one of the draws, so that p is never 0.
        beyond = int((np.abs(drawn) >= abs(mean) / error).sum()) if error > 0 else (0 if mean else DRAWS)
        p = (1 + beyond) / (1 + DRAWS)
    return Difference(name, best, mean, interval, p, None, len(common), len(counts))
