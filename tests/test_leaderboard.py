from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs import recorded, write_run

from benchmark.errors import BenchError
from benchmark.publish import publish
from leaderboards import aggregate, grid, results, tables
from leaderboards.results import Result, ResultError
from leaderboards.tables import Column, Row


def row(clip_id: str | None = "c1", value: float | None = 1.0, **changes: object) -> Result:
    fields: dict[str, object] = {
        "method": "m",
        "dataset": "d",
        "protocol": "p",
        "metric": "psnr/frame-mean",
        "metric_version": 1,
        "clip_id": clip_id,
        "identity": "a" if clip_id else None,
        "group": "happy" if clip_id else None,
        "value": value,
        "error": None if value is not None else "no face in any frame",
        "n_used": int(value is not None),
        "n_expected": 1,
        "replicates": None,
        "run_id": "r1",
    }
    return Result(**(fields | changes))  # type: ignore[arg-type]


def test_rows_survive_the_file_and_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    rows = [
        row("c1", 1.5),
        row("c2", None),
        row("c3", math.inf),
        row(None, 7.0, metric="fid/x", n_used=3, n_expected=3),
    ]
    results.write(rows, tmp_path / "one.parquet")
    results.write(rows[::-1], tmp_path / "two.parquet")
    assert sorted(map(repr, results.read(tmp_path / "one.parquet"))) == sorted(map(repr, rows))
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row(value=1.0, error="and a reason"), "exactly one of value and error"),
        (row(value=None, error=None), "exactly one of value and error"),
        (row(value=math.nan), "NaN"),
        (row(value=None, error="two\nlines"), "one line"),
        (row(n_used=2), "n_used 2 and n_expected 1"),
        (row(value=None, n_used=1), "n_used is 1 for value None"),
    ],
)
def test_a_row_that_cannot_be_is_refused(tmp_path: Path, bad: Result, message: str) -> None:
    with pytest.raises(ResultError, match=message):
        results.write([bad], tmp_path / "x.parquet")
    assert list(tmp_path.iterdir()) == []


def test_contradictions_are_refused_and_repetitions_merged() -> None:
    assert results.check([row(), row()]) == [row()]
    with pytest.raises(ResultError, match="contradict each other in value"):
        results.check([row(), row(value=2.0)])


def test_files_that_are_not_results_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    results.write([row()], path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ResultError, match="not a readable result file"):
        results.read(path)
    pq.write_table(pa.table({"value": [1.0]}), path)
    with pytest.raises(ResultError, match="result schema none"):
        results.read(path)
    old = results.SCHEMA.with_metadata({"result_schema": "0"})
    pq.write_table(pa.Table.from_pylist([], schema=old), path)
    with pytest.raises(ResultError, match="result schema 0, this version reads 1"):
        results.read(path)


def test_a_flipped_bit_anywhere_is_told_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    rows = [row(f"c{i}", i / 3) for i in range(3)]
    results.write(rows, path)
    whole = path.read_bytes()
    told = 0
    for at in range(4, len(whole) - 8, 17):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        try:
            assert [r.value for r in results.read(path)] == [r.value for r in rows]
        except ResultError as error:
            told += str(error).startswith(str(path)) and "\n" not in str(error)
    assert told > 50


@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), min_size=1, max_size=30), st.randoms())
def test_a_mean_counts_what_it_used_and_ignores_order(values: list[float | None], random: object) -> None:
    rows = [row(f"c{i}", value) for i, value in enumerate(values)]
    [cell] = aggregate.cells(rows)
    random.shuffle(rows)  # type: ignore[attr-defined]
    assert aggregate.cells(rows) == [cell]
    known = [value for value in values if value is not None]
    assert (cell.n_used, cell.n_expected) == (len(known), len(values))
    assert sum(count for _, count in cell.reasons) == len(values) - len(known)
    if known:
        assert cell.value == pytest.approx(sum(known) / len(known), rel=1e-9, abs=1e-6)
    else:
        assert cell.value is None


