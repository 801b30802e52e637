"""`bench doctor data`: every defect of a raw tree that shows without decoding, before the hours that prepare takes.

Names come first (the dataset's own index), then the headers of every file that a recording names, then digests of the
files that have another's size; nothing else is read through. Findings go to WORKSPACE/doctor/<name>.parquet.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from benchmark import engine
from pipelines import datasets, headers, media
from pipelines.datasets import Finding, Index, Source, printable
from pipelines.headers import Headers
from pipelines.media import MediaError

SEVERITIES = ("fatal", "warning", "note")
SCHEMA = pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("severity", "check", "item", "detail")])
BATCH = 64  # files an item of the engine: a file takes about a millisecond
ENDS = 64 << 10  # bytes at either end of a file that are compared before all of it is
EXAMPLES = 5
TOLERANCE = 0.5  # s between what headers say and what is there
# Reasons of an index for files that are no recording of the dataset, stand for one that is prepared anyway, or are
# only listed. Any other reason of a media file is a recording that will be lost: name, folder or file is at fault.
HARMLESS = {"hidden", "unrecognised", "suffix", "duplicate", "link_loop", "too_deep", "no_video", "not_there"}
MEDIA_SUFFIXES = {
    ".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".flv", ".mpg", ".mpeg", ".wav", ".m4a", ".aac", ".mp3", ".flac",
    ".ogg", *datasets.IMAGE_SUFFIXES,
}  # fmt: skip

Answer = TypeVar("Answer")
Label = tuple[str, str, int | None]


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a file cannot be used: a short reason and one line."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found in how many recordings and files, the gravest first."""

    recordings: int
    files: int
    findings: list[Finding]

    @property
    def fatal(self) -> bool:
        return any(finding.severity == "fatal" for finding in self.findings)


def examine(name: str, root: Path, *, digests: bool = False, workers: int = 1) -> Diagnosis:
    """Every finding on the raw tree of the dataset `name`. Nothing is decoded; `digests` reads every file through
    where the dataset has published digests. Raises DatasetError when there is no such dataset or tree."""
    dataset = datasets.load(name)
    index = dataset.index(root)
    own_check: Callable[..., Iterator[Finding]] | None = getattr(dataset, "examine", None)
    own = list(own_check(root, index, digests=digests)) if own_check else []
    labels = _labels(index.sources)
    look = partial(_look, root=root.absolute())
    seen = dict(_each(look, sorted(labels), workers, "headers"))
    told = {(finding.check, finding.item) for finding in own}  # the dataset knows more of it
    found = [
        *_from_index(index, own),
        *_unusable(index.sources, seen),
        *_unlike_the_rest(index.sources, seen),
        *_cuts(index.sources, seen),
        *_same_bytes(index.sources, labels, seen, root, own, workers),
    ]
    every = [*own, *(f for f in found if (f.check, f.item) not in told)]
    plain = (dataclasses.replace(f, item=printable(f.item), detail=printable(f.detail)) for f in every)
    ordered = sorted(set(plain), key=lambda f: (SEVERITIES.index(f.severity), f.check, f.item, f.detail))
    return Diagnosis(len(index.sources), len(labels), ordered)


def write(findings: Iterable[Finding], path: Path) -> None:
    """One row a finding, atomically."""
    table = pa.Table.from_pylist([dataclasses.asdict(finding) for finding in findings], SCHEMA)
    with media.atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def report(diagnosis: Diagnosis, path: Path) -> str:
    """The findings as text: by severity and check, with a few examples each; `path` is the file that has them all."""
    lines = []
    counts = Counter[str](finding.severity for finding in diagnosis.findings)
    groups: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    for finding in diagnosis.findings:
        groups[finding.severity, finding.check].append(finding)
    for (severity, check), members in groups.items():
        lines.append(f"{severity}: {check} ({len(members)})")
        lines += [f"  {finding.item}: {finding.detail}" for finding in members[:EXAMPLES]]
        if len(members) > EXAMPLES:
            lines.append(f"  ... and {len(members) - EXAMPLES} more, all in {printable(path)}")
    totals = ", ".join(f"{counts[severity]} {severity}" for severity in SEVERITIES)
    lines.append(f"{diagnosis.recordings} recordings in {diagnosis.files} files: {totals}; {printable(path)}")
    return "\n".join(lines)


def _labels(sources: Iterable[Source]) -> dict[str, set[Label]]:
    """Every file that a source names, with what it is said to show. The sound beside a portrait is anybody's."""
    labels: dict[str, set[Label]] = defaultdict(set)
    for source in sources:
        labels[source.video].add((source.identity, source.emotion, source.intensity))
        if source.audio is not None:
            voice = "" if source.still else source.identity
            labels[source.audio].add((voice, source.emotion, source.intensity))
    return labels


