"""Subsets of a set's clips, drawn without replacement, to tell what a set-level value is worth.

The clips are dealt at random into BLOCKS blocks, and a draw is a union of blocks: each draw is then a random subset of
the clips, and what is costly is computed once a block. Politis, Romano and Wolf, "Subsampling", 1999; extrapolation:
Chong and Forsyth, "Effectively unbiased FID and Inception Score", CVPR 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

BLOCKS = 8
HALVES, QUARTERS = 12, 8  # draws of about half and about a quarter of the clips


def deal(seed: int, clips: int) -> NDArray[np.int64]:
    """The block of each clip, (clips,): min(BLOCKS, clips) blocks whose sizes differ by at most one."""
    order = np.random.default_rng([seed, 0]).permutation(clips)
    block = np.empty(clips, np.int64)
    block[order] = np.arange(clips) % BLOCKS
    return block


def draws(seed: int, clips: int) -> list[tuple[int, ...]]:
    """The blocks of each draw: distinct unions of half of the blocks, then of a quarter. Empty under 4 clips."""
    blocks = min(BLOCKS, clips)
    if blocks < 4:
        return []
    rng = np.random.default_rng([seed, 1])
    drawn = []
    for size, wanted in ((blocks // 2, HALVES), (blocks // 4, QUARTERS)):
        unions = list(combinations(range(blocks), size))
        drawn += [unions[k] for k in rng.permutation(len(unions))[:wanted]]
    return drawn


def extrapolate(vectors: Sequence[int], values: Sequence[float]) -> float | None:
    """The value at infinitely many vectors: intercept of the least-squares line through (1 / vectors, value).

    None when all counts are equal, and when the line ends below zero: a distance that small cannot be told from these
    sets. The bias of a Fréchet distance is linear in 1 / N only for N above the dimension of the features; under it
    the line may end farther from the truth than the value itself, so the caller leaves it out.
    """
    if len(set(vectors)) < 2:
        return None
    _, intercept = np.polyfit(1 / np.asarray(vectors, float), np.asarray(values, float), 1)
    return float(intercept) if intercept >= 0 else None
