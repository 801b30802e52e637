"""EAT-Face from clips to frames in its smallest size: stages, resuming, seeds, ablations, and files that do not fit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from reference_models import fit as loop
from reference_models.base import Footage, GenerationError, Request
from reference_models.eat_face import data, embedding, model, networks, presets, training
from reference_models.eat_face.sample import EatFace
from reference_models.fit import FitError
from reference_models.training import Task, TrainingError, load, save

FRAMES, SIDE = 9, 48
MICRO = {
    "size": 32, "vae": [8, 8], "unet": [8, 16], "width": 8, "speech_width": 6, "embedding": 16, "adapter": [2, 4],
    "groups": 4, "heads": 2, "ddim_steps": 4, "copies": 2, "prediction": "epsilon",
}  # fmt: skip


def clip(identity: str, emotion: str, number: int = 0) -> Footage:
    seed = int.from_bytes(hashlib.sha256(f"{identity}{emotion}{number}".encode()).digest()[:4], "big")
    rng = np.random.default_rng(seed)
    shown = rng.integers(0, 255, (FRAMES, SIDE, SIDE, 3), np.uint8)
    points = rng.uniform(14, 34, (FRAMES, 478, 3)).astype(np.float32)
    points[:, [127, 356], 0], points[:, [151, 152], 1] = (10, 38), (8, 40)
    sound = rng.normal(0, 0.1, FRAMES * 640).astype(np.float32)
    return Footage(
        clip_id=f"{identity}-{emotion}-{number}", dataset="d", identity=identity, emotion=emotion, intensity=3,
        sentence=None, source="", key=f"{identity}{emotion}{number}", num_frames=FRAMES, video=Path("none"),
        frames=lambda: iter(shown), points=lambda: points, audio=lambda: sound,
    )  # fmt: skip


CLIPS = {
    "train": [clip(who, emotion) for who in "ab" for emotion in ("neutral", "happy", "sad")],
    "val": [clip("c", emotion) for emotion in ("neutral", "happy")],
}


def task(folder: Path, **changes: object) -> Task:
    given = {
        "preset": "tiny", "stages": training.STAGES, "clips": CLIPS, "folder": folder / "eat-face-tiny",
        "cache": folder / "cache", "steps": 2, "options": MICRO,
    }  # fmt: skip
    return Task(**{**given, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return training.train(task(tmp_path_factory.mktemp("eat"))).path


def request(**changes: object) -> Request:
    shown = clip("z", "neutral")
    given = {
        "reference": next(shown.frames()), "audio": shown.audio(), "sample_rate": 16000, "emotion": "happy",
        "intensity": 3, "num_frames": FRAMES, "fps": 25, "seed": 5, "target_frames": clip("z", "sad").frames,
        "points": lambda: shown.points()[0], "target_points": clip("z", "sad").points,
    }  # fmt: skip
    return Request(**{**given, **changes})  # type: ignore[arg-type]


def video(generator: EatFace, **changes: object) -> np.ndarray:
    return np.concatenate(list(generator.generate(request(**changes))))


@torch.no_grad()
def strong(generator: EatFace) -> EatFace:
    """Two steps of training move no pixel: sound and emotion are made loud."""
    torch.manual_seed(0)
    loud = generator._networks
    loud.reconstructor.audio.mlp[2].weight.mul_(1000)
    if loud.controller is not None:
        loud.controller.network.controlnet_mid_block.weight.normal_()
        loud.controller.network.controlnet_cond_embedding.conv_out.weight.normal_()
    return generator


def test_it_trains_all_stages_and_leaves_a_file_of_each_and_samples(trained: Path) -> None:
    for stage in training.STAGES:
        assert (trained.parent / f"{stage}.safetensors").is_file()
    for stage in ("tfr", "controlnet", "finetune"):
        assert len(list((trained.parent / stage).glob("samples-*.png"))) == 1


def test_a_video_has_the_references_size_and_depends_on_its_seed_alone(trained: Path) -> None:
    generator = EatFace("tiny", trained)
    one = video(generator)
    assert one.shape == (FRAMES, SIDE, SIDE, 3)
    np.testing.assert_array_equal(one, video(EatFace("tiny", trained)))
    assert (one != video(generator, seed=6)).any()
    by_four = video(EatFace("tiny", trained, batch=4))
    assert np.abs(one.astype(int) - by_four).max() <= 1  # rounding; the noise is one for all frames


def test_sound_emotion_and_pose_reach_the_frames(trained: Path) -> None:
    generator = strong(EatFace("tiny", trained))
    one = video(generator)
    assert (one != video(generator, audio=clip("y", "sad").audio())).any()
    assert (one != video(generator, emotion="sad")).any()
    assert (one != video(strong(EatFace("tiny", trained, pose="target")))).any()


def test_sound_of_any_length_is_served(trained: Path) -> None:
    generator = EatFace("tiny", trained, ddim_steps=4)
    assert len(video(generator, audio=np.zeros(1600, np.float32), num_frames=40)) == 40
    assert len(video(generator, audio=np.zeros(16000 * 60, np.float32), num_frames=2)) == 2
    sizes = [len(chunk) for chunk in generator.generate(request(num_frames=70, audio=np.zeros(9, np.float32)))]
    assert sizes == [32, 32, 6]


def test_a_killed_training_ends_with_the_same_weights(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SAVE_EVERY", 1)
    step, count = loop._step, 0

    def killed(*arguments: object) -> None:
        nonlocal count
        count += 1
        if count == 10:  # within "eve" or so, after its first checkpoint
            raise KeyboardInterrupt
        step(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        training.train(task(tmp_path))
    monkeypatch.setattr(loop, "_step", step)
    again = training.train(task(tmp_path)).path
    assert again.read_bytes() == trained.read_bytes()


def test_ablations_leave_their_part_out_and_share_what_comes_before(trained: Path) -> None:
    for ablation, lacking in (("wo-eve", "joint"), ("wo-fec", "controller"), ("wo-emo", "controller")):
        folder = trained.parent.with_name(f"eat-face-tiny-{ablation}")
        path = training.train(replace(task(trained.parent.parent), folder=folder, ablation=ablation)).path
        assert not any(name.startswith(lacking) for name in load_file(path))
        assert not (folder / "tfr").exists()
        generator = strong(EatFace("tiny", path))
        if ablation == "wo-fec":
            generator._networks.pair.tokens.weight.mul_(1000)  # type: ignore[attr-defined]
        changes = (video(generator) != video(generator, emotion="sad")).any()
        assert changes == (ablation != "wo-emo")


def test_its_embeddings_are_tables_of_the_clips_of_people_with_a_neutral_one(trained: Path) -> None:
    loaded = networks.read(trained, networks.preset_of(trained), {}, "cpu")
    made = embedding.embed(loaded, [*CLIPS["train"], clip("e", "happy")])
    assert (made.left_out, len(made.clips)) == (["e"], 6)
    assert {name: one.shape for name, one in made.vectors.items()} == {
        "pictures-before": (6, 16), "words-before": (6, 16), "pictures-after": (6, 16), "conditions": (6, 16),
    }  # fmt: skip
    text = loaded.words()[1]
    assert torch.equal(torch.from_numpy(made.vectors["words-before"][1]), text[data.EMOTIONS.index("happy")])
    with pytest.raises(GenerationError, match="no joint embedding"):
        embedding.embed(replace(loaded, joint=None, ablation="wo-eve"), CLIPS["train"])


def test_a_checkpoint_of_another_preset_or_a_damaged_one_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(GenerationError, match="is of eat-face, preset tiny; expected eat-face, preset full"):
        EatFace("full", trained)
    tensors = load_file(trained)
    tensors.pop(next(iter(tensors)))
    from safetensors import safe_open

    with safe_open(trained, "pt") as file:
        save_file(tensors, tmp_path / "x.safetensors", file.metadata())
    with pytest.raises(GenerationError, match="is of another configuration"):
        EatFace("tiny", tmp_path / "x.safetensors")
    (tmp_path / "y.safetensors").write_bytes(trained.read_bytes()[:1000])
    with pytest.raises(GenerationError, match=r"y.safetensors: no checkpoint"):
        EatFace("tiny", tmp_path / "y.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        {"size": 0}, {"size": "32"}, {"heads": 0}, {"groups": 3}, {"vae": []}, {"alpha": "x"}, {"guidance": np.nan},
        {"ddim_steps": 5000}, {"prediction": "foo"}, {"own_encoders": False}, {"name": "huge"}, {"stages": 3},
    ],
)  # fmt: skip
def test_a_header_that_was_altered_is_refused_in_one_line(
    trained: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    tensors, config = load(trained, "eat-face")
    for other in ({**config["configuration"], **change}, "none", None, []):
        save(tmp_path / "x.safetensors", tensors, {**config, "configuration": other})
        with pytest.raises(GenerationError, match=r"^x.safetensors: its configuration is not this version's") as caught:
            EatFace("tiny", tmp_path / "x.safetensors")
        assert "\n" not in str(caught.value)


def test_no_tensor_of_a_checkpoint_is_dropped_and_none_may_be_no_number(trained: Path, tmp_path: Path) -> None:
    tensors, config = load(trained, "eat-face")
    save(tmp_path / "x.safetensors", tensors, {**config, "ablation": "wo-emo"})
    with pytest.raises(GenerationError, match="also holds controller, joint; is it of another ablation"):
        EatFace("tiny", tmp_path / "x.safetensors")
    save(tmp_path / "x.safetensors", {name: tensor * np.nan for name, tensor in tensors.items()}, config)
    with pytest.raises(GenerationError, match="not finite; its checkpoint is damaged"):
        video(EatFace("tiny", tmp_path / "x.safetensors"))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"batch": "8"}, "batch '8'"),
        ({"batch": True}, "batch True"),
        ({"ddim_steps": 1000}, "ddim_steps 1000; expected a divisor"),
        ({"ddim_steps": "5"}, "ddim_steps '5'"),
        ({"detail": True}, "detail True"),
    ],
)
def test_options_of_the_method_that_cannot_be_are_refused(trained: Path, options: dict, told: str) -> None:
    with pytest.raises(GenerationError, match=told):
        EatFace("tiny", trained, **options)


def test_the_masked_latents_do_not_show_what_the_mask_hides(trained: Path, tmp_path: Path) -> None:
    """z_m of a training clip, and of a portrait: other pixels inside the box change nothing."""
    loaded = networks.read(trained, "tiny", {}, "cpu")
    parts, own = (loaded.codec, loaded.speech, loaded.pair), CLIPS["train"][0]
    shown = np.stack(list(own.frames()))
    shown[:, 14:34, 14:34] = 0  # the box is 10 to 38 and 8 to 40
    hidden = replace(own, frames=lambda: iter(shown), key="hidden")
    one, other = (data.prepare(of, 0, parts, ["a", "b", "c"], loaded.preset, tmp_path) for of in (own, hidden))
    assert np.array_equal(one.hidden, other.hidden)
    assert not np.array_equal(one.latents, other.latents)
    points = own.points()[:1]
    box = model.boxes(torch.from_numpy(points), SIDE, SIDE)
    generator = EatFace("tiny", trained)
    of = [
        next(generator._hidden(request(), data.to_tensor(data.resized(frame, 32, 32)[None]), box))[1]
        for frame in (next(own.frames()), shown[0])
    ]
    assert torch.equal(*of)


def test_the_controller_starts_as_the_trained_reconstructors_encoder(tmp_path: Path) -> None:
    tiny = presets.TINY
    still = {**tiny.stages, "controlnet": replace(tiny.stages["controlnet"], rate=1e-12)}
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(presets.PRESETS, "tiny", replace(tiny, stages=still))
        training.train(task(tmp_path, stages=training.STAGES[:-1]))
    tfr, controller = (load_file(tmp_path / "eat-face-tiny" / f"{name}.safetensors") for name in ("tfr", "controlnet"))
    name = "down_blocks.0.resnets.0.conv1.weight"
    torch.testing.assert_close(
        controller[f"controller.network.{name}"], tfr[f"reconstructor.unet.{name}"], rtol=0, atol=1e-7
    )


def test_stages_of_other_options_do_not_mix(tmp_path: Path) -> None:
    first = training.STAGES[: training.STAGES.index("eve")]
    training.train(task(tmp_path, stages=first))
    with pytest.raises(TrainingError, match=r"vae.safetensors: was trained with other options, other clips or after"):
        training.train(task(tmp_path, stages=("eve",), options={**MICRO, "prediction": "sample"}))
    other = task(tmp_path, ablation="wo-emo", stages=("finetune",), options={**MICRO, "prediction": "sample"})
    with pytest.raises(TrainingError, match=r"--stage vae --fresh, without --ablation$"):
        training.train(replace(other, folder=tmp_path / "eat-face-tiny-wo-emo"))
    training.train(task(tmp_path, stages=("eve",), options={**MICRO, "alpha": 0.9}))  # those before never see it
    with pytest.raises(TrainingError, match=r"eve.safetensors: was trained with .* --stage eve --fresh"):
        training.train(task(tmp_path, stages=("controlnet",)))
    training.train(task(tmp_path, stages=("vae",), seed=1, resume=False))
    with pytest.raises(TrainingError, match=r"speech.safetensors: was trained with .* --stage speech --fresh"):
        training.train(task(tmp_path, stages=("eve",)))


def test_an_ablation_made_anew_keeps_the_whole_models_stages(trained: Path) -> None:
    before = (trained.parent / "tfr.safetensors").read_bytes()
    folder = trained.parent.with_name("eat-face-tiny-wo-emo")
    asked = replace(task(trained.parent.parent), folder=folder, ablation="wo-emo", resume=False)
    done = training.train(asked)
    assert (trained.parent / "tfr.safetensors").read_bytes() == before
    assert done.path.parent == folder


def test_trainings_that_cannot_start_say_why(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="needs sd-vae, clip-vit-large-patch14, wav2vec2-base"):
        training.train(task(tmp_path, preset="full", options={}))
    with pytest.raises(TrainingError, match="stage vae comes first"):
        training.train(task(tmp_path, stages=("tfr",)))
    with pytest.raises(TrainingError, match="has no such stage"):
        training.train(task(tmp_path, stages=("eve",), ablation="wo-emo"))
    with pytest.raises(TrainingError, match="no clip of the train split shows one of EAT-Face's emotions: angry"):
        training.train(task(tmp_path, clips={"train": [replace(CLIPS["train"][0], emotion="calm")]}))
    with pytest.raises(FitError, match="holds another run"):
        training.train(task(trained.parent.parent, options={**MICRO, "alpha": 0.4}))


def test_nobody_neutral_nothing_emotionless(tmp_path: Path) -> None:
    items = [data.Item(clip("a", "happy"), 0, *(np.zeros((2, 1)),) * 4)]
    with pytest.raises(TrainingError, match="emotionless pictures"):
        data.Draw(items, 0)


def test_batches_of_the_joint_embedding_hold_no_emotion_twice_and_references_are_neutral() -> None:
    def item(one: Footage, value: float) -> data.Item:
        return data.Item(
            one, 0, np.full((3, 1, 1, 1), value), np.zeros((3, 1, 1, 1)), np.zeros((4, 2)), np.full((3, 1), value)
        )

    emotions = ("neutral", "happy", "sad", "angry")
    items = [item(clip(who, e), 10 * k + emotions.index(e)) for k, who in enumerate("ab") for e in emotions]
    draw = data.Draw(items, 3)
    for number in range(10):
        batch = draw.distinct(number, 8)
        assert sorted(batch["word"].tolist()) == sorted(data.EMOTIONS.index(word) for word in emotions)
        person = batch["face"][:, 0] // 10
        assert (batch["calm"][:, 0] == 10 * person).all()  # neutral, of the same person
        again = data.Draw(items, 3).distinct(number, 8)
        assert all(torch.equal(batch[name], again[name]) for name in batch)
        same = draw.reconstruction(number, 6)
        assert (same["reference"].flatten() == same["clean"].flatten()).all()  # x_r is of the clip itself


def test_people_without_a_neutral_clip_are_left_out_aloud(tmp_path: Path) -> None:
    clips = {"train": [*CLIPS["train"], clip("d", "happy")], "val": [clip("c", "happy")]}
    told = training.train(task(tmp_path, clips=clips, stages=training.STAGES[:4])).remarks
    assert "2 of 14 items of split train left out: nobody neutral to them" in told
    assert "nothing is validated: the val split has no clip of emotion neutral" in told


def test_clips_of_other_emotions_are_left_out_aloud(tmp_path: Path) -> None:
    kept, told = data.usable([*CLIPS["train"], replace(clip("d", "happy"), emotion="calm")])
    assert len(kept) == len(CLIPS["train"])
    assert told == ["1 clips left out: calm is none of EAT-Face's emotions"]
