"""The embedder's contrastive objective (DICE-Talk, eq. 7, 8), and what counts as the same emotion."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor
from torch.nn import functional

from reference_models.base import Footage

UNLABELLED = "unlabelled"


def info_nce(priors: Tensor, classes: Tensor, temperature: float) -> Tensor:
    """Mean over all pairs (s, sᵖ) of -log(ω(sᵖ) / (ω(sᵖ) + Σ ω(sⁿ))), ω(s̃) = exp(cos(s, s̃) / τ).

    priors (B, width); classes (B,) integers: equal ones are positives of each other, the others negatives; at least
    one pair is equal. The paper adds "a fixed constant" to the cosine against overflow: it cancels in the quotient,
    and the logarithm of sums taken here needs none.
    """
    unit = functional.normalize(priors, dim=1)
    similarity = unit @ unit.T / temperature
    same = classes[:, None] == classes
    negatives = similarity.masked_fill(same, -torch.inf).logsumexp(1, keepdim=True)
    each = functional.softplus(negatives - similarity)
    return each[same & ~torch.eye(len(classes), dtype=torch.bool, device=classes.device)].mean()


def same_as(clip: Footage) -> Hashable:
    """Positives share this: identity and emotion where the emotion is known (MEAD), else the video they were cut from
    (HDTF)."""
    if clip.emotion == UNLABELLED:
        return clip.dataset, clip.source
    return clip.dataset, clip.identity, clip.emotion
