"""What the headers of a media file promise, and whether the file is long enough to keep it. Nothing is decoded.

FFmpeg opens each container with every decoder forbidden: it would decode the first picture otherwise. So a size that
only the coded picture states is not known here (0).

Truncation is judged by structure alone. Where a file was cut exactly between two parts that could end it (two
fragments of an MP4, two tags of an FLV that states no duration), and in formats that state no length (MPEG-PS, MP3,
ADTS, Ogg), it cannot be seen; decoding finds those.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import av
from av.error import FFmpegError

from pipelines.datasets import IMAGE_SUFFIXES
from pipelines.media import MediaError, known

_HEAD = 64 << 10
# Whatever a file's headers say, nothing but that file is opened; `none` is the name of no decoder.
_OPTIONS = {"protocol_whitelist": "file", "codec_whitelist": "none", "probesize": str(_HEAD)}
_UNKNOWN = (0, 0xFFFFFFFF)  # lengths that a program writes which cannot go back to fill them in
_MASTERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")  # each within the one before


@dataclass(frozen=True, slots=True)
class Headers:
    """bytes of the file; codec and size in pixels of the picture (as coded, before any rotation); frames a second
    (mean) and seconds of the picture, or of the sound where there is none; codec and Hz of the sound. What the headers
    do not state is "" or 0."""

    bytes: int
    video: str = ""
    width: int = 0
    height: int = 0
    fps: float = 0.0
    duration: float = 0.0
    audio: str = ""
    audio_rate: int = 0
    audio_duration: float = 0.0


def read(path: Path) -> Headers:
    """The headers of a video, a sound or a still picture (by its suffix; of that only codec and size).

    Raises MediaError: missing, unreadable, empty, lfs_pointer, truncated, not_media, corrupt.
    """
    if not path.is_file():
        raise MediaError("missing", f"{path}: not a file")
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(_HEAD)
            if not head:
                raise MediaError("empty", f"{path}: the file is empty (0 bytes)")
            if head.startswith(b"version https://git-lfs"):
                raise MediaError("lfs_pointer", f"{path}: a git-lfs pointer, not media; run `git lfs pull`")
            if shortfall := truncation(file):
                raise MediaError("truncated", f"{path}: {shortfall}")
            if path.suffix.lower() in IMAGE_SUFFIXES:
                codec, width, height = _still(head, path)
                return Headers(size, codec, width, height)
            stated = _stated_size(file, head)
    except OSError as error:
        raise MediaError("unreadable", f"{path}: cannot be read ({error.strerror})") from error
    try:
        with av.open(str(path), options=_OPTIONS, metadata_errors="replace") as container:
            for stream in (*container.streams.video[:1], *container.streams.audio[:1]):
                known(stream, path)
            return _headers(container, size, stated)
    except (FFmpegError, ValueError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].split(":")[0]
        raise MediaError("not_media", f"{path}: not a media file, or truncated ({reason})") from error


def _headers(container: Any, size: int, stated: tuple[int, int]) -> Headers:
    video = container.streams.video[0] if container.streams.video else None
    audio = container.streams.audio[0] if container.streams.audio else None
    width = height = 0
    if video is not None:
        width, height = video.codec_context.width, video.codec_context.height
        if not (width and height):
            width, height = stated
    return Headers(
        bytes=size,
        video=video.codec_context.name if video is not None else "",
        width=width,
        height=height,
        fps=float(video.average_rate or video.guessed_rate or 0) if video is not None else 0.0,
        duration=_seconds(container, video or audio),
        audio=audio.codec_context.name if audio is not None else "",
        audio_rate=audio.codec_context.sample_rate or 0 if audio is not None else 0,
        audio_duration=_seconds(container, audio),
    )


def _seconds(container: Any, stream: Any) -> float:
    """Of the stream; where only the container states a length, that is of its longest stream."""
    if stream is None:
        return 0.0
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return float(container.duration / av.time_base) if container.duration else 0.0


def _stated_size(file: BinaryIO, head: bytes) -> tuple[int, int]:
    """Size of the picture as an MP4's sample entry or an FLV's onMetaData states it: FFmpeg drops the former for
    MPEG-4 part 2 unless it may decode."""
    if head.startswith(b"FLV"):
        width, height = _metadata(head, b"width"), _metadata(head, b"height")
        return round(width), round(height)
    return _sample_entry(file, 0, os.fstat(file.fileno()).st_size) if _is_bmff(head) else (0, 0)


def _sample_entry(file: BinaryIO, start: int, end: int, masters: tuple[bytes, ...] = _MASTERS) -> tuple[int, int]:
    """(width, height) of the first picture track between two positions of an ISO base media file (14496-12,
    8.5.2 and 12.1.3), or zeros."""
    while start + 8 <= end:
        kind, header, length = _box(file, start, end)
        if length < header:
            break
        if masters and kind == masters[0]:
            found = _sample_entry(file, start + header, min(start + length, end), masters[1:])
            if any(found):
                return found
        elif kind == b"hdlr":  # comes before `minf` in each track
            file.seek(start + header + 8)
            if file.read(4) != b"vide":
                break
        elif kind == b"stsd":
            file.seek(start + header + 8)
            entry = file.read(36)
            return struct.unpack(">HH", entry[32:36]) if len(entry) == 36 else (0, 0)
        start += length
    return 0, 0


def truncation(file: BinaryIO) -> str | None:
    """Why a file is shorter than its structure says, in one line; None if it is whole or its format cannot tell."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(16)
    checks: tuple[tuple[bool, Callable[[BinaryIO, int], str | None]], ...] = (
        (_is_bmff(head), _bmff),
        (head[:4] == b"RIFF", _riff),
        (head[:3] == b"FLV", _flv),
        (head[:4] == b"\x1a\x45\xdf\xa3", _matroska),
        (head[:8] == b"\x89PNG\r\n\x1a\n", _png),
        (head[:3] == b"\xff\xd8\xff", _jpeg),
        (head[:2] == b"BM" and head[6:10] == bytes(4), _bmp),
    )
    return next((check(file, size) for fits, check in checks if fits), None)


