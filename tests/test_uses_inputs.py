"""Every generator of the suite uses its inputs; one that was trained on shuffled conditions does not pass."""

from __future__ import annotations

from pathlib import Path

import pytest
import uses_inputs
from uses_inputs import ask, study


@pytest.fixture(scope="session")
def demo_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = tmp_path_factory.mktemp("inputs")
    uses_inputs.prepare_demo(workspace)
    return workspace


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_measure_tells_real_videos_from_a_held_portrait(demo_workspace: Path) -> None:
    real, still = ask("real", demo_workspace), ask("still", demo_workspace)
    assert real.follows_audio
    assert real.shows_emotion
    assert real.share > 0.8  # of frames of people whom the classifier never saw
    assert not still.follows_audio
    assert still.share == pytest.approx(0.2, abs=0.05)  # a portrait shows one of five
    assert still.keeps_identity


@pytest.mark.slow
@pytest.mark.timeout(6 * 3600)
@pytest.mark.parametrize("method", uses_inputs.TRAININGS)
def test_it_uses_its_inputs(method: str, demo_workspace: Path) -> None:
    true, control = [], []
    for seed, shuffled, answers in study(method, demo_workspace):
        print(method, seed, "shuffled" if shuffled else "", answers)  # noqa: T201 - the figures of docs/uses-inputs.md
        (control if shuffled else true).append(answers)
    assert all(answers.follows_audio and answers.shows_emotion for answers in true), true
    assert not any(answers.follows_audio and answers.shows_emotion for answers in control), control
