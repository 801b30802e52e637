"""Acting of the demo dataset: expressions, blinks and head movement over the time of a clip."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.datasets.demo_face import MOVES, Pose
from pipelines.datasets.demo_speech import CLOSE, OPEN, TONGUE, TUCK, WIDE

Array = NDArray[np.float32]
Times = NDArray[np.floating[Any]]

# Movements of an expression at full intensity, after the action units that Ekman & Friesen (EMFACS, 1983) give
# for it: happy 6+12, surprised 1+2+5+26, angry 4+5+7+23, sad 1+4+15.
# fmt: off
EXPRESSIONS: dict[str, dict[str, float]] = {
    "neutral": {},
    "happy": {"smile": 1.0, "squint": 0.6, "part": 0.28, "brow_out": 0.15},
    "surprised": {"brow_in": 1.0, "brow_out": 1.0, "lid_wide": 1.0, "open": 0.20, "round": 0.12},
    "angry": {"brow_low": 1.0, "brow_knit": 1.0, "squint": 0.7, "lid_close": 0.12,
              "sneer": 0.40, "frown": 0.5, "close": 0.35},
    "sad": {"brow_in": 1.0, "brow_knit": 0.5, "brow_out": -0.5, "frown": 1.0, "lid_close": 0.25},
}
# fmt: on
ARTICULATION = {"neutral": 1.0, "happy": 1.1, "surprised": 1.15, "angry": 1.2, "sad": 0.8}
# Head at full intensity: pitch (radians, down positive), size of its wandering relative to neutral.
HEAD = {
    "neutral": (0.0, 1.0), "happy": (-0.02, 1.5), "surprised": (-0.06, 1.2), "angry": (0.05, 1.7), "sad": (0.08, 0.7),
}  # fmt: skip


def envelope(times: Times, rng: np.random.Generator) -> Array:
    """(T,) how much of the expression shows, 0 to 1: it is there when the clip starts, comes to its apex at a
    moment of its own, and fades a little."""
    length = float(times[-1])
    apex = length * rng.uniform(0.25, 0.55)
    start, end = rng.uniform(0.45, 0.7), rng.uniform(0.7, 0.9)
    shape = np.interp(times, [0, apex, apex + 0.25 * length, length], [start, 1.0, rng.uniform(0.9, 1.0), end])
    ripple = 0.04 * np.sin(2 * np.pi * (rng.uniform(0.5, 1.0) * times + rng.uniform()))
    out: Array = np.clip(shape + ripple, 0, 1).astype(np.float32)
    return out


def blinks(times: Times, rng: np.random.Generator) -> Array:
    """(T,) 0 open to 1 closed: one blink every 1.2 to 3 s, 0.25 s long."""
    out = np.zeros(len(times))
    moment = rng.uniform(0.3, 1.6)
    while moment < times[-1]:
        since = times - moment
        out = np.maximum(out, np.interp(since, [-0.09, 0.0, 0.03, 0.17], [0.0, 1.0, 1.0, 0.0]))
        moment += rng.uniform(1.2, 3.0)
    return out.astype(np.float32)


def expression_moves(emotion: str, amount: float, mouth: Array, times: Times, rng: np.random.Generator) -> Array:
    """(T, len(MOVES)) amounts for Face.draw. mouth: (T, 5) of demo_speech.mouth_track; amount: 0 to 1."""
    moves = np.zeros((len(times), len(MOVES)), np.float32)
    index = {name: i for i, name in enumerate(MOVES)}
    shown = envelope(times, rng) * amount
    for name, full in EXPRESSIONS[emotion].items():
        moves[:, index[name]] = full * rng.uniform(0.9, 1.1) * shown
    free = 1 - np.maximum(mouth[:, CLOSE], 0.8 * mouth[:, TUCK])  # what speech closes, no expression opens
    for name in ("open", "part", "sneer"):
        moves[:, index[name]] *= free
    articulation = 1 + amount * (ARTICULATION[emotion] - 1)
    moves[:, index["open"]] += 0.85 * articulation * mouth[:, OPEN]
    moves[:, index["spread"]] += np.maximum(mouth[:, WIDE], 0)
    moves[:, index["round"]] += 0.8 * np.maximum(-mouth[:, WIDE], 0)
    moves[:, index["close"]] = np.maximum(moves[:, index["close"]] * (1 - mouth[:, OPEN]), mouth[:, CLOSE])
    moves[:, index["tuck"]] = mouth[:, TUCK]
    lid = moves[:, index["lid_close"]]
    moves[:, index["lid_close"]] = lid + (1 - lid) * blinks(times, rng)
    moves[:, index["lid_wide"]] *= 1 - moves[:, index["lid_close"]]
    return moves


def tongue_track(mouth: Array) -> Array:
    """(T,) of Face.draw's tongue."""
    return mouth[:, TONGUE]


def _wander(times: Times, rng: np.random.Generator) -> Array:
    """(T,) smooth random movement of about unit size, below 1 Hz."""
    waves = [np.sin(2 * np.pi * (f * times + rng.uniform())) * rng.uniform(0.4, 1.0) for f in (0.23, 0.47, 0.83)]
    out: Array = (np.sum(waves, axis=0) / 1.2).astype(np.float32)
    return out


def poses(emotion: str, amount: float, loud: Array, times: Times, rng: np.random.Generator) -> list[Pose]:
    """Head of each frame. loud: (T,) loudness of the speech, 0 to 1, which the head nods to."""
    lean, size = HEAD[emotion]
    size = 1 + amount * (size - 1)
    shown = envelope(times, rng) * amount
    yaw, pitch, roll, x, y, scale = (_wander(times, rng) for _ in range(6))
    rest = rng.normal(size=3) * (0.03, 0.015, 0.015)
    return [
        Pose(*(float(v) for v in row))
        for row in np.stack(
            [
                rest[0] + 0.035 * size * yaw,
                rest[1] + 0.018 * size * pitch + lean * shown + 0.03 * size * loud,
                rest[2] + 0.018 * size * roll,
                2.0 * size * x,
                1.2 * size * y,
                1 + 0.008 * scale,
            ],
            axis=1,
        )
    ]
