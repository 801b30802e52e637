"""`bench demo`: the synthetic dataset from rendering to the leaderboard, with the commands a user would type; and
`bench demo --generators`: the tiny presets trained on it, and a table over four clips that they made."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmark import engine, evaluate, prepare, protocol, publish, training, weights
from benchmark.errors import BenchError
from pipelines.datasets import demo as dataset
from pipelines.datasets import demo_second

NAME = "demo"
METHODS = ("ground-truth", "still", "shuffled-audio")
WEIGHTS = ("fid-inception", "arcface-w600k-mbf")


# Of --generators: what is trained, what is scored, and the networks that this takes besides.
GENERATORS = "demo-generators"
MODELS = (("dice-talk-embedder", "dice-talk"), ("eat-face",), ("emotion-anchor",))  # what waits for what
TINY = ("ours-v-tiny", "ours-p-tiny", "eat-face-tiny", "emotion-anchor-tiny")
SMOOTHER = ("rife-v3",)


@dataclass(frozen=True, slots=True)
class Step:
    """What was done and how long it took, in s."""

    name: str
    seconds: float


class _Steps:
    """Does one thing after another; `say` gets the text for the user."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say, self.done = say, list[Step]()

    def __call__(self, name: str, command: str, work: Callable[[], str]) -> None:
        self.say(f"\n== {name}\n$ {command}")
        start = time.perf_counter()
        text = work()
        self.done.append(Step(name, time.perf_counter() - start))
        self.say(text)


def run(workspace: Path, *, workers: int, accept: bool, say: Callable[[str], None]) -> list[Step]:
    """Render, prepare, fetch weights, evaluate, make the tables. Each step resumes where it was interrupted.

    Raises BenchError and what the steps raise.
    """
    step = _Steps(say)
    raw = _rendered(step, workspace, workers)
    command = f"bench prepare {NAME} --root {raw}"
    step("Prepare", command, partial(_prepare, NAME, raw, workspace, dataset.split, workers))
    _fetched(step, WEIGHTS, accept)
    _scored(step, NAME, METHODS, workspace, workers)
    return step.done


def generators(workspace: Path, *, workers: int, accept: bool, say: Callable[[str], None]) -> list[Step]:
    """Train the tiny preset of every model on the demo's train split, have it make four clips of the test people, and
    make the table of exactly those. Each step resumes; raises as run()."""
    step = _Steps(say)
    raw = _rendered(step, workspace, workers)
    for name, split in ((NAME, dataset.split), (demo_second.NAME, demo_second.split)):
        step("Prepare", f"bench prepare {name} --root {raw}", partial(_prepare, name, raw, workspace, split, workers))
    _fetched(step, WEIGHTS + SMOOTHER, accept)
    commands = [f"bench train {model} --data {NAME} --preset tiny" for chain in MODELS for model in chain]
    step("Train", "\n$ ".join(commands), partial(_train, workspace, workers))
    _scored(step, GENERATORS, (*METHODS, *TINY), workspace, workers)
    return step.done


def _rendered(step: _Steps, workspace: Path, workers: int) -> Path:
    raw = workspace / "raw" / NAME
    step("Render the raw dataset", "bench demo", lambda: render(raw, workers))
    return raw


def _prepare(name: str, raw: Path, workspace: Path, split: Callable[[Any], Any], workers: int) -> str:
    to = prepare.data_folder(workspace, name)
    return prepare.prepare(name, raw, to, split=split, workers=workers).text()


def _fetched(step: _Steps, names: tuple[str, ...], accept: bool) -> None:
    step.say("\n".join(["\nNetworks that it needs, fetched once:", *map(_network, names)]))
    step(
        "Weights",
        f"bench weights fetch {' '.join(names)}{' --accept' * accept}",
        lambda: "\n".join(str(path) for path in weights.fetch(names, accept=accept)),
    )


def _train(workspace: Path, workers: int) -> str:
    """Models that do not need each other at once, each in a process of one thread: so small, they gain nothing from
    more, and the bytes do not depend on how many there are."""
    said = {}
    with tqdm(total=len(MODELS), unit="model", desc="train", disable=None) as bar:
        for outcome in engine.run(partial(_trained, workspace), MODELS, workers=min(workers, len(MODELS))):
            if outcome.error is not None:
                raise outcome.error
            said[outcome.item] = outcome.value or ""
            bar.update()
    return "\n".join(said[chain] for chain in MODELS)


def _trained(workspace: Path, models: tuple[str, ...]) -> str:
    at = prepare.data_folder(workspace, NAME) / "manifest.parquet"
    made = [training.train(model, [at], workspace, training.Settings("tiny")) for model in models]
    return "\n".join(line for done in made for line in (*done.remarks, str(done.path)))


def _scored(step: _Steps, name: str, methods: tuple[str, ...], workspace: Path, workers: int) -> None:
    asked = protocol.load(name, workspace)
    settings = evaluate.Settings(workers=workers)
    for method in methods:
        step(
            f"Evaluate {method}",
            f"bench eval --method {method} --protocol {name}",
            lambda method=method: "\n".join(  # type: ignore[misc]
                evaluate.evaluate_method(method, asked, workspace, settings).remarks
            ),
        )
    step("Leaderboard", f"bench leaderboard --protocol {name}", lambda: _leaderboard(name, workspace))


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


def _leaderboard(name: str, workspace: Path) -> str:
    published = publish.publish(name, workspace)
    return "\n".join([published.markdown, *published.remarks, f"tables in {published.folder}"])
