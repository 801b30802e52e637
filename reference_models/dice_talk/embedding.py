"""A trained embedder at work: the emotion prior of a video (Ours-V)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from reference_models import training
from reference_models.base import Footage, GenerationError
from reference_models.dice_talk import coefficients, speech
from reference_models.dice_talk.coefficients import Coefficients
from reference_models.dice_talk.embedder import Embedder, Gaussian, Size
from reference_models.dice_talk.embedder_data import Views, cut, stacked

MODEL = "dice-talk-embedder"
BATCH = 16  # windows at once

Array = NDArray[np.float32]
Modality = Literal["audio", "video", "both"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)


@dataclass(frozen=True, slots=True)
class Prior:
    """(width,) float32 mean and standard deviation."""

    mean: Array
    deviation: Array


@dataclass(frozen=True)
class EmotionEmbedder:
    """A trained embedder with its front ends. digest: SHA-256 of its file."""

    network: Embedder
    views: Views
    window: int
    digest: str
    device: str = "cpu"

    @torch.no_grad()
    def __call__(self, clip: Footage, modality: Modality = "both") -> Prior:
        """The Gaussian of a whole clip. One that is longer than the windows of the training is cut into equal ones,
        whose Gaussians are mixed by their lengths.

        Raises GenerationError for a clip without a face, without its coefficients or without sound.
        """
        seen, heard = self.views(clip)
        seen, heard = seen * (modality != "audio"), heard * (modality != "video")
        edges = np.linspace(0, len(seen), -(-len(seen) // self.window) + 1).round().astype(int)
        longest = int(np.diff(edges).max())
        found: list[Gaussian] = []
        for at in range(0, len(edges) - 1, BATCH):
            parts = list(zip(edges[at : at + BATCH], edges[at + 1 : at + BATCH + 1], strict=False))
            batch = stacked([cut((seen[first:end], heard[first:end]), longest) for first, end in parts])
            given = [batch[name].to(self.device) for name in ("coefficients", "speech", "mask")]
            found.append(self.network.eval()(*given))
        means = torch.cat([part.mean for part in found]).double().cpu().numpy()
        variances = torch.cat([part.deviation for part in found]).double().cpu().numpy() ** 2
        weights = (np.diff(edges) / len(seen))[:, None]
        mean = (weights * means).sum(0)
        variance = (weights * (variances + (means - mean) ** 2)).sum(0)
        return Prior(mean.astype(np.float32), np.sqrt(variance).astype(np.float32))


def prior(embedder: EmotionEmbedder, clip: Footage, modality: Modality = "both") -> Array:
    """(1, 256) float32: μ of one reference video, the condition of Ours-V. Raises as EmotionEmbedder."""
    return embedder(clip, modality).mean[None]


def network_of(config: Mapping[str, Any]) -> Embedder:
    """The network that a checkpoint's configuration describes."""
    return Embedder(coefficients.SIZES[config["coefficients"]], config["speech_features"], Size(**config["size"]))


def load(
    path: Path,
    preset: str | None = None,
    *,
    weights: Mapping[str, Path] | None = None,
    cache: Path | None = None,
    device: str = "cpu",
) -> EmotionEmbedder:
    """The embedder that `bench train dice-talk-embedder` left at `path`; of that preset, where one is given.

    weights   files of whisper-tiny and face-landmarker by name, where this machine has them
    cache     folder for what is computed once a clip

    Raises GenerationError for a damaged file, one of another model or preset, and one whose front end is not here.
    """
    files = weights or {}
    try:
        tensors, config = training.load(path, MODEL, preset)
        network = network_of(config)
        own = "network."
        network.load_state_dict({k.removeprefix(own): t for k, t in tensors.items() if k.startswith(own)})
        arrays = {name: tensor.numpy() for name, tensor in tensors.items() if not name.startswith(own)}
        kept = {name.partition(".")[2]: array for name, array in arrays.items() if name.startswith("coefficients.")}
        seen = Coefficients(config["coefficients"], **kept, landmarker=files.get(coefficients.LANDMARKER))
        heard_mean, heard_deviation, window = arrays["speech.mean"], arrays["speech.deviation"], int(config["window"])
    except (KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise GenerationError(f"{path.name}: no checkpoint of {MODEL}, or damaged ({reason}); train it anew") from error
    ear = speech.speech(config["speech"], files.get(speech.WHISPER), device)
    if seen.type == coefficients.BLENDSHAPES and seen.landmarker is None:
        name = coefficients.LANDMARKER
        raise GenerationError(
            f"{path.name}: trained on {seen.type}, which needs {name}; `bench weights fetch {name}`, and "
            f"under [weights] of a method of your own landmarker = {name!r}"
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    views = Views(seen, ear, heard_mean, heard_deviation, cache)
    return EmotionEmbedder(network.to(device).eval(), views, window, digest, device)
