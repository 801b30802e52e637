"""CREMA-D (Cao et al., IEEE Trans. Affective Computing 5(4), 2014; github.com/CheyneyComputerScience/CREMA-D):
VideoFlash/<stem>.flv, AudioWAV/<stem>.wav, AudioMP3/<stem>.mp3, where <stem> is <actor>_<sentence>_<emotion>_<level>,
such as 1001_IEO_ANG_HI. Folders are free, so that conversions to other video formats are found as well.

7,442 recordings of 91 actors. Levels LO, MD and HI exist for IEO alone and not for neutral; everything else is XX
(no level asked for). GAPS are missing from the published list itself.

`extra` of a recording: age, sex, race, ethnicity (VideoDemographics.csv), and what the crowd took it for:
voice_vote, face_vote, multimodal_vote in MEAD's words with voice_level, face_level, multimodal_level from 0 to 100
(processedResults/summaryTable.csv). A tie has no winner, and none is made up: it is kept as published, all its
words joined by a colon (`angry:disgusted`) and a level for each in the same order (`68.75:52.25`).
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from pipelines.datasets import DatasetError, Finding, Index, Source, printable, walk
from pipelines.manifest import Rejected
from pipelines.media import file_sha256

NAME = "crema-d"
EMOTIONS = {"ANG": "angry", "DIS": "disgusted", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
LEVELS = {"LO": 1, "MD": 2, "HI": 3, "XX": None}
SENTENCES = {
    "IEO": "It's eleven o'clock",
    "TIE": "That is exactly what happened",
    "IOM": "I'm on my way to the meeting",
    "IWW": "I wonder what this is about",
    "TAI": "The airplane is almost full",
    "MTI": "Maybe tomorrow it will be cold",
    "IWL": "I would like a new alarm clock",
    "ITH": "I think I have a doctor's appointment",
    "DFA": "Don't forget a jacket",
    "ITS": "I think I've seen this before",
    "TSI": "The surface is slick",
    "WSI": "We'll stop in a couple of minutes",
}
ACTORS = tuple(str(number) for number in range(1001, 1092))
GAPS = ("1002_TIE_NEU", "1008_WSI", "1009_MTI", "1019_ITH", "1076_ITS_NEU")  # beginnings of stems
PUBLISHED = tuple(
    stem
    for actor, sentence, emotion in itertools.product(ACTORS, SENTENCES, EMOTIONS)
    for level in (("LO", "MD", "HI") if sentence == "IEO" and emotion != "NEU" else ("XX",))
    if not (stem := f"{actor}_{sentence}_{emotion}_{level}").startswith(GAPS)
)
# Defects of the published videos, with what becomes of them. Lengths are from the sizes: the MP3s have 256 kb/s, the
# WAVs 16 kHz in 16 bits.
DEFECTS = {
    "1076_MTI_NEU_XX": "35 kB where others have 330 kB, its MP3 0.1 s, its WAV whole: cut off; prepare, which takes "
    "the sound of the video file, rejects it (too_short) or keeps a stump",
    "1064_TIE_SAD_XX": "91 kB where others have 330 kB, its MP3 0.6 s, its WAV whole: cut off; prepare, which takes "
    "the sound of the video file, keeps the stump",
    "1064_IEO_DIS_MD": "8.5 MB where others have 330 kB, its MP3 a minute, its WAV 4 s: more than the sentence; "
    "prepare keeps its whole length",
}
VIDEO_SUFFIXES = {".flv", ".mp4", ".mov", ".avi", ".mkv", ".webm"}
AUDIO_SUFFIXES = {".wav", ".mp3"}
DEMOGRAPHICS, LIST, VOTES, DIGESTS = (
    "VideoDemographics.csv", "SentenceFilenames.csv", "summaryTable.csv", "media_sha256.tsv",
)  # fmt: skip
UNKNOWN = f"the actor is not in {DEMOGRAPHICS}"
METADATA = {DEMOGRAPHICS, LIST, VOTES, DIGESTS}
COMPANIONS = {  # of the published repository, not read
    "README.md", "LICENSE", "LICENSE.txt", "tabulatedVotes.csv", "finishedResponses.csv", "finishedEmoResponses.csv",
    "finishedResponsesWithRepeatWithPractice.csv", "processFinishedResponses.R", "readTabulatedVotes.R",
    "summarizeVotes.r", "tabulateVotesV2.r",
}  # fmt: skip
_STEM = re.compile(rf"({'|'.join(ACTORS)})_({'|'.join(SENTENCES)})_({'|'.join(EMOTIONS)})_({'|'.join(LEVELS)})")
_SHOWN = 10  # findings of one kind before the rest is only counted


Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class _Tree:
    """Paths by stem; the first of `videos` is the recording. `sounds` by (stem, suffix), `metadata` by file name."""

    videos: dict[str, list[str]]
    sounds: dict[tuple[str, str], list[str]]
    metadata: dict[str, str]
    rejected: list[Rejected]


@dataclass(frozen=True, slots=True)
class _Metadata:
    people: dict[str, dict[str, str]]
    votes: dict[str, dict[str, str]]
    published: tuple[str, ...]
    faults: list[str]


def index(root: Path) -> Index:
    """Every recording below `root`, and every other file with the reason why it is none. Notes list faults of the
    metadata files by line, actors without demographics, and the published recordings that are missing. Nothing is
    decoded.

    Raises DatasetError when `root` is not a folder or holds no recording.
    """
    tree = _scan(root)
    if not tree.videos:
        raise DatasetError(_nothing(root, tree))
    metadata = _metadata(root, tree.metadata)
    sources = []
    for stem, (video, *others) in sorted(tree.videos.items()):
        actor, sentence, emotion, level = stem.split("_")
        sound = next((paths[0] for suffix in (".wav", ".mp3") if (paths := tree.sounds.get((stem, suffix)))), None)
        sources.append(
            Source(
                clip_id=stem,
                dataset=NAME,
                identity=actor,
                emotion=EMOTIONS[emotion],
                intensity=LEVELS[level],
                view="front",
                sentence=SENTENCES[sentence],
                take=sentence,
                video=video,
                audio=sound,
                extra=metadata.people.get(actor, {}) | metadata.votes.get(stem, {}),
            )
        )
        tree.rejected.extend(_row(path, "duplicate", f"the same recording as {printable(video)}") for path in others)
    for (stem, _), paths in sorted(tree.sounds.items()):
        if stem not in tree.videos:
            tree.rejected.extend(_row(path, "no_video", f"sound alone: there is no video {stem}") for path in paths)
        else:
            kept = printable(paths[0])
            tree.rejected.extend(_row(path, "duplicate", f"the same sound as {kept}") for path in paths[1:])
    notes = metadata.faults + [f"{actor}: {UNKNOWN}" for actor in _unknown(sources, metadata)]
    actors = {source.identity for source in sources}
    for actor, stems in _missing(tree.videos, metadata.published).items():
        if actor not in actors:
            notes.append(f"{actor}: every recording")
            continue
        for emotion, cell in itertools.groupby(sorted(stems, key=_emotion), _emotion):
            notes.append(f"{actor}: {emotion}: {', '.join(cell)}")
    return Index(sources, tree.rejected, notes)


def examine(root: Path, index: Index, *, digests: bool) -> Iterator[Finding]:
    """What differs from the dataset as published, and the defects that it was published with. Sizes are compared
    with media_sha256.tsv (columns path, sha256, bytes) when that lies below `root`; SHA-256 too if `digests`.

    Raises DatasetError when `root` is not a folder.
    """
    tree = _scan(root)
    metadata = _metadata(root, tree.metadata)
    listed = _parse(_read_digests, DIGESTS, root, tree.metadata, metadata.faults)
    for fault in metadata.faults:
        yield Finding("warning", "metadata", fault.split(",")[0], fault)
    yield from _counts(index.sources)
    yield from _against_list(index.sources, metadata)
    yield from _joins(index.sources, metadata, tree.metadata)
    for source in index.sources:
        if source.clip_id in DEFECTS:
            yield Finding(
                "note", "published_defect", printable(source.video), f"as published: {DEFECTS[source.clip_id]}"
            )
    yield from _conflicts(index.sources, listed)
    yield from _capped("size", _sizes(root, tree, listed))
    if digests:
        if not listed:
            yield Finding("note", "digest", DIGESTS, "no list of digests in the tree: nothing to compare media with")
        yield from _digests(root, tree, listed, index.sources)


def _scan(root: Path) -> _Tree:
    tree = _Tree(defaultdict(list), defaultdict(list), {}, [])
    hidden: Counter[str] = Counter()
    for parts in walk(root, NAME, tree.rejected):
        path, file = "/".join(parts), Path(parts[-1])
        dots = [k for k, part in enumerate(parts) if part.startswith(".")]
        if dots:  # one row for a whole .git, which has more files than the dataset
            hidden["/".join(parts[: dots[0] + 1])] += 1
        elif parts[-1] in METADATA:
            held = tree.metadata.setdefault(parts[-1], path)
            nearer, farther = sorted((held, path), key=lambda p: (p.count("/"), p))
            tree.metadata[parts[-1]] = nearer
            if held != path:
                tree.rejected.append(_row(farther, "duplicate", f"{printable(nearer)} is read"))
        elif parts[-1] not in COMPANIONS:
            problem = _problem(path)
            if problem is not None:
                tree.rejected.append(_row(path, *problem))
            elif file.suffix.lower() in VIDEO_SUFFIXES:
                tree.videos[file.stem].append(path)
            else:
                tree.sounds[file.stem, file.suffix.lower()].append(path)
    tree.rejected.extend(_row(path, "hidden", f"hidden, {count} files") for path, count in sorted(hidden.items()))
    for paths in (*tree.videos.values(), *tree.sounds.values()):
        paths.sort(key=lambda p: (not {"VideoFlash", "AudioWAV", "AudioMP3"} & set(p.split("/")[:-1]), p))
    return tree


def _problem(path: str) -> tuple[str, str] | None:
    """(reason, detail) why a path is neither video nor sound of a recording, or None."""
    file = Path(path)
    if file.suffix.lower() not in VIDEO_SUFFIXES | AUDIO_SUFFIXES:
        return "unrecognised", "neither video, sound nor metadata of CREMA-D"
    try:
        path.encode()
    except UnicodeEncodeError:
        return "path", "the path is not UTF-8; rename its folders"
    fields = file.stem.split("_")
    if len(fields) != 4:
        return "unrecognised", "expected <actor>_<sentence>_<emotion>_<level>, such as 1001_IEO_ANG_HI"
    known: tuple[tuple[str, Iterable[str], str], ...] = (
        ("identity", ACTORS, "an actor from 1001 to 1091"),
        ("sentence", SENTENCES, f"one of {', '.join(SENTENCES)}"),
        ("emotion", EMOTIONS, f"one of {', '.join(EMOTIONS)}"),
        ("level", LEVELS, f"one of {', '.join(LEVELS)}"),
    )
    for (reason, words, expected), word in zip(known, fields, strict=True):
        if word not in words:
            return reason, f"{printable(word)!r} is not {expected}"
    return None


def _row(path: str, reason: str, detail: str) -> Rejected:
    return Rejected(NAME, printable(path), "index", reason, detail)


def _nothing(root: Path, tree: _Tree) -> str:
    message = f"{printable(root)}: no CREMA-D video; expected VideoFlash/<actor>_<sentence>_<emotion>_<level>.flv in it"
    if tree.sounds:
        return f"{message}; {len(tree.sounds)} sound files are there: VideoFlash was not downloaded?"
    if not tree.rejected:
        return f"{message} (no other files either)"
    example = tree.rejected[0]
    return f"{message}; {len(tree.rejected)} other files, such as {example.source} ({example.detail})"


def _emotion(stem: str) -> str:
    return EMOTIONS[stem.split("_")[2]]


def _missing(stems: Iterable[str], published: Iterable[str]) -> dict[str, list[str]]:
    missing: dict[str, list[str]] = {}
    for stem in sorted(set(published) - set(stems)):
        missing.setdefault(stem[:4], []).append(stem)
    return missing


def _unknown(sources: Iterable[Source], metadata: _Metadata) -> list[str]:
    return sorted({source.identity for source in sources} - set(metadata.people)) if metadata.people else []


@dataclass(slots=True)
class _Table:
    """A text table, read line by line. What is wrong with it is collected by kind, so that a column that is wrong
    7,442 times is one line."""

    path: Path
    name: str
    faults: dict[str, list[tuple[int, str]]] = field(default_factory=dict)

    def fault(self, line: int, value: str, kind: str) -> None:
        self.faults.setdefault(kind, []).append((line, value))

    def rows(self, key: str, *columns: str, delimiter: str = ",") -> Iterator[tuple[int, dict[str, str]]]:
        """(line, value of each column, "" where it is missing); case and blanks around a column's name are free."""
        try:
            text = self.path.read_bytes().decode("utf-8-sig", errors="replace")
        except OSError as error:
            self.fault(0, error.strerror or "", "cannot be read")
            return
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        try:
            header = [name.strip().casefold() for name in next(reader, [])]
            lacking = [name for name in (key, *columns) if name.casefold() not in header]
            if lacking:
                self.fault(1, ", ".join(lacking), f"column missing; expected {', '.join((key, *columns))}")
            if key in lacking:
                return
            for row in reader:
                values = dict(zip(header, (value.strip() for value in row), strict=False))
                if any(values.values()):
                    yield (
                        reader.line_num,
                        {c: values.get(c.casefold(), "") for c in (key, *columns) if c not in lacking},
                    )
        except csv.Error as error:
            self.fault(reader.line_num, str(error), "not a table from here on")

    def notes(self) -> list[str]:
        lines = []
        for kind, places in self.faults.items():
            (line, value), more = places[0], len(places) - 1
            shown = printable(value if len(value) <= 60 else value[:57] + "...")
            also = f" (and {more} more lines)" if more else ""
            lines.append(f"{printable(self.name)}, line {line}: {shown!r}: {kind}{also}")
        return lines


