"""Rows that every table carries: what a perfect and what a lifeless generator would score."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from reference_models.base import CHUNK, Request


class GroundTruth:
    """The real clip itself, through the same encoder as every other method: the ceiling of the table. Where the
    method's file says so, the pictures are another person's."""

    def generate(self, request: Request) -> Iterator[NDArray[np.uint8]]:
        frames = islice(request.target_frames(), request.num_frames)
        while chunk := list(islice(frames, CHUNK)):
            yield np.stack(chunk)  # (t, H, W, 3)


class Still:
    """The reference image, held: no motion at all."""

    def generate(self, request: Request) -> Iterator[NDArray[np.uint8]]:
        for start in range(0, request.num_frames, CHUNK):
            length = min(CHUNK, request.num_frames - start)
            yield np.broadcast_to(request.reference, (length, *request.reference.shape))
