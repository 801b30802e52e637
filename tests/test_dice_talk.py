"""DICE-Talk end to end at a size of seconds: data, training, sampling, files, and what goes wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import talkers
import torch
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from benchmark import generate, interpolation
from benchmark.cli import bench
from benchmark.errors import BenchError
from reference_models import squares
from reference_models.base import CHUNK, Footage, GenerationError, Request
from reference_models.copies import PLACES, RIGID, SPREAD, mouth, steadied
from reference_models.dice_talk import (
    checkpoints,
    data,
    embedder_training,
    losses,
    presets,
    priors,
    sampling,
    tokens,
    training,
)
from reference_models.dice_talk.model import DiceTalk, Given, autoencoder, image_encoder
from reference_models.dice_talk.presets import PRESETS
from reference_models.dice_talk.sample import Heard, OursP, OursV, Published, between, changing, doubled
from reference_models.dice_talk.speech import LogMel, windows
from reference_models.training import Task, Trained, TrainingError

SMALL: dict[str, Any] = {
    "pixels": 32,
    "window": 3,
    "shift": 1,
    "widths": (32, 32),
    "encoder": (1, 32, 8, 16),
    "hidden": 16,
    "denoising_steps": 2,
    "steps": 3,
    "batch": 2,
    "warmup": 1,
    "validate_every": 2,
    "autoencoder_steps": 2,
    "token_steps": 2,
    "learning_rate": 0.03,
    "ema": 0.5,
    "copies": 2,
}
MICRO = replace(PRESETS["tiny"], **SMALL)
# As the full one is: the temporal autoencoder, whose latents are denoised as they are.
TEMPORAL = replace(
    MICRO, square=0, latents=4, autoencoder=(32, 32, 32, 32), autoencoder_layers=1, from_reference=False, copies=1
)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


def actor(identity: str, emotion: str, take: int = 0, frames: int = 12) -> Footage:
    """A talker with pictures, 64 x 64: noise of the person, and a mouth that opens."""
    clip = talkers.talker(identity, emotion, take, frames)

    def pictures() -> Iterator[np.ndarray]:
        own = np.random.default_rng(len(identity) + ord(identity[0])).integers(0, 255, (8, 8, 3), np.uint8)
        for i in range(frames):
            picture = own.repeat(8, 0).repeat(8, 1)
            picture[40 : 42 + i % 4, 24:40] = 0
            yield picture

    points = clip.points
    return replace(clip, frames=pictures, points=lambda: points() * np.float32(0.25))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def clips() -> dict[str, list[Footage]]:
    made = [actor(who, how, take) for who in "ab" for how in ("neutral", "happy", "sad") for take in (0, 1)]
    return {"train": [*made, actor("a", "sad", frames=4)], "val": [actor("c", "happy"), actor("c", "sad")]}


@pytest.fixture(scope="module")
def task(workspace: Path, clips: dict[str, list[Footage]]) -> Callable[..., Task]:
    def make(name: str = "dice-talk-tiny", **changes: Any) -> Task:
        given = {"preset": "tiny", "stages": training.STAGES, "clips": clips, "options": SMALL}
        return Task(**(given | {"folder": workspace / name, "cache": workspace / "cache"} | changes))

    return make


@pytest.fixture(scope="module")
def embedder(workspace: Path, task: Callable[..., Task]) -> Path:
    """Trained for one step: any prior that follows from a clip will do."""
    name = "dice-talk-embedder"
    return embedder_training.train(task(f"{name}-tiny", stages=("embedder",), steps=1, options={})).path


@pytest.fixture(scope="module")
def trained(task: Callable[..., Task], embedder: Path) -> Trained:
    return training.train(task())


@pytest.fixture(scope="module")
def files(trained: Trained, workspace: Path) -> dict[str, Path]:
    own = workspace / "dice-talk-autoencoder-tiny" / "dice-talk-autoencoder.safetensors"
    return {"model": trained.path, "autoencoder": own, "priors": trained.path.with_name("priors.npz")}


class Blend:
    """In RIFE's place where its weights would only cost time: the mean of two pictures."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        pass

    def between(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return ((a.astype(int) + b) // 2).astype(np.uint8)


@pytest.fixture
def ours_p(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> OursP:
    monkeypatch.setattr("reference_models.dice_talk.sample.Rife", Blend)
    return OursP(**files, rife=Path("rife"), preset="tiny")


def request(**changes: Any) -> Request:
    clip = actor("a", "neutral")
    given = {
        "reference": next(iter(clip.frames())),
        "audio": talkers.sound("happy", 0, 11),
        "sample_rate": 16_000,
        "emotion": "happy",
        "intensity": 1,
        "num_frames": 11,
        "fps": 25.0,
        "seed": 3,
        "target_frames": lambda: iter(()),
        "points": lambda: clip.points()[0],
    }
    return Request(**(given | changes))


def video(generator: Any, **changes: Any) -> np.ndarray:
    chunks = list(generator.generate(request(**changes)))
    assert all(1 <= len(chunk) <= CHUNK for chunk in chunks)
    return np.concatenate(chunks)


# --- the full size -------------------------------------------------------------------------------------------------


def test_the_full_model_has_the_published_size_and_names() -> None:
    with torch.device("meta"):
        model = DiceTalk(PRESETS["full"], checkpoints.WHISPER_SIZE)
        vae, encoder = autoencoder(PRESETS["full"]), image_encoder(PRESETS["full"])

    def count(module: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    streams = {name: p for name, p in model.unet.named_parameters() if ".processor." in name}
    assert sum(p.numel() for p in streams.values()) == 102_236_160  # 102.2 M
    assert count(model.unet) - 102_236_160 == 1_524_623_082  # 1,524.6 M of SVD-XT
    assert (count(model.audio_linear), count(model.emo_model)) == (54_300_672, 74_860_822)
    assert (count(model.pose_guider), count(vae), count(encoder)) == (1_086_480, 97_742_847, 632_076_800)
    places = {name.removesuffix(".to_k_ip.0.weight") for name in streams if name.endswith("to_k_ip.0.weight")}
    assert len(places) == 32
    assert all("attn2.processor" in place for place in places)
    assert streams.keys() == {f"{p}.to_{kv}_ip.{i}.weight" for p in places for kv in "kv" for i in (0, 1)}


def test_published_files_fill_the_model_key_by_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(presets.PRESETS, "full", MICRO)
    monkeypatch.setattr(checkpoints, "WHISPER_SIZE", 160)
    torch.manual_seed(0)
    source = DiceTalk(MICRO, 160)
    paths = {part: tmp_path / f"{part}.pth" for part in checkpoints.PUBLISHED}
    for part, path in paths.items():
        torch.save(getattr(source, part).state_dict(), path)
    model, _ = checkpoints.published(**paths)
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert model.state_dict().keys() == source.state_dict().keys()
    assert not caplog.messages

    stored = source.pose_guider.state_dict()
    torch.save({**stored, "extra.weight": torch.zeros(1)}, paths["pose_guider"])
    assert torch.equal(checkpoints.published(**paths)[0].pose_guider.conv_in.bias, stored["conv_in.bias"])
    assert caplog.messages == ["pose_guider.pth: not used: extra.weight"]
    for changed, said in (
        ({name: t for name, t in stored.items() if name != "conv_in.bias"}, r"lacks conv_in\.bias"),
        ({**stored, "conv_in.bias": torch.zeros(3)}, r"has another shape of conv_in\.bias"),
        ({"module": Path()}, r"pose_guider\.pth: damaged, or no weights"),
    ):
        torch.save(changed, paths["pose_guider"])
        with pytest.raises(GenerationError, match=said):
            checkpoints.published(**paths)


def test_svd_starts_the_unet_and_its_streams(tmp_path: Path) -> None:
    torch.manual_seed(0)
    svd = {n: t for n, t in DiceTalk(MICRO, 160).unet.state_dict().items() if ".processor." not in n}
    torch.save(svd, tmp_path / "svd.pth")
    torch.manual_seed(1)
    model = DiceTalk(MICRO, 160)
    checkpoints.initialise(model, tmp_path / "svd.pth")
    now = model.unet.state_dict()
    assert all(torch.equal(now[name], tensor) for name, tensor in svd.items())
    streams = [name for name in now if "to_k_ip" in name]
    assert streams
    assert all(torch.equal(now[n], svd[n.split("processor")[0] + "to_k.weight"]) for n in streams)


@pytest.mark.parametrize("changes", [{}, {"precision": "bf16"}, *({"bank": bank} for bank in ("learnable", "none"))])
def test_blocks_computed_anew_give_the_same_gradients(changes: dict[str, str]) -> None:
    """Gradient checkpointing changes no gradient; and all that requires one gets one, for which several processes wait:
    each is a training step of the full preset's kind."""
    found = []
    for again in (False, True):
        preset = replace(TEMPORAL, checkpointing=again, bank=changes.get("bank", "quantised"))
        torch.manual_seed(0)
        model = DiceTalk(preset, 160).train()
        assert model.unet.is_gradient_checkpointing == again
        batch = data.batches(complete(preset), preset, 1.0, 0)(0)
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled="precision" in changes):
            terms = losses.objective(model, batch, torch.Generator().manual_seed(2), preset)
        torch.stack([term.float() for term in terms.values()]).sum().backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    plain, anew = found
    assert all(gradient is not None and gradient.isfinite().all() for gradient in plain.values())
    assert plain.keys() == anew.keys()
    assert all(torch.allclose(plain[name], anew[name], rtol=1e-4, atol=1e-6) for name in plain)


def complete(preset: presets.Preset) -> list[data.Example]:
    """Random arrays of two clips, of the sizes of a preset."""
    rng, side = np.random.default_rng(0), preset.pixels // preset.factor

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    return [
        data.Example(
            talkers.talker("a", how),
            normal(12, preset.latents, side, side),
            normal(data.REFERENCES, preset.cross),
            normal(34, 1, 160),
            np.ones((data.REFERENCES, preset.pixels, preset.pixels), bool),
            (normal(preset.prior), abs(normal(preset.prior))),
        )
        for how in ("happy", "neutral")
    ]


# --- data ----------------------------------------------------------------------------------------------------------


def examples(*clips: Footage, frames: int = 12) -> list[data.Example]:
    rng = np.random.default_rng(0)
    return [
        data.Example(
            clip,
            np.stack([np.full((4, 2, 2), 100 * k + f, np.float32) for f in range(frames)]),
            np.full((data.REFERENCES, 5), k, np.float32),
            np.pad(np.arange(1, 2 * frames + 1, dtype=np.float32)[:, None, None] + 1000 * k, ((4, 6), (0, 0), (0, 0))),
            rng.random((data.REFERENCES, 8, 8)) > 0.5,
            (np.full(256, k, np.float32), np.ones(256, np.float32)),
        )
        for k, clip in enumerate(clips)
    ]


def test_a_window_sees_and_hears_the_same_moments() -> None:
    clips = [talkers.talker("a", how) for how in ("happy", "neutral", "neutral")]
    preset = replace(MICRO, drops=(0, 0, 0, 0), batch=6, from_reference=False)
    batch = data.batches(examples(*clips), preset, 2.0, 0)(0)
    for row in range(6):
        k, first = divmod(int(batch.latents[row, 0, 0, 0, 0] / 2), 100)
        frames = batch.latents[row, :, 0, 0, 0] / 2 - 100 * k
        assert frames.tolist() == [first, first + 2, first + 4]  # 12.5 of 25 frames/s
        for f, heard in zip(frames.int().tolist(), batch.heard[row, :, :, 0, 0], strict=True):
            there = [2 * f + j + 1 if 0 <= 2 * f + j < 24 else 0 for j in range(-4, 6)]
            assert heard.tolist() == [1000 * k + t if t else 0 for t in there]
        assert batch.mean[row, 0] == k
        shown = int(batch.image[row, 0, 0, 0]) // 100
        assert shown == batch.seen[row, 0]
        assert shown != k  # the same person neutral, in another clip
        assert clips[shown].emotion == "neutral"
        assert batch.label[row] == data.label(clips[k].emotion, clips[k].intensity)


def test_what_is_denoised_is_the_change_from_the_reference() -> None:
    given = examples(*(talkers.talker("a", how) for how in ("happy", "neutral", "neutral")))
    whole, change = (
        data.batches(given, replace(MICRO, drops=(0, 0, 0, 0), from_reference=told), 2.0, 0)(0)
        for told in (False, True)
    )
    assert torch.equal(change.latents, whole.latents - 2.0 * whole.image[:, None])


def test_tokens_learn_from_what_a_window_hears_and_feels() -> None:
    clips = [talkers.talker("a", how, take) for how in ("happy", "sad") for take in (0, 1)]
    for shuffled in (False, True):
        preset = replace(MICRO, shuffle_conditions=shuffled)
        heard, shape, prior, word = tokens.batches(examples(*clips), preset, 0)(0)
        assert (heard.shape[1:], shape.shape[1:], prior.shape[1:]) == ((10, 1, 1), (4,), (256,))
        told = data.donors(len(clips), preset, 0)
        own = {i: mouth(one.points()) / SPREAD for i, one in enumerate(clips)}
        for row in range(len(word)):
            i = next(i for i in own if (np.abs(own[i] - shape[row].numpy()).max(1) < 1e-6).any())
            assert abs(prior[row].mean() - told[i]) < 0.5  # of deviation 1 / 16
            assert word[row] == data.label(clips[told[i]].emotion, clips[told[i]].intensity)
            assert (told[i] != i) == shuffled


def test_squares_are_the_principal_components() -> None:
    rng = np.random.default_rng(0)
    clips = [rng.integers(0, 255, (8, 16, 16, 3), np.uint8) for _ in range(40)]
    preset = replace(MICRO, latents=5)
    codec = squares.Squares(preset.square, preset.latents)
    codec.fill(clips)
    seen = np.concatenate([clip[:: squares.EVERY] for clip in clips]) / 127.5 - 1  # (80, 16, 16, 3)
    rows = seen.reshape(-1, 2, 8, 2, 8, 3).transpose(0, 1, 3, 5, 2, 4).reshape(-1, 192)
    mean = rows.mean(0)
    axes = np.linalg.svd(rows - mean, full_matrices=False)[2][:5]
    again = (rows - mean) @ axes.T @ axes + mean
    pictures = torch.from_numpy(seen).permute(0, 3, 1, 2).float()
    latents = codec.encode(pictures)
    made = codec.decode(latents).permute(0, 2, 3, 1).numpy()
    assert latents.shape == (80, 5, 2, 2)
    assert np.allclose(made.reshape(-1, 2, 8, 2, 8, 3).transpose(0, 1, 3, 5, 2, 4).reshape(-1, 192), again, atol=1e-4)
    spread = np.linalg.svd(rows - mean, compute_uv=False)[:5] / len(rows) ** 0.5
    assert np.allclose(latents.std((0, 2, 3), correction=0), spread**0.5, rtol=1e-3)
    change = torch.cat([codec.encode(squares.tensor(c[-1:])) - codec.encode(squares.tensor(c[:1])) for c in clips])
    assert codec.scaling == pytest.approx(1 / change.std().item(), rel=1e-5)


def test_a_steadied_head_keeps_its_place() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 64, (478, 3)).astype(np.float32)
    angle, here = 0.2, np.array(PLACES) * 64
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points[RIGID, :2] = 1.1 * (here - 32) @ turn.T + [35.0, 28.0]
    picture = np.zeros((64, 64, 3), np.uint8)
    x, y = points[RIGID[0], :2].round().astype(int)
    picture[y - 1 : y + 2, x - 1 : x + 2] = 255
    made, moved = steadied(picture, points)
    assert np.allclose(moved[RIGID, :2], here, atol=1e-3)
    weight = made[:, :, 0] / made[:, :, 0].sum()
    centre = [(weight.sum(0) * np.arange(64)).sum(), (weight.sum(1) * np.arange(64)).sum()]
    assert np.allclose(centre, here[0], atol=1.0)


def test_labelled_and_other_clips_are_one_to_one_and_conditions_drop() -> None:
    clips = [talkers.talker("a", "happy", take) for take in range(3)] + [
        talkers.unlabelled(talkers.talker("b", "sad"), "film")
    ]
    batch = data.batches(examples(*clips), replace(MICRO, batch=400), 1.0, 0)
    found = batch(7)
    assert (found.label == data.UNLABELLED).sum() == 200
    audio, image, emotion = found.dropped.float().mean(0).tolist()
    assert all(0.05 < share < 0.16 for share in (audio, image, emotion))  # 5 % alone, and 5 % with the others
    assert 0.02 < found.dropped.all(1).float().mean() < 0.09
    again = batch(7)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    assert not torch.equal(batch(8).latents, found.latents)


def test_shuffled_conditions_are_always_of_another_clip() -> None:
    clips = [talkers.talker("a", how, take) for how in talkers.EMOTIONS for take in (0, 1)]
    preset = replace(MICRO, batch=60, drops=(0, 0, 0, 0), shuffle_conditions=True, from_reference=False)
    batch = data.batches(examples(*clips), preset, 1.0, 0)(0)
    pictured, felt = batch.latents[:, 0, 0, 0, 0] // 100, batch.mean[:, 0]
    assert (pictured != felt).all()
    pairs = {(int(a), int(b)) for a, b in zip(pictured, felt, strict=True)}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) == 6  # one other, for good


def test_classes() -> None:
    every = [data.label(emotion, level) for emotion in presets.EMOTIONS for level in (1, 2, 3)]
    assert sorted([data.label("neutral", None), *every]) == list(range(22))
    for emotion, level in (("unlabelled", None), ("calm", 1), ("happy", None), ("happy", 4)):
        assert data.label(emotion, level) == data.UNLABELLED


def test_the_mask_is_the_box_of_the_mesh_a_tenth_larger() -> None:
    points = np.zeros((478, 3), np.float32)
    points[:, 0], points[:, 1] = np.linspace(20, 40, 478), np.linspace(30, 50, 478)
    mask = data.face_mask(points, (64, 60))
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (29, 50, 19, 40)
    assert mask.sum() == 22 * 22
    for wrong in (points + 1000, points * np.nan, points[:5]):
        with pytest.raises(GenerationError, match=r"^no face"):
            data.face_mask(wrong, (64, 60))


# --- training ------------------------------------------------------------------------------------------------------


def test_training_leaves_a_model_that_says_what_it_is(trained: Trained, task: Callable[..., Task]) -> None:
    assert any("1 clips left out: fewer than 5 frames" in remark for remark in trained.remarks)
    assert (trained.path.parent / "samples" / "step-00000002.png").exists()
    model, preset, config = checkpoints.trained(trained.path, "tiny")
    assert preset == MICRO
    assert config["speech"] == "log-mel"
    bank = model.emo_model.codebook.codebook.weight
    assert bank.std() > 0.01
    with pytest.raises(GenerationError, match="is of dice-talk, preset tiny; expected dice-talk, preset full"):
        checkpoints.trained(trained.path, "full")


def test_a_killed_training_resumes_to_the_same_bytes(
    task: Callable[..., Task], trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective, calls = training.losses.objective, []

    def killed(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 3 + training.VALIDATION:
            raise KeyboardInterrupt
        return objective(*given)

    with monkeypatch.context() as patched:
        patched.setattr(training.losses, "objective", killed)
        with pytest.raises(KeyboardInterrupt):
            training.train(task("killed"))
    assert sorted(p.name for p in (task("killed").folder / "diffusion").glob("step-*")) == ["step-00000002"]
    assert training.train(task("killed")).path.read_bytes() == trained.path.read_bytes()


@pytest.mark.parametrize("ablation", training.ABLATIONS)
def test_each_ablation_is_another_model(
    ablation: str, task: Callable[..., Task], trained: Trained, clips: dict[str, list[Footage]]
) -> None:
    few = {"train": clips["train"]}
    done = training.train(task(f"dice-talk-tiny-{ablation}", ablation=ablation, steps=1, clips=few))
    _, preset, _ = checkpoints.trained(done.path, "tiny")
    assert replace(preset, bank="quantised", mean_prior=False, discrimination=MICRO.discrimination) == MICRO
    assert preset != MICRO
    bank = "emo_model.codebook.fc.weight"
    moved = not torch.equal(load_file(done.path)[bank], load_file(trained.path)[bank])
    assert moved


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"options": {"widow": 3}}, "option 'widow'; expected one of pixels, window"),
        ({"options": {"window": "long"}}, "option window = 'long'; expected int, as 3"),
        ({"options": {"window": 0}}, "option window = 0; expected int, as 3"),
        ({"options": {"sigma": [1]}}, r"option sigma = \(1,\); expected tuple, as \(3\.0, 0\.5\)"),
        ({"options": {"classifier": [0, 8]}}, r"option classifier = \(0, 8\); expected tuple, as \(64, 32\)"),
        ({"options": {"prior": 128}}, "option prior = 128; expected prior = 256, that of the embedder"),
        ({"options": {"pixels": 60}}, "option pixels = 60; expected pixels a multiple of 16"),
        ({"options": {"latents": 500}}, "option latents = 500; expected latents of at most 192, a square's numbers"),
        ({"options": {"drops": [0.9, 0.9, 0, 0]}}, "expected drops of 0 to 1 in all"),
        ({"options": {"bank": "all"}}, "option bank = 'all'; expected bank one of quantised, learnable, none"),
        ({"options": {"widths": [30, 60]}}, r"option widths = \(30, 60\); no model can be made so \(num_channels"),
        (
            {"preset": "full", "options": {}},
            "preset full needs svd-xt-vae and svd-xt-image-encoder; `bench weights add svd-xt-vae FILE`",
        ),
        ({"preset": "full", "stages": ("autoencoder",), "options": {}}, "preset full has no stage autoencoder"),
        ({"options": SMALL | {"window": 20}}, "no clip of at least 39 frames in the train split"),
    ],
)
def test_a_training_that_cannot_start_says_why(
    changes: dict[str, Any], said: str, task: Callable[..., Task], trained: Trained
) -> None:
    with pytest.raises(TrainingError, match=said):
        training.train(task("wrong", **changes))


