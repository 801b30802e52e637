"""VoxCeleb2 (Chung et al., Interspeech 2018): [dev|test/]mp4/<id#####>/<YouTube id>/<#####>.mp4, 25 fps, and beside mp4
the folders aac (the same path, .m4a: the sound) and txt (the same path, .txt: where the utterance lies in its video).

An utterance's txt has the lines `Identity  :`, `Reference :`, `Offset    :`, `FV Conf   :`, `ASD Conf  :` and an empty
one, then columns set off by tabs, with blanks behind the names: `FRAME `, `X `, `Y `, `W `, `H `. Frames are those of
the YouTube video at 25 a second. VoxCeleb2's boxes are fractions of the picture; VoxCeleb1's, which are read too, are
pixels of one of 360 lines (REF_FRAME_SIZE in crop_vox.py of AliaksandrSiarohin/video-preprocessing@083fec5).

Other names of an utterance: <id>_<YouTube id>_<#####>.mp4 (EAT); <id>#<YouTube id>#<#####>.txt#<part>.mp4 and
<id>#<YouTube id>#<first frame>#<end frame>.mp4 (crop_vox.py and load_videos.py of the same repository).
The dataset tells no emotion: every clip is unlabelled, never neutral.
"""

from __future__ import annotations

import codecs
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipelines.datasets import Cut, DatasetError, Finding, Index, Source, printable, walk
from pipelines.manifest import UNLABELLED, Rejected

NAME = "voxceleb2"
FPS = 25
PIXEL_LINES = 360
META = "vox2_meta.csv"
AUDIO_SUFFIXES = {".m4a", ".aac", ".wav"}
IDENTITIES = {"dev": 5994, "test": 118}
_ID, _YOUTUBE, _TAKE = r"(id[0-9]{5})", r"([A-Za-z0-9_-]{11})", r"([0-9]{5})"
_PATH = re.compile(rf"{_ID}/{_YOUTUBE}/{_TAKE}")
_FLAT = re.compile(rf"{_ID}_{_YOUTUBE}_{_TAKE}")
_PARTS = re.compile(rf"{_ID}#{_YOUTUBE}#([0-9]{{5,6}})(?:\.txt)?#([0-9]{{3,6}})")
_COLUMNS = ("FRAME", "X", "Y", "W", "H")
MARGIN = 0.4  # of a box's size, on each side
_WIDEST = 2.0  # a box of more than twice the picture's width or height is in pixels
_HUGE = 1e8  # beyond any video and picture; NaN is not below it either
_GRAMMAR = "[dev|test/]mp4/<id#####>/<YouTube id>/<#####>.mp4"


class Key(NamedTuple):
    """An utterance; `take` is its number, with that of the part if it was cut further."""

    identity: str
    youtube: str
    take: str


@dataclass(frozen=True, slots=True)
class Utterance:
    """Where an utterance lies in its video: the first and last frame at 25 fps, and (left, top, width, height) of the
    smallest box that holds every frame's; `fractions` says whether of the picture's size, or pixels of 360 lines."""

    identity: str
    youtube: str
    first: int
    last: int
    box: tuple[float, float, float, float]
    fractions: bool

    @property
    def inside(self) -> bool:
        """Whether the box lies in the picture. The width in pixels of a picture of 360 lines is not known."""
        left, top, width, height = self.box
        right, bottom = (1.0, 1.0) if self.fractions else (math.inf, float(PIXEL_LINES))
        # The published fractions have three decimals, so that a sum may miss 1 by their rounding.
        return left >= 0 and top >= 0 and left + width <= right + 1e-3 and top + height <= bottom + 1e-3


@dataclass(slots=True)
class _Tree:
    """The files of a tree, by what they are."""

    clips: dict[Key, str]
    sounds: dict[Key, str]
    texts: dict[Key, str]
    whole: dict[str, str]  # by YouTube id
    meta: dict[str, dict[str, str]] | None  # gender, vggface2 and set, by identity


def read_utterance(data: bytes) -> Utterance:
    """Parse an utterance's txt. Raises ValueError, in one line, for what is not in the grammar."""
    lines = data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace").splitlines()
    header: dict[str, str] = {}
    rows: Iterator[str] = iter(lines)
    columns: list[str] = []
    for line in rows:
        columns = [column.strip() for column in line.split("\t")]
        if columns[0] == "FRAME":
            break
        name, _, value = line.partition(":")
        header[name.strip()] = value.strip()
    else:
        raise ValueError("no line of columns (FRAME, X, Y, W, H)")
    missing = [name for name in ("Identity", "Reference") if not header.get(name)]
    missing += [name for name in _COLUMNS if name not in columns]
    if missing:
        raise ValueError(f"lacks {', '.join(missing)}")
    pick = itemgetter(*(columns.index(name) for name in _COLUMNS))
    table: list[tuple[float, ...]] = []
    for row in rows:
        if row.strip():
            try:
                table.append(tuple(map(float, pick(row.split("\t")))))
            except (ValueError, IndexError):
                raise ValueError(f"{printable(row[:60])!r} is no frame and box") from None
    if not table:
        raise ValueError("no frame")
    values = np.array(table)  # (n, 5)
    frames, sizes = values[:, 0], values[:, 3:]
    if not (np.abs(values) < _HUGE).all() or (frames % 1).any() or frames[0] < 0 or (np.diff(frames) <= 0).any():
        raise ValueError("expected frames counted up from 0 and boxes of finite numbers")
    if sizes.min() <= 0:
        raise ValueError("a box without width or height")
    (left, top), (right, bottom) = values[:, 1:3].min(axis=0), (values[:, 1:3] + sizes).max(axis=0)
    union = (float(left), float(top), float(right - left), float(bottom - top))
    fractions = bool(sizes.max() <= _WIDEST)
    return Utterance(header["Identity"], header["Reference"], int(frames[0]), int(frames[-1]), union, fractions)


