"""The square around a face, turned upright: what the model sees and draws. All around it stays the source's."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reference_models.base import GenerationError

Pictures = NDArray[np.uint8]
Affine = NDArray[np.float64]  # (2, 3), maps pixels of a frame to pixels of the square

# Eyes, nose and temples: what speech and expressions move least.
RIGID = (33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 127, 356, 234, 454)
# Where those lie in a square of side 1, x and y: means over upright faces, the outer corners of the eyes 0.5 apart,
# and room for an open jaw.
TEMPLATE = (
    (0.250, 0.300), (0.404, 0.311), (0.595, 0.312), (0.750, 0.300), (0.499, 0.286), (0.499, 0.330), (0.498, 0.372),
    (0.498, 0.411), (0.498, 0.454), (0.498, 0.504), (0.112, 0.316), (0.883, 0.318), (0.117, 0.389), (0.880, 0.392),
)  # fmt: skip
FEATHER = 0.1  # of the side, over which the square fades into the frame
FINEST = 32
LEAST = 8.0  # px between the eyes' outer corners


def upright(points: NDArray[np.floating[Any]], size: int) -> Affine:
    """The similarity (least squares over the rigid points) that takes a face mesh (478, 2 or more) in px to a square of
    `size` px. Raises GenerationError where there is no face, or hardly one."""
    if points.shape[0] != 478 or not np.isfinite(points).all():
        raise GenerationError("found no face in the source; expected a portrait with one visible face")
    if (apart := float(np.hypot(*(points[33, :2] - points[263, :2])))) < LEAST:
        raise GenerationError(
            f"the source's eyes are {apart:.1f} px apart; expected {LEAST:.0f} at least: a larger picture"
        )
    seen = points[RIGID, 0].astype(np.float64) + 1j * points[RIGID, 1]
    wanted = np.array(TEMPLATE) @ (1, 1j) * size
    centred = seen - seen.mean()
    turn = (centred.conj() @ (wanted - wanted.mean())) / (centred.conj() @ centred).real
    shift = wanted.mean() - turn * seen.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def cut(frame: Pictures, to_square: Affine, size: int) -> Pictures:
    """The square (size, size, 3) of a frame (H, W, 3), each pixel a mean of those that it covers."""
    import cv2

    # A plain warp would take one pixel of many; beyond FINEST only a mesh far larger than its picture would go.
    finer = min(FINEST, max(1, round(1 / np.hypot(*to_square[:, 0]))))
    square = cv2.warpAffine(
        frame, to_square * finer, (size * finer, size * finer), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    small = cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


def paste(frame: Pictures, square: Pictures, to_square: Affine) -> Pictures:
    """The frame with the square in its place, which fades into it at the edges."""
    import cv2

    height, width = frame.shape[:2]
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    there = cv2.warpAffine(square, to_square, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    share = cv2.warpAffine(
        _window(len(square)), to_square, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )
    mixed = frame + share[:, :, None] * (there.astype(np.float32) - frame)
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


@cache
def _window(size: int) -> NDArray[np.float32]:
    """(size, size) 1 inside, falling to 0 at the edges."""
    edge = np.minimum(np.arange(size) + 0.5, size - np.arange(size) - 0.5) / (FEATHER * size)
    ramp = np.sin(np.clip(edge, 0, 1) * np.pi / 2) ** 2
    return np.outer(ramp, ramp).astype(np.float32)
