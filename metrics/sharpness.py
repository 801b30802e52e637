"""CPBD: how sharp a picture looks, without a reference.

Narvekar and Karam, "A No-Reference Image Blur Metric Based on the Cumulative Probability of Blur Detection (CPBD)",
IEEE TIP 20(9), 2011: of the edges in blocks that hold any, the share at which a viewer would rather not notice blur.
The chance to notice it at an edge of width w is 1 - exp(-(w / w_JNB)^3.6), with a just noticeable w_JNB of 5 pixels
in a block of contrast at most 50 and of 3 in others; counted are the edges where it is at most 63 %. Widths are whole
pixels, so these are exactly the edges with w <= w_JNB.

Two programs are in use, which find other edges in the same picture: on the reference picture of the port's own tests
they give 0.1349 and 0.1091.
asu           the authors' release under MATLAB: its Canny (R2011a and later) and its Sobel of threshold 2, as read off
              the edge maps that the port keeps for its tests: here the same Canny pixels and the same widths
python-cpbd   the port run on pictures, python-cpbd 1.0.7: scikit-image's Canny and a Sobel after Octave's

Both are given the grey values of PIL's mode "L" (ITU-R 601, rounded), and 0 is the score where there is no edge, no
vertical one, or no whole block of 64 x 64 pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics.base import ClipViews, Extractor, ExtractorSpec, Features, Metric, MetricError, Weights, register

BLOCK = 64  # pixels
EDGE_SHARE = 0.002  # of a block's pixels; more Canny edges make it an edge block
LOW_CONTRAST = 50  # grey levels
JNB_LOW, JNB_HIGH = 5, 3  # just noticeable widths in pixels, at low contrast and at any other
MAX_RUN = 100  # pixels that an edge is followed to either side
TAN_22_5 = np.sqrt(2) - 1  # horizontal gradients are those within 22.5 degrees

CANNY_SIGMA = np.sqrt(2)
CANNY_TAPS = 16  # an even number: MATLAB's edges lie half a pixel up and to the left
CANNY_WEAK = 0.7  # share of the pixels that are no strong edges
CANNY_RATIO = 0.4  # of the low threshold to the high one
SOBEL_THRESHOLD = 2.0  # grey levels a pixel; the picture has edges down to 2.125 and none at 2

ALONG, ASIDE = np.array([-1.0, 0.0, 1.0]) / 2, np.array([1.0, 2.0, 1.0]) / 4  # Sobel's operator, in two parts

Grey = NDArray[np.float64]
Mask = NDArray[np.bool_]


def grey(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """RGB (..., 3) uint8 to grey levels 0-255 (whole numbers): 0.299 R + 0.587 G + 0.114 B in 16-bit fixed point."""
    red, green, blue = np.moveaxis(frames.astype(np.int32), -1, 0)
    levels: NDArray[np.int32] = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
    return levels.astype(np.float64)


def asu(image: Grey) -> float:
    """CPBD of one grey image (H, W) in 0-255, as the authors' release computes it under MATLAB."""
    return _score(image, canny_matlab, sobel_matlab)


def python_cpbd(image: Grey) -> float:
    """CPBD of one grey image (H, W) in 0-255, as python-cpbd 1.0.7 computes it."""
    return _score(image, canny_skimage, sobel_octave)


