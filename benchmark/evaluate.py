"""Scores videos against a protocol: extracts what is missing, reduces, writes result rows and the run's record."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmark import configs, engine, extraction, generate, matching, protocol, provenance, replicates, trained
from benchmark.errors import BenchError, writable, writing
from benchmark.extraction import Extracted, Item, Need
from benchmark.features import Key, Store
from benchmark.generate import Made, Method
from benchmark.protocol import Pair, Protocol
from benchmark.views import MADE, SURVEY, Source
from leaderboards import results
from leaderboards.results import Result
from metrics import base
from metrics.base import ASKED, Features, Metric, MetricError, Replicates, Table
from pipelines.datasets import printable
from pipelines.manifest import Clip
from pipelines.media import atomic_path

FLOOR = "real-halves"  # reserved name of the row that shows what a set-level metric gives for real against real

Score = tuple[Metric, Pair | None, float | str, int, int]  # pair or whole set, value or reason, n used, n expected


@dataclass(frozen=True, slots=True)
class Settings:
    """How to evaluate. Neither `workers` nor `metrics` can change a row.

    metrics  what to compute, other rows of the method stay as they are; empty: the protocol's metrics
    """

    workers: int = 1
    device: str = "cpu"
    allow_partial: bool = False
    metrics: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """A pair and the video to score it by; without a video, the reason. `made`: what generation recorded."""

    pair: Pair
    video: Path | None
    error: str | None = None
    made: Made | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was written, and what a person should be told about it."""

    path: Path
    rows: list[Result]
    remarks: list[str]


@dataclass(frozen=True, slots=True)
class _Beside:
    """What is written beside the rows. By metric: draws of a set's value, and a table of details. And what it cost to
    generate the videos, where they were generated here."""

    worth: dict[str, Replicates] = field(default_factory=dict)
    details: dict[str, Table] = field(default_factory=dict)
    generation: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class _Run:
    """What all scores of one evaluation share."""

    method: Method
    asked: Protocol
    workspace: Path
    settings: Settings
    metrics: tuple[Metric, ...]
    plan: extraction.Plan
    unavailable: Mapping[str, str]
    started: float

    def why_unavailable(self, metric: Metric) -> str | None:
        return next((self.unavailable[name] for _, name in metric.needs if name in self.unavailable), None)


def chosen(words: str) -> tuple[str, ...]:
    """The metrics that a comma-separated list names: "all", a metric, or a family ("fid") with all its variants.

    Raises BenchError for a word that is none of them, with the nearest.
    """
    names = base.names()
    families = {name.partition("/")[0] for name in names}
    found: dict[str, None] = {}
    for word in filter(None, (word.strip() for word in words.split(","))):
        if word != "all" and word not in names and word not in families:
            hint = configs.nearest(word, [*sorted(families), *names])
            raise BenchError(f"--metrics {word!r} is no metric and no family; {hint}")
        found |= dict.fromkeys(name for name in names if word in ("all", name, name.partition("/")[0]))
    if not found:
        raise BenchError(f"--metrics {words!r} names nothing; expected all, or names as in `bench metrics list`")
    return tuple(found)


def evaluate_method(method_name: str, asked: Protocol, workspace: Path, settings: Settings) -> Evaluation:
    """Generate what is missing, score it, and score the noise floor. Raises BenchError as generate() and evaluate()."""
    method, entries = method_entries(method_name, asked, workspace, settings)
    done = evaluate(entries, method, asked, workspace, settings)
    # Afterwards: what it needs of the real clips is mostly stored now.
    real_halves([entry.pair for entry in entries], asked, workspace, settings)
    return done


def method_entries(
    method_name: str, asked: Protocol, workspace: Path, settings: Settings
) -> tuple[Method, list[Entry]]:
    """What a method made of each pair; generates what is missing. Raises BenchError as generate()."""
    method = generate.load_method(method_name, workspace)
    _refuse_floor(method.name)
    members = protocol.members(asked, workspace)
    _writable(asked, workspace)
    made = generate.generate(method, asked, workspace, workers=settings.workers, device=settings.device)
    folder = generate.folder(method.name, asked, workspace)
    entries = []
    for pair in members:
        one = made[pair.pair_id]
        video = None if one.error else folder / f"{pair.pair_id}.mp4"
        entries.append(Entry(pair, video, f"not generated: {one.error}" if one.error else None, one))
    return method, entries