def index(root: Path) -> Index:
    """The utterances below `root`: those that are there as files, and those to be cut from a full video,
    <YouTube id>.mp4 in any folder, by their txt. Every other file is rejected with the reason. Nothing is decoded.

    Raises DatasetError when `root` is not a folder or gives no utterance.
    """
    rejected: list[Rejected] = []
    tree = _scan(root, rejected)
    sources = []
    cut_from: set[str] = set()
    for key in sorted(tree.clips.keys() | tree.texts.keys()):
        try:
            where = _where(root, key, tree)
        except ValueError as error:
            rejected.append(Rejected(NAME, printable(tree.texts[key]), "index", "utterance", str(error)))
            if key not in tree.clips:
                continue
            where = None
        if key in tree.clips:
            sources.append(_source(key, tree.clips[key], tree.sounds.get(key), None, where, tree))
            continue
        path = tree.whole.get(key.youtube)
        problem = None
        if path is None:
            problem = ("no_video", f"neither {'/'.join(key)}.mp4 nor {key.youtube}.mp4 is in the tree")
        elif where and not where.inside:
            box = ", ".join(f"{value:.4g}" for value in where.box)
            problem = ("crop_outside", f"the box (left, top, width, height) {box} leaves the picture")
        if problem:
            rejected.append(Rejected(NAME, printable(tree.texts[key]), "index", *problem))
        elif path and where:
            cut_from.add(key.youtube)
            sources.append(_source(key, path, None, _cut(where), where, tree))
    _left_over(tree, cut_from, rejected)
    if not sources:
        raise DatasetError(_nothing(root, rejected))
    notes = [] if tree.meta is not None else [f"{META} is not in the tree: gender and set are not known"]
    return Index(sorted(sources, key=lambda source: source.clip_id), rejected, notes)


def examine(root: Path, index: Index, *, digests: bool) -> Iterator[Finding]:
    """Identities that the metadata lack or that are in both sets, and YouTube videos of several identities."""
    meta = _scan(root, []).meta
    sets: dict[str, set[str]] = defaultdict(set)
    people: dict[str, set[str]] = defaultdict(set)
    for source in index.sources:
        sets[source.identity] |= {part for part in source.video.split("/")[:-1] if part in IDENTITIES}
        people[source.extra["origin"]].add(source.identity)
    for identity, folders in sorted(sets.items()):
        if meta is not None and identity not in meta:
            yield Finding("warning", "meta", identity, f"not in {META}")
        if len(folders) > 1:
            yield Finding("warning", "both_sets", identity, "in the folders of dev and of test")
    for youtube, identities in sorted(people.items()):
        if len(identities) > 1:
            yield Finding("note", "same_video", youtube, f"a video of {', '.join(sorted(identities))}")
    have = Counter(folder for folders in sets.values() for folder in folders)
    for folder in sorted(have):
        if have[folder] != IDENTITIES[folder]:
            detail = f"{have[folder]} identities; {IDENTITIES[folder]} were published"
            yield Finding("warning", "identities", folder, detail)


def _scan(root: Path, rejected: list[Rejected]) -> _Tree:
    tree = _Tree({}, {}, {}, {}, None)

    def reject(path: str, reason: str, detail: str) -> None:
        rejected.append(Rejected(NAME, printable(path), "index", reason, detail))

    for parts in walk(root, NAME, rejected):
        path, suffix = "/".join(parts), Path(parts[-1]).suffix.lower()
        key = _key(parts)
        if any(part.startswith(".") for part in parts):
            reject(path, "hidden", "a hidden file")
            continue
        if parts[-1] == META and tree.meta is None:
            tree.meta = _read_meta(root, path, rejected)
            continue
        if parts[-1] == META:
            reject(path, "duplicate", f"another {META} was read")
            continue
        if key and suffix in {".mp4", ".txt"} | AUDIO_SUFFIXES:
            table = {".mp4": tree.clips, ".txt": tree.texts}.get(suffix, tree.sounds)
            first = table.setdefault(key, path)
        elif suffix == ".mp4" and re.fullmatch(_YOUTUBE, Path(parts[-1]).stem):
            first = tree.whole.setdefault(Path(parts[-1]).stem, path)
        else:
            reject(path, "unrecognised", f"expected {_GRAMMAR}, the same below aac or txt, or <YouTube id>.mp4")
            continue
        if first != path:
            reject(path, "duplicate", f"the same recording as {printable(first)}")
    return tree


