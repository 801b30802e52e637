"""Figures as papers print them: arrays and labels in, a matplotlib Figure out, and the bytes of a PDF or SVG of it.

No window, no global state: the same figure gives the same bytes on every run. Labels are plain text, so that `$` and
`_` in a method's name stay what they are; letters that the font lacks are spelt out. Colours are told apart by the
colour-blind, and every meaning that a colour has stands in print as well: as a marker, a number or a label.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from matplotlib import colormaps, style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from matplotlib.ft2font import FT2Font
from numpy.typing import NDArray

Kind = Literal["pdf", "svg"]
KINDS: tuple[Kind, ...] = ("pdf", "svg")

# Colour and marker of each emotion, in every figure: Okabe and Ito's palette, and two more for what is none of eight.
EMOTIONS: dict[str, tuple[str, str]] = {
    "angry": ("#D55E00", "^"),
    "contempt": ("#CC79A7", "P"),
    "disgusted": ("#009E73", "v"),
    "fear": ("#0072B2", "D"),
    "happy": ("#F0E442", "o"),
    "neutral": ("#000000", "s"),
    "sad": ("#56B4E9", "X"),
    "surprised": ("#E69F00", "*"),
    "calm": ("#882255", "p"),
    "unlabelled": ("#CCCCCC", "h"),
}
PLAIN = "#4477AA"  # bars that are no emotion's
NOTHING = "#DDDDDD"  # where there is no value, or no picture

FONT = "DejaVu Sans"  # comes with matplotlib: the same everywhere
_STYLE: dict[str, Any] = {
    "font.family": [FONT],
    "font.size": 8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "hatch.linewidth": 0.6,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "emotional-talking-face-bench",
    "text.parse_math": False,
    "text.usetex": False,
}
_styled = style.context(_STYLE, after_reset=True)  # whatever the user's own matplotlibrc says
_DATES: dict[Kind, dict[str, None]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}

# Of a grid of pictures, in inches.
CELL = 1.0  # width of a picture
GAP = 0.04
LABELS = 1.15  # width of the column with the names of rows
LINE = 0.14


@dataclass(frozen=True, slots=True)
class Bar:
    """A mean with the ends of its interval, None where none is claimed. A label that is an emotion has its colour."""

    label: str
    value: float
    interval: tuple[float, float] | None = None


Picture = NDArray[np.uint8] | str | None  # (H, W, 3) RGB; the reason why there is none; nothing belongs there


@_styled
def render(figure: Figure, kind: Kind) -> bytes:
    """The figure as a file: no dates, fonts embedded (PDF) or drawn as outlines (SVG)."""
    file = io.BytesIO()
    figure.savefig(file, format=kind, metadata=_DATES[kind])
    return file.getvalue()


@_styled
def scatter(
    points: NDArray[np.float64], emotions: Sequence[str], intensities: Sequence[int | None] | None, note: str
) -> Figure:
    """Points coloured by emotion, and once more by intensity where `intensities` are given.

    points        (N, 2); emotions: N keys of EMOTIONS; intensities: N levels, None where a point has none
    note          what is said below
    """
    figure = Figure(figsize=(4.2 if intensities is None else 7.8, 3.4), layout="constrained")
    panels = figure.subplots(1, 1 if intensities is None else 2, squeeze=False)[0]
    words = np.array(emotions)
    shown = [word for word in EMOTIONS if word in set(emotions)]
    for word in shown:
        colour, marker = EMOTIONS[word]
        _points(panels[0], points[words == word], colour, marker, word)
    panels[0].legend(title="emotion", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    if intensities is not None:
        levels = sorted({level for level in intensities if level is not None})
        shades = colormaps["viridis"](np.linspace(0, 0.9, max(len(levels), 2)))
        for level, shade in [*zip(levels, shades, strict=False), (None, NOTHING)]:
            named = str(level) if level is not None else "not stated"
            for word in shown:
                here = np.array([i == level for i in intensities]) & (words == word)
                _points(panels[1], points[here], shade, EMOTIONS[word][1], "")
            if level is not None or None in intensities:
                panels[1].scatter([], [], s=22, color=[shade], edgecolors="#333333", linewidths=0.4, label=named)
        panels[1].legend(title="intensity", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    for panel in panels:
        panel.set(xticks=[], yticks=[])  # distances on the page have no unit
        panel.spines[["right", "top"]].set_visible(True)
    figure.supxlabel(note, fontsize=7)
    return figure


def _points(axes: Axes, points: NDArray[np.float64], colour: Any, marker: str, label: str) -> None:
    if len(points):
        axes.scatter(
            points[:, 0],
            points[:, 1],
            s=22,
            c=[colour],
            marker=marker,
            edgecolors="#333333",
            linewidths=0.4,
            label=label,
        )


@_styled
def heat_map(
    values: NDArray[np.float64],
    texts: Sequence[Sequence[str]],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    row_title: str,
    column_title: str,
    scale: str,
    limits: tuple[float, float],
    title: str,
) -> Figure:
    """A matrix (R, C), darker where a value is larger, with a text in each cell; NaN cells are grey.

    limits   values of the lightest and of the darkest colour;   scale: what the values are
    """
    size = values.shape
    figure = Figure(figsize=(2.2 + 0.55 * size[1], 1.6 + 0.48 * size[0]), layout="constrained")
    axes = figure.subplots()
    colours = colormaps["Blues"].with_extremes(bad=NOTHING)
    image = axes.imshow(values, cmap=colours, vmin=limits[0], vmax=limits[1], aspect="auto", interpolation="none")
    axes.set_xticks(range(size[1]), map(_legible, columns), rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(size[0]), map(_legible, rows))
    axes.set(xlabel=_legible(column_title), ylabel=_legible(row_title))
    axes.set_title(_legible(title), fontsize=8)
    luminance = image.to_rgba(values)[..., :3] @ (0.299, 0.587, 0.114)
    for row, column in np.ndindex(values.shape):
        dark = luminance[row, column] < 0.5
        axes.text(
            column, row, texts[row][column], ha="center", va="center", fontsize=6.5, color="white" if dark else "black"
        )
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    bar = figure.colorbar(image, ax=axes, label=scale, fraction=0.05)
    bar.outline.set_visible(False)
    return figure


@_styled
def bars(panels: Mapping[str, Sequence[Bar]], highest: Mapping[str, float], *, average: bool, note: str) -> Figure:
    """A panel an aspect, with a bar for each of the same labels in the same order, from 0; a label may lack a bar.

    highest   end of each aspect's scale;   average: mark the mean of the bars by a dashed line
    """
    labels = list(dict.fromkeys(bar.label for given in panels.values() for bar in given))
    figure = Figure(figsize=(1.4 + 1.6 * len(panels), 0.9 + 0.28 * len(labels)), layout="constrained")
    for axes, (aspect, given) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for bar in given:
            at = labels.index(bar.label)
            colour = EMOTIONS[bar.label][0] if bar.label in EMOTIONS else PLAIN
            axes.barh(at, bar.value, height=0.72, color=colour, edgecolor="#333333", linewidth=0.5)
            ends = bar.interval or (bar.value, bar.value)
            if bar.interval:
                # Black upon white: seen on a black bar too.
                for shade, width in (("white", 3.2), ("black", 1.2)):
                    axes.plot(ends, (at, at), color=shade, linewidth=width, solid_capstyle="butt")
            axes.text(ends[1] + 0.02 * highest[aspect], at, f"{bar.value:.2f}", va="center", fontsize=6.5)
        if average:
            axes.axvline(float(np.mean([bar.value for bar in given])), color="black", linestyle="--", linewidth=1)
        furthest = max(highest[aspect], *(bar.interval[1] for bar in given if bar.interval), 0)
        axes.set_xlim(0, furthest + 0.22 * highest[aspect])
        axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= highest[aspect]])
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.set_title(_legible(aspect), fontsize=8)
        names = map(_legible, labels) if axes.get_subplotspec().is_first_col() else [""] * len(labels)
        axes.set_yticks(range(len(labels)), names)
        axes.tick_params(axis="y", length=0)
    figure.supxlabel(note, fontsize=7)
    return figure


@_styled
def grid(
    pictures: Sequence[Sequence[Picture]],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    column_groups: Sequence[tuple[str, int]] = (),
    row_groups: Sequence[tuple[str, int]] = (),
) -> Figure:
    """Pictures under their columns' labels and beside their rows', each with all its pixels.

    pictures        one sequence a row; a text is the reason why there is no picture, None leaves the place empty
    column_groups   (heading, number of columns) from the left;   row_groups: the same from the top
    """
    shapes = [one.shape for line in pictures for one in line if isinstance(one, np.ndarray)]
    height = CELL * max((shape[0] / shape[1] for shape in shapes), default=1.0)
    heads = [_wrapped(name, 13) for name in columns]
    groups = [(_wrapped(name, 13 * count), count) for name, count in column_groups]
    deep = max(text.count("\n") + 1 for text in heads)
    over = max((text.count("\n") + 1 for text, _ in groups), default=0)
    left = LABELS + (LINE + 0.1 if row_groups else 0)
    wide = left + len(columns) * (CELL + GAP)
    band = LINE * (deep + over) + 0.16
    tall = band + len(rows) * (height + GAP)
    figure = Figure(figsize=(wide, tall))

    def text(x: float, y: float, words: str, **how: Any) -> None:
        figure.text(x / wide, y / tall, words, **{"va": "center", "ha": "center", "fontsize": 7.5, **how})

    def row_middle(row: float) -> float:
        return tall - band - row * (height + GAP) - height / 2

    for column, head in enumerate(heads):
        text(left + column * (CELL + GAP) + CELL / 2, tall - band + 0.06, head, va="bottom")
    at = 0
    for words, count in groups:
        middle = left + at * (CELL + GAP) + (count * (CELL + GAP) - GAP) / 2
        text(middle, tall - band + 0.1 + LINE * deep, words, va="bottom", weight="bold")
        at += count
    for row, name in enumerate(rows):
        text(left - 0.07, row_middle(row), _wrapped(name, 16, most=6), ha="right")
    at = 0
    for words, count in row_groups:
        text(LINE / 2 + 0.03, row_middle(at + (count - 1) / 2), _legible(words), rotation=90, weight="bold")
        at += count
    for row, line in enumerate(pictures):
        for column, picture in enumerate(line):
            if picture is not None:
                corner = left + column * (CELL + GAP), row_middle(row) - height / 2
                box = (corner[0] / wide, corner[1] / tall, CELL / wide, height / tall)
                _cell(figure.add_axes(box), picture)
    return figure


def _cell(axes: Axes, picture: NDArray[np.uint8] | str) -> None:
    axes.set(xticks=[], yticks=[])
    if isinstance(picture, str):
        axes.set_facecolor("#F2F2F2")
        axes.spines[:].set(visible=True, color="#999999", linewidth=0.5, linestyle=(0, (3, 2)))
        axes.text(
            0.5,
            0.5,
            _wrapped(picture, 17, most=8),
            transform=axes.transAxes,
            ha="center",
            va="center",
            fontsize=6,
            color="#333333",
        )
    else:
        axes.imshow(picture, interpolation="none")  # none: files keep the pixels as they are
        axes.spines[:].set_visible(False)


def _wrapped(text: str, width: int, most: int = 3) -> str:
    return "\n".join(textwrap.wrap(_legible(text), width, max_lines=most, placeholder=" …"))


def _legible(text: str) -> str:
    """The text with the letters that the font lacks spelt out, as [U+4F60]."""
    return "".join(c if c.isspace() or ord(c) in _letters() else f"[U+{ord(c):04X}]" for c in text)


@cache
def _letters() -> frozenset[int]:
    return frozenset(FT2Font(findfont(FONT)).get_charmap())
