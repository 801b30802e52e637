"""Every dataset as a small raw tree through the user's commands: doctor, prepare, export, eval, leaderboard.

The trees (trees.py) hold real people where ../shared/data is there, else the demo's; the test below that skips says
which. Videos are shown by the shipped protocols, prepared as the command in each protocol's comment says.
"""

from __future__ import annotations

import csv
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import conftest
import pyarrow.parquet as pq
import pytest
import trees
from click.testing import CliRunner

from benchmark import configs, engine
from benchmark.cli import bench
from pipelines import manifest, media
from pipelines.manifest import Clip, Rejected

CHEAP = 'metrics = ["psnr/frame-mean", "ssim/gaussian", "av-correlation/peak", "av-correlation/zero-lag"]\n'
SPOKEN = ("av-correlation/peak", "av-correlation/zero-lag")
OWN = """
name = "{name}"
title = "{name} as labelled"
dataset = "{name}"
eval_crop = "common-detector"
{metrics}
[pairing]
reference = "{reference}"
prompt = "{prompt}"
"""


@dataclass(frozen=True, slots=True)
class Tree:
    """A raw tree, what was planted in it, and what the doctor said."""

    root: Path
    planted: list[trees.Planted]
    findings: list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Run:
    """What one protocol left: clips and rejections of prepare, lines of pairs.csv, tidy.csv, the printed table."""

    clips: dict[str, Clip]
    rejected: list[Rejected]
    pairs: dict[str, dict[str, str]]
    tidy: dict[tuple[str, str, str], dict[str, str]]
    table: str
    exported: Path

    def used(self, method: str, metric: str, group: str = "all") -> tuple[int, int]:
        row = self.tidy[method, metric, group]
        return int(row["n_used"]), int(row["n_expected"])


@pytest.fixture(scope="module", autouse=True)
def one_pool() -> Iterator[None]:
    """Commands share their worker processes: each would import everything anew, for longer than it works here."""
    pool = engine._pool(2)
    patched = pytest.MonkeyPatch()
    patched.setattr(engine, "_pool", lambda workers: pool)
    patched.setattr(engine, "_stop", lambda pool: None)
    yield
    patched.undo()
    pool.shutdown()


@pytest.fixture(scope="module")
def filmed(one_pool: None, tmp_path_factory: pytest.TempPathFactory) -> trees.Footage:
    return trees.footage(conftest.SHARED, tmp_path_factory.mktemp("rendered"))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work space é")


def call(workspace: Path, *arguments: str, expected: int = 0) -> str:
    result = CliRunner().invoke(bench, ["--workspace", str(workspace), *arguments], catch_exceptions=False)
    assert result.exit_code == expected, result.output
    return result.output


def examined(name: str, workspace: Path, filmed: trees.Footage) -> Tree:
    root = workspace / f"raw {name}"
    planted = trees.BUILD[name](root, filmed)
    said = call(workspace, "doctor", "data", name, "--root", str(root), "--workers", "2", expected=1)
    findings = pq.read_table(workspace / "doctor" / f"{name}.parquet").to_pylist()
    assert f"{sum(f['severity'] == 'fatal' for f in findings)} fatal" in said
    return Tree(root, planted, findings)


def run_through(protocol: str, root: Path, workspace: Path, *prepare: str) -> Run:
    """prepare (as `prepare` says, or the comment of the shipped protocol), export, eval of two methods, leaderboard."""
    shipped = configs.shipped("protocols").get(protocol)
    if shipped is not None:
        text = shipped.read_text(encoding="utf-8")
        command = re.findall(r"^# bench (prepare .*)$", text, re.MULTILINE)[0]
        prepare = tuple(str(root) if word == "RAW" else word for word in shlex.split(command))
        copy, count = re.subn(r"metrics = \[.*?\]\n", CHEAP, text, flags=re.DOTALL)  # no networks: tests are quick
        assert count == 1
        media.write_bytes(workspace / f"protocols/{protocol}.toml", copy.encode())
    call(workspace, *prepare, "--workers", "2")
    to = workspace / "exported" / protocol
    call(workspace, "protocol", "export", protocol, "--to", str(to))
    for method in ("ground-truth",) if protocol == "dice-talk-ood" else ("still", "ground-truth"):
        # Nobody recorded what the portraits should do: there is nothing to score, and eval says so by its exit status.
        nothing = int(protocol == "dice-talk-ood")
        call(workspace, "eval", "--method", method, "--protocol", protocol, "--workers", "2", expected=nothing)
    table = call(workspace, "leaderboard", "--protocol", protocol)
    name = prepare[prepare.index("--name") + 1] if "--name" in prepare else prepare[1]
    folder = workspace / "data" / name
    call(workspace, "manifest", "check", name)
    with (to / "pairs.csv").open(encoding="utf-8", newline="") as file:
        pairs = {row["pair_id"]: row for row in csv.DictReader(file)}
    with (workspace / "tables" / protocol / "tidy.csv").open(encoding="utf-8", newline="") as file:
        tidy = {(row["method"], row["metric"], row["group"]): row for row in csv.DictReader(file)}
    return Run(
        {clip.clip_id: clip for clip in manifest.read(folder / "manifest.parquet")},
        manifest.read_rejected(folder / "rejected.parquet"),
        pairs,
        tidy,
        table,
        to,
    )


@pytest.fixture(scope="module")
def tree(workspace: Path, filmed: trees.Footage) -> Callable[[str], Tree]:
    return cache(lambda name: examined(name, workspace, filmed))


