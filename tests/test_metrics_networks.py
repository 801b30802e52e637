"""The frozen networks against independent readings of their preprocessing and another runtime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import matplotlib.cbook
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import load
from parity import CLOSED, Parity
from skimage import data

from benchmark import weights
from metrics import MetricError, metric
from metrics.base import ClipViews
from metrics.networks.inception import resize_tf1
from metrics.networks.running import batches, full_precision
from pipelines import crop, faces

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated:DeprecationWarning")

CIFAR = Path(__file__).resolve().parents[2] / "shared" / "fixtures" / "fid" / "cifar256.npz"


def clip(frames: np.ndarray, size: int) -> Iterator[ClipViews]:
    for start in range(0, len(frames), size):
        yield ClipViews(
            index=np.arange(start, min(start + size, len(frames))), fps=25, frames=frames[start : start + size]
        )


def photographs(count: int, size: int = 96) -> np.ndarray:
    return np.stack([data.astronaut()[8 * k : 8 * k + size, 4 * k : 4 * k + size] for k in range(count)])


def resize_by_definition(image: np.ndarray, size: int) -> np.ndarray:
    """TF1 bilinear of an (H, W) image: source = target * in / out, upper neighbour clamped; pixel by pixel."""
    height, width = image.shape
    out = np.empty((size, size))
    for i in range(size):
        for j in range(size):
            y, x = i * height / size, j * width / size
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            dy, dx = y - top, x - left
            upper = image[top, left] * (1 - dx) + image[top, right] * dx
            lower = image[bottom, left] * (1 - dx) + image[bottom, right] * dx
            out[i, j] = upper * (1 - dy) + lower * dy
    return out


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_resizing_is_tf1s(height: int, width: int, size: int, seed: int) -> None:
    """5e-3 of 0-255: the sampling position is float32 (relative 6e-8 of at most 40, times a slope of at most 255)."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.float32)
    ours = resize_tf1(torch.from_numpy(image)[None, None], size)[0, 0].numpy()
    expected = resize_by_definition(image, size)
    # At a whole source position float32 may take the pixel before, which gives the same value there.
    np.testing.assert_allclose(ours, expected, atol=5e-3)


def test_inception_preprocessing_and_batches() -> None:
    """The network's own output on an image prepared pixel by pixel; 1e-5 of features of order 1: float32 sums."""
    fid = load("fid-inception-tf1")
    frames = photographs(3, 48)
    features = fid(clip(frames, 3))["features"]
    assert features.shape == (3, 2048)
    assert features.dtype == np.float32
    prepared = np.stack([resize_by_definition(frames[0, :, :, c].astype(float), 299) for c in range(3)])
    network = torch.jit.load(weights.path("fid-inception", fetch=False))
    with torch.inference_mode():
        expected = network(torch.from_numpy((prepared[None] - 128) / 128).float()).numpy()
    np.testing.assert_allclose(features[:1], expected, atol=2e-5)
    np.testing.assert_allclose(fid(clip(frames[:2], 1))["features"], features[:2], atol=1e-5)


def test_inception_views_and_errors() -> None:
    fid = load("fid-inception-tf1", frames_per_clip=5)
    assert fid.views == ("frames:5",)
    assert fid.id == "fid-inception-tf1@7ff4a85c"
    assert load("fid-inception-tf1").views == ("frames",)
    with pytest.raises(MetricError, match="no frames"):
        fid(iter([]))
    with pytest.raises(ValueError, match="'frames' was not made"):
        fid([ClipViews(index=np.arange(2), fps=25)])


@pytest.mark.slow
def test_published_fid(parity: Parity) -> None:
    """256 CIFAR-10 train against 256 validation images: 110.28082617 was printed by another implementation."""
    if not CIFAR.exists():
        pytest.skip("../shared/fixtures/fid/cifar256.npz is not on this machine")
    fid = load("fid-inception-tf1")
    images = np.load(CIFAR)
    train, validation = (fid(clip(images[name].transpose(0, 2, 3, 1), 50)) for name in ("tr", "va"))
    value = metric("fid/torch-fidelity").compute([validation], [train])
    against, on = "the TF1 graph, printed", "CIFAR-10, 256 + 256 images"
    parity("fid/torch-fidelity", against=against, on=on, ours=value, expected=110.28082617202443, tolerance=CLOSED)


def aligned(image: np.ndarray) -> np.ndarray:
    mesh = faces.FaceMesh()
    try:
        points = faces.five_points(mesh(image)[0])
    finally:
        mesh.close()
    return crop.align(image, points, crop.ARCFACE_TEMPLATE, 112)


