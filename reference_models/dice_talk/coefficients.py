"""What DICE-Talk's embedder sees: expression coefficients of a clip, one vector a frame, in one of three types.

3dmm-64         expression of a 3D morphable model (Deep3DFaceRecon's columns 80:144), as in the paper: made by
                StyleTalk's or SadTalker's tools, read from a file beside the clip
blendshapes-52  scores in [0, 1] of MediaPipe's Face Landmarker
mesh-64         ours, needs no further file: the prepared face mesh, aligned to the mean face by a similarity, in the
                64 principal directions of how the faces of the training split leave their person's mean

All are standardised by the training split. The type is part of a checkpoint and types are never mixed; strengths and
priors of two types do not compare.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reference_models.base import FPS, Footage, GenerationError
from reference_models.training import TrainingError, cached

MESH, BLENDSHAPES, MORPHABLE = "mesh-64", "blendshapes-52", "3dmm-64"
SIZES = {MESH: 64, BLENDSHAPES: 52, MORPHABLE: 64}
LANDMARKER = "face-landmarker"  # in the registry
FRAMES = 16  # of each training clip, evenly spread, that fit the statistics
FLOOR = 0.01  # of the largest deviation: what hardly moves is not blown up to unit variance
TOLERANCE = 0.1  # s by which a user's file may be shorter or longer than the clip

Array = NDArray[np.float32]
Exact = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Expression coefficients of clips, standardised.

    type        key of SIZES
    mean        (D,) float32 of the training split
    deviation   (D,) float32, positive
    shape       mesh-64 only: (478, 3) float64 mean face, centred, of unit size
    basis       mesh-64 only: (1434, 64) float64, orthonormal columns
    landmarker  blendshapes-52 only: the .task file of MediaPipe's Face Landmarker
    """

    type: str
    mean: Array
    deviation: Array
    shape: Exact | None = None
    basis: Exact | None = None
    landmarker: Path | None = None

    def __call__(self, clip: Footage, cache: Path | None) -> Array:
        """(num_frames, D) float32 at 25 fps. Raises GenerationError for a clip without a face or without its file."""
        made = (_raw(self.type, clip, cache, self.landmarker) if self.basis is None else self._mesh(clip)) - self.mean
        return np.asarray(made / self.deviation, np.float32)

    def _mesh(self, clip: Footage) -> Array:
        assert self.shape is not None
        assert self.basis is not None
        return projected(clip.points(), self.shape, self.basis)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What a checkpoint keeps of it."""
        every = {"mean": self.mean, "deviation": self.deviation, "shape": self.shape, "basis": self.basis}
        return {name: array for name, array in every.items() if array is not None}


def fit(type: str, clips: Sequence[Footage], cache: Path | None, landmarker: Path | None = None) -> Coefficients:
    """Coefficients standardised by these clips, the training split.

    Raises TrainingError for an unknown type, a missing landmarker or missing files, or faces that do not move enough to
    tell 64 directions apart; GenerationError as Coefficients.
    """
    if type not in SIZES:
        raise TrainingError(f"coefficients {type!r}; expected one of {', '.join(SIZES)}")
    if type == BLENDSHAPES and landmarker is None:
        raise TrainingError(f"{type} needs {LANDMARKER}; `bench weights fetch {LANDMARKER}`")
    without = [clip for clip in clips if type == MORPHABLE and _beside(clip) is None]
    if without:
        raise TrainingError(f"{len(without)} of {len(clips)} clips have {_missing(without[0])}; or choose another type")
    shape, basis = _directions(clips) if type == MESH else (None, None)
    seen = []
    for clip in clips:
        with naming(clip):
            raw = _raw(type, clip, cache, landmarker) if basis is None else projected(clip.points(), shape, basis)
        seen.append(spread(raw))
    every = np.concatenate(seen).astype(np.float64)
    deviation = every.std(0)
    if not deviation.max() > 0:
        raise TrainingError(f"{type}: all {len(every)} frames of the training split are alike; are these videos?")
    floored = np.maximum(deviation, FLOOR * deviation.max()).astype(np.float32)
    return Coefficients(type, every.mean(0).astype(np.float32), floored, shape, basis, landmarker)


def spread(frames: NDArray[Any], count: int = FRAMES) -> NDArray[Any]:
    """At most `count` rows, evenly spread."""
    chosen: NDArray[Any] = frames[
        np.unique(np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int))
    ]
    return chosen


def aligned(points: NDArray[Any], shape: Exact) -> Exact:
    """(N, P, 3) faces moved, turned and scaled onto `shape` (P, 3), centred: least squares over similarities (Umeyama
    1991). Raises GenerationError for a face whose points lie on one spot, or are not finite."""
    centred, size = _centred(points)
    u, s, vt = np.linalg.svd(np.einsum("npi,pj->nij", centred, shape))
    flip = np.ones_like(s)
    flip[:, 2] = np.sign(np.linalg.det(u @ vt))
    turn = (u * flip[:, None]) @ vt
    scale = (s * flip).sum(1) / size
    onto: Exact = np.einsum("npi,nij->npj", centred, turn) * scale[:, None, None]
    return onto


def projected(points: NDArray[Any], shape: Exact | None, basis: Exact) -> Array:
    """(N, 478, 3) face meshes -> (N, 64) float32: how they differ from the mean face in the directions of `basis`."""
    assert shape is not None
    difference = (aligned(points, shape) - shape).reshape(len(points), -1)
    return np.asarray(difference @ basis, np.float32)


def _directions(clips: Sequence[Footage]) -> tuple[Exact, Exact]:
    """Mean face (478, 3) of unit size, and (1434, 64): principal directions about each person's mean. A person's own
    face is no expression: as in a morphable model, identity has other directions."""
    from scipy.linalg import eigh

    with naming(clips[0]):
        shape = _normal(clips[0].points()[0])
    shape = _normal(np.concatenate([_onto(clip, shape) for clip in clips]).mean(0))
    people: dict[tuple[str, str], list[Exact]] = {}
    for clip in clips:
        flat = (_onto(clip, shape) - shape).reshape(-1, shape.size)
        people.setdefault((clip.dataset, clip.identity), []).append(flat)
    scatter, count = np.zeros((shape.size, shape.size)), 0
    for meshes in people.values():
        about = np.concatenate(meshes)
        about -= about.mean(0)
        scatter += about.T @ about
        count += len(about) - 1
    values, vectors = eigh(scatter, subset_by_index=[shape.size - SIZES[MESH], shape.size - 1])
    values, vectors = values[::-1], vectors[:, ::-1]
    if not values[-1] > 1e-9 * values[0]:
        raise TrainingError(
            f"{MESH}: {count + len(people)} frames of {len(people)} people do not span {SIZES[MESH]} directions; "
            "train on more clips"
        )
    largest = np.abs(vectors).argmax(0)
    return shape, vectors * np.sign(vectors[largest, np.arange(SIZES[MESH])])  # a sign of its own for each direction


@contextmanager
def naming(clip: Footage) -> Iterator[None]:
    """Put the clip's name before what a GenerationError says."""
    try:
        yield
    except GenerationError as error:
        raise GenerationError(f"{clip.clip_id}: {error}") from error


