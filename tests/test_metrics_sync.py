"""SyncNet against the seeded fixture, its MFCC, tracks, crops and distances against plain readings of the reference."""

from __future__ import annotations

import importlib
import json
import math
import pickle
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from parity import CLOSED, NETWORK, Parity
from scipy.interpolate import interp1d
from scipy.signal import medfilt
from skimage import data

from metrics import library, metric, sync
from metrics.base import ClipViews, MetricError, Weights
from metrics.networks import s3fd, syncnet
from metrics.networks.syncnet import SyncNet
from pipelines import media

FIXTURES = Path(__file__).resolve().parents[2] / "shared" / "fixtures"
SEVERAL = [HealthCheck.function_scoped_fixture]  # `parity` only takes notes
TRACKED = ("lse-*/syncnet-python*", "lse-*/latentsync", "lse-*/bench")
CODECS = {"recode": media.recode, "recode_audio": media.recode_audio}


def seeded(network: torch.nn.Module, path: Path, gain: float = 2**0.5) -> Weights:
    """Weights of about the right scale, the same on every machine."""
    rng = np.random.default_rng(0)
    state = OrderedDict()
    for name, tensor in network.state_dict().items():
        shape = tuple(tensor.shape)
        if len(shape) > 1:
            # S3FD's offsets are coded to be of order 1; larger ones make boxes without an area.
            values = rng.standard_normal(shape) * gain / math.sqrt(math.prod(shape[1:]))
            values *= 0.02 if name.startswith("loc") else 1
        elif name.endswith(("running_var", "weight")):
            values = 0.5 + rng.random(shape)
        else:
            values = 0.1 * rng.standard_normal(shape)
        state[name] = torch.zeros_like(tensor) if not shape else torch.from_numpy(values.astype(np.float32))
    torch.save(state, path)
    return Weights(path, "ab" * 32)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Weights]:
    folder = tmp_path_factory.mktemp("weights")
    return {
        "syncnet-v2": seeded(syncnet.build(), folder / "syncnet.pth"),
        "s3fd": seeded(s3fd.build(), folder / "s3fd.pth"),
    }


def extractor(name: str, weights: dict[str, Weights], options: dict[str, Any] | None = None) -> sync.SyncFeatures:
    (variant,) = (variant for variant in sync.VARIANTS if variant.name == name)
    networks = weights if variant.faces == "s3fd" else {"syncnet-v2": weights["syncnet-v2"]}
    return sync.SyncFeatures(variant, networks, CODECS if options is None else options)


def voice(count: int) -> np.ndarray:
    time = np.arange(count * 640) / 16_000
    buzz = np.sign(np.sin(2 * np.pi * 120 * time)) * (1 + np.sin(2 * np.pi * 4 * time))
    return (0.2 * buzz + 0.01 * np.random.default_rng(1).standard_normal(len(time))).astype(np.float32)


def clip(count: int, size: int = 224, face: tuple[float, float, float] | None = None) -> ClipViews:
    """A photograph that slides, with sound; `face` (x, y, half side) is where landmarks lie in frame 0."""
    picture = cv2.resize(data.astronaut()[:300, 100:400], (size + 2 * count, size))
    points = None
    if face is not None:
        x, y, half = face
        unit = np.random.default_rng(0).uniform(-1, 1, (478, 3))
        unit[:2, :2] = ((-1, -1), (1, 1))
        moved = np.zeros((count, 478, 3)) + unit * half + (x, y, 0)
        moved[..., 0] -= np.arange(count)[:, None]
        points = moved.astype(np.float32)
    return ClipViews(
        index=np.arange(count),
        fps=25.0,
        frames=np.stack([picture[:, k : k + size] for k in range(count)]),
        landmarks=points,
        waveform=voice(count),
        sample_rate=16_000,
    )


def chunks(whole: ClipViews, size: int) -> Iterator[ClipViews]:
    for start in range(0, len(whole.index), size):
        part = slice(start, start + size)
        yield replace(
            whole,
            index=whole.index[part],
            frames=whole.view("frames")[part],
            landmarks=None if whole.landmarks is None else whole.landmarks[part],
            waveform=whole.view("waveform")[start * 640 : (start + size) * 640],
        )


# The network


