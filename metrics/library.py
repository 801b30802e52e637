"""Metrics as functions on arrays, for code that has its clips in memory.

get("fvd/i3d-16f", weights=path)(real, fake)
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
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

Clip = NDArray[np.uint8] | ClipViews  # (T, H, W, 3) uint8 RGB at 25 fps, or all views of a clip at once
Side = Clip | Sequence[Clip]


@dataclass(frozen=True, slots=True)
class Scorer:
    """A metric with its networks."""

    metric: Metric
    extractors: Mapping[str, Extractor]

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
        emotion      what was asked for, and of whom, where the metric must know: one word a clip

        Raises ValueError for a side that is missing or has no views that the metric needs, MetricError as the metric.
        """
        sides = {"generated": fake, "real": real, "reference": reference}
        if self.metric.level == "clip":
            asked: Features = {"emotion": np.array(emotion), "identity": np.array(identity)}
            return self._compute([sides], [asked], clip=True)
        sets = {name: _clips(clips, name) for name, clips in sides.items() if clips is not None}
        count = max(map(len, sets.values()), default=0)
        emotions = [emotion] * count if isinstance(emotion, str) else list(emotion)
        identities = [identity] * count if isinstance(identity, str) else list(identity)
        rows = [{name: clips[k] if k < len(clips) else None for name, clips in sets.items()} for k in range(count)]
        asked_of = zip(emotions, identities, strict=True)
        return self._compute(rows, [{"emotion": np.array(e), "identity": np.array(i)} for e, i in asked_of], clip=False)

    def _compute(self, rows: Sequence[Mapping[str, Any]], asked: Sequence[Features], *, clip: bool) -> float:
        columns = []
        for need in self.metric.needs:
            if need == ASKED:
                columns.append(list(asked))
            else:
                features = (self._features(need, row) for row in rows)
                columns.append([one for one in features if one is not None])
        if not rows or any(not column for column in columns):
            missing = [side for (side, _), column in zip(self.metric.needs, columns, strict=True) if not column]
            raise ValueError(
                f"{self.metric.name} needs the side {missing[0] if missing else 'generated'!r}; none given"
            )
        return checked(self.metric, self.metric.compute(*(column[0] if clip else column for column in columns)))

    def _features(self, need: tuple[str, str], row: Mapping[str, Any]) -> Features | None:
        side, name = need
        clip = row.get("generated" if side == "pair" else side)
        other = row.get("real") if side == "pair" else None
        if clip is None or (side == "pair" and other is None):
            return None
        return self.extractors[name](_chunks(clip, other))


def get(name: str, *, weights: Path | Mapping[str, Path] | None = None, device: str = "cpu") -> Scorer:
    """The metric of that name, ready to be called on arrays.

    weights   the file of the network that it needs, or a file for each name that `bench metrics show NAME` lists;
              `benchmark.weights.path(name)` finds or fetches one

    Raises KeyError for an unknown metric, ValueError when a network's file is not given.
    """
    metric = base.metric(name)
    wanted = {extractor for need in metric.needs if need != ASKED for extractor in need[1:]}
    specs = {extractor: base.extractor(extractor) for extractor in sorted(wanted)}
    networks = sorted({network for spec in specs.values() for network in spec.weights})
    given = weights if isinstance(weights, Mapping) else dict.fromkeys(networks, weights)
    if isinstance(weights, Path) and len(networks) > 1:
        raise ValueError(f"{name} needs {len(networks)} networks ({', '.join(networks)}); give a path for each")
    files = {}
    for network in networks:
        path = given.get(network)
        if path is None:
            raise ValueError(f"{name} needs the network {network}; give weights=benchmark.weights.path({network!r})")
        with path.open("rb") as file:
            files[network] = base.Weights(path, hashlib.file_digest(file, "sha256").hexdigest())
    made = {key: spec.make({n: files[n] for n in spec.weights}, {"device": device}) for key, spec in specs.items()}
    return Scorer(metric, made)


def checked(metric: Metric, value: float) -> float:
    """The value. Raises MetricError where it is NaN, which no metric means."""
    if math.isnan(value):
        raise MetricError(f"{metric.name} is NaN: its inputs are degenerate")
    return float(value)


def _clips(side: Side, name: str) -> Sequence[Clip]:
    if isinstance(side, ClipViews) or (isinstance(side, np.ndarray) and side.ndim != 5):
        raise ValueError(f"{name}: a set-level metric takes a sequence of clips, or an array (N, T, H, W, 3)")
    return list(side)


def _whole(clip: Clip) -> ClipViews:
    if isinstance(clip, ClipViews):
        return clip
    if clip.ndim != 4 or clip.shape[3] != 3 or clip.dtype != np.uint8:
        raise MetricError(f"a clip of shape {clip.shape} and type {clip.dtype}; expected (T, H, W, 3) uint8 RGB")
    return ClipViews(index=np.arange(len(clip)), fps=FPS, frames=clip)


def _chunks(clip: Clip, other: Clip | None) -> Iterator[ClipViews]:
    """The views in chunks, as extractors take them; `other` is the real side of a pair, of the same length."""
    whole, real = _whole(clip), None if other is None else _whole(other)
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
