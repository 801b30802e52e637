"""From rendering to the leaderboard in the user's own commands, on two clips of the demo dataset."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmark import engine
from benchmark.cli import bench
from pipelines import manifest
from pipelines.datasets import demo

pytestmark = pytest.mark.usefixtures("one_pool")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One test identity, neutral and happy, a sentence each: rendered, prepared and evaluated."""
    folder = tmp_path_factory.mktemp("work space é")
    raw = folder / "raw"
    todo = [
        job
        for emotion, sentence in (("neutral", 1), ("happy", 2))
        for job in demo.jobs(raw, identities=("W107",), emotions=(emotion,), sentences=(sentence,), levels=(3,))
    ]
    assert all(outcome.error is None for outcome in engine.run(demo.render_clip, todo, workers=2))
    call(folder, "prepare", "demo", "--root", str(raw))
    for method in ("ground-truth", "still", "shuffled-audio"):
        call(folder, "eval", "--method", method, "--protocol", "demo")
    call(folder, "leaderboard", "--protocol", "demo")
    return folder


def call(workspace: Path, *arguments: str) -> str:
    result = CliRunner().invoke(bench, ["--workspace", str(workspace), *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()


@pytest.fixture(scope="module")
def tidy(workspace: Path) -> dict[tuple[str, str], dict[str, str]]:
    """(method, metric) -> the row of the whole set."""
    with (workspace / "tables/demo/tidy.csv").open(newline="") as file:
        return {(row["method"], row["metric"]): row for row in csv.DictReader(file) if row["group"] == "all"}


def test_the_demo_is_prepared_by_the_mead_code(workspace: Path) -> None:
    clips = manifest.read(workspace / "data/demo/manifest.parquet")
    assert len(clips) == 2
    assert {c.split for c in clips} == {"test"}
    assert {c.sentence for c in clips} == {demo.sentence(1), demo.sentence(2)}
    assert all(c.detected == 1.0 and abs(c.source_fps - 29.97) < 0.01 for c in clips)
    assert "no identity and no morph weight" in (workspace / "data/demo/split.json").read_text()


def test_sanity_of_the_table(tidy: dict[tuple[str, str], dict[str, str]]) -> None:
    def value(method: str, metric: str) -> float:
        return float(tidy[method, metric]["value"])

    for metric in ("psnr/frame-mean", "ssim/gaussian"):
        assert value("still", metric) < value("ground-truth", metric)
        assert value("shuffled-audio", metric) == value("ground-truth", metric)
    for metric in ("av-correlation/peak", "av-correlation/zero-lag"):
        assert value("shuffled-audio", metric) < value("ground-truth", metric) - 0.1
    for metric in ("psnr/frame-mean", "ssim/gaussian", "av-correlation/peak"):  # those that need no fetched network
        row = tidy["ground-truth", metric]
        assert row["n_used"] == row["n_expected"] == "2"


def test_set_metrics_have_a_floor(tidy: dict[tuple[str, str], dict[str, str]]) -> None:
    if not is_number(tidy["ground-truth", "fid/torch-fidelity"]["value"]):
        pytest.skip("FID Inception is not on this machine; `bench weights fetch fid-inception` gets it")
    fid = {method: float(row["value"]) for (method, metric), row in tidy.items() if metric == "fid/torch-fidelity"}
    assert 0 < fid["ground-truth"] == fid["shuffled-audio"] < fid["still"]
    assert fid["real-halves"] > 0


def test_a_papers_layout_is_filled_by_the_rows_of_the_demo(
    workspace: Path, tidy: dict[tuple[str, str], dict[str, str]]
) -> None:
    said = call(workspace, "leaderboard", "--layout", "eat-face-table-1", "--protocol", "demo")
    folder = workspace / "tables/eat-face-table-1-demo"
    table = list(csv.DictReader((folder / "table.csv").open(newline="", encoding="utf-8")))
    assert {row["Dataset"] for row in table} == {"demo"}
    still = next(row for row in table if row["Method"] == "Still reference")
    latex = (folder / "table.tex").read_text(encoding="utf-8")
    for column, metric in (("PSNR", "psnr/frame-mean"), ("SSIM", "ssim/gaussian")):
        shown = still[f"Reconstruction Quality: {column} ↑"]
        assert shown == f"{float(tidy['still', metric]['value']):.4f}"
        assert shown in latex
        assert shown in said
    assert still["Perceptual Similarity: LPIPS ↓"] == "n/a"  # the protocol does not ask for it


def test_nothing_is_done_twice(workspace: Path) -> None:
    features = {path: path.stat().st_mtime_ns for path in (workspace / "features").rglob("*.npz")}
    results = (workspace / "results/demo/still.parquet").read_bytes()
    call(workspace, "eval", "--method", "still", "--protocol", "demo")
    assert {path: path.stat().st_mtime_ns for path in (workspace / "features").rglob("*.npz")} == features
    assert (workspace / "results/demo/still.parquet").read_bytes() == results


def test_exported_videos_score_as_themselves(workspace: Path, tmp_path: Path) -> None:
    """The target videos that `bench protocol export` writes, handed in as a method's, are perfect."""
    call(workspace, "protocol", "export", "demo", "--to", str(tmp_path / "export"))
    with (tmp_path / "export/pairs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    for row in rows[:-1]:
        (outputs / f"{row['pair_id']}.mp4").write_bytes((tmp_path / "export" / row["target_video"]).read_bytes())
    said = call(workspace, "eval", "--videos", str(outputs), "--name", "copy", "--protocol", "demo")
    assert "1 of 2" in said
    call(workspace, "leaderboard", "--protocol", "demo")
    with (workspace / "tables/demo/tidy.csv").open(newline="") as file:
        copy = {r["metric"]: r for r in csv.DictReader(file) if r["method"] == "copy" and r["group"] == "all"}
    assert float(copy["ssim/gaussian"]["value"]) == 1.0
    assert (copy["ssim/gaussian"]["n_used"], copy["ssim/gaussian"]["n_expected"]) == ("1", "2")
    assert not is_number(copy["fid/torch-fidelity"]["value"])  # a set with a hole is refused
