"""From videos to stored features: what the metrics of a protocol need, extracted once, pair by pair, by workers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmark import engine, protocol, weights
from benchmark.errors import BenchError
from benchmark.features import Key, Store
from benchmark.protocol import Protocol
from benchmark.views import FPS, MADE, MAX_DIFFERENCE, SURVEY, Source, Survey, Video, ViewError, Wanted, extract, survey
from metrics import base
from metrics.base import Extractor, MetricError, Side
from pipelines import faces, media
from pipelines.datasets import printable

Need = tuple[Side, str]  # which side of a pair, and the name of an extractor

STILL = "the target is a still portrait with a sound: there is no real video to compare with"
MAX_SHIFT, MAX_SCALE = 0.25, 1.25  # framing that differs by more is reported; see Framing


@dataclass(frozen=True, slots=True)
class Plan:
    """What to extract, the same for all pairs.

    dataset    whose clips are the real ones
    weights    verified files by name, by extractor
    options    what extractors are built with
    crop_size  side of the common-detector crop; None for as-is
    """

    dataset: str
    store: Path
    needs: tuple[Need, ...]
    weights: Mapping[str, Mapping[str, base.Weights]]
    options: Mapping[str, Any]
    crop_size: int | None

    def extractor(self, name: str) -> Extractor:
        """Built once a process."""
        return _build(name, tuple(self.weights[name].items()), tuple(self.options.items()))


@dataclass(frozen=True, slots=True)
class Item:
    """One pair, for a worker. Digests of `real` and `reference` come from the manifest.

    num_frames  of the target; where it is a `still` portrait with a sound there is no real video
    """

    pair_id: str
    video: Path | None
    real: Source
    num_frames: int
    still: bool
    reference: Source | None


@dataclass(frozen=True, slots=True)
class Framing:
    """Median face box of the generated video against the real one's: distance of the centres in widths of the
    real face, and ratio of the widths."""

    shift: float
    scale: float

    @property
    def differs(self) -> bool:
        return self.shift > MAX_SHIFT or max(self.scale, 1 / self.scale) > MAX_SCALE


@dataclass(frozen=True, slots=True)
class Extracted:
    """Where the features of one pair lie, or why they do not.

    keys, errors  by need; `error` holds for all of them
    num_frames    frames that were scored: the common prefix of `lengths` (generated, real)
    own_sound     the generated video has a sound track; where it has none the driving sound stands in
    """

    pair_id: str
    keys: dict[Need, Key] = field(default_factory=dict)
    errors: dict[Need, str] = field(default_factory=dict)
    error: str | None = None
    sha256: str | None = None
    num_frames: int = 0
    lengths: tuple[int, int] | None = None
    own_sound: bool | None = None
    framing: Framing | None = None
    damaged: tuple[str, ...] = ()

    def problem(self, need: Need) -> str | None:
        """Why there are no features for `need`; None where there are."""
        if need in self.keys:
            return None
        return self.error or self.errors.get(need) or f"there is no {need[0]} side for this pair"


def plan(needs: Iterable[Need], asked: Protocol, store: Path, device: str) -> tuple[Plan, dict[str, str]]:
    """The plan for all needs whose weights are here, and for each other extractor why it is unavailable."""
    ready: dict[str, dict[str, base.Weights]] = {}
    unavailable: dict[str, str] = {}
    wanted = sorted(set(needs))
    for name in sorted({name for _, name in wanted}):
        try:
            files = base.extractor(name).weights
            ready[name] = {w: base.Weights(weights.path(w, fetch=False), weights.digest(w)) for w in files}
        except weights.WeightsUnavailable as error:
            unavailable[name] = f"unavailable: {error}"
    options: dict[str, Any] = {"device": device, "recode": media.recode, "recode_audio": media.recode_audio}
    if asked.frames_per_clip:
        options["frames_per_clip"] = asked.frames_per_clip
    usable = tuple(need for need in wanted if need[1] in ready)
    crop_size = asked.eval_size if asked.eval_crop == "common-detector" else None
    return Plan(asked.dataset, store, usable, ready, options, crop_size), unavailable


def run(what: Plan, items: Sequence[Item], workers: int, title: str) -> dict[str, Extracted]:
    """Extract what is not stored yet, with a progress bar; by pair id. A clip that fails is told, never raised.

    Raises BenchError when features cannot be stored.
    """
    found = {}
    with tqdm(total=len(items), desc=title, unit="clip", disable=None) as progress:
        for outcome in engine.run(partial(extract_pair, what), items, workers=workers):
            if isinstance(outcome.error, BenchError):
                raise outcome.error
            pair_id = outcome.item.pair_id
            found[pair_id] = outcome.value or Extracted(pair_id, error=_reason(outcome.error))
            progress.update()
    return found


def extract_pair(what: Plan, item: Item) -> Extracted:
    """Make sure that the features of one pair are stored; runs in a worker. Raises BenchError when they cannot be."""
    store = Store(what.store)
    done = Extracted(item.pair_id)
    prepared = {item.real.video: item.real.digest, item.real.audio: item.real.audio_digest}
    if item.reference is not None and any(side == "reference" for side, _ in what.needs):
        prepared[item.reference.video] = item.reference.digest
    try:
        for path, digest in prepared.items():
            protocol.intact(path, digest, what.dataset)
        real = None if item.still else survey(item.real, store)
        expected = item.num_frames if real is None else real.num_frames
        done = replace(done, num_frames=expected)
        if item.video is not None:
            own = _opened(item.video, item.real)
            done = replace(done, sha256=media.file_sha256(item.video), own_sound=own.audio == own.video)
            seen = survey(own, store)
            done = replace(done, lengths=(seen.num_frames, expected))
            done = replace(done, num_frames=_common_prefix(seen.num_frames, expected))
            if what.crop_size is None and real is not None:
                done = replace(done, framing=_framing(seen, real))
                if seen.size != real.size:
                    raise ViewError(
                        f"frames of {_by(seen.size)} against {_by(real.size)} of the real clip; give that size, or use "
                        "a protocol with eval_crop = 'common-detector'"
                    )
            _extract(what, store, ("generated", "pair"), (own, seen), (item.real, real) if real else None, done)
        if real is None:
            done.errors.update({need: STILL for need in what.needs if need[0] in ("real", "pair")})
        else:
            _extract(what, store, ("real",), (item.real, real), None, done)
        if item.reference is not None and any(side == "reference" for side, _ in what.needs):
            portrait = survey(item.reference, store, num_frames=1)
            _extract(what, store, ("reference",), (item.reference, portrait), None, replace(done, num_frames=1))
    except (ViewError, media.MediaError, OSError) as error:
        done = replace(done, error=_reason(error, item.video))
    return replace(done, damaged=tuple(store.damaged))


def _extract(
    what: Plan,
    store: Store,
    sides: tuple[Side, ...],
    own: tuple[Source, Survey],
    real: tuple[Source, Survey] | None,
    into: Extracted,
) -> None:
    """One pass over one video for every extractor of `sides` that is not stored; fills `into`'s keys and errors."""
    needs = [need for need in what.needs if need[0] in sides and (real is not None or need[0] != "pair")]
    keys = {need: _key(what, need, own[0], real[0] if real else None, into.num_frames) for need in needs}
    missing = {need: what.extractor(need[1]) for need in needs if store.get(keys[need]) is None}
    results: Mapping[Need, dict[str, NDArray[Any]] | Exception] = {}
    if missing:
        other = None
        try:
            if real is not None and any(Wanted.of(extractor).real for extractor in missing.values()):
                other = Video(*real, into.num_frames, what.crop_size)
            results = extract(Video(*own, into.num_frames, what.crop_size), other, missing)
        except (ViewError, media.MediaError) as error:
            results = dict.fromkeys(missing, error)
    for need, key in keys.items():
        result = results.get(need)
        if isinstance(result, Exception):
            into.errors[need] = _reason(result, own[0].video if sides[0] == "generated" else None)
            continue
        if result is not None:
            store.put(key, result)
        into.keys[need] = key


