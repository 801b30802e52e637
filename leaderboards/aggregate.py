"""Result rows to one number a method and metric, with the count behind it."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from leaderboards import intervals
from leaderboards.grid import to_csv
from leaderboards.intervals import Interval
from leaderboards.results import Result, ResultError


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table.

    group      None over all clips, else the emotion it is restricted to
    value      mean over clips, or the set's value; None where nothing could be scored
    n_used     clips that entered the value, of n_expected
    reasons    (reason, how many rows gave it) where there is no value, most frequent first
    interval   95 %, over people; of a set's value, over clips. None where there is none, and of groups
    people     identities behind the value; 0 of a set's value
    """

    method: str
    metric: str
    metric_version: int
    group: str | None
    value: float | None
    n_used: int
    n_expected: int
    reasons: tuple[tuple[str, int], ...]
    interval: Interval | None = None
    people: int = 0


NOT_COMMON = "not every method has a value of this clip"
Halves = Mapping[tuple[str, str], Sequence[float]]  # a set's values on halves of its clips, by method and metric


def cells(rows: Iterable[Result], *, by_group: bool = False, halves: Halves | None = None) -> list[Cell]:
    """One cell a method and metric, sorted; with `by_group` also one a method, metric and group.

    A clip-level metric is the unweighted mean over clips, whatever their lengths (fsum: the order of the rows
    does not matter). A set-level value is taken as it stands, with an interval where `halves` are given.

    Raises ResultError when a metric appears in two versions, or both per clip and as a set.
    """
    table: dict[tuple[str, str, str | None], list[Result]] = defaultdict(list)
    for row in rows:
        table[row.method, row.metric, None if row.clip_id is not None else row.group].append(row)
        if by_group and row.clip_id is not None and row.group is not None:
            table[row.method, row.metric, row.group].append(row)
    found = [_cell(key, members, (halves or {}).get(key[:2], ())) for key, members in table.items()]
    _refuse_mixed_versions(found)
    return sorted(found, key=lambda cell: (cell.method, cell.metric, cell.group or ""))


def people(rows: Iterable[Result]) -> str:
    """CSV: mean over the clips of each person, by method and metric, with the number of clips."""
    table: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for row in rows:
        if row.clip_id is not None and row.identity is not None and row.value is not None:
            table[row.method, row.metric].append(row)
    lines = [["method", "metric", "identity", "value", "clips"]]
    for (method, metric), of in sorted(table.items()):
        names = [row.identity or "" for row in of]
        means = intervals.by_identity([row.value or 0.0 for row in of], names)
        lines += [[method, metric, who, repr(mean), str(names.count(who))] for who, mean in means.items()]
    return to_csv(lines)


def common(rows: Sequence[Result]) -> list[Result]:
    """The rows, with a reason in place of the value for clips that some method has no value for, metric by metric;
    methods without any value of a metric do not count. Values of sets stay: they cannot be computed anew from rows."""
    scored: dict[str, dict[str, set[str]]] = defaultdict(dict)
    for row in rows:
        if row.clip_id is not None and row.value is not None:
            scored[row.metric].setdefault(row.method, set()).add(row.clip_id)
    shared = {metric: set.intersection(*of.values()) for metric, of in scored.items()}
    return [
        replace(row, value=None, error=NOT_COMMON, n_used=0)
        if row.clip_id is not None and row.value is not None and row.clip_id not in shared[row.metric]
        else row
        for row in rows
    ]


def _cell(key: tuple[str, str, str | None], rows: Sequence[Result], halves: Sequence[float]) -> Cell:
    method, metric, group = key
    versions = sorted({row.metric_version for row in rows})
    if len(versions) > 1:
        raise ResultError(f"{method}: {metric} in versions {versions}; evaluate again, versions are never averaged")
    if any(row.clip_id is None for row in rows) and len(rows) > 1:
        raise ResultError(f"{method}: {metric} is given both per clip and for the set, or twice for the set")
    scored = [row for row in rows if row.value is not None]
    values = [row.value for row in scored if row.value is not None]
    reasons = Counter(row.error for row in rows if row.error is not None)
    try:
        value = math.fsum(values) / len(values) if values else None
    except (OverflowError, ValueError):  # more than float64 holds, or infinities of both signs
        value, scored, values = None, [], []
        reasons["values without a mean: infinite in both directions, or too large"] += 1
    people = [row.identity for row in scored if row.identity is not None]
    interval = None
    if halves and value is not None:
        interval = intervals.set_interval(value, halves)
    elif group is None and values and len(people) == len(values):
        interval = intervals.mean_interval(values, people)
    return Cell(
        method=method,
        metric=metric,
        metric_version=versions[0],
        group=group,
        value=value,
        n_used=sum(row.n_used for row in scored),
        n_expected=sum(row.n_expected for row in rows),
        reasons=tuple(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        interval=interval,
        people=len(set(people)),
    )


def _refuse_mixed_versions(found: Sequence[Cell]) -> None:
    seen: dict[str, Cell] = {}
    for cell in found:
        first = seen.setdefault(cell.metric, cell)
        if first.metric_version != cell.metric_version:
            raise ResultError(
                f"{cell.metric} is version {first.metric_version} for {first.method} and "
                f"{cell.metric_version} for {cell.method}; evaluate the older one again"
            )
