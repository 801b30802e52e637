"""A folder of results, from here or from elsewhere: read with nothing taken on trust, and checked on request."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyarrow import ArrowException

from benchmark import provenance, replicates
from leaderboards import aggregate, results, tables
from leaderboards.grid import plain
from leaderboards.results import Result, ResultError

# What a record says beside the contents that its id was made from.
CIRCUMSTANCES = ("run_id", "created", "hardware", "workers", "seconds", "generation")
_ID = re.compile(r"[0-9a-f]{16}")


class _Fault(Exception):
    """Why a file cannot be believed; one line."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """What a folder holds that can be believed.

    rows      of the files without a fault
    records   of their runs, by id
    halves    values of sets on halves of their clips, by method and metric
    faults    file name and faults of each file that is left out
    """

    folder: Path
    rows: list[Result] = field(default_factory=list)
    records: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    halves: dict[tuple[str, str], Sequence[float]] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verified:
    """What is wrong, a line each, and one line of what was checked."""

    problems: list[str]
    summary: str


def read(folder: Path) -> Submitted:
    """Every result file of a folder with its records and draws. A file is taken whole or not at all: each record is
    the one its id was made from, each row is of the record's method, protocol, metrics and clips, and no clip is
    without its row."""
    found = Submitted(folder)
    for path in sorted(folder.glob("[!.]*.parquet")):
        records: dict[str, Mapping[str, Any]] = {}
        faults: list[str] = []
        try:
            rows = results.read(path)
            for run_id in sorted({row.run_id for row in rows}):
                records[run_id] = _record(folder, run_id)
            faults += _inconsistent(rows, records)
        except (ResultError, _Fault) as error:
            faults.append(str(error).removeprefix(f"{path}: "))
            rows = []
        halves = {}
        for row in rows:
            if row.replicates is not None:
                try:
                    halves[row.method, row.metric] = _halves(folder, row)
                except _Fault as error:
                    faults.append(str(error))
        if faults:
            found.faults[path.name] = [plain(fault) for fault in faults]
        else:
            found.rows.extend(rows)
            found.records.update(records)
            found.halves.update(halves)
    return found


def verify(folder: Path, tidy: Path | None = None) -> Verified:
    """Check a folder of results, and derive the numbers of `tidy` again from its rows.

    Nothing is raised for bad content: each fault is a line, and the rest is checked all the same. Without `tidy`,
    tidy.csv in the folder is taken where there is one. Values of sets (FID) do not follow from rows: they are taken
    as stated.
    """
    found = read(folder)
    problems = [f"{name}: {fault}" for name, faults in found.faults.items() for fault in faults]
    if not found.rows and not problems:
        problems.append(f"{folder}: no result files there; expected .parquet files with runs/ beside them")
    problems += people_differ(found.rows)
    tidy = tidy or (folder / "tidy.csv" if (folder / "tidy.csv").exists() else None)
    told = "no tidy.csv was given, so no printed number was compared"
    if tidy and found.rows:
        try:
            cells = aggregate.cells(found.rows, by_group=True, halves=found.halves)
            differing, count = _differing(tables.tidy(cells), tidy)
            problems += differing
            stated = sum(row.clip_id is None for row in found.rows)
            told = f"{count} numbers of {tidy.name} derived again; {stated} values of sets are taken as stated"
        except ResultError as error:
            problems.append(str(error))
    methods = len({row.method for row in found.rows})
    summary = f"{len(found.rows)} rows of {methods} methods, {len(found.records)} runs; {told}; "
    said = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}" if problems else "in order"
    return Verified(list(map(plain, problems)), summary + said)


def people_differ(rows: Sequence[Result]) -> list[str]:
    """Clips that two files ascribe to different people."""
    who: dict[str, str | None] = {}
    return [
        f"{row.method}: clip {row.clip_id} is of {row.identity}, of {who[row.clip_id]} in another file"
        for row in rows
        if row.clip_id is not None and who.setdefault(row.clip_id, row.identity) != row.identity
    ]


def _record(folder: Path, run_id: str) -> Mapping[str, Any]:
    """The record of a run. Raises _Fault where it is missing, damaged or not what the id was made from."""
    if not _ID.fullmatch(run_id):
        raise _Fault(f"run id {run_id!r}; expected 16 hexadecimal digits")
    path = folder / "runs" / f"{run_id}.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        made = provenance.run_id({key: value for key, value in record.items() if key not in CIRCUMSTANCES})
        if made != run_id:
            raise _Fault(f"runs/{path.name}: its contents give the id {made}; it was changed after the run")
        _typed(record)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"[:120]
        raise _Fault(
            f"runs/{path.name}: the record of a run is missing or damaged ({reason}); evaluate again"
        ) from None
    return dict(record)


def _typed(record: Mapping[str, Any]) -> None:
    """Raises KeyError, TypeError or ValueError where a record is not as eval writes it."""
    for name, of in record["metrics"].items():
        if (
            of["direction"] not in tables.ARROWS
            or not isinstance(of["label"], str)
            or not isinstance(of["version"], int)
        ):
            raise ValueError(f"metric {name}: direction {of['direction']!r}, label {of['label']!r}")
        if not (isinstance(of["digits"], int) and 0 <= of["digits"] <= 12):
            raise ValueError(f"metric {name}: digits {of['digits']!r}")
    for part, keys in (("protocol", ("name", "dataset", "digest", "title")), ("method", ("name", "title", "kind"))):
        for key in keys:
            if not isinstance(record[part][key], str):
                raise TypeError(f"{part}.{key}: {record[part][key]!r}")
    list(record["protocol"]["columns"]), list(record["protocol"]["metrics"]), dict(record["protocol"]["pairing"])
    dict(record["clips"]), dict(record["extractors"]), record["pairs"], record["views"], str(record["device"])


def _inconsistent(rows: Sequence[Result], records: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Where rows and the records of their runs do not agree."""
    group = {row.clip_id: row.group for row in rows if row.clip_id is not None}
    of: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for row in rows:
        of[row.run_id, row.metric].append(row)
    for (run_id, metric), members in sorted(of.items()):
        record, row = records[run_id], members[0]
        said = record["metrics"].get(metric)
        if said is None:
            yield f"{metric}: run {run_id} did not compute it"
            continue
        for name, here, there in (
            ("method", {r.method for r in members}, record["method"]["name"]),
            ("protocol", {r.protocol for r in members}, record["protocol"]["name"]),
            ("dataset", {r.dataset for r in members}, record["protocol"]["dataset"]),
            ("metric_version", {r.metric_version for r in members}, said["version"]),
        ):
            if here != {there}:
                yield f"{metric}: its {name} is {', '.join(map(str, sorted(here)))}, {there} in the run's record"
        emotions = said.get("emotions")
        wanted = {c for c in record["clips"] if not emotions or group.get(c, emotions[0]) in emotions}
        yield from _counted(metric, members, wanted, bool(emotions))
        name = replicates.file_name(row.method, metric)
        if row.replicates not in (None, name):
            yield f"{metric}: its draws are said to lie in {row.replicates!r}; expected {name}"
    computed = {metric for _, metric in of}
    for record in records.values():
        for metric, said in record["metrics"].items():
            if metric not in computed and not said.get("emotions"):
                yield f"{metric}: its run computed it, and there is no row of it"


