"""Both modalities of a clip as the embedder takes them, and its batches: several windows of each of several classes."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reference_models.base import Footage
from reference_models.dice_talk import coefficients, speech
from reference_models.dice_talk.coefficients import Coefficients
from reference_models.dice_talk.embedder_losses import same_as
from reference_models.dice_talk.speech import Speech
from reference_models.training import TrainingError, cached

Array = NDArray[np.float32]
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Views:
    """Clips seen and heard, standardised, a row a frame.

    heard_mean, heard_deviation   (F,) float32 of the training split
    cache                         folder for what is computed once a clip, or None
    """

    coefficients: Coefficients
    speech: Speech
    heard_mean: Array
    heard_deviation: Array
    cache: Path | None = None

    def __call__(self, clip: Footage) -> tuple[Array, Array]:
        """(N, D) and (N, F) float32. Raises GenerationError as the front ends."""
        with coefficients.naming(clip):
            if self.cache is None:
                seen = self.coefficients(clip, None)
            else:
                seen = cached(self.cache, clip, self._kind, lambda: self.coefficients(clip, self.cache))
            by_frame = frames(speech.hear(clip, self.speech, self.cache), len(seen))
        return seen, (by_frame - self.heard_mean) / self.heard_deviation

    @cached_property
    def _kind(self) -> str:
        digest = hashlib.sha256(self.coefficients.type.encode())
        for array in self.coefficients.arrays().values():
            digest.update(array.tobytes())
        return f"{self.coefficients.type} {digest.hexdigest()}"

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What a checkpoint keeps of it."""
        seen = {f"coefficients.{name}": array for name, array in self.coefficients.arrays().items()}
        return {**seen, "speech.mean": self.heard_mean, "speech.deviation": self.heard_deviation}


def frames(heard: Array, count: int) -> Array:
    """Speech at 50 Hz (2 L, layers, width) -> (count, layers * width) at 25: pairs averaged, the last one repeated
    where the sound is shorter than the pictures."""
    by_frame = heard.reshape(len(heard) // 2, 2, -1).mean(1)
    return np.asarray(by_frame[np.minimum(np.arange(count), len(by_frame) - 1)], np.float32)


def fit(seen: Coefficients, heard: Speech, clips: Sequence[Footage], cache: Path | None) -> Views:
    """Views whose speech is standardised by these clips, the training split."""
    parts = []
    for clip in clips:
        with coefficients.naming(clip):
            parts.append(coefficients.spread(frames(speech.hear(clip, heard, cache), clip.num_frames)))
    every = np.concatenate(parts).astype(np.float64)
    deviation = every.std(0)
    if not deviation.max() > 0:
        raise TrainingError(f"all {len(clips)} clips of the training split are silent, or sound the same")
    floored = np.maximum(deviation, coefficients.FLOOR * deviation.max()).astype(np.float32)
    return Views(seen, heard, every.mean(0).astype(np.float32), floored, cache)


def cut(views: tuple[Array, Array], window: int, start: int = 0) -> tuple[Array, Array, NDArray[np.bool_]]:
    """`window` frames from `start` on: both modalities filled up with zeros, and which frames there are."""
    there = np.arange(window) < len(views[0]) - start
    filled = []
    for view in views:
        part = view[start : start + window]
        filled.append(np.pad(part, ((0, window - len(part)), (0, 0))))
    return filled[0], filled[1], there


def stacked(items: Sequence[tuple[Array, Array, NDArray[np.bool_]]]) -> Batch:
    """Windows of `cut` as a batch: coefficients (B, N, D), speech (B, N, F), mask (B, N)."""
    return {
        name: torch.from_numpy(np.stack(part))
        for name, part in zip(("coefficients", "speech", "mask"), zip(*items, strict=True), strict=True)
    }


def shuffled(clips: Sequence[Footage], seed: int) -> list[Footage]:
    """Each clip with the sound and the emotion of another, drawn once from the seed: a control that must learn nothing
    of emotions."""
    order = np.random.default_rng(seed).permutation(len(clips))
    others = [clips[index] for index in order]
    return [
        replace(clip, emotion=other.emotion, audio=other.audio, key=f"{clip.key} {other.key}")
        for clip, other in zip(clips, others, strict=True)
    ]


class Batches:
    """Batch `number` from its number and the seed alone: `classes` classes, `samples` windows of each.

    A class is what same_as says. Its windows come from different clips as far as there are as many. With probability
    `drop` a window loses one modality, either with equal chance, never both.

    Raises TrainingError where there are fewer than two classes, and so nothing to tell apart.
    """

    def __init__(
        self, clips: Sequence[Footage], views: Views, *, classes: int, samples: int, window: int, drop: float, seed: int
    ) -> None:
        groups: dict[Hashable, list[Footage]] = {}
        for clip in clips:
            groups.setdefault(same_as(clip), []).append(clip)
        if len(groups) < 2:
            raise TrainingError(
                f"{len(clips)} clips of {len(groups)} class; expected two at least, of another person, emotion or "
                "unlabelled video"
            )
        self._groups = [groups[key] for key in sorted(groups, key=str)]
        self._views, self._classes, self._samples = views, min(classes, len(groups)), samples
        self._window, self._drop, self._seed = window, drop, seed

    def __call__(self, number: int) -> Batch:
        rng = np.random.default_rng([self._seed, number])
        items, labels = [], []
        for label in rng.choice(len(self._groups), self._classes, replace=False):
            group = self._groups[label]
            rounds = -(-self._samples // len(group))
            chosen = np.concatenate([rng.permutation(len(group)) for _ in range(rounds)])[: self._samples]
            for index in chosen:
                views = self._views(group[index])
                start = int(rng.integers(max(1, len(views[0]) - self._window + 1)))
                items.append(cut(views, self._window, start))
                labels.append(int(label))
        batch = stacked(items)
        lost = rng.random(len(items)) < self._drop
        which = rng.random(len(items)) < 0.5
        for name, gone in (("coefficients", lost & which), ("speech", lost & ~which)):
            batch[name][torch.from_numpy(gone)] = 0
        return {**batch, "classes": torch.tensor(labels)}