@pytest.fixture
def seeded_fill(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """How the weights of the fixture are made."""
    if not FIXTURES.exists():
        pytest.skip("the fixtures are not on this machine (../shared/fixtures)")
    monkeypatch.syspath_prepend(str(FIXTURES))
    return importlib.import_module("seeded_fill")


@pytest.fixture
def of_fixture(seeded_fill: ModuleType, tmp_path: Path) -> tuple[SyncNet, dict[str, Any]]:
    """The network with the seeded weights, and what the published code gives with them."""
    state = seeded_fill.fill(syncnet.build().state_dict(), "syncnet", math.sqrt(2))
    for name, values in np.load(FIXTURES / "syncnet" / "bn_stats.npz").items():
        state[name] = torch.from_numpy(values)
    torch.save(state, tmp_path / "seeded.pth")
    expected = json.loads((FIXTURES / "syncnet" / "expected.json").read_text())
    shapes = {name: list(tensor.shape) for name, tensor in syncnet.build().state_dict().items()}
    assert shapes == expected["state_dict_shapes"]
    return SyncNet(Weights(tmp_path / "seeded.pth", "0" * 64)), expected["clip"]


def test_the_ends_of_the_seeded_fixture(
    real: Callable[[str], Path], seeded_fill: ModuleType, of_fixture: tuple[SyncNet, dict[str, Any]]
) -> None:
    """All of the sound, of the pictures the first window and the last; the other windows are of the slow tests."""
    (network, want), path = of_fixture, real("syncnet/example.avi")
    frames = list(media.read_frames(path))
    cepstra = syncnet.mfcc(syncnet.to_int16(media.read_audio(path)))
    for name, array in (("mfcc", cepstra.T), ("aud_feat", network.voices(cepstra, 312))):
        found = seeded_fill.summary(torch.from_numpy(np.ascontiguousarray(array)))
        for key, value in want[name].items():
            np.testing.assert_allclose(found[key], value, atol=1e-4, err_msg=f"{name} {key}")
    [first], [last] = network.lips(iter(frames[:5])), network.lips(iter(frames[311:316]))
    np.testing.assert_allclose(first[:8], want["lip_feat"]["first8"], atol=1e-4)
    np.testing.assert_allclose(last[-8:], want["lip_feat"]["last8"], atol=1e-4)


@pytest.mark.slow
def test_the_seeded_fixture(
    real: Callable[[str], Path],
    seeded_fill: ModuleType,
    of_fixture: tuple[SyncNet, dict[str, Any]],
    parity: Parity,
) -> None:
    """All intermediates of the published code on the published clip: 1e-4, float32 sums in another order."""
    (network, want), path = of_fixture, real("syncnet/example.avi")
    frames = list(media.read_frames(path))
    samples = syncnet.to_int16(media.read_audio(path))
    assert len(frames) == 317
    cepstra = syncnet.mfcc(samples)
    lips = network.lips(iter(frames))[:312]
    voices = network.voices(cepstra, 312)
    for name, array in (("mfcc", cepstra.T), ("lip_feat", lips), ("aud_feat", voices)):
        found = seeded_fill.summary(torch.from_numpy(np.ascontiguousarray(array)))
        for key, value in want[name].items():
            np.testing.assert_allclose(found[key], value, atol=1e-4, err_msg=f"{name} {key}")
    means = syncnet.distances(lips, voices).mean(axis=0)
    np.testing.assert_allclose(means, want["mdist"], atol=1e-4)
    features = {
        "distances": syncnet.distances(lips, voices).astype(np.float32),
        "windows": np.array([312]),
        "first": np.array([0]),
        "frames": np.array([317]),
        "boxes": np.tile(np.float32([0, 0, 224, 224]), (317, 1)),
    }
    assert metric("lse-offset/cropped").compute(features) == want["offset"]
    assert metric("lse-d/cropped").compute(features) == pytest.approx(want["min_dist"], abs=1e-4)
    assert metric("lse-c/cropped").compute(features) == pytest.approx(want["confidence"], abs=1e-4)
    assert metric("lse-d-zero/cropped").compute(features) == pytest.approx(want["mdist"][15], abs=1e-4)
    rows = {"lse-offset": "offset", "lse-d": "min_dist", "lse-c": "confidence"}
    scores = {family: want[key] for family, key in rows.items()} | {"lse-d-zero": want["mdist"][15]}
    given = {"part": "seeded weights", "against": "syncnet_python", "on": "its example.avi, without the JPEG"}
    for family, value in scores.items():
        ours = metric(f"{family}/cropped").compute(features)
        parity(f"{family}/cropped", ours=ours, expected=value, tolerance=NETWORK, **given)
    parity("lse-*", ours=means, expected=want["mdist"], tolerance=NETWORK, **(given | {"part": "network, seeded"}))


def test_windows_are_those_of_five_frames(weights: dict[str, Weights]) -> None:
    """A clip at once, as here, gives what the published code has of each window alone."""
    network = SyncNet(weights["syncnet-v2"])
    frames = clip(26).view("frames")
    lips = network.lips(iter(frames))
    assert lips.shape == (22, 1024)
    plain = network._network
    for k in (0, 19, 20, 21):  # 20 windows are a batch
        window = torch.from_numpy(frames[k : k + 5, ..., ::-1].astype(np.float32).transpose(3, 0, 1, 2).copy())[None]
        with torch.inference_mode():
            alone = plain["netfclip"](plain["netcnnlip"](window).flatten(1))[0].numpy()
        np.testing.assert_allclose(lips[k], alone, atol=1e-5 * np.abs(alone).max())


def test_frames_and_samples_are_checked(weights: dict[str, Weights]) -> None:
    network = SyncNet(weights["syncnet-v2"])
    with pytest.raises(MetricError, match=r"frames are 200x224; expected crops of 224x224"):
        network.lips([np.zeros((224, 200, 3), np.uint8)])
    with pytest.raises(ValueError, match="crops of float32"):
        network.lips([np.zeros((224, 224, 3), np.float32)])
    with pytest.raises(MetricError, match="int16; expected floats"):
        syncnet.to_int16(np.zeros(10, np.int16))
    with pytest.raises(MetricError, match="16-bit PCM"):
        syncnet.to_int16(np.full(10, 12_000.0))
    with pytest.raises(MetricError, match="NaN"):
        syncnet.to_int16(np.array([0, np.nan]))
    with pytest.raises(ValueError, match="int16, on whose scale"):
        syncnet.mfcc(np.zeros(1000, np.float32))
    ramp = np.array([-2.0, -1.0, -0.5, 0.25, 0.99999, 1.0, 1.5])
    np.testing.assert_array_equal(
        syncnet.to_int16(ramp), [-32768, -32768, -16384, 8192, 32767, 32767, 32767]
    )  # nothing wraps


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('ran')",)


@pytest.mark.parametrize("kind", ["code", "noise", "list", "other"])
def test_files_that_are_no_weights_are_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "syncnet_v2.model"
    if kind == "code":
        path.write_bytes(pickle.dumps({"netcnnaud.0.weight": Hostile()}, protocol=2))
    elif kind == "noise":
        path.write_bytes(bytes(range(256)))
    else:
        torch.save([1, 2] if kind == "list" else {"netcnnaud.0.weight": torch.zeros(3)}, path)
    for kind_of in (SyncNet, s3fd.S3fdDetector):
        with pytest.raises(ValueError, match=r"^syncnet_v2.model: ") as caught:
            _ = kind_of(Weights(path, "0" * 64))._network
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300


# The MFCC


def mfcc_by_definition(signal: np.ndarray) -> np.ndarray:
    """python_speech_features 0.6, mfcc(signal, 16000), read line by line and written with loops."""
    eps, frame, step, nfft = np.finfo(float).eps, 400, 160, 512
    emphasised = np.append(signal[0], signal[1:] - 0.97 * signal[:-1])
    count = 1 if len(signal) <= frame else 1 + math.ceil((len(signal) - frame) / step)
    padded = np.concatenate([emphasised, np.zeros((count - 1) * step + frame - len(signal))])

    def mel(hertz: float) -> float:
        return 2595 * math.log10(1 + hertz / 700)

    points = [700 * (10 ** (m / 2595) - 1) for m in np.linspace(mel(0), mel(8000), 28)]
    corners = [math.floor((nfft + 1) * hertz / 16000) for hertz in points]
    bank = np.zeros((26, nfft // 2 + 1))
    for j in range(26):
        for i in range(corners[j], corners[j + 1]):
            bank[j, i] = (i - corners[j]) / (corners[j + 1] - corners[j])
        for i in range(corners[j + 1], corners[j + 2]):
            bank[j, i] = (corners[j + 2] - i) / (corners[j + 2] - corners[j + 1])
    rows = []
    for k in range(count):
        power = np.abs(np.fft.rfft(padded[k * step : k * step + frame], nfft)) ** 2 / nfft
        energy = power.sum() or eps
        bands = [math.log(value or eps) for value in bank @ power]
        row = []
        for c in range(13):
            total = sum(b * math.cos(math.pi * c * (2 * n + 1) / 52) for n, b in enumerate(bands))
            row.append(total * math.sqrt((1 if c == 0 else 2) / 26) * (1 + 11 * math.sin(math.pi * c / 22)))
        rows.append([math.log(energy), *row[1:]])
    return np.array(rows)


@given(st.integers(1, 2500), st.integers(0, 1000), st.sampled_from([0, 3, 300, 32767]))
@settings(max_examples=25, suppress_health_check=SEVERAL)
def test_mfcc_is_the_defined_one(parity: Parity, count: int, seed: int, loud: int) -> None:
    samples = np.random.default_rng(seed).integers(-loud, loud, count, endpoint=True).astype(np.int16)
    ours, expected = syncnet.mfcc(samples), mfcc_by_definition(samples)
    assert ours.shape == expected.shape
    np.testing.assert_allclose(ours, expected, atol=1e-9)
    on = {"part": "MFCC", "against": "a plain reading", "on": "noise"}
    parity("lse-*", ours=ours, expected=expected, tolerance=CLOSED, **on)


def test_sound_and_distances_are_computed_block_by_block() -> None:
    """Five minutes; the MFCC of all at once took 264 MiB. Blocks change no number beyond rounding."""
    samples = np.random.default_rng(0).integers(-9000, 9000, 300 * 16_000 + 77).astype(np.int16)
    tracemalloc.start()
    cepstra = syncnet.mfcc(samples)
    _, heard = tracemalloc.get_traced_memory()
    features = np.ones((7500, 64), np.float32)
    tracemalloc.reset_peak()
    distances = syncnet.distances(features, features)
    _, compared = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert heard < 24e6
    assert compared - cepstra.nbytes - features.nbytes < 7e6  # in float64 at once: 4 times 3.8 MB
    assert cepstra.shape == (1 + math.ceil((len(samples) - 400) / 160), 13)
    for seam in (500, 29_500):  # columns at a seam are those of the sound around them
        alone = syncnet.mfcc(samples[(seam - 6) * 160 : (seam + 4) * 160 + 400])
        np.testing.assert_allclose(cepstra[seam - 5 : seam + 5], alone[1:], rtol=0, atol=1e-11)
    np.testing.assert_allclose(distances[15:-15], 64**0.5 * 1e-6)


# Distances


def distances_by_definition(lips: np.ndarray, voices: np.ndarray) -> np.ndarray:
    """calc_pdist: for each window 31 pairs with the zero-padded voice, through torch's pairwise_distance."""
    padded = torch.nn.functional.pad(torch.from_numpy(voices), (0, 0, 15, 15))
    rows = []
    for k in range(len(lips)):
        repeated = torch.from_numpy(lips[[k]]).repeat(31, 1)
        rows.append(torch.nn.functional.pairwise_distance(repeated, padded[k : k + 31]))
    return torch.stack(rows).numpy()


@given(
    arrays.arrays(np.float64, st.tuples(st.integers(1, 40), st.just(4)), elements=st.floats(-9, 9)),
    st.integers(0, 100),
)
@settings(max_examples=40, suppress_health_check=SEVERAL)
def test_distances_and_scores_are_the_defined_ones(parity: Parity, lips: np.ndarray, seed: int) -> None:
    voices = np.random.default_rng(seed).standard_normal(lips.shape)
    expected = distances_by_definition(lips, voices)
    np.testing.assert_allclose(syncnet.distances(lips, voices), expected, atol=1e-9)
    on = {"part": "distances", "against": "torch's pairwise_distance", "on": "random features"}
    parity("lse-*", ours=syncnet.distances(lips, voices), expected=expected, tolerance=CLOSED, **on)
    features = packed(syncnet.distances(lips, voices))
    means = torch.from_numpy(expected).mean(dim=0)
    (track,) = sync.tracks(features)
    scores = {"lse-d": means.min(), "lse-c": means.median() - means.min(), "lse-d-zero": means[15]}
    scores["lse-c-zero"] = means.median() - means[15]
    if means.min() > 0.1:  # what is stored is float32
        ours = [metric(f"{family}/cropped").compute(features) for family in scores]
        same = {"part": "scores", "against": "torch's min and median", "on": "random features"}
        parity("lse-*", ours=ours, expected=list(scores.values()), tolerance=CLOSED, **same)
    assert track.distance == pytest.approx(means.min().item(), abs=1e-5)
    assert track.confidence == pytest.approx((means.median() - means.min()).item(), abs=1e-5)
    assert track.distance_at_zero == pytest.approx(means[15].item(), abs=1e-5)
    assert track.confidence_at_zero == pytest.approx((means.median() - means[15]).item(), abs=1e-5)
    assert means[15 - track.offset].item() == pytest.approx(means.min().item(), abs=1e-5)


def packed(*tracks: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "distances": np.concatenate(tracks).astype(np.float32),
        "windows": np.array([len(track) for track in tracks]),
        "first": np.arange(len(tracks)) * 100,
        "frames": np.array([len(track) + 5 for track in tracks]),
        "boxes": np.concatenate([np.full((len(track) + 5, 4), k, np.float32) for k, track in enumerate(tracks)]),
    }


@given(st.integers(-15, 15), st.integers(0, 100))
@settings(max_examples=40)
def test_a_shift_of_the_sound_moves_the_offset_by_it(shift: int, seed: int) -> None:
    """The voice of window i + shift belongs to the lips of window i: sound that is `shift` frames late."""
    together = np.random.default_rng(seed).standard_normal((120, 32))
    lips, voices = together[20:100], together[20 - shift : 100 - shift]
    features = packed(syncnet.distances(lips, voices))
    assert sync.offset(features) == -shift
    assert sync.confidence(features) > sync.confidence(packed(syncnet.distances(lips, np.flip(voices))))
    assert sync.offsets([features, features])[-shift] == 2
    assert sum(sync.offsets([features]).values()) == 1


def test_a_clip_is_the_mean_of_its_tracks() -> None:
    rng = np.random.default_rng(0)
    one, other = (rng.uniform(5, 9, (count, 31)) for count in (7, 90))
    features = packed(one, other)
    rows = sync.tracks(features)
    assert [row.windows for row in rows] == [7, 90]
    assert [row.box[0] for row in rows] == [0, 1]
    assert [row.first_frame for row in rows] == [0, 100]
    assert sync.distance(features) == pytest.approx((one.mean(0).min() + other.mean(0).min()) / 2, abs=1e-6)
    features["distances"][3, 3] = np.nan
    with pytest.raises(MetricError, match="NaN or infinite in track 0"):
        sync.distance(features)


# Crops, tracks, scenes


def crop_by_definition(image: np.ndarray, x: float, y: float, s: float) -> np.ndarray:
    """crop_video of run_pipeline.py, read line by line."""
    bsi = int(s * (1 + 2 * 0.4))
    frame = np.pad(image, ((bsi, bsi), (bsi, bsi), (0, 0)), "constant", constant_values=(110, 110))
    my, mx = y + bsi, x + bsi
    face = frame[int(my - s) : int(my + s * (1 + 2 * 0.4)), int(mx - s * (1 + 0.4)) : int(mx + s * (1 + 0.4))]
    return cv2.resize(face, (224, 224))


@given(st.floats(0, 90), st.floats(0, 70), st.floats(2, 80))
@settings(max_examples=60, suppress_health_check=SEVERAL)
def test_crops_are_the_defined_ones(parity: Parity, x: float, y: float, s: float) -> None:
    image = data.astronaut()[50:120, 150:240]
    np.testing.assert_array_equal(sync.crop(image, x, y, s), crop_by_definition(image, x, y, s))
    given = {"part": "crop", "against": "a plain reading", "on": "a photograph"}
    for names in TRACKED:
        parity(names, ours=sync.crop(image, x, y, s), expected=crop_by_definition(image, x, y, s), tolerance=0, **given)


def test_a_face_outside_the_picture_cannot_be_cut() -> None:
    with pytest.raises(MetricError, match=r"at \(-300, 20\), 100 px, cannot be cut from a 90x70 frame"):
        sync.crop(np.zeros((70, 90, 3), np.uint8), -300, 20, 50)
    with pytest.raises(MetricError, match="cannot be cut"):
        sync.crop(np.zeros((70, 90, 3), np.uint8), 0, 0, 0)


def overlap_by_definition(a: Any, b: Any) -> float:
    inter = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def tracks_by_definition(scene: list[list[dict[str, Any]]], longer_than: int, wider_than: float) -> list[Any]:
    """track_shot of run_pipeline.py: one track after the other, each through all frames of the scene."""
    tracks: list[Any] = []
    while True:
        track: list[dict[str, Any]] = []
        for faces in scene:
            for face in list(faces):
                if not track:
                    track.append(face)
                    faces.remove(face)
                elif face["frame"] - track[-1]["frame"] <= 25:
                    if overlap_by_definition(face["bbox"], track[-1]["bbox"]) > 0.5:
                        track.append(face)
                        faces.remove(face)
                else:
                    break
        if not track:
            return tracks
        if len(track) > longer_than:
            numbers = [face["frame"] for face in track]
            every = np.arange(numbers[0], numbers[-1] + 1)
            boxes = np.array([face["bbox"] for face in track])
            boxes = np.stack([interp1d(numbers, boxes[:, k])(every) for k in range(4)], axis=1)
            if max((boxes[:, 2] - boxes[:, 0]).mean(), (boxes[:, 3] - boxes[:, 1]).mean()) > wider_than:
                tracks.append((every, boxes))


@given(st.integers(0, 10_000))
@settings(max_examples=12, suppress_health_check=SEVERAL)
def test_tracks_and_their_crops_are_the_defined_ones(parity: Parity, seed: int) -> None:
    """Faces that come, go, wander and are missed; a scene cut; all in one pass here, one by one there."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (90, 60, 80, 3)).astype(np.uint8)
    cut = int(rng.integers(20, 70))
    places = rng.uniform(10, 60, (3, 2))
    found: list[list[dict[str, Any]]] = []
    for k in range(len(frames)):
        places += rng.normal(0, 0.5, places.shape)
        missed = 0.3 if (k // 30) % 2 else 0.9
        boxes = [[x - 9, y - 11, x + 9, y + 11] for x, y in places if rng.random() > missed]
        found.append([])
        for box in boxes:  # the detector's own suppression
            if all(overlap_by_definition(box, other["bbox"]) <= 0.1 for other in found[-1]):
                found[-1].append({"frame": k, "bbox": box})
    tracker = sync.Tracker(12, 10)
    for k, frame in enumerate(frames):
        tracker.add(frame, np.array([face["bbox"] for face in found[k]]).reshape(-1, 4), scene=k == cut)
    tracker.finish()
    expected = tracks_by_definition(found[:cut], 12, 10) + tracks_by_definition(found[cut:], 12, 10)
    if expected:
        ours = tracker.accepted()
    else:
        with pytest.raises(MetricError, match="no face"):
            tracker.accepted()
        ours = []
    assert len(ours) == len(expected)
    for track, (every, boxes) in zip(ours, expected, strict=True):
        assert (track.first, track.last) == (every[0], every[-1])
        np.testing.assert_allclose(track.boxes, boxes, atol=1e-9)
        on = {"part": "tracks", "against": "a plain reading", "on": "wandering boxes"}
        for names in TRACKED:
            parity(names, ours=track.boxes, expected=boxes, tolerance=CLOSED, **on)
        side = medfilt(np.maximum(boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]) / 2, 13)
        x, y = (medfilt((boxes[:, k] + boxes[:, k + 2]) / 2, 13) for k in (0, 1))
        for k, shown in enumerate(track.crops()):
            plain = crop_by_definition(frames[every[k]], x[k], y[k], side[k])
            # A rounding of 1e-12 may move the box by a pixel where it stands on one.
            assert np.array_equal(shown, plain) or near_whole(x[k], y[k], side[k])
    tracker.close()


def test_crops_of_many_short_tracks_are_neither_held_nor_kept() -> None:
    """Two faces, a scene cut every 20 frames: their 3 MB each would be 180 MB. The file is that of the last ones."""
    tracker = sync.Tracker(20, 0)
    boxes = np.array([[5.0, 5.0, 30.0, 30.0], [40.0, 10.0, 70.0, 40.0]])
    frame = np.zeros((60, 80, 3), np.uint8)
    tracemalloc.start()
    for k in range(600):
        tracker.add(frame, boxes, scene=k % 20 == 0)
    for _ in range(3):
        tracker.add(frame, boxes)
    tracker.finish()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4e6
    assert [(track.first, track.last) for track in tracker.accepted()] == [(580, 602)] * 2
    assert [sum(1 for _ in track.crops()) for track in tracker.tracks] == [23, 23]
    assert tracker._crops._count <= 2 * 23 + 2 * 20
    tracker.close()


def near_whole(x: float, y: float, s: float) -> bool:
    edges = np.array([1.8 * s, y - s, y + 1.8 * s, x - 1.4 * s, x + 1.4 * s])
    return bool((np.abs(edges - np.rint(edges)) < 1e-9).any())


def test_scene_cuts() -> None:
    """A cut is seen at its frame, one within 15 frames of the last is not, a slow change never."""
    rng = np.random.default_rng(0)
    scenes = [rng.integers(0, 256, (40, 50, 3)).astype(np.uint8) for _ in range(4)]
    shown = [scenes[0]] * 5 + [scenes[1]] * 10 + [scenes[2]] * 10 + [scenes[3]] * 9
    cuts = sync.SceneCuts()
    assert [k for k, frame in enumerate(shown) if cuts(frame)] == [5, 25]
    cuts = sync.SceneCuts()
    assert not any(cuts(np.full((40, 50, 3), level, np.uint8)) for level in range(0, 256, 5))
    grey, lighter, lightest = (np.full((40, 50, 3), level, np.uint8) for level in (50, 139, 140))
    assert [sync.SceneCuts.__call__(c, f) for c in [sync.SceneCuts()] for f in (grey, lighter)] == [False, False]
    assert [sync.SceneCuts.__call__(c, f) for c in [sync.SceneCuts()] for f in (grey, lightest)] == [False, True]


# S3FD


def test_s3fd_has_the_published_keys() -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in s3fd.build().state_dict().items()}
    layers = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28, 31, 33]
    trunk = [name for name in shapes if name.startswith("vgg")]
    assert trunk == [f"vgg.{k}.{part}" for k in layers for part in ("weight", "bias")]
    assert shapes["vgg.31.weight"] == (1024, 512, 3, 3)
    assert shapes["vgg.33.weight"] == (1024, 1024, 1, 1)
    assert [shapes[f"L2Norm{k}_3.weight"] for k in (3, 4, 5)] == [(256,), (512,), (512,)]
    assert [shapes[f"extras.{k}.weight"][:2] for k in range(4)] == [(256, 1024), (512, 256), (128, 512), (256, 128)]
    assert [shapes[f"loc.{k}.weight"][:2] for k in range(6)] == [(4, w) for w in (256, 512, 512, 1024, 512, 256)]
    assert [shapes[f"conf.{k}.weight"][0] for k in range(6)] == [4, 2, 2, 2, 2, 2]
    assert len(shapes) == 2 * (15 + 4 + 6 + 6) + 3


def faces_by_definition(heads: list[tuple[np.ndarray, np.ndarray]], size: tuple[int, int], picture: Any) -> np.ndarray:
    """PriorBox, decode, Detect and detect_faces, read cell by cell in the reference's relative coordinates."""
    height, width = size
    found: list[list[float]] = []
    for level, (offsets, logits) in enumerate(heads):
        step, side = (4, 8, 16, 32, 64, 128)[level], (16, 32, 64, 128, 256, 512)[level]
        for i in range(offsets.shape[0]):
            for j in range(offsets.shape[1]):
                prior = [(j + 0.5) / (width / step), (i + 0.5) / (height / step), side / width, side / height]
                cx, cy = (prior[k] + offsets[i, j, k] * 0.1 * prior[2 + k] for k in (0, 1))
                w, h = (prior[2 + k] * math.exp(offsets[i, j, 2 + k] * 0.2) for k in (0, 1))
                face = 1 / (1 + math.exp(float(logits[i, j, 0]) - float(logits[i, j, 1])))
                if face > 0.05:
                    found.append([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2, face])

    def kept(rows: list[list[float]], limit: float) -> list[list[float]]:
        stay: list[list[float]] = []
        for row in sorted(rows, key=lambda r: -r[4]):
            if all(overlap_by_definition(row, other) <= limit for other in stay):
                stay.append(row)
        return stay

    sure = [row for row in kept(found, 0.3) if row[4] > 0.9]
    scale = [picture[1], picture[0]] * 2
    return np.array([[v * f for v, f in zip(r[:4], scale, strict=True)] for r in kept(sure, 0.1)]).reshape(-1, 4)


def test_faces_are_decoded_as_defined(weights: dict[str, Weights], parity: Parity) -> None:
    detector = s3fd.S3fdDetector(weights["s3fd"])
    for boxes, faces in zip(detector._network.loc, detector._network.conf, strict=True):
        boxes.weight.data *= 0.01  # near their anchors, and sure ones of all sizes: else one covers all others
        faces.weight.data *= 20
    picture = data.astronaut()[:300, 50:470]
    small = cv2.resize(picture, None, fx=0.25, fy=0.25)
    image = (small[..., ::-1].astype(np.float32) - (104, 117, 123))[..., ::-1]  # RGB, each channel less its own mean
    with torch.inference_mode():
        heads = detector._network(torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32)))
    arrays_ = [(offsets.numpy(), logits.numpy()) for offsets, logits in heads]
    assert [offsets.shape[:2] for offsets, _ in arrays_] == [(18, 26), (9, 13), (4, 6), (2, 3), (1, 2), (1, 1)]
    expected = faces_by_definition(arrays_, small.shape[:2], picture.shape)
    found = detector(picture)
    assert len(expected) > 3  # or the test says nothing
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-2)
    on = {"part": "S3FD's boxes, seeded weights", "against": "a plain reading", "on": "a photograph"}
    for names in TRACKED[:2]:
        parity(names, ours=found, expected=expected, tolerance=NETWORK, **on)
    with pytest.raises(MetricError, match="frames are 100x90"):
        detector(picture[:90, :100])


