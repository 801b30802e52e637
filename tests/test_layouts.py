"""Papers' layouts: filled by measured rows, ranked, and printed in every format as text."""

from __future__ import annotations

import csv
import io
import itertools
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from pylatexenc.latexwalker import LatexEnvironmentNode, LatexWalker
from runs import recorded, write_run

from benchmark import configs, replicates
from benchmark.cli import bench
from benchmark.errors import BenchError
from benchmark.publish import publish_layout
from leaderboards import grid, layouts, published, ratings, tables
from leaderboards.aggregate import Cell
from leaderboards.grid import Entry, Grid, Heading, Line
from leaderboards.layouts import Layout, Measured
from leaderboards.papers import LAYOUTS
from leaderboards.results import Result, ResultError
from leaderboards.tables import Column, Row, Style
from metrics import base, clusters
from metrics.base import Replicates
from metrics.clusters import FORMS, strengths
from pipelines.manifest import EMOTIONS

VALUES = published.load()
HOSTILE = [
    r"\input{/etc/passwd}",
    "a & b % c $ d # e _ f { g } ~ ^",
    "<script>alert(1)</script> | *x* `y` [z](http://w) <u>",
    "=HYPERLINK(1)",
    "@SUM(1)",
    "-1+1",
    "left\u202eright\u2066\u200b\x1b[31mred\x07",
    "two\nlines\r\nand\ttab",
    "[0.5em] x",
    "* starred --- dashes",
    "&amp; &lt;b&gt;",
    "",
]


def cell(method: str, metric: str, value: float | None, used: int = 4, expected: int = 4, *reasons: str) -> Cell:
    return Cell(method, metric, 1, None, value, used, expected, tuple((reason, expected) for reason in reasons))


def measured(*methods: str, metrics: dict[str, float], **changes: str) -> Measured:
    rows = [
        Row(method, method.title(), method not in ("ground-truth", "still"), "one-shot", **changes)
        for method in methods
    ]
    cells = [cell(m, metric, value + at) for at, m in enumerate(methods) for metric, value in metrics.items()]
    return Measured(cells, rows)


def test_every_layout_is_filled_by_metrics_and_protocols_that_exist() -> None:
    protocols = configs.shipped("protocols")
    for layout in LAYOUTS.values():
        assert {name for name in layout.groups.values() if name} <= set(protocols)
        for column in layout.columns:
            if column.metric.startswith("rating/"):
                assert column.metric.removeprefix("rating/") in layout.scales
            elif column.metric.startswith("cluster-strength-"):
                assert re.fullmatch(rf"cluster-strength-({'|'.join(EMOTIONS)})/({'|'.join(FORMS)})", column.metric)
            elif column.direction != "text" and column.metric:
                metric = base.metric(column.metric)
                assert metric.direction == column.direction
                assert metric.unit == column.unit or not column.unit


def test_published_digits_are_those_of_the_layout() -> None:
    for layout in LAYOUTS.values():
        for column in (c for c in layout.columns if c.direction != "text"):
            for value in published.of(VALUES, layout.source, layout.table):
                if value.metric == column.label:
                    assert len(value.value.removesuffix("%").partition(".")[2]) == column.digits
                    assert value.value.endswith(column.unit)
                    assert not column.metric or column.metric.startswith(value.family)


def test_measured_rows_stand_with_their_condition_and_are_ranked_alone() -> None:
    fids = {"fvd/i3d-16f": 300.0, "fid/torch-fidelity": 10.0}
    found = {
        "MEAD": measured("alpha", "beta", metrics=fids, driven_by="audio + video"),
        "Out of Domain Emotion Testset": measured("beta", metrics={"emo-score/emo-affectnet": 0.9}),
    }
    table = layouts.fill(LAYOUTS["dice-talk-table-1"], VALUES, found)
    assert [len(block) for block in table.blocks] == [4, 2, 7, 1]  # alpha's condition is known
    alpha, beta = table.blocks[0][-1], table.blocks[3][0]
    assert [entry.text for entry in alpha.entries[:5]] == ["Alpha", "audio + video", "300.0000", "10.0000", "n/a"]
    assert [entry.mark for entry in alpha.entries[2:4]] == ["best", "best"]
    assert [entry.mark for entry in beta.entries[2:4]] == ["second", "second"]
    assert beta.entries[11].text == "0.9000"
    assert not [e for line in table.lines if line.published for e in line.entries if e.mark]


