"""Crops and masks, from landmarks alone.

square         EAT-Face (§ IV-A, "cropped into square size with the character's face centered"): a square of
               constant side, SQUARE times the larger side of the face box (the paper gives no scale; ours shows
               hair and chin), whose centre follows the face slowly.
portrait       DICE-Talk (released demo, toto222/DICE-Talk @a8a92b1): the face box expanded by half its width and
               height on each side, clamped to the picture, then squared; one box for the whole clip.
aligned        similarity transform of five points to a template, one transform for the whole clip.
aligned-frame  the same, a transform for each frame (removes head motion).

What a crop shows beyond the source picture repeats the picture's edge, and its share is recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from pipelines.faces import boxes, five_points

Points = NDArray[np.float32]
Crop = Literal["square", "portrait", "aligned", "aligned-frame"]
CROPS: tuple[Crop, ...] = ("square", "portrait", "aligned", "aligned-frame")
DEFAULT_SIZE: dict[str, int] = {"square": 256, "portrait": 512, "aligned": 256, "aligned-frame": 256}

SQUARE = 1.6
FOLLOW = 0.5  # s, standard deviation of the Gaussian that smooths the path of the square crop's centre

# Left eye, right eye, nose tip, mouth corners (left and right as the viewer sees them) of the ArcFace alignment,
# in pixels of 112x112 (insightface, `face_align.arcface_dst`).
ARCFACE_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]],
    np.float32,
)
# The same face smaller and a little above the middle: ArcFace's own crop cuts chin and hair.
PORTRAIT_TEMPLATE = ((ARCFACE_TEMPLATE / 112 - 0.5) * 0.62 + np.array([0.5, 0.47], np.float32)).astype(np.float32)


def similarity(points: Points, template: Points) -> NDArray[np.float64]:
    """Least-squares similarity (2, 3) that maps five `points` (5, 2) onto `template` (5, 2) (Umeyama 1991)."""
    source, target = np.asarray(points, np.float64), np.asarray(template, np.float64)
    ms, mt = source.mean(0), target.mean(0)
    s, t = source - ms, target - mt
    # In the plane a similarity is multiplication by one complex number.
    zs, zt = s[:, 0] + 1j * s[:, 1], t[:, 0] + 1j * t[:, 1]
    factor = np.vdot(zs, zt) / max(np.vdot(zs, zs).real, 1e-12)
    linear = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    return np.hstack([linear, (mt - linear @ ms)[:, None]])


def align(frame: NDArray[np.uint8], points: Points, template: Points, size: int) -> NDArray[np.uint8]:
    """(size, size, 3) crop of `frame` with five `points` (5, 2) moved onto `template` (5, 2, pixels of the crop).

    A plain linear warp, black outside the picture, whatever the scale: what face recognition networks are given by
    the reference (insightface, `face_align.norm_crop`), so that embeddings are comparable.
    """
    out: NDArray[np.uint8] = cv2.warpAffine(frame, similarity(points, template), (size, size))  # type: ignore[assignment]
    return out


def warp(frame: NDArray[np.uint8], matrix: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
    """Apply a (2, 3) similarity. A picture that shrinks is first halved by area averaging to the nearest power of
    two, so that fine texture does not alias and the linear warp is left with a factor of 0.7 to 1.4."""
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    factor = 2 ** max(0, round(-np.log2(scale)))
    if factor > 1:
        frame, corner = _needed(frame, matrix, size, factor)
        height, width = frame.shape[:2]
        to = (width // factor, height // factor)
        frame = cv2.resize(frame, to, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        # Pixel centres: x' = (x - corner + 0.5) / factor - 0.5.
        shift = corner + (factor - 1) / 2
        matrix = matrix @ np.array([[factor, 0, shift[0]], [0, factor, shift[1]], [0, 0, 1.0]])
    out: NDArray[np.uint8] = cv2.warpAffine(  # type: ignore[assignment]
        frame, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return out


def _needed(
    frame: NDArray[np.uint8], matrix: NDArray[np.float64], size: int, factor: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The part of the picture that the crop shows, in whole blocks of `factor` pixels, and its corner (x, y)."""
    corners = np.array([[0, 0, size, size], [0, size, 0, size]], np.float64)
    source = np.linalg.inv(matrix[:, :2]) @ (corners - matrix[:, 2:])
    most = np.array([frame.shape[1], frame.shape[0]]) // factor
    low = np.clip(np.floor(source.min(axis=1) / factor).astype(np.int64) - 2, 0, most - 1)
    high = np.clip(np.ceil(source.max(axis=1) / factor).astype(np.int64) + 2, low + 1, most)
    (left, top), (right, bottom) = low * factor, high * factor
    return frame[top:bottom, left:right], low * factor


