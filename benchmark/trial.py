"""Is a method ready on this machine: what is missing, what to do, and one clip as proof."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmark import checkouts, generate
from benchmark.errors import BenchError
from benchmark.generate import Made, Method
from benchmark.protocol import Protocol
from pipelines import media
from reference_models.external import Call, Place


@dataclass(frozen=True, slots=True)
class Trial:
    """What there is to say, line by line, and whether a clip was made."""

    passed: bool
    lines: list[str]


def check(
    name: str, repo: Path | None, interpreter: str, asked: Protocol, workspace: Path, device: str = "cpu"
) -> Trial:
    """Make the first video of a protocol anew with a method. A checkout in which nothing is missing is remembered.

    Raises BenchError for an unknown method, for `repo` where a method has no checkout or its file says where that
    lies, and as generate.generate().
    """
    method = generate.load_method(name, workspace)
    lines = []
    if method.call is not None:
        at = checkouts.find(method.name, method.call, workspace)
        if repo is not None:
            if method.call.repo:
                raise BenchError(
                    f"{method.name}: its file says where it lies (call.repo = {method.call.repo!r}), not --repo"
                )
            at = Place(repo.expanduser().resolve(), checkouts.interpreter(interpreter, Path()))
        if at is None:
            return Trial(
                False, [f"{method.name}: no checkout is known here. The steps:", *_steps(name, method, workspace)]
            )
        if problems := checkouts.missing(method.call, at):
            lines = [f"{method.name}: missing", *(f"  {problem}" for problem in problems), "The steps:"]
            return Trial(False, lines + _steps(name, method, workspace))
        if not method.call.repo:
            checkouts.remember(method.name, at, workspace)
        lines = [f"{method.name}: nothing is missing in {at.repo}{_commit(method.call, at)}"]
    elif repo is not None:
        raise BenchError(f"{method.name} runs in this process; --repo is for methods with a table [call]")
    made = generate.generate(method, asked, workspace, fresh=True, device=device, first=1)
    if not made:
        raise BenchError(f"protocol {asked.name} has no pair that {method.name} could be tried on")
    return _told(lines, next(iter(made.values())), method, asked, workspace)


def _told(lines: list[str], made: Made, method: Method, asked: Protocol, workspace: Path) -> Trial:
    folder = generate.folder(method.name, asked, workspace)
    if method.call is not None:
        lines = [*lines, f"what it printed: {folder / made.pair_id}.log"]
    if made.error is not None:
        if method.call is None and made.trace:
            lines = [*lines, f"its traceback: {folder / made.pair_id}.json"]
        return Trial(False, [*lines, f"{made.pair_id} failed after {made.seconds:.1f} s: {made.error}"])
    video = folder / f"{made.pair_id}.mp4"
    found = media.probe(video)
    cost = [f"{made.seconds:.1f} s"]
    cost += [f"{made.ram_mib} MiB of memory"] if made.ram_mib is not None else []
    cost += [f"{made.gpu_mib} MiB of the GPU's"] if made.gpu_mib is not None else []
    cost += [f"the last frame held {made.held} times"] if made.held else []
    shown = f"{found.width}x{found.height}, {found.duration or 0:.2f} s at {found.fps:g} frames a second"
    return Trial(True, [*lines, f"{video}: {shown}", f"it took {', '.join(cost)}", "ready"])


def _steps(asked: str, method: Method, workspace: Path) -> list[str]:
    assert method.call is not None
    if method.call.repo:
        last = f"put call.repo and call.python of its file right, then: bench methods check {asked}"
    else:
        last = f"bench methods check {asked} --repo FOLDER --python ITS/bin/python --device cuda"
    steps = [*checkouts.steps(method.name, method.call, workspace), last]
    return [f"  {number}. {step}" for number, step in enumerate(steps, 1)]


def _commit(call: Call, at: Place) -> str:
    if not call.commit:
        return ""
    try:
        command = ["git", "-C", str(at.repo), "rev-parse", "HEAD"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return " (of no commit that git knows)"
    if done == call.commit:
        return f" (commit {done[:12]}, at which the arguments were read)"
    return f" (commit {done[:12]}; the arguments were read at {call.commit[:12]})"
