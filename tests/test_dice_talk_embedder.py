"""DICE-Talk's emotion embedder: equations 2-8 against plain NumPy, its batches, and a training that tells emotions
apart on people it never saw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import talkers
import torch
from safetensors.torch import load_file

from metrics.clusters import Embeddings, permutation_test
from reference_models.base import Footage, GenerationError
from reference_models.dice_talk import embedder_data, embedder_training, embedding
from reference_models.dice_talk.coefficients import MESH, MORPHABLE, Coefficients
from reference_models.dice_talk.embedder import Branch, CrossAttention, Embedder, Size, pooled, positions
from reference_models.dice_talk.embedder_data import Batches, Views, cut, frames, stacked
from reference_models.dice_talk.embedder_losses import info_nce, same_as
from reference_models.dice_talk.speech import LogMel
from reference_models.training import Task, Trained, TrainingError

SMALL = Size(width=16, heads=2, feedforward=32, visual_layers=1, audio_layers=1, cross_layers=2)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


# --- the equations -----------------------------------------------------------------------------------------------


def test_equations_2_and_3_cross_attention() -> None:
    torch.manual_seed(0)
    layer = CrossAttention(replace(SMALL, strength=0.7))
    audio, visual = random(2, 5, 16, seed=1), random(2, 5, 16, seed=2)
    mask = torch.tensor([[True] * 5, [True, True, True, False, False]])
    wq, wk, wv = (f.weight.detach().double().numpy() for f in (layer.query, layer.key, layer.value))
    for i, count in enumerate((5, 3)):
        s_alpha, s_beta = audio[i].double().numpy(), visual[i, :count].double().numpy()
        q, k, v = s_alpha @ wq.T, s_beta @ wk.T, s_beta @ wv.T
        heads = [softmax(q[:, h] @ k[:, h].T / np.sqrt(8)) @ v[:, h] for h in (slice(0, 8), slice(8, 16))]
        expected = s_alpha + 0.7 * np.concatenate(heads, 1)
        found = layer(audio, visual, mask).detach()[i].numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_equations_4_to_6_the_gaussian() -> None:
    scores, sequence = random(3, 6, seed=1), random(3, 6, 4, seed=2)
    mask = torch.arange(6) < torch.tensor([[6], [4], [1]])
    found = pooled(scores, sequence, mask)
    for i, count in enumerate((6, 4, 1)):
        weights = softmax(scores[i, :count].double().numpy())
        s = sequence[i, :count].double().numpy()
        mu = weights @ s
        sigma = np.sqrt(weights @ (s - mu) ** 2)
        np.testing.assert_allclose(found.mean[i], mu, atol=1e-6)
        np.testing.assert_allclose(found.deviation[i], sigma, atol=1e-5)
        epsilon = random(3, 4, seed=5)[i].numpy()
        drawn = found.sample(torch.Generator().manual_seed(5))[i]
        np.testing.assert_allclose(drawn, mu + sigma * epsilon, atol=1e-4)


def test_a_gaussian_of_one_frame_still_has_a_gradient() -> None:
    sequence = random(1, 1, 4).requires_grad_()
    found = pooled(torch.zeros(1, 1), sequence, torch.ones(1, 1, dtype=torch.bool))
    (found.mean + found.deviation).sum().backward()
    assert torch.isfinite(sequence.grad).all()


@pytest.mark.parametrize("constant", [0.0, 1.0])
def test_equations_7_and_8_info_nce(constant: float) -> None:
    """Sums of exponentials over lists; the paper's constant beside the cosine changes nothing."""
    s, classes, tau = random(7, 5).double().numpy(), [0, 0, 1, 1, 1, 2, 3], 0.3

    def omega(a: np.ndarray, b: np.ndarray) -> float:
        return np.exp((a @ b / np.sqrt(a @ a) / np.sqrt(b @ b) + constant) / tau)

    losses = []
    for i in range(7):
        negatives = sum(omega(s[i], s[n]) for n in range(7) if classes[n] != classes[i])
        for p in range(7):
            if p != i and classes[p] == classes[i]:
                losses.append(-np.log(omega(s[i], s[p]) / (omega(s[i], s[p]) + negatives)))
    assert len(losses) == 2 + 6
    found = info_nce(torch.from_numpy(s), torch.tensor(classes), tau)
    assert float(found) == pytest.approx(np.mean(losses), rel=1e-9)


def test_positions_are_those_of_the_transformer() -> None:
    p, i = np.meshgrid(np.arange(9), np.arange(4), indexing="ij")
    angle = p / 10_000 ** (2 * i / 8)
    np.testing.assert_allclose(positions(9, 8)[:, 0::2], np.sin(angle), atol=1e-6)
    np.testing.assert_allclose(positions(9, 8)[:, 1::2], np.cos(angle), atol=1e-6)


