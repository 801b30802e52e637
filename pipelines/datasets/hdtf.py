"""HDTF (Zhang et al., CVPR 2021; lists of MRzzm/HDTF@bbde889): talking people of three subsets, RD, WDA and WRA.

The authors publish five lists a subset, <subset>_<list>.txt, and no media:

    video_url      Radio11 https://www.youtube.com/watch?v=...
    annotion_time  Radio11.mp4 00:30-01:00 01:30-02:30      the k-th interval is clip k, from 0
    crop_wh        Radio11_0.mp4 412 599 0 599              left, width, top, height in pixels
    crop_ratio     Radio11_0.mp4 1.2
    resolution     Radio11.mp4 720                          height of the picture for which crop_wh holds

A tree holds full videos (Radio11.mp4 or RD_Radio11.mp4), which are cut by the lists, or ready clips under the names of
the authors (Radio11_0.mp4) or of universome/HDTF@05007c8 (RD_Radio11_000.mp4; it numbers the clips that have crops,
which in the published lists gives the same numbers). Where the sound was kept apart it has the name of the video.
The lists tell no emotion: every clip is unlabelled, never neutral.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from pipelines.datasets import Cut, DatasetError, Finding, Index, Source, printable, walk
from pipelines.manifest import UNLABELLED, Rejected

NAME = "hdtf"
SUBSETS = ("RD", "WDA", "WRA")
VIDEO_SUFFIXES = {".mp4", ".mkv", ".webm", ".mov"}
AUDIO_SUFFIXES = {".wav", ".m4a", ".aac", ".mp3", ".flac", ".opus"}
# What a line of each list holds after the name.
_GRAMMAR = {
    "video_url": re.compile(r"\S+"),
    "annotion_time": re.compile(r"\S+( \S+)*"),
    "crop_wh": re.compile(r"-?[0-9]{1,6}( -?[0-9]{1,6}){3}"),
    "crop_ratio": re.compile(r"[0-9]{1,3}(\.[0-9]{1,6})?"),
    "resolution": re.compile(r"[0-9]{1,5}"),
}
LISTS = {f"{subset}_{kind}.txt": (subset, kind) for subset in SUBSETS for kind in _GRAMMAR}
_TIMES = re.compile(r"([0-9]{1,3}):([0-5][0-9])-([0-9]{1,3}):([0-5][0-9])")
_STEM = re.compile(rf"(?:({'|'.join(SUBSETS)})_)?(.+)", re.DOTALL)
_CLIP = re.compile(r"(.+)_([0-9]{1,4})", re.DOTALL)
_YOUTUBE = re.compile(r"(?:[?&]v=|youtu\.be/)([A-Za-z0-9_-]{11})(?![A-Za-z0-9_-])")


@dataclass(frozen=True, slots=True)
class Part:
    """A listed clip.

    times    (start, end) in s of the video
    box      (left, top, width, height) in pixels of a picture with Video.lines rows
    problem  (reason, detail) why it cannot be cut from the full video
    """

    times: tuple[int, int] | None
    box: tuple[int, int, int, int] | None
    ratio: str | None
    problem: tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class Video:
    """A listed video; `lines` is the height in pixels for which its crops hold, and parts[k] is clip k."""

    subset: str
    name: str
    url: str | None
    lines: int | None
    parts: tuple[Part, ...]

    @property
    def youtube(self) -> str | None:
        found = _YOUTUBE.search(self.url or "")
        return found[1] if found else None


@dataclass(frozen=True, slots=True)
class Lists:
    """The lists of a tree: videos by (subset, name), the path of every list found, and what is wrong in them."""

    videos: Mapping[tuple[str, str], Video]
    files: Mapping[str, str]
    rejected: list[Rejected]


class _Key(NamedTuple):
    """What a media file is: clip k of a video, or all of it (None). No subset: unknown, there are no lists."""

    subset: str
    name: str
    k: int | None


_Row = tuple[int, list[str]]  # number of the line, what follows the name


def identity_key(name: str) -> str:
    """The person of a video: its name, NFKC-normalised, without the digits at its end.

    A person has several videos (BarackObama0, BarackObama1), so a split by video leaks people: of EDTalk's HDTF lists
    13 of 73 test videos and 32 of 57 of these keys are in its training list too. The 369 annotated videos have 221
    keys. All Radio* are one: they are probably many people, and together they cannot leak.
    """
    text = unicodedata.normalize("NFKC", name)
    return re.sub(r"[0-9]+$", "", text) or text


def read_lists(root: Path) -> Lists:
    """The lists in any folder below `root`. Lines that cannot be used are in `rejected`; none raises.

    Raises DatasetError when `root` is not a folder.
    """
    return _parse(root, walk(root, NAME, []))


def index(root: Path) -> Index:
    """The clips below `root`: ready ones, and those to be cut from full videos. Every other file, and every listed
    video or clip that cannot be had from the tree, is rejected with the reason. Nothing is decoded.

    Raises DatasetError when `root` is not a folder or gives no clip.
    """
    rejected: list[Rejected] = []
    paths = list(walk(root, NAME, rejected))
    lists = _parse(root, paths)
    rejected += lists.rejected
    videos, sounds = _media(paths, lists, rejected)
    origins = _origins(lists)
    sources: list[Source] = []

    def add(key: _Key, k: int, cut: Cut | None) -> None:
        video = lists.videos.get(key[:2])
        part = video.parts[k] if video and k < len(video.parts) else None
        extra = {
            "origin": origins.get(key[:2], key.name),
            "subset": key.subset,
            "youtube": video and video.youtube,
            "crop_ratio": part and part.ratio,
        }
        clip_id = "_".join(filter(None, (key.subset, key.name, str(k))))
        told = {name: value for name, value in extra.items() if value}
        identity, path = identity_key(key.name), videos[key]
        sound = sounds.get(key)
        sources.append(Source(clip_id, NAME, identity, UNLABELLED, None, "front", None, str(k), path, sound, cut, told))

    for key in videos:
        if key.k is not None:
            add(key, key.k, None)
    both = 0
    for video in lists.videos.values():
        whole = _Key(video.subset, video.name, None)
        ready = {k for k in range(len(video.parts)) if whole._replace(k=k) in videos}
        both += len(ready) if whole in videos else 0
        for k, part in enumerate(video.parts):
            if whole in videos and part.problem is None and part.times and k not in ready:
                start, end = part.times
                add(whole, k, Cut(float(start), float(end), part.box, video.lines))
        rejected += _lost(video, whole in videos, ready, any(key[:2] == whole[:2] for key in videos))
    if not sources:
        raise DatasetError(_nothing(root, lists, rejected))
    notes = _notes(lists, {key[:2] for key in videos})
    if both:
        notes.append(f"{both} clips are there both ready and within a full video; the ready ones are taken")
    return Index(sorted(sources, key=lambda source: source.clip_id), rejected, notes)


def examine(root: Path, index: Index, *, digests: bool) -> Iterator[Finding]:
    """Defects of the lists, and of the tree against the lists. What is wrong with a line is in index.rejected."""
    lists = read_lists(root)
    missing = sorted(LISTS.keys() - lists.files.keys())
    if missing:
        yield Finding("warning", "lists", ", ".join(missing), "not in the tree: what they tell cannot be checked")
    videos = list(lists.videos.values())
    if not missing:
        counts = {
            "urls": sum(v.url is not None for v in videos),
            "annotated videos": sum(bool(v.parts) for v in videos),
            "clips": sum(len(v.parts) for v in videos),
            "crops": sum(part.box is not None for v in videos for part in v.parts),
        }
        published = {"urls": 370, "annotated videos": 369, "clips": 436, "crops": 421}
        told = ", ".join(f"{count} {what}" for what, count in counts.items())
        changed = [f"{published[what]} {what}" for what, count in counts.items() if count != published[what]]
        expected = f"the published lists have {', '.join(changed)}" if changed else "as published"
        yield Finding("warning" if changed else "note", "list_counts", "lists", f"{told}; {expected}")
    for video in videos:
        yield from _defects(video)
    by_youtube: dict[str, list[str]] = defaultdict(list)
    for video in videos:
        if video.youtube:
            by_youtube[video.youtube].append(video.name)
    for youtube, names in by_youtube.items():
        if len(names) > 1:
            keys = len({identity_key(name) for name in names})
            yield Finding("note", "same_video", youtube, f"{', '.join(names)} are one video, under {keys} identities")
    by_key: dict[str, set[str]] = defaultdict(set)
    for source in index.sources:
        by_key[source.identity].add(source.extra["origin"])
    for identity, origins in sorted(by_key.items()):
        if len(origins) > 1:
            yield Finding("note", "shared_identity", identity, f"the person of {', '.join(sorted(origins))}")
    have = Counter(source.extra.get("subset") for source in index.sources)
    for subset in SUBSETS:
        listed = sum(part.problem is None for v in videos if v.subset == subset for part in v.parts)
        if have[subset] < listed:
            detail = f"{have[subset]} clips can be prepared, of {listed} for which the lists have all that it takes"
            yield Finding("warning", "clips", subset, detail)


def _parse(root: Path, paths: Iterable[tuple[str, ...]]) -> Lists:
    files: dict[str, str] = {}
    rejected: list[Rejected] = []
    for parts in paths:
        if parts[-1] in LISTS and parts[-1] in files:
            detail = f"another copy of {printable(files[parts[-1]])}, which is the one used"
            rejected.append(Rejected(NAME, printable("/".join(parts)), "index", "duplicate", detail))
        elif parts[-1] in LISTS:
            files[parts[-1]] = "/".join(parts)
    videos: dict[tuple[str, str], Video] = {}
    for subset in SUBSETS:
        tables = {
            kind: _table(root, files[name], kind, rejected) if name in files else {}
            for name, (of, kind) in LISTS.items()
            if of == subset
        }
        for name in [*tables["video_url"], *(n for n in tables["annotion_time"] if n not in tables["video_url"])]:
            videos[subset, name] = _video(subset, name, tables)
        known = {name for of, name in videos if of == subset}
        clips = {f"{name}_{k}" for name in known for k in range(len(videos[subset, name].parts))}
        for kind, names in (("resolution", known), ("crop_wh", clips), ("crop_ratio", clips)):
            if f"{subset}_annotion_time.txt" not in files:
                continue  # one note says so
            for name, (number, _) in tables[kind].items():
                if name not in names:
                    what = "video of that name" if kind == "resolution" else "such clip in the list of times"
                    detail = f"line {number}: {name}: no {what}"
                    path = printable(files[f"{subset}_{kind}.txt"])
                    rejected.append(Rejected(NAME, path, "index", "unlisted", detail))
    return Lists(videos, files, rejected)


def _table(root: Path, path: str, kind: str, rejected: list[Rejected]) -> dict[str, _Row]:
    """What a list tells, by name."""

    def reject(reason: str, detail: str) -> None:
        rejected.append(Rejected(NAME, printable(path), "index", reason, detail))

    try:
        data = (root / path).read_bytes()
    except OSError as error:
        reject("unreadable", error.strerror or str(error))
        return {}
    table: dict[str, _Row] = {}
    for number, line in enumerate(data.removeprefix(codecs.BOM_UTF8).splitlines(), 1):
        fields = line.decode("utf-8", "surrogateescape").split()
        if not fields:
            continue
        name, rest = unicodedata.normalize("NFKC", fields[0]).removesuffix(".mp4"), fields[1:]
        if not _usable(name) or not _GRAMMAR[kind].fullmatch(" ".join(rest)):
            shown = printable(" ".join(fields)[:80])
            reject("list_line", f"line {number}: {shown!r} is no line of a list of {kind} (UTF-8, name and values)")
        elif name in table:
            reject("list_line", f"line {number}: {name} is at line {table[name][0]} already, which is the one used")
        else:
            table[name] = (number, rest)
    return table


def _usable(name: str) -> bool:
    """Whether a name can be that of a clip, and so of a file."""
    return name.isprintable() and not set(name) & set(" /\\") and name[:1] not in ("", ".")


def _video(subset: str, name: str, tables: Mapping[str, Mapping[str, _Row]]) -> Video:
    _, url = tables["video_url"].get(name, (0, [None]))
    _, (height,) = tables["resolution"].get(name, (0, ["0"]))
    lines = int(height) or None  # KevinMcCarthy1 is listed with 0
    line, intervals = tables["annotion_time"].get(name, (0, []))
    parts = []
    for k, text in enumerate(intervals):
        clip = f"{name}_{k}"
        ratio = tables["crop_ratio"].get(clip, (0, [None]))[1][0]
        times = _times(text)
        box: tuple[int, int, int, int] | None = None
        problem: tuple[str, str] | None = None
        if clip in tables["crop_wh"]:
            number, values = tables["crop_wh"][clip]
            left, width, top, height_ = map(int, values)
            box = (left, top, width, height_)
            problem = _box_problem(box, lines, f"line {number} of {subset}_crop_wh.txt: {' '.join(values)}")
        else:
            problem = ("no_crop", f"{subset}_crop_wh.txt has no crop of it")
        if times is None:
            detail = f"line {line} of {subset}_annotion_time.txt: {printable(text[:40])!r} is not MM:SS-MM:SS, in order"
            problem = ("times", detail)
        parts.append(Part(times, box, ratio, problem))
    return Video(subset, name, url[0], lines, tuple(parts))


def _times(text: str) -> tuple[int, int] | None:
    found = _TIMES.fullmatch(text)
    if not found:
        return None
    a, b, c, d = map(int, found.groups())
    start, end = 60 * a + b, 60 * c + d
    return (start, end) if start < end else None


def _box_problem(box: tuple[int, int, int, int], lines: int | None, where: str) -> tuple[str, str] | None:
    left, top, width, height = box
    if width != height:
        return "crop_square", f"{where}: {width} wide and {height} high; HDTF's crops are square"
    if min(left, top) < 0 or width < 1:
        return "crop_outside", f"{where}: a crop that is empty or begins outside the picture"
    if lines is None:
        return "no_resolution", f"{where}: the list of resolutions does not tell for which height the crop holds"
    if top + height > lines:
        return "crop_outside", f"{where}: ends at row {top + height} of a picture of {lines}"
    return None


def _origins(lists: Lists) -> dict[tuple[str, str], str]:
    """The name under which each video counts as an origin: where one URL has two names, the first."""
    first: dict[str, str] = {}
    return {key: first.setdefault(v.youtube or f"{v.subset}/{v.name}", v.name) for key, v in lists.videos.items()}


def _media(
    paths: Iterable[tuple[str, ...]], lists: Lists, rejected: list[Rejected]
) -> tuple[dict[_Key, str], dict[_Key, str]]:
    """The files of pictures and those of sound, by what they are."""
    videos: dict[_Key, str] = {}
    sounds: dict[_Key, str] = {}
    for parts in paths:
        if parts[-1] in LISTS:
            continue
        path = "/".join(parts)
        suffix = Path(parts[-1]).suffix.lower()
        key: _Key | tuple[str, str]
        if any(part.startswith(".") for part in parts):
            key = ("hidden", "a hidden file")
        elif suffix not in VIDEO_SUFFIXES | AUDIO_SUFFIXES:
            key = ("unrecognised", "neither one of HDTF's lists nor a video nor a sound")
        else:
            key = _resolve(Path(parts[-1]).stem, lists)
        if isinstance(key, _Key):
            table = videos if suffix in VIDEO_SUFFIXES else sounds
            if table.setdefault(key, path) == path:
                continue
            key = ("duplicate", f"the same recording as {printable(table[key])}")
        rejected.append(Rejected(NAME, printable(path), "index", *key))
    for sound in sounds.keys() - videos.keys():
        rejected.append(Rejected(NAME, printable(sounds[sound]), "index", "no_video", "no video has that name"))
    return videos, sounds


def _resolve(stem: str, lists: Lists) -> _Key | tuple[str, str]:
    """What a file of that name is, or (reason, detail) why it is nothing."""
    stem = unicodedata.normalize("NFKC", stem)
    found = _STEM.fullmatch(stem)
    if not found or not _usable(stem):
        return "unrecognised", "a name that no clip can have"
    subset, rest = found[1] or "", found[2]
    clip = _CLIP.fullmatch(rest)
    listed = {LISTS[name][0] for name in lists.files}
    if not listed or (subset and subset not in listed):
        if clip:
            return _Key(subset, clip[1], int(clip[2]))
        return "unlisted", "no ready clip (<Name>_<k>), and without HDTF's lists a full video cannot be cut"
    within = [subset] if subset else SUBSETS
    keys = [_Key(s, rest, None) for s in within if (s, rest) in lists.videos]
    if clip:
        for video in (lists.videos.get((s, clip[1])) for s in within):
            # A video without times (Radio24) may have been cut by hand; any number is as good.
            if video and (not video.parts or int(clip[2]) < len(video.parts)):
                keys.append(_Key(video.subset, video.name, int(clip[2])))
    if len(keys) > 1:
        return "ambiguous", f"it may be any of {', '.join(f'{key.subset}_{stem}' for key in keys)}"
    return keys[0] if keys else ("unlisted", f"the lists ({', '.join(sorted(listed))}) name no such video or clip")


def _lost(video: Video, whole: bool, ready: set[int], some: bool) -> Iterator[Rejected]:
    """Rows for what the lists name and the tree cannot give. `whole`: the full video is there; `ready`: the clips
    that are; `some`: any file of the video is."""

    def row(name: str, reason: str, detail: str) -> Rejected:
        return Rejected(NAME, f"{video.subset}_{name}.mp4", "index", reason, detail)

    if not video.parts and (whole or not some):
        yield row(video.name, "no_times", f"{video.subset}_annotion_time.txt has no line for it")
    if any(part.problem is None for part in video.parts) and not some:
        yield row(video.name, "not_there", "listed, but neither the video nor any of its clips is in the tree")
    for k, part in enumerate(video.parts):
        if k in ready:
            continue
        if part.problem:
            yield row(f"{video.name}_{k}", *part.problem)
        elif some and not whole:
            yield row(f"{video.name}_{k}", "not_there", "listed, and other clips of the video are in the tree")


def _notes(lists: Lists, there: set[tuple[str, str]]) -> list[str]:
    if not lists.files:
        return ["none of HDTF's lists is in the tree: the cuts and resolution of the clips cannot be checked"]
    notes = [f"{name} is not in the tree" for name in LISTS if name not in lists.files]
    for subset in SUBSETS:
        listed = [key for key in lists.videos if key[0] == subset]
        missing = sum(key not in there for key in listed)
        if missing:
            notes.append(f"{subset}: {missing} of {len(listed)} videos are not in the tree")
    return notes


def _nothing(root: Path, lists: Lists, rejected: list[Rejected]) -> str:
    message = f"{printable(root)}: no HDTF clip; expected <Name>_<k>.mp4, or <Name>.mp4 and the lists that cut it"
    if not rejected:
        return message + " (the folder is empty)"
    if lists.videos:
        message += f"; the lists name {len(lists.videos)} videos"
    (reason, count), *_ = Counter(r.reason for r in rejected).most_common(1)
    example = next(r for r in rejected if r.reason == reason)
    return f"{message}; {count} of {len(rejected)} rejected: {reason}, such as {example.source} ({example.detail})"


def _defects(video: Video) -> Iterator[Finding]:
    """What is known to be wrong in the published lists, and whatever else of that kind."""
    item = f"{video.subset}_{video.name}"
    if not video.parts:
        yield Finding("note", "no_times", item, "a video without times: none of it is a clip")
    for k, part in enumerate(video.parts):
        if part.problem:
            yield Finding("note", part.problem[0], f"{item}_{k}", part.problem[1])
    timed = [(k, part.times) for k, part in enumerate(video.parts) if part.times]
    for (i, one), (k, other) in combinations(timed, 2):
        if one[0] < other[1] and other[0] < one[1]:
            detail = f"{one[0]}-{one[1]} s and {other[0]}-{other[1]} s overlap: clips {i} and {k} share frames"
            yield Finding("note", "overlap", item, detail)