def _metadata(root: Path, paths: Mapping[str, str]) -> _Metadata:
    faults: list[str] = []
    people = _parse(_read_people, DEMOGRAPHICS, root, paths, faults)
    votes = _parse(_read_votes, VOTES, root, paths, faults)
    listed = _parse(_read_list, LIST, root, paths, faults)
    return _Metadata(people, votes, tuple(listed) or PUBLISHED, faults)


def _parse(
    read: Callable[[_Table], dict[str, Row]], name: str, root: Path, paths: Mapping[str, str], faults: list[str]
) -> dict[str, Row]:
    """What `read` makes of the metadata file `name`; nothing when the tree has none. Adds to `faults`."""
    if name not in paths:
        return {}
    table = _Table(root / paths[name], paths[name])
    rows = read(table)
    faults.extend(table.notes())
    return rows


def _read_list(table: _Table) -> dict[str, int]:
    """stem -> line."""
    stems = {}
    for line, row in table.rows("Filename"):
        if _STEM.fullmatch(row["Filename"]):
            stems[row["Filename"]] = line
        else:
            table.fault(line, row["Filename"], "not the name of a recording")
    return stems


def _read_people(table: _Table) -> dict[str, dict[str, str]]:
    people: dict[str, dict[str, str]] = {}
    for line, row in table.rows("ActorID", "Age", "Sex", "Race", "Ethnicity"):
        actor = row.pop("ActorID")
        if actor not in ACTORS:
            table.fault(line, actor, "not an actor from 1001 to 1091")
            continue
        if actor in people:
            table.fault(line, actor, "a second row for this actor; the first is taken")
            continue
        values = {name.lower(): value for name, value in row.items()}
        values["sex"] = values.get("sex", "").lower()
        for name, good, kind in (
            ("age", re.compile(r"[1-9][0-9]?"), "not an age in years"),
            ("sex", re.compile(r"male|female"), "neither Male nor Female"),
            ("race", re.compile(r"[ -~]{1,60}"), "not a word for Race"),
            ("ethnicity", re.compile(r"[ -~]{1,60}"), "not a word for Ethnicity"),
        ):
            if name.capitalize() in row and not good.fullmatch(values[name]):
                table.fault(line, values[name], kind)
                values[name] = ""
        people[actor] = {name: value for name, value in values.items() if value}
    return people


