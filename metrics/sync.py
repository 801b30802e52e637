"""LSE-C, LSE-D and offset: how well lips and voice go together, by SyncNet's distance.

For each shift of at most 15 frames the distances of all windows are averaged (metrics.networks.syncnet). LSE-D is the
smallest of the 31 means, LSE-C their median less the smallest, the offset the shift of the smallest in frames. Because
the best shift is sought for each clip, a constant lag is invisible in them; hence the offset and the score at 0.

The pipelines that circulate under these names differ in what SyncNet is shown, and their numbers do not compare:

syncnet-python        joonson/syncnet_python @6efbb1c, all of it: the video recoded as AVI (MPEG-4 and MP3) and as
                      JPEGs, S3FD, scene cuts, tracks of more than 100 detections, its crop, XVID and JPEG once more.
                      Wav2Lip's calculate_scores_real_videos.sh is this too.
syncnet-python-min50  the same with tracks of more than 50
latentsync            bytedance/LatentSync's eval: the same with 50, H.264 and AAC in place of AVI, the crop's sound in
                      AAC again
wav2lip-lrs           Rudrabha/Wav2Lip's calculate_scores_LRS.py: no tracking, the whole frame squashed to 224 x 224
cropped               syncnet_python's demo: the frames are 224 x 224 crops already
bench                 our own: the same crop around our landmarks, tracks of 25 frames or more, no recoding

A clip's score is the mean over its tracks; `tracks` gives each one's.
"""

from __future__ import annotations

import inspect
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from metrics.base import (
    ClipViews,
    Direction,
    Extractor,
    ExtractorSpec,
    Features,
    Metric,
    MetricError,
    Table,
    Weights,
    register,
)
from metrics.networks.s3fd import SCALE, THRESHOLD, S3fdDetector, iou
from metrics.networks.syncnet import CONSTANTS, SAMPLE_RATE, SAMPLES, SIZE, VSHIFT, SyncNet, to_int16

Frame = NDArray[np.uint8]  # (H, W, 3) RGB
Boxes = NDArray[np.float64]  # (n, 4) left, top, right, bottom in px
Recode = Callable[[str, Iterable[Frame]], Iterator[Frame]]
RecodeAudio = Callable[[str, NDArray[np.int16]], NDArray[np.int16]]

FPS = 25.0
VERSION = 1  # of everything below that decides what SyncNet is shown

# Scene cuts: ContentDetector of PySceneDetect 0.5.1, the version that syncnet_python pins (threshold 27 came later).
CUT = 30.0
MIN_SCENE = 15  # frames
SUBSAMPLED = (
    (3200, 12),
    (2100, 8),
    (1700, 6),
    (1200, 5),
    (900, 4),
    (600, 3),
    (400, 2),
)  # from this width, every nth px

# Tracks and crops: run_pipeline.py.
OVERLAP = 0.5
MISSED = 25  # frames
SMOOTH = 13  # frames of the median filter
MARGIN = 0.4
GREY = 110

