"""The emotion anchor: the source's visual tokens, which have heard the emotion."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reference_models.emotion_anchor.presets import ANCHOR_HEADS


class EmotionAnchor(nn.Module):
    """EA = x + FFN(x) with x = LN(q + MHA(Q = q, K = V = emotion)); q are the source's quantised embeddings with a
    learned position for each row and column. The abstract names the anchor; this form is ours."""

    def __init__(self, width: int, emotion: int, side: int, emotions: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(0.02 * torch.randn(side, 1, width))
        self.columns = nn.Parameter(0.02 * torch.randn(1, side, width))
        self.heard = nn.Linear(emotion, width)
        self.attention = nn.MultiheadAttention(width, ANCHOR_HEADS, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.ffn = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.classifier = nn.Linear(width, emotions)

    def forward(self, source: Tensor, emotion: Tensor) -> Tensor:
        """source (N, n, d) in raster order, emotion (N, span, e) to (N, n, d)."""
        q = source + (self.rows + self.columns).flatten(0, 1)
        heard = self.heard(emotion)
        x = self.norm(q + self.attention(q, heard, heard, need_weights=False)[0])
        out: Tensor = x + self.ffn(x)
        return out

    def named(self, anchor: Tensor) -> Tensor:
        """Which emotion the pooled anchor shows: logits (N, emotions)."""
        out: Tensor = self.classifier(anchor.mean(1))
        return out
