"""What `bench metrics` prints: every metric with its definition, constants, source and networks."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmark import configs, weights
from benchmark.errors import BenchError
from metrics import base
from metrics.base import ASKED, Extractor, Metric

ARROWS = {
    "higher": "higher is better",
    "lower": "lower is better",
    "closer-to-real": "closer to the real clips is better",
}


def find(name: str) -> Metric:
    """The metric of that name. Raises BenchError with the variants of a family, or with the nearest name."""
    variants = [known for known in base.names() if known.partition("/")[0] == name]
    if variants:
        raise BenchError(f"{name!r} is a family of metrics; its variants: {', '.join(variants)}")
    try:
        return base.metric(name)
    except KeyError:
        raise BenchError(f"no metric is named {name!r}; {configs.nearest(name, base.names())}") from None


def networks(metric: Metric) -> list[str]:
    """Names of the networks that a metric needs, as in `bench weights list`."""
    specs = [base.extractor(extractor) for need in metric.needs if need != ASKED for extractor in need[1:]]
    return sorted({network for spec in specs for network in spec.weights})


def built(extractor: str, options: Mapping[str, Any]) -> Extractor:
    """An extractor as far as its id, views and definition go: cheap, no file is read, its networks may be missing."""
    spec = base.extractor(extractor)
    return spec.make({name: base.Weights(Path(), _digest(name)) for name in spec.weights}, options)


def missing(metric: Metric) -> list[str]:
    """Those of its networks that are not on this machine."""
    return [name for name in networks(metric) if weights.status(name).state != "ok"]


def table() -> str:
    """A line a metric: name and version, direction, level, networks, and whether it can be computed here."""
    lines = [f"{'metric':42}{'':4}{'better':16}{'of a':6}{'here':12}networks"]
    for name in base.names():
        metric = base.metric(name)
        here = "unavailable" if missing(metric) else "yes"
        known = ", ".join(networks(metric)) or "none"
        lines.append(f"{name:42}v{metric.version:<3}{metric.direction:16}{metric.level:6}{here:12}{known}")
    return "\n".join(lines)


def describe(name: str) -> str:
    """A metric's page: definition, source, what it is given, networks. Raises BenchError for an unknown name.

    An extractor is described by its attribute `definition`, where it has one, or else by its class's docstring.
    """
    metric = find(name)
    lines = [
        f"{metric.name}   version {metric.version}   column {metric.label!r}, {metric.digits} decimals",
        f"{ARROWS[metric.direction]}; one value a {metric.level}{f'; unit {metric.unit}' if metric.unit else ''}",
        f"source: {metric.source}",
        "",
        _doc(metric.compute),
    ]
    if metric.emotions is not None:
        lines += ["", f"scores the emotions {', '.join(metric.emotions)}; clips of others are left out by name"]
    if metric.enough:
        lines += ["", f"warns under {metric.enough:,} feature vectors"]
    sides: dict[str, list[str]] = {}
    for side, extractor in metric.needs:
        sides.setdefault(extractor, []).append(side)
    for extractor, of in sides.items():
        lines += ["", *_need(of, extractor)]
    return "\n".join(lines)


def _digest(network: str) -> str:
    entry = weights.entry(network)
    return entry.converted_sha256 or entry.sha256 or "unpublished"


def _doc(thing: object) -> str:
    return inspect.getdoc(thing) or ""


def _need(sides: list[str], extractor: str) -> list[str]:
    if (sides[0], extractor) == ASKED:
        return ["given: the emotion that was asked for, and of whom"]
    made = built(extractor, {})
    lines = [f"given: {extractor} of the side {' and '.join(sides)}, from {', '.join(made.views)}"]
    lines.append(getattr(made, "definition", None) or _doc(type(made)))
    for name in base.extractor(extractor).weights:
        found = weights.status(name)
        how = str(found.file) if found.state == "ok" else f"unavailable; get it with `{found.entry.command}`"
        lines.append(f"network {name}: {how}")
    return lines
