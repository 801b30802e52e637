"""Videos by the emotion-anchor transformer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reference_models import training
from reference_models.base import CHUNK, SAMPLE_RATE, GenerationError, Request
from reference_models.detail import tolerance_of, with_detail
from reference_models.emotion_anchor import audio, face
from reference_models.emotion_anchor.audio import Disentangler
from reference_models.emotion_anchor.data import evened
from reference_models.emotion_anchor.presets import EMOTIONS, MODEL, SPAN, restored
from reference_models.emotion_anchor.transformer import Autoregressor, Conditions
from reference_models.emotion_anchor.vqgan import visual

LEAST, MOST = 16, 8192  # px a side of the source
Picture = NDArray[np.uint8]


class EmotionAnchor:
    """The emotion comes from `emotion`: "audio", the sound of the emotional clip, or the driving one where there is
    none; or "word", the emotion's word. The face comes from `source`: the "frame" that was given, or each frame of the
    source "video" (conditioning target-pose). detail: the tolerance of detail.with_detail, where few tokens are to get
    back the source's detail."""

    def __init__(
        self,
        checkpoint: Path,
        preset: str = "full",
        emotion: Literal["audio", "word"] = "audio",
        source: Literal["frame", "video"] = "frame",
        detail: float | None = None,
        device: str = "cpu",
    ) -> None:
        """Raises GenerationError for a checkpoint of another model, preset or version, and unknown options."""
        for name, value, known in (("emotion", emotion, ("audio", "word")), ("source", source, ("frame", "video"))):
            if value not in known:
                raise GenerationError(f"{name} = {value!r}; expected {' or '.join(known)}")
        tensors, config = training.load(checkpoint, MODEL, preset)
        self._detail = tolerance_of(detail)
        self.preset = restored(config.get("configuration"), checkpoint.name)
        self._emotions, self._from, self._source, self._device = config.get("emotions", []), emotion, source, device
        p = self.preset
        self.audio = Disentangler(p.audio_channels, p.content, p.emotion, len(EMOTIONS))
        self.vqgan = visual(p)
        self.transformer = Autoregressor(p, torch.zeros(p.codes, p.code_width))
        for name in ("audio", "vqgan", "transformer"):
            network, stage = getattr(self, name), "vq" if name == "vqgan" else name
            own = {k.removeprefix(f"{stage}."): v for k, v in tensors.items() if k.startswith(f"{stage}.")}
            try:
                network.load_state_dict(own)
            except RuntimeError as error:
                reason = " ".join(str(error).split())[:120]
                raise GenerationError(
                    f"{checkpoint.name}: does not fit its own header ({reason}); train it anew"
                ) from error
            network.eval().requires_grad_(False).to(device)

    @torch.no_grad()
    def generate(self, request: Request) -> Iterator[Picture]:
        """See reference_models.base.Generator."""
        _check(request)
        found = audio.coefficients(request.audio, request.num_frames)
        content = audio.around(self.audio.codes(found)[0], SPAN)
        emotion = self._emotion(request, found)
        noise = None
        if self.preset.top_k > 1:
            generator = torch.Generator().manual_seed(request.seed)
            drawn = torch.rand(self.preset.tokens, self.preset.codes, generator=generator)
            noise = drawn.clamp(1e-7, 1 - 1e-7).to(self._device)
        faces = self._faces(request)
        for start in range(0, request.num_frames, CHUNK):
            near = content[start : start + CHUNK]
            shown = [next(faces) for _ in range(len(near))]
            source, mean, spread = self._tokens(shown)
            given = Conditions(source.expand(len(near), -1, -1), near, emotion.expand(len(near), -1, -1))
            codes = self.transformer.sample(given, self.preset.top_k, noise, guidance=self.preset.guidance)
            made = self._pasted(shown, self.vqgan.codebook.entries[codes], mean, spread)
            if self._detail is not None:
                left = self._pasted(shown[: len(source)], source, mean, spread)
                left *= len(near) // len(left)
                given_frames = (frame for frame, _ in shown)
                made = [with_detail(*one, self._detail) for one in zip(made, left, given_frames, strict=True)]
            yield np.stack(made)

    def _pasted(
        self, shown: list[tuple[Picture, face.Affine]], embeddings: Tensor, mean: Tensor, spread: Tensor
    ) -> list[Picture]:
        """The frames with what embeddings (N, n, d) draw in the faces' place."""
        side = self.preset.side
        drawn = self.vqgan.decode(embeddings.transpose(1, 2).reshape(len(embeddings), -1, side, side)) * spread + mean
        made = drawn.clamp(-1, 1).movedim(1, 3).cpu().numpy()
        squares = np.rint((made + 1) * 127.5).astype(np.uint8)
        return [face.paste(frame, square, where) for (frame, where), square in zip(shown, squares, strict=True)]

    def _emotion(self, request: Request, found: audio.Floats) -> Tensor:
        """Codes (SPAN, emotion) of the emotional sound or of the word."""
        if self._from == "word":
            if request.emotion not in self._emotions:
                raise GenerationError(
                    f"emotion {request.emotion!r}; this checkpoint was trained on {', '.join(self._emotions)}"
                )
            return self.transformer.spoken(torch.tensor([EMOTIONS.index(request.emotion)], device=self._device))[0]
        if request.emotion_video is not None:
            sound = request.emotion_video.audio()
            _check_sound(sound, "emotional sound")
            found = audio.coefficients(sound, request.emotion_video.num_frames)
        return audio.spans(self.audio.codes(found)[1], SPAN)

    def _faces(self, request: Request) -> Iterator[tuple[Picture, face.Affine]]:
        """Source frames and where their faces lie, one a frame of the video."""
        if self._source == "frame":
            if request.points is None:
                raise GenerationError("the portrait has no face mesh; expected one of 478 points")
            one = request.reference, face.upright(request.points(), self.preset.size)
            while True:
                yield one
        if request.target_points is None:
            raise GenerationError("the source video has no face mesh; expected 478 points a frame")
        count = 0
        for frame, points in zip(request.target_frames(), request.target_points(), strict=False):
            count += 1
            try:
                where = face.upright(points, self.preset.size)
            except GenerationError as error:
                raise GenerationError(f"frame {count} of the source video: {error}") from error
            yield frame, where
        raise GenerationError(f"the source video has {count} frames; {request.num_frames} were asked for")

    def _tokens(self, shown: list[tuple[Picture, face.Affine]]) -> tuple[Tensor, Tensor, Tensor]:
        """Quantised embeddings (N, n, d) of the faces and what evens them (N, 3, 1, 1); one face is looked at once."""
        different = shown[:1] if self._source == "frame" else shown
        cut = np.stack([face.cut(frame, where, self.preset.size) for frame, where in different])
        pictures = torch.from_numpy(cut).to(self._device).movedim(3, 1).float() / 127.5 - 1
        one = torch.ones((), device=pictures.device)
        pictures, mean, spread = evened(pictures, pictures) if self.preset.evened else (pictures, 0 * one, one)
        tokens = self.vqgan.tokens(pictures).flatten(1)
        return self.vqgan.codebook.entries[tokens], mean, spread


def _check(request: Request) -> None:
    if request.sample_rate != SAMPLE_RATE:
        raise GenerationError(f"sound of {request.sample_rate} Hz; expected {SAMPLE_RATE}, as prepared clips have")
    _check_sound(request.audio, "sound")
    if request.num_frames < 1:
        raise GenerationError(f"{request.num_frames} frames were asked for; expected 1 at least")
    if request.reference.ndim != 3 or request.reference.shape[2] != 3 or request.reference.dtype != np.uint8:
        raise GenerationError(
            f"a portrait of shape {request.reference.shape}, {request.reference.dtype}; expected 8-bit RGB"
        )
    height, width = request.reference.shape[:2]
    if not LEAST <= min(height, width) <= max(height, width) <= MOST:
        raise GenerationError(f"a portrait of {width} x {height} px; expected sides of {LEAST} to {MOST}")


def _check_sound(sound: audio.Floats, which: str) -> None:
    if sound.ndim != 1 or not len(sound) or not np.isfinite(sound).all():
        raise GenerationError(f"{which} of shape {sound.shape}, or not finite; expected one channel, not empty")