def _read_votes(table: _Table) -> dict[str, dict[str, str]]:
    words = {code[0]: word for code, word in EMOTIONS.items()}
    kinds = ("Voice", "Face", "MultiModal")
    votes: dict[str, dict[str, str]] = {}
    for line, row in table.rows("FileName", *(kind + what for kind in kinds for what in ("Vote", "Level"))):
        stem = row["FileName"]
        if not _STEM.fullmatch(stem):
            table.fault(line, stem, "not the name of a recording")
            continue
        if stem in votes:
            table.fault(line, stem, "a second row for this recording; the first is taken")
            continue
        votes[stem] = {}
        for kind in kinds:
            letters = row.get(f"{kind}Vote", "").split(":")
            levels = [level.strip() for level in row.get(f"{kind}Level", "").split(":")]
            if f"{kind}Vote" not in row:
                continue
            if not set(letters) <= set(words) or len(set(letters)) < len(letters):
                table.fault(
                    line, row[f"{kind}Vote"], f"{kind}Vote is none of {', '.join(words)}, nor a tie such as A:D"
                )
                continue
            votes[stem][f"{kind.lower()}_vote"] = ":".join(words[letter] for letter in letters)
            if f"{kind}Level" not in row:
                continue
            good = all(re.fullmatch(r"[0-9]{1,3}(\.[0-9]+)?", level) and float(level) <= 100 for level in levels)
            if good and len(levels) == len(letters):
                votes[stem][f"{kind.lower()}_level"] = ":".join(levels)
            else:
                table.fault(line, row[f"{kind}Level"], f"{kind}Level is not a number from 0 to 100 for each vote")
    return votes


