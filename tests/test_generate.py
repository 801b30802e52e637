from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import clip, dataset, people, pictures, run_here

from benchmark import engine, generate, protocol, requests
from benchmark.errors import BenchError
from benchmark.generate import Method
from benchmark.protocol import Pair, Pairing, Protocol
from pipelines import media
from reference_models.base import CHUNK, Request

ASKED = Protocol("small", "A small test", "tiny", metrics=(), pairing=Pairing(reference="first-frame"))
OURS = Method("ours", "Ours", "test_generate:Ours", "none")


class Ours:
    """A generator that fails on demand: by the emotion and number of the request's seed."""

    def __init__(self, **options: object) -> None:
        self.fails = options.get("fails")

    def generate(self, request: Request) -> Iterator[np.ndarray]:
        if self.fails == request.emotion:
            raise RuntimeError("out of ideas\nand more")
        yield np.repeat(request.reference[None], request.num_frames, 0)


class Peeks:
    def generate(self, request: Request) -> Iterator[np.ndarray]:
        yield np.stack(list(request.target_frames()))


@pytest.fixture(autouse=True)
def _in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "run", run_here)
    generate._generator.cache_clear()


def load(name: str, workspace: Path) -> Method:
    return generate.load_method(name, workspace)


def test_ground_truth_and_still_are_what_they_say(tmp_path: Path) -> None:
    clips = dataset(tmp_path, people("a"), frames=40)  # more than one chunk
    for name in ("ground-truth", "still"):
        made = generate.generate(load(name, tmp_path), ASKED, tmp_path)
        assert set(made) == {row.clip_id for row in clips}
        for row in clips:
            video = generate.folder(name, ASKED, tmp_path) / f"{row.clip_id}.mp4"
            frames = np.stack(list(media.read_frames(video))).astype(float)
            real = np.stack(list(media.read_frames(tmp_path / "data" / "tiny" / row.video))).astype(float)
            wanted = real if name == "ground-truth" else np.repeat(real[:1], len(real), 0)
            assert frames.shape == wanted.shape
            assert np.abs(frames - wanted).mean() < 6  # one encoding more; other clips are 80 away
            heard = media.read_audio(video)
            said = media.read_audio(tmp_path / "data" / "tiny" / row.audio)
            assert np.corrcoef(heard[: len(said)], said)[0, 1] > 0.95


def test_shuffled_audio_is_another_pairs_sound_cut_to_length(tmp_path: Path) -> None:
    clips = dataset(tmp_path, people("a", "b"), frames=20)
    method = load("shuffled-audio", tmp_path)
    generate.generate(method, ASKED, tmp_path)
    given_to = generate.donors(protocol.pairs(clips, ASKED), ASKED.seed)
    for row in clips:
        heard = media.read_audio(generate.folder(method.name, ASKED, tmp_path) / f"{row.clip_id}.mp4")
        donor = media.read_audio(tmp_path / "data" / "tiny" / given_to[row.clip_id].target.audio)
        own = media.read_audio(tmp_path / "data" / "tiny" / row.audio)
        assert np.corrcoef(heard[: len(own)], donor[: len(heard)])[0, 1] > 0.95
        assert abs(np.corrcoef(heard[: len(own)], own)[0, 1]) < 0.5


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("stuv")), min_size=2, max_size=14), st.integers(0, 3)
)
def test_every_pair_gets_another_ones_sound_and_each_is_used_once(people: list[tuple[str, str]], seed: int) -> None:
    members = [
        Pair(row.clip_id, row, row, None, row.emotion, row.emotion)
        for i, (who, words) in enumerate(people)
        for row in [clip(f"c{i:02}", who, sentence=words)]
    ]
    given_to = generate.donors(members, seed)
    assert given_to == generate.donors(members[::-1], seed)
    assert sorted(pair.pair_id for pair in given_to.values()) == sorted(pair.pair_id for pair in members)
    assert all(pair_id != donor.pair_id for pair_id, donor in given_to.items())
    words = [pair.target.sentence for pair in members]
    same = sum(given_to[pair.pair_id].target.sentence == pair.target.sentence for pair in members)
    most = max(words.count(word) for word in words)
    assert same == max(0, 2 * most - len(words)) or same == 0  # as few as any arrangement can have


def test_one_pair_cannot_be_shuffled() -> None:
    row = clip("only")
    with pytest.raises(BenchError, match="at least two pairs"):
        generate.donors([Pair("only", row, row, None, row.emotion, row.emotion)], 0)