def test_without_an_embedder_the_command_is_named(task: Callable[..., Task], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"bench train dice-talk-embedder --preset tiny"):
        training.train(task(folder=tmp_path / "dice-talk-tiny"))


def test_every_ablation_follows_the_whole_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def train(model: str, manifests: Any, workspace: Path, settings: Any) -> Trained:
        asked.append(settings.ablation)
        return Trained(Path(f"{model}-{settings.ablation}"), [])

    monkeypatch.setattr("benchmark.training.train", train)
    monkeypatch.setattr("benchmark.prepare.find_manifest", lambda *_: Path("manifest"))
    words = ["--workspace", str(tmp_path), "train", "dice-talk", "--data", "demo", "--ablation"]
    done = CliRunner().invoke(bench, [*words, "all"], catch_exceptions=False)
    assert done.exit_code == 0
    assert asked == ["", *training.ABLATIONS]
    assert "dice-talk-mean-prior" in done.output
    methods = [generate.load_method(f"ours-p-tiny-{name}", tmp_path) for name in training.ABLATIONS]
    assert all(method.checkpoints["model"].startswith(f"dice-talk-tiny-{name}/") for method, name in zip(
        methods, training.ABLATIONS, strict=True
    ))  # fmt: skip


# --- sampling ------------------------------------------------------------------------------------------------------


