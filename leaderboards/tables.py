"""Cells to the grid that is printed, and to tidy lines. What a column is called and how it is printed is handed in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from leaderboards.aggregate import Cell
from leaderboards.grid import Entry, Grid, Heading, Line, Mark, to_csv
from leaderboards.intervals import Difference

COUNT = "n used/expected"  # heading of the last column
ARROWS = {"higher": "↑", "lower": "↓", "closer-to-real": "→"}
REAL = "ground-truth"  # the row that closer-to-real columns are compared with
AWAY = "|Δ real|"  # heading of the column behind each of those
NOTES = {
    "→": "→ the closer to ground truth, the better",
    AWAY: f"{AWAY}: distance to the value of ground truth; the column before is ranked by it",
    "†": "† from fewer clips than the protocol has; the count stands beside it",
    "n/a": "n/a not defined for this row, or not evaluated",
    COUNT: f"{COUNT}: clips behind the fullest cell of the row; a cell that rests on fewer, or failed, says so itself",
}

INTERVALS = (
    "(low, high): 95 % interval over people, of 10 or more (studentised bootstrap, people drawn with all their clips); "
    "of a set's value over its clips (halves drawn without replacement)"
)


@dataclass(frozen=True, slots=True)
class Column:
    """A metric as a table shows it.

    direction  "higher", "lower" or "closer-to-real"; "text" for a column that says something of the method, whose
               `metric` then names a field of Row, or is empty
    digits     decimals
    group      which of several sets of clips fills it (see layouts); empty: the table has one
    heading    of the group of columns it stands in
    unit       printed behind the number, as "%"
    """

    metric: str
    label: str
    direction: str
    digits: int
    group: str = ""
    heading: str = ""
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A method as a table shows it.

    ranked        False for references, as ground truth is
    conditioning  "one-shot" or "target-pose"; rows of different conditioning are not ranked against each other
    driven_by     "audio", "audio + video", "audio + prompt", or empty where it is not known
    """

    method: str
    title: str
    ranked: bool = True
    conditioning: str = ""
    driven_by: str = ""

    @property
    def controls_emotion(self) -> str:
        """A tick for methods that are told an emotion besides the sound."""
        return "✓" if "+" in self.driven_by else ""


@dataclass(frozen=True, slots=True)
class Style:
    """How numbers are shown.

    rank_from  share of the expected clips from which on a value is ranked
    intervals  whether the 95 % interval stands behind each number
    """

    rank_from: float = 1.0
    intervals: bool = False


def tidy(cells: Iterable[Cell]) -> str:
    """CSV, one line a cell, with counts and reasons.

    value      full precision, an infinite one is `inf`; empty where there is none, so that the column loads as numbers
    low, high  ends of the 95 % interval, over as many `people`; empty where there is none
    from_real  distance to the ground-truth row's value
    status     "ok", "partial 29/30" for a value from fewer clips than expected, else what `missing` says
    """
    known = list(cells)
    real = {(cell.metric, cell.group): cell.value for cell in known if cell.method == REAL}
    head = ["method", "metric", "metric_version", "group", "value", "low", "high", "people", "from_real"]
    lines = [[*head, "status", "n_used", "n_expected", "reasons"]]
    for cell in known:
        reasons = "; ".join(f"{count}x {reason}" for reason, count in cell.reasons)
        truth = real.get((cell.metric, cell.group))
        ends = (cell.interval.low, cell.interval.high) if cell.interval else (None, None)
        away = _distance(cell.value, truth)
        numbers = ["" if number is None else repr(number) for number in (cell.value, *ends)]
        what = [cell.method, cell.metric, str(cell.metric_version), cell.group or "all", *numbers]
        what += [str(cell.people or ""), "" if away is None else repr(away)]
        lines.append([*what, status(cell), str(cell.n_used), str(cell.n_expected), reasons])
    return to_csv(lines)


