"""Every registered metric and extractor keeps the contract."""

from __future__ import annotations

import re
import subprocess
import sys
import weakref
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from networks import load
from skimage import data

import metrics
from benchmark import weights
from metrics.base import ASKED, ClipViews, Direction, Level, Metric, MetricError, Side, Weights, register

COUNT, SIZE = 30, 32

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated:DeprecationWarning")


@cache
def views() -> ClipViews:
    """A clip of random faces, sounds and photographs, and a noisy copy as its real side."""
    rng = np.random.default_rng(0)
    frames = np.stack([data.astronaut()[k : k + SIZE, 2 * k : 2 * k + SIZE] for k in range(COUNT)])
    faces = np.stack([data.astronaut()[k : k + 112, 2 * k : 2 * k + 112] for k in range(COUNT)])
    clip = ClipViews(
        index=np.arange(COUNT),
        fps=25.0,
        frames=frames,
        landmarks=rng.uniform(0, SIZE, (COUNT, 478, 3)).astype(np.float32),
        aligned112=faces,
        found=np.arange(COUNT) % 11 != 3,
        waveform=rng.uniform(-1, 1, COUNT * 640).astype(np.float32),
        sample_rate=16_000,
    )
    noisy = (frames + rng.normal(0, 10, frames.shape)).clip(0, 255).astype(np.uint8)
    return replace(clip, real=replace(clip, frames=noisy))


def part(clip: ClipViews, start: int, stop: int, wanted: tuple[str, ...]) -> ClipViews:
    """Some frames of the clip with only the views that were asked for."""
    names = {name.partition(":")[0] for name in wanted}
    cut: dict[str, Any] = {
        "frames": slice(start, stop),
        "landmarks": slice(start, stop),
        "aligned112": slice(start, stop),
        "waveform": slice(start * 640, stop * 640),
    }
    given = {name: clip.view(name)[cut[name]] for name in cut if name in names}
    if names & {"landmarks", "aligned112"}:
        given["found"] = clip.view("found")[start:stop]
    real = tuple(name.removeprefix("real.") for name in names if name.startswith("real."))
    return ClipViews(
        index=clip.index[start:stop],
        fps=clip.fps,
        sample_rate=clip.sample_rate if "waveform" in names else 0,
        real=part(clip.real, start, stop, real) if real and clip.real else None,
        **given,
    )


def count_of(name: str, wanted: tuple[str, ...]) -> int:
    """Frames of the clip that an extractor is given: of the large networks as few as tell."""
    return 3 if "frames:3" in wanted else 17 if name.startswith("i3d-") else COUNT


def pieces(name: str, wanted: tuple[str, ...], size: int) -> Iterator[ClipViews]:
    count = count_of(name, wanted)
    for start in range(0, count, size):
        yield part(views(), start, min(start + size, count), wanted)


@cache
def extracted(name: str) -> dict[str, np.ndarray]:
    extractor = load(name, frames_per_clip=3)
    result: dict[str, np.ndarray] = extractor(pieces(name, extractor.views, COUNT))
    return result


@pytest.mark.parametrize("name", metrics.names())
def test_metric_says_what_it_is(name: str) -> None:
    metric = metrics.metric(name)
    assert re.fullmatch(r"[a-z0-9-]+/[a-z0-9_-]+", metric.name)
    assert metric.version >= 1
    assert metric.level in get_args(Level)
    assert metric.direction in get_args(Direction)
    assert 0 <= metric.digits <= 6
    assert metric.label
    assert len(metric.source) > 20
    assert metric.compute.__doc__
    for side, extractor in metric.needs:
        assert side in get_args(Side)
        if (side, extractor) != ASKED:
            metrics.extractor(extractor)


def asked_features(metric: Metric) -> list[Any]:
    """A metric that knows what was asked for gets two clips of each emotion that it scores, all of one person: the
    one clip's frames from another one on each time."""
    words = sorted(2 * (metric.emotions or ("happy", "sad")))
    features: list[Any] = []
    for need in metric.needs:
        if need == ASKED:
            clips = [{"emotion": np.array(word), "identity": np.array("A")} for word in words]
        else:
            clips = [{key: array[k:] for key, array in extracted(need[1]).items()} for k in range(len(words))]
        features.append(clips if metric.level == "set" else clips[0])
    return features


