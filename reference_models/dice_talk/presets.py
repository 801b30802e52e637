"""Sizes of DICE-Talk: as published, and one that learns in minutes on a CPU. The code is the same."""

from __future__ import annotations

from dataclasses import dataclass

from reference_models.dice_talk.conditioning import Bank

# Classes of eq. 16: neutral, and three levels of each of the others (the published classifier has 22 outputs; that
# they are these is inferred).
EMOTIONS = ("angry", "contempt", "disgusted", "fear", "happy", "sad", "surprised")
CLASSES = 1 + 3 * len(EMOTIONS)


@dataclass(frozen=True, slots=True)
class Preset:
    """A configuration. [P] is stated in the paper, [C] read in the published code, the rest is our choice.

    pixels          of the pictures that the autoencoder sees
    window          frames that are denoised together, at 12.5 fps [C]; shift: how far windows move each step [C]
    widths ... cross  of UNetSpatioTemporalConditionModel; cross is also the width of all tokens
    autoencoder     widths of AutoencoderKLTemporalDecoder; latents: its channels; guider: widths before the output [C]
    square          pixels of the squares whose principal components are the latents, in that autoencoder's place
    encoder         layers, width, patch and pixels of the CLIP image encoder
    tokens, hidden  of the audio and emotion projections [C]; entries: of the bank [C]
    prior           width of an emotion prior
    sigma           mean and deviation of log sigma in training (SVD's); sigmas: the schedule's ends [C]
    drops           share of the data that loses audio, image, emotion, and all of them [P]
    discrimination  lambda of eq. 15, which the paper does not give
    bank            see EmotionModel; mean_prior: train on the mean instead of a sample of eq. 6
    whole_bank      share of the training windows that attend to the whole bank, as generation does; none in the paper
    neutral         share of the windows whose reference shows the same person neutral, in another clip
    face_weight     weight of the loss inside the face; motion_weight: of what differs between a window's frames
    from_reference  the latents that are denoised are the change from the reference's, which F predicts (losses.scales)
    steady          the head of the training clips is held still (copies.steadied)
    copies          of each training clip, all but the first in other colours, slightly warped and at another pace
    autoencoder_steps, token_steps   of what is trained before the diffusion, where the preset has it
    """

    pixels: int = 512
    window: int = 25
    shift: int = 7
    widths: tuple[int, ...] = (320, 640, 1280, 1280)
    layers: int = 2
    heads: tuple[int, ...] = (5, 10, 20, 20)
    time_width: int = 256
    cross: int = 1024
    autoencoder: tuple[int, ...] = (128, 256, 512, 512)
    autoencoder_layers: int = 2
    latents: int = 4
    square: int = 0
    guider: tuple[int, ...] = (16, 32, 96, 256)
    encoder: tuple[int, int, int, int] = (32, 1280, 14, 224)
    tokens: int = 32
    hidden: int = 1024
    entries: int = 64
    prior: int = 256
    classifier: tuple[int, int] = (512, 256)
    sigma: tuple[float, float] = (1.0, 1.6)
    sigmas: tuple[float, float] = (0.002, 700.0)
    denoising_steps: int = 25
    guidance: tuple[float, float] = (3.0, 6.0)
    drops: tuple[float, float, float, float] = (0.05, 0.05, 0.05, 0.05)
    discrimination: float = 0.1
    bank: Bank = "quantised"
    mean_prior: bool = False
    whole_bank: float = 0.0
    neutral: float = 0.5
    face_weight: float = 1.0
    motion_weight: float = 1.0
    from_reference: bool = False
    steady: bool = False
    copies: int = 1
    checkpointing: bool = True
    steps: int = 100_000
    batch: int = 1
    accumulate: int = 16
    learning_rate: float = 1e-5
    warmup: int = 500
    ema: float = 0.9999
    validate_every: int = 2000
    autoencoder_steps: int = 0
    token_steps: int = 0
    shuffle_conditions: bool = False

    @property
    def factor(self) -> int:
        """Pixels to a place of the latents, along a side."""
        return self.square or 1 << (len(self.autoencoder) - 1)


PRESETS = {
    "full": Preset(),
    "tiny": Preset(
        pixels=64,
        window=3,
        shift=1,
        widths=(64, 128),
        layers=1,
        heads=(4, 8),
        time_width=8,
        cross=32,
        latents=32,
        square=8,
        guider=(8, 16, 16, 32),
        encoder=(2, 64, 8, 32),
        tokens=4,
        hidden=128,
        entries=8,
        classifier=(64, 32),
        sigma=(3.0, 0.5),
        sigmas=(0.3, 20.0),
        denoising_steps=1,
        guidance=(1.0, 6.0),
        whole_bank=0.5,
        neutral=1.0,
        face_weight=4.0,
        motion_weight=4.0,
        from_reference=True,
        steady=True,
        copies=4,
        checkpointing=False,
        steps=450,
        batch=10,
        accumulate=1,
        learning_rate=2e-3,
        warmup=50,
        ema=0.99,
        validate_every=225,
        autoencoder_steps=100,
        token_steps=300,
    ),
}
