"""DICE-Talk's conditioning: the published modules' values, and equations 1 and 9 to 17 as plain NumPy formulas."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reference_models.dice_talk import losses
from reference_models.dice_talk.conditioning import (
    AudioProj,
    BankAttention,
    Classifier,
    ConditionedAttention,
    Context,
    EmotionBank,
    EmotionModel,
    FaceGuider,
)
from reference_models.dice_talk.data import UNLABELLED, Batch
from reference_models.dice_talk.presets import PRESETS

FIXTURES = Path(__file__).resolve().parents[2] / "shared" / "fixtures"
Array = np.ndarray


# --- the published modules -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    path = FIXTURES / "dice_talk" / "expected.json"
    if not path.exists():
        pytest.skip("the measured values of DICE-Talk's modules are not on this machine (../shared/fixtures)")
    sys.path.insert(0, str(FIXTURES))
    return json.loads(path.read_text())


def filled(make: Callable[[], nn.Module], tag: str) -> nn.Module:
    from seeded_fill import fill

    with torch.device("meta"):  # their own start would take as long as the filling
        module = make()
    module.load_state_dict(fill(module.state_dict(), tag), assign=True)
    return module.eval().requires_grad_(False)


def given(tag: str, *shape: int, kind: str = "normal") -> Tensor:
    from seeded_fill import inputs

    return inputs(tag, shape, kind)


def agrees(made: Tensor, told: dict[str, Any]) -> None:
    from seeded_fill import summary

    found = summary(made)
    assert found["shape"] == told["shape"]
    for name in ("mean", "std", "absmax", "first8", "last8", "probe"):
        assert np.allclose(found[name], told[name], atol=1e-4, rtol=0), name


def layout(module: nn.Module, told: dict[str, Any]) -> None:
    assert {name: list(tensor.shape) for name, tensor in module.state_dict().items()} == told["shapes"]
    assert sum(parameter.numel() for parameter in module.parameters()) == told["n_params"]


def test_the_audio_projection_is_the_published_one(expected: dict[str, Any]) -> None:
    told = expected["AudioProj"]
    module = filled(lambda: AudioProj(19200, 1024, 32, 1024), "audio_linear")
    layout(module, told)
    agrees(module(given("audio_in", 2, 3, 10, 5, 384)), told["output"])
    agrees(module(torch.zeros(1, 1, 10, 5, 384)), told["zero_input_output"])


def test_the_emotion_model_is_the_published_one(expected: dict[str, Any]) -> None:
    told = expected["EmotionModel"]
    module = filled(lambda: EmotionModel(256, 1024, 32, 1024, 64, 1280, (512, 256), 22), "emo_model")
    layout(module, told)
    prior = given("emo_in", 2, 3, 1, 1, 256)
    entry, loss, numbers = module.codebook(prior)
    agrees(entry, told["codebook"]["quantized"])
    assert loss.mean().item() == pytest.approx(told["codebook"]["vq_loss"], abs=1e-4)
    assert numbers.flatten().tolist() == told["codebook"]["indices"]

    rows, shape = prior.view(6, 256), (2, 3, 32, 1024)
    tokens, loss = module.retrieved(rows)
    agrees(tokens.view(shape), told["train_path_retrieval_True"]["output"])
    assert loss.mean().item() == pytest.approx(told["train_path_retrieval_True"]["vq_loss"], abs=1e-4)
    dropped = torch.tensor([False, True]).repeat_interleave(3)
    agrees(module.retrieved(rows, dropped)[0].view(shape), told["train_path_mask_second_batch_item"]["output"])
    agrees(module(given("emo_in1", 3, 256))[None], told["infer_path_whole_bank_retrieval_False"]["output"])
    agrees(module(torch.zeros(3, 256))[None], told["infer_path_uncond_zero"]["output"])
    agrees(module(rows).view(shape), told["infer_path_batch2"]["output"])
    agrees(module.classifier(given("cls_in", 2, 1280, 8, 8)), told["classifier"]["output"])


def test_the_face_guider_is_the_published_one(expected: dict[str, Any]) -> None:
    told = expected["PoseGuider"]
    module = filled(lambda: FaceGuider((16, 32, 96, 256), 320), "pose_guider")
    layout(module, told)
    pictures = given("pose_in", 1, 3, 2, 64, 96).transpose(1, 2)[0]  # theirs has the frames behind the channels
    agrees(module(pictures)[None].transpose(1, 2), told["output"])
    mask = (given("pose_mask", 1, 1, 1, 64, 96, kind="uniform") > 0.5).float()[:, :, 0].expand(-1, 3, -1, -1)
    agrees(module(mask)[:, :, None], told["binary_mask_output"]["output"])


# --- equations -----------------------------------------------------------------------------------------------------


def softmax(x: Array) -> Array:
    shifted = np.exp(x - x.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def cross_attention(q: Array, k: Array, v: Array, heads: int) -> Array:
    """(T, C), (S, C), (S, C) -> (T, C), a head after the other."""
    width = q.shape[1] // heads
    parts = [slice(h * width, (h + 1) * width) for h in range(heads)]
    return np.concatenate([softmax(q[:, p] @ k[:, p].T / np.sqrt(width)) @ v[:, p] for p in parts], 1)


def linear(layer: nn.Module, x: Array) -> Array:
    made = x @ layer.weight.detach().numpy().T
    return made if layer.bias is None else made + layer.bias.detach().numpy()


def projected(module: nn.Module, x: Array) -> Array:
    """The MLP of audio and emotion tokens: (inputs,) -> (T, width)"""
    hidden = np.maximum(linear(module.proj2, np.maximum(linear(module.proj1, x), 0)), 0)
    tokens = linear(module.proj3, hidden).reshape(-1, module.norm.weight.numel())
    normal = (tokens - tokens.mean(1, keepdims=True)) / np.sqrt(tokens.var(1, keepdims=True) + 1e-5)
    return normal * module.norm.weight.detach().numpy() + module.norm.bias.detach().numpy()


@pytest.fixture
def model() -> EmotionModel:
    torch.manual_seed(0)
    made = EmotionModel(6, 12, 3, 16, 5, 8, (6, 4), 22)
    with torch.no_grad():
        made.codebook.codebook.weight.normal_()
    return made


def test_training_attends_to_the_nearest_entry(model: EmotionModel) -> None:  # eq. 9-11
    s = torch.randn(4, 6)
    bank = model.codebook.codebook.weight.detach().numpy()
    found = model.retrieved(s)[0].detach().numpy()
    for row, prior in zip(found, s.numpy(), strict=True):
        mapped = linear(model.codebook.fc, prior)
        nearest = bank[np.argmin(((mapped - bank) ** 2).sum(1))]
        asking, told = projected(model.emo_linear, prior), projected(model.kv_tokens_linear, nearest)
        layers = model.attention
        q, k, v = linear(layers.fc_q, asking), linear(layers.fc_k, told), linear(layers.fc_v, told)
        assert np.allclose(row, cross_attention(q, k, v, 8), atol=1e-5)


def test_generation_attends_to_the_whole_bank(model: EmotionModel) -> None:  # eq. 12, 13
    s = torch.randn(2, 6)
    bank = model.codebook.codebook.weight.detach().numpy()
    told = np.concatenate([projected(model.kv_tokens_linear, entry) for entry in bank])
    layers = model.attention
    for row, prior in zip(model(s).detach().numpy(), s.numpy(), strict=True):
        q = linear(layers.fc_q, projected(model.emo_linear, prior))
        expected = cross_attention(q, linear(layers.fc_k, told), linear(layers.fc_v, told), 8)
        assert np.allclose(row, expected, atol=1e-5)


def test_the_loss_of_the_bank_and_where_its_gradients_go() -> None:  # eq. 17
    torch.manual_seed(0)
    bank = EmotionBank(3, 4, 5)
    s = torch.randn(2, 3)
    entry, loss, numbers = bank(s)
    mapped = linear(bank.fc, s.numpy())
    chosen = bank.codebook.weight.detach().numpy()[numbers]
    assert np.allclose(loss.detach(), (1 + 0.25) * ((mapped - chosen) ** 2).mean(1), atol=1e-6)

    loss.sum().backward()
    slope = 2 * (chosen - mapped) / 5  # of the mean over the width, towards the entry
    moved = bank.codebook.weight.grad.numpy()
    assert np.allclose(moved[numbers[0]], slope[numbers == numbers[0]].sum(0), atol=1e-6)
    untouched = np.setdiff1d(np.arange(4), numbers)
    assert not moved[untouched].any()
    assert np.allclose(bank.fc.bias.grad, (-0.25 * slope).sum(0), atol=1e-6)

    bank.zero_grad()
    weight = torch.randn(2, 5)
    (bank(s)[0] * weight).sum().backward()  # straight through: as if the entry were the prior itself
    assert np.allclose(bank.fc.bias.grad, weight.sum(0), atol=1e-6)
    assert bank.codebook.weight.grad is None or not bank.codebook.weight.grad.any()
    assert torch.allclose(entry, torch.from_numpy(chosen), atol=1e-6)


@pytest.mark.parametrize("bank", ["learnable", "none"])
def test_ablations_of_the_bank(bank: str) -> None:
    torch.manual_seed(0)
    model = EmotionModel(6, 12, 3, 16, 5, 8, (6, 4), 22, bank)  # type: ignore[arg-type]
    s = torch.randn(2, 6)
    tokens, loss = model.retrieved(s)
    assert torch.equal(tokens, model(s))  # the same in training and generation
    assert not loss.any()
    tokens.sum().backward()
    assert (model.codebook.codebook.weight.grad is not None) == (bank == "learnable")
    idle = {n for n, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert all(name.startswith("classifier.") for name in idle)  # several processes wait for all others' gradients
    if bank == "none":
        assert torch.equal(tokens, model.emo_linear(s))


class Layer(nn.Module):
    """What ConditionedAttention needs of diffusers' Attention."""

    def __init__(self) -> None:
        super().__init__()
        self.cross_attention_dim, self.inner_dim, self.heads = 6, 8, 2
        self.to_q, self.to_k, self.to_v = nn.Linear(8, 8, False), nn.Linear(6, 8, False), nn.Linear(6, 8, False)
        self.to_out = nn.ModuleList([nn.Linear(8, 8), nn.Dropout(0.0)])


