"""Result rows and run records to tables; reads nothing else."""

from __future__ import annotations

import math
import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmark import clusters, configs, submission
from benchmark.errors import BenchError, writable, writing
from benchmark.submission import Submitted
from leaderboards import aggregate, clusterings, grid, intervals, layouts, published, ratings, tables
from leaderboards.aggregate import Cell, Halves
from leaderboards.grid import Grid
from leaderboards.intervals import Difference
from leaderboards.layouts import Layout, Measured
from leaderboards.papers import LAYOUTS
from leaderboards.results import Result, ResultError
from leaderboards.tables import Column, Row, Style
from pipelines.media import atomic_path

ORDER = ("real-halves", "ground-truth")  # then the baselines, then the methods, each by name
SELF = " [emotion video = target: a video prior sees the ground truth]"
COMMON = " [clips that every method has]"
CLUSTERED = (
    "strengths are by centroids; clusters.csv has the pairwise form, the nulls and the digests of the embeddings"
)
KEPT = ("digest", "title", "columns", "metrics")  # of a protocol, without changing a number
AGREE = 1e-5  # between two labs' values of the same videos
MOST_REASONS = 5  # a method, in the Markdown; all of them stand in tidy.csv


@dataclass(frozen=True, slots=True)
class Published:
    """The folder with the tables; the names of the files there; the Markdown; what a person should be told."""

    folder: Path
    files: list[str]
    markdown: str
    remarks: list[str]


@dataclass(frozen=True, slots=True)
class _Results:
    """What was evaluated by a protocol: rows, records by run id, rows of the table, draws of sets, what a person should
    be told."""

    folder: Path
    rows: list[Result]
    runs: dict[str, dict[str, Any]]
    lines: list[Row]
    halves: Halves
    remarks: list[str]

    def cells(self, *, by_group: bool = False) -> list[Cell]:
        try:
            return aggregate.cells(self.rows, by_group=by_group, halves=self.halves)
        except ResultError as error:
            raise BenchError(f"{self.folder}: {error}") from None


def publish(
    protocol: str,
    workspace: Path,
    *,
    others: Sequence[Path] = (),
    common: bool = False,
    style: Style | None = None,
) -> Published:
    """Make the tables of everything that was evaluated by a protocol.

    others   folders of results of the same protocol from elsewhere, as WORKSPACE/results/PROTOCOL
    common   whether each metric counts only the clips that every method has a value for

    Besides the table: tidy.csv (every cell, with its interval), ranks.csv, compared.csv (every method against the best
    one, Holm-corrected within a metric), people.csv (means of each person) and provenance.csv (what stands behind each
    row).

    A damaged result file is left out, with a remark. Raises BenchError when there is nothing to show, when rows
    were made by different versions of the protocol, the test set, the views, an extractor or a metric, or when the
    tables cannot be written.
    """
    style = style or Style()
    found = _results(protocol, workspace, others)
    if not found.rows:
        raise BenchError(f"{found.folder}: no results to show; {_how(protocol)}")
    title = next(iter(found.runs.values()))["protocol"]["title"] + "".join(_signs(found, common))
    if common:
        found = replace(found, rows=aggregate.common(found.rows))
    cells = found.cells()
    columns = _columns(found.runs.values())
    remarks = [*_reasons(cells), *_too_few(cells, style)]
    table = tables.printed(title, cells, columns, found.lines, remarks, style)
    beside = {
        "ranks.csv": tables.ranks(columns, cells, found.lines, style),
        "compared.csv": tables.compared(_compared(found, cells, style)),
        "people.csv": aggregate.people(found.rows),
        "provenance.csv": _provenance([found]),
    }
    tidy = tables.tidy(found.cells(by_group=True))
    return _written(table, tidy, workspace / "tables" / protocol, found.remarks, beside)


