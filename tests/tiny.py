"""A prepared dataset of a few small videos, and metrics that need no weights, for tests of the jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from samples import tone

from benchmark import engine
from metrics import base
from pipelines import manifest, media
from pipelines.manifest import Clip


def clip(clip_id: str, identity: str = "a", emotion: str = "happy", **changes: object) -> Clip:
    """A manifest row without files."""
    values: dict[str, object] = {
        "clip_id": clip_id,
        "dataset": "tiny",
        "split": "test",
        "identity": identity,
        "emotion": emotion,
        "intensity": 1,
        "view": "front",
        "sentence": None,
        "take": clip_id,
        "video": f"{clip_id}.mp4",
        "audio": f"{clip_id}.wav",
        "landmarks": f"{clip_id}.npz",
        "fps": 25.0,
        "num_frames": 12,
        "width": 64,
        "height": 48,
        "sample_rate": 16_000,
        "source": clip_id,
        "source_sha256": f"source {clip_id}",
        "sha256": f"video {clip_id}",
        "audio_sha256": f"sound {clip_id}",
        "landmarks_sha256": f"points {clip_id}",
        "source_fps": 25.0,
        "av_start": 0.0,
        "av_end": 0.0,
        "crop": "square",
        "crop_side": 64.0,
        "padding": 0.0,
        "detected": 1.0,
        "other_faces": 0,
        "tool_version": "test",
    }
    return Clip(**(values | changes))  # type: ignore[arg-type]


def pictures(seed: int, frames: int, size: tuple[int, int] = (64, 48)) -> Iterator[np.ndarray]:
    """Moving blocks of colour, (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    for picture in rng.integers(0, 255, (frames, size[1] // 8, size[0] // 8, 3), np.uint8):
        yield picture.repeat(8, 0).repeat(8, 1)


def dataset(workspace: Path, rows: Iterable[Clip], frames: int = 12) -> list[Clip]:
    """Write files and manifest of WORKSPACE/data/tiny; each clip has pictures and a tone of its own."""
    folder = workspace / "data" / "tiny"
    made = []
    for seed, row in enumerate(rows):
        media.write_video(folder / row.video, pictures(seed, frames), 25)
        media.write_wav(folder / row.audio, tone(frames / 25, hertz=200 + 40 * seed))
        digests = {name: media.file_sha256(folder / getattr(row, name)) for name in ("video", "audio")}
        changes = {"num_frames": frames, "sha256": digests["video"], "audio_sha256": digests["audio"]}
        made.append(clip(**({name: getattr(row, name) for name in Clip.__slots__} | changes)))
    manifest.write(made, folder / "manifest.parquet")
    return made


def people(*identities: str) -> list[Clip]:
    """For each person a neutral and two happy clips."""
    return [
        clip(f"{who}_{emotion}_{take}", who, emotion, sentence=f"s{take}")
        for who in identities
        for emotion, take in (("neutral", 1), ("happy", 1), ("happy", 2))
    ]


PROTOCOL = """
name = "small"
title = "A small test"
dataset = "tiny"
frames_per_clip = 3
metrics = ["psnr/frame-mean", "colour/set", "colour/clip"]
"""


def protocol_file(workspace: Path, text: str = PROTOCOL, name: str = "small") -> Path:
    path = workspace / "protocols" / f"{name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


class MeanColour:
    """Mean colour of each frame: an extractor simple enough to check by hand. Counts its calls."""

    calls = 0

    def __init__(self, frames: int | None) -> None:
        self.id = "mean-colour@1"
        self.views = ("frames" if frames is None else f"frames:{frames}",)

    def __call__(self, chunks: Iterable[base.ClipViews]) -> dict[str, np.ndarray]:
        type(self).calls += 1
        return {"colour": np.concatenate([chunk.view("frames").mean((1, 2)) for chunk in chunks])}


def _set_distance(generated: list[base.Features], real: list[base.Features]) -> float:
    means = [np.concatenate([clip["colour"] for clip in side]).mean(0) for side in (generated, real)]
    return float(np.abs(means[0] - means[1]).mean())


def _clip_colour(generated: base.Features) -> float:
    return float(generated["colour"].mean())


def _metric(name: str, needs: tuple[tuple[base.Side, str], ...], level: base.Level, compute: Callable) -> base.Metric:
    return base.Metric(name, 1, needs, level, "", "lower", compute, "Colour", 2, "a test")


COLOUR = (
    base.ExtractorSpec("mean-colour", lambda weights, options: MeanColour(options.get("frames_per_clip"))),
    _metric("colour/set", (("generated", "mean-colour"), ("real", "mean-colour")), "set", _set_distance),
    _metric("colour/clip", (("generated", "mean-colour"),), "clip", _clip_colour),
)


def run_here(function: Callable, items: Iterable, *, workers: int) -> Iterator[engine.Outcome]:
    """engine.run without processes, so that what a test registers is known to the 'worker'."""
    for item in items:
        yield engine.Outcome(item, function(item), None)
