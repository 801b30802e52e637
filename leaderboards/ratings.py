"""Ratings of a user study to cells: the mean opinion of each method and aspect."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from leaderboards.aggregate import Cell
from leaderboards.results import ResultError

COLUMNS = ("participant", "method", "video", "aspect", "score")


def read(path: Path, scales: Mapping[str, tuple[float, float]]) -> list[Cell]:
    """One cell a method and aspect, whose metric is "rating/<aspect>": the unweighted mean over scores.

    path    CSV with the columns participant, method, video, aspect, score; others are ignored
    scales  lowest and highest score of each aspect that is wanted; other aspects are left out. Of votes, which are 0
            or 1, the mean is in %

    n_expected is the largest count of scores that a method has in that aspect: one that fewer people saw is partial.

    Raises ResultError, naming the line, on a file that cannot be read, a column or a field that is missing, a score
    that is no number or off its scale, a video that a participant rates twice, and on an aspect nobody rated.
    """
    try:
        table = csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig")), strict=True)
        lines = [(table.line_num, line) for line in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ResultError(f"{path}: not a readable CSV file of ratings ({error})") from None
    lacking = [name for name in COLUMNS if name not in (table.fieldnames or ())]
    if lacking:
        raise ResultError(f"{path}: no column {', '.join(lacking)}; ratings have {', '.join(COLUMNS)}")
    first: dict[tuple[str, ...], int] = {}
    scores: dict[tuple[str, str], list[float]] = defaultdict(list)
    for at, line in lines:
        what = [(line[name] or "").strip() for name in COLUMNS[:-1]]
        if not all(what):
            raise ResultError(f"{path}: line {at}: {COLUMNS[what.index('')]} is empty")
        earlier = first.setdefault(tuple(what), at)
        if earlier != at:
            raise ResultError(f"{path}: line {at}: {what[0]} rated {what[3]} of {what[1]}, {what[2]} in line {earlier}")
        if what[3] in scales:
            scores[what[1], what[3]].append(_score(line["score"], scales[what[3]], f"{path}: line {at}"))
    rated = {aspect for _, aspect in scores}
    for aspect in scales:
        if aspect not in rated:
            known = ", ".join(sorted({key[3] for key in first})) or "no ratings"
            raise ResultError(f"{path}: no scores of {aspect!r}; the file has {known}")
    return _cells(scores, scales)


def _score(text: str | None, scale: tuple[float, float], where: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not scale[0] <= value <= scale[1]:
        raise ResultError(f"{where}: score {text!r}; expected {scale[0]:g} to {scale[1]:g}")
    return value


def _cells(scores: Mapping[tuple[str, str], Sequence[float]], scales: Mapping[str, tuple[float, float]]) -> list[Cell]:
    most: Counter[str] = Counter()
    for (_, aspect), given in scores.items():
        most[aspect] = max(most[aspect], len(given))
    return [
        Cell(
            method=method,
            metric=f"rating/{aspect}",
            metric_version=1,
            group=None,
            value=math.fsum(given) / len(given) * (100 if scales[aspect] == (0, 1) else 1),
            n_used=len(given),
            n_expected=most[aspect],
            reasons=(),
        )
        for (method, aspect), given in sorted(scores.items())
    ]