def test_groups_set_values_and_infinities() -> None:
    rows = [
        row("c1", 1.0),
        row("c2", 3.0, group="sad"),
        row("c3", math.inf, metric="ssim/x"),
        row(None, 9.0, metric="fid/x", n_used=2, n_expected=4),
    ]
    cells = {(c.metric, c.group): c for c in aggregate.cells(rows, by_group=True)}
    assert cells["psnr/frame-mean", None].value == 2.0
    assert cells["psnr/frame-mean", "sad"].value == 3.0
    assert cells["ssim/x", None].value == math.inf
    assert (cells["fid/x", None].value, cells["fid/x", None].n_used, cells["fid/x", None].n_expected) == (9.0, 2, 4)


def test_versions_and_levels_are_never_mixed() -> None:
    with pytest.raises(ResultError, match=r"versions \[1, 2\]"):
        aggregate.cells([row("c1"), row("c2", metric_version=2)])
    with pytest.raises(ResultError, match="is version 1 for m and 2 for n"):
        aggregate.cells([row("c1"), row("c1", method="n", metric_version=2)])
    with pytest.raises(ResultError, match="both per clip and for the set"):
        aggregate.cells([row("c1"), row(None)])


COLUMNS = [
    Column("psnr/frame-mean", "PSNR", "higher", 2),
    Column("csim/one", "CSIM", "higher", 3),
    Column("csim/two", "CSIM", "closer-to-real", 3),
    Column("fid/x", "FID", "lower", 1),
]


def test_the_printed_table_shows_counts_reasons_and_no_blank() -> None:
    cells = aggregate.cells(
        [
            row("c1", 30.126),
            row("c2", None),
            row("c1", math.inf, metric="csim/one"),
            row("c1", None, metric="csim/two", error="unavailable: get it with `bench weights fetch x`"),
            row(None, None, metric="fid/x", error="1 of 2 clips cannot be used", n_used=0, n_expected=2),
        ]
    )
    rows = [Row("m", "Mine"), Row("other", "Other")]
    printed = tables.printed("A | title", cells, COLUMNS, rows, ["why <b>not</b>"])
    table = printed.texts()
    heads = ("PSNR ↑", "CSIM (one) ↑", "CSIM (two) →", "CSIM (two) |Δ real| ↓", "FID ↓")
    assert table[0] == ["Method", *heads, "n used/expected"]
    assert table[1] == ["Mine", "30.13† (1/2)", "inf", "unavailable", "n/a", "failed 0/2", "1/2"]
    assert table[2] == ["Other", "n/a", "n/a", "n/a", "n/a", "n/a", "0"]
    text = grid.markdown(printed)
    assert text.startswith("## A \\| title\n")
    assert "† from fewer clips" in text
    assert "why \\<b\\>not\\</b\\>" in text
    assert list(csv.reader(io.StringIO(grid.printed_csv(printed)))) == table
    tidy = list(csv.DictReader(io.StringIO(tables.tidy(cells))))
    assert [line["status"] for line in tidy] == ["ok", "unavailable", "failed 0/2", "partial 1/2"]
    assert tidy[3]["reasons"] == "1x no face in any frame"
    assert all(all(line[name] for name in ("method", "metric", "group", "status", "n_used")) for line in tidy)
    values = pd.read_csv(io.StringIO(tables.tidy(cells)))["value"]
    assert values.dtype == float
    assert values.fillna(-1).tolist() == [math.inf, -1, -1, 30.126]


METRICS = {"psnr/frame-mean": {"label": "PSNR", "direction": "higher", "digits": 2, "version": 1}}


def published(workspace: Path, method: str, kind: str, rows: list[Result], **changes: object) -> None:
    rows = [replace(r, method=method) for r in rows]
    of = {"name": method, "title": method.title(), "kind": kind}
    record = recorded(rows, METRICS, **({"method": of, "extractors": {"image-pairs": "image-pairs@1"}} | changes))
    write_run(workspace / "results" / "p", rows, record)


