"""Faces of the demo dataset: two portraits, people morphed between them, and a face that moves by landmarks.

Coordinates are pixels of the SIZE x SIZE picture, x right and y down; 478 points of MediaPipe FaceMesh. A picture
is bent piecewise-affinely over triangles (FaceMesh's own inside the face, Delaunay around it): one map of
triangle numbers is drawn, and every pixel reads where its triangle came from.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Delaunay

from pipelines.faces import FaceMesh, _quiet, _solutions

SIZE = 384
Array = NDArray[np.float32]
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
    [10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377]
    + [152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109]
)
EYES = np.concatenate([EYE_CORNERS, UPPER_LID, LOWER_LID], axis=1)


@dataclass(frozen=True, slots=True)
class Look:
    """What makes a face. `shape` and `texture` are morph weights: 0 the astronaut, 1 Grace Hopper."""

    host: str  # portrait that gives hair, neck and clothes: "astronaut" or "hopper"
    eyes: str  # portrait that gives the eye region (Hopper's wears glasses; half a pair would be a ghost)
    shape: float
    texture: float
    mirror: bool
    skin: tuple[float, float, float]  # gains of R, G, B
    hair: tuple[float, float, float]
    clothes: tuple[float, float, float]
    backdrop: tuple[tuple[int, int, int], tuple[int, int, int]]  # RGB at the middle, at the corners
    light: float  # side light, -1 from the left to 1 from the right
    jaw: float = 1.0  # widths relative to the morph
    nose: float = 1.0
    mouth: float = 1.0
    brow: float = 0.0  # distance of the brows from the eyes, in eye distances
    zoom: float = 1.0


# ---------------------------------------------------------------------------------------------- portraits


@dataclass(frozen=True, slots=True)
class Portrait:
    """An upright portrait on the canvas: (SIZE, SIZE, 3) uint8, alpha of the person (SIZE, SIZE) in [0, 1],
    points (478, 3)."""

    image: Image
    alpha: Array
    points: Array


def _source(name: str) -> Image:
    if name == "astronaut":
        from skimage.data import astronaut

        picture: Image = astronaut()
        return picture
    from matplotlib.cbook import get_sample_data

    with get_sample_data("grace_hopper.jpg") as file:
        data = np.frombuffer(file.read(), np.uint8)
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


def _person(image: Image) -> Array:
    """Soft mask of the person, sharpened onto the edges of the picture by a guided filter."""
    with _quiet(), _solutions().selfie_segmentation.SelfieSegmentation(model_selection=0) as segmenter:
        mask = np.asarray(segmenter.process(image).segmentation_mask, np.float32)
    mask = cv2.ximgproc.guidedFilter(image, np.clip((mask - 0.35) / 0.4, 0, 1), 6, 80.0)
    alpha: Array = np.clip((mask - 0.25) / 0.65, 0, 1)
    return alpha


@lru_cache(maxsize=4)
def portrait(name: str, mirror: bool) -> Portrait:
    """A portrait turned upright and scaled so that its face oval has the same place and size as the other's."""
    source = _source(name)
    if mirror:
        source = np.ascontiguousarray(source[:, ::-1])
    mesh = FaceMesh()
    points = mesh(source)[0]
    mesh.close()
    oval = points[OVAL, :2]
    middle = (oval.max(0) + oval.min(0)) / 2
    across = points[[234, 127, 33, 133], :2].mean(0) - points[[454, 356, 263, 362], :2].mean(0)
    angle = np.arctan2(-across[1], -across[0])
    size = np.sqrt(cv2.contourArea(oval))
    scale = 0.375 * SIZE / size
    turn = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    matrix = np.hstack([turn, (np.array([0.5 * SIZE, 0.545 * SIZE]) - turn @ middle)[:, None]])
    image = cv2.warpAffine(source, matrix, (SIZE, SIZE), flags=cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE)
    if scale > 1:  # the astronaut's face is small: give back some of the edge that enlarging took
        image = cv2.addWeighted(image, 1.7, cv2.GaussianBlur(image, (0, 0), 1.8), -0.7, 0)
    moved = points.copy()
    moved[:, :2] = points[:, :2] @ turn.T + matrix[:, 2]
    moved[:, 2] = points[:, 2] * scale
    return Portrait(image, _person(image), moved)


