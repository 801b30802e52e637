"""Stages that only a preset with `own_encoders` has: components of squares, and encoders of speech, faces and words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from reference_models.base import Footage
from reference_models.copies import SPREAD, altered, mouth, paced
from reference_models.eat_face import data, sample
from reference_models.eat_face.encoders import SmallPair, SmallSpeech, mel
from reference_models.eat_face.presets import EMOTIONS, Preset

TEMPERATURE = 0.1  # of the pair's cosines
LENGTH = 64  # speech features of an example


class Shown:
    """Random pictures of clips in memory, in random colours."""

    def __init__(self, clips: Sequence[Footage], preset: Preset, cache: Path, size: int, seed: int) -> None:
        self._pictures = [np.concatenate(list(data.pictures(clip, preset, cache))) for clip in clips]
        self._boxes = [np.asarray(data.boxes(clip, cache)) for clip in clips]
        self._words = [EMOTIONS.index(clip.emotion) for clip in clips]
        self._size, self._seed = size, seed

    def __call__(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures (n, 3, H, W) in [-1, 1], masks (n, 4), numbers of emotions (n,)."""
        rng = np.random.default_rng([self._seed, number])
        rows = []
        for _ in range(self._size):
            clip = int(rng.integers(len(self._pictures)))
            frame = int(rng.integers(len(self._pictures[clip])))
            shown, box = self._pictures[clip][[frame]], self._boxes[clip][[frame]]
            shown, box = altered(shown, box, rng)
            rows.append((data.to_tensor(shown), torch.from_numpy(box), torch.tensor([self._words[clip]])))
        pictures, boxes, words = (torch.cat(column) for column in zip(*rows, strict=True))
        return pictures, boxes, words


class Heard:
    """Random stretches of sound and the mouth that goes with them, from several paces of each clip."""

    def __init__(self, clips: Sequence[Footage], preset: Preset, size: int, seed: int) -> None:
        self._rows = []
        for clip in clips:
            shape = mouth(clip.points()) / SPREAD
            for copy in range(preset.copies):
                bands = mel(paced(clip.audio(), copy))
                at = np.arange(bands.shape[1]) * len(shape) / bands.shape[1]
                wanted = [np.interp(at, np.arange(len(shape)), column) for column in shape.T]
                short = max(0, LENGTH - bands.shape[1])
                self._rows.append((F.pad(bands, (0, short)), F.pad(torch.tensor(np.array(wanted)).float(), (0, short))))
        self._size, self._seed = size, seed

    def __call__(self, number: int) -> tuple[Tensor, Tensor]:
        """Bands (n, MELS, LENGTH) of random loudness, mouths (n, LENGTH, 4)."""
        rng = np.random.default_rng([self._seed, number])
        rows = []
        for _ in range(self._size):
            bands, wanted = self._rows[int(rng.integers(len(self._rows)))]
            start = int(rng.integers(bands.shape[1] - LENGTH + 1))
            louder = float(rng.normal(0, 0.15))
            rows.append((bands[:, start : start + LENGTH] + louder, wanted.T[start : start + LENGTH]))
        bands, mouths = (torch.stack(column) for column in zip(*rows, strict=True))
        return bands, mouths


def filling(clips: Sequence[Footage], preset: Preset, cache: Path) -> list[NDArray[np.uint8]]:
    """Every clip's pictures (T, H, W, 3) in all its copies, for the components of squares."""
    return [
        np.concatenate([sample.to_pictures(shown) for shown, _ in data.chunks(clip, copy, preset, cache)])
        for clip in clips
        for copy in range(preset.copies)
    ]


def speech_loss(speech: SmallSpeech, heard: tuple[Tensor, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    bands, mouths = heard
    return {"mouth": F.mse_loss(speech.mouth(bands), mouths)}


def pair_loss(pair: SmallPair, shown: tuple[Tensor, Tensor, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Each picture against the words of all emotions, as CLIP classifies."""
    pictures, boxes, words = shown
    seen = F.normalize(pair.pictures(data.faces(pictures, boxes, pair.side)), dim=1)
    cosines = seen @ F.normalize(pair.words()[1], dim=1).T
    return {"emotion": F.cross_entropy(cosines / TEMPERATURE, words)}
