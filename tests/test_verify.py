"""bench verify: every check can fail, and what is missing is told."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file
from skimage import data

from benchmark import verify, weights
from benchmark.cli import bench
from benchmark.verify import FIXTURES, Medium, Outcome, Unavailable, Value
from metrics import base, image
from metrics.base import ClipViews
from metrics.networks import i3d

CIFAR = Path(__file__).resolve().parents[2] / "shared" / "fixtures" / "fid" / "cifar256.npz"


def outcomes(*names: str, media: dict[str, Path] | None = None) -> list[Outcome]:
    return list(verify.run(verify.chosen(names, slow=False)[0], media or {}))


def here(*networks: str) -> None:
    for name in networks:
        if weights.status(name).state != "ok":
            pytest.skip(f"{name} is not on this machine")


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_folders", lambda: iter(()))


# --- the checks --------------------------------------------------------------------------------------------------


def test_every_value_is_of_a_metric_and_every_medium_is_known() -> None:
    for fixture in FIXTURES:
        assert all(value.metric in base.names() for value in fixture.values)
        assert all(name in verify.MEDIA for names in fixture.media for name in names)
    assert len({fixture.title for fixture in FIXTURES}) == len(FIXTURES)


def test_what_needs_no_weights_is_always_checked(no_weights: None) -> None:
    done = CliRunner().invoke(bench, ["verify", "psnr", "ssim"])
    assert done.exit_code == 0, done.output
    *lines, last = done.output.splitlines()
    assert [line.split()[0] for line in lines] == ["metric", "psnr/frame-mean", "ssim/gaussian"]
    assert all("published" in line and line.endswith("  ok") for line in lines[1:])
    assert last == "2 ok, 0 failed, 0 unavailable"


def test_a_changed_constant_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "K1", 0.0101)
    done = CliRunner().invoke(bench, ["verify", "psnr", "ssim/gaussian"])
    assert done.exit_code == 1
    assert done.output.splitlines()[2].endswith("FAILED")
    assert done.output.splitlines()[-1] == "1 ok, 1 failed, 0 unavailable"


def test_a_tampered_network_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here("lpips-alexnet")
    assert [(o.value.whose, o.state) for o in outcomes("lpips/alex-spatial", "lpips/alex")][:2] == [
        ("published", "ok"),
        ("ours", "ok"),
    ]
    arrays = load_file(weights.path("lpips-alexnet", fetch=False))
    arrays["conv0.weight"] = arrays["conv0.weight"] * np.float32(1.001)
    save_file(arrays, tmp_path / "tampered.safetensors")
    monkeypatch.setattr(weights, "path", lambda name, fetch: tmp_path / "tampered.safetensors")
    first, second, *_ = outcomes("lpips")
    assert (first.state, second.state) == ("FAILED", "FAILED")
    assert first.difference is not None
    assert first.difference > first.value.tolerance


@pytest.mark.parametrize(
    ("measured", "relative", "state"),
    [
        (200.0, False, "ok"),
        (200.9, False, "ok"),
        (201.1, False, "FAILED"),
        (398.0, True, "ok"),
        (401.0, True, "FAILED"),
        (math.nan, False, "FAILED"),
    ],
)
def test_tolerances(measured: float, relative: bool, state: str) -> None:
    metric = replace(base.metric("psnr/frame-mean"), compute=lambda features: measured)
    outcome = verify._checked(FIXTURES[0], Value("psnr/frame-mean", 200.0, 1.0, relative), metric, [[{}]])
    assert outcome.state == state
    assert verify.line(outcome).endswith(state)


def test_a_metric_that_refuses_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object) -> float:
        raise base.MetricError("no\nmore")

    monkeypatch.setitem(base._METRICS, "psnr/frame-mean", replace(base.metric("psnr/frame-mean"), compute=refuse))
    [outcome] = outcomes("psnr")
    assert (outcome.state, outcome.note, outcome.measured) == ("FAILED", "no more", None)
    assert verify.line(outcome).endswith("FAILED: no more")


def test_published_examples_of_lpips_and_cpbd(real: Callable[[str], Path]) -> None:
    here("lpips-alexnet")
    folder = real("lpips_examples").parent
    found, problems = verify.find(folder)
    assert problems == []
    assert {o.state for o in outcomes("lpips/alex", "cpbd", media=found)} == {"ok"}


# --- what is missing ---------------------------------------------------------------------------------------------


def test_what_is_missing_is_told_once_and_is_no_failure(no_weights: None) -> None:
    done = CliRunner().invoke(bench, ["verify", "lse-c", "lse-d", "cpbd", "fid/torch-fidelity"])
    assert done.exit_code == 0
    assert "unavailable: needs syncnet-v2 and 1 more" in done.output
    assert done.output.count("to get syncnet-v2: `bench weights") == 1
    assert "to get example.avi: GitHub QinSy77/syncnet_python" in done.output
    assert "data_batch_5.bin, test_batch.bin: CIFAR-10 binary version, " in done.output
    assert "cifar256" not in done.output
    assert done.output.splitlines()[-1] == "0 ok, 0 failed, 4 unavailable"


def test_what_is_slow_is_left_out_and_said_so(no_weights: None) -> None:
    without, asked = (CliRunner().invoke(bench, ["verify", "fvd", *option]) for option in ([], ["--slow"]))
    assert "left out, takes minutes: fvd/i3d-all-frames on noise" in without.output
    assert without.output.splitlines()[-1] == "0 ok, 0 failed, 1 unavailable"
    assert asked.output.splitlines()[-1] == "0 ok, 0 failed, 2 unavailable"


def test_an_unknown_name() -> None:
    done = CliRunner().invoke(bench, ["verify", "lpisp"])
    assert done.exit_code == 1
    assert "no value is published for 'lpisp'; did you mean 'lpips'?" in done.output


# --- media -------------------------------------------------------------------------------------------------------


@pytest.fixture
def medium(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The contents of the only known medium, five.txt."""
    contents = b"12345"
    five = Medium(5, hashlib.sha256(contents).hexdigest(), "a shop")
    monkeypatch.setattr(verify, "MEDIA", {"five.txt": five, "named.bin": Medium(6, "", "a shop")})
    return contents


