"""What `bench metrics` prints holds for every metric, whether its networks are here or not."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmark import configs
from benchmark.cli import bench
from metrics import base
from pipelines.crop import ARCFACE_TEMPLATE


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


def page(name: str) -> str:
    shown = CliRunner().invoke(bench, ["metrics", "show", name])
    assert shown.exit_code == 0, shown.output
    return shown.output


def test_a_family_is_answered_with_its_variants() -> None:
    shown = CliRunner().invoke(bench, ["metrics", "show", "fvd"])
    assert shown.exit_code == 1
    assert shown.output.strip().endswith("its variants: fvd/i3d-16f, fvd/i3d-all-frames")


def test_a_hint_names_few_of_many() -> None:
    assert configs.nearest("?", ["a", "b"]) == "known: a, b"
    assert configs.nearest("?", [str(k) for k in range(20)]).endswith(", 15 and 4 more")


def test_pages_of_syncnet_say_what_a_variant_does() -> None:
    longer, shorter = page("lse-c/syncnet-python"), page("lse-c/syncnet-python-min50")
    assert "more than 100 detections and 100 px" in longer
    assert "more than 50 detections and 100 px" in shorter
    for constant in (
        "25 fps, coded as mpeg4-q2, then coded as jpeg-q2",
        "coded as mp3: 1105 samples late, the picture 2 frames",
        "S3FD above 0.9 of the picture at scale 0.25",
        "IoU above 0.5, over gaps of 25 frames or fewer",
        "(margin 0.4), grey 110 outside",
        "median filter of 13 frames",
        "coded as mpeg4-opencv, then coded as jpeg",
        "n - 5 of n frames",
        "eps 1e-06",
        "±15 shifts; zero padding",
    ):
        assert constant in longer, constant
    assert "crop's voice  coded as aac" in page("lse-d/latentsync")
    whole, ready, own = page("lse-d/wav2lip-lrs"), page("lse-d/cropped"), page("lse-d/bench")
    assert "the whole frame squashed to 224 x 224 px" in whole
    assert "the frames are crops of 224 x 224 px" in ready
    for untracked in (whole, ready):
        assert "coded as jpeg" in untracked
        assert "IoU" not in untracked
        assert "S3FD" not in untracked
    assert "25 fps, not recoded" in own
    assert "the box of the 478 landmarks" in own
    assert "more than 24 detections\n" in own


def test_pages_give_the_template_and_no_internal_arguments() -> None:
    shown = page("csim/w600k_mbf-to-frame")
    for x, y in ARCFACE_TEMPLATE:
        assert f"({x:.4f}, {y:.4f})" in shown
    assert "traps" not in page("fvd/i3d-16f")