def test_a_layout_over_another_protocol_has_each_metric_once_and_no_published_row() -> None:
    layout = layouts.over(LAYOUTS["dice-talk-table-1"], "demo", "demo")
    found = measured("ground-truth", "still", metrics={"fid/torch-fidelity": 1.25})
    table = layouts.fill(layout, [], {"demo": found})
    assert [h.label for h in table.headings] == [
        *("Method", "Condition", "FVD ↓", "FID ↓", "Sync-C ↑", "Sync-D ↓", "Emo-Score ↑", "Neutral ↑", "Non-neutral ↑")
    ]
    assert {h.group for h in table.headings} == {"", "demo"}
    assert [[e.text for e in line.entries[:4]] for line in table.lines] == [
        ["Ground-Truth", "", "n/a", "1.2500"],
        ["Still", "", "n/a", "2.2500"],
    ]
    stacked = layouts.fill(layouts.over(LAYOUTS["eat-face-table-1"], "demo", "demo"), [], {"demo": found})
    assert [[e.text for e in line.entries[:2]] for line in stacked.lines] == [
        ["demo", "Ground-Truth"],
        ["demo", "Still"],
    ]
    assert "Perceptual Similarity" in {h.group for h in stacked.headings}


def test_emotions_stand_in_two_columns_for_each_method() -> None:
    names = {f"emo-acc-{e}/vgg16": at for at, e in enumerate(("angry", "contempt", "disgusted", "fear", "happy"))}
    found = measured("alpha", "beta", metrics={name: 50.0 + at for name, at in names.items()})
    table = layouts.fill(LAYOUTS["eat-face-table-2"], VALUES, {"MEAD": found})
    assert [len(block) for block in table.blocks] == [5, 5, 5]
    texts = [[e.text for e in line.entries] for line in table.blocks[2]]
    assert texts[0] == ["Beta", "Angry", "51.00%", "Happy", "55.00%"]
    assert texts[3] == ["Beta", "Fear", "54.00%", "Surprised", "n/a"]
    assert table.blocks[2][0].entries[2].mark == "best"


def test_a_study_joins_measured_rows_or_is_unavailable() -> None:
    layout = LAYOUTS["eat-face-table-4"]
    found = measured("alpha", "beta", metrics={"emo-acc/vgg16": 60.0})
    assert [line.entries[-1].text for line in layouts.fill(layout, [], {"MEAD": found}).lines] == ["unavailable"] * 2
    joined = Measured([*found.cells, cell("beta", "rating/Tend.", 73.2)], found.rows)
    lines = layouts.fill(layout, [], {"MEAD": joined}).lines
    assert [line.entries[-1].text for line in lines] == ["unavailable", "73.20%"]


UP = Column("m/x", "X", "higher", 2)


def marks(column: Column, cells: list[Cell | None], rows: list[Row]) -> list[str]:
    return [entry.mark for entry in tables.entries(column, cells, rows)]


def rows(*names: str) -> list[Row]:
    return [Row(name, name) for name in names]


def test_ties_share_a_mark_as_they_are_printed() -> None:
    cells = [cell(n, "m/x", v) for n, v in (("a", 0.901), ("b", 0.899), ("c", 0.5), ("d", 0.5), ("e", 0.1))]
    assert marks(UP, cells, rows(*"abcde")) == ["best", "best", "second", "second", ""]
    assert marks(replace(UP, direction="lower"), cells, rows(*"abcde")) == ["", "", "second", "second", "best"]


def test_only_full_measured_rows_of_equal_conditioning_are_ranked() -> None:
    cells: list[Cell | None] = [cell("a", "m/x", 0.9, 3), cell("b", "m/x", 0.8), cell("c", "m/x", 0.7), None]
    assert marks(UP, cells, rows(*"abcd")) == ["", "best", "second", ""]
    assert marks(UP, cells[1:2], rows("b")) == [""]  # alone, nothing is best
    reference = [Row("b", "b", ranked=False), *rows("c", "d")]
    assert marks(UP, [cell("b", "m/x", 0.8), cell("c", "m/x", 0.7), cell("d", "m/x", 0.6)], reference) == [
        *("", "best", "second")
    ]
    pose = [Row("b", "b", conditioning="one-shot"), Row("c", "c", conditioning="target-pose")]
    assert marks(UP, cells[1:3], pose) == ["", ""]


