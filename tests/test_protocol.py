from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import tone
from tiny import PROTOCOL, clip, dataset, people, protocol_file

from benchmark import configs, generate, protocol
from benchmark.errors import BenchError
from benchmark.protocol import Pairing, Prepared, Protocol, Select
from pipelines import manifest, media
from pipelines.media import MediaError

SMALL = Protocol("small", "A small test", "tiny", metrics=("psnr/frame-mean",))


def test_the_shipped_files_load_and_name_themselves(tmp_path: Path) -> None:
    for name in configs.available("protocols", tmp_path):
        assert protocol.load(name, tmp_path).name == name
    methods = configs.available("methods", tmp_path)
    assert set(methods) >= {"ground-truth", "still", "shuffled-audio"}
    for name in methods:
        assert generate.load_method(name, tmp_path).name == name


def test_a_protocol_is_found_by_path_then_in_the_workspace_then_in_the_package(tmp_path: Path) -> None:
    own = protocol_file(tmp_path, PROTOCOL.replace('"small"', '"demo"'), "demo")
    assert protocol.load("demo", tmp_path).title == "A small test"
    assert protocol.load(str(own), tmp_path / "elsewhere").title == "A small test"
    assert protocol.load("demo", tmp_path / "elsewhere").dataset == "demo"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PROTOCOL + 'metric = "x"', "unknown key 'metric'; did you mean 'metrics'"),
        (PROTOCOL + "[select]\nspilt = 'test'", "unknown key 'spilt'; did you mean 'split'"),
        (PROTOCOL + 'conditioning = "oneshot"', "conditioning = 'oneshot'; it takes 'one-shot' or 'target-pose'"),
        (PROTOCOL + 'seed = "0"', "seed = '0'; expected int"),
        (PROTOCOL + "seed = true", "seed = True; expected int"),
        (PROTOCOL.replace("[", "[1, "), "metrics = 1; expected str"),
        (PROTOCOL.replace('title = "A small test"', ""), "the key 'title' is missing"),
        (PROTOCOL.replace('name = "small"', 'name = "../up"'), "name = '../up' must be letters"),
        (PROTOCOL.replace('name = "small"', 'name = "other"'), "name = 'other'; expected 'small', that of the file"),
        (PROTOCOL.replace("frames_per_clip = 3", "frames_per_clip = -1"), "frames_per_clip = -1; expected a number"),
        (
            PROTOCOL + 'columns = ["colour/sett"]',
            "columns has 'colour/sett', which is none of its metrics; did",
        ),
        ("name = ", "not a TOML file"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_the_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BenchError) as raised:
        protocol.load(str(protocol_file(tmp_path, text)), tmp_path)
    assert message in raised.value.message
    assert "\n" not in raised.value.message


def test_a_method_never_takes_the_name_of_a_shipped_one(tmp_path: Path) -> None:
    shipped = configs.available("methods", tmp_path)["still"]
    assert generate.load_method(str(shipped), tmp_path) == generate.load_method("still", tmp_path)
    own = tmp_path / "methods" / "still.toml"
    own.parent.mkdir()
    own.write_text(shipped.read_text(encoding="utf-8").replace("Still", "Better"), encoding="utf-8")
    for asked in ("still", str(own)):
        with pytest.raises(BenchError, match="'still' is the name of a method of the package"):
            generate.load_method(asked, tmp_path)
    own.rename(own.with_name(".part-x.toml"))
    assert set(configs.available("methods", tmp_path)) == set(configs.shipped("methods"))


def test_an_unknown_name_suggests_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="did you mean 'demo'"):
        protocol.load("dmeo", tmp_path)
    with pytest.raises(BenchError, match="no such file"):
        protocol.load("missing.toml", tmp_path)


def test_the_digest_follows_what_changes_numbers_and_nothing_else() -> None:
    assert replace(SMALL, title="Other", metrics=("x",), columns=("x",)).digest == SMALL.digest
    for change in (
        {"seed": 1},
        {"frames_per_clip": 5},
        {"select": Select(levels=(3,))},
        {"eval_crop": "common-detector"},
    ):
        assert replace(SMALL, **change).digest != SMALL.digest


