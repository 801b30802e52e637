"""`bench figures`: embeddings, confusion counts and ratings to the figures of the papers, as PDF and SVG."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.parquet as pq
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from benchmark import configs
from benchmark.errors import BenchError, writing
from leaderboards import figures, intervals, ratings
from leaderboards.figures import Bar
from leaderboards.ratings import Score
from metrics import clusters
from metrics.clusters import Embeddings
from pipelines.datasets import printable
from pipelines.media import atomic_path

Bars = Literal["method", "emotion"]
PERPLEXITY = 30.0  # scikit-learn's and van der Maaten's own default, where there are enough points

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Drawn:
    """The files of a figure, and what a person should be told about it."""

    files: tuple[Path, ...]
    remarks: tuple[str, ...] = ()


def draw(figure: Figure, workspace: Path, folder: str, name: str, *remarks: str) -> Drawn:
    """Write the figure below WORKSPACE/figures in every format, each whole or not at all."""
    to = workspace / "figures" / _file_name(folder)
    paths = [to / f"{_file_name(name)}.{kind}" for kind in figures.KINDS]
    for path, kind in zip(paths, figures.KINDS, strict=True):
        content = figures.render(figure, kind)
        with writing(to), atomic_path(path) as temporary:
            temporary.write_bytes(content)
    return Drawn(tuple(paths), remarks)


def _file_name(words: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", words).lstrip(".")[:100] or "_"


# --- embeddings --------------------------------------------------------------------------------------------------


def tsne(path: Path, workspace: Path, *, perplexity: float | None = None, seed: int = 0) -> Drawn:
    """t-SNE of an embedding table, coloured by emotion and, where it has the column, by intensity (DICE-Talk's Fig.
    4c, EAT-Face's Fig. 5). Raises MetricError as metrics.clusters.read, and BenchError as `project`."""
    table = _read(path)
    levels = _intensities(path)
    try:
        points, used = project(table.vectors, perplexity, seed)
    except BenchError as error:
        raise BenchError(f"{path}: {error}") from None
    note = f"t-SNE of {len(points)} embeddings, perplexity {used:g}, seed {seed}"
    figure = figures.scatter(points, table.emotion.tolist(), levels, note)
    return draw(figure, workspace, path.stem, "tsne", note)


def project(vectors: Matrix, perplexity: float | None = None, seed: int = 0) -> tuple[Matrix, float]:
    """(t-SNE in two dimensions (N, 2), the perplexity): Barnes-Hut, from the first two principal components.

    vectors      (N, D), used as they are: Euclidean distances, only their common scale is taken out
    perplexity   below N; None: 30, or a third of the neighbours where there are fewer

    One thread, so that a seed gives one picture on a machine. Raises BenchError for fewer than 3 vectors, a perplexity
    that is too large for them, and vectors that are all the same.
    """
    count, length = vectors.shape
    if count < 3:
        raise BenchError(f"{count} embeddings; t-SNE needs 3 at least")
    used = max(1.0, min(PERPLEXITY, (count - 1) / 3)) if perplexity is None else perplexity
    if not 1 <= used < count:
        raise BenchError(
            f"--perplexity {used:g} with {count} embeddings; expected 1 or more, and less than their number"
        )
    moved = vectors - vectors.mean(axis=0)
    largest = np.abs(moved).max()
    if largest <= 1e-12 * np.abs(vectors).max():
        raise BenchError(f"the {count} embeddings are all the same; there is nothing to spread out")
    reduce = TSNE(perplexity=used, init="pca" if length > 1 else "random", random_state=seed, n_jobs=1)
    with threadpool_limits(1):
        points: Matrix = reduce.fit_transform(moved / largest).astype(np.float64)
    return points, used


def similarity(path: Path, workspace: Path, *, against: Path | None = None, softmax: bool = False) -> Drawn:
    """Cosine similarities of the emotions' mean embeddings, of one table with itself or with another (EAT-Face's
    Fig. 7, which shows their softmax). Raises MetricError as metrics.clusters.read, and BenchError for tables of
    different spaces and for a mean that is zero."""
    one = _means(path)
    other = _means(against) if against else one
    lengths = [len(next(iter(means.values()))) for means in (one, other)]
    if lengths[0] != lengths[1]:
        raise BenchError(
            f"{path} has embeddings of {lengths[0]} numbers, {against} of {lengths[1]}; cosines need one space"
        )
    values = cosines(np.array(list(one.values())), np.array(list(other.values())))
    if softmax:
        grown = np.exp(values)
        values = grown / grown.sum(axis=1, keepdims=True)
    figure = figures.heat_map(
        values,
        [[f"{value:z.2f}" for value in row] for row in values],
        list(one),
        list(other),
        row_title=printable(path.stem),
        column_title=printable((against or path).stem),
        scale="softmax of cosines over each row" if softmax else "cosine similarity",
        limits=(float(values.min()), float(values.max())),
        title="Mean embeddings of emotions",
    )
    name = f"similarity-{against.stem}" if against else "similarity"
    return draw(figure, workspace, path.stem, f"{name}-softmax" if softmax else name)


def cosines(one: Matrix, other: Matrix) -> Matrix:
    """(N, D) and (M, D) to the (N, M) cosines of the angles between their rows, none of which is zero."""
    units = [vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (one, other)]
    product: Matrix = units[0] @ units[1].T
    return product


def _means(path: Path) -> dict[str, Matrix]:
    """The mean vector of each emotion, in the order of the vocabulary."""
    table = _read(path)
    found = {
        word: table.vectors[table.emotion == word].mean(axis=0) for word in figures.EMOTIONS if word in table.emotion
    }
    for word, mean in found.items():
        if not np.linalg.norm(mean) > 0:
            raise BenchError(f"{path}: the embeddings of {word} have the mean 0, which has no direction")
    return found


def _read(path: Path) -> Embeddings:
    table = clusters.read(path)
    for word in np.unique(table.emotion).tolist():
        if word not in figures.EMOTIONS:
            hint = configs.nearest(word, list(figures.EMOTIONS))
            raise BenchError(f"{path}: emotion {word!r} is none of the vocabulary; {hint}")
    return table


def _intensities(path: Path) -> list[int | None] | None:
    """The column intensity, None without one; numbers that other software made of whole ones count as those."""
    if "intensity" not in pq.read_schema(path).names:
        return None
    found: list[int | None] = []
    for row, value in enumerate(pq.read_table(path, columns=["intensity"])["intensity"].to_pylist()):
        missing = value is None or (isinstance(value, float) and math.isnan(value))
        if not missing and (not isinstance(value, int | float) or value != int(value)):
            raise BenchError(f"{path}: intensity {value!r} in row {row}; expected a level: 1, 2, 3, or none")
        found.append(None if missing else int(value))
    return found


# --- confusion ---------------------------------------------------------------------------------------------------


def confusion(name: str, method: str, workspace: Path, *, metric: str = "emo-acc/vgg16") -> Drawn:
    """The confusion matrix that `bench eval` left beside a metric: shares of each row, with counts.

    Raises BenchError for a protocol, method or metric without one (naming the nearest), and for a file that holds none.
    """
    folder = _below(workspace / "results", name, "--protocol", f"`bench eval --protocol {name}` makes results")
    of = _below(folder / "details", method, "--method", "`bench eval` writes them for metrics that have a confusion")
    tables = {path.stem: path for path in sorted(of.glob("*.csv"))}
    path = tables.get(metric.replace("/", "_"))
    if path is None:
        known = [stem.replace("_", "/", 1) for stem in tables]
        raise BenchError(f"--metric {metric!r} has no details of {method} in {of}; {configs.nearest(metric, known)}")
    rows, columns, counts = _counts(path)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    texts = [
        [f"{100 * share:.0f} %\n{count}" if np.isfinite(share) else "-" for share, count in zip(*line, strict=True)]
        for line in zip(shares, counts, strict=True)
    ]
    figure = figures.heat_map(
        shares,
        texts,
        [f"{printable(word)} ({total})" for word, total in zip(rows, totals[:, 0], strict=True)],
        list(map(printable, columns)),
        row_title="asked for (count)",
        column_title="classified as",
        scale="share of the row",
        limits=(0, 1),
        title=printable(f"{method}, {metric}, {name}"),
    )
    return draw(figure, workspace, name, f"confusion-{method}-{metric}")


def _below(folder: Path, name: str, option: str, how: str) -> Path:
    known = sorted(path.name for path in folder.glob("[!.]*") if path.is_dir())
    if name not in known:
        hint = configs.nearest(name, known) if known else how
        raise BenchError(f"{option} {name!r}: there is no {folder / _file_name(name)}; {hint}")
    return folder / name


def _counts(path: Path) -> tuple[list[str], list[str], NDArray[np.int64]]:
    """(emotions asked for, emotions named, counts) of a table whose first line is the heading."""
    lines = read_csv(path, "a table of counts")
    columns = lines[0][1:] if lines else []
    if not columns or len(lines) < 2:
        raise BenchError(f"{path}: no counts; expected a heading and a line for each emotion; evaluate again")
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(lines[0]) or not all(re.fullmatch(r"\d{1,15}", word, re.ASCII) for word in line[1:]):
            raise BenchError(f"{path}: line {number} is no emotion with {len(columns)} counts; evaluate again")
    counts = np.array([[int(word) for word in line[1:]] for line in lines[1:]], np.int64)
    if not counts.any():
        raise BenchError(f"{path}: every count is 0; no clip was classified")
    return [line[0] for line in lines[1:]], columns, counts


def read_csv(path: Path, what: str) -> list[list[str]]:
    """The lines that are not empty. Raises BenchError, calling the file no `what`, where it cannot be read."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        return [line for line in csv.reader(io.StringIO(text), strict=True) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BenchError(f"{path}: not {what} that can be read ({error})") from None


# --- user studies ------------------------------------------------------------------------------------------------


def study(
    path: Path,
    workspace: Path,
    scales: Mapping[str, tuple[float, float]],
    *,
    by: Bars = "method",
    method: str | None = None,
) -> Drawn:
    """Mean ratings as bars, a panel an aspect, with 95 % intervals over participants (leaderboards.intervals).

    scales   as leaderboards.ratings.scores
    by       "emotion": the bars of one method are emotions, with a dashed average (EAT-Face's Fig. 6)
    method   whose scores are shown; None: everybody's

    Raises ResultError as there, and BenchError for a scale that does not rise, a method that nobody rated, and by
    emotion for a file without that column and for several methods.
    """
    for aspect, (lowest, highest) in scales.items():
        if not -math.inf < lowest < highest < math.inf:
            raise BenchError(f"--aspect {aspect!r} {lowest:g} {highest:g}: expected the lowest score, then the highest")
    given = ratings.scores(path, scales)
    methods = list(dict.fromkeys(score.method for score in given))
    if method is not None and method not in methods:
        raise BenchError(f"{path}: no scores of --method {method!r}; {configs.nearest(method, methods)}")
    if method is not None:
        given, methods = [score for score in given if score.method == method], [method]
    if by == "emotion":
        _by_emotion(path, given, methods)
    labels = methods if by == "method" else [w for w in figures.EMOTIONS if w in {score.emotion for score in given}]
    panels = {a: _bars([score for score in given if score.aspect == a], labels, by) for a in scales}
    panels = {aspect: bars for aspect, bars in panels.items() if bars}
    people = len({score.participant for score in given})
    titles = {aspect: printable(aspect) + (" (%)" if scales[aspect] == (0, 1) else "") for aspect in panels}
    note = f"{people} participants"
    if any(bar.interval for bars in panels.values() for bar in bars):
        note += ", lines: 95 % intervals"
    few = f"fewer than {intervals.FEWEST} participants: no interval is drawn there"
    figure = figures.bars(
        {titles[aspect]: bars for aspect, bars in panels.items()},
        {titles[aspect]: 100.0 if scales[aspect] == (0, 1) else scales[aspect][1] for aspect in panels},
        average=by == "emotion",
        note=note,
    )
    missing = any(bar.interval is None for bars in panels.values() for bar in bars)
    name = "study" if by == "method" else f"study-{methods[0]}-by-emotion"
    return draw(figure, workspace, path.stem, name, *([few] if missing else []))


def _by_emotion(path: Path, given: Sequence[Score], methods: Sequence[str]) -> None:
    if len(methods) > 1:
        raise BenchError(f"--by emotion shows one method; choose it by --method ({', '.join(methods)})")
    for score in given:
        if not score.emotion:
            raise BenchError(f"{path}: --by emotion needs the column emotion, filled in every line")
        if score.emotion not in figures.EMOTIONS:
            hint = configs.nearest(score.emotion, list(figures.EMOTIONS))
            raise BenchError(f"{path}: emotion {score.emotion!r} is none of the vocabulary; {hint}")


def _bars(given: Sequence[Score], labels: Sequence[str], by: Bars) -> list[Bar]:
    bars = []
    for label in labels:
        scores = [score for score in given if getattr(score, by) == label]
        if scores:
            values = [score.value for score in scores]
            interval = intervals.mean_interval(values, [score.participant for score in scores])
            ends = (interval.low, interval.high) if interval else None
            bars.append(Bar(printable(label), math.fsum(values) / len(values), ends))
    return bars
