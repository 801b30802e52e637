"""Metrics as functions on arrays, for code that has its clips in memory.

get("fvd/i3d-16f", weights=path)(real, fake)
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics import base
from metrics.base import ASKED, ClipViews, Extractor, Features, Metric, MetricError

CHUNK = 32
FPS = 25.0

Frames = NDArray[np.uint8] | Sequence[NDArray[np.uint8]]  # (T, H, W, 3) uint8 RGB at 25 fps
Clip = Frames | ClipViews  # frames, or all views of a clip at once
Side = Clip | Sequence[Clip]
PathLike = str | os.PathLike[str]

ARGUMENTS = {"generated": "fake", "real": "real", "reference": "reference"}
FIELDS = {  # of ClipViews, by view
    "frames": {"frames": "(T, H, W, 3) uint8 RGB"},
    "landmarks": {"landmarks": "(T, 478, 3) float32 in px, NaN where there is no face"},
    "aligned112": {
        "aligned112": "(T, 112, 112, 3) uint8 RGB faces on the ArcFace template",
        "found": "(T,) bool, where there is a face",
    },
    "waveform": {"waveform": "(n,) float32 mono in [-1, 1]", "sample_rate": "in Hz"},
}


@dataclass(frozen=True, slots=True)
class Scorer:
    """A metric with its networks and their files."""

    metric: Metric
    extractors: Mapping[str, Extractor]
    files: Mapping[str, Path]

    def __call__(
        self,
        real: Side | None = None,
        fake: Side | None = None,
        *,
        reference: Side | None = None,
        emotion: str | Sequence[str] = "unlabelled",
        identity: str | Sequence[str] = "",
    ) -> float:
        """The score.

        real, fake   one clip for a clip-level metric, a sequence of clips (or one (N, T, H, W, 3) array) for a
                     set-level one. A clip is (T, H, W, 3) uint8 RGB at 25 fps, or a ClipViews of the whole clip where
                     the metric needs more than pixels (`bench metrics show NAME` says what)
        reference    the portrait as a clip of one frame, where the metric compares with it
        emotion      what was asked for, and of whom, where the metric must know: one word, or one a clip

        Raises ValueError for a side that is missing or has no views that the metric needs, for sides or words of
        different numbers where clips are scored one by one, and for a file of another network; MetricError as the
        metric.
        """
        name, needs = self.metric.name, self.metric.needs
        given = {"generated": fake, "real": real, "reference": reference}
        needed = {part for side, _ in needs for part in _parts(side)}
        sides = {side: clips for side, clips in given.items() if side in needed and clips is not None}
        if absent := sorted(ARGUMENTS[side] for side in needed if side not in sides):
            raise ValueError(
                f"{name} needs {' and '.join(absent)}, which {'is' if len(absent) == 1 else 'are'} missing"
            )
        one = self.metric.level == "clip"
        sets: dict[str, Sequence[Any]] = {s: [clips] if one else _clips(clips, s) for s, clips in sides.items()}
        counts = {len(clips) for clips in sets.values()}
        by_clip = any(side in ("pair", "asked") for side, _ in needs)
        if 0 in counts or (by_clip and len(counts) > 1):
            shown = " and ".join(f"{len(clips)} of {ARGUMENTS[side]}" for side, clips in sets.items())
            raise ValueError(f"{name}: clips are {shown}; expected {'the same number' if by_clip else '1 or more'}")
        count = max(counts)
        words = _words(emotion, count, "emotion"), _words(identity, count, "identity")
        asked = [{"emotion": np.array(e), "identity": np.array(i)} for e, i in zip(*words, strict=True)]
        columns: list[Sequence[Features]] = []
        for side, extractor in needs:
            if (side, extractor) == ASKED:
                columns.append(asked)
            else:
                rows = zip(*(sets[part] for part in _parts(side)), strict=True)
                columns.append([self._features(extractor, *map(_whole, row)) for row in rows])
        return checked(self.metric, self.metric.compute(*(column[0] if one else column for column in columns)))

    def _features(self, name: str, clip: ClipViews, real: ClipViews | None = None) -> Features:
        extractor, networks = self.extractors[name], base.extractor(name).weights
        if lacking := _lacking(extractor.views, clip, real):
            raise ValueError(f"{self.metric.name} needs {', '.join(lacking)}; give a metrics.base.ClipViews with it")
        try:
            return extractor(_chunks(clip, real))
        except (ValueError, OSError, MemoryError):
            raise
        except Exception as error:  # of whatever type the loader of such a file raises
            if not networks or type(error).__name__ == "OutOfMemoryError":
                raise
            files = ", ".join(f"{self.files[network]} as {network}" for network in networks)
            reason = " ".join(str(error).split())[:120]
            raise ValueError(
                f"{self.metric.name}: cannot run {files} ({reason}); is it another network's file, or damaged?"
            ) from error


def get(
    name: str,
    *,
    weights: PathLike | Mapping[str, PathLike] | None = None,
    device: str = "cpu",
    options: Mapping[str, Any] | None = None,
) -> Scorer:
    """The metric of that name, ready to be called on arrays.

    weights   the file of the network that it needs, or a file for each name that `bench metrics show NAME` lists;
              `benchmark.weights.path(name)` finds or fetches one
    options   of its extractors, as metrics.base.ExtractorSpec lists them. Every variant of lse-* but `bench` imitates a
              pipeline of files and needs codecs: {"recode": pipelines.media.recode, "recode_audio":
              pipelines.media.recode_audio}

    Raises KeyError for an unknown metric and for a family, ValueError when a network's file is not given.
    """
    variants = [known for known in base.names() if known.partition("/")[0] == name]
    if variants:
        raise KeyError(f"{name!r} is a family of metrics; its variants: {', '.join(variants)}")
    metric = base.metric(name)
    chosen = {"device": device, **(options or {})}
    if "frames_per_clip" in chosen:
        raise ValueError("the option 'frames_per_clip' is a protocol's; give clips of the frames that count")
    wanted = {extractor for need in metric.needs if need != ASKED for extractor in need[1:]}
    specs = {extractor: base.extractor(extractor) for extractor in sorted(wanted)}
    networks = sorted({network for spec in specs.values() for network in spec.weights})
    if weights is not None and not isinstance(weights, Mapping) and len(networks) > 1:
        raise ValueError(f"{name} needs {len(networks)} networks ({', '.join(networks)}); give a path for each")
    given = weights if isinstance(weights, Mapping) else dict.fromkeys(networks, weights)
    files = {}
    for network in networks:
        path = given.get(network)
        if path is None:
            raise ValueError(f"{name} needs the network {network}; give weights=benchmark.weights.path({network!r})")
        with Path(path).open("rb") as file:
            files[network] = base.Weights(Path(path), hashlib.file_digest(file, "sha256").hexdigest())
    made = {key: spec.make({n: files[n] for n in spec.weights}, chosen) for key, spec in specs.items()}
    return Scorer(metric, made, {network: file.path for network, file in files.items()})


def checked(metric: Metric, value: float) -> float:
    """The value. Raises MetricError where it is NaN, which no metric means."""
    if math.isnan(value):
        raise MetricError(f"{metric.name} is NaN: its inputs are degenerate")
    return float(value)


def _lacking(views: Sequence[str], clip: ClipViews, real: ClipViews | None) -> list[str]:
    """Fields of ClipViews that an extractor reads and nobody filled, in words."""
    found = {}
    for view in views:
        of = real if view.startswith("real.") and real is not None else clip
        for field, words in FIELDS[view.removeprefix("real.").partition(":")[0]].items():
            value = getattr(of, field)
            if value is None or (field == "sample_rate" and value == 0):
                found[field] = f"{field} {words}"
    return list(found.values())


def _parts(side: str) -> tuple[str, ...]:
    """The sides that a need is made of."""
    return {"pair": ("generated", "real"), "asked": ()}.get(side, (side,))


def _words(given: str | Sequence[str], count: int, what: str) -> list[str]:
    words = [given] * count if isinstance(given, str) else list(given)
    if len(words) != count:
        raise ValueError(f"{what}: {len(words)} words for {count} clips; expected one word, or one a clip")
    return words


def _clips(side: Any, name: str) -> Sequence[Clip]:
    if isinstance(side, ClipViews) or (isinstance(side, np.ndarray) and side.ndim != 5):
        raise ValueError(
            f"{ARGUMENTS[name]}: a set-level metric takes a sequence of clips, or an (N, T, H, W, 3) array"
        )
    return list(side)


def _whole(clip: Clip) -> ClipViews:
    if isinstance(clip, ClipViews):
        return clip
    try:
        frames = np.asarray(clip)
    except ValueError:
        raise MetricError("frames of different sizes; expected a clip (T, H, W, 3) uint8 RGB") from None
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise MetricError(f"a clip of shape {frames.shape} and type {frames.dtype}; expected (T, H, W, 3) uint8 RGB")
    return ClipViews(index=np.arange(len(frames)), fps=FPS, frames=frames)


def _chunks(whole: ClipViews, real: ClipViews | None) -> Iterator[ClipViews]:
    """The views in chunks, as extractors take them; `real` is the other side of a pair, of the same length."""
    if real is not None and len(real.index) != len(whole.index):
        raise MetricError(
            f"{len(whole.index)} generated frames against {len(real.index)} real ones; give equal lengths"
        )
    for start in range(0, len(whole.index), CHUNK):
        part = _part(whole, start)
        yield part if real is None else dataclasses.replace(part, real=_part(real, start))


def _part(views: ClipViews, start: int) -> ClipViews:
    frames = slice(start, start + CHUNK)
    samples = round(views.sample_rate / views.fps) if views.sample_rate else 0
    arrays: dict[str, Any] = {
        name: None if (array := getattr(views, name)) is None else array[frames]
        for name in ("index", "frames", "landmarks", "aligned112", "found")
    }
    wave = None if views.waveform is None else views.waveform[start * samples : (start + CHUNK) * samples]
    return dataclasses.replace(views, **arrays, waveform=wave)