# ---------------------------------------------------------------------------------------------- triangles


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
    return names[triangles[np.array(outside)]].astype(np.int32)


def sampling_map(source: Array, target: Array, triangles: NDArray[np.int32]) -> Array:
    """(SIZE, SIZE, 2) where in the source picture each pixel of the target comes from.

    source, target: (triangles, 3, 2) corners; later triangles lie over earlier ones. Triangles whose target has
    no area are left out.
    """
    numbers = np.zeros((SIZE, SIZE), np.int32)
    corners = np.rint(target * 16).astype(np.int32)
    first, second = target[:, 1] - target[:, 0], target[:, 2] - target[:, 0]
    area = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    safe = np.where(np.abs(area) < 1e-3, 1.0, area)
    for number in np.flatnonzero(np.abs(area) >= 1e-3).tolist():
        cv2.fillConvexPoly(numbers, corners[number], number, cv2.LINE_8, 4)
    inverse = np.stack([second[:, 1], -second[:, 0], -first[:, 1], first[:, 0]], 1) / safe[:, None]
    edges = np.stack([source[:, 1] - source[:, 0], source[:, 2] - source[:, 0]], 2)  # (n, xy, edge)
    linear = edges @ inverse.reshape(-1, 2, 2)
    offset = source[:, 0] - np.einsum("nij,nj->ni", linear, target[:, 0])
    table = np.concatenate([linear.reshape(-1, 4), offset], 1).astype(np.float32)
    pixel = np.take(table, numbers.ravel(), axis=0)
    y, x = np.divmod(np.arange(SIZE * SIZE, dtype=np.int32), SIZE)
    out = np.empty((SIZE * SIZE, 2), np.float32)
    out[:, 0] = pixel[:, 0] * x + pixel[:, 1] * y + pixel[:, 4]
    out[:, 1] = pixel[:, 2] * x + pixel[:, 3] * y + pixel[:, 5]
    return out.reshape(SIZE, SIZE, 2)


# ---------------------------------------------------------------------------------------------- people


def _smoothstep(x: Array) -> Array:
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _eye_distance(points: Array) -> float:
    """Between the outer corners of the eyes: the unit of everything drawn or moved on a face."""
    return float(np.linalg.norm(points[263, :2] - points[33, :2]))


def _spread(points: Array, moved: NDArray[np.int64], shift: Array, sigma: float) -> Array:
    """(478, 2): `shift` of the points `moved`, carried on to their surroundings under a Gaussian of `sigma` px."""
    distance = ((points[:, None, :2] - points[None, moved, :2]) ** 2).sum(-1)
    weight = np.exp(-distance / (2 * sigma**2))
    near = weight.max(1, keepdims=True)
    out: Array = (weight @ shift / np.maximum(weight.sum(1, keepdims=True), 1e-6) * near).astype(np.float32)
    out[moved] = shift
    return out


def _closed_lips(points: Array, width: float, thickness: float) -> Array:
    """(478, 2) shift that closes the mouth: its line halfway between the lips, level, of half-width `width` px."""
    xy = points[:, :2].astype(np.float64)
    upper, lower = xy[UPPER_LIP], xy[LOWER_LIP]  # (ring, column, 2)
    middle = (upper[3, 0] + upper[3, -1]) / 2
    height = 0.6 * upper[3, 5, 1] + 0.4 * lower[3, 5, 1]
    u = np.linspace(-1, 1, 11)
    u = np.sign(u) * np.abs(u) ** 0.9
    reach = 1 + np.array([0.09, 0.06, 0.03, 0.0])  # outer rings end further out
    out = xy.copy()
    for ring in (0, 1, 2, 3):
        x = middle[0] + width * reach[ring] * u
        line = height + 0.02 * width * (1 - u**2)
        up = thickness * (upper[3, :, 1] - upper[ring, :, 1])
        down = thickness * (lower[ring, :, 1] - lower[3, :, 1])
        taper = (1 - u**2) ** 0.25
        out[UPPER_LIP[ring]] = np.stack([x, line - (up + up[::-1]) / 2 * taper - 0.15 * (ring == 3) * taper], 1)
        out[LOWER_LIP[ring]] = np.stack([x, line + (down + down[::-1]) / 2 * taper + 0.15 * (ring == 3) * taper], 1)
        ends = UPPER_LIP[ring][[0, -1]]
        out[ends, 1] = height
    return _spread(points, LIPS, (out - xy)[LIPS], 0.16 * _eye_distance(points))


