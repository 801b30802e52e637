"""People of the demo dataset: two portraits, and everybody morphed between them, at rest and painted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from pipelines.datasets.demo_mesh import (
    BROW_INNER,
    BROWS,
    CHIN,
    EYES,
    GLABELLA,
    LIPS,
    LOWER_LIP,
    OVAL,
    SIZE,
    SUBNASALE,
    UPPER_LIP,
    Array,
    Image,
    above_eyes,
    eye_distance,
    remap,
    sampling_map,
    smoothstep,
    spread,
    triangulation,
)
from pipelines.faces import FaceMesh, _quiet, _solutions


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


@dataclass(frozen=True, slots=True)
class Portrait:
    """An upright portrait on the canvas: (SIZE, SIZE, 3) uint8, alpha of the person (SIZE, SIZE) in [0, 1],
    points (478, 3)."""

    image: Image
    alpha: Array
    points: Array


def _source(name: str) -> Image:
    if name == "astronaut":
        import skimage.data

        return np.asarray(skimage.data.astronaut(), np.uint8)  # type: ignore[no-untyped-call]
    from matplotlib.cbook import get_sample_data

    picture = cv2.imread(str(get_sample_data("grace_hopper.jpg", asfileobj=False)), cv2.IMREAD_COLOR)
    return np.ascontiguousarray(np.asarray(picture, np.uint8)[..., ::-1])


def _person(image: Image) -> Array:
    """Soft mask of the person, sharpened onto the edges of the picture by a guided filter."""
    with _quiet(), _solutions().selfie_segmentation.SelfieSegmentation(model_selection=0) as segmenter:
        mask = np.asarray(segmenter.process(image).segmentation_mask, np.float32)
    guided = np.asarray(cv2.ximgproc.guidedFilter(image, np.clip((mask - 0.5) / 0.4, 0, 1), 5, 60.0), np.float32)
    alpha: Array = np.clip((guided - 0.35) / 0.5, 0, 1)
    return alpha


def _points(image: Image) -> Array:
    """(478, 3) of the one face in a picture."""
    mesh = FaceMesh()
    points = mesh(image)[0]
    mesh.close()
    return points


@lru_cache(maxsize=4)
def portrait(name: str, mirror: bool) -> Portrait:
    """A portrait turned upright and scaled so that its face oval has the same place and size as the other's."""
    if mirror:
        plain = portrait(name, False)
        image = np.ascontiguousarray(plain.image[:, ::-1])
        return Portrait(image, np.ascontiguousarray(plain.alpha[:, ::-1]), _points(image))
    source = _source(name)
    points = _points(source)
    oval = points[OVAL, :2]
    middle = (oval.max(0) + oval.min(0)) / 2
    across = points[[454, 356, 263, 362], :2].mean(0) - points[[234, 127, 33, 133], :2].mean(0)
    angle = np.arctan2(across[1], across[0])
    scale = 0.375 * SIZE / np.sqrt(cv2.contourArea(oval))
    turn = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    matrix = np.hstack([turn, (np.array([0.5 * SIZE, 0.545 * SIZE]) - turn @ middle)[:, None]])
    image = np.asarray(
        cv2.warpAffine(source, matrix, (SIZE, SIZE), flags=cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE),
        np.uint8,
    )
    if scale > 1:  # the astronaut's face is small: give back some of the edge that enlarging took
        image = np.asarray(cv2.addWeighted(image, 1.7, cv2.GaussianBlur(image, (0, 0), 1.8), -0.7, 0), np.uint8)
    moved = np.concatenate([points[:, :2] @ turn.T + matrix[:, 2], scale * points[:, 2:]], axis=1)
    return Portrait(image, _person(image), moved.astype(np.float32))


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
    return spread(points, LIPS, (out - xy)[LIPS], 0.16 * eye_distance(points))


