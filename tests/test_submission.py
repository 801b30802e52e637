"""What stands around a table: intervals, comparisons, other labs' rows, provenance; what is submitted is checked."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from runs import recorded, write_run

from benchmark import replicates
from benchmark.cli import bench
from benchmark.errors import BenchError
from benchmark.publish import publish
from benchmark.submission import verify
from leaderboards import aggregate, results
from leaderboards.intervals import differences, mean_interval, set_interval
from leaderboards.results import Result
from leaderboards.tables import Style
from metrics.base import Replicates

PSNR, FID, LAG = "psnr/frame-mean", "fid/x", "lag/x"
DIRECTION = {PSNR: ("PSNR", "higher", 2), FID: ("FID", "lower", 2), LAG: ("Lag", "closer-to-real", 1)}
METRICS = {
    name: {"label": label, "direction": direction, "digits": digits, "version": 1, "emotions": None}
    for name, (label, direction, digits) in DIRECTION.items()
}
CLIPS = [f"p{k // 3:02}_{k % 3}" for k in range(36)]  # three of each of twelve people
BEST, WORSE = 30.0, 29.0


def values(seed: int, mean: float, count: int = 36) -> dict[str, float]:
    return dict(zip(CLIPS, (mean + np.random.default_rng(seed).normal(0, 0.5, count)).tolist(), strict=False))


def rows_of(method: str, scores: dict[str, float], fid: float = 5.0, lag: float = 0.0) -> list[Result]:
    one = Result(method, "d", "p", PSNR, 1, None, None, None, None, None, 1, 1, None, "")
    rows = [
        replace(
            one,
            clip_id=clip,
            identity=clip[:3],
            group="happy",
            value=scores.get(clip),
            error=None if clip in scores else "no face",
            n_used=int(clip in scores),
        )
        for clip in CLIPS
    ]
    rows += [replace(row, metric=LAG, value=lag, error=None, n_used=1) for row in rows]
    draws = replicates.file_name(method, FID)
    return [*rows, replace(one, metric=FID, value=fid, n_used=36, n_expected=36, replicates=draws)]


def write(
    folder: Path, name: str, scores: dict[str, float], fid: float = 5.0, lag: float = 0.0, **changes: Any
) -> Path:
    """Rows, draws and the record of a run of a method, as eval writes them; `changes` of the record. Its path."""
    rows = rows_of(name, scores, fid, lag)
    kind = "baseline" if name == "ground-truth" else "method"
    record = recorded(rows, METRICS) | {"method": {"name": name, "title": name.title(), "kind": kind}} | changes
    values = np.random.default_rng(0).normal(fid + 1, 0.2, 20)
    halves = np.array([18] * 12 + [9] * 8)
    replicates.write(Replicates(36, halves, halves, values, None), folder / replicates.file_name(name, FID))
    cost = {"clips": 36, "seconds": 7.5, "machines": ["GPU"], "ram_mib": 900, "gpu_mib": 5000}
    return write_run(folder, rows, record, generation=cost)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "results" / "p"
    write(folder, "ours", values(1, BEST), fid=4.0, lag=1.0)
    write(folder, "theirs", values(2, WORSE), fid=6.0, lag=-3.0)
    write(folder, "ground-truth", values(3, 40.0), fid=1.0)
    return tmp_path


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_tables_carry_their_intervals(workspace: Path) -> None:
    done = publish("p", workspace, style=Style(intervals=True))
    scores = values(1, BEST)
    wanted = mean_interval(list(scores.values()), [clip[:3] for clip in scores])
    assert wanted is not None
    tidy = {(r["method"], r["metric"], r["group"]): r for r in lines(done.folder / "tidy.csv")}
    ours = tidy["ours", PSNR, "all"]
    assert (float(ours["low"]), float(ours["high"]), ours["people"]) == (wanted.low, wanted.high, "12")
    assert tidy["ours", PSNR, "happy"]["low"] == ""  # of groups there is none
    assert f"**{float(ours['value']):.2f} ({wanted.low:.2f}, {wanted.high:.2f})**" in done.markdown
    assert float(tidy["theirs", LAG, "all"]["from_real"]) == 3.0
    draws = replicates.halves(workspace / "results/p" / replicates.file_name("ours", FID), 36)
    assert len(draws) == 12
    of_set = set_interval(4.0, draws)
    assert of_set is not None
    assert float(tidy["ours", FID, "all"]["low"]) == of_set.low
    assert "over people, of 10 or more" in done.markdown
    assert "(" not in publish("p", workspace).markdown.split("\n")[-6]  # not unless asked for


def test_ranks_share_places_where_numbers_read_the_same(workspace: Path) -> None:
    write(workspace / "results/p", "twin", values(1, BEST), fid=6.0, lag=1.04)  # 1.0 as printed
    done = publish("p", workspace)
    ranks = {(r["metric"], r["method"]): (r["rank"], r["of"]) for r in lines(done.folder / "ranks.csv")}
    assert {method: ranks[PSNR, method] for method in ("ours", "twin", "theirs")} == {
        "ours": ("1", "3"),
        "twin": ("1", "3"),
        "theirs": ("3", "3"),
    }
    assert [ranks[LAG, method][0] for method in ("ours", "twin", "theirs")] == ["1", "1", "3"]  # away from real
    assert [ranks[FID, method][0] for method in ("ours", "twin", "theirs")] == ["1", "2", "2"]
    assert (PSNR, "ground-truth") not in ranks


def test_every_method_is_compared_with_the_best(workspace: Path) -> None:
    third = {c: v + 1e-3 * (1 + k % 5) for k, (c, v) in enumerate(values(1, BEST).items())}
    write(workspace / "results/p", "third", third)
    found = {(r["metric"], r["method"]): r for r in lines(publish("p", workspace).folder / "compared.csv")}
    assert set(found) == {(PSNR, "ours"), (PSNR, "theirs")}  # no baseline, no closer-to-real, nothing of a set
    scores = {"third": third, "theirs": values(2, WORSE)}
    [wanted] = differences(scores, {clip: clip[:3] for clip in CLIPS}, "third")
    line = found[PSNR, "theirs"]
    assert line["best"] == "third"
    assert float(line["difference"]) == wanted.difference < -0.5
    assert wanted.p is not None
    assert wanted.p <= float(line["p_holm"]) <= 2 * wanted.p  # two comparisons
    assert float(line["high"]) < 0


def test_few_people_have_means_of_their_own(tmp_path: Path) -> None:
    scores = {clip: float(k) for k, clip in enumerate(CLIPS[:27])}
    write(tmp_path / "results" / "p", "ours", scores)
    done = publish("p", tmp_path, style=Style(intervals=True))
    assert "9 people are too few for an interval (10 or more)" in done.markdown
    people = {(r["metric"], r["identity"]): r for r in lines(done.folder / "people.csv")}
    assert (float(people[PSNR, "p01"]["value"]), people[PSNR, "p01"]["clips"]) == (4.0, "3")
    assert len([key for key in people if key[0] == PSNR]) == 9


def test_the_threshold_decides_what_is_ranked(workspace: Path) -> None:
    few = dict(list(values(1, 35.0).items())[:30])
    write(workspace / "results/p", "partial", few)
    first = re.compile(r"\*\*3[45]\.\d\d† \(30/36\)\*\*")
    assert not first.search(publish("p", workspace).markdown)
    assert first.search(publish("p", workspace, style=Style(rank_from=0.8)).markdown)


def test_only_common_clips_on_request(workspace: Path) -> None:
    few = dict(list(values(1, 35.0).items())[:30])
    write(workspace / "results/p", "partial", few)
    done = publish("p", workspace, common=True)
    tidy = {(r["method"], r["metric"]): r for r in lines(done.folder / "tidy.csv") if r["group"] == "all"}
    assert {tidy[m, PSNR]["status"] for m in ("ours", "theirs", "partial")} == {"partial 30/36"}
    mean = math.fsum(list(values(1, BEST).values())[:30]) / 30
    assert float(tidy["ours", PSNR]["value"]) == pytest.approx(mean)
    assert tidy["ours", PSNR]["reasons"] == "6x not every method has a value of this clip"
    assert tidy["ours", LAG]["status"] == "ok"  # metric by metric
    assert "clips that every method has" in done.markdown
    assert "**3" not in done.markdown  # 30 of 36 are ranked only if that is enough
    assert "**3" in publish("p", workspace, common=True, style=Style(rank_from=0.8)).markdown


def test_results_of_two_labs_share_a_table(workspace: Path, tmp_path: Path) -> None:
    """Both have scored ground truth, with other versions of the packages: it is taken once."""
    other = tmp_path / "other lab"
    write(other, "elsewhere", values(5, 31.0))
    write(other, "ground-truth", {c: v + 1e-9 for c, v in values(3, 40.0).items()}, fid=1.0, code={"version": "2"})
    done = publish("p", workspace, others=[other])
    assert "Elsewhere" in done.markdown
    assert any(remark.startswith("ground-truth: scored in") for remark in done.remarks)
    behind = {r["method"]: r for r in lines(done.folder / "provenance.csv")}
    assert behind["elsewhere"]["weights"] == "net:w"
    assert [behind["ours"][name] for name in ("protocol", "test_set", "split_digest", "commit")] == [
        "d",
        "same",
        "s",
        "abc",
    ]
    assert [behind["ours"][name] for name in ("generation_seconds", "gpu_mib", "hardware")] == ["7.5", "5000", "cpu: c"]


def test_labs_that_differ_are_refused_with_what_differs(workspace: Path, tmp_path: Path) -> None:
    other = tmp_path / "other lab"

    def refused(name: str, message: str, **changes: Any) -> None:
        shutil.rmtree(other, ignore_errors=True)
        write(other, name, values(5, 31.0), **changes)
        with pytest.raises(BenchError, match=message) as raised:
            publish("p", workspace, others=[other])
        assert "\n" not in raised.value.message

    asked = {"name": "p", "dataset": "d", "title": "P", "columns": [], "metrics": list(DIRECTION), "pairing": {}}
    asked |= {"digest": "e", "seed": 1}
    refused("new", r"versions of the protocol .*in seed \((0 and 1|1 and 0)\)", protocol=asked)
    turned = {name: {**of, "digits": 0} for name, of in METRICS.items()}
    refused("new", r"versions of the metric fid/x \(\{'label': .*'digits': 0", metrics=turned)
    refused("ours", "ours: .* is .* here and .* in .*other lab; rename one")
    posed = {"name": "ours", "title": "Ours", "kind": "method", "conditioning": "target-pose"}
    refused("ours", "two methods are named ours: their conditioning differ", method=posed)
    with pytest.raises(BenchError, match="no results there that can be used; expected a folder"):
        publish("p", workspace, others=[tmp_path])
    write(other, "new", values(5, 31.0))
    (other / "new.parquet").write_bytes(b"PAR1")
    (other / "ours.parquet").unlink()
    with pytest.raises(BenchError, match=r"that can be used; left out: .*new\.parquet: not a readable"):
        publish("p", workspace, others=[other])


def test_comparisons_stay_within_a_conditioning(workspace: Path) -> None:
    posed = {"name": "posed", "title": "Posed", "kind": "method", "conditioning": "target-pose"}
    write(workspace / "results/p", "posed", values(6, 35.0), method=posed)
    found = lines(publish("p", workspace).folder / "compared.csv")
    assert {(line["method"], line["best"]) for line in found} == {("theirs", "ours")}


def test_infinities_are_no_rank_and_no_traceback(workspace: Path) -> None:
    endless = dict.fromkeys(CLIPS, math.inf)
    write(workspace / "results/p", "ground-truth", endless, lag=math.inf)
    write(workspace / "results/p", "equal", {**endless, CLIPS[0]: -math.inf}, lag=math.inf)
    write(workspace / "results/p", "huge", dict.fromkeys(CLIPS, 1.7e308), lag=-math.inf)
    done = publish("p", workspace, style=Style(intervals=True))
    tidy = {(r["method"], r["metric"]): r for r in lines(done.folder / "tidy.csv") if r["group"] == "all"}
    assert tidy["equal", PSNR]["status"] == "failed 0/36"
    assert "without a mean" in tidy["equal", PSNR]["reasons"]
    assert tidy["huge", PSNR]["value"] == ""
    ranks = {(r["metric"], r["method"]): r["rank"] for r in lines(done.folder / "ranks.csv")}
    assert ranks[LAG, "equal"] == "1"
    assert "nan" not in (done.folder / "compared.csv").read_text()


def test_what_is_in_order_verifies_from_the_command_line(workspace: Path) -> None:
    done = publish("p", workspace)
    command = ["leaderboard", "verify", str(workspace / "results/p"), "--tidy", str(done.folder / "tidy.csv")]
    outcome = CliRunner().invoke(bench, command)
    assert outcome.exit_code == 0, outcome.output
    told = "219 rows of 3 methods, 3 runs; 15 numbers of tidy.csv derived again"
    assert outcome.output == f"{told}; 3 values of sets are taken as stated; in order\n"
    assert "no printed number was compared" in verify(workspace / "results/p").summary


def changed(path: Path, which: Any = lambda row: row["clip_id"] == CLIPS[0], **of: Any) -> None:
    """Rows of a file changed behind eval's back."""
    table = pq.read_table(path)
    rows = [{**row, **(of if which(row) else {})} for row in table.to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)


