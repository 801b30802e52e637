"""What a generator is given and what it returns; what a model learns from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

CHUNK = 32  # the most frames a generator may yield at once, so that memory does not grow with the clip
FPS = 25  # of every prepared clip
SAMPLE_RATE = 16_000  # Hz, of every prepared clip


class GenerationError(Exception):
    """A request that a generator cannot serve, or files that do not fit it: one line, what was found and expected."""


@dataclass(frozen=True, slots=True)
class Footage:
    """A prepared clip, to learn from or to take an emotion from; its pictures and sound are read when asked for.

    emotion     one of MEAD's eight words, or another word of the dataset ("unlabelled", "calm")
    source      the raw video; several clips may be cut from one
    key         digest of the clip's pictures and sound: what is computed from it is stored under this
    num_frames  at FPS
    video       the clip's file
    frames      the pictures one by one, (H, W, 3) uint8 RGB
    points      (num_frames, 478, 3) float32 face mesh (MediaPipe's numbers) in pixels of the frames, depth too
    audio       (n,) float32 mono in [-1, 1] at SAMPLE_RATE
    """

    clip_id: str
    dataset: str
    identity: str
    emotion: str
    intensity: int | None
    sentence: str | None
    source: str
    key: str
    num_frames: int
    video: Path
    frames: Callable[[], Iterator[NDArray[np.uint8]]]
    points: Callable[[], NDArray[np.float32]]
    audio: Callable[[], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Request:
    """One video to make.

    reference      (H, W, 3) uint8 RGB, the portrait to animate
    audio          (n,) float32 mono in [-1, 1] at `sample_rate` Hz, the speech that drives it
    emotion        one of MEAD's eight words, or "unlabelled"
    intensity      MEAD's level 1-3 where known
    num_frames     frames to return, at `fps`
    seed           the only source of randomness
    target_frames  the real clip, (H, W, 3) uint8 RGB frame by frame; only baselines and methods whose
                   conditioning is "target-pose" may read it
    points         (478, 3) float32 face mesh of the reference in its pixels
    target_points  the real clip's face mesh, (num_frames, 478, 3) float32; for whom target_frames is
    emotion_video  another clip that shows the emotion, where there is one
    name           the pair's id, under which a user may have prepared files for somebody's method
    """

    reference: NDArray[np.uint8]
    audio: NDArray[np.float32]
    sample_rate: int
    emotion: str
    intensity: int | None
    num_frames: int
    fps: float
    seed: int
    target_frames: Callable[[], Iterator[NDArray[np.uint8]]]
    points: Callable[[], NDArray[np.float32]] | None = None
    target_points: Callable[[], NDArray[np.float32]] | None = None
    emotion_video: Footage | None = None
    name: str = ""


class Generator(Protocol):
    def generate(self, request: Request) -> Iterator[NDArray[np.uint8]]:
        """Yield chunks (t, H, W, 3) uint8 RGB with t <= CHUNK, `request.num_frames` frames in all. May raise
        GenerationError: the reason that the pair's row shows."""
        ...