Listed = dict[str, tuple[str, int]]


def _read_digests(table: _Table) -> Listed:
    """path -> (SHA-256, bytes)."""
    listed: Listed = {}
    for line, row in table.rows("path", "sha256", "bytes", delimiter="\t"):
        digest, size = row.get("sha256", "").lower(), row.get("bytes", "")
        if _problem(row["path"]) is not None:
            table.fault(line, row["path"], "not a media file of CREMA-D")
        elif not re.fullmatch(r"[0-9a-f]{64}", digest) or not re.fullmatch(r"[0-9]{1,15}", size):
            table.fault(line, f"{digest} {size}", "not a SHA-256 and a number of bytes")
        else:
            listed[row["path"]] = (digest, int(size))
    return listed


def _counts(sources: Iterable[Source]) -> Iterator[Finding]:
    have = Counter(source.emotion for source in sources)
    for emotion, expected in Counter(_emotion(stem) for stem in PUBLISHED).items():
        if have[emotion] != expected:
            yield Finding("warning", "count", emotion, f"{have[emotion]} recordings, {expected} published")


def _against_list(sources: Iterable[Source], metadata: _Metadata) -> Iterator[Finding]:
    stems = {source.clip_id for source in sources}
    actors = {source.identity for source in sources}
    sizes = Counter(stem[:4] for stem in metadata.published)
    missing = _missing(stems, metadata.published)
    absent = [actor for actor in missing if actor not in actors]
    if absent:
        yield Finding("warning", "missing", "actors", f"{len(absent)} have no recording: {_some(absent)}")
    for actor, lacking in missing.items():
        if actor in actors:
            yield Finding("warning", "missing", actor, f"{len(lacking)} of {sizes[actor]}: {_some(lacking)}")
    if foreign := sorted(stems - set(metadata.published)):
        yield Finding("warning", "unpublished", LIST, f"{len(foreign)} are not in the published list: {_some(foreign)}")