def neutral_shape(look: Look) -> Array:
    """(478, 3) points of the person at rest, mouth closed."""
    one, other = portrait("astronaut", look.mirror).points, portrait("hopper", look.mirror).points
    points = ((1 - look.shape) * one + look.shape * other).astype(np.float32)
    halves = [np.ptp(p[UPPER_LIP[3], 0]) / 2 for p in (one, other)]
    width = (1 - look.shape) * 0.84 * halves[0] + look.shape * halves[1]  # the astronaut smiles
    points[:, :2] += _closed_lips(points, width * look.mouth, 1.0 + 0.15 * (1 - look.shape))
    unit = eye_distance(points)
    x, y = points[:, 0], points[:, 1]
    middle = points[GLABELLA, 0]
    below = smoothstep((y - points[SUBNASALE, 1] + 0.2 * unit) / (points[CHIN, 1] - points[SUBNASALE, 1]))
    nose = np.exp(-(((x - middle) / (0.25 * unit)) ** 2) - ((y - points[4, 1]) / (0.22 * unit)) ** 2)
    points[:, 0] = middle + (x - middle) * (1 + (look.jaw - 1) * below) * (1 + (look.nose - 1) * nose)
    brows = np.concatenate(BROWS)
    lift = np.tile(np.array([0, -look.brow * unit], np.float32), (len(brows), 1))
    points[:, :2] += spread(points, brows, lift, 0.08 * unit) * above_eyes(points)[:, None]
    return points


def _bent(name: str, look: Look, shape: Array) -> tuple[Image, Array]:
    """The portrait `name` bent to `shape`: picture and alpha."""
    person = portrait(name, look.mirror)
    triangles, around = triangulation(person.points)
    source = np.concatenate([person.points[:, :2], around])
    target = np.concatenate([shape[:, :2], around])
    where = sampling_map(source[triangles], target[triangles])
    picture = remap(person.image, where, cv2.INTER_CUBIC)
    alpha = remap(person.alpha, where)
    return picture, alpha


def _filled(polygons: list[Array], feather: float) -> Array:
    mask = np.zeros((SIZE, SIZE), np.uint8)
    for polygon in polygons:
        cv2.fillPoly(mask, [np.rint(polygon * 16).astype(np.int32)], 255, cv2.LINE_8, 4)
    return (cv2.GaussianBlur(mask, (0, 0), feather) / 255.0).astype(np.float32)


def _skin_mask(shape: Array) -> Array:
    """The face from just above the brows to the chin, fading out inside its oval."""
    xy = shape[:, :2]
    unit = eye_distance(shape)
    middle = xy[OVAL].mean(0)
    contour = middle + (xy[OVAL] - middle) * 0.93
    top = xy[np.concatenate(BROWS), 1].min() - 0.02 * unit
    contour[:, 1] = np.maximum(contour[:, 1], top)
    return _filled([contour], 0.045 * unit)


def _eye_mask(shape: Array) -> Array:
    """Brows, eyes and what glasses cover."""
    xy = shape[:, :2]
    unit = eye_distance(shape)
    eyes = xy[EYES].mean(1)
    top = xy[np.concatenate(BROWS), 1].min() - 0.03 * unit
    left, right = eyes[0, 0] - 0.47 * unit, eyes[1, 0] + 0.47 * unit
    level = eyes[:, 1].mean() + 0.12 * unit
    band = np.array([[left, top], [right, top], [right, level], [left, level]])
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    circle = np.stack([np.cos(angle) * 0.36, np.sin(angle) * 0.34], 1) * unit
    return _filled([band, *(circle + eye + (0, 0.06 * unit) for eye in eyes)], 0.03 * unit)


def _matched(picture: Image, to: Image, mask: Array) -> Array:
    """`picture` with the mean colour of `to` under `mask`: a gain for each channel that eases off towards white,
    so that dark stays dark and highlights do not burn. Float, 0 to 255."""
    inside = mask > 0.9
    light, goal = picture / 255.0, to[inside].mean(0) / 255
    gain = np.ones(3)
    for _ in range(30):  # a fixed point: the mean grows with the gain
        gain *= goal / (gain * light[inside] / (1 + (gain - 1) * light[inside])).mean(0)
    matched: Array = 255 * gain * light / (1 + (gain - 1) * light)
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
    mixed = base + share[..., None] * (_matched(guest, base, skin) - base)
    picture: Array = mixed * _tints(look, base, shape)
    seam = np.concatenate([shape[UPPER_LIP[3], :2], shape[LOWER_LIP[3][::-1], :2]])
    line = np.zeros((SIZE, SIZE), np.uint8)
    cv2.polylines(line, [np.rint(seam * 16).astype(np.int32)], False, 255, 1, cv2.LINE_AA, 4)
    dark = cv2.GaussianBlur(line, (0, 0), 0.8)[..., None] / 255.0
    picture = picture * (1 - 0.6 * dark) + np.array([70, 25, 25]) * 0.6 * dark
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8), alpha


