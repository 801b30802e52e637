"""EAT-Face's equations against a plain reading of the paper, the paper's shapes, and requests that do not fit."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reference_models.base import GenerationError, Request
from reference_models.eat_face import data, encoders, losses, model, sample, validation
from reference_models.eat_face.networks import Networks, fresh
from reference_models.eat_face.presets import EMOTIONS, FULL, TINY, preset_of, recorded, restored
from reference_models.training import TrainingError

MICRO = replace(
    TINY,
    size=32,
    vae=(8, 8),
    latent_channels=8,
    unet=(8, 16),
    width=8,
    speech_width=6,
    embedding=16,
    adapter=(2, 4),
    groups=4,
    heads=2,
)


@pytest.fixture(scope="module")
def networks() -> Networks:
    torch.manual_seed(0)
    return fresh(MICRO, "", {}).frozen("cpu")


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- the reconstructor: eqs. 4, 5 ----------------------------------------------------------------------------------


def test_eq_4_puts_noise_mask_and_reference_side_by_side() -> None:
    z = [np.random.default_rng(k).normal(size=(2, 4, 3, 3)) for k in range(3)]
    x_in = losses.joined(*(torch.from_numpy(one) for one in z)).numpy()
    assert x_in.shape == (2, 12, 3, 3)
    for k in range(3):
        np.testing.assert_array_equal(x_in[:, 4 * k : 4 * k + 4], z[k])


class Plain(torch.nn.Module):
    """Answers with a fixed linear function of what it is given, and keeps that."""

    def forward(self, x_in, t, context, residuals=None):  # type: ignore[no-untyped-def]
        self.given = x_in.double().numpy(), t.numpy(), context
        z_t, z_m, z_r = x_in.chunk(3, 1)
        out = 0.5 * z_t + 0.25 * z_m - z_r
        return out if residuals is None else out + residuals.middle


def plain_loss(model_: Plain, latents: list[torch.Tensor], seed: int, kind: str, extra: float = 0.0) -> float:
    """Eq. 5 in float64, with the noise and the steps of the same generator."""
    generator = torch.Generator().manual_seed(seed)
    z_0, z_m, z_r = (one.double().numpy() for one in latents)
    epsilon = torch.randn(latents[0].shape, generator=generator).double().numpy()
    t = torch.randint(0, 1000, (len(z_0),), generator=generator).numpy()
    betas = np.linspace(math.sqrt(0.00085), math.sqrt(0.012), 1000) ** 2
    bar = np.cumprod(1 - betas)[t][:, None, None, None]
    z_t = np.sqrt(bar) * z_0 + np.sqrt(1 - bar) * epsilon
    wanted = {"epsilon": epsilon, "sample": z_0}[kind]
    return float(np.mean((0.5 * z_t + 0.25 * z_m - z_r + extra - wanted) ** 2))


@pytest.mark.parametrize("kind", ["epsilon", "sample"])
def test_eq_5_is_the_error_of_the_predicted_noise(kind: str) -> None:
    latents = [noise(5, 4, 3, 3, seed=k) for k in range(3)]
    schedule = model.scheduler(replace(FULL, prediction=kind))
    found = losses.denoising(Plain(), schedule, latents, None, torch.Generator().manual_seed(7))  # type: ignore[arg-type]
    assert float(found) == pytest.approx(plain_loss(Plain(), latents, 7, kind), rel=1e-5)


def test_eq_11_adds_what_the_controller_makes_of_the_condition() -> None:
    latents, c_e = [noise(5, 4, 3, 3, seed=k) for k in range(3)], torch.full((5, 4, 3, 3), 0.5)
    schedule = model.scheduler(FULL)
    controller = lambda x_in, t, context, c: model.Residuals([], 3 * c)  # noqa: E731
    found = losses.denoising(  # type: ignore[call-overload]
        Plain(), schedule, latents, None, torch.Generator().manual_seed(7), (controller, c_e)
    )
    assert float(found) == pytest.approx(plain_loss(Plain(), latents, 7, "epsilon", extra=1.5), rel=1e-5)


@given(st.integers(1, 60), st.integers(1, 40))
def test_each_frame_hears_three_features(count: int, frames: int) -> None:
    features = np.random.default_rng(count).normal(size=(count, 2)).astype(np.float32)
    found = model.windows(torch.from_numpy(features), frames).numpy()
    for i in range(1, frames + 1):  # the paper counts frames from 1
        u = math.floor(count * (i - 1) / frames)
        for place, at in enumerate((u - 1, u, u + 1)):
            wanted = features[at] if 0 <= at < count else np.zeros(2)
            np.testing.assert_array_equal(found[i - 1, place], wanted)
    chosen = torch.tensor([frames - 1, 0])
    np.testing.assert_array_equal(model.windows(torch.from_numpy(features), frames, chosen), found[[frames - 1, 0]])


def test_the_mask_spans_the_four_points() -> None:
    points = torch.zeros(1, 478, 3)
    points[0, 127, 0], points[0, 356, 0], points[0, 151, 1], points[0, 152, 1] = 8, 24, 4, 28
    box = model.boxes(points, 32, 32)
    assert box.tolist() == [[0.25, 0.125, 0.75, 0.875]]
    picture = torch.full((1, 3, 32, 32), 0.7)
    hidden = model.masked(picture, box)
    assert (hidden[0, :, 4:28, 8:24] == 0).all()
    assert (hidden != 0).sum() == 3 * (32 * 32 - 24 * 16)
    binary = model.masked(picture, box, "binary")
    assert (binary[0, :, 4:28, 8:24] == 1).all()
    assert (binary == -1).sum() == 3 * (32 * 32 - 24 * 16)


# --- the joint embedding: eqs. 6 to 10 -----------------------------------------------------------------------------


def test_eqs_6_and_7_fuse_the_words_with_the_emotionless_picture(networks: Networks) -> None:
    joint = networks.joint
    assert joint is not None
    seen, text = noise(3, 16), noise(3, 16, seed=1)

    def adapter(which: model.Adapter, x: np.ndarray) -> np.ndarray:
        """Convolution of three, maximum of two, GELU; in turn; then the MLP. In NumPy."""
        from scipy.special import erf

        gelu = lambda a: a * (1 + erf(a / math.sqrt(2))) / 2  # noqa: E731
        h = x[:, None]
        for layer in [one for one in which.layers if isinstance(one, torch.nn.Conv1d)]:
            w, b = layer.weight.numpy(), layer.bias.numpy()
            wide = np.pad(h, ((0, 0), (0, 0), (1, 1)))
            h = sum(np.einsum("oi,nil->nol", w[:, :, k], wide[:, :, k : k + h.shape[2]]) for k in range(3)) + b[:, None]
            h = gelu(h.reshape(*h.shape[:2], -1, 2).max(3))
        first, last = which.mlp[0], which.mlp[2]
        h = gelu(h.reshape(len(h), -1) @ first.weight.numpy().T + first.bias.numpy())
        return h @ last.weight.numpy().T + last.bias.numpy()

    h_v = adapter(joint.visual, seen.numpy())
    np.testing.assert_allclose(joint.of_picture(seen), h_v, atol=1e-5)
    joint.alpha = 0.3
    wanted = 0.3 * adapter(joint.emotion, text.numpy()) + 0.7 * h_v
    np.testing.assert_allclose(joint.of_emotion(text, seen), wanted, atol=1e-5)
    joint.alpha = MICRO.alpha
    assert h_v.shape == (3, MICRO.condition)


def test_eqs_8_to_10_are_the_symmetric_contrast_of_cosines() -> None:
    h_e, h_v = (np.random.default_rng(k).normal(size=(5, 7)) for k in range(2))

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    total = 0.0
    for i in range(5):
        own = math.exp(cosine(h_e[i], h_v[i]) / 0.2)
        total -= math.log(own / sum(math.exp(cosine(h_e[i], h_v[k]) / 0.2) for k in range(5)))  # eq. 8
        total -= math.log(own / sum(math.exp(cosine(h_v[i], h_e[k]) / 0.2) for k in range(5)))  # eq. 9
    found = losses.contrastive(torch.from_numpy(h_e), torch.from_numpy(h_v), 0.2)
    assert float(found) == pytest.approx(total / 10, rel=1e-5)  # eq. 10


def test_the_condition_is_the_embedding_as_a_square_map_repeated() -> None:
    h = noise(2, 1024) * 30
    c_e = model.emotion_map(h, 4)
    assert c_e.shape == (2, 4, 32, 32)
    for k in range(4):
        np.testing.assert_allclose(c_e[:, k].flatten(1), h / h.norm(dim=1, keepdim=True) * 32, rtol=1e-5)


# --- the controller ------------------------------------------------------------------------------------------------


def test_the_controller_starts_without_effect_and_its_condition_reaches_the_output() -> None:
    torch.manual_seed(1)
    reconstructor = model.Reconstructor(replace(MICRO, prediction="epsilon"))
    controller = model.Controller(reconstructor.unet, MICRO)
    x_in, t, context = noise(2, 24, 4, 4), torch.tensor([3, 700]), reconstructor.context(noise(2, 3, 6)).detach()
    c_e, other = noise(2, 8, 4, 4, seed=1), noise(2, 8, 4, 4, seed=2)
    with torch.no_grad():
        plain = reconstructor(x_in, t, context)
        assert torch.equal(reconstructor(x_in, t, context, controller(x_in, t, context, c_e)), plain)
    optimiser = torch.optim.Adam(controller.parameters(), 1e-2)
    for _ in range(3):
        optimiser.zero_grad()
        (reconstructor(x_in, t, context, controller(x_in, t, context, c_e)) ** 2).mean().backward()
        optimiser.step()
    with torch.no_grad():
        one, two = (reconstructor(x_in, t, context, controller(x_in, t, context, c)) for c in (c_e, other))
    assert (one - plain).abs().max() > 1e-3
    assert (one - two).abs().max() > 1e-5
    with pytest.raises(ValueError, match="condition of"):
        controller(x_in, t, context, c_e[..., :2, :2])


def test_ablations_get_the_emotion_where_the_paper_puts_it(networks: Networks) -> None:
    word, calm = torch.tensor([0, 4]), noise(2, 16)
    tokens, features = networks.words()
    made = {a: replace_ablation(networks, a).condition(word, calm) for a in ("", "wo-eve", "wo-fec", "wo-emo")}
    assert networks.joint is not None
    torch.testing.assert_close(
        made[""][1], model.emotion_map(networks.joint.of_emotion(features[word], calm), MICRO.latent_channels)
    )
    torch.testing.assert_close(
        made["wo-eve"][1], model.emotion_map(model.stretched(features[word], MICRO.condition), MICRO.latent_channels)
    )
    torch.testing.assert_close(made["wo-fec"][0], tokens[word])
    assert made[""][0] is None
    assert made["wo-fec"][1] is None
    assert made["wo-emo"] == (None, None)
    context = networks.reconstructor.context(noise(2, 3, 6), made["wo-fec"][0])
    assert context.shape == (2, 5, 8)
    torch.testing.assert_close(context[:, 3:], tokens[word])


def replace_ablation(networks: Networks, ablation: str) -> Networks:
    return replace(networks, ablation=ablation, joint=networks.joint if ablation == "" else None)


# --- the full preset -----------------------------------------------------------------------------------------------


def test_the_full_preset_has_the_papers_shapes_and_stable_diffusions_sizes() -> None:
    assert (FULL.size, FULL.latent_side, FULL.condition, FULL.temperature) == (256, 32, 1024, 0.2)
    assert [(FULL.stages[s].batch, FULL.stages[s].rate) for s in ("tfr", "controlnet", "eve")] == [
        (48, 1e-5), (12, 1e-5), (8, 1e-3),
    ]  # fmt: skip
    assert (FULL.weight_decay, FULL.warmup, FULL.ddim_steps, FULL.prediction) == (1e-3, 500, 100, "epsilon")
    with torch.device("meta"):
        reconstructor, codec = model.Reconstructor(FULL), model.Codec(FULL)
        joint = model.JointEmbedding(FULL)
        controller = model.Controller(reconstructor.unet, FULL)
        x_in, t = torch.empty(2, 12, 32, 32), torch.zeros(2, dtype=torch.long)
        context = reconstructor.context(torch.empty(2, 3, 768))
        assert context.shape == (2, 3, 768)
        c_e = model.emotion_map(joint.of_emotion(torch.empty(2, 768), torch.empty(2, 768)), 4)
        assert c_e.shape == (2, 4, 32, 32)
        residuals = controller(x_in, t, context, c_e)
        assert len(residuals.skips) == 12
        assert reconstructor(x_in, t, context, residuals).shape == (2, 4, 32, 32)
        assert codec.encode(torch.empty(1, 3, 256, 256)).shape == (1, 4, 32, 32)
        assert codec.decode(torch.empty(1, 4, 32, 32)).shape == (1, 3, 256, 256)

    def millions(part: torch.nn.Module) -> float:
        return round(sum(one.numel() for one in part.parameters()) / 1e6, 1)

    assert (millions(reconstructor.unet), millions(codec), millions(controller)) == (859.5, 83.7, 360.4)


def test_stable_diffusions_input_layer_keeps_its_channels_and_the_new_ones_start_at_zero(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from safetensors.torch import save_file

    torch.manual_seed(2)
    unet = model.build_unet(MICRO)
    stored = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    stored["conv_in.weight"] = stored["conv_in.weight"][:, :8].clone()
    save_file(stored, tmp_path / "unet.safetensors")
    other = model.build_unet(MICRO)
    encoders.fill_unet(other, tmp_path / "unet.safetensors")
    weight = other.state_dict()["conv_in.weight"]
    assert torch.equal(weight[:, :8], stored["conv_in.weight"])
    assert (weight[:, 8:] == 0).all()
    del stored["conv_out.bias"]
    save_file(stored, tmp_path / "unet.safetensors")
    with pytest.raises(GenerationError, match=r"1 tensors are missing .* conv_out.bias"):
        encoders.fill_unet(other, tmp_path / "unet.safetensors")


def test_wav2vec_in_pieces_sees_every_feature_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Echo(torch.nn.Module):
        """The mean of each feature's own samples, so that a feature in the wrong place shows."""

        def forward(self, sound):  # type: ignore[no-untyped-def]
            own = sound.unfold(1, encoders.WINDOW, encoders.HOP).mean(2)
            return type("Out", (), {"last_hidden_state": own[..., None]})

    speech = encoders.Wav2Vec.__new__(encoders.Wav2Vec)
    torch.nn.Module.__init__(speech)
    speech.network = Echo()
    speech.register_parameter("at", torch.nn.Parameter(torch.zeros(1)))
    audio = np.random.default_rng(0).normal(size=16000 * 3).astype(np.float32)
    whole = speech.features(audio)
    monkeypatch.setattr(encoders, "PIECE", 40)
    monkeypatch.setattr(encoders, "CONTEXT", 7)
    torch.testing.assert_close(speech.features(audio), whole)
    assert len(whole) == (48000 - 400) // 320 + 1


