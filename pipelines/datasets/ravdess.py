"""RAVDESS (Livingstone & Russo, PLoS ONE 13(5), 2018): <MM>-<VV>-<EE>-<II>-<SS>-<RR>-<AA>.mp4 or .wav, that is
modality, vocal channel, emotion, intensity, statement, repetition, actor, in folders such as
Video_Speech_Actor_01/Actor_01; folders are free, the name of the file decides.

One performance exists as 01 (video with sound), 02 (the same video without) and 03 (the sound). 01 is taken, else 02
with the sound of 03. Calm is none of MEAD's eight words and stays `calm`. Neutral has no strong intensity; song has
neither disgust nor surprise, and actor 18 sang nothing.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from pipelines.datasets import DatasetError, Finding, Index, Source, printable, walk
from pipelines.manifest import Rejected

NAME = "ravdess"
EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fear",
    "07": "disgusted",
    "08": "surprised",
}
CHANNELS = {"01": "speech", "02": "song"}
STATEMENTS = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}
INTENSITIES = {"01": 1, "02": 2}
REPETITIONS = ("01", "02")
ACTORS = tuple(f"{number:02}" for number in range(1, 25))
NEVER_SUNG = ("disgusted", "surprised")
SILENT_SINGER = "Actor_18"
TAKES = len(STATEMENTS) * len(REPETITIONS)  # performances of one emotion at one intensity
VIDEO_SUFFIXES = {".mp4", ".mov", ".avi", ".mkv", ".flv"}
AUDIO_SUFFIXES = {".wav", ".m4a", ".mp3", ".flac"}
_FOLDER = re.compile(r"(?:.*_)?Actor_([0-9]{2})")


def index(root: Path) -> Index:
    """Every performance below `root`, and every other file with the reason why it is none. Notes list the cells
    (actor, speech or song, emotion, intensity) that lack performances. Nothing is decoded.

    Raises DatasetError when `root` is not a folder or holds no performance.
    """
    rejected: list[Rejected] = []
    videos: dict[str, list[str]] = defaultdict(list)
    sounds: dict[str, list[str]] = defaultdict(list)

    def reject(path: str, reason: str, detail: str) -> None:
        rejected.append(Rejected(NAME, printable(path), "index", reason, detail))

    for parts in walk(root, NAME, rejected):
        path, stem = "/".join(parts), Path(parts[-1]).stem
        problem = _problem(parts)
        if problem is not None:
            reject(path, *problem)
        else:
            (sounds if stem.startswith("03") else videos)[stem[3:]].append(path)

    sources = []
    for performance, paths in sorted(videos.items()):
        video, *others = sorted(paths, key=lambda path: (Path(path).name[:2], path))
        sources.append(_source(video, sorted(sounds.get(performance, []))))
        for path in others:
            reject(path, "duplicate", f"the same performance as {printable(video)}")
    for performance, paths in sorted(sounds.items()):
        kept, *others = sorted(paths)
        if performance not in videos:
            reject(kept, "no_video", "sound alone: there is no video of this performance")
        for path in others:
            reject(path, "duplicate", f"the same sound as {printable(kept)}")
    if not sources:
        raise DatasetError(_nothing(root, rejected))
    return Index(sources, rejected, _missing(sources))


def examine(root: Path, index: Index, *, digests: bool) -> Iterator[Finding]:
    """Performances missing by actor, without sound, beyond what was recorded, and in the folder of another actor.
    Neither the tree nor any file is read again: names tell all of it."""
    have = Counter((s.identity, s.extra["vocal_channel"]) for s in index.sources)
    for channel in sorted({channel for _, channel in have}):
        for actor in (f"Actor_{number}" for number in ACTORS):
            expected = TAKES * len(_cells(actor, channel))
            if have[actor, channel] < expected:
                detail = f"{have[actor, channel]} performances, {expected} were recorded"
                yield Finding("warning", "count", f"{actor} {channel}", detail)
    for source in index.sources:
        cell = (source.emotion, source.intensity)
        channel = source.extra["vocal_channel"]
        if source.audio is None and source.clip_id.startswith("02"):
            detail = "video alone (02), and its sound (03) is not in the tree: prepare rejects it as no_audio"
            yield Finding("fatal", "no_audio", printable(source.video), detail)
        if cell not in _cells(source.identity, channel):
            detail = f"no {channel} of {source.emotion} by {source.identity} was published: renamed?"
            yield Finding("warning", "unpublished", printable(source.video), detail)
        folders = {match[1] for part in source.video.split("/")[:-1] if (match := _FOLDER.fullmatch(part))}
        if wrong := sorted(folders - {source.identity[-2:]}):
            detail = f"a file of {source.identity} in the folder of Actor_{wrong[0]}: the name is believed"
            yield Finding("warning", "folder", printable(source.video), detail)


def _problem(parts: tuple[str, ...]) -> tuple[str, str] | None:
    """(reason, detail) why a path is not in the grammar, or None."""
    if any(part.startswith(".") for part in parts):
        return "hidden", "a hidden file"
    file = Path(parts[-1])
    fields = file.stem.split("-")
    if len(fields) != 7:
        return "unrecognised", "expected a name of seven numbers, such as 01-01-06-01-02-01-12.mp4"
    try:
        "/".join(parts).encode()
    except UnicodeEncodeError:
        return "path", "the path is not UTF-8; rename its folders"
    modality, channel, emotion, intensity, statement, repetition, actor = fields
    for reason, code, known in (
        ("modality", modality, ("01", "02", "03")),
        ("vocal_channel", channel, tuple(CHANNELS)),
        ("emotion", emotion, tuple(EMOTIONS)),
        ("intensity", intensity, tuple(INTENSITIES)),
        ("statement", statement, tuple(STATEMENTS)),
        ("repetition", repetition, REPETITIONS),
        ("identity", actor, ACTORS),
    ):
        if code not in known:
            return reason, f"{reason} {printable(code)!r} is not from {known[0]} to {known[-1]}"
    if EMOTIONS[emotion] == "neutral" and intensity != "01":
        return "neutral_level", "neutral exists at normal intensity (01) alone"
    kind, suffixes = ("audio", AUDIO_SUFFIXES) if modality == "03" else ("video", VIDEO_SUFFIXES)
    if file.suffix.lower() not in suffixes:
        shown = printable(file.suffix)
        return "suffix", f"modality {modality} is {kind}, and {shown!r} is none of {', '.join(sorted(suffixes))}"
    return None


def _source(video: str, sounds: list[str]) -> Source:
    stem = Path(video).stem
    _, channel, emotion, intensity, statement, repetition, actor = stem.split("-")
    return Source(
        clip_id=stem,
        dataset=NAME,
        identity=f"Actor_{actor}",
        emotion=EMOTIONS[emotion],
        intensity=INTENSITIES[intensity],
        view="front",
        sentence=STATEMENTS[statement],
        take=repetition,
        video=video,
        audio=sounds[0] if sounds else None,
        extra={
            "sex": "male" if int(actor) % 2 else "female",
            "vocal_channel": CHANNELS[channel],
            "repetition": str(int(repetition)),
        },
    )


def _cells(actor: str, channel: str) -> list[tuple[str, int]]:
    """(emotion, intensity) of what an actor recorded, each TAKES times."""
    if channel == "song" and actor == SILENT_SINGER:
        return []
    emotions = [e for e in EMOTIONS.values() if channel == "speech" or e not in NEVER_SUNG]
    return [(e, level) for e in emotions for level in ((1,) if e == "neutral" else (1, 2))]


def _missing(sources: list[Source]) -> list[str]:
    have = Counter((s.identity, s.extra["vocal_channel"], s.emotion, s.intensity) for s in sources)
    present = {(s.identity, s.extra["vocal_channel"]) for s in sources}
    notes = []
    for actor in (f"Actor_{number}" for number in ACTORS):
        for channel in sorted({channel for _, channel in present}):
            cells = _cells(actor, channel)
            if cells and (actor, channel) not in present:
                notes.append(f"{actor}: no {channel}")
                continue
            for emotion, level in cells:
                count = have[actor, channel, emotion, level]
                if count < TAKES:
                    notes.append(f"{actor}: {channel}/{emotion}/{level}: {count} of {TAKES}")
    return notes


def _nothing(root: Path, rejected: list[Rejected]) -> str:
    message = f"{printable(root)}: no RAVDESS video; expected names such as 01-01-06-01-02-01-12.mp4 below it"
    if not rejected:
        return message + " (the folder is empty)"
    (reason, count), *_ = Counter(r.reason for r in rejected).most_common(1)
    example = next(r for r in rejected if r.reason == reason)
    return f"{message}; {count} of {len(rejected)} files: {reason}, such as {example.source} ({example.detail})"
