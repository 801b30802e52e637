"""PSNR and SSIM against scikit-image and closed forms."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from metrics import MetricError, extractor, metric
from metrics.base import ClipViews
from metrics.image import psnr, ssim


def by_skimage(x: np.ndarray, y: np.ndarray) -> float:
    """Per channel, truncated at 3.5 σ (11 taps) and with the weights' own covariance; the border cut off."""
    full = structural_similarity(
        x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, channel_axis=2, full=True
    )[1]
    return float(full[5:-5, 5:-5].mean())


def pictures(seed: int, count: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A photograph and noisy, darker versions of it."""
    rng = np.random.default_rng(seed)
    clean = np.stack([data.astronaut()[k : k + height, k : k + width] for k in range(count)])
    noisy = clean * rng.uniform(0.6, 1.0) + rng.normal(0, rng.uniform(1, 40), clean.shape)
    return clean, noisy.clip(0, 255).astype(np.uint8)


def run(pairs: Iterator[tuple[np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
    return extractor("image-pairs").make({}, {})(
        ClipViews(index=np.arange(len(a)), fps=25, frames=a, real=ClipViews(index=np.arange(len(b)), fps=25, frames=b))
        for a, b in pairs
    )


@given(st.integers(0, 1000), st.integers(11, 80), st.integers(11, 80))
@settings(max_examples=15, deadline=None)
def test_equal_to_scikit_image(seed: int, height: int, width: int) -> None:
    """1e-12: the same sums in float64, in another order."""
    real, fake = pictures(seed, 2, height, width)
    np.testing.assert_allclose(
        ssim(fake, real, 255), [by_skimage(x, y) for x, y in zip(fake, real, strict=True)], atol=1e-12
    )
    expected = [peak_signal_noise_ratio(y, x, data_range=255) for x, y in zip(fake, real, strict=True)]
    np.testing.assert_allclose(psnr(fake, real, 255), expected, rtol=1e-12)


def test_all_zero_against_all_one() -> None:
    """SSIM is C1 / (1 + C1) with C1 = 1e-4 (9.999e-05 as published), PSNR 0 dB."""
    zero, one = np.zeros((2, 64, 64, 3)), np.ones((2, 64, 64, 3))
    np.testing.assert_allclose(ssim(zero, one, 1.0), 1e-4 / (1 + 1e-4), rtol=1e-9)
    np.testing.assert_allclose(psnr(zero, one, 1.0), 0.0, atol=1e-12)


def test_the_data_range_is_not_taken_from_the_data() -> None:
    real, fake = pictures(0, 1, 32, 32)
    np.testing.assert_allclose(psnr(fake / 255, real / 255, 1.0), psnr(fake, real, 255), rtol=1e-12)
    np.testing.assert_allclose(ssim(fake / 255, real / 255, 1.0), ssim(fake, real, 255), rtol=1e-10)
    assert psnr(fake // 4, real // 4, 255)[0] > psnr(fake, real, 255)[0] + 10  # a quarter of the contrast


def test_identical_frames() -> None:
    real, fake = pictures(0, 3, 32, 32)
    assert (ssim(real, real, 255) == 1.0).all()
    assert np.isposinf(psnr(real, real, 255)).all()
    fake[1] = real[1]
    scores = run(iter([(fake, real)]))
    assert np.isposinf(scores["psnr"][1])
    others = [peak_signal_noise_ratio(real[k], fake[k], data_range=255) for k in (0, 2)]
    assert metric("psnr/frame-mean").compute(scores) == pytest.approx((sum(others) + 100) / 3, rel=1e-12)
    assert metric("psnr/frame-mean").compute(run(iter([(real, real)]))) == 100.0
    assert metric("ssim/gaussian").compute(run(iter([(real, real)]))) == 1.0


def test_frame_mean_is_not_pooled() -> None:
    real, fake = pictures(0, 2, 32, 32)
    fake[0] = real[0]
    fake[0, 0, 0, 0] ^= 8
    value = metric("psnr/frame-mean").compute(run(iter([(fake, real)])))
    frames = [10 * np.log10(255**2 / ((fake[k].astype(float) - real[k]) ** 2).mean()) for k in (0, 1)]
    assert value == pytest.approx(np.mean(frames), rel=1e-12)
    assert value > peak_signal_noise_ratio(real, fake, data_range=255) + 5


def test_no_wraparound_and_no_half_precision() -> None:
    black, white = np.zeros((1, 16, 16, 3), np.uint8), np.full((1, 16, 16, 3), 255, np.uint8)
    assert psnr(black, white, 255) == pytest.approx(0.0)  # uint8 0 - 255 would be 1
    assert psnr(black + np.uint8(10), black, 255) == psnr(black, black + np.uint8(10), 255)
    real, fake = pictures(1, 1, 64, 64)
    half = psnr(fake.astype(np.float16), real.astype(np.float16), 255)  # sums of squares would overflow float16
    np.testing.assert_array_equal(half, psnr(fake, real, 255))
    np.testing.assert_array_equal(ssim(fake.astype(np.float16), real.astype(np.float16), 255), ssim(fake, real, 255))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=5).filter(any))
@settings(max_examples=10, deadline=None)
def test_chunks_do_not_matter(lengths: list[int]) -> None:
    real, fake = pictures(2, sum(lengths), 16, 16)
    cuts = np.cumsum(lengths)[:-1]
    pieces = run(zip(np.split(fake, cuts), np.split(real, cuts), strict=True))
    whole = run(iter([(fake, real)]))
    assert whole["psnr"].dtype == whole["ssim"].dtype == np.float64
    for name in whole:
        np.testing.assert_array_equal(pieces[name], whole[name])


def test_bad_frames_are_refused() -> None:
    frames = np.zeros((2, 16, 20, 3), np.uint8)
    with pytest.raises(MetricError, match=r"\(2, 16, 20, 3\) against \(2, 20, 16, 3\)"):
        run(iter([(frames, frames.transpose(0, 2, 1, 3))]))
    with pytest.raises(MetricError, match=r"\(2, 16, 20, 3\) against \(1, 16, 20, 3\)"):
        run(iter([(frames, frames[:1])]))
    with pytest.raises(MetricError, match="type float16"):
        run(iter([(frames.astype(np.float16), frames)]))
    with pytest.raises(MetricError, match="window is 11 x 11"):
        run(iter([(frames[:, :10], frames[:, :10])]))
    with pytest.raises(MetricError, match="no frames"):
        run(iter([]))
    with pytest.raises(MetricError, match="NaN"):
        ssim(np.full((1, 16, 16, 3), np.nan), np.zeros((1, 16, 16, 3)), 255)
    with pytest.raises(MetricError, match="expected"):
        psnr(frames[0], frames[0], 255)
