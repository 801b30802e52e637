"""MFCC windows, time alignment, and the networks that take speech apart into content and emotion."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from reference_models.base import SAMPLE_RATE

Floats = NDArray[np.float32]

STEP, LENGTH, FFT = 160, 400, 512  # samples: 10 ms, 25 ms
PAD = 1920  # samples of silence on each side, so that window t has the middle of frame t in its own
FILTERS, LIFTER, EMPHASIS = 26, 22, 0.97
COEFFICIENTS = 12  # c1 to c12: c0 is loudness
WINDOW, STRIDE = 28, 4  # MFCC frames a window, and from one window to the next: 0.28 s, 25 windows a second
BLOCK = 4096  # MFCC frames worked on at once


def mfcc(audio: NDArray[np.floating[Any]]) -> Floats:
    """(n,) in [-1, 1] at SAMPLE_RATE to (1 + ceil((n - 400) / 160), 12): c1 to c12 of Davis and Mermelstein (1980).

    Pre-emphasis 0.97, frames of 25 ms every 10 ms without a window, power spectrum of 512 points, 26 triangular filters
    even in mel (2595 log10(1 + f / 700)) from 0 to 8 kHz, natural logarithm, orthonormal DCT-II, sine lifter of 22.
    Digital silence is 0 everywhere.
    """
    from scipy.fft import dct

    signal = np.asarray(audio, np.float64) * 2**15  # the scale of 16-bit samples
    signal = np.append(signal[:1], signal[1:] - EMPHASIS * signal[:-1])
    count = 1 + max(0, -(-(len(signal) - LENGTH) // STEP))
    signal = np.pad(signal, (0, (count - 1) * STEP + LENGTH - len(signal)))
    frames = np.lib.stride_tricks.sliding_window_view(signal, LENGTH)[::STEP]
    lifter = 1 + LIFTER / 2 * np.sin(np.pi * np.arange(1, COEFFICIENTS + 1) / LIFTER)
    filters = mel_filters()
    out = np.empty((count, COEFFICIENTS), np.float32)
    for start in range(0, count, BLOCK):
        power = np.abs(np.fft.rfft(frames[start : start + BLOCK], FFT)) ** 2 / FFT
        energies = np.log(np.maximum(power @ filters.T, np.finfo(np.float64).eps))
        cepstra = dct(energies, type=2, axis=1, norm="ortho")[:, 1 : COEFFICIENTS + 1]
        out[start : start + BLOCK] = cepstra * lifter
    return out


def mel_filters() -> NDArray[np.float64]:
    """(26, 257): triangles whose corners lie on bins of the spectrum, even in mel."""
    mels = np.linspace(0, 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700), FILTERS + 2)
    corners = np.floor((FFT + 1) * 700 * (10 ** (mels / 2595) - 1) / SAMPLE_RATE)
    bins = np.arange(FFT // 2 + 1)
    low, peak, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    triangles: NDArray[np.float64] = np.minimum((bins - low) / (peak - low), (high - bins) / (high - peak))
    return triangles.clip(0)


def coefficients(audio: NDArray[np.floating[Any]], frames: int) -> Floats:
    """The MFCC (4 frames + 24, 12) of which windows() makes one window a frame; silence follows short sounds."""
    need = STRIDE * (frames - 1) + WINDOW
    padded = np.pad(np.asarray(audio, np.float32), (PAD, PAD))
    enough = STEP * (need - 1) + LENGTH
    return mfcc(np.pad(padded[:enough], (0, max(0, enough - len(padded)))))


def windows(found: Floats) -> Floats:
    """(4 T + 24, 12) to (T, 28, 12), T at 25 a second: views, not copies."""
    return np.lib.stride_tricks.sliding_window_view(found, WINDOW, axis=0)[::STRIDE].transpose(0, 2, 1)


def aligned(a: Floats, b: Floats) -> list[tuple[int, int]]:
    """Dynamic time warping (Sakoe and Chiba 1978, steps (1, 1), (1, 0), (0, 1) of equal weight): the path of pairs
    (row of a, row of b) from both starts to both ends with the least sum of L1 distances."""
    from scipy.spatial.distance import cdist

    cost = cdist(a, b, "cityblock")
    rows, columns = cost.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0
    for diagonal in range(rows + columns - 1):  # all cells of one depend on the two before it alone
        i = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1))
        j = diagonal - i
        total[i + 1, j + 1] = cost[i, j] + np.minimum(np.minimum(total[i, j + 1], total[i + 1, j]), total[i, j])
    path = [(rows - 1, columns - 1)]
    while path[-1] != (0, 0):
        i, j = path[-1]
        steps = ((i - 1, j - 1), (i - 1, j), (i, j - 1))
        path.append(min(steps, key=lambda step: total[step[0] + 1, step[1] + 1]))
    return path[::-1]


class Encoder(nn.Module):
    """Windows (N, 28, 12) to codes (N, width) of mean 0 and spread 1 over a batch: no loss is met by equal codes."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(2 * channels, 4 * channels, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(4 * channels * (WINDOW // 4) * (COEFFICIENTS // 4), width),
            nn.BatchNorm1d(width, affine=False),
        )

    def forward(self, found: Tensor) -> Tensor:
        out: Tensor = self.layers(found[:, None])
        return out


