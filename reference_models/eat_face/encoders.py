"""The frozen networks that describe sound, pictures and words: wav2vec 2.0 and CLIP, and in the tiny preset small
networks that are trained for the purpose (stages "speech" and "pair"), under names of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from reference_models.base import SAMPLE_RATE, GenerationError
from reference_models.eat_face.presets import EMOTIONS, Preset

HOP, WINDOW = 320, 400  # samples a speech feature moves on and sees at least, of wav2vec 2.0: 50 features a second
PIECE, CONTEXT = 1500, 50  # features that wav2vec takes at once, and beyond each end: attention grows by the square
MELS = 40
LEAST = 1e-4  # of a mel band, below which there is silence

# "<|startoftext|> WORD emotion <|endoftext|>" in CLIP's byte-pair vocabulary; every word is one of its tokens.
CLIP_WORDS = {
    "angry": 9054, "contempt": 39293, "disgusted": 41977, "fear": 5402,
    "happy": 900, "neutral": 17011, "sad": 3719, "surprised": 8949,
}  # fmt: skip
CLIP_START, CLIP_EMOTION, CLIP_END = 49406, 17464, 49407
CLIP_MEAN, CLIP_SPREAD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Speech(Protocol):
    def features(self, audio: NDArray[np.float32]) -> Tensor:
        """(S, D) of sound (n,) at SAMPLE_RATE, S = (n - WINDOW) // HOP + 1, at least 1."""
        ...


class Pair(Protocol):
    """Pictures and words in one space."""

    side: int  # of the pictures that it takes, px

    def pictures(self, faces: Tensor) -> Tensor:
        """(N, E) of faces (N, 3, side, side) in [0, 1]."""
        ...

    def words(self) -> tuple[Tensor, Tensor]:
        """(tokens (8, L, width), features (8, E)) of "<word> emotion" for EMOTIONS."""
        ...


class SmallSpeech(nn.Module):
    """The tiny preset's own: log-mel bands and convolutions over a third of a second, trained to follow the mouth."""

    SHAPES = 4  # numbers that describe a mouth, see copies.mouth

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        inner = 64
        self.network = nn.Sequential(
            nn.Conv1d(MELS, inner, 5, padding=2), nn.GELU(),
            nn.Conv1d(inner, inner, 5, padding=4, dilation=2), nn.GELU(),
            nn.Conv1d(inner, preset.speech_width, 3, padding=1),
        )  # fmt: skip
        self.head = nn.Sequential(nn.GELU(), nn.Linear(preset.speech_width, self.SHAPES))

    def forward(self, bands: Tensor) -> Tensor:
        """(N, S, D) of bands (N, MELS, S)."""
        out: Tensor = self.network(bands).transpose(1, 2)
        return out

    def mouth(self, bands: Tensor) -> Tensor:
        out: Tensor = self.head(self(bands))
        return out

    def features(self, audio: NDArray[np.float32]) -> Tensor:
        device = next(self.parameters()).device
        with torch.no_grad():
            found: Tensor = self(mel(audio).to(device)[None])[0]
        return found


def mel(audio: NDArray[np.float32]) -> Tensor:
    """Logarithms of MELS triangular bands (MELS, S), 60 Hz to 7.6 kHz, about [-2, 2]."""
    sound = _at_least(audio)
    size = 512
    spectrum = torch.stft(
        F.pad(sound, (0, size - WINDOW)),
        size,
        HOP,
        WINDOW,
        torch.hann_window(WINDOW),
        center=False,
        return_complex=True,
    )
    edges = torch.linspace(_to_mel(60.0), _to_mel(7600.0), MELS + 2, dtype=torch.float64)
    hertz = 700 * (10 ** (edges / 2595) - 1)
    bins = torch.linspace(0, SAMPLE_RATE / 2, size // 2 + 1, dtype=torch.float64)
    rise = (bins - hertz[:-2, None]) / (hertz[1:-1] - hertz[:-2])[:, None]
    fall = (hertz[2:, None] - bins) / (hertz[2:] - hertz[1:-1])[:, None]
    bands = torch.minimum(rise, fall).clamp(min=0).float() @ spectrum.abs()
    count = _count(len(sound))
    return (torch.log(bands[:, :count].clamp(min=LEAST)) + 4) / 3


def _to_mel(hertz: float) -> float:
    return float(2595 * np.log10(1 + hertz / 700))


def _count(samples: int) -> int:
    return (samples - WINDOW) // HOP + 1


def _at_least(audio: NDArray[np.float32]) -> Tensor:
    sound = torch.from_numpy(np.ascontiguousarray(audio, dtype=np.float32))
    return F.pad(sound, (0, max(0, WINDOW - len(sound))))


class SmallPair(nn.Module):
    """The tiny preset's own: a convolutional network for faces and a table of words, trained to tell emotions apart."""

    side = 32

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((3, 16), (16, 32), (32, 64)):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.GELU()]
        self.network = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 16, preset.embedding))
        self.tokens = nn.Embedding(len(EMOTIONS) + 1, preset.width)  # and "emotion"
        self.text = nn.Linear(preset.width, preset.embedding)

    def pictures(self, faces: Tensor) -> Tensor:
        # The complexion and the light are taken out: a face is compared with its own mean.
        mean, spread = faces.mean((2, 3), keepdim=True), faces.std((1, 2, 3), keepdim=True)
        out: Tensor = self.network((faces - mean) / (spread + 1e-3))
        return out

    def words(self) -> tuple[Tensor, Tensor]:
        numbers = torch.arange(len(EMOTIONS), device=self.tokens.weight.device)
        tokens = self.tokens(torch.stack([numbers, torch.full_like(numbers, len(EMOTIONS))], 1))
        return tokens, self.text(tokens.mean(1))


