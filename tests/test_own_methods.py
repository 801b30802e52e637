"""A method of one's own is one file; checkouts are checked; runs are killed, doubled, and spread over GPUs."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from standin_checkout import checkout, pictures
from tiny import clip, dataset, people, protocol_file, run_here

from benchmark import checkouts, cli, engine, generate, protocol, requests, trial
from benchmark.errors import BenchError
from benchmark.protocol import Pair, Pairing, Protocol
from pipelines import media

ASKED = Protocol("small", "A small test", "tiny", metrics=(), pairing=Pairing(reference="first-frame"))
FRAMES = 12
HOSTILE = 'it\'s $(touch x) & "so"; #1'
PROTOCOL = 'name = "small"\ntitle = "T"\ndataset = "tiny"\nmetrics = []\n[pairing]\nreference = "first-frame"\n'
MINE = """
name = "mine"
title = "My method"
licence = "mine"

[call]
repo = "code"
command = ["{python}", "run.py", "--face", "bench/face.png", "--speech", "bench/speech.wav", "--mood", "{emotion}"]
output = "bench/out/*.mp4"

[call.emotions]
neutral = "calm"
happy = "glad"

[call.stage]
"bench/face.png" = "portrait"
"bench/speech.wav" = "speech"
"""
RUN = """
import os, shutil, sys, time
from pathlib import Path
home = Path(__file__).resolve().parent
mood = sys.argv[sys.argv.index("--mood") + 1]
with open(home / "calls.txt", "a") as file: file.write(mood + "\\n")
print("gpu", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
if (home / "fails.txt").exists() and mood == "glad": sys.exit("no face found")
while (home / "waits.txt").exists() and mood == "calm": time.sleep(0.05)
shutil.copyfile(home / "canned.mp4", "bench/out/" + mood + ".mp4")
"""


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "run", run_here)
    generate._generator.cache_clear()


def mine(workspace: Path, text: str = MINE) -> Path:
    """Somebody's own method: one file, and their code."""
    code = workspace / "methods" / "code"
    code.mkdir(parents=True)
    (code / "run.py").write_text(RUN)
    media.write_video(code / "canned.mp4", pictures((64, 48), FRAMES, (0, 0, 64, 48)))
    path = workspace / "methods" / "mine.toml"
    path.write_text(text)
    return path


def bench(workspace: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli.bench, ["--workspace", str(workspace), *arguments])


def test_one_file_with_a_command_is_a_method(tmp_path: Path, here: None) -> None:
    workspace = tmp_path / HOSTILE
    dataset(workspace, people("a"), frames=FRAMES)
    protocol_file(workspace, PROTOCOL)
    mine(workspace)
    done = bench(workspace, "generate", "--method", "mine", "--protocol", "small")
    assert done.exit_code == 0, done.output
    assert "3 of 3 videos" in done.output
    record = json.loads((workspace / "generated" / "mine" / "small" / "a_happy_1.json").read_text())
    assert (record["exit_code"], record["held"], record["error"]) == (0, 0, None)
    assert record["ram_mib"] < 200  # of the command, not of this process
    video = workspace / "generated" / "mine" / "small" / "a_happy_1.mp4"
    assert video.with_suffix(".log").read_text().startswith("gpu ")
    assert len(media.read_audio(video)) >= FRAMES * 640
    assert next(media.read_frames(video)).shape == (48, 64, 3)
    before = (workspace / "methods" / "code" / "calls.txt").read_text()
    assert bench(workspace, "generate", "--method", "mine", "--protocol", "small").exit_code == 0
    assert (workspace / "methods" / "code" / "calls.txt").read_text() == before, "nothing is made twice"
    (workspace / "methods" / "code" / "run.py").write_text(RUN + "\n# better\n")
    bench(workspace, "generate", "--method", "mine", "--protocol", "small")
    assert (workspace / "methods" / "code" / "calls.txt").read_text() == before * 2, "other code, other videos"
    assert not (Path.cwd() / "x").exists()


def test_one_file_with_a_class_is_a_method(tmp_path: Path, here: None) -> None:
    dataset(tmp_path, people("a"), frames=FRAMES)
    methods = tmp_path / "methods"
    methods.mkdir()
    (methods / "held.py").write_text(
        "import numpy as np\n\n\nclass Held:\n    def __init__(self, shade=0):\n        self.shade = shade\n\n"
        "    def generate(self, request):\n        for _ in range(request.num_frames):\n"
        "            yield np.full_like(request.reference[None], self.shade)\n"
    )
    (methods / "held.toml").write_text(
        'name = "held"\ntitle = "Held"\nlicence = "mine"\ngenerator = "held.py:Held"\n\n[options]\nshade = 90\n'
    )
    method = generate.load_method("held", tmp_path)
    made = generate.generate(method, ASKED, tmp_path)
    assert all(one.error is None for one in made.values())
    frame = next(media.read_frames(generate.folder("held", ASKED, tmp_path) / "a_happy_1.mp4"))
    assert abs(frame.mean() - 90) < 3
    assert str(tmp_path) not in json.dumps(generate.described(method))
    (methods / "raises.py").write_text(
        "class Held:\n    def __init__(self, shade):\n        raise RuntimeError('no GPU')\n"
    )
    (methods / "typo.py").write_text("clas Held:\n")
    for file, message in (("none", "ImportError: .*no such file"), ("raises", "no GPU"), ("typo", "typo.py, line 1")):
        with pytest.raises(BenchError, match=message):
            generate.generate(replace(method, generator=str(methods / f"{file}.py:Held")), ASKED, tmp_path)


def test_the_examples_of_the_docs_are_methods(tmp_path: Path, here: None) -> None:
    text = (Path(__file__).parents[1] / "docs" / "methods.md").read_text()
    blocks = [textwrap.dedent(block) for block in re.findall(r"(?:^    .*\n|^\n)+", text, re.MULTILINE)]
    for name, begins in (
        ("wave.toml", 'name = "wave"'),
        ("blink.toml", 'name = "blink"'),
        ("blink.py", "import numpy"),
    ):
        (example,) = (block.strip() for block in blocks if block.strip().startswith(begins))
        (tmp_path / name).write_text(example + "\n")
    call = generate.load_method(str(tmp_path / "wave.toml"), tmp_path).call
    assert call is not None
    assert (call.repo, checkouts.entries(call)) == (str(tmp_path / "wave-code"), ["run.py"])
    dataset(tmp_path, people("a"), frames=FRAMES)
    made = generate.generate(generate.load_method(str(tmp_path / "blink.toml"), tmp_path), ASKED, tmp_path)
    assert [one.error for one in made.values()] == [None] * 3


def test_a_method_that_fails_on_some_clips_has_reasons_and_the_rest(tmp_path: Path, here: None) -> None:
    dataset(tmp_path, [*people("a"), clip("a_contempt_1", emotion="contempt")], frames=FRAMES)
    path = mine(tmp_path)
    (path.parent / "code" / "fails.txt").touch()
    made = generate.generate(generate.load_method(str(path), tmp_path), ASKED, tmp_path)
    assert {i: m.error for i, m in made.items()} == {
        "a_contempt_1": "has no word for the emotion 'contempt'; it knows neutral, happy",
        "a_happy_1": "ended with exit code 1; its last words: no face found",
        "a_happy_2": "ended with exit code 1; its last words: no face found",
        "a_neutral_1": None,
    }
    assert made["a_happy_1"].exit_code == 1
    assert [p.name for p in generate.folder("mine", ASKED, tmp_path).glob("*.mp4")] == ["a_neutral_1.mp4"]


def test_what_was_prepared_anew_makes_the_video_anew(tmp_path: Path, here: None) -> None:
    dataset(tmp_path, people("a"), frames=FRAMES)
    path = mine(tmp_path, MINE + '"bench/pose.npy" = "prepared"\n')
    method = generate.load_method(str(path), tmp_path)
    poses = checkouts.prepared("mine", tmp_path) / "pose"
    poses.mkdir(parents=True)
    (poses / "a_happy_1.npy").write_text("one")
    made = generate.generate(method, ASKED, tmp_path)
    assert made["a_happy_1"].error is None
    assert str(made["a_happy_2"].error).startswith("WORKSPACE/inputs/mine/pose/a_happy_2.npy is missing")
    calls = path.parent / "code" / "calls.txt"
    for text, runs in (("one", 1), ("another", 2)):
        (poses / "a_happy_1.npy").write_text(text)
        generate.generate(method, ASKED, tmp_path)
        assert len(calls.read_text().split()) == runs


def test_check_tells_a_new_user_the_steps(tmp_path: Path) -> None:
    protocol_file(tmp_path, PROTOCOL)
    done = bench(tmp_path, "methods", "check", "emogen", "--protocol", "small")
    assert done.exit_code == 1
    for step in (
        "1. git clone https://github.com/sahilg06/EmoGen",
        "checkpoints/emogen.pth, face_detection/detection/sfd/s3fd.pth",
        "install ffmpeg",
        "comment out the two lines",
        "bench methods check emogen --repo FOLDER --python ITS/bin/python",
    ):
        assert step in done.output
    (tmp_path / "empty").mkdir()
    found = bench(tmp_path, "methods", "check", "sonic", "--repo", str(tmp_path / "empty"), "--python", "/no/python")
    assert found.exit_code == 1
    assert "/no/python: no such interpreter" in found.output
    assert "demo.py is not in" in found.output
    assert "checkpoints is not in" in found.output
    assert not (tmp_path / "checkouts").exists(), "nothing is remembered that does not work"
    asked = bench(tmp_path, "generate", "--method", "sonic", "--protocol", "small")
    assert "sonic needs a checkout of jixiaozhong/Sonic; `bench methods check sonic` says the steps" in asked.output
    assert "wanted" in next(line for line in bench(tmp_path, "methods", "list").output.splitlines() if "sonic" in line)
    prepared = bench(tmp_path, "methods", "check", "styletalk", "--protocol", "small").output
    assert f"{tmp_path}/inputs/styletalk/phonemes/<pair_id>.json" in prepared


def test_check_of_ones_own_tells_what_in_its_file_is_wrong(tmp_path: Path) -> None:
    protocol_file(tmp_path, PROTOCOL)
    path = mine(tmp_path, MINE.replace('repo = "code"', 'repo = "code"\npython = "code/env/bin/python"'))
    done = bench(tmp_path, "methods", "check", str(path), "--protocol", "small")
    assert f"{tmp_path}/methods/code/env/bin/python: no such interpreter" in done.output
    assert f"1. put call.repo and call.python of its file right, then: bench methods check {path}" in done.output
    (tmp_path / "methods" / "code" / "env" / "bin").mkdir(parents=True)
    link = tmp_path / "methods" / "code" / "env" / "bin" / "python"
    link.symlink_to(sys.executable)
    call = generate.load_method(str(path), tmp_path).call
    assert call is not None
    assert call.python == str(link), "an environment knows itself by the place of the link"
    with pytest.raises(BenchError, match="its file says where it lies"):
        trial.check(str(path), tmp_path, "python3", ASKED, tmp_path)


def test_check_proves_a_checkout_on_one_clip_and_remembers_it(
    tmp_path: Path, here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkouts.shutil, "which", lambda name, path=None: name)  # no FFmpeg is needed here
    dataset(tmp_path, [clip("b_1", size := "b", emotion="happy")], frames=FRAMES)
    assert size
    protocol_file(tmp_path, PROTOCOL)
    repo = checkout(tmp_path / "Sonic", "sonic", ("checkpoints",), FRAMES / 25)
    arguments = ("methods", "check", "sonic", "--protocol", "small", "--repo", str(repo), "--python", sys.executable)
    done = bench(tmp_path, *arguments)
    assert done.exit_code == 1, "64x48 portrait, 512x512 video"
    assert "b_1 failed after" in done.output
    assert "wrote pictures of 512x512 for a portrait of 64x48" in done.output
    assert "b_1.log" in done.output
    media.write_video(repo / "canned.mp4", pictures((128, 96), FRAMES - 2, (0, 0, 128, 96)))
    done = bench(tmp_path, *arguments[:5])  # remembered
    assert done.exit_code == 0, done.output
    assert "of no commit that git knows" in done.output
    assert "64x48, 0.48 s at 25 frames a second" in done.output
    assert "the last frame held 2 times" in done.output
    assert done.output.endswith("ready\n")
    assert "known" in next(line for line in bench(tmp_path, "methods", "list").output.splitlines() if "sonic" in line)
    with pytest.raises(BenchError, match="--repo is for methods with a table"):
        trial.check("still", repo, "python3", ASKED, tmp_path)


def started(workspace: Path, *arguments: str, **env: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmark.cli", "--workspace", str(workspace), "generate", "--protocol", "small"]
    return subprocess.Popen(
        [*command, "--method", "mine", *arguments],
        env=os.environ | env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[1],
    )


def wait_for(happens: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.05)


def blocked(lock: Path) -> bool:
    """Whether somebody waits for a lock of the file."""
    number = f":{lock.stat().st_ino} "
    return any("->" in line and number in line for line in Path("/proc/locks").read_text().splitlines())


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="this system does not tell who waits for a lock")
def test_two_runs_at_once_and_a_kill_lose_and_spoil_nothing(tmp_path: Path, here: None) -> None:
    """A first run has made two videos and is at the third, for which a second run waits; the first is killed there,
    and the second goes on."""
    dataset(tmp_path, people("a"), frames=FRAMES)
    protocol_file(tmp_path, PROTOCOL)
    code = mine(tmp_path).parent / "code"
    (code / "waits.txt").touch()
    (tmp_path / "tmp").mkdir()
    to, calls = tmp_path / "generated" / "mine" / "small", code / "calls.txt"
    first = started(tmp_path, "--workers", "1", TMPDIR=str(tmp_path / "tmp"))
    wait_for(lambda: calls.exists() and "calm" in calls.read_text())
    second = started(tmp_path, "--workers", "1", TMPDIR=str(tmp_path / "tmp"))
    wait_for(lambda: blocked(to.with_name(".small.lock")))
    whole = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in to.glob("a_happy_*")}
    assert len(whole) == 6
    first.send_signal(signal.SIGKILL)
    first.wait()
    wait_for(lambda: calls.read_text().count("calm") == 2)  # the lock fell with the first run
    assert not (to / "a_neutral_1.json").exists()
    (code / "waits.txt").unlink()
    assert second.wait(120) == 0
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in to.glob("a_happy_*")} == whole
    assert calls.read_text().split() == ["glad", "glad", "calm", "calm"]
    assert list((tmp_path / "tmp").iterdir()) == [], "nothing is left of the killed run's work"
    made = generate.generate(generate.load_method("mine", tmp_path), protocol.load("small", tmp_path), tmp_path)
    assert len(calls.read_text().split()) == 4, "there was nothing left to do"
    for name, one in made.items():
        assert one.sha256 == media.file_sha256(to / f"{name}.mp4")


