"""MEAD's grammar, splits and their cards: names alone, nothing is decoded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import splits
from pipelines.datasets import DatasetError, Source, mead
from pipelines.manifest import EMOTIONS


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


def source(identity: str, emotion: str, take: int) -> Source:
    name = f"{identity}_{emotion}_{take}"
    return Source(name, "mead", identity, emotion, 1, "front", None, f"{take:03}", f"{name}.mp4", None)


people = st.dictionaries(
    st.from_regex(r"[MW]0[0-9]{2}", fullmatch=True),
    st.dictionaries(st.sampled_from(EMOTIONS), st.integers(1, 12), min_size=1),
    min_size=1,
    max_size=30,
)


@given(people, st.integers(0, 5), st.sampled_from([(0.8, 0.1, 0.1), (0.5, 0.0, 0.5), (1.0, 0.0, 0.0)]))
def test_ratio_never_splits_an_identity(counts, seed: int, fractions: tuple[float, float, float]) -> None:
    sources = [source(i, e, k) for i, emotions in counts.items() for e, n in emotions.items() for k in range(n)]
    card = splits.ratio(sources, fractions, seed)
    everyone = [i for names in card.identities.values() for i in names]
    assert sorted(everyone) == sorted(counts)  # each once
    assert sum(n for c in card.counts.values() for n in c.values()) == len(sources)
    assert card == splits.ratio(list(reversed(sources)), fractions, seed)  # the order of the tree does not matter
    wanted = [s for s, f in zip(splits.SPLITS, fractions, strict=True) if f]
    if len(counts) >= len(wanted):
        assert all(card.identities[s] for s in wanted)
    assert not [s for s, f in zip(splits.SPLITS, fractions, strict=True) if not f and card.identities[s]]


def test_ratio_is_stratified_by_emotion() -> None:
    """Half of forty actors recorded anger only, half joy only: each split gets its share of both."""
    sources = [source(f"M{i:03}", "angry" if i % 2 else "happy", k) for i in range(40) for k in range(10)]
    for seed in range(5):
        card = splits.ratio(sources, (0.8, 0.1, 0.1), seed)
        for split, share in zip(splits.SPLITS, (0.8, 0.1, 0.1), strict=True):
            for emotion in ("angry", "happy"):
                assert abs(card.counts[split].get(emotion, 0) / 200 - share) <= 0.05
    assert splits.ratio(sources, (0.8, 0.1, 0.1), 0).digest != splits.ratio(sources, (0.8, 0.1, 0.1), 1).digest


def test_the_digest_is_of_the_assignment_alone() -> None:
    few = [source("M003", "sad", 1), source("M005", "sad", 1)]
    many = [source(i, e, k) for i in ("M003", "M005") for e in EMOTIONS for k in range(3)]
    split_of = {"M003": "train", "M005": "test"}
    assert splits.make_card("list", split_of, few).digest == splits.make_card("list", split_of, many).digest


def test_list_split(tmp_path: Path) -> None:
    sources = [source("M003", "sad", 1), source("W009", "sad", 1)]
    path = tmp_path / "split ü.csv"
    path.write_text("\ufeffidentity,split\nM003,train\nW009,test\nM099,val\n", encoding="utf-8")
    card = splits.from_list(sources, path)
    assert card.split_of() == {"M003": "train", "W009": "test", "M099": "val"}
    assert card.counts["val"] == {}
    for text, message in (
        ("identity,split\nM003,train\n", "'W009' is in the dataset but not in the split"),
        ("identity,split\nM003,train\nM003,test\n", "line 3: 'M003' is in 'train' already"),
        ("identity,split\nM003,training\n", "line 2: 'training' is none of"),
        ("M003,train\n", "header identity,split"),
        ("", "header identity,split"),
    ):
        path.write_text(text)
        with pytest.raises(splits.SplitError, match=message):
            splits.from_list(sources, path)
    with pytest.raises(splits.SplitError, match="add up to 1"):
        splits.ratio(sources, (0.8, 0.8, 0.1), 0)
    with pytest.raises(splits.SplitError, match="from 0 to 1"):
        splits.ratio(sources, (0.5, float("nan"), 0.5), 0)
