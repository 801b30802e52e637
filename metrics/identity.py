"""CSIM and F-SIM: cosine similarity of face embeddings, generated against real.

Three definitions of CSIM circulate under the one name, and the network is usually unstated; here both are in the
metric's name. Frames without a face do not enter the mean; the metric "faces/missed" counts them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from metrics.base import Direction, Features, Metric, MetricError, Side, register


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
    return float(_to_reference(generated, reference, "generated").mean())


def _to_reference(clip: Features, reference: Features, side: str) -> NDArray[np.float64]:
    """Cosines of the frames that show a face."""
    if len(reference["found"]) != 1:
        raise MetricError(f"a reference of {len(reference['found'])} frames; expected one image")
    vectors, found = _unit(clip, side)
    portrait, _ = _unit(reference, "reference")
    cosines: NDArray[np.float64] = vectors[found] @ portrait[0]
    return cosines


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


def f_sim(generated: Features, reference: Features) -> float:
    """F-SIM: mean over generated frames of max(0, cosine) to the face of the reference image (0 to 1).

    EMO and DICE-Talk define neither the network nor how a cosine becomes 0-1. Cut off at 0 the scale stays that of
    the cosine, as EMO's 77.44 of 100 for real clips suggests: (cos + 1) / 2 would give them above 90.

    Raises as CSIM to the reference.
    """
    return float(np.maximum(_to_reference(generated, reference, "generated"), 0).mean())


def f_sim_delta(generated: Features, real: Features, reference: Features) -> float:
    """|F-SIM of the generated clip - F-SIM of the real one|, both to the same reference image (0 to 1).

    The distance to the real clips' own value, because a frozen reference image would have the largest F-SIM.
    Raises as CSIM to the reference.
    """
    real_value = float(np.maximum(_to_reference(real, reference, "real"), 0).mean())
    return abs(f_sim(generated, reference) - real_value)


# Name in a metric's name (never just "ArcFace"), its extractor, and what it is.
NETWORKS = (
    ("w600k_mbf", "arcface-w600k_mbf", "InsightFace w600k_mbf: MobileFaceNet, WebFace600K"),
    ("arcface-r50", "arcface-r50", "InsightFace w600k_r50: ResNet-50, WebFace600K"),
    ("arcface-r100", "arcface-r100", "InsightFace glintr100: ResNet-100, Glint360K"),
)
_VARIANTS: tuple[tuple[str, str, Callable[..., float], tuple[Side, ...], Direction, str], ...] = (
    ("csim", "-to-reference", to_reference, ("generated", "reference"), "higher", "CSIM (reference{})"),
    ("csim", "-to-frame", to_frame, ("generated", "real"), "higher", "CSIM (frame{})"),
    ("csim", "-to-mean", to_mean, ("generated", "real"), "higher", "CSIM (clip mean{})"),
    ("f-sim", "", f_sim, ("generated", "reference"), "higher", "F-SIM{}"),
    ("f-sim-delta", "", f_sim_delta, ("generated", "real", "reference"), "lower", "F-SIM |Δ real|{}"),
)
for _network, _extractor, _what in NETWORKS:
    for _family, _suffix, _compute, _sides, _direction, _label in _VARIANTS:
        _short = _network.removeprefix("arcface-")
        _note = f", {_short}" if "(" in _label else f" ({_short})"
        register(
            Metric(
                name=f"{_family}/{_network}{_suffix}",
                version=1,
                needs=tuple((side, _extractor) for side in _sides),
                level="clip",
                unit="",
                direction=_direction,
                compute=_compute,
                label=_label.format(_note),
                digits=3,
                source=f"cosine of ArcFace embeddings (Deng et al. 2019; {_what}; five-point alignment)",
            )
        )
