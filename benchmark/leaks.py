"""`bench manifest leaks`: what makes a clip of one split known to another, within one manifest or several.

identity   one person in two splits. Names of people are compared across datasets (a dataset's `identity_key`), codes
           such as M003 within their dataset alone, wherever and under whatever name it was prepared. Overlap that
           split.json declares is told, and is no leak
source     one raw file, or one film that clips were cut from, in two splits, declared or not
sound      one sound in two splits, or anywhere under two labels (emotion or person)
faces      two identities in two splits whose faces look alike: suspects, for a person to look at

Equal values are found by hashing, and are told in one line for each value and pair of splits.

A clip's face is the mean of the unit ArcFace embeddings (w600k_mbf) of FRAMES frames, spread evenly over those in
which prepare found the face. THRESHOLD is a choice, made on the little that was at hand (15 videos of 14 people from
MEAD, GRID, LRS3, HDTF, TalkVid and one of SyncNet's, each cut into 2 or 3 parts, 34 clips). Cosines:

    parts of one video                 23 pairs    0.70 to 0.99, mean 0.92 (the least one of a profile)
    two videos of one person            4 pairs    0.52 to 0.53 (one man of MEAD, angry and sad)
    different people                  534 pairs   -0.17 to 0.20, mean 0.01; the most alike of 91 pairs of people 0.20

A dataset has far more pairs of strangers than 91, among them people who look more alike, and hardly any person here
was seen on two days: expect suspects who are not one person, and people who are missed. 0.4 lies above the middle of
the gap for the first reason. The people of the demo dataset are morphs of two portraits: of its 15 pairs of people 14
reach 0.4 (0.31 to 0.90), and being flagged is right; clips of one person give 0.44 to 0.99 (630 pairs).
"""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from functools import lru_cache, partial
from itertools import combinations
from pathlib import Path
from typing import Literal
from unicodedata import category, normalize

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmark import engine, weights
from benchmark.errors import BenchError, writable, writing
from benchmark.features import Key, Store
from benchmark.prepare import find_manifest
from benchmark.protocol import intact
from metrics import base
from pipelines import crop, datasets, manifest, media
from pipelines.datasets import DatasetError, printable
from pipelines.faces import five_points
from pipelines.manifest import UNLABELLED, Clip
from pipelines.splits import SPLITS

NETWORK = "arcface-w600k_mbf"
THRESHOLD = 0.4
FRAMES = 3
FACES = "clip-mean@1"  # part of the keys of the feature store; raise it when a clip's face is made otherwise
BLOCK = (1024, 8192)  # clips against clips at a time: 32 MiB of cosines, and as many index pairs at worst
CHECKS = ("identity", "source", "sound", "faces")
EXAMPLES = 10
ROWS, FACE, MARGIN, TEXT = 40, 160, 8, 620  # of the contact sheet: most rows, then pixels

Severity = Literal["leak", "suspect", "declared", "unread"]
SEVERITIES: tuple[Severity, ...] = ("leak", "suspect", "unread", "declared")
Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Entry:
    """A clip of one of the manifests; `key` is the person's, `folder` that of the files."""

    manifest: str
    folder: Path
    clip: Clip
    key: str

    @property
    def name(self) -> str:
        return f"{self.manifest}/{self.clip.clip_id}"


@dataclass(frozen=True, slots=True)
class Leak:
    """A line of leaks.csv: `a` and `b` are clips (the first of each side), as MANIFEST/CLIP_ID.

    leak      a split knows of another, or labels contradict each other
    suspect   faces that look alike; somebody must look
    declared  people in several splits, as split.json has it
    unread    a clip whose face could not be seen; there is no `b`
    """

    check: str
    severity: Severity
    a: str
    b: str
    split_a: str
    split_b: str
    detail: str


@dataclass(frozen=True, slots=True)
class Pair:
    """The two clips, by their index, that look most alike of two people; `cosine` is -1 to 1."""

    a: int
    b: int
    cosine: float


