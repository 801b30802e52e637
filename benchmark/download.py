"""Resumable downloads, and one named file taken out of a published archive without running anything of it.

Everything that arrives is hostile until its digest says otherwise: an archive is never unpacked, one member is
copied under a name of ours, and both what is downloaded and what is decompressed are bounded.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import click
import requests
from pypi_simple import NoSuchProjectError, PyPISimple, UnsupportedContentTypeError
from tqdm import tqdm

CONNECT_SECONDS, READ_SECONDS = 5, 60
LARGEST_ARCHIVE = 2 << 30  # bytes of an archive, and of what its members decompress to
CHUNK = 1 << 16  # what a dropped line can lose

_unreachable: set[str] = set()  # hosts that did not answer in this run: asked once, not once a network


class SourceError(Exception):
    """A source cannot give the file: one line saying why. The next source may."""


class _Interrupted(Exception):
    """The line dropped in the middle of a file."""


def session() -> requests.Session:
    """An HTTP session that trusts pip's certificate bundle too (PIP_CERT; requests honours its own variables)."""
    http = requests.Session()
    if bundle := os.environ.get("PIP_CERT"):
        http.verify = bundle
    return http


@contextlib.contextmanager
def _reaching(url: str) -> Iterator[None]:
    """Turn the errors of one HTTP exchange into a `SourceError`; a host that does not answer is not asked again."""
    host = _host(url)
    if host in _unreachable:
        raise SourceError(f"{host} is not reachable from here")
    try:
        yield
    except requests.ConnectionError as error:
        _unreachable.add(host)
        raise SourceError(f"{host} is not reachable from here") from error
    except requests.HTTPError as error:
        answer = error.response.status_code if error.response is not None else "an error"
        raise SourceError(f"{host} answered {answer} for {urlsplit(url).path}") from error
    except requests.RequestException as error:
        raise SourceError(f"{host}: {type(error).__name__}") from error


def _host(url: str) -> str:
    """Host and port, without the user name and password that a private index may carry."""
    return urlsplit(url).netloc.rpartition("@")[2]


