"""Each metric on real clips against somebody else's implementation of it, or a plain reading of its definition.

The comparisons that need no real clip stand beside the other tests of their metric.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import cv2
import numpy as np
import pytest
import realclips
import torch
from jax_i3d import with_jax
from networks import load
from parity import CLOSED, NETWORK, REFERENCES, Parity
from PIL import Image
from references import features as seeded_features
from safetensors.numpy import load_file
from scipy import fft, linalg, signal, spatial
from skimage import measure
from skimage import metrics as skimage_metrics

import metrics
from benchmark import weights
from metrics import kernel, landmarks, sharpness, sync
from metrics.base import ClipViews, Features
from metrics.emotion import SEVEN
from metrics.frechet import distance, fit
from metrics.networks import syncnet
from metrics.networks.inception import VARIANTS

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated:DeprecationWarning"),
    pytest.mark.skipif(not realclips.SHARED.exists(), reason="no real clips on this machine (../shared/data)"),
]
FOUR = ["neutral", "happy", "surprised", "angry"]
ON_MEAD = "five MEAD clips, 32 frames each"


@cache
def recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(REFERENCES.read_text())
    return found


@pytest.fixture(scope="module")
def mead() -> dict[str, ClipViews]:
    return {emotion: realclips.mead(emotion) for emotion in realclips.MEAD}


def pair_views(generated: np.ndarray, real: np.ndarray) -> ClipViews:
    index = np.arange(len(generated))
    return ClipViews(index=index, fps=25, frames=generated, real=ClipViews(index=index, fps=25, frames=real))


# Pixels


def skimage_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Of the pixels whose Gaussian window lies inside."""
    options: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    _, full = skimage_metrics.structural_similarity(x, y, data_range=255, channel_axis=2, full=True, **options)
    return float(full[5:-5, 5:-5].mean())


@pytest.mark.parametrize("title", realclips.pairs() if realclips.SHARED.exists() else [])
def test_pixels(parity: Parity, title: str) -> None:
    generated, real = realclips.pairs()[title]
    ours = load("image-pairs")([pair_views(generated, real)])
    others: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
        "psnr/frame-mean": lambda x, y: skimage_metrics.peak_signal_noise_ratio(y, x, data_range=255),
        "ssim/gaussian": skimage_ssim,
        "ssim/skimage-7x7": lambda x, y: skimage_metrics.structural_similarity(x, y, data_range=255, channel_axis=2),
    }
    for name, other in others.items():
        expected = np.mean([other(x, y) for x, y in zip(generated, real, strict=True)])
        value = metrics.metric(name).compute(ours)
        parity(name, against="scikit-image", on=title, ours=value, expected=expected, tolerance=CLOSED)
    for name in ("psnr/frame-mean", "ssim/gaussian"):
        value, expected = metrics.metric(name).compute(ours), np.mean(recorded()[name][title])
        parity(name, against="torchmetrics", on=title, ours=value, expected=expected, tolerance=CLOSED)


@pytest.mark.parametrize("title", realclips.pairs() if realclips.SHARED.exists() else [])
@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips(parity: Parity, net: str, title: str) -> None:
    ours = load(f"lpips-{net}")([pair_views(*realclips.pairs()[title])])
    for name in (f"lpips/{net}", f"lpips/{net}-spatial"):
        value, expected = metrics.metric(name).compute(ours), np.mean(recorded()[name][title])
        parity(name, against="the lpips package", on=title, ours=value, expected=expected, tolerance=NETWORK)


@pytest.mark.parametrize(("net", "published"), [("alex", (0.722, 0.138)), ("vgg", None)])
def test_lpips_examples(parity: Parity, net: str, published: tuple[float, float] | None) -> None:
    """The three pictures of the authors' repository: printed for AlexNet; VGG's are another implementation's."""
    pictures = (
        np.asarray(Image.open(realclips.SHARED / f"lpips_examples/ex_{n}.png").convert("RGB"))
        for n in ("p0", "p1", "ref")
    )
    p0, p1, ref = pictures
    ours = load(f"lpips-{net}")([pair_views(np.stack([p0, p1]), np.stack([ref, ref]))])["lpips"]
    if published is not None:
        given: dict[str, Any] = {"against": "its authors (3 digits)", "expected": published, "tolerance": 1e-3}
    else:
        given = {"against": "the lpips package", "expected": (0.568613, 0.421664), "tolerance": NETWORK}
    parity(f"lpips/{net}", on="the authors' examples", ours=ours, **given)


