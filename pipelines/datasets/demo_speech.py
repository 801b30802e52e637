"""Speech of the demo dataset: espeak-ng's voice, its phoneme times, and the mouth that goes with them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import espeakng_loader
import numpy as np
import soxr
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

SAMPLE_RATE = 48_000
LEAD, TAIL = 0.20, 0.25  # seconds of silence before and after the speech
_GRID = 400  # Hz at which mouth movements are laid out before they are read at the times of the frames

Array = NDArray[np.float32]
_STRESS = dict.fromkeys(map(ord, "ˈˌː"))


@dataclass(frozen=True, slots=True)
class Prosody:
    """How a sentence is said. `rate` in words a minute; `pitch` and `range` on espeak's scale of 0 to 99;
    `gain` the amplitude of the loud parts, 1 being full scale."""

    rate: int
    pitch: int
    range: int
    gain: float


NEUTRAL = Prosody(rate=172, pitch=45, range=40, gain=0.42)
# What full intensity adds to neutral; directions after Banse & Scherer, "Acoustic profiles in vocal emotion
# expression", 1996 (level and range up for joy and anger, all down for sadness).
SHIFT = {
    "neutral": Prosody(0, 0, 0, 0.0),
    "happy": Prosody(14, 16, 35, 0.20),
    "surprised": Prosody(-4, 30, 50, 0.24),
    "angry": Prosody(26, -3, 28, 0.44),
    "sad": Prosody(-34, -14, -30, -0.20),
}


def prosody(emotion: str, amount: float, pitch: int, rng: np.random.Generator) -> Prosody:
    """Prosody of an emotion at `amount` (0 to 1), with the jitter of one utterance; `pitch` is the speaker's own,
    relative to the voice's."""
    shift = SHIFT[emotion]
    jitter = rng.normal(size=4) * (4.0, 2.0, 4.0, 0.02)
    return Prosody(
        rate=round(NEUTRAL.rate + amount * shift.rate + jitter[0]),
        pitch=int(np.clip(NEUTRAL.pitch + pitch + amount * shift.pitch + jitter[1], 0, 99)),
        range=int(np.clip(NEUTRAL.range + amount * shift.range + jitter[2], 0, 99)),
        gain=float(np.clip(NEUTRAL.gain + amount * shift.gain + jitter[3], 0.1, 0.95)),
    )


@dataclass(frozen=True, slots=True)
class Phoneme:
    """An IPA symbol with its start and end in seconds on the clock of the clip; "" is a pause."""

    symbol: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Utterance:
    """(n,) float32 mono in [-1, 1] at 48 kHz, silence at both ends included, and its phonemes in order."""

    audio: Array
    phonemes: tuple[Phoneme, ...]

    @property
    def seconds(self) -> float:
        return len(self.audio) / SAMPLE_RATE


def speak(text: str, voice: str, how: Prosody, seed: int) -> Utterance:
    """Say `text`. Equal arguments give equal samples. Raises RuntimeError where espeak-ng fails."""
    request = {
        "library": str(espeakng_loader.get_library_path()),
        "data": str(espeakng_loader.get_data_path()),
        "voice": voice,
        "text": text,
        "rate": how.rate,
        "pitch": how.pitch,
        "range": how.range,
        "seed": seed,
    }
    program = str(Path(__file__).with_name("demo_espeak.py"))
    done = subprocess.run(
        [sys.executable, "-I", "-S", program], input=json.dumps(request).encode(), capture_output=True, check=False
    )
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(f"espeak-ng cannot speak {text!r}: {' '.join(last) or done.returncode}")
    header, _, pcm = done.stdout.partition(b"\n")
    answer = json.loads(header)
    wave = np.frombuffer(pcm, np.int16).astype(np.float32) / 32768
    speech = soxr.resample(wave, answer["sample_rate"], SAMPLE_RATE, quality="VHQ")
    speech *= how.gain / max(float(np.percentile(np.abs(speech), 99.7)), 1e-3)
    silence = [np.zeros(round(s * SAMPLE_RATE), np.float32) for s in (LEAD, TAIL)]
    audio = np.clip(np.concatenate([silence[0], speech, silence[1]]), -0.99, 0.99).astype(np.float32)
    starts = [LEAD + sample / answer["sample_rate"] for sample, _ in answer["phonemes"]]
    ends = [*starts[1:], LEAD + len(wave) / answer["sample_rate"]]
    symbols = [symbol.translate(_STRESS) for _, symbol in answer["phonemes"]]
    return Utterance(audio, tuple(Phoneme(s, a, b) for s, a, b in zip(symbols, starts, ends, strict=True)))


@dataclass(frozen=True, slots=True)
class Viseme:
    """A mouth shape. `open` 0 to 1; `wide` from -1 rounded to 1 spread; `close` 1 lips pressed together;
    `tuck` 1 lower lip under the upper teeth; `tongue` 1 tip behind the upper teeth."""

    open: float
    wide: float = 0.0
    close: float = 0.0
    tuck: float = 0.0
    tongue: float = 0.0


