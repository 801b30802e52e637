"""Every method of other people against a stand-in of its checkout (standin_checkout.py): the contract alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from samples import tone
from skimage import data
from standin_checkout import ORIGINALS, checkout
from tiny import clip

from benchmark import checkouts, configs, generate
from benchmark.checkouts import Checkout
from benchmark.errors import BenchError
from benchmark.generate import Method
from pipelines import faces, media
from reference_models import external
from reference_models.base import SAMPLE_RATE, Footage, GenerationError, Request
from reference_models.external import Call, Place
from reference_models.process_group import Guard

FRAMES = 15
SECONDS = FRAMES / 25
NAMES = sorted(name for name, path in configs.shipped("methods").items() if "[call]" in path.read_text())
FACED = [name for name in NAMES if 'framing = "face"' in configs.shipped("methods")[name].read_text()]
PORTRAIT = np.ascontiguousarray(data.astronaut()[0:256, 96:352])
HOSTILE = 'it\'s $(touch x) & "so"; #1\n-rf'


def call(name: str) -> Call:
    found = generate.load_method(name, Path("nowhere")).call
    assert found is not None
    return found


def request(tmp_path: Path, emotion: str = "happy", portrait: np.ndarray = PORTRAIT) -> Request:
    video = tmp_path / "emotion.mp4"
    if not video.exists():
        media.write_video(video, [PORTRAIT] * 3)
    row = clip("shows")
    shown = Footage(
        row.clip_id, "tiny", "a", emotion, 1, None, "source", "key", 3, video,
        frames=lambda: media.read_frames(video), points=points, audio=lambda: np.zeros(1, np.float32),
    )  # fmt: skip
    return Request(
        reference=portrait,
        audio=tone(SECONDS, SAMPLE_RATE),
        sample_rate=SAMPLE_RATE,
        emotion=emotion,
        intensity=None,
        num_frames=FRAMES,
        fps=25,
        seed=2**31 - 1,
        target_frames=lambda: iter(()),
        points=points,
        emotion_video=shown,
        name="a_happy_1",
    )


def points() -> np.ndarray:
    mesh = faces.FaceMesh()
    try:
        return mesh(PORTRAIT)[0]
    finally:
        mesh.close()


def inputs(tmp_path: Path, made: Call) -> Path:
    """What a user would have prepared."""
    folder = tmp_path / "inputs"
    for name, kind in made.stage.items():
        if kind == "prepared":
            path = folder / Path(name).stem / f"a_happy_1{Path(name).suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("prepared")
    return folder


def standin(tmp_path: Path, name: str, pitfall: str = "", **changes: object) -> Checkout:
    made = replace(call(name), programs=(), **changes)  # the stand-ins need no FFmpeg
    face = None
    if name in FACED:
        size = ORIGINALS[name].size
        matrix = np.array([[0.8 * size[0] / 256, 0, 0.15 * size[0]], [0, 0.8 * size[1] / 256, 0.05 * size[1]]])
        face = checkouts.crop.warp(PORTRAIT, matrix, size[0])
    repo = checkout(tmp_path / HOSTILE / name, name, made.requires, SECONDS, pitfall, face)
    place = Place(repo, sys.executable)
    assert checkouts.missing(made, place) == []
    return Checkout(name, made, place, inputs(tmp_path, made), "cpu")


def frames(made: Checkout, asked: Request) -> np.ndarray:
    return np.concatenate(list(made.generate(asked)))


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_there_are_fifteen_and_each_has_a_stand_in() -> None:
    assert set(NAMES) == set(ORIGINALS)
    assert len(NAMES) == 15
    for name in NAMES:
        method = generate.load_method(name, Path("nowhere"))
        assert method.call is not None
        assert len(method.call.commit) == 40
        assert method.driven_by
        assert method.conditioning == "one-shot"


@pytest.mark.parametrize("name", NAMES)
def test_the_contract(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    monkeypatch.setenv("VIRTUAL_ENV", "/ours")
    made = standin(tmp_path, name)
    before = tree(made._at.repo)
    shown = frames(made, request(tmp_path))
    assert shown.shape == (FRAMES, 256, 256, 3)
    assert made.record["exit_code"] == 0
    assert made.record["held"] == (5 if name == "ip-lap" else 0)
    assert 1 <= made.record["ram_mib"] < 500
    assert tree(made._at.repo) == before, "a checkout is never written to"
    lines = dict(line.split(" ", 1) for line in made.log.splitlines() if " " in line)
    assert json.loads(lines["environment"]) == {"PYTHONPATH": None, "VIRTUAL_ENV": None, "CUDA_VISIBLE_DEVICES": ""}
    if "animates" in lines:
        assert "their own" not in lines["animates"]
        assert lines["animates"].count("'") == 2, "one input alone"
    if name in FACED:  # the face is where the portrait has it
        inner = (slice(40, 216), slice(40, 216))
        assert np.abs(shown[0][inner].astype(float) - PORTRAIT[inner]).mean() < 8
        return
    level = shown.astype(float).mean((1, 2, 3))
    assert np.abs(shown - level[:, None, None, None]).max() < 12, "the part with the face alone, nothing beside it"
    until = FRAMES - made.record["held"]
    wanted = 80 + 100 * (np.arange(until) / until)
    assert np.abs(level[:until] - wanted).max() < 9, "at 25 frames a second"


@pytest.mark.parametrize(
    ("pitfall", "message", "code"),
    [
        ("no file", "ended with exit code 0, but wrote no bench/out/video.mp4; its last words: done", 0),
        ("half a file", "not a media file, or truncated", 0),
        ("crash", "ended with exit code 1; its last words: RuntimeError: CUDA error: no kernel image", 1),
        ("short", r"wrote 0.\d+ s of video for a sound of 0.60 s", 0),
        ("long", "wrote 4.60 s for a sound of 0.60 s", 0),
        ("hang", "was ended, since it ran out of time; its last words: child", None),
    ],
)
def test_pitfalls_are_reasons(tmp_path: Path, pitfall: str, message: str, code: int | None) -> None:
    made = standin(tmp_path, "sonic", pitfall, **({"timeout": 2} if pitfall == "hang" else {}))
    with pytest.raises((GenerationError, media.MediaError), match=message):
        frames(made, request(tmp_path))
    assert made.record["exit_code"] == code
    if pitfall == "hang":  # with its children, and although a whole file lay there
        child = int(made.log.rsplit("child ", 1)[1].split()[0])
        assert not alive(child)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_two_files_are_not_guessed_at(tmp_path: Path) -> None:
    made = standin(tmp_path, "sadtalker", "two files")
    with pytest.raises(GenerationError, match=r"wrote 2 files that bench/out/.*expected one"):
        frames(made, request(tmp_path))


def test_a_method_that_does_not_know_an_emotion_says_so(tmp_path: Path) -> None:
    made = standin(tmp_path, "emogen")
    with pytest.raises(GenerationError, match="no word for the emotion 'contempt'; it knows angry, disgusted"):
        frames(made, request(tmp_path, "contempt"))
    assert frames(made, request(tmp_path, "sad")).shape[0] == FRAMES
    assert '"emotion": "SAD"' in made.log


def test_what_the_user_has_to_prepare_is_named(tmp_path: Path) -> None:
    made = standin(tmp_path, "styletalk")
    (tmp_path / "inputs" / "style" / "a_happy_1.mat").unlink()
    with pytest.raises(GenerationError, match=r"WORKSPACE/inputs/styletalk/style/a_happy_1.mat is missing"):
        frames(made, request(tmp_path))
    with pytest.raises(GenerationError, match="needs an emotion video, and there is none of this person's happy"):
        frames(standin(tmp_path, "eamm"), replace(request(tmp_path), emotion_video=None))


def test_a_video_of_another_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GenerationError, match="wrote 25 frames a second; expected 30"):
        frames(standin(tmp_path, "sonic", fps=30.0), request(tmp_path))
    with pytest.raises(GenerationError, match="wrote pictures of 512x512; expected 768x256"):
        frames(standin(tmp_path, "sonic", size=(768, 256)), request(tmp_path))
    with pytest.raises(GenerationError, match=r"too small for the part \[300, 0, 300, 512\]"):
        frames(standin(tmp_path, "sonic", crop=(300, 0, 300, 512)), request(tmp_path))
    with pytest.raises(GenerationError, match="wrote pictures of 256x512 for a portrait of 256x256"):
        frames(standin(tmp_path, "sonic", crop=(0, 0, 256, 512)), request(tmp_path))
    with pytest.raises(GenerationError, match="first frame without a face"):
        frames(standin(tmp_path, "sonic", framing="face"), request(tmp_path))


def test_a_method_ends_with_the_worker_that_runs_it(tmp_path: Path) -> None:
    made = standin(tmp_path, "sonic", "hang")
    code = (
        "import sys; from pathlib import Path; from reference_models import external\n"
        "from reference_models.external import Call, Place\n"
        "from reference_models.process_group import Guard\n"
        "repo, copy = map(Path, sys.argv[1:])\n"
        "c = Call(('{python}', 'demo.py', 'a.png', 'a.wav', 'bench/out/v.mp4'), 'bench/out/v.mp4', {})\n"
        "with Guard(copy) as guard:\n"
        "    external.working_copy(repo, copy, ())\n"
        "    external.run(c, Place(repo, sys.executable), copy, {}, '', guard)\n"
    )
    repo, copy = made._at.repo, tmp_path / "copy"
    script = repo / "demo.py"
    script.write_text("import os, time\nprint('pid', os.getpid(), flush=True)\ntime.sleep(600)\n")
    worker = subprocess.Popen([sys.executable, "-c", code, str(repo), str(copy)])
    log = copy / "bench" / "log.txt"
    wait_for(lambda: log.exists() and "pid " in log.read_text())
    pid = int(log.read_text().split()[1])
    time.sleep(0.3)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    wait_for(lambda: not alive(pid) and not copy.exists())


def test_a_working_copy_goes_with_the_worker_also_between_commands(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from reference_models.process_group import Guard\n"
        "with Guard(Path(sys.argv[1])): print('here', flush=True); time.sleep(600)\n"
    )
    (tmp_path / "copy").mkdir()
    worker = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "copy")], stdout=subprocess.PIPE)
    assert worker.stdout is not None
    assert worker.stdout.readline() == b"here\n"
    worker.kill()
    worker.communicate()
    wait_for(lambda: not (tmp_path / "copy").exists())


def test_memory_is_that_of_the_command_before_too(tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "large.py").write_text("import time; x = bytearray(80 << 20); time.sleep(0.3)")
    (tmp_path / "repo" / "write.py").write_text("open('bench/out/v.mp4', 'w')")
    made = Call(("{python}", "write.py"), "bench/out/*.mp4", {}, before=("{python}", "large.py"))
    copy = tmp_path / "copy"
    with Guard(copy) as guard:
        external.working_copy(tmp_path / "repo", copy, ())
        ran = external.run(made, Place(tmp_path / "repo", sys.executable), copy, {}, "", guard)
    assert (ran.error, ran.exit_code) == (None, 0)
    assert ran.ram_mib is not None
    assert ran.ram_mib >= 80
    assert not copy.exists()


@pytest.mark.parametrize(
    ("command", "repository", "scripts"),
    [
        ("{python} run.py --code other.py", "", ["run.py"]),
        ("{python} -u in/run.py", "", ["in/run.py"]),
        ("{python} -m scripts.run", "somebody/original", ["scripts/run.py"]),
        ("{python} -m installed", "", []),
        ("{python}", "", []),
        ("./run.sh a.py", "", []),
    ],
)
def test_the_scripts_of_a_command(command: str, repository: str, scripts: list[str]) -> None:
    assert checkouts.entries(Call(tuple(command.split()), "x", {}, repository)) == scripts


def wait_for(happens: object, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not happens():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_working_copy_is_links_in_folders(tmp_path: Path) -> None:
    repo, copy = tmp_path / "repo", tmp_path / "copy"
    for name in ("run.py", "in/own.wav", "in/kept.txt", "out/old.mp4", ".git/config", "env/pyvenv.cfg", "env/lib/x.py"):
        (repo / name).parent.mkdir(parents=True, exist_ok=True)
        (repo / name).write_text(name)
    (repo / "weights").symlink_to(tmp_path / "elsewhere")
    external.working_copy(repo, copy, ("in/*.wav", "out/"))
    kinds = {p.relative_to(copy).as_posix(): p.is_symlink() for p in copy.rglob("*")}
    assert kinds == {
        "run.py": True, "in": False, "in/kept.txt": True, "out": False, "env": True, "weights": True, "bench": False,
        "bench/out": False,
    }  # fmt: skip


def test_nothing_is_written_through_a_link_of_the_checkout(tmp_path: Path) -> None:
    made = standin(tmp_path, "hallo")
    elsewhere = tmp_path / "elsewhere"
    (made._at.repo / "configs").rename(elsewhere)
    (made._at.repo / "configs").symlink_to(elsewhere)
    before = tree(elsewhere)
    with pytest.raises(GenerationError, match="would be written through a link of the checkout"):
        frames(made, request(tmp_path))
    assert tree(elsewhere) == before
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "in").symlink_to(elsewhere)
    for name in ("in/a.png", "in/out/a.png"):
        with pytest.raises(GenerationError, match=f"{name} would be written through"):
            external.ours(tmp_path / "copy", name)
    assert tree(elsewhere) == before


@given(st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=("C", "Z")), max_size=9))
def test_keys_of_a_yaml_file_are_replaced_and_nothing_else(name: str) -> None:
    kept = {"a": 1, "list": [{"x": 1}, 2], "nested": {"test_cases": [1]}, "z": "it's: # so"}
    text = "# head\n" + yaml.safe_dump(kept | {"test_cases": {"./a.png": ["./a.wav"]}, "save_path": "./x"})
    settings = {"save_path": name, "test_cases": {name: [name, "b: c"]}, "added": [name]}
    assert yaml.safe_load(external.set_keys(text, settings)) == kept | settings


def test_environments_are_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin"]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    env = external.environment("/envs/theirs/bin/python", None)
    assert env["PATH"] == os.pathsep.join(["/envs/theirs/bin", "/usr/bin"])
    assert "OMP_NUM_THREADS" not in env
    assert env["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert checkouts._visible("cuda:1") == "3"
    assert checkouts._visible("cpu") == ""


def test_memory_of_the_gpu_is_what_is_used_beyond_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi = tmp_path / "nvidia-smi"
    count = tmp_path / "count"
    smi.write_text(f'#!/bin/sh\necho "$@" >> {count}\necho $((1000 + 500 * $(wc -l < {count})))\n')
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    made = standin(tmp_path, "sonic")
    made._gpu = None
    frames(made, request(tmp_path))
    assert made.record["gpu_mib"] >= 500
    assert "--id=5" in count.read_text()
    assert '"CUDA_VISIBLE_DEVICES": "5"' in made.log


def test_the_fingerprint_is_of_code_alone(tmp_path: Path) -> None:
    repo = checkout(tmp_path, "sonic", ("checkpoints",), SECONDS)
    first = external.fingerprint(repo)
    (repo / "checkpoints").write_text("other weights")
    assert external.fingerprint(repo) == first
    (repo / "demo.py").write_text("other code")
    assert external.fingerprint(repo) != first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('stage = {"../x.png" = "portrait"}', "expected a path inside the checkout"),
        ('stage = {"x.gif" = "portrait"}', "is a portrait; expected .png or .jpg"),
        ('stage = {"x.png" = "image"}', "it takes 'portrait', 'speech'"),
        ("stage = {}\ncrop = [1, 2]", "expected left, top, width, height"),
        ("stage = {}\nemotion = 1", "unknown key 'emotion'; did you mean 'emotions'"),
        ("stage = {}\ntimeout = 0", "is no time"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, change: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'name = "mine"\ntitle = "T"\nlicence = "x"\n[call]\ncommand = ["x"]\noutput = "x"\n{change}\n')
    with pytest.raises(BenchError, match=message):
        generate.load_method(str(path), tmp_path)


@pytest.mark.parametrize("output", ["/x.mp4", "../*.mp4"])
def test_an_output_outside_is_refused(output: str) -> None:
    with pytest.raises(BenchError, match="expected a path or glob inside the checkout"):
        checkouts.validate(Call(("x",), output, {}), "mine.toml")


def test_a_method_is_a_class_or_a_call(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\ntitle = "T"\nlicence = "x"\n')
    with pytest.raises(BenchError, match=r"either generator = 'module:Class' or a table \[call\]"):
        generate.load_method(str(path), tmp_path)


def test_where_a_checkout_lies_enters_no_digest() -> None:
    one = Method("m", "M", call=Call(("x",), "y", {}, repo="/a", timeout=3))
    assert checkouts.contents({"command": 1, "repo": "/a", "timeout": 3}) == {"command": 1}
    assert one.call is not None
