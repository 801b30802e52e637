"""Files of DICE-Talk: Stable Video Diffusion's UNet to start from, the published model, and what was trained here."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from reference_models import training
from reference_models.base import GenerationError
from reference_models.dice_talk.conditioning import ConditionedAttention
from reference_models.dice_talk.model import DiceTalk
from reference_models.dice_talk.presets import PRESETS, Preset

MODEL = "dice-talk"
log = logging.getLogger(__name__)
WHISPER_SIZE = 5 * 384  # layers times width of Whisper tiny's features
# The published files and the part of the model that each fills; keys are the same on both sides.
PUBLISHED = {"unet": "unet", "audio_linear": "audio_linear", "emo_model": "emo_model", "pose_guider": "pose_guider"}


def trained(file: Path, preset: str) -> tuple[DiceTalk, Preset, dict[str, Any]]:
    """The model that `bench train dice-talk` left, its preset with the options of its training, and the configuration
    in its header. Raises GenerationError for another model or preset, or a damaged file."""
    tensors, config = training.load(file, MODEL, preset)
    try:
        told, _ = config["fields"], (config["speech"], config["vision"], config["embedder"])
        chosen = Preset(**{f.name: tupled(told[f.name]) for f in fields(Preset)})
        with torch.device("meta"):
            model = DiceTalk(chosen, int(config["speech_size"]))
        model.load_state_dict(tensors, assign=True)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise GenerationError(f"{file.name}: of another configuration ({reason}); train it anew") from error
    return model, chosen, config


def published(unet: Path, audio_linear: Path, emo_model: Path, pose_guider: Path) -> tuple[DiceTalk, Preset]:
    """The published DICE-Talk. Keys that the model has no place for are named in the log. Raises GenerationError where
    one is missing or of another shape."""
    preset = PRESETS["full"]
    with torch.device("meta"):
        model = DiceTalk(preset, WHISPER_SIZE)
    files = {"unet": unet, "audio_linear": audio_linear, "emo_model": emo_model, "pose_guider": pose_guider}
    for name, part in PUBLISHED.items():
        fill(getattr(model, part), _read(files[name]), files[name].name)
    return model, preset


def initialise(model: DiceTalk, file: Path) -> None:
    """Start from Stable Video Diffusion's UNet (diffusers' own file): audio and emotion streams begin as each layer's
    keys and values. Raises GenerationError."""
    new = {name for name in model.unet.state_dict() if ".processor." in name}
    fill(model.unet, _read(file), file.name, new)
    for module in model.unet.modules():
        if isinstance(getattr(module, "processor", None), ConditionedAttention):
            module.processor.start(module)


def fill(module: nn.Module, stored: Mapping[str, Tensor], file: str, new: set[str] | None = None) -> None:
    """Load `stored` into `module`, each key once; `new` are those of the module that no file has. What the module has
    no place for is named in the log."""
    expected = {name: tensor.shape for name, tensor in module.state_dict().items() if name not in (new or set())}
    missing, unused = sorted(expected.keys() - stored.keys()), sorted(stored.keys() - expected.keys())
    other = sorted(name for name in expected.keys() & stored.keys() if expected[name] != stored[name].shape)
    for told, names in (("lacks", missing), ("has another shape of", other)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise GenerationError(f"{file}: {told} {names[0]}{more}; expected the file of this model and size")
    if unused:
        log.warning("%s: not used: %s", file, ", ".join(unused))
    module.load_state_dict({name: stored[name].float() for name in expected}, strict=False, assign=_on_meta(module))


def _on_meta(module: nn.Module) -> bool:
    return next(module.parameters()).is_meta


def _read(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        stored = torch.load(file, weights_only=True, map_location="cpu", mmap=True)
        if not isinstance(stored, dict) or not all(isinstance(tensor, Tensor) for tensor in stored.values()):
            raise ValueError("no state dict")
    except (OSError, RuntimeError, ValueError, EOFError, SafetensorError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise GenerationError(f"{file.name}: damaged, or no weights ({reason}); get it again") from error
    return stored


def tupled(value: Any) -> Any:
    """Lists, as JSON and TOML have them, to tuples, as presets have them."""
    return tuple(tupled(one) for one in value) if isinstance(value, list) else value
