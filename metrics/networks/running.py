"""How networks are run: in even batches, and in full precision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SETTINGS = RLock()  # PyTorch's precision settings belong to the process, and extractors run on threads


def batches(arrays: Iterable[NDArray[Any]], size: int) -> Iterator[NDArray[Any]]:
    """The rows of all arrays in arrays of `size` rows (the last may be shorter), whatever the lengths given."""
    waiting: list[NDArray[Any]] = []
    count = 0
    for array in arrays:
        while len(array):
            waiting.append(array[: size - count])
            array = array[size - count :]
            count += len(waiting[-1])
            if count == size:
                yield np.concatenate(waiting)
                waiting, count = [], 0
    if waiting:
        yield np.concatenate(waiting)


@contextmanager
def full_precision(device: str) -> Iterator[None]:
    """Inference in float32 on "cpu" or "cuda[:n]": no TF32 (PyTorch's default for convolutions), no autocast, the
    same cuDNN algorithm in every run. What the caller had set is restored; on a GPU one thread runs at a time."""
    import torch

    with torch.inference_mode(), torch.autocast(torch.device(device).type, enabled=False):
        if device == "cpu":
            yield
            return
        cudnn = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with _SETTINGS, cudnn:
            before = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision("highest")
            try:
                yield
            finally:
                torch.set_float32_matmul_precision(before)