def _compared(found: _Results, cells: Sequence[Cell], style: Style) -> dict[str, list[Difference]]:
    """Every ranked method against the best of it, for each clip-level metric."""
    metrics = {name: of for run in found.runs.values() for name, of in run["metrics"].items()}
    who = {row.clip_id: row.identity or "" for row in found.rows if row.clip_id is not None}
    ranked = [line.method for line in found.lines if line.ranked]
    compared: dict[str, list[Difference]] = {}
    for name, of in sorted(metrics.items()):
        scores: dict[str, dict[str, float]] = {}
        for row in found.rows:
            if row.metric == name and row.clip_id is not None and row.value is not None and row.method in ranked:
                scores.setdefault(row.method, {})[row.clip_id] = row.value
        if of["direction"] == "closer-to-real":
            continue  # nearer to a third row is no difference of means
        finite = {c.method for c in cells if c.metric == name and c.value is not None and math.isfinite(c.value)}
        scores = {method: of for method, of in scores.items() if method in finite}
        for conditioning in sorted({line.conditioning for line in found.lines}):
            rivals = [line for line in found.lines if line.ranked and line.conditioning == conditioning]
            best = tables.best(name, of["direction"], cells, rivals, style)
            if best in scores:
                shared = {line.method for line in rivals if scores.get(line.method, {}).keys() & scores[best].keys()}
                sharing = {method: of for method, of in scores.items() if method in shared}
                compared.setdefault(name, []).extend(intervals.differences(sharing, who, best))
    return compared


def _too_few(cells: Sequence[Cell], style: Style) -> list[str]:
    """That there are no intervals, where people are too few for them."""
    few = sorted({cell.people for cell in cells if 0 < cell.people < intervals.FEWEST})
    if not style.intervals or not few:
        return []
    told = f"{few[0]}" if len(few) == 1 else f"{few[0]}-{few[-1]}"
    return [f"{told} people are too few for an interval ({intervals.FEWEST} or more); people.csv has each one's mean"]


def _provenance(founds: Sequence[_Results]) -> str:
    """CSV, a line a method and run: what stands behind its rows."""
    head = ["method", "run_id", "metrics", "protocol", "test_set", "split", "split_digest", "weights", "code", "commit"]
    head += ["device", "hardware", "generated", "generation_seconds", "generation_machines", "ram_mib", "gpu_mib"]
    behind: dict[tuple[str, str], set[str]] = {}
    for row in (row for found in founds for row in found.rows):
        behind.setdefault((row.method, row.run_id), set()).add(f"{row.metric}@{row.metric_version}")
    runs = {run_id: run for found in founds for run_id, run in found.runs.items()}
    lines = [head]
    for (method, run_id), of in sorted(behind.items()):
        run = runs[run_id]
        git, cost, split = run["code"].get("git") or {}, run["generation"] or {}, run["split"] or {}
        commit = f"{git.get('commit', '')}{' (modified)' if git.get('modified') else ''}"
        hardware = "; ".join(f"{key}: {value}" for key, value in sorted(run["hardware"].items()))
        line: list[object] = [method, run_id, " ".join(sorted(of)), run["protocol"]["digest"], run["pairs"]]
        line += [
            split.get("rule"),
            split.get("digest"),
            " ".join(f"{k}:{v}" for k, v in sorted(run["weights"].items())),
        ]
        line += [run["code"].get("version"), commit, run["device"], hardware, cost.get("clips"), cost.get("seconds")]
        line += ["; ".join(cost.get("machines", ())), cost.get("ram_mib"), cost.get("gpu_mib")]
        lines.append(["" if item is None else str(item) for item in line])
    return grid.to_csv(lines)