def _counted(metric: str, members: Sequence[Result], wanted: set[str], some: bool) -> Iterator[str]:
    """Clips that a metric has no row for, and rows of clips that its run has not; `some`: of some emotions only."""
    here = {row.clip_id for row in members if row.clip_id is not None}
    if not here:
        expected = members[0].n_expected
        if expected != len(wanted) and not (some and expected < len(wanted)):
            yield f"{metric}: of {expected} clips; its run has {len(wanted)}"
        return
    strange, missing = here - wanted, wanted - here
    if strange:
        yield f"{metric}: {len(strange)} rows of clips that its run does not know ({min(strange)})"
    if missing and not some:
        yield f"{metric}: no row for {len(missing)} of {len(wanted)} clips of its run ({min(missing)})"
    if any(row.n_expected != 1 for row in members):
        yield f"{metric}: the row of a clip counts for {max(row.n_expected for row in members)} clips"


def _halves(folder: Path, row: Result) -> list[float]:
    try:
        return replicates.halves(folder / str(row.replicates), row.n_used)
    except (OSError, ArrowException, TypeError, ValueError) as error:
        raise _Fault(f"{row.metric}: its draws cannot be read ({' '.join(str(error).split())[:120]})") from None


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
    lines = list(csv.DictReader(io.StringIO(text)))
    keys = [(line["method"], line["metric"], line["group"]) for line in lines]
    twice = [key for key, count in Counter(keys).items() if count > 1]
    if twice:
        raise ValueError(f"{' '.join(twice[0])} is there twice")
    return dict(zip(keys, lines, strict=True))
