"""The only place that probes, decodes and encodes media. PyAV carries FFmpeg; no system ffmpeg is needed.

The grid. Every clip is brought to an exact frame rate by timestamps: output frame k stands at time k / fps after
the first source frame and takes **the source frame whose presentation time is nearest** (the earlier one on a
tie). Nearest, not "on display", because holding frames would delay the picture by half a source frame on
average while the sound stays where it was. Variable frame rates need nothing else.

The clock. Time zero is the first video frame. Audio keeps its offset to it: what sounds before is cut, a later
start is filled with silence, and so is a gap between audio timestamps.

A part. With `start` reading begins so many seconds after time zero, found by the file's index rather than by decoding
all that comes before; the grid begins there.

Colour. The matrix and range that the file states are honoured; a file that states none is read as BT.601
limited range, which is FFmpeg's and OpenCV's rule too. Written files are BT.601 limited range and say so.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import wave
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import cv2
import numpy as np
import soxr
from av.error import FFmpegError
from av.video.reformatter import Colorspace, VideoReformatter
from numpy.typing import NDArray

Codec = Literal["h264", "ffv1"]
SUFFIX = {"h264": ".mp4", "ffv1": ".mkv"}
AUDIO_RATE = 16_000
FPS = Fraction(25)
MAX_LEAP = 10  # s between two frames, or two blocks of sound
SEEK_MARGIN = 1  # s
INDEXED = ("mov", "matroska", "avi", "wav")  # FFmpeg's names of containers in which a leap ends at a frame's start
MAX_PIXELS = 100_000_000  # a picture; more is a bomb, not a photograph
KEEP = 400 << 20  # bytes of decoded pictures that Pictures may hold: 5 s of 1080p


class MediaError(Exception):
    """A file that cannot be used. `reason` is a short code for tables, the text one line for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(
        self,
    ) -> tuple[Any, ...]:  # two arguments: the default would lose one on the way to a parent
        return type(self), (self.reason, str(self))


@dataclass(frozen=True, slots=True)
class Probe:
    """What a file's headers say. Times in seconds; `start` on the file's own clock; width and height as shown
    (after rotation). `duration` is None where the container does not state it."""

    width: int
    height: int
    fps: float
    start: float
    duration: float | None
    has_audio: bool
    audio_rate: int


def _open(path: Path) -> Any:
    if not path.is_file():
        raise MediaError("missing", f"{path}: not a file")
    try:
        with path.open("rb") as file:
            head = file.read(34)
    except OSError as error:
        raise MediaError("unreadable", f"{path}: cannot be read ({error.strerror})") from error
    if not head:
        raise MediaError("empty", f"{path}: the file is empty (0 bytes)")
    if head == b"version https://git-lfs.github.com":
        raise MediaError("lfs_pointer", f"{path}: a git-lfs pointer, not media; run `git lfs pull`")
    try:
        # Whatever a file's headers say, nothing but that file is opened: playlists could name others.
        return av.open(str(path), options={"protocol_whitelist": "file"}, metadata_errors="replace")
    except (FFmpegError, ValueError, OSError) as error:
        raise MediaError("not_media", f"{path}: not a media file, or truncated ({_line(error)})") from error


def _line(error: BaseException) -> str:
    return str(error).splitlines()[0].split(":")[0] if str(error) else type(error).__name__


def _video_stream(container: Any, path: Path) -> Any:
    if not container.streams.video:
        raise MediaError("no_video", f"{path}: has no video track")
    stream = known(container.streams.video[0], path)
    size = (stream.codec_context.width, stream.codec_context.height)
    if size[0] * size[1] > MAX_PIXELS:
        raise MediaError(
            "large_picture", f"{path}: {size[0]}x{size[1]}; expected {MAX_PIXELS // 10**6} megapixels at most"
        )
    stream.thread_type = "NONE"  # one thread a clip: parallelism is across clips
    stream.codec_context.thread_count = 1
    return stream


def known(stream: Any, path: Path) -> Any:
    """The stream, if FFmpeg knows its codec. Raises MediaError: corrupt."""
    if stream.codec_context is None:
        raise MediaError("corrupt", f"{path}: the {stream.type} is of a codec that FFmpeg does not know, or damaged")
    return stream