@pytest.mark.parametrize("temporal", [False, True])
def test_emotion_is_added_to_what_reference_and_audio_gave(temporal: bool) -> None:  # eq. 14
    torch.manual_seed(0)
    clips, frames, height, width = 2, 3, 2, 4
    layer, context = Layer(), Context()
    processor = ConditionedAttention(layer, context, temporal)
    streams = tuple(torch.randn(clips, frames, 5, 6) for _ in range(2))
    face = (torch.rand(clips, 2 * height, 2 * width) > 0.5).float()
    context.show(streams, face, torch.zeros(()))
    rows, length = (clips * height * width, frames) if temporal else (clips * frames, height * width)
    for stream in (0, 1):  # apart from where they start
        nn.init.normal_(processor.to_k_ip[stream].weight)
        nn.init.normal_(processor.to_v_ip[stream].weight)
    z, reference = torch.randn(rows, length, 8), torch.randn(rows, 1, 6)
    made = processor(layer, z, reference).detach().numpy()

    small = face.view(clips, height, 2, width, 2).mean((2, 4)).reshape(clips, -1).numpy()
    for row in range(rows):
        q = linear(layer.to_q, z[row].numpy())
        inner = cross_attention(q, *(linear(f, reference[row].numpy()) for f in (layer.to_k, layer.to_v)), 2)
        for stream, tokens in enumerate(streams):
            if temporal:
                told, weight = tokens[row // (height * width)].mean(0).numpy(), 1.0
            else:
                told, weight = tokens.flatten(0, 1)[row].numpy(), small[row // frames][:, None]
            k, v = linear(processor.to_k_ip[stream], told), linear(processor.to_v_ip[stream], told)
            inner = inner + weight * cross_attention(q, k, v, 2)
        assert np.allclose(made[row], linear(layer.to_out[0], inner), atol=1e-5)


def test_streams_start_as_the_layer_itself() -> None:
    layer = Layer()
    processor = ConditionedAttention(layer, Context(), temporal=False)
    assert all(torch.equal(stream.weight, layer.to_k.weight) for stream in processor.to_k_ip)
    assert all(torch.equal(stream.weight, layer.to_v.weight) for stream in processor.to_v_ip)


def test_attention_over_the_bank_is_plain_attention() -> None:
    torch.manual_seed(0)
    layer = BankAttention(16)
    a, b = torch.randn(1, 3, 16), torch.randn(1, 7, 16)
    q, k, v = (linear(f, x[0].numpy()) for f, x in ((layer.fc_q, a), (layer.fc_k, b), (layer.fc_v, b)))
    assert np.allclose(layer(a, b)[0].detach(), cross_attention(q, k, v, 8), atol=1e-6)


def test_denoising_is_equation_1_preconditioned() -> None:  # eq. 1
    """With the network's F, epsilon_theta = (z - D) / sigma: the loss is (1 + sigma^2) |epsilon_theta - epsilon|^2."""
    torch.manual_seed(0)
    sigma, latents, noise, made = torch.tensor(1.7), *(torch.randn(1, 2, 4, 3, 3) for _ in range(3))
    z = (latents + sigma * noise).numpy()
    total = 1.7**2 + 1
    denoised = z / total - 1.7 / np.sqrt(total) * made.numpy()
    epsilon = (z - denoised) / 1.7
    expected = (total * (epsilon - noise.numpy()) ** 2).mean()
    found = losses.denoising(made, losses.velocity(latents, noise, sigma), torch.ones(1, 3, 3), 1.0)
    assert found.item() == pytest.approx(float(expected), rel=1e-4)
    perfect = losses.velocity(latents, noise, sigma)
    _, skip, out = losses.scales(sigma)
    assert torch.allclose(skip * torch.from_numpy(z) + out * perfect, latents, atol=1e-5)


def test_a_change_that_begins_as_nothing_is_the_reference() -> None:
    latents, noise, sigma = torch.randn(1, 2, 4, 3, 3), torch.randn(1, 2, 4, 3, 3), torch.tensor(1.7)
    scaling, skip, out = losses.scales(sigma, from_reference=True)
    assert scaling == losses.scales(sigma)[0]
    z = latents + sigma * noise
    assert torch.equal(skip * z + out * torch.zeros(1), torch.zeros_like(z))
    perfect = losses.velocity(latents, noise, sigma, from_reference=True)
    assert torch.equal(skip * z + out * perfect, latents)


def test_the_loss_weighs_the_face() -> None:
    made, target, face = torch.ones(1, 2, 4, 2, 2), torch.zeros(1, 2, 4, 2, 2), torch.tensor([[[1.0, 0], [0, 0]]])
    assert losses.denoising(made, target, face, 3.0).item() == pytest.approx(1.0)
    made[..., 0, 0] = 2.0
    assert losses.denoising(made, target, face, 3.0).item() == pytest.approx((3 * 4 + 3) / 6)


def test_the_loss_weighs_what_moves() -> None:
    torch.manual_seed(0)
    made, target, face = torch.randn(2, 5, 4, 2, 2), torch.randn(2, 5, 4, 2, 2), torch.rand(2, 2, 2)
    plain = losses.denoising(made, target, face, 3.0)
    error, weight = (made - target).numpy(), (1 + 2 * face.numpy())[:, None, None]
    assert plain.item() == pytest.approx((error**2 * weight).mean() / weight.mean(), rel=1e-5)
    motion = error - error.mean(1, keepdims=True)
    more = 7 * (motion**2 * weight).mean() / weight.mean()
    assert losses.denoising(made, target, face, 3.0, 8.0).item() == pytest.approx(plain.item() + more, rel=1e-5)


def test_discrimination_is_the_labelled_clips_cross_entropy() -> None:  # eq. 16
    torch.manual_seed(0)
    logits, label = torch.randn(3, 4, 22), torch.tensor([5, UNLABELLED, 0])
    p = softmax(logits.double().numpy())
    expected = np.mean([-np.log(p[row, :, y]).mean() for row, y in ((0, 5), (2, 0))])
    assert losses.discrimination(logits, label).item() == pytest.approx(expected, rel=1e-5)
    assert losses.discrimination(logits, torch.full((3,), UNLABELLED)).item() == 0


class Told(nn.Module):
    """Returns what it was told to, and keeps what it was given."""

    def __init__(self, *made: Tensor) -> None:
        super().__init__()
        self.made = made

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        self.given = given
        return self.made


@pytest.mark.parametrize("mean_prior", [False, True])
def test_the_composite_loss_is_equation_15(mean_prior: bool) -> None:  # L = L_den + lambda L_cls + L_vq
    torch.manual_seed(0)
    clips, frames, lamda = 3, 2, 0.3
    preset = replace(
        PRESETS["full"], pixels=16, latents=4, sigma=(0.5, 1.0), discrimination=lamda, mean_prior=mean_prior
    )
    label = torch.tensor([7, UNLABELLED, 0])
    batch = Batch(
        latents=torch.randn(clips, frames, 4, 2, 2),
        image=torch.randn(clips, 4, 2, 2),
        seen=torch.randn(clips, 5),
        heard=torch.randn(clips, frames, 10, 1, 3),
        mean=torch.randn(clips, 256),
        deviation=torch.rand(clips, 256),
        mask=(torch.rand(clips, 3, 16, 16) > 0.5).float(),
        label=label,
        dropped=torch.zeros(clips, 3, dtype=torch.bool),
    )
    model = Told(torch.randn(clips, frames, 4, 2, 2), torch.randn(clips, frames, 22), torch.rand(clips))
    terms = losses.objective(model, batch, torch.Generator().manual_seed(5), preset)
    scaled, sigma, image, seen, heard, prior, mask, dropped, whole = model.given
    for given, own in ((image, batch.image), (seen, batch.seen), (heard, batch.heard), (mask, batch.mask)):
        assert given is own
    assert not dropped.any()
    assert not whole.any()  # as published, none attends to the whole bank
    drawn = ((prior - batch.mean) / batch.deviation).numpy()  # epsilon of eq. 6
    assert not drawn.any() if mean_prior else abs(drawn.std() - 1) < 0.1

    made, logits, quantisation = (one.double().numpy() for one in model.made)
    x, den, cls = batch.latents.double().numpy(), [], []
    for row, s in enumerate(sigma.double().numpy()):
        z = scaled[row].double().numpy() * np.sqrt(s**2 + 1)
        epsilon = (z - x[row]) / s
        denoised = z / (s**2 + 1) - s / np.sqrt(s**2 + 1) * made[row]
        den.append((s**2 + 1) * (((z - denoised) / s - epsilon) ** 2).mean())  # eq. 1, preconditioned
        if label[row] != UNLABELLED:
            cls.append(-np.log(softmax(logits[row])[:, label[row]]).mean())  # eq. 16
    assert len(set(sigma.tolist())) == clips
    expected = np.mean(den) + lamda * np.mean(cls) + np.mean(quantisation)
    assert sum(term.item() for term in terms.values()) == pytest.approx(expected, rel=1e-4)


def test_the_classifier_pools_whatever_size() -> None:
    torch.manual_seed(0)
    classifier = Classifier(8, (6, 4), 22).eval()
    features = torch.randn(2, 8, 3, 5)
    pooled = features.numpy().mean((2, 3))
    hidden = np.maximum(linear(classifier.fc2, np.maximum(linear(classifier.fc1, pooled), 0)), 0)
    assert np.allclose(classifier(features).detach(), linear(classifier.fc3, hidden), atol=1e-5)
