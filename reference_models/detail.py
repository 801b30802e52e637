"""What a tiny preset's pictures lack of the portrait is put back where they show the same as it does.

Small latents and few tokens lose what tells one person from another. None of the papers does this: their autoencoders
lose little."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from reference_models.base import GenerationError

Picture = NDArray[np.uint8]
BLUR = 64  # differences are seen as blurred by the width / BLUR


def tolerance_of(detail: float | None) -> float | None:
    """A method's option `detail`; None: nothing is put back. Raises GenerationError where it is no such tolerance."""
    if detail is not None and not (type(detail) in (int, float) and 0 < detail <= 1):
        raise GenerationError(f"detail {detail!r}; expected a tolerance above 0 and up to 1, or none at all")
    return detail


def with_detail(made: Picture, drawn: Picture, source: Picture, tolerance: float) -> Picture:
    """The picture `made` (H, W, 3) with source - drawn added, as far as it is near `drawn`.

    source, drawn   the portrait and what the model's own encoder and decoder leave of it, both (H, W, 3)
    tolerance       of 1, the whole range of a colour: what differs by as much gets 1 / e of the detail; a mouth that
                    opens gets none, and an unmoved cheek all
    """
    apart = np.abs(made.astype(np.float32) - drawn).max(2) / 255
    apart = cv2.GaussianBlur(apart, (0, 0), made.shape[1] / BLUR)
    share = np.exp(-((apart / tolerance) ** 2))[:, :, None]
    mixed = made + share * (source.astype(np.float32) - drawn)
    return np.asarray(np.clip(np.rint(mixed), 0, 255), np.uint8)
