"""Small media made on the spot, and the folder of real clips where there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from parity import (  # noqa: F401  fixtures and hooks
    parity,
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_deselected,
    pytest_runtest_makereport,
    pytest_sessionfinish,
)
from samples import tone

from benchmark import engine
from pipelines import media

# Timing never decides a test: shared machines stall for seconds. Examples follow from the test, so that a run says the
# same everywhere; `--hypothesis-seed=random` is for those who look for new ones.
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real() -> Callable[[str], Path]:
    """A file of the folder of real clips; the test is skipped where it is missing."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"the real clip {name} is not on this machine (../shared/data)")
        return path

    return find


POOL, STOP = engine._pool, engine._stop


@pytest.fixture(scope="session")
def worker_pool() -> Iterator[Callable[[int], ProcessPoolExecutor]]:
    """One pool of two processes, made anew when a test broke or ended it."""
    pools: list[ProcessPoolExecutor] = []

    def shared(workers: int) -> ProcessPoolExecutor:
        if not pools or pools[-1]._broken or pools[-1]._shutdown_thread:
            pools.append(POOL(2))
        return pools[-1]

    yield shared
    for pool in pools:
        pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def one_pool(worker_pool: Callable[[int], ProcessPoolExecutor]) -> Iterator[None]:
    """Commands of a module share the session's worker processes: each would import everything anew, for longer than
    it works here. Not where workers must see what a test changed in this one."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(engine, "_pool", worker_pool)
        patched.setattr(engine, "_stop", lambda pool: None)
        yield


@pytest.fixture
def own_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a test of the processes themselves, in a module of `one_pool`."""
    monkeypatch.setattr(engine, "_pool", POOL)
    monkeypatch.setattr(engine, "_stop", STOP)


@pytest.fixture
def make_video(tmp_path: Path) -> Callable[..., Path]:
    """Write a video of moving noise: make_video("a.mp4", frames=50, fps=25, size=(128, 96), audio=True)."""

    def make(
        name: str,
        frames: int = 25,
        fps: float | Fraction = 25,
        size: tuple[int, int] = (128, 96),
        audio: bool = True,
        rate: int = 48_000,
    ) -> Path:
        rng = np.random.default_rng(0)
        pictures = rng.integers(0, 255, (frames, size[1] // 8, size[0] // 8, 3), np.uint8)
        sound = tone(frames / float(fps), rate) if audio else None
        path = tmp_path / name
        media.write_video(path, (p.repeat(8, 0).repeat(8, 1) for p in pictures), fps, audio=sound, sample_rate=rate)
        return path

    return make