def _joins(sources: Iterable[Source], metadata: _Metadata, paths: Mapping[str, str]) -> Iterator[Finding]:
    for name in (DEMOGRAPHICS, VOTES):
        if name not in paths:
            yield Finding("note", "metadata", name, "not in the tree: its columns will be missing")
    for actor in _unknown(sources, metadata):
        yield Finding("warning", "demographics", actor, UNKNOWN)
    if VOTES in paths:
        for kind in ("voice", "face", "multimodal"):
            without = [s.clip_id for s in sources if f"{kind}_vote" not in metadata.votes.get(s.clip_id, {})]
            if without:
                yield Finding("warning", "votes", f"{kind}_vote", f"{len(without)} have none: {_some(without)}")


def _conflicts(sources: Iterable[Source], listed: Listed) -> Iterator[Finding]:
    """Media published under several names with the same bytes, as far as their recordings are in the tree."""
    beside = {source.clip_id: source.audio for source in sources}
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path, (digest, _) in listed.items():
        groups[Path(path).suffix.lower(), digest].append(path)
    for (suffix, _), paths in sorted(groups.items(), key=lambda item: item[1]):
        stems = sorted({Path(path).stem for path in paths})
        here = [stem for stem in stems if stem in beside]
        if len(stems) < 2 or not here:
            continue
        if suffix in VIDEO_SUFFIXES:
            fate = "prepare keeps every one of them under its own label"
        elif used := [stem for stem in here if beside[stem] in paths]:
            fate = (
                "prepare takes the sound of the video file when it has a track, else this file: "
                f"in doubt are then {', '.join(used)}"
            )
        else:
            fate = "prepare does not use it: it takes the sound of the video file when it has a track, else the WAV"
        cause = (
            "at most one label is right" if len({s[:4] for s in stems}) == 1 else "of several actors: silence, likely"
        )
        detail = f"as published: the same bytes are {_some(stems)} ({cause}); {fate}"
        yield Finding("note", "conflicting_labels", printable(min(paths)), detail)


