"""Stages that only a preset with `own_encoders` has: a small VAE, and encoders of speech, faces and words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from reference_models.base import Footage
from reference_models.copies import SPREAD, altered, mouth, paced
from reference_models.eat_face import data, model
from reference_models.eat_face.encoders import SmallPair, SmallSpeech, mel
from reference_models.eat_face.presets import EMOTIONS, Preset

KL = 1e-5  # of the VAE's divergence, as small as Stable Diffusion's
EXAMPLES = 20  # batches whose components the VAE starts from
FACE = 3.0  # times more an error inside the mask counts, where everything is that the model must paint
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


def vae_loss(codec: model.Codec, shown: tuple[Tensor, Tensor, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Absolute error, more inside the mask, and the divergence; every fourth picture has its face hidden, as x_m."""
    pictures, boxes, _ = shown
    inside = (model.masked(torch.ones_like(pictures), boxes) == 0).float()
    pictures = torch.cat([pictures[::4].masked_fill(inside[::4] > 0, 0.0), pictures])
    weight = 1 + (FACE - 1) * torch.cat([torch.zeros_like(inside[::4]), inside])
    posterior = codec.posterior(pictures)
    noise = torch.randn(posterior.mean.shape, generator=generator, device=pictures.device)
    decoded = codec.decode((posterior.mean + posterior.std * noise) * codec.scale)
    return {
        "error": ((decoded - pictures).abs() * weight).sum() / weight.sum(),
        "divergence": KL * posterior.kl().mean(),
    }


def speech_loss(speech: SmallSpeech, heard: tuple[Tensor, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    bands, mouths = heard
    return {"mouth": F.mse_loss(speech.mouth(bands), mouths)}


def pair_loss(pair: SmallPair, shown: tuple[Tensor, Tensor, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Each picture against the words of all emotions, as CLIP classifies."""
    pictures, boxes, words = shown
    seen = F.normalize(pair.pictures(data.faces(pictures, boxes, pair.side)), dim=1)
    cosines = seen @ F.normalize(pair.words()[1], dim=1).T
    return {"emotion": F.cross_entropy(cosines / TEMPERATURE, words)}


@torch.no_grad()
def set_scale(codec: model.Codec, pictures: Tensor) -> None:
    """Makes the spread of the latents of pictures (n, 3, H, W) 1."""
    codec.scale.fill_(1.0)
    codec.scale.fill_(1.0 / float(codec.encode(pictures).std()))
