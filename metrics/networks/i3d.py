"""The I3D of FVD: clips to the 400 logits of Kinetics.

Carreira and Zisserman, "Quo Vadis, Action Recognition?", CVPR 2017 (RGB stream); Unterthiner et al., "Towards accurate
generative models of video", 2018. As the TF-Hub module of FVD computes it: TF's SAME padding (the odd element at the
end), batch normalisation without gain and eps 1e-3, average pool of (2, 7, 7) VALID, logits averaged over time, no
softmax.

A clip passes through layer by layer, STRIDE frames at a time: each layer keeps the few inputs that its next output
needs, so that a clip of any length gives what the whole clip at once would give, in constant memory. How SAME pads
depends on the length of the clip, which is known at its end: the frames wait in memory up to WAITING bytes, on disk
beyond.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from metrics.base import ClipViews, Extractor, ExtractorSpec, MetricError, Weights, register
from metrics.networks.running import full_precision

if TYPE_CHECKING:
    from torch import Tensor

SIZE = 224
LOGITS = 400
STRIDE = 16  # frames that enter the network at a time
SHORTEST = 10  # frames of which the last layers still make two steps, as common_metrics requires
WINDOW = 16
WAITING = 256 << 20  # bytes
EPS = 1e-3
TRAPS = ("antialias", "squash", "unsigned")  # options, see `prepare`
MIXED = ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c")

Arrays = Mapping[str, "Tensor"]


def same(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """TF's SAME padding (before, after) of an axis: math.ceil(length / stride) outputs, the odd element at the end."""
    total = max((math.ceil(length / stride) - 1) * stride + kernel - length, 0)
    return total // 2, total - total // 2


def _pad(x: Tensor, kernel: int, stride: int, before: int, after: int) -> Tensor:
    """Zeros around height and width by SAME, in time as given. Right for maxima too: all inputs are >= 0 there."""
    import torch.nn.functional as F

    return F.pad(x, (*same(x.shape[4], kernel, stride), *same(x.shape[3], kernel, stride), before, after))


@dataclass(frozen=True, slots=True)
class Layer:
    """One step through the network and its kernel and stride in time.

    apply(x, before, after) takes (1, C, t, h, w), with so many frames of padding where the clip begins and ends
    """

    kernel: int
    stride: int
    apply: Callable[[Tensor, int, int], Tensor]

    def stream(self, pieces: Iterable[Tensor], length: int) -> Iterator[Tensor]:
        """The outputs for a clip of `length` inputs that comes in pieces along time, as soon as they can be made."""
        import torch

        before, _ = same(length, self.kernel, self.stride)
        held: Tensor | None = None
        first = made = 0  # clip position of held[0]; outputs so far
        for piece in pieces:
            held = piece if held is None else torch.cat([held, piece], dim=2)
            seen = first + held.shape[2]
            ready = (
                math.ceil(length / self.stride) if seen == length else (seen + before - self.kernel) // self.stride + 1
            )
            if ready <= made:
                continue
            start = made * self.stride - before
            stop = (ready - 1) * self.stride + self.kernel - before
            used = held[:, :, max(start, 0) - first : min(stop, length) - first]
            yield self.apply(used, max(-start, 0), max(stop - length, 0))
            made = ready
            needed = max(made * self.stride - before, 0)
            held, first = held[:, :, needed - first :], needed


def _convolution(arrays: Arrays, name: str, stride: int = 1) -> Layer:
    """Convolution, batch normalisation, ReLU. Folding the normalisation into the weights would round each of them
    once more: on constant frames that alone is 1e-6 of an FVD."""
    import torch.nn.functional as F

    weight = arrays[f"{name}.conv.weight"]
    mean, variance, bias = (arrays[f"{name}.norm.{part}"] for part in ("mean", "var", "bias"))
    kernel = weight.shape[2]

    def apply(x: Tensor, before: int, after: int) -> Tensor:
        x = F.conv3d(_pad(x, kernel, stride, before, after), weight, stride=stride)
        return F.batch_norm(x, mean, variance, bias=bias, eps=EPS).relu_()

    return Layer(kernel, stride, apply)


