"""bench explain: variants and choices on the same clips, nothing written but features."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from click.testing import CliRunner
from skimage import data
from tiny import MeanColour, dataset, people, protocol_file

from benchmark import engine, evaluate, explain, extraction, protocol, weights
from benchmark.cli import bench
from benchmark.errors import BenchError
from benchmark.evaluate import Settings
from benchmark.explain import CHOICES, Choice, Row
from benchmark.protocol import Protocol
from metrics import base
from metrics.base import ClipViews, Features, Metric, Replicates
from metrics.networks import i3d


class Scaled(MeanColour):
    """Mean colour in [0, 255], or in [0, 1] with the option "unsigned"."""

    def __init__(self, frames: int | None, unsigned: bool) -> None:
        super().__init__(frames)
        self.id = f"scaled@1{'+unsigned' if unsigned else ''}"
        self._divisor = 255 if unsigned else 1

    def __call__(self, chunks: Iterable[ClipViews]) -> dict[str, np.ndarray]:
        return {"colour": super().__call__(chunks)["colour"] / self._divisor}


def make(weights: Mapping[str, base.Weights], options: Mapping[str, Any]) -> Scaled:
    return Scaled(options.get("frames_per_clip"), options.get("unsigned", False))


def mean(clips: Iterable[Features]) -> float:
    return float(np.mean([clip["colour"].mean() for clip in clips]))


def draws(seed: int, generated: Any) -> Replicates:
    """About half of the clips, twice, then about a quarter."""
    of = [clip["colour"].mean() for clip in generated()]
    picked = [of[:3], of[3:], of[:2]]
    sizes = np.array([len(one) for one in picked])
    return Replicates(len(of), sizes, sizes, np.array([np.mean(one) for one in picked]), 7.5)


GENERATED = (("generated", "scaled"),)
ITEMS = (
    base.ExtractorSpec("scaled", make),
    base.ExtractorSpec("needy", make, ("syncnet-v2",)),
    Metric("shade/set", 1, GENERATED, "set", "", "lower", mean, "Shade", 3, "a test", replicates=draws),
    Metric("shade/clip", 1, GENERATED, "clip", "", "lower", lambda one: mean([one]), "Shade", 2, "a test"),
    Metric("shade/absent", 1, (("generated", "needy"),), "clip", "", "lower", lambda one: mean([one]), "S", 2, "t"),
)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips of blocks of colour, and the protocol "small". What one test has extracted the others find."""
    folder = tmp_path_factory.mktemp("workspace")
    dataset(folder, people("a", "b"), frames=6)
    text = tiny.PROTOCOL.replace('"colour/clip"', '"shade/set"')
    protocol_file(folder, text + '[pairing]\nreference = "first-frame"\n')
    return folder