def test_closer_to_real_ranks_by_the_distance_to_ground_truth() -> None:
    column = replace(UP, direction="closer-to-real")
    cells = [cell(n, "m/x", v) for n, v in (("ground-truth", 0.7), ("a", 0.9), ("b", 0.75), ("c", 0.65))]
    some = [Row("ground-truth", "Ground truth", ranked=False), *rows(*"abc")]
    assert marks(column, cells, some) == ["", "second", "best", "best"]
    assert marks(column, cells[1:], some[1:]) == ["", "", ""]
    near = [cell("ground-truth", "m/x", 0.204), cell("a", "m/x", 0.214), cell("b", "m/x", 0.207, 3)]
    table = tables.printed("t", near, [column], [*some[:2], Row("b", "b"), Row("c", "c")])
    assert [(e.text, e.mark) for line in table.lines for e in line.entries[1:3]] == [
        *(("0.20", ""), ("0.00", ""), ("0.21", ""), ("0.01", "")),
        *(("0.21† (3/4)", ""), ("0.00†", ""), ("n/a", ""), ("n/a", "")),
    ]
    tidy = list(csv.DictReader(io.StringIO(tables.tidy(near))))
    assert [f"{float(line['from_real']):.2f}" for line in tidy] == ["0.00", "0.01", "0.00"]
    assert "X |Δ real| ↓" in grid.printed_csv(table)
    assert r"X \|Δ real\| ↓" in grid.markdown(table)
    assert r"X \textbar{}$\Delta$ real\textbar{} $\downarrow$" in grid.latex(table)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=12), st.randoms())
def test_the_best_is_the_best_whatever_the_order(values: list[float], random: object) -> None:
    pairs = list(enumerate(values))
    random.shuffle(pairs)  # type: ignore[attr-defined]
    cells = [cell(str(name), "m/x", value) for name, value in pairs]
    told = tables.entries(UP, cells, rows(*(str(name) for name, _ in pairs)))
    best = {entry.text for entry in told if entry.mark == "best"}
    assert best == {f"{max(round(value, 2) for value in values) + 0.0:.2f}"}


def small(*names: str) -> Grid:
    lines = tuple(Line((Entry(name), Entry("1.50", "best")), published=bool(at % 2)) for at, name in enumerate(names))
    return Grid(names[0], (Heading("Method", text=True), Heading("X ↑", "G")), (lines,), (names[0],))


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text_in_every_format(name: str) -> None:
    is_text_in_every_format(name)


@given(st.text(max_size=30))
def test_any_name_is_text_in_every_format(name: str) -> None:
    is_text_in_every_format(name)


def is_text_in_every_format(name: str) -> None:
    table = small(name, name)
    lines = list(csv.reader(io.StringIO(grid.printed_csv(table))))
    assert [len(line) for line in lines] == [3, 3, 3]
    assert lines[1][0][:1] not in set("=+-@") or not lines[1][0]
    text = grid.markdown(table)
    latex = grid.latex(table)
    for printed in (grid.printed_csv(table), text, latex):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u200b\u202a-\u202e\u2066-\u2069]", printed)
    body = [line for line in text.splitlines() if line.startswith("|")]
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in body] == [3, 3, 3, 3]
    assert not re.search(r"(?<!\\)<(?!/?u>)|(?<!\\)\[|(?<!\\)`|(?<!\\)&", text)
    [tabular] = tabulars(latex)
    assert [line[1] for line in cells_of(tabular)] == ["G", "X", "1.50", "1.50"]
    assert {len(line) for line in cells_of(tabular)} == {2}
    assert "\\input" not in latex


def tabulars(latex: str) -> list[str]:
    """The tabular environments of LaTeX that a strict parser takes."""
    nodes, at, length = LatexWalker(latex, tolerant_parsing=False).get_latex_nodes()
    assert (at, length) == (0, len(latex))
    assert [node.environmentname for node in nodes if isinstance(node, LatexEnvironmentNode)] == ["table"]
    return re.findall(r"\\begin\{tabular\}\{[lr]+\}\n(.*?)\\end\{tabular\}", latex, re.DOTALL)


