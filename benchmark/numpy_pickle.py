"""Read a pickle of numpy arrays without trusting it, and turn it into a safetensors file.

Two published networks (I3D, LPIPS) exist only as pickles of nested dictionaries of arrays in flax's layout.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core import multiarray
from safetensors.numpy import save

# What numpy itself writes when it pickles an array; both spellings of its private module.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    **{
        (f"{module}.multiarray", name): getattr(multiarray, name)
        for module in ("numpy.core", "numpy._core")
        for name in ("_reconstruct", "scalar")
    },
}

_RENAMES = (  # flax's automatic module names -> names a reader of the network expects
    (r"^(params|batch_stats)\.", ""),
    (r"^(?:AlexNet|VGG16)_0\.Conv_(\d+)", r"conv\1"),
    (r"^NetLinLayer_(\d+)\.Conv_0", r"lin\1"),
    (r"\bConv_0\b", "conv"),
    (r"\bBatchNorm_0\b", "norm"),
    (r"\bkernel$", "weight"),
)


class UnsafePickle(Exception):
    """The pickle asks for something other than numpy's own reconstruction of an array."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise UnsafePickle(f"asks for {module}.{name}; only numpy arrays are read") from None

    def persistent_load(self, pid: Any) -> Any:
        raise UnsafePickle("refers to objects outside the file; only numpy arrays are read")


def load(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a pickled tree of dictionaries, under their dotted path; nothing but arrays can come out.

    Raises `UnsafePickle` where the file is anything else.
    """
    with path.open("rb") as file:
        try:
            tree = _Unpickler(file).load()
        except UnsafePickle as error:
            raise UnsafePickle(f"{path.name} {error}") from None
        except Exception as error:  # a damaged pickle raises nearly anything
            raise UnsafePickle(f"{path.name} is no pickle of arrays ({type(error).__name__}: {error})") from error
    return dict(_leaves(tree, ""))


def _leaves(tree: object, prefix: str) -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(tree, dict) and all(isinstance(key, str) for key in tree):
        for key, value in tree.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else key)
    elif isinstance(tree, np.ndarray) and tree.dtype.kind in "fiu":
        yield prefix, tree
    else:
        raise UnsafePickle(f"holds a {type(tree).__name__} at '{prefix}'; only arrays of numbers are read")


def to_safetensors(source: Path) -> bytes:
    """The pickle `source` as a safetensors file, the same bytes every time.

    Keys are dotted module names. Kernels go from flax's (..., in, out) to torch's (out, in, ...) and are called
    `weight`; statistics stored as (1, 1, 1, 1, C) become (C,).
    """
    tensors: dict[str, np.ndarray] = {}
    for key, array in load(source).items():
        for pattern, replacement in _RENAMES:
            key = re.sub(pattern, replacement, key)
        if key.endswith("weight"):
            array = np.moveaxis(array, (-1, -2), (0, 1))
        else:
            array = array.reshape(-1)
        if key in tensors:
            raise UnsafePickle(f"{source.name} holds two arrays that would both be called {key}")
        tensors[key] = np.ascontiguousarray(array)
    return save(tensors)