# --- data ----------------------------------------------------------------------------------------------------------


def test_a_warped_copy_moves_its_mask_with_the_face() -> None:
    picture = np.zeros((1, 64, 64, 3), np.uint8)
    picture[:, 20:50, 24:44] = 200
    box = np.array([[24 / 64, 20 / 64, 44 / 64, 50 / 64]], np.float32)
    for seed in range(6):
        shown, moved = data.altered(picture, box, np.random.default_rng(seed))
        y, x = np.nonzero(shown[0].max(2).astype(int) - shown[0, 0, 0].max() > 60)
        found = [x.min(), y.min(), x.max() + 1, y.max() + 1]
        np.testing.assert_allclose(moved[0] * 64, found, atol=3.5)


def test_faces_are_cut_where_the_mask_is() -> None:
    shown = torch.full((1, 3, 40, 40), -1.0)
    shown[:, :, 10:30, 5:35] = 1.0
    cut = data.faces(shown, torch.tensor([[5 / 40, 10 / 40, 35 / 40, 30 / 40]]), 32)
    assert cut.shape == (1, 3, 32, 32)
    assert (cut[:, :, 3:-3, 3:-3] == 1).all()
    assert cut[:, :, 0].max() < 0.5  # a tenth more than the mask


# --- requests ------------------------------------------------------------------------------------------------------


