"""What a generator is given for one pair, and the contract that what it yields is held to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmark import footage, protocol
from benchmark.protocol import Pair
from pipelines import media
from reference_models.base import CHUNK, GenerationError, Request


def build(
    pair: Pair, donor: Pair, shown: Pair, seed: int, source: Path, emotion_source: Path, *, sees_target: bool
) -> Request:
    """What a generator is given for a pair: nothing is read of the real frames until it asks for them.

    donor, shown  pairs whose sound drives the video, and whose real frames may be read: the pair itself, or of a
                  baseline (benchmark.exchange) another one, cut or repeated to length
    source        folder of the prepared dataset; emotion_source: of the one with the emotion videos
    sees_target   whether the real frames may be read at all

    Raises media.MediaError and BenchError for clips that are missing or changed.
    """
    target, reference, emotion = pair.target, pair.reference, pair.emotion_video
    seen, heard = shown.target, donor.target
    assert reference is not None, "pairs without reference are never generated"
    whole = cache(partial(protocol.intact, dataset=source.name))
    audio = media.read_audio(whole(source / heard.audio, heard.audio_sha256), target.sample_rate)
    if heard is not target:
        audio = np.resize(audio, round(target.num_frames * target.sample_rate / target.fps))

    def allowed() -> None:
        if seen.still:
            raise GenerationError("there is no real video of a still portrait")
        if not sees_target:
            raise GenerationError("a one-shot method asked for the real frames; state conditioning = 'target-pose'")

    def target_frames() -> Iterator[NDArray[np.uint8]]:
        allowed()
        path = whole(source / seen.video, seen.sha256)
        return media.read_frames(path, seen.fps) if seen is target else _again(path, target.fps)

    def target_points() -> NDArray[np.float32]:
        allowed()
        return footage.points(seen, source)

    return Request(
        reference=protocol.first_frame(whole(source / reference.video, reference.sha256)),
        audio=audio,
        sample_rate=target.sample_rate,
        emotion=pair.prompt,
        intensity=target.intensity,
        num_frames=target.num_frames,
        fps=target.fps,
        seed=seed,
        target_frames=target_frames,
        points=lambda: footage.points(reference, source)[0],
        target_points=target_points,
        emotion_video=footage.footage(emotion, emotion_source) if emotion and not emotion.still else None,
        name=pair.pair_id,
    )


def _again(path: Path, fps: float) -> Iterator[NDArray[np.uint8]]:
    """The frames of a video over and over."""
    while True:
        yield from media.read_frames(path, fps)


def checked(chunks: Iterable[NDArray[np.uint8]], num_frames: int) -> Iterator[NDArray[np.uint8]]:
    """The frames of a generator's chunks one by one, held to the contract of reference_models.base.

    Raises GenerationError on another type, dtype or shape, odd or changing sides, or another number of frames.
    """
    count, size = 0, None
    for chunk in chunks:
        if not isinstance(chunk, np.ndarray) or chunk.dtype != np.uint8:
            kind = chunk.dtype if isinstance(chunk, np.ndarray) else type(chunk).__name__
            raise GenerationError(f"yielded {kind}; expected uint8 RGB, 0-255")
        if chunk.ndim != 4 or chunk.shape[3] != 3 or not 1 <= len(chunk) <= CHUNK:
            raise GenerationError(f"yielded shape {chunk.shape}; expected (t, H, W, 3) with t from 1 to {CHUNK}")
        size = size or chunk.shape[1:3]
        if chunk.shape[1:3] != size or size[0] % 2 or size[1] % 2:
            raise GenerationError(f"frames of {chunk.shape[1:3]}; expected even sides that stay at {size}")
        count += len(chunk)
        if count > num_frames:
            raise GenerationError(f"yielded {count} frames or more; {num_frames} were asked for")
        yield from chunk
    if count < num_frames:
        raise GenerationError(f"yielded {count} frames; {num_frames} were asked for")