def cells_of(tabular: str) -> list[list[str]]:
    """The texts of the cells, without commands."""
    found = []
    for line in tabular.splitlines():
        if line.endswith(r" \\"):
            texts = re.split(r"(?<!\\)&", line.removesuffix(r"\\"))
            texts = [
                re.sub(r"\\multicolumn\{\d+\}\{c\}|\\textcolor\{gray\}|\\(textbf|underline)|\$\\\w+\$", "", t)
                for t in texts
            ]
            found.append([re.sub(r"\\([%_])", r"\1", re.sub(r"[{}]", "", text)).strip() for text in texts])
    return found


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_latex_parses_and_has_the_numbers_of_the_csv(name: str) -> None:
    table = filled(LAYOUTS[name], "alpha", "beta_%")
    [tabular] = tabulars(grid.latex(table))
    latex = cells_of(tabular)[-len(table.lines) :]
    lines = list(csv.reader(io.StringIO(grid.printed_csv(table))))[1:]
    numbers = re.compile(r"\d+\.\d+%?")
    assert len(latex) == len(lines) == len(table.lines)
    assert [numbers.findall(" ".join(line)) for line in latex] == [numbers.findall(" ".join(line)) for line in lines]
    assert sum(len(numbers.findall(" ".join(line))) for line in lines) >= 9
    assert tabular.count("\\midrule") == len(table.blocks)
    assert {line[-1] for line in lines} == {"published", "measured"}


def filled(layout: Layout, *methods: str) -> Grid:
    """The layout with its published rows and these measured ones."""
    wanted = {c.metric: 2.0 + at for at, c in enumerate(layout.columns) if c.metric and c.direction != "text"}
    return layouts.fill(layout, VALUES, {next(iter(layout.groups)): measured(*methods, metrics=wanted)})


def test_latex_compiles(tmp_path: Path) -> None:
    tex = shutil.which("pdflatex") or shutil.which("tectonic")
    if tex is None:
        pytest.skip("neither pdflatex nor tectonic is on this machine")
    drawn = [grid.latex(layouts.fill(layout, VALUES, {})) for layout in LAYOUTS.values()]
    drawn += [grid.latex(filled(layout, *HOSTILE)) for layout in LAYOUTS.values()]
    drawn += [grid.latex(small(name, name)) for name in HOSTILE]
    packages = "\\usepackage{amssymb,booktabs,graphicx,xcolor}"
    document = f"\\documentclass{{article}}{packages}\\begin{{document}}" + "\\clearpage\n".join(drawn)
    (tmp_path / "all.tex").write_text(document + "\\end{document}\n", encoding="utf-8")
    options = ["-halt-on-error", "-interaction=nonstopmode"] if "pdflatex" in tex else []
    done = subprocess.run([tex, *options, "all.tex"], cwd=tmp_path, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "all.pdf").stat().st_size > 10_000


STUDY = "participant,method,video,aspect,score\n"


def study(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "study.csv"
    path.write_text(STUDY + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_ratings_are_means_with_their_counts(tmp_path: Path) -> None:
    lines = [f"p{p},a,v{v},Emo.,{p + v}" for p, v in itertools.product((1, 2), (1, 2))] + [
        "p1,b,v1,Emo.,9",
        "p1,a,v1,Other,99",
    ]
    found = {c.method: c for c in ratings.read(study(tmp_path, *lines), {"Emo.": (1, 10)})}
    assert (found["a"].value, found["a"].n_used, found["a"].n_expected) == (3.0, 4, 4)
    assert (found["b"].value, found["b"].n_used, found["b"].n_expected) == (9.0, 1, 4)
    votes = ratings.read(study(tmp_path, "p1,a,v,Tend.,1", "p2,a,v,Tend.,0", "p3,a,v,Tend.,1"), {"Tend.": (0, 1)})
    assert votes[0].value == pytest.approx(200 / 3)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["p1,a,v1,Emo.,11"], "line 2: score '11'; expected 1 to 10"),
        (["p1,a,v1,Emo.,nan"], "line 2: score 'nan'"),
        (["p1,a,v1,Emo.,good"], "line 2: score 'good'"),
        (["p1,a,v1,Emo."], "line 2: score None"),
        (["p1,,v1,Emo.,3"], "line 2: method is empty"),
        (["p1,a,v1,Emo.,3", "p1,a,v1,Emo.,4"], "line 3: p1 rated Emo. of a, v1 in line 2"),
        (["p1,a,v1,Emotion,3"], "no scores of 'Emo.'; the file has Emotion"),
        ([], "no scores of 'Emo.'; the file has no ratings"),
    ],
)
def test_ratings_that_cannot_be_are_one_line(tmp_path: Path, lines: list[str], message: str) -> None:
    path = study(tmp_path, *lines)
    with pytest.raises(ResultError, match=re.escape(message)) as raised:
        ratings.read(path, {"Emo.": (1, 10)})
    assert str(raised.value).startswith(str(path))


