"""AV correlation: does the mouth open when the voice sounds?

A measure of our own, to catch gross faults (audio of another clip, a shifted track) without a network; it is not
SyncNet's LSE and not comparable with it. The mouth opening is correlated with the loudness between 1 and 3 kHz:
lip area follows the region of the second formant more closely than the whole band (Grant and Seitz, JASA 2000).

Chosen on 15 real clips (4 GRID, 2 LRS3, 5 MEAD, 1 HDTF, 2 TalkVid, SyncNet's example), each against the audio of
the other 14: own audio had the higher peak in 89 % of the pairs (0.46 against 0.22 on average) and the higher
correlation at lag 0 in 84 % (0.30 against 0.01). Loudness of the whole band reached 75 % and 79 %, and a peak
sought up to 10 frames away 83 %. So one clip says little; the mean over a set does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics.base import (
    ClipViews,
    Direction,
    Extractor,
    ExtractorSpec,
    Features,
    Metric,
    MetricError,
    Weights,
    register,
)

# MediaPipe's mesh: upper and lower inner lip, from the middle outwards, then the top of the face and the chin.
UPPER_LIP = (13, 82, 312, 81, 311)
LOWER_LIP = (14, 87, 317, 178, 402)
FOREHEAD, CHIN = 10, 152

BAND = (1000.0, 3000.0)  # Hz
MAX_LAG = 5  # frames: 0.2 s at 25 fps, beyond what viewers accept (ITU-R BT.1359: +90 to -185 ms)
MIN_FRAMES = 25
SILENCE = 1e-4  # largest band amplitude of a silent clip, full scale 1; speech has 0.02 to 0.3
STEADY = 1e-3  # relative standard deviation of the loudness of a tone; speech has above 0.3
# 10th to 90th percentile of the opening, in face heights: speech has 0.037 to 0.12; 31 of 32 still videos had below
# 0.007 (percentiles, because tracking settles in the first frames).
STILL = 0.01


def mouth_opening(landmarks: NDArray[Any]) -> NDArray[np.float64]:
    """Distance of the inner lips, mean of five pairs, over the height of the face: (t, 478, 3) pixels to (t,).

    In the image plane, so it changes neither with the size, the place nor the roll of the head; 0 is closed,
    0.2 wide open. NaN where the landmarks are.
    """
    points = landmarks[..., :2].astype(np.float64)
    lips = np.linalg.norm(points[:, UPPER_LIP] - points[:, LOWER_LIP], axis=-1).mean(axis=-1)
    height = np.linalg.norm(points[:, FOREHEAD] - points[:, CHIN], axis=-1)
    opening: NDArray[np.float64] = lips / height
    return opening


def loudness(samples: NDArray[Any], sample_rate: int) -> float:
    """Square root of the root-mean-square amplitude between 1 and 3 kHz under a Hann window; (n,) in [-1, 1].

    The square root is a compression as the ear's, and unlike decibels it makes a correlation independent of the
    gain and needs no floor.
    """
    spectrum = np.abs(np.fft.rfft(samples.astype(np.float64) * np.hanning(len(samples))))
    frequency = np.fft.rfftfreq(len(samples), 1 / sample_rate)
    inside = (frequency >= BAND[0]) & (frequency <= BAND[1])
    return float((2 * (spectrum[inside] ** 2).sum()) ** 0.25 / len(samples) ** 0.5)


class AvActivity:
    """Mouth and voice of each frame: {"mouth": (T,), "loudness": (T,)} float64.

    landmarks   (t, 478, 3); the mouth is NaN where no face was found
    waveform    the samples of the frames; the loudness is NaN for frames that the audio does not fill

    Raises MetricError for no frames or samples that are NaN or infinite, ValueError for frames that are not
    consecutive.
    """

    id = "av-activity@1"
    views: tuple[str, ...] = ("landmarks", "waveform")

    def __call__(self, chunks: Iterable[ClipViews]) -> dict[str, NDArray[Any]]:
        mouth: list[NDArray[np.float64]] = []
        voice: list[float] = []
        for chunk in chunks:
            if len(chunk.index) and not np.array_equal(chunk.index, chunk.index[0] + np.arange(len(chunk.index))):
                raise ValueError("av-activity needs consecutive frames")
            waveform = chunk.view("waveform")
            if not np.isfinite(waveform).all():
                raise MetricError("audio samples that are NaN or infinite")
            mouth.append(mouth_opening(chunk.view("landmarks")))
            edges = np.rint(np.append(chunk.index, chunk.index[-1:] + 1) * chunk.sample_rate / chunk.fps)
            edges = (edges - edges[:1]).astype(int)
            for start, stop in pairwise(edges):
                whole = stop <= len(waveform)
                voice.append(loudness(waveform[start:stop], chunk.sample_rate) if whole else np.nan)
        if not voice:
            raise MetricError("no frames to read mouth and voice from")
        return {"mouth": np.concatenate(mouth), "loudness": np.array(voice)}


def _signals(activity: Features) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mouth and loudness less their linear trends, NaN where unknown; raises MetricError if there is no signal."""
    mouth, voice = activity["mouth"].astype(np.float64), activity["loudness"].astype(np.float64)
    face, sound = np.isfinite(mouth), np.isfinite(voice)
    for known, what in ((face, "a face"), (sound, "audio"), (face & sound, "a face with audio")):
        if known.sum() < MIN_FRAMES:
            raise MetricError(f"{what} in {known.sum()} of {len(known)} frames; a correlation needs {MIN_FRAMES}")
    if np.nanmax(voice) ** 2 < SILENCE:
        raise MetricError(f"the audio is silent between {BAND[0]:g} and {BAND[1]:g} Hz")
    if np.nanstd(voice) < STEADY * np.nanmean(voice):
        raise MetricError("the loudness does not vary; is the audio a tone?")
    low, high = np.nanpercentile(mouth, [10, 90])
    if high - low < STILL:
        raise MetricError(f"the mouth does not move (its opening varies by {high - low:.4f} face heights)")
    return _detrend(mouth), _detrend(voice)


