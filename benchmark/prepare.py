"""`bench prepare`: a raw tree to clips, manifest, rejections and a split card.

Under `data/<name>/`:
  clips/ landmarks/ masks/   the files of each clip
  rows/<clip_id>.json        written last: a clip is done when its row is there. A killed run leaves no row without
                             its files, and the next run makes only what has none.
  manifest.parquet           of the recordings that this run selected; rejected.parquet, with a reason for each
                             raw file that did not make it; split.json, the card; missing.txt, what the tree lacks
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmark import __version__, engine
from benchmark.errors import BenchError, writable
from pipelines import datasets, manifest, media, presets, splits
from pipelines.datasets import Index, Source, printable
from pipelines.manifest import Clip, Rejected
from pipelines.splits import Card
from pipelines.stages import Reject, Settings, prepare_clip

FORMAT = 2  # raised when clips of an earlier version of this code must be made anew
# What says that the output, not a raw file, is at fault: every later clip would fail alike.
OUTPUT_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EACCES, errno.EPERM}


class PrepareError(BenchError):
    """The run cannot start or go on; one line for the user."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Which recordings of the split to prepare; an empty tuple admits all, `limit` keeps the first so many by
    clip_id."""

    identity: tuple[str, ...] = ()
    emotion: tuple[str, ...] = ()
    level: tuple[int, ...] = ()
    view: tuple[str, ...] = ()
    limit: int | None = None

    def select(self, sources: Sequence[Source], split: Container[str]) -> list[Source]:
        """The admitted sources whose clip_id is in the split. Raises PrepareError when a filter names what the tree
        does not hold, and when no recording is left."""
        chosen = [s for s in sources if s.clip_id in split]
        for name, wanted, have in (
            ("--identity", self.identity, [s.identity for s in sources]),
            ("--emotion", self.emotion, [s.emotion for s in sources]),
            ("--level", self.level, [s.intensity for s in sources]),
            ("--view", self.view, [s.view for s in sources]),
        ):
            known = sorted({str(value) for value in have})
            for value in wanted:
                if str(value) not in known:
                    raise PrepareError(f"{name} {value}: the tree has none; it has {', '.join(known)}")
            if wanted:
                kept = {s.clip_id for s, value in zip(sources, have, strict=True) if value in wanted}
                chosen = [s for s in chosen if s.clip_id in kept]
        if not chosen:
            raise PrepareError("the filters together admit no recording of the split; leave one out")
        return chosen[: self.limit]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did: clips in the manifest, how many of them were there already, rejections, and its folder."""

    clips: int
    reused: int
    rejected: dict[str, int]
    failed: list[str]
    card: Card
    notes: list[str]
    folder: Path

    def text(self) -> str:
        """The summary as lines to print."""
        lines = [self.card.text()]
        if self.notes:
            lines.append(f"the tree lacks {len(self.notes)} cells, listed in {self.folder / 'missing.txt'}")
        lines += [f"not prepared: {count} {reason}" for reason, count in self.rejected.items()]
        if self.rejected:
            lines.append(f"each with its reason in {self.folder / 'rejected.parquet'}")
        lines += [f"failed: {line}" for line in self.failed]
        made = (
            f"{self.clips} clips ({self.reused} recordings were done before)" if self.reused else f"{self.clips} clips"
        )
        lines.append(
            f"{made} in {self.folder / 'manifest.parquet'}   digest {digest(self.folder / 'manifest.parquet')[:16]}"
        )
        return "\n".join(lines)


def prepare(
    dataset: str,
    root: Path,
    folder: Path,
    *,
    settings: Settings | None = None,
    filters: Filters | None = None,
    split: Callable[[Sequence[Source]], Card] | None = None,
    workers: int = 1,
    fresh: bool = False,
) -> Summary:
    """Prepare `dataset` from `root` into `folder` (a dataset's folder of a workspace).

    `split` decides train, val and test from all sources of the tree, whatever the filters admit (default: ratio
    0.8/0.1/0.1, seed 0). Raises PrepareError, DatasetError or SplitError before any file is decoded, and
    PrepareError when the output cannot be written.
    """
    settings, filters = settings or Settings(), filters or Filters()
    writable(folder)
    index = datasets.load(dataset).index(root)
    card = (split or default_split)(index.sources)
    chosen = filters.select(index.sources, card.assignment)
    with _output(folder), _alone(folder):
        _same_settings(folder, settings, fresh)
        done, todo = _sort_out(chosen, root, folder, settings)
        reused = len(done)
        failed = _work(todo, done, root, folder, settings, card, workers)
        return _finish(folder, index, card, done, reused, failed)


