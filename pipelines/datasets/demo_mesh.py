"""The face mesh of the demo dataset: which points are what, its triangles, and bending a picture by it.

Coordinates are pixels of the SIZE x SIZE picture, x right and y down; 478 points of MediaPipe FaceMesh. A picture
is bent piecewise-affinely over triangles (FaceMesh's own inside the face, Delaunay around it): one map of
triangle numbers is drawn, and every pixel reads where its triangle came from.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from itertools import combinations
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Delaunay

from pipelines.faces import _solutions

SIZE = 384
Array = NDArray[np.floating[Any]]
Image = NDArray[np.uint8]

# FaceMesh points, right side of the person (left in the picture) first. Lips: four rings from the outer contour
# to the inner one, eleven columns from corner to corner; corners belong to both lips.
UPPER_LIP = np.array(
    [
        [61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291],
        [76, 184, 74, 73, 72, 11, 302, 303, 304, 408, 306],
        [62, 183, 42, 41, 38, 12, 268, 271, 272, 407, 292],
        [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308],
    ]
)
LOWER_LIP = np.array(
    [
        [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291],
        [76, 77, 90, 180, 85, 16, 315, 404, 320, 307, 306],
        [62, 96, 89, 179, 86, 15, 316, 403, 319, 325, 292],
        [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308],
    ]
)
LIPS = np.unique(np.concatenate([UPPER_LIP, LOWER_LIP]))
INNER = np.concatenate([UPPER_LIP[3], LOWER_LIP[3][-2:0:-1]])  # the opening, as a polygon
UPPER_LID = np.array([[246, 161, 160, 159, 158, 157, 173], [466, 388, 387, 386, 385, 384, 398]])
LOWER_LID = np.array([[7, 163, 144, 145, 153, 154, 155], [249, 390, 373, 374, 380, 381, 382]])
LID_FOLD = np.array([[247, 30, 29, 27, 28, 56, 190], [467, 260, 259, 257, 258, 286, 414]])
EYE_CORNERS = np.array([[33, 133], [263, 362]])  # outer, inner
BROWS = np.array([[46, 53, 52, 65, 55, 70, 63, 105, 66, 107], [276, 283, 282, 295, 285, 300, 293, 334, 296, 336]])
BROW_INNER = np.array([[55, 107], [285, 336]])
BROW_OUTER = np.array([[53, 63, 46, 70], [283, 293, 276, 300]])
NOSE_WINGS = np.array([[98, 64, 48], [327, 294, 278]])
SUBNASALE, CHIN, GLABELLA = 2, 152, 9
OVAL = np.array(
    [
        *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
        *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
    ]
)
EYES = np.concatenate([EYE_CORNERS, UPPER_LID, LOWER_LID], axis=1)


def _strip(upper: NDArray[np.int64], lower: NDArray[np.int64]) -> list[tuple[int, ...]]:
    """Triangles between two chains of points that share their ends."""
    quads = zip(upper, upper[1:], lower, lower[1:], strict=False)
    triangles = [t for a, b, c, d in quads for t in ((a, b, d), (a, d, c))]
    return [tuple(int(i) for i in t) for t in triangles if len(set(t)) == 3]


def _lids(eye: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    outer, inner = EYE_CORNERS[eye]
    return np.array([outer, *UPPER_LID[eye], inner]), np.array([outer, *LOWER_LID[eye], inner])


@lru_cache(maxsize=1)
def _skin_triangles() -> NDArray[np.int32]:
    """(852, 3) triangles of the FaceMesh surface, which has holes for the eyes and the mouth, from its edges."""
    near: dict[int, set[int]] = {}
    for a, b in _solutions().face_mesh.FACEMESH_TESSELATION:
        near.setdefault(a, set()).add(b)
        near.setdefault(b, set()).add(a)
    found = {tuple(sorted((a, b, c))) for a, others in near.items() for b in others for c in near[b] & others}
    # Three edges may also run around a triangle that is divided further: those belong to two others already.
    shares = Counter(edge for triangle in found for edge in combinations(triangle, 2))
    kept = [t for t in sorted(found) if any(shares[edge] <= 2 for edge in combinations(t, 2))]
    return np.array(kept, np.int32)


EYE_TRIANGLES = np.array(_strip(*_lids(0)) + _strip(*_lids(1)), np.int32)
MOUTH_TRIANGLES = np.array(_strip(UPPER_LIP[3], LOWER_LIP[3]), np.int32)


def _surround(points: Array) -> Array:
    """(n, 2) points around the face: a ring in the hair, which moves with the head, then the picture's border."""
    oval = points[OVAL, :2]
    middle = (oval.max(0) + oval.min(0)) / 2
    ring = middle + (oval[::2] - middle) * (1.5, 1.62)
    ring[:, 1] = np.minimum(ring[:, 1], 0.5 * (oval[:, 1].max() + SIZE))
    steps = np.linspace(-0.1, 1.1, 7)[:-1] * SIZE
    low, high = -0.1 * SIZE, 1.1 * SIZE
    border = np.concatenate(
        [
            np.stack([steps, np.full(6, low)], 1),
            np.stack([np.full(6, high), steps], 1),
            np.stack([-steps + SIZE, np.full(6, high)], 1),
            np.stack([np.full(6, low), -steps + SIZE], 1),
        ]
    )
    return np.concatenate([ring, border]).astype(np.float32)


