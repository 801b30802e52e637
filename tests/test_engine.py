"""Worker processes: every item has an outcome, whatever becomes of its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from benchmark import engine
from benchmark.errors import BenchError


def square(x: int) -> int:
    return x * x


def sometimes(x: int) -> int:
    if x == 3:
        raise ValueError("three is no good")
    if x == 5:
        os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(0.05)
    return x


def dies_later(x: int) -> int:
    if x == 1:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGKILL)).start()
        time.sleep(10)
    return x


def threads(_: int) -> tuple[int, str]:
    import cv2

    return cv2.getNumThreads(), os.environ["OMP_NUM_THREADS"]


@pytest.mark.parametrize("workers", [1, 2])
def test_every_item_has_its_value(workers: int) -> None:
    got = {outcome.item: outcome.value for outcome in engine.run(square, range(20), workers=workers)}
    assert got == {x: x * x for x in range(20)}


def test_an_exception_and_a_crash_cost_their_item_alone() -> None:
    outcomes = {outcome.item: outcome for outcome in engine.run(sometimes, range(12), workers=2)}
    assert sorted(outcomes) == list(range(12))
    assert isinstance(outcomes[3].error, ValueError)
    assert isinstance(outcomes[5].error, engine.WorkerDied)
    assert all(outcomes[x].value == x for x in range(12) if x not in (3, 5))


def test_a_crash_while_the_caller_is_busy_is_found_out() -> None:
    outcomes = {}
    for outcome in engine.run(dies_later, range(6), workers=1):
        outcomes[outcome.item] = outcome
        time.sleep(0.5)  # the process dies now, not while the engine waits
    assert isinstance(outcomes[1].error, engine.WorkerDied)
    assert all(outcomes[x].value == x for x in range(6) if x != 1)


def test_a_long_list_is_not_taken_ahead_of_time() -> None:
    taken = []

    def items():
        for x in range(1000):
            taken.append(x)
            yield x

    outcomes = engine.run(square, items(), workers=2)
    next(outcomes)
    assert len(taken) <= 5
    outcomes.close()


def test_libraries_use_one_thread_in_a_worker() -> None:
    (outcome,) = engine.run(threads, [0], workers=1)
    assert outcome.value == (1, "1")


ORPHAN = """
import os, sys, time
from benchmark import engine
from benchmark.errors import BenchError
def work(path):
    with open(path, "w") as file:
        file.write(str(os.getpid()))
    time.sleep(60)
if __name__ == "__main__":
    list(engine.run(work, [sys.argv[1]], workers=1))
"""


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    script, told = tmp_path / "orphan.py", tmp_path / "pid"
    script.write_text(ORPHAN)
    process = subprocess.Popen([sys.executable, str(script), str(told)])
    for _ in range(200):
        if told.exists() and told.read_text():
            break
        time.sleep(0.05)
    worker = int(told.read_text())
    process.send_signal(signal.SIGKILL)
    process.wait()
    for _ in range(100):
        if not Path(f"/proc/{worker}").exists():
            break
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists()


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    engine.check_device("cpu")
    with pytest.raises(BenchError, match=r"^--device cuda: torch .* sees no GPU here; use --device cpu"):
        engine.check_device("cuda")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    engine.check_device("cuda")