def test_only_what_is_missing_or_changed_is_made_again(tmp_path: Path) -> None:
    dataset(tmp_path, people("a"))
    first = generate.generate(OURS, ASKED, tmp_path)
    folder = generate.folder("ours", ASKED, tmp_path)
    stamps = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}

    def changed() -> set[str]:
        fresh = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
        found = {name.partition(".")[0] for name, stamp in fresh.items() if stamps.get(name) != stamp}
        stamps.update(fresh)
        return found

    assert generate.generate(OURS, ASKED, tmp_path) == first
    assert changed() == set()
    (folder / "a_happy_1.mp4").unlink()
    (folder / "a_happy_2.json").write_text("{")
    again = generate.generate(replace(OURS, title="New title"), ASKED, tmp_path)
    assert changed() == {"a_happy_1", "a_happy_2"}
    assert {i: m.sha256 for i, m in again.items()} == {i: m.sha256 for i, m in first.items()}  # the same bytes
    (folder / "a_neutral_1.mp4").write_bytes(b"somebody wrote over it")
    generate.generate(OURS, ASKED, tmp_path)
    assert changed() == {"a_neutral_1"}
    generate.generate(replace(OURS, options={"strength": 2}), ASKED, tmp_path)
    assert changed() == {"a_happy_1", "a_happy_2", "a_neutral_1"}
    generate.generate(replace(OURS, options={"strength": 2}), ASKED, tmp_path, fresh=True)
    assert changed() == {"a_happy_1", "a_happy_2", "a_neutral_1"}


def test_a_changed_generator_or_encoder_makes_the_videos_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset(tmp_path, people("a"))
    monkeypatch.syspath_prepend(tmp_path)
    source = tmp_path / "a_method_of_mine.py"
    source.write_text("from test_generate import Ours\n\n\nclass Mine(Ours):\n    pass\n")
    mine = replace(OURS, generator="a_method_of_mine:Mine")
    keys = [{made.key for made in generate.generate(mine, ASKED, tmp_path).values()} for _ in range(2)]
    assert keys[0] == keys[1]
    source.write_text(source.read_text() + "    better = True\n")
    keys.append({made.key for made in generate.generate(mine, ASKED, tmp_path).values()})
    monkeypatch.setattr(generate, "ENCODER", generate.ENCODER + 1)
    keys.append({made.key for made in generate.generate(mine, ASKED, tmp_path).values()})
    assert len(set.union(*keys)) == 3 * len(keys[0])


def test_a_changed_clip_is_not_given_to_a_method(tmp_path: Path) -> None:
    dataset(tmp_path, people("a"))
    data = tmp_path / "data" / "tiny"
    (data / "a_happy_1.mp4").write_bytes((data / "a_happy_2.mp4").read_bytes())
    (data / "a_neutral_1.wav").write_bytes((data / "a_happy_2.wav").read_bytes())
    made = generate.generate(OURS, ASKED, tmp_path)
    changed = "is not the file that was prepared; run `bench manifest check tiny`"
    assert {i: m.error for i, m in made.items()} == {
        "a_happy_1": f"a_happy_1.mp4: {changed}",
        "a_happy_2": None,
        "a_neutral_1": f"a_neutral_1.wav: {changed}",
    }


def test_an_output_that_cannot_be_written_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset(tmp_path, people("a"))
    fails: list[Path] = []

    def caught(function: Callable, items: Iterable, *, workers: int) -> Iterator[engine.Outcome]:
        for item in items:
            try:
                yield engine.Outcome(item, function(item), None)
            except OSError as error:
                yield engine.Outcome(item, None, error)

    def full(path: Path, *args: object, **kwargs: object) -> None:
        fails.append(path)
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(engine, "run", caught)
    monkeypatch.setattr(media, "write_video", full)
    with pytest.raises(BenchError, match=r"ours/small: cannot be written \(No space left on device\); make room"):
        generate.generate(OURS, ASKED, tmp_path)
    assert len(fails) == 1
    assert list(generate.folder("ours", ASKED, tmp_path).iterdir()) == []  # no row blames the method

    def elsewhere(path: Path, *args: object, **kwargs: object) -> None:
        raise OSError(errno.EACCES, "Permission denied", "/its/own/weights")

    monkeypatch.setattr(media, "write_video", elsewhere)
    made = generate.generate(OURS, ASKED, tmp_path)  # the method's own trouble is a row
    assert all("Permission denied" in (one.error or "") for one in made.values())