# An AVI keeps no record of the MP3 encoder's delay, so the sound comes that much later when it is read again; the muxer
# moves the picture by whole frames so that no time is negative, and FFmpeg shows the first frame until then. Scenes are
# read by OpenCV, which knows nothing of it: as many frames as there were, the last ones therefore never looked at.
LATE_SAMPLES = 1105
LATE_FRAMES = -(-LATE_SAMPLES // SAMPLES)

PUBLISHED = {"offset": 3.0, "distance": 5.353, "confidence": 10.021}  # syncnet_python's README, of its data/example.avi


class SceneCuts:
    """Tells, frame by frame, where a new scene begins: `cuts(frame)` is True for its first frame.

    The mean absolute difference of hue, saturation and value (OpenCV's uint8 HSV) to the frame before is 30 or more,
    and 15 frames have passed since the last cut.
    """

    def __init__(self) -> None:
        self._count = -1
        self._before: NDArray[np.int32] | None = None
        self._last: int | None = None

    def __call__(self, frame: Frame) -> bool:
        import cv2

        self._count += 1
        step = next((factor for width, factor in SUBSAMPLED if frame.shape[1] >= width), 1)
        hsv = cv2.cvtColor(np.ascontiguousarray(frame[::step, ::step]), cv2.COLOR_RGB2HSV).astype(np.int32)
        before, self._before = self._before, hsv
        if before is None or np.abs(hsv - before).mean() < CUT:
            return False
        if self._last is not None and self._count - self._last < MIN_SCENE:
            return False
        self._last = self._count
        return True


def crop(frame: Frame, x: float, y: float, s: float) -> Frame:
    """The (224, 224, 3) crop that SyncNet is shown: columns x ± 1.4 s, rows y - s to y + 1.8 s, linearly resized.

    s is half the larger side of the face box, (x, y) its centre, all in px; 110 stands outside the picture.
    Raises MetricError for a box that reaches too far outside the picture for the published code.
    """
    import cv2

    pad = int(s * (1 + 2 * MARGIN))
    # Rounded towards zero in the coordinates of the padded picture, as published.
    top, bottom = int(y + pad - s) - pad, int(y + pad + s * (1 + 2 * MARGIN)) - pad
    left, right = int(x + pad - s * (1 + MARGIN)) - pad, int(x + pad + s * (1 + MARGIN)) - pad
    height, width = frame.shape[:2]
    bottom, right = min(bottom, height + pad), min(right, width + pad)
    if top < -pad or left < -pad or bottom <= top or right <= left:
        where = f"({x:.0f}, {y:.0f}), {2 * s:.0f} px,"
        raise MetricError(f"the face box at {where} cannot be cut from a {width}x{height} frame")
    shown = np.full((bottom - top, right - left, 3), GREY, np.uint8)
    rows, columns = slice(max(top, 0), min(bottom, height)), slice(max(left, 0), min(right, width))
    part = frame[rows, columns]
    if part.size:
        y0, x0 = rows.start - top, columns.start - left
        shown[y0 : y0 + part.shape[0], x0 : x0 + part.shape[1]] = part
    return np.asarray(cv2.resize(shown, (SIZE, SIZE)), np.uint8)


class _Crops:
    """The crops of all tracks in one file; the places of a dropped track are used again."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by the tracker)
        self._free: list[int] = []
        self._count = 0

    def add(self, shown: Frame) -> int:
        """Keep a crop; its place."""
        if not self._free:
            self._free.append(self._count)
            self._count += 1
        place = self._free.pop()
        self._file.seek(place * shown.nbytes)
        self._file.write(shown.tobytes())
        return place

    def read(self, place: int) -> Frame:
        size = SIZE * SIZE * 3
        self._file.seek(place * size)
        return np.frombuffer(self._file.read(size), np.uint8).reshape(SIZE, SIZE, 3)

    def drop(self, places: Iterable[int]) -> None:
        self._free += places

    def close(self) -> None:
        self._file.close()


class _Track:
    """One face over consecutive frames; its crops wait in a file, for whether it is long enough shows at its end."""

    def __init__(self, first: int, box: Boxes, crops: _Crops) -> None:
        self.first, self.detections = first, 1
        self.boxes = [box]  # of every frame; missed ones are interpolated
        self._crops = crops
        self._places: list[int] = []
        self._cut = 0
        self.unfit: MetricError | None = None  # why it cannot be cut, should it be wanted

    @property
    def last(self) -> int:
        return self.first + len(self.boxes) - 1

    @property
    def side(self) -> float:
        """Mean width or height in px, the larger of the two."""
        boxes = np.array(self.boxes)
        return float((boxes[:, 2:] - boxes[:, :2]).mean(axis=0).max())

    def extend(self, frame: int, box: Boxes) -> None:
        gap, start = frame - self.last, self.boxes[-1]
        self.boxes += [start + (box - start) / gap * k for k in range(1, gap)]
        self.boxes.append(box)
        self.detections += 1

    def cut(self, frames: Mapping[int, Frame], ended: bool = False) -> None:
        """Crop every frame whose smoothing window is complete; zeros stand beyond a track's ends (scipy's medfilt)."""
        half = SMOOTH // 2
        while self._cut < len(self.boxes) - (0 if ended else half):
            near = np.array(self.boxes[max(0, self._cut - half) : self._cut + half + 1])
            size = near[:, 2:] - near[:, :2]
            path = np.column_stack([near[:, :2] + size / 2, size.max(axis=1) / 2])  # x, y, s
            x, y, s = np.median(np.vstack([path, np.zeros((SMOOTH - len(path), 3))]), axis=0)
            try:
                self._places.append(self._crops.add(crop(frames[self.first + self._cut], x, y, s)))
            except MetricError as error:
                self.unfit = self.unfit or error
            self._cut += 1

    def crops(self) -> Iterator[Frame]:
        return map(self._crops.read, self._places)

    def drop(self) -> None:
        self._crops.drop(self._places)


class Tracker:
    """Faces followed through a video and cut out, frame by frame: what track_shot and crop_video do afterwards.

    A track takes, in each frame, the first free face (best score first) that overlaps its last one by more than half;
    it ends after 25 misses or at a scene cut. An older track chooses first; what is left begins new ones. That gives
    the tracks of the published code, which makes them one after the other. Of those that have ended the ones of more
    than `longer_than` detections and a larger mean side than `wider_than` px stay; 32 frames are held in memory.
    """

    def __init__(self, longer_than: int, wider_than: float) -> None:
        self._longer_than, self._wider_than = longer_than, wider_than
        self.tracks: list[_Track] = []
        self._dropped, self._longest = 0, (0, 0.0)  # how many; detections and side of the longest of them
        self._crops = _Crops()
        self._open: list[_Track] = []
        self._frames: dict[int, Frame] = {}
        self._count = 0

    def add(self, frame: Frame, boxes: Boxes, scene: bool = False) -> None:
        """The next frame and its faces (n, 4); `scene` where it begins a new scene."""
        now, self._count = self._count, self._count + 1
        self._end([track for track in self._open if scene or now - track.last > MISSED])
        self._frames[now] = frame
        self._frames.pop(now - MISSED - SMOOTH // 2 - 1, None)
        free = list(boxes)
        for track in self._open:
            fits = (k for k, box in enumerate(free) if iou(track.boxes[-1], box[None])[0] > OVERLAP)
            chosen = next(fits, None)
            if chosen is not None:
                track.extend(now, free.pop(chosen))
                track.cut(self._frames)
        new = [_Track(now, box, self._crops) for box in free]
        self.tracks += new
        self._open += new

    def finish(self) -> None:
        """The video is over."""
        self._end(list(self._open))

    def _end(self, tracks: Sequence[_Track]) -> None:
        for track in tracks:
            self._open.remove(track)
            if track.detections > self._longer_than and track.side > self._wider_than:
                track.cut(self._frames, ended=True)
                continue
            self.tracks.remove(track)
            track.drop()
            self._dropped += 1
            self._longest = max(self._longest, (track.detections, track.side))

    def accepted(self) -> list[_Track]:
        """The tracks of a finished video. Raises MetricError if there is none, or one cannot be cut."""
        if not self.tracks:
            if not self._dropped:
                raise MetricError("no face in any frame")
            detections, side = self._longest
            raise MetricError(
                f"no face track of more than {self._longer_than} detections and {self._wider_than:g} px; the longest "
                f"of {self._dropped} has {detections} and {side:.0f} px"
            )
        for track in self.tracks:
            if track.unfit is not None:
                raise track.unfit
        return self.tracks

    def close(self) -> None:
        self._crops.close()


@dataclass(frozen=True, slots=True)
class Variant:
    """What a pipeline shows SyncNet; codecs are names of the option "recode", None for none.

    faces        "s3fd" or "landmarks" tracks and crops; "squash" the whole frame; "as-is" ready crops
    longer_than  detections, and wider_than px, that a track must exceed
    video, sound, still   codecs of the whole clip: its picture, its sound, then its single frames
    crop_video, crop_sound, crop_still   the same of a crop
    """

    name: str
    faces: Literal["s3fd", "landmarks", "squash", "as-is"]
    longer_than: int = 0
    wider_than: float = 0
    video: str | None = None
    sound: str | None = None
    still: str | None = None
    crop_video: str | None = None
    crop_sound: str | None = None
    crop_still: str | None = None

    @property
    def extractor(self) -> str:
        return f"syncnet-{self.name.removeprefix('syncnet-')}"

    @property
    def tracked(self) -> bool:
        return self.faces in ("s3fd", "landmarks")

    def constants(self) -> str:
        """All that decides the variant's numbers, a line a step."""
        lines = {
            "picture": f"{FPS:g} fps, {_coded_as(self.video, self.still)}",
            "voice": f"{SAMPLE_RATE} Hz, int16, {_coded_as(self.sound)}",
        }
        if self.sound == "mp3":
            lines["voice"] += f": {LATE_SAMPLES} samples late, the picture {LATE_FRAMES} frames"
        if self.faces == "s3fd":
            lines["faces"] = f"S3FD above {THRESHOLD} of the picture at scale {SCALE}"
            lines["scenes"] = f"cut where HSV changes by {CUT:g} or more, {MIN_SCENE} frames or more apart"
        elif self.faces == "landmarks":
            lines["faces"] = "the box of the 478 landmarks"
        if self.tracked:
            size = f" and {self.wider_than:g} px" if self.wider_than else ""
            lines["tracks"] = (
                f"IoU above {OVERLAP}, over gaps of {MISSED} frames or fewer, more than {self.longer_than} "
                f"detections{size}"
            )
            lines["crop"] = (
                f"x ± {1 + MARGIN:g} s, y - s to y + {1 + 2 * MARGIN:g} s around the box's centre, s half its larger "
                f"side (margin {MARGIN}), grey {GREY} outside"
            )
            lines["smoothing"] = f"x, y and s each through a median filter of {SMOOTH} frames"
            lines["shown"] = f"{SIZE} x {SIZE} px, {_coded_as(self.crop_video, self.crop_still)}"
            lines["crop's voice"] = _coded_as(self.crop_sound)
        elif self.faces == "squash":
            lines["crop"] = f"none: the whole frame squashed to {SIZE} x {SIZE} px"
        else:
            lines["crop"] = f"none: the frames are crops of {SIZE} x {SIZE} px"
        lines |= CONSTANTS
        return "\n".join(f"{what:14}{value}" for what, value in lines.items())


