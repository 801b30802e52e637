"""What stands behind a number: code, packages, weights, protocol, inputs and hardware of a run."""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmark import __version__, configs
from pipelines.media import atomic_path

DISTRIBUTION = "emotional-talking-face-bench"


def code() -> dict[str, Any]:
    """Version, git commit (None outside a checkout of this project) and versions of the packages that we need."""
    names = {re.split(r"[^A-Za-z0-9._-]", line)[0] for line in metadata.requires(DISTRIBUTION) or ()}
    packages = {}
    for name in sorted(names):
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # an extra that is not installed
            continue
    return {
        "version": __version__,
        "git": _git(),
        "python": platform.python_version(),
        "packages": packages,
    }


def _git() -> dict[str, Any] | None:
    root = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return done.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root:
            return None  # installed inside somebody else's repository
        return {
            "commit": git("rev-parse", "HEAD"),
            "modified": bool(git("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.SubprocessError):
        return None


def hardware(device: str) -> dict[str, Any]:
    """The machine, in words; the GPU only when it was used."""
    found: dict[str, Any] = {"system": platform.platform(), "cpu": _cpu(), "cores": os.cpu_count()}
    if device != "cpu":
        import torch

        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def peaks() -> dict[str, Any]:
    """Of this process until now: {"machine": GPU that torch used, else CPU, "ram_mib": int, "gpu_mib": int | None}."""
    torch = sys.modules.get("torch")  # not imported for this: a process that never did used no GPU
    unit = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss is in bytes there, in KiB on Linux
    ram = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit
    if torch is None or not torch.cuda.is_initialized():
        return {"machine": _cpu(), "ram_mib": ram, "gpu_mib": None}
    held = torch.cuda.max_memory_allocated() // 2**20
    return {"machine": torch.cuda.get_device_name(), "ram_mib": ram, "gpu_mib": held}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def run_id(contents: Mapping[str, Any]) -> str:
    """16 hexadecimal digits from everything that determines the rows of a run: never a date nor a machine."""
    return configs.digest(contents)[:16]


def write(folder: Path, identifier: str, contents: Mapping[str, Any], circumstances: Mapping[str, Any]) -> Path:
    """Write `folder`/<run id>.json: the contents that the id digests, and the circumstances that it does not."""
    record = {
        "run_id": identifier,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **contents,
        **circumstances,
    }
    path = folder / f"{identifier}.json"
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return path