def ask(**changes: object) -> Request:
    points = np.random.default_rng(0).uniform(8, 56, (478, 3)).astype(np.float32)
    fields = {
        "reference": np.full((64, 64, 3), 90, np.uint8), "audio": np.zeros(8000, np.float32), "sample_rate": 16000,
        "emotion": "happy", "intensity": 3, "num_frames": 3, "fps": 25, "seed": 5, "target_frames": lambda: iter(()),
        "points": lambda: points,
    }  # fmt: skip
    return Request(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"reference": np.zeros((64, 64), np.uint8)}, "without alpha"),
        ({"reference": np.zeros((64, 64, 4), np.uint8)}, "without alpha"),
        ({"reference": np.zeros((8, 64, 3), np.uint8)}, "64x8; expected 32 px"),
        ({"emotion": "unlabelled"}, "EAT-Face knows angry, contempt"),
        ({"audio": np.zeros(0, np.float32)}, "n at least 1"),
        ({"audio": np.full(9, np.nan, np.float32)}, "finite"),
        ({"audio": np.full(9, 3e4, np.float32)}, "a sample of 30000; expected -1 to 1"),
        ({"sample_rate": 44100}, "expected 16000 Hz"),
        ({"num_frames": 0}, "0 frames"),
    ],
)
def test_a_request_that_does_not_fit_is_refused_in_one_line(changes: dict[str, object], told: str) -> None:
    with pytest.raises(GenerationError, match=told) as caught:
        sample.check(ask(**changes))
    assert "\n" not in str(caught.value)


