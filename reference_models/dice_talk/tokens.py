"""What the tiny preset's tokens learn before the diffusion, in seconds: those of the sound to tell the mouth, those of
the emotion to tell the emotion. SVD's pretrained layers and Whisper need no such start; the paper has none."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from reference_models.copies import SPREAD, mouth
from reference_models.dice_talk.data import Example, donors, label
from reference_models.dice_talk.losses import discrimination
from reference_models.dice_talk.model import DiceTalk
from reference_models.dice_talk.presets import CLASSES, Preset
from reference_models.dice_talk.speech import WINDOW
from reference_models.fit import Settings, fit
from reference_models.training import Task

BATCH = 128
LOUDER, NOISE = 0.15, 0.3  # deviations of what is added to the features of an example, and to each number
MOUTH = 4  # numbers that describe a mouth, see copies.mouth

Heard = tuple[Tensor, Tensor, Tensor, Tensor]


class Tokens(nn.Module):
    """The projections of a DiceTalk, and linear layers that read their tokens."""

    def __init__(self, model: DiceTalk, preset: Preset) -> None:
        super().__init__()
        self.audio, self.emotion = model.audio_linear, model.emo_model
        self.mouth = nn.Linear(preset.tokens * preset.cross, MOUTH)
        self.word = nn.Linear(preset.tokens * preset.cross, CLASSES)

    def forward(self, heard: Tensor, shape: Tensor, prior: Tensor, word: Tensor) -> dict[str, Tensor]:
        """The losses of a batch, see `batches`; of the emotion by the nearest entry and by the whole bank."""
        nearest, quantisation = self.emotion.retrieved(prior)
        told = torch.stack([self.word(made.flatten(1)) for made in (nearest, self.emotion(prior))], 1)
        return {
            "mouth": F.mse_loss(self.mouth(self.audio(heard[:, None])[:, 0].flatten(1)), shape),
            "emotion": discrimination(told, word),
            "quantisation": quantisation.mean(),
        }


def batches(examples: Sequence[Example], preset: Preset, seed: int) -> Callable[[int], Heard]:
    """batch(number): speech features (BATCH, 10, layers, width) about random frames, the mouths there (BATCH, 4),
    samples of priors (BATCH, prior), and classes (BATCH,)."""
    told = donors(len(examples), preset, seed)
    mouths = [mouth(one.clip.points()) / SPREAD for one in examples]

    def row(rng: np.random.Generator) -> tuple[NDArray[np.generic], ...]:
        i = int(rng.integers(len(examples)))
        other = examples[told[i]]
        frame = int(rng.integers(len(mouths[i])))
        at = 2 * (frame % other.frames)
        features = other.features[at : at + WINDOW]
        louder = rng.normal(0, LOUDER) + rng.normal(0, NOISE, features.shape)
        mean, deviation = other.prior
        return (
            (features + louder).astype(np.float32),
            mouths[i][frame],
            (mean + deviation * rng.standard_normal(len(mean))).astype(np.float32),
            np.array(label(other.clip.emotion, other.clip.intensity), np.int64),
        )

    def batch(number: int) -> Heard:
        rng = np.random.default_rng([seed, 5, number])
        heard, shape, prior, word = zip(*(row(rng) for _ in range(BATCH)), strict=True)
        a, b, c, d = (torch.from_numpy(np.stack(column)) for column in (heard, shape, prior, word))
        return a, b, c, d

    return batch


def learn(model: DiceTalk, examples: Sequence[Example], preset: Preset, task: Task, about: str) -> None:
    """Trains the model's projections in place."""
    network = Tokens(model, preset)
    fitted = fit(
        network,
        lambda network, batch, generator: network(*batch),
        batches(examples, preset, task.seed),
        Settings(steps=preset.token_steps, learning_rate=2e-3, warmup=20, clip_norm=1.0, ema=0.98, seed=task.seed),
        task.folder / "tokens",
        device=task.device,
        about=about,
        resume=task.resume,
        title="tokens",
    )
    network.load_state_dict(load_file(fitted.last))