def _max_pool(kernel: tuple[int, int], stride: tuple[int, int]) -> Layer:
    """kernel and stride: (in time, in height and width). Axis by axis: the same maxima as max_pool3d, on a CPU in a
    fifth of the time."""
    import torch

    def along(x: Tensor, axis: int, kernel: int, stride: int) -> Tensor:
        span = (x.shape[axis] - kernel) // stride * stride + 1
        shifted = [x.narrow(axis, k, span).movedim(axis, -1)[..., ::stride].movedim(-1, axis) for k in range(kernel)]
        largest = shifted[0]
        for one in shifted[1:]:
            largest = torch.maximum(largest, one)
        return largest

    def apply(x: Tensor, before: int, after: int) -> Tensor:
        x = _pad(x, kernel[1], stride[1], before, after)
        for axis, part in ((2, 0), (3, 1), (4, 1)):
            x = along(x, axis, kernel[part], stride[part])
        return x

    return Layer(kernel[0], stride[0], apply)


def _mixed(arrays: Arrays, name: str) -> Layer:
    """An inception module: four branches, none of which looks further than one frame to each side."""
    import torch

    def branch(number: int, unit: str) -> Layer:
        return _convolution(arrays, f"Mixed_{name}.Branch_{number}/Conv3d_{unit}")

    plain, pooled, pool = branch(0, "0a_1x1"), branch(3, "0b_1x1"), _max_pool((3, 3), (1, 1))
    narrow = [(branch(k, "0a_1x1"), branch(k, "0b_3x3")) for k in (1, 2)]

    def apply(x: Tensor, before: int, after: int) -> Tensor:
        middle = x[:, :, 1 - before : x.shape[2] - 1 + after]
        return torch.cat(
            [
                plain.apply(middle, 0, 0),
                *(wide.apply(reduce.apply(x, 0, 0), before, after) for reduce, wide in narrow),
                pooled.apply(pool.apply(x, before, after), 0, 0),
            ],
            dim=1,
        )

    return Layer(3, 1, apply)


class Network:
    """I3D with the arrays of the registry's `i3d-kinetics-400`, in float32 on one device."""

    def __init__(self, arrays: Arrays) -> None:
        mixed = {name: _mixed(arrays, name) for name in MIXED}
        self._layers = (
            _convolution(arrays, "Conv3d_1a_7x7", stride=2),
            _max_pool((1, 3), (1, 2)),
            _convolution(arrays, "Conv3d_2b_1x1"),
            _convolution(arrays, "Conv3d_2c_3x3"),
            _max_pool((1, 3), (1, 2)),
            *(mixed[name] for name in MIXED[:2]),
            _max_pool((3, 3), (2, 2)),
            *(mixed[name] for name in MIXED[2:7]),
            _max_pool((2, 2), (2, 2)),
            *(mixed[name] for name in MIXED[7:]),
        )
        self._head = arrays["Logits/Conv3d_0c_1x1.conv.weight"].double().flatten(1).cpu().numpy()
        self._bias = arrays["Logits/Conv3d_0c_1x1.conv.bias"].double().cpu().numpy()

    def __call__(self, pieces: Iterable[Tensor], length: int) -> NDArray[np.float32]:
        """(400,) logits of one clip of `length` frames, given as (3, t, 224, 224) float32 in [-1, 1] piece by piece."""
        stream: Iterator[Tensor] = (piece[None] for piece in pieces)
        for layer in self._layers:
            stream = layer.stream(stream, length)
            length = math.ceil(length / layer.stride)
        # Average pool of two steps, linear head, mean over time: one weighted mean over time, then the head.
        steps = np.concatenate([x[0].double().mean(dim=(2, 3)).T.cpu().numpy() for x in stream])  # (length, 1024)
        pooled = (steps[:-1].mean(axis=0) + steps[1:].mean(axis=0)) / 2
        logits: NDArray[np.float32] = (self._head @ pooled + self._bias).astype(np.float32)
        return logits


def prepare(frames: Tensor, *, unsigned: bool = False, antialias: bool = False, squash: bool = False) -> Tensor:
    """(t, H, W, 3) uint8 to (3, t, 224, 224) float32 in [-1, 1].

    The shorter side to 224, bilinear about pixel centres without antialiasing, the longer one rounded up, then the
    middle: common_metrics_on_video_quality, its "styleganv" FVD. What else circulates gives other numbers: values in
    [0, 1] (`unsigned`), resizing with antialiasing, both sides squashed to 224.
    """
    import torch.nn.functional as F

    height, width = frames.shape[1:3]
    scale = SIZE / min(height, width)
    size = (SIZE, math.ceil(width * scale)) if height < width else (math.ceil(height * scale), SIZE)
    if squash:
        size = (SIZE, SIZE)
    images = F.interpolate(
        frames.permute(0, 3, 1, 2).float() / 255, size=size, mode="bilinear", align_corners=False, antialias=antialias
    )
    top, left = (size[0] - SIZE) // 2, (size[1] - SIZE) // 2
    middle = images[:, :, top : top + SIZE, left : left + SIZE].transpose(0, 1)
    return middle if unsigned else (middle - 0.5) * 2