def evaluate_videos(videos: Path, name: str, asked: Protocol, workspace: Path, settings: Settings) -> Evaluation:
    """Score a folder of anybody's videos; its remarks begin with what matched. Raises BenchError as video_entries()
    and evaluate()."""
    method, entries, matched = video_entries(videos, name, asked, workspace)
    done = evaluate(entries, method, asked, workspace, settings)
    real_halves([entry.pair for entry in entries], asked, workspace, settings)
    return replace(done, remarks=[matched, *done.remarks])


def video_entries(videos: Path, name: str, asked: Protocol, workspace: Path) -> tuple[Method, list[Entry], str]:
    """A folder of anybody's videos as a method, the video of each pair, and what matched.

    Raises BenchError for a name that cannot be a file name or is one of the package's methods, and when no file
    matches.
    """
    if not configs.NAME.fullmatch(name):
        raise BenchError(f"--name {name!r} must be letters, digits and . _ + - (it becomes a file name)")
    _refuse_floor(name)
    if name in configs.available("methods", workspace):
        raise BenchError(f"--name {name!r} is a method of its own (`bench methods show {name}`); choose another")
    members = protocol.members(asked, workspace)
    matched = matching.match([pair.pair_id for pair in members], matching.videos(videos))
    if not matched.found:
        raise BenchError(
            f"{printable(videos)}: no video is named after a pair of protocol {asked.name} (such as "
            f"{members[0].pair_id}.mp4); `bench protocol export {asked.name} --to DIR` writes the ids"
        )
    _writable(asked, workspace)
    entries = []
    for pair in members:
        files = ", ".join(printable(path.name) for path in matched.ambiguous.get(pair.pair_id, ()))
        reason = f"ambiguous, several videos fit: {files}" if files else "no video was given for this pair"
        video = matched.found.get(pair.pair_id)
        entries.append(Entry(pair, video, None if video else reason))
    method = Method(name, name, generator="", licence="", conditioning=asked.conditioning)
    return method, entries, matched.report()


def _refuse_floor(name: str) -> None:
    if name == FLOOR:
        raise BenchError(f"the name {FLOOR!r} is reserved for the noise floor; choose another")


def _writable(asked: Protocol, workspace: Path) -> None:
    writable(workspace / "results" / asked.name)
    writable(workspace / "features")


def evaluate(
    entries: Sequence[Entry], method: Method, asked: Protocol, workspace: Path, settings: Settings
) -> Evaluation:
    """Score every entry by every metric that is asked for and write results/<protocol>/<method>.parquet.

    Nothing is dropped: a clip or a metric that cannot be scored is a row with its reason. A set-level metric
    refuses a set with missing clips, unless told to; n_used tells. Rows do not depend on the number of workers.
    Rows of other metrics stay, as long as they are of the same videos and the same protocol.

    Raises BenchError for an unknown metric, and when features or rows cannot be written.
    """
    scores = _metrics(asked, settings)
    needs = [need for metric in scores for need in metric.needs if need != ASKED]
    run = _start(method, asked, workspace, settings, scores, needs)
    found = _extract(run, entries)
    rows, beside = _scores(run, entries, found)
    beside = replace(beside, generation=generate.cost(entry.made for entry in entries if entry.made))
    return _write(run, [entry.pair for entry in entries], found, rows, beside)


def measure(
    entries: Sequence[Entry],
    method: Method,
    asked: Protocol,
    workspace: Path,
    settings: Settings,
    options: Mapping[str, Any] | None = None,
) -> tuple[list[Score], dict[str, Replicates]]:
    """The scores that evaluate() would write, and the draws of each set-level metric; only features are stored.

    options   of ExtractorSpec, besides those that the protocol sets; hashable values
    """
    scores = _metrics(asked, settings)
    needs = [need for metric in scores for need in metric.needs if need != ASKED]
    run = _start(method, asked, workspace, settings, scores, needs)
    run = replace(run, plan=replace(run.plan, options={**run.plan.options, **(options or {})}))
    rows, beside = _scores(run, entries, _extract(run, entries))
    return rows, beside.worth


