"""Every dataset as a small raw tree through the user's commands: doctor, prepare, export, eval, leaderboard.

The trees (trees.py) hold real people where ../shared/data is there, else the demo's; the test below that skips says
which. Where a protocol is shipped, the data are prepared by the command in its comment.
"""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import conftest
import numpy as np
import pyarrow.parquet as pq
import pytest
import trees
from click.testing import CliRunner

from benchmark import configs
from benchmark.cli import bench
from pipelines import manifest, media
from pipelines.manifest import Clip, Rejected

# What takes no network: the others have tests of their own, and would take minutes here.
CHEAP = ("psnr/frame-mean", "ssim/gaussian", "av-correlation/peak")
OOD = "dice-talk-ood"  # has its metrics as shipped, and fewer emotions: of the people of MEAD's tree, nobody shows fear
EMOTIONS = 'emotions = ["happy", "neutral", "fear"]\n'
DATASET = {
    "dice-talk-mead": "mead",
    "eat-face-mead": "mead",
    "emotion-anchor-mead": "mead",
    "eat-face-crema-d": "crema-d",
    "dice-talk-hdtf": "hdtf",
    "voxceleb2": "voxceleb2",
    "ravdess": "ravdess",
    OOD: "portraits",
}
OWN = {
    "voxceleb2": 'reference = "first-frame"\nemotion_video = "self"\nprompt = "neutral"\n',
    "ravdess": 'reference = "neutral"\n',
}
LISTED = {
    "voxceleb2": "identity,split\nid00012,train\nid00017,test\n",
    "ravdess": "identity,split\nActor_01,test\nActor_02,train\n",
}
# Of each protocol: the pairs that can be made, and those that cannot, since the person never shows that emotion.
PAIRS = {
    "dice-talk-mead": ([f"M030_front_{t}" for t in ("neutral_1_001", "happy_2_001", "happy_2_014", "sad_3_001")], []),
    "eat-face-mead": ([f"W023_front_{t}" for t in ("neutral_1_001", "happy_2_001", "surprised_2_001")], []),
    "emotion-anchor-mead": (
        [f"M030_front_neutral_1_001--{emotion}" for emotion in ("happy", "neutral", "sad")],
        [f"M030_front_neutral_1_001--{e}" for e in ("angry", "contempt", "disgusted", "fear", "surprised")],
    ),
    "eat-face-crema-d": (["1002_IEO_NEU_XX", "1002_IEO_HAP_MD", "1002_DFA_ANG_XX"], []),
    "dice-talk-hdtf": (["WDA_BobCasey1_0", "WRA_TimScott_0", "WRA_TimScott_1"], []),
    "voxceleb2": (
        ["id00017_01dfn2spqyE_00001", "id00017_5MkXgwdrmJw_00007", f"id00017_{trees.VOX_FILM}_00001"], [],
    ),
    "ravdess": ([f"{kind}-01-01-01-01" for kind in ("01-01-01", "01-01-02", "01-01-05", "02-01-03")], []),
    OOD: (
        [f"{who}--{emotion}" for who in ("anna ü--two", "ben--one") for emotion in ("happy", "neutral")],
        [f"{who}--fear" for who in ("anna ü--two", "ben--one")],
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tree:
    """A raw tree, what was planted in it, and what the doctor said."""

    root: Path
    planted: list[trees.Planted]
    findings: list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Run:
    """What one protocol left: the prepared folder with its clips and rejections, lines of pairs.csv, the whole-set
    rows of tidy.csv by (method, metric), the printed table."""

    data: Path
    clips: dict[str, Clip]
    rejected: list[Rejected]
    exported: Path
    pairs: dict[str, dict[str, str]]
    tidy: dict[tuple[str, str], dict[str, str]]
    table: str

    def used(self, method: str, metric: str) -> tuple[int, int]:
        row = self.tidy[method, metric]
        return int(row["n_used"]), int(row["n_expected"])

    def numbers(self, clip_id: str) -> list[int]:
        """Of the film's frames that a prepared clip shows."""
        return [trees.number(frame) for frame in media.read_frames(self.data / self.clips[clip_id].video)]


@pytest.fixture(scope="module")
def filmed(one_pool: None, tmp_path_factory: pytest.TempPathFactory) -> trees.Footage:
    return trees.footage(conftest.SHARED, tmp_path_factory.mktemp("rendered"))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work space é")


@pytest.fixture(scope="module")
def tree(workspace: Path, filmed: trees.Footage) -> Callable[[str], Tree]:
    @cache
    def examined(name: str) -> Tree:
        root = workspace / f"raw {name}"
        planted = trees.BUILD[name](root, filmed)
        said = call(workspace, "doctor", "data", name, "--root", str(root), "--workers", "2", expected=1)
        findings = pq.read_table(workspace / "doctor" / f"{name}.parquet").to_pylist()
        assert f"{sum(f['severity'] == 'fatal' for f in findings)} fatal" in said
        return Tree(root, planted, findings)

    return examined


@pytest.fixture(scope="module")
def run(workspace: Path, tree: Callable[[str], Tree]) -> Callable[[str], Run]:
    @cache
    def through(protocol: str) -> Run:
        if protocol == OOD:
            through("dice-talk-mead")  # whose people show the emotions
        root = tree(DATASET[protocol]).root
        command = write_protocol(protocol, workspace)
        name = command[command.index("--name") + 1] if "--name" in command else command[1]
        if protocol == "emotion-anchor-mead":  # the same crop and size: another split makes no clip again
            through("eat-face-mead")
            shutil.copytree(workspace / "data/mead-eat-face", workspace / "data" / name)
        call(workspace, *(str(root) if word == "RAW" else word for word in command), "--workers", "2")
        call(workspace, "manifest", "check", name)
        to = workspace / "exported" / protocol
        call(workspace, "protocol", "export", protocol, "--to", str(to))
        with (to / "pairs.csv").open(encoding="utf-8", newline="") as file:
            pairs = {row["pair_id"]: row for row in csv.DictReader(file)}
        evaluate(protocol, workspace, pairs, to)
        table = call(workspace, "leaderboard", "--protocol", protocol)
        with (workspace / "tables" / protocol / "tidy.csv").open(encoding="utf-8", newline="") as file:
            tidy = {(row["method"], row["metric"]): row for row in csv.DictReader(file) if row["group"] == "all"}
        data = workspace / "data" / name
        clips = {clip.clip_id: clip for clip in manifest.read(data / "manifest.parquet")}
        return Run(data, clips, manifest.read_rejected(data / "rejected.parquet"), to, pairs, tidy, table)

    return through


def call(workspace: Path, *arguments: str, expected: int = 0) -> str:
    result = CliRunner().invoke(bench, ["--workspace", str(workspace), *arguments], catch_exceptions=False)
    assert result.exit_code == expected, result.output
    return result.output


def write_protocol(protocol: str, workspace: Path) -> list[str]:
    """The protocol made quick, in the workspace; returns the command that prepares the data, with RAW for the root."""
    shipped = configs.shipped("protocols").get(protocol)
    metrics = f"metrics = {json.dumps(CHEAP)}\n"
    if shipped is None:
        head = f'name = "{protocol}"\ntitle = "{protocol}"\ndataset = "{protocol}"\n'
        text = f'{head}{metrics}eval_crop = "common-detector"\neval_size = 96\n[pairing]\n{OWN[protocol]}'
        people = workspace / f"{protocol} split.csv"
        media.write_bytes(people, LISTED[protocol].encode())
        command = ["prepare", protocol, "--root", "RAW", "--split", "list", "--split-file", str(people)]
    else:
        text = shipped.read_text(encoding="utf-8")
        command = shlex.split(re.findall(r"^# bench (prepare .*)$", text, re.MULTILINE)[0])
        what, by = (r"emotions = \[.*?\]\n", EMOTIONS) if protocol == OOD else (r"metrics = \[.*?\]\n", metrics)
        for pattern, quick in ((what, by), (r"eval_size = \d+\n", "eval_size = 96\n")):  # SSIM takes long at 512
            text, count = re.subn(pattern, quick, text, flags=re.DOTALL)
            assert count == 1
    media.write_bytes(workspace / f"protocols/{protocol}.toml", text.encode())
    return command


def evaluate(protocol: str, workspace: Path, pairs: dict[str, dict[str, str]], exported: Path) -> None:
    def score(*how: str, expected: int = 0) -> None:
        call(workspace, "eval", *how, "--protocol", protocol, "--workers", "2", expected=expected)

    if protocol != OOD:
        score("--method", "still")
        score("--method", "ground-truth")
        return
    score("--method", "ground-truth", expected=1)  # nobody recorded it: no value at all
    # A method of somebody's, which answers with the emotion video: its mouth moves, the still portrait's does not.
    outputs = workspace / "outputs"
    outputs.mkdir()
    for pair_id, row in pairs.items():
        if row["emotion_video"]:
            shutil.copyfile(exported / row["emotion_video"], outputs / f"{pair_id}.mp4")
    score("--videos", str(outputs), "--name", "parrot")


def test_which_people_are_shown(filmed: trees.Footage) -> None:
    if filmed.origin != "../shared/data":
        pytest.skip(f"the real clips are not on this machine (../shared/data): the people are of {filmed.origin}")
    assert len(filmed.people) == len(trees.REAL)


@pytest.mark.parametrize("name", trees.BUILD)
def test_what_was_planted_is_found_and_nothing_else(
    name: str, tree: Callable[[str], Tree], run: Callable[[str], Run]
) -> None:
    planted, findings = tree(name).planted, tree(name).findings
    assert len(planted) >= 3
    told = {(f["severity"], f["check"], f["item"]): f["detail"] for f in findings}
    expected = {defect.doctor for defect in planted if defect.doctor}
    assert expected
    assert expected <= told.keys()
    for (severity, _, item), detail in told.items():  # of two files with the same bytes, both are named
        if severity == "fatal":
            assert any(where in f"{item} {detail}" for _, _, where in expected), (item, detail)
    rejected = run(next(protocol for protocol in DATASET if DATASET[protocol] == name)).rejected
    assert {(row.reason, row.source) for row in rejected} == {defect.prepare for defect in planted if defect.prepare}
    assert rejected
    assert all(row.detail and "\n" not in row.detail for row in rejected)


@pytest.mark.parametrize("protocol", DATASET)
def test_from_raw_files_to_the_table(protocol: str, run: Callable[[str], Run]) -> None:
    done, (made, impossible) = run(protocol), PAIRS[protocol]
    assert sorted(done.pairs) == sorted(made + impossible)
    for pair_id, row in done.pairs.items():
        assert (row["error"] != "") == (pair_id in impossible), row
        assert (done.exported / row["audio"]).is_file()
        assert (done.exported / row["reference"]).is_file()
        assert bool(row["target_video"]) == (protocol != OOD)
    everyone = len(done.pairs)
    assert "| Ground truth |" in done.table
    if protocol == OOD:
        assert done.used("ground-truth", "av-correlation/peak") == (0, everyone)
        assert done.used("parrot", "av-correlation/peak") == (len(made), everyone)
        return
    assert "| Still reference |" in done.table
    for metric in CHEAP[:-1]:
        values = {}
        for method in ("still", "ground-truth"):
            assert done.used(method, metric) == (len(made), everyone)
            values[method] = float(done.tidy[method, metric]["value"])
        assert values["still"] < values["ground-truth"]
    assert done.used("ground-truth", "av-correlation/peak") == (len(made), everyone)
    assert f"{len(made)}/{everyone} |" in done.table


def test_films_are_cut_right_to_one_frame(run: Callable[[str], Run]) -> None:
    hdtf, vox = run("dice-talk-hdtf"), run("voxceleb2")
    first, last = trees.VOX_FRAMES
    # At 25 frames a second every frame is the film's own; at 30 it is one that is shown within a frame of its time.
    assert hdtf.numbers("WRA_TimScott_0") == list(range(25, 50))
    assert hdtf.numbers("WRA_TimScott_1") == list(range(75, 100))
    assert vox.numbers(f"id00017_{trees.VOX_FILM}_00001") == list(range(first, last + 1))
    shown = hdtf.numbers("WRA_JeffFlake0_0")
    assert len(shown) == 25
    assert np.abs(np.array(shown) - 30 * (1 + np.arange(25) / 25)).max() <= 1


def test_hdtf_and_voxceleb2_tell_no_emotion(run: Callable[[str], Run]) -> None:
    for protocol in ("dice-talk-hdtf", "voxceleb2", OOD):
        assert {clip.emotion for clip in run(protocol).clips.values()} == {"unlabelled"}
    for protocol in ("dice-talk-hdtf", "voxceleb2"):  # methods that take a word are given this one
        assert {row["emotion"] for row in run(protocol).pairs.values()} == {"neutral"}
    assert run("voxceleb2").clips["id00017_01dfn2spqyE_00001"].extra["gender"] == "m"
    ready = {"WDA_BobCasey1_0": "BobCasey1", "RD_Radio11_0": "Radio11"}  # named by the authors, and by universome
    assert {k: run("dice-talk-hdtf").clips[k].extra["origin"] for k in ready} == ready
    assert {c.clip_id for c in run("dice-talk-hdtf").clips.values() if c.split == "train"} == {
        "RD_Radio11_0",
        "WRA_JeffFlake0_0",
    }


def test_crema_d_has_votes_and_demographics(tree: Callable[[str], Tree], run: Callable[[str], Run]) -> None:
    clips = run("eat-face-crema-d").clips
    flv = clips["1001_IEO_NEU_XX"]
    assert media.probe(tree("crema-d").root / flv.source).audio_rate == 44_100
    assert (tree("crema-d").root / flv.source).read_bytes()[:4] == b"FLV\1"
    assert abs(flv.source_fps - 29.97) < 0.05
    told = {"age": "51", "sex": "male", "race": "Caucasian", "ethnicity": "Not Hispanic"}
    votes = {"voice_vote": "neutral", "face_vote": "happy:neutral", "multimodal_vote": "happy"}
    levels = {"voice_level": "69.1", "face_level": "57:52.5", "multimodal_level": "62.29"}
    assert flv.extra == told | votes | levels
    assert clips["1002_IEO_NEU_XX"].extra == votes | levels
    columns = pq.read_schema(run("eat-face-crema-d").data / "manifest.parquet").names
    assert (told | votes | levels).keys() <= set(columns)


def test_ravdess_keeps_calm_and_finds_the_sound_beside(run: Callable[[str], Run]) -> None:
    done = run("ravdess")
    assert done.clips["01-01-02-01-01-01-01"].emotion == "calm"
    assert done.pairs["01-01-02-01-01-01-01"]["emotion"] == "calm"
    beside = done.clips["02-01-03-01-01-01-01"]
    wave = media.read_audio(done.data / beside.audio)
    assert len(wave) == 640 * beside.num_frames
    assert wave.std() > 1e-3


def test_mead_prepared_for_three_protocols_is_one_tree(run: Callable[[str], Run]) -> None:
    for protocol, crop, size, tested in (
        ("dice-talk-mead", "portrait", 512, "M030"),
        ("eat-face-mead", "square", 256, "W023"),
        ("emotion-anchor-mead", "square", 256, "M030"),
    ):
        done = run(protocol)
        assert {(c.crop, c.width, c.height) for c in done.clips.values()} == {(crop, size, size)}
        assert {c.identity for c in done.clips.values() if c.split == "test"} == {tested}
    sad = run("dice-talk-mead").clips["M030_front_sad_3_001"]  # 30 frames a second, its sound in the audio folder
    assert abs(sad.source_fps - 30) < 0.01
    assert abs(sad.num_frames - trees.FRAMES) <= 2
