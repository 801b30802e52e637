"""Evaluation protocols: which clips, from which portrait, scored by what; and the folder outside methods need."""

from __future__ import annotations

import csv
import hashlib
import io
import json
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
class Prepared:
    """How the dataset must have been prepared; what is left empty is open. The command to type follows from it."""

    dataset: str = ""
    split: str = ""
    crop: str = ""
    size: int = 0

    def command(self, name: str) -> str:
        """The `bench prepare` that gives the dataset `name`."""
        options = [("--split", self.split), ("--crop", self.crop), ("--size", self.size or ""), ("--name", name)]
        told = " ".join(f"{option} {value}" for option, value in options if value)
        return f"bench prepare {self.dataset or name} --root RAW {told}"


@dataclass(frozen=True, slots=True)
class Pairing:
    """What a method is given for a target clip T of person p and emotion e, besides T's sound.

    each           what makes a pair. "target": each selected clip T. "source": each selected clip as the source,
                   with each of `emotions` e: T is drawn from the clips of p and e in the same split and view.
                   "portrait": each selected clip, a still picture with a sound, with each of `emotions`
    reference      "neutral": the first frame of a neutral clip of p in the same split and view: another one than
                   T, and another sentence, where there is one. "first-frame": of T itself, for data without
                   emotion labels. "source": of the source
    emotion_video  "cross": another take of p and e where there is one; "self": T (the method sees its answer);
                   "random": anybody's of emotion e, drawn from the same split and view of `emotion_dataset`
    prompt         the emotion word that a method is given: "label", that of the pair, or "neutral"
    """

    each: Literal["target", "source", "portrait"] = "target"
    emotions: tuple[str, ...] = ()
    reference: Literal["neutral", "first-frame", "source"] = "neutral"
    emotion_video: Literal["cross", "self", "random"] = "cross"
    emotion_dataset: str = ""
    prompt: Literal["label", "neutral"] = "label"


@dataclass(frozen=True, slots=True)
class Protocol:
    """One TOML file. Every field but title, metrics and columns changes numbers, and so enters the digest.

    eval_crop        "as-is": both sides must have one frame size; "common-detector": both are cut anew around
                     the face by the same detector, to eval_size pixels, before anything is scored
    frames_per_clip  frames, spread evenly, that an image-set metric (FID) takes of each clip; 0 is all of them
    columns          metrics that the printed table shows; empty: all
    """

    name: str
    title: str
    dataset: str
    metrics: tuple[str, ...]
    prepared: Prepared = field(default_factory=Prepared)
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
        del contents["title"], contents["metrics"], contents["columns"]
        return configs.digest(contents)


@dataclass(frozen=True, slots=True)
class Pair:
    """One video to make and score. pair_id is the target's clip_id, or the source's with "--" and the emotion.

    target         its sound drives the video, its pictures are the truth unless it is a still
    reference      clip whose first frame is the portrait; None where the dataset has none, then `error` says so
    emotion_video  clip that shows the emotion, None where there is no other take
    emotion        what the video should show, and the group of its scores; UNLABELLED where nobody knows
    prompt         the word for it that a method is given
    """

    pair_id: str
    target: Clip
    reference: Clip | None
    emotion_video: Clip | None
    emotion: str
    prompt: str
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
    _consistent(asked.pairing, str(path))
    return asked


def _consistent(pairing: Pairing, where: str) -> None:
    for word in pairing.emotions:
        if word not in manifest.EMOTIONS:
            raise BenchError(f"{where}: pairing.emotions has {word!r}; {configs.nearest(word, manifest.EMOTIONS)}")
    for problem, message in (
        (
            (pairing.each != "target") != bool(pairing.emotions),
            "pairing.emotions goes with each = 'source' or 'portrait'",
        ),
        (
            (pairing.emotion_video == "random") != bool(pairing.emotion_dataset),
            "pairing.emotion_dataset goes with emotion_video = 'random'",
        ),
        (pairing.reference == "source" and pairing.each != "source", "reference = 'source' goes with each = 'source'"),
        (
            pairing.each == "portrait" and (pairing.reference, pairing.emotion_video) != ("first-frame", "random"),
            "each = 'portrait' goes with reference = 'first-frame' and emotion_video = 'random'",
        ),
    ):
        if problem:
            raise BenchError(f"{where}: {message}")


