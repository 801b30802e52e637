"""What DICE-Talk learns from: windows of 12.5 frames/s of cached latents, with what was heard, felt and seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from reference_models.base import Footage, GenerationError
from reference_models.dice_talk.model import STEP
from reference_models.dice_talk.presets import EMOTIONS, Preset
from reference_models.dice_talk.speech import BEFORE, WINDOW, Speech, hear
from reference_models.dice_talk.vision import Vision
from reference_models.training import TrainingError, cached

REFERENCES = 4  # frames of each clip, spread evenly, that may serve as the reference
UNLABELLED = -1
FACE = 1.1  # the box of the face is made this much larger, as published
CHUNK = 8  # frames that are encoded at once

Prior = tuple[NDArray[np.float32], NDArray[np.float32]]  # mean and deviation, (prior,) each


class Batch(NamedTuple):
    """B windows of F frames. All float32 where nothing else is said.

    latents  (B, F, 4, h, w) of the frames, scaled
    image    (B, 4, h, w) of the reference, unscaled;  seen: (B, cross) its embedding
    heard    (B, F, 10, layers, width) speech features
    mean, deviation   (B, prior) of the emotion prior
    mask     (B, 3, H, W) in {0, 1}
    label    (B,) int64, the class of eq. 16 or UNLABELLED
    dropped  (B, 3) bool: audio, image, emotion
    """

    latents: Tensor
    image: Tensor
    seen: Tensor
    heard: Tensor
    mean: Tensor
    deviation: Tensor
    mask: Tensor
    label: Tensor
    dropped: Tensor


@dataclass(frozen=True, slots=True)
class Example:
    """A clip's arrays: latents (T, 4, h, w) unscaled, embeddings (REFERENCES, cross), features (2 T + 10, layers,
    width) with silence around, masks (REFERENCES, H, W) bool."""

    clip: Footage
    latents: NDArray[np.float32]
    embeddings: NDArray[np.float32]
    features: NDArray[np.float32]
    masks: NDArray[np.bool_]
    prior: Prior

    @property
    def frames(self) -> int:
        return len(self.latents)


def example(clip: Footage, folder: Path, preset: Preset, vision: Vision, speech: Speech, prior: Prior) -> Example:
    """The clip's arrays, computed once and cached. Raises TrainingError for pictures that are not square."""
    about = f"dice-talk 1 {preset.pixels} {vision.id}"
    at = references(clip.num_frames)
    latents = cached(folder, clip, f"latents {about}", lambda: _latents(clip, preset.pixels, vision))
    seen = cached(folder, clip, f"embeddings {about}", lambda: _embeddings(clip, preset.pixels, vision, at))
    features = hear(clip, speech, folder)
    after = max(0, 2 * clip.num_frames + WINDOW - BEFORE - len(features))
    height = next(clip.frames()).shape[0]
    points = clip.points()[at] * (preset.pixels / height)
    masks = np.stack([face_mask(one, (preset.pixels, preset.pixels)) for one in points])
    return Example(clip, latents, seen, np.pad(features, ((BEFORE, after), (0, 0), (0, 0))), masks, prior)


def references(num_frames: int) -> NDArray[np.int64]:
    """Numbers of the frames that may serve as the reference."""
    return np.linspace(0, num_frames - 1, REFERENCES).round().astype(np.int64)


def resized(pictures: Iterator[NDArray[np.uint8]], pixels: int) -> Iterator[NDArray[np.uint8]]:
    """Square pictures, (pixels, pixels, 3). Raises TrainingError for others."""
    for picture in pictures:
        if picture.shape[0] != picture.shape[1]:
            told = f"{picture.shape[1]}x{picture.shape[0]}"
            raise TrainingError(f"clips of {told}; expected square ones: prepare with the square crop")
        yield np.asarray(Image.fromarray(picture).resize((pixels, pixels), Image.Resampling.LANCZOS))


def pictures(clip: Footage, folder: Path, pixels: int) -> NDArray[np.uint8]:
    """All frames, (T, pixels, pixels, 3), from the cache."""
    kind = f"dice-talk pictures 1 {pixels}"
    return cached(folder, clip, kind, lambda: np.stack(list(resized(clip.frames(), pixels))))