def _each(
    work: Callable[[Sequence[str]], list[Answer]], paths: Sequence[str], workers: int, title: str
) -> Iterator[tuple[str, Answer | Fault]]:
    """(path, answer) for every path, in batches; a batch that ends its process is done again file by file."""
    with tqdm(total=len(paths), unit="file", desc=title, disable=None) as bar:
        again: list[Sequence[str]] = []
        batches: list[Sequence[str]] = [paths[k : k + BATCH] for k in range(0, len(paths), BATCH)]
        for outcome in engine.run(work, batches, workers=min(workers, max(len(batches), 1))):
            if outcome.value is None:
                again += [[path] for path in outcome.item]
                continue
            bar.update(len(outcome.item))
            yield from zip(outcome.item, outcome.value, strict=True)
        for outcome in engine.run(work, again, workers=1) if again else ():
            bar.update()
            fault = Fault("internal_error", f"{type(outcome.error).__name__}: {outcome.error}")
            yield outcome.item[0], fault if outcome.value is None else outcome.value[0]


def _look(paths: Sequence[str], root: Path) -> list[Headers | Fault]:
    answers: list[Headers | Fault] = []
    for path in paths:
        try:
            answers.append(headers.read(root / path))
        except MediaError as error:
            answers.append(Fault(error.reason, str(error).replace(f"{root / path}: ", "", 1)))
    return answers


def _from_index(index: Index, own: Sequence[Finding]) -> Iterator[Finding]:
    """Rejected files and missing cells, but for those on which the dataset's own checks said more."""
    told = {(finding.check, finding.item) for finding in own}
    for row in index.rejected:
        name = str(Path(row.source).with_suffix(""))  # HDTF's own checks speak of clips, its index of files
        if (row.reason, name) not in told:
            lost = row.reason == "unreadable" or (
                row.reason not in HARMLESS and Path(row.source).suffix.lower() in MEDIA_SUFFIXES
            )
            fate = "this recording will be lost" if lost else "ignored"
            yield Finding("fatal" if lost else "warning", row.reason, row.source, f"{row.detail}; {fate}")
    said = {text for f in own for text in (f.detail, f"{f.item}: {f.detail}")}
    for note in index.notes:
        item, _, detail = note.partition(": ")
        if note not in said:
            yield Finding("warning", "missing", item, detail or "not in the tree")


def _unusable(sources: Iterable[Source], seen: dict[str, Headers | Fault]) -> Iterator[Finding]:
    """Recordings that prepare would reject for their headers, each file once."""
    for source in sources:
        picture = seen[source.video]
        sound = seen[source.audio] if source.audio is not None else None
        if isinstance(picture, Fault):
            yield Finding("fatal", picture.reason, source.video, picture.detail)
        elif not picture.video:
            yield Finding("fatal", "no_video", source.video, "has no video track")
        if isinstance(sound, Fault):
            needed = not (isinstance(picture, Headers) and picture.audio)
            fate = "" if needed else "; not needed, the video file has a sound track"
            detail = sound.detail + fate
            yield Finding("fatal" if needed else "warning", sound.reason, str(source.audio), detail)
        if isinstance(picture, Headers) and not picture.audio:
            if sound is None:
                yield Finding("fatal", "no_audio", source.video, "has no sound track, and no sound file lies beside it")
            elif isinstance(sound, Headers):
                yield from _beside(source, picture, sound)


def _beside(source: Source, picture: Headers, sound: Headers) -> Iterator[Finding]:
    """The sound file of a video without a sound track."""
    if not sound.audio:
        yield Finding("fatal", "no_audio", str(source.audio), "has no sound track")
    elif source.cut is None and picture.duration and abs(sound.audio_duration - picture.duration) > TOLERANCE:
        detail = f"{sound.audio_duration:.2f} s of sound beside {picture.duration:.2f} s of picture"
        yield Finding("warning", "length", source.video, detail)


def _unlike_the_rest(sources: Iterable[Source], seen: dict[str, Headers | Fault]) -> Iterator[Finding]:
    """Frame rate and resolution other than most files of the same view have; one note where no value prevails."""
    by_view: dict[str, dict[str, Headers]] = defaultdict(dict)
    for source in sources:
        found = seen[source.video]
        if isinstance(found, Headers) and not source.still:
            by_view[source.view][source.video] = found
    for view, files in sorted(by_view.items()):
        # 30 and 29.97 frames a second are alike here: MEAD's own files average anything between.
        rates = {path: f"{h.fps:.1f} fps" for path, h in files.items() if h.fps}
        sizes = {path: f"{h.width}x{h.height}" for path, h in files.items() if h.width and h.height}
        yield from _outliers("fps", view, rates)
        yield from _outliers("resolution", view, sizes)