def dry_run(
    dataset: str,
    root: Path,
    folder: Path,
    *,
    settings: Settings,
    filters: Filters,
    split: Callable[[Sequence[Source]], Card],
    fresh: bool = False,
) -> str:
    """What `prepare` would do, as lines to print; nothing is written or decoded. Raises as `prepare`."""
    index = datasets.load(dataset).index(root)
    card = split(index.sources)
    chosen = filters.select(index.sources, card.assignment)
    if not fresh:
        _check_settings(folder, settings)
    done = {} if fresh else _sort_out(chosen, root, folder, settings)[0]
    reasons = Counter(r.reason for r in index.rejected)
    lines = [f"{len(index.sources)} recordings in {printable(root)}, {len(index.notes)} cells missing"]
    lines += [f"not prepared: {count} {reason}" for reason, count in reasons.most_common()]
    lines.append(card.text())
    made = f" ({len(done)} recordings were done before)" if done else ""
    lines.append(f"{len(chosen) - len(done)} clips would be prepared in {printable(folder)}{made}; nothing was written")
    return "\n".join(lines)


def default_split(sources: Sequence[Source]) -> Card:
    """Ratio 0.8/0.1/0.1, seed 0."""
    return splits.ratio(sources, (0.8, 0.1, 0.1), 0)


Rule = Callable[[Sequence[Source]], Card]


def split_rule(
    dataset: str,
    split: str | None,
    ratio: str,
    seed: int,
    split_file: Path | None,
    *,
    by: splits.By | None = None,
    hold_out: Sequence[str] = (),
) -> Rule:
    """The rule that the options of the command name; by default a dataset's own split, else the ratio by identity.

    Raises PrepareError when the options do not fit together.
    """
    rule = _named_rule(dataset, split, ratio, seed, split_file, by)
    if not hold_out:
        return rule
    return lambda sources: splits.hold_out(rule(sources), sources, hold_out)


def _named_rule(
    dataset: str, split: str | None, ratio: str, seed: int, split_file: Path | None, by: splits.By | None
) -> Rule:
    if (split == "list") != (split_file is not None):
        raise PrepareError("--split list and --split-file FILE go together")
    if by is not None and split not in (None, "ratio"):
        raise PrepareError(f"--split-by {by} goes with --split ratio; {split} says itself what it splits by")
    if split_file is not None:
        return partial(splits.from_list, path=split_file)
    if split not in (None, "ratio"):
        return partial(presets.preset, split)
    own: Rule | None = getattr(datasets.load(dataset), "split", None)
    if split is None and by is None and own is not None:
        return own
    try:
        train, val, test = (float(share) for share in ratio.split(","))
    except ValueError as error:
        raise PrepareError(f"--ratio {ratio!r}: expected three numbers such as 0.8,0.1,0.1") from error
    return partial(splits.ratio, fractions=(train, val, test), seed=seed, by=by or "identity")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One run at a time in a folder; the lock goes with the process, however it ends."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise PrepareError(f"{printable(folder)}: another `bench prepare` is at work there") from error
        for left in folder.rglob(".part-*"):  # of a killed run: nobody else writes here now
            left.unlink(missing_ok=True)
        yield


@contextmanager
def _output(folder: Path) -> Iterator[None]:
    """What cannot be read of the raw files is a rejection; an OSError that comes this far is the output's."""
    try:
        yield
    except OSError as error:
        raise PrepareError(
            f"{printable(folder)}: {error.strerror}; nothing is lost, "
            "run the same command again once there is room or the folder can be written"
        ) from error