def face_mask(points: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The box of the mesh, FACE times as large, inside a picture of `size` (height, width).

    points   (478, 3) in pixels of that picture. Raises GenerationError where they show no face inside it.
    """
    found = points[:, :2]
    if found.shape != (478, 2) or not np.isfinite(found).all():
        raise GenerationError(f"no face: mesh of shape {points.shape}, or not finite; expected (478, 3) pixels")
    centre, half = (found.max(0) + found.min(0)) / 2, FACE * (found.max(0) - found.min(0)) / 2
    left, top = np.floor(np.clip(centre - half, 0, size[::-1])).astype(int)
    right, bottom = np.ceil(np.clip(centre + half, 0, size[::-1])).astype(int)
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    if not mask.any():
        raise GenerationError(f"no face: its box lies outside the {size[1]}x{size[0]} picture")
    return mask


def label(emotion: str, intensity: int | None) -> int:
    """The class of eq. 16, or UNLABELLED: another word, or a level that nobody gave."""
    if emotion == "neutral":
        return 0
    if emotion not in EMOTIONS or intensity not in (1, 2, 3):
        return UNLABELLED
    return 1 + 3 * EMOTIONS.index(emotion) + intensity - 1


def batches(examples: Sequence[Example], preset: Preset, scaling: float, seed: int) -> Callable[[int], Batch]:
    """batch(number), the same for the same number: labelled and other clips 1 : 1 where there are both.

    scaling   of the latents that are generated
    """
    labelled = [i for i, one in enumerate(examples) if one.clip.emotion == "neutral" or one.clip.emotion in EMOTIONS]
    others = [i for i in range(len(examples)) if i not in set(labelled)]
    pools = [pool for pool in (labelled, others) if pool]
    told = np.arange(len(examples))
    if preset.shuffle_conditions:
        told = _derangement(np.random.default_rng([seed, 1]), len(examples))
    neutral: dict[tuple[str, str], list[int]] = {}
    for i, one in enumerate(examples):
        if one.clip.emotion == "neutral":
            neutral.setdefault((one.clip.dataset, one.clip.identity), []).append(i)

    def batch(number: int) -> Batch:
        rows = []
        for b in range(preset.batch):
            rng = np.random.default_rng([seed, 2, number, b])
            pool = pools[(number * preset.batch + b) % len(pools)]
            i = int(rng.choice(pool))
            rows.append(_window(examples, i, int(told[i]), neutral, preset, scaling, rng))
        return Batch(*(torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True)))

    return batch


def _window(
    examples: Sequence[Example],
    i: int,
    told: int,
    neutral: Mapping[tuple[str, str], list[int]],
    preset: Preset,
    scaling: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.generic], ...]:
    """A row of a batch: pictures of example i, sound and emotion of example `told`."""
    own, other = examples[i], examples[told]
    start = int(rng.integers(own.frames - STEP * (preset.window - 1)))
    frames = start + STEP * np.arange(preset.window)
    heard = [other.features[2 * f : 2 * f + WINDOW] for f in frames % other.frames]
    shown = own
    choices = [k for k in neutral.get((own.clip.dataset, own.clip.identity), ()) if k != i]
    if choices and rng.random() < preset.neutral:
        shown = examples[int(rng.choice(choices))]
    r = int(rng.integers(REFERENCES))
    audio, image, emotion, everything = np.cumsum(preset.drops)
    u = rng.random()
    lost = image <= u < emotion, emotion <= u < everything
    dropped = np.array([u < audio or lost[1], audio <= u < image or lost[1], lost[0] or lost[1]])
    reference = shown.latents[references(shown.frames)[r]]
    return (
        np.float32(scaling) * own.latents[frames],
        np.array(reference),
        np.array(shown.embeddings[r]),
        np.stack(heard),
        *other.prior,
        np.repeat(shown.masks[r][None].astype(np.float32), 3, 0),
        np.array(label(other.clip.emotion, other.clip.intensity), np.int64),
        dropped,
    )


def _derangement(rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    """Another number for each of `count`, every one used once."""
    order = rng.permutation(count)
    found = np.empty(count, np.int64)
    found[order] = np.roll(order, 1)
    return found


def _latents(clip: Footage, pixels: int, vision: Vision) -> NDArray[np.float32]:
    made, chunk = [], []
    for picture in resized(clip.frames(), pixels):
        chunk.append(picture)
        if len(chunk) == CHUNK:
            made.append(vision.latents(np.stack(chunk)))
            chunk = []
    if chunk:
        made.append(vision.latents(np.stack(chunk)))
    return np.concatenate(made)


def _embeddings(clip: Footage, pixels: int, vision: Vision, at: NDArray[np.int64]) -> NDArray[np.float32]:
    wanted = {int(number) for number in at}
    found = {i: one for i, one in enumerate(resized(clip.frames(), pixels)) if i in wanted}
    return np.concatenate([vision.embedding(found[int(number)][None]) for number in at])