def every(row: dict[str, Any]) -> bool:
    return True


def of_set(row: dict[str, Any]) -> bool:
    return row["metric"] == FID


def kept(path: Path, keep: Any) -> None:
    results.write([row for row in results.read(path) if keep(row)], path)


RECORD = "its {} is .*, {} in the run's record"
FORGERIES: dict[str, tuple[Any, str]] = {
    "record": (lambda p, run: run.write_text(run.read_text().replace('"same"', '"other"')), "changed after the run"),
    "no record": (lambda p, run: run.unlink(), "missing or damaged"),
    "deep record": (lambda p, run: run.write_text("[" * 100_000), "missing or damaged"),
    "draws": (lambda p, run: (p.parent / replicates.file_name("ours", FID)).write_bytes(b"PAR1"), "draws cannot be"),
    "draws elsewhere": (lambda p, run: changed(p, of_set, replicates="../../x.parquet"), "said to lie in"),
    "truncated": (lambda p, run: p.write_bytes(p.read_bytes()[:-50]), "not a readable result file"),
    "dropped": (lambda p, run: kept(p, lambda r: r.clip_id != CLIPS[0]), r"no row for 1 of 36 clips .*\(p00_0\)"),
    "dropped metric": (
        lambda p, run: kept(p, lambda r: r.metric != LAG),
        "lag/x: its run computed it, and there",
    ),
    "strange": (lambda p, run: changed(p, clip_id="x"), r"1 rows of clips that its run does not know \(x\)"),
    "method": (lambda p, run: changed(p, every, method="a\x1b[31m\nin order"), RECORD.format("method", "ours")),
    "protocol": (lambda p, run: changed(p, every, protocol="hdtf"), RECORD.format("protocol", "p")),
    "dataset": (lambda p, run: changed(p, every, dataset="x"), RECORD.format("dataset", "d")),
    "version": (lambda p, run: changed(p, every, metric_version=9), RECORD.format("metric_version", "1")),
    "fewer in a set": (lambda p, run: changed(p, of_set, n_used=5, n_expected=5), "fid/x: of 5 clips; its run has 36"),
    "more in a clip": (lambda p, run: changed(p, n_used=9, n_expected=9), "the row of a clip counts for 9 clips"),
    "people": (lambda p, run: changed(p, identity="somebody"), "clip p00_0 is of"),
    "run": (lambda p, run: changed(p, every, run_id="../../x"), "expected 16 hexadecimal digits"),
}


