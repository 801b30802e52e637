"""The I3D of FVD on another framework."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest


def with_jax(arrays: Mapping[str, np.ndarray], video: np.ndarray) -> np.ndarray:
    """I3D of a whole (T, 224, 224, 3) clip at once, with XLA's own SAME padding: independent of metrics.networks."""
    jnp, lax = pytest.importorskip("jax.numpy"), pytest.importorskip("jax.lax")
    layout = ("NDHWC", "OIDHW", "NDHWC")

    def unit(x: Any, name: str, stride: int = 1) -> Any:
        x = lax.conv_general_dilated(
            x, arrays[f"{name}.conv.weight"], (stride,) * 3, "SAME", dimension_numbers=layout, precision="highest"
        )
        deviation = np.sqrt(arrays[f"{name}.norm.var"].astype(np.float64) + 1e-3).astype(np.float32)
        x = (x - arrays[f"{name}.norm.mean"]) / deviation + arrays[f"{name}.norm.bias"]
        return jnp.maximum(x, 0)

    def pool(x: Any, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Any:
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, *kernel, 1), (1, *stride, 1), "SAME")

    def mixed(x: Any, name: str) -> Any:
        at = f"Mixed_{name}.Branch_"
        branches = [unit(x, f"{at}0/Conv3d_0a_1x1")]
        branches += [unit(unit(x, f"{at}{k}/Conv3d_0a_1x1"), f"{at}{k}/Conv3d_0b_3x3") for k in (1, 2)]
        return jnp.concatenate([*branches, unit(pool(x, (3, 3, 3), (1, 1, 1)), f"{at}3/Conv3d_0b_1x1")], -1)

    x = pool(unit(jnp.asarray(video)[None], "Conv3d_1a_7x7", 2), (1, 3, 3), (1, 2, 2))
    x = pool(unit(unit(x, "Conv3d_2b_1x1"), "Conv3d_2c_3x3"), (1, 3, 3), (1, 2, 2))
    x = pool(mixed(mixed(x, "3b"), "3c"), (3, 3, 3), (2, 2, 2))
    for name in ("4b", "4c", "4d", "4e", "4f"):
        x = mixed(x, name)
    x = mixed(mixed(pool(x, (2, 2, 2), (2, 2, 2)), "5b"), "5c")
    x = lax.reduce_window(x, 0.0, lax.add, (1, 2, 7, 7, 1), (1,) * 5, "VALID") / 98
    head = arrays["Logits/Conv3d_0c_1x1.conv.weight"].reshape(400, 1024)
    return np.asarray((x[0, :, 0, 0] @ head.T + arrays["Logits/Conv3d_0c_1x1.conv.bias"]).mean(0))