def skin_likeness(picture: Image, shape: Array) -> Array:
    """(SIZE, SIZE) 1 where the colour is that of the cheeks and nose, 0 where it is far from it, blurred a little."""
    lab = cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    inside = (_skin_mask(shape) > 0.9) & (_eye_mask(shape) < 0.1)
    away = (lab - np.median(lab[inside], axis=0)) / (26, 11, 11)
    near = np.exp(-(away**2).sum(-1) / 2).astype(np.float32)
    soft = np.asarray(cv2.GaussianBlur(near, (0, 0), 1.5), np.float32)
    out: Array = np.clip(1.4 * soft, 0, 1)
    return out


def _tints(look: Look, picture: Image, shape: Array) -> Array:
    """(SIZE, SIZE, 3) gains: skin, hair and hat, clothes below the chin, and light from one side."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    unit = eye_distance(shape)
    below = smoothstep((y - shape[CHIN, 1] - 0.05 * unit) / (0.15 * unit))
    ears = smoothstep((y - shape[GLABELLA, 1]) / (0.2 * unit))  # above them what looks like skin is fair hair
    skin = np.maximum(_filled([shape[OVAL, :2]], 0.05 * unit), ears * skin_likeness(picture, shape))
    parts = ((skin, look.skin), ((1 - skin) * (1 - below), look.hair), ((1 - skin) * below, look.clothes))
    gains = np.sum([part[..., None] * np.array(gain) for part, gain in parts], axis=0)
    side = 1 + 0.16 * look.light * np.tanh((x - shape[GLABELLA, 0]) / (0.6 * unit))
    lit: Array = gains * side[..., None]
    return lit


CREASES = ("knit", "fold")


def creases(picture: Image, shape: Array) -> Array:
    """(len(CREASES), SIZE, SIZE) how much darker skin becomes at full intensity: upright lines between knit brows,
    folds from the nose around a smile or a sneer."""
    unit, xy = eye_distance(shape), shape[:, :2].astype(np.float64)
    middle, level = xy[BROW_INNER].mean((0, 1))
    knit: list[Array] = [
        np.array([(middle + s * 0.048 * unit, level + 0.08 * unit), (middle + s * 0.060 * unit, level - 0.07 * unit)])
        for s in (-1, 1)
    ]
    folds: list[Array] = [xy[[129, 203, 206, 216, 212]], xy[[358, 423, 426, 436, 432]]]
    drawn = [0.32 * _drawn(knit, 0.022 * unit), 0.22 * _drawn(folds, 0.028 * unit)]
    return (np.stack(drawn) * skin_likeness(picture, shape)).astype(np.float32)


def _drawn(lines: list[Array], blur: float) -> Array:
    """(SIZE, SIZE) soft lines, 1 at their darkest."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    for line in lines:
        cv2.polylines(mask, [np.rint(line * 16).astype(np.int32)], False, 255, 2, cv2.LINE_AA, 4)
    soft = np.asarray(cv2.GaussianBlur(mask, (0, 0), blur), np.float32)
    out: Array = soft / soft.max()
    return out


def backdrop(look: Look) -> Image:
    """(SIZE, SIZE, 3) uint8: a plain studio wall, lighter behind the head."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32) / SIZE - 0.5
    away = np.clip(np.hypot(x, y + 0.1) / 0.75, 0, 1)[..., None] ** 1.5
    middle, edge = (np.array(c, np.float32) for c in look.backdrop)
    wall: Image = np.rint(middle + (edge - middle) * away).astype(np.uint8)
    return wall
