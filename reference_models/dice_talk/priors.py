"""Files of emotion priors: our own, the mean prior of each emotion (Ours-P), and those that DICE-Talk published."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core import multiarray
from numpy.typing import NDArray

from reference_models.base import Footage, GenerationError
from reference_models.dice_talk.embedder_losses import UNLABELLED
from reference_models.dice_talk.embedding import EmotionEmbedder

WIDTH = 256  # d_s of the published priors
LARGEST = 1 << 20  # bytes of a published prior; theirs have some 1300
PUBLISHED = "published"
NAME = "priors.npz"  # beside the embedder
MADE_WITH = ("coefficients", "speech", "embedder")

Array = NDArray[np.float32]

# What numpy itself writes when it pickles an array; both spellings of its private module.
_ALLOWED: Mapping[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): multiarray._reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): multiarray._reconstruct,
}


@dataclass(frozen=True, slots=True)
class Priors:
    """A prior (1, 256) float32 for each emotion, what they were made with: coefficient type, speech id and the
    embedder's SHA-256; "published" three times for DICE-Talk's own."""

    means: Mapping[str, Array]
    coefficients: str
    speech: str
    embedder: str

    def __getitem__(self, emotion: str) -> Array:
        """Raises GenerationError for an emotion that it does not have."""
        if emotion not in self.means:
            raise GenerationError(f"no prior of emotion {emotion!r}; there are {', '.join(sorted(self.means))}")
        return self.means[emotion]


def average(embedder: EmotionEmbedder, clips: Iterable[Footage]) -> Priors:
    """The mean of μ over the clips of each emotion, which must be of the training split: Ours-P."""
    found: dict[str, list[Array]] = {}
    for clip in clips:
        if clip.emotion != UNLABELLED:
            found.setdefault(clip.emotion, []).append(embedder(clip).mean)
    means = {emotion: np.stack(of).astype(np.float64).mean(0)[None].astype(np.float32) for emotion, of in found.items()}
    views = embedder.views
    return Priors(means, views.coefficients.type, views.speech.id, embedder.digest)


def write(priors: Priors, path: Path) -> None:
    """An .npz: an array (1, 256) float32 for each emotion, and the texts of MADE_WITH. Equal priors, equal bytes."""
    held: dict[str, Any] = {emotion: priors.means[emotion] for emotion in sorted(priors.means)}
    held |= {name: np.array(getattr(priors, name)) for name in MADE_WITH}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        np.savez(file, **held)
    partial.replace(path)


def read(path: Path) -> Priors:
    """Priors of a file that `write` wrote; or published ones: one <emotion>.npy, or a folder of them.

    Raises GenerationError, in one line: no such file, a damaged or hostile one, vectors of another size, no emotion.
    """
    if path.suffix == ".npz":
        return _ours(path)
    files = sorted(path.glob("*.npy")) if path.is_dir() else [path]
    if not files:
        raise GenerationError(f"{path}: no priors; expected <emotion>.npy for each emotion, or a file priors.npz")
    return Priors({file.stem: published(file) for file in files}, PUBLISHED, PUBLISHED, PUBLISHED)


def published(path: Path) -> Array:
    """(1, 256) float32 of one published .npy: an object array of no dimension that pickles {"mu": (1, 256)}. Nothing
    but arrays can come out of it. Raises GenerationError as `read`."""
    try:
        content = path.read_bytes()
        if len(content) > LARGEST:
            raise GenerationError(f"{path.name}: {len(content)} bytes; a published prior has some 1300")
        file = io.BytesIO(content)
        version = np.lib.format.read_magic(file)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        header(file)
        held = _Unpickler(file).load().item()["mu"]
        if not isinstance(held, np.ndarray):
            raise ValueError(f"mu is a {type(held).__name__}")
    except GenerationError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:100] or type(error).__name__
        raise GenerationError(
            f'{path.name}: no published prior, {{"mu": (1, {WIDTH})}} in an .npy ({reason})'
        ) from error
    return _checked(held, path, "mu")


def _ours(path: Path) -> Priors:
    try:
        with np.load(path, allow_pickle=False) as stored:
            texts = {name: str(stored[name]) for name in MADE_WITH}
            held = {name: stored[name] for name in stored.files if name not in MADE_WITH}
    except Exception as error:  # as above
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:100] or type(error).__name__
        raise GenerationError(f"{path.name}: no file of priors ({reason}); `bench train dice-talk` makes it") from error
    if not held:
        raise GenerationError(f"{path.name}: priors of no emotion; `bench train dice-talk` makes them")
    return Priors({name: _checked(array, path, name) for name, array in held.items()}, **texts)


def _checked(array: NDArray[Any], path: Path, name: str) -> Array:
    if array.shape != (1, WIDTH) or array.dtype.kind != "f" or not np.isfinite(array).all():
        raise GenerationError(
            f"{path.name}: {name} is {array.dtype} of shape {array.shape}; expected (1, {WIDTH}) finite floats"
        )
    return array.astype(np.float32)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise ValueError(f"asks for {module}.{name}; only numpy arrays are read") from None

    def persistent_load(self, pid: Any) -> Any:
        raise ValueError("refers to objects outside the file")