def neutral_shape(look: Look) -> Array:
    """(478, 3) points of the person at rest, mouth closed."""
    one, other = portrait("astronaut", look.mirror).points, portrait("hopper", look.mirror).points
    points = ((1 - look.shape) * one + look.shape * other).astype(np.float32)
    halves = [np.ptp(p[UPPER_LIP[3], 0]) / 2 for p in (one, other)]
    width = (1 - look.shape) * 0.84 * halves[0] + look.shape * halves[1]  # the astronaut smiles
    points[:, :2] += _closed_lips(points, width * look.mouth, 1.0 + 0.15 * (1 - look.shape))
    unit = _eye_distance(points)
    x, y = points[:, 0], points[:, 1]
    middle = points[GLABELLA, 0]
    below = _smoothstep((y - points[SUBNASALE, 1] + 0.2 * unit) / (points[CHIN, 1] - points[SUBNASALE, 1]))
    nose = np.exp(-(((x - middle) / (0.25 * unit)) ** 2) - ((y - points[4, 1]) / (0.22 * unit)) ** 2)
    points[:, 0] = middle + (x - middle) * (1 + (look.jaw - 1) * below) * (1 + (look.nose - 1) * nose)
    brows = np.concatenate(BROWS)
    lift = np.tile(np.array([0, -look.brow * unit], np.float32), (len(brows), 1))
    points[:, :2] += _spread(points, brows, lift, 0.08 * unit) * _above_eyes(points)[:, None]
    return points


def _above_eyes(points: Array) -> Array:
    """(478,) 1 at the brows and above, 0 at the eyes and below, so that brows leave the eyes alone."""
    unit = _eye_distance(points)
    lids = points[UPPER_LID[:, 3], 1].mean()
    return _smoothstep((lids - points[:, 1]) / (0.13 * unit))


def _full_triangles(points: Array) -> tuple[NDArray[np.int32], Array]:
    surround = _surround(points)
    outer = _outer_triangles(points, surround)
    return np.concatenate([outer, _skin_triangles(), EYE_TRIANGLES, MOUTH_TRIANGLES]), surround


