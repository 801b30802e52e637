"""What a network that was trained with this suite says of itself, in its safetensors file.

The header's one key "card" holds JSON (several keys would change their order from file to file). Beside what the
network's own module reads from it, it says what the network was trained on:

  trained_on   {"dataset": str, "people": [identity, ...], "footage": [SHA-256 of a raw or of a prepared file, ...]}
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from metrics.base import MetricError


def read(path: Path) -> dict[str, Any] | None:
    """The card; None for a safetensors file without one. Raises MetricError for a file that cannot be read, and for a
    card that does not say what the network was trained on."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get("card")
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise MetricError(f"{path.name}: not a safetensors file, or damaged ({reason})") from None
    if text is None:
        return None
    try:
        card = json.loads(text)
    except (ValueError, RecursionError):
        card = None
    seen = card.get("trained_on") if isinstance(card, dict) else None
    footage = seen.get("footage") if isinstance(seen, dict) else None
    if not isinstance(footage, list) or not all(isinstance(digest, str) for digest in footage):
        raise MetricError(f"{path.name}: its card does not say on what footage it was trained; written by hand?")
    return dict(card)