def _scores(run: _Run, entries: Sequence[Entry], found: Mapping[str, Extracted]) -> tuple[list[Score], _Beside]:
    """Every score of the run's metrics, and what is to stand beside the rows."""
    rows: list[Score] = []
    beside = _Beside()
    for metric in run.metrics:
        scored = [e.pair for e in entries if metric.emotions is None or e.pair.emotion in metric.emotions]
        everyone = [found[pair.pair_id] for pair in scored]
        columns = [(everyone, need) for need in metric.needs]
        made: list[Score] = []
        if metric.level == "clip":
            for pair in scored:
                value = _clip_score(run, metric, pair, found[pair.pair_id])
                made.append((metric, pair, value, int(isinstance(value, float)), 1))
        elif scored:
            made = [(metric, None, *_set_score(run, metric, scored, columns))]
        rows += made
        if any(isinstance(value, float) for _, _, value, _, _ in made):
            if metric.replicates is not None:
                beside.worth[metric.name] = _replicates(run, metric, metric.replicates, _given(scored, columns))
            if metric.details is not None:
                beside.details[metric.name] = _details(run, metric.details, scored, columns)
    return rows, beside


def real_halves(members: Sequence[Pair], asked: Protocol, workspace: Path, settings: Settings) -> Evaluation | None:
    """The noise floor: each set-level metric of generated against real clips, between two disjoint halves of the
    real ones. None if the protocol has no such metric or no real clips, or if the very same floor was written before.
    """
    scores = [
        metric
        for metric in _metrics(asked, settings)
        if metric.level == "set" and {side for side, _ in metric.needs} == {"generated", "real"}
    ]
    if not scores or any(pair.target.still for pair in members):
        return None
    one, other = split_halves(members, asked.seed)
    title = f"Real against real (disjoint halves of {len(one)} and {len(other)} clips)"
    needs: list[Need] = [("real", name) for metric in scores for _, name in metric.needs]
    method = Method(FLOOR, title, generator="", licence="", kind="baseline")
    run = _start(method, asked, workspace, settings, scores, needs)
    if _written(run, members):
        return None
    found = _extract(run, [Entry(pair, None) for pair in members])
    side = {"generated": [found[p.pair_id] for p in one], "real": [found[p.pair_id] for p in other]}
    rows: list[Score] = []
    for metric in scores:
        columns: list[tuple[Sequence[Extracted], Need]] = [(side[s], ("real", name)) for s, name in metric.needs]
        rows.append((metric, None, *_set_score(run, metric, (), columns)))
    return _write(run, members, found, rows, _Beside())


def _written(run: _Run, members: Sequence[Pair]) -> bool:
    """Whether the rows of these metrics stand already, from the same code, protocol, test set and weights."""
    wanted = json.loads(json.dumps(_contents(run, members, {})))
    parts = ("metrics", "extractors", "weights")

    def same(record: Mapping[str, Any]) -> bool:
        return all(
            value.items() <= record.get(key, {}).items() if key in parts else record.get(key) == value
            for key, value in wanted.items()
            if key != "clips"
        )

    standing = {row.metric for row, record in _recorded(run) if row.error is None and same(record)}
    return standing >= {metric.name for metric in run.metrics}


def _recorded(run: _Run) -> list[tuple[Result, Mapping[str, Any]]]:
    """The rows that this method has, each with the record of its run; none of them where one is damaged."""
    folder = run.workspace / "results" / run.asked.name
    try:
        rows = results.read(folder / f"{run.method.name}.parquet")
        records = {
            run_id: json.loads((folder / "runs" / f"{run_id}.json").read_text(encoding="utf-8"))
            for run_id in {row.run_id for row in rows}
        }
        return [(row, records[row.run_id]) for row in rows if isinstance(records[row.run_id], dict)]
    except (results.ResultError, OSError, ValueError):
        return []