class Disentangler(nn.Module):
    """E_c, E_e, the decoder G and the emotion's classifier. Windows are standardised by the training set's means and
    spreads; codes and reconstructions are of standardised windows."""

    mean: Tensor
    spread: Tensor

    def __init__(self, channels: int, content: int, emotion: int, emotions: int) -> None:
        super().__init__()
        self.content, self.emotion = Encoder(channels, content), Encoder(channels, emotion)
        self.classifier = nn.Linear(emotion, emotions)
        small = (4 * channels, WINDOW // 4, COEFFICIENTS // 4)
        self.decoder = nn.Sequential(
            nn.Linear(content + emotion, int(np.prod(small))),
            nn.Unflatten(1, small),
            nn.GELU(),
            nn.ConvTranspose2d(4 * channels, 2 * channels, 4, stride=2, padding=1),
            nn.GELU(),
            nn.ConvTranspose2d(2 * channels, channels, 4, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(channels, 1, 3, padding=1),
        )
        self.register_buffer("mean", torch.zeros(COEFFICIENTS))
        self.register_buffer("spread", torch.ones(COEFFICIENTS))

    def standard(self, found: Tensor) -> Tensor:
        return (found - self.mean) / self.spread

    def rebuild(self, content: Tensor, emotion: Tensor) -> Tensor:
        """G: codes (N, content) and (N, emotion) to windows (N, 28, 12)."""
        out: Tensor = self.decoder(torch.cat([content, emotion], 1))[:, 0]
        return out

    @torch.no_grad()
    def codes(self, found: Floats) -> tuple[Tensor, Tensor]:
        """Content (T, content) and emotion codes (T, emotion) of MFCC (4 T + 24, 12), on the network's device."""
        parts = []
        of = torch.from_numpy(np.array(windows(found)))
        for part in torch.split(of, 512):
            standard = self.standard(part.to(self.mean.device))
            parts.append((self.content(standard), self.emotion(standard)))
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])

    def forward(self, found: Tensor) -> tuple[Tensor, Tensor]:
        """Codes of windows that are standard already."""
        return self.content(found), self.emotion(found)


def around(content: Tensor, span: int) -> Tensor:
    """(T, d) to (T, span, d): the rows before and after each; the first and last stand for those beyond."""
    rows = torch.arange(len(content), device=content.device)[:, None]
    near = rows + torch.arange(span, device=content.device) - span // 2
    return content[near.clamp(0, len(content) - 1)]


def spans(emotion: Tensor, span: int) -> Tensor:
    """(T, d) to (span, d): means over equal parts of the whole sound, which may overlap by a row."""
    means: Tensor = nn.functional.adaptive_avg_pool1d(emotion.T[None], span)[0].T
    return means