@pytest.fixture(scope="module")
def run(workspace: Path, tree: Callable[[str], Tree]) -> Callable[[str], Run]:
    @cache
    def through(protocol: str) -> Run:
        root = tree(DATASET[protocol]).root
        if protocol in ("voxceleb2", "ravdess"):
            reference, prompt = ("first-frame", "neutral") if protocol == "voxceleb2" else ("neutral", "label")
            own = OWN.format(name=protocol, metrics=CHEAP, reference=reference, prompt=prompt)
            media.write_bytes(workspace / f"protocols/{protocol}.toml", own.encode())
            people = workspace / f"{protocol} split.csv"
            media.write_bytes(people, LISTED[protocol].encode())
            chosen = ("--root", str(root), "--split", "list", "--split-file", str(people))
            return run_through(protocol, root, workspace, "prepare", protocol, *chosen)
        if protocol == "dice-talk-ood":
            through("dice-talk-mead")  # whose people show the emotions
        return run_through(protocol, root, workspace)

    return through


DATASET = {
    "dice-talk-mead": "mead",
    "eat-face-mead": "mead",
    "emotion-anchor-mead": "mead",
    "eat-face-crema-d": "crema-d",
    "dice-talk-hdtf": "hdtf",
    "voxceleb2": "voxceleb2",
    "ravdess": "ravdess",
    "dice-talk-ood": "portraits",
}
LISTED = {
    "voxceleb2": "identity,split\nid00012,train\nid00017,test\n",
    "ravdess": "identity,split\nActor_01,test\nActor_02,train\n",
}


def test_which_people_are_shown(filmed: trees.Footage) -> None:
    if filmed.origin != "../shared/data":
        pytest.skip(f"the real clips are not on this machine (../shared/data): the people are of {filmed.origin}")


FIRST = {
    "mead": "dice-talk-mead",
    "crema-d": "eat-face-crema-d",
    "hdtf": "dice-talk-hdtf",
    "portraits": "dice-talk-ood",
}


@pytest.mark.parametrize("name", trees.BUILD)
def test_each_planted_defect_is_found(name: str, tree: Callable[[str], Tree], run: Callable[[str], Run]) -> None:
    planted, through = tree(name), run(FIRST.get(name, name))
    assert len(planted.planted) >= 3
    said = {(f["severity"], f["check"], f["item"]) for f in planted.findings}
    rows = {(row.reason, row.source) for row in through.rejected}
    for defect in planted.planted:
        assert defect.doctor is None or defect.doctor in said, (defect, sorted(said))
        assert defect.prepare is None or defect.prepare in rows, (defect, sorted(rows))
        assert defect.doctor or defect.prepare


@pytest.mark.parametrize("protocol", DATASET)
def test_from_raw_files_to_the_table(protocol: str, run: Callable[[str], Run]) -> None:
    through = run(protocol)
    scored = [row for row in through.pairs.values() if not row["error"]]
    assert scored
    for row in scored:
        assert all((through.exported / row[kind]).is_file() for kind in ("reference", "audio"))
        assert bool(row["target_video"]) == (protocol != "dice-talk-ood")
    assert through.used("ground-truth", SPOKEN[0])[1] == len(through.pairs)
    if protocol == "dice-talk-ood":
        assert through.used("ground-truth", SPOKEN[0]) == (0, len(through.pairs))  # nobody recorded it
    else:
        for method in ("still", "ground-truth"):
            assert through.used(method, "psnr/frame-mean") == (len(scored), len(through.pairs))
        truth, still = (float(through.tidy[m, "psnr/frame-mean", "all"]["value"]) for m in ("ground-truth", "still"))
        assert truth > still + 3
    assert "Ground truth" in through.table
    assert ("Still reference" in through.table) == (protocol != "dice-talk-ood")


def test_a_film_is_cut_right_to_a_frame(workspace: Path, run: Callable[[str], Run]) -> None:
    clips = run("dice-talk-hdtf").clips
    cuts = {"WRA_TimScott_0": (1, 2, 25), "WRA_TimScott_1": (3, 4, 25), "WRA_JeffFlake0_0": (1, 2, 30)}
    for clip_id, (start, end, fps) in cuts.items():
        frames = list(media.read_frames(workspace / "data/hdtf-dice-talk" / clips[clip_id].video))
        assert len(frames) == 25 * (end - start)
        assert abs(trees.number(frames[0]) - start * fps) <= 1
        assert abs(trees.number(frames[-1]) - (end - 1 / 25) * fps) <= 1


def test_what_a_dataset_alone_tells_becomes_columns(run: Callable[[str], Run]) -> None:
    crema = run("eat-face-crema-d").clips
    assert crema["1001_IEO_NEU_XX"].extra["sex"] == "male"
    assert crema["1001_IEO_NEU_XX"].extra["face_vote"] == "happy:neutral"
    assert "sex" not in crema["1002_IEO_NEU_XX"].extra
    assert {clip.emotion for clip in run("ravdess").clips.values()} >= {"calm", "happy"}
    for protocol in ("dice-talk-hdtf", "voxceleb2", "dice-talk-ood"):
        assert {clip.emotion for clip in run(protocol).clips.values()} == {"unlabelled"}
    assert {row["emotion"] for row in run("dice-talk-hdtf").pairs.values()} == {"neutral"}
    assert len({row["emotion"] for row in run("dice-talk-ood").pairs.values()}) == 8
