"""LPIPS as a loss (Zhang et al. 2018): VGG-16 and version 0.1's heads, from the file that metrics use too."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from reference_models.training import TrainingError

WEIGHTS = "lpips-vgg16"
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
POOLED, TAPS = (2, 4, 7, 10), (1, 3, 6, 9, 12)  # convolutions that a pool precedes, and that a distance is taken after
SMALLEST = 16  # px a side


class Lpips:
    """Distances (N,) of pictures (N, 3, H, W) in [-1, 1] to real ones, with a gradient."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        """path: safetensors file of conv0 to conv12 and lin0 to lin4. Raises TrainingError for another."""
        try:
            self._tensors = {name: tensor.to(device) for name, tensor in load_file(path).items()}
            wanted = [f"conv{k}.{part}" for k in range(13) for part in ("weight", "bias")]
            missing = [name for name in (*wanted, *(f"lin{k}.weight" for k in range(5))) if name not in self._tensors]
        except (OSError, SafetensorError) as error:
            raise TrainingError(f"{path.name}: cannot be read ({' '.join(str(error).split())[:100]})") from error
        if missing:
            raise TrainingError(
                f"{path.name}: has no {missing[0]}; expected {WEIGHTS}: `bench weights verify {WEIGHTS}`"
            )

    def __call__(self, made: Tensor, real: Tensor) -> Tensor:
        if min(made.shape[2:]) < SMALLEST:
            raise TrainingError(f"pictures of {made.shape[2]} x {made.shape[3]} px; LPIPS needs {SMALLEST} a side")
        shift, scale = (torch.tensor(v, device=made.device).view(1, 3, 1, 1) for v in (SHIFT, SCALE))
        x = (torch.cat([made, real]) - shift) / scale
        total = torch.zeros(len(made), device=made.device)
        for k in range(13):
            if k in POOLED:
                x = F.max_pool2d(x, 2)
            x = F.conv2d(x, self._tensors[f"conv{k}.weight"], self._tensors[f"conv{k}.bias"], padding=1).relu()
            if k in TAPS:
                unit = x / (x.square().sum(1, keepdim=True) + 1e-20).sqrt()
                apart = (unit[: len(made)] - unit[len(made) :]).square()
                total = total + F.conv2d(apart, self._tensors[f"lin{TAPS.index(k)}.weight"]).mean((1, 2, 3))
        return total
