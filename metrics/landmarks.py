"""Distances and motion of facial landmarks: LMD, and how much the landmarks tremble.

The points are those of MediaPipe's mesh that lie nearest to the 68 of iBUG 300-W, in pixels of the scored frames;
papers use dlib's or face-alignment's 68, so their numbers are not comparable with these, whatever the definition.
Frames without a face on either side do not count; "faces/missed" tells how many there were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics.base import (
    ClipViews,
    Direction,
    Extractor,
    ExtractorSpec,
    Features,
    Metric,
    MetricError,
    Side,
    Weights,
    register,
)

# fmt: off
POINTS = (
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389,  # jaw, from the image's left
    71, 63, 105, 66, 107, 336, 296, 334, 293, 301,  # brows
    168, 197, 5, 4, 75, 97, 2, 326, 305,  # bridge and base of the nose
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,  # eyes
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,  # outer lips
    78, 82, 13, 312, 308, 317, 14, 87,  # inner lips
)
# fmt: on
FACE, MOUTH = slice(0, 68), slice(48, 68)
EYES = (36, 45)  # outer corners

Points = NDArray[np.float64]


class Landmarks:
    """68 landmarks of each frame: {"points": (T, 68, 2) float32, "found": (T,) bool}, zeros where not found.

    landmarks   (t, 478, 3) float32 in pixels, with `found`; NaN counts as not found

    Raises MetricError for a clip without frames.
    """

    id = "landmarks@1"
    views: tuple[str, ...] = ("landmarks",)

    def __call__(self, chunks: Iterable[ClipViews]) -> dict[str, NDArray[Any]]:
        points: list[NDArray[np.float32]] = []
        for chunk in chunks:
            points.append(chunk.view("landmarks")[:, POINTS, :2].astype(np.float32))
            points[-1][~chunk.view("found")] = np.nan
        if not points:
            raise MetricError("no frames to look for landmarks in")
        every = np.concatenate(points)
        found = np.asarray(np.isfinite(every).all(axis=(1, 2)))
        return {"points": np.where(found[:, None, None], every, np.float32(0)), "found": found}


def _both(generated: Features, real: Features) -> tuple[Points, Points]:
    """The points of the frames in which both sides show a face: (t, 68, 2) float64 twice, t > 0."""
    one, other = generated["found"].astype(bool), real["found"].astype(bool)
    if len(one) != len(other):
        raise MetricError(f"{len(one)} generated frames against {len(other)} real ones; score the common prefix")
    both = one & other
    if not both.any():
        raise MetricError(f"no face found on both sides in {len(both)} of {len(both)} frames")
    return generated["points"][both].astype(np.float64), real["points"][both].astype(np.float64)


def _distance(one: Points, other: Points) -> Points:
    """Mean distance over the points of each frame: (t, k, 2) twice to (t,)."""
    distance: Points = np.linalg.norm(one - other, axis=-1).mean(axis=-1)
    return distance


def _centred(points: Points) -> Points:
    moved: Points = points - points.mean(axis=1, keepdims=True)
    return moved


def _by_eyes(generated: Features, real: Features, part: slice) -> float:
    one, other = _both(generated, real)
    apart = np.linalg.norm(other[:, EYES[0]] - other[:, EYES[1]], axis=-1)
    if not apart.all():
        raise MetricError("the outer eye corners of the real face coincide; its landmarks are degenerate")
    return float(100 * (_distance(one[:, part], other[:, part]) / apart).mean())


def lmd_mouth(generated: Features, real: Features) -> float:
    """Mean over frames and the 20 mouth points of the distance to the real frame's, in pixels, neither side moved:
    head motion counts.

    generated, real   {"points": (T, 68, 2), "found": (T,)}

    Raises MetricError for different lengths, or where no frame shows a face on both sides.
    """
    one, other = _both(generated, real)
    return float(_distance(one[:, MOUTH], other[:, MOUTH]).mean())


def lmd_face(generated: Features, real: Features) -> float:
    """As lmd/mouth, over all 68 points."""
    one, other = _both(generated, real)
    return float(_distance(one[:, FACE], other[:, FACE]).mean())


def lmd_mouth_centred(generated: Features, real: Features) -> float:
    """EAT's M-LMD on our points: as lmd/mouth, after each side's mouth has been moved to its mean in each frame."""
    one, other = _both(generated, real)
    return float(_distance(_centred(one[:, MOUTH]), _centred(other[:, MOUTH])).mean())


def lmd_face_centred(generated: Features, real: Features) -> float:
    """EAT's F-LMD on our points: as lmd/face, after each side's face has been moved to its mean in each frame."""
    one, other = _both(generated, real)
    return float(_distance(_centred(one[:, FACE]), _centred(other[:, FACE])).mean())


def lmd_mouth_normalised(generated: Features, real: Features) -> float:
    """As lmd/mouth, each frame's distance in per cent of the distance of the real face's outer eye corners."""
    return _by_eyes(generated, real, MOUTH)


def lmd_face_normalised(generated: Features, real: Features) -> float:
    """As lmd/face, each frame's distance in per cent of the distance of the real face's outer eye corners."""
    return _by_eyes(generated, real, FACE)


def jitter(clip: Features) -> float:
    """Temporal smoothness: mean over the 68 points of |x(t+1) - 2 x(t) + x(t-1)|, in pixels a frame squared.

    Over all three consecutive frames that show a face. Live faces are not at 0 and a frozen one is: what counts is
    how near the value is to that of the real clips. Raises MetricError where there are no such three.
    """
    found, points = clip["found"].astype(bool), clip["points"].astype(np.float64)
    three = found[:-2] & found[1:-1] & found[2:]
    if not three.any():
        raise MetricError(f"no three consecutive frames with a face among {len(found)}")
    bend = points[2:] - 2 * points[1:-1] + points[:-2]
    return float(np.linalg.norm(bend[three], axis=-1).mean())


def jitter_delta(generated: Features, real: Features) -> float:
    """|jitter of the generated clip - jitter of the real one|, in pixels a frame squared; raises as jitter."""
    return abs(jitter(generated) - jitter(real))


def missed(generated: Features) -> float:
    """Frames of the generated clip in which no face was found, in per cent: those that CSIM, F-SIM and LMD leave
    out."""
    return float(100 * (1 - generated["found"].astype(bool).mean()))


def _make(weights: Mapping[str, Weights], options: Mapping[str, Any]) -> Extractor:
    return Landmarks()


register(ExtractorSpec(name="landmarks", make=_make))

_LMD = "landmark distance (Chen et al. 2018) on 68 points of MediaPipe's mesh"
_EAT = "EAT's test_lmd.py (evaluation_eat 0fd6e2e) on 68 points of MediaPipe's mesh instead of dlib's"
_JITTER = "our own: second difference of 68 points of MediaPipe's mesh"
_BOTH: tuple[Side, ...] = ("generated", "real")
_OWN: tuple[Side, ...] = ("generated",)
_ROWS: tuple[tuple[str, Callable[..., float], tuple[Side, ...], str, Direction, str, str], ...] = (
    ("lmd/mouth", lmd_mouth, _BOTH, "px", "lower", "LMD (mouth)", _LMD),
    ("lmd/face", lmd_face, _BOTH, "px", "lower", "LMD (face)", _LMD),
    ("lmd/mouth-centred", lmd_mouth_centred, _BOTH, "px", "lower", "M-LMD", _EAT),
    ("lmd/face-centred", lmd_face_centred, _BOTH, "px", "lower", "F-LMD", _EAT),
    ("lmd/mouth-normalised", lmd_mouth_normalised, _BOTH, "%", "lower", "LMD (mouth, norm.)", _LMD),
    ("lmd/face-normalised", lmd_face_normalised, _BOTH, "%", "lower", "LMD (face, norm.)", _LMD),
    ("jitter/landmarks", jitter, _OWN, "px/frame²", "closer-to-real", "Jitter", _JITTER),
    ("jitter/landmarks-delta", jitter_delta, _BOTH, "px/frame²", "lower", "Jitter |Δ real|", _JITTER),
    ("faces/missed", missed, _OWN, "%", "lower", "No face", "our own: share of frames without a face in MediaPipe's"),
)
for _name, _compute, _sides, _unit, _direction, _label, _source in _ROWS:
    register(
        Metric(
            name=_name,
            version=1,
            needs=tuple((side, "landmarks") for side in _sides),
            level="clip",
            unit=_unit,
            direction=_direction,
            compute=_compute,
            label=_label,
            digits=1 if _name == "faces/missed" else 3,
            source=_source,
        )
    )
