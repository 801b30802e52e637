"""Tables laid out as a paper has them, from the paper's own numbers and from measured ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from leaderboards import published, tables
from leaderboards.aggregate import Cell
from leaderboards.grid import Entry, Grid, Heading, Line, to_csv
from leaderboards.published import Value
from leaderboards.tables import Column, Row, Style


@dataclass(frozen=True, slots=True)
class Layout:
    """One table of a paper.

    paper          as a title names it
    source, table  where its published values are from, as in published/*.csv
    first          heading of the column of methods
    columns        in the paper's order; labels are those of the published values
    groups         protocol that fills each group of clips, in the paper's order; empty where only a study does
    stacked        heading of the column that names the group, where groups are blocks of lines and not of columns
    blocks_by      label of the text column by which lines are grouped
    arrows         whether the headings have arrows
    scales         lowest and highest score of each aspect that a user study fills
    folded         lines that each method is printed on: text, or the position of a column; with `folded_headings`
    """

    name: str
    paper: str
    source: str
    table: str
    caption: str
    first: str
    columns: tuple[Column, ...]
    groups: Mapping[str, str]
    stacked: str = ""
    blocks_by: str = ""
    arrows: bool = True
    scales: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    folded: tuple[tuple[str | int, ...], ...] = ()
    folded_headings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Measured:
    """Cells of one group of clips, the rows they belong to in the order of the table, and what must be said of them."""

    cells: Sequence[Cell]
    rows: Sequence[Row]
    notes: Sequence[str] = ()


def over(layout: Layout, protocol: str, group: str) -> Layout:
    """The layout with every column filled by one protocol: one group of that name, each metric once."""
    columns: dict[tuple[str, str], Column] = {}
    for column in layout.columns:
        heading = group if column.heading and column.heading == column.group else column.heading
        of = replace(column, group="" if layout.stacked else group, heading=heading)
        columns.setdefault((column.metric, column.label), of)
    if layout.folded:  # positions count, and its columns are of one group
        return replace(layout, groups={group: protocol})
    return replace(layout, columns=tuple(columns.values()), groups={group: protocol})


def fill(layout: Layout, values: Sequence[Value], measured: Mapping[str, Measured], style: Style | None = None) -> Grid:
    """The table: published values (of any tables; its own are taken), then what was measured in each group.

    A group without results prints the published lines only, which are never ranked.
    """
    own = published.of(values, layout.source, layout.table)
    blocks: list[tuple[Line, ...]] = []
    for group in layout.groups if layout.stacked else [""]:
        lines = [*_published(layout, own, group), *_measured(layout, measured, group, style)]
        if layout.blocks_by:
            blocks += _split(lines, _at(layout))
        else:
            blocks.append(tuple(lines))
    if layout.folded:
        blocks = [_folded(layout, line) for block in blocks for line in block]
    headings = _headings(layout)
    shown = [line for block in blocks for line in block]
    if layout.folded and all(line.published for line in shown):  # the paper's own method needs no name
        headings = headings[1:]
        blocks = [tuple(replace(line, entries=line.entries[1:]) for line in block) for block in blocks]
    notes = [*tables.legend(headings, shown), *_sources(layout, own, measured)]
    if style and style.intervals and any(found.cells for found in measured.values()):
        notes.append(tables.INTERVALS)
    notes += [note for found in measured.values() for note in found.notes]
    notes += [str(finding) for finding in published.check(values) if _about(finding, layout)]
    title = f"{layout.paper}, {layout.table}. {layout.caption}"
    return Grid(title, tuple(headings), tuple(filter(None, blocks)), tuple(notes))


def tidy(layout: Layout, values: Sequence[Value], measured: Mapping[str, Measured]) -> str:
    """CSV, one line a value: published ones as printed, measured ones in full precision.

    metric  our metric or, of a published value, its heading in the paper; family  of metrics, of both
    """
    head = ["origin", "source", "table", "group", "method", "metric", "family", "value"]
    lines = [[*head, "status", "conditioning", "note"]]
    for v in published.of(values, layout.source, layout.table):
        line = [v.source, v.table, v.group, v.method, v.metric, v.family, v.value]
        lines.append(["published", *line, "", v.conditioning, v.note])
    wanted = {column.metric for column in layout.columns}
    for group, found in measured.items():
        conditioning = {row.method: row.conditioning for row in found.rows}
        for cell in found.cells:
            if cell.metric in wanted and cell.group is None:
                value = "" if cell.value is None else repr(cell.value)
                line = [layout.groups.get(group, ""), layout.table, group, cell.method, cell.metric]
                of = [cell.metric.partition("/")[0], value, tables.status(cell), conditioning.get(cell.method, "")]
                lines.append(["measured", *line, *of, ""])
    return to_csv(lines)


def _published(layout: Layout, own: Sequence[Value], group: str) -> Iterator[Line]:
    found = {(v.method, v.group, v.metric): v.value for v in own}
    for method in dict.fromkeys(v.method for v in own if not group or v.group == group):
        texts = [group] if layout.stacked else []
        texts.append(method)
        texts += [found.get((method, column.group or group, column.label), "") for column in layout.columns]
        yield Line(tuple(map(Entry, texts)), published=True)


def _measured(layout: Layout, measured: Mapping[str, Measured], group: str, style: Style | None) -> list[Line]:
    if group:
        measured = {key: found for key, found in measured.items() if key == group}
    cells = {
        (name, cell.method, cell.metric): cell
        for name, found in measured.items()
        for cell in found.cells
        if cell.group is None
    }
    named = {row.method: row for found in measured.values() for row in found.rows}
    rows = list(named.values())
    across: list[list[Entry]] = [[Entry(group)] * len(rows)] if layout.stacked else []
    across.append([Entry(row.title) for row in rows])
    for column in layout.columns:
        if column.direction == "text":
            across.append([Entry(getattr(row, column.metric) if column.metric else "") for row in rows])
        else:
            of = group or _group(layout, column)
            members = [cells.get((of, row.method, column.metric)) for row in rows]
            entries = tables.entries(column, members, rows, style)
            if column.metric.startswith("rating/"):  # a study that was not made, not one that cannot be
                entries = [Entry("unavailable") if entry.text == "n/a" else entry for entry in entries]
            across.append(entries)
    return [Line(tuple(entries)) for entries in zip(*across, strict=True)]


def _group(layout: Layout, column: Column) -> str:
    """The group of clips that fills a column: where the paper has a group a column (emotions), there is one for all."""
    return column.group if column.group in layout.groups else next(iter(layout.groups), "")


def _at(layout: Layout) -> int:
    labels = [column.label for column in layout.columns]
    return labels.index(layout.blocks_by) + (2 if layout.stacked else 1)


def _split(lines: Sequence[Line], at: int) -> list[tuple[Line, ...]]:
    """Lines in blocks of equal text in one column, in the order in which the texts appear."""
    blocks: dict[str, list[Line]] = {}
    for line in lines:
        blocks.setdefault(line.entries[at].text, []).append(line)
    return [tuple(block) for block in blocks.values()]


def _folded(layout: Layout, line: Line) -> tuple[Line, ...]:
    name, *values = line.entries
    return tuple(
        Line((name, *(values[cell] if isinstance(cell, int) else Entry(cell) for cell in cells)), line.published)
        for cells in layout.folded
    )


def _headings(layout: Layout) -> list[Heading]:
    first = [Heading(name, text=True) for name in (layout.stacked, layout.first) if name]
    if layout.folded:
        return [*first, *(Heading(name, text=not at % 2) for at, name in enumerate(layout.folded_headings))]
    for column in layout.columns:
        arrow = f" {tables.ARROWS[column.direction]}" if layout.arrows and column.direction != "text" else ""
        first.append(Heading(column.label + arrow, column.heading, column.direction == "text"))
    return first


def _sources(layout: Layout, own: Sequence[Value], measured: Mapping[str, Measured]) -> Iterator[str]:
    if own:
        stated = sorted({value.conditioning for value in own})
        yield f"published: {layout.source}, {layout.table}; conditioning {' or '.join(stated)}"
    for group in measured:
        protocol = layout.groups.get(group)
        numbers = [column for column in layout.columns if column.metric and column.direction != "text"]
        filled = [column for column in numbers if layout.stacked or _group(layout, column) == group]
        names = ", ".join(f"{label} = {c.metric}" for label, c in zip(_unique(filled), filled, strict=True))
        yield f"measured{f', {group}' if group else ''}: {names}{f'; protocol {protocol}' if protocol else ''}"


def _unique(columns: Sequence[Column]) -> list[str]:
    labels = [column.label for column in columns]
    return [f"{c.label} ({c.group})" if labels.count(c.label) > 1 else c.label for c in columns]


def _about(finding: published.Finding, layout: Layout) -> bool:
    mine = finding.source == layout.source and (
        finding.table == layout.table or finding.what.endswith(f" {layout.table}")
    )
    return mine and not finding.consistent
