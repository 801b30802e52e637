"""bench doctor data: planted defects are named, whole files are not accused, and nothing is decoded."""

from __future__ import annotations

import shutil
import struct
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from samples import tone

from benchmark import doctor_data
from benchmark.cli import bench
from pipelines import headers, media
from pipelines.datasets import IMAGE_SUFFIXES, Cut, Finding, Index, Source, mead
from pipelines.headers import Headers
from pipelines.media import MediaError

CELL = "M003/video/front/angry/level_1"
STUB = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:4665a5ea423c2713d436b5ee50593a9640e0018c1550b5a0002f74\n"
)

pytestmark = pytest.mark.usefixtures("one_pool")


def encode(path: Path, video: str, audio: str = "", *, fps: int = 25, size: tuple[int, int] = (128, 96), seed: int = 0,
           **options: str) -> Path:  # fmt: skip
    """A second of noise with a tone, in any container that FFmpeg writes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    with av.open(str(path), "w", options=options) as container:
        picture = container.add_stream(video, rate=fps)
        picture.width, picture.height, picture.pix_fmt = *size, "yuv420p"
        sound = container.add_stream(audio, rate=44_100) if audio else None
        for k in range(fps):
            noise = rng.integers(0, 255, (size[1] // 8, size[0] // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
            frame = av.VideoFrame.from_ndarray(noise)
            frame.pts = k
            container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
        if sound is not None:
            blocks = av.AudioFrame.from_ndarray(tone(1, 44_100)[None], format="fltp", layout="mono")
            blocks.sample_rate, blocks.pts = 44_100, 0
            to = sound.codec_context
            for block in av.AudioResampler(to.format, to.layout, 44_100, frame_size=to.frame_size).resample(blocks):
                container.mux(sound.encode(block))
            container.mux(sound.encode(None))
    return path


@pytest.fixture(scope="session")
def containers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One whole file of each kind, as bytes."""
    folder = tmp_path_factory.mktemp("containers")
    encode(folder / "moov-last.mp4", "libx264", "aac")
    encode(folder / "moov-first.mp4", "libx264", "aac", movflags="faststart")
    encode(folder / "part2.mp4", "mpeg4", "aac")
    encode(folder / "a.mov", "libx264", "aac")
    encode(folder / "sorenson.flv", "flv", "libmp3lame")
    encode(folder / "h264.flv", "libx264", "aac")
    encode(folder / "a.avi", "mpeg4", "libmp3lame")
    encode(folder / "a.mkv", "libx264", "aac")
    media.write_wav(folder / "a.wav", tone(1))
    photo = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    for suffix in (".png", ".jpg", ".webp", ".bmp"):
        cv2.imwrite(str(folder / f"a{suffix}"), photo)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


