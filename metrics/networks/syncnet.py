"""SyncNet, the two streams whose distance tells whether lips and voice go together, and the MFCC that it hears.

Chung and Zisserman, "Out of time: automated lip sync in the wild", ACCV Workshops 2016, in the form of
joonson/syncnet_python @6efbb1c (`SyncNetModel.py`, `SyncNetInstance.py`): 1024-d features of 5 frames (0.2 s) and of
20 MFCC columns, compared at 31 shifts. The weights are `syncnet_v2.model`, loaded as published.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from metrics.base import MetricError, Weights
from metrics.networks.running import full_precision

if TYPE_CHECKING:
    import torch

SIZE = 224  # px, side of a crop
WINDOW = 5  # frames
COLUMNS = 20  # of the MFCC, the same 0.2 s
DIMENSION = 1024
SAMPLE_RATE = 16_000
SAMPLES = 640  # a frame at 25 fps
LOST = 5  # frames at the end without a window: the published code loses one window more than it must
VSHIFT = 15  # frames to either side
EPSILON = 1e-6  # added to each difference by torch's pairwise_distance
BATCH = 20  # windows, as published; no number depends on it beyond rounding

# python_speech_features' defaults for mfcc().
FRAME, STEP, NFFT = 400, 160, 512  # samples: 25 ms, 10 ms
FILTERS, CEPSTRA, LIFTER, PREEMPHASIS = 26, 13, 22, 0.97

CONSTANTS = {  # in words, for `bench metrics show`
    "MFCC": (
        f"{CEPSTRA} of {FILTERS} mel filters, {1000 * FRAME // SAMPLE_RATE} ms every {1000 * STEP // SAMPLE_RATE} ms, "
        f"FFT of {NFFT}, pre-emphasis {PREEMPHASIS}, lifter {LIFTER}, log energy as the first"
    ),
    "windows": f"{WINDOW} frames with {COLUMNS} columns of MFCC; n - {LOST} of n frames",
    "distances": (
        f"Euclidean, eps {EPSILON:g} added to each difference, at ±{VSHIFT} shifts; zero padding beyond the voice"
    ),
}

BLOCK = 500  # columns, or windows, in float64 at a time; no number depends on it beyond rounding


def to_int16(waveform: NDArray[Any]) -> NDArray[np.int16]:
    """(n,) floating samples in [-1, 1] as the 16-bit PCM that a WAV file would hold, rounded and clipped.

    Raises MetricError for integers, and for samples that are NaN, infinite or beyond 4, which are no such waveform.
    """
    if not np.issubdtype(waveform.dtype, np.floating):
        raise MetricError(f"audio samples are {waveform.dtype}; expected floats in [-1, 1] (divide int16 by 32768)")
    if not np.isfinite(waveform).all():
        raise MetricError("audio samples that are NaN or infinite")
    if len(waveform) and np.abs(waveform).max() > 4:
        raise MetricError(f"an audio sample of {np.abs(waveform).max():g}; expected [-1, 1]. Is it 16-bit PCM?")
    pcm: NDArray[np.int16] = np.clip(np.rint(waveform.astype(np.float64) * 32768), -32768, 32767).astype(np.int16)
    return pcm


def _filterbank() -> NDArray[np.float64]:
    """(26, 257) triangles between 0 and 8 kHz on the mel scale, their corners rounded down to FFT bins."""
    mel = np.linspace(0.0, 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700), FILTERS + 2)
    corners = np.floor((NFFT + 1) * 700 * (10 ** (mel / 2595) - 1) / SAMPLE_RATE)
    bins = np.arange(NFFT // 2 + 1)
    low, middle, high = (corners[k : k + FILTERS, None] for k in range(3))
    rising = np.where((bins >= low) & (bins < middle), (bins - low) / (middle - low), 0.0)
    falling = np.where((bins >= middle) & (bins < high), (high - bins) / (high - middle), 0.0)
    return rising + falling


def mfcc(samples: NDArray[np.int16]) -> NDArray[np.float64]:
    """Cepstra of 16 kHz sound, (n,) int16 to (columns, 13): one column every 10 ms, 1 + ceil((n - 400) / 160) of them.

    python_speech_features 0.6, `mfcc(samples, 16000)`: pre-emphasis 0.97, 25 ms rectangular frames (the last filled
    with zeros), power spectrum of 512 points, 26 mel filters, orthonormal DCT-II, lifter 22, log energy as the first.
    The values depend on the scale of the samples: int16, not [-1, 1]. Raises ValueError for another type.
    """
    if samples.dtype != np.int16:
        raise ValueError(f"mfcc of {samples.dtype} samples; expected int16, on whose scale the log energies stand")
    count = 1 + max(0, -(-(len(samples) - FRAME) // STEP))
    blocks = ((first, min(first + BLOCK, count)) for first in range(0, count, BLOCK))
    return np.concatenate([_cepstra(samples, first, stop) for first, stop in blocks])


def _cepstra(samples: NDArray[np.int16], first: int, stop: int) -> NDArray[np.float64]:
    """Columns first ... stop - 1 of mfcc()."""
    start, end = first * STEP, (stop - 1) * STEP + FRAME
    before = samples[start - 1] if start else 0
    signal = np.concatenate([[before], samples[start:end]]).astype(np.float64)
    signal = signal[1:] - PREEMPHASIS * signal[:-1]
    signal = np.pad(signal, (0, end - start - len(signal)))
    frames = np.lib.stride_tricks.sliding_window_view(signal, FRAME)[::STEP]
    power = np.abs(np.fft.rfft(frames, NFFT)) ** 2 / NFFT  # (columns, 257)
    energy, tiny = power.sum(axis=1), np.finfo(float).eps
    bands = power @ _filterbank().T
    loud = np.log(np.where(bands == 0, tiny, bands))
    order, band = np.arange(CEPSTRA)[:, None], np.arange(FILTERS)
    dct = np.sqrt(2 / FILTERS) * np.cos(np.pi * order * (2 * band + 1) / (2 * FILTERS))
    dct[0] /= np.sqrt(2)
    cepstra: NDArray[np.float64] = (loud @ dct.T) * (1 + LIFTER / 2 * np.sin(np.pi * np.arange(CEPSTRA) / LIFTER))
    cepstra[:, 0] = np.log(np.where(energy == 0, tiny, energy))
    return cepstra


def distances(lips: NDArray[Any], voices: NDArray[Any]) -> NDArray[np.float64]:
    """(W, D) features of lips and of voices to the (W, 31) Euclidean distances at each shift.

    Column j compares window i of the lips with window i + j - 15 of the voice; beyond its ends the voice is zeros,
    and those distances count (`SyncNetInstance.calc_pdist`). Raises ValueError for different numbers of windows.
    """
    if lips.shape != voices.shape:
        raise ValueError(f"features of {lips.shape} for the lips and {voices.shape} for the voice")
    padded = np.pad(voices, ((VSHIFT, VSHIFT), (0, 0)))
    out = np.empty((len(lips), 2 * VSHIFT + 1))
    for first in range(0, len(lips), BLOCK):
        seen = lips[first : first + BLOCK].astype(np.float64)
        heard = padded[first : first + len(seen) + 2 * VSHIFT].astype(np.float64)
        for shift in range(out.shape[1]):
            difference = seen - heard[shift : shift + len(seen)] + EPSILON
            out[first : first + len(seen), shift] = np.sqrt((difference**2).sum(axis=1))
    return out


def load_state(path: Path, network: torch.nn.Module) -> None:
    """Fill `network` from a published state dict; nothing in the file is run.

    Raises ValueError, in one line, for a file that is no state dict or not this network's.
    """
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile pickle provokes
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{path.name}: refused, not a plain state dict ({reason[0][:120]})") from None
    if not isinstance(state, Mapping):
        raise ValueError(f"{path.name}: holds a {type(state).__name__}; expected a state dict")
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path.name}: not the published weights ({' '.join(str(error).split())[:200]})") from None


def build() -> torch.nn.ModuleDict:
    """The published architecture with its key names, untrained: netcnnaud, netfcaud, netcnnlip, netfclip.

    Audio takes (n, 1, 13, 20). The lip stream is written for any number of frames: all but its first layer have no
    extent in time, so (n, 3, T, 224, 224) gives (n, 512, T - 4, 1, 1), each window computed once.
    """
    from torch import nn

    def flat(into: int, out: int, kernel: Any = 3, padding: int = 1) -> list[nn.Module]:
        return [nn.Conv2d(into, out, kernel, padding=padding), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]

    def timed(into: int, out: int, kernel: Any, stride: int = 1, padding: int = 1) -> list[nn.Module]:
        steps, margins = (1, stride, stride), (0, padding, padding)
        layer = nn.Conv3d(into, out, kernel, stride=steps, padding=margins)
        return [layer, nn.BatchNorm3d(out), nn.ReLU(inplace=True)]

    def head() -> nn.Sequential:
        return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, DIMENSION))

    audio = [*flat(1, 64), nn.MaxPool2d(1, 1), *flat(64, 192), nn.MaxPool2d(3, (1, 2))]
    audio += [*flat(192, 384), *flat(384, 256), *flat(256, 256), nn.MaxPool2d(3, 2), *flat(256, 512, (5, 4), 0)]
    pool = (1, 3, 3)
    lip = [*timed(3, 96, (5, 7, 7), 2, 0), nn.MaxPool3d(pool, (1, 2, 2))]
    lip += [*timed(96, 256, (1, 5, 5), 2), nn.MaxPool3d(pool, (1, 2, 2), (0, 1, 1))]
    lip += [*timed(256, 256, pool), *timed(256, 256, pool), *timed(256, 256, pool), nn.MaxPool3d(pool, (1, 2, 2))]
    lip += timed(256, 512, (1, 6, 6), padding=0)
    streams = {"netcnnaud": nn.Sequential(*audio), "netfcaud": head()}
    return nn.ModuleDict(streams | {"netcnnlip": nn.Sequential(*lip), "netfclip": head()})


class SyncNet:
    """The frozen network on "cpu" or "cuda[:n]"; the weights are read at first use (ValueError as load_state)."""

    def __init__(self, weights: Weights, device: str = "cpu") -> None:
        self._weights, self._device = weights, device

    @cached_property
    def _network(self) -> Any:
        network = build()
        load_state(self._weights.path, network)
        return network.eval().requires_grad_(False).to(self._device)

    def lips(self, crops: Iterable[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Features of every 5 consecutive crops: (224, 224, 3) uint8 RGB each, to (number of crops - 4, 1024).

        The network sees BGR, 0-255, not normalised. About 24 crops are held at a time. Raises MetricError for crops
        of another size, ValueError for another type.
        """
        import torch

        features = [np.zeros((0, DIMENSION), np.float32)]
        for stack in _overlapping(_checked(crops), BATCH + WINDOW - 1, WINDOW - 1):
            with full_precision(self._device):
                images = torch.from_numpy(np.ascontiguousarray(stack[..., ::-1])).to(self._device)
                seen = self._network["netcnnlip"](images.permute(3, 0, 1, 2)[None].float())  # (1, 512, t - 4, 1, 1)
                features.append(self._network["netfclip"](seen[0, :, :, 0, 0].T).cpu().numpy())
        return np.concatenate(features)

    def voices(self, cepstra: NDArray[np.float64], count: int) -> NDArray[np.float32]:
        """Features of the first `count` windows of 20 columns, one every 4: (columns, 13) to (count, 1024)."""
        import torch

        columns = cepstra.astype(np.float32).T
        features = [np.zeros((0, DIMENSION), np.float32)]
        for start in range(0, count, BATCH):
            windows = [columns[:, 4 * k : 4 * k + COLUMNS] for k in range(start, min(start + BATCH, count))]
            with full_precision(self._device):
                heard = self._network["netcnnaud"](torch.from_numpy(np.stack(windows)[:, None]).to(self._device))
                features.append(self._network["netfcaud"](heard.flatten(1)).cpu().numpy())
        return np.concatenate(features)

    def compare(self, lips: NDArray[np.float32], samples: NDArray[np.int16]) -> NDArray[np.float64]:
        """distances() of lips(), (frames - 4, 1024), and their sound at 16 kHz, (n,): (W, 31).

        W = min(frames, n // 640) - 5 windows. Raises MetricError where that leaves none, and for silent sound.
        """
        frames = len(lips) + WINDOW - 1
        count = min(frames, len(samples) // SAMPLES) - LOST
        if count < 1:
            shown = f"{frames} frames" if len(lips) else f"fewer than {WINDOW} frames"
            raise MetricError(
                f"{shown} with {len(samples) / SAMPLE_RATE:.2f} s of sound are too short; SyncNet needs {LOST + 1} "
                f"frames and {(LOST + 1) * SAMPLES / SAMPLE_RATE} s"
            )
        if not samples.any():
            raise MetricError("the audio is silent: every sample is 0")
        return distances(lips[:count], self.voices(mfcc(samples), count))


def _checked(crops: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    for crop in crops:
        if crop.dtype != np.uint8:
            raise ValueError(f"crops of {crop.dtype}; expected uint8, 0-255")
        if crop.shape != (SIZE, SIZE, 3):
            raise MetricError(f"frames are {crop.shape[1]}x{crop.shape[0]}; expected crops of {SIZE}x{SIZE}")
        yield crop


def _overlapping(crops: Iterable[NDArray[np.uint8]], size: int, overlap: int) -> Iterator[NDArray[np.uint8]]:
    """Stacks of `size` crops (the last may be shorter), each beginning with the last `overlap` of the one before."""
    held: list[NDArray[np.uint8]] = []
    fresh = 0
    for crop in crops:
        held.append(crop)
        fresh += 1
        if len(held) == size:
            yield np.stack(held)
            held, fresh = held[size - overlap :], 0
    if fresh and len(held) > overlap:
        yield np.stack(held)
