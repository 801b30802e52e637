"""`bench prepare mead` on a small tree: what comes out, resuming, and every kind of bad input."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from samples import portrait, tone, write_portrait
from skimage import data

from benchmark import engine
from benchmark import prepare as job
from benchmark.cli import bench
from pipelines import manifest, media, presets
from pipelines.datasets import demo
from pipelines.stages import Settings

CELL = "M003/video/front/angry/level_1"

pytestmark = pytest.mark.usefixtures("one_pool")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four good recordings of two identities: 25 and 30 fps, sound inside the video or beside it."""
    root = tmp_path_factory.mktemp("raw data é")
    write_portrait(root / CELL / "001.mp4")
    write_portrait(root / CELL / "002.mp4", fps=30)
    write_portrait(root / "W009/video/front/neutral/level_1/001.mp4")
    silent = write_portrait(root / "W009/video/front/neutral/level_1/002.mp4", audio=np.zeros(0, np.float32))
    beside = root / "W009/audio/neutral/level_1/002.wav"
    media.write_wav(beside, tone(1.0))
    assert not media.probe(silent).has_audio
    return root


@pytest.fixture(scope="module")
def prepared(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ws") / "data" / "mead"
    summary = job.prepare("mead", raw, folder, settings=Settings(masks=True), workers=2)
    assert summary.clips == 4
    assert not summary.rejected
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def test_clips_are_25_fps_16_khz_and_centred(prepared: Path) -> None:
    clips = manifest.read(prepared / "manifest.parquet")
    assert [c.clip_id for c in clips] == sorted(c.clip_id for c in clips)
    for clip in clips:
        info = media.probe(prepared / clip.video)
        assert (info.width, info.height, info.fps) == (256, 256, 25.0)
        frames = list(media.read_frames(prepared / clip.video))
        audio = media.read_audio(prepared / clip.audio)
        assert len(frames) == clip.num_frames == 25
        assert len(audio) == clip.num_frames * 640
        landmarks = np.load(prepared / clip.landmarks)["points"]
        assert landmarks.shape == (25, 478, 3)
        centre = (landmarks[..., :2].min(1) + landmarks[..., :2].max(1)) / 2
        assert np.abs(centre - 128).max() < 20  # the head sways, the crop follows slowly
        assert clip.detected == 1.0
        assert media.file_sha256(prepared / clip.video) == clip.sha256
        for mask in ("eat-face", "dice-talk"):
            first = next(media.read_frames(prepared / "masks" / mask / f"{clip.clip_id}.mkv"))
            assert set(np.unique(first)) == {0, 255}
            x, y = landmarks[0, 1, :2].astype(int)
            assert first[y, x, 0] == 255  # the nose is in the mask
    assert {c.source_fps for c in clips} == {25.0, 30.0}
    assert len({c.split for c in clips if c.identity == "M003"}) == 1


def test_the_landmarks_of_a_clip_fit_its_frames(prepared: Path) -> None:
    """FaceMesh on the finished clip finds the points where the manifest says, to 1.5 % of the face."""
    from pipelines.faces import track

    clip = manifest.read(prepared / "manifest.parquet")[0]
    frames = list(media.read_frames(prepared / clip.video))
    again = track(lambda: iter(frames)).points
    stored = np.load(prepared / clip.landmarks)["points"]
    assert np.abs(again - stored)[..., :2].mean() < 0.015 * 256 / 1.6


@pytest.mark.usefixtures("own_processes")
def test_same_bytes_for_one_or_two_workers(raw: Path, prepared: Path, tmp_path: Path) -> None:
    job.prepare("mead", raw, tmp_path / "one", settings=Settings(masks=True), workers=1)
    assert contents(tmp_path / "one") == contents(prepared)


def test_resume_makes_only_what_is_missing(raw: Path, prepared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "again"
    shutil.copytree(prepared, folder)
    clips = manifest.read(folder / "manifest.parquet")
    (folder / clips[0].video).unlink()  # a lost clip
    (folder / "rows" / f"{clips[1].clip_id}.json").write_text("{")  # a torn row
    (folder / clips[2].audio).write_bytes(b"short")  # a cut-off file
    (folder / "clips" / ".part-1234.mp4").write_bytes(b"left by a killed run")
    before = {c.clip_id: (folder / c.video).stat().st_mtime_ns for c in clips[1:]}
    summary = job.prepare("mead", raw, folder, settings=Settings(masks=True), workers=2)
    assert summary.reused == 1
    assert contents(folder) == contents(prepared)
    assert (folder / clips[3].video).stat().st_mtime_ns == before[clips[3].clip_id]
    assert job.prepare("mead", raw, folder, settings=Settings(masks=True)).reused == 4


def test_other_settings_need_fresh_or_another_name(raw: Path, prepared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "again"
    shutil.copytree(prepared, folder)
    with pytest.raises(job.PrepareError, match=r"was prepared with size 256 \(now 512\).*use --fresh"):
        job.prepare("mead", raw, folder, settings=Settings(size=512, masks=True))
    one = job.Filters(limit=1)
    summary = job.prepare("mead", raw, folder, settings=Settings("portrait", 512, "ffv1"), filters=one, fresh=True)
    assert (summary.clips, summary.reused) == (1, 0)
    (clip,) = manifest.read(folder / "manifest.parquet")
    assert (clip.width, clip.crop, Path(clip.video).suffix) == (512, "portrait", ".mkv")
    assert not list((folder / "masks").glob("*")) if (folder / "masks").exists() else True


def test_damaged_settings_are_one_line(raw: Path, tmp_path: Path) -> None:
    for text in ("{", "[1]"):
        (tmp_path / "settings.json").write_text(text)
        with pytest.raises(job.PrepareError, match="damaged; use --fresh"):
            job.prepare("mead", raw, tmp_path)


KILLED = """
import sys
from pathlib import Path
from benchmark import prepare
from pipelines.stages import Settings
if __name__ == "__main__":
    name, raw, out = sys.argv[1:]
    split = prepare.split_rule(name, None, "0.8,0.1,0.1", 0, None)
    prepare.prepare(name, Path(raw), Path(out), settings=Settings(masks=True), split=split, workers=2)
"""


def killed_at_random_moments(raw: Path, folder: Path, moments: list[float], name: str = "mead") -> int:
    """Start, SIGKILL after so many seconds, start again; returns how many runs were really killed."""
    killed = 0
    for seconds in moments:
        process = subprocess.Popen([sys.executable, "-c", KILLED, name, str(raw), str(folder)])
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
        time.sleep(0.2)  # the workers end with their parent
    return killed


def test_killed_and_started_again_ends_with_the_same_bytes(raw: Path, prepared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    assert killed_at_random_moments(raw, folder, [2.8, 3.9]) >= 1
    job.prepare("mead", raw, folder, settings=Settings(masks=True), workers=2)
    assert contents(folder) == contents(prepared)


def bad_tree(root: Path) -> dict[str, str]:
    """One recording for each way to be unusable; returns take -> expected reason."""
    cell = root / CELL
    write_portrait(cell / "001.mp4")
    good = (cell / "001.mp4").read_bytes()
    expected = {}

    def bad(take: str, reason: str) -> Path:
        expected[f"{CELL}/{take}.mp4"] = reason
        return cell / f"{take}.mp4"

    bad("010", "empty").write_bytes(b"")
    bad("011", "not_media").write_bytes(b"no video at all" * 100)
    bad("012", "not_media").write_bytes(good[: len(good) // 2])  # the index at the end is lost
    cut_in_half(bad("013", "corrupt"))
    expected[f"{CELL}/024.mkv"] = "truncated"  # Matroska ends without an error
    cut_in_half(cell / "024.mkv")
    write_portrait(bad("014", "no_audio"), audio=np.zeros(0, np.float32))
    write_portrait(bad("015", "silent_audio"), audio=np.zeros(48_000, np.float32))
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 60, (256, 256, 3), np.uint8) for _ in range(25)]
    media.write_video(bad("016", "no_face"), noise, audio=tone(1.0))
    two = [np.concatenate([f, f[:, ::-1]], axis=1) for f in portrait()]
    media.write_video(bad("017", "several_faces"), two, audio=tone(1.0))
    media.write_video(bad("018", "small_picture"), [f[::16, ::16] for f in portrait()], audio=tone(1.0))
    gone = [f if not 5 <= k < 20 else np.zeros_like(f) for k, f in enumerate(portrait())]
    media.write_video(bad("019", "face_lost"), gone, audio=tone(1.0))
    media.write_video(bad("020", "too_short"), list(portrait())[:3], audio=tone(0.12))
    media.write_wav(cell / "021.wav", tone(1.0))
    (cell / "021.wav").rename(bad("021", "no_video"))
    bad("022", "lfs_pointer").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    photo = data.astronaut()[0:256, 205:405]  # the face is cut by the left edge
    media.write_video(bad("023", "face_at_border"), [cv2.resize(photo, (200, 256))] * 25, audio=tone(1.0))
    return expected


def cut_in_half(path: Path) -> None:
    """A file whose headers (in front) promise 2 s and whose data end in the middle."""
    whole = path.with_name("whole.mp4")
    write_portrait(whole, seconds=2.0)
    with av.open(str(whole)) as source, av.open(str(path), "w", options={"movflags": "faststart"}) as target:
        streams = {s.index: target.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    whole.unlink()
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def test_bad_files_are_reasoned_rows(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    expected = bad_tree(root)
    result = CliRunner().invoke(
        bench, ["--workspace", str(tmp_path / "ws"), "prepare", "mead", "--root", str(root), "--workers", "2"]
    )
    assert result.exit_code == 0, result.output
    rows = manifest.read_rejected(tmp_path / "ws/data/mead/rejected.parquet")
    assert {r.source: r.reason for r in rows} == expected
    assert all(r.detail and "\n" not in r.detail and str(tmp_path) not in r.detail for r in rows)
    assert [c.take for c in manifest.read(tmp_path / "ws/data/mead/manifest.parquet")] == ["001"]
    assert "not prepared: 2 not_media" in result.output
    assert not list((tmp_path / "ws").rglob(".part-*"))
    shown = CliRunner().invoke(bench, ["--workspace", str(tmp_path / "ws"), "manifest", "show", "mead", "--rejected"])
    assert f"{len(expected)} rejected" in shown.output
    # A rejection is remembered: nothing is decoded again.
    assert job.prepare("mead", root, tmp_path / "ws/data/mead").reused == len(expected) + 1


def bench_prepare(workspace: Path, raw: Path, *arguments: str) -> str:
    command = ["--workspace", str(workspace), "prepare", "mead", "--root", str(raw), "--write-masks", *arguments]
    result = CliRunner().invoke(bench, command)
    assert result.exit_code == 0, result.output
    return result.output


def test_another_split_makes_no_clip_again(raw: Path, prepared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data/mead"
    shutil.copytree(prepared, folder)
    files = {name: content for name, content in contents(folder).items() if "/" in name}
    output = bench_prepare(tmp_path, raw, "--split", "eat-mead", "--hold-out-emotion", "neutral")
    assert "4 clips (4 recordings were done before)" in output
    assert "split eat-mead held out neutral" in output
    assert {c.split for c in manifest.read(folder / "manifest.parquet")} == {"test"}
    output = bench_prepare(tmp_path, raw, "--split-by", "clip", "--ratio", "0.5,0,0.5", "--hold-out-emotion", "neutral")
    assert "recordings are outside this split" in output
    kept = manifest.read(folder / "manifest.parquet")
    assert len(kept) < 4  # what is outside leaves the manifest; its files stay
    assert not [c for c in kept if c.split == "train" and c.emotion == "neutral"]
    assert {name: content for name, content in contents(folder).items() if "/" in name} == files


def test_an_overlap_that_the_rule_wants_is_no_problem(raw: Path, prepared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data/mead"
    shutil.copytree(prepared, folder)
    output = bench_prepare(tmp_path, raw, "--split-by", "clip", "--ratio", "0.5,0,0.5")
    assert "identities may overlap: 2 in several splits" in output
    command = ["--workspace", str(tmp_path), "manifest", "check", "mead"]
    result = CliRunner().invoke(bench, command)
    assert result.exit_code == 0
    assert "identities may overlap: 2 in several splits, as the split's rule has it" in result.output
    for text in ("{", "[]", '{"shared_identities": 1}'):
        (folder / "split.json").write_text(text)  # nothing says any more that it was wanted
        result = CliRunner().invoke(bench, command)
        assert result.exit_code == 1
        assert "identity M003 is in several splits: test, train" in result.output


def test_a_dry_run_writes_nothing(raw: Path, prepared: Path, tmp_path: Path) -> None:
    output = bench_prepare(tmp_path / "new", raw, "--dry-run", "--emotion", "angry", "--split", "eat-mead")
    assert "4 recordings in" in output
    assert "split eat-mead" in output
    assert "2 clips would be prepared" in output
    assert not (tmp_path / "new").exists()
    folder = tmp_path / "data/mead"
    shutil.copytree(prepared, folder)
    (folder / "rows/M003_front_angry_1_001.json").unlink()
    before = contents(folder)
    output = bench_prepare(tmp_path, raw, "--dry-run")
    assert "1 clips would be prepared" in output
    assert "(3 recordings were done before)" in output
    assert "4 clips would be prepared" in bench_prepare(tmp_path, raw, "--dry-run", "--fresh")
    assert contents(folder) == before


def test_the_help_names_every_preset() -> None:
    text = "".join(CliRunner().invoke(bench, ["prepare", "--help"], terminal_width=10_000).output.split())
    assert [name for name in presets.PRESETS if name not in text] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--root", "missing"], "not a folder"),
        (["--root", "RAW", "--identity", "M999"], "--identity M999: the tree has none; it has M003, W009"),
        (["--root", "RAW", "--identity", "M003", "--emotion", "neutral"], "admit no recording"),
        (["--root", "RAW", "--ratio", "0.9,0.2,0.1"], "add up to 1"),
        (["--root", "RAW", "--ratio", "most"], "expected three numbers"),
        (["--root", "RAW", "--split", "list"], "go together"),
        (["--root", "RAW", "--split", "list", "--split-file", "none.csv"], "cannot be read"),
        (["--root", "RAW", "--split", "dice-talk-mead"], "the tree has none of the identities to test: M011"),
        (["--root", "RAW", "--split", "dice-talk-hdtf"], "the split dice-talk-hdtf is of hdtf, not of mead"),
        (["--root", "RAW", "--split", "eat"], "no split is named 'eat'; known: ratio, list, dice-talk-mead"),
        (["--root", "RAW", "--split", "eat-mead", "--split-by", "clip"], "--split-by clip goes with --split ratio"),
        (["--root", "RAW", "--split-by", "sentence"], "mead does not tell which sentence is said"),
        (["--root", "RAW", "--hold-out-emotion", "joy"], "--hold-out-emotion joy: the test split has none of it"),
        (["--root", "RAW", "--name", "../elsewhere"], "expected a plain folder name"),
    ],
)
def test_wrong_arguments_are_one_line(raw: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    arguments = [str(raw) if a == "RAW" else a for a in arguments]
    result = CliRunner().invoke(bench, ["--workspace", str(tmp_path), "prepare", "mead", *arguments])
    assert result.exit_code == 1
    assert message in result.output
    assert result.output.count("\n") == 1
    assert not list(tmp_path.rglob("*.mp4"))


def test_unknown_dataset_and_missing_manifest(tmp_path: Path) -> None:
    run = CliRunner().invoke
    result = run(bench, ["--workspace", str(tmp_path), "prepare", "meed", "--root", str(tmp_path)])
    assert "no dataset is named 'meed'" in result.output
    result = run(bench, ["--workspace", str(tmp_path), "manifest", "show", "mead"])
    assert "`bench prepare` writes it" in result.output
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not really")
    result = run(bench, ["manifest", "check", str(tmp_path / "bad.parquet")])
    assert "not a Parquet file, or damaged" in result.output
    assert result.exit_code == 1


def test_an_output_that_cannot_be_written_is_one_line(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where a folder should be")
    result = CliRunner().invoke(bench, ["--workspace", str(tmp_path), "prepare", "mead", "--root", str(raw)])
    assert result.exit_code == 1
    assert "cannot be written" in result.output
    assert result.output.count("\n") == 1


def test_a_full_disk_stops_the_run_and_loses_nothing(raw: Path, prepared: Path, tmp_path: Path) -> None:
    """No file may grow beyond 40 kB, as if the disk were full; with room again, the run ends as ever."""
    command = [sys.executable, "-m", "benchmark.cli", "--workspace", str(tmp_path), "prepare", "mead", "--write-masks"]
    command += ["--root", str(raw), "--workers", "1"]
    limited = subprocess.run(["bash", "-c", 'ulimit -f 40; exec "$@"', "-", *command], capture_output=True, text=True)
    assert limited.returncode == 1, limited.stderr
    assert "nothing is lost, run the same command again" in limited.stderr
    assert "Traceback" not in limited.stderr
    assert not list(tmp_path.rglob("*.mp4"))
    bench_prepare(tmp_path, raw)
    assert contents(tmp_path / "data/mead") == contents(prepared)


def test_two_runs_at_once_do_not_mix(raw: Path, tmp_path: Path) -> None:
    with job._alone(folder := _made(tmp_path / "mead")), pytest.raises(job.PrepareError, match="is at work there"):
        job.prepare("mead", raw, folder)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_check_finds_what_changed(prepared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(prepared, folder)
    path = folder / "manifest.parquet"
    assert manifest.check(path) == []
    clips = manifest.read(path)
    with (folder / clips[0].video).open("ab") as file:
        file.write(b"x")
    (folder / clips[1].landmarks).unlink()
    (folder / clips[3].landmarks).write_bytes(b"junk")
    other = "train" if clips[2].split != "train" else "test"
    manifest.write([*clips[:3], manifest.Clip(**{**as_dict(clips[3]), "split": other})], path)
    problems = "\n".join(manifest.check(path))
    assert problems.count("digest differs") == 2
    assert "is missing" in problems
    assert "in several splits" in problems


def as_dict(clip: manifest.Clip) -> dict[str, object]:
    import dataclasses

    return dataclasses.asdict(clip)


@pytest.mark.parametrize("fps", [25.0, 30_000 / 1001])
def test_a_planted_click_and_flash_stay_together(tmp_path: Path, fps: float) -> None:
    """Through the grid, the crop, the encoder and the resampler, to one frame."""
    flash = 21  # two source frames long: one alone may fall between the grid's times
    frames = [255 - f if k in (flash, flash + 1) else f for k, f in enumerate(portrait(1.6, fps))]
    audio = 0.01 * tone(1.6, 48_000)
    start = round(flash / fps * 48_000)
    audio[start : start + 240] = 0.9
    raw = tmp_path / "raw" / CELL / "001.mp4"
    media.write_video(raw, frames, fps, audio=audio, sample_rate=48_000)
    job.prepare("mead", tmp_path / "raw", tmp_path / "out")
    (clip,) = manifest.read(tmp_path / "out/manifest.parquet")
    pictures = [frame.astype(float) for frame in media.read_frames(tmp_path / "out" / clip.video)]
    strange = np.array([np.abs(picture - pictures[5]).mean() for picture in pictures])
    seen = int(np.argmax(strange > strange.max() / 2)) / 25
    heard = int(np.argmax(np.abs(media.read_audio(tmp_path / "out" / clip.audio)))) / 16_000
    assert abs(seen - heard) <= 1 / 25
    assert abs(seen - flash / fps) <= 1 / 25


@pytest.mark.slow
def test_the_demo_killed_at_twenty_random_moments(tmp_path: Path) -> None:
    """SIGKILL at a random moment, a run to the end, the same bytes: twenty times."""
    raw, reference = tmp_path / "raw", tmp_path / "reference"
    todo = demo.jobs(raw, identities=("W107", "W108"), emotions=("happy", "angry"), sentences=(1, 2), levels=(3,))
    assert all(outcome.error is None for outcome in engine.run(demo.render_clip, todo, workers=2))
    job.prepare("demo", raw, reference, settings=Settings(masks=True), split=demo.split, workers=2)
    killed = 0
    for k, moment in enumerate(np.random.default_rng(0).uniform(1.0, 6.0, 20)):
        folder = tmp_path / f"killed {k}"
        killed += killed_at_random_moments(raw, folder, [float(moment)], "demo")
        job.prepare("demo", raw, folder, settings=Settings(masks=True), split=demo.split, workers=2)
        assert contents(folder) == contents(reference)
        shutil.rmtree(folder)
    assert killed >= 15
