"""Content-addressed store of extracted arrays: equal inputs are never extracted twice."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmark.errors import writing
from pipelines.media import atomic_path

STORE_VERSION = 1


@dataclass(frozen=True, slots=True)
class Key:
    """What determines a set of arrays.

    extractor  its id: network, preprocessing, weight digest
    digests    SHA-256 of the input files, in the order in which the extractor takes them
    views      how those files were turned into arrays: views, number of frames, crop
    """

    extractor: str
    digests: tuple[str, ...]
    views: Mapping[str, Any]

    @property
    def hash(self) -> str:
        parts = [STORE_VERSION, self.extractor, list(self.digests), self.views]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class Store:
    """Arrays under `root`/<extractor>/<aa>/<hash>.npz. Safe with many writers: files appear whole or not at all."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.damaged: list[str] = []

    def path(self, key: Key) -> Path:
        name = re.sub(r"[^A-Za-z0-9@._+-]", "_", key.extractor)
        return self.root / name / key.hash[:2] / f"{key.hash}.npz"

    def get(self, key: Key) -> dict[str, NDArray[Any]] | None:
        """The arrays, or None when they are not stored. A damaged file counts as not stored, and is noted in
        `damaged`."""
        path = self.path(key)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
                file.seek(-12, os.SEEK_END)  # the directory may lose an entry unnoticed; its end says how many it has
                if len(arrays) != int.from_bytes(file.read(2), "little"):
                    raise ValueError("arrays are missing")
                return arrays
        except FileNotFoundError:
            return None
        except Exception as error:  # zipfile and NumPy raise nearly anything on damaged bytes
            reason = " ".join(str(error).split()) or type(error).__name__
            self.damaged.append(f"{path}: damaged ({reason}); extracted again")
            return None

    def put(self, key: Key, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Store arrays. Object arrays are refused: reading them back would run code.

        Raises BenchError when the file cannot be written.
        """
        for name, array in arrays.items():
            if np.asarray(array).dtype.hasobject:
                raise TypeError(f"{key.extractor}: {name!r} is an object array; features are numbers or text")
        with writing(self.root), atomic_path(self.path(key)) as temporary:
            np.savez(temporary, allow_pickle=False, **arrays)
