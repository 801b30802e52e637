"""Emotion priors: files of ours and DICE-Talk's published ones, hostile files, and `bench embed` from training to the
rows of Table 5."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import talkers
import tiny
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from benchmark import clusters as cluster_job
from benchmark.cli import bench
from pipelines import manifest, media
from reference_models import training
from reference_models.base import GenerationError
from reference_models.dice_talk import embedding, priors
from reference_models.dice_talk.priors import Priors

MU = np.linspace(-1, 1, 256, dtype=np.float32)[None]
EVERY = ("angry", "contempt", "disgusted", "fear", "happy", "neutral", "sad", "surprised")


def publish(path: Path, held: object) -> Path:
    """As DICE-Talk's files were written: an object array of no dimension."""
    np.save(path, np.array(held, object), allow_pickle=True)
    return path


# --- files -------------------------------------------------------------------------------------------------------


def test_priors_survive_their_file(tmp_path: Path) -> None:
    made = Priors({"sad": -MU, "happy": MU}, "mesh-64", "log-mel", "ab" * 32)
    priors.write(made, tmp_path / "priors.npz")
    priors.write(Priors({"happy": MU, "sad": -MU}, *["mesh-64", "log-mel", "ab" * 32]), tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "priors.npz").read_bytes()
    found = priors.read(tmp_path / "priors.npz")
    assert (found.coefficients, found.speech, found.embedder) == ("mesh-64", "log-mel", "ab" * 32)
    assert sorted(found.means) == ["happy", "sad"]
    np.testing.assert_array_equal(found["sad"], -MU)
    with pytest.raises(GenerationError, match=r"^no prior of emotion 'angry'; there are happy, sad$"):
        found["angry"]


def test_published_priors_are_read(tmp_path: Path) -> None:
    for number, emotion in enumerate(EVERY):
        publish(tmp_path / f"{emotion}.npy", {"mu": MU * number})
    found = priors.read(tmp_path)
    assert tuple(found.means) == EVERY
    assert found.embedder == "published"
    np.testing.assert_array_equal(found["fear"], MU * 3)
    np.testing.assert_array_equal(priors.read(tmp_path / "sad.npy")["sad"], MU * 6)
    (tmp_path / "empty").mkdir()
    with pytest.raises(GenerationError, match=r"no priors; expected <emotion>\.npy"):
        priors.read(tmp_path / "empty")