def _is_bmff(head: bytes) -> bool:
    return head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")


def _box(file: BinaryIO, start: int, end: int) -> tuple[bytes, int, int]:
    """(type, bytes of its header, bytes in all) of a box; a length of 0 in the file means to its end."""
    file.seek(start)
    header = file.read(16)
    length, kind = struct.unpack(">I4s", header[:8])
    if length == 1:
        return kind, 16, int.from_bytes(header[8:16], "big") if len(header) == 16 else end - start + 1
    return kind, 8, length or end - start


def _bmff(file: BinaryIO, size: int) -> str | None:
    position, kinds = 0, set[bytes]()
    while position < size:
        whole = {b"moov", b"mdat"} <= kinds
        if position + 8 > size:
            return None if whole else f"a box header is cut off at byte {size}"
        kind, header, length = _box(file, position, size)
        if length < header or not re.fullmatch(rb"[\x20-\x7e\xa9]{4}", kind):
            if whole:  # what some cameras and editors append
                return None
            return f"no box where one should begin, at byte {position}"
        if position + length > size:
            return f"its {kind.decode('latin-1')} box ends at byte {position + length}, the file at {size}"
        kinds.add(kind)
        position += length
    if b"moov" not in kinds:
        return "no moov box (the index of an MP4, often its end): cut off, or its recorder was stopped"
    return None if b"mdat" in kinds else "no mdat box (the media themselves)"


def _riff(file: BinaryIO, size: int) -> str | None:
    position = 0
    while position + 12 <= size:
        file.seek(position)
        name, length, form = struct.unpack("<4sI4s", file.read(12))
        if name != b"RIFF" or length in _UNKNOWN:
            return None
        end = position + 8 + length
        inner = position + 12
        while inner + 8 <= min(end, size):
            file.seek(inner)
            chunk, inside = struct.unpack("<4sI", file.read(8))
            if inside == _UNKNOWN[1]:
                return None
            inner += 8 + inside
            if inner > size:
                return f"its {_code(chunk)} chunk ends at byte {inner}, the file at {size}"
            inner += inside % 2
        if end > size + (0 if form == b"WEBP" else 8):  # some programs count the header too
            return f"its RIFF header promises {end} bytes, the file has {size}"
        position = end + length % 2
    return None if position else f"the file ends within its RIFF header, at byte {size}"


def _code(name: bytes) -> str:
    return name.decode("ascii", "backslashreplace").strip() if name.isascii() else name.hex()


def _metadata(head: bytes, name: bytes) -> float:
    """A number of an FLV's onMetaData (AMF0: name, type 0, a double), 0 if it has none."""
    found = re.search(struct.pack(">H", len(name)) + re.escape(name) + rb"\x00(.{8})", head, re.DOTALL)
    value: float = struct.unpack(">d", found[1])[0] if found else 0.0
    return value if 0 < value < 1e7 else 0.0


