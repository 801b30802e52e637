"""Map a function over items in worker processes; the one door behind which a cluster may stand later."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from multiprocessing import connection, get_context, parent_process
from multiprocessing.queues import SimpleQueue
from typing import Generic, TypeVar

from benchmark.errors import BenchError

Item = TypeVar("Item")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Item, Value]):
    """What became of one item: a value, or the exception that the function raised or that ended its process."""

    item: Item
    value: Value | None
    error: BaseException | None


class WorkerDied(Exception):
    """The process that worked on an item ended without an answer: killed, out of memory, or a crash in a library."""


def default_workers() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_device(device: str) -> None:
    """Raises BenchError where networks in this environment cannot run on it."""
    if device != "cpu":
        import torch

        if not torch.cuda.is_available():
            raise BenchError(f"--device {device}: torch {torch.__version__} sees no GPU here; use --device cpu")


def worker() -> int:
    """Number of this worker process among those that work at once, from 0; 0 elsewhere."""
    return _worker


def run(function: Callable[[Item], Value], items: Iterable[Item], *, workers: int) -> Iterator[Outcome[Item, Value]]:
    """Yield an Outcome for every item, in the order in which they are done.

    `function` and the items must be picklable. Each worker uses one thread in OpenCV, torch and BLAS: parallelism
    is across items, and results must not depend on thread counts. There is a process even for one worker, so
    that a file which crashes a decoder costs that file alone: when a process dies, the items that were under way
    are done again one at a time, and the one that kills its process again gets a WorkerDied error.
    """
    pending = iter(items)
    under_way: dict[Future[Value], Item] = {}
    pool = _pool(workers)
    try:
        while True:
            # A short queue: the items of a whole dataset are never pickled ahead of time.
            for item in islice(pending, 2 * workers - len(under_way)):
                under_way[_submit(pool, function, item)] = item
            if not under_way:
                return
            done, _ = wait(under_way, return_when=FIRST_COMPLETED)
            if any(isinstance(future.exception(), BrokenProcessPool) for future in done):
                pool.shutdown(cancel_futures=True)
                suspects = list(under_way.items())
                under_way.clear()
                for future, item in suspects:
                    yield _alone(function, item, future)
                pool = _pool(workers)
                continue
            for future in done:
                item = under_way.pop(future)
                error = future.exception()
                yield Outcome(item, None if error else future.result(), error)
    finally:
        _stop(pool)


def _submit(pool: ProcessPoolExecutor, function: Callable[[Item], Value], item: Item) -> Future[Value]:
    """The item's future, failed at once when a process has died since the last look."""
    try:
        return pool.submit(function, item)
    except BrokenProcessPool as error:
        future: Future[Value] = Future()
        future.set_exception(error)
        return future


def _alone(function: Callable[[Item], Value], item: Item, future: Future[Value]) -> Outcome[Item, Value]:
    if future.done() and not future.cancelled() and future.exception() is None:
        return Outcome(item, future.result(), None)
    with _pool(1) as pool:
        try:
            return Outcome(item, pool.submit(function, item).result(), None)
        except BrokenProcessPool:
            died = WorkerDied("the process that worked on it died (killed, out of memory, or a crash in a decoder)")
            return Outcome(item, None, died)
        except Exception as error:  # the function's own, to be told to the caller like any other
            return Outcome(item, None, error)


def _pool(workers: int) -> ProcessPoolExecutor:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
        os.environ.setdefault(name, "1")  # read by the libraries when a worker imports them
    context = get_context("spawn")
    numbers = context.SimpleQueue()
    for number in range(workers):
        numbers.put(number)
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(numbers,))


def _stop(pool: ProcessPoolExecutor) -> None:
    """Leave nothing running when the caller is done early (an error, Ctrl-C)."""
    for process in list((pool._processes or {}).values()):
        if sys.exc_info()[0] is not None:
            process.terminate()
    pool.shutdown(cancel_futures=True)


_worker = 0


def _start_worker(numbers: SimpleQueue[int]) -> None:
    global _worker
    _worker = numbers.get()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Native libraries write notices to the error stream, through the parent's progress bar. Errors travel as
    # exceptions; nothing is lost.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
