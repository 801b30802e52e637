"""Datasets: one file each, whose `index(root)` turns a raw tree into sources before anything is decoded."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, cast

from pipelines.manifest import Rejected

NAMES = ("mead", "crema-d", "hdtf", "voxceleb2", "ravdess", "portraits", "demo", "demo-second")
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
MAX_DEPTH = 64


class DatasetError(Exception):
    """A raw tree that cannot be indexed; one line with the likely cause."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The part of a longer recording that is the clip.

    start, end   s after the first frame; None is its end
    box          (left, top, width, height) in pixels; None is the whole picture
    lines        height in pixels of the picture for which `box` holds; None: any
    fractions    instead of `box`: (left, top, width, height) as shares of the picture's width and height, in [0, 1]
    """

    start: float = 0.0
    end: float | None = None
    box: tuple[int, int, int, int] | None = None
    lines: int | None = None
    fractions: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """One raw recording. Paths are relative to the raw root; `video` may be a still image; `audio` is where the sound
    lies if the video file has none. The other fields are those of manifest.Clip; two recordings that were cut from
    one video have the same `extra["origin"]`."""

    clip_id: str
    dataset: str
    identity: str
    emotion: str
    intensity: int | None
    view: str
    sentence: str | None
    take: str
    video: str
    audio: str | None
    cut: Cut | None = None
    extra: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def still(self) -> bool:
        return Path(self.video).suffix.lower() in IMAGE_SUFFIXES


@dataclass(frozen=True, slots=True)
class Finding:
    """What `bench doctor data` says of a raw tree: a defect of `item` (a path, a cell, a person), found by `check`.

    fatal     prepared as it is, recordings would be lost or wrongly labelled
    warning   the tree is not what was published, and numbers will not be comparable
    note      worth knowing; a defect of the published dataset itself, say
    """

    severity: Literal["fatal", "warning", "note"]
    check: str
    item: str
    detail: str


@dataclass(frozen=True, slots=True)
class Index:
    """sources to prepare, files that are none of them with the reason, and notes on what the tree lacks."""

    sources: list[Source]
    rejected: list[Rejected] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Dataset(Protocol):
    """A module of this package. Besides `index` it may have `split(sources) -> Card`, the dataset's own split, and
    `examine(root, index, *, digests) -> Iterator[Finding]`, the defects that only this dataset can have: nothing is
    decoded, and media are read through only if `digests` asks for it. `identity_key(identity) -> str` says that
    identities are names of people, and what of a name is the person: such keys are compared across datasets."""

    def index(self, root: Path) -> Index: ...


def load(name: str) -> Dataset:
    """The dataset of that name. Raises DatasetError."""
    if name not in NAMES:
        raise DatasetError(f"no dataset is named {name!r}; known: {', '.join(NAMES)}")
    return cast(Dataset, importlib.import_module(f"pipelines.datasets.{name.replace('-', '_')}"))


def walk(root: Path, dataset: str, rejected: list[Rejected]) -> Iterator[tuple[str, ...]]:
    """The parts of the path of every regular file below `root`, sorted. Links to folders are followed, each folder
    once, so that a loop ends; it and whatever is neither file nor folder are added to `rejected`.

    Raises DatasetError when `root` is not a folder that can be read.
    """
    if not root.is_dir():
        raise DatasetError(f"{root}: not a folder; give the one that holds the raw {dataset} files")

    def reject(path: Path, reason: str, detail: str) -> None:
        rejected.append(Rejected(dataset, printable(path.relative_to(root)), "index", reason, detail))

    def below(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, ...]]:
        try:
            status = folder.stat()
            entries = sorted(Path(entry) for entry in os.scandir(folder))
        except OSError as error:
            reject(folder, "unreadable", error.strerror or str(error))
            return
        here = (status.st_dev, status.st_ino)
        if here in above:
            reject(folder, "link_loop", "a link that leads back to a folder above it")
            return
        if len(above) > MAX_DEPTH:
            reject(folder, "too_deep", f"over {MAX_DEPTH} folders deep")
            return
        for path in entries:  # pathlib, unlike os.DirEntry, takes a link to itself for neither
            if path.is_dir():
                yield from below(path, (*above, here))
            elif path.is_file():
                yield path.relative_to(root).parts
            else:
                reject(path, "not_a_file", "a dangling link, a pipe, a socket or a device")

    yield from below(root, ())


def printable(path: Path | str) -> str:
    """A path on one line: control characters and bytes that are not text are written as escapes."""
    text = os.fspath(path)
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
