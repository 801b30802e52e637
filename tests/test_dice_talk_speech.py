"""DICE-Talk's ears: Whisper's states layer by layer, the published windows, and its spectrogram by the formula."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from reference_models.base import SAMPLE_RATE, GenerationError
from reference_models.dice_talk.speech import LOG_MEL, LogMel, Speech, Whisper, available, speech, windows


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    count = round(seconds * SAMPLE_RATE)
    noise = np.random.default_rng(seed).standard_normal(count)
    return (0.1 * noise * np.sin(np.arange(count) / 3000)).astype(np.float32)


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Whisper:
    """Whisper tiny's encoder with random weights, under the names of openai/whisper-tiny."""
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    torch.manual_seed(0)
    encoder = WhisperEncoder(
        WhisperConfig(d_model=384, encoder_layers=4, encoder_attention_heads=6, encoder_ffn_dim=1536)
    )
    tensors = {f"model.encoder.{key}": value.contiguous() for key, value in encoder.state_dict().items()}
    file = tmp_path_factory.mktemp("whisper") / "whisper-tiny.safetensors"
    save_file({**tensors, "model.decoder.embed_tokens.weight": torch.zeros(2, 2)}, file)
    return Whisper(file)


def mel_by_hand(audio: np.ndarray) -> np.ndarray:
    """(80, 3000): power of a Hann-windowed 25 ms transform every 10 ms, Slaney's mel bands, log10, 8 below the top."""
    padded = np.zeros(30 * SAMPLE_RATE)
    padded[: len(audio)] = audio
    centred = np.pad(padded, 200, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    frames = np.lib.stride_tricks.sliding_window_view(centred, 400)[::160][:3000]
    power = np.abs(np.fft.rfft(frames * window)) ** 2

    def mel(f: np.ndarray) -> np.ndarray:
        return np.where(f < 1000, 3 * f / 200, 15 + np.log(np.maximum(f, 1e-9) / 1000) * 27 / np.log(6.4))

    def hertz(m: np.ndarray) -> np.ndarray:
        return np.where(m < 15, 200 * m / 3, 1000 * np.exp(np.log(6.4) / 27 * (m - 15)))

    edges = hertz(np.linspace(mel(np.array(0.0)), mel(np.array(8000.0)), 82))
    bins = np.linspace(0, 8000, 201)
    rise = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    fall = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    bands = np.maximum(0, np.minimum(rise, fall)) * (2 / (edges[2:] - edges[:-2]))[:, None]
    logs = np.log10(np.maximum(bands @ power.T, 1e-10))
    return (np.maximum(logs, logs.max() - 8) + 4) / 4


def test_log_mel_is_the_formula() -> None:
    audio = sound(0.5)
    expected = mel_by_hand(audio)[:, :48].T.reshape(24, 1, 160)
    np.testing.assert_allclose(LogMel()(audio), expected, atol=2e-4)


def test_whispers_hidden_states_layer_by_layer(whisper: Whisper) -> None:
    audio = sound(0.4)
    encoder = whisper._encoder
    mel = torch.from_numpy(mel_by_hand(audio)).float()[None]
    with torch.no_grad():
        x = functional.gelu(functional.conv1d(mel, encoder.conv1.weight, encoder.conv1.bias, padding=1))
        x = functional.gelu(functional.conv1d(x, encoder.conv2.weight, encoder.conv2.bias, stride=2, padding=1))
        states = [x.mT + encoder.embed_positions.weight]
        for layer in encoder.layers:
            y = layer.self_attn_layer_norm(states[-1])
            attention = layer.self_attn
            q, k, v = (f(y).view(1, -1, 6, 64).transpose(1, 2) for f in (attention.q_proj, attention.k_proj, attention.v_proj))  # fmt: skip  # noqa: E501
            heads = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            x = states[-1] + attention.out_proj(heads)
            states.append(x + layer.fc2(functional.gelu(layer.fc1(layer.final_layer_norm(x)))))
        states[-1] = encoder.layer_norm(states[-1])
    expected = torch.stack(states, 2)[0, :20].numpy()
    np.testing.assert_allclose(whisper(audio), expected, atol=2e-3)


def test_both_speak_one_interface(whisper: Whisper) -> None:
    ears: list[tuple[Speech, tuple[int, ...]]] = [(whisper, (16_639,)), (LogMel(), (16_000, 1600, 639, 16_639, 16_640))]
    expect = {16_000: 50, 1600: 4, 639: 2, 16_639: 50, 16_640: 52}
    for ear, lengths in ears:
        for samples in lengths:
            expected = expect[samples]
            assert ear(np.zeros(samples, np.float32)).shape == (expected, ear.layers, ear.width)
        assert ear(np.zeros(800, np.float32)).dtype == np.float32


def test_long_sound_is_heard_in_chunks_of_thirty_seconds() -> None:
    audio = sound(31)
    heard = LogMel()(audio)
    assert heard.shape == (1550, 1, 160)
    np.testing.assert_array_equal(heard[:1500], LogMel()(audio[: 30 * SAMPLE_RATE]))
    np.testing.assert_array_equal(heard[1500:], LogMel()(audio[30 * SAMPLE_RATE :]))


@pytest.mark.parametrize(("count", "step", "frames"), [(100, 2, 25), (102, 2, 25), (100, 1, 50), (2, 2, 1)])
def test_windows_are_the_published_slices(count: int, step: int, frames: int) -> None:
    features = np.random.default_rng(0).standard_normal((count, 5, 3)).astype(np.float32)
    padded = np.concatenate([np.zeros((4, 5, 3)), features, np.zeros((8, 5, 3))])
    found = windows(features, step)
    assert found.shape == (frames, 10, 5, 3)
    for i in range(frames):
        np.testing.assert_array_equal(found[i], padded[2 * step * i : 2 * step * i + 10])


def test_a_checkpoint_gets_the_front_end_it_names(whisper: Whisper, tmp_path: Path) -> None:
    assert available(None) == LOG_MEL == speech(LOG_MEL, whisper.file).id
    assert available(whisper.file) == whisper.id == speech(whisper.id, whisper.file).id
    with pytest.raises(GenerationError, match="not on this machine; `bench weights add whisper-tiny FILE`"):
        speech(whisper.id)
    with pytest.raises(GenerationError, match="trained on whisper-tiny@00000000, this machine has whisper-tiny@"):
        speech("whisper-tiny@00000000", whisper.file)
    with pytest.raises(GenerationError, match="expected log-mel or whisper-tiny"):
        speech("wav2vec", whisper.file)
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, other)
    with pytest.raises(GenerationError, match=r"^other.safetensors: not the model.safetensors of openai/whisper-tiny"):
        Whisper(other)


@pytest.mark.parametrize("bad", [np.zeros(0), np.zeros((2, 100)), np.full(1000, np.nan)])
def test_what_is_no_sound_is_said(bad: np.ndarray) -> None:
    with pytest.raises(GenerationError, match="expected \\(n,\\) finite samples"):
        LogMel()(bad.astype(np.float32))
