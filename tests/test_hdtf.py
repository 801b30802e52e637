"""HDTF's lists, names and cuts: names alone, nothing is decoded. The real lists are the truth where they are there."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.datasets import Cut, DatasetError, hdtf
from pipelines.manifest import UNLABELLED, Rejected

LISTS = {
    "video_url": "\ufeffAnnLee0 https://www.youtube.com/watch?v=aaaaaaaaaaa\r\nAnnLee1 https://youtu.be/bbbbbbbbbbb\r\n",
    "annotion_time": "AnnLee0.mp4 00:05-00:10 01:00-02:05 \r\nAnnLee1.mp4 00:00-00:04",
    "crop_wh": "AnnLee0_0.mp4 412 599 7 599\nAnnLee0_1.mp4 10 400 0 400\n\nAnnLee1_0.mp4 0 300 0 300\n",
    "crop_ratio": "AnnLee0_0.mp4 1.2\nAnnLee0_1.mp4 0.95\nAnnLee1_0.mp4 1.2\n",
    "resolution": "AnnLee0.mp4 720\nAnnLee1.mp4 1080\n",
}


def tree(root: Path, *media: str, subset: str = "WDA", **changed: str | bytes | None) -> Path:
    """A tree with those media, empty, and LISTS with the changed ones; None leaves one out."""
    (root / "HDTF_dataset").mkdir(parents=True, exist_ok=True)
    for kind, text in (LISTS | changed).items():
        if text is not None:
            data = text if isinstance(text, bytes) else text.encode()
            (root / "HDTF_dataset" / f"{subset}_{kind}.txt").write_bytes(data)
    for name in media:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def reasons(rejected: list[Rejected]) -> set[tuple[str, str]]:
    assert all(r.stage == "index" and "\n" not in r.source + r.detail for r in rejected)
    return {(r.source, r.reason) for r in rejected}


def test_the_published_lists(real: Callable[[str], Path]) -> None:
    lists = hdtf.read_lists(real("hdtf/HDTF_dataset"))
    videos = lists.videos.values()
    parts = [part for video in videos for part in video.parts]
    crops = [part.box for part in parts if part.box]
    assert not lists.rejected
    assert len(lists.files) == 15
    assert len(videos) == sum(video.url is not None for video in videos) == 370
    assert Counter(video.subset for video in videos) == {"RD": 57, "WDA": 183, "WRA": 130}
    assert [video.name for video in videos if not video.parts] == ["Radio24"]
    assert (len(parts), len(crops)) == (436, 421)
    assert all(width == height for _, _, width, height in crops)
    assert Counter(part.problem[0] for part in parts if part.problem) == {
        "no_crop": 15,
        "crop_outside": 3,  # MaggieHassan, MazieHirono1, PeterKing: crops taller than the stated resolution
        "no_resolution": 2,  # KevinMcCarthy1, whose resolution is 0
    }
    assert ("WDA", "CarolynMaloney2") in lists.videos  # behind the byte order mark
    assert len({hdtf.identity_key(video.name) for video in videos if video.parts}) == 221
    assert all(video.youtube for video in videos)
    # Universome numbers the clips that have crops: the same numbers, for the lacking ones come last.
    for video in videos:
        have = [part.box is not None for part in video.parts]
        assert have == sorted(have, reverse=True)


@pytest.mark.parametrize(
    "naming", ["{name}.mp4", "{subset}_{name}.mp4", "{name}_{k}.mp4", "{subset}_{name}_{k:03}.mp4"]
)
def test_each_naming_gives_the_same_clips(real: Callable[[str], Path], tmp_path: Path, naming: str) -> None:
    root = tmp_path / "HDTF raw é"
    shutil.copytree(real("hdtf/HDTF_dataset"), root / "HDTF_dataset")
    lists = hdtf.read_lists(root)
    expected = []
    for video in lists.videos.values():
        for k, part in enumerate(video.parts):
            if part.problem is None:
                expected.append(f"{video.subset}_{video.name}_{k}")
                path = root / "clips" / naming.format(subset=video.subset, name=video.name, k=k)
                path.parent.mkdir(exist_ok=True)
                path.touch()
    index = hdtf.index(root)
    assert [s.clip_id for s in index.sources] == sorted(expected)
    assert len(expected) == 416
    assert all((s.cut is None) == ("{k" in naming) for s in index.sources)
    assert {(s.dataset, s.emotion, s.intensity, s.view, s.sentence) for s in index.sources} == {
        ("hdtf", UNLABELLED, None, "front", None)
    }
    # Each of the 436 listed clips is a source or a row; Radio24 and the 17 videos without a usable clip are rows.
    clips = [r for r in index.rejected if r.reason in ("no_crop", "crop_outside", "no_resolution")]
    assert len(clips) == 436 - 416
    assert ("RD_Radio24.mp4", "no_times") in reasons(index.rejected)
    assert len(index.rejected) == 21
    checks = Counter(f.check for f in hdtf.examine(root, index, digests=False))
    assert checks["no_crop"] == 15
    assert checks["no_times"] == checks["same_video"] == checks["overlap"] == checks["list_counts"] == 1
    assert not checks["clips"]
    assert not checks["lists"]


def test_one_video_under_two_names_has_one_origin(real: Callable[[str], Path], tmp_path: Path) -> None:
    shutil.copytree(real("hdtf/HDTF_dataset"), tmp_path / "lists")
    for name in ("WhipJimClyburn_0", "JamesClyburn1_0", "JamesClyburn_0"):
        (tmp_path / f"{name}.mp4").touch()
    origins = {s.clip_id: s.extra["origin"] for s in hdtf.index(tmp_path).sources}
    assert origins["WDA_WhipJimClyburn_0"] == origins["WDA_JamesClyburn1_0"] != origins["WDA_JamesClyburn_0"]


def test_a_cut(tmp_path: Path) -> None:
    index = hdtf.index(tree(tmp_path / "a b ü", "videos/WDA_AnnLee0.MP4", "wav/AnnLee0.wav", "AnnLee1_0.mp4"))
    first, second, ready = index.sources
    assert first.clip_id == "WDA_AnnLee0_0"
    assert first.cut == Cut(5.0, 10.0, (412, 7, 599, 599), 720)  # the list's order: left, width, top, height
    assert second.cut == Cut(60.0, 125.0, (10, 0, 400, 400), 720)
    assert (second.video, second.audio, second.take) == ("videos/WDA_AnnLee0.MP4", "wav/AnnLee0.wav", "1")
    assert second.extra == {"origin": "AnnLee0", "subset": "WDA", "youtube": "aaaaaaaaaaa", "crop_ratio": "0.95"}
    assert (ready.clip_id, ready.cut, ready.audio) == ("WDA_AnnLee1_0", None, None)
    assert {s.identity for s in index.sources} == {"AnnLee"}
    assert not index.rejected


def test_the_ready_clip_wins(tmp_path: Path) -> None:
    index = hdtf.index(tree(tmp_path, "AnnLee0.mp4", "AnnLee0_1.mp4", "AnnLee1.mp4"))
    assert [(s.clip_id, s.video, s.cut is None) for s in index.sources] == [
        ("WDA_AnnLee0_0", "AnnLee0.mp4", False),
        ("WDA_AnnLee0_1", "AnnLee0_1.mp4", True),
        ("WDA_AnnLee1_0", "AnnLee1.mp4", False),
    ]
    assert not index.rejected
    assert any("1 clips are there both ready" in note for note in index.notes)


def test_without_lists(tmp_path: Path) -> None:
    for name in ("RD_Radio11_000.mp4", "Radio12_1.mp4", "Radio11.mp4", "x/notes.md", "WDA_KatieHill_000.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    index = hdtf.index(tmp_path)
    assert [s.clip_id for s in index.sources] == ["RD_Radio11_0", "Radio12_1", "WDA_KatieHill_0"]
    assert [s.extra["origin"] for s in index.sources] == ["Radio11", "Radio12", "KatieHill"]
    assert reasons(index.rejected) == {("Radio11.mp4", "unlisted"), ("x/notes.md", "unrecognised")}
    (note,) = index.notes
    assert note.startswith("none of HDTF's lists is in the tree")
    assert {f.check for f in hdtf.examine(tmp_path, index, digests=False)} >= {"lists"}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"crop_wh": "AnnLee0_0.mp4 1 9 0 9\nAnnLee0_1.mp4 1 9 0 9\n"}, ("WDA_AnnLee1_0.mp4", "no_crop")),
        ({"crop_wh": LISTS["crop_wh"].replace("0 300 0 300", "0 300 0 299")}, ("WDA_AnnLee1_0.mp4", "crop_square")),
        ({"crop_wh": LISTS["crop_wh"].replace("0 300 0", "-4 300 0")}, ("WDA_AnnLee1_0.mp4", "crop_outside")),
        ({"crop_wh": LISTS["crop_wh"].replace("0 300 0", "0 300 781")}, ("WDA_AnnLee1_0.mp4", "crop_outside")),
        ({"crop_wh": LISTS["crop_wh"] + "AnnLee1_1.mp4 0 9 0 9\n"}, ("HDTF_dataset/WDA_crop_wh.txt", "unlisted")),
        ({"crop_wh": LISTS["crop_wh"] + "AnnLee1_0.mp4 0 9 0 9\n"}, ("HDTF_dataset/WDA_crop_wh.txt", "list_line")),
        ({"crop_wh": LISTS["crop_wh"] + "AnnLee1_0.mp4 9 9 9\n"}, ("HDTF_dataset/WDA_crop_wh.txt", "list_line")),
        ({"crop_ratio": "AnnLee1_0.mp4 nan\n"}, ("HDTF_dataset/WDA_crop_ratio.txt", "list_line")),
        ({"crop_ratio": "BobRay_0.mp4 1.2\n"}, ("HDTF_dataset/WDA_crop_ratio.txt", "unlisted")),
        ({"resolution": "AnnLee0.mp4 720\nAnnLee1.mp4 0\n"}, ("WDA_AnnLee1_0.mp4", "no_resolution")),
        ({"resolution": "AnnLee0.mp4 720\n"}, ("WDA_AnnLee1_0.mp4", "no_resolution")),
        ({"resolution": LISTS["resolution"] + "BobRay.mp4 720\n"}, ("HDTF_dataset/WDA_resolution.txt", "unlisted")),
        ({"annotion_time": "AnnLee0.mp4 00:05-00:10 01:00-02:05\n"}, ("WDA_AnnLee1.mp4", "no_times")),
        ({"annotion_time": LISTS["annotion_time"].replace("00:00", "00:04")}, ("WDA_AnnLee1_0.mp4", "times")),
        ({"annotion_time": LISTS["annotion_time"].replace("00:00-", "0:0:0-")}, ("WDA_AnnLee1_0.mp4", "times")),
        ({"annotion_time": LISTS["annotion_time"].replace("00:04", "00:64")}, ("WDA_AnnLee1_0.mp4", "times")),
        ({"video_url": LISTS["video_url"] + "BobRay http://x.y\n"}, ("WDA_BobRay.mp4", "no_times")),
        ({"video_url": LISTS["video_url"] + "BobRay\n"}, ("HDTF_dataset/WDA_video_url.txt", "list_line")),
        ({"video_url": LISTS["video_url"].encode() + b"\xff\xfe x\n"}, ("HDTF_dataset/WDA_video_url.txt", "list_line")),
        ({"video_url": LISTS["video_url"] + "../Bob http://x\n"}, ("HDTF_dataset/WDA_video_url.txt", "list_line")),
    ],
)
def test_a_defect_of_the_lists_is_a_row(
    tmp_path: Path, changed: dict[str, str | bytes | None], expected: tuple[str, str]
) -> None:
    index = hdtf.index(tree(tmp_path, "AnnLee0.mp4", "AnnLee1.mp4", **changed))
    assert expected in reasons(index.rejected)
    assert [s.clip_id for s in index.sources][:2] == ["WDA_AnnLee0_0", "WDA_AnnLee0_1"]
    assert list(hdtf.examine(tmp_path, index, digests=False))
    again = hdtf.index(tree(tmp_path, "AnnLee1_0.mp4", **changed))  # a ready clip needs neither times nor crop
    assert any(s.video == "AnnLee1_0.mp4" for s in again.sources)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("BobRay.mp4", "unlisted"),
        ("AnnLee0_2.mp4", "unlisted"),
        ("WDA_BobRay_000.mp4", "unlisted"),
        ("copy/AnnLee0.mp4", "duplicate"),
        ("AnnLee1.wav", "no_video"),
        ("AnnLee0_download_log.txt", "unrecognised"),
        ("x/.AnnLee1.mp4", "hidden"),
        ("Ann Lee1.mp4", "unrecognised"),
        ("Ann\nLee1.mp4", "unrecognised"),
        ("HDTF_dataset/copy/WDA_resolution.txt", "duplicate"),
    ],
)
def test_a_file_that_is_nothing_is_a_row(tmp_path: Path, name: str, reason: str) -> None:
    root = tree(tmp_path, "AnnLee0.mp4")
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).touch()
    index = hdtf.index(root)
    assert reason in {r.reason for r in index.rejected}
    assert [s.clip_id for s in index.sources] == ["WDA_AnnLee0_0", "WDA_AnnLee0_1"]
    assert reasons(index.rejected) >= {("WDA_AnnLee1.mp4", "not_there")}


def test_what_is_listed_and_not_there(tmp_path: Path) -> None:
    index = hdtf.index(tree(tmp_path, "AnnLee0_1.mp4"))
    assert reasons(index.rejected) == {("WDA_AnnLee1.mp4", "not_there"), ("WDA_AnnLee0_0.mp4", "not_there")}
    assert index.notes[-1] == "WDA: 1 of 2 videos are not in the tree"
    clips = [f for f in hdtf.examine(tmp_path, index, digests=False) if f.check == "clips"]
    assert [(f.item, f.detail[:25]) for f in clips] == [("WDA", "1 clips can be prepared, ")]


def test_a_name_of_two_subsets(tmp_path: Path) -> None:
    tree(tmp_path, subset="RD")
    index = hdtf.index(tree(tmp_path, "AnnLee0.mp4", "RD_AnnLee1.mp4", "WDA_AnnLee1.mp4"))
    assert [s.clip_id for s in index.sources] == ["RD_AnnLee1_0", "WDA_AnnLee1_0"]
    assert ("AnnLee0.mp4", "ambiguous") in reasons(index.rejected)


def test_findings(tmp_path: Path) -> None:
    index = hdtf.index(
        tree(
            tmp_path,
            "AnnLee0.mp4",
            "AnnLee1.mp4",
            annotion_time="AnnLee0.mp4 00:05-01:10 01:00-02:05\nAnnLee1.mp4 00:00-00:04",
            video_url=LISTS["video_url"].replace("b" * 11, "a" * 11),
        )
    )
    findings = {f.check: f for f in hdtf.examine(tmp_path, index, digests=False)}
    assert findings["overlap"].item == "WDA_AnnLee0"
    assert "AnnLee0, AnnLee1 are one video, under 1 identities" in findings["same_video"].detail
    assert "RD_crop_ratio.txt" in findings["lists"].item
    assert {s.extra["origin"] for s in index.sources} == {"AnnLee0"}
    plain = hdtf.index(tree(tmp_path, **LISTS))
    findings = {f.check: f for f in hdtf.examine(tmp_path, plain, digests=False)}
    assert findings["shared_identity"].item == "AnnLee"
    for subset in ("RD", "WRA"):
        tree(tmp_path, subset=subset)
    findings = {f.check: f for f in hdtf.examine(tmp_path, plain, digests=False)}
    assert findings["list_counts"].severity == "warning"
    assert "6 urls" in findings["list_counts"].detail


def test_identity_keys() -> None:
    assert hdtf.identity_key("BarackObama0") == hdtf.identity_key("BarackObama1") == "BarackObama"
    assert hdtf.identity_key("Radio1") == hdtf.identity_key("Radio57") == "Radio"
    assert hdtf.identity_key("LindaSa\u0301nchez\uff11") == "LindaS\xe1nchez"  # decomposed, a full-width digit
    assert hdtf.identity_key("LucilleRoybal-Allard") == "LucilleRoybal-Allard"
    assert hdtf.identity_key("2020") == "2020"


def test_nothing_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="the folder is empty"):
        hdtf.index(tmp_path)
    with pytest.raises(DatasetError, match="the lists name 2 videos; 2 of 2 rejected: not_there") as caught:
        hdtf.index(tree(tmp_path))
    assert "\n" not in str(caught.value)
    with pytest.raises(DatasetError, match="not a folder"):
        hdtf.index(tmp_path / "missing")


words = ["AnnLee0", "AnnLee1.mp4", "AnnLee0_1.mp4", "\ufeff", "00:05-00:10", "99:99-00:00", "599", "0", "-1", "nan"]
fields = st.sampled_from([*words, "9" * 400])
lines = st.one_of(st.text(max_size=40), st.lists(fields, max_size=6).map(" ".join))
texts = st.lists(lines, max_size=6).map("\n".join)
files = st.one_of(st.binary(max_size=80), texts.map(lambda text: text.encode("utf-8", "ignore")))


@settings(max_examples=60)
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(LISTS, files)), st.booleans())
def test_any_list_ends_in_rows(changed: dict[str, bytes], ready: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = tree(
            Path(folder), "AnnLee0.mp4", "RD_Ready_0.mp4", "AnnLee1_0.mp4" if ready else "AnnLee1.mp4", **changed
        )
        index = hdtf.index(root)
        found = list(hdtf.examine(root, index, digests=False))
        assert len({s.clip_id for s in index.sources}) == len(index.sources) >= 1
        assert all("\n" not in f.item + f.detail for f in found)
        reasons(index.rejected)
        for source in index.sources:
            if source.cut is not None:
                assert None not in (source.cut.box, source.cut.lines, source.cut.end)
                left, top, width, height = source.cut.box
                assert source.cut.start < source.cut.end
                assert left >= 0 <= top
                assert width == height > 0
                assert top + height <= source.cut.lines
