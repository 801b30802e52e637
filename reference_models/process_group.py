"""Runs a command in a process group of its own, which is ended as a whole: by a time limit, or with this process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

LOG = 1 << 20  # bytes of a log that are kept, its end
GRACE = 5.0  # s between asking a process group to end and ending it
GPU_LOOK = 2.0  # s between two looks at the GPU's memory

_GUARD = """
import os, shutil, signal, sys, time
group = 0
for line in sys.stdin: group = int(line)
try: group and os.killpg(group, signal.SIGKILL)
except OSError: pass
for _ in range(20):
    shutil.rmtree(sys.argv[1], ignore_errors=True)
    if not os.path.exists(sys.argv[1]): break
    time.sleep(0.1)
"""


class Guard:
    """A process that waits until a block ends, or this process, however that ends; it then ends the command that runs
    and removes the folder."""

    def __init__(self, folder: Path) -> None:
        self._waits = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _GUARD, str(folder)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C does not reach it
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._waits.stdin is not None
        self._waits.stdin.close()
        self._waits.wait()

    def tell(self, group: int) -> None:
        """The process group that runs now; 0: none."""
        assert self._waits.stdin is not None
        self._waits.stdin.write(f"{group}\n".encode())
        self._waits.stdin.flush()


def run(
    command: Sequence[str],
    folder: Path,
    env: Mapping[str, str],
    log: Path,
    deadline: float,
    memory: Memory,
    guard: Guard,
) -> tuple[int | None, str | None]:
    """Run a command in `folder` until it ends, or until `deadline` (time.monotonic); what it prints is added to `log`.

    Returns its exit code (None: it ran out of time, or never ran) and the error, None for exit code 0. Raises OSError
    where the log cannot be written.
    """
    with log.open("ab") as file:
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        except OSError as reason:
            return None, f"{command[0]} cannot be run ({reason.strerror})"
    guard.tell(process.pid)
    try:
        timed_out = not _wait(process, deadline, memory)
    finally:
        _end(process)
        guard.tell(0)
    if timed_out:
        return None, "was ended, since it ran out of time"
    return process.returncode, f"ended with {_status(process.returncode)}" if process.returncode else None


def _status(code: int) -> str:
    if code > 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return f"signal {signal.Signals(-code).name}"
    return f"signal {-code}"


def _wait(process: subprocess.Popen[bytes], deadline: float, memory: Memory) -> bool:
    """True when it ended by itself before `deadline`."""
    pause = 0.02
    while True:
        memory.look(process.pid)
        left = deadline - time.monotonic()
        try:
            process.wait(max(0.0, min(pause, left)))
        except subprocess.TimeoutExpired:
            if left <= 0:
                return False
            pause = min(2 * pause, 1.0)
            continue
        return True


def _end(process: subprocess.Popen[bytes]) -> None:
    """End whatever is left of the process's group: all of it, after a time limit; strays, after it ended itself."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(OSError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)


class Memory:
    """Peaks of the memory of process groups, and of what the GPU that they are given holds beyond what it held before.

    ram_mib  highest sum of the resident memory of all processes of a group; None where there is no /proc
    gpu_mib  None where there is no nvidia-smi, or gpu (CUDA_VISIBLE_DEVICES) is ""
    """

    def __init__(self, gpu: str | None) -> None:
        self._gpu = (gpu or "").split(",")[0]
        self._smi = shutil.which("nvidia-smi") if gpu != "" else None
        self._next = 0.0
        self.ram_mib: int | None = None
        self.gpu_mib: int | None = None
        self._before = self._used() if self._smi else None

    def look(self, group: int) -> None:
        ram = self._resident(group)
        if ram is not None:
            self.ram_mib = max(self.ram_mib or 0, ram)
        if self._before is not None and time.monotonic() >= self._next:
            used = self._used()
            if used is not None:
                self.gpu_mib = max(self.gpu_mib or 0, used - self._before)
            self._next = time.monotonic() + GPU_LOOK

    def _resident(self, group: int) -> int | None:
        """MiB of all processes of the group; None where there is no /proc."""
        pages, found = 0, False
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError, IndexError, ValueError):
                stat = (folder / "stat").read_text().rpartition(")")[2].split()  # from the third field on
                if int(stat[2]) == group:
                    pages, found = pages + int(stat[21]), True
        return pages * os.sysconf("SC_PAGE_SIZE") // 2**20 if found else None

    def _used(self) -> int | None:
        query = [str(self._smi), "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        if self._gpu:
            query.append(f"--id={self._gpu}")
        with suppress(OSError, ValueError, subprocess.SubprocessError, IndexError):
            done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
            return int(done.stdout.splitlines()[0])
        return None


def tail(path: Path) -> str:
    """The last LOG bytes of a log as text; where a progress bar drew over itself, only what stayed."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG))
            lines = file.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return ""
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)
