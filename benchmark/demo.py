"""`bench demo`: the synthetic dataset from rendering to the leaderboard, with the commands a user would type."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from benchmark import engine, evaluate, prepare, protocol, publish, weights
from benchmark.errors import BenchError
from pipelines.datasets import demo as dataset

NAME = "demo"
METHODS = ("ground-truth", "still", "shuffled-audio")
WEIGHTS = ("fid-inception", "arcface-w600k-mbf")


@dataclass(frozen=True, slots=True)
class Step:
    """What was done and how long it took, in s."""

    name: str
    seconds: float


def run(workspace: Path, *, workers: int, accept: bool, say: Callable[[str], None]) -> list[Step]:
    """Render, prepare, fetch weights, evaluate, make the tables. Each step resumes where it was interrupted.

    `say` gets the text for the user. Raises BenchError and what the steps raise.
    """
    steps: list[Step] = []

    def step(name: str, command: str, work: Callable[[], str]) -> None:
        say(f"\n== {name}\n$ {command}")
        start = time.perf_counter()
        text = work()
        steps.append(Step(name, time.perf_counter() - start))
        say(text)

    raw = workspace / "raw" / NAME
    step("Render the raw dataset", "bench demo", lambda: render(raw, workers))
    step(
        "Prepare",
        f"bench prepare {NAME} --root {raw}",
        lambda: prepare.prepare(
            NAME, raw, prepare.data_folder(workspace, NAME), split=dataset.split, workers=workers
        ).text(),
    )
    say("\n".join(["\nNetworks that it needs, fetched once:", *map(_network, WEIGHTS)]))
    step(
        "Weights",
        f"bench weights fetch {' '.join(WEIGHTS)}{' --accept' * accept}",
        lambda: "\n".join(str(path) for path in weights.fetch(WEIGHTS, accept=accept)),
    )
    asked = protocol.load(NAME, workspace)
    for method in METHODS:
        step(
            f"Evaluate {method}",
            f"bench eval --method {method} --protocol {NAME}",
            lambda name=method: "\n".join(  # type: ignore[misc]
                evaluate.evaluate_method(name, asked, workspace, evaluate.Settings(workers=workers)).remarks
            ),
        )
    step("Leaderboard", f"bench leaderboard --protocol {NAME}", lambda: _leaderboard(workspace))
    return steps


def render(raw: Path, workers: int) -> str:
    """Make what is missing of the demo's clips. Raises BenchError when a clip cannot be made."""
    for left in raw.rglob(".part-*"):  # of a killed run
        left.unlink(missing_ok=True)
    todo = [job for job in dataset.subset(raw) if not job.path.exists()]
    with tqdm(total=len(todo), unit="clip", desc="render", disable=None) as bar:
        for outcome in engine.run(dataset.render_clip, todo, workers=workers):
            if outcome.error is not None:
                raise BenchError(f"{outcome.item.path}: cannot be rendered ({outcome.error})")
            bar.update()
    return f"{len(todo)} clips rendered, {len(dataset.subset(raw))} in {raw}\n{dataset.CARD}"


def _network(name: str) -> str:
    entry = weights.entry(name)
    return f"  {name}, {(entry.bytes or 0) / 1e6:.0f} MB, licence {entry.licence}"


def _leaderboard(workspace: Path) -> str:
    published = publish.publish(NAME, workspace)
    return "\n".join([published.markdown, *published.remarks, f"tables in {published.folder}"])
