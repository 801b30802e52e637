"""Clips as reference models take them, made of numbers: faces of points that move by emotion, and sound that does."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from reference_models.base import Footage

EMOTIONS = ("angry", "happy", "sad")


def _draw(words: str, *shape: int) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(words.encode())).standard_normal(shape)


def face(identity: str, emotion: str, take: int, frames: int) -> np.ndarray:
    """(frames, 478, 3) float32: a person's face, pulled along the emotion's direction, speaking, turning, trembling."""
    rng = np.random.default_rng(zlib.crc32(f"{identity}{emotion}{take}".encode()))
    time = np.arange(frames)[:, None, None] / 25
    shape = _draw("face", 478, 3) * (30, 40, 15) + 3 * _draw(identity, 478, 3)
    speech = np.sin(9 * time + take) * 2 * _draw("mouth", 478, 3)
    pulled = (1 + 0.3 * np.sin(3 * time + take)) * 1.5 * _draw(emotion, 478, 3)
    points = shape + speech + pulled + 0.1 * rng.standard_normal((frames, 478, 3))
    turns = Rotation.from_euler("yxz", 10 * np.sin(time[:, 0] * [1, 1.7, 2.3] + take), degrees=True)
    turned = np.einsum("nij,npj->npi", turns.as_matrix(), points)
    return (turned * (1 + 0.1 * np.sin(time)) + [128, 128, 0]).astype(np.float32)


def sound(emotion: str, take: int, frames: int) -> np.ndarray:
    """Harmonics whose pitch is the emotion's, with a little noise."""
    time = np.arange(frames * 640) / 16_000
    pitch = {"angry": 260, "happy": 330, "sad": 130}.get(emotion, 200) * (1 + 0.02 * take)
    tone = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 6))
    noise = np.random.default_rng(take).standard_normal(len(time))
    return (0.1 * tone * (1 + np.sin(20 * time)) + 0.002 * noise).astype(np.float32)


def talker(identity: str, emotion: str, take: int = 0, frames: int = 40, folder: Path = Path("nowhere")) -> Footage:
    def nothing() -> Iterable[np.ndarray]:
        raise AssertionError("the pictures are not to be decoded")

    name = f"{identity}_{emotion}_{take}"
    pictures: Callable[[], Iterable[np.ndarray]] = nothing
    return Footage(
        clip_id=name,
        dataset="talkers",
        identity=identity,
        emotion=emotion,
        intensity=1 + take % 3,
        sentence=None,
        source=name,
        key=f"{name}{frames}",
        num_frames=frames,
        video=folder / f"{name}.mp4",
        frames=pictures,  # type: ignore[arg-type]
        points=lambda: face(identity, emotion, take, frames),
        audio=lambda: sound(emotion, take, frames),
    )


def people(*identities: str, takes: int = 2, frames: int = 40, folder: Path = Path("nowhere")) -> list[Footage]:
    return [talker(who, how, take, frames, folder) for who in identities for how in EMOTIONS for take in range(takes)]


def unlabelled(clip: Footage, source: str) -> Footage:
    return replace(clip, emotion="unlabelled", source=source)
