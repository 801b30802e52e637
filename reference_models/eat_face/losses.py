"""Equations 4, 5 and 8 to 11 of the paper."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from reference_models.eat_face.model import Controller, Reconstructor


def joined(z_t: Tensor, z_m: Tensor, z_r: Tensor) -> Tensor:
    """x_in = z_t ⊕ z_m ⊕ z_r (N, 3 C, h, w), eq. 4."""
    return torch.cat([z_t, z_m, z_r], 1)


def denoising(
    model: Reconstructor,
    schedule: Any,
    latents: tuple[Tensor, Tensor, Tensor],
    context: Tensor,
    generator: torch.Generator,
    control: tuple[Controller, Tensor] | None = None,
) -> Tensor:
    """The mean squared error of the prediction, eq. 5, and with a controller and its condition c_e, eq. 11.

    latents    z_0, z_m, z_r, each (N, C, h, w)
    schedule   its prediction_type says what is predicted: the noise, as in the paper, or z_0
    """
    z_0, z_m, z_r = latents
    noise = torch.randn(z_0.shape, generator=generator, device=z_0.device)
    t = torch.randint(0, len(schedule.betas), (len(z_0),), generator=generator, device=z_0.device)
    x_in = joined(schedule.add_noise(z_0, noise, t), z_m, z_r)
    residuals = control[0](x_in, t, context, control[1]) if control else None
    kind = schedule.config.prediction_type
    wanted = {"epsilon": noise, "sample": z_0}[kind]
    return F.mse_loss(model(x_in, t, context, residuals).float(), wanted)


def contrastive(h_e: Tensor, h_v: Tensor, temperature: float) -> Tensor:
    """L^{e<->v} of N pairs (N, hw) whose emotions all differ, eq. 10: the mean of eq. 8, each row's softmax over the
    pictures, and of eq. 9, each picture's over the emotions (as CLIP; the printed eq. 9 leaves the index open)."""
    cosines = F.normalize(h_e.float(), dim=1) @ F.normalize(h_v.float(), dim=1).T / temperature
    own = torch.arange(len(cosines), device=cosines.device)
    return (F.cross_entropy(cosines, own) + F.cross_entropy(cosines.T, own)) / 2
