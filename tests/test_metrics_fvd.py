"""FVD: the I3D against another framework, the published distances, and clips that do not do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax_i3d import with_jax
from parity import CLOSED, NETWORK, Parity
from safetensors.numpy import load_file
from skimage import data

from benchmark import weights
from metrics import MetricError, extractor, metric
from metrics.base import ClipViews, Weights
from metrics.networks import i3d
from metrics.networks.i3d import I3D, Layer
from metrics.networks.running import full_precision
from pipelines import media


def load(name: str) -> I3D:
    spec = extractor(name)
    try:
        files = {w: Weights(weights.path(w, fetch=False), weights.digest(w)) for w in spec.weights}
    except weights.WeightsUnavailable as missing:
        pytest.skip(str(missing))
    made = spec.make(files, {})
    assert isinstance(made, I3D)
    return made


@pytest.fixture(scope="module")
def whole() -> I3D:
    return load("i3d-all-frames")


def clip(frames: np.ndarray, size: int = 32) -> Iterator[ClipViews]:
    for start in range(0, len(frames), size):
        part = frames[start : start + size]
        yield ClipViews(index=np.arange(start, start + len(part)), fps=25, frames=part)


def moving(count: int, height: int, width: int) -> np.ndarray:
    """A photograph that slides by: (T, H, W, 3) uint8."""
    return np.stack([data.astronaut()[3 * k : 3 * k + height, 2 * k : 2 * k + width] for k in range(count)])


def logits(network: i3d.Network, video: np.ndarray, size: int) -> np.ndarray:
    """Of (3, T, 224, 224), handed in `size` frames at a time."""
    with full_precision("cpu"):
        pieces = (torch.from_numpy(video[:, k : k + size]) for k in range(0, video.shape[1], size))
        return network(pieces, video.shape[1])


@pytest.mark.slow
@pytest.mark.parametrize("count", [11, 18])
def test_the_network_equals_another_frameworks(whole: I3D, count: int, parity: Parity) -> None:
    """1e-4 of logits of order 8: float32 sums in another order. 11 and 18 frames pad differently in every layer."""
    noise = np.random.default_rng(count).normal(0, 0.2, (count, 224, 224, 3))
    video = (moving(count, 224, 224) / 127.5 - 1 + noise).clip(-1, 1).astype(np.float32)
    expected = with_jax(load_file(weights.path("i3d-kinetics-400", fetch=False)), video)
    assert np.ptp(expected) > 4
    planes = np.ascontiguousarray(video.transpose(3, 0, 1, 2))
    given: dict[str, Any] = {"part": "network", "against": "JAX", "on": "a photograph that slides"}
    for size in (count, 5):  # at once, and piece by piece
        parity("fvd/*", ours=logits(whole.network, planes, size), expected=expected, tolerance=NETWORK, **given)
        np.testing.assert_allclose(logits(whole.network, planes, size), expected, atol=1e-4)


@given(st.integers(1, 7), st.integers(1, 3), st.lists(st.integers(1, 9), min_size=1, max_size=9))
@settings(max_examples=60, deadline=None)
def test_a_layer_fed_in_pieces_is_the_layer(kernel: int, stride: int, lengths: list[int]) -> None:
    """A clip in pieces gives what a SAME-padded convolution gives of the whole; no more is held than is needed. Only
    windows that leave no frame out between them: I3D has no others along time."""
    assume(kernel >= stride)
    length = sum(lengths)
    signal = np.random.default_rng(length).normal(size=length)
    taps = np.random.default_rng(kernel).normal(size=kernel)
    longest = 0

    def apply(x: torch.Tensor, before: int, after: int) -> torch.Tensor:
        nonlocal longest
        longest = max(longest, x.shape[2])
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(x.numpy().ravel(), (before, after)), kernel)
        return torch.from_numpy(windows[::stride] @ taps)[None, None, :, None, None]

    pieces = (torch.from_numpy(p)[None, None, :, None, None] for p in np.split(signal, np.cumsum(lengths)[:-1]))
    made = torch.cat(list(Layer(kernel, stride, apply).stream(pieces, length)), 2).numpy().ravel()
    total = max((ceil(length / stride) - 1) * stride + kernel - length, 0)
    padded = np.pad(signal, (total // 2, total - total // 2))
    expected = [taps @ padded[k * stride : k * stride + kernel] for k in range(ceil(length / stride))]
    np.testing.assert_allclose(made, expected, atol=1e-12)
    assert longest <= max(lengths) + kernel + stride


def resize_by_definition(image: np.ndarray) -> np.ndarray:
    """(H, W) to (224, 224): shorter side to 224, bilinear about pixel centres, the longer rounded up, the middle."""
    scale = 224 / min(image.shape)
    height, width = (224 if side == min(image.shape) else ceil(side * scale) for side in image.shape)

    def taps(out: int, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        source = np.maximum((np.arange(out) + 0.5) * length / out - 0.5, 0)
        low = source.astype(int)
        return low, np.minimum(low + 1, length - 1), source - low

    top, bottom, down = taps(height, image.shape[0])
    left, right, along = taps(width, image.shape[1])
    rows = image[top] * (1 - down)[:, None] + image[bottom] * down[:, None]
    full = rows[:, left] * (1 - along) + rows[:, right] * along
    y, x = (height - 224) // 2, (width - 224) // 2
    return full[y : y + 224, x : x + 224]


@pytest.mark.parametrize("size", [(64, 64), (256, 256), (300, 260), (260, 301), (37, 80), (224, 224)])
def test_preprocessing(size: tuple[int, int]) -> None:
    """1e-4 of [-1, 1]: the sampling position is float32."""
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    ours = i3d.prepare(torch.from_numpy(image)[None])[:, 0].numpy()
    assert ours.dtype == np.float32
    for channel in range(3):
        expected = resize_by_definition(image[:, :, channel].astype(float)) / 127.5 - 1
        np.testing.assert_allclose(ours[channel], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("count", "expected", "tolerance"),
    [
        pytest.param(30, 151.39244, 1e-6, marks=pytest.mark.slow),  # printed by the TF-Hub module's users
        (10, 569.7711124201215, 1e-6),  # and by another float32 implementation; constant frames magnify rounding
        pytest.param(13, 146.5150766503179, 1e-5, marks=pytest.mark.slow),
    ],
)
def test_published_distance_of_black_and_white(
    whole: I3D, count: int, expected: float, tolerance: float, parity: Parity
) -> None:
    """Eight equal videos a side: the covariances vanish. On two threads: one sums in an order that gives 1e-6 more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        black, white = (whole(clip(np.full((count, 64, 64, 3), value, np.uint8))) for value in (0, 255))
    finally:
        torch.set_num_threads(threads)
    value = metric("fvd/i3d-all-frames").compute([black] * 8, [white] * 8)
    given: dict[str, Any] = {"against": "the TF-Hub module, printed" if count == 30 else "another float32 program"}
    on = f"black and white, {count} frames"
    parity("fvd/i3d-all-frames", on=on, ours=value, expected=expected, tolerance=tolerance, **given)


