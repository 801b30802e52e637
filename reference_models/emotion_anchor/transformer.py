"""The autoregressive transformer over a frame's visual tokens."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reference_models.emotion_anchor.anchor import EmotionAnchor
from reference_models.emotion_anchor.presets import EMOTIONS, SPAN, Preset


class Conditions(NamedTuple):
    """What N frames are made from.

    source   (N, n, d) quantised embeddings of the source frames, in raster order
    content  (N, SPAN, content) codes of the sound around each frame
    emotion  (N, SPAN, emotion) codes of the emotional sound
    """

    source: Tensor
    content: Tensor
    emotion: Tensor


class Cache:
    """Keys and values of the positions that were seen, layer by layer."""

    def __init__(self) -> None:
        self.held: dict[int, tuple[Tensor, Tensor]] = {}

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if layer in self.held:
            before = self.held[layer]
            k, v = torch.cat([before[0], k], 2), torch.cat([before[1], v], 2)
        self.held[layer] = k, v
        return k, v


class Block(nn.Module):
    """Attention and MLP, each after a layer norm and added (GPT-2)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, mask: Tensor | None, cache: Cache | None, layer: int) -> Tensor:
        """x (N, T, width); mask (T, T), True where a row may look; without one it may look at all that is cached."""
        qkv = self.qkv(self.before_attention(x)).unflatten(2, (3, self.heads, -1))  # (N, T, 3, heads, width / heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        out: Tensor = x + self.mlp(self.before_mlp(x))
        return out


