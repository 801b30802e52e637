"""PSNR and SSIM of a video against the real one, frame by frame, on uint8 RGB (data range 255) in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics.base import (
    ClipViews,
    Extractor,
    ExtractorSpec,
    Features,
    Metric,
    MetricError,
    Weights,
    register,
)

SIGMA = 1.5
RADIUS = 5  # of the 11 x 11 Gaussian window
UNIFORM_RADIUS = 3  # of scikit-image's 7 x 7 window
K1, K2 = 0.01, 0.03
PSNR_CAP = 100.0  # dB of an identical frame; with uint8 frames up to 256 x 256 nothing else comes near


def _check_shapes(a: NDArray[Any], b: NDArray[Any]) -> None:
    if a.shape != b.shape:
        raise MetricError(f"frames of shape {a.shape} against {b.shape}; both sides need the same crop and length")
    if a.ndim != 4:
        raise MetricError(f"frames of shape {a.shape}; expected (T, H, W, C)")


def _pair(a: NDArray[Any], b: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both as float64 (T, H, W, C): no wraparound of uint8 differences, no float16 sums."""
    _check_shapes(a, b)
    first, second = a.astype(np.float64), b.astype(np.float64)
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise MetricError("pixels that are NaN or infinite")
    return first, second


def psnr(a: NDArray[Any], b: NDArray[Any], data_range: float) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio of each frame, 10 log10(data_range² / MSE): (T,) in dB, inf for equal frames.

    a, b         (T, H, W, C) of any real type; the MSE is over pixels and channels of one frame
    data_range   largest possible minus smallest possible value: 255 for uint8

    Raises MetricError for other or different shapes, NaN or infinity.
    """
    first, second = _pair(a, b)
    error = ((first - second) ** 2).mean(axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        decibel: NDArray[np.float64] = 10 * np.log10(data_range**2 / error)
    return decibel


def ssim(a: NDArray[Any], b: NDArray[Any], data_range: float) -> NDArray[np.float64]:
    """Structural similarity of each frame (Wang et al. 2004, eq. 13): (T,), at most 1, which equal frames have.

    11 x 11 Gaussian window of σ 1.5 normalised to 1, covariances with the window's weights (no N / (N - 1)),
    K1 0.01, K2 0.03; per channel; the mean is over channels and the pixels whose window lies inside the frame.

    a, b         (T, H, W, C) of any real type, H and W at least 11
    data_range   largest possible minus smallest possible value: 255 for uint8

    Raises MetricError for other or different shapes, smaller frames, NaN or infinity.
    """
    return _ssim(a, b, data_range, _gaussian, RADIUS, 1.0)


def ssim_uniform(a: NDArray[Any], b: NDArray[Any], data_range: float) -> NDArray[np.float64]:
    """Structural similarity of each frame with scikit-image's defaults: (T,), at most 1.

    As `ssim`, but for a uniform 7 x 7 window and sample covariances (N / (N - 1), N = 49); H and W at least 7.
    """
    count = (2 * UNIFORM_RADIUS + 1) ** 2
    return _ssim(a, b, data_range, _uniform, UNIFORM_RADIUS, count / (count - 1))


Mean = Callable[[NDArray[np.float64]], NDArray[np.float64]]  # window mean at each pixel, (H, W, C) to the same


def _ssim(
    a: NDArray[Any], b: NDArray[Any], data_range: float, window: Mean, radius: int, correction: float
) -> NDArray[np.float64]:
    first, second = _pair(a, b)
    side = 2 * radius + 1
    if min(a.shape[1:3]) < side:
        raise MetricError(f"frames of {a.shape[1]} x {a.shape[2]} pixels; the SSIM window is {side} x {side}")
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2

    def inside(image: NDArray[np.float64]) -> NDArray[np.float64]:
        return window(image)[radius:-radius, radius:-radius]

    return np.array([_ssim_map(x, y, c1, c2, inside, correction).mean() for x, y in zip(first, second, strict=True)])


def _ssim_map(
    x: NDArray[np.float64], y: NDArray[np.float64], c1: float, c2: float, window: Mean, correction: float
) -> NDArray[np.float64]:
    """(H, W, C) twice to (H - 2 radius, W - 2 radius, C)."""
    # Filtering sum and difference takes four passes instead of five: x² + y² and x y follow from both squares.
    # In place, because fresh memory costs more than the arithmetic.
    plus, minus = x + y, x - y
    mean_plus, mean_minus = window(plus), window(minus)
    square_plus, square_minus = window(np.square(plus, out=plus)), window(np.square(minus, out=minus))
    mean_plus *= mean_plus
    mean_minus *= mean_minus
    cross, power = mean_plus - mean_minus, mean_plus + mean_minus  # 4 μx μy, 2 (μx² + μy²)
    covariance, variance = square_plus - square_minus, square_plus + square_minus
    covariance -= cross  # 4 σxy
    variance -= power  # 2 (σx² + σy²)
    for term in (covariance, variance):
        term *= correction
    for term, constant in ((cross, c1), (power, c1), (covariance, c2), (variance, c2)):
        term += 2 * constant
    cross *= covariance
    power *= variance
    cross /= power
    return cross


def _gaussian(image: NDArray[np.float64]) -> NDArray[np.float64]:
    import cv2

    offsets = np.arange(-RADIUS, RADIUS + 1)
    taps = np.exp(-(offsets**2) / (2 * SIGMA**2))
    taps /= taps.sum()
    return np.asarray(cv2.sepFilter2D(image, cv2.CV_64F, taps, taps), np.float64).reshape(image.shape)


def _uniform(image: NDArray[np.float64]) -> NDArray[np.float64]:
    import cv2

    side = 2 * UNIFORM_RADIUS + 1
    return np.asarray(cv2.boxFilter(image, cv2.CV_64F, (side, side)), np.float64).reshape(image.shape)


SCORES = {"psnr": psnr, "ssim": ssim, "ssim_uniform": ssim_uniform}


class ImagePairs:
    """Frames of a clip and of the real one, same index: {"psnr", "ssim", "ssim_uniform"}, each (T,) float64, see there.

    frames, real.frames   (t, H, W, 3) uint8 RGB

    Raises MetricError for no frames, different shapes, other types than uint8 (the data range would be unknown).
    """

    id = "image-pairs@2"
    views: tuple[str, ...] = ("frames", "real.frames")

    def __call__(self, chunks: Iterable[ClipViews]) -> dict[str, NDArray[Any]]:
        scores: list[tuple[NDArray[np.float64], ...]] = []
        for chunk in chunks:
            if chunk.real is None:
                raise ValueError("view 'real.frames' was not made")
            frames, real = chunk.view("frames"), chunk.real.view("frames")
            _check_shapes(frames, real)
            for side in (frames, real):
                if side.dtype != np.uint8:
                    raise MetricError(f"frames of type {side.dtype}; expected uint8, whose data range is 255")
            # One frame at a time: float64 copies of a whole chunk would be most of the memory of an evaluation.
            for k in range(len(frames)):
                one, other = frames[k : k + 1], real[k : k + 1]
                scores.append(tuple(score(one, other, 255.0) for score in SCORES.values()))
        if not scores:
            raise MetricError("no frames to compare")
        return dict(zip(SCORES, np.concatenate(scores, axis=1), strict=True))


def mean_psnr(pair: Features) -> float:
    """Mean over frames of each frame's PSNR in dB, an identical frame (or any above) counting 100 dB.

    PSNR = 10 log10(255² / MSE), the MSE over the pixels and channels of one frame, in float64.
    The cap is common_metrics' (MSE below 1e-10 of the squared range); without it one equal frame, such as the
    reference frame of a one-shot method, would make a whole clip infinite. PSNR of the MSE pooled over the clip
    is another number: 21.53 dB where this one is 25.04 dB has been seen.
    """
    return float(np.minimum(pair["psnr"], PSNR_CAP).mean())


def mean_ssim(pair: Features) -> float:
    """Mean over frames of each frame's SSIM: of (2 μx μy + C1)(2 σxy + C2) / ((μx² + μy² + C1)(σx² + σy² + C2)) the
    mean over RGB channels and over the pixels whose window lies inside the frame.

    μ, σ², σxy are means with an 11 x 11 Gaussian window of σ 1.5, without N / (N - 1); C1 = (0.01 * 255)²,
    C2 = (0.03 * 255)²; float64.
    """
    return float(pair["ssim"].mean())


def mean_ssim_uniform(pair: Features) -> float:
    """Mean over frames of each frame's SSIM with a uniform 7 x 7 window and sample covariances, N / (N - 1) of N = 49.

    Otherwise as ssim/gaussian: C1 = (0.01 * 255)², C2 = (0.03 * 255)², RGB channels alike, the border left out.
    """
    return float(pair["ssim_uniform"].mean())


def _make(weights: Mapping[str, Weights], options: Mapping[str, Any]) -> Extractor:
    return ImagePairs()


register(ExtractorSpec(name="image-pairs", make=_make))
register(
    Metric(
        name="psnr/frame-mean",
        version=1,
        needs=(("pair", "image-pairs"),),
        level="clip",
        unit="dB",
        direction="higher",
        compute=mean_psnr,
        label="PSNR",
        digits=2,
        source="mean of per-frame PSNR, range 255, capped at 100 dB as in common_metrics_on_video_quality",
    )
)
register(
    Metric(
        name="ssim/gaussian",
        version=1,
        needs=(("pair", "image-pairs"),),
        level="clip",
        unit="",
        direction="higher",
        compute=mean_ssim,
        label="SSIM",
        digits=4,
        source="Wang et al. 2004: per RGB channel, 11 x 11 Gaussian of sigma 1.5, range 255, border left out",
    )
)
register(
    Metric(
        name="ssim/skimage-7x7",
        version=1,
        needs=(("pair", "image-pairs"),),
        level="clip",
        unit="",
        direction="higher",
        compute=mean_ssim_uniform,
        label="SSIM (7x7)",
        digits=4,
        source="scikit-image's structural_similarity by default, as in EAT: per RGB channel, uniform 7 x 7, range 255",
    )
)
