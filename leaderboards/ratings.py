"""Ratings of a user study: what each participant said, and the mean opinion of each method and aspect as cells."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from leaderboards.aggregate import Cell
from leaderboards.results import ResultError

COLUMNS = ("participant", "method", "video", "aspect", "score")


@dataclass(frozen=True, slots=True)
class Score:
    """What a participant said of one aspect of a method's video. Votes, which are 0 or 1, are given in %.

    emotion   what the file's column of that name says; empty where it has none
    """

    participant: str
    method: str
    video: str
    aspect: str
    emotion: str
    value: float


def read(path: Path, scales: Mapping[str, tuple[float, float]]) -> list[Cell]:
    """One cell a method and aspect, whose metric is "rating/<aspect>": the unweighted mean over scores().

    n_expected is the largest count of scores that a method has in that aspect: one that fewer people saw is partial.

    Raises ResultError as scores().
    """
    return _cells(scores(path, scales))


def scores(path: Path, scales: Mapping[str, tuple[float, float]]) -> list[Score]:
    """The scores of a study, in the order of the file.

    path    CSV with the columns participant, method, video, aspect, score and, if wanted, emotion; others are ignored
    scales  lowest and highest score of each aspect that is wanted; other aspects are left out. Of votes, which are 0
            or 1, the mean is in %

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
    found: list[Score] = []
    for at, line in lines:
        what = [(line[name] or "").strip() for name in COLUMNS[:-1]]
        if not all(what):
            raise ResultError(f"{path}: line {at}: {COLUMNS[what.index('')]} is empty")
        earlier = first.setdefault(tuple(what), at)
        if earlier != at:
            raise ResultError(f"{path}: line {at}: {what[0]} rated {what[3]} of {what[1]}, {what[2]} in line {earlier}")
        if what[3] in scales:
            scale = scales[what[3]]
            value = _score(line["score"], scale, f"{path}: line {at}") * (100 if scale == (0, 1) else 1)
            found.append(Score(what[0], what[1], what[2], what[3], (line.get("emotion") or "").strip(), value))
    rated = {score.aspect for score in found}
    for aspect in scales:
        if aspect not in rated:
            known = ", ".join(sorted({key[3] for key in first})) or "no ratings"
            raise ResultError(f"{path}: no scores of {aspect!r}; the file has {known}")
    return found


def _score(text: str | None, scale: tuple[float, float], where: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not scale[0] <= value <= scale[1]:
        raise ResultError(f"{where}: score {text!r}; expected {scale[0]:g} to {scale[1]:g}")
    return value


def _cells(scores: Iterable[Score]) -> list[Cell]:
    of: dict[tuple[str, str], list[float]] = defaultdict(list)
    for score in scores:
        of[score.method, score.aspect].append(score.value)
    most: Counter[str] = Counter()
    for (_, aspect), given in of.items():
        most[aspect] = max(most[aspect], len(given))
    return [
        Cell(
            method=method,
            metric=f"rating/{aspect}",
            metric_version=1,
            group=None,
            value=math.fsum(given) / len(given),
            n_used=len(given),
            n_expected=most[aspect],
            reasons=(),
        )
        for (method, aspect), given in sorted(of.items())
    ]
