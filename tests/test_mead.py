"""MEAD's grammar: names alone, nothing is decoded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines.datasets import DatasetError, mead


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def test_a_recording_and_its_sound(tmp_path: Path) -> None:
    root = touch(
        tmp_path,
        "M003/video/front/angry/level_1/007.mp4",
        "M003/video/left_30/angry/level_1/007.mp4",
        "M003/audio/angry/level_1/007.m4a",
        "W009/video/front/neutral/level_1/058.MP4",
    )
    index = mead.index(root)
    assert [s.clip_id for s in index.sources] == [
        "M003_front_angry_1_007",
        "M003_left_30_angry_1_007",
        "W009_front_neutral_1_058",
    ]
    first = index.sources[0]
    assert first.audio == "M003/audio/angry/level_1/007.m4a"
    assert index.sources[2].audio is None
    assert (first.identity, first.emotion, first.intensity, first.view, first.take) == (
        "M003",
        "angry",
        1,
        "front",
        "007",
    )
    assert all(s.sentence is None for s in index.sources)  # a take's number is no sentence
    assert not index.rejected
    assert "M003: front/sad/level_2" in index.notes
    assert "W009: the whole view left_30" in index.notes


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("M003/video/front/neutral/level_2/001.mp4", "neutral_level"),
        ("M003/video/front/angry/level_4/001.mp4", "level"),
        ("M003/video/front/furious/level_1/001.mp4", "emotion"),
        ("M003/video/behind/angry/level_1/001.mp4", "view"),
        ("X003/video/front/angry/level_1/001.mp4", "identity"),
        ("M003/video/front/angry/level_1/1.mp4", "take"),
        ("M003/video/front/angry/level_1/001.txt", "suffix"),
        ("M003/video/front/angry/001.mp4", "unrecognised"),
        ("readme.txt", "unrecognised"),
        ("M003/video/front/angry/level_1/.001.mp4", "hidden"),
        ("M003/video/front/angry/level_1/00\n1.mp4", "take"),
        ("M003/video/front/angry/level_1/00é ü.mp4", "take"),
    ],
)
def test_what_is_not_in_the_grammar_is_listed(tmp_path: Path, name: str, reason: str) -> None:
    root = touch(tmp_path, "M003/video/front/angry/level_1/002.mp4", name)
    index = mead.index(root)
    assert len(index.sources) == 1
    (rejected,) = index.rejected
    assert rejected.reason == reason
    assert "\n" not in rejected.source + rejected.detail


def test_two_files_of_one_take(tmp_path: Path) -> None:
    cell = "M003/video/front/angry/level_1"
    index = mead.index(touch(tmp_path, f"{cell}/001.mp4", f"{cell}/001.mov"))
    assert [r.reason for r in index.rejected] == ["duplicate"]


def test_links_pipes_and_loops(tmp_path: Path) -> None:
    root = tmp_path / "raw data ü"
    touch(tmp_path / "disk2", "video/front/sad/level_1/001.mp4")
    touch(root, "M003/video/front/sad/level_1/001.mp4")
    (root / "M005").symlink_to(tmp_path / "disk2")  # an actor on another disk
    (root / "M003/video/front/loop").symlink_to(root)
    (root / "M003/dangling.mp4").symlink_to(tmp_path / "nowhere")
    os.mkfifo(root / "M003/video/front/sad/level_1/002.mp4")
    (root / "itself").symlink_to("itself")
    (root / Path(*["deep"] * 80)).mkdir(parents=True)
    index = mead.index(root)
    assert [s.identity for s in index.sources] == ["M003", "M005"]
    assert {r.reason for r in index.rejected} == {"link_loop", "not_a_file", "too_deep"}


@pytest.mark.parametrize("content", [(), ("MEAD/M003/video/front/sad/level_1/001.mp4",)])
def test_a_wrong_root_is_one_line(tmp_path: Path, content: tuple[str, ...]) -> None:
    with pytest.raises(DatasetError, match="no MEAD recording") as caught:
        mead.index(touch(tmp_path, *content))
    assert "\n" not in str(caught.value)
    with pytest.raises(DatasetError, match="not a folder"):
        mead.index(tmp_path / "missing")