class Cropper:
    """The crop of one clip: `cropper(frame, k)` cuts frame k to (size, size, 3), `cropper.points` are the
    landmarks (T, 478, 3) in pixels of the crop (z scaled alike).

    side     median side of the crop in source pixels
    padding  mean share of the crop outside the source picture
    """

    def __init__(self, crop: Crop, points: Points, picture: tuple[int, int], size: int, fps: float) -> None:
        width, height = picture
        self.size = size
        if crop in ("square", "portrait"):
            squares = _square(points, fps) if crop == "square" else _portrait(points, width, height)
            scale = size / squares[:, 2]
            self.matrices = np.zeros((len(points), 2, 3))
            self.matrices[:, 0, 0] = self.matrices[:, 1, 1] = scale
            # The square's corner is a pixel's corner, which lies half a pixel before its centre.
            self.matrices[:, :, 2] = (0.5 - squares[:, :2]) * scale[:, None] - 0.5
        else:
            five = five_points(points)
            if crop == "aligned":
                five = np.repeat(np.median(five, axis=0, keepdims=True), len(points), axis=0)
            self.matrices = np.stack([similarity(p, PORTRAIT_TEMPLATE * size) for p in five])
        matrices = self.matrices
        scales = np.hypot(matrices[:, 0, 0], matrices[:, 1, 0])
        self.side = float(np.median(size / scales))
        self.padding = float(np.mean([_outside(m, size, width, height) for m in matrices]))
        self.points = np.empty_like(points)
        self.points[..., :2] = (
            np.einsum("tij,tnj->tni", matrices[:, :, :2], points[..., :2].astype(np.float64)) + matrices[:, None, :, 2]
        )
        self.points[..., 2] = points[..., 2] * scales[:, None]

    def __call__(self, frame: NDArray[np.uint8], k: int) -> NDArray[np.uint8]:
        return warp(frame, self.matrices[k], self.size)


def _square(points: Points, fps: float) -> NDArray[np.float64]:
    """(T, 3) left, top, side in source pixels."""
    box = boxes(points).astype(np.float64)
    side = SQUARE * float(np.median(np.max(box[:, 2:] - box[:, :2], axis=1)))
    centre = gaussian_filter1d((box[:, :2] + box[:, 2:]) / 2, FOLLOW * fps, axis=0, mode="nearest")
    return np.column_stack([centre - side / 2, np.full(len(centre), side)])


def _portrait(points: Points, width: int, height: int) -> NDArray[np.float64]:
    left, top, right, bottom = np.median(boxes(points).astype(np.float64), axis=0)
    w, h = right - left, bottom - top
    left, right = max(0.0, left - w / 2), min(float(width), right + w / 2)
    top, bottom = max(0.0, top - h / 2), min(float(height), bottom + h / 2)
    side = min(right - left, bottom - top)  # squared inwards: the clamped box holds no more than the picture
    return np.tile([(left + right - side) / 2, (top + bottom - side) / 2, side], (len(points), 1))


def _outside(matrix: NDArray[np.float64], size: int, width: int, height: int) -> float:
    """Share of the crop's square outside the picture, on a 32x32 lattice."""
    lattice = (np.arange(32) + 0.5) / 32 * size
    x, y = np.meshgrid(lattice, lattice)
    inverse = np.linalg.inv(matrix[:, :2])
    sx, sy = inverse @ (np.stack([x.ravel(), y.ravel()]) - matrix[:, 2:])
    return float(np.mean((sx < 0) | (sy < 0) | (sx >= width) | (sy >= height)))


def eat_face_mask(points: Points, size: int) -> NDArray[np.bool_]:
    """EAT-Face's mask (§ III-B): the rectangle bounded by mesh points 127 and 356 (left, right), 151 and 152 (top,
    bottom). points (T, 478, 3) in pixels -> (T, size, size), True where the face is to be made."""
    sides = np.stack([points[:, 127, 0], points[:, 151, 1], points[:, 356, 0], points[:, 152, 1]], axis=1)
    return _rectangles(sides, size)


def dice_talk_mask(points: Points, size: int) -> NDArray[np.bool_]:
    """DICE-Talk's face mask: the face box enlarged by 1.1 about its centre, filled. Shapes as eat_face_mask."""
    box = boxes(points)
    centre, half = (box[:, :2] + box[:, 2:]) / 2, (box[:, 2:] - box[:, :2]) / 2 * 1.1
    return _rectangles(np.concatenate([centre - half, centre + half], axis=1), size)


def _rectangles(sides: Points, size: int) -> NDArray[np.bool_]:
    grid = np.arange(size) + 0.5
    x = (grid >= sides[:, 0:1]) & (grid < sides[:, 2:3])
    y = (grid >= sides[:, 1:2]) & (grid < sides[:, 3:4])
    out: NDArray[np.bool_] = y[:, :, None] & x[:, None, :]
    return out


MASKS: dict[str, Callable[[Points, int], NDArray[np.bool_]]] = {
    "eat-face": eat_face_mask,
    "dice-talk": dice_talk_mask,
}
