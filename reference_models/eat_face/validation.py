"""What a training shows of itself: a value on fixed examples of the val split, and fixed samples as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from reference_models.eat_face.data import Draw, Item
from reference_models.eat_face.losses import denoising
from reference_models.eat_face.networks import Networks
from reference_models.eat_face.presets import EMOTIONS
from reference_models.eat_face.sample import ddim, to_pictures

BATCHES, SIZE = 2, 16  # of examples
FRAMES = 6  # of a clip that are sampled
NUMBER = 2**30  # of the first batch; no training gets there
STEPS = 10  # of DDIM, for the picture


class Validation:
    """Called by fit with the trained parts; returns a value of which higher is better."""

    def __init__(self, stage: str, networks: Networks, draw: Draw, folder: Path, schedule: Any, device: str) -> None:
        self._stage, self._networks, self._draw, self._folder = stage, networks, draw, folder
        self._schedule, self._device = schedule, device
        size = len(EMOTIONS) if stage == "eve" else SIZE
        make = {"tfr": draw.reconstruction, "eve": draw.distinct}.get(stage, draw.emotion)
        self._batches = [
            {name: value.to(device) for name, value in make(NUMBER + n, size).items()} for n in range(BATCHES)
        ]

    @torch.no_grad()
    def __call__(self, trained: nn.Module, step: int) -> float:
        """Share of pictures nearest to their own emotion (eve), or the denoising loss below zero."""
        if self._stage == "eve":
            return float(np.mean([self._matched(batch) for batch in self._batches]))
        self._sample(step)
        noise = torch.Generator(self._device).manual_seed(0)
        return -float(
            np.mean(
                [float(denoise(self._networks, self._stage, self._schedule, batch, noise)) for batch in self._batches]
            )
        )

    def _matched(self, batch: Mapping[str, Tensor]) -> float:
        h_e, h_v = joint_pairs(self._networks, batch)
        cosines = F.normalize(h_v, dim=1) @ F.normalize(h_e, dim=1).T
        return float((cosines.argmax(1) == torch.arange(len(cosines), device=cosines.device)).float().mean())

    def _sample(self, step: int) -> None:
        """The first clip of every emotion: a row of real frames, and below it the same sampled."""
        networks, rows = self._networks, []
        for word in sorted({item.clip.emotion for item in self._draw.items}):
            item = next(item for item in self._draw.items if item.clip.emotion == word)
            rows += [networks.codec.decode(z) for z in self._pair(item)]
        side = networks.preset.size
        sheet = to_pictures(torch.stack(rows).flatten(0, 1)).reshape(len(rows), FRAMES, side, side, 3)
        picture = Image.fromarray(sheet.transpose(0, 2, 1, 3, 4).reshape(len(rows) * side, FRAMES * side, 3))
        partial = self._folder / ".samples.partial"
        picture.save(partial, "PNG")
        partial.replace(self._folder / f"samples-{step:08d}.png")

    def _pair(self, item: Item) -> tuple[Tensor, Tensor]:
        """Latents of FRAMES frames of the clip: real and sampled."""
        networks, calm = self._networks, item if self._stage == "tfr" else self._draw.calm(item)
        frames = np.linspace(0, len(item.latents) - 1, FRAMES).astype(int)
        real, hidden = (
            torch.from_numpy(array[frames].astype(np.float32)).to(self._device) for array in (item.latents, item.hidden)
        )
        reference = torch.from_numpy(calm.latents[0].astype(np.float32)).to(self._device).expand_as(real)
        word = torch.full((FRAMES,), EMOTIONS.index(item.clip.emotion), device=self._device)
        face = torch.from_numpy(np.array(calm.faces[:1], np.float32)).to(self._device).expand(FRAMES, -1)
        tokens, c_e = (None, None) if self._stage == "tfr" else networks.condition(word, face)
        heard = torch.stack([item.window(int(frame)) for frame in frames]).to(self._device)
        noise = torch.randn(real[:1].shape, generator=torch.Generator().manual_seed(0)).to(self._device).expand_as(real)
        return real, ddim(networks, noise, hidden, reference, heard, tokens, c_e, STEPS)


def denoise(
    networks: Networks, stage: str, schedule: Any, batch: Mapping[str, Tensor], generator: torch.Generator
) -> Tensor:
    """Eq. 5 in stage "tfr", eq. 11 in the later ones."""
    latents = (batch["clean"], batch["hidden"], batch["reference"])
    tokens, control = None, None
    if stage != "tfr":
        tokens, c_e = networks.condition(batch["word"], batch["calm"])
        if networks.controller is not None and c_e is not None:
            control = (networks.controller, c_e)
    speech, unheard = batch["speech"], networks.preset.unheard
    if unheard:
        drawn = torch.rand(len(speech), 1, 1, generator=generator, device=speech.device)
        speech = speech * (drawn >= unheard)
    context = networks.reconstructor.context(speech, tokens)
    return denoising(networks.reconstructor, schedule, latents, context, generator, control)


def joint_pairs(networks: Networks, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(h^e, h^v) of a batch, eqs. 6 and 7."""
    assert networks.joint is not None
    text = networks.words()[1][batch["word"]]
    return networks.joint.of_emotion(text, batch["calm"]), networks.joint.of_picture(batch["face"])
