"""Pictures to latents and reference embeddings and back: SVD's temporal autoencoder and CLIP's image encoder, frozen.

The tiny preset has no pretrained ones; its own are made here, under the name dice-talk-autoencoder: the principal
components of squares of pixels, and an image encoder that learns to find the frame of the same clip (InfoNCE).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from reference_models import training
from reference_models.base import GenerationError
from reference_models.dice_talk.model import autoencoder, embed, image_encoder
from reference_models.dice_talk.presets import Preset
from reference_models.squares import Squares, tensor

NAME = "dice-talk-autoencoder"
PAIRS = 16  # clips among which the image encoder finds its own
TEMPERATURE = 0.1
VAE, ENCODER = "svd-xt-vae", "svd-xt-image-encoder"  # of the registry, for the full preset


class Codec(Protocol):
    """Pictures (N, 3, H, W) in [-1, 1] to latents (N, C, h, w) and back; of consecutive frames, to be scaled by
    `scaling` for the diffusion."""

    @property
    def scaling(self) -> float: ...
    def encode(self, pictures: Tensor) -> Tensor: ...
    def decode(self, latents: Tensor) -> Tensor: ...


class Temporal(nn.Module):
    """SVD's autoencoder; of what it encodes, the mode."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae, self.scaling = vae, float(vae.config.scaling_factor)

    def encode(self, pictures: Tensor) -> Tensor:
        made: Tensor = self.vae.encode(pictures).latent_dist.mode()
        return made

    def decode(self, latents: Tensor) -> Tensor:
        made: Tensor = self.vae.decode(latents, num_frames=len(latents)).sample
        return made


class Vision:
    """The two networks on a device. Pictures are uint8 RGB (N, H, W, 3), H and W multiples of the preset's factor."""

    def __init__(self, preset: Preset, codec: Any, encoder: Any, id: str, device: str = "cpu") -> None:
        self.id, self.scaling, self._changes = id, codec.scaling, preset.from_reference
        self._codec = codec.eval().requires_grad_(False).to(device)
        self._encoder = encoder.eval().requires_grad_(False).to(device)
        self._device = device

    @torch.inference_mode()
    def latents(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, 4, h, w): the mode, unscaled."""
        found: Tensor = self._codec.encode(tensor(pictures).to(self._device))
        return found.float().cpu().numpy()

    @torch.inference_mode()
    def embedding(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, cross)"""
        return embed(self._encoder, tensor(pictures).to(self._device)).float().cpu().numpy()

    @torch.inference_mode()
    def decoded(self, latents: Tensor, reference: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Consecutive frames, (F, 4, h, w) as they are denoised -> (F, H, W, 3) uint8 RGB.

        reference   its latents (4, h, w), unscaled
        """
        found = latents.to(self._device) / self.scaling
        if self._changes:
            found = found + torch.from_numpy(reference).to(self._device)
        return _pictures(self._codec.decode(found))

    @torch.inference_mode()
    def redrawn(self, reference: NDArray[np.float32]) -> NDArray[np.uint8]:
        """What encoding leaves of a picture, (H, W, 3) uint8 RGB, of its latents (4, h, w)."""
        found = torch.from_numpy(reference[None]).to(self._device)
        picture: NDArray[np.uint8] = _pictures(self._codec.decode(found))[0]
        return picture


def _pictures(made: Tensor) -> NDArray[np.uint8]:
    """(N, 3, H, W) in [-1, 1] -> (N, H, W, 3) uint8"""
    whole = ((made.float().clamp(-1, 1) + 1) * 127.5).round().byte()
    pictures: NDArray[np.uint8] = whole.permute(0, 2, 3, 1).cpu().numpy()
    return pictures


class Autoencoder(nn.Module):
    """Both networks of a preset that has no pretrained ones. Only the image encoder is trained."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.squares = Squares(preset.square, preset.latents)
        self.encoder = image_encoder(preset)

    def forward(self, pairs: Tensor) -> dict[str, Tensor]:
        """The loss of a batch, see `batches`."""
        first, other = (F.normalize(embed(self.encoder, pairs[:, i]), dim=1) for i in (0, 1))
        same = first @ other.T / TEMPERATURE
        own = torch.arange(len(pairs), device=pairs.device)
        return {"match": (F.cross_entropy(same, own) + F.cross_entropy(same.T, own)) / 2}


def batches(clips: Sequence[NDArray[np.uint8]], seed: int) -> Callable[[int], tuple[Tensor]]:
    """batch(number): (PAIRS, 2, 3, H, W), two frames of each of some clips."""

    def batch(number: int) -> tuple[Tensor]:
        rng = np.random.default_rng([seed, 3, number])
        chosen = rng.choice(len(clips), min(PAIRS, len(clips)), replace=False)
        return (torch.stack([tensor(clips[k][rng.integers(len(clips[k]), size=2)]) for k in chosen]),)

    return batch


def load(preset: Preset, name: str, file: Path, device: str) -> Vision:
    """The networks of a preset that were trained here. Raises GenerationError."""
    tensors, _ = training.load(file, NAME, name)
    made = Autoencoder(preset)
    try:
        made.load_state_dict(tensors)
    except RuntimeError as error:
        raise GenerationError(f"{file.name}: of another configuration of preset {name}; train it anew") from error
    return Vision(preset, made.squares, made.encoder, digest(file), device)


def pretrained(preset: Preset, vae: Path, encoder: Path, device: str) -> Vision:
    """SVD's networks from diffusers' and transformers' own files. Raises GenerationError for others."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    networks = autoencoder(preset), image_encoder(preset)
    for network, file in zip(networks, (vae, encoder), strict=True):
        try:
            stored = {key: value.float() for key, value in load_file(file).items() if not key.endswith("position_ids")}
            network.load_state_dict(stored)
        except (OSError, SafetensorError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:120]
            raise GenerationError(
                f"{file.name}: not the file of stable-video-diffusion-img2vid-xt ({reason})"
            ) from error
    return Vision(preset, Temporal(networks[0]), networks[1], f"{digest(vae)} {digest(encoder)}", device)


def digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:16]
