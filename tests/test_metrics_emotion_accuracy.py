"""Emo-Acc against counting by hand, the classifier against a forward pass written out, and files that are not one."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from parity import CLOSED, NETWORK, Parity
from safetensors.torch import load_file, save, save_file
from skimage import data
from torch.nn import functional

import metrics
from benchmark import weights
from metrics.base import ClipViews, MetricError, Weights
from metrics.emotion_accuracy import EIGHT, accuracy, confusion, confusion_table
from metrics.networks import cards, vgg16
from metrics.networks.vgg16 import EmotionVgg16

CARD = {"classes": ["angry", "happy", "sad"], "size": 48, "trained_on": {"footage": ["a"]}}


def asked(*words: str) -> list[dict[str, np.ndarray]]:
    return [{"emotion": np.array(word), "identity": np.array("A")} for word in words]


def rows(*named: str, known: tuple[str, ...] = EIGHT) -> dict[str, np.ndarray]:
    """Frames whose largest probability is that of the words `named`."""
    probability = np.full((len(named), 8), np.nan, np.float32)
    probability[:, [EIGHT.index(word) for word in known]] = 0.4 / (len(known) - 1)
    for row, word in zip(probability, named, strict=True):
        row[EIGHT.index(word)] = 0.6
    return {"probability": probability}


# --- the metric --------------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.sampled_from(EIGHT), st.lists(st.sampled_from(EIGHT), min_size=1, max_size=6)),
        min_size=1,
        max_size=12,
    )
)
def test_accuracy_is_the_mean_over_emotions_of_their_frames(clips: list[tuple[str, list[str]]]) -> None:
    frames = defaultdict(list)
    for word, named in clips:
        frames[word] += [word == name for name in named]
    expected = 100 * sum(sum(hits) / len(hits) for hits in frames.values()) / len(frames)
    seen = [rows(*named) for _, named in clips]
    assert accuracy(seen, asked(*(word for word, _ in clips))) == pytest.approx(expected, abs=1e-9)
    counts = confusion(seen, asked(*(word for word, _ in clips)))
    assert counts.sum() == sum(len(named) for _, named in clips)


def test_random_probabilities_against_numpy(parity: Parity) -> None:
    """Pooled over clips of different lengths: the frames of an emotion count, not its clips."""
    rng = np.random.default_rng(0)
    words = [EIGHT[k] for k in rng.integers(8, size=40)]
    clips = [{"probability": rng.dirichlet(np.ones(8), rng.integers(1, 30)).astype(np.float32)} for _ in words]
    truth = np.repeat(words, [len(clip["probability"]) for clip in clips])
    named = np.array(EIGHT)[np.concatenate([clip["probability"] for clip in clips]).argmax(1)]
    by_hand = 100 * np.mean([(named[truth == word] == word).mean() for word in sorted(set(words))])
    ours = metrics.metric("emo-acc/vgg16").compute(clips, asked(*words))
    on = f"{len(truth)} frames of drawn probabilities"
    parity("emo-acc*/vgg16", against="NumPy, frames pooled", on=on, ours=ours, expected=by_hand, tolerance=CLOSED)
    table = confusion_table([str(k) for k in range(40)], clips, asked(*words))
    assert table[0] == ["asked", *EIGHT]
    for row in table[1:]:
        assert row[1:] == [int(((truth == row[0]) & (named == word)).sum()) for word in EIGHT]


def test_published_average_is_the_mean_of_the_eight() -> None:
    """EAT-Face's Table II, whose rows we take as counts of 10,000 frames each."""
    printed = (82.51, 80.02, 75.19, 65.65, 81.41, 78.66, 81.99, 51.13)  # in the order of EIGHT
    clips = []
    for word, value in zip(EIGHT, printed, strict=True):
        other = "sad" if word != "sad" else "fear"
        hits = round(100 * value)
        clips.append(rows(*[word] * hits, *[other] * (10_000 - hits)))
    assert accuracy(clips, asked(*EIGHT)) == pytest.approx(74.57, abs=0.005)