@dataclass(frozen=True, slots=True)
class Report:
    """What was found in `clips` clips; `faces` says what was compared, or why nothing was."""

    clips: int
    leaks: list[Leak]
    faces: str
    folder: Path
    sheet: bool

    @property
    def clean(self) -> bool:
        return not any(leak.severity in ("leak", "suspect") for leak in self.leaks)

    def text(self) -> str:
        """By check, the gravest first, with a few examples each."""
        lines = []
        for check in CHECKS:
            found = [leak for leak in self.leaks if leak.check == check]
            counts = Counter(leak.severity for leak in found)
            totals = ", ".join(f"{counts[s]} {s}" for s in SEVERITIES if counts[s]) or "nothing found"
            lines.append(f"{check}: {totals}" + (f" ({self.faces})" if check == "faces" else ""))
            for severity in SEVERITIES:
                chosen = [leak for leak in found if leak.severity == severity]
                lines += [f"  {severity}: {_sides(leak)}: {leak.detail}" for leak in chosen[:EXAMPLES]]
                if len(chosen) > EXAMPLES:
                    lines.append(f"  ... and {len(chosen) - EXAMPLES} more")
        if self.sheet:
            lines.append(f"look at the faces in {printable(self.folder / 'faces.png')}")
        return "\n".join([*lines, f"{self.clips} clips; every line is in {printable(self.folder / 'leaks.csv')}"])


def examine(names: Iterable[str], workspace: Path, *, threshold: float = THRESHOLD, workers: int = 1) -> Report:
    """Check the manifests of `names` (prepared datasets, or manifest files) within and across, and write leaks.csv
    and, where faces are suspicious, faces.png below WORKSPACE/leaks.

    Raises ManifestError for a manifest that cannot be read, BenchError where the workspace cannot be written.
    """
    paths = sorted({find_manifest(workspace, name).absolute() for name in names})
    labels = _labels(paths)
    entries: list[Entry] = []
    declared: dict[str, set[str]] = {}
    for label, path in zip(labels, paths, strict=True):
        clips = manifest.read(path)
        entries += [Entry(label, path.parent, clip, identity_key(clip.dataset, clip.identity)) for clip in clips]
        overlap = manifest.declared_overlap(path)
        declared[label] = {identity_key(c.dataset, c.identity) for c in clips if c.identity in overlap}
    entries.sort(key=lambda entry: (_rank(entry.clip.split), entry.name))
    folder = workspace / "leaks" / "+".join(labels)
    writable(folder)
    alike, remark, pairs = faces(entries, Store(workspace / "features"), threshold, workers)
    leaks = [*identities(entries, declared), *sources(entries), *sounds(entries), *alike]
    with writing(folder):
        _write(leaks, folder / "leaks.csv")
        (folder / "faces.png").unlink(missing_ok=True)  # an earlier run's, perhaps
        if pairs:
            media.write_png(folder / "faces.png", sheet(entries, pairs, workers))
    return Report(len(entries), leaks, remark, folder, bool(pairs))


def identity_key(dataset: str, identity: str) -> str:
    """The person, to be compared across manifests: NFKC, case folded, without blanks, punctuation and control
    characters; with the dataset's name before it, unless the dataset has an `identity_key` because its identities are
    names of people."""
    own = _names_of_people(dataset)
    text = normalize("NFKC", normalize("NFKC", own(identity) if own else identity).casefold())
    plain = normalize("NFKC", "".join(c for c in text if category(c)[0] not in "ZPC")) or text
    return plain if own else f"{dataset}:{plain}"


@lru_cache
def _names_of_people(dataset: str) -> Callable[[str], str] | None:
    try:
        return getattr(datasets.load(dataset), "identity_key", None)
    except DatasetError:  # a manifest of somebody's own dataset
        return None


def identities(entries: Iterable[Entry], declared: Mapping[str, set[str]]) -> Iterator[Leak]:
    """People in two splits; `declared` are the keys that each manifest says to be in several."""
    for key, members in _grouped((entry.key, entry) for entry in entries):
        where: dict[str, set[str]] = defaultdict(set)
        for entry in members:
            where[entry.manifest].add(entry.clip.split)
        everywhere = set().union(*where.values())
        # Declared for one manifest, a person is still a leak in a split that only another manifest adds.
        told = all(key in declared[name] for name, splits in where.items() if len(splits) > 1) and any(
            splits == everywhere for name, splits in where.items() if key in declared[name]
        )
        yield from _across("identity", "declared" if told else "leak", members, f"identity {key}")


def sources(entries: Sequence[Entry]) -> Iterator[Leak]:
    """Raw files and films in two splits. HDTF names a film; its YouTube id is that of other datasets."""
    values = [(f"raw file {entry.clip.source_sha256[:16]}", entry) for entry in entries]
    for column in ("origin", "youtube"):
        values += [(f"film {entry.clip.extra[column]}", entry) for entry in entries if column in entry.clip.extra]
    told = set()
    for value, members in _grouped(values):
        names = tuple(sorted({entry.name for entry in members}))
        if names not in told:  # a whole film in one raw file is one leak, not two
            told.add(names)
            yield from _across("source", "leak", members, value)