def publish_layout(
    name: str,
    workspace: Path,
    *,
    protocol: str | None = None,
    published_only: bool = False,
    rated: Path | None = None,
    clustered: Sequence[str] = (),
    others: Sequence[Path] = (),
    common: bool = False,
    style: Style | None = None,
) -> Published:
    """Make a table as a paper lays it out: the paper's own rows, and those that were measured.

    protocol        fills every column instead of the layout's own protocols; the paper's rows, of other clips, are
                    left out
    published_only  whether only the paper's rows are shown
    rated           CSV file of a user study, for the columns that one fills
    clustered       "name=file", reports of `bench clusters --out` (see leaderboards.clusterings): a row each, by
                    centroids; clusters.csv has both forms, their nulls and the digests of the embeddings
    others, common, style   as for `publish`; results from elsewhere fill the groups of their protocol

    Raises BenchError on an unknown layout, on ratings and reports that cannot be read or that the layout has no column
    for, on a `protocol` without results for any column, and as `publish`.
    """
    if name not in LAYOUTS:
        raise BenchError(f"no layout is named {name!r}; {configs.nearest(name, sorted(LAYOUTS))}")
    layout = LAYOUTS[name]
    if rated and not layout.scales:
        raise BenchError(f"--ratings {rated}: no column of {name} is filled by a user study")
    of_clusters = any(column.metric.startswith(clusterings.FAMILY) for column in layout.columns)
    if clustered and not of_clusters:
        raise BenchError(f"--clusters {clustered[0]}: no column of {name} is filled by clustering strength")
    reports = clusters.reports(clustered)
    values = published.load()
    founds: dict[str, _Results] = {}
    remarks: list[str] = []
    measured: dict[str, Measured] = {}
    to = workspace / "tables" / name
    if not published_only:
        if protocol:
            layout, values, to = layouts.over(layout, protocol, protocol), [], to.with_name(f"{name}-{protocol}")
        founds = {group: _results(of, workspace, _of_protocol(of, others)) for group, of in layout.groups.items() if of}
        measured, remarks = _measured(layout, founds, common)
        wanted = {column.metric for column in layout.columns}
        if rated:
            measured = _joined(layout, measured, _ratings(rated, layout), [])
        if reports:
            nulls = [clusterings.null(report, sorted(wanted)) for report in reports]
            cells = [cell for report in reports for cell in clusterings.cells(report)]
            measured = _joined(layout, measured, cells, [*nulls, CLUSTERED])
        if protocol and not any(cell.metric in wanted for found in measured.values() for cell in found.cells):
            raise BenchError(f"no results of {protocol} for any column of {name} to show; {_how(protocol)}")
    table = layouts.fill(layout, values, measured, style)
    beside = {"provenance.csv": _provenance([found for found in founds.values() if found.rows])}
    if of_clusters:
        beside["clusters.csv"] = clusterings.joined(reports)
    return _written(table, layouts.tidy(layout, values, measured), to, remarks, beside)


def _of_protocol(protocol: str, folders: Sequence[Path]) -> list[Path]:
    """Folders with results of a protocol, and those without any, of which _results() complains."""
    read = {folder: {row.protocol for row in submission.read(folder).rows} for folder in folders}
    return [folder for folder, protocols in read.items() if protocol in protocols or not protocols]


def _measured(layout: Layout, founds: Mapping[str, _Results], common: bool) -> tuple[dict[str, Measured], list[str]]:
    """What was measured in each group of a layout's clips, and what a person should be told."""
    measured: dict[str, Measured] = {}
    remarks: list[str] = []
    for group, found in founds.items():
        remarks += found.remarks
        if not found.rows:
            remarks.append(f"{layout.groups[group]}: no results yet; {_how(layout.groups[group])}")
            continue
        notes = [f"{group or layout.groups[group]}:{sign}" for sign in _signs(found, common)]
        of = replace(found, rows=aggregate.common(found.rows)) if common else found
        measured[group] = Measured(of.cells(), of.lines, notes)
    return measured, remarks


def _ratings(path: Path, layout: Layout) -> list[Cell]:
    try:
        return ratings.read(path, layout.scales)
    except ResultError as error:
        raise BenchError(str(error)) from None


def _joined(
    layout: Layout, measured: Mapping[str, Measured], cells: Sequence[Cell], notes: Sequence[str]
) -> dict[str, Measured]:
    """What was measured, with cells of a study or of an embedding in the first group of the layout."""
    group = next(iter(layout.groups))
    before = measured.get(group, Measured((), ()))
    known = {row.method for row in before.rows}
    # Of a method that was only rated nothing else is known: it is ranked with the others where they are alike.
    conditioning = {row.conditioning for row in before.rows if row.ranked}
    alike = conditioning.pop() if len(conditioning) == 1 else ""
    names = dict.fromkeys(cell.method for cell in cells if cell.method not in known)
    references = _references()
    new = [Row(method, method, method not in references, alike) for method in names]
    joined = Measured([*before.cells, *cells], [*before.rows, *new], [*before.notes, *notes])
    return {**measured, group: joined}


def _references() -> set[str]:
    """Names of rows that are never ranked, for results of which only the name is known."""
    shipped = {name: tomllib.loads(path.read_text("utf-8")) for name, path in configs.shipped("methods").items()}
    return {*ORDER, *(name for name, of in shipped.items() if of.get("kind") == "baseline")}


def _signs(found: _Results, common: bool) -> list[str]:
    """What the title of a table of these results must say."""
    asked = next(iter(found.runs.values()))["protocol"]
    own = [SELF] if asked["pairing"].get("emotion_video") == "self" else []
    return [*own, *([COMMON] if common else [])]


def _how(protocol: str) -> str:
    return f"`bench eval --method NAME --protocol {protocol}` makes them"