def _same_settings(folder: Path, settings: Settings, fresh: bool) -> None:
    if fresh:
        for name in ("clips", "landmarks", "masks", "rows"):
            shutil.rmtree(folder / name, ignore_errors=True)
        for name in ("manifest.parquet", "rejected.parquet", "split.json", "missing.txt"):
            (folder / name).unlink(missing_ok=True)
    else:
        _check_settings(folder, settings)
    text = json.dumps(_stored(settings), indent=1, sort_keys=True) + "\n"
    media.write_bytes(folder / "settings.json", text.encode())


def _stored(settings: Settings) -> dict[str, Any]:
    return dataclasses.asdict(settings) | {"format": FORMAT}


def _check_settings(folder: Path, settings: Settings) -> None:
    """Raises PrepareError when the folder was prepared with other settings."""
    path, now = folder / "settings.json", _stored(settings)
    if not path.exists():
        return
    try:
        before = dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise PrepareError(f"{printable(path)}: damaged; use --fresh to make the folder anew") from error
    changed = [f"{k} {before.get(k)} (now {now[k]})" for k in now if before.get(k) != now[k]]
    if changed:
        raise PrepareError(
            f"{printable(folder)} was prepared with {', '.join(changed)}; "
            "use --fresh to make it anew, or --name for a folder of its own"
        )


def _row_path(folder: Path, clip_id: str) -> Path:
    return folder / "rows" / f"{clip_id}.json"


def _key(source: Source, root: Path, settings: Settings) -> str:
    """What a finished row was made from. Size and time of the raw files stand for their bytes: hashing a slow
    disk again to find that nothing changed would take as long as the work."""
    stamps = []
    for name in (source.video, source.audio):
        status = (root / name).stat() if name and (root / name).exists() else None
        stamps.append((name, status and status.st_size, status and status.st_mtime_ns))
    text = json.dumps([FORMAT, dataclasses.asdict(settings), dataclasses.asdict(source), stamps])
    return hashlib.sha256(text.encode()).hexdigest()


Row = Clip | Rejected


def _sort_out(
    chosen: list[Source], root: Path, folder: Path, settings: Settings
) -> tuple[dict[str, Row], list[Source]]:
    done: dict[str, Row] = {}
    todo = []
    for source in chosen:
        row = _finished(source, root, folder, settings)
        if row is None:
            todo.append(source)
        else:
            done[source.clip_id] = row
    return done, todo