def _key(what: Plan, need: Need, own: Source, real: Source | None, num_frames: int) -> Key:
    extractor = what.extractor(need[1])
    wanted = Wanted.of(extractor)
    digests = [own.digest]
    if "waveform" in wanted.own:
        digests.append(own.audio_digest)
    if wanted.real and real is not None:
        digests.append(real.digest)
        if "waveform" in wanted.real:
            digests.append(real.audio_digest)
    views = {
        "views": list(extractor.views),
        "frames": num_frames,
        "fps": FPS,
        "crop": what.crop_size,
        "survey": SURVEY,
        "made": MADE,
        "device": getattr(extractor, "device", "cpu"),
    }
    return Key(extractor.id, tuple(digests), views)


@lru_cache(maxsize=64)
def _build(name: str, files: tuple[tuple[str, base.Weights], ...], options: tuple[tuple[str, Any], ...]) -> Extractor:
    return base.extractor(name).make(dict(files), dict(options))


def _opened(video: Path, real: Source) -> Source:
    """A generated video with its own sound, or, where it has none, the sound that drove it.

    Its pictures go by a digest of their own: what was extracted from them holds under any sound track.
    """
    pictures = media.picture_sha256(video)
    if media.probe(video).has_audio:
        return Source(video, pictures, video, media.file_sha256(video))
    return Source(video, pictures, real.audio, real.audio_digest)


def _common_prefix(own: int, real: int) -> int:
    seconds = own / FPS, real / FPS
    if abs(seconds[0] - seconds[1]) > MAX_DIFFERENCE + 1e-9:
        raise ViewError(
            f"lasts {seconds[0]:.2f} s ({own} frames at 25 fps), the real clip {seconds[1]:.2f} s "
            f"({real}); up to {MAX_DIFFERENCE} s are forgiven"
        )
    return min(own, real)


def _framing(own: Survey, real: Survey) -> Framing | None:
    if not (own.found.any() and real.found.any()):
        return None
    one, other = (np.median(faces.boxes(s.points[s.found]).astype(float), axis=0) for s in (own, real))
    width = max(other[2] - other[0], 1.0)
    centres = (one[:2] + one[2:] - other[:2] - other[2:]) / 2
    return Framing(round(float(np.hypot(*centres)) / width, 4), round(float(max(one[2] - one[0], 1.0) / width), 4))


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _reason(error: BaseException | None, video: Path | None = None) -> str:
    """One line without folders: rows must not depend on where a workspace lies. The row names `video` already."""
    text = printable(" ".join(str(error).split())) or type(error).__name__
    if isinstance(error, media.MediaError):  # "PATH: reason"
        path, _, reason = text.partition(": ")
        text = reason if path == printable(str(video)) else f"{Path(path).name}: {reason}"
    elif not isinstance(error, ViewError | MetricError | engine.WorkerDied):
        text = f"{type(error).__name__}: {text}"
    return text
