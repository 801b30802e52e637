"""The three CSIM definitions on embeddings whose cosines are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics import MetricError, metric
from metrics.identity import to_frame, to_mean, to_reference


def face(vectors: np.ndarray, found: list[bool] | None = None) -> dict[str, np.ndarray]:
    rows = np.zeros((len(vectors), 512), np.float32)
    rows[:, : vectors.shape[1]] = vectors
    return {"embedding": rows, "found": np.array([True] * len(rows) if found is None else found)}


def at(*degrees: float) -> np.ndarray:
    """Vectors of different lengths at these angles."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.arange(1, len(degrees) + 1)[:, None]


def cosine(*degrees: float) -> float:
    return float(np.cos(np.radians(degrees)).mean())


def test_known_angles() -> None:
    """1e-6: the embeddings are stored as float32."""
    generated, real = face(at(10, 20, 60)), face(at(0, 30, 90))
    assert to_reference(generated, face(at(5))) == pytest.approx(cosine(5, 15, 55), rel=1e-6)
    assert to_frame(generated, real) == pytest.approx(cosine(10, 10, 30), rel=1e-6)
    # The mean of unit vectors at -20 and 20 degrees points at 0, however long the vectors are.
    assert to_mean(face(at(50, 70)), face(at(-20, 20))) == pytest.approx(cosine(50, 70), rel=1e-6)


def test_frames_without_a_face_do_not_count() -> None:
    generated = face(at(10, 77, 60), [True, False, True])
    real = face(at(0, 30, 90), [True, True, False])
    assert to_frame(generated, real) == pytest.approx(cosine(10), rel=1e-6)
    assert to_reference(generated, face(at(0))) == pytest.approx(cosine(10, 60), rel=1e-6)
    assert to_mean(generated, real) == pytest.approx(cosine(10 - 15, 60 - 15), rel=1e-6)


@given(st.integers(0, 1000), st.integers(1, 20), st.floats(0.01, 100))
@settings(max_examples=30, deadline=None)
def test_a_clip_against_itself(seed: int, count: int, gain: float) -> None:
    clip = face(np.random.default_rng(seed).standard_normal((count, 512)))
    louder = {**clip, "embedding": clip["embedding"] * np.float32(gain)}
    assert to_frame(clip, louder) == pytest.approx(1.0, abs=1e-6)
    # Against its own mean, a clip scores the length of the mean of its unit vectors.
    units = clip["embedding"] / np.linalg.norm(clip["embedding"], axis=1, keepdims=True)
    assert to_mean(louder, clip) == pytest.approx(float(np.linalg.norm(units.mean(axis=0))), abs=1e-6)


def test_bad_input_is_refused() -> None:
    clip, nobody = face(at(0, 10, 20)), face(at(0, 10, 20), [False] * 3)
    for compute in (to_frame, to_mean):
        with pytest.raises(MetricError, match="no face found in 3 of 3 frames of the generated side"):
            compute(nobody, clip)
        with pytest.raises(MetricError, match="no face found in 3 of 3 frames of the real side"):
            compute(clip, nobody)
    with pytest.raises(MetricError, match="no face found in 1 of 1 frames of the reference side"):
        to_reference(clip, face(at(0), [False]))
    with pytest.raises(MetricError, match="reference of 3 frames"):
        to_reference(clip, clip)
    with pytest.raises(MetricError, match="3 generated frames against 2 real"):
        to_frame(clip, face(at(0, 1)))
    with pytest.raises(MetricError, match="both sides in 2 of 2"):
        to_frame(face(at(0, 1), [True, False]), face(at(0, 1), [False, True]))
    with pytest.raises(MetricError, match="1 face embeddings of the generated side are zero, NaN"):
        to_frame(face(np.array([[1.0, 0], [np.nan, 0]])), face(at(0, 1)))
    with pytest.raises(MetricError, match="1 face embeddings"):
        to_frame(face(np.array([[1.0, 0], [0, 0]])), face(at(0, 1)))
    with pytest.raises(MetricError, match="mean embedding"):
        to_mean(clip, face(np.array([[1.0, 0], [-1.0, 0]])))


def test_sides() -> None:
    needs = {name: metric(f"csim/w600k_mbf-{name}").needs[1][0] for name in ("to-reference", "to-frame", "to-mean")}
    assert needs == {"to-reference": "reference", "to-frame": "real", "to-mean": "real"}