def _detrend(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Less the least-squares line through the known frames: heads lean and voices fade over a sentence."""
    time = np.arange(len(signal), dtype=np.float64)
    known = np.isfinite(signal)
    slope, offset = np.polyfit(time[known], signal[known], 1)
    flat: NDArray[np.float64] = signal - (slope * time + offset)
    return flat


def _pearson(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Correlation over the frames that both know."""
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both] - a[both].mean(), b[both] - b[both].mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm else 0.0  # a constant stretch goes with nothing


def correlations(activity: Features) -> dict[int, float]:
    """Pearson correlation of mouth opening and loudness at each lag of at most 5 frames.

    A lag of k pairs the mouth of frame i + k with the voice of frame i: positive means that the video is late.
    Raises MetricError for face and audio in fewer than 25 frames, silent or steady audio, or a still mouth.
    """
    mouth, voice = _signals(activity)
    count = len(mouth)
    return {
        lag: _pearson(mouth[max(lag, 0) : count + min(lag, 0)], voice[max(-lag, 0) : count + min(-lag, 0)])
        for lag in range(-MAX_LAG, MAX_LAG + 1)
    }


def peak(activity: Features) -> float:
    """Largest correlation over the lags; chance alone gives about 0.2 on clips of 3 s. Raises as `correlations`."""
    return max(correlations(activity).values())


def zero_lag(activity: Features) -> float:
    """Correlation without shift; chance alone gives 0 on average. Raises as `correlations`."""
    return correlations(activity)[0]


def lag(activity: Features) -> float:
    """Lag of the largest correlation in frames, positive when the video is late; ±5 may also be further off.

    Raises as `correlations`.
    """
    values = correlations(activity)
    return float(max(values, key=lambda shift: values[shift]))


def _make(weights: Mapping[str, Weights], options: Mapping[str, Any]) -> Extractor:
    return AvActivity()


register(ExtractorSpec(name="av-activity", make=_make))

_ROWS: tuple[tuple[str, Any, str, Direction, str, int], ...] = (
    ("av-correlation/peak", peak, "", "higher", "AV corr.", 3),
    ("av-correlation/zero-lag", zero_lag, "", "higher", "AV corr. (lag 0)", 3),
    ("av-correlation/lag", lag, "frames", "closer-to-real", "AV lag", 1),
)
for _name, _compute, _unit, _direction, _label, _digits in _ROWS:
    register(
        Metric(
            name=_name,
            version=1,
            needs=(("generated", "av-activity"),),
            level="clip",
            unit=_unit,
            direction=_direction,
            compute=_compute,
            label=_label,
            digits=_digits,
            source="our own: inner-lip opening over face height against the loudness in 1-3 kHz, up to 5 frames",
        )
    )
