"""Emo-Acc: the share of generated frames in which a classifier sees the emotion that was asked for.

EAT-Face (Wang et al.), section IV-C and Table II: a VGG-16 trained on the same dataset names the emotion of every
frame; the table has each of MEAD's eight emotions and their average. What the classifier makes of the real test frames
stands beside it, because no generated video can be expected to exceed that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from metrics.base import ASKED, Features, Metric, MetricError, Side, Table, register
from metrics.emotion import SPACES

EIGHT = tuple(SPACES["mead"].values())  # columns of stored probabilities
NETWORK = "emotion-vgg16"

Clips = Iterable[Features]


def confusion(clips: Clips, asked: Clips) -> NDArray[np.int64]:
    """(8, 8) counts of frames: row the emotion asked for, column the one of the largest probability (the first of
    equal ones), both in the order of EIGHT.

    clips   {"probability": (N, 8) in the order of EIGHT, NaN for emotions that the classifier does not know} each
    asked   {"emotion": str} each

    Raises MetricError for an emotion that is none of the eight, or that the classifier does not know.
    """
    counts = np.zeros((len(EIGHT), len(EIGHT)), np.int64)
    for seen, wanted in zip(clips, asked, strict=True):
        emotion, rows = str(wanted["emotion"]), seen["probability"]
        known = np.asarray(np.isfinite(rows).any(axis=0))
        if emotion not in EIGHT:
            raise MetricError(f"a clip of emotion {emotion!r} among those to be scored; only {', '.join(EIGHT)} can be")
        if not known[EIGHT.index(emotion)]:
            words = ", ".join(word for word, is_known in zip(EIGHT, known, strict=True) if is_known)
            raise MetricError(f"the classifier was not trained on {emotion}; it knows {words or 'nothing'}")
        if not ((rows[:, known] >= 0) & (rows[:, known] <= 1)).all():
            raise MetricError("some frames hold no probabilities (NaN, or outside 0 to 1)")
        named = np.where(known, rows, -1).argmax(axis=1)
        np.add.at(counts, (EIGHT.index(emotion), named), 1)
    return counts


def rates(counts: NDArray[np.int64]) -> dict[str, float]:
    """Share of the frames of each emotion asked for that are classified as it (0 to 1), from a confusion matrix;
    emotions without frames are left out."""
    totals = counts.sum(axis=1)
    return {word: float(counts[k, k] / totals[k]) for k, word in enumerate(EIGHT) if totals[k]}


def accuracy(clips: Clips, asked: Clips) -> float:
    """Share of frames classified as the emotion that was asked for, in %: of all frames of all clips of an emotion,
    then the mean over the emotions that were asked for. Emotions weigh the same however many frames they have, as in
    the "Average" of EAT-Face's Table II.

    clips   {"probability": (N, 8) in the order of EIGHT, NaN for emotions that the classifier does not know} each
    asked   {"emotion": one of EIGHT} each

    Raises MetricError for an emotion that the classifier does not know, and for no clips.
    """
    of = rates(confusion(clips, asked))
    if not of:
        raise MetricError("no frames of any emotion to classify")
    return 100 * float(np.mean(list(of.values())))


def confusion_table(ids: Sequence[str], clips: Clips, asked: Clips) -> Table:
    """The confusion matrix as lines, the first of them the heading: emotion asked for, frames of it classified as each
    of the eight. Raises MetricError as `confusion`."""
    counts = confusion(clips, asked).tolist()
    return [["asked", *EIGHT], *([word, *row] for word, row in zip(EIGHT, counts, strict=True))]


def _register(name: str, side: Side, emotions: tuple[str, ...], label: str) -> None:
    register(
        Metric(
            name=f"{name}/vgg16",
            version=1,
            needs=((side, NETWORK), ASKED),
            level="set",
            unit="%",
            direction="higher",
            compute=accuracy,
            label=label,
            digits=2,
            source="EAT-Face (Wang et al.), section IV-C and Table II; classifier by `bench train emotion-classifier`",
            emotions=emotions,
            details=confusion_table if emotions == EIGHT else None,
        )
    )


_register("emo-acc", "generated", EIGHT, "Emo-Acc.")
_register("emo-acc-real", "real", EIGHT, "Emo-Acc. (real frames)")
for _word in EIGHT:
    _register(f"emo-acc-{_word}", "generated", (_word,), f"Emo-Acc. ({_word})")
