"""What makes docs/parity.md: comparisons that fail when they must, and a page that hides no absence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from parity import CLOSED, Line, Parity, Record, page

import metrics


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ours": 1.00001}, "1.00e-05 from them on it"),
        ({"ours": np.nan}, "nan from them"),
        ({"ours": [1.0, 1.0]}, "of them"),
        ({"metrics": "psnr/frame-men"}, "no metric is named"),
        ({"ours": [], "expected": []}, "nothing was compared"),
    ],
)
def test_what_differs_fails(parity: Parity, changes: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"metrics": "psnr/frame-mean", "ours": 1.0, "expected": 1.0, "tolerance": CLOSED}
    with pytest.raises(AssertionError, match=message):
        parity(**(given | {"against": "them", "on": "it"} | changes))


def test_the_page_names_every_metric() -> None:
    """A value that was compared stands in the table, another under its reason; equal comparisons become one line."""
    one = Line("psnr/frame-mean", "value", "them", "it", 2, 1e-9, CLOSED)
    worse = Line("psnr/frame-mean", "value", "them", "it", 3, 2e-8, CLOSED)
    part = Line("ssim/*", "window", "them", "it", 1, 0.0, CLOSED)
    text = page(Record([one, worse, part], {"test_x": "no clip"}))
    assert "| psnr/frame-mean | value | them | it | 5 | 2.0e-08 | 1e-06 |" in text
    head, _, absent = text.partition("## Whose value could not be compared here")
    assert "| ssim/gaussian | nobody else's implementation | window |" in absent
    assert "- `test_x`: no clip" in absent
    for name in metrics.names():
        assert name in (head if name == "psnr/frame-mean" else absent)
