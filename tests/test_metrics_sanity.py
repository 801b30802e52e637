"""What everybody expects of the metrics: a picture that is blurred is less sharp, a shifted voice is late, and so on.

On films of the demo dataset and photographs, and on the real clips where they are.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import realclips
from networks import load
from skimage import data

import metrics
from metrics.base import ClipViews, Features
from pipelines.datasets import demo

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated:DeprecationWarning")
SIGMAS = (0.5, 1.0, 2.0)


def plain(frames: np.ndarray, real: np.ndarray | None = None) -> ClipViews:
    index = np.arange(len(frames))
    return ClipViews(index=index, fps=25, frames=frames, real=None if real is None else plain(real))


def score(name: str, *sides: ClipViews) -> float:
    """A clip-level metric of what its extractors make of each of these."""
    metric = metrics.metric(name)
    features = [load(need[1])([side]) for need, side in zip(metric.needs, sides, strict=True)]
    return metric.compute(*features)


def blurred(frames: np.ndarray, sigma: float) -> np.ndarray:
    return np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in frames])


def noisy(frames: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, sigma, frames.shape)
    return (frames + noise).clip(0, 255).round().astype(np.uint8)


def photographs(count: int, size: int = 128) -> np.ndarray:
    return np.stack([data.astronaut()[20 * k : 20 * k + size, 90 + 7 * k : 90 + 7 * k + size] for k in range(count)])


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ClipViews]:
    """Two people of the demo dataset, the first one twice; 32 frames each."""
    root = tmp_path_factory.mktemp("demo")
    found = {}
    one, other = sorted(demo.IDENTITIES)[0], sorted(demo.IDENTITIES)[-1]
    for title, identity, emotion in (("one", one, "neutral"), ("again", one, "happy"), ("other", other, "neutral")):
        job = demo.Job(root, identity, emotion, 1, 1)
        found[title] = realclips.clip(str(demo.render_clip(job)), root / "store")
    return found


@pytest.fixture(scope="module")
def real_people() -> dict[str, ClipViews]:
    """One person of MEAD in two clips, and another."""
    if not realclips.SHARED.exists():
        pytest.skip("no real clips on this machine (../shared/data)")
    return {title: realclips.mead(word) for title, word in (("one", "sad"), ("again", "angry"), ("other", "happy"))}


@pytest.fixture(params=["demo", "real"])
def clips(request: pytest.FixtureRequest) -> dict[str, ClipViews]:
    found: dict[str, ClipViews] = request.getfixturevalue("people" if request.param == "demo" else "real_people")
    return found


# Pictures


@pytest.mark.parametrize("variant", ["asu", "python-cpbd"])
def test_blur_lowers_cpbd(variant: str, clips: dict[str, ClipViews]) -> None:
    for frames in (photographs(2), clips["one"].view("frames")[:1]):
        values = [score(f"cpbd/{variant}", plain(shown)) for shown in (frames, *(blurred(frames, s) for s in SIGMAS))]
        assert all(sharp > soft for sharp, soft in itertools.pairwise(values)), values


@pytest.mark.parametrize("name", ["fid/torch-fidelity", "kid/torch-fidelity"])
def test_blur_raises_the_distance_of_sets(name: str) -> None:
    """More at each step than by a little noise."""
    frames, metric = photographs(3, 64), metrics.metric(name)
    steps = [noisy(frames, 1), *(blurred(frames, sigma) for sigma in SIGMAS)]
    base = features_of(frames)
    values = [metric.compute([features_of(shown)], [base]) for shown in steps]
    assert all(near < far for near, far in itertools.pairwise(values)), values


@cache
def _features(content: bytes, shape: tuple[int, ...]) -> Features:
    frames = np.frombuffer(content, np.uint8).reshape(shape)
    found: Features = load("fid-inception-tf1")([plain(frames)])
    return found


def features_of(frames: np.ndarray) -> Features:
    return _features(frames.tobytes(), frames.shape)


def test_noise_moves_each_pixel_metric_its_way(clips: dict[str, ClipViews]) -> None:
    frames = clips["one"].view("frames")[:2]
    for name, direction in (
        ("psnr/frame-mean", -1),
        ("ssim/gaussian", -1),
        ("ssim/skimage-7x7", -1),
        ("lpips/alex", 1),
        ("lpips/alex-spatial", 1),
    ):
        values = [score(name, plain(noisy(frames, sigma), frames)) for sigma in (0, 4, 12, 40)]
        assert values[0] == {"psnr": 100, "ssim": 1, "lpips": 0}[name.partition("/")[0]]
        assert np.all(np.diff(values) * direction > 0), (name, values)


# Landmarks


def test_noise_on_landmarks(clips: dict[str, ClipViews]) -> None:
    """A face against itself is 0; noise raises distance and jitter; a frozen face does not tremble."""
    clip = clips["one"]
    rng = np.random.default_rng(0)
    shape = clip.view("landmarks").shape

    def shaken(pixels: float) -> ClipViews:
        return replace(clip, landmarks=clip.view("landmarks") + rng.normal(0, pixels, shape).astype(np.float32))

    for name in metrics.names():
        if name.startswith("lmd/"):
            values = [score(name, shaken(pixels), clip) for pixels in (0, 0.5, 1, 2, 4)]
            assert values[0] == 0
            assert np.all(np.diff(values) > 0), name
    values = [score("jitter/landmarks", shaken(pixels)) for pixels in (0, 0.5, 1, 2, 4)]
    assert np.all(np.diff(values) > 0)
    assert score("jitter/landmarks-delta", clip, clip) == 0
    still = replace(clip, landmarks=np.repeat(clip.view("landmarks")[:1], shape[0], axis=0))
    assert score("jitter/landmarks", still) == 0
    assert score("lmd/mouth", still, clip) > 0


# Faces


def test_another_identity_lowers_csim(clips: dict[str, ClipViews]) -> None:
    """By far more than another take of the same person does."""
    parts = {title: take(clip, slice(0, 24, 6)) for title, clip in clips.items()}
    portrait = take(clips["one"], slice(20, 21))
    for name in ("csim/w600k_mbf-to-reference", "f-sim/w600k_mbf"):
        own, again, other = (score(name, parts[title], portrait) for title in ("one", "again", "other"))
        assert own > again > other + 0.15, (name, own, again, other)
    for name in ("csim/w600k_mbf-to-frame", "csim/w600k_mbf-to-mean"):
        own, again, other = (score(name, parts[title], parts["one"]) for title in ("one", "again", "other"))
        assert own > again > other + 0.15, (name, own, again, other)
    assert score("csim/w600k_mbf-to-frame", parts["one"], parts["one"]) == pytest.approx(1, abs=1e-6)


def take(clip: ClipViews, part: slice) -> ClipViews:
    return replace(
        clip, index=clip.index[part], aligned112=clip.view("aligned112")[part], found=clip.view("found")[part]
    )


# Sound


def spoken(clips: dict[str, ClipViews], change: Callable[[np.ndarray], np.ndarray]) -> list[ClipViews]:
    """Each clip with its sound changed, (T, 640) to the same."""
    found = []
    for clip in clips.values():
        wave = clip.view("waveform").reshape(-1, 640)
        found.append(replace(clip, waveform=np.ascontiguousarray(change(wave)).ravel()))
    return found


@pytest.mark.parametrize("shift", [-3, -1, 2, 4])
def test_shifted_sound_moves_the_lag_by_the_shift(people: dict[str, ClipViews], shift: int) -> None:
    """Sound that comes `shift` frames early makes the film late by that much."""
    for clip in people.values():
        wave = clip.view("waveform").reshape(-1, 640)
        early = replace(clip, waveform=np.roll(wave, -shift, axis=0).ravel())
        assert score("av-correlation/lag", early) - score("av-correlation/lag", clip) == shift


@pytest.mark.parametrize("name", ["av-correlation/peak", "av-correlation/zero-lag"])
def test_shuffled_sound_correlates_less(name: str, people: dict[str, ClipViews]) -> None:
    """Frames of the sound in another order, on the mean of the clips; peaks of shuffled sound are chance."""
    orders = [np.random.default_rng(seed).permutation(32) for seed in range(5)]
    own = np.mean([score(name, clip) for clip in people.values()])
    shuffled = [score(name, clip) for order in orders for clip in spoken(people, lambda w, o=order: w[o])]
    assert own > np.mean(shuffled) + 0.1


@pytest.mark.slow
def test_real_sound_shifted_and_shuffled(real: Callable[[str], Path], tmp_path: Path) -> None:
    """In every run test_metrics_avsync.py hears the same clips with their own sound, a later one, and each other's."""
    names = [f"grid/{name}.mpg" for name in ("bbaf2n", "brbk7n", "lbax4n", "swiz3n")]
    clips = {name: realclips.clip(str(real(name)), tmp_path, count=70) for name in names}
    base = clips[names[0]]
    for shift in (-2, 3):
        wave = np.roll(base.view("waveform").reshape(-1, 640), -shift, axis=0)
        moved = score("av-correlation/lag", replace(base, waveform=wave.ravel()))
        assert moved - score("av-correlation/lag", base) == shift
    order = np.random.default_rng(0).permutation(70)
    for name in ("av-correlation/peak", "av-correlation/zero-lag"):
        own = np.mean([score(name, clip) for clip in clips.values()])
        assert own > np.mean([score(name, clip) for clip in spoken(clips, lambda wave: wave[order])]) + 0.1