class _Waiting:
    """Frames of one clip, kept in `file` until its length is known."""

    def __init__(self, file: IO[bytes], frames: Iterable[NDArray[np.uint8]]) -> None:
        self._file = file
        self._shape: tuple[int, ...] = ()
        self.count = 0
        for chunk in frames:
            if chunk.dtype != np.uint8:
                raise MetricError(f"frames are {chunk.dtype}; expected uint8, 0-255 (scaled to [0, 1] already?)")
            self._shape = chunk.shape[1:]
            self._file.write(chunk.tobytes())
            self.count += len(chunk)

    def pieces(self, start: int, stop: int) -> Iterator[NDArray[np.uint8]]:
        """Frames start ... stop - 1 in runs of at most STRIDE."""
        size = math.prod(self._shape)
        self._file.seek(start * size)
        for first in range(start, stop, STRIDE):
            count = min(STRIDE, stop - first)
            yield np.frombuffer(bytearray(self._file.read(count * size)), np.uint8).reshape(count, *self._shape)


class I3D:
    """Frames of a clip to the logits of I3D: {"features": (1, 400) float32}.

    frames   (t, H, W, 3) uint8 RGB of any size; all of them, or 16 from frame floor((T - 16) / 2) on (i3d-16f)

    The shorter side is resized to 224, bilinear about pixel centres without antialiasing, the middle 224 x 224 cut out
    and mapped to [-1, 1]. TF's SAME padding, batch normalisation of eps 1e-3 without gain, average pool of (2, 7, 7)
    VALID, the 400 logits of Kinetics averaged over time, no softmax.

    Raises MetricError for a clip shorter than the window, or than 10 frames.
    """

    def __init__(
        self,
        name: str,
        window: int | None,
        weights: Weights,
        device: str,
        first: int | None = None,
        traps: tuple[str, ...] = (),
    ) -> None:
        """What is not the metric's own: `window` frames from the middle of the clip (None: all), the `first` ones
        instead, and `traps`, keyword arguments of `prepare` that circulate and give other numbers."""
        self.id = "+".join([f"{name}@{weights.sha256[:8]}", *([f"first-{first}"] if first else []), *traps])
        self.views: tuple[str, ...] = ("frames",)
        self._window = first or window
        self._from_start = first is not None
        self._traps = dict.fromkeys(traps, True)
        self._weights = weights
        self._device = device
        self.device = device.partition(":")[0]

    @cached_property
    def network(self) -> Network:
        from safetensors.torch import load_file

        return Network(load_file(self._weights.path, device=self._device))

    def __call__(self, chunks: Iterable[ClipViews]) -> dict[str, NDArray[Any]]:
        import torch

        with tempfile.SpooledTemporaryFile(WAITING) as file:
            frames = _Waiting(file, (chunk.view("frames") for chunk in chunks))
            window = self._window or frames.count
            shortest = self._window or SHORTEST
            if frames.count < shortest:
                name = self.id.partition("@")[0]
                raise MetricError(f"the clip has {frames.count} frames; {name} takes {shortest} or more")
            start = 0 if self._from_start else (frames.count - window) // 2
            with full_precision(self._device):
                pieces = (
                    prepare(torch.from_numpy(piece).to(self._device), **self._traps)
                    for piece in frames.pieces(start, start + window)
                )
                return {"features": self.network(pieces, window)[None]}


def _make(name: str, window: int | None, weights: Mapping[str, Weights], options: Mapping[str, Any]) -> Extractor:
    traps = tuple(trap for trap in TRAPS if options.get(trap))
    return I3D(name, window, weights["i3d-kinetics-400"], options.get("device", "cpu"), options.get("first"), traps)


for _name, _window in (("i3d-all-frames", None), (f"i3d-{WINDOW}f", WINDOW)):
    register(ExtractorSpec(name=_name, make=partial(_make, _name, _window), weights=("i3d-kinetics-400",)))