def test_rows_stand_in_order_and_a_damaged_file_costs_itself_only(tmp_path: Path) -> None:
    for method, kind in (
        ("alpha", "method"),
        ("still", "baseline"),
        ("ground-truth", "baseline"),
        ("real-halves", "baseline"),
    ):
        published(tmp_path, method, kind, [row("c1"), row("c2", None)])
    (tmp_path / "results" / "p" / "broken.parquet").write_bytes(b"PAR1")
    done = publish("p", tmp_path)
    table = list(csv.reader((done.folder / "table.csv").open(encoding="utf-8")))
    assert [line[0] for line in table[1:]] == ["Real-Halves", "Ground-Truth", "Still", "Alpha"]
    assert len(done.remarks) == 1
    assert "broken.parquet" in done.remarks[0]
    assert done.markdown == (done.folder / "table.md").read_text(encoding="utf-8")
    assert "alpha, psnr/frame-mean, 1x: no face in any frame" in done.markdown
    before = (done.folder / "tidy.csv").read_bytes()
    publish("p", tmp_path)
    assert (done.folder / "tidy.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("test set", {"pairs": "other"}),
        ("views", {"views": ["survey@1", 3]}),
        ("extractor image-pairs", {"extractors": {"image-pairs": "image-pairs@2"}}),
    ],
)
def test_rows_of_different_making_never_share_a_table(tmp_path: Path, what: str, changes: dict[str, object]) -> None:
    published(tmp_path, "alpha", "method", [row("c1")], extractors={})
    published(tmp_path, "beta", "method", [row("c1")])
    publish("p", tmp_path)  # one used an extractor more
    published(tmp_path, "gamma", "method", [row("c1")], **changes)
    with pytest.raises(BenchError, match=f"gamma and (alpha|beta) were scored with different versions of the {what}"):
        publish("p", tmp_path)


def test_different_devices_are_said(tmp_path: Path) -> None:
    published(tmp_path, "alpha", "method", [row("c1")])
    assert publish("p", tmp_path).remarks == []
    published(tmp_path, "beta", "method", [row("c1")], device="cuda")
    [remark] = publish("p", tmp_path).remarks
    assert "(cpu: alpha; cuda: beta)" in remark


@pytest.mark.parametrize("record", ["{}", "[]", '{"metrics": {"x": {}}}', "{", "null", "[" * 100_000])
def test_a_damaged_record_is_one_line_that_names_it(tmp_path: Path, record: str) -> None:
    published(tmp_path, "alpha", "method", [row("c1")])
    [path] = (tmp_path / "results" / "p" / "runs").glob("*.json")
    published(tmp_path, "beta", "method", [row("c1")])
    path.write_text(record)
    done = publish("p", tmp_path)  # the other method stays
    assert "Beta" in done.markdown
    assert "Alpha" not in done.markdown
    [remark] = done.remarks
    assert re.search(rf"left out: .*alpha\.parquet: runs/{path.name}: .*(missing or damaged|changed after)", remark)
    assert "\n" not in remark


def test_what_a_killed_run_left_is_no_result(tmp_path: Path) -> None:
    published(tmp_path, "alpha", "method", [row("c1")])
    (tmp_path / "results" / "p" / ".part-x.parquet").write_bytes(b"PAR1")
    assert publish("p", tmp_path).remarks == []


def test_a_workspace_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    published(tmp_path, "alpha", "method", [row("c1")])
    (tmp_path / "tables").touch()  # a folder cannot be made there, whoever runs the test
    with pytest.raises(BenchError, match="tables/p: cannot be written"):
        publish("p", tmp_path)


def test_a_protocol_is_a_name_and_never_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"'\.\./results/p' must be a name"):
        publish("../results/p", tmp_path)


def test_no_results_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="bench eval --method NAME --protocol p"):
        publish("p", tmp_path)