NAMES = ("a.avi", "a.bmp", "a.jpg", "a.mkv", "a.mov", "a.png", "a.wav", "a.webp", "h264.flv", "moov-first.mp4",
         "moov-last.mp4", "part2.mp4", "sorenson.flv")  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_cut_file_is_reported_and_the_whole_one_is_not(
    containers: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    whole, path = containers[name], tmp_path / name
    path.write_bytes(whole)
    found = headers.read(path)
    assert found.bytes == len(whole)
    if path.suffix == ".wav":
        assert (found.video, found.audio, found.audio_rate) == ("", "pcm_s16le", 16_000)
        assert found.duration == pytest.approx(1)
    elif path.suffix in IMAGE_SUFFIXES:
        assert (found.width, found.height, found.audio) == (64, 48, "")
    else:
        assert (found.width, found.height, found.fps) == (128, 96, 25)
        assert found.audio
        assert found.duration == pytest.approx(1, abs=0.1)

    seamless = tag_ends(whole) if path.suffix == ".flv" else []  # see the next test

    @given(st.integers(1, len(whole) - 1).filter(lambda length: length not in seamless))
    def cut(length: int) -> None:
        path.write_bytes(whole[:length])
        with pytest.raises(MediaError) as caught:
            headers.read(path)
        assert caught.value.reason in ("truncated", "not_media")
        assert length < 64 or caught.value.reason == "truncated"
        assert "\n" not in str(caught.value)

    cut()
    for length in (len(whole) - 1, len(whole) - 21, len(whole) // 2, 20):
        cut.hypothesis.inner_test(length)  # the ends, whatever hypothesis draws


def tag_ends(flv: bytes) -> list[int]:
    position, ends = 13, []
    while position < len(flv):
        position += 11 + int.from_bytes(flv[position + 1 : position + 4], "big") + 4
        ends.append(position)
    assert position == len(flv)
    return ends


def test_a_cut_between_two_tags_or_boxes(containers: dict[str, bytes], tmp_path: Path) -> None:
    """Where the structure is whole as far as it goes, what is promised elsewhere tells."""
    flv, path = containers["sorenson.flv"], tmp_path / "a.flv"
    path.write_bytes(flv.replace(b"duration\x00" + flv[flv.index(b"duration\x00") + 9 :][:8],
                                 b"duration\x00" + struct.pack(">d", 30)))  # fmt: skip
    with pytest.raises(MediaError, match=r"promise 30\.00 s, its last tag is at [01]\."):
        headers.read(path)
    path.write_bytes(flv[: tag_ends(flv)[-2]])  # a single tag short: within the tolerance
    assert headers.read(path).audio == "mp3float"
    mp4, path = containers["moov-first.mp4"], tmp_path / "a.mp4"
    path.write_bytes(mp4[: mp4.index(b"mdat") - 4])
    with pytest.raises(MediaError, match="no mdat box"):
        headers.read(path)


@pytest.mark.parametrize(("codec", "track"), [(b"V_MPEG4/ISO/AVC", "video"), (b"A_AAC", "audio")])
def test_a_codec_that_nobody_knows_is_one_line(
    containers: dict[str, bytes], tmp_path: Path, codec: bytes, track: str
) -> None:
    path, whole = tmp_path / "a.mkv", containers["a.mkv"]
    assert codec in whole
    path.write_bytes(whole.replace(codec, codec[:2] + b"X" * len(codec[2:])))
    with pytest.raises(MediaError, match=f"the {track} is of a codec that FFmpeg does not know") as raised:
        headers.read(path)
    assert raised.value.reason == "corrupt"
    with pytest.raises(MediaError, match=f"the {track} is of a codec"):
        media.probe(path) if track == "video" else media.read_audio(path)


@given(st.sampled_from(NAMES), st.data())
def test_damaged_bytes_are_one_line_or_headers(containers: dict[str, bytes], name: str, data: st.DataObject) -> None:
    changed = bytearray(containers[name])
    for _ in range(data.draw(st.integers(1, 8))):
        changed[data.draw(st.integers(0, min(len(changed), 4096) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(changed)
        with suppress(MediaError):  # any other error fails
            assert headers.read(path).bytes == len(changed)


def test_bytes_after_the_end_are_no_truncation(containers: dict[str, bytes], tmp_path: Path) -> None:
    for name, more in (("moov-last.mp4", bytes(100)), ("moov-last.mp4", b"\0" * 3), ("a.wav", b"\0"), ("a.mkv", b"x")):
        path = tmp_path / name
        path.write_bytes(containers[name] + more)
        assert headers.read(path).audio
    live = containers["a.wav"]
    path.with_name("live.wav").write_bytes(live[:4] + b"\xff" * 4 + live[8:40] + b"\xff" * 4 + live[44:])
    assert headers.read(path.with_name("live.wav")).audio_rate == 16_000


def test_what_is_no_media(tmp_path: Path) -> None:
    for content, reason in ((b"", "empty"), (STUB, "lfs_pointer"), (b"<html>not found</html>" * 9, "not_media")):
        for name in ("a.mp4", "a.wav", "a.png"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(MediaError) as caught:
                headers.read(tmp_path / name)
            assert caught.value.reason == reason
    with pytest.raises(MediaError) as caught:
        headers.read(tmp_path)
    assert caught.value.reason == "missing"


def test_a_playlist_opens_nothing_else(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    inside = make_video("inside.mp4")
    (tmp_path / "list.mp4").write_text(f"ffconcat version 1.0\nfile {inside}\n")
    with pytest.raises(MediaError):
        headers.read(tmp_path / "list.mp4")


REAL = ("mead/M003/video/front/disgusted/level_1/015.mp4", "mead/M030/video/front/sad/level_3/001.mp4",
        "hdtf/clips/WDA_KatieHill_000.mp4", "lrs3/0Fi83BHQsMA_00002.mp4", "grid/bbaf2n.mpg", "grid/brbk7n.mpg",
        "syncnet/example.avi", "speech/angry1.wav", "speech/dice_male.wav", "mead_audio/M030_angry.m4a",
        "talkvid/10/aud.mp3", "talkvid/10/ref.jpg", "lpips_examples/ex_ref.png", "generated/edtalk/demo_EDTalk_A.mp4",
        )  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_real_files_are_whole(real: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    path = real(name)
    found = headers.read(path)
    if found.video and path.suffix not in IMAGE_SUFFIXES:
        probed = media.probe(path)
        assert (found.width, found.height) == (probed.width, probed.height)
        assert found.fps == pytest.approx(probed.fps)
        assert bool(found.audio) == probed.has_audio
        if probed.duration is not None:
            assert found.duration == pytest.approx(probed.duration, abs=0.05)
    if path.suffix in (".mp3", ".mpg"):
        return  # these state no length
    with path.open("rb") as file:
        (tmp_path / path.name).write_bytes(file.read(path.stat().st_size * 2 // 3))
    with pytest.raises(MediaError) as caught:
        headers.read(tmp_path / path.name)
    assert caught.value.reason == "truncated"


@pytest.mark.parametrize("name", ["a.avi", "a.mkv", "moov-first.mp4", "part2.mp4", "h264.flv", "sorenson.flv", "a.wav"])
def test_nothing_is_decoded(
    containers: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Neither by FFmpeg, which decodes while it opens a file unless it is forbidden to, nor by us."""
    path = tmp_path / name
    path.write_bytes(containers[name])
    av.logging.set_level(av.logging.VERBOSE)
    try:
        with av.logging.Capture(local=False) as log:
            assert headers.read(path).audio
    finally:
        av.logging.set_level(None)
    refused = {line.split("(")[1].split(")")[0] for _, _, line in log if "not on whitelist 'none'" in line}
    with av.open(str(path)) as container:
        streams = [stream.codec_context.name for stream in container.streams]
    assert refused == set(streams)  # FFmpeg asked for a decoder of every track, and got none
    opened = []

    class Watched:
        def __init__(self, container: Any) -> None:
            self.container = container

        def __enter__(self) -> Watched:
            return self

        def __exit__(self, *_: object) -> None:
            self.container.close()

        def __getattr__(self, name: str) -> Any:
            assert name in ("streams", "duration"), f"{name} is more than headers"
            return getattr(self.container, name)

    def watched(path: str, **options: Any) -> Watched:
        opened.append(options["options"])
        return Watched(real_open(path, **options))

    real_open = av.open
    monkeypatch.setattr(headers.av, "open", watched)
    assert headers.read(path).audio
    assert [options["codec_whitelist"] for options in opened] == ["none"]


def sound_tree(root: Path, takes: range = range(1, 4)) -> Path:
    """A MEAD cell with its sounds beside, nothing wrong with any file."""
    for take in takes:
        encode(root / CELL / f"{take:03}.mp4", "libx264", seed=take)
        media.write_wav(root / f"M003/audio/angry/level_1/{take:03}.wav", tone(1, hertz=200 + take))
    return root


def test_every_planted_defect_is_named(containers: dict[str, bytes], tmp_path: Path) -> None:
    root = sound_tree(tmp_path / "raw dàta ü")
    cell, sad = root / CELL, root / "M003/video/front/sad/level_1"
    planted = {
        "010": STUB,
        "011": b"",
        "012": containers["moov-first.mp4"][:-1000],
        "013": containers["moov-last.mp4"][:-1000],
        "014": (cell / "001.mp4").read_bytes(),  # no sound beside
        "015": b"hello",
    }
    for take, content in planted.items():
        (cell / f"{take}.mp4").write_bytes(content)
    encode(cell / "016.mp4", "libx264", "aac", fps=30)
    encode(cell / "017.mp4", "libx264", "aac", size=(96, 128))
    sad.mkdir(parents=True)
    shutil.copy(cell / "016.mp4", sad / "001.mp4")
    (cell / "00\n1.mp4").write_bytes(b"x")
    (root / "READ ME é.txt").write_text("notes")
    (root / "M003/audio/angry/level_1/002.wav").write_bytes(STUB)
    (root / "M003/audio/angry/level_1/016.wav").write_bytes(b"")  # the video has a track of its own
    media.write_wav(root / "M003/audio/angry/level_1/003.wav", tone(3))

    diagnosis = doctor_data.examine("mead", root)
    said = {(f.severity, f.check, f.item.rsplit("/", 1)[-1]) for f in diagnosis.findings}
    assert {
        ("fatal", "lfs_pointer", "010.mp4"),
        ("fatal", "empty", "011.mp4"),
        ("fatal", "truncated", "012.mp4"),
        ("fatal", "truncated", "013.mp4"),
        ("fatal", "no_audio", "014.mp4"),
        ("fatal", "not_media", "015.mp4"),
        ("fatal", "lfs_pointer", "002.wav"),
        ("warning", "empty", "016.wav"),
        ("warning", "length", "003.mp4"),
        ("warning", "duplicate", "014.mp4"),
        ("warning", "duplicate", "001.mp4"),
        ("fatal", "conflicting_labels", "016.mp4"),
        ("fatal", "conflicting_labels", "001.mp4"),
        ("warning", "fps", "016.mp4"),
        ("warning", "resolution", "017.mp4"),
        ("fatal", "take", "00\\n1.mp4"),
        ("warning", "unrecognised", "READ ME é.txt"),
        ("note", "numbering", "M003"),
    } <= said
    fatal = {(check, item) for severity, check, item in said if severity == "fatal"}
    assert len(fatal) == 10  # those above and no more
    (odd,) = [f for f in diagnosis.findings if f.check == "resolution"]
    assert odd.detail == "96x128, where 6 of 7 files of the view front have 128x96"
    assert all("\n" not in f.item + f.detail for f in diagnosis.findings)
    assert doctor_data.examine("mead", root, workers=3) == diagnosis


def test_a_sound_tree_has_nothing_fatal_and_the_command_says_so(tmp_path: Path) -> None:
    root = sound_tree(tmp_path / "raw", range(1, 13))
    run = ["--workspace", str(tmp_path / "w"), "doctor", "data", "mead", "--workers", "1", "--root", str(root)]
    done = CliRunner().invoke(bench, run)
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0] == "warning: missing (21)"
    assert lines[6] == f"  ... and 16 more, all in {tmp_path / 'w/doctor/mead.parquet'}"
    assert lines[-1].startswith("12 recordings in 24 files: 0 fatal, 21 warning, 2 note;")
    rows = pq.read_table(tmp_path / "w/doctor/mead.parquet")
    assert rows.schema.equals(doctor_data.SCHEMA)
    assert (rows.num_rows, rows["check"].to_pylist().count("missing")) == (23, 21)

    (root / CELL / "003.mp4").write_bytes(STUB)
    done = CliRunner().invoke(bench, [*run, "--out", str(tmp_path / "other.parquet")])
    assert done.exit_code == 1
    assert done.output.startswith(f"fatal: lfs_pointer (1)\n  {CELL}/003.mp4: a git-lfs pointer, not media")
    assert pq.read_table(tmp_path / "other.parquet")["severity"].to_pylist()[0] == "fatal"
    assert not list(tmp_path.rglob(".part-*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["meed", "--root", "."], "no dataset is named 'meed'"), (["mead", "--root", "nowhere"], "not a folder")],
)
def test_a_wrong_name_or_root_is_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(bench, ["--workspace", str(tmp_path / "w"), "doctor", "data", *arguments])
    assert done.exit_code == 1
    assert message in done.output
    assert len(done.output.splitlines()) == 1


def test_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"x")

    def refuse(self: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # chmod does not stop the superuser who may run this
    assert doctor_data._look(["a.mp4"], tmp_path) == [
        doctor_data.Fault("unreadable", "cannot be read (Permission denied)")
    ]


def test_equal_size_alone_is_no_duplicate(tmp_path: Path) -> None:
    root = sound_tree(tmp_path, range(1, 7))
    sounds = [root / f"M003/audio/angry/level_1/{k:03}.wav" for k in range(1, 7)]
    big = bytearray(np.random.default_rng(0).bytes(400_000))
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 16_000, 32_000, 2, 16)
    for k, path in enumerate(sounds[2:4]):
        big[200_000] = k  # the same ends, another middle
        path.write_bytes(struct.pack("<4sI4s", b"RIFF", 36 + len(big), b"WAVE") + form)
        with path.open("ab") as file:
            file.write(struct.pack("<4sI", b"data", len(big)) + big)
    shutil.copy(sounds[4], sounds[5])
    assert len({path.stat().st_size for path in sounds}) == 2
    findings = doctor_data.examine("mead", root).findings
    assert [f.item for f in findings if f.check == "duplicate"] == [str(p.relative_to(root)) for p in sounds[4:]]


def source(take: str, **changed: Any) -> Source:
    whole = {"clip_id": take, "dataset": "mead", "identity": "M003", "emotion": "angry", "intensity": 1}
    whole |= {"view": "front", "sentence": None, "take": take, "video": f"{take}.mp4", "audio": None}
    return Source(**(whole | changed))


def test_a_conflict_that_was_published_is_a_note(tmp_path: Path) -> None:
    sources = [source("a"), source("b", emotion="sad")]
    for one in sources:
        (tmp_path / one.video).write_bytes(b"x" * 100)
    seen: dict[str, Any] = {one.video: Headers(100, "h264", audio="aac") for one in sources}
    labels = doctor_data._labels(sources)
    for own, severity in (
        ([], "fatal"),
        ([Finding("note", "conflicting_labels", "elsewhere/b.mp4", "as published")], "note"),
    ):
        same = list(doctor_data._same_bytes(sources, labels, seen, tmp_path, own, 1))
        assert [(f.severity, f.item) for f in same] == [(severity, "a.mp4"), (severity, "b.mp4")]


def test_portraits_are_headers_too(tmp_path: Path) -> None:
    """A sound beside two portraits is nobody's label; a picture under two names is two labels of one person."""
    for name in ("images", "audio"):
        (tmp_path / name).mkdir()
    rng = np.random.default_rng(0)
    for name in ("ann.png", "bob.jpg", "cy.webp", "dora.png"):
        cv2.imwrite(str(tmp_path / "images" / name), rng.integers(0, 255, (64, 64, 3), np.uint8))
    torn = tmp_path / "images/bob.jpg"
    torn.write_bytes(torn.read_bytes()[:-50])
    shutil.copy(tmp_path / "images/ann.png", tmp_path / "images/eve.png")
    for name, hertz in (("a.wav", 200), ("b.wav", 200), ("c.wav", 300)):
        media.write_wav(tmp_path / "audio" / name, tone(1, hertz=hertz))
    findings = doctor_data.examine("portraits", tmp_path).findings
    fatal = {(f.check, f.item.rsplit("/", 1)[-1]) for f in findings if f.severity == "fatal"}
    both = {("conflicting_labels", "ann.png"), ("conflicting_labels", "eve.png")}
    assert fatal == {("truncated", "bob.jpg"), *both}
    named = {f.item.rsplit("/", 1)[-1] for f in findings if f.check == "duplicate"}
    assert named <= {"a.wav", "b.wav"}
    assert not [f for f in findings if f.check in ("fps", "resolution", "length", "no_audio")]


def test_cuts_outside_the_recording() -> None:
    seen: dict[str, Any] = {"v.mp4": Headers(1, "h264", 640, 360, 25, 10.0, "aac", 16_000, 10.0)}
    cuts = {
        "fine": Cut(0, 10.2, (0, 0, 360, 360), 360),
        "late": Cut(9, 12),
        "after": Cut(11),
        "lines": Cut(0, 5, (0, 0, 100, 100), 720),
        "outside": Cut(0, 5, (300, 0, 360, 360), 360),
    }
    sources = [source(name, video="v.mp4", cut=cut) for name, cut in cuts.items()]
    told = {(f.item, f.check): f.severity for f in doctor_data._cuts(sources, seen)}
    assert told == dict.fromkeys([("late", "cut"), ("after", "cut"), ("lines", "crop"), ("outside", "crop")], "fatal")


def test_no_value_prevails() -> None:
    """In a collection of all sorts nothing is an outlier."""
    sources = [source(str(k)) for k in range(6)]
    seen: dict[str, Any] = {f"{k}.mp4": Headers(1, "h264", 100 + k // 2, 100, 25 + k // 3) for k in range(6)}
    told = list(doctor_data._unlike_the_rest(sources, seen))
    assert [(f.severity, f.check, f.item) for f in told] == [("note", "fps", "front"), ("note", "resolution", "front")]
    assert "6 files of the view front, 2 values: 3 have 25.0 fps, 3 have 26.0 fps" in told[0].detail


def examined(*sources: Source) -> set[tuple[str, str, str]]:
    return {(f.severity, f.check, f.item) for f in mead.examine(Path(), Index(list(sources)), digests=False)}


def test_mead_counts_views_and_numbers() -> None:
    def cell(identity: str, view: str, takes: range, audio: str | None = "a.m4a") -> list[Source]:
        named = [(f"{identity}_{view}_{k:03}", f"{k:03}") for k in takes]
        return [source(take, clip_id=c, identity=identity, view=view, audio=audio, video=c) for c, take in named]

    everything = [v for view in mead.VIEWS for v in cell("M003", view, range(1, 31))]
    assert examined(*everything) == set()
    assert examined(*everything, *cell("W017", "down", range(1, 12), None)) == {
        ("warning", "views", "W017"),
        ("warning", "count", "W017/angry/level_1"),
        ("warning", "audio_folder", "W017/audio"),
    }
    assert examined(*everything[:-1]) == {("warning", "count", "M003/angry/level_1")}
    assert examined(*cell("W023", "front", range(20, 58))) == {
        ("note", "views", "all"),
        ("note", "numbering", "W023"),
        ("note", "count", "W023"),
    }


def dies(paths: list[str]) -> list[str]:
    import os

    if "bad" in paths:
        os._exit(1)
    return [path.upper() for path in paths]


@pytest.mark.usefixtures("own_processes")
def test_a_file_that_crashes_the_reader_costs_itself_alone() -> None:
    answers = dict(doctor_data._each(dies, ["a", "bad", "c"], 1, "test"))
    assert (answers["a"], answers["c"]) == ("A", "C")
    assert answers["bad"].reason == "internal_error"