def sounds(entries: Iterable[Entry]) -> Iterator[Leak]:
    """Sounds in two splits or under two labels. A still portrait is not who speaks, and `unlabelled` is no label."""
    for digest, members in _grouped((entry.clip.audio_sha256, entry) for entry in entries):
        yield from _across("sound", "leak", members, f"sound {digest[:16]}")
        first: dict[tuple[str, str], Entry] = {}
        for entry in members:
            if not entry.clip.still:
                first.setdefault(("identity", entry.key), entry)
                if entry.clip.emotion != UNLABELLED:
                    first.setdefault(("emotion", entry.clip.emotion), entry)
        for kind in ("identity", "emotion"):
            labels = [(label, entry) for (of, label), entry in first.items() if of == kind]
            if len(labels) > 1:
                (_, a), (_, b) = labels[:2]
                words = ", ".join(label for label, _ in labels[:EXAMPLES])
                detail = f"sound {digest[:16]} of {len(members)} clips under {len(labels)} labels ({kind}): {words}"
                yield Leak("sound", "leak", a.name, b.name, a.clip.split, b.clip.split, detail)


def faces(entries: Sequence[Entry], store: Store, threshold: float, workers: int) -> tuple[list[Leak], str, list[Pair]]:
    """People of two splits who look alike, the most alike first, and the clips that could not be read; what was
    compared, in words; and the pairs by the indices of their entries. Embeddings are kept in `store`.

    Raises BenchError where they cannot be.
    """
    spec = base.extractor(NETWORK)
    try:
        files = tuple(
            (name, base.Weights(weights.path(name, fetch=False), weights.digest(name))) for name in spec.weights
        )
    except weights.WeightsUnavailable as error:
        return [], f"unavailable: {error}", []
    vectors, known, errors = _embedded(entries, files, store, workers)
    unread = [
        Leak("faces", "unread", entries[k].name, "", entries[k].clip.split, "", reason)
        for k, reason in sorted(errors.items())
    ]
    places = [int(k) for k in np.flatnonzero(known)]
    order = {split: k for k, split in enumerate(sorted({entry.clip.split for entry in entries}, key=_rank))}
    found = closest(
        vectors[places],
        np.unique([entries[k].key for k in places], return_inverse=True)[1],
        np.array([order[entries[k].clip.split] for k in places], np.int64),
        threshold,
    )
    pairs = [Pair(places[p.a], places[p.b], p.cosine) for p in found]
    leaks = [_suspect(entries[p.a], entries[p.b], p.cosine) for p in pairs]
    return leaks + unread, f"{len(places)} of {len(entries)} clips compared, cosine >= {threshold:g}", pairs


def _suspect(a: Entry, b: Entry, cosine: float) -> Leak:
    detail = f"cosine {cosine:.3f} of {a.key} and {b.key}"
    return Leak("faces", "suspect", a.name, b.name, a.clip.split, b.clip.split, detail)


def _embedded(
    entries: Sequence[Entry], files: tuple[tuple[str, base.Weights], ...], store: Store, workers: int
) -> tuple[Vectors, NDArray[np.bool_], dict[int, str]]:
    """(N, 512) unit vectors, (N,) whether there is one, and the reason for each where there is not."""
    vectors = np.zeros((len(entries), 512), np.float32)
    known = np.zeros(len(entries), bool)
    todo: list[tuple[int, Entry]] = []
    for k, entry in enumerate(entries):
        stored = store.get(_key(entry.clip, files))
        if stored is None:
            todo.append((k, entry))
        else:
            vectors[k], known[k] = stored["face"], True
    errors = {}
    work = partial(_embed, files=files, root=store.root)
    with tqdm(total=len(entries), initial=len(entries) - len(todo), desc="faces", unit="clip", disable=None) as bar:
        for outcome in engine.run(work, todo, workers=min(workers, len(todo))) if todo else ():
            bar.update()
            k = outcome.item[0]
            if isinstance(outcome.error, BenchError):
                raise outcome.error
            if outcome.value is None:
                errors[k] = _reason(outcome.error, outcome.item[1].folder)
            else:
                vectors[k], known[k] = outcome.value, True
    return vectors, known, errors


@lru_cache(maxsize=1)
def _network(files: tuple[tuple[str, base.Weights], ...]) -> base.Extractor:
    return base.extractor(NETWORK).make(dict(files), {})


def _key(clip: Clip, files: tuple[tuple[str, base.Weights], ...]) -> Key:
    return Key(_network(files).id, (clip.sha256, clip.landmarks_sha256), {"face": FACES, "frames": FRAMES})