def index_file(package: str, version: str, kind: str, http: requests.Session) -> tuple[str, str]:
    """(file name, URL) of a package's sdist or wheel on the index pip would ask (PIP_INDEX_URL, else the default)."""
    index = os.environ.get("PIP_INDEX_URL")
    client = PyPISimple(index, session=http) if index else PyPISimple(session=http)
    with _reaching(client.endpoint):
        try:
            page = client.get_project_page(package, timeout=(CONNECT_SECONDS, READ_SECONDS))
        except NoSuchProjectError as error:
            raise SourceError(f"the package index has no {package}") from error
        except UnsupportedContentTypeError as error:
            raise SourceError("the package index answered with something that is no package list") from error
    for file in page.packages:
        if file.version == version and file.package_type == kind:
            return file.filename, file.url
    raise SourceError(f"the package index has no {kind} of {package} {version}")


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a lock file, so that two processes do not write the same partial download; released even by SIGKILL."""
    with path.open("w") as handle:
        with contextlib.suppress(OSError):  # some network file systems have no locks: the digest still decides
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                click.echo("another process is fetching weights; waiting for it", err=True)
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def download(url: str, part: Path, http: requests.Session, limit: int, bar: tqdm[None] | None) -> None:
    """Download `url` onto `part`, going on where an earlier attempt stopped; one retry when the line drops.

    Raises `SourceError`; what has arrived stays in `part` for the next attempt.
    """
    with _reaching(url):
        try:
            _append(url, part, http, limit, bar)
        except _Interrupted:
            try:
                _append(url, part, http, limit, bar)
            except _Interrupted as again:
                raise SourceError(f"{_host(url)}: {again}; the same command goes on from there") from again


def _append(url: str, part: Path, http: requests.Session, limit: int, bar: tqdm[None] | None) -> None:
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with http.get(url, headers=headers, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS)) as reply:
        if reply.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing follows what is here: whole, or wrong, which the digest tells
        reply.raise_for_status()
        if not reply.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            have = 0  # the server sends the whole file
        length = reply.headers.get("Content-Length", "")
        total = have + int(length) if length.isdigit() else None
        if total is not None and total > limit:
            raise SourceError(f"{_host(url)} offers {total:,} bytes, expected at most {limit:,}")
        if bar is not None:
            bar.reset(total)
            bar.update(have)
        with part.open("ab" if have else "wb") as out:
            try:
                for chunk in reply.iter_content(CHUNK):
                    have += out.write(chunk)
                    if have > limit:
                        raise SourceError(f"{_host(url)} sends more than the expected {limit:,} bytes")
                    if bar is not None:
                        bar.update(len(chunk))
            except requests.RequestException as error:
                raise _Interrupted(f"the line dropped after {have:,} bytes") from error
        if total is not None and have < total:
            raise _Interrupted(f"the line dropped after {have:,} of {total:,} bytes")


class _Bounded:
    """A stream that refuses to give more than `limit` bytes: a decompression bomb ends here."""

    def __init__(self, stream: gzip.GzipFile, limit: int) -> None:
        self._stream, self._left = stream, limit

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise SourceError("the archive decompresses to more than a source archive plausibly holds")
        return data


def extract(archive: Path, member: str, out: BinaryIO, size: int | None) -> None:
    """Copy the member named `member` of a .whl, .zip or .tar.gz into `out`; nothing else is read or written.

    In a .tar.gz the top folder (name-version/) is not part of `member`. A member that is not a plain file (a link,
    a device) or whose declared size is not `size` bytes is refused. Raises `SourceError`.
    """
    try:
        if zipfile.is_zipfile(archive):
            _extract_zip(archive, member, out, size)
        else:
            _extract_tar(archive, member, out, size)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise SourceError(f"{archive.name} is damaged or truncated ({error})") from error


def _extract_zip(archive: Path, member: str, out: BinaryIO, size: int | None) -> None:
    with zipfile.ZipFile(archive) as zipped:
        try:
            info = zipped.getinfo(member)
        except KeyError as error:
            raise SourceError(f"{archive.name} holds no {member}") from error
        mode = info.external_attr >> 16
        plain = not info.is_dir() and (stat.S_IFMT(mode) in (0, stat.S_IFREG)) and not info.flag_bits & 1
        _check_member(member, plain, info.file_size, size)
        with zipped.open(info) as stream:
            _copy(stream, out, info.file_size)


def _extract_tar(archive: Path, member: str, out: BinaryIO, size: int | None) -> None:
    with gzip.open(archive) as unzipped:
        bounded = _Bounded(unzipped, LARGEST_ARCHIVE)
        with tarfile.open(fileobj=bounded, mode="r|") as tar:  # type: ignore[call-overload] # it needs read() only
            for info in tar:
                if info.name.removeprefix("./").partition("/")[2] == member:
                    _check_member(member, info.isreg() and not info.issparse(), info.size, size)
                    stream = tar.extractfile(info)
                    assert stream is not None  # a regular file has one
                    _copy(stream, out, info.size)
                    return
    raise SourceError(f"{archive.name} holds no {member}")


def _check_member(member: str, plain: bool, found: int, expected: int | None) -> None:
    if not plain:
        raise SourceError(f"{member} is not a plain file in its archive")
    if found > LARGEST_ARCHIVE or (expected is not None and found != expected):
        raise SourceError(f"{member} has {found:,} bytes, expected {expected or LARGEST_ARCHIVE:,}")


def _copy(stream: object, out: BinaryIO, size: int) -> None:
    left = size
    while left and (chunk := stream.read(min(CHUNK, left))):  # type: ignore[attr-defined]
        left -= out.write(chunk)
    if left:
        raise EOFError(f"{left:,} bytes are missing")