def _bent(name: str, look: Look, shape: Array) -> tuple[Image, Array]:
    """The portrait `name` bent to `shape`: picture and alpha."""
    person = portrait(name, look.mirror)
    triangles, surround = _full_triangles(person.points)
    source = np.concatenate([person.points[:, :2], surround])
    target = np.concatenate([shape[:, :2], surround])
    where = sampling_map(source[triangles], target[triangles], triangles)
    picture = cv2.remap(person.image, where, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    alpha = cv2.remap(person.alpha, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return picture, alpha


def _filled(polygons: list[Array], feather: float) -> Array:
    mask = np.zeros((SIZE, SIZE), np.uint8)
    for polygon in polygons:
        cv2.fillPoly(mask, [np.rint(polygon * 16).astype(np.int32)], 255, cv2.LINE_8, 4)
    return (cv2.GaussianBlur(mask, (0, 0), feather) / 255.0).astype(np.float32)


def _skin_mask(shape: Array) -> Array:
    """The face from just above the brows to the chin, fading out inside its oval."""
    xy = shape[:, :2]
    unit = _eye_distance(shape)
    middle = xy[OVAL].mean(0)
    contour = middle + (xy[OVAL] - middle) * 0.93
    top = xy[np.concatenate(BROWS), 1].min() - 0.02 * unit
    contour[:, 1] = np.maximum(contour[:, 1], top)
    return _filled([contour], 0.045 * unit)


def _eye_mask(shape: Array) -> Array:
    """Brows, eyes and what glasses cover."""
    xy = shape[:, :2]
    unit = _eye_distance(shape)
    eyes = xy[EYES].mean(1)
    top = xy[np.concatenate(BROWS), 1].min() - 0.03 * unit
    left, right = eyes[0, 0] - 0.47 * unit, eyes[1, 0] + 0.47 * unit
    level = eyes[:, 1].mean() + 0.12 * unit
    band = np.array([[left, top], [right, top], [right, level], [left, level]])
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    circle = np.stack([np.cos(angle) * 0.36, np.sin(angle) * 0.34], 1) * unit
    return _filled([band, *(circle + eye + (0, 0.06 * unit) for eye in eyes)], 0.03 * unit)


def _matched(picture: Image, to: Image, mask: Array) -> Array:
    """`picture` with the mean and spread of the colours of `to` under `mask`, in CIE Lab; float RGB, 0 to 255."""
    one, other = (cv2.cvtColor(p.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for p in (picture, to))
    inside = mask > 0.9
    mean, spread = one[inside].mean(0), one[inside].std(0)
    goal, reach = other[inside].mean(0), other[inside].std(0)
    lab = (one - mean) * np.clip(reach / spread, 0.75, 1.3) + goal
    matched: Array = np.clip(cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_LAB2RGB), 0, 1) * 255
    return matched


def paint(look: Look, shape: Array) -> tuple[Image, Array]:
    """Texture of a person at rest: (SIZE, SIZE, 3) uint8 and alpha (SIZE, SIZE) in [0, 1]."""
    other = "hopper" if look.host == "astronaut" else "astronaut"
    base, alpha = _bent(look.host, look, shape)
    guest, _ = _bent(other, look, shape)
    skin, eyes = _skin_mask(shape), _eye_mask(shape)
    weight = look.texture if other == "hopper" else 1 - look.texture
    share = skin * weight * (1 - eyes)
    if look.eyes == other:
        share = share + eyes
    picture = base + share[..., None] * (_matched(guest, base, skin) - base)
    picture *= _tints(look, shape, skin)
    seam = np.concatenate([shape[UPPER_LIP[3], :2], shape[LOWER_LIP[3][::-1], :2]])
    line = np.zeros((SIZE, SIZE), np.uint8)
    cv2.polylines(line, [np.rint(seam * 16).astype(np.int32)], False, 255, 1, cv2.LINE_AA, 4)
    dark = cv2.GaussianBlur(line, (0, 0), 0.8)[..., None] / 255.0
    picture = picture * (1 - 0.6 * dark) + np.array([70, 25, 25]) * 0.6 * dark
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8), alpha


def _tints(look: Look, shape: Array, skin: Array) -> Array:
    """(SIZE, SIZE, 3) gains: skin, hair above and beside the face, clothes below it, light from one side."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    unit = _eye_distance(shape)
    chin = shape[CHIN, 1]
    clothes = _smoothstep((y - chin - 0.12 * unit) / (0.25 * unit)) * np.ones_like(skin)
    oval = _filled([shape[OVAL, :2]], 0.06 * unit)
    neck = np.exp(-(((x - shape[CHIN, 0]) / (0.75 * unit)) ** 2)) * _smoothstep((y - chin + 0.8 * unit) / (0.6 * unit))
    face = np.maximum(oval, neck * (1 - clothes))
    hair = (1 - face) * (1 - clothes)
    gains = sum(
        part[..., None] * np.array(gain, np.float32)
        for part, gain in ((face * (1 - clothes), look.skin), (hair, look.hair), (clothes, look.clothes))
    )
    side = 1 + 0.16 * look.light * np.tanh((x - shape[GLABELLA, 0]) / (0.6 * unit))
    lit: Array = gains * side[..., None]
    return lit


def backdrop(look: Look) -> Image:
    """(SIZE, SIZE, 3) uint8: a plain studio wall, lighter behind the head."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32) / SIZE - 0.5
    away = np.clip(np.hypot(x, y + 0.1) / 0.75, 0, 1)[..., None] ** 1.5
    middle, edge = (np.array(c, np.float32) for c in look.backdrop)
    return np.rint(middle + (edge - middle) * away).astype(np.uint8)


# ---------------------------------------------------------------------------------------------- movement

MOVES = (
    "open", "spread", "round", "close", "tuck",
    "smile", "frown", "sneer", "part",
    "brow_in", "brow_out", "brow_low", "brow_knit",
    "lid_close", "lid_wide", "squint",
)  # fmt: skip


def _movements(points: Array) -> Array:
    """(len(MOVES), 478, 2): what each movement at amount 1 adds to the points at rest, in pixels."""
    unit = _eye_distance(points)
    moves = {**_mouth_moves(points, unit), **_upper_moves(points, unit)}
    return np.stack([moves[name] for name in MOVES]).astype(np.float32)


def _mouth_moves(points: Array, unit: float) -> dict[str, Array]:
    xy = points[:, :2]
    middle, half = (xy[61] + xy[291]) / 2, float(xy[291, 0] - xy[61, 0]) / 2
    u = np.linspace(-1, 1, 11)
    bow = 1 - u**2
    ring = np.arange(4)[:, None] / 3  # 0 outer contour, 1 inner

    def lips(upper: tuple[Array, Array], lower: tuple[Array, Array], sigma: float) -> Array:
        shift = np.zeros((478, 2), np.float32)
        for indices, (dx, dy) in ((LOWER_LIP, lower), (UPPER_LIP, upper)):
            shift[indices, 0], shift[indices, 1] = np.broadcast_to(dx, (4, 11)), np.broadcast_to(dy, (4, 11))
        return _spread(points, LIPS, shift[LIPS] * unit, sigma * unit)

    none = np.zeros_like(u)
    inward = -0.035 * u
    jaw = lips((inward, -0.018 * bow + 0.035 * u**2), (inward, 0.20 * bow**0.75 + 0.035 * u**2), 0.10)
    # The jaw: all below the mouth goes down with it, the sides less.
    x, y = (xy[:, 0] - middle[0]) / unit, (xy[:, 1] - middle[1]) / unit
    chin = (points[CHIN, 1] - middle[1]) / unit
    width = 0.20 + 0.55 * np.clip(y / chin, 0, 1.2)
    drop = np.exp(-((x / width) ** 2)) * _smoothstep(y / 0.06) * 0.17
    others = np.setdiff1d(np.arange(478), LIPS)
    lower = others[y[others] > 0]
    jaw[lower] = np.stack([-0.05 * x[lower] * drop[lower] / 0.17, drop[lower]], 1) * unit

    smile = lips((0.12 * u, -0.10 * u**2 + 0.008), (0.12 * u, -0.10 * u**2 + 0.012 * bow), 0.20)
    cheeks = np.stack([(xy[EYES[i]].mean(0) + xy[[61, 291][i]]) / 2 for i in (0, 1)])
    lift = np.exp(-((xy[:, None] - cheeks) ** 2).sum(-1) / (2 * (0.17 * unit) ** 2)).max(1)
    smile[:, 1] -= 0.05 * unit * lift * (1 - _smoothstep((cheeks[:, 1].mean() - 0.22 * unit - xy[:, 1]) / (0.1 * unit)))
    sneer = lips((0.02 * u, -0.045 * (1 - 0.5 * u**2)), (none, 0.02 * u**2), 0.10)
    wings = np.concatenate(NOSE_WINGS)
    sneer += _spread(points, wings, np.tile(np.array([0, -0.03 * unit], np.float32), (len(wings), 1)), 0.07 * unit)
    return {
        "open": jaw,
        "spread": lips((0.075 * u, 0.010 * (1 - ring) * bow), (0.075 * u, -0.010 * (1 - ring) * bow), 0.14),
        "round": lips(
            (-0.42 * half / unit * u, -0.020 * (1 - ring) * bow),
            (-0.42 * half / unit * u, 0.028 * (1 - ring) * bow),
            0.16,
        ),
        "close": lips((none, 0.028 * (1 - ring) * bow), (none, -0.030 * (1 - ring) * bow), 0.06),
        "tuck": lips((none, -0.022 * bow), (none, (-0.035 + 0.015 * (1 - ring)) * bow), 0.08),
        "smile": smile,
        "frown": lips((-0.015 * u, 0.085 * u**2 - 0.012), (-0.015 * u, 0.085 * u**2 - 0.022 * bow), 0.16),
        "sneer": sneer,
        "part": lips((none, -0.030 * bow), (none, 0.035 * bow), 0.08),
    }


def _upper_moves(points: Array, unit: float) -> dict[str, Array]:
    xy = points[:, :2]
    above = _above_eyes(points)
    forehead = 1 - _smoothstep((xy[np.concatenate(BROWS), 1].min() - 0.10 * unit - xy[:, 1]) / (0.25 * unit))

    def brows(groups: NDArray[np.int64], across: float, reach: float, dx: float, dy: float) -> Array:
        out = np.zeros((478, 2), np.float32)
        for side, group in zip((1, -1), groups, strict=True):  # dx towards the middle of the face
            away = (xy - xy[group].mean(0)) / (across * unit, reach * unit)
            weight = np.exp(-(away**2).sum(1) / 2) * above * forehead
            out += weight[:, None] * np.array([side * dx, dy]) * unit
        return out

    close, wide, squint = (np.zeros((478, 2), np.float32) for _ in range(3))
    for eye in (0, 1):
        upper, lower, fold = UPPER_LID[eye], LOWER_LID[eye], LID_FOLD[eye]
        gap = xy[lower, 1] - xy[upper, 1]
        arch = np.sin(np.linspace(0.12, 0.88, 7) * np.pi)
        close[upper, 1], close[lower, 1], close[fold, 1] = 0.93 * gap, -0.04 * gap, 0.45 * gap
        wide[upper, 1], wide[lower, 1], wide[fold, 1] = -0.038 * unit * arch, 0.010 * unit * arch, -0.034 * unit * arch
        squint[upper, 1], squint[lower, 1] = 0.12 * gap, -0.28 * gap
        below = np.exp(-(((xy - xy[lower].mean(0) - (0, 0.06 * unit)) / (0.14 * unit, 0.05 * unit)) ** 2).sum(1) / 2)
        below[EYES[eye]] = 0
        squint[:, 1] -= 0.022 * unit * below
    return {
        "brow_in": brows(BROW_INNER, 0.13, 0.12, 0.015, -0.085),
        "brow_out": brows(BROW_OUTER, 0.16, 0.12, 0.0, -0.075),
        "brow_low": brows(BROW_INNER, 0.17, 0.10, 0.0, 0.065) + brows(BROW_OUTER, 0.14, 0.10, 0.0, 0.012),
        "brow_knit": brows(BROW_INNER, 0.12, 0.10, 0.045, 0.0),
        "lid_close": close,
        "lid_wide": wide,
        "squint": squint,
    }


@dataclass(frozen=True, slots=True)
class Pose:
    """Where the head is: turns in radians (yaw to the viewer's right, pitch down, roll clockwise), shift in
    pixels, and scale."""

    yaw: float
    pitch: float
    roll: float
    x: float
    y: float
    scale: float


class Face:
    """A person ready to move. Making one takes 0.1 s, and 1 s for the first of a process (the portraits)."""

    def __init__(self, look: Look) -> None:
        self.look = look
        self.rest = neutral_shape(look)
        self.unit = _eye_distance(self.rest)
        self._moves = _movements(self.rest)
        texture, alpha = paint(look, self.rest)
        self._texture = np.dstack([np.rint(texture * alpha[..., None]), np.rint(alpha * 255)]).astype(np.uint8)
        self._wall = backdrop(look)
        self._surround = _surround(self.rest)
        outer = _outer_triangles(self.rest, self._surround)
        self._triangles = np.concatenate([outer, _skin_triangles(), EYE_TRIANGLES, MOUTH_TRIANGLES])
        self._eyes = slice(len(self._triangles) - len(EYE_TRIANGLES) - len(MOUTH_TRIANGLES), -len(MOUTH_TRIANGLES))
        self._source = np.concatenate([self.rest[:, :2], self._surround])
        oval = self.rest[OVAL]
        self._pivot = np.array([oval[:, 0].mean(), self.rest[CHIN, 1], 0.45 * self.unit], np.float32)
        self._teeth = _teeth(look.mirror)

    def draw(self, moves: Array, pose: Pose, tongue: float = 0.0) -> Image:
        """One frame, (SIZE, SIZE, 3) uint8 RGB. moves: (len(MOVES),) amounts; tongue: 0 to 1, tip up."""
        shift = np.tensordot(moves, self._moves, 1)
        shift[UPPER_LIP[3], 1], shift[LOWER_LIP[3], 1] = _apart(self.rest, shift)
        points = self.rest.copy()
        points[:, :2] += shift
        head = self._posed(points, pose, 1.0)
        still = np.column_stack([self._surround, np.full(len(self._surround), 0.3 * self.unit, np.float32)])
        loose = np.clip((1.02 * SIZE - self._surround[:, 1]) / (SIZE - self.rest[CHIN, 1]), 0, 1)
        around = self._surround + loose[:, None] * (self._posed(still, pose, 1.0) - self._surround)
        target = np.concatenate([head, around])

        source = self._source[self._triangles]
        # The eyeball does not move with the lids: what a lid uncovers or covers is cut, not squeezed.
        eyes = self._triangles[self._eyes]
        seen = self._source[:478] + _covering(shift)
        source[self._eyes] = seen[eyes]
        where = sampling_map(source, target[self._triangles], self._triangles)
        body = cv2.remap(self._texture, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        rgb = cv2.merge(
            [
                cv2.add(layer, cv2.multiply(wall, cv2.bitwise_not(body[..., 3]), scale=1 / 255))
                for layer, wall in zip(cv2.split(body)[:3], cv2.split(self._wall), strict=True)
            ]
        )
        self._fill_mouth(rgb, head, shift, pose, tongue)
        return rgb

    def _posed(self, points: Array, pose: Pose, amount: float) -> Array:
        """(n, 3) -> (n, 2): turned around the neck and projected along z."""
        cy, sy, cp, sp, cr, sr = (f(a) for a in (pose.yaw, pose.pitch, pose.roll) for f in (np.cos, np.sin))
        x, y, z = (points - self._pivot).T
        x, z = cy * x - sy * z, sy * x + cy * z
        y = cp * y - sp * z
        x, y = cr * x - sr * y, sr * x + cr * y
        turned = np.stack([x, y], 1) * pose.scale * self.look.zoom
        out: Array = (self._pivot[:2] + turned + (pose.x, pose.y)).astype(np.float32)
        return out

    def _fill_mouth(self, rgb: Image, head: Array, shift: Array, pose: Pose, tongue: float) -> None:
        """Draw cavity, teeth and tongue between the lips, in place."""
        opening = head[INNER]
        low, high = np.floor(opening.min(0)).astype(int) - 2, np.ceil(opening.max(0)).astype(int) + 3
        if np.ptp(opening[:, 1]) < 1.0 or low.min() < 0 or high.max() > SIZE:
            return
        y, x = np.mgrid[low[1] : high[1], low[0] : high[0]].astype(np.float32)
        mask = np.zeros(x.shape, np.uint8)
        cv2.fillPoly(mask, [np.rint((opening - low) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        cover = cv2.GaussianBlur(mask, (0, 0), 0.7)[..., None] / np.float32(255)

        scale = self.unit * pose.scale * self.look.zoom
        anchor = self._posed(self.rest[UPPER_LIP[3][5]][None], pose, 1.0)[0]
        cr, sr = np.cos(pose.roll), np.sin(pose.roll)
        across = ((cr * (x - anchor[0]) + sr * (y - anchor[1])) / scale).astype(np.float32)
        down = ((-sr * (x - anchor[0]) + cr * (y - anchor[1])) / scale).astype(np.float32)
        lip = float(shift[LOWER_LIP[3][5], 1]) / self.unit
        inside = _mouth_interior(across, down, lip, tongue, self._teeth, np.array(self.look.skin, np.float32))
        top = np.interp(x[0], opening[:11, 0], opening[:11, 1]).astype(np.float32)
        shade = np.clip(0.45 + (y - top) / (0.055 * scale), 0.45, 1.0)  # the upper lip's shadow
        patch = rgb[low[1] : high[1], low[0] : high[0]]
        patch[:] = np.rint(patch + cover * (inside * shade[..., None] - patch)).astype(np.uint8)


def _apart(rest: Array, shift: Array) -> tuple[Array, Array]:
    """Vertical shifts of the inner lips, kept from passing through each other."""
    upper, lower = shift[UPPER_LIP[3], 1], shift[LOWER_LIP[3], 1]
    overlap = np.maximum((rest[UPPER_LIP[3], 1] + upper) - (rest[LOWER_LIP[3], 1] + lower) + 0.2, 0)
    return upper - 0.3 * overlap, lower + 0.7 * overlap


def _covering(shift: Array) -> Array:
    """(478, 2) the part of `shift` by which lids close over the eye; zero where they open."""
    out = np.zeros_like(shift)
    uppers, lowers = UPPER_LID.ravel(), LOWER_LID.ravel()
    out[uppers, 1] = np.maximum(shift[uppers, 1], 0)
    out[lowers, 1] = np.minimum(shift[lowers, 1], 0)
    return out


@lru_cache(maxsize=2)
def _teeth(mirror: bool) -> Array:
    """(32, 96, 3) the astronaut's upper teeth, straightened: rows from gum to edge, columns across the smile."""
    person = portrait("astronaut", mirror)
    upper, lower = person.points[UPPER_LIP[3], :2], person.points[LOWER_LIP[3], :2]
    columns = np.linspace(upper[1, 0], upper[-2, 0], 96)
    top = np.interp(columns, upper[:, 0], upper[:, 1]) + 0.6
    edge = np.interp(columns, lower[:, 0], lower[:, 1]) - 1.2
    rows = np.linspace(0.08, 1, 32)[:, None]
    where_y = top + rows * np.maximum(edge - top, 1)
    where_x = np.broadcast_to(columns, where_y.shape)
    strip = cv2.remap(person.image, where_x.astype(np.float32), where_y.astype(np.float32), cv2.INTER_CUBIC)
    return strip.astype(np.float32)


def _mouth_interior(across: Array, down: Array, lip: float, tongue: float, teeth: Array, tone: Array) -> Array:
    """(h, w, 3) colours, 0 to 255. across, down: (h, w) from the middle of the closed mouth, in eye distances,
    fixed to the skull; lip: how far the lower lip has gone down, likewise."""
    depth = np.clip(down / 0.20, 0, 1)[..., None]
    colour = np.array([52, 16, 18], np.float32) * (1 - 0.35 * depth)

    # Tongue: a mound on the floor of the mouth, its tip raised behind the teeth for t, d, n, l.
    crest = lip - 0.045 - 0.07 * tongue * min(lip / 0.08, 1.0)
    mound = (down - crest) / 0.05 - (across / 0.16) ** 2
    body = _smoothstep(mound * 1.2 + 0.5)[..., None]
    flesh = np.array([168, 82, 84], np.float32) * (0.55 + 0.35 * np.clip(mound, 0, 1))[..., None]
    colour = colour + body * (flesh - colour)

    # Lower teeth, fixed to the jaw: a sliver above the lower lip, darker than the upper ones.
    half = 0.185
    u = across / half
    strip_x = (np.clip(u, -1, 1) + 1) / 2 * (teeth.shape[1] - 1)
    rise = (lip - down) / 0.035
    low = _smoothstep((1.0 - rise) * 3) * _smoothstep((1 - np.abs(u) / 0.75) * 5) * _smoothstep((lip - 0.07) / 0.05)
    lower = cv2.remap(teeth, strip_x, np.clip(rise, 0, 1).astype(np.float32) * 20, cv2.INTER_LINEAR)
    colour = colour + (0.85 * low)[..., None] * (lower * 0.62 - colour)

    # Upper teeth hang from the skull, their edge an arc that rises to the corners, darker as they recede.
    height = 0.075 - 0.045 * u**2
    v = (down + 0.035) / np.maximum(height + 0.035, 0.02)
    shown = _smoothstep((1.0 - v) * 9) * _smoothstep((1 - np.abs(u)) * 6)
    upper = cv2.remap(teeth, strip_x, (np.clip(v, 0, 1) * (teeth.shape[0] - 1)).astype(np.float32), cv2.INTER_LINEAR)
    lit = (0.97 - 0.45 * u**2)[..., None] * (0.5 + 0.5 * tone)
    out: Array = colour + shown[..., None] * (upper * lit - colour)
    return out
