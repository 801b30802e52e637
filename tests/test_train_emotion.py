"""The emotion classifier from a prepared dataset to Emo-Acc, through the commands, on pictures told apart by colour."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from click.testing import CliRunner, Result
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from samples import tone

from benchmark import engine, extraction, train, trained, weights
from benchmark.cli import bench
from benchmark.extraction import Extracted, Plan
from benchmark.protocol import Pair
from leaderboards import results
from metrics.base import Weights
from metrics.emotion_accuracy import EIGHT
from metrics.networks import vgg16
from pipelines import manifest, media
from pipelines.manifest import Clip

COLOURS = {"happy": (200, 60, 40), "sad": (40, 60, 200), "contempt": (60, 180, 60)}
FRAMES = 6
PROTOCOL = """
name = "emotions"
title = "A small test"
dataset = "tiny"
metrics = ["emo-acc/vgg16", "emo-acc-sad/vgg16", "emo-acc-contempt/vgg16", "emo-acc-real/vgg16"]
[select]
split = "SPLIT"
emotions = ["happy", "sad"]
[pairing]
reference = "first-frame"
"""
# Seven labels: contempt, which the data has, is left out by name.
COMMAND = "train emotion-classifier --data tiny --labels affectnet-7 --size 32 --frames-per-clip 3 --batch-size 4"
SHORT = f"{COMMAND} --learning-rate 1e-2 --steps 6 --workers 1"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def pictures(emotion: str, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    for _ in range(FRAMES):
        grey = rng.integers(-40, 40, (8, 8, 1))
        yield np.clip(COLOURS[emotion] + grey, 0, 255).astype(np.uint8).repeat(8, 0).repeat(8, 1)


def write_dataset(workspace: Path) -> list[Clip]:
    """WORKSPACE/data/tiny: of each emotion two clips to train on, one to validate, one to test."""
    folder, rows = workspace / "data" / "tiny", []
    names = [
        (split, word, k) for split, n in (("train", 2), ("val", 1), ("test", 1)) for word in COLOURS for k in range(n)
    ]
    for seed, (split, word, k) in enumerate(names):
        name = f"{split}_{word}_{k}"
        media.write_video(folder / f"{name}.mp4", pictures(word, seed), 25)
        media.write_wav(folder / f"{name}.wav", tone(FRAMES / 25))
        digests = {
            key: media.file_sha256(folder / f"{name}{end}")
            for key, end in (("sha256", ".mp4"), ("audio_sha256", ".wav"))
        }
        shape = {"num_frames": FRAMES, "width": 64, "height": 64}
        rows.append(tiny.clip(name, f"{split}{k}", word, split=split, **shape, **digests))
    manifest.write(rows, folder / "manifest.parquet")
    return rows


def seeded_start(path: Path) -> None:
    """VGG-16's shape with drawn weights, for machines without the network."""
    generator = torch.Generator().manual_seed(0)
    state = {name: tensor for name, tensor in vgg16.network(2).state_dict().items() if name.startswith("conv")}
    for tensor in state.values():
        scale = (2 / tensor[0].numel()) ** 0.5 if tensor.ndim == 4 else 0.0
        tensor.copy_(scale * torch.randn(tensor.shape, generator=generator))
    save_file(state, path)