def test_the_reference_is_a_neutral_clip_of_the_person_not_the_target_and_other_words_if_possible() -> None:
    rows = [
        clip("a_n1", "a", "neutral", sentence="s1"),
        clip("a_n2", "a", "neutral", sentence="s2"),
        clip("a_h1", "a", "happy", sentence="s1"),
        clip("a_h2", "a", "happy", sentence="s2"),
        clip("a_n3_side", "a", "neutral", sentence="s3", view="left_30"),
        clip("b_n1", "b", "neutral", sentence="s3"),
        clip("b_h1", "b", "happy", sentence="s3"),
        clip("c_h1", "c", "happy"),
    ]
    found = {p.pair_id: p for p in protocol.pairs(rows, SMALL)}
    assert set(found) == {"a_n1", "a_n2", "a_h1", "a_h2", "b_n1", "b_h1", "c_h1"}  # the side view is not selected
    chosen = {i: p.reference.clip_id if p.reference else None for i, p in found.items()}
    assert chosen["a_h1"] == "a_n2"
    assert chosen["a_h2"] == "a_n1"
    assert chosen["a_n1"] == "a_n2"
    assert chosen["b_h1"] == "b_n1"  # the same words, for want of others
    assert chosen["b_n1"] == "b_n1"  # itself, for want of others
    assert chosen["c_h1"] is None  # a reason, not a crash
    assert "no neutral clip of c" in (found["c_h1"].error or "")
    assert found["a_h1"].emotion_video is not None
    assert found["a_h1"].emotion_video.clip_id == "a_h2"
    assert found["b_h1"].emotion_video is None


def test_self_and_first_frame_use_the_target() -> None:
    asked = replace(SMALL, pairing=Pairing(reference="first-frame", emotion_video="self"))
    for pair in protocol.pairs([clip("a_h1", emotion="unlabelled")], asked):
        assert pair.reference is pair.target is pair.emotion_video
        assert pair.error is None


EMOTION_ANCHOR = replace(
    SMALL,
    select=Select(emotions=("neutral",), levels=(3,)),
    pairing=Pairing(each="source", emotions=("happy", "neutral", "sad"), reference="source"),
)


def test_each_neutral_source_with_the_sound_of_each_emotion() -> None:
    rows = [
        clip("a_n1", "a", "neutral"),
        clip("a_n2", "a", "neutral"),
        clip("a_h1", "a", "happy", intensity=1),
        clip("a_h3", "a", "happy", intensity=3),
        clip("a_h3b", "a", "happy", intensity=3),
    ]
    found = {pair.pair_id: pair for pair in protocol.pairs(rows, EMOTION_ANCHOR)}
    assert list(found) == [f"a_n{k}--{e}" for k in (1, 2) for e in ("happy", "neutral", "sad")]
    happy = found["a_n1--happy"]
    assert happy.reference is not None
    assert happy.reference.clip_id == "a_n1"
    assert happy.target.clip_id in ("a_h3", "a_h3b")  # of the level that is selected
    assert happy.emotion_video is not None
    assert {happy.target.clip_id, happy.emotion_video.clip_id} == {"a_h3", "a_h3b"}
    assert (happy.emotion, happy.prompt, happy.error) == ("happy", "happy", None)
    assert found["a_n1--neutral"].target.clip_id == "a_n2"  # another sound than the source's own
    assert found["a_n1--sad"].error == "no sad clip of a (test, front) to take the sound from"