# Sharpness


def widths_by_definition(image: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Marziliano's widths as python-cpbd measures them, edge by edge."""
    down, across = np.gradient(image)
    widths = np.zeros(image.shape, int)
    for row, column in np.argwhere(edges[1:-1, 1:-1]) + 1:
        x, y = across[row, column], down[row, column]
        angle = 45 * round(math.degrees(math.atan2(y, x)) / 45) if x else 0
        if angle not in (0, 180, -180):
            continue
        rising = angle == 0
        for side in (-1, 1):
            reached = column + side
            steps = 0
            while 0 <= reached + side < image.shape[1] and steps < 100:
                change = (image[row, reached + side] - image[row, reached]) * side
                if change <= 0 if rising else change >= 0:
                    break
                reached, steps = reached + side, steps + 1
            widths[row, column] += 1 + steps
    return widths


def canny_by_definition(image: np.ndarray) -> np.ndarray:
    """MATLAB's, pixel by pixel: four ranges of direction, each with its two interpolated neighbours."""
    offsets = np.arange(-7.5, 8)
    smooth = np.exp(-(offsets**2) / 4)
    smooth /= smooth.sum()
    slope = np.gradient(smooth)
    slope /= slope[slope > 0].sum()

    def along(array: np.ndarray, taps: np.ndarray, axis: int) -> np.ndarray:
        length = array.shape[axis]
        places = [np.clip(np.arange(length) + k - 7, 0, length - 1) for k in range(16)]
        return sum(tap * array.take(place, axis) for tap, place in zip(taps, places, strict=True))

    gx, gy = along(along(image, smooth, 0), slope, 1), along(along(image, smooth, 1), slope, 0)
    size = np.sqrt(gx**2 + gy**2)
    size /= size.max()
    counts = np.zeros(64)
    for value in size.ravel():
        counts[math.floor(value * 63 + 0.5)] += 1
    high = (np.argmax(counts.cumsum() > 0.7 * image.size) + 1) / 64
    kept = np.zeros(image.shape, bool)
    for r, c in np.argwhere(size[1:-1, 1:-1] > 0.4 * high) + 1:
        x, y, here = gx[r, c], gy[r, c], size[r, c]
        if (y <= 0 and x > -y) or (y >= 0 and x < -y):
            d, near, far = abs(y / x), (0, 1), (-1, 1)
        elif (x > 0 and -y >= x) or (x < 0 and -y <= x):
            d, near, far = abs(x / y), (-1, 0), (-1, 1)
        elif (x <= 0 and x > y) or (x >= 0 and x < y):
            d, near, far = abs(x / y), (-1, 0), (-1, -1)
        else:
            d, near, far = abs(y / x), (0, -1), (-1, -1)
        one, other = (
            size[r + s * near[0], c + s * near[1]] * (1 - d) + size[r + s * far[0], c + s * far[1]] * d for s in (1, -1)
        )
        kept[r, c] = here >= one and here >= other
    labels = measure.label(kept, connectivity=2)
    return np.isin(labels, np.setdiff1d(labels[kept & (size > high)], [0]))


def sobel_by_definition(image: np.ndarray) -> np.ndarray:
    """MATLAB's edge(image, 'sobel', 2, 'vertical')."""
    bx = np.asarray(cv2.Sobel(image, cv2.CV_64F, 1, 0, borderType=cv2.BORDER_REPLICATE)) / 8
    by = np.asarray(cv2.Sobel(image, cv2.CV_64F, 0, 1, borderType=cv2.BORDER_REPLICATE)) / 8
    height, width = image.shape
    found = np.zeros(image.shape, bool)
    for r, c in np.argwhere(bx**2 > 4):
        here = bx[r, c] ** 2
        left, right = bx[r, max(c - 1, 0)] ** 2, bx[r, min(c + 1, width - 1)] ** 2
        above, below = bx[max(r - 1, 0), c] ** 2, bx[min(r + 1, height - 1), c] ** 2
        steep = abs(bx[r, c]) >= abs(by[r, c]) - 100 * np.finfo(float).eps
        found[r, c] = (steep and left <= here > right) or (above <= here > below)
    return found


def cpbd_by_definition(image: np.ndarray) -> float:
    canny, widths = canny_by_definition(image), widths_by_definition(image, sobel_by_definition(image))
    chances = []
    for top in range(0, image.shape[0] - 63, 64):
        for left in range(0, image.shape[1] - 63, 64):
            block = np.s_[top : top + 64, left : left + 64]
            if canny[block].sum() <= 0.002 * 64 * 64:
                continue
            jnb = 5 if int(np.ptp(image[block])) <= 50 else 3
            chances += [1 - math.exp(-abs((w / jnb) ** 3.6)) for w in widths[block][widths[block] != 0]]
    histogram = np.zeros(101)
    for chance in chances:
        histogram[round(100 * chance)] += 1
    return float(histogram[:64].sum() / len(chances))


def test_cpbd(parity: Parity) -> None:
    picture = np.loadtxt(realclips.SHARED / "cpbd/reference_img1_input.txt", delimiter=",")
    title = "the release's picture"
    asu, ours = "cpbd/asu", sharpness.asu(picture)
    given: dict[str, Any] = {"against": "its authors (4 digits)", "expected": 0.1349, "tolerance": 5e-4}
    parity(asu, on=title, ours=ours, **given)
    plain = cpbd_by_definition(picture)
    parity(asu, against="a plain reading of MATLAB's", on=title, ours=ours, expected=plain, tolerance=CLOSED)
    for title, (generated, _) in realclips.pairs().items():
        frames = load("cpbd-asu")([ClipViews(index=np.arange(1), fps=25, frames=generated[:1])])
        grey = np.asarray(Image.fromarray(generated[0]).convert("L"), float)
        value, plain = metrics.metric(asu).compute(frames), cpbd_by_definition(grey)
        parity(asu, against="a plain reading of MATLAB's", on=title, ours=value, expected=plain, tolerance=CLOSED)
        frames = load("cpbd-python-cpbd")([ClipViews(index=np.arange(len(generated)), fps=25, frames=generated)])
        value = metrics.metric("cpbd/python-cpbd").compute(frames)
        expected = np.mean(recorded()["cpbd/python-cpbd"][title])
        parity("cpbd/python-cpbd", against="python-cpbd", on=title, ours=value, expected=expected, tolerance=CLOSED)


# Landmarks


def points_of(clip: ClipViews) -> list[np.ndarray | None]:
    every = clip.view("landmarks")[:, landmarks.POINTS, :2].astype(float)
    return [None if np.isnan(points).any() else points for points in every]


def test_landmarks(parity: Parity, mead: dict[str, ClipViews]) -> None:
    """M030 sad beside M030 angry: distances point by point, with math.dist."""
    one, other = points_of(mead["sad"]), points_of(mead["angry"])
    one[7] = other[20] = None  # frames without a face
    holes = {"sad": [7], "angry": [20]}
    stored = {}
    for emotion in ("sad", "angry"):
        marks = mead[emotion].view("landmarks").copy()
        marks[holes[emotion]] = np.nan
        found = ~np.isnan(marks[:, 0, 0])
        views = ClipViews(index=mead[emotion].index, fps=25, landmarks=marks, found=found)
        stored[emotion] = load("landmarks")([views])
    totals: dict[str, list[float]] = {}
    for a, b in zip(one, other, strict=True):
        if a is None or b is None:
            continue
        eyes = math.dist(b[36], b[45])
        for part, chosen in (("face", range(68)), ("mouth", range(48, 68))):
            shift = [sum(p[k][d] for k in chosen) / len(chosen) for p in (a, b) for d in (0, 1)]
            plain = sum(math.dist(a[k], b[k]) for k in chosen) / len(chosen)
            moved = [math.dist(a[k] - shift[:2], b[k] - shift[2:]) for k in chosen]
            totals.setdefault(f"lmd/{part}", []).append(plain)
            totals.setdefault(f"lmd/{part}-centred", []).append(sum(moved) / len(chosen))
            totals.setdefault(f"lmd/{part}-normalised", []).append(100 * plain / eyes)
    expected = {name: sum(values) / len(values) for name, values in totals.items()}

    def bends(clip: list[np.ndarray | None]) -> float:
        found = []
        for a, b, c in zip(clip, clip[1:], clip[2:], strict=False):
            if a is not None and b is not None and c is not None:
                found += [math.hypot(*(c[k] - b[k] - (b[k] - a[k]))) for k in range(68)]
        return sum(found) / len(found)

    expected["jitter/landmarks"] = bends(one)
    expected["jitter/landmarks-delta"] = abs(bends(one) - bends(other))
    expected["faces/missed"] = 100 * sum(points is None for points in one) / len(one)
    for name, value in expected.items():
        sides = [stored["angry" if side == "real" else "sad"] for side, _ in metrics.metric(name).needs]
        ours = metrics.metric(name).compute(*sides)
        on = "MEAD M030, sad and angry"
        parity(name, against="a plain reading", on=on, ours=ours, expected=value, tolerance=CLOSED)


# Faces


def test_csim(parity: Parity, mead: dict[str, ClipViews]) -> None:
    """OpenCV's own runtime on the same file, then NumPy and SciPy."""
    arcface = load("arcface-w600k_mbf")
    network = cv2.dnn.readNetFromONNX(str(weights.path("arcface-w600k-mbf", fetch=False)))
    ours, theirs = {}, {}
    for emotion, start in (("sad", 0), ("angry", 0), ("disgusted", 20)):
        faces = mead[emotion].view("aligned112")[start : start + 12]
        ours[emotion] = arcface([ClipViews(index=np.arange(12), fps=25, aligned112=faces, found=np.ones(12, bool))])
        theirs[emotion] = []
        for face in faces:
            network.setInput(cv2.dnn.blobFromImage(face, 1 / 127.5, (112, 112), (127.5,) * 3, swapRB=False))
            theirs[emotion].append(network.forward()[0].astype(float))

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return 1 - float(spatial.distance.cosine(a, b))

    for generated, real in (("sad", "angry"), ("sad", "disgusted")):
        fake, true = theirs[generated], theirs[real]
        portrait = true[0]
        centre = np.mean([vector / math.sqrt(vector @ vector) for vector in true], axis=0)
        to_portrait, own = [cosine(v, portrait) for v in fake], [cosine(v, portrait) for v in true]
        f_sim, f_sim_real = (float(np.mean([max(0.0, c) for c in values])) for values in (to_portrait, own))
        expected = {
            "csim/w600k_mbf-to-reference": float(np.mean(to_portrait)),
            "csim/w600k_mbf-to-frame": float(np.mean([cosine(a, b) for a, b in zip(fake, true, strict=True)])),
            "csim/w600k_mbf-to-mean": float(np.mean([cosine(v, centre) for v in fake])),
            "f-sim/w600k_mbf": f_sim,
            "f-sim-delta/w600k_mbf": abs(f_sim - f_sim_real),
        }
        first = {key: array[:1] for key, array in ours[real].items()}
        sides = {"generated": ours[generated], "real": ours[real], "reference": first}
        for name, value in expected.items():
            computed = metrics.metric(name).compute(*(sides[side] for side, _ in metrics.metric(name).needs))
            on = f"MEAD, {'the same person' if real == 'angry' else 'two people'}"
            parity(name, against="OpenCV's dnn, SciPy", on=on, ours=computed, expected=value, tolerance=NETWORK)
            for other in ("arcface-r50", "arcface-r100"):
                same = metrics.metric(name.replace("w600k_mbf", other))
                computed = same.compute(*(sides[side] for side, _ in same.needs))
                given: dict[str, Any] = {"part": "cosines, of w600k_mbf's embeddings", "against": "SciPy", "on": on}
                parity(same.name, ours=computed, expected=value, tolerance=NETWORK, **given)


def test_emotion_scores(parity: Parity, mead: dict[str, ClipViews]) -> None:
    """The sums, on what the networks give; the networks themselves: test_metrics_emotion.py."""
    asked_of = {"happy": "happy", "surprised": "surprised", "angry": "angry", "sad": "neutral", "disgusted": "happy"}
    columns = ["neutral", "angry", "disgusted", "fear", "happy", "sad", "surprised"]
    assert sorted(columns) == sorted(SEVEN)
    for network in ("fer-cnn", "mini-xception"):
        clips = {clip: load(network)([views]) for clip, views in mead.items()}
        asked = {clip: {"emotion": np.array(word), "identity": np.array("")} for clip, word in asked_of.items()}

        def share(clip: str, word: str, among: list[str], clips: dict[str, Features] = clips) -> float:
            """Mean over frames of p(word) / p(among)."""
            place = SEVEN.index
            rows = [row for row, found in zip(clips[clip]["probability"], clips[clip]["found"], strict=True) if found]
            return sum(float(row[place(word)]) / sum(float(row[place(w)]) for w in among) for row in rows) / len(rows)

        def macro(words: list[str], score: Callable[[str, str], float]) -> float:
            by = [[score(clip, word) for clip, word in asked_of.items() if word == wanted] for wanted in words]
            return sum(sum(values) / len(values) for values in by) / len(by)

        def hit(clip: str, word: str, among: list[str], share: Any = share) -> float:
            return float(max(among, key=lambda w: share(clip, w, among)) == word)

        def seven(clip: str, word: str, share: Any = share) -> float:
            """Stored as float32, the seven do not sum to 1 exactly: nothing is divided by their sum."""
            return share(clip, word, columns) if word else 0.0

        expected = {
            "emo-score": macro(FOUR, seven),
            "emo-score-neutral": macro(FOUR[:1], seven),
            "emo-score-non-neutral": macro(FOUR[1:], seven),
            "emo-score-4way": macro(FOUR, lambda clip, word, share=share: share(clip, word, FOUR)),
            "emo-accuracy": macro(FOUR, lambda clip, word, hit=hit: hit(clip, word, columns)),
            "emo-accuracy-4way": macro(FOUR, lambda clip, word, hit=hit: hit(clip, word, FOUR)),
        }
        for family, value in expected.items():
            metric = metrics.metric(f"{family}/{network}")
            chosen = [clip for clip, word in asked_of.items() if word in (metric.emotions or ())]
            computed = metric.compute([clips[clip] for clip in chosen], [asked[clip] for clip in chosen])
            parity(metric.name, against="a plain reading", on=ON_MEAD, ours=computed, expected=value, tolerance=CLOSED)
        ours = [metrics.metric(f"emo-prob/{network}").compute(clips[c], asked[c]) for c in asked_of]
        plain = [seven(clip, word) for clip, word in asked_of.items()]
        name = f"emo-prob/{network}"
        parity(name, against="a plain reading", on=ON_MEAD, ours=ours, expected=plain, tolerance=CLOSED)


def test_clusters(parity: Parity, mead: dict[str, ClipViews]) -> None:
    """Thirds of the two clips of M030 and of those of W036 and W023, taken for one person; SciPy's distances."""
    for network in ("fer-cnn", "mini-xception"):
        clips, asked = [], []
        for who, words in (("M030", ("sad", "angry")), ("W", ("happy", "surprised"))):
            for word in words:
                stored = load(network)([mead[word]])
                for third in np.array_split(np.arange(realclips.COUNT), 3):
                    clips.append({key: array[third] for key, array in stored.items()})
                    asked.append({"identity": np.array(who), "emotion": np.array(word)})
        sets: dict[tuple[str, str], list[np.ndarray]] = {}
        for clip, wanted in zip(clips, asked, strict=True):
            key = str(wanted["identity"]), str(wanted["emotion"])
            sets.setdefault(key, []).append(clip["embedding"][clip["found"]].astype(float).mean(axis=0))
        centroid, pairwise = [], []
        for (who, word), members in sets.items():
            (others,) = (found for (whose, which), found in sets.items() if whose == who and which != word)
            centre, other = np.mean(members, axis=0), np.mean(others, axis=0)
            width = np.mean([spatial.distance.euclidean(m, centre) for m in members])
            centroid.append(spatial.distance.euclidean(centre, other) / width)
            pairwise.append(spatial.distance.cdist(members, others).mean() / spatial.distance.pdist(members).mean())
        for form, values in (("centroid", centroid), ("pairwise", pairwise)):
            name = f"cluster-strength/{network}-{form}"
            on, ours = "thirds of four MEAD clips", metrics.metric(name).compute(clips, asked)
            parity(name, against="SciPy", on=on, ours=ours, expected=np.mean(values), tolerance=CLOSED)


# Sound


def test_av_correlation(parity: Parity, mead: dict[str, ClipViews]) -> None:
    for clip in mead.values():
        activity = load("av-activity")([clip])
        mouth, voice = [], []
        window = signal.get_window("hann", 640, fftbins=False)
        hertz = fft.rfftfreq(640, 1 / 16_000)
        for k, points in enumerate(clip.view("landmarks")[..., :2].astype(float)):
            lips = [math.dist(points[a], points[b]) for a, b in ((13, 14), (82, 87), (312, 317), (81, 178), (311, 402))]
            mouth.append(sum(lips) / 5 / math.dist(points[10], points[152]))
            spectrum = fft.rfft(clip.view("waveform")[k * 640 : (k + 1) * 640].astype(float) * window)
            band = (hertz >= 1000) & (hertz <= 3000)
            power = 2 * (np.abs(spectrum[band]) ** 2).sum() / 640**2  # mean square, by Parseval
            voice.append(math.sqrt(math.sqrt(power)))
        flat_mouth, flat_voice = signal.detrend(mouth), signal.detrend(voice)
        by_lag = {}
        for lag in range(-5, 6):
            both = [(flat_mouth[i + lag], flat_voice[i]) for i in range(len(mouth)) if 0 <= i + lag < len(mouth)]
            by_lag[lag] = float(np.corrcoef(np.array(both).T)[0, 1])
        best = max(by_lag, key=lambda lag: by_lag[lag])
        expected = {"peak": by_lag[best], "zero-lag": by_lag[0], "lag": best}
        for name, value in expected.items():
            ours = metrics.metric(f"av-correlation/{name}").compute(activity)
            full = f"av-correlation/{name}"
            parity(full, against="NumPy, SciPy", on=ON_MEAD, ours=ours, expected=value, tolerance=CLOSED)


def test_sound_and_scenes_of_syncnet(parity: Parity) -> None:
    for name, expected in recorded()["mfcc"].items():
        ours = syncnet.mfcc(realclips.samples(name))[::10]
        given: dict[str, Any] = {"part": "MFCC", "against": "python_speech_features", "on": "speech"}
        parity("lse-*", ours=ours, expected=expected, tolerance=CLOSED, **given)
    cuts = sync.SceneCuts()
    ours = [k for k, frame in enumerate(realclips.spliced()) if cuts(frame)]
    given = {"part": "scene cuts", "against": "PySceneDetect", "on": "four films spliced"}
    for variant in ("syncnet-python*", "latentsync"):
        parity(f"lse-*/{variant}", ours=ours, expected=recorded()["cuts"], tolerance=0.0, **given)


# Sets


def by_square_root(a: np.ndarray, b: np.ndarray) -> float:
    """The definition with SciPy's matrix square root, in the span of the features, which loses nothing."""
    basis = np.linalg.qr(np.concatenate([a, b]).T.astype(float))[0]
    a, b = a @ basis, b @ basis
    one, other = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = linalg.sqrtm(one @ other).real
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(one + other - 2 * root))


