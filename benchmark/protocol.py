"""Evaluation protocols: which clips, from which portrait, scored by what; and the folder outside methods need."""

from __future__ import annotations

import csv
import hashlib
import io
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

from benchmark import configs
from benchmark.errors import BenchError
from pipelines import manifest, media
from pipelines.manifest import Clip

Conditioning = Literal["one-shot", "target-pose"]


@dataclass(frozen=True, slots=True)
class Select:
    """Which clips are targets. An empty tuple, or "all", leaves that field open.

    levels holds for emotional clips only: MEAD's neutral exists at level 1 alone.
    """

    split: str = "test"
    view: str = "front"
    levels: tuple[int, ...] = ()
    emotions: tuple[str, ...] = ()
    identities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pairing:
    """What a method is given for a target clip T of person p and emotion e, besides T's sound.

    reference      "neutral": the first frame of a neutral clip of p in the same split and view: another one than
                   T, and another sentence, where there is one. "first-frame": of T itself, for data without
                   emotion labels
    emotion_video  "cross": another take of p and e where there is one; "self": T (the method sees its answer)
    """

    reference: Literal["neutral", "first-frame"] = "neutral"
    emotion_video: Literal["cross", "self"] = "cross"


@dataclass(frozen=True, slots=True)
class Protocol:
    """One TOML file. Every field but title and columns changes numbers, and so enters the digest.

    eval_crop        "as-is": both sides must have one frame size; "common-detector": both are cut anew around
                     the face by the same detector, to eval_size pixels, before anything is scored
    frames_per_clip  frames, spread evenly, that an image-set metric (FID) takes of each clip; 0 is all of them
    columns          metrics that the printed table shows; empty: all
    """

    name: str
    title: str
    dataset: str
    metrics: tuple[str, ...]
    select: Select = field(default_factory=Select)
    pairing: Pairing = field(default_factory=Pairing)
    conditioning: Conditioning = "one-shot"
    eval_crop: Literal["as-is", "common-detector"] = "as-is"
    eval_size: int = 256
    frames_per_clip: int = 0
    seed: int = 0
    columns: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        contents = asdict(self)
        del contents["title"], contents["columns"]
        return configs.digest(contents)


@dataclass(frozen=True, slots=True)
class Pair:
    """One video to make and score. pair_id is the target's clip_id.

    reference      clip whose first frame is the portrait; None where the dataset has none, then `error` says so
    emotion_video  clip that shows the emotion, None where there is no other take
    """

    pair_id: str
    target: Clip
    reference: Clip | None
    emotion_video: Clip | None
    error: str | None = None


def load(name_or_path: str, workspace: Path) -> Protocol:
    """The protocol of that name or file. Raises BenchError on an unknown name, key or value."""
    path = configs.find("protocols", name_or_path, workspace)
    asked = configs.read(path, Protocol)
    if asked.frames_per_clip < 0:
        raise BenchError(f"{path}: frames_per_clip = {asked.frames_per_clip}; expected a number, or 0 for all frames")
    for name in asked.columns:
        if name not in asked.metrics:
            hint = configs.nearest(name, asked.metrics)
            raise BenchError(f"{path}: columns has {name!r}, which is none of its metrics; {hint}")
    return asked


def folder(protocol: Protocol, workspace: Path) -> Path:
    """Where the protocol's dataset lies; the paths of a Clip are relative to it."""
    return workspace / "data" / protocol.dataset


def read_clips(protocol: Protocol, workspace: Path) -> list[Clip]:
    """The manifest of the protocol's dataset. Raises BenchError when it is missing or damaged."""
    try:
        return manifest.read(folder(protocol, workspace) / "manifest.parquet")
    except manifest.ManifestError as error:
        raise BenchError(str(error)) from None


def pairs(clips: Iterable[Clip], protocol: Protocol) -> list[Pair]:
    """The videos of a protocol, sorted by pair_id; the same for any order of `clips`.

    Ties between equally good references or emotion videos are drawn by SHA-256 of the seed and both ids.

    Raises BenchError when the manifest holds no clip that the protocol selects.
    """
    pool = sorted(clips, key=lambda clip: clip.clip_id)
    targets = [clip for clip in pool if _selected(clip, protocol.select)]
    if not targets:
        raise BenchError(
            f"protocol {protocol.name}: none of the {len(pool)} clips of {protocol.dataset} is selected by "
            f"{asdict(protocol.select)}; `bench manifest show {protocol.dataset}` lists what there is"
        )
    people: dict[tuple[str, str, str], list[Clip]] = {}
    for clip in pool:
        people.setdefault((clip.identity, clip.split, clip.view), []).append(clip)
    return [_pair(t, people[t.identity, t.split, t.view], protocol) for t in targets]