class Hostile:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def test_hostile_and_wrong_published_priors_are_one_line(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    whole = publish(tmp_path / "whole.npy", {"mu": MU}).read_bytes()
    large = tmp_path / "large.npy"
    large.write_bytes(whole + bytes(2 << 20))
    torn = tmp_path / "torn.npy"
    torn.write_bytes(whole[:-300])
    bare = tmp_path / "bare.npy"
    bare.write_bytes(pickle.dumps({"mu": Hostile(mark)}))
    cases = {
        publish(tmp_path / "hostile.npy", {"mu": Hostile(mark)}): r"asks for (posix|nt)\.mkdir; only numpy arrays",
        publish(tmp_path / "narrow.npy", {"mu": MU[:, :64]}): r"mu is float32 of shape \(1, 64\); expected \(1, 256\)",
        publish(tmp_path / "flat.npy", {"mu": MU[0]}): r"shape \(256,\); expected \(1, 256\)",
        publish(tmp_path / "nan.npy", {"mu": MU * np.nan}): "expected .* finite",
        publish(tmp_path / "ints.npy", {"mu": MU.astype(int)}): "mu is int64",
        publish(tmp_path / "other.npy", {"sigma": MU}): "no published prior",
        publish(tmp_path / "list.npy", {"mu": [1.0, 2.0]}): "mu is a list",
        publish(tmp_path / "objects.npy", {"mu": np.array([[None] * 256])}): "mu is object",
        large: "a published prior has some 1300",
        torn: "no published prior",
        bare: "no published prior",
        tmp_path / "missing.npy": "No such file",
    }
    for path, said in cases.items():
        with pytest.raises(GenerationError, match=said) as error:
            priors.read(path)
        assert str(error.value).startswith(path.name)
        assert "\n" not in str(error.value)
    assert not mark.exists()


def test_wrong_files_of_ours_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "priors.npz"
    made_with = {"coefficients": "mesh-64", "speech": "log-mel", "embedder": "0"}
    for held, said in (
        ({"sad": MU[:, :9], **made_with}, r"sad is float32 of shape \(1, 9\)"),
        ({"sad": MU}, "no file of priors"),
        (made_with, "priors of no emotion; `bench train dice-talk` makes them"),
        ({"sad": np.array([{}], object), **made_with}, "no file of priors"),
    ):
        np.savez(path, **held)
        with pytest.raises(GenerationError, match=said):
            priors.read(path)
    path.write_bytes(b"PK")
    with pytest.raises(GenerationError, match=r"^priors.npz: no file of priors"):
        priors.read(path)


# --- from training to Table 5 ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared dataset "talkers": points and sound of tests/talkers.py, pictures of noise."""
    workspace = tmp_path_factory.mktemp("workspace")
    folder = workspace / "data" / "talkers"
    folder.mkdir(parents=True)
    rows = []
    for who, split in (("a", "train"), ("b", "train"), ("c", "test")):
        for spoken in talkers.people(who, frames=12):
            take = int(spoken.clip_id[-1])
            name = spoken.clip_id
            media.write_video(folder / f"{name}.mp4", tiny.pictures(take, 12), 25)
            media.write_wav(folder / f"{name}.wav", talkers.sound(spoken.emotion, take, 12))
            np.savez(folder / f"{name}.npz", points=talkers.face(who, spoken.emotion, take, 12))
            digests = [media.file_sha256(folder / f"{name}.{kind}") for kind in ("mp4", "wav", "npz")]
            changes = dict(zip(("sha256", "audio_sha256", "landmarks_sha256"), digests, strict=True))
            rows.append(tiny.clip(name, who, spoken.emotion, split=split, dataset="talkers", **changes))
    manifest.write(rows, folder / "manifest.parquet")
    torch.set_num_threads(1)
    done = run(workspace, "train", "dice-talk-embedder", "--data", "talkers", "--preset", "tiny", "--steps", "3",
               "--option", "every=2", "--option", "window=8")  # fmt: skip
    assert done.endswith("dice-talk-embedder-tiny/dice-talk-embedder.safetensors\n")
    return workspace


def run(workspace: Path, *words: str, code: int = 0) -> str:
    done = CliRunner().invoke(bench, ["--workspace", str(workspace), *words])
    assert done.exit_code == code, done.output
    return done.output


def test_all_rows_of_table_5_come_from_one_command(workspace: Path) -> None:
    said = run(workspace, "embed", "--data", "talkers", "--checkpoint", "dice-talk-embedder-tiny")
    folder = workspace / "embeddings" / "dice-talk-embedder-tiny"
    checkpoint = workspace / "checkpoints" / "dice-talk-embedder-tiny" / "dice-talk-embedder.safetensors"
    embedder = embedding.load(checkpoint)
    for modality, name in (("audio", "audio"), ("video", "video"), ("both", "video + audio")):
        path = folder / f"talkers-test-{modality}.parquet"
        table = pq.read_table(path).to_pylist()
        assert [row["clip_id"] for row in table] == [f"c_{e}_{t}" for e in ("angry", "happy", "sad") for t in (0, 1)]
        assert {(row["identity"], row["split"], row["dataset"]) for row in table} == {("c", "test", "talkers")}
        strengths = cluster_job.measure(path, normalise=False, min_size=2, permutations=1000, seed=0)
        angry = next(s for s in strengths["centroid"] if s.emotion == "angry")
        row = next(line for line in said.splitlines() if line.startswith(f"| {name} |"))
        assert f"{angry.value:.2f}" in row
    assert (workspace / "tables" / "dice-talk-table-5").is_dir()
    assert "mesh-64, log-mel, embedder" in said
    # The priors are the means over the train split alone, and those that the training left.
    found = priors.read(folder / "talkers-priors.npz")
    assert (folder / "talkers-priors.npz").read_bytes() == checkpoint.with_name("priors.npz").read_bytes()
    assert found.embedder == embedder.digest
    run(
        workspace,
        "embed",
        "--data",
        "talkers",
        "--checkpoint",
        str(checkpoint),
        "--modality",
        "both",
        "--split",
        "train",
    )
    train = pq.read_table(folder / "talkers-train-both.parquet").to_pylist()
    for emotion in talkers.EMOTIONS:
        vectors = [row["embedding"] for row in train if row["emotion"] == emotion]
        assert len(vectors) == 4
        np.testing.assert_allclose(found[emotion][0], np.mean(vectors, 0), atol=1e-6)


def test_what_cannot_be_embedded_is_said(workspace: Path, tmp_path: Path) -> None:
    def refused(*words: str) -> str:
        said = run(workspace, "embed", "--data", "talkers", *words, code=1)
        assert said.count("\n") == 1
        return said

    assert "no such checkpoint; train it with `bench train dice-talk-embedder`" in refused("--checkpoint", "other")
    name = "dice-talk-embedder-tiny"
    assert "no clip in val; there are train 12, val 0, test 6" in refused("--checkpoint", name, "--split", "val")
    path = workspace / "checkpoints" / name / "dice-talk-embedder.safetensors"
    broken = tmp_path / "x.safetensors"
    broken.write_bytes(path.read_bytes()[:5000])
    assert "x.safetensors: no checkpoint of dice-talk-embedder, or damaged" in refused("--checkpoint", str(broken))
    tensors, config = training.load(path, "dice-talk-embedder")
    for changes, said in (
        ({"model": "eat-face"}, "is of eat-face, preset tiny; expected dice-talk-embedder"),
        ({"speech": "whisper-tiny@12345678"}, "trained on whisper-tiny@12345678, which is not on this machine"),
        ({"coefficients": "blendshapes-52"}, "no checkpoint of dice-talk-embedder, or damaged"),
        ({"size": {"depth": 3}}, "or damaged"),
    ):
        training.save(broken, tensors, config | changes)
        assert said in refused("--checkpoint", str(broken)), changes
    bare = {key: tensor for key, tensor in load_file(path).items() if key != "speech.mean"}
    training.save(broken, bare, config)
    assert "or damaged ('speech.mean')" in refused("--checkpoint", str(broken))
    save_file(tensors, broken)
    assert "or damaged" in refused("--checkpoint", str(broken))
    with pytest.raises(GenerationError, match=r"is of dice-talk-embedder, preset tiny; expected .* preset full"):
        embedding.load(path, "full")


def test_options_on_the_command_line(workspace: Path) -> None:
    def refused(*options: str) -> str:
        words = [word for option in options for word in ("--option", option)]
        said = run(workspace, "train", "dice-talk-embedder", "--data", "talkers", "--preset", "tiny", *words, code=1)
        assert re.fullmatch(r"Error: [^\n]+\n", said)
        return said

    assert "expected NAME=VALUE" in refused("window")
    assert "option 'widow'" in refused("widow=3")
    assert "option learning_rate = 'fast'; expected float" in refused("learning_rate=fast")
