"""Views of a clip, made once: one decode feeds every extractor, in chunks of at most CHUNK frames.

A video is opened twice in its life: `survey` counts its frames and finds the face in each (kept in the feature
store), `extract` decodes it once for all extractors that are still missing. Everything stands on a 25 fps grid.
Where fewer frames are wanted ("frames:N"), frame floor((k + 1/2) * T / N) of T is taken for k = 0 ... N-1: the
middles of N equal stretches; a clip with at most N frames gives all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from queue import Queue
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmark.features import Key, Store
from metrics.base import ClipViews, Extractor
from pipelines import crop, faces, media

CHUNK = 32
FPS = 25.0
SAMPLE_RATE = 16_000
SAMPLES = 640  # a frame
MAX_DIFFERENCE = 0.2  # s by which two sides, or sound and picture, may differ in length
# Parts of the keys of the feature store. Raise SURVEY when faces are found otherwise (pipelines.faces), MADE when
# views are made otherwise from the same files and faces (pipelines.crop, this file): old features are then ignored.
SURVEY = "survey@facemesh-1"
MADE = 2
VIEWS = ("frames", "landmarks", "aligned112", "waveform")

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
R = TypeVar("R")


class ViewError(Exception):
    """A clip, or a pair of clips, that cannot be shown as asked; the message becomes an error row."""


@dataclass(frozen=True, slots=True)
class Source:
    """A video file, and the file whose first audio track belongs to it (may be the same), with the SHA-256 of what
    determines the frames and of what determines the samples."""

    video: Path
    digest: str
    audio: Path
    audio_digest: str


@dataclass(frozen=True, slots=True)
class Survey:
    """size (width, height); points (T, 478, 3) float32 in pixels, NaN where no face was found."""

    size: tuple[int, int]
    points: NDArray[np.float32]

    @property
    def num_frames(self) -> int:
        return len(self.points)

    @property
    def found(self) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = ~np.isnan(self.points[:, 0, 0])
        return found


def survey(source: Source, store: Store, num_frames: int | None = None) -> Survey:
    """Count the frames of a video, or of its first `num_frames`, and find the main face in each; kept in `store`.

    Raises MediaError when it cannot be decoded to its end.
    """
    key = Key(SURVEY, (source.digest,), {"num_frames": num_frames})
    stored = store.get(key)
    if stored is None:
        stored = _survey(source.video, num_frames)
        store.put(key, stored)
    width, height = stored["size"].tolist()
    return Survey((width, height), stored["points"])


def _survey(path: Path, num_frames: int | None) -> dict[str, NDArray[Any]]:
    seen: list[tuple[int, int]] = []

    def frames() -> Iterator[NDArray[np.uint8]]:
        seen.clear()
        for frame in media.read_frames(path, FPS, num_frames=num_frames):
            seen.append((frame.shape[1], frame.shape[0]))
            yield frame

    try:
        found = faces.track(frames, FPS)
        points = np.where(found.detected[:, None, None], found.points, np.float32(np.nan))
    except faces.FaceError:
        points = np.full((len(seen), faces.NUM_POINTS, 3), np.nan, np.float32)
    return {"size": np.array(seen[0]), "points": points.astype(np.float32)}


class Video:
    """One side of a pair, ready to be read: `num_frames` frames, as they are or cut around the face.

    size     (width, height) of the frames that `frames` yields
    points   (num_frames, 478, 3) float32 landmarks in pixels of those frames, NaN where no face was found

    Raises ViewError when the face that the crop needs was never found.
    """

    def __init__(self, source: Source, seen: Survey, num_frames: int, crop_size: int | None) -> None:
        self.source, self.num_frames = source, num_frames
        self.size, self.points = seen.size, seen.points[:num_frames]
        self.found = seen.found[:num_frames]
        self._crop: crop.Cropper | None = None
        if crop_size is not None:
            if not self.found.any():
                raise ViewError("no face in any frame, so the common-detector crop cannot be made")
            # The crop needs a face everywhere: where none was found the nearest found one stands in.
            known = np.flatnonzero(self.found)
            nearest = known[np.rint(np.interp(np.arange(num_frames), known, np.arange(len(known)))).astype(int)]
            self._crop = crop.Cropper("square", self.points[nearest], seen.size, crop_size, FPS)
            self.size = (crop_size, crop_size)
            self.points = np.where(self.found[:, None, None], self._crop.points, np.float32(np.nan))

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """(H, W, 3) uint8 RGB, exactly num_frames of them. Raises MediaError, or ViewError if they end early."""
        count = 0
        for count, frame in enumerate(media.read_frames(self.source.video, FPS, num_frames=self.num_frames), 1):
            shown = frame if self._crop is None else self._crop(frame, count - 1)
            if shown.shape[1::-1] != self.size:
                raise ViewError(f"frame {count - 1} is {_by(shown.shape[1::-1])}, the first was {_by(self.size)}")
            yield shown
        if count < self.num_frames:
            raise ViewError(f"decoding gave {count} of {self.num_frames} frames; is the file being rewritten?")

    def waveform(self) -> NDArray[np.float32]:
        """(n,) float32 mono at SAMPLE_RATE, as long as the frames or up to MAX_DIFFERENCE s shorter.

        Raises ViewError where the sound is shorter still, MediaError where there is none.
        """
        wave = media.read_audio(self.source.audio, SAMPLE_RATE)
        length = self.num_frames * SAMPLES
        if length - len(wave) > MAX_DIFFERENCE * SAMPLE_RATE:
            seconds, heard = self.num_frames / FPS, len(wave) / SAMPLE_RATE
            raise ViewError(f"the sound lasts {heard:.2f} s, the picture {seconds:.2f} s")
        return wave[:length]


def _by(size: tuple[int, ...]) -> str:
    return f"{size[0]}x{size[1]}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an extractor declares, taken apart: its own views, those of the real side, and how many frames."""

    own: frozenset[str]
    real: frozenset[str]
    count: int | None

    @classmethod
    def of(cls, extractor: Extractor) -> Wanted:
        own: set[str] = set()
        real: set[str] = set()
        counts: set[int | None] = set()
        for view in extractor.views:
            name, _, count = view.removeprefix("real.").partition(":")
            if name not in VIEWS:
                raise ValueError(f"{extractor.id} asks for the view {view!r}; known: {', '.join(VIEWS)}")
            (real if view.startswith("real.") else own).add(name)
            counts.add(int(count) if count else None)
        if len(counts) > 1:
            raise ValueError(f"{extractor.id} asks for different numbers of frames: {', '.join(extractor.views)}")
        return cls(frozenset(own), frozenset(real), counts.pop() if counts else None)

    def indices(self, num_frames: int) -> NDArray[np.int64]:
        """Frames of a clip of `num_frames` that are given; see the module's text."""
        if self.count is None or self.count >= num_frames:
            return np.arange(num_frames)
        return np.floor((np.arange(self.count) + 0.5) * num_frames / self.count).astype(np.int64)


