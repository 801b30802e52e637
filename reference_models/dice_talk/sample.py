"""The generators Ours-P and Ours-V: DICE-Talk with an emotion's mean prior, or with the prior of a video."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from reference_models.base import FPS, SAMPLE_RATE, GenerationError, Request
from reference_models.detail import tolerance_of, with_detail
from reference_models.dice_talk import checkpoints, embedding, vision
from reference_models.dice_talk.coefficients import LANDMARKER
from reference_models.dice_talk.data import face_mask
from reference_models.dice_talk.model import STEP
from reference_models.dice_talk.priors import read
from reference_models.dice_talk.sampling import Sampler, Track
from reference_models.dice_talk.speech import BEFORE, CHUNK, PER_FRAME, RATE, WHISPER, WINDOW, Speech
from reference_models.dice_talk.speech import speech as front_end
from reference_models.rife import Rife

DECODED = 10  # frames that the temporal decoder sees at once, as published
SMALLEST = 16  # pixels of a reference's side
MULTIPLE = 64  # of the sides of the pictures at 512, as published

Picture = NDArray[np.uint8]
Felt = Callable[[NDArray[np.floating[Any]]], NDArray[np.float32]]  # seconds (n,) -> (n, prior)


class DiceTalkGenerator:
    """What both share. model: the finished training, of `preset`; vae, image_encoder and whisper belong to the full
    preset, autoencoder to the tiny one. detail: the tolerance of detail.with_detail, where the tiny one's small latents
    are to get the portrait's detail back."""

    _detail: float | None = None

    def __init__(
        self,
        model: Path,
        rife: Path,
        *,
        preset: str = "full",
        autoencoder: Path | None = None,
        vae: Path | None = None,
        image_encoder: Path | None = None,
        whisper: Path | None = None,
        steps: int | None = None,
        guidance: Sequence[float] | None = None,
        precision: Literal["no", "fp16"] = "no",
        detail: float | None = None,
        device: str = "cpu",
    ) -> None:
        network, self.preset, config = checkpoints.trained(model, preset)
        self._detail = tolerance_of(detail)
        self._embedded_by = config["embedder"]
        self._open(network, config["speech"], rife, whisper, device, precision, steps, guidance)
        if autoencoder is not None:
            self._vision = vision.load(self.preset, preset, autoencoder, device)
        elif vae is not None and image_encoder is not None:
            self._vision = vision.pretrained(self.preset, vae, image_encoder, device)
        else:
            raise GenerationError(f"preset {preset}: expected autoencoder, or vae and image_encoder")
        if self._vision.id != config["vision"]:
            raise GenerationError(f"{model.name}: trained on another autoencoder than this one; train one of them anew")

    def _open(
        self,
        network: Any,
        speech: str,
        rife: Path,
        whisper: Path | None,
        device: str,
        precision: str,
        steps: int | None,
        guidance: Sequence[float] | None,
    ) -> None:
        half = precision == "fp16" and device != "cpu"
        chosen = self.preset if guidance is None else replace(self.preset, guidance=(guidance[0], guidance[1]))
        chosen = replace(chosen, denoising_steps=steps or chosen.denoising_steps)
        self._sampler = Sampler(network, chosen, device=device, dtype=torch.float16 if half else torch.float32)
        self._speech, self._rife = front_end(speech, whisper, device), Rife(rife, device)

    def animate(self, request: Request, felt: Felt) -> Iterator[Picture]:
        """Frames at 25 fps whose emotion at t seconds is felt(t). Raises GenerationError."""
        _check(request)
        assert request.points is not None, "checked"
        height, width = request.reference.shape[:2]
        size = self._size(height, width)
        small = np.asarray(Image.fromarray(request.reference).resize(size[::-1], Image.Resampling.LANCZOS))
        points = request.points() * np.array([size[1] / width, size[0] / height, 1], np.float32)
        frames = request.num_frames // 2 + 1  # at 12.5 fps, with the one after the last
        heard = Heard(self._speech, request.audio, frames)
        track = Track(
            frames=frames,
            image=self._vision.latents(small[None])[0],
            seen=self._vision.embedding(small[None])[0],
            mask=face_mask(points, size),
            heard=heard,
            felt=lambda numbers: felt(numbers * (STEP / FPS)),
        )
        latents = self._sampler.latents(track, request.seed)
        drawn = None if self._detail is None else _fitted(self._vision.redrawn(track.image), width, height)
        left = request.num_frames
        for chunk in doubled(self._decoded(latents, track.image), self._rife):
            kept = chunk[:left]
            left -= len(kept)
            for picture in kept:  # one at a time: those of a large portrait are large
                made = _fitted(picture, width, height)
                if drawn is not None and self._detail is not None:
                    made = with_detail(made, drawn, request.reference, self._detail)
                yield made[None]

    def _size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the pictures: the short side `pixels`, both multiples of what the networks need."""
        multiple = max(self.preset.factor * 2 ** (len(self.preset.widths) - 1), 1)
        scale = self.preset.pixels / min(height, width)
        longest = 4 * self.preset.pixels
        rounded = [max(multiple, round(side * scale / multiple) * multiple) for side in (height, width)]
        if max(rounded) > longest:
            raise GenerationError(f"reference of {width}x{height}; expected sides at most 4 : 1")
        return rounded[0], rounded[1]

    def _decoded(self, latents: NDArray[np.float32], reference: NDArray[np.float32]) -> Iterator[Picture]:
        for at in range(0, len(latents), DECODED):
            yield self._vision.decoded(torch.from_numpy(np.array(latents[at : at + DECODED])), reference)


class OursP(DiceTalkGenerator):
    """An emotion's prior is the mean over many videos of the training split. Where no emotion is known ("unlabelled"),
    it is that of neutral."""

    def __init__(self, model: Path, rife: Path, priors: Path, *, device: str = "cpu", **others: Any) -> None:
        super().__init__(model, rife, device=device, **others)
        self._priors = read(priors)
        if self._priors.embedder != self._embedded_by:
            raise GenerationError(
                f"{priors.name}: made with another embedder than {model.name} was trained on; expected those that "
                "`bench train dice-talk` left beside it"
            )

    def generate(self, request: Request) -> Iterator[Picture]:
        return self.animate(request, _steady(self.prior(request.emotion)))

    def prior(self, emotion: str) -> NDArray[np.float32]:
        """(prior,). Raises GenerationError for an emotion without one, and lists those that have."""
        found: NDArray[np.float32] = self._priors["neutral" if emotion == "unlabelled" else emotion][0]
        return found


class OursV(DiceTalkGenerator):
    """The prior is that of the request's emotion video. landmarker: for an embedder that sees blendshapes."""

    def __init__(
        self,
        model: Path,
        rife: Path,
        embedder: Path,
        *,
        whisper: Path | None = None,
        landmarker: Path | None = None,
        device: str = "cpu",
        **others: Any,
    ) -> None:
        super().__init__(model, rife, whisper=whisper, device=device, **others)
        files = {name: file for name, file in ((WHISPER, whisper), (LANDMARKER, landmarker)) if file is not None}
        self._embedder = embedding.load(embedder, others.get("preset", "full"), weights=files, device=device)
        if self._embedder.digest != self._embedded_by:
            raise GenerationError(f"{model.name}: trained on another embedder than {embedder.name}; train it anew")

    def generate(self, request: Request) -> Iterator[Picture]:
        if request.emotion_video is None:
            raise GenerationError("no video shows the emotion; expected a protocol that pairs one (emotion_video)")
        return self.animate(request, _steady(self._embedder(request.emotion_video).mean))


