"""One second of four of the demo's test clips, and of the takes that their portraits and emotions come from.

Small enough that every generator makes it on a CPU in minutes; the raw files are those of the demo, and so is the
ancestry of its people: see pipelines.datasets.demo.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from pipelines.datasets import Cut, Index, Source, demo
from pipelines.splits import Card

NAME = "demo-second"
START, SECONDS = 0.4, 1.0  # s; everybody speaks by then
PORTRAIT = "002"  # the neutral take
EMOTIONS = {"W107": "happy", "W108": "sad"}  # of whom which emotion
TAKES = ("001", "003")  # each shows the emotion for the other


def index(root: Path) -> Index:
    """The seconds that the demo's raw tree at `root` holds. Raises DatasetError as the demo's index."""
    found = demo.index(root)
    cut = Cut(START, START + SECONDS)
    wanted = [
        dataclasses.replace(source, dataset=NAME, cut=cut)
        for source in found.sources
        if source.identity in EMOTIONS
        and (source.emotion, source.take)
        in [("neutral", PORTRAIT), *((EMOTIONS[source.identity], take) for take in TAKES)]
    ]
    return Index(wanted, found.rejected)


def split(sources: Sequence[Source]) -> Card:
    """All of it is for testing, as in the demo."""
    return demo.split(sources)
