from __future__ import annotations

import errno
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import tiny
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from samples import tone, write_portrait
from tiny import MeanColour, dataset, people, pictures, protocol_file

from benchmark import engine, evaluate, extraction, matching, protocol, views
from benchmark.cli import bench
from benchmark.errors import BenchError
from benchmark.evaluate import Settings
from benchmark.features import Store
from benchmark.generate import folder, load_method
from benchmark.protocol import Pair, Protocol
from benchmark.publish import publish
from benchmark.views import ViewError, fan_out
from leaderboards import results
from leaderboards.results import Result
from metrics import base
from metrics.networks.arcface import ArcFace
from pipelines import media


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Protocol:
    """A workspace in tmp_path with two people, the metrics of tiny.py, and no processes."""
    base.names()  # the real ones first
    for item in tiny.COLOUR:
        table = base._METRICS if isinstance(item, base.Metric) else base._EXTRACTORS
        monkeypatch.setitem(table, item.name, item)
    monkeypatch.setattr(engine, "run", tiny.run_here)
    extraction._build.cache_clear()
    dataset(tmp_path, people("a", "b"))
    protocol_file(tmp_path, tiny.PROTOCOL + '[pairing]\nreference = "first-frame"\n')
    return protocol.load("small", tmp_path)


def rows_of(workspace: Path, method: str) -> dict[tuple[str, str | None], Result]:
    found = results.read(workspace / "results" / "small" / f"{method}.parquet")
    return {(row.metric, row.clip_id): row for row in found}


# --- one decode feeds all ----------------------------------------------------------------------------------------


@given(st.integers(0, 40), st.lists(st.integers(0, 45), min_size=1, max_size=5))
def test_each_consumer_sees_the_same_items_however_many_it_takes(count: int, takes: list[int]) -> None:
    consumers = {i: lambda items, n=n: list(islice(items, n)) for i, n in enumerate(takes)}
    assert fan_out(iter(range(count)), consumers) == {i: list(range(min(n, count))) for i, n in enumerate(takes)}


def test_a_consumer_that_fails_or_stops_early_disturbs_nobody() -> None:
    def fails(items: Iterable[int]) -> int:
        next(iter(items))
        raise RuntimeError("mine")

    def never_reads(items: Iterable[int]) -> str:
        return "done"

    found = fan_out(iter(range(100)), {"sum": sum, "fails": fails, "idle": never_reads})
    assert found["sum"] == sum(range(100))
    assert found["idle"] == "done"
    assert isinstance(found["fails"], RuntimeError)


def test_a_source_that_fails_ends_every_consumer_and_is_raised() -> None:
    ended = []

    def source() -> Iterator[int]:
        yield from range(5)
        raise ViewError("the disk is gone")

    def consumer(items: Iterable[int]) -> int:
        try:
            return sum(items)
        finally:
            ended.append(True)

    before = threading.active_count()
    with pytest.raises(ViewError, match="the disk is gone"):
        fan_out(source(), {1: consumer, 2: consumer, "early": lambda items: next(iter(items))})
    assert len(ended) == 2
    assert threading.active_count() == before


def test_a_slow_consumer_holds_the_source_back() -> None:
    made = []

    def source() -> Iterator[int]:
        for i in range(20):
            made.append(i)
            yield i

    ahead = []

    def slow(items: Iterable[int]) -> int:
        for i in items:
            time.sleep(0.002)
            ahead.append(len(made) - i)
        return 0

    fan_out(source(), {"slow": slow, "fast": list})
    assert max(ahead) <= 5  # two that wait, one in each hand


class Seen:
    """An extractor that keeps what it is shown."""

    id = "seen@1"

    def __init__(self, *wanted: str) -> None:
        self.views = wanted

    def __call__(self, chunks: Iterable[base.ClipViews]) -> dict[str, np.ndarray]:
        self.chunks = list(chunks)
        return {"index": np.concatenate([chunk.index for chunk in self.chunks])}


def source(path: Path) -> views.Source:
    digest = media.file_sha256(path)
    return views.Source(path, digest, path, digest)


def opened(path: Path, store: Path, frames: int | None = None, crop: int | None = None) -> views.Video:
    seen = views.survey(source(path), Store(store))
    return views.Video(source(path), seen, frames or seen.num_frames, crop)