def test_a_file_that_is_no_study_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "study.csv"
    path.write_text("participant,method,score\n")
    with pytest.raises(ResultError, match="no column video, aspect"):
        ratings.read(path, {"Emo.": (1, 10)})
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ResultError, match="not a readable CSV file"):
        ratings.read(path, {"Emo.": (1, 10)})


CLUSTERED = "form,emotion,identities,vectors,strength,null_mean,null_low,null_high,p,normalise,min_size,"
CLUSTERED += "permutations,seed,embeddings_sha256\n"


def clustered(path: Path, *lines: str, normalise: bool = False) -> Path:
    made = f",{normalise},2,100,0,abc\n"
    path.write_text(CLUSTERED + "".join(line + made for line in lines), encoding="utf-8")
    return path


def test_clustering_strengths_stand_beside_the_published_ones(tmp_path: Path) -> None:
    """From an embedding table, by the two commands that a user runs; the numbers are those of the library."""

    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(bench, ["--workspace", str(tmp_path), *words])
        return done.exit_code, done.output + (str(done.exception) if done.exception else "")

    rng, given, expected = np.random.default_rng(1), [], {}
    for at, name in enumerate(("audio", "video + audio")):
        words = [emotion for emotion in ("angry", "contempt", "disgusted", "sad") for _ in range(4)]
        vectors = rng.normal(size=(16, 3)) + np.repeat(np.arange(4), 4)[:, None] * (at + 1)
        columns = {"identity": ["A"] * 16, "emotion": words, "embedding": list(vectors)}
        pq.write_table(pa.table(columns), tmp_path / "e.parquet")
        expected[name] = strengths(clusters.read(tmp_path / "e.parquet"), "centroid", normalise=False)
        code, text = run(
            "clusters", str(tmp_path / "e.parquet"), "--permutations", "9", "--out", f"{tmp_path}/{at}.csv"
        )
        assert code == 0, text
        given += ["--clusters", f"{name}={tmp_path}/{at}.csv"]
    code, text = run("leaderboard", "--layout", "dice-talk-table-5", *given)
    assert code == 0, text
    assert "| *video + audio* | *6.57* | *5.64* | *7.63* | *8.38* |" in text
    both = expected["video + audio"]
    best, other = (float(f"{one['angry']:.2f}") for one in (both, expected["audio"]))
    assert best > other
    assert (
        f"| video + audio | **{best:.2f}** | **{both['contempt']:.2f}** | **{both['disgusted']:.2f}** | n/a |" in text
    )
    assert "audio, 95 % of shuffled emotions: angry" in text
    folder = tmp_path / "tables" / "dice-talk-table-5"
    behind = list(csv.DictReader((folder / "clusters.csv").open(encoding="utf-8")))
    assert len(behind) == 2 * 2 * 5
    assert len({line["embeddings_sha256"] for line in behind}) == 2
    code, _ = run("leaderboard", "--layout", "dice-talk-table-5")
    assert (folder / "clusters.csv").read_text(encoding="utf-8") == f"name,{CLUSTERED}"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["one.csv"], "--clusters 'one.csv'; expected NAME=FILE.csv"),
        (["a=one.csv", "a=one.csv"], "--clusters names 'a' twice"),
        (["a=none.csv"], "none.csv: not a readable CSV file"),
        (["a=study.csv"], "no column form, emotion"),
        (["a=twice.csv"], "line 3: centroid angry stands there twice"),
        (["a=nan.csv"], "line 2: strength 'nan'; expected a number from 0 on"),
        (["a=none-seen.csv"], "line 2: form, emotion, identities or vectors is missing, or no count"),
        (["a=empty.csv"], "empty.csv: no strengths"),
        (["a=one.csv", "b=scaled.csv"], "a and b were measured with different normalise"),
    ],
)
def test_a_report_of_clusters_that_cannot_be_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    line = "centroid,angry,1,4,1.5,1,0.9,1.1,0.01"
    clustered(Path("one.csv"), line)
    clustered(Path("scaled.csv"), line, normalise=True)
    clustered(Path("twice.csv"), line, line)
    clustered(Path("nan.csv"), line.replace("1.5", "nan"))
    clustered(Path("none-seen.csv"), line.replace(",4,", ",,"))
    clustered(Path("empty.csv"))
    study(tmp_path)
    with pytest.raises(BenchError, match=re.escape(message)) as raised:
        publish_layout("dice-talk-table-5", tmp_path, clustered=given)
    assert "\n" not in str(raised.value)
    with pytest.raises(BenchError, match="no column of dice-talk-table-1 is filled by clustering strength"):
        publish_layout("dice-talk-table-1", tmp_path, clustered=["a=one.csv"])