def compared(found: Mapping[str, Sequence[Difference]]) -> str:
    """CSV of every method against the best one, by metric: one line a comparison."""
    head = ["metric", "method", "best", "difference", "low", "high", "p", "p_holm", "clips", "people"]
    lines = [head]
    for metric in sorted(found):
        for one in found[metric]:
            ends = (one.interval.low, one.interval.high) if one.interval else (None, None)
            numbers = (one.difference, *ends, one.p, one.p_holm)
            texts = ["" if number is None else repr(number) for number in numbers]
            lines.append([metric, one.method, one.best, *texts, str(one.clips), str(one.identities)])
    return to_csv(lines)


def status(cell: Cell) -> str:
    """ "ok", "partial 29/30", "unavailable" or "failed 0/30"."""
    if cell.value is None:
        return missing(cell)
    return "ok" if cell.n_used == cell.n_expected else f"partial {cell.n_used}/{cell.n_expected}"


def printed(
    title: str,
    cells: Iterable[Cell],
    columns: Sequence[Column],
    rows: Sequence[Row],
    remarks: Iterable[str] = (),
    style: Style | None = None,
) -> Grid:
    """The table of a protocol: one line a row, one column a metric, behind a closer-to-real one |Δ real|, then
    n used/expected; its signs are explained and `remarks` listed below.

    A cell that rests on fewer clips than expected carries † and its own count; one without a value says why.
    The last column is the largest count among the row's cells: the clips that could be scored at all. The
    smallest would be 0 for a row of good numbers in which one metric is not defined.
    """
    found = {(cell.method, cell.metric): cell for cell in cells if cell.group is None}
    names: list[str] = []
    across: list[list[Entry]] = []
    for column, name in zip(columns, headed(columns), strict=True):
        of = [found.get((row.method, column.metric)) for row in rows]
        names.append(f"{name} {ARROWS[column.direction]}")
        across.append(entries(column, of, rows, style))
        if column.direction == "closer-to-real":
            names.append(f"{name} {AWAY} {ARROWS['lower']}")
            across.append(_away(column, of, rows))
    lines = []
    for row, members in zip(rows, zip(*across, strict=True) if across else [()] * len(rows), strict=True):
        counts = [(c.n_used, c.n_expected) for column in columns if (c := found.get((row.method, column.metric)))]
        used, expected = max(counts, default=(0, 0))
        lines.append(Line((Entry(row.title), *members, Entry(f"{used}/{expected}" if counts else "0"))))
    headings = (Heading("Method", text=True), *map(Heading, names), Heading(COUNT))
    notes = legend(headings, lines)
    if style and style.intervals:
        notes.append(INTERVALS)
    return Grid(title, headings, (tuple(lines),), (*notes, *remarks))


def headed(columns: Sequence[Column]) -> list[str]:
    """Label of each column; where two would read the same, the variant is added."""
    labels = [column.label for column in columns]
    return [f"{c.label} ({c.metric.partition('/')[2]})" if labels.count(c.label) > 1 else c.label for c in columns]


def legend(headings: Iterable[Heading], lines: Iterable[Line]) -> list[str]:
    """What the signs of these headings and lines mean."""
    texts = [heading.label for heading in headings] + [entry.text for line in lines for entry in line.entries[1:]]
    return [note for sign, note in NOTES.items() if any(sign in text for text in texts)]


def entries(
    column: Column, cells: Sequence[Cell | None], rows: Sequence[Row], style: Style | None = None
) -> list[Entry]:
    """A column of numbers, ranked: `cells` in the order of `rows`.

    Best and second are told among rows of equal conditioning whose value rests on enough clips, as printed: what
    reads the same shares its mark. A closer-to-real column ranks by |Δ real| as printed, and not at all without a
    ground-truth row.
    """
    style = style or Style()
    marks: list[Mark] = ["" for _ in rows]
    for scores in _rivals(column, cells, rows, style):
        places = sorted(set(scores.values()))
        for at, score in scores.items():
            if len(scores) > 1 and score in places[:2]:
                marks[at] = "best" if score == places[0] else "second"
    return [Entry(_text(cell, column, style), mark) for cell, mark in zip(cells, marks, strict=True)]


def missing(cell: Cell) -> str:
    """What stands in a cell without a value."""
    if cell.reasons and all(reason.startswith("unavailable") for reason, _ in cell.reasons):
        return "unavailable"
    return f"failed 0/{cell.n_expected}"