def test_what_a_killed_run_left_goes_when_it_is_old(tmp_path: Path) -> None:
    dataset(tmp_path, people("a"))
    to = generate.folder("ours", ASKED, tmp_path)
    to.mkdir(parents=True)
    old, new = to / ".part-old.mp4", to / ".part-new.mp4"
    for path in (old, new):
        path.write_bytes(b"half a video")
    os.utime(old, (0, 0))
    generate.generate(OURS, ASKED, tmp_path)
    assert not old.exists()
    assert new.exists()  # perhaps another run's


def test_a_failure_is_a_reason_and_the_others_go_on(tmp_path: Path) -> None:
    dataset(tmp_path, people("a"))
    assert all(made.error is None for made in generate.generate(OURS, ASKED, tmp_path).values())
    failing = replace(OURS, options={"fails": "happy"})
    made = generate.generate(failing, ASKED, tmp_path)
    assert {i: m.error for i, m in made.items()} == {
        "a_happy_1": "RuntimeError: out of ideas and more",
        "a_happy_2": "RuntimeError: out of ideas and more",
        "a_neutral_1": None,
    }
    folder = generate.folder("ours", ASKED, tmp_path)
    assert sorted(path.name for path in folder.glob("*.mp4")) == ["a_neutral_1.mp4"]  # no older video stays
    assert "Traceback" in json.loads((folder / "a_happy_1.json").read_text())["trace"]


def test_a_pair_without_reference_is_a_row(tmp_path: Path) -> None:
    dataset(tmp_path, [*people("a"), clip("b_happy_1", "b")])
    made = generate.generate(OURS, replace(ASKED, pairing=Pairing()), tmp_path)
    assert {i for i, m in made.items() if m.error} == {"b_happy_1"}
    assert "no neutral clip of b" in (made["b_happy_1"].error or "")


def test_real_frames_are_for_those_who_say_so(tmp_path: Path) -> None:
    dataset(tmp_path, people("a"))
    peeks = replace(OURS, generator="test_generate:Peeks")
    made = generate.generate(peeks, ASKED, tmp_path)
    assert {m.error for m in made.values()} == {
        "a one-shot method asked for the real frames; state conditioning = 'target-pose'"
    }
    open_about_it = replace(peeks, conditioning="target-pose")
    with pytest.raises(BenchError, match="ours is target-pose, protocol small is one-shot"):
        generate.generate(open_about_it, ASKED, tmp_path)
    made = generate.generate(open_about_it, replace(ASKED, conditioning="target-pose"), tmp_path)
    assert all(m.error is None for m in made.values())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no_such_module:X", "ModuleNotFoundError"),
        ("reference_models.baselines:Stil", "AttributeError"),
        ("reference_models.baselines:Still", "TypeError"),
    ],
)
def test_a_generator_that_cannot_be_built_is_one_line(tmp_path: Path, spec: str, message: str) -> None:
    dataset(tmp_path, people("a"))
    with pytest.raises(BenchError, match=message):
        generate.generate(replace(OURS, generator=spec, options={"x": 1}), ASKED, tmp_path)


def chunk(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([chunk(4, 8, 8, 3, dtype=np.float32)], "yielded float32; expected uint8"),
        ([[1, 2]], "yielded list"),
        ([chunk(8, 8, 3)], r"yielded shape \(8, 8, 3\)"),
        ([chunk(4, 3, 8, 8)], r"yielded shape \(4, 3, 8, 8\)"),
        ([chunk(CHUNK + 1, 8, 8, 3)], "t from 1 to 32"),
        ([chunk(2, 8, 8, 3), chunk(2, 10, 8, 3)], r"frames of \(10, 8\); expected even sides that stay at \(8, 8\)"),
        ([chunk(4, 7, 8, 3)], "even sides"),
        ([chunk(3, 8, 8, 3)], "yielded 3 frames; 4 were asked for"),
        ([chunk(3, 8, 8, 3), chunk(3, 8, 8, 3)], "yielded 6 frames or more; 4 were asked for"),
    ],
)
def test_the_contract_of_a_generator_is_held(chunks: list, message: str) -> None:
    with pytest.raises(generate.GenerationError, match=message):
        list(requests.checked(chunks, 4))


def test_frames_within_the_contract_pass_untouched() -> None:
    frames = np.stack(list(pictures(0, 40)))
    out = list(requests.checked([frames[:32], frames[32:]], 40))
    assert np.array_equal(np.stack(out), frames)


def test_workers_do_not_change_a_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real engine, with processes
    dataset(tmp_path, people("a"))
    method = load("shuffled-audio", tmp_path)
    one = generate.generate(method, ASKED, tmp_path, workers=1)
    two = generate.generate(method, ASKED, tmp_path, workers=2, fresh=True)
    assert {i: m.sha256 for i, m in one.items()} == {i: m.sha256 for i, m in two.items()}
