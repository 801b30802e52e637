"""How DICE-Talk denoises: Euler steps over windows that shift from step to step, two-level guidance in one pass.

The latents of a video lie in a file while they are denoised, and every window's conditions are made when it comes, so
that memory does not grow with the length.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reference_models.dice_talk.losses import scales
from reference_models.dice_talk.model import DiceTalk, Given
from reference_models.dice_talk.presets import Preset

Array = NDArray[np.float32]
Denoise = Callable[[DiceTalk, Tensor, Tensor, Given, tuple[float, float]], Tensor]


@dataclass(frozen=True, slots=True)
class Track:
    """What is to be made: `frames` frames at 12.5 fps.

    image   (4, h, w) unscaled latents of the reference;  seen: (cross,);  mask: (H, W) bool
    heard   heard(numbers) -> (n, 10, layers, width) speech features of these frames
    felt    felt(numbers) -> (n, prior) emotion priors of these frames
    """

    frames: int
    image: Array
    seen: Array
    mask: NDArray[np.bool_]
    heard: Callable[[NDArray[np.int64]], Array]
    felt: Callable[[NDArray[np.int64]], Array]


def sigmas(preset: Preset, steps: int) -> list[float]:
    """Noise levels of the steps and 0 (Karras et al. 2022, as Stable Video Diffusion's scheduler has them)."""
    from diffusers import EulerDiscreteScheduler

    low, high = preset.sigmas
    kind: Any = EulerDiscreteScheduler  # diffusers has no types
    scheduler = kind(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        use_karras_sigmas=True,
        timestep_spacing="leading",
        timestep_type="continuous",
        sigma_min=low,
        sigma_max=high,
    )
    scheduler.set_timesteps(steps)
    found: list[float] = scheduler.sigmas.tolist()
    return found


def windows(total: int, length: int, shift: int) -> Iterator[NDArray[np.int64]]:
    """Frames of each window: one after the other without overlap, `shift` frames earlier, around the end to the
    beginning; the last meets the first again where `length` does not divide `total`."""
    for start in range(0, total, length):
        yield (start - shift + np.arange(min(length, total))) % total


def guided(model: DiceTalk, scaled: Tensor, sigma: Tensor, given: Given, guidance: tuple[float, float]) -> Tensor:
    """Two-level guidance in one pass over a batch of three.

    given   of batch 3: A without any condition, B with the reference, C with all
    returns A + g1 (B - A) + g2 (C - B), (1, F, 4, h, w)
    """
    made = model.denoise(scaled.expand(3, -1, -1, -1, -1), sigma.expand(3), given).float()
    nothing, image, everything = made.chunk(3)
    return nothing + guidance[0] * (image - nothing) + guidance[1] * (everything - image)


class Sampler:
    """A model with what it needs to denoise a Track."""

    def __init__(
        self,
        model: DiceTalk,
        preset: Preset,
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        denoise: Denoise = guided,
    ) -> None:
        self.model = model.eval().to(device, dtype)
        self.preset, self._device, self._dtype, self._denoise = preset, device, dtype, denoise
        self._felt: tuple[bytes, Tensor] | None = None

    @torch.inference_mode()
    def latents(
        self, track: Track, seed: int, *, steps: int | None = None, guidance: tuple[float, float] | None = None
    ) -> NDArray[np.float32]:
        """(frames, 4, h, w) float32, scaled, in a temporary file that goes with the array."""
        preset = self.preset
        levels = sigmas(preset, steps or preset.denoising_steps)
        total = track.frames + preset.window  # a window of silence joins the end to the beginning
        shape = (total, *track.image.shape)
        now, velocity = (_on_disk(shape) for _ in range(2))
        generator = torch.Generator().manual_seed(seed)
        for i in range(total):
            now[i] = torch.randn(shape[1:], generator=generator) * float(np.hypot(levels[0], 1))
        shift = 0
        for sigma, following in pairwise(levels):
            velocity[:] = 0
            count = np.zeros(total, np.int64)
            for frames in windows(total, preset.window, shift):
                velocity[frames] += self._window(track, now[frames], frames, sigma, guidance or preset.guidance)
                count[frames] += 1
            for i in range(total):
                now[i] = euler(now[i], velocity[i] / count[i], sigma, following, preset.from_reference)
            shift = (shift + preset.shift) % preset.window
        return now[: track.frames]

    def _window(
        self, track: Track, now: Array, frames: NDArray[np.int64], sigma: float, guidance: tuple[float, float]
    ) -> Array:
        """F of EDM for these frames, (n, 4, h, w)."""
        level = torch.tensor([sigma], device=self._device)
        scaled = scales(level)[0] * torch.from_numpy(now).to(self._device)[None]
        given = self._given(track, frames)
        made = self._denoise(self.model, scaled.to(self._dtype), level, given, guidance)
        return made[0].float().cpu().numpy()

    def _given(self, track: Track, frames: NDArray[np.int64]) -> Given:
        """Conditions of A, B and C of `guided`."""
        there = frames < track.frames
        inside = np.minimum(frames, track.frames - 1)
        heard = track.heard(inside) * there[:, None, None, None]
        audio = self.model.audio_linear(self._tensor(np.concatenate([heard, np.zeros_like(heard[:1])]))[None])[0]
        silence = audio[-1:].expand(len(frames), -1, -1)
        emotion, missing = self._emotion(track.felt(inside))
        image, seen, mask = (self._tensor(given)[None] for given in (track.image, track.seen, track.mask))
        return Given(
            image=torch.cat([image * 0, image, image]),
            seen=torch.cat([seen * 0, seen, seen]),
            audio=torch.stack([silence, silence, audio[:-1]]),
            emotion=torch.stack([missing, missing, emotion]),
            mask=mask[:, None].expand(3, 3, -1, -1),
        )

    def _emotion(self, priors: Array) -> tuple[Tensor, Tensor]:
        """Tokens of the frames' priors, and those of none, (n, T, cross) each; those of the last window are kept."""
        key = priors.tobytes()
        if self._felt is None or self._felt[0] != key:
            known, which = np.unique(priors, axis=0, return_inverse=True)
            tokens = self.model.emo_model(self._tensor(np.concatenate([known, np.zeros_like(known[:1])])))
            self._felt = key, tokens[[*which.reshape(-1).tolist(), len(known)]]
        tokens = self._felt[1]
        return tokens[:-1], tokens[-1:].expand(len(priors), -1, -1)

    def _tensor(self, given: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.asarray(given, np.float32)).to(self._device, self._dtype)


def euler(now: Array, velocity: Array, sigma: float, following: float, from_reference: bool = False) -> Array:
    """One step of Euler's method from noise level `sigma` to `following`, with F of EDM (see losses.scales)."""
    _, skip, out = (float(one) for one in scales(torch.tensor(sigma, dtype=torch.float64), from_reference))
    slope = (now - (skip * now + out * velocity)) / sigma
    return np.asarray(now + (following - sigma) * slope, np.float32)


def _on_disk(shape: tuple[int, ...]) -> NDArray[np.float32]:
    with tempfile.TemporaryFile() as file:  # the mapping outlives it
        return np.memmap(file, np.float32, "w+", shape=shape)