def test_there_is_a_column_for_each_emotion() -> None:
    for word in EIGHT:
        metric = metrics.metric(f"emo-acc-{word}/vgg16")
        assert metric.emotions == (word,)
        assert metric.compute([rows(word, "fear", word, "fear")], asked(word)) == (100 if word == "fear" else 50)
    assert metrics.metric("emo-acc-real/vgg16").needs[0] == ("real", "emotion-vgg16")
    assert "calm" not in (metrics.metric("emo-acc/vgg16").emotions or ())


def test_what_the_classifier_does_not_know_is_no_number() -> None:
    seven = tuple(word for word in EIGHT if word != "contempt")
    assert accuracy([rows("sad", known=seven)], asked("sad")) == 100
    with pytest.raises(MetricError, match=r"was not trained on contempt; it knows angry, .*surprised"):
        accuracy([rows("sad", known=seven)], asked("contempt"))
    with pytest.raises(MetricError, match="a clip of emotion 'calm'"):
        accuracy([rows("sad")], asked("calm"))
    with pytest.raises(MetricError, match="no frames"):
        accuracy([], [])
    half = rows("sad", "sad")
    half["probability"][1] = np.nan
    with pytest.raises(MetricError, match="hold no probabilities"):
        accuracy([half], asked("sad"))


# --- the network -------------------------------------------------------------------------------------------------


def start() -> dict[str, torch.Tensor]:
    try:
        state = load_file(weights.path("lpips-vgg16", fetch=False))
    except weights.WeightsUnavailable as missing:
        pytest.skip(str(missing))
    return {name: tensor for name, tensor in state.items() if name.startswith("conv")}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of three emotions with VGG-16's convolutions under a drawn head."""
    generator = torch.Generator().manual_seed(0)
    head = {
        "head.weight": 0.1 * torch.randn(3, 512, generator=generator),
        "head.bias": torch.randn(3, generator=generator),
    }
    path = tmp_path_factory.mktemp("classifier") / "classifier.safetensors"
    save_file(start() | head, path, {"card": json.dumps(CARD)})
    return path