def split_halves(members: Sequence[Pair], seed: int) -> tuple[list[Pair], list[Pair]]:
    """Two disjoint halves with the same share of each emotion (to within one clip), whatever the order given."""
    order = sorted(members, key=lambda p: (p.emotion, protocol.seeded(seed, "halves", p.pair_id)))
    return order[0::2], order[1::2]


def _metrics(asked: Protocol, settings: Settings) -> list[Metric]:
    try:
        return [base.metric(name) for name in settings.metrics or asked.metrics]
    except KeyError as error:
        raise BenchError(f"protocol {asked.name}: {error.args[0]}") from None


def _start(
    method: Method,
    asked: Protocol,
    workspace: Path,
    settings: Settings,
    scores: Sequence[Metric],
    needs: Iterable[Need],
) -> _Run:
    engine.check_device(settings.device)
    plan, unavailable = extraction.plan(needs, asked, workspace / "features", settings.device)
    return _Run(method, asked, workspace, settings, tuple(scores), plan, unavailable, time.perf_counter())


def _extract(run: _Run, entries: Sequence[Entry]) -> dict[str, Extracted]:
    data = protocol.folder(run.asked, run.workspace)

    def source(clip: Clip) -> Source:
        return Source(data / clip.video, clip.sha256, data / clip.audio, clip.audio_sha256)

    items = [
        Item(
            pair_id=e.pair.pair_id,
            video=e.video,
            real=source(e.pair.target),
            num_frames=e.pair.target.num_frames,
            still=e.pair.target.still,
            reference=source(e.pair.reference) if e.pair.reference else None,
        )
        for e in entries
        if e.error is None
    ]
    found = extraction.run(run.plan, items, run.settings.workers, f"evaluate {run.method.name}")
    every = {e.pair.pair_id: found.get(e.pair.pair_id) or Extracted(e.pair.pair_id, error=e.error) for e in entries}
    trained.refuse(run.plan, [e.pair for e in entries], every)
    return every


def _asked(pair: Pair) -> Features:
    """The features of the need ASKED."""
    return {"emotion": np.array(pair.emotion), "identity": np.array(pair.target.identity)}


def _clip_score(run: _Run, metric: Metric, pair: Pair, found: Extracted) -> float | str:
    """The value, or the reason why there is none."""
    extracted = [need for need in metric.needs if need != ASKED]
    problem = run.why_unavailable(metric) or next(filter(None, map(found.problem, extracted)), None)
    return problem or _compute(
        run, metric, [_asked(pair) if need == ASKED else found.keys[need] for need in metric.needs]
    )


Columns = Sequence[tuple[Sequence[Extracted], Need]]  # for each need of a metric, the clips


def _set_score(run: _Run, metric: Metric, pairs: Sequence[Pair], columns: Columns) -> tuple[float | str, int, int]:
    """(value or reason, n used, n expected) of a metric over, for each of its needs, the features of some clips;
    `pairs` are those of the clips, for the need ASKED."""
    everyone = {clip.pair_id for clips, _ in columns for clip in clips}
    unavailable = run.why_unavailable(metric)
    if unavailable:
        return unavailable, 0, len(everyone)
    lost = _lost(columns)
    if lost and (not run.settings.allow_partial or len(lost) == len(everyone)):
        (why, count), *_ = sorted(Counter(lost.values()).items(), key=lambda item: (-item[1], item[0]))
        which = min(pair_id for pair_id, reason in lost.items() if reason == why)
        named = f"{which}: {why}" if count == 1 else f"{count}x {why}, {which} the first"
        advice = "" if len(lost) == len(everyone) else "; --allow-partial scores the others"
        return f"{len(lost)} of {len(everyone)} clips cannot be used ({named}){advice}", 0, len(everyone)
    value = _compute(run, metric, _given(pairs, columns))
    return value, len(everyone) - len(lost) if isinstance(value, float) else 0, len(everyone)


def _lost(columns: Columns) -> dict[str, str]:
    """Why clips of a set cannot be used, by pair id."""
    return {c.pair_id: why for clips, need in columns if need != ASKED for c in clips if (why := c.problem(need))}


