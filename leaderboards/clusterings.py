"""Reports of clustering strength, as `bench clusters --out` writes them: cells of a table, and what stands behind."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from leaderboards.aggregate import Cell
from leaderboards.grid import to_csv
from leaderboards.results import ResultError

FAMILY = "cluster-strength"
MEASURED = ("form", "emotion", "identities", "vectors", "strength", "null_mean", "null_low", "null_high", "p")
SETTINGS = ("normalise", "min_size")  # reports that differ in one of these measured different things
COLUMNS = (*MEASURED, *SETTINGS, "permutations", "seed", "embeddings_sha256")


@dataclass(frozen=True, slots=True)
class Report:
    """The strengths of one embedding, a line an emotion and form; the fields of `lines` are COLUMNS, as written."""

    name: str
    lines: tuple[Mapping[str, str], ...]


def read(path: Path, name: str) -> Report:
    """The report of an embedding that a table calls `name`.

    path   CSV with COLUMNS: one line a form ("centroid", "pairwise") and emotion ("all": the mean over emotions), with
           strength = d_inter / d_intra, over so many vectors of so many identities, its null under shuffled emotions
           (empty or nan where there is none), and how it was measured

    Raises ResultError, naming the line, on a file that cannot be read, a column or a number that is missing, a strength
    that is negative or not finite, settings that change within the file, and an emotion that stands there twice.
    """
    try:
        table = csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig")), strict=True)
        found = [(table.line_num, line) for line in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ResultError(f"{path}: not a readable CSV file of clustering strengths ({error})") from None
    lacking = [column for column in COLUMNS if column not in (table.fieldnames or ())]
    if lacking:
        raise ResultError(f"{path}: no column {', '.join(lacking)}; `bench clusters TABLE.parquet --out` writes them")
    lines: dict[tuple[str, str], dict[str, str]] = {}
    for at, line in found:
        fields = {column: (line[column] or "").strip() for column in COLUMNS}
        key = fields["form"], fields["emotion"]
        if not all(key) or not _counts(fields):
            raise ResultError(f"{path}: line {at}: form, emotion, identities or vectors is missing, or no count")
        if not 0 <= _number(fields["strength"]) < math.inf:
            raise ResultError(f"{path}: line {at}: strength {fields['strength']!r}; expected a number from 0 on")
        if key in lines:
            raise ResultError(f"{path}: line {at}: {' '.join(key)} stands there twice")
        lines[key] = fields
    if not lines:
        raise ResultError(f"{path}: no strengths")
    report = Report(name, tuple(lines.values()))
    if field := differing([Report(line["form"], (line,)) for line in report.lines]):
        raise ResultError(f"{path}: {field} changes within the file")
    return report


def differing(reports: Iterable[Report]) -> str | None:
    """The first setting in which reports differ."""
    of = [line for report in reports for line in report.lines]
    return next((field for field in SETTINGS if len({line[field] for line in of}) > 1), None)


def cells(report: Report) -> list[Cell]:
    """A cell an emotion and form, whose metric is "cluster-strength-<emotion>/<form>"; n counts vectors."""
    return [
        Cell(
            method=report.name,
            metric=f"{FAMILY}-{line['emotion']}/{line['form']}",
            metric_version=1,
            group=None,
            value=_number(line["strength"]),
            n_used=int(line["vectors"]),
            n_expected=int(line["vectors"]),
            reasons=(),
        )
        for line in report.lines
    ]


def null(report: Report, metrics: Sequence[str]) -> str:
    """What the strengths of these metrics are with the emotions shuffled: 95 % of the shuffles, and p."""
    told = []
    for line in report.lines:
        low, high = (_number(line[end]) for end in ("null_low", "null_high"))
        if f"{FAMILY}-{line['emotion']}/{line['form']}" in metrics and math.isfinite(low + high):
            told.append(f"{line['emotion']} {low:.2f} to {high:.2f} (p {_number(line['p']):.2g})")
    return f"{report.name}, 95 % of shuffled emotions: {', '.join(told) or 'not measured'}"


def joined(reports: Iterable[Report]) -> str:
    """CSV of all reports, both forms, with the digests of the embeddings."""
    return to_csv([["name", *COLUMNS], *([r.name, *(line[c] for c in COLUMNS)] for r in reports for line in r.lines)])


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _counts(fields: Mapping[str, str]) -> bool:
    return all(fields[name].isdecimal() and int(fields[name]) > 0 for name in ("identities", "vectors"))