def folder(protocol: Protocol, workspace: Path) -> Path:
    """Where the protocol's dataset lies; the paths of a Clip are relative to it."""
    return workspace / "data" / protocol.dataset


def emotion_folder(protocol: Protocol, workspace: Path) -> Path:
    """Where the emotion videos lie: in the protocol's dataset, unless it names another one for them."""
    return workspace / "data" / (protocol.pairing.emotion_dataset or protocol.dataset)


def read_clips(protocol: Protocol, workspace: Path) -> list[Clip]:
    """The manifest of the protocol's dataset.

    Raises BenchError when it is missing, damaged, or was prepared otherwise than the protocol asks.
    """
    at = folder(protocol, workspace)
    command = protocol.prepared.command(protocol.dataset)
    if not (at / "manifest.parquet").exists():
        raise BenchError(f"{at / 'manifest.parquet'}: no such manifest; `{command}` makes it")
    try:
        clips = manifest.read(at / "manifest.parquet")
    except manifest.ManifestError as error:
        raise BenchError(str(error)) from None
    for name, expected, found in (
        ("dataset", protocol.prepared.dataset, {clip.dataset for clip in clips}),
        ("split", protocol.prepared.split, {_split_rule(at)}),
        ("crop", protocol.prepared.crop, {clip.crop for clip in clips}),
        ("size", protocol.prepared.size, {clip.height for clip in clips}),
    ):
        if expected and found != {expected}:
            have = ", ".join(sorted(map(str, found)))
            raise BenchError(
                f"protocol {protocol.name}: {at} has {name} {have}, expected {expected}; `{command}` makes it"
            )
    return clips


def split_of(protocol: Protocol, workspace: Path) -> dict[str, str | None]:
    """{"rule": name, "digest": of all parts} of the split that the dataset was prepared with; None where no split.json
    tells."""
    card = _card(folder(protocol, workspace))
    return {key: str(card[key]) if key in card else None for key in ("rule", "digest")}


def _split_rule(at: Path) -> str:
    return str(_card(at).get("rule", "of which no split.json tells"))


