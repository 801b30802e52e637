"""Sizes and training of EAT-Face: `full` as the paper has it, `tiny` for a CPU; the code is the same for both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from reference_models.base import GenerationError
from reference_models.training import TrainingError

MODEL = "eat-face"
# Pretrained networks that a preset starts from; the U-Net may be random instead.
WEIGHTS = {"full": ("sd-vae", "clip-vit-large-patch14", "wav2vec2-base", "sd15-unet")}
# The paper's words (Section IV-A.2), which are MEAD's; the prompt is "<word> emotion".
EMOTIONS = ("angry", "contempt", "disgusted", "fear", "happy", "neutral", "sad", "surprised")


@dataclass(frozen=True, slots=True)
class Stage:
    """steps of a stage, items a step, and the learning rate after the warm-up."""

    steps: int
    batch: int
    rate: float


@dataclass(frozen=True, slots=True)
class Preset:
    """A configuration; it is recorded in every checkpoint.

    size              side of the pictures, px
    own_encoders      VAE, speech, image and text encoders are small ones trained here, not pretrained ones
    patch             pixels that the VAE takes as one, along each side
    vae               channels of its levels; side of the latents = size / patch / 2^(levels - 1)
    latent_channels   C
    unet              channels of the U-Net's levels
    cross             which of them attend to the audio
    layers, heads, groups   residual blocks a level, attention heads, groups of the group norms
    width             of the cross-attention's keys and values
    speech_width      D, of a speech feature
    embedding         E, of an image's or a text's feature
    adapter           channels of an adapter's convolutions
    alpha             α of eq. 7; the paper does not say
    temperature       τ of eq. 8
    prediction        what the U-Net predicts; the paper's equations have the noise, "sample" is z_0
    mask              "face": z_m is of the picture with the face hidden; "binary": of the mask itself
    ddim_steps        when sampling
    smooth            frames are smoothed by interpolation where there is a network for it
    copies            of each training clip, all but the first with other colours, and slightly warped
    shuffle_conditions   control: every training clip gets the sound and the emotion of another
    """

    name: str
    size: int
    own_encoders: bool
    patch: int
    vae: tuple[int, ...]
    latent_channels: int
    unet: tuple[int, ...]
    cross: tuple[bool, ...]
    layers: int
    heads: int
    groups: int
    width: int
    speech_width: int
    embedding: int
    adapter: tuple[int, ...]
    stages: Mapping[str, Stage]
    warmup: int
    validate_every: int
    weight_decay: float = 1e-3
    ema: float = 0.999
    alpha: float = 0.5
    temperature: float = 0.2
    prediction: Literal["epsilon", "v_prediction", "sample"] = "epsilon"
    mask: Literal["face", "binary"] = "face"
    ddim_steps: int = 100
    smooth: bool = True
    copies: int = 1
    shuffle_conditions: bool = False

    @property
    def latent_side(self) -> int:
        return self.size // (self.patch << (len(self.vae) - 1))

    @property
    def condition(self) -> int:
        """hw, the length of a joint embedding."""
        return self.latent_side**2


# Steps are ours: the paper gives none. 100,000 steps of 48 are 51 epochs of its 93k pictures.
FULL = Preset(
    name="full",
    size=256,
    own_encoders=False,
    patch=1,
    vae=(128, 256, 512, 512),
    latent_channels=4,
    unet=(320, 640, 1280, 1280),
    cross=(True, True, True, False),
    layers=2,
    heads=8,
    groups=32,
    width=768,
    speech_width=768,
    embedding=768,
    adapter=(16, 32),
    stages={
        "tfr": Stage(100_000, 48, 1e-5),
        "eve": Stage(20_000, 8, 1e-3),
        "controlnet": Stage(50_000, 12, 1e-5),
        "finetune": Stage(50_000, 12, 1e-5),
    },
    warmup=500,
    validate_every=5000,
    ema=0.9999,
)

TINY = Preset(
    name="tiny",
    size=64,
    own_encoders=True,
    patch=4,
    vae=(48, 64),
    latent_channels=16,
    unet=(64, 96),
    cross=(True, False),
    layers=1,
    heads=4,
    groups=8,
    width=64,
    speech_width=32,
    embedding=64,
    adapter=(8, 16),
    stages={
        "vae": Stage(150, 12, 1e-3),
        "speech": Stage(400, 8, 2e-3),
        "pair": Stage(300, 32, 2e-3),
        "tfr": Stage(350, 16, 1e-3),
        "eve": Stage(300, 8, 1e-3),
        "controlnet": Stage(120, 16, 1e-3),
        "finetune": Stage(500, 16, 1e-3),
    },
    warmup=20,
    validate_every=250,
    ema=0.98,
    prediction="sample",
    ddim_steps=10,
    smooth=False,
    copies=3,
)

PRESETS = {preset.name: preset for preset in (FULL, TINY)}


def changed(preset: Preset, options: Mapping[str, Any]) -> Preset:
    """The preset with some fields replaced. Raises TrainingError for a field that it has not, or of another type."""
    known = [field.name for field in fields(Preset) if field.name not in ("name", "stages")]
    found: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in options.items()
    }
    for name, value in found.items():
        if name not in known:
            raise TrainingError(f"option {name!r} is no field of EAT-Face's presets; known: {', '.join(known)}")
        own = getattr(preset, name)
        if type(value) is not type(own) and not (isinstance(own, float) and type(value) is int):
            raise TrainingError(f"option {name} = {value!r}; expected such as {own!r}")
    return replace(preset, **found)


def recorded(preset: Preset) -> dict[str, Any]:
    """As a checkpoint's header holds it."""
    return asdict(preset)


def restored(config: Mapping[str, Any], file: str) -> Preset:
    """The preset that a checkpoint was trained with. Raises GenerationError for a header of another version."""
    found = dict(config.get("configuration", {}))
    try:
        stages = {name: Stage(**stage) for name, stage in found.pop("stages").items()}
        lists = {name: tuple(value) for name, value in found.items() if isinstance(value, list)}
        return Preset(**{**found, **lists}, stages=stages)
    except (KeyError, TypeError, AttributeError) as error:
        raise GenerationError(
            f"{file}: its configuration is not this version's ({' '.join(str(error).split())[:100]}); train it anew"
        ) from error
