"""What DICE-Talk adds to Stable Video Diffusion (Tan et al. 2025, 3.2; module layout and key names of the published
checkpoints, toto222/DICE-Talk @a8a92b1; code independent).

Audio and emotion tokens enter every cross-attention of diffusers' UNetSpatioTemporalConditionModel, spatial and
temporal, through processors that read a shared Context; the face mask enters behind `conv_in`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Bank = Literal["quantised", "learnable", "none"]
STREAMS = 2  # audio, emotion
BETA = 0.25  # commitment weight of eq. 17, as published
HEADS = 8  # of the attention over the bank, as published


class Projection(nn.Module):
    """A vector to `tokens` tokens: two hidden layers with ReLU, then LayerNorm of each token."""

    def __init__(self, inputs: int, hidden: int, tokens: int, width: int) -> None:
        super().__init__()
        self.proj1 = nn.Linear(inputs, hidden)
        self.proj2 = nn.Linear(hidden, hidden)
        self.proj3 = nn.Linear(hidden, tokens * width)
        self.norm = nn.LayerNorm(width)
        self._shape = (tokens, width)

    def forward(self, given: Tensor) -> Tensor:
        """(..., inputs) -> (..., tokens, width)"""
        hidden = self.proj2(self.proj1(given).relu()).relu()
        made: Tensor = self.norm(self.proj3(hidden).unflatten(-1, self._shape))
        return made


class AudioProj(Projection):
    """Ten speech features about a frame -> audio tokens. Unconditional: the projection of zeros."""

    def forward(self, heard: Tensor) -> Tensor:
        """(B, F, 10, layers, width) -> (B, F, tokens, width)"""
        return super().forward(heard.flatten(2))


class EmotionBank(nn.Module):
    """The K entries C of eq. 9, and the map of a prior into their space."""

    def __init__(self, prior: int, entries: int, width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(prior, width)
        self.codebook = nn.Embedding(entries, width)
        nn.init.uniform_(self.codebook.weight, -1 / entries, 1 / entries)

    def forward(self, prior: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(..., prior) -> the nearest entries (..., width), with the gradient passed straight through to the prior
        (eq. 9), the loss of each (...) (eq. 17, mean over the width), and their numbers (...)."""
        mapped = self.fc(prior)
        rows = mapped.flatten(0, -2)
        with torch.no_grad():
            nearest = torch.cdist(rows[None], self.codebook.weight[None])[0].argmin(1).view(mapped.shape[:-1])
        entry = self.codebook(nearest)
        loss = (mapped.detach() - entry).square().mean(-1) + BETA * (mapped - entry.detach()).square().mean(-1)
        return mapped + (entry - mapped).detach(), loss, nearest


class BankAttention(nn.Module):
    """Eq. 10-13: attention of the prior's tokens over those of entries; no output projection, no residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc_q = nn.Linear(width, width)
        self.fc_k = nn.Linear(width, width)
        self.fc_v = nn.Linear(width, width)

    def forward(self, asking: Tensor, told: Tensor) -> Tensor:
        """(N, T, width), (N, S, width) -> (N, T, width)"""
        return attention(self.fc_q(asking), self.fc_k(told), self.fc_v(told), HEADS)


class Classifier(nn.Module):
    """psi of eq. 16: mid-block features to logits of the 22 classes, by adaptive pooling and an MLP."""

    def __init__(self, inputs: int, hidden: tuple[int, int], classes: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, hidden[0])
        self.fc2 = nn.Linear(hidden[0], hidden[1])
        self.fc3 = nn.Linear(hidden[1], classes)
        self.drop = nn.Dropout(0.1)

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, classes)"""
        pooled = features.mean((2, 3))
        hidden = self.drop(self.fc1(pooled).relu())
        logits: Tensor = self.fc3(self.drop(self.fc2(hidden).relu()))
        return logits