def test_the_finest_stride_takes_the_largest_background(weights: dict[str, Weights]) -> None:
    network = s3fd.S3fdDetector(weights["s3fd"])._network
    image = torch.from_numpy(np.random.default_rng(0).normal(0, 50, (1, 3, 64, 64)).astype(np.float32))
    seen = []
    handle = network.conf[0].register_forward_hook(lambda _, __, out: seen.append(out))
    with torch.inference_mode():
        logits = network(image)[0][1]
    handle.remove()
    np.testing.assert_array_equal(logits[..., 0], seen[0][0, :3].amax(dim=0))
    np.testing.assert_array_equal(logits[..., 1], seen[0][0, 3])


@given(st.integers(0, 30), st.integers(0, 1000), st.sampled_from([0.1, 0.3]))
@settings(max_examples=40)
def test_suppression_is_the_defined_one(count: int, seed: int, limit: float) -> None:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 50, (count, 2))
    boxes, scores = np.hstack([corner, corner + rng.uniform(1, 40, (count, 2))]), rng.permutation(count) / 30
    stay: list[int] = []
    for k in sorted(range(count), key=lambda k: -scores[k]):
        if all(overlap_by_definition(boxes[k], boxes[other]) <= limit for other in stay):
            stay.append(k)
    assert s3fd.suppress(boxes, scores, limit).tolist() == stay