def probe(path: Path) -> Probe:
    """Read the headers of a video and its first frame.

    Raises MediaError: missing, empty, lfs_pointer, not_media, no_video, no_frames, large_picture.
    """
    with _open(path) as container:
        stream = _video_stream(container, path)
        first = next(_decode(container, stream, path), None)
        if first is None:
            raise MediaError("no_frames", f"{path}: the video track holds no frame")
        time, frame = first
        width, height = frame.width, frame.height
        if frame.rotation % 180:
            width, height = height, width
        audio = container.streams.audio[0] if container.streams.audio else None
        return Probe(
            width=width,
            height=height,
            fps=float(stream.average_rate or stream.guessed_rate or 0),
            start=float(time),
            duration=_duration(container, stream),
            has_audio=audio is not None,
            audio_rate=audio.rate if audio is not None and audio.codec_context is not None else 0,
        )


def _duration(container: Any, stream: Any) -> float | None:
    """What the headers say of the video track. The container's own figure is that of its longest track."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    tag = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))  # Matroska
    if tag:
        hours, minutes, seconds = (float(part) for part in tag.groups())
        return 3600 * hours + 60 * minutes + seconds
    if container.duration and not container.streams.audio:
        return float(container.duration / av.time_base)
    return None


def _decode(container: Any, stream: Any, path: Path) -> Iterator[tuple[Fraction, Any]]:
    """(time, frame) in order of presentation; frames that do not advance the clock are left out."""
    step = 1 / Fraction(stream.average_rate or stream.guessed_rate or 25)
    last: Fraction | None = None
    frames = container.decode(stream)
    while True:
        try:
            frame = next(frames)
        except StopIteration:
            return
        except (FFmpegError, ValueError) as error:
            raise MediaError("corrupt", f"{path}: decoding stops after {last} s ({_line(error)})") from error
        if frame.pts is not None:
            time = frame.pts * Fraction(frame.time_base)
        else:
            time = Fraction(0) if last is None else last + step
        if last is None or time > last:
            last = time
            yield time, frame


def _to_rgb(frame: Any, shrink: int, converter: VideoReformatter) -> NDArray[np.uint8]:
    rgb: NDArray[np.uint8]
    if shrink > 1 and frame.format.name == "yuv420p" and not (frame.width % 2 or frame.height % 2):
        rgb = _reduced(frame.to_ndarray(), frame.width, frame.height, shrink)
    else:
        rgb = np.asarray(converter.reformat(frame, format="rgb24").to_ndarray(), np.uint8)
        if shrink > 1:
            rgb = _shrunk(rgb, shrink)
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb


def _shrunk(rgb: NDArray[np.uint8], shrink: int) -> NDArray[np.uint8]:
    height, width = rgb.shape[0] // shrink, rgb.shape[1] // shrink
    whole = rgb[: height * shrink, : width * shrink]
    small: NDArray[np.uint8] = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return small


def _reduced(planes: NDArray[np.uint8], width: int, height: int, shrink: int) -> NDArray[np.uint8]:
    """Shrink the planes before they are converted: seven times as fast as the other way round. The colours are
    BT.601's whatever the file says, which is near enough for finding a face."""
    to = (width // shrink // 2 * 2, height // shrink // 2 * 2)
    luma = planes[:height][: to[1] * shrink, : to[0] * shrink]
    chroma = planes[height:].reshape(2, height // 2, width // 2)[:, : to[1] // 2 * shrink, : to[0] // 2 * shrink]
    half = (to[0] // 2, to[1] // 2)
    parts = [cv2.resize(luma, to, interpolation=cv2.INTER_AREA).ravel()]
    parts += [cv2.resize(plane, half, interpolation=cv2.INTER_AREA).ravel() for plane in chroma]
    stacked = np.concatenate(parts).reshape(to[1] * 3 // 2, to[0])
    rgb: NDArray[np.uint8] = cv2.cvtColor(stacked, cv2.COLOR_YUV2RGB_I420)  # type: ignore[assignment]
    return rgb


def read_frames(
    path: Path,
    fps: Fraction | float = FPS,
    *,
    shrink: int = 1,
    num_frames: int | None = None,
    start: Fraction | float = 0,
) -> Iterator[NDArray[np.uint8]]:
    """Yield (H, W, 3) uint8 RGB frames on an exact grid of `fps` frames a second (see the module's text).

    shrink      give pictures whose sides are so many times smaller, for a detector to look at
    start       s after the first frame at which to begin
    num_frames  stop after so many; fewer come where the video ends earlier. None: all that fit, that is
                floor(duration * fps) with the last source frame lasting as long as the one before it

    Raises MediaError: as probe(), and corrupt when decoding stops in the middle.
    """
    yield from Pictures(path, fps, keep=0, start=start).read(shrink=shrink, num_frames=num_frames)


def _no_leap(path: Path, seconds: float, at: float) -> None:
    """Broken timestamps would be filled with hours of held frames or of silence."""
    if seconds > MAX_LEAP:
        raise MediaError("timestamps", f"{path}: nothing for {seconds:.0f} s after {at:.2f} s; broken timestamps?")


Box = tuple[int, int, int, int]


class Pictures:
    """The frames of a file, to be read more than once: decoded once if they fit into `keep` bytes, else each time.

    Memory is therefore bounded whatever the length of the file. `start` is as for read_frames(), `num_frames` the
    most that are ever wanted; `box`, (left, top, width, height) in pixels, is the part of each picture that is given.
    """

    def __init__(
        self,
        path: Path,
        fps: Fraction | float = FPS,
        *,
        keep: int = KEEP,
        start: Fraction | float = 0,
        num_frames: int | None = None,
        box: Box | None = None,
    ) -> None:
        self._path = path
        self._fps = Fraction(fps).limit_denominator(100_000)
        self._start = Fraction(start).limit_denominator(100_000)
        self._most = num_frames
        self._box = box
        self._keep = keep
        self._kept: list[Any] | None = None

    def read(self, *, shrink: int = 1, num_frames: int | None = None) -> Iterator[NDArray[np.uint8]]:
        """read_frames()."""
        converter = VideoReformatter()  # one for all frames: setting one up takes longer than a conversion
        frames = self._decode(num_frames) if self._kept is None else self._kept[:num_frames]
        for frame in frames:
            if self._box is None:
                yield _to_rgb(frame, shrink, converter)
            else:
                left, top, width, height = self._box
                shown = _to_rgb(frame, 1, converter)[top : top + height, left : left + width]
                yield _shrunk(shown, shrink) if shrink > 1 else np.ascontiguousarray(shown)

    def _decode(self, num_frames: int | None) -> Iterator[Any]:
        kept, room = [], self._keep
        wanted = self._most if num_frames is None else num_frames
        for _, frame in _on_grid(self._path, self._fps, wanted, self._start):
            room -= frame.width * frame.height * 3 // 2
            if room > 0:
                kept.append(frame)
            else:
                kept.clear()
            yield frame
        if num_frames is None and room > 0:
            self._kept = kept


def frame_times(
    path: Path, fps: Fraction | float = FPS, *, num_frames: int | None = None, start: Fraction | float = 0
) -> list[Fraction]:
    """Presentation time of the source frame that each frame of the grid takes, in s after `start`."""
    grid = _on_grid(
        path, Fraction(fps).limit_denominator(100_000), num_frames, Fraction(start).limit_denominator(100_000)
    )
    return [time for time, _ in grid]


def _first_time(path: Path) -> Fraction:
    with _open(path) as container:
        first = next(_decode(container, _video_stream(container, path), path), None)
    if first is None:
        raise MediaError("no_frames", f"{path}: the video track holds no frame")
    return first[0]


def _seek(container: Any, stream: Any, time: Fraction) -> None:
    """Go to a key frame before `time` (s on the file's clock): a whole second before, since pictures and sound that
    follow a leap may be broken. A file without an index is read from its beginning."""
    if time > SEEK_MARGIN and container.format.name.split(",")[0] in INDEXED:
        with suppress(FFmpegError):
            container.seek(int((time - SEEK_MARGIN) / stream.time_base), stream=stream, backward=True)


def _on_grid(
    path: Path, fps: Fraction, num_frames: int | None, start: Fraction = Fraction(0), seek: bool = True
) -> Iterator[tuple[Fraction, Any]]:
    origin = _first_time(path) + start if start else None
    with _open(path) as container:
        stream = _video_stream(container, path)
        if origin is not None and seek:
            _seek(container, stream, origin)
        held: tuple[Fraction, Any] | None = None
        step = 1 / Fraction(stream.average_rate or stream.guessed_rate or 25)
        k = 0
        for time, frame in _decode(container, stream, path):
            if origin is None:
                origin = time
            time -= origin
            if held is None and time > 0 and seek:  # the file's index led too far
                yield from _on_grid(path, fps, num_frames, start, seek=False)
                return
            if held is not None:
                step = time - held[0]
                _no_leap(path, float(step), float(held[0]))
                while k / fps - held[0] <= time - k / fps:
                    if num_frames is not None and k >= num_frames:
                        return
                    yield held
                    k += 1
            held = (time, frame)
        if held is None:
            raise MediaError("no_frames", f"{path}: the video track holds no frame after {float(start):g} s")
        end = held[0] + step
        while (k + 1) / fps <= end + Fraction(1, 1000) and (num_frames is None or k < num_frames):
            yield held
            k += 1


def read_audio(path: Path, sample_rate: int = AUDIO_RATE) -> NDArray[np.float32]:
    """The first audio track as (n,) float32 mono in [-1, 1] at `sample_rate`, on the clock of the file's video.

    Raises MediaError: missing, empty, lfs_pointer, not_media, no_audio, corrupt.
    """
    return read_audio_at(path, sample_rate)[0]


def read_audio_at(
    path: Path,
    sample_rate: int = AUDIO_RATE,
    *,
    origin: float | None = None,
    start: float = 0.0,
    seconds: float | None = None,
) -> tuple[NDArray[np.float32], float]:
    """read_audio(), and the s by which the track starts after the clock's zero (negative: that much was cut).

    Channels are averaged; resampling is soxr's very-high-quality mode. `origin` is the time of the first video
    frame when the audio lies in another file; by default it is read from this one (0 where there is no video).
    `start` and `seconds` ask for a part: the clock's zero is then there.
    """
    with _open(path) as container:
        if not container.streams.audio:
            raise MediaError("no_audio", f"{path}: has no audio track")
        if origin is None:
            origin = probe(path).start if container.streams.video else 0.0
        stream = known(container.streams.audio[0], path)
        if start:
            origin += start
            _seek(container, stream, Fraction(origin))
        blocks: list[NDArray[np.float32]] = []
        first: float | None = None
        resampler: Any = None
        position = 0.0  # time at which the next sample is due
        for time, samples, rate in _audio_blocks(container, stream, path):
            if seconds is not None and time > origin + seconds:
                break
            if resampler is None:
                first = position = time
                resampler = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="VHQ")
            _no_leap(path, time - position, position)
            gap = round((time - position) * rate)
            if gap > rate // 1000:
                blocks.append(resampler.resample_chunk(np.zeros(gap, np.float32)))
                position += gap / rate
            blocks.append(resampler.resample_chunk(samples))
            position += len(samples) / rate
        if resampler is None or first is None:
            raise MediaError("no_audio", f"{path}: the audio track holds no sample")
        blocks.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    audio = np.concatenate(blocks)
    _no_leap(path, first - origin, origin)
    shift = round((first - origin) * sample_rate)
    audio = np.concatenate([np.zeros(shift, np.float32), audio]) if shift > 0 else audio[-shift:]
    return audio if seconds is None else audio[: round(seconds * sample_rate)], first - origin


def _audio_blocks(container: Any, stream: Any, path: Path) -> Iterator[tuple[float, NDArray[np.float32], int]]:
    to_float = av.AudioResampler(format="fltp")
    position = 0.0
    frames = container.decode(stream)
    while True:
        try:
            frame = next(frames)
        except StopIteration:
            return
        except (FFmpegError, ValueError) as error:
            raise MediaError("corrupt", f"{path}: audio decoding stops at {position:.2f} s ({_line(error)})") from error
        if frame.time is not None:
            position = float(frame.time)
        for block in to_float.resample(frame):
            samples = block.to_ndarray().mean(axis=0, dtype=np.float32)
            yield position, samples, block.sample_rate
            position += len(samples) / block.sample_rate


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, with its suffix, that becomes `path` when the block ends without error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".part-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp gives 0600, which a group on a cluster could not read
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_video(
    path: Path,
    frames: Iterable[NDArray[np.uint8]],
    fps: Fraction | float = FPS,
    *,
    codec: Codec = "h264",
    audio: NDArray[np.float32] | None = None,
    sample_rate: int = AUDIO_RATE,
) -> int:
    """Encode (H, W, 3) uint8 RGB frames, atomically; returns how many there were.

    h264: x264 at CRF 10, 4:2:0, visually lossless; H and W must be even. ffv1: exact RGB. `audio`, (n,) float32
    mono, is muxed as AAC (h264) or FLAC (ffv1). The bytes depend on the frames alone: one thread, no dates.

    Raises ValueError for no frames, or frames that differ in shape; MediaError for a file that cannot be written.
    """
    rate = Fraction(fps).limit_denominator(100_000)
    with atomic_path(path) as temporary, _writing(path):
        container = av.open(str(temporary), "w", options={"fflags": "+bitexact"})
        try:
            count = _encode(container, path, frames, rate, codec, audio, sample_rate)
        finally:
            container.close()
    return count


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except FFmpegError as error:
        if isinstance(error, OSError) and error.errno is not None and 0 < error.errno < 200:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise MediaError("encode", f"{path}: cannot be written ({_line(error)})") from error


def _encode(
    container: Any,
    path: Path,
    frames: Iterable[NDArray[np.uint8]],
    rate: Fraction,
    codec: Codec,
    audio: NDArray[np.float32] | None,
    sample_rate: int,
) -> int:
    video: Any = None
    sound: Any = None
    count = 0
    converter = VideoReformatter()
    for count, rgb in enumerate(frames, 1):
        if video is None:
            video = _video_track(container, rgb.shape, rate, codec)
            if audio is not None:  # every track must be declared before the first packet is muxed
                sound = container.add_stream("aac" if codec == "h264" else "flac", rate=sample_rate, layout="mono")
                sound.codec_context.thread_count = 1
        if rgb.shape != (video.height, video.width, 3) or rgb.dtype != np.uint8:
            raise ValueError(
                f"{path}: frame {count - 1} is {rgb.shape} {rgb.dtype}, "
                f"the first was ({video.height}, {video.width}, 3) uint8"
            )
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        if codec == "h264":
            frame = converter.reformat(frame, format="yuv420p", dst_colorspace=Colorspace.ITU601)
        else:
            frame = converter.reformat(frame, format="bgr0")
        frame.pts, frame.time_base = count - 1, 1 / rate
        container.mux(video.encode(frame))
    if video is None:
        raise ValueError(f"{path}: there is no frame to write")
    container.mux(video.encode(None))
    if audio is not None:
        _encode_audio(container, sound, audio, sample_rate)
    return count


def _video_track(container: Any, shape: tuple[int, ...], rate: Fraction, codec: Codec) -> Any:
    height, width = shape[:2]
    if codec == "h264" and (height % 2 or width % 2):
        raise ValueError(f"H.264 4:2:0 needs even sides, got {width}x{height}; use codec 'ffv1' or an even size")
    track = container.add_stream("libx264" if codec == "h264" else "ffv1", rate=rate)
    track.width, track.height = width, height
    track.codec_context.thread_count = 1  # x264's output depends on its thread count
    track.codec_context.time_base = 1 / rate
    if codec == "h264":
        track.pix_fmt = "yuv420p"
        # cpu-independent: without it x264's vector code reads past the edge of pictures whose sides are no multiple
        # of 64 px, and equal pictures give different bytes from one run to the next.
        track.options = {"crf": "10", "preset": "veryfast", "threads": "1", "x264-params": "cpu-independent=1"}
        track.codec_context.colorspace = 6  # SMPTE 170M, that is BT.601
        track.codec_context.color_range = 1  # limited
    else:
        track.pix_fmt = "bgr0"
        track.options = {"level": "3", "slices": "4", "slicecrc": "1"}
    return track


def _encode_audio(container: Any, track: Any, audio: NDArray[np.float32], sample_rate: int) -> None:
    pcm = np.clip(audio, -1.0, 1.0).astype(np.float32)
    resampler = av.AudioResampler(format=track.codec_context.format, layout="mono", rate=sample_rate)
    for start in range(0, len(pcm), 1024):
        block = av.AudioFrame.from_ndarray(pcm[None, start : start + 1024], format="fltp", layout="mono")
        block.sample_rate, block.pts, block.time_base = sample_rate, start, Fraction(1, sample_rate)
        for converted in resampler.resample(block):
            container.mux(track.encode(converted))
    container.mux(track.encode(None))


def write_wav(path: Path, audio: NDArray[np.float32], sample_rate: int = AUDIO_RATE) -> None:
    """Write (n,) float32 mono in [-1, 1] as 16-bit PCM, rounded to nearest and clipped, atomically."""
    pcm = np.clip(np.rint(np.asarray(audio, np.float64) * 32768), -32768, 32767).astype("<i2")
    with atomic_path(path) as temporary, wave.open(str(temporary), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(pcm.tobytes())


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an (H, W, 3) uint8 RGB image, atomically."""
    done, data = cv2.imencode(".png", image[..., ::-1])
    if not done:
        raise MediaError("encode", f"{path}: the image cannot be encoded")
    write_bytes(path, data.tobytes())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def picture_sha256(path: Path) -> str:
    """SHA-256 of the coded pictures of a video with their times, whatever sound lies beside them.

    Two files of equal digest give equal frames; re-muxing with another sound track keeps it.

    Raises MediaError as probe(), and corrupt when the file cannot be read to its end.
    """
    with _open(path) as container:
        first = next(_decode(container, _video_stream(container, path), path), None)
    if first is None:
        raise MediaError("no_frames", f"{path}: the video track holds no frame")
    digest = hashlib.sha256()
    with _open(path) as container:
        stream = _video_stream(container, path)
        coded = stream.codec_context
        shown = (coded.width, coded.height, coded.pix_fmt, int(coded.colorspace), int(coded.color_range))
        times = (stream.time_base, stream.average_rate, stream.guessed_rate)
        digest.update(repr((coded.name, *shown, *times, first[1].rotation)).encode())
        digest.update(bytes(coded.extradata or b""))
        try:
            for packet in container.demux(stream):
                digest.update(repr((packet.pts, packet.dts, packet.size, packet.is_discard)).encode())
                digest.update(bytes(packet))
        except (FFmpegError, ValueError) as error:
            raise MediaError("corrupt", f"{path}: cannot be read to its end ({_line(error)})") from error
    return digest.hexdigest()


# Encoders and their options that reproduce a command of somebody else's pipeline. FFmpeg's `-qscale:v 2` is the
# quantiser 2 everywhere, which is these encoders' finest; OpenCV's writer asks MPEG-4 for 64 bit a pixel and for a
# quantiser of at least 3; without an option FFmpeg aims at 200 kbit/s, so that the quality follows the content.
_RECODED: dict[str, tuple[str, str, dict[str, str]]] = {
    "mpeg4-q2": ("mpeg4", "yuv420p", {"qmin": "2", "qmax": "2"}),
    "mpeg4-opencv": ("mpeg4", "yuv420p", {"qmin": "3", "g": "12"}),
    "h264": ("libx264", "yuv420p", {"threads": "1", "x264-params": "cpu-independent=1"}),
    "jpeg-q2": ("mjpeg", "yuvj420p", {"qmin": "2", "qmax": "2"}),
    "jpeg": ("mjpeg", "yuvj420p", {"b": "200000"}),
}


def recode(codec: str, frames: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """What is left of (H, W, 3) uint8 RGB frames of one size after a lossy codec at 25 fps; as many as were given.

    codec   "mpeg4-q2" (`ffmpeg -qscale:v 2 x.avi`), "mpeg4-opencv" (cv2.VideoWriter with XVID or mp4v), "h264"
            (`ffmpeg x.mp4`: CRF 23), "jpeg-q2" and "jpeg" (`ffmpeg [-qscale:v 2] %06d.jpg`; rate control included)

    Nothing is written to disk and one thread works; about 60 frames are held by H.264, one or two by the others.
    Raises ValueError for an unknown codec, MediaError for frames that it cannot take.
    """
    if codec not in _RECODED:
        raise ValueError(f"no codec {codec!r}; known: {', '.join(_RECODED)}")
    name, pixels, options = _RECODED[codec]
    encoder: Any = None
    decoder: Any = av.CodecContext.create(_DECODER[name], "r")
    decoder.thread_count = 1
    to_codec, to_rgb = VideoReformatter(), VideoReformatter()

    def shown(packets: Iterable[Any]) -> Iterator[NDArray[np.uint8]]:
        for packet in packets:
            for frame in decoder.decode(packet):
                yield np.asarray(to_rgb.reformat(frame, format="rgb24").to_ndarray(), np.uint8)

    try:
        for k, rgb in enumerate(frames):
            if encoder is None:
                encoder = av.CodecContext.create(name, "w")
                encoder.height, encoder.width = rgb.shape[:2]
                encoder.pix_fmt, encoder.time_base, encoder.framerate = pixels, 1 / FPS, FPS
                encoder.thread_count = 1
                rate = {"b": str(64 * int(FPS) * rgb.shape[0] * rgb.shape[1])} if codec == "mpeg4-opencv" else {}
                encoder.options = {**options, **rate}
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            picture = to_codec.reformat(picture, format=pixels, interpolation="BICUBIC")
            picture.pts, picture.time_base = k, 1 / FPS
            yield from shown(encoder.encode(picture))
        if encoder is not None:
            yield from shown(encoder.encode(None))
            yield from shown([None])
    except FFmpegError as error:
        size = f"{encoder.width}x{encoder.height}"
        raise MediaError("encode", f"frames of {size}: cannot be coded as {codec} ({_line(error)})") from error


_DECODER = {"mpeg4": "mpeg4", "libx264": "h264", "mjpeg": "mjpeg"}
MP3_DELAY = 1105  # samples of encoder and decoder (LAME), which nothing takes off where the file is an AVI


def recode_audio(codec: str, samples: NDArray[np.int16], sample_rate: int = AUDIO_RATE) -> NDArray[np.int16]:
    """(n,) int16 mono after "mp3" or "aac" at the encoder's own bit rate, as FFmpeg muxes them by default.

    mp3   into AVI: MP3_DELAY samples come before the sound, and a rest of the last block after it
    aac   into MP4, whose edit list takes the delay off: exactly n samples

    Raises ValueError for an unknown codec or no samples.
    """
    if codec not in ("mp3", "aac") or not len(samples):
        raise ValueError(f"{len(samples)} samples for the codec {codec!r}; expected some, for 'mp3' or 'aac'")
    encoder: Any = av.CodecContext.create("libmp3lame" if codec == "mp3" else "aac", "w")
    encoder.sample_rate, encoder.layout = sample_rate, "mono"
    encoder.format = "s16p" if codec == "mp3" else "fltp"
    encoder.time_base, encoder.thread_count = Fraction(1, sample_rate), 1
    if codec == "mp3":
        encoder.bit_rate = 0  # LAME's own for the rate: 24 kbit/s at 16 kHz
    decoder: Any = None
    heard: list[NDArray[Any]] = []
    size = 1024 if codec == "aac" else 576 if sample_rate <= 24_000 else 1152
    for start in range(0, len(samples) + size, size):
        block = samples[None, start : start + size]
        if codec == "aac":
            block = (block / np.float32(32768)).astype(np.float32)
        frame = None
        if block.size:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format=encoder.format.name, layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = sample_rate, start, Fraction(1, sample_rate)
        for packet in encoder.encode(frame):
            if decoder is None:
                decoder = av.CodecContext.create("mp3float" if codec == "mp3" else "aac", "r")
                decoder.sample_rate, decoder.layout, decoder.extradata = sample_rate, "mono", encoder.extradata
            bare = av.Packet(bytes(packet))  # as from an AVI: what the encoder says of its delay is lost
            heard += [decoded.to_ndarray()[0] for decoded in decoder.decode(bare)]
        if frame is None:
            break
    heard += [decoded.to_ndarray()[0] for decoded in decoder.decode(None)]
    whole = np.concatenate(heard).astype(np.float64)
    if codec == "aac":
        whole = whole[1024 : 1024 + len(samples)]
    pcm: NDArray[np.int16] = np.clip(np.rint(whole * 32768), -32768, 32767).astype(np.int16)
    return pcm