def written_out(state: dict[str, torch.Tensor], faces: np.ndarray) -> np.ndarray:
    """Configuration D of Simonyan and Zisserman, block by block, in double precision: (n, H, W, 3) to (n, classes)."""
    rgb = faces.astype(np.float64).transpose(0, 3, 1, 2) / 255
    x = torch.from_numpy(
        (rgb - np.reshape([0.485, 0.456, 0.406], (3, 1, 1))) / np.reshape([0.229, 0.224, 0.225], (3, 1, 1))
    )
    layer = 0
    for block, depth in enumerate((2, 2, 3, 3, 3)):
        if block:
            n, c, h, w = x.shape
            x = x[:, :, : h // 2 * 2, : w // 2 * 2].reshape(n, c, h // 2, 2, w // 2, 2).amax((3, 5))
        for _ in range(depth):
            weight, bias = state[f"conv{layer}.weight"].double(), state[f"conv{layer}.bias"].double()
            n, _, h, w = x.shape
            columns = functional.unfold(x, 3, padding=1)  # (n, 9 C, h w)
            x = (weight.flatten(1) @ columns + bias[:, None]).reshape(n, -1, h, w).clamp(min=0)
            layer += 1
    logits = x.mean((2, 3)) @ state["head.weight"].double().T + state["head.bias"].double()
    return (logits.exp() / logits.exp().sum(1, keepdim=True)).numpy()


def test_network_equals_the_paper_written_out(classifier: Path, parity: Parity) -> None:
    """Within 1e-5 of probability; columns in EIGHT's order, NaN where the classifier has no class."""
    frames = np.stack([data.astronaut()[k : k + 48, 2 * k + 200 : 2 * k + 248] for k in range(0, 60, 3)])
    made = EmotionVgg16(Weights(classifier, "0" * 64), None, "cpu")
    chunks = [ClipViews(np.arange(s, min(s + 7, 20)), 25.0, frames=frames[s : s + 7]) for s in range(0, 20, 7)]
    found = made(chunks)["probability"]
    assert found.shape == (20, 8)
    assert found.dtype == np.float32
    known = [EIGHT.index(word) for word in CARD["classes"]]  # type: ignore[attr-defined]
    expected = written_out(load_file(classifier), frames)
    assert np.ptp(expected, axis=0).min() > 0.05  # the frames are told apart
    np.testing.assert_allclose(found[:, known], expected, atol=1e-5)
    against, on = "VGG-16 written out in float64", "20 crops of a photograph, drawn head"
    numbers = {"ours": found[:, known], "expected": expected, "tolerance": NETWORK}
    parity("emo-acc*/vgg16", part="network", against=against, on=on, **numbers)
    assert np.isnan(np.delete(found, known, axis=1)).all()


def test_permuted_classes_permute_the_columns(classifier: Path, tmp_path: Path) -> None:
    """The order of the classes is the file's own."""
    order = [2, 0, 1]
    state = load_file(classifier)
    turned = state | {name: state[name][order] for name in ("head.weight", "head.bias")}
    card = CARD | {"classes": [CARD["classes"][k] for k in order]}  # type: ignore[index]
    save_file(turned, tmp_path / "turned.safetensors", {"card": json.dumps(card)})
    clip = [ClipViews(np.arange(2), 25.0, frames=np.stack([data.astronaut()[:64, 200:264]] * 2))]
    one, other = (
        EmotionVgg16(Weights(path, "0" * 64), None, "cpu")(clip)["probability"]
        for path in (classifier, tmp_path / "turned.safetensors")
    )
    np.testing.assert_allclose(one, other, atol=1e-7)


def test_frames_are_resized_by_area_and_checked(classifier: Path) -> None:
    picture = data.astronaut()[:96, 200:296]
    small = vgg16.resize(picture, 48)
    np.testing.assert_allclose(small, picture.reshape(48, 2, 48, 2, 3).mean((1, 3)), atol=0.51)
    assert vgg16.resize(small, 48) is small
    made = EmotionVgg16(Weights(classifier, "0" * 64), 5, "cpu")
    assert made.views == ("frames:5",)
    for frames, why in (([], "no frames to classify"), ([picture[None] / 255], "expected uint8")):
        with pytest.raises(MetricError, match=why):
            made(ClipViews(np.arange(len(f)), 25.0, frames=f) for f in frames)


# --- files that are not the classifier's -------------------------------------------------------------------------

TENSORS = {"x.weight": torch.zeros(2)}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not a safetensors file"),
        (b"\x80\x04pickle" * 10, "not a safetensors file"),
        (save(TENSORS)[:-1], "not a safetensors file"),
        (save(TENSORS), "has no card; expected the file that `bench train emotion-classifier` wrote"),
        (save(TENSORS, {"card": "{"}), "does not say on what footage"),
        (save(TENSORS, {"card": 100_000 * "["}), "does not say on what footage"),
        (save(TENSORS, {"card": "[]"}), "does not say on what footage"),
        (save(TENSORS, {"card": json.dumps(CARD | {"trained_on": {"footage": [[]]}})}), "does not say on what footage"),
        (save(TENSORS, {"card": json.dumps(CARD | {"classes": ["sad", "sad"]})}), "has the classes"),
        (save(TENSORS, {"card": json.dumps(CARD | {"classes": ["sad", ["x"]]})}), "has the classes"),
        (save(TENSORS, {"card": json.dumps(CARD | {"classes": ["sad", "calm"]})}), "has the classes"),
        (save(TENSORS, {"card": json.dumps(CARD | {"classes": ["sad"]})}), "has the classes"),
        (save(TENSORS, {"card": json.dumps(CARD | {"size": 10**9})}), "has the size 1000000000; expected 32 to 512"),
        (save(TENSORS, {"card": json.dumps(CARD | {"size": True})}), "has the size True"),
        (save(TENSORS, {"card": json.dumps(CARD)}), "holds other tensors than the classifier's"),
    ],
)
def test_another_file_is_one_line(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "classifier.safetensors"
    path.write_bytes(content)
    made = EmotionVgg16(Weights(path, "0" * 64), None, "cpu")
    with pytest.raises(MetricError, match=why) as error:
        made([ClipViews(np.arange(1), 25.0, frames=np.zeros((1, 32, 32, 3), np.uint8))])
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300
    assert str(tmp_path) not in str(error.value)


def test_a_network_that_was_not_trained_here_has_no_card(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(save(TENSORS))
    assert cards.read(tmp_path / "x.safetensors") is None
