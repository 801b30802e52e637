"""What DICE-Talk learns from: windows of 12.5 frames/s of cached latents, with what was heard, felt and seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from reference_models.base import Footage, GenerationError
from reference_models.copies import altered, paced, steadied
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
Shown = tuple[NDArray[np.uint8], NDArray[np.float32]]  # a picture and its mesh


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
    copy: int = 0

    @property
    def frames(self) -> int:
        return len(self.latents)


def example(
    clip: Footage, copy: int, folder: Path, preset: Preset, vision: Vision, speech: Speech, prior: Prior
) -> Example:
    """The arrays of a clip, or of a copy of it (see Preset), computed once and cached. Raises TrainingError for
    pictures that are not square."""
    about = f"dice-talk 2 {preset.pixels} {preset.steady} {copy}"
    at = references(clip.num_frames).tolist()

    def frames() -> Iterator[Shown]:
        if preset.copies == 1:
            return shown(clip, preset)
        own = zip(*small(clip, folder, preset), strict=True)  # decoded once for all copies
        return (_altered(*one, copy) for one in own) if copy else own

    def chosen() -> list[Shown]:
        found = {i: one for i, one in enumerate(frames()) if i in at}
        return [found[i] for i in at]

    def latents() -> NDArray[np.float32]:
        pictures = (picture for picture, _ in frames())
        chunks = iter(lambda: list(islice(pictures, CHUNK)), [])
        return np.concatenate([vision.latents(np.stack(chunk)) for chunk in chunks])

    def embeddings() -> NDArray[np.float32]:
        return np.concatenate([vision.embedding(picture[None]) for picture, _ in chosen()])

    def masks() -> NDArray[np.bool_]:
        return np.stack([face_mask(points, (preset.pixels, preset.pixels)) for _, points in chosen()])

    features = _heard(clip, copy, folder, speech)
    after = max(0, 2 * clip.num_frames + WINDOW - BEFORE - len(features))
    return Example(
        clip,
        cached(folder, clip, f"latents {about} {vision.id}", latents),
        cached(folder, clip, f"embeddings {about} {vision.id}", embeddings),
        np.pad(features, ((BEFORE, after), (0, 0), (0, 0))),
        cached(folder, clip, f"masks {about}", masks),
        prior,
        copy,
    )


def references(num_frames: int) -> NDArray[np.int64]:
    """Numbers of the frames that may serve as the reference."""
    return np.linspace(0, num_frames - 1, REFERENCES).round().astype(np.int64)


def shown(clip: Footage, preset: Preset) -> Iterator[Shown]:
    """The frames of a clip: pictures (pixels, pixels, 3) and meshes (478, 3) in pixels of these. Raises TrainingError
    where they are not square."""
    for picture, points in zip(clip.frames(), clip.points(), strict=False):
        height, width = picture.shape[:2]
        if height != width:
            raise TrainingError(f"clips of {width}x{height}; expected square ones: prepare with the square crop")
        size = (preset.pixels, preset.pixels)
        made = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))
        mesh = (points * (preset.pixels / height)).astype(np.float32)
        if preset.steady and np.isfinite(mesh).all():
            made, mesh = steadied(made, mesh)
        yield made, mesh


def _altered(picture: NDArray[np.uint8], points: NDArray[np.float32], copy: int) -> Shown:
    """All frames of a copy are altered alike; of the mesh the box is moved, which is all that is asked of it."""
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    box = (np.concatenate([low, high])[None] / len(picture)).astype(np.float32)
    made, moved = altered(picture[None], box, np.random.default_rng([6, copy]))
    corners = moved[0].reshape(2, 2) * len(picture)
    mesh = points.copy()
    mesh[:, :2] = (points[:, :2] - low) / (high - low) * (corners[1] - corners[0]) + corners[0]
    return made[0], mesh


def small(clip: Footage, folder: Path, preset: Preset) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """All of shown(), from the cache: (T, pixels, pixels, 3) and (T, 478, 3)."""
    about = f"2 {preset.pixels} {preset.steady}"

    def column(kind: str, number: int) -> NDArray[Any]:
        return cached(folder, clip, f"{kind} {about}", lambda: np.stack([one[number] for one in shown(clip, preset)]))

    return column("dice-talk pictures", 0), column("dice-talk meshes", 1)


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
    told = donors(len(examples), preset, seed)
    neutral: dict[tuple[str, str, int], list[int]] = {}
    for i, one in enumerate(examples):
        if one.clip.emotion == "neutral":
            neutral.setdefault((one.clip.dataset, one.clip.identity, one.copy), []).append(i)

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
    neutral: Mapping[tuple[str, str, int], list[int]],
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
    choices = [k for k in neutral.get((own.clip.dataset, own.clip.identity, own.copy), ()) if k != i]
    if choices and rng.random() < preset.neutral:
        shown = examples[int(rng.choice(choices))]
    r = int(rng.integers(REFERENCES))
    audio, image, emotion, everything = np.cumsum(preset.drops)
    u = rng.random()
    lost = image <= u < emotion, emotion <= u < everything
    dropped = np.array([u < audio or lost[1], audio <= u < image or lost[1], lost[0] or lost[1]])
    reference = shown.latents[references(shown.frames)[r]]
    clean = own.latents[frames] - reference if preset.from_reference else own.latents[frames]
    return (
        np.float32(scaling) * clean,
        np.array(reference),
        np.array(shown.embeddings[r]),
        np.stack(heard),
        *other.prior,
        np.repeat(shown.masks[r][None].astype(np.float32), 3, 0),
        np.array(label(other.clip.emotion, other.clip.intensity), np.int64),
        dropped,
    )


def donors(count: int, preset: Preset, seed: int) -> NDArray[np.int64]:
    """Of each of `count` examples, the number of that whose sound and emotion it has: its own, but in the control."""
    return _derangement(np.random.default_rng([seed, 1]), count) if preset.shuffle_conditions else np.arange(count)


def _derangement(rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    """Another number for each of `count`, every one used once."""
    order = rng.permutation(count)
    found = np.empty(count, np.int64)
    found[order] = np.roll(order, 1)
    return found


def _heard(clip: Footage, copy: int, folder: Path, speech: Speech) -> NDArray[np.float32]:
    """(2 L, layers, width); of a copy, spread over the frames again."""
    if not copy:
        return hear(clip, speech, folder)

    def features() -> NDArray[np.float32]:
        found, length = speech(paced(clip.audio(), copy)), 2 * clip.num_frames
        at = np.arange(length) * len(found) / length
        low = np.minimum(at.astype(int), len(found) - 1)
        share = (at - low)[:, None, None].astype(np.float32)
        return np.asarray((1 - share) * found[low] + share * found[np.minimum(low + 1, len(found) - 1)], np.float32)

    return cached(folder, clip, f"dice-talk speech {speech.id} {copy}", features)