# Variants


@pytest.mark.parametrize("name", ["cropped", "wav2lip-lrs"])
def test_whole_frames_whatever_the_chunks(name: str, weights: dict[str, Weights], parity: Parity) -> None:
    """JPEG, then for wav2lip-lrs the squash: the distances are those of frames made so here, all at once."""
    whole = clip(13, 224)
    if name == "wav2lip-lrs":
        whole = replace(whole, frames=np.ascontiguousarray(whole.view("frames")[:, 30:190, 20:160]))
    shown = [cv2.resize(frame, (224, 224)) for frame in media.recode("jpeg", whole.view("frames"))]
    network = SyncNet(weights["syncnet-v2"])
    expected = network.compare(network.lips(shown), syncnet.to_int16(whole.view("waveform")))
    made = extractor(name, weights)
    for size in (13, 4):
        found = made(chunks(whole, size))
        np.testing.assert_allclose(found["distances"], expected, rtol=1e-5)
        assert found["windows"].tolist() == [8]
        assert found["frames"].tolist() == [13]
    on = {"part": "seeded weights", "against": "the pipeline step by step", "on": "a photograph that slides"}
    ours, plain = metric(f"lse-d/{name}").compute(found), expected.mean(axis=0).min()
    parity(f"lse-d/{name}", ours=ours, expected=plain, tolerance=NETWORK, **on)


