"""What the three stages minimise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reference_models.emotion_anchor.audio import Disentangler
from reference_models.emotion_anchor.data import features
from reference_models.emotion_anchor.presets import Preset
from reference_models.emotion_anchor.transformer import Autoregressor, Conditions
from reference_models.emotion_anchor.vqgan import VQGAN, Discriminator

Perceptual = Callable[[Tensor, Tensor], Tensor]


class Minimised(nn.Module):
    """A network and what it minimises, as one module: what several processes share is one call."""

    def __init__(self, network: nn.Module, terms: Callable[..., dict[str, Tensor]]) -> None:
        super().__init__()
        self.network, self._terms = network, terms

    def forward(self, *given: Any) -> dict[str, Tensor]:
        return self._terms(self.network, *given)


def disentangling(
    network: Disentangler, same: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], emotions: tuple[Tensor, Tensor]
) -> dict[str, Tensor]:
    """L_cross + L_self + L_cla + L_con, all of weight 1 (after EVP, Ji et al. 2021; the abstract names the aim alone).

    same      x_{i,m}, x_{i,n}: standard windows (N, 28, 12) of the same content in the emotions m and n
    other     x_{j,m}, x_{j,n}: of any content in those emotions
    emotions  m, n as (N,) int64
    """
    count = len(emotions[0])
    content, emotion = network(torch.cat([*same, *other]))
    c = content[: 2 * count].split(count)
    e, e_other = emotion[: 2 * count].split(count), emotion[2 * count :].split(count)
    cross = [F.l1_loss(network.rebuild(c[a], e_other[1 - a]), same[1 - a]) for a in (0, 1)]
    own = [F.l1_loss(network.rebuild(c[a], e[a]), same[a]) for a in (0, 1)]
    named = [F.cross_entropy(network.classifier(e[a]), emotions[a]) for a in (0, 1)]
    return {
        "cross": cross[0] + cross[1],
        "self": own[0] + own[1],
        "classification": named[0] + named[1],
        "content": F.l1_loss(c[0], c[1]),
    }


class Adversaries(nn.Module):
    """VQGAN and discriminator, trained by one optimiser.

    The VQGAN's term sees a discriminator without gradient, the discriminator's term sees pictures without one: each
    gets the gradient that it would get of an optimiser of its own, and Adam treats every parameter alone.
    """

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.vqgan = VQGAN(preset)
        self.discriminator = Discriminator(*preset.discriminator) if preset.adversarial else None

    def forward(
        self, real: Tensor, number: int, preset: Preset, perceptual: Perceptual | None = None
    ) -> dict[str, Tensor]:
        """Terms for pictures (N, 3, S, S) in [-1, 1]. number: of the batch; before preset.adversarial_from there is no
        adversary."""
        made, found = self.vqgan(real)
        weight = features(real.shape[-1], real.device)
        terms = {
            "l1": (weight * (made - real).abs()).mean(),
            "edges": (weight[1:, 1:] * (_edges(made) - _edges(real)).abs()).mean(),
        }
        if perceptual is not None:
            del terms["edges"]  # which stand in for it where no network is at hand
            terms["perceptual"] = preset.perceptual * perceptual(made, real).mean()
        if self.discriminator is not None and number >= preset.adversarial_from:
            asked = {key: value.detach() for key, value in self.discriminator.named_parameters()}
            doubt = -torch.func.functional_call(self.discriminator, asked, (made,)).mean()
            rebuilt = torch.stack(list(terms.values())).sum()
            terms["adversarial"] = preset.adversarial * adaptive(rebuilt, doubt, self.vqgan.last) * doubt
            terms["discriminator"] = hinge(self.discriminator(real), self.discriminator(made.detach()))
        elif self.discriminator is not None:  # several processes wait for every parameter's gradient
            terms["discriminator"] = 0 * torch.stack([p.sum() for p in self.discriminator.parameters()]).sum()
        return {**terms, "codebook": found.codebook, "commit": preset.beta * found.commit}


def _edges(pictures: Tensor) -> Tensor:
    """Differences of neighbours, to the right and down."""
    right = pictures[..., 1:, 1:] - pictures[..., 1:, :-1]
    down = pictures[..., 1:, 1:] - pictures[..., :-1, 1:]
    return torch.cat([right, down], 1)


def hinge(real: Tensor, made: Tensor) -> Tensor:
    """The discriminator's loss (Lim and Ye 2017), half the sum of both sides."""
    return (F.relu(1 - real).mean() + F.relu(1 + made).mean()) / 2


def adaptive(rebuilt: Tensor, doubt: Tensor, last: Tensor) -> Tensor:
    """|∇ rebuilt| / (|∇ doubt| + 1e-4) at the last layer, at most 1e4, without gradient (Taming Transformers)."""
    of = [torch.autograd.grad(term, last, retain_graph=True)[0].norm() for term in (rebuilt, doubt)]
    ratio: Tensor = of[0] / (of[1] + 1e-4)
    return ratio.clamp(0, 1e4).detach()


def sequence(
    network: Autoregressor,
    given: Conditions,
    codes: Tensor,
    emotions: Tensor,
    told: Tensor,
    preset: Preset,
    generator: torch.Generator,
    entries: Tensor,
) -> dict[str, Tensor]:
    """Cross-entropy of the codes, the continuity of each two frames, and the anchor's emotion.

    codes     (2 M, n): rows 2 k and 2 k + 1 are frames that follow each other, the conditions likewise
    emotions  (2 M,) int64, -1 where there is no word
    told      (M,) bool: whether the word takes the place of the emotional sound
    entries   (K, d), the codebook
    """
    heard = torch.where(told.repeat_interleave(2)[:, None, None], network.spoken(emotions), given.emotion)
    spoilt = torch.randint(len(entries), codes.shape, generator=generator, device=codes.device)
    kept = torch.rand(codes.shape, generator=generator, device=codes.device) < preset.pkeep
    sounds = torch.rand(len(told), generator=generator, device=codes.device) >= preset.unheard
    content = given.content * sounds.repeat_interleave(2)[:, None, None]
    logits, named = network(Conditions(given.source, content, heard), torch.where(kept, codes, spoilt))
    expected = logits.softmax(2) @ entries
    wanted = entries[codes]
    return {
        "codes": F.cross_entropy(logits.flatten(0, 1), codes.flatten()),
        "continuity": preset.continuity * continuity(expected, wanted),
        "auxiliary": preset.auxiliary * _named(named, emotions),
    }


def _named(logits: Tensor, emotions: Tensor) -> Tensor:
    """Cross-entropy over the rows that have a word; 0 where none has."""
    total = F.cross_entropy(logits, emotions, ignore_index=-1, reduction="sum")
    return total / (emotions >= 0).sum().clamp_min(1)


def continuity(expected: Tensor, wanted: Tensor) -> Tensor:
    """‖(ê_t - ê_{t-1}) - (e_t - e_{t-1})‖₁, mean over all values of embeddings (2 M, n, d) whose rows come in pairs."""
    return F.l1_loss(expected[1::2] - expected[::2], wanted[1::2] - wanted[::2])


def usage(codes: Tensor, entries: int) -> Mapping[str, float]:
    """Share of the entries that occur in the codes, and their perplexity (the size of an evenly used codebook that
    would tell as much)."""
    counts = torch.bincount(codes.flatten(), minlength=entries).double()
    share = counts / counts.sum()
    entropy = -(share * share.clamp_min(1e-300).log()).sum()
    return {"used": float((counts > 0).double().mean()), "perplexity": float(entropy.exp())}