def resized_tf1(channel: np.ndarray) -> np.ndarray:
    """TF1's bilinear resizing: output i samples the input at i * in / out."""
    height, width = channel.shape
    y, x = np.arange(299) * height / 299, np.arange(299) * width / 299
    top, left = y.astype(int), x.astype(int)
    down, along = (y - top)[:, None], x - left
    bottom, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    upper = channel[top][:, left] * (1 - along) + channel[top][:, right] * along
    lower = channel[bottom][:, left] * (1 - along) + channel[bottom][:, right] * along
    return upper * (1 - down) + lower * down


def resized_pil(channel: np.ndarray, how: Image.Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(channel.astype(np.float32)).resize((299, 299), how))


RESIZING: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "torch-fidelity": ("NumPy", lambda c: (resized_tf1(c) - 128) / 128),
    "pytorch-fid": (
        "OpenCV",
        lambda c: cv2.resize((c / 255).astype(np.float32), (299, 299), interpolation=cv2.INTER_LINEAR) * 2 - 1,
    ),
    "clean-fid": ("PIL", lambda c: (resized_pil(c, Image.Resampling.BICUBIC).clip(0, 255) - 128) / 128),
    "torchmetrics": ("PIL", lambda c: (resized_pil(c, Image.Resampling.BILINEAR) - 128) / 128),
}
INCEPTION = {"torch-fidelity": "tf1", "pytorch-fid": "pytorch", "clean-fid": "clean", "torchmetrics": "torchmetrics"}


