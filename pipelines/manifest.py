"""Manifest rows: one prepared clip each, stored as Parquet with an explicit schema."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.media import atomic_path, file_sha256

EMOTIONS = ("angry", "contempt", "disgusted", "fear", "happy", "neutral", "sad", "surprised")
UNLABELLED = "unlabelled"
# Labels that a manifest may hold. RAVDESS's calm is none of the eight words: kept here, counted by no emotion score.
LABELS = (*EMOTIONS, "calm", UNLABELLED)


class ManifestError(Exception):
    """A manifest that cannot be read; one line with the likely cause."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One prepared clip. Paths are relative to the folder of the manifest.

    emotion           one of LABELS; intensity is the dataset's own level, 1 the weakest, where there is one
    video             a still portrait (PNG) where there is no recording of the person: `still` says so, and
                      num_frames is then that of the sound
    sentence          what is said, where the dataset tells; `take` is the dataset's own number of the recording
    source            the raw file, relative to the raw root; digests of it and of the three prepared files
    source_fps        frames a second of the raw file (mean); the clip has exactly `fps`
    av_start, av_end  s by which the raw audio starts and ends after the raw video (both were trimmed to the
                      common end; a late start was filled with silence)
    crop, crop_side   crop name, and its median side in source pixels; padding is the mean share of the crop
                      that lies outside the source picture and repeats its edge
    detected          share of frames in which the main face was found (the rest was interpolated)
    other_faces       most faces seen beside the main one in any frame
    tool_version      of this suite
    extra             what this dataset alone tells (votes, demographics, ...): a column of strings each
    """

    clip_id: str
    dataset: str
    split: str
    identity: str
    emotion: str
    intensity: int | None
    view: str
    sentence: str | None
    take: str
    video: str
    audio: str
    landmarks: str
    fps: float
    num_frames: int
    width: int
    height: int
    sample_rate: int
    source: str
    source_sha256: str
    sha256: str
    audio_sha256: str
    landmarks_sha256: str
    source_fps: float
    av_start: float
    av_end: float
    crop: str
    crop_side: float
    padding: float
    detected: float
    other_faces: int
    tool_version: str
    extra: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def still(self) -> bool:
        return self.video.endswith(".png")


@dataclass(frozen=True, slots=True)
class Rejected:
    """A raw file that did not become a clip: where it stopped, a short reason code and one line of detail."""

    dataset: str
    source: str
    stage: str
    reason: str
    detail: str


def _schema(row: type, extra: Iterable[str] = ()) -> pa.Schema:
    types = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}
    fields = []
    for column in dataclasses.fields(row):
        kind = str(column.type)
        optional = kind.endswith(" | None")
        if column.name != "extra":
            fields.append(pa.field(column.name, types[kind.removesuffix(" | None")], nullable=optional))
    return pa.schema(fields + [pa.field(name, pa.string()) for name in extra])


def _write(rows: Iterable[Clip] | Iterable[Rejected], row: type, path: Path) -> None:
    dicts = [dataclasses.asdict(r) for r in rows]
    extras = [values.pop("extra", {}) for values in dicts]
    schema = _schema(row, sorted({name for extra in extras for name in extra}))
    table = pa.Table.from_pylist([{**extra, **values} for values, extra in zip(dicts, extras, strict=True)], schema)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def write(clips: Iterable[Clip], path: Path) -> None:
    """Write a manifest, sorted by clip_id, atomically: equal clips give equal bytes.

    Raises ValueError when a clip_id occurs twice.
    """
    rows = sorted(clips, key=lambda clip: clip.clip_id)
    for one, other in itertools.pairwise(rows):
        if one.clip_id == other.clip_id:
            raise ValueError(f"clip_id {one.clip_id!r} occurs twice, from {one.source!r} and {other.source!r}")
    _write(rows, Clip, path)


def write_rejected(rows: Iterable[Rejected], path: Path) -> None:
    """Write the rejections, sorted by source, atomically."""
    _write(sorted(rows, key=lambda r: (r.source, r.reason)), Rejected, path)


def _read(path: Path, row: type) -> list[dict[str, object]]:
    if not path.is_file():
        raise ManifestError(f"{path}: no such manifest; `bench prepare` writes it")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ManifestError(f"{path}: not a Parquet file, or damaged ({type(error).__name__})") from error
    missing = [name for name in _schema(row).names if name not in table.column_names]
    if missing:
        raise ManifestError(f"{path}: lacks the columns {', '.join(missing)}; written by another version?")
    rows: list[dict[str, object]] = table.to_pylist()
    return rows


def read(path: Path) -> list[Clip]:
    """Read a manifest. Raises ManifestError for a missing, damaged or foreign file."""
    known = set(_schema(Clip).names)
    rows = []
    for row in _read(path, Clip):
        extra = {name: str(value) for name, value in row.items() if name not in known and value is not None}
        rows.append(Clip(**{name: row[name] for name in known}, extra=extra))  # type: ignore[arg-type]
    return rows


def read_rejected(path: Path) -> list[Rejected]:
    """Read the rejections. Raises ManifestError for a missing, damaged or foreign file."""
    names = _schema(Rejected).names
    return [Rejected(**{name: row[name] for name in names}) for row in _read(path, Rejected)]  # type: ignore[arg-type]


def check(path: Path, *, digests: bool = True) -> list[str]:
    """Problems of a prepared dataset, one line each: files missing or changed, words outside the vocabulary,
    identities in two splits unless the rule lets them be (`declared_overlap`). Empty when all is well.
    `digests=False` skips reading every file.

    Raises ManifestError when the manifest itself cannot be read.
    """
    clips = read(path)
    problems = []
    for clip in clips:
        for kind, name, expected in (
            ("video", clip.video, clip.sha256),
            ("audio", clip.audio, clip.audio_sha256),
            ("landmarks", clip.landmarks, clip.landmarks_sha256),
        ):
            file = path.parent / name
            if not file.is_file():
                problems.append(f"{clip.clip_id}: {kind} {name} is missing")
            elif digests and file_sha256(file) != expected:
                problems.append(f"{clip.clip_id}: {kind} {name} is not the file that was prepared (digest differs)")
        if clip.emotion not in LABELS:
            problems.append(f"{clip.clip_id}: emotion {clip.emotion!r} is none of {', '.join(LABELS)}")
    return problems + _leaks(clips, declared_overlap(path))


def declared_overlap(path: Path) -> set[str]:
    """Identities that split.json, beside the manifest at `path`, says to be in several splits, as a split by clip or
    by sentence has them. Empty where there is no such file, or a damaged one."""
    try:
        return set(json.loads(path.with_name("split.json").read_text(encoding="utf-8"))["shared_identities"])
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _leaks(clips: Sequence[Clip], declared: set[str]) -> list[str]:
    where: dict[str, set[str]] = {}
    for clip in clips:
        where.setdefault(clip.identity, set()).add(clip.split)
    return [
        f"identity {identity} is in several splits: {', '.join(sorted(splits))}"
        for identity, splits in sorted(where.items())
        if len(splits) > 1 and identity not in declared
    ]
