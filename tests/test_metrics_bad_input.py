"""Whatever is wrong with a clip, a metric gives a number or one line that says what: for every one that is registered.

What each of them says in detail stands with its own tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from networks import load
from skimage import data

import metrics
from metrics import MetricError
from metrics.base import ASKED, ClipViews, Features, Metric

SIZE = 40

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated:DeprecationWarning")


def sound_clip(count: int) -> ClipViews:
    """A clip that every metric can score; sound and mouth move together."""
    rng = np.random.default_rng(0)
    opening = 0.5 + 0.5 * np.sin(np.arange(count))
    face = rng.uniform(8, SIZE - 8, (478, 3))
    points = face + rng.normal(0, 0.1, (count, 478, 3))
    points[:, (14, 87, 317, 178, 402), 1] += 6 * opening[:, None]
    noise = rng.uniform(-0.3, 0.3, (count, 640))
    return ClipViews(
        index=np.arange(count),
        fps=25.0,
        frames=np.stack([data.astronaut()[k : k + SIZE, 90 + k : 90 + k + SIZE] for k in range(count)]),
        landmarks=points.astype(np.float32),
        aligned112=np.stack([data.astronaut()[k : k + 112, 150 + k : 262 + k] for k in range(count)]),
        found=np.ones(count, bool),
        waveform=(noise * opening[:, None]).ravel().astype(np.float32),
        sample_rate=16_000,
    )


@cache
def made(label: str, count: int, name: str, reference: bool = False) -> Features | Exception:
    """What an extractor makes of a sound clip or of one with that fault, or how it refuses: once for all metrics."""
    one = clip_of(label, count)
    if reference:
        one = only(one, slice(0, 1))
    if any(view.startswith("real.") for view in load(name).views):
        one = replace(one, real=clip_of("sound" if label not in ("white", "noisy") else label, count))
    try:
        found: Features = load(name)([one] if len(one.index) else [])
    except (MetricError, ValueError) as error:
        return error
    return found


def clip_of(label: str, count: int) -> ClipViews:
    whole = sound_clip(count)
    return whole if label == "sound" else SPOILT[label](whole)


def needed(metric: Metric) -> list[tuple[str, str]]:
    return [need for need in metric.needs if need != ASKED]


def views_of(metric: Metric) -> set[str]:
    names = [view for _, name in needed(metric) for view in load(name).views]
    return {view.removeprefix("real.").partition(":")[0] for view in names}


def count_for(metric: Metric) -> int:
    """Frames that its shortest clip has: 10 or 16 of I3D, 25 of a correlation; else as few as tell."""
    if "waveform" in views_of(metric):
        return 30
    return {"fvd/i3d-16f": 16, "fvd/i3d-all-frames": 10}.get(metric.name, 2 if metric.name.startswith("fid/") else 3)


def score(metric: Metric, generated: str, real: str = "sound") -> float:
    """The metric of two such clips, or of sets of them; the reference is the first real frame."""
    columns: list[Any] = []
    words = sorted(2 * (metric.emotions or ("happy", "sad")))
    for side, name in metric.needs:
        if (side, name) == ASKED:
            columns.append([{"emotion": np.array(word), "identity": np.array("A")} for word in words])
            continue
        found = made(generated if side in ("generated", "pair") else real, count_for(metric), name, side == "reference")
        if isinstance(found, Exception):
            raise found
        columns.append([{key: nudged(array, k) for key, array in found.items()} for k in range(len(words))])
    return metric.compute(*(columns if metric.level == "set" else [column[0] for column in columns]))


def nudged(array: np.ndarray, k: int) -> np.ndarray:
    """Embeddings of clip k, which are not those of the others."""
    return array * (1 + k / 100) if array.ndim == 2 and array.shape[1] > 7 else array


def only(clip: ClipViews, part: slice) -> ClipViews:
    cut: dict[str, Any] = dict.fromkeys(("frames", "landmarks", "aligned112", "found", "index"))
    cut = {name: None if getattr(clip, name) is None else getattr(clip, name)[part] for name in cut}
    wave = clip.view("waveform").reshape(-1, 640)[part].ravel()
    return replace(clip, waveform=wave, **cut)


def outcome(work: Callable[[], float]) -> float | str:
    """The value, or the reason. What is no MetricError is a bug of the metric, or of the view that it is given."""
    try:
        value = work()
    except (MetricError, ValueError) as error:
        text = str(error)
        assert 10 < len(text) < 300, text
        assert "\n" not in text
        return text
    assert type(value) is float
    return value


def without_face(clip: ClipViews) -> ClipViews:
    nowhere = np.full_like(clip.view("landmarks"), np.nan)
    return replace(clip, landmarks=nowhere, aligned112=clip.view("aligned112") * 0, found=~clip.view("found"))


def with_sound(wave: Callable[[np.ndarray], np.ndarray]) -> Callable[[ClipViews], ClipViews]:
    return lambda clip: replace(clip, waveform=wave(clip.view("waveform")).astype(np.float32))


def half_precision(clip: ClipViews) -> ClipViews:
    changed: dict[str, Any] = {n: (clip.view(n) / 255).astype(np.float16) for n in ("frames", "aligned112")}
    return replace(clip, **changed)


def smaller(clip: ClipViews) -> ClipViews:
    return replace(clip, frames=clip.view("frames")[:, : SIZE - 2], aligned112=clip.view("aligned112")[:, :-2])


def white(clip: ClipViews) -> ClipViews:
    changed: dict[str, Any] = {name: np.full_like(clip.view(name), 255) for name in ("frames", "aligned112")}
    return replace(clip, **changed)


FACES, SOUND, PIXELS = {"landmarks", "aligned112"}, {"waveform"}, {"frames", "aligned112"}
# What is wrong with the generated clip, and the views without which a metric cannot be scored.
FAULTS: dict[str, set[str]] = {
    "no face": FACES,
    "silent": SOUND,
    "no sound": SOUND,
    "sound of NaN": SOUND,
    "float16 pictures": PIXELS,
    "no frames": {"frames", "landmarks", "aligned112", "waveform"},
}
SPOILT: dict[str, Callable[[ClipViews], ClipViews]] = {
    "no face": without_face,
    "silent": with_sound(np.zeros_like),
    "no sound": with_sound(lambda wave: wave[:0]),
    "sound of NaN": with_sound(lambda wave: wave * np.nan),
    "float16 pictures": half_precision,
    "no frames": lambda clip: only(clip, slice(0, 0)),
    "short": lambda clip: only(clip, slice(0, len(clip.index) - 1)),
    "small": smaller,
    "white": white,
}


@pytest.mark.parametrize("name", metrics.names())
def test_a_sound_clip_can_be_scored(name: str) -> None:
    """Or the other tests here say nothing."""
    assert isinstance(outcome(lambda: score(metrics.metric(name), "sound")), float)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", metrics.names())
def test_a_fault_is_a_reason(name: str, fault: str) -> None:
    metric = metrics.metric(name)
    if not views_of(metric) & FAULTS[fault]:
        return  # its inputs are whole
    found = outcome(lambda: score(metric, fault))
    if name == "faces/missed" and fault == "no face":
        assert found == 100.0
    else:
        assert isinstance(found, str), f"{fault}: {name} is {found}"


@pytest.mark.parametrize("name", [n for n in metrics.names() if metrics.metric(n).level == "clip"])
def test_sides_that_do_not_fit_are_a_reason(name: str) -> None:
    metric = metrics.metric(name)
    pair = "pair" in {side for side, _ in metric.needs}
    if pair or name.startswith("lmd/") or name.endswith("-to-frame"):
        found = outcome(lambda: score(metric, "short"))
        assert isinstance(found, str), f"{name} is {found} for another length"
    if pair:
        found = outcome(lambda: score(metric, "small"))
        assert isinstance(found, str), f"{name} is {found} for another size"


@pytest.mark.parametrize("name", [n for n in metrics.names() if metrics.metric(n).level == "set"])
def test_an_empty_set_is_a_reason(name: str) -> None:
    metric = metrics.metric(name)
    assert isinstance(outcome(lambda: metric.compute(*([] for _ in metric.needs))), str)


@pytest.mark.parametrize("name", metrics.names())
def test_white_pictures_give_a_number_or_a_reason(name: str) -> None:
    """Never NaN; identical ones the best score that there is."""
    metric = metrics.metric(name)
    if not PIXELS & views_of(metric) or name.startswith("fvd"):
        return  # FVD of black and white is compared with what was published
    found = outcome(lambda: score(metric, "white", "white"))
    assert isinstance(found, str) or math.isfinite(found)
    best = {"psnr": 100.0, "ssim": 1.0, "lpips": 0.0, "cpbd": 0.0, "fid": 0.0}
    family = name.partition("/")[0]
    if family in best:
        assert found == pytest.approx(best[family], abs=1e-6)


def stored(metric: Metric) -> list[Features]:
    """Features of a sound clip by need, ASKED left out."""
    found = [made("sound", count_for(metric), name, side == "reference") for side, name in needed(metric)]
    return [one for one in found if not isinstance(one, Exception)]


def reduced(metric: Metric, change: Callable[[np.ndarray], np.ndarray]) -> float:
    """The metric of the features of sound clips, each array changed so."""
    left = iter(stored(metric))
    words = sorted(2 * (metric.emotions or ("happy", "sad")))
    given: list[Any] = []
    for need in metric.needs:
        if need == ASKED:
            given.append([{"emotion": np.array(word), "identity": np.array("A")} for word in words])
        else:
            one = next(left)
            given.append([{key: change(nudged(v, k)) for key, v in one.items()} for k in range(len(words))])
    return metric.compute(*(given if metric.level == "set" else [column[0] for column in given]))


@pytest.mark.parametrize("name", metrics.names())
def test_nothing_is_summed_in_float16(name: str) -> None:
    """Features that were stored as float16 give what the same numbers in float64 give."""
    metric = metrics.metric(name)

    def rounded(kind: type) -> Callable[[np.ndarray], np.ndarray]:
        return lambda array: array.astype(np.float16).astype(kind) if array.dtype.kind == "f" else array

    half, double = (outcome(lambda kind=kind: reduced(metric, rounded(kind))) for kind in (np.float16, np.float64))
    assert isinstance(double, float)
    assert half == pytest.approx(double, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", metrics.names())
def test_broken_features_are_never_a_number_that_is_none(name: str) -> None:
    """All NaN, as a network on broken hardware gives: the library refuses what `bench eval` would refuse."""
    metric = metrics.metric(name)

    def broken(array: np.ndarray) -> np.ndarray:
        return np.full_like(array, np.nan) if array.dtype.kind == "f" else array

    found = outcome(lambda: metrics.library.checked(metric, reduced(metric, broken)))
    assert isinstance(found, str) or name == "faces/missed"


# Those that differ from another in what they are given only.
SAME_NETWORK = ("i3d-16f", "fid-inception-pytorch", "fid-inception-clean", "fid-inception-torchmetrics")


@pytest.mark.parametrize("name", [name for name in metrics.extractor_names() if name not in SAME_NETWORK])
def test_threads_and_pieces_change_nothing(name: str) -> None:
    """1e-5 of the largest: one frame at a time on one thread, and all at once on two."""
    made = load(name)
    views = {view.removeprefix("real.").partition(":")[0] for view in made.views}
    clip = sound_clip(30 if "waveform" in views else 10 if name.startswith("i3d") else 3)
    threads = torch.get_num_threads()

    def run(count: int, size: int) -> dict[str, np.ndarray]:
        torch.set_num_threads(count)
        cuts = [only(clip, slice(k, k + size)) for k in range(0, len(clip.index), size)]
        found: dict[str, np.ndarray] = made(replace(cut, real=dim(cut)) for cut in cuts)
        return found

    try:
        one, other = run(1, 1), run(2, 32)
    finally:
        torch.set_num_threads(threads)
    assert one.keys() == other.keys()
    for key, array in one.items():
        limit = 1e-5 * max(float(np.nanmax(np.abs(array))), 1e-30)
        np.testing.assert_allclose(other[key], array, atol=limit, rtol=0, err_msg=key)


def dim(clip: ClipViews) -> ClipViews:
    return replace(clip, frames=clip.view("frames") // 2)
