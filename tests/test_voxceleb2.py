"""VoxCeleb2's names, utterance txt and metadata: nothing is decoded."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.datasets import Cut, DatasetError, voxceleb2
from pipelines.manifest import UNLABELLED, Rejected

YT = "21Uxsk56-_0"
META = (
    "VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set \nid00012 ,n000012 ,m ,dev \n"
    "\r\nid00017 ,n000017 ,f ,test \nid00018 ,n000018 ,f ,dev \n"
)
Frame = tuple[int, float, float, float, float]
FRAMES: tuple[Frame, ...] = ((100, 0.30, 0.20, 0.25, 0.40), (101, 0.28, 0.21, 0.25, 0.40), (149, 0.31, 0.2, 0.27, 0.4))


def text(*frames: Frame, identity: str = "id00012", youtube: str = YT) -> str:
    head = f"Identity  : \t{identity}\nReference : \t{youtube}\nOffset    : \t-3\nFV Conf   : \t20.118\t(1)\n"
    rows = "".join(f"{n:06} \t{x:.3f} \t{y:.3f} \t{w:.3f} \t{h:.3f} \n" for n, x, y, w, h in frames or FRAMES)
    return f"{head}ASD Conf  : \t4.3\n\nFRAME \tX \tY \tW \tH \n{rows}"


def tree(root: Path, *names: str, **files: str | bytes) -> Path:
    """A tree with those files, empty, or with those contents where the name ends in .txt or .csv."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        if name.endswith(".txt"):
            content = files.get("txt", text())
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        elif name.endswith(".csv"):
            content = files.get("csv", META)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def reasons(rejected: list[Rejected]) -> set[tuple[str, str]]:
    assert all(r.stage == "index" and "\n" not in r.source + r.detail for r in rejected)
    return {(r.source, r.reason) for r in rejected}


def test_a_ready_utterance(tmp_path: Path) -> None:
    root = tree(
        tmp_path / "vox ü 2",
        f"dev/mp4/id00012/{YT}/00001.mp4",
        f"dev/aac/id00012/{YT}/00001.m4a",
        f"dev/txt/id00012/{YT}/00001.txt",
        f"id00017/{YT}/00002.MP4",
        "meta data/vox2_meta.csv",
    )
    index = voxceleb2.index(root)
    first, second = index.sources
    assert first.clip_id == f"id00012_{YT}_00001"
    assert (first.dataset, first.identity, first.take, first.view) == ("voxceleb2", "id00012", "00001", "front")
    assert (first.emotion, first.intensity, first.sentence, first.cut) == (UNLABELLED, None, None, None)
    assert first.audio == f"dev/aac/id00012/{YT}/00001.m4a"
    assert first.extra == {"origin": YT, "gender": "m", "vggface2": "n000012", "set": "dev", "first_frame": "100"}
    assert second.extra == {"origin": YT, "gender": "f", "vggface2": "n000017", "set": "test"}
    assert not index.rejected
    assert not index.notes


@pytest.mark.parametrize(
    ("name", "clip_id"),
    [
        (f"id00012_{YT}_00001.mp4", f"id00012_{YT}_00001"),
        (f"x/id00012#{YT}#00001#000.mp4", f"id00012_{YT}_00001_000"),
        (f"x/id00012#{YT}#00001.txt#012.mp4", f"id00012_{YT}_00001_012"),
        (f"test/id00012#{YT}#001093#001192.mp4", f"id00012_{YT}_001093_001192"),
    ],
)
def test_flat_names(tmp_path: Path, name: str, clip_id: str) -> None:
    index = voxceleb2.index(tree(tmp_path, name))
    (source,) = index.sources
    assert (source.clip_id, source.identity, source.extra) == (clip_id, "id00012", {"origin": YT})
    assert index.notes == ["vox2_meta.csv is not in the tree: gender and set are not known"]


def test_a_cut_of_a_full_video(tmp_path: Path) -> None:
    root = tree(tmp_path, f"txt/id00012/{YT}/00001.txt", f"full videos/{YT}.mp4", f"aac/id00012/{YT}/00001.m4a")
    index = voxceleb2.index(root)
    (source,) = index.sources
    assert source.video == f"full videos/{YT}.mp4"
    assert source.audio is None  # the utterance's sound has another clock than the full video
    assert source.cut is not None
    assert (source.cut.start, source.cut.end) == (4.0, 6.0)  # frames 100 to 149 at 25 fps, the last one too
    assert (source.cut.box, source.cut.lines) == (None, None)
    wide, high = 0.30, 0.41  # of the box that holds every frame's: (0.28, 0.20, 0.30, 0.41)
    expected = (0.28 - 0.4 * wide, 0.20 - 0.4 * high, 1.8 * wide, 1.8 * high)
    assert source.cut.fractions == pytest.approx(expected, abs=1e-9)
    assert source.extra == {"origin": YT, "first_frame": "100"}
    assert not index.rejected
    ready = voxceleb2.index(tree(tmp_path, f"mp4/id00012/{YT}/00001.mp4"))  # the ready clip wins
    assert [(s.cut, s.audio) for s in ready.sources] == [(None, f"aac/id00012/{YT}/00001.m4a")]
    assert not ready.rejected