@pytest.mark.parametrize("name", metrics.names())
def test_metric_reduces_what_its_extractors_store(name: str) -> None:
    metric = metrics.metric(name)
    if ASKED in metric.needs:
        features = asked_features(metric)
    else:
        features = []
        for side, extractor in metric.needs:
            stored = extracted(extractor)
            if side == "reference":
                stored = {key: array[:1] for key, array in stored.items()}
            features.append([stored, stored] if metric.level == "set" else stored)
    try:
        value = metric.compute(*features)
    except MetricError as error:  # a classifier that somebody trained on fewer emotions than the metric scores
        if "was not trained on" not in str(error):
            raise
        pytest.skip(str(error))
    assert type(value) is float
    assert np.isfinite(value)


@pytest.mark.parametrize("name", metrics.extractor_names())
def test_extractor_is_known_without_its_weights(name: str) -> None:
    """The id is the same each time, names the weights, and no file is opened for it."""
    spec = metrics.extractor(name)

    def made(digest: str) -> Any:
        files = {w: Weights(Path("missing"), digest * 64) for w in spec.weights}
        return spec.make(files, {"device": "cpu"})

    assert made("a").id == made("a").id
    assert made("a").id.startswith(name)
    assert (made("a").id != made("b").id) == bool(spec.weights)
    assert type(made("a")).__doc__
    for weight in spec.weights:
        assert weights.entry(weight)
    kinds = {"frames", "landmarks", "aligned112", "waveform"}
    for view in made("a").views:
        assert re.sub(r"^real\.|:\d+$", "", view) in kinds


@pytest.mark.parametrize("name", metrics.extractor_names())
def test_chunks_do_not_matter(name: str) -> None:
    """1e-5: convolutions over batches of other sizes may sum in another order."""
    extractor = load(name, frames_per_clip=3)
    whole, count = extracted(name), count_of(name, extractor.views)
    chunked = extractor(pieces(name, extractor.views, 2 if count == 3 else 7))
    assert whole.keys() == chunked.keys()
    for key, array in whole.items():
        assert isinstance(array, np.ndarray)
        assert len(array) == (1 if name.startswith("i3d-") else count)  # I3D: one a clip
        assert chunked[key].dtype == array.dtype
        np.testing.assert_allclose(chunked[key], array, atol=1e-5 * max(1.0, float(np.abs(array).max())))


@pytest.mark.parametrize("name", [n for n in metrics.extractor_names() if not metrics.extractor(n).weights])
def test_chunks_are_let_go(name: str) -> None:
    """No formula holds more than the chunk at hand (networks: test_batches_are_lazy)."""
    alive: set[int] = set()
    most = 0

    def chunks() -> Iterator[ClipViews]:
        nonlocal most
        views = [view for view in load(name).views if not view.startswith("real.")]
        for k, chunk in enumerate(pieces(name, load(name).views, 1)):
            own = replace(chunk, **{view: chunk.view(view).copy() for view in views})
            for view in views:
                weakref.finalize(own.view(view), alive.discard, k)
            alive.add(k)
            yield own
            del own
            most = max(most, len(alive))

    load(name)(chunks())
    assert most <= 2


@pytest.mark.parametrize("name", metrics.extractor_names())
def test_an_undeclared_view_is_a_bug_that_says_so(name: str) -> None:
    with pytest.raises(ValueError, match="was not made"):
        load(name)([ClipViews(index=np.arange(2), fps=25.0)])


def test_names_are_taken_once_and_misspelt_ones_get_a_hint() -> None:
    with pytest.raises(ValueError, match="'ssim/gaussian' is registered already"):
        register(metrics.metric("ssim/gaussian"))
    with pytest.raises(KeyError, match="Did you mean 'ssim/gaussian'"):
        metrics.metric("ssim/gausian")
    with pytest.raises(KeyError, match=r"no extractor is named 'zzz'.*Known: "):
        metrics.extractor("zzz")
    assert all(isinstance(metrics.metric(name), Metric) for name in metrics.names())


def test_the_registry_is_light() -> None:
    """Listing metrics must not load a framework."""
    code = (
        "import sys, metrics; metrics.names(); metrics.extractor('fid-inception-tf1');"
        "print(*(m for m in ('torch', 'onnxruntime', 'cv2', 'scipy') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
