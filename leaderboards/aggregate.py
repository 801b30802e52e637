"""Result rows to one number a method and metric, with the count behind it."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from leaderboards.results import Result, ResultError


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table.

    group      None over all clips, else the emotion it is restricted to
    value      mean over clips, or the set's value; None where nothing could be scored
    n_used     clips that entered the value, of n_expected
    reasons    (reason, how many rows gave it) where there is no value, most frequent first
    """

    method: str
    metric: str
    metric_version: int
    group: str | None
    value: float | None
    n_used: int
    n_expected: int
    reasons: tuple[tuple[str, int], ...]


def cells(rows: Iterable[Result], *, by_group: bool = False) -> list[Cell]:
    """One cell a method and metric, sorted; with `by_group` also one a method, metric and group.

    A clip-level metric is the unweighted mean over clips, whatever their lengths (fsum: the order of the rows
    does not matter). A set-level value is taken as it stands.

    Raises ResultError when a metric appears in two versions, or both per clip and as a set.
    """
    table: dict[tuple[str, str, str | None], list[Result]] = defaultdict(list)
    for row in rows:
        table[row.method, row.metric, None if row.clip_id is not None else row.group].append(row)
        if by_group and row.clip_id is not None and row.group is not None:
            table[row.method, row.metric, row.group].append(row)
    found = [_cell(key, members) for key, members in table.items()]
    _refuse_mixed_versions(found)
    return sorted(found, key=lambda cell: (cell.method, cell.metric, cell.group or ""))


def _cell(key: tuple[str, str, str | None], rows: Sequence[Result]) -> Cell:
    method, metric, group = key
    versions = sorted({row.metric_version for row in rows})
    if len(versions) > 1:
        raise ResultError(f"{method}: {metric} in versions {versions}; evaluate again, versions are never averaged")
    if any(row.clip_id is None for row in rows) and len(rows) > 1:
        raise ResultError(f"{method}: {metric} is given both per clip and for the set, or twice for the set")
    values = [row.value for row in rows if row.value is not None]
    reasons = Counter(row.error for row in rows if row.error is not None)
    return Cell(
        method=method,
        metric=metric,
        metric_version=versions[0],
        group=group,
        value=math.fsum(values) / len(values) if values else None,
        n_used=sum(row.n_used for row in rows),
        n_expected=sum(row.n_expected for row in rows),
        reasons=tuple(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
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
