"""Out-of-domain portraits: pairing by names, and stills that go through prepare, export, eval and the table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from samples import portrait, tone

from benchmark import evaluate, prepare, protocol
from benchmark.cli import bench
from benchmark.evaluate import Settings
from pipelines import manifest, media
from pipelines.datasets import DatasetError, portraits

PROTOCOL = """
name = "ood"
title = "Out of domain"
dataset = "portraits"
metrics = ["psnr/frame-mean", "av-correlation/zero-lag", "av-correlation/lag"]
eval_crop = "common-detector"
[pairing]
each = "portrait"
emotions = ["happy", "sad"]
reference = "first-frame"
emotion_video = "random"
emotion_dataset = "tiny"
"""

pytestmark = pytest.mark.usefixtures("one_pool")


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def test_one_name_belongs_together_and_the_rest_is_drawn(tmp_path: Path) -> None:
    images = ["anna é.jpg", *(f"p{k}.png" for k in range(4))]
    root = touch(tmp_path, *(f"images/{i}" for i in images), "audio/anna é.wav", *(f"audio/s{k}.mp3" for k in range(6)))
    index = portraits.index(root)
    assert not index.rejected
    pairs = {(s.identity, s.take) for s in index.sources}
    assert ("anna é", "anna é") in pairs
    assert len(index.sources) == 7  # 4 images with 6 sounds: each of both at least once
    assert {i for i, _ in pairs} == {Path(i).stem for i in images}
    assert {s for _, s in pairs} == {"anna é", *(f"s{k}" for k in range(6))}
    assert all(source.still and source.emotion == "unlabelled" for source in index.sources)
    card = portraits.split(index.sources)
    assert set(card.identities["test"]) == {Path(i).stem for i in images}
    assert not card.identities["train"]


@given(st.sets(st.sampled_from("abcdefgh"), min_size=1), st.sets(st.sampled_from("defghijk"), min_size=1))
def test_pairing_uses_everything_and_depends_on_names_alone(images: set[str], sounds: set[str]) -> None:
    pairs = set(portraits._pairs(sorted(images), sorted(sounds)))
    assert {i for i, _ in pairs} == images
    assert {s for _, s in pairs} == sounds
    assert pairs == set(portraits._pairs(sorted(images, reverse=True), sorted(sounds, reverse=True)))
    assert {(n, n) for n in images & sounds} <= pairs
    assert len(pairs) <= len(images) + len(sounds)


def test_other_files_are_reasoned_rows(tmp_path: Path) -> None:
    long = "x" * 120
    root = touch(tmp_path, "a.png", "b/a.JPG", "a.wav", "notes.txt", ".hidden.png", "new\nline.png", f"{long}.png")
    touch(root, f"{long}y.wav")
    index = portraits.index(root)
    assert sorted(r.reason for r in index.rejected) == ["duplicate", "hidden", "name", "name", "suffix"]
    assert all("\n" not in r.source + r.detail for r in index.rejected)
    assert [s.clip_id for s in index.sources] == ["a"]
    for names, kind in ((["a.png"], "sound"), (["a.wav"], "image")):
        with pytest.raises(DatasetError, match=f"holds no {kind}"):
            portraits.index(touch(tmp_path / kind, *names))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Portraits good and bad, prepared; and a dataset of emotion videos."""
    workspace = tmp_path_factory.mktemp("work space")
    raw = workspace / "raw"
    face = next(portrait(size=320))
    media.write_png(raw / "images" / "ann.png", face)
    done, coded = cv2.imencode(".jpg", face[:, ::-1, ::-1])
    assert done
    media.write_bytes(raw / "images" / "ben ü.jpg", coded.tobytes())
    media.write_png(raw / "images" / "wall.png", np.full((200, 200, 3), 120, np.uint8))
    media.write_png(raw / "images" / "two.png", np.concatenate([face, face], axis=1))
    media.write_bytes(raw / "images" / "torn.png", (raw / "images" / "ann.png").read_bytes()[:2000])
    media.write_bytes(raw / "images" / "empty.png", b"")
    for name in ("ann", "ben ü", "wall", "two", "torn", "empty"):
        media.write_wav(raw / "audio" / f"{name}.wav", tone(0.62))
    runner = CliRunner()
    command = ["--workspace", str(workspace), "prepare", "portraits", "--root", str(raw), "--workers", "1"]
    done_once = runner.invoke(bench, command)
    assert done_once.exit_code == 0, done_once.output
    tiny.dataset(workspace, [tiny.clip("m_h", "m"), tiny.clip("m_s", "m", "sad")])
    tiny.protocol_file(workspace, PROTOCOL, "ood")
    return workspace


def test_stills_are_prepared(workspace: Path) -> None:
    path = workspace / "data" / "portraits" / "manifest.parquet"
    clips = {clip.clip_id: clip for clip in manifest.read(path)}
    assert set(clips) == {"ann", "ben ü"}
    assert all(clip.still and clip.num_frames == 16 and clip.split == "test" for clip in clips.values())
    assert media.probe(path.parent / clips["ann"].video).width == 256
    assert manifest.check(path) == []
    reasons = {Path(r.source).stem: r.reason for r in manifest.read_rejected(path.with_name("rejected.parquet"))}
    assert reasons == {"wall": "no_face", "two": "several_faces", "torn": reasons["torn"], "empty": "empty"}
    assert reasons["torn"] in ("corrupt", "not_media", "no_frames")


def test_still_eval_and_table(workspace: Path) -> None:
    asked = protocol.load("ood", workspace)
    done = evaluate.evaluate_method("still", asked, workspace, Settings())
    rows = {(row.metric, row.clip_id): row for row in done.rows}
    assert {clip for _, clip in rows} == {f"{p}--{e}" for p in ("ann", "ben ü") for e in ("happy", "sad")}
    assert {row.group for row in done.rows} == {"happy", "sad"}
    assert {row.error for row in done.rows if row.metric.startswith("psnr")} == {
        "the target is a still portrait with a sound: there is no real video to compare with"
    }
    # A picture that does not move has no correlation with anything: a reason of the metric, not of the dataset.
    assert all("real video" not in (row.error or "") for row in done.rows if row.metric.startswith("av-"))
    truth = evaluate.evaluate_method("ground-truth", asked, workspace, Settings())
    assert {row.error for row in truth.rows} == {"not generated: there is no real video of a still portrait"}
    shown = CliRunner().invoke(bench, ["--workspace", str(workspace), "leaderboard", "--protocol", "ood"])
    assert shown.exit_code == 0, shown.output
    assert "Out of domain" in shown.output


def test_real_photographs(real: Callable[[str], Path], tmp_path: Path) -> None:
    for case in ("10", "talk_emotion"):
        for name, to in (("ref.jpg", f"images/{case}.jpg"), ("aud.mp3", f"audio/{case}.mp3")):
            (tmp_path / to).parent.mkdir(exist_ok=True)
            (tmp_path / to).write_bytes(real(f"talkvid/{case}/{name}").read_bytes())
    done = prepare.prepare("portraits", tmp_path, tmp_path / "out", split=portraits.split)
    assert (done.clips, done.rejected) == (2, {})
    assert all(
        clip.detected == 1.0 and clip.num_frames > 50 for clip in manifest.read(tmp_path / "out" / "manifest.parquet")
    )