def test_the_window_is_the_middle(whole: I3D) -> None:
    frames = moving(21, 96, 80)
    window = load("i3d-16f")
    assert window.views == ("frames",)
    assert window.id == "i3d-16f@af5c50f0"
    of_window = window(clip(frames, 6))["features"]
    assert of_window.shape == (1, 400)
    assert of_window.dtype == np.float32
    np.testing.assert_array_equal(of_window, whole(clip(frames[2:18]))["features"])
    # Frames outside do not matter, those inside do.
    outside, inside = frames.copy(), frames.copy()
    outside[[0, 1, 18, 20]] = 0
    inside[17] = 0
    np.testing.assert_array_equal(window(clip(outside))["features"], of_window)
    assert np.abs(window(clip(inside))["features"] - of_window).max() > 1e-3


def test_real_clips_whatever_the_pieces(
    whole: I3D, real: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """1e-5 of the largest logit: convolutions over longer pieces may sum in another order."""
    path = real("mead/M003/video/front/disgusted/level_1/015.mp4")
    frames = np.stack(list(media.read_frames(path, 25, num_frames=15)))
    one = whole(clip(frames))["features"]
    monkeypatch.setattr(i3d, "STRIDE", 7)
    monkeypatch.setattr(i3d, "WAITING", 1 << 20)  # the frames go to disk
    other = whole(clip(frames, 5))["features"]
    np.testing.assert_allclose(other, one, atol=1e-5 * np.abs(one).max())


def test_clips_that_do_not_do(whole: I3D) -> None:
    window = load("i3d-16f")
    frames = moving(15, 32, 32)
    with pytest.raises(MetricError, match="the clip has 15 frames; i3d-16f takes 16 or more"):
        window(clip(frames))
    with pytest.raises(MetricError, match="the clip has 9 frames; i3d-all-frames takes 10 or more"):
        whole(clip(frames[:9]))
    with pytest.raises(MetricError, match="the clip has 0 frames"):
        whole(iter([]))
    with pytest.raises(MetricError, match="frames are float16; expected uint8"):
        whole(clip(frames.astype(np.float16)))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_published_fvd_of_random_videos(parity: Parity) -> None:
    """10.13808537 was printed for the TF-Hub module on 128 + 128 videos of noise, handed over in [0, 1] as they are."""
    network = load("i3d-all-frames").network
    sides = []
    for seed in (1, 2):
        rng = np.random.RandomState(seed)
        videos = (rng.rand(16, 224, 224, 3).astype(np.float32).transpose(3, 0, 1, 2) for _ in range(128))
        sides.append([{"features": logits(network, np.ascontiguousarray(video), 16)[None]} for video in videos])
    given: dict[str, Any] = {"against": "the TF-Hub module, printed", "on": "128 + 128 videos of noise"}
    value = metric("fvd/i3d-all-frames").compute(*sides)
    parity("fvd/i3d-all-frames", ours=value, expected=10.13808536529541, tolerance=CLOSED, **given)