def _embed(item: tuple[int, Entry], files: tuple[tuple[str, base.Weights], ...], root: Path) -> Vectors:
    """(512,) unit float32, stored; runs in a worker. Raises MediaError for a clip that cannot be read."""
    _, entry = item
    shown = aligned(entry)
    index = np.arange(len(shown))
    views = base.ClipViews(index=index, fps=entry.clip.fps, aligned112=shown, found=np.ones(len(shown), bool))
    each = _network(files)([views])["embedding"].astype(np.float64)
    mean = (each / np.linalg.norm(each, axis=1, keepdims=True)).mean(axis=0)
    face: Vectors = (mean / np.linalg.norm(mean)).astype(np.float32)
    if not np.isfinite(face).all():
        raise media.MediaError("embedding", f"{entry.clip.video}: its face embedding is zero, NaN or infinite")
    Store(root).put(_key(entry.clip, files), {"face": face})
    return face


def aligned(entry: Entry) -> NDArray[np.uint8]:
    """Up to FRAMES faces of a clip (n, 112, 112, 3) uint8 RGB on ArcFace's template, n >= 1; one of a still portrait.

    Raises MediaError when the clip or its landmarks are not the prepared ones, cannot be decoded or show no face.
    """
    clip = entry.clip
    video = intact(entry.folder / clip.video, clip.sha256, entry.manifest)
    with np.load(intact(entry.folder / clip.landmarks, clip.landmarks_sha256, entry.manifest)) as stored:
        points, detected = stored["points"], stored["detected"]
    seen = np.flatnonzero(detected & np.isfinite(points).all(axis=(1, 2)))[: 1 if clip.still else None]
    if not len(seen):
        raise media.MediaError("no_face", f"{clip.video}: no frame with a face")
    count = min(FRAMES, len(seen))
    wanted = set(seen[np.floor((np.arange(count) + 0.5) * len(seen) / count).astype(int)].tolist())
    shown = [
        crop.align(frame, five_points(points[k]), crop.ARCFACE_TEMPLATE, 112)
        for k, frame in enumerate(media.read_frames(video, num_frames=max(wanted) + 1))
        if k in wanted
    ]
    if len(shown) < count:
        raise media.MediaError("truncated", f"{clip.video}: ends before the frame {max(wanted)} of its landmarks")
    return np.stack(shown)


def closest(vectors: Vectors, people: NDArray[np.int64], splits: NDArray[np.int64], threshold: float) -> list[Pair]:
    """Of each two people, the two clips in different splits that look most alike, if their cosine is `threshold` or
    more; the most alike first.

    vectors (N, 512) unit; people, splits (N,) numbers. Time is N^2, memory beside the vectors some 200 MB.
    """
    best: dict[tuple[int, int], Pair] = {}
    members = {int(split): np.flatnonzero(splits == split) for split in np.unique(splits)}
    for one, other in combinations(members.values(), 2):
        for start in range(0, len(one), BLOCK[0]):
            rows = one[start : start + BLOCK[0]]
            for begin in range(0, len(other), BLOCK[1]):
                columns = other[begin : begin + BLOCK[1]]
                for a, b in _hits(vectors, people, rows, columns, threshold):
                    # float64: the cosine that is told does not depend on the blocks.
                    cosine = float(np.dot(vectors[a].astype(np.float64), vectors[b].astype(np.float64)))
                    pair = (min(people[a], people[b]), max(people[a], people[b]))
                    before = best.get(pair)
                    if cosine >= threshold and (before is None or cosine > before.cosine):
                        best[pair] = Pair(int(a), int(b), cosine)
    return sorted(best.values(), key=lambda pair: (-pair.cosine, pair.a, pair.b))


def _hits(
    vectors: Vectors, people: NDArray[np.int64], rows: NDArray[np.int64], columns: NDArray[np.int64], threshold: float
) -> NDArray[np.int64]:
    """(n, 2) clips of one block: the most alike of each two people, about `threshold` alike or more."""
    cosines = vectors[rows] @ vectors[columns].T  # (rows, columns)
    i, j = np.nonzero(cosines >= threshold - 1e-6)
    other = people[rows[i]] != people[columns[j]]
    i, j = i[other], j[other]
    a, b = people[rows[i]], people[columns[j]]
    order = np.lexsort((-cosines[i, j], np.maximum(a, b), np.minimum(a, b)))
    ends = np.stack([np.minimum(a, b), np.maximum(a, b)])[:, order]
    first = np.ones(len(order), bool)
    first[1:] = (np.diff(ends) != 0).any(axis=0)
    chosen = order[first]
    return np.stack([rows[i[chosen]], columns[j[chosen]]], axis=1)


