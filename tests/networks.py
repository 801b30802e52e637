"""Extractors with the networks that are on this machine."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

import metrics
from benchmark import weights
from metrics.base import Weights


@cache
def load(name: str, **options: Any) -> Any:
    """The extractor with its networks; the test is skipped where one is missing, and says which and how to get it."""
    spec = metrics.extractor(name)
    try:
        files = {w: Weights(weights.path(w, fetch=False), weights.digest(w)) for w in spec.weights}
    except weights.WeightsUnavailable as missing:
        pytest.skip(str(missing))
    return spec.make(files, options)