def test_a_variant_as_a_function(weights: dict[str, Weights]) -> None:
    """metrics.get with the codecs gives what the extractor gives; without them, or sound, it says what to give."""
    whole, path = clip(8), weights["syncnet-v2"].path
    name = "lse-c/wav2lip-lrs"
    expected = metric(name).compute(extractor("wav2lip-lrs", weights)(chunks(whole, 8)))
    assert library.get(name, weights=str(path), options=CODECS)(fake=whole) == pytest.approx(expected, rel=1e-4)
    with pytest.raises(
        ValueError, match=r"needs the option 'recode'.*give options=\{'recode': pipelines.media.recode,"
    ):
        library.get("lse-d/cropped", weights=path)(fake=whole)
    with pytest.raises(ValueError, match=r"lse-d/cropped needs waveform .*, sample_rate in Hz; give a"):
        library.get("lse-d/cropped", weights=path, options=CODECS)(fake=whole.view("frames"))
    with pytest.raises(ValueError, match=r"lse-d/bench needs landmarks .*, waveform .*, sample_rate in Hz; give a"):
        library.get("lse-d/bench", weights=path)(fake=list(whole.view("frames")))


def test_bench_crops_around_the_landmarks(weights: dict[str, Weights], parity: Parity) -> None:
    """No recoding and the published crop: the distances are those of crops made here, all at once."""
    whole = clip(29, 224, face=(130.0, 100.0, 40.0))
    points = whole.view("landmarks")[..., :2].astype(float)
    boxes = np.hstack([points.min(axis=1), points.max(axis=1)])
    side = medfilt((boxes[:, 2:] - boxes[:, :2]).max(axis=1) / 2, 13)
    x, y = (medfilt((boxes[:, k] + boxes[:, k + 2]) / 2, 13) for k in (0, 1))
    crops = [crop_by_definition(f, *p) for f, *p in zip(whole.view("frames"), x, y, side, strict=True)]
    network = SyncNet(weights["syncnet-v2"])
    expected = network.compare(network.lips(crops), syncnet.to_int16(whole.view("waveform")))
    missed = whole.view("landmarks").copy()
    missed[10:13] = np.nan  # interpolated: the face moves evenly
    found = extractor("bench", weights, {})(chunks(replace(whole, landmarks=missed), 7))
    np.testing.assert_allclose(found["boxes"], boxes, atol=1e-3)
    np.testing.assert_allclose(found["distances"], expected, rtol=2e-4)
    on = {"part": "seeded weights", "against": "the pipeline step by step", "on": "a photograph that slides"}
    ours, plain = metric("lse-d/bench").compute(found), expected.mean(axis=0).min()
    parity("lse-d/bench", ours=ours, expected=plain, tolerance=NETWORK, **on)


