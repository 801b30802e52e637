"""What this machine has, what is missing, and the command that gets it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import shutil
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

DISTRIBUTION = "emotional-talking-face-bench"
MODULES = (
    "av", "cv2", "espeakng_loader", "matplotlib", "mediapipe", "numpy", "onnxruntime", "pandas", "pyarrow",
    "safetensors", "scipy", "skimage", "sklearn", "soxr", "torch",
)  # fmt: skip
OPTIONAL = ("insightface", "face-alignment", "lpips")
SYSTEM_PACKAGES = {  # a shared library that a wheel expects of the system -> the Debian and Ubuntu package that has it
    "libGL.so": "libgl1",
    "libgthread-2.0.so": "libglib2.0-0",
    "libglib-2.0.so": "libglib2.0-0",
    "libEGL.so": "libegl1",
    "libGLESv2.so": "libgles2",
}
DEMO_BYTES = 1 << 30  # what the demo writes, with room to spare


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `broken` stops the demo, `missing` stops something else, `note` stops nothing."""

    section: str
    state: Literal["ok", "note", "missing", "broken"]
    text: str
    command: str = ""


def examine(workspace: Path) -> Iterator[Finding]:
    """Findings on Python, packages, GPU, disk, weights and the datasets prepared in the workspace.

    Weights that the demo needs are no obstacle to it when missing: it fetches them itself.
    """
    yield _python()
    yield from _packages()
    yield _gpu()
    yield _disk(workspace)
    yield from _weights()
    yield from _datasets(workspace)


def import_fault(module: str) -> Finding | None:
    """Why a module does not import, with the system package that is missing if that is the cause; else None."""
    try:
        importlib.import_module(module)
    except Exception as error:  # a broken binary package raises nearly anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        for library, package in SYSTEM_PACKAGES.items():
            if library in reason:
                text = f"import {module}: the system package {package} is missing ({reason})"
                return Finding("packages", "broken", text, f"sudo apt-get install {package}")
        return Finding("packages", "broken", f"import {module}: {reason}", "make clean; make demo")
    return None


def _python() -> Finding:
    supported = (3, 11) <= sys.version_info[:2] <= (3, 12)
    text = f"{platform.python_version()} at {sys.executable}" + ("" if supported else ", expected 3.11 or 3.12")
    return Finding("Python", "ok" if supported else "broken", text, "" if supported else "make clean; make demo")


def _packages() -> Iterator[Finding]:
    wrong = False
    for requirement in map(Requirement, metadata.requires(DISTRIBUTION) or ()):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            found = "nothing"
        if found == "nothing" or not requirement.specifier.contains(found, prereleases=True):
            wrong = True
            text = f"{requirement.name}: found {found}, expected {requirement.specifier}"
            yield Finding("packages", "broken", text, f"pip install '{requirement}' --constraint constraints.txt")
    for module in MODULES:
        if fault := import_fault(module):
            wrong = True
            yield fault
    if not wrong:
        versions = (f"{name} {metadata.version(name)}" for name in ("torch", "numpy", "mediapipe", "av", "onnxruntime"))
        yield Finding("packages", "ok", ", ".join(versions))
    yield from _clashes()


def _clashes() -> Iterator[Finding]:
    """Packages that are not ours but break ours: a second OpenCV, a torchvision of another torch build."""
    opencv = sorted({name for found in metadata.distributions() if (name := found.name).startswith("opencv-")})
    if len(opencv) > 1:
        extra = " ".join(name for name in opencv if name != "opencv-contrib-python")
        yield Finding(
            "packages",
            "broken",
            f"{', '.join(opencv)} are installed together and overwrite each other's cv2",
            f"pip uninstall -y {extra}; pip install --force-reinstall --no-deps opencv-contrib-python",
        )
    if importlib.util.find_spec("torchvision") is None:
        yield Finding("packages", "ok", "torchvision is not installed and not needed")
    elif fault := import_fault("torchvision"):
        text = f"torchvision does not fit this torch build and breaks lpips and face-alignment ({fault.text})"
        yield Finding("packages", "missing", text, "pip uninstall -y torchvision")
    else:
        yield Finding("packages", "ok", f"torchvision {metadata.version('torchvision')} works")
    for name in OPTIONAL:
        try:
            yield Finding("packages", "ok", f"{name} {metadata.version(name)} (optional)")
        except metadata.PackageNotFoundError:
            yield Finding("packages", "note", f"{name} is not installed (optional, see README)")


