"""Whose sound, and whose pictures, a baseline is given in place of a pair's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmark import protocol
from benchmark.errors import BenchError
from benchmark.protocol import Pair


def donors(members: Sequence[Pair], seed: int) -> dict[str, Pair]:
    """Another pair for each pair, every one used once: another sentence and person wherever that is possible.

    Among all cyclic shifts of one seeded order (sorted by sentence) the one with the most pairs of another
    sentence, then of another person, is taken. Raises BenchError for fewer than two pairs.
    """
    if len(members) < 2:
        raise BenchError("shuffled audio needs at least two pairs")
    words = [pair.target.sentence or pair.target.clip_id for pair in members]
    order = sorted(range(len(members)), key=lambda i: (words[i], protocol.seeded(seed, "donor", members[i].pair_id)))
    sentence = np.unique([words[i] for i in order], return_inverse=True)[1]
    person = np.unique([members[i].target.identity for i in order], return_inverse=True)[1]

    def differences(shift: int) -> tuple[int, int]:
        other = np.roll(sentence, -shift) != sentence, np.roll(person, -shift) != person
        return int(other[0].sum()), int((other[0] & other[1]).sum())

    best = max(range(1, len(members)), key=differences)
    return {members[a].pair_id: members[b] for a, b in zip(order, np.roll(order, -best), strict=True)}


def strangers(members: Sequence[Pair], seed: int) -> dict[str, Pair]:
    """For each pair one of another person, of the same emotion where there is one, drawn by the seed and the pair's id.

    Raises BenchError where all real videos are of one person.
    """
    filmed = sorted((pair for pair in members if not pair.target.still), key=lambda pair: pair.pair_id)
    if len({pair.target.identity for pair in filmed}) < 2:
        raise BenchError("the pictures of another person need real videos of at least two people")
    pools: dict[str, list[Pair]] = {}
    for pair in filmed:
        pools.setdefault(pair.emotion, []).append(pair)
    found = {}
    for pair in members:
        for pool in (pools.get(pair.emotion, []), filmed):
            start = protocol.seeded(seed, "stranger", pair.pair_id)
            turned = (pool[(start + k) % len(pool)] for k in range(len(pool)))
            other = next((one for one in turned if one.target.identity != pair.target.identity), None)
            if other is not None:
                found[pair.pair_id] = other
                break
    return found