METRIC = {"fid/torch-fidelity": {"label": "FID", "direction": "lower", "digits": 2, "version": 1}}


def evaluated(
    workspace: Path, protocol: str, *methods: str, pairing: dict[str, str] | None = None, draws: bool = False
) -> None:
    for at, method in enumerate(methods):
        file = replicates.file_name(method, "fid/torch-fidelity") if draws else None
        row = Result(
            method=method,
            dataset="d",
            protocol=protocol,
            metric="fid/torch-fidelity",
            metric_version=1,
            clip_id=None,
            identity=None,
            group=None,
            value=7.0 + at,
            error=None,
            n_used=4,
            n_expected=4,
            replicates=file,
            run_id="",
        )
        if file:
            values = np.linspace(6.8, 7.4, 12)
            two = np.full(12, 2)
            replicates.write(Replicates(4, two, two, values, None), workspace / "results" / protocol / file)
        of = {
            "name": method,
            "title": method.title(),
            "kind": "method",
            "conditioning": "one-shot",
            "driven_by": "audio",
        }
        record = recorded([row], METRIC, method=of, clips={clip: {} for clip in "abcd"})
        record["protocol"] |= {"pairing": pairing or {}}
        write_run(workspace / "results" / protocol, [row], record)


def test_a_layout_carries_what_stands_behind_its_numbers(tmp_path: Path) -> None:
    """Intervals, other labs' rows, the sign of a video prior that sees its answer, and provenance."""
    own = {"emotion_video": "self"}
    evaluated(tmp_path, "dice-talk-hdtf", "ours", pairing=own)
    evaluated(tmp_path / "lab", "dice-talk-hdtf", "theirs", pairing=own, draws=True)
    other = tmp_path / "lab" / "results" / "dice-talk-hdtf"
    done = publish_layout("dice-talk-table-2", tmp_path, others=[other], style=Style(intervals=True))
    line = next(line for line in done.markdown.splitlines() if line.startswith("| Theirs"))
    assert re.search(r"7\.0000 \(-?\d+\.\d{4}, \d+\.\d{4}\)", line)
    assert "over its clips (halves drawn" in done.markdown
    assert "a video prior sees the ground truth" in done.markdown
    provenance = list(csv.DictReader((done.folder / "provenance.csv").open(encoding="utf-8")))
    assert [one["method"] for one in provenance] == ["ours", "theirs"]
    assert "see the ground truth" not in publish_layout("dice-talk-table-2", tmp_path, published_only=True).markdown


def test_a_layout_that_a_protocol_cannot_fill_is_no_table(tmp_path: Path) -> None:
    evaluated(tmp_path, "p", "ours")
    for name in ("dice-talk-table-5", "eat-face-table-2"):
        with pytest.raises(BenchError, match=f"no results of p for any column of {name}"):
            publish_layout(name, tmp_path, protocol="p")