def test_portraits_take_a_random_video_of_each_emotion() -> None:
    pairing = Pairing("portrait", ("happy", "sad"), "first-frame", "random", "mead")
    asked = replace(SMALL, pairing=pairing)
    faces = [clip(f"p{k}", f"p{k}", "unlabelled", video=f"p{k}.png", intensity=None) for k in range(8)]
    shows = [clip(f"m_h{k}", "m", "happy", dataset="mead") for k in range(8)]
    shows.append(clip("m_h_train", "m", "happy", split="train"))
    found = protocol.pairs(faces, asked, shows)
    assert [pair.pair_id for pair in found] == [f"p{k}--{e}" for k in range(8) for e in ("happy", "sad")]
    assert all(pair.reference is pair.target and pair.target.still for pair in found)
    assert {pair.emotion for pair in found} == {"happy", "sad"}
    drawn = [pair.emotion_video.clip_id for pair in found if pair.emotion_video]
    assert len(drawn) == 8
    assert len(set(drawn)) > 1
    assert "m_h_train" not in drawn
    assert {pair.error for pair in found if pair.emotion == "sad"} == {"no sad clip in mead (test, front)"}
    assert found == protocol.pairs(faces[::-1], asked, shows[::-1])


def test_a_neutral_prompt_does_not_label_the_clip() -> None:
    asked = replace(SMALL, pairing=Pairing(reference="first-frame", emotion_video="self", prompt="neutral"))
    (pair,) = protocol.pairs([clip("a", emotion="unlabelled")], asked)
    assert (pair.prompt, pair.emotion) == ("neutral", "unlabelled")


@pytest.mark.parametrize(
    ("pairing", "message"),
    [
        ('each = "source"', "pairing.emotions goes with each"),
        ('emotions = ["happy"]', "pairing.emotions goes with each"),
        ('each = "source"\nemotions = ["hapy"]', "'hapy'; did you mean 'happy'"),
        ('emotion_video = "random"', "emotion_dataset goes with emotion_video = 'random'"),
        ('emotion_dataset = "mead"', "emotion_dataset goes with emotion_video = 'random'"),
        ('reference = "source"', "reference = 'source' goes with each = 'source'"),
        ('each = "portrait"\nemotions = ["happy"]', "each = 'portrait' goes with reference = 'first-frame'"),
    ],
)
def test_pairings_that_contradict_themselves(tmp_path: Path, pairing: str, message: str) -> None:
    path = protocol_file(tmp_path, f"{PROTOCOL}\n[pairing]\n{pairing}\n")
    with pytest.raises(BenchError, match=message) as caught:
        protocol.load(str(path), tmp_path)
    assert "\n" not in str(caught.value)


def test_the_papers_protocols_say_how_to_prepare(tmp_path: Path) -> None:
    names = [name for name in configs.shipped("protocols") if not name.startswith("demo")]
    assert len(names) == 6
    for name in names:
        asked = protocol.load(name, tmp_path)
        command = asked.prepared.command(asked.dataset)
        assert command in (Path(protocol.__file__).parent / "protocols" / f"{name}.toml").read_text()
        with pytest.raises(BenchError, match=f"no such manifest; `{command}` makes it"):
            protocol.members(asked, tmp_path)


@pytest.mark.parametrize(
    ("prepared", "message"),
    [
        (Prepared(split="eat-mead"), "has split of which no split.json tells, expected eat-mead; `bench prepare tiny"),
        (Prepared(crop="portrait"), "has crop square, expected portrait"),
        (Prepared(size=512), "has size 48, expected 512"),
        (Prepared(dataset="mead"), "has dataset tiny, expected mead"),
    ],
)
def test_data_prepared_otherwise_is_refused(tmp_path: Path, prepared: Prepared, message: str) -> None:
    dataset(tmp_path, people("a"), frames=3)
    with pytest.raises(BenchError, match=message):
        protocol.read_clips(replace(SMALL, prepared=prepared), tmp_path)