class Wav2Vec(nn.Module):
    """wav2vec 2.0 base, the last layer's output."""

    def __init__(self, path: Path | None) -> None:
        """path: its weights; None: random ones, to measure and to test."""
        super().__init__()
        from transformers import Wav2Vec2Config, Wav2Vec2Model

        self.network = Wav2Vec2Model(Wav2Vec2Config())
        if path is not None:
            renamed = {}
            for name, tensor in _read(path).items():
                name = name.removeprefix("wav2vec2.")
                name = name.replace("conv.weight_g", "conv.parametrizations.weight.original0")
                renamed[name.replace("conv.weight_v", "conv.parametrizations.weight.original1")] = tensor
            _fill(self.network, renamed, path, optional=("masked_spec_embed",))
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def features(self, audio: NDArray[np.float32]) -> Tensor:
        sound = _at_least(audio)
        sound = (sound - sound.mean()) / (sound.var(unbiased=False) + 1e-7).sqrt()
        sound = sound.to(next(self.parameters()).device)
        pieces, count = [], _count(len(sound))
        for start in range(0, count, PIECE):
            end = min(start + PIECE, count)
            first, last = max(0, start - CONTEXT), min(count, end + CONTEXT)
            heard = sound[first * HOP : (last - 1) * HOP + WINDOW]
            pieces.append(self.network(heard[None]).last_hidden_state[0, start - first : end - first])
        return torch.cat(pieces)


class Clip(nn.Module):
    """CLIP ViT-L/14, projected features."""

    side = 224

    def __init__(self, path: Path | None) -> None:
        """path: its weights; None: random ones, to measure and to test."""
        super().__init__()
        from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

        text = CLIPTextConfig(
            hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, projection_dim=768,
            bos_token_id=CLIP_START, eos_token_id=CLIP_END,
        )  # fmt: skip
        vision = CLIPVisionConfig(
            hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, projection_dim=768,
            patch_size=14, image_size=224,
        )  # fmt: skip
        self.network = CLIPModel(
            CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=768)
        )
        if path is not None:
            _fill(self.network, _read(path), path)
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def pictures(self, faces: Tensor) -> Tensor:
        mean, spread = (faces.new_tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_SPREAD))
        seen = self.network.vision_model((faces - mean) / spread).pooler_output
        out: Tensor = self.network.visual_projection(seen)
        return out

    @torch.no_grad()
    def words(self) -> tuple[Tensor, Tensor]:
        rows = [[CLIP_START, CLIP_WORDS[word], CLIP_EMOTION, CLIP_END] for word in EMOTIONS]
        read = self.network.text_model(torch.tensor(rows, device=self.network.device))
        return read.last_hidden_state, self.network.text_projection(read.pooler_output)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise GenerationError(f"{path.name}: no safetensors file, or damaged; fetch it again") from error


def _fill(network: nn.Module, tensors: Mapping[str, Tensor], path: Path, optional: Sequence[str] = ()) -> None:
    """Load what the network has; the file may hold more (heads, position numbers). Raises GenerationError."""
    own = network.state_dict()
    lacking = [name for name in own if name not in tensors and name not in optional]
    odd = [name for name, value in own.items() if name in tensors and tensors[name].shape != value.shape]
    if lacking or odd:
        named = (lacking + odd)[0]
        raise GenerationError(
            f"{path.name}: {len(lacking)} tensors are missing and {len(odd)} of another shape, as {named}; "
            f"expected the weights of {type(network).__name__}"
        )
    network.load_state_dict({name: tensors.get(name, value) for name, value in own.items()})


def fill_codec(codec: Any, path: Path) -> None:
    """Stable Diffusion's VAE; older files call its attention otherwise. Raises GenerationError."""
    renamed = {}
    for name, tensor in _read(path).items():
        for old, new in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")):
            name = name.replace(f"attentions.0.{old}.", f"attentions.0.{new}.")
        renamed[name] = tensor
    _fill(codec.vae, renamed, path)


def fill_unet(unet: nn.Module, path: Path) -> None:
    """Stable Diffusion 1.5's U-Net: the input layer keeps its four channels, the eight new ones start at zero.
    Raises GenerationError."""
    tensors = _read(path)
    first = tensors.get("conv_in.weight")
    own = unet.state_dict()["conv_in.weight"]
    if first is not None and first.shape[0] == own.shape[0] and first.shape[1] <= own.shape[1]:
        tensors["conv_in.weight"] = F.pad(first, (0, 0, 0, 0, 0, own.shape[1] - first.shape[1]))
    _fill(unet, tensors, path)
