"""Clips to what EAT-Face learns from: latents, speech features and features of faces, computed once a clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reference_models.base import CHUNK, Footage
from reference_models.copies import altered, paced
from reference_models.eat_face import model
from reference_models.eat_face.encoders import Pair, Speech
from reference_models.eat_face.presets import EMOTIONS, Preset
from reference_models.training import TrainingError, cached

NEUTRAL = "neutral"
VERSION = 1  # raise when something below is computed otherwise

Pictures = NDArray[np.uint8]
Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Item:
    """One copy of a clip of N frames.

    latents   z (N, C, h, w) float16       hidden   z_m (N, C, h, w) float16
    speech    (S, D) float16               faces    (N, E) float32
    """

    clip: Footage
    copy: int
    latents: NDArray[Any]
    hidden: NDArray[Any]
    speech: NDArray[Any]
    faces: NDArray[Any]

    def window(self, frame: int) -> Tensor:
        """(3, D), what the frame hears."""
        features = torch.from_numpy(self.speech.astype(np.float32))
        return model.windows(features, len(self.latents), torch.tensor([frame]))[0]


def usable(clips: Sequence[Footage]) -> tuple[list[Footage], list[str]]:
    """The clips of EMOTIONS, and what to tell of the others."""
    kept = [clip for clip in clips if clip.emotion in EMOTIONS]
    other = sorted({clip.emotion for clip in clips} - set(EMOTIONS))
    told = f"{len(clips) - len(kept)} clips left out: {', '.join(other)} is none of EAT-Face's emotions"
    return kept, [told] if other else []


# --- pictures ----------------------------------------------------------------------------------------------------


def resized(picture: Pictures, width: int, height: int) -> Pictures:
    if picture.shape[:2] == (height, width):
        return picture
    way = cv2.INTER_AREA if height < picture.shape[0] else cv2.INTER_CUBIC
    out: Pictures = cv2.resize(picture, (width, height), interpolation=way)  # type: ignore[assignment]
    return out


def pictures(clip: Footage, preset: Preset, cache: Path) -> Iterator[Pictures]:
    """Chunks (n, size, size, 3), n <= CHUNK; small ones are kept on the disk."""
    small: Iterator[Pictures] = (resized(frame, preset.size, preset.size) for frame in clip.frames())
    if preset.own_encoders:
        kept = cached(cache, clip, f"eat-face pictures {VERSION} {preset.size}", lambda: np.stack(list(small)))
        small = iter(kept)
    while chunk := list(islice(small, CHUNK)):
        yield np.stack(chunk)


def boxes(clip: Footage, cache: Path) -> Array:
    """The mask of each frame, see model.boxes."""

    def make() -> Array:
        height, width = next(iter(clip.frames())).shape[:2]
        return model.boxes(torch.from_numpy(clip.points()), width, height).numpy()

    return cached(cache, clip, f"eat-face boxes {VERSION}", make)


def chunks(clip: Footage, copy: int, preset: Preset, cache: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """Pictures (n, 3, size, size) in [-1, 1] and masks (n, 4) of a copy, a chunk at a time."""
    box, start = np.array(boxes(clip, cache)), 0
    for shown in pictures(clip, preset, cache):
        mask = box[start : start + len(shown)]
        start += len(shown)
        if copy:
            shown, mask = altered(shown, mask, np.random.default_rng([VERSION, copy]))
        yield to_tensor(shown), torch.from_numpy(mask)


def to_tensor(shown: Pictures) -> Tensor:
    """(n, H, W, 3) uint8 to (n, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(shown).permute(0, 3, 1, 2).float() / 127.5 - 1


def faces(shown: Tensor, box: Tensor, side: int) -> Tensor:
    """The masked part of pictures (n, 3, H, W) in [-1, 1], a tenth wider, as (n, 3, side, side) in [0, 1]."""
    centre, half = (box[:, :2] + box[:, 2:]) / 2, (box[:, 2:] - box[:, :2]) * 0.55
    theta = torch.zeros(len(shown), 2, 3, device=shown.device)
    theta[:, 0, 0], theta[:, 1, 1] = (half * 2).unbind(1)
    theta[:, :, 2] = centre * 2 - 1
    grid = torch.nn.functional.affine_grid(theta, [len(shown), 3, side, side], align_corners=False)
    seen = torch.nn.functional.grid_sample(shown, grid, padding_mode="border", align_corners=False)
    return (seen + 1) / 2


# --- items and batches -------------------------------------------------------------------------------------------


@torch.no_grad()
def prepare(
    clip: Footage,
    copy: int,
    networks: tuple[model.Codec, Speech, Pair],
    ids: Sequence[str],
    preset: Preset,
    cache: Path,
) -> Item:
    """The item, from the disk where it was computed before. ids: digests of the three networks' weights."""
    codec, speech, pair = networks
    device = codec.scale.device
    kinds = [f"{kind} {VERSION} {preset.size} {preset.mask} {copy} {which}" for kind, which in zip(
        ("eat-face latents", "eat-face speech", "eat-face faces"), ids, strict=True
    )]  # fmt: skip

    def latents() -> NDArray[Any]:
        made = []
        for shown, box in chunks(clip, copy, preset, cache):
            shown, box = shown.to(device), box.to(device)
            made.append(torch.stack([codec.encode(shown), codec.encode(model.masked(shown, box, preset.mask))], 1))
        return torch.cat(made).half().cpu().numpy()

    def seen() -> NDArray[Any]:
        made = [
            pair.pictures(faces(shown.to(device), box.to(device), pair.side))
            for shown, box in chunks(clip, copy, preset, cache)
        ]
        return torch.cat(made).float().cpu().numpy()

    both = cached(cache, clip, kinds[0], latents)
    heard = cached(cache, clip, kinds[1], lambda: speech.features(paced(clip.audio(), copy)).half().cpu().numpy())
    return Item(clip, copy, both[:, 0], both[:, 1], heard, cached(cache, clip, kinds[2], seen))


class Draw:
    """Batches by number: each depends on the seed and its number alone."""

    def __init__(self, items: Sequence[Item], seed: int) -> None:
        """Raises TrainingError where nobody has a neutral clip, the source of the emotionless x_r."""
        self._seed = seed
        self._calm: dict[tuple[str, int], list[Item]] = {}
        for item in items:
            if item.clip.emotion == NEUTRAL:
                self._calm.setdefault((item.clip.identity, item.copy), []).append(item)
        self.items = [item for item in items if (item.clip.identity, item.copy) in self._calm]
        if not self.items:
            raise TrainingError(
                "nobody has a clip of emotion neutral; EAT-Face takes its emotionless pictures from those"
            )

    def reconstruction(self, number: int, size: int) -> dict[str, Tensor]:
        """x_r is a random frame of the clip (Section III-C.3)."""
        rng = self._rng(number)
        rows = []
        for _ in range(size):
            item = self._one(rng, self.items)
            frame, other = rng.integers(len(item.latents), size=2)
            rows.append(_row(item, int(frame), item, int(other)))
        return _stack(rows)

    def emotion(self, number: int, size: int) -> dict[str, Tensor]:
        """x_r is an emotionless frame of the person (Section III-D.1)."""
        rng = self._rng(number)
        return _stack([self._calm_row(rng, self._one(rng, self.items)) for _ in range(size)])

    def distinct(self, number: int, size: int) -> dict[str, Tensor]:
        """As `emotion`, no emotion twice; as many as there are where that is fewer than the batch."""
        rng = self._rng(number)
        known = sorted({item.clip.emotion for item in self.items})
        rows = []
        for word in rng.permutation(known)[:size]:
            of = [item for item in self.items if item.clip.emotion == word]
            rows.append(self._calm_row(rng, self._one(rng, of)))
        return _stack(rows)

    def calm(self, item: Item) -> Item:
        """The first neutral clip of the item's person, in the same colours."""
        return self._calm[item.clip.identity, item.copy][0]

    def _calm_row(self, rng: np.random.Generator, item: Item) -> dict[str, Tensor]:
        other = self._one(rng, self._calm[item.clip.identity, item.copy])
        return _row(item, int(rng.integers(len(item.latents))), other, int(rng.integers(len(other.latents))))

    def _rng(self, number: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, number])

    @staticmethod
    def _one(rng: np.random.Generator, items: Sequence[Item]) -> Item:
        return items[int(rng.integers(len(items)))]


def _row(item: Item, frame: int, reference: Item, other: int) -> dict[str, Tensor]:
    """clean, hidden, reference (C, h, w); speech (3, D); word, the emotion's number; face, calm (E,)."""

    def tensor(array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.array(array, np.float32))

    return {
        "clean": tensor(item.latents[frame]),
        "hidden": tensor(item.hidden[frame]),
        "reference": tensor(reference.latents[other]),
        "speech": item.window(frame),
        "word": torch.tensor(EMOTIONS.index(item.clip.emotion)),
        "face": tensor(item.faces[frame]),
        "calm": tensor(reference.faces[other]),
    }


def _stack(rows: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
