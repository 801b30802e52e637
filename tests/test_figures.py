"""The figures: what is in the data is in the picture, the same bytes every time, and every bad input is one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from skimage.color import deltaE_ciede2000, rgb2lab
from tiny import clip, dataset, people, pictures, protocol_file

from benchmark import figures as job
from benchmark import protocol, qualitative
from benchmark.cli import bench
from benchmark.errors import BenchError
from leaderboards import figures, intervals, ratings
from pipelines import media
from pipelines.manifest import LABELS

SMALL = 'name = "small"\ntitle = "A small test"\ndataset = "tiny"\nmetrics = []\n'


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that would be written: making files of them takes longer than all else here."""
    made: list[Figure] = []

    def kept(figure: Figure, kind: figures.Kind) -> bytes:
        if figure not in made:
            made.append(figure)
        return kind.encode()

    monkeypatch.setattr(figures, "render", kept)
    return made


def run(workspace: Path, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(bench, ["--workspace", str(workspace), "figures", *words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def table(path: Path, **changes: object) -> Path:
    """Four emotions of two people around centres of their own, 12 vectors each of 6 numbers, as Parquet."""
    rng = np.random.default_rng(0)
    words = ("angry", "fear", "happy", "neutral")
    centres = 3 * np.eye(6)[: len(words)]
    rows = {"identity": [], "emotion": [], "intensity": [], "embedding": []}
    for k in range(12 * len(words)):
        rows["identity"].append("ab"[k % 2])
        rows["emotion"].append(words[k % 4])
        rows["intensity"].append(None if words[k % 4] == "neutral" else k % 3 + 1)
        rows["embedding"].append((centres[k % 4] + rng.normal(0, 0.2, 6)).tolist())
    frame = pd.DataFrame(rows).assign(**changes)
    frame[[name for name in frame if name not in changes or changes[name] is not None]].to_parquet(path)
    return path


def vectors(path: Path, word: str) -> np.ndarray:
    frame = pd.read_parquet(path)
    return np.stack(list(frame.loc[frame.emotion == word, "embedding"]))


def confusion_file(workspace: Path, text: str, protocol: str = "small", method: str = "ours") -> Path:
    path = workspace / "results" / protocol / "details" / method / "emo-acc_vgg16.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


COUNTS = "asked,angry,happy,sad\nangry,6,1,1\nhappy,0,4,0\nsad,0,0,0\n"


def study_file(path: Path, participants: int = 12) -> Path:
    """Two methods, two aspects, two videos of an emotion each."""
    rng = np.random.default_rng(0)
    lines = ["participant,method,video,aspect,score,emotion"]
    for person in range(participants):
        for method in ("a_1", "$b$"):
            for video, emotion in (("v", "happy"), ("w", "sad")):
                lines.append(f"p{person},{method},{video},Nat.,{rng.integers(1, 11)},{emotion}")
                lines.append(f"p{person},{method},{video},Tend.,{rng.integers(0, 2)},{emotion}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people with a neutral and two happy clips each, a protocol `small`, and videos of some of them."""
    tmp_path = tmp_path_factory.mktemp("prepared")
    made = dataset(tmp_path, people("a", "b"), frames=12)
    protocol_file(tmp_path, SMALL)
    outputs = tmp_path / "outputs"
    for row in (row for row in made if row.identity == "a"):
        media.write_video(outputs / f"{row.clip_id}.mp4", pictures(100, 8), 25)
    to = tmp_path / "generated" / "mine" / "small"
    media.write_video(to / "a_happy_1.mp4", pictures(200, 12), 25)
    media.write_video(to / "a_happy_2.mp4", pictures(201, 12), 25)
    record = {"pair_id": "", "key": "", "seconds": 0.0}
    digest = media.file_sha256(to / "a_happy_1.mp4")
    (to / "a_happy_1.json").write_text(json.dumps({**record, "sha256": digest, "error": None}))
    (to / "a_happy_2.json").write_text(json.dumps({**record, "sha256": "another", "error": None}))
    (to / "a_neutral_1.json").write_text(json.dumps({**record, "sha256": None, "error": "GeneratorError: no face"}))
    return tmp_path


@pytest.fixture
def workspace(prepared: Path, tmp_path: Path) -> Path:
    """A copy of `prepared` that a test may change."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    return tmp_path


def cells(figure: Figure) -> dict[tuple[int, int], np.ndarray | str]:
    """What stands in the grid, by row and column from the top left: a picture or a text."""
    boxes = {axes: axes.get_position() for axes in figure.axes}
    lefts = sorted({round(box.x0, 4) for box in boxes.values()})
    tops = sorted({round(1 - box.y1, 4) for box in boxes.values()})

    def content(axes: Axes) -> np.ndarray | str:
        return np.asarray(axes.images[0].get_array()) if axes.images else axes.texts[0].get_text().replace("\n", " ")

    return {(tops.index(round(1 - b.y1, 4)), lefts.index(round(b.x0, 4))): content(a) for a, b in boxes.items()}


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


# --- colours -----------------------------------------------------------------------------------------------------

# Machado, Oliveira and Fernandes 2009, Table 1, severity 1.0: linear RGB as a dichromat sees it.
SIGHTS = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


@pytest.mark.parametrize("sight", SIGHTS)
def test_no_two_emotions_look_alike_to_the_colour_blind(sight: str) -> None:
    linear = {word: np.power(to_rgb(colour), 2.2) for word, (colour, _) in figures.EMOTIONS.items()}
    lab = {word: rgb2lab(np.clip(SIGHTS[sight] @ rgb, 0, 1) ** (1 / 2.2)) for word, rgb in linear.items()}
    apart = {pair: float(deltaE_ciede2000(lab[pair[0]], lab[pair[1]])) for pair in combinations(lab, 2)}
    assert min(apart.values()) > 10, sorted(apart.items(), key=lambda item: item[1])[:5]


def test_every_label_of_a_manifest_has_a_colour_and_a_marker_of_its_own() -> None:
    assert list(figures.EMOTIONS) == list(LABELS)
    assert len({marker for _, marker in figures.EMOTIONS.values()}) == len(LABELS)  # what is left in grey


# --- embeddings --------------------------------------------------------------------------------------------------


def test_clusters_that_are_apart_stay_apart(tmp_path: Path) -> None:
    path = table(tmp_path / "prior.parquet")
    frame = pd.read_parquet(path)
    points, used = job.project(np.stack(list(frame.embedding)))
    assert used == pytest.approx(47 / 3)
    away = np.linalg.norm(points[:, None] - points, axis=2)
    same = frame.emotion.to_numpy()[:, None] == frame.emotion.to_numpy()
    assert away[same].max() < away[~same].min()
    again, _ = job.project(1e60 * np.stack(list(frame.embedding)) + 1e60)  # neither scale nor origin matters
    assert np.linalg.norm(again[:, None] - again, axis=2)[same].max() < away[~same].min()


@pytest.mark.parametrize("given", [np.eye(3), np.repeat(np.eye(2), 20, axis=0), np.arange(30.0)[:, None]])
def test_few_equal_and_plain_numbers_are_spread_out_too(given: np.ndarray) -> None:
    points, used = job.project(given)
    assert points.shape == (len(given), 2)
    assert np.isfinite(points).all()
    assert 1 <= used < len(given)


def test_t_sne_shows_each_point_once_by_emotion_and_once_by_intensity(tmp_path: Path, seen: list[Figure]) -> None:
    path = table(tmp_path / "prior.parquet")
    code, said = run(tmp_path, "tsne", str(path), "--perplexity", "8")
    assert code == 0
    assert said.splitlines() == [
        "t-SNE of 48 embeddings, perplexity 8, seed 0",
        *(str(tmp_path / "figures" / "prior" / f"tsne.{kind}") for kind in ("pdf", "svg")),
    ]
    frame = pd.read_parquet(path)
    points, _ = job.project(np.stack(list(frame.embedding)), 8)
    by_emotion, by_level = seen[0].axes
    for drawn in by_emotion.collections:
        expected = points[frame.emotion == drawn.get_label()]
        assert np.array_equal(drawn.get_offsets(), expected)
        assert tuple(drawn.get_facecolor()[0][:3]) == to_rgb(figures.EMOTIONS[drawn.get_label()][0])
    assert sum(len(drawn.get_offsets()) for drawn in by_emotion.collections) == 48
    levels: dict[tuple[float, ...], int] = {}
    for drawn in by_level.collections:
        shade = tuple(drawn.get_facecolor()[0])
        levels[shade] = levels.get(shade, 0) + len(drawn.get_offsets())
    counts = frame.intensity.value_counts(dropna=False)
    assert sorted(levels.values()) == sorted(counts)
    assert [text.get_text() for text in by_level.get_legend().get_texts()] == ["1", "2", "3", "not stated"]


def test_without_intensities_there_is_one_panel(tmp_path: Path, seen: list[Figure]) -> None:
    job.tsne(table(tmp_path / "prior.parquet", intensity=None), tmp_path)
    assert len(seen[0].axes) == 1


def test_the_heat_map_holds_the_cosines_of_mean_vectors(tmp_path: Path, seen: list[Figure]) -> None:
    visual = table(tmp_path / "visual.parquet")
    text = table(tmp_path / "text.parquet", embedding=list(np.random.default_rng(1).normal(size=(48, 6))))
    drawn = job.similarity(visual, tmp_path, against=text)
    assert [path.name for path in drawn.files] == ["similarity-text.pdf", "similarity-text.svg"]
    job.similarity(visual, tmp_path, against=text, softmax=True)
    order = ["angry", "fear", "happy", "neutral"]
    one, other = ([vectors(path, word).mean(0) for word in order] for path in (visual, text))
    expected = np.array([[a @ b / np.sqrt((a @ a) * (b @ b)) for b in other] for a in one])
    axes = seen[0].axes[0]
    assert np.asarray(axes.images[0].get_array()) == pytest.approx(expected, abs=1e-12)
    assert [label.get_text() for label in axes.get_yticklabels()] == order
    assert [label.get_text() for label in axes.get_xticklabels()] == order
    assert [text.get_text() for text in axes.texts] == [f"{value:z.2f}" for value in expected.ravel()]
    grown = np.exp(expected)
    assert np.asarray(seen[1].axes[0].images[0].get_array()) == pytest.approx(grown / grown.sum(1, keepdims=True))


def test_a_table_is_like_itself(tmp_path: Path, seen: list[Figure]) -> None:
    assert run(tmp_path, "similarity", str(table(tmp_path / "prior.parquet")))[0] == 0
    values = np.asarray(seen[0].axes[0].images[0].get_array())
    assert np.diag(values) == pytest.approx(1)
    assert np.array_equal(values, values.T)


# --- confusion ---------------------------------------------------------------------------------------------------


def test_confusion_shows_shares_of_rows_with_counts(tmp_path: Path, seen: list[Figure]) -> None:
    confusion_file(tmp_path, COUNTS)
    code, said = run(tmp_path, "confusion", "--protocol", "small", "--method", "ours")
    assert code == 0
    assert said.splitlines()[1].endswith("figures/small/confusion-ours-emo-acc_vgg16.svg")
    axes = seen[0].axes[0]
    shares = np.ma.filled(axes.images[0].get_array(), np.nan)
    assert np.array_equal(shares, [[6 / 8, 1 / 8, 1 / 8], [0, 1, 0], [np.nan] * 3], equal_nan=True)
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["75 %\n6", "12 %\n1", "12 %\n1", "0 %\n0", "100 %\n4", "0 %\n0", "-", "-", "-"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["angry (8)", "happy (4)", "sad (0)"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["angry", "happy", "sad"]


# --- user studies ------------------------------------------------------------------------------------------------


def test_bars_are_the_means_of_the_ratings_with_intervals_over_participants(tmp_path: Path, seen: list[Figure]) -> None:
    path, scales = study_file(tmp_path / "study.csv"), {"Nat.": (1.0, 10.0), "Tend.": (0.0, 1.0)}
    code, _ = run(tmp_path, "study", str(path), "--aspect", "Nat.", "1", "10", "--aspect", "Tend.", "0", "1")
    assert code == 0
    means = {(cell.method, cell.metric): cell.value for cell in ratings.read(path, scales)}
    plain = pd.read_csv(path).groupby(["method", "aspect"]).score.mean()
    given = ratings.scores(path, scales)
    for axes, aspect in zip(seen[0].axes, scales, strict=True):
        assert axes.get_title() == {"Nat.": "Nat.", "Tend.": "Tend. (%)"}[aspect]
        for method, bar, line in zip(("a_1", "$b$"), axes.patches, axes.lines[::2], strict=True):
            assert bar.get_width() == means[method, f"rating/{aspect}"]
            assert bar.get_width() == pytest.approx(plain[method, aspect] * (100 if aspect == "Tend." else 1))
            scores = [score for score in given if (score.method, score.aspect) == (method, aspect)]
            people = [score.participant for score in scores]
            interval = intervals.mean_interval([score.value for score in scores], people)
            assert tuple(line.get_xdata()) == (interval.low, interval.high)
    assert [label.get_text() for label in seen[0].axes[0].get_yticklabels()] == ["a_1", "$b$"]


def test_letters_that_the_font_lacks_are_spelt_out(tmp_path: Path, seen: list[Figure]) -> None:
    path = tmp_path / "study.csv"
    path.write_text("participant,method,video,aspect,score\np,\u6211 é,v,\u8d28,3\n", encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        job.study(path, tmp_path, {"\u8d28": (1, 10)})
        drawn = figures.grid([["\u6211"]], ["\u6211"], ["é"], row_groups=[("\u6211", 1)])
        figures.render(drawn, "pdf")
    [axes] = seen[0].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["[U+6211] é"]
    assert axes.get_title() == "[U+8D28]"


def test_with_few_participants_no_interval_is_claimed(tmp_path: Path, seen: list[Figure]) -> None:
    path = study_file(tmp_path / "study.csv", participants=9)
    _, said = run(tmp_path, "study", str(path), "--aspect", "Nat.", "1", "10")
    assert said.startswith("fewer than 10 participants: no interval is drawn there\n")
    assert not seen[0].axes[0].lines


def test_bars_by_emotion_have_the_colours_of_emotions_and_an_average(tmp_path: Path, seen: list[Figure]) -> None:
    path, scales = study_file(tmp_path / "study.csv"), {"Nat.": (1.0, 10.0)}
    job.study(path, tmp_path, scales, by="emotion", method="a_1")
    axes = seen[0].axes[0]
    given = [score for score in ratings.scores(path, scales) if score.method == "a_1"]
    means = {w: np.mean([s.value for s in given if s.emotion == w]) for w in ("happy", "sad")}
    assert [bar.get_width() for bar in axes.patches] == pytest.approx(list(means.values()))
    assert [bar.get_facecolor()[:3] for bar in axes.patches] == [to_rgb(figures.EMOTIONS[word][0]) for word in means]
    assert axes.lines[-1].get_xdata()[0] == pytest.approx(np.mean(list(means.values())))


# --- grids -------------------------------------------------------------------------------------------------------


def test_a_grid_shows_the_very_frames_and_says_why_one_is_missing(workspace: Path, seen: list[Figure]) -> None:
    methods = f"ours={workspace / 'outputs'},mine"
    code, said = run(
        *(workspace, "grid", "--protocol", "small", "--clips", "a_happy_1,a_neutral_1", "--methods", methods),
        *("--at", "time", "--times", "0.06,0.2,0.4"),
    )
    assert code == 0, said
    assert said.splitlines()[0].endswith("figures/small/grid-time-a_happy_1+1.pdf")
    shown = cells(seen[0])
    numbers = [2, 5, 10]  # 0.06 s is 1.5 frames
    for clip_number, name in enumerate(("a_happy_1", "a_neutral_1")):
        real = list(media.read_frames(workspace / "data" / "tiny" / f"{name}.mp4"))
        ours = list(media.read_frames(workspace / "outputs" / f"{name}.mp4"))
        neutral = next(media.read_frames(workspace / "data" / "tiny" / "a_neutral_1.mp4"))
        assert np.array_equal(shown[0, 3 * clip_number], neutral)
        for column, number in enumerate(numbers, 3 * clip_number):
            assert np.array_equal(shown[1, column], real[number])
            expected = ours[number] if number < 8 else "ends before 0.4 s"
            assert np.array_equal(shown[2, column], expected)
    mine = list(media.read_frames(workspace / "generated" / "mine" / "small" / "a_happy_1.mp4"))
    assert all(np.array_equal(shown[3, column], mine[number]) for column, number in enumerate(numbers))
    assert [shown[3, column] for column in (3, 4, 5)] == ["not generated: GeneratorError: no face"] * 3
    assert words(seen[0]) == [
        *["0.06 s", "0.2 s", "0.4 s"] * 2,
        *("a_happy_1", "a_neutral_1", "Reference", "Ground truth", "ours", "mine"),
    ]


def test_emotions_stand_in_the_order_of_the_vocabulary_for_each_person(workspace: Path, seen: list[Figure]) -> None:
    clips = "a_neutral_1,a_happy_2,b_happy_1"
    code, said = run(
        *(workspace, "grid", "--protocol", "small", "--clips", clips, "--methods", "mine"),
        *("--at", "emotion", "--times", "0.2"),
    )
    assert code == 0, said
    shown = cells(seen[0])
    for place, name in {(1, 0): "a_happy_2", (1, 1): "a_neutral_1", (4, 0): "b_happy_1"}.items():
        assert np.array_equal(shown[place], list(media.read_frames(workspace / "data" / "tiny" / f"{name}.mp4"))[5])
    assert shown[4, 1] == "no such clip among those asked for"
    assert shown[2, 0] == "is not the video that was generated"
    assert shown[5, 0] == "not generated"
    assert words(seen[0])[:2] == ["happy", "neutral"]
    assert words(seen[0])[-2:] == ["a", "b"]


def test_words_are_shown_where_the_label_file_has_them(workspace: Path, seen: list[Figure]) -> None:
    labels = workspace / "words.csv"
    labels.write_text("clip,start,label\nb_happy_1,0.32,$w_1$\nother,1,x\nb_happy_1,0.04,the\n", encoding="utf-8")
    qualitative.grid(protocol.load("small", workspace), ["b_happy_1"], ["mine"], workspace, at="word", labels=labels)
    real = list(media.read_frames(workspace / "data" / "tiny" / "b_happy_1.mp4"))
    shown = cells(seen[0])
    assert np.array_equal(shown[1, 0], real[1])
    assert np.array_equal(shown[1, 1], real[8])
    assert words(seen[0])[:2] == ["the", "$w_1$"]


def test_a_changed_clip_and_a_still_portrait_are_told_in_their_places(workspace: Path, seen: list[Figure]) -> None:
    media.write_video(workspace / "data" / "tiny" / "b_happy_2.mp4", pictures(7, 12), 25)
    asked = protocol.load("small", workspace)
    qualitative.grid(asked, ["b_happy_2"], ["mine"], workspace, at="time", times=[0])
    assert str(cells(seen[0])[1, 0]).startswith("is not the file that was prepared")
    portrait = protocol.Pair("p", clip("p", video="p.png"), None, None, "happy", "happy", "no neutral clip")
    assert qualitative._truth(asked, workspace, portrait) == "a still portrait: nobody recorded this"
    assert qualitative._reference(asked, workspace, portrait) == "no neutral clip"


# --- files -------------------------------------------------------------------------------------------------------

SCRIPT = """
import hashlib, numpy as np
from leaderboards import figures
bar = figures.Bar("$\\\\frac{a_b$", 2.0, (1.0, 3.0))
made = [
    figures.bars({"x_y": [bar]}, {"x_y": 5.0}, average=True, note="n"),
    figures.scatter(np.eye(3)[:, :2], ["happy", "sad", "sad"], [1, None, 2], "t"),
    figures.grid([[np.zeros((8, 8, 3), np.uint8), "none"]], ["r"], ["a", "b"], column_groups=[("g", 2)]),
]
for figure in made:
    for kind in figures.KINDS:
        print(hashlib.sha256(figures.render(figure, kind)).hexdigest())
"""


def test_two_runs_give_the_same_bytes_whatever_the_users_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exec(SCRIPT, {})
    here = capsys.readouterr().out.split()
    (tmp_path / "matplotlibrc").write_text(
        "font.size: 30\ntext.usetex: true\nsvg.fonttype: none\naxes.facecolor: red\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1", "MATPLOTLIBRC": str(tmp_path)}
    environment.pop("DISPLAY", None)
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, text=True, capture_output=True, check=True)
    assert done.stdout.split() == here
    assert len(set(here)) == 6


def test_files_are_of_their_kind_without_dates_and_nothing_else_is_left(workspace: Path) -> None:
    asked = protocol.load("small", workspace)
    first = qualitative.grid(asked, ["a_happy_1"], ["mine"], workspace, at="time").files
    content = [path.read_bytes() for path in first]
    assert [
        path.read_bytes() for path in qualitative.grid(asked, ["a_happy_1"], ["mine"], workspace, at="time").files
    ] == content
    assert content[0].startswith(b"%PDF-1.4")
    assert b"CreationDate" not in content[0]
    assert ElementTree.fromstring(content[1]).tag == "{http://www.w3.org/2000/svg}svg"
    assert b"<dc:date>" not in content[1]
    assert set((workspace / "figures" / "small").iterdir()) == set(first)


# --- bad input ---------------------------------------------------------------------------------------------------


def _embedding(change: Callable[[list[list[float]]], object]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        rows = np.random.default_rng(0).normal(size=(48, 6)).tolist()
        change(rows)
        return table(folder / "bad.parquet", embedding=rows)

    return make


def _set(row: int, value: list[float]) -> Callable[[list[list[float]]], object]:
    return lambda rows: rows.__setitem__(row, value)


def _short(folder: Path, count: int) -> Path:
    path = folder / "short.parquet"
    pd.read_parquet(table(path))[:count].to_parquet(path)
    return path


@pytest.mark.parametrize(
    ("command", "make", "expected"),
    [
        ("tsne", lambda f: table(f / "bad.parquet", emotion=None), "no column emotion; it has"),
        ("similarity", lambda f: table(f / "bad.parquet", embedding=None), "no column embedding; it has"),
        ("tsne", _embedding(_set(3, [0.0] * 5)), "embeddings of 5, 6 numbers; expected one length"),
        ("similarity", _embedding(_set(3, [np.nan] * 6)), "1 of 48 embeddings are NaN, infinite or huge"),
        ("tsne", lambda f: _short(f, 0), "no rows"),
        ("tsne", lambda f: _short(f, 2), "2 embeddings; t-SNE needs 3 at least"),
        ("tsne", _embedding(lambda rows: rows.__setitem__(slice(None), [[0.1] * 6] * 48)), "are all the same"),
        ("similarity", _embedding(lambda rows: rows.__setitem__(slice(None), [[0.0] * 6] * 48)), "have the mean 0"),
        ("tsne", lambda f: table(f / "bad.parquet", emotion="hapy"), "'hapy' is none of the vocabulary; did you mean"),
        ("tsne", lambda f: table(f / "bad.parquet", intensity="high"), "intensity 'high' in row 0; expected a level"),
        ("tsne", lambda f: table(f / "bad.parquet", intensity=1.5), "intensity 1.5 in row 0; expected a level"),
        ("tsne", lambda f: study_file(f / "study.csv"), "not a Parquet file that can be read"),
    ],
)
def test_bad_embeddings_are_one_line(tmp_path: Path, command: str, make: Callable[[Path], Path], expected: str) -> None:
    code, said = run(tmp_path, command, str(make(tmp_path)))
    refused(tmp_path, code, said, expected)


def refused(workspace: Path, code: int, said: str, expected: str) -> None:
    assert code == 1
    assert said.startswith("Error: ")
    assert expected in said
    assert said.count("\n") == 1
    assert not (workspace / "figures").exists()


def test_a_perplexity_or_a_space_that_does_not_fit_is_one_line(tmp_path: Path) -> None:
    path = str(table(tmp_path / "prior.parquet"))
    refused(tmp_path, *run(tmp_path, "tsne", path, "--perplexity", "48"), "--perplexity 48 with 48 embeddings")
    refused(tmp_path, *run(tmp_path, "tsne", path, "--perplexity", "nan"), "--perplexity nan with 48 embeddings")
    other = str(table(tmp_path / "text.parquet", embedding=np.eye(48)[:, :9].tolist()))
    said = "embeddings of 6 numbers, "
    refused(tmp_path, *run(tmp_path, "similarity", path, "--against", other), said)


@pytest.mark.parametrize(
    ("words", "text", "expected"),
    [
        ("--protocol smal --method ours", COUNTS, "did you mean 'small'?"),
        ("--protocol small --method our", COUNTS, "did you mean 'ours'?"),
        ("--protocol small --method ../ours", COUNTS, "did you mean 'ours'?"),
        ("--protocol small --method ours --metric emo-acc/vgg", COUNTS, "did you mean 'emo-acc/vgg16'?"),
        ("--protocol small --method ours", "", "no counts"),
        ("--protocol small --method ours", "asked,angry\n", "no counts"),
        ("--protocol small --method ours", "asked,angry\nangry,nan\n", "line 2 is no emotion with 1 counts"),
        ("--protocol small --method ours", "asked,angry\nangry,-1\n", "line 2 is no emotion with 1 counts"),
        ("--protocol small --method ours", "asked,angry\nangry,1,2\n", "line 2 is no emotion with 1 counts"),
        ("--protocol small --method ours", "asked,angry\nangry,0\n", "every count is 0"),
        ("--protocol small --method ours", 'asked,"angry\nangry,0\n', "not a table of counts that can be read"),
    ],
)
def test_bad_counts_are_one_line(tmp_path: Path, words: str, text: str, expected: str) -> None:
    confusion_file(tmp_path, text)
    refused(tmp_path, *run(tmp_path, "confusion", *words.split()), expected)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--aspect Natt. 1 10", "no scores of 'Natt.'; the file has Nat., Tend."),
        ("--aspect Nat. 1 5", "expected 1 to 5"),
        ("--aspect Nat. 1 10 --method a_2", "no scores of --method 'a_2'; did you mean 'a_1'?"),
        ("--aspect Nat. 1 10 --by emotion", "choose it by --method (a_1, $b$)"),
        ("--aspect Nat. 10 1", "--aspect 'Nat.' 10 1: expected the lowest score, then the highest"),
        ("--aspect Nat. 1 nan", "--aspect 'Nat.' 1 nan: expected the lowest score, then the highest"),
        ("--aspect Nat. 1 inf", "--aspect 'Nat.' 1 inf: expected the lowest score, then the highest"),
    ],
)
def test_a_bad_study_is_one_line(tmp_path: Path, words: str, expected: str) -> None:
    path = study_file(tmp_path / "study.csv")
    refused(tmp_path, *run(tmp_path, "study", str(path), *words.split()), expected)


def test_a_study_without_emotions_has_none_to_show(tmp_path: Path) -> None:
    path = tmp_path / "study.csv"
    path.write_text("participant,method,video,aspect,score\np,a,v,Nat.,3\n", encoding="utf-8")
    told = "--by emotion needs the column emotion"
    refused(tmp_path, *run(tmp_path, "study", str(path), "--aspect", "Nat.", "1", "10", "--by", "emotion"), told)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            "--clips a_hapy_1 --methods mine --at time",
            "none of the 6 pairs of the protocol; did you mean 'a_happy_1'",
        ),
        ("--clips nope --methods mine --at time", "'nope' is none of the 6 pairs of the protocol; known: a_happy_1,"),
        ("--clips a_happy_1,a_happy_1 --methods mine --at time", "--clips names 'a_happy_1' twice"),
        ("--clips , --methods mine --at time", "--clips names nothing"),
        ("--clips a_happy_1 --methods mines --at time", "'mines' is no method; did you mean 'mine'?"),
        ("--clips a_happy_1 --methods ground-truth --at time", "always has a row"),
        ("--clips a_happy_1 --methods x=nowhere --at time", "nowhere is no folder"),
        ("--clips a_happy_1 --methods mine --at time --times -1", "--times -1; expected seconds"),
        ("--clips a_happy_1 --methods mine --at time --times nan", "--times nan; expected seconds"),
        ("--clips a_happy_1 --methods mine --at time --times 1s", "--times '1s'; expected seconds"),
        ("--clips a_happy_1 --methods mine --at emotion --times 1,2", "shows one frame of each clip"),
        ("--clips a_happy_1,a_happy_2 --methods mine --at emotion", "both show a, happy"),
        ("--clips a_happy_1 --methods mine --at word", "--labels FILE.csv goes with --at word"),
    ],
)
def test_a_grid_that_cannot_be_is_one_line(workspace: Path, words: str, expected: str) -> None:
    refused(workspace, *run(workspace, "grid", "--protocol", "small", *words.split()), expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("clip,start\na_happy_1,0\n", "no column label; labels have clip, start, label"),
        ("", "no column clip, start, label"),
        ("clip,start,label\na_happy_1,soon,x\n", "line 2: start 'soon', label 'x'"),
        ("clip,start,label\na_happy_1,0.1\n", "line 2: start '0.1', label ''"),
        ("clip,start,label\na_happy_2,0.1,x\n", "no labels of a_happy_1"),
    ],
)
def test_labels_that_cannot_be_read_are_one_line(workspace: Path, text: str, expected: str) -> None:
    path = workspace / "words.csv"
    path.write_text(text, encoding="utf-8")
    words = f"--clips a_happy_1 --methods mine --at word --labels {path}".split()
    refused(workspace, *run(workspace, "grid", "--protocol", "small", *words), expected)


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    confusion_file(tmp_path, COUNTS)
    (tmp_path / "figures").write_text("a file where the folder should be")
    with pytest.raises(BenchError, match="cannot be written"):
        job.confusion("small", "ours", tmp_path)
