"""Signals and pictures that several tests use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from skimage import data

from pipelines import media


def tone(seconds: float, rate: int = 16_000, hertz: float = 220.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def portrait(seconds: float = 1.0, fps: float = 25, size: int = 256, shift: float = 8.0) -> Iterator[np.ndarray]:
    """Frames of a photographed face (public domain, shipped by scikit-image) that sways to and fro."""
    photo = data.astronaut()[0:256, 96:352]
    for k in range(round(seconds * fps)):
        dx = shift * np.sin(2 * np.pi * k / fps / 1.5)
        moved = cv2.warpAffine(photo, np.float32([[1, 0, dx], [0, 1, 0]]), (256, 256), borderMode=cv2.BORDER_REPLICATE)
        yield cv2.resize(moved, (size, size), interpolation=cv2.INTER_AREA)


def write_portrait(path: Path, seconds: float = 1.0, fps: float = 25, *, audio: np.ndarray | None = None) -> Path:
    """The swaying face as a video with a tone; `audio` at 48 kHz instead of the tone, an empty one for no track."""
    sound = tone(seconds, 48_000) if audio is None else audio
    media.write_video(path, portrait(seconds, fps), fps, audio=sound if len(sound) else None, sample_rate=48_000)
    return path