Given = Key | Features  # stored features, or what the need ASKED is given


def _given(pairs: Sequence[Pair], columns: Columns) -> list[Sequence[Given]]:
    """What a set-level metric is given of the clips that can be used."""
    asked, lost = {pair.pair_id: _asked(pair) for pair in pairs}, _lost(columns)
    return [
        [asked[clip.pair_id] if need == ASKED else clip.keys[need] for clip in clips if clip.pair_id not in lost]
        for clips, need in columns
    ]


def _load(run: _Run, given: Given) -> Features:
    if not isinstance(given, Key):
        return given
    features = Store(run.plan.store).get(given)
    if features is None:
        raise MetricError("stored features vanished or were damaged while scoring; evaluate again")
    return features


def _replicates(
    run: _Run, metric: Metric, of: Callable[..., Replicates], given: Iterable[Sequence[Given]]
) -> Replicates:
    """What a value is worth, with a seed that all methods share: their draws are of the same clips."""
    seed = protocol.seeded(run.asked.seed, "replicates")
    try:
        return of(seed, *(partial(map, partial(_load, run), one) for one in given))
    except MetricError as error:
        raise BenchError(f"{metric.name}: {error}") from None


def _details(run: _Run, of: Callable[..., Table], pairs: Sequence[Pair], columns: Columns) -> Table:
    """The table of a metric's details over the clips that can be used."""
    lost = _lost(columns)
    ids = [pair.pair_id for pair in pairs if pair.pair_id not in lost]
    return of(ids, *(map(partial(_load, run), one) for one in _given(pairs, columns)))


def _compute(run: _Run, metric: Metric, given: Sequence[Given | Sequence[Given]]) -> float | str:
    load = partial(_load, run)
    try:
        # A set goes in clip by clip: its features are never all in memory.
        arguments = [map(load, one) if isinstance(one, Sequence) else load(one) for one in given]
        value = float(metric.compute(*arguments))
    except MetricError as error:
        return " ".join(str(error).split())
    return "the score is NaN: its inputs are degenerate" if math.isnan(value) else value


def _write(
    run: _Run,
    members: Sequence[Pair],
    found: Mapping[str, Extracted],
    scores: Iterable[Score],
    beside: _Beside,
) -> Evaluation:
    """Rows, what stands beside them and the record of the run; the rows last, so that what they name is there."""
    contents = _contents(run, members, found)
    identifier = provenance.run_id(contents)
    rows = [
        Result(
            method=run.method.name,
            dataset=run.asked.dataset,
            protocol=run.asked.name,
            metric=metric.name,
            metric_version=metric.version,
            clip_id=pair.pair_id if pair else None,
            identity=pair.target.identity if pair else None,
            group=pair.emotion if pair else None,
            value=value if isinstance(value, float) else None,
            error=value if isinstance(value, str) else None,
            n_used=n_used,
            n_expected=n_expected,
            replicates=replicates.file_name(run.method.name, metric.name) if metric.name in beside.worth else None,
            run_id=identifier,
        )
        for metric, pair, value, n_used, n_expected in scores
    ]
    folder = run.workspace / "results" / run.asked.name
    circumstances = {
        "hardware": provenance.hardware(run.settings.device),
        "workers": run.settings.workers,
        "seconds": round(time.perf_counter() - run.started, 2),
        "generation": beside.generation,
    }
    path = folder / f"{run.method.name}.parquet"
    stay, replaced = _others(run, contents)
    with writing(folder):
        provenance.write(folder / "runs", identifier, contents, circumstances)
        for metric in run.metrics:
            draws = folder / replicates.file_name(run.method.name, metric.name)
            table = folder / "details" / run.method.name / f"{metric.name.replace('/', '_')}.csv"
            draws.unlink(missing_ok=True)
            table.unlink(missing_ok=True)
            if metric.name in beside.worth:
                replicates.write(beside.worth[metric.name], draws)
            if metric.name in beside.details:
                _write_csv(beside.details[metric.name], table)
        results.write([*rows, *stay], path)
    warnings = [
        replicates.remark(metric, beside.worth[metric.name]) for metric in run.metrics if metric.name in beside.worth
    ]
    remarks = [*_remarks(run.plan, found.values()), *filter(None, warnings)]
    if replaced:
        remarks.append(
            f"rows of {len(replaced)} other metrics ({replaced[0]}, ...) were of other videos, another protocol or "
            "another test set, and are gone; --metrics computes them again"
        )
    if beside.details:
        remarks.append(f"details of {', '.join(beside.details)} are in {folder / 'details' / run.method.name}")
    return Evaluation(path, rows, remarks)