def _card(at: Path) -> dict[str, Any]:
    try:
        card = json.loads((at / "split.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return card if isinstance(card, dict) else {}


def members(protocol: Protocol, workspace: Path) -> list[Pair]:
    """pairs() of what is prepared in a workspace. Raises BenchError as read_clips() and pairs()."""
    clips = read_clips(protocol, workspace)
    others: list[Clip] = []
    if protocol.pairing.emotion_dataset:
        try:
            others = manifest.read(emotion_folder(protocol, workspace) / "manifest.parquet")
        except manifest.ManifestError as error:
            raise BenchError(f"{error} (for the emotion videos of protocol {protocol.name})") from None
    return pairs(clips, protocol, others)


def pairs(clips: Iterable[Clip], protocol: Protocol, others: Iterable[Clip] = ()) -> list[Pair]:
    """The videos of a protocol, sorted by pair_id; the same for any order of `clips`, and of `others`, those of the
    emotion dataset.

    Ties between equally good targets, references or emotion videos are drawn by SHA-256 of the seed and both ids.

    Raises BenchError when the manifest holds no clip that the protocol selects.
    """
    pool = sorted(clips, key=lambda clip: clip.clip_id)
    chosen = [clip for clip in pool if _selected(clip, protocol.select)]
    if not chosen:
        raise BenchError(
            f"protocol {protocol.name}: none of the {len(pool)} clips of {protocol.dataset} is selected by "
            f"{asdict(protocol.select)}; `bench manifest show {protocol.dataset}` lists what there is"
        )
    people: dict[tuple[str, str, str], list[Clip]] = {}
    for clip in pool:
        people.setdefault((clip.identity, clip.split, clip.view), []).append(clip)
    shows: dict[tuple[str, str, str], list[Clip]] = {}
    for clip in sorted(others, key=lambda clip: clip.clip_id):
        shows.setdefault((clip.emotion, clip.split, clip.view), []).append(clip)
    made = []
    for clip in chosen:
        person = people[clip.identity, clip.split, clip.view]
        if protocol.pairing.each == "target":
            made.append(_pair(clip.clip_id, clip.emotion, clip, clip, person, shows, protocol))
        for emotion in protocol.pairing.emotions:
            made.append(_pair(f"{clip.clip_id}--{emotion}", emotion, clip, None, person, shows, protocol))
    return sorted(made, key=lambda pair: pair.pair_id)


def pairs_digest(members: Iterable[Pair]) -> str:
    """Digest of what is asked: ids, words and contents of what a method is given, the same in every lab."""

    def pictures(clip: Clip | None) -> str | None:
        return clip.sha256 if clip else None

    return configs.digest(
        [
            [
                pair.pair_id,
                pair.target.sha256,
                pair.target.audio_sha256,
                pictures(pair.reference),
                pictures(pair.emotion_video),
                pair.prompt,
            ]
            for pair in members
        ]
    )


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


def _pair(
    pair_id: str,
    emotion: str,
    source: Clip,
    target: Clip | None,
    person: Sequence[Clip],
    shows: Mapping[tuple[str, str, str], Sequence[Clip]],
    protocol: Protocol,
) -> Pair:
    """`target` is None where it is still to be drawn from the clips of the same `person`; `shows` are the emotion
    dataset's clips by emotion, split and view."""
    pairing = protocol.pairing

    def best(candidates: Iterable[Clip], key: Callable[[Clip], Any] = lambda clip: 0) -> Clip | None:
        draw = partial(seeded, protocol.seed, pair_id)
        return min(candidates, key=lambda clip: (key(clip), draw(clip.clip_id)), default=None)

    def same_words(clip: Clip) -> bool:
        return clip.sentence is not None and clip.sentence == spoken.sentence

    spoken, errors = target or source, []
    where = f"{source.identity} ({source.split}, {source.view})"
    if pairing.each == "source":
        levels = protocol.select.levels
        asked = [
            clip
            for clip in person
            if clip.emotion == emotion and (emotion == "neutral" or not levels or clip.intensity in levels)
        ]
        drawn = best(asked, key=lambda clip: clip is source)
        if drawn is None:
            errors.append(f"no {emotion} clip of {where} to take the sound from")
        spoken = drawn or source
    reference: Clip | None = source if pairing.reference == "source" else spoken
    if pairing.reference == "neutral":
        neutral = (clip for clip in person if clip.emotion == "neutral")
        reference = best(neutral, key=lambda clip: (clip is spoken, same_words(clip)))
        if reference is None:
            errors.append(f"no neutral clip of {where} to take the portrait from")
    video: Clip | None = spoken
    if pairing.emotion_video == "cross":
        video = best(
            (clip for clip in person if clip.emotion == emotion and clip is not spoken),
            key=lambda clip: (clip.intensity != spoken.intensity, same_words(clip)),
        )
    elif pairing.emotion_video == "random":
        video = best(shows.get((emotion, source.split, source.view), ()))
        if video is None:
            errors.append(f"no {emotion} clip in {pairing.emotion_dataset} ({source.split}, {source.view})")
    prompt = "neutral" if pairing.prompt == "neutral" else emotion
    return Pair(pair_id, spoken, reference, video, emotion, prompt, "; ".join(errors) or None)


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
    pairs.csv with paths relative to `to`. Every file is whole or absent; a second run changes nothing. `emotion` is
    the word to give to a method that takes one; there is no `target_video` where nobody recorded it.

    Returns the lines of pairs.csv; a pair without reference has its reason in the column `error`. An empty
    `emotion_video` means that the person has no other take of that emotion.

    Raises MediaError for a clip that is not as the manifest has it.
    """
    source, shows = folder(protocol, workspace), emotion_folder(protocol, workspace)
    whole = cache(partial(intact, dataset=protocol.dataset))

    def copy(clip: Clip, name: str, sound: bool = False, base: Path = source) -> str:
        file, digest = (clip.audio, clip.audio_sha256) if sound else (clip.video, clip.sha256)
        return _copy(whole(base / file, digest), digest, to, name)

    rows = []
    for pair in members(protocol, workspace):
        target = pair.target
        row = {
            "pair_id": pair.pair_id,
            "identity": target.identity,
            "emotion": pair.prompt,
            "level": "" if target.intensity is None else str(target.intensity),
            "reference": "",
            "audio": copy(target, f"audio/{pair.pair_id}", sound=True),
            "target_video": "" if target.still else copy(target, f"videos/{pair.pair_id}"),
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
            row["emotion_video"] = copy(pair.emotion_video, f"videos/{pair.emotion_video.clip_id}", base=shows)
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
