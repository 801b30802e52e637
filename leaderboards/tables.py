"""Cells to CSV and Markdown. What a column is called and how it is printed is handed in."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from leaderboards.aggregate import Cell

COUNT = "n used/expected"  # heading of the last column
ARROWS = {"higher": "↑", "lower": "↓", "closer-to-real": "→"}
NOTES = {
    "→": "→ the closer to ground truth, the better",
    "†": "† from fewer clips than the protocol has; the count stands beside it",
    "n/a": "n/a not defined for this row",
    COUNT: f"{COUNT}: clips behind the fullest cell of the row; a cell that rests on fewer, or failed, says so itself",
}


@dataclass(frozen=True, slots=True)
class Column:
    """A metric as a table shows it. direction: "higher", "lower" or "closer-to-real"; digits: decimals."""

    metric: str
    label: str
    direction: str
    digits: int


@dataclass(frozen=True, slots=True)
class Row:
    """A method as a table shows it."""

    method: str
    title: str


def tidy(cells: Iterable[Cell]) -> str:
    """CSV, one line a cell, with counts and reasons.

    value   full precision, an infinite one is `inf`; empty where there is none, so that the column loads as numbers
    status  "ok", "partial 29/30" for a value from fewer clips than expected, else what `missing` says
    """
    lines = [["method", "metric", "metric_version", "group", "value", "status", "n_used", "n_expected", "reasons"]]
    for cell in cells:
        reasons = "; ".join(f"{count}x {reason}" for reason, count in cell.reasons)
        value = "" if cell.value is None else repr(cell.value)
        what = [cell.method, cell.metric, str(cell.metric_version), cell.group or "all"]
        lines.append([*what, value, _status(cell), str(cell.n_used), str(cell.n_expected), reasons])
    return _csv(lines)


def _status(cell: Cell) -> str:
    if cell.value is None:
        return missing(cell)
    return "ok" if cell.n_used == cell.n_expected else f"partial {cell.n_used}/{cell.n_expected}"


def printed(cells: Iterable[Cell], columns: Sequence[Column], rows: Sequence[Row]) -> list[list[str]]:
    """The table as a paper prints it, header first: one line a row, one column a metric, then n used/expected.

    A cell that rests on fewer clips than expected carries † and its own count; one without a value says why.
    The last column is the largest count among the row's cells: the clips that could be scored at all. The
    smallest would be 0 for a row of good numbers in which one metric is not defined.
    """
    found = {(cell.method, cell.metric): cell for cell in cells if cell.group is None}
    table = [["Method", *headings(columns), COUNT]]
    for row in rows:
        members = [found.get((row.method, column.metric)) for column in columns]
        texts = [_text(cell, column.digits) for cell, column in zip(members, columns, strict=True)]
        counts = max(((cell.n_used, cell.n_expected) for cell in members if cell is not None), default=None)
        table.append([row.title, *texts, f"{counts[0]}/{counts[1]}" if counts else "0"])
    return table


def headings(columns: Sequence[Column]) -> list[str]:
    """Label and arrow of each column; where two would read the same, the variant is added."""
    labels = [column.label for column in columns]
    names = [f"{c.label} ({c.metric.partition('/')[2]})" if labels.count(c.label) > 1 else c.label for c in columns]
    return [f"{name} {ARROWS[column.direction]}" for name, column in zip(names, columns, strict=True)]


def printed_csv(table: Sequence[Sequence[str]]) -> str:
    """The printed table as CSV."""
    return _csv(table)


def markdown(title: str, table: Sequence[Sequence[str]], remarks: Iterable[str] = ()) -> str:
    """The printed table as Markdown, its signs explained and `remarks` listed below. Cells are text, never markup."""
    header, *body = [[_escape(cell) for cell in line] for line in table]
    lines = [f"## {_escape(title)}", "", _pipes(header), _pipes([":--", *("--:" for _ in header[1:])])]
    lines += [_pipes(line) for line in body]
    shown = "".join(cell for line in table for cell in line[1:])
    notes = [note for sign, note in NOTES.items() if sign in shown] + [_escape(remark) for remark in remarks]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)]).rstrip() + "\n"


def missing(cell: Cell) -> str:
    """What stands in a cell without a value."""
    if cell.reasons and all(reason.startswith("unavailable") for reason, _ in cell.reasons):
        return "unavailable"
    return f"failed 0/{cell.n_expected}"


def _text(cell: Cell | None, digits: int) -> str:
    if cell is None:
        return "n/a"
    if cell.value is None:
        return missing(cell)
    value = f"{cell.value:.{digits}f}" if math.isfinite(cell.value) else str(cell.value)
    return value if cell.n_used == cell.n_expected else f"{value}† ({cell.n_used}/{cell.n_expected})"


def _csv(lines: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def _pipes(line: Sequence[str]) -> str:
    return f"| {' | '.join(line)} |"


def _escape(text: str) -> str:
    for sign in "\\`*_[]<>|":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
