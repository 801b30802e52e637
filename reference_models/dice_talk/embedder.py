"""DICE-Talk's disentangled emotion embedder (eq. 2-6): expression coefficients and speech of a video to a Gaussian.

The visual branch is StyleTalk's style encoder without its pooling; the paper gives neither sizes of the audio branch
nor of the cross-attention, which are ours: see docs/dice-talk.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Size:
    """Of the network. width is d_s; strength is λ of eq. 3."""

    width: int = 256
    heads: int = 8
    feedforward: int = 1024
    visual_layers: int = 3
    audio_layers: int = 2
    cross_layers: int = 2
    dropout: float = 0.1
    strength: float = 1.0


@dataclass(frozen=True, slots=True)
class Gaussian:
    """(B, width) mean and standard deviation of the emotion prior of each video."""

    mean: Tensor
    deviation: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """s = μ + σ ε (eq. 6)."""
        noise = torch.randn(self.mean.shape, generator=generator, device=self.mean.device, dtype=self.mean.dtype)
        return self.mean + self.deviation * noise


class Branch(nn.Module):
    """A modality's own features (B, N, features) -> s_α or s_β (B, N, width): linear, positions, post-norm layers."""

    def __init__(self, features: int, layers: int, size: Size) -> None:
        super().__init__()
        self.linear = nn.Linear(features, size.width)
        layer = nn.TransformerEncoderLayer(
            size.width, size.heads, size.feedforward, size.dropout, activation="relu", batch_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        for parameter in self.layers.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        h = self.linear(x)
        h = h + positions(h.shape[1], h.shape[2]).to(h)
        encoded: Tensor = self.layers(h, src_key_padding_mask=~mask)
        return encoded


class CrossAttention(nn.Module):
    """ŝ_α = s_α + λ CA(W_Q s_α, W_K s_β, W_V s_β) (eq. 2, 3)."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(size.width, size.width, bias=False) for _ in range(3))
        self.heads, self.strength = size.heads, size.strength

    def forward(self, audio: Tensor, visual: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (
            f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, N, width / heads)
            for f, x in ((self.query, audio), (self.key, visual), (self.value, visual))
        )
        attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
        return audio + self.strength * attended.transpose(1, 2).flatten(2)


class Embedder(nn.Module):
    """coefficients, speech: numbers a frame of either modality."""

    def __init__(self, coefficients: int, speech: int, size: Size) -> None:
        super().__init__()
        self.visual = Branch(coefficients, size.visual_layers, size)
        self.audio = Branch(speech, size.audio_layers, size)
        self.cross = nn.ModuleList(CrossAttention(size) for _ in range(size.cross_layers))
        self.score = nn.Linear(size.width, 1, bias=False)  # W_s

    def forward(self, coefficients: Tensor, speech: Tensor, mask: Tensor) -> Gaussian:
        """coefficients (B, N, D), speech (B, N, F), standardised, a modality that is left out all zero; mask (B, N)
        bool, true where there is a frame."""
        visual, fused = self.visual(coefficients, mask), self.audio(speech, mask)
        for layer in self.cross:
            fused = layer(fused, visual, mask)
        return pooled(self.score(fused)[..., 0], fused, mask)


def pooled(scores: Tensor, sequence: Tensor, mask: Tensor) -> Gaussian:
    """The weighted mean and standard deviation over time (eq. 4, 5): scores (B, N), sequence (B, N, width)."""
    weights = scores.masked_fill(~mask, -torch.inf).softmax(1)[..., None]
    mean = (weights * sequence).sum(1)
    variance = (weights * (sequence - mean[:, None]) ** 2).sum(1)
    return Gaussian(mean, variance.clamp_min(1e-12).sqrt())  # the root has no slope at 0


def positions(count: int, width: int) -> Tensor:
    """(count, width): sine in even columns, cosine in odd ones (Vaswani et al. 2017)."""
    angle = torch.arange(count)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10_000) / width))
    return torch.stack([angle.sin(), angle.cos()], 2).flatten(1)