def test_a_branch_is_styletalks_encoder_layer_by_layer() -> None:
    """Linear, positions, then twice: attention, sum, normalise, two linear maps, sum, normalise."""
    torch.manual_seed(1)
    branch = Branch(3, 2, SMALL).eval()
    x = random(1, 6, 3)
    h = x @ branch.linear.weight.T + branch.linear.bias + positions(6, 16)
    for layer in branch.layers.layers:
        attention = layer.self_attn
        q, k, v = (h @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(3, -1)
        heads = [torch.softmax(q[..., c] @ k[..., c].mT / 8**0.5, -1) @ v[..., c] for c in (slice(0, 8), slice(8, 16))]
        h = layer.norm1(h + attention.out_proj(torch.cat(heads, -1)))
        h = layer.norm2(h + layer.linear2(torch.relu(layer.linear1(h))))
    torch.testing.assert_close(branch(x, torch.ones(1, 6, dtype=torch.bool)), h, atol=1e-5, rtol=0)


def test_the_full_size_is_styletalks_and_padding_changes_nothing() -> None:
    network = Embedder(64, 1920, Size())
    # 64->256, three layers of 256 with 1024 inside: GENERATORS' 2.4 million without the pooling.
    assert sum(p.numel() for p in network.visual.parameters()) == 64 * 256 + 256 + 3 * 789_760
    network = Embedder(5, 7, SMALL).eval()
    seen, heard = random(1, 9, 5), random(1, 9, 7, seed=3)
    short = network(seen, heard, torch.ones(1, 9, dtype=torch.bool))
    padded = [torch.cat([x, 9 * random(1, 4, x.shape[2])], 1) for x in (seen, heard)]
    long = network(*padded, torch.arange(13)[None] < 9)
    torch.testing.assert_close(long.mean, short.mean, atol=1e-5, rtol=0)
    torch.testing.assert_close(long.deviation, short.deviation, atol=1e-5, rtol=0)


# --- batches -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def views(clips: list[Footage], cache: Path) -> Views:
    """The mesh in three random directions: enough for batches."""
    rng = np.random.default_rng(0)
    shape = talkers.face("a", "sad", 0, 1)[0].astype(np.float64)
    shape -= shape.mean(0)
    seen = Coefficients(
        MESH, np.zeros(3, np.float32), np.ones(3, np.float32), shape / np.linalg.norm(shape), rng.normal(size=(1434, 3))
    )
    return embedder_data.fit(seen, LogMel(), clips, cache)


def test_positives_are_identity_and_emotion_or_one_video() -> None:
    one, other = talkers.talker("a", "sad", 0), talkers.talker("a", "sad", 1)
    assert same_as(one) == same_as(other)
    assert same_as(one) != same_as(talkers.talker("a", "happy")) != same_as(talkers.talker("b", "happy"))
    assert same_as(one) != same_as(replace(one, dataset="else"))
    cuts = [talkers.unlabelled(clip, "film 1") for clip in (one, other)]
    assert same_as(cuts[0]) == same_as(cuts[1]) != same_as(talkers.unlabelled(one, "film 2"))


def test_batches_follow_from_their_number(cache: Path) -> None:
    clips = [
        *talkers.people("a", "b", takes=3, frames=12),
        talkers.unlabelled(talkers.talker("c", "sad", frames=30), "f"),
    ]
    given = views(clips, cache)
    make = Batches(clips, given, classes=5, samples=2, window=16, drop=0.6, seed=3)
    first = make(0)
    assert {name: tuple(t.shape) for name, t in first.items()} == {
        "coefficients": (10, 16, 3), "speech": (10, 16, 160), "mask": (10, 16), "classes": (10,)
    }  # fmt: skip
    for name, tensor in make(0).items():
        assert torch.equal(tensor, first[name])
    assert not torch.equal(make(1)["speech"], first["speech"])
    lost = {"coefficients": 0, "speech": 0}
    for number in range(12):
        batch = make(number)
        assert sorted(batch["classes"].bincount()[batch["classes"].unique()].tolist()) == [2] * 5
        empty = {name: (batch[name] == 0).flatten(1).all(1) for name in lost}
        assert not (empty["coefficients"] & empty["speech"]).any()
        lost = {name: count + int(empty[name].sum()) for name, count in lost.items()}
        assert not batch["speech"][~batch["mask"]].any()
    for count in lost.values():
        assert 20 < count < 52  # of 120, expected 36
    with pytest.raises(TrainingError, match=r"^3 clips of 1 class"):
        Batches(clips[:3], given, classes=2, samples=2, window=16, drop=0.5, seed=0)


def test_windows_of_a_class_come_from_different_clips(cache: Path) -> None:
    clips = talkers.people("a", takes=2, frames=10)
    given = views(clips, cache)
    by_sound = {clip.clip_id: given(clip)[1] for clip in clips}
    batch = Batches(clips, given, classes=3, samples=2, window=10, drop=0.0, seed=0)(0)
    names = [next(n for n, s in by_sound.items() if np.array_equal(s, heard)) for heard in batch["speech"].numpy()]
    assert len(set(names)) == 6


def test_speech_meets_the_frames() -> None:
    heard = np.arange(12, dtype=np.float32).reshape(6, 2, 1)
    np.testing.assert_array_equal(frames(heard, 3), [[1, 2], [5, 6], [9, 10]])
    np.testing.assert_array_equal(frames(heard, 5)[3:], [[9, 10], [9, 10]])
    np.testing.assert_array_equal(frames(heard, 1), [[1, 2]])


# --- training ----------------------------------------------------------------------------------------------------


Clips = dict[str, list[Footage]]


@pytest.fixture(scope="module")
def task(cache: Path, clips: Clips) -> Callable[..., Task]:
    def make(folder: Path, **changes: object) -> Task:
        given = {"preset": "tiny", "stages": ("embedder",), "clips": clips, "folder": folder, "cache": cache}
        return Task(**(given | changes))  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    """With the coefficients of another tool beside them: the mesh in random directions."""
    folder = tmp_path_factory.mktemp("clips")
    made = {"train": talkers.people("a", "b", takes=3, folder=folder), "val": talkers.people("c", folder=folder)}
    basis = np.random.default_rng(0).standard_normal((1434, 64))
    for clip in (*made["train"], *made["val"]):
        beta = clip.points().reshape(40, -1) @ basis
        np.savez(clip.video.with_suffix(".npz"), beta=beta, fps=25.0, type=MORPHABLE)
    return made


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, task: Callable[..., Task]) -> Trained:
    folder = tmp_path_factory.mktemp("embedder") / "model"
    return embedder_training.train(task(folder, steps=30, options={"every": 10}))


