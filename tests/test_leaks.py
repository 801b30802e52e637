from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import matplotlib.cbook
import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from samples import portrait, tone, write_portrait
from tiny import clip, run_here

from benchmark import leaks, weights
from benchmark.cli import bench
from benchmark.features import Store
from benchmark.leaks import Entry, Pair, closest, examine, identity_key
from pipelines import manifest, media
from pipelines.datasets import Source
from pipelines.manifest import Clip
from pipelines.stages import Settings, prepare_clip

pytestmark = pytest.mark.usefixtures("one_pool")


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, *, fetch: bool = True) -> Path:
        raise weights.WeightsUnavailable(name, f"bench weights fetch {name}")

    monkeypatch.setattr(weights, "path", missing)


def written(workspace: Path, name: str, rows: Sequence[Clip], declared: Sequence[str] = ()) -> None:
    folder = workspace / "data" / name
    manifest.write(rows, folder / "manifest.parquet")
    (folder / "split.json").write_text(json.dumps({"shared_identities": list(declared)}))


def run(workspace: Path, *arguments: str) -> Result:
    return CliRunner().invoke(bench, ["--workspace", str(workspace), "manifest", "leaks", *arguments])


def rows_of(workspace: Path, folder: str) -> list[dict[str, str]]:
    with (workspace / "leaks" / folder / "leaks.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def told(rows: Sequence[dict[str, str]], *columns: str) -> set[tuple[str, ...]]:
    return {tuple(row[column] for column in columns) for row in rows}


def test_a_split_that_keeps_people_files_and_sounds_apart_is_clean(tmp_path: Path, no_weights: None) -> None:
    rows = [clip(f"{who}{k}", who, split=split) for who, split in (("a", "train"), ("b", "test")) for k in (1, 2)]
    written(tmp_path, "one", rows)
    result = run(tmp_path, "one")
    assert result.exit_code == 0, result.output
    assert rows_of(tmp_path, "one") == []
    assert "faces: nothing found (unavailable: arcface-w600k-mbf is not on this machine; get it with" in result.output
    assert "`bench weights fetch arcface-w600k-mbf`)" in result.output


@pytest.mark.parametrize(
    ("check", "changes", "detail"),
    [
        ("identity", {"identity": " A "}, "identity tiny:a: 1 clips of train, 1 of test"),
        ("source", {"source_sha256": "source x"}, "raw file source x: 1 clips of train, 1 of test"),
        ("source", {"extra": {"origin": "abcdefghijk"}}, "film abcdefghijk: 1 clips of train, 1 of test"),
        ("source", {"extra": {"origin": "Film0", "youtube": "abcdefghijk"}}, "film abcdefghijk: 1 clips of train"),
        ("sound", {"audio_sha256": "sound x", "emotion": "unlabelled"}, "sound sound x: 1 clips of train, 1 of test"),
    ],
)
@pytest.mark.parametrize("manifests", [("one", "one"), ("one", "two")])
def test_each_planted_leak_is_found_within_and_across_manifests(
    tmp_path: Path,
    no_weights: None,
    check: str,
    changes: dict[str, object],
    detail: str,
    manifests: tuple[str, str],
) -> None:
    one = clip("x", "a", split="train", extra={"origin": "abcdefghijk"})
    other = replace(clip("y", "b", split="test"), **changes)
    clean = clip("z", "c", split="val")
    if manifests == ("one", "one"):
        written(tmp_path, "one", [one, other, clean])
    else:
        written(tmp_path, "one", [one, clean])
        written(tmp_path, "two", [other])
    result = run(tmp_path, *dict.fromkeys(manifests))
    rows = rows_of(tmp_path, "+".join(dict.fromkeys(manifests)))
    assert result.exit_code == 1
    assert (check, "leak", f"{manifests[0]}/x", f"{manifests[1]}/y", "train", "test") in told(
        rows, "check", "severity", "a", "b", "split_a", "split_b"
    )
    assert {row["check"] for row in rows} <= {check, "sound"}
    assert any(row["detail"].startswith(detail) for row in rows)
    assert detail in result.output


def test_a_person_of_many_clips_is_one_line_for_each_two_splits(tmp_path: Path, no_weights: None) -> None:
    splits = ["train"] * 30 + ["val"] * 20 + ["test"] * 10
    written(tmp_path, "one", [clip(f"c{k}", split=split) for k, split in enumerate(splits)])
    rows = rows_of(tmp_path, "one") if run(tmp_path, "one").exit_code == 1 else []
    assert [row["detail"].partition(": ")[2] for row in rows] == [
        "30 clips of train, 20 of val",
        "30 clips of train, 10 of test",
        "20 clips of val, 10 of test",
    ]


def test_text_shows_ten_examples_and_counts_the_rest(tmp_path: Path, no_weights: None) -> None:
    people = [f"p{k:02}" for k in range(13)]
    written(tmp_path, "one", [clip(f"{who}{split}", who, split=split) for who in people for split in ("train", "test")])
    output = run(tmp_path, "one").output
    assert "identity: 13 leak" in output
    assert output.count("  leak: ") == 10
    assert "  ... and 3 more" in output
    assert len(rows_of(tmp_path, "one")) == 13


def test_overlap_that_the_split_declares_is_told_and_is_no_leak(tmp_path: Path, no_weights: None) -> None:
    halves = [clip("x", "a", split="train"), clip("y", "a", split="test")]
    written(tmp_path, "half", halves, declared=["a"])
    assert run(tmp_path, "half").exit_code == 0
    assert told(rows_of(tmp_path, "half"), "check", "severity") == {("identity", "declared")}
    # The same person again, in a split that the first manifest covers, and in one that it does not.
    written(tmp_path, "train", [clip("x2", "a", split="train")])
    written(tmp_path, "val", [clip("x3", "a", split="val")])
    assert run(tmp_path, "half", "train").exit_code == 0
    assert run(tmp_path, "half", "val").exit_code == 1
    # Declared in one manifest says nothing of another's own overlap.
    written(tmp_path, "silent", [replace(c, clip_id=f"s{c.clip_id}", audio_sha256=c.clip_id) for c in halves])
    assert run(tmp_path, "half", "silent").exit_code == 1


def test_one_sound_under_two_labels_is_a_leak_in_any_split(tmp_path: Path, no_weights: None) -> None:
    written(tmp_path, "one", [clip("x", emotion="happy"), clip("y", emotion="sad", audio_sha256="sound x")])
    assert run(tmp_path, "one").exit_code == 1
    [row] = rows_of(tmp_path, "one")
    assert (row["a"], row["b"]) == ("one/x", "one/y")
    assert row["detail"] == "sound sound x of 2 clips under 2 labels (emotion): happy, sad"
    written(tmp_path, "two", [clip("x", "a"), clip("y", "b", audio_sha256="sound x")])
    assert run(tmp_path, "two").exit_code == 1
    assert rows_of(tmp_path, "two")[0]["detail"].endswith("(identity): tiny:a, tiny:b")


def test_a_sound_given_to_portraits_or_without_a_label_contradicts_nothing(tmp_path: Path, no_weights: None) -> None:
    stills = [clip(who, who, "unlabelled", video=f"{who}.png", audio_sha256="one") for who in ("x", "y")]
    labels = [clip("s", "s", "happy", audio_sha256="two"), clip("t", "s", "unlabelled", audio_sha256="two")]
    written(tmp_path, "one", stills + labels)
    result = run(tmp_path, "one")
    assert result.exit_code == 0, result.output


def test_a_dataset_prepared_twice_is_known_by_its_own_name(tmp_path: Path, no_weights: None) -> None:
    for name, split in (("mead", "train"), ("mead-portrait", "test")):
        rows = [clip(name, "M003", dataset="mead", split=split), clip(f"{name}2", "W009", dataset="mead")]
        written(tmp_path, name, rows)
    elsewhere = [clip("other", "M003", dataset="somebody's", split="test")]
    written(tmp_path, "other", elsewhere)
    run(tmp_path, "mead", "mead-portrait")
    run(tmp_path, "mead", "other")
    assert told(rows_of(tmp_path, "mead+mead-portrait"), "check", "a", "b") == {
        ("identity", "mead/mead", "mead-portrait/mead-portrait")
    }
    assert rows_of(tmp_path, "mead+other") == []


def test_names_of_people_are_compared_and_codes_stay_with_their_dataset() -> None:
    assert identity_key("hdtf", "BarackObama1") == identity_key("hdtf", " barack-obama 0") == "barackobama"
    assert identity_key("hdtf", "\uff22arackObama") == "barackobama"  # a full-width B
    assert identity_key("mead", "M003") == "mead:m003" != identity_key("mead", "M030")
    assert identity_key("ravdess", "03") != identity_key("tiny", "03")
    assert identity_key("tiny", "...") == "tiny:..."  # nothing else is left of it


@given(st.text(min_size=1), st.sampled_from(["", " ", "-", "_.", "\t"]), st.sampled_from([str, str.title]))
def test_blanks_and_punctuation_do_not_make_another_person(name: str, blank: str, change: Callable) -> None:
    plain = identity_key("tiny", f"x{name}")
    assert identity_key("tiny", f"{blank}x{blank}{name}{blank}") == plain
    ascii_name = name.encode("ascii", "ignore").decode()
    assert identity_key("tiny", f"x{change(ascii_name)}") == identity_key("tiny", f"x{ascii_name}")


def test_manifests_by_path_with_one_folder_name_stay_apart(tmp_path: Path, no_weights: None) -> None:
    for lab, split in (("one", "train"), ("two", "test")):
        written(tmp_path / lab, "mead", [clip("x", dataset="mead", split=split)])
    paths = [str(tmp_path / lab / "data" / "mead" / "manifest.parquet") for lab in ("one", "two")]
    found = examine([*paths, paths[0]], tmp_path / "work")  # given twice, read once
    assert found.clips == 2
    assert {(leak.a, leak.b) for leak in found.leaks} == {("mead/x", "mead~2/x")}
    assert found.folder == tmp_path / "work" / "leaks" / "mead+mead~2"


def test_a_missing_manifest_is_one_line(tmp_path: Path) -> None:
    result = run(tmp_path, "nothing")
    assert result.exit_code == 1
    assert "no such manifest; `bench prepare` writes it" in result.output
    assert result.output.count("\n") == 1


def prepared(root: Path, folder: Path, identity: str, split: str, video: str, audio: str | None = None) -> Clip:
    source = Source(f"{identity}_1", "tiny", identity, "unlabelled", None, "front", None, "1", video, audio)
    return prepare_clip(source, root, folder, Settings(), split, "test")


@pytest.fixture(scope="module")
def lookalikes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace: one swaying astronaut under two names in two splits, Grace Hopper as a still, and a clip that is
    not the one that was prepared."""
    root, workspace = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("work")
    folder = workspace / "data" / "tiny"
    write_portrait(root / "a.mp4")
    darker = (frame // 2 for frame in portrait(shift=16))
    media.write_video(root / "b.mp4", darker, 25, audio=tone(1, 48_000, 330), sample_rate=48_000)
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        hopper = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)[:420, 60:480, ::-1]
    media.write_png(root / "c.png", hopper)
    media.write_wav(root / "c.wav", tone(1, hertz=440))
    rows = [
        prepared(root, folder, "ann", "train", "a.mp4"),
        prepared(root, folder, "ben", "test", "b.mp4"),
        prepared(root, folder, "grace", "test", "c.png", "c.wav"),
        prepared(root, folder, "gone", "val", "a.mp4"),
    ]
    rows[3] = replace(rows[3], source_sha256="another", audio_sha256="another", sha256="another")
    manifest.write(rows, folder / "manifest.parquet")
    return workspace


def need_network() -> None:
    try:
        weights.path("arcface-w600k-mbf", fetch=False)
    except weights.WeightsUnavailable as missing:
        pytest.skip(str(missing))


def test_one_face_under_two_names_is_found_and_another_is_not(
    lookalikes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_network()
    result = run(lookalikes, "tiny", "--workers", "1")
    assert result.exit_code == 1, result.output
    rows = rows_of(lookalikes, "tiny")
    assert told(rows, "check", "severity", "a", "b", "split_a", "split_b") == {
        ("faces", "suspect", "tiny/ann_1", "tiny/ben_1", "train", "test"),
        ("faces", "unread", "tiny/gone_1", "", "val", ""),
    }
    detail = {row["severity"]: row["detail"] for row in rows}
    reason = "clips/gone_1.mp4: is not the file that was prepared; run `bench manifest check tiny`"
    assert detail["unread"] == reason
    assert float(detail["suspect"].split()[1]) > 0.9
    assert "3 of 4 clips compared" in result.output

    # The sheet shows the two faces, side by side.
    sheet = cv2.imread(str(lookalikes / "leaks" / "tiny" / "faces.png"))[..., ::-1]
    clips = {c.identity: c for c in manifest.read(lookalikes / "data" / "tiny" / "manifest.parquet")}
    step = leaks.FACE + leaks.MARGIN
    assert sheet.shape[0] == 2 * step
    for column, who in enumerate(("ann", "ben")):
        face = leaks.aligned(Entry("tiny", lookalikes / "data" / "tiny", clips[who], who))
        assert face.shape == (3, 112, 112, 3)
        x = leaks.MARGIN + column * step
        shown = sheet[step : step + leaks.FACE, x : x + leaks.FACE]
        np.testing.assert_array_equal(shown, cv2.resize(face[1], (leaks.FACE,) * 2, interpolation=cv2.INTER_CUBIC))

    # A second run reads the store alone; a higher threshold leaves nothing, nor an old sheet.
    entries = [Entry("tiny", lookalikes / "data" / "tiny", clips[who], who) for who in ("ann", "ben", "grace")]
    monkeypatch.setattr(leaks.engine, "run", lambda *_, **__: pytest.fail("computed again"))
    found, _, pairs = leaks.faces(entries, Store(lookalikes / "features"), -1.0, 1)
    assert [leak.severity for leak in found] == ["suspect", "suspect"]
    assert {(p.a, p.b) for p in pairs[1:]} == {(0, 2)}
    assert pairs[1].cosine < 0.3
    monkeypatch.undo()
    assert run(lookalikes, "tiny", "--threshold", "0.9999", "--workers", "1").exit_code == 0
    assert not (lookalikes / "leaks" / "tiny" / "faces.png").exists()


def test_the_sheet_shows_forty_pairs_in_plain_letters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(leaks.cv2, "putText", lambda _picture, text, *_: drawn.append(text))
    monkeypatch.setattr(leaks.engine, "run", run_here)
    monkeypatch.setattr(leaks, "_face", lambda _item: np.full((112, 112, 3), 7, np.uint8))
    entries = [Entry("tiny", tmp_path, clip(f"Žofie\n{k}", "ž" * 80), str(k)) for k in range(84)]
    picture = leaks.sheet(entries, [Pair(k, 83 - k, 0.5) for k in range(42)], workers=1)
    assert picture.shape[0] == (leaks.FACE + leaks.MARGIN) * (leaks.ROWS + 1)
    assert (picture[-20, leaks.MARGIN] == 7).all()
    assert any("40 of 42 pairs" in text and "2 more in leaks.csv" in text for text in drawn)
    assert any("\\u017dofie\\n0" in text for text in drawn)
    assert all(text.isascii() and text.isprintable() and len(text) < 80 for text in drawn)


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from([-0.5, 0.0, 0.5]), min_size=4, max_size=4),
            st.integers(0, 3),
            st.integers(0, 2),
        ),
        max_size=24,
    ),
    st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0]),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
)
def test_the_search_in_blocks_equals_brute_force(
    clips: list[tuple[list[float], int, int]], threshold: float, block: tuple[int, int]
) -> None:
    """Quarters are exact in float32, so that nothing need be tolerated."""
    expected: dict[frozenset[int], float] = {}
    for vector, person, split in clips:
        for other, somebody, elsewhere in clips:
            cosine = float(np.dot(vector, other))
            if person != somebody and split != elsewhere and cosine >= threshold:
                who = frozenset((person, somebody))
                expected[who] = max(expected.get(who, -2.0), cosine)
    vectors = np.array([c[0] for c in clips], np.float32).reshape(-1, 4)
    people, splits = (np.array([c[k] for c in clips], np.int64) for k in (1, 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leaks, "BLOCK", block)
        found = closest(vectors, people, splits, threshold)
    assert {frozenset((int(people[p.a]), int(people[p.b]))): p.cosine for p in found} == expected
    assert len(found) == len(expected)
    assert all(splits[p.a] != splits[p.b] and float(vectors[p.a] @ vectors[p.b]) == p.cosine for p in found)
    assert [p.cosine for p in found] == sorted((p.cosine for p in found), reverse=True)
