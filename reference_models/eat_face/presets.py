"""Sizes and training of EAT-Face: `full` as the paper has it, `tiny` for a CPU; the code is the same for both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from reference_models.base import GenerationError
from reference_models.training import TrainingError, changed, check_ranges, refuse

MODEL = "eat-face"
# Pretrained networks that a preset starts from; the U-Net may be random instead.
WEIGHTS = {"full": ("sd-vae", "clip-vit-large-patch14", "wav2vec2-base", "sd15-unet")}
# The paper's words (Section IV-A.2), which are MEAD's; the prompt is "<word> emotion".
EMOTIONS = ("angry", "contempt", "disgusted", "fear", "happy", "neutral", "sad", "surprised")
Prediction = Literal["epsilon", "sample"]
Mask = Literal["face", "binary"]
DIFFUSION_STEPS = 1000  # of the noise schedule
FEWEST = 4  # steps of DDIM
STEPS_EXPECTED = f"a divisor of {DIFFUSION_STEPS}, {FEWEST} to {DIFFUSION_STEPS // 2}"
POSITIVE = (
    "size", "patch", "latent_channels", "layers", "heads", "groups", "width", "speech_width", "embedding", "ddim_steps",
    "copies", "validate_every",
)  # fmt: skip
SHARES = ("alpha", "ema", "unheard")
FIXED = {"name", "own_encoders", "stages"}  # fields that no option replaces


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
    unheard           share of the items whose speech features are 0: no sound in particular
    guidance          predictions are so many times as far from those of no sound in particular; 1: as they are
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
    prediction: Prediction = "epsilon"
    mask: Mask = "face"
    unheard: float = 0.0
    guidance: float = 1.0
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
    unheard=0.1,
    guidance=2.0,
    ddim_steps=10,
    smooth=False,
    copies=3,
)

PRESETS = {preset.name: preset for preset in (FULL, TINY)}


def preset_of(name: str, options: Mapping[str, Any]) -> Preset:
    """The preset with some fields replaced. Raises TrainingError for a field that it has not, and for values of another
    type, out of their range or that do not fit together."""
    preset = changed(PRESETS[name], options, fixed=FIXED)
    _check(preset)
    return preset


def steps_fit(steps: int) -> bool:
    """Whether so many steps of DDIM begin where pictures are mostly noise: they are spread evenly from below, and a
    single one would take pure noise for a nearly finished picture."""
    return FEWEST <= steps <= DIFFUSION_STEPS // 2 and DIFFUSION_STEPS % steps == 0


def _check(p: Preset) -> None:
    """Raises TrainingError for what cannot be built, or is not what it seems."""
    check_ranges(p, POSITIVE, SHARES)
    for name in ("warmup", "weight_decay"):
        if getattr(p, name) < 0:
            refuse(p, name, "0 or more")
    if min(*p.vae, *p.unet, *p.adapter, 1) < 1 or not p.vae or not p.unet:
        refuse(p, "vae unet adapter", "lists of whole numbers above 0, the first two not empty")
    if any(channels % p.groups for channels in (*p.vae, *p.unet)):
        refuse(p, "vae unet groups", "channels that are multiples of groups")
    if len(p.unet) != len(p.cross):
        refuse(p, "unet cross", "one of cross for each level of unet")
    if p.size % (smallest := p.patch << (len(p.vae) + len(p.unet) - 2)):
        refuse(p, "size patch vae unet", f"a size that is a multiple of {smallest}, which becomes one number")
    if p.embedding >> len(p.adapter) < 1:
        refuse(p, "embedding adapter", "an embedding that may be halved once a convolution of the adapter")
    if not steps_fit(p.ddim_steps):
        refuse(p, "ddim_steps", STEPS_EXPECTED)
    if p.ema >= 1:
        refuse(p, "ema", "a share below 1")
    if p.heads > min(p.unet):
        refuse(p, "heads unet", "at most as many heads as there are channels")
    if p.own_encoders and p.latent_channels > (most := 3 * (p.size // p.latent_side) ** 2):
        refuse(p, "latent_channels", f"{most} at most, the numbers of a square that becomes one of the latents")
    if p.temperature <= 0:
        refuse(p, "temperature", "a number above 0")
    for name, known in (("prediction", get_args(Prediction)), ("mask", get_args(Mask))):
        if getattr(p, name) not in known:
            refuse(p, name, f"one of {', '.join(known)}")
    if p.guidance < 0 or (p.guidance != 1 and not 0 < p.unheard < 1):
        refuse(p, "guidance unheard", "1, or another number from 0 up and a share of training that hears nothing")


def recorded(preset: Preset) -> dict[str, Any]:
    """As a checkpoint's header holds it."""
    return asdict(preset)


def restored(config: Mapping[str, Any], file: str) -> Preset:
    """The preset that a checkpoint was trained with. Raises GenerationError for a header of another version."""
    try:
        found = dict(config["configuration"])
        base = PRESETS[found.pop("name")]
        stages = {name: Stage(**stage) for name, stage in found.pop("stages").items()}
        if found.pop("own_encoders") != base.own_encoders or found.keys() != recorded(base).keys() - FIXED:
            raise GenerationError("fields are missing, or unknown")
        return replace(preset_of(base.name, found), stages=stages)
    except (KeyError, TypeError, ValueError, AttributeError, TrainingError, GenerationError) as error:
        raise GenerationError(
            f"{file}: its configuration is not this version's ({' '.join(str(error).split())[:100]}); train it anew"
        ) from error
