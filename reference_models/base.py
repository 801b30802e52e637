"""What a generator is given and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

CHUNK = 32  # the most frames a generator may yield at once, so that memory does not grow with the clip


@dataclass(frozen=True, slots=True)
class Request:
    """One video to make.

    reference     (H, W, 3) uint8 RGB, the portrait to animate
    audio         (n,) float32 mono in [-1, 1] at `sample_rate` Hz, the speech that drives it
    emotion       one of MEAD's eight words, or "unlabelled"
    intensity     MEAD's level 1-3 where known
    num_frames    frames to return, at `fps`
    seed          the only source of randomness
    target_frames the real clip, (H, W, 3) uint8 RGB frame by frame; only baselines and methods whose
                  conditioning is "target-pose" may read it
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


class Generator(Protocol):
    def generate(self, request: Request) -> Iterator[NDArray[np.uint8]]:
        """Yield chunks (t, H, W, 3) uint8 RGB with t <= CHUNK, `request.num_frames` frames in all."""
        ...
