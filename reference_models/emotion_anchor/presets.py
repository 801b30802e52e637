"""Sizes and training of the emotion-anchor transformer: `full`, and `tiny` for a CPU; the code is the same for both."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from reference_models.base import GenerationError
from reference_models.training import changed, check_ranges, refuse

MODEL = "emotion-anchor"
EMOTIONS = ("angry", "contempt", "disgusted", "fear", "happy", "neutral", "sad", "surprised")  # MEAD's
SPAN = 7  # tokens of content around a frame, and of emotion
ANCHOR_HEADS = 4  # of the emotion anchor's attention
POSITIVE = (
    "size", "codes", "code_width", "groups", "audio_channels", "content", "emotion", "layers", "heads", "width",
    "every", "top_k",
)  # fmt: skip
SHARES = ("pkeep", "words", "unheard", "ema")


@dataclass(frozen=True, slots=True)
class Stage:
    """Optimiser steps, items a step, learning rate after the warm-up, and Adam's betas."""

    steps: int
    batch: int
    rate: float
    betas: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Preset:
    """A configuration; it is recorded in every checkpoint.

    size              side of the square around the face, px
    channels          of the VQGAN's levels, each half the size of the one before; f = 2^(levels - 1)
    blocks, groups    residual blocks a level, groups of the group norms
    square            px of the squares whose principal components take the place of encoder and decoder; 0: none do
    evened            pictures are seen without the source's mean colour and contrast, and drawn with them
    codes, code_width   entries of the codebook and their dimensions
    beta              weight of the commitment
    perceptual        weight of LPIPS; 0: without
    adversarial       weight of the discriminator's opinion, from batch `adversarial_from` on; 0: without
    discriminator     channels and layers of the discriminator
    audio_channels    of the first convolution of the audio encoders
    content, emotion  dimensions of their codes
    layers, heads, width   of the transformer
    every             steps from one checkpoint and validation to the next
    pkeep             share of the codes that it is given unspoilt in training
    continuity, auxiliary   weights of the losses between two frames, and of the anchor's emotion
    recolour          faces are mirrored and given another tint: for few people
    words             share of the items that are told the emotion's word in place of the emotional audio
    unheard           share of the items whose content codes are 0, their mean: no sound in particular
    guidance          codes are drawn so many times as far from the logits of no sound in particular; 1: from their own
    top_k             codes that are drawn from; 1: the likeliest is taken
    shuffle_conditions   control: the transformer sees every clip with the sound and the emotion of another
    """

    name: str
    size: int
    channels: tuple[int, ...]
    blocks: int
    groups: int
    codes: int
    code_width: int
    discriminator: tuple[int, int]
    adversarial_from: int
    audio_channels: int
    content: int
    emotion: int
    layers: int
    heads: int
    width: int
    stages: Mapping[str, Stage]
    warmup: int
    every: int
    ema: float
    square: int = 0
    evened: bool = False
    beta: float = 0.25
    perceptual: float = 1.0
    adversarial: float = 0.8
    pkeep: float = 0.9
    continuity: float = 0.1
    auxiliary: float = 0.1
    recolour: bool = False
    words: float = 0.5
    unheard: float = 0.0
    guidance: float = 1.0
    top_k: int = 100
    shuffle_conditions: bool = False

    @property
    def side(self) -> int:
        """Tokens along each side of the square."""
        return self.size // (self.square or 1 << (len(self.channels) - 1))

    @property
    def tokens(self) -> int:
        return self.side * self.side


