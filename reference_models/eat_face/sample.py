"""EAT-Face's sampling (Section III-E): all frames from one noise, by DDIM, a chunk of frames at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reference_models.base import CHUNK, FPS, SAMPLE_RATE, GenerationError, Request
from reference_models.detail import tolerance_of, with_detail
from reference_models.eat_face import data, model
from reference_models.eat_face.losses import joined
from reference_models.eat_face.networks import Networks, read
from reference_models.eat_face.presets import EMOTIONS, STEPS_EXPECTED, steps_fit

SMALLEST = 32  # px, of a reference's side
POINTS = 478
LOUDEST = 10.0  # far beyond what clipping and resampling add to 1


@torch.no_grad()
def ddim(
    networks: Networks,
    noise: Tensor,
    hidden: Tensor,
    reference: Tensor,
    speech: Tensor,
    tokens: Tensor | None,
    c_e: Tensor | None,
    steps: int,
) -> Tensor:
    """Latents (N, C, h, w) from noise of that shape; hidden, reference: z_m and z_r; speech (N, 3, D); tokens of the
    text, and c_e, where there are such."""
    schedule, weight = model.scheduler(networks.preset), networks.preset.guidance
    schedule.set_timesteps(steps, device=noise.device)
    context = networks.reconstructor.context(speech, tokens)
    silence = networks.reconstructor.context(torch.zeros_like(speech), tokens) if weight != 1 else None

    def predict(x_in: Tensor, at: Tensor, context: Tensor) -> Tensor:
        residuals = None
        if networks.controller is not None and c_e is not None:
            residuals = networks.controller(x_in, at, context, c_e)
        out: Tensor = networks.reconstructor(x_in, at, context, residuals).float()
        return out

    z = noise
    for t in schedule.timesteps:
        x_in, at = joined(z, hidden, reference), t.expand(len(z))
        predicted = predict(x_in, at, context)
        if silence is not None:
            unheard = predict(x_in, at, silence)
            predicted = unheard + weight * (predicted - unheard)
        z = schedule.step(predicted, t, z, eta=0.0).prev_sample
    return z


class EatFace:
    """The generator.

    pose        "reference": one-shot, the mask is of the reference, whose pose the video keeps; "target": masks of the
                real frames, for methods whose conditioning is "target-pose"
    vae, clip, wav2vec   the pretrained networks of the full preset
    rife        network that interpolates frames; where it is given and the preset says so, the video is smoothed
    ddim_steps  None: the preset's
    batch       frames sampled at once, at most CHUNK; changes no frame but for rounding
    detail      the tolerance of detail.with_detail, where a small autoencoder's pictures are to get back the
                portrait's detail; needs its pose
    precision   "no": float32
    """

    def __init__(
        self,
        preset: str,
        checkpoint: Path,
        pose: Literal["reference", "target"] = "reference",
        vae: Path | None = None,
        clip: Path | None = None,
        wav2vec: Path | None = None,
        rife: Path | None = None,
        ddim_steps: int | None = None,
        batch: int = CHUNK,
        detail: float | None = None,
        precision: Literal["no", "bf16"] = "no",
        device: str = "cpu",
    ) -> None:
        """Raises GenerationError for a checkpoint that does not fit."""
        weights = {"sd-vae": vae, "clip-vit-large-patch14": clip, "wav2vec2-base": wav2vec}
        self._networks = read(checkpoint, preset, weights, device)
        if type(batch) is not int or not 1 <= batch <= CHUNK:
            raise GenerationError(f"batch {batch!r}; expected 1 to {CHUNK}")
        if ddim_steps is not None and not (type(ddim_steps) is int and steps_fit(ddim_steps)):
            raise GenerationError(f"ddim_steps {ddim_steps!r}; expected {STEPS_EXPECTED}")
        if pose not in ("reference", "target") or precision not in ("no", "bf16"):
            raise GenerationError(f"pose {pose!r}, precision {precision!r}; expected reference or target, no or bf16")
        if detail is not None and pose != "reference":
            raise GenerationError(f"detail {detail} with pose {pose}; expected pose reference: the portrait's own")
        self._steps = ddim_steps or self._networks.preset.ddim_steps
        self._pose, self._batch, self._precision, self._device = pose, batch, precision, device
        self._detail = tolerance_of(detail)
        self._between: Any = None
        if rife is not None and self._networks.preset.smooth:
            from reference_models.rife import Rife

            network = Rife(rife, device)
            self._between = lambda one, other: network.between(one[None], other[None])[0]

    def generate(self, request: Request) -> Iterator[NDArray[np.uint8]]:
        """See reference_models.base.Generator."""
        check(request)
        frames = self._frames(request)
        if self._between is not None:
            frames = smoothed(frames, self._between)
        while chunk := list(islice(frames, CHUNK)):
            yield np.stack(chunk)

    @torch.no_grad()
    def _frames(self, request: Request) -> Iterator[NDArray[np.uint8]]:
        """Frames of the reference's size one by one."""
        networks, preset, device = self._networks, self._networks.preset, self._device
        height, width = request.reference.shape[:2]
        shown = data.to_tensor(data.resized(request.reference, preset.size, preset.size)[None]).to(device)
        box = model.boxes(mesh(request.points, 1), width, height).to(device)
        reference = networks.codec.encode(shown)
        drawn = None
        if self._detail is not None:
            drawn = data.resized(to_pictures(networks.codec.decode(reference))[0], width, height)
        calm = networks.pair.pictures(data.faces(shown, box, networks.pair.side))
        word = torch.tensor([EMOTIONS.index(request.emotion)], device=device)
        tokens, c_e = networks.condition(word, calm)
        speech = networks.speech.features(fitted(request.audio, request.num_frames))
        shape = (1, preset.latent_channels, preset.latent_side, preset.latent_side)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(request.seed)).to(device)
        cast = torch.autocast(torch.device(device).type, torch.bfloat16) if self._precision == "bf16" else nullcontext()
        for start, hidden in self._hidden(request, shown, box):
            count = len(hidden)
            heard = model.windows(speech, request.num_frames, torch.arange(start, start + count, device=device))
            with cast:
                z = ddim(
                    networks, noise.expand(count, -1, -1, -1), hidden, reference.expand(count, -1, -1, -1),
                    heard, _spread(tokens, count), _spread(c_e, count), self._steps,
                )  # fmt: skip
                pictures = networks.codec.decode(z)
            if not pictures.isfinite().all():
                raise GenerationError("the model's pictures are not finite; its checkpoint is damaged: train it anew")
            for picture in to_pictures(pictures):
                made = data.resized(picture, width, height)
                if drawn is not None and self._detail is not None:
                    made = with_detail(made, drawn, request.reference, self._detail)
                yield made

    def _hidden(self, request: Request, shown: Tensor, box: Tensor) -> Iterator[tuple[int, Tensor]]:
        """(number of the first frame, z_m (n, C, h, w)), a batch of frames at a time."""
        codec, preset, device = self._networks.codec, self._networks.preset, self._device
        if self._pose == "reference":
            one = codec.encode(model.masked(shown, box, preset.mask))
            for start in range(0, request.num_frames, self._batch):
                yield start, one.expand(min(self._batch, request.num_frames - start), -1, -1, -1)
            return
        frames, points = islice(request.target_frames(), request.num_frames), mesh(request.target_points)
        for start in range(0, request.num_frames, self._batch):
            count = min(self._batch, request.num_frames - start)
            real = list(islice(frames, count))
            if len(real) < count or len(points) < start + count:
                raise GenerationError(f"the real clip ends before frame {request.num_frames}; prepare it again")
            boxes = model.boxes(points[start : start + count], real[0].shape[1], real[0].shape[0]).to(device)
            pictures = data.to_tensor(np.stack([data.resized(frame, preset.size, preset.size) for frame in real])).to(
                device
            )
            yield start, codec.encode(model.masked(pictures, boxes, preset.mask))