class Scripted:
    """Stands where S3FD stands, with a face that is known beforehand."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        self.seen.append(picture)
        return np.array([[70.0, 40.0, 190.0, 160.0]])


@pytest.mark.parametrize(("name", "late"), [("syncnet-python-min50", 2), ("latentsync", 0)])
def test_the_tracked_pipelines(
    name: str, late: int, weights: dict[str, Weights], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames reach detector and network through each codec in turn, the sound with its delay."""
    made, script = extractor(name, weights), Scripted()
    made._detector = script  # type: ignore[assignment]
    coded: list[str] = []
    monkeypatch.setattr(made, "_recode", lambda codec, frames: (coded.append(codec), media.recode(codec, frames))[1])
    monkeypatch.setattr(made._network, "lips", lambda crops: np.zeros((sum(1 for _ in crops) - 4, 1024), np.float32))
    whole = clip(56)
    found = made(chunks(whole, 9))
    assert found["frames"].tolist() == [56]
    assert found["windows"].tolist() == [51]
    variant = made._variant
    assert coded == [variant.still, variant.video, variant.crop_video, variant.crop_still]
    for k in (0, 30, 55 - late):  # what is looked at is the frame after two codecs, at its place
        error = np.abs(script.seen[k + late].astype(int) - whole.view("frames")[k]).mean()
        others = np.abs(script.seen[k + late].astype(int) - whole.view("frames")[(k + 9) % 56]).mean()
        assert 0 < error < 6 < others
    with pytest.raises(
        MetricError, match="no face track of more than 50 detections and 100 px; the longest of 1 has 50"
    ):
        made(chunks(clip(50), 25))