def test_pixels_are_those_of_360_lines(tmp_path: Path) -> None:
    frames = ((0, 100.5, 20, 80, 90), (24, 98, 22, 81, 90.25))
    root = tree(tmp_path, f"txt/id00012/{YT}/00001.txt", f"{YT}.mp4", txt=text(*frames))
    (source,) = voxceleb2.index(root).sources
    assert source.cut == Cut(0.0, 1.0, (98, 20, 83, 93), 360)


@pytest.mark.parametrize(
    "box",
    [(-0.1, 0.2, 0.3, 0.3), (0.8, 0.2, 0.3, 0.3), (0.2, 0.9, 0.3, 0.3), (0.1, -0.2, 0.3, 0.3), (10, 300, 80, 80)],
)
def test_a_box_outside_the_picture(tmp_path: Path, box: tuple[float, float, float, float]) -> None:
    name = f"txt/id00012/{YT}/00001.txt"
    root = tree(tmp_path, f"id00017/{YT}/00002.mp4", name, f"{YT}.mp4", txt=text((7, *box)))
    index = voxceleb2.index(root)
    assert reasons(index.rejected) == {(name, "crop_outside")}
    assert len(index.sources) == 1


def test_a_box_that_ends_at_the_edge_but_for_rounding(tmp_path: Path) -> None:
    root = tree(tmp_path, f"id00012/{YT}/00001.txt", f"{YT}.mp4", txt=text((7, 0.5, 0.7, 0.5006, 0.3004)))
    (source,) = voxceleb2.index(root).sources
    assert source.cut is not None
    assert source.cut.fractions is not None
    left, top, width, height = source.cut.fractions
    assert left + width <= 1
    assert top + height <= 1


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        ("", "no line of columns"),
        (text().replace("FRAME", "FRAMES"), "no line of columns"),
        (text().replace("\tW ", ""), "lacks W"),
        (text().replace("Reference", "Referenz"), "lacks Reference"),
        (text(identity="id00013"), "Identity 'id00013' where the path says id00012"),
        (text(youtube="AAAAAAAAAAA"), "Reference 'AAAAAAAAAAA' where the path says"),
        (text() + "000150 \t0.1 \tnan \t0.1 \t0.1 \n", "finite numbers"),
        (text() + "000150 \t0.1 \t1e308 \t0.1 \t0.1 \n", "finite numbers"),
        (text() + "000150 \t0.1 \t0.1 \n", "is no frame and box"),
        (text() + "000150 \t0.1 \tabc \t0.1 \t0.1 \n", "is no frame and box"),
        (text() + "000150 \t0.1 \t0.1 \t0 \t0.1 \n", "a box without width"),
        (text() + "000149 \t0.1 \t0.1 \t0.1 \t0.1 \n", "counted up from 0"),
        (text() + "150.5 \t0.1 \t0.1 \t0.1 \t0.1 \n", "counted up from 0"),
        (text() + "-1 \t0.1 \t0.1 \t0.1 \t0.1 \n", "counted up from 0"),
        (text() + "9" * 5000 + " \t0.1 \t0.1 \t0.1 \t0.1 \n", "counted up from 0"),
        (text().split("000100")[0], "no frame"),
        (b"\x00\xff\xfe", "no line of columns"),
    ],
)
def test_a_malformed_txt(tmp_path: Path, content: str | bytes, detail: str) -> None:
    name = f"txt/id00012/{YT}/00001.txt"
    index = voxceleb2.index(tree(tmp_path, name, f"mp4/id00012/{YT}/00001.mp4", txt=content))
    assert reasons(index.rejected) == {(name, "utterance")}
    assert detail in index.rejected[0].detail
    assert [s.extra for s in index.sources] == [{"origin": YT}]  # the clip stays
    (tmp_path / f"mp4/id00012/{YT}/00001.mp4").rename(tmp_path / f"{YT}.mp4")
    with pytest.raises(DatasetError, match="utterance"):  # a full video is not cut by it
        voxceleb2.index(tmp_path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (f"txt/id00012/{YT}/00009.txt", "no_video"),
        (f"aac/id00012/{YT}/00009.m4a", "no_video"),
        (f"test/mp4/id00017/{YT}/00001.mp4", "duplicate"),
        (f"mp4/id17/{YT}/00001.mp4", "unrecognised"),
        ("mp4/id00017/short/00001.mp4", "unrecognised"),
        (f"mp4/id00017/{YT}/1.mp4", "unrecognised"),
        (f"mp4/id00017/{YT}/00001.avi", "unrecognised"),
        (f"mp4/id00017/{YT}/.00001.mp4", "hidden"),
        (f"mp4/id00017/{YT}/000\n1.mp4", "unrecognised"),
        ("full/abcdefghijk.mp4", "no_utterance"),
    ],
)
def test_what_is_not_in_the_grammar_is_listed(tmp_path: Path, name: str, reason: str) -> None:
    index = voxceleb2.index(tree(tmp_path, f"dev/mp4/id00017/{YT}/00001.mp4", name))
    assert len(index.sources) == 1
    assert {reason for _, reason in reasons(index.rejected)} == {reason}


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        ("", "expected the columns"),
        ("id,sex\n", "expected the columns"),
        (META + "id00019, n1\n", "no row of 4 values"),
        (META + "12, n1, m, dev\n", "no row of 4 values"),
        (META + "id00012, n1, m, dev\n", "listed already"),
        (META.encode() + b"id0001\xff, n1, m, dev\n", "no row of 4 values"),
        (META + "id00019, n\x001, m, dev\n", "no row of 4 values"),
    ],
)
def test_malformed_metadata(tmp_path: Path, content: str | bytes, detail: str) -> None:
    index = voxceleb2.index(tree(tmp_path, f"id00012/{YT}/00001.mp4", "vox2_meta.csv", csv=content))
    assert reasons(index.rejected) == {("vox2_meta.csv", "meta")}
    assert detail in index.rejected[0].detail
    assert ("gender" in index.sources[0].extra) == (content[:3] in ("Vox", b"Vox"))