def extract(
    own: Video, real: Video | None, extractors: Mapping[K, Extractor]
) -> dict[K, dict[str, NDArray[Any]] | Exception]:
    """Run extractors over one clip, each on its own thread, fed by one decode of each side.

    An extractor that fails has its exception as result. Raises MediaError or ViewError when a video itself fails.
    """
    wanted = {key: Wanted.of(extractor) for key, extractor in extractors.items()}
    waves: dict[str, NDArray[np.float32] | Exception] = {}
    for side, video in (("own", own), ("real", real)):
        if video is not None and any("waveform" in getattr(w, side) for w in wanted.values()):
            waves[side] = _try(video.waveform)
    results: dict[K, dict[str, NDArray[Any]] | Exception] = {}
    consumers: dict[K, Callable[[Iterable[Chunk]], dict[str, NDArray[Any]]]] = {}
    for key, extractor in extractors.items():
        silent = [wave for side, wave in waves.items() if "waveform" in getattr(wanted[key], side)]
        broken = next((wave for wave in silent if isinstance(wave, Exception)), None)
        if broken is not None:
            results[key] = broken
        else:
            consumers[key] = _consumer(extractor, wanted[key], own.num_frames)
    heard = {side: wave for side, wave in waves.items() if not isinstance(wave, Exception)}
    aligned = {side: any("aligned112" in getattr(wanted[key], side) for key in consumers) for side in ("own", "real")}
    return results | fan_out(_chunks(own, real, heard, aligned), consumers)


def _try(action: Callable[[], T]) -> T | Exception:
    try:
        return action()
    except (ViewError, media.MediaError) as error:
        return error


@dataclass(frozen=True, slots=True)
class Chunk:
    """Every view that somebody wants of consecutive frames, on both sides."""

    own: ClipViews
    real: ClipViews | None


def _chunks(
    own: Video, real: Video | None, waves: Mapping[str, NDArray[np.float32]], aligned: Mapping[str, bool]
) -> Iterator[Chunk]:
    streams = {"own": (own, own.frames())}
    if real is not None:
        streams["real"] = (real, real.frames())
    for start in range(0, own.num_frames, CHUNK):
        views = {}
        for side, (video, frames) in streams.items():
            stack = np.stack(list(islice(frames, min(CHUNK, own.num_frames - start))))  # (t, H, W, 3)
            views[side] = _views(video, start, stack, waves.get(side), aligned[side])
        yield Chunk(views["own"], views.get("real"))


