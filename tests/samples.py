"""Signals that several tests use."""

from __future__ import annotations

import numpy as np


def tone(seconds: float, rate: int = 16_000, hertz: float = 220.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)