def _gpu() -> Finding:
    try:
        import torch
    except Exception:  # said among the packages
        return Finding("GPU", "note", "unknown: torch does not import")
    if not torch.cuda.is_available():
        return Finding("GPU", "note", f"none for torch {torch.__version__}: networks run on {os.cpu_count()} CPUs")
    cards = (torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count()))
    named = (f"{card.name}, {card.total_memory / 2**30:.0f} GiB" for card in cards)
    return Finding("GPU", "ok", f"{'; '.join(named)} (torch {torch.__version__})")


def _disk(workspace: Path) -> Finding:
    existing = next(folder for folder in (workspace.resolve(), *workspace.resolve().parents) if folder.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK)):
        return Finding("disk", "broken", f"cannot write to {existing}", "bench --workspace FOLDER ...")
    free = shutil.disk_usage(existing).free
    text = f"{free / 1e9:.0f} GB free for {workspace.resolve()}"
    if free < DEMO_BYTES:
        return Finding("disk", "broken", f"{text}, the demo needs 1 GB", "bench --workspace FOLDER ...")
    return Finding("disk", "ok", text)


def _weights() -> Iterator[Finding]:
    from benchmark import weights

    try:
        found = [weights.status(name) for name in weights.registry()]
    except weights.WeightsError as error:
        yield Finding("weights", "broken", error.message, "unset BENCH_WEIGHTS, or name a folder that is there")
        return
    if here := [status.entry.name for status in found if status.state == "ok"]:
        yield Finding("weights", "ok", ", ".join(here))
    by_hand = []
    for status in found:
        if status.state == "damaged":
            yield Finding("weights", "missing", f"{status.file} is damaged", status.entry.command)
        elif status.state == "missing" and (status.entry.official or status.entry.mirrors):
            yield Finding("weights", "missing", status.entry.name, status.entry.command)
        elif status.state == "missing":
            by_hand.append(status.entry.name)
    if by_hand:
        yield Finding("weights", "missing", ", ".join(by_hand), "bench weights list NAME (says where it is)")


def _datasets(workspace: Path) -> Iterator[Finding]:
    import pyarrow.parquet as parquet

    manifests = sorted(workspace.glob("data/*/manifest.parquet"))
    if not manifests:
        yield Finding("datasets", "note", f"none in {workspace}", "bench demo, or bench prepare mead --root RAW")
    for manifest in manifests:
        try:
            rows = parquet.read_metadata(manifest).num_rows
        except Exception as error:  # pyarrow raises ArrowInvalid, OSError and others for a damaged file
            yield Finding("datasets", "missing", f"{manifest}: {error}", "prepare it again with --fresh")
        else:
            yield Finding("datasets", "ok", f"{manifest.parent.name}: {rows} clips")


def report(findings: list[Finding]) -> str:
    """The findings as text, wrapped at 100 columns, a section's name before its first line."""
    lines, section = [], ""
    for finding in findings:
        head = "" if finding.section == section else finding.section
        section = finding.section
        text = finding.text + (f"  ->  {finding.command}" if finding.command else "")
        lines += textwrap.wrap(
            text, 100, initial_indent=f"{head:10}{finding.state:9}", subsequent_indent=" " * 19, break_on_hyphens=False
        )
    return "\n".join(lines)


def main() -> None:
    """The import smoke test of the Makefile, run before it calls an environment complete."""
    faults = [fault for module in MODULES if (fault := import_fault(module))]
    if faults:
        sys.exit(report(faults))


if __name__ == "__main__":
    main()