def test_media_are_known_by_their_contents(medium: bytes, tmp_path: Path) -> None:
    deep = tmp_path / "Prüf daten" / "数据 1"
    deep.mkdir(parents=True)
    (tmp_path / "five.txt").write_bytes(b"54321")  # its name and size, not its contents
    (tmp_path / "other.bin").write_bytes(b"123456")
    (deep / "re named.dat").write_bytes(medium)
    (deep / "named.bin").write_bytes(b"654321")
    assert verify.find(tmp_path) == ({"five.txt": deep / "re named.dat", "named.bin": deep / "named.bin"}, [])


def test_only_files_of_a_known_size_are_read(medium: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "big").write_bytes(b"1" * 100)
    monkeypatch.setattr(verify.media, "file_sha256", lambda path: pytest.fail(f"{path} was read"))
    assert verify.find(tmp_path) == ({}, [])


def test_files_that_cannot_be_read_are_told(medium: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(medium)
    (tmp_path / "b").write_bytes(medium)
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    sha256 = verify.media.file_sha256

    def read(path: Path) -> str:
        if path.name == "a":
            raise PermissionError(13, "Permission denied", str(path))
        return sha256(path)

    monkeypatch.setattr(verify.media, "file_sha256", read)
    found, problems = verify.find(tmp_path)
    assert found == {"five.txt": tmp_path / "b"}
    assert problems == [f"{tmp_path / 'a'}: cannot be read (Permission denied)"]
    _, problems = verify.find(tmp_path / "missing")
    assert len(problems) == 1
    assert "missing: cannot be read (No such file" in problems[0]


# --- inputs ------------------------------------------------------------------------------------------------------


def batches(folder: Path, train: np.ndarray, validation: np.ndarray) -> dict[str, Path]:
    """CIFAR-10's binary batches with nothing but the images that are drawn."""
    paths = {name: folder / name for name in verify.BATCHES}
    for path in paths.values():
        with path.open("wb") as file:
            file.truncate(verify.MEDIA[path.name].bytes)
    for names, images in ((verify.BATCHES[:5], train), (verify.BATCHES[5:], validation)):
        drawn = np.sort(np.random.RandomState(2020).choice(10_000 * len(names), 256, replace=False))
        for k, picture in zip(drawn, images, strict=True):
            with paths[names[k // 10_000]].open("r+b") as file:
                file.seek(int(k % 10_000) * 3073 + 1)
                file.write(picture.tobytes())
    return paths


def test_cifar_from_its_published_files(tmp_path: Path) -> None:
    if not CIFAR.exists():
        pytest.skip("../shared/fixtures/fid/cifar256.npz is not on this machine")
    arrays = np.load(CIFAR)
    batches(tmp_path, arrays["tr"], arrays["va"])
    found, _ = verify.find(tmp_path)
    assert set(found) == set(verify.BATCHES)
    published, ours = verify._cifar(found), verify._cifar({"cifar256.npz": CIFAR})
    for side, name in (("real", "tr"), ("generated", "va")):
        for clips in (published[side], ours[side]):
            frames = np.concatenate([clip.view("frames") for clip in clips])  # type: ignore[union-attr]
            np.testing.assert_array_equal(frames, arrays[name].transpose(0, 2, 3, 1))


def test_files_that_only_have_the_names_of_cifar(tmp_path: Path) -> None:
    other = np.zeros((256, 3, 32, 32), np.uint8)
    with pytest.raises(Unavailable, match="not those of CIFAR-10's binary version"):
        verify._cifar(batches(tmp_path, other, other))


def test_noise_is_the_published_array() -> None:
    sides = verify._noise({})
    for seed, side in ((1, "generated"), (2, "real")):
        whole = np.random.RandomState(seed).rand(2, 16, 224, 224, 3).astype(np.float32)
        for expected, video in zip(whole, sides[side], strict=False):
            np.testing.assert_array_equal(video, expected)


def test_arrays_go_into_the_network_as_they_are() -> None:
    """Of a clip scaled by hand the features are those of its bytes; 1e-4 of logits of order 8."""
    here("i3d-kinetics-400")
    extractor = verify._extractor("i3d-all-frames")
    frames = np.stack([data.astronaut()[2 * k : 2 * k + i3d.SIZE, : i3d.SIZE] for k in range(10)])
    expected = extractor([ClipViews(np.arange(10), 25, frames=frames)])["features"]
    given = verify._extract(extractor, (frames / 127.5 - 1).astype(np.float32))["features"]
    np.testing.assert_allclose(given, expected, atol=1e-4)
    assert np.abs(verify._extract(extractor, (frames / 255).astype(np.float32))["features"] - expected).max() > 0.1
