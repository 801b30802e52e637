"""What a metric and an extractor are, and the one registry of both.

An extractor is a frozen network (or a closed formula) with its exact preprocessing: it turns the views of one
clip into arrays, once, and the arrays are stored. A metric reduces stored arrays to a number. Nothing here
opens, decodes, detects or encodes: views are handed in.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Features = Mapping[str, NDArray[Any]]
Side = Literal["generated", "real", "reference", "pair", "asked"]
Level = Literal["clip", "set"]
Table = Sequence[Sequence[object]]  # lines, the first of them the heading
Direction = Literal["higher", "lower", "closer-to-real"]

MODULES = (  # a new family or network is a new file and its name here
    "frechet",
    "kernel",
    "image",
    "identity",
    "perceptual",
    "sharpness",
    "landmarks",
    "avsync",
    "sync",
    "networks.inception",
    "networks.i3d",
    "networks.arcface",
    "networks.lpips",
    "emotion",
    "emotion_accuracy",
    "clusters",
    "networks.fer",
    "networks.emo_affectnet",
    "networks.vgg16",
)

MOST = 16  # names that an error lists

# The need of a metric that must know what was asked for: {"emotion": str, "identity": str} as 0-d arrays.
ASKED: tuple[Side, str] = ("asked", "pair")


class MetricError(ValueError):
    """The inputs cannot be scored; the message is the one-line reason that becomes an error row."""


@dataclass(frozen=True, slots=True)
class ClipViews:
    """A run of consecutive (or sampled) frames of one clip, with what was derived from them.

    Only the views that an extractor declares are filled; the others are None.
    index       (t,) int64, positions of these frames in the clip
    fps         frames a second of the clip; sample_rate in Hz of `waveform`
    frames      (t, H, W, 3) uint8 RGB
    landmarks   (t, 478, 3) float32, pixels of `frames`; NaN where no face was found
    aligned112  (t, 112, 112, 3) uint8 RGB faces on the ArcFace five-point template; zeros where not `found`
    found       (t,) bool, a face was found
    waveform    (n,) float32 mono in [-1, 1]: the samples that belong to these frames, sample_rate / fps each;
                fewer where the audio ends first
    real        the same frames of the real clip, for extractors that compare pixels
    """

    index: NDArray[np.int64]
    fps: float
    frames: NDArray[np.uint8] | None = None
    landmarks: NDArray[np.float32] | None = None
    aligned112: NDArray[np.uint8] | None = None
    found: NDArray[np.bool_] | None = None
    waveform: NDArray[np.float32] | None = None
    sample_rate: int = 0
    real: ClipViews | None = None

    def view(self, name: str) -> NDArray[Any]:
        """The array of that view. Raises ValueError if it was not made."""
        array: NDArray[Any] | None = getattr(self, name)
        if array is None:
            raise ValueError(f"view {name!r} was not made; an extractor must declare each view that it reads")
        return array


@dataclass(frozen=True, slots=True)
class Weights:
    """A verified local file."""

    path: Path
    sha256: str


class Extractor(Protocol):
    """Views of one clip to arrays. `id` names network, preprocessing and weight digest, and keys the store.

    views   what it must be given: "frames", "frames:5" (five frames spread evenly), "landmarks",
            "aligned112", "waveform"; with the prefix "real." for the real side of a pair

    One that takes the option "device" also has an attribute `device`, "cpu" or "cuda": where it really runs.
    """

    id: str
    views: tuple[str, ...]

    def __call__(self, chunks: Iterable[ClipViews]) -> dict[str, NDArray[Any]]: ...


@dataclass(frozen=True, slots=True)
class ExtractorSpec:
    """How to build an extractor: `make(weights, options)`, with a verified file for each name in `weights`.

    Options, all of them optional: "device" ("cpu" or "cuda[:n]"), "frames_per_clip" (int; None is all) for an
    extractor of a set-level metric, and for one that imitates a pipeline of files "recode" and "recode_audio":
    callables (codec, frames) -> frames and (codec, int16 samples) -> samples, whose codecs metrics.sync names. Choices
    that `bench explain` tries have options too: "unsigned", "antialias", "squash" (True) and "first" (frames) of I3D,
    "unsigned" of LPIPS, "resizing" (another extractor's name) of Inception, "longer_than" (detections) of SyncNet's
    tracks. What is not the default is told by the id.
    `make` must be cheap: a network is loaded at the first call, so that the id is known without it.
    """

    name: str
    make: Callable[[Mapping[str, Weights], Mapping[str, Any]], Extractor]
    weights: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Replicates:
    """What a set-level value is worth: its values on subsets of the clips, drawn without replacement.

    count      feature vectors in the value itself (of the smaller side)
    clips      (R,) int64, clips of each draw; vectors (R,) int64, feature vectors of its smaller side
    values     (R,) float64, the metric on that subset of both sides
    infinite   the value extrapolated to infinitely many vectors; None where the draws do not allow it
    """

    count: int
    clips: NDArray[np.int64]
    vectors: NDArray[np.int64]
    values: NDArray[np.float64]
    infinite: float | None


@dataclass(frozen=True, slots=True)
class Metric:
    """A reduction of stored features to a number.

    name        "family/variant"; two variants never share a column
    needs       (side, extractor name) in the order in which `compute` takes them; ASKED is not extracted
    level       "clip": compute(features, ...) of one clip; "set": compute(iterable of the clips' features, ...)
    compute     returns a float, or raises MetricError with the reason
    emotions    the labels it can score; clips of others are left out, by name. None: all, labelled or not
    replicates  replicates(seed, *loaders) of a set-level metric, each loader() giving an iterable of the clips'
                features of one need in the same order as the others, as often as it is called
    enough      feature vectors under which the value is known to depend on their number: a warning is written
    details     details(ids, *iterables of the clips' features, one a need): a table that is written beside the rows
    """

    name: str
    version: int
    needs: tuple[tuple[Side, str], ...]
    level: Level
    unit: str
    direction: Direction
    compute: Callable[..., float]
    label: str  # column heading, as papers print it
    digits: int  # decimals in a printed table
    source: str  # paper, section, or repository and commit that defines it
    emotions: tuple[str, ...] | None = None
    replicates: Callable[..., Replicates] | None = None
    enough: int = 0
    details: Callable[..., Table] | None = None


_METRICS: dict[str, Metric] = {}
_EXTRACTORS: dict[str, ExtractorSpec] = {}


def register(item: Metric | ExtractorSpec) -> None:
    """Add a metric or an extractor; a name may be taken once.

    Raises ValueError on a second item of the same name.
    """
    table: dict[str, Any] = _METRICS if isinstance(item, Metric) else _EXTRACTORS
    if item.name in table:
        raise ValueError(f"{item.name!r} is registered already")
    table[item.name] = item


def _load() -> None:
    for module in MODULES:
        importlib.import_module(f"metrics.{module}")


def _find(table: Mapping[str, Any], kind: str, name: str) -> Any:
    _load()
    if name not in table:
        near = difflib.get_close_matches(name, table, n=1)
        more = f" and {len(table) - MOST} more" if len(table) > MOST else ""
        hint = f" Did you mean {near[0]!r}?" if near else f" Known: {', '.join(sorted(table)[:MOST])}{more}."
        raise KeyError(f"no {kind} is named {name!r}.{hint}")
    return table[name]


def metric(name: str) -> Metric:
    """The metric of that name. Raises KeyError with the nearest name."""
    found: Metric = _find(_METRICS, "metric", name)
    return found


def extractor(name: str) -> ExtractorSpec:
    """The extractor of that name. Raises KeyError with the nearest name."""
    found: ExtractorSpec = _find(_EXTRACTORS, "extractor", name)
    return found


def names() -> Sequence[str]:
    """Names of all metrics, sorted."""
    _load()
    return sorted(_METRICS)


def extractor_names() -> Sequence[str]:
    """Names of all extractors, sorted."""
    _load()
    return sorted(_EXTRACTORS)
