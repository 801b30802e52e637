"""EAT-Face's emotion classifier: VGG-16 on single frames (Wang et al., section IV-C, Emo-Acc).

The paper says no more of it than "an emotion classifier based on VGG-16 for emotion classification of generated
images". As that reads, whole frames are classified, as the protocol crops them, and none is left out: a frame
without a face is a frame whose emotion cannot be named. The convolutions are VGG-16's from ImageNet (Simonyan and
Zisserman 2015, configuration D); the head is ours, because the fully connected layers are fixed to ImageNet's classes:
mean over the positions of the last layer, dropout, one linear layer. `bench train emotion-classifier` makes the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from metrics.base import ClipViews, Extractor, ExtractorSpec, MetricError, Weights, register
from metrics.emotion import SPACES
from metrics.networks import cards
from metrics.networks.running import batches, full_precision

if TYPE_CHECKING:
    import torch
    from torch import nn

NAME = "emotion-classifier-vgg16"  # of the weights
WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
POOLED = (2, 4, 7, 10)  # convolutions before which the picture is halved
SMALLEST, SIZE, LARGEST = 32, 224, 512  # side of a frame in pixels; SIZE is VGG-16's own
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of RGB in [0, 1] on ImageNet
DROPOUT = 0.5
BATCH = 16
EIGHT = tuple(SPACES["mead"].values())  # columns of what is stored


def network(classes: int) -> nn.Sequential:
    """(n, 3, H, W) as `normalise` gives it, at least 16 pixels a side, to logits (n, classes).

    Tensors are named conv0 ... conv12, as those of lpips-vgg16, and head; each .weight and .bias.
    """
    from torch import nn

    layers: dict[str, nn.Module] = {}
    channels = 3
    for k, width in enumerate(WIDTHS):
        if k in POOLED:
            layers[f"pool{k}"] = nn.MaxPool2d(2)
        layers[f"conv{k}"] = nn.Conv2d(channels, width, 3, padding=1)
        layers[f"relu{k}"] = nn.ReLU(inplace=True)
        channels = width
    layers |= {"mean": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "dropout": nn.Dropout(DROPOUT)}
    layers["head"] = nn.Linear(channels, classes)
    made = nn.Sequential()
    for name, layer in layers.items():
        made.add_module(name, layer)
    return made


def resize(frame: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB to (size, size, 3): by area where it shrinks, bilinear where it grows."""
    import cv2

    if frame.shape[:2] == (size, size):
        return frame
    way = cv2.INTER_AREA if min(frame.shape[:2]) >= size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(frame, (size, size), interpolation=way), np.uint8)


def normalise(images: torch.Tensor) -> torch.Tensor:
    """(n, H, W, 3) uint8 RGB to (n, 3, H, W) float32: ImageNet's mean and deviation."""
    import torch

    mean, deviation = (torch.tensor(v, device=images.device).view(1, 3, 1, 1) for v in (MEAN, DEVIATION))
    return (images.permute(0, 3, 1, 2).float() / 255 - mean) / deviation


def read_card(path: Path) -> tuple[tuple[str, ...], int]:
    """(classes in the order of the outputs, side of the frames it takes). Raises MetricError for another file."""
    card = cards.read(path)
    if card is None:
        raise MetricError(f"{path.name}: has no card; expected the file that `bench train emotion-classifier` wrote")
    classes, size = card.get("classes"), card.get("size")
    if (
        not isinstance(classes, list)
        or not all(word in EIGHT for word in classes)
        or not len(EIGHT) >= len(set(classes)) == len(classes) >= 2
    ):
        raise MetricError(f"{path.name}: its card has the classes {classes!r:.80}; expected some of {', '.join(EIGHT)}")
    if not isinstance(size, int) or not SMALLEST <= size <= LARGEST:
        raise MetricError(f"{path.name}: its card has the size {size!r:.20}; expected {SMALLEST} to {LARGEST} pixels")
    return tuple(classes), size


class EmotionVgg16:
    """Frames of a clip to {"probability": (N, 8) float32}, columns in the order of metrics.networks.vgg16.EIGHT; those
    of emotions that the classifier was not trained on are NaN.

    frames   (t, H, W, 3) uint8 RGB of any size, resized to the side at which the classifier was trained

    Raises MetricError for a clip without frames, another dtype, and a file that holds something else.
    """

    def __init__(self, weights: Weights, frames_per_clip: int | None, device: str) -> None:
        self.id = f"emotion-vgg16@{weights.sha256[:8]}"
        self.views: tuple[str, ...] = ("frames" if frames_per_clip is None else f"frames:{frames_per_clip}",)
        self._weights = weights
        self._device = device
        self.device = device.partition(":")[0]

    @cached_property
    def _card(self) -> tuple[tuple[str, ...], int]:
        return read_card(self._weights.path)

    @cached_property
    def _network(self) -> nn.Module:
        from safetensors.torch import load_file

        made = network(len(self._card[0]))
        try:
            made.load_state_dict(load_file(str(self._weights.path)))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:160]
            raise MetricError(
                f"{self._weights.path.name}: holds other tensors than the classifier's ({reason})"
            ) from None
        return made.to(self._device).eval()

    def __call__(self, chunks: Iterable[ClipViews]) -> dict[str, NDArray[Any]]:
        seen = [self._forward(batch) for batch in batches(self._frames(chunks), BATCH)]
        if not seen:
            raise MetricError("no frames to classify")
        rows = np.concatenate(seen)
        probability = np.full((len(rows), len(EIGHT)), np.nan, np.float32)
        probability[:, [EIGHT.index(word) for word in self._card[0]]] = rows
        return {"probability": probability}

    def _frames(self, chunks: Iterable[ClipViews]) -> Iterable[NDArray[np.uint8]]:
        for chunk in chunks:
            for frame in chunk.view("frames"):
                if frame.dtype != np.uint8:
                    raise MetricError(f"frames are {frame.dtype}; expected uint8, 0-255 (scaled already?)")
                yield resize(frame, self._card[1])[None]

    def _forward(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        import torch

        with full_precision(self._device):
            logits = self._network(normalise(torch.from_numpy(frames).to(self._device)))
            rows: NDArray[np.float32] = logits.softmax(dim=1).cpu().numpy()
        return rows


def _make(weights: Mapping[str, Weights], options: Mapping[str, Any]) -> Extractor:
    return EmotionVgg16(weights[NAME], options.get("frames_per_clip"), options.get("device", "cpu"))


register(ExtractorSpec(name="emotion-vgg16", make=_make, weights=(NAME,)))
