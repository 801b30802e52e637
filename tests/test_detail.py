"""Detail of a portrait that a small codec lost, put back where a picture shows the same."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from reference_models.base import GenerationError
from reference_models.detail import tolerance_of, with_detail

RNG = np.random.default_rng(0)
SOURCE = RNG.integers(60, 190, (128, 128, 3), dtype=np.uint8)
DRAWN = cv2.resize(cv2.resize(SOURCE, (16, 16), interpolation=cv2.INTER_AREA), (128, 128))  # what a codec leaves


def test_what_does_not_move_is_the_source() -> None:
    assert np.array_equal(with_detail(DRAWN, DRAWN, SOURCE, 0.04), SOURCE)


def test_what_moves_is_as_it_was_made_and_the_rest_is_the_source() -> None:
    made = DRAWN.copy()
    made[80:112, 40:88] = (40, 10, 10)  # a mouth opens
    mixed = with_detail(made, DRAWN, SOURCE, 0.04)
    assert np.abs(mixed[84:108, 44:84].astype(int) - made[84:108, 44:84]).max() <= 1
    assert np.array_equal(mixed[:60], SOURCE[:60])


def test_the_share_falls_with_the_distance_as_documented() -> None:
    """Grey on grey: a difference of the tolerance gives 1 / e of the detail."""
    drawn, source = np.full((64, 64, 3), 100, np.uint8), np.full((64, 64, 3), 200, np.uint8)
    made = np.full((64, 64, 3), 151, np.uint8)
    mixed = with_detail(made, drawn, source, 51 / 255)
    assert np.all(mixed == round(151 + 100 / np.e))


@pytest.mark.parametrize("detail", [0, -0.1, 1.5, float("nan"), "x"])
def test_a_tolerance_that_is_none_is_refused(detail: float | str) -> None:
    with pytest.raises(GenerationError, match=r"detail .*; expected a tolerance above 0"):
        tolerance_of(detail)  # type: ignore[arg-type]
