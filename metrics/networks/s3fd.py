"""S3FD, the face detector of SyncNet's tracker.

Zhang et al., "S3FD: Single Shot Scale-invariant Face Detector", ICCV 2017, as joonson/syncnet_python @6efbb1c runs it
(`detectors/s3fd`): the picture shrunk to a quarter, RGB with the BGR mean taken off channel by channel, score above
0.9, overlaps removed at 0.3 and again at 0.1. The weights are `sfd_face.pth`, loaded as published.

Not checked here, for want of the weights: that boxes of real faces equal the published program's. Key names, shapes
and each formula follow its text; decoding and suppression are tested against plain readings.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from metrics.base import MetricError, Weights
from metrics.networks.running import full_precision
from metrics.networks.syncnet import load_state

if TYPE_CHECKING:
    import torch

STRIDES = (4, 8, 16, 32, 64, 128)  # px of the shrunken picture, one anchor a cell, 4 strides wide
ANCHOR = 4
VARIANCES = (0.1, 0.2)
MEAN = np.array([123, 117, 104], np.float32)  # of red, green and blue
OVERLAPS = (0.3, 0.1)  # of the network's own suppression, and of the one over its scales
THRESHOLD, SCALE = 0.9, 0.25
SMALLEST = 28  # px of the shrunken picture's side, of which five halvings leave one


def build() -> torch.nn.Module:
    """The published architecture with its key names (vgg.0 ... vgg.33, L2Norm3_3 ..., extras, loc, conf), untrained.

    (1, 3, H, W) float32 gives, for each of six strides, offsets (cells, 4) and two logits (cells, 2), background and
    face, cells in rows. The finest stride has three background logits, of which the largest counts (max-out).
    """
    import torch
    from torch import nn
    from torch.nn import functional

    class Norm(nn.Module):
        """Each position scaled to length 1 over the channels, then by a learned gain."""

        def __init__(self, channels: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(channels))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            unit: torch.Tensor = x / (x.pow(2).sum(dim=1, keepdim=True).sqrt() + 1e-10)
            return unit * self.weight[:, None, None]

    class S3fd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers: list[nn.Module] = []
            into = 3
            for block, (out, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
                for _ in range(count):
                    layers += [nn.Conv2d(into, out, 3, padding=1), nn.ReLU(inplace=True)]
                    into = out
                layers.append(nn.MaxPool2d(2, 2, ceil_mode=block == 2))
            layers += [nn.Conv2d(512, 1024, 3, padding=6, dilation=6), nn.ReLU(inplace=True)]
            layers += [nn.Conv2d(1024, 1024, 1), nn.ReLU(inplace=True)]
            self.vgg = nn.ModuleList(layers)
            self.L2Norm3_3, self.L2Norm4_3, self.L2Norm5_3 = Norm(256), Norm(512), Norm(512)
            shrinking = [nn.Conv2d(1024, 256, 1), nn.Conv2d(256, 512, 3, 2, 1)]
            shrinking += [nn.Conv2d(512, 128, 1), nn.Conv2d(128, 256, 3, 2, 1)]
            self.extras = nn.ModuleList(shrinking)
            widths = (256, 512, 512, 1024, 512, 256)
            self.loc = nn.ModuleList([nn.Conv2d(width, 4, 3, padding=1) for width in widths])
            self.conf = nn.ModuleList([nn.Conv2d(w, 2 if k else 4, 3, padding=1) for k, w in enumerate(widths)])

        def forward(self, x: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
            maps = []
            norms = {15: self.L2Norm3_3, 22: self.L2Norm4_3, 29: self.L2Norm5_3}
            for k, layer in enumerate(self.vgg):
                x = layer(x)
                if k in norms:
                    # The next layer pools, so what was activated in place stays as it is.
                    maps.append(norms[k](x))
            maps.append(x)
            for k, layer in enumerate(self.extras):
                x = functional.relu(layer(x))
                if k % 2:
                    maps.append(x)
            heads = []
            for k, found in enumerate(maps):
                offsets, logits = self.loc[k](found), self.conf[k](found)
                if k == 0:
                    logits = torch.cat([logits[:, :3].amax(dim=1, keepdim=True), logits[:, 3:]], dim=1)
                rows = [part[0].permute(1, 2, 0) for part in (offsets, logits)]  # (h, w, 4), (h, w, 2)
                heads.append((rows[0], rows[1]))
            return heads

    return S3fd()


def anchors(cells: tuple[int, int], stride: int) -> NDArray[np.float64]:
    """(h * w, 4) centre x, centre y, width, height of the anchors of a (h, w) grid in px of the shrunken picture."""
    y, x = np.mgrid[: cells[0], : cells[1]]
    side = np.full(y.size, float(ANCHOR * stride))
    return np.column_stack([(x.ravel() + 0.5) * stride, (y.ravel() + 0.5) * stride, side, side])


def decode(offsets: NDArray[Any], priors: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 4) predicted offsets of (n, 4) anchors to left, top, right, bottom in px: SSD's coding."""
    offsets = offsets.astype(np.float64)
    centre = priors[:, :2] + VARIANCES[0] * offsets[:, :2] * priors[:, 2:]
    size = priors[:, 2:] * np.exp(VARIANCES[1] * offsets[:, 2:])
    return np.hstack([centre - size / 2, centre + size / 2])