def test_export_of_portraits(tmp_path: Path) -> None:
    dataset(tmp_path, people("a"), frames=3)
    folder = tmp_path / "data" / "faces"
    media.write_png(folder / "p.png", np.full((48, 64, 3), 90, np.uint8))
    media.write_wav(folder / "p.wav", tone(0.4))
    row = clip("p", "p", "unlabelled", dataset="faces", video="p.png", num_frames=10, intensity=None)
    digests = {"sha256": media.file_sha256(folder / "p.png"), "audio_sha256": media.file_sha256(folder / "p.wav")}
    manifest.write([replace(row, **digests)], folder / "manifest.parquet")
    asked = replace(SMALL, dataset="faces", pairing=Pairing("portrait", ("happy",), "first-frame", "random", "tiny"))
    (line,) = protocol.export(asked, tmp_path, tmp_path / "out")
    assert (line["pair_id"], line["emotion"], line["target_video"], line["error"]) == ("p--happy", "happy", "", "")
    assert line["emotion_video"].startswith("videos/a_happy_")
    assert line["num_frames"] == "10"
    assert (tmp_path / "out" / line["emotion_video"]).is_file()
    picture = cv2.imread(str(tmp_path / "out" / line["reference"]))
    assert picture.shape == (48, 64, 3)
    assert np.all(picture == 90)


def test_levels_hold_for_emotional_clips_only() -> None:
    rows = [clip("n", emotion="neutral"), clip("h1"), clip("h2", intensity=2), clip("h3", intensity=3)]
    asked = replace(SMALL, select=Select(levels=(2,)))
    assert [p.pair_id for p in protocol.pairs(rows, asked)] == ["h2", "n"]


def test_selecting_nothing_says_what_was_asked() -> None:
    with pytest.raises(BenchError, match=r"none of the 1 clips of tiny is selected by .*'split': 'val'"):
        protocol.pairs([clip("x")], replace(SMALL, select=Select(split="val")))


@given(st.permutations(people("a", "b", "c")), st.integers(0, 5))
def test_pairs_do_not_depend_on_the_order_of_the_manifest(rows: list, seed: int) -> None:
    asked = replace(SMALL, seed=seed)
    assert protocol.pairs(rows, asked) == protocol.pairs(people("a", "b", "c"), asked)


def test_seeded_numbers_are_fixed_forever() -> None:
    assert protocol.seeded(0, "a", "b") == 6351099487293288694  # changing them would change every protocol
    assert protocol.seeded(0, "ab") != protocol.seeded(0, "a", "b")


def test_a_changed_clip_is_not_exported(tmp_path: Path) -> None:
    dataset(tmp_path, people("a"), frames=3)
    video = tmp_path / "data" / "tiny" / "a_neutral_1.mp4"
    video.write_bytes(video.read_bytes() + b" ")
    with pytest.raises(MediaError, match=r"a_neutral_1\.mp4: is not the file that was prepared; run `bench manifest"):
        protocol.export(SMALL, tmp_path, tmp_path / "export")


def test_export_writes_all_that_an_outside_method_needs_and_is_idempotent(tmp_path: Path) -> None:
    dataset(tmp_path, [*people("a"), clip("b_happy_1", "b")], frames=3)
    to = tmp_path / "export with ünicode"
    asked = replace(SMALL, pairing=Pairing(emotion_video="cross"))
    protocol.export(asked, tmp_path, to)
    before = {path: path.read_bytes() for path in to.rglob("*") if path.is_file()}
    rows = list(csv.DictReader((to / "pairs.csv").open(encoding="utf-8")))
    assert [row["pair_id"] for row in rows] == ["a_happy_1", "a_happy_2", "a_neutral_1", "b_happy_1"]
    assert (rows[0]["emotion"], rows[0]["identity"], rows[0]["num_frames"], rows[0]["fps"]) == ("happy", "a", "3", "25")
    for row in rows[:2]:
        for column in ("reference", "audio", "target_video", "emotion_video"):
            assert (to / row[column]).is_file()
    assert rows[0]["emotion_video"] == rows[1]["target_video"]
    assert rows[3]["error"].startswith("no neutral clip of b")
    assert rows[3]["reference"] == ""
    (to / rows[0]["audio"]).write_bytes(b"damaged")
    protocol.export(asked, tmp_path, to)
    assert {path: path.read_bytes() for path in to.rglob("*") if path.is_file()} == before
