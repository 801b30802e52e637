"""Emo-Score and its relatives: does the generated face show the emotion that was asked for?

DICE-Talk prints an "Emo-Score" of EMO-AffectNet (Ryumina et al. 2022) over neutral, happy, surprised and angry, with
the average of the neutral and of the other three beside it, and publishes no code for it. The convention here is
ours and is this: the network's probability of the asked emotion among its seven, averaged over the frames of a clip,
over the clips of an emotion, and over the emotions. Hence overall = (neutral + 3 x non-neutral) / 4.

Every network is a variant of its own; a number of one says nothing about another's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from metrics.base import ASKED, Features, Metric, MetricError, Table, register

# Every label space in use: its own words, in its own order (a network's: the order of its outputs), and which of
# MEAD's words each stands for.
SPACES: dict[str, dict[str, str]] = {
    "mead": {
        "angry": "angry",
        "contempt": "contempt",
        "disgusted": "disgusted",
        "fear": "fear",
        "happy": "happy",
        "neutral": "neutral",
        "sad": "sad",
        "surprised": "surprised",
    },
    "affectnet-7": {
        "Neutral": "neutral",
        "Happiness": "happy",
        "Sadness": "sad",
        "Surprise": "surprised",
        "Fear": "fear",
        "Disgust": "disgusted",
        "Anger": "angry",
    },
    "fer-2013": {
        "angry": "angry",
        "disgust": "disgusted",
        "fear": "fear",
        "happy": "happy",
        "sad": "sad",
        "surprise": "surprised",
        "neutral": "neutral",
    },
    "crema-d": {
        "ANG": "angry",
        "DIS": "disgusted",
        "FEA": "fear",
        "HAP": "happy",
        "NEU": "neutral",
        "SAD": "sad",
    },
    "dice-talk": {
        "neutral": "neutral",
        "happy": "happy",
        "surprised": "surprised",
        "angry": "angry",
    },
}
# Words of a manifest that no network here knows: MEAD's contempt, RAVDESS's calm. Their clips enter no emotion score.
EXCLUDED = ("contempt", "calm")

SEVEN = tuple(word for word in SPACES["mead"].values() if word not in EXCLUDED)  # columns of stored probabilities
FOUR = tuple(SPACES["dice-talk"].values())
NON_NEUTRAL = tuple(word for word in FOUR if word != "neutral")

NETWORKS = {"emo-affectnet": "", "fer-cnn": " (fer-cnn)", "mini-xception": " (mini-Xception)"}  # suffixes of headings


def faces(seen: Features) -> NDArray[np.float64]:
    """Probabilities of the frames that show a face: (F, 7) float64, columns in the order of SEVEN.

    Raises MetricError where no frame shows one, and for rows that are not probabilities.
    """
    found = seen["found"].astype(bool)
    if not found.any():
        raise MetricError(f"no face found in {len(found)} of {len(found)} frames")
    rows: NDArray[np.float64] = seen["probability"][found].astype(np.float64)
    # 1e-2 admits what was stored as float16.
    bad = ~((rows >= 0).all(axis=1) & (np.abs(rows.sum(axis=1) - 1) < 1e-2))
    if bad.any():
        raise MetricError(
            f"{bad.sum()} of {len(rows)} frames hold no probabilities (negative, NaN, or not summing to 1)"
        )
    return rows


def _among(rows: NDArray[np.float64], labels: tuple[str, ...]) -> NDArray[np.float64]:
    """Columns of `labels`, each row summing to 1 again."""
    kept = rows[:, [SEVEN.index(label) for label in labels]]
    total = kept.sum(axis=1, keepdims=True)
    if (total == 0).any():
        raise MetricError(f"{(total == 0).sum()} of {len(rows)} frames give {', '.join(labels)} no probability at all")
    normalised: NDArray[np.float64] = kept / total
    return normalised


def _target(asked: Features, labels: tuple[str, ...]) -> str:
    emotion = str(asked["emotion"])
    if emotion not in labels:
        raise MetricError(f"a clip of emotion {emotion!r} among those to be scored; only {', '.join(labels)} can be")
    return emotion


def probability(seen: Features, asked: Features) -> float:
    """Probability of the asked emotion among the network's seven, mean over the frames that show a face (0 to 1).

    seen    {"probability": (T, 7) in the order of metrics.emotion.SEVEN, "found": (T,)}
    asked   {"emotion": one of metrics.emotion.SEVEN}

    Raises MetricError for another emotion, or where no frame shows a face.
    """
    target = _target(asked, SEVEN)
    return float(faces(seen)[:, SEVEN.index(target)].mean())


Clips = Iterable[Features]
Pairs = Iterator[tuple[NDArray[np.float64], str]]


def _pairs(clips: Clips, asked: Clips, labels: tuple[str, ...], among: tuple[str, ...]) -> Pairs:
    """(probabilities (F, len(among)) of the frames with a face, asked emotion) of each clip."""
    for seen, wanted in zip(clips, asked, strict=True):
        target = _target(wanted, labels)
        yield _among(faces(seen), among), target


def _macro(scores: Iterable[tuple[str, float]], labels: tuple[str, ...]) -> float:
    """Mean over `labels` of the mean over their clips. Raises MetricError naming the labels without any."""
    of: dict[str, list[float]] = defaultdict(list)
    for emotion, value in scores:
        of[emotion].append(value)
    missing = [label for label in labels if not of[label]]
    if missing:
        raise MetricError(f"no clip of {', '.join(missing)}; the mean over {', '.join(labels)} needs each")
    return float(np.mean([np.mean(of[label]) for label in labels]))


def _score(clips: Clips, asked: Clips, labels: tuple[str, ...], among: tuple[str, ...] = SEVEN) -> float:
    pairs = _pairs(clips, asked, labels, among)
    return _macro(((target, float(rows[:, among.index(target)].mean())) for rows, target in pairs), labels)


def _hits(clips: Clips, asked: Clips, among: tuple[str, ...]) -> float:
    pairs = _pairs(clips, asked, FOUR, among)
    named = ((target, among[int(rows.mean(axis=0).argmax())]) for rows, target in pairs)
    return _macro(((target, float(target == name)) for target, name in named), FOUR)


def score(clips: Clips, asked: Clips) -> float:
    """Probability of the asked emotion among the network's seven, averaged over the frames that show a face, then
    over the clips of an emotion, then over neutral, happy, surprised and angry (0 to 1).

    clips   {"probability": (T, 7) in the order of metrics.emotion.SEVEN, "found": (T,)} each
    asked   {"emotion": str} each

    It equals (neutral + 3 x non-neutral) / 4. Raises MetricError for a clip of another emotion or without a face, and
    names an emotion of which there is no clip.
    """
    return _score(clips, asked, FOUR)


def score_neutral(clips: Clips, asked: Clips) -> float:
    """The part of the Emo-Score that neutral clips make: mean probability of neutral among the seven, averaged over
    frames, then clips (0 to 1). Raises MetricError as the Emo-Score."""
    return _score(clips, asked, ("neutral",))


def score_non_neutral(clips: Clips, asked: Clips) -> float:
    """The part of the Emo-Score that happy, surprised and angry clips make: probability of the asked emotion among the
    seven, averaged over frames, clips, then the three emotions (0 to 1). Raises MetricError as the Emo-Score."""
    return _score(clips, asked, NON_NEUTRAL)


def score_4way(clips: Clips, asked: Clips) -> float:
    """The Emo-Score with each frame's probabilities scaled to sum to 1 over neutral, happy, surprised and angry
    before anything is averaged (0 to 1). Raises MetricError as the Emo-Score."""
    return _score(clips, asked, FOUR, FOUR)


def accuracy(clips: Clips, asked: Clips) -> float:
    """Share of clips whose largest of the seven mean probabilities (over frames that show a face) is that of the asked
    emotion; share in each of neutral, happy, surprised and angry, then their mean (0 to 1). Raises MetricError as the
    Emo-Score."""
    return _hits(clips, asked, SEVEN)


def accuracy_4way(clips: Clips, asked: Clips) -> float:
    """The accuracy with the choice among neutral, happy, surprised and angry only: each frame's probabilities are
    scaled to sum to 1 over the four before they are averaged (0 to 1). Raises MetricError as the Emo-Score."""
    return _hits(clips, asked, FOUR)


def confusion(clips: Clips, asked: Clips) -> NDArray[np.int64]:
    """(7, 7) counts of clips: row the asked emotion, column that of the largest mean probability, both in the order of
    SEVEN. Raises MetricError for a clip of another emotion or without a face."""
    counts = np.zeros((len(SEVEN), len(SEVEN)), np.int64)
    for rows, target in _pairs(clips, asked, SEVEN, SEVEN):
        counts[SEVEN.index(target), rows.mean(axis=0).argmax()] += 1
    return counts


def confusion_table(ids: Sequence[str], clips: Clips, asked: Clips) -> Table:
    """`confusion` as lines, the first of them the heading. Raises MetricError as it does."""
    counts = confusion(clips, asked).tolist()
    return [["asked", *SEVEN], *([word, *row] for word, row in zip(SEVEN, counts, strict=True))]


def _register(family: str, compute: Callable[..., float], emotions: tuple[str, ...], label: str) -> None:
    for network, suffix in NETWORKS.items():
        register(
            Metric(
                name=f"{family}/{network}",
                version=1,
                needs=(("generated", network), ASKED),
                level="clip" if compute is probability else "set",
                unit="",
                direction="higher",
                compute=compute,
                label=label + suffix,
                digits=4,
                source="after DICE-Talk (Tan et al. 2025), section 4.2, which has no formula: our convention",
                emotions=emotions,
                details=confusion_table if compute is accuracy else None,
            )
        )


_register("emo-score", score, FOUR, "Emo-Score")
_register("emo-score-neutral", score_neutral, ("neutral",), "Neutral")
_register("emo-score-non-neutral", score_non_neutral, NON_NEUTRAL, "Non-neutral")
_register("emo-score-4way", score_4way, FOUR, "Emo-Score (4-way)")
_register("emo-accuracy", accuracy, FOUR, "Emotion accuracy")
_register("emo-accuracy-4way", accuracy_4way, FOUR, "Emotion accuracy (4-way)")
_register("emo-prob", probability, SEVEN, "Emotion probability")