def _results(protocol: str, workspace: Path, others: Sequence[Path] = ()) -> _Results:
    if not configs.NAME.fullmatch(protocol):
        raise BenchError(f"--protocol {protocol!r} must be a name, or the path of a TOML file")
    own = workspace / "results" / protocol
    rows: list[Result] = []
    records: dict[str, Mapping[str, Any]] = {}
    halves: dict[tuple[str, str], Sequence[float]] = {}
    remarks: list[str] = []
    for folder in (own, *others):
        found = submission.read(folder)
        for name, (first, *more) in found.faults.items():
            told = f" (and {len(more)} more; `bench leaderboard verify {folder}`)" if more else ""
            remarks.append(f"left out: {folder / name}: {first}{told}")
        if not found.rows and (folder != own or found.faults):
            why = "; ".join(remarks) or "expected a folder of .parquet files with runs/ beside them"
            raise BenchError(f"{folder}: no results there that can be used; {why}")
        taken = _merged(rows, records, found, remarks)
        rows += taken
        records |= {row.run_id: found.records[row.run_id] for row in taken}
        halves |= {key: found.halves[key] for row in taken if (key := (row.method, row.metric)) in found.halves}
    foreign = [row for row in rows if row.protocol != protocol]
    if foreign:
        raise BenchError(f"{foreign[0].method} was scored by protocol {foreign[0].protocol}, not {protocol}")
    for problem in submission.people_differ(rows):
        raise BenchError(problem)
    runs = {run_id: _run(record) for run_id, record in records.items()}
    methods = {row.run_id: row.method for row in rows}
    _refuse_different(methods, runs)
    return _Results(own, rows, runs, _lines(rows, runs), halves, remarks + _devices(methods, runs))


def _merged(
    rows: Sequence[Result], records: Mapping[str, Mapping[str, Any]], found: Submitted, remarks: list[str]
) -> list[Result]:
    """The rows of a further folder that are new. References and baselines that several labs have scored are taken
    once, if their values agree; raises BenchError for any other method of the same name with other values."""
    before = {(row.method, row.metric, row.clip_id): row for row in rows}
    record_of = {row.method: records[row.run_id] for row in rows}
    fresh: list[Result] = []
    again: set[str] = set()
    for row in found.rows:
        known = record_of.get(row.method)
        if known is None:
            fresh.append(row)
            continue
        theirs = found.records[row.run_id]["method"]
        fields = [
            key for key in ("title", "kind", "conditioning", "driven_by") if known["method"].get(key) != theirs.get(key)
        ]
        if fields:
            raise BenchError(f"two methods are named {row.method}: their {', '.join(fields)} differ; rename one")
        one = before.get((row.method, row.metric, row.clip_id))
        if one is None:
            fresh.append(row)
        elif not _agree(one, row):
            where = f"{row.metric}, {row.clip_id or 'the set'}"
            raise BenchError(
                f"{row.method}: {where} is {one.value if one.error is None else one.error!r} here and "
                f"{row.value if row.error is None else row.error!r} in {found.folder}; rename one, or leave it out"
            )
        else:
            again.add(row.method)
    if again:
        remarks.append(f"{', '.join(sorted(again))}: scored in {found.folder} too, with the same values; taken once")
    return fresh


def _agree(one: Result, other: Result) -> bool:
    if one.value is None or other.value is None:
        return one.error == other.error
    return one.value == other.value or math.isclose(one.value, other.value, rel_tol=AGREE, abs_tol=AGREE)


