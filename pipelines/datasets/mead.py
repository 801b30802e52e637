"""MEAD (Wang et al., ECCV 2020): <ID>/video/<view>/<emotion>/level_<1-3>/<NNN>.mp4, <ID>/audio/<emotion>/level_<n>/
<NNN>.m4a. IDs are M### and W###; neutral exists at level_1 alone.

NNN is the number of a take, not of a sentence: 15 of the speakers use numbers with gaps, so a number must never be
joined across speakers. `sentence` is therefore None.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipelines.datasets import DatasetError, Finding, Index, Source, printable, walk
from pipelines.manifest import EMOTIONS, Rejected

NAME = "mead"
VIEWS = ("front", "left_30", "left_60", "right_30", "right_60", "top", "down")
FEWEST = 12  # clips of a cell in the published lists
USUAL = {"neutral": (40,), "other": (29, 30)}  # of nearly all cells: most have 30, 127 have 29
CELLS = tuple((e, level) for e in EMOTIONS for level in ((1,) if e == "neutral" else (1, 2, 3)))
VIDEO_SUFFIXES = {".mp4", ".mov", ".avi", ".mkv"}
AUDIO_SUFFIXES = {".m4a", ".wav", ".aac", ".mp3", ".flac"}
_ID, _LEVEL, _TAKE = re.compile(r"[MW]\d{3}"), re.compile(r"level_([1-3])"), re.compile(r"\d{3}")


def index(root: Path, dataset: str = NAME) -> Index:
    """Every recording below `root`, which holds the folders M###, W###, and every other file with the reason why
    it is none. Notes list the cells (identity, view, emotion, level) that are missing. Nothing is decoded.

    Raises DatasetError when `root` is not a folder or holds no recording.
    """
    rejected: list[Rejected] = []
    sounds: dict[tuple[str, str, int, str], str] = {}
    videos: list[tuple[str, str, str, int, str, str]] = []

    def reject(parts: tuple[str, ...], reason: str, detail: str) -> None:
        rejected.append(Rejected(dataset, printable("/".join(parts)), "index", reason, detail))

    for parts in walk(root, dataset, rejected):
        problem = _problem(parts)
        if problem is not None:
            reject(parts, *problem)
            continue
        identity, kind, *middle, emotion, level_folder, name = parts
        level, take = int(level_folder[-1]), Path(name).stem
        if kind == "audio":
            sounds[identity, emotion, level, take] = "/".join(parts)
        else:
            videos.append((identity, middle[0], emotion, level, take, "/".join(parts)))

    sources: dict[str, Source] = {}
    for identity, view, emotion, level, take, path in videos:
        clip_id = f"{identity}_{view}_{emotion}_{level}_{take}"
        if clip_id in sources:
            reject(tuple(path.split("/")), "duplicate", f"the same recording as {sources[clip_id].video}")
            continue
        sound = sounds.get((identity, emotion, level, take))
        sources[clip_id] = Source(clip_id, dataset, identity, emotion, level, view, None, take, path, sound)
    if not sources:
        raise DatasetError(_nothing(root, rejected))
    return Index([sources[key] for key in sorted(sources)], rejected, _missing(list(sources.values())))


def examine(root: Path, index: Index, *, digests: bool) -> Iterator[Finding]:
    """Cells (identity, emotion, level) with fewer clips than any that was published, with other counts in other views
    or with other counts than most cells; views and sound folders that are missing, and gaps in the numbers. Names tell
    all of it: no file is read.
    """
    takes: dict[tuple[str, str, int | None], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for source in index.sources:
        takes[source.identity, source.emotion, source.intensity][source.view].add(source.take)
    unusual: dict[str, list[str]] = defaultdict(list)
    for (identity, emotion, level), views in sorted(takes.items()):
        counts = {view: len(views[view]) for view in sorted(views, key=VIEWS.index)}
        usual = USUAL["neutral" if emotion == "neutral" else "other"]
        item = f"{identity}/{emotion}/level_{level}"
        shown = ", ".join(f"{count} in {view}" for view, count in counts.items())
        if len(set(counts.values())) > 1:
            yield Finding("warning", "count", item, f"views differ: {shown}")
        elif max(counts.values()) < FEWEST:
            detail = f"{shown}; most cells have {usual[-1]}, none published under {FEWEST}"
            yield Finding("warning", "count", item, detail)
        elif max(counts.values()) not in usual:
            unusual[identity].append(f"{emotion}/level_{level} {max(counts.values())}")
    for identity, cells in unusual.items():
        some = ", ".join(cells[:4]) + (f" and {len(cells) - 4} more" if len(cells) > 4 else "")
        yield Finding("note", "count", identity, f"cells without the usual 29 or 30 clips, or 40 of neutral: {some}")
    yield from _views(index.sources)
    yield from _gaps(takes)
    with_sound = {source.identity for source in index.sources if source.audio is not None}
    for identity in sorted({source.identity for source in index.sources} - with_sound):
        detail = "no sound file of this person: only what the videos hold"
        yield Finding("warning", "audio_folder", f"{identity}/audio", detail)


def _views(sources: list[Source]) -> Iterator[Finding]:
    views: dict[str, set[str]] = defaultdict(set)
    for source in sources:
        views[source.identity].add(source.view)
    everywhere = set().union(*views.values())
    if absent := [view for view in VIEWS if view not in everywhere]:
        yield Finding("note", "views", "all", f"nobody has {', '.join(absent)}; seven were published")
    for identity, have in sorted(views.items()):
        if len(have) == 1 < len(everywhere):
            others = len(everywhere)
            yield Finding("warning", "views", identity, f"has {min(have)} alone, where the tree has {others} views")


def _gaps(takes: Mapping[tuple[str, str, int | None], Mapping[str, set[str]]]) -> Iterator[Finding]:
    """Published so for 15 speakers: worth a note because it breaks every join by number."""
    gaps: dict[str, list[str]] = defaultdict(list)
    for (identity, emotion, level), views in sorted(takes.items()):
        numbers = {int(take) for cell in views.values() for take in cell}
        if max(numbers) > len(numbers):
            gaps[identity].append(f"{emotion}/level_{level} has {len(numbers)} up to {max(numbers):03}")
    for identity, cells in gaps.items():
        detail = f"numbers with gaps in {len(cells)} cells ({cells[0]}); never join takes of two people by number"
        yield Finding("note", "numbering", identity, detail)


def _problem(parts: tuple[str, ...]) -> tuple[str, str] | None:
    """(reason, detail) why a path is not in the grammar, or None."""
    if any(part.startswith(".") for part in parts):
        return "hidden", "a hidden file"
    if len(parts) < 2 or parts[1] not in ("video", "audio"):
        return "unrecognised", "expected <ID>/video/<view>/<emotion>/level_<1-3>/<NNN>.mp4 or <ID>/audio/..."
    expected = 6 if parts[1] == "video" else 5
    if len(parts) != expected:
        return "unrecognised", f"{len(parts)} parts where a {parts[1]} path has {expected}"
    identity, kind, *middle, emotion, level, name = parts
    if not _ID.fullmatch(identity):
        return "identity", f"{printable(identity)!r} is not M### or W###"
    if middle and middle[0] not in VIEWS:
        return "view", f"{printable(middle[0])!r} is none of {', '.join(VIEWS)}"
    if emotion not in EMOTIONS:
        return "emotion", f"{printable(emotion)!r} is none of {', '.join(EMOTIONS)}"
    if not _LEVEL.fullmatch(level):
        return "level", f"{printable(level)!r} is not level_1, level_2 or level_3"
    if emotion == "neutral" and level != "level_1":
        return "neutral_level", f"neutral exists at level_1 alone, not {level}"
    suffixes = VIDEO_SUFFIXES if kind == "video" else AUDIO_SUFFIXES
    if Path(name).suffix.lower() not in suffixes:
        return "suffix", f"{printable(Path(name).suffix)!r} is not a {kind} suffix ({', '.join(sorted(suffixes))})"
    if not _TAKE.fullmatch(Path(name).stem):
        return "take", f"{printable(Path(name).stem)!r} is not a number of three digits"
    return None


def _nothing(root: Path, rejected: list[Rejected]) -> str:
    message = f"{printable(root)}: no MEAD recording; expected <ID>/video/<view>/<emotion>/level_<n>/<NNN>.mp4 below it"
    if not rejected:
        return message + " (the folder is empty)"
    (reason, count), *_ = Counter(r.reason for r in rejected).most_common(1)
    example = next(r for r in rejected if r.reason == reason)
    return f"{message}; {count} of {len(rejected)} files: {reason}, such as {example.source} ({example.detail})"


def _missing(sources: list[Source]) -> list[str]:
    have = Counter((s.identity, s.view, s.emotion, s.intensity) for s in sources)
    views = sorted({s.view for s in sources}, key=VIEWS.index)
    notes = []
    for identity in sorted({s.identity for s in sources}):
        for view in views:
            missing = [f"{e}/level_{level}" for e, level in CELLS if not have[identity, view, e, level]]
            if len(missing) == len(CELLS):
                notes.append(f"{identity}: the whole view {view}")
            else:
                notes += [f"{identity}: {view}/{cell}" for cell in missing]
    return notes
