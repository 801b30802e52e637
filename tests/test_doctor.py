"""bench doctor: each thing that can be wrong is named with the command that mends it."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from benchmark import doctor, weights
from benchmark.cli import bench

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights.platformdirs, "user_cache_path", lambda name: tmp_path / "cache")
    monkeypatch.delenv("BENCH_WEIGHTS", raising=False)


def found(workspace: Path, section: str) -> list[doctor.Finding]:
    return [finding for finding in doctor.examine(workspace) if finding.section == section]


def test_a_sound_machine_passes_and_is_told_what_is_missing(tmp_path: Path) -> None:
    done = CliRunner().invoke(bench, ["--workspace", str(tmp_path / "w"), "doctor"])
    assert done.exit_code == 0, done.output
    assert "bench weights fetch fid-inception" in done.output
    assert "bench prepare mead --root RAW" in done.output
    assert max(map(len, done.output.splitlines())) <= 100


@pytest.mark.parametrize(
    ("error", "package"),
    [
        ("libGL.so.1: cannot open shared object file: No such file or directory", "libgl1"),
        ("libgthread-2.0.so.0: cannot open shared object file: No such file or directory", "libglib2.0-0"),
    ],
)
def test_a_missing_system_library_is_named_by_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str, package: str
) -> None:
    (tmp_path / "lacking.py").write_text(f"raise ImportError({error!r})")
    monkeypatch.syspath_prepend(tmp_path)
    fault = doctor.import_fault("lacking")
    assert fault is not None
    assert fault.state == "broken"
    assert fault.command == f"sudo apt-get install {package}"
    monkeypatch.setattr(doctor, "MODULES", ("lacking",))
    assert CliRunner().invoke(bench, ["--workspace", str(tmp_path), "doctor"]).exit_code == 1
    with pytest.raises(SystemExit, match=package):
        doctor.main()


def test_a_second_opencv_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = [SimpleNamespace(name=name) for name in ("opencv-contrib-python", "opencv-python-headless", "numpy")]
    monkeypatch.setattr(doctor.metadata, "distributions", lambda: installed)
    (finding,) = [finding for finding in found(tmp_path, "packages") if finding.state == "broken"]
    assert "overwrite each other's cv2" in finding.text
    assert finding.command.startswith("pip uninstall -y opencv-python-headless;")


def test_a_version_out_of_range_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = doctor.metadata.version
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "1.26.4" if name == "numpy" else version(name))
    (finding,) = [finding for finding in found(tmp_path, "packages") if finding.state == "broken"]
    assert finding.text == "numpy: found 1.26.4, expected <2.5,>=2"


def test_a_torchvision_that_does_not_fit_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    (finding,) = [finding for finding in found(tmp_path, "packages") if "torchvision" in finding.text]
    assert finding.state == "missing"  # ours does not need it
    assert finding.command == "pip uninstall -y torchvision"


def test_a_full_disk_stops_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(100, 99, 1))
    (finding,) = found(tmp_path / "not yet made" / "workspace", "disk")
    assert finding.state == "broken"
    assert "needs 1 GB" in finding.text


def test_prepared_datasets_are_counted(tmp_path: Path) -> None:
    for name, content in (("mead", None), ("torn", b"PAR1 torn")):
        manifest = tmp_path / "data" / name / "manifest.parquet"
        manifest.parent.mkdir(parents=True)
        if content is None:
            pq.write_table(pa.table({"clip_id": ["a", "b", "c"]}), manifest)
        else:
            manifest.write_bytes(content)
    mead, torn = found(tmp_path, "datasets")
    assert (mead.state, mead.text) == ("ok", "mead: 3 clips")
    assert (torn.state, torn.command) == ("missing", "prepare it again with --fresh")


def test_a_wrong_folder_of_weights_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_WEIGHTS", str(tmp_path / "mistyped"))
    (finding,) = found(tmp_path, "weights")
    assert finding.state == "broken"
    assert "mistyped, which is not a folder" in finding.text


def test_the_weights_that_are_here_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = weights.entry("yunet")
    monkeypatch.setattr(weights, "registry", lambda: {"yunet": entry})
    (missing,) = found(tmp_path, "weights")
    assert (missing.state, missing.command) == ("missing", "bench weights fetch yunet")
    file = tmp_path / "cache" / "weights" / entry.file
    file.parent.mkdir(parents=True)
    file.write_bytes(b"torn")
    (damaged,) = found(tmp_path, "weights")
    assert "is damaged" in damaged.text
