"""EMO-AffectNet's ResNet-50: Ryumina et al. 2022, "In search of a robust facial expressions recognition model: A
large-scale visual cross-corpus study", Neurocomputing 514.

VGGFace2's ResNet-50 (stride in the first 1 x 1 convolution, TensorFlow's borders at the first layer) with a hidden
layer of 512, trained on AffectNet's seven emotions. The authors publish a state dict and TorchScript files
(`0_66_37_wo_gl`, `0_66_49_wo_gl`; AffectNet-7 accuracy 0.664 to 0.665); either may be added.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from metrics.base import ExtractorSpec, MetricError, register
from metrics.networks.fer import Box, Expression, Forward, batch_norm, make

if TYPE_CHECKING:
    import torch

SIZE = 224
MEAN_BGR = (91.4953, 103.8827, 131.0912)  # VGGFace2's, of 0-255
STAGES = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))  # blocks, width, stride of the first block
EPSILON = 1e-3


class EmoAffectNet(Expression):
    """EMO-AffectNet's ResNet-50: faces of 224 x 224 to {"probability": (T, 7) float32, "found": (T,) bool}.

    frames, landmarks   (t, H, W, 3) uint8 RGB of any size, (t, 478, 3) pixels

    Two crops circulate in the authors' own repository: a tight RetinaFace box resized by INTER_AREA (run.py), and the
    box around FaceMesh's points resized by Pillow's NEAREST (the torch notebooks). This is the second. BGR minus
    (91.4953, 103.8827, 131.0912), not divided by 255; softmax of the outputs. Columns are in the order of
    metrics.emotion.SEVEN; rows of frames without a face are zeros. Raises MetricError for a clip without a face, and
    for a file that holds another network.
    """

    name = "emo-affectnet"
    variant = "-facemesh-nearest"
    classes = "affectnet-7"

    def prepare(self, frame: NDArray[np.uint8], box: Box) -> NDArray[np.float32]:
        from PIL import Image

        left, top, right, bottom = box
        face = Image.fromarray(frame[top:bottom, left:right])
        small = np.asarray(face.resize((SIZE, SIZE), Image.Resampling.NEAREST), np.float32)
        prepared: NDArray[np.float32] = (small[..., ::-1] - np.array(MEAN_BGR, np.float32)).transpose(2, 0, 1)
        return np.ascontiguousarray(prepared)

    def load(self, path: Path, device: str) -> Forward:
        import torch

        if _is_torchscript(path):
            script = torch.jit.load(str(path), map_location=device).eval()  # type: ignore[no-untyped-call]
            return partial(_run_script, script)
        try:
            state = torch.load(path, map_location=device, weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            fault: str | None = f"it cannot be read ({str(error).splitlines()[0]})"
        else:
            fault = _fault(state)
        if fault:
            raise MetricError(f"{path.name} is not EMO-AffectNet's ResNet-50: {fault}")
        return partial(resnet50, state)


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _run_script(script: Any, images: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"probability": script(images).softmax(dim=1)}


def shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in the authors' state dict."""
    found: dict[str, tuple[int, ...]] = {}

    def norm(layer: str, channels: int) -> None:
        for name in ("weight", "bias", "running_mean", "running_var"):
            found[f"{layer}.{name}"] = (channels,)
        found[f"{layer}.num_batches_tracked"] = ()

    found["conv_layer_s2_same.weight"] = (64, 3, 7, 7)
    norm("batch_norm1", 64)
    channels = 64
    for stage, (blocks, width, _) in enumerate(STAGES, 1):
        for block in range(blocks):
            at = f"layer{stage}.{block}"
            convolutions = ((width, channels, 1), (width, width, 3), (4 * width, width, 1))
            for k, (outputs, inputs, size) in enumerate(convolutions, 1):
                found[f"{at}.conv{k}.weight"] = (outputs, inputs, size, size)
                norm(f"{at}.batch_norm{k}", outputs)
            if block == 0:
                found[f"{at}.i_downsample.0.weight"] = (4 * width, channels, 1, 1)
                norm(f"{at}.i_downsample.1", 4 * width)
            channels = 4 * width
    found |= {"fc1.weight": (512, 2048), "fc1.bias": (512,), "fc2.weight": (7, 512), "fc2.bias": (7,)}
    return found


def _fault(state: Any) -> str | None:
    """Why `state` cannot be the network's state dict; None where it can."""
    if not isinstance(state, Mapping):
        return f"it holds a {type(state).__name__}, expected a state dict or TorchScript"
    for key, shape in shapes().items():
        if key not in state and not key.endswith("num_batches_tracked"):
            return f"it has no {key}"
        if key in state and tuple(state[key].shape) != shape:
            return f"{key} is {tuple(state[key].shape)}, expected {shape}"
    unknown = sorted(set(state) - set(shapes()))
    return f"it also has {unknown[0]}" if unknown else None


def resnet50(state: Mapping[str, torch.Tensor], images: torch.Tensor) -> dict[str, torch.Tensor]:
    """(n, 3, 224, 224) to {"probability": (n, 7)}."""
    from torch.nn import functional as F

    # TensorFlow's "same": of the five rows and columns that are lacking, three go to the end.
    x = F.conv2d(F.pad(images, (2, 3, 2, 3)), state["conv_layer_s2_same.weight"], stride=2)
    x = F.max_pool2d(F.relu(batch_norm(x, state, "batch_norm1", EPSILON)), 3, stride=2)
    for stage, (blocks, _, stride) in enumerate(STAGES, 1):
        for block in range(blocks):
            x = _bottleneck(x, state, f"layer{stage}.{block}", stride if block == 0 else 1)
    x = F.relu(F.linear(x.mean(dim=(2, 3)), state["fc1.weight"], state["fc1.bias"]))
    return {"probability": F.linear(x, state["fc2.weight"], state["fc2.bias"]).softmax(dim=1)}


def _bottleneck(x: torch.Tensor, state: Mapping[str, torch.Tensor], at: str, stride: int) -> torch.Tensor:
    from torch.nn import functional as F

    shortcut = x
    if f"{at}.i_downsample.0.weight" in state:
        shortcut = F.conv2d(x, state[f"{at}.i_downsample.0.weight"], stride=stride)
        shortcut = batch_norm(shortcut, state, f"{at}.i_downsample.1", EPSILON)
    x = F.relu(batch_norm(F.conv2d(x, state[f"{at}.conv1.weight"], stride=stride), state, f"{at}.batch_norm1", EPSILON))
    x = F.conv2d(x, state[f"{at}.conv2.weight"], padding=1)
    x = F.relu(batch_norm(x, state, f"{at}.batch_norm2", EPSILON))
    x = F.conv2d(x, state[f"{at}.conv3.weight"])
    return F.relu(batch_norm(x, state, f"{at}.batch_norm3", EPSILON) + shortcut)


register(ExtractorSpec(name=EmoAffectNet.name, make=partial(make, EmoAffectNet), weights=("emo-affectnet",)))
