"""The objective of DICE-Talk's diffusion model: L = L_den + lambda · L_cls + L_vq (eq. 15)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from reference_models.dice_talk.data import UNLABELLED, Batch
from reference_models.dice_talk.presets import Preset


def scales(sigma: Tensor, from_reference: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """(c_in, c_skip, c_out) of EDM with v-prediction, as Stable Video Diffusion's, of the same shape as `sigma`.

    The denoised latents are D(z, sigma) = c_skip · z + c_out · F(c_in · z, ln(sigma) / 4). Where they are the change
    from the reference's, D = -F: an F that begins as nothing gives the reference, without noise.
    """
    total = sigma.square() + 1
    if from_reference:
        return total.rsqrt(), torch.zeros_like(sigma), -torch.ones_like(sigma)
    return total.rsqrt(), 1 / total, -sigma * total.rsqrt()


def velocity(latents: Tensor, noise: Tensor, sigma: Tensor, from_reference: bool = False) -> Tensor:
    """What F is to predict so that D(latents + sigma · noise) = latents. `sigma` broadcasts."""
    if from_reference:
        return -latents
    return (noise - sigma * latents) * (sigma.square() + 1).rsqrt()


def denoising(made: Tensor, target: Tensor, face: Tensor, face_weight: float, motion_weight: float = 1.0) -> Tensor:
    """Eq. 1 in its preconditioned form: |F - v|^2, which is (1 + sigma^2) |epsilon_theta - epsilon|^2.

    made, target   (B, F, 4, h, w);  face: (B, h, w) in [0, 1], where the loss weighs face_weight times as much
    motion_weight   of what an error differs by from its mean over the frames: what moves, as a mouth does, and not the
                    pose and the light of a clip
    """
    weight = 1 + (face_weight - 1) * face[:, None, None]
    error = made - target
    lasting = error.mean(1, keepdim=True)
    errors = (lasting.square() + motion_weight * (error - lasting).square()) * weight / weight.mean()
    return errors.mean()


def discrimination(logits: Tensor, label: Tensor) -> Tensor:
    """Eq. 16: mean cross-entropy of the frames (B, F, classes) of labelled clips; 0 where none is labelled."""
    known = label != UNLABELLED
    each = F.cross_entropy(
        logits.flatten(0, 1), label.clamp(min=0).repeat_interleave(logits.shape[1]), reduction="none"
    )
    return (each.view(logits.shape[:2]).mean(1) * known).sum() / known.sum().clamp(min=1)


def objective(model: torch.nn.Module, batch: Batch, generator: torch.Generator, preset: Preset) -> Mapping[str, Tensor]:
    """The three terms of eq. 15 for a batch, with noise levels, noise and priors (eq. 6) drawn from `generator`."""

    def normal(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, device=like.device)

    clips = len(batch.latents)
    level = torch.randn(clips, generator=generator, device=batch.latents.device)
    sigma = (preset.sigma[0] + preset.sigma[1] * level).exp()
    wide = sigma.view(-1, 1, 1, 1, 1)
    noise = normal(batch.latents)
    prior = batch.mean if preset.mean_prior else batch.mean + batch.deviation * normal(batch.mean)
    whole = torch.rand(clips, generator=generator, device=prior.device) < preset.whole_bank
    made, logits, quantisation = model(
        scales(wide)[0] * (batch.latents + wide * noise),
        sigma,
        batch.image,
        batch.seen,
        batch.heard,
        prior,
        batch.mask,
        batch.dropped,
        whole,
    )
    face = F.avg_pool2d(batch.mask[:, :1], preset.factor)[:, 0]
    target = velocity(batch.latents, noise, wide, preset.from_reference)
    return {
        "denoising": denoising(made.float(), target, face, preset.face_weight, preset.motion_weight),
        "discrimination": preset.discrimination * discrimination(logits.float(), batch.label),
        "quantisation": quantisation.mean(),
    }