def _media(tree: _Tree) -> list[str]:
    return sorted(path for paths in (*tree.videos.values(), *tree.sounds.values()) for path in paths)


def _sizes(root: Path, tree: _Tree, listed: Listed) -> Iterator[Finding]:
    for path in _media(tree):
        try:
            size = (root / path).stat().st_size
        except OSError:  # a file that cannot be read is the doctor's and prepare's to tell
            continue
        if path in listed and size != listed[path][1]:
            detail = f"{size} bytes, {listed[path][1]} published: cut off, converted or a Git LFS pointer"
            yield Finding("warning", "size", printable(path), detail)


def _digests(root: Path, tree: _Tree, listed: Listed, sources: Iterable[Source]) -> Iterator[Finding]:
    published: dict[str, list[str]] = defaultdict(list)
    for path, (digest, _) in listed.items():
        published[digest].append(path)
    taken = {path for source in sources for path in (source.video, source.audio)}
    mislabelled, differing = [], []
    for path in _media(tree) if listed else ():
        try:
            digest = file_sha256(root / path)
        except OSError as error:
            yield Finding("warning", "digest", printable(path), f"cannot be read ({error.strerror})")
            continue
        names = published.get(digest, [])
        if names and Path(path).stem not in {Path(name).stem for name in names}:
            detail = f"its bytes were published as {_some(names)}: a wrong name"
            severity: Literal["fatal", "warning"] = "fatal" if path in taken else "warning"
            mislabelled.append(Finding(severity, "conflicting_labels", printable(path), detail))
        elif path in listed and digest != listed[path][0]:
            detail = f"SHA-256 {digest[:12]}..., {listed[path][0][:12]}... published: converted or damaged"
            differing.append(Finding("warning", "digest", printable(path), detail))
    yield from mislabelled
    yield from _capped("digest", differing)


def _capped(check: str, findings: Iterable[Finding]) -> Iterator[Finding]:
    remaining = iter(findings)
    yield from itertools.islice(remaining, _SHOWN)
    if rest := sum(1 for _ in remaining):
        yield Finding("warning", check, "others", f"{rest} more files")


def _some(names: Iterable[str], count: int = 6) -> str:
    names = [printable(name) for name in names]
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
