"""The Inception-v3 of FID with the preprocessing of the TF1 graph that defined it.

Szegedy et al. 2016 with the weights of Heusel et al. 2017, as a TorchScript file; read as torch-fidelity 5e211a9
does: TF1 bilinear resizing to 299 of float pixels 0-255, then (x - 128) / 128, then the 2048-d average pool.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
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


class FidInception:
    """Frames of a clip to the 2048-d features of FID: {"features": (N, 2048) float32}.

    frames   (t, H, W, 3) uint8 RGB of any size; raises MetricError for a clip without frames
    """

    def __init__(self, weights: Weights, frames_per_clip: int | None, device: str) -> None:
        self.id = f"fid-inception-tf1@{weights.sha256[:8]}"
        self.views: tuple[str, ...] = ("frames" if frames_per_clip is None else f"frames:{frames_per_clip}",)
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

        with full_precision(self._device):
            images = torch.from_numpy(frames).to(self._device)
            images = resize_tf1(images.permute(0, 3, 1, 2).float())
            features: NDArray[np.float32] = self._network((images - 128) / 128).cpu().numpy()
        return features


def _make(weights: Mapping[str, Weights], options: Mapping[str, Any]) -> Extractor:
    return FidInception(weights["fid-inception"], options.get("frames_per_clip"), options.get("device", "cpu"))


register(ExtractorSpec(name="fid-inception-tf1", make=_make, weights=("fid-inception",)))
