"""One raw recording to one clip, as a list of stages.

A stage takes a row and returns it with more in it. It raises Reject to drop the recording with a reason; any other
exception is a bug, except an OSError of the output (a full or read-only disk), which must stop the whole run.

Two passes over the pictures: the first finds the face, the second cuts and encodes. Memory is bounded whatever the
length of a clip (media.KEEP of pictures; longer ones are decoded twice), but for landmarks (140 kB/s) and sound
(64 kB/s).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines import media
from pipelines.crop import MASKS, Crop, Cropper
from pipelines.datasets import Cut, Source
from pipelines.faces import FaceError, boxes, gaps, track
from pipelines.manifest import Clip

Row = dict[str, Any]
Stage = Callable[[Row], Row]

FIND_SIDE = 960  # px; pictures of twice this side are halved before faces are looked for (FaceMesh works at 192x192)
MIN_PICTURE = 64  # px, shorter side
LATE = 0.5  # s by which a list's times may lie beyond the end of the video: lists give whole seconds
MIN_FACE = 32  # px, larger side of the face box
MIN_FRAMES = 5
SILENCE = 10 ** (-70 / 20)  # RMS; quieter than -70 dB of full scale is a muted track, not a quiet speaker
BORDER = 0.2, 0.1  # at most this share of the face box outside the picture, in at most this share of the frames
RIVAL = 0.8  # a second face of this share of the main one's area makes it unclear who speaks


class Reject(Exception):
    """The recording cannot become a clip: a short reason code, one line of detail, and the stage that said so."""

    def __init__(self, reason: str, detail: str, stage: str = "") -> None:
        super().__init__(detail)
        self.reason = reason
        self.stage = stage

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, str(self), self.stage)


@dataclass(frozen=True, slots=True)
class Settings:
    """How clips are made. size in pixels; codec "h264" or "ffv1"."""

    crop: Crop = "square"
    size: int = 256
    codec: media.Codec = "h264"
    masks: bool = False


def run(row: Row, stages: Iterable[Stage]) -> Row:
    """Apply the stages in order. Raises Reject, which names the stage, for what a stage or a leaf below refuses."""
    for stage in stages:
        try:
            row = stage(row)
        except Reject as reject:
            raise Reject(reject.reason, str(reject), stage.__name__) from reject
        except (media.MediaError, FaceError) as error:
            raise Reject(error.reason, _relative(str(error), row["root"]), stage.__name__) from error
    return row


def prepare_clip(source: Source, root: Path, out: Path, settings: Settings, split: str, version: str) -> Clip:
    """Make the files of one clip under `out` (clips/, landmarks/, masks/) and return its manifest row.

    Raises Reject, and OSError where `out` cannot be written.
    """
    row: Row = {"source": source, "root": root, "out": out, "settings": settings, "split": split, "version": version}
    clip: Clip = run(row, STAGES)["clip"]
    return clip


def _relative(message: str, root: Path) -> str:
    return message.replace(f"{root}/", "").replace("\n", "\\n")


def probe(row: Row) -> Row:
    """Headers and digest of the raw file, and the part of it that is the clip."""
    source: Source = row["source"]
    cut = source.cut or Cut()
    path = row["root"] / source.video
    info = media.probe(path)
    if (
        source.cut
        and info.duration is not None
        and (cut.start >= info.duration or (cut.end or 0) > info.duration + LATE)
    ):
        end = "its end" if cut.end is None else f"{cut.end:g}"
        raise Reject("times", f"the clip is from {cut.start:g} to {end} s, the video lasts {info.duration:.2f} s")
    box = _box(cut, info.width, info.height)
    size = (info.width, info.height) if box is None else box[2:]
    if min(size) < MIN_PICTURE:
        raise Reject("small_picture", f"{size[0]}x{size[1]}, expected at least {MIN_PICTURE} pixels a side")
    most = None if cut.end is None else round((cut.end - cut.start) * 25)
    pictures = media.Pictures(path, start=Fraction(cut.start), num_frames=most, box=box)
    found = {"path": path, "info": info, "cut": cut, "size": size, "pictures": pictures}
    return row | found | {"source_sha256": media.file_sha256(path)}


def _box(cut: Cut, width: int, height: int) -> media.Box | None:
    """The box of a cut in pixels of a picture of that size."""
    if cut.lines is not None and cut.lines != height:
        raise Reject("resolution", f"the crop holds for {cut.lines} lines, the video has {height}")
    box = cut.box
    if cut.fractions is not None:
        left, top, wide, high = cut.fractions
        right, bottom = min(round((left + wide) * width), width), min(round((top + high) * height), height)
        box = (round(left * width), round(top * height), right - round(left * width), bottom - round(top * height))
    if box is not None and not (
        min(box) >= 0 and min(box[2:]) > 0 and box[0] + box[2] <= width and box[1] + box[3] <= height
    ):
        raise Reject("crop_outside", f"the crop {box} (left, top, width, height) leaves the picture {width}x{height}")
    return box


def sound(row: Row) -> Row:
    """The sound on the clock of the video: of its own track, or the file beside it where that is missing or silent."""
    source: Source = row["source"]
    info: media.Probe = row["info"]
    cut: Cut = row["cut"]
    seconds = None if cut.end is None else cut.end - cut.start
    paths = [row["path"]] if info.has_audio else []
    paths += [row["root"] / source.audio] if source.audio is not None else []
    if not paths:
        raise Reject("no_audio", "the video has no audio track, and there is no audio file of that take")
    level = 0.0
    for path in paths:
        audio, start = media.read_audio_at(path, origin=info.start, start=cut.start, seconds=seconds)
        level = float(np.sqrt(np.mean(np.square(audio, dtype=np.float64)))) if len(audio) else 0.0
        if level >= SILENCE:
            return row | {"audio": audio, "av_start": max(start, 0.0) if cut.start else start}
    decibel = f"{20 * np.log10(level):.0f} dB" if level > 0 else "digital silence"
    raise Reject("silent_audio", f"the sound is silent (RMS {decibel} of full scale)")


def faces(row: Row) -> Row:
    """Landmarks of the main face in every frame of the 25 fps grid, in pixels of the cut's picture."""
    count = 0
    width, height = row["size"]
    shrink = max(1, max(width, height) // FIND_SIDE)

    def frames() -> Iterator[NDArray[np.uint8]]:
        nonlocal count
        count = 0
        for frame in row["pictures"].read(shrink=shrink):
            count += 1
            yield frame

    found = track(frames, float(media.FPS))
    _whole(count, row["info"], row["cut"])
    points = found.points * np.float32(shrink)
    points[..., :2] += np.float32((shrink - 1) / 2)  # pixels are counted from the centre of the first one
    lost = [gap for gap in gaps(found.detected) if np.isnan(points[gap[0]]).any()]
    if lost:
        start, end = max(lost, key=lambda gap: gap[1] - gap[0])
        raise Reject("face_lost", f"no face for {(end - start) / 25:.2f} s from {start / 25:.2f} s on")
    if found.rival >= RIVAL:
        raise Reject("several_faces", f"a second face has {found.rival:.0%} of the main one's size: who speaks?")
    box = boxes(points)
    side = float(np.median(np.max(box[:, 2:] - box[:, :2], axis=1)))
    if side < MIN_FACE:
        raise Reject("small_face", f"the face is {side:.0f} px, expected at least {MIN_FACE}")
    outside = 1 - _inside(box, width, height)
    share = float(np.mean(outside > BORDER[0]))
    if share > BORDER[1]:
        raise Reject("face_at_border", f"in {share:.0%} of the frames over {BORDER[0]:.0%} of the face is cut off")
    return row | {"points": points, "faces": found, "video_frames": count}


def _whole(count: int, info: media.Probe, cut: Cut) -> None:
    """A file cut off after its headers decodes without an error, only to fewer frames than they promise."""
    if info.duration is None and cut.end is None:
        return
    end = min(end for end in (info.duration, cut.end) if end is not None)
    promised = end - cut.start
    if count / 25 < promised - max(0.3, 0.05 * promised):
        raise Reject("truncated", f"the headers promise {promised:.2f} s, {count / 25:.2f} s can be decoded")


def _inside(box: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """Share of each box (T, 4) that lies in the picture."""
    clipped = np.clip(box, 0, np.array([width, height, width, height], np.float32))
    area = np.prod(box[:, 2:] - box[:, :2], axis=1)
    return np.prod(clipped[:, 2:] - clipped[:, :2], axis=1) / np.maximum(area, 1e-6)  # type: ignore[no-any-return]


def trim(row: Row) -> Row:
    """Cut picture and sound to their common end, in whole frames: the last is the one in which the shorter track
    ends, so that up to 40 ms of silence is added rather than a frame of picture lost (codecs end sound early)."""
    per_frame = media.AUDIO_RATE // 25
    heard = -(-len(row["audio"]) // per_frame)
    frames = heard if row["source"].still else min(row["video_frames"], heard)
    if frames < MIN_FRAMES:
        seconds = f"{frames / 25:.2f} s of picture and sound"
        raise Reject("too_short", f"{seconds}, expected {MIN_FRAMES / 25:.2f} s or more")
    audio = row["audio"][: frames * per_frame]
    return row | {
        "num_frames": frames,
        "av_end": 0.0 if row["source"].still else len(row["audio"]) / media.AUDIO_RATE - row["video_frames"] / 25,
        "audio": np.pad(audio, (0, frames * per_frame - len(audio))),
        "points": row["points"][:frames],
    }


def cut(row: Row) -> Row:
    """Crop and encode: video (of a still image, a PNG), WAV and landmarks (in pixels of the crop)."""
    settings: Settings = row["settings"]
    source: Source = row["source"]
    clip_id, out, frames = source.clip_id, row["out"], row["num_frames"]
    cropper = Cropper(settings.crop, row["points"], row["size"], settings.size, 25.0)
    names = {
        "video": f"clips/{clip_id}{'.png' if source.still else media.SUFFIX[settings.codec]}",
        "wav": f"clips/{clip_id}.wav",
        "landmarks": f"landmarks/{clip_id}.npz",
    }
    media.write_wav(out / names["wav"], row["audio"])
    packed = BytesIO()
    np.savez_compressed(packed, points=cropper.points, detected=row["faces"].detected[:frames])
    media.write_bytes(out / names["landmarks"], packed.getvalue())
    raw = row["pictures"].read(num_frames=1 if source.still else frames)
    cropped = (cropper(frame, k) for k, frame in enumerate(raw))
    if source.still:
        media.write_png(out / names["video"], next(cropped))
    else:
        media.write_video(out / names["video"], cropped, codec=settings.codec)
    return row | names | {"cropper": cropper}


def masks(row: Row) -> Row:
    """With --write-masks: each paper's face mask as a lossless video, white where the face is to be made."""
    settings: Settings = row["settings"]
    if settings.masks:
        for name, mask in MASKS.items():
            path = row["out"] / "masks" / name / f"{row['source'].clip_id}.mkv"
            media.write_video(path, mask_frames(mask, row["cropper"].points, settings.size), codec="ffv1")
    return row


def mask_frames(
    mask: Callable[[NDArray[np.float32], int], NDArray[np.bool_]], points: NDArray[np.float32], size: int
) -> Iterator[NDArray[np.uint8]]:
    """(size, size, 3) uint8 frames of a mask, 0 or 255."""
    for one in points:
        yield np.repeat(mask(one[None], size)[0, :, :, None].astype(np.uint8) * 255, 3, axis=2)


def describe(row: Row) -> Row:
    """The manifest row."""
    source: Source = row["source"]
    settings: Settings = row["settings"]
    detected = row["faces"].detected[: row["num_frames"]]
    clip = Clip(
        clip_id=source.clip_id,
        dataset=source.dataset,
        split=row["split"],
        identity=source.identity,
        emotion=source.emotion,
        intensity=source.intensity,
        view=source.view,
        sentence=source.sentence,
        take=source.take,
        video=row["video"],
        audio=row["wav"],
        landmarks=row["landmarks"],
        fps=float(media.FPS),
        num_frames=row["num_frames"],
        width=settings.size,
        height=settings.size,
        sample_rate=media.AUDIO_RATE,
        source=source.video,
        source_sha256=row["source_sha256"],
        sha256=media.file_sha256(row["out"] / row["video"]),
        audio_sha256=media.file_sha256(row["out"] / row["wav"]),
        landmarks_sha256=media.file_sha256(row["out"] / row["landmarks"]),
        source_fps=row["info"].fps,
        av_start=row["av_start"],
        av_end=row["av_end"],
        crop=settings.crop,
        crop_side=row["cropper"].side,
        padding=row["cropper"].padding,
        detected=float(detected.mean()),
        other_faces=row["faces"].others,
        tool_version=row["version"],
        extra=dict(source.extra),
    )
    return row | {"clip": clip}


STAGES: Sequence[Stage] = (probe, sound, faces, trim, cut, masks, describe)