def _written(
    table: Grid, tidy: str, to: Path, remarks: list[str], beside: Mapping[str, str] | None = None
) -> Published:
    """The table in every format, in its folder, and other files by name."""
    writable(to)
    markdown = grid.markdown(table)
    files = {
        "tidy.csv": tidy,
        "table.csv": grid.printed_csv(table),
        "table.md": markdown,
        "table.tex": grid.latex(table),
        **(beside or {}),
    }
    for name, text in files.items():
        with writing(to), atomic_path(to / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return Published(to, list(files), markdown, remarks)


def _run(record: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a run's record that the table rests on."""
    return {
        "protocol": dict(record["protocol"]),
        "method": {
            **{key: record["method"][key] for key in ("title", "kind")},
            **{key: str(record["method"].get(key, "")) for key in ("conditioning", "driven_by")},
        },
        "metrics": {
            name: {key: metric[key] for key in ("label", "direction", "digits", "version")}
            for name, metric in record["metrics"].items()
        },
        "extractors": dict(record["extractors"]),
        **{key: record[key] for key in ("pairs", "views", "device")},
        **{key: dict(record.get(key) or {}) for key in ("code", "weights", "hardware", "split", "generation")},
    }


def _refuse_different(methods: Mapping[str, str], runs: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise BenchError where two runs (method by run id) differ in what must be the same for all rows of a table."""
    seen: dict[str, tuple[str, Any]] = {}
    first_run: dict[str, Mapping[str, Any]] = {}
    for run_id, method in methods.items():
        run = runs[run_id]
        for what, here in (
            ("protocol", run["protocol"]["digest"]),
            ("test set", run["pairs"]),
            ("views", run["views"]),
            *((f"extractor {name}", identity) for name, identity in run["extractors"].items()),
            *((f"metric {name}", identity) for name, identity in run["metrics"].items()),
        ):
            first, there = seen.setdefault(what, (method, here))
            if here != there:
                fields = _fields(what, run, first_run[first])
                raise BenchError(
                    f"{method} and {first} were scored with different versions of the {what} "
                    f"({_short(here)}, {_short(there)}){fields}; evaluate the older one again"
                )
            first_run.setdefault(method, run)


def _fields(what: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Which fields of the protocol differ; nothing is known of the others than that they do."""
    if what != "protocol":
        return ""
    here, there = one["protocol"], other["protocol"]
    names = sorted(k for k in here.keys() | there.keys() if k not in KEPT and here.get(k) != there.get(k))
    return f", in {', '.join(f'{k} ({here.get(k)} and {there.get(k)})' for k in names)}" if names else ""


def _short(version: Any) -> str:
    return version[:8] if isinstance(version, str) and "@" not in version else str(version)


def _devices(methods: Mapping[str, str], runs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    used: dict[str, list[str]] = {}
    for run_id, method in methods.items():
        used.setdefault(runs[run_id]["device"], []).append(method)
    if len(used) < 2:
        return []
    told = "; ".join(f"{device}: {', '.join(names)}" for device, names in sorted(used.items()))
    return [f"networks ran on different devices ({told}); last digits may differ for that reason"]


def _lines(rows: Sequence[Result], runs: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    methods = {row.method: runs[row.run_id]["method"] for row in rows}

    def place(name: str) -> tuple[int, str]:
        if name in ORDER:
            return ORDER.index(name), name
        return len(ORDER) + (methods[name]["kind"] != "baseline"), name

    return [
        Row(name, of["title"], of["kind"] != "baseline", of["conditioning"], of["driven_by"])
        for name in sorted(methods, key=place)
        for of in [methods[name]]
    ]


def _columns(runs: Sequence[Mapping[str, Any]] | Any) -> list[Column]:
    """Columns in the protocol's order, headed as the metrics were when they were computed."""
    metrics: dict[str, Any] = {}
    shown: Sequence[str] = ()
    for run in runs:
        metrics |= run["metrics"]
        shown = run["protocol"]["columns"] or run["protocol"]["metrics"]
    return [
        Column(name, metrics[name]["label"], metrics[name]["direction"], metrics[name]["digits"])
        for name in shown
        if name in metrics
    ]


def _reasons(cells: Sequence[Cell]) -> list[str]:
    """Why cells are empty or rest on fewer clips: one line a method and reason, naming the metrics. Reasons that
    differ in their numbers only are told once, by the first of them."""
    found: dict[tuple[str, str], dict[str, int]] = {}
    first: dict[tuple[str, str], str] = {}
    for cell in cells:
        for reason, count in cell.reasons:
            key = cell.method, re.sub(r"\d[\d.e+-]*", "#", reason)
            first[key] = min(first.get(key, reason), reason)
            counts = found.setdefault(key, {})
            counts[cell.metric] = counts.get(cell.metric, 0) + count
    remarks: list[str] = []
    told: Counter[str] = Counter()
    for key, counts in sorted(found.items(), key=lambda item: (item[0][0], -max(item[1].values()), item[0][1])):
        told[key[0]] += 1
        if told[key[0]] <= MOST_REASONS:
            which = next(iter(counts)) if len(counts) == 1 else f"{len(counts)} metrics"
            remarks.append(f"{key[0]}, {which}, {max(counts.values())}x: {first[key]}")
    remarks += [f"{m}: {n - MOST_REASONS} more reasons in tidy.csv" for m, n in told.items() if n > MOST_REASONS]
    return remarks