def _outer_triangles(points: Array, surround: Array) -> NDArray[np.int32]:
    vertices = np.concatenate([points[OVAL, :2], surround])
    names = np.concatenate([OVAL, np.arange(len(surround)) + len(points)])
    triangles = Delaunay(vertices).simplices
    centres = vertices[triangles].mean(1)
    contour = points[OVAL, :2].astype(np.float32)
    outside = [cv2.pointPolygonTest(contour, (float(x), float(y)), False) < 0 for x, y in centres]
    chosen: NDArray[np.int32] = names[triangles[np.array(outside)]].astype(np.int32)
    return chosen


def triangulation(points: Array) -> tuple[NDArray[np.int32], Array]:
    """Triangles of the whole picture and the points (n, 2) around the face that they use: corners from 478 on are
    those. The last ones are EYE_TRIANGLES, then MOUTH_TRIANGLES."""
    around = _surround(points)
    return np.concatenate([_outer_triangles(points, around), _skin_triangles(), EYE_TRIANGLES, MOUTH_TRIANGLES]), around


@lru_cache(maxsize=1)
def _grid() -> Array:
    """(2, SIZE * SIZE) x and y of every pixel."""
    y, x = np.divmod(np.arange(SIZE * SIZE), SIZE)
    return np.stack([x, y]).astype(np.float32)


def remap(picture: NDArray[Any], where: Array, interpolation: int = cv2.INTER_LINEAR) -> NDArray[Any]:
    """`picture` (h, w, ...) read at `where` (SIZE, SIZE, 2); beyond its border the border goes on."""
    maps: Any = where
    out = cv2.remap(picture, maps, None, interpolation, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    return np.asarray(out)


def _cross(one: Array, other: Array) -> Array:
    area: Array = one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]
    return area


def sampling_map(source: Array, target: Array) -> Array:
    """(SIZE, SIZE, 2) float32: where in the source picture each pixel of the target comes from.

    source, target: (triangles, 3, 2) corners. Triangles that are turned over or thinner than a pixel lie under the
    others, as the rim of a sliver would read from far outside of it; those without area are left out.
    """
    first, second = target[:, 1] - target[:, 0], target[:, 2] - target[:, 0]
    area, before = _cross(first, second), _cross(source[:, 1] - source[:, 0], source[:, 2] - source[:, 0])
    under = (area * before <= 0) | (np.abs(area) < 2)
    drawn = np.flatnonzero(np.abs(area) > 0.1)
    numbers = np.zeros((SIZE, SIZE), np.int32)
    corners = np.rint(target * 16).astype(np.int32)
    for number in drawn[np.argsort(~under[drawn], kind="stable")].tolist():
        cv2.fillConvexPoly(numbers, corners[number], number, cv2.LINE_8, 4)
    inverse = np.stack([second[:, 1], -second[:, 0], -first[:, 1], first[:, 0]], 1)
    inverse /= np.where(np.abs(area) > 0.1, area, 1.0)[:, None]
    edges = np.stack([source[:, 1] - source[:, 0], source[:, 2] - source[:, 0]], 2)  # (triangles, xy, edge)
    linear = edges @ inverse.reshape(-1, 2, 2)
    offset = source[:, 0] - np.einsum("nij,nj->ni", linear, target[:, 0])
    table = np.ascontiguousarray(np.concatenate([linear.reshape(-1, 4), offset], 1).T, np.float32)
    (x, y), number = _grid(), numbers.ravel()
    out = np.empty((SIZE * SIZE, 2), np.float32)
    for axis in (0, 1):
        along_x, along_y, constant = table[2 * axis], table[2 * axis + 1], table[4 + axis]
        out[:, axis] = along_x[number] * x + along_y[number] * y + constant[number]
    return out.reshape(SIZE, SIZE, 2)


def smoothstep(x: Array | float) -> Array:
    """0 below 0, 1 above 1, and a smooth rise between."""
    x = np.clip(x, 0, 1)
    out: Array = np.asarray(x * x * (3 - 2 * x))
    return out


def eye_distance(points: Array) -> float:
    """Between the outer corners of the eyes: the unit of everything drawn or moved on a face."""
    return float(np.linalg.norm(points[263, :2] - points[33, :2]))


def spread(points: Array, moved: NDArray[np.int64], shift: Array, sigma: float) -> Array:
    """(478, 2): `shift` of the points `moved`, carried on to their surroundings under a Gaussian of `sigma` px."""
    distance = ((points[:, None, :2] - points[None, moved, :2]) ** 2).sum(-1)
    weight = np.exp(-distance / (2 * sigma**2))
    near = weight.max(1, keepdims=True)
    out: Array = (weight @ shift / np.maximum(weight.sum(1, keepdims=True), 1e-6) * near).astype(np.float32)
    out[moved] = shift
    return out


def above_eyes(points: Array) -> Array:
    """(478,) 1 at the brows and above, 0 at the eyes and below, so that brows leave the eyes alone."""
    unit = eye_distance(points)
    lids = points[UPPER_LID[:, 3], 1].mean()
    return smoothstep((lids - points[:, 1]) / (0.13 * unit))