# VQGAN's and GPT's sizes are those of Taming Transformers, the audio networks' codes those of EVP; steps are ours.
FULL = Preset(
    name="full",
    size=256,
    channels=(128, 128, 256, 256, 512),
    blocks=2,
    groups=32,
    codes=1024,
    code_width=256,
    discriminator=(64, 3),
    adversarial_from=30_000,
    audio_channels=64,
    content=256,
    emotion=128,
    layers=24,
    heads=16,
    width=1024,
    stages={
        "audio": Stage(200_000, 16, 2e-4, (0.5, 0.999)),
        "vq": Stage(300_000, 8, 3.6e-5, (0.5, 0.9)),
        "transformer": Stage(200_000, 8, 1e-4, (0.9, 0.95)),
    },
    warmup=500,
    every=5000,
    ema=0.9999,
)

TINY = Preset(
    name="tiny",
    size=64,
    channels=(),
    blocks=0,
    groups=1,
    codes=4096,
    code_width=24,
    discriminator=(16, 2),
    adversarial_from=10**9,
    audio_channels=8,
    content=64,
    emotion=32,
    layers=4,
    heads=4,
    width=128,
    stages={
        "audio": Stage(300, 24, 2e-3, (0.9, 0.99)),
        "vq": Stage(0, 8, 1e-3, (0.9, 0.99)),
        "transformer": Stage(400, 6, 1e-3, (0.9, 0.99)),
    },
    warmup=20,
    every=50,
    ema=0.98,
    square=8,
    evened=True,
    perceptual=0.0,
    adversarial=0.0,
    recolour=True,
    words=0.9,
    unheard=0.1,
    guidance=3.0,
    top_k=1,
)

PRESETS = {preset.name: preset for preset in (FULL, TINY)}


def preset_of(name: str, options: Mapping[str, Any]) -> Preset:
    """The preset with some fields replaced. Raises TrainingError for a field that it has not, and for values of another
    type, out of their range or that do not fit together."""
    preset = changed(PRESETS[name], options, fixed=("name", "stages"))
    _check(preset)
    return preset


def _check(p: Preset) -> None:
    """Raises TrainingError for what cannot be built, or is not what it seems."""
    check_ranges(p, POSITIVE, SHARES)
    if p.square < 0 or not (p.square or p.channels):
        refuse(p, "square channels", "a square of 1 px or more, or the channels of a VQGAN")
    if not all(type(number) is int and number > 0 for number in (*p.channels, *p.discriminator)):
        refuse(p, "channels discriminator", "lists of whole numbers above 0")
    if len(p.discriminator) != 2 or p.discriminator[0] % 4:
        refuse(p, "discriminator", "channels, a multiple of 4, and layers")
    if any(channels % p.groups for channels in p.channels):
        refuse(p, "channels groups", "channels that are multiples of groups")
    if p.size % (p.square or 1 << (len(p.channels) - 1)):
        refuse(p, "size square channels", "a size that is a multiple of a token's side")
    if p.square and p.code_width > 3 * p.square**2:
        refuse(p, "code_width square", "at most three numbers for each pixel of a square")
    if p.code_width % ANCHOR_HEADS:
        refuse(p, "code_width", f"a multiple of {ANCHOR_HEADS}, the anchor's heads")
    if p.width % p.heads:
        refuse(p, "width heads", "a width that is a multiple of heads")
    if not 0 <= p.guidance < math.inf or (p.guidance != 1 and not p.unheard):
        refuse(p, "guidance unheard", "1, or another number from 0 up and a share of training that hears nothing")


def recorded(preset: Preset) -> dict[str, Any]:
    """As a checkpoint's header holds it."""
    return asdict(preset)


def restored(found: Any, file: str) -> Preset:
    """The preset that a checkpoint was trained with. Raises GenerationError for a header of another version."""
    try:
        held = dict(found)
        stages = {
            name: Stage(**{**stage, "betas": tuple(stage["betas"])}) for name, stage in held.pop("stages").items()
        }
        lists = {name: tuple(value) for name, value in held.items() if isinstance(value, list)}
        return Preset(**{**held, **lists}, stages=stages)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        reason = " ".join(str(error).split())[:100]
        raise GenerationError(f"{file}: its configuration is not this version's ({reason}); train it anew") from error