@cache
def sides(count: int) -> dict[str, np.ndarray]:
    names = {"generated": "generated/edtalk/demo_EDTalk_A.mp4", "real": "hdtf/clips/WDA_KatieHill_000.mp4"}
    return {side: realclips.frames(name, count, 20) for side, name in names.items()}


@cache
def inception(variant: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Features of both sides: ours, and those of pictures that were resized by another program."""
    network = torch.jit.load(weights.path("fid-inception", fetch=False)).eval()
    found = {}
    for side, frames in sides(5).items():
        ours = load(f"fid-inception-{INCEPTION[variant]}")(
            [ClipViews(index=np.arange(len(frames)), fps=25, frames=frames)]
        )["features"]
        resize = RESIZING[variant][1]
        pictures = np.stack([[resize(frame[..., c].astype(float)) for c in range(3)] for frame in frames])
        with torch.inference_mode():
            found[side] = ours, network(torch.from_numpy(pictures).float()).numpy()
    return found


@pytest.mark.parametrize("variant", RESIZING)
def test_fid_preprocessing(parity: Parity, variant: str) -> None:
    frames = realclips.pairs()["EDTalk, two of its runs"][0][:1]
    prepare = VARIANTS[f"fid-inception-{INCEPTION[variant]}"]
    ours = prepare(torch.from_numpy(frames).permute(0, 3, 1, 2).float())[0].numpy()
    against, resize = RESIZING[variant]
    expected = np.stack([resize(frames[0, ..., c].astype(float)) for c in range(3)])
    given: dict[str, Any] = {"part": "preprocessing", "against": against, "on": "an EDTalk frame"}
    parity(f"fid/{variant}", ours=ours, expected=expected, tolerance=NETWORK, **given)


@pytest.mark.parametrize(
    "variant", ["torch-fidelity", *(pytest.param(name, marks=pytest.mark.slow) for name in list(RESIZING)[1:])]
)
def test_fid(parity: Parity, variant: str) -> None:
    load(f"fid-inception-{INCEPTION[variant]}")
    (fake, fake_other), (real, real_other) = (inception(variant)[side] for side in ("generated", "real"))
    name, against = f"fid/{variant}", f"{RESIZING[variant][0]}'s resizing, SciPy's sqrtm"
    on = "EDTalk and HDTF, 5 frames each"
    ours = metrics.metric(name).compute([{"features": fake}], [{"features": real}])
    parity(name, against=against, on=on, ours=ours, expected=by_square_root(fake_other, real_other), tolerance=NETWORK)
    given: dict[str, Any] = {"part": "distance", "against": "SciPy's sqrtm", "on": on}
    parity(name, ours=ours, expected=by_square_root(fake, real), tolerance=CLOSED, **given)


def test_kid(parity: Parity) -> None:
    load("fid-inception-tf1")
    (fake, fake_other), (real, real_other) = (inception("torch-fidelity")[side] for side in ("generated", "real"))
    ours = metrics.metric("kid/torch-fidelity").compute([{"features": fake}], [{"features": real}])

    def by_pairs(x: np.ndarray, y: np.ndarray) -> float:
        def k(a: np.ndarray, b: np.ndarray) -> float:
            return (float(a @ b) / 2048 + 1) ** 3

        x, y, every = x.astype(float), y.astype(float), range(len(x))
        within = [k(s[i], s[j]) for s in (x, y) for i in every for j in every if i != j]
        across = [k(x[i], y[j]) for i in every for j in every]
        return 2 * sum(within) / len(within) - 2 * sum(across) / len(across)

    name, on = "kid/torch-fidelity", "EDTalk and HDTF, 5 frames each"
    expected = by_pairs(fake_other, real_other)
    parity(name, against="NumPy's resizing, pair by pair", on=on, ours=ours, expected=expected, tolerance=NETWORK)


def test_set_distances_of_torchmetrics(parity: Parity) -> None:
    a, b = seeded_features()
    given: dict[str, Any] = {"part": "distance", "against": "torchmetrics", "on": "seeded features"}
    for family in ("fid", "fvd"):
        expected = recorded()["frechet"]
        parity(f"{family}/*", ours=distance(fit([a]), fit([b])), expected=expected, tolerance=CLOSED, **given)
    ours = kernel.polynomial_mmd(a[:150], b)
    parity("kid/torch-fidelity", ours=ours, expected=recorded()["mmd"], tolerance=CLOSED, **given)


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "count"), [("i3d-16f", 18), ("i3d-all-frames", 20)])
def test_fvd(parity: Parity, variant: str, count: int) -> None:
    """OpenCV resizes, JAX runs the network, SciPy takes the root."""
    network = load(variant)
    arrays = load_file(weights.path("i3d-kinetics-400", fetch=False))
    films = {
        "generated": ("generated/edtalk/demo_EDTalk_A.mp4", "generated/edtalk/demo_EDTalk_lip_pose_V.mp4"),
        "real": ("hdtf/clips/WDA_KatieHill_000.mp4", "talkvid/10/gt.mp4"),
    }
    ours: dict[str, list[Features]] = {side: [] for side in films}
    theirs: dict[str, list[np.ndarray]] = {side: [] for side in films}
    for side, names in films.items():
        for name in names:
            for start in (0, 50):
                frames = realclips.frames(name, count, 1, start)
                ours[side].append(network([ClipViews(index=np.arange(count), fps=25, frames=frames)]))
                window = frames[(count - 16) // 2 :][:16] if variant == "i3d-16f" else frames
                resized = [cv2.resize(frame.astype(np.float32), (224, 224)) for frame in window]
                theirs[side].append(with_jax(arrays, (np.stack(resized) / 127.5 - 1).astype(np.float32)))
    name, on = f"fvd/{variant}", "EDTalk against HDTF and TalkVid, 4 clips a side"
    value = metrics.metric(name).compute(ours["generated"], ours["real"])
    expected = by_square_root(np.stack(theirs["generated"]), np.stack(theirs["real"]))
    against = "OpenCV's resizing, JAX, SciPy's sqrtm"
    parity(name, against=against, on=on, ours=value, expected=expected, tolerance=NETWORK)
    features = [np.concatenate([clip["features"] for clip in ours[side]]) for side in ("generated", "real")]
    given: dict[str, Any] = {"part": "distance", "against": "SciPy's sqrtm", "on": on}
    parity(name, ours=value, expected=by_square_root(*features), tolerance=CLOSED, **given)
