"""Metrics on arrays give what `bench eval` gives on files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from skimage import metrics as skimage_metrics
from tiny import dataset, people, protocol_file

import metrics
from benchmark import evaluate, protocol, weights
from benchmark.evaluate import Settings
from metrics import base
from metrics.base import ASKED, ClipViews, Features, Metric, MetricError
from pipelines import media


def test_one_clip_against_another() -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.integers(0, 256, (2, 40, 48, 64, 3), dtype=np.uint8)
    by_frame = [skimage_metrics.peak_signal_noise_ratio(a, b) for a, b in zip(real, fake, strict=True)]
    assert metrics.get("psnr/frame-mean")(real, fake) == pytest.approx(np.mean(by_frame), rel=1e-9)


def test_what_eval_writes_is_what_the_function_returns(tmp_path: Path) -> None:
    clips = dataset(tmp_path, people("a")[:2], frames=34)  # more than one chunk
    text = 'name = "small"\ntitle = "t"\ndataset = "tiny"\nmetrics = ["psnr/frame-mean", "ssim/gaussian"]\n'
    protocol_file(tmp_path, text)
    asked = protocol.load("small", tmp_path)
    rows = evaluate.evaluate_method("still", asked, tmp_path, Settings()).rows
    for clip in clips:
        real = np.stack(list(media.read_frames(tmp_path / "data" / "tiny" / clip.video)))
        fake = np.stack(list(media.read_frames(tmp_path / "generated" / "still" / "small" / f"{clip.clip_id}.mp4")))
        for name in asked.metrics:
            (row,) = (row for row in rows if row.clip_id == clip.clip_id and row.metric == name)
            assert metrics.get(name)(real, fake) == pytest.approx(row.value, rel=1e-12)


def test_a_set_with_its_network() -> None:
    try:
        path = weights.path("fid-inception", fetch=False)
    except weights.WeightsUnavailable as error:
        pytest.skip(str(error))
    rng = np.random.default_rng(1)
    real = rng.integers(0, 256, (2, 1, 40, 40, 3), dtype=np.uint8)
    fid = metrics.get("fid/torch-fidelity", weights=path)
    assert fid(real, real) == pytest.approx(0.0, abs=1e-9)
    assert fid(list(real), list(255 - real)) > 1
    with pytest.raises(ValueError, match="takes a sequence of clips"):
        fid(real[0], real[0])


def test_what_is_missing_is_named() -> None:
    clip = np.zeros((5, 32, 32, 3), np.uint8)
    with pytest.raises(ValueError, match="needs the network fid-inception"):
        metrics.get("fid/torch-fidelity")
    with pytest.raises(KeyError, match="Did you mean"):
        metrics.get("psnr/frame-men")
    with pytest.raises(KeyError, match="'fvd' is a family of metrics; its variants: fvd/i3d-16f, fvd/i3d-all-frames"):
        metrics.get("fvd")
    with pytest.raises(ValueError, match=r"^lmd/face needs landmarks \(T, 478, 3\) .* give a metrics.base.ClipViews"):
        metrics.get("lmd/face")(clip, clip)
    with pytest.raises(ValueError, match="give clips of the frames that count"):
        metrics.get("psnr/frame-mean", options={"frames_per_clip": 1})
    with pytest.raises(ValueError, match=r"^psnr/frame-mean needs real, which is missing$"):
        metrics.get("psnr/frame-mean")(fake=clip)
    with pytest.raises(MetricError, match="equal lengths"):
        metrics.get("psnr/frame-mean")(clip, clip[:4])
    with pytest.raises(MetricError, match="uint8"):
        metrics.get("psnr/frame-mean")(clip / 255, clip / 255)


def test_lists_of_frames_are_clips() -> None:
    real, fake = np.random.default_rng(0).integers(0, 256, (2, 4, 16, 16, 3), dtype=np.uint8)
    psnr = metrics.get("psnr/frame-mean")
    assert psnr(list(real), list(fake)) == psnr(real, fake)
    with pytest.raises(MetricError, match="frames of different sizes"):
        psnr(real, [*fake[:3], np.zeros((8, 8, 3), np.uint8)])


class Brightness:
    """Frames to their mean; of a set, what was asked for and how many clips there are."""

    id, views = "brightness@1", ("frames",)

    def __call__(self, chunks: Iterable[ClipViews]) -> dict[str, np.ndarray]:
        return {"mean": np.array(np.mean([chunk.view("frames").mean() for chunk in chunks]))}


def happy(clips: Iterable[Features], asked: Iterable[Features]) -> float:
    return float(np.mean([c["mean"] for c, a in zip(clips, asked, strict=True) if a["emotion"] == "happy"]))


@pytest.fixture
def sets(monkeypatch: pytest.MonkeyPatch) -> None:
    base.names()
    both = (("generated", "brightness"), ("real", "brightness"))
    for item in (
        base.ExtractorSpec("brightness", lambda weights, options: Brightness()),
        Metric("happy/set", 1, (("generated", "brightness"), ASKED), "set", "", "lower", happy, "H", 2, "a test"),
        Metric("both/set", 1, both, "set", "", "lower", lambda a, b: 100 * len(a) + len(b), "B", 2, "a test"),
        Metric("both/asked", 1, (*both, ASKED), "set", "", "lower", lambda a, b, c: len(c), "B", 2, "a test"),
    ):
        monkeypatch.setitem(base._METRICS if isinstance(item, Metric) else base._EXTRACTORS, item.name, item)


@pytest.mark.usefixtures("sets")
def test_numbers_of_clips_and_words() -> None:
    clips = [np.full((3, 4, 4, 3), level, np.uint8) for level in (10, 20, 60)]
    score = metrics.get("happy/set")
    assert score(fake=clips, emotion=["happy", "sad", "happy"]) == 35
    assert score(clips[:1], clips, emotion=["happy", "sad", "happy"]) == 35  # it does not need the real ones
    with pytest.raises(ValueError, match=r"^emotion: 2 words for 3 clips; expected one word, or one a clip$"):
        score(fake=clips, emotion=["happy", "sad"])
    with pytest.raises(ValueError, match=r"^identity: 1 words for 3 clips"):
        score(fake=clips, identity=["a"])
    with pytest.raises(ValueError, match="happy/set needs fake, which is missing"):
        score(real=clips)
    with pytest.raises(ValueError, match="happy/set: clips are 0 of fake"):
        score(fake=[])
    assert metrics.get("both/set")(clips, clips[:2]) == 203  # a distance of sets is one of any numbers
    assert metrics.get("both/asked")(clips, clips) == 3
    with pytest.raises(ValueError, match="both/asked: clips are 2 of fake and 3 of real; expected the same number"):
        metrics.get("both/asked")(clips, clips[:2])


NOISE = bytes(range(256)) * 8


@pytest.mark.parametrize("name", ["fid/torch-fidelity", "fvd/i3d-16f", "lpips/alex"])
@pytest.mark.parametrize("kind", ["noise", "torch", "safetensors"])
def test_a_file_of_another_kind_is_one_line(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / "other.bin"
    if kind == "noise":
        path.write_bytes(NOISE)
    elif kind == "torch":
        torch.save({"weight": torch.zeros(3)}, path)
    else:
        save_file({"weight": torch.zeros(3)}, path)
    clip = np.zeros((16, 64, 64, 3), np.uint8)
    one = base.metric(name).level == "clip"
    with pytest.raises(ValueError, match=f"^{name}: cannot run .*other.bin as .*another network's file") as caught:
        metrics.get(name, weights=path)(clip if one else [clip], clip if one else [clip])
    assert "\n" not in str(caught.value)


def test_a_face_network_of_another_kind_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(NOISE)
    frames = np.zeros((2, 64, 64, 3), np.uint8)
    views = ClipViews(np.arange(2), 25, aligned112=np.zeros((2, 112, 112, 3), np.uint8), found=np.ones(2, np.bool_))
    with pytest.raises(ValueError, match=r"^f-sim/w600k_mbf: cannot run .*other.onnx as arcface-w600k-mbf"):
        metrics.get("f-sim/w600k_mbf", weights=path)(views, views, reference=views)
    with pytest.raises(ValueError, match=r"needs aligned112 .*, found .*; give a metrics.base.ClipViews"):
        metrics.get("f-sim/w600k_mbf", weights=path)(views, frames, reference=views)
