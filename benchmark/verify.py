"""What `bench verify` does: published values of the metrics, computed again by the very code that `bench eval` runs.

A fixture is an input that anybody can have: made on the spot from a recipe, or a file that its publisher has and
that is known by its SHA-256. Each of its values was printed by somebody else ("published"), or measured by us and
agreed with another implementation ("ours").
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmark import catalogue, configs, weights
from benchmark.errors import BenchError
from metrics import base
from metrics.base import ClipViews, Extractor, Features, Metric, MetricError
from metrics.networks.i3d import I3D
from metrics.networks.running import full_precision
from metrics.sync import PUBLISHED
from pipelines import media
from pipelines.datasets import printable

FPS = 25.0

Clip = ClipViews | NDArray[np.float32]  # an array goes into the network as it is: (T, H, W, 3)
Sides = Mapping[str, Iterable[Clip]]  # "generated" and, where a fixture has it, "real"
Found = Mapping[str, Path]  # media by name


@dataclass(frozen=True, slots=True)
class Medium:
    """A file that somebody publishes. Without a sha256 its name and size find it; what is read of it is checked."""

    bytes: int
    sha256: str
    where: str


def _batch(name: str) -> tuple[str, Medium]:
    page = "CIFAR-10 binary version, https://www.cs.toronto.edu/~kriz/cifar.html"
    return name, Medium(30_730_000, "", f"{page}: cifar-10-batches-bin/")


_LPIPS = "GitHub richzhang/PerceptualSimilarity: imgs/"
MEDIA = {
    "ex_ref.png": Medium(9464, "57aff3a0aeb6ebea151411f35b4487ea130aedcac6addd91c8c015969f9df097", _LPIPS),
    "ex_p0.png": Medium(7518, "f44901a99c82755cfe78cdbde66579ae06cd0ebbba4a2539aa35ef96bbe703db", _LPIPS),
    "ex_p1.png": Medium(10078, "6ada2a42a3378bfa408027ba2d54a827c6f2cec30a0506e4f140fddaca661022", _LPIPS),
    "reference_img1_input.txt": Medium(
        1_375_964,
        "2edbb1105776c5ac4d3dd5e5c459e78844281865f5c15aa7baae4261d1457405",
        "GitHub 0x64746b/python-cpbd: tests/data/",
    ),
    "example.avi": Medium(
        1_111_536,
        "1724121b3a50141cfc9e77c034f7de914024d015b92762ae12d3e1a7151b8621",
        "GitHub QinSy77/syncnet_python, a fork of joonson/syncnet_python: data/",
    ),
    **dict(_batch(f"data_batch_{k}.bin") for k in range(1, 6)),
    **dict([_batch("test_batch.bin")]),
    "cifar256.npz": Medium(1_577_926, "3464250f4be8560317c2742fe2cfc79fcee362f51f0dc67c2f63252865392c57", ""),
}
BATCHES = tuple(name for name in MEDIA if name.endswith(".bin"))
CIFAR_IMAGES = 256  # of either side
CIFAR_SHA256 = "bbd6fb98776fdb30f3197ec4a0f367309ce64d6c35fa149dc6d06b0c56d2f2b1"  # of the chosen pixels


class Unavailable(Exception):
    """The media are not what their names say."""


@dataclass(frozen=True, slots=True)
class Value:
    """What a metric gives for a fixture. The tolerance is absolute, or a share of `expected` where `relative`."""

    metric: str
    expected: float
    tolerance: float
    relative: bool = False
    whose: Literal["published", "ours"] = "published"


@dataclass(frozen=True, slots=True)
class Fixture:
    """Clips on which values are known.

    media   names of MEDIA, in sets of which any one will do
    clips   of a side: how many `make(media found)` gives
    slow    takes minutes: only with --slow
    """

    title: str
    make: Callable[[Found], Sides]
    values: tuple[Value, ...]
    media: tuple[tuple[str, ...], ...] = ()
    clips: int = 1
    slow: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """One value, checked. `measured` is None where there is none; then `note` says why, and `missing` how to get what
    is not here, by name."""

    on: str
    value: Value
    state: Literal["ok", "FAILED", "unavailable"]
    measured: float | None = None
    note: str = ""
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def difference(self) -> float | None:
        """Comparable to the tolerance: relative where that is."""
        if self.measured is None:
            return None
        apart = abs(self.measured - self.value.expected)
        return apart / abs(self.value.expected) if self.value.relative else apart


# Inputs


def _clip(frames: NDArray[np.uint8], waveform: NDArray[np.float32] | None = None) -> ClipViews:
    rate = 0 if waveform is None else media.AUDIO_RATE
    return ClipViews(np.arange(len(frames)), FPS, frames=frames, waveform=waveform, sample_rate=rate)


def _black_and_white(clips: int, frames: int) -> Callable[[Found], Sides]:
    """All-0 against all-255 frames of 64 x 64 pixels."""

    def make(found: Found) -> Sides:
        sides = (("generated", 0), ("real", 255))
        return {side: [_clip(np.full((frames, 64, 64, 3), level, np.uint8))] * clips for side, level in sides}

    return make


def _noise(found: Found) -> Sides:
    """Videos of RandomState(seed).rand, seeds 1 and 2, in [0, 1] and handed over unscaled, as they were published."""

    def videos(seed: int) -> Iterator[Clip]:
        state = np.random.RandomState(seed)
        return (state.rand(16, 224, 224, 3).astype(np.float32) for _ in range(128))

    return {"generated": videos(1), "real": videos(2)}


def _cifar(found: Found) -> Sides:
    """RandomState(2020).choice(50000 | 10000, 256, replace=False) of the train and validation images, in 8 clips."""
    if "cifar256.npz" in found:
        with np.load(found["cifar256.npz"]) as arrays:
            train, validation = arrays["tr"], arrays["va"]
    else:
        train, validation = _images(found, BATCHES[:5]), _images(found, BATCHES[5:])
    if hashlib.sha256(train.tobytes() + validation.tobytes()).hexdigest() != CIFAR_SHA256:
        raise Unavailable(f"the files named {BATCHES[0]} to {BATCHES[-1]} are not those of CIFAR-10's binary version")
    frames = {"generated": validation.transpose(0, 2, 3, 1), "real": train.transpose(0, 2, 3, 1)}
    return {side: [_clip(part) for part in np.split(images, 8)] for side, images in frames.items()}


def _images(found: Found, names: Sequence[str]) -> NDArray[np.uint8]:
    """(256, 3, 32, 32) uint8 of batches of 10,000 images, each a byte of label and 3072 of pixels."""
    rows = [np.memmap(found[name], np.uint8, "r").reshape(-1, 3073) for name in names]
    chosen = np.random.RandomState(2020).choice(10_000 * len(rows), CIFAR_IMAGES, replace=False)
    return np.stack([rows[k // 10_000][k % 10_000, 1:] for k in np.sort(chosen)]).reshape(-1, 3, 32, 32)


def _lpips_example(name: str) -> Callable[[Found], Sides]:
    def make(found: Found) -> Sides:
        return {"generated": [_clip(_picture(found, name))], "real": [_clip(_picture(found, "ex_ref.png"))]}

    return make


def _picture(found: Found, name: str) -> NDArray[np.uint8]:
    picture = cv2.imdecode(np.fromfile(found[name], np.uint8), cv2.IMREAD_COLOR_RGB)
    return np.asarray(picture, np.uint8)[None]


def _cpbd_picture(found: Found) -> Sides:
    grey = np.loadtxt(found["reference_img1_input.txt"], delimiter=",").astype(np.uint8)
    return {"generated": [_clip(np.repeat(grey[None, :, :, None], 3, axis=3))]}


def _syncnet_example(found: Found) -> Sides:
    path = found["example.avi"]
    return {"generated": [_clip(np.stack(list(media.read_frames(path))), media.read_audio(path))]}


FIXTURES = (
    Fixture(
        "black and white, 64 x 64 px",
        _black_and_white(1, 1),
        (
            Value("psnr/frame-mean", 0.0, 1e-9),  # common_metrics_on_video_quality prints these, and the LPIPS
            Value("ssim/gaussian", 9.9990e-5, 5e-10),
            Value("lpips/alex-spatial", 0.8140090704, 5e-5),
            Value("lpips/alex", 0.8139543533, 1e-5, whose="ours"),
        ),
    ),
    Fixture(
        "ex_ref.png and ex_p0.png",
        _lpips_example("ex_p0.png"),
        (
            Value("lpips/alex", 0.722, 5e-4),  # the package's README
            Value("lpips/alex-spatial", 0.721858, 1e-4, whose="ours"),
            Value("lpips/vgg", 0.568613, 1e-4, whose="ours"),
        ),
        media=(("ex_ref.png", "ex_p0.png"),),
    ),
    Fixture(
        "ex_ref.png and ex_p1.png",
        _lpips_example("ex_p1.png"),
        (
            Value("lpips/alex", 0.138, 5e-4),
            Value("lpips/alex-spatial", 0.137554, 1e-4, whose="ours"),
            Value("lpips/vgg", 0.421664, 1e-4, whose="ours"),
        ),
        media=(("ex_ref.png", "ex_p1.png"),),
    ),
    Fixture(
        "reference_img1_input.txt",
        _cpbd_picture,
        (Value("cpbd/asu", 0.1349, 5e-5),),  # python-cpbd's tests
        media=(("reference_img1_input.txt",),),
    ),
    # syncnet_python's README. 5e-3: the JPEGs in between are another encoder's.
    Fixture(
        "example.avi",
        _syncnet_example,
        (
            Value("lse-offset/cropped", PUBLISHED["offset"], 0.0),
            Value("lse-d/cropped", PUBLISHED["distance"], 5e-3),
            Value("lse-c/cropped", PUBLISHED["confidence"], 5e-3),
        ),
        media=(("example.avi",),),
    ),
    Fixture(
        "black and white, 30 frames",
        _black_and_white(2, 30),
        # Printed by TF-Hub's module, of any number of equal videos; in float64 151.392474. On constant frames float32
        # rounding alone, which depends on the number of threads, moves it by 1e-6.
        (Value("fvd/i3d-all-frames", 151.39244, 5e-6, relative=True),),
        clips=2,
    ),
    Fixture(
        "CIFAR-10, 256 + 256 images",
        _cifar,
        (
            Value("fid/torch-fidelity", 110.28082617, 1e-6, relative=True),
            Value("fid/pytorch-fid", 110.17285733, 1e-6, relative=True, whose="ours"),
            Value("fid/clean-fid", 112.87239423, 1e-6, relative=True, whose="ours"),
            Value("fid/torchmetrics", 110.14512738, 1e-6, relative=True, whose="ours"),
        ),
        media=(("cifar256.npz",), BATCHES),
        clips=8,
    ),
    Fixture(
        "noise, 128 + 128 videos",
        _noise,
        # StyleGAN-V, of TF-Hub's module; by SciPy's sqrtm, which loses 6e-7 here.
        (Value("fvd/i3d-all-frames", 10.13808537, 2e-6, relative=True),),
        clips=128,
        slow=True,
    ),
)


# Checks


def chosen(names: Sequence[str], slow: bool) -> tuple[list[tuple[Fixture, Value]], list[Fixture]]:
    """The values to check of the metrics or families in `names` (all, if empty), and the fixtures left out as slow.

    Raises BenchError for a name of which no value is known.
    """
    known = sorted({word for f in FIXTURES for v in f.values for word in (v.metric, v.metric.partition("/")[0])})
    for name in names:
        if name not in known:
            raise BenchError(f"no value is published for {name!r}; {configs.nearest(name, known)}")
    wanted = [
        (fixture, value)
        for fixture in FIXTURES
        for value in fixture.values
        if not names or value.metric in names or value.metric.partition("/")[0] in names
    ]
    left = {fixture.title: fixture for fixture, _ in wanted if fixture.slow and not slow}
    return [(fixture, value) for fixture, value in wanted if fixture.title not in left], list(left.values())


def find(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """The media that lie anywhere below the folder, by name, and a line for each place that cannot be read."""
    found: dict[str, Path] = {}
    problems: list[str] = []

    def note(error: OSError) -> None:
        problems.append(f"{printable(str(error.filename))}: cannot be read ({error.strerror or error})")

    for place, _, names in os.walk(folder, onerror=note):
        for name in sorted(names):
            path = Path(place, name)
            try:
                if path.is_file() and (known := _recognised(path)):
                    found.setdefault(known, path)
            except OSError as error:
                note(error)
    return found, problems


def _recognised(path: Path) -> str | None:
    same_size = {name: medium for name, medium in MEDIA.items() if medium.bytes == path.stat().st_size}
    if not same_size:
        return None
    digest = media.file_sha256(path) if any(medium.sha256 for medium in same_size.values()) else ""
    return next((n for n, m in same_size.items() if m.sha256 == digest and (m.sha256 or n == path.name)), None)


def run(wanted: Sequence[tuple[Fixture, Value]], found: Found) -> Iterator[Outcome]:
    """Check value after value; with a progress bar over the clips of each."""
    features: dict[tuple[str, tuple[str, str]], list[Features]] = {}
    for fixture, value in wanted:
        metric = base.metric(value.metric)
        if missing := _missing(fixture, metric, found):
            first, *others = missing
            note = f"needs {first}{f' and {len(others)} more' if others else ''}"
            yield Outcome(fixture.title, value, "unavailable", note=note, missing=missing)
            continue
        try:
            for need in metric.needs:
                if (key := (fixture.title, need)) not in features:
                    features[key] = _features(fixture, need, found)
            yield _checked(fixture, value, metric, [features[fixture.title, need] for need in metric.needs])
        except Unavailable as error:
            yield Outcome(fixture.title, value, "unavailable", note=str(error))
        except (MetricError, media.MediaError) as error:
            yield Outcome(fixture.title, value, "FAILED", note=" ".join(str(error).split()))


def _missing(fixture: Fixture, metric: Metric, found: Found) -> dict[str, str]:
    """How to get the networks and media that are not here, by name."""
    needed = {name: f"`{weights.entry(name).command}`" for name in catalogue.missing(metric)}
    if not any(all(name in found for name in names) for names in fixture.media):
        lacking = (name for name in fixture.media[-1] if name not in found) if fixture.media else ()
        needed.update((name, f"{MEDIA[name].where}, in a folder for --media") for name in lacking)
    return needed


def _checked(fixture: Fixture, value: Value, metric: Metric, columns: Sequence[Sequence[Features]]) -> Outcome:
    measured = metric.compute(*(column if metric.level == "set" else column[0] for column in columns))
    outcome = Outcome(fixture.title, value, "ok", float(measured))
    good = outcome.difference is not None and outcome.difference <= value.tolerance  # NaN is not
    return outcome if good else replace(outcome, state="FAILED")


def _features(fixture: Fixture, need: tuple[str, str], found: Found) -> list[Features]:
    side, name = need
    extractor = _extractor(name)
    sides = fixture.make(found)
    own = sides["generated" if side == "pair" else side]
    title = f"{name}, {fixture.title}"
    progress = tqdm(own, desc=title, total=fixture.clips, unit="clip", leave=False, disable=None)
    if side == "pair":
        return [_extract(extractor, clip, other) for clip, other in zip(progress, sides["real"], strict=True)]
    return [_extract(extractor, clip) for clip in progress]


def _extractor(name: str) -> Extractor:
    spec = base.extractor(name)
    files = {key: base.Weights(weights.path(key, fetch=False), weights.digest(key)) for key in spec.weights}
    return spec.make(files, {"recode": media.recode, "recode_audio": media.recode_audio})


def _extract(extractor: Extractor, clip: Clip, real: Clip | None = None) -> Features:
    if isinstance(clip, ClipViews):
        return extractor([replace(clip, real=real) if isinstance(real, ClipViews) else clip])
    import torch

    assert isinstance(extractor, I3D)
    with full_precision("cpu"):
        planes = torch.from_numpy(np.ascontiguousarray(clip.transpose(3, 0, 1, 2)))
        return {"features": extractor.network([planes], len(clip))[None]}


# Text

HEAD = f"{'metric':20}{'on':29}{'expected':>14} {'':11}{'here':>14}{'difference':>12}{'tolerance':>12}"


def line(outcome: Outcome) -> str:
    """One line of the table; its columns are those of HEAD, then the verdict."""
    value = outcome.value
    start = f"{value.metric:20}{outcome.on:29}{value.expected:14.9g} {value.whose:11}"
    if outcome.measured is None:
        return f"{start}{outcome.state}: {outcome.note}"
    unit = " rel" if value.relative else ""
    apart, allowed = f"{outcome.difference:.1e}{unit}", f"{value.tolerance:.1e}{unit}"
    return f"{start}{outcome.measured:14.9g}{apart:>12}{allowed:>12}  {outcome.state}"