def test_a_disk_without_locks_will_do(tmp_path: Path, here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset(tmp_path, people("a"), frames=FRAMES)
    refused = [errno.ENOLCK]

    def lockf(*arguments: object) -> None:
        raise OSError(refused[0], "refused")

    monkeypatch.setattr(generate.fcntl, "lockf", lockf)
    still = generate.load_method("still", tmp_path)
    assert all(one.error is None for one in generate.generate(still, ASKED, tmp_path).values())
    refused[0] = errno.EIO
    with pytest.raises(OSError, match="refused"):
        generate.generate(still, ASKED, tmp_path, fresh=True)


def test_each_worker_has_one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset(tmp_path, people("a", "b"), frames=FRAMES)
    path = mine(tmp_path)
    (path.parent / "code" / "run.py").write_text(RUN.replace("shutil.copy", "time.sleep(0.5)\nshutil.copy"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-7")
    method = generate.load_method(str(path), tmp_path)
    made = generate.generate(method, ASKED, tmp_path, workers=8, device="cuda")
    assert all(one.error is None for one in made.values())
    logs = [p.read_text().split()[1] for p in generate.folder("mine", ASKED, tmp_path).glob("*.log")]
    assert set(logs) == {"4", "GPU-7"}
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,GPU-7"


def test_cross_identity_shows_a_stranger_with_this_ones_sound(tmp_path: Path, here: None) -> None:
    clips = {row.clip_id: row for row in dataset(tmp_path, people("a", "b"), frames=FRAMES)}
    method = generate.load_method("cross-identity", tmp_path)
    made = generate.generate(method, ASKED, tmp_path)
    assert all(one.error is None for one in made.values())
    others = generate.strangers(protocol.pairs(clips.values(), ASKED), ASKED.seed)
    data = tmp_path / "data" / "tiny"
    for name, row in clips.items():
        video = generate.folder(method.name, ASKED, tmp_path) / f"{name}.mp4"
        other = others[name].target
        assert (other.identity != row.identity, other.emotion) == (True, row.emotion)
        shown = np.stack(list(media.read_frames(video))).astype(float)
        real = np.stack(list(media.read_frames(data / other.video))).astype(float)
        assert np.abs(shown - real).mean() < 6
        heard, said = media.read_audio(video), media.read_audio(data / row.audio)
        assert np.corrcoef(heard[: len(said)], said)[0, 1] > 0.95


def test_a_shorter_stranger_is_shown_again(tmp_path: Path, here: None) -> None:
    rows = [clip("a_1", "a", num_frames=12), clip("b_1", "b")]
    dataset(tmp_path, rows, frames=FRAMES)
    path = tmp_path / "data" / "tiny" / "b_1.mp4"
    assert len(list(zip(range(30), requests._again(path, 25), strict=False))) == 30


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy")), min_size=1, max_size=12), st.integers(0, 3))
def test_a_stranger_is_somebody_else(people: list[tuple[str, str]], seed: int) -> None:
    rows = [clip(f"c{i:02}", who, emotion=emotion) for i, (who, emotion) in enumerate(people)]
    members = [Pair(row.clip_id, row, row, None, row.emotion, row.emotion) for row in rows]
    if len({who for who, _ in people}) < 2:
        with pytest.raises(BenchError, match="at least two people"):
            generate.strangers(members, seed)
        return
    found = generate.strangers(members, seed)
    assert found == generate.strangers(members[::-1], seed)
    for pair in members:
        other = found[pair.pair_id]
        assert other.target.identity != pair.target.identity
        possible = any(o.emotion == pair.emotion and o.target.identity != pair.target.identity for o in members)
        assert (other.emotion == pair.emotion) == possible
