"""Pictures to latents and back without training: the principal components of squares of pixels.

A tiny preset has these in place of a pretrained autoencoder. A small one that is trained for minutes on a few people
blurs the faces of others; the components of squares hold for anybody's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

EVERY = 4  # frames whose squares are looked at


class Squares(nn.Module):
    """Squares of pixels (3, square, square) as their principal components, each divided by the root of its deviation:
    faint ones count more than in the pictures, and less than if all were alike. Pictures are (N, 3, H, W) in [-1, 1],
    H and W multiples of `square`; latents (N, latents, H / square, W / square)."""

    axes: Tensor
    mean: Tensor
    root: Tensor
    factor: Tensor

    def __init__(self, square: int, latents: int) -> None:
        super().__init__()
        numbers = 3 * square**2
        self._square = square
        self.register_buffer("axes", torch.zeros(latents, numbers))
        self.register_buffer("mean", torch.zeros(numbers))
        self.register_buffer("root", torch.ones(latents))
        self.register_buffer("factor", torch.ones(()))

    @property
    def scaling(self) -> float:
        return float(self.factor)

    def encode(self, pictures: Tensor) -> Tensor:
        squares = F.pixel_unshuffle(pictures, self._square).movedim(1, -1)
        return (((squares - self.mean) @ self.axes.T) / self.root).movedim(-1, 1)

    def decode(self, latents: Tensor) -> Tensor:
        squares = (latents.movedim(1, -1) * self.root) @ self.axes + self.mean
        return F.pixel_shuffle(squares.movedim(-1, 1), self._square)

    @torch.no_grad()
    def fill(self, clips: Sequence[NDArray[np.uint8]]) -> None:
        """From clips (T, H, W, 3); a frame's latents then lie about 1 / scaling from those of the clip's first."""
        self.find(torch.cat([tensor(clip[::EVERY]) for clip in clips]))
        first, last = (torch.cat([self.encode(tensor(clip[[at]])) for clip in clips]) for at in (0, -1))
        self.factor.copy_(1 / (last - first).std())

    @torch.no_grad()
    def find(self, pictures: Tensor) -> None:
        """The components of the squares of pictures (N, 3, H, W)."""
        squares = F.pixel_unshuffle(pictures, self._square).movedim(1, -1).flatten(0, 2).double()
        self.mean.copy_(squares.mean(0))
        squares -= squares.mean(0)
        values, vectors = torch.linalg.eigh(squares.T @ squares / len(squares))
        count = len(self.root)
        self.axes.copy_(vectors.flip(1)[:, :count].T)
        self.root.copy_(values.flip(0)[:count].clamp(min=1e-8) ** 0.25)


def tensor(pictures: NDArray[np.uint8]) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float32 in [-1, 1]"""
    return torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