def _spread(one: Tensor | None, count: int) -> Tensor | None:
    return None if one is None else one.expand(count, *one.shape[1:])


def check(request: Request) -> None:
    """Raises GenerationError for a request that EAT-Face cannot serve."""
    image = request.reference
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise GenerationError(f"reference {image.shape} {image.dtype}; expected (H, W, 3) uint8 RGB, without alpha")
    if min(image.shape[:2]) < SMALLEST:
        raise GenerationError(f"reference of {image.shape[1]}x{image.shape[0]}; expected {SMALLEST} px a side at least")
    if request.emotion not in EMOTIONS:
        raise GenerationError(f"emotion {request.emotion!r}; EAT-Face knows {', '.join(EMOTIONS)}")
    if request.sample_rate != SAMPLE_RATE or request.fps != FPS:
        raise GenerationError(
            f"{request.sample_rate} Hz and {request.fps:g} fps; expected {SAMPLE_RATE} Hz and {FPS} fps"
        )
    if request.audio.ndim != 1 or not len(request.audio) or not np.isfinite(request.audio).all():
        raise GenerationError(f"audio {request.audio.shape}; expected (n,) finite numbers, n at least 1")
    if (loudest := float(np.abs(request.audio).max())) > LOUDEST:
        raise GenerationError(f"audio with a sample of {loudest:.6g}; expected -1 to 1: of another scale?")
    if request.num_frames < 1:
        raise GenerationError(f"{request.num_frames} frames were asked for; expected 1 at least")


def mesh(points: Any, count: int | None = None) -> Tensor:
    """Face meshes as (N, 478, 3), one where count is 1. Raises GenerationError where there is no face."""
    found = None if points is None else np.asarray(points(), np.float32)
    if found is not None and count == 1:
        found = found[None] if found.ndim == 2 else found
    edges = [model.LEFT, model.RIGHT, model.TOP, model.BOTTOM]
    fits = found is not None and found.ndim == 3 and found.shape[1] == POINTS and found.shape[2] >= 2
    if found is None or not fits or len(found) != (count or len(found)) or not np.isfinite(found[:, edges]).all():
        raise GenerationError("there is no face mesh of the picture: EAT-Face needs exactly one face that is found")
    return torch.from_numpy(found)


def fitted(audio: NDArray[np.float32], frames: int) -> NDArray[np.float32]:
    """The sound cut, or lengthened by silence, to that many frames."""
    length = round(frames * SAMPLE_RATE / FPS)
    return np.pad(audio[:length], (0, max(0, length - len(audio))))


def to_pictures(shown: Tensor) -> NDArray[np.uint8]:
    """(n, 3, H, W) in [-1, 1] to (n, H, W, 3) uint8."""
    out: NDArray[np.uint8] = ((shown.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return out


def smoothed(frames: Iterator[NDArray[np.uint8]], between: Any) -> Iterator[NDArray[np.uint8]]:
    """Each frame from the interpolations to its two neighbours, so that jitter is evened out along the motion and their
    number stays (our reading of the paper's smoothing by [24]); the first and the last stay as they are."""
    before = next(frames, None)
    if before is None:
        return
    yield before
    middle = None
    for frame in frames:
        after = between(before, frame)
        if middle is not None:
            yield between(middle, after)
        before, middle = frame, after
    if middle is not None:
        yield before