def here(function: Callable, items: Iterable, *, workers: int) -> Iterator[engine.Outcome]:
    """engine.run without processes."""
    for item in items:
        try:
            yield engine.Outcome(item, function(item), None)
        except Exception as error:
            yield engine.Outcome(item, None, error)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of its own with nothing in it but the network that training starts from, and no processes."""
    at = tmp_path_factory.mktemp("machine")
    found = weights.status(train.START)
    with pytest.MonkeyPatch.context() as patch:
        if found.state == "ok":
            start, digest = weights.path(train.START, fetch=False), weights.digest(train.START)
        else:
            start, digest = at / "start.safetensors", "0" * 64
            seeded_start(start)
        path, of = weights.path, weights.digest
        patch.setattr(weights, "path", lambda name, **given: start if name == train.START else path(name, **given))
        patch.setattr(weights, "digest", lambda name: digest if name == train.START else of(name))
        patch.setattr(weights.platformdirs, "user_cache_path", lambda name: at / "cache")
        patch.delenv("BENCH_WEIGHTS", raising=False)
        patch.setattr(engine, "run", here)
        yield at


def run(workspace: Path, command: str) -> Result:
    return CliRunner().invoke(bench, ["--workspace", str(workspace), *command.split()])


@pytest.fixture(scope="module")
def workspace(machine: Path) -> Path:
    write_dataset(machine / "ws")
    return machine / "ws"


@pytest.fixture(scope="module")
def told(workspace: Path) -> str:
    """What the training printed."""
    done = run(workspace, SHORT)
    assert done.exit_code == 0, done.output
    return done.output


def file(workspace: Path) -> Path:
    return workspace / "checkpoints/emotion-classifier/tiny/emotion-classifier-vgg16.safetensors"


def card(path: Path) -> dict:
    with safe_open(path, framework="np") as opened:
        assert list(opened.metadata()) == ["card"]
        return json.loads(opened.metadata()["card"])


def test_it_learns_and_says_what_it_knows(workspace: Path, told: str) -> None:
    """The colours are told apart on clips that it never saw; contempt is left out by name."""
    assert "left out: 4 clips of contempt, no emotion of affectnet-7 that the train split has" in told
    assert [line.split()[:2] for line in told.splitlines()[-3:]] == [
        ["happy", "100.00%"], ["sad", "100.00%"], ["average", "100.00%"],
    ]  # fmt: skip
    says = card(file(workspace))
    assert says["classes"] == ["happy", "sad"]
    assert says["size"] == 32
    assert np.diag(says["real_test_frames"]["confusion"]).tolist() == [3 * (w in ("happy", "sad")) for w in EIGHT]
    clips = manifest.read(workspace / "data" / "tiny" / "manifest.parquet")
    used = [clip for clip in clips if clip.split in ("train", "val") and clip.emotion != "contempt"]
    assert says["trained_on"] == {
        "dataset": "tiny",
        "people": ["train0", "train1", "val0"],
        "footage": sorted({digest for clip in used for digest in (clip.sha256, clip.source_sha256)}),
    }
    assert weights.path(vgg16.NAME, fetch=False).read_bytes() == file(workspace).read_bytes()


def rows(workspace: Path, split: str) -> dict[str, results.Result]:
    tiny.protocol_file(workspace, PROTOCOL.replace("SPLIT", split), "emotions")
    extraction._build.cache_clear()
    done = run(workspace, "eval --method ground-truth --protocol emotions --workers 1")
    found = results.read(workspace / "results" / "emotions" / "ground-truth.parquet")
    assert done.exit_code == (all(row.value is None for row in found)), done.output
    return {row.metric: row for row in found}


def test_real_videos_of_the_test_split_are_scored(workspace: Path, told: str) -> None:
    """The ground truth shows what was asked for; what the classifier does not know is a reason, not a number."""
    found = rows(workspace, "test")
    for name in ("emo-acc/vgg16", "emo-acc-real/vgg16", "emo-acc-sad/vgg16"):
        assert found[name].value == 100, found[name]
    assert (found["emo-acc/vgg16"].n_used, found["emo-acc-sad/vgg16"].n_used) == (2, 1)
    assert "emo-acc-contempt/vgg16" not in found  # the protocol asks for none
    table = (workspace / "results/emotions/details/ground-truth/emo-acc_vgg16.csv").read_text().splitlines()
    assert table[0] == "asked," + ",".join(EIGHT)
    assert [line for line in table[1:] if not line.endswith(8 * ",0")] == [
        "happy,0,0,0,0,6,0,0,0", "sad,0,0,0,0,0,0,6,0",
    ]  # fmt: skip


def test_it_refuses_to_score_what_it_was_trained_on(workspace: Path, told: str) -> None:
    """Every clip of the train split, on both sides, whatever the method made of it."""
    why = "4x emotion-classifier-vgg16 was trained on this clip: it must not score it"
    found = rows(workspace, "train")
    for row in found.values():
        assert row.value is None
        assert row.n_used == 0
    assert why in (found["emo-acc/vgg16"].error or "")
    assert why in (found["emo-acc-real/vgg16"].error or "")


def test_the_raw_file_is_known_however_it_is_prepared(workspace: Path, told: str) -> None:
    at = file(workspace)
    need = ("generated", "emotion-vgg16")
    plan = Plan("tiny", workspace, (need,), {need[1]: {vgg16.NAME: Weights(at, weights.digest(vgg16.NAME))}}, {}, None)
    clips = {clip.clip_id: clip for clip in manifest.read(workspace / "data" / "tiny" / "manifest.parquet")}

    def refused(**changes: object) -> bool:
        values = {name: getattr(clips["test_sad_0"], name) for name in Clip.__slots__} | changes
        pair = Pair("p", tiny.clip(**values), None, None, "sad", "sad")  # type: ignore[arg-type]
        found = {"p": Extracted("p", keys={need: None})}  # type: ignore[dict-item]
        trained.refuse(plan, [pair], found)
        assert (need in found["p"].keys) != (need in found["p"].errors)
        return need in found["p"].errors

    assert not refused()
    assert refused(source_sha256=clips["train_sad_1"].source_sha256)
    assert refused(sha256=clips["val_sad_0"].sha256)
    assert not refused(identity="train0")  # another recording of a person that it knows
    assert not refused(source_sha256=clips["train_contempt_0"].source_sha256)  # left out of the training


@pytest.mark.slow
def test_interrupted_it_ends_with_the_same_bytes(
    machine: Path, workspace: Path, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = machine / "other"
    shutil.copytree(workspace / "data", other / "data")
    batch = train._batch

    def dies(files: object, settings: train.Settings, number: int) -> object:
        if number == 5:
            raise KeyboardInterrupt
        return batch(files, settings, number)  # type: ignore[arg-type]

    monkeypatch.setattr(train, "_batch", dies)
    with monkeypatch.context() as patch:
        patch.setattr(train, "EVERY", 6)
        patch.setattr(train.fit.Settings, "__post_init__", lambda self: object.__setattr__(self, "save_every", 2))
        assert run(other, SHORT).exit_code == 1
        assert [path.name for path in file(other).parent.glob("step-*")] == ["step-00000004"]
        monkeypatch.setattr(train, "_batch", batch)
        again = run(other, SHORT)
    assert again.exit_code == 0, again.output
    assert file(other).read_bytes() == file(workspace).read_bytes()


def test_frames_are_the_middles_of_equal_stretches(workspace: Path, told: str) -> None:
    clips = manifest.read(workspace / "data" / "tiny" / "manifest.parquet")
    clip = next(clip for clip in clips if clip.clip_id == "train_sad_1")
    kept = np.load(file(workspace).parent / "frames-32-3" / f"{clip.sha256}.npy")
    decoded = list(media.read_frames(workspace / "data" / "tiny" / clip.video))
    assert kept.shape == (3, 32, 32, 3)
    for frame, k in zip(kept, (1, 3, 5), strict=True):
        mean = decoded[k].reshape(32, 2, 32, 2, 3).mean((1, 3))
        np.testing.assert_allclose(frame, mean, atol=0.51)


def test_augmentation_is_drawn_and_modest() -> None:
    frame = np.tile(np.linspace(0, 255, 32, dtype=np.uint8)[:, None, None], (1, 32, 3))
    one, same, other = (train.augment(frame, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.dtype == np.uint8
    assert (one == same).all()
    assert (one != other).any()
    for seed in range(20):  # light and shift together move a ramp by less than a third of its range
        assert np.abs(train.augment(frame, np.random.default_rng(seed)).astype(int) - frame).mean() < 85


# --- what stops it is one line -----------------------------------------------------------------------------------


def rewrite(workspace: Path, to: Path, **changes: object) -> None:
    """The manifest with every clip changed, in a dataset "tiny" without files."""
    clips = manifest.read(workspace / "data" / "tiny" / "manifest.parquet")
    changed = [Clip(**(asdict(clip) | changes)) for clip in clips]  # type: ignore[arg-type]
    manifest.write(changed, to / "data" / "tiny" / "manifest.parquet")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"split": "test"}, "has no train split (test); prepare the dataset with another --split"),
        ({"emotion": "calm"}, "its train split has 0 of the emotions of affectnet-7 (calm); a classifier needs two"),
        ({"emotion": "sad"}, "its train split has 1 of the emotions of affectnet-7 (sad); a classifier needs two"),
        ({}, "No such file"),
    ],
)
def test_data_that_does_not_do(workspace: Path, tmp_path: Path, changes: dict, line: str) -> None:
    rewrite(workspace, tmp_path, **changes)
    done = run(tmp_path, SHORT)
    assert done.exit_code == 1
    if changes:
        assert done.output == f"Error: {tmp_path / 'data/tiny/manifest.parquet'}: {line}\n"
    else:
        assert done.output.startswith("Error: train_happy_0: ")
        assert done.output.endswith("run `bench manifest check tiny`\n")


def test_missing_weights_and_data(
    machine: Path, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no such manifest" in run(tmp_path, SHORT).output
    monkeypatch.undo()

    def missing(name: str, **given: object) -> Path:
        raise weights.WeightsUnavailable(name, f"bench weights fetch {name}")

    monkeypatch.setattr(weights, "path", missing)
    done = run(workspace, SHORT)
    assert done.output == "Error: lpips-vgg16 is not on this machine; get it with `bench weights fetch lpips-vgg16`\n"


def test_without_a_classifier_the_metric_says_how_to_train_one() -> None:
    entry = weights.entry(vgg16.NAME)
    assert entry.command == "bench train emotion-classifier --data NAME"
    assert "--data" in CliRunner().invoke(bench, ["train", "emotion-classifier", "--help"]).output


def test_a_damaged_frame_file_is_one_line(workspace: Path, told: str, tmp_path: Path) -> None:
    bad = tmp_path / "x.npy"
    bad.write_bytes(b"no array")
    with pytest.raises(train.BenchError, match="remove it, and the same command decodes it again"):
        train._read(bad)


def test_the_file_holds_the_network_alone(workspace: Path, told: str) -> None:
    state = load_file(file(workspace))
    assert state.keys() == vgg16.network(2).state_dict().keys()
    assert all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in state.values())