def test_a_layout_takes_what_its_protocols_have(tmp_path: Path) -> None:
    evaluated(tmp_path, "dice-talk-mead", "alpha", "beta")
    done = publish_layout("dice-talk-table-1", tmp_path)
    [remark] = done.remarks
    assert remark.startswith("dice-talk-ood: no results yet; `bench eval")
    lines = {line[0]: line for line in csv.reader((done.folder / "table.csv").open(encoding="utf-8"))}
    assert lines["Alpha"][1:5] == ["audio", "n/a", "7.0000", "n/a"]
    assert lines["Alpha"][-1] == "measured"
    assert lines["Sonic"][3] == "52.2722"
    assert "**7.0000**" in done.markdown
    assert "<u>8.0000</u>" in done.markdown
    assert "\\textbf{7.0000}" in (done.folder / "table.tex").read_text(encoding="utf-8")
    tidy = list(csv.DictReader((done.folder / "tidy.csv").open(encoding="utf-8")))
    assert [(line["method"], line["value"], line["conditioning"]) for line in tidy if line["origin"] == "measured"] == [
        ("alpha", "7.0", "one-shot"),
        ("beta", "8.0", "one-shot"),
    ]
    assert len(tidy) == 12 * 13 + 2
    only = publish_layout("dice-talk-table-1", tmp_path, published_only=True)
    assert only.remarks == []
    assert "Alpha" not in only.markdown


def test_a_layout_over_a_protocol_is_written_beside_it(tmp_path: Path) -> None:
    evaluated(tmp_path, "demo", "alpha")
    done = publish_layout("eat-face-table-1", tmp_path, protocol="demo")
    assert done.folder == tmp_path / "tables" / "eat-face-table-1-demo"
    assert "MakeItTalk" not in done.markdown
    assert "| demo | Alpha |" in done.markdown
    with pytest.raises(BenchError, match="no results of none for any column of eat-face-table-1 to show; `bench eval"):
        publish_layout("eat-face-table-1", tmp_path, protocol="none")


def test_the_command_prints_every_table_of_the_papers_and_says_what_does_not_fit(tmp_path: Path) -> None:
    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(bench, ["--workspace", str(tmp_path), "leaderboard", *words])
        return done.exit_code, done.output + (str(done.exception) if done.exception else "")

    code, listed = run("--layouts")
    assert (code, [line.split()[0] for line in listed.splitlines()]) == (0, list(LAYOUTS))
    for name, layout in LAYOUTS.items():
        code, text = run("--layout", name, "--published-only")
        assert code == 0
        numbers = [v.value for v in published.of(VALUES, layout.source, layout.table) if v.family]
        assert [number for number in numbers if f"*{number}*" not in text] == []
    path = study(tmp_path, *(f"p,m{m},v,{a},{m + 2}" for m in (1, 2) for a in ("Emo.", "Vis-Q.", "Sync.", "ID-P")))
    code, text = run("--layout", "eat-face-table-3", "--ratings", str(path))
    assert code == 0
    assert "| m2 | **4.000** | **4.000** | **4.000** | **4.000** |" in text
    aspects = ("Emo.", "Vis-Q.", "Sync.", "ID-P")
    path = study(tmp_path, *(f"p,{m},v,{a},{n}" for m, n in (("m1", 3), ("m2", 4), ("still", 9)) for a in aspects))
    code, text = run("--layout", "eat-face-table-3", "--ratings", str(path))
    assert "| still | 9.000 | 9.000 | 9.000 | 9.000 |" in text  # a baseline is not ranked here either
    assert "| m2 | **4.000** |" in text
    for words, message in (
        (["--published-only"], "needs --layout"),
        (["--layout", "dice-talk-table-9"], "did you mean 'dice-talk-table-"),
        (["--layout", "dice-talk-table-1", "--ratings", str(path)], "no column of dice-talk-table-1"),
        (["--layout", "dice-talk-table-1", "--published-only", "--protocol", "demo"], "drop --protocol"),
        (["--layout", "dice-talk-table-3", "--ratings", str(path)], "no scores of 'Emotion'"),
    ):
        code, text = run(*words)
        assert code != 0
        assert message in text, text
