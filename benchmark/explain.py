"""What `bench explain` does: the same clips through all variants of a metric, and how far each choice moves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmark import catalogue, configs, evaluate
from benchmark.errors import BenchError
from benchmark.evaluate import Entry, Score, Settings
from benchmark.generate import Method
from benchmark.protocol import Protocol
from metrics import base
from metrics.base import ASKED, Metric, Replicates


@dataclass(frozen=True, slots=True)
class Choice:
    """One decision that papers take differently and seldom print.

    options   of ExtractorSpec, and fields of the protocol, that differ from the default
    """

    what: str
    value: str
    options: Mapping[str, Any] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)


_SAMPLED = tuple(
    Choice("frames a clip", words, protocol={"frames_per_clip": count})
    for count, words in ((1, "1"), (5, "5, spread evenly (EAT)"), (0, "all"))
)
_TRACKS = tuple(
    Choice("minimum track", f"more than {count} detections", {"longer_than": count}) for count in (25, 50, 100)
)
CHOICES: dict[str, tuple[Choice, ...]] = {  # by family; of one that is not here the variants are compared
    "fvd": (
        Choice("value range", "[0, 1] (LatentSync), the network expects [-1, 1]", {"unsigned": True}),
        Choice("resize", "bilinear with antialiasing", {"antialias": True}),
        Choice("crop", "squashed to 224 x 224", {"squash": True}),
        Choice("frames", "the first 16", {"first": 16}),
    ),
    "lpips": (Choice("value range", "[0, 1], the network expects [-1, 1]", {"unsigned": True}),),
    "fid": _SAMPLED,
    "kid": (
        *(
            Choice("resize", f"as {name}", {"resizing": f"fid-inception-{extractor}"})
            for name, extractor in (
                ("pytorch-fid", "pytorch"),
                ("clean-fid", "clean"),
                ("torchmetrics", "torchmetrics"),
            )
        ),
        *_SAMPLED,
    ),
    **dict.fromkeys(("lse-c", "lse-d", "lse-offset", "lse-c-zero", "lse-d-zero"), _TRACKS),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line: a score, or the reason why there is none.

    change   against the default; None for the default itself and where there is no score on either side
    clips    clips used and expected
    """

    what: str
    value: str
    score: float | str
    change: float | None = None
    clips: tuple[int, int] = (0, 0)
    note: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """All rows, the first of them the default."""

    default: Metric
    rows: list[Row]


def variants(words: str, asked: Protocol) -> tuple[Metric, list[Metric]]:
    """The default of a family, or of a metric's family the metric itself, and the other variants.

    A family's default is the variant that the protocol has, else the first one whose networks are here, else the
    first. Raises BenchError for a word that is neither.
    """
    family = words.partition("/")[0]
    names = [name for name in base.names() if name.partition("/")[0] == family]
    if not names or (words != family and words not in names):
        known = sorted({name.partition("/")[0] for name in base.names()} | {*names})
        raise BenchError(f"--metric {words!r} is no family of metrics and no metric; {configs.nearest(words, known)}")
    here = (name for name in names if not catalogue.missing(base.metric(name)))
    first = words if words in names else next((n for n in asked.metrics if n in names), None) or next(here, names[0])
    return base.metric(first), [base.metric(name) for name in names if name != first]


def explain(
    words: str, entries: Sequence[Entry], method: Method, asked: Protocol, workspace: Path, settings: Settings
) -> Explanation:
    """Score the clips by every variant of a family and with every choice; stores features, and writes no rows.

    Raises BenchError as variants() and evaluate.measure().
    """
    default, others = variants(words, asked)
    plain = replace(settings, metrics=(default.name, *(metric.name for metric in others)))
    scores, worth = evaluate.measure(entries, method, asked, workspace, plain)
    rows = [_row("variant", metric.name, [s for s in scores if s[0] is metric]) for metric in (default, *others)]
    for choice in _choices(default, asked):
        changed = replace(asked, **choice.protocol)
        alone = replace(settings, metrics=(default.name,))
        scores, _ = evaluate.measure(entries, method, changed, workspace, alone, choice.options)
        rows.append(_row(choice.what, choice.value, scores))
    rows += _numbers(default, rows[0], worth.get(default.name))
    return Explanation(default, [rows[0], *(_compared(row, rows[0]) for row in rows[1:])])


