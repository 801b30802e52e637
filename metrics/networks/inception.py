"""The Inception-v3 of FID with the preprocessing of each implementation in use.

Szegedy et al. 2016 with the weights of Heusel et al. 2017, as a TorchScript file that neither resizes nor
normalises: how the frames come to 299 x 299 and to about [-1, 1] is what tells the implementations apart. From
32 x 32 pictures the four give FIDs that differ by up to 2 %, so each is an extractor of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from metrics.base import ClipViews, Extractor, ExtractorSpec, MetricError, Weights, register
from metrics.networks.running import batches, full_precision

if TYPE_CHECKING:
    import torch

SIZE = 299
BATCH = 32


def resize_tf1(images: torch.Tensor, size: int = SIZE) -> torch.Tensor:
    """Bilinear resizing as TF1's `resize_bilinear` with align_corners off: (n, C, H, W) float32 to size x size.

    Output pixel i samples the input at i * in / out (no half-pixel offset, no antialiasing), and the upper
    neighbour is clamped at the border. The order of the float32 operations is TF1's.
    """
    import torch

    def taps(length: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        source = torch.arange(size, dtype=torch.float32) * torch.tensor(length / size, dtype=torch.float32)
        low = source.floor().long()
        high = (low + 1).clamp(max=length - 1)
        return low.to(images.device), high.to(images.device), (source - low).to(images.device)

    top, bottom, down = taps(images.shape[2])
    left, right, along = taps(images.shape[3])

    def across(rows: torch.Tensor) -> torch.Tensor:  # (n, C, size, W) to (n, C, size, size)
        return rows[..., left] + (rows[..., right] - rows[..., left]) * along

    upper = across(images[:, :, top])
    return upper + (across(images[:, :, bottom]) - upper) * down[:, None]


def _resize(images: torch.Tensor, mode: str, antialias: bool) -> torch.Tensor:
    import torch

    return torch.nn.functional.interpolate(
        images, size=(SIZE, SIZE), mode=mode, align_corners=False, antialias=antialias
    )


# Each takes (n, 3, H, W) float32 in 0-255 and gives (n, 3, 299, 299) float32, about [-1, 1].


def prepare_tf1(images: torch.Tensor) -> torch.Tensor:
    """torch-fidelity 5e211a9, as the TF1 graph that defined FID: see `resize_tf1`."""
    return (resize_tf1(images) - 128) / 128


def prepare_pytorch(images: torch.Tensor) -> torch.Tensor:
    """pytorch-fid 0.3: bilinear about pixel centres, without antialiasing, of [0, 1], then 2x - 1."""
    return 2 * _resize(images / 255, "bilinear", antialias=False) - 1


def prepare_clean(images: torch.Tensor) -> torch.Tensor:
    """clean-fid e88c4d6, mode "clean": PIL's antialiased bicubic (a = -1/2) of each channel in float, never rounded
    to bytes, clipped to 0-255. PyTorch's antialiased bicubic is the same filter."""
    return (_resize(images, "bicubic", antialias=True).clamp(0, 255) - 128) / 128


def prepare_torchmetrics(images: torch.Tensor) -> torch.Tensor:
    """torchmetrics dab0333, its default: antialiased bilinear."""
    return (_resize(images, "bilinear", antialias=True) - 128) / 128


Prepare = Callable[["torch.Tensor"], "torch.Tensor"]
VARIANTS: dict[str, Prepare] = {
    "fid-inception-tf1": prepare_tf1,
    "fid-inception-pytorch": prepare_pytorch,
    "fid-inception-clean": prepare_clean,
    "fid-inception-torchmetrics": prepare_torchmetrics,
}


class FidInception:
    """Frames of a clip to the 2048-d features of FID: {"features": (N, 2048) float32}.

    frames   (t, H, W, 3) uint8 RGB of any size; raises MetricError for a clip without frames or another dtype
    variant  how x in 0-255 comes to 299 x 299 pixels and about [-1, 1]:
               fid-inception-tf1           bilinear, source = target * in / out (no half pixel), (x - 128) / 128
               fid-inception-pytorch       bilinear about pixel centres, no antialiasing, x / 127.5 - 1
               fid-inception-clean         bicubic (a = -1/2), antialiased, clipped to 0-255, (x - 128) / 128
               fid-inception-torchmetrics  bilinear about pixel centres, antialiased, (x - 128) / 128

    The network is Inception-v3 with the weights of Heusel et al. 2017; the features are its last average pool.
    """

    def __init__(self, variant: str, weights: Weights, frames_per_clip: int | None, device: str) -> None:
        self.id = f"{variant}@{weights.sha256[:8]}"
        self.views: tuple[str, ...] = ("frames" if frames_per_clip is None else f"frames:{frames_per_clip}",)
        self._prepare = VARIANTS[variant]
        self._weights = weights
        self._device = device
        self.device = device.partition(":")[0]

    @cached_property
    def _network(self) -> Any:
        import torch

        return torch.jit.load(str(self._weights.path), map_location=self._device).eval()  # type: ignore[no-untyped-call]

    def __call__(self, chunks: Iterable[ClipViews]) -> dict[str, NDArray[Any]]:
        frames = (chunk.view("frames") for chunk in chunks)
        features = [self._forward(batch) for batch in batches(frames, BATCH)]
        if not features:
            raise MetricError("no frames to extract Inception features from")
        return {"features": np.concatenate(features)}

    def _forward(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        import torch

        if frames.dtype != np.uint8:
            raise MetricError(f"frames are {frames.dtype}; expected uint8, 0-255 (scaled to [0, 1] already?)")
        with full_precision(self._device):
            images = torch.from_numpy(frames).to(self._device).permute(0, 3, 1, 2).float()
            features: NDArray[np.float32] = self._network(self._prepare(images)).cpu().numpy()
        return features


def _make(variant: str, weights: Mapping[str, Weights], options: Mapping[str, Any]) -> Extractor:
    given = options.get("frames_per_clip"), options.get("device", "cpu")
    return FidInception(options.get("resizing", variant), weights["fid-inception"], *given)


for _variant in VARIANTS:
    register(ExtractorSpec(name=_variant, make=partial(_make, _variant), weights=("fid-inception",)))
