"""What stands around a table: intervals, comparisons, other labs' rows, provenance; what is submitted is checked."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from benchmark import provenance, replicates
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
CLIPS = [f"p{k // 3:02}_{k % 3}" for k in range(36)]  # three of each of twelve people
BEST, WORSE = 30.0, 29.0


def values(seed: int, mean: float, count: int = 36) -> dict[str, float]:
    return dict(zip(CLIPS, (mean + np.random.default_rng(seed).normal(0, 0.5, count)).tolist(), strict=False))


def write(
    folder: Path, method: str, scores: dict[str, float], fid: float = 5.0, lag: float = 0.0, **changes: Any
) -> None:
    """Rows, draws and the record of a run of `method`, as eval writes them; `changes` of the record."""
    record = {
        "code": {"version": "1", "git": {"commit": "abc", "modified": False}},
        "device": "cpu",
        "protocol": {"digest": "d", "title": "P", "columns": [], "metrics": list(DIRECTION), "pairing": {}, "seed": 0},
        "pairs": "same",
        "split": {"rule": "ratio", "digest": "s"},
        "method": {
            "name": method,
            "title": method.title(),
            "kind": "baseline" if method == "ground-truth" else "method",
        },
        "metrics": {
            name: {"label": label, "direction": direction, "digits": digits, "emotions": None}
            for name, (label, direction, digits) in DIRECTION.items()
        },
        "extractors": {},
        "weights": {"net": "w"},
        "views": [],
        "clips": {clip: {} for clip in CLIPS},
    } | changes
    run_id = provenance.run_id(record)
    cost = {"clips": 36, "seconds": 7.5, "machines": ["GPU"], "ram_mib": 900, "gpu_mib": 5000}
    provenance.write(folder / "runs", run_id, record, {"hardware": {"cpu": "c"}, "workers": 1, "generation": cost})
    one = Result(method, "d", "p", PSNR, 1, None, None, None, None, None, 1, 1, None, run_id)
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
    name = replicates.file_name(method, FID)
    rows.append(replace(one, metric=FID, value=fid, n_used=36, n_expected=36, replicates=name))
    draws = np.random.default_rng(0).normal(fid + 1, 0.2, 20)
    halves = np.array([18] * 12 + [9] * 8)
    replicates.write(Replicates(36, halves, halves, draws, None), folder / name)
    results.write(rows, folder / f"{method}.parquet")


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
    write(workspace / "results/p", "third", {c: v + 1e-3 for c, v in values(1, BEST).items()})
    found = {(r["metric"], r["method"]): r for r in lines(publish("p", workspace).folder / "compared.csv")}
    assert set(found) == {(PSNR, "ours"), (PSNR, "theirs")}  # no baseline, no closer-to-real, nothing of a set
    scores = {"third": {c: v + 1e-3 for c, v in values(1, BEST).items()}, "theirs": values(2, WORSE)}
    [wanted] = differences(scores, {clip: clip[:3] for clip in CLIPS}, "third")
    line = found[PSNR, "theirs"]
    assert line["best"] == "third"
    assert float(line["difference"]) == wanted.difference < -0.5
    assert wanted.p is not None
    assert float(line["p_holm"]) == pytest.approx(2 * wanted.p)  # two comparisons
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
    assert {tidy[m, PSNR]["n_expected"] for m in ("ours", "theirs", "partial")} == {"30"}
    mean = math.fsum(list(values(1, BEST).values())[:30]) / 30
    assert float(tidy["ours", PSNR]["value"]) == pytest.approx(mean)
    assert tidy["ours", LAG]["n_expected"] == "36"  # metric by metric
    assert "clips that every method has" in done.markdown


def test_results_of_two_labs_share_a_table_or_say_what_differs(workspace: Path, tmp_path: Path) -> None:
    other = tmp_path / "other lab"
    write(other, "elsewhere", values(5, 31.0))
    done = publish("p", workspace, others=[other])
    assert "Elsewhere" in done.markdown
    behind = {r["method"]: r for r in lines(done.folder / "provenance.csv")}
    assert behind["elsewhere"]["weights"] == "net:w"
    assert [behind["ours"][name] for name in ("protocol", "test_set", "split_digest", "commit")] == [
        "d",
        "same",
        "s",
        "abc",
    ]
    assert [behind["ours"][name] for name in ("generation_seconds", "gpu_mib", "hardware")] == ["7.5", "5000", "cpu: c"]
    asked = {"title": "P", "columns": [], "metrics": list(DIRECTION), "pairing": {}}
    write(other, "elsewhere", values(5, 31.0), protocol={**asked, "digest": "e", "seed": 1})
    with pytest.raises(BenchError, match=r"different versions of the protocol .*in seed \((0 and 1|1 and 0)\)"):
        publish("p", workspace, others=[other])
    write(other, "elsewhere", values(5, 31.0))
    write(other, "ours", values(9, 31.0))  # another lab's rows under a name that is taken
    with pytest.raises(BenchError, match="two rows contradict each other"):
        publish("p", workspace, others=[other])
    with pytest.raises(BenchError, match="no results there"):
        publish("p", workspace, others=[tmp_path])


def test_what_is_in_order_verifies_from_the_command_line(workspace: Path) -> None:
    done = publish("p", workspace)
    command = ["leaderboard", "verify", str(workspace / "results/p"), "--tidy", str(done.folder / "tidy.csv")]
    outcome = CliRunner().invoke(bench, command)
    assert outcome.exit_code == 0, outcome.output
    assert "219 rows of 3 methods in 3 files, 3 runs; 15 numbers of tidy.csv derived again; in order" in outcome.output


def changed(path: Path, **of: Any) -> None:
    """Rows of a file changed behind eval's back."""
    table = pq.read_table(path)
    rows = [{**row, **(of if row["clip_id"] == CLIPS[0] else {})} for row in table.to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)