def pairs_digest(members: Iterable[Pair]) -> str:
    """Digest of what is asked: ids and contents of targets and references, the same in every lab."""
    return configs.digest(
        [[p.pair_id, p.target.sha256, p.target.audio_sha256, p.reference.sha256 if p.reference else None]
         for p in members]
    )  # fmt: skip


def seeded(seed: int, *ids: str) -> int:
    """A number in [0, 2^63) from a seed and ids: the same on every machine and in every order of work."""
    text = "\0".join((str(seed), *ids))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def _selected(clip: Clip, select: Select) -> bool:
    return (
        select.split in ("all", clip.split)
        and select.view in ("all", clip.view)
        and (not select.levels or clip.emotion == "neutral" or clip.intensity in select.levels)
        and (not select.emotions or clip.emotion in select.emotions)
        and (not select.identities or clip.identity in select.identities)
    )


def _pair(target: Clip, person: Sequence[Clip], protocol: Protocol) -> Pair:
    def best(candidates: Iterable[Clip], key: Callable[[Clip], Any]) -> Clip | None:
        draw = partial(seeded, protocol.seed, target.clip_id)
        return min(candidates, key=lambda clip: (key(clip), draw(clip.clip_id)), default=None)

    def same_words(clip: Clip) -> bool:
        return clip.sentence is not None and clip.sentence == target.sentence

    reference: Clip | None = target
    if protocol.pairing.reference == "neutral":
        neutral = (clip for clip in person if clip.emotion == "neutral")
        reference = best(neutral, key=lambda clip: (clip is target, same_words(clip)))
    video: Clip | None = target
    if protocol.pairing.emotion_video == "cross":
        video = best(
            (clip for clip in person if clip.emotion == target.emotion and clip is not target),
            key=lambda clip: (clip.intensity != target.intensity, same_words(clip)),
        )
    error = None
    if reference is None:
        error = f"no neutral clip of {target.identity} ({target.split}, {target.view}) to take the portrait from"
    return Pair(target.clip_id, target, reference, video, error)


def intact(path: Path, sha256: str, dataset: str) -> Path:
    """The path of a prepared file, if it is there as the manifest has it. Raises MediaError if not."""
    try:
        whole = media.file_sha256(path) == sha256
    except OSError as error:
        raise media.MediaError("missing", f"{path}: {error.strerror}; run `bench manifest check {dataset}`") from None
    if not whole:
        reason = f"is not the file that was prepared; run `bench manifest check {dataset}`"
        raise media.MediaError("changed", f"{path}: {reason}")
    return path


def first_frame(path: Path) -> Any:
    """(H, W, 3) uint8 RGB: the portrait of a pair. Raises MediaError."""
    return next(media.read_frames(path, num_frames=1))


def export(protocol: Protocol, workspace: Path, to: Path) -> Sequence[Mapping[str, str]]:
    """Write what an outside method needs: references/ (PNG), audio/ (WAV), videos/ (targets and emotion videos) and
    pairs.csv with paths relative to `to`. Every file is whole or absent; a second run changes nothing.

    Returns the lines of pairs.csv; a pair without reference has its reason in the column `error`. An empty
    `emotion_video` means that the person has no other take of that emotion.

    Raises MediaError for a clip that is not as the manifest has it.
    """
    source = folder(protocol, workspace)
    whole = cache(partial(intact, dataset=protocol.dataset))

    def copy(clip: Clip, name: str, sound: bool = False) -> str:
        file, digest = (clip.audio, clip.audio_sha256) if sound else (clip.video, clip.sha256)
        return _copy(whole(source / file, digest), digest, to, name)

    rows = []
    for pair in pairs(read_clips(protocol, workspace), protocol):
        target = pair.target
        row = {
            "pair_id": pair.pair_id,
            "identity": target.identity,
            "emotion": target.emotion,
            "level": "" if target.intensity is None else str(target.intensity),
            "reference": "",
            "audio": copy(target, f"audio/{pair.pair_id}", sound=True),
            "target_video": copy(target, f"videos/{pair.pair_id}"),
            "emotion_video": "",
            "num_frames": str(target.num_frames),
            "fps": f"{target.fps:g}",
            "error": pair.error or "",
        }
        if pair.reference is not None:
            row["reference"] = f"references/{pair.pair_id}.png"
            portrait = whole(source / pair.reference.video, pair.reference.sha256)
            media.write_png(to / row["reference"], first_frame(portrait))
        if pair.emotion_video is not None:
            row["emotion_video"] = copy(pair.emotion_video, f"videos/{pair.emotion_video.clip_id}")
        rows.append(row)
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with media.atomic_path(to / "pairs.csv") as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
    return rows


def _copy(source: Path, sha256: str, to: Path, name: str) -> str:
    """Copy under `name` with the suffix of `source`, unless it is there; returns the relative path."""
    relative = f"{name}{source.suffix}"
    target = to / relative
    if not (target.is_file() and media.file_sha256(target) == sha256):
        with media.atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
    return relative