@pytest.fixture
def asked(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Protocol:
    """The protocol, with the family "shade" and no processes."""
    base.names()
    for item in (*tiny.COLOUR, *ITEMS):
        monkeypatch.setitem(base._METRICS if isinstance(item, Metric) else base._EXTRACTORS, item.name, item)
    monkeypatch.setattr(weights, "_folders", lambda: iter(()))
    monkeypatch.setattr(engine, "run", tiny.run_here)
    monkeypatch.setitem(
        CHOICES,
        "shade",
        (
            Choice("range", "[0, 1]", {"unsigned": True}),
            Choice("frames a clip", "1", protocol={"frames_per_clip": 1}),
            Choice("frames a clip", "3", protocol={"frames_per_clip": 3}),
        ),
    )
    extraction._build.cache_clear()
    return protocol.load("small", workspace)


def explained(words: str, asked: Protocol, workspace: Path) -> list[Row]:
    method, entries = evaluate.method_entries("ground-truth", asked, workspace, Settings())
    return explain.explain(words, entries, method, asked, workspace, Settings()).rows


def test_variants_and_choices(asked: Protocol, workspace: Path) -> None:
    rows = explained("shade", asked, workspace)
    assert [(row.what, row.value) for row in rows] == [
        ("variant", "shade/set"),  # the protocol has it
        ("variant", "shade/absent"),
        ("variant", "shade/clip"),
        ("range", "[0, 1]"),
        ("frames a clip", "1"),  # the protocol has 3
        ("eval_crop", "common-detector: both sides anew around the face, 256 px"),
        ("N", "half of the clips"),
        ("N", "a quarter of the clips"),
        ("N", "infinitely many vectors, extrapolated"),
    ]
    default, absent, clip, unsigned, one, crop, half, quarter, infinite = rows
    assert default.clips == clip.clips == (6, 6)
    assert default.change is None
    assert isinstance(default.score, float)
    assert clip.score == pytest.approx(default.score)
    assert absent.score == "unavailable: " + str(weights.WeightsUnavailable("syncnet-v2", _command()))
    assert absent.change is None
    assert unsigned.score == pytest.approx(default.score / 255)
    assert unsigned.change == pytest.approx(default.score / 255 - default.score)
    assert isinstance(one.score, float)
    assert one.change == pytest.approx(one.score - default.score)
    assert one.change != 0
    assert isinstance(crop.score, str)  # blocks of colour have no face
    assert crop.clips == (0, 6)
    assert (half.clips, quarter.clips) == ((3, 6), (2, 6))
    assert half.note.startswith("mean of 2 draws: ")
    assert infinite.score == 7.5


def _command() -> str:
    return weights.entry("syncnet-v2").command


def test_nothing_is_written_but_features_and_the_second_call_extracts_nothing(asked: Protocol, workspace: Path) -> None:
    for folder in (workspace / "features").glob("scaled*"):
        shutil.rmtree(folder)
    shutil.rmtree(workspace / "results", ignore_errors=True)
    Scaled.calls = 0
    first = explained("shade", asked, workspace)
    assert Scaled.calls == 6 * 3  # the default's (all variants share them), unsigned, one frame; no crop has a face
    assert explained("shade", asked, workspace) == first
    assert Scaled.calls == 6 * 3
    assert [path for path in (workspace / "results").rglob("*") if path.is_file()] == []


def test_the_score_is_that_of_eval(asked: Protocol, workspace: Path) -> None:
    rows = explained("shade", asked, workspace)
    done = evaluate.evaluate_method("ground-truth", asked, workspace, Settings(metrics=("shade/set",)))
    assert [row.value for row in done.rows] == [rows[0].score]


def test_a_metric_of_the_family_may_be_the_default(asked: Protocol, workspace: Path) -> None:
    rows = explained("shade/clip", asked, workspace)
    assert [row.value for row in rows[:3]] == ["shade/clip", "shade/absent", "shade/set"]
    assert "N" not in {row.what for row in rows}  # a mean over clips is not biased by their number


def test_the_default_without_a_protocol_has_its_networks(asked: Protocol) -> None:
    default, others = explain.variants("shade", replace(asked, metrics=()))
    assert default.name == "shade/clip"  # "shade/absent" comes first, but cannot be computed here
    assert [metric.name for metric in others] == ["shade/absent", "shade/set"]


def test_a_family_without_choices(asked: Protocol, workspace: Path) -> None:
    rows = explained("colour", asked, workspace)
    assert [row.what for row in rows] == ["variant", "variant", "eval_crop"]


def test_too_few_clips_are_said_so() -> None:
    metric = replace(base.metric("fid/torch-fidelity"))
    none = np.zeros(0, np.int64)
    default = Row("variant", metric.name, 1.0, clips=(3, 3))
    [row] = explain._numbers(metric, default, Replicates(3, none, none, none.astype(float), None))
    assert row.score == "too few clips for draws; at least 4 are needed"


def test_unknown_names(asked: Protocol) -> None:
    with pytest.raises(BenchError, match="--metric 'fdv' is no family of metrics and no metric; did you mean 'fvd'"):
        explain.variants("fdv", asked)
    with pytest.raises(BenchError, match="--metric 'fvd/i3d' is no family"):
        explain.variants("fvd/i3d", asked)


def test_the_table(asked: Protocol, workspace: Path) -> None:
    options = ["--method", "ground-truth", "--protocol", "small", "--workers", "1"]
    done = CliRunner().invoke(bench, ["--workspace", str(workspace), "explain", "--metric", "shade", *options])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    heads = [line for line in lines if line.startswith("choice")]
    assert heads[0].split() == ["choice", "value", "score", "change", "clips"]
    table = lines[lines.index(heads[0]) + 1 :]
    assert table[0].split()[3:] == ["default", "6", "of", "6"]
    assert "unavailable: syncnet-v2 is not on this machine" in table[1]
    assert table[3].split()[-4:] == ["-99.6%", "6", "of", "6"]


def test_a_folder_of_videos(asked: Protocol, workspace: Path) -> None:
    videos = workspace / "data" / "tiny"
    options = ["--videos", str(videos), "--name", "mine", "--protocol", "small", "--workers", "1"]
    done = CliRunner().invoke(bench, ["--workspace", str(workspace), "explain", "--metric", "shade/clip", *options])
    assert done.exit_code == 0, done.output
    assert "6 of 6" in done.output
    wrong = CliRunner().invoke(bench, ["--workspace", str(workspace), "explain", "--metric", "shade"])
    assert wrong.exit_code == 1
    assert "give either --method NAME" in wrong.output


# --- the choices of the registered networks ------------------------------------------------------------------------


DIGEST = base.Weights(Path(), "0" * 64)


def extractors(metric: str, options: Mapping[str, Any]) -> list[base.Extractor]:
    specs = [base.extractor(name) for _, name in base.metric(metric).needs]
    return [spec.make(dict.fromkeys(spec.weights, DIGEST), options) for spec in specs]


@pytest.mark.parametrize("metric", ["fvd/i3d-all-frames", "fvd/i3d-16f", "lpips/alex", "kid/torch-fidelity"])
def test_every_option_has_its_own_place_in_the_store(metric: str) -> None:
    """Equal ids would give one choice the features of another."""
    choices = [c for c in CHOICES[metric.partition("/")[0]] if c.options]
    plain = extractors(metric, {})
    for side in range(len(plain)):
        ids = [plain[side].id, *(extractors(metric, choice.options)[side].id for choice in choices)]
        assert len(set(ids)) == len(ids) == len(choices) + 1


def test_minimum_tracks_have_their_own_place_in_the_store() -> None:
    ids = {extractors("lse-d/bench", choice.options)[0].id for choice in CHOICES["lse-d"]}
    assert len(ids | {extractors("lse-d/bench", {})[0].id}) == 4


@pytest.mark.parametrize(
    ("variant", "counts"),
    [
        ("bench", [25, 50, 100]),
        ("syncnet-python", [25, 50]),
        ("syncnet-python-min50", [25, 100]),
        ("latentsync", [25, 100]),
        ("wav2lip-lrs", []),
        ("cropped", []),
    ],
)
def test_other_minimum_tracks_are_offered_where_there_are_tracks(
    asked: Protocol, variant: str, counts: list[int]
) -> None:
    for family in ("lse-c", "lse-offset"):
        offered = explain._choices(base.metric(f"{family}/{variant}"), asked)
        assert [choice.options["longer_than"] for choice in offered if choice.what == "minimum track"] == counts
        assert offered[-1].what == "eval_crop"


def test_every_family_with_choices_exists() -> None:
    assert set(CHOICES) <= {name.partition("/")[0] for name in base.names()}


def test_the_traps_of_fvd() -> None:
    """Of a picture that needs no resizing each is known; of one that does, they are what they are called."""
    exact = torch.from_numpy(data.astronaut()[None, :224, :224])
    plain = i3d.prepare(exact)
    np.testing.assert_allclose(i3d.prepare(exact, unsigned=True), (plain + 1) / 2, atol=1e-6)
    np.testing.assert_allclose(i3d.prepare(exact, squash=True), plain, atol=1e-6)
    wide = torch.from_numpy(data.astronaut()[None, :256, :512])
    assert i3d.prepare(wide, squash=True).shape == (3, 1, 224, 224)
    # Squashed, both ends are there: the means of the left and of the right edge are the picture's own.
    edges = i3d.prepare(wide, squash=True)[:, 0, :, [0, -1]].mean(1)
    own = (wide[0].float() / 127.5 - 1)[:, [0, -1]].mean(0).T
    np.testing.assert_allclose(edges, own, atol=0.02)
    # Antialiasing averages: of fine stripes it leaves grey where sampling leaves stripes.
    stripes = torch.zeros(1, 896, 896, 3, dtype=torch.uint8)
    stripes[:, :, ::2] = 255
    assert i3d.prepare(stripes, antialias=True)[..., 8:-8].abs().max() < 0.1
    fine = torch.zeros(1, 672, 672, 3, dtype=torch.uint8)
    fine[:, :, ::2] = 255
    assert i3d.prepare(fine)[..., 8:-8].abs().max() > 0.9


def test_the_first_frames_of_fvd() -> None:
    if weights.status("i3d-kinetics-400").state != "ok":
        pytest.skip("i3d-kinetics-400 is not on this machine")
    spec = base.extractor("i3d-16f")
    files = {w: base.Weights(weights.path(w, fetch=False), weights.digest(w)) for w in spec.weights}
    frames = np.stack([data.astronaut()[2 * k : 2 * k + 64, k : k + 64] for k in range(21)])
    views = ClipViews(np.arange(21), 25, frames=frames)
    first = spec.make(files, {"first": 16})([views])["features"]
    beginning = ClipViews(np.arange(16), 25, frames=frames[:16])
    np.testing.assert_array_equal(first, spec.make(files, {})([beginning])["features"])
    with pytest.raises(base.MetricError, match="the clip has 21 frames"):
        spec.make(files, {"first": 22})([views])