@pytest.fixture(scope="module")
def people() -> dict[str, np.ndarray]:
    """Two public-domain portraits, and the first one again, darker, blurred and tilted."""
    collins = data.astronaut()[0:300, 80:380]
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        hopper = np.array(plt.imread(file, format="jpg"))[:420, 60:480]
    turn = cv2.getRotationMatrix2D((150, 120), 12, 0.9)
    again = cv2.GaussianBlur(cv2.warpAffine((collins * 0.7).astype(np.uint8), turn, (300, 300)), (0, 0), 1.0)
    return {name: aligned(image) for name, image in (("collins", collins), ("hopper", hopper), ("again", again))}


def portraits(images: list[np.ndarray], found: list[bool], size: int) -> Iterator[ClipViews]:
    for start in range(0, len(images), size):
        part = slice(start, start + size)
        yield ClipViews(
            index=np.arange(len(images))[part], fps=25, aligned112=np.stack(images[part]), found=np.array(found[part])
        )


def test_arcface_equals_another_runtime(people: dict[str, np.ndarray]) -> None:
    """OpenCV's own ONNX runtime on the same file; 1e-4 in cosine and 1e-3 of the length: float32 networks."""
    arcface = load("arcface-w600k_mbf")
    images = list(people.values())
    ours = arcface(portraits(images, [True] * 3, 3))["embedding"]
    assert ours.shape == (3, 512)
    assert ours.dtype == np.float32
    network = cv2.dnn.readNetFromONNX(str(weights.path("arcface-w600k-mbf", fetch=False)))
    for image, vector in zip(images, ours, strict=True):
        network.setInput(cv2.dnn.blobFromImage(image, 1 / 127.5, (112, 112), (127.5, 127.5, 127.5), swapRB=False))
        other = network.forward()[0]
        assert vector @ other / np.linalg.norm(vector) / np.linalg.norm(other) > 1 - 1e-4
        np.testing.assert_allclose(vector, other, atol=1e-3 * np.linalg.norm(other))


def test_arcface_tells_people_apart(people: dict[str, np.ndarray]) -> None:
    arcface = load("arcface-w600k_mbf")
    faces = {name: arcface(portraits([image], [True], 1)) for name, image in people.items()}
    csim = metric("csim/w600k_mbf-to-reference").compute
    assert csim(faces["again"], faces["collins"]) > 0.5
    assert csim(faces["hopper"], faces["collins"]) < 0.3


def test_arcface_skips_frames_without_a_face(people: dict[str, np.ndarray]) -> None:
    arcface = load("arcface-w600k_mbf")
    images = [people["collins"], np.zeros((112, 112, 3), np.uint8), people["hopper"]]
    features = arcface(portraits(images, [True, False, True], 2))
    assert features["found"].tolist() == [True, False, True]
    assert not features["embedding"][1].any()
    whole = arcface(portraits([images[0], images[2]], [True, True], 2))["embedding"]
    np.testing.assert_allclose(features["embedding"][[0, 2]], whole, atol=1e-5 * np.abs(whole).max())
    nobody = arcface(portraits(images, [False] * 3, 2))
    assert nobody["embedding"].shape == (3, 512)
    with pytest.raises(MetricError, match="no frames"):
        arcface(iter([]))


@given(st.lists(st.integers(0, 9), max_size=8), st.integers(1, 7))
def test_batches_keep_every_row_in_order(lengths: list[int], size: int) -> None:
    rows = np.arange(sum(lengths))
    pieces = list(batches(np.split(rows, np.cumsum(lengths))[: len(lengths)], size))
    assert [len(piece) for piece in pieces[:-1]] == [size] * (len(pieces) - 1)
    np.testing.assert_array_equal(np.concatenate([*pieces, rows[:0]]), rows)


def test_batches_are_lazy() -> None:
    pulled: list[int] = []

    def arrays() -> Iterator[np.ndarray]:
        for k in range(100):
            pulled.append(k)
            yield np.zeros((3, 2))

    for count, batch in enumerate(batches(arrays(), 6), 1):
        assert batch.shape == (6, 2)
        assert len(pulled) == 2 * count


def test_full_precision_overrides_autocast() -> None:
    a = torch.rand(8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16), full_precision("cpu"):
        assert (a @ a).dtype == torch.float32
    assert (a @ a).dtype == torch.float32
