"""A face of the demo dataset that moves: what each movement does to the points, and drawing a frame."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from pipelines.datasets.demo_mesh import (
    BROW_INNER,
    BROW_OUTER,
    BROWS,
    CHIN,
    EYE_TRIANGLES,
    EYES,
    INNER,
    LID_FOLD,
    LIPS,
    LOWER_LID,
    LOWER_LIP,
    MOUTH_TRIANGLES,
    NOSE_WINGS,
    OVAL,
    SIZE,
    UPPER_LID,
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
from pipelines.datasets.demo_people import Look, backdrop, creases, neutral_shape, paint, portrait

MOVES = (
    "open", "spread", "round", "close", "tuck",
    "smile", "frown", "sneer", "part",
    "brow_in", "brow_out", "brow_low", "brow_knit",
    "lid_close", "lid_wide", "squint",
)  # fmt: skip


def _movements(points: Array) -> Array:
    """(len(MOVES), 478, 2): what each movement at amount 1 adds to the points at rest, in pixels."""
    unit = eye_distance(points)
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
        return spread(points, LIPS, shift[LIPS] * unit, sigma * unit)

    none = np.zeros_like(u)
    inward = -0.035 * u
    jaw = lips((inward, -0.018 * bow + 0.035 * u**2), (inward, 0.20 * bow**0.75 + 0.035 * u**2), 0.10)
    # The jaw: all below the mouth goes down with it, the sides less.
    x, y = (xy[:, 0] - middle[0]) / unit, (xy[:, 1] - middle[1]) / unit
    chin = (points[CHIN, 1] - middle[1]) / unit
    width = 0.20 + 0.55 * np.clip(y / chin, 0, 1.2)
    drop = np.exp(-((x / width) ** 2)) * smoothstep(y / 0.06) * 0.17
    others = np.setdiff1d(np.arange(478), LIPS)
    lower = others[y[others] > 0]
    jaw[lower] = np.stack([-0.05 * x[lower] * drop[lower] / 0.17, drop[lower]], 1) * unit

    smile = lips((0.12 * u, -0.10 * u**2 + 0.008), (0.12 * u, -0.10 * u**2 + 0.012 * bow), 0.20)
    cheeks = np.stack([(xy[EYES[i]].mean(0) + xy[[61, 291][i]]) / 2 for i in (0, 1)])
    lift = np.exp(-((xy[:, None] - cheeks) ** 2).sum(-1) / (2 * (0.17 * unit) ** 2)).max(1)
    smile[:, 1] -= 0.05 * unit * lift * (1 - smoothstep((cheeks[:, 1].mean() - 0.22 * unit - xy[:, 1]) / (0.1 * unit)))
    sneer = lips((0.02 * u, -0.045 * (1 - 0.5 * u**2)), (none, 0.02 * u**2), 0.10)
    wings = np.concatenate(NOSE_WINGS)
    sneer += spread(points, wings, np.tile(np.array([0, -0.03 * unit], np.float32), (len(wings), 1)), 0.07 * unit)
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
    above = above_eyes(points)
    forehead = 1 - smoothstep((xy[np.concatenate(BROWS), 1].min() - 0.10 * unit - xy[:, 1]) / (0.25 * unit))

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
        "brow_low": brows(BROW_INNER, 0.17, 0.12, 0.0, 0.105) + brows(BROW_OUTER, 0.14, 0.10, 0.0, 0.02),
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
        self.unit = eye_distance(self.rest)
        self._moves = _movements(self.rest)
        if look.eyes == "hopper":  # glasses: what moves the brows bends the frame, which should show little
            self._moves[[MOVES.index(name) for name in ("brow_in", "brow_out", "brow_low")]] *= 0.7
        texture, alpha = paint(look, self.rest)
        self._texture = np.dstack([np.rint(texture * alpha[..., None]), np.rint(alpha * 255)]).astype(np.uint8)
        low, high = self.rest[:468, :2].min(0).astype(int), self.rest[:468, :2].max(0).astype(int) + 1
        self._box = (slice(low[1], high[1]), slice(low[0], high[0]))
        self._creases = creases(texture, self.rest)[:, *self._box]
        self._wall = backdrop(look)
        self._triangles, self._surround = triangulation(self.rest)
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
        head = self._posed(points, pose)
        still = np.column_stack([self._surround, np.full(len(self._surround), 0.3 * self.unit, np.float32)])
        loose = np.clip((1.02 * SIZE - self._surround[:, 1]) / (SIZE - self.rest[CHIN, 1]), 0, 1)
        around = self._surround + loose[:, None] * (self._posed(still, pose) - self._surround)
        target = np.concatenate([head, around])

        source = self._source[self._triangles]
        # The eyeball does not move with the lids: what a lid uncovers or covers is cut, not squeezed.
        eyes = self._triangles[self._eyes]
        seen = self._source[:478] + _covering(shift)
        source[self._eyes] = seen[eyes]
        where = sampling_map(source, target[self._triangles])
        body = remap(self._creased(moves), where)
        behind = cv2.bitwise_not(body[..., 3])
        layers = zip(cv2.split(body)[:3], cv2.split(self._wall), strict=True)
        mixed = [cv2.add(layer, cv2.multiply(wall, behind, scale=1 / 255)) for layer, wall in layers]
        rgb = np.asarray(cv2.merge(mixed), np.uint8)
        self._fill_mouth(rgb, head, shift, pose, tongue)
        return rgb

    def _creased(self, moves: Array) -> Image:
        """The texture with the skin's folds at these movements."""
        by = dict(zip(MOVES, moves.tolist(), strict=True))
        amounts = np.array([by["brow_knit"], max(by["smile"], by["sneer"])], np.float32)  # as CREASES
        dark = np.tensordot(amounts, self._creases, 1)
        out = self._texture.copy()
        out[*self._box, :3] = np.rint(out[*self._box, :3] * (1 - dark[..., None] * (0.75, 1.0, 1.05)))
        return out

    def _posed(self, points: Array, pose: Pose) -> Array:
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
        anchor = self._posed(self.rest[UPPER_LIP[3][5]][None], pose)[0]
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
    body = smoothstep(mound * 1.2 + 0.5)[..., None]
    flesh = np.array([168, 82, 84], np.float32) * (0.55 + 0.35 * np.clip(mound, 0, 1))[..., None]
    colour = colour + body * (flesh - colour)

    # Lower teeth, fixed to the jaw: a sliver above the lower lip, darker than the upper ones.
    half = 0.185
    u = across / half
    strip_x = (np.clip(u, -1, 1) + 1) / 2 * (teeth.shape[1] - 1)
    rise = (lip - down) / 0.035
    low = smoothstep((1.0 - rise) * 3) * smoothstep((1 - np.abs(u) / 0.75) * 5) * smoothstep((lip - 0.07) / 0.05)
    lower = cv2.remap(teeth, strip_x, np.clip(rise, 0, 1).astype(np.float32) * 20, cv2.INTER_LINEAR)
    colour = colour + (0.85 * low)[..., None] * (lower * 0.62 - colour)

    # Upper teeth hang from the skull, their edge an arc that rises to the corners, darker as they recede.
    height = 0.075 - 0.045 * u**2
    v = (down + 0.035) / np.maximum(height + 0.035, 0.02)
    shown = smoothstep((1.0 - v) * 9) * smoothstep((1 - np.abs(u)) * 6)
    upper = cv2.remap(teeth, strip_x, (np.clip(v, 0, 1) * (teeth.shape[0] - 1)).astype(np.float32), cv2.INTER_LINEAR)
    lit = (0.97 - 0.45 * u**2)[..., None] * (0.5 + 0.5 * tone)
    out: Array = colour + shown[..., None] * (upper * lit - colour)
    return out
