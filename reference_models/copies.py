"""What the tiny presets learn from: each clip also in other colours, slightly warped and at another pace; and the mouth
that a voice is to tell."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Pictures = NDArray[np.uint8]
Array = NDArray[np.float32]
SPREAD = 0.05  # about the standard deviation of a mouth's numbers


# Eyes, bridge and tip of the nose in the mesh, and where they lie in prepared pictures, x and y in fractions.
RIGID = (33, 133, 362, 263, 168, 6, 1, 2)
PLACES = ((0.325, 0.374), (0.434, 0.382), (0.568, 0.382), (0.678, 0.373), (0.5, 0.363), (0.5, 0.395), (0.5, 0.542),
          (0.5, 0.56))  # fmt: skip


def steadied(picture: Pictures, points: Array) -> tuple[Pictures, Array]:
    """A picture (H, H, 3) and its mesh (478, 3) in pixels, turned, scaled and moved so that eyes and nose lie at PLACES
    as nearly as may be: with the head's motion taken out, what is left to learn is the face's."""
    side = len(picture)
    there, here = np.array(PLACES, np.float64) * side, points[RIGID, :2].astype(np.float64)
    wanted, given = ((one - one.mean(0)) @ (1, 1j) for one in (there, here))
    turn = (given.conj() @ wanted) / (np.abs(given) ** 2).sum()
    matrix = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    warp = np.concatenate([matrix, (there.mean(0) - matrix @ here.mean(0))[:, None]], 1)
    moved = points.copy()
    moved[:, :2] = points[:, :2] @ matrix.T + warp[:, 2]
    made = cv2.warpAffine(picture, warp, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(made, np.uint8), moved


def altered(shown: Pictures, box: Array, rng: np.random.Generator) -> tuple[Pictures, Array]:
    """The pictures (n, H, W, 3) and masks (n, 4) in other colours, and slightly warped; one draw for all of them."""
    side = shown.shape[1]
    mix = np.eye(3) + rng.normal(0, 0.12, (3, 3))
    gains, offset = rng.uniform(0.7, 1.25, 3), rng.uniform(-20, 20, 3)
    colours = (mix / mix.sum(1, keepdims=True)) * gains[:, None]
    (sx, sy), angle, shift = rng.uniform(0.92, 1.1, 2), np.deg2rad(rng.uniform(-5, 5)), rng.uniform(-0.04, 0.04, 2)
    flip = -1 if rng.random() < 0.5 else 1
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag([flip * sx, sy])
    move = 0.5 + shift - turn @ [0.5, 0.5]  # of points in fractions of the picture
    warp = np.concatenate([turn, move[:, None] * side], 1)
    out = [
        cv2.warpAffine(one, warp, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        for one in shown
    ]
    tinted = np.clip(np.stack(out) @ colours.T + offset, 0, 255).astype(np.uint8)
    corners = np.stack([box[:, [a, b]] for a in (0, 2) for b in (1, 3)], 1) @ turn.T + move  # (n, 4, 2)
    moved = np.concatenate([corners.min(1), corners.max(1)], 1)
    return tinted, np.clip(moved, 0, 1).astype(np.float32)


def paced(audio: Array, copy: int) -> Array:
    """The sound of a copy: played faster or slower, which moves the voice. Its features are to be spread over the
    frames of the clip, which keep their place."""
    if not copy:
        return audio
    pace = np.random.default_rng([1, copy, 1]).uniform(0.87, 1.15)
    out: Array = np.interp(np.arange(0, len(audio), pace), np.arange(len(audio)), audio).astype(np.float32)
    return out


def mouth(points: Array) -> Array:
    """(N, 4) of a face mesh (N, 478, 3): opening of the lips within and without, width of the mouth, and depth of the
    chin, in heights of the face, less the clip's mean."""

    def distance(one: int, other: int) -> Array:
        found: Array = np.linalg.norm(points[:, one, :2] - points[:, other, :2], axis=1)
        return found

    # 13, 14 and 0, 17: the lips' inner and outer edges; 61, 291: the corners; 1: the nose; 152: the chin; 10: the
    # face's top
    shape = np.stack([distance(13, 14), distance(0, 17), distance(61, 291), distance(1, 152)], 1)
    shape = shape / distance(10, 1).mean()
    out: Array = (shape - shape.mean(0)).astype(np.float32)
    return out
