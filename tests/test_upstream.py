"""The script that compares our arguments with the originals'."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import click
import pytest

from benchmark import upstream
from reference_models.external import Call

SCRIPT = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("image")
parser.add_argument("-W", type=int)
parser.add_argument("-c", "--config", default="x")
parser.add_argument("--mode", choices=["crop", "full"])
parser.add_argument("--still", action="store_true")
parser.add_argument("--pads", nargs="+", type=int)
parser.add_argument("--face", required=True)
WORDS = ["hap", 'sad']
"""


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("a.png --face f -W 512 --config c.yaml --mode full --still --pads 0 1 2 --face f", None),
        ("a.png --face f -c c.yaml --mode {emotion}", None),
        ("a.png --face f --outfile o.mp4", "--outfile is unknown"),
        ("a.png --face f -H 512", "-H is unknown"),
        ("a.png --face f --mode half", "--mode half: it takes crop, full"),
        ("a.png --face f -W", "-W lacks its value"),
        ("a.png --face f -W --still", "-W lacks its value"),
        ("a.png --face f --still yes", "2 arguments without a name, the original takes 1"),
        ("--face f", "0 arguments without a name, the original takes 1"),
        ("a.png", "--face is required"),
    ],
)
def test_an_argument_that_the_original_lacks_is_found(command: str, message: str | None) -> None:
    found = upstream.problems(command.split(), SCRIPT)
    assert (message in found) if message else not found


def test_a_checkout_is_read_at_its_commit_and_a_change_of_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repo = tmp_path / "original"
    (repo / "emo").mkdir(parents=True)
    (repo / "run.py").write_text(SCRIPT)
    (repo / "run.yaml").write_text("save_path: ./x\n# pose: y\n")
    (repo / "emo" / "fear.npy").write_text("")

    def git(*command: str) -> str:
        who = ("-c", "user.name=n", "-c", "user.email=e@e", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", "-C", str(repo), *who, *command], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "-q")
    git("add", "-A")
    git("commit", "-q", "-m", "m")
    commit = git("rev-parse", "HEAD")
    (repo / "run.py").write_text("")  # what lies there now does not matter
    original = upstream.Original(repo, commit)
    call = Call(
        ("{python}", "run.py", "a.png", "--face", "f"), "o", {}, "somebody/original", commit,
        emotions={"happy": "hap", "fear": "fear"}, config="run.yaml", settings={"save_path": 1, "pose": 2},
    )  # fmt: skip
    assert upstream.check(call, original) == []
    assert upstream.check(replace(call, emotions={"happy": "joy"}), original) == [
        "the word 'joy' for an emotion is nowhere"
    ]
    assert upstream.check(replace(call, settings={"out": 1}), original) == ["run.yaml has no out"]
    assert upstream.check(replace(call, config="no.yaml"), original) == ["no.yaml is not there"]
    assert upstream.check(replace(call, command=("{python}", "no.py"), emotions={}), original) == ["no.py is not there"]
    assert upstream.check(replace(call, command=("{python}", "-m", "run", "a", "--no")), original)[0] == (
        "run.py: --no is unknown"
    )
    assert upstream.find("somebody/original", tmp_path) == repo
    assert upstream.find("somebody/else", tmp_path) is None
    with pytest.raises(click.ClickException, match="git says"):
        upstream.Original(repo, "0" * 40)
