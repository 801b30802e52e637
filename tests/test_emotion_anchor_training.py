"""The emotion-anchor transformer from clips to frames in a small size: it memorises, resumes, repeats, and says in one
line what does not fit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_emotion_anchor import mesh

from reference_models import fit as loop
from reference_models import training as shared
from reference_models.base import CHUNK, Footage, GenerationError, Request
from reference_models.emotion_anchor import audio, data, face, presets, training
from reference_models.emotion_anchor.presets import preset_of
from reference_models.emotion_anchor.sample import EmotionAnchor
from reference_models.training import Task, TrainingError

FRAMES, SIDE = 12, 32
MICRO = {
    "size": 16, "channels": [8, 16, 24], "blocks": 1, "groups": 4, "codes": 32, "code_width": 8, "recolour": False,
    "square": 0, "evened": False,
    "audio_channels": 4, "content": 12, "emotion": 6, "layers": 2, "heads": 2, "width": 32,
    "ema": 0.9, "warmup": 5,
}  # fmt: skip


def clip(identity: str, emotion: str, sentence: str | None = "s", **changes: object) -> Footage:
    """A face of one colour whose mouth opens when the sound is a high tone."""
    opens = np.arange(FRAMES) // 3 % 2 == 1
    colour = {"a": 90, "b": 160, "c": 120}[identity] + (20 if emotion == "happy" else 0)
    shown = np.full((FRAMES, SIDE, SIDE, 3), colour, np.uint8)
    shown[:, 4:10, 8:24] = 230 if emotion == "happy" else 30
    shown[opens, 20:26, 8:24] = (200, 20, 20)
    hertz = np.where(opens, 3000, 300).repeat(640)
    sound = (0.3 * np.sin(2 * np.pi * np.cumsum(hertz) / 16_000)).astype(np.float32)
    points = np.broadcast_to(mesh(SIDE, 0.0, 1.0), (FRAMES, 478, 3))
    made = Footage(
        clip_id=f"{identity}-{emotion}", dataset="d", identity=identity, emotion=emotion, intensity=3,
        sentence=sentence, source="", key=f"{identity}{emotion}{sentence}", num_frames=FRAMES, video=Path("none"),
        frames=lambda: iter(shown), points=lambda: points, audio=lambda: sound,
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


CLIPS = {
    "train": [clip(who, emotion) for who in "ab" for emotion in ("neutral", "happy")],
    "val": [clip("c", emotion) for emotion in ("neutral", "happy")],
}


def task(folder: Path, **changes: object) -> Task:
    given = {
        "preset": "tiny", "stages": training.STAGES, "clips": CLIPS, "folder": folder / "emotion-anchor-tiny",
        "cache": folder / "cache", "steps": 2, "options": MICRO,
    }  # fmt: skip
    return Task(**{**given, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module", autouse=True)
def _small_batches() -> Iterator[None]:
    """Batches of four: the presets' sizes are for real faces."""
    small = {name: replace(stage, batch=4, rate=3e-3) for name, stage in presets.TINY.stages.items()}
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(presets.PRESETS, "tiny", replace(presets.TINY, stages=small))
        yield


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained(_small_batches: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps a stage."""
    return training.train(task(tmp_path_factory.mktemp("trained"))).path


def request(shown: Footage, **changes: object) -> Request:
    frames = np.stack(list(shown.frames()))
    given = Request(
        reference=frames[0], audio=shown.audio(), sample_rate=16_000, emotion=shown.emotion, intensity=None,
        num_frames=FRAMES, fps=25, seed=0, target_frames=shown.frames, points=lambda: shown.points()[0],
        target_points=shown.points, emotion_video=None,
    )  # fmt: skip
    return replace(given, **changes)  # type: ignore[arg-type]


def frames_of(made: Iterator[np.ndarray]) -> np.ndarray:
    chunks = list(made)
    assert max(map(len, chunks)) <= CHUNK
    return np.concatenate(chunks)


def test_it_memorises_a_clip_and_reproduces_it(tmp_path: Path) -> None:
    """One person, neutral and happy: from a neutral frame with a closed mouth, the sound and the word, the clip."""
    own = {"train": CLIPS["train"][:2]}
    options = {**MICRO, "every": 1000, "words": 1.0, "square": 4, "evened": True, "guidance": 1.0}
    for stage, steps in (("audio", 40), ("vq", 1), ("transformer", 250)):
        done = training.train(task(tmp_path, clips=own, stages=(stage,), steps=steps, options=options))
        assert stage != "vq" or any("perplexity" in remark for remark in done.remarks)
    generator, inside = EmotionAnchor(done.path, "tiny", emotion="word"), np.s_[:, 3:27, 8:24]
    source = request(own["train"][0])
    for shown in own["train"]:
        where = face.upright(shown.points()[0], 16)
        best = np.stack([face.paste(f, face.cut(f, where, 16), where) for f in shown.frames()]).astype(float)
        made = frames_of(generator.generate(replace(source, emotion=shown.emotion, audio=shown.audio())))
        closed = np.abs(best[:1] - best)[inside].mean()  # of its own emotion, the mouth never open
        assert np.abs(made - best)[inside].mean() < 0.5 * closed, shown.emotion


def test_the_vqgan_learns_to_draw(tmp_path: Path) -> None:
    options = {**MICRO, "every": 1000, "size": 8, "channels": [16, 24]}
    training.train(task(tmp_path, stages=("vq",), steps=60, options=options))
    log = (tmp_path / "emotion-anchor-tiny" / "vq" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    first, last = (json.loads(log[k])["l1"] for k in (0, -1))  # means of ten steps
    assert last < 0.65 * first


def test_a_killed_training_ends_with_the_same_bytes(
    tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, done = loop._step, []

    def killed(*given: object) -> None:
        step(*given)  # type: ignore[arg-type]
        done.append(1)
        if len(done) in (1, 4, 7):  # once in every stage, after its first step
            raise KeyboardInterrupt

    options = {**MICRO, "every": 1}
    whole = training.train(task(tmp_path / "whole", options=options)).path
    monkeypatch.setattr(loop, "_step", killed)
    for _ in range(4):
        try:
            part = training.train(task(tmp_path / "part", options=options)).path
        except KeyboardInterrupt:
            continue
    assert len(done) > 6
    assert part.read_bytes() == whole.read_bytes()
    other = training.train(task(tmp_path / "other", seed=1)).path
    assert other.read_bytes() != trained.read_bytes()


def test_same_seed_same_video_in_chunks(trained: Path) -> None:
    long = request(CLIPS["val"][0], num_frames=CHUNK + 3)  # the sound is over before
    generator = EmotionAnchor(trained, "tiny")
    first = frames_of(generator.generate(long))
    assert first.shape == (CHUNK + 3, SIDE, SIDE, 3)
    assert np.array_equal(first, frames_of(EmotionAnchor(trained, "tiny").generate(long)))
    some = frames_of(generator.generate(replace(long, num_frames=4)))
    assert np.array_equal(some, first[:4])
    silent = replace(long, audio=np.zeros(1600, np.float32), num_frames=3)
    assert frames_of(generator.generate(silent)).shape == (3, SIDE, SIDE, 3)


def test_chance_follows_the_seed(tmp_path: Path) -> None:
    path = training.train(task(tmp_path, options={**MICRO, "top_k": 8})).path
    generator = EmotionAnchor(path, "tiny")
    one = request(CLIPS["val"][0])
    first, again, other = (frames_of(generator.generate(replace(one, seed=seed))) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_video_is_manipulated_frame_by_frame(trained: Path) -> None:
    generator, shown = EmotionAnchor(trained, "tiny", source="video"), CLIPS["val"][1]
    real = np.stack(list(shown.frames()))
    flash = np.where(np.arange(FRAMES)[:, None, None, None] == 5, 255 - real, real)
    plain, changed = (
        frames_of(generator.generate(request(shown, target_frames=lambda v=video: iter(v)))) for video in (real, flash)
    )
    different = (plain != changed).any((1, 2, 3))
    assert different.tolist() == [k == 5 for k in range(FRAMES)]  # each frame is made of its own source
    with pytest.raises(GenerationError, match="12 frames; 13 were asked for"):
        frames_of(generator.generate(request(shown, num_frames=13)))


def test_the_emotion_comes_from_the_emotional_sound(trained: Path) -> None:
    generator = EmotionAnchor(trained, "tiny")
    own = request(CLIPS["val"][0])
    loud = clip(
        "c", "happy", audio=lambda: np.random.default_rng(0).normal(0, 0.2, 9000).astype(np.float32), num_frames=14
    )
    coefficients = audio.coefficients(own.audio, FRAMES)
    driving = generator._emotion(own, coefficients)
    emotional = generator._emotion(replace(own, emotion_video=loud), coefficients)
    assert driving.shape == emotional.shape == (7, MICRO["emotion"])
    assert not torch.equal(driving, emotional)


def test_pairs_without_sentences_are_those_that_sound_alike(tmp_path: Path) -> None:
    noisy = np.random.default_rng(0).normal(0, 0.2, FRAMES * 640).astype(np.float32)
    clips = [
        clip("a", "neutral", None), clip("a", "happy", None), clip("b", "happy", None),
        clip("a", "sad", None, audio=lambda: noisy, key="noise"),
    ]  # fmt: skip
    views = data.Views(tmp_path, 16)
    assert data.same_content(clips, views) == [(0, 1)]
    assert data.same_content(CLIPS["train"], views) == [(0, 1), (2, 3)]
    with pytest.raises(TrainingError, match="no person says the same in two"):
        data.same_content([clip("a", "happy"), clip("b", "neutral"), clip("b", "unlabelled")], views)


def test_shuffled_conditions_give_every_clip_another_sound(tmp_path: Path) -> None:
    views = data.Views(tmp_path, 16)
    made = [
        data.sequences(CLIPS["train"], views, lambda clip: None, preset_of("tiny", {"shuffle_conditions": on}), 0, 2)
        for on in (False, True)
    ]
    assert made[0].heard == CLIPS["train"]
    assert all(
        one.key not in other.key.split("+")[1:] for one, other in zip(CLIPS["train"], made[1].heard, strict=True)
    )
    assert [one.emotion for one in made[1].heard] == ["happy", "neutral", "happy", "neutral"]
    calm = {views.squares(CLIPS["train"][0])[k].tobytes() for k in range(FRAMES)}
    assert {made[0].sources(CLIPS["train"][1], np.random.default_rng(k)).tobytes() for k in range(20)} <= calm


def test_stages_need_those_before_them_of_the_same_configuration(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="--stage audio"):
        training.train(task(tmp_path, stages=("transformer",)))
    training.train(task(tmp_path, stages=("audio", "vq")))
    with pytest.raises(TrainingError, match="codes was 32, now 16"):
        training.train(task(tmp_path, stages=("transformer",), options={**MICRO, "codes": 16}))
    with pytest.raises(TrainingError, match="lpips-vgg16 is missing"):
        training.train(task(tmp_path, preset="full", stages=("vq",)))
    with pytest.raises(TrainingError, match="none of two frames"):
        training.train(task(tmp_path, clips={"train": [clip("a", "happy", num_frames=1)]}))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"size": "x"}, "option size = 'x'; expected int, as 64"),
        ({"shuffle_conditions": "False"}, "option shuffle_conditions = 'False'; expected bool, as False"),
        ({"channels": 7}, "option channels = 7"),
        ({"top_k": 0}, "option top_k = 0; expected 1 or more"),
        ({"pkeep": 1.5}, "option pkeep = 1.5; expected a share"),
        ({"square": -4}, "option square = -4, channels = ()"),
        ({"square": 0}, "the channels of a VQGAN"),
        ({"square": 0, "channels": ["a"]}, "lists of whole numbers"),
        ({"square": 0, "channels": [6], "groups": 4}, "multiples of groups"),
        ({"discriminator": [6, 1]}, "a multiple of 4"),
        ({"size": 17}, "a multiple of a token's side"),
        ({"code_width": 400}, "three numbers for each pixel"),
        ({"code_width": 6}, "a multiple of 4"),
        ({"heads": 3}, "a multiple of heads"),
        ({"guidance": float("nan")}, "option guidance = nan"),
        ({"guidance": -1}, "option guidance = -1"),
        ({"unheard": 0}, "a share of training that hears nothing"),
    ],
)
def test_bad_options(tmp_path: Path, options: dict, told: str) -> None:
    with pytest.raises(TrainingError) as raised:
        training.train(task(tmp_path, options=options))
    assert told in str(raised.value)


def test_too_few_squares_and_a_clip_with_hardly_a_face(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"codes = 5000; expected at most the \d+ squares"):
        training.train(task(tmp_path, stages=("vq",), options={**MICRO, "square": 4, "codes": 5000}))
    lost = clip("b", "happy", points=lambda: np.full((FRAMES, 478, 3), np.nan), key="lost", clip_id="b-lost")
    with pytest.raises(TrainingError, match="b-lost: found no face"):
        training.train(task(tmp_path, stages=("vq",), clips={"train": [lost]}, options={**MICRO, "square": 4}))


def test_guidance_may_change_after_the_training(tmp_path: Path) -> None:
    for guidance in (1.0, 2.0):
        path = training.train(task(tmp_path, options={**MICRO, "guidance": guidance})).path
        assert EmotionAnchor(path, "tiny").preset.guidance == guidance


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"num_frames": 0}, "0 frames were asked for"),
        ({"reference": np.zeros(32, np.uint8)}, "expected 8-bit RGB"),
        ({"sample_rate": 44_100}, "44100 Hz; expected 16000"),
        ({"audio": np.zeros(0, np.float32)}, "one channel, not empty"),
        ({"audio": np.full(9, np.nan, np.float32)}, "not finite"),
        ({"reference": np.zeros((32, 32), np.uint8)}, "expected 8-bit RGB"),
        ({"reference": np.zeros((32, 32, 4), np.uint8)}, "expected 8-bit RGB"),
        ({"reference": np.zeros((8, 32, 3), np.uint8)}, "32 x 8 px; expected sides of 16"),
        ({"points": None}, "no face mesh"),
        ({"points": lambda: np.zeros((0, 3), np.float32)}, "found no face"),
        ({"emotion": "calm"}, "emotion 'calm'; this checkpoint was trained on happy, neutral"),
        ({"emotion": "contempt"}, "was trained on happy, neutral"),
    ],
)
def test_bad_requests(trained: Path, changes: dict, told: str) -> None:
    with pytest.raises(GenerationError, match=told) as raised:
        frames_of(EmotionAnchor(trained, "tiny", emotion="word").generate(request(CLIPS["val"][0], **changes)))
    assert "\n" not in str(raised.value)


def test_a_source_video_that_loses_its_face_is_named_with_the_frame(trained: Path) -> None:
    points = np.stack([mesh(SIDE, 0.0, 1.0)] * FRAMES)
    points[4] = np.nan
    given = request(CLIPS["val"][0], target_points=lambda: points)
    with pytest.raises(GenerationError, match=r"^frame 5 of the source video: found no face"):
        frames_of(EmotionAnchor(trained, "tiny", emotion="word", source="video").generate(given))


@pytest.mark.parametrize("sound", [np.full(16_000, np.nan, np.float32), np.zeros(0, np.float32)])
def test_an_emotional_sound_that_is_none_is_refused(trained: Path, sound: np.ndarray) -> None:
    given = request(CLIPS["val"][0], emotion_video=clip("c", "happy", audio=lambda: sound))
    with pytest.raises(GenerationError, match=r"^emotional sound of shape .* or not finite"):
        frames_of(EmotionAnchor(trained, "tiny").generate(given))


def test_detail_of_a_still_source_is_that_of_each_frame(trained: Path) -> None:
    """Drawn once for a picture, and frame by frame for a video that stands still."""
    own, shown = CLIPS["val"][0], next(CLIPS["val"][0].frames())
    still = request(own, target_frames=lambda: iter([shown] * FRAMES))
    one, each, plain = (
        frames_of(EmotionAnchor(trained, "tiny", emotion="word", **options).generate(still))  # type: ignore[arg-type]
        for options in ({"detail": 0.3}, {"detail": 0.3, "source": "video"}, {})
    )
    assert np.array_equal(one, each)
    assert not np.array_equal(one, plain)


def test_bad_checkpoints(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(GenerationError, match="preset tiny; expected emotion-anchor, preset full"):
        EmotionAnchor(trained, "full")
    with pytest.raises(GenerationError, match="emotion = 'text'; expected audio or word"):
        EmotionAnchor(trained, "tiny", emotion="text")  # type: ignore[arg-type]
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(trained.read_bytes()[:1000])
    with pytest.raises(GenerationError, match="damaged"):
        EmotionAnchor(cut, "tiny")
    config = {**shared.load(trained, "emotion-anchor", "tiny")[1]}
    tensors = load_file(trained)
    tensors.pop("transformer.bias")
    shared.save(cut, tensors, config)
    with pytest.raises(GenerationError, match="does not fit its own header"):
        EmotionAnchor(cut, "tiny")