def test_a_picture_without_a_face_is_refused() -> None:
    for points in (
        None,
        lambda: np.full((478, 3), np.nan, np.float32),
        lambda: np.zeros((5, 3), np.float32),
        lambda: np.zeros((2, 478, 3), np.float32),
        lambda: np.zeros((478, 1), np.float32),
    ):
        with pytest.raises(GenerationError, match="exactly one face"):
            sample.mesh(points, 1)


class Spoken:
    """A reconstructor of z_0 that adds up what it is given."""

    def context(self, speech: torch.Tensor, tokens: torch.Tensor | None) -> torch.Tensor:
        return speech

    def __call__(self, x_in: torch.Tensor, t: torch.Tensor, context: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
        return 0.1 * x_in[:, :4] + (context.mean((1, 2)) + added)[:, None, None, None]


def test_guidance_takes_predictions_away_from_those_of_no_sound() -> None:
    """u + w (c - u), of z_0 at the last step of DDIM, which is then its own result but for the least noise."""
    heard, z = noise(2, 3, 6), noise(2, 4, 2, 2, seed=1)
    networks = SimpleNamespace(
        preset=replace(TINY, prediction="sample", guidance=3.0, unheard=0.1),
        controller=lambda x_in, t, context, c_e: context.mean((1, 2)) + c_e,
        reconstructor=Spoken(),
    )
    made = sample.ddim(networks, z, z, z, heard, None, torch.tensor(0.5), 1)  # type: ignore[arg-type]
    mean = heard.double().mean((1, 2)).numpy()[:, None, None, None]
    loud, silent = 0.1 * z.double().numpy() + 2 * mean + 0.5, 0.1 * z.double().numpy() + 0.5
    z_0 = silent + 3 * (loud - silent)
    schedule = model.scheduler(TINY)
    schedule.set_timesteps(1)
    now, then = (float(schedule.alphas_cumprod[at]) for at in (int(schedule.timesteps[0]), 0))
    of_noise = (z.double().numpy() - now**0.5 * z_0) / (1 - now) ** 0.5
    np.testing.assert_allclose(made.numpy(), then**0.5 * z_0 + (1 - then) ** 0.5 * of_noise, atol=1e-5)


def test_a_share_of_the_training_hears_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    networks = SimpleNamespace(
        preset=replace(TINY, unheard=0.3), reconstructor=SimpleNamespace(context=lambda speech, _: seen.append(speech))
    )
    monkeypatch.setattr(validation, "denoising", lambda *_: torch.zeros(()))
    batch = {"speech": noise(2000, 3, 6), **dict.fromkeys(("clean", "hidden", "reference"), torch.zeros(1))}
    validation.denoise(networks, "tfr", None, batch, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    silent = (seen[0] == 0).all(2).all(1)
    assert 0.25 < float(silent.float().mean()) < 0.35
    assert torch.equal(seen[0][~silent], batch["speech"][~silent])


def test_smoothing_keeps_the_number_of_frames_and_evens_out_jitter() -> None:
    frames = [np.full((2, 2, 3), value, np.uint8) for value in (10, 10, 50, 10, 10)]
    mean = lambda a, b: ((a.astype(int) + b) // 2).astype(np.uint8)  # noqa: E731
    smooth = [int(frame[0, 0, 0]) for frame in sample.smoothed(iter(frames), mean)]
    assert smooth == [10, 20, 30, 20, 10]
    for count in (0, 1, 2):
        assert len(list(sample.smoothed(iter(frames[:count]), mean))) == count


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"alfa": 1}, "option 'alfa'; expected one of size, patch"),
        ({"own_encoders": False}, "option 'own_encoders'; expected one of"),
        ({"alpha": "x"}, "option alpha = 'x'; expected float, as 0.5"),
        ({"alpha": math.nan}, "option alpha = nan; expected float"),
        ({"alpha": 2.0}, "alpha = 2.0; expected a share"),
        ({"unet": ["a", "b"]}, "expected tuple, as (64, 96)"),
        ({"cross": [1, 0]}, "expected tuple, as (True, False)"),
        ({"unet": [64]}, "expected one of cross for each level"),
        ({"unet": [], "cross": []}, "not empty"),
        ({"vae": [0, 8]}, "whole numbers above 0"),
        ({"vae": [7]}, "multiples of groups"),
        ({"copies": 0}, "copies = 0; expected 1 or more"),
        ({"size": 60}, "a multiple of 16"),
        ({"embedding": 2}, "halved once a convolution"),
        ({"weight_decay": -1.0}, "0 or more"),
        ({"temperature": 0.0}, "above 0"),
        ({"ddim_steps": 2000}, "a divisor of 1000, 4 to 500"),
        ({"ddim_steps": 1}, "a divisor of 1000, 4 to 500"),
        ({"ddim_steps": 300}, "a divisor of 1000, 4 to 500"),
        ({"ema": 1.0}, "a share below 1"),
        ({"heads": 100}, "at most as many heads"),
        ({"latent_channels": 200}, "192 at most"),
        ({"mask": "foo"}, "one of face, binary"),
        ({"prediction": "foo"}, "one of epsilon, sample"),
        ({"guidance": -1.0}, "another number from 0 up"),
        ({"guidance": 2.0, "unheard": 0.0}, "a share of training that hears nothing"),
    ],
)
def test_options_that_fit_no_model_are_refused_in_one_line(options: dict[str, object], told: str) -> None:
    with pytest.raises(TrainingError, match=re.escape(told)) as caught:
        preset_of("tiny", options)
    assert "\n" not in str(caught.value)


def test_options_and_recorded_configurations() -> None:
    assert restored({"configuration": recorded(TINY)}, "x") == TINY
    assert preset_of("tiny", {"alpha": 1, "unet": [8, 16]}).unet == (8, 16)
    with pytest.raises(GenerationError, match="is not this version's"):
        restored({"configuration": {**recorded(TINY), "colour": 1}}, "x")
    assert len(EMOTIONS) == 8
    assert set(encoders.CLIP_WORDS) == set(EMOTIONS)
