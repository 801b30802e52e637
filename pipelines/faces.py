"""Faces of a clip: landmarks of the main face in every frame, and how many others there are.

A backend is any callable that takes an (H, W, 3) uint8 RGB frame and returns the landmarks of the faces in it.
MediaPipe FaceMesh (Grishchenko et al. 2020; 478 points with irises) is the one that comes with the suite.

Smoothing. The points themselves are FaceMesh's own, which filters over time in its video mode; nothing more is
done to them here. What must not tremble - the path of a crop - is smoothed where it is made (crop.py).
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]
Points = NDArray[np.float32]
Backend = Callable[[Frame], Sequence[Points]]

NUM_POINTS = 478
MAX_GAP = 0.2  # s; longer stretches without the main face are not invented
LOOK = 12  # frames between two looks for other faces
MAX_FACES = 4
SAME_FACE = 0.3  # least overlap (intersection over union) of a face with where it was last

# FaceMesh indices of ArcFace's five points, as the viewer sees them. Eyes are the means of their corners: the
# irises (468-477) move with the gaze, the template does not.
_LEFT_EYE, _RIGHT_EYE, _NOSE, _LEFT_MOUTH, _RIGHT_MOUTH = (33, 133), (362, 263), 1, 61, 291


class FaceError(Exception):
    """No usable main face. `reason` is a short code for tables, the text one line for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, str(self))


@dataclass(frozen=True, slots=True)
class Faces:
    """points    (T, 478, 3) float32 in pixels (0 is the centre of the first), x right, y down, z away from
                 the viewer in x's scale;
                 short gaps are interpolated, NaN where the main face is missing for longer
    detected  (T,) bool, the main face was found in that frame
    others    most faces seen beside the main one in any frame looked at
    rival     area of the second face, summed over its frames, as a share of the main one's
    """

    points: Points
    detected: NDArray[np.bool_]
    others: int
    rival: float


@contextmanager
def _quiet() -> Iterator[None]:
    """MediaPipe's C++ writes notices straight to the process's error stream whatever the log level is."""
    sys.stderr.flush()
    saved = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def _solutions() -> Any:
    os.environ.setdefault("GLOG_minloglevel", "3")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mediapipe as mp

    # Its protobuf calls are deprecated and warn while running; the release is pinned, so nothing can be done.
    warnings.filterwarnings("ignore", message=r"SymbolDatabase\.GetPrototype", module=r"google\.protobuf")
    return mp.solutions


class FaceMesh:
    """MediaPipe FaceMesh in video mode: faces of a frame as (478, 3) points in pixels, the biggest first.

    One object serves one clip, frame after frame: it carries the faces of the last frame to the next.
    """

    def __init__(self, max_faces: int = 1) -> None:
        with _quiet():
            self._mesh = _solutions().face_mesh.FaceMesh(
                static_image_mode=False, max_num_faces=max_faces, refine_landmarks=True
            )

    def __call__(self, frame: Frame) -> list[Points]:
        height, width = frame.shape[:2]
        found = self._mesh.process(frame).multi_face_landmarks or []
        # MediaPipe counts from the picture's edge, pixels here from the centre of the first one.
        scale, shift = np.array([width, height, width], np.float32), np.array([0.5, 0.5, 0], np.float32)
        faces = [np.array([(p.x, p.y, p.z) for p in face.landmark], np.float32) * scale - shift for face in found]
        return sorted(faces, key=lambda points: -_area(boxes(points)))

    def close(self) -> None:
        self._mesh.close()


class FaceDetector:
    """MediaPipe's full-range detector: (n, 4) boxes left, top, right, bottom in pixels."""

    def __init__(self) -> None:
        with _quiet():
            self._detector = _solutions().face_detection.FaceDetection(model_selection=1, min_detection_confidence=0.5)

    def __call__(self, frame: Frame) -> Points:
        height, width = frame.shape[:2]
        found = [d.location_data.relative_bounding_box for d in self._detector.process(frame).detections or []]
        return np.array(
            [
                (b.xmin * width, b.ymin * height, (b.xmin + b.width) * width, (b.ymin + b.height) * height)
                for b in found
            ],
            np.float32,
        ).reshape(-1, 4)

    def close(self) -> None:
        self._detector.close()


