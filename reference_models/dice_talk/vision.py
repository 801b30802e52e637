"""Pictures to latents and reference embeddings and back: SVD's temporal autoencoder and CLIP's image encoder, frozen.

The tiny preset has no pretrained ones; its own are trained here, under the name dice-talk-autoencoder: the autoencoder
on L1 and a little KL, the image encoder to find the frame of the same clip (InfoNCE), one after the other in one loop.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from reference_models import training
from reference_models.base import GenerationError
from reference_models.dice_talk.model import autoencoder, embed, image_encoder, still
from reference_models.dice_talk.presets import Preset

NAME = "dice-talk-autoencoder"
NEIGHBOURS = 3  # consecutive frames that the temporal decoder sees in training
PAIRS = 16  # clips among which the image encoder finds its own
KL = 1e-6
TEMPERATURE = 0.1
VAE, ENCODER = "svd-xt-vae", "svd-xt-image-encoder"  # of the registry, for the full preset


class Vision:
    """The two networks on a device. Pictures are uint8 RGB (N, H, W, 3), H and W multiples of the preset's factor."""

    def __init__(self, preset: Preset, vae: Any, encoder: Any, id: str, device: str = "cpu") -> None:
        self.id, self.scaling = id, float(vae.config.scaling_factor)
        self._vae = vae.eval().requires_grad_(False).to(device)
        self._encoder = encoder.eval().requires_grad_(False).to(device)
        self._device = device

    @torch.inference_mode()
    def latents(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, 4, h, w): the mode, unscaled."""
        found: Tensor = self._vae.encode(tensor(pictures).to(self._device)).latent_dist.mode()
        return found.float().cpu().numpy()

    @torch.inference_mode()
    def embedding(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, cross)"""
        return embed(self._encoder, tensor(pictures).to(self._device)).float().cpu().numpy()

    @torch.inference_mode()
    def decoded(self, latents: Tensor) -> NDArray[np.uint8]:
        """Consecutive frames, (F, 4, h, w) scaled -> (F, H, W, 3) uint8 RGB."""
        made = self._vae.decode(latents.to(self._device) / self.scaling, num_frames=len(latents)).sample
        whole = ((made.float().clamp(-1, 1) + 1) * 127.5).round().byte()
        pictures: NDArray[np.uint8] = whole.permute(0, 2, 3, 1).cpu().numpy()
        return pictures


class Autoencoder(nn.Module):
    """Both networks of a preset that has no pretrained ones, as they are trained."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.vae = autoencoder(preset)
        self.encoder = image_encoder(preset)
        still(self.vae.decoder)
        nn.init.dirac_(self.vae.decoder.time_conv_out.weight)

    def forward(self, frames: Tensor, pairs: Tensor) -> dict[str, Tensor]:
        """The losses of a batch, see `batches`."""
        count = frames.shape[1]
        flat = frames.flatten(0, 1)
        code = self.vae.encode(flat).latent_dist
        noise = torch.randn(code.mean.shape, device=flat.device)
        again = self.vae.decode(code.mean + code.std * noise, num_frames=count).sample
        first, other = (F.normalize(embed(self.encoder, pairs[:, i]), dim=1) for i in (0, 1))
        same = first @ other.T / TEMPERATURE
        own = torch.arange(len(pairs), device=pairs.device)
        return {
            "reconstruction": (again - flat).abs().mean(),
            "kl": KL * code.kl().mean(),
            "match": 0.1 * (F.cross_entropy(same, own) + F.cross_entropy(same.T, own)) / 2,
        }


def tensor(pictures: NDArray[np.uint8]) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float32 in [-1, 1]"""
    return torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def batches(clips: Sequence[NDArray[np.uint8]], size: int, seed: int) -> Callable[[int], tuple[Tensor, Tensor]]:
    """batch(number): (size, NEIGHBOURS, 3, H, W) consecutive frames of clips, and (PAIRS, 2, 3, H, W), two frames of
    each of other clips. Every clip needs NEIGHBOURS frames."""

    def batch(number: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([seed, 3, number])
        frames, pairs = [], []
        for k in rng.choice(len(clips), size):
            start = int(rng.integers(len(clips[k]) - NEIGHBOURS + 1))
            frames.append(tensor(clips[k][start : start + NEIGHBOURS]))
        for k in rng.choice(len(clips), min(PAIRS, len(clips)), replace=False):
            pairs.append(tensor(clips[k][rng.integers(len(clips[k]), size=2)]))
        return torch.stack(frames), torch.stack(pairs)

    return batch


def scale(vae: Any, clips: Sequence[NDArray[np.uint8]]) -> float:
    """One over the deviation of the latents of a frame of each clip."""
    with torch.inference_mode():
        found = torch.cat([vae.encode(tensor(clip[:1])).latent_dist.mode() for clip in clips])
    return float(1 / found.std())


def load(preset: Preset, name: str, file: Path, device: str) -> Vision:
    """The networks of a preset that were trained here. Raises GenerationError."""
    tensors, config = training.load(file, NAME, name)
    made = Autoencoder(preset)
    try:
        made.load_state_dict(tensors)
    except RuntimeError as error:
        raise GenerationError(f"{file.name}: of another configuration of preset {name}; train it anew") from error
    made.vae.register_to_config(scaling_factor=config["scaling"])
    return Vision(preset, made.vae, made.encoder, digest(file), device)


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
    return Vision(preset, *networks, f"{digest(vae)} {digest(encoder)}", device)


def digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:16]