def iou(box: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of a box (4,) with boxes (n, 4): left, top, right, bottom. 0 where nothing is common."""
    size = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    common = np.clip(size, 0, None).prod(axis=1)
    union = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(axis=1) - common
    return np.asarray(np.divide(common, union, out=np.zeros_like(common), where=union > 0), np.float64)


def suppress(boxes: NDArray[np.float64], scores: NDArray[np.float64], overlap: float) -> NDArray[np.int64]:
    """Indices of the boxes (n, 4) that stay, best score first: none overlaps a better one that stays by more."""
    order = np.argsort(-scores, kind="stable")
    keep = []
    while len(order):
        best, order = order[0], order[1:]
        keep.append(best)
        order = order[iou(boxes[best], boxes[order]) <= overlap]
    return np.array(keep, np.int64)


class S3fdDetector:
    """Faces of a picture on "cpu" or "cuda[:n]"; the weights are read at first use (ValueError as load_state)."""

    def __init__(self, weights: Weights, device: str = "cpu") -> None:
        self._weights, self._device = weights, device

    @cached_property
    def _network(self) -> Any:
        network = build()
        load_state(self._weights.path, network)
        return network.eval().requires_grad_(False).to(self._device)

    def __call__(self, picture: NDArray[np.uint8]) -> NDArray[np.float64]:
        """(H, W, 3) uint8 RGB to (n, 4) left, top, right, bottom in px, best score first; n may be 0.

        Only boxes above 0.9 take part in the suppression: a worse one never removes a better. Raises MetricError for
        a picture too small to be halved five times.
        """
        import cv2
        import torch

        small = cv2.resize(picture, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_LINEAR)
        if min(small.shape[:2]) < SMALLEST:
            raise MetricError(
                f"frames are {picture.shape[1]}x{picture.shape[0]}; S3FD at scale {SCALE} needs {SMALLEST / SCALE:g}"
            )
        image = np.ascontiguousarray((small.astype(np.float32) - MEAN).transpose(2, 0, 1)[None])
        with full_precision(self._device):
            heads = self._network(torch.from_numpy(image).to(self._device))
        boxes, scores = [], []
        for stride, (offsets, logits) in zip(STRIDES, heads, strict=True):
            cells = (offsets.shape[0], offsets.shape[1])
            face = torch.softmax(logits.reshape(-1, 2), dim=1)[:, 1].double().cpu().numpy()
            sure = face > THRESHOLD
            boxes.append(decode(offsets.reshape(-1, 4).cpu().numpy()[sure], anchors(cells, stride)[sure]))
            scores.append(face[sure])
        found, sureness = np.concatenate(boxes), np.concatenate(scores)
        for overlap in OVERLAPS:
            stay = suppress(found, sureness, overlap)
            found, sureness = found[stay], sureness[stay]
        height, width = picture.shape[:2]
        scale = np.array([width / small.shape[1], height / small.shape[0]] * 2)
        return np.asarray(found * scale, np.float64)
