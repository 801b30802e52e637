"""Prepared clips as the reference models take them: read when asked for, and only if they are what was prepared."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmark.protocol import intact
from pipelines import manifest, media
from pipelines.manifest import Clip
from pipelines.splits import SPLITS
from reference_models.base import FPS, SAMPLE_RATE, Footage


def footage(clip: Clip, data: Path) -> Footage:
    """The clip whose files lie under `data`. Its functions raise MediaError for files that are missing or changed."""
    return Footage(
        clip_id=clip.clip_id,
        dataset=clip.dataset,
        identity=clip.identity,
        emotion=clip.emotion,
        intensity=clip.intensity,
        sentence=clip.sentence,
        source=clip.source,
        key=f"{clip.sha256}{clip.audio_sha256}{clip.landmarks_sha256}",
        num_frames=clip.num_frames,
        video=data / clip.video,
        frames=partial(frames, clip, data),
        points=partial(points, clip, data),
        audio=partial(audio, clip, data),
    )


def splits(at: Path) -> dict[str, list[Footage]]:
    """The recordings of the manifest at `at` by split; still portraits are left out. Raises ManifestError."""
    found: dict[str, list[Footage]] = {split: [] for split in SPLITS}
    for clip in manifest.read(at):
        if not clip.still:
            found.setdefault(clip.split, []).append(footage(clip, at.parent))
    return found


def frames(clip: Clip, data: Path) -> Iterator[NDArray[np.uint8]]:
    """The pictures (H, W, 3) uint8 RGB one by one. Raises MediaError."""
    path = intact(data / clip.video, clip.sha256, data.name)
    return media.read_frames(path, FPS, num_frames=clip.num_frames)


def points(clip: Clip, data: Path) -> NDArray[np.float32]:
    """The face mesh (num_frames, 478, 3) float32 in pixels; (1, 478, 3) of a still. Raises MediaError."""
    with np.load(intact(data / clip.landmarks, clip.landmarks_sha256, data.name)) as stored:
        found: NDArray[np.float32] = stored["points"].astype(np.float32)
    return found


def audio(clip: Clip, data: Path) -> NDArray[np.float32]:
    """(n,) float32 mono in [-1, 1] at SAMPLE_RATE. Raises MediaError."""
    return media.read_audio(intact(data / clip.audio, clip.audio_sha256, data.name), SAMPLE_RATE)