def test_every_extractor_gets_its_views_of_its_frames_and_no_others(tmp_path: Path) -> None:
    path = write_portrait(tmp_path / "face.mp4", seconds=2.8)
    own = opened(path, tmp_path)
    assert own.num_frames == 70
    whole, five, sound, pair = (
        Seen("frames"),
        Seen("frames:5"),
        Seen("landmarks", "waveform"),
        Seen("frames", "real.frames"),
    )
    aligned = Seen("aligned112:3", "real.aligned112:3")
    found = views.extract(own, own, {s: s for s in (whole, five, sound, pair, aligned)})
    index = {s: found[s]["index"].tolist() for s in found}  # type: ignore[index]
    assert index[whole] == index[sound] == index[pair] == list(range(70))
    assert index[five] == [7, 21, 35, 49, 63]
    assert index[aligned] == [11, 35, 58]
    frames = np.stack(list(media.read_frames(path)))
    assert [len(c.index) for c in whole.chunks] == [32, 32, 6]
    assert np.array_equal(np.concatenate([c.view("frames") for c in whole.chunks]), frames)
    assert np.array_equal(np.concatenate([c.view("frames") for c in five.chunks]), frames[index[five]])
    assert whole.chunks[0].landmarks is whole.chunks[0].waveform is whole.chunks[0].real is None
    wave = np.concatenate([c.view("waveform") for c in sound.chunks])
    assert np.array_equal(wave, media.read_audio(path)[: 70 * 640])
    assert np.array_equal(np.concatenate([c.view("landmarks") for c in sound.chunks]), own.points)
    for c in pair.chunks:
        assert c.real is not None
        assert np.array_equal(c.view("frames"), c.real.view("frames"))
    for c in aligned.chunks:
        assert c.view("aligned112").shape == (len(c.index), 112, 112, 3)
        assert c.found is not None
        assert c.found.all()
        assert c.view("aligned112").std() > 20


@pytest.mark.parametrize(("frames", "count"), [(5, 5), (4, 5), (1, 5), (100, 3)])
def test_spread_frames_are_the_middles_of_equal_stretches(frames: int, count: int) -> None:
    index = views.Wanted.of(Seen(f"frames:{count}")).indices(frames)
    if frames <= count:
        assert index.tolist() == list(range(frames))
    else:
        assert index.tolist() == [int((k + 0.5) * frames / count) for k in range(count)]


def test_a_view_nobody_makes_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="asks for the view 'depth'"):
        views.Wanted.of(Seen("depth"))
    with pytest.raises(ValueError, match="different numbers of frames"):
        views.Wanted.of(Seen("frames:5", "waveform"))


def test_the_face_is_looked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_portrait(tmp_path / "face.mp4")
    first = views.survey(source(path), Store(tmp_path))
    assert first.size == (256, 256)
    assert first.found.all()
    monkeypatch.setattr(views.faces, "track", lambda *a, **k: pytest.fail("looked again"))
    again = views.survey(source(path), Store(tmp_path))
    assert np.array_equal(again.points, first.points)


def test_the_common_crop_removes_different_framing(tmp_path: Path) -> None:
    path = write_portrait(tmp_path / "face.mp4")
    wide = [np.pad(frame, ((60, 20), (10, 70), (0, 0))) for frame in media.read_frames(path)]
    media.write_video(tmp_path / "wide.mp4", wide, 25)
    one, other = (opened(p, tmp_path / "features", crop=128) for p in (path, tmp_path / "wide.mp4"))
    assert one.size == other.size == (128, 128)
    assert np.abs(one.points - other.points)[..., :2].max() < 4  # pixels of 128
    a, b = (np.stack(list(video.frames())).astype(float)[:, 16:-16, 16:-16] for video in (one, other))
    assert np.abs(a - b).mean() < 12
    media.write_video(tmp_path / "noise.mp4", pictures(0, 6), 25)
    with pytest.raises(ViewError, match="no face in any frame"):
        opened(tmp_path / "noise.mp4", tmp_path / "features", crop=128)


def test_sound_that_ends_too_early_fails_only_those_who_listen(tmp_path: Path) -> None:
    media.write_video(tmp_path / "short.mp4", pictures(0, 50), 25, audio=tone(1.0))
    own = opened(tmp_path / "short.mp4", tmp_path)
    found = views.extract(own, None, {"eye": Seen("frames"), "ear": Seen("waveform")})
    assert isinstance(found["ear"], ViewError)
    assert "the sound lasts 1.0" in str(found["ear"])
    assert not isinstance(found["eye"], Exception)


# --- scores ------------------------------------------------------------------------------------------------------