class Autoregressor(nn.Module):
    """p(code i | codes before i, anchor, content, emotion) over the n tokens of a frame.

    The sequence is [anchor n | content SPAN | emotion SPAN | codes]; the first three see each other, a code sees them
    and the codes before it. Ours: a code's input holds the anchor's token of the place that is predicted next and the
    frame's own sound, and the prediction is a vector of the codebook's space, which starts at the source's own token
    there; an entry's logit falls with its squared distance from it. What stays as in the source has not to be learned,
    and entries that are alike need not be learned one by one.
    """

    entries: Tensor

    def __init__(self, preset: Preset, entries: Tensor) -> None:
        """entries: the trained codebook (K, d), which is kept but not trained."""
        super().__init__()
        width, d = preset.width, preset.code_width
        self.register_buffer("entries", entries.detach().clone())
        self.words = nn.Embedding(len(EMOTIONS), preset.emotion)  # an emotion's word in place of emotional sound
        self.anchor = EmotionAnchor(d, preset.emotion, preset.side, len(EMOTIONS))
        self.of_anchor, self.of_code = nn.Linear(d, width), nn.Linear(d, width)
        self.of_content, self.of_emotion = nn.Linear(preset.content, width), nn.Linear(preset.emotion, width)
        self.positions = nn.Parameter(0.02 * torch.randn(2 * preset.tokens + 2 * SPAN, width))
        self.blocks = nn.ModuleList(Block(width, preset.heads) for _ in range(preset.layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, d)
        self.bias = nn.Parameter(torch.zeros(preset.codes))
        self.sharpness = nn.Parameter(torch.zeros(()))
        for name, parameter in self.blocks.named_parameters():
            if parameter.ndim == 2:
                scale = 0.02 / math.sqrt(2 * preset.layers) if name.endswith(("out.weight", "mlp.2.weight")) else 0.02
                nn.init.normal_(parameter, std=scale)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def prefix_length(self) -> int:
        return (len(self.positions) + 2 * SPAN) // 2

    def mask(self, length: int) -> Tensor:
        """(length, length): True where position i may look at j."""
        i = torch.arange(length, device=self.positions.device)
        return (i[None] < self.prefix_length) | (i[None] <= i[:, None])

    def spoken(self, emotions: Tensor) -> Tensor:
        """Emotion codes (N, SPAN, emotion) of words (N,); any for -1."""
        out: Tensor = self.words(emotions.clamp_min(0))[:, None].expand(-1, SPAN, -1)
        return out

    def anchored(self, given: Conditions) -> Tensor:
        """The emotion anchor (N, n, d)."""
        out: Tensor = self.anchor(given.source, given.emotion)
        return out

    def steer(self, given: Conditions, anchor: Tensor) -> Tensor:
        """(N, n, width): what is known of each place before any code, the anchor's token there and the sound now."""
        out: Tensor = self.of_anchor(anchor) + self.of_content(given.content[:, SPAN // 2 : SPAN // 2 + 1])
        return out

    def prefix(self, given: Conditions, anchor: Tensor, steer: Tensor) -> Tensor:
        """(N, n + 2 SPAN, width). From the last position the first code is predicted."""
        parts = [self.of_anchor(anchor), self.of_content(given.content), self.of_emotion(given.emotion)]
        x = torch.cat(parts, 1) + self.positions[: self.prefix_length]
        return torch.cat([x[:, :-1], x[:, -1:] + steer[:, :1]], 1)

    def inputs(self, codes: Tensor, steer: Tensor, first: int) -> Tensor:
        """Codes (N, m) at the places first, first + 1, ... as inputs (N, m, width); the last place is never one."""
        places = slice(first + 1, first + 1 + codes.shape[1])
        at = self.prefix_length + first
        positions = self.positions[at : at + codes.shape[1]]
        out: Tensor = self.of_code(self.entries[codes]) + positions + steer[:, places]
        return out

    def logits(self, x: Tensor, source: Tensor) -> Tensor:
        """Outputs (N, m, width) and the source's embeddings there (N, m, d) to (N, m, K)."""
        near = source + self.head(self.norm(x))
        # The mean squared distance of the entries from their mean is the scale on which distances are told.
        scale = self.sharpness.exp() * 16 / self.entries.var(0).sum().clamp_min(1e-8)
        out: Tensor = scale * (near @ self.entries.T - (self.entries**2).sum(1) / 2) + self.bias
        return out

    def forward(self, given: Conditions, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, n, K) of each of the codes (N, n) from those before it, and the anchor's emotion (N, emotions)."""
        anchor = self.anchored(given)
        steer = self.steer(given, anchor)
        x = torch.cat([self.prefix(given, anchor, steer), self.inputs(codes[:, :-1], steer, 0)], 1)
        mask = self.mask(x.shape[1])
        for block in self.blocks:
            x = block(x, mask, None, 0)
        return self.logits(x[:, self.prefix_length - 1 :], given.source), self.anchor.named(anchor)

    @torch.no_grad()
    def sample(
        self,
        given: Conditions,
        top_k: int = 1,
        noise: Tensor | None = None,
        cached: bool = True,
        guidance: float = 1.0,
    ) -> Tensor:
        """Draw codes (N, n), all frames at once.

        noise   (n, K) uniform in (0, 1), the same for all frames so that what is left to chance does not flicker; None:
                the likeliest code. Codes beyond the `top_k` likeliest are not drawn.
        cached  keep keys and values; False computes everything anew for each code, to the same result
        guidance  the logits are so many times as far from those of content 0, no sound in particular (Ho and Salimans
                2022, "Classifier-free diffusion guidance"); 1: their own
        """
        frames = len(given.content)
        if guidance != 1:
            silent = given._replace(content=torch.zeros_like(given.content))
            given = Conditions(*(torch.cat(both) for both in zip(given, silent, strict=True)))
        anchor = self.anchored(given)
        steer = self.steer(given, anchor)
        prefix = self.prefix(given, anchor, steer)
        count, n = len(prefix), anchor.shape[1]
        codes = torch.empty(count, 0, dtype=torch.int64, device=prefix.device)
        cache = Cache() if cached else None
        x = prefix
        for place in range(n):
            if place and cached:
                x = self.inputs(codes[:, -1:], steer, place - 1)
            elif place:
                x = torch.cat([prefix, self.inputs(codes, steer, 0)], 1)
            mask = self.mask(x.shape[1]) if not cached else None  # the prefix looks at all of itself
            for layer, block in enumerate(self.blocks):
                x = block(x, mask, cache, layer)
            logits = self.logits(x[:, -1:], given.source[:, place : place + 1])[:, 0]
            if guidance != 1:
                heard, unheard = logits.chunk(2)
                logits = unheard + guidance * (heard - unheard)
            drawn = _draw(logits, top_k, None if noise is None else noise[place])
            codes = torch.cat([codes, drawn.repeat(count // frames)[:, None]], 1)
        return codes[:frames]


def _draw(logits: Tensor, top_k: int, noise: Tensor | None) -> Tensor:
    """(N, K) to (N,), by the Gumbel trick."""
    if noise is None or top_k == 1:
        return logits.argmax(1)
    least = logits.topk(min(top_k, logits.shape[1]), 1).values[:, -1:]
    gumbel = -torch.log(-torch.log(noise))
    return (logits + gumbel).masked_fill(logits < least, -math.inf).argmax(1)