def five_points(points: Points) -> Points:
    """(..., 478, 3) -> (..., 5, 2): left eye, right eye, nose tip, left and right mouth corner, as seen."""
    xy = points[..., :2]
    five = [xy[..., list(_LEFT_EYE), :].mean(-2), xy[..., list(_RIGHT_EYE), :].mean(-2)]
    five += [xy[..., index, :] for index in (_NOSE, _LEFT_MOUTH, _RIGHT_MOUTH)]
    return np.stack(five, axis=-2).astype(np.float32)


def boxes(points: Points) -> Points:
    """(..., N, 3) -> (..., 4): left, top, right, bottom of the points."""
    return np.concatenate([points[..., :2].min(-2), points[..., :2].max(-2)], axis=-1)


def _area(box: Points) -> float:
    return float(max(box[2] - box[0], 0) * max(box[3] - box[1], 0))


def overlap(one: Points, other: Points) -> float:
    """Intersection over union of two boxes (4,)."""
    inner = np.concatenate([np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])])
    shared = _area(inner) if np.all(inner[2:] > inner[:2]) else 0.0
    union = _area(one) + _area(other) - shared
    return shared / union if union > 0 else 0.0


def track(frames: Callable[[], Iterable[Frame]], fps: float = 25.0, backend: Backend | None = None) -> Faces:
    """Follow the main face through a clip. `frames()` starts the clip anew each time it is called.

    The main face is the one with the largest area summed over the frames in which it is seen, so that size and
    persistence both count. One face at a time is followed, and every LOOK frames a detector looks for others;
    only if it ever sees more than one, the clip is gone through again with all of them. With `backend` given,
    every frame's faces come from it.

    Raises FaceError "no_face" when no frame holds a face.
    """
    if backend is not None:
        return _main_face([list(backend(frame)) for frame in frames()], fps)
    mesh, detector = FaceMesh(), FaceDetector()
    found: list[list[Points]] = []
    most = 0
    try:
        for k, frame in enumerate(frames()):
            found.append(mesh(frame))
            if k % LOOK == 0:
                most = max(most, len(detector(frame)))
    finally:
        mesh.close()
        detector.close()
    if most > 1:
        several = FaceMesh(MAX_FACES)
        try:
            found = [several(frame) for frame in frames()]
        finally:
            several.close()
    faces = _main_face(found, fps)
    return Faces(faces.points, faces.detected, max(faces.others, most - 1), faces.rival)


def _main_face(found: list[list[Points]], fps: float) -> Faces:
    tracks: list[dict[int, Points]] = []
    for k, faces in enumerate(found):
        free = list(range(len(tracks)))
        for face in faces:
            near = max(free, key=lambda t: _closeness(tracks[t], face), default=None)
            if near is not None and _closeness(tracks[near], face) >= SAME_FACE:
                tracks[near][k] = face
                free.remove(near)
            else:
                tracks.append({k: face})
    if not tracks:
        raise FaceError("no_face", f"no face in any of {len(found)} frames")
    weights = [sum(_area(boxes(face)) for face in t.values()) for t in tracks]
    main = tracks[int(np.argmax(weights))]
    rival = sorted([0.0, *weights])[-2] / max(weights)
    points = np.full((len(found), NUM_POINTS, 3), np.nan, np.float32)
    for k, face in main.items():
        points[k] = face
    detected = np.zeros(len(found), bool)
    detected[list(main)] = True
    others = max(len(faces) - (k in main) for k, faces in enumerate(found))
    return Faces(_fill(points, detected, round(MAX_GAP * fps)), detected, others, rival)


def _closeness(seen: dict[int, Points], face: Points) -> float:
    return overlap(boxes(seen[max(seen)]), boxes(face))


def gaps(detected: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """[start, end) of every stretch that is not detected."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], detected, [True]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _fill(points: Points, detected: NDArray[np.bool_], longest: int) -> Points:
    for start, end in gaps(detected):
        if end - start > longest:
            continue
        before, after = start - 1, end
        if before < 0 and after >= len(points):
            continue
        if before < 0:
            points[start:end] = points[after]
        elif after >= len(points):
            points[start:end] = points[before]
        else:
            weight = (np.arange(start, end) - before)[:, None, None] / (after - before)
            points[start:end] = (1 - weight) * points[before] + weight * points[after]
    return points