def test_a_table_of_two_methods_by_hand(tmp_path: Path, small: Protocol) -> None:
    for name in ("ground-truth", "still"):
        evaluate.evaluate_method(name, small, tmp_path, Settings())
    still, truth, floor = (rows_of(tmp_path, name) for name in ("still", "ground-truth", "real-halves"))
    assert len(still) == 2 * 6 + 1
    assert still["psnr/frame-mean", "a_happy_1"].value < truth["psnr/frame-mean", "a_happy_1"].value  # type: ignore[operator]
    video = folder("still", small, tmp_path) / "b_happy_2.mp4"
    frames = np.stack(list(media.read_frames(video)))[[2, 6, 10]]  # three of twelve
    assert still["colour/clip", "b_happy_2"].value == pytest.approx(frames.mean())
    assert still["colour/clip", "b_happy_2"].group == "happy"
    real = {p.pair_id: p for p in protocol.pairs(protocol.read_clips(small, tmp_path), small)}
    colours = {
        i: np.stack(list(media.read_frames(tmp_path / "data" / "tiny" / p.target.video)))[[2, 6, 10]].mean((1, 2))
        for i, p in real.items()
    }
    halves = evaluate.split_halves(list(real.values()), small.seed)
    means = [np.concatenate([colours[p.pair_id] for p in half]).mean(0) for half in halves]
    row = floor["colour/set", None]
    assert row.value == pytest.approx(np.abs(means[0] - means[1]).mean())
    assert (row.n_used, row.n_expected) == (6, 6)
    assert truth["colour/set", None].value < row.value  # type: ignore[operator]


def test_nothing_is_extracted_twice(tmp_path: Path, small: Protocol) -> None:
    MeanColour.calls = 0
    evaluate.evaluate_method("ground-truth", small, tmp_path, Settings())
    assert MeanColour.calls == 12  # six real, six generated
    before = (tmp_path / "results" / "small" / "ground-truth.parquet").read_bytes()
    evaluate.evaluate_method("ground-truth", small, tmp_path, Settings())
    assert MeanColour.calls == 12
    assert (tmp_path / "results" / "small" / "ground-truth.parquet").read_bytes() == before
    evaluate.evaluate_method("still", small, tmp_path, Settings())
    assert MeanColour.calls == 18  # another method: its own six


def test_metrics_are_added_to_what_was_scored_before(tmp_path: Path, small: Protocol) -> None:
    """Part by part gives the rows of all at once, with their own runs; rows of other videos do not stay."""
    every = evaluate.evaluate_method("still", small, tmp_path, Settings())
    floor = (tmp_path / "results" / "small" / "real-halves.parquet").read_bytes()
    every.path.unlink()
    parts = [("colour/clip",), ("colour/set", "psnr/frame-mean")]
    for names in parts:
        done = evaluate.evaluate_method("still", small, tmp_path, Settings(metrics=names))
        assert {row.metric for row in done.rows} == set(names)
    assert [replace(row, run_id="") for row in results.read(every.path)] == results.check(
        replace(row, run_id="") for row in every.rows
    )
    assert len({row.run_id for row in results.read(every.path)}) == 2
    assert (tmp_path / "results" / "small" / "real-halves.parquet").read_bytes() == floor
    tables = publish("small", tmp_path)  # columns of the protocol, from several runs
    assert tables.markdown.count("| n/a ") == 2  # the floor's clip-level metrics

    again = evaluate.evaluate_method("still", small, tmp_path, Settings(metrics=("colour/clip",)))
    assert not any("are gone" in remark for remark in again.remarks)
    other = replace(small, frames_per_clip=2)
    moved = evaluate.evaluate_method("still", other, tmp_path, Settings(metrics=("colour/clip",)))
    assert any("2 other metrics (colour/set, ...)" in remark for remark in moved.remarks)
    assert {row.metric for row in results.read(every.path)} == {"colour/clip"}


def test_metrics_are_chosen_by_name_family_or_all() -> None:
    assert evaluate.chosen("psnr, ssim/gaussian") == ("psnr/frame-mean", "ssim/gaussian")
    assert set(evaluate.chosen("fid")) == {name for name in base.names() if name.startswith("fid/")}
    assert evaluate.chosen("all") == tuple(base.names())
    with pytest.raises(BenchError, match=r"'ssim/gausian' is no metric and no family; did you mean 'ssim/gaussian'"):
        evaluate.chosen("psnr,ssim/gausian")
    with pytest.raises(BenchError, match="names nothing"):
        evaluate.chosen(" , ")


