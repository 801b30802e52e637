"""A table as it is printed, in every format: CSV, Markdown, LaTeX. Whatever stands in a cell is text, never markup."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

Mark = Literal["", "best", "second"]

PUBLISHED = "as its paper printed it; never ranked with measured rows"
_NUMERIC = re.compile(r"[+-](\d[\d.]*([eE][+-]?\d+)?%?|inf)( ?†.*)?")
_SHRUNK = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{"  # only what is too wide
_LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "{}&#_%"},
    "$": r"\char36{}",  # \$ and \textdagger are of fonts that small TeX installations lack
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\`{}",
    '"': r"\char34{}",
    "[": "{[}",  # after \\ it would be an argument; so would *
    "*": "{*}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "→": r"$\rightarrow$",
    "†": r"$\dagger$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "✓": r"$\checkmark$",
    "Δ": r"$\Delta$",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands in one cell, and its place in its column: "best", "second", or neither."""

    text: str
    mark: Mark = ""


@dataclass(frozen=True, slots=True)
class Heading:
    """Heading of a column, with that of the group of columns it belongs to; text columns stand on the left."""

    label: str
    group: str = ""
    text: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """One line; `published` ones are grey."""

    entries: tuple[Entry, ...]
    published: bool = False


@dataclass(frozen=True, slots=True)
class Grid:
    """A table: headings, blocks of lines with a rule between them, and what must be said below."""

    title: str
    headings: tuple[Heading, ...]
    blocks: tuple[tuple[Line, ...], ...]
    notes: tuple[str, ...] = ()

    @property
    def lines(self) -> list[Line]:
        """The lines of all blocks."""
        return [line for block in self.blocks for line in block]

    def texts(self) -> list[list[str]]:
        """The table as text, headings first; the group of a column stands before its label."""
        names = [f"{h.group}: {h.label}" if h.group else h.label for h in self.headings]
        return [names, *([entry.text for entry in line.entries] for line in self.lines)]


def printed_csv(grid: Grid) -> str:
    """The grid as CSV. Where some lines are published, a last column says which."""
    header, *body = grid.texts()
    if any(line.published for line in grid.lines):
        header.append("origin")
        for line, texts in zip(grid.lines, body, strict=True):
            texts.append("published" if line.published else "measured")
    return to_csv([header, *body])


def to_csv(lines: Iterable[Sequence[str]]) -> str:
    """Lines as CSV whose cells a spreadsheet takes for text or numbers, never for formulas."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_inert(cell) for cell in line] for line in lines)
    return text.getvalue()


def markdown(grid: Grid) -> str:
    """The grid as Markdown: best bold, second underlined, published lines in italics."""
    header, *_ = grid.texts()
    rule = [":--" if heading.text else "--:" for heading in grid.headings]
    lines = [f"## {_escape(grid.title)}", "", _pipes(map(_escape, header)), _pipes(rule)]
    lines += [_pipes(_emphasis(entry, line.published) for entry in line.entries) for line in grid.lines]
    notes = [f"- {_escape(note)}" for note in grid.notes]
    if any(line.published for line in grid.lines):
        notes.insert(0, f"- *italics*: {PUBLISHED}")
    return "\n".join([*lines, "", *notes]).rstrip() + "\n"


def latex(grid: Grid) -> str:
    """The grid as a LaTeX table: best bold, second underlined, published lines grey, rules under groups of columns;
    shrunk to the line where it is too wide. Letters that pdfLaTeX does not know need XeLaTeX or LuaLaTeX."""
    columns = "".join("l" if heading.text else "r" for heading in grid.headings)
    lines = [
        "% needs \\usepackage{amssymb,booktabs,graphicx,xcolor}",
        "\\begin{table}",
        "\\centering\\small",
        f"\\caption{{{tex(grid.title)}}}",
        f"{_SHRUNK}\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        *_group_rows(grid.headings),
        _row(tex(heading.label) for heading in grid.headings),
    ]
    for block in grid.blocks:
        lines += ["\\midrule", *(_row(_styled(entry, line.published) for entry in line.entries) for line in block)]
    notes = [tex(note) for note in grid.notes]
    if any(line.published for line in grid.lines):
        notes.insert(0, f"\\textcolor{{gray}}{{Grey}}: {tex(PUBLISHED)}")
    lines += ["\\bottomrule", "\\end{tabular}}", *(f"\\par\\footnotesize {note}" for note in notes), "\\end{table}"]
    return "\n".join(lines) + "\n"


def plain(text: str) -> str:
    """Text on one line in which signs that steer terminals and the direction of writing are spelt out: [U+202E]."""
    joined = " ".join(text.split())
    return "".join(f"[U+{ord(c):04X}]" if unicodedata.category(c)[0] == "C" else c for c in joined)


def tex(text: str) -> str:
    """Text as LaTeX that prints it."""
    signs = "".join(_LATEX.get(sign, sign) for sign in plain(text))
    return re.sub(r"-(?=-)", "-{}", signs)  # two hyphens would be joined to a dash


def _inert(cell: str) -> str:
    cell = plain(cell)
    return f"'{cell}" if cell[:1] in set("=+-@") and not _NUMERIC.fullmatch(cell) else cell


def _group_rows(headings: Sequence[Heading]) -> Iterator[str]:
    """The row of groups over the headings, and the rules under them."""
    if not any(heading.group for heading in headings):
        return
    cells, rules, at = [], [], 1
    for group, members in groupby(heading.group for heading in headings):
        width = len(list(members))
        if group:
            cells.append(f"\\multicolumn{{{width}}}{{c}}{{{tex(group)}}}")
            rules.append(f"\\cmidrule(lr){{{at}-{at + width - 1}}}")
        else:
            cells += [""] * width
        at += width
    yield _row(cells)
    yield " ".join(rules)


def _row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _styled(entry: Entry, published: bool) -> str:
    text = tex(entry.text)
    if entry.mark:
        text = f"\\textbf{{{text}}}" if entry.mark == "best" else f"\\underline{{{text}}}"
    return f"\\textcolor{{gray}}{{{text}}}" if published and text else text


def _emphasis(entry: Entry, published: bool) -> str:
    text = _escape(entry.text)
    if entry.mark:
        text = f"**{text}**" if entry.mark == "best" else f"<u>{text}</u>"
    return f"*{text}*" if published and text else text


def _pipes(line: Iterable[str]) -> str:
    return f"| {' | '.join(line)} |"


def _escape(text: str) -> str:
    return "".join(f"\\{sign}" if sign in "\\`*_[]<>|~&$#" else sign for sign in plain(text))