class Published(OursP):
    """The published DICE-Talk with its own priors: `priors` is one of the <emotion>.npy, the others lie beside."""

    def __init__(
        self,
        unet: Path,
        audio_linear: Path,
        emo_model: Path,
        pose_guider: Path,
        priors: Path,
        rife: Path,
        vae: Path,
        image_encoder: Path,
        whisper: Path,
        precision: Literal["no", "fp16"] = "no",
        device: str = "cpu",
    ) -> None:
        network, self.preset = checkpoints.published(unet, audio_linear, emo_model, pose_guider)
        self._open(network, WHISPER, rife, whisper, device, precision, None, None)
        self._vision = vision.pretrained(self.preset, vae, image_encoder, device)
        self._priors = read(priors.parent)


class Heard:
    """What each frame at 12.5 fps hears, (n, 10, layers, width), from features that lie in a file; silence beyond."""

    def __init__(self, speech: Speech, audio: NDArray[np.float32], frames: int) -> None:
        length = STEP * frames * PER_FRAME
        sound = np.pad(audio[:length], (0, max(0, length - len(audio))))
        rows = length * RATE // SAMPLE_RATE
        with tempfile.TemporaryFile() as file:  # the mapping outlives it
            shape = (rows + WINDOW, speech.layers, speech.width)
            self._features = np.memmap(file, np.float32, "w+", shape=shape)
        at = BEFORE
        for start in range(0, length, CHUNK):  # the front end hears so much at once
            found = speech(sound[start : start + CHUNK])
            self._features[at : at + len(found)] = found
            at += len(found)

    def __call__(self, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.stack([self._features[2 * STEP * i : 2 * STEP * i + WINDOW] for i in numbers])


def between(a: NDArray[np.float32], b: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """The prior on the line from a to b, as in Figure 4d."""
    return np.asarray((1 - share) * a + share * b, np.float32)


def changing(steps: Sequence[tuple[float, NDArray[np.float32]]]) -> Felt:
    """An emotion that changes: priors (prior,) at times in seconds, in their order, and on the line between."""
    times = np.array([time for time, _ in steps])
    stops = np.stack([prior for _, prior in steps])

    def felt(seconds: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        place = np.interp(seconds, times, np.arange(len(times)))
        low = np.minimum(place.astype(int), max(len(times) - 2, 0))
        share = (place - low)[:, None]
        return np.asarray((1 - share) * stops[low] + share * stops[np.minimum(low + 1, len(times) - 1)], np.float32)

    return felt


def doubled(chunks: Iterator[Picture], rife: Rife) -> Iterator[Picture]:
    """Twice the frame rate: chunks of n pictures to chunks of at most 2 n, with the picture between each two."""
    last: Picture | None = None
    for chunk in chunks:
        pictures = chunk if last is None else np.concatenate([last, chunk])
        made = np.empty((2 * len(pictures) - 1, *pictures.shape[1:]), np.uint8)
        made[::2], made[1::2] = pictures, rife.between(pictures[:-1], pictures[1:])
        yield made if last is None else made[1:]
        last = pictures[-1:]


def _steady(prior: NDArray[np.float32]) -> Felt:
    return lambda seconds: np.repeat(prior[None], len(seconds), 0)


def _fitted(picture: Picture, width: int, height: int) -> Picture:
    smaller = picture.shape[0] > height
    return np.asarray(
        cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC), np.uint8
    )


def _check(request: Request) -> None:
    picture = request.reference
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise GenerationError(f"reference of shape {picture.shape}, {picture.dtype}; expected (H, W, 3) uint8 RGB")
    if min(picture.shape[:2]) < SMALLEST:
        told = f"{picture.shape[1]}x{picture.shape[0]}"
        raise GenerationError(f"reference of {told} pixels; expected at least {SMALLEST} on a side")
    if request.points is None:
        raise GenerationError("no face mesh of the reference; prepared clips have one")
    if request.fps != FPS or request.sample_rate != SAMPLE_RATE:
        raise GenerationError(
            f"{request.fps:g} fps, {request.sample_rate} Hz; expected {FPS} and {SAMPLE_RATE}, as prepared clips have"
        )