def _choices(metric: Metric, asked: Protocol) -> list[Choice]:
    """Those that differ from what the protocol and the variant have, and of every family: how both sides are cut."""
    family = metric.name.partition("/")[0]
    crop = {"as-is": "common-detector", "common-detector": "as-is"}[asked.eval_crop]
    words = (
        f"both sides anew around the face, {asked.eval_size} px" if crop == "common-detector" else "as the videos are"
    )
    every = [*CHOICES.get(family, ()), Choice("eval_crop", f"{crop}: {words}", protocol={"eval_crop": crop})]
    return [choice for choice in every if _differs(choice, metric, asked)]


def _differs(choice: Choice, metric: Metric, asked: Protocol) -> bool:
    if any(getattr(asked, name) != value for name, value in choice.protocol.items()):
        return True
    names = {extractor for need in metric.needs if need != ASKED for extractor in need[1:]}
    ids = [{catalogue.built(name, options).id for name in names} for options in ({}, choice.options)]
    return ids[0] != ids[1]


def _row(what: str, value: str, scores: Sequence[Score]) -> Row:
    """A metric's scores on the clips, or on the set, as one: the mean over clips that have one."""
    if not scores:
        return Row(what, value, "no clip shows an emotion that it can score")
    values = [score for _, _, score, _, _ in scores if isinstance(score, float)]
    clips = sum(used for *_, used, _ in scores), sum(expected for *_, expected in scores)
    if values:
        return Row(what, value, float(np.mean(values)), clips=clips)
    reasons = sorted({str(score) for _, _, score, _, _ in scores})
    more = f" (and {len(reasons) - 1} other reasons)" if len(reasons) > 1 else ""
    return Row(what, value, reasons[0] + more, clips=clips)


def _compared(row: Row, default: Row) -> Row:
    if isinstance(row.score, str) or isinstance(default.score, str):
        return row
    return replace(row, change=row.score - default.score)


def _numbers(metric: Metric, default: Row, worth: Replicates | None) -> list[Row]:
    """How a set-level score depends on the number of clips: its seeded draws of halves and quarters, and the limit."""
    if metric.replicates is None or isinstance(default.score, str):
        return []
    if worth is None or not len(worth.values):
        return [Row("N", "half of the clips", "too few clips for draws; at least 4 are needed", clips=default.clips)]
    rows = []
    whole = default.clips[0]
    half = worth.clips > whole * 3 / 8
    for words, drawn in (("half of the clips", half), ("a quarter of the clips", ~half)):
        if drawn.any():
            values = worth.values[drawn]
            note = f"mean of {len(values)} draws: {values.min():.{metric.digits}f} - {values.max():.{metric.digits}f}"
            count = int(np.median(worth.clips[drawn]))
            rows.append(Row("N", words, float(values.mean()), clips=(count, default.clips[1]), note=note))
    if worth.infinite is not None:
        rows.append(Row("N", "infinitely many vectors, extrapolated", worth.infinite, clips=default.clips))
    return rows


def text(found: Explanation) -> str:
    """The table: choice, value, score, change against the default."""
    digits = found.default.digits
    width = max(len(row.value) for row in found.rows) + 2
    lines = [f"{'choice':15}{'value':{width}}{'score':>12}{'change':>12}{'':9}clips"]
    for k, row in enumerate(found.rows):
        start = f"{row.what:15}{row.value:{width}}"
        if isinstance(row.score, str):
            lines.append(f"{start}{row.score}")
            continue
        change, share = ("default", "") if k == 0 else ("", "")
        if row.change is not None:
            change = f"{row.change:+.{digits}f}"
            before = row.score - row.change
            share = f"{row.change / abs(before):+.1%}" if before else ""
        used, expected = row.clips
        note = f"  {row.note}" if row.note else ""
        lines.append(f"{start}{row.score:12.{digits}f}{change:>12}{share:>9}{used:>5} of {expected}{note}".rstrip())
    return "\n".join(lines)