class EmotionModel(nn.Module):
    """Emotion priors to emotion tokens, correlated through the bank, and the classifier of the objective.

    bank   "quantised": the paper's. "learnable": attention over entries that only the gradient moves ("learnable CA"
           in Table 4). "none": the prior's own tokens ("w/o emotion bank").
    """

    def __init__(
        self,
        prior: int,
        hidden: int,
        tokens: int,
        width: int,
        entries: int,
        features: int,
        classifier: tuple[int, int],
        classes: int,
        bank: Bank = "quantised",
    ) -> None:
        super().__init__()
        self.bank = bank
        self.emo_linear = Projection(prior, hidden, tokens, width)
        self.kv_tokens_linear = Projection(width, hidden, tokens, width)
        self.codebook = EmotionBank(prior, entries, width)
        self.attention = BankAttention(width)
        self.classifier = Classifier(features, classifier, classes)
        of_bank: tuple[nn.Module, ...] = (self.codebook, self.kv_tokens_linear, self.attention)
        unused = {"quantised": (), "learnable": (self.codebook.fc,), "none": of_bank}[bank]
        for module in unused:  # several processes would wait for its gradient
            module.requires_grad_(False)

    def retrieved(self, prior: Tensor, dropped: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Training, eq. 9-11: the tokens (N, T, width) that the quantised entry gives, and eq. 17 (N,).

        prior     (N, prior)
        dropped   (N,) bool: priors to take as missing; the loss of the bank sees them all the same
        """
        if self.bank != "quantised":
            missing = prior if dropped is None else prior.masked_fill(dropped[:, None], 0)
            return self(missing), prior.new_zeros(len(prior))
        entry, loss, _ = self.codebook(prior)
        if dropped is not None:
            prior, entry = prior.masked_fill(dropped[:, None], 0), entry.masked_fill(dropped[:, None], 0)
        return self.attention(self.emo_linear(prior), self.kv_tokens_linear(entry)), loss

    def forward(self, prior: Tensor) -> Tensor:
        """Inference, eq. 12 and 13: (N, prior) -> (N, T, width) over the whole bank. Unconditional: the tokens of 0."""
        asking = self.emo_linear(prior)
        if self.bank == "none":
            return asking  # type: ignore[no-any-return]
        entries = self.kv_tokens_linear(self.codebook.codebook.weight).flatten(0, 1)
        made: Tensor = self.attention(asking, entries.expand(len(prior), -1, -1))
        return made


class FaceGuider(nn.Module):
    """The face mask, at the size of the pictures, to features at that of the latents; starts at zero."""

    def __init__(self, widths: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for narrow, wide in pairwise(widths):
            self.blocks.append(nn.Conv2d(narrow, narrow, 3, padding=1))
            self.blocks.append(nn.Conv2d(narrow, wide, 3, padding=1, stride=2))
        self.conv_out = nn.Conv2d(widths[-1], outputs, 3, padding=1)
        for parameter in self.conv_out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, mask: Tensor) -> Tensor:
        """(N, 3, H, W) in {0, 1} -> (N, outputs, H / 2^k, W / 2^k), k = len(widths) - 1"""
        seen = F.silu(self.conv_in(mask))
        for block in self.blocks:
            seen = F.silu(block(seen))
        made: Tensor = self.conv_out(seen)
        return made


@dataclass(slots=True)
class Context:
    """What the layers of the UNet read during one pass.

    tokens   audio and emotion, each (B, F, T, width)
    face     (B, h, w) in [0, 1], the face mask at the size of the latents
    guide    (B, channels, h, w), of the FaceGuider
    middle   (B * F, C, h', w'): features of the mid block, left by the pass
    """

    tokens: tuple[Tensor, ...] = ()
    face: Tensor | None = None
    guide: Tensor | None = None
    middle: Tensor | None = None
    _faces: dict[int, Tensor] = field(default_factory=dict)

    def face_at(self, places: int) -> Tensor:
        """(B, places, 1): the mask at the resolution of a layer with `places` = h'·w' places."""
        assert self.face is not None, "shown before the pass"
        if places not in self._faces:
            height, width = self.face.shape[-2:]
            while height * width > places:
                height, width = (height + 1) // 2, (width + 1) // 2  # as the UNet's strided convolutions
            small = F.interpolate(self.face[:, None], (height, width), mode="area")
            self._faces[places] = small.flatten(2).transpose(1, 2)
        return self._faces[places]

    def show(self, tokens: tuple[Tensor, ...], face: Tensor, guide: Tensor) -> None:
        """What the next pass reads. It stays, for a backward pass that computes blocks anew."""
        self.tokens, self.face, self.guide, self._faces = tokens, face, guide, {}


class ConditionedAttention(nn.Module):
    """Processor of an `attn2`: z_a with the reference's and audio's attention, then z_s = z_a + CA(emotion), eq. 14."""

    def __init__(self, attn: Any, context: Context, temporal: bool) -> None:
        super().__init__()
        width, inner = attn.cross_attention_dim, attn.inner_dim
        self.to_k_ip = nn.ModuleList(nn.Linear(width, inner, bias=False) for _ in range(STREAMS))
        self.to_v_ip = nn.ModuleList(nn.Linear(width, inner, bias=False) for _ in range(STREAMS))
        self._context, self._temporal = context, temporal
        self.start(attn)

    def start(self, attn: Any) -> None:
        """Begin as the keys and values of the layer itself."""
        for mine, its in ((self.to_k_ip, attn.to_k), (self.to_v_ip, attn.to_v)):
            for layer in mine:
                layer.weight = nn.Parameter(its.weight.detach().clone())

    def forward(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Spatial: (B·F, h·w, C), a frame's own tokens, inside the face. Temporal: (B·h·w, F, C), the mean of the
        frames' tokens, everywhere."""
        query = attn.to_q(hidden_states)
        reference = encoder_hidden_states
        mixed = attention(query, attn.to_k(reference), attn.to_v(reference), attn.heads)
        for key, value, tokens in zip(self.to_k_ip, self.to_v_ip, self._context.tokens, strict=True):
            mixed = mixed + self._attended(query, key, value, tokens, attn.heads)
        made: Tensor = attn.to_out[1](attn.to_out[0](mixed))
        return made

    def _attended(self, query: Tensor, key: nn.Module, value: nn.Module, tokens: Tensor, heads: int) -> Tensor:
        if self._temporal:
            tokens = tokens.mean(1)  # (B, T, width): all places of a clip ask the same tokens
            places = query.reshape(len(tokens), -1, query.shape[-1])
            return attention(places, key(tokens), value(tokens), heads).view_as(query)
        frames = tokens.shape[1]
        tokens = tokens.flatten(0, 1)
        found = attention(query, key(tokens), value(tokens), heads)
        return found * self._context.face_at(query.shape[1]).repeat_interleave(frames, 0).to(found)


def condition(unet: Any) -> Context:
    """Give every cross-attention of the UNet a ConditionedAttention and hook in the guider; returns what they read.
    Adds the parameters `...attn2.processor.to_{k,v}_ip.{0,1}.weight`."""
    context = Context()
    for name, module in unet.named_modules():
        if name.endswith("attn2"):
            module.set_processor(ConditionedAttention(module, context, "temporal_transformer_blocks" in name))

    def guide(_module: nn.Module, _given: Any, made: Tensor) -> Tensor:
        if context.guide is None:
            return made
        return made + context.guide.repeat_interleave(len(made) // len(context.guide), 0).to(made)

    def middle(_module: nn.Module, _given: Any, made: Tensor) -> None:
        context.middle = made

    unet.conv_in.register_forward_hook(guide)
    unet.mid_block.register_forward_hook(middle)
    return context


def attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Scaled dot-product attention of `heads` heads: (N, T, C), (N, S, C), (N, S, C) -> (N, T, C)."""
    q, k, v = (given.view(*given.shape[:2], heads, -1).transpose(1, 2) for given in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