def test_a_step_is_that_of_diffusers_scheduler() -> None:
    from diffusers import EulerDiscreteScheduler

    levels = sampling.sigmas(PRESETS["full"], 25)
    assert len(levels) == 26
    assert levels[0] == pytest.approx(700.0, rel=1e-4)
    assert np.log(levels[0]) / 4 == pytest.approx(1.6378, abs=1e-4)
    assert levels[-1] == 0
    scheduler: Any = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        use_karras_sigmas=True, timestep_spacing="leading", timestep_type="continuous", sigma_min=0.002, sigma_max=700.0
    )  # fmt: skip
    scheduler.set_timesteps(25)
    now, made = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    scheduler.set_begin_index(10)
    expected = scheduler.step(made, scheduler.timesteps[10], now).prev_sample
    found = sampling.euler(now.numpy(), made.numpy(), levels[10], levels[11])
    assert np.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("total", [3, 8, 9, 10])
@pytest.mark.parametrize("shift", [0, 1, 2])
def test_windows_cover_every_frame(total: int, shift: int) -> None:
    found = list(sampling.windows(total, 3, shift))
    assert len(found) == -(-total // 3)
    count = np.bincount(np.concatenate(found), minlength=total)
    assert count.min() >= 1
    assert count.sum() == 3 * len(found)
    assert all(((np.diff(window) == 1) | (np.diff(window) == 1 - total)).all() for window in found)
    assert found[0][0] == -shift % total


def test_one_pass_of_three_is_three_passes() -> None:
    torch.manual_seed(0)
    model = DiceTalk(MICRO, 160).eval().requires_grad_(False)
    side, frames = 4, 3
    three = Given(
        torch.randn(3, MICRO.latents, side, side),
        torch.randn(3, 32),
        torch.randn(3, frames, 4, 32),
        torch.randn(3, frames, 4, 32),
        (torch.rand(1, 3, 32, 32) > 0.5).float().expand(3, -1, -1, -1),
    )
    scaled, sigma = torch.randn(1, frames, MICRO.latents, side, side), torch.tensor([2.0])
    a, b, c = (
        model.denoise(
            scaled, sigma, Given(*(getattr(three, n)[k : k + 1] for n in ("image", "seen", "audio", "emotion", "mask")))
        )
        for k in range(3)
    )
    made = sampling.guided(model, scaled, sigma, three, (3.0, 6.0))
    assert torch.allclose(made, a + 3 * (b - a) + 6 * (c - b), atol=1e-4)
    assert not torch.allclose(b, c, atol=1e-4)


def test_a_frame_hears_what_it_does_in_training() -> None:
    audio = talkers.sound("happy", 0, 30)
    heard = Heard(LogMel(), audio, 15)
    assert np.allclose(heard(np.arange(15)), windows(LogMel()(audio)), atol=1e-6)
    longer = Heard(LogMel(), audio, 20)(np.arange(20))  # silence follows
    assert longer.shape == (20, 10, 1, 160)


def test_between_pictures_and_emotions() -> None:
    pictures = np.arange(7, dtype=np.uint8)[:, None, None, None] * np.full((1, 2, 2, 3), 10, np.uint8)
    made = np.concatenate(list(doubled(iter([pictures[:3], pictures[3:6], pictures[6:]]), Blend(Path()))))  # type: ignore[arg-type]
    assert made[:, 0, 0, 0].tolist() == list(range(0, 61, 5))
    a, b = np.zeros(4, np.float32), np.ones(4, np.float32)
    assert between(a, b, 0.25).tolist() == [0.25] * 4
    felt = changing([(1.0, a), (2.0, b), (4.0, a)])
    assert felt(np.array([0, 1, 1.5, 2, 3, 9]))[:, 0].tolist() == [0, 0, 0.5, 1, 0.5, 0]
    assert changing([(0.0, b)])(np.array([0.0, 5.0]))[:, 0].tolist() == [1, 1]


def test_ours_p_makes_what_was_asked(ours_p: OursP) -> None:
    made = video(ours_p)
    assert made.shape == (11, 64, 64, 3)
    assert made.dtype == np.uint8
    assert np.array_equal(video(ours_p), made)
    assert not np.array_equal(video(ours_p, seed=4), made)
    assert not np.array_equal(video(ours_p, emotion="sad"), made)
    assert not np.array_equal(video(ours_p, audio=talkers.sound("sad", 1, 11)), made)


@pytest.mark.parametrize(
    "changes",
    [
        {"audio": np.zeros(11 * 640, np.float32)},  # silent
        {"audio": np.zeros(1600, np.float32), "num_frames": 2},  # 0.1 s
        {"num_frames": 1},
        {"reference": np.full((480, 320, 3), 90, np.uint8), "num_frames": 3},
        {"emotion": "unlabelled", "num_frames": 3},
    ],
)
def test_unusual_requests_are_served(ours_p: OursP, changes: dict[str, Any]) -> None:
    made = video(ours_p, **changes)
    reference = changes.get("reference", np.zeros((64, 64, 3)))
    assert made.shape == (changes.get("num_frames", 11), *reference.shape)


def test_the_frames_of_a_large_portrait_come_one_by_one(ours_p: OursP) -> None:
    given = request(reference=np.full((1200, 900, 3), 90, np.uint8), num_frames=5)
    assert [chunk.shape for chunk in ours_p.generate(given)] == 5 * [(1, 1200, 900, 3)]  # of 27 MB at 3000 x 3000


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"emotion": "bored"}, "no prior of emotion 'bored'; there are happy, neutral, sad"),
        ({"points": lambda: np.full((478, 3), np.nan, np.float32)}, "no face"),
        ({"points": None}, "no face mesh of the reference"),
        ({"reference": np.zeros((64, 64, 4), np.uint8)}, r"\(64, 64, 4\), uint8; expected \(H, W, 3\) uint8 RGB"),
        ({"reference": np.zeros((64, 64), np.uint8)}, r"\(64, 64\), uint8; expected"),
        ({"reference": np.zeros((8, 8, 3), np.uint8)}, "8x8 pixels; expected at least 16"),
        ({"reference": np.zeros((16, 900, 3), np.uint8)}, "900x16; expected sides at most 4 : 1"),
        ({"audio": np.full(5000, np.nan, np.float32)}, "finite"),
        ({"fps": 30.0}, "30 fps, 16000 Hz; expected 25 and 16000"),
    ],
)
def test_requests_that_cannot_be_served_say_why(ours_p: OursP, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(GenerationError, match=said) as told:
        video(ours_p, **changes)
    assert "\n" not in str(told.value)


def test_ours_v_takes_the_emotion_of_a_video(
    files: dict[str, Path], embedder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reference_models.dice_talk.sample.Rife", Blend)
    given = {"model": files["model"], "autoencoder": files["autoencoder"], "rife": Path("rife"), "preset": "tiny"}
    ours_v = OursV(**given, embedder=embedder)
    happy, sad = (video(ours_v, emotion_video=actor("b", how), num_frames=3) for how in ("happy", "sad"))
    assert not np.array_equal(happy, sad)
    with pytest.raises(GenerationError, match="no video shows the emotion"):
        video(ours_v)


def test_files_that_do_not_belong_together_are_refused(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reference_models.dice_talk.sample.Rife", Blend)
    other = replace(priors.read(files["priors"]), embedder="another")
    priors.write(other, tmp_path / "priors.npz")
    with pytest.raises(GenerationError, match=r"priors\.npz: made with another embedder"):
        OursP(**(files | {"priors": tmp_path / "priors.npz"}), rife=Path("rife"), preset="tiny")
    with safe_open(files["model"], "pt") as opened:
        config = json.loads(opened.metadata()["config"])
    for changes, said in (
        ({"embedder": None}, r"other\.safetensors: of another configuration \('embedder'\)"),
        ({"fields": {**config["fields"], "widths": [32, 64]}}, r"other\.safetensors: of another configuration"),
        ({"vision": "0"}, r"other\.safetensors: trained on another autoencoder"),
        ({"speech": "whisper-tiny@12345678"}, r"trained on whisper-tiny@12345678, which is not on this machine"),
    ):
        kept = {name: told for name, told in (config | changes).items() if told is not None}
        save_file(load_file(files["model"]), tmp_path / "other.safetensors", {"config": json.dumps(kept)})
        with pytest.raises(GenerationError, match=said) as told:
            OursP(**(files | {"model": tmp_path / "other.safetensors"}), rife=Path("rife"), preset="tiny")
        assert "\n" not in str(told.value)


def test_figures_go_from_one_emotion_to_another(ours_p: OursP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = request(num_frames=5)
    monkeypatch.setattr(interpolation.protocol, "members", lambda *_: [SimpleNamespace(pair_id="clip")])
    monkeypatch.setattr(interpolation, "_request", lambda *_: given)
    monkeypatch.setattr(interpolation.generate, "build", lambda *_: ours_p)
    asked = interpolation.Asked([("sad", "happy")], columns=3, seconds=0.2)
    first, middle, last = interpolation._row(ours_p, given, ("sad", "happy"), asked)
    assert np.array_equal(first, video(ours_p, num_frames=5, emotion="sad")[2])
    assert np.array_equal(last, video(ours_p, num_frames=5, emotion="happy")[2])
    assert not np.array_equal(middle, first)
    changed = interpolation._row(ours_p, given, ("sad", "happy"), replace(asked, change=True))
    assert len(changed) == 3

    def drawn(method: str, clip: str, of: interpolation.Asked) -> interpolation.Drawn:
        return interpolation.interpolation(method, clip, of, SimpleNamespace(), tmp_path)  # type: ignore[arg-type]

    files = drawn("ours-p-tiny", "clip", asked).files
    assert {path.suffix for path in files} == {".pdf", ".svg"}
    assert all(path.stat().st_size > 1000 for path in files)
    with pytest.raises(BenchError, match="--clip 'clop' is none of the 1 pairs of the protocol; did you mean 'clip'"):
        drawn("ours-p-tiny", "clop", asked)
    with pytest.raises(BenchError, match="no prior of emotion 'bored'; there are happy, neutral, sad"):
        drawn("ours-p-tiny", "clip", replace(asked, pairs=[("sad", "bored")]))
    monkeypatch.setattr(interpolation.generate, "build", lambda *_: object())
    with pytest.raises(BenchError, match="still has no priors of emotions to go between"):
        drawn("still", "clip", asked)


def test_the_published_files_generate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(presets.PRESETS, "full", TEMPORAL)
    monkeypatch.setattr(checkpoints, "WHISPER_SIZE", 160)
    monkeypatch.setattr("reference_models.dice_talk.sample.Rife", Blend)
    monkeypatch.setattr("reference_models.dice_talk.sample.front_end", lambda *_: LogMel())
    torch.manual_seed(0)
    source = DiceTalk(TEMPORAL, 160)
    paths = {part: tmp_path / f"{part}.pth" for part in checkpoints.PUBLISHED}
    for part, path in paths.items():
        torch.save(getattr(source, part).state_dict(), path)
    for name, network in (("vae", autoencoder(TEMPORAL)), ("image_encoder", image_encoder(TEMPORAL))):
        paths[name] = tmp_path / f"{name}.safetensors"
        save_file(network.state_dict(), paths[name])
    for emotion in ("neutral", "happy"):
        mean = np.random.default_rng(len(emotion)).standard_normal((1, 256)).astype(np.float32)
        np.save(tmp_path / f"{emotion}.npy", np.array({"mu": mean}, object), allow_pickle=True)
    given = {**paths, "priors": tmp_path / "neutral.npy", "rife": Path("rife"), "whisper": Path("whisper")}
    method = generate.load_method("ours-p-published", tmp_path)
    assert given.keys() == method.weights.keys() | method.checkpoints.keys()
    generator = Published(**given)
    happy = video(generator, num_frames=3)
    assert happy.shape == (3, 64, 64, 3)
    assert not np.array_equal(video(generator, num_frames=3, emotion="neutral"), happy)
    save_file({"conv": torch.zeros(1)}, paths["vae"])
    with pytest.raises(GenerationError, match=r"vae\.safetensors: not the file of stable-video-diffusion-img2vid-xt"):
        Published(**given)


# --- methods -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ours-p", "ours-v"])
def test_the_full_methods_say_what_is_missing_and_what_runs_now(name: str, tmp_path: Path) -> None:
    method = generate.load_method(name, tmp_path)
    with pytest.raises(BenchError) as told:
        generate.files(method, tmp_path)
    said = str(told.value)
    assert "dice-talk-full" in said
    assert "&& bench train dice-talk --preset full" in said
    assert f"{name}-tiny runs without them" in said
    assert "\n" not in said


@pytest.mark.parametrize("name", ["ours-p-tiny", "ours-v-tiny"])
def test_the_tiny_methods_are_built_from_files_made_here(
    name: str, workspace: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reference_models.dice_talk.sample.Rife", Blend)
    monkeypatch.setattr(generate.weights, "path", lambda name, fetch: Path(name))
    method = generate.load_method(name, workspace)
    needed = {argument: workspace / path for argument, path in method.checkpoints.items()}
    assert all(path.exists() for path in needed.values())
    paths = {**needed, **{argument: Path(of) for argument, of in method.weights.items()}}
    told = json.dumps({argument: str(path) for argument, path in paths.items()})
    made = generate._generator(method.generator, json.dumps(dict(method.options)), told, "cpu")
    assert type(made).__name__ == method.generator.rpartition(":")[2]
    assert made.preset == MICRO  # of the checkpoint, options included