@pytest.mark.parametrize("what", FORGERIES)
def test_what_is_forged_is_named_by_verify_and_left_out_of_the_table(workspace: Path, what: str) -> None:
    done = publish("p", workspace)
    path = workspace / "results/p/ours.parquet"
    [run] = [p for p in (path.parent / "runs").glob("*.json") if json.loads(p.read_text())["method"]["name"] == "ours"]
    forge, message = FORGERIES[what]
    forge(path, run)
    found = verify(path.parent, done.folder / "tidy.csv")
    assert any(re.search(message, problem) for problem in found.problems), found.problems
    assert re.search(rf"\b{len(found.problems)} problems?$", found.summary)
    assert not any(sign in problem for sign in "\n\x1b" for problem in found.problems)
    outcome = CliRunner().invoke(bench, ["leaderboard", "verify", str(path.parent)])
    assert outcome.exit_code == 1
    if what == "people":  # which of two files is wrong, nobody can tell
        with pytest.raises(BenchError, match=message):
            publish("p", workspace)
    else:
        again = publish("p", workspace)
        assert "| Theirs" in again.markdown
        assert "| Ours" not in again.markdown
        assert any(remark.startswith("left out: ") for remark in again.remarks)


TIDY: tuple[tuple[Any, str], ...] = (
    (
        lambda tidy: changed(tidy.parents[2] / "results/p/ours.parquet", value=99.0),
        "ours psnr/frame-mean all: value",
    ),
    (lambda tidy: tidy.write_text(tidy.read_text().replace("ok", "fine", 1)), "status is 'fine', the rows give 'ok'"),
    (lambda tidy: tidy.write_text("a,b\n1,2\n"), "not a tidy.csv"),
    (lambda tidy: tidy.write_text(tidy.read_text() + tidy.read_text().splitlines()[1]), "is there twice"),
    (lambda tidy: tidy.write_text("\n".join(tidy.read_text().splitlines()[:-1])), "is missing; the rows give"),
)


@pytest.mark.parametrize(("forge", "message"), TIDY)
def test_printed_numbers_follow_from_the_rows(workspace: Path, forge: Any, message: str) -> None:
    tidy = publish("p", workspace).folder / "tidy.csv"
    forge(tidy)
    found = verify(workspace / "results/p", tidy)
    assert any(re.search(message, problem) for problem in found.problems), found.problems


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    assert "no result files there" in verify(tmp_path).problems[0]


def test_common_rows_are_counted_metric_by_metric() -> None:
    def row(method: str, clip: str, value: float | None) -> Result:
        error = None if value is not None else "x"
        return Result(method, "d", "p", PSNR, 1, clip, "a", None, value, error, int(value is not None), 1, None, "r")

    rows = [row("a", "1", 1.0), row("a", "2", 2.0), row("b", "1", 3.0), row("b", "2", None)]
    rows += [row("c", "1", None), row("c", "2", None)]  # c has nothing: it does not empty the table
    found = aggregate.common(rows)
    assert [r.value for r in found] == [1.0, None, 3.0, None, None, None]
    assert [r.error for r in found] == [None, aggregate.NOT_COMMON, None, "x", "x", "x"]