def test_emotions_of_strangers_cluster(trained: Trained, cache: Path) -> None:
    """Every modality alone and both, on people of no split, against shuffled emotions."""
    assert "18 clips of 6 classes, mesh-64 and log-mel" in trained.remarks[-1]
    embedder = embedding.load(trained.path, "tiny", cache=cache)
    strangers = talkers.people("x", "y", takes=3)
    for modality in embedding.MODALITIES:
        table = Embeddings(
            np.array([clip.identity for clip in strangers]),
            np.array([clip.emotion for clip in strangers]),
            np.stack([embedding.prior(embedder, clip, modality)[0] for clip in strangers]),
        )
        strength = permutation_test(table, "pairwise", normalise=False, permutations=200)[-1]
        assert strength.value > strength.null_high, modality
        assert strength.p < 0.01, modality


def test_a_killed_training_resumes_to_the_same_bytes(
    tmp_path: Path, task: Callable[..., Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"every": 2, "window": 8, "coefficients": MORPHABLE}
    asked = {name: task(tmp_path / name, steps=5, options=options) for name in ("whole", "killed", "again")}
    expected = embedder_training.train(asked["whole"]).path.read_bytes()
    assert embedder_training.train(asked["again"]).path.read_bytes() == expected
    make = Batches.__call__

    def killed(self: Batches, number: int) -> embedder_data.Batch:
        if number == 3:
            raise KeyboardInterrupt
        return make(self, number)

    with monkeypatch.context() as patched:
        patched.setattr(Batches, "__call__", killed)
        with pytest.raises(KeyboardInterrupt):
            embedder_training.train(asked["killed"])
    assert not (tmp_path / "killed" / "dice-talk-embedder.safetensors").exists()
    assert sorted(p.name for p in (tmp_path / "killed" / "embedder").glob("step-*")) == ["step-00000002"]
    assert embedder_training.train(asked["killed"]).path.read_bytes() == expected


def test_the_best_step_is_kept(trained: Trained) -> None:
    best = load_file(trained.path.parent / "embedder" / "best.safetensors")
    kept = load_file(trained.path)
    assert all(torch.equal(kept[f"network.{name}"], tensor) for name, tensor in best.items())


def test_the_control_has_the_sound_and_emotion_of_others() -> None:
    clips = talkers.people("a", "b", takes=3)
    mixed = embedder_data.shuffled(clips, 0)
    assert [clip.clip_id for clip in mixed] == [clip.clip_id for clip in clips]
    assert [clip.points for clip in mixed] == [clip.points for clip in clips]
    assert sorted(clip.emotion for clip in mixed) == sorted(clip.emotion for clip in clips)
    assert sum(a.audio is b.audio for a, b in zip(mixed, clips, strict=True)) < 4
    heard = {clip.audio: clip.emotion for clip in clips}
    assert all(heard[clip.audio] == clip.emotion for clip in mixed)
    assert len({clip.key for clip in (*mixed, *clips)}) == 2 * len(clips)
    assert embedder_data.shuffled(clips, 0) == mixed != embedder_data.shuffled(clips, 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"widow": 3}, "option 'widow'; expected one of coefficients, speech, window"),
        ({"window": "long"}, "option window = 'long'; expected int, as 32"),
        ({"samples": 1}, "samples = 1; expected"),
        ({"coefficients": "flame"}, "coefficients 'flame'; expected one of"),
        ({"coefficients": "blendshapes-52"}, "blendshapes-52 needs face-landmarker"),
    ],
)
def test_options_that_do_not_exist_are_said(
    options: dict[str, object], said: str, tmp_path: Path, task: Callable[..., Task]
) -> None:
    with pytest.raises(TrainingError, match=said):
        embedder_training.train(task(tmp_path / "m", steps=1, options=options))


