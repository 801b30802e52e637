"""CSIM: cosine similarity of face embeddings, generated against real.

Three definitions circulate under the one name, and the network is usually unstated; here both are in the metric's
name. Frames without a face do not enter the mean; the features hold how many there were.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from metrics.base import Features, Metric, MetricError, Side, register


def _unit(face: Features, side: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Embeddings scaled to length 1, (T, 512) float64, and (T,) whether they are those of a face."""
    vectors = face["embedding"].astype(np.float64)
    found = face["found"].astype(bool)
    if not found.any():
        raise MetricError(f"no face found in {len(found)} of {len(found)} frames of the {side} side")
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    bad = found & ~(np.isfinite(length[:, 0]) & (length[:, 0] > 0))
    if bad.any():
        raise MetricError(f"{bad.sum()} face embeddings of the {side} side are zero, NaN or infinite")
    return np.divide(vectors, length, where=found[:, None], out=np.zeros_like(vectors)), found


def to_reference(generated: Features, reference: Features) -> float:
    """Mean over generated frames of the cosine to the face of the reference image (-1 to 1).

    generated, reference   {"embedding": (T, 512), "found": (T,)}; the reference has one frame

    Raises MetricError where a side has no face, or the reference has several frames.
    """
    if len(reference["found"]) != 1:
        raise MetricError(f"a reference of {len(reference['found'])} frames; expected one image")
    vectors, found = _unit(generated, "generated")
    portrait, _ = _unit(reference, "reference")
    return float((vectors[found] @ portrait[0]).mean())


def to_frame(generated: Features, real: Features) -> float:
    """Mean over frames of the cosine to the real frame of the same index (-1 to 1), where both show a face.

    Raises MetricError for different lengths, a side without a face, or no frame in which both show one.
    """
    vectors, found = _unit(generated, "generated")
    others, seen = _unit(real, "real")
    if len(found) != len(seen):
        raise MetricError(f"{len(found)} generated frames against {len(seen)} real ones; score the common prefix")
    both = found & seen
    if not both.any():
        raise MetricError(f"no face found on both sides in {len(both)} of {len(both)} frames")
    return float((vectors[both] * others[both]).sum(axis=1).mean())


def to_mean(generated: Features, real: Features) -> float:
    """Mean over generated frames of the cosine to the clip mean: the mean of the real clip's unit embeddings.

    -1 to 1; the real clip scored so against itself is the length of its mean, below 1. Raises MetricError where
    a side has no face.
    """
    vectors, found = _unit(generated, "generated")
    others, seen = _unit(real, "real")
    centre = others[seen].mean(axis=0)
    length = float(np.linalg.norm(centre))
    if length == 0:
        raise MetricError("the mean embedding of the real clip is zero")
    return float((vectors[found] @ centre).mean() / length)


def _csim(variant: str, other: Side, compute: Callable[[Features, Features], float], label: str) -> Metric:
    return Metric(
        name=f"csim/w600k_mbf-{variant}",
        version=1,
        needs=(("generated", "arcface-w600k_mbf"), (other, "arcface-w600k_mbf")),
        level="clip",
        unit="",
        direction="higher",
        compute=compute,
        label=label,
        digits=3,
        source="cosine of ArcFace embeddings (Deng et al. 2019; InsightFace w600k_mbf, five-point alignment)",
    )


register(_csim("to-reference", "reference", to_reference, "CSIM (reference)"))
register(_csim("to-frame", "real", to_frame, "CSIM (frame)"))
register(_csim("to-mean", "real", to_mean, "CSIM (clip mean)"))