def _onto(clip: Footage, shape: Exact) -> Exact:
    with naming(clip):
        return aligned(spread(clip.points()), shape)


def _centred(faces: NDArray[Any]) -> tuple[Exact, Exact]:
    """Faces (N, P, 3) about their means, and the sums of squares (N,)."""
    exact = faces.astype(np.float64)
    centred = exact - exact.mean(1, keepdims=True)
    size = (centred**2).sum((1, 2))
    if not (np.isfinite(size).all() and (size > 0).all()):
        raise GenerationError("a face mesh that is not finite, or all on one spot; expected the points of a face")
    return centred, size


def _normal(face: NDArray[Any]) -> Exact:
    centred, size = _centred(face[None])
    normal: Exact = centred[0] / np.sqrt(size[0])
    return normal


def _raw(type: str, clip: Footage, cache: Path | None, landmarker: Path | None) -> Array:
    """(num_frames, D) float32 of the types that others define."""
    if type == MORPHABLE:
        return morphable(clip)
    if landmarker is None:
        raise GenerationError(f"trained on {type}, which needs {LANDMARKER}; `bench weights fetch {LANDMARKER}`")
    file = landmarker
    if cache is None:
        return blendshapes(clip, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    return cached(cache, clip, f"{type} {digest}", lambda: blendshapes(clip, file))


# --- the two types that others define ----------------------------------------------------------------------------


def blendshapes(clip: Footage, landmarker: Path) -> Array:
    """(num_frames, 52) float32 scores in [0, 1], in the order of the model ("_neutral" first); a frame in which it
    finds no face keeps the scores of the nearest one. Raises GenerationError where it finds none at all."""
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_buffer=landmarker.read_bytes()),
        output_face_blendshapes=True,
        running_mode=vision.RunningMode.VIDEO,
    )
    rows: list[list[float] | None] = []
    try:
        with vision.FaceLandmarker.create_from_options(options) as model:
            for number, frame in enumerate(clip.frames()):
                image = mediapipe.Image(mediapipe.ImageFormat.SRGB, np.ascontiguousarray(frame))
                found = model.detect_for_video(image, number * 1000 // FPS).face_blendshapes
                rows.append([category.score for category in found[0]] if found else None)
    except (RuntimeError, ValueError) as error:
        raise GenerationError(
            f"{landmarker.name}: not a Face Landmarker with blendshapes ({' '.join(str(error).split())[:100]})"
        ) from error
    here = np.array([number for number, row in enumerate(rows) if row])
    if not len(here):
        raise GenerationError(f"no face in any of {len(rows)} frames")
    nearest = here[np.abs(np.arange(len(rows))[:, None] - here).argmin(1)]
    scores = np.array([rows[number] for number in nearest], np.float32)
    if scores.shape[1] != SIZES[BLENDSHAPES]:
        raise GenerationError(f"{landmarker.name}: gives {scores.shape[1]} blendshapes; expected {SIZES[BLENDSHAPES]}")
    return scores


def morphable(clip: Footage) -> Array:
    """(num_frames, 64) float32 from the file beside the clip, of its name:

    .npz  arrays beta (N, 64), fps, type ("3dmm-64")
    .mat  `coeff` (N, 257), Deep3DFaceRecon's vector, as StyleTalk writes it; or `coeff_3dmm` (N, 70 or 73), expression
          first, as SadTalker writes it; a row for each frame of the prepared clip

    Raises GenerationError: no such file, one of another type, size or length, or a damaged one.
    """
    path = _beside(clip)
    if path is None:
        raise GenerationError(_missing(clip))
    beta, fps = _npz(path) if path.suffix == ".npz" else (_mat(path), float(FPS))
    if beta.ndim != 2 or beta.shape[1] != SIZES[MORPHABLE] or not len(beta) or not np.isfinite(beta).all():
        raise GenerationError(f"{path.name}: coefficients of shape {beta.shape}; expected (N, 64), N > 0, all finite")
    if abs(len(beta) / fps - clip.num_frames / FPS) > TOLERANCE:
        raise GenerationError(
            f"{path.name}: {len(beta)} frames at {fps:g} fps; the clip has {clip.num_frames} at {FPS}: make them "
            "from the prepared clip"
        )
    at = np.arange(clip.num_frames) / FPS * fps
    columns = [np.interp(at, np.arange(len(beta)), column) for column in beta.T.astype(np.float64)]
    return np.stack(columns, 1).astype(np.float32)


def _beside(clip: Footage) -> Path | None:
    return next((path for path in map(clip.video.with_suffix, (".npz", ".mat")) if path.exists()), None)


def _missing(clip: Footage) -> str:
    name = clip.video.stem
    return (
        f"no {MORPHABLE} coefficients; expected {name}.npz (beta, fps, type) or {name}.mat (coeff or coeff_3dmm) in "
        f"{clip.video.parent}, made from the prepared clip"
    )


def _npz(path: Path) -> tuple[NDArray[Any], float]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            beta, fps, type = stored["beta"], float(stored["fps"]), str(stored["type"])
    except Exception as error:  # a damaged archive raises nearly anything
        raise GenerationError(
            f"{path.name}: no readable arrays beta, fps, type ({' '.join(str(error).split())[:100]})"
        ) from error
    if type != MORPHABLE:
        raise GenerationError(f"{path.name}: holds {type}; expected {MORPHABLE}: types are never mixed")
    if not 1 <= fps <= 1000 or beta.dtype.kind != "f":
        raise GenerationError(f"{path.name}: {beta.dtype} at {fps:g} fps; expected floating point at 1 to 1000 fps")
    return beta, fps


def _mat(path: Path) -> NDArray[Any]:
    from scipy.io import loadmat

    try:
        stored = loadmat(path, variable_names=["coeff", "coeff_3dmm"])
        name = "coeff" if "coeff" in stored else "coeff_3dmm"
        found = np.asarray(stored[name], np.float32)
    except Exception as error:  # as above
        raise GenerationError(
            f"{path.name}: no readable coeff or coeff_3dmm ({' '.join(str(error).split())[:100]})"
        ) from error
    widths = {"coeff": (257,), "coeff_3dmm": (70, 73)}[name]
    if found.ndim != 2 or found.shape[1] not in widths:
        raise GenerationError(
            f"{path.name}: {name} of shape {found.shape}; expected (N, {' or '.join(map(str, widths))})"
        )
    return found[:, 80:144] if name == "coeff" else found[:, :64]