def test_what_cannot_be_scored_says_why(weights: dict[str, Weights], monkeypatch: pytest.MonkeyPatch) -> None:
    cropped, bench = extractor("cropped", weights), extractor("bench", weights)
    with pytest.raises(MetricError, match="frames are 128x128; expected crops"):
        cropped(chunks(clip(8, 128), 8))
    for made in (cropped, bench):  # nothing below depends on what lips look like
        counted = lambda crops: np.zeros((max(0, sum(1 for _ in crops) - 4), 1024), np.float32)  # noqa: E731
        monkeypatch.setattr(made._network, "lips", counted)
    whole = clip(30, 224, face=(130.0, 100.0, 40.0))
    silent = replace(whole, waveform=np.zeros(30 * 640, np.float32))
    for made in (cropped, bench):
        with pytest.raises(MetricError, match="the audio is silent"):
            made(chunks(silent, 30))
        with pytest.raises(MetricError, match="no frames"):
            made(iter([]))
        with pytest.raises(ValueError, match="'frames' was not made"):
            made([ClipViews(index=np.arange(2), fps=25.0)])
        with pytest.raises(ValueError, match="in order"):
            made(reversed(list(chunks(whole, 10))))
        with pytest.raises(ValueError, match="30 fps"):
            made(chunks(replace(whole, fps=30.0), 10))
        with pytest.raises(ValueError, match="frames of float16"):
            made(chunks(replace(whole, frames=whole.view("frames").astype(np.float16)), 10))
    with pytest.raises(MetricError, match=r"5 frames with 0.20 s of sound are too short; SyncNet needs 6 frames"):
        cropped(chunks(clip(5), 5))
    with pytest.raises(MetricError, match=r"fewer than 5 frames with 0.08 s"):
        cropped(chunks(clip(2), 5))
    with pytest.raises(MetricError, match=r"30 frames with 0.00 s of sound are too short"):
        cropped([replace(whole, waveform=np.zeros(0, np.float32))])
    with pytest.raises(MetricError, match="no face track of more than 24 detections and 0 px; the longest of 1 has 24"):
        bench(chunks(clip(24, 224, face=(130.0, 100.0, 40.0)), 24))
    faceless = replace(whole, landmarks=np.full((30, 478, 3), np.nan, np.float32))
    with pytest.raises(MetricError, match="no face in any frame"):
        bench(chunks(faceless, 10))
    with pytest.raises(ValueError, match="needs the option 'recode', which codes frames as jpeg"):
        extractor("cropped", weights, {})(chunks(whole, 10))


