"""Metrics on arrays give what `bench eval` gives on files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from skimage import metrics as skimage_metrics
from tiny import dataset, people, protocol_file

import metrics
from benchmark import evaluate, protocol, weights
from benchmark.evaluate import Settings
from metrics.base import MetricError
from pipelines import media


def test_one_clip_against_another() -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.integers(0, 256, (2, 40, 48, 64, 3), dtype=np.uint8)
    by_frame = [skimage_metrics.peak_signal_noise_ratio(a, b) for a, b in zip(real, fake, strict=True)]
    assert metrics.get("psnr/frame-mean")(real, fake) == pytest.approx(np.mean(by_frame), rel=1e-9)


def test_what_eval_writes_is_what_the_function_returns(tmp_path: Path) -> None:
    clips = dataset(tmp_path, people("a"), frames=34)  # more than one chunk
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
    real = rng.integers(0, 256, (3, 2, 40, 40, 3), dtype=np.uint8)
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
    with pytest.raises(ValueError, match="needs the side 'pair'"):
        metrics.get("psnr/frame-mean")(fake=clip)
    with pytest.raises(MetricError, match="equal lengths"):
        metrics.get("psnr/frame-mean")(clip, clip[:4])
    with pytest.raises(MetricError, match="uint8"):
        metrics.get("psnr/frame-mean")(clip / 255, clip / 255)