def test_details_are_written_beside_the_rows(tmp_path: Path, small: Protocol, monkeypatch: pytest.MonkeyPatch) -> None:
    def details(ids: Sequence[str], clips: Iterable[base.Features]) -> base.Table:
        return [["clip", "red"], *([i, float(c["colour"][0, 0])] for i, c in zip(ids, clips, strict=True))]

    clip = replace(base.metric("colour/clip"), details=details)
    monkeypatch.setitem(base._METRICS, clip.name, clip)
    done = evaluate.evaluate_method("still", small, tmp_path, Settings())
    path = tmp_path / "results" / "small" / "details" / "still" / "colour_clip.csv"
    assert done.remarks[-1] == f"details of colour/clip are in {path.parent}"
    lines = path.read_text().splitlines()
    assert lines[0] == "clip,red"
    assert [line.split(",")[0] for line in lines[1:]] == [row.clip_id for row in done.rows if row.metric == clip.name]
    monkeypatch.setitem(base._METRICS, clip.name, replace(clip, details=None))
    evaluate.evaluate_method("still", small, tmp_path, Settings())
    assert not path.exists()  # nothing stale stands beside new rows


def test_equal_pictures_under_another_sound_are_not_extracted_again(tmp_path: Path, small: Protocol) -> None:
    evaluate.evaluate_method("ground-truth", small, tmp_path, Settings())
    MeanColour.calls = 0
    evaluate.evaluate_method("shuffled-audio", small, tmp_path, Settings())
    assert MeanColour.calls == 0
    truth, shuffled = (rows_of(tmp_path, name) for name in ("ground-truth", "shuffled-audio"))
    assert {key: row.value for key, row in truth.items()} == {key: row.value for key, row in shuffled.items()}


def test_a_damaged_feature_is_extracted_again_and_said(tmp_path: Path, small: Protocol) -> None:
    evaluate.evaluate_method("ground-truth", small, tmp_path, Settings())
    before = (tmp_path / "results" / "small" / "ground-truth.parquet").read_bytes()
    for path in (tmp_path / "features" / "mean-colour@1").rglob("*.npz"):
        path.write_bytes(path.read_bytes()[:-30])
    done = evaluate.evaluate_method("ground-truth", small, tmp_path, Settings())
    assert any("damaged" in remark for remark in done.remarks)
    assert (tmp_path / "results" / "small" / "ground-truth.parquet").read_bytes() == before