def ranks(columns: Sequence[Column], cells: Iterable[Cell], rows: Sequence[Row], style: Style) -> str:
    """CSV of the place of each ranked method in each column, among `of` rivals: those of equal conditioning. What reads
    the same shares the better place (1, 1, 3)."""
    found = {(cell.method, cell.metric): cell for cell in cells if cell.group is None}
    lines = [["metric", "method", "rank", "of"]]
    for column in columns:
        of = [found.get((row.method, column.metric)) for row in rows]
        places = {
            rows[at].method: (1 + sum(other < score for other in scores.values()), len(scores))
            for scores in _rivals(column, of, rows, style)
            for at, score in scores.items()
        }
        lines += [[column.metric, name, str(rank), str(count)] for name, (rank, count) in sorted(places.items())]
    return to_csv(lines)


def _rivals(column: Column, cells: Sequence[Cell | None], rows: Sequence[Row], style: Style) -> list[dict[int, float]]:
    """For each conditioning what its ranked rows are ranked by, as printed: score by position, smaller is better."""
    real = _real(cells, rows)
    return [
        {
            at: score
            for at, (cell, row) in enumerate(zip(cells, rows, strict=True))
            if row.ranked
            and row.conditioning == conditioning
            and (score := _score(cell, column, real, style)) is not None
        }
        for conditioning in sorted({row.conditioning for row in rows})
    ]


def best(metric: str, direction: str, cells: Iterable[Cell], rows: Sequence[Row], style: Style) -> str | None:
    """The first of `rows` by a metric whose direction is "higher" or "lower", in full precision; None where nothing is
    ranked."""
    of = {cell.method: cell for cell in cells if cell.metric == metric and cell.group is None}
    scores = {row.method: _score(of.get(row.method), Column(metric, "", direction, 12), None, style) for row in rows}
    known = {method: score for method, score in scores.items() if score is not None}
    return min(known, key=lambda method: known[method], default=None)


def _score(cell: Cell | None, column: Column, real: float | None, style: Style) -> float | None:
    """What a value is ranked by, smaller is better; None for what is not ranked."""
    if cell is None or cell.value is None or cell.n_used < style.rank_from * cell.n_expected:
        return None
    if column.direction == "closer-to-real":
        away = _distance(cell.value, real)
        return None if away is None else round(away, column.digits)
    value = round(cell.value, column.digits)
    return value if column.direction == "lower" else -value


def _real(cells: Sequence[Cell | None], rows: Sequence[Row]) -> float | None:
    """The value of the ground-truth row."""
    return next((c.value for c, row in zip(cells, rows, strict=True) if c and row.method == REAL), None)


def _distance(value: float | None, real: float | None) -> float | None:
    """|Δ real|; None where one of the two is missing. Infinities of one sign are alike."""
    if value is None or real is None:
        return None
    return 0.0 if value == real else abs(value - real)


def _away(column: Column, cells: Sequence[Cell | None], rows: Sequence[Row]) -> list[Entry]:
    """|Δ real| of each row, to the digits of the column; without a mark, for the column before has it."""
    real = _real(cells, rows)
    found: list[Entry] = []
    for cell in cells:
        away = _distance(cell.value, real) if cell else None
        partial = "†" if cell and cell.n_used < cell.n_expected else ""
        found.append(Entry("n/a" if away is None else f"{away:.{column.digits}f}{column.unit}{partial}"))
    return found


def _text(cell: Cell | None, column: Column, style: Style) -> str:
    if cell is None:
        return "n/a"
    if cell.value is None:
        return missing(cell)
    rounded = round(cell.value, column.digits) + 0.0  # no "-0.00"
    value = f"{rounded:.{column.digits}f}{column.unit}" if math.isfinite(rounded) else str(rounded)
    if style.intervals and cell.interval:
        low, high = (
            f"{round(end, column.digits) + 0.0:.{column.digits}f}" for end in (cell.interval.low, cell.interval.high)
        )
        value = f"{value} ({low}, {high})"
    return value if cell.n_used == cell.n_expected else f"{value}† ({cell.n_used}/{cell.n_expected})"