def _views(
    video: Video, start: int, frames: NDArray[np.uint8], wave: NDArray[np.float32] | None, aligned: bool
) -> ClipViews:
    index = np.arange(start, start + len(frames))
    points, found = video.points[index], video.found[index]
    crops = np.zeros((len(frames), 112, 112, 3), np.uint8) if aligned else None
    if crops is not None:
        for k in np.flatnonzero(found):
            crops[k] = crop.align(frames[k], faces.five_points(points[k]), crop.ARCFACE_TEMPLATE, 112)
    return ClipViews(
        index=index,
        fps=FPS,
        frames=frames,
        landmarks=points,
        aligned112=crops,
        found=found,
        waveform=None if wave is None else wave[start * SAMPLES : (start + len(frames)) * SAMPLES],
        sample_rate=SAMPLE_RATE,
    )


def _consumer(
    extractor: Extractor, wanted: Wanted, num_frames: int
) -> Callable[[Iterable[Chunk]], dict[str, NDArray[Any]]]:
    taken = wanted.indices(num_frames)

    def views(chunks: Iterable[Chunk]) -> Iterator[ClipViews]:
        for chunk in chunks:
            keep = np.isin(chunk.own.index, taken)
            if not keep.any():
                continue
            other = None
            if wanted.real:
                if chunk.real is None:
                    raise ViewError("there is no real clip to compare with")
                other = _only(chunk.real, wanted.real, keep, None)
            yield _only(chunk.own, wanted.own, keep, other)

    return lambda chunks: extractor(views(chunks))


def _only(views: ClipViews, names: frozenset[str], keep: NDArray[np.bool_], real: ClipViews | None) -> ClipViews:
    """The views of `names` alone, of the frames that are kept."""

    def of(name: str, array: NDArray[Any] | None, by: NDArray[np.bool_] = keep) -> Any:
        if name not in names or array is None:
            return None
        return array if by.all() else array[by]

    samples = np.repeat(keep, SAMPLES)[: 0 if views.waveform is None else len(views.waveform)]
    return ClipViews(
        index=views.index[keep],
        fps=views.fps,
        frames=of("frames", views.frames),
        landmarks=of("landmarks", views.landmarks),
        aligned112=of("aligned112", views.aligned112),
        found=views.found[keep] if views.found is not None and names & {"landmarks", "aligned112"} else None,
        waveform=of("waveform", views.waveform, samples),
        sample_rate=views.sample_rate if "waveform" in names else 0,
        real=real,
    )


class _Feed(Generic[T]):
    """The items that one consumer pulls; at most two wait."""

    def __init__(self) -> None:
        self._queue: Queue[tuple[T] | BaseException | None] = Queue(maxsize=2)
        self._over = False

    def put(self, item: tuple[T] | BaseException | None) -> None:
        """An item in a tuple, None for the end, or the exception with which the source ended."""
        self._queue.put(item)

    def __iter__(self) -> _Feed[T]:
        return self

    def __next__(self) -> T:
        if self._over:
            raise StopIteration
        item = self._queue.get()
        if isinstance(item, tuple):
            return item[0]
        self._over = True
        raise StopIteration if item is None else item

    def drain(self) -> None:
        """Take what is left, so that the source is never held up by a consumer that stopped early."""
        while not self._over:
            self._over = not isinstance(self._queue.get(), tuple)


def fan_out(items: Iterable[T], consumers: Mapping[K, Callable[[Iterable[T]], R]]) -> dict[K, R | Exception]:
    """Give every item to every consumer, each pulling on its own thread; one pass over `items`.

    A consumer that raises has its exception as result and disturbs nobody; one that stops early is fine too.
    Raises whatever `items` raises, after all consumers have ended. Memory: two items a consumer.
    """
    if not consumers:
        return {}
    feeds: dict[K, _Feed[T]] = {key: _Feed() for key in consumers}

    def work(key: K) -> R | Exception:
        try:
            return consumers[key](feeds[key])
        except Exception as error:
            return error
        finally:
            feeds[key].drain()

    with ThreadPoolExecutor(len(consumers)) as pool:
        futures = {key: pool.submit(work, key) for key in consumers}
        end: BaseException | None = None
        try:
            for item in items:
                for feed in feeds.values():
                    feed.put((item,))
        except BaseException as error:
            end = error
            raise
        finally:
            for feed in feeds.values():
                feed.put(end)
    return {key: future.result() for key, future in futures.items()}