_REST = Viseme(0.0)
# By the first IPA sign of a phoneme; diphthongs glide through two (see _targets).
VISEMES = {
    **dict.fromkeys("pbm", Viseme(0.0, close=1.0)),
    **dict.fromkeys("fv", Viseme(0.12, wide=0.15, tuck=1.0)),
    **dict.fromkeys("θð", Viseme(0.24, tongue=1.0)),
    **dict.fromkeys("tdnɾ", Viseme(0.22, wide=0.1, tongue=0.9)),
    **dict.fromkeys("sz", Viseme(0.12, wide=0.35, tongue=0.4)),
    **dict.fromkeys("ʃʒ", Viseme(0.18, wide=-0.5)),
    **dict.fromkeys("l", Viseme(0.34, tongue=1.0)),
    **dict.fromkeys("ɹr", Viseme(0.26, wide=-0.4)),
    **dict.fromkeys("kgɡŋhx", Viseme(0.32)),  # noqa: RUF001 - IPA
    **dict.fromkeys("j", Viseme(0.25, wide=0.6)),
    **dict.fromkeys("w", Viseme(0.14, wide=-1.0)),
    **dict.fromkeys("iɪᵻ", Viseme(0.42, wide=0.8)),  # noqa: RUF001 - IPA
    **dict.fromkeys("eɛæ", Viseme(0.72, wide=0.55)),
    **dict.fromkeys("aɑ", Viseme(1.0, wide=0.1)),  # noqa: RUF001 - IPA
    **dict.fromkeys("ʌəɚɜɐ", Viseme(0.55, wide=-0.05)),
    **dict.fromkeys("oɔɒ", Viseme(0.72, wide=-0.75)),
    **dict.fromkeys("uʊ", Viseme(0.36, wide=-1.0)),
}
OPEN, WIDE, CLOSE, TUCK, TONGUE = range(5)


def viseme(sign: str) -> Viseme:
    """The mouth shape of one IPA sign; what is unknown, a length mark say, leaves the mouth at rest."""
    return VISEMES.get(sign, _REST)


def _targets(utterance: Utterance) -> Array:
    """(n, 5) on the 400 Hz grid: each sign of a phoneme holds its shape for an equal share of the phoneme."""
    steps = np.zeros((round(utterance.seconds * _GRID) + 1, 5), np.float32)
    for phoneme in utterance.phonemes:
        signs = [s for s in phoneme.symbol if s in VISEMES]
        edges = np.linspace(phoneme.start, phoneme.end, len(signs) + 1)
        for sign, start, end in zip(signs, edges, edges[1:], strict=False):
            v = viseme(sign)
            steps[round(start * _GRID) : round(end * _GRID), [OPEN, WIDE, TONGUE]] = (v.open, v.wide, v.tongue)
            if v.close or v.tuck:  # however short, a p closes
                middle, half = (start + end) / 2, max(end - start, 0.07) / 2
                around = slice(round((middle - half) * _GRID), round((middle + half) * _GRID))
                steps[around, CLOSE], steps[around, TUCK] = v.close, v.tuck
    return steps


def _loudness(utterance: Utterance) -> Array:
    """(n,) on the 400 Hz grid: RMS of the sound under a Gaussian of 25 ms; 1 is loud for this utterance."""
    block = SAMPLE_RATE // _GRID
    size = round(utterance.seconds * _GRID) + 1
    padded = np.pad(utterance.audio, (block // 2, 2 * block))
    power = (padded[: size * block].reshape(size, block) ** 2).mean(1)
    amplitude = np.sqrt(gaussian_filter1d(power, 0.025 * _GRID))
    level: Array = np.clip(amplitude / max(float(np.percentile(amplitude, 93)), 1e-4), 0, 1.2).astype(np.float32)
    return level


def _read(track: Array, times: NDArray[np.floating[Any]]) -> Array:
    """A track (n, ...) of the 400 Hz grid at `times` seconds."""
    grid = np.arange(len(track)) / _GRID
    columns = [np.interp(times, grid, column) for column in track.reshape(len(track), -1).T]
    return np.stack(columns, axis=1).reshape(len(times), *track.shape[1:]).astype(np.float32)


def loudness(utterance: Utterance, times: NDArray[np.floating[Any]]) -> Array:
    """(T,) loudness of the sound at `times` seconds, relative to the loud parts of the utterance, 0 to 1.2."""
    return _read(_loudness(utterance), times)


def mouth_track(utterance: Utterance, times: NDArray[np.floating[Any]]) -> Array:
    """(T, 5) open, wide, close, tuck, tongue at `times` seconds.

    Coarticulation: shapes flow into each other under a Gaussian (no lag, as lips anticipate as much as they
    linger); closures are narrower and stronger, since a p that does not close is seen at once. The opening of
    the jaw follows the loudness of the sound as well as the phoneme.
    """
    steps = _targets(utterance)
    flow = gaussian_filter1d(steps, 0.032 * _GRID, axis=0, mode="nearest")
    sharp = np.clip(gaussian_filter1d(steps, 0.016 * _GRID, axis=0, mode="nearest") * 1.35, 0, 1)
    flow[:, CLOSE], flow[:, TUCK] = sharp[:, CLOSE], sharp[:, TUCK]
    flow[:, OPEN] *= (0.30 + 0.70 * _loudness(utterance)) * (1 - flow[:, CLOSE]) * (1 - 0.5 * flow[:, TUCK])
    return _read(flow, times)
