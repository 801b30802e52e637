"""Datasets: one file each, whose `index(root)` turns a raw tree into sources before anything is decoded."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

from pipelines.manifest import Rejected

NAMES = ("mead", "demo")
MAX_DEPTH = 64


class DatasetError(Exception):
    """A raw tree that cannot be indexed; one line with the likely cause."""


@dataclass(frozen=True, slots=True)
class Source:
    """One raw recording. Paths are relative to the raw root; `audio` is where the sound lies if the video file
    has none. The other fields are those of manifest.Clip."""

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


@dataclass(frozen=True, slots=True)
class Index:
    """sources to prepare, files that are none of them with the reason, and notes on what the tree lacks."""

    sources: list[Source]
    rejected: list[Rejected] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Dataset(Protocol):
    def index(self, root: Path) -> Index: ...


def load(name: str) -> Dataset:
    """The dataset of that name. Raises DatasetError."""
    if name not in NAMES:
        raise DatasetError(f"no dataset is named {name!r}; known: {', '.join(NAMES)}")
    return cast(Dataset, importlib.import_module(f"pipelines.datasets.{name}"))


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