def _flv(file: BinaryIO, size: int) -> str | None:
    """Each tag is followed by its own length, so the last one can be found from the end (Adobe FLV 10.1, E.3)."""
    file.seek(0)
    head = file.read(_HEAD)
    file.seek(max(size - 4, 0))
    last = size - 4 - int.from_bytes(file.read(4), "big")
    if not _is_tag(file, last, size):  # trailing bytes, a careless muxer, or a cut: walk from the start
        last, position = -1, int.from_bytes(head[5:9], "big") + 4
        while position + 11 <= size:
            file.seek(position)
            tag = file.read(11)
            end = position + 11 + int.from_bytes(tag[1:4], "big")
            if tag[0] & 0x1F not in (8, 9, 18):
                return None if last >= 0 else f"no tag at byte {position}"
            if end > size:
                return f"its last tag ends at byte {end}, the file at {size}"
            last, position = position, end + 4
        if position != size:
            return f"its last tag is cut off at byte {size}"
        if last < 0:
            return "the file ends after its header"
    file.seek(last)
    tag = file.read(11)
    seconds = int.from_bytes(tag[7:8] + tag[4:7], "big") / 1000
    promised = _metadata(head, b"duration")
    if promised > seconds + max(0.5, 0.05 * promised):
        return f"its metadata promise {promised:.2f} s, its last tag is at {seconds:.2f} s"
    return None


def _is_tag(file: BinaryIO, position: int, size: int) -> bool:
    if position < 9:
        return False
    file.seek(position)
    tag = file.read(11)
    return len(tag) == 11 and tag[0] & 0x1F in (8, 9, 18) and position + 15 + int.from_bytes(tag[1:4], "big") == size


def _matroska(file: BinaryIO, size: int) -> str | None:
    """The EBML header, then a Segment that states its length (RFC 9559, 5.1); live recordings leave it unknown."""
    position = 0
    while position + 12 <= size:
        file.seek(position)
        raw = file.read(12)
        width = 9 - raw[4].bit_length()  # both elements have identifiers of four bytes
        if width > 8:
            return None
        length = int.from_bytes(raw[4 : 4 + width], "big") & ((1 << 7 * width) - 1)
        end = position + 4 + width + length
        if raw[:4] == b"\x18\x53\x80\x67":
            if length == (1 << 7 * width) - 1 or end <= size:
                return None
            return f"its segment ends at byte {end}, the file at {size}"
        if raw[:4] not in (b"\x1a\x45\xdf\xa3", b"\xec"):
            return None
        position = end
    return f"the file ends before its segment, at byte {size}"


def _png(file: BinaryIO, size: int) -> str | None:
    file.seek(max(size - 1024, 0))
    return None if b"IEND\xaeB`\x82" in file.read() else "no IEND chunk: its end is missing"


def _jpeg(file: BinaryIO, size: int) -> str | None:
    file.seek(max(size - 1024, 0))
    return None if b"\xff\xd9" in file.read() else "no end-of-image marker: its end is missing"


def _bmp(file: BinaryIO, size: int) -> str | None:
    file.seek(2)
    promised = int.from_bytes(file.read(4), "little")
    return f"its header promises {promised} bytes, the file has {size}" if promised > size else None


def _still(head: bytes, path: Path) -> tuple[str, int, int]:
    """(codec, width, height) of a picture from its first bytes."""
    if head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) >= 24:
        return "png", *struct.unpack(">II", head[16:24])
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP" and len(head) >= 30:
        return "webp", *_webp(head)
    if head[:3] == b"\xff\xd8\xff":
        return "jpeg", *_frame_header(head)
    if head[:2] == b"BM" and len(head) >= 26:  # upside down where the height is negative
        width, height = struct.unpack("<ii", head[18:26])
        return "bmp", abs(width), abs(height)
    raise MediaError("not_media", f"{path}: neither PNG, JPEG, WebP nor BMP")


def _webp(head: bytes) -> tuple[int, int]:
    """RFC 9649: the extended, the lossless and the lossy layout."""
    if head[12:16] == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack("<HH", head[26:30])
    return width & 0x3FFF, height & 0x3FFF


def _frame_header(head: bytes) -> tuple[int, int]:
    """Of a JPEG (ITU T.81, B.2.2); zeros where long metadata push it out of the first bytes."""
    position = 2
    while position + 9 <= len(head):
        marker, length = head[position + 1], int.from_bytes(head[position + 2 : position + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", head[position + 5 : position + 9])
            return width, height
        position += 2 + length
    return 0, 0
