"""Checks results that somebody else made, from their rows alone: `bench leaderboard verify`."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow import ArrowException

from benchmark import provenance, replicates
from leaderboards import aggregate, results, tables
from leaderboards.results import Result, ResultError

# What a record says beside the contents that its id was made from.
CIRCUMSTANCES = ("run_id", "created", "hardware", "workers", "seconds", "generation")


@dataclass(frozen=True, slots=True)
class Verified:
    """What is wrong, a line each, and one line of what was checked."""

    problems: list[str]
    summary: str


def verify(folder: Path, tidy: Path | None = None) -> Verified:
    """Check every result file, record and set of draws of a folder, and derive the numbers of `tidy` again.

    Nothing is raised for bad content: each fault is a line, and the rest is checked all the same. Without `tidy`,
    tidy.csv in the folder is taken where there is one.
    """
    problems: list[str] = []
    rows: list[Result] = []
    files = sorted(folder.glob("[!.]*.parquet"))
    for path in files:
        try:
            rows += results.read(path)
        except ResultError as error:
            problems.append(str(error))
    try:
        rows = results.check(rows, str(folder))
    except ResultError as error:
        problems.append(str(error))
    if not files:
        problems.append(f"{folder}: no result files there; expected .parquet files with runs/ beside them")
    records = {run_id: _record(folder, run_id, problems) for run_id in sorted({row.run_id for row in rows})}
    problems += _incomplete(rows, records)
    halves = {}
    for row in rows:
        if row.replicates is not None:
            try:
                halves[row.method, row.metric] = replicates.halves(folder / row.replicates, row.n_used)
            except (OSError, ArrowException) as error:
                problems.append(f"{row.method} {row.metric}: its draws cannot be read ({' '.join(str(error).split())})")
    tidy = tidy or (folder / "tidy.csv" if (folder / "tidy.csv").exists() else None)
    told = "no tidy.csv to compare with"
    if tidy and rows:
        try:
            cells = aggregate.cells(rows, by_group=True, halves=halves)
            differing, count = _differing(tables.tidy(cells), tidy)
            problems += differing
            told = f"{count} numbers of {tidy.name} derived again"
        except ResultError as error:
            problems.append(str(error))
    methods = len({row.method for row in rows})
    summary = f"{len(rows)} rows of {methods} methods in {len(files)} files, {len(records)} runs; {told}; "
    return Verified(problems, summary + (f"{len(problems)} problems" if problems else "in order"))


def _record(folder: Path, run_id: str, problems: list[str]) -> Mapping[str, Any]:
    """The record of a run; {} where it is missing or is not what the id was made from."""
    path = folder / "runs" / f"{run_id}.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        made = provenance.run_id({key: value for key, value in record.items() if key not in CIRCUMSTANCES})
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        problems.append(f"{path}: missing or damaged ({' '.join(str(error).split())[:120]})")
        return {}
    if made != run_id:
        problems.append(f"{path}: its contents give the id {made}; it was changed after the run")
        return {}
    return dict(record)


def _incomplete(rows: Sequence[Result], records: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Clips of a run that a metric has no row for, and rows of clips that the run has not."""
    of: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for row in rows:
        if row.clip_id is not None:
            of[row.method, row.metric, row.run_id].add(row.clip_id)
    for (method, metric, run_id), clips in sorted(of.items()):
        record = records[run_id]
        if not record:
            continue
        known, said = set(record.get("clips", {})), record.get("metrics", {}).get(metric)
        if said is None:
            yield f"{method} {metric}: run {run_id} did not compute it"
        strange, missing = clips - known, known - clips
        if strange:
            yield f"{method} {metric}: {len(strange)} rows of clips that its run does not know ({min(strange)})"
        if missing and not (said or {}).get("emotions"):
            yield f"{method} {metric}: no row for {len(missing)} of {len(known)} clips of its run ({min(missing)})"


def _differing(derived: str, tidy: Path) -> tuple[list[str], int]:
    """Lines of `tidy` that do not follow from the rows, and the number of values compared."""
    try:
        text = tidy.read_text(encoding="utf-8")
        here, there = (_lines(content) for content in (derived, text))
    except (OSError, ValueError, KeyError, csv.Error) as error:
        return [f"{tidy}: not a tidy.csv ({type(error).__name__}: {error})"], 0
    problems = []
    for key in sorted(here.keys() | there.keys()):
        name = " ".join(key)
        if key not in there:
            problems.append(
                f"{tidy.name}: {name} is missing; the rows give {here[key]['value'] or here[key]['status']}"
            )
        elif key not in here:
            problems.append(f"{tidy.name}: {name} is there, and no rows of it")
        else:
            problems += [
                f"{tidy.name}: {name}: {column} is {there[key].get(column)!r}, the rows give {value!r}"
                for column, value in here[key].items()
                if there[key].get(column) != value
            ]
    return problems, len(here.keys() & there.keys())


def _lines(text: str) -> dict[tuple[str, str, str], dict[str, str]]:
    return {(line["method"], line["metric"], line["group"]): line for line in csv.DictReader(io.StringIO(text))}
