"""RAVDESS's grammar and the performances that are missing: names alone, nothing is decoded."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.datasets import DatasetError, Finding, ravdess
from pipelines.manifest import LABELS


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def findings(root: Path) -> list[Finding]:
    return list(ravdess.examine(root, ravdess.index(root), digests=False))


def everything(modality: str, suffix: str, *channels: str) -> list[str]:
    """All that was recorded, by the rules of the paper rather than by those of the module."""
    names = []
    numbers = [("01", "02"), [f"{k:02}" for k in range(1, 9)], ("01", "02"), ("01", "02"), ("01", "02"), range(1, 25)]
    for channel, emotion, intensity, statement, repetition, actor in itertools.product(*numbers):
        sung = channel == "02" and (emotion in ("07", "08") or actor == 18)
        if channel not in channels or sung or (emotion == "01" and intensity == "02"):
            continue
        kind = "Speech" if channel == "01" else "Song"
        folder = f"Video_{kind}_Actor_{actor:02}/Actor_{actor:02}"
        names.append(f"{folder}/{modality}-{channel}-{emotion}-{intensity}-{statement}-{repetition}-{actor:02}{suffix}")
    return names


def test_the_whole_dataset(tmp_path: Path) -> None:
    root = touch(tmp_path, *everything("01", ".mp4", "01", "02"), *everything("02", ".mp4", "01", "02"))
    index = ravdess.index(root)
    channels = Counter(s.extra["vocal_channel"] for s in index.sources)
    assert channels == {"speech": 1440, "song": 1012}  # 24 x 60 and 23 x 44
    assert (index.notes, list(ravdess.examine(root, index, digests=False))) == ([], [])
    assert Counter(r.reason for r in index.rejected) == {"duplicate": 2452}
    assert {s.clip_id[:2] for s in index.sources} == {"01"}
    speech = Counter(s.emotion for s in index.sources if s.extra["vocal_channel"] == "speech")
    assert speech == {
        "neutral": 96,
        **dict.fromkeys(("calm", "happy", "sad", "angry", "fear", "disgusted", "surprised"), 192),
    }
    assert set(speech) <= set(LABELS)
    assert len({s.identity for s in index.sources if s.extra["sex"] == "male"}) == 12


def test_speech_alone_is_not_short_of_song(tmp_path: Path) -> None:
    root = touch(tmp_path, *everything("01", ".mp4", "01"))
    assert ravdess.index(root).notes == []
    assert findings(root) == []


def test_a_performance_in_each_modality(tmp_path: Path) -> None:
    root = touch(
        tmp_path / "raw data ü",
        "Video_Speech_Actor_01/Actor_01/01-01-02-02-01-02-01.mp4",
        "Video_Speech_Actor_12/Actor_12/02-01-06-01-02-01-12.MP4",
        "Audio/Actor_12/03-01-06-01-02-01-12.wav",
        "Audio/Actor_12/03-01-06-01-02-02-12.wav",
    )
    index = ravdess.index(root)
    calm, fear = index.sources
    assert (calm.clip_id, calm.dataset, calm.identity) == ("01-01-02-02-01-02-01", "ravdess", "Actor_01")
    assert (calm.emotion, calm.intensity, calm.view, calm.take) == ("calm", 2, "front", "02")
    assert (calm.sentence, calm.audio) == ("Kids are talking by the door", None)
    assert calm.extra == {"sex": "male", "vocal_channel": "speech", "repetition": "2"}
    assert (fear.emotion, fear.intensity, fear.sentence) == ("fear", 1, "Dogs are sitting by the door")
    assert fear.audio == "Audio/Actor_12/03-01-06-01-02-01-12.wav"
    assert fear.extra["sex"] == "female"
    assert [(r.source, r.reason) for r in index.rejected] == [("Audio/Actor_12/03-01-06-01-02-02-12.wav", "no_video")]
    assert "Actor_02: no speech" in index.notes
    assert "Actor_12: speech/fear/1: 1 of 4" in index.notes
    assert not [note for note in index.notes if "song" in note]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("01-01-01-02-01-01-01.mp4", "neutral_level"),
        ("01-01-09-01-01-01-01.mp4", "emotion"),
        ("01-01-00-01-01-01-01.mp4", "emotion"),
        ("01-03-03-01-01-01-01.mp4", "vocal_channel"),
        ("01-01-03-03-01-01-01.mp4", "intensity"),
        ("01-01-03-01-03-01-01.mp4", "statement"),
        ("01-01-03-01-01-03-01.mp4", "repetition"),
        ("01-01-03-01-01-01-25.mp4", "identity"),
        ("01-01-03-01-01-01-00.mp4", "identity"),
        ("01-01-03-01-01-01-\u0660\u0661.mp4", "identity"),
        ("01-01-03-01-01-01-01\n.mp4", "identity"),
        ("04-01-03-01-01-01-01.mp4", "modality"),
        ("03-01-03-01-01-01-01.mp4", "suffix"),
        ("01-01-03-01-01-01-01.wav", "suffix"),
        ("01-01-03-01-01-01-01.csv", "suffix"),
        ("01-01-03-01-01-01.mp4", "unrecognised"),
        ("1-1-3-1-1-1-1.mp4", "modality"),
        ("Video_Speech_Actor_01.zip", "unrecognised"),
        ("copy/01-01-08-01-01-01-01.mp4", "duplicate"),
        ("02-01-08-01-01-01-01.mp4", "duplicate"),
        ("0/02-01-08-01-01-01-01.mp4", "duplicate"),
        ("03-01-07-01-01-01-01.wav", "no_video"),
        (".DS_Store", "hidden"),
        (os.fsdecode(b"caf\xe9/01-01-03-01-01-01-01.mp4"), "path"),
    ],
)
def test_what_is_no_performance_is_listed(tmp_path: Path, name: str, reason: str) -> None:
    index = ravdess.index(touch(tmp_path, "01-01-08-01-01-01-01.mp4", name))
    assert [s.video for s in index.sources] == ["01-01-08-01-01-01-01.mp4"]
    (rejected,) = index.rejected
    assert rejected.reason == reason
    assert "\n" not in rejected.source + rejected.detail


code = st.sampled_from(["00", "01", "02", "03", "07", "18", "24", "25", "1", "x", "é", "", "\uff10\uff11"])
suffix = st.sampled_from([".mp4", ".wav", "", ".MP4"])
name = st.one_of(
    st.builds(lambda codes, suffix: "-".join(codes) + suffix, st.lists(code, min_size=6, max_size=8), suffix),
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40),
).filter(lambda text: text not in (".", ".."))


@given(st.lists(name, max_size=8, unique=True))
def test_every_file_is_used_or_listed(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    root = touch(tmp_path_factory.mktemp("any"), "01-01-08-01-01-01-01.mp4", *(f"Actor_07/{n}" for n in names))
    index = ravdess.index(root)
    used = {path for s in index.sources for path in (s.video, s.audio) if path}
    assert len(used) + len(index.rejected) == len(names) + 1
    assert len({s.clip_id for s in index.sources}) == len(index.sources)
    list(ravdess.examine(root, index, digests=False))


def test_planted_defects(tmp_path: Path) -> None:
    """One performance lost, one without sound, one in another actor's folder, one that nobody sang."""
    names = everything("01", ".mp4", "01", "02")
    lost, moved, silent = names[0], names[1], names[2]
    names[1] = "Video_Speech_Actor_02/Actor_24/" + Path(moved).name
    names[2] = silent.replace("/01-", "/02-")
    root = touch(tmp_path, *names[1:], "Video_Song_Actor_18/Actor_18/01-02-03-01-01-01-18.mp4")
    index = ravdess.index(root)
    found = {f.check: f for f in ravdess.examine(root, index, digests=False)}
    assert set(found) == {"count", "folder", "no_audio", "unpublished"}
    actor = f"Actor_{lost[-6:-4]}"
    assert (found["count"].item, found["count"].detail) == (f"{actor} speech", "59 performances, 60 were recorded")
    assert index.notes == [f"{actor}: speech/neutral/1: 3 of 4"]
    assert found["folder"].item == names[1]
    assert (found["no_audio"].severity, found["no_audio"].item) == ("fatal", names[2])
    assert found["unpublished"].item.endswith("18.mp4")
    touch(root, "sounds/" + Path(silent).name.replace("01-", "03-", 1).replace(".mp4", ".wav"))
    assert "no_audio" not in {f.check for f in findings(root)}


@pytest.mark.parametrize("content", [(), ("Actor_01/03-01-08-01-01-01-01.wav",), ("Video_Speech_Actor_01.zip",)])
def test_a_wrong_root_is_one_line(tmp_path: Path, content: tuple[str, ...]) -> None:
    with pytest.raises(DatasetError, match="no RAVDESS video") as caught:
        ravdess.index(touch(tmp_path, *content))
    assert "\n" not in str(caught.value)
    with pytest.raises(DatasetError, match="not a folder"):
        ravdess.index(tmp_path / "missing")
