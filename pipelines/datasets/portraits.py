"""Out-of-domain portraits: a folder of images and a folder of speech, of anybody (DICE-Talk, § 4.1, takes ten of each).

Files are told apart by their suffix, wherever they lie below the root. An image and a sound of the same name belong
together ("anna.jpg", "anna.wav"); the others are paired at random, by names and a fixed seed alone, so that each is
used at least once. There is no recording of what these people would have done: the prepared clip is a still picture
with a sound, and metrics that compare with a real video do not apply.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle
from pathlib import Path

from pipelines.datasets import IMAGE_SUFFIXES, DatasetError, Index, Source, printable, walk
from pipelines.manifest import UNLABELLED, Rejected
from pipelines.splits import Card, make_card

NAME = "portraits"
AUDIO_SUFFIXES = {".wav", ".m4a", ".mp3", ".flac", ".ogg", ".aac"}
SEED = 0
MAX_NAME = 200  # bytes of a clip's id; file systems allow 255, and suffixes are added


def index(root: Path) -> Index:
    """Every pair of an image and a sound below `root`. Nothing is decoded.

    Raises DatasetError when `root` is not a folder, or holds no image or no sound.
    """
    rejected: list[Rejected] = []
    found: dict[str, dict[str, str]] = {"image": {}, "sound": {}}
    for parts in walk(root, NAME, rejected):
        path = "/".join(parts)
        reason = _take(path, parts, found)
        if reason is not None:
            rejected.append(Rejected(NAME, printable(path), "index", *reason))
    for kind, files in found.items():
        if not files:
            suffixes = ", ".join(sorted(IMAGE_SUFFIXES if kind == "image" else AUDIO_SUFFIXES))
            raise DatasetError(f"{printable(root)}: holds no {kind} ({suffixes}); expected portraits and speech")
    sources: dict[str, Source] = {}
    for pair in _pairs(found["image"], found["sound"]):
        source = _source(*pair, found)
        if source.clip_id in sources or len(source.clip_id.encode()) > MAX_NAME:
            detail = (
                f"with {printable(source.audio or '')} it would be the clip {source.clip_id[:40]!r}: too long, or taken"
            )
            rejected.append(Rejected(NAME, printable(source.video), "index", "name", detail))
        else:
            sources[source.clip_id] = source
    return Index([sources[key] for key in sorted(sources)], rejected)


def split(sources: Sequence[Source]) -> Card:
    """Everybody is in the test split: out-of-domain means that nothing was trained on it."""
    return make_card(
        "portraits", {source.identity: "test" for source in sources}, sources, "Out of domain: test alone."
    )


def _take(path: str, parts: tuple[str, ...], found: dict[str, dict[str, str]]) -> tuple[str, str] | None:
    """Put a file where it belongs, or say why it is neither image nor sound."""
    name = Path(path)
    suffix, stem = name.suffix.lower(), unicodedata.normalize("NFC", name.stem)
    if any(part.startswith(".") for part in parts):
        return "hidden", "a hidden file"
    kind = "image" if suffix in IMAGE_SUFFIXES else "sound" if suffix in AUDIO_SUFFIXES else None
    if kind is None:
        return "suffix", f"{printable(suffix)!r} is neither an image's nor a sound's"
    if stem != printable(stem):
        return "name", "the name holds a control character; it becomes the name of a clip"
    if stem in found[kind]:
        return "duplicate", f"the same name as {printable(found[kind][stem])}"
    found[kind][stem] = path
    return None


def _pairs(images: Iterable[str], sounds: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(image, sound) by name: those of one name, then the rest in a drawn order, the shorter list used again."""

    def drawn(names: Iterable[str]) -> list[str]:
        return sorted(names, key=lambda name: hashlib.sha256(f"{SEED}:{name}".encode()).hexdigest())

    both = set(images) & set(sounds)
    yield from ((name, name) for name in both)
    left, right = drawn(set(images) - both), drawn(set(sounds) - both)
    if left or right:
        left, right = left or drawn(images), right or drawn(sounds)
        longer = range(max(len(left), len(right)))
        yield from ((image, sound) for _, image, sound in zip(longer, cycle(left), cycle(right), strict=False))


def _source(image: str, sound: str, found: dict[str, dict[str, str]]) -> Source:
    clip_id = image if image == sound else f"{image}--{sound}"
    return Source(
        clip_id=clip_id,
        dataset=NAME,
        identity=image,
        emotion=UNLABELLED,
        intensity=None,
        view="front",
        sentence=None,
        take=sound,
        video=found["image"][image],
        audio=found["sound"][sound],
    )