def _coded_as(*codecs: str | None) -> str:
    return ", then ".join(f"coded as {codec}" for codec in codecs if codec) or "not recoded"


_AVI = {"video": "mpeg4-q2", "sound": "mp3", "still": "jpeg-q2", "crop_video": "mpeg4-opencv", "crop_still": "jpeg"}
_MP4 = _AVI | {"video": "h264", "sound": "aac", "crop_sound": "aac"}
VARIANTS = (
    Variant("syncnet-python", "s3fd", 100, 100, **_AVI),
    Variant("syncnet-python-min50", "s3fd", 50, 100, **_AVI),
    Variant("latentsync", "s3fd", 50, 100, **_MP4),
    Variant("wav2lip-lrs", "squash", still="jpeg"),
    Variant("cropped", "as-is", still="jpeg"),
    Variant("bench", "landmarks", 24),
)


_GIVE = "; give options={'recode': pipelines.media.recode, 'recode_audio': pipelines.media.recode_audio}"


class SyncFeatures:
    """Distances of lips and voice at 31 shifts for each track of a clip, by one of the pipelines of metrics.sync.

    frames      (t, H, W, 3) uint8 RGB, consecutive, 25 fps
    landmarks   (t, 478, 3), only by `bench`; NaN where no face was found
    waveform    their samples at 16 kHz in [-1, 1]

    Gives {"distances": (windows of all tracks, 31), "windows", "first", "frames": (K,) of each of K tracks, "boxes":
    (frames of all tracks, 4) left, top, right, bottom in px}. Column j is the distance at offset 15 - j.

    Raises MetricError for no track, too few frames or samples, silence, frames of another size than `cropped` takes;
    ValueError for weights that are not as published, and without the codecs that the variant needs.
    """

    def __init__(self, variant: Variant, weights: Mapping[str, Weights], options: Mapping[str, Any]) -> None:
        self._variant = variant
        device = options.get("device", "cpu")
        self.device = device.partition(":")[0]
        self._network = SyncNet(weights["syncnet-v2"], device)
        self._detector = S3fdDetector(weights["s3fd"], device) if "s3fd" in weights else None
        digests = "-".join(f"{name}-{file.sha256[:8]}" for name, file in sorted(weights.items()))
        self.id = f"{variant.extractor}@{VERSION}-{digests}"
        found = ("landmarks",) if variant.faces == "landmarks" else ()
        self.views: tuple[str, ...] = ("frames", *found, "waveform")
        self._recode: Recode | None = options.get("recode")
        self._recode_audio: RecodeAudio | None = options.get("recode_audio")

    @property
    def definition(self) -> str:
        """What `bench metrics show` prints: these words, then the variant's constants."""
        return f"{inspect.getdoc(type(self))}\n\n{self._variant.constants()}"

    def __call__(self, chunks: Iterable[ClipViews]) -> dict[str, NDArray[Any]]:
        heard: list[NDArray[np.float32]] = []
        pictures = _pictures(chunks, heard, "landmarks" in self.views)
        if not self._variant.tracked:
            return self._whole(pictures, heard)
        tracker = Tracker(self._variant.longer_than, self._variant.wider_than)
        try:
            self._follow(tracker, pictures)
            samples = self._sound(to_int16(np.concatenate(heard)))
            found = tracker.accepted()
            scored = [self._track(track, samples) for track in found]
            places = [(track.first, np.array(track.boxes)) for track in found]
        finally:
            tracker.close()
        return _packed(scored, places)

    def _whole(self, pictures: Iterable[tuple[Frame, Boxes]], heard: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
        import cv2

        size, count = (0, 0), 0

        def crops() -> Iterator[Frame]:
            nonlocal size, count
            for frame in self._coded(self._variant.still, (frame for frame, _ in pictures)):
                size, count = frame.shape[1::-1], count + 1
                if self._variant.faces == "squash":
                    frame = np.asarray(cv2.resize(frame, (SIZE, SIZE)), np.uint8)
                yield frame

        lips = self._network.lips(crops())
        samples = to_int16(np.concatenate([np.zeros(0, np.float32), *heard]))
        return _packed([self._network.compare(lips, samples)], [(0, np.tile([0.0, 0.0, *size], (count, 1)))])

    def _follow(self, tracker: Tracker, pictures: Iterable[tuple[Frame, Boxes]]) -> None:
        if self._detector is None:
            for frame, boxes in pictures:
                tracker.add(frame, boxes)
        else:
            cuts = SceneCuts()
            scenes: list[bool] = []

            def watched() -> Iterator[Frame]:
                for frame in self._coded(self._variant.video, (frame for frame, _ in pictures)):
                    scenes.append(cuts(frame))
                    yield frame

            shown = _late(watched()) if self._variant.sound == "mp3" else watched()
            for k, frame in enumerate(self._coded(self._variant.still, shown)):
                tracker.add(frame, self._detector(frame), scenes[k])
        tracker.finish()

    def _track(self, track: _Track, samples: NDArray[np.int16]) -> NDArray[np.float64]:
        shown = self._coded(self._variant.crop_still, self._coded(self._variant.crop_video, track.crops()))
        lips = self._network.lips(shown)
        own = samples[track.first * SAMPLES : (track.last + 1) * SAMPLES]
        if self._variant.crop_sound and len(own):
            own = self._audio_codec()(self._variant.crop_sound, own)
        return self._network.compare(lips, own)

    def _sound(self, samples: NDArray[np.int16]) -> NDArray[np.int16]:
        return self._audio_codec()(self._variant.sound, samples) if self._variant.sound and len(samples) else samples

    def _coded(self, codec: str | None, frames: Iterable[Frame]) -> Iterator[Frame]:
        if codec is None:
            return iter(frames)
        if self._recode is None:
            raise ValueError(f"{self.id} needs the option 'recode', which codes frames as {codec}{_GIVE}")
        return self._recode(codec, frames)

    def _audio_codec(self) -> RecodeAudio:
        if self._recode_audio is None:
            raise ValueError(f"{self.id} needs the option 'recode_audio', which codes samples{_GIVE}")
        return self._recode_audio


def _pictures(
    chunks: Iterable[ClipViews], heard: list[NDArray[np.float32]], landmarks: bool
) -> Iterator[tuple[Frame, Boxes]]:
    """Frames with the box of their landmarks, (0, 4) where there are none; the sound is gathered in `heard`."""
    due = 0
    for chunk in chunks:
        frames = chunk.view("frames")
        heard.append(chunk.view("waveform"))
        if frames.dtype != np.uint8:
            raise ValueError(f"frames of {frames.dtype}; expected uint8, 0-255")
        if chunk.fps != FPS or chunk.sample_rate != SAMPLE_RATE:
            raise ValueError(f"{chunk.fps:g} fps with {chunk.sample_rate} Hz; SyncNet takes 25 fps with 16000 Hz")
        if not np.array_equal(chunk.index, due + np.arange(len(frames))):
            raise ValueError("SyncNet needs all frames of a clip, in order")
        due += len(frames)
        points = chunk.view("landmarks")[..., :2].astype(np.float64) if landmarks else None
        for k, frame in enumerate(frames):
            boxes = np.zeros((0, 4))
            if points is not None and not np.isnan(points[k]).any():
                boxes = np.concatenate([points[k].min(axis=0), points[k].max(axis=0)])[None]
            yield frame, boxes
    if not due:
        raise MetricError("no frames to read lips from")


def _late(frames: Iterable[Frame]) -> Iterator[Frame]:
    """As many frames, LATE_FRAMES later: the first one stands until then."""
    recent: deque[Frame] = deque(maxlen=LATE_FRAMES + 1)
    for frame in frames:
        recent.append(frame)
        yield recent[0]


def _packed(
    scored: Sequence[NDArray[np.float64]], places: Sequence[tuple[int, NDArray[np.float64]]]
) -> dict[str, NDArray[Any]]:
    return {
        "distances": np.concatenate(scored).astype(np.float32),
        "windows": np.array([len(one) for one in scored]),
        "first": np.array([first for first, _ in places]),
        "frames": np.array([len(boxes) for _, boxes in places]),
        "boxes": np.concatenate([boxes for _, boxes in places]).astype(np.float32),
    }


@dataclass(frozen=True, slots=True)
class TrackScore:
    """One line of the per-track table; `box` is the mean face box, left, top, right, bottom in px."""

    first_frame: int
    num_frames: int
    windows: int
    box: tuple[float, float, float, float]
    offset: int
    distance: float
    confidence: float
    distance_at_zero: float
    confidence_at_zero: float


def tracks(features: Features) -> list[TrackScore]:
    """The table of a clip's tracks, from what SyncFeatures gives. Raises MetricError for distances that are NaN."""
    rows = []
    ends, box_ends = np.cumsum(features["windows"]), np.cumsum(features["frames"])
    for k, (end, box_end) in enumerate(zip(ends, box_ends, strict=True)):
        windows, frames = int(features["windows"][k]), int(features["frames"][k])
        means = features["distances"][end - windows : end].astype(np.float64).mean(axis=0)  # (31,)
        if not np.isfinite(means).all():
            raise MetricError(f"SyncNet's distances are NaN or infinite in track {k}")
        best, middle = int(means.argmin()), float(np.median(means))
        left, top, right, bottom = features["boxes"][box_end - frames : box_end].astype(np.float64).mean(axis=0)
        rows.append(
            TrackScore(
                first_frame=int(features["first"][k]),
                num_frames=frames,
                windows=windows,
                box=(float(left), float(top), float(right), float(bottom)),
                offset=VSHIFT - best,
                distance=float(means[best]),
                confidence=middle - float(means[best]),
                distance_at_zero=float(means[VSHIFT]),
                confidence_at_zero=middle - float(means[VSHIFT]),
            )
        )
    return rows


def offsets(clips: Iterable[Features]) -> dict[int, int]:
    """Histogram of the offset over all tracks of all clips: how many tracks at each of -15 ... 15 frames."""
    counts = dict.fromkeys(range(-VSHIFT, VSHIFT + 1), 0)
    for features in clips:
        for track in tracks(features):
            counts[track.offset] += 1
    return counts


def track_table(ids: Sequence[str], clips: Iterable[Features]) -> Table:
    """The tracks of all clips: a line a track, headed by what TrackScore holds."""
    lines: list[Sequence[object]] = [
        ["clip", *(f.name for f in fields(TrackScore) if f.name != "box"), "left", "top", "right", "bottom"]
    ]
    for clip, features in zip(ids, clips, strict=True):
        for track in tracks(features):
            values = asdict(track)
            box = values.pop("box")
            lines.append([clip, *values.values(), *box])
    return lines


def offset_table(ids: Sequence[str], clips: Iterable[Features]) -> Table:
    """The histogram of `offsets`, a line a shift."""
    return [["offset", "tracks"], *offsets(clips).items()]


def confidence(features: Features) -> float:
    """LSE-C: median less minimum of the mean distance over 31 shifts; mean over the clip's tracks."""
    return float(np.mean([track.confidence for track in tracks(features)]))


def distance(features: Features) -> float:
    """LSE-D: minimum over 31 shifts of the mean Euclidean distance of lips and voice; mean over the clip's tracks."""
    return float(np.mean([track.distance for track in tracks(features)]))


def offset(features: Features) -> float:
    """Shift of the smallest mean distance in frames, as syncnet_python signs it (15 - index); mean over the tracks."""
    return float(np.mean([track.offset for track in tracks(features)]))


def distance_at_zero(features: Features) -> float:
    """Mean distance of lips and voice as they are, without shift; mean over the clip's tracks."""
    return float(np.mean([track.distance_at_zero for track in tracks(features)]))


def confidence_at_zero(features: Features) -> float:
    """Median of the mean distance over 31 shifts less that without shift, as we define it; mean over the tracks."""
    return float(np.mean([track.confidence_at_zero for track in tracks(features)]))


def _spec(variant: Variant) -> ExtractorSpec:
    def make(weights: Mapping[str, Weights], options: Mapping[str, Any]) -> Extractor:
        count = options.get("longer_than")
        if count in (None, variant.longer_than) or not variant.tracked:  # the same numbers, and so the same id
            return SyncFeatures(variant, weights, options)
        return SyncFeatures(replace(variant, name=f"{variant.name}+{count}", longer_than=count), weights, options)

    networks = ("s3fd", "syncnet-v2") if variant.faces == "s3fd" else ("syncnet-v2",)
    return ExtractorSpec(name=variant.extractor, make=make, weights=networks)


_SOURCES = {
    "syncnet-python": "joonson/syncnet_python @6efbb1c, run_pipeline.py and SyncNetInstance.py",
    "syncnet-python-min50": "joonson/syncnet_python @6efbb1c with --min_track 50",
    "latentsync": "bytedance/LatentSync, eval/syncnet_detect.py and syncnet_eval.py",
    "wav2lip-lrs": "Rudrabha/Wav2Lip, evaluation/scores_LSE/calculate_scores_LRS.py",
    "cropped": "joonson/syncnet_python @6efbb1c, demo_syncnet.py on ready crops",
    "bench": "our own crop and track rule; network and distance of joonson/syncnet_python @6efbb1c",
}
_Details = Callable[..., Table] | None
_ROWS: tuple[tuple[str, Callable[[Features], float], str, Direction, str, int, _Details], ...] = (
    ("lse-c", confidence, "", "higher", "LSE-C", 3, track_table),
    ("lse-d", distance, "", "lower", "LSE-D", 3, None),
    ("lse-offset", offset, "frames", "closer-to-real", "AV offset", 1, offset_table),
    ("lse-c-zero", confidence_at_zero, "", "higher", "LSE-C (offset 0)", 3, None),
    ("lse-d-zero", distance_at_zero, "", "lower", "LSE-D (offset 0)", 3, None),
)
for _variant in VARIANTS:
    register(_spec(_variant))
    for _name, _compute, _unit, _direction, _label, _digits, _details in _ROWS:
        register(
            Metric(
                name=f"{_name}/{_variant.name}",
                version=1,
                needs=(("generated", _variant.extractor),),
                level="clip",
                unit=_unit,
                direction=_direction,
                compute=_compute,
                label=_label,
                digits=_digits,
                source=f"{_SOURCES[_variant.name]}; mean over the tracks of a clip",
                details=_details,
            )
        )