def test_without_whisper_the_full_preset_hears_by_another_name(tmp_path: Path, task: Callable[..., Task]) -> None:
    preset = embedder_training._PRESETS["full"]
    small = replace(preset, size=SMALL, classes=2, samples=2, window=8)
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(embedder_training._PRESETS, "full", small)
        done = embedder_training.train(task(tmp_path / "m", preset="full", steps=1))
    assert "whisper-tiny is not on this machine: trained on log-mel" in done.remarks[0]
    assert embedding.load(done.path).views.speech.id == "log-mel"


# --- the embedder at work ----------------------------------------------------------------------------------------


def test_a_modality_is_all_that_is_looked_at(trained: Trained) -> None:
    embedder = embedding.load(trained.path)
    clip, other = talkers.talker("x", "sad"), talkers.talker("y", "happy", 1)
    swapped = replace(clip, points=other.points)
    assert embedding.prior(embedder, clip).shape == (1, 256)
    assert embedding.prior(embedder, clip).dtype == np.float32
    for modality, same in (("audio", True), ("video", False), ("both", False)):
        pair = [embedder(c, modality).mean for c in (clip, swapped)]
        assert np.array_equal(*pair) == same
    loud = replace(clip, audio=other.audio)
    assert np.array_equal(embedder(clip, "video").mean, embedder(loud, "video").mean)


def test_a_long_clip_is_the_mixture_of_its_windows(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = embedding.load(trained.path)
    clip = talkers.talker("x", "sad", frames=75)  # windows of 32 at most: three of 25
    seen, heard = embedder.views(clip)
    with torch.no_grad():
        parts = [embedder.network(*stacked([cut((seen[a : a + 25], heard[a : a + 25]), 25)]).values()) for a in (0, 25, 50)]  # fmt: skip  # noqa: E501
    means, variances = (np.stack([f(p) for p in parts]) for f in (lambda p: p.mean[0], lambda p: p.deviation[0] ** 2))
    found = embedder(clip)
    np.testing.assert_allclose(found.mean, means.mean(0), atol=1e-5)
    np.testing.assert_allclose(found.deviation, np.sqrt(variances.mean(0) + means.var(0)), atol=1e-4)
    monkeypatch.setattr(embedding, "BATCH", 2)
    np.testing.assert_allclose(embedder(clip).mean, found.mean, atol=1e-5)


@pytest.mark.parametrize(("count", "samples"), [(1, 1600), (3, 1600), (33, 160_000)])
def test_odd_clips_have_a_finite_prior(trained: Trained, count: int, samples: int) -> None:
    """Of a single frame, silent, with sound of 0.1 s or much longer than the pictures."""
    embedder = embedding.load(trained.path)
    clip = replace(talkers.talker("x", "sad", frames=count), audio=lambda: np.zeros(samples, np.float32))
    found = embedder(clip)
    assert np.isfinite(found.mean).all()
    assert (found.deviation >= 0).all()


def test_what_cannot_be_embedded_is_one_line(trained: Trained) -> None:
    embedder = embedding.load(trained.path)
    clip = talkers.talker("x", "sad")
    for changes, said in (
        (
            {"audio": lambda: np.zeros(0, np.float32)},
            r"^x_sad_0: sound of shape \(0,\); expected \(n,\) finite samples",
        ),
        ({"points": lambda: np.full((40, 478, 3), np.nan, np.float32)}, "^x_sad_0: a face mesh that is not finite"),
    ):
        with pytest.raises(GenerationError, match=said):
            embedder(replace(clip, **changes))