def _others(run: _Run, contents: Mapping[str, Any]) -> tuple[list[Result], list[str]]:
    """(rows of metrics that this run does not compute and that hold for what it has scored, names of those that do
    not hold)."""
    now = json.loads(json.dumps(contents))
    names = {metric.name for metric in run.metrics}

    def holds(record: Mapping[str, Any]) -> bool:
        return _scored(record) == _scored(now)

    rows = [(row, holds(record)) for row, record in _recorded(run) if row.metric not in names]
    return [row for row, good in rows if good], sorted({row.metric for row, good in rows if not good})


def _scored(record: Mapping[str, Any]) -> list[Any]:
    """What was scored, of the record of a run: two runs of equal things may stand in one file."""
    clips = record.get("clips", {})
    return [
        record.get("protocol", {}).get("digest"),
        *(record.get(key) for key in ("pairs", "method", "views")),
        {name: clip.get("sha256") for name, clip in clips.items()},
    ]


def _write_csv(table: Table, path: Path) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(table)
    with atomic_path(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def _contents(run: _Run, members: Sequence[Pair], found: Mapping[str, Extracted]) -> dict[str, Any]:
    """Everything that determines the rows, and how the table shows them."""
    asked, plan = run.asked, run.plan
    return {
        "code": provenance.code(),
        "device": run.settings.device,
        "allow_partial": run.settings.allow_partial,
        "protocol": {**asdict(asked), "digest": asked.digest},
        "pairs": protocol.pairs_digest(members),
        "split": protocol.split_of(asked, run.workspace),
        "method": generate.described(run.method),
        "metrics": {
            m.name: {
                "version": m.version,
                "label": m.label,
                "direction": m.direction,
                "digits": m.digits,
                "unit": m.unit,
                "source": m.source,
                "emotions": m.emotions,
            }
            for m in run.metrics
        },
        "extractors": {name: plan.extractor(name).id for name in sorted(plan.weights)},
        "weights": {name: w.sha256 for files in plan.weights.values() for name, w in files.items()},
        "views": [SURVEY, MADE],
        "clips": {
            clip.pair_id: {
                "sha256": clip.sha256,
                "num_frames": clip.num_frames,
                "lengths": clip.lengths,
                "own_sound": clip.own_sound,
                "framing": clip.framing and asdict(clip.framing),
                "error": clip.error,
            }
            for clip in found.values()
        },
    }


def _remarks(plan: extraction.Plan, found: Iterable[Extracted]) -> list[str]:
    clips = sorted(found, key=lambda clip: clip.pair_id)
    remarks = [line for clip in clips for line in clip.damaged]
    device = plan.options["device"]
    moved = [name for name in sorted(plan.weights) if getattr(plan.extractor(name), "device", device) != device]
    if moved:
        remarks.append(f"{', '.join(moved)} ran on the CPU: the installed runtime cannot use {device}")
    framed = [clip.pair_id for clip in clips if clip.framing and clip.framing.differs]
    if framed:
        remarks.append(
            f"{len(framed)} of {len(clips)} clips are framed otherwise than the real ones ({framed[0]}, ...): image "
            "metrics measure the framing too; a protocol with eval_crop = 'common-detector' removes it"
        )
    cut = sum(clip.lengths is not None and clip.lengths[0] != clip.lengths[1] for clip in clips if not clip.error)
    if cut:
        remarks.append(f"{cut} of {len(clips)} clips differ in length from the real ones; the common prefix counts")
    silent = sum(clip.own_sound is False for clip in clips)
    if silent:
        remarks.append(f"{silent} of {len(clips)} videos have no sound track; the driving sound stands in")
    return remarks
