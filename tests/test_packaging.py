"""The wheel, what it holds, and that it runs in an environment and a folder that are not the developer's."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("benchmark", "leaderboards", "metrics", "pipelines", "reference_models")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def run(*command: str | Path, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "BENCH_"))}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, text=True, capture_output=True, check=False
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built in a copy without the network: setuptools is in the dev extra."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in (*PACKAGES, "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    run(*pip, "--wheel-dir", target, source, cwd=target)
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bin/ of an environment that holds the wheel, and sees the dependencies but not this checkout.

    The developer's site-packages are added as a plain folder, whose .pth files, and with them the editable
    install, do not count.
    """
    environment = tmp_path_factory.mktemp("clean environment")  # with a space, as home folders have
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=environment)
    (site,) = environment.glob("lib/python*/site-packages")
    folders = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (site / "dependencies.pth").write_text("\n".join(folders))
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
    run(*pip, "--ignore-installed", wheel, cwd=environment)
    return environment / "bin"


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder such as users have: with modules named like ours."""
    folder = tmp_path / "somebody's project"
    folder.mkdir()
    for name in PACKAGES:
        (folder / f"{name}.py").write_text(f"raise ImportError('the foreign {name}.py was imported')")
    return folder


def test_the_wheel_holds_the_packages_with_their_data_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {
        file.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for file in (ROOT / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and ROOT / "benchmark" / "perf" not in file.parents
    }
    assert names == expected
    assert {"benchmark/weights.toml", "benchmark/protocols/demo.toml", "leaderboards/published/eat-face.csv"} <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmark/perf/"))]


def test_every_package_folder_is_listed() -> None:
    folders = {
        file.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for package in PACKAGES
        for file in (ROOT / package).rglob("__init__.py")
    }
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == folders - {"benchmark.perf"}


def test_bench_runs_beside_foreign_modules(clean: Path, foreign: Path) -> None:
    trap = run(clean / "python", "-c", "import metrics", cwd=foreign, check=False)
    assert "the foreign metrics.py was imported" in trap.stderr  # what would happen if the folder counted
    assert "Commands:" in run(clean / "bench", "--help", cwd=foreign).stdout
    raw = foreign / "raw" / "M003" / "video" / "front" / "happy" / "level_2"
    raw.mkdir(parents=True)
    for take in ("001", "002"):
        (raw / f"{take}.mp4").write_bytes(b"no video")
    done = run(clean / "bench", "prepare", "mead", "--root", "raw", "--workers", "2", cwd=foreign, check=False)
    assert "foreign" not in done.stdout + done.stderr
    rejected = foreign / "workspace" / "data" / "mead" / "rejected.parquet"
    script = (
        "import json, pyarrow.parquet as parquet\n"
        f"print(json.dumps(parquet.read_table({str(rejected)!r}).to_pylist(), default=str))"
    )
    rows = json.loads(run(clean / "python", "-P", "-c", script, cwd=foreign).stdout)
    assert len(rows) == 2
    assert "foreign" not in str(rows)


def test_modules_come_from_the_wheel_in_worker_processes_too(clean: Path, foreign: Path, tmp_path: Path) -> None:
    script = tmp_path / "where.py"
    script.write_text(
        "import importlib, json\n"
        "from benchmark import engine\n"
        "def where(name):\n"
        "    return importlib.import_module(name).__file__\n"
        "if __name__ == '__main__':\n"
        f"    names = {PACKAGES!r}\n"
        "    outcomes = list(engine.run(where, names, workers=2))\n"
        "    assert not [o for o in outcomes if o.error], outcomes\n"
        "    print(json.dumps([[o.item, o.value, where(o.item)] for o in outcomes]))\n"
    )
    found = json.loads(run(clean / "python", script, cwd=foreign).stdout)
    (site,) = clean.parent.glob("lib/python*/site-packages")
    assert sorted(found) == [[name, *[str(site / name / "__init__.py")] * 2] for name in PACKAGES]


def test_help_imports_nothing_heavy() -> None:
    script = """
import json, sys
import click
from benchmark.cli import bench

def commands(command, names):
    yield names
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, [*names, name])

asked = list(commands(bench, []))
for names in asked:
    try:
        bench([*names, "--help"], standalone_mode=True)
    except SystemExit as end:
        assert end.code == 0, names
print(json.dumps([len(asked), sorted({name.partition(".")[0] for name in sys.modules})]))
"""
    done = run(sys.executable, "-P", "-c", script, cwd=ROOT)
    asked, modules = json.loads(done.stdout.splitlines()[-1])
    assert asked > 10
    assert "benchmark" in modules
    heavy = {"torch", "numpy", "pyarrow", "cv2", "mediapipe", "av", "pandas", "scipy", "matplotlib", "onnxruntime"}
    assert not heavy & set(modules)


def tracked() -> list[Path]:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [ROOT / os.fsdecode(name) for name in listed.split(b"\0") if name]


def test_no_tracked_file_names_a_package_index_or_a_folder_of_some_machine() -> None:
    hosts = ("py" + "pi.org", "python" + "hosted.org", "pytorch.org" + "/whl", "index" + "-url")
    machine = re.compile(rf"(?<![\w.}}])(?:{re.escape(str(ROOT))}\b|/(?:home|Users)/\w+/|/ro{''}ot/)")
    faults = []
    for file in tracked():
        try:
            text = file.read_text("utf-8")
        except (UnicodeDecodeError, FileNotFoundError):
            continue
        faults += [f"{file.relative_to(ROOT)}: {host}" for host in hosts if host in text]
        faults += [f"{file.relative_to(ROOT)}: {found[0]}" for found in machine.finditer(text)]
    assert not faults


def test_no_tracked_file_is_a_network_or_a_clip() -> None:
    suffixes = {".pt", ".pth", ".onnx", ".ckpt", ".pkl", ".safetensors", ".task", ".mp4", ".avi", ".wav", ".jpg"}
    assert not [file.name for file in tracked() if file.suffix in suffixes]


def test_make_without_a_suitable_python_is_one_line(tmp_path: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "make"):
        (tools / name).symlink_to(shutil.which(name) or "")
    shim = tools / "python3.11"  # as pyenv leaves them: on PATH, and not running
    shim.write_text("#!/bin/sh\necho 'python3.11: command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    done = subprocess.run(
        [tools / "make", "test"], cwd=tmp_path, env={"PATH": str(tools)}, text=True, capture_output=True, check=False
    )
    assert done.returncode != 0
    said = (done.stdout + done.stderr).splitlines()
    assert said[0] == "make: found no Python 3.11 or 3.12 (tried python3.11, python3.12, python3)"
    assert all(line.startswith("make: ***") for line in said[1:])
    assert not (tmp_path / ".venv").exists()
