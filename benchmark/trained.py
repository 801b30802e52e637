"""A network never scores footage that it was trained on: its file says what that was (metrics.networks.cards)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from benchmark.extraction import Extracted, Plan
from benchmark.protocol import Pair
from metrics.base import MetricError, Weights
from metrics.networks import cards


def refuse(plan: Plan, pairs: Iterable[Pair], found: Mapping[str, Extracted]) -> None:
    """Take from `found` what a network made of pairs whose target it was trained on, and say so in their errors.

    The target counts, not the video that was made: a generator that reproduces a clip by heart is not to be judged
    by a classifier that knows it by heart. It is known by its prepared file or by the raw one, however that is
    prepared anew; other recordings of the same person are not refused.
    """
    networks = {need: plan.weights[need[1]] for need in plan.needs}
    for pair in pairs:
        digests = {pair.target.sha256, pair.target.source_sha256}
        for need, files in networks.items():
            for name, file in files.items():
                if digests & _footage(file):
                    found[pair.pair_id].keys.pop(need, None)
                    found[pair.pair_id].errors[need] = f"{name} was trained on this clip: it must not score it"


@lru_cache(maxsize=16)
def _footage(file: Weights) -> frozenset[str]:
    """SHA-256 of the files that a network was trained on; empty where it was not trained here."""
    if file.path.suffix != ".safetensors":
        return frozenset()
    try:
        card = cards.read(file.path)
    except MetricError:  # its extractor will say so, of every clip
        return frozenset()
    return frozenset(card["trained_on"]["footage"]) if card else frozenset()
