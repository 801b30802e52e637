"""The embeddings of the paper's Fig. 5 (emotion conditions) and Fig. 7 (pictures and words before and after EVE)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reference_models.base import Footage, GenerationError
from reference_models.eat_face import data, model
from reference_models.eat_face.networks import Networks
from reference_models.eat_face.presets import EMOTIONS

FRAMES = 8  # of a clip, evenly spread, whose embeddings are averaged


@dataclass(frozen=True, slots=True)
class Tables:
    """Vectors of `clips`, (N, D) float32.

    pictures_before   E_CI(x_e), (N, E)     words_before   E_CT(e), (N, E)
    pictures_after    h^v, eq. 6, (N, hw)   conditions     h^e, eq. 7, (N, hw): the words after EVE, and Fig. 5
    left_out          people without a neutral clip, who have no emotionless x_r
    """

    clips: list[Footage]
    vectors: dict[str, NDArray[np.float32]]
    left_out: list[str]


@torch.no_grad()
def embed(networks: Networks, clips: Sequence[Footage]) -> Tables:
    """One vector a clip; x_r is the middle frame of the person's first neutral clip. Raises GenerationError where the
    checkpoint has no joint embedding, or no clip is left."""
    joint = networks.joint
    if joint is None:
        raise GenerationError(
            f"ablation {networks.ablation} has no joint embedding; give the whole method's checkpoint"
        )
    kept, _ = data.usable(clips)
    calm: dict[str, Tensor] = {}
    for clip in kept:
        if clip.emotion == data.NEUTRAL and clip.identity not in calm:
            calm[clip.identity] = _features(networks, clip, 1)
    left_out = sorted({clip.identity for clip in kept} - set(calm))
    kept = [clip for clip in kept if clip.identity in calm]
    if not kept:
        raise GenerationError("no clip of anybody who has a neutral one; expected it in the same splits")
    seen = [_features(networks, clip, FRAMES) for clip in kept]
    text = networks.words()[1][[EMOTIONS.index(clip.emotion) for clip in kept]]
    made = {
        "pictures-before": torch.stack([one.mean(0) for one in seen]),
        "words-before": text,
        "pictures-after": torch.stack([joint.of_picture(one).mean(0) for one in seen]),
        "conditions": joint.of_emotion(text, torch.cat([calm[clip.identity] for clip in kept])),
    }
    return Tables(kept, {name: one.float().cpu().numpy() for name, one in made.items()}, left_out)


def _features(networks: Networks, clip: Footage, count: int) -> Tensor:
    """E_CI of `count` frames, (count, E)."""
    device = networks.codec.scale.device
    chosen = ((np.arange(count) + 0.5) * clip.num_frames / count).astype(int)
    wanted = set(chosen.tolist())
    frames = [frame for at, frame in enumerate(islice(clip.frames(), int(chosen[-1]) + 1)) if at in wanted]
    points = torch.from_numpy(clip.points()[sorted(wanted)])
    box = model.boxes(points, frames[0].shape[1], frames[0].shape[0]).to(device)
    shown = data.to_tensor(
        np.stack([data.resized(frame, networks.preset.size, networks.preset.size) for frame in frames])
    ).to(device)
    return networks.pair.pictures(data.faces(shown, box, networks.pair.side))
