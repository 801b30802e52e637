"""LPIPS, the learned perceptual distance, between frames of a clip and of the real one.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018, version 0.1: the
convolutions of AlexNet or VGG-16 as trained on ImageNet, and linear heads trained on human judgements.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from metrics.base import ClipViews, Extractor, ExtractorSpec, MetricError, Weights, register
from metrics.networks.running import full_precision

if TYPE_CHECKING:
    import torch

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of RGB in [-1, 1]
EPS = 1e-10
PIXELS = 4 * 256 * 256  # of a side at a time: the first layers of VGG-16 hold 64 floats a pixel


@dataclass(frozen=True, slots=True)
class Net:
    """Convolutions with ReLU, their (stride, padding); before some, max pooling of `pool` pixels and stride 2; the
    distance is taken after those of `taps`. Frames need `smallest` pixels a side to reach the last one."""

    weights: str
    convolutions: tuple[tuple[int, int], ...]
    pool: int
    pooled: tuple[int, ...]
    taps: tuple[int, ...]
    smallest: int


NETS = {
    "alex": Net("lpips-alexnet", ((4, 2), (1, 2), (1, 1), (1, 1), (1, 1)), 3, (1, 2), (0, 1, 2, 3, 4), 31),
    "vgg": Net("lpips-vgg16", ((1, 1),) * 13, 2, (2, 4, 7, 10), (1, 3, 6, 9, 12), 16),
}


class Lpips:
    """Distances of each frame to the real one: {"lpips": (T,), "lpips_spatial": (T,)} float64, 0 for equal frames.

    frames, real.frames   (t, H, W, 3) uint8 RGB, at least 31 (alex) or 16 (vgg) pixels a side

    lpips           sum over five layers of the mean over the layer's pixels
    lpips_spatial   mean over the frame's pixels of the sum of the layers' maps, each resized to the frame
                    (bilinear about pixel centres); what the package gives for spatial=True, averaged

    RGB in [-1, 1] less (-0.030, -0.088, -0.188), over (0.458, 0.448, 0.450). The layers are the ReLUs of AlexNet's five
    convolutions, or the last ReLU before each pool and the end of VGG-16; a unit vector is x / (|x| + 1e-10) over the
    channels, and the weights are version 0.1's linear heads.

    `unsigned` hands over [0, 1] as if it were [-1, 1]: a common mistake, whose size `bench explain` tells.

    Raises MetricError for no frames, different shapes, smaller frames, other types than uint8.
    """

    views: tuple[str, ...] = ("frames", "real.frames")

    def __init__(self, variant: str, weights: Weights, device: str, unsigned: bool = False) -> None:
        self.id = f"lpips-{variant}@{weights.sha256[:8]}{'+unsigned' if unsigned else ''}"
        self._scale, self._low = (255.0, 0.0) if unsigned else (127.5, -1.0)
        self._net = NETS[variant]
        self._variant = variant
        self._weights = weights
        self._device = device
        self.device = device.partition(":")[0]

    @cached_property
    def _tensors(self) -> dict[str, torch.Tensor]:
        from safetensors.torch import load_file

        return load_file(str(self._weights.path), device=self._device)

    def __call__(self, chunks: Iterable[ClipViews]) -> dict[str, NDArray[Any]]:
        scores: list[NDArray[np.float64]] = []
        for chunk in chunks:
            if chunk.real is None:
                raise ValueError("view 'real.frames' was not made")
            frames, real = chunk.view("frames"), chunk.real.view("frames")
            self._check(frames, real)
            size = max(1, PIXELS // (frames.shape[1] * frames.shape[2]))
            for start in range(0, len(frames), size):
                scores.append(self._distances(frames[start : start + size], real[start : start + size]))
        if not scores:
            raise MetricError("no frames to compare")
        both = np.concatenate(scores, axis=1)
        return {"lpips": both[0], "lpips_spatial": both[1]}

    def _check(self, frames: NDArray[Any], real: NDArray[Any]) -> None:
        if frames.shape != real.shape:
            raise MetricError(
                f"frames of shape {frames.shape} against {real.shape}; both sides need the same crop and length"
            )
        for side in (frames, real):
            if side.dtype != np.uint8:
                raise MetricError(f"frames of type {side.dtype}; expected uint8, whose range is 0-255")
        if min(frames.shape[1:3]) < self._net.smallest:
            raise MetricError(
                f"frames of {frames.shape[1]} x {frames.shape[2]} pixels; LPIPS ({self._variant}) needs "
                f"{self._net.smallest} a side"
            )

    def _distances(self, frames: NDArray[np.uint8], real: NDArray[np.uint8]) -> NDArray[np.float64]:
        """(n, H, W, 3) twice to (2, n): plain and spatial."""
        import torch
        from torch.nn import functional

        total = np.zeros((2, len(frames)))
        with full_precision(self._device):
            pixels = torch.from_numpy(np.concatenate([frames, real])).to(self._device).permute(0, 3, 1, 2).float()
            shift, scale = (torch.tensor(v, device=self._device).view(1, 3, 1, 1) for v in (SHIFT, SCALE))
            x = (pixels / self._scale + self._low - shift) / scale  # (2n, 3, H, W)
            for k, (stride, padding) in enumerate(self._net.convolutions):
                if k in self._net.pooled:
                    x = functional.max_pool2d(x, self._net.pool, 2)
                weight, bias = (self._tensors[f"conv{k}.{part}"] for part in ("weight", "bias"))
                x = functional.conv2d(x, weight, bias, stride, padding).relu_()  # (2n, C, h, w)
                if k in self._net.taps:
                    unit = x / (x.square().sum(dim=1, keepdim=True).sqrt() + EPS)
                    apart = (unit[: len(frames)] - unit[len(frames) :]).square_()
                    head = self._tensors[f"lin{self._net.taps.index(k)}.weight"]
                    near = functional.conv2d(apart, head)  # (n, 1, h, w)
                    full = functional.interpolate(near, size=frames.shape[1:3], mode="bilinear", align_corners=False)
                    for row, layer in enumerate((near, full)):
                        total[row] += layer.double().mean(dim=(1, 2, 3)).cpu().numpy()
        return total


def _make(variant: str, weights: Mapping[str, Weights], options: Mapping[str, Any]) -> Extractor:
    given = options.get("device", "cpu"), options.get("unsigned", False)
    return Lpips(variant, weights[NETS[variant].weights], *given)


for _variant, _net in NETS.items():
    register(ExtractorSpec(name=f"lpips-{_variant}", make=partial(_make, _variant), weights=(_net.weights,)))
