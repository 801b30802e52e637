"""What DICE-Talk hears: speech as features at 50 a second, two to a video frame of 25 fps.

Layout of the published pipeline (toto222/DICE-Talk @a8a92b1): 16 kHz sound in chunks of 30 s, Whisper's log-mel
spectrogram, the encoder's hidden states (the embedding and the four layers) stacked; chunks joined, the first
2 * (samples // 640) kept. Where Whisper's weights are missing, its spectrogram alone goes through the same interface
under its own name: what was trained on one never runs on the other.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from reference_models.base import FPS, SAMPLE_RATE, Footage, GenerationError
from reference_models.training import cached

WHISPER, LOG_MEL = "whisper-tiny", "log-mel"
RATE = 2 * FPS  # features a second
CHUNK = 30 * SAMPLE_RATE  # samples that Whisper hears at once
PER_FRAME = SAMPLE_RATE // FPS  # samples of a video frame
BEFORE, WINDOW = 4, 10  # features before a frame's first, and in all, that a generated frame hears

Features = NDArray[np.float32]


class Speech(Protocol):
    """A front end. `id` names it and its weights and belongs into the checkpoint of whatever was trained on it."""

    @property
    def id(self) -> str: ...
    @property
    def layers(self) -> int: ...
    @property
    def width(self) -> int: ...

    def __call__(self, audio: NDArray[np.float32]) -> Features:
        """(n,) float32 mono in [-1, 1] at SAMPLE_RATE -> (2 * max(1, n // 640), layers, width) float32 at RATE.

        Raises GenerationError for sound that is not one-dimensional, empty or not finite.
        """
        ...


@dataclass(frozen=True, slots=True)
class Whisper:
    """Hidden states of Whisper tiny's encoder (Radford et al. 2022), the last after its final normalisation.

    Raises GenerationError where `file` does not hold openai/whisper-tiny's tensors.
    """

    file: Path
    device: str = "cpu"
    layers: int = 5
    width: int = 384
    id: str = field(init=False)
    _encoder: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", identity(self.file))
        object.__setattr__(self, "_encoder", _encoder(self.file).to(self.device))

    @torch.no_grad()
    def __call__(self, audio: NDArray[np.float32]) -> Features:
        heard = []
        for mel in _spectrograms(audio):
            states = self._encoder(torch.from_numpy(mel[None]).to(self.device), output_hidden_states=True).hidden_states
            heard.append(torch.stack(states, 2)[0].float().cpu().numpy())  # (1500, 5, 384)
        return _joined(heard, audio)


@dataclass(frozen=True, slots=True)
class LogMel:
    """Whisper's log-mel spectrogram, (log10 + 4) / 4 with 80 dB below the chunk's loudest kept, two columns of 10 ms
    to a feature."""

    layers: int = 1
    width: int = 160
    id: str = LOG_MEL

    def __call__(self, audio: NDArray[np.float32]) -> Features:
        return _joined([mel.T.reshape(-1, 1, self.width) for mel in _spectrograms(audio)], audio)


def speech(id: str, file: Path | None = None, device: str = "cpu") -> Speech:
    """The front end that a checkpoint names. `file` is whisper-tiny of the registry, where this machine has it.

    Raises GenerationError where Whisper is named and missing, or is another file.
    """
    if id == LOG_MEL:
        return LogMel()
    if not id.startswith(WHISPER):
        raise GenerationError(f"speech features {id!r}; expected {LOG_MEL} or {WHISPER}: damaged checkpoint?")
    if file is None:
        raise GenerationError(f"trained on {id}, which is not on this machine; `bench weights add {WHISPER} FILE`")
    found = Whisper(file, device)
    if id not in (WHISPER, found.id):
        raise GenerationError(f"trained on {id}, this machine has {found.id}: add that file, or train anew")
    return found


def available(file: Path | None) -> str:
    """The id of the front end to train on: Whisper where its file is here, else the spectrogram."""
    return LOG_MEL if file is None else identity(file)


def identity(file: Path) -> str:
    """ "whisper-tiny@" and the first eight digits of the file's SHA-256."""
    try:
        with file.open("rb") as opened:
            return f"{WHISPER}@{hashlib.file_digest(opened, 'sha256').hexdigest()[:8]}"
    except OSError as error:
        raise GenerationError(f"{file.name}: cannot be read ({error.strerror})") from error


def hear(clip: Footage, speech: Speech, cache: Path | None) -> Features:
    """The features of a clip's sound, (2 L, layers, width); stored in `cache`, where one is given, under the id."""
    if cache is None:
        return speech(clip.audio())
    return cached(cache, clip, f"speech {speech.id}", lambda: speech(clip.audio()))


def windows(features: Features, step: int = 2) -> Features:
    """What each generated frame hears: (2 L, layers, width) -> (L // step, WINDOW, layers, width), at least one frame.

    Frame i lies at video frame `step` * i (step 2: 12.5 fps) and hears the features 2 * step * i - 4 to + 5; silence
    beyond the ends is zero, as published.
    """
    frames = max(1, len(features) // 2 // step)
    rest = max(0, 2 * step * (frames - 1) + WINDOW - BEFORE - len(features))
    padded = np.pad(features, ((BEFORE, rest), (0, 0), (0, 0)))
    return np.stack([padded[2 * step * i : 2 * step * i + WINDOW] for i in range(frames)])


def _spectrograms(audio: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """(80, 3000) float32 for each chunk of 30 s, the last filled up with zeros."""
    from transformers import WhisperFeatureExtractor

    if audio.ndim != 1 or not len(audio) or not np.isfinite(audio).all():
        raise GenerationError(f"sound of shape {audio.shape}; expected (n,) finite samples, one channel, n > 0")
    extract: Any = WhisperFeatureExtractor()  # type: ignore[no-untyped-call]
    chunks = [audio[at : at + CHUNK] for at in range(0, len(audio), CHUNK)]
    return [extract(chunk, sampling_rate=SAMPLE_RATE, return_tensors="np").input_features[0] for chunk in chunks]


def _joined(chunks: list[Features], audio: NDArray[np.float32]) -> Features:
    return np.ascontiguousarray(np.concatenate(chunks)[: 2 * max(1, len(audio) // PER_FRAME)], np.float32)


def _encoder(file: Path) -> Any:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    size = WhisperConfig(d_model=384, encoder_layers=4, encoder_attention_heads=6, encoder_ffn_dim=1536)
    encoder: Any = WhisperEncoder(size)
    prefix = "model.encoder."
    try:
        with safe_open(file, framework="pt") as opened:
            keys = [key for key in opened.keys() if key.startswith(prefix)]  # noqa: SIM118 - no mapping
            encoder.load_state_dict({key.removeprefix(prefix): opened.get_tensor(key).float() for key in keys})
    except (OSError, SafetensorError, RuntimeError) as error:
        raise GenerationError(
            f"{file.name}: not the model.safetensors of openai/whisper-tiny ({' '.join(str(error).split())[:120]})"
        ) from error
    return encoder.eval().requires_grad_(False)