def _finished(source: Source, root: Path, folder: Path, settings: Settings) -> Row | None:
    try:
        stored = json.loads(_row_path(folder, source.clip_id).read_text())
        if stored["key"] != _key(source, root, settings):
            return None
        if "rejected" in stored:
            return Rejected(**stored["rejected"])
        clip = Clip(**stored["clip"])
        sizes = [(folder / name).stat().st_size for name in (clip.video, clip.audio, clip.landmarks)]
        return clip if sizes == stored["sizes"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no row, or one that was damaged: make the clip again


def _make(item: tuple[Source, str], root: Path, folder: Path, settings: Settings) -> Row:
    """The work on one recording, given with its split, in a worker process; the row is the last file to be
    written."""
    source, split = item
    key = _key(source, root, settings)
    row: Row
    stored: dict[str, Any] = {"key": key}
    try:
        row = prepare_clip(source, root, folder, settings, split, __version__)
        stored["clip"] = dataclasses.asdict(row)
        stored["sizes"] = [(folder / name).stat().st_size for name in (row.video, row.audio, row.landmarks)]
    except Reject as reject:
        row = Rejected(source.dataset, source.video, reject.stage, reject.reason, printable(str(reject)))
        stored["rejected"] = dataclasses.asdict(row)
    text = json.dumps(stored, indent=1, sort_keys=True) + "\n"
    media.write_bytes(_row_path(folder, source.clip_id), text.encode())
    return row


def _work(
    todo: list[Source],
    done: dict[str, Row],
    root: Path,
    folder: Path,
    settings: Settings,
    card: Card,
    workers: int,
) -> list[str]:
    """Make what is missing; fills `done` and returns one line for each recording that ended in a bug or a crash."""
    failed = []
    make = partial(_make, root=root.absolute(), folder=folder.absolute(), settings=settings)
    items = [(source, card.assignment[source.clip_id]) for source in todo]
    # Longest first would need every file's length; by clip_id a rerun goes on where the last one stopped.
    with tqdm(total=len(todo) + len(done), initial=len(done), unit="clip", desc="prepare", disable=None) as bar:
        for outcome in engine.run(make, items, workers=min(workers, max(len(todo), 1))):
            bar.update()
            (source, _), error = outcome.item, outcome.error
            if outcome.value is not None:
                done[source.clip_id] = outcome.value
            elif isinstance(error, OSError) and error.errno in OUTPUT_ERRORS:
                raise error
            else:
                reason = "worker_died" if isinstance(error, engine.WorkerDied) else "internal_error"
                detail = printable(f"{type(error).__name__}: {error}")
                failed.append(f"{source.video}: {detail}")
                done[source.clip_id] = Rejected(source.dataset, source.video, "worker", reason, detail)
    return failed


def _finish(folder: Path, index: Index, card: Card, done: dict[str, Row], reused: int, failed: list[str]) -> Summary:
    # The split is not part of a clip's row key: another split changes the manifest and no clip.
    clips = [dataclasses.replace(r, split=card.assignment[r.clip_id]) for r in done.values() if isinstance(r, Clip)]
    rejected = index.rejected + [r for r in done.values() if isinstance(r, Rejected)]
    manifest.write(clips, folder / "manifest.parquet")
    manifest.write_rejected(rejected, folder / "rejected.parquet")
    media.write_bytes(folder / "split.json", card.json().encode())
    media.write_bytes(folder / "missing.txt", "".join(f"{note}\n" for note in index.notes).encode())
    reasons = Counter(r.reason for r in rejected)
    return Summary(len(clips), reused, dict(reasons.most_common()), failed, card, index.notes, folder)


def digest(path: Path) -> str:
    """One digest of a manifest, for two labs to compare: over source, video and sound of every clip."""
    lines = sorted(f"{c.clip_id} {c.split} {c.source_sha256} {c.sha256} {c.audio_sha256}" for c in manifest.read(path))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def data_folder(workspace: Path, name: str) -> Path:
    """Where a prepared dataset lies in a workspace. Raises PrepareError for a name that is not a plain word."""
    if not name or name != Path(name).name or name.startswith("."):
        raise PrepareError(f"--name {name!r}: expected a plain folder name")
    return workspace / "data" / name


def find_manifest(workspace: Path, name: str) -> Path:
    """The manifest of a dataset's name, or the file itself."""
    path = Path(name)
    return path if path.suffix == ".parquet" else data_folder(workspace, name) / "manifest.parquet"


def show(path: Path, *, rejected: bool = False) -> str:
    """A prepared dataset in a few lines: counts by split and emotion, length, digest; or its rejections."""
    if rejected:
        rows = manifest.read_rejected(path.with_name("rejected.parquet"))
        return "\n".join([f"{r.source}   {r.stage}: {r.reason} ({r.detail})" for r in rows] + [f"{len(rows)} rejected"])
    clips = manifest.read(path)
    seconds = sum(c.num_frames / c.fps for c in clips)
    lines = [f"{len(clips)} clips, {len({c.identity for c in clips})} identities, {seconds / 60:.1f} min"]
    for split in splits.SPLITS:
        chosen = [c for c in clips if c.split == split]
        emotions = Counter(c.emotion for c in chosen)
        counts = "  ".join(f"{emotion} {n}" for emotion, n in sorted(emotions.items()))
        lines.append(f"  {split:5} {len({c.identity for c in chosen}):3} identities {len(chosen):6} clips   {counts}")
    shapes = Counter(f"{c.crop} {c.width}x{c.height} at {c.fps:g} fps, {c.sample_rate} Hz" for c in clips)
    lines += [f"  {count} {shape}" for shape, count in shapes.most_common()]
    return "\n".join([*lines, f"digest {digest(path)}"])