def _score(image: Grey, canny: Callable[[Grey], Mask], sobel: Callable[[Grey], Mask]) -> float:
    rows, columns = (length // BLOCK * BLOCK for length in image.shape)
    if not rows or not columns:
        return 0.0

    def blocks(pixels: NDArray[Any]) -> NDArray[Any]:  # (H, W) to (blocks, 4096)
        split = pixels[:rows, :columns].reshape(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
        return split.swapaxes(1, 2).reshape(-1, BLOCK * BLOCK)

    wanted = np.count_nonzero(blocks(canny(image)), axis=1) > EDGE_SHARE * BLOCK * BLOCK
    widths, levels = blocks(edge_widths(image, sobel(image)))[wanted], blocks(image)[wanted]
    count = np.count_nonzero(widths)
    if not count:
        return 0.0
    contrast = np.floor(np.ptp(levels, axis=1))
    jnb = np.where(contrast <= LOW_CONTRAST, JNB_LOW, JNB_HIGH)[:, None]
    return float(np.count_nonzero((widths > 0) & (widths <= jnb)) / count)


def edge_widths(image: Grey, edges: Mask) -> NDArray[np.int64]:
    """Widths of the vertical edges, after Marziliano et al. 2002: (H, W) int64 pixels, 0 elsewhere.

    From the pixel beside an edge, the rise (or fall) is followed to either side for as long as it is strict. Only
    where the gradient is horizontal to within 22.5 degrees, or has no horizontal part (sic, both programs), and not
    on the border. No width is measured in an image whose gradients all point exactly to the right (sic).
    """
    down, across = np.gradient(image)
    widths = np.zeros(image.shape, np.int64)
    if not ((across < 0) | ((across != 0) & (down != 0))).any():
        return widths
    horizontal = np.abs(down) <= TAN_22_5 * np.abs(across)
    steps = np.diff(image, axis=1)
    for chosen, run in ((horizontal & (across > 0) | (across == 0), steps > 0), (horizontal & (across < 0), steps < 0)):
        measured = edges & chosen
        widths[measured] = (2 + _before(run) + _before(run[:, ::-1])[:, ::-1])[measured]
    widths[[0, -1]] = 0
    widths[:, [0, -1]] = 0
    return widths


def _before(steps: Mask) -> NDArray[np.int64]:
    """Length, at most 100, of the run of steps that ends one pixel before each pixel: (H, W - 1) to (H, W)."""
    index = np.arange(steps.shape[1])
    last = np.maximum.accumulate(np.where(steps, -1, index), axis=1)
    runs = np.zeros((steps.shape[0], steps.shape[1] + 1), np.int64)
    runs[:, 2:] = np.minimum(index - last, MAX_RUN)[:, :-1]
    return runs


def _filter(image: Grey, rows: Grey, columns: Grey, anchor: int = -1) -> Grey:
    """Correlation with taps along the rows and down the columns, the border repeated; -1 anchors in the middle."""
    import cv2

    border = cv2.BORDER_REPLICATE
    return np.asarray(cv2.sepFilter2D(image, cv2.CV_64F, rows, columns, None, (anchor, anchor), 0, border), np.float64)


def sobel_matlab(image: Grey) -> Mask:
    """MATLAB's edge(image, 'sobel', 2, 'vertical'): (H, W) bool.

    A pixel whose horizontal derivative exceeds the threshold and is largest among its neighbours in the row, where
    it is not below the vertical derivative, or among those in the column.
    """
    across, down = _filter(image, ALONG, ASIDE), _filter(image, ASIDE, ALONG)
    strength = across**2
    there = np.pad(strength, 1, mode="edge")
    row = (strength >= there[1:-1, :-2]) & (strength > there[1:-1, 2:])
    column = (strength >= there[:-2, 1:-1]) & (strength > there[2:, 1:-1])
    steep = np.abs(across) >= np.abs(down) - 100 * np.finfo(np.float64).eps
    found: Mask = (strength > SOBEL_THRESHOLD**2) & ((row & steep) | column)
    return found


def sobel_octave(image: Grey) -> Mask:
    """python-cpbd's edges: squared horizontal derivatives above twice their root mean (sic: Octave compares the
    derivative itself), strictly largest among the neighbours in row or column: (H, W) bool."""
    # Octave's border is repeated; the port's is SciPy's "reflect", which is the same for so small a window.
    strength = _filter(image, ALONG, ASIDE) ** 2
    strength[strength <= 2 * np.sqrt(strength.mean())] = 0
    there = np.pad(strength, 1)
    row = (strength > there[1:-1, :-2]) & (strength > there[1:-1, 2:])
    column = (strength > there[:-2, 1:-1]) & (strength > there[2:, 1:-1])
    found: Mask = row | column
    return found


def canny_skimage(image: Grey) -> Mask:
    """scikit-image's Canny with its defaults, sigma 1 and thresholds 0.1 and 0.2, on 0-255 (sic): (H, W) bool."""
    from skimage.feature import canny

    found: Mask = canny(image)  # type: ignore[no-untyped-call]
    return found


def canny_matlab(image: Grey) -> Mask:
    """MATLAB's edge(image, 'canny') since R2011a: (H, W) bool.

    Derivatives of a Gaussian of sigma sqrt 2 in 16 taps; the high threshold, in 64ths of the largest gradient, is
    the first that more than 70 % of the pixels do not exceed, the low one 0.4 of it.
    """
    from scipy import ndimage

    offsets = np.arange(CANNY_TAPS) - (CANNY_TAPS - 1) / 2
    smooth = np.exp(-(offsets**2) / (2 * CANNY_SIGMA**2))
    smooth /= smooth.sum()
    slope = np.gradient(smooth)
    slope /= slope[slope > 0].sum()
    middle = CANNY_TAPS // 2 - 1
    across, down = _filter(image, slope, smooth, middle), _filter(image, smooth, slope, middle)
    magnitude = np.hypot(across, down)
    if not magnitude.any():
        return np.zeros(image.shape, np.bool_)
    magnitude /= magnitude.max()
    histogram = np.bincount(np.floor(magnitude * 63 + 0.5).astype(np.int64).ravel(), minlength=64)
    high = (np.flatnonzero(np.cumsum(histogram) > CANNY_WEAK * image.size)[0] + 1) / 64
    weak = _ridges(magnitude, across, down) & (magnitude > CANNY_RATIO * high)
    labels, count = ndimage.label(weak, np.ones((3, 3)))
    strong = np.zeros(count + 1, np.bool_)
    strong[labels[weak & (magnitude > high)]] = True
    found: Mask = strong[labels]
    return found


def _ridges(magnitude: Grey, across: Grey, down: Grey) -> Mask:
    """Pixels not below the magnitudes one step up and down the gradient, interpolated between two neighbours."""

    def at(row: int, column: int) -> Grey:  # the magnitude of that neighbour, for all but the border
        height, width = magnitude.shape
        return magnitude[1 + row : height - 1 + row, 1 + column : width - 1 + column]

    x, y = across[1:-1, 1:-1], down[1:-1, 1:-1]
    steep, alike = np.abs(y) > np.abs(x), x * y > 0  # alike: the gradient runs along the falling diagonal
    larger = np.where(steep, np.abs(y), np.abs(x))
    slant = np.divide(np.where(steep, np.abs(x), np.abs(y)), larger, out=np.zeros_like(x), where=larger > 0)
    upper = np.where(steep, at(-1, 0), np.where(alike, at(0, -1), at(0, 1)))
    lower = np.where(steep, at(1, 0), np.where(alike, at(0, 1), at(0, -1)))
    upper = upper * (1 - slant) + np.where(alike, at(-1, -1), at(-1, 1)) * slant
    lower = lower * (1 - slant) + np.where(alike, at(1, 1), at(1, -1)) * slant
    ridges = np.zeros(magnitude.shape, np.bool_)
    ridges[1:-1, 1:-1] = (at(0, 0) >= upper) & (at(0, 0) >= lower)
    return ridges


VARIANTS: dict[str, Callable[[Grey], float]] = {"asu": asu, "python-cpbd": python_cpbd}


class Cpbd:
    """CPBD of each frame: {"cpbd": (T,) float64} in 0-1.

    frames   (t, H, W, 3) uint8 RGB, to grey by ITU-R 601 and rounded (PIL's mode "L")

    Blocks of 64 x 64 with more than 0.2 % Canny edges; widths after Marziliano et al. 2002 at vertical Sobel edges;
    exponent 3.6; of the just noticeable width 5 px at contrasts up to 50, else 3.
    asu           MATLAB's Canny (σ √2, the weaker 70 % of the pixels below its high threshold, the low one 0.4 of it)
                  and Sobel edges above 2 grey levels a pixel
    python-cpbd   scikit-image's Canny (its defaults) and Octave's Sobel (threshold 2 √mean)

    Raises MetricError for a clip without frames, or of another type than uint8 (the contrast would be unknown).
    """

    views: tuple[str, ...] = ("frames",)

    def __init__(self, variant: str) -> None:
        self.id = f"cpbd-{variant}@1"
        self._variant = VARIANTS[variant]

    def __call__(self, chunks: Iterable[ClipViews]) -> dict[str, NDArray[Any]]:
        scores: list[float] = []
        for chunk in chunks:
            frames = chunk.view("frames")
            if frames.dtype != np.uint8:
                raise MetricError(f"frames of type {frames.dtype}; expected uint8, 0-255 (scaled to [0, 1] already?)")
            scores.extend(self._variant(grey(frame)) for frame in frames)
        if not scores:
            raise MetricError("no frames to measure the sharpness of")
        return {"cpbd": np.array(scores)}


def mean_cpbd(generated: Features) -> float:
    """Mean over frames of each frame's CPBD: the share of edges, in blocks of 64 pixels with edges, no wider than is
    just noticeable (5 pixels at contrasts up to 50 grey levels, else 3). A frame without edges counts 0."""
    return float(generated["cpbd"].mean())


def _make(variant: str, weights: Mapping[str, Weights], options: Mapping[str, Any]) -> Extractor:
    return Cpbd(variant)


_SOURCES = {
    "asu": "Narvekar and Karam 2011, CPBDM release 1.0 under MATLAB, whose edge detectors "
    "are read off its one test picture (0.1349); PIL's grey",
    "python-cpbd": "python-cpbd 1.0.7, a port with other edge detectors than the release's; PIL's grey",
}
for _variant in VARIANTS:
    register(ExtractorSpec(name=f"cpbd-{_variant}", make=partial(_make, _variant)))
    register(
        Metric(
            name=f"cpbd/{_variant}",
            version=1,
            needs=(("generated", f"cpbd-{_variant}"),),
            level="clip",
            unit="",
            direction="higher",
            compute=mean_cpbd,
            label="CPBD" if _variant == "asu" else "CPBD (python-cpbd)",
            digits=4,
            source=_SOURCES[_variant],
        )
    )