def damage(workspace: Path, what: str) -> None:
    folder = workspace / "results" / "p"
    rows, run = folder / "ours.parquet", sorted((folder / "runs").glob("*.json"))[0]
    if what == "value":
        changed(rows, value=99.0)
    elif what == "record":
        run.write_text(run.read_text().replace('"same"', '"other"'))
    elif what == "no record":
        run.unlink()
    elif what == "draws":
        (folder / replicates.file_name("ours", FID)).write_bytes(b"PAR1")
    elif what == "truncated":
        rows.write_bytes(rows.read_bytes()[:-50])
    elif what == "dropped":
        results.write((row for row in results.read(rows) if row.clip_id != CLIPS[0]), rows)
    elif what == "strange":
        changed(rows, clip_id="x")
    elif what == "tidy":
        tidy = workspace / "tables/p/tidy.csv"
        tidy.write_text(tidy.read_text().replace("ok", "fine", 1))
    elif what == "not tidy":
        (workspace / "tables/p/tidy.csv").write_text("a,b\n1,2\n")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("value", r"tidy.csv: ours psnr/frame-mean all: value is '[0-9.]+', the rows give '"),
        ("record", "its contents give the id [0-9a-f]+; it was changed after the run"),
        ("no record", "missing or damaged"),
        ("draws", "fid/x: its draws cannot be read"),
        ("truncated", "ours.parquet: not a readable result file"),
        ("dropped", r"no row for 1 of 36 clips of its run \(p00_0\)"),
        ("strange", r"1 rows of clips that its run does not know \(x\)"),
        ("tidy", "status is 'fine', the rows give 'ok'"),
        ("not tidy", "not a tidy.csv"),
    ],
)
def test_what_is_not_in_order_is_named_and_the_rest_is_checked(workspace: Path, what: str, message: str) -> None:
    done = publish("p", workspace)
    damage(workspace, what)
    found = verify(workspace / "results/p", done.folder / "tidy.csv")
    assert any(re.search(message, problem) for problem in found.problems), found.problems
    assert found.summary.endswith(f"{len(found.problems)} problems")
    assert all("\n" not in problem for problem in found.problems)
    command = ["leaderboard", "verify", str(workspace / "results/p"), "--tidy", str(done.folder / "tidy.csv")]
    assert CliRunner().invoke(bench, command).exit_code == 1


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    assert "no result files there" in verify(tmp_path).problems[0]


def test_common_rows_are_counted_metric_by_metric() -> None:
    def row(method: str, clip: str, value: float | None) -> Result:
        error = None if value is not None else "x"
        return Result(method, "d", "p", PSNR, 1, clip, "a", None, value, error, int(value is not None), 1, None, "r")

    rows: Iterable[Result] = [row("a", "1", 1.0), row("a", "2", 2.0), row("b", "1", 3.0), row("b", "2", None)]
    rows = [*rows, row("c", "1", None), row("c", "2", None)]  # c has nothing: it does not empty the table
    assert [(r.method, r.clip_id) for r in aggregate.common(rows)] == [("a", "1"), ("b", "1"), ("c", "1")]
    assert json.dumps([r.value for r in aggregate.common(rows)]) == "[1.0, 3.0, null]"