def _key(parts: tuple[str, ...]) -> Key | None:
    stem = Path(parts[-1]).stem
    if found := _PATH.fullmatch("/".join([*parts[-3:-1], stem])) or _FLAT.fullmatch(stem):
        return Key(*found.groups())
    if found := _PARTS.fullmatch(stem):
        identity, youtube, one, other = found.groups()
        return Key(identity, youtube, f"{one}_{other}")
    return None


def _read_meta(root: Path, path: str, rejected: list[Rejected]) -> dict[str, dict[str, str]]:
    """vox2_meta.csv: VoxCeleb2 ID, VGGFace2 ID, Gender, Set, with blanks around the values."""

    def reject(detail: str, reason: str = "meta") -> None:
        rejected.append(Rejected(NAME, printable(path), "index", reason, detail))

    try:
        data = (root / path).read_bytes()
    except OSError as error:
        reject(error.strerror or str(error), "unreadable")
        return {}
    lines = data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace").splitlines() or [""]
    columns = [column.strip() for column in re.split(r"[,\t]", lines[0])]
    if "VoxCeleb2 ID" not in columns:
        reject("line 1: expected the columns VoxCeleb2 ID, VGGFace2 ID, Gender, Set")
        return {}
    names = {"Gender": "gender", "VGGFace2 ID": "vggface2", "Set": "set"}
    meta: dict[str, dict[str, str]] = {}
    for number, line in enumerate(lines[1:], 2):
        cells = [cell.strip() for cell in re.split(r"[,\t]", line)]
        if not any(cells):
            continue
        row = dict(zip(columns, cells, strict=False))
        identity = row.get("VoxCeleb2 ID", "")
        if len(cells) != len(columns) or not re.fullmatch(_ID, identity) or not line.isprintable():
            reject(f"line {number}: {printable(line[:60])!r} is no row of {len(columns)} values with an id#####")
        elif identity in meta:
            reject(f"line {number}: {identity} is listed already; the first row is used")
        else:
            meta[identity] = {name: row[column] for column, name in names.items() if row.get(column)}
    return meta


def _where(root: Path, key: Key, tree: _Tree) -> Utterance | None:
    """What the utterance's txt says, if there is one. Raises ValueError for one that is malformed or of another."""
    if key not in tree.texts:
        return None
    try:
        found = read_utterance((root / tree.texts[key]).read_bytes())
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    for what, told, expected in (
        ("Identity", found.identity, key.identity),
        ("Reference", found.youtube, key.youtube),
    ):
        if told != expected:
            raise ValueError(f"{what} {printable(told[:40])!r} where the path says {expected}")
    return found


def _cut(where: Utterance) -> Cut:
    start, end = where.first / FPS, (where.last + 1) / FPS
    left, top, width, height = where.box
    if where.fractions:  # the box holds the face alone: our crops show hair and chin too
        right, bottom = min(left + width + MARGIN * width, 1.0), min(top + height + MARGIN * height, 1.0)
        left, top = max(left - MARGIN * width, 0.0), max(top - MARGIN * height, 0.0)
        return Cut(start, end, fractions=(left, top, right - left, bottom - top))
    edges = math.floor(left), math.floor(top), math.ceil(left + width), min(math.ceil(top + height), PIXEL_LINES)
    return Cut(start, end, (edges[0], edges[1], edges[2] - edges[0], edges[3] - edges[1]), PIXEL_LINES)


def _source(key: Key, path: str, sound: str | None, cut: Cut | None, where: Utterance | None, tree: _Tree) -> Source:
    extra = {"origin": key.youtube, **(tree.meta or {}).get(key.identity, {})}
    if where:
        extra["first_frame"] = str(where.first)
    return Source("_".join(key), NAME, key.identity, UNLABELLED, None, "front", None, key.take, path, sound, cut, extra)


def _left_over(tree: _Tree, cut_from: set[str], rejected: list[Rejected]) -> None:
    for key in sorted(tree.sounds.keys() - tree.clips.keys() - tree.texts.keys()):
        rejected.append(Rejected(NAME, printable(tree.sounds[key]), "index", "no_video", "the sound of no mp4"))
    told = {key.youtube for key in tree.clips.keys() | tree.texts.keys()}
    for youtube in sorted(tree.whole.keys() - cut_from - told):
        detail = "a full video, or a stray one: no utterance (txt) tells which part of it to take"
        rejected.append(Rejected(NAME, printable(tree.whole[youtube]), "index", "no_utterance", detail))


def _nothing(root: Path, rejected: list[Rejected]) -> str:
    message = f"{printable(root)}: no VoxCeleb2 utterance; expected {_GRAMMAR}, or <YouTube id>.mp4 with txt"
    if not rejected:
        return message + " (the folder is empty)"
    (reason, count), *_ = Counter(r.reason for r in rejected).most_common(1)
    example = next(r for r in rejected if r.reason == reason)
    return f"{message}; {count} of {len(rejected)} files: {reason}, such as {example.source} ({example.detail})"