def test_an_extractor_that_breaks_costs_its_own_metrics_only(
    tmp_path: Path, small: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(self: MeanColour, chunks: Iterable[base.ClipViews]) -> dict[str, np.ndarray]:
        raise base.MetricError("constant frames")

    monkeypatch.setattr(MeanColour, "__call__", breaks)
    evaluate.evaluate_method("ground-truth", small, tmp_path, Settings())
    rows = rows_of(tmp_path, "ground-truth")
    assert rows["psnr/frame-mean", "a_happy_1"].value is not None
    assert rows["colour/clip", "a_happy_1"].error == "constant frames"
    assert rows["colour/set", None].error == "6 of 6 clips cannot be used (6x constant frames, a_happy_1 the first)"


def test_missing_weights_are_unavailable_with_the_command(
    tmp_path: Path, small: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmark import weights

    def missing(name: str, fetch: bool = True) -> Path:
        assert not fetch, "scoring must not download"
        raise weights.WeightsUnavailable(name, f"bench weights fetch {name}")

    monkeypatch.setattr(weights, "path", missing)
    spec = replace(tiny.COLOUR[0], weights=("yunet",))
    monkeypatch.setitem(base._EXTRACTORS, "mean-colour", spec)
    evaluate.evaluate_method("still", small, tmp_path, Settings())
    rows = rows_of(tmp_path, "still")
    for key in (("colour/clip", "a_happy_1"), ("colour/set", None)):
        assert rows[key].value is None
        assert (rows[key].error or "").startswith("unavailable: yunet")
        assert "bench weights fetch yunet" in (rows[key].error or "")
    assert rows["psnr/frame-mean", "a_happy_1"].value is not None


def test_an_unknown_metric_suggests_the_nearest(tmp_path: Path, small: Protocol) -> None:
    with pytest.raises(evaluate.BenchError, match="Did you mean 'psnr/frame-mean'"):
        evaluate.evaluate_method("still", replace(small, metrics=("psnr/frame-men",)), tmp_path, Settings())


def test_the_run_record_says_what_stands_behind_the_rows(tmp_path: Path, small: Protocol) -> None:
    done = evaluate.evaluate_method("still", small, tmp_path, Settings())
    [run] = {row.run_id for row in done.rows}
    record = json.loads((tmp_path / "results" / "small" / "runs" / f"{run}.json").read_text())
    assert record["protocol"]["digest"] == small.digest
    assert record["extractors"] == {"image-pairs": "image-pairs@2", "mean-colour": "mean-colour@1"}
    assert record["code"]["packages"]["numpy"] == np.__version__
    assert record["clips"]["a_happy_1"]["num_frames"] == 12
    assert record["hardware"]["cores"]
    made = [json.loads(path.read_text()) for path in folder("still", small, tmp_path).glob("*.json")]
    cost = record["generation"]
    assert (cost["clips"], cost["gpu_mib"]) == (6, None)
    assert cost["seconds"] == pytest.approx(sum(one["seconds"] for one in made))
    assert cost["ram_mib"] == max(one["ram_mib"] for one in made) > 50
    assert cost["machines"] == [made[0]["machine"]]
    assert record["split"] == {"rule": None, "digest": None}  # nothing was split here
    (tmp_path / "data" / "tiny" / "split.json").write_text('{"rule": "ratio", "digest": "abc"}')
    evaluate.evaluate_method("still", small, tmp_path, Settings())
    [other] = {row.run_id for row in results.read(done.path)}
    record = json.loads((tmp_path / "results" / "small" / "runs" / f"{other}.json").read_text())
    assert record["split"] == {"rule": "ratio", "digest": "abc"}
    (tmp_path / "data" / "tiny" / "split.json").unlink()
    moved = tmp_path / "moved"
    shutil.copytree(tmp_path / "data", moved / "data")
    again = evaluate.evaluate_method("still", small, moved, Settings())
    assert {row.run_id for row in again.rows} == {run}  # neither place nor date


@given(st.permutations(range(9)), st.integers(0, 3))
def test_halves_are_disjoint_and_share_every_emotion(order: list[int], seed: int) -> None:
    words = ["happy"] * 4 + ["sad"] * 3 + ["angry"] * 2
    members = [
        Pair(f"c{i}", row, row, None, row.emotion, row.emotion)
        for i in range(9)
        for row in [tiny.clip(f"c{i}", emotion=words[i])]
    ]
    one, other = evaluate.split_halves([members[i] for i in order], seed)
    assert (one, other) == evaluate.split_halves(members, seed)
    assert sorted(p.pair_id for p in one + other) == [f"c{i}" for i in range(9)]
    for word in set(words):
        counts = [sum(p.target.emotion == word for p in half) for half in (one, other)]
        assert abs(counts[0] - counts[1]) <= 1
    assert abs(len(one) - len(other)) <= 1


# --- anybody's videos --------------------------------------------------------------------------------------------


def name_of(path: str) -> Path:
    return Path("v") / path


def test_names_are_matched_exactly_then_by_whole_words() -> None:
    files = map(name_of, ["a_1.mp4", "ours--A_2_out.mp4", "a_10.mov", "b 1.mp4", "notes.mp4", "a_1_v2.mp4"])
    found = matching.match(["a_1", "a_2", "a_10", "b_1", "c_1"], files)
    assert {i: p.name for i, p in found.exact.items()} == {"a_1": "a_1.mp4", "a_10": "a_10.mov"}
    assert {i: p.name for i, p in found.fuzzy.items()} == {"a_2": "ours--A_2_out.mp4", "b_1": "b 1.mp4"}
    assert found.missing == ("c_1",)
    assert {p.name for p in found.extra} == {"notes.mp4", "a_1_v2.mp4"}
    report = found.report()
    assert "matched 4 pairs: 2 by exact name, 2 by part of it" in report
    assert "ours--A_2_out.mp4 taken for a_2" in report
    assert "without a video: 1 pairs (c_1)" in report


def test_two_candidates_are_never_chosen_between() -> None:
    found = matching.match(
        ["a", "b", "x_a", "d"], map(name_of, ["a_1.mp4", "a_2.mp4", "b.mp4", "sub/b.mp4", "d_to_x_a.mp4"])
    )
    assert not found.exact
    assert not found.fuzzy
    assert {i: len(files) for i, files in found.ambiguous.items()} == {"a": 2, "b": 2, "d": 1, "x_a": 1}


IDS = st.lists(st.from_regex(r"[ab]_[0-9]{1,2}", fullmatch=True), min_size=1, max_size=8, unique=True)


@given(IDS, st.randoms(), st.sampled_from(["{}", "ours_{}", "{}_fake", "{} (1)", "EMO-{}-final"]))
def test_one_file_for_each_id_is_always_found(ids: list[str], random: object, form: str) -> None:
    files = [name_of(form.format(i) + ".mp4") for i in ids]
    random.shuffle(files)  # type: ignore[attr-defined]
    found = matching.match(ids, files)
    assert {i: p.stem for i, p in found.found.items()} == {i: form.format(i) for i in ids}
    assert not found.missing
    assert not found.extra


def test_bad_videos_are_reasons_and_the_rest_is_scored(tmp_path: Path, small: Protocol) -> None:
    given = tmp_path / "somebody's vidéos"
    data = tmp_path / "data" / "tiny"
    given.mkdir()
    shutil.copy(data / "a_happy_1.mp4", given)
    (given / "a_happy_2.mp4").write_bytes(b"this is no video")
    (given / "a_neutral_1.mp4").touch()
    media.write_video(given / "b_happy_1 füßchen.mp4", pictures(0, 12, (80, 48)), 25)
    media.write_video(given / "b_happy_2.mp4", pictures(0, 30), 25)
    whole = (data / "b_neutral_1.mp4").read_bytes()
    (given / "b_neutral_1.mp4").write_bytes(whole[: len(whole) // 3])
    done = evaluate.evaluate_videos(given, "mine", small, tmp_path, Settings())
    rows = rows_of(tmp_path, "mine")
    errors = {i: rows["psnr/frame-mean", i].error or "" for i in ("a_happy_2", "a_neutral_1", "b_happy_1", "b_happy_2")}
    assert rows["psnr/frame-mean", "a_happy_1"].value == 100.0  # the very file
    assert "not a media file" in errors["a_happy_2"]
    assert "empty" in errors["a_neutral_1"]
    assert "80x48 against 64x48" in errors["b_happy_1"]
    assert "lasts 1.20 s (30 frames at 25 fps), the real clip 0.48 s (12)" in errors["b_happy_2"]
    assert rows["psnr/frame-mean", "b_neutral_1"].error
    assert str(tmp_path) not in "".join(row.error or "" for row in rows.values())
    assert "5 of 6 clips cannot be used" in (rows["colour/set", None].error or "")
    assert "b_happy_1 füßchen.mp4 taken for b_happy_1" in done.remarks[0]
    evaluate.evaluate_videos(given, "mine", small, tmp_path, Settings(allow_partial=True))
    row = rows_of(tmp_path, "mine")["colour/set", None]
    assert (row.n_used, row.n_expected) == (1, 6)
    shown = CliRunner().invoke(bench, ["--workspace", str(tmp_path), "leaderboard", "--protocol", "small"])
    assert shown.exit_code == 0
    assert "† (1/6)" in shown.output
    assert "Real against real (disjoint halves of 3 and 3 clips)" in shown.output


def test_a_little_longer_or_shorter_counts_by_the_common_prefix(tmp_path: Path, small: Protocol) -> None:
    given = tmp_path / "given"
    for name, frames in (("a_happy_1", 16), ("a_happy_2", 8)):
        longer = [*media.read_frames(tmp_path / "data" / "tiny" / f"{name}.mp4"), *pictures(9, 4)][:frames]
        media.write_video(given / f"{name}.mp4", longer, 25)
    done = evaluate.evaluate_videos(given, "mine", small, tmp_path, Settings())
    rows = rows_of(tmp_path, "mine")
    for name in ("a_happy_1", "a_happy_2"):
        assert rows["psnr/frame-mean", name].value > 25  # type: ignore[operator]
    assert any("2 of 6 clips differ in length" in remark for remark in done.remarks)
    record = json.loads(next((tmp_path / "results/small/runs").glob(f"{done.rows[0].run_id}.json")).read_text())
    assert record["clips"]["a_happy_1"]["lengths"] == [16, 12]
    assert record["clips"]["a_happy_2"]["num_frames"] == 8


def test_a_changed_real_clip_is_never_scored(tmp_path: Path, small: Protocol) -> None:
    evaluate.evaluate_method("still", small, tmp_path, Settings())  # the features of the prepared file are stored
    data = tmp_path / "data" / "tiny"
    shutil.copy(data / "b_happy_2.mp4", data / "a_happy_1.mp4")
    shutil.copy(data / "b_happy_2.wav", data / "a_happy_2.wav")
    (data / "b_happy_1.mp4").unlink()
    evaluate.evaluate_method("still", small, tmp_path, Settings())
    rows = rows_of(tmp_path, "still")
    changed = "is not the file that was prepared; run `bench manifest check tiny`"
    assert rows["psnr/frame-mean", "a_happy_1"].error == f"a_happy_1.mp4: {changed}"
    assert rows["psnr/frame-mean", "a_happy_2"].error == f"a_happy_2.wav: {changed}"
    assert rows["psnr/frame-mean", "b_happy_1"].error == (
        "b_happy_1.mp4: No such file or directory; run `bench manifest check tiny`"
    )
    assert rows["psnr/frame-mean", "b_happy_2"].value is not None
    assert "3 of 6 clips cannot be used" in (rows["colour/set", None].error or "")


def test_odd_file_names_are_escaped(tmp_path: Path, small: Protocol) -> None:
    given = tmp_path / "given"
    given.mkdir()
    whole = (tmp_path / "data" / "tiny" / "a_happy_1.mp4").read_bytes()
    for name in ("a_happy_1.mp4", "new\nline a_happy_2.mp4", "byte\udcff b_happy_1.mp4", "other\udcff.mp4"):
        (given / name).write_bytes(whole)
    for name in ("b_happy_2 1\udcff.mp4", "b_happy_2 2\n.mp4"):
        (given / name).write_bytes(whole)
    done = evaluate.evaluate_videos(given, "mine", small, tmp_path, Settings())
    done.remarks[0].encode()
    assert "new\\nline a_happy_2.mp4 taken for a_happy_2" in done.remarks[0]
    assert "other\\udcff.mp4" in done.remarks[0]
    rows = rows_of(tmp_path, "mine")
    assert "b_happy_2 1\\udcff.mp4, b_happy_2 2\\n.mp4" in (rows["psnr/frame-mean", "b_happy_2"].error or "")
    assert rows["psnr/frame-mean", "a_happy_2"].value is not None


def test_features_of_another_device_are_kept_apart(
    tmp_path: Path, small: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate.evaluate_method("still", small, tmp_path, Settings())
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("benchmark.provenance.hardware", lambda device: {})
    extraction._build.cache_clear()
    MeanColour.calls = 0
    done = evaluate.evaluate_method("still", small, tmp_path, Settings(device="cuda"))
    assert MeanColour.calls == 0  # it always runs on the CPU
    assert not any("ran on the CPU" in remark for remark in done.remarks)
    monkeypatch.setattr(MeanColour, "device", "cuda", raising=False)
    evaluate.evaluate_method("still", small, tmp_path, Settings(device="cuda"))
    assert MeanColour.calls == 12
    monkeypatch.setattr(MeanColour, "device", "cpu")
    done = evaluate.evaluate_method("still", small, tmp_path, Settings(device="cuda"))
    assert MeanColour.calls == 12
    assert "mean-colour ran on the CPU: the installed runtime cannot use cuda" in done.remarks


def test_faces_are_embedded_on_the_cpu_where_onnxruntime_has_no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    def made(*providers: str) -> str:
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*providers, "CPUExecutionProvider"])
        return ArcFace("arcface", base.Weights(Path("x.onnx"), "0" * 64), "cuda:1").device

    assert made("AzureExecutionProvider") == "cpu"
    assert made("CUDAExecutionProvider") == "cuda"


@pytest.mark.parametrize("name", ["results", "features", "generated"])
def test_a_workspace_that_cannot_be_written_is_said_before_the_work(
    tmp_path: Path, small: Protocol, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).touch()  # a folder cannot be made there, whoever runs the test
    monkeypatch.setattr(engine, "run", lambda *a, **k: pytest.fail("the work has begun"))
    with pytest.raises(evaluate.BenchError, match=f"{name}.*: cannot be written .*choose another --workspace"):
        evaluate.evaluate_method("still", small, tmp_path, Settings())


def test_a_disk_that_fills_up_stops_the_run(tmp_path: Path, small: Protocol, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("benchmark.features.np.savez", full)
    with pytest.raises(evaluate.BenchError, match=r"features: cannot be written \(No space left on device\)"):
        evaluate.evaluate_method("still", small, tmp_path, Settings())
    assert not (tmp_path / "results" / "small" / "still.parquet").exists()


def test_no_value_at_all_is_a_failure(tmp_path: Path, small: Protocol) -> None:
    given = tmp_path / "given"
    given.mkdir()
    (given / "a_happy_1.mp4").write_bytes(b"this is no video")
    command = ["--workspace", str(tmp_path), "eval", "--protocol", "small", "--videos", str(given), "--name", "mine"]
    shown = CliRunner().invoke(bench, command)
    assert shown.exit_code == 1
    assert "no value could be computed (10x no video was given for this pair)" in shown.output
    assert rows_of(tmp_path, "mine")  # the rows are there all the same


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--videos", "{}", "--name", "../x"], "must be letters"),
        (["--videos", "{}", "--name", "real-halves"], "reserved"),
        (["--videos", "{}", "--name", "still"], "is a method of its own"),
        (["--videos", "{}", "--name", "mine"], "no video is named after a pair"),
        (["--videos", "{}"], "together with --name"),
        (["--method", "still", "--name", "x"], "together with --name"),
        (["--method", "stil"], "did you mean 'still'"),
    ],
)
def test_wrong_calls_are_one_line(tmp_path: Path, small: Protocol, arguments: list[str], message: str) -> None:
    (tmp_path / "empty").mkdir()
    command = ["--workspace", str(tmp_path), "eval", "--protocol", "small"]
    shown = CliRunner().invoke(bench, [*command, *(a.format(tmp_path / "empty") for a in arguments)])
    assert shown.exit_code == 1
    assert message in shown.output
    assert "Traceback" not in shown.output


def test_different_framing_is_said(tmp_path: Path) -> None:
    points = views.survey(source(write_portrait(tmp_path / "a.mp4")), Store(tmp_path)).points
    one = views.Survey((256, 256), points)
    same = extraction._framing(one, views.Survey((256, 256), points + np.float32(2)))
    other = extraction._framing(one, views.Survey((256, 256), points * np.float32(1.6)))
    assert same is not None
    assert not same.differs
    assert other is not None
    assert other.differs
    assert other.scale == pytest.approx(1 / 1.6, abs=1e-3)


def test_workers_do_not_change_a_byte(tmp_path: Path) -> None:
    dataset(tmp_path, people("a"))
    text = 'name = "small"\ntitle = "t"\ndataset = "tiny"\nmetrics = ["psnr/frame-mean", "ssim/gaussian"]\n'
    protocol_file(tmp_path, text + '[pairing]\nreference = "first-frame"\n')
    asked = protocol.load("small", tmp_path)
    path = tmp_path / "results" / "small" / "still.parquet"
    evaluate.evaluate_method("still", asked, tmp_path, Settings(workers=1))
    one = path.read_bytes()
    shutil.rmtree(tmp_path / "features")
    shutil.rmtree(tmp_path / "generated")
    evaluate.evaluate_method("still", asked, tmp_path, Settings(workers=2))
    assert path.read_bytes() == one
    assert all(row.value is not None for row in results.read(path))


@pytest.mark.slow
def test_three_baselines_on_real_clips_rank_as_they_must(tmp_path: Path, real: Callable[[str], Path]) -> None:
    """Ground truth against still and shuffled sound, on five MEAD clips as `bench prepare` makes them."""
    root = real("mead")
    text = 'name = "five"\ntitle = "t"\ndataset = "mead"\nmetrics = ["psnr/frame-mean", "av-correlation/zero-lag"]\n'
    protocol_file(tmp_path, text + '[select]\nsplit = "all"\n[pairing]\nreference = "first-frame"\n', "five")
    run = CliRunner()
    assert run.invoke(bench, ["--workspace", str(tmp_path), "prepare", "mead", "--root", str(root)]).exit_code == 0
    means = {}
    for name in ("ground-truth", "still", "shuffled-audio"):
        command = ["--workspace", str(tmp_path), "eval", "--protocol", "five", "--method", name]
        assert run.invoke(bench, command).exit_code == 0
        rows = results.read(tmp_path / "results" / "five" / f"{name}.parquet")
        for metric in ("psnr/frame-mean", "av-correlation/zero-lag"):
            values = [row.value for row in rows if row.metric == metric and row.value is not None]
            means[name, metric] = float(np.mean(values)) if values else None
    psnr, sync = "psnr/frame-mean", "av-correlation/zero-lag"
    assert means["ground-truth", psnr] > 40 > 30 > means["still", psnr]  # type: ignore[operator]
    assert means["shuffled-audio", psnr] == means["ground-truth", psnr]
    assert means["ground-truth", sync] > means["shuffled-audio", sync] + 0.1  # type: ignore[operator]
    assert means["still", sync] is None  # a mouth that does not move has no correlation
    assert load_method("still", tmp_path).kind == "baseline"