def test_findings(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        f"dev/mp4/id00012/{YT}/00001.mp4",
        f"test/mp4/id00012/{YT}/00002.mp4",
        f"test/mp4/id00019/{YT}/00001.mp4",
        "test/mp4/id00017/AAAAAAAAAAA/00001.mp4",
        "vox2_meta.csv",
    )
    findings = {(f.severity, f.check, f.item) for f in voxceleb2.examine(root, voxceleb2.index(root), digests=False)}
    assert findings == {
        ("warning", "meta", "id00019"),
        ("warning", "both_sets", "id00012"),
        ("note", "same_video", YT),
        ("warning", "identities", "dev"),
        ("warning", "identities", "test"),
    }


def test_a_wrong_root_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="the folder is empty"):
        voxceleb2.index(tmp_path)
    with pytest.raises(DatasetError, match="not a folder"):
        voxceleb2.index(tmp_path / "missing")
    with pytest.raises(DatasetError, match=r"no VoxCeleb2 utterance; .*1 of 1 files: unrecognised") as caught:
        voxceleb2.index(tree(tmp_path, "id00012/a\nb.mp4"))
    assert "\n" not in str(caught.value)


tokens = st.sampled_from(
    ["Identity  : \tid00012", f"Reference : \t{YT}", "FRAME \tX \tY \tW \tH ", "1 \t0 \t0 \t1 \t1 "]
)
cells = st.lists(st.sampled_from(["1", "2", "-1", "0.5", "nan", "1e999", "1e300", "9" * 400, ""]), max_size=6)
lines = st.one_of(st.text(max_size=30), tokens, cells.map("\t".join))
texts = st.lists(lines, max_size=10).map(lambda x: "\n".join(x).encode("utf-8", "ignore"))
headed = texts.map(lambda tail: text().split("000100")[0].encode() + tail)


@settings(max_examples=80)
@given(st.one_of(st.binary(max_size=60), texts, headed), st.one_of(st.binary(max_size=60), texts))
def test_any_text_ends_in_rows(txt: bytes, csv: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        names = (f"txt/id00012/{YT}/00001.txt", f"{YT}.mp4", "id00017/AAAAAAAAAAA/00001.mp4", "vox2_meta.csv")
        root = tree(Path(folder), *names, txt=txt, csv=csv)
        index = voxceleb2.index(root)
        assert list(voxceleb2.examine(root, index, digests=False))
        reasons(index.rejected)
        for source in index.sources:
            if source.cut is not None:
                assert source.cut.start < source.cut.end
                assert (source.cut.box is None) != (source.cut.fractions is None)
