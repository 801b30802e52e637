"""What `bench metrics` prints holds for every metric, whether its networks are here or not."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmark.cli import bench
from metrics import base


@pytest.fixture
def no_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("benchmark.weights._cache", lambda: tmp_path / "cache")


@pytest.mark.usefixtures("no_networks")
def test_every_metric_has_a_line_and_a_page_without_its_networks() -> None:
    listed = CliRunner().invoke(bench, ["metrics", "list"])
    assert listed.exit_code == 0, listed.output
    for name in base.names():
        metric = base.metric(name)
        (line,) = (line for line in listed.output.splitlines() if line.startswith(f"{name} "))
        needs_network = any(base.extractor(e).weights for side, e in metric.needs if side != "asked")
        assert ("unavailable" in line) == needs_network
        page = CliRunner().invoke(bench, ["metrics", "show", name])
        assert page.exit_code == 0, page.output
        assert metric.source in page.output
        assert ("get it with `bench" in page.output) == needs_network
        assert metric.compute.__doc__, f"{name}: its definition is the docstring of what computes it"


def test_an_unknown_metric_is_one_line() -> None:
    shown = CliRunner().invoke(bench, ["metrics", "show", "fid/torch-fidelty"])
    assert shown.exit_code == 1
    assert "did you mean 'fid/torch-fidelity'?" in shown.output
    assert len(shown.output.strip().splitlines()) == 1