def sheet(entries: Sequence[Entry], pairs: Sequence[Pair], workers: int) -> NDArray[np.uint8]:
    """The contact sheet, (H, W, 3) uint8 RGB: a row for each of the first ROWS pairs, its two faces and who they
    are said to be. A face that cannot be read any more stays grey."""
    shown = pairs[:ROWS]
    wanted = sorted({k for pair in shown for k in (pair.a, pair.b)})
    items = [(k, entries[k]) for k in wanted]
    done = engine.run(_face, items, workers=min(workers, len(items)))
    portraits = {outcome.item[0]: outcome.value for outcome in done}
    step = FACE + MARGIN
    picture = np.full((step * (len(shown) + 1), 2 * step + MARGIN + TEXT, 3), 255, np.uint8)
    left = f"; {len(pairs) - ROWS} more in leaks.csv" if len(pairs) > ROWS else ""
    _text(picture, MARGIN, 40, f"{len(shown)} of {len(pairs)} pairs of people who look alike, in two splits{left}")
    _text(picture, MARGIN, 70, "ArcFace w600k_mbf; one row a pair, the clips that look most alike")
    for row, pair in enumerate(shown, 1):
        for column, k in enumerate((pair.a, pair.b)):
            x, y = MARGIN + column * step, row * step
            face = portraits[k]
            large = cv2.resize(face, (FACE, FACE), interpolation=cv2.INTER_CUBIC) if face is not None else 200
            picture[y : y + FACE, x : x + FACE] = large
            clip = entries[k].clip
            said = f"{'ab'[column]}  {clip.split}  {clip.identity}"
            _text(picture, 2 * step + MARGIN, y + 60 + 50 * column, said)
            _text(picture, 2 * step + MARGIN, y + 80 + 50 * column, f"   {entries[k].name}")
        _text(picture, 2 * step + MARGIN, row * step + 30, f"{row}.  cosine {pair.cosine:.3f}")
    return picture


def _face(item: tuple[int, Entry]) -> NDArray[np.uint8]:
    shown = aligned(item[1])
    middle: NDArray[np.uint8] = shown[len(shown) // 2]
    return middle


def _text(picture: NDArray[np.uint8], x: int, y: int, text: str) -> None:
    """OpenCV draws printable ASCII alone; the rest is written as escapes."""
    plain = text.encode("unicode_escape").decode("ascii")
    room = (picture.shape[1] - x) // 9
    plain = plain if len(plain) <= room else f"{plain[: room - 3]}..."
    cv2.putText(picture, plain, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)


def _labels(paths: Iterable[Path]) -> list[str]:
    """A name for each manifest: that of its folder, numbered where two have one."""
    labels: list[str] = []
    for path in paths:
        name = path.parent.name or "manifest"
        taken = sum(label == name or label.startswith(f"{name}~") for label in labels)
        labels.append(f"{name}~{taken + 1}" if taken else name)
    return labels


def _rank(split: str) -> tuple[int, str]:
    return SPLITS.index(split) if split in SPLITS else len(SPLITS), split


def _grouped(items: Iterable[tuple[str, Entry]]) -> Iterator[tuple[str, list[Entry]]]:
    """The entries of each value that several have."""
    groups: dict[str, list[Entry]] = defaultdict(list)
    for value, entry in items:
        groups[value].append(entry)
    for value, members in sorted(groups.items()):
        if len(members) > 1:
            yield value, members


def _across(check: str, severity: Severity, members: Iterable[Entry], what: str) -> Iterator[Leak]:
    """A line for each two splits that share something."""
    sides: dict[str, list[Entry]] = defaultdict(list)
    for entry in members:
        sides[entry.clip.split].append(entry)
    for one, other in combinations(sorted(sides, key=_rank), 2):
        a, b = sides[one], sides[other]
        detail = f"{what}: {len(a)} clips of {one}, {len(b)} of {other}"
        yield Leak(check, severity, a[0].name, b[0].name, one, other, detail)


def _sides(leak: Leak) -> str:
    a, b = f"{leak.a} ({leak.split_a})", f"{leak.b} ({leak.split_b})"
    return printable(f"{a} and {b}" if leak.b else a)


def _reason(error: BaseException | None, folder: Path) -> str:
    """One line without `folder`: the rows do not depend on where a workspace lies."""
    text = printable(" ".join(str(error).replace(f"{folder}/", "").split()))
    return text if isinstance(error, media.MediaError | engine.WorkerDied) else f"{type(error).__name__}: {text}"


def _write(leaks: Iterable[Leak], path: Path) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(column.name for column in fields(Leak))
    writer.writerows([printable(value) for value in astuple(leak)] for leak in leaks)
    media.write_bytes(path, text.getvalue().encode())
