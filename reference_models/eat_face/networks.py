"""All networks of a trained EAT-Face together, how its emotion condition is made, and the file that holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from reference_models import training
from reference_models.base import GenerationError
from reference_models.eat_face import encoders, model
from reference_models.eat_face.presets import MODEL, Preset, recorded, restored

Ablation = Literal["", "wo-eve", "wo-fec", "wo-emo"]
ABLATIONS: tuple[Ablation, ...] = tuple(word for word in get_args(Ablation) if word)


@dataclass(slots=True)
class Networks:
    """joint is None w/o EVE, controller is None where there is none (w/o FEC, w/o Emo)."""

    preset: Preset
    ablation: Ablation
    codec: model.Codec
    speech: encoders.Speech
    pair: encoders.Pair
    reconstructor: model.Reconstructor
    joint: model.JointEmbedding | None
    controller: model.Controller | None
    _words: tuple[Tensor, Tensor] | None = field(default=None, init=False)

    def parts(self) -> dict[str, nn.Module]:
        """What is trained here, by name; pretrained networks are no part of a checkpoint."""
        found: dict[str, nn.Module | None] = {
            "reconstructor": self.reconstructor,
            "joint": self.joint,
            "controller": self.controller,
        }
        if self.preset.own_encoders:
            found |= {name: getattr(self, name) for name in ("codec", "speech", "pair")}
        return {name: part for name, part in found.items() if part is not None}

    def frozen(self, device: str) -> Networks:
        """All of them on the device, for use."""
        self._words = None  # of weights that may have changed
        for part in (self.codec, self.speech, self.pair, self.reconstructor, self.joint, self.controller):
            if isinstance(part, nn.Module):
                part.to(device).eval().requires_grad_(False)
        return self

    def words(self) -> tuple[Tensor, Tensor]:
        """(tokens, features) of all emotions, computed once."""
        if self._words is None:
            with torch.no_grad():
                self._words = self.pair.words()
        return self._words

    def condition(self, word: Tensor, calm: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """(tokens (N, L, width) behind the audio's or None, c_e (N, C, h, w) or None), as the ablation has it.

        word   (N,) numbers of emotions
        calm   (N, E) features of an emotionless picture of the person
        """
        tokens, features = self.words()
        if self.ablation == "wo-emo":
            return None, None
        if self.ablation == "wo-fec":
            return tokens[word], None
        if self.joint is None:
            h = model.stretched(features[word], self.preset.condition)
        else:
            h = self.joint.of_emotion(features[word], calm)
        return None, model.emotion_map(h, self.preset.latent_channels)


def fresh(preset: Preset, ablation: Ablation, weights: Mapping[str, Path | None]) -> Networks:
    """Networks before any training; random ones in place of weights that are None.

    weights   "sd-vae", "clip-vit-large-patch14", "wav2vec2-base", "sd15-unet" of the full preset, as far as wanted
    """
    codec, reconstructor = model.Codec(preset), model.Reconstructor(preset)
    speech: encoders.Speech
    pair: encoders.Pair
    if preset.own_encoders:
        speech, pair = encoders.SmallSpeech(preset), encoders.SmallPair(preset)
    else:
        speech = encoders.Wav2Vec(weights.get("wav2vec2-base"))
        pair = encoders.Clip(weights.get("clip-vit-large-patch14"))
    if vae := weights.get("sd-vae"):
        encoders.fill_codec(codec, vae)
    if unet := weights.get("sd15-unet"):
        encoders.fill_unet(reconstructor.unet, unet)
    joint = model.JointEmbedding(preset) if ablation == "" else None
    controller = model.Controller(reconstructor.unet, preset) if ablation in ("", "wo-eve") else None
    return Networks(preset, ablation, codec, speech, pair, reconstructor, joint, controller)


def write(path: Path, networks: Networks) -> None:
    tensors = {
        f"{name}.{key}": value for name, part in networks.parts().items() for key, value in part.state_dict().items()
    }
    config = {"model": MODEL, "preset": networks.preset.name, "ablation": networks.ablation}
    training.save(path, tensors, {**config, "configuration": recorded(networks.preset)})


def preset_of(path: Path) -> str:
    """The name of the preset that a finished checkpoint is of. Raises GenerationError, also for another model's."""
    name: str = training.load(path, MODEL)[1]["preset"]
    return name


def read(path: Path, preset: str, weights: Mapping[str, Path | None], device: str) -> Networks:
    """The networks of a finished checkpoint. Raises GenerationError for a file of another model, preset or version."""
    tensors, config = training.load(path, MODEL, preset)
    ablation: Any = config.get("ablation")
    if ablation not in get_args(Ablation):
        raise GenerationError(f"{path.name}: ablation {ablation!r} is none of this version's; train it anew")
    made = fresh(restored(config, path.name), ablation, weights)
    if unknown := {name.partition(".")[0] for name in tensors} - made.parts().keys():
        raise GenerationError(f"{path.name}: also holds {', '.join(sorted(unknown))}; is it of another ablation?")
    fill(path, made.parts(), tensors)
    return made.frozen(device)


def fill(path: Path, parts: Mapping[str, nn.Module], tensors: Mapping[str, Any]) -> None:
    """Load "<part>.<name>" tensors, all of them and no others. Raises GenerationError."""
    for name, part in parts.items():
        own = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        try:
            part.load_state_dict(own)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:120]
            raise GenerationError(f"{path.name}: is of another configuration ({reason}); train it anew") from error