# Codecs


@pytest.mark.parametrize("codec", ["mpeg4-q2", "mpeg4-opencv", "h264", "jpeg-q2", "jpeg"])
def test_recoding_keeps_number_size_and_order(codec: str) -> None:
    frames = clip(12, 96).view("frames")
    one, two = (list(media.recode(codec, iter(frames))) for _ in range(2))
    assert len(one) == 12
    for k, frame in enumerate(one):
        assert frame.shape == (96, 96, 3)
        assert frame.dtype == np.uint8
        np.testing.assert_array_equal(frame, two[k])
        away = [np.abs(frame.astype(int) - other).mean() for other in frames]
        assert int(np.argmin(away)) == k
        assert 0 < away[k] < 8
    assert list(media.recode(codec, iter([]))) == []


def test_recoding_is_lazy_and_refuses_what_it_cannot_code() -> None:
    taken = 0

    def frames() -> Iterator[np.ndarray]:
        nonlocal taken
        for frame in clip(12, 64).view("frames"):
            taken += 1
            yield frame

    coded = media.recode("jpeg", frames())
    next(coded)
    assert taken <= 3
    with pytest.raises(ValueError, match="no codec 'gif'"):
        next(media.recode("gif", frames()))
    with pytest.raises(media.MediaError, match="frames of 63x65: cannot be coded as h264"):
        list(media.recode("h264", [np.zeros((65, 63, 3), np.uint8)]))


@given(st.integers(1, 9000))
@settings(max_examples=8)
def test_recoded_sound_has_the_length_and_the_delay_of_its_file(count: int) -> None:
    samples = syncnet.to_int16(voice(20))[:count]
    assert len(media.recode_audio("aac", samples)) == count
    assert count < len(media.recode_audio("mp3", samples)) < count + media.MP3_DELAY + 2 * 1152


def test_recoded_sound_is_the_sound() -> None:
    samples = syncnet.to_int16(voice(50))
    for codec, delay in (("aac", 0), ("mp3", media.MP3_DELAY)):
        out = media.recode_audio(codec, samples)
        fits = [np.corrcoef(out[delay + k : delay + k + 30_000], samples[:30_000])[0, 1] for k in range(50)]
        assert int(np.argmax(fits)) == 0
        assert fits[0] > 0.95
    with pytest.raises(ValueError, match="0 samples"):
        media.recode_audio("mp3", samples[:0])
    assert sync.LATE_SAMPLES == media.MP3_DELAY