def _outliers(check: str, view: str, values: dict[str, str]) -> Iterator[Finding]:
    counts = sorted(Counter(values.values()).items(), key=lambda item: (-item[1], item[0]))
    if len(counts) < 2:
        return
    (usual, most), of = counts[0], f"of {len(values)} files" + (f" of the view {view}" if view else "")
    if 2 * most <= len(values):
        shares = ", ".join(f"{count} have {value}" for value, count in counts[:EXAMPLES])
        yield Finding("note", check, view or "all", f"{of[3:]}, {len(counts)} values: {shares}")
        return
    for path, value in values.items():
        if value != usual:
            yield Finding("warning", check, path, f"{value}, where {most} {of} have {usual}")


def _cuts(sources: Iterable[Source], seen: dict[str, Headers | Fault]) -> Iterator[Finding]:
    """Parts of longer recordings that lie outside of them in time or in the picture."""
    for source in sources:
        cut, found = source.cut, seen[source.video]
        if cut is None or not isinstance(found, Headers):
            continue
        if found.duration and max(cut.start, cut.end or 0) > found.duration + TOLERANCE:
            end = "its end" if cut.end is None else f"{cut.end:.2f} s"
            detail = f"from {cut.start:.2f} s to {end} of {source.video}, which lasts {found.duration:.2f} s"
            yield Finding("fatal", "cut", source.clip_id, detail)
        if cut.box is None or not found.height:
            continue
        left, top, width, height = cut.box
        if cut.lines is not None and cut.lines != found.height:
            detail = f"its box is for a picture of {cut.lines} lines; {source.video} has {found.height}"
            yield Finding("fatal", "crop", source.clip_id, detail)
        elif min(left, top) < 0 or left + width > found.width or top + height > found.height:
            detail = f"its box {cut.box} leaves the {found.width}x{found.height} picture of {source.video}"
            yield Finding("fatal", "crop", source.clip_id, detail)


def _same_bytes(
    sources: Sequence[Source],
    labels: dict[str, set[Label]],
    seen: dict[str, Headers | Fault],
    root: Path,
    own: Sequence[Finding],
    workers: int,
) -> Iterator[Finding]:
    """Files with equal bytes. Under two labels at least one is wrong: fatal where prepare would read it, a note where
    the dataset's own checks say that it was published so."""
    groups: list[list[str]] = _alike({p: str(h.bytes) for p, h in seen.items() if isinstance(h, Headers)})
    for whole, title in ((False, "ends of files of one size"), (True, "files with the same ends")):
        suspects = sorted(path for group in groups for path in group)
        if not suspects:
            return
        digest = partial(_digests, root=root.absolute(), whole=whole)
        answers = dict(_each(digest, suspects, workers, title))
        groups = _alike({path: answer for path, answer in answers.items() if isinstance(answer, str)})
    # A dataset's note names one of the files, by a path of the published list that need not be that of the tree.
    published = {Path(f.item).name for f in own if (f.severity, f.check) == ("note", "conflicting_labels")}
    read = {path for source in sources for path in _read_by_prepare(source, seen)}
    for group in groups:
        one_label = len({frozenset(labels[path]) for path in group}) == 1
        known = any(Path(path).name in published for path in group)
        for path in group:
            others = [printable(other) for other in group if other != path]
            shown = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
            if one_label:
                yield Finding("warning", "duplicate", path, f"the same bytes as {shown}")
            elif known:
                yield Finding("note", "conflicting_labels", path, f"the same bytes as {shown}, as published")
            elif path in read:
                detail = f"the same bytes as {shown}, under another label: at least one is wrong"
                yield Finding("fatal", "conflicting_labels", path, detail)
            else:
                detail = f"the same bytes as {shown}, under another label; prepare does not read this file"
                yield Finding("warning", "conflicting_labels", path, detail)


def _read_by_prepare(source: Source, seen: dict[str, Headers | Fault]) -> Iterator[str]:
    yield source.video
    picture = seen[source.video]
    if source.audio is not None and not (isinstance(picture, Headers) and picture.audio):
        yield source.audio


def _alike(values: dict[str, str]) -> list[list[str]]:
    """The paths that share a value, two or more together."""
    groups: dict[str, list[str]] = defaultdict(list)
    for path, value in sorted(values.items()):
        groups[value].append(path)
    return [group for group in groups.values() if len(group) > 1]


def _digests(paths: Sequence[str], root: Path, whole: bool) -> list[str | Fault]:
    """Of the whole files, or of their sizes and ends."""
    answers: list[str | Fault] = []
    for path in paths:
        try:
            answers.append(media.file_sha256(root / path) if whole else _ends_sha256(root / path))
        except OSError as error:
            answers.append(Fault("unreadable", error.strerror or str(error)))
    return answers


def _ends_sha256(path: Path) -> str:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.sha256(f"{size} ".encode() + file.read(ENDS))
        file.seek(max(size - ENDS, 0))
        digest.update(file.read(ENDS))
    return digest.hexdigest()
